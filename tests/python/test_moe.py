"""A whole mixture-of-experts block through a graph: router, experts and a shared expert against numpy, at every way a
step can run, with batches smaller than their bucket. Kernels by themselves are tested in Go (kernels/host)."""

from __future__ import annotations

from typing import Any

import adcg
import numpy as np
import pytest

EXPERTS, K, HIDDEN, INNER = 12, 3, 20, 16
MODES: list[dict[str, Any]] = [
    {"buckets": [8, 32]},
    {"buckets": [8, 32], "mode": "none"},
    {"buckets": [32], "mode": "piecewise"},
    {"buckets": [8, 32], "verify": True},
    {"buckets": [8, 32], "layout": "per_bucket"},
]
BATCHES = [adcg.Batch.of(prefill=[5], decode=2), adcg.Batch(decode_seqs=1), adcg.Batch.of(prefill=[20, 9])]


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def expect(w: dict[str, Any], x: Any) -> Any:
    """The block in float64, token by token."""
    out = (silu(x @ w["gate"].T) * (x @ w["up"].T)) @ w["down"].T
    scores = 1 / (1 + np.exp(-(x @ w["router"].T)))
    for t, row in enumerate(x):
        biased = scores[t] + w["bias"]
        groups = np.sort(biased.reshape(4, 3), axis=1)[:, 1:].sum(axis=1)
        kept = np.repeat(np.isin(np.arange(4), np.argsort(-groups)[:2]), 3)
        chosen = np.argsort(-np.where(kept, biased, -np.inf))[:K]
        weights = scores[t, chosen] / scores[t, chosen].sum() * 2.5
        for e, weight in zip(chosen, weights, strict=True):
            gate, up = np.split(w["experts_up"][e] @ row, 2)
            out[t] += weight * (w["experts_down"][e] @ (silu(gate) * up))
    return out


def block(g: adcg.Graph, rng: np.random.Generator) -> dict[str, Any]:
    shapes = {
        "router": (EXPERTS, HIDDEN),
        "bias": (EXPERTS,),
        "experts_up": (EXPERTS, 2 * INNER, HIDDEN),
        "experts_down": (EXPERTS, HIDDEN, INNER),
        "gate": (24, HIDDEN),
        "up": (24, HIDDEN),
        "down": (HIDDEN, 24),
    }
    weights = {name: (rng.standard_normal(shape) / 3).astype(np.float32) for name, shape in shapes.items()}
    w = {name: g.weight(name, "float32", shape) for name, shape in shapes.items()}
    x = g.input("x", "float32", [g.tokens, HIDDEN])
    scores, indices = g.moe_router(
        g.linear(x, w["router"]),
        w["bias"],
        scoring="sigmoid",
        top_k=K,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
    )
    routed = g.moe(x, scores, indices, w["experts_up"], w["experts_down"])
    shared = g.linear(g.silu_mul(g.linear(x, w["gate"]), g.linear(x, w["up"])), w["down"])
    g.output("y", g.add(routed, shared))
    return weights


def test_block(engine: adcg.Engine, rng: np.random.Generator) -> None:
    results = set()
    with engine.graph(max_tokens=32, max_seqs=8) as g:
        weights = block(g, rng)
        wide = {name: array.astype(np.float64) for name, array in weights.items()}
        xs = [rng.standard_normal((batch.tokens, HIDDEN)).astype(np.float32) for batch in BATCHES]
        for options in MODES:
            with g.compile(weights, **options) as exec_:
                got = b""
                for batch, x in list(zip(BATCHES, xs, strict=True)) * 2:
                    y = exec_.replay(batch, [x]).outputs["y"]
                    np.testing.assert_allclose(y, expect(wide, x.astype(np.float64)), rtol=1e-5, atol=1e-5)
                    got += y.tobytes()
                results.add(got)
    assert len(results) == 1  # the same bits in every mode


def test_bad_index_ends_the_step(engine: adcg.Engine, rng: np.random.Generator) -> None:
    with engine.graph(max_tokens=8, max_seqs=8) as g:
        x = g.input("x", "float32", [g.tokens, HIDDEN])
        scores, indices = g.input("scores", "float32", [g.tokens, 2]), g.input("indices", "int32", [g.tokens, 2])
        up, down = g.weight("up", "float32", [4, INNER, HIDDEN]), g.weight("down", "float32", [4, HIDDEN, INNER])
        g.output("y", g.moe(x, scores, indices, up, down, activation="relu2", gated=False))
        weights = {"up": np.ones((4, INNER, HIDDEN), np.float32), "down": np.ones((4, HIDDEN, INNER), np.float32)}
        with g.compile(weights, buckets=[8]) as exec_:
            batch = adcg.Batch(decode_seqs=3)
            inputs = [
                np.ones((3, HIDDEN), np.float32),
                np.ones((3, 2), np.float32),
                np.array([[0, 1], [3, 4], [0, 0]], np.int32),
            ]
            with pytest.raises(adcg.AdcgError, match=r"indices\[1\]\[1\] is 4, there are 4 experts"):
                exec_.replay(batch, inputs)
            inputs[2][1, 1] = 2
            y = exec_.replay(batch, inputs).outputs["y"]
            np.testing.assert_array_equal(y, np.full((3, HIDDEN), 2.0 * INNER * HIDDEN**2, np.float32))
