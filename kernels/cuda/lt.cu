/* What stands behind a product of cuBLASLt whose epilogue it does not have: bias, activation and the one rounding. A thread takes
 * one chunk of a row. */
#include "activations.h"

ADCG_KERNEL(adcg_linear_finish, adcg_linear_finish_args, 256) {
  int64_t at;
  const int64_t row = divide(thread_of_grid(), (a.n + CHUNK - 1) / CHUNK, &at);
  if (row >= a.m) return;
  at *= CHUNK;
  chunk c = load(a.sums + row * a.lds + at, a.n - at);
  if (a.bias) {
    const chunk bias = load_either(a.bias, a.bias_bf16, at, a.n);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) c.v[i] += bias.v[i];
  }
#pragma unroll
  for (int i = 0; i < CHUNK; i++) c.v[i] = activation_of(a.activation, c.v[i]);
  if (a.y_bf16)
    store((bf16 *)a.y + row * a.ldy + at, a.n - at, c);
  else
    store((float *)a.y + row * a.ldy + at, a.n - at, c);
}
