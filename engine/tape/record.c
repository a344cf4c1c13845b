/* Graphs on a device that captures: the steps of a unit recorded segment by segment, followed to the caller's tensors, and tried. */
#include "tape.h"

#include <stdio.h>
#include <string.h>

static const char kCapture[] = "adcg_exec_capture";

static bool is_io(const tape_value *value) { return value->place == TAPE_INPUT || value->place == TAPE_OUTPUT; }

static int32_t io_slot(const tape_exec *exec, const tape_value *value) {
  return value->place == TAPE_INPUT ? value->index : exec->num_inputs + value->index;
}

/* The tensors of a call, from inputs on, lie one behind the other; `first` is the number of the first among the unit's. */
typedef struct call_tensors {
  DLTensor *tensors;
  const int32_t *values;
  int32_t count;
} call_tensors;

static call_tensors tensors_of(const tape_unit *unit, const adcg_op_call *call) {
  const int64_t first = (call->num_inputs ? call->inputs : call->outputs) - unit->tensors;
  return (call_tensors){unit->tensors + first, unit->values + first, call->num_inputs + call->num_outputs};
}

static bool has_io(const tape_exec *exec, call_tensors t) {
  for (int32_t i = 0; i < t.count; i++)
    if (is_io(&exec->values[t.values[i]])) return true;
  return false;
}

/* Moves every tensor of the caller's by its slot's shift, or back. */
static void shift(const tape_exec *exec, call_tensors t, bool back) {
  for (int32_t i = 0; i < t.count; i++) {
    const tape_value *value = &exec->values[t.values[i]];
    if (!is_io(value)) continue;
    const uintptr_t by = TAPE_SHIFT(io_slot(exec, value)), at = (uintptr_t)t.tensors[i].data;
    t.tensors[i].data = tape_pointer(back ? at - by : at + by);
  }
}

static void fix(const tape_exec *exec, tape_unit *unit, call_tensors t) {
  for (int32_t i = 0; i < t.count; i++)
    if (is_io(&exec->values[t.values[i]])) unit->fixed[io_slot(exec, &exec->values[t.values[i]])] = true;
}

/* One op into the capture, and what its kernels hold of the caller's tensors. */
static adcg_status record_step(tape_exec *exec, tape_unit *unit, int32_t number) {
  const tape_device *on = exec->on;
  const tape_step *step = &unit->steps[number];
  const tape_node *node = &exec->nodes[unit->nodes[number]];
  const call_tensors t = tensors_of(unit, step->call);
  const bool io = has_io(exec, t), follow = io && node->parametric;
  if (follow) on->begin_op(on, exec->capturing);
  adcg_status status = step->run(step->call, step->user_data);
  bool found = false;
  if (follow) {
    on->follow_op(on, exec->capturing);
    shift(exec, t, false);
    found = !status && !step->run(step->call, step->user_data);
    shift(exec, t, true);
    found = on->end_op(on, exec->capturing) && found;
    if (!status) tape_clear_op_error();
  }
  if (io && !found) fix(exec, unit, t);
  /* Where the op has ended the capture, the driver refuses what it does then, and the first is what there is to tell. What the
   * library's own ops launch through the launcher ends none. */
  const bool harmless = node->parametric && node->user_data == &node->builtin;
  if (status == ADCG_ERR_DEVICE || (!status && !harmless)) {
    adcg_status checked = on->check_capture(on, exec->own_stream, exec->capturing);
    if (checked == ADCG_ERR_OP || !status) status = checked;
  }
  return status ? tape_fail_step(exec, kCapture, unit, step, status) : ADCG_OK;
}

/* The steps [begin, end) as one graph; nothing if they record nothing. */
static adcg_status record_graph(tape_exec *exec, tape_unit *unit, int32_t begin, int32_t end) {
  const tape_device *on = exec->on;
  tape_executable *executable = NULL;
  adcg_status status = on->begin_capture(on, exec->own_stream, exec->capture_mode, &executable);
  if (status) return tape_fail_device(status, kCapture, "begin of the capture");
  exec->capturing = executable;
  for (int32_t i = begin; i < end && !status; i++) status = record_step(exec, unit, i);
  exec->capturing = NULL;
  const tape_node *first = &exec->nodes[unit->nodes[begin]], *last = &exec->nodes[unit->nodes[end - 1]];
  if (!status && (status = on->end_capture(on, exec->own_stream, executable))) {
    char where[512];
    snprintf(where, sizeof where, "graph of `%s` to `%s`", first->name, last->name);
    status = tape_fail_device(status, kCapture, where);
  }
  if (status || !executable->num_nodes) {
    on->discard(on, exec->own_stream, executable);
    return status;
  }
  const int32_t g = unit->num_graphs++;
  unit->graphs[g] = (tape_graph){exec, executable, unit->nodes[begin], unit->nodes[end - 1]};
  unit->graph_runs[g] = (tape_step){tape_run_graph, &unit->calls[begin], &unit->graphs[g]};
  atomic_fetch_add(&exec->graph_bytes, executable->device_bytes);
  return ADCG_OK;
}

static adcg_status record_graphs(tape_exec *exec, tape_unit *unit, int32_t kind) {
  if (kind == TAPE_ALL) {
    adcg_status status = unit->num_steps ? record_graph(exec, unit, 0, unit->num_steps) : ADCG_OK;
    for (int32_t p = 0; p <= exec->num_partitions; p++) unit->graph_begin[p] = p < exec->num_partitions ? 0 : unit->num_graphs;
    return status;
  }
  for (int32_t p = 0; p < exec->num_partitions; p++) {
    unit->graph_begin[p] = unit->num_graphs;
    if (unit->begin[p] == unit->begin[p + 1]) continue;
    adcg_status status = record_graph(exec, unit, unit->begin[p], unit->begin[p + 1]);
    if (status) return status;
  }
  unit->graph_begin[exec->num_partitions] = unit->num_graphs;
  return ADCG_OK;
}

/* Every graph once, over the empty batch, with what lies between them run eagerly: a segment reads what the ones before have left. */
static adcg_status try_graphs(tape_exec *exec, tape_unit *unit, int32_t kind) {
  const tape_unit *rest = exec->eager; /* at this size since the warm-up */
  for (int32_t p = 0; p < (kind == TAPE_ALL ? 1 : exec->num_partitions); p++) {
    const bool mine = kind == TAPE_ALL || exec->partitions[p] == kind;
    const tape_unit *from = mine ? unit : rest;
    const tape_step *end = mine && kind == TAPE_ALL ? unit->runs + unit->num_runs : from->runs + from->run_begin[p + 1];
    for (const tape_step *s = from->runs + from->run_begin[p]; s < end; s++) {
      adcg_status status = s->run(s->call, s->user_data);
      if (status) return tape_fail_step(exec, kCapture, from, s, status);
    }
  }
  adcg_status status = tape_mark(exec);
  if (!status) status = exec->on->reach_mark(exec->on, exec->mark);
  return status ? tape_fail_device(status, kCapture, "first run of the graphs") : ADCG_OK;
}

adcg_status tape_record(tape_exec *exec, tape_unit *unit, int32_t kind) {
  tape_unit_drop_graphs(exec, unit);
  const int32_t io = exec->num_inputs + exec->num_outputs;
  memset(unit->fixed, 0, (size_t)io * sizeof(bool));
  memcpy(unit->held, exec->slots, (size_t)io * sizeof(void *)); /* the staging blocks */
  tape_unit_stream(unit, exec->own_stream);
  for (int32_t i = 0; i < unit->num_steps; i++) unit->calls[i].phase = ADCG_PHASE_CAPTURE;
  adcg_status status = record_graphs(exec, unit, kind);
  for (int32_t i = 0; i < unit->num_steps; i++) unit->calls[i].phase = ADCG_PHASE_REPLAY;
  if (!status) {
    unit->runs = unit->graph_runs;
    unit->run_begin = unit->graph_begin;
    unit->num_runs = unit->num_graphs;
    status = try_graphs(exec, unit, kind);
  }
  if (status) tape_unit_drop_graphs(exec, unit);
  return status;
}
