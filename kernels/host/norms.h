/* Norms and softmax of single rows, for one instruction set. Sums over a row are in 4 x 16 lanes, group g of 16 taking every
 * fourth 16 elements, then (0 + 1) + (2 + 3), then the tree. */
#define SUM_LANES(SUM, VALUE)                                         \
  do {                                                                \
    int64_t at = 0;                                                   \
    for (; at + 4 * LANES <= n; at += 4 * LANES) {                    \
      _Pragma("GCC unroll 4") for (int g = 0; g < 4; g++) {           \
        const int64_t i = at + g * LANES;                             \
        const int left = LANES;                                       \
        VALUE                                                         \
      }                                                               \
    }                                                                 \
    _Pragma("GCC unroll 4") for (int g = 0; g < 4; g++) {             \
      const int64_t i = at + g * LANES;                               \
      if (i < n) {                                                    \
        const int left = lanes_left(i, n);                            \
        VALUE                                                         \
      }                                                               \
    }                                                                 \
    SUM = v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]))); \
  } while (0)

/* What is normed: x, or x * silu(z) if the gate comes before. */
ALWAYS vec normed_x(const void *x, const void *z, bool bf16, int32_t gate, int64_t i, int left) {
  const vec v = v_get(x, bf16, i, left);
  return gate == ADCGK_GATE_BEFORE ? v_mul(v, v_silu(v_get(z, bf16, i, left))) : v;
}

/* In bf16 the normed value is rounded before a plain weight is multiplied, and that product before the gate that comes
 * after, as the models do it; a weight that counts as 1 + weight is multiplied in f32, as they do that. */
ALWAYS void rms_norm_of(void *y, const void *x, const void *z, const adcgk_norm *p, bool bf16, int32_t gate) {
  const int64_t n = p->n;
  vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
  float squares;
  SUM_LANES(squares, const vec v = normed_x(x, z, bf16, gate, i, left); sum[g] = v_fma(v, v, sum[g]););
  const float mean = squares / (float)n;
  const vec scale_of_row = v_set(1.0f / sqrtf(mean + p->eps));
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    vec v = v_mul(normed_x(x, z, bf16, gate, i, left), scale_of_row), w = v_get(p->weight, p->weight_bf16, i, left);
    if (p->one_plus)
      w = v_add(v_set(1.0f), w);
    else if (bf16)
      v = v_round_bf16(v);
    v = v_mul(v, w);
    if (gate == ADCGK_GATE_AFTER) {
      if (bf16 && !p->one_plus) v = v_round_bf16(v);
      v = v_mul(v, v_silu(v_get(z, bf16, i, left)));
    }
    v_put(y, bf16, i, left, v);
  }
}
static void rms_norm(void *y, const void *x, const void *z, const adcgk_norm *p) {
  switch (p->gate * 2 + p->bf16) {
    case ADCGK_GATE_NONE * 2: rms_norm_of(y, x, z, p, false, ADCGK_GATE_NONE); break;
    case ADCGK_GATE_NONE * 2 + 1: rms_norm_of(y, x, z, p, true, ADCGK_GATE_NONE); break;
    case ADCGK_GATE_BEFORE * 2: rms_norm_of(y, x, z, p, false, ADCGK_GATE_BEFORE); break;
    case ADCGK_GATE_BEFORE * 2 + 1: rms_norm_of(y, x, z, p, true, ADCGK_GATE_BEFORE); break;
    case ADCGK_GATE_AFTER * 2: rms_norm_of(y, x, z, p, false, ADCGK_GATE_AFTER); break;
    default: rms_norm_of(y, x, z, p, true, ADCGK_GATE_AFTER); break;
  }
}

/* The first n lanes of x, and `otherwise` in the others. */
ALWAYS vec v_first(vec x, int n, float otherwise) {
  return n == LANES ? x : v_select(iv_greater(iv_set(n), iv_lanes()), x, v_set(otherwise));
}

/* The variance is summed from differences to the mean, in a second pass: a mean far from zero costs no bits. */
ALWAYS void layer_norm_of(void *y, const void *x, const adcgk_norm *p, bool bf16) {
  const int64_t n = p->n;
  vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
  float total, squares;
  SUM_LANES(total, sum[g] = v_add(v_get(x, bf16, i, left), sum[g]););
  const vec mean = v_set(total / (float)n);
  for (int g = 0; g < 4; g++) sum[g] = v_zero();
  SUM_LANES(squares, const vec v = v_first(v_sub(v_get(x, bf16, i, left), mean), left, 0.0f); sum[g] = v_fma(v, v, sum[g]););
  const vec scale_of_row = v_set(1.0f / sqrtf(squares / (float)n + p->eps));
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    const vec v = v_mul(v_sub(v_get(x, bf16, i, left), mean), scale_of_row);
    const vec bias = p->bias ? v_get(p->bias, p->bias_bf16, i, left) : v_zero();
    v_put(y, bf16, i, left, v_fma(v, v_get(p->weight, p->weight_bf16, i, left), bias));
  }
}
static void layer_norm(void *y, const void *x, const adcgk_norm *p) {
  if (p->bf16)
    layer_norm_of(y, x, p, true);
  else
    layer_norm_of(y, x, p, false);
}

/* Exponentials are summed 512 at a time, so that a vocabulary's sum keeps its bits. y may be x. */
static void softmax(void *y, const void *x, bool bf16, int64_t n) {
  vec largest = v_set(-INFINITY);
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    largest = v_max(largest, v_first(v_get(x, bf16, i, left), left, -INFINITY));
  }
  const vec top = v_set(v_max_lane(largest));
  vec total = v_zero();
  for (int64_t block = 0; block < n; block += 512) {
    const int64_t end = block + 512 < n ? block + 512 : n;
    vec sum = v_zero();
    for (int64_t i = block; i < end; i += LANES) {
      const int left = lanes_left(i, end);
      sum = v_add(sum, v_exp(v_sub(v_first(v_get(x, bf16, i, left), left, -INFINITY), top)));
    }
    total = v_add(total, sum);
  }
  const vec by = v_set(v_sum(total));
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    v_put(y, bf16, i, left, v_div(v_exp(v_sub(v_get(x, bf16, i, left), top)), by));
  }
}

/* logits[i] = x[i], masses[i] = exp((x[i] - largest) / temperature), which is 1 for the largest even if it is infinite. */
static void masses(float *logits, float *to, const void *x, bool bf16, float largest, float temperature, int64_t first, int64_t n) {
  const vec top = v_set(largest), by = v_set(temperature);
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    const vec v = v_get(x, bf16, first + i, left);
    v_put(logits, false, i, left, v);
    v_put(to, false, i, left, v_exp(v_select(v_equal(v, top), v_zero(), v_div(v_sub(v, top), by))));
  }
}
