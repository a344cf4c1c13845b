/* Ops that work row by row or element by element: rms_norm, add, silu_mul. */
#include "strides.h"

typedef struct region {
  const adcgk_kernels *kernels;
  void *y;
  const void *a, *b;
  bool bf16, b_bf16;
  adcgk_runs runs; /* of y, a and, but for rms_norm, b; rows of rms_norm */
  int64_t n;       /* runs, or elements if there is one run alone */
  int64_t block;   /* runs or elements of a task; a multiple of 16 for elements, which keeps the lanes apart */
  float eps;
  void (*elements)(void *y, const void *a, const void *b, bool bf16, int64_t first, int64_t n);
} region;

static void norm_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t size = r->bf16 ? 2 : 4, end = adcgk_min((task + 1) * r->block, r->n);
  for (int64_t i = task * r->block; i < end; i++) {
    r->kernels->rms_norm((char *)r->y + adcgk_run_at(&r->runs, 0, i) * size, (const char *)r->a + adcgk_run_at(&r->runs, 1, i) * size,
                         r->bf16, r->b, r->b_bf16, r->eps, r->runs.length);
  }
}

adcg_status adcgk_rms_norm(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *weight = &call->inputs[1], *y = &call->outputs[0];
  region r = {.kernels = adcgk_active(),
              .y = adcg_data(y),
              .a = adcg_data(x),
              .b = adcg_data(weight),
              .bf16 = adcgk_is_bf16(x),
              .b_bf16 = adcgk_is_bf16(weight),
              .runs = adcgk_runs_of((const DLTensor *[]){y, x}, 2, 0, true)};
  r.eps = (float)call->attrs[0].f;
  r.n = r.runs.count;
  r.block = adcgk_max(1, 8192 / r.runs.length);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.n, r.block), (double)(r.n * r.runs.length) * 0.2, norm_task, &r);
  return ADCG_OK;
}

static void elements_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t first = task * r->block, end = adcgk_min(first + r->block, r->n);
  if (r->runs.count == 1) {
    r->elements(r->y, r->a, r->b, r->bf16, first, end - first);
    return;
  }
  const int64_t size = r->bf16 ? 2 : 4;
  for (int64_t i = first; i < end; i++)
    r->elements((char *)r->y + adcgk_run_at(&r->runs, 0, i) * size, (const char *)r->a + adcgk_run_at(&r->runs, 1, i) * size,
                (const char *)r->b + adcgk_run_at(&r->runs, 2, i) * size, r->bf16, 0, r->runs.length);
}

static adcg_status elementwise(const adcg_op_call *call, void *user_data,
                               void (*fn)(void *, const void *, const void *, bool, int64_t, int64_t), double nanoseconds) {
  const DLTensor *a = &call->inputs[0], *b = &call->inputs[1], *y = &call->outputs[0];
  region r = {.y = adcg_data(y),
              .a = adcg_data(a),
              .b = adcg_data(b),
              .bf16 = adcgk_is_bf16(a),
              .runs = adcgk_runs_of((const DLTensor *[]){y, a, b}, 3, 0, false),
              .elements = fn};
  const bool one = r.runs.count == 1;
  r.n = one ? r.runs.length : r.runs.count;
  r.block = one ? 8192 : adcgk_max(1, 8192 / r.runs.length);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.n, r.block), (double)adcg_numel(a) * nanoseconds, elements_task, &r);
  return ADCG_OK;
}

adcg_status adcgk_add(const adcg_op_call *call, void *user_data) { return elementwise(call, user_data, adcgk_active()->add, 0.15); }

adcg_status adcgk_silu_mul(const adcg_op_call *call, void *user_data) {
  return elementwise(call, user_data, adcgk_active()->silu_mul, 0.6);
}
