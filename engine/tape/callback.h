/* Calls from Go into the callbacks of ops, and from the tape into ops written in Go. */
#ifndef ADCG_TAPE_CALLBACK_H_
#define ADCG_TAPE_CALLBACK_H_

#include "tape.h"

/* Callbacks' addresses travel through Go as numbers: Go's vet, rightly, accepts no pointer made of one. */
adcg_status tape_call_infer(uintptr_t infer, uintptr_t user_data, adcg_infer_call *call);
adcg_status tape_call_part(uintptr_t part, uintptr_t user_data, adcg_part_call *call, adcg_part *out_part);
adcg_status tape_call_workspace(uintptr_t workspace, uintptr_t user_data, adcg_op_call *call, size_t *out_bytes);
adcg_status tape_call_launch(uintptr_t launch, uintptr_t user_data, adcg_op_call *call);

/* prepare of a built-in op: kernels/host/host.h declares it */
typedef adcg_status (*tape_prepare_fn)(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs,
                                       void **out_state, void (*set_error)(const char *message));
adcg_status tape_call_prepare(uintptr_t prepare, const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs,
                              void **out_state);

/* The launch of every op that is written in Go; its user_data is the op's handle. */
adcg_status tape_go_launch(const adcg_op_call *call, void *user_data);

/* 0: the host's. */
const tape_device *tape_device_of(uintptr_t address);
void tape_set_held(tape_exec *exec, int64_t bytes);
/* The arena's memory has been given back, or is there again. */
void tape_set_released(tape_exec *exec, bool released, int64_t held);
void tape_set_node(tape_node *node, uintptr_t launch, uintptr_t workspace, uintptr_t user_data);

#endif /* ADCG_TAPE_CALLBACK_H_ */
