"""What the probes share: calling the driver, printing the answers, a small world to do it in."""

from __future__ import annotations

import ctypes
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
ld.global.u32 %w2,[%r0];add.u32 %w2,%w2,1;st.global.u32 [%r1],%w2;add.u32 %w1,%w1,1;setp.lt.u32 %p,%w1,%w0;
@%p bra L;ret;}
.visible .entry j(.param .u64 a){.reg .u64 %r<2>;.reg .u32 %w<2>;
ld.param.u64 %r0,[a];cvta.to.global.u64 %r0,%r0;ld.global.u32 %w0,[%r0];add.u32 %w0,%w0,7;st.global.u32 [%r0],%w0;ret;}
"""
HOSTFN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
nothing = HOSTFN(lambda _: None)
u = ctypes.create_string_buffer(64)  # where answers go that nobody reads
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

    def k(
        self, stream: int, a: int = 0, b: int = 0, *, g: int = 1, block: int = 1, smem: int = 0, f: int = 0, n: int = 1
    ) -> int:
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
