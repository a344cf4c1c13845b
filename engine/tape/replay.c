/* A step: which unit it runs in, where the caller's tensors are, and the running. */
#include "tape.h"

#include <stdio.h>
#include <string.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

static const char kReplay[] = "adcg_exec_replay";

static void add(_Atomic int64_t *counter, int64_t n) {
  /* one writer at a time (`busy`): readers see a moment's value, and no locked instruction is needed */
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

bool tape_acquire(tape_exec *exec) {
  int32_t idle = 0;
  return atomic_compare_exchange_strong_explicit(&exec->busy, &idle, 1, memory_order_acquire, memory_order_relaxed);
}

void tape_release(tape_exec *exec) { atomic_store_explicit(&exec->busy, 0, memory_order_release); }

/* ---- The batch ---------------------------------------------------------------------------------------------- */

static adcg_status check_kind(const tape_exec *exec, const char *kind, int64_t seqs, int64_t tokens) {
  if (seqs < 0 || tokens < 0)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld sequences with %lld tokens: counts are not negative", kind, (long long)seqs,
                     (long long)tokens);
  if (tokens < seqs)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld sequences with %lld tokens: each has at least one", kind, (long long)seqs,
                     (long long)tokens);
  if (seqs > exec->max_seqs)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld sequences, the graph's max_seqs is %lld", kind, (long long)seqs,
                     (long long)exec->max_seqs);
  if (seqs == 0 && tokens > 0)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld tokens without a sequence", kind, (long long)tokens);
  if (tokens > seqs * exec->max_seq_len)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld tokens in %lld sequences, the graph's max_seq_len is %lld", kind,
                     (long long)tokens, (long long)seqs, (long long)exec->max_seq_len);
  return ADCG_OK;
}

/* Copies the batch into the exec, where the calls point, and adds it up. */
static adcg_status take_batch(tape_exec *exec, const adcg_batch *batch) {
  if (UNLIKELY(batch->struct_size < sizeof *batch))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "batch: struct_size: %zu, use ADCG_BATCH_INIT", batch->struct_size);
  adcg_batch b = *batch;
  b.struct_size = sizeof b;
  adcg_status status;
  if ((b.prefill_seqs | b.prefill_tokens) && (status = check_kind(exec, "prefill", b.prefill_seqs, b.prefill_tokens))) return status;
  if ((b.extend_seqs | b.extend_tokens) && (status = check_kind(exec, "extend", b.extend_seqs, b.extend_tokens))) return status;
  if (b.decode_seqs && (status = check_kind(exec, "decode", b.decode_seqs, b.decode_seqs))) return status;
  int64_t tokens = adcg_batch_tokens(&b), seqs = adcg_batch_seqs(&b);
  if (UNLIKELY(tokens > exec->max_tokens))
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %lld tokens, the graph's max_tokens is %lld", (long long)tokens,
                     (long long)exec->max_tokens);
  if (UNLIKELY(seqs > exec->max_seqs))
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %lld sequences, the graph's max_seqs is %lld", (long long)seqs,
                     (long long)exec->max_seqs);
  if (UNLIKELY(b.query_len != 0 && (b.query_len < 0 || b.query_len > exec->max_tokens || b.query_len * seqs != tokens)))
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: query_len: %lld, but %lld sequences have %lld tokens", (long long)b.query_len,
                     (long long)seqs, (long long)tokens);
  exec->batch = b;
  exec->real_tokens = tokens;
  exec->real_seqs = seqs;
  return ADCG_OK;
}

/* ---- Dispatch ----------------------------------------------------------------------------------------------- */

/* The bucket of the smallest size >= n that may be used: captured, or to be captured now. -1: none, and *reason says why. */
static int32_t pick(const tape_exec *exec, tape_ladder *ladder, int64_t n, int32_t *reason) {
  int32_t i = ladder->last;
  if (!(i < ladder->count && ladder->sizes[i] >= n && (i == 0 || ladder->sizes[i - 1] < n))) {
    int32_t low = 0, high = ladder->count;
    while (low < high) {
      int32_t middle = (low + high) / 2;
      if (ladder->sizes[middle] < n)
        low = middle + 1;
      else
        high = middle;
    }
    i = low;
    if (i == ladder->count) {
      *reason = ADCG_REASON_TOO_LARGE;
      return -1;
    }
    ladder->last = i;
  }
  for (; i < ladder->count; i++) {
    int32_t state = atomic_load_explicit(&exec->buckets[ladder->buckets[i]].state, memory_order_relaxed);
    if (state == ADCG_BUCKET_CAPTURED || (state == ADCG_BUCKET_EMPTY && exec->policy == ADCG_CAPTURE_ON_FIRST_USE))
      return ladder->buckets[i];
    if (state == ADCG_BUCKET_FAILED) {
      *reason = ADCG_REASON_CAPTURE_FAILED;
      return -1;
    }
  }
  *reason = ADCG_REASON_NOT_CAPTURED;
  return -1;
}

static int32_t pick_full(tape_exec *exec, int32_t *reason) {
  int64_t tokens = exec->real_tokens, seqs = exec->real_seqs;
  int32_t found = -1;
  *reason = ADCG_REASON_SUPPORT;
  if (tokens == seqs && exec->ladders[TAPE_LADDER_DECODE].count) {
    found = pick(exec, &exec->ladders[TAPE_LADDER_DECODE], seqs, reason);
  } else if (exec->query_len > 1 && exec->batch.query_len == exec->query_len && exec->ladders[TAPE_LADDER_UNIFORM].count) {
    found = pick(exec, &exec->ladders[TAPE_LADDER_UNIFORM], seqs, reason);
  }
  if (found < 0 && exec->ladders[TAPE_LADDER_MIXED].count) found = pick(exec, &exec->ladders[TAPE_LADDER_MIXED], tokens, reason);
  if (found < 0 && exec->mode == ADCG_MODE_FULL_DECODE_ONLY && tokens != seqs) *reason = ADCG_REASON_MODE;
  return found;
}

static tape_route dispatch(tape_exec *exec) {
  tape_route r = {ADCG_MODE_NONE, ADCG_REASON_MODE, -1, -1, -1, exec->real_tokens, exec->real_seqs};
  if (exec->verify) {
    r.reason = ADCG_REASON_VERIFY;
    return r;
  }
  bool full = exec->mode == ADCG_MODE_FULL || exec->mode == ADCG_MODE_FULL_DECODE_ONLY || exec->mode == ADCG_MODE_FULL_AND_PIECEWISE;
  if (full) {
    r.full = pick_full(exec, &r.reason);
    if (r.full >= 0) {
      r.mode = ADCG_MODE_FULL;
      r.reason = ADCG_REASON_NONE;
      r.tokens = exec->buckets[r.full].size.tokens;
      r.seqs = exec->buckets[r.full].size.seqs;
      return r;
    }
  }
  tape_ladder *by_tokens = &exec->ladders[TAPE_LADDER_TOKENS], *by_seqs = &exec->ladders[TAPE_LADDER_SEQS];
  if (by_tokens->count + by_seqs->count == 0) return r;
  if (by_tokens->count) {
    r.token_part = pick(exec, by_tokens, exec->real_tokens, &r.reason);
    if (r.token_part < 0) return r;
  }
  if (by_seqs->count) {
    r.seq_part = pick(exec, by_seqs, exec->real_seqs, &r.reason);
    if (r.seq_part < 0) return r;
  }
  if (r.token_part >= 0) r.tokens = exec->buckets[r.token_part].size.tokens;
  if (r.seq_part >= 0) r.seqs = exec->buckets[r.seq_part].size.seqs;
  r.mode = ADCG_MODE_PIECEWISE;
  return r;
}

/* ---- The caller's tensors ------------------------------------------------------------------------------------- */

adcg_status tape_check_tensor(const tape_exec *exec, const char *function, const char *what, const tape_value *value,
                              const DLTensor *tensor, int64_t min_rows, bool exact) {
  const adcg_type *type = &value->type;
  DLDataType want = adcg_dtype_to_dlpack(type->dtype);
  if (UNLIKELY(tensor->device.device_type != exec->device.device_type || tensor->device.device_id != exec->device.device_id))
    return tape_fail(ADCG_ERR_DEVICE, function, "%s `%s`: device type %d number %d, needs type %d number %d", what, value->name,
                     (int)tensor->device.device_type, (int)tensor->device.device_id, (int)exec->device.device_type,
                     (int)exec->device.device_id);
  if (UNLIKELY(tensor->dtype.code != want.code || tensor->dtype.bits != want.bits || tensor->dtype.lanes != want.lanes))
    return tape_fail(ADCG_ERR_DTYPE, function, "%s `%s`: DLPack dtype (code %d, %d bits, %d lanes), needs (code %d, %d bits, 1 lane)", what,
                     value->name, tensor->dtype.code, tensor->dtype.bits, tensor->dtype.lanes, want.code, want.bits);
  if (UNLIKELY(tensor->ndim != type->ndim))
    return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: %d dims, needs %d", what, value->name, (int)tensor->ndim, (int)type->ndim);
  if (UNLIKELY(!tensor->shape)) return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: shape: NULL", what, value->name);
  int64_t rows = tensor->shape[0];
  if (UNLIKELY(rows < min_rows || (exact && rows != min_rows)))
    return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: %lld rows, needs %s%lld", what, value->name, (long long)rows,
                     exact ? "" : "at least ", (long long)min_rows);
  for (int32_t d = 1; d < type->ndim; d++)
    if (UNLIKELY(tensor->shape[d] != type->dims[d].constant))
      return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: dim %d is %lld, needs %lld", what, value->name, (int)d,
                       (long long)tensor->shape[d], (long long)type->dims[d].constant);
  if (tensor->strides) {
    int64_t step = 1;
    for (int32_t d = type->ndim - 1; d >= 0; d--) {
      if (UNLIKELY(tensor->shape[d] > 1 && tensor->strides[d] != step))
        return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: not contiguous: stride %lld in dim %d, needs %lld", what, value->name,
                         (long long)tensor->strides[d], (int)d, (long long)step);
      step *= tensor->shape[d];
    }
  }
  uintptr_t address = (uintptr_t)tensor->data + tensor->byte_offset;
  if (UNLIKELY(!tensor->data && rows > 0)) return tape_fail(ADCG_ERR_ADDRESS, function, "%s `%s`: data: NULL", what, value->name);
  if (UNLIKELY(address & ((uintptr_t)want.bits / 8 - 1)))
    return tape_fail(ADCG_ERR_ADDRESS, function, "%s `%s`: data: %p is not a multiple of the element size %d", what, value->name,
                     (void *)address, want.bits / 8);
  return ADCG_OK;
}

static bool overlap(const char *a, int64_t a_bytes, const char *b, int64_t b_bytes) {
  return (uintptr_t)a < (uintptr_t)b + (uintptr_t)b_bytes && (uintptr_t)b < (uintptr_t)a + (uintptr_t)a_bytes;
}

/* What the step touches of one of the caller's tensors. */
typedef struct span {
  const char *data;
  int64_t bytes;      /* that are read or written */
  int64_t real_bytes; /* of those, the caller's own rows */
} span;

static span touched(const tape_exec *exec, const tape_port *port, const DLTensor *tensor, const tape_route *r) {
  const tape_value *value = &exec->values[port->value];
  int64_t rows = tape_rows(value, r->tokens, r->seqs), real = tape_rows(value, exec->real_tokens, exec->real_seqs);
  bool in_place = port->staged && tensor->shape[0] >= rows;
  return (span){adcg_data(tensor), (in_place ? rows : real) * value->row_bytes, real * value->row_bytes};
}

/* Outputs must not overlap anything, and the tails that the engine zeroes in inputs nothing that counts. Bound values are
 * compared only when an address or one of them has changed. */
static adcg_status check_overlaps(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, const tape_route *r) {
  int32_t ni = exec->num_inputs, no = exec->num_outputs;
  for (int32_t i = 0; i < ni + no; i++) {
    bool output = i >= ni;
    const tape_port *port = output ? &exec->outputs[i - ni] : &exec->inputs[i];
    span mine = touched(exec, port, output ? &outputs[i - ni] : &inputs[i], r);
    const char *write = output ? mine.data : mine.data + mine.real_bytes; /* what the step writes of it */
    int64_t write_bytes = output ? mine.bytes : mine.bytes - mine.real_bytes;
    const char *what = output ? "outputs" : "inputs";
    int32_t number = output ? i - ni : i;
    if (write_bytes > 0) {
      for (int32_t k = 0; k < ni; k++) {
        if (k == i) continue;
        span other = touched(exec, &exec->inputs[k], &inputs[k], r);
        if (UNLIKELY(overlap(write, write_bytes, other.data, output ? other.bytes : other.real_bytes)))
          return tape_fail(ADCG_ERR_ADDRESS, kReplay, "%s[%d] `%s`: rows that the step writes overlap inputs[%d] `%s`", what, (int)number,
                           port->name, (int)k, exec->inputs[k].name);
      }
    }
    if (output) {
      for (int32_t k = 0; k < number; k++) {
        span other = touched(exec, &exec->outputs[k], &outputs[k], r);
        if (UNLIKELY(overlap(write, write_bytes, other.data, other.bytes)))
          return tape_fail(ADCG_ERR_ADDRESS, kReplay, "outputs[%d] `%s`: overlaps outputs[%d] `%s`", (int)number, port->name, (int)k,
                           exec->outputs[k].name);
      }
    }
    tape_checked *seen = &exec->checked[i];
    if (LIKELY(seen->data == mine.data && seen->bytes >= mine.bytes && seen->bound_generation == exec->bound_generation)) continue;
    for (int32_t b = 0; b < exec->num_bound; b++) {
      const tape_value *value = &exec->values[exec->bound_values[b]];
      /* a weight is only read: an input may share memory with it, as long as no tail is zeroed there */
      bool harmless = !output && value->role == ADCG_ROLE_WEIGHT && write_bytes <= 0;
      if (UNLIKELY(!harmless && overlap(mine.data, mine.bytes, exec->bound[b].data, exec->bound[b].bytes)))
        return tape_fail(ADCG_ERR_ADDRESS, kReplay, "%s[%d] `%s`: overlaps the bound value `%s`", what, (int)number, port->name,
                         value->name);
    }
    *seen = (tape_checked){mine.data, mine.bytes, exec->bound_generation};
  }
  return ADCG_OK;
}

/* Whether a first dim depends on no count: then it is exact. */
static bool is_fixed(const tape_value *value) { return !value->type.dims[0].tokens && !value->type.dims[0].seqs; }

static adcg_status check_tensors(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs) {
  char what[32];
  for (int32_t i = 0; i < exec->num_inputs + exec->num_outputs; i++) {
    bool output = i >= exec->num_inputs;
    int32_t number = output ? i - exec->num_inputs : i;
    const tape_value *value = &exec->values[output ? exec->outputs[number].value : exec->inputs[number].value];
    const DLTensor *tensor = output ? &outputs[number] : &inputs[number];
    int64_t real = tape_rows(value, exec->real_tokens, exec->real_seqs);
    adcg_status status = tape_check_tensor(exec, kReplay, "", value, tensor, real, is_fixed(value));
    if (UNLIKELY(status)) { /* once more, with a name */
      tape_value named = *value;
      named.name = output ? exec->outputs[number].name : value->name;
      snprintf(what, sizeof what, "%s[%d]", output ? "outputs" : "inputs", (int)number);
      return tape_check_tensor(exec, kReplay, what, &named, tensor, real, is_fixed(value));
    }
  }
  return ADCG_OK;
}

/* Decides for each of the caller's tensors where it is used, and brings inputs to the bucket's size. */
static void take_tensors(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, const tape_route *r, adcg_step *step) {
  int64_t staged_tensors = 0;
  for (int32_t i = 0; i < exec->num_inputs; i++) {
    const tape_value *value = &exec->values[exec->inputs[i].value];
    int64_t rows = tape_rows(value, r->tokens, r->seqs), real = tape_rows(value, exec->real_tokens, exec->real_seqs);
    char *data = adcg_data(&inputs[i]);
    if (inputs[i].shape[0] < rows) {
      char *staging = exec->arena + exec->inputs[i].staging_offset;
      memcpy(staging, data, (size_t)(real * value->row_bytes));
      data = staging;
      step->staged_bytes += real * value->row_bytes;
      staged_tensors++;
    }
    if (rows > real) memset(data + real * value->row_bytes, 0, (size_t)((rows - real) * value->row_bytes));
    exec->slots[i] = data;
  }
  for (int32_t i = 0; i < exec->num_outputs; i++) {
    const tape_port *port = &exec->outputs[i];
    const tape_value *value = &exec->values[port->value];
    bool in_place = !port->staged || outputs[i].shape[0] >= tape_rows(value, r->tokens, r->seqs);
    exec->slots[exec->num_inputs + i] = in_place ? adcg_data(&outputs[i]) : exec->arena + port->staging_offset;
    staged_tensors += !in_place;
  }
  if (staged_tensors) add(&exec->counters.staged_tensors, staged_tensors);
}

/* The address of a value's first row, in this step. */
static const char *address_of(const tape_exec *exec, const tape_value *value) {
  switch (value->place) {
    case TAPE_INPUT: return (char *)exec->slots[value->index] + value->offset;
    case TAPE_OUTPUT: return (char *)exec->slots[exec->num_inputs + value->index] + value->offset;
    case TAPE_BOUND: return (char *)exec->bound[value->index].data + value->offset;
    default: return exec->arena + value->offset;
  }
}

/* Copies the real rows of outputs that were staged, or that live elsewhere. */
static void give_outputs(const tape_exec *exec, const DLTensor *outputs, adcg_step *step) {
  for (int32_t i = 0; i < exec->num_outputs; i++) {
    const char *at = exec->slots[exec->num_inputs + i];
    char *data = adcg_data(&outputs[i]);
    if (LIKELY(at == data)) continue;
    const tape_value *value = &exec->values[exec->outputs[i].value];
    int64_t bytes = tape_rows(value, exec->real_tokens, exec->real_seqs) * value->row_bytes;
    memcpy(data, at, (size_t)bytes);
    step->staged_bytes += bytes;
  }
  for (int32_t i = 0; i < exec->num_copies; i++) {
    const tape_copy *copy = &exec->copies[i];
    const tape_value *value = &exec->values[copy->value];
    int64_t bytes = tape_rows(value, exec->real_tokens, exec->real_seqs) * value->row_bytes;
    memcpy(adcg_data(&outputs[copy->output]), address_of(exec, value), (size_t)bytes);
  }
}

/* ---- Running -------------------------------------------------------------------------------------------------- */

adcg_status tape_run_dynamic(const adcg_op_call *call, void *user_data) {
  const tape_node *node = user_data;
  adcg_status status = node->launch(call, node->user_data);
  if (UNLIKELY(status)) return status;
  /* the padding contract: rows [real, bucket) of a dynamic op's outputs are zero for the next segment */
  const tape_exec *exec = (const tape_exec *)(uintptr_t)((const char *)call->batch - offsetof(tape_exec, batch));
  for (int32_t i = 0; i < node->num_outputs; i++) {
    const tape_value *value = &exec->values[node->outputs[i]];
    int64_t rows = call->outputs[i].shape[0], real = tape_rows(value, exec->real_tokens, exec->real_seqs);
    if (real < 0) real = 0;
    if (real < rows) memset((char *)call->outputs[i].data + real * value->row_bytes, 0, (size_t)((rows - real) * value->row_bytes));
  }
  return ADCG_OK;
}

static inline adcg_status run(const tape_step *step, const tape_step *end, const tape_step **failed) {
  for (; step < end; step++) {
    adcg_status status = step->run(step->call, step->user_data);
    if (UNLIKELY(status)) {
      *failed = step;
      return status;
    }
  }
  return ADCG_OK;
}

adcg_status tape_fail_step(const tape_exec *exec, const char *function, const tape_unit *unit, const tape_step *step, adcg_status status) {
  const tape_node *node = &exec->nodes[unit->nodes[step - unit->steps]];
  char message[768];
  snprintf(message, sizeof message, "%s", tape_op_error()); /* tape_fail writes into the same memory block */
  tape_clear_op_error();
  if (message[0]) return tape_fail(ADCG_ERR_OP, function, "op `%s`: %s", node->name, message);
  return tape_fail(ADCG_ERR_OP, function, "op `%s`: its launch returned %d (%s)", node->name, (int)status, tape_status_name(status));
}

/* Runs the partitions in order, each from the unit that holds it. */
static adcg_status run_piecewise(tape_exec *exec, const tape_route *r) {
  const tape_unit *units[] = {[TAPE_TOKEN_SEGMENT] = r->token_part >= 0 ? exec->buckets[r->token_part].unit : NULL,
                              [TAPE_SEQ_SEGMENT] = r->seq_part >= 0 ? exec->buckets[r->seq_part].unit : NULL,
                              [TAPE_DYNAMIC] = exec->dynamic,
                              [TAPE_VIEWS] = NULL};
  for (int32_t p = 0; p < exec->num_partitions; p++) {
    const tape_unit *unit = units[exec->partitions[p]];
    if (!unit) continue;
    const tape_step *failed;
    adcg_status status = run(unit->steps + unit->begin[p], unit->steps + unit->begin[p + 1], &failed);
    if (UNLIKELY(status)) return tape_fail_step(exec, kReplay, unit, failed, status);
  }
  return ADCG_OK;
}

/* The unit of a step that is not piecewise. */
static tape_unit *whole_unit(const tape_exec *exec, const tape_route *r) {
  return r->full >= 0 ? exec->buckets[r->full].unit : exec->eager;
}

static adcg_status run_route(tape_exec *exec, const tape_route *r) {
  if (r->mode == ADCG_MODE_PIECEWISE) return run_piecewise(exec, r);
  tape_unit *unit = whole_unit(exec, r);
  if (UNLIKELY(exec->verify)) return tape_verify_run(exec, unit);
  const tape_step *failed;
  adcg_status status = run(unit->steps, unit->steps + unit->num_steps, &failed);
  return LIKELY(!status) ? ADCG_OK : tape_fail_step(exec, kReplay, unit, failed, status);
}

/* Brings the units of a step to its size and its addresses. */
static adcg_status fit_units(tape_exec *exec, const tape_route *r, adcg_step *step) {
  if (r->mode == ADCG_MODE_PIECEWISE) {
    tape_unit_resize(exec, exec->dynamic, r->tokens, r->seqs);
    adcg_status status = tape_check_workspaces(exec, kReplay, exec->dynamic);
    if (status) return status;
    step->repointed += tape_unit_point(exec, exec->dynamic);
    if (r->token_part >= 0) step->repointed += tape_unit_point(exec, exec->buckets[r->token_part].unit);
    if (r->seq_part >= 0) step->repointed += tape_unit_point(exec, exec->buckets[r->seq_part].unit);
    return ADCG_OK;
  }
  tape_unit *unit = whole_unit(exec, r);
  if (r->full < 0) {
    tape_unit_resize(exec, unit, r->tokens, r->seqs);
    adcg_status status = tape_check_workspaces(exec, kReplay, unit);
    if (status) return status;
  }
  step->repointed += tape_unit_point(exec, unit);
  return ADCG_OK;
}

/* A captured unit that is yet to be captured: it must be before the step can run. */
static int32_t missing_bucket(const tape_exec *exec, const tape_route *r) {
  const int32_t wanted[] = {r->full, r->token_part, r->seq_part};
  for (int32_t i = 0; i < 3; i++)
    if (wanted[i] >= 0 && atomic_load_explicit(&exec->buckets[wanted[i]].state, memory_order_relaxed) == ADCG_BUCKET_EMPTY)
      return wanted[i];
  return -1;
}

static void count(tape_exec *exec, const tape_route *r, const adcg_step *step) {
  tape_counters *c = &exec->counters;
  add(&c->steps, 1);
  add(r->mode == ADCG_MODE_FULL ? &c->full_steps : r->mode == ADCG_MODE_PIECEWISE ? &c->piecewise_steps : &c->eager_steps, 1);
  add(&c->reasons[r->reason], 1);
  add(&c->real_tokens, exec->real_tokens);
  add(&c->padded_tokens, step->padded_tokens);
  if (step->repointed) add(&c->repointed, step->repointed);
  if (step->staged_bytes) add(&c->staged_bytes, step->staged_bytes);
  if (r->full >= 0) add(&exec->buckets[r->full].replays, 1);
  if (r->token_part >= 0) add(&exec->buckets[r->token_part].replays, 1);
  if (r->seq_part >= 0) add(&exec->buckets[r->seq_part].replays, 1);
}

/* ---- The step before, again ------------------------------------------------------------------------------------- */

static inline bool same_tensor(const DLTensor *was, int64_t rows, const adcg_type *type, const DLTensor *is) {
  if (was->data != is->data || was->byte_offset != is->byte_offset || is->strides || was->ndim != is->ndim ||
      memcmp(&was->device, &is->device, sizeof is->device) != 0 || memcmp(&was->dtype, &is->dtype, sizeof is->dtype) != 0 ||
      is->shape[0] != rows)
    return false;
  for (int32_t d = 1; d < is->ndim; d++)
    if (is->shape[d] != type->dims[d].constant) return false;
  return true;
}

/* Whether this step is just like the one before, which was checked and dispatched. */
static inline bool repeats(const tape_exec *exec, const adcg_batch *batch, const DLTensor *inputs, const DLTensor *outputs) {
  const tape_memo *memo = &exec->memo;
  if (memo->generation != exec->generation || memcmp(batch, &exec->batch, sizeof *batch) != 0) return false;
  for (int32_t i = 0; i < exec->num_inputs; i++)
    if (!same_tensor(&memo->ports[i], memo->rows[i], &exec->values[exec->inputs[i].value].type, &inputs[i])) return false;
  for (int32_t i = 0, k = exec->num_inputs; i < exec->num_outputs; i++, k++)
    if (!same_tensor(&memo->ports[k], memo->rows[k], &exec->values[exec->outputs[i].value].type, &outputs[i])) return false;
  return true;
}

static void remember(tape_exec *exec, const tape_route *r, const DLTensor *inputs, const DLTensor *outputs) {
  tape_memo *memo = &exec->memo;
  memo->plain = exec->num_copies == 0;
  for (int32_t i = 0; i < exec->num_inputs + exec->num_outputs; i++) {
    bool output = i >= exec->num_inputs;
    const tape_value *value = &exec->values[output ? exec->outputs[i - exec->num_inputs].value : exec->inputs[i].value];
    memo->ports[i] = output ? outputs[i - exec->num_inputs] : inputs[i];
    memo->rows[i] = memo->ports[i].shape[0];
    int64_t rows = tape_rows(value, r->tokens, r->seqs);
    bool tail = !output && rows > tape_rows(value, exec->real_tokens, exec->real_seqs);
    if (tail || memo->rows[i] < rows) memo->plain = false;
  }
  memo->route = *r;
  memo->generation = exec->generation;
}

/* ---- A step ------------------------------------------------------------------------------------------------------- */

static adcg_status check_arguments(const tape_exec *exec, const adcg_batch *batch, const DLTensor *inputs, int32_t num_inputs,
                                   const DLTensor *outputs, int32_t num_outputs, const void *stream, const adcg_step *out_step) {
  if (UNLIKELY(!batch)) return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "batch: NULL");
  if (UNLIKELY(num_inputs != exec->num_inputs))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "num_inputs: %d, the graph has %d", (int)num_inputs, (int)exec->num_inputs);
  if (UNLIKELY(num_outputs != exec->num_outputs))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "num_outputs: %d, the graph has %d", (int)num_outputs, (int)exec->num_outputs);
  if (UNLIKELY((!inputs && num_inputs) || !outputs))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "%s: NULL", outputs ? "inputs" : "outputs");
  if (UNLIKELY(stream != NULL)) return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "stream: %p: the host device has none, pass NULL", stream);
  if (UNLIKELY(out_step && out_step->struct_size < sizeof *out_step))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "out_step: struct_size: %zu, use ADCG_STEP_INIT", out_step->struct_size);
  return ADCG_OK;
}

static adcg_status check_state(const tape_exec *exec) {
  if (exec->policy == ADCG_CAPTURE_EXPLICIT && !exec->capture_called && exec->num_buckets && !exec->verify)
    return tape_fail(ADCG_ERR_STATE, kReplay,
                     "nothing is captured: call adcg_exec_capture first, or leave options.capture at ON_FIRST_USE");
  if (!exec->num_unbound) return ADCG_OK;
  int32_t b = 0;
  while (exec->bound[b].data) b++;
  return tape_fail(ADCG_ERR_STATE, kReplay, "`%s`: not bound, call adcg_exec_bind first", exec->values[exec->bound_values[b]].name);
}

/* Checks a step that is new, and finds its route. */
static adcg_status plan_step(tape_exec *exec, const adcg_batch *batch, const DLTensor *inputs, const DLTensor *outputs, tape_route *r,
                             int32_t *out_bucket) {
  exec->memo.generation = 0; /* the batch in the exec is about to change */
  adcg_status status = check_state(exec);
  if (!status) status = take_batch(exec, batch);
  if (!status) status = check_tensors(exec, inputs, outputs);
  if (UNLIKELY(status)) return status;
  if (exec->real_tokens == 0) {
    *r = (tape_route){ADCG_MODE_NONE, ADCG_REASON_EMPTY, -1, -1, -1, 0, 0};
    return ADCG_OK;
  }
  *r = dispatch(exec);
  int32_t missing = missing_bucket(exec, r);
  if (UNLIKELY(missing >= 0)) {
    *out_bucket = missing;
    return TAPE_WANT_BUCKET;
  }
  return check_overlaps(exec, inputs, outputs, r);
}

adcg_status tape_replay(tape_exec *exec, const adcg_batch *batch, const DLTensor *inputs, int32_t num_inputs, const DLTensor *outputs,
                        int32_t num_outputs, void *stream, adcg_step *out_step, int32_t *out_bucket) {
  adcg_status status = check_arguments(exec, batch, inputs, num_inputs, outputs, num_outputs, stream, out_step);
  if (UNLIKELY(status)) return status;
  adcg_step step = ADCG_STEP_INIT;
  bool again = repeats(exec, batch, inputs, outputs);
  tape_route fresh, *r = &exec->memo.route;
  if (!again) {
    r = &fresh;
    status = plan_step(exec, batch, inputs, outputs, r, out_bucket);
    if (UNLIKELY(status)) return status;
  }
  bool bring = !again || !exec->memo.plain;
  if (LIKELY(r->reason != ADCG_REASON_EMPTY)) {
    tape_clear_op_error();
    if (bring) {
      take_tensors(exec, inputs, outputs, r, &step);
      status = fit_units(exec, r, &step);
    }
    if (LIKELY(!status)) status = run_route(exec, r);
    if (UNLIKELY(status)) {
      exec->memo.generation = 0;
      add(&exec->counters.failed_steps, 1);
      return status;
    }
    if (bring) give_outputs(exec, outputs, &step);
    step.padded_tokens = r->tokens - exec->real_tokens;
    if (!again) remember(exec, r, inputs, outputs);
  }
  count(exec, r, &step);
  if (out_step) {
    step.struct_size = out_step->struct_size;
    step.mode = r->mode;
    step.reason = r->reason;
    step.bucket_tokens = r->tokens;
    step.bucket_seqs = r->seqs;
    *out_step = step;
  }
  return ADCG_OK;
}
