"""What a serving run came to, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import adcg
from runner import Runner
from schedule import Request
from tabulate import tabulate


@dataclass
class Tally:
    """What the run came to."""

    steps: Counter[tuple[str, int, int]] = field(default_factory=Counter)  # by mode and bucket
    tokens: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    padded: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)  # steps by their tokens
    seconds: float = 0.0  # in replays
    eager_seconds: float = 0.0  # in the same steps, eager
    timed_tokens: int = 0
    timed_steps: int = 0
    captures: int = 0
    capture_seconds: float = 0.0
    differing: int = 0  # steps whose logits differ from eager's

    def add(self, step: adcg.Step, tokens: int) -> None:
        key = (step.mode, step.bucket_tokens, step.bucket_seqs)
        self.steps[key] += 1
        self.tokens[key] += tokens
        self.padded[key] += step.padded_tokens
        self.reasons[step.reason] += 1
        self.sizes[tokens] += 1


def section(title: str, rows: list[list[Any]], headers: Sequence[str]) -> None:
    print(f"\n{title}")
    print(tabulate(rows, headers=headers, tablefmt="simple", intfmt=",", floatfmt=",.2f"))


def report(tally: Tally, runner: Runner, forecast: adcg.Forecast, checked: bool) -> None:
    rows: list[list[Any]] = []
    for mode, tokens, seqs in sorted(tally.steps):
        key = (mode, tokens, seqs)
        size = f"{tokens} tokens, {seqs} seqs" if mode != "eager" else f"{tokens} tokens, {seqs} seqs (as it came)"
        rows.append([mode, size, tally.steps[key], tally.tokens[key], tally.padded[key]])
    total = ["total", "", tally.steps.total(), tally.tokens.total(), tally.padded.total()]
    section("steps", [*rows, total], ["mode", "bucket", "steps", "tokens", "padded tokens"])

    explained = {
        "none": "none: one full graph",
        "mode": "mode: the exec's mode has nothing better",
        "support": "support: an op's capture support does not cover such a batch",
        "too_large": "too_large: larger than the largest bucket",
        "not_captured": "not_captured: no bucket captured for it",
        "capture_failed": "capture_failed: its bucket failed",
    }
    rows = [[explained.get(reason, reason), count] for reason, count in tally.reasons.most_common()]
    section("fallbacks", rows, ["why not one full graph", "steps"])

    stats = runner.exec.stats()
    bound = forecast.lower_bound_bytes
    rows = [
        ["arena", stats.arena_bytes, stats.arena_bytes / bound if bound else None],
        ["  peak-liveness bound", bound, 1.0],
        ["  sum over buckets", forecast.bucket_sum_bytes, forecast.bucket_sum_bytes / bound if bound else None],
        ["tapes", stats.tape_bytes, None],
        ["metadata", stats.metadata_bytes, None],
        ["total held now", stats.total_bytes, None],
        ["total forecast", forecast.total_bytes, None],
        ["staged copies", stats.staged_bytes, None],
    ]
    section("memory", rows, ["", "bytes", "x bound"])

    def speed(name: str, seconds: float) -> list[Any]:
        us = seconds / max(1, tally.timed_steps) * 1e6
        return [name, f"{tally.timed_tokens / seconds:,.0f}" if seconds else "-", us]

    rows = [speed("replay", tally.seconds)]
    if checked:
        rows.append(speed("eager", tally.eager_seconds))
        if tally.seconds:
            rows.append(["replay / eager", f"{tally.eager_seconds / tally.seconds:.2f}x", None])
    if tally.captures:
        rows.append([f"{tally.captures} sizes captured on first use", None, tally.capture_seconds * 1e6])
    section("speed", rows, ["", "tokens/s", "us a step"])


def print_requests(
    requests: Sequence[Request], decode: Callable[[Sequence[int]], str], readable: bool, unit: str
) -> None:
    print("\nrequests")
    for r in requests:
        print(
            f"--- request {r.number}: prompt {len(r.prompt)} {unit}, wrote {len(r.written)}; arrived before step "
            f"{r.arrival}, slot {r.slot}, steps {r.started} to {r.finished}"
        )
        print(f"{decode(r.prompt)}«{decode(r.written)}»" if readable else decode(r.written))
