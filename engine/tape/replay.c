/* A step, from the call to the counters. */
#include "tape.h"

#include <string.h>

static const char kReplay[] = "adcg_exec_replay";

bool tape_acquire(tape_exec *exec) {
  int32_t idle = 0;
  return atomic_compare_exchange_strong_explicit(&exec->busy, &idle, 1, memory_order_acquire, memory_order_relaxed);
}

void tape_release(tape_exec *exec) { atomic_store_explicit(&exec->busy, 0, memory_order_release); }

/* ---- Running -------------------------------------------------------------------------------------------------- */

/* Four steps a turn: on an empty op a jump backwards is a good part of the cost. */
static inline adcg_status run(const tape_step *step, const tape_step *end, const tape_step **failed) {
  adcg_status status = ADCG_OK;
#define STEP(i)                                          \
  status = step[i].run(step[i].call, step[i].user_data); \
  if (UNLIKELY(status)) {                                \
    *failed = step + (i);                                \
    return status;                                       \
  }
  for (; end - step >= 4; step += 4) {
    STEP(0) STEP(1) STEP(2) STEP(3)
  }
  for (; step < end; step++) {
    STEP(0)
  }
#undef STEP
  return status;
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
    adcg_status status = run(unit->runs + unit->run_begin[p], unit->runs + unit->run_begin[p + 1], &failed);
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
  adcg_status status = run(unit->runs, unit->runs + unit->num_runs, &failed);
  return LIKELY(!status) ? ADCG_OK : tape_fail_step(exec, kReplay, unit, failed, status);
}

/* Brings the units of a step to its size and its addresses. */
static adcg_status fit_units(tape_exec *exec, const tape_route *r, adcg_step *step) {
  if (r->mode == ADCG_MODE_PIECEWISE) {
    tape_unit_resize(exec, exec->dynamic, r->tokens, r->seqs);
    tape_unit_stream(exec->dynamic, exec->stream);
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
    tape_unit_stream(unit, exec->stream);
    adcg_status status = tape_check_workspaces(exec, kReplay, unit);
    if (status) return status;
  }
  step->repointed += tape_unit_point(exec, unit);
  return ADCG_OK;
}

/* A unit that is yet to be captured, or to be captured anew: it must be before the step can run. */
static int32_t missing_bucket(const tape_exec *exec, const tape_route *r) {
  const int32_t wanted[] = {r->full, r->token_part, r->seq_part};
  for (int32_t i = 0; i < 3; i++) {
    if (wanted[i] < 0) continue;
    const tape_bucket *bucket = &exec->buckets[wanted[i]];
    if (atomic_load_explicit(&bucket->state, memory_order_relaxed) == ADCG_BUCKET_EMPTY || bucket->unit->stale) return wanted[i];
  }
  return -1;
}

static void count(tape_exec *exec, const tape_route *r, const adcg_step *step) {
  tape_counters *c = &exec->counters;
  tape_count(&c->steps, 1);
  tape_count(r->mode == ADCG_MODE_FULL ? &c->full_steps : r->mode == ADCG_MODE_PIECEWISE ? &c->piecewise_steps : &c->eager_steps, 1);
  tape_count(&c->reasons[r->reason], 1);
  tape_count(&c->real_tokens, exec->real_tokens);
  tape_count(&c->padded_tokens, step->padded_tokens);
  if (step->repointed) tape_count(&c->repointed, step->repointed);
  if (step->staged_bytes) tape_count(&c->staged_bytes, step->staged_bytes);
  if (r->full >= 0) tape_count(&exec->buckets[r->full].replays, 1);
  if (r->token_part >= 0) tape_count(&exec->buckets[r->token_part].replays, 1);
  if (r->seq_part >= 0) tape_count(&exec->buckets[r->seq_part].replays, 1);
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

static inline bool same_batch(const adcg_batch *a, const adcg_batch *b) {
  return ((a->struct_size ^ b->struct_size) | (uint64_t)(a->prefill_seqs ^ b->prefill_seqs) |
          (uint64_t)(a->prefill_tokens ^ b->prefill_tokens) | (uint64_t)(a->extend_seqs ^ b->extend_seqs) |
          (uint64_t)(a->extend_tokens ^ b->extend_tokens) | (uint64_t)(a->decode_seqs ^ b->decode_seqs) |
          (uint64_t)(a->query_len ^ b->query_len)) == 0;
}

/* Whether this step is just like the one before, which was checked and dispatched. */
static inline bool repeats(const tape_exec *exec, const adcg_batch *batch, const DLTensor *inputs, const DLTensor *outputs,
                           const void *stream) {
  const tape_memo *memo = &exec->memo;
  if (memo->generation != exec->generation || memo->stream != stream || !same_batch(batch, &exec->batch)) return false;
  for (int32_t i = 0; i < exec->num_inputs; i++)
    if (!same_tensor(&memo->ports[i], memo->rows[i], &exec->values[exec->inputs[i].value].type, &inputs[i])) return false;
  for (int32_t i = 0, k = exec->num_inputs; i < exec->num_outputs; i++, k++)
    if (!same_tensor(&memo->ports[k], memo->rows[k], &exec->values[exec->outputs[i].value].type, &outputs[i])) return false;
  return true;
}

static void remember(tape_exec *exec, const tape_route *r, const DLTensor *inputs, const DLTensor *outputs, void *stream) {
  tape_memo *memo = &exec->memo;
  memo->plain = exec->num_copies == 0;
  for (int32_t i = 0; i < exec->num_inputs + exec->num_outputs; i++) {
    bool output = i >= exec->num_inputs;
    const tape_value *value = &exec->values[output ? exec->outputs[i - exec->num_inputs].value : exec->inputs[i].value];
    memo->ports[i] = output ? outputs[i - exec->num_inputs] : inputs[i];
    memo->rows[i] = memo->ports[i].shape[0];
    int64_t rows = tape_rows(value, r->tokens, r->seqs);
    bool tail = !output && rows > tape_rows(value, exec->real_tokens, exec->real_seqs);
    if (tail || memo->rows[i] < rows || exec->slots[i] != adcg_data(&memo->ports[i])) memo->plain = false;
  }
  memo->route = *r;
  memo->stream = stream;
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
  if (UNLIKELY(stream != NULL && !exec->on->open_stream))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "stream: %p: the host device has none, pass NULL", stream);
  if (UNLIKELY(out_step && out_step->struct_size < sizeof *out_step))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "out_step: struct_size: %zu, use ADCG_STEP_INIT", out_step->struct_size);
  return ADCG_OK;
}

adcg_status tape_check_held(const tape_exec *exec, const char *function) {
  return exec->released ? tape_fail(ADCG_ERR_STATE, function, "exec: released, call adcg_exec_restore first") : ADCG_OK;
}

static adcg_status check_state(const tape_exec *exec) {
  adcg_status status = tape_check_held(exec, kReplay);
  if (status) return status;
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
  if (!status) status = tape_take_batch(exec, batch);
  if (!status) status = tape_check_tensors(exec, inputs, outputs);
  if (UNLIKELY(status)) return status;
  if (exec->real_tokens == 0) {
    *r = (tape_route){ADCG_MODE_NONE, ADCG_REASON_EMPTY, -1, -1, -1, 0, 0};
    return ADCG_OK;
  }
  *r = tape_dispatch(exec);
  int32_t missing = missing_bucket(exec, r);
  if (UNLIKELY(missing >= 0)) {
    *out_bucket = missing;
    return TAPE_WANT_BUCKET;
  }
  if (UNLIKELY(!tape_fits(exec, r->tokens, r->seqs))) return TAPE_WANT_MEMORY;
  return tape_check_overlaps(exec, inputs, outputs, r);
}

/* Enqueues a step, or on the host runs it; `bring`: there may be something to bring and to give. */
static adcg_status run_step(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, void *stream, const tape_route *r, bool bring,
                            adcg_step *step) {
  tape_clear_op_error();
  adcg_status status = ADCG_OK;
  const bool streams = exec->on->open_stream != NULL;
  if (streams) {
    status = tape_take_stream(exec, stream);
    if (LIKELY(!status)) status = tape_give_batch(exec);
    if (UNLIKELY(status)) return tape_fail_device(status, kReplay, "begin of the step");
  }
  if (bring) {
    status = tape_take_tensors(exec, inputs, outputs, r, step);
    if (LIKELY(!status)) status = fit_units(exec, r, step);
  }
  if (LIKELY(!status)) status = run_route(exec, r);
  if (LIKELY(!status) && bring) status = tape_give_outputs(exec, outputs, r->tokens, step);
  if (streams) { /* what was enqueued before a failure stays in front of what comes, too */
    adcg_status marked = tape_mark(exec);
    if (UNLIKELY(marked && !status)) status = tape_fail_device(marked, kReplay, "end of the step");
  }
  return status;
}

/* The same with the exec's device as this thread's. */
static adcg_status run_on_device(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, void *stream, const tape_route *r,
                                 bool bring, adcg_step *step) {
  if (!exec->on->enter) return run_step(exec, inputs, outputs, stream, r, bring, step);
  void *was = NULL;
  adcg_status status = tape_enter(exec->on, kReplay, &was);
  if (UNLIKELY(status)) return status;
  status = run_step(exec, inputs, outputs, stream, r, bring, step);
  tape_leave(exec->on, was);
  return status;
}

adcg_status tape_replay(tape_exec *exec, const adcg_batch *batch, const DLTensor *inputs, int32_t num_inputs, const DLTensor *outputs,
                        int32_t num_outputs, void *stream, adcg_step *out_step, int32_t *out_bucket) {
  adcg_status status = check_arguments(exec, batch, inputs, num_inputs, outputs, num_outputs, stream, out_step);
  if (UNLIKELY(status)) return status;
  adcg_step step = ADCG_STEP_INIT;
  bool again = repeats(exec, batch, inputs, outputs, stream);
  tape_route fresh, *r = &exec->memo.route;
  if (!again) {
    r = &fresh;
    status = plan_step(exec, batch, inputs, outputs, r, out_bucket);
    if (UNLIKELY(status)) return status;
  }
  bool bring = !again || !exec->memo.plain;
  if (LIKELY(r->reason != ADCG_REASON_EMPTY)) {
    status = run_on_device(exec, inputs, outputs, stream, r, bring, &step);
    if (UNLIKELY(status)) {
      exec->memo.generation = 0;
      exec->given.struct_size = 0; /* who knows how far the device got */
      tape_count(&exec->counters.failed_steps, 1);
      return status;
    }
    step.padded_tokens = r->tokens - exec->real_tokens;
    if (!again) remember(exec, r, inputs, outputs, stream);
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
