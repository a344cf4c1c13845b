/* adcg.attention and adcg.paged_attention: writing the cache, attention without tensor cores for every type and head dim, and
 * putting together what split sequences have. Every query reads the cache alone, in which the step's own keys and values are already.
 * What cannot be reported from the device: a sequence that cannot be (attention.h) is passed over, a page that is none of the
 * cache's is not written and reads as zeros. */
#include "attention.h"

/* ---- Writing ------------------------------------------------------------------------------------------------------- */

/* Tokens first, chunk by chunk of k and v; then zeros into the output's rows behind the real tokens. */
ADCG_KERNEL(adcg_attention_write, adcg_attention_args, 256) {
  int64_t real = batch_tokens(a.batch);
  real = real < 0 || batch_seqs(a.batch) <= 0 ? 0 : real < a.tokens ? real : a.tokens;
  const int64_t of_k = (a.d + CHUNK - 1) / CHUNK, of_v = (a.dv + CHUNK - 1) / CHUNK, of_token = a.kv_heads * (of_k + of_v);
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = thread_of_grid(); i < real * of_token; i += step) {
    int64_t at, head;
    const int64_t token = divide(i, of_token, &at);
    const bool value = at >= a.kv_heads * of_k;
    head = divide(value ? at - a.kv_heads * of_k : at, value ? of_v : of_k, &at);
    sequence s;
    if (!take_sequence(a, find_sequence(a, token, [&](int64_t j) { return (int64_t)a.cu_seqlens[j]; }), &s)) continue;
    if (token < s.begin || token >= s.begin + s.tokens) continue; /* cu_seqlens do not rise */
    const int64_t row = cache_row(a, s, s.position + (int32_t)(token - s.begin));
    if (row < 0) continue;
    at *= CHUNK;
    const int64_t d = value ? a.dv : a.d, from = (value ? token * a.v_token + head * a.v_head : token * a.k_token + head * a.k_head) + at;
    store_cache(value ? a.v_cache : a.k_cache, a.cache, (row * a.kv_heads + head) * d + at, d - at,
                load_either(value ? a.v : a.k, a.bf16, from, from - at + d));
  }
  for (int64_t i = thread_of_grid(); i < (a.tokens - real) * a.heads * of_v; i += step) {
    int64_t at, head;
    const int64_t token = real + divide(divide(i, of_v, &at), a.heads, &head), to = token * a.out_token + head * a.out_head + at * CHUNK;
    if (a.bf16)
      store((bf16 *)a.out + to, a.dv - at * CHUNK, chunk{});
    else
      store((float *)a.out + to, a.dv - at * CHUNK, chunk{});
  }
}

/* ---- Attention without tensor cores --------------------------------------------------------------------------------- */

enum { PLAIN_WARPS = ADCG_PLAIN_THREADS / 32 };

/* The tile in shared memory. Each thread has columns of the sums for itself. */
typedef struct plain {
  float *q, *sums, *all;        /* [rows, d], [rows, dv] of the chunk and of all */
  float (*weights)[KEYS];       /* [rows] */
  float *rescale;               /* [rows] */
  softmax_state *chunk, *total; /* [rows] */
  int64_t *keys;                /* [KEYS]: rows of the cache */
  int rows;
} plain;

ADCG_DEVICE int32_t row_position(const query_tile &t, int row) { return t.position + row / t.heads; }

/* Scores of the block's keys, a thread a key: each a chain over the dims. A key that a row does not see, NaN or not, is -inf. */
ADCG_DEVICE void plain_scores(const adcg_attention_args &a, const query_tile &t, const plain &p, int32_t block) {
  const int key = (int)threadIdx.x % KEYS;
  const int64_t row = p.keys[key];
  float score[ADCG_PLAIN_ROWS / 2] = {};
  if (row >= 0) {
    for (int64_t at = 0; at < a.d; at += CHUNK) {
      const chunk k = load_cache(a.k_cache, a.cache, (row * a.kv_heads + t.kv_head) * a.d + at, a.d - at);
#pragma unroll
      for (int i = 0; i < ADCG_PLAIN_ROWS / 2; i++) {
        const int m = 2 * i + (int)threadIdx.x / KEYS;
        if (m >= p.rows) break;
#pragma unroll
        for (int j = 0; j < CHUNK; j++) score[i] = at + j < a.d ? fmaf(p.q[m * a.d + at + j], k.v[j], score[i]) : score[i];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < ADCG_PLAIN_ROWS / 2; i++) {
    const int m = 2 * i + (int)threadIdx.x / KEYS;
    if (m >= p.rows) break;
    const int32_t position = row_position(t, m);
    float s = score[i] * a.scale;
    if (a.softcap != 0.0f) s = a.softcap * tanhf(s / a.softcap);
    p.weights[m][key] = block + key <= position && block + key >= first_key(a, position) ? s : -INFINITY;
  }
}

/* Scores become weights, a warp a row. Weights of keys that are not seen are zeros. */
ADCG_DEVICE void plain_softmax(const plain &p) {
  const int lane = (int)threadIdx.x % 32;
  for (int m = (int)threadIdx.x / 32; m < p.rows; m += PLAIN_WARPS) {
    const float x = p.weights[m][lane], y = p.weights[m][lane + 32];
    float largest = fmaxf(x, y);
    for (int lanes = 16; lanes > 0; lanes /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
    const softmax_state before = p.chunk[m];
    largest = fmaxf(largest, before.largest);
    const float wx = x == -INFINITY ? 0.0f : expf(x - largest), wy = y == -INFINITY ? 0.0f : expf(y - largest);
    float total = wx + wy;
    for (int lanes = 16; lanes > 0; lanes /= 2) total += __shfl_xor_sync(0xffffffffu, total, lanes);
    p.weights[m][lane] = wx;
    p.weights[m][lane + 32] = wy;
    if (lane == 0) {
      const float rescale = before.largest == largest ? 1.0f : expf(before.largest - largest);
      p.rescale[m] = rescale;
      p.chunk[m] = {largest, fmaf(before.total, rescale, total)};
    }
    __syncwarp(); /* all lanes have read the state */
  }
}

/* Sums of weighted values, key after key; a thread has columns. A value under a weight of zero, NaN or not, is passed over. */
ADCG_DEVICE void plain_values(const adcg_attention_args &a, const query_tile &t, const plain &p, int keys) {
  for (int64_t at = threadIdx.x; at < a.dv; at += ADCG_PLAIN_THREADS) {
    float sum[ADCG_PLAIN_ROWS] = {};
#pragma unroll
    for (int m = 0; m < ADCG_PLAIN_ROWS; m++) {
      if (m < p.rows) sum[m] = p.rescale[m] == 1.0f ? p.sums[m * a.dv + at] : p.sums[m * a.dv + at] * p.rescale[m];
    }
    for (int key = 0; key < keys; key++) {
      const int64_t row = p.keys[key];
      const float v = row < 0 ? 0.0f : load_cache_one(a.v_cache, a.cache, (row * a.kv_heads + t.kv_head) * a.dv + at);
#pragma unroll
      for (int m = 0; m < ADCG_PLAIN_ROWS; m++) {
        if (m >= p.rows) break;
        const float w = p.weights[m][key];
        if (w != 0.0f) sum[m] = fmaf(w, v, sum[m]);
      }
    }
#pragma unroll
    for (int m = 0; m < ADCG_PLAIN_ROWS; m++) {
      if (m < p.rows) p.sums[m * a.dv + at] = sum[m];
    }
  }
}

/* One chunk: its state and sums, from nothing. Begins and ends with all threads together. */
ADCG_DEVICE void plain_chunk(const adcg_attention_args &a, const query_tile &t, const plain &p, int32_t number) {
  int32_t begin = number * ADCG_CHUNK_KEYS, end = begin + ADCG_CHUNK_KEYS;
  if (begin < t.first) begin = t.first / KEYS * KEYS;
  if (end > t.end) end = t.end;
  if (threadIdx.x < (uint32_t)p.rows) p.chunk[threadIdx.x] = no_keys();
  for (int64_t i = threadIdx.x; i < p.rows * a.dv; i += ADCG_PLAIN_THREADS) p.sums[i] = 0.0f;
  for (int32_t block = begin; block < end; block += KEYS) {
    const int keys = end - block < KEYS ? end - block : (int)KEYS;
    if (threadIdx.x < KEYS) p.keys[threadIdx.x] = (int)threadIdx.x < keys ? cache_row(a, t.seq, block + (int32_t)threadIdx.x) : -1;
    __syncthreads();
    plain_scores(a, t, p, block);
    __syncthreads();
    plain_softmax(p);
    __syncthreads();
    plain_values(a, t, p, keys);
    __syncthreads();
  }
}

ADCG_DEVICE void plain_store(const adcg_attention_args &a, const query_tile &t, const plain &p) {
  for (int m = 0; m < p.rows; m++) {
    const int64_t token = t.token + m / t.heads, head = t.head + m % t.heads;
    for (int64_t at = threadIdx.x; at < a.dv; at += ADCG_PLAIN_THREADS) {
      const float x = p.all[m * a.dv + at] / p.total[m].total;
      if (a.bf16)
        put(output_row<bf16>(a, t.seq, token, head) + at, x);
      else
        put(output_row<float>(a, t.seq, token, head) + at, x);
    }
  }
}

ADCG_KERNEL(adcg_attention_plain, adcg_attention_args, ADCG_PLAIN_THREADS) {
  ADCG_SHARED(float, room);
  __shared__ float weights[ADCG_PLAIN_ROWS][KEYS];
  __shared__ float rescale[ADCG_PLAIN_ROWS];
  __shared__ softmax_state chunk_states[ADCG_PLAIN_ROWS], totals[ADCG_PLAIN_ROWS];
  __shared__ int64_t keys[KEYS];
  query_tile t;
  if (!take_tile(a, &t)) return;
  plain p = {room, nullptr, nullptr, weights, rescale, chunk_states, totals, keys, (int)(t.tokens * t.heads)};
  p.sums = p.q + p.rows * a.d;
  p.all = p.sums + p.rows * a.dv;
  for (int64_t i = threadIdx.x; i < p.rows * a.d; i += ADCG_PLAIN_THREADS) {
    int64_t at;
    const int64_t m = divide(i, a.d, &at), token = t.seq.begin + t.token + m / t.heads, head = t.head + m % t.heads;
    p.q[i] = number(a.q, a.bf16, token * a.q_token + head * a.q_head + at);
  }
  if (!a.split) {
    for (int64_t i = threadIdx.x; i < p.rows * a.dv; i += ADCG_PLAIN_THREADS) p.all[i] = 0.0f;
    if (threadIdx.x < (uint32_t)p.rows) totals[threadIdx.x] = sink_state(a, t.head + threadIdx.x % t.heads);
  }
  for (int32_t number = t.chunk; number < t.chunks; number += t.step) {
    plain_chunk(a, t, p, number);
    for (int m = 0; m < p.rows; m++) {
      const int64_t result = a.split ? result_of(a, t.seq, number, m / t.heads, t.head + m % t.heads) : 0;
      softmax_state total = totals[m];
      const fold f = a.split ? fold{} : fold_state(a.base2, &total, chunk_states[m]);
      for (int64_t at = threadIdx.x; at < a.dv; at += ADCG_PLAIN_THREADS) {
        if (a.split)
          a.sums[result * a.dv + at] = p.sums[m * a.dv + at];
        else
          p.all[m * a.dv + at] = fold_sum(f, p.all[m * a.dv + at], p.sums[m * a.dv + at]);
      }
      if (a.split && threadIdx.x == 0) ((softmax_state *)a.states)[result] = chunk_states[m];
    }
    __syncthreads();
    if (!a.split && threadIdx.x < (uint32_t)p.rows) fold_state(a.base2, &totals[threadIdx.x], chunk_states[threadIdx.x]);
    __syncthreads();
  }
  if (!a.split) plain_store(a, t, p);
}

/* ---- Split sequences -------------------------------------------------------------------------------------------------- */

enum { AHEAD = 8 }; /* chunks whose results a thread loads at a time */

/* Folds the chunks of a token and head, a thread a column; a warp has 32 of them. */
template <typename T>
ADCG_DEVICE void combine(const adcg_attention_args &a) {
  int64_t head, token, part;
  const int64_t row = divide(thread_of_grid() / 32, (a.dv + 31) / 32, &part), at = part * 32 + threadIdx.x % 32;
  const int64_t s = divide(divide(row, a.heads, &head), a.split_tokens, &token);
  sequence q;
  if (s >= a.seqs || s >= batch_seqs(a.batch) || !take_sequence(a, s, &q) || q.tokens > a.split_tokens || token >= q.tokens) return;
  if (at >= a.dv) return;
  const int32_t position = q.position + (int32_t)token, first = first_key(a, position) / ADCG_CHUNK_KEYS;
  const int32_t count = position / ADCG_CHUNK_KEYS - first + 1;
  const int64_t step = a.split_tokens * a.heads, begin = result_of(a, q, first, token, head);
  softmax_state total = sink_state(a, head);
  float sum = 0.0f;
  for (int32_t i = 0; i < count; i += AHEAD) {
    softmax_state states[AHEAD];
    float sums[AHEAD];
#pragma unroll
    for (int j = 0; j < AHEAD; j++) {
      const int64_t result = begin + (i + j < count ? i + j : count - 1) * step;
      states[j] = ((const softmax_state *)a.states)[result];
      sums[j] = a.sums[result * a.dv + at];
    }
#pragma unroll
    for (int j = 0; j < AHEAD; j++) {
      if (i + j < count) sum = fold_sum(fold_state(a.base2, &total, states[j]), sum, sums[j]);
    }
  }
  put(output_row<T>(a, q, token, head) + at, sum / total.total);
}

ADCG_KERNEL(adcg_attention_combine_f32, adcg_attention_args, 128) { combine<float>(a); }
ADCG_KERNEL(adcg_attention_combine_bf16, adcg_attention_args, 128) { combine<bf16>(a); }
