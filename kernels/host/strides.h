/* Tensors with strides. A kernel works on runs: elements that lie in one piece in all of its tensors. A compact tensor is
 * one run, so that strides cost nothing where there are none. */
#ifndef ADCGK_STRIDES_H_
#define ADCGK_STRIDES_H_

#include "internal.h"

/* Elements from one index of a dim to the next. */
static inline int64_t adcgk_stride(const DLTensor *t, int32_t dim) {
  if (t->strides) return t->strides[dim];
  int64_t n = 1;
  for (int32_t i = t->ndim - 1; i > dim; i--) n *= t->shape[i];
  return n;
}

enum { ADCGK_RUN_TENSORS = 4 }; /* that one kernel walks together at most */

/* Runs of tensors of one shape, in the order of their elements. */
typedef struct adcgk_runs {
  int64_t count, length; /* how many, and elements of each */
  int32_t ndim;          /* of the dims that number them */
  int64_t shape[ADCG_MAX_NDIM];
  int64_t strides[ADCGK_RUN_TENSORS][ADCG_MAX_NDIM]; /* per tensor, in elements */
} adcgk_runs;

/* The runs over dims first .. ndim-1, as long as they can be; with `rows`, each is of the last dim alone. */
static inline adcgk_runs adcgk_runs_of(const DLTensor *const *tensors, int count, int32_t first, bool rows) {
  const DLTensor *t = tensors[0];
  adcgk_runs r;
  r.count = r.length = 1;
  r.ndim = 0;
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

/* Where run i of a tensor begins, in elements from the tensor's first. */
static inline int64_t adcgk_run_at(const adcgk_runs *r, int tensor, int64_t i) {
  int64_t at = 0;
  for (int32_t d = r->ndim - 1; d > 0; d--) {
    at += i % r->shape[d] * r->strides[tensor][d];
    i /= r->shape[d];
  }
  return r->ndim > 0 ? at + i * r->strides[tensor][0] : 0;
}

#endif /* ADCGK_STRIDES_H_ */
