"""Graphs: nodes, edges, memsets, what can be instantiated, children, memory."""

from __future__ import annotations

import ctypes
import struct

from world import MIB, Box, World, array, nothing, probe, u


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
        {},
        {"width": 0},
        {"elem": 3},
        {"elem": 2},
        {"elem": 1, "value": 300},
        {"elem": 2, "value": 70000},
        {"height": 2},
        {"height": 2, "pitch": 16},
        {"height": 2, "pitch": 8},
        {"height": 0},
        {"width": 5000},
        {"dst": 16},
        {"dst": w.A + 2},
        {"dst": 0},
        {"pitch": 3},
    ):
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
