/* Few queries over many keys: the chunks of a sequence go to blocks of threads of their own. */
#include "attention_cores.h"

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
                             lane_rows<D / SPLIT_WARPS> *r) {
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int32_t start = number * ADCG_CHUNK_KEYS;
  const int begin = (first_block(t, number) - start) / KEYS;
  const int end = t.end - start >= ADCG_CHUNK_KEYS ? SPLIT_WARPS : (t.end - start + KEYS - 1) / KEYS;
  find_rows<D>(a, t, s->rows[begin], start + begin * KEYS, (end - begin) * KEYS);
  __syncthreads();
  for (int j = begin; j < end; j++) bring_block<D, C, SPLIT_THREADS>(a.k_cache, s->blocks[j], s->rows[j]);
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
  for (int j = begin; j < end; j++) bring_block<D, C, SPLIT_THREADS>(a.v_cache, s->blocks[j], s->rows[j]);
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
  const int place = values_place();
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
        load_matrices_turned(b, s->blocks[j], unit_from<KEYS>(place, 16 * i, 2 * (warp * (D / SPLIT_WARPS / 16) + n)));
        multiply(r->sums[2 * n], weights, b[0], b[1]);
        multiply(r->sums[2 * n + 1], weights, b[2], b[3]);
      }
    }
    if (taken_out) add_taken_out<D, C>(a, r, warp * (D / SPLIT_WARPS / 16), s->blocks[j], s->rows[j], start + j * KEYS);
  }
}

template <int D, typename C>
ADCG_DEVICE void attend_split(const adcg_attention_args &a, split_stage<D> *s) {
  query_tile t;
  if (!take_tile(a, &t)) return;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  lane_rows<D / SPLIT_WARPS> r;
  uint32_t q[D / 16][4];
  take_rows(t, 0, &r);
  load_queries<D>(a, t, r, q);
  for (int32_t number = t.chunk; number < t.chunks; number += t.step) {
    split_chunk<D, C>(a, t, q, s, number, &r);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const softmax_state state = chunk_state(r, half);
      if (r.position[half] < 0) continue;
      const int64_t result = result_of(a, t.seq, number, r.row[half] / t.heads, t.head + r.row[half] % t.heads);
      if (lane % 4 == 0 && warp == 0) ((softmax_state *)a.states)[result] = state;
      float *to = a.sums + result * D + warp * (D / SPLIT_WARPS) + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < D / SPLIT_WARPS / 8; n++) *(float2 *)(to + n * 8) = {r.sums[n][2 * half], r.sums[n][2 * half + 1]};
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
