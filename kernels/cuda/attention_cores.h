/* Attention on tensor cores, for bf16 queries over bf16 or fp8 caches and heads of 64 or 128 dims. A warp has 16 query rows; all warps
 * of a block of threads share blocks of keys and values in shared memory. Scores and sums are f32, weights bf16, and a row's sum of
 * weights is that of the rounded ones. A row's bits do not depend on the rows beside it, nor on which kernel has them: tiles, wide ones,
 * or split keys. */
#ifndef ADCGK_CUDA_ATTENTION_CORES_H_
#define ADCGK_CUDA_ATTENTION_CORES_H_

#include "attention.h"
#include "cores.h"

/* Rows of bf16 as 16-byte units, in columns of 8 of them: unit u of a column is at u ^ row % 8, so that eight rows' same units are in
 * banks of their own. This is also as products of warpgroups read it. */
template <int Rows>
ADCG_DEVICE int unit_at(int row, int unit) {
  return unit / 8 * (Rows * 8) + row * 8 + (unit % 8 ^ row % 8);
}
/* From a place (of a unit below 2) on so many rows, a multiple of 8, and units, an even number. */
template <int Rows>
ADCG_DEVICE int unit_from(int place, int rows, int units) {
  return (place ^ units % 8) + units / 8 * (Rows * 8) + rows * 8;
}

/* What a thread has of 16 rows of its tile: of rows lane / 4 and lane / 4 + 8 of them. D: columns of the sums. */
template <int D>
struct lane_rows {
  int32_t row[2];      /* of the tile */
  int32_t position[2]; /* -1: there is no such row */
  int32_t low, high;   /* positions of the first and last of the 16 rows; high -1: there are none */
  float sums[D / 8][4];
  float largest[2], total[2]; /* of the chunk; totals are this lane's share */
};

ADCG_DEVICE uint32_t pair_of(const bf16 *from) {
  if (((uintptr_t)from & 3) == 0) return *(const uint32_t *)from;
  return from[0].bits | (uint32_t)from[1].bits << 16;
}

/* Rows `begin` and on of the tile; of a chunk nothing yet. */
template <int D>
ADCG_DEVICE void take_rows(const query_tile &t, int begin, lane_rows<D> *r) {
  const int lane = (int)threadIdx.x % 32, rows = t.tokens * t.heads;
  const int last = begin + 15 < rows ? begin + 15 : rows - 1;
  r->low = t.position + begin / t.heads;
  r->high = begin < rows ? t.position + last / t.heads : -1;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    r->row[half] = begin + lane / 4 + 8 * half;
    r->position[half] = r->row[half] < rows ? t.position + r->row[half] / t.heads : -1;
  }
}

template <int D>
ADCG_DEVICE void start_chunk(lane_rows<D> *r) {
#pragma unroll
  for (int n = 0; n < D / 8; n++) r->sums[n][0] = r->sums[n][1] = r->sums[n][2] = r->sums[n][3] = 0.0f;
  r->largest[0] = r->largest[1] = -INFINITY;
  r->total[0] = r->total[1] = 0.0f;
}

ADCG_DEVICE const bf16 *query_row(const adcg_attention_args &a, const query_tile &t, int row) {
  return (const bf16 *)a.q + (t.seq.begin + t.token + row / t.heads) * a.q_token + (t.head + row % t.heads) * a.q_head;
}

/* Queries as the left side of products: of dims 16 i and on in q[i]. */
template <int D, int Columns>
ADCG_DEVICE void load_queries(const adcg_attention_args &a, const query_tile &t, const lane_rows<Columns> &r, uint32_t (*q)[4]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const bool there = r.position[half] >= 0;
    const bf16 *from = query_row(a, t, r.row[half]) + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      q[i][half] = there ? pair_of(from + 16 * i) : 0;
      q[i][half + 2] = there ? pair_of(from + 16 * i + 8) : 0;
    }
  }
}

/* Where the rows of keys lie in the caches, in elements; -1 behind the last. */
template <int D>
ADCG_DEVICE void find_rows(const adcg_attention_args &a, const query_tile &t, int64_t *rows, int32_t begin, int keys = KEYS) {
  for (int key = (int)threadIdx.x; key < keys; key += (int)blockDim.x)
    rows[key] = begin + key < t.end ? (cache_row(a, t.seq, begin + key) * a.kv_heads + t.kv_head) * D : -1;
}

ADCG_DEVICE chunk load_element_chunk(const bf16 *from) { return load(from, CHUNK); }
ADCG_DEVICE chunk load_element_chunk(const fp8 *from) { return load_fp8(from, CHUNK); }

/* Brings keys, or values, whose rows have been found: later where they are copied as they are. Each thread has a unit of every so many
 * rows, a multiple of 8: those lie alike. */
template <int D, typename C, int Threads>
ADCG_DEVICE void bring_block(const void *cache, uint4 *to, const int64_t *rows) {
  enum { STEP = Threads / (D / 8) };
  static_assert(STEP % 8 == 0, "a thread's rows are the same in units of eight");
  const int first = (int)threadIdx.x / (D / 8), unit = (int)threadIdx.x % (D / 8);
  const C *from = (const C *)cache + unit * 8;
  to += unit_at<KEYS>(first, unit);
  if (sizeof(C) == sizeof(bf16) && aligned(cache)) {
#pragma unroll
    for (int row = 0; row < KEYS; row += STEP) {
      if (KEYS % STEP != 0 && first + row >= KEYS) break;
      const int64_t at = rows[first + row];
      copy_later(to + row * 8, from + (at < 0 ? 0 : at), at < 0);
    }
    return;
  }
#pragma unroll 2
  for (int row = 0; first + row < KEYS; row += STEP) {
    const int64_t at = rows[first + row];
    chunk c = {};
    if (at >= 0) c = load_element_chunk(from + at);
    store_whole((bf16 *)(to + row * 8), c);
  }
}

/* Where lanes begin to read the right sides of products: keys for scores, values for sums. */
ADCG_DEVICE int keys_place() {
  const int lane = (int)threadIdx.x % 32;
  return anew(unit_at<KEYS>(lane / 16 * 8 + lane % 8, lane / 8 % 2));
}
ADCG_DEVICE int values_place() {
  const int lane = (int)threadIdx.x % 32;
  return anew(unit_at<KEYS>(lane / 8 % 2 * 8 + lane % 8, lane / 16));
}

/* Scores of the block's keys, key n * 8 + lane % 4 * 2 + i % 2 of row i / 2 in scores[n][i]. */
template <int D>
ADCG_DEVICE void score_block(const uint32_t (*q)[4], const uint4 *keys, float (*scores)[4]) {
  const int place = keys_place();
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++) {
      uint32_t b[4];
      load_matrices(b, keys, unit_from<KEYS>(place, 16 * n, 2 * i));
      multiply(scores[2 * n], q[i], b[0], b[1]);
      multiply(scores[2 * n + 1], q[i], b[2], b[3]);
    }
  }
}

/* Takes out what rows do not see, and caps. Returns what makes powers of two of scores. */
template <int D>
ADCG_DEVICE float mask_block(const adcg_attention_args &a, const lane_rows<D> &r, int32_t block, float (*scores)[4]) {
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
  if (block + KEYS - 1 > r.low || block < first_key(a, r.high)) { /* some row does not see all */
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int32_t seen = r.position[half] - block, hidden = first_key(a, r.position[half]) - block;
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
  return scale;
}

/* The largest of a row's scores. */
ADCG_DEVICE float largest_score(const float (*scores)[4], int half) {
  float largest = -INFINITY;
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) largest = fmaxf(largest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
  return fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
}

/* What exponents are taken from, and what earlier sums are multiplied by, when the largest score becomes another. */
ADCG_DEVICE float shift_of(float largest) { return largest == -INFINITY ? 0.0f : largest; }
ADCG_DEVICE float rescale_of(float before, float largest) { return fast_exp2(before - shift_of(largest)); }

/* A row's scores become weights: bf16, as the left side of the product with the values. Returns this lane's share of their sum. */
ADCG_DEVICE float weigh(const float (*scores)[4], float scale, float shift, int half, uint32_t (*weights)[4]) {
  float total = 0.0f;
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) {
    const uint32_t pair =
        pack_bf16(fast_exp2(fmaf(scores[n][2 * half], scale, -shift)), fast_exp2(fmaf(scores[n][2 * half + 1], scale, -shift)));
    weights[n / 2][n % 2 * 2 + half] = pair;
    total += __uint_as_float(pair << 16);
    total += __uint_as_float(pair & 0xffff0000u);
  }
  return total;
}

template <int D>
ADCG_DEVICE void rescale_sums(lane_rows<D> *r, int half, float rescale) {
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    r->sums[n][2 * half] *= rescale;
    r->sums[n][2 * half + 1] *= rescale;
  }
}

template <int D>
ADCG_DEVICE void weigh_block(const adcg_attention_args &a, lane_rows<D> *r, int32_t block, float (*scores)[4], uint32_t (*weights)[4]) {
  const float scale = mask_block(a, *r, block, scores);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float largest = fmaxf(r->largest[half], largest_score(scores, half) * scale), rescale = rescale_of(r->largest[half], largest);
    r->largest[half] = largest;
    r->total[half] = fmaf(r->total[half], rescale, weigh(scores, scale, shift_of(largest), half, weights));
    rescale_sums(r, half, rescale);
  }
}

template <int D>
ADCG_DEVICE void sum_block(lane_rows<D> *r, const uint4 *values, const uint32_t (*weights)[4]) {
  const int place = values_place();
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++) {
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      load_matrices_turned(b, values, unit_from<KEYS>(place, 16 * i, 2 * n));
      multiply(r->sums[2 * n], weights[i], b[0], b[1]);
      multiply(r->sums[2 * n + 1], weights[i], b[2], b[3]);
    }
  }
}

/* ---- Values that are not finite ----------------------------------------------------------------------------------------- */

/* A value that a row does not see has weight 0, and 0 * NaN is NaN. So where some row does not see all of a block, values that are not
 * finite become zeros, and go to the rows that see them by themselves. Returns whether there are any: rarely.
 * Promised is that what a row does not see never comes to it. A row that sees values that are not finite gets results that are not;
 * which (NaN or an infinity, where the weight is rounded to 0) may depend on the tile. */
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
  publish();
  return __syncthreads_or(found) != 0;
}

/* Ones where the values of the cache are NaN or +inf (or -inf), zeros elsewhere: times ones where a row sees a key, this says to which
 * sums an infinity comes. A NaN comes as both. The values in shared memory are lost. The sums are of
 * Columns columns, of which the first is column from * 16 of the values. */
template <int D, typename C, int Columns>
ADCG_DEVICE void add_taken_out(const adcg_attention_args &a, lane_rows<Columns> *r, int from, uint4 *values, const int64_t *rows,
                               int32_t block) {
  const int lane = (int)threadIdx.x % 32, place = values_place();
#pragma unroll 1
  for (int sign = 0; sign < 2; sign++) {
    const float infinity = sign ? -INFINITY : INFINITY;
    __syncthreads();
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < KEYS * D; i += (int)blockDim.x) {
      const int64_t at = rows[i / D];
      const float v = at < 0 ? 0.0f : to_float(((const C *)a.v_cache)[at + i % D]);
      put((bf16 *)(values + unit_at<KEYS>(i / D, i % D / 8)) + i % 8, v != v || v == infinity ? 1.0f : 0.0f);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < Columns / 16; n++) {
      float found[2][4] = {};
#pragma unroll 1
      for (int i = 0; i < KEYS / 16; i++) {
        uint32_t sees[4], b[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int32_t key = block + i * 16 + j / 2 * 8 + lane % 4 * 2, position = r->position[j % 2], first = first_key(a, position);
          sees[j] = (key >= first && key <= position ? 0x3f80u : 0) | (key + 1 >= first && key + 1 <= position ? 0x3f800000u : 0);
        }
        load_matrices_turned(b, values, unit_from<KEYS>(place, 16 * i, 2 * (from + n)));
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

template <int D>
ADCG_DEVICE void store_rows(const adcg_attention_args &a, const query_tile &t, const lane_rows<D> &r, const softmax_state *total,
                            const float (*all)[4]) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (r.position[half] < 0) continue;
    const int row = r.row[half];
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

/* Whether a row of the tile does not see all of a block's keys that others see. */
ADCG_DEVICE bool is_masked(const adcg_attention_args &a, const query_tile &t, int32_t block) {
  return (t.tokens > 1 && block + KEYS - 1 > t.position) || block < first_key(a, t.end - 1);
}

/* The state of a row's chunk: lanes put their shares together. */
template <int D>
ADCG_DEVICE softmax_state chunk_state(const lane_rows<D> &r, int half) {
  float sum = r.total[half];
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  return {r.largest[half], sum};
}

#endif /* ADCGK_CUDA_ATTENTION_CORES_H_ */
