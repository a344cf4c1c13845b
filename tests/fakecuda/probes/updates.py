"""Executables: updates, parameters, switches."""

from __future__ import annotations

import ctypes

from world import Box, World, array, nothing, probe, u


@probe
def exec_memset(w: World) -> None:
    one = w.graph(lambda: w.q("cuMemsetD32Async", w.A, 9, 4, w.s))
    n = w.nodes(one)[0]
    x = w.inst(one)
    for args in (
        {},
        {"width": 64},
        {"width": 0},
        {"elem": 3},
        {"elem": 2},
        {"height": 2, "pitch": 64},
        {"dst": 16},
        {"width": 5000},
        {"elem": 1},
        {"pitch": 64},
    ):
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
def update_kinds(w: World) -> None:
    k, w0 = w.graph(lambda: w.k(w.s)), w.nodes
    x = w.inst(k)
    w.update(x, w.new("cuGraphCreate", 0))
    for fill in (
        lambda: w.k(w.s, g=4),
        lambda: w.k(w.s, block=64),
        lambda: w.k(w.s, smem=1024),
        lambda: w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 4, w.s),
        lambda: w.q("cuLaunchHostFunc", w.s, nothing, None),
    ):
        w.update(x, w.graph(fill))
    w.t("cuGraphExecUpdate_v2", x, k, None)
    w.t("cuGraphExecUpdate_v2", x, None, u)
    w.t("cuGraphExecUpdate_v2", None, k, u)
    c = w.graph(lambda: w.q("cuMemcpyDtoDAsync_v2", w.B, w.A, 4, w.s))
    x = w.inst(c)
    for fill in (
        lambda: w.q("cuMemcpyDtoDAsync_v2", w.B + 64, w.A, 16, w.s),
        lambda: w.q("cuMemcpyHtoDAsync_v2", w.B, u, 4, w.s),
        lambda: w.k(w.s),
        lambda: w.q("cuMemcpyDtoHAsync_v2", u, w.A, 4, w.s),
        lambda: w.q("cuMemcpyDtoDAsync_v2", w.A, w.B, 4, w.s),
    ):
        w.update(x, w.graph(fill))
    m = w.graph(lambda: w.q("cuMemsetD32Async", w.A, 9, 4, w.s))
    x = w.inst(m)
    for fill in (
        lambda: w.q("cuMemsetD32Async", w.B, 8, 16, w.s),
        lambda: w.q("cuMemsetD8Async", w.B, 8, 16, w.s),
        lambda: w.q("cuMemsetD2D8Async", w.A, 64, 7, 8, 3, w.s),
        lambda: w.k(w.s),
    ):
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
                "k": ("cuGraphAddKernelNode_v2", [w.knp()]),
                "e": ("cuGraphAddEmptyNode", []),
                "m": ("cuGraphAddMemsetNode", [w.msp(w.A), w.ctx]),
            }[kind]
            made.append(w.new(name, g, None, 0, *extra))
        if edges:
            w.q(
                "cuGraphAddDependencies",
                g,
                array(*[made[a] for a, _ in edges]),
                array(*[made[b] for _, b in edges]),
                len(edges),
            )
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
