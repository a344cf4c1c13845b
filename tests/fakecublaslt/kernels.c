/* The kernels, as tests/fakecuda runs them: the library names itself as the object that holds them. Sums go up k in f32. */
#include <math.h>
#include <string.h>

#include "../fakecuda/fakecuda.h"
#include "state.h"

static float from_bf16(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float x;
  memcpy(&x, &wide, sizeof x);
  return x;
}

static uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (x != x) return 0x7fff;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The ten bits of mantissa that tensor cores read. */
static float to_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x1000) & ~(uint32_t)0x1fff;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static float load(const void *from, int32_t bf16, int64_t at) {
  return bf16 ? from_bf16(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

static float rounded(float x, int32_t bf16) { return bf16 ? from_bf16(to_bf16(x)) : x; }

/* The device's fast tanh: ten bits. Recorded: gelu in the library's epilogue was that far off on an H100. */
static float coarse_tanh(float x) { return roundf(tanhf(x) * 1024.0f) / 1024.0f; }

static void finish(const product_args *p, int64_t row, int64_t column, float sum) {
  float x = p->alpha * sum;
  if (p->epilogue & CUBLASLT_EPILOGUE_BIAS) x += load(p->bias, p->bias_bf16, row);
  if (p->epilogue & CUBLASLT_EPILOGUE_RELU) x = x > 0 || x != x ? x : 0;
  if (p->epilogue & CUBLASLT_EPILOGUE_GELU) x = 0.5f * x * (1 + coarse_tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
  if (p->d_bf16)
    ((uint16_t *)p->d)[column * p->ldd + row] = to_bf16(x);
  else
    ((float *)p->d)[column * p->ldd + row] = x;
}

static float sum_of(const product_args *p, int64_t row, int64_t column, int64_t from, int64_t to) {
  float sum = 0;
  for (int64_t k = from; k < to; k++) {
    float a = load(p->a, p->ab_bf16, p->transa ? row * p->lda + k : k * p->lda + row);
    float b = load(p->b, p->ab_bf16, p->transb ? k * p->ldb + column : column * p->ldb + k);
    if (p->tf32) {
      a = to_tf32(a);
      b = to_tf32(b);
    }
    sum += a * b;
  }
  return sum;
}

/* Parts are whole if they are not split: then results go where they belong. */
static void product(const fakecuda_launch *launch) {
  product_args p;
  memcpy(&p, launch->args[0], sizeof p);
  const int64_t part = (p.k + p.splits - 1) / p.splits;
  for (int64_t s = 0; s < p.splits; s++) {
    const int64_t from = s * part < p.k ? s * part : p.k, to = (s + 1) * part < p.k ? (s + 1) * part : p.k;
    for (int64_t column = 0; column < p.n; column++) {
      for (int64_t row = 0; row < p.m; row++) {
        const float sum = sum_of(&p, row, column, from, to);
        if (!p.parts)
          finish(&p, row, column, sum);
        else if (p.rounded && p.d_bf16)
          ((uint16_t *)p.parts)[(s * p.n + column) * p.m + row] = to_bf16(sum);
        else
          p.parts[(s * p.n + column) * p.m + row] = sum;
      }
    }
  }
}

static void reduce(const fakecuda_launch *launch) {
  product_args p;
  memcpy(&p, launch->args[0], sizeof p);
  const int32_t narrow = p.rounded && p.d_bf16;
  for (int64_t column = 0; column < p.n; column++) {
    for (int64_t row = 0; row < p.m; row++) {
      float sum = 0;
      for (int64_t s = 0; s < p.splits; s++) sum = rounded(sum + load(p.parts, narrow, (s * p.n + column) * p.m + row), narrow);
      /* recorded on an H100: split sums are of the result's type before a bias is added */
      finish(&p, row, column, rounded(sum, (p.epilogue & CUBLASLT_EPILOGUE_BIAS) && p.d_bf16));
    }
  }
}

static const uint32_t sizes[] = {sizeof(product_args)}, alignments[] = {8};

EXPORT const fakecuda_kernel fakecuda_kernels[] = {
    {"fakecublaslt_product", product, 1, sizes, alignments},
    {"fakecublaslt_reduce", reduce, 1, sizes, alignments},
    {NULL, NULL, 0, NULL, NULL},
};
