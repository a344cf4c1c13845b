"""Programs on a CUDA device, over the stand-in driver: device arrays, DLPack and streams, the host's counters."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adcg
import numpy as np
import pytest
import serve
from adcg import _ffi
from test_replay import Producer

Fails = Callable[..., adcg.AdcgError]


@pytest.fixture
def device() -> str:
    return "cuda:0"


@pytest.fixture
def engine(cuda: adcg.Engine) -> adcg.Engine:
    return cuda


# ---- Arrays ------------------------------------------------------------------------------------------------------


def test_arrays_go_and_come_back(engine: adcg.Engine, rng: np.random.Generator, fails: Fails) -> None:
    x = rng.standard_normal((3, 5)).astype(np.float32)
    array = engine.from_numpy(x)
    assert (array.shape, array.dtype, array.nbytes, array.device) == ((3, 5), "float32", 60, (2, 0))
    assert "float32[3, 5] on cuda:0" in repr(array)
    np.testing.assert_array_equal(array.numpy(), x)
    array.assign(x.T.copy().T)  # need not be compact
    np.testing.assert_array_equal(np.asarray(array), x)
    np.testing.assert_array_equal(engine.zeros([2, 2], "int32").numpy(), np.zeros((2, 2), np.int32))
    assert engine.empty(0, "float32").numpy().shape == (0,)
    fails("ERR_SHAPE", "[3, 5]", array.assign, x[:2])
    fails("ERR_DTYPE", "float32", array.assign, x.astype(np.float64))
    fails("ERR_SHAPE", "-1", engine.empty, [2, -1], "int32")
    fails("ERR_DTYPE", "float7", engine.empty, 2, "float7")
    array.free()
    array.free()
    fails("ERR_HANDLE", "free", array.numpy)
    assert "freed" in repr(array)


def test_an_array_outlives_its_engine() -> None:
    engine = adcg.Engine("cuda:0")
    array = engine.from_numpy(np.arange(6, dtype=np.int32))
    engine.close()
    del engine
    gc.collect()
    assert array.numpy().tolist() == [0, 1, 2, 3, 4, 5]


def test_steps_on_device_arrays(engine: adcg.Engine, linear: Any) -> None:
    """Used where they are: nothing is staged or re-pointed, and the results are read when they are done."""
    x = linear.x(8)
    dx, dy = engine.from_numpy(x), engine.empty([8, 16], "float32")
    batch = adcg.Batch(decode_seqs=8)
    linear.exec.replay(batch, [dx], [dy])
    step = linear.exec.replay(batch, [dx], [dy])
    assert step.outputs["y"] is dy and (step.staged_bytes, step.repointed) == (0, 0)
    np.testing.assert_allclose(dy.numpy(), linear.expect(x), rtol=1e-5, atol=1e-5)
    out = linear.exec.replay(batch, [dx]).outputs["y"]
    assert isinstance(out, adcg.DeviceArray) and out.shape == (8, 16)
    np.testing.assert_array_equal(out.numpy(), dy.numpy())


def test_two_execs_in_order(engine: adcg.Engine, linear: Any) -> None:
    """What one exec writes another reads, on streams of their own, and back again."""
    x = linear.x(4)
    a, b = engine.from_numpy(x), engine.empty([4, 16], "float32")
    with linear.graph.compile({"w": linear.w}) as other:
        for _ in range(3):
            linear.exec.replay(adcg.Batch(decode_seqs=4), [a], [b])
            other.replay(adcg.Batch(decode_seqs=4), [b], [a])
            x = linear.expect(linear.expect(x))
        np.testing.assert_allclose(a.numpy(), x, rtol=1e-4, atol=1e-3 * np.abs(x).max())


def test_host_arrays_are_written_in_their_real_rows(linear: Any) -> None:
    x, y = linear.x(20), np.full((20, 16), 7, np.float32)
    before = x.copy()
    step = linear.exec.replay(adcg.Batch(prefill_seqs=1, prefill_tokens=5), {"x": x}, {"y": y}, lend=True)
    assert step.staged_bytes == 0
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y[5:], 7)
    np.testing.assert_allclose(y[:5], linear.expect(x[:5]), rtol=1e-5, atol=1e-5)


def test_states_are_uploaded_and_read_back(engine: adcg.Engine, fails: Fails) -> None:
    g = engine.graph(max_tokens=4, max_seqs=2)
    q = g.input("q", "float32", [g.tokens, 1, 4])
    caches = [g.state(name, "float32", [2, 4, 1, 4]) for name in ("k", "v")]
    index = [g.input(n, "int32", [rows]) for n, rows in (("cu", g.seqs + 1), ("pos", g.seqs), ("slot", g.seqs))]
    g.output("y", g.attention(q, q, q, *caches, *index))
    given = np.full((2, 4, 1, 4), 5, np.float32)
    x = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    with g.compile(states={"k": given}) as exec_:
        fails("ERR_STATE", "'v'", exec_.bound, "v")
        mine = engine.from_numpy(given)
        exec_.bind("v", mine)
        inputs = [x, *(np.array(a, np.int32) for a in ([0, 2], [1], [1]))]
        exec_.replay(adcg.Batch.of(extend=[2]), inputs)
        expected = given.copy()
        expected[1, 1:3] = x
        assert exec_.bound("v") is mine
        for name in ("k", "v"):
            np.testing.assert_array_equal(exec_.bound(name).numpy(), expected)
        np.testing.assert_array_equal(given, 5)  # the upload is what steps write


def test_refusals_are_the_librarys(engine: adcg.Engine, linear: Any, fails: Fails) -> None:
    x, batch, replay = linear.x(4), adcg.Batch(decode_seqs=4), linear.exec.replay
    fails("ERR_DTYPE", "inputs[0]", replay, batch, {"x": x.astype(np.float64)})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": x[:3]})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": x[:, :15].copy()})
    fails("ERR_SHAPE", "inputs[0]", replay, batch, {"x": linear.x(8)[::2]})
    fails("ERR_ADDRESS", "read-only", replay, batch, [x], [np.frombuffer(bytes(256), np.float32).reshape(4, 16)])
    fails("ERR_DEVICE", "inputs[0]", replay, batch, {"x": Producer(x, device=7)})
    fails("ERR_SHAPE", "w", linear.exec.bind, "w", linear.w[:8])
    fails("ERR_DTYPE", "w", linear.exec.bind, "w", linear.w.astype(np.float64))
    fails("ERR_UNSUPPORTED", "my.op", engine.op, "my.op")
    fails("ERR_ARGUMENT", "capture_mode", linear.graph.compile, capture_mode="sideways")
    np.testing.assert_allclose(replay(batch, [x]).outputs["y"], linear.expect(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"capture_mode": "global"}, {"capture_mode": "relaxed", "batch_invariant": True}])
def test_options_of_the_device(linear: Any, options: dict[str, Any]) -> None:
    x = linear.x(4)
    with linear.graph.compile({"w": linear.w}, **options) as exec_:
        exec_.capture()
        y = exec_.replay(adcg.Batch(decode_seqs=4), [x]).outputs["y"]
        np.testing.assert_allclose(y, linear.expect(x), rtol=1e-5, atol=1e-5)


# ---- DLPack and streams ------------------------------------------------------------------------------------------


class DeviceProducer(Producer):
    """Somebody else's tensor on the device, which notes the stream that it was asked for."""

    def __init__(self, array: adcg.DeviceArray) -> None:
        class Described:  # what Producer reads of a numpy array
            dtype, ndim, shape = np.dtype(array.dtype), array.ndim, array.shape
            strides = np.empty(array.shape, array.dtype).strides
            ctypes = type("Address", (), {"data": array.address})

        super().__init__(Described, device=2)
        self.streams: list[int | None] = []

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        self.streams.append(stream)
        return super().__dlpack__(**options)


class Torchlike:
    """A stream as torch has them; 0 is its default stream."""

    def __init__(self, pointer: int) -> None:
        self.cuda_stream = pointer


@pytest.fixture
def stream(engine: adcg.Engine) -> Any:
    """A CUstream that is the test's own."""
    driver, pointer = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    context = ctypes.c_void_p()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxPushCurrent_v2(context) == 0
    assert driver.cuStreamCreate(ctypes.byref(pointer), 1) == 0
    yield pointer.value
    assert driver.cuStreamDestroy_v2(pointer) == 0
    assert driver.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0
    assert driver.cuDevicePrimaryCtxRelease_v2(0) == 0


def test_tensors_of_others(engine: adcg.Engine, linear: Any, stream: int) -> None:
    """Producers are asked for the stream in whose order the step runs: the caller's, or the legacy default stream."""
    x = linear.x(8)
    dx, dy = engine.from_numpy(x), engine.empty([8, 16], "float32")
    batch = adcg.Batch(decode_seqs=8)
    for given, asked in ((None, 1), (stream, stream), (Torchlike(stream), stream), (Torchlike(0), 1), (2, 2)):
        dy.assign(np.zeros((8, 16), np.float32))
        a, b = DeviceProducer(dx), DeviceProducer(dy)
        step = linear.exec.replay(batch, [a], [b], given)
        assert step.staged_bytes == 0 and a.streams == b.streams == [asked]
        linear.exec.synchronize()
        np.testing.assert_allclose(dy.numpy(), linear.expect(x), rtol=1e-5, atol=1e-5)
    w = engine.from_numpy(2 * linear.w)
    linear.exec.bind("w", DeviceProducer(w))
    linear.exec.replay(batch, [dx], [dy])
    np.testing.assert_allclose(dy.numpy(), x @ (2 * linear.w).T + x, rtol=1e-5, atol=1e-5)


def test_streams_that_are_none(linear: Any, stream: int, fails: Fails) -> None:
    x, batch = linear.x(2), adcg.Batch(decode_seqs=2)
    for call in (linear.exec.wait_stream, linear.exec.stream_wait):
        call(stream)
        call(Torchlike(0))
        fails("ERR_ARGUMENT", "stream: 0", call, 0)
        fails("ERR_ARGUMENT", "str", call, "main")
    fails("ERR_ARGUMENT", "stream: 0", linear.exec.replay, batch, [x], None, 0)


class Capsule:
    """A consumer: the structure in a capsule, and its deleter."""

    def __init__(self, capsule: Any, versioned: bool) -> None:
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        rename = ctypes.pythonapi.PyCapsule_SetName
        rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
        name = b"dltensor_versioned" if versioned else b"dltensor"
        self.address = pointer(capsule, name)
        kind: Any = _ffi.DLManagedTensorVersioned if versioned else _ffi.DLManagedTensor
        self.managed = kind.from_address(self.address)
        self.used = b"used_" + name  # capsules keep the pointer to their name
        rename(capsule, self.used)

    def delete(self) -> None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.managed.deleter)(self.address)


@pytest.mark.parametrize("versioned", [True, False])
def test_export(linear: Any, stream: int, versioned: bool, fails: Fails) -> None:
    """A consumer's tensor shares the memory and keeps it, until its deleter is called."""
    y = linear.exec.replay(adcg.Batch(decode_seqs=3), [linear.x(3)]).outputs["y"]
    address = y.address
    if y.__dlpack_device__() != (2, 0):  # an assert would keep what it looked at
        pytest.fail("not on the device")
    version = {"max_version": (1, 1)} if versioned else {}
    for given in (None, 1, 2, -1, stream):
        y.__dlpack__(stream=given, **version)  # nobody consumes these
    fails("ERR_ARGUMENT", "0", y.__dlpack__, stream=0)
    with pytest.raises(BufferError):
        y.__dlpack__(copy=True)
    with pytest.raises(BufferError):
        y.__dlpack__(dl_device=(1, 0))
    capsule = y.__dlpack__(stream=stream, **version)
    taken = Capsule(capsule, versioned)
    del capsule
    t = taken.managed.dl_tensor
    assert (t.data, t.ndim, t.shape[:2], t.strides[:2]) == (address, 2, [3, 16], [16, 1])
    assert (t.device.device_type, t.dtype.code, t.dtype.bits, t.dtype.lanes) == (2, 2, 32, 1)
    seen = weakref.ref(y)
    del y
    gc.collect()
    before = seen() is None
    taken.delete()
    assert (before, seen() is None) == (False, True)


def test_export_on_the_host() -> None:
    with adcg.Engine("host") as engine:
        array = engine.from_numpy(np.arange(6, dtype=np.int32).reshape(2, 3))
    shared = np.from_dlpack(array)
    shared[1, 2] = 9
    assert array.numpy().tolist() == [[0, 1, 2], [3, 4, 9]]


# ---- Programs ----------------------------------------------------------------------------------------------------


def test_serve(cuda: adcg.Engine, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The serving example: each step's bits are an eager one's. A family whose ops are not there is refused by name."""
    models = root / "tests" / "data" / "models"
    few = ["--device", "cuda:0", "--requests", "1", "--max-new", "4", "--max-len", "64"]
    assert serve.main(["--model", str(models / "tiny-go"), *few]) == 0
    assert "equal eager's bit for bit" in capfd.readouterr().out
    assert serve.main(["--model", str(models / "tiny-go-nemotron_h"), *few]) == 2
    assert "no op 'causal_conv1d' on cuda:0" in capfd.readouterr().err


# ---- Counters ----------------------------------------------------------------------------------------------------


def test_counters_and_offsets_are_the_hosts(engine: adcg.Engine, rng: np.random.Generator) -> None:
    """The same steps in every mode: what was dispatched, padded, staged and re-pointed, and the plan, are the same."""
    w, data = rng.standard_normal((16, 16)).astype(np.float32), rng.standard_normal((64, 16)).astype(np.float32)
    batches = [adcg.Batch.of(prefill=[13, 5], decode=3), adcg.Batch(decode_seqs=4), adcg.Batch(), adcg.Batch.of([40])]
    found = []
    with adcg.Engine("host") as host:
        for used in (host, engine):
            g = used.graph(max_tokens=64, max_seqs=8)
            x, last = g.input("x", "float32", [g.tokens, 16]), g.input("last", "int32", [g.seqs])
            h = g.add(g.linear(x, g.weight("w", "float32", [16, 16])), x)
            g.output("h", h)
            g.output("best", g.argmax(g.gather_tokens(h, last)))
            seen: list[Any] = []
            for mode in _ffi.MODES:
                buffers = [used.from_numpy(data), used.zeros(8, "int32")]
                outs = [used.zeros([64, 16], "float32"), used.zeros(8, "int32")]
                with g.compile({"w": w}, mode=mode, buckets=[8, 32]) as exec_:
                    for batch in batches:
                        for lend in (True, False):
                            buffers[0].assign(data)
                            step = exec_.replay(batch, buffers, outs, lend=lend)
                            seen.append((repr(step), outs[1].numpy()[: batch.seqs].tolist()))
                    stats = exec_.stats()
                    names = ("steps", "failed_steps", "full_steps", "piecewise_steps", "eager_steps", "reasons")
                    more = ("real_tokens", "padded_tokens", "repointed", "staged_tensors", "staged_bytes")
                    seen += [getattr(stats, name) for name in (*names, *more, "captured_buckets", "failed_buckets")]
                plan = g.plan("json", mode=mode, buckets=[8, 32])
                seen.append(plan.replace('"cuda:0"', '"host"'))
            found.append(seen)
    assert found[0] == found[1]
