/* The bare side of tests/gpu/graphs.c: the driver without the library, one kernel, and captures of chains of it. */
#ifndef ADCG_TESTS_GPU_BARE_DRIVER_H_
#define ADCG_TESTS_GPU_BARE_DRIVER_H_

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../engine/device/cuda/driver.h"

static adcg_driver driver; /* through cuGetProcAddress, like the library's */
static CUresult (*mem_get_info)(size_t *free_bytes, size_t *all);
static CUresult (*set_current)(CUcontext context);

#define CU(call)                                                              \
  do {                                                                        \
    const CUresult result_ = (call);                                          \
    if (result_ != CUDA_SUCCESS) {                                            \
      fprintf(stderr, "%s:%d: %s: %d\n", __FILE__, __LINE__, #call, result_); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

/* to[0] = from[0] + 1. One thread: what is measured is the host. */
static const char kernel_text[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry next(.param .u64 to,.param .u64 from){.reg .u64 %r<2>;.reg .u32 %w<2>;\n"
    "ld.param.u64 %r0,[to];ld.param.u64 %r1,[from];cvta.to.global.u64 %r0,%r0;cvta.to.global.u64 %r1,%r1;\n"
    "ld.global.u32 %w0,[%r1];add.u32 %w0,%w0,1;st.global.u32 [%r0],%w0;ret;}\n";
static CUfunction next_function;

typedef CUresult (*get_address_fn)(const char *symbol, void **function, int version, uint64_t flags, int *how);

static void find_call(get_address_fn get, const char *name, int version, void *out) {
  void *function = NULL;
  if (get(name, &function, version, 0, NULL) != CUDA_SUCCESS) function = NULL;
  memcpy(out, &function, sizeof function);
}

static void open_driver(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  get_address_fn get = NULL;
  void *symbol = dlsym(library, "cuGetProcAddress_v2");
  memcpy(&get, &symbol, sizeof get);
  if (!get) {
    fputs("libcuda.so.1: no cuGetProcAddress_v2\n", stderr);
    exit(1);
  }
#define FIND(call, version, parameters) find_call(get, #call, version, &driver.call);
  ADCG_CUDA_CALLS(FIND)
#undef FIND
  find_call(get, "cuMemGetInfo", 12000, &mem_get_info);
  find_call(get, "cuCtxSetCurrent", 12000, &set_current);
  CUdevice device;
  CUcontext context;
  CUmodule module;
  CU(driver.cuInit(0));
  CU(driver.cuDeviceGet(&device, 0));
  CU(driver.cuDevicePrimaryCtxRetain(&context, device)); /* the library's, too */
  CU(set_current(context));
  CU(driver.cuModuleLoadData(&module, kernel_text));
  CU(driver.cuModuleGetFunction(&next_function, module, "next"));
}

static inline CUresult launch_next(CUstream stream, void *to, const void *from) {
  void *params[] = {&to, &from};
  return driver.cuLaunchKernel(next_function, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL);
}

/* `nodes` kernels as one executable. */
static CUgraphExec capture_chain(CUstream stream, int nodes, void *data) {
  CUgraph graph;
  CUgraphExec executable;
  CU(driver.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  for (int i = 0; i < nodes; i++) CU(launch_next(stream, data, data));
  CU(driver.cuStreamEndCapture(stream, &graph));
  CU(driver.cuGraphInstantiateWithFlags(&executable, graph, 0));
  CU(driver.cuGraphUpload(executable, stream));
  CU(driver.cuGraphDestroy(graph));
  return executable;
}

static int64_t free_memory(void) {
  size_t free_bytes = 0, all = 0;
  CU(mem_get_info(&free_bytes, &all));
  return (int64_t)free_bytes;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif /* ADCG_TESTS_GPU_BARE_DRIVER_H_ */
