/* The engine's own kernels, a step's counts and the tails behind dynamic ops; and copies. */
#include "device.h"

ADCG_KERNEL(adcg_set_batch, adcg_set_batch_args, 32) {
  if (threadIdx.x == 0) *a.to = a.batch;
}

/* The largest of 16, 8, 4, 2, 1 bytes that divides all addresses, strides and the length, given as their or. */
ADCG_DEVICE int unit_of(uint64_t bits) {
  const int low = (int)(bits & 15);
  return low == 0 ? 16 : low & -low;
}
ADCG_DEVICE uint64_t strides_of(const adcgk_runs &r, int tensor) {
  uint64_t bits = (uint64_t)r.length;
  for (int d = 0; d < r.ndim; d++) bits |= (uint64_t)r.strides[tensor][d];
  return bits;
}

/* What is behind the real rows, unit by unit; blocks go round until it is done. */
ADCG_KERNEL(adcg_zero_tail, adcg_zero_tail_args, 256) {
  int64_t real = a.tokens * batch_tokens(a.batch) + a.seqs * batch_seqs(a.batch) + a.constant;
  real = real < 0 ? 0 : real < a.rows ? real : a.rows;
  const int unit = unit_of((uint64_t)(uintptr_t)a.data | (uint64_t)a.row_stride | strides_of(a.runs, 0));
  const int64_t units = a.runs.length / unit, total = (a.rows - real) * a.runs.count * units, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = thread_of_grid(); i < total; i += step) {
    int64_t at, run;
    const int64_t row = real + divide(divide(i, units, &at), a.runs.count, &run);
    char *to = a.data + row * a.row_stride + adcgk_run_at(&a.runs, 0, run) + at * unit;
    switch (unit) {
      case 16: *(uint4 *)to = {0, 0, 0, 0}; break;
      case 8: *(uint64_t *)to = 0; break;
      case 4: *(uint32_t *)to = 0; break;
      case 2: *(uint16_t *)to = 0; break;
      default: *to = 0; break;
    }
  }
}

ADCG_KERNEL(adcg_copy, adcg_copy_args, 256) {
  const int unit = unit_of((uint64_t)(uintptr_t)a.to | (uint64_t)(uintptr_t)a.from | strides_of(a.runs, 0) | strides_of(a.runs, 1));
  const int64_t units = a.runs.length / unit, total = a.runs.count * units, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = thread_of_grid(); i < total; i += step) {
    int64_t at;
    const int64_t run = divide(i, units, &at);
    char *to = a.to + adcgk_run_at(&a.runs, 0, run) + at * unit;
    const char *from = a.from + adcgk_run_at(&a.runs, 1, run) + at * unit;
    switch (unit) {
      case 16: *(uint4 *)to = *(const uint4 *)from; break;
      case 8: *(uint64_t *)to = *(const uint64_t *)from; break;
      case 4: *(uint32_t *)to = *(const uint32_t *)from; break;
      case 2: *(uint16_t *)to = *(const uint16_t *)from; break;
      default: *to = *from; break;
    }
  }
}
