"""Every op of the library through a graph of its own against the same work in PyTorch, in float32.

    python tests/bench/bench_ops.py [--ops moe,ssm]

Each op takes two steps: one token each of eight sequences (decode), and a prompt of 512 (prefill). What both give at
first is compared; then they take turns, in alternating order, with as many threads as there are cores, and medians are
compared. Ours is a whole replay, with its dispatch and checks. The peer is named in every row: what a program in eager
PyTorch would call, or transformers' own function. Inputs lie ready for both. bench_products and bench_attention have
more sizes of the two ops that matter most.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "bindings" / "python")]

import adcg
import numpy as np
import op_cases_scan
import op_cases_sequence
import op_cases_static
from bench_products import medians
from machine import state
from op_case import WORKS, Case
from tabulate import tabulate

VIEWS = {"reshape"}  # nothing runs


def cases(rng: np.random.Generator) -> Iterator[Case]:
    for work in WORKS:
        for module in (op_cases_static, op_cases_sequence, op_cases_scan):
            yield from module.cases(work, rng)


def peer_of(case: Case) -> Callable[[], Any] | None:
    """The peer's call; None where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(os.cpu_count() or 1)
    call = case.peer(torch, *(torch.tensor(operand.array) for operand in case.operands))

    def inference() -> Any:
        with torch.inference_mode():
            return call()

    return inference


def compare(case: Case, ours: list[Any], theirs: Any) -> None:
    """Both gave the same, in what the peer gives: it may have fewer rows of bounded metadata."""
    for mine, other in zip(ours, theirs if isinstance(theirs, tuple) else (theirs,), strict=True):
        want = other.float().numpy()
        got = np.asarray(mine, np.float32)[: len(want)]
        tolerance = 1e-2 if case.op == "cast" else 2e-4
        scale = float(np.abs(want).max(initial=0.0))
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale, err_msg=f"{case.op}, {case.size}")


def measure(engine: adcg.Engine, case: Case) -> list[float]:
    """Seconds a call: ours and, where torch is installed, the peer's."""
    work = case.work
    peer = peer_of(case)  # first: it copies states that ours will write
    with engine.graph(max_tokens=work.tokens, max_seqs=work.seqs) as g:
        first = {"tokens": g.tokens, "seqs": g.seqs, "offsets": g.seqs + 1}
        given: dict[str, dict[str, Any]] = {"input": {}, "weight": {}, "state": {}}
        values = []
        for i, operand in enumerate(case.operands):
            name, shape = f"{operand.role}{i}", list(operand.array.shape)
            shape[0] = first.get(operand.axis, shape[0])
            values.append(getattr(g, operand.role)(name, str(operand.array.dtype), shape))
            given[operand.role][name] = operand.array
        result = g.op(f"adcg.{case.op}", *values, **case.attrs)
        for i, value in enumerate(result if isinstance(result, tuple) else (result,)):
            g.output(f"out{i}", value)
        with g.compile(given["weight"], given["state"], buckets=[work.tokens], seq_buckets=[work.seqs]) as exec_:
            step = exec_.replay(work.batch, given["input"])
            outs = dict(step.outputs)
            calls: list[Callable[[], Any]] = [lambda: exec_.replay(work.batch, given["input"], outs)]
            if peer:
                compare(case, list(outs.values()), peer())
                calls.append(peer)
            return medians(calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ops", default="", help="only these, without adcg., separated by commas")
    chosen = {op for op in parser.parse_args().ops.split(",") if op}
    before = state()
    rows: list[list[Any]] = []
    met, ratios, missing = set(), [], False
    with adcg.Engine("host") as engine:
        library = {name.removeprefix("adcg.") for name in engine.ops() if name.startswith("adcg.")}
        if unknown := chosen - library:
            parser.error(f"--ops: no such op: {', '.join(sorted(unknown))}")
        for case in cases(np.random.default_rng(0)):
            met.add(case.op)
            if chosen and case.op not in chosen:
                continue
            took = measure(engine, case)
            missing = len(took) < 2
            rows.append([case.op, case.work.name, case.size, took[0] * 1e6])
            if not missing:
                ratios.append(took[0] / took[1])
                rows[-1] += [took[1] * 1e6, f"{ratios[-1]:.2f}", case.peer_name]
        print(f"ops, float32, {engine.device.description}, {engine.device.threads} threads")
    head = ["op", "step", "size", "ours us", *([] if missing else ["torch us", "ours/torch", "the peer"])]
    print(tabulate(rows, headers=head, floatfmt=",.1f", disable_numparse=[] if missing else [5]))
    if ratios:
        print(f"ours/torch: {statistics.geometric_mean(ratios):.2f} on the geometric mean, {max(ratios):.2f} at worst")
    print(before)
    if missing:
        print("the peer is missing: torch (make bench-peers makes a venv that has it)")
    if left := library - met - VIEWS:
        sys.exit(f"ops without a case: {', '.join(sorted(left))}")


if __name__ == "__main__":
    main()
