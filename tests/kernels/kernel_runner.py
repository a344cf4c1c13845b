"""One op at a time, on a CUDA device (a real one or the stand-in) or on the host: what test_kernels.py and
tests/gpu/kernels.py share. Needs numpy alone."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "build/kernels/libkernels.so"
IMAGE = ROOT / "kernels/cuda/images/kernels.fatbin"

F32, BF16, F8, I32 = 1, 3, 4, 5
SIZES = {F32: 4, BF16: 2, F8: 1, I32: 4}
NAMES = {F32: "f32", BF16: "bf16", F8: "fp8", I32: "i32"}

# Attributes of each op in the schema's order, with their defaults.
ATTRS: dict[str, dict[str, Any]] = {
    "embedding": {"dtype": ""},
    "linear": {"activation": "none"},
    "rms_norm": {"eps": 1e-5, "one_plus": False, "groups": 1, "gate": "none"},
    "layer_norm": {"eps": 1e-5},
    "add_rms_norm": {"eps": 1e-5, "one_plus": False},
    "qk_norm": {"eps": 1e-5, "one_plus": False},
    "gelu_mul": {"approximate": "none"},
    "cast": {"dtype": "float32"},
    "rope": {
        "theta": 10000.0,
        "rotary_dim": 0,
        "scaling": "none",
        "factor": 1.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position": 8192,
        "layout": "neox",
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 0.0,
        "mscale_all_dim": 0.0,
        "truncate": True,
        "attention_factor": 0.0,
    },
    "attention": {"scale": 0.0, "window": 0, "softcap": 0.0},
    "paged_attention": {"scale": 0.0, "window": 0, "softcap": 0.0},
    "paged_metadata": {"max_pages": 1},
    "slice": {"axis": -1, "start": 0, "length": 0},
    "concat": {"axis": -1},
}


def to_bf16(x: np.ndarray) -> np.ndarray:
    """float32 as the upper halves of their bits, to the nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def from_bf16(h: np.ndarray) -> np.ndarray:
    return (h.astype(np.uint32) << 16).view(np.float32)


def rounded(x: np.ndarray, dtype: int) -> np.ndarray:
    x = np.asarray(x, np.float32)
    return from_bf16(to_bf16(x)) if dtype == BF16 else x


@dataclass
class Tensor:
    """What a test sees of a tensor: float32 or int32 values, or the codes of fp8. With `whole` it is the part of a
    larger tensor that begins at `start`; `shift` moves the memory by so many elements, off its alignment."""

    dtype: int
    values: np.ndarray
    whole: tuple[int, ...] | None = None
    start: tuple[int, ...] | None = None
    shift: int = 0

    @property
    def outer(self) -> tuple[int, ...]:
        return self.whole or self.values.shape

    def window(self) -> tuple[slice, ...]:
        start = self.start or (0,) * self.values.ndim
        return tuple(slice(s, s + n) for s, n in zip(start, self.values.shape, strict=True))

    def encode(self) -> np.ndarray:
        """The memory: NaN (or an odd number) around the values."""
        shape = self.outer
        memory = empty(self.dtype, shape).values
        memory[self.window()] = self.values
        flat = to_bf16(memory).ravel() if self.dtype == BF16 else memory.ravel()
        return np.concatenate([np.full(self.shift, 0x7F, flat.dtype), flat])

    def decode(self, flat: np.ndarray) -> np.ndarray:
        memory = from_bf16(flat[self.shift :]) if self.dtype == BF16 else flat[self.shift :]
        return memory.reshape(self.outer)

    def strides(self) -> list[int]:
        sizes = self.outer
        return [int(np.prod(sizes[d + 1 :], dtype=np.int64)) for d in range(len(sizes))]


def part(t: Tensor, axis: int, before: int, after: int) -> Tensor:
    """The same values as a part of a larger tensor."""
    whole, start = list(t.values.shape), [0] * t.values.ndim
    whole[axis] += before + after
    start[axis] = before
    return Tensor(t.dtype, t.values, tuple(whole), tuple(start), t.shift)


def empty(dtype: int, shape: tuple[int, ...]) -> Tensor:
    """An output: garbage."""
    if dtype == F8:
        return Tensor(dtype, np.full(shape, 0x7F, np.uint8))
    return Tensor(dtype, np.full(shape, -77 if dtype == I32 else np.nan, np.int32 if dtype == I32 else np.float32))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_ulonglong),
        ("shape", ctypes.c_int64 * 8),
        ("strides", ctypes.c_int64 * 8),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("strided", ctypes.c_int32),
        ("unused", ctypes.c_int32),
    )


class _Attr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("i", ctypes.c_int64),
        ("f", ctypes.c_double),
        ("s", ctypes.c_char_p),
        ("ints", ctypes.c_void_p),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((n, ctypes.c_int64) for n in ("ps", "pt", "es", "et", "ds", "query")),
    )


@dataclass
class Batch:
    """A step's real counts; prefill sequences, their tokens, then decode ones."""

    prefill_seqs: int = 0
    prefill_tokens: int = 0
    decode_seqs: int = 0

    def encode(self) -> _Batch:
        return _Batch(ctypes.sizeof(_Batch), self.prefill_seqs, self.prefill_tokens, 0, 0, self.decode_seqs, 0)


@dataclass
class Call:
    """An op's call. Output i is written over input in_place[i], if it is there. Inputs that it mutates are results
    too, behind the outputs."""

    op: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    attrs: dict[str, Any] = field(default_factory=dict)
    batch: Batch = field(default_factory=Batch)
    in_place: dict[int, int] = field(default_factory=dict)
    mutates: tuple[int, ...] = ()


class OpError(Exception):
    pass


class Runner:
    def __init__(self, libcuda: str, image: bytes, library: Path = LIBRARY) -> None:
        self.lib = ctypes.CDLL(str(library))
        self.lib.runner_message.restype = ctypes.c_char_p
        self.lib.runner_device.restype = ctypes.c_char_p
        self.lib.runner_alloc.restype = ctypes.c_ulonglong
        self.lib.runner_alloc.argtypes = [ctypes.c_int, ctypes.c_size_t]
        self.lib.runner_free.argtypes = [ctypes.c_int, ctypes.c_ulonglong]
        self.lib.runner_up.argtypes = [ctypes.c_int, ctypes.c_ulonglong, ctypes.c_void_p, ctypes.c_size_t]
        self.lib.runner_down.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulonglong, ctypes.c_size_t]
        if self.lib.runner_open(libcuda.encode(), image):
            raise OpError(f"runner_open: {self.message()}")

    def message(self) -> str:
        return str(self.lib.runner_message().decode())

    def device(self) -> str:
        return str(self.lib.runner_device().decode())

    def count_on_multiprocessors(self, count: int) -> int:
        """Launches take the device to have so many. Returns how many they took it to have before."""
        return int(self.lib.runner_multiprocessors(count))

    def _describe(self, t: Tensor, address: int) -> _Tensor:
        d = _Tensor(
            address=address + t.shift * SIZES[t.dtype],
            dtype=t.dtype,
            ndim=t.values.ndim,
            strided=int(t.whole is not None),
        )
        strides = t.strides()
        for i, n in enumerate(t.values.shape):
            d.shape[i], d.strides[i] = n, strides[i]
        start = t.start or (0,) * t.values.ndim
        d.address += sum(s * n for s, n in zip(start, strides, strict=True)) * SIZES[t.dtype]
        return d

    def _attrs(self, call: Call) -> tuple[Any, int]:
        known = ATTRS.get(call.op, {})
        unknown = set(call.attrs) - set(known)
        assert not unknown, unknown
        values = {**known, **call.attrs}
        array = (_Attr * max(1, len(values)))()
        for a, (name, value) in zip(array, values.items(), strict=False):
            a.name = name.encode()
            if isinstance(value, bool):
                a.type, a.i = 3, int(value)
            elif isinstance(value, int):
                a.type, a.i = 1, value
            elif isinstance(value, float):
                a.type, a.f = 2, value
            else:
                a.type, a.s = 4, value.encode()
        return array, len(values)

    def run(self, call: Call, on_cuda: bool = True, repeats: int = 0) -> list[np.ndarray]:
        """The outputs. Fails if memory around them was written. With repeats, self.microseconds is the time of one."""
        tensors = call.inputs + call.outputs
        addresses, memories, described = [], [], []
        try:
            for i, t in enumerate(tensors):
                memory = t.encode()
                output = i - len(call.inputs)
                if output in call.in_place:
                    source = call.in_place[output]
                    address, memory = addresses[source], memories[source]
                    t = tensors[source]
                    tensors[i] = Tensor(t.dtype, call.outputs[output].values, t.whole, t.start, t.shift)
                    t = tensors[i]
                else:
                    address = self.lib.runner_alloc(on_cuda, memory.nbytes)
                    assert address, "out of memory"
                    assert self.lib.runner_up(on_cuda, address, memory.ctypes.data, memory.nbytes) == 0
                addresses.append(address)
                memories.append(memory)
                described.append(self._describe(t, address))
            array, count = self._attrs(call)
            took = ctypes.c_float()
            status = self.lib.runner_run(
                int(on_cuda),
                f"adcg.{call.op}".encode(),
                (_Tensor * len(tensors))(*described),
                len(call.inputs),
                len(call.outputs),
                array,
                count,
                ctypes.byref(call.batch.encode()),
                ctypes.c_int64(0),
                ctypes.c_int64(0),
                repeats,
                ctypes.byref(took) if repeats else None,
            )
            if status:
                raise OpError(f"{call.op}: status {status}: {self.message()}")
            if repeats:
                self.microseconds = took.value * 1000 / repeats
            results = []
            for i in [*range(len(call.inputs), len(tensors)), *call.mutates]:
                t, memory = tensors[i], memories[i].copy()
                before = t.decode(memory.copy()).copy()
                assert self.lib.runner_down(on_cuda, memory.ctypes.data, addresses[i], memory.nbytes) == 0
                after = t.decode(memory)
                results.append(after[t.window()].copy())
                around = after.copy()
                around[t.window()] = before[t.window()]
                same = np.array_equal(around.view(np.uint8), before.view(np.uint8))
                assert same, f"{call.op}: tensor {i}: memory around it was written"
            return results
        finally:
            for address in set(addresses):
                self.lib.runner_free(on_cuda, address)

    def zero_tail(self, t: Tensor, dim: tuple[int, int, int], batch: Batch) -> np.ndarray:
        """The whole memory afterwards."""
        memory = t.encode()
        address = self.lib.runner_alloc(1, memory.nbytes)
        self.lib.runner_up(1, address, memory.ctypes.data, memory.nbytes)
        described = self._describe(t, address)
        status = self.lib.runner_zero_tail(
            ctypes.byref(described), (ctypes.c_int64 * 3)(*dim), ctypes.byref(batch.encode())
        )
        assert status == 0, self.message()
        self.lib.runner_down(1, memory.ctypes.data, address, memory.nbytes)
        self.lib.runner_free(1, address)
        return t.decode(memory)
