/* Launching the ops that work row by row: rms_norm, layer_norm, add_rms_norm, qk_norm, softmax. */
#include "launch.h"

/* Attributes of rms_norm, in the schema's order. */
enum { EPS, ONE_PLUS, GROUPS, GATE };

/* A warp has short rows to itself, a block long ones. Of the length alone: it decides the order of sums. */
static int32_t threads_of(int64_t n, int32_t most) {
  if (n <= 1024) return 32;
  return n <= 16384 || most == 256 ? 256 : most;
}

/* Rows of tensors: the result, x, and up to two more. */
static adcg_rows_args rows_of(const DLTensor *y, const DLTensor *x, const DLTensor *z, const DLTensor *sum) {
  adcg_rows_args args = {.y = adcg_data(y),
                         .x = adcg_data(x),
                         .z = z ? adcg_data(z) : NULL,
                         .sum = sum ? adcg_data(sum) : NULL,
                         .runs = adcgk_runs_of((const DLTensor *[]){y, x, z ? z : x, sum ? sum : x}, 4, 0, true),
                         .groups = 1};
  return args;
}

static void weigh(adcg_rows_args *args, const DLTensor *weight, double eps, bool one_plus) {
  args->weight = adcg_data(weight);
  args->weight_bf16 = adcgk_is_bf16(weight);
  args->eps = (float)eps;
  args->one_plus = one_plus;
}

/* A kernel pair, f32 and bf16. `most`: threads of its blocks. */
static adcg_status run(const adcg_op_call *call, void *user_data, int32_t kernel, adcg_rows_args *args, int32_t most) {
  args->threads = threads_of(args->runs.length / args->groups, most);
  const int32_t block = args->threads > 256 ? args->threads : 256;
  const int64_t blocks = adcgk_ceil_div(args->runs.count * args->groups, block / args->threads);
  return adcgk_cuda_launch(call, user_data, kernel + adcgk_is_bf16(&call->outputs[0]), blocks, block, 0, args);
}

adcg_status adcgk_cuda_rms_norm(const adcg_op_call *call, void *user_data) {
  const DLTensor *z = call->num_inputs > 2 ? &call->inputs[2] : NULL;
  adcg_rows_args args = rows_of(&call->outputs[0], &call->inputs[0], z, NULL);
  weigh(&args, &call->inputs[1], call->attrs[EPS].f, call->attrs[ONE_PLUS].i != 0);
  args.groups = call->attrs[GROUPS].i;
  if (z) args.gate = strcmp(call->attrs[GATE].s, "before") == 0 ? ADCG_GATE_BEFORE : ADCG_GATE_AFTER;
  return run(call, user_data, ADCGK_K_adcg_rms_norm_f32, &args, 256);
}

adcg_status adcgk_cuda_add_rms_norm(const adcg_op_call *call, void *user_data) {
  adcg_rows_args args = rows_of(&call->outputs[1], &call->inputs[0], &call->inputs[1], &call->outputs[0]);
  weigh(&args, &call->inputs[2], call->attrs[EPS].f, call->attrs[ONE_PLUS].i != 0);
  return run(call, user_data, ADCGK_K_adcg_rms_norm_f32, &args, 256);
}

adcg_status adcgk_cuda_qk_norm(const adcg_op_call *call, void *user_data) {
  for (int32_t i = 0; i < 2; i++) { /* q, then k */
    adcg_rows_args args = rows_of(&call->outputs[i], &call->inputs[i], NULL, NULL);
    weigh(&args, &call->inputs[2 + i], call->attrs[EPS].f, call->attrs[ONE_PLUS].i != 0);
    const adcg_status status = run(call, user_data, ADCGK_K_adcg_rms_norm_f32, &args, 256);
    if (status) return status;
  }
  return ADCG_OK;
}

adcg_status adcgk_cuda_layer_norm(const adcg_op_call *call, void *user_data) {
  adcg_rows_args args = rows_of(&call->outputs[0], &call->inputs[0], NULL, NULL);
  weigh(&args, &call->inputs[1], call->attrs[EPS].f, false);
  if (call->num_inputs > 2) {
    args.bias = adcg_data(&call->inputs[2]);
    args.bias_bf16 = adcgk_is_bf16(&call->inputs[2]);
  }
  return run(call, user_data, ADCGK_K_adcg_layer_norm_f32, &args, 256);
}

adcg_status adcgk_cuda_softmax(const adcg_op_call *call, void *user_data) {
  adcg_rows_args args = rows_of(&call->outputs[0], &call->inputs[0], NULL, NULL);
  return run(call, user_data, ADCGK_K_adcg_softmax_f32, &args, 1024);
}
