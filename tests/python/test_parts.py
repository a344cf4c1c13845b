"""Parts of tensors: slices that are their input's memory and inputs that are written where they are joined, against the
same graph over tensors of their own. Same bits in every mode, and less memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import adcg
import numpy as np
import pytest

Fails = Callable[..., adcg.AdcgError]
Weights = dict[str, Any]
MODES: list[dict[str, Any]] = [
    {"buckets": [8, 32]},
    {"buckets": [8, 32], "mode": "none"},
    {"buckets": [32], "mode": "piecewise"},
    {"buckets": [8, 32], "verify": True},
    {"buckets": [8, 32], "layout": "per_bucket"},
]


def plan_of(g: adcg.Graph) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(g.plan("json", buckets=[8, 32]))
    assert plan["arena_bytes"] == plan["lower_bound_bytes"]
    return plan


def runs(plan: dict[str, Any], op: str) -> list[bool]:
    return [node["runs"] for node in plan["nodes"] if node["op"] == op]


def strides(plan: dict[str, Any], op: str) -> list[Any]:
    """Of the results of every node of an op."""
    written = [name for node in plan["nodes"] if node["op"] == op for name in node["outputs"]]
    values = {value["name"]: value for value in plan["values"]}
    return [values[name]["strides"] or None for name in written]


def bits(
    g: adcg.Graph, weights: Weights, states: Callable[[], dict[str, Any]], steps: list[tuple[adcg.Batch, list[Any]]]
) -> bytes:
    """What all steps give, and leave in the states: the same in every mode."""
    seen = set()
    for options in MODES:
        kept = states()
        given = {w.name: weights[w.name] for w in g.weights}
        with g.compile(given, kept, **options) as exec_:
            out = b""
            for batch, inputs in steps * 2:
                step = exec_.replay(batch, inputs)
                out += b"".join(step.outputs[name].tobytes() for name, _ in g.outputs)
        seen.add(out + b"".join(kept[name].tobytes() for name in sorted(kept)))
    assert len(seen) == 1
    return seen.pop()


def weights_of(rng: np.random.Generator, **shapes: tuple[int, ...]) -> Weights:
    return {name: rng.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}


def simple(g: adcg.Graph, weights: Weights, width: int) -> bytes:
    """bits of a graph without states over x [tokens, width]."""
    steps = []
    for batch in (adcg.Batch.of(prefill=[5], decode=2), adcg.Batch(decode_seqs=3), adcg.Batch.of(prefill=[20, 9])):
        x = np.random.default_rng(batch.tokens).standard_normal((batch.tokens, width)).astype(np.float32)
        steps.append((batch, [x]))
    return bits(g, weights, dict, steps)


# ---- Attention over one fused product ----------------------------------------------------------------------------

HEADS, KV, D, HIDDEN, SLOTS, LENGTH = 4, 2, 8, 24, 4, 64
SIZES = [HEADS * D, KV * D, KV * D]


def attention(engine: adcg.Engine, project: Callable[[adcg.Graph, adcg.Value], Any]) -> adcg.Graph:
    g = engine.graph(max_tokens=32, max_seqs=SLOTS)
    x = g.input("x", "float32", [g.tokens, HIDDEN])
    index = [g.input("cu", "int32", [g.seqs + 1]), *(g.input(n, "int32", [g.seqs]) for n in ("pos", "slot"))]
    _, positions = g.attention_metadata(*index[:2])
    q, k, v = project(g, g.add(x, x))
    q, k = (g.rope(g.reshape(y, dims=[n, D]), positions) for y, n in ((q, HEADS), (k, KV)))
    caches = [g.state(n, "float32", [SLOTS, LENGTH, KV, D]) for n in ("k", "v")]
    o = g.attention(q, k, g.reshape(v, dims=[KV, D]), *caches, *index)
    g.output("y", g.linear(o, g.weight("wo", "float32", [HIDDEN, HEADS * D])))
    return g


def test_fused_projections_and_attention(engine: adcg.Engine, rng: np.random.Generator) -> None:
    weights = weights_of(rng, wqkv=(sum(SIZES), HIDDEN), wo=(HIDDEN, HEADS * D))
    weights |= dict(zip(("wq", "wk", "wv"), np.split(weights["wqkv"], np.cumsum(SIZES)[:2]), strict=True))

    @engine.op(
        "my.split3",
        outputs=3,
        infer=lambda t, a: [adcg.Type(t[0].dtype, [t[0].shape[0], n]) for n in SIZES],
    )
    def split3(call: adcg.OpCall) -> None:
        at = 0
        for out in call.outputs:
            out[...] = call.inputs[0][:, at : at + out.shape[1]]
            at += out.shape[1]

    def fused(g: adcg.Graph, x: adcg.Value) -> adcg.Value:
        product: adcg.Value = g.linear(x, g.weight("wqkv", "float32", [sum(SIZES), HIDDEN]))
        return product

    graphs = [
        attention(engine, lambda g, x: g.split(fused(g, x), SIZES)),
        attention(engine, lambda g, x: g.op("my.split3", fused(g, x))),
        attention(
            engine,
            lambda g, x: [
                g.linear(x, g.weight(name, "float32", [n, HIDDEN]))
                for name, n in zip(("wq", "wk", "wv"), SIZES, strict=True)
            ],
        ),
    ]
    steps = []
    for batch, cu, pos, slot in (
        (adcg.Batch.of(prefill=[5, 7]), [0, 5, 12], [0, 0], [2, 0]),
        (adcg.Batch(decode_seqs=2), [0, 1, 2], [7, 5], [0, 2]),
        (adcg.Batch.of(prefill=[20], decode=2), [0, 20, 21, 22], [0, 8, 6], [3, 0, 2]),
    ):
        x = rng.standard_normal((batch.tokens, HIDDEN)).astype(np.float32)
        steps.append((batch, [x, *(np.array(a, np.int32) for a in (cu, pos, slot))]))

    def states() -> dict[str, Any]:
        return {n: np.zeros((SLOTS, LENGTH, KV, D), np.float32) for n in ("k", "v")}

    got = [bits(g, weights, states, steps) for g in graphs]
    assert got[0] == got[1] == got[2]
    plan, copying = plan_of(graphs[0]), plan_of(graphs[1])
    pitch = sum(SIZES)
    assert runs(plan, "adcg.slice") == [False] * 3
    assert strides(plan, "adcg.slice") == [[pitch, 1]] * 3
    assert strides(plan, "adcg.reshape") == [*strides(plan, "adcg.rope"), [pitch, D, 1]] == [[pitch, D, 1]] * 3
    assert plan["arena_bytes"] < copying["arena_bytes"]
    qkv = {value["name"] for value in plan["values"] if value["strides"]}
    assert len({b["offset"] for b in plan["blocks"] if qkv & set(b["values"])}) == 1  # q, k, v have no block but one


# ---- Slices -------------------------------------------------------------------------------------------------------


def test_slices_of_slices_and_of_inputs(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """x[:, 2:14], [:, 3:8] of it, and what a reader without strides is given: a copy."""

    @engine.op("my.double", infer=lambda t, a: t[0])
    def double(call: adcg.OpCall) -> None:
        assert call.inputs[0].flags.c_contiguous
        np.add(call.inputs[0], call.inputs[0], out=call.outputs[0])

    @engine.op("my.double_strided", infer=lambda t, a: t[0], strided_inputs=[0])
    def double_strided(call: adcg.OpCall) -> None:
        assert not call.inputs[0].flags.c_contiguous
        assert call.inputs[0].strides == (16 * 4, 4)
        np.add(call.inputs[0], call.inputs[0], out=call.outputs[0])

    def graph(op: str) -> adcg.Graph:
        g = engine.graph(max_tokens=32, max_seqs=4)
        x = g.input("x", "float32", [g.tokens, 16])
        outer = g.slice(x, axis=1, start=2, length=12)
        inner = g.slice(g.slice(g.add(x, x), start=2, length=12), start=3, length=5)
        g.output("a", g.op(op, g.slice(outer, start=3, length=5)))
        g.output("b", g.op(op, inner))
        g.output("c", g.slice(x, axis=-1, start=15))
        return g

    x = rng.standard_normal((7, 16)).astype(np.float32)
    for op, want in (("my.double_strided", [False] * 4 + [True]), ("my.double", None)):
        g = graph(op)
        plan = plan_of(g)
        ran = runs(plan, "adcg.slice")
        if want is None:
            assert len(ran) == 5 and sum(ran) == 3  # the inner ones and the output: out of the outer ones' memory
        else:
            assert ran == want
        simple(g, {}, 16)
        for options in MODES:
            with g.compile(**options) as exec_:
                y = exec_.replay(adcg.Batch.of(prefill=[7]), [x]).outputs
            np.testing.assert_array_equal(y["a"], 2 * x[:, 5:10])
            np.testing.assert_array_equal(y["b"], 4 * x[:, 5:10])
            np.testing.assert_array_equal(y["c"], x[:, 15:])


def test_slices_along_the_first_axis(engine: adcg.Engine) -> None:
    """Ends of sequences: cu_seqlens without its first element, which is compact, and so any reader's."""
    g = engine.graph(max_tokens=32, max_seqs=4)
    cu = g.input("cu", "int32", [g.seqs + 1])
    g.output("ends", g.slice(cu, axis=0, start=1))
    first = g.slice(g.weight("w", "int32", [3]), axis=0, length=1)
    g.output("back", g.concat(first, g.slice(cu, axis=0, start=1), axis=0))
    for options in MODES:
        with g.compile({"w": np.array([7, 8, 9], np.int32)}, **options) as exec_:
            y = exec_.replay(adcg.Batch.of(prefill=[3, 4]), [np.array([0, 3, 7], np.int32)]).outputs
        assert y["ends"].tolist() == [3, 7] and y["back"].tolist() == [7, 3, 7]


def test_gate_and_up_of_one_product(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """silu(gate) * up over the halves of a row: written over neither, since all of the row would have to stay then."""
    weights = weights_of(rng, wide=(40, 16), down=(16, 20))
    weights["gate"], weights["up"] = np.split(weights["wide"], 2)

    def graph(fused: bool) -> adcg.Graph:
        g = engine.graph(max_tokens=32, max_seqs=4)
        x = g.input("x", "float32", [g.tokens, 16])
        if fused:
            halves = g.split(g.linear(x, g.weight("wide", "float32", [40, 16])), [20, 20])
        else:
            halves = [g.linear(x, g.weight(n, "float32", [20, 16])) for n in ("gate", "up")]
        g.output("y", g.add(g.linear(g.silu_mul(*halves), g.weight("down", "float32", [16, 20])), x))
        return g

    fused = graph(True)
    assert simple(fused, weights, 16) == simple(graph(False), weights, 16)
    plan = plan_of(fused)
    assert runs(plan, "adcg.slice") == [False, False]
    assert strides(plan, "adcg.slice") == [[40, 1]] * 2 and strides(plan, "adcg.silu_mul") == [None]


# ---- Joins --------------------------------------------------------------------------------------------------------


def test_products_are_written_where_they_are_joined(engine: adcg.Engine, rng: np.random.Generator) -> None:
    weights = weights_of(rng, a=(12, 16), b=(20, 16), c=(16, 32), ca=(16, 12), cb=(16, 20))

    @engine.op(
        "my.concat",
        inputs=2,
        infer=lambda t, a: adcg.Type(t[0].dtype, [t[0].shape[0], t[0].shape[1] + t[1].shape[1]]),
    )
    def concat(call: adcg.OpCall) -> None:
        np.concatenate(call.inputs, axis=1, out=call.outputs[0])

    def graph(join: str) -> adcg.Graph:
        g = engine.graph(max_tokens=32, max_seqs=4)
        x = g.input("x", "float32", [g.tokens, 16])
        a, b = (g.linear(x, g.weight(n, "float32", [rows, 16])) for n, rows in (("a", 12), ("b", 20)))
        g.output("y", g.linear(g.op(join, a, g.add(b, b)), g.weight("c", "float32", [16, 32])))
        return g

    g, copying = graph("adcg.concat"), graph("my.concat")
    assert simple(g, weights, 16) == simple(copying, weights, 16)
    plan = plan_of(g)
    assert strides(plan, "adcg.linear") == [[32, 1], [32, 1], None]
    assert strides(plan, "adcg.add") == [[32, 1]]
    assert plan["arena_bytes"] < plan_of(copying)["arena_bytes"]


def test_joins_of_joins_and_of_inputs(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """Against numpy: a tensor that is joined twice, one that is the caller's, and a join within a join."""
    g = engine.graph(max_tokens=32, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 5])
    h = g.add(x, x)
    inner = g.concat(h, x, h)
    outer = g.concat(inner, g.slice(inner, start=3, length=4), x, axis=1)
    g.output("outer", outer)
    g.output("inner", g.add(inner, inner))
    simple(g, {}, 5)
    x_ = rng.standard_normal((9, 5)).astype(np.float32)
    inner_ = np.concatenate([2 * x_, x_, 2 * x_], axis=1)
    for options in MODES:
        with g.compile(**options) as exec_:
            y = exec_.replay(adcg.Batch.of(prefill=[9]), [x_]).outputs
        np.testing.assert_array_equal(y["outer"], np.concatenate([inner_, inner_[:, 3:7], x_], axis=1))
        np.testing.assert_array_equal(y["inner"], 2 * inner_)


# ---- Both together ------------------------------------------------------------------------------------------------


def test_halves_of_a_product_joined_again(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """One half is rotated, the other normed, both put beside each other and multiplied again."""
    weights = weights_of(rng, a=(32, 32), b=(32, 32), out=(32, 64), norm=(32,))
    weights["ab"] = np.concatenate([weights["a"], weights["b"]])

    def graph(fused: bool) -> adcg.Graph:
        g = engine.graph(max_tokens=32, max_seqs=4)
        x, positions = g.input("x", "float32", [g.tokens, 32]), g.input("positions", "int32", [g.tokens])
        if fused:
            a, b = g.split(g.linear(x, g.weight("ab", "float32", [64, 32])), [32, 32])
        else:
            a, b = (g.linear(x, g.weight(name, "float32", [32, 32])) for name in "ab")
        a = g.reshape(g.rope(g.reshape(a, dims=[4, 8]), positions), dims=[32])
        y = g.concat(a, g.rms_norm(b, g.weight("norm", "float32", [32])), axis=1)
        g.output("y", g.linear(y, g.weight("out", "float32", [32, 64])))
        return g

    steps: list[tuple[adcg.Batch, list[Any]]] = []
    for n in (1, 7, 32, 16, 3):
        x = rng.standard_normal((n, 32)).astype(np.float32)
        steps.append((adcg.Batch.of(prefill=[n]), [x, np.arange(n, dtype=np.int32)]))
    fused, separate = graph(True), graph(False)
    assert bits(fused, weights, dict, steps) == bits(separate, weights, dict, steps)
    plan = plan_of(fused)
    assert runs(plan, "adcg.slice") == [False, False] and strides(plan, "adcg.slice") == [[64, 1]] * 2
    # Less than the same with both halves copied out, which needs the whole and one half more at once.
    assert plan["arena_bytes"] <= plan_of(separate)["arena_bytes"] + 32 * 32 * 4


# ---- Ops of the program's own -------------------------------------------------------------------------------------


def halves(engine: adcg.Engine, part: Any, name: str = "my.halves") -> list[Any]:
    """An op that cuts x [T, 2n] into halves, and what it was asked and launched with."""
    calls: list[Any] = []

    @engine.op(
        name,
        outputs=2,
        parts={0: 0, 1: 0},
        part=part,
        strided_inputs=[0],
        strided_outputs=[0, 1],
        infer=lambda t, a: [adcg.Type(t[0].dtype, [t[0].shape[0], t[0].shape[1].constant // 2])] * 2,
    )
    def launch(call: adcg.OpCall) -> None:
        n = call.outputs[0].shape[1]
        for k, out in enumerate(call.outputs):
            source = call.inputs[0][:, k * n : (k + 1) * n]
            there = source.__array_interface__["data"][0] == out.__array_interface__["data"][0]
            calls.append(there)
            if not there:
                out[...] = source

    return calls


def test_parts_of_a_python_op(engine: adcg.Engine, rng: np.random.Generator) -> None:
    asked: list[Any] = []

    def part(
        output: int, number: int, inputs: list[adcg.Type], outputs: list[adcg.Type], attrs: dict[str, Any]
    ) -> tuple[int, int]:
        asked.append((output, number, str(inputs[0]), [str(t) for t in outputs], attrs))
        return 1, output * outputs[0].shape[1].constant

    calls = halves(engine, part)

    @engine.op("my.sum", inputs=2, in_place={0: (0, 1)}, infer=lambda t, a: t[0])
    def total(call: adcg.OpCall) -> None:
        np.add(call.inputs[0], call.inputs[1], out=call.outputs[0])

    g = engine.graph(max_tokens=32, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 6])
    a, b = g.op("my.halves", g.add(x, x))
    g.output("y", g.op("my.sum", g.silu_mul(a, a), b))  # my.sum takes no strides, so that b is copied
    simple(g, {}, 6)
    want = ["float32[tokens, 3]"] * 2
    assert asked[:2] == [(0, 0, "float32[tokens, 6]", want, {}), (1, 0, "float32[tokens, 6]", want, {})]
    assert calls and set(calls[0::2]) == {True} and set(calls[1::2]) == {False}
    assert strides(plan_of(g), "my.halves") == [[6, 1], None]
    x_ = rng.standard_normal((4, 6)).astype(np.float32)
    with g.compile() as exec_:
        y = exec_.replay(adcg.Batch.of(prefill=[4]), [x_]).outputs["y"]
    a_ = 2 * x_[:, :3].astype(np.float64)
    np.testing.assert_allclose(y, a_ / (1 + np.exp(-a_)) * a_ + 2 * x_[:, 3:], rtol=1e-5, atol=1e-6)


def test_bad_parts(engine: adcg.Engine, fails: Fails) -> None:
    def launch(call: adcg.OpCall) -> None:
        pass

    for bad in ({"parts": {0: 0}}, {"joins": {0: [0]}}, {"parts": {0: 3}, "part": lambda *a: (1, 0)}):
        fails("ERR_ARGUMENT", "my.bad", engine.op("my.bad", **bad), launch)
    part = {"parts": {0: 0}, "part": lambda *a: (1, 0)}
    fails("ERR_ARGUMENT", ("my.bad", "static"), engine.op("my.bad", kind="dynamic", **part), launch)
    fails("ERR_ARGUMENT", ("strided_inputs", "1"), engine.op("my.bad", strided_inputs=[1]), launch)
    fails("ERR_ARGUMENT", ("strided_outputs", "-1"), engine.op("my.bad", strided_outputs=[-1]), launch)
    fails("ERR_ARGUMENT", "my.bad", engine.op("my.bad", in_place={0: [0, 5]}), launch)

    def broken(*_: Any) -> tuple[int, int]:
        raise ZeroDivisionError("no axis today")

    g = engine.graph(max_tokens=4, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 6])
    for i, (answer, word) in enumerate(
        (
            (broken, "no axis today"),
            (lambda *a: (2, 0), "axis 2"),
            (lambda *a: (-1, 0), "axis -1"),
            (lambda *a: (1, 4), "from 4 on"),
            (lambda *a: (0, 0), "axis 0"),
            (lambda *a: 1, "iterable"),
            (lambda *a: ("x", 0), "str"),
        )
    ):
        halves(engine, answer, f"my.bad{i}")
        fails("ERR_OP", (f"my.bad{i}", word), g.op, f"my.bad{i}", x)
    fails("ERR_SHAPE", "5", g.split, x, [2, 3])
    fails("ERR_ATTRIBUTE", "positive", g.split, x, [6, 0])
    fails("ERR_ATTRIBUTE", "axis", g.split, x, [6], axis=2)
    fails("ERR_GRAPH", "Value", g.split, "x", [6])
    with pytest.raises(TypeError):
        g.split(x, [2.5, 3.5])  # type: ignore[list-item]
    fails("ERR_GRAPH", "adcg.concat", g.concat, x)
    fails("ERR_SHAPE", "inputs[0]", g.concat, x, x, axis=0)
