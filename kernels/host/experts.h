/* Kernels of mixtures of experts, for one instruction set: a router's scores, activations, the weighted sum. */

/* Lanes of the softmax sum up apart, vec after vec, then by v_sum's tree. */
static void router_scores(float *to, const void *logits, bool bf16, bool softmax, int64_t n) {
  const vec one = v_set(1.0f);
  if (!softmax) {
    for (int64_t i = 0; i < n; i += LANES) {
      const int left = lanes_left(i, n);
      v_put(to, false, i, left, v_div(one, v_add(one, v_exp(v_neg(v_get(logits, bf16, i, left))))));
    }
    return;
  }
  vec largest = v_set(-INFINITY), sum = v_zero();
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    const vec x = v_get(logits, bf16, i, left);
    largest = v_max(largest, v_select(iv_greater(iv_set(left), iv_lanes()), x, largest));
  }
  const vec shift = v_set(v_max_lane(largest));
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    const vec e = v_exp(v_sub(v_get(logits, bf16, i, left), shift));
    v_put(to, false, i, left, e);
    sum = v_add(sum, v_select(iv_greater(iv_set(left), iv_lanes()), e, v_zero()));
  }
  divide(to, false, to, v_sum(sum), n);
}

ALWAYS void activate_as(void *to, bool bf16, int64_t first, const float *gate, const float *up, adcgk_activation activation, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    vec v = v_activation(activation, v_get(gate, false, i, left));
    if (up) v = v_mul(v, v_get(up, false, i, left));
    v_put(to, bf16, first + i, left, v);
  }
}
static void activate(void *to, bool to_bf16, int64_t first, const float *gate, const float *up, adcgk_activation activation, int64_t n) {
  switch (activation) {
    case ADCGK_SILU: activate_as(to, to_bf16, first, gate, up, ADCGK_SILU, n); break;
    case ADCGK_GELU_TANH: activate_as(to, to_bf16, first, gate, up, ADCGK_GELU_TANH, n); break;
    case ADCGK_RELU2: activate_as(to, to_bf16, first, gate, up, ADCGK_RELU2, n); break;
    default: break;
  }
}

static void accumulate(float *sums, const float *x, float weight, int64_t n) {
  const vec w = v_set(weight);
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    v_put(sums, false, i, left, v_fma(w, v_get(x, false, i, left), v_get(sums, false, i, left)));
  }
}
