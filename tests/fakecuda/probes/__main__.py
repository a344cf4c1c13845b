"""Further call sequences for a CUDA driver, one line each; probes.txt is what a real one answered.

    python3 probes [NAME ...]        prints one line per probe; needs libcuda.so.1 and the standard library alone

What sequences.c leaves open: which calls a capture refuses in each mode, what events and joins do to it, what an
executable can be updated to, which handles are checked. Every probe runs in a process of its own; <signal N> says that
it killed it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from world import PROBES, World

PARTS = ["legality", "capturing", "graphs", "updates", "handles", "devices"]  # each adds its probes


def main() -> None:
    for part in PARTS:
        importlib.import_module(part)
    for name in sys.argv[1:] or PROBES:
        sys.stdout.write(f"{name}:")
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            w = World()
            try:
                w.setup()
                PROBES[name](w)
            except BaseException as error:
                w.say("raised", f"{type(error).__name__}: {error}")
            sys.stdout.write("\n")
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            sys.stdout.write(f" <signal {os.WTERMSIG(status)}>\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
