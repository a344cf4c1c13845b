"""Building graphs: dims, introspection of the op library, errors, forecast and plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import adcg
import numpy as np
import pytest

Fails = Callable[..., adcg.AdcgError]


def test_dims_are_affine(engine: adcg.Engine) -> None:
    g = engine.graph(max_tokens=8, max_seqs=4)
    assert g.seqs + 1 == adcg.Dim(0, 1, 1) == 1 + g.seqs
    assert 2 * g.tokens + g.seqs - 1 == adcg.Dim(2, 1, -1)
    assert (2 * g.tokens + g.seqs + 3).at(tokens=10, seqs=4) == 27
    assert str(2 * g.tokens + 1) == "2*tokens+1" and str(adcg.Dim()) == "0" and str(g.seqs - 1) == "seqs-1"


def test_types_are_inferred_while_building(engine: adcg.Engine) -> None:
    g = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input("x", "bfloat16", [g.tokens, 64])
    assert (x.role, str(x.type)) == ("input", "bfloat16[tokens, 64]")
    h = g.reshape(g.linear(x, g.weight("w", np.float32, [24, 64])), dims=[3, 8])
    assert (h.role, str(h.type)) == ("activation", "bfloat16[tokens, 3, 8]")
    assert str(g.gather_tokens(h, g.input("i", "int32", [g.seqs])).type) == "bfloat16[seqs, 3, 8]"
    assert g.find("w").number == g.weights[0].number


def test_every_built_in_op_is_a_method(engine: adcg.Engine) -> None:
    g = engine.graph(max_tokens=8, max_seqs=4)
    documented = {"embedding", "linear", "rms_norm", "add", "silu_mul", "rope", "attention", "attention_metadata"}
    documented |= {"paged_attention", "mla_attention", "paged_mla_attention", "paged_metadata"}
    documented |= {"gather_tokens", "argmax", "reshape", "slice", "concat", "moe_router", "moe", "split"}
    assert documented <= set(dir(g))
    assert "input" in dir(g)
    doc = g.rope.__doc__ or ""
    assert "theta: float = 10000.0" in doc and "scaling: string = 'none'" in doc and "2 inputs" in doc
    rope = {attr.name: attr.default for attr in engine.ops()["adcg.rope"].attrs}
    assert rope["high_freq_factor"] == 4.0 and rope["original_max_position"] == 8192
    attention = engine.ops()["adcg.attention"]
    assert (attention.kind, attention.capture, attention.mutates) == ("dynamic", "always", (3, 4))
    latent = engine.ops()["adcg.mla_attention"]
    assert (latent.kind, latent.capture, latent.mutates) == ("dynamic", "uniform_decode", (5,))
    assert engine.ops()["adcg.reshape"].attrs[0].required
    with pytest.raises(AttributeError, match="no op 'lineer'"):
        g.lineer  # noqa: B018


def test_optional_inputs(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """linear with and without its bias; None stands for an optional input that is left out."""
    w, b = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    x = rng.standard_normal((2, 3)).astype(np.float32)
    for bias in (True, False):
        g = engine.graph(max_tokens=2, max_seqs=2)
        value = g.linear(
            g.input("x", "float32", [g.tokens, 3]),
            g.weight("w", "float32", [5, 3]),
            g.weight("b", "float32", [5]) if bias else None,
        )
        g.output("y", value)
        with g.compile({"w": w, "b": b} if bias else {"w": w}) as exec_:
            y = exec_.replay(adcg.Batch(decode_seqs=2), {"x": x}).outputs["y"]
        np.testing.assert_allclose(y, x @ w.T + (b if bias else 0), rtol=1e-5, atol=1e-5)


def test_bad_building(engine: adcg.Engine, fails: Fails) -> None:
    g = engine.graph(max_tokens=8, max_seqs=4)
    other = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 64])
    w = g.weight("w", "float32", [64, 64])
    fails("ERR_BATCH", "0", engine.graph, max_tokens=0, max_seqs=1)
    fails("ERR_GRAPH", "x", g.input, "x", "float32", [g.tokens, 64])
    fails("ERR_GRAPH", "", g.input, "", "float32", [g.tokens, 64])
    fails("ERR_DTYPE", "float64", g.input, "y", "float64", [g.tokens, 64])
    fails("ERR_DTYPE", "float31", g.input, "y", "float31", [g.tokens, 64])
    fails("ERR_SHAPE", "y", g.input, "y", "float32", [64, g.tokens])
    fails("ERR_SHAPE", "", g.input, "y", "float32", [])
    fails("ERR_SHAPE", "", g.input, "y", "float32", [g.tokens] + [1] * 8)
    fails("ERR_SHAPE", "'64'", g.input, "y", "float32", [g.tokens, "64"])
    fails("ERR_SHAPE", "", g.weight, "y", "float32", [g.tokens, 64])
    fails("ERR_NOT_FOUND", "my.nothing", g.op, "my.nothing", x)
    fails("ERR_NOT_FOUND", "y", g.find, "y")
    fails("ERR_GRAPH", "inputs[1]", g.linear, x, other.input("x", "float32", [g.tokens, 64]))
    fails("ERR_GRAPH", ("inputs[0]", "str"), g.linear, "x", w)
    fails("ERR_GRAPH", "adcg.linear", g.linear, x)
    fails("ERR_GRAPH", "adcg.linear", g.linear, x, w, w, w)
    fails("ERR_ATTRIBUTE", "epsilon", g.rms_norm, x, g.weight("n", "float32", [64]), epsilon=1e-5)
    fails("ERR_ATTRIBUTE", "eps", g.rms_norm, x, g.find("n"), eps="small")
    fails("ERR_ATTRIBUTE", ("'bias'", "position"), g.linear, x, w, bias=w)
    fails("ERR_ATTRIBUTE", "dims", g.reshape, x)
    fails("ERR_ATTRIBUTE", "'dims'", g.reshape, x, dims=[4, "16"])
    fails("ERR_ATTRIBUTE", "'dims'", g.reshape, x, dims=object())
    fails(
        "ERR_ATTRIBUTE", "scaling", g.rope, g.reshape(x, dims=[2, 32]), g.input("p", "int32", [g.tokens]), scaling="x"
    )
    fails("ERR_SHAPE", "adcg.linear", g.linear, x, g.weight("v", "float32", [64, 63]))
    fails("ERR_DTYPE", "adcg.linear", g.linear, g.input("i", "int32", [g.tokens, 64]), w)
    fails("ERR_GRAPH", "other", g.output, "other", other.inputs[0])
    fails("ERR_GRAPH", "", g.freeze)  # no outputs
    y = g.linear(x, w)
    g.output("y", y)
    fails("ERR_GRAPH", "y", g.output, "y", y)


def test_frozen_graphs_stay_as_they_are(engine: adcg.Engine, fails: Fails) -> None:
    g = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 4])
    g.output("y", g.add(x, x))
    assert not g.frozen
    g.freeze()
    g.freeze()
    assert g.frozen
    fails("ERR_STATE", "", g.input, "z", "float32", [g.tokens])
    fails("ERR_STATE", "", g.add, x, x)
    fails("ERR_ARGUMENT", "sometimes", g.forecast, mode="sometimes")
    fails("ERR_ARGUMENT", "buckets", g.forecast, buckets=[])
    fails("ERR_ARGUMENT", "", g.forecast, buckets=[-4])
    fails("ERR_ARGUMENT", ("png", "json, text, svg"), g.plan, "png")


def test_forecast_is_what_is_held(linear: Any) -> None:
    """What the forecast says before anything is allocated is what stats say once every bucket is captured."""
    forecast = linear.graph.forecast(buckets=[8, 32])
    linear.exec.capture()
    stats = linear.exec.stats()
    for name in ("total_bytes", "arena_bytes", "metadata_bytes", "tape_bytes", "graph_bytes"):
        assert getattr(stats, name) == getattr(forecast, name), name
    assert stats.captured_buckets == forecast.num_buckets == len(linear.exec.buckets())
    assert forecast.arena_bytes >= forecast.lower_bound_bytes > 0
    assert forecast.bucket_sum_bytes >= forecast.arena_bytes - forecast.staging_bytes
    assert f"{forecast.arena_bytes:,}" in str(forecast) and "peak liveness" in str(forecast)


def test_plan(linear: Any) -> None:
    plan = json.loads(linear.graph.plan("json", buckets=[8, 32]))
    assert plan
    text = linear.graph.plan(buckets=[8, 32])
    assert "adcg.linear" in text and "adcg.add" in text


SVG = "{http://www.w3.org/2000/svg}"


def test_plan_as_a_picture(engine: adcg.Engine) -> None:
    """Every block of the JSON plan is a rectangle of the SVG, in scale, that names its values when pointed at."""
    from adcg.cli import demo_graph

    g = demo_graph(engine, 256, 8)
    plan = json.loads(g.plan("json"))
    root = ElementTree.fromstring(g.plan("svg"))
    groups = {group.get("class"): group for group in root.iter(f"{SVG}g")}
    rects = []
    for rect in groups["blocks"].iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        rects.append((x, y + height, width, height, rect.findtext(f"{SVG}title") or ""))
    assert len(rects) == len(plan["blocks"])
    left, foot = min(r[0] for r in rects), max(r[1] for r in rects)
    times = len(plan["nodes"]) + 2
    # Inputs are staged at the first time, outputs at the last.
    per_time = (max(r[0] + r[2] for r in rects) - left) / times
    per_byte = (foot - min(r[1] - r[3] for r in rects)) / plan["arena_bytes"]
    for block in plan["blocks"]:
        reserved = -(-max(block["bytes"], 1) // 64) * 64
        where = (block["first"], block["last"] - block["first"] + 1, block["offset"], reserved)
        titles = [
            title
            for x, low, width, height, title in rects
            if ((x - left) / per_time, width / per_time) == pytest.approx(where[:2], abs=0.01)
            and ((foot - low), height) == pytest.approx([n * per_byte for n in where[2:]], abs=0.005)
        ]
        assert len(titles) == 1, block
        for name in (block["name"], *block["values"], f"{block['bytes']:,} bytes" if block["bytes"] > 1023 else ""):
            assert name in titles[0]
    assert len(groups["columns"].findall(f"{SVG}rect")) == len(plan["partitions"])
    peak = next(t.text for t in groups["marks"].iter(f"{SVG}text") if (t.text or "").startswith("peak"))
    assert peak is not None and peak.endswith(f"at time {plan['peak']['time']}")


def test_pictures_of_hostile_names(engine: adcg.Engine) -> None:
    g = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input('<&">]]>\x01\x1b[2J\n', "float32", [g.tokens, 4])
    g.output("</title><script>alert(1)</script>", g.add(x, x))
    titles = [t.text or "" for t in ElementTree.fromstring(g.plan("svg")).iter(f"{SVG}title")]
    assert any(t.startswith('input staging: <&">]]>\ufffd\ufffd[2J\ufffd\n') for t in titles)
    assert any(t.startswith("output staging: </title><script>alert(1)</script>\n") for t in titles)
    assert "\x1b" not in g.plan("text")


def test_demo_graph_plans_below_the_sum(engine: adcg.Engine) -> None:
    """One arena for all buckets is smaller than one for each, and at least what is live at the peak."""
    from adcg.cli import demo_graph

    forecast = demo_graph(engine, 256, 8).forecast()
    assert forecast.lower_bound_bytes <= forecast.arena_bytes < forecast.bucket_sum_bytes
    assert forecast.num_dynamic_ops >= 4  # the attention of each layer, at least
