"""Offsets per bucket: scratch that is largest at a small size, as split products have it, next to values that grow."""

from __future__ import annotations

import json
from typing import Any

import adcg
import numpy as np
import pytest

WIDTH, TOKENS = 16, 64
ROW = WIDTH * 4


def split_scratch(tokens: int) -> int:
    """Most at 8 tokens: 64 partial sums of 8 rows; from 32 tokens on none is split."""
    return 64 * tokens * ROW if tokens <= 8 else 2 * tokens * ROW if tokens < 32 else 0


@pytest.fixture
def graph(engine: adcg.Engine) -> Any:
    """y = 2 (2 x) + x; the scratch is written and read."""

    @engine.op("t.double", kind="dynamic", workspace=lambda call: split_scratch(call.tokens))
    def double(call: adcg.OpCall) -> None:
        if call.workspace is not None and call.workspace.nbytes:
            call.workspace[:] = 0xEE
        np.multiply(call.inputs[0], 2.0, out=call.outputs[0])

    g = engine.graph(max_tokens=TOKENS, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, WIDTH])
    a = g.op("t.double", x)
    b = g.op("t.double", a)
    g.output("y", g.add(b, x))
    return g


def test_the_arena_is_what_the_neediest_size_needs(graph: Any) -> None:
    sizes = [4, 8, 16, 32, TOKENS]
    fixed = graph.forecast(buckets=sizes)
    own = graph.forecast(buckets=sizes, layout="per_bucket")
    auto = graph.forecast(buckets=sizes, layout="auto")
    # By hand, first of the two doublings: x staged, its output, scratch (the second one's: three values and scratch).
    rows = {n: 3 * n * ROW + split_scratch(n) for n in sizes}
    assert own.arena_bytes == own.lower_bound_bytes == max(rows.values())
    assert fixed.arena_bytes == fixed.lower_bound_bytes == 3 * TOKENS * ROW + split_scratch(8)
    assert auto.arena_bytes == own.arena_bytes < fixed.arena_bytes
    # Where nothing is gained, one layout serves all.
    one = json.loads(graph.plan("json", buckets=[TOKENS], layout="auto"))
    assert one["layout"] == "auto" and len(one["layouts"]) == 1


@pytest.mark.parametrize("layout", ["fixed", "per_bucket", "auto"])
@pytest.mark.parametrize("mode", ["piecewise", "full_and_piecewise", "none"])
def test_every_layout_gives_the_same_bits(graph: Any, rng: np.random.Generator, layout: str, mode: str) -> None:
    sizes = [4, 8, 16, 32, TOKENS]
    options = {"buckets": sizes, "layout": layout, "mode": mode}
    forecast = graph.forecast(**options)
    plan = json.loads(graph.plan("json", **options))
    assert plan["layout"] == layout
    with graph.compile(**options) as exec_:
        exec_.capture()
        stats = exec_.stats()
        assert (stats.total_bytes, stats.arena_bytes, stats.metadata_bytes) == (
            forecast.total_bytes,
            forecast.arena_bytes,
            forecast.metadata_bytes,
        )
        for n in [8, 64, 3, 17, 64, 1, 9, 8, 32, 31]:
            x = rng.standard_normal((n, WIDTH)).astype(np.float32)
            batch = adcg.Batch(prefill_seqs=1, prefill_tokens=n)
            y = exec_.replay(batch, {"x": x}).outputs["y"]
            assert np.array_equal(y, x * 4 + x)


def test_layouts_under_verify(graph: Any, rng: np.random.Generator) -> None:
    with graph.compile(buckets=[8, TOKENS], layout="per_bucket", verify=True) as exec_:
        for n in (8, 64, 2):
            x = rng.standard_normal((n, WIDTH)).astype(np.float32)
            step = exec_.replay(adcg.Batch(prefill_seqs=1, prefill_tokens=n), {"x": x})
            assert np.array_equal(step.outputs["y"], x * 5)


def test_options_that_cannot_be_meant(graph: Any) -> None:
    for options in ({"layout": "sometimes"}, {"plan_seconds": -1.0}, {"plan_seconds": float("nan")}):
        with pytest.raises(adcg.AdcgError) as caught:
            graph.forecast(**options)
        assert caught.value.status == adcg.errors.ERR_ARGUMENT
        assert next(iter(options)) in str(caught.value)
