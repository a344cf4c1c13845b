/* Ops that work element by element: sums, products, activations, casts. */
#include <string.h>

#include "../common/strides.h"
#include "internal.h"

typedef struct region {
  const adcgk_kernels *kernels;
  char *y;
  const char *a, *b;
  bool bf16, y_bf16;
  adcgk_runs runs; /* of y, a and b */
  int64_t n;       /* runs, or elements if there is one run alone */
  int64_t block;   /* runs or elements of a task; a multiple of 16 for elements, which keeps the lanes apart */
  adcgk_elements_fn elements;
  bool sigmoid;               /* of a product with one number a row: with its sigmoid */
} region;

static void start(void *user_data, region *r, double nanoseconds, adcgk_task_fn task) {
  const bool one = r->runs.count == 1;
  r->n = one ? r->runs.length : r->runs.count;
  r->block = one ? 8192 : adcgk_max(1, 8192 / r->runs.length);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r->n, r->block), (double)(r->runs.count * r->runs.length) * nanoseconds, task, r);
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
    r->elements(r->y + adcgk_run_at(&r->runs, 0, i) * size, r->a + adcgk_run_at(&r->runs, 1, i) * size,
                r->b + adcgk_run_at(&r->runs, 2, i) * size, r->bf16, 0, r->runs.length);
}

/* Of one operand or two. */
static adcg_status elementwise(const adcg_op_call *call, void *user_data, adcgk_elements_fn fn, double nanoseconds) {
  const DLTensor *a = &call->inputs[0], *b = &call->inputs[call->num_inputs - 1], *y = &call->outputs[0];
  region r = {.y = adcg_data(y),
              .a = adcg_data(a),
              .b = adcg_data(b),
              .bf16 = adcgk_is_bf16(a),
              .runs = adcgk_runs_of((const DLTensor *[]){y, a, b}, 3, 0, false),
              .elements = fn};
  start(user_data, &r, nanoseconds, elements_task);
  return ADCG_OK;
}

/* Rows times a number each. The number goes through bf16 as elements do: the bits are those of a whole second operand. */
static void scale_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t size = r->bf16 ? 2 : 4, end = adcgk_min((task + 1) * r->block, r->runs.count);
  for (int64_t i = task * r->block; i < end; i++) {
    const void *by = r->b + adcgk_run_at(&r->runs, 2, i) * size;
    uint32_t gate; /* room for one element */
    float factor;
    if (r->sigmoid) {
      r->kernels->sigmoid(&gate, by, NULL, r->bf16, 0, 1);
      by = &gate;
    }
    r->kernels->convert(&factor, false, by, r->bf16, 1);
    r->kernels->scale(r->y + adcgk_run_at(&r->runs, 0, i) * size, r->a + adcgk_run_at(&r->runs, 1, i) * size, r->bf16, factor,
                      r->runs.length);
  }
}

/* A product with b or its sigmoid, where b may have one element a row of the last dim. */
static adcg_status product(const adcg_op_call *call, void *user_data, adcgk_elements_fn fn, bool sigmoid, double nanoseconds) {
  const DLTensor *a = &call->inputs[0], *b = &call->inputs[1], *y = &call->outputs[0];
  if (b->shape[b->ndim - 1] == a->shape[a->ndim - 1]) return elementwise(call, user_data, fn, nanoseconds);
  region r = {.kernels = adcgk_active(),
              .y = adcg_data(y),
              .a = adcg_data(a),
              .b = adcg_data(b),
              .bf16 = adcgk_is_bf16(a),
              .runs = adcgk_runs_of((const DLTensor *[]){y, a, b}, 3, 0, true),
              .sigmoid = sigmoid};
  r.block = adcgk_max(1, 8192 / r.runs.length);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.runs.count, r.block), (double)(r.runs.count * r.runs.length) * 0.15, scale_task,
                 &r);
  return ADCG_OK;
}

adcg_status adcgk_add(const adcg_op_call *call, void *user_data) { return elementwise(call, user_data, adcgk_active()->add, 0.15); }

adcg_status adcgk_mul(const adcg_op_call *call, void *user_data) { return product(call, user_data, adcgk_active()->mul, false, 0.15); }

adcg_status adcgk_sigmoid_mul(const adcg_op_call *call, void *user_data) {
  return product(call, user_data, adcgk_active()->sigmoid_mul, true, 0.6);
}

adcg_status adcgk_silu_mul(const adcg_op_call *call, void *user_data) {
  return elementwise(call, user_data, adcgk_active()->silu_mul, 0.6);
}

adcg_status adcgk_gelu_mul(const adcg_op_call *call, void *user_data) {
  const adcgk_kernels *kernels = adcgk_active();
  const bool tanh = strcmp(call->attrs[0].s, "tanh") == 0;
  return elementwise(call, user_data, tanh ? kernels->gelu_tanh_mul : kernels->gelu_mul, tanh ? 0.6 : 1.0);
}

adcg_status adcgk_silu(const adcg_op_call *call, void *user_data) { return elementwise(call, user_data, adcgk_active()->silu, 0.6); }

adcg_status adcgk_relu2(const adcg_op_call *call, void *user_data) { return elementwise(call, user_data, adcgk_active()->relu2, 0.15); }

adcg_status adcgk_sigmoid(const adcg_op_call *call, void *user_data) { return elementwise(call, user_data, adcgk_active()->sigmoid, 0.6); }

static void cast_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t first = task * r->block, end = adcgk_min(first + r->block, r->n), from = r->bf16 ? 2 : 4, to = r->y_bf16 ? 2 : 4;
  if (r->runs.count == 1) {
    r->kernels->convert(r->y + first * to, r->y_bf16, r->a + first * from, r->bf16, end - first);
    return;
  }
  for (int64_t i = first; i < end; i++)
    r->kernels->convert(r->y + adcgk_run_at(&r->runs, 0, i) * to, r->y_bf16, r->a + adcgk_run_at(&r->runs, 1, i) * from, r->bf16,
                        r->runs.length);
}

adcg_status adcgk_cast(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *y = &call->outputs[0];
  region r = {.kernels = adcgk_active(),
              .y = adcg_data(y),
              .a = adcg_data(x),
              .bf16 = adcgk_is_bf16(x),
              .y_bf16 = adcgk_is_bf16(y),
              .runs = adcgk_runs_of((const DLTensor *[]){y, x}, 2, 0, false)};
  start(user_data, &r, 0.15, cast_task);
  return ADCG_OK;
}
