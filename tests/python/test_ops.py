"""Ops written in Python: static and dynamic, discovery, inference, attributes, mutation, aliases, exceptions."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import adcg
import ml_dtypes
import numpy as np
import pytest

Fails = Callable[..., adcg.AdcgError]


def run(g: adcg.Graph, batch: adcg.Batch, *inputs: Any, **options: Any) -> adcg.Step:
    with g.compile(**options) as exec_:
        return exec_.replay(batch, list(inputs))


def test_static_and_dynamic_ops_beside_built_in_ones(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """Python ops and built-in ones in one graph; the eager mode gives the same bits as the captured ones."""

    @engine.op("my.shift", attrs={"by": 1.0}, infer=lambda inputs, attrs: inputs[0])
    def shift(call: adcg.OpCall) -> None:
        np.add(call.inputs[0], np.float32(call.attrs["by"]), out=call.outputs[0])

    @engine.op("my.running_sum", kind="dynamic")
    def running_sum(call: adcg.OpCall) -> None:
        """Sums over the tokens of the whole batch: depends on the real counts."""
        real = call.batch.tokens
        np.cumsum(call.inputs[0][:real], axis=0, out=call.outputs[0][:real])

    g = engine.graph(max_tokens=32, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 8])
    h = g.op("my.shift", g.linear(x, g.weight("w", "float32", [8, 8])), by=3)  # an int where a float is meant
    g.output("y", g.add(g.op("my.shift", g.op("my.running_sum", h)), x))
    w = rng.standard_normal((8, 8)).astype(np.float32)
    data = rng.standard_normal((11, 8)).astype(np.float32)
    results = []
    for options in ({}, {"mode": "none"}, {"buckets": [11]}, {"buckets": [32], "mode": "piecewise"}, {"verify": True}):
        with g.compile({"w": w}, **options) as exec_:  # type: ignore[arg-type]
            for _ in range(2):
                results.append(exec_.replay(adcg.Batch.of(prefill=[9], decode=2), [data]).outputs["y"])
    expected = np.cumsum(data.astype(np.float64) @ w.T + 3, axis=0) + 1 + data
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=1e-4)
    assert len({y.tobytes() for y in results}) == 1


def test_what_a_call_holds(engine: adcg.Engine) -> None:
    calls: list[tuple[Any, ...]] = []

    @engine.op("my.look", kind="dynamic", attrs={"i": 1, "f": 0.5, "b": True, "s": "x", "n": (1, 2)})
    def look(call: adcg.OpCall) -> None:
        assert not call.inputs[0].flags.writeable and call.outputs[0].flags.writeable
        calls.append((call.phase, call.tokens, call.seqs, call.batch, call.inputs[0].shape, dict(call.attrs)))
        call.outputs[0][...] = call.inputs[0]

    g = engine.graph(max_tokens=16, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 2])
    # Static ops around it, so that there is something to capture.
    g.output("y", g.add(g.op("my.look", g.add(x, x), i=7, n=[3], s="é"), x))
    batch = adcg.Batch.of(prefill=[3, 2])
    run(g, batch, np.ones((5, 2), np.float32), buckets=[8])
    phase, tokens, _, seen, shape, attrs = calls[-1]
    assert (phase, tokens, seen, shape) == ("replay", 8, batch, (8, 2))
    assert attrs == {"i": 7, "f": 0.5, "b": True, "s": "é", "n": (3,)}
    assert all(call[3].tokens == 0 for call in calls if call[0] == "warmup")


def test_discovery_by_shapes(engine: adcg.Engine) -> None:
    """Without infer, shapes() answers at several sizes; the function itself is not called for it."""
    asked: list[tuple[Any, ...]] = []
    launched: list[str] = []

    def shapes(inputs: list[tuple[tuple[int, ...], str]], tokens: int, seqs: int) -> list[Any]:
        asked.append((inputs, tokens, seqs))
        (rows, width), _ = inputs[0]
        return [(2 * rows + 1, width), ((seqs, 3), "int32")]

    @engine.op("my.double_rows", kind="dynamic", outputs=2, shapes=shapes)
    def double_rows(call: adcg.OpCall) -> None:
        launched.append(call.phase)
        real = call.batch.tokens
        call.outputs[0][: 2 * real] = np.repeat(call.inputs[0][:real], 2, axis=0)
        call.outputs[0][2 * real] = -1
        call.outputs[1][:] = call.batch.seqs

    g = engine.graph(max_tokens=16, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 2])
    y, n = g.op("my.double_rows", x)
    assert y.type is None and y.shape is None and y.dtype is None  # not known before the freeze
    g.output("y", y)
    g.output("n", n)
    g.freeze()
    assert not launched and len(asked) >= 3
    assert str(y.type) == "float32[2*tokens+1, 2]" and str(n.type) == "int32[seqs, 3]"
    data = np.arange(6, dtype=np.float32).reshape(3, 2)
    out = run(g, adcg.Batch.of(prefill=[2], decode=1), data).outputs
    np.testing.assert_array_equal(out["y"], [*np.repeat(data, 2, axis=0), [-1, -1]])
    np.testing.assert_array_equal(out["n"], np.full((2, 3), 2))


def test_discovery_without_an_answer(engine: adcg.Engine) -> None:
    """Neither infer nor shapes: like the first input, and the function is not called to find out."""
    launched: list[str] = []

    @engine.op("my.first", kind="dynamic", inputs=2)
    def first(call: adcg.OpCall) -> None:
        launched.append(call.phase)
        call.outputs[0][...] = call.inputs[0]

    g = engine.graph(max_tokens=4, max_seqs=2)
    h = g.op("my.first", g.input("x", "bfloat16", [g.tokens, 3]), g.input("z", "int32", [g.seqs]))
    g.output("y", h)
    g.freeze()
    assert not launched and str(h.type) == "bfloat16[tokens, 3]"
    x = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    y = run(g, adcg.Batch(decode_seqs=2), x, np.zeros(2, np.int32)).outputs["y"]
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y, x)


def test_shapes_that_are_not_affine(engine: adcg.Engine, fails: Fails) -> None:
    @engine.op("my.square", kind="dynamic", shapes=lambda inputs, tokens, seqs: [(tokens * tokens, 2)])
    def square(call: adcg.OpCall) -> None:
        raise AssertionError("never launched")

    @engine.op("my.sulk", kind="dynamic", shapes=lambda inputs, tokens, seqs: 1 / 0)
    def sulk(call: adcg.OpCall) -> None:
        raise AssertionError("never launched")

    for name in ("my.square", "my.sulk"):
        g = engine.graph(max_tokens=16, max_seqs=2)
        g.output("y", g.op(name, g.input("x", "float32", [g.tokens, 2])))
        error = fails("ERR_OP" if name == "my.sulk" else "ERR_SHAPE", name, g.freeze)
        assert isinstance(error.__cause__, ZeroDivisionError) == (name == "my.sulk")


def test_infer_is_symbolic(engine: adcg.Engine) -> None:
    def infer(inputs: list[adcg.Type], attrs: dict[str, Any]) -> list[adcg.Type]:
        assert inputs[0].shape[0] == adcg.Dim(tokens=1)
        return [adcg.Type("int32", [inputs[0].shape[0], attrs["width"]]), adcg.Type(inputs[0].dtype, inputs[0].shape)]

    @engine.op("my.split", outputs=2, attrs={"width": int}, infer=infer)
    def split(call: adcg.OpCall) -> None:
        call.outputs[0][...] = 5
        call.outputs[1][...] = call.inputs[0] + 1

    g = engine.graph(max_tokens=8, max_seqs=2)
    a, b = g.op("my.split", g.input("x", "float32", [g.tokens, 2]), width=3)
    assert str(a.type) == "int32[tokens, 3]" and str(b.type) == "float32[tokens, 2]"
    g.output("a", a)
    g.output("b", b)
    out = run(g, adcg.Batch(decode_seqs=2), np.zeros((2, 2), np.float32)).outputs
    np.testing.assert_array_equal(out["a"], np.full((2, 3), 5))
    np.testing.assert_array_equal(out["b"], np.ones((2, 2)))


def test_infer_that_fails(engine: adcg.Engine, fails: Fails) -> None:
    def infer(inputs: list[adcg.Type], attrs: dict[str, Any]) -> adcg.Type:
        raise LookupError("no such width")

    engine.op("my.bad", infer=infer)(lambda call: None)
    engine.op("my.short", outputs=2, infer=lambda inputs, attrs: inputs[0])(lambda call: None)
    g = engine.graph(max_tokens=8, max_seqs=2)
    x = g.input("x", "float32", [g.tokens, 2])
    error = fails("ERR_OP", ("my.bad", "no such width"), g.op, "my.bad", x)
    assert isinstance(error.__cause__, LookupError)
    fails("ERR_OP", "1 types for 2 outputs", g.op, "my.short", x)
    g.output("y", g.add(x, x))  # the graph goes on
    g.freeze()


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_an_exception_is_the_steps_error(engine: adcg.Engine, fails: Fails, kind: str) -> None:
    broken: list[BaseException] = []

    @engine.op("my.moody", kind=kind)
    def moody(call: adcg.OpCall) -> None:
        if broken and call.phase == "replay":
            raise broken[0]
        call.outputs[0][...] = call.inputs[0] * 2

    g = engine.graph(max_tokens=4, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 2])
    g.output("y", g.add(g.op("my.moody", g.add(x, x)), x))
    one = np.ones((3, 2), np.float32)
    batch = adcg.Batch(decode_seqs=3)
    with g.compile() as exec_:
        np.testing.assert_array_equal(exec_.replay(batch, [one]).outputs["y"], 5)
        broken.append(ValueError("not today"))
        error = fails("ERR_OP", ("my.moody", "ValueError: not today"), exec_.replay, batch, [one])
        assert error.__cause__ is broken[0]
        broken[0] = KeyboardInterrupt()  # is the program's, not an op's
        with pytest.raises(KeyboardInterrupt):
            exec_.replay(batch, [one])
        broken.clear()
        np.testing.assert_array_equal(exec_.replay(batch, [one]).outputs["y"], 5)
        assert exec_.stats().failed_steps == 2


def test_a_capture_that_fails_runs_eagerly(engine: adcg.Engine, fails: Fails) -> None:
    @engine.op("my.warm")
    def warm(call: adcg.OpCall) -> None:
        if call.phase != "replay" and call.tokens == 4:
            raise RuntimeError("four is too warm")
        call.outputs[0][...] = call.inputs[0]

    g = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 2])
    g.output("y", g.op("my.warm", g.add(x, x)))
    with g.compile(mode="piecewise", buckets=[4, 8]) as exec_:
        seen: list[adcg.Progress] = []
        error = fails("ERR_OP", ("my.warm", "four is too warm"), exec_.capture, progress=seen.append)
        assert isinstance(error.__cause__, RuntimeError)
        assert [(p.bucket.tokens, p.status == 0) for p in seen] == [(8, True), (4, False)]
        assert {b.tokens: b.state for b in exec_.buckets()} == {4: "failed", 8: "captured"}
        step = exec_.replay(adcg.Batch(decode_seqs=3), [np.ones((3, 2), np.float32)])
        assert (step.mode, step.reason) == ("eager", "capture_failed")
        np.testing.assert_array_equal(step.outputs["y"], 2)


def test_mutation_of_a_state(engine: adcg.Engine, fails: Fails) -> None:
    @engine.op("my.count", kind="dynamic", inputs=2, mutates=[1])
    def count(call: adcg.OpCall) -> None:
        real = call.batch.tokens
        call.inputs[1][0] += real
        call.outputs[0][:real] = call.inputs[0][:real] + call.inputs[1][0]

    g = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input("x", "float32", [g.tokens])
    fails("ERR_GRAPH", "my.count", g.op, "my.count", x, g.input("no_state", "float32", [g.tokens]))
    g = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input("x", "float32", [g.tokens])
    g.output("y", g.op("my.count", x, g.state("n", "float32", [1])))
    n = np.zeros(1, np.float32)
    with g.compile(states={"n": n}) as exec_:
        for expected in (3, 6):
            y = exec_.replay(adcg.Batch(decode_seqs=3), [np.zeros(3, np.float32)]).outputs["y"]
            np.testing.assert_array_equal(y, expected)
    assert n[0] == 6


def test_in_place_workspace_and_optional_inputs(engine: adcg.Engine) -> None:
    sizes: list[int] = []

    def workspace(call: adcg.OpCall) -> int:
        return call.outputs[0].size * 4

    @engine.op(
        "my.axpy",
        inputs=2,
        optional_inputs=1,
        in_place={0: 0},
        workspace=workspace,
        infer=lambda inputs, attrs: inputs[0],
    )
    def axpy(call: adcg.OpCall) -> None:
        sizes.append(call.workspace.nbytes)
        scratch = call.workspace[: call.inputs[0].nbytes].view(np.float32).reshape(call.inputs[0].shape)
        np.multiply(call.inputs[0], 10, out=scratch)
        if len(call.inputs) > 1:
            scratch += call.inputs[1]
        call.outputs[0][...] = scratch

    g = engine.graph(max_tokens=8, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 3])
    g.output("y", g.op("my.axpy", g.op("my.axpy", g.add(x, x)), x))
    y = run(g, adcg.Batch(decode_seqs=2), np.ones((2, 3), np.float32), buckets=[8]).outputs["y"]
    np.testing.assert_array_equal(y, 201)
    assert sizes and min(sizes) >= 2 * 3 * 4
    assert g.forecast(buckets=[8]).workspace_bytes >= 8 * 3 * 4


def test_views(engine: adcg.Engine) -> None:
    @engine.op("my.flat", views={0: 0}, infer=lambda t, a: adcg.Type(t[0].dtype, [t[0].shape[0], 6]))
    def flat(call: adcg.OpCall) -> None:
        pass

    g = engine.graph(max_tokens=4, max_seqs=4)
    x = g.input("x", "float32", [g.tokens, 2, 3])
    h = g.op("my.flat", g.add(x, x))
    g.output("y", g.add(h, h))
    data = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    y = run(g, adcg.Batch(decode_seqs=2), data).outputs["y"]
    np.testing.assert_array_equal(y, 4 * data.reshape(2, 6))


def test_registration(engine: adcg.Engine, fails: Fails) -> None:
    def launch(call: adcg.OpCall) -> None:
        """Does nothing at all.

        And this is not its summary.
        """

    register = engine.op("my.idle", kind="metadata", capture="always", inputs=3, optional_inputs=1, attrs={"n": int})
    assert register(launch) is launch
    info = engine.ops()["my.idle"]
    assert (info.doc, info.kind, info.capture) == ("Does nothing at all.", "metadata", "always")
    assert (info.num_inputs, info.num_optional_inputs, info.num_outputs) == (3, 1, 1)
    assert info.attrs[0].required and str(info.attrs[0]) == "n: int"
    fails("ERR_STATE", "my.idle", engine.op("my.idle"), launch)
    fails("ERR_ARGUMENT", "adcg.mine", engine.op("adcg.mine"), launch)
    fails("ERR_ARGUMENT", "lively", engine.op("my.x", kind="lively"), launch)
    fails("ERR_ARGUMENT", "at_times", engine.op("my.x", capture="at_times"), launch)
    fails("ERR_ARGUMENT", "fast", engine.op("my.x", flags=["fast"]), launch)
    fails("ERR_ARGUMENT", "mutates", engine.op("my.x", mutates=[1]), launch)
    fails("ERR_ATTRIBUTE", "'a'", engine.op("my.x", attrs={"a": bytes}), launch)
    fails("ERR_ARGUMENT", "my.x", engine.op("my.x", inputs=1, optional_inputs=2), launch)
    fails("ERR_ARGUMENT", "my.x", engine.op("my.x", in_place={0: 4}), launch)
    engine.op("my.x")(launch)
    g = engine.graph(max_tokens=1, max_seqs=1)
    x = g.input("x", "float32", [g.tokens])
    fails("ERR_ATTRIBUTE", "n", g.op, "my.idle", x, x)


def test_callbacks_outlive_their_names(rng: np.random.Generator) -> None:
    """The exec alone keeps the engine's callbacks alive."""

    def make() -> adcg.Exec:
        engine = adcg.Engine("host")

        @engine.op("my.double")
        def double(call: adcg.OpCall) -> None:
            np.multiply(call.inputs[0], 2, out=call.outputs[0])

        g = engine.graph(max_tokens=2, max_seqs=2)
        g.output("y", g.op("my.double", g.input("x", "float32", [g.tokens])))
        exec_ = g.compile()
        engine.close()
        g.close()
        return exec_

    exec_ = make()
    gc.collect()
    np.testing.assert_array_equal(exec_.replay(adcg.Batch(decode_seqs=2), [np.ones(2, np.float32)]).outputs["y"], 2)
    exec_.close()


def test_one_thread_at_a_time(engine: adcg.Engine, fails: Fails) -> None:
    """A second call on a busy exec is refused, also from within its own op; other execs of the graph go on."""
    inside, go_on = threading.Event(), threading.Event()
    wait = threading.local()

    @engine.op("my.wait", kind="dynamic")
    def slow(call: adcg.OpCall) -> None:
        if getattr(wait, "here", False):
            inside.set()
            assert go_on.wait(10)
        call.outputs[0][...] = call.inputs[0]

    g = engine.graph(max_tokens=2, max_seqs=2)
    g.output("y", g.op("my.wait", g.input("x", "float32", [g.tokens])))
    batch, x = adcg.Batch(decode_seqs=2), np.ones(2, np.float32)
    with g.compile() as exec_, g.compile() as other:
        results: list[Any] = []

        def work() -> None:
            wait.here = True
            results.append(exec_.replay(batch, [x]).outputs["y"])

        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(10)
        fails("ERR_BUSY", "", exec_.replay, batch, [x])
        fails("ERR_BUSY", "", exec_.capture)
        np.testing.assert_array_equal(other.replay(batch, [x]).outputs["y"], 1)
        go_on.set()
        thread.join(10)
        np.testing.assert_array_equal(results[0], 1)
        exec_.replay(batch, [x])
