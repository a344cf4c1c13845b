/* The delta rule's recurrence for one instruction set: columns of the state lie along the lanes.
 *
 * Up to 32 columns are held in L1 over the tokens of a call. A token passes over them once: it decays and corrects a
 * row, reads it for its result, and takes the sum over keys that the next token's correction needs. All sums go over
 * the rows in order, in every lane by itself: the bits do not depend on how many columns or tokens come in one call. */

static void delta_key(float *to, const void *from, bool bf16, bool l2norm, float eps, float scale, int64_t n) {
  vec factor = v_set(1.0f);
  if (l2norm) {
    vec sum = v_zero();
    for (int64_t i = 0; i < n; i += LANES) {
      const vec x = v_get(from, bf16, i, lanes_left(i, n));
      sum = v_fma(x, x, sum);
    }
    factor = v_set(1.0f / sqrtf(v_sum(sum) + eps));
  }
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    v_put(to, false, i, left, v_mul(v_mul(v_get(from, bf16, i, left), factor), v_set(scale)));
  }
}

static void exponentials(float *y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    v_put(y, false, i, left, v_exp(v_get(x, false, i, left)));
  }
}

/* Token t, with `vecs` vecs of columns. In: sums over the rows of key[t] * S before it; out: of key[t+1] * S after it,
 * if there is a next token. Without one the state leaves the scratch for its place. */
ALWAYS void delta_token(const adcgk_delta *a, int32_t t, int64_t at, int vecs, int left, bool gated, bool next, vec *sums) {
  const int64_t size = a->bf16 ? 2 : 4;
  const float *key = a->key + t * a->ld, *query = a->query + t * a->ld;
  const vec decay = v_set(gated ? a->decay[t] : 1.0f), beta = v_set(a->beta[t]);
  vec change[2], out[2], sum[2];
#pragma GCC unroll 2
  for (int i = 0; i < vecs; i++) {
    const vec v = v_get((const char *)a->v + t * a->ldv * size, a->bf16, at + i * LANES, i == vecs - 1 ? left : LANES);
    change[i] = v_mul(beta, v_sub(v, gated ? v_mul(decay, sums[i]) : sums[i]));
    out[i] = sum[i] = v_zero();
  }
  for (int32_t r = 0; r < a->keys; r++) {
    float *row = a->scratch + r * ADCGK_SCAN_VALUES;
    const vec k = v_set(key[r]), q = v_set(query[r]), k_next = v_set(next ? key[a->ld + r] : 0.0f);
#pragma GCC unroll 2
    for (int i = 0; i < vecs; i++) {
      vec s = v_load(row + i * LANES);
      s = v_fma(k, change[i], gated ? v_mul(s, decay) : s);
      out[i] = v_fma(q, s, out[i]);
      if (next) {
        sum[i] = v_fma(k_next, s, sum[i]);
        v_store(row + i * LANES, s);
      } else {
        v_put(a->state + r * a->lds, false, at + i * LANES, i == vecs - 1 ? left : LANES, s);
      }
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < vecs; i++) {
    v_put((char *)a->out + t * a->ldo * size, a->bf16, at + i * LANES, i == vecs - 1 ? left : LANES, out[i]);
    sums[i] = sum[i];
  }
}

ALWAYS void delta_tile(const adcgk_delta *a, int64_t at, int vecs, int left, bool gated) {
  vec sums[2] = {v_zero(), v_zero()};
  for (int32_t r = 0; r < a->keys; r++) {
    const vec k = v_set(a->key[r]);
#pragma GCC unroll 2
    for (int i = 0; i < vecs; i++) {
      const vec s = v_get(a->state + r * a->lds, false, at + i * LANES, i == vecs - 1 ? left : LANES);
      sums[i] = v_fma(k, s, sums[i]);
      v_store(a->scratch + r * ADCGK_SCAN_VALUES + i * LANES, s);
    }
  }
  for (int32_t t = 0; t < a->tokens - 1; t++) delta_token(a, t, at, vecs, left, gated, true, sums);
  delta_token(a, a->tokens - 1, at, vecs, left, gated, false, sums);
}

static void delta(const adcgk_delta *a) {
  for (int64_t at = 0; at < a->values; at += ADCGK_SCAN_VALUES) {
    const bool two = a->values - at > LANES;
    const int left = lanes_left(two ? at + LANES : at, a->values);
    if (two && a->decay)
      delta_tile(a, at, 2, left, true);
    else if (two)
      delta_tile(a, at, 2, left, false);
    else
      delta_tile(a, at, 1, left, a->decay != NULL);
  }
}

static void gdn_gating(float *g, float *beta, const void *a, const void *b, bool bf16, const void *a_log, bool a_log_bf16,
                       const void *dt_bias, bool dt_bias_bf16, int64_t n) {
  const vec one = v_set(1.0f);
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    const vec rate = v_neg(v_exp(v_get(a_log, a_log_bf16, i, left)));
    v_put(g, false, i, left, v_mul(rate, v_softplus(v_add(v_get(a, bf16, i, left), v_get(dt_bias, dt_bias_bf16, i, left)))));
    v_put(beta, false, i, left, v_div(one, v_add(one, v_exp(v_neg(v_get(b, bf16, i, left))))));
  }
}
