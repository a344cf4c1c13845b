/* What every step of a unit may need: the tails of dynamic ops, and the message of a failure. */
#include "tape.h"

#include <stdio.h>
#include <string.h>

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

adcg_status tape_fail_step(const tape_exec *exec, const char *function, const tape_unit *unit, const tape_step *step, adcg_status status) {
  const tape_node *node = &exec->nodes[unit->nodes[step - unit->steps]];
  char message[768];
  snprintf(message, sizeof message, "%s", tape_op_error()); /* tape_fail writes into the same memory block */
  tape_clear_op_error();
  if (message[0]) return tape_fail(ADCG_ERR_OP, function, "op `%s`: %s", node->name, message);
  return tape_fail(ADCG_ERR_OP, function, "op `%s`: its launch returned %d (%s)", node->name, (int)status, tape_status_name(status));
}
