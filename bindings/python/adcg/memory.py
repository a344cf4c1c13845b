"""Memory of an engine's device as arrays: of ``Engine.empty``, ``Engine.from_numpy``, and of replays on a device."""

from __future__ import annotations

import contextlib
import ctypes
import math
import weakref
from ctypes import CFUNCTYPE, PYFUNCTYPE, addressof, byref, c_char_p, c_int, c_int64, c_void_p, py_object
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _ffi, errors, tensors
from .errors import AdcgError
from .tensors import Array

if TYPE_CHECKING:
    from .executor import Exec


class Memory:
    """An engine's handle, shared by the engine and all arrays of its memory: it is given up with the last of them, so
    that an array (or a tensor that another library made of it) never outlives its memory."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer
        self._late: list[tuple[int, list[weakref.ref[Exec]]]] = []

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            _ffi.lib.adcg_engine_destroy(self.pointer)

    def alloc(self, bytes: int) -> int:
        late, self._late = self._late, []
        for address, users in late:
            self.free(address, users)
        out = c_void_p()
        _ffi.lib.adcg_memory_alloc(self.pointer, max(1, bytes), byref(out))
        return out.value or 0

    def free(self, address: int, users: list[weakref.ref[Exec]]) -> None:
        """Once the steps of the execs that used it are done; later if one of them is in a replay just now."""
        try:
            finish(users)
        except AdcgError as error:
            if error.status == errors.ERR_BUSY:
                self._late.append((address, users))
                return
            # A step that failed on the device is reported by the exec's next call.
        _ffi.lib.adcg_memory_free(self.pointer, address)

    def copy(self, to: int, source: int, bytes: int) -> None:
        if bytes:
            _ffi.lib.adcg_memory_copy(self.pointer, to, source, bytes)


def finish(users: list[weakref.ref[Exec]]) -> None:
    """Waits for the steps of those execs."""
    for user in users:
        exec_ = user()
        if exec_ is not None and not exec_.closed:
            exec_.synchronize()


class DeviceArray:
    """A compact array in memory of an engine's device, which it owns. Made by ``Engine.empty``, ``Engine.zeros`` and
    ``Engine.from_numpy``, and by replays on a device for outputs that are left out.

    It goes wherever a replay or a binding takes an array, is used there without a copy, and is a DLPack producer for
    torch, cupy and jax. Execs that share one as input or output are ordered on the device. Reading it (``numpy()``,
    ``np.asarray``) and freeing it wait for the steps that use it; streams of other libraries are theirs to order.
    """

    __slots__ = ("__weakref__", "_address", "_memory", "_users", "device", "dtype", "shape")

    def __init__(self, memory: Memory, device: tuple[int, int], shape: tuple[int, ...], dtype: str) -> None:
        self._address = 0
        self._memory = memory
        self._users: list[weakref.ref[Exec]] = []  # execs whose steps may use it
        self.device = device  # (type, id) as DLPack has them
        self.dtype = dtype  # by name
        self.shape = shape
        self._address = memory.alloc(self.nbytes)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.free()

    def __repr__(self) -> str:
        freed = "" if self._address else ", freed"
        return f"<adcg.DeviceArray {self.dtype}{list(self.shape)} on {_device_text(self.device)}{freed}>"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (_ffi.DTYPES[self.dtype][2] // 8)

    @property
    def address(self) -> int:
        """Of the first element, on the device. Raises ERR_HANDLE once it is freed."""
        if not self._address:
            raise AdcgError(errors.ERR_HANDLE, f"adcg.DeviceArray: used after free(): {self!r}")
        return self._address

    def free(self) -> None:
        """Gives the memory back, once the steps that use it are done. An array that is collected frees itself."""
        address, self._address = self._address, 0
        if address:
            self._memory.free(address, self._users)

    def numpy(self) -> Array:
        """A copy in host memory, of the same shape. Waits for the steps that use the array."""
        host = np.empty(self.shape, tensors.numpy_dtype(self.dtype))
        finish(self._users)
        self._memory.copy(host.ctypes.data, self.address, self.nbytes)
        return host

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("adcg.DeviceArray: its memory is the device's: numpy needs a copy")
        host = self.numpy()
        return host if dtype is None else host.astype(dtype, copy=False)

    def assign(self, array: object) -> None:
        """Copies a host array of the same dtype and shape in, compact or not. Waits for the steps that use this one.
        Raises ERR_SHAPE, ERR_DTYPE."""
        where = "adcg.DeviceArray.assign"
        d = tensors.describe(np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array, where)
        code, bits = _ffi.DTYPES[self.dtype][1:]
        if d.device[0] != _ffi.DL_CPU or d.strides is not None:
            raise AdcgError(errors.ERR_SHAPE, f"{where}: a compact array in host memory is meant")
        if (d.code, d.bits, d.lanes) != (code, bits, 1):
            raise AdcgError(errors.ERR_DTYPE, f"{where}: DLPack code {d.code}, {d.bits} bits, needs {self.dtype}")
        shape = self.shape if isinstance(array, np.ndarray) and not array.ndim and not self.shape else d.shape
        if shape != self.shape:
            raise AdcgError(errors.ERR_SHAPE, f"{where}: {list(d.shape)}, needs {list(self.shape)}")
        finish(self._users)
        self._memory.copy(self.address, d.data, self.nbytes)

    def _used_by(self, user: weakref.ref[Exec]) -> None:
        if user not in self._users:
            self._users.append(user)

    def _described(self) -> tensors.Described:
        code, bits = _ffi.DTYPES[self.dtype][1:]
        return tensors.Described(self.address, self.device, code, bits, 1, self.shape, None, False, self)

    # ---- DLPack ------------------------------------------------------------------------------------------------

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule; the tensor made of it shares this memory and keeps it alive.

        On a CUDA device the consumer's ``stream`` is ordered behind the steps that use the array: a CUstream, 1 (or
        None) for the legacy default stream, 2 for the thread's, -1 for no order at all.
        """
        if dl_device not in (None, self.device):
            raise BufferError(f"adcg.DeviceArray: dl_device {dl_device}: it is on {self.device}")
        if copy:
            raise BufferError("adcg.DeviceArray: copy=True: copies are the consumer's to make")
        if self.device[0] == _ffi.DL_CPU:
            if stream is not None:
                raise AdcgError(errors.ERR_ARGUMENT, f"adcg.DeviceArray.__dlpack__: stream {stream}: there are none")
        elif stream != -1:
            pointer = tensors.stream_pointer(1 if stream is None else stream, "adcg.DeviceArray.__dlpack__")
            for user in self._users:
                exec_ = user()
                if exec_ is not None and not exec_.closed:
                    exec_.stream_wait(pointer)
        return _export(self, versioned=max_version is not None and max_version[0] >= 1)


def _device_text(device: tuple[int, int]) -> str:
    return "host" if device[0] == _ffi.DL_CPU else f"cuda:{device[1]}"


# Tensors that consumers hold, by the address of their structure: the structure with all that it points at.
_exported: dict[int, tuple[Any, ...]] = {}

_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"
_new_capsule = PYFUNCTYPE(py_object, c_void_p, c_char_p, c_void_p)(("PyCapsule_New", ctypes.pythonapi))
# In a destructor the capsule has no references left, so that it must not become a Python object again.
_is_valid = PYFUNCTYPE(c_int, c_void_p, c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))


def _delete(address: int) -> None:
    _exported.pop(address, None)


def _destroy(capsule: int) -> None:
    """Of a capsule that nobody consumed: consumers rename theirs."""
    for name in (_PLAIN, _VERSIONED):
        if _is_valid(capsule, name):
            _exported.pop(_pointer(capsule, name), None)


_deleter = CFUNCTYPE(None, c_void_p)(_delete)
_destructor = PYFUNCTYPE(None, c_void_p)(_destroy)


def _export(array: DeviceArray, versioned: bool) -> Any:
    managed: Any = _ffi.DLManagedTensorVersioned() if versioned else _ffi.DLManagedTensor()
    tensor = managed.dl_tensor
    ndim = len(array.shape)
    shape, strides = (c_int64 * max(1, ndim))(*array.shape), (c_int64 * max(1, ndim))()
    step = 1
    for axis in reversed(range(ndim)):
        strides[axis] = step
        step *= array.shape[axis]
    tensor.data, tensor.ndim = array.address, ndim
    tensor.device.device_type, tensor.device.device_id = array.device
    tensor.dtype.code, tensor.dtype.bits = _ffi.DTYPES[array.dtype][1:]
    tensor.dtype.lanes = 1
    tensor.shape, tensor.strides = shape, strides
    managed.deleter = ctypes.cast(_deleter, c_void_p)
    if versioned:
        managed.version.major, managed.version.minor = 1, 0
    address = addressof(managed)
    _exported[address] = (managed, shape, strides, array)
    return _new_capsule(address, _VERSIONED if versioned else _PLAIN, ctypes.cast(_destructor, c_void_p))
