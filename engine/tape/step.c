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

adcg_status tape_run_dynamic(const adcg_op_call *call, void *user_data) {
  const tape_node *node = user_data;
  adcg_status status = node->launch(call, node->user_data);
  if (UNLIKELY(status)) return status;
  /* the padding contract: rows [real, bucket) of a dynamic op's outputs are zero for the next segment */
  const tape_exec *exec = (const tape_exec *)(uintptr_t)((const char *)call->batch - offsetof(tape_exec, batch));
  for (int32_t i = 0; i < node->num_outputs && !status; i++) {
    const tape_value *value = &exec->values[node->outputs[i]];
    int64_t rows = call->outputs[i].shape[0];
    /* what is captured serves steps with other counts */
    if (call->phase == ADCG_PHASE_CAPTURE || tape_real_rows(exec, value) < rows)
      status = exec->on->zero_tail(exec, value, call->outputs[i].data, rows);
  }
  return status;
}

adcg_status tape_run_graph(const adcg_op_call *call, void *user_data) {
  const tape_graph *graph = user_data;
  (void)call;
  return graph->exec->on->run(graph->exec->on, graph->exec->stream, graph->executable);
}

adcg_status tape_fail_step(const tape_exec *exec, const char *function, const tape_unit *unit, const tape_step *step, adcg_status status) {
  char where[512], message[768];
  if (step->run == tape_run_graph) {
    const tape_graph *graph = step->user_data;
    snprintf(where, sizeof where, "graph of `%s` to `%s`", exec->nodes[graph->first].name, exec->nodes[graph->last].name);
  } else {
    snprintf(where, sizeof where, "op `%s`", exec->nodes[unit->nodes[step - unit->steps]].name);
  }
  snprintf(message, sizeof message, "%s", tape_op_error()); /* tape_fail writes into the same memory block */
  tape_clear_op_error();
  if (!message[0]) snprintf(message, sizeof message, "its launch returned %d (%s)", (int)status, tape_status_name(status));
  /* a driver's failure is the device's, whichever op met it; on the host all failures are the op's */
  bool driver = exec->on->launch && (status == ADCG_ERR_DEVICE || status == ADCG_ERR_OUT_OF_MEMORY);
  return tape_fail(driver ? status : ADCG_ERR_OP, function, "%s: %s", where, message);
}
