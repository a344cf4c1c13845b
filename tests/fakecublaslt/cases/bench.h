/* A device with the stand-in's cuBLASLt, and calls of adcg.linear on it. */
#ifndef ADCG_TESTS_FAKECUBLASLT_CASES_BENCH_H_
#define ADCG_TESTS_FAKECUBLASLT_CASES_BENCH_H_

#include <dlfcn.h>

#include "../../../kernels/cuda/kernels.h"
#include "../../../kernels/cuda/lt.h"
#include "../../fakecuda/cases/harness.h"
#include "../fakecublaslt.h"
#include "numbers.h"

typedef struct bench {
  CUcontext context;
  CUmodule module;
  CUstream stream;
  adcgk_lt *lt;
  adcgk_cuda device;
  adcgk_cuda_node node;
  void *functions[ADCGK_NUM_KERNELS];
} bench;

/* What the last launches through the launcher were, on this thread. */
static _Thread_local const bench *launching;
static _Thread_local CUstream launching_on;
static _Thread_local int launched[ADCGK_NUM_KERNELS];
static _Thread_local char message[256];

static inline void set_message(const char *text) { snprintf(message, sizeof message, "%s", text); }

static adcg_status launch(const adcg_launcher *launcher, const adcg_kernel_launch *l) {
  (void)launcher;
  int kernel = 0;
  while (launching->functions[kernel] != l->function) kernel++;
  launched[kernel]++;
  const CUresult result = cuLaunchKernel((CUfunction)l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2],
                                         l->shared_bytes, launching_on, l->params, NULL);
  if (result == CUDA_SUCCESS) return ADCG_OK;
  set_message("cuLaunchKernel");
  return ADCG_ERR_DEVICE;
}
static const adcg_launcher launcher = {launch};

static inline void lt_functions_of(void **functions) {
  void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  CHECK(library);
  for (size_t i = 0; adcgk_lt_names[i]; i++) CHECK(functions[i] = dlsym(library, adcgk_lt_names[i]));
}

static inline void bench_open(bench *b, const adcgk_lt_options *options) {
  memset(b, 0, sizeof *b);
  OK(cuInit(0));
  OK(cuDevicePrimaryCtxRetain(&b->context, 0));
  OK(cuCtxSetCurrent(b->context));
  OK(cuStreamCreate(&b->stream, CU_STREAM_NON_BLOCKING));
  char image[4096];
  snprintf(image, sizeof image, "fakecuda-image 1\nlibrary %s\n", getenv("FAKECUDA_KERNELS"));
  OK(cuModuleLoadData(&b->module, image));
  for (int i = 0; i < ADCGK_NUM_KERNELS; i++) OK(cuModuleGetFunction((CUfunction *)&b->functions[i], b->module, adcgk_cuda_kernels[i]));
  void *functions[32];
  lt_functions_of(functions);
  b->lt = adcgk_lt_open(functions, options, message, sizeof message);
  if (!b->lt) fputs(message, stderr);
  CHECK(b->lt);
  b->device = (adcgk_cuda){.functions = b->functions, .lt = b->lt, .compute = 90};
  int multiprocessors;
  OK(cuDeviceGetAttribute(&multiprocessors, 16, 0));
  b->device.multiprocessors = multiprocessors;
  b->node.device = &b->device;
}

static inline void bench_close(bench *b) {
  adcgk_lt_close(b->lt);
  CHECK_INT(fakecublaslt_handles(), 0);
  OK(cuModuleUnload(b->module));
  OK(cuStreamDestroy_v2(b->stream));
  OK(cuDevicePrimaryCtxRelease_v2(0));
  char text[2048];
  const size_t leaks = fakecuda_leaks(text, sizeof text);
  if (leaks) fputs(text, stderr);
  CHECK_INT(leaks, 0);
}

/* ---- One product ------------------------------------------------------------------------------------------------------------------ */

typedef struct spec {
  int64_t m, n, k;
  int x_bf16, w_bf16;
  int bias; /* 0: none; 1: f32; 2: bf16 */
  const char *activation;
  int64_t x_gap, y_gap;    /* elements between rows */
  int64_t x_shift, y_shift; /* elements that x and y lie behind a well aligned address */
} spec;

typedef struct product {
  spec s;
  void *x, *w, *bias, *y; /* on the host: what is there, y as it is before */
  CUdeviceptr dx, dw, dbias, dy, workspace;
  size_t x_bytes, w_bytes, bias_bytes, y_bytes;
  int64_t shapes[4][2], strides[2][2];
  DLTensor inputs[3], output;
  adcg_attr attr;
  adcg_batch batch;
  adcg_op_call call;
} product;

static inline DLTensor tensor(CUdeviceptr data, int bf16, int32_t ndim, int64_t *shape, int64_t *strides) {
  DLTensor t;
  memset(&t, 0, sizeof t);
  t.data = (void *)(uintptr_t)data;
  t.device.device_type = kDLCUDA;
  t.ndim = ndim;
  t.dtype = adcg_dtype_to_dlpack(bf16 ? ADCG_BF16 : ADCG_F32);
  t.shape = shape;
  t.strides = strides;
  return t;
}

/* Numbers between -1 and 1, the same ones for the same seed. */
static inline void fill(void *to, int bf16, int64_t count, uint32_t seed) {
  for (int64_t i = 0; i < count; i++) {
    seed = seed * 1664525 + 1013904223;
    put_number(to, bf16, i, (double)(seed >> 8) / (1 << 23) - 1);
  }
}

static inline CUdeviceptr put_on_device(const void *from, size_t bytes) {
  CUdeviceptr address;
  OK(cuMemAlloc_v2(&address, bytes));
  OK(cuMemcpyHtoD_v2(address, from, bytes));
  return address;
}

static inline size_t element(int bf16) { return bf16 ? 2 : 4; }

static inline void product_open(const bench *b, product *p, const spec *s) {
  memset(p, 0, sizeof *p);
  p->s = *s;
  const int64_t ldx = s->k + s->x_gap, ldy = s->n + s->y_gap;
  p->x_bytes = (size_t)(s->x_shift + s->m * ldx) * element(s->x_bf16);
  p->w_bytes = (size_t)(s->n * s->k) * element(s->w_bf16);
  p->bias_bytes = (size_t)s->n * element(s->bias == 2);
  p->y_bytes = (size_t)(s->y_shift + s->m * ldy + 8) * element(s->x_bf16);
  p->x = malloc(p->x_bytes);
  p->w = malloc(p->w_bytes);
  p->bias = malloc(p->bias_bytes);
  p->y = malloc(p->y_bytes);
  fill(p->x, s->x_bf16, (int64_t)(p->x_bytes / element(s->x_bf16)), 1);
  fill(p->w, s->w_bf16, s->n * s->k, 2);
  fill(p->bias, s->bias == 2, s->n, 3);
  fill(p->y, s->x_bf16, (int64_t)(p->y_bytes / element(s->x_bf16)), 4);
  p->dx = put_on_device(p->x, p->x_bytes);
  p->dw = put_on_device(p->w, p->w_bytes);
  p->dbias = put_on_device(p->bias, p->bias_bytes);
  p->dy = put_on_device(p->y, p->y_bytes);
  const int64_t shapes[4][2] = {{s->m, s->k}, {s->n, s->k}, {s->n, 0}, {s->m, s->n}};
  memcpy(p->shapes, shapes, sizeof shapes);
  p->strides[0][0] = ldx;
  p->strides[1][0] = ldy;
  p->strides[0][1] = p->strides[1][1] = 1;
  p->inputs[0] = tensor(p->dx, s->x_bf16, 2, p->shapes[0], s->x_gap ? p->strides[0] : NULL);
  p->inputs[1] = tensor(p->dw, s->w_bf16, 2, p->shapes[1], NULL);
  p->inputs[2] = tensor(p->dbias, s->bias == 2, 1, p->shapes[2], NULL);
  p->output = tensor(p->dy, s->x_bf16, 2, p->shapes[3], s->y_gap ? p->strides[1] : NULL);
  p->inputs[0].byte_offset = (uint64_t)s->x_shift * element(s->x_bf16);
  p->output.byte_offset = (uint64_t)s->y_shift * element(s->x_bf16);
  p->attr = (adcg_attr)ADCG_ATTR_STRING("activation", s->activation ? s->activation : "none");
  p->batch = (adcg_batch)ADCG_BATCH_INIT;
  p->call = (adcg_op_call){.struct_size = sizeof p->call,
                           .phase = ADCG_PHASE_REPLAY,
                           .num_inputs = s->bias ? 3 : 2,
                           .num_outputs = 1,
                           .num_attrs = 1,
                           .tokens = s->m,
                           .batch = &p->batch,
                           .inputs = p->inputs,
                           .outputs = &p->output,
                           .attrs = &p->attr,
                           .stream = b->stream,
                           .launcher = &launcher,
                           .set_error = set_message};
  size_t bytes = 0;
  CHECK_INT(adcgk_cuda_find("adcg.linear")->workspace(&p->call, &bytes, (void *)&b->node), ADCG_OK);
  if (bytes > 0) {
    OK(cuMemAlloc_v2(&p->workspace, bytes + 64)); /* on 64 bytes and no more, as a plan may lay it */
    p->call.workspace = (void *)(uintptr_t)(p->workspace + 64);
    p->call.workspace_bytes = bytes;
  }
}

static inline void product_close(product *p) {
  free(p->x);
  free(p->w);
  free(p->bias);
  free(p->y);
  OK(cuMemFree_v2(p->dx));
  OK(cuMemFree_v2(p->dw));
  OK(cuMemFree_v2(p->dbias));
  OK(cuMemFree_v2(p->dy));
  if (p->workspace) OK(cuMemFree_v2(p->workspace));
}

static inline adcg_status product_run(const bench *b, product *p) {
  launching = b;
  launching_on = p->call.stream;
  message[0] = '\0';
  return adcgk_cuda_find("adcg.linear")->launch(&p->call, (void *)&b->node);
}

static inline void product_reset(const product *p) { OK(cuMemcpyHtoD_v2(p->dy, p->y, p->y_bytes)); }

/* The largest error over what it may be: `slack` times the roundings of the result and of sums in f32. What lies between rows and
 * behind them must be as it was. */
static inline double product_error(const product *p, double slack) {
  const spec *s = &p->s;
  char *now = malloc(p->y_bytes);
  OK(cuMemcpyDtoH_v2(now, p->dy, p->y_bytes));
  const int64_t ldx = s->k + s->x_gap, ldy = s->n + s->y_gap, elements = (int64_t)(p->y_bytes / element(s->x_bf16));
  const int32_t activation = (int32_t)adcgk_activation_of(p->attr.s);
  double worst = 0;
  for (int64_t i = 0; i < elements; i++) {
    const int64_t row = (i - s->y_shift) / ldy, column = (i - s->y_shift) % ldy;
    const double got = number_at(now, s->x_bf16, i);
    if (i < s->y_shift || row >= s->m || column >= s->n) {
      CHECK(got == number_at(p->y, s->x_bf16, i));
      continue;
    }
    double sum = 0, size = 0;
    for (int64_t k = 0; k < s->k; k++) {
      const double term = number_at(p->x, s->x_bf16, s->x_shift + row * ldx + k) * number_at(p->w, s->w_bf16, column * s->k + k);
      sum += term;
      size += fabs(term);
    }
    if (s->bias) sum += number_at(p->bias, s->bias == 2, column);
    const double want = activated(activation, sum);
    const double limit =
        fabs(want) * (s->x_bf16 ? 0x1p-8 : 0x1p-24) * 1.01 + 0x1p-22 * size * (activation == ADCGK_RELU2 ? 2 * fabs(sum) + 1 : 1);
    const double error = fabs(got - want) / limit;
    if (!(error <= slack)) {
      fprintf(stderr, "[%lld, %lld]: %.9g, expected %.9g within %.3g\n", (long long)row, (long long)column, got, want, slack * limit);
      free(now);
      return INFINITY;
    }
    if (error > worst) worst = error;
  }
  free(now);
  return worst;
}

static inline void check_right(const product *p) {
  OK(cuStreamSynchronize((CUstream)p->call.stream));
  CHECK(product_error(p, 1) <= 1);
}

#endif
