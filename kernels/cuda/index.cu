/* Ops on indices: embedding, gather_tokens, argmax, attention_metadata, paged_metadata. A kernel cannot report an index that is
 * out of range; each says what comes of it. */
#include "rows.h"

/* An index out of range gives a row of zeros, and so has gather_tokens behind the real sequences. */
template <typename To, typename From>
ADCG_DEVICE void take(const adcg_take_args &a) {
  const int64_t length = a.runs.length;
  int64_t at, run;
  const int64_t row = divide(divide(thread_of_grid(), (length + CHUNK - 1) / CHUNK, &at), a.runs.count, &run);
  if (row >= a.rows) return;
  at *= CHUNK;
  int64_t from = -1, end = a.x_rows;
  if (a.batch) {
    const int64_t tokens = batch_tokens(a.batch);
    end = tokens < end ? tokens : end;
  }
  if (!a.batch || row < batch_seqs(a.batch)) from = a.index[row];
  chunk x = {};
  if (from >= 0 && from < end) x = load((const From *)a.x + from * a.x_stride + adcgk_run_at(&a.runs, 1, run) + at, length - at);
  store((To *)a.y + row * a.y_stride + adcgk_run_at(&a.runs, 0, run) + at, length - at, x);
}

ADCG_KERNEL(adcg_take_f32_f32, adcg_take_args, 256) { take<float, float>(a); }
ADCG_KERNEL(adcg_take_bf16_bf16, adcg_take_args, 256) { take<bf16, bf16>(a); }
ADCG_KERNEL(adcg_take_f32_bf16, adcg_take_args, 256) { take<bf16, float>(a); }
ADCG_KERNEL(adcg_take_bf16_f32, adcg_take_args, 256) { take<float, bf16>(a); }

/* Whether (x, i) comes before (y, j): NaN is larger than all, and of equals the lower index counts. */
ADCG_DEVICE bool before(float x, int64_t i, float y, int64_t j) {
  const bool nan = x != x, other = y != y;
  if (nan || other) return nan && (!other || i < j);
  return x > y || (x == y && i < j);
}

/* A block a row. */
template <typename T>
ADCG_DEVICE void argmax(const adcg_argmax_args &a) {
  const T *x = (const T *)a.x + blockIdx.x * a.stride;
  float best = -INFINITY;
  int64_t index = a.n; /* behind all */
  for (int64_t at = threadIdx.x * CHUNK; at < a.n; at += (int64_t)blockDim.x * CHUNK) {
    const chunk c = load(x + at, a.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
      if (at + i < a.n && before(c.v[i], at + i, best, index)) {
        best = c.v[i];
        index = at + i;
      }
    }
  }
  __shared__ float values[32];
  __shared__ int64_t indices[32];
  for (int round = 0; round < 2; round++) { /* in warps, then the first warp over the others */
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const float y = __shfl_xor_sync(0xffffffffu, best, lanes);
      const int64_t j = ((int64_t)__shfl_xor_sync(0xffffffffu, (int32_t)(index >> 32), lanes) << 32) |
                        (uint32_t)__shfl_xor_sync(0xffffffffu, (int32_t)index, lanes);
      if (before(y, j, best, index)) {
        best = y;
        index = j;
      }
    }
    if (round == 1) break;
    if (threadIdx.x % 32 == 0) {
      values[threadIdx.x / 32] = best;
      indices[threadIdx.x / 32] = index;
    }
    __syncthreads();
    if (threadIdx.x >= 32) return;
    const bool there = threadIdx.x < blockDim.x / 32;
    best = there ? values[threadIdx.x] : -INFINITY;
    index = there ? indices[threadIdx.x] : a.n;
  }
  if (threadIdx.x == 0) a.y[blockIdx.x] = (int32_t)index;
}

ADCG_KERNEL(adcg_argmax_f32, adcg_argmax_args, 1024) { argmax<float>(a); }
ADCG_KERNEL(adcg_argmax_bf16, adcg_argmax_args, 1024) { argmax<bf16>(a); }

/* A thread a token finds its sequence by bisection. Whatever cu_seqlens holds, the sequence is a real one; without any, and
 * behind the real tokens, both outputs are zero. */
ADCG_KERNEL(adcg_attention_metadata, adcg_attention_metadata_args, 256) {
  const int64_t token = thread_of_grid();
  if (token >= a.tokens) return;
  const int64_t seqs = batch_seqs(a.batch);
  int32_t sequence = 0, position = 0;
  if (seqs > 0 && token < batch_tokens(a.batch)) {
    int64_t low = 0, high = seqs - 1; /* the last sequence that does not begin behind the token */
    while (low < high) {
      const int64_t middle = (low + high + 1) / 2;
      if (a.cu_seqlens[middle] <= token)
        low = middle;
      else
        high = middle - 1;
    }
    sequence = (int32_t)low;
    position = (int32_t)((uint32_t)a.input_pos[low] + (uint32_t)token - (uint32_t)a.cu_seqlens[low]);
  }
  a.batch_indices[token] = sequence;
  a.positions[token] = position;
}

/* A thread an entry. Pages that lie outside cache_loc are zero, as those behind a sequence's last and behind the sequences. */
ADCG_KERNEL(adcg_paged_metadata, adcg_paged_metadata_args, 256) {
  int64_t page;
  const int64_t sequence = divide(thread_of_grid(), a.most, &page);
  if (sequence >= a.seqs) return;
  int32_t found = 0;
  if (sequence < batch_seqs(a.batch)) {
    const int64_t at = a.cu_num_pages[sequence] + page;
    if (at >= 0 && at < a.cu_num_pages[sequence + 1] && at < a.pages) found = a.cache_loc[at];
  }
  a.block_tables[sequence * a.most + page] = found;
}
