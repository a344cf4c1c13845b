/* Tensors with strides. A kernel works on runs: elements that lie in one piece in all of its tensors. A compact tensor is
 * one run, so that strides cost nothing where there are none. */
#ifndef ADCGK_STRIDES_H_
#define ADCGK_STRIDES_H_

#include "runs.h"
#include "tensor.h"

/* Elements from one index of a dim to the next. */
static inline int64_t adcgk_stride(const DLTensor *t, int32_t dim) {
  if (t->strides) return t->strides[dim];
  int64_t n = 1;
  for (int32_t i = t->ndim - 1; i > dim; i--) n *= t->shape[i];
  return n;
}

/* The runs over dims first .. ndim-1, as long as they can be; with `rows`, each is of the last dim alone. */
static inline adcgk_runs adcgk_runs_of(const DLTensor *const *tensors, int count, int32_t first, bool rows) {
  const DLTensor *t = tensors[0];
  adcgk_runs r = {.count = 1, .length = 1};
  bool compact = !rows;
  for (int i = 0; i < count; i++) compact = compact && !tensors[i]->strides;
  if (compact) {
    for (int32_t d = first; d < t->ndim; d++) r.length *= t->shape[d];
    return r;
  }
  int64_t strides[ADCGK_RUN_TENSORS][ADCG_MAX_NDIM], shape[ADCG_MAX_NDIM]; /* innermost first */
  for (int32_t d = t->ndim - 1; d >= first; d--) {
    const int64_t extent = t->shape[d];
    if (rows && d == t->ndim - 1) {
      r.length = extent;
      continue;
    }
    if (extent == 1) continue;
    bool run = !rows && r.ndim == 0, outer = r.ndim > 0;
    for (int i = 0; i < count; i++) {
      const int64_t stride = adcgk_stride(tensors[i], d);
      run = run && stride == r.length;
      outer = outer && stride == strides[i][r.ndim - 1] * shape[r.ndim - 1];
    }
    if (run) {
      r.length *= extent;
      continue;
    }
    r.count *= extent;
    if (outer) {
      shape[r.ndim - 1] *= extent;
      continue;
    }
    for (int i = 0; i < count; i++) strides[i][r.ndim] = adcgk_stride(tensors[i], d);
    shape[r.ndim++] = extent;
  }
  for (int32_t d = 0; d < r.ndim; d++) {
    r.shape[d] = shape[r.ndim - 1 - d];
    for (int i = 0; i < count; i++) r.strides[i][d] = strides[i][r.ndim - 1 - d];
  }
  return r;
}

/* The runs of one row of a tensor: of all dims behind the first. */
static inline adcgk_runs adcgk_row_runs(const DLTensor *t) { return adcgk_runs_of(&t, 1, 1, false); }

#endif /* ADCGK_STRIDES_H_ */
