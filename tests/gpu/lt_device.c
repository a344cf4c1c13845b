/* adcg.linear on a real device for tests/gpu/lt.py, flat enough for ctypes: build/gpu/liblt.so. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/cuda/kernels.h"
#include "../../kernels/cuda/lt.h"

typedef int (*launch_kernel_fn)(void *function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared, void *stream,
                                void **params, void **extra);

typedef struct gpu_device {
  adcgk_cuda device;
  adcgk_cuda_node node;
  adcgk_lt *lt;
  launch_kernel_fn launch;
  void *functions[ADCGK_NUM_KERNELS];
} gpu_device;

/* One product; lt.py declares the same. */
typedef struct gpu_linear {
  void *x, *w, *bias, *y, *workspace, *stream;
  int64_t m, n, k, ldx, ldy, workspace_bytes;
  int32_t bf16;      /* of x, w and y */
  int32_t bias_type; /* 0: no bias; 1: f32; 2: bf16 */
  const char *activation;
} gpu_linear;

static _Thread_local char message[512];
static _Thread_local const gpu_device *launching;
static _Thread_local void *launching_on;

const char *gpu_lt_message(void) { return message; }
const char *gpu_lt_name(int32_t i) { return adcgk_lt_names[i]; }
int64_t gpu_lt_version(const gpu_device *d) { return adcgk_lt_version(d->lt); }

/* Names of the kernels of the image that products need, NULL at the end, in the order in which gpu_lt_open takes them. */
const char *gpu_lt_kernel(int32_t i) { return adcgk_cuda_kernels[i]; }

static void set_message(const char *text) { snprintf(message, sizeof message, "%s", text); }

/* `functions` are cuBLASLt's, `kernels` the CUfunctions of the image; entries of those that are not used may be NULL. NULL: see
 * gpu_lt_message. */
gpu_device *gpu_lt_open(void *const *functions, const adcgk_lt_options *options, void *launch, void *const *kernels,
                        int32_t multiprocessors, int32_t batch_invariant) {
  gpu_device *d = calloc(1, sizeof *d);
  if (!d) return NULL;
  d->lt = adcgk_lt_open(functions, options, message, sizeof message);
  if (!d->lt) {
    free(d);
    return NULL;
  }
  memcpy(d->functions, kernels, sizeof d->functions);
  memcpy(&d->launch, &launch, sizeof launch);
  d->device = (adcgk_cuda){.functions = d->functions, .lt = d->lt, .multiprocessors = multiprocessors, .batch_invariant = batch_invariant};
  d->node.device = &d->device;
  return d;
}

void gpu_lt_close(gpu_device *d) {
  if (d) adcgk_lt_close(d->lt);
  free(d);
}

static adcg_status launch(const adcg_launcher *launcher, const adcg_kernel_launch *l) {
  (void)launcher;
  const int result = l->function ? launching->launch(l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2],
                                                     l->shared_bytes, launching_on, l->params, NULL)
                                 : 500;
  if (result == 0) return ADCG_OK;
  snprintf(message, sizeof message, "cuLaunchKernel: %d", result);
  return ADCG_ERR_DEVICE;
}

static DLTensor tensor(void *data, int32_t bf16, int32_t ndim, int64_t *shape, int64_t *strides) {
  DLTensor t;
  memset(&t, 0, sizeof t);
  t.data = data;
  t.device.device_type = kDLCUDA;
  t.ndim = ndim;
  t.dtype = adcg_dtype_to_dlpack(bf16 ? ADCG_BF16 : ADCG_F32);
  t.shape = shape;
  t.strides = strides;
  return t;
}

enum { RUN, WORKSPACE, DESCRIBE };

static int64_t linear(const gpu_device *d, const gpu_linear *g, int what, adcgk_lt_choice *out) {
  static const adcg_launcher launcher = {launch};
  int64_t x_shape[] = {g->m, g->k}, w_shape[] = {g->n, g->k}, bias_shape[] = {g->n}, y_shape[] = {g->m, g->n};
  int64_t x_strides[] = {g->ldx, 1}, y_strides[] = {g->ldy, 1};
  const DLTensor inputs[] = {tensor(g->x, g->bf16, 2, x_shape, x_strides), tensor(g->w, g->bf16, 2, w_shape, NULL),
                             tensor(g->bias, g->bias_type == 2, 1, bias_shape, NULL)};
  DLTensor output = tensor(g->y, g->bf16, 2, y_shape, y_strides);
  const adcg_attr attr = ADCG_ATTR_STRING("activation", g->activation);
  const adcg_batch batch = ADCG_BATCH_INIT;
  const adcg_op_call call = {.struct_size = sizeof call,
                             .phase = ADCG_PHASE_REPLAY,
                             .num_inputs = g->bias_type ? 3 : 2,
                             .num_outputs = 1,
                             .num_attrs = 1,
                             .tokens = g->m,
                             .batch = &batch,
                             .inputs = inputs,
                             .outputs = &output,
                             .attrs = &attr,
                             .workspace = g->workspace,
                             .workspace_bytes = (size_t)g->workspace_bytes,
                             .stream = g->stream,
                             .launcher = &launcher,
                             .set_error = set_message};
  launching = d;
  launching_on = g->stream;
  set_message("");
  if (what == WORKSPACE) return (int64_t)adcgk_lt_workspace(&call, &d->node);
  if (what == DESCRIBE) return adcgk_lt_describe(&call, &d->node, out);
  return adcgk_cuda_find("adcg.linear")->launch(&call, (void *)(uintptr_t)&d->node);
}

int64_t gpu_lt_workspace(const gpu_device *d, const gpu_linear *g) { return linear(d, g, WORKSPACE, NULL); }
int64_t gpu_lt_linear(const gpu_device *d, const gpu_linear *g) { return linear(d, g, RUN, NULL); }
int64_t gpu_lt_describe(const gpu_device *d, const gpu_linear *g, adcgk_lt_choice *out) { return linear(d, g, DESCRIBE, out); }
