/* adcg.linear without cuBLASLt. The sum over k is cut into parts of PART elements: a part is one chain of fmas in the order of k,
 * and parts are added one after the other. K alone decides that, so that a row has the same bits in both kernels, at any M and any
 * place. Few rows (decode) are bound by reading the weights, of which every element is read once for eight rows; many rows share
 * tiles. Both fill the last step up to STEP with zeros. */
#include "activations.h"

enum {
  PART = 128,
  STEP = 32, /* k's that are in shared memory at a time; divides PART */
  CHUNKS = STEP / CHUNK
};

/* A chunk as memory has it, on its way to shared memory. */
template <typename T>
struct raw;
template <>
struct raw<float> {
  float4 v[2];
};
template <>
struct raw<bf16> {
  uint4 v[1];
};

/* Whether x and w can be read by whole chunks; rows in pieces, odd lengths and odd addresses go the slow way. */
template <typename X>
ADCG_DEVICE bool is_whole(const adcg_linear_args &a) {
  return a.row.count == 1 && a.k % CHUNK == 0 && a.ldx * sizeof(X) % 16 == 0 && aligned(a.x) && aligned(a.w);
}

/* The chunk at element k of a row; zeros if there is none. */
template <typename T>
ADCG_DEVICE raw<T> bring(const T *row, bool there, int64_t k) {
  raw<T> r = {};
  if (there) r = *(const raw<T> *)(row + k);
  return r;
}

/* To shared memory, `pitch` floats from element to element. */
template <typename T>
ADCG_DEVICE void place(float *to, int pitch, const raw<T> &r) {
  const chunk c = load_whole((const T *)&r);
#pragma unroll
  for (int i = 0; i < CHUNK; i++) to[i * pitch] = c.v[i];
}

template <typename X>
ADCG_DEVICE void place_x(const adcg_linear_args &a, int64_t m, int64_t k, float *to, int pitch) {
  const X *x = (const X *)a.x + m * a.ldx;
#pragma unroll 1
  for (int i = 0; i < CHUNK; i++) {
    float v = 0.0f;
    if (m < a.m && k + i < a.k) {
      int64_t at;
      const int64_t run = divide(k + i, a.row.length, &at);
      v = to_float(x[adcgk_run_at(&a.row, 0, run) + at]);
    }
    to[i * pitch] = v;
  }
}
template <typename W>
ADCG_DEVICE void place_w(const adcg_linear_args &a, int64_t n, int64_t k, float *to, int pitch) {
#pragma unroll 1
  for (int i = 0; i < CHUNK; i++) to[i * pitch] = n < a.n && k + i < a.k ? to_float(((const W *)a.w)[n * a.k + k + i]) : 0.0f;
}

template <typename X>
ADCG_DEVICE void store_y(const adcg_linear_args &a, int64_t m, int64_t n, float total) {
  if (m >= a.m || n >= a.n) return;
  if (a.bias) total += number(a.bias, a.bias_bf16, n);
  put((X *)a.y + m * a.ldy + n, activation_of(a.activation, total));
}

/* ---- Few rows -------------------------------------------------------------------------------------------------- */

enum {
  WARPS = 4,
  ROWS = 8,    /* of x that a block takes at most */
  COLUMNS = 8, /* of y */
  SPLIT = 4,   /* parts that a warp has under way: lane l sums column l % COLUMNS of part l / COLUMNS */
  ROUND = WARPS * SPLIT * PART, /* k's that a block has under way */
  STRIDE = STEP + 4 /* floats from one lane's weights to the next one's: on banks of their own */
};

/* What a warp has of the weights, [part * COLUMNS + column], and of x, [row][part]. */
typedef float weights_tile[SPLIT * COLUMNS][STRIDE];
typedef float rows_tile[ROWS][SPLIT][STRIDE];

template <int rows>
ADCG_DEVICE void few_step(const float (*w)[STRIDE], const float (*x)[SPLIT][STRIDE], float *sum) {
  const int lane = (int)threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < STEP; i += 4) {
    const float4 by = *(const float4 *)&w[lane][i];
#pragma unroll
    for (int m = 0; m < rows; m++) {
      const float4 v = *(const float4 *)&x[m][lane / COLUMNS][i];
      sum[m] = fmaf(v.w, by.w, fmaf(v.z, by.z, fmaf(v.y, by.y, fmaf(v.x, by.x, sum[m]))));
    }
  }
}

/* The warp's parts, which begin at k. Whole chunks of the next step are on their way while one is summed. Lane l brings chunk
 * l % CHUNKS of column l / CHUNKS of each part, and of each second row, whose part l / CHUNKS % SPLIT is. */
template <typename X, typename W, int rows>
ADCG_DEVICE void few_parts(const adcg_linear_args &a, int64_t m0, int64_t n0, int64_t k, float (*w)[STRIDE], float (*x)[SPLIT][STRIDE],
                           float *sum) {
  const int lane = (int)threadIdx.x % 32, part = lane / CHUNKS % SPLIT, at = lane % CHUNKS * CHUNK;
  const int64_t n = n0 + lane / CHUNKS, m = m0 + lane / 16;
  const W *from_w = (const W *)a.w + n * a.k;
  const X *from_x = (const X *)a.x + m * a.ldx;
  raw<W> next[SPLIT] = {};
  raw<X> next_x[(rows + 1) / 2] = {};
  for (int step = 0; step <= PART; step += STEP) {
    if (step > 0) {
      __syncwarp();
#pragma unroll
      for (int i = 0; i < SPLIT; i++) place<W>(&w[i * COLUMNS + lane / CHUNKS][at], 1, next[i]);
#pragma unroll
      for (int i = 0; i < (rows + 1) / 2; i++) {
        if (2 * i + lane / 16 < rows) place<X>(&x[2 * i + lane / 16][part][at], 1, next_x[i]);
      }
      __syncwarp();
    }
    if (step < PART) {
      const int64_t now = k + step + at, of_x = now + part * PART;
#pragma unroll
      for (int i = 0; i < SPLIT; i++) next[i] = bring(from_w, n < a.n && now + i * PART < a.k, now + i * PART);
#pragma unroll
      for (int i = 0; i < (rows + 1) / 2; i++) next_x[i] = bring(from_x + 2 * i * a.ldx, m + 2 * i < a.m && of_x < a.k, of_x);
    }
    if (step > 0) few_step<rows>(w, x, sum);
  }
}

template <typename X, typename W>
ADCG_DEVICE void few_parts_slowly(const adcg_linear_args &a, int64_t m0, int64_t n0, int64_t k, float (*w)[STRIDE],
                                  float (*x)[SPLIT][STRIDE], float *sum) {
  const int lane = (int)threadIdx.x % 32, part = lane / CHUNKS % SPLIT, at = lane % CHUNKS * CHUNK;
  for (int step = 0; step < PART; step += STEP) {
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < SPLIT; i++)
      place_w<W>(a, n0 + lane / CHUNKS, k + i * PART + step + at, &w[i * COLUMNS + lane / CHUNKS][at], 1);
#pragma unroll 1
    for (int m = lane / 16; m < ROWS; m += 2) place_x<X>(a, m0 + m, k + part * PART + step + at, &x[m][part][at], 1);
    __syncwarp();
    few_step<ROWS>(w, x, sum);
  }
}

template <typename X, typename W, int rows, bool whole>
ADCG_DEVICE void few_rows(const adcg_linear_args &a, int64_t m0, int64_t n0, weights_tile *w, rows_tile *x, float *sums) {
  const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32;
  float total = 0.0f;
  for (int64_t round = 0; round < a.k; round += ROUND) {
    const int64_t k = round + warp * SPLIT * PART;
    float sum[rows] = {};
    if (k < a.k) {
      if constexpr (whole)
        few_parts<X, W, rows>(a, m0, n0, k, w[warp], x[warp], sum);
      else
        few_parts_slowly<X, W>(a, m0, n0, k, w[warp], x[warp], sum);
    }
#pragma unroll
    for (int m = 0; m < rows; m++) sums[((warp * SPLIT + lane / COLUMNS) * ROWS + m) * COLUMNS + lane % COLUMNS] = sum[m];
    __syncthreads();
    if (thread < rows * COLUMNS) {
      for (int p = 0; p < WARPS * SPLIT && round + p * PART < a.k; p++) total += sums[p * ROWS * COLUMNS + thread];
    }
    __syncthreads();
  }
  if (thread < rows * COLUMNS) store_y<X>(a, m0 + thread / COLUMNS, n0 + thread % COLUMNS, total);
}

/* Blocks of the same columns for all rows come one after the other: the weights that they share are in the cache. */
template <typename X, typename W>
ADCG_DEVICE void linear_rows(const adcg_linear_args &a) {
  __shared__ __align__(16) weights_tile w[WARPS];
  __shared__ __align__(16) rows_tile x[WARPS];
  __shared__ float sums[WARPS * SPLIT * ROWS * COLUMNS];
  int64_t m0;
  const int64_t n0 = divide(blockIdx.x, (a.m + ROWS - 1) / ROWS, &m0) * COLUMNS;
  m0 *= ROWS;
  if (!is_whole<X>(a))
    few_rows<X, W, ROWS, false>(a, m0, n0, w, x, sums);
  else if (a.m - m0 == 1)
    few_rows<X, W, 1, true>(a, m0, n0, w, x, sums);
  else if (a.m - m0 <= 4)
    few_rows<X, W, 4, true>(a, m0, n0, w, x, sums);
  else
    few_rows<X, W, ROWS, true>(a, m0, n0, w, x, sums);
}

/* ---- Many rows ------------------------------------------------------------------------------------------------- */

enum {
  TILE = 64, /* rows and columns of a block */
  MR = 8,    /* rows and columns of a thread */
  NR = 4,
  PITCH = TILE + 4
};

/* One step of k: row `row` of both tiles comes with this thread, every second chunk of it from `first` on. */
template <typename X, typename W, bool whole>
ADCG_DEVICE void tile(const adcg_linear_args &a, int64_t m0, int64_t n0, float (*x)[PITCH], float (*w)[PITCH]) {
  const int thread = (int)threadIdx.x, m = thread / (TILE / NR) * MR, n = thread % (TILE / NR) * NR;
  const int row = thread % TILE, first = thread / TILE;
  const X *from_x = (const X *)a.x + (m0 + row) * a.ldx;
  const W *from_w = (const W *)a.w + (n0 + row) * a.k;
  float total[MR][NR] = {}, sum[MR][NR] = {};
  raw<X> next_x[CHUNKS / 2] = {};
  raw<W> next_w[CHUNKS / 2] = {};
  for (int64_t k = whole ? -STEP : 0; k < a.k; k += STEP) {
    if (k >= 0) {
      __syncthreads();
#pragma unroll
      for (int c = 0; c < CHUNKS / 2; c++) {
        const int at = (2 * c + first) * CHUNK;
        if constexpr (whole) {
          place<X>(&x[at][row], PITCH, next_x[c]);
          place<W>(&w[at][row], PITCH, next_w[c]);
        } else {
          place_x<X>(a, m0 + row, k + at, &x[at][row], PITCH);
          place_w<W>(a, n0 + row, k + at, &w[at][row], PITCH);
        }
      }
      __syncthreads();
    }
    if constexpr (whole) {
#pragma unroll
      for (int c = 0; c < CHUNKS / 2; c++) {
        const int64_t next = k + STEP + (2 * c + first) * CHUNK;
        next_x[c] = bring(from_x, m0 + row < a.m && next < a.k, next);
        next_w[c] = bring(from_w, n0 + row < a.n && next < a.k, next);
      }
      if (k < 0) continue;
    }
#pragma unroll 8
    for (int i = 0; i < STEP; i++) {
      const float4 x1 = *(const float4 *)&x[i][m], x2 = *(const float4 *)&x[i][m + 4], by = *(const float4 *)&w[i][n];
      const float rows[MR] = {x1.x, x1.y, x1.z, x1.w, x2.x, x2.y, x2.z, x2.w}, columns[NR] = {by.x, by.y, by.z, by.w};
#pragma unroll
      for (int r = 0; r < MR; r++) {
#pragma unroll
        for (int c = 0; c < NR; c++) sum[r][c] = fmaf(rows[r], columns[c], sum[r][c]);
      }
    }
    if ((k + STEP) % PART != 0 && k + STEP < a.k) continue;
#pragma unroll
    for (int r = 0; r < MR; r++) {
#pragma unroll
      for (int c = 0; c < NR; c++) {
        total[r][c] += sum[r][c];
        sum[r][c] = 0.0f;
      }
    }
  }
#pragma unroll
  for (int r = 0; r < MR; r++) { /* by way of shared memory: the epilogue is long, and should be there once */
    __syncthreads();
#pragma unroll
    for (int c = 0; c < NR; c++) x[thread / (TILE / NR)][n + c] = total[r][c];
    __syncthreads();
#pragma unroll 1
    for (int i = thread; i < TILE / MR * TILE; i += TILE / MR * (TILE / NR))
      store_y<X>(a, m0 + i / TILE * MR + r, n0 + i % TILE, x[i / TILE][i % TILE]);
  }
}

template <typename X, typename W>
ADCG_DEVICE void linear_tile(const adcg_linear_args &a) {
  __shared__ __align__(16) float x[STEP][PITCH], w[STEP][PITCH];
  int64_t m0;
  const int64_t n0 = divide(blockIdx.x, (a.m + TILE - 1) / TILE, &m0) * TILE;
  if (is_whole<X>(a))
    tile<X, W, true>(a, m0 * TILE, n0, x, w);
  else
    tile<X, W, false>(a, m0 * TILE, n0, x, w);
}

#define LINEAR(X, W, NAME)                                                                     \
  ADCG_KERNEL(adcg_linear_rows_##NAME, adcg_linear_args, WARPS * 32) { linear_rows<X, W>(a); } \
  ADCG_KERNEL(adcg_linear_tile_##NAME, adcg_linear_args, TILE / MR * (TILE / NR)) { linear_tile<X, W>(a); }
LINEAR(float, float, f32_f32)
LINEAR(float, bf16, f32_bf16)
LINEAR(bf16, float, bf16_f32)
LINEAR(bf16, bf16, bf16_bf16)
#undef LINEAR
