"""Prints one table a ladder: each model's bound and arena, and what other policies would hold. See the package."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import adcg
from tabulate import tabulate

from . import models, ops, policies

MIB = 1 << 20
ROUNDS = 5


def even_ladder(max_tokens: int) -> list[int]:
    """This library's own list: 64, 128, ... and the limit."""
    return sorted({*range(64, max_tokens, 64), max_tokens})


def vllm_ladder(max_tokens: int) -> list[int]:
    """vLLM's pattern: 1, 2, 4, then steps of 8 below 256 and of 16 from there. Its default ends at 512 (1,024 on some
    GPUs) or twice max_num_seqs; here it goes on to the limit."""
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, max_tokens + 1, 16)]
    return sorted({*(size for size in sizes if size <= max_tokens), max_tokens})


LADDERS: dict[str, Callable[[int], list[int]]] = {"even": even_ladder, "vllm": vllm_ladder}


@dataclass(frozen=True)
class Measured:
    """One model under one ladder; ``held`` are bytes by policy."""

    name: str
    plan: Mapping[str, Any]
    plan_ms: float
    planner_ms: float
    held: Mapping[str, int]

    @property
    def gap(self) -> int:
        return int(self.plan["arena_bytes"] - self.plan["lower_bound_bytes"])

    def row(self) -> list[object]:
        arena = self.plan["arena_bytes"]
        activations = sum(value["role"] == "activation" for value in self.plan["values"])
        bound = f"{self.plan['lower_bound_bytes'] / MIB:,.1f}"
        cells: list[object] = [self.name, activations, self.plan["num_dynamic_ops"], bound, f"{arena / MIB:,.1f}"]
        cells += [f"{self.gap / MIB:,.1f}", f"{self.plan_ms:.0f}", f"{self.planner_ms:.0f}"]
        return cells + [f"{held / MIB:,.0f} ({held / arena:,.1f}x)" for held in self.held.values()]


HEADERS = ["model", "values", "dynamic", "bound MiB", "arena MiB", "gap MiB", "plan ms", "planner ms"]
LEGEND = """
values: activations. dynamic: ops between the segments. plan ms: the forecast (plan, checker, tables measured), with the
Python callbacks that size the scratch of ops; planner ms: the same graph without scratch, so without callbacks.
Held by others, in MiB and as a ratio to the arena: pool: caching pool, freed at last use; held: dynamic outputs kept
until their bucket is captured; strong: all outputs of segments kept; summed: an arena a bucket, added up. See
tests/bench/plan_models/policies.py. The arena also has room to stage the outputs, seqs x vocab logits in float32, which
the others are not charged for; with few tokens that is most of it.
fused: one product for q, k, v and one for gate, up, as serving engines have them.
"""


def forecast_ms(
    entry: Mapping[str, Any], table: Mapping[str, ops.Op], buckets: Sequence[int], **options: Any
) -> tuple[float, dict[str, Any]]:
    """The shortest time of a forecast, and the plan."""
    with adcg.Engine("host") as engine:
        ops.register(engine, table)
        with models.build(engine, entry, **options) as graph:
            graph.freeze()
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                graph.forecast(buckets=buckets)
                times.append(time.perf_counter() - start)
            return min(times) * 1e3, json.loads(graph.plan("json", buckets=buckets))


def measure(
    name: str, entry: Mapping[str, Any], buckets: Sequence[int], *, in_place: bool, scratch: bool, **options: Any
) -> Measured:
    table = models.table_of(entry)
    bare = {key: replace(op, scratch=None) for key, op in table.items()}
    planner_ms, plan = forecast_ms(entry, bare, buckets, **options)
    plan_ms = planner_ms
    if scratch:
        plan_ms, plan = forecast_ms(entry, table, buckets, **options)
    program = policies.program(plan, table, in_place=in_place)
    held = {policy: count(program, plan["buckets"]) for policy, count in policies.POLICIES.items()}
    return Measured(name, plan, plan_ms, planner_ms, held)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m plan_models", description=__doc__)
    parser.add_argument("--max-tokens", type=int, default=8192)
    parser.add_argument("--max-seqs", type=int, default=256)
    parser.add_argument("--ladder", choices=list(LADDERS), action="append", help="one of them alone")
    parser.add_argument("--model", action="append", metavar="TEXT", help="models whose name contains this alone")
    parser.add_argument("--new-memory", action="store_true", help="the other policies write no output in place")
    parser.add_argument("--no-scratch", action="store_true", help="activations alone: no op has scratch")
    chosen = parser.parse_args()

    for ladder in chosen.ladder or LADDERS:
        buckets = LADDERS[ladder](chosen.max_tokens)
        span = f"{len(buckets)} buckets, {buckets[0]} to {buckets[-1]} ({ladder} ladder)"
        print(f"\n{span}, {chosen.max_seqs} sequences\n", flush=True)
        rows = [
            measure(
                f"{name}, fused" if fused else name,
                entry,
                buckets,
                in_place=not chosen.new_memory,
                scratch=not chosen.no_scratch,
                max_tokens=chosen.max_tokens,
                max_seqs=chosen.max_seqs,
                fused=fused,
            )
            for name, entry in models.checkpoints().items()
            if not chosen.model or any(text.lower() in name.lower() for text in chosen.model)
            for fused in ((False, True) if entry["model_type"] == "llama" else (False,))
        ]
        cells = [row.row() for row in rows]
        headers = [*HEADERS, *policies.POLICIES]
        print(tabulate(cells, headers, disable_numparse=True, colalign=["left"] + ["right"] * (len(headers) - 1)))
        missed = [f"; missed: {row.name} by {row.gap:,} bytes" for row in rows if row.gap]
        print(f"\narena = bound: met by {len(rows) - len(missed)} of {len(rows)}{''.join(missed)}", flush=True)
    print(LEGEND, end="")


if __name__ == "__main__":
    main()
