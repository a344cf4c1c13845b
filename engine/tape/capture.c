/* Control calls that the data plane needs: binding, warm-up, capture. */
#include "tape.h"

#include <string.h>

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
  exec->bound[index] = (tape_bound){data, bytes};
  exec->bound_generation++;
  exec->generation++;
  return ADCG_OK;
}

/* One eager pass at the bucket's size over an empty batch: ops initialise lazily here, and write no state. Inputs and outputs
 * are the staging areas. */
static adcg_status warm_up(tape_exec *exec, const adcg_bucket *size) {
  int64_t tokens = size->tokens ? size->tokens : size->seqs, seqs = size->seqs ? size->seqs : exec->max_seqs;
  if (tokens > exec->max_tokens) tokens = exec->max_tokens;
  if (seqs > tokens) seqs = tokens;
  const int64_t *offsets = tape_layout_of(exec, tokens)->offsets;
  exec->batch = (adcg_batch)ADCG_BATCH_INIT;
  exec->real_tokens = exec->real_seqs = 0;
  for (int32_t i = 0; i < exec->num_inputs; i++) {
    const tape_value *value = &exec->values[exec->inputs[i].value];
    char *staging = exec->arena + offsets[exec->inputs[i].staging_block];
    memset(staging, 0, (size_t)(tape_rows(value, tokens, seqs) * value->row_bytes));
    exec->slots[i] = staging;
  }
  for (int32_t i = 0; i < exec->num_outputs; i++)
    exec->slots[exec->num_inputs + i] = exec->outputs[i].staged ? exec->arena + offsets[exec->outputs[i].staging_block] : NULL;

  tape_unit *unit = exec->eager;
  tape_unit_resize(exec, unit, tokens, seqs);
  tape_unit_point(exec, unit);
  tape_clear_op_error();
  adcg_status status = tape_check_workspaces(exec, "adcg_exec_capture", unit);
  for (int32_t i = 0; i < unit->num_steps; i++) unit->calls[i].phase = ADCG_PHASE_WARMUP;
  for (int32_t i = 0; i < unit->num_steps && !status; i++) {
    status = unit->steps[i].run(unit->steps[i].call, unit->steps[i].user_data);
    if (status) status = tape_fail_step(exec, "adcg_exec_capture", unit, &unit->steps[i], status);
  }
  for (int32_t i = 0; i < unit->num_steps; i++) unit->calls[i].phase = ADCG_PHASE_REPLAY;
  return status;
}

adcg_status tape_capture(tape_exec *exec, int32_t index) {
  static const char kCapture[] = "adcg_exec_capture";
  tape_bucket *bucket = &exec->buckets[index];
  if (atomic_load(&bucket->state) == ADCG_BUCKET_CAPTURED) return ADCG_OK;
  exec->generation++; /* warm-up uses the slots and the batch, and a smaller bucket may serve from now on */
  adcg_status status = warm_up(exec, &bucket->size);
  if (!status) {
    bucket->unit = tape_unit_create(exec, tape_bucket_kind(&bucket->size), bucket->size.tokens, bucket->size.seqs);
    if (!bucket->unit)
      status = tape_fail(ADCG_ERR_OUT_OF_MEMORY, kCapture, "tape of a bucket: %lld bytes",
                         (long long)tape_unit_bytes(exec, tape_bucket_kind(&bucket->size)));
  }
  /* for want of memory a later step may try again; a broken op stays broken */
  if (status != ADCG_ERR_OUT_OF_MEMORY) atomic_store(&bucket->state, status ? ADCG_BUCKET_FAILED : ADCG_BUCKET_CAPTURED);
  return status;
}
