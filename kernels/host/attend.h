/* Attention of a tile of query rows over the cache, for one instruction set.
 *
 * Keys are taken in blocks of ADCGK_KEY_BLOCK at fixed positions of the sequence. Per row and block: scores (dot
 * products in 16 lanes and a tree, as in product.h), the largest, weights exp(score - largest), their sum in 16 lanes
 * by key modulo 16, and the weighted values, key after key. All of it depends on the row's own position and history
 * alone: other rows of the tile share loads and nothing else, and keys that a row does not see touch nothing of it
 * (they may hold NaN). */

/* ---- Scores --------------------------------------------------------------------------------------------- */

/* Where heads are short a dot product is half reduction. Tiles of enough rows therefore turn their keys, and have 16
 * keys in the lanes instead of 16 dims: the 16 sums of a dot product come one after another, each a chain of fma over
 * dims l, l + 16, .., and meet in the tree of v_sum. The same additions and so the same bits. */
enum { TURN_DIMS = 64, TURN_ROWS = 8 }; /* dims at most and rows at least */

#if SIMD_WIDTH >= 8
ALWAYS __m256 r_get8(const void *from, bool bf16, int64_t at) {
  if (!bf16) return _mm256_loadu_ps((const float *)from + at);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)((const uint16_t *)from + at))), 16));
}
/* to[e][i] = rows[i][e], 8 x 8. */
ALWAYS void turn8(float *to, const void *const *rows, bool bf16, int64_t at) {
  __m256 x[8], y[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) x[i] = r_get8(rows[i], bf16, at);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    x[i] = _mm256_shuffle_ps(y[i], y[i + 2], 0x44);
    x[i + 1] = _mm256_shuffle_ps(y[i], y[i + 2], 0xee);
    x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
    x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    _mm256_store_ps(to + i * ADCGK_KEY_BLOCK, _mm256_permute2f128_ps(x[i], x[i + 4], 0x20));
    _mm256_store_ps(to + (i + 4) * ADCGK_KEY_BLOCK, _mm256_permute2f128_ps(x[i], x[i + 4], 0x31));
  }
}
#endif

/* columns[e][j] = dim e of the block's key j, for j = j0 .. j1-1. Around them, up to whole vecs of keys, stand copies
 * of the last key, and behind the last dim, up to a multiple of 16, zeros. */
ALWAYS void turn_keys(float *columns, const adcgk_attend *a, int64_t j0, int64_t j1, bool bf16) {
  for (int64_t j = j0 / LANES * LANES; j < (j1 + LANES - 1) / LANES * LANES; j += 8) {
    const void *keys[8];
    for (int i = 0; i < 8; i++) {
      const int64_t key = j + i >= j0 && j + i < j1 ? j + i : j1 - 1;
      keys[i] = element(a->keys, bf16, key * a->key_stride);
    }
    int64_t e = 0;
#if SIMD_WIDTH >= 8
    for (; e + 8 <= a->d; e += 8) turn8(columns + e * ADCGK_KEY_BLOCK + j, keys, bf16, e);
#endif
    for (; e < a->ldq; e++) {
      for (int i = 0; i < 8; i++) {
        uint32_t bits = 0;
        if (e < a->d) bits = bf16 ? (uint32_t)((const uint16_t *)keys[i])[e] << 16 : ((const uint32_t *)keys[i])[e];
        memcpy(columns + e * ADCGK_KEY_BLOCK + j + i, &bits, sizeof(bits));
      }
    }
  }
}

/* Rows and vecs of keys of one pass of score. */
#define QR 2
#if SIMD_WIDTH == 16
#define KV 2
#else
#define KV 1
#endif

/* Sum l of 16, over `steps` dims, for mr rows and KV vecs of keys. It may be -0 where a dot product, which starts with
 * 0, has 0; no weight tells them apart. */
ALWAYS void sum_of_lane(int mr, int steps, const float *q, int64_t ldq, const float *columns, int l, vec *sums) {
#pragma GCC unroll 4
  for (int step = 0; step < steps; step++) {
    const int e = step * LANES + l;
    vec key[KV];
#pragma GCC unroll 2
    for (int c = 0; c < KV; c++) key[c] = v_pinned(v_load(columns + e * ADCGK_KEY_BLOCK + c * LANES));
#pragma GCC unroll 2
    for (int i = 0; i < mr; i++) {
      const vec x = v_set(q[i * ldq + e]);
#pragma GCC unroll 2
      for (int c = 0; c < KV; c++) sums[i * KV + c] = step == 0 ? v_mul(x, key[c]) : v_fma(x, key[c], sums[i * KV + c]);
    }
  }
}
/* NAME(l) = HALF(l) + HALF(l + distance): the tree of v_sum from its root, so that few sums wait for their other half. */
#define TREE(NAME, HALF, DISTANCE)                                                                           \
  ALWAYS void NAME(int mr, int steps, const float *q, int64_t ldq, const float *columns, int l, vec *sums) { \
    vec other[QR * KV];                                                                                      \
    HALF(mr, steps, q, ldq, columns, l, sums);                                                               \
    HALF(mr, steps, q, ldq, columns, l + DISTANCE, other);                                                   \
    _Pragma("GCC unroll 4") for (int i = 0; i < mr * KV; i++) sums[i] = v_pinned(v_add(sums[i], other[i]));  \
  }
TREE(tree8, sum_of_lane, 8)
TREE(tree4, tree8, 4)
TREE(tree2, tree4, 2)
TREE(tree1, tree2, 1)
#undef TREE

/* Scores of mr rows and their keys j0 .. j1-1, for heads of up to 16 * steps dims. */
ALWAYS void score(int mr, int steps, const adcgk_attend *a, const float *columns, int row, int64_t j0, int64_t j1) {
  for (int64_t j = j0 / (KV * LANES) * (KV * LANES); j < j1; j += KV * LANES) {
    vec sums[QR * KV];
    tree1(mr, steps, a->q + (int64_t)row * a->ldq, a->ldq, columns + j, 0, sums);
    float *scores = a->weights + (int64_t)row * ADCGK_KEY_BLOCK + j;
#pragma GCC unroll 2
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 2
      for (int c = 0; c < KV; c++) v_store(scores + i * ADCGK_KEY_BLOCK + c * LANES, sums[i * KV + c]);
    }
  }
}
/* Rows r0 .. r1-1, of which row r sees keys from[r] .. to[r]-1 of the block. */
#define SCORES(STEPS)                                                                                                                   \
  static __attribute__((noinline)) void scores##STEPS(const adcgk_attend *a, const float *columns, int r0, int r1, const int64_t *from, \
                                                      const int64_t *to) {                                                              \
    int r = r0;                                                                                                                         \
    for (; r + QR <= r1; r += QR) score(QR, STEPS, a, columns, r, from[r], to[r + QR - 1]);                                             \
    for (; r < r1; r++) score(1, STEPS, a, columns, r, from[r], to[r]);                                                                 \
  }
SCORES(1)
SCORES(2)
SCORES(3)
SCORES(4)
#undef SCORES

static void scores(const adcgk_attend *a, int r0, int r1, const int64_t *from, const int64_t *to) {
  static void (*const turned[])(const adcgk_attend *, const float *, int, int, const int64_t *, const int64_t *) = {scores1, scores2,
                                                                                                                    scores3, scores4};
  const int64_t j0 = from[r0], j1 = to[r1 - 1];
  if (r1 - r0 >= TURN_ROWS && a->d <= TURN_DIMS) {
    float columns[TURN_DIMS * ADCGK_KEY_BLOCK] __attribute__((aligned(64)));
    if (a->cache_bf16)
      turn_keys(columns, a, j0, j1, true);
    else
      turn_keys(columns, a, j0, j1, false);
    turned[(a->d - 1) / LANES](a, columns, r0, r1, from, to);
    return;
  }
  const adcgk_product p = {.x = a->q,
                           .w = a->keys, /* column n is the block's key n */
                           .y = a->weights,
                           .k = a->d,
                           .ldx = a->ldq,
                           .ldw = a->key_stride,
                           .ldy = ADCGK_KEY_BLOCK,
                           .w_bf16 = a->cache_bf16};
  product(&p, r0, r1, j0, j1);
}

/* ---- Weights: softmax ----------------------------------------------------------------------------------- */

/* One row's softmax step over keys from .. to-1 of a block, which stand in vecs g0 .. g1-1: scores become weights,
 * earlier sums are rescaled to the new largest score. `part`: not all lanes of these vecs may be seen. */
ALWAYS void softmax_step(const adcgk_attend *a, int row, int g0, int g1, bool part, bool capped, int64_t from, int64_t to) {
  float *weights = a->weights + (int64_t)row * ADCGK_KEY_BLOCK;
  const vec lowest = v_set(-INFINITY), scale = v_set(a->scale), cap = v_set(a->softcap);
  const ivec before_first = iv_set((int32_t)from - 1), end = iv_set((int32_t)to);
  vec top = lowest;
#pragma GCC unroll 4
  for (int g = g0; g < g1; g++) {
    vec s = v_mul(v_load(weights + g * LANES), scale);
    if (capped) s = v_mul(cap, v_tanh(v_div(s, cap)));
    if (part) {
      const ivec key = iv_add(iv_lanes(), iv_set(g * LANES));
      s = v_select(iv_and(iv_greater(key, before_first), iv_greater(end, key)), s, lowest);
    }
    v_store(weights + g * LANES, s);
    top = v_max(top, s);
  }
  const float before = a->largest[row], block_top = v_max_lane(top);
  const float largest = before > block_top ? before : block_top;
  const vec shift = v_set(largest);
  vec sum = v_zero();
#pragma GCC unroll 4
  for (int g = g0; g < g1; g++) {
    const vec w = v_exp_to_1(v_sub(v_load(weights + g * LANES), shift));
    v_store(weights + g * LANES, w);
    sum = v_add(sum, w);
  }
  float rescale = 1.0f;
  if (largest != before) { /* else exp(0): exactly 1 */
    float lanes[LANES];
    v_store(lanes, v_exp_to_1(v_set(before - largest)));
    rescale = lanes[0];
    const vec by = v_set(rescale);
    float *sums = a->sums + (int64_t)row * a->lda;
    for (int64_t at = 0; at < a->lda; at += LANES) v_store(sums + at, v_mul(v_load(sums + at), by));
  }
  a->largest[row] = largest;
  a->total[row] = fmaf(a->total[row], rescale, v_sum(sum));
}

static __attribute__((noinline)) void softmax_whole(const adcgk_attend *a, int row) {
  softmax_step(a, row, 0, ADCGK_KEY_BLOCK / LANES, false, false, 0, ADCGK_KEY_BLOCK);
}
static __attribute__((noinline)) void softmax_part(const adcgk_attend *a, int row, int64_t from, int64_t to) {
  const int g0 = (int)(from / LANES), g1 = (int)((to + LANES - 1) / LANES);
  if (a->softcap != 0.0f)
    softmax_step(a, row, g0, g1, true, true, from, to);
  else
    softmax_step(a, row, g0, g1, true, false, from, to);
}

/* ---- Sums: weighted values ------------------------------------------------------------------------------- */

/* sums[i][..] += weights[i][j] * values[j][..] for mr rows and the block's keys j = j0 .. j1-1 in order; nv vecs of a value at once. */
ALWAYS void weigh(int mr, int nv, int last, const adcgk_attend *a, int row, int64_t j0, int64_t j1, int64_t at, bool bf16) {
  vec acc[24];
  float *sums = a->sums + (int64_t)row * a->lda + at;
  const float *weights = a->weights + (int64_t)row * ADCGK_KEY_BLOCK;
#pragma GCC unroll 8
  for (int i = 0; i < mr; i++) {
#pragma GCC unroll 8
    for (int c = 0; c < nv; c++) acc[i * nv + c] = v_load(sums + i * a->lda + c * LANES);
  }
  for (int64_t j = j0; j < j1; j++) {
    vec value[4];
#pragma GCC unroll 8
    for (int c = 0; c < nv; c++) value[c] = v_get(a->values, bf16, j * a->value_stride + at + c * LANES, c == nv - 1 ? last : LANES);
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) {
      const vec weight = v_set(weights[i * ADCGK_KEY_BLOCK + j]);
#pragma GCC unroll 8
      for (int c = 0; c < nv; c++) acc[i * nv + c] = v_fma(weight, value[c], acc[i * nv + c]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < mr; i++) {
#pragma GCC unroll 8
    for (int c = 0; c < nv; c++) v_store(sums + i * a->lda + c * LANES, acc[i * nv + c]);
  }
}

/* Rows and vecs of values that one pass of weigh holds in registers. */
#if SIMD_WIDTH == 16
#define WR 6
#define WV 4
#elif SIMD_WIDTH == 8
#define WR 3
#define WV 2
#elif defined(SIMD_NEON)
#define WR 3
#define WV 2
#else
#define WR 2
#define WV 1
#endif

ALWAYS void weigh_rows(int mr, const adcgk_attend *a, int row, int64_t j0, int64_t j1, bool bf16) {
  int64_t at = 0;
  for (; at + WV * LANES <= a->dv; at += WV * LANES) weigh(mr, WV, LANES, a, row, j0, j1, at, bf16);
#if WV > 2
  for (; at + 2 * LANES <= a->dv; at += 2 * LANES) weigh(mr, 2, LANES, a, row, j0, j1, at, bf16);
#endif
#if WV > 1
  for (; at + LANES <= a->dv; at += LANES) weigh(mr, 1, LANES, a, row, j0, j1, at, bf16);
#endif
  if (at < a->dv) weigh(mr, 1, (int)(a->dv - at), a, row, j0, j1, at, bf16);
}
static __attribute__((noinline)) void weigh_one(const adcgk_attend *a, int row, int64_t j0, int64_t j1) {
  if (j0 >= j1) return;
  if (a->cache_bf16)
    weigh_rows(1, a, row, j0, j1, true);
  else
    weigh_rows(1, a, row, j0, j1, false);
}
static __attribute__((noinline)) void weigh_group(const adcgk_attend *a, int row, int64_t j0, int64_t j1) {
  if (a->cache_bf16)
    weigh_rows(WR, a, row, j0, j1, true);
  else
    weigh_rows(WR, a, row, j0, j1, false);
}

/* WR rows at once over the keys that all of them see; what a row sees before and behind them it does alone. */
static void weigh_all(const adcgk_attend *a, int r0, int r1, const int64_t *from, const int64_t *to) {
  int r = r0;
  for (; r + WR <= r1; r += WR) {
    const int64_t j0 = from[r + WR - 1], j1 = to[r];
    if (j0 >= j1) {
      for (int i = r; i < r + WR; i++) weigh_one(a, i, from[i], to[i]);
      continue;
    }
    for (int i = r; i < r + WR; i++) weigh_one(a, i, from[i], j0);
    weigh_group(a, r, j0, j1);
    for (int i = r; i < r + WR; i++) weigh_one(a, i, j1, to[i]);
  }
  for (; r < r1; r++) weigh_one(a, r, from[r], to[r]);
}

static void attend(const adcgk_attend *of_all) {
  adcgk_attend here = *of_all; /* at one block */
  const adcgk_attend *a = &here;
  const int64_t end = a->end[a->rows - 1];
  for (int64_t block = a->first[0] / ADCGK_KEY_BLOCK * ADCGK_KEY_BLOCK; block < end; block += ADCGK_KEY_BLOCK) {
    /* Rows r0 .. r1-1 see something of this block: first and end rise with the row. */
    int r0 = 0, r1 = a->rows;
    while (r0 < r1 && a->end[r0] <= block) r0++;
    while (r0 < r1 && a->first[r1 - 1] >= block + ADCGK_KEY_BLOCK) r1--;
    if (r0 >= r1) continue;
    int64_t from[ADCGK_TILE_ROWS], to[ADCGK_TILE_ROWS]; /* in the block */
    for (int r = r0; r < r1; r++) {
      from[r] = a->first[r] > block ? a->first[r] - block : 0;
      to[r] = a->end[r] < block + ADCGK_KEY_BLOCK ? a->end[r] - block : ADCGK_KEY_BLOCK;
    }
    a->load(&here, block, block + to[r1 - 1]);
    scores(a, r0, r1, from, to);
    for (int r = r0; r < r1; r++) {
      if (from[r] == 0 && to[r] == ADCGK_KEY_BLOCK && a->softcap == 0.0f)
        softmax_whole(a, r);
      else
        softmax_part(a, r, from[r], to[r]);
    }
    weigh_all(a, r0, r1, from, to);
  }
}

/* ---- Products with a matrix as it lies [K, N] ------------------------------------------------------------ */

/* The sums of weighted values are one: k after k in one chain of fma. */
static void product_along(const adcgk_product *p, int64_t rows, int64_t n) {
  float weights[ADCGK_TILE_ROWS * ADCGK_KEY_BLOCK] __attribute__((aligned(64)));
  int64_t from[ADCGK_TILE_ROWS] = {0}, to[ADCGK_TILE_ROWS];
  adcgk_attend a = {.rows = (int32_t)rows,
                    .dv = (int32_t)n,
                    .lda = (int32_t)p->ldy,
                    .value_stride = p->ldw,
                    .cache_bf16 = p->w_bf16,
                    .weights = weights,
                    .sums = p->y};
  for (int64_t m = 0; m < rows; m++) {
    for (int64_t at = 0; at < n; at += LANES) v_store(a.sums + m * a.lda + at, v_zero());
  }
  for (int64_t k = 0; k < p->k; k += ADCGK_KEY_BLOCK) {
    const int64_t count = p->k - k < ADCGK_KEY_BLOCK ? p->k - k : ADCGK_KEY_BLOCK;
    for (int64_t m = 0; m < rows; m++) {
      convert(weights + m * ADCGK_KEY_BLOCK, false, element(p->x, p->x_bf16, m * p->ldx + k), p->x_bf16, count);
      to[m] = count;
    }
    a.values = element(p->w, p->w_bf16, k * p->ldw);
    weigh_all(&a, 0, (int)rows, from, to);
  }
}
