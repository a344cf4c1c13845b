#include "callback.h"

/* exported from callback.go */
extern int32_t tapeGoLaunch(uintptr_t handle, adcg_op_call *call);

adcg_status tape_call_infer(uintptr_t infer, uintptr_t user_data, adcg_infer_call *call) {
  call->set_error = tape_set_op_error;
  tape_clear_op_error();
  return ((adcg_op_infer_fn)infer)(call, (void *)user_data);
}

adcg_status tape_call_part(uintptr_t part, uintptr_t user_data, adcg_part_call *call, adcg_part *out_part) {
  call->set_error = tape_set_op_error;
  tape_clear_op_error();
  return ((adcg_op_part_fn)part)(call, out_part, (void *)user_data);
}

adcg_status tape_call_workspace(uintptr_t workspace, uintptr_t user_data, adcg_op_call *call, size_t *out_bytes) {
  call->set_error = tape_set_op_error;
  tape_clear_op_error();
  return ((adcg_op_workspace_fn)workspace)(call, out_bytes, (void *)user_data);
}

adcg_status tape_call_launch(uintptr_t launch, uintptr_t user_data, adcg_op_call *call) {
  call->set_error = tape_set_op_error;
  tape_clear_op_error();
  return ((adcg_op_launch_fn)launch)(call, (void *)user_data);
}

adcg_status tape_call_prepare(uintptr_t prepare, const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs,
                              void **out_state) {
  tape_clear_op_error();
  return ((tape_prepare_fn)prepare)(attrs, num_attrs, inputs, num_inputs, out_state, tape_set_op_error);
}

adcg_status tape_go_launch(const adcg_op_call *call, void *user_data) {
  return tapeGoLaunch((uintptr_t)user_data, (adcg_op_call *)(uintptr_t)call);
}

void tape_set_node(tape_node *node, uintptr_t launch, uintptr_t workspace, uintptr_t user_data) {
  node->launch = (adcg_op_launch_fn)launch;
  node->workspace = (adcg_op_workspace_fn)workspace;
  node->user_data = (void *)user_data;
}

const tape_device *tape_device_of(uintptr_t address) { return address ? (const tape_device *)address : &tape_host; }

void tape_set_held(tape_exec *exec, int64_t bytes) {
  atomic_store(&exec->arena_held, bytes);
  exec->fits_tokens = exec->fits_seqs = 0;
}

void tape_set_released(tape_exec *exec, bool released, int64_t held) {
  tape_set_held(exec, held);
  exec->released = released;
  exec->given.struct_size = 0; /* the device's counts lay in the arena */
  exec->generation++;          /* no step is the one before again */
}
