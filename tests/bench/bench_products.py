"""adcg.linear through a graph against torch.nn.functional.linear: float32 activations, float32 and bfloat16 weights.

    python tests/bench/bench_products.py

torch has no product of float32 with bfloat16, so for bfloat16 weights it is given bfloat16 activations, which is what it
would be used with; ours keeps float32 activations and sums. Both take turns in every round, medians are compared; target:
ours takes at most 1.2 times as long.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "bindings" / "python")]

import adcg
import numpy as np
from tabulate import tabulate

ROWS = (1, 8, 64, 512)
SHAPES = ((192, 512), (1024, 1024), (4096, 1024), (2048, 4096))  # N, K: tiny-go's down_proj, then larger ones
ROUNDS, SECONDS, TARGET = 7, 0.02, 1.2


def torch_linear(x: Any, w: Any, dtype: str) -> Callable[[], object] | None:
    """The peer's call; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(os.cpu_count() or 1)
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    a, b = torch.tensor(x).to(kind), torch.tensor(w).to(kind)
    linear = torch.nn.functional.linear

    def call() -> object:
        with torch.inference_mode():
            return linear(a, b)

    return call


def medians(calls: list[Callable[[], object]]) -> list[float]:
    """Seconds a call of each, taking turns."""
    counts, times = [], [[] for _ in calls]  # type: list[int], list[list[float]]
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        counts.append(max(1, int(SECONDS / max(time.perf_counter() - start, 1e-7))))
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            for _ in range(counts[i]):
                call()
            times[i].append((time.perf_counter() - start) / counts[i])
    return [statistics.median(values) for values in times]


def main() -> None:
    rng = np.random.default_rng(0)
    rows: list[list[Any]] = []
    peer = True
    with adcg.Engine("host") as engine:
        for dtype in ("float32", "bfloat16"):
            for n, k in SHAPES:
                w = rng.standard_normal((n, k), np.float32)
                try:
                    bound = w.astype(adcg.numpy_dtype(dtype))
                except adcg.AdcgError:  # no ml_dtypes here
                    bound = None
                for m in ROWS:
                    x = rng.standard_normal((m, k), np.float32)
                    with engine.graph(max_tokens=m, max_seqs=m) as g:
                        g.output("y", g.linear(g.input("x", "float32", [g.tokens, k]), g.weight("w", dtype, [n, k])))
                        if bound is None:
                            bound = torch_weight(w)
                        with g.compile({"w": bound}, buckets=[m], seq_buckets=[m]) as exec_:
                            batch = adcg.Batch(decode_seqs=m)
                            ins, outs = {"x": x}, {"y": np.empty((m, n), np.float32)}
                            calls: list[Callable[[], object]] = [lambda: exec_.replay(batch, ins, outs)]  # noqa: B023
                            theirs = torch_linear(x, w, dtype)
                            if theirs is not None:
                                calls.append(theirs)
                            took = medians(calls)
                    gflops = 2e-9 * m * n * k
                    row = [dtype, m, n, k, took[0] * 1e6, gflops / took[0]]
                    if theirs is None:
                        peer = False
                    else:
                        ratio = took[0] / took[1]
                        row += [took[1] * 1e6, gflops / took[1], f"{ratio:.2f}", "met" if ratio <= TARGET else "MISSED"]
                    rows.append(row)
        print(f"linear [M, K] x [N, K], {engine.device.description}, {engine.device.threads} threads")
    head = ["weights", "M", "N", "K", "ours us", "GFLOP/s"]
    head += ["torch us", "GFLOP/s", "ours/torch", f"target {TARGET:g}"] if peer else []
    print(tabulate(rows, headers=head, floatfmt=",.1f", disable_numparse=[8] if peer else False))
    if not peer:
        print("the peer is missing: torch is not installed here (make bench-peers makes a venv that has it)")


def torch_weight(w: Any) -> Any:
    """bfloat16 without ml_dtypes: torch's, through __dlpack__."""
    import torch

    return torch.tensor(w).to(torch.bfloat16)


if __name__ == "__main__":
    main()
