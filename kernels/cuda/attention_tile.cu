/* Tiles of queries: keys and values of a block in turns in shared memory. */
#include "attention_cores.h"

enum { TILE_THREADS = ADCG_TILE_ROWS * 2 };

template <int D>
struct stage {
  uint4 keys[KEYS * D / 8], values[KEYS * D / 8];
  int64_t rows[2][KEYS]; /* of the cache, of this block and of the next one; -1: zeros */
};

/* A tile whose warps have 16 rows each, and all that belongs to them in registers. Keys of the next block come while values are
 * weighed, values while scores are worked out. */
template <int D, typename C>
ADCG_DEVICE void attend(const adcg_attention_args &a) {
  __shared__ __align__(16) stage<D> s;
  query_tile t;
  if (!take_tile(a, &t)) return;
  lane_rows<D> r;
  uint32_t q[D / 16][4];
  float all[D / 8][4] = {};
  softmax_state total[2];
  take_rows(t, (int)threadIdx.x / 32 * 16, &r);
  load_queries<D>(a, t, r, q);
#pragma unroll
  for (int half = 0; half < 2; half++) total[half] = r.position[half] < 0 ? no_keys() : sink_state(a, t.head + r.row[half] % t.heads);
  int which = 0;
  int32_t block = first_block(t, t.chunk);
  find_rows<D>(a, t, s.rows[which], block);
  __syncthreads();
  bring_block<D, C, TILE_THREADS>(a.k_cache, s.keys, s.rows[which]);
  start_chunk(&r);
  for (; block < t.end; block += KEYS, which ^= 1) {
    const bool seen = r.high >= 0 && block <= r.high && block + KEYS > first_key(a, r.low), last = block + KEYS >= t.end;
    uint32_t weights[KEYS / 16][4];
    wait_for_copies();
    __syncthreads(); /* the keys are there, and nobody reads the last values any more */
    bring_block<D, C, TILE_THREADS>(a.v_cache, s.values, s.rows[which]);
    if (!last) find_rows<D>(a, t, s.rows[which ^ 1], block + KEYS);
    if (seen) {
      float scores[KEYS / 8][4];
      score_block<D>(q, s.keys, scores);
      weigh_block(a, &r, block, scores, weights);
    }
    wait_for_copies();
    __syncthreads(); /* the values are there, and nobody reads the keys any more */
    const bool taken_out = is_masked(a, t, block) && take_out<D>(s.values);
    if (!last) bring_block<D, C, TILE_THREADS>(a.k_cache, s.keys, s.rows[which ^ 1]);
    if (seen) sum_block(&r, s.values, weights);
    if (taken_out) add_taken_out<D, C>(a, &r, 0, s.values, s.rows[which], block);
    if (!last && (block + KEYS) % ADCG_CHUNK_KEYS != 0) continue;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const fold f = fold_state(1, &total[half], chunk_state(r, half));
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        all[n][2 * half] = fold_sum(f, all[n][2 * half], r.sums[n][2 * half]);
        all[n][2 * half + 1] = fold_sum(f, all[n][2 * half + 1], r.sums[n][2 * half + 1]);
      }
    }
    start_chunk(&r);
  }
  store_rows(a, t, r, total, all);
}

ADCG_KERNEL(adcg_attention_tile_64_bf16, adcg_attention_args, TILE_THREADS) { attend<64, bf16>(a); }
ADCG_KERNEL(adcg_attention_tile_64_fp8, adcg_attention_args, TILE_THREADS) { attend<64, fp8>(a); }
ADCG_KERNEL(adcg_attention_tile_128_bf16, adcg_attention_args, TILE_THREADS) { attend<128, bf16>(a); }
ADCG_KERNEL(adcg_attention_tile_128_fp8, adcg_attention_args, TILE_THREADS) { attend<128, fp8>(a); }
