/* Launching the ops that work element by element. */
#include "launch.h"

/* A kernel pair, f32 and bf16; of one operand or two. */
static adcg_status elementwise(const adcg_op_call *call, void *user_data, int32_t kernel, const DLTensor *b, bool one_b) {
  const DLTensor *a = &call->inputs[0], *y = &call->outputs[0];
  adcg_elements_args args = {.y = adcg_data(y),
                             .a = adcg_data(a),
                             .b = adcg_data(b),
                             .runs = adcgk_runs_of((const DLTensor *[]){y, a, b}, 3, 0, one_b),
                             .one_b = one_b};
  const int64_t chunks = args.runs.count * adcgk_ceil_div(args.runs.length, ADCGK_CHUNK);
  return adcgk_cuda_launch(call, user_data, kernel + adcgk_is_bf16(a), adcgk_cuda_blocks(chunks), 256, 0, &args);
}

static adcg_status of_one(const adcg_op_call *call, void *user_data, int32_t kernel) {
  return elementwise(call, user_data, kernel, &call->inputs[0], false);
}

/* The second operand may have one element for all of the first's last dim. */
static adcg_status of_two(const adcg_op_call *call, void *user_data, int32_t kernel) {
  const DLTensor *a = &call->inputs[0], *b = &call->inputs[1];
  return elementwise(call, user_data, kernel, b, b->shape[b->ndim - 1] != a->shape[a->ndim - 1]);
}

adcg_status adcgk_cuda_add(const adcg_op_call *call, void *user_data) { return of_two(call, user_data, ADCGK_K_adcg_add_f32); }

adcg_status adcgk_cuda_mul(const adcg_op_call *call, void *user_data) { return of_two(call, user_data, ADCGK_K_adcg_mul_f32); }

adcg_status adcgk_cuda_silu_mul(const adcg_op_call *call, void *user_data) { return of_two(call, user_data, ADCGK_K_adcg_silu_mul_f32); }

adcg_status adcgk_cuda_gelu_mul(const adcg_op_call *call, void *user_data) {
  const bool tanh = strcmp(call->attrs[0].s, "tanh") == 0;
  return of_two(call, user_data, tanh ? ADCGK_K_adcg_gelu_tanh_mul_f32 : ADCGK_K_adcg_gelu_mul_f32);
}

adcg_status adcgk_cuda_sigmoid_mul(const adcg_op_call *call, void *user_data) {
  return of_two(call, user_data, ADCGK_K_adcg_sigmoid_mul_f32);
}

adcg_status adcgk_cuda_silu(const adcg_op_call *call, void *user_data) { return of_one(call, user_data, ADCGK_K_adcg_silu_f32); }

adcg_status adcgk_cuda_relu2(const adcg_op_call *call, void *user_data) { return of_one(call, user_data, ADCGK_K_adcg_relu2_f32); }

adcg_status adcgk_cuda_sigmoid(const adcg_op_call *call, void *user_data) { return of_one(call, user_data, ADCGK_K_adcg_sigmoid_f32); }

adcg_status adcgk_cuda_cast(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *y = &call->outputs[0];
  if (adcgk_is_bf16(x) == adcgk_is_bf16(y)) return adcgk_cuda_copy(call, user_data, y, x);
  adcg_elements_args args = {.y = adcg_data(y), .a = adcg_data(x), .runs = adcgk_runs_of((const DLTensor *[]){y, x}, 2, 0, false)};
  const int64_t chunks = args.runs.count * adcgk_ceil_div(args.runs.length, ADCGK_CHUNK);
  const int32_t kernel = adcgk_is_bf16(y) ? ADCGK_K_adcg_cast_f32_bf16 : ADCGK_K_adcg_cast_bf16_f32;
  return adcgk_cuda_launch(call, user_data, kernel, adcgk_cuda_blocks(chunks), 256, 0, &args);
}
