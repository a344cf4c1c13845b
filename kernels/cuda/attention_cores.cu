/* Attention on tensor cores, for bf16 queries over bf16 or fp8 caches and heads of 64 or 128 dims. A warp has 16 query rows; all warps
 * of a block of threads share blocks of keys and values in shared memory. Scores and sums are f32, weights bf16, and a row's sum of
 * weights is that of the rounded ones. A row's bits do not depend on the rows beside it. */
#include "attention.h"
#include "cores.h"

/* Blocks of keys and values as 16-byte units: unit u of a row of D / 8 lies at u ^ row % 8, so that eight rows' same units are in banks of
 * their own. */
template <int D>
struct stage {
  uint4 keys[KEYS * D / 8], values[KEYS * D / 8];
  int64_t rows[2][KEYS]; /* of the cache, of this block and of the next one; -1: zeros */
};
template <int D>
ADCG_DEVICE int unit_at(int row, int unit) {
  return row * (D / 8) + (unit ^ row % 8);
}

/* What a thread has of its warp's rows lane / 4 and lane / 4 + 8. */
template <int D>
struct lane_rows {
  uint32_t q[D / 16][4];
  int32_t position[2]; /* -1: there is no such row */
  int32_t low, high;   /* positions of the warp's first and last row; high -1: it has none */
  float sums[D / 8][4];
  float largest[2], total[2]; /* of the chunk; totals are this lane's share */
};

ADCG_DEVICE uint32_t pair_of(const bf16 *from) {
  if (((uintptr_t)from & 3) == 0) return *(const uint32_t *)from;
  return from[0].bits | (uint32_t)from[1].bits << 16;
}

template <int D>
ADCG_DEVICE void load_queries(const adcg_attention_args &a, const query_tile &t, lane_rows<D> *r) {
  const int lane = (int)threadIdx.x % 32, begin = (int)threadIdx.x / 32 * 16, rows = t.tokens * t.heads, heads = t.heads;
  const int last = begin + 15 < rows ? begin + 15 : rows - 1;
  r->low = t.position + begin / heads;
  r->high = begin < rows ? t.position + last / heads : -1;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = begin + lane / 4 + 8 * half;
    r->position[half] = row < rows ? t.position + row / heads : -1;
    const bf16 *q = (const bf16 *)a.q + (t.seq.begin + t.token + row / heads) * a.q_token + (t.head + row % heads) * a.q_head + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      r->q[i][half] = row < rows ? pair_of(q + 16 * i) : 0;
      r->q[i][half + 2] = row < rows ? pair_of(q + 16 * i + 8) : 0;
    }
  }
}

template <int D>
ADCG_DEVICE void find_rows(const adcg_attention_args &a, const query_tile &t, stage<D> *s, int which, int32_t block) {
  for (int key = (int)threadIdx.x; key < KEYS; key += (int)blockDim.x)
    s->rows[which][key] = block + key < t.end ? cache_row(a, t.seq, block + key) : -1;
}

ADCG_DEVICE chunk load_element_chunk(const bf16 *from) { return load(from, CHUNK); }
ADCG_DEVICE chunk load_element_chunk(const fp8 *from) { return load_fp8(from, CHUNK); }

/* Brings keys, or values, whose rows have been found: later where they are copied as they are. */
template <int D, typename C>
ADCG_DEVICE void bring_block(const adcg_attention_args &a, const query_tile &t, const void *cache, uint4 *to, const int64_t *rows) {
  const C *from = (const C *)cache + (int64_t)t.kv_head * D;
  const int64_t width = a.kv_heads * D;
  if (sizeof(C) == sizeof(bf16) && aligned(cache)) {
#pragma unroll 4
    for (int i = (int)threadIdx.x; i < KEYS * D / 8; i += (int)blockDim.x) {
      const int64_t row = rows[i / (D / 8)];
      copy_later(to + unit_at<D>(i / (D / 8), i % (D / 8)), from + (row < 0 ? 0 : row * width) + i % (D / 8) * 8, row < 0);
    }
    return;
  }
#pragma unroll 2
  for (int i = (int)threadIdx.x; i < KEYS * D / 8; i += (int)blockDim.x) {
    const int64_t row = rows[i / (D / 8)];
    chunk c = {};
    if (row >= 0) c = load_element_chunk(from + row * width + i % (D / 8) * 8);
    store_whole((bf16 *)(to + unit_at<D>(i / (D / 8), i % (D / 8))), c);
  }
}

/* Scores of the block's keys, key n * 8 + lane % 4 * 2 + i % 2 of row i / 2 in scores[n][i]. */
template <int D>
ADCG_DEVICE void score_block(const lane_rows<D> &r, const uint4 *keys, float (*scores)[4]) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++) {
      uint32_t b[4];
      load_matrices(b, keys + unit_at<D>(n * 16 + lane / 16 * 8 + lane % 8, 2 * i + lane / 8 % 2));
      multiply(scores[2 * n], r.q[i], b[0], b[1]);
      multiply(scores[2 * n + 1], r.q[i], b[2], b[3]);
    }
  }
}

/* Scores become weights: bf16, as the left side of the product with the values. */
template <int D>
ADCG_DEVICE void weigh_block(const adcg_attention_args &a, lane_rows<D> *r, int32_t block, float (*scores)[4], uint32_t (*weights)[4]) {
  const int lane = (int)threadIdx.x % 32;
  float scale = a.scale * 1.4426950408889634f;
  if (a.softcap != 0.0f) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) scores[n][i] = a.softcap * tanhf(scores[n][i] * a.scale / a.softcap);
    }
    scale = 1.4426950408889634f;
  }
  if (block + KEYS - 1 > r->low || block < first_key(a, r->high)) { /* some row does not see all */
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int32_t seen = r->position[half] - block, hidden = first_key(a, r->position[half]) - block;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int key = n * 8 + lane % 4 * 2 + i;
          if (key > seen || key < hidden) scores[n][2 * half + i] = -INFINITY;
        }
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float largest = -INFINITY;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) largest = fmaxf(largest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    largest = fmaxf(r->largest[half], largest * scale);
    const float shift = largest == -INFINITY ? 0.0f : largest, rescale = fast_exp2(r->largest[half] - shift);
    r->largest[half] = largest;
    float total = r->total[half] * rescale;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
      const uint32_t pair = pack_bf16(fast_exp2(fmaf(scores[n][2 * half], scale, -shift)), fast_exp2(fmaf(scores[n][2 * half + 1], scale, -shift)));
      weights[n / 2][n % 2 * 2 + half] = pair;
      total += __uint_as_float(pair << 16);
      total += __uint_as_float(pair & 0xffff0000u);
    }
    r->total[half] = total;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      r->sums[n][2 * half] *= rescale;
      r->sums[n][2 * half + 1] *= rescale;
    }
  }
}

template <int D>
ADCG_DEVICE void sum_block(lane_rows<D> *r, const uint4 *values, const uint32_t (*weights)[4]) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++) {
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      load_matrices_turned(b, values + unit_at<D>(i * 16 + lane / 8 % 2 * 8 + lane % 8, 2 * n + lane / 16));
      multiply(r->sums[2 * n], weights[i], b[0], b[1]);
      multiply(r->sums[2 * n + 1], weights[i], b[2], b[3]);
    }
  }
}

/* ---- Values that are not finite ----------------------------------------------------------------------------------------- */

/* A value that a row does not see has weight 0, and 0 * NaN is NaN. So where some row does not see all of a block, values that are not
 * finite become zeros, and go to the rows that see them by themselves. Returns whether there are any: rarely. */
template <int D>
ADCG_DEVICE bool take_out(uint4 *values) {
  bool found = false;
#pragma unroll 1
  for (int i = (int)threadIdx.x; i < KEYS * D / 2; i += (int)blockDim.x) {
    const uint32_t pair = ((const uint32_t *)values)[i];
    const bool low = (pair & 0x7f80u) == 0x7f80u, high = (pair & 0x7f800000u) == 0x7f800000u;
    if (!low && !high) continue;
    found = true;
    ((uint32_t *)values)[i] = (low ? 0 : pair & 0xffffu) | (high ? 0 : pair & 0xffff0000u);
  }
  return __syncthreads_or(found) != 0;
}

/* Ones where the values of the cache are NaN or +inf (or -inf), zeros elsewhere: times ones where a row sees a key, this says to which
 * sums an infinity comes. A NaN comes as both. The values in shared memory are lost. */
template <int D, typename C>
ADCG_DEVICE void add_taken_out(const adcg_attention_args &a, const query_tile &t, lane_rows<D> *r, uint4 *values, const int64_t *rows,
                               int32_t block) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll 1
  for (int sign = 0; sign < 2; sign++) {
    const float infinity = sign ? -INFINITY : INFINITY;
    __syncthreads();
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < KEYS * D; i += (int)blockDim.x) {
      const int64_t row = rows[i / D];
      const float v = row < 0 ? 0.0f : to_float(((const C *)a.v_cache)[(row * a.kv_heads + t.kv_head) * D + i % D]);
      put((bf16 *)(values + unit_at<D>(i / D, i % D / 8)) + i % 8, v != v || v == infinity ? 1.0f : 0.0f);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      float found[2][4] = {};
#pragma unroll 1
      for (int i = 0; i < KEYS / 16; i++) {
        uint32_t sees[4], b[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int32_t key = block + i * 16 + j / 2 * 8 + lane % 4 * 2, position = r->position[j % 2], first = first_key(a, position);
          sees[j] = (key >= first && key <= position ? 0x3f80u : 0) | (key + 1 >= first && key + 1 <= position ? 0x3f800000u : 0);
        }
        load_matrices_turned(b, values + unit_at<D>(i * 16 + lane / 8 % 2 * 8 + lane % 8, 2 * n + lane / 16));
        multiply(found[0], sees, b[0], b[1]);
        multiply(found[1], sees, b[2], b[3]);
      }
#pragma unroll
      for (int e = 0; e < 8; e++) {
        if (found[e / 4][e % 4] > 0.0f) r->sums[2 * n + e / 4][e % 4] += infinity;
      }
    }
  }
}

/* ---- Tiles ------------------------------------------------------------------------------------------------------------------ */

/* The first block of a chunk that some row sees. */
ADCG_DEVICE int32_t first_block(const query_tile &t, int32_t number) {
  const int32_t begin = number * ADCG_CHUNK_KEYS;
  return begin < t.first ? t.first / KEYS * KEYS : begin;
}

/* The block behind this one, in another chunk perhaps; -1: none. */
ADCG_DEVICE int32_t next_block(const query_tile &t, int32_t number, int32_t block) {
  block += KEYS;
  if (block < (number + 1) * ADCG_CHUNK_KEYS && block < t.end) return block;
  return number + t.step < t.chunks ? first_block(t, number + t.step) : -1;
}

/* The result of a chunk, where keys are split. */
template <int D>
ADCG_DEVICE void store_result(const adcg_attention_args &a, const query_tile &t, const lane_rows<D> &r, const softmax_state *state,
                              int32_t number) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (r.position[half] < 0) continue;
    const int row = (int)threadIdx.x / 32 * 16 + lane / 4 + 8 * half;
    const int64_t result = result_of(a, t.seq, number, row / t.heads, t.head + row % t.heads);
    if (lane % 4 == 0) ((softmax_state *)a.states)[result] = state[half];
    float *to = a.sums + result * D + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++) *(float2 *)(to + n * 8) = {r.sums[n][2 * half], r.sums[n][2 * half + 1]};
  }
}

template <int D>
ADCG_DEVICE void store_rows(const adcg_attention_args &a, const query_tile &t, const lane_rows<D> &r, const softmax_state *total,
                            const float (*all)[4]) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (r.position[half] < 0) continue;
    const int row = (int)threadIdx.x / 32 * 16 + lane / 4 + 8 * half;
    bf16 *to = output_row<bf16>(a, t.seq, t.token + row / t.heads, t.head + row % t.heads) + lane % 4 * 2;
    const bool whole = ((uintptr_t)to & 3) == 0;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      const uint32_t pair = pack_bf16(all[n][2 * half] / total[half].total, all[n][2 * half + 1] / total[half].total);
      if (whole) {
        *(uint32_t *)(to + n * 8) = pair;
      } else {
        to[n * 8].bits = (uint16_t)pair;
        to[n * 8 + 1].bits = (uint16_t)(pair >> 16);
      }
    }
  }
}

/* Keys of the next block come while values are weighed, values while scores are worked out. */
template <int D, typename C, bool split>
ADCG_DEVICE void attend(const adcg_attention_args &a) {
  __shared__ __align__(16) stage<D> s;
  query_tile t;
  if (!take_tile(a, &t)) return;
  lane_rows<D> r;
  load_queries(a, t, &r);
  float all[split ? 1 : D / 8][4] = {};
  softmax_state total[2] = {no_keys(), no_keys()};
  if (!split) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4 + 8 * half;
      if (r.position[half] >= 0) total[half] = sink_state(a, t.head + row % t.heads);
    }
  }
  int which = 0;
  int32_t block = first_block(t, t.chunk);
  find_rows(a, t, &s, which, block);
  __syncthreads();
  bring_block<D, C>(a, t, a.k_cache, s.keys, s.rows[which]);
  for (int32_t number = t.chunk; number < t.chunks; number += t.step) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) r.sums[n][0] = r.sums[n][1] = r.sums[n][2] = r.sums[n][3] = 0.0f;
    r.largest[0] = r.largest[1] = -INFINITY;
    r.total[0] = r.total[1] = 0.0f;
    for (bool more = true; more; which ^= 1) {
      const int32_t next = next_block(t, number, block);
      const bool seen = r.high >= 0 && block <= r.high && block + KEYS > first_key(a, r.low);
      uint32_t weights[KEYS / 16][4];
      wait_for_copies();
      __syncthreads(); /* the keys are there, and nobody reads the last values any more */
      bring_block<D, C>(a, t, a.v_cache, s.values, s.rows[which]);
      if (next >= 0) find_rows(a, t, &s, which ^ 1, next);
      if (seen) {
        float scores[KEYS / 8][4];
        score_block(r, s.keys, scores);
        weigh_block(a, &r, block, scores, weights);
      }
      wait_for_copies();
      __syncthreads(); /* the values are there, and nobody reads the keys any more */
      const bool taken_out = (block + KEYS - 1 > t.position || block < first_key(a, t.end - 1)) && take_out<D>(s.values);
      if (next >= 0) bring_block<D, C>(a, t, a.k_cache, s.keys, s.rows[which ^ 1]);
      if (seen) sum_block(&r, s.values, weights);
      if (taken_out) add_taken_out<D, C>(a, t, &r, s.values, s.rows[which], block);
      more = next >= 0 && next / ADCG_CHUNK_KEYS == number;
      block = next;
    }
    softmax_state state[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float sum = r.total[half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      state[half] = {r.largest[half], sum};
      if (split) continue;
      const fold f = fold_state(1, &total[half], state[half]);
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        float *to = all[split ? 0 : n];
        to[2 * half] = fold_sum(f, to[2 * half], r.sums[n][2 * half]);
        to[2 * half + 1] = fold_sum(f, to[2 * half + 1], r.sums[n][2 * half + 1]);
      }
    }
    if (split) store_result(a, t, r, state, number);
  }
  if (!split) store_rows(a, t, r, total, all);
}

enum { TILE_THREADS = ADCG_TILE_ROWS * 2, SPLIT_THREADS = ADCG_SPLIT_ROWS * 2 };

ADCG_KERNEL(adcg_attention_tile_64_bf16, adcg_attention_args, TILE_THREADS) { attend<64, bf16, false>(a); }
ADCG_KERNEL(adcg_attention_tile_64_fp8, adcg_attention_args, TILE_THREADS) { attend<64, fp8, false>(a); }
ADCG_KERNEL(adcg_attention_tile_128_bf16, adcg_attention_args, TILE_THREADS) { attend<128, bf16, false>(a); }
ADCG_KERNEL(adcg_attention_tile_128_fp8, adcg_attention_args, TILE_THREADS) { attend<128, fp8, false>(a); }
ADCG_KERNEL(adcg_attention_split_64_bf16, adcg_attention_args, SPLIT_THREADS) { attend<64, bf16, true>(a); }
ADCG_KERNEL(adcg_attention_split_64_fp8, adcg_attention_args, SPLIT_THREADS) { attend<64, fp8, true>(a); }
ADCG_KERNEL(adcg_attention_split_128_bf16, adcg_attention_args, SPLIT_THREADS) { attend<128, bf16, true>(a); }
ADCG_KERNEL(adcg_attention_split_128_fp8, adcg_attention_args, SPLIT_THREADS) { attend<128, fp8, true>(a); }
