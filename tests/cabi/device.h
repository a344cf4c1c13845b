/* The device that the cases run on: ADCG_TEST_DEVICE, the host if it is not set. Custom ops of the tests are loops on the host; on CUDA
 * they launch the kernels below, in PTX that every driver takes. Memory is adcg_memory_alloc's on both. */
#ifndef ADCG_TESTS_DEVICE_H_
#define ADCG_TESTS_DEVICE_H_

#include <dlfcn.h>
#include <stdbool.h>

#include "harness.h"

static const char kPtx[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    /* out[i] = a[i] + b[i % columns] + by */
    ".visible .entry t_add(.param .u64 a, .param .u64 b, .param .u64 out, .param .u32 n, .param .u32 columns, .param .f32 by) {\n"
    "  .reg .u64 %p<4>; .reg .u32 %i<5>; .reg .f32 %f<3>; .reg .pred %q;\n"
    "  mov.u32 %i0, %ctaid.x; mov.u32 %i1, %ntid.x; mov.u32 %i2, %tid.x; mad.lo.s32 %i0, %i0, %i1, %i2;\n"
    "  ld.param.u32 %i3, [n]; setp.ge.u32 %q, %i0, %i3; @%q bra END;\n"
    "  ld.param.u64 %p0, [a]; ld.param.u64 %p1, [b]; ld.param.u64 %p2, [out]; ld.param.f32 %f2, [by];\n"
    "  mul.wide.u32 %p3, %i0, 4; add.s64 %p0, %p0, %p3; add.s64 %p2, %p2, %p3;\n"
    "  ld.global.f32 %f0, [%p0]; add.f32 %f0, %f0, %f2;\n"
    "  ld.param.u32 %i4, [columns]; setp.eq.u32 %q, %i4, 0; @%q bra STORE;\n"
    "  rem.u32 %i0, %i0, %i4; mul.wide.u32 %p3, %i0, 4; add.s64 %p1, %p1, %p3; ld.global.f32 %f1, [%p1]; add.f32 %f0, %f0, %f1;\n"
    "STORE: st.global.f32 [%p2], %f0;\n"
    "END: ret;\n"
    "}\n"
    /* d = 2 h, and its rows are added to `total`: a thread a column */
    ".visible .entry t_double(.param .u64 h, .param .u64 total, .param .u64 d, .param .u32 rows, .param .u32 columns) {\n"
    "  .reg .u64 %p<5>; .reg .u32 %i<4>; .reg .f32 %f<3>; .reg .pred %q;\n"
    "  mov.u32 %i0, %tid.x; mul.wide.u32 %p3, %i0, 4;\n"
    "  ld.param.u64 %p0, [h]; ld.param.u64 %p1, [total]; ld.param.u64 %p2, [d];\n"
    "  add.s64 %p0, %p0, %p3; add.s64 %p1, %p1, %p3; add.s64 %p2, %p2, %p3;\n"
    "  ld.param.u32 %i1, [rows]; ld.param.u32 %i2, [columns]; mul.wide.u32 %p4, %i2, 4; ld.global.f32 %f2, [%p1];\n"
    "LOOP: setp.eq.u32 %q, %i1, 0; @%q bra END;\n"
    "  ld.global.f32 %f0, [%p0]; add.f32 %f1, %f0, %f0; st.global.f32 [%p2], %f1; add.f32 %f2, %f2, %f0;\n"
    "  add.s64 %p0, %p0, %p4; add.s64 %p2, %p2, %p4; sub.u32 %i1, %i1, 1; bra LOOP;\n"
    "END: st.global.f32 [%p1], %f2; ret;\n"
    "}\n"
    /* total += count, words */
    ".visible .entry t_count(.param .u64 count, .param .u64 total) {\n"
    "  .reg .u64 %p<2>; .reg .u32 %i<2>;\n"
    "  ld.param.u64 %p0, [count]; ld.param.u64 %p1, [total];\n"
    "  ld.global.u32 %i0, [%p0]; ld.global.u32 %i1, [%p1]; add.u32 %i0, %i0, %i1; st.global.u32 [%p1], %i0; ret;\n"
    "}\n";

/* What the tests call of the driver, beside the library. */
#define DRIVER_CALLS(F)                                                                \
  F(cuInit, (unsigned flags))                                                          \
  F(cuDevicePrimaryCtxRetain, (void **context, int device))                            \
  F(cuDevicePrimaryCtxRelease_v2, (int device))                                        \
  F(cuCtxGetCurrent, (void **context))                                                 \
  F(cuCtxPushCurrent_v2, (void *context))                                              \
  F(cuCtxPopCurrent_v2, (void **context))                                              \
  F(cuCtxSynchronize, (void))                                                          \
  F(cuModuleLoadData, (void **module, const void *image))                              \
  F(cuModuleUnload, (void *module))                                                    \
  F(cuModuleGetFunction, (void **function, void *module, const char *name))            \
  F(cuStreamCreate, (void **stream, unsigned flags))                                   \
  F(cuStreamDestroy_v2, (void *stream))                                                \
  F(cuStreamSynchronize, (void *stream))                                               \
  F(cuStreamQuery, (void *stream))                                                     \
  F(cuStreamWaitEvent, (void *stream, void *event, unsigned flags))                    \
  F(cuEventCreate, (void **event, unsigned flags))                                     \
  F(cuEventDestroy_v2, (void *event))                                                  \
  F(cuEventRecord, (void *event, void *stream))                                        \
  F(cuMemAlloc_v2, (uint64_t *address, size_t bytes))                                  \
  F(cuMemFree_v2, (uint64_t address))                                                  \
  F(cuMemGetInfo_v2, (size_t *unused, size_t *total))                                  \
  F(cuMemAllocAsync, (uint64_t *address, size_t bytes, void *stream))                  \
  F(cuMemcpyHtoDAsync_v2, (uint64_t to, const void *from, size_t bytes, void *stream)) \
  F(cuMemcpyDtoHAsync_v2, (void *to, uint64_t from, size_t bytes, void *stream))       \
  F(cuMemsetD8Async, (uint64_t at, unsigned char byte, size_t bytes, void *stream))
/* And of the stand-in, where it is one: tests/fakecuda/fakecuda.h. */
#define STANDIN_CALLS(F)                                             \
  F(size_t, fakecuda_leaks, (char *text, size_t size))               \
  F(void, fakecuda_fail, (const char *name, uint64_t n, int status)) \
  F(uint64_t, fakecuda_calls, (const char *name))                    \
  F(int, fakecuda_failed, (void))                                    \
  F(void, fakecuda_set_poison, (int byte))                           \
  F(void, fakecuda_set_total_memory, (size_t bytes))                 \
  F(void, fakecuda_set_version, (int version))

typedef struct driver {
  void *library, *context, *module, *add, *twice, *count;
#define DECLARE(name, parameters) int(*name) parameters;
  DRIVER_CALLS(DECLARE)
#undef DECLARE
#define DECLARE(type, name, parameters) type(*name) parameters;
  STANDIN_CALLS(DECLARE)
#undef DECLARE
} driver;

static driver cu;

#define CU(call) CHECK_INT(cu.call, 0)

static inline const char *device_name(void) {
  const char *name = getenv("ADCG_TEST_DEVICE");
  return name ? name : "host";
}
static inline bool on_cuda(void) { return strncmp(device_name(), "cuda", 4) == 0; }
static inline DLDevice device_of(void) { return (DLDevice){on_cuda() ? kDLCUDA : kDLCPU, 0}; }

static inline void driver_symbol(const char *name, void *out) {
  void *symbol = dlsym(cu.library, name);
  memcpy(out, &symbol, sizeof symbol);
}

static inline void device_find(void) {
  if (cu.library) return;
  CHECK((cu.library = dlopen("libcuda.so.1", RTLD_NOW)) != NULL);
#define FIND(name, parameters)    \
  driver_symbol(#name, &cu.name); \
  CHECK(cu.name != NULL);
  DRIVER_CALLS(FIND)
#undef FIND
#define FIND(type, name, parameters) driver_symbol(#name, &cu.name);
  STANDIN_CALLS(FIND)
#undef FIND
}

/* The device's context is this thread's from now on, and the kernels are there. */
static inline void device_open(void) {
  if (!on_cuda()) return;
  device_find();
  CU(cuInit(0));
  CU(cuDevicePrimaryCtxRetain(&cu.context, 0));
  CU(cuCtxPushCurrent_v2(cu.context));
  CU(cuModuleLoadData(&cu.module, kPtx));
  CU(cuModuleGetFunction(&cu.add, cu.module, "t_add"));
  CU(cuModuleGetFunction(&cu.twice, cu.module, "t_double"));
  CU(cuModuleGetFunction(&cu.count, cu.module, "t_count"));
}

/* The stand-in then has nothing that lives. */
static inline void device_close(void) {
  if (!on_cuda() || !cu.context) return;
  void *popped = NULL;
  CU(cuModuleUnload(cu.module));
  CU(cuCtxPopCurrent_v2(&popped));
  CHECK(popped == cu.context); /* the library leaves the thread's contexts as they were */
  CU(cuCtxGetCurrent(&popped));
  CHECK(popped == NULL);
  CU(cuDevicePrimaryCtxRelease_v2(0));
  cu.context = cu.module = NULL;
  static char text[8192];
  if (cu.fakecuda_leaks && cu.fakecuda_leaks(text, sizeof text) > 0) {
    fprintf(stderr, "the driver still holds:\n%s", text);
    exit(1);
  }
}

static inline void *device_alloc(adcg_engine *engine, size_t bytes) {
  void *memory = NULL;
  TRY(adcg_memory_alloc(engine, bytes, &memory));
  return memory;
}

static inline adcg_status device_launch(const adcg_op_call *call, void *function, int64_t threads, uint32_t block, void **params) {
  adcg_kernel_launch launch = ADCG_KERNEL_LAUNCH_INIT;
  launch.function = function;
  launch.grid[0] = (uint32_t)((threads + block - 1) / block);
  launch.block[0] = block;
  launch.params = params;
  return adcg_launch(call, &launch);
}

/* out = a + b + by for n elements; b has one for each column, columns = 0: none. */
static inline adcg_status device_add(const adcg_op_call *call, const float *a, const float *b, float *out, int64_t n, int64_t columns,
                                     float by) {
  if (on_cuda()) {
    uint32_t count = (uint32_t)n, wide = (uint32_t)columns;
    return n ? device_launch(call, cu.add, n, 64, (void *[]){&a, &b, &out, &count, &wide, &by}) : ADCG_OK;
  }
  for (int64_t i = 0; i < n; i++) out[i] = a[i] + by + (columns ? b[i % columns] : 0);
  return ADCG_OK;
}

/* out = a, n elements. */
static inline adcg_status device_keep(const adcg_op_call *call, const float *a, float *out, int64_t n) {
  return device_add(call, a, NULL, out, n, 0, 0);
}

/* Bytes of the host's, which stay where they are until the step is over: for ops that are never captured. */
static inline void device_bring(const adcg_op_call *call, void *to, const void *from, size_t bytes) {
  if (on_cuda())
    CU(cuMemcpyHtoDAsync_v2((uint64_t)(uintptr_t)to, from, bytes, call->stream));
  else
    memcpy(to, from, bytes);
}

/* d = 2 h, and every row of h is added to `total`. */
static inline adcg_status device_double(const adcg_op_call *call, const float *h, float *total, float *d, int64_t rows, int64_t columns) {
  if (on_cuda()) {
    uint32_t count = (uint32_t)rows, wide = (uint32_t)columns;
    return device_launch(call, cu.twice, columns, wide, (void *[]){&h, &total, &d, &count, &wide});
  }
  for (int64_t i = 0; i < rows * columns; i++) {
    d[i] = 2 * h[i];
    total[i % columns] += h[i];
  }
  return ADCG_OK;
}

/* Ops of these tests launch through the launcher alone on CUDA; on the host there is none. */
static inline uint32_t device_flags(void) { return on_cuda() ? ADCG_OP_PARAMETRIC : 0; }

#endif /* ADCG_TESTS_DEVICE_H_ */
