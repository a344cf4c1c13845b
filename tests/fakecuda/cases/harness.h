/* A program of named cases over the stand-in: `prog NAME` runs one. Exit status 0: passed. test_fakecuda.py makes a test of each. */
#ifndef ADCG_TESTS_FAKECUDA_CASES_HARNESS_H_
#define ADCG_TESTS_FAKECUDA_CASES_HARNESS_H_

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cuda_api.h"
#include "../fakecuda.h"

typedef struct harness_case {
  const char *name;
  void (*run)(void);
} harness_case;

#define CHECK(condition)                                                                              \
  do {                                                                                                \
    if (!(condition)) {                                                                               \
      fprintf(stderr, "%s:%d: %s is false; %s\n", __FILE__, __LINE__, #condition, fakecuda_reason()); \
      exit(1);                                                                                        \
    }                                                                                                 \
  } while (0)

#define CHECK_INT(actual, expected)                                                                                              \
  do {                                                                                                                           \
    long long actual_ = (long long)(actual), expected_ = (long long)(expected);                                                  \
    if (actual_ != expected_) {                                                                                                  \
      fprintf(stderr, "%s:%d: %s is %lld, expected %s = %lld; %s\n", __FILE__, __LINE__, #actual, actual_, #expected, expected_, \
              fakecuda_reason());                                                                                                \
      exit(1);                                                                                                                   \
    }                                                                                                                            \
  } while (0)

#define OK(call) CHECK_INT(call, CUDA_SUCCESS)

static inline int harness_main(int argc, char **argv, const harness_case *cases, size_t count) {
  for (size_t i = 0; i < count && argc == 2; i++) {
    if (strcmp(argv[1], cases[i].name) != 0) continue;
    cases[i].run();
    return 0;
  }
  for (size_t i = 0; i < count; i++) puts(cases[i].name);
  return 2;
}

/* ---- A small world -------------------------------------------------------------------------------------------------------------- */

/* inc: b = a + 1. add: out[i] = a[i] + b[i] for the n elements, over a grid. */
static const char *const PTX =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry inc(.param .u64 a, .param .u64 b) {\n"
    "  .reg .u64 %p<2>; .reg .u32 %v;\n"
    "  ld.param.u64 %p0, [a]; ld.param.u64 %p1, [b];\n"
    "  ld.global.u32 %v, [%p0]; add.u32 %v, %v, 1; st.global.u32 [%p1], %v; ret;\n"
    "}\n"
    "// one thread an element\n"
    ".visible .entry add(.param .u64 .ptr .global .align 4 a, .param .u64 b, .param .u64 out, .param .u32 n) {\n"
    "  .reg .u64 %p<4>; .reg .u32 %i<4>; .reg .f32 %f<3>; .reg .pred %q;\n"
    "  mov.u32 %i0, %ctaid.x; mov.u32 %i1, %ntid.x; mov.u32 %i2, %tid.x; mad.lo.s32 %i0, %i0, %i1, %i2;\n"
    "  ld.param.u32 %i3, [n]; setp.ge.u32 %q, %i0, %i3; @%q bra END;\n"
    "  ld.param.u64 %p0, [a]; ld.param.u64 %p1, [b]; ld.param.u64 %p2, [out]; mul.wide.u32 %p3, %i0, 4;\n"
    "  add.s64 %p0, %p0, %p3; add.s64 %p1, %p1, %p3; add.s64 %p2, %p2, %p3;\n"
    "  ld.global.f32 %f0, [%p0]; ld.global.f32 %f1, [%p1]; add.f32 %f2, %f0, %f1; st.global.f32 [%p2], %f2;\n"
    "END: ret;\n"
    "}\n"
    ".visible .entry strange(.param .u64 a) { .shared .b8 s[64]; bar.sync 0; ret; }\n";

typedef struct world {
  CUcontext context;
  CUmodule module;
  CUfunction inc, add;
  CUstream stream, other;
  CUdeviceptr a, b;
} world;

static inline uint32_t word_at(CUdeviceptr address) {
  uint32_t value = 0;
  OK(cuMemcpyDtoH_v2(&value, address, sizeof value));
  return value;
}

static inline void put_word(CUdeviceptr address, uint32_t value) { OK(cuMemcpyHtoD_v2(address, &value, sizeof value)); }

static inline void world_open(world *w) {
  OK(cuInit(0));
  OK(cuDevicePrimaryCtxRetain(&w->context, 0));
  OK(cuCtxSetCurrent(w->context));
  OK(cuModuleLoadData(&w->module, PTX));
  OK(cuModuleGetFunction(&w->inc, w->module, "inc"));
  OK(cuModuleGetFunction(&w->add, w->module, "add"));
  OK(cuStreamCreate(&w->stream, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&w->other, CU_STREAM_NON_BLOCKING));
  OK(cuMemAlloc_v2(&w->a, 4096));
  OK(cuMemAlloc_v2(&w->b, 4096));
  put_word(w->a, 5);
  put_word(w->b, 0);
}

static inline void world_close(world *w) {
  OK(cuMemFree_v2(w->a));
  OK(cuMemFree_v2(w->b));
  OK(cuStreamDestroy_v2(w->stream));
  OK(cuStreamDestroy_v2(w->other));
  OK(cuModuleUnload(w->module));
  OK(cuDevicePrimaryCtxRelease_v2(0));
  char text[1024];
  size_t leaks = fakecuda_leaks(text, sizeof text);
  if (leaks) fputs(text, stderr);
  CHECK_INT(leaks, 0);
}

static inline CUresult inc(const world *w, CUstream stream, CUdeviceptr a, CUdeviceptr b) {
  void *params[] = {&a, &b};
  return cuLaunchKernel(w->inc, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL);
}

static inline CUgraph captured_inc(const world *w, CUdeviceptr a, CUdeviceptr b) {
  CUgraph graph;
  OK(cuStreamBeginCapture_v2(w->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(inc(w, w->stream, a, b));
  OK(cuStreamEndCapture(w->stream, &graph));
  return graph;
}

static inline CUgraphNode only_node(CUgraph graph) {
  CUgraphNode node;
  size_t count = 1;
  OK(cuGraphGetNodes(graph, &node, &count));
  return node;
}

#endif
