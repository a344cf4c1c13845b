/* Which algorithms there are for a problem, and what each needs. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "state.h"

static _Atomic int hidden;

EXPORT void fakecublaslt_hide(int id) { atomic_store(&hidden, id); }

enum { TILE = 64, COUNTERS = 1024 };

static size_t size_of(const matrix_layout *l) { return l->type == CUDA_R_16BF ? 2 : 4; }

static int64_t tiles_of(const problem *p) { return ((p->m + TILE - 1) / TILE) * ((p->n + TILE - 1) / TILE); }

size_t workspace_of(const algorithm *algo, const problem *p) {
  const size_t elements = (size_t)algo->splits * (size_t)(p->m * p->n);
  switch (algo->id) {
    case FAKECUBLASLT_SPLIT: return elements * sizeof(float);
    case FAKECUBLASLT_ROUNDED: return elements * size_of(p->d);
    case FAKECUBLASLT_COUNTED: return COUNTERS;
    case FAKECUBLASLT_IN_PLACE: return elements * sizeof(float); /* where the kernel of the stand-in keeps what a real one adds to D */
    default: return 0;
  }
}

static bool any_alignment(int32_t id) { return id == FAKECUBLASLT_SCALAR || id == FAKECUBLASLT_IN_PLACE; }

cublasStatus_t check_algorithm(const algorithm *algo, const problem *p, const uint32_t alignment[4]) {
  if (!algo || algo->magic != ALGORITHM_MAGIC) return refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: not initialised");
  if (any_alignment(algo->id)) return CUBLAS_STATUS_SUCCESS;
  const matrix_layout *const layouts[] = {p->a, p->b, p->c, p->d};
  for (int i = 0; i < 4; i++) {
    if ((size_t)layouts[i]->ld * size_of(layouts[i]) % 16 != 0 || alignment[i] % 16 != 0)
      return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm %d: %c: on %u bytes, ld %lld: needs 16", algo->id, "ABCD"[i], alignment[i],
                    (long long)layouts[i]->ld);
  }
  return CUBLAS_STATUS_SUCCESS;
}

static float waves_of(const struct cublasLtContext *handle, const problem *p, const algorithm *algo) {
  return (float)(tiles_of(p) * algo->splits) / (float)handle->multiprocessors;
}

int offer(const struct cublasLtContext *handle, const problem *p, const preference *preference, heuristic_result *results, int asked) {
  const bool few = 2 * tiles_of(p) <= handle->multiprocessors && p->k >= 64;
  int splits = few ? (int)(handle->multiprocessors / tiles_of(p)) : 1;
  if (splits > 8) splits = 8;
  /* Best first. Split ones lead where tiles leave most of the device idle, counted ones where there are very many rows. */
  const algorithm all[] = {
      {.id = FAKECUBLASLT_IN_PLACE, .splits = few ? splits : 0, .scheme = CUBLASLT_REDUCTION_SCHEME_INPLACE, .tile = 15},
      {.id = FAKECUBLASLT_ROUNDED, .splits = few ? splits : 0, .scheme = CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, .tile = 15},
      {.id = FAKECUBLASLT_SPLIT, .splits = few ? splits : 0, .scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, .tile = 15},
      {.id = FAKECUBLASLT_COUNTED, .splits = p->n >= 4096 || p->m >= 4096 ? 1 : 0, .tile = 24},
      {.id = FAKECUBLASLT_TILE, .splits = 1, .tile = 15},
      {.id = FAKECUBLASLT_SCALAR, .splits = 1, .tile = 1},
  };
  int count = 0;
  /* One that the library thought of and found wanting: its other fields mean nothing. */
  if (asked > 1) {
    memset(&results[0], 0xee, sizeof results[0]);
    results[0].state = CUBLAS_STATUS_NOT_SUPPORTED;
    count = 1;
  }
  for (size_t i = 0; i < sizeof all / sizeof all[0] && count < asked; i++) {
    algorithm algo = all[i];
    algo.magic = ALGORITHM_MAGIC;
    if (algo.splits == 0 || algo.id == atomic_load(&hidden)) continue;
    if (algo.scheme != CUBLASLT_REDUCTION_SCHEME_NONE && !(preference->schemes & (uint32_t)algo.scheme)) continue;
    if (workspace_of(&algo, p) > preference->workspace) continue;
    if (check_algorithm(&algo, p, preference->alignment) != CUBLAS_STATUS_SUCCESS) continue;
    results[count] = (heuristic_result){.algo = algo, .workspace_bytes = workspace_of(&algo, p), .waves = waves_of(handle, p, &algo)};
    count++;
  }
  return count;
}

static bool power_of_two(uint32_t n) { return n > 0 && (n & (n - 1)) == 0; }

EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, const matmul_desc *desc, const matrix_layout *a,
                                                     const matrix_layout *b, const matrix_layout *c, const matrix_layout *d,
                                                     const preference *preference, int asked, heuristic_result *results, int *out_count) {
  const cublasStatus_t fault = enter("cublasLtMatmulAlgoGetHeuristic");
  if (fault != CUBLAS_STATUS_SUCCESS) return fault;
  if (!known_handle(handle)) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "handle");
  if (asked < 1 || !results || !out_count) return refuse(CUBLAS_STATUS_INVALID_VALUE, "asked for %d results", asked);
  if (!preference || preference->magic != PREFERENCE_MAGIC) return refuse(CUBLAS_STATUS_INVALID_VALUE, "preference: not initialised");
  if (preference->others != 0 || preference->schemes & ~7u)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "preferences that the stand-in does not do");
  for (int i = 0; i < 4; i++) {
    if (!power_of_two(preference->alignment[i]))
      return refuse(CUBLAS_STATUS_INVALID_VALUE, "alignment of %c: %u", "ABCD"[i], preference->alignment[i]);
  }
  problem p;
  const cublasStatus_t status = read_problem(desc, a, b, c, d, &p);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  *out_count = offer(handle, &p, preference, results, asked);
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, const matmul_desc *desc, const matrix_layout *a,
                                              const matrix_layout *b, const matrix_layout *c, const matrix_layout *d, const algorithm *algo,
                                              heuristic_result *result) {
  const cublasStatus_t fault = enter("cublasLtMatmulAlgoCheck");
  if (fault != CUBLAS_STATUS_SUCCESS) return fault;
  if (!known_handle(handle)) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "handle");
  if (!result) return refuse(CUBLAS_STATUS_INVALID_VALUE, "result: NULL");
  problem p;
  const uint32_t aligned[] = {256, 256, 256, 256}; /* the buffers are not known here */
  cublasStatus_t status = read_problem(desc, a, b, c, d, &p);
  if (status == CUBLAS_STATUS_SUCCESS) status = check_algorithm(algo, &p, aligned);
  result->state = status;
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  result->workspace_bytes = workspace_of(algo, &p);
  result->waves = waves_of(handle, &p, algo);
  return CUBLAS_STATUS_SUCCESS;
}
