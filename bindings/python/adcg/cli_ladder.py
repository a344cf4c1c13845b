"""``python -m adcg ladder``: the best ladder for a histogram of steps, beside those that serving engines use."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import adcg

from . import errors
from .ladder import LADDERS, LadderBudget, LadderCost

EPILOG = """The histogram is CSV, one `tokens,steps` a line (a line of `tokens` alone is one step; blank lines, lines
that begin with # and a heading are passed over), or JSON: {"tokens": steps, ...}, [[tokens, steps], ...], or the sizes
of the steps [tokens, ...]. Bytes and time are shown where a price is given."""


def add(commands: Any) -> None:
    """Adds the command to the parser's."""
    command = commands.add_parser("ladder", help="the best buckets for a histogram of steps", epilog=EPILOG)
    command.add_argument("histogram", metavar="FILE", help="CSV or JSON; - for standard input")
    helps = {
        "max_buckets": "at most so many buckets",
        "max_tokens": "no bucket is larger, steps above run eagerly (default: the largest step)",
        "bytes_per_bucket": "memory of a bucket, whatever its size",
        "bytes_per_token": "and for each token of its size",
        "max_bytes": "of all buckets",
        "ns_per_bucket": "time to capture a bucket, in nanoseconds, whatever its size",
        "ns_per_token": "and for each token of its size",
        "max_ns": "to capture all buckets",
    }
    for name, text in helps.items():
        command.add_argument(f"--{name.replace('_', '-')}", type=int, default=0, metavar="N", help=text)
    command.add_argument("--allow-eager", action="store_true", help="rather than fail where the budget is too small")
    command.add_argument("--max-seqs", type=int, default=256, metavar="N", help="of a step, for vllm and sglang")
    command.add_argument("--format", choices=("text", "json"), default="text")
    command.set_defaults(run=run)


def _entry(where: str, parts: list[Any]) -> tuple[int, int]:
    """(tokens, steps) of one entry: a pair, or a size alone."""
    try:
        if len(parts) > 2 or any(isinstance(part, float) for part in parts):
            raise ValueError
        tokens, steps = int(parts[0]), int(parts[1]) if len(parts) == 2 else 1
    except (IndexError, TypeError, ValueError):
        raise adcg.AdcgError(errors.ERR_ARGUMENT, f"{where}: not tokens and steps: {parts}") from None
    if steps < 1:  # before a sum could hide it
        raise adcg.AdcgError(errors.ERR_ARGUMENT, f"{where}: steps: {steps}, must be at least 1")
    return tokens, steps


def parse(text: str, where: str = "histogram") -> dict[int, int]:
    """The histogram of a CSV or JSON text, entries of one size added up."""
    entries: list[tuple[int, int]] = []
    if text.lstrip()[:1] in ("{", "["):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise adcg.AdcgError(errors.ERR_ARGUMENT, f"{where}: JSON: {error}") from None
        items = list(data.items()) if isinstance(data, dict) else data
        for i, item in enumerate(items):
            entries.append(_entry(f"{where}[{i}]", list(item) if isinstance(item, list | tuple) else [item]))
    else:
        rows = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
        rows = [(n, line) for n, line in rows if line and not line.startswith("#")]
        for i, (number, line) in enumerate(rows):
            parts = [part.strip() for part in line.split(",")]
            if i == 0 and not any(part.lstrip("+-")[:1].isdigit() for part in parts):
                continue  # a heading
            entries.append(_entry(f"{where}:{number}", parts))
    counts: Counter[int] = Counter()
    for tokens, steps in entries:
        counts[tokens] += steps
    return dict(counts)


def _read(file: str) -> dict[int, int]:
    if file == "-":
        return parse(sys.stdin.read(), "standard input")
    try:
        return parse(Path(file).read_text(), file)
    except (OSError, UnicodeDecodeError) as error:
        raise adcg.AdcgError(errors.ERR_ARGUMENT, f"{file}: {error}") from None


def compare(histogram: dict[int, int], budget: LadderBudget, max_seqs: int) -> dict[str, tuple[list[int], LadderCost]]:
    """The chosen ladder and the named ones, with what each costs."""
    chosen = adcg.choose_ladder(histogram, budget)
    limit = budget.max_tokens or max(histogram)
    ladders = {"chosen": chosen, **{name: adcg.named_ladder(name, limit, max_seqs) for name in LADDERS}}
    return {name: (ladder, adcg.ladder_cost(histogram, ladder, budget)) for name, ladder in ladders.items()}


def least_padding(histogram: dict[int, int], ladder: list[int]) -> int | None:
    """What the best ladder with as many buckets, none above this one's largest, pads; None if it holds no step."""
    if not ladder or ladder[-1] < min(histogram):
        return None
    best = adcg.choose_ladder(histogram, max_buckets=len(ladder), max_tokens=ladder[-1])
    return adcg.ladder_cost(histogram, best).padded_tokens


def run(args: argparse.Namespace) -> int:
    histogram = _read(args.histogram)
    budget = LadderBudget(**{field.name: getattr(args, field.name) for field in fields(LadderBudget)})
    compared = compare(histogram, budget, args.max_seqs)
    least = {name: least_padding(histogram, ladder) for name, (ladder, _) in compared.items()}
    if args.format == "json":
        out = {
            name: {
                **{k: v for k, v in asdict(cost).items() if k != "buckets"},
                "least_padding": least[name],
                "ladder": ladder,
            }
            for name, (ladder, cost) in compared.items()
        }
        print(json.dumps(out, indent=1))
        return 0
    chosen, cost = compared["chosen"]
    print(f"{cost.steps:,} steps of {len(histogram):,} sizes up to {max(histogram):,}, {cost.real_tokens:,} tokens\n")
    heading = ["ladder", "buckets", "largest", "padded", "of run", "best of as many", "eager steps"]
    priced = {
        "bytes": budget.bytes_per_bucket or budget.bytes_per_token,
        "capture": budget.ns_per_bucket or budget.ns_per_token,
    }
    rows = [heading + [name for name, price in priced.items() if price]]
    for name, (ladder, cost) in compared.items():
        best = least[name]
        row = [name, f"{len(ladder):,}", f"{ladder[-1]:,}" if ladder else "-", f"{cost.padded_tokens:,}"]
        row += [f"{100 * cost.padded_share:.2f} %", "-" if best is None else f"{best:,}", f"{cost.eager_steps:,}"]
        shown = {"bytes": f"{cost.bytes:,}", "capture": f"{cost.ns / 1e9:.3f} s"}
        rows.append(row + [text for kind, text in shown.items() if priced[kind]])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells))
    print(f"\nchosen: {','.join(map(str, chosen))}")
    return 0
