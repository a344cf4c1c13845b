"""Contexts, faults, virtual memory, events, addresses, parameter layouts."""

from __future__ import annotations

import ctypes
import struct

from world import MIB, PTX, Box, World, array, probe, u


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
        ("cuStreamSynchronize", [w.s]),
        ("cuStreamQuery", [w.s2]),
        ("cuEventQuery", [e]),
        ("cuEventRecord", [e, w.s2]),
        ("cuEventCreate", [Box(), 0]),
        ("cuEventDestroy_v2", [e]),
        ("cuGraphLaunch", [x, w.s]),
        ("cuGraphExecUpdate_v2", [x, g, u]),
        ("cuGraphUpload", [x, w.s]),
        ("cuGraphInstantiateWithFlags", [Box(), g, 0]),
        ("cuGraphExecDestroy", [x]),
        ("cuGraphDestroy", [g]),
        ("cuGraphCreate", [Box(), 0]),
        ("cuStreamCreate", [Box(), 0]),
        ("cuStreamIsCapturing", [w.s, Box()]),
        ("cuStreamEndCapture", [w.s, Box()]),
        ("cuMemGetInfo_v2", [u, Box()]),
        ("cuPointerGetAttribute", [u, 2, w.A]),
        ("cuModuleGetFunction", [Box(), w.mod.v, b"k"]),
        ("cuFuncGetAttribute", [u, 0, w.f]),
        ("cuModuleLoadData", [Box(), PTX]),
        ("cuCtxGetCurrent", [Box()]),
        ("cuCtxSetCurrent", [w.ctx]),
        ("cuDevicePrimaryCtxRetain", [Box(), 0]),
        ("cuMemAddressReserve", [Box(), 2 * MIB, 0, 0, 0]),
        ("cuMemCreate", [Box(), 2 * MIB, w.prop(), 0]),
        ("cuDeviceGetAttribute", [u, 75, 0]),
        ("cuMemHostAlloc", [Box(), 64, 0]),
        ("cuThreadExchangeStreamCaptureMode", [Box(1)]),
        ("cuCtxSynchronize", []),
        ("cuDevicePrimaryCtxReset_v2", [0]),
        ("cuMemAlloc_v2", [Box(), 256]),
        ("cuCtxSynchronize", []),
        ("cuDevicePrimaryCtxRelease_v2", [0]),
        ("cuDevicePrimaryCtxRetain", [Box(), 0]),
        ("cuMemAlloc_v2", [Box(), 256]),
    ):
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
        "cuGraphExecUpdate",
        "cuStreamGetCaptureInfo",
        "cuGraphInstantiate",
        "cuMemAlloc",
        "cuGraphAddKernelNode",
        "cuGraphKernelNodeGetParams",
        "cuStreamBeginCapture",
        "cuGraphAddDependencies",
        "cuGraphGetEdges",
        "cuCtxCreate",
        "cuInit",
        "cuStreamUpdateCaptureDependencies",
        "cuLaunchKernel",
        "cuGetProcAddress",
        "cuMemAlloc_v2",
        "cuEventElapsedTime",
        "cuCtxGetDevice",
        "cuGraphNodeSetParams",
    )
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
        b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry p("
        b".param .u8 a,.param .align 8 .b8 b[20],.param .u16 c,"
        b".param .f64 d,\n .param .align 64 .b8 e[128],.param .b32 f){ret;}\n"
        b".func g(.param .u32 q){ret;}\n.entry _z$1(){ret;}"
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
    w.t(
        "cuLaunchKernel",
        w.f,
        1,
        1,
        1,
        1,
        1,
        1,
        0,
        w.s,
        both,
        array(1, ctypes.addressof(data), 2, ctypes.addressof(size), 0),
    )
    w.t("cuStreamSynchronize", w.s)
    w.word(w.B, "b")
    g = w.graph(
        lambda: w.q(
            "cuLaunchKernel",
            w.f,
            1,
            1,
            1,
            1,
            1,
            1,
            0,
            w.s,
            None,
            array(1, ctypes.addressof(data), 2, ctypes.addressof(size), 0),
        )
    )
    p = ctypes.create_string_buffer(72)
    w.t("cuGraphKernelNodeGetParams_v2", w.nodes(g)[0], p)
    v = struct.unpack("<Q7I4xQQQQ", p.raw)
    w.say("params", (bool(v[8]), bool(v[9]), v[0] == w.f, bool(v[10]), bool(v[11])))
    copy = array(*(ctypes.c_uint64 * 5).from_address(v[9])) if v[9] else array(0)
    w.say("extra", [copy[0], copy[2], copy[4], ctypes.c_size_t.from_address(copy[3]).value] if v[9] else None)
    w.t("cuGraphAddKernelNode_v2", Box(), g, None, 0, p)
    for args in (
        (1, 1, 1, 1024, 1, 1),
        (1, 1, 1, 32, 33, 1),
        (1, 1, 1, 1, 1, 65),
        (1, 1, 65536, 1, 1, 1),
        (2147483647, 1, 1, 1, 1, 1),
        (1, 0, 1, 1, 1, 1),
        (1, 1, 1, 0, 1, 1),
    ):
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
    for i in range(17):
        v = Box()
        w.say(f"f{i}", (w.q("cuFuncGetAttribute", v, i, w.f), v.v & 0xFFFFFFFF))
