/* adcg.slice and adcg.concat. What the plan gives as a part of another tensor lies where it belongs already; the rest is
 * copied, run by run. */
#include <string.h>

#include "../common/parts.h"
#include "internal.h"

typedef struct region {
  char *to;
  const char *from;
  adcgk_runs runs; /* of to and from */
  int64_t size;    /* bytes of an element */
  int64_t n;       /* runs, or elements if there is one run alone */
  int64_t block;   /* of them in a task */
} region;

static void task(void *context, int64_t number) {
  const region *r = context;
  const int64_t first = number * r->block, end = adcgk_min(first + r->block, r->n);
  if (r->runs.count == 1) {
    memcpy(r->to + first * r->size, r->from + first * r->size, (size_t)((end - first) * r->size));
    return;
  }
  for (int64_t i = first; i < end; i++)
    memcpy(r->to + adcgk_run_at(&r->runs, 0, i) * r->size, r->from + adcgk_run_at(&r->runs, 1, i) * r->size,
           (size_t)(r->runs.length * r->size));
}

enum { TASK_BYTES = 128 << 10 };

static void copy(adcgk_pool *pool, const DLTensor *to, const DLTensor *from) {
  region r = {.to = adcg_data(to), .from = adcg_data(from), .size = (int64_t)adcgk_size(from)};
  r.runs = adcgk_runs_of((const DLTensor *[]){to, from}, 2, 0, false);
  const int64_t bytes = r.runs.count * r.runs.length * r.size; /* 10 of them a nanosecond */
  if (bytes == 0) return;
  r.n = r.runs.count == 1 ? r.runs.length : r.runs.count;
  r.block = adcgk_max(1, TASK_BYTES / (r.runs.count == 1 ? r.size : r.runs.length * r.size));
  adcgk_parallel(pool, adcgk_ceil_div(r.n, r.block), (double)bytes / 10 + (double)r.runs.count * 5, task, &r);
}

adcg_status adcgk_slice(const adcg_op_call *call, void *user_data) {
  int64_t strides[ADCG_MAX_NDIM];
  const DLTensor part = adcgk_part_of(&call->inputs[0], &call->outputs[0], adcgk_axis_of(call), call->attrs[1].i, strides);
  if (adcg_data(&part) != adcg_data(&call->outputs[0])) copy(adcgk_pool_of(user_data), &call->outputs[0], &part);
  return ADCG_OK;
}

adcg_status adcgk_concat(const adcg_op_call *call, void *user_data) {
  const int32_t axis = adcgk_axis_of(call);
  int64_t start = 0;
  for (int32_t i = 0; i < call->num_inputs; i++) {
    const DLTensor *x = &call->inputs[i];
    int64_t strides[ADCG_MAX_NDIM];
    const DLTensor part = adcgk_part_of(&call->outputs[0], x, axis, start, strides);
    if (adcg_data(&part) != adcg_data(x)) copy(adcgk_pool_of(user_data), &part, x);
    start += x->shape[axis];
  }
  return ADCG_OK;
}
