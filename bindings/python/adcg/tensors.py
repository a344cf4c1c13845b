"""Arrays in and out: whatever has __dlpack__ or the buffer protocol becomes a borrowed DLTensor, and memory of the
library's becomes a numpy view. Nothing is copied in either direction."""

from __future__ import annotations

import ctypes
import math
import operator
import struct
import weakref
from ctypes import PYFUNCTYPE, c_char_p, c_int, c_int64, c_ssize_t, c_void_p, py_object, string_at
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _ffi, errors
from .errors import AdcgError

Array = npt.NDArray[Any]

_capsule_is_valid = PYFUNCTYPE(c_int, py_object, c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_capsule_pointer = PYFUNCTYPE(c_void_p, py_object, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_memoryview = PYFUNCTYPE(py_object, c_void_p, c_ssize_t, c_int)(("PyMemoryView_FromMemory", ctypes.pythonapi))
_BUF_READ, _BUF_WRITE = 0x100, 0x200


# ---- Element types -----------------------------------------------------------------------------------------------


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of an element type of ours; bfloat16 and float8 come from the package ml_dtypes."""
    if name in ("bfloat16", "float8_e4m3fn"):
        try:
            import ml_dtypes
        except ImportError as error:
            raise AdcgError(errors.ERR_DTYPE, f"adcg: {name} arrays in numpy need the package ml_dtypes") from error
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
    if name not in _ffi.DTYPES:
        raise AdcgError(errors.ERR_DTYPE, f"adcg: no such element type: {name!r}; there are {', '.join(_ffi.DTYPES)}")
    return np.dtype(name)


def dtype_name(dtype: object, where: str) -> str:
    """Our name of an element type: of a name, a numpy dtype or scalar type, or a torch dtype."""
    name = dtype if isinstance(dtype, str) else ""
    if not name:
        text = str(dtype)
        name = text.removeprefix("torch.") if text.startswith("torch.") else ""
    if not name:
        try:
            name = np.dtype(dtype).name  # type: ignore[call-overload]
        except TypeError:
            name = repr(dtype)
    if name not in _ffi.DTYPES:
        raise AdcgError(errors.ERR_DTYPE, f"{where}: no such element type: {name}; there are {', '.join(_ffi.DTYPES)}")
    return name


# What DLPack calls numpy's other dtypes: none is ours, so that the library refuses them in its own words.
_FOREIGN_CODES = {"f": 2, "i": 0, "u": 1, "c": 5}
_dlpack_dtypes: dict[np.dtype[Any], tuple[int, int]] = {}


def _dlpack_dtype(dtype: np.dtype[Any], where: str) -> tuple[int, int]:
    """(code, bits) of a numpy dtype."""
    known = _dlpack_dtypes.get(dtype)
    if known is None:
        if dtype.name in _ffi.DTYPES and dtype.isnative:
            known = _ffi.DTYPES[dtype.name][1:]
        elif dtype.kind in _FOREIGN_CODES and dtype.isnative and dtype.fields is None:
            known = (_FOREIGN_CODES[dtype.kind], dtype.itemsize * 8)
        else:
            raise AdcgError(errors.ERR_DTYPE, f"{where}: numpy dtype {dtype} has no counterpart in DLPack")
        _dlpack_dtypes[dtype] = known
    return known


# ---- Arrays in ---------------------------------------------------------------------------------------------------


class Described(NamedTuple):
    """A tensor as its owner describes it; ``keep`` must live as long as the description is used."""

    data: int
    device: tuple[int, int]
    code: int
    bits: int
    lanes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None  # in elements; None: compact
    readonly: bool
    keep: object


def describe(array: object, where: str, stream: int | None = None) -> Described:
    """Describes a numpy array, a DLPack producer or an object with the buffer protocol, in this order. A producer on a
    CUDA device makes ``stream`` wait for what it does to the array.

    Raises AdcgError for anything else, for dtypes that DLPack cannot say, and when a producer refuses.
    """
    if isinstance(array, np.ndarray):
        return _describe_numpy(array, where)
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        return _describe_dlpack(array, where, stream)
    try:
        view = memoryview(array)  # type: ignore[arg-type]
    except TypeError:
        raise AdcgError(
            errors.ERR_ARGUMENT,
            f"{where}: {type(array).__name__} is no array: neither __dlpack__ nor the buffer protocol",
        ) from None
    return _describe_numpy(np.asarray(view), where)


def _describe_numpy(array: Array, where: str) -> Described:
    dtype = array.dtype
    code, bits = _dlpack_dtype(dtype, where)
    strides: tuple[int, ...] | None = None
    if not array.flags.c_contiguous:
        if any(stride % dtype.itemsize for stride in array.strides):
            raise AdcgError(errors.ERR_SHAPE, f"{where}: strides {array.strides} are no multiple of the element size")
        strides = tuple(stride // dtype.itemsize for stride in array.strides)
    data = int(array.ctypes.data)
    return Described(data, (_ffi.DL_CPU, 0), code, bits, 1, array.shape, strides, not array.flags.writeable, array)


def dlpack_device(array: Any, where: str) -> tuple[int, int]:
    """(type, id) of a DLPack producer."""
    try:
        kind, number = array.__dlpack_device__()
        return int(kind), int(number)
    except Exception as error:
        message = f"{where}: {type(array).__name__} gives no DLPack device: {error}"
        raise AdcgError(errors.ERR_ARGUMENT, message) from error


def stream_pointer(stream: object, where: str) -> int:
    """A stream as the library takes it: of an int, or of an object with ``.cuda_stream``, whose 0 is the legacy default
    stream. A bare 0 could mean either that or the exec's own, and is refused as in DLPack."""
    pointer: Any = getattr(stream, "cuda_stream", stream)
    try:
        number = operator.index(pointer)
    except TypeError:
        raise AdcgError(
            errors.ERR_ARGUMENT, f"{where}: stream: {type(stream).__name__}: an int or an object with .cuda_stream"
        ) from None
    if number == 0 and pointer is not stream:
        return 1
    if number <= 0:
        raise AdcgError(errors.ERR_ARGUMENT, f"{where}: stream: {number}: 1 is the legacy default stream")
    return number


def _describe_dlpack(array: Any, where: str, stream: int | None) -> Described:
    options: dict[str, Any] = {} if stream is None else {"stream": stream}
    try:
        try:
            capsule = array.__dlpack__(**options, max_version=(1, 1))
        except TypeError:  # a producer from before DLPack 1.0
            capsule = array.__dlpack__(**options)
    except Exception as error:
        message = f"{where}: {type(array).__name__} gives no DLPack tensor: {error}"
        raise AdcgError(errors.ERR_ARGUMENT, message) from error
    # The capsule keeps its name: it is borrowed, not consumed, so its own destructor still frees the tensor.
    readonly = False
    if _capsule_is_valid(capsule, b"dltensor_versioned"):
        versioned = _ffi.DLManagedTensorVersioned.from_address(_capsule_pointer(capsule, b"dltensor_versioned"))
        if versioned.version.major != 1:
            major = versioned.version.major
            raise AdcgError(errors.ERR_ARGUMENT, f"{where}: {type(array).__name__} speaks DLPack {major}, not 1")
        readonly = bool(versioned.flags & _ffi.DLPACK_FLAG_READ_ONLY)
        tensor = versioned.dl_tensor
    elif _capsule_is_valid(capsule, b"dltensor"):
        tensor = _ffi.DLManagedTensor.from_address(_capsule_pointer(capsule, b"dltensor")).dl_tensor
    else:
        raise AdcgError(errors.ERR_ARGUMENT, f"{where}: __dlpack__ of {type(array).__name__} gave no DLPack capsule")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides: tuple[int, ...] | None = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    if strides is not None and _is_compact(shape, strides):
        strides = None
    return Described(
        (tensor.data or 0) + tensor.byte_offset,
        (tensor.device.device_type, tensor.device.device_id),
        tensor.dtype.code,
        tensor.dtype.bits,
        tensor.dtype.lanes,
        shape,
        strides,
        readonly,
        (capsule, array),
    )


def _is_compact(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True


class _Nothing:
    """No array is this one."""


def unseen() -> object:
    return _Nothing


class Slot:
    """One DLTensor that is filled again and again: a place in the list of tensors that a replay passes.

    A numpy array that comes back unchanged is recognised by identity (a weak reference: the slot keeps no array alive
    between calls), shape, dtype and flags, and costs nothing to describe. An array that is weakly referenced cannot be
    resized in place, so its address is still the one that was described.
    """

    __slots__ = ("_room", "_strides", "dtype", "flags", "keep", "readonly", "ref", "rows", "seen", "shape", "tensor")

    def __init__(self, tensor: _ffi.DLTensor) -> None:
        self.tensor = tensor
        self._room = _ffi.MAX_NDIM
        self.shape = (c_int64 * self._room)()
        self._strides = (c_int64 * self._room)()
        tensor.shape = self.shape
        self.forget()

    def forget(self) -> None:
        self.ref: Any = unseen
        self.seen: tuple[int, ...] = ()
        self.dtype: object = None
        self.flags = 0
        self.rows = 0
        self.readonly = False
        self.keep: object = None

    def fill(self, array: object, where: str) -> None:
        """Describes another array. ``rows`` is then its first extent, ``keep`` what must outlive the call."""
        self.forget()
        d = describe(array, where)
        self.put(d)
        self.rows = d.shape[0] if d.shape else 0
        self.readonly = d.readonly
        if type(array) is np.ndarray:
            self.ref = weakref.ref(array)
            self.seen = array.shape
            self.dtype = array.dtype
            self.flags = array.flags.num
        else:
            self.keep = d.keep

    def put(self, d: Described) -> None:
        """Writes a description into the DLTensor. The shape and stride arrays live as long as the DLTensor does."""
        ndim = len(d.shape)
        if ndim > self._room:
            self._room = ndim
            self.shape = (c_int64 * ndim)()
            self._strides = (c_int64 * ndim)()
        tensor = self.tensor
        tensor.data = d.data
        tensor.device.device_type, tensor.device.device_id = d.device
        tensor.ndim = ndim
        tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes = d.code, d.bits, d.lanes
        self.shape[:ndim] = list(d.shape)
        tensor.shape = self.shape
        if d.strides is None:
            tensor.strides = None
        else:
            self._strides[:ndim] = list(d.strides)
            tensor.strides = self._strides
        tensor.byte_offset = 0


def borrowed(array: object, where: str) -> tuple[_ffi.DLTensor, Described]:
    """A DLTensor of its own for one call; ``keep`` of the description keeps its memory alive."""
    tensor = _ffi.DLTensor()
    described = describe(array, where)
    Slot(tensor).put(described)
    return tensor, described


# ---- Memory out --------------------------------------------------------------------------------------------------


def view(
    address: int, shape: tuple[int, ...], dtype: np.dtype[Any], writable: bool, strides: tuple[int, ...] | None = None
) -> Array:
    """A numpy view of memory that somebody else owns; valid only while that owner says so. ``strides`` are in elements;
    None: compact."""
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    if strides is not None:
        count = 1 + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
    memory = _memoryview(address, dtype.itemsize * count, _BUF_WRITE if writable else _BUF_READ)
    steps = None if strides is None else tuple(stride * dtype.itemsize for stride in strides)
    array: Array = np.ndarray(shape, dtype, memory, strides=steps)
    return array


# A DLTensor as it lies in memory: data, device (type, id), ndim, code, bits, lanes, shape, strides, byte_offset.
_unpack_tensor = struct.Struct("=QiiiBBHQQQ").unpack
_TENSOR_BYTES = ctypes.sizeof(_ffi.DLTensor)
_views: dict[tuple[int, bytes, bytes, int, int, bool], Array] = {}
_VIEWS = 512


def views_of(address: int, count: int, writable: int) -> list[Array]:
    """Numpy views of ``count`` DLTensors in host memory that lie at ``address``; bit i of ``writable`` says whether
    number i may be written.

    This is what a launch of a Python op costs, so it reads the structures as bytes, and keeps views by address, shape
    and strides: an exec's arena does not move, so the next step asks for the same ones. What it returns are views of
    those, so that whatever an op does to its array objects stays with it.
    """
    found = []
    for i in range(count):
        raw = string_at(address + i * _TENSOR_BYTES, _TENSOR_BYTES)
        data, _, _, ndim, code, bits, _, shape, strides, offset = _unpack_tensor(raw)
        lie = string_at(strides, 8 * ndim) if strides else b""
        key = (data + offset, string_at(shape, 8 * ndim), lie, code, bits, bool(writable >> i & 1))
        known = _views.get(key)
        if known is None:
            if len(_views) >= _VIEWS:
                _views.clear()
            extents = tuple((c_int64 * ndim).from_address(shape))
            steps = tuple((c_int64 * ndim).from_address(strides)) if strides else None
            known = _views[key] = view(data + offset, extents, _dtype_of(code, bits), key[5], steps)
        found.append(known.view())
    return found


def dtype_of(code: int, bits: int, lanes: int = 1) -> str | None:
    """Our name of an element type of DLPack's, None if it is none of ours."""
    for name, (_, known_code, known_bits) in _ffi.DTYPES.items():
        if (code, bits, lanes) == (known_code, known_bits, 1):
            return name
    return None


def _dtype_of(code: int, bits: int) -> np.dtype[Any]:
    name = dtype_of(code, bits)
    if name is not None:
        return numpy_dtype(name)
    raise AdcgError(errors.ERR_DTYPE, f"adcg: DLPack type with code {code} and {bits} bits")
