/* Mamba-2's recurrence for one instruction set: a row of the state lies along the lanes.
 *
 * A tile of a row stays in registers over the tokens of a call: a multiplication and two fmas for each element and
 * token, with one load of b and one of c. Lane l of a token's sum takes elements l, l + 16, .. in order, then the lanes
 * meet in the tree: the bits do not depend on the tile or on how many tokens come in one call. */

/* Vecs of a row that one tile holds: half of the registers. */
#define SSM_VECS (SIMD_WIDTH == 16 ? 8 : 4)

static void ssm_steps(float *step, float *decay, const float *dt, float bias, float a, bool softplus, float low, float high) {
  vec d = v_add(v_load(dt), v_set(bias));
  if (softplus) d = v_softplus(d);
  d = v_min(v_set(high), v_max(v_set(low), d));
  v_store(step, d);
  v_store(decay, v_exp(v_mul(d, v_set(a))));
}

/* `vecs` vecs of one row from element `at` on, over all tokens; the last of them has `left` elements. */
ALWAYS void ssm_tile(const adcgk_ssm *a, const float *input, float *state, int64_t at, int vecs, int left, vec *sums) {
  vec s[SSM_VECS];
#pragma GCC unroll 8
  for (int i = 0; i < vecs; i++) s[i] = v_get(state, false, at + i * LANES, i == vecs - 1 ? left : LANES);
  for (int32_t t = 0; t < a->tokens; t++) {
    const float *b = a->b + t * a->ld + at, *c = a->c + t * a->ld + at;
    const vec decay = v_set(a->decay[t]), x = v_set(input[t * LANES]);
    vec sum = sums[t];
#pragma GCC unroll 8
    for (int i = 0; i < vecs; i++) {
      s[i] = v_fma(x, v_load(b + i * LANES), v_mul(s[i], decay));
      sum = v_fma(s[i], v_load(c + i * LANES), sum);
    }
    sums[t] = sum;
  }
#pragma GCC unroll 8
  for (int i = 0; i < vecs; i++) v_put(state, false, at + i * LANES, i == vecs - 1 ? left : LANES, s[i]);
}

static void ssm(const adcgk_ssm *a) {
  float inputs[ADCGK_SCAN_TOKENS][LANES]; /* step * x, rows in the lanes */
  float y[ADCGK_SCAN_TOKENS][LANES];
  vec sums[ADCGK_SCAN_TOKENS];
  const int64_t size = a->bf16 ? 2 : 4;
  for (int32_t t = 0; t < a->tokens; t++)
    v_store(inputs[t], v_mul(v_set(a->step[t]), v_get((const char *)a->x + t * a->ldx * size, a->bf16, 0, a->rows)));
  for (int32_t r = 0; r < a->rows; r++) {
    float *state = a->state + r * a->n;
    for (int32_t t = 0; t < ADCGK_SCAN_TOKENS; t++) sums[t] = v_zero();
    for (int64_t at = 0; at < a->n;) {
      const int64_t vecs = (a->n - at + LANES - 1) / LANES;
      const int take = vecs >= SSM_VECS ? SSM_VECS : vecs >= 4 ? 4 : vecs >= 2 ? 2 : 1;
      const int left = lanes_left(at + (take - 1) * LANES, a->n);
      if (take == SSM_VECS)
        ssm_tile(a, &inputs[0][r], state, at, SSM_VECS, left, sums);
      else if (take == 4)
        ssm_tile(a, &inputs[0][r], state, at, 4, left, sums);
      else if (take == 2)
        ssm_tile(a, &inputs[0][r], state, at, 2, left, sums);
      else
        ssm_tile(a, &inputs[0][r], state, at, 1, left, sums);
      at += take * LANES;
    }
    if (a->tokens == ADCGK_SCAN_TOKENS) {
      float row[LANES];
      v_sum16(sums, row);
      for (int t = 0; t < LANES; t++) y[t][r] = row[t];
    } else {
      for (int32_t t = 0; t < a->tokens; t++) y[t][r] = v_sum(sums[t]);
    }
  }
  for (int32_t t = 0; t < a->tokens; t++) {
    const vec x = v_get((const char *)a->x + t * a->ldx * size, a->bf16, 0, a->rows);
    const vec sum = v_load_part(y[t], a->rows);
    v_put((char *)a->y + t * a->ldy * size, a->bf16, 0, a->rows, v_fma(v_set(a->skip), x, sum));
  }
}
