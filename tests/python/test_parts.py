"""Slices and concatenations that cost nothing: the same bits as separate tensors, in less memory."""

from __future__ import annotations

import json
from typing import Any

import adcg
import numpy as np
import pytest

HEADS, DIM, HIDDEN, TOKENS = 4, 8, 32, 48


def build(engine: adcg.Engine, fused: bool) -> adcg.Graph:
    """Two products of x, one rotated (in place, where it may be), then put beside each other and multiplied again."""
    g = engine.graph(max_tokens=TOKENS, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, HIDDEN])
    positions = g.input("positions", "int32", [g.tokens])
    if fused:
        both = g.linear(x, g.weight("ab", "float32", [2 * HIDDEN, HIDDEN]))
        a, b = (g.slice(both, axis=1, start=start, length=HIDDEN) for start in (0, HIDDEN))
    else:
        a, b = (g.linear(x, g.weight(name, "float32", [HIDDEN, HIDDEN])) for name in "ab")
    a = g.rope(g.reshape(a, dims=[HEADS, DIM]), positions)
    y = g.concat(g.reshape(a, dims=[HIDDEN]), g.rms_norm(b, g.weight("norm", "float32", [HIDDEN])), axis=1)
    g.output("y", g.linear(y, g.weight("out", "float32", [HIDDEN, 2 * HIDDEN])))
    return g


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, Any]:
    a, b, out = (rng.standard_normal(shape).astype(np.float32) for shape in ((32, 32), (32, 32), (32, 64)))
    return {"a": a, "b": b, "ab": np.concatenate([a, b]), "out": out, "norm": np.ones(32, np.float32)}


@pytest.mark.parametrize("verify", [False, True])
def test_parts_give_the_bits_of_separate_tensors(
    engine: adcg.Engine, weights: dict[str, Any], rng: np.random.Generator, verify: bool
) -> None:
    results = []
    steps = [(n, rng.standard_normal((n, HIDDEN)).astype(np.float32)) for n in (1, 7, 48, 16, 3)]
    for fused in (False, True):
        g = build(engine, fused)
        names = ("ab", "norm", "out") if fused else ("a", "b", "norm", "out")
        with g.compile({name: weights[name] for name in names}, buckets=[4, 16, 48], verify=verify) as exec_:
            results.append(
                [
                    exec_.replay(
                        adcg.Batch(prefill_seqs=1, prefill_tokens=n),
                        {"x": x, "positions": np.arange(n, dtype=np.int32)},
                    ).outputs["y"]
                    for n, x in steps
                ]
            )
    for separate, fused in zip(*results, strict=True):
        assert np.isfinite(separate).all() and np.array_equal(separate, fused)


def test_parts_have_no_memory_of_their_own(engine: adcg.Engine) -> None:
    g = build(engine, fused=True)
    plan = json.loads(g.plan("json"))
    values = {v["name"]: v for v in plan["values"]}
    slices = [v for name, v in values.items() if name.startswith("adcg.slice")]
    assert [v["strides"] for v in slices] == [[2 * HIDDEN, 1]] * 2
    assert len({v["index"] for v in slices}) == 1, "in one block"
    assert [n["runs"] for n in plan["nodes"] if n["op"] == "adcg.slice"] == [False, False]
    assert plan["arena_bytes"] == plan["lower_bound_bytes"]
    # Less than the same with both halves copied out, which needs the whole and one half more at once.
    assert plan["arena_bytes"] <= build(engine, fused=False).forecast().arena_bytes + TOKENS * HIDDEN * 4
