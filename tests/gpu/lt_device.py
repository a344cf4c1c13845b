"""The driver and lt_device.c through ctypes, for lt.py: one context, captures, `adcg.linear` under some options."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

NODE_KINDS = {0: "kernel", 1: "memcpy", 2: "memset", 10: "alloc", 11: "free"}


class Options(ctypes.Structure):
    """adcgk_lt_options."""

    _fields_ = [
        ("plain_cost", c_double),
        ("workspace_bytes", c_uint64),
        ("alignment", c_int32),
        ("tf32", c_int32),
        ("pinned_rows", c_int64),
    ]


class Linear(ctypes.Structure):
    """gpu_linear of lt_device.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "w", "bias", "y", "workspace", "stream")),
        *((name, c_int64) for name in ("m", "n", "k", "ldx", "ldy", "workspace_bytes")),
        ("bf16", c_int32),
        ("bias_type", c_int32),
        ("activation", c_char_p),
    ]


class Choice(ctypes.Structure):
    """adcgk_lt_choice."""

    _fields_ = [
        *((name, c_int32) for name in ("id", "tile", "stages", "splits", "reduction", "first_plain")),
        ("waves", c_float),
        ("first_waves", c_float),
        ("workspace_bytes", c_uint64),
    ]

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name, _ in self._fields_}

    def __str__(self) -> str:
        split = f" split {self.splits} by {self.reduction}" if self.splits > 1 else ""
        room = f" workspace {self.workspace_bytes >> 10} KiB" if self.workspace_bytes else ""
        first = "" if self.first_plain else f" (first: {self.first_waves:.2f} waves, not plain)"
        return f"id {self.id} tile {self.tile}{split}{room} {self.waves:.2f} waves{first}"


# ---- The driver --------------------------------------------------------------------------------------------------


class Cuda:
    """The primary context, which is torch's too, and what of the driver is needed."""

    def __init__(self, image: Path | str) -> None:
        self.lib = ctypes.CDLL("libcuda.so.1")
        self("cuInit", 0)
        context = c_void_p()
        self("cuDevicePrimaryCtxRetain", byref(context), 0)
        self("cuCtxSetCurrent", context)
        self.multiprocessors = self.attribute(16)
        self.stream = c_void_p()
        self("cuStreamCreate", byref(self.stream), 1)
        self.module = c_void_p()
        data = Path(image).read_bytes()
        self("cuModuleLoadData", byref(self.module), ctypes.create_string_buffer(data, len(data) + 1))

    def __call__(self, name: str, *args: Any) -> None:
        result = getattr(self.lib, name)(*args)
        if result != 0:
            raise RuntimeError(f"{name}: {result}")

    def attribute(self, number: int) -> int:
        value = c_int32()
        self("cuDeviceGetAttribute", byref(value), number, 0)
        return value.value

    def name(self) -> str:
        text = ctypes.create_string_buffer(128)
        self("cuDeviceGetName", text, 128, 0)
        return text.value.decode()

    def alloc(self, size: int) -> int:
        address = c_uint64()
        self("cuMemAlloc_v2", byref(address), c_size_t(max(size, 1)))
        return address.value

    def free(self, *addresses: int) -> None:
        for address in addresses:
            self("cuMemFree_v2", c_uint64(address))

    def upload(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        address = self.alloc(array.nbytes)
        self("cuMemcpyHtoD_v2", c_uint64(address), array.ctypes.data_as(c_void_p), c_size_t(array.nbytes))
        return address

    def download(self, address: int, like: np.ndarray) -> np.ndarray:
        out = np.empty_like(like)
        self("cuMemcpyDtoH_v2", out.ctypes.data_as(c_void_p), c_uint64(address), c_size_t(out.nbytes))
        return out

    def synchronize(self) -> None:
        self("cuStreamSynchronize", self.stream)

    def function(self, name: bytes) -> int:
        function = c_void_p()
        self("cuModuleGetFunction", byref(function), self.module, name)
        return function.value or 0

    def captured(self, launch: Any) -> c_void_p:
        """The graph of what `launch` enqueues on the stream."""
        graph = c_void_p()
        self("cuStreamBeginCapture_v2", self.stream, 1)
        try:
            launch()
        finally:
            self("cuStreamEndCapture", self.stream, byref(graph))
        return graph

    def nodes(self, graph: c_void_p) -> list[str]:
        """Kind of each node, and the name of a kernel where the driver tells it."""
        count = c_size_t()
        self("cuGraphGetNodes", graph, None, byref(count))
        handles = (c_void_p * count.value)()
        self("cuGraphGetNodes", graph, handles, byref(count))
        found = []
        for handle in handles:
            kind = c_int32()
            self("cuGraphNodeGetType", c_void_p(handle), byref(kind))
            label = NODE_KINDS.get(kind.value, f"kind {kind.value}")
            if kind.value == 0:
                label += " " + self.kernel_name(handle)
            found.append(label.strip())
        return found

    def kernel_name(self, node: int) -> str:
        params = (c_uint64 * 16)()  # CUDA_KERNEL_NODE_PARAMS_v2: func first, kern at byte 56
        text = c_char_p()
        if self.lib.cuGraphKernelNodeGetParams_v2(c_void_p(node), params) != 0:
            return ""
        for call, handle in (("cuFuncGetName", params[0]), ("cuKernelGetName", params[7])):
            function = getattr(self.lib, call, None)
            if handle and function and function(byref(text), c_void_p(handle)) == 0 and text.value:
                return text.value.decode()[:60]
        return ""


# ---- adcg.linear -------------------------------------------------------------------------------------------------


class Device:
    """cuBLASLt opened with some options."""

    def __init__(self, cuda: Cuda, library: Path, cublaslt: str, invariant: bool = False, **options: Any) -> None:
        self.cuda = cuda
        self.lib = ctypes.CDLL(str(library))
        for name in ("gpu_lt_message", "gpu_lt_name", "gpu_lt_kernel"):
            getattr(self.lib, name).restype = c_char_p
        for name in ("gpu_lt_workspace", "gpu_lt_linear", "gpu_lt_describe", "gpu_lt_version"):
            getattr(self.lib, name).restype = c_int64
        self.lib.gpu_lt_open.restype = c_void_p
        source = ctypes.CDLL(cublaslt)
        functions = [ctypes.cast(source[name], c_void_p) for name in self.names("gpu_lt_name")]
        kernels = [cuda.function(name) for name in self.names("gpu_lt_kernel")]
        chosen = Options(1.25, 8 << 20, 16, 0, 0)
        for name, value in options.items():
            setattr(chosen, name, value)
        self.handle = c_void_p(
            self.lib.gpu_lt_open(
                (c_void_p * len(functions))(*functions),
                byref(chosen),
                ctypes.cast(cuda.lib.cuLaunchKernel, c_void_p),
                (c_void_p * len(kernels))(*kernels),
                cuda.multiprocessors,
                int(invariant),
            )
        )
        if not self.handle:
            raise RuntimeError(self.lib.gpu_lt_message().decode())

    def names(self, function: str) -> list[bytes]:
        found: list[bytes] = []
        while (name := getattr(self.lib, function)(len(found))) is not None:
            found.append(name)
        return found

    def close(self) -> None:
        self.lib.gpu_lt_close(self.handle)

    def version(self) -> int:
        return int(self.lib.gpu_lt_version(self.handle))

    def workspace(self, linear: Linear) -> int:
        return int(self.lib.gpu_lt_workspace(self.handle, byref(linear)))

    def run(self, linear: Linear) -> None:
        if self.lib.gpu_lt_linear(self.handle, byref(linear)) != 0:
            raise RuntimeError(self.lib.gpu_lt_message().decode())

    def describe(self, linear: Linear) -> Choice | None:
        """None: cuBLASLt declines, our own kernel serves."""
        choice = Choice()
        status = self.lib.gpu_lt_describe(self.handle, byref(linear), byref(choice))
        if status == -1:
            return None
        if status != 0:
            raise RuntimeError(self.lib.gpu_lt_message().decode())
        return choice


def linear_of(cuda: Cuda, m: int, n: int, k: int, bf16: bool = True, activation: str = "none", **fields: Any) -> Linear:
    linear = Linear(m=m, n=n, k=k, ldx=k, ldy=n, bf16=bf16, activation=activation.encode(), stream=cuda.stream)
    for name, value in fields.items():
        setattr(linear, name, value)
    return linear
