/* Small helpers on tensors, for the launch functions of every device. */
#ifndef ADCGK_TENSOR_H_
#define ADCGK_TENSOR_H_

#include <stdbool.h>
#include <string.h>

#include <adcg/adcg.h>

static inline bool adcgk_is_bf16(const DLTensor *t) { return t->dtype.code == kDLBfloat; }
static inline bool adcgk_is_fp8(const DLTensor *t) { return t->dtype.code == kDLFloat8_e4m3fn; }
static inline size_t adcgk_size(const DLTensor *t) { return (size_t)t->dtype.bits / 8; }
/* Elements of a row: of all dims behind the first. */
static inline int64_t adcgk_row(const DLTensor *t) {
  int64_t n = 1;
  for (int32_t i = 1; i < t->ndim; i++) n *= t->shape[i];
  return n;
}
/* One number of a tensor of either float type. */
static inline float adcgk_number(const void *from, bool bf16, int64_t i) {
  if (!bf16) return ((const float *)from)[i];
  const uint32_t bits = (uint32_t)((const uint16_t *)from)[i] << 16;
  float number;
  memcpy(&number, &bits, sizeof(number));
  return number;
}
static inline int64_t adcgk_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t adcgk_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t adcgk_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#endif /* ADCGK_TENSOR_H_ */
