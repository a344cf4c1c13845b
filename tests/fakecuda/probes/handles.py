"""Handles that are null or dead, bad arguments, copies."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from world import MIB, PTX, Box, World, probe, u


@probe
def dangling(w: World) -> None:
    g = w.chain()
    x = w.inst(g)
    w.t("cuGraphDestroy", g)
    w.t("cuGraphGetNodes", g, None, Box())
    w.t("cuGraphClone", Box(), g)
    w.update(x, g)
    w.t("cuGraphInstantiateWithFlags", Box(), g, 0)
    w.t("cuGraphAddEmptyNode", Box(), g, None, 0)
    w.t("cuGraphExecDestroy", x)
    w.t("cuGraphUpload", x, w.s)
    w.t("cuGraphExecDestroy", x)
    w.t("cuGraphNodeSetEnabled", x, None, 0)


@probe
def dangling_stream(w: World) -> None:
    w.t("cuStreamDestroy_v2", w.s)
    w.t("cuStreamDestroy_v2", w.s)


@probe
def dangling_stream_launch(w: World) -> None:
    w.t("cuStreamDestroy_v2", w.s)
    w.say("launch", w.k(w.s))
    w.t("cuStreamSynchronize", w.s)


@probe
def dangling_event(w: World) -> None:
    e = w.event()
    w.t("cuEventDestroy_v2", e)
    w.t("cuEventQuery", e)
    w.t("cuEventDestroy_v2", e)


@probe
def dangling_module(w: World) -> None:
    w.t("cuModuleUnload", w.mod.v)
    w.t("cuModuleUnload", w.mod.v)
    w.say("launch", w.k(w.s))


@probe
def nulls(w: World) -> None:
    for name, args in (
        ("cuStreamDestroy_v2", [None]),
        ("cuEventDestroy_v2", [None]),
        ("cuEventRecord", [None, w.s]),
        ("cuEventQuery", [None]),
        ("cuEventSynchronize", [None]),
        ("cuStreamWaitEvent", [w.s, None, 0]),
        ("cuModuleUnload", [None]),
        ("cuModuleLoadData", [Box(), None]),
        ("cuModuleLoadData", [None, PTX]),
        ("cuModuleGetFunction", [Box(), None, b"k"]),
        ("cuModuleGetFunction", [Box(), w.mod.v, None]),
        ("cuMemAlloc_v2", [None, 256]),
        ("cuMemcpyHtoD_v2", [w.A, None, 4]),
        ("cuMemcpyHtoD_v2", [0, u, 4]),
        ("cuMemcpyHtoD_v2", [w.A, u, 0]),
        ("cuMemcpyDtoD_v2", [0, 0, 0]),
        ("cuStreamCreate", [None, 0]),
        ("cuStreamCreate", [Box(), 2]),
        ("cuStreamCreate", [Box(), 8]),
        ("cuEventCreate", [None, 0]),
        ("cuEventCreate", [Box(), 64]),
        ("cuEventCreate", [Box(), 4]),
        ("cuEventCreate", [Box(), 3]),
        ("cuGraphCreate", [None, 0]),
        ("cuGraphClone", [Box(), None]),
        ("cuStreamIsCapturing", [w.s, None]),
        ("cuStreamIsCapturing", [0, u]),
        ("cuMemGetInfo_v2", [None, None]),
        ("cuCtxGetCurrent", [None]),
        ("cuCtxSetCurrent", [12345 * 0]),
        ("cuFuncGetAttribute", [u, 0, w.f]),
        ("cuCtxSetCurrent", [w.ctx]),
        ("cuFuncGetAttribute", [u, 99, w.f]),
        ("cuFuncSetAttribute", [w.f, 0, 1]),
        ("cuFuncSetAttribute", [None, 8, 1]),
        ("cuFuncSetAttribute", [w.f, 8, -1]),
        ("cuDeviceGet", [u, -1]),
        ("cuLaunchHostFunc", [w.s, None, None]),
        ("cuMemsetD32Async", [w.A + 1, 0, 1, w.s]),
        ("cuMemsetD32Async", [w.A, 0, 1 << 20, w.s]),
        ("cuMemsetD8Async", [w.A, 0, 0, w.s]),
        ("cuStreamGetCaptureInfo_v2", [w.s, None, None, None, None, None]),
        ("cuStreamGetCaptureInfo_v2", [0, u, None, None, None, None]),
        ("cuGetErrorName", [12345, Box()]),
        ("cuGetErrorString", [901, Box()]),
        ("cuGraphDebugDotPrint", [None, b"/dev/null", 0]),
        ("cuMemFreeHost", [None]),
        ("cuMemHostAlloc", [Box(), 0, 0]),
        ("cuPointerGetAttribute", [u, 99, w.A]),
        ("cuPointerGetAttribute", [None, 2, w.A]),
        ("cuPointerGetAttribute", [u, 1, w.A]),
        ("cuPointerGetAttribute", [u, 2, 0]),
        ("cuMemcpyDtoHAsync_v2", [None, w.A, 4, w.s]),
        ("cuMemcpyHtoDAsync_v2", [w.A + 4000, u, 200, w.s]),
        ("cuMemcpyHtoD_v2", [w.A + 3 * MIB * 4, u, 4]),
        ("cuMemAllocAsync", [Box(), 0, w.s]),
        ("cuMemFreeAsync", [0, w.s]),
        ("cuMemFreeAsync", [12345, w.s]),
        ("cuDeviceGetCount", [None]),
        ("cuDriverGetVersion", [None]),
        ("cuDevicePrimaryCtxRetain", [None, 0]),
        ("cuDevicePrimaryCtxRetain", [Box(), 7]),
        ("cuFuncGetName", [None, w.f]),
    ):
        w.t(name, *args)


@probe
def copies(w: World) -> None:
    for name, args in (
        ("cuMemcpyHtoD_v2", [w.A + 4092, u, 4]),
        ("cuMemcpyHtoD_v2", [w.A + 4092, u, 8]),
        ("cuMemcpyDtoD_v2", [w.A, w.B, 8192]),
        ("cuMemcpyDtoD_v2", [w.A, 99, 4]),
        ("cuMemcpyDtoH_v2", [u, 99, 4]),
        ("cuMemcpyDtoDAsync_v2", [w.A, 99, 4, w.s]),
        ("cuMemsetD8_v2", [w.A, 1, 8192]),
        ("cuMemcpyDtoD_v2", [w.A, w.A + 2, 4]),
        ("cuMemFree_v2", [w.A + 8]),
        ("cuMemcpyHtoD_v2", [ctypes.addressof(u), u, 4]),
        ("cuMemcpyDtoD_v2", [w.A, ctypes.addressof(u), 4]),
        ("cuMemcpy", [w.A, ctypes.addressof(u), 4]),
        ("cuMemcpyAsync", [w.A, ctypes.addressof(u), 4, w.s]),
    ):
        w.t(name, *args)


@probe
def memcpy_node(w: World) -> None:
    def pack(src: int, dst: int, width: int, st: int = 2, dt: int = 2, height: int = 1, depth: int = 1) -> Any:
        words = [0] * 25
        words[4], words[6 if st == 2 else 5], words[15], words[17 if dt == 2 else 16] = st, src, dt, dst
        words[22], words[23], words[24] = width, height, depth
        return ctypes.create_string_buffer(struct.pack("<25Q", *words), 208)

    g = w.new("cuGraphCreate", 0)
    a = w.get("cuGraphAddMemcpyNode", g, None, 0, pack(w.A, w.B, 4), w.ctx)
    w.get("cuGraphAddMemcpyNode", g, None, 0, pack(w.A, w.B, 0), w.ctx)
    w.get("cuGraphAddMemcpyNode", g, None, 0, pack(w.A, 16, 4), w.ctx)
    w.get("cuGraphAddMemcpyNode", g, None, 0, pack(w.A, w.B, 8192), w.ctx)
    w.get("cuGraphAddMemcpyNode", g, None, 0, pack(ctypes.addressof(u), w.B, 4, st=1), w.ctx)
    w.get("cuGraphAddMemcpyNode", g, None, 0, pack(w.A, w.B, 4, height=0), w.ctx)
    x = w.inst(w.graph(lambda: w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 4, w.s)))
    g2 = w.graph(lambda: w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 4, w.s))
    x, n = w.inst(g2), w.nodes(g2)[0]
    name = "cuGraphExecMemcpyNodeSetParams"
    w.t(name, x, n, pack(w.B, w.A, 16), w.ctx)
    w.t(name, x, n, pack(ctypes.addressof(u), w.A, 4, st=1), w.ctx)
    w.t(name, x, n, pack(w.A, w.B, 0), w.ctx)
    w.t(name, x, n, pack(w.A, 16, 4), w.ctx)
    w.t(name, x, n, pack(w.A, w.B, 4, height=2), w.ctx)
    w.t(name, x, n, pack(w.A, w.B, 4), None)
    w.t(name, x, a, pack(w.A, w.B, 4), w.ctx)
    w.t("cuGraphMemcpyNodeSetParams", n, pack(w.A, w.B, 8))
    for fill in (
        lambda: w.q("cuMemcpyHtoDAsync_v2", w.A, u, 4, w.s),
        lambda: w.q("cuMemcpyDtoHAsync_v2", u, w.A, 4, w.s),
        lambda: w.q("cuMemcpyAsync", w.B, w.A, 4, w.s),
    ):
        p = ctypes.create_string_buffer(208)
        w.t("cuGraphMemcpyNodeGetParams", w.nodes(w.graph(fill))[0], p)
        v = struct.unpack("<25Q", p.raw[:200])
        w.say("words", [i for i, x in enumerate(v) if x] and {i: (x if x < 99 else "p") for i, x in enumerate(v) if x})
