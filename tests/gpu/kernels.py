"""The CUDA kernels on a real GPU: the comparisons of tests/kernels, then the time of the larger ones beside torch's.

    python3 tests/gpu/kernels.py [--seeds N] [--no-torch] [--libcuda PATH]

Needs Python, numpy and a C compiler (or build/kernels/libkernels.so, made elsewhere), and torch for the times; no Go,
no CUDA compiler: the image is the committed one. Exit status 1 if a comparison fails."""

from __future__ import annotations

import argparse
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/kernels"))

import kernel_cases  # noqa: E402
import kernel_checks  # noqa: E402
from kernel_runner import BF16, F32, I32, IMAGE, LIBRARY, Call, Runner, Tensor, empty, from_bf16, to_bf16  # noqa: E402


def large(*shape: int) -> Tensor:
    """Numbers of bf16; a million of them, again and again."""
    few = from_bf16(to_bf16(np.random.default_rng(1).standard_normal(1 << 20)))
    return Tensor(BF16, np.resize(few, shape))


def compared(torch: Any) -> list[tuple[str, Call, float, Callable[[list[Any]], Any]]]:
    """What is timed: a name, the call, the bytes that it must move, and torch's function of the inputs."""
    f = torch.nn.functional
    tokens, hidden, inner, vocabulary = 8192, 4096, 14336, 32768
    x, gate = large(tokens, hidden), large(tokens, inner)
    ids = Tensor(I32, np.random.default_rng(2).integers(0, vocabulary, tokens).astype(np.int32))
    table, logits, heads = large(vocabulary, hidden), large(64, vocabulary), large(tokens, 32, 128)
    weight = large(hidden)
    calls: list[tuple[str, Call, float, Callable[[list[Any]], Any]]] = [
        ("add", Call("add", [x, x], [x]), 6.0 * x.values.size, lambda t: t[0] + t[1]),
        ("silu_mul", Call("silu_mul", [gate, gate], [gate]), 6.0 * gate.values.size, lambda t: f.silu(t[0]) * t[1]),
        (
            "rms_norm",
            Call("rms_norm", [x, weight], [x]),
            4.0 * x.values.size,
            lambda t: f.rms_norm(t[0], (hidden,), t[1]),
        ),
        (
            "layer_norm",
            Call("layer_norm", [x, weight], [x]),
            4.0 * x.values.size,
            lambda t: f.layer_norm(t[0], (hidden,), t[1]),
        ),
        (
            "add_rms_norm",
            Call("add_rms_norm", [x, x, weight], [x, x]),
            8.0 * x.values.size,
            lambda t: f.rms_norm(t[0] + t[1], (hidden,), t[2]),
        ),
        ("rope", Call("rope", [heads, ids], [heads]), 4.0 * heads.values.size, lambda t: t[0].clone()),  # beside a copy
        ("softmax", Call("softmax", [logits], [logits]), 4.0 * logits.values.size, lambda t: f.softmax(t[0], -1)),
        ("argmax", Call("argmax", [logits], [empty(I32, (64,))]), 2.0 * logits.values.size, lambda t: t[0].argmax(-1)),
        ("embedding", Call("embedding", [ids, table], [x]), 4.0 * x.values.size, lambda t: f.embedding(t[0], t[1])),
    ]
    for n, k, rows in ((4096, 4096, (1, 32, 256)), (28672, 4096, (1, 32))):  # tests/gpu/lt.py times more of them
        w = large(n, k)
        for m in rows:
            call = Call("linear", [large(m, k), w], [empty(BF16, (m, n))])
            calls.append(
                (f"linear {m} x {n} x {k}", call, 2.0 * (n * k + m * k + m * n), lambda t: f.linear(t[0], t[1]))
            )
    return calls


def time_of(torch: Any, call: Call, function: Callable[[list[Any]], Any], repeats: int) -> float:
    kinds = {BF16: torch.bfloat16, F32: torch.float32, I32: torch.int32}
    tensors = [torch.from_numpy(t.values).to("cuda", kinds[t.dtype]) for t in call.inputs]
    for _ in range(3):
        function(tensors)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        function(tensors)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1000 / repeats


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--libcuda", default="libcuda.so.1")
    parser.add_argument("--no-torch", action="store_true")
    options = parser.parse_args()
    if not LIBRARY.exists():
        subprocess.run(["flock", "Makefile", "make", "--silent", str(LIBRARY.relative_to(ROOT))], cwd=ROOT, check=True)
    runner = Runner(options.libcuda, IMAGE.read_bytes())
    print(f"device: {runner.device()}")
    failed = 0
    for op in kernel_cases.CASES:
        said = []
        checks: list[tuple[str, Callable[[Runner, str, int], float | None], int]] = [
            ("host", kernel_checks.against_host, options.seeds)
        ]
        if op in kernel_cases.ROW_WISE:
            checks.append(("batch invariance", kernel_checks.rows_keep_their_bits, max(1, options.seeds // 3)))
        for name, check, seeds in checks:
            try:
                worst = max(check(runner, op, seed) or 0.0 for seed in range(seeds))
                said.append(f"{name} ok" + (f" (largest difference {worst:.3g})" if worst else ""))
            except Exception:
                failed += 1
                said.append(f"{name} FAILED: {traceback.format_exc(limit=0).strip().splitlines()[-1]}")
        print(f"{op:20} {', '.join(said)}", flush=True)
    print(f"{failed} comparisons failed" if failed else "all comparisons passed", flush=True)
    if not options.no_torch:
        import torch

        print(f"\n{'bf16':28} {'ours':>10} {'GB/s':>8} {'torch':>10} {'ours/torch':>11}   (torch {torch.__version__})")
        for name, call, size, function in compared(torch):
            runner.run(call, repeats=20)
            ours, theirs = runner.microseconds, time_of(torch, call, function, 20)
            print(
                f"{name:28} {ours:8.1f}us {size / ours / 1000:8.0f} {theirs:8.1f}us {ours / theirs:11.2f}", flush=True
            )
        print("Weights that fit the L2 (4096 x 4096) are read from there by both; rope stands beside a copy of x.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
