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
/* From a place (of a unit below 2) on so many rows, a multiple of 8, and units, an even number. */
template <int D>
ADCG_DEVICE int unit_from(int place, int rows, int units) {
  return (place ^ units) + rows * (D / 8);
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

/* Where lanes begin to read the right sides of products: keys for scores, values for sums. */
template <int D>
ADCG_DEVICE int keys_place() {
  const int lane = (int)threadIdx.x % 32;
  return anew(unit_at<D>(lane / 16 * 8 + lane % 8, lane / 8 % 2));
}
template <int D>
ADCG_DEVICE int values_place() {
  const int lane = (int)threadIdx.x % 32;
  return anew(unit_at<D>(lane / 8 % 2 * 8 + lane % 8, lane / 16));
}

/* Scores of the block's keys, key n * 8 + lane % 4 * 2 + i % 2 of row i / 2 in scores[n][i]. */
template <int D>
ADCG_DEVICE void score_block(const uint32_t (*q)[4], const uint4 *keys, float (*scores)[4]) {
  const int place = keys_place<D>();
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++) {
      uint32_t b[4];
      load_matrices(b, keys, unit_from<D>(place, 16 * n, 2 * i));
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
  const int place = values_place<D>();
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++) {
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      load_matrices_turned(b, values, unit_from<D>(place, 16 * i, 2 * n));
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
  return __syncthreads_or(found) != 0;
}

/* Ones where the values of the cache are NaN or +inf (or -inf), zeros elsewhere: times ones where a row sees a key, this says to which
 * sums an infinity comes. A NaN comes as both. The values in shared memory are lost. The sums are of Groups times 16 rows, and of
 * Columns columns, of which the first is column from * 16 of the values. */
template <int D, typename C, int Columns, int Groups>
ADCG_DEVICE void add_taken_out(const adcg_attention_args &a, const query_tile &t, lane_rows<Columns> (&r)[Groups], int from, uint4 *values,
                               const int64_t *rows, int32_t block) {
  const int lane = (int)threadIdx.x % 32, place = values_place<D>();
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
    for (int m = 0; m < Groups; m++) {
#pragma unroll
      for (int n = 0; n < Columns / 16; n++) {
        float found[2][4] = {};
#pragma unroll 1
        for (int i = 0; i < KEYS / 16; i++) {
          uint32_t sees[4], b[4];
#pragma unroll
          for (int j = 0; j < 4; j++) {
            const int32_t key = block + i * 16 + j / 2 * 8 + lane % 4 * 2, position = r[m].position[j % 2], first = first_key(a, position);
            sees[j] = (key >= first && key <= position ? 0x3f80u : 0) | (key + 1 >= first && key + 1 <= position ? 0x3f800000u : 0);
          }
          load_matrices_turned(b, values, unit_from<D>(place, 16 * i, 2 * (from + n)));
          multiply(found[0], sees, b[0], b[1]);
          multiply(found[1], sees, b[2], b[3]);
        }
#pragma unroll
        for (int e = 0; e < 8; e++) {
          if (found[e / 4][e % 4] > 0.0f) r[m].sums[2 * n + e / 4][e % 4] += infinity;
        }
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

/* A tile whose warps have 16 rows each, and all that belongs to them in registers. Keys of the next block come while values are
 * weighed, values while scores are worked out. */
template <int D, typename C>
ADCG_DEVICE void attend(const adcg_attention_args &a) {
  __shared__ __align__(16) stage<D> s;
  query_tile t;
  if (!take_tile(a, &t)) return;
  lane_rows<D> r[1];
  uint32_t q[D / 16][4];
  float all[D / 8][4] = {};
  softmax_state total[2];
  take_rows(t, (int)threadIdx.x / 32 * 16, r);
  load_queries<D>(a, t, *r, q);
#pragma unroll
  for (int half = 0; half < 2; half++) total[half] = r->position[half] < 0 ? no_keys() : sink_state(a, t.head + r->row[half] % t.heads);
  int which = 0;
  int32_t block = first_block(t, t.chunk);
  find_rows(a, t, &s, which, block);
  __syncthreads();
  bring_block<D, C>(a, t, a.k_cache, s.keys, s.rows[which]);
  for (int32_t number = t.chunk; number < t.chunks; number++) {
    start_chunk(r);
    for (bool more = true; more; which ^= 1) {
      const int32_t next = next_block(t, number, block);
      const bool seen = r->high >= 0 && block <= r->high && block + KEYS > first_key(a, r->low);
      uint32_t weights[KEYS / 16][4];
      wait_for_copies();
      __syncthreads(); /* the keys are there, and nobody reads the last values any more */
      bring_block<D, C>(a, t, a.v_cache, s.values, s.rows[which]);
      if (next >= 0) find_rows(a, t, &s, which ^ 1, next);
      if (seen) {
        float scores[KEYS / 8][4];
        score_block<D>(q, s.keys, scores);
        weigh_block(a, r, block, scores, weights);
      }
      wait_for_copies();
      __syncthreads(); /* the values are there, and nobody reads the keys any more */
      const bool taken_out = is_masked(a, t, block) && take_out<D>(s.values);
      if (next >= 0) bring_block<D, C>(a, t, a.k_cache, s.keys, s.rows[which ^ 1]);
      if (seen) sum_block(r, s.values, weights);
      if (taken_out) add_taken_out<D, C>(a, t, r, 0, s.values, s.rows[which], block);
      more = next >= 0 && next / ADCG_CHUNK_KEYS == number;
      block = next;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const fold f = fold_state(1, &total[half], chunk_state(*r, half));
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        all[n][2 * half] = fold_sum(f, all[n][2 * half], r->sums[n][2 * half]);
        all[n][2 * half + 1] = fold_sum(f, all[n][2 * half + 1], r->sums[n][2 * half + 1]);
      }
    }
  }
  store_rows(a, t, *r, total, all);
}

enum { TILE_THREADS = ADCG_TILE_ROWS * 2 };

ADCG_KERNEL(adcg_attention_tile_64_bf16, adcg_attention_args, TILE_THREADS) { attend<64, bf16>(a); }
ADCG_KERNEL(adcg_attention_tile_64_fp8, adcg_attention_args, TILE_THREADS) { attend<64, fp8>(a); }
ADCG_KERNEL(adcg_attention_tile_128_bf16, adcg_attention_args, TILE_THREADS) { attend<128, bf16>(a); }
ADCG_KERNEL(adcg_attention_tile_128_fp8, adcg_attention_args, TILE_THREADS) { attend<128, fp8>(a); }

/* ---- Wide tiles ------------------------------------------------------------------------------------------------------------- */

/* A tile whose warps have 32 rows each: what is read of a block of keys serves twice as many products, and shared memory is what tiles
 * wait for. Registers hold one chunk's sums; the queries, and the sums of all chunks, lie in shared memory. */
enum { WIDE_THREADS = ADCG_WIDE_ROWS, WIDE_GROUPS = 2 };

template <int D>
struct wide_stage {
  stage<D> blocks;
  uint4 queries[ADCG_WIDE_ROWS * D / 8];
  float4 all[WIDE_GROUPS * D / 8][WIDE_THREADS]; /* a thread's, as it has its sums */
  query_tile tile;                               /* here it takes no registers */
};
static_assert(sizeof(wide_stage<128>) <= ADCG_WIDE_BYTES, "the launch asks for so much");

template <int D>
ADCG_DEVICE void load_wide_queries(const adcg_attention_args &a, const query_tile &t, uint4 *to) {
  for (int i = (int)threadIdx.x; i < ADCG_WIDE_ROWS * D / 8; i += WIDE_THREADS) {
    const int row = i / (D / 8), unit = i % (D / 8);
    chunk c = {};
    if (row < t.tokens * t.heads) c = load(query_row(a, t, row) + unit * 8, CHUNK);
    store_whole((bf16 *)(to + unit_at<D>(row, unit)), c);
  }
}

template <int D>
ADCG_DEVICE void score_wide(const uint4 *queries, const uint4 *keys, float (*scores)[KEYS / 8][4]) {
  const int lane = (int)threadIdx.x % 32, place = keys_place<D>();
  const int of_queries = anew(unit_at<D>((int)threadIdx.x / 32 * 16 * WIDE_GROUPS + lane % 16, lane / 16));
#pragma unroll
  for (int m = 0; m < WIDE_GROUPS; m++) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) scores[m][n][0] = scores[m][n][1] = scores[m][n][2] = scores[m][n][3] = 0.0f;
  }
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
    uint32_t q[WIDE_GROUPS][4];
#pragma unroll
    for (int m = 0; m < WIDE_GROUPS; m++) load_matrices(q[m], queries, unit_from<D>(of_queries, 16 * m, 2 * i));
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++) {
      uint32_t b[4];
      load_matrices(b, keys, unit_from<D>(place, 16 * n, 2 * i));
#pragma unroll
      for (int m = 0; m < WIDE_GROUPS; m++) {
        multiply(scores[m][2 * n], q[m], b[0], b[1]);
        multiply(scores[m][2 * n + 1], q[m], b[2], b[3]);
      }
    }
  }
}

template <int D>
ADCG_DEVICE void sum_wide(lane_rows<D> *r, const uint4 *values, const uint32_t (*weights)[KEYS / 16][4]) {
  const int place = values_place<D>();
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++) {
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      load_matrices_turned(b, values, unit_from<D>(place, 16 * i, 2 * n));
#pragma unroll
      for (int m = 0; m < WIDE_GROUPS; m++) {
        multiply(r[m].sums[2 * n], weights[m][i], b[0], b[1]);
        multiply(r[m].sums[2 * n + 1], weights[m][i], b[2], b[3]);
      }
    }
  }
}

template <int D, typename C>
ADCG_DEVICE void attend_wide(const adcg_attention_args &a, wide_stage<D> *room) {
  stage<D> &s = room->blocks;
  const query_tile &t = room->tile;
  query_tile taken;
  if (!take_tile(a, &taken)) return;
  if (threadIdx.x == 0) room->tile = taken;
  __syncthreads();
  lane_rows<D> r[WIDE_GROUPS];
  softmax_state total[WIDE_GROUPS][2];
#pragma unroll
  for (int m = 0; m < WIDE_GROUPS; m++) {
    take_rows(t, ((int)threadIdx.x / 32 * WIDE_GROUPS + m) * 16, &r[m]);
#pragma unroll
    for (int half = 0; half < 2; half++)
      total[m][half] = r[m].position[half] < 0 ? no_keys() : sink_state(a, t.head + r[m].row[half] % t.heads);
  }
  for (int i = 0; i < WIDE_GROUPS * D / 8; i++) room->all[i][threadIdx.x] = {0.0f, 0.0f, 0.0f, 0.0f};
  load_wide_queries<D>(a, t, room->queries);
  int which = 0;
  int32_t block = first_block(t, t.chunk);
  find_rows(a, t, &s, which, block);
  __syncthreads();
  bring_block<D, C>(a, t, a.k_cache, s.keys, s.rows[which]);
  for (int32_t number = t.chunk; number < t.chunks; number++) {
#pragma unroll
    for (int m = 0; m < WIDE_GROUPS; m++) start_chunk(&r[m]);
    for (bool more = true; more; which ^= 1) {
      const int32_t next = next_block(t, number, block), high = r[1].high >= 0 ? r[1].high : r[0].high;
      const bool seen = block <= high && block + KEYS > first_key(a, r[0].low);
      uint32_t weights[WIDE_GROUPS][KEYS / 16][4];
      wait_for_copies();
      __syncthreads(); /* the keys are there, and nobody reads the last values any more */
      bring_block<D, C>(a, t, a.v_cache, s.values, s.rows[which]);
      if (next >= 0) find_rows(a, t, &s, which ^ 1, next);
      if (seen) {
        float scores[WIDE_GROUPS][KEYS / 8][4];
        score_wide<D>(room->queries, s.keys, scores);
#pragma unroll
        for (int m = 0; m < WIDE_GROUPS; m++) weigh_block(a, &r[m], block, scores[m], weights[m]);
      }
      wait_for_copies();
      __syncthreads(); /* the values are there, and nobody reads the keys any more */
      const bool taken_out = is_masked(a, t, block) && take_out<D>(s.values);
      if (next >= 0) bring_block<D, C>(a, t, a.k_cache, s.keys, s.rows[which ^ 1]);
      if (seen) sum_wide(r, s.values, weights);
      if (taken_out) add_taken_out<D, C>(a, t, r, 0, s.values, s.rows[which], block);
      more = next >= 0 && next / ADCG_CHUNK_KEYS == number;
      block = next;
    }
#pragma unroll
    for (int m = 0; m < WIDE_GROUPS; m++) {
      const fold f[2] = {fold_state(1, &total[m][0], chunk_state(r[m], 0)), fold_state(1, &total[m][1], chunk_state(r[m], 1))};
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        float4 *to = &room->all[m * (D / 8) + n][threadIdx.x];
        const float *sums = r[m].sums[n];
        *to = {fold_sum(f[0], to->x, sums[0]), fold_sum(f[0], to->y, sums[1]), fold_sum(f[1], to->z, sums[2]),
               fold_sum(f[1], to->w, sums[3])};
      }
    }
  }
#pragma unroll
  for (int m = 0; m < WIDE_GROUPS; m++) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      const float4 sum = room->all[m * (D / 8) + n][threadIdx.x];
      float *to = r[m].sums[n];
      to[0] = sum.x, to[1] = sum.y, to[2] = sum.z, to[3] = sum.w;
    }
    store_rows(a, t, r[m], total[m], r[m].sums);
  }
}

ADCG_KERNEL(adcg_attention_wide_128_bf16, adcg_attention_args, WIDE_THREADS) {
  ADCG_SHARED(wide_stage<128>, room);
  attend_wide<128, bf16>(a, room);
}
ADCG_KERNEL(adcg_attention_wide_128_fp8, adcg_attention_args, WIDE_THREADS) {
  ADCG_SHARED(wide_stage<128>, room);
  attend_wide<128, fp8>(a, room);
}

/* ---- Split keys --------------------------------------------------------------------------------------------------------------- */

/* A chunk at a time, all of whose keys come at once: a warp scores one of its blocks, and then sums a share of the columns over all. The
 * order of what is added is a tile's. */
enum { SPLIT_WARPS = ADCG_CHUNK_KEYS / KEYS, SPLIT_THREADS = SPLIT_WARPS * 32 };

template <int D>
struct split_stage {
  uint4 blocks[SPLIT_WARPS][KEYS * D / 8]; /* of keys, then of values */
  uint4 weights[SPLIT_WARPS][KEYS / 16][32];
  float largest[SPLIT_WARPS][ADCG_SPLIT_ROWS];
  float totals[SPLIT_WARPS][2][32]; /* lanes' shares */
  int64_t rows[SPLIT_WARPS][KEYS];
};
static_assert(sizeof(split_stage<128>) <= ADCG_SPLIT_BYTES, "the launch asks for so much");

template <int D, typename C>
ADCG_DEVICE void split_chunk(const adcg_attention_args &a, const query_tile &t, const uint32_t (*q)[4], split_stage<D> *s, int32_t number,
                             lane_rows<D / SPLIT_WARPS> (&r)[1]) {
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int32_t start = number * ADCG_CHUNK_KEYS;
  const int begin = (first_block(t, number) - start) / KEYS;
  const int end = t.end - start >= ADCG_CHUNK_KEYS ? SPLIT_WARPS : (t.end - start + KEYS - 1) / KEYS;
  for (int key = (int)threadIdx.x; key < ADCG_CHUNK_KEYS; key += SPLIT_THREADS)
    s->rows[key / KEYS][key % KEYS] = key >= begin * KEYS && start + key < t.end ? cache_row(a, t.seq, start + key) : -1;
  __syncthreads();
  for (int j = begin; j < end; j++) bring_block<D, C>(a, t, a.k_cache, s->blocks[j], s->rows[j]);
  wait_for_copies();
  __syncthreads();
  const bool mine = warp >= begin && warp < end;
  float scores[KEYS / 8][4], scale = 0.0f;
  if (mine) {
    score_block<D>(q, s->blocks[warp], scores);
    scale = mask_block(a, *r, start + warp * KEYS, scores);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float largest = largest_score(scores, half) * scale;
      if (lane % 4 == 0) s->largest[warp][r->row[half]] = largest;
    }
  }
  __syncthreads(); /* nobody reads the keys any more */
  for (int j = begin; j < end; j++) bring_block<D, C>(a, t, a.v_cache, s->blocks[j], s->rows[j]);
  if (mine) {
    uint32_t weights[KEYS / 16][4];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float largest = -INFINITY;
      for (int j = begin; j <= warp; j++) largest = fmaxf(largest, s->largest[j][r->row[half]]);
      s->totals[warp][half][lane] = weigh(scores, scale, shift_of(largest), half, weights);
    }
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) s->weights[warp][i][lane] = {weights[i][0], weights[i][1], weights[i][2], weights[i][3]};
  }
  wait_for_copies();
  __syncthreads(); /* values and weights are there */
  start_chunk(r);
  const int place = values_place<D>();
  for (int j = begin; j < end; j++) {
    const bool taken_out = is_masked(a, t, start + j * KEYS) && take_out<D>(s->blocks[j]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float largest = fmaxf(r->largest[half], s->largest[j][r->row[half]]), rescale = rescale_of(r->largest[half], largest);
      r->largest[half] = largest;
      r->total[half] = fmaf(r->total[half], rescale, s->totals[j][half][lane]);
      rescale_sums(r, half, rescale);
    }
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
      const uint4 w = s->weights[j][i][lane];
      const uint32_t weights[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int n = 0; n < D / SPLIT_WARPS / 16; n++) {
        uint32_t b[4];
        load_matrices_turned(b, s->blocks[j], unit_from<D>(place, 16 * i, 2 * (warp * (D / SPLIT_WARPS / 16) + n)));
        multiply(r->sums[2 * n], weights, b[0], b[1]);
        multiply(r->sums[2 * n + 1], weights, b[2], b[3]);
      }
    }
    if (taken_out) add_taken_out<D, C>(a, t, r, warp * (D / SPLIT_WARPS / 16), s->blocks[j], s->rows[j], start + j * KEYS);
  }
}

template <int D, typename C>
ADCG_DEVICE void attend_split(const adcg_attention_args &a, split_stage<D> *s) {
  query_tile t;
  if (!take_tile(a, &t)) return;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  lane_rows<D / SPLIT_WARPS> r[1];
  uint32_t q[D / 16][4];
  take_rows(t, 0, r);
  load_queries<D>(a, t, *r, q);
  for (int32_t number = t.chunk; number < t.chunks; number += t.step) {
    split_chunk<D, C>(a, t, q, s, number, r);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const softmax_state state = chunk_state(*r, half);
      if (r->position[half] < 0) continue;
      const int64_t result = result_of(a, t.seq, number, r->row[half] / t.heads, t.head + r->row[half] % t.heads);
      if (lane % 4 == 0 && warp == 0) ((softmax_state *)a.states)[result] = state;
      float *to = a.sums + result * D + warp * (D / SPLIT_WARPS) + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < D / SPLIT_WARPS / 8; n++) *(float2 *)(to + n * 8) = {r->sums[n][2 * half], r->sums[n][2 * half + 1]};
    }
    __syncthreads(); /* nobody reads this chunk's any more */
  }
}

ADCG_KERNEL(adcg_attention_split_64_bf16, adcg_attention_args, SPLIT_THREADS) {
  ADCG_SHARED(split_stage<64>, s);
  attend_split<64, bf16>(a, s);
}
ADCG_KERNEL(adcg_attention_split_64_fp8, adcg_attention_args, SPLIT_THREADS) {
  ADCG_SHARED(split_stage<64>, s);
  attend_split<64, fp8>(a, s);
}
ADCG_KERNEL(adcg_attention_split_128_bf16, adcg_attention_args, SPLIT_THREADS) {
  ADCG_SHARED(split_stage<128>, s);
  attend_split<128, bf16>(a, s);
}
ADCG_KERNEL(adcg_attention_split_128_fp8, adcg_attention_args, SPLIT_THREADS) {
  ADCG_SHARED(split_stage<128>, s);
  attend_split<128, fp8>(a, s);
}
