/* What the kernels of attention share: which rows of a cache a sequence has, elements of caches, tiles of queries, and the order in
 * which partial results meet.
 *
 * A sequence's positions are cut into chunks of ADCG_CHUNK_KEYS keys and these into blocks of KEYS, all at fixed positions. Within a
 * chunk a query's softmax runs on from block to block; a chunk's result starts from nothing, and results are folded in the order of the
 * chunks. So the bits of a query follow from its position and its history: one block of threads may walk all chunks, or
 * many blocks may take one each. */
#ifndef ADCGK_CUDA_ATTENTION_H_
#define ADCGK_CUDA_ATTENTION_H_

#include "device.h"

enum { KEYS = 64 };

/* ---- Elements of caches ---------------------------------------------------------------------------------------- */

typedef struct fp8 {
  uint8_t bits; /* e4m3: the largest is 448, there is no infinity */
} fp8;

ADCG_DEVICE float to_float(fp8 x) {
  const uint32_t code = x.bits & 0x7fu;
  const float value = code == 0x7f ? __uint_as_float(0x7fc00000u) : __uint_as_float(code << 20) * 0x1p120f;
  return __uint_as_float(__float_as_uint(value) | (uint32_t)(x.bits & 0x80u) << 24);
}

/* To the nearest, ties to even; +-448 beyond. Below 2^-6 an e4m3 has steps of 2^-9, as a float from 2^14 on. */
ADCG_DEVICE uint32_t fp8_of(float x) {
  const uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
  uint32_t code = ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  if (magnitude < 0x3c800000u) code = __float_as_uint(__uint_as_float(magnitude) + 0x1p14f) - 0x46800000u;
  if (magnitude >= 0x43e00000u) code = magnitude > 0x7f800000u ? 0x7fu : 0x7eu;
  return code | (bits >> 24 & 0x80u);
}

/* Up to eight elements, zeros behind. */
ADCG_DEVICE chunk load_fp8(const fp8 *from, int64_t left) {
  chunk c;
  if (left >= CHUNK && ((uintptr_t)from & 7) == 0) {
    const uint2 codes = *(const uint2 *)from;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) c.v[i] = to_float(fp8{(uint8_t)((i < 4 ? codes.x : codes.y) >> i % 4 * 8)});
    return c;
  }
#pragma unroll
  for (int i = 0; i < CHUNK; i++) c.v[i] = i < left ? to_float(from[i]) : 0.0f;
  return c;
}
ADCG_DEVICE chunk load_cache(const void *cache, int32_t element, int64_t at, int64_t left) {
  if (element == ADCG_CACHE_FP8) return load_fp8((const fp8 *)cache + at, left);
  return load_either(cache, element == ADCG_CACHE_BF16, at, at + left);
}
ADCG_DEVICE float load_cache_one(const void *cache, int32_t element, int64_t at) {
  return element == ADCG_CACHE_FP8 ? to_float(((const fp8 *)cache)[at]) : number(cache, element == ADCG_CACHE_BF16, at);
}
ADCG_DEVICE void store_cache(void *cache, int32_t element, int64_t at, int64_t left, const chunk &c) {
  if (element == ADCG_CACHE_F32) return store((float *)cache + at, left, c);
  if (element == ADCG_CACHE_BF16) return store((bf16 *)cache + at, left, c);
  for (int i = 0; i < CHUNK; i++) {
    if (i < left) ((fp8 *)cache)[at + i].bits = (uint8_t)fp8_of(c.v[i]);
  }
}

/* ---- Sequences --------------------------------------------------------------------------------------------------- */

/* Positions have 31 bits, and so has what counts them. */
typedef struct sequence {
  int64_t base; /* slots: the first row; pages: where its pages begin in a.pages */
  int32_t index;
  int32_t begin, tokens; /* of the step */
  int32_t position;      /* of the first of them */
} sequence;

/* Sequence s. False if it has no tokens or cannot be: cu_seqlens that fall or lie outside the step's tokens, a slot that is none, more
 * positions than its slot or its pages hold. Nothing is written for such a one, and its rows of the output are left alone. */
ADCG_DEVICE bool take_sequence(const adcg_attention_args &a, int64_t s, sequence *q) {
  const int64_t begin = a.cu_seqlens[s], tokens = a.cu_seqlens[s + 1] - begin, position = a.input_pos[s], end = position + tokens;
  int64_t real = batch_tokens(a.batch);
  real = real < a.tokens ? real : a.tokens;
  if (begin < 0 || tokens <= 0 || begin + tokens > real || position < 0 || end > INT32_MAX - ADCG_CHUNK_KEYS) return false;
  q->index = (int32_t)s;
  q->begin = (int32_t)begin;
  q->tokens = (int32_t)tokens;
  q->position = (int32_t)position;
  if (a.slots) {
    const int64_t slot = a.slots[s];
    q->base = slot * a.length;
    return slot >= 0 && slot < a.count && end <= a.length;
  }
  q->base = a.cu_pages[s];
  const int64_t pages = a.cu_pages[s + 1] - q->base;
  return q->base >= 0 && q->base + pages <= a.entries && end <= pages * a.length;
}

/* The cache's row of a position; -1: its page is none of the cache's. */
ADCG_DEVICE int64_t cache_row(const adcg_attention_args &a, const sequence &q, int32_t position) {
  if (a.slots) return q.base + position;
  int64_t rest;
  const int64_t page = a.pages[q.base + divide(position, a.length, &rest)];
  return page < 0 || page >= a.count ? -1 : page * a.length + rest;
}

/* The last of the step's sequences whose number, by `of`, is at most x; numbers rise. There is one sequence at least. */
template <typename Number>
ADCG_DEVICE int64_t find_sequence(const adcg_attention_args &a, int64_t x, Number of) {
  int64_t low = 0, high = batch_seqs(a.batch) - 1;
  if (high >= a.seqs) high = a.seqs - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (of(middle) <= x)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

/* ---- Tiles ---------------------------------------------------------------------------------------------------------- */

/* Query rows that one block of threads takes: tokens times heads of one key/value head's group, token by token. */
typedef struct query_tile {
  sequence seq;
  int32_t token, tokens; /* the first, counted from the sequence's first of the step; how many */
  int32_t head, heads;
  int32_t kv_head;
  int32_t position;            /* of the first token */
  int32_t first, end;          /* keys that some row sees */
  int32_t chunk, chunks, step; /* the first chunk of this block of threads, the end of all, and from one to the next */
} query_tile;

ADCG_DEVICE int32_t first_key(const adcg_attention_args &a, int32_t position) {
  return a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
}

/* The tile of this block of threads; false: none. Sequences of up to a.split_tokens are the split kernels', the others not. In the
 * others' grid a sequence's tiles begin at cu_seqlens / tile_tokens + its number, where there is always room; the last ones go first,
 * as they see most keys. */
ADCG_DEVICE bool take_tile(const adcg_attention_args &a, query_tile *t) {
  int64_t part, tile_part, chunk = 0, token = 0, s;
  const int64_t parts = a.kv_heads * a.head_tiles, seqs = batch_seqs(a.batch);
  const int64_t rest = divide((int64_t)blockIdx.x, parts, &part);
  if (a.split) {
    s = divide(rest, a.splits, &chunk);
    if (s >= seqs || !take_sequence(a, s, &t->seq) || t->seq.tokens > a.split_tokens) return false;
  } else {
    const int64_t x = a.tiles - 1 - rest;
    if (seqs <= 0) return false;
    s = find_sequence(a, x, [&](int64_t i) { return a.cu_seqlens[i] / a.tile_tokens + i; });
    if (!take_sequence(a, s, &t->seq) || t->seq.tokens <= a.split_tokens) return false;
    token = (x - (t->seq.begin / a.tile_tokens + s)) * a.tile_tokens;
    if (token < 0 || token >= t->seq.tokens) return false;
  }
  const int64_t group = a.heads / a.kv_heads;
  t->kv_head = (int32_t)divide(part, a.head_tiles, &tile_part);
  const int64_t head = tile_part * a.tile_heads;
  t->head = (int32_t)(t->kv_head * group + head);
  t->heads = (int32_t)(group - head < a.tile_heads ? group - head : a.tile_heads);
  t->token = (int32_t)token;
  t->tokens = (int32_t)(t->seq.tokens - token < a.tile_tokens ? t->seq.tokens - token : a.tile_tokens);
  t->position = t->seq.position + t->token;
  t->first = first_key(a, t->position);
  t->end = t->position + t->tokens;
  t->step = a.split ? (int32_t)a.splits : 1;
  t->chunk = (int32_t)chunk + t->first / ADCG_CHUNK_KEYS;
  t->chunks = (t->end + ADCG_CHUNK_KEYS - 1) / ADCG_CHUNK_KEYS;
  return t->chunk < t->chunks;
}

/* ---- Results of chunks ----------------------------------------------------------------------------------------------- */

/* Where the result of a chunk lies for a token and head of a split sequence: this times dv floats in a.sums, this in a.states. Pages:
 * a sequence has room from cu_pages * length / ADCG_CHUNK_KEYS + its number on. */
ADCG_DEVICE int64_t result_of(const adcg_attention_args &a, const sequence &q, int64_t chunk, int64_t token, int64_t head) {
  const int64_t before = a.slots ? q.index * a.chunks : q.base * a.length / ADCG_CHUNK_KEYS + q.index;
  return ((before + chunk) * a.split_tokens + token) * a.heads + head;
}

/* A softmax's state: the largest score and the sum of exp(score - largest). */
typedef struct softmax_state {
  float largest, total;
} softmax_state;

ADCG_DEVICE softmax_state no_keys() { return {-INFINITY, 0.0f}; }

/* exp, of scores in units of its own: accurate for the plain kernels, in powers of two for the tensor cores'. */
ADCG_DEVICE float power(int base2, float x) { return base2 ? exp2f(x) : expf(x); }

/* What a sum of weighted values and a chunk's are multiplied by when they are added. */
typedef struct fold {
  float kept, added;
  bool none; /* no key of the chunk was seen: the sum stays as it is, to the bit */
} fold;
ADCG_DEVICE fold fold_state(int base2, softmax_state *all, const softmax_state &chunk) {
  if (chunk.total == 0.0f) return {1.0f, 0.0f, true};
  const float largest = fmaxf(all->largest, chunk.largest);
  const fold f = {all->total == 0.0f ? 0.0f : power(base2, all->largest - largest), power(base2, chunk.largest - largest), false};
  *all = {largest, fmaf(all->total, f.kept, chunk.total * f.added)};
  return f;
}
ADCG_DEVICE float fold_sum(const fold &f, float all, float chunk) { return f.none ? all : fmaf(all, f.kept, chunk * f.added); }

/* The sink of a head counts as a first key without a value. */
ADCG_DEVICE softmax_state sink_state(const adcg_attention_args &a, int64_t head) {
  if (!a.sinks) return no_keys();
  return {number(a.sinks, a.sinks_bf16, head) * (a.base2 ? 1.4426950408889634f : 1.0f), 1.0f};
}

template <typename T>
ADCG_DEVICE T *output_row(const adcg_attention_args &a, const sequence &q, int64_t token, int64_t head) {
  return (T *)a.out + (q.begin + token) * a.out_token + head * a.out_head;
}

#endif /* ADCGK_CUDA_ATTENTION_H_ */
