"""adcg.attention through a graph against torch.nn.functional.scaled_dot_product_attention.

    python tests/bench/bench_attention.py

A prefill of one sequence (causal) and one token each of eight sequences that are all as long (decode), in float32 and
with as many threads as there are cores. Ours reads its keys from slots of a cache and writes the step's own there
first; torch gets its keys and values as it likes them, one tensor [seqs, heads, length, dim], ahead of time. Both take
turns, in alternating order; medians are compared.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "bindings" / "python")]

import adcg
import numpy as np
from bench_products import medians
from machine import state
from tabulate import tabulate

HEADS = ((6, 2, 32), (8, 8, 64), (8, 2, 128))  # heads, key/value heads, head dim: the demo's model, then larger ones
LENGTHS, SEQS = (128, 512, 2048), 8


def torch_attention(q: Any, k: Any, v: Any, causal: bool) -> Callable[[], Any]:
    """The peer's call on [seqs, length, heads, dim]; raises ImportError where torch is not installed."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    tensors = [torch.tensor(x).transpose(1, 2).contiguous() for x in (q, k, v)]

    def call() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal, enable_gqa=True)

    return call


def measure(engine: adcg.Engine, heads: int, kv_heads: int, dim: int, length: int, decode: bool) -> list[float]:
    """Seconds a call: ours and, where torch is installed, torch's, after a look that both give the same."""
    rng = np.random.default_rng(0)
    seqs, new = (SEQS, 1) if decode else (1, length)
    keys, values = (rng.standard_normal((seqs, length, kv_heads, dim), np.float32) for _ in range(2))
    queries = rng.standard_normal((seqs, new, heads, dim), np.float32)
    tokens = seqs * new
    with engine.graph(max_tokens=tokens, max_seqs=seqs) as g:
        q = g.input("q", "float32", [g.tokens, heads, dim])
        k, v = (g.input(name, "float32", [g.tokens, kv_heads, dim]) for name in ("k", "v"))
        k_cache, v_cache = (g.state(name, "float32", keys.shape) for name in ("k_cache", "v_cache"))
        cu_seqlens = g.input("cu_seqlens", "int32", [g.seqs + 1])
        input_pos, slot_idx = (g.input(name, "int32", [g.seqs]) for name in ("input_pos", "slot_idx"))
        g.output("out", g.attention(q, k, v, k_cache, v_cache, cu_seqlens, input_pos, slot_idx))
        caches = {"k_cache": keys.copy(), "v_cache": values.copy()}
        with g.compile(weights={}, states=caches, buckets=[tokens], seq_buckets=[seqs]) as exec_:
            batch = adcg.Batch(decode_seqs=seqs) if decode else adcg.Batch(prefill_seqs=1, prefill_tokens=length)
            ins = {
                "q": queries.reshape(tokens, heads, dim),
                "k": keys[:, length - new :].reshape(tokens, kv_heads, dim).copy(),
                "v": values[:, length - new :].reshape(tokens, kv_heads, dim).copy(),
                "cu_seqlens": np.arange(seqs + 1, dtype=np.int32) * new,
                "input_pos": np.full(seqs, length - new, np.int32),
                "slot_idx": np.arange(seqs, dtype=np.int32),
            }
            outs = {"out": np.zeros((tokens, heads, dim), np.float32)}
            calls: list[Callable[[], Any]] = [lambda: exec_.replay(batch, ins, outs)]
            try:
                calls.append(torch_attention(queries, keys, values, causal=not decode))
            except ImportError:
                return medians(calls)
            calls[0]()
            theirs = calls[1]().transpose(1, 2).reshape(tokens, heads, dim).numpy()
            np.testing.assert_allclose(outs["out"], theirs, rtol=1e-3, atol=1e-5)
            return medians(calls)


def main() -> None:
    before = state()
    rows: list[list[Any]] = []
    with adcg.Engine("host") as engine:
        for heads, kv_heads, dim in HEADS:
            for decode in (False, True):
                for length in LENGTHS:
                    took = measure(engine, heads, kv_heads, dim, length, decode)
                    work = f"decode, {SEQS} sequences" if decode else "prefill"
                    rows.append([work, f"{heads}/{kv_heads}", dim, length, *(t * 1e6 for t in took)])
                    if len(took) > 1:
                        rows[-1].append(f"{took[0] / took[1]:.2f}")
        print(f"attention, float32, {engine.device.description}, {engine.device.threads} threads")
    missing = len(rows[0]) == 5
    head = ["work", "heads", "dim", "length", "ours us", *([] if missing else ["torch us", "ours/torch"])]
    print(tabulate(rows, headers=head, floatfmt=",.1f", disable_numparse=[] if missing else [6]))
    print(before)
    if missing:
        print("the peer is missing: torch (make bench-peers makes a venv that has it)")


if __name__ == "__main__":
    main()
