"""Further call sequences for a CUDA driver, one line each; probes.txt is what a real one answered.

    python3 probes.py [NAME ...]        prints one line per probe; needs libcuda.so.1 and the standard library alone

What sequences.c leaves open: which calls a capture refuses in each mode, what events and joins do to it, what an executable
can be updated to, which handles are checked. Every probe runs in a process of its own; <signal N> says that it killed it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

PTX = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry k(.param .u64 a,.param .u64 b,.param .u32 n){.reg .u64 %r<4>;.reg .u32 %w<4>;.reg .pred %p;
ld.param.u64 %r0,[a];ld.param.u64 %r1,[b];ld.param.u32 %w0,[n];cvta.to.global.u64 %r0,%r0;cvta.to.global.u64 %r1,%r1;
mov.u32 %w1,0;
L:
ld.global.u32 %w2,[%r0];add.u32 %w2,%w2,1;st.global.u32 [%r1],%w2;add.u32 %w1,%w1,1;setp.lt.u32 %p,%w1,%w0;@%p bra L;ret;}
.visible .entry j(.param .u64 a){.reg .u64 %r<2>;.reg .u32 %w<2>;
ld.param.u64 %r0,[a];cvta.to.global.u64 %r0,%r0;ld.global.u32 %w0,[%r0];add.u32 %w0,%w0,7;st.global.u32 [%r0],%w0;ret;}
"""
HOSTFN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
nothing = HOSTFN(lambda _: None)
MIB = 1 << 20


class Box:
    """A 64-bit out parameter."""

    def __init__(self, value: int = 0) -> None:
        self.c = ctypes.c_uint64(value)

    @property
    def v(self) -> int:
        return self.c.value


def conv(arg: Any) -> Any:
    if arg is None:
        return ctypes.c_void_p(None)
    if isinstance(arg, Box):
        return ctypes.byref(arg.c)
    return ctypes.c_uint64(arg & (2**64 - 1)) if isinstance(arg, int) else arg


def array(*values: int) -> Any:
    return (ctypes.c_uint64 * max(1, len(values)))(*values)


class World:
    """A primary context, two kernels, two buffers, two non-blocking streams."""

    def __init__(self) -> None:
        self.d = ctypes.CDLL("libcuda.so.1")
        self.keep: list[Any] = []

    def setup(self) -> None:
        self.q("cuInit", 0)
        self.ctx, self.mod, self.f, self.f2 = (self.new("cuDevicePrimaryCtxRetain", 0), Box(), Box(), Box())
        self.q("cuCtxSetCurrent", self.ctx)
        self.q("cuModuleLoadData", self.mod, PTX)
        self.f = self.new("cuModuleGetFunction", self.mod.v, b"k")
        self.f2 = self.new("cuModuleGetFunction", self.mod.v, b"j")
        self.A, self.B = self.new("cuMemAlloc_v2", 4096), self.new("cuMemAlloc_v2", 4096)
        self.s, self.s2 = self.new("cuStreamCreate", 1), self.new("cuStreamCreate", 1)
        self.poke(self.A, 5)
        self.poke(self.B, 0)

    def q(self, name: str, *args: Any) -> int:
        return int(getattr(self.d, name)(*map(conv, args)))

    def new(self, name: str, *args: Any) -> int:
        box = Box()
        status = self.q(name, box, *args)
        if status:
            self.say(f"{name}!", status)
        return box.v

    def say(self, name: str, value: Any) -> None:
        sys.stdout.write(f" {name}={value}")
        sys.stdout.flush()

    def t(self, name: str, *args: Any) -> int:
        status = self.q(name, *args)
        self.say(name.removeprefix("cu"), status)
        return status

    def get(self, name: str, *args: Any) -> int:
        box = Box()
        self.t(name, box, *args)
        return box.v

    def poke(self, address: int, value: int) -> None:
        self.q("cuMemcpyHtoD_v2", address, struct.pack("<I", value), 4)

    def word(self, address: int, label: str) -> None:
        buffer = ctypes.create_string_buffer(4)
        status = self.q("cuMemcpyDtoH_v2", buffer, address, 4)
        self.say(label, f"error{status}" if status else struct.unpack("<I", buffer.raw)[0])

    def params(self, *values: int) -> Any:
        cells = [ctypes.c_uint64(v) for v in values]
        self.keep.append(cells)
        return (ctypes.c_void_p * max(1, len(cells)))(*[ctypes.addressof(c) for c in cells])

    def k(self, stream: int, a: int = 0, b: int = 0, *, g: int = 1, block: int = 1, smem: int = 0, f: int = 0, n: int = 1) -> int:
        p = self.params(a or self.A, b or self.B, n)
        return self.q("cuLaunchKernel", f or self.f, g, 1, 1, block, 1, 1, smem, stream, p, None)

    def knp(self, *, f: int = 0, a: int = 0, b: int = 0, g: int = 1, smem: int = 0, params: Any = True) -> Any:
        p = self.params(a or self.A, b or self.B, 1) if params is True else params
        self.keep.append(p)
        address = ctypes.addressof(p) if p is not None else 0
        return ctypes.create_string_buffer(
            struct.pack("<Q7I4xQQQQ", f or self.f, g, 1, 1, 1, 1, 1, smem, address, 0, 0, 0), 72
        )

    def msp(self, dst: int, value: int = 1, elem: int = 4, width: int = 4, height: int = 1, pitch: int = 0) -> Any:
        return ctypes.create_string_buffer(struct.pack("<QQIIQQ", dst, pitch, value, elem, width, height), 40)

    def state(self, stream: int, label: str = "state") -> None:
        box = Box()
        status = self.q("cuStreamIsCapturing", stream, box)
        self.say(label, f"error{status}" if status else box.v & 0xFFFFFFFF)

    def begin(self, stream: int = 0, mode: int = 1) -> int:
        return self.t("cuStreamBeginCapture_v2", stream or self.s, mode)

    def end(self, stream: int = 0) -> int:
        graph = Box()
        self.t("cuStreamEndCapture", stream or self.s, graph)
        return graph.v

    def graph(self, fill: Callable[[], Any]) -> int:
        self.q("cuStreamBeginCapture_v2", self.s, 1)
        fill()
        graph = Box()
        status = self.q("cuStreamEndCapture", self.s, graph)
        if status:
            self.say("cuStreamEndCapture!", status)
        return graph.v

    def chain(self, n: int = 1) -> int:
        return self.graph(lambda: [self.k(self.s) for _ in range(n)])

    def nodes(self, g: int) -> list[int]:
        n = Box(16)
        a = array(*[0] * 16)
        self.q("cuGraphGetNodes", g, a, n)
        return list(a[: n.v])

    def shape(self, g: int) -> None:
        edges = Box()
        status = self.q("cuGraphGetEdges", g, None, None, edges)
        types = []
        for node in self.nodes(g):
            box = Box()
            self.q("cuGraphNodeGetType", node, box)
            types.append(str(box.v & 0xFFFFFFFF))
        self.say("types", ",".join(types) or "none")
        self.say("edges", status or edges.v)

    def inst(self, g: int) -> int:
        return self.new("cuGraphInstantiateWithFlags", g, 0)

    def update(self, x: int, g: int) -> None:
        info = ctypes.create_string_buffer(24)
        self.t("cuGraphExecUpdate_v2", x, g, info)
        result, node, from_ = struct.unpack("<i4xQQ", info.raw)
        mine = self.nodes(g)
        self.say("result", f"{result}/{mine.index(node) if node in mine else bool(node)}/{bool(from_)}")

    def event(self, flags: int = 2) -> int:
        return self.new("cuEventCreate", flags)

    def run(self, x: int, stream: int = 0) -> None:
        self.t("cuGraphLaunch", x, stream or self.s)
        self.t("cuStreamSynchronize", stream or self.s)

    def thread(self, fn: Callable[[], Any]) -> None:
        def body() -> None:
            self.q("cuCtxSetCurrent", self.ctx)
            fn()

        t = threading.Thread(target=body)
        t.start()
        t.join()

    def prop(self) -> Any:
        return ctypes.create_string_buffer(struct.pack("<iiiiQQ", 1, 0, 1, 0, 0, 0), 32)

    def access(self, va: int, n: int, flags: int = 3) -> int:
        return self.t("cuMemSetAccess", va, n, ctypes.create_string_buffer(struct.pack("<iii", 1, 0, flags), 12), 1)

    def reserve(self, n: int = 16 * MIB) -> int:
        return self.new("cuMemAddressReserve", n, 0, 0, 0)

    def physical(self, n: int = 2 * MIB) -> int:
        return self.new("cuMemCreate", n, self.prop(), 0)


PROBES: dict[str, Callable[[World], None]] = {}


def probe(fn: Callable[[World], None]) -> Callable[[World], None]:
    PROBES[fn.__name__] = fn
    return fn


# ---- What a capture refuses: every call in each mode, on the capturing thread and beside it -------------------------


def during(name: str, call: Callable[[World], int], before: Callable[[World], None] | None = None) -> None:
    def run(w: World) -> None:
        for mode, other in ((0, False), (1, False), (2, False), (0, True)):
            w.s, w.s2, w.bs = w.new("cuStreamCreate", 1), w.new("cuStreamCreate", 1), w.new("cuStreamCreate", 0)
            w.e, w.g = w.event(0), w.chain()
            w.q("cuEventRecord", w.e, w.s2)
            w.x = w.inst(w.g)
            w.m = w.new("cuMemAlloc_v2", 256)
            w.q("cuCtxSynchronize")
            w.q("cuStreamBeginCapture_v2", w.s, mode)
            w.k(w.s)
            status: list[int] = []
            go: Callable[[], None] = lambda: status.append(call(w))  # noqa: E731
            w.thread(go) if other else go()
            w.state(w.s, f"mode{mode}{'other' if other else ''}:{status[0]} state")
            box = Box()
            w.say("end", w.q("cuStreamEndCapture", w.s, box))

    PROBES["during_" + name] = run


u = ctypes.create_string_buffer(64)
during("nothing", lambda w: 0)
during("alloc", lambda w: w.q("cuMemAlloc_v2", Box(), 256))
during("free", lambda w: w.q("cuMemFree_v2", w.m))
during("free_null", lambda w: w.q("cuMemFree_v2", 0))
during("free_bad", lambda w: w.q("cuMemFree_v2", 12345))
during("alloc_zero", lambda w: w.q("cuMemAlloc_v2", Box(), 0))
during("hostalloc", lambda w: w.q("cuMemHostAlloc", Box(), 64, 0))
during("freehost_bad", lambda w: w.q("cuMemFreeHost", u))
during("h2d", lambda w: w.q("cuMemcpyHtoD_v2", w.A, u, 4))
during("d2h", lambda w: w.q("cuMemcpyDtoH_v2", u, w.A, 4))
during("d2d", lambda w: w.q("cuMemcpyDtoD_v2", w.B, w.A, 4))
during("memset", lambda w: w.q("cuMemsetD8_v2", w.B, 0, 4))
during("memset_s2", lambda w: w.q("cuMemsetD8Async", w.B, 0, 4, w.s2))
during("memset_bad", lambda w: w.q("cuMemsetD8Async", 16, 0, 4, w.s))
during("memset_bad_s2", lambda w: w.q("cuMemsetD8Async", 16, 0, 4, w.s2))
during("copy_bad", lambda w: w.q("cuMemcpyDtoDAsync_v2", 16, w.A, 4, w.s))
during("copy_d2h", lambda w: w.q("cuMemcpyDtoHAsync_v2", u, w.A, 4, w.s))
during("copy_zero", lambda w: w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 0, w.s))
during("launch_s2", lambda w: w.k(w.s2))
during("launch_bs", lambda w: w.k(w.bs))
during("launch_legacy", lambda w: w.k(0))
during("launch_perthread", lambda w: w.k(2))
during("launch_bad", lambda w: w.k(w.s, smem=1 << 20))
during("launch_bad_s2", lambda w: w.k(w.s2, smem=1 << 20))
during("launch_noparams", lambda w: w.q("cuLaunchKernel", w.f, 1, 1, 1, 1, 1, 1, 0, w.s, None, None))
during("launch_nofunc", lambda w: w.q("cuLaunchKernel", None, 1, 1, 1, 1, 1, 1, 0, w.s, None, None))
during("hostfunc_null", lambda w: w.q("cuLaunchHostFunc", w.s, None, None))
during("sync_s2", lambda w: w.q("cuStreamSynchronize", w.s2))
during("sync_bs", lambda w: w.q("cuStreamSynchronize", w.bs))
during("sync_legacy", lambda w: w.q("cuStreamSynchronize", 0))
during("query_s2", lambda w: w.q("cuStreamQuery", w.s2))
during("query_legacy", lambda w: w.q("cuStreamQuery", 0))
during("ctxsync", lambda w: w.q("cuCtxSynchronize"))
during("event_query", lambda w: w.q("cuEventQuery", w.e))
during("event_sync", lambda w: w.q("cuEventSynchronize", w.e))
during("event_elapsed", lambda w: w.q("cuEventElapsedTime", u, w.e, w.e))
during("event_record_s2", lambda w: w.q("cuEventRecord", w.e, w.s2))
during("event_record_legacy", lambda w: w.q("cuEventRecord", w.e, 0))
during("event_null", lambda w: w.q("cuEventRecord", None, w.s))
during("event_destroy", lambda w: w.q("cuEventDestroy_v2", w.e))
during("wait_fresh", lambda w: w.q("cuStreamWaitEvent", w.s, w.event(), 0))
during("wait_external", lambda w: w.q("cuStreamWaitEvent", w.s, w.e, 1))
during("wait_s2", lambda w: w.q("cuStreamWaitEvent", w.s2, w.e, 0))
during("wait_badflags", lambda w: w.q("cuStreamWaitEvent", w.s, w.e, 8))
during("record_external", lambda w: w.q("cuEventRecordWithFlags", w.e, w.s, 1))
during("stream_create", lambda w: w.q("cuStreamCreate", Box(), 0))
during("stream_destroy", lambda w: w.q("cuStreamDestroy_v2", w.s2))
during("stream_flags", lambda w: w.q("cuStreamGetFlags", w.s, u))
during("graph_create", lambda w: w.q("cuGraphCreate", Box(), 0))
during("graph_destroy", lambda w: w.q("cuGraphDestroy", w.g))
during("graph_clone", lambda w: w.q("cuGraphClone", Box(), w.g))
during("graph_nodes", lambda w: len(w.nodes(w.g)))
during("graph_addnode", lambda w: w.q("cuGraphAddKernelNode_v2", Box(), w.g, None, 0, w.knp()))
during("graph_setparams", lambda w: w.q("cuGraphKernelNodeSetParams_v2", w.nodes(w.g)[0], w.knp()))
during("inst", lambda w: w.q("cuGraphInstantiateWithFlags", Box(), w.g, 0))
during("inst_null", lambda w: w.q("cuGraphInstantiateWithFlags", Box(), None, 0))
during("exec_launch_s", lambda w: w.q("cuGraphLaunch", w.x, w.s))
during("exec_launch_s2", lambda w: w.q("cuGraphLaunch", w.x, w.s2))
during("exec_upload_s2", lambda w: w.q("cuGraphUpload", w.x, w.s2))
during("exec_update", lambda w: w.q("cuGraphExecUpdate_v2", w.x, w.g, u))
during("exec_setparams", lambda w: w.q("cuGraphExecKernelNodeSetParams_v2", w.x, w.nodes(w.g)[0], w.knp()))
during("exec_enable", lambda w: w.q("cuGraphNodeSetEnabled", w.x, w.nodes(w.g)[0], 1))
during("exec_destroy", lambda w: w.q("cuGraphExecDestroy", w.x))
during("module_load", lambda w: w.q("cuModuleLoadData", Box(), PTX))
during("module_unload", lambda w: w.q("cuModuleUnload", w.new("cuModuleLoadData", PTX)))
during("module_getfunction", lambda w: w.q("cuModuleGetFunction", Box(), w.mod.v, b"j"))
during("func_setattr", lambda w: w.q("cuFuncSetAttribute", w.f, 8, 1024))
during("meminfo", lambda w: w.q("cuMemGetInfo_v2", u, Box()))
during("pointer", lambda w: w.q("cuPointerGetAttribute", u, 2, w.A))
during("reserve", lambda w: w.q("cuMemAddressReserve", Box(), 2 * MIB, 0, 0, 0))
during("setcurrent", lambda w: w.q("cuCtxSetCurrent", w.ctx))
during("retain", lambda w: w.q("cuDevicePrimaryCtxRetain", Box(), 0))
during("allocasync_s", lambda w: w.q("cuMemAllocAsync", Box(), 256, w.s))
during("allocasync_s2", lambda w: w.q("cuMemAllocAsync", Box(), 256, w.s2))
during("freeasync_s", lambda w: w.q("cuMemFreeAsync", w.m, w.s))
during("begin_s", lambda w: w.q("cuStreamBeginCapture_v2", w.s, 1))
during("begin_s2", lambda w: w.q("cuStreamBeginCapture_v2", w.s2, 1))
during("end_s2", lambda w: w.q("cuStreamEndCapture", w.s2, Box()))
during("end_null", lambda w: w.q("cuStreamEndCapture", w.s, None))
during("update_deps_bad", lambda w: w.q("cuStreamUpdateCaptureDependencies", w.s, array(w.nodes(w.g)[0]), 1, 0))
during("update_deps_flags", lambda w: w.q("cuStreamUpdateCaptureDependencies", w.s, None, 0, 7))
during("library_load", lambda w: w.q("cuLibraryLoadData", Box(), PTX, None, None, 0, None, None, 0))


# ---- Capture: streams, events, forks and joins ----------------------------------------------------------------------


@probe
def legacy_blocking(w: World) -> None:
    bs, bs2, e = w.new("cuStreamCreate", 0), w.new("cuStreamCreate", 0), w.event()
    calls: dict[str, Callable[[], int]] = {
        "launch": lambda: w.k(0), "launch_bs2": lambda: w.k(bs2), "launch_2": lambda: w.k(2), "record": lambda: w.q("cuEventRecord", e, 0),
        "wait": lambda: w.q("cuStreamWaitEvent", 0, e, 0), "sync": lambda: w.q("cuStreamSynchronize", 0), "query": lambda: w.q("cuStreamQuery", 0),
        "h2d": lambda: w.q("cuMemcpyHtoD_v2", w.A, u, 4), "memset": lambda: w.q("cuMemsetD8_v2", w.B, 0, 4),
        "capturing": lambda: w.q("cuStreamIsCapturing", 0, Box()), "info": lambda: w.q("cuStreamGetCaptureInfo_v2", 0, u, None, None, None, None),
        "destroy2": lambda: w.q("cuStreamDestroy_v2", w.new("cuStreamCreate", 0)), "sync_bs2": lambda: w.q("cuStreamSynchronize", bs2),
        "launch_other": lambda: [r := [0], w.thread(lambda: r.__setitem__(0, w.k(0)))] and r[0],
    }  # fmt: skip
    for mode in (1, 2):
        for name, call in calls.items():
            w.q("cuStreamBeginCapture_v2", bs, mode)
            w.say(f"{name}{mode}", call())
            w.state(bs)
            w.say("end", w.q("cuStreamEndCapture", bs, Box()))


@probe
def perthread_capture(w: World) -> None:
    w.begin(2)
    w.say("launch2", w.k(2))
    w.say("launch0", w.k(0))
    w.state(2)
    g = w.end(2)
    w.shape(g) if g else None
    w.begin(2)
    w.say("launch0", w.k(0))
    w.state(2)
    w.end(2)


@probe
def captured_event_later(w: World) -> None:
    e, t = w.event(), w.event(0)
    w.begin()
    w.t("cuEventRecord", e, w.s)
    w.t("cuEventRecord", t, w.s)
    w.end()
    w.t("cuEventQuery", e)
    w.t("cuEventSynchronize", e)
    w.t("cuStreamWaitEvent", w.s2, e, 0)
    w.t("cuEventElapsedTime", u, t, t)
    w.state(w.s2)
    w.t("cuEventRecord", e, w.s2)
    w.t("cuEventSynchronize", e)
    w.begin()
    w.t("cuStreamWaitEvent", w.s, t, 0)
    w.end()


@probe
def event_of_invalid_capture(w: World) -> None:
    e = w.event()
    w.begin()
    w.t("cuEventRecord", e, w.s)
    w.t("cuStreamQuery", w.s)
    w.t("cuEventQuery", e)
    w.t("cuStreamWaitEvent", w.s2, e, 0)
    w.state(w.s2)
    w.t("cuEventRecord", e, w.s)
    w.end()
    w.t("cuEventQuery", e)


@probe
def invalid_capture_info(w: World) -> None:
    w.begin()
    w.k(w.s)
    w.t("cuMemAlloc_v2", Box(), 256)
    i, n, g = Box(77), Box(77), Box(77)
    w.t("cuStreamGetCaptureInfo_v2", w.s, u, i, g, None, n)
    w.say("info", (u.raw[0], i.v, g.v, n.v))
    w.t("cuStreamUpdateCaptureDependencies", w.s, None, 0, 1)
    w.say("memset", w.q("cuMemsetD8Async", w.A, 0, 4, w.s))
    w.say("bad", w.q("cuMemsetD8Async", 16, 0, 4, w.s))
    w.say("host", w.q("cuLaunchHostFunc", w.s, nothing, None))
    w.t("cuStreamWaitEvent", w.s, w.event(), 0)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.begin()
    w.end()


@probe
def launches(w: World) -> None:
    x = w.inst(w.chain())
    for stream in (0, 1, 2, 3, w.s2):
        w.t("cuGraphLaunch", x, stream)
    w.t("cuGraphUpload", x, 0)
    w.t("cuCtxSynchronize")
    g = w.chain(2)
    a, b = w.nodes(g)
    w.t("cuGraphKernelNodeCopyAttributes", a, b)
    w.t("cuGraphKernelNodeCopyAttributes", a, w.nodes(w.graph(lambda: w.q("cuMemsetD8Async", w.A, 0, 4, w.s)))[0])
    w.t("cuGraphKernelNodeCopyAttributes", None, b)
    w.t("cuGraphDebugDotPrint", g, b"/dev/null", 0)
    w.t("cuGraphDebugDotPrint", g, b"/nowhere/x", 0)
    w.t("cuGraphDebugDotPrint", g, None, 0)


@probe
def async_alloc(w: World) -> None:
    m = w.get("cuMemAllocAsync", MIB, w.s)
    w.say("launch", w.k(w.s, b=m))
    w.t("cuPointerGetAttribute", u, 2, m)
    w.t("cuMemFreeAsync", m, w.s)
    w.t("cuMemFreeAsync", m, w.s)
    w.t("cuMemFree_v2", m)
    w.t("cuMemcpyHtoD_v2", m, u, 4)
    m = w.get("cuMemAllocAsync", MIB, w.s)
    w.t("cuMemFree_v2", m)
    w.t("cuMemFreeAsync", m, w.s)
    m = w.new("cuMemAlloc_v2", 4096)
    w.t("cuMemFreeAsync", m, w.s)
    w.t("cuMemFree_v2", m)
    w.t("cuMemFreeAsync", w.A + 8, w.s)
    w.begin()
    m = w.get("cuMemAllocAsync", 0, w.s)
    m = w.get("cuMemAllocAsync", 100, w.s)
    w.t("cuMemFree_v2", m)
    w.end()
    w.t("cuMemFree_v2", m)
    w.t("cuStreamSynchronize", w.s)


@probe
def merge(w: World) -> None:
    e = w.event()
    w.begin()
    w.begin(w.s2)
    w.k(w.s)
    w.t("cuEventRecord", e, w.s)
    w.t("cuStreamWaitEvent", w.s2, e, 0)
    w.state(w.s)
    w.state(w.s2)
    w.end(w.s2)
    w.end()


@probe
def fork_alone(w: World) -> None:
    e = w.event()
    w.begin()
    w.t("cuEventRecord", e, w.s)
    w.t("cuStreamWaitEvent", w.s2, e, 0)
    w.end()
    w.state(w.s2)


@probe
def fork_alone_after_work(w: World) -> None:
    e = w.event()
    w.begin()
    w.k(w.s)
    w.t("cuEventRecord", e, w.s)
    w.t("cuStreamWaitEvent", w.s2, e, 0)
    w.k(w.s)
    w.end()
    w.state(w.s2)


@probe
def join_then_more(w: World) -> None:
    e, e2 = w.event(), w.event()
    w.begin()
    w.q("cuEventRecord", e, w.s)
    w.q("cuStreamWaitEvent", w.s2, e, 0)
    w.k(w.s2)
    w.q("cuEventRecord", e2, w.s2)
    w.t("cuStreamWaitEvent", w.s, e2, 0)
    w.k(w.s2)
    w.end()


@probe
def join_transitive(w: World) -> None:
    s3, e = w.new("cuStreamCreate", 1), w.event()
    w.begin()
    w.k(w.s)
    w.q("cuEventRecord", e, w.s)
    w.q("cuStreamWaitEvent", w.s2, e, 0)
    w.k(w.s2)
    w.q("cuEventRecord", e, w.s2)
    w.q("cuStreamWaitEvent", s3, e, 0)
    w.k(s3)
    w.q("cuEventRecord", e, s3)
    w.q("cuStreamWaitEvent", w.s, e, 0)
    g = w.end()
    w.shape(g)
    w.state(w.s2)


@probe
def wait_ancestor(w: World) -> None:
    e = w.event()
    w.begin()
    w.k(w.s)
    w.q("cuEventRecord", e, w.s)
    w.k(w.s)
    w.t("cuStreamWaitEvent", w.s, e, 0)
    n = Box()
    w.t("cuStreamGetCaptureInfo_v2", w.s, u, None, None, None, n)
    w.say("deps", n.v)
    w.k(w.s)
    w.shape(w.end())


@probe
def wait_same_twice(w: World) -> None:
    e = w.event()
    w.begin()
    w.k(w.s)
    w.q("cuEventRecord", e, w.s)
    w.t("cuStreamWaitEvent", w.s, e, 0)
    w.q("cuStreamWaitEvent", w.s2, e, 0)
    w.q("cuStreamWaitEvent", w.s2, e, 0)
    w.k(w.s2)
    w.q("cuEventRecord", e, w.s2)
    w.q("cuStreamWaitEvent", w.s, e, 0)
    n = Box()
    w.t("cuStreamGetCaptureInfo_v2", w.s, u, None, None, None, n)
    w.say("deps", n.v)
    w.k(w.s)
    w.shape(w.end())


@probe
def forked_stream_calls(w: World) -> None:
    e = w.event()
    w.begin()
    w.k(w.s)
    w.q("cuEventRecord", e, w.s)
    w.q("cuStreamWaitEvent", w.s2, e, 0)
    w.begin(w.s2)
    i, j, g1, g2 = Box(), Box(), Box(), Box()
    w.q("cuStreamGetCaptureInfo_v2", w.s, u, i, g1, None, None)
    w.q("cuStreamGetCaptureInfo_v2", w.s2, u, j, g2, None, None)
    w.say("same", (i.v == j.v, g1.v == g2.v))
    w.t("cuStreamDestroy_v2", w.s2)
    w.state(w.s)
    w.end()


@probe
def forked_idle_destroyed(w: World) -> None:
    e = w.event()
    w.begin()
    w.k(w.s)
    w.q("cuEventRecord", e, w.s)
    w.q("cuStreamWaitEvent", w.s2, e, 0)
    w.k(w.s2)
    w.t("cuStreamSynchronize", w.s2)
    w.state(w.s)
    w.state(w.s2)
    w.say("launch", w.k(w.s2))
    w.end(w.s2)
    w.state(w.s2)
    w.end()
    w.state(w.s2)


@probe
def origin_destroyed(w: World) -> None:
    e = w.event()
    w.begin()
    w.q("cuEventRecord", e, w.s)
    w.q("cuStreamWaitEvent", w.s2, e, 0)
    w.t("cuStreamDestroy_v2", w.s)
    w.state(w.s2)
    w.say("launch", w.k(w.s2))
    w.t("cuEventQuery", e)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.end(w.s2)


@probe
def destroyed_capture_forgotten(w: World) -> None:
    w.begin()
    w.t("cuStreamDestroy_v2", w.s)
    w.t("cuMemAlloc_v2", Box(), 256)


@probe
def destroyed_capture_global(w: World) -> None:
    w.begin(0, 0)
    w.t("cuStreamDestroy_v2", w.s)
    w.t("cuMemAlloc_v2", Box(), 256)


@probe
def wrong_thread(w: World) -> None:
    w.begin(0, 0)
    w.thread(lambda: w.end())
    w.state(w.s)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.end()


@probe
def two_captures_unsafe(w: World) -> None:
    w.begin(w.s, 1)
    w.begin(w.s2, 1)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.state(w.s)
    w.state(w.s2)
    w.end(w.s)
    w.end(w.s2)
    w.begin(w.s, 2)
    w.begin(w.s2, 1)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.state(w.s)
    w.state(w.s2)
    w.end(w.s)
    w.end(w.s2)
    w.begin(w.s, 0)
    w.begin(w.s2, 2)
    w.thread(lambda: w.t("cuMemAlloc_v2", Box(), 256))
    w.state(w.s)
    w.state(w.s2)
    w.end(w.s)
    w.end(w.s2)


@probe
def sync_of_two_captures(w: World) -> None:
    w.begin(w.s, 1)
    w.begin(w.s2, 1)
    w.t("cuStreamSynchronize", w.s)
    w.state(w.s)
    w.state(w.s2)
    w.end(w.s)
    w.end(w.s2)
    w.begin(w.s, 2)
    w.t("cuStreamSynchronize", w.s2)
    w.t("cuStreamSynchronize", w.s)
    w.end()
    w.begin(w.s, 2)
    w.t("cuCtxSynchronize")
    w.end()


@probe
def exchange_rules(w: World) -> None:
    mode = Box(7)
    w.t("cuThreadExchangeStreamCaptureMode", mode)
    mode = Box(1)
    w.t("cuThreadExchangeStreamCaptureMode", mode)
    w.say("previous", mode.v)
    w.begin(0, 0)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.end()
    w.begin(0, 0)
    w.thread(lambda: (w.q("cuThreadExchangeStreamCaptureMode", Box(1)), w.t("cuMemAlloc_v2", Box(), 256)))
    w.end()
    w.begin(0, 0)
    w.thread(lambda: (w.q("cuThreadExchangeStreamCaptureMode", Box(2)), w.t("cuMemAlloc_v2", Box(), 256)))
    w.end()
    w.q("cuThreadExchangeStreamCaptureMode", Box(2))
    w.begin(0, 0)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.t("cuStreamSynchronize", w.s)
    w.end()
    w.begin(0, 0)
    w.t("cuCtxSynchronize")
    w.end()
    w.q("cuThreadExchangeStreamCaptureMode", Box(0))
    w.t("cuThreadExchangeStreamCaptureMode", None)


@probe
def capture_while_busy(w: World) -> None:
    w.k(w.s, n=3000000)
    w.t("cuStreamQuery", w.s)
    w.begin()
    w.k(w.s)
    g = w.end()
    w.t("cuStreamQuery", w.s)
    w.t("cuStreamSynchronize", w.s)
    w.shape(g)


@probe
def update_dependencies(w: World) -> None:
    w.begin()
    w.k(w.s)
    g = Box()
    w.q("cuStreamGetCaptureInfo_v2", w.s, u, None, g, None, None)
    first = w.nodes(g.v)[0]
    w.k(w.s)
    w.t("cuStreamUpdateCaptureDependencies", w.s, array(first), 1, 0)
    n = Box()
    w.q("cuStreamGetCaptureInfo_v2", w.s, u, None, None, None, n)
    w.say("deps", n.v)
    w.t("cuStreamUpdateCaptureDependencies", w.s, array(first), 1, 1)
    w.q("cuStreamGetCaptureInfo_v2", w.s, u, None, None, None, n)
    w.say("deps", n.v)
    w.k(w.s)
    made = w.get("cuGraphAddEmptyNode", g.v, array(first), 1)
    w.t("cuStreamUpdateCaptureDependencies", w.s, array(made), 1, 0)
    w.k(w.s)
    w.shape(w.end())
    w.t("cuStreamUpdateCaptureDependencies", w.s, None, 0, 1)


@probe
def graph_touched_in_capture(w: World) -> None:
    w.begin()
    w.k(w.s)
    g = Box()
    w.q("cuStreamGetCaptureInfo_v2", w.s, u, None, g, None, None)
    w.t("cuGraphDestroy", g.v)
    w.state(w.s)
    w.t("cuGraphDestroyNode", w.nodes(g.v)[0])
    w.state(w.s)
    w.end()


@probe
def external_events(w: World) -> None:
    e, e2 = w.event(), w.event()
    w.begin()
    w.t("cuEventRecordWithFlags", e, w.s, 1)
    w.t("cuEventQuery", e)
    w.t("cuStreamWaitEvent", w.s, e2, 1)
    w.shape(w.end())
    w.t("cuEventRecordWithFlags", e, w.s, 1)
    w.t("cuStreamWaitEvent", w.s2, e, 1)


# ---- Graphs ---------------------------------------------------------------------------------------------------------


@probe
def graph_add(w: World) -> None:
    g, h = w.new("cuGraphCreate", 0), w.new("cuGraphCreate", 0)
    w.get("cuGraphCreate", 1)
    a = w.get("cuGraphAddKernelNode_v2", g, None, 0, w.knp())
    b = w.get("cuGraphAddKernelNode_v2", h, array(a), 1, w.knp())
    w.get("cuGraphAddKernelNode_v2", g, array(a, a), 2, w.knp())
    w.get("cuGraphAddKernelNode_v2", g, None, 1, w.knp())
    w.get("cuGraphAddKernelNode_v2", g, array(0), 1, w.knp())
    w.get("cuGraphAddKernelNode_v2", g, None, 0, w.knp(g=0))
    w.get("cuGraphAddKernelNode_v2", g, None, 0, w.knp(smem=1 << 20))
    w.get("cuGraphAddKernelNode_v2", g, None, 0, w.knp(smem=60000))
    w.get("cuGraphAddKernelNode_v2", None, None, 0, w.knp())
    w.shape(g)
    w.shape(h)
    w.t("cuGraphAddDependencies", g, array(a), array(a), 1)
    w.t("cuGraphAddDependencies", g, None, None, 0)
    w.t("cuGraphAddDependencies", g, array(a), array(b or 7), 1)
    w.t("cuGraphDestroyNode", a)
    w.t("cuGraphDestroyNode", a)
    w.shape(g)
    w.t("cuGraphAddKernelNode_v2", Box(), g, None, 0, ctypes.create_string_buffer(72))
    w.t("cuGraphAddKernelNode_v2", None, g, None, 0, w.knp())
    w.t("cuGraphAddKernelNode_v2", Box(), g, None, 0, None)


@probe
def graph_dependencies(w: World) -> None:
    g = w.new("cuGraphCreate", 0)
    a, b, c = (w.new("cuGraphAddEmptyNode", g, None, 0) for _ in range(3))
    w.t("cuGraphAddDependencies", g, array(a, b, a), array(b, c, b), 3)
    w.shape(g)
    w.t("cuGraphAddDependencies", g, array(a, b), array(b, c), 2)
    w.shape(g)
    w.t("cuGraphRemoveDependencies", g, array(a, a), array(b, c), 2)
    w.shape(g)
    w.t("cuGraphRemoveDependencies", g, array(a), array(b), 1)
    w.shape(g)
    n = Box()
    w.t("cuGraphGetRootNodes", g, None, n)
    w.say("roots", n.v)
    w.t("cuGraphNodeGetDependencies", c, None, n)
    w.say("dependencies", n.v)
    w.t("cuGraphNodeGetDependentNodes", b, None, n)
    w.say("dependents", n.v)
    n, some = Box(2), array(9, 9, 9)
    w.t("cuGraphGetNodes", g, some, n)
    w.say("got", (n.v, some[0] == a, some[1] == b, some[2]))
    n, many = Box(5), array(9, 9, 9, 9, 9)
    w.t("cuGraphGetNodes", g, many, n)
    w.say("got", (n.v, many[2] == c, many[3], many[4]))
    w.t("cuGraphGetNodes", g, None, None)
    w.t("cuGraphGetNodes", None, None, n)
    n, one, two = Box(4), array(9, 9, 9, 9), array(9, 9, 9, 9)
    w.t("cuGraphGetEdges", g, one, two, n)
    w.say("edge", (n.v, one[0] == b, two[0] == c, one[1]))
    w.t("cuGraphGetEdges", g, one, None, n)
    w.t("cuGraphNodeGetType", None, u)
    w.t("cuGraphNodeGetType", a, None)


@probe
def graph_memset(w: World) -> None:
    g = w.new("cuGraphCreate", 0)
    for args in (
        {}, {"width": 0}, {"elem": 3}, {"elem": 2}, {"elem": 1, "value": 300}, {"elem": 2, "value": 70000}, {"height": 2}, {"height": 2, "pitch": 16},
        {"height": 2, "pitch": 8}, {"height": 0}, {"width": 5000}, {"dst": 16}, {"dst": w.A + 2}, {"dst": 0}, {"pitch": 3},
    ):  # fmt: skip
        w.get("cuGraphAddMemsetNode", g, None, 0, w.msp(**{"dst": w.A, **args}), w.ctx)
    w.get("cuGraphAddMemsetNode", g, None, 0, w.msp(w.A), None)
    p = ctypes.create_string_buffer(40)
    w.graph_ = w.graph(lambda: w.q("cuMemsetD16Async", w.A, 0x1234, 8, w.s))
    w.t("cuGraphMemsetNodeGetParams", w.nodes(w.graph_)[0], p)
    w.say("got", struct.unpack("<QQIIQQ", p.raw)[1:])
    w.graph_ = w.graph(lambda: w.q("cuMemsetD2D8Async", w.A, 64, 7, 8, 3, w.s))
    w.t("cuGraphMemsetNodeGetParams", w.nodes(w.graph_)[0], p)
    w.say("got", struct.unpack("<QQIIQQ", p.raw)[1:])
    k = w.chain()
    w.t("cuGraphMemsetNodeGetParams", w.nodes(k)[0], p)
    w.t("cuGraphKernelNodeGetParams_v2", w.nodes(w.graph_)[0], ctypes.create_string_buffer(72))
    w.t("cuGraphMemsetNodeSetParams", w.nodes(w.graph_)[0], w.msp(w.A, width=5000))
    w.t("cuGraphMemsetNodeSetParams", w.nodes(w.graph_)[0], w.msp(w.A, width=8))


@probe
def exec_memset(w: World) -> None:
    one = w.graph(lambda: w.q("cuMemsetD32Async", w.A, 9, 4, w.s))
    n = w.nodes(one)[0]
    x = w.inst(one)
    for args in (
        {}, {"width": 64}, {"width": 0}, {"elem": 3}, {"elem": 2}, {"height": 2, "pitch": 64}, {"dst": 16}, {"width": 5000}, {"elem": 1}, {"pitch": 64},
    ):  # fmt: skip
        w.say(str(args), w.q("cuGraphExecMemsetNodeSetParams", x, n, w.msp(**{"dst": w.A, **args}), w.ctx))
    w.t("cuGraphExecMemsetNodeSetParams", x, n, w.msp(w.A), None)
    w.run(x)
    flat = w.new("cuGraphCreate", 0)
    n = w.new("cuGraphAddMemsetNode", flat, None, 0, w.msp(w.A, height=2, pitch=64), w.ctx)
    x = w.inst(flat)
    for args in ({}, {"width": 8}, {"height": 3}, {"pitch": 128}, {"elem": 1}, {"height": 1}, {"value": 3}):
        full = {"dst": w.A, "height": 2, "pitch": 64, **args}
        w.say(str(args), w.q("cuGraphExecMemsetNodeSetParams", x, n, w.msp(**full), w.ctx))


@probe
def instantiate_flags(w: World) -> None:
    g = w.chain()
    for flags in (0, 1, 3, 5, 8, 9, 12, 13, 32, 1 << 40):
        w.say(f"flags{flags}", w.q("cuGraphInstantiateWithFlags", Box(), g, flags))
    w.t("cuGraphInstantiateWithFlags", None, g, 0)
    copy = w.graph(lambda: w.q("cuMemcpyHtoDAsync_v2", w.A, u, 4, w.s))
    w.t("cuGraphInstantiateWithFlags", Box(), copy, 4)
    host = w.graph(lambda: w.q("cuLaunchHostFunc", w.s, nothing, None))
    w.t("cuGraphInstantiateWithFlags", Box(), host, 4)
    empty = w.new("cuGraphCreate", 0)
    w.t("cuGraphInstantiateWithFlags", Box(), empty, 4)
    w.t("cuGraphInstantiateWithFlags", Box(), w.chain(2), 4)


@probe
def update_kinds(w: World) -> None:
    k, w0 = w.graph(lambda: w.k(w.s)), w.nodes
    x = w.inst(k)
    w.update(x, w.new("cuGraphCreate", 0))
    for fill in (
        lambda: w.k(w.s, g=4), lambda: w.k(w.s, block=64), lambda: w.k(w.s, smem=1024),
        lambda: w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 4, w.s), lambda: w.q("cuLaunchHostFunc", w.s, nothing, None),
    ):  # fmt: skip
        w.update(x, w.graph(fill))
    w.t("cuGraphExecUpdate_v2", x, k, None)
    w.t("cuGraphExecUpdate_v2", x, None, u)
    w.t("cuGraphExecUpdate_v2", None, k, u)
    c = w.graph(lambda: w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 4, w.s))
    x = w.inst(c)
    for fill in (
        lambda: w.q("cuMemcpyDtoDAsync_v2", w.B + 64, w.A, 16, w.s), lambda: w.q("cuMemcpyHtoDAsync_v2", w.B, u, 4, w.s), lambda: w.k(w.s),
        lambda: w.q("cuMemcpyDtoHAsync_v2", u, w.A, 4, w.s), lambda: w.q("cuMemcpyDtoDAsync_v2", w.A, w.B, 4, w.s),
    ):  # fmt: skip
        w.update(x, w.graph(fill))
    m = w.graph(lambda: w.q("cuMemsetD32Async", w.A, 9, 4, w.s))
    x = w.inst(m)
    for fill in (
        lambda: w.q("cuMemsetD32Async", w.B, 8, 16, w.s), lambda: w.q("cuMemsetD8Async", w.B, 8, 16, w.s),
        lambda: w.q("cuMemsetD2D8Async", w.A, 64, 7, 8, 3, w.s), lambda: w.k(w.s),
    ):  # fmt: skip
        w.update(x, w.graph(fill))
    x = w.inst(w.graph(lambda: w.q("cuLaunchHostFunc", w.s, nothing, None)))
    w.update(x, w.graph(lambda: w.q("cuLaunchHostFunc", w.s, nothing, u)))
    _ = w0


@probe
def update_shapes(w: World) -> None:
    def build(nodes: str, *edges: tuple[int, int]) -> int:
        g, made = w.new("cuGraphCreate", 0), []
        for kind in nodes:
            name, extra = {
                "k": ("cuGraphAddKernelNode_v2", [w.knp()]), "e": ("cuGraphAddEmptyNode", []), "m": ("cuGraphAddMemsetNode", [w.msp(w.A), w.ctx]),
            }[kind]  # fmt: skip
            made.append(w.new(name, g, None, 0, *extra))
        if edges:
            w.q("cuGraphAddDependencies", g, array(*[made[a] for a, _ in edges]), array(*[made[b] for _, b in edges]), len(edges))
        return g

    for first, second in (
        (build("kkk", (0, 1), (1, 2)), build("kkk", (2, 1), (1, 0))),
        (build("kkk", (0, 1), (0, 2)), build("kkk", (0, 2), (0, 1))),
        (build("kkk", (0, 1), (0, 2)), build("kkk", (1, 0), (1, 2))),
        (build("kkk"), build("kkk", (0, 1))),
        (build("kkk", (0, 1), (1, 2)), build("kkk")),
        (build("kkk", (0, 1), (1, 2)), build("kk", (0, 1))),
        (build("km"), build("mk")),
        (build("km", (0, 1)), build("mk", (0, 1))),
        (build("km", (0, 1)), build("mk", (1, 0))),
        (build("kek", (0, 1), (1, 2)), build("kkk", (0, 1), (1, 2))),
        (build("kkkk", (0, 2), (1, 3)), build("kkkk", (0, 3), (1, 2))),
        (build("kmkm", (0, 2), (1, 3)), build("mkkm", (0, 2), (1, 3))),
    ):
        w.update(w.inst(first), second)


@probe
def exec_set_kernel(w: World) -> None:
    g = w.chain(2)
    x = w.inst(g)
    n = w.nodes(g)
    clone = w.new("cuGraphClone", g)
    name = "cuGraphExecKernelNodeSetParams_v2"
    w.t(name, x, w.nodes(clone)[0], w.knp())
    late = w.new("cuGraphAddKernelNode_v2", g, None, 0, w.knp())
    w.t(name, x, late, w.knp())
    w.t(name, x, n[0], w.knp(g=0))
    w.t(name, x, None, w.knp())
    w.t(name, None, n[0], w.knp())
    w.t(name, x, n[0], w.knp(f=w.f2))
    w.t("cuGraphKernelNodeSetParams_v2", n[0], w.knp(f=w.f2, a=w.A))
    w.t("cuGraphKernelNodeSetParams_v2", n[0], w.knp(g=0))
    w.t("cuGraphDestroyNode", n[0])
    w.t(name, x, n[0], w.knp())
    w.run(x)
    w.t("cuGraphExecDestroy", x)
    w.t(name, x, n[1], w.knp())
    x2 = w.inst(clone)
    w.t(name, x2, w.nodes(clone)[0], w.knp())
    found = w.get("cuGraphNodeFindInClone", n[1], clone)
    w.say("found", found == w.nodes(clone)[1])
    w.get("cuGraphNodeFindInClone", late, clone)
    w.t(name, x2, w.nodes(clone)[0], ctypes.create_string_buffer(72))
    w.t(name, x2, w.nodes(clone)[0], w.knp(params=None))
    w.t("cuGraphKernelNodeSetParams_v2", w.nodes(clone)[0], w.knp(params=None))
    w.t(name, x2, w.nodes(clone)[0], None)


@probe
def enable_kinds(w: World) -> None:
    def fill() -> None:
        w.k(w.s)
        w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 4, w.s)
        w.q("cuMemsetD8Async", w.B + 64, 7, 4, w.s)
        w.q("cuLaunchHostFunc", w.s, nothing, None)

    g = w.graph(fill)
    empty = w.new("cuGraphAddEmptyNode", g, None, 0)
    child = w.new("cuGraphAddChildGraphNode", g, None, 0, w.chain())
    x = w.inst(g)
    on = Box(9)
    for node in [*w.nodes(g)[:4], empty, child, 0]:
        w.t("cuGraphNodeSetEnabled", x, node, 0)
        w.t("cuGraphNodeGetEnabled", x, node, on)
        w.say("on", on.v)
    w.t("cuGraphNodeSetEnabled", x, w.nodes(g)[0], 2)
    w.t("cuGraphNodeGetEnabled", x, w.nodes(g)[0], on)
    w.say("on", on.v)
    w.t("cuGraphNodeGetEnabled", x, w.nodes(g)[0], None)
    w.t("cuGraphNodeSetEnabled", x, w.nodes(w.chain())[0], 0)
    w.run(x)
    w.word(w.B, "b")
    w.word(w.B + 64, "b64")
    w.update(x, g)


@probe
def enabled_set_params(w: World) -> None:
    g = w.graph(lambda: w.q("cuMemsetD32Async", w.B, 9, 1, w.s))
    x = w.inst(g)
    n = w.nodes(g)[0]
    w.t("cuGraphNodeSetEnabled", x, n, 0)
    w.t("cuGraphExecMemsetNodeSetParams", x, n, w.msp(w.B + 64, 4, 4, 1), w.ctx)
    w.run(x)
    w.word(w.B + 64, "b64")
    w.t("cuGraphNodeSetEnabled", x, n, 1)
    w.run(x)
    w.word(w.B + 64, "b64")
    w.word(w.B, "b")


@probe
def children(w: World) -> None:
    inner, g = w.chain(2), w.new("cuGraphCreate", 0)
    c = w.get("cuGraphAddChildGraphNode", g, None, 0, inner)
    copy = Box()
    w.t("cuGraphChildGraphNodeGetGraph", c, copy)
    got = copy.v
    w.say("copy", got != inner)
    w.shape(got)
    w.t("cuGraphKernelNodeSetParams_v2", w.nodes(got)[1], w.knp(b=w.B + 64))
    w.t("cuGraphKernelNodeSetParams_v2", w.nodes(inner)[0], w.knp(b=w.B + 128))
    w.t("cuGraphDestroy", got)
    x = w.inst(g)
    w.run(x)
    for off in (0, 64, 128):
        w.word(w.B + off, f"b{off}")
    w.t("cuGraphExecKernelNodeSetParams_v2", x, w.nodes(got)[0], w.knp(b=w.B + 192))
    w.run(x)
    w.word(w.B + 192, "b192")
    w.t("cuGraphNodeSetEnabled", x, w.nodes(got)[0], 0)
    other = w.chain(2)
    w.t("cuGraphExecChildGraphNodeSetParams", x, c, other)
    w.t("cuGraphExecChildGraphNodeSetParams", x, c, w.chain(3))
    w.get("cuGraphAddChildGraphNode", g, None, 0, g)
    w.get("cuGraphAddChildGraphNode", g, None, 0, None)
    h = w.new("cuGraphCreate", 0)
    w.new("cuGraphAddChildGraphNode", h, None, 0, w.chain(3))
    w.update(x, h)
    w.t("cuGraphNodeGetType", c, u)
    w.t("cuGraphDestroyNode", c)
    w.t("cuGraphGetNodes", got, None, Box())


@probe
def alloc_graphs(w: World) -> None:
    def fill() -> None:
        m = w.new("cuMemAllocAsync", MIB, w.s)
        w.k(w.s, b=m)
        w.q("cuMemFreeAsync", m, w.s)

    g = w.graph(fill)
    w.shape(g)
    w.get("cuGraphClone", g)
    w.get("cuGraphAddChildGraphNode", w.new("cuGraphCreate", 0), None, 0, g)
    x = w.inst(g)
    w.run(x)
    w.run(x)
    w.update(x, g)
    w.update(x, w.graph(fill))
    w.t("cuGraphDestroyNode", w.nodes(g)[0])
    w.t("cuGraphExecDestroy", x)
    x = w.get("cuGraphInstantiateWithFlags", g, 0)
    w.run(x)
    leak = w.graph(lambda: w.new("cuMemAllocAsync", MIB, w.s))
    x = w.inst(leak)
    w.run(x)
    w.t("cuGraphLaunch", x, w.s)
    x = w.get("cuGraphInstantiateWithFlags", leak, 1)
    leak2 = w.graph(lambda: w.new("cuMemAllocAsync", MIB, w.s))
    x = w.get("cuGraphInstantiateWithFlags", leak2, 1)
    w.run(x)
    w.run(x)
    m = w.new("cuMemAllocAsync", MIB, w.s)
    free = w.graph(lambda: w.t("cuMemFreeAsync", m, w.s))
    w.shape(free)


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
        ("cuStreamDestroy_v2", [None]), ("cuEventDestroy_v2", [None]), ("cuEventRecord", [None, w.s]), ("cuEventQuery", [None]),
        ("cuEventSynchronize", [None]), ("cuStreamWaitEvent", [w.s, None, 0]), ("cuModuleUnload", [None]), ("cuModuleLoadData", [Box(), None]),
        ("cuModuleLoadData", [None, PTX]), ("cuModuleGetFunction", [Box(), None, b"k"]), ("cuModuleGetFunction", [Box(), w.mod.v, None]),
        ("cuMemAlloc_v2", [None, 256]), ("cuMemcpyHtoD_v2", [w.A, None, 4]), ("cuMemcpyHtoD_v2", [0, u, 4]), ("cuMemcpyHtoD_v2", [w.A, u, 0]),
        ("cuMemcpyDtoD_v2", [0, 0, 0]), ("cuStreamCreate", [None, 0]), ("cuStreamCreate", [Box(), 2]), ("cuStreamCreate", [Box(), 8]),
        ("cuEventCreate", [None, 0]), ("cuEventCreate", [Box(), 64]), ("cuEventCreate", [Box(), 4]), ("cuEventCreate", [Box(), 3]),
        ("cuGraphCreate", [None, 0]), ("cuGraphClone", [Box(), None]), ("cuStreamIsCapturing", [w.s, None]), ("cuStreamIsCapturing", [0, u]),
        ("cuMemGetInfo_v2", [None, None]), ("cuCtxGetCurrent", [None]), ("cuCtxSetCurrent", [12345 * 0]), ("cuFuncGetAttribute", [u, 0, w.f]),
        ("cuCtxSetCurrent", [w.ctx]), ("cuFuncGetAttribute", [u, 99, w.f]), ("cuFuncSetAttribute", [w.f, 0, 1]), ("cuFuncSetAttribute", [None, 8, 1]),
        ("cuFuncSetAttribute", [w.f, 8, -1]), ("cuDeviceGet", [u, -1]), ("cuLaunchHostFunc", [w.s, None, None]), ("cuMemsetD32Async", [w.A + 1, 0, 1, w.s]),
        ("cuMemsetD32Async", [w.A, 0, 1 << 20, w.s]), ("cuMemsetD8Async", [w.A, 0, 0, w.s]), ("cuStreamGetCaptureInfo_v2", [w.s, None, None, None, None, None]),
        ("cuStreamGetCaptureInfo_v2", [0, u, None, None, None, None]), ("cuGetErrorName", [12345, Box()]), ("cuGetErrorString", [901, Box()]),
        ("cuGraphDebugDotPrint", [None, b"/dev/null", 0]), ("cuMemFreeHost", [None]), ("cuMemHostAlloc", [Box(), 0, 0]), ("cuPointerGetAttribute", [u, 99, w.A]),
        ("cuPointerGetAttribute", [None, 2, w.A]), ("cuPointerGetAttribute", [u, 1, w.A]), ("cuPointerGetAttribute", [u, 2, 0]),
        ("cuMemcpyDtoHAsync_v2", [None, w.A, 4, w.s]), ("cuMemcpyHtoDAsync_v2", [w.A + 4000, u, 200, w.s]), ("cuMemcpyHtoD_v2", [w.A + 3 * MIB * 4, u, 4]),
        ("cuMemAllocAsync", [Box(), 0, w.s]), ("cuMemFreeAsync", [0, w.s]), ("cuMemFreeAsync", [12345, w.s]), ("cuDeviceGetCount", [None]),
        ("cuDriverGetVersion", [None]), ("cuDevicePrimaryCtxRetain", [None, 0]), ("cuDevicePrimaryCtxRetain", [Box(), 7]), ("cuFuncGetName", [None, w.f]),
    ):  # fmt: skip
        w.t(name, *args)


@probe
def copies(w: World) -> None:
    for name, args in (
        ("cuMemcpyHtoD_v2", [w.A + 4092, u, 4]), ("cuMemcpyHtoD_v2", [w.A + 4092, u, 8]), ("cuMemcpyDtoD_v2", [w.A, w.B, 8192]),
        ("cuMemcpyDtoD_v2", [w.A, 99, 4]), ("cuMemcpyDtoH_v2", [u, 99, 4]), ("cuMemcpyDtoDAsync_v2", [w.A, 99, 4, w.s]), ("cuMemsetD8_v2", [w.A, 1, 8192]),
        ("cuMemcpyDtoD_v2", [w.A, w.A + 2, 4]), ("cuMemFree_v2", [w.A + 8]), ("cuMemcpyHtoD_v2", [ctypes.addressof(u), u, 4]),
        ("cuMemcpyDtoD_v2", [w.A, ctypes.addressof(u), 4]), ("cuMemcpy", [w.A, ctypes.addressof(u), 4]), ("cuMemcpyAsync", [w.A, ctypes.addressof(u), 4, w.s]),
    ):  # fmt: skip
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
        lambda: w.q("cuMemcpyHtoDAsync_v2", w.A, u, 4, w.s), lambda: w.q("cuMemcpyDtoHAsync_v2", u, w.A, 4, w.s),
        lambda: w.q("cuMemcpyAsync", w.B, w.A, 4, w.s),
    ):  # fmt: skip
        p = ctypes.create_string_buffer(208)
        w.t("cuGraphMemcpyNodeGetParams", w.nodes(w.graph(fill))[0], p)
        v = struct.unpack("<25Q", p.raw[:200])
        w.say("words", [i for i, x in enumerate(v) if x] and {i: (x if x < 99 else "p") for i, x in enumerate(v) if x})


# ---- Contexts, virtual memory, events, faults -----------------------------------------------------------------------


@probe
def contexts(w: World) -> None:
    w.t("cuCtxSetCurrent", None)
    w.say("launch", w.k(w.s))
    w.t("cuStreamSynchronize", w.s)
    w.t("cuEventCreate", Box(), 0)
    w.t("cuGraphCreate", Box(), 0)
    w.t("cuMemGetInfo_v2", u, Box())
    w.t("cuMemcpyHtoD_v2", w.A, u, 4)
    w.t("cuModuleGetFunction", Box(), w.mod.v, b"k")
    w.t("cuCtxPopCurrent_v2", Box())
    w.t("cuStreamBeginCapture_v2", w.s, 1)
    w.t("cuStreamEndCapture", w.s, Box())
    w.t("cuPointerGetAttribute", u, 2, w.A)
    w.t("cuFuncGetAttribute", u, 0, w.f)
    w.t("cuMemAddressReserve", Box(), 2 * MIB, 0, 0, 0)
    w.t("cuMemCreate", Box(), 2 * MIB, w.prop(), 0)
    w.t("cuThreadExchangeStreamCaptureMode", Box(1))
    w.t("cuCtxPushCurrent_v2", w.ctx)
    now = w.get("cuCtxGetCurrent")
    w.say("same", now == w.ctx)
    w.t("cuCtxPopCurrent_v2", Box())
    w.say("current", w.get("cuCtxGetCurrent"))
    w.q("cuCtxSetCurrent", w.ctx)
    again = w.get("cuDevicePrimaryCtxRetain", 0)
    w.say("same", again == w.ctx)
    w.t("cuDevicePrimaryCtxRelease_v2", 0)
    w.say("launch", w.k(w.s))
    w.t("cuDevicePrimaryCtxGetState", 0, u, Box())
    w.t("cuDevicePrimaryCtxRelease_v2", 0)
    w.t("cuMemAlloc_v2", Box(), 256)
    w.t("cuCtxGetCurrent", Box())
    w.t("cuDevicePrimaryCtxRelease_v2", 0)
    again = w.get("cuDevicePrimaryCtxRetain", 0)
    w.say("same", again == w.ctx)
    w.t("cuMemAlloc_v2", Box(), 256)


@probe
def second_context(w: World) -> None:
    c = w.get("cuCtxCreate_v2", 0, 0)
    w.say("current", w.get("cuCtxGetCurrent") == c)
    w.say("launch", w.k(w.s))
    s = w.new("cuStreamCreate", 1)
    w.say("cross", w.k(s))
    w.t("cuStreamSynchronize", w.s)
    w.t("cuMemcpyHtoD_v2", w.A, u, 4)
    e = w.event()
    w.t("cuEventRecord", e, w.s)
    w.t("cuStreamWaitEvent", w.s, e, 0)
    w.t("cuMemFree_v2", w.A)
    g = w.chain()
    w.t("cuGraphInstantiateWithFlags", Box(), g, 0)
    w.t("cuCtxDestroy_v2", c)
    w.say("current", w.get("cuCtxGetCurrent"))
    w.t("cuStreamSynchronize", s)
    w.t("cuCtxDestroy_v2", w.ctx)


@probe
def fault_calls(w: World) -> None:
    e, g = w.event(), w.chain()
    x = w.inst(g)
    w.k(w.s, a=16, b=32)
    w.t("cuStreamSynchronize", w.s2)
    for name, args in (
        ("cuStreamSynchronize", [w.s]), ("cuStreamQuery", [w.s2]), ("cuEventQuery", [e]), ("cuEventRecord", [e, w.s2]), ("cuEventCreate", [Box(), 0]),
        ("cuEventDestroy_v2", [e]), ("cuGraphLaunch", [x, w.s]), ("cuGraphExecUpdate_v2", [x, g, u]), ("cuGraphUpload", [x, w.s]),
        ("cuGraphInstantiateWithFlags", [Box(), g, 0]), ("cuGraphExecDestroy", [x]), ("cuGraphDestroy", [g]), ("cuGraphCreate", [Box(), 0]),
        ("cuStreamCreate", [Box(), 0]), ("cuStreamIsCapturing", [w.s, Box()]), ("cuStreamEndCapture", [w.s, Box()]), ("cuMemGetInfo_v2", [u, Box()]),
        ("cuPointerGetAttribute", [u, 2, w.A]), ("cuModuleGetFunction", [Box(), w.mod.v, b"k"]), ("cuFuncGetAttribute", [u, 0, w.f]),
        ("cuModuleLoadData", [Box(), PTX]), ("cuCtxGetCurrent", [Box()]), ("cuCtxSetCurrent", [w.ctx]), ("cuDevicePrimaryCtxRetain", [Box(), 0]),
        ("cuMemAddressReserve", [Box(), 2 * MIB, 0, 0, 0]), ("cuMemCreate", [Box(), 2 * MIB, w.prop(), 0]), ("cuDeviceGetAttribute", [u, 75, 0]),
        ("cuMemHostAlloc", [Box(), 64, 0]), ("cuThreadExchangeStreamCaptureMode", [Box(1)]), ("cuCtxSynchronize", []), ("cuDevicePrimaryCtxReset_v2", [0]),
        ("cuMemAlloc_v2", [Box(), 256]), ("cuCtxSynchronize", []), ("cuDevicePrimaryCtxRelease_v2", [0]), ("cuDevicePrimaryCtxRetain", [Box(), 0]),
        ("cuMemAlloc_v2", [Box(), 256]),
    ):  # fmt: skip
        w.t(name, *args)


@probe
def fault_capture(w: World) -> None:
    w.k(w.s2, a=16, b=32)
    w.begin()
    w.say("launch", w.k(w.s))
    w.t("cuStreamSynchronize", w.s2)
    w.state(w.s)
    w.end()


@probe
def virtual(w: World) -> None:
    m = 2 * MIB
    w.t("cuMemAddressReserve", Box(), 4096, 0, 0, 0)
    w.t("cuMemAddressReserve", Box(), 0, 0, 0, 0)
    w.t("cuMemAddressReserve", Box(), m, 3, 0, 0)
    w.t("cuMemAddressReserve", Box(), m, 8 * m, 0, 0)
    w.t("cuMemAddressReserve", Box(), m, 0, 0, 1)
    va = w.reserve(8 * m)
    w.get("cuMemAddressReserve", m, 0, va, 0)
    h = w.physical(2 * m)
    w.t("cuMemCreate", Box(), 0, w.prop(), 0)
    w.t("cuMemCreate", Box(), m, w.prop(), 1)
    w.t("cuMemCreate", Box(), 1 << 50, w.prop(), 0)
    w.t("cuMemMap", va, m, m, h, 0)
    w.t("cuMemMap", va, m, 0, h, 0)
    w.t("cuMemMap", va + m, 4 * m, 0, h, 0)
    w.t("cuMemMap", va + 7 * m, 2 * m, 0, h, 0)
    w.t("cuMemMap", va, m, 0, h, 1)
    w.t("cuMemMap", va, 2 * m, 0, h, 0)
    w.t("cuMemMap", va + 4 * m, 2 * m, 0, h, 0)
    w.access(va, m)
    w.access(va + m, 2 * m)
    w.access(va, 2 * m)
    w.access(va + 4 * m, 2 * m, 1)
    w.t("cuMemcpyHtoD_v2", va + m - 4, u, 8)
    w.t("cuMemcpyHtoD_v2", va + 4 * m, u, 8)
    w.t("cuMemcpyDtoH_v2", u, va + 4 * m, 8)
    w.t("cuMemcpyHtoD_v2", va + 2 * m - 4, u, 8)
    w.t("cuMemsetD8Async", va + 2 * m, 1, 4, w.s)
    w.t("cuPointerGetAttribute", u, 2, va)
    w.t("cuPointerGetAttribute", u, 2, va + 2 * m)
    base = Box()
    w.t("cuPointerGetAttribute", base, 11, va + m)
    w.say("base", base.v == va)
    w.t("cuMemUnmap", va, m)
    w.t("cuMemUnmap", va + 2 * m, 2 * m)
    w.t("cuMemUnmap", va, 6 * m)
    w.t("cuMemUnmap", va, 2 * m)
    w.t("cuMemUnmap", va, 2 * m)
    w.t("cuMemAddressFree", va, 4 * m)
    w.t("cuMemFree_v2", va + 4 * m)
    w.t("cuMemUnmap", va + 4 * m, 2 * m)
    w.t("cuMemRelease", h)
    w.t("cuMemRelease", h)
    w.t("cuMemMap", va, 2 * m, 0, h, 0)
    w.t("cuMemAddressFree", va + m, m)
    w.t("cuMemAddressFree", va, 8 * m)
    w.t("cuMemAddressFree", va, 8 * m)
    w.t("cuMemSetAccess", va, m, None, 1)


@probe
def virtual_access(w: World) -> None:
    m = 2 * MIB
    va, h, h2 = w.reserve(8 * m), w.physical(m), w.physical(m)
    w.t("cuMemMap", va, m, 0, h, 0)
    w.t("cuMemMap", va + m, m, 0, h2, 0)
    w.access(va, 2 * m)
    w.t("cuMemcpyHtoD_v2", va + m - 4, u, 8)
    w.t("cuMemsetD8Async", va + m - 4, 1, 8, w.s)
    w.access(va, 2 * m, 0)
    w.t("cuMemcpyHtoD_v2", va, u, 4)
    w.access(va, 2 * m, 2)
    w.access(va, 2 * m, 7)
    w.access(va, 4096)
    w.access(va, 2 * m, 1)
    w.say("launch", w.k(w.s, a=va, b=w.B))
    w.t("cuStreamSynchronize", w.s)
    w.say("launch", w.k(w.s, a=w.A, b=va))
    w.t("cuStreamSynchronize", w.s)


@probe
def virtual_no_access_kernel(w: World) -> None:
    m = 2 * MIB
    va, h = w.reserve(8 * m), w.physical(m)
    w.t("cuMemMap", va, m, 0, h, 0)
    w.say("launch", w.k(w.s, a=va, b=w.B))
    w.t("cuStreamSynchronize", w.s)


@probe
def virtual_busy_unmap(w: World) -> None:
    m = 2 * MIB
    va, h = w.reserve(8 * m), w.physical(m)
    w.t("cuMemMap", va, m, 0, h, 0)
    w.access(va, m)
    w.k(w.s, a=va, b=va, n=3000000)
    w.t("cuMemUnmap", va, m)
    w.t("cuStreamQuery", w.s)
    w.t("cuStreamSynchronize", w.s)


@probe
def memory_account(w: World) -> None:
    def free() -> int:
        f = Box()
        w.q("cuMemGetInfo_v2", f, Box())
        return f.v

    first = free()
    a = w.new("cuMemAlloc_v2", 64 * MIB)
    w.say("64M", (first - free()) // MIB)
    w.q("cuMemFree_v2", a)
    w.say("freed", (first - free()) // MIB)
    va, h = w.reserve(), w.physical(16 * MIB)
    w.say("create", (first - free()) // MIB)
    w.q("cuMemMap", va, 16 * MIB, 0, h, 0)
    w.q("cuMemRelease", h)
    w.say("released mapped", (first - free()) // MIB)
    w.q("cuMemUnmap", va, 16 * MIB)
    w.say("unmapped", (first - free()) // MIB)
    a = w.new("cuMemAlloc_v2", 4096)
    w.say("4K", (first - free()) // 1024)
    total = Box()
    w.q("cuMemGetInfo_v2", Box(), total)
    w.say("total>free", total.v > first)
    b = w.new("cuMemAlloc_v2", 4096)
    w.say("aligned", b % 512)


@probe
def events(w: World) -> None:
    e, f = w.event(0), w.event(0)
    w.t("cuEventQuery", e)
    w.t("cuEventSynchronize", e)
    w.k(w.s, n=3000000)
    w.t("cuEventRecord", e, w.s)
    w.t("cuEventQuery", e)
    w.t("cuStreamQuery", w.s)
    w.t("cuStreamQuery", w.s2)
    w.t("cuStreamWaitEvent", w.s2, e, 0)
    w.t("cuStreamQuery", w.s2)
    w.t("cuEventRecord", f, w.s2)
    w.t("cuEventElapsedTime", u, e, f)
    w.t("cuEventRecord", e, w.s2)
    w.t("cuEventSynchronize", f)
    w.t("cuStreamQuery", w.s)
    w.t("cuEventDestroy_v2", e)
    w.k(w.s, n=3000000)
    w.t("cuStreamQuery", 0)
    bs = w.new("cuStreamCreate", 0)
    w.k(bs)
    w.t("cuStreamQuery", bs)
    w.t("cuStreamSynchronize", 0)
    w.t("cuStreamQuery", w.s)
    w.t("cuStreamDestroy_v2", w.s)
    w.t("cuCtxSynchronize")
    w.k(0, n=3000000)
    w.k(bs)
    w.t("cuStreamQuery", bs)
    w.t("cuStreamQuery", w.s2)


@probe
def addresses(w: World) -> None:
    names = (
        "cuGraphExecUpdate", "cuStreamGetCaptureInfo", "cuGraphInstantiate", "cuMemAlloc", "cuGraphAddKernelNode", "cuGraphKernelNodeGetParams",
        "cuStreamBeginCapture", "cuGraphAddDependencies", "cuGraphGetEdges", "cuCtxCreate", "cuInit", "cuStreamUpdateCaptureDependencies", "cuLaunchKernel",
        "cuGetProcAddress", "cuMemAlloc_v2", "cuEventElapsedTime", "cuCtxGetDevice", "cuGraphNodeSetParams",
    )  # fmt: skip
    for name in names:
        for version in (5000, 10000, 11040, 11080, 12000, 12030, 12040, 13000, 13010):
            for flags in (0, 2):
                fp, how = Box(), Box(9)
                status = w.q("cuGetProcAddress_v2", name.encode(), fp, version, flags, how)
                found = "-"
                for suffix in ("", "_v2", "_v3", "_v4", "_ptsz", "_v2_ptsz", "_v3_ptsz", "_ptds", "_v2_ptds"):
                    try:
                        if fp.v and ctypes.cast(getattr(w.d, name + suffix), ctypes.c_void_p).value == fp.v:
                            found = suffix or "plain"
                    except AttributeError:
                        continue
                w.say(f"{name}@{version}/{flags}", f"{status}:{how.v & 0xFFFFFFFF}:{found if fp.v else 'null'}")
    w.t("cuGetProcAddress", b"cuNoSuch", Box(), 12000, 0)
    w.t("cuGetProcAddress_v2", b"cuInit", Box(), 12000, 16, Box())
    w.t("cuGetProcAddress_v2", b"cuInit", Box(), 12000, 0, None)
    w.t("cuGetProcAddress_v2", b"cuInit", None, 12000, 0, Box())
    w.t("cuGetProcAddress_v2", None, Box(), 12000, 0, Box())


@probe
def params_layout(w: World) -> None:
    ptx = (
        b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry p(.param .u8 a,.param .align 8 .b8 b[20],.param .u16 c,"
        b".param .f64 d,\n .param .align 64 .b8 e[128],.param .b32 f){ret;}\n.func g(.param .u32 q){ret;}\n.entry _z$1(){ret;}"
    )
    mod = w.get("cuModuleLoadData", ptx)
    f = w.get("cuModuleGetFunction", mod, b"p")
    for i in range(7):
        o, z = Box(), Box()
        w.say(f"p{i}", (w.q("cuFuncGetParamInfo", f, i, o, z), o.v, z.v))
    w.t("cuFuncGetParamInfo", f, 0, Box(), None)
    w.t("cuFuncGetParamInfo", f, 0, None, Box())
    w.get("cuModuleGetFunction", mod, b"g")
    z = w.get("cuModuleGetFunction", mod, b"_z$1")
    w.t("cuLaunchKernel", z, 1, 1, 1, 1, 1, 1, 0, w.s, None, None)
    data, size = ctypes.create_string_buffer(struct.pack("<QQI4x", w.A, w.B, 1), 24), ctypes.c_size_t(20)
    for n in (20, 24, 16, 0):
        size.value = n
        extra = array(1, ctypes.addressof(data), 2, ctypes.addressof(size), 0)
        w.t("cuLaunchKernel", w.f, 1, 1, 1, 1, 1, 1, 0, w.s, None, extra)
    size.value = 20
    both = w.params(w.A, w.B, 1)
    w.t("cuLaunchKernel", w.f, 1, 1, 1, 1, 1, 1, 0, w.s, both, array(1, ctypes.addressof(data), 2, ctypes.addressof(size), 0))
    w.t("cuStreamSynchronize", w.s)
    w.word(w.B, "b")
    g = w.graph(lambda: w.q("cuLaunchKernel", w.f, 1, 1, 1, 1, 1, 1, 0, w.s, None, array(1, ctypes.addressof(data), 2, ctypes.addressof(size), 0)))
    p = ctypes.create_string_buffer(72)
    w.t("cuGraphKernelNodeGetParams_v2", w.nodes(g)[0], p)
    v = struct.unpack("<Q7I4xQQQQ", p.raw)
    w.say("params", (bool(v[8]), bool(v[9]), v[0] == w.f, bool(v[10]), bool(v[11])))
    copy = array(*(ctypes.c_uint64 * 5).from_address(v[9])) if v[9] else array(0)
    w.say("extra", [copy[0], copy[2], copy[4], ctypes.c_size_t.from_address(copy[3]).value] if v[9] else None)
    w.t("cuGraphAddKernelNode_v2", Box(), g, None, 0, p)
    for args in ((1, 1, 1, 1024, 1, 1), (1, 1, 1, 32, 33, 1), (1, 1, 1, 1, 1, 65), (1, 1, 65536, 1, 1, 1), (2147483647, 1, 1, 1, 1, 1), (1, 0, 1, 1, 1, 1), (1, 1, 1, 0, 1, 1)):  # fmt: skip
        w.say(str(args), w.q("cuLaunchKernel", w.f, *args, 0, w.s, both, None))
    for smem in (49152, 49153, 232448, 232449):
        w.say(f"smem{smem}", w.k(w.s, smem=smem))
        w.say(f"set{smem}", w.q("cuFuncSetAttribute", w.f, 8, smem))
        w.say(f"smem{smem}", w.k(w.s, smem=smem))


@probe
def attributes(w: World) -> None:
    for i in (1, 2, 5, 8, 10, 12, 13, 16, 31, 39, 41, 75, 76, 81, 82, 97, 98, 102, 115, 119):
        v = Box()
        w.say(f"a{i}", (w.q("cuDeviceGetAttribute", v, i, 0), v.v if i not in (13,) else "-"))
    for i in range(0, 17):
        v = Box()
        w.say(f"f{i}", (w.q("cuFuncGetAttribute", v, i, w.f), v.v & 0xFFFFFFFF))


def main() -> None:
    for name in sys.argv[1:] or PROBES:
        sys.stdout.write(f"{name}:")
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            w = World()
            try:
                w.setup()
                PROBES[name](w)
            except BaseException as error:  # noqa: BLE001
                w.say("raised", f"{type(error).__name__}: {error}")
            sys.stdout.write("\n")
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            sys.stdout.write(f" <signal {os.WTERMSIG(status)}>\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
