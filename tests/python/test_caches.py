"""Caches of keys and values as Python gives them: fp8 from ml_dtypes and torch, and page tables."""

from __future__ import annotations

from typing import Any

import adcg
import ml_dtypes
import numpy as np
import pytest

FP8 = ml_dtypes.float8_e4m3fn
N, KV, D, DV, SLOTS, LENGTH = 4, 2, 8, 6, 3, 16


def graph(engine: adcg.Engine, dtype: str) -> adcg.Graph:
    g = engine.graph(max_tokens=32, max_seqs=4, max_seq_len=LENGTH)
    q, k, v = (g.input(name, "float32", [g.tokens, n, d]) for name, n, d in (("q", N, D), ("k", KV, D), ("v", KV, DV)))
    caches = [g.state(name, dtype, [SLOTS, LENGTH, KV, d]) for name, d in (("k_cache", D), ("v_cache", DV))]
    index = [g.input("cu", "int32", [g.seqs + 1]), g.input("pos", "int32", [g.seqs]), g.input("slot", "int32", [g.seqs])]
    g.output("y", g.attention(q, k, v, *caches, *index))
    return g


def step(rng: np.random.Generator, lengths: list[int]) -> list[Any]:
    """Inputs of sequences that start, in slots 2, 0. Keys and values go beyond what fp8 holds."""
    tokens = sum(lengths)
    q, k, v = (rng.standard_normal((tokens, n, d), np.float32) for n, d in ((N, D), (KV, D), (KV, DV)))
    v[0, 0, :3] = 1000, -449, 2**-10
    index = [np.array(x, np.int32) for x in ([0, *np.cumsum(lengths)], [0] * len(lengths), [2, 0][: len(lengths)])]
    return [q, k, v, *index]


def attend(q: Any, k: Any, v: Any) -> Any:
    """Causal attention of one sequence in float64, by matrices."""
    k, v = (np.repeat(x.astype(np.float64), N // KV, axis=1) for x in (k, v))
    scores = np.einsum("tnd,snd->nts", q.astype(np.float64), k) / np.sqrt(D)
    scores[:, ~np.tri(len(q), dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("nts,snd->tnd", weights / weights.sum(axis=-1, keepdims=True), v)


def test_fp8_caches_hold_what_ml_dtypes_rounds_to(engine: adcg.Engine, rng: np.random.Generator) -> None:
    g = graph(engine, "float8_e4m3fn")
    assert str(g.find("k_cache").type) == f"float8_e4m3fn[{SLOTS}, {LENGTH}, {KV}, {D}]"
    inputs = step(rng, [7, 5])
    caches = {name: np.full((SLOTS, LENGTH, KV, d), 3, FP8) for name, d in (("k_cache", D), ("v_cache", DV))}
    with g.compile(states=caches) as exec_:
        y = exec_.replay(adcg.Batch.of(prefill=[7, 5]), inputs).outputs["y"]
    rounded = [np.clip(x, -448, 448).astype(FP8) for x in inputs[1:3]]
    for name, x in zip(caches, rounded, strict=True):
        expected = np.full(caches[name].shape, 3, FP8)
        expected[2, :7], expected[0, :5] = x[:7], x[7:]
        np.testing.assert_array_equal(caches[name].view(np.uint8), expected.view(np.uint8))
    for rows in (slice(0, 7), slice(7, 12)):
        expected = attend(inputs[0][rows], *(x[rows] for x in rounded))
        np.testing.assert_allclose(y[rows], expected, rtol=1e-5, atol=1e-5)


def test_fp8_caches_of_torch(engine: adcg.Engine, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    inputs = step(rng, [7, 5])
    results = []
    for caches in (
        {name: np.zeros((SLOTS, LENGTH, KV, d), FP8) for name, d in (("k_cache", D), ("v_cache", DV))},
        {
            name: torch.zeros((SLOTS, LENGTH, KV, d), dtype=torch.float8_e4m3fn)
            for name, d in (("k_cache", D), ("v_cache", DV))
        },
    ):
        with graph(engine, "float8_e4m3fn").compile(states=caches) as exec_:
            y = exec_.replay(adcg.Batch.of(prefill=[7, 5]), inputs).outputs["y"]
        held = [x.view(np.uint8) if isinstance(x, np.ndarray) else x.view(torch.uint8).numpy() for x in caches.values()]
        results.append((y.tobytes(), [x.tobytes() for x in held]))
    assert results[0] == results[1]


def test_a_cache_of_another_type_is_refused(engine: adcg.Engine) -> None:
    caches = {name: np.zeros((SLOTS, LENGTH, KV, d), np.uint8) for name, d in (("k_cache", D), ("v_cache", DV))}
    with pytest.raises(adcg.AdcgError, match=r"`k_cache`: DLPack dtype \(code 1, 8 bits, 1 lanes\), needs \(code 10, 8 bits"):
        graph(engine, "float8_e4m3fn").compile(states=caches)


def test_block_tables(engine: adcg.Engine) -> None:
    g = engine.graph(max_tokens=8, max_seqs=4, max_seq_len=LENGTH)
    pages = g.input("pages", "int32", [12])
    g.output("tables", g.paged_metadata(g.input("cu_pages", "int32", [g.seqs + 1]), pages, max_pages=3))
    with g.compile() as exec_:
        tables = exec_.replay(adcg.Batch(decode_seqs=3), [np.arange(50, 62, dtype=np.int32), np.array([0, 2, 3, 6], np.int32)])
    np.testing.assert_array_equal(tables.outputs["tables"], [[50, 51, 0], [52, 0, 0], [53, 54, 55]])
