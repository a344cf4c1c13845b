/* Ops on indices: embedding, gather_tokens, argmax, attention_metadata, paged_metadata. */
#include <string.h>

#include "cache.h"

typedef struct region {
  const adcgk_kernels *kernels;
  char *y;
  const char *x;
  const int32_t *index;
  bool y_bf16, x_bf16;
  int64_t rows, width;        /* of y (of x for argmax); elements of a row */
  int64_t y_stride, x_stride; /* elements from row to row */
  adcgk_runs runs;            /* of a row of y and x, in gather_tokens */
  int64_t block;              /* rows of a task */
} region;

static void take_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t end = adcgk_min((task + 1) * r->block, r->rows), from = r->x_bf16 ? 2 : 4, to = r->y_bf16 ? 2 : 4;
  for (int64_t i = task * r->block; i < end; i++) {
    const char *x = r->x + r->index[i] * r->x_stride * from;
    char *y = r->y + i * r->y_stride * to;
    if (r->x_bf16 != r->y_bf16) {
      r->kernels->convert(y, r->y_bf16, x, r->x_bf16, r->width);
      continue;
    }
    for (int64_t n = 0; n < r->runs.count; n++)
      memcpy(y + adcgk_run_at(&r->runs, 0, n) * to, x + adcgk_run_at(&r->runs, 1, n) * to, (size_t)(r->runs.length * to));
  }
}

adcg_status adcgk_embedding(const adcg_op_call *call, void *user_data) {
  const DLTensor *ids = &call->inputs[0], *table = &call->inputs[1], *y = &call->outputs[0];
  region r = {.kernels = adcgk_active(),
              .y = adcg_data(y),
              .x = adcg_data(table),
              .index = adcg_data(ids),
              .y_bf16 = adcgk_is_bf16(y),
              .x_bf16 = adcgk_is_bf16(table)};
  r.rows = ids->shape[0];
  r.width = table->shape[1];
  r.x_stride = r.width;
  r.y_stride = adcgk_stride(y, 0);
  r.runs = adcgk_row_runs(y); /* of one dim: one run */
  for (int64_t i = 0; i < r.rows; i++) {
    if (r.index[i] < 0 || r.index[i] >= table->shape[0])
      return adcgk_fail(call, "ids[%lld] is %d, the table has %lld rows", (long long)i, r.index[i], (long long)table->shape[0]);
  }
  r.block = adcgk_max(1, 16384 / r.width);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.rows, r.block), (double)(r.rows * r.width) * 0.2, take_task, &r);
  return ADCG_OK;
}

adcg_status adcgk_gather_tokens(const adcg_op_call *call, void *user_data) {
  const DLTensor *hidden = &call->inputs[0], *indices = &call->inputs[1], *y = &call->outputs[0];
  const int64_t tokens = adcg_batch_tokens(call->batch);
  region r = {.kernels = adcgk_active(), .y = adcg_data(y), .x = adcg_data(hidden), .index = adcg_data(indices)};
  r.rows = adcgk_min(adcg_batch_seqs(call->batch), indices->shape[0]);
  r.width = adcgk_row(hidden);
  r.x_stride = adcgk_stride(hidden, 0);
  r.y_stride = adcgk_stride(y, 0);
  r.runs = adcgk_runs_of((const DLTensor *[]){y, hidden}, 2, 1, false);
  r.x_bf16 = r.y_bf16 = adcgk_is_bf16(hidden);
  for (int64_t i = 0; i < r.rows; i++) {
    if (r.index[i] < 0 || r.index[i] >= tokens)
      return adcgk_fail(call, "indices[%lld] is %d, the step has %lld tokens", (long long)i, r.index[i], (long long)tokens);
  }
  r.block = adcgk_max(1, 16384 / r.width);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.rows, r.block), (double)(r.rows * r.width) * 0.2, take_task, &r);
  return ADCG_OK;
}

static void argmax_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t end = adcgk_min((task + 1) * r->block, r->rows), bytes = r->x_stride * (r->x_bf16 ? 2 : 4);
  for (int64_t i = task * r->block; i < end; i++)
    ((int32_t *)(void *)r->y)[i] = (int32_t)r->kernels->argmax(r->x + i * bytes, r->x_bf16, r->width);
}

adcg_status adcgk_argmax(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0];
  region r = {.kernels = adcgk_active(),
              .y = adcg_data(&call->outputs[0]),
              .x = adcg_data(x),
              .x_bf16 = adcgk_is_bf16(x),
              .rows = x->shape[0],
              .width = x->shape[1],
              .x_stride = adcgk_stride(x, 0)};
  r.block = adcgk_max(1, 16384 / r.width);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.rows, r.block), (double)(r.rows * r.width) * 0.15, argmax_task, &r);
  return ADCG_OK;
}

adcg_status adcgk_attention_metadata(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const int32_t *cu = adcg_data(&call->inputs[0]), *input_pos = adcg_data(&call->inputs[1]);
  int32_t *batch_indices = adcg_data(&call->outputs[0]), *positions = adcg_data(&call->outputs[1]);
  const adcg_status status = adcgk_check_sequences(call, cu, input_pos, INT32_MAX, "positions are 32 bits wide");
  if (status != ADCG_OK) return status;
  const int64_t seqs = adcg_batch_seqs(call->batch);
  for (int32_t s = 0; s < seqs; s++) {
    for (int32_t t = cu[s]; t < cu[s + 1]; t++) {
      batch_indices[t] = s;
      positions[t] = input_pos[s] + (t - cu[s]);
    }
  }
  return ADCG_OK;
}

adcg_status adcgk_paged_metadata(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const int32_t *cu_pages = adcg_data(&call->inputs[0]), *pages = adcg_data(&call->inputs[1]);
  const DLTensor *out = &call->outputs[0];
  const adcg_status status = adcgk_check_pages(call, cu_pages, call->inputs[1].shape[0]);
  if (status != ADCG_OK) return status;
  const int64_t seqs = adcg_batch_seqs(call->batch), most = out->shape[1];
  for (int64_t s = 0; s < seqs; s++) {
    if (cu_pages[s + 1] - cu_pages[s] > most)
      return adcgk_fail(call, "cu_num_pages[%lld] is %d: sequence %lld has %d pages, max_pages is %lld", (long long)s + 1, cu_pages[s + 1],
                        (long long)s, cu_pages[s + 1] - cu_pages[s], (long long)most);
  }
  for (int64_t s = 0; s < seqs; s++) {
    int32_t *row = (int32_t *)adcg_data(out) + s * most;
    const int64_t n = cu_pages[s + 1] - cu_pages[s];
    memcpy(row, pages + cu_pages[s], (size_t)n * sizeof(int32_t));
    memset(row + n, 0, (size_t)(most - n) * sizeof(int32_t));
  }
  return ADCG_OK;
}
