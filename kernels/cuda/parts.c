/* Launching adcg.slice and adcg.concat, as kernels/host/parts.c: what the plan gives as a part of another tensor lies where it
 * belongs already; the rest is copied. */
#include "../common/parts.h"
#include "launch.h"

adcgk_runs adcgk_cuda_bytes(adcgk_runs runs, int64_t size) {
  runs.length *= size;
  for (int t = 0; t < ADCGK_RUN_TENSORS; t++) {
    for (int32_t d = 0; d < runs.ndim; d++) runs.strides[t][d] *= size;
  }
  return runs;
}

adcg_status adcgk_cuda_copy(const adcg_op_call *call, const void *user_data, const DLTensor *to, const DLTensor *from) {
  adcg_copy_args args = {.to = adcg_data(to), .from = adcg_data(from)};
  args.runs = adcgk_cuda_bytes(adcgk_runs_of((const DLTensor *[]){to, from}, 2, 0, false), (int64_t)adcgk_size(to));
  const int64_t blocks = adcgk_cuda_blocks_around(adcgk_cuda_of(user_data), args.runs.count * args.runs.length);
  return adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_copy, blocks, 256, 0, &args);
}

adcg_status adcgk_cuda_slice(const adcg_op_call *call, void *user_data) {
  int64_t strides[ADCG_MAX_NDIM];
  const DLTensor part = adcgk_part_of(&call->inputs[0], &call->outputs[0], adcgk_axis_of(call), call->attrs[1].i, strides);
  if (adcg_data(&part) == adcg_data(&call->outputs[0])) return ADCG_OK;
  return adcgk_cuda_copy(call, user_data, &call->outputs[0], &part);
}

adcg_status adcgk_cuda_concat(const adcg_op_call *call, void *user_data) {
  const int32_t axis = adcgk_axis_of(call);
  int64_t start = 0;
  for (int32_t i = 0; i < call->num_inputs; i++) {
    const DLTensor *x = &call->inputs[i];
    int64_t strides[ADCG_MAX_NDIM];
    const DLTensor part = adcgk_part_of(&call->outputs[0], x, axis, start, strides);
    start += x->shape[axis];
    if (adcg_data(&part) == adcg_data(x)) continue;
    const adcg_status status = adcgk_cuda_copy(call, user_data, &part, x);
    if (status) return status;
  }
  return ADCG_OK;
}
