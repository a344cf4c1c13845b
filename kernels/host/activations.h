/* Activations and the ops on elements, for one instruction set. */

ALWAYS vec v_sigmoid(vec x) { return v_div(v_set(1.0f), v_add(v_set(1.0f), v_exp(v_neg(x)))); }
ALWAYS vec v_relu(vec x) { return v_max(v_zero(), x); } /* NaN stays NaN */
ALWAYS vec v_relu2(vec x) { return v_mul(v_relu(x), v_relu(x)); }

/* x times the normal distribution's integral up to x, to about 1e-6 of the result: below zero too, where
 * 1 + erf(x / sqrt 2) would cancel. The integral up to -|x| is exp(-x^2 / 2) g(|x|); t = 1 / (1 + 0.35 |x|) makes g / t a
 * polynomial, fitted to 3e-7 over 0 <= |x| <= 20, beyond which the integral is 0 in f32. */
ALWAYS vec v_gelu(vec x) {
  const vec one = v_set(1.0f);
  const vec a = v_min(v_set(20.0f), iv_float_bits(iv_and(v_bits(x), iv_set(INT32_MAX))));
  const vec t = v_div(one, v_fma(a, v_set(0.35f), one));
  vec g = v_set(-0.0288018417f);
  g = v_fma(g, t, v_set(0.142396212f));
  g = v_fma(g, t, v_set(-0.252681971f));
  g = v_fma(g, t, v_set(0.155986562f));
  g = v_fma(g, t, v_set(-0.0211199578f));
  g = v_fma(g, t, v_set(0.104757696f));
  g = v_fma(g, t, v_set(0.119998522f));
  g = v_fma(g, t, v_set(0.139842436f));
  g = v_fma(g, t, v_set(0.139622331f));
  const vec square = v_mul(a, a), rest = v_fma(a, a, v_neg(square)); /* exp(-square / 2) alone would be off by its rounding */
  const vec e = v_exp(v_mul(square, v_set(-0.5f)));
  const vec tail = v_mul(v_mul(g, t), v_fma(e, v_mul(rest, v_set(-0.5f)), e));
  const ivec below = v_greater(v_zero(), x);
  return v_mul(v_max(v_set(-20.0f), x), v_select(below, tail, v_sub(one, tail))); /* -inf times 0 would be NaN */
}

/* x (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), as x / (1 + exp(-2u)), which does not cancel below zero. */
ALWAYS vec v_gelu_tanh(vec x) {
  const vec near = v_max(v_set(-20.0f), x); /* the result is 0 in f32 below; of -inf it would be NaN */
  const vec factor = v_fma(v_mul(near, near), v_set(-0.0713548162726f), v_set(-1.59576912160573f));
  return v_div(near, v_add(v_set(1.0f), v_exp(v_mul(near, factor))));
}

ALWAYS vec v_activation(adcgk_activation activation, vec x) {
  switch (activation) {
    case ADCGK_SILU: return v_silu(x);
    case ADCGK_GELU: return v_gelu(x);
    case ADCGK_GELU_TANH: return v_gelu_tanh(x);
    case ADCGK_RELU: return v_relu(x);
    case ADCGK_RELU2: return v_relu2(x);
    case ADCGK_SIGMOID: return v_sigmoid(x);
    default: return x;
  }
}

/* values[i] = activation(values[i]), i < n; n is a multiple of 16. Not inlined: products come in many shapes. */
static __attribute__((noinline)) void activate_all(adcgk_activation activation, float *values, int n) {
  for (int i = 0; i < n; i += LANES) v_store(values + i, v_activation(activation, v_load(values + i)));
}

/* Elements first .. first+n-1 of y = VALUE(a, b). Ops of one operand leave b alone. */
#define ELEMENTS(NAME, VALUE)                                                                    \
  static void NAME(void *y, const void *a, const void *b, bool bf16, int64_t first, int64_t n) { \
    (void)b;                                                                                     \
    for (int64_t i = first; i < first + n; i += LANES) {                                         \
      const int left = lanes_left(i, first + n);                                                 \
      v_put(y, bf16, i, left, VALUE);                                                            \
    }                                                                                            \
  }
#define A v_get(a, bf16, i, left)
#define B v_get(b, bf16, i, left)
/* In bf16, an activation is rounded before the product, as the models do it. */
#define ROUNDED(V) (bf16 ? v_round_bf16(V) : (V))
ELEMENTS(add, v_add(A, B))
ELEMENTS(mul, v_mul(A, B))
ELEMENTS(silu_mul, v_mul(ROUNDED(v_silu(A)), B))
ELEMENTS(gelu_mul, v_mul(ROUNDED(v_gelu(A)), B))
ELEMENTS(gelu_tanh_mul, v_mul(ROUNDED(v_gelu_tanh(A)), B))
ELEMENTS(sigmoid_mul, v_mul(A, ROUNDED(v_sigmoid(B))))
ELEMENTS(silu, v_silu(A))
ELEMENTS(relu2, v_relu2(A))
ELEMENTS(sigmoid, v_sigmoid(A))
#undef ELEMENTS
#undef A
#undef B
#undef ROUNDED

/* y[i] = x[i] * by */
static void scale(void *y, const void *x, bool bf16, float by, int64_t n) {
  const vec factor = v_set(by);
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    v_put(y, bf16, i, left, v_mul(v_get(x, bf16, i, left), factor));
  }
}
