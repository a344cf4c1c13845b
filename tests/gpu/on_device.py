"""Graphs of the Python binding over memory of any device, by adcg_memory_*, torch, or whatever else has addresses."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("bindings/python", "examples/python", "tests/golden")]

import adcg  # noqa: E402
from adcg import _ffi  # noqa: E402
from adcg.graph import exec_options  # noqa: E402

Array = np.ndarray


class Memory:
    """Blocks of an engine's device; freed with it at the latest."""

    def __init__(self, engine: adcg.Engine) -> None:
        self.engine = engine
        info = engine.device
        self.device = (info.device_type, info.device_id)

    def alloc(self, size: int) -> int:
        out = c_void_p()
        _ffi.lib.adcg_memory_alloc(self.engine._handle, max(1, size), byref(out))
        assert out.value
        return out.value

    def free(self, address: int) -> None:
        _ffi.lib.adcg_memory_free(self.engine._handle, address)

    def write(self, address: int, array: Array) -> None:
        array = np.ascontiguousarray(array)
        _ffi.lib.adcg_memory_copy(self.engine._handle, address, array.ctypes.data, array.nbytes)

    def read(self, array: Array, address: int) -> Array:
        _ffi.lib.adcg_memory_copy(self.engine._handle, array.ctypes.data, address, array.nbytes)
        return array

    def put(self, array: Array) -> int:
        address = self.alloc(array.nbytes)
        self.write(address, array)
        return address

    def tensor(self, address: int, dtype: str, shape: Sequence[int]) -> _ffi.DLTensor:
        _, code, bits = _ffi.DTYPES[dtype]
        tensor = _ffi.DLTensor()
        extents = (ctypes.c_int64 * len(shape))(*shape)
        tensor.data, tensor.ndim, tensor.shape = address, len(shape), extents
        tensor.device.device_type, tensor.device.device_id = self.device
        tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes = code, bits, 1
        tensor.extents = extents  # lives as long
        return tensor


def shape_of(value: adcg.Value, tokens: int = 0, seqs: int = 0) -> tuple[int, ...]:
    return tuple(dim.at(tokens, seqs) for dim in value.shape or ())


class Executor:
    """An exec of a graph whose weights and states are at addresses of the device, with fixed inputs and outputs for its
    largest step. ``invariant``: whatever the bucket, a sequence's bits are the same."""

    def __init__(
        self,
        graph: adcg.Graph,
        memory: Memory,
        weights: Mapping[str, int],
        states: Mapping[str, int],
        tokens: int,
        seqs: int,
        *,
        invariant: bool = False,
        **options: Any,
    ) -> None:
        graph.freeze()
        self.graph, self.memory = graph, memory
        raw = exec_options(**options)
        raw.batch_invariant = int(invariant)
        out = c_void_p()
        _ffi.lib.adcg_exec_create(graph._handle, byref(raw), byref(out))
        self.handle = out.value
        for values, addresses in ((graph.weights, weights), (graph.states, states)):
            for value in values:
                tensor = memory.tensor(addresses[value.name], value.dtype or "", shape_of(value))
                _ffi.lib.adcg_exec_bind(self.handle, value.number, byref(tensor))
        self.inputs = {v.name: self._buffer(v, tokens, seqs) for v in graph.inputs}
        self.outputs = {name: self._buffer(v, tokens, seqs) for name, v in graph.outputs}
        self._ins = (_ffi.DLTensor * len(self.inputs))(*self.inputs.values())
        self._outs = (_ffi.DLTensor * len(self.outputs))(*self.outputs.values())
        self._step = _ffi.Step(struct_size=ctypes.sizeof(_ffi.Step))

    def _buffer(self, value: adcg.Value, tokens: int, seqs: int) -> _ffi.DLTensor:
        shape, dtype = shape_of(value, tokens, seqs), value.dtype or ""
        size = int(np.prod(shape)) * _ffi.DTYPES[dtype][2] // 8
        return self.memory.tensor(self.memory.alloc(size), dtype, shape)

    def write(self, name: str, array: Array) -> None:
        self.memory.write(self.inputs[name].data, array)

    def read(self, name: str, array: Array) -> Array:
        """The first rows of an output, once the steps are done."""
        _ffi.lib.adcg_exec_synchronize(self.handle)
        return self.memory.read(array, self.outputs[name].data)

    def capture(self) -> None:
        _ffi.lib.adcg_exec_capture(self.handle, None, 0, _ffi.ProgressFn(), None)

    def replay(self, batch: adcg.Batch, stream: int | None = None) -> str:
        """Returns what ran: "full", "piecewise" or "eager"."""
        step = self._step
        _ffi.lib.adcg_exec_replay(
            self.handle, byref(batch), self._ins, len(self._ins), self._outs, len(self._outs), stream, byref(step)
        )
        return _ffi.STEP_MODES[step.mode]

    def replayer(self, batch: adcg.Batch, stream: int | None) -> Any:
        """The same step again and again with the least of Python around it."""
        call = _ffi.lib.adcg_exec_replay
        arguments = (self.handle, byref(batch), self._ins, len(self._ins), self._outs, len(self._outs), stream, None)
        return lambda: call(*arguments)

    def stats(self) -> _ffi.Stats:
        stats = _ffi.Stats()
        _ffi.lib.adcg_exec_get_stats(self.handle, byref(stats))
        return stats

    def close(self) -> None:
        _ffi.lib.adcg_exec_destroy(self.handle)
        for tensor in (*self.inputs.values(), *self.outputs.values()):
            self.memory.free(tensor.data)
