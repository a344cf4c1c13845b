/* Launching adcg.rope: the frequencies, which the host's rope has too, are part of the kernel's argument. */
#include "../common/rope.h"
#include "launch.h"

adcg_status adcgk_cuda_rope_prepare(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs,
                                    void **out_state, void (*set_error)(const char *)) {
  return adcgk_rope_state_of(attrs, num_attrs, inputs, num_inputs, out_state, set_error);
}

adcg_status adcgk_cuda_rope(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *y = &call->outputs[0];
  const adcgk_rope_state *state = ((const adcgk_cuda_node *)user_data)->state;
  if (state->half > ADCG_ROPE_PAIRS)
    return adcgk_cuda_fail(call, "rotary_dim: %lld, at most %d on CUDA", (long long)(2 * state->half), 2 * ADCG_ROPE_PAIRS);
  adcg_rope_args args = {.y = adcg_data(y),
                         .x = adcg_data(x),
                         .positions = adcg_data(&call->inputs[1]),
                         .tokens = x->shape[0],
                         .heads = x->shape[1],
                         .d = x->shape[2],
                         .half = state->half,
                         .x_token = adcgk_stride(x, 0),
                         .x_head = adcgk_stride(x, 1),
                         .y_token = adcgk_stride(y, 0),
                         .y_head = adcgk_stride(y, 1),
                         .layout = state->layout,
                         .scale = state->scale};
  memcpy(args.frequency, state->frequency, (size_t)state->half * sizeof(float));
  return adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_rope_f32 + adcgk_is_bf16(x), args.tokens, 256, 0, &args);
}
