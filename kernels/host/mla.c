/* adcg.mla_attention and adcg.paged_mla_attention: attention over a cache of latent rows, ckv [r] | kpe [dr].
 *
 * Sequences that prefill or extend expand keys and values of their history, W ckv, into the workspace, a block of keys
 * for a group of heads at a time, and all queries pass by it; softmax state waits in the workspace for the next block.
 * Sequences that decode absorb W into the query and into the result instead, and attend over the rows as they lie.
 * Either way a row's bits depend on its position and its sequence's history alone: products have an order of their own
 * (product.h, product_along), and keys are taken in blocks at fixed positions (attend.h). */
#include <math.h>
#include <string.h>

#include "cache.h"

enum { Q_NOPE, Q_PE, CKV, KPE, WEIGHT, CACHE, CU_SEQLENS };
enum { SCALE };

/* What the workspace holds at once. Keys are expanded anew for each QUERIES positions of a sequence. */
enum {
  HEADS = 16,                  /* of a group */
  KEYS = 4 * ADCGK_KEY_BLOCK,  /* whole blocks of keys, expanded */
  QUERIES = 1024,              /* whose softmax is under way */
  DECODES = 32,                /* sequences that share the reading of W */
  EXPAND_ROWS = KEYS / 2       /* of one task */
};

/* Sizes of a call, and where things lie in its workspace, in floats. */
typedef struct sizes {
  int64_t heads, dn, dr, dv, r;
  int64_t group, keys, queries, decodes;       /* HEADS, KEYS, QUERIES, DECODES or as many as there can be */
  int64_t ldq, lda;                            /* expanded: a row of q, and of sums */
  int64_t ldl;                                 /* absorbed: a row of qa | q_pe, then of the weighted ckv */
  int64_t rows, k, v, sums, largest, total, all; /* offsets: rows [keys, r+dr], k [group, keys, dn+dr], v [group, keys, dv], sums
                                                    [group, queries, lda], largest and total [group, queries] */
} sizes;

static int64_t round_up(int64_t n) { return adcgk_ceil_div(n, 16) * 16; }

static sizes sizes_of(const adcg_op_call *call) {
  const DLTensor *q_nope = &call->inputs[Q_NOPE], *w = &call->inputs[WEIGHT], *cache = &call->inputs[CACHE];
  sizes z = {.heads = q_nope->shape[1], .dn = q_nope->shape[2], .dr = call->inputs[Q_PE].shape[2], .r = w->shape[1]};
  z.dv = w->shape[0] / z.heads - z.dn;
  z.group = adcgk_min(z.heads, HEADS);
  z.keys = adcgk_min(KEYS, adcgk_ceil_div(cache->shape[0] * cache->shape[1], ADCGK_KEY_BLOCK) * ADCGK_KEY_BLOCK);
  z.queries = adcgk_min(q_nope->shape[0], QUERIES);
  z.decodes = adcgk_min(call->inputs[CU_SEQLENS + 1].shape[0], DECODES);
  z.ldq = round_up(z.dn + z.dr);
  z.lda = round_up(z.dv);
  z.ldl = round_up(z.r + z.dr);
  z.k = round_up(z.keys * (z.r + z.dr));
  z.v = z.k + round_up(z.group * z.keys * (z.dn + z.dr));
  z.sums = z.v + round_up(z.group * z.keys * z.dv);
  z.largest = z.sums + z.group * z.queries * z.lda;
  z.total = z.largest + round_up(z.group * z.queries);
  z.all = adcgk_max(z.total + z.group * z.queries, z.decodes * z.heads * z.ldl);
  return z;
}

adcg_status adcgk_mla_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  *out_bytes = (size_t)sizes_of(call).all * sizeof(float);
  return ADCG_OK;
}

typedef struct region {
  const adcgk_kernels *kernels;
  adcgk_pool *pool;
  adcgk_cache cache;
  adcgk_written ckv, kpe;
  const char *q_nope, *q_pe, *w;
  char *out;
  bool bf16, w_bf16;
  float scale;
  int64_t nope_token, nope_head, pe_token, pe_head, out_token, out_head; /* elements from one to the next */
  int64_t tokens, tokens_per_task;
  sizes z;
  float *workspace;

  /* Of the expanded form at one moment. */
  int64_t s;                        /* the sequence, */
  int64_t first_query, end_query;   /* positions whose queries are under way, */
  int64_t first_head, end_head;     /* the heads, */
  int64_t first_key, end_key;       /* and the keys that are expanded */
  int64_t tile_tokens, tiles;       /* positions of a tile, and tiles of a head */

  /* Of the absorbed form. */
  int64_t first_seq, end_seq;       /* sequences under way */
  int64_t tile_heads, head_tiles;   /* heads of a tile, and tiles of a sequence */
} region;

static const char *at(const region *r, const char *x, int64_t element) { return x + element * (r->bf16 ? 2 : 4); }
/* Rows of W: key part of head h; value part. */
static const char *w_at(const region *r, int64_t h, int64_t row) {
  return r->w + (h * (r->z.dn + r->z.dv) + row) * r->z.r * (r->w_bf16 ? 2 : 4);
}

static void store_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t first = task * r->tokens_per_task, end = adcgk_min(first + r->tokens_per_task, r->tokens);
  adcgk_cache_write(&r->cache, r->kernels, &r->ckv, first, end);
  adcgk_cache_write(&r->cache, r->kernels, &r->kpe, first, end);
}

/* ---- Expanded: prefill and extend ------------------------------------------------------------------------ */

/* Rows of a block of keys as f32. In an fp8 cache the step's own tokens have rows of less precision than they came with:
 * those are taken as they came. */
static void rows_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t width = r->z.r + r->z.dr, first = r->first_key + task * ADCGK_KEY_BLOCK;
  const int64_t end = adcgk_min(first + ADCGK_KEY_BLOCK, r->end_key);
  int64_t p = first;
  float *to = r->workspace + (first - r->first_key) * width;
  const bool own = r->ckv.element == ADCGK_FP8;
  const int64_t cached = own ? adcgk_max(first, adcgk_min(end, r->cache.input_pos[r->s])) : end;
  adcgk_cache_rows(&r->cache, r->kernels, r->s, first, cached, r->ckv.to, r->ckv.element, width, to);
  for (p = cached; p < end; p++) {
    const int64_t t = r->cache.cu[r->s] + p - r->cache.input_pos[r->s];
    float *row = to + (p - first) * width;
    r->kernels->convert(row, false, at(r, r->ckv.from, t * r->ckv.token), r->bf16, r->z.r);
    r->kernels->convert(row + r->z.r, false, at(r, r->kpe.from, t * r->kpe.token), r->bf16, r->z.dr);
  }
}

/* Keys and values of one head, EXPAND_ROWS positions of them. */
static void expand_task(void *context, int64_t task) {
  const region *r = context;
  const sizes *z = &r->z;
  const int64_t heads = r->end_head - r->first_head, i = task % heads, j = task / heads * EXPAND_ROWS;
  const int64_t n = adcgk_min(EXPAND_ROWS, r->end_key - r->first_key - j), width = z->r + z->dr, d = z->dn + z->dr;
  const float *rows = r->workspace + j * width;
  float *k = r->workspace + z->k + (i * z->keys + j) * d, *v = r->workspace + z->v + (i * z->keys + j) * z->dv;
  adcgk_product p = {
      .x = rows, .w = w_at(r, r->first_head + i, 0), .y = k, .k = z->r, .ldx = width, .ldw = z->r, .ldy = d, .w_bf16 = r->w_bf16};
  r->kernels->product(&p, 0, n, 0, z->dn);
  p.w = w_at(r, r->first_head + i, z->dn);
  p.y = v;
  p.ldy = z->dv;
  r->kernels->product(&p, 0, n, 0, z->dv);
  for (int64_t row = 0; row < n; row++) memcpy(k + row * d + z->dn, rows + row * width + z->r, (size_t)z->dr * sizeof(float));
}

typedef struct expanded {
  const float *k, *v; /* of one head, first key first */
  int64_t first_key, d, dv;
} expanded;

static void load_expanded(adcgk_attend *a, int64_t block, int64_t end) {
  (void)end;
  const expanded *e = a->source;
  a->keys = e->k + (block - e->first_key) * e->d;
  a->values = e->v + (block - e->first_key) * e->dv;
  a->key_stride = e->d;
  a->value_stride = e->dv;
  a->cache_bf16 = false;
}

/* One tile: some positions of one head, over the keys that are expanded. */
static void expanded_tile(const region *r, int64_t i, int64_t p0, int64_t p1) {
  float scratch[ADCGK_TILE_FLOATS] __attribute__((aligned(64)));
  int64_t first[ADCGK_TILE_ROWS], end[ADCGK_TILE_ROWS];
  const sizes *z = &r->z;
  const int64_t rows = p1 - p0, h = r->first_head + i, state = i * z->queries + p0 - r->first_query;
  const int64_t token = r->cache.cu[r->s] - r->cache.input_pos[r->s]; /* of position 0, were it in the step */
  float *q = scratch, *weights = q + rows * z->ldq;
  float *sums = r->workspace + z->sums + state * z->lda, *largest = r->workspace + z->largest + state,
        *total = r->workspace + z->total + state;
  for (int64_t row = 0; row < rows; row++) {
    const int64_t t = token + p0 + row;
    memset(q + row * z->ldq + z->ldq - 16, 0, 16 * sizeof(float)); /* dims up to a multiple of 16 */
    r->kernels->convert(q + row * z->ldq, false, at(r, r->q_nope, t * r->nope_token + h * r->nope_head), r->bf16, z->dn);
    r->kernels->convert(q + row * z->ldq + z->dn, false, at(r, r->q_pe, t * r->pe_token + h * r->pe_head), r->bf16, z->dr);
    first[row] = r->first_key;
    end[row] = adcgk_min(p0 + row + 1, r->end_key);
  }
  if (r->first_key == 0) {
    memset(sums, 0, (size_t)(rows * z->lda) * sizeof(float));
    for (int64_t row = 0; row < rows; row++) {
      largest[row] = -INFINITY;
      total[row] = 0.0f;
    }
  }
  const expanded source = {.k = r->workspace + z->k + i * z->keys * (z->dn + z->dr),
                           .v = r->workspace + z->v + i * z->keys * z->dv,
                           .first_key = r->first_key,
                           .d = z->dn + z->dr,
                           .dv = z->dv};
  const adcgk_attend a = {
      .rows = (int32_t)rows,
      .d = (int32_t)source.d,
      .dv = (int32_t)z->dv,
      .ldq = (int32_t)z->ldq,
      .lda = (int32_t)z->lda,
      .q = q,
      .first = first,
      .end = end,
      .load = load_expanded,
      .source = &source,
      .scale = r->scale,
      .weights = weights,
      .sums = sums,
      .largest = largest,
      .total = total,
  };
  r->kernels->attend(&a);
  for (int64_t row = 0; row < rows; row++) {
    if (p0 + row >= r->end_key) break; /* it sees more */
    char *out = r->out + ((token + p0 + row) * r->out_token + h * r->out_head) * (r->bf16 ? 2 : 4);
    r->kernels->divide(out, r->bf16, sums + row * z->lda, total[row], z->dv);
  }
}

/* Tasks are numbered by tile, the last first as they see most keys, then by head. */
static void expanded_task(void *context, int64_t task) {
  const region *r = context;
  const int64_t heads = r->end_head - r->first_head, tile = r->tiles - 1 - task / heads;
  int64_t p0 = r->first_query + tile * r->tile_tokens;
  const int64_t p1 = adcgk_min(p0 + r->tile_tokens, r->end_query);
  if (r->first_key > 0) p0 = adcgk_max(p0, r->first_key); /* others are done */
  if (p0 < p1) expanded_tile(r, task % heads, p0, p1);
}

/* Some queries of a sequence, positions first .. end-1, over all keys that they see. */
static void expand(region *r, int64_t s, int64_t first, int64_t end) {
  const sizes *z = &r->z;
  const int64_t threads = r->pool ? adcgk_pool_threads(r->pool) : 1;
  r->s = s;
  r->first_query = first;
  r->end_query = end;
  for (r->first_head = 0; r->first_head < z->heads; r->first_head = r->end_head) {
    r->end_head = adcgk_min(r->first_head + z->group, z->heads);
    const int64_t heads = r->end_head - r->first_head;
    const int64_t room = adcgk_min(ADCGK_TILE_ROWS, ADCGK_TILE_FLOATS / (z->ldq + ADCGK_KEY_BLOCK));
    r->tile_tokens = adcgk_min(room, adcgk_max(16, adcgk_ceil_div((end - first) * heads, 4 * threads)));
    r->tiles = adcgk_ceil_div(end - first, r->tile_tokens);
    for (r->first_key = 0; r->first_key < end; r->first_key = r->end_key) {
      r->end_key = adcgk_min(r->first_key + z->keys, end);
      const int64_t n = r->end_key - r->first_key;
      const double queries = (double)(end - adcgk_max(first, r->first_key)), work = (double)(n * heads);
      adcgk_parallel(r->pool, adcgk_ceil_div(n, ADCGK_KEY_BLOCK), (double)(n * (z->r + z->dr)) / 4, rows_task, r);
      adcgk_parallel(r->pool, adcgk_ceil_div(n, EXPAND_ROWS) * heads, work * (double)(z->r * (z->dn + z->dv)) / 30, expand_task, r);
      adcgk_parallel(r->pool, r->tiles * heads, work * queries * (double)(z->dn + z->dr + z->dv + 40) / 15, expanded_task, r);
    }
  }
}

/* ---- Absorbed: decode ------------------------------------------------------------------------------------ */

static float *latent(const region *r, int64_t s, int64_t h) { return r->workspace + ((s - r->first_seq) * r->z.heads + h) * r->z.ldl; }

/* qa | q_pe of head h. Every sequence has one token: that of sequence s is cu[s]. */
static void absorb_task(void *context, int64_t h) {
  const region *r = context;
  const sizes *z = &r->z;
  const int64_t token = r->cache.cu[r->first_seq], seqs = r->end_seq - r->first_seq;
  const adcgk_product p = {.x = at(r, r->q_nope, token * r->nope_token + h * r->nope_head),
                           .w = w_at(r, h, 0),
                           .y = latent(r, r->first_seq, h),
                           .k = z->dn,
                           .ldx = r->nope_token,
                           .ldw = z->r,
                           .ldy = z->heads * z->ldl,
                           .x_bf16 = r->bf16,
                           .w_bf16 = r->w_bf16};
  r->kernels->product_along(&p, seqs, z->r);
  for (int64_t s = 0; s < seqs; s++) {
    float *q = latent(r, r->first_seq + s, h);
    memset(q + z->r, 0, (size_t)(z->ldl - z->r) * sizeof(float));
    r->kernels->convert(q + z->r, false, at(r, r->q_pe, (token + s) * r->pe_token + h * r->pe_head), r->bf16, z->dr);
  }
}

/* Some heads of one sequence over its rows: qa | q_pe become the weighted ckv. */
static void absorbed_task(void *context, int64_t task) {
  const region *r = context;
  const sizes *z = &r->z;
  float scratch[ADCGK_TILE_FLOATS] __attribute__((aligned(64)));
  float largest[ADCGK_TILE_ROWS], total[ADCGK_TILE_ROWS];
  int64_t first[ADCGK_TILE_ROWS], end[ADCGK_TILE_ROWS];
  const int64_t s = r->first_seq + task / r->head_tiles, h = task % r->head_tiles * r->tile_heads;
  const int64_t rows = adcgk_min(r->tile_heads, z->heads - h), lda = round_up(z->r);
  float *sums = scratch, *weights = sums + rows * lda;
  memset(sums, 0, (size_t)(rows * lda) * sizeof(float));
  for (int64_t row = 0; row < rows; row++) {
    first[row] = 0;
    end[row] = r->cache.input_pos[s] + 1;
    largest[row] = -INFINITY;
    total[row] = 0.0f;
  }
  adcgk_attend a = {
      .rows = (int32_t)rows,
      .d = (int32_t)(z->r + z->dr),
      .dv = (int32_t)z->r,
      .ldq = (int32_t)z->ldl,
      .lda = (int32_t)lda,
      .q = latent(r, s, h),
      .first = first,
      .end = end,
      .scale = r->scale,
      .weights = weights,
      .sums = sums,
      .largest = largest,
      .total = total,
  };
  adcgk_read read = {
      .cache = &r->cache,
      .kernels = r->kernels,
      .sequence = s,
      .element = r->ckv.element,
      .keys = r->ckv.to,
      .key_width = r->ckv.width,
      .d = r->ckv.width,
  };
  adcgk_attend_cache(&a, &read);
  for (int64_t row = 0; row < rows; row++) r->kernels->divide(latent(r, s, h + row), false, sums + row * lda, total[row], z->r);
}

static void result_task(void *context, int64_t h) {
  const region *r = context;
  const sizes *z = &r->z;
  const adcgk_product p = {.x = latent(r, r->first_seq, h),
                           .w = w_at(r, h, z->dn),
                           .y = r->out + (r->cache.cu[r->first_seq] * r->out_token + h * r->out_head) * (r->bf16 ? 2 : 4),
                           .k = z->r,
                           .ldx = z->heads * z->ldl,
                           .ldw = z->r,
                           .ldy = r->out_token,
                           .w_bf16 = r->w_bf16,
                           .y_bf16 = r->bf16};
  r->kernels->product(&p, 0, r->end_seq - r->first_seq, 0, z->dv);
}

/* Sequences first .. end-1, each with one token. */
static void absorb(region *r, int64_t first, int64_t end) {
  const sizes *z = &r->z;
  const int64_t threads = r->pool ? adcgk_pool_threads(r->pool) : 1, seqs = end - first;
  r->first_seq = first;
  r->end_seq = end;
  const int64_t room = adcgk_min(ADCGK_TILE_ROWS, ADCGK_TILE_FLOATS / (round_up(z->r) + ADCGK_KEY_BLOCK));
  r->tile_heads = adcgk_min(room, adcgk_max(1, adcgk_ceil_div(z->heads * seqs, 2 * threads)));
  r->tile_heads = adcgk_min(r->tile_heads, z->heads);
  r->head_tiles = adcgk_ceil_div(z->heads, r->tile_heads);
  double keys = 0;
  for (int64_t s = first; s < end; s++) keys += r->cache.input_pos[s] + 1;
  const double weights = (double)(z->heads * z->r) * (double)(seqs + 1) / 20;
  adcgk_parallel(r->pool, z->heads, weights * (double)z->dn, absorb_task, r);
  adcgk_parallel(r->pool, seqs * r->head_tiles, keys * (double)(z->heads * (2 * z->r + z->dr + 40)) / 15, absorbed_task, r);
  adcgk_parallel(r->pool, z->heads, weights * (double)z->dv, result_task, r);
}

/* ---- The op ---------------------------------------------------------------------------------------------- */

/* Columns `column` .. of the cache's rows, written from x [T, n]. */
static adcgk_written written(const DLTensor *x, const DLTensor *cache, int64_t column) {
  return (adcgk_written){
      .from = adcg_data(x),
      .bf16 = adcgk_is_bf16(x),
      .token = adcgk_stride(x, 0),
      .heads = 1,
      .d = x->shape[1],
      .to = adcg_data(cache),
      .element = adcgk_element_of(cache),
      .at = column,
      .width = cache->shape[2],
  };
}

static adcg_status mla(const adcg_op_call *call, void *user_data, bool paged) {
  const DLTensor *q_nope = &call->inputs[Q_NOPE], *q_pe = &call->inputs[Q_PE], *cache = &call->inputs[CACHE], *out = &call->outputs[0];
  const int64_t seqs = adcg_batch_seqs(call->batch), decodes = call->batch->decode_seqs;
  if (seqs == 0) return ADCG_OK;
  region r = {
      .kernels = adcgk_active(),
      .pool = adcgk_pool_of(user_data),
      .ckv = written(&call->inputs[CKV], cache, 0),
      .kpe = written(&call->inputs[KPE], cache, call->inputs[CKV].shape[1]),
      .q_nope = adcg_data(q_nope),
      .q_pe = adcg_data(q_pe),
      .w = adcg_data(&call->inputs[WEIGHT]),
      .out = adcg_data(out),
      .bf16 = adcgk_is_bf16(q_nope),
      .w_bf16 = adcgk_is_bf16(&call->inputs[WEIGHT]),
      .nope_token = adcgk_stride(q_nope, 0),
      .nope_head = adcgk_stride(q_nope, 1),
      .pe_token = adcgk_stride(q_pe, 0),
      .pe_head = adcgk_stride(q_pe, 1),
      .out_token = adcgk_stride(out, 0),
      .out_head = adcgk_stride(out, 1),
      .tokens = adcg_batch_tokens(call->batch),
      .z = sizes_of(call),
      .workspace = call->workspace,
  };
  const sizes *z = &r.z;
  r.scale = call->attrs[SCALE].f != 0.0 ? (float)call->attrs[SCALE].f : (float)(1.0 / sqrt((double)(z->dn + z->dr)));
  adcg_status status = adcgk_cache_of(call, CACHE, CU_SEQLENS, paged, &r.cache);
  if (status == ADCG_OK) status = adcgk_check_room(call, &r.cache, r.ckv.element, z->r + z->dr);
  if (status != ADCG_OK) return status;
  for (int64_t s = seqs - decodes; s < seqs; s++) {
    if (r.cache.cu[s + 1] - r.cache.cu[s] != 1)
      return adcgk_fail(call, "cu_seqlens[%lld] is %d, which gives sequence %lld %d tokens: it decodes, so it has one", (long long)s + 1,
                        r.cache.cu[s + 1], (long long)s, r.cache.cu[s + 1] - r.cache.cu[s]);
  }
  const int64_t floats = adcgk_max(z->ldq, round_up(z->r)) + ADCGK_KEY_BLOCK;
  if (floats > ADCGK_TILE_FLOATS)
    return adcgk_fail(call, "head dims and rank are too large: a row needs %lld floats of scratch, there are %d", (long long)floats,
                      ADCGK_TILE_FLOATS);

  const double row_bytes = (double)((z->r + z->dr) * (r.bf16 ? 2 : 4));
  r.tokens_per_task = adcgk_max(1, (1 << 16) / (int64_t)row_bytes);
  adcgk_parallel(r.pool, adcgk_ceil_div(r.tokens, r.tokens_per_task), (double)r.tokens * row_bytes / 8, store_task, &r);
  for (int64_t s = 0; s < seqs - decodes; s++) {
    const int64_t begin = r.cache.input_pos[s], end = begin + r.cache.cu[s + 1] - r.cache.cu[s];
    for (int64_t p = begin; p < end; p += z->queries) expand(&r, s, p, adcgk_min(p + z->queries, end));
  }
  for (int64_t s = seqs - decodes; s < seqs; s += z->decodes) absorb(&r, s, adcgk_min(s + z->decodes, seqs));
  return ADCG_OK;
}

adcg_status adcgk_mla_attention(const adcg_op_call *call, void *user_data) { return mla(call, user_data, false); }
adcg_status adcgk_paged_mla_attention(const adcg_op_call *call, void *user_data) { return mla(call, user_data, true); }
