"""How busy the machine is: benchmarks here compare programs that use every core, and other work spoils that.

    python tests/bench/machine.py

A peer whose threads wait for each other in loops suffers far more than a factor of two when one of them has to share
its core (a PyTorch product of 1 ms then takes a scheduler's 8 or 16 ms), so ratios from a busy machine say nothing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

QUIET = 0.1  # of all cores' time


def busy(seconds: float = 0.5) -> float:
    """The share of all cores' time that others use while this process sleeps; 0 where /proc/stat is missing."""

    def sample() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # all of it; idle and waiting for a disk

    try:
        total, idle = sample()
        time.sleep(seconds)
        total_after, idle_after = sample()
    except (OSError, ValueError):
        return 0.0
    elapsed = total_after - total
    return 1.0 - (idle_after - idle) / elapsed if elapsed else 0.0


def state() -> str:
    """One line about the machine, with a warning if what is measured now cannot be relied on."""
    share = busy()
    text = f"{os.cpu_count()} cores, {share:.0%} busy with other work before the start"
    return text if share <= QUIET else f"{text}: NOT QUIET, do not rely on these ratios"


if __name__ == "__main__":
    print(state())
