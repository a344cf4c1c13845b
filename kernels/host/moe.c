/* adcg.moe: each row of x through its experts. The pairs of a row and an expert of its are sorted by expert; an
 * expert's pairs pass by its weights in blocks, and y gathers them in the order of experts: first act = activation of
 * the up products, [pairs, I], then y = the weighted sum of the down products. The order of a row's sum is that of
 * its experts, so its bits depend on nothing else. */
#include <string.h>

#include "../common/strides.h"
#include "internal.h"

enum { BLOCK_ROWS = 96, BLOCK_COLUMNS = 64 }; /* of a product whose result stays on the stack */

typedef struct block {
  int32_t expert, first, count; /* pairs first .. first+count-1, at most BLOCK_ROWS */
} block;

/* Where things lie in the workspace, in bytes. */
typedef struct layout {
  size_t starts, rows, pairs, blocks, act, sums, end;
} layout;

typedef struct region {
  const adcgk_kernels *kernels;
  const char *x, *up, *down;
  char *y;
  const float *weights; /* [R, k] */
  char *act;
  float *sums; /* [R, h]: y itself if it is f32 */
  const int32_t *rows, *pairs; /* of the sorted pairs: row of x, and row * k + j */
  const block *blocks;
  int64_t num_blocks, block_columns;
  int64_t num_rows, hidden, inner;
  int64_t x_stride, y_stride, sums_stride; /* elements from row to row */
  bool bf16, up_bf16, down_bf16, gated;
  adcgk_activation activation;
} region;

static size_t size_of(bool bf16) { return bf16 ? 2 : 4; }

static size_t take(size_t *end, int64_t count, size_t size) {
  const size_t at = *end;
  *end = (at + (size_t)count * size + 63) / 64 * 64;
  return at;
}

static layout layout_of(const adcg_op_call *call) {
  const DLTensor *x = &call->inputs[0], *down = &call->inputs[4];
  const int64_t pairs = adcg_numel(&call->inputs[2]), experts = down->shape[0];
  layout l = {.end = 0};
  l.starts = take(&l.end, experts + 1, sizeof(int32_t));
  l.rows = take(&l.end, pairs, sizeof(int32_t));
  l.pairs = take(&l.end, pairs, sizeof(int32_t));
  l.blocks = take(&l.end, pairs / BLOCK_ROWS + adcgk_min(pairs, experts), sizeof(block));
  l.act = take(&l.end, pairs * down->shape[2], adcgk_size(x));
  l.sums = take(&l.end, adcgk_is_bf16(x) ? adcg_numel(x) : 0, sizeof(float));
  return l;
}

adcg_status adcgk_moe_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  *out_bytes = layout_of(call).end;
  return ADCG_OK;
}

/* Columns n .. n+columns-1 of an expert's activations, for one block of its pairs. */
static void up_task(void *context, int64_t number) {
  const region *r = context;
  const block *b = &r->blocks[number % r->num_blocks];
  const int64_t n = number / r->num_blocks * r->block_columns, columns = adcgk_min(r->block_columns, r->inner - n);
  float gate[BLOCK_ROWS * BLOCK_COLUMNS] __attribute__((aligned(64))), up[BLOCK_ROWS * BLOCK_COLUMNS] __attribute__((aligned(64)));
  const int64_t expert_row = b->expert * r->inner * (r->gated ? 2 : 1) + n;
  adcgk_product p = {.x = r->x,
                     .rows = r->rows + b->first,
                     .w = r->up + (size_t)(expert_row * r->hidden) * size_of(r->up_bf16),
                     .y = gate,
                     .k = r->hidden,
                     .ldx = r->x_stride,
                     .ldw = r->hidden,
                     .ldy = columns,
                     .x_bf16 = r->bf16,
                     .w_bf16 = r->up_bf16};
  r->kernels->product(&p, 0, b->count, 0, columns);
  if (r->gated) {
    p.w = (const char *)p.w + (size_t)(r->inner * r->hidden) * size_of(r->up_bf16);
    p.y = up;
    r->kernels->product(&p, 0, b->count, 0, columns);
  }
  for (int64_t m = 0; m < b->count; m++)
    r->kernels->activate(r->act, r->bf16, (b->first + m) * r->inner + n, gate + m * columns, r->gated ? up + m * columns : NULL,
                         r->activation, columns);
}

/* Columns of y, for all rows: experts in ascending order. */
static void down_task(void *context, int64_t number) {
  const region *r = context;
  const int64_t n = number * r->block_columns, columns = adcgk_min(r->block_columns, r->hidden - n);
  float tile[BLOCK_ROWS * BLOCK_COLUMNS] __attribute__((aligned(64)));
  for (int64_t row = 0; row < r->num_rows; row++) memset(r->sums + row * r->sums_stride + n, 0, (size_t)columns * sizeof(float));
  for (const block *b = r->blocks; b < r->blocks + r->num_blocks; b++) {
    const adcgk_product p = {.x = r->act + (size_t)(b->first * r->inner) * size_of(r->bf16),
                             .w = r->down + (size_t)((b->expert * r->hidden + n) * r->inner) * size_of(r->down_bf16),
                             .y = tile,
                             .k = r->inner,
                             .ldx = r->inner,
                             .ldw = r->inner,
                             .ldy = columns,
                             .x_bf16 = r->bf16,
                             .w_bf16 = r->down_bf16};
    r->kernels->product(&p, 0, b->count, 0, columns);
    for (int64_t m = 0; m < b->count; m++)
      r->kernels->accumulate(r->sums + r->rows[b->first + m] * r->sums_stride + n, tile + m * columns, r->weights[r->pairs[b->first + m]],
                             columns);
  }
  if (!r->bf16) return;
  for (int64_t row = 0; row < r->num_rows; row++)
    r->kernels->convert(r->y + (row * r->y_stride + n) * 2, true, r->sums + row * r->sums_stride + n, false, columns);
}

/* Sorts the pairs by expert, those of one expert by row, and cuts them into blocks as even as they can be. */
static int64_t sort_pairs(const int32_t *indices, int64_t num_pairs, int64_t k, int64_t experts, int32_t *starts, int32_t *rows,
                          int32_t *pairs, block *blocks) {
  memset(starts, 0, (size_t)(experts + 1) * sizeof(*starts));
  for (int64_t i = 0; i < num_pairs; i++) starts[indices[i] + 1]++;
  int64_t num_blocks = 0;
  for (int64_t e = 0; e < experts; e++) {
    const int64_t count = starts[e + 1], parts = adcgk_ceil_div(count, BLOCK_ROWS);
    for (int64_t i = 0; i < parts; i++) {
      const int64_t from = count * i / parts, to = count * (i + 1) / parts;
      blocks[num_blocks++] = (block){(int32_t)e, starts[e] + (int32_t)from, (int32_t)(to - from)};
    }
    starts[e + 1] += starts[e];
  }
  for (int64_t i = 0; i < num_pairs; i++) {
    const int32_t at = starts[indices[i]]++; /* from here on starts[e] is where the next pair of e goes */
    rows[at] = (int32_t)(i / k);
    pairs[at] = (int32_t)i;
  }
  return num_blocks;
}

/* Columns of a task: several tasks for every thread, none shorter than a few microseconds. */
static int64_t columns_of(int64_t n, int64_t blocks, int64_t macs, int threads) {
  const int64_t parts = adcgk_ceil_div((int64_t)threads * 8, adcgk_max(1, blocks));
  const int64_t least = adcgk_max(16, 200000 / (macs + 1));
  return adcgk_min(BLOCK_COLUMNS, adcgk_ceil_div(adcgk_max(adcgk_ceil_div(n, parts), least), 16) * 16);
}

/* One core does about 30 multiply-adds a nanosecond, and reads weights at about 10 bytes a nanosecond. */
static double nanoseconds(int64_t pairs, int64_t experts, int64_t weights, bool bf16) {
  return (double)pairs * (double)weights / 30 + (double)adcgk_min(pairs, experts) * (double)weights * (double)size_of(bf16) / 20;
}

adcg_status adcgk_moe(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *indices = &call->inputs[2], *up = &call->inputs[3], *down = &call->inputs[4],
                 *y = &call->outputs[0];
  const int64_t experts = down->shape[0], k = indices->shape[1], pairs = adcg_numel(indices);
  const int32_t *expert = adcg_data(indices);
  if (pairs > INT32_MAX) return adcgk_fail(call, "indices: %lld, at most %d", (long long)pairs, INT32_MAX);
  for (int64_t i = 0; i < pairs; i++) {
    if (expert[i] < 0 || expert[i] >= experts)
      return adcgk_fail(call, "indices[%lld][%lld] is %d, there are %lld experts", (long long)(i / k), (long long)(i % k), expert[i],
                        (long long)experts);
  }
  const layout l = layout_of(call);
  char *room = call->workspace;
  int32_t *rows = (int32_t *)(void *)(room + l.rows), *pair = (int32_t *)(void *)(room + l.pairs);
  block *blocks = (block *)(void *)(room + l.blocks);
  region r = {.kernels = adcgk_active(),
              .x = adcg_data(x),
              .up = adcg_data(up),
              .down = adcg_data(down),
              .y = adcg_data(y),
              .weights = adcg_data(&call->inputs[1]),
              .act = room + l.act,
              .rows = rows,
              .pairs = pair,
              .blocks = blocks,
              .num_rows = x->shape[0],
              .hidden = x->shape[1],
              .inner = down->shape[2],
              .x_stride = adcgk_stride(x, 0),
              .y_stride = adcgk_stride(y, 0),
              .bf16 = adcgk_is_bf16(x),
              .up_bf16 = adcgk_is_bf16(up),
              .down_bf16 = adcgk_is_bf16(down),
              .gated = call->attrs[1].i != 0,
              .activation = adcgk_activation_of(call->attrs[0].s)};
  r.sums = r.bf16 ? (float *)(void *)(room + l.sums) : (float *)(void *)r.y;
  r.sums_stride = r.bf16 ? r.hidden : r.y_stride;
  r.num_blocks = sort_pairs(expert, pairs, k, experts, (int32_t *)(void *)(room + l.starts), rows, pair, blocks);

  adcgk_pool *pool = adcgk_pool_of(user_data);
  const int threads = pool ? adcgk_pool_threads(pool) : 1;
  const int64_t up_rows = r.inner * (r.gated ? 2 : 1), rows_of_block = pairs / adcgk_max(1, r.num_blocks);
  r.block_columns = columns_of(r.inner, r.num_blocks, rows_of_block * r.hidden * (r.gated ? 2 : 1), threads);
  adcgk_parallel(pool, r.num_blocks * adcgk_ceil_div(r.inner, r.block_columns), nanoseconds(pairs, experts, up_rows * r.hidden, r.up_bf16),
                 up_task, &r);
  r.block_columns = columns_of(r.hidden, 1, pairs * r.inner, threads);
  adcgk_parallel(pool, adcgk_ceil_div(r.hidden, r.block_columns), nanoseconds(pairs, experts, r.hidden * r.inner, r.down_bf16), down_task,
                 &r);
  return ADCG_OK;
}
