"""Attention's kernels on a real GPU: the checks of tests/kernels; then large steps, some rows of which are compared
with float64, and their time beside torch's scaled_dot_product_attention.

    python3 tests/gpu/attention.py [--seeds N] [--no-torch] [--small] [--libcuda PATH]

Needs what tests/gpu/kernels.py needs. Exit status 1 if a comparison fails."""

from __future__ import annotations

import argparse
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/kernels"))

import attention_checks as checks  # noqa: E402
from kernel_runner import BF16, I32, IMAGE, LIBRARY, Batch, Call, Runner, Tensor, empty, from_bf16, to_bf16  # noqa: E402

HEADS, KV_HEADS, D = 32, 8, 128
REPEATS = 20


def drawn(*shape: int) -> np.ndarray:
    """Numbers of bf16; about a million of them again and again, a prime number: no two rows of heads begin alike."""
    few = from_bf16(to_bf16(np.random.default_rng(1).standard_normal(1_000_003)))
    return np.resize(few, shape)


@dataclass
class Large:
    """seqs sequences of so many tokens each, whose context these are the last of: in slots, or in pages of 16 in a
    drawn order."""

    seqs: int
    tokens: int
    context: int
    paged: bool = False

    def __post_init__(self) -> None:
        rows = self.seqs * self.tokens
        self.q, self.k, self.v = drawn(rows, HEADS, D), drawn(rows, KV_HEADS, D) * 0.5, drawn(rows, KV_HEADS, D) * 2
        self.pages = np.random.default_rng(2).permutation(self.seqs * self.context // 16).astype(np.int32)

    def name(self) -> str:
        kind = "decode" if self.tokens == 1 else "prefill"
        return f"{kind} b{self.seqs} {self.context}" + (" paged" if self.paged else "")

    def flops(self) -> float:
        history = self.context - self.tokens
        return 4.0 * D * HEADS * self.seqs * (self.tokens * history + self.tokens * (self.tokens + 1) / 2)

    def bytes(self) -> float:
        """Of keys and values, queries and results."""
        return 4.0 * self.seqs * (self.context * KV_HEADS + self.tokens * HEADS) * D

    def caches(self) -> list[np.ndarray]:
        shape = (self.seqs * self.context // 16, 16) if self.paged else (self.seqs, self.context)
        keys = drawn(*shape, KV_HEADS, D)
        return [keys, keys[..., ::-1]]

    def call(self, caches: list[np.ndarray]) -> Call:
        def index(values: Any) -> Tensor:
            return Tensor(I32, np.asarray(values, np.int32))

        history = np.full(self.seqs, self.context - self.tokens)
        inputs = [Tensor(BF16, x) for x in (self.q, self.k, self.v, *caches)]
        inputs += [index(np.arange(self.seqs + 1) * self.tokens), index(history)]
        if self.paged:
            inputs += [
                index(np.arange(self.seqs + 1) * (self.context // 16)),
                index(self.pages),
                index(np.full(self.seqs, 16)),
            ]
        else:
            inputs.append(index(np.arange(self.seqs)))
        rows = self.seqs * self.tokens
        batch = Batch(0, 0, self.seqs) if self.tokens == 1 else Batch(self.seqs, rows, 0)
        name = "paged_attention" if self.paged else "attention"
        return Call(name, inputs, [empty(BF16, (rows, HEADS, D))], batch=batch)

    def history(self, cache: np.ndarray, seq: int) -> np.ndarray:
        """A sequence's rows of a cache, in the order of its positions."""
        if not self.paged:
            return cache[seq]
        each = self.context // 16
        return cache[self.pages[seq * each : (seq + 1) * each]].reshape(self.context, KV_HEADS, D)

    def off(self, caches: list[np.ndarray], out: np.ndarray) -> float:
        """The largest share of its bound that an error has, in some rows. Weights and results are rounded to bf16:
        attention_checks.py."""
        worst, before = 0.0, self.context - self.tokens
        for seq in {0, self.seqs // 2, self.seqs - 1}:
            k, v = (self.history(x, seq).astype(np.float64) for x in caches)
            new = slice(seq * self.tokens, (seq + 1) * self.tokens)
            k[before:], v[before:] = self.k[new], self.v[new]
            for token in {0, self.tokens // 3, self.tokens - 1}:
                row, seen = seq * self.tokens + token, before + token + 1
                for head in (0, 13, HEADS - 1):
                    g = head // (HEADS // KV_HEADS)
                    score = k[:seen, g] @ self.q[row, head].astype(np.float64) * D**-0.5
                    weight = np.exp(score - score.max())
                    want = weight @ v[:seen, g] / weight.sum()
                    bound = (2.0**-15 + 2.0**-8) * np.abs(v[:seen, g]).max() + 2.0**-8 * np.abs(want)
                    worst = max(worst, float((np.abs(out[row, head] - want) / bound).max()))
        return worst


def cases(small: bool) -> list[Large]:
    if small:
        return [Large(2, 1, 320), Large(2, 1, 320, paged=True), Large(1, 160, 160)]
    prefill = [Large(1, 512, 512), Large(1, 8192, 8192), Large(1, 2048, 2048, paged=True)]
    decode = [Large(b, 1, n, paged) for paged in (False, True) for b, n in ((1, 1024), (64, 1024), (8, 8192))]
    return prefill + decode


def time_of_torch(torch: Any, case: Large, caches: list[np.ndarray]) -> float:
    """Of attention alone, over keys and values that lie as a slot cache has them, in a graph: no host time is
    counted."""
    heads = [
        torch.from_numpy(np.ascontiguousarray(x)).to("cuda", torch.bfloat16)
        for x in (case.q.reshape(case.seqs, case.tokens, HEADS, D), *caches)
    ]
    q, k, v = (x.reshape(case.seqs, -1, x.shape[-2], D).transpose(1, 2) for x in heads)

    def attend() -> None:
        causal = case.tokens > 1
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    for _ in range(3):
        attend()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            attend()
    graph.replay()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1000 / REPEATS


def measure(runner: Runner, torch: Any, case: Large) -> bool:
    """Prints a line; whether the results are right."""
    caches = case.caches()
    (out,) = runner.run(case.call(caches), repeats=REPEATS)
    ours, off = runner.microseconds, case.off(caches, out)
    said = (
        f"{case.name():22} {off:8.3f} {ours:10.1f}us {case.bytes() / ours / 1000:8.0f} {case.flops() / ours / 1e6:8.1f}"
    )
    if torch:
        theirs = time_of_torch(torch, case, caches)
        said += f" {theirs:10.1f}us {ours / theirs:11.2f}"
    print(said + ("" if off <= 1 else "   WRONG"), flush=True)
    return off <= 1


def check_all(runner: Runner, seeds: int) -> int:
    """The checks of the stand-in. Returns how many failed."""
    failed = 0
    all_of: list[Callable[[Runner, np.random.Generator, bool], float | None]] = [
        checks.against_float64_and_host,
        checks.chunks_are_the_whole,
        checks.neighbours_buckets_and_places,
        checks.not_a_number,
        checks.empty_batch,
        checks.sequences_that_cannot_be,
        checks.wide_tiles,
    ]
    for i, check in enumerate(all_of):
        for tensor_cores in (True,) if check is checks.wide_tiles else (False, True):
            said = "ok"
            try:
                for seed in range(seeds):
                    check(runner, np.random.default_rng([seed, i, tensor_cores]), tensor_cores)
            except Exception:
                failed += 1
                said = f"FAILED at seed {seed}: {traceback.format_exc(limit=0).strip().splitlines()[-1]}"
            print(f"{check.__name__:32} {'tensor cores' if tensor_cores else 'plain':14} {said}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--libcuda", default="libcuda.so.1")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--small", action="store_true", help="small steps, as far as the stand-in driver goes")
    options = parser.parse_args()
    if not LIBRARY.exists():
        subprocess.run(["flock", "Makefile", "make", "--silent", str(LIBRARY.relative_to(ROOT))], cwd=ROOT, check=True)
    runner = Runner(options.libcuda, IMAGE.read_bytes())
    print(f"device: {runner.device()}")
    failed = check_all(runner, options.seeds)
    print(f"{failed} comparisons failed" if failed else "all comparisons passed", flush=True)
    torch: Any = None
    if not options.no_torch:
        import torch
    print(f"\n{HEADS} heads, {KV_HEADS} kv heads of {D}, bf16" + (f"; torch {torch.__version__}" if torch else ""))
    print(
        f"{'step, context':22} {'of bound':>8} {'ours':>12} {'GB/s':>8} {'TFLOP/s':>8}"
        + (f" {'torch':>12} {'ours/torch':>11}" if torch else "")
    )
    for case in cases(options.small):
        failed += not measure(runner, torch, case)
    print("Ours writes the step's keys and values too; a paged step stands beside torch's over contiguous keys.")
    print("Each step runs again and again over the same memory: what fits the L2 is read from there by both.")
    print(f"\n{failed} comparisons failed" if failed else "\nall comparisons passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
