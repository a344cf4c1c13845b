/* Handles, and products: kernels launched on the caller's stream, so that a capture records nodes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

enum { HANDLE_MAGIC = 0x68616e64, ATTRIBUTE_MULTIPROCESSORS = 16, POINTER_MEMORY_TYPE = 2, MEMORY_DEVICE = 2 };

static _Atomic int handles;

EXPORT int fakecublaslt_handles(void) { return atomic_load(&handles); }

bool known_handle(const struct cublasLtContext *handle) { return handle && handle->magic == HANDLE_MAGIC; }

static bool load_driver(driver *call) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return false;
  const struct {
    const char *name;
    void *to;
  } functions[] = {
      {"cuCtxGetCurrent", &call->cuCtxGetCurrent},         {"cuDeviceGetAttribute", &call->cuDeviceGetAttribute},
      {"cuModuleLoadData", &call->cuModuleLoadData},       {"cuModuleUnload", &call->cuModuleUnload},
      {"cuModuleGetFunction", &call->cuModuleGetFunction}, {"cuLaunchKernel", &call->cuLaunchKernel},
      {"cuMemsetD8Async", &call->cuMemsetD8Async},         {"cuMemAllocAsync", &call->cuMemAllocAsync},
      {"cuMemFreeAsync", &call->cuMemFreeAsync},           {"cuPointerGetAttribute", &call->cuPointerGetAttribute},
  };
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    void *found = dlsym(library, functions[i].name);
    if (!found) return false;
    memcpy(functions[i].to, &found, sizeof found);
  }
  return true;
}

static const char *const kernel_names[NUM_KERNELS] = {"fakecublaslt_product", "fakecublaslt_reduce"};

EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t *out_handle) {
  const cublasStatus_t fault = enter("cublasLtCreate");
  if (fault != CUBLAS_STATUS_SUCCESS) return fault;
  if (!out_handle) return refuse(CUBLAS_STATUS_INVALID_VALUE, "out_handle: NULL");
  struct cublasLtContext *h = calloc(1, sizeof *h);
  if (!h) return refuse(CUBLAS_STATUS_ALLOC_FAILED, "out of memory");
  *out_handle = NULL;
  cublasStatus_t status = CUBLAS_STATUS_NOT_INITIALIZED;
  const char *why = "libcuda.so.1: not there";
  if (!load_driver(&h->call)) goto failed;
  why = "no context is current";
  if (h->call.cuCtxGetCurrent(&h->context) != CUDA_SUCCESS || !h->context) goto failed;
  why = "the device's attributes";
  if (h->call.cuDeviceGetAttribute(&h->multiprocessors, ATTRIBUTE_MULTIPROCESSORS, 0) != CUDA_SUCCESS) goto failed;
  Dl_info self;
  char image[4096];
  why = "the image of the kernels";
  status = CUBLAS_STATUS_ALLOC_FAILED;
  if (!dladdr(&handles, &self)) goto failed;
  snprintf(image, sizeof image, "fakecuda-image 1\nlibrary %s\n", self.dli_fname);
  if (h->call.cuModuleLoadData(&h->module, image) != CUDA_SUCCESS) goto failed;
  for (int i = 0; i < NUM_KERNELS; i++) {
    if (h->call.cuModuleGetFunction(&h->kernels[i], h->module, kernel_names[i]) == CUDA_SUCCESS) continue;
    h->call.cuModuleUnload(h->module);
    goto failed;
  }
  h->magic = HANDLE_MAGIC;
  atomic_fetch_add(&handles, 1);
  *out_handle = h;
  return CUBLAS_STATUS_SUCCESS;
failed:
  free(h);
  return refuse(status, "cublasLtCreate: %s", why);
}

EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
  const cublasStatus_t fault = enter("cublasLtDestroy");
  if (fault != CUBLAS_STATUS_SUCCESS) return fault;
  if (!known_handle(h)) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "handle");
  h->magic = 0;
  h->call.cuModuleUnload(h->module);
  free(h);
  atomic_fetch_sub(&handles, 1);
  return CUBLAS_STATUS_SUCCESS;
}

/* ---- Products --------------------------------------------------------------------------------------------------------------------- */

static size_t size_of(int64_t type) { return type == CUDA_R_16BF ? 2 : 4; }

static bool on_device(const struct cublasLtContext *h, const void *data) {
  unsigned type = 0;
  return data && h->call.cuPointerGetAttribute(&type, POINTER_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)data) == CUDA_SUCCESS &&
         type == MEMORY_DEVICE;
}

/* The whole matrix, or vector, in memory of the device. */
static cublasStatus_t check_buffer(const struct cublasLtContext *h, const char *name, const void *data, size_t bytes, size_t element) {
  if ((uintptr_t)data % element != 0) return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: %p: not on %zu bytes", name, data, element);
  if (!on_device(h, data) || !on_device(h, (const char *)data + bytes - 1))
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: %p: %zu bytes are not memory of the device", name, data, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_matrix(const struct cublasLtContext *h, const char *name, const void *data, const matrix_layout *l) {
  const size_t element = size_of(l->type);
  return check_buffer(h, name, data, (((size_t)l->cols - 1) * (size_t)l->ld + (size_t)l->rows) * element, element);
}

static uint32_t alignment_of(const void *data) {
  const uintptr_t bits = (uintptr_t)data | 256;
  return (uint32_t)(bits & (~bits + 1));
}

static cublasStatus_t launch(const struct cublasLtContext *h, int kernel, const product_args *args, CUstream stream) {
  product_args copy = *args;
  void *params[] = {&copy};
  const unsigned x = (unsigned)((args->m + 63) / 64), y = (unsigned)((args->n + 63) / 64);
  const unsigned z = kernel == KERNEL_PRODUCT ? (unsigned)args->splits : 1;
  const CUresult result = h->call.cuLaunchKernel(h->kernels[kernel], x, y, z, 128, 1, 1, 0, stream, params, NULL);
  return result == CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS : refuse(CUBLAS_STATUS_EXECUTION_FAILED, "cuLaunchKernel: %d", result);
}

static cublasStatus_t enqueue(const struct cublasLtContext *h, const algorithm *algo, const product_args *args, void *workspace,
                              CUstream stream) {
  if (algo->id == FAKECUBLASLT_COUNTED) {
    const CUresult result = h->call.cuMemsetD8Async((CUdeviceptr)(uintptr_t)workspace, 0, 1024, stream);
    if (result != CUDA_SUCCESS) return refuse(CUBLAS_STATUS_EXECUTION_FAILED, "cuMemsetD8Async: %d", result);
  }
  const cublasStatus_t status = launch(h, KERNEL_PRODUCT, args, stream);
  return status == CUBLAS_STATUS_SUCCESS && args->parts ? launch(h, KERNEL_REDUCE, args, stream) : status;
}

/* What the real library does of a product without an algorithm: it looks for one itself, and for memory if it needs some. */
static cublasStatus_t implicit(const struct cublasLtContext *h, const problem *p, size_t workspace_bytes, algorithm *out) {
  const preference any = {.workspace = workspace_bytes ? workspace_bytes : SIZE_MAX, .schemes = 7, .alignment = {256, 256, 256, 256}};
  heuristic_result result[2];
  const int count = offer(h, p, &any, result, 2);
  if (count < 2) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "no algorithm");
  *out = result[1].algo;
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, const matmul_desc *desc, const void *alpha, const void *a, const matrix_layout *al,
                                     const void *b, const matrix_layout *bl, const void *beta, const void *c, const matrix_layout *cl,
                                     void *d, const matrix_layout *dl, const algorithm *algo, void *workspace, size_t workspace_bytes,
                                     CUstream stream) {
  cublasStatus_t status = enter("cublasLtMatmul");
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (!known_handle(h)) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "handle");
  CUcontext current = NULL;
  if (h->call.cuCtxGetCurrent(&current) != CUDA_SUCCESS || current != h->context)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "the handle's context is not current");
  if (!alpha || !beta) return refuse(CUBLAS_STATUS_INVALID_VALUE, "alpha or beta: NULL");
  float scale, old;
  memcpy(&scale, alpha, sizeof scale);
  memcpy(&old, beta, sizeof old);
  if (old != 0) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "beta: the stand-in knows 0 alone");
  problem p;
  status = read_problem(desc, al, bl, cl, dl, &p);
  if (status == CUBLAS_STATUS_SUCCESS) status = check_matrix(h, "A", a, al);
  if (status == CUBLAS_STATUS_SUCCESS) status = check_matrix(h, "B", b, bl);
  if (status == CUBLAS_STATUS_SUCCESS) status = check_matrix(h, "D", d, dl);
  if (status == CUBLAS_STATUS_SUCCESS && (desc->epilogue & CUBLASLT_EPILOGUE_BIAS))
    status = check_buffer(h, "bias", desc->bias, (size_t)p.m * size_of(dl->type), size_of(dl->type));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (c == d && memcmp(cl, dl, sizeof *cl) != 0) return refuse(CUBLAS_STATUS_INVALID_VALUE, "C is D, under another layout");
  algorithm own;
  if (!algo) {
    status = implicit(h, &p, workspace_bytes, &own);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  } else {
    const uint32_t alignment[] = {alignment_of(a), alignment_of(b), alignment_of(c), alignment_of(d)};
    own = *algo;
    status = check_algorithm(&own, &p, alignment);
    if (status != CUBLAS_STATUS_SUCCESS) return status == CUBLAS_STATUS_NOT_SUPPORTED ? CUBLAS_STATUS_INVALID_VALUE : status;
  }
  const size_t needed = workspace_of(&own, &p);
  CUdeviceptr allocated = 0;
  if (needed > 0 && !algo && !workspace) {
    const CUresult result = h->call.cuMemAllocAsync(&allocated, needed, stream);
    if (result != CUDA_SUCCESS) return refuse(CUBLAS_STATUS_ALLOC_FAILED, "cuMemAllocAsync: %d", result);
    workspace = (void *)(uintptr_t)allocated;
  } else if (needed > 0) {
    if (workspace_bytes < needed) return refuse(CUBLAS_STATUS_INVALID_VALUE, "workspace: %zu bytes, needs %zu", workspace_bytes, needed);
    if ((uintptr_t)workspace % 256 != 0) return refuse(CUBLAS_STATUS_INVALID_VALUE, "workspace: %p: not on 256 bytes", workspace);
    status = check_buffer(h, "workspace", workspace, needed, 1);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  product_args args;
  memset(&args, 0, sizeof args); /* padding too: equal launches record equal parameters */
  args.a = a;
  args.b = b;
  args.bias = desc->epilogue & CUBLASLT_EPILOGUE_BIAS ? desc->bias : NULL;
  args.d = d;
  args.parts = own.scheme != CUBLASLT_REDUCTION_SCHEME_NONE ? workspace : NULL;
  args.m = p.m;
  args.n = p.n;
  args.k = p.k;
  args.lda = al->ld;
  args.ldb = bl->ld;
  args.ldd = dl->ld;
  args.alpha = scale;
  args.ab_bf16 = al->type == CUDA_R_16BF;
  args.d_bf16 = args.bias_bf16 = dl->type == CUDA_R_16BF;
  args.transa = desc->transa;
  args.transb = desc->transb;
  args.splits = own.splits;
  args.rounded = own.id == FAKECUBLASLT_IN_PLACE || own.id == FAKECUBLASLT_ROUNDED;
  args.tf32 = desc->compute == CUBLAS_COMPUTE_32F_FAST_TF32 && al->type == CUDA_R_32F;
  args.epilogue = desc->epilogue;
  status = enqueue(h, &own, &args, workspace, stream);
  if (allocated) h->call.cuMemFreeAsync(allocated, stream);
  return status;
}
