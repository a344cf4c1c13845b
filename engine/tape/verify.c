/* Verify mode: a step run op by op, with what each op may touch checked around it. Slow by design.
 *
 * Around each op: everything alive that it did not declare to write must keep its bytes; every real row of its outputs must have
 * been written; a tail that it promised to zero must be zero. Behind it, memory that nobody reads any more is poisoned, so that a
 * value that was freed too early, or read late, shows as NaN. */
#include "tape.h"

#include <string.h>

enum { kUnwritten = 0xA5, kDead = 0xFF };

static const char kReplay[] = "adcg_exec_replay";

/* FNV-1a over words: a check against stray writes, not against an adversary. */
static void hash_run(char *data, int64_t bytes, void *context) {
  uint64_t h = *(uint64_t *)context;
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    memcpy(&word, data, 8);
    h = (h ^ word) * 1099511628211ull;
    h ^= h >> 29;
  }
  for (; bytes > 0; data++, bytes--) h = (h ^ (uint8_t)*data) * 1099511628211ull;
  *(uint64_t *)context = h;
}

/* The rows of a value at this step's size: `width` bytes of every `pitch` from data on, some of them perhaps not its own. */
typedef struct memory {
  const tape_value *value; /* NULL: plain bytes */
  char *data;
  int64_t rows, width, pitch;
} memory;

static memory memory_of(const tape_exec *exec, const tape_value *value, const tape_unit *unit) {
  char *base = value->place == TAPE_INPUT    ? exec->slots[value->index]
               : value->place == TAPE_OUTPUT ? exec->slots[exec->num_inputs + value->index]
               : value->place == TAPE_BOUND  ? exec->bound[value->index].data
                                             : exec->arena + unit->layout->offsets[value->index];
  memory m = {value, base + value->offset, tape_rows(value, unit->tokens, unit->seqs), value->row_bytes, value->row_bytes};
  if (value->strides) {
    int64_t elements = 1, last = 0;
    for (int32_t d = 1; d < value->type.ndim; d++) {
      elements *= value->type.dims[d].constant;
      last += (value->type.dims[d].constant - 1) * value->strides[d];
    }
    const int64_t size = value->row_bytes / elements;
    m.width = (last + 1) * size;
    m.pitch = value->strides[0] * size;
  }
  return m;
}

static bool overlaps(memory a, memory b) {
  if (a.rows <= 0 || b.rows <= 0 || !a.width || !b.width) return false;
  if (a.data >= b.data + (b.rows - 1) * b.pitch + b.width || b.data >= a.data + (a.rows - 1) * a.pitch + a.width) return false;
  if (a.pitch != b.pitch) return true;
  /* columns of the same rows: how far into a row of a does b begin? */
  int64_t shift = (b.data - a.data) % a.pitch;
  if (shift < 0) shift += a.pitch;
  return shift < a.width || shift + b.width > a.pitch;
}

/* The bytes of `m` where the host can read them: on a device a copy, until the next one. On failure nothing is to be read. */
static memory readable(const tape_exec *exec, memory m, adcg_status *status) {
  const tape_device *on = exec->on;
  if (on == &tape_host) return m;
  if (m.rows <= 0 || !m.width) return m;
  if (!*status) *status = on->fetch(on, exec->stream, exec->verify_scratch, m.data, (size_t)((m.rows - 1) * m.pitch + m.width));
  if (*status) m.rows = 0;
  m.data = exec->verify_scratch;
  return m;
}

static void each_run(memory m, void (*fn)(char *run, int64_t bytes, void *context), void *context) {
  for (int64_t row = 0; row < m.rows; row++) tape_each_run(m.value, m.data, row, fn, context);
}

static uint64_t hash(const tape_exec *exec, memory m, adcg_status *status) {
  uint64_t h = 1469598103934665603ull;
  each_run(readable(exec, m, status), hash_run, &h);
  return h;
}

typedef struct filling {
  const tape_exec *exec;
  int byte;
  adcg_status *status;
} filling;

static void fill_run(char *run, int64_t bytes, void *context) {
  const filling *f = context;
  if (!*f->status && bytes > 0) *f->status = f->exec->on->fill(f->exec->on, f->exec->stream, run, f->byte, (size_t)bytes);
}

static void fill(const tape_exec *exec, memory m, int byte, adcg_status *status) {
  filling f = {exec, byte, status};
  if (m.value->strides)
    each_run(m, fill_run, &f);
  else
    fill_run(m.data, m.rows * m.width, &f);
}

/* Whether the op may write what `m` holds: its outputs, the states it mutates, its workspace. */
static bool may_write(const tape_exec *exec, const tape_node *node, const tape_unit *unit, memory m) {
  for (int32_t i = 0; i < node->num_outputs; i++)
    if (overlaps(m, memory_of(exec, &exec->values[node->outputs[i]], unit))) return true;
  for (int32_t i = 0; i < node->num_inputs; i++)
    if ((node->mutates >> i & 1) && overlaps(m, memory_of(exec, &exec->values[node->inputs[i]], unit))) return true;
  if (node->workspace_block < 0) return false;
  const int64_t bytes = unit->layout->bytes[node->workspace_block];
  return overlaps(m, (memory){NULL, exec->arena + unit->layout->offsets[node->workspace_block], 1, bytes, bytes});
}

/* Whether an output shares memory with one of the op's inputs: in place, its old bytes are the input. */
static bool in_place(const tape_exec *exec, const tape_node *node, const tape_unit *unit, memory output) {
  for (int32_t i = 0; i < node->num_inputs; i++)
    if (overlaps(output, memory_of(exec, &exec->values[node->inputs[i]], unit))) return true;
  return false;
}

static void find_written(char *run, int64_t bytes, void *context) {
  for (int64_t i = 0; i < bytes; i++)
    if ((unsigned char)run[i] != kUnwritten) *(bool *)context = true;
}

static int64_t first_unwritten_row(memory m, int64_t rows) {
  for (int64_t row = 0; row < rows && m.width > 0; row++) {
    bool written = false;
    tape_each_run(m.value, m.data, row, find_written, &written);
    if (!written) return row;
  }
  return -1;
}

static void find_not_zero(char *run, int64_t bytes, void *context) {
  for (int64_t i = 0; i < bytes; i++)
    if (run[i]) *(bool *)context = true;
}

/* The value's bytes count: it is given from outside or written by an earlier op, and somebody reads it at `node` or later. */
static bool alive(const tape_exec *exec, int32_t value, int32_t node, const int32_t *producer) {
  const tape_value *v = &exec->values[value];
  return v->role != ADCG_ROLE_ACTIVATION || (producer[value] < node && v->last >= node);
}

static adcg_status check_outputs(const tape_exec *exec, const tape_unit *unit, const tape_node *node, const bool *fresh) {
  for (int32_t i = 0; i < node->num_outputs; i++) {
    const tape_value *value = &exec->values[node->outputs[i]];
    adcg_status status = ADCG_OK;
    memory m = readable(exec, memory_of(exec, value, unit), &status);
    if (status) return tape_fail_device(status, kReplay, "verify");
    int64_t real = tape_rows(value, exec->real_tokens, exec->real_seqs);
    int64_t row = fresh[i] ? first_unwritten_row(m, real) : -1;
    if (row >= 0)
      return tape_fail(ADCG_ERR_OP, kReplay, "op `%s`: left row %lld of its output %d unwritten (verify: outputs)", node->name,
                       (long long)row, (int)i);
    if (!node->zeroes_tail) continue;
    bool dirty = false;
    for (int64_t tail = real; tail < m.rows; tail++) tape_each_run(value, m.data, tail, find_not_zero, &dirty);
    if (dirty)
      return tape_fail(ADCG_ERR_OP, kReplay, "op `%s`: left the tail of its output %d not zero (verify: tails)", node->name, (int)i);
  }
  return ADCG_OK;
}

static void poison_dead(const tape_exec *exec, const tape_unit *unit, int32_t node, const int32_t *producer, adcg_status *status) {
  for (int32_t v = 0; v < exec->num_values; v++) {
    const tape_value *value = &exec->values[v];
    bool dies = value->role == ADCG_ROLE_ACTIVATION && value->place == TAPE_ARENA && value->last == node;
    if (!dies) continue;
    memory m = memory_of(exec, value, unit);
    bool shared = false; /* with a value that lives on: a view, or an output in place */
    for (int32_t o = 0; o < exec->num_values && !shared; o++)
      shared = o != v && exec->values[o].last > node && producer[o] <= node && overlaps(m, memory_of(exec, &exec->values[o], unit));
    if (!shared) fill(exec, m, kDead, status);
  }
}

enum { kMaxOutputs = 64 }; /* of one op: ValidateSchema holds it */

adcg_status tape_verify_run(tape_exec *exec, tape_unit *unit) {
  uint64_t *before = exec->verify_hashes;
  int32_t *producer = exec->verify_producers;
  for (int32_t v = 0; v < exec->num_values; v++) producer[v] = -1;
  for (int32_t n = 0; n < exec->num_nodes; n++)
    for (int32_t i = 0; i < exec->nodes[n].num_outputs; i++) producer[exec->nodes[n].outputs[i]] = n;

  for (int32_t s = 0; s < unit->num_steps; s++) {
    int32_t n = unit->nodes[s];
    const tape_node *node = &exec->nodes[n];
    bool fresh[kMaxOutputs] = {false};
    adcg_status device = ADCG_OK;
    for (int32_t i = 0; i < node->num_outputs; i++) {
      memory m = memory_of(exec, &exec->values[node->outputs[i]], unit);
      fresh[i] = !in_place(exec, node, unit, m);
      if (fresh[i]) fill(exec, m, kUnwritten, &device);
    }
    for (int32_t v = 0; v < exec->num_values; v++) {
      memory m = memory_of(exec, &exec->values[v], unit);
      if (alive(exec, v, n, producer) && !may_write(exec, node, unit, m)) before[v] = hash(exec, m, &device);
    }
    if (device) return tape_fail_device(device, kReplay, "verify");
    adcg_status status = unit->steps[s].run(unit->steps[s].call, unit->steps[s].user_data);
    if (status) return tape_fail_step(exec, kReplay, unit, &unit->steps[s], status);
    for (int32_t v = 0; v < exec->num_values; v++) {
      memory m = memory_of(exec, &exec->values[v], unit);
      if (alive(exec, v, n, producer) && !may_write(exec, node, unit, m) && before[v] != hash(exec, m, &device) && !device)
        return tape_fail(ADCG_ERR_OP, kReplay, "op `%s`: wrote to `%s`, which it did not declare (verify: mutation)", node->name,
                         exec->values[v].name);
    }
    if (device) return tape_fail_device(device, kReplay, "verify");
    status = check_outputs(exec, unit, node, fresh);
    if (status) return status;
    poison_dead(exec, unit, n, producer, &device);
    if (device) return tape_fail_device(device, kReplay, "verify");
  }
  return ADCG_OK;
}
