/* Ops that work row by row or element by element: rms_norm, add, silu_mul. */
#include "internal.h"

typedef struct region {
  const adcgk_kernels *kernels;
  void *y;
  const void *a, *b;
  bool bf16, b_bf16;
  int64_t n;     /* rows of rms_norm, elements of the others */
  int64_t block; /* rows or elements of a task; a multiple of 16 for elements, which keeps the lanes apart */
  int64_t width; /* elements of a row of rms_norm */
  float eps;
  void (*elements)(void *y, const void *a, const void *b, bool bf16, int64_t first, int64_t n);
} region;

static void norm_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t bytes = r->width * (r->bf16 ? 2 : 4), end = adcgk_min((task + 1) * r->block, r->n);
  for (int64_t i = task * r->block; i < end; i++) {
    r->kernels->rms_norm((char *)r->y + i * bytes, (const char *)r->a + i * bytes, r->bf16, r->b, r->b_bf16, r->eps, r->width);
  }
}

adcg_status adcgk_rms_norm(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *weight = &call->inputs[1];
  region r = {.kernels = adcgk_active(),
              .y = adcg_data(&call->outputs[0]),
              .a = adcg_data(x),
              .b = adcg_data(weight),
              .bf16 = adcgk_is_bf16(x),
              .b_bf16 = adcgk_is_bf16(weight)};
  r.width = x->shape[x->ndim - 1];
  r.eps = (float)call->attrs[0].f;
  const int64_t elements = adcg_numel(x);
  r.n = elements / r.width;
  r.block = adcgk_max(1, 8192 / r.width);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.n, r.block), (double)elements * 0.2, norm_task, &r);
  return ADCG_OK;
}

static void elements_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t first = task * r->block;
  r->elements(r->y, r->a, r->b, r->bf16, first, adcgk_min(r->block, r->n - first));
}

static adcg_status elementwise(const adcg_op_call *call, void *user_data,
                               void (*fn)(void *, const void *, const void *, bool, int64_t, int64_t), double nanoseconds) {
  const DLTensor *a = &call->inputs[0];
  region r = {.y = adcg_data(&call->outputs[0]),
              .a = adcg_data(a),
              .b = adcg_data(&call->inputs[1]),
              .bf16 = adcgk_is_bf16(a),
              .n = adcg_numel(a),
              .block = 8192,
              .elements = fn};
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.n, r.block), (double)r.n * nanoseconds, elements_task, &r);
  return ADCG_OK;
}

adcg_status adcgk_add(const adcg_op_call *call, void *user_data) { return elementwise(call, user_data, adcgk_active()->add, 0.15); }

adcg_status adcgk_silu_mul(const adcg_op_call *call, void *user_data) {
  return elementwise(call, user_data, adcgk_active()->silu_mul, 0.6);
}
