"""Engines: a device, its op library, and the ops that the program adds to it."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from . import _ffi, attrs, errors, ops, tensors
from .errors import AdcgError
from .handles import Handle
from .memory import DeviceArray, Memory
from .ops import InferFn, LaunchFn, PartFn, ShapesFn, WorkspaceFn

if TYPE_CHECKING:
    from .graph import Graph


@dataclass(frozen=True)
class AttrInfo:
    """One attribute of an op: its type as a word, and the default (None if it must be given)."""

    name: str
    type: str
    default: attrs.AttrValue | None
    required: bool
    doc: str

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + ("" if self.required else f" = {self.default!r}")


@dataclass(frozen=True)
class OpInfo:
    """What an op is. ``mutates`` are the numbers of the inputs that it writes."""

    name: str
    doc: str
    kind: str
    capture: str
    flags: tuple[str, ...]
    num_inputs: int
    num_optional_inputs: int
    num_outputs: int
    mutates: tuple[int, ...]
    attrs: tuple[AttrInfo, ...]

    @property
    def attr_types(self) -> dict[str, int]:
        numbers = {name: number for number, name in attrs.TYPE_NAMES.items()}
        return {attr.name: numbers[attr.type] for attr in self.attrs}

    def describe(self) -> str:
        """A few lines for people: what the op does, its arity, its attributes with their defaults."""
        least = self.num_inputs - self.num_optional_inputs
        arity = str(self.num_inputs) if not self.num_optional_inputs else f"{least} to {self.num_inputs}"
        kind = self.kind if self.kind == "static" else f"{self.kind}, capture {self.capture}"
        lines = [f"{self.name}: {self.doc}", "", f"{arity} inputs, {self.num_outputs} outputs; {kind}."]
        if self.mutates:
            lines.append(f"Writes input {', '.join(map(str, self.mutates))}.")
        for attr in self.attrs:
            lines.append(f"  {attr}" + (f"  {attr.doc}" if attr.doc else ""))
        return "\n".join(lines)


@dataclass(frozen=True)
class DeviceInfo:
    """What an engine runs on; ``threads`` are the host device's, 0 on others."""

    name: str
    description: str
    device_type: int
    device_id: int
    threads: int
    memory_bytes: int


def _op_info(raw: _ffi.OpInfo) -> OpInfo:
    specs = raw.attrs[: raw.num_attrs] if raw.num_attrs else []
    kinds = {number: name for name, number in _ffi.KINDS.items()}
    captures = {number: name for name, number in _ffi.CAPTURES.items()}
    return OpInfo(
        name=raw.name.decode(),
        doc=raw.doc.decode(),
        kind=kinds.get(raw.kind, str(raw.kind)),
        capture=captures.get(raw.capture, str(raw.capture)),
        flags=tuple(name for name, bit in _ffi.FLAGS.items() if raw.flags & bit),
        num_inputs=raw.num_inputs,
        num_optional_inputs=raw.num_optional_inputs,
        num_outputs=raw.num_outputs,
        mutates=tuple(i for i in range(raw.num_inputs) if raw.mutates >> i & 1),
        attrs=tuple(
            AttrInfo(
                name=spec.default_value.name.decode(),
                type=attrs.TYPE_NAMES.get(spec.default_value.type, "?"),
                default=None if spec.required else attrs.value_of(spec.default_value),
                required=bool(spec.required),
                doc=(spec.doc or b"").decode(),
            )
            for spec in specs
        ),
    )


class Engine(Handle):
    """An engine on a device.

    Args:
        device: ``"host"``, or ``"cuda:0"`` and so on (``"cuda"``: the first), by the driver ``libcuda.so.1``.
        threads: of the host device's kernels; 0: one a core. Changes no bit of any result.

    Raises AdcgError with ERR_DEVICE for a device that is not there, ERR_UNSUPPORTED for one that this build cannot
    drive. Graphs and execs stay usable after ``close()``.
    """

    _what: ClassVar[str] = "Engine"

    def __init__(self, device: str = "host", *, threads: int = 0) -> None:
        options = _ffi.EngineOptions(host_threads=threads)
        out = ctypes.c_void_p()
        _ffi.lib.adcg_engine_create(device.encode(), ctypes.byref(options), ctypes.byref(out))
        self._memory = Memory(out.value or 0)  # gives the handle up, with the last array of the engine's memory
        super().__init__(out.value, lambda pointer: None)
        raw = _ffi.DeviceInfo()
        _ffi.lib.adcg_engine_get_device_info(self._handle, ctypes.byref(raw))
        self._location = raw.device_type, raw.device_id
        self._keep: list[_ffi.OpSchema] = []  # graphs and execs hold the engine, and so its callbacks
        self._ops: dict[str, OpInfo] = {}

    def close(self) -> None:
        super().close()
        self.__dict__.pop("_memory", None)

    def __repr__(self) -> str:
        return "<adcg.Engine, closed>" if self.closed else f"<adcg.Engine on {self.device.name}>"

    @property
    def device(self) -> DeviceInfo:
        """What the engine runs on."""
        raw = _ffi.DeviceInfo()
        _ffi.lib.adcg_engine_get_device_info(self._handle, ctypes.byref(raw))
        return DeviceInfo(
            raw.name.decode(), raw.description.decode(), raw.device_type, raw.device_id, raw.threads, raw.memory_bytes
        )

    # ---- Memory ------------------------------------------------------------------------------------------------

    def empty(self, shape: int | Iterable[int], dtype: object) -> DeviceArray:
        """A new array in the device's memory, not cleared; ``dtype`` by name, or as numpy or torch have it. It stays
        usable after ``close()``. Raises ERR_SHAPE, ERR_DTYPE, ERR_OUT_OF_MEMORY."""
        self._handle  # noqa: B018  raises when closed
        extents = (shape,) if isinstance(shape, int) else tuple(map(operator.index, shape))
        if min(extents, default=0) < 0:
            raise AdcgError(errors.ERR_SHAPE, f"adcg.Engine.empty: shape: {list(extents)}")
        return DeviceArray(self._memory, self._location, extents, tensors.dtype_name(dtype, "adcg.Engine.empty"))

    def zeros(self, shape: int | Iterable[int], dtype: object) -> DeviceArray:
        """Likewise, all zero."""
        array = self.empty(shape, dtype)
        array.assign(np.zeros(array.shape, tensors.numpy_dtype(array.dtype)))
        return array

    def from_numpy(self, array: tensors.Array) -> DeviceArray:
        """A copy of a numpy array in the device's memory, of the same dtype and shape."""
        copy = self.empty(array.shape, array.dtype)
        copy.assign(array)
        return copy

    def ops(self) -> dict[str, OpInfo]:
        """Every op by its exact name: the library's, then the program's own, in order of registration."""
        handle = self._handle
        raw = _ffi.OpInfo()
        while True:  # ops are only ever added, so what is known stays right
            try:
                _ffi.lib.adcg_engine_get_op_info(handle, len(self._ops), ctypes.byref(raw))
            except AdcgError as error:
                if error.status != errors.ERR_NOT_FOUND:
                    raise
                return dict(self._ops)
            info = _op_info(raw)
            self._ops[info.name] = info

    def _op(self, name: str) -> OpInfo | None:
        return self._ops.get(name) or self.ops().get(name)

    def graph(self, *, max_tokens: int, max_seqs: int, max_seq_len: int = 0) -> Graph:
        """An empty graph for steps of at most ``max_tokens`` tokens and ``max_seqs`` sequences; one sequence brings at
        most ``max_seq_len`` tokens to a step (0: ``max_tokens``). Raises ERR_BATCH for limits below 1."""
        from .graph import Graph

        return Graph(self, max_tokens=max_tokens, max_seqs=max_seqs, max_seq_len=max_seq_len)

    def op(
        self,
        name: str,
        *,
        kind: str = "static",
        capture: str = "never",
        inputs: int = 1,
        outputs: int = 1,
        optional_inputs: int = 0,
        mutates: Iterable[int] = (),
        in_place: Mapping[int, int | Iterable[int]] | None = None,
        views: Mapping[int, int] | None = None,
        parts: Mapping[int, int] | None = None,
        joins: Mapping[int, int | Iterable[int]] | None = None,
        part: PartFn | None = None,
        strided_inputs: Iterable[int] = (),
        strided_outputs: Iterable[int] = (),
        flags: Iterable[str] = (),
        attrs: Mapping[str, object] | None = None,
        infer: InferFn | None = None,
        shapes: ShapesFn | None = None,
        workspace: WorkspaceFn | None = None,
        doc: str | None = None,
    ) -> Callable[[LaunchFn], LaunchFn]:
        """Registers the decorated function as an op of this engine::

            @engine.op("my.scale", kind="dynamic", attrs={"factor": 2.0})
            def scale(call):
                np.multiply(call.inputs[0], call.attrs["factor"], out=call.outputs[0])

        The function gets an ``OpCall`` and writes ``call.outputs`` in place; what it returns is ignored. An exception
        in it fails the step with ERR_OP and is the error's ``__cause__``; the exec stays usable. It may be called from
        any thread that is in a call of the library.

        Args:
            kind: ``"static"`` (a pure function of its shapes), ``"dynamic"`` (looks at the batch), ``"metadata"``.
            capture: which batches a dynamic op may be captured for: ``"never"``, ``"uniform_decode"``,
                ``"uniform_batch"``, ``"always"``.
            inputs, outputs, optional_inputs: how many; the optional ones are the last inputs.
            mutates: numbers of the inputs that it writes; they must be states of the graph.
            in_place: output number -> number of the input whose memory it may be given, or of several: any of them.
            views: output number -> number of the input that it is, under another shape.
            parts: output number -> number of the input that it is a part of, and may be given as one. If it is, its
                array is that part of the input's already, and there is nothing to copy. Static ops alone have parts.
            joins: output number -> numbers of the inputs that are parts of it, and may lie there already.
            part: ``part(output, input, input types, output types, attrs)`` gives ``(axis, start)``: where the part
                begins that a pair of ``parts`` or ``joins`` speaks of.
            strided_inputs, strided_outputs: numbers of those that may have strides, as parts along any axis but the
                first have: arrays of which the last axis alone is contiguous. Others are compact.
            flags: of ``"host_sync"``, ``"stream_switch"``, ``"zeroes_tail"``, ``"row_wise"``.
            attrs: name -> default; a type (``int``, ``float``, ``bool``, ``str``, ``tuple``) makes it required.
            infer: ``infer(input types, attrs)`` gives the outputs' types: symbolic, asked once.
            shapes: without infer: ``shapes([(shape, dtype), ...], tokens, seqs)`` gives the outputs' shapes (or
                ``(shape, dtype)``; else the dtype is the first input's) at concrete sizes; asked at several sizes.
                Without either, every output is like the first input.
            workspace: ``workspace(call)`` gives the bytes of scratch for these shapes; the arrays have no data.
            doc: one line; the first line of the function's docstring if left out.

        Raises AdcgError: ERR_ARGUMENT for a declaration that contradicts itself, ERR_STATE for a name that is taken,
        ERR_UNSUPPORTED on a CUDA device.
        """

        if self._location[0] != _ffi.DL_CPU:
            # A Python function computes in numpy, on memory that is not the host's here.
            what = f"adcg.Engine.op: {name!r}: ops written in Python run on the host device alone"
            raise AdcgError(errors.ERR_UNSUPPORTED, what)

        def register(function: LaunchFn) -> LaunchFn:
            schema = ops.schema(
                name,
                function,
                kind=kind,
                capture=capture,
                inputs=inputs,
                outputs=outputs,
                optional_inputs=optional_inputs,
                mutates=mutates,
                in_place=in_place or {},
                views=views or {},
                parts=parts or {},
                joins=joins or {},
                part=part,
                strided_inputs=strided_inputs,
                strided_outputs=strided_outputs,
                flags=flags,
                attributes=attrs or {},
                infer=infer,
                shapes=shapes,
                workspace=workspace,
                doc=doc or function.__doc__,
            )
            _ffi.lib.adcg_engine_register_op(self._handle, ctypes.byref(schema), None)
            self._keep.append(schema)
            return function

        return register
