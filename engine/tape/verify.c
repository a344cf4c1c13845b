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
static uint64_t hash(const char *data, int64_t bytes) {
  uint64_t h = 1469598103934665603ull;
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    memcpy(&word, data, 8);
    h = (h ^ word) * 1099511628211ull;
    h ^= h >> 29;
  }
  for (; bytes > 0; data++, bytes--) h = (h ^ (uint8_t)*data) * 1099511628211ull;
  return h;
}

typedef struct memory {
  char *data;
  int64_t bytes;
} memory;

static memory memory_of(const tape_exec *exec, const tape_value *value, int64_t tokens, int64_t seqs) {
  char *base = value->place == TAPE_INPUT    ? exec->slots[value->index]
               : value->place == TAPE_OUTPUT ? exec->slots[exec->num_inputs + value->index]
               : value->place == TAPE_BOUND  ? exec->bound[value->index].data
                                             : exec->arena;
  return (memory){base + value->offset, tape_rows(value, tokens, seqs) * value->row_bytes};
}

static bool overlaps(memory a, memory b) { return a.bytes > 0 && b.bytes > 0 && a.data < b.data + b.bytes && b.data < a.data + a.bytes; }

/* Whether the op may write what `m` holds: its outputs, the states it mutates, its workspace. */
static bool may_write(const tape_exec *exec, const tape_node *node, const tape_unit *unit, memory m) {
  for (int32_t i = 0; i < node->num_outputs; i++)
    if (overlaps(m, memory_of(exec, &exec->values[node->outputs[i]], unit->tokens, unit->seqs))) return true;
  for (int32_t i = 0; i < node->num_inputs; i++)
    if ((node->mutates >> i & 1) && overlaps(m, memory_of(exec, &exec->values[node->inputs[i]], unit->tokens, unit->seqs))) return true;
  return overlaps(m, (memory){exec->arena + node->workspace_offset, node->workspace_bytes});
}

/* Whether an output shares memory with one of the op's inputs: in place, its old bytes are the input. */
static bool in_place(const tape_exec *exec, const tape_node *node, const tape_unit *unit, memory output) {
  for (int32_t i = 0; i < node->num_inputs; i++)
    if (overlaps(output, memory_of(exec, &exec->values[node->inputs[i]], unit->tokens, unit->seqs))) return true;
  return false;
}

static int64_t first_unwritten_row(memory m, int64_t rows, int64_t row_bytes) {
  for (int64_t r = 0; r < rows; r++) {
    const unsigned char *row = (const unsigned char *)m.data + r * row_bytes;
    int64_t i = 0;
    while (i < row_bytes && row[i] == kUnwritten) i++;
    if (i == row_bytes && row_bytes > 0) return r;
  }
  return -1;
}

/* The value's bytes count: it is given from outside or written by an earlier op, and somebody reads it at `node` or later. */
static bool alive(const tape_exec *exec, int32_t value, int32_t node, const int32_t *producer) {
  const tape_value *v = &exec->values[value];
  return v->role != ADCG_ROLE_ACTIVATION || (producer[value] < node && v->last >= node);
}

static adcg_status check_outputs(const tape_exec *exec, const tape_unit *unit, const tape_node *node, const bool *fresh) {
  for (int32_t i = 0; i < node->num_outputs; i++) {
    const tape_value *value = &exec->values[node->outputs[i]];
    memory m = memory_of(exec, value, unit->tokens, unit->seqs);
    int64_t real = tape_rows(value, exec->real_tokens, exec->real_seqs);
    int64_t row = fresh[i] ? first_unwritten_row(m, real, value->row_bytes) : -1;
    if (row >= 0)
      return tape_fail(ADCG_ERR_OP, kReplay, "op `%s`: left row %lld of its output %d unwritten (verify: outputs)", node->name,
                       (long long)row, (int)i);
    if (!node->zeroes_tail) continue;
    for (const char *p = m.data + real * value->row_bytes; p < m.data + m.bytes; p++)
      if (*p)
        return tape_fail(ADCG_ERR_OP, kReplay, "op `%s`: left the tail of its output %d not zero (verify: tails)", node->name, (int)i);
  }
  return ADCG_OK;
}

static void poison_dead(const tape_exec *exec, const tape_unit *unit, int32_t node, const int32_t *producer) {
  for (int32_t v = 0; v < exec->num_values; v++) {
    const tape_value *value = &exec->values[v];
    bool dies = value->role == ADCG_ROLE_ACTIVATION && value->place == TAPE_ARENA && value->last == node;
    if (!dies) continue;
    memory m = memory_of(exec, value, unit->tokens, unit->seqs);
    bool shared = false; /* with a value that lives on: a view, or an output in place */
    for (int32_t o = 0; o < exec->num_values && !shared; o++)
      shared = o != v && exec->values[o].last > node && producer[o] <= node &&
               overlaps(m, memory_of(exec, &exec->values[o], unit->tokens, unit->seqs));
    if (!shared) memset(m.data, kDead, (size_t)m.bytes);
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
    for (int32_t i = 0; i < node->num_outputs; i++) {
      memory m = memory_of(exec, &exec->values[node->outputs[i]], unit->tokens, unit->seqs);
      fresh[i] = !in_place(exec, node, unit, m);
      if (fresh[i]) memset(m.data, kUnwritten, (size_t)m.bytes);
    }
    for (int32_t v = 0; v < exec->num_values; v++) {
      memory m = memory_of(exec, &exec->values[v], unit->tokens, unit->seqs);
      if (alive(exec, v, n, producer) && !may_write(exec, node, unit, m)) before[v] = hash(m.data, m.bytes);
    }
    adcg_status status = unit->steps[s].run(unit->steps[s].call, unit->steps[s].user_data);
    if (status) return tape_fail_step(exec, kReplay, unit, &unit->steps[s], status);
    for (int32_t v = 0; v < exec->num_values; v++) {
      memory m = memory_of(exec, &exec->values[v], unit->tokens, unit->seqs);
      if (alive(exec, v, n, producer) && !may_write(exec, node, unit, m) && before[v] != hash(m.data, m.bytes))
        return tape_fail(ADCG_ERR_OP, kReplay, "op `%s`: wrote to `%s`, which it did not declare (verify: mutation)", node->name,
                         exec->values[v].name);
    }
    status = check_outputs(exec, unit, node, fresh);
    if (status) return status;
    poison_dead(exec, unit, n, producer);
  }
  return ADCG_OK;
}
