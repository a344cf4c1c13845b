/* Activations, as kernels/host/activations.h has them: the same formulas, of one number. */
#ifndef ADCGK_CUDA_ACTIVATIONS_H_
#define ADCGK_CUDA_ACTIVATIONS_H_

#include "device.h"

ADCG_DEVICE float sigmoid_of(float x) { return 1.0f / (1.0f + expf(-x)); }
ADCG_DEVICE float silu_of(float x) { return x / (1.0f + expf(-x)); }
ADCG_DEVICE float relu_of(float x) { return x > 0.0f || x != x ? x : 0.0f; } /* NaN stays NaN */
ADCG_DEVICE float relu2_of(float x) { return relu_of(x) * relu_of(x); }

/* x times the normal distribution's integral up to x, to about 1e-6 of the result. The integral up to -|x| is
 * exp(-x^2 / 2) g(|x|), and t = 1 / (1 + 0.35 |x|) makes g / t a polynomial; see the host's. */
ADCG_DEVICE float gelu_of(float x) {
  const float a = fminf(20.0f, fabsf(x)), t = 1.0f / fmaf(a, 0.35f, 1.0f);
  float g = -0.0288018417f;
  g = fmaf(g, t, 0.142396212f);
  g = fmaf(g, t, -0.252681971f);
  g = fmaf(g, t, 0.155986562f);
  g = fmaf(g, t, -0.0211199578f);
  g = fmaf(g, t, 0.104757696f);
  g = fmaf(g, t, 0.119998522f);
  g = fmaf(g, t, 0.139842436f);
  g = fmaf(g, t, 0.139622331f);
  const float square = a * a, rest = fmaf(a, a, -square), e = expf(square * -0.5f);
  const float tail = g * t * fmaf(e, rest * -0.5f, e);
  return x != x ? x : fmaxf(-20.0f, x) * (x < 0.0f ? tail : 1.0f - tail); /* -inf times 0 would be NaN */
}

/* x (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), as x / (1 + exp(-2u)), which does not cancel below zero. */
ADCG_DEVICE float gelu_tanh_of(float x) {
  const float near = x < -20.0f ? -20.0f : x; /* the result is 0 in f32 below; of -inf it would be NaN */
  const float factor = fmaf(near * near, -0.0713548162726f, -1.59576912160573f);
  return near / (1.0f + expf(near * factor));
}

ADCG_DEVICE float activation_of(int32_t activation, float x) {
  switch (activation) {
    case ADCGK_SILU: return silu_of(x);
    case ADCGK_GELU: return gelu_of(x);
    case ADCGK_GELU_TANH: return gelu_tanh_of(x);
    case ADCGK_RELU: return relu_of(x);
    case ADCGK_RELU2: return relu2_of(x);
    case ADCGK_SIGMOID: return sigmoid_of(x);
    default: return x;
  }
}

#endif /* ADCGK_CUDA_ACTIVATIONS_H_ */
