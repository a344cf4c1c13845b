"""Replays: what goes in and comes out, staging and re-pointing, binding, capture, statistics."""

from __future__ import annotations

import array
import ctypes
import gc
import weakref
from collections.abc import Callable
from typing import Any

import adcg
import ml_dtypes
import numpy as np
import pytest
from adcg import _ffi

Fails = Callable[..., adcg.AdcgError]


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


# ---- Arrays in and out -------------------------------------------------------------------------------------------


@pytest.mark.on_both
def test_outputs_left_out_have_the_real_size(linear: Any) -> None:
    x = linear.x(5)
    step = linear.exec.replay(adcg.Batch(prefill_seqs=1, prefill_tokens=5), {"x": x})
    assert step.outputs["y"].shape == (5, 16)
    close(step.outputs["y"], linear.expect(x))
    again = linear.exec.replay(adcg.Batch(prefill_seqs=1, prefill_tokens=5), {"x": x})
    assert again.outputs["y"] is not step.outputs["y"]  # each step has arrays of its own
    np.testing.assert_array_equal(again.outputs["y"], step.outputs["y"])


@pytest.mark.on_both
def test_inputs_by_position(linear: Any) -> None:
    x, y = linear.x(3), np.zeros((3, 16), np.float32)
    step = linear.exec.replay(adcg.Batch(decode_seqs=3), [x], [y])
    assert step.outputs["y"] is y
    close(y, linear.expect(x))


def test_larger_arrays(linear: Any) -> None:
    """Inputs are only read, whatever their size; lend=True lends what lies behind the real rows."""
    x, y = linear.x(20), np.zeros((20, 16), np.float32)
    before = x.copy()
    batch = adcg.Batch(prefill_seqs=1, prefill_tokens=5)
    step = linear.exec.replay(batch, {"x": x}, {"y": y})
    assert (step.bucket_tokens, step.padded_tokens) == (8, 3)
    np.testing.assert_array_equal(x, before)
    close(y[:5], linear.expect(x[:5]))
    assert step.staged_bytes == 5 * 16 * 4  # x alone: y has room for the bucket
    np.testing.assert_array_equal(y[8:], 0)  # beyond the bucket nothing is touched

    step = linear.exec.replay(batch, {"x": x}, {"y": y}, lend=True)
    assert step.staged_bytes == 0
    np.testing.assert_array_equal(x[5:8], 0)
    np.testing.assert_array_equal(x[:5], before[:5])
    np.testing.assert_array_equal(x[8:], before[8:])
    close(y[:5], linear.expect(before[:5]))


def test_read_only_inputs_are_staged(linear: Any) -> None:
    x = linear.x(20)
    x.flags.writeable = False
    before = x.copy()
    step = linear.exec.replay(adcg.Batch(prefill_seqs=1, prefill_tokens=5), {"x": x}, lend=True)
    np.testing.assert_array_equal(x, before)
    close(step.outputs["y"], linear.expect(before[:5]))
    assert step.staged_bytes == 2 * 5 * 16 * 4  # x, and y of the real size
    # Becoming read-only between two replays is seen although the array is the same one.
    z = linear.x(8)
    linear.exec.replay(adcg.Batch(decode_seqs=5), {"x": z}, lend=True)
    z[5:] = 3
    z.flags.writeable = False
    linear.exec.replay(adcg.Batch(decode_seqs=5), {"x": z}, lend=True)
    np.testing.assert_array_equal(z[5:], 3)


def test_read_only_outputs_are_refused(linear: Any, fails: Fails) -> None:
    x, y = linear.x(2), np.zeros((2, 16), np.float32)
    linear.exec.replay(adcg.Batch(decode_seqs=2), {"x": x}, {"y": y})
    y.flags.writeable = False
    fails("ERR_ADDRESS", ("outputs['y']", "read-only"), linear.exec.replay, adcg.Batch(decode_seqs=2), [x], [y])
    y.flags.writeable = True
    linear.exec.replay(adcg.Batch(decode_seqs=2), {"x": x}, {"y": y})


def test_buffer_protocol(linear: Any) -> None:
    """memoryview and array.array are arrays too."""
    x = linear.x(2)
    step = linear.exec.replay(adcg.Batch(decode_seqs=2), {"x": memoryview(x)})
    close(step.outputs["y"], linear.expect(x))


def test_flat_buffers(engine: adcg.Engine) -> None:
    g = engine.graph(max_tokens=4, max_seqs=4)
    x = g.input("x", "float32", [g.tokens])
    g.output("y", g.add(x, x))
    with g.compile() as exec_:
        y = array.array("f", [0, 0, 0])
        exec_.replay(adcg.Batch(decode_seqs=3), [array.array("f", [1, 2, 4])], [y])
        assert y.tolist() == [2, 4, 8]


class Producer:
    """A DLPack producer that is not numpy, old or new, on a device of one's choice."""

    def __init__(self, data: Any, *, versioned: bool = True, device: int = 1, readonly: bool = False) -> None:
        self.data, self.versioned, self.device, self.readonly = data, versioned, device, readonly
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self.new = new

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: Any) -> Any:
        if not self.versioned and options:
            raise TypeError("an old producer knows no max_version")
        managed: Any = _ffi.DLManagedTensorVersioned() if self.versioned else _ffi.DLManagedTensor()
        if self.versioned:
            managed.version.major, managed.version.minor = 1, 0
            managed.flags = int(self.readonly)
        t = managed.dl_tensor
        code, bits = {"float32": (2, 32), "bfloat16": (4, 16), "int32": (0, 32)}[self.data.dtype.name]
        offset = 16  # the base lies before the first element, as with a view into a larger allocation
        t.data, t.byte_offset = self.data.ctypes.data - offset, offset
        t.device.device_type, t.ndim = self.device, self.data.ndim
        t.dtype.code, t.dtype.bits, t.dtype.lanes = code, bits, 1
        itemsize = self.data.dtype.itemsize
        t.shape = (ctypes.c_int64 * self.data.ndim)(*self.data.shape)
        t.strides = (ctypes.c_int64 * self.data.ndim)(*(s // itemsize for s in self.data.strides))
        self.managed = managed
        name = b"dltensor_versioned" if self.versioned else b"dltensor"
        self.name = name
        return self.new(ctypes.addressof(managed), name, None)


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack_producers(linear: Any, versioned: bool) -> None:
    x, y = linear.x(4), np.zeros((4, 16), np.float32)
    producer = Producer(x, versioned=versioned)
    linear.exec.replay(adcg.Batch(decode_seqs=4), {"x": producer}, {"y": Producer(y, versioned=versioned)})
    close(y, linear.expect(x))
    seen = weakref.ref(producer)
    del producer
    gc.collect()
    assert seen() is None  # borrowed for the call: nothing holds it afterwards


def test_dlpack_read_only_flag(linear: Any, fails: Fails) -> None:
    x = linear.x(8)
    before = x.copy()
    batch = adcg.Batch(decode_seqs=5)
    step = linear.exec.replay(batch, {"x": Producer(x, readonly=True)}, lend=True)
    np.testing.assert_array_equal(x, before)
    close(step.outputs["y"], linear.expect(before[:5]))
    y = Producer(np.zeros((8, 16), np.float32), readonly=True)
    fails("ERR_ADDRESS", "read-only", linear.exec.replay, batch, {"x": x}, {"y": y})


def test_dlpack_refusals(linear: Any, fails: Fails) -> None:
    class Broken:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("I need a gradient")

    class NoCapsule(Broken):
        def __dlpack__(self, **options: Any) -> Any:
            return object()

    replay, batch = linear.exec.replay, adcg.Batch(decode_seqs=1)
    fails("ERR_ARGUMENT", ("inputs['x']", "I need a gradient"), replay, batch, {"x": Broken()})
    fails("ERR_ARGUMENT", ("inputs['x']", "no DLPack capsule"), replay, batch, {"x": NoCapsule()})
    fails("ERR_DEVICE", "inputs[0]", replay, batch, {"x": Producer(linear.x(1), device=2)})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": Producer(linear.x(2)[:, ::2])})


def test_torch(engine: adcg.Engine, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    g = engine.graph(max_tokens=4, max_seqs=4)
    g.output("y", g.linear(g.input("x", torch.bfloat16, [g.tokens, 8]), g.weight("w", torch.bfloat16, [3, 8])))
    w, x = torch.randn(3, 8).bfloat16(), torch.randn(4, 8).bfloat16()
    with g.compile({"w": w}) as exec_:
        y = torch.zeros(4, 3, dtype=torch.bfloat16)
        exec_.replay(adcg.Batch(decode_seqs=4), {"x": x}, {"y": y})
    expected = x.double() @ w.double().T
    assert torch.allclose(y.double(), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.on_both
def test_bfloat16(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """bf16 in and out through ml_dtypes: the product is rounded once, so it is the nearest bf16 or its neighbour."""
    x = rng.standard_normal((3, 32)).astype(ml_dtypes.bfloat16)
    w = rng.standard_normal((5, 32)).astype(ml_dtypes.bfloat16)
    g = engine.graph(max_tokens=4, max_seqs=4)
    g.output("y", g.linear(g.input("x", "bfloat16", [g.tokens, 32]), g.weight("w", "bfloat16", [5, 32])))
    with g.compile({"w": w}) as exec_:
        y = np.asarray(exec_.replay(adcg.Batch(decode_seqs=3), {"x": x}).outputs["y"])
        again = np.asarray(exec_.replay(adcg.Batch(decode_seqs=3), {"x": x}).outputs["y"])
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y.view(np.uint16), again.view(np.uint16))
    expected = x.astype(np.float64) @ w.astype(np.float64).T
    np.testing.assert_allclose(y.astype(np.float64), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.on_both
def test_two_axes(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """Outputs on the tokens and on the seqs axis, cut by their own counts: the width equals a bucket on purpose."""
    g = engine.graph(max_tokens=16, max_seqs=8)
    x = g.input("x", "float32", [g.tokens, 16])
    last = g.input("last", "int32", [g.seqs])
    g.output("all", g.add(x, x))
    g.output("best", g.argmax(g.gather_tokens(x, last)))
    data = rng.standard_normal((11, 16)).astype(np.float32)
    rows = np.array([3, 9, 10], np.int32)
    with g.compile(buckets=[8, 16]) as exec_:
        step = exec_.replay(adcg.Batch.of(prefill=[4, 6], decode=1), {"x": data, "last": rows})
    np.testing.assert_array_equal(step.outputs["all"], 2 * data)
    np.testing.assert_array_equal(step.outputs["best"], data[rows].argmax(axis=1))
    best = np.asarray(step.outputs["best"])
    assert best.dtype == np.int32 and step.outputs["best"].shape == (3,)


@pytest.mark.on_both
def test_empty_batch(linear: Any) -> None:
    step = linear.exec.replay(adcg.Batch(), {"x": np.zeros((0, 16), np.float32)})
    assert step.outputs["y"].shape == (0, 16) and step.reason == "empty"


# ---- Re-pointing and staging -------------------------------------------------------------------------------------


def test_repointing_is_counted(linear: Any) -> None:
    batch = adcg.Batch(decode_seqs=8)
    a, b = linear.x(8), linear.x(8)
    ya, yb = np.zeros((8, 16), np.float32), np.zeros((8, 16), np.float32)
    linear.exec.replay(batch, [a], [ya])
    assert linear.exec.replay(batch, [a], [ya]).repointed == 0
    assert linear.exec.replay(batch, [b], [ya]).repointed == 1
    step = linear.exec.replay(batch, [a], [yb])
    assert (step.repointed, step.staged_bytes) == (2, 0)
    close(yb, linear.expect(a))
    stats = linear.exec.stats()
    assert stats.steps == 4 and stats.staged_tensors == 0


@pytest.mark.on_both
def test_staging_is_counted(linear: Any) -> None:
    x, y = linear.x(5), np.zeros((5, 16), np.float32)
    step = linear.exec.replay(adcg.Batch(decode_seqs=5), [x], [y])
    assert step.staged_bytes == 2 * x.nbytes
    close(y, linear.expect(x))
    stats = linear.exec.stats()
    assert (stats.staged_tensors, stats.staged_bytes) == (2, 2 * x.nbytes)
    assert (stats.real_tokens, stats.padded_tokens) == (5, 3)


def test_an_array_that_changed_in_place_is_described_anew(linear: Any, fails: Fails) -> None:
    x = linear.x(8)
    linear.exec.replay(adcg.Batch(decode_seqs=8), [x])
    flat = x.reshape(-1)
    fails("ERR_SHAPE", "inputs[0]", linear.exec.replay, adcg.Batch(decode_seqs=8), [flat])
    with pytest.raises(ValueError):
        x.resize((9, 16))  # numpy refuses while the exec may know its address
    close(linear.exec.replay(adcg.Batch(decode_seqs=8), [x]).outputs["y"], linear.expect(x))


def test_arrays_are_not_kept_alive(linear: Any) -> None:
    x = linear.x(8)
    seen = weakref.ref(x)
    step = linear.exec.replay(adcg.Batch(decode_seqs=8), [x])
    y = weakref.ref(step.outputs["y"])
    del x, step
    gc.collect()
    assert seen() is None and y() is None


# ---- Binding -----------------------------------------------------------------------------------------------------


@pytest.mark.on_both
def test_rebinding_reaches_captured_buckets(linear: Any, rng: np.random.Generator) -> None:
    linear.exec.capture()
    x = linear.x(8)
    batch = adcg.Batch(decode_seqs=8)
    close(linear.exec.replay(batch, [x]).outputs["y"], linear.expect(x))
    other = rng.standard_normal((16, 16)).astype(np.float32)
    linear.exec.bind("w", other)
    close(linear.exec.replay(batch, [x]).outputs["y"], x @ other.T + x)
    other *= 2  # on the host bound, not copied
    if linear.graph.engine.device.name != "host":
        linear.exec.bound("w").assign(other)
    close(linear.exec.replay(batch, [x]).outputs["y"], x @ other.T + x)


def test_bound_arrays_live_as_long_as_they_are_bound(engine: adcg.Engine) -> None:
    g = engine.graph(max_tokens=2, max_seqs=2)
    g.output("y", g.linear(g.input("x", "float32", [g.tokens, 2]), g.weight("w", "float32", [2, 2])))
    w = np.eye(2, dtype=np.float32)
    w.flags.writeable = False  # weights are only read
    seen = weakref.ref(w)
    exec_ = g.compile({"w": w})
    del w
    gc.collect()
    assert seen() is not None
    np.testing.assert_array_equal(
        exec_.replay(adcg.Batch(decode_seqs=1), [np.ones((1, 2), np.float32)]).outputs["y"], 1
    )
    exec_.bind(g.weights[0], 2 * np.eye(2, dtype=np.float32))
    gc.collect()
    assert seen() is None
    exec_.close()


def test_bad_binding(linear: Any, engine: adcg.Engine, fails: Fails) -> None:
    bind = linear.exec.bind
    w = linear.w
    fails("ERR_NOT_FOUND", "v", bind, "v", w)
    fails("ERR_STATE", "", bind, "x", w)
    fails("ERR_SHAPE", "w", bind, "w", w[:8])
    fails("ERR_SHAPE", "w", bind, "w", w.reshape(16, 4, 4))
    fails("ERR_SHAPE", "w", bind, "w", w.T)
    fails("ERR_DTYPE", "w", bind, "w", w.astype(np.float64))
    fails("ERR_DTYPE", "w", bind, "w", w.astype(ml_dtypes.bfloat16))
    fails("ERR_DEVICE", "w", bind, "w", Producer(w, device=2))
    fails("ERR_ARGUMENT", ("'w'", "NoneType"), bind, "w", None)
    fails("ERR_ARGUMENT", ("'w'", "list"), bind, "w", w.tolist())
    x = linear.x(3)
    close(linear.exec.replay(adcg.Batch(decode_seqs=3), [x]).outputs["y"], linear.expect(x))
    g = engine.graph(max_tokens=2, max_seqs=2)
    q = g.input("q", "float32", [g.tokens, 1, 4])
    caches = [g.state(n, "float32", [1, 4, 1, 4]) for n in "kv"]
    indices = [
        g.input("cu", "int32", [g.seqs + 1]),
        g.input("pos", "int32", [g.seqs]),
        g.input("slot", "int32", [g.seqs]),
    ]
    g.output("y", g.attention(q, q, q, *caches, *indices))
    cache = np.zeros((1, 4, 1, 4), np.float32)
    with g.compile(states={"v": cache.copy()}) as exec_:
        index = [np.array(a, np.int32) for a in ([0, 1], [0], [0])]
        q_array = np.ones((1, 1, 4), np.float32)
        fails("ERR_STATE", "k", exec_.replay, adcg.Batch(decode_seqs=1), [q_array, *index])
        fails("ERR_STATE", "k", exec_.capture)
        cache.flags.writeable = False
        fails("ERR_ADDRESS", ("'k'", "read-only"), exec_.bind, "k", cache)
        exec_.bind("k", cache.copy())
        y = exec_.replay(adcg.Batch(decode_seqs=1), [q_array, *index]).outputs["y"]
        np.testing.assert_array_equal(y, 1)


def test_a_failed_compile_leaves_the_graph_usable(linear: Any, fails: Fails) -> None:
    fails("ERR_SHAPE", "w", linear.graph.compile, {"w": linear.w[:3]})
    with linear.graph.compile({"w": linear.w}) as exec_:
        x = linear.x(2)
        close(exec_.replay(adcg.Batch(decode_seqs=2), [x]).outputs["y"], linear.expect(x))


# ---- Bad steps ---------------------------------------------------------------------------------------------------


def test_bad_steps(linear: Any, fails: Fails) -> None:
    """Each row: a status, a message that says which; the exec works afterwards."""
    replay, batch, x = linear.exec.replay, adcg.Batch(decode_seqs=4), linear.x(4)
    y = np.zeros((4, 16), np.float32)
    fails("ERR_ARGUMENT", ("inputs", "'x'"), replay, batch)
    fails("ERR_NOT_FOUND", "'z'", replay, batch, {"z": x})
    fails("ERR_NOT_FOUND", "'z'", replay, batch, {"x": x, "z": x})
    fails("ERR_ARGUMENT", "2 arrays", replay, batch, [x, x])
    fails("ERR_ARGUMENT", "ndarray", replay, batch, x)
    fails("ERR_ARGUMENT", ("inputs['x']", "NoneType"), replay, batch, {"x": None})
    fails("ERR_ARGUMENT", ("inputs['x']", "list"), replay, batch, {"x": x.tolist()})
    fails("ERR_ARGUMENT", ("batch", "NoneType"), replay, None, {"x": x})
    fails("ERR_DTYPE", "inputs[0]", replay, batch, {"x": x.astype(np.float64)})
    fails("ERR_DTYPE", "inputs[0]", replay, batch, {"x": x.astype(np.int32)})
    fails("ERR_DTYPE", "inputs['x']", replay, batch, {"x": x.astype(">f4")})
    fails("ERR_DTYPE", "inputs['x']", replay, batch, {"x": x.astype(object)})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": x[:3]})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": x[:, :15].copy()})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": x.reshape(4, 4, 4)})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": np.float32(1)})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": linear.x(8)[::2]})
    fails("ERR_SHAPE", "outputs[0]", replay, batch, {"x": x}, {"y": y[:3]})
    fails("ERR_DTYPE", "outputs[0]", replay, batch, {"x": x}, {"y": y.astype(np.float16)})
    fails("ERR_NOT_FOUND", "'z'", replay, batch, {"x": x}, {"z": y})
    fails("ERR_ARGUMENT", "2 arrays", replay, batch, {"x": x}, [y, y])
    fails("ERR_ADDRESS", "", replay, batch, {"x": x}, {"y": x})
    fails("ERR_BATCH", "", replay, adcg.Batch(prefill_seqs=2, prefill_tokens=1), {"x": x})
    fails("ERR_BATCH", "", replay, adcg.Batch(prefill_tokens=4), {"x": x})
    fails("ERR_BATCH", "", replay, adcg.Batch(decode_seqs=-1), {"x": x})
    fails("ERR_BATCH", "65", replay, adcg.Batch(prefill_seqs=1, prefill_tokens=65), {"x": linear.x(65)})
    fails("ERR_BATCH", "9", replay, adcg.Batch(decode_seqs=9), {"x": linear.x(9)})
    fails("ERR_BATCH", "", replay, adcg.Batch(decode_seqs=4, query_len=2), {"x": x})
    step = replay(batch, {"x": x}, {"y": y})
    close(y, linear.expect(x))
    close(replay(batch, {"x": x}).outputs["y"], linear.expect(x))
    assert step.outputs["y"] is y and linear.exec.stats().steps == 2


def test_index_errors_name_the_index(engine: adcg.Engine, fails: Fails) -> None:
    g = engine.graph(max_tokens=4, max_seqs=4)
    g.output("y", g.embedding(g.input("ids", "int32", [g.tokens]), g.weight("t", "float32", [10, 2])))
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    with g.compile({"t": table}) as exec_:
        batch = adcg.Batch(decode_seqs=3)
        fails("ERR_OP", "10", exec_.replay, batch, [np.array([1, 10, 2], np.int32)])
        fails("ERR_OP", "-1", exec_.replay, batch, [np.array([1, 2, -1], np.int32)])
        y = exec_.replay(batch, [np.array([1, 9, 2], np.int32)]).outputs["y"]
        np.testing.assert_array_equal(y, table[[1, 9, 2]])
        assert exec_.stats().failed_steps == 2


def test_closed_handles(engine: adcg.Engine, linear: Any, fails: Fails) -> None:
    g = linear.graph
    linear.exec.close()
    linear.exec.close()
    fails("ERR_HANDLE", ("Exec", "close"), linear.exec.replay, adcg.Batch(decode_seqs=1), [linear.x(1)])
    for call in (linear.exec.stats, linear.exec.buckets, linear.exec.capture, linear.exec.synchronize):
        fails("ERR_HANDLE", ("Exec", "close"), call)
    fails("ERR_HANDLE", "Exec", linear.exec.bind, "w", linear.w)
    g.close()
    fails("ERR_HANDLE", "Graph", g.compile)
    fails("ERR_HANDLE", "Graph", g.input, "z", "float32", [1])
    engine.close()
    fails("ERR_HANDLE", "Engine", engine.graph, max_tokens=1, max_seqs=1)
    fails("ERR_HANDLE", "Engine", lambda: engine.device)
    with pytest.raises(adcg.AdcgError), engine:
        pass
    assert "closed" in repr(engine) and "closed" in repr(g) and "closed" in repr(linear.exec)


def test_any_order_of_closing(rng: np.random.Generator) -> None:
    """An exec keeps what it needs after its graph and engine were closed, and a graph after its engine was."""
    engine = adcg.Engine("host")
    g = engine.graph(max_tokens=2, max_seqs=2)
    x = g.input("x", "float32", [g.tokens, 2])
    engine.close()
    y = g.op("adcg.add", x, x)  # the op library was not looked at before
    g.output("y", y)
    exec_ = g.compile()
    g.close()
    gc.collect()
    np.testing.assert_array_equal(
        exec_.replay(adcg.Batch(decode_seqs=1), [np.ones((1, 2), np.float32)]).outputs["y"], 2
    )
    exec_.close()


# ---- Capture and statistics --------------------------------------------------------------------------------------


@pytest.mark.on_both
def test_capture_reports_and_skips(linear: Any) -> None:
    seen: list[adcg.Progress] = []
    linear.exec.capture(progress=seen.append)
    buckets = linear.exec.buckets()
    assert [p.index for p in seen] == list(range(seen[0].count)) and seen[0].count == len(buckets)
    assert all(b.state == "captured" and b.num_steps > 0 and b.tape_bytes > 0 for b in buckets)
    assert {p.status for p in seen} == {0}
    # Without a dynamic op every batch is one full graph; the largest is captured first.
    assert [p.bucket.tokens for p in seen] == [32, 8, 4, 2, 1]
    before = linear.exec.stats()
    linear.exec.capture(buckets=buckets)
    assert linear.exec.stats() == before


@pytest.mark.on_both
def test_capture_stops(linear: Any, fails: Fails) -> None:
    fails("ERR_CANCELLED", "", linear.exec.capture, progress=lambda p: p.index < 1)
    assert linear.exec.stats().captured_buckets == 2

    def interrupt(progress: adcg.Progress) -> None:
        raise KeyError("stop here")

    with pytest.raises(KeyError, match="stop here"):
        linear.exec.capture(progress=interrupt)
    linear.exec.capture()
    assert linear.exec.stats().captured_buckets == len(linear.exec.buckets())


@pytest.mark.on_both
def test_capture_in_an_order_of_ones_own(linear: Any, fails: Fails) -> None:
    fails("ERR_NOT_FOUND", "9", linear.exec.capture, buckets=[("full", 9, 8)])
    fails("ERR_ARGUMENT", "sideways", linear.exec.capture, buckets=[("sideways", 8, 0)])
    small = min(linear.exec.buckets(), key=lambda b: b.tokens)
    linear.exec.capture(buckets=[small])
    assert next(b for b in linear.exec.buckets() if b.state == "captured").tokens == small.tokens
    assert linear.exec.stats().captured_buckets == 1


@pytest.mark.on_both
def test_explicit_capture(linear: Any, fails: Fails) -> None:
    with linear.graph.compile({"w": linear.w}, capture="explicit", mode="piecewise", buckets=[8, 32]) as exec_:
        x = linear.x(4)
        fails("ERR_STATE", "", exec_.replay, adcg.Batch(decode_seqs=4), [x])
        exec_.capture(buckets=[("piecewise", 8, 0)])
        step = exec_.replay(adcg.Batch(decode_seqs=4), [x])
        assert (step.mode, step.bucket_tokens, step.reason) == ("piecewise", 8, "mode")
        x = linear.x(20)
        step = exec_.replay(adcg.Batch(prefill_seqs=1, prefill_tokens=20), [x])
        assert (step.mode, step.reason) == ("eager", "not_captured")
        close(step.outputs["y"], linear.expect(x))


@pytest.mark.on_both
def test_modes_and_reasons(linear: Any) -> None:
    x = linear.x(40)
    with linear.graph.compile({"w": linear.w}, mode="piecewise", buckets=[8, 32]) as exec_:
        step = exec_.replay(adcg.Batch(prefill_seqs=1, prefill_tokens=40), [x])
        assert (step.mode, step.reason, step.bucket_tokens, step.padded_tokens) == ("eager", "too_large", 40, 0)
        assert exec_.replay(adcg.Batch(decode_seqs=2), [x[:2]]).mode == "piecewise"
        stats = exec_.stats()
        assert stats.reasons == {**dict.fromkeys(_ffi.REASONS, 0), "too_large": 1, "mode": 1}
        assert (stats.eager_steps, stats.piecewise_steps, stats.full_steps) == (1, 1, 0)
        assert "too_large 1" in str(stats)
    with linear.graph.compile({"w": linear.w}, mode="none") as exec_:
        step = exec_.replay(adcg.Batch(decode_seqs=2), [x[:2]])
        assert (step.mode, step.reason) == ("eager", "mode")
        assert "mode='eager'" in repr(step)
    with linear.graph.compile({"w": linear.w}, verify=True) as exec_:
        step = exec_.replay(adcg.Batch(decode_seqs=2), [x[:2]])
        assert (step.mode, step.reason) == ("eager", "verify")
        close(step.outputs["y"], linear.expect(x[:2]))


@pytest.mark.on_both
def test_modes_change_no_bit(linear: Any) -> None:
    x = linear.x(21)
    batch = adcg.Batch.of(prefill=[13, 5], decode=3)
    results = []
    for mode in _ffi.MODES:
        for buckets in ([21], [64], None):
            with linear.graph.compile({"w": linear.w}, mode=mode, buckets=buckets) as exec_:
                results.append(np.asarray(exec_.replay(batch, [x]).outputs["y"]).tobytes())
    assert len(set(results)) == 1


def test_batches() -> None:
    batch = adcg.Batch.of(prefill=[30, 7], extend=[4], decode=3)
    assert batch == adcg.Batch(2, 37, 1, 4, 3) and (batch.tokens, batch.seqs) == (44, 6)
    assert repr(batch) == "Batch(prefill_seqs=2, prefill_tokens=37, extend_seqs=1, extend_tokens=4, decode_seqs=3)"
    assert batch != adcg.Batch()
    with pytest.raises(TypeError):
        adcg.Batch(decode_seqs="3")


@pytest.mark.on_both
def test_release_and_restore(linear: Any, fails: Callable[..., Any]) -> None:
    x = linear.x(8)
    batch = adcg.Batch(decode_seqs=8)
    held = linear.exec.stats().arena_bytes
    for _ in range(2):
        before = linear.exec.replay(batch, [x]).outputs["y"]
        linear.exec.release()
        assert held > 0 and linear.exec.stats().arena_bytes == 0
        fails("ERR_STATE", "released", linear.exec.replay, batch, [x])
        fails("ERR_STATE", "released", linear.exec.capture)
        fails("ERR_STATE", "released already", linear.exec.release)
        linear.exec.restore()
        fails("ERR_STATE", "not released", linear.exec.restore)
        after = linear.exec.replay(batch, [x]).outputs["y"]
        before, after = (y.numpy() if isinstance(y, adcg.DeviceArray) else y for y in (before, after))
        np.testing.assert_array_equal(after, before)
        np.testing.assert_allclose(after, linear.expect(x), rtol=1e-5, atol=1e-5)
