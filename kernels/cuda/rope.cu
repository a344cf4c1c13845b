/* adcg.rope: a block a token. Its threads first make the sines and cosines of all pairs, then turn the heads, four pairs at a time. */
#include "../common/rope_layout.h"
#include "device.h"

enum { PAIRS = 4 }; /* of a thread at a time */

/* Up to four elements that lie side by side; `left` are the pairs' own. */
ADCG_DEVICE void load_four(float *v, const float *from, int left) {
  if (left >= PAIRS && aligned(from)) {
    const float4 x = *(const float4 *)from;
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    return;
  }
  for (int i = 0; i < PAIRS; i++) v[i] = i < left ? from[i] : 0.0f;
}
ADCG_DEVICE void load_four(float *v, const bf16 *from, int left) {
  if (left >= PAIRS && ((uintptr_t)from & 7) == 0) {
    const uint2 x = *(const uint2 *)from;
    v[0] = __uint_as_float(x.x << 16), v[1] = __uint_as_float(x.x & 0xffff0000u);
    v[2] = __uint_as_float(x.y << 16), v[3] = __uint_as_float(x.y & 0xffff0000u);
    return;
  }
  for (int i = 0; i < PAIRS; i++) v[i] = i < left ? to_float(from[i]) : 0.0f;
}
ADCG_DEVICE void store_four(float *to, const float *v, int left) {
  if (left >= PAIRS && aligned(to)) {
    *(float4 *)to = {v[0], v[1], v[2], v[3]};
    return;
  }
  for (int i = 0; i < PAIRS && i < left; i++) to[i] = v[i];
}
ADCG_DEVICE void store_four(bf16 *to, const float *v, int left) {
  if (left >= PAIRS && ((uintptr_t)to & 7) == 0) {
    *(uint2 *)to = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])};
    return;
  }
  for (int i = 0; i < PAIRS && i < left; i++) put(to + i, v[i]);
}

/* Four pairs of one head, beginning with pair `first`. */
template <typename T>
ADCG_DEVICE void load_pairs(const adcg_rope_args &a, const T *from, int first, int left, float *v1, float *v2) {
  if (a.layout == ADCGK_ROPE_NEOX) {
    load_four(v1, from + first, left);
    load_four(v2, from + a.half + first, left);
    return;
  }
  const chunk x = load(from + 2 * first, 2 * left);
#pragma unroll
  for (int i = 0; i < PAIRS; i++) {
    v1[i] = x.v[2 * i];
    v2[i] = x.v[2 * i + 1];
  }
}

template <typename T>
ADCG_DEVICE void store_pairs(const adcg_rope_args &a, T *to, int first, int left, const float *v1, const float *v2) {
  if (a.layout != ADCGK_ROPE_GPTJ) {
    store_four(to + first, v1, left);
    store_four(to + a.half + first, v2, left);
    return;
  }
  chunk y;
#pragma unroll
  for (int i = 0; i < PAIRS; i++) {
    y.v[2 * i] = v1[i];
    y.v[2 * i + 1] = v2[i];
  }
  store(to + 2 * first, 2 * left, y);
}

/* Products and sums are rounded one by one, as transformers rounds them. */
template <typename T>
ADCG_DEVICE void rope(const adcg_rope_args &a) {
  __shared__ float sine[ADCG_ROPE_PAIRS], cosine[ADCG_ROPE_PAIRS];
  const int64_t token = blockIdx.x;
  const int32_t half = (int32_t)a.half, step = (int32_t)blockDim.x, thread = (int32_t)threadIdx.x;
  const float position = (float)a.positions[token];
  for (int32_t i = thread; i < half; i += step) {
    float s, c;
    sincosf(position * a.frequency[i], &s, &c);
    sine[i] = s * a.scale;
    cosine[i] = c * a.scale;
  }
  __syncthreads();
  const T *x = (const T *)a.x + token * a.x_token;
  T *y = (T *)a.y + token * a.y_token;
  /* Whole heads at a time: in the layout interleaved pairs move within a head, and y may be x: all is read before any is written. */
  const int32_t groups = (half + PAIRS - 1) / PAIRS, together = step / groups, first = thread % groups * PAIRS;
  for (int64_t base = 0; base < a.heads; base += together) {
    const int64_t head = base + thread / groups;
    const bool active = thread / groups < together && head < a.heads;
    float v1[PAIRS], v2[PAIRS];
    if (active) load_pairs(a, x + head * a.x_head, first, half - first, v1, v2);
    if (a.layout == ADCGK_ROPE_INTERLEAVED) __syncthreads();
    if (!active) continue;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
      if (first + i >= half) break;
      const float s = sine[first + i], c = cosine[first + i], v = v1[i];
      v1[i] = v * c - v2[i] * s;
      v2[i] = v2[i] * c + v * s;
    }
    store_pairs(a, y + head * a.y_head, first, half - first, v1, v2);
  }
  if (a.y == a.x) return;
  const int64_t rest = a.d - 2 * a.half;
  for (int64_t i = thread; i < a.heads * rest; i += step) {
    int64_t at;
    const int64_t head = divide(i, rest, &at);
    y[head * a.y_head + 2 * a.half + at] = x[head * a.x_head + 2 * a.half + at];
  }
}

ADCG_KERNEL(adcg_rope_f32, adcg_rope_args, 256) { rope<float>(a); }
ADCG_KERNEL(adcg_rope_bf16, adcg_rope_args, 256) { rope<bf16>(a); }
