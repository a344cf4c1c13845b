/* adcg.attention and adcg.paged_attention. Keys and values of the step are written to the cache first, and every query
 * then reads the cache alone: a prefill in one step or in chunks, or a decode, computes the same bits. The arithmetic is
 * in attend.h, where a position lies in cache.c; here is the cutting into tiles. */
#include <math.h>
#include <string.h>

#include "cache.h"

/* Inputs and attributes, in the schema's order. */
enum { Q, K, V, K_CACHE, V_CACHE, CU_SEQLENS, INPUT_POS, SLOT_IDX, SINKS };
enum { PAGED_SINKS = SLOT_IDX + 3 }; /* cu_num_pages, cache_loc and last_page_len stand for slot_idx */
enum { SCALE, WINDOW, SOFTCAP };

typedef struct region {
  const adcgk_kernels *kernels;
  adcgk_cache cache;
  adcgk_written k, v;
  const char *q;
  char *out;
  const char *sinks; /* NULL: none */
  bool bf16, sinks_bf16;
  int64_t seqs, tokens;
  int64_t heads, kv_heads, d, dv, window;
  int64_t q_token, q_head, out_token, out_head; /* elements from one to the next */
  float scale, softcap;
  int64_t tile_rows;             /* rows of a tile at most */
  int64_t tile_heads;            /* heads of a group in one tile, */
  int64_t head_tiles;            /* and into how many such parts a group is cut */
  int64_t tile_tokens;           /* positions of one tile at most */
  int64_t units, units_per_task; /* a unit is one tile of one key/value head, see attend_task */
  int64_t tasks;                 /* of attend_task */
  int64_t tokens_per_task;
} region;

/* Writes tokens of k and v to the cache. */
static void store_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t first = task * r->tokens_per_task, end = adcgk_min(first + r->tokens_per_task, r->tokens);
  adcgk_cache_write(&r->cache, r->kernels, &r->k, first, end);
  adcgk_cache_write(&r->cache, r->kernels, &r->v, first, end);
}

/* One tile: positions t0 .. t1-1 (tokens of the step) of sequence s, heads h0 .. h1-1 of key/value head g's group. */
static void attend_tile(const region *r, int64_t s, int64_t g, int64_t h0, int64_t h1, int64_t t0, int64_t t1) {
  float scratch[ADCGK_TILE_FLOATS] __attribute__((aligned(64)));
  float largest[ADCGK_TILE_ROWS], total[ADCGK_TILE_ROWS];
  int64_t first[ADCGK_TILE_ROWS], end[ADCGK_TILE_ROWS];
  const int64_t ldq = adcgk_ceil_div(r->d, 16) * 16, lda = adcgk_ceil_div(r->dv, 16) * 16;
  const int64_t size = r->bf16 ? 2 : 4, cache_size = adcgk_element_size(r->k.element), rows = (t1 - t0) * (h1 - h0);
  float *q = scratch, *sums = q + rows * ldq, *weights = sums + rows * lda;
  memset(sums, 0, (size_t)(rows * lda) * sizeof(float));
  int64_t row = 0;
  for (int64_t t = t0; t < t1; t++) {
    const int64_t position = r->cache.input_pos[s] + t - r->cache.cu[s];
    for (int64_t h = h0; h < h1; h++, row++) {
      memset(q + row * ldq + ldq - 16, 0, 16 * sizeof(float)); /* dims up to a multiple of 16 */
      r->kernels->convert(q + row * ldq, false, r->q + (t * r->q_token + h * r->q_head) * size, r->bf16, r->d);
      first[row] = r->window > 0 ? adcgk_max(0, position - r->window + 1) : 0;
      end[row] = position + 1;
      largest[row] = -INFINITY;
      total[row] = 0.0f;
      if (r->sinks) {
        r->kernels->convert(&largest[row], false, r->sinks + h * (r->sinks_bf16 ? 2 : 4), r->sinks_bf16, 1);
        total[row] = 1.0f;
      }
    }
  }
  adcgk_attend a = {
      .rows = (int32_t)rows,
      .d = (int32_t)r->d,
      .dv = (int32_t)r->dv,
      .ldq = (int32_t)ldq,
      .lda = (int32_t)lda,
      .q = q,
      .first = first,
      .end = end,
      .scale = r->scale,
      .softcap = r->softcap,
      .weights = weights,
      .sums = sums,
      .largest = largest,
      .total = total,
  };
  adcgk_read read = {
      .cache = &r->cache,
      .kernels = r->kernels,
      .sequence = s,
      .element = r->k.element,
      .keys = r->k.to + g * r->d * cache_size,
      .values = r->v.to + g * r->dv * cache_size,
      .key_width = r->k.width,
      .value_width = r->v.width,
      .d = r->d,
      .dv = r->dv,
  };
  adcgk_attend_cache(&a, &read);
  row = 0;
  for (int64_t t = t0; t < t1; t++) {
    for (int64_t h = h0; h < h1; h++, row++)
      r->kernels->divide(r->out + (t * r->out_token + h * r->out_head) * size, r->bf16, sums + row * lda, total[row], r->dv);
  }
}

/* Units are numbered by sequence, then tile of positions, then key/value head, then part of the group's heads. */
static void attend_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t per_tile = r->kv_heads * r->head_tiles, group = r->heads / r->kv_heads;
  int64_t unit = (r->tasks - 1 - task) * r->units_per_task; /* the last tiles of a prefill see most keys: they go first */
  const int64_t last = adcgk_min(unit + r->units_per_task, r->units);
  int64_t s = 0, before = 0; /* units of the sequences before s */
  for (; unit < last; unit++) {
    for (;; s++) {
      const int64_t of_s = adcgk_ceil_div(r->cache.cu[s + 1] - r->cache.cu[s], r->tile_tokens) * per_tile;
      if (unit < before + of_s) break;
      before += of_s;
    }
    const int64_t tile = (unit - before) / per_tile, part = (unit - before) % per_tile;
    const int64_t g = part / r->head_tiles, h = g * group + part % r->head_tiles * r->tile_heads;
    const int64_t t = r->cache.cu[s] + tile * r->tile_tokens;
    attend_tile(r, s, g, h, adcgk_min(h + r->tile_heads, (g + 1) * group), t, adcgk_min(t + r->tile_tokens, r->cache.cu[s + 1]));
  }
}

static adcgk_written written(const DLTensor *x, const DLTensor *cache) {
  return (adcgk_written){
      .from = adcg_data(x),
      .bf16 = adcgk_is_bf16(x),
      .token = adcgk_stride(x, 0),
      .head = adcgk_stride(x, 1),
      .heads = x->shape[1],
      .d = x->shape[2],
      .to = adcg_data(cache),
      .element = adcgk_element_of(cache),
      .width = x->shape[1] * x->shape[2],
  };
}

static adcg_status attention(const adcg_op_call *call, void *user_data, bool paged) {
  const DLTensor *q = &call->inputs[Q], *out = &call->outputs[0];
  const int32_t sinks = paged ? PAGED_SINKS : SINKS;
  const int64_t seqs = adcg_batch_seqs(call->batch);
  if (seqs == 0) return ADCG_OK;
  adcgk_pool *pool = adcgk_pool_of(user_data);
  region r = {
      .kernels = adcgk_active(),
      .k = written(&call->inputs[K], &call->inputs[K_CACHE]),
      .v = written(&call->inputs[V], &call->inputs[V_CACHE]),
      .q = adcg_data(q),
      .out = adcg_data(out),
      .bf16 = adcgk_is_bf16(q),
      .seqs = seqs,
      .tokens = adcg_batch_tokens(call->batch),
      .heads = q->shape[1],
      .kv_heads = call->inputs[V].shape[1],
      .d = q->shape[2],
      .dv = call->inputs[V].shape[2],
      .q_token = adcgk_stride(q, 0),
      .q_head = adcgk_stride(q, 1),
      .out_token = adcgk_stride(out, 0),
      .out_head = adcgk_stride(out, 1),
      .window = call->attrs[WINDOW].i,
      .softcap = (float)call->attrs[SOFTCAP].f,
  };
  r.scale = call->attrs[SCALE].f != 0.0 ? (float)call->attrs[SCALE].f : (float)(1.0 / sqrt((double)r.d));
  if (call->num_inputs > sinks) {
    r.sinks = adcg_data(&call->inputs[sinks]);
    r.sinks_bf16 = adcgk_is_bf16(&call->inputs[sinks]);
  }
  adcg_status status = adcgk_cache_of(call, K_CACHE, CU_SEQLENS, paged, &r.cache);
  if (status == ADCG_OK) status = adcgk_check_room(call, &r.cache, r.k.element, r.d + r.dv);
  if (status != ADCG_OK) return status;

  /* Rows of a tile: as many as fit its scratch; positions, all heads of the group together; with few tokens, heads of
   * a group are spread over the threads. A row's result does not depend on the tile that it is in. */
  const int64_t floats = (adcgk_ceil_div(r.d, 16) + adcgk_ceil_div(r.dv, 16)) * 16 + ADCGK_KEY_BLOCK;
  if (floats > ADCGK_TILE_FLOATS)
    return adcgk_fail(call, "head dims %lld and %lld are too large: a row needs %lld floats of scratch, there are %d", (long long)r.d,
                      (long long)r.dv, (long long)floats, ADCGK_TILE_FLOATS);
  r.tile_rows = adcgk_min(ADCGK_TILE_ROWS, ADCGK_TILE_FLOATS / floats);
  const int64_t group = r.heads / r.kv_heads, threads = pool ? adcgk_pool_threads(pool) : 1;
  r.tile_heads = adcgk_min(group, r.tile_rows);
  if (r.tokens * r.kv_heads < threads) r.tile_heads = adcgk_min(r.tile_heads, adcgk_ceil_div(group * r.tokens * r.kv_heads, threads));
  r.head_tiles = adcgk_ceil_div(group, r.tile_heads);
  r.tile_tokens = adcgk_max(1, r.tile_rows / r.tile_heads);
  const int64_t shares = r.tokens * r.kv_heads * r.head_tiles / (4 * threads); /* several tiles a thread, if they stay large */
  r.tile_tokens = adcgk_min(r.tile_tokens, adcgk_max(adcgk_ceil_div(ADCGK_TILE_ROWS / 3, r.tile_heads), shares));

  const double row_bytes = (double)(r.kv_heads * (r.d + r.dv) * (r.bf16 ? 2 : 4));
  r.tokens_per_task = adcgk_max(1, (1 << 16) / (int64_t)row_bytes);
  adcgk_parallel(pool, adcgk_ceil_div(r.tokens, r.tokens_per_task), (double)r.tokens * row_bytes / 8, store_task, &r);

  double keys = 0; /* that all queries of the step see together */
  for (int64_t s = 0; s < seqs; s++) {
    const int64_t length = r.cache.cu[s + 1] - r.cache.cu[s];
    double seen = (double)r.cache.input_pos[s] + (double)(length + 1) / 2;
    if (r.window > 0 && seen > (double)r.window) seen = (double)r.window;
    keys += seen * (double)length;
    r.units += adcgk_ceil_div(length, r.tile_tokens) * r.kv_heads * r.head_tiles;
  }
  r.units_per_task = adcgk_max(1, r.units / (threads * 16));
  r.tasks = adcgk_ceil_div(r.units, r.units_per_task);
  adcgk_parallel(pool, r.tasks, keys * (double)(r.heads * (r.d + r.dv + 40)) / 15, attend_task, &r);
  return ADCG_OK;
}

adcg_status adcgk_attention(const adcg_op_call *call, void *user_data) { return attention(call, user_data, false); }
adcg_status adcgk_paged_attention(const adcg_op_call *call, void *user_data) { return attention(call, user_data, true); }
