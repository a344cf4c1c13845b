/* Runs: elements that lie in one piece in all the tensors that a kernel walks together (strides.h finds them). Kernels on a
 * CUDA device get them as part of their arguments. */
#ifndef ADCGK_RUNS_H_
#define ADCGK_RUNS_H_

#include <adcg/adcg.h>

/* What such kernels call too. */
#ifdef __CUDACC__
#define ADCGK_ANYWHERE static __host__ __device__ __forceinline__
#else
#define ADCGK_ANYWHERE static inline
#endif

enum { ADCGK_RUN_TENSORS = 4 }; /* that one kernel walks together at most */

/* Runs of tensors of one shape, in the order of their elements. */
typedef struct adcgk_runs {
  int64_t count, length; /* how many, and elements of each */
  int32_t ndim;          /* of the dims that number them */
  int32_t unused;
  int64_t shape[ADCG_MAX_NDIM];
  int64_t strides[ADCGK_RUN_TENSORS][ADCG_MAX_NDIM]; /* per tensor, in elements */
} adcgk_runs;

/* Where run i of a tensor begins, in elements from the tensor's first. */
ADCGK_ANYWHERE int64_t adcgk_run_at(const adcgk_runs *r, int tensor, int64_t i) {
  int64_t at = 0;
  for (int32_t d = r->ndim - 1; d > 0; d--) {
    at += i % r->shape[d] * r->strides[tensor][d];
    i /= r->shape[d];
  }
  return r->ndim > 0 ? at + i * r->strides[tensor][0] : 0;
}

#endif /* ADCGK_RUNS_H_ */
