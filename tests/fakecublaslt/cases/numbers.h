/* Numbers of either type, and activations by their definitions, in float64. */
#ifndef ADCG_TESTS_FAKECUBLASLT_CASES_NUMBERS_H_
#define ADCG_TESTS_FAKECUBLASLT_CASES_NUMBERS_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../../../kernels/common/activation.h"

static inline double number_at(const void *from, int bf16, int64_t at) {
  if (!bf16) return (double)((const float *)from)[at];
  const uint32_t bits = (uint32_t)((const uint16_t *)from)[at] << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return (double)x;
}

/* Rounded once from f32, as kernels store. */
static inline void put_number(void *to, int bf16, int64_t at, double value) {
  const float x = (float)value;
  if (!bf16) {
    ((float *)to)[at] = x;
    return;
  }
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  ((uint16_t *)to)[at] = x != x ? 0x7fff : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline double activated(int32_t activation, double x) {
  switch (activation) {
    case ADCGK_SILU: return x / (1 + exp(-x));
    case ADCGK_GELU: return 0.5 * x * erfc(-x * 0.70710678118654752);
    case ADCGK_GELU_TANH: return x / (1 + exp(-2 * 0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case ADCGK_RELU: return x < 0 ? 0 : x;
    case ADCGK_RELU2: return x < 0 ? 0 : x * x;
    case ADCGK_SIGMOID: return 1 / (1 + exp(-x));
    default: return x;
  }
}

#endif
