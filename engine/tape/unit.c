/* Units: the calls of some partitions bound to one size, in one block of memory. */
#include "tape.h"

#include <stdlib.h>
#include <string.h>

int32_t tape_bucket_kind(const adcg_bucket *size) {
  if (size->mode == ADCG_MODE_FULL) return TAPE_ALL;
  return size->tokens > 0 ? TAPE_TOKEN_SEGMENT : TAPE_SEQ_SEGMENT;
}

static bool in_unit(const tape_exec *exec, const tape_node *node, int32_t kind) {
  return !node->skip && (kind == TAPE_ALL || exec->partitions[node->partition] == kind);
}

/* Inputs and outputs have slots of their own, bound values follow; -1: the arena. */
static int32_t slot_of(const tape_exec *exec, const tape_value *value) {
  switch (value->place) {
    case TAPE_INPUT: return value->index;
    case TAPE_OUTPUT: return exec->num_inputs + value->index;
    case TAPE_BOUND: return exec->num_inputs + exec->num_outputs + value->index;
    default: return -1;
  }
}

typedef struct unit_counts {
  int64_t steps, tensors, dims, patches, graphs;
} unit_counts;

static void count_tensor(const tape_exec *exec, int32_t index, unit_counts *n) {
  const tape_value *value = &exec->values[index];
  n->tensors++;
  n->dims += value->type.ndim;
  n->patches += value->place != TAPE_ARENA;
}

static unit_counts count(const tape_exec *exec, int32_t kind) {
  unit_counts n = {0, 0, 0, 0, 0};
  int32_t partition = -1;
  for (int32_t i = 0; i < exec->num_nodes; i++) {
    const tape_node *node = &exec->nodes[i];
    if (!in_unit(exec, node, kind)) continue;
    n.steps++;
    n.graphs += kind == TAPE_ALL ? n.steps == 1 : node->partition != partition;
    partition = node->partition;
    for (int32_t k = 0; k < node->num_inputs; k++) count_tensor(exec, node->inputs[k], &n);
    for (int32_t k = 0; k < node->num_outputs; k++) count_tensor(exec, node->outputs[k], &n);
  }
  if (kind == TAPE_DYNAMIC || !exec->on->begin_capture) n.graphs = 0;
  return n;
}

/* Carves `bytes` off the block at *cursor, in whole words. */
static void *take(char **cursor, int64_t bytes) {
  void *p = *cursor;
  *cursor += (bytes + 7) / 8 * 8;
  return p;
}

static int64_t words(int64_t count, size_t size) { return (count * (int64_t)size + 7) / 8 * 8; }

static int64_t bytes_of(const tape_exec *exec, const unit_counts *n) {
  int64_t io = exec->num_inputs + exec->num_outputs;
  int64_t captured = n->graphs * (int64_t)(sizeof(tape_step) + sizeof(tape_graph)) + words(exec->num_partitions + 1, sizeof(int32_t)) +
                     words(io, sizeof(bool)) + words(io, sizeof(void *));
  return (n->graphs ? captured : 0) + words(1, sizeof(tape_unit)) + words(n->steps, sizeof(tape_step)) +
         words(n->steps, sizeof(adcg_op_call)) + words(n->steps, sizeof(int32_t)) + words(exec->num_partitions + 1, sizeof(int32_t)) +
         words(n->tensors, sizeof(DLTensor)) + words(n->tensors, sizeof(int32_t)) + words(n->dims, sizeof(int64_t)) +
         words(n->patches, sizeof(tape_patch)) + words(io + 1, sizeof(int32_t)) + words(io, sizeof(void *));
}

int64_t tape_unit_bytes(const tape_exec *exec, int32_t kind) {
  unit_counts n = count(exec, kind);
  return bytes_of(exec, &n);
}

static void fill_tensor(const tape_exec *exec, tape_unit *unit, int32_t value_index, int64_t **dims) {
  const tape_value *value = &exec->values[value_index];
  DLTensor *t = &unit->tensors[unit->num_tensors];
  unit->values[unit->num_tensors++] = value_index;
  t->data = NULL; /* set with the size, or by the patches */
  t->device = exec->device;
  t->ndim = value->type.ndim;
  t->dtype = adcg_dtype_to_dlpack(value->type.dtype);
  t->shape = *dims;
  t->strides = (int64_t *)(uintptr_t)value->strides;
  t->byte_offset = 0;
  for (int32_t d = 0; d < t->ndim; d++) t->shape[d] = value->type.dims[d].constant;
  *dims += t->ndim;
}

/* Sorts the patches by slot, a counting sort over inputs and outputs; those of bound values come last, in any order. */
static void fill_patches(const tape_exec *exec, tape_unit *unit) {
  int32_t io = exec->num_inputs + exec->num_outputs;
  for (int32_t i = 0; i < unit->num_tensors; i++) {
    int32_t slot = slot_of(exec, &exec->values[unit->values[i]]);
    if (slot >= 0 && slot < io) unit->patch_begin[slot + 1]++;
  }
  for (int32_t s = 0; s < io; s++) unit->patch_begin[s + 1] += unit->patch_begin[s];
  unit->num_io_patches = unit->patch_begin[io];
  int32_t bound = unit->num_io_patches;
  for (int32_t i = 0; i < unit->num_tensors; i++) {
    const tape_value *value = &exec->values[unit->values[i]];
    int32_t slot = slot_of(exec, value);
    if (slot < 0) continue;
    /* patch_begin[slot] walks to its end and is put back below */
    int32_t at = slot < io ? unit->patch_begin[slot]++ : bound++;
    unit->patches[at] = (tape_patch){&unit->tensors[i], slot, 0, value->offset};
  }
  for (int32_t s = io; s > 0; s--) unit->patch_begin[s] = unit->patch_begin[s - 1];
  unit->patch_begin[0] = 0;
  unit->num_patches = bound;
}

tape_unit *tape_unit_create(tape_exec *exec, int32_t kind, int64_t tokens, int64_t seqs) {
  unit_counts n = count(exec, kind);
  int64_t bytes = bytes_of(exec, &n), io = exec->num_inputs + exec->num_outputs;
  char *cursor = calloc(1, (size_t)bytes);
  if (!cursor) return NULL;
  tape_unit *unit = take(&cursor, sizeof(tape_unit));
  unit->bytes = bytes;
  unit->steps = take(&cursor, n.steps * (int64_t)sizeof(tape_step));
  unit->calls = take(&cursor, n.steps * (int64_t)sizeof(adcg_op_call));
  unit->nodes = take(&cursor, n.steps * (int64_t)sizeof(int32_t));
  unit->begin = take(&cursor, (exec->num_partitions + 1) * (int64_t)sizeof(int32_t));
  unit->tensors = take(&cursor, n.tensors * (int64_t)sizeof(DLTensor));
  unit->values = take(&cursor, n.tensors * (int64_t)sizeof(int32_t));
  int64_t *dims = take(&cursor, n.dims * (int64_t)sizeof(int64_t));
  unit->patches = take(&cursor, n.patches * (int64_t)sizeof(tape_patch));
  unit->patch_begin = take(&cursor, (io + 1) * (int64_t)sizeof(int32_t));
  unit->seen = take(&cursor, io * (int64_t)sizeof(void *));
  if (n.graphs) {
    unit->graph_runs = take(&cursor, n.graphs * (int64_t)sizeof(tape_step));
    unit->graphs = take(&cursor, n.graphs * (int64_t)sizeof(tape_graph));
    unit->graph_begin = take(&cursor, (exec->num_partitions + 1) * (int64_t)sizeof(int32_t));
    unit->fixed = take(&cursor, io * (int64_t)sizeof(bool));
    unit->held = take(&cursor, io * (int64_t)sizeof(void *));
  }
  unit->bound_generation = -1;

  int32_t next = 0; /* the partition whose first step comes next */
  for (int32_t i = 0; i < exec->num_nodes; i++) {
    const tape_node *node = &exec->nodes[i];
    while (next <= node->partition) unit->begin[next++] = unit->num_steps;
    if (!in_unit(exec, node, kind)) continue;
    adcg_op_call *call = &unit->calls[unit->num_steps];
    call->struct_size = sizeof *call;
    call->phase = ADCG_PHASE_REPLAY;
    call->num_inputs = node->num_inputs;
    call->num_outputs = node->num_outputs;
    call->num_attrs = node->num_attrs;
    call->batch = &exec->batch;
    call->attrs = node->attrs;
    call->set_error = tape_set_op_error;
    call->launcher = exec->launcher.launch ? &exec->launcher : NULL;
    call->device_batch = exec->device_batch;
    call->inputs = &unit->tensors[unit->num_tensors];
    for (int32_t k = 0; k < node->num_inputs; k++) fill_tensor(exec, unit, node->inputs[k], &dims);
    call->outputs = &unit->tensors[unit->num_tensors];
    for (int32_t k = 0; k < node->num_outputs; k++) fill_tensor(exec, unit, node->outputs[k], &dims);
    bool tails = node->dynamic && !node->zeroes_tail;
    unit->nodes[unit->num_steps] = i;
    unit->steps[unit->num_steps++] =
        (tape_step){tails ? tape_run_dynamic : node->launch, call, tails ? (void *)(uintptr_t)node : node->user_data};
  }
  while (next <= exec->num_partitions) unit->begin[next++] = unit->num_steps;
  unit->runs = unit->steps;
  unit->run_begin = unit->begin;
  unit->num_runs = unit->num_steps;
  fill_patches(exec, unit);
  unit->tokens = unit->seqs = -1;
  tape_unit_resize(exec, unit, tokens, seqs);
  return unit;
}

void tape_unit_resize(const tape_exec *exec, tape_unit *unit, int64_t tokens, int64_t seqs) {
  if (unit->tokens == tokens && unit->seqs == seqs) return;
  unit->tokens = tokens;
  unit->seqs = seqs;
  for (int32_t i = 0; i < unit->num_tensors; i++) unit->tensors[i].shape[0] = tape_rows(&exec->values[unit->values[i]], tokens, seqs);
  for (int32_t i = 0; i < unit->num_steps; i++) {
    unit->calls[i].tokens = tokens;
    unit->calls[i].seqs = seqs;
  }
  const tape_layout *layout = tape_layout_of(exec, tokens);
  if (unit->layout == layout) return;
  unit->layout = layout;
  for (int32_t i = 0; i < unit->num_tensors; i++) {
    const tape_value *value = &exec->values[unit->values[i]];
    if (value->place == TAPE_ARENA) unit->tensors[i].data = exec->arena + layout->offsets[value->index] + value->offset;
  }
  for (int32_t i = 0; i < unit->num_steps; i++) {
    int32_t block = exec->nodes[unit->nodes[i]].workspace_block;
    unit->calls[i].workspace = block >= 0 ? exec->arena + layout->offsets[block] : NULL;
    unit->calls[i].workspace_bytes = block >= 0 ? (size_t)layout->bytes[block] : 0;
  }
}

int64_t tape_unit_point(tape_exec *exec, tape_unit *unit) {
  int32_t io = exec->num_inputs + exec->num_outputs;
  int64_t moved = 0, now = atomic_load_explicit(&exec->counters.steps, memory_order_relaxed) + 1;
  for (int32_t s = 0; s < io; s++) {
    void *address = exec->slots[s];
    if (__builtin_expect(unit->seen[s] == address, 1)) continue;
    int32_t first = unit->patch_begin[s], end = unit->patch_begin[s + 1];
    for (int32_t p = first; p < end; p++) unit->patches[p].tensor->data = (char *)address + unit->patches[p].offset;
    if (unit->seen[s] && first < end && exec->moved[s] != now) {
      exec->moved[s] = now; /* several units of one step may hold the slot: it moved once */
      moved++;
    }
    unit->seen[s] = address;
    if (unit->num_graphs) tape_unit_point_graphs(exec, unit, s);
  }
  if (UNLIKELY(unit->bound_generation != exec->bound_generation)) tape_unit_point_bound(exec, unit);
  return moved;
}

void tape_unit_point_bound(const tape_exec *exec, tape_unit *unit) {
  const int32_t io = exec->num_inputs + exec->num_outputs;
  for (int32_t p = unit->num_io_patches; p < unit->num_patches; p++) {
    const tape_patch *patch = &unit->patches[p];
    patch->tensor->data = (char *)exec->bound[patch->slot - io].data + patch->offset;
  }
  unit->bound_generation = exec->bound_generation;
}

adcg_status tape_check_workspaces(const tape_exec *exec, const char *function, const tape_unit *unit) {
  for (int32_t i = 0; i < unit->num_steps; i++) {
    const tape_node *node = &exec->nodes[unit->nodes[i]];
    if (!node->workspace) continue;
    size_t bytes = 0;
    adcg_status status = node->workspace(&unit->calls[i], &bytes, node->user_data);
    if (status) return tape_fail_step(exec, function, unit, &unit->steps[i], status);
    if (bytes > unit->calls[i].workspace_bytes)
      return tape_fail(ADCG_ERR_OP, function, "op `%s`: workspace: %zu bytes at %lld tokens, the plan has %zu", node->name, bytes,
                       (long long)unit->tokens, unit->calls[i].workspace_bytes);
  }
  return ADCG_OK;
}

void tape_unit_point_graphs(const tape_exec *exec, tape_unit *unit, int32_t slot) {
  void *was = unit->held[slot], *now = unit->seen[slot];
  if (was == now || unit->fixed[slot]) return;
  for (int32_t g = 0; g < unit->num_graphs; g++) exec->on->point(unit->graphs[g].executable, slot, (uintptr_t)was, (uintptr_t)now);
  unit->held[slot] = now;
}

void tape_unit_stream(tape_unit *unit, void *stream) {
  if (unit->stream == stream) return;
  for (int32_t i = 0; i < unit->num_steps; i++) unit->calls[i].stream = stream;
  unit->stream = stream;
}

void tape_unit_drop_graphs(tape_exec *exec, tape_unit *unit) {
  for (int32_t g = 0; g < unit->num_graphs; g++) {
    atomic_fetch_sub(&exec->graph_bytes, unit->graphs[g].executable->device_bytes);
    exec->on->discard(exec->on, exec->own_stream, unit->graphs[g].executable);
  }
  unit->num_graphs = 0;
  unit->runs = unit->steps;
  unit->run_begin = unit->begin;
  unit->num_runs = unit->num_steps;
}

void tape_unit_free(tape_exec *exec, tape_unit *unit) {
  if (!unit) return;
  tape_unit_drop_graphs(exec, unit);
  free(unit);
}

/* How far into the arena a value reaches in a step. */
static int64_t end_of(const tape_value *value, int64_t begin, int64_t tokens, int64_t seqs) {
  const int64_t bytes = tape_span(value, tape_rows(value, tokens, seqs));
  return bytes ? begin + value->offset + bytes : 0;
}

bool tape_fits(tape_exec *exec, int64_t tokens, int64_t seqs) {
  if (LIKELY(exec->arena_held >= exec->arena_bytes || (tokens <= exec->fits_tokens && seqs <= exec->fits_seqs))) return true;
  const tape_layout *layout = tape_layout_of(exec, tokens);
  int64_t need = 0;
#define REACH(end) \
  if ((end) > need) need = (end)
  for (int32_t v = 0; v < exec->num_values; v++) {
    const tape_value *value = &exec->values[v];
    if (value->place == TAPE_ARENA) REACH(end_of(value, layout->offsets[value->index], tokens, seqs));
  }
  for (int32_t i = 0; i < exec->num_nodes; i++) {
    int32_t block = exec->nodes[i].workspace_block;
    if (block >= 0) REACH(layout->offsets[block] + layout->bytes[block]);
  }
  for (int32_t i = 0; i < exec->num_inputs + exec->num_outputs; i++) {
    const tape_port *port = i < exec->num_inputs ? &exec->inputs[i] : &exec->outputs[i - exec->num_inputs];
    tape_value plain = exec->values[port->value];
    plain.offset = 0; /* the staging block is the value's own, whatever it is a part of */
    plain.strides = NULL;
    if (port->staged) REACH(end_of(&plain, layout->offsets[port->staging_block], tokens, seqs));
  }
#undef REACH
  if (need > exec->arena_held) {
    exec->arena_wanted = need;
    return false;
  }
  /* sizes below need not reach less far under another layout */
  if (exec->num_layouts == 1) {
    exec->fits_tokens = tokens;
    exec->fits_seqs = seqs;
  }
  return true;
}

void tape_exec_clear(tape_exec *exec) {
  void *was = NULL;
  /* a device that is lost takes nothing back, and nothing is lost by it: what follows then frees the host's part alone */
  bool entered = tape_enter(exec->on, "adcg_exec_destroy", &was) == ADCG_OK;
  if (exec->marked) exec->on->reach_mark(exec->on, exec->mark); /* graphs may be running */
  for (int32_t i = 0; i < exec->num_buckets; i++) tape_unit_free(exec, exec->buckets[i].unit);
  tape_unit_free(exec, exec->eager);
  tape_unit_free(exec, exec->dynamic);
  tape_close_streams(exec);
  if (entered) tape_leave(exec->on, was);
}
