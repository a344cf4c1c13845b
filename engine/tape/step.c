/* What every step of a unit may need: the tails of dynamic ops, and the message of a failure. */
#include "tape.h"

#include <stdio.h>
#include <string.h>

void tape_each_run(const tape_value *value, char *data, int64_t row, void (*fn)(char *run, int64_t bytes, void *context), void *context) {
  if (!value->strides) {
    fn(data + row * value->row_bytes, value->row_bytes, context);
    return;
  }
  const int32_t last = value->type.ndim - 1;
  const adcg_dim *dims = value->type.dims;
  int64_t elements = 1;
  for (int32_t d = 1; d <= last; d++) elements *= dims[d].constant;
  const int64_t size = elements ? value->row_bytes / elements : 0, run = last > 0 ? dims[last].constant : 1;
  for (int64_t n = 0; n < elements; n += run) { /* the index of a run's first element, as digits of the dims between */
    int64_t at = row * value->strides[0], rest = n / run;
    for (int32_t d = last - 1; d > 0; d--) {
      at += rest % dims[d].constant * value->strides[d];
      rest /= dims[d].constant;
    }
    fn(data + at * size, run * size, context);
  }
}

static void zero_run(char *run, int64_t bytes, void *context) {
  (void)context;
  memset(run, 0, (size_t)bytes);
}

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
    char *data = call->outputs[i].data;
    if (!value->strides) {
      if (real < rows) memset(data + real * value->row_bytes, 0, (size_t)((rows - real) * value->row_bytes));
    } else {
      for (int64_t row = real; row < rows; row++) tape_each_run(value, data, row, zero_run, NULL);
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
