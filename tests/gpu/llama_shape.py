"""A Llama of given sizes as libadcg's graph: fused products, the residual stream's additions fused with the norms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from on_device import adcg


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    dim: int
    inner: int
    vocab: int
    eps: float = 1e-5
    theta: float = 500000.0

    @property
    def q(self) -> int:
        return self.heads * self.dim

    @property
    def kv(self) -> int:
        return self.kv_heads * self.dim

    def weights(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        h = self.hidden
        yield "embed", (self.vocab, h)
        for i in range(self.layers):
            yield f"qkv.{i}", (self.q + 2 * self.kv, h)
            yield f"o.{i}", (h, self.q)
            yield f"gate_up.{i}", (2 * self.inner, h)
            yield f"down.{i}", (h, self.inner)
            yield f"norm.{i}", (h,)
            yield f"mlp_norm.{i}", (h,)
        yield "norm", (h,)
        yield "head", (self.vocab, h)


LLAMA_8B = Shape(32, 4096, 32, 8, 128, 14336, 128256)
SMALL = Shape(2, 128, 4, 2, 64, 96, 160)


def build(engine: adcg.Engine, s: Shape, max_tokens: int, max_seqs: int, slots: int, max_len: int) -> adcg.Graph:
    """Inputs ids, cu_seqlens, input_pos, slot_idx, last_idx (int32); weights of Shape, all bf16; states k.<i> and v.<i>
    [slots, max_len, kv heads, dim]; output logits [seqs, vocab]."""
    g = engine.graph(max_tokens=max_tokens, max_seqs=max_seqs)
    w = {name: g.weight(name, "bfloat16", shape) for name, shape in s.weights()}
    ids = g.input("ids", "int32", [g.tokens])
    cu_seqlens = g.input("cu_seqlens", "int32", [g.seqs + 1])
    input_pos, slot_idx, last_idx = (g.input(name, "int32", [g.seqs]) for name in ("input_pos", "slot_idx", "last_idx"))
    positions = g.attention_metadata(cu_seqlens, input_pos)[1]

    def heads(x: Any, count: int) -> Any:
        return g.reshape(x, dims=[count, s.dim])

    residual = g.embedding(ids, w["embed"], dtype="bfloat16")
    x = g.rms_norm(residual, w["norm.0"], eps=s.eps)
    for i in range(s.layers):
        q, k, v = g.split(g.linear(x, w[f"qkv.{i}"]), [s.q, s.kv, s.kv])
        q, k, v = heads(q, s.heads), heads(k, s.kv_heads), heads(v, s.kv_heads)
        q, k = (g.rope(part, positions, theta=s.theta) for part in (q, k))
        caches = [g.state(f"{c}.{i}", "bfloat16", [slots, max_len, s.kv_heads, s.dim]) for c in "kv"]
        attended = g.attention(q, k, v, *caches, cu_seqlens, input_pos, slot_idx)
        mixed = g.linear(g.reshape(attended, dims=[s.q]), w[f"o.{i}"])
        residual, x = g.add_rms_norm(residual, mixed, w[f"mlp_norm.{i}"], eps=s.eps)
        gate, up = g.split(g.linear(x, w[f"gate_up.{i}"]), [s.inner, s.inner])
        moved = g.linear(g.silu_mul(gate, up), w[f"down.{i}"])
        if i + 1 < s.layers:
            residual, x = g.add_rms_norm(residual, moved, w[f"norm.{i + 1}"], eps=s.eps)
    last = g.gather_tokens(g.add(residual, moved), last_idx)
    g.output("logits", g.linear(g.rms_norm(last, w["norm"], eps=s.eps), w["head"]))
    return g


def activation_bytes(plan: str) -> int:
    """Of the layers, where the plan is at its largest: what is live there less integers (positions, staged inputs)."""
    found = json.loads(plan)
    types = {value["name"]: value["type"] for value in found["values"]}
    live = [block for block in found["peak"]["live"] if block["kind"] == "activation"]
    return sum(b["bytes"] for b in live if not all(types[name].startswith("int") for name in b["values"]))
