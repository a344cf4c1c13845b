"""Ops written in Python: a function becomes a schema whose callbacks enter Python and come back with a status."""

from __future__ import annotations

import ctypes
import operator
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from ctypes import c_int32, string_at
from typing import Any

from . import _ffi, attrs, errors, tensors
from .batch import Batch
from .errors import AdcgError
from .shapes import Type, fill_type, type_of
from .tensors import Array

Shape = tuple[int, ...]
InferFn = Callable[[list[Type], dict[str, attrs.AttrValue]], "Type | Sequence[Type]"]
ShapesFn = Callable[[list[tuple[Shape, str]], int, int], "Sequence[Shape | tuple[Shape, str]]"]
LaunchFn = Callable[["OpCall"], Any]
WorkspaceFn = Callable[["OpCall"], int]
PartFn = Callable[[int, int, list[Type], list[Type], dict[str, attrs.AttrValue]], tuple[int, int]]


class OpCall:
    """One launch of an op. Everything in it is valid during the call alone.

    Attributes:
        phase: ``"warmup"`` (once before a bucket is captured; the batch is empty), ``"capture"`` or ``"replay"``.
        inputs: numpy views of the inputs, at the bucket's sizes; writable where the op declared that it mutates them.
            Those that the op takes strided may be parts of larger tensors: not contiguous.
        outputs: numpy views of the outputs, to be written in place, likewise. A dynamic op may stop at the real rows.
        attrs: the node's attributes, complete with defaults.
        batch: the step's real counts.
        tokens, seqs: the bucket.
        workspace: uint8 view of the scratch that the op asked for; empty if none.
    """

    __slots__ = ("attrs", "batch", "inputs", "outputs", "phase", "seqs", "tokens", "workspace")

    phase: str
    inputs: list[Array]
    outputs: list[Array]
    attrs: dict[str, attrs.AttrValue]
    batch: Batch
    tokens: int
    seqs: int
    workspace: Array

    def __repr__(self) -> str:
        return f"OpCall(phase={self.phase!r}, tokens={self.tokens}, seqs={self.seqs}, {self.batch!r})"


_NO_WORKSPACE = tensors.view(0, (0,), tensors.numpy_dtype("uint8"), True)
_UINT8 = tensors.numpy_dtype("uint8")
_BATCH_SIZE = ctypes.sizeof(Batch)


# adcg_op_call up to workspace_bytes, as it lies in memory; tests/python/test_ffi.py holds the layout.
_unpack_call = struct.Struct("=Qiiiiqq6Q").unpack
_PHASE = _ffi.OpCall.phase.offset
_CALL_BYTES = _ffi.OpCall.workspace_bytes.offset + _ffi.OpCall.workspace_bytes.size


def _open(address: int, mutates: int) -> OpCall:
    fields = _unpack_call(string_at(address, _CALL_BYTES))
    _, phase, num_inputs, num_outputs, num_attrs, tokens, seqs = fields[:7]
    batch, inputs, outputs, attributes, workspace, workspace_bytes = fields[7:]
    call = OpCall()
    call.phase = _ffi.PHASES.get(phase, "replay")
    call.tokens = tokens
    call.seqs = seqs
    call.batch = Batch.from_buffer_copy(string_at(batch, _BATCH_SIZE))
    call.inputs = tensors.views_of(inputs, num_inputs, mutates)
    call.outputs = tensors.views_of(outputs, num_outputs, -1)
    call.attrs = attrs.values_of((_ffi.Attr * num_attrs).from_address(attributes), num_attrs) if num_attrs else {}
    call.workspace = tensors.view(workspace, (workspace_bytes,), _UINT8, True) if workspace else _NO_WORKSPACE
    return call


def _failed(exception: BaseException, set_error: Callable[[bytes], Any]) -> int:
    set_error(errors.note_exception(exception).encode("utf-8", "replace"))
    return errors.ERR_OP


def _infer_callback(function: InferFn) -> Any:
    def infer(raw_call: Any, user_data: int | None) -> int:
        raw = raw_call.contents
        try:
            inputs = [type_of(t) for t in raw.inputs[: raw.num_inputs]]
            answer = function(inputs, attrs.values_of(raw.attrs, raw.num_attrs))
            types = [answer] if isinstance(answer, Type) else list(answer)
            if len(types) != raw.num_outputs:
                raise ValueError(f"infer returned {len(types)} types for {raw.num_outputs} outputs")
            for i, type_ in enumerate(types):
                fill_type(raw.outputs[i], type_)
        except BaseException as exception:
            return _failed(exception, raw.set_error)
        return errors.OK

    return _ffi.OpInferFn(infer)


def _part_callback(function: PartFn, pairs: Sequence[tuple[int, int]]) -> Any:
    def part(raw_call: Any, out_part: Any, user_data: int | None) -> int:
        raw = raw_call.contents
        try:
            inputs = [type_of(t) for t in raw.inputs[: raw.num_inputs]]
            outputs = [type_of(t) for t in raw.outputs[: raw.num_outputs]]
            output, number = pairs[raw.alias]
            axis, start = function(output, number, inputs, outputs, attrs.values_of(raw.attrs, raw.num_attrs))
            out_part[0].axis, out_part[0].start = operator.index(axis), operator.index(start)
        except BaseException as exception:
            return _failed(exception, raw.set_error)
        return errors.OK

    return _ffi.OpPartFn(part)


def _discover(raw: Any, shapes: ShapesFn | None) -> None:
    """Answers what the outputs' shapes are at these sizes; saying nothing means: as inputs[0]."""
    if shapes is None:
        return
    by_dlpack = {(code, bits): name for name, (_, code, bits) in _ffi.DTYPES.items()}
    inputs = [(tuple(t.shape[: t.ndim]), by_dlpack[t.dtype.code, t.dtype.bits]) for t in raw.inputs[: raw.num_inputs]]
    answer: list[Any] = list(shapes(inputs, raw.tokens, raw.seqs))
    if len(answer) != raw.num_outputs:
        raise ValueError(f"shapes returned {len(answer)} shapes for {raw.num_outputs} outputs")
    for i, item in enumerate(answer):
        described = len(item) == 2 and isinstance(item[0], (tuple, list))
        shape, dtype = item if described else (item, inputs[0][1] if inputs else "float32")
        output = raw.outputs[i]
        if len(shape) > _ffi.MAX_NDIM:
            raise ValueError(f"output {i} has {len(shape)} dims, {_ffi.MAX_NDIM} are the most")
        _, code, bits = _ffi.DTYPES[tensors.dtype_name(dtype, "shapes")]
        output.dtype.code, output.dtype.bits, output.dtype.lanes = code, bits, 1
        output.ndim = len(shape)
        for axis, extent in enumerate(shape):
            output.shape[axis] = extent


def _launch_callback(function: LaunchFn, shapes: ShapesFn | None, mutates: int) -> Any:
    def launch(address: int, user_data: int | None) -> int:
        try:
            if c_int32.from_address(address + _PHASE).value == _ffi.PHASE_DISCOVER:
                _discover(_ffi.OpCall.from_address(address), shapes)
            else:
                function(_open(address, mutates))
        except BaseException as exception:
            return _failed(exception, _ffi.OpCall.from_address(address).set_error)
        return errors.OK

    return _ffi.OpLaunchFn(launch)


def _workspace_callback(function: WorkspaceFn, mutates: int) -> Any:
    def workspace(raw_call: Any, out_bytes: Any, user_data: int | None) -> int:
        raw = raw_call.contents
        try:
            out_bytes[0] = int(function(_shapes_only(raw)))
        except BaseException as exception:
            return _failed(exception, raw.set_error)
        return errors.OK

    return _ffi.OpWorkspaceFn(workspace)


def _shapes_only(raw: Any) -> OpCall:
    """A call whose tensors have no data: arrays of the right shape that cost no memory (all strides are 0)."""
    import numpy as np

    def shaped(tensor: _ffi.DLTensor) -> Array:
        key = (tensor.dtype.code, tensor.dtype.bits)
        name = next(name for name, (_, code, bits) in _ffi.DTYPES.items() if (code, bits) == key)
        return np.broadcast_to(np.zeros((), tensors.numpy_dtype(name)), tuple(tensor.shape[: tensor.ndim]))

    call = OpCall()
    call.phase = _ffi.PHASES.get(raw.phase, "warmup")
    call.tokens, call.seqs, call.batch = raw.tokens, raw.seqs, Batch()
    call.inputs = [shaped(t) for t in raw.inputs[: raw.num_inputs]]
    call.outputs = [shaped(t) for t in raw.outputs[: raw.num_outputs]]
    call.attrs = attrs.values_of(raw.attrs, raw.num_attrs)
    call.workspace = _NO_WORKSPACE
    return call


def _number(table: Mapping[str, int], key: str, what: str, where: str) -> int:
    if key not in table:
        raise AdcgError(errors.ERR_ARGUMENT, f"{where}: {what}: {key!r}; there are {', '.join(table)}")
    return table[key]


def _bits(numbers: Iterable[int], count: int, what: str, where: str) -> int:
    """A set of inputs or outputs as bits; ``what`` says of which."""
    bits = 0
    for number in numbers:
        if not 0 <= number < min(count, 64):
            raise AdcgError(errors.ERR_ARGUMENT, f"{where}: {what}: {number}, but there are {count}")
        bits |= 1 << number
    return bits


def _pairs(aliases: Mapping[int, int | Iterable[int]]) -> list[tuple[int, int]]:
    """(output, input) of every alias."""
    return [
        (output, number)
        for output, inputs in aliases.items()
        for number in (inputs if isinstance(inputs, Iterable) else [inputs])
    ]


def schema(
    name: str,
    function: LaunchFn,
    *,
    kind: str,
    capture: str,
    inputs: int,
    outputs: int,
    optional_inputs: int,
    mutates: Iterable[int],
    in_place: Mapping[int, int | Iterable[int]],
    views: Mapping[int, int],
    parts: Mapping[int, int],
    joins: Mapping[int, int | Iterable[int]],
    part: PartFn | None,
    strided_inputs: Iterable[int],
    strided_outputs: Iterable[int],
    flags: Iterable[str],
    attributes: Mapping[str, object],
    infer: InferFn | None,
    shapes: ShapesFn | None,
    workspace: WorkspaceFn | None,
    doc: str | None,
) -> _ffi.OpSchema:
    """The schema of a Python op. It, and with it its callbacks, must live as long as the engine and all of its graphs
    and execs: the engine's ``_keep`` sees to that."""
    where = f"adcg.Engine.op: {name}"
    mutated = _bits(mutates, inputs, "mutates", where)
    bits = 0
    for flag in flags:
        bits |= _number(_ffi.FLAGS, flag, "flags", where)
    result = _ffi.OpSchema()
    result.name = name.encode()
    result.kind = _number(_ffi.KINDS, kind, "kind", where)
    result.capture = _number(_ffi.CAPTURES, capture, "capture", where)
    result.flags = bits
    result.num_inputs, result.num_outputs, result.num_optional_inputs = inputs, outputs, optional_inputs
    result.mutates = mutated
    result.strided_inputs = _bits(strided_inputs, inputs, "strided_inputs", where)
    result.strided_outputs = _bits(strided_outputs, outputs, "strided_outputs", where)
    aliases = [
        (pair, kind)
        for kind, given in (
            (_ffi.ALIAS_IN_PLACE, in_place),
            (_ffi.ALIAS_VIEW, views),
            (_ffi.ALIAS_PART, parts),
            (_ffi.ALIAS_JOIN, joins),
        )
        for pair in _pairs(given)
    ]
    if aliases:
        result.num_aliases = len(aliases)
        result.aliases = (_ffi.OpAlias * len(aliases))(*(_ffi.OpAlias(*pair, kind) for pair, kind in aliases))
    if part is not None:
        result.part = _part_callback(part, [pair for pair, _ in aliases])
    if attributes:
        specs = (_ffi.AttrSpec * len(attributes))()
        for spec, (key, default) in zip(specs, attributes.items(), strict=True):
            if isinstance(default, type):
                if default not in attrs.REQUIRED_TYPES:
                    raise AdcgError(errors.ERR_ATTRIBUTE, f"{where}: attribute {key!r}: no attribute type: {default}")
                spec.default_value.name = key.encode()
                spec.default_value.type = attrs.REQUIRED_TYPES[default]
                spec.required = 1
            else:
                attrs.fill(spec.default_value, key, default, None, where)
        result.num_attrs = len(attributes)
        result.attrs = specs
    if doc:
        result.doc = doc.strip().splitlines()[0].encode()
    if infer is not None:
        result.infer = _infer_callback(infer)
    if workspace is not None:
        result.workspace = _workspace_callback(workspace, mutated)
    result.launch = _launch_callback(function, shapes, mutated)
    return result
