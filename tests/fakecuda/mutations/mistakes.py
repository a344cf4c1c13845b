# ruff: noqa: E501
# fmt: off
"""Planted mistakes: a line of the engine's CUDA and tape sources, and what a tired person may have written in its place, one a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    name: str
    file: str
    right: str  # occurs once
    wrong: str


TAPE, CUDA = "engine/tape", "engine/device/cuda"

MISTAKES = [
    # ---- Lifetimes
    Mistake("the arena is freed before the graphs", "engine/exec.go", "\t\tdata.Free()\n\t\tx.arena.Free()", "\t\tx.arena.Free()\n\t\tdata.Free()"),
    Mistake("destroy does not wait for the last step", f"{TAPE}/unit.c", "  if (exec->marked) exec->on->reach_mark(exec->on, exec->mark); /* graphs", "  if (0) exec->on->reach_mark(exec->on, exec->mark); /* graphs"),
    Mistake("an executable is never destroyed", f"{CUDA}/graph.c", "  if (x->exec) driver->cuGraphExecDestroy(x->exec);\n", ""),
    Mistake("a graph is never destroyed", f"{CUDA}/graph.c", "  if (x->graph) driver->cuGraphDestroy(x->graph);\n", ""),
    Mistake("graphs of a unit are forgotten", f"{TAPE}/unit.c", "  tape_unit_drop_graphs(exec, unit);\n  free(unit);", "  free(unit);"),
    Mistake("a new capture forgets the graphs before it", f"{TAPE}/record.c", "  tape_unit_drop_graphs(exec, unit);\n  const int32_t io", "  unit->num_graphs = 0;\n  const int32_t io"),
    Mistake("the exec's stream is never destroyed", f"{TAPE}/device.c", "  if (exec->own_stream) exec->on->close_stream(exec->on, exec->own_stream);\n", ""),
    Mistake("the exec's mark is never destroyed", f"{TAPE}/device.c", "  if (exec->mark) exec->on->close_mark(exec->on, exec->mark);\n", ""),
    Mistake("the mark of a wait is never destroyed", f"{TAPE}/device.c", "    if (there) on->close_mark(on, there);\n", ""),
    Mistake("the memory behind the arena is kept", f"{CUDA}/memory.c", "  driver->cuMemRelease(handle); /* the mapping keeps the memory */\n", ""),
    Mistake("the arena's range is kept", f"{CUDA}/memory.c", "  cuda->driver.cuMemAddressFree(arena->base, (size_t)arena->reserved);\n  return ADCG_OK;", "  return ADCG_OK;"),
    Mistake("the arena stays mapped", f"{CUDA}/memory.c", "  if (arena->mapped) cuda->driver.cuMemUnmap(arena->base, (size_t)arena->mapped);\n", ""),
    Mistake("a range is kept when its memory cannot be had", f"{CUDA}/memory.c", "  if (status) cuda->driver.cuMemAddressFree(out->base, (size_t)out->reserved);\n", ""),
    Mistake("a mapping is kept that nobody may use", f"{CUDA}/memory.c", "    if (status) driver->cuMemUnmap(at, bytes);\n", ""),
    Mistake("the module is never unloaded", f"{CUDA}/open.c", "    if (cuda->module) cuda->driver.cuModuleUnload(cuda->module);\n", ""),
    Mistake("the context is never released", f"{CUDA}/open.c", "  if (cuda->context) cuda->driver.cuDevicePrimaryCtxRelease(cuda->device);\n", ""),
    Mistake("memory that is given back is the driver's still", f"{CUDA}/memory.c", "  ADCG_CUDA_TRY(cuda, cuMemFree, address);\n", "  (void)cuda, (void)address;\n"),
    Mistake("destructors run in captures", f"{CUDA}/cuda.go", "\tif d.captures == 0 {\n\t\tdefer d.mu.RUnlock()", "\tif true {\n\t\tdefer d.mu.RUnlock()"),
    Mistake("what a capture held up is forgotten", f"{CUDA}/cuda.go", "\t\t\tpending, d.pending = d.pending, nil", "\t\t\td.pending = nil"),
    # ---- Order
    Mistake("a step on another stream does not wait", f"{TAPE}/device.c", "  return exec->on->wait_mark(exec->on, exec->mark, exec->stream);", "  return ADCG_OK;"),
    Mistake("no mark behind a step", f"{TAPE}/device.c", "  adcg_status status = exec->on->set_mark(exec->on, exec->mark, exec->stream);\n  if (!status) exec->marked", "  adcg_status status = ADCG_OK;\n  if (!status) exec->marked"),
    Mistake("a stream that cannot be marked goes on", f"{CUDA}/stream.c", "  cuda->driver.cuStreamSynchronize(stream); /* nobody could", "  /* nobody could"),
    Mistake("the mark's stream is not remembered", f"{TAPE}/device.c", "  exec->marked_stream = exec->stream;\n", ""),
    Mistake("synchronize does not", f"{TAPE}/device.c", "  status = exec->on->reach_mark(exec->on, exec->mark);\n  tape_leave", "  tape_leave"),
    Mistake("a wait for a stream loses the steps before", f"{TAPE}/device.c", "    if (exec->marked) status = on->wait_mark(on, exec->mark, exec->own_stream);\n", ""),
    Mistake("a wait for a stream has no edge", f"{TAPE}/device.c", "    if (!status) status = on->wait_mark(on, there, exec->own_stream);\n", ""),
    Mistake("a wait for a stream leaves no mark", f"{TAPE}/device.c", "    if (!status) status = on->set_mark(on, exec->mark, exec->own_stream);\n", ""),
    Mistake("a stream does not wait for the exec", f"{TAPE}/device.c", "    status = on->wait_mark(on, exec->mark, stream);\n  } else", "    status = ADCG_OK;\n  } else"),
    Mistake("the exec's stream is a blocking one", f"{CUDA}/stream.c", "(CUstream *)out_stream, CU_STREAM_NON_BLOCKING)", "(CUstream *)out_stream, 0)"),
    Mistake("graphs run on the exec's stream, whatever the step's", f"{TAPE}/step.c", "graph->exec->on->run(graph->exec->on, graph->exec->stream,", "graph->exec->on->run(graph->exec->on, graph->exec->own_stream,"),
    Mistake("ops get the stream of the step before", f"{TAPE}/replay.c", "    tape_unit_stream(exec->dynamic, exec->stream);\n", ""),
    Mistake("eager ops get the stream of the step before", f"{TAPE}/replay.c", "    tape_unit_stream(unit, exec->stream);\n", ""),
    Mistake("launches go to the exec's stream", f"{TAPE}/device.c", "  return exec->on->launch(exec->on, exec->stream, launch);", "  return exec->on->launch(exec->on, exec->own_stream, launch);"),
    # Nothing can see this one: it copies to the host's own memory, which is pageable, and such a copy is done when the call returns, as
    # it is on a real driver. It stays in the count as one that survives.
    Mistake("a fetch does not wait", f"{CUDA}/stream.c", "  ADCG_CUDA_TRY(cuda, cuStreamSynchronize, stream);\n", ""),
    Mistake("a step waits on the host", f"{CUDA}/graph.c", "  ADCG_CUDA_TRY(cuda, cuGraphLaunch, x->exec, stream);\n", "  ADCG_CUDA_TRY(cuda, cuGraphLaunch, x->exec, stream);\n  ADCG_CUDA_TRY(cuda, cuStreamSynchronize, stream);\n"),
    # ---- Captures
    Mistake("every capture is global", f"{CUDA}/graph.c", "cuStreamBeginCapture(stream, modes[mode])", "cuStreamBeginCapture(stream, modes[1])"),
    Mistake("thread-local and global are swapped", f"{CUDA}/graph.c", "cuStreamBeginCapture(stream, modes[mode])", "cuStreamBeginCapture(stream, mode)"),
    Mistake("a failed capture is never ended", f"{CUDA}/graph.c", "  if (x->capturing) driver->cuStreamEndCapture(stream, &x->graph);", "  if (0) driver->cuStreamEndCapture(stream, &x->graph);"),
    Mistake("a failed capture's graph is not given back", f"{TAPE}/record.c", "    on->discard(on, exec->own_stream, executable);\n    return status;", "    return status;"),
    Mistake("what an op did to the capture is not looked at", f"{CUDA}/graph.c", "  if (capture != CU_STREAM_CAPTURE_STATUS_ACTIVE)\n    return", "  if (0)\n    return"),
    Mistake("no capture is asked behind a custom op", f"{TAPE}/record.c", "  if (status == ADCG_ERR_DEVICE || (!status && !harmless)) {", "  (void)harmless;\n  if (status == ADCG_ERR_DEVICE) {"),
    Mistake("a custom op that says it is parametric is believed", f"{TAPE}/record.c", "  const bool harmless = node->parametric && node->user_data == &node->builtin;", "  const bool harmless = node->parametric;"),
    Mistake("allocation nodes are let in", f"{CUDA}/graph.c", "(type == CU_GRAPH_NODE_MEM_ALLOC || type == CU_GRAPH_NODE_MEM_FREE)", "(type == CU_GRAPH_NODE_MEM_FREE)"),
    Mistake("the driver's status is lost in a capture", f"{TAPE}/record.c", "  return status ? tape_fail_step(exec, kCapture, unit, step, status) : ADCG_OK;", "  return status ? tape_fail_step(exec, kCapture, unit, step, status) * 0 : ADCG_OK;"),
    Mistake("no upload", f"{CUDA}/graph.c", "  ADCG_CUDA_TRY(cuda, cuGraphUpload, x->exec, stream); /* or the first launch would */\n", ""),
    Mistake("the host waits in a capture", f"{CUDA}/graph.c", "  int capture = 0;\n  CUgraph graph = NULL;\n", "  int capture = 0;\n  CUgraph graph = NULL;\n  cuda->driver.cuStreamSynchronize(stream);\n"),
    Mistake("launches go on being recorded", f"{TAPE}/record.c", "  exec->capturing = NULL;\n", ""),
    Mistake("a failed bucket counts as captured", f"{TAPE}/capture.c", "status ? ADCG_BUCKET_FAILED : ADCG_BUCKET_CAPTURED", "ADCG_BUCKET_CAPTURED"),
    Mistake("a failed bucket is tried at every step", f"{TAPE}/capture.c", "status ? ADCG_BUCKET_FAILED : ADCG_BUCKET_CAPTURED", "status ? ADCG_BUCKET_EMPTY : ADCG_BUCKET_CAPTURED"),
    Mistake("ops think that they replay", f"{TAPE}/record.c", "unit->calls[i].phase = ADCG_PHASE_CAPTURE;", "unit->calls[i].phase = ADCG_PHASE_REPLAY;"),
    Mistake("half of a segment is captured", f"{TAPE}/record.c", "    adcg_status status = record_graph(exec, unit, unit->begin[p], unit->begin[p + 1]);", "    adcg_status status = record_graph(exec, unit, unit->begin[p], unit->begin[p] + 1);"),
    Mistake("graph bytes are not given back", f"{TAPE}/unit.c", "    atomic_fetch_sub(&exec->graph_bytes, unit->graphs[g].executable->device_bytes);\n", ""),
    Mistake("graph bytes are not counted", f"{TAPE}/record.c", "  atomic_fetch_add(&exec->graph_bytes, executable->device_bytes);\n", ""),
    # ---- Addresses
    Mistake("graphs keep the addresses of the step before", f"{TAPE}/unit.c", "    if (unit->num_graphs) tape_unit_point_graphs(exec, unit, s);\n", ""),
    Mistake("the address that graphs hold is not noted", f"{TAPE}/unit.c", "  unit->held[slot] = now;\n", ""),
    Mistake("only the first graph is pointed", f"{TAPE}/unit.c", "for (int32_t g = 0; g < unit->num_graphs; g++) exec->on->point(", "for (int32_t g = 0; g < 1; g++) exec->on->point("),
    Mistake("parameters are changed and not given", f"{CUDA}/graph.c", "    launches(x)[w->launch].dirty = x->dirty = true;\n", "    launches(x)[w->launch].dirty = true;\n"),
    Mistake("only the first changed node is given", f"{CUDA}/graph.c", "    r->dirty = false;\n  }\n  x->dirty", "    r->dirty = false;\n    break;\n  }\n  x->dirty"),
    Mistake("a node is given its grid alone once", f"{CUDA}/graph.c", "    memcpy(node.block, r->launch.block, sizeof node.block);\n    const", "    node.block[0] = node.block[1] = node.block[2] = 1;\n    const"),
    Mistake("a failed change of a node is forgotten", f"{CUDA}/graph.c", "    if (result != CUDA_SUCCESS) return adcg_cuda_check(cuda, result, \"cuGraphExecKernelNodeSetParams\");\n    r->dirty = false;", "    r->dirty = false;\n    if (result != CUDA_SUCCESS) return adcg_cuda_check(cuda, result, \"cuGraphExecKernelNodeSetParams\");"),
    Mistake("a difference that is no address is let pass", f"{CUDA}/graph.c", "      if (!w) return false;", "      if (!w) continue;"),
    Mistake("an op's nodes are followed where it is not parametric", f"{TAPE}/record.c", "follow = io && node->parametric;", "follow = io;"),
    Mistake("what cannot be pointed is not staged", f"{TAPE}/record.c", "  if (io && !found) fix(exec, unit, t);\n", ""),
    Mistake("a bound value that moves leaves graphs as they are", f"{TAPE}/capture.c", "  if (exec->bound[index].data != data) outdate(exec, index);\n", ""),
    Mistake("stale graphs run", f"{TAPE}/replay.c", "== ADCG_BUCKET_EMPTY || bucket->unit->stale) return", "== ADCG_BUCKET_EMPTY) return"),
    Mistake("a stale bucket is not captured anew", f"{TAPE}/capture.c", "== ADCG_BUCKET_CAPTURED && !bucket->unit->stale) return", "== ADCG_BUCKET_CAPTURED) return"),
    Mistake("the calls of a stale unit keep the value's place", f"{TAPE}/capture.c", "  tape_unit_point_bound(exec, unit);\n  adcg_status status = tape_record", "  adcg_status status = tape_record"),
    # ---- Steps
    Mistake("another bucket's unit", f"{TAPE}/replay.c", "  return r->full >= 0 ? exec->buckets[r->full].unit : exec->eager;", "  return r->full >= 0 ? exec->buckets[0].unit : exec->eager;"),
    Mistake("another token bucket's unit", f"{TAPE}/replay.c", "r->token_part >= 0 ? exec->buckets[r->token_part].unit : NULL,", "r->token_part >= 0 ? exec->buckets[exec->ladders[0].buckets[0]].unit : NULL,"),
    Mistake("the device's counts are never set", f"{TAPE}/device.c", "  adcg_status status = exec->on->give_batch(exec);\n", "  adcg_status status = ADCG_OK;\n"),
    Mistake("the device's counts are those of the first step", f"{TAPE}/device.c", "memcmp(&exec->given, &exec->batch, sizeof exec->batch) == 0", "exec->given.struct_size"),
    Mistake("tails of dynamic ops keep what they had", f"{TAPE}/step.c", "    if (call->phase == ADCG_PHASE_CAPTURE || tape_real_rows(exec, value) < rows)\n", "    if (0)\n"),
    Mistake("tails are not captured", f"{TAPE}/step.c", "call->phase == ADCG_PHASE_CAPTURE || tape_real_rows(exec, value) < rows", "call->phase != ADCG_PHASE_CAPTURE && tape_real_rows(exec, value) < rows"),
    Mistake("tails that the kernels zero are zeroed twice", "kernels/cuda/registry.c", '{"adcg.gather_tokens", adcgk_cuda_gather_tokens, NULL, NULL, 1},', '{"adcg.gather_tokens", adcgk_cuda_gather_tokens, NULL, NULL, 0},'),
    Mistake("what the kernels zero is forgotten", "engine/graph.go", "ZeroesTail: promised || impl.ZeroesTail,", "ZeroesTail: promised,"),
    Mistake("no tail is zeroed at all", "engine/tape/program.go", "out.zeroes_tail = flag(impl.ZeroesTail)", "out.zeroes_tail = flag(true || impl.ZeroesTail)"),
    Mistake("tails of inputs keep what they had", f"{TAPE}/ports.c", "  if (LIKELY(!status) && rows > real)\n", "  if (0)\n"),
    Mistake("no staging copy in", f"{TAPE}/ports.c", "    if (real > 0) status = on->copy(on, exec->stream, exec->slots[i], data, (size_t)(real * value->row_bytes));\n", ""),
    Mistake("no staging copy out", f"{TAPE}/ports.c", "    adcg_status status = bytes > 0 ? on->copy(on, exec->stream, data, at, (size_t)bytes) : ADCG_OK;\n", "    adcg_status status = ADCG_OK;\n    (void)data;\n"),
    Mistake("staging copies on the exec's stream", f"{TAPE}/ports.c", "status = on->copy(on, exec->stream, exec->slots[i]", "status = on->copy(on, exec->own_stream, exec->slots[i]"),
    Mistake("staging copies out on the exec's stream", f"{TAPE}/ports.c", "on->copy(on, exec->stream, data, at, (size_t)bytes)", "on->copy(on, exec->own_stream, data, at, (size_t)bytes)"),
    Mistake("a staged copy of the whole tensor", f"{TAPE}/ports.c", "exec->slots[i], data, (size_t)(real * value->row_bytes))", "exec->slots[i], data, (size_t)(rows * value->row_bytes))"),
    # Nor can anything see this one: the counts come in order of a stream which a failing mark waits for, a step that is like the one before
    # has nothing to be brought that is not brought again, and a context whose kernels faulted runs nothing more.
    Mistake("a failed step is repeated as it was", f"{TAPE}/replay.c", "      exec->memo.generation = 0;\n      exec->given.struct_size = 0; /* who knows how far the device got */\n", ""),
    Mistake("a capture leaves the counts of its warm-up", f"{TAPE}/capture.c", "  adcg_status status = tape_take_stream(exec, NULL);\n  if (!status) status = tape_give_batch(exec);\n", "  adcg_status status = tape_take_stream(exec, NULL);\n"),
    # ---- Release and restore
    Mistake("a release does not wait for the last step", "engine/exec.go", "\tif err := tapeError(x.data.Synchronize(\"adcg_exec_release\")); err != nil {\n\t\treturn err\n\t}\n", ""),
    Mistake("a released arena keeps its memory", f"{CUDA}/memory.c", "  ADCG_CUDA_TRY(cuda, cuMemUnmap, arena->base, (size_t)arena->mapped);\n", "  (void)cuda;\n"),
    Mistake("a restored arena has its first piece alone", f"{CUDA}/memory.c", "map(cuda, arena, arena->released);", "map(cuda, arena, cuda->granularity);"),
    Mistake("a restored arena is released still", f"{CUDA}/memory.c", "  if (!status) arena->released = 0;\n  return status;", "  if (!status) arena->mapped = 0;\n  return status;"),
    Mistake("a restored exec keeps the counts of the memory before", f"{TAPE}/callback.c", "  exec->given.struct_size = 0; /* the device's counts lay in the arena */\n", ""),
    Mistake("a released exec repeats its last step", f"{TAPE}/callback.c", "  exec->generation++;          /* no step is the one before again */\n", ""),
    Mistake("a released exec runs", f"{TAPE}/replay.c", "  return exec->released ? tape_fail(", "  return false ? tape_fail("),
    Mistake("a released exec has memory for the sizes before", f"{TAPE}/callback.c", "  tape_set_held(exec, held);\n  exec->released", "  (void)held;\n  exec->released"),
    # ---- The context and what comes back
    Mistake("the caller's context is not restored", f"{CUDA}/stream.c", "  if (was) adcg_cuda_of(on)->driver.cuCtxPopCurrent(&popped);\n", "  (void)was, (void)on, (void)popped;\n"),
    Mistake("the context is not made current", f"{CUDA}/stream.c", "  ADCG_CUDA_TRY(cuda, cuCtxPushCurrent, cuda->context);\n  *was = cuda->context; /* pushed, to be popped */\n", ""),
    Mistake("a device out of memory is a device that failed", f"{CUDA}/driver.c", "return result == CUDA_ERROR_OUT_OF_MEMORY ? ADCG_ERR_OUT_OF_MEMORY : ADCG_ERR_DEVICE;", "return ADCG_ERR_DEVICE;"),
    Mistake("kernels get no more shared memory than by default", f"{CUDA}/open.c", "    ADCG_CUDA_TRY(cuda, cuFuncSetAttribute, function, CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES, cuda->shared_optin - fixed);\n", ""),
    Mistake("the arena has no memory behind its end", f"{CUDA}/memory.c", "  const int64_t upto = round_up(bytes + ADCG_CUDA_ARENA_HEAD, cuda->granularity);\n  if (upto", "  const int64_t upto = bytes / cuda->granularity * cuda->granularity;\n  if (upto"),
]
