/* What the files of the stand-in share. */
#ifndef ADCG_TESTS_FAKECUBLASLT_STATE_H_
#define ADCG_TESTS_FAKECUBLASLT_STATE_H_

#include <stdbool.h>

#include "../fakecuda/cuda_api.h"
#include "api.h"
#include "fakecublaslt.h"

#define EXPORT __attribute__((visibility("default")))

enum { DESC_MAGIC = 0x64657363, LAYOUT_MAGIC = 0x6c61796f, PREFERENCE_MAGIC = 0x70726566, ALGORITHM_MAGIC = 0x616c676f };

/* The kernels (kernels.c), in the order of their table. */
enum { KERNEL_PRODUCT, KERNEL_REDUCE, NUM_KERNELS };

/* D = epilogue(op(A) op(B)), column-major. Of a split product the grid's z numbers the parts, which lie one behind the other. */
typedef struct product_args {
  const void *a, *b, *bias;
  void *d;
  float *parts; /* NULL: not split */
  int64_t m, n, k, lda, ldb, ldd;
  float alpha;
  int32_t ab_bf16, d_bf16, bias_bf16;
  int32_t transa, transb;
  int32_t splits, rounded; /* rounded: parts have the type of D */
  int32_t tf32;
  uint32_t epilogue;
} product_args;

/* The driver's functions, found in libcuda.so.1. */
typedef struct driver {
  CUresult (*cuCtxGetCurrent)(CUcontext *);
  CUresult (*cuDeviceGetAttribute)(int *, int, CUdevice);
  CUresult (*cuModuleLoadData)(CUmodule *, const void *);
  CUresult (*cuModuleUnload)(CUmodule);
  CUresult (*cuModuleGetFunction)(CUfunction *, CUmodule, const char *);
  CUresult (*cuLaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **);
  CUresult (*cuMemsetD8Async)(CUdeviceptr, unsigned char, size_t, CUstream);
  CUresult (*cuMemAllocAsync)(CUdeviceptr *, size_t, CUstream);
  CUresult (*cuMemFreeAsync)(CUdeviceptr, CUstream);
  CUresult (*cuPointerGetAttribute)(void *, int, CUdeviceptr);
} driver;

struct cublasLtContext {
  uint64_t magic;
  CUcontext context;
  CUmodule module;
  CUfunction kernels[NUM_KERNELS];
  driver call;
  int multiprocessors;
};

/* A product as the descriptors say it. */
typedef struct problem {
  const matmul_desc *desc;
  const matrix_layout *a, *b, *c, *d;
  int64_t m, n, k;
} problem;

/* Counts a call; the status to return at once if a fault was armed for it, else success. */
cublasStatus_t enter(const char *name);
/* Leaves the reason; returns `status`. */
cublasStatus_t refuse(cublasStatus_t status, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool known_handle(const struct cublasLtContext *handle);

/* Checks descriptors against each other. */
cublasStatus_t read_problem(const matmul_desc *desc, const matrix_layout *a, const matrix_layout *b, const matrix_layout *c,
                            const matrix_layout *d, problem *p);

/* Bytes of workspace of an algorithm for a problem. */
size_t workspace_of(const algorithm *algo, const problem *p);
/* Whether the algorithm can compute the problem with buffers of these alignments (A, B, C, D), in bytes. */
cublasStatus_t check_algorithm(const algorithm *algo, const problem *p, const uint32_t alignment[4]);
/* The algorithms for a problem, best first; returns how many. */
int offer(const struct cublasLtContext *handle, const problem *p, const preference *preference, heuristic_result *results, int asked);

#endif
