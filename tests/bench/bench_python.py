"""What Python adds to a replay: Exec.replay against the bare ctypes call with the same prepared tensors.

    python tests/bench/bench_python.py

Graphs of n adds of one element, so that the tape itself costs next to nothing. All variants of a graph are measured in
turn, several rounds, and the medians are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "bindings" / "python")]

import adcg
import numpy as np
from adcg.cli import bare_replay
from machine import state
from tabulate import tabulate

ROUNDS, SECONDS = 9, 0.02
CASES = ((1, 1, False), (8, 1, False), (32, 1, False), (128, 1, False), (32, 8, False), (8, 1, True))


def medians(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds a call: variants take turns, so that a slow moment of the machine hits all of them."""
    counts, times = {}, {name: [] for name in variants}  # type: dict[str, int], dict[str, list[float]]
    for name, call in variants.items():
        call()
        start = time.perf_counter()
        for _ in range(10):
            call()
        counts[name] = max(1, int(SECONDS / max((time.perf_counter() - start) / 10, 1e-8)))
    for _ in range(ROUNDS):
        for name, call in variants.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - start) / counts[name] * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def graph(engine: adcg.Engine, ops: int, inputs: int, python_op: bool = False) -> adcg.Graph:
    g = engine.graph(max_tokens=1, max_seqs=1)
    xs = [g.input(f"x{i}", "float32", [g.tokens, 1]) for i in range(inputs)]
    y: Any = xs[0]
    for i in range(ops):
        y = g.op("bench.nothing", y) if python_op else g.add(y, xs[i % inputs])
    g.output("y", y)
    return g


def main() -> None:
    before = state()
    rows = []
    batch = adcg.Batch(decode_seqs=1)
    with adcg.Engine("host") as engine:
        engine.op("bench.nothing", kind="dynamic")(lambda call: None)
        for ops, inputs, python_op in CASES:
            with graph(engine, ops, inputs, python_op) as g, g.compile(buckets=[1]) as exec_:
                x = {f"x{i}": np.ones((1, 1), np.float32) for i in range(inputs)}
                other = {name: array.copy() for name, array in x.items()}
                y = {"y": np.zeros((1, 1), np.float32)}
                exec_.replay(batch, x, y)
                turn = [x, other]

                def moving(e: adcg.Exec = exec_, t: list[Any] = turn, o: Any = y) -> object:
                    t.reverse()
                    return e.replay(batch, t[0], o)

                took = medians(
                    {
                        "bare": bare_replay(exec_, batch),
                        "same": lambda e=exec_, i=x, o=y: e.replay(batch, i, o),  # type: ignore[misc]
                        "left": lambda e=exec_, i=x: e.replay(batch, i),  # type: ignore[misc]
                        "moving": moving,
                    }
                )
            what = f"{ops} Python ops" if python_op else f"{ops} adds"
            rows.append(
                [what, inputs, took["bare"], took["same"], took["same"] - took["bare"], took["left"], took["moving"]]
            )
    print("replay from Python, us a step (medians)")
    head = ["tape", "inputs", "bare ctypes", "same arrays", "Python adds", "outputs left out", "new arrays each step"]
    print(tabulate(rows, headers=head, floatfmt=".2f"))
    print(before)


if __name__ == "__main__":
    main()
