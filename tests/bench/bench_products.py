"""adcg.linear through a graph against torch.nn.functional.linear.

    python tests/bench/bench_products.py

Three pairs of activations and weights: float32 x float32; float32 x bfloat16, which torch does not have, so that it is
given the weights widened to float32 ahead of time (the same sums, twice the memory); bfloat16 x bfloat16, which torch
does with bfloat16 instructions where the machine has them, and ours by widening in registers. Both take turns, in
alternating order; medians are compared. Target: ours takes at most 1.2 times as long.
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
from machine import state
from tabulate import tabulate

ROWS = (1, 8, 64, 512)
SHAPES = ((192, 512), (1024, 1024), (4096, 1024), (2048, 4096))  # N, K: tiny-go's down_proj, then larger ones
ROUNDS, SECONDS, TARGET = 7, 0.02, 1.2


def torch_linear(x: Any, w: Any, dtype: str) -> Callable[[], object]:
    """The peer's call, with activations and weights of one type; raises ImportError where torch is not installed."""
    import torch

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
    for n in range(ROUNDS):
        for i in range(len(calls)) if n % 2 else reversed(range(len(calls))):
            call = calls[i]
            start = time.perf_counter()
            for _ in range(counts[i]):
                call()
            times[i].append((time.perf_counter() - start) / counts[i])
    return [statistics.median(values) for values in times]


def as_dtype(array: Any, dtype: str) -> Any:
    """The array in this type: through ml_dtypes, or, without it, as a torch tensor (a DLPack producer)."""
    try:
        return array.astype(adcg.numpy_dtype(dtype))
    except adcg.AdcgError:
        import torch

        return torch.tensor(array).to(torch.bfloat16)


def main() -> None:
    before = state()
    rng = np.random.default_rng(0)
    rows: list[list[Any]] = []
    missing = ""
    with adcg.Engine("host") as engine:
        for x_dtype, w_dtype in (("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")):
            for n, k in SHAPES:
                w = rng.standard_normal((n, k), np.float32)
                bound = as_dtype(w, w_dtype)
                for m in ROWS:
                    x = rng.standard_normal((m, k), np.float32)
                    with engine.graph(max_tokens=m, max_seqs=m) as g:
                        g.output("y", g.linear(g.input("x", x_dtype, [g.tokens, k]), g.weight("w", w_dtype, [n, k])))
                        with g.compile({"w": bound}, buckets=[m], seq_buckets=[m]) as exec_:
                            batch = adcg.Batch(decode_seqs=m)
                            ins = {"x": as_dtype(x, x_dtype)}
                            outs = {"y": as_dtype(np.zeros((m, n), np.float32), x_dtype)}
                            calls: list[Callable[[], object]] = [lambda: exec_.replay(batch, ins, outs)]  # noqa: B023
                            try:
                                calls.append(torch_linear(x, w, x_dtype))
                            except ImportError as error:
                                missing = f"the peer is missing: {error} (make bench-peers makes a venv that has it)"
                            took = medians(calls)
                    gflop = 2e-9 * m * n * k
                    row = [f"{x_dtype} x {w_dtype}", m, n, k, took[0] * 1e6, gflop / took[0]]
                    if len(took) > 1:
                        ratio = took[0] / took[1]
                        row += [took[1] * 1e6, gflop / took[1], f"{ratio:.2f}", "met" if ratio <= TARGET else "MISSED"]
                    rows.append(row)
        print(f"linear [M, K] x [N, K], {engine.device.description}, {engine.device.threads} threads")
    head = ["types", "M", "N", "K", "ours us", "GFLOP/s"]
    head += [] if missing else ["torch us", "GFLOP/s", "ours/torch", f"target {TARGET:g}"]
    print(tabulate(rows, headers=head, floatfmt=",.1f", disable_numparse=False if missing else [8]))
    print(before)
    if missing:
        print(missing)


if __name__ == "__main__":
    main()
