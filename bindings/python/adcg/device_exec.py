"""Execs on a CUDA device: what comes from host memory is uploaded, what goes there is downloaded, and streams."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from . import _ffi, errors, tensors
from .batch import Batch
from .errors import AdcgError
from .executor import Exec, Place, Step
from .graph import Graph, Value
from .memory import DeviceArray

_HOST_MEMORY = (_ffi.DL_CPU, _ffi.DL_CUDA_HOST)


class DevicePlace(Place):
    """Where one input or output goes, with a buffer on the device for arrays that are in host memory. Nothing is
    recognised from the last step: describing an array costs little beside a step on a device."""

    __slots__ = ("buffer", "exec", "is_input", "limit")

    def __init__(self, tensor: _ffi.DLTensor, name: str, value: Value, exec_: DeviceExec, is_input: bool) -> None:
        super().__init__(tensor, name, value)
        graph = value.graph
        self.exec = weakref.proxy(exec_)
        self.is_input = is_input
        self.limit = self.a * graph.max_tokens + self.b * graph.max_seqs + self.c  # rows
        self.buffer: DeviceArray | None = None

    def refill(self, array: Any) -> bool:
        return False

    def fill(self, array: object, where: str) -> None:
        self.forget()
        d = self.exec._describe(array, where)
        self.readonly = d.readonly
        self.keep = d.keep
        if d.device[0] not in _HOST_MEMORY or d.lanes != 1:
            self.put(d)
            self.rows = d.shape[0] if d.shape else 0
            return
        # What does not fit the value is described as it is, on the device: the library says what is wrong with it.
        dtype = self.type.dtype
        fits = (d.code, d.bits) == _ffi.DTYPES[dtype][1:] and d.strides is None and d.shape[1:] == self.tail
        shape = (min(d.shape[0], self.limit), *d.shape[1:]) if d.shape and fits and self.varies else d.shape
        if self.buffer is None:
            self.buffer = self.exec._empty((self.limit, *self.tail), dtype)
        self.put(d._replace(data=self.buffer.address, device=self.buffer.device, shape=shape))
        self.rows = shape[0] if shape else 0
        if fits and d.shape:
            row_bytes = math.prod(self.tail) * (_ffi.DTYPES[dtype][2] // 8)
            self.exec._transfer(self, d.data, min(self.rows, self.exec._real(self)) * row_bytes)

    def allocate(self, rows: int) -> Any:
        array = self.exec._empty((rows, *self.tail), self.type.dtype)
        self.fill(array, self.name)
        self.keep = None  # it waits for this exec's steps by itself when it is freed
        return array


class DeviceExec(Exec):
    """An exec on a CUDA device. Steps are enqueued and not waited for, unless arrays in host memory take part."""

    def __init__(self, graph: Graph, options: _ffi.ExecOptions) -> None:
        super().__init__(graph, options)
        self._memory, self._location = graph._memory, graph._location
        self._self: weakref.ref[Exec] = weakref.ref(self)
        self._entry = threading.Lock()
        self._step: tuple[int, int] = (0, 0)  # tokens and sequences of the step that is being prepared
        self._stream: int | None = None
        self._foreign = False  # tensors of other libraries take part in it
        self._in_flight = False
        self._downloads: list[tuple[int, int, int]] = []  # (to, from, bytes)

    def _place(self, tensor: _ffi.DLTensor, name: str, value: Value, is_input: bool) -> Place:
        return DevicePlace(tensor, name, value, self, is_input)

    def close(self) -> None:
        super().close()
        for place in (*self.__dict__.get("_ins", ()), *self.__dict__.get("_outs", ())):
            if isinstance(place, DevicePlace):
                place.buffer = None

    # ---- Arrays ------------------------------------------------------------------------------------------------

    def _empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        return DeviceArray(self._memory, self._location, shape, dtype)

    def _describe(self, array: object, where: str) -> tensors.Described:
        """Describes an array of a step that is being prepared, and orders the step behind what was done to it."""
        if type(array) is DeviceArray:
            for user in array._users:
                other = user()
                if other is not None and other is not self and not other.closed:
                    other.stream_wait(self._stream or 1)
                    if not self._stream:
                        self.wait_stream(1)
            array._used_by(self._self)
            return array._described()
        if hasattr(array, "__dlpack_device__") and tensors.dlpack_device(array, where)[0] == _ffi.DL_CUDA:
            self._foreign = True
            d = tensors.describe(array, where, self._stream or 1)
            if not self._stream:
                self.wait_stream(1)
            return d
        return tensors.describe(array, where)

    def _real(self, place: Place) -> int:
        return max(0, place.a * self._step[0] + place.b * self._step[1] + place.c)

    def _transfer(self, place: DevicePlace, host: int, bytes: int) -> None:
        assert place.buffer is not None
        if not place.is_input:
            self._downloads.append((host, place.buffer.address, bytes))
            return
        if self._in_flight:  # the last step may still read the buffer
            self.synchronize()
        self._memory.copy(place.buffer.address, host, bytes)

    def _borrow(self, array: object, where: str) -> tuple[_ffi.DLTensor, tensors.Described]:
        self._stream = None
        d = self._describe(array, where)
        if d.device[0] in _HOST_MEMORY:
            name = tensors.dtype_of(d.code, d.bits, d.lanes)
            if name and d.strides is None:
                uploaded = self._empty(d.shape, name)
                self._memory.copy(uploaded.address, d.data, uploaded.nbytes)
                uploaded._used_by(self._self)
                d = uploaded._described()
            else:  # the library says what is wrong with it
                d = d._replace(device=self._location)
        tensor = _ffi.DLTensor()
        tensors.Slot(tensor).put(d)
        return tensor, d

    # ---- Steps -------------------------------------------------------------------------------------------------

    def replay(
        self,
        batch: Batch,
        inputs: Mapping[str, Any] | Sequence[Any] = (),
        outputs: Mapping[str, Any] | Sequence[Any] | None = None,
        stream: object = None,
        *,
        lend: bool = False,
    ) -> Step:
        """Runs one step; see ``Exec.replay``.

        Arrays on the device are used where they are. Those in host memory go through a buffer of the exec's, and the
        call then waits: for the last step before it uploads inputs, for this one before it downloads outputs (real
        rows alone). Without any of them nothing is waited for.

        ``stream``: a CUstream, 1 or 2, or an object with ``.cuda_stream``: the step runs in its order, and tensors of
        other libraries are asked for in that order (DLPack). None: on the exec's own stream; if tensors of other
        libraries take part, in the order of the legacy default stream.

        Outputs that are left out come back as ``DeviceArray``.
        """
        if not self._entry.acquire(False):
            raise AdcgError(errors.ERR_BUSY, "adcg.Exec.replay: another call is in a replay of this exec")
        try:
            pointer = None if stream is None else tensors.stream_pointer(stream, "adcg.Exec.replay")
            self._stream, self._foreign = pointer, False
            if isinstance(batch, Batch):
                self._step = batch.tokens, batch.seqs
            step = super().replay(batch, inputs, outputs, pointer, lend=lend)
            self._in_flight = True
            if self._foreign and pointer is None:
                self.stream_wait(1)
            if self._downloads:
                self.synchronize()
                for to, source, bytes in self._downloads:
                    self._memory.copy(to, source, bytes)
            return step
        finally:
            self._downloads.clear()
            self._entry.release()

    def synchronize(self) -> None:
        super().synchronize()
        self._in_flight = False
