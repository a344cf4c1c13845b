/* Launching the engine's own kernels. */
#include "launch.h"

adcg_status adcgk_cuda_set_batch(const adcgk_cuda *device, const adcg_launcher *launcher, const adcg_batch *batch,
                                 adcg_batch *device_batch) {
  adcg_set_batch_args args = {device_batch, *batch};
  return adcgk_cuda_enqueue(device, launcher, ADCGK_K_adcg_set_batch, 1, 32, 0, &args);
}

adcg_status adcgk_cuda_zero_tail(const adcgk_cuda *device, const adcg_launcher *launcher, const adcg_batch *device_batch, void *data,
                                 const adcg_type *type, const int64_t *strides, int64_t rows) {
  const int64_t size = adcg_dtype_to_dlpack(type->dtype).bits / 8;
  int64_t shape[ADCG_MAX_NDIM], own[ADCG_MAX_NDIM];
  shape[0] = rows;
  for (int32_t d = 1; d < type->ndim; d++) shape[d] = type->dims[d].constant;
  for (int32_t d = 0; strides && d < type->ndim; d++) own[d] = strides[d];
  const DLTensor tensor = {.ndim = type->ndim, .shape = shape, .strides = strides ? own : NULL};
  adcg_zero_tail_args args = {.data = data,
                              .batch = device_batch,
                              .rows = rows,
                              .row_stride = adcgk_stride(&tensor, 0) * size,
                              .tokens = type->dims[0].tokens,
                              .seqs = type->dims[0].seqs,
                              .constant = type->dims[0].constant,
                              .runs = adcgk_cuda_bytes(adcgk_row_runs(&tensor), size)};
  /* How much there is to do shows when the kernel runs; blocks that find nothing leave at once. */
  const int64_t bytes = rows * args.runs.count * args.runs.length;
  return adcgk_cuda_enqueue(device, launcher, ADCGK_K_adcg_zero_tail, adcgk_cuda_blocks_around(device, bytes), 256, 0, &args);
}
