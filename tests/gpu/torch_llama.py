"""The Llama of llama_shape.py in PyTorch, over the same weights and caches: eager, a CUDA graph a segment between
two attentions as vLLM captures them, and one for a whole decode step.

Where it helps torch it has the easier part: additions and products in place, keys of exactly the context's length (the
same for all sequences, known when the graph is captured), one sequence in a prefill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from llama_shape import Shape
from torch.nn import functional as F

T = torch.Tensor


@dataclass(frozen=True)
class Step:
    """A prefill of one sequence of `tokens` tokens, or one token each of `seqs` sequences behind `context` others."""

    tokens: int
    seqs: int
    context: int

    @property
    def name(self) -> str:
        return f"decode {self.seqs}, context {self.context}" if self.context else f"prefill {self.tokens}"


class TorchLlama:
    def __init__(self, shape: Shape, weights: dict[str, T], caches: dict[str, T]) -> None:
        self.shape, self.weights, self.caches = shape, weights, caches
        length = max(cache.shape[1] for cache in caches.values())
        device = weights["norm"].device
        frequencies = shape.theta ** -(torch.arange(0, shape.dim, 2, device=device, dtype=torch.float64) / shape.dim)
        angles = torch.arange(length, device=device, dtype=torch.float64)[:, None] * frequencies
        self.angles = {torch.float32: (angles.cos().float(), angles.sin().float())}
        self.angles[torch.bfloat16] = tuple(part.bfloat16() for part in self.angles[torch.float32])  # type: ignore[assignment]
        self.dtype = torch.bfloat16

    def weight(self, name: str) -> T:
        return self.weights[name].to(self.dtype)

    # ---- Segments ----

    def first(self, ids: T, positions: T) -> tuple[T, ...]:
        residual = F.embedding(ids, self.weights["embed"]).to(self.dtype)
        return residual, *self._qkv(0, residual, positions)

    def between(self, i: int, residual: T, attended: T, positions: T) -> tuple[T, ...]:
        """From the attention of layer i to that of the next."""
        residual = self._rest(i, residual, attended)
        return residual, *self._qkv(i + 1, residual, positions)

    def last(self, residual: T, attended: T, last_idx: T) -> T:
        s = self.shape
        residual = self._rest(s.layers - 1, residual, attended).index_select(0, last_idx)
        return F.linear(F.rms_norm(residual, (s.hidden,), self.weight("norm"), s.eps), self.weight("head"))

    def _qkv(self, i: int, residual: T, positions: T) -> tuple[T, ...]:
        s = self.shape
        x = F.rms_norm(residual, (s.hidden,), self.weight(f"norm.{i}"), s.eps)
        q, k, v = F.linear(x, self.weight(f"qkv.{i}")).split([s.q, s.kv, s.kv], dim=-1)
        cos, sin = (part[positions][:, None] for part in self.angles[self.dtype])
        return (
            self._rope(q.unflatten(-1, (-1, s.dim)), cos, sin),
            self._rope(k.unflatten(-1, (-1, s.dim)), cos, sin),
            (v.unflatten(-1, (-1, s.dim))),
        )

    @staticmethod
    def _rope(x: T, cos: T, sin: T) -> T:
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def _rest(self, i: int, residual: T, attended: T) -> T:
        s = self.shape
        residual = residual.add_(F.linear(attended.flatten(1), self.weight(f"o.{i}")))
        x = F.rms_norm(residual, (s.hidden,), self.weight(f"mlp_norm.{i}"), s.eps)
        gate, up = F.linear(x, self.weight(f"gate_up.{i}")).chunk(2, dim=-1)
        return residual.add_(F.linear(F.silu(gate).mul_(up), self.weight(f"down.{i}")))

    # ---- Attention ----

    def attention(self, i: int, q: T, k: T, v: T, step: Step) -> T:
        """[tokens, heads, dim]. Writes the caches; in float32 it leaves them as they are."""
        keys, values = self.caches[f"k.{i}"], self.caches[f"v.{i}"]
        if not step.context:
            if self.dtype == torch.bfloat16:
                keys[0, : step.tokens], values[0, : step.tokens] = k, v
            parts = (part.transpose(0, 1)[None] for part in (q, k, v))
            return F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        n = step.context
        if self.dtype == torch.bfloat16:
            keys[: step.seqs, n], values[: step.seqs, n] = k, v
            keys, values = keys[: step.seqs, : n + 1], values[: step.seqs, : n + 1]
        else:
            keys, values = (
                torch.cat((cache[: step.seqs, :n].to(self.dtype), new[:, None]), dim=1)
                for cache, new in ((keys, k), (values, v))
            )
        attended = F.scaled_dot_product_attention(
            q[:, :, None], keys.transpose(1, 2), values.transpose(1, 2), enable_gqa=True
        )
        return attended[:, :, 0]

    # ---- Steps ----

    def eager(self, step: Step, ids: T, positions: T, last_idx: T) -> T:
        residual, q, k, v = self.first(ids, positions)
        for i in range(self.shape.layers - 1):
            residual, q, k, v = self.between(i, residual, self.attention(i, q, k, v, step), positions)
        i = self.shape.layers - 1
        return self.last(residual, self.attention(i, q, k, v, step), last_idx)

    def reference(self, step: Step, ids: T, positions: T, last_idx: T) -> T:
        """In float32 from the same bf16 weights and caches."""
        self.dtype = torch.float32
        try:
            return self.eager(step, ids, positions, last_idx)
        finally:
            self.dtype = torch.bfloat16


def capture(run: Callable[[], Any], pool: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
    """On the current stream, which is not the default one: what cuBLAS needs for it is there since the warm-up, not in
    the pool. torch.cuda.graph would empty torch's caches before each of hundreds of captures."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.current_stream().synchronize()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        out = run()
    finally:
        graph.capture_end()
    return graph, out


def weak(tensor: T) -> T:
    """The same memory, not owned: a later capture over the pool may have it."""

    assert tensor.is_contiguous() and tensor.dtype == torch.bfloat16
    place = {"shape": (tensor.numel(),), "typestr": "<i2", "data": (tensor.data_ptr(), False), "version": 3}
    borrowed = torch.as_tensor(SimpleNamespace(__cuda_array_interface__=place), device=tensor.device)
    return borrowed.view(torch.bfloat16).view(tensor.shape)


class Segments:
    """One torch.cuda.CUDAGraph a segment of one step, all over `pool`; attention runs eagerly between them."""

    def __init__(self, model: TorchLlama, step: Step, inputs: tuple[T, T, T], pool: Any) -> None:
        self.model, self.step = model, step
        ids, positions, last_idx = inputs
        layers = model.shape.layers
        self.graphs: list[torch.cuda.CUDAGraph] = []
        self.between: list[tuple[T, T, T, T]] = []  # q, k, v and where the attention goes, weakly

        def segment(run: Callable[[], Any]) -> Any:
            graph, out = capture(run, pool)
            self.graphs.append(graph)
            return out

        def with_room(parts: tuple[T, ...]) -> tuple[T, ...]:
            residual, q, k, v = parts
            return residual, q, k, v.contiguous(), torch.empty_like(q)

        parts = segment(lambda: with_room(model.first(ids, positions)))
        for i in range(layers - 1):
            given = parts
            parts = segment(lambda i=i, given=given: with_room(model.between(i, given[0], given[4], positions)))
            self.between.append(tuple(weak(part) for part in given[1:]))  # type: ignore[arg-type]
            del given
        logits = segment(lambda given=parts: model.last(given[0], given[4], last_idx))
        self.between.append(tuple(weak(part) for part in parts[1:]))  # type: ignore[arg-type]
        self.logits = weak(logits)

    def __call__(self) -> T:
        for i, (q, k, v, attended) in enumerate(self.between):
            self.graphs[i].replay()
            attended.copy_(self.model.attention(i, q, k, v, self.step))
        self.graphs[-1].replay()
        return self.logits


class Whole:
    """One torch.cuda.CUDAGraph of a whole step."""

    def __init__(self, model: TorchLlama, step: Step, inputs: tuple[T, T, T], pool: Any) -> None:
        self.graph, logits = capture(lambda: model.eager(step, *inputs), pool)
        self.logits = weak(logits)

    def __call__(self) -> T:
        self.graph.replay()
        return self.logits


def pool_bytes(pool: Any) -> int:
    """What the allocator has reserved for a pool of graphs."""
    return sum(
        segment["total_size"]
        for segment in torch.cuda.memory_snapshot()
        if tuple(segment["segment_pool_id"]) == tuple(pool)
    )
