/* Launching adcg.attention and adcg.paged_attention. Which kernels run follows from shapes and types alone, so that a launch serves
 * every batch that fits its bucket: first the cache is written, then sequences of few tokens have their keys split over blocks of
 * threads and put together, and all others go in tiles of queries. */
#include <math.h>

#include "launch.h"

/* Inputs and attributes, in the schema's order. */
enum { Q, K, V, K_CACHE, V_CACHE, CU_SEQLENS, INPUT_POS, SLOT_IDX, SINKS };
enum { CU_PAGES = SLOT_IDX, PAGES, LAST_PAGE_LEN, PAGED_SINKS }; /* stand for slot_idx */
enum { SCALE, WINDOW, SOFTCAP };

enum { SPLIT_BLOCKS = 8192 }; /* that a launch has at most for split keys: more are looped over */

/* Rows of a tile that fit the plain kernel's memory. */
static int64_t plain_rows(const adcg_attention_args *a) {
  return adcgk_min(ADCG_PLAIN_ROWS, (ADCG_PLAIN_FLOATS - 1536) / (a->d + 2 * a->dv));
}

/* Whether tensor cores take it. */
static bool has_cores(const adcg_attention_args *a) {
  return a->bf16 && a->cache != ADCG_CACHE_F32 && a->d == a->dv && (a->d == 64 || a->d == 128);
}

/* Whether tiles are wide: where a block may have so much shared memory, and all multiprocessors have a tile. Bits are the same. */
static bool is_wide(const adcgk_cuda *device, const adcg_attention_args *a) {
  const bool has_room = device->compute == 90 || device->compute / 10 == 10;
  return has_room && a->d == 128 && a->tokens * a->heads >= (int64_t)device->multiprocessors * ADCG_WIDE_ROWS;
}

/* Cuts the heads of a group and the tokens of a sequence into tiles of so many rows. */
static void cut(adcg_attention_args *a, int64_t rows) {
  a->tile_heads = adcgk_min(a->heads / a->kv_heads, rows);
  a->head_tiles = adcgk_ceil_div(a->heads / a->kv_heads, a->tile_heads);
  a->tile_tokens = rows / a->tile_heads;
  a->tiles = a->tokens / a->tile_tokens + a->seqs;
}

/* The shapes: all of the arguments but addresses, strides and attributes. Returns how many results of chunks there are if one token of
 * each sequence has its keys split: what the positions need that slots or pages hold. More sequences need more of them and nothing
 * else does, so that what a plan has for its limits serves every smaller step. */
static int64_t shapes_of(const adcg_op_call *call, bool paged, adcg_attention_args *a) {
  const DLTensor *q = &call->inputs[Q], *v = &call->inputs[V], *cache = &call->inputs[K_CACHE];
  *a = (adcg_attention_args){.tokens = q->shape[0],
                             .seqs = call->inputs[INPUT_POS].shape[0],
                             .heads = q->shape[1],
                             .kv_heads = v->shape[1],
                             .d = q->shape[2],
                             .dv = v->shape[2],
                             .length = cache->shape[1],
                             .count = cache->shape[0],
                             .entries = paged ? call->inputs[PAGES].shape[0] : 0,
                             .bf16 = adcgk_is_bf16(q),
                             .cache = adcgk_is_fp8(cache)    ? ADCG_CACHE_FP8
                                      : adcgk_is_bf16(cache) ? ADCG_CACHE_BF16
                                                             : ADCG_CACHE_F32};
  a->base2 = has_cores(a);
  const int64_t rows = a->base2 ? ADCG_SPLIT_ROWS : plain_rows(a);
  if (rows < 1 || a->seqs < 1) return 0;
  cut(a, rows);
  /* Where sequences are as short as the batch is uniform; beside long ones only those of one token. */
  const int64_t each = a->tokens / a->seqs;
  a->split_tokens = each <= a->tile_tokens ? adcgk_max(1, each) : 1;
  a->chunks = adcgk_ceil_div(a->length, ADCG_CHUNK_KEYS);
  const int64_t chunks = paged ? a->entries * a->length / ADCG_CHUNK_KEYS + a->seqs : a->seqs * a->chunks;
  const int64_t most = paged ? adcgk_ceil_div(a->entries * a->length, ADCG_CHUNK_KEYS) : a->chunks; /* of one sequence */
  a->splits = adcgk_max(1, adcgk_min(most, SPLIT_BLOCKS / (a->seqs * a->kv_heads * a->head_tiles)));
  return chunks * a->heads;
}

static size_t sums_bytes(const adcg_attention_args *a, int64_t results) { return (size_t)(results * a->dv + 15) / 16 * 64; }
static size_t result_bytes(const adcg_attention_args *a, int64_t results) { return sums_bytes(a, results) + (size_t)results * 8; }

static adcg_status workspace(const adcg_op_call *call, size_t *out_bytes, bool paged) {
  adcg_attention_args a;
  const int64_t results = shapes_of(call, paged, &a);
  *out_bytes = result_bytes(&a, results);
  return ADCG_OK;
}

static adcg_status attention(const adcg_op_call *call, void *user_data, bool paged) {
  const DLTensor *in = call->inputs, *out = &call->outputs[0];
  const int32_t sinks = paged ? PAGED_SINKS : SINKS;
  adcg_attention_args a;
  const int64_t each = shapes_of(call, paged, &a);
  if (a.tokens == 0) return ADCG_OK;
  /* Sequences of more tokens than there is room for go in tiles, with the same bits. */
  while (a.split_tokens > 1 && result_bytes(&a, each * a.split_tokens) > call->workspace_bytes) a.split_tokens--;
  const int64_t results = each * a.split_tokens;
  if (plain_rows(&a) < 1)
    return adcgk_cuda_fail(call, "head dims %lld and %lld are too large: %lld floats of shared memory, there are %d", (long long)a.d,
                           (long long)a.dv, (long long)(a.d + 2 * a.dv), ADCG_PLAIN_FLOATS - 1536);
  a.q = adcg_data(&in[Q]);
  a.k = adcg_data(&in[K]);
  a.v = adcg_data(&in[V]);
  a.k_cache = adcg_data(&in[K_CACHE]);
  a.v_cache = adcg_data(&in[V_CACHE]);
  a.out = adcg_data(out);
  a.cu_seqlens = adcg_data(&in[CU_SEQLENS]);
  a.input_pos = adcg_data(&in[INPUT_POS]);
  if (paged) {
    a.cu_pages = adcg_data(&in[CU_PAGES]);
    a.pages = adcg_data(&in[PAGES]);
  } else {
    a.slots = adcg_data(&in[SLOT_IDX]);
  }
  if (call->num_inputs > sinks) {
    a.sinks = adcg_data(&in[sinks]);
    a.sinks_bf16 = adcgk_is_bf16(&in[sinks]);
  }
  a.batch = call->device_batch;
  a.sums = call->workspace;
  a.states = call->workspace ? (float *)(void *)((char *)call->workspace + sums_bytes(&a, results)) : NULL;
  a.q_token = adcgk_stride(&in[Q], 0);
  a.q_head = adcgk_stride(&in[Q], 1);
  a.k_token = adcgk_stride(&in[K], 0);
  a.k_head = adcgk_stride(&in[K], 1);
  a.v_token = adcgk_stride(&in[V], 0);
  a.v_head = adcgk_stride(&in[V], 1);
  a.out_token = adcgk_stride(out, 0);
  a.out_head = adcgk_stride(out, 1);
  a.window = (int32_t)(call->attrs[WINDOW].i > INT32_MAX ? 0 : call->attrs[WINDOW].i); /* one that no position leaves is none */
  a.softcap = (float)call->attrs[SOFTCAP].f;
  a.scale = call->attrs[SCALE].f != 0.0 ? (float)call->attrs[SCALE].f : (float)(1.0 / sqrt((double)a.d));

  const int64_t chunks = a.tokens * (a.kv_heads * (adcgk_ceil_div(a.d, ADCGK_CHUNK) + adcgk_ceil_div(a.dv, ADCGK_CHUNK)) +
                                     a.heads * adcgk_ceil_div(a.dv, ADCGK_CHUNK));
  adcg_status status = adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_attention_write, adcgk_cuda_blocks(chunks), 256, 0, &a);
  if (a.seqs == 0) return status;
  const int32_t is_fp8 = a.cache == ADCG_CACHE_FP8, of_cores = (a.d == 128 ? 2 : 0) + is_fp8;
  const uint32_t of_plain = (uint32_t)(plain_rows(&a) * (a.d + 2 * a.dv) * 4);
  a.split = 1;
  if (status == ADCG_OK) {
    const int32_t kernel = a.base2 ? ADCGK_K_adcg_attention_split_64_bf16 + of_cores : ADCGK_K_adcg_attention_plain;
    const int64_t blocks = a.seqs * a.splits * a.kv_heads * a.head_tiles;
    status = adcgk_cuda_launch(call, user_data, kernel, blocks, a.base2 ? ADCG_SPLIT_THREADS : ADCG_PLAIN_THREADS,
                               a.base2 ? ADCG_SPLIT_BYTES : of_plain, &a);
  }
  if (status == ADCG_OK) {
    const int64_t warps = a.seqs * a.split_tokens * a.heads * adcgk_ceil_div(a.dv, 32);
    status = adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_attention_combine_f32 + a.bf16, adcgk_ceil_div(warps, 4), 128, 0, &a);
  }
  a.split = 0;
  const bool wide = a.base2 && is_wide(adcgk_cuda_of(user_data), &a);
  if (a.base2) cut(&a, wide ? ADCG_WIDE_ROWS : ADCG_TILE_ROWS);
  if (status == ADCG_OK) {
    const int64_t blocks = a.tiles * a.kv_heads * a.head_tiles;
    if (wide)
      status = adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_attention_wide_128_bf16 + is_fp8, blocks, 2 * ADCG_WIDE_ROWS,
                                 ADCG_WIDE_BYTES, &a);
    else if (a.base2)
      status = adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_attention_tile_64_bf16 + of_cores, blocks, 2 * ADCG_TILE_ROWS, 0, &a);
    else
      status = adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_attention_plain, blocks, ADCG_PLAIN_THREADS, of_plain, &a);
  }
  return status;
}

adcg_status adcgk_cuda_attention(const adcg_op_call *call, void *user_data) { return attention(call, user_data, false); }
adcg_status adcgk_cuda_paged_attention(const adcg_op_call *call, void *user_data) { return attention(call, user_data, true); }

adcg_status adcgk_cuda_attention_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  return workspace(call, out_bytes, false);
}
adcg_status adcgk_cuda_paged_attention_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  return workspace(call, out_bytes, true);
}
