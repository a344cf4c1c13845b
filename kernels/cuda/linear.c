/* Launching adcg.linear. */
#include "../common/activation.h"
#include "launch.h"
#include "lt.h"

/* Up to so many rows the kernel of few rows is the faster one: it reads the weights again for every 8. */
enum { FEW_ROWS = 48 };

adcg_status adcgk_cuda_linear_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  *out_bytes = adcgk_lt_workspace(call, user_data);
  return ADCG_OK;
}

adcg_status adcgk_cuda_linear(const adcg_op_call *call, void *user_data) {
  const adcg_status status = adcgk_lt_linear(call, user_data);
  if (status != ADCGK_LT_DECLINED) return status;
  const DLTensor *x = &call->inputs[0], *w = &call->inputs[1], *y = &call->outputs[0];
  const DLTensor *bias = call->num_inputs > 2 ? &call->inputs[2] : NULL;
  adcg_linear_args args = {.y = adcg_data(y),
                           .x = adcg_data(x),
                           .w = adcg_data(w),
                           .bias = bias ? adcg_data(bias) : NULL,
                           .m = x->shape[0],
                           .n = w->shape[0],
                           .k = w->shape[1],
                           .ldx = adcgk_stride(x, 0),
                           .ldy = adcgk_stride(y, 0),
                           .row = adcgk_row_runs(x),
                           .bias_bf16 = bias && adcgk_is_bf16(bias),
                           .activation = (int32_t)adcgk_activation_of(call->attrs[0].s)};
  const bool few = args.m <= FEW_ROWS;
  const int64_t blocks =
      few ? adcgk_ceil_div(args.m, 8) * adcgk_ceil_div(args.n, 8) : adcgk_ceil_div(args.m, 64) * adcgk_ceil_div(args.n, 64);
  const int32_t kernel = few ? ADCGK_K_adcg_linear_rows_f32_f32 : ADCGK_K_adcg_linear_tile_f32_f32;
  return adcgk_cuda_launch(call, user_data, kernel + 2 * adcgk_is_bf16(x) + adcgk_is_bf16(w), blocks, 128, 0, &args);
}
