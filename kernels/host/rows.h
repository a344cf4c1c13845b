/* Ops on single rows, for one instruction set: conversion, rotation, argmax, selection. */

ALWAYS int lanes_left(int64_t at, int64_t n) { return n - at >= LANES ? LANES : (int)(n - at); }

static void convert(void *to, bool to_bf16, const void *from, bool from_bf16, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    v_put(to, to_bf16, i, left, v_get(from, from_bf16, i, left));
  }
}

/* fp8 e4m3: one lane at a time, and the compiler makes vectors of it; integers and exact sums, so that all give the same.
 * No operation meets a denormal, which a host may have the CPU flush. */
static void from_fp8(float *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const uint32_t code = from[i] & 0x7fu, sign = (uint32_t)(from[i] & 0x80u) << 24;
    uint32_t bits = (code << 20) + (120u << 23), small = (code << 20) + (121u << 23);
    float value; /* below 2^-6: 2^-6 * (1 + m/8) - 2^-6 */
    memcpy(&value, &small, sizeof(value));
    value -= 0x1p-6f;
    memcpy(&small, &value, sizeof(small));
    bits = code < 8 ? small : bits;
    bits = code == 0x7f ? 0x7fc00000u : bits;
    bits |= sign;
    memcpy(to + i, &bits, sizeof(bits));
  }
}
ALWAYS uint8_t fp8_of(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  float small; /* below 2^-6: steps of 2^-9, as floats from 2^14 on have */
  memcpy(&small, &magnitude, sizeof(small));
  small = (magnitude < 0x3c800000u ? small : 0.0f) + 0x1p14f;
  uint32_t denormal;
  memcpy(&denormal, &small, sizeof(denormal));
  uint32_t code = ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  code = magnitude < 0x3c800000u ? denormal - 0x46800000u : code;
  code = magnitude >= 0x43e00000u ? 0x7eu : code; /* 448 */
  code = magnitude > 0x7f800000u ? 0x7fu : code;
  return (uint8_t)(code | (bits >> 24 & 0x80u));
}
static void to_fp8(uint8_t *to, const void *from, bool from_bf16, int64_t n) {
  if (from_bf16) {
    for (int64_t i = 0; i < n; i++) to[i] = fp8_of((uint32_t)((const uint16_t *)from)[i] << 16);
  } else {
    for (int64_t i = 0; i < n; i++) to[i] = fp8_of(((const uint32_t *)from)[i]);
  }
}

static void divide(void *to, bool to_bf16, const float *from, float divisor, int64_t n) {
  const vec by = v_set(divisor);
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    v_put(to, to_bf16, i, left, v_div(v_get(from, false, i, left), by));
  }
}

/* Angles beyond what v_sincos reduces exactly: in double, where pi/2 in two parts serves for any int32 position. */
static __attribute__((noinline)) void large_angle(float angle, float *sine, float *cosine) {
  const double n = rint((double)angle * 0.63661977236758134308);
  const double r = fma(n, -6.123233995736766036e-17, fma(n, -1.5707963267948965580, (double)angle));
  const double s = sin(r), c = cos(r);
  const int64_t quadrant = (int64_t)n & 3;
  *sine = (float)(quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c);
  *cosine = (float)(quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s);
}

static void angles(float *sine, float *cosine, const float *frequency, float position, int64_t n) {
  const vec at = v_set(position), limit = v_set(1e6f);
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    vec s, c;
    vec angle = v_mul(at, v_get(frequency, false, i, left));
    v_sincos(angle, &s, &c);
    v_put(sine, false, i, left, s);
    v_put(cosine, false, i, left, c);
    vec magnitude = iv_float_bits(iv_and(v_bits(angle), iv_set(INT32_MAX)));
    if (iv_any(v_greater(magnitude, limit))) {
      float lanes[LANES];
      v_store(lanes, angle);
      for (int l = 0; l < left; l++) {
        if (fabsf(lanes[l]) > 1e6f && fabsf(lanes[l]) <= 4294967296.0f) large_angle(lanes[l], sine + i + l, cosine + i + l);
      }
    }
  }
}

/* Products and sums rounded one by one, as transformers rounds them: a trained model's logits follow the reference's then. */
static void rotate(void *y, const void *x, bool bf16, int64_t half, const float *sine, const float *cosine, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    const vec s = v_get(sine, false, i, left), c = v_get(cosine, false, i, left);
    const vec x1 = v_get(x, bf16, i, left), x2 = v_get(x, bf16, half + i, left);
    v_put(y, bf16, i, left, v_sub(v_mul(x1, c), v_mul(x2, s)));
    v_put(y, bf16, half + i, left, v_add(v_mul(x2, c), v_mul(x1, s)));
  }
}

/* The same of the pairs (x[2i], x[2i + 1]), which stay pairs or become (y[i], y[i + half]): then y must not be x. */
ALWAYS void rotate_pairs_of(void *y, const void *x, bool bf16, bool halves, int64_t half, const float *sine, const float *cosine,
                            int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n), second = 2 * left - LANES;
    float pairs[2 * LANES], even[LANES], odd[LANES];
    v_store(pairs, v_get(x, bf16, 2 * i, second < 0 ? 2 * left : LANES));
    v_store(pairs + LANES, second > 0 ? v_get(x, bf16, 2 * i + LANES, second) : v_zero());
    for (int l = 0; l < LANES; l++) {
      even[l] = pairs[2 * l];
      odd[l] = pairs[2 * l + 1];
    }
    const vec s = v_get(sine, false, i, left), c = v_get(cosine, false, i, left), x1 = v_load(even), x2 = v_load(odd);
    const vec y1 = v_sub(v_mul(x1, c), v_mul(x2, s)), y2 = v_add(v_mul(x2, c), v_mul(x1, s));
    if (halves) {
      v_put(y, bf16, i, left, y1);
      v_put(y, bf16, half + i, left, y2);
      continue;
    }
    v_store(even, y1);
    v_store(odd, y2);
    for (int l = 0; l < LANES; l++) {
      pairs[2 * l] = even[l];
      pairs[2 * l + 1] = odd[l];
    }
    v_put(y, bf16, 2 * i, second < 0 ? 2 * left : LANES, v_load(pairs));
    if (second > 0) v_put(y, bf16, 2 * i + LANES, second, v_load(pairs + LANES));
  }
}
static void rotate_pairs(void *y, const void *x, bool bf16, bool halves, int64_t half, const float *sine, const float *cosine, int64_t n) {
  if (bf16)
    rotate_pairs_of(y, x, true, halves, half, sine, cosine, n);
  else
    rotate_pairs_of(y, x, false, halves, half, sine, cosine, n);
}

static int64_t argmax(const void *x, bool bf16, int64_t n) {
  vec largest = v_set(-INFINITY);
  ivec ordered = iv_set(-1); /* lanes that met no NaN */
  int64_t at = 0;
  for (; at + LANES <= n; at += LANES) {
    vec v = v_get(x, bf16, at, LANES);
    largest = v_max(largest, v);
    ordered = iv_and(ordered, v_equal(v, v));
  }
  for (int64_t i = at; i < n; i++) {
    vec v = v_set(v_sum(v_get(x, bf16, i, 1))); /* one element, in all lanes: the others are zero */
    largest = v_max(largest, v);
    ordered = iv_and(ordered, v_equal(v, v));
  }
  const bool nan = iv_any(iv_xor(ordered, iv_set(-1)));
  const vec target = v_set(nan ? 0.0f : v_max_lane(largest));
  for (int64_t i = 0; i < n; i += LANES) {
    const int left = lanes_left(i, n);
    vec v = v_get(x, bf16, i, left);
    ivec hit = nan ? iv_xor(v_equal(v, v), iv_set(-1)) : v_equal(v, target);
    if (!iv_any(hit)) continue;
    int32_t lanes[LANES];
    memcpy(lanes, &hit, sizeof(lanes));
    for (int l = 0; l < left; l++) {
      if (lanes[l]) return i + l;
    }
  }
  return 0; /* not reached: the largest element is there */
}

/* to[16 b + l]: the largest of lane l in the vectors b * block .. (b + 1) * block - 1 of a row without NaN. */
static void maxima(float *to, const void *x, bool bf16, int64_t block, int64_t blocks) {
  for (int64_t b = 0; b < blocks; b++) {
    vec largest = v_get(x, bf16, b * block * LANES, LANES);
    for (int64_t i = b * block + 1; i < (b + 1) * block; i++) largest = v_max(largest, v_get(x, bf16, i * LANES, LANES));
    v_store(to + b * LANES, largest);
  }
}

static int64_t between(float *values, int32_t *at, int64_t room, const void *x, bool bf16, int32_t low, int32_t high, int64_t first,
                       int64_t n) {
  int64_t found = 0;
  for (int64_t i = first; i < first + n; i += LANES) {
    const int left = lanes_left(i, first + n);
    const vec v = v_get(x, bf16, i, left);
    const ivec bits = v_bits(v_add(v, v_zero())); /* -0 becomes 0 */
    const ivec rank = iv_xor(bits, iv_and(iv_shift_right(bits, 31), iv_set(INT32_MAX)));
    const ivec outside = iv_xor(iv_greater(iv_set(low), rank), iv_greater(rank, iv_set(high))); /* never both */
    const ivec hit = iv_xor(outside, iv_set(-1));
    if (!iv_any(hit)) continue;
    int32_t hits[LANES];
    float lanes[LANES];
    memcpy(hits, &hit, sizeof(hits));
    v_store(lanes, v);
    for (int l = 0; l < left; l++) {
      if (!hits[l]) continue;
      if (found < room) {
        values[found] = lanes[l];
        at[found] = (int32_t)(i + l);
      }
      found++;
    }
  }
  return found;
}
