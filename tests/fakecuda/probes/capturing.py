"""Captures: streams, events, forks and joins."""

from __future__ import annotations

from collections.abc import Callable

from world import MIB, Box, World, array, nothing, probe, u


@probe
def legacy_blocking(w: World) -> None:
    bs, bs2, e = w.new("cuStreamCreate", 0), w.new("cuStreamCreate", 0), w.event()
    calls: dict[str, Callable[[], int]] = {
        "launch": lambda: w.k(0),
        "launch_bs2": lambda: w.k(bs2),
        "launch_2": lambda: w.k(2),
        "record": lambda: w.q("cuEventRecord", e, 0),
        "wait": lambda: w.q("cuStreamWaitEvent", 0, e, 0),
        "sync": lambda: w.q("cuStreamSynchronize", 0),
        "query": lambda: w.q("cuStreamQuery", 0),
        "h2d": lambda: w.q("cuMemcpyHtoD_v2", w.A, u, 4),
        "memset": lambda: w.q("cuMemsetD8_v2", w.B, 0, 4),
        "capturing": lambda: w.q("cuStreamIsCapturing", 0, Box()),
        "info": lambda: w.q("cuStreamGetCaptureInfo_v2", 0, u, None, None, None, None),
        "destroy2": lambda: w.q("cuStreamDestroy_v2", w.new("cuStreamCreate", 0)),
        "sync_bs2": lambda: w.q("cuStreamSynchronize", bs2),
        "launch_other": lambda: [r := [0], w.thread(lambda: r.__setitem__(0, w.k(0)))] and r[0],
    }
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
