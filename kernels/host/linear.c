/* adcg.linear: x [R, K], weight [N, K], bias [N] (optional) -> [R, N], each result through an activation. The work is cut into blocks of rows and
 * columns; the products themselves are in product.h. */
#include <string.h>

#include "../common/strides.h"
#include "internal.h"

typedef struct region {
  const adcgk_kernels *kernels;
  const adcgk_product *product;
  int64_t m, n;
  int64_t row_blocks; /* blocks are numbered rows first, so that neighbours share weights */
  int64_t row_block, column_block;
  adcgk_runs row; /* of x; more than one if its rows do not lie in one piece */
} region;

enum { ROW_ROOM = 128 << 10 }; /* bytes of rows that a task gathers on its stack */

/* A product over rows of x that lie in pieces: they are put together first. */
static void gather_product(const region *r, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  char rows[ROW_ROOM] __attribute__((aligned(64)));
  const int64_t size = r->product->x_bf16 ? 2 : 4, k = r->product->k, piece = r->row.length * size;
  for (int64_t m = m0; m < m1; m++) {
    for (int64_t i = 0; i < r->row.count; i++)
      memcpy(rows + (m - m0) * k * size + i * piece,
             (const char *)r->product->x + (m * r->product->ldx + adcgk_run_at(&r->row, 0, i)) * size, (size_t)piece);
  }
  adcgk_product p = *r->product;
  p.x = rows;
  p.ldx = k;
  p.y = (char *)p.y + m0 * p.ldy * (p.y_bf16 ? 2 : 4);
  r->kernels->product(&p, 0, m1 - m0, n0, n1);
}

static void task(void *context, int64_t number) {
  const region *r = context;
  const int64_t m = number % r->row_blocks * r->row_block, n = number / r->row_blocks * r->column_block;
  const int64_t m1 = adcgk_min(m + r->row_block, r->m), n1 = adcgk_min(n + r->column_block, r->n);
  if (r->row.count > 1)
    gather_product(r, m, m1, n, n1);
  else
    r->kernels->product(r->product, m, m1, n, n1);
}

adcg_status adcgk_linear(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *w = &call->inputs[1], *y = &call->outputs[0];
  const DLTensor *bias = call->num_inputs > 2 ? &call->inputs[2] : NULL;
  const int64_t k = w->shape[1], n = w->shape[0], m = x->shape[0];
  const adcgk_product product = {
      .x = adcg_data(x),
      .w = adcg_data(w),
      .bias = bias ? adcg_data(bias) : NULL,
      .y = adcg_data(y),
      .k = k,
      .ldx = adcgk_stride(x, 0),
      .ldw = k,
      .ldy = adcgk_stride(y, 0),
      .x_bf16 = adcgk_is_bf16(x),
      .w_bf16 = adcgk_is_bf16(w),
      .bias_bf16 = bias && adcgk_is_bf16(bias),
      .y_bf16 = adcgk_is_bf16(y),
      .activation = adcgk_activation_of(call->attrs[0].s),
  };
  adcgk_pool *pool = adcgk_pool_of(user_data);
  region r = {.kernels = adcgk_active(), .product = &product, .m = m, .n = n, .row = adcgk_row_runs(x)};
  /* Blocks of up to 96 rows; columns so that every thread gets several blocks of no less than a few microseconds. */
  r.row_blocks = adcgk_max(1, adcgk_ceil_div(m, 96));
  r.row_block = adcgk_max(1, adcgk_ceil_div(m, r.row_blocks));
  if (r.row.count > 1) {
    const int64_t room = ROW_ROOM / (k * (product.x_bf16 ? 2 : 4));
    if (room == 0) return adcgk_fail(call, "x: rows of %lld elements in pieces: too long to be put together", (long long)k);
    r.row_block = adcgk_min(r.row_block, room);
    r.row_blocks = adcgk_max(1, adcgk_ceil_div(m, r.row_block));
  }
  const int64_t parts = adcgk_ceil_div((int64_t)(pool ? adcgk_pool_threads(pool) : 1) * 8, r.row_blocks);
  const int64_t least = adcgk_max(16, 200000 / (r.row_block * k + 1));
  r.column_block = adcgk_ceil_div(adcgk_max(adcgk_ceil_div(n, parts), least), 16) * 16;
  /* One core does about 30 multiply-adds a nanosecond, and reads weights at about 10 bytes a nanosecond. */
  const double macs = (double)m * (double)n * (double)k;
  const double bytes = (double)n * (double)k * (product.w_bf16 ? 2 : 4);
  adcgk_parallel(pool, r.row_blocks * adcgk_ceil_div(n, r.column_block), macs / 30 + bytes / 20, task, &r);
  return ADCG_OK;
}
