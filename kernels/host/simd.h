/* Vectors of 16 f32 lanes, written once for all instruction sets.
 *
 * Included by each isa_*.c, which sets SIMD_WIDTH, the f32 lanes of one register (16, 8 or 4). A vec is 16 lanes in
 * 16 / SIMD_WIDTH registers, whatever the machine: as every kernel is written in vecs, and every operation on a lane
 * is exactly rounded (fma is one rounding everywhere), all instruction sets give the same bits. Contraction is off
 * (-std=c11), so a product and a sum are fused where v_fma says so and nowhere else.
 */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* gcc: -std=c11 does it */
#endif
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && SIMD_WIDTH >= 8
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(SIMD_NEON)
#include <arm_neon.h>
#endif

#define ALWAYS static inline __attribute__((always_inline, unused))
#define LANES 16

typedef float vf __attribute__((vector_size(4 * SIMD_WIDTH)));
typedef int32_t vi __attribute__((vector_size(4 * SIMD_WIDTH)));
typedef uint32_t vu __attribute__((vector_size(4 * SIMD_WIDTH)));
typedef uint16_t vh __attribute__((vector_size(2 * SIMD_WIDTH)));

/* A vec has named parts and no array, so that it always lives in registers. EACH(DO) is DO(part, first lane). */
#if SIMD_WIDTH == 16
#define PARTS(T) T a
#define EACH(DO) DO(a, 0)
#elif SIMD_WIDTH == 8
#define PARTS(T) T a, b
#define EACH(DO) DO(a, 0) DO(b, 8)
#else
#define PARTS(T) T a, b, c, d
#define EACH(DO) DO(a, 0) DO(b, 4) DO(c, 8) DO(d, 12)
#endif
typedef struct {
  PARTS(vf);
} vec;  /* 16 floats */
typedef struct {
  PARTS(vi);
} ivec; /* 16 int32; as a mask, all bits of a lane or none */

/* ---- One register -------------------------------------------------------------------------------------- */

#if SIMD_WIDTH == 16
ALWAYS vf r_fma(vf x, vf y, vf z) { return (vf)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z); }
ALWAYS vf r_max(vf x, vf y) { return (vf)_mm512_max_ps((__m512)x, (__m512)y); }
ALWAYS vf r_min(vf x, vf y) { return (vf)_mm512_min_ps((__m512)x, (__m512)y); }
#elif SIMD_WIDTH == 8
ALWAYS vf r_fma(vf x, vf y, vf z) { return (vf)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)z); }
ALWAYS vf r_max(vf x, vf y) { return (vf)_mm256_max_ps((__m256)x, (__m256)y); }
ALWAYS vf r_min(vf x, vf y) { return (vf)_mm256_min_ps((__m256)x, (__m256)y); }
#else
#if defined(SIMD_NEON)
ALWAYS vf r_fma(vf x, vf y, vf z) { return (vf)vfmaq_f32((float32x4_t)z, (float32x4_t)x, (float32x4_t)y); }
#else
ALWAYS vf r_fma(vf x, vf y, vf z) {
  return (vf){fmaf(x[0], y[0], z[0]), fmaf(x[1], y[1], z[1]), fmaf(x[2], y[2], z[2]), fmaf(x[3], y[3], z[3])};
}
#endif
/* As x86 defines them: the second operand if either is NaN or both are equal. */
ALWAYS vf r_max(vf x, vf y) {
  vi m = x > y;
  return (vf)(((vi)x & m) | ((vi)y & ~m));
}
ALWAYS vf r_min(vf x, vf y) {
  vi m = x < y;
  return (vf)(((vi)x & m) | ((vi)y & ~m));
}
#endif
ALWAYS vi r_select(vi mask, vi x, vi y) { return (x & mask) | (y & ~mask); }
/* Not (vf){0} + x, which is an addition: it makes 0 of -0. */
#if SIMD_WIDTH == 16
ALWAYS vf r_set(float x) { return (vf)_mm512_set1_ps(x); }
#elif SIMD_WIDTH == 8
ALWAYS vf r_set(float x) { return (vf)_mm256_set1_ps(x); }
#else
ALWAYS vf r_set(float x) { return (vf){x, x, x, x}; }
#endif
ALWAYS vi r_iset(int32_t x) { return (vi){0} + x; }
ALWAYS vf r_load(const float *from) {
  vf r;
  memcpy(&r, from, sizeof(r));
  return r;
}
ALWAYS void r_store(float *to, vf x) { memcpy(to, &x, sizeof(x)); }

/* bf16 to f32 is exact; back is to nearest, ties to even, and every NaN becomes 0x7fc0. */
#if SIMD_WIDTH == 16
/* One shuffle for zero-extension and shift: word i goes to the upper half of lane i. */
ALWAYS vf r_widen(vh h) {
  static const uint16_t upper[32]
      __attribute__((aligned(64))) = {0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
  return (vf)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, _mm512_load_si512(upper), _mm512_castsi256_si512((__m256i)h));
}
#elif SIMD_WIDTH == 8 /* gcc 12 converts vectors of this width in halves */
ALWAYS vf r_widen(vh h) { return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16); }
#else
ALWAYS vf r_widen(vh h) { return (vf)(__builtin_convertvector(h, vu) << 16); }
#endif
ALWAYS vh r_narrow(vf x) {
  vu u = (vu)x;
  vu rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  vu nan = (vu)(x != x);
  rounded = (rounded & ~nan) | (nan & 0x7fc0);
#if SIMD_WIDTH == 8
  return (vh)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)rounded, (__m256i)rounded), 0x08));
#else
  return __builtin_convertvector(rounded, vh);
#endif
}
ALWAYS vf r_load_bf16(const uint16_t *from) {
  vh h;
  memcpy(&h, from, sizeof(h));
  return r_widen(h);
}

/* ---- 16 lanes ------------------------------------------------------------------------------------------ */

#define LANEWISE1(NAME, R, X, EXPR) \
  ALWAYS R NAME(X x) {              \
    R r;                            \
    EACH(EXPR)                      \
    return r;                       \
  }
#define LANEWISE2(NAME, R, X, Y, EXPR) \
  ALWAYS R NAME(X x, Y y) {            \
    R r;                               \
    EACH(EXPR)                         \
    return r;                          \
  }
#define DO(p, l) r.p = x.p + y.p;
LANEWISE2(v_add, vec, vec, vec, DO)
#undef DO
#define DO(p, l) r.p = x.p - y.p;
LANEWISE2(v_sub, vec, vec, vec, DO)
#undef DO
#define DO(p, l) r.p = (vi)((vu)x.p + (vu)y.p);
LANEWISE2(iv_add, ivec, ivec, ivec, DO)
#undef DO
#define DO(p, l) r.p = (vi)((vu)x.p - (vu)y.p);
LANEWISE2(iv_sub, ivec, ivec, ivec, DO)
#undef DO
#define DO(p, l) r.p = x.p ^ y.p;
LANEWISE2(iv_xor, ivec, ivec, ivec, DO)
#undef DO
#define DO(p, l) r.p = x.p * y.p;
LANEWISE2(v_mul, vec, vec, vec, DO)
#undef DO
#define DO(p, l) r.p = x.p / y.p;
LANEWISE2(v_div, vec, vec, vec, DO)
#undef DO
#define DO(p, l) r.p = r_max(x.p, y.p);
LANEWISE2(v_max, vec, vec, vec, DO)
#undef DO
#define DO(p, l) r.p = r_min(x.p, y.p);
LANEWISE2(v_min, vec, vec, vec, DO)
#undef DO
#define DO(p, l) r.p = x.p & y.p;
LANEWISE2(iv_and, ivec, ivec, ivec, DO)
#undef DO
#define DO(p, l) r.p = x.p > y.p;
LANEWISE2(v_greater, ivec, vec, vec, DO)
LANEWISE2(iv_greater, ivec, ivec, ivec, DO)
#undef DO
#define DO(p, l) r.p = x.p == y.p;
LANEWISE2(v_equal, ivec, vec, vec, DO)
LANEWISE2(iv_equal, ivec, ivec, ivec, DO)
#undef DO
#define DO(p, l) r.p = (vi)x.p;
LANEWISE1(v_bits, ivec, vec, DO)
#undef DO
#define DO(p, l) r.p = (vf)x.p;
LANEWISE1(iv_float_bits, vec, ivec, DO)
#undef DO
#define DO(p, l) r.p = r_set(x);
LANEWISE1(v_set, vec, float, DO)
#undef DO
#define DO(p, l) r.p = r_iset(x);
LANEWISE1(iv_set, ivec, int32_t, DO)
#undef DO
#define DO(p, l) r.p = (vi)((vu)x.p << (uint32_t)y);
LANEWISE2(iv_shift_left, ivec, ivec, int, DO)
#undef DO
#define DO(p, l) r.p = x.p >> y;
LANEWISE2(iv_shift_right, ivec, ivec, int, DO)
#undef DO

ALWAYS vec v_fma(vec x, vec y, vec z) {
  vec r;
#define DO(p, l) r.p = r_fma(x.p, y.p, z.p);
  EACH(DO)
#undef DO
  return r;
}

/* x is computed here: gcc would put off the additions of a tree and spill all that they wait for. */
#if defined(__x86_64__)
#define PIN "+v"
#elif defined(SIMD_NEON)
#define PIN "+w"
#endif
ALWAYS vec v_pinned(vec x) {
#if defined(PIN) && SIMD_WIDTH >= 4
#define DO(p, l) __asm__ volatile("" : PIN(x.p));
  EACH(DO)
#undef DO
#endif
  return x;
}

/* x where the mask is set, else y. */
ALWAYS vec v_select(ivec mask, vec x, vec y) {
  vec r;
#define DO(p, l) r.p = (vf)r_select(mask.p, (vi)x.p, (vi)y.p);
  EACH(DO)
#undef DO
  return r;
}

ALWAYS vec v_zero(void) { return v_set(0.0f); }
ALWAYS vec v_neg(vec x) { return iv_float_bits(iv_xor(v_bits(x), iv_set(INT32_MIN))); }

/* 0, 1, .. 15 */
ALWAYS ivec iv_lanes(void) {
  static const int32_t lanes[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  ivec r;
#define DO(p, l) memcpy(&r.p, lanes + l, sizeof(r.p));
  EACH(DO)
#undef DO
  return r;
}

/* A register at a time: gcc copies a whole vec of several registers through memory. */
ALWAYS vec v_load(const float *from) {
  vec r;
#define DO(p, l) r.p = r_load(from + l);
  EACH(DO)
#undef DO
  return r;
}
ALWAYS void v_store(float *to, vec x) {
#define DO(p, l) r_store(to + l, x.p);
  EACH(DO)
#undef DO
}

/* The first n lanes, 0 < n <= 16; the others are zero, and their memory is not read. */
ALWAYS vec v_load_part(const float *from, int n) {
#if SIMD_WIDTH == 16
  vec r = {(vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from)};
  return r;
#else
  float lanes[LANES] = {0};
  memcpy(lanes, from, (size_t)n * sizeof(float));
  return v_load(lanes);
#endif
}
ALWAYS void v_store_part(float *to, vec x, int n) {
#if SIMD_WIDTH == 16
  _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), (__m512)x.a);
#else
  memcpy(to, &x, (size_t)n * sizeof(float));
#endif
}

ALWAYS vec v_load_bf16(const uint16_t *from) {
  vec r;
#define DO(p, l) r.p = r_load_bf16(from + l);
  EACH(DO)
#undef DO
  return r;
}
ALWAYS vec v_load_bf16_part(const uint16_t *from, int n) {
  uint16_t lanes[LANES] = {0};
  memcpy(lanes, from, (size_t)n * sizeof(uint16_t));
  return v_load_bf16(lanes);
}
ALWAYS void v_store_bf16(uint16_t *to, vec x) {
  vh h;
#define DO(p, l)     \
  h = r_narrow(x.p); \
  memcpy(to + l, &h, sizeof(h));
  EACH(DO)
#undef DO
}
ALWAYS void v_store_bf16_part(uint16_t *to, vec x, int n) {
  uint16_t lanes[LANES];
  v_store_bf16(lanes, x);
  memcpy(to, lanes, (size_t)n * sizeof(uint16_t));
}

/* x rounded to bf16 and back. */
ALWAYS vec v_round_bf16(vec x) {
  vec r;
#define DO(p, l) r.p = r_widen(r_narrow(x.p));
  EACH(DO)
#undef DO
  return r;
}

/* Elements first .. first+15 of a tensor of either type; `n` < 16 takes only the first n. */
ALWAYS vec v_get(const void *from, bool bf16, int64_t first, int n) {
  if (bf16) return n == LANES ? v_load_bf16((const uint16_t *)from + first) : v_load_bf16_part((const uint16_t *)from + first, n);
  return n == LANES ? v_load((const float *)from + first) : v_load_part((const float *)from + first, n);
}
ALWAYS void v_put(void *to, bool bf16, int64_t first, int n, vec x) {
  if (bf16) {
    if (n == LANES)
      v_store_bf16((uint16_t *)to + first, x);
    else
      v_store_bf16_part((uint16_t *)to + first, x, n);
  } else {
    if (n == LANES)
      v_store((float *)to + first, x);
    else
      v_store_part((float *)to + first, x, n);
  }
}

/* ---- Reductions ---------------------------------------------------------------------------------------- */

/* The sum of 16 lanes, always as this tree: s8[l] = x[l] + x[l+8], s4[l] = s8[l] + s8[l+4], s2[l] = s4[l] + s4[l+2],
 * s2[0] + s2[1]. v_sum4 gives four such sums at once, each by the same tree. */
#if SIMD_WIDTH >= 8
ALWAYS float r_sum8(__m256 s8) {
  __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
#endif
#if SIMD_WIDTH == 16
ALWAYS __m256 r_fold(vec x) { return _mm256_add_ps(_mm512_castps512_ps256((__m512)x.a), _mm512_extractf32x8_ps((__m512)x.a, 1)); }
#elif SIMD_WIDTH == 8
ALWAYS __m256 r_fold(vec x) { return _mm256_add_ps((__m256)x.a, (__m256)x.b); }
#endif
#if SIMD_WIDTH >= 8
ALWAYS float v_sum(vec x) { return r_sum8(r_fold(x)); }
/* s2 of four vecs: a quad has two lanes of 0 and two of 1, the other of 2 and 3. What stays in its place is blended,
 * which more of the CPU's ports do than shuffles; a sum's operands may change sides for it. */
ALWAYS __m256 r_s2_of4(const vec *x) {
  __m256 x0 = r_fold(x[0]), x1 = r_fold(x[1]), x2 = r_fold(x[2]), x3 = r_fold(x[3]);
  __m256 s02 = _mm256_add_ps(_mm256_blend_ps(x0, x2, 0xf0), _mm256_permute2f128_ps(x0, x2, 0x21));
  __m256 s13 = _mm256_add_ps(_mm256_blend_ps(x1, x3, 0xf0), _mm256_permute2f128_ps(x1, x3, 0x21));
  return _mm256_add_ps(_mm256_blend_ps(s02, s13, 0xcc), _mm256_shuffle_ps(s02, s13, 0x4e));
}
ALWAYS void v_sum4(const vec *x, float *sums) {
  __m256 s2 = r_s2_of4(x);
  __m256 s1 = _mm256_add_ps(s2, _mm256_movehdup_ps(s2)); /* lanes 0, 2 | 4, 6 */
  __m128 low = _mm256_castps256_ps128(s1), high = _mm256_extractf128_ps(s1, 1);
  _mm_storeu_ps(sums, _mm_shuffle_ps(low, high, 0x88));
}
#else
ALWAYS float v_sum(vec x) {
  vf s4 = (x.a + x.c) + (x.b + x.d);
  return (s4[0] + s4[2]) + (s4[1] + s4[3]);
}
ALWAYS void v_sum4(const vec *x, float *sums) {
  for (int i = 0; i < 4; i++) sums[i] = v_sum(x[i]);
}
#endif

/* Sixteen sums at once, each by that tree: every step folds two registers into one, so that a sum costs three
 * instructions and not six. Short products (rows of 192) are half reduction otherwise. */
#if SIMD_WIDTH == 16
/* s8 of two vecs: quads 0, 1 of x, then of y. */
ALWAYS __m512 r_s8(vec x, vec y) {
  return _mm512_add_ps(_mm512_mask_blend_ps(0xff00, (__m512)x.a, (__m512)y.a), _mm512_shuffle_f32x4((__m512)x.a, (__m512)y.a, 0x4e));
}
/* s4 of four vecs, in the quads 0, 2, 1, 3. */
ALWAYS __m512 r_s4(const vec *x) {
  const __m512 a = r_s8(x[0], x[1]), b = r_s8(x[2], x[3]);
  const __m512 other = _mm512_mask_blend_ps(0x0f0f, a, b); /* b0 a1 b2 a3 */
  return _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, a, b), _mm512_shuffle_f32x4(other, other, 0xb1));
}
/* s2 of eight vecs: a quad has two lanes of one of the first four and two of one of the last four. */
ALWAYS __m512 r_s2(const vec *x) {
  const __m512 a = r_s4(x), b = r_s4(x + 4);
  return _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_shuffle_ps(a, b, 0x4e));
}
/* The sums of 0 .. 7 of a, of b: in each quad one of a's first four, b's first four, a's last four, b's last four. */
ALWAYS __m512 r_s1(__m512 a, __m512 b) {
  const __m512 other = _mm512_mask_blend_ps(0x5555, a, b); /* b0 a1 b2 a3 */
  return _mm512_add_ps(_mm512_mask_blend_ps(0xaaaa, a, b), _mm512_permute_ps(other, 0xb1));
}
ALWAYS void v_sum8(const vec *x, float *sums) {
  const __m512 s2 = r_s2(x);
  const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm256_storeu_ps(sums, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, r_s1(s2, s2))));
}
ALWAYS void v_sum16(const vec *x, float *sums) {
  const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15);
  _mm512_storeu_ps(sums, _mm512_permutexvar_ps(order, r_s1(r_s2(x), r_s2(x + 8))));
}
#elif SIMD_WIDTH == 8
ALWAYS void v_sum8(const vec *x, float *sums) {
  const __m256 a = r_s2_of4(x), b = r_s2_of4(x + 4);
  const __m256 other = _mm256_permute_ps(_mm256_blend_ps(a, b, 0x55), 0xb1);
  const __m256 s1 = _mm256_add_ps(_mm256_blend_ps(a, b, 0xaa), other); /* 0 4 1 5 | 2 6 3 7 */
  _mm256_storeu_ps(sums, _mm256_permutevar8x32_ps(s1, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)));
}
#else
ALWAYS void v_sum8(const vec *x, float *sums) {
  v_sum4(x, sums);
  v_sum4(x + 4, sums + 4);
}
#endif
#if SIMD_WIDTH < 16
ALWAYS void v_sum16(const vec *x, float *sums) {
  v_sum8(x, sums);
  v_sum8(x + 8, sums + 8);
}
#endif

/* The largest lane, by a fixed tree: the second of two if either is NaN. */
#if SIMD_WIDTH >= 8
ALWAYS float v_max_lane(vec x) {
#if SIMD_WIDTH == 16
  __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256((__m512)x.a), _mm512_extractf32x8_ps((__m512)x.a, 1));
#else
  __m256 m8 = _mm256_max_ps((__m256)x.a, (__m256)x.b);
#endif
  __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}
#else
ALWAYS float v_max_lane(vec x) {
  float lanes[LANES];
  v_store(lanes, x);
  for (int width = LANES / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  }
  return lanes[0];
}
#endif

/* Whether any lane of a mask is set. */
ALWAYS bool iv_any(ivec mask) {
#if SIMD_WIDTH == 16
  return _mm512_test_epi32_mask((__m512i)mask.a, (__m512i)mask.a) != 0;
#elif SIMD_WIDTH == 8
  __m256i m = _mm256_or_si256((__m256i)mask.a, (__m256i)mask.b);
  return !_mm256_testz_si256(m, m);
#else
  vi m = mask.a | mask.b | mask.c | mask.d;
  return (m[0] | m[1] | m[2] | m[3]) != 0;
#endif
}

/* ---- Functions ----------------------------------------------------------------------------------------- */

/* exp of |r| <= ln 2 / 2: the polynomial of Cephes' expf. */
ALWAYS vec v_exp_rest(vec r) {
  vec p = v_set(1.9875691500e-4f);
  p = v_fma(p, r, v_set(1.3981999507e-3f));
  p = v_fma(p, r, v_set(8.3334519073e-3f));
  p = v_fma(p, r, v_set(4.1665795894e-2f));
  p = v_fma(p, r, v_set(1.6666665459e-1f));
  p = v_fma(p, r, v_set(5.0000001201e-1f));
  return v_add(v_fma(p, v_mul(r, r), r), v_set(1.0f));
}

/* exp to about 1 ulp over all floats; -inf gives 0, 0 gives exactly 1, NaN stays NaN. x = n ln 2 + r, |r| <= ln 2 / 2;
 * 2^n is applied in two halves, so that results reach the denormals. */
ALWAYS vec v_exp(vec x) {
  const vec magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
  x = v_max(v_set(-104.0f), v_min(v_set(89.0f), x));
  vec t = v_fma(x, v_set(1.44269504088896341f), magic);
  vec n = v_sub(t, magic);
  vec r = v_fma(n, v_set(-0.693359375f), x);
  r = v_fma(n, v_set(2.12194440e-4f), r);
  vec p = v_exp_rest(r);
  ivec exponent = iv_and(v_bits(t), iv_set(0x3ff)); /* the last bits of t are n, in two's complement */
  exponent = iv_shift_right(iv_shift_left(exponent, 22), 22);
  ivec half = iv_shift_right(exponent, 1);
  ivec rest = iv_sub(exponent, half);
  p = v_mul(p, iv_float_bits(iv_shift_left(iv_add(half, iv_set(127)), 23)));
  return v_mul(p, iv_float_bits(iv_shift_left(iv_add(rest, iv_set(127)), 23)));
}

/* exp of x <= 0, or NaN, to about 1 ulp; what would be below exp(-87), or denormal, is 0. */
ALWAYS vec v_exp_to_1(vec x) {
  const vec magic = v_set(12582912.0f);
  vec t = v_fma(x, v_set(1.44269504088896341f), magic);
  vec n = v_sub(t, magic);
  vec r = v_fma(n, v_set(-0.693359375f), x);
  r = v_fma(n, v_set(2.12194440e-4f), r);
  vec p = v_exp_rest(r);
  ivec power = iv_shift_left(iv_add(v_bits(t), iv_set(127)), 23); /* 2^n: the last bits of t are n */
  return v_select(v_greater(v_set(-87.0f), x), v_zero(), v_mul(p, iv_float_bits(power)));
}

/* tanh to about 2 ulp. Cephes' tanhf: a polynomial below 0.625, else 1 - 2 / (exp(2|x|) + 1). */
ALWAYS vec v_tanh(vec x) {
  vec magnitude = iv_float_bits(iv_and(v_bits(x), iv_set(INT32_MAX)));
  vec z = v_mul(x, x);
  vec p = v_set(-5.70498872745e-3f);
  p = v_fma(p, z, v_set(2.06390887954e-2f));
  p = v_fma(p, z, v_set(-5.37397155531e-2f));
  p = v_fma(p, z, v_set(1.33314422036e-1f));
  p = v_fma(p, z, v_set(-3.33332819422e-1f));
  vec small = v_fma(v_mul(p, z), x, x);
  vec e = v_exp(v_add(magnitude, magnitude));
  vec large = v_sub(v_set(1.0f), v_div(v_set(2.0f), v_add(e, v_set(1.0f))));
  large = v_select(v_greater(v_zero(), x), v_neg(large), large);
  return v_select(v_greater(magnitude, v_set(0.625f)), large, small);
}

/* silu(x) = x / (1 + exp(-x)) */
ALWAYS vec v_silu(vec x) { return v_div(x, v_add(v_set(1.0f), v_exp(v_neg(x)))); }

/* log(1 + exp(x)) to about 2 ulp, also where exp(x) is next to nothing: max(x, 0) + log1p(u) with u = exp(-|x|), and
 * log1p(u) = 2 atanh(u / (2 + u)), whose series in squares up to 1/9 takes nine terms. */
ALWAYS vec v_softplus(vec x) {
  vec u = v_exp(iv_float_bits(iv_xor(iv_and(v_bits(x), iv_set(INT32_MAX)), iv_set(INT32_MIN))));
  vec s = v_div(u, v_add(u, v_set(2.0f)));
  vec z = v_mul(s, s);
  vec p = v_set(2.0f / 17);
  p = v_fma(p, z, v_set(2.0f / 15));
  p = v_fma(p, z, v_set(2.0f / 13));
  p = v_fma(p, z, v_set(2.0f / 11));
  p = v_fma(p, z, v_set(2.0f / 9));
  p = v_fma(p, z, v_set(2.0f / 7));
  p = v_fma(p, z, v_set(2.0f / 5));
  p = v_fma(p, z, v_set(2.0f / 3));
  return v_add(v_max(v_zero(), x), v_fma(v_mul(p, z), s, v_add(s, s)));
}

/* sin and cos of |x| <= 1e6, in radians, to about 1 ulp of the larger of the two. x = n pi/2 + r: pi/2 in three floats, of which the
 * first product is exact under fma. Cephes' polynomials. */
ALWAYS void v_sincos(vec x, vec *sine, vec *cosine) {
  const vec magic = v_set(12582912.0f);
  vec t = v_fma(x, v_set(0.636619772367581343f), magic);
  vec n = v_sub(t, magic);
  vec r = v_fma(n, v_set(-1.57079637050628662109375f), x);
  r = v_fma(n, v_set(4.371138828673792886547744274139404296875e-8f), r);
  r = v_fma(n, v_set(1.7151245100058819e-15f), r);
  vec z = v_mul(r, r);
  vec s = v_set(-1.9515295891e-4f);
  s = v_fma(s, z, v_set(8.3321608736e-3f));
  s = v_fma(s, z, v_set(-1.6666654611e-1f));
  s = v_fma(v_mul(s, z), r, r);
  vec c = v_set(2.443315711809948e-5f);
  c = v_fma(c, z, v_set(-1.388731625493765e-3f));
  c = v_fma(c, z, v_set(4.166664568298827e-2f));
  c = v_fma(v_mul(c, z), z, v_fma(v_set(-0.5f), z, v_set(1.0f)));
  ivec quadrant = v_bits(t); /* its last two bits */
  ivec odd = iv_equal(iv_and(quadrant, iv_set(1)), iv_set(1));
  vec sin_value = v_select(odd, c, s), cos_value = v_select(odd, s, c);
  ivec sin_sign = iv_shift_left(iv_and(quadrant, iv_set(2)), 30);
  ivec cos_sign = iv_shift_left(iv_and(iv_add(quadrant, iv_set(1)), iv_set(2)), 30);
  *sine = iv_float_bits(iv_xor(v_bits(sin_value), sin_sign));
  *cosine = iv_float_bits(iv_xor(v_bits(cos_value), cos_sign));
}
