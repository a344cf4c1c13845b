/* Wide tiles, for devices whose blocks of threads may have most of the shared memory. */
#include "attention_cores.h"

/* A tile of more rows, whose blocks of keys and values come while the ones before are worked with: a barrier a block, between which
 * warpgroups go at their own pace, so that one multiplies while another weighs. The queries and the sums of all chunks lie in shared
 * memory. */
enum { WIDE_THREADS = 2 * ADCG_WIDE_ROWS };

template <int D>
struct wide_stage {
  uint4 queries[ADCG_WIDE_ROWS * D / 8];
  uint4 keys[2][KEYS * D / 8], values[2][KEYS * D / 8]; /* from multiples of 1,024 bytes on, as the queries */
  float4 all[D / 8][WIDE_THREADS];                      /* a thread's, as it has its sums */
  int64_t rows[3][KEYS];                                /* of this block, of the next and of the one behind it */
};
static_assert(sizeof(wide_stage<128>) <= ADCG_WIDE_BYTES, "the launch asks for so much");

template <int D>
ADCG_DEVICE void load_wide_queries(const adcg_attention_args &a, const query_tile &t, uint4 *to) {
  for (int i = (int)threadIdx.x; i < ADCG_WIDE_ROWS * D / 8; i += WIDE_THREADS) {
    const int row = i / (D / 8), unit = i % (D / 8);
    chunk c = {};
    if (row < t.tokens * t.heads) c = load(query_row(a, t, row) + unit * 8, CHUNK);
    store_whole((bf16 *)(to + unit_at<ADCG_WIDE_ROWS>(row, unit)), c);
  }
}

#ifdef ADCG_WARPGROUPS
template <int D>
ADCG_DEVICE void score_wide(const uint4 *queries, const uint4 *keys, float (*scores)[4]) {
  const int warpgroup = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); /* the same for all lanes, as the compiler sees */
  const uint64_t q = operand_at(queries, 1) + (uint64_t)(warpgroup * 64 * 8), k = operand_at(keys, 1);
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
  begin_products();
#pragma unroll
  for (int i = 0; i < D / 16; i++) multiply_later(scores, q + unit_from<ADCG_WIDE_ROWS>(0, 0, 2 * i), k + unit_from<KEYS>(0, 0, 2 * i));
  end_products();
  wait_for_products(scores);
}

template <int D>
ADCG_DEVICE void sum_wide(lane_rows<D> *r, const uint4 *values, const uint32_t (*weights)[4]) {
  const uint64_t v = operand_at(values, KEYS * 8);
  begin_products();
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++) multiply_wide_later(r->sums, weights[i], v + unit_from<KEYS>(0, 16 * i, 0));
  end_products();
  wait_for_products(r->sums);
  wait_for_products(r->sums + 8);
}
#else
template <int D>
ADCG_DEVICE void score_wide(const uint4 *queries, const uint4 *keys, float (*scores)[4]) {
  const int lane = (int)threadIdx.x % 32, place = anew(unit_at<ADCG_WIDE_ROWS>((int)threadIdx.x / 32 * 16 + lane % 16, lane / 16));
  uint32_t q[D / 16][4];
#pragma unroll
  for (int i = 0; i < D / 16; i++) load_matrices(q[i], queries, unit_from<ADCG_WIDE_ROWS>(place, 0, 2 * i));
  score_block<D>(q, keys, scores);
}

template <int D>
ADCG_DEVICE void sum_wide(lane_rows<D> *r, const uint4 *values, const uint32_t (*weights)[4]) {
  sum_block(r, values, weights);
}
#endif

template <int D, typename C>
ADCG_DEVICE void attend_wide(const adcg_attention_args &a, wide_stage<D> *s) {
  query_tile t;
  if (!take_tile(a, &t)) return;
  lane_rows<D> r;
  softmax_state total[2];
  take_rows(t, (int)threadIdx.x / 32 * 16, &r);
#pragma unroll
  for (int half = 0; half < 2; half++) total[half] = r.position[half] < 0 ? no_keys() : sink_state(a, t.head + r.row[half] % t.heads);
  for (int n = 0; n < D / 8; n++) s->all[n][threadIdx.x] = {0.0f, 0.0f, 0.0f, 0.0f};
  load_wide_queries<D>(a, t, s->queries);
  /* The four warps of a warpgroup go together: what its first and last row see. */
  const int begin = (int)threadIdx.x / 128 * 64, rows = t.tokens * t.heads;
  const int32_t low = t.position + begin / t.heads;
  const int32_t high = begin < rows ? t.position + (begin + 63 < rows ? begin + 63 : rows - 1) / t.heads : -1;
  int32_t block = first_block(t, t.chunk);
  find_rows<D>(a, t, s->rows[0], block);
  find_rows<D>(a, t, s->rows[1], block + KEYS);
  __syncthreads();
  bring_block<D, C, WIDE_THREADS>(a.k_cache, s->keys[0], s->rows[0]);
  bring_block<D, C, WIDE_THREADS>(a.v_cache, s->values[0], s->rows[0]);
  start_chunk(&r);
  int which = 0, found = 0; /* of two blocks and of three lists of rows, this block's */
  for (; block < t.end; block += KEYS, which ^= 1) {
    const bool seen = block <= high && block + KEYS > first_key(a, low), last = block + KEYS >= t.end;
    const int next = found == 2 ? 0 : found + 1, behind = next == 2 ? 0 : next + 1;
    wait_for_copies();
    publish();
    __syncthreads(); /* the block is there, and nobody reads the one before any more */
    const bool taken_out = is_masked(a, t, block) && take_out<D>(s->values[which]);
    if (!last) {
      bring_block<D, C, WIDE_THREADS>(a.k_cache, s->keys[which ^ 1], s->rows[next]);
      bring_block<D, C, WIDE_THREADS>(a.v_cache, s->values[which ^ 1], s->rows[next]);
      find_rows<D>(a, t, s->rows[behind], block + 2 * KEYS);
    }
    if (seen) {
      float scores[KEYS / 8][4];
      uint32_t weights[KEYS / 16][4];
      score_wide<D>(s->queries, s->keys[which], scores);
      weigh_block(a, &r, block, scores, weights);
      sum_wide(&r, s->values[which], weights);
    }
    if (taken_out) add_taken_out<D, C>(a, &r, 0, s->values[which], s->rows[found], block);
    found = next;
    if (!last && (block + KEYS) % ADCG_CHUNK_KEYS != 0) continue;
    const fold f[2] = {fold_state(1, &total[0], chunk_state(r, 0)), fold_state(1, &total[1], chunk_state(r, 1))};
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      float4 *to = &s->all[n][threadIdx.x];
      const float *sums = r.sums[n];
      *to = {fold_sum(f[0], to->x, sums[0]), fold_sum(f[0], to->y, sums[1]), fold_sum(f[1], to->z, sums[2]),
             fold_sum(f[1], to->w, sums[3])};
    }
    start_chunk(&r);
  }
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    const float4 sum = s->all[n][threadIdx.x];
    float *to = r.sums[n];
    to[0] = sum.x, to[1] = sum.y, to[2] = sum.z, to[3] = sum.w;
  }
  store_rows(a, t, r, total, r.sums);
}

ADCG_KERNEL(adcg_attention_wide_128_bf16, adcg_attention_args, WIDE_THREADS) {
  ADCG_SHARED(wide_stage<128>, room);
  attend_wide<128, bf16>(a, room);
}
ADCG_KERNEL(adcg_attention_wide_128_fp8, adcg_attention_args, WIDE_THREADS) {
  ADCG_SHARED(wide_stage<128>, room);
  attend_wide<128, fp8>(a, room);
}
