/* Kernels that work row by row. A row has a.threads threads, a warp or more warps of a block of its own, and that is a function of
 * its length alone: so are the order of a sum and the bits of the row. */
#ifndef ADCGK_CUDA_ROWS_H_
#define ADCGK_CUDA_ROWS_H_

#include "device.h"

/* The row of this thread, and its number among the row's threads. */
ADCG_DEVICE int64_t row_of_thread(int32_t threads, int32_t *thread) {
  *thread = (int32_t)threadIdx.x % threads;
  return (int64_t)blockIdx.x * (blockDim.x / (uint32_t)threads) + threadIdx.x / (uint32_t)threads;
}

struct sum_op {
  static ADCG_DEVICE float of(float x, float y) { return x + y; }
};
struct max_op {
  static ADCG_DEVICE float of(float x, float y) { return fmaxf(x, y); } /* passes over NaN */
};

/* `x` of all threads of a row taken together; each gets the result. */
template <typename Op>
ADCG_DEVICE float over_row(float x, int32_t threads) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x = Op::of(x, __shfl_xor_sync(0xffffffffu, x, lanes));
  if (threads == 32) return x;
  __shared__ float warps[32];
  __syncthreads(); /* the last one's readers are done */
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = warps[0];
  for (int i = 1; i < threads / 32; i++) x = Op::of(x, warps[i]);
  return x;
}

#endif /* ADCGK_CUDA_ROWS_H_ */
