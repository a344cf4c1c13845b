/* Control calls that the data plane needs: binding, warm-up, capture. */
#include "tape.h"

static const char kCapture[] = "adcg_exec_capture";

/* Graphs hold the addresses of bound values: those that hold this one are captured anew before they run again. */
static void outdate(tape_exec *exec, int32_t index) {
  const int32_t slot = exec->num_inputs + exec->num_outputs + index;
  for (int32_t b = 0; b < exec->num_buckets; b++) {
    tape_unit *unit = exec->buckets[b].unit;
    if (!unit || !unit->num_graphs) continue;
    for (int32_t p = unit->num_io_patches; p < unit->num_patches && !unit->stale; p++) unit->stale = unit->patches[p].slot == slot;
  }
}

adcg_status tape_bind(tape_exec *exec, int32_t index, const DLTensor *tensor) {
  static const char kBind[] = "adcg_exec_bind";
  const tape_value *value = &exec->values[exec->bound_values[index]];
  int64_t rows = tape_rows(value, 0, 0);
  adcg_status status = tape_check_tensor(exec, kBind, "tensor", value, tensor, rows, true);
  if (status) return status;
  char *data = adcg_data(tensor);
  int64_t bytes = rows * value->row_bytes;
  for (int32_t b = 0; b < exec->num_bound; b++) {
    /* weights may share memory (tied embeddings); what is written may not */
    const tape_value *other = &exec->values[exec->bound_values[b]];
    const tape_bound *held = &exec->bound[b];
    if (b == index || !held->data || (value->role == ADCG_ROLE_WEIGHT && other->role == ADCG_ROLE_WEIGHT)) continue;
    if ((uintptr_t)data < (uintptr_t)held->data + (uintptr_t)held->bytes && (uintptr_t)held->data < (uintptr_t)data + (uintptr_t)bytes)
      return tape_fail(ADCG_ERR_ADDRESS, kBind, "tensor `%s`: overlaps the bound value `%s`", value->name, other->name);
  }
  if (!exec->bound[index].data) exec->num_unbound--;
  if (exec->bound[index].data != data) outdate(exec, index);
  exec->bound[index] = (tape_bound){data, bytes};
  exec->bound_generation++;
  exec->generation++;
  return ADCG_OK;
}

/* The size at which a bucket is warmed up: that of the steps that it will serve. */
static void size_of(const tape_exec *exec, const adcg_bucket *size, int64_t *tokens, int64_t *seqs) {
  *tokens = size->tokens ? size->tokens : size->seqs;
  *seqs = size->seqs ? size->seqs : exec->max_seqs;
  if (*tokens > exec->max_tokens) *tokens = exec->max_tokens;
  if (*seqs > *tokens) *seqs = *tokens;
}

/* An empty batch over zeroed staging areas, as inputs and outputs. */
static adcg_status stage_nothing(tape_exec *exec, int64_t tokens, int64_t seqs) {
  const int64_t *offsets = tape_layout_of(exec, tokens)->offsets;
  exec->batch = (adcg_batch)ADCG_BATCH_INIT;
  exec->real_tokens = exec->real_seqs = 0;
  adcg_status status = tape_take_stream(exec, NULL);
  if (!status) status = tape_give_batch(exec);
  for (int32_t i = 0; i < exec->num_inputs && !status; i++) {
    const tape_value *value = &exec->values[exec->inputs[i].value];
    char *staging = exec->arena + offsets[exec->inputs[i].staging_block];
    status = exec->on->fill(exec->on, exec->stream, staging, 0, (size_t)(tape_rows(value, tokens, seqs) * value->row_bytes));
    exec->slots[i] = staging;
  }
  for (int32_t i = 0; i < exec->num_outputs; i++)
    exec->slots[exec->num_inputs + i] = exec->outputs[i].staged ? exec->arena + offsets[exec->outputs[i].staging_block] : NULL;
  return status ? tape_fail_device(status, kCapture, "staging") : ADCG_OK;
}

/* One eager pass: ops initialise lazily here, and write no state. */
static adcg_status warm_up(tape_exec *exec, int64_t tokens, int64_t seqs) {
  tape_unit *unit = exec->eager;
  tape_unit_resize(exec, unit, tokens, seqs);
  tape_unit_point(exec, unit);
  tape_unit_stream(unit, exec->stream);
  tape_clear_op_error();
  adcg_status status = tape_check_workspaces(exec, kCapture, unit);
  for (int32_t i = 0; i < unit->num_steps; i++) unit->calls[i].phase = ADCG_PHASE_WARMUP;
  for (int32_t i = 0; i < unit->num_steps && !status; i++) {
    status = unit->steps[i].run(unit->steps[i].call, unit->steps[i].user_data);
    if (status) status = tape_fail_step(exec, kCapture, unit, &unit->steps[i], status);
  }
  for (int32_t i = 0; i < unit->num_steps; i++) unit->calls[i].phase = ADCG_PHASE_REPLAY;
  return status;
}

/* Points a unit at the staging areas, records its graphs, and points it back at what it served. */
static adcg_status record(tape_exec *exec, tape_unit *unit, int32_t kind) {
  const int32_t io = exec->num_inputs + exec->num_outputs;
  if (!unit->graphs) return ADCG_OK;
  for (int32_t s = 0; s < io; s++)
    for (int32_t p = unit->patch_begin[s]; p < unit->patch_begin[s + 1]; p++)
      unit->patches[p].tensor->data = (char *)exec->slots[s] + unit->patches[p].offset;
  tape_unit_point_bound(exec, unit);
  adcg_status status = tape_record(exec, unit, kind);
  for (int32_t s = 0; s < io && !status; s++) {
    if (!unit->seen[s]) continue;
    for (int32_t p = unit->patch_begin[s]; p < unit->patch_begin[s + 1]; p++)
      unit->patches[p].tensor->data = (char *)unit->seen[s] + unit->patches[p].offset;
    tape_unit_point_graphs(exec, unit, s);
  }
  unit->stale = status != ADCG_OK;
  return status;
}

static adcg_status capture(tape_exec *exec, tape_bucket *bucket) {
  const int32_t kind = tape_bucket_kind(&bucket->size);
  int64_t tokens, seqs;
  size_of(exec, &bucket->size, &tokens, &seqs);
  adcg_status status = stage_nothing(exec, tokens, seqs);
  if (!status) status = warm_up(exec, tokens, seqs);
  if (status) return status;
  if (!bucket->unit) bucket->unit = tape_unit_create(exec, kind, bucket->size.tokens, bucket->size.seqs);
  if (!bucket->unit)
    return tape_fail(ADCG_ERR_OUT_OF_MEMORY, kCapture, "tape of a bucket: %lld bytes", (long long)tape_unit_bytes(exec, kind));
  return record(exec, bucket->unit, kind);
}

adcg_status tape_capture(tape_exec *exec, int32_t index) {
  tape_bucket *bucket = &exec->buckets[index];
  if (atomic_load(&bucket->state) == ADCG_BUCKET_CAPTURED && !bucket->unit->stale) return ADCG_OK;
  exec->generation++; /* warm-up uses the slots and the batch, and a smaller bucket may serve from now on */
  int64_t tokens, seqs;
  size_of(exec, &bucket->size, &tokens, &seqs);
  if (!tape_fits(exec, tokens, seqs)) return TAPE_WANT_MEMORY;
  void *was = NULL;
  adcg_status status = tape_enter(exec->on, kCapture, &was);
  if (!status) {
    status = capture(exec, bucket);
    if (status) tape_mark(exec); /* what was enqueued before it failed stays in front of the next step */
    tape_leave(exec->on, was);
  }
  if (status) exec->given.struct_size = 0; /* who knows what the device's counts are */
  /* for want of memory a later step may try again; a broken op stays broken */
  if (status != ADCG_ERR_OUT_OF_MEMORY) atomic_store(&bucket->state, status ? ADCG_BUCKET_FAILED : ADCG_BUCKET_CAPTURED);
  return status;
}
