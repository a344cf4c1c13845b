/* Ops that work element by element. A thread takes one chunk of a run. */
#include "activations.h"

template <typename Op, typename T>
ADCG_DEVICE void elements(const adcg_elements_args &a) {
  const int64_t length = a.runs.length;
  int64_t at;
  const int64_t run = divide(thread_of_grid(), (length + CHUNK - 1) / CHUNK, &at);
  if (run >= a.runs.count) return;
  at *= CHUNK;
  const T *x = (const T *)a.a + adcgk_run_at(&a.runs, 1, run) + at;
  const T *other = (const T *)a.b + adcgk_run_at(&a.runs, 2, run);
  const chunk first = load(x, length - at);
  chunk second = first;
  if (Op::operands == 2 && a.one_b) {
    const float by = to_float(*other);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) second.v[i] = by;
  } else if (Op::operands == 2) {
    second = load(other + at, length - at);
  }
  chunk y;
#pragma unroll
  for (int i = 0; i < CHUNK; i++) y.v[i] = Op::template of<T>(first.v[i], second.v[i]);
  store((T *)a.y + adcgk_run_at(&a.runs, 0, run) + at, length - at, y);
}

#define ELEMENTS(NAME, OPERANDS, VALUE)                                                                   \
  struct NAME##_op {                                                                                      \
    enum { operands = OPERANDS };                                                                         \
    template <typename T>                                                                                 \
    static ADCG_DEVICE float of(float a, float b) {                                                       \
      (void)b;                                                                                            \
      return VALUE;                                                                                       \
    }                                                                                                     \
  };                                                                                                      \
  ADCG_KERNEL(adcg_##NAME##_f32, adcg_elements_args, 256) { elements<NAME##_op, float>(a); }              \
  ADCG_KERNEL(adcg_##NAME##_bf16, adcg_elements_args, 256) { elements<NAME##_op, bf16>(a); }

ELEMENTS(add, 2, a + b)
ELEMENTS(mul, 2, a * b)
/* In bf16, an activation is rounded before the product, as the models do it. */
ELEMENTS(silu_mul, 2, rounded<T>(silu_of(a)) * b)
ELEMENTS(gelu_mul, 2, rounded<T>(gelu_of(a)) * b)
ELEMENTS(gelu_tanh_mul, 2, rounded<T>(gelu_tanh_of(a)) * b)
ELEMENTS(sigmoid_mul, 2, a * rounded<T>(sigmoid_of(b)))
ELEMENTS(silu, 1, silu_of(a))
ELEMENTS(relu2, 1, relu2_of(a))
ELEMENTS(sigmoid, 1, sigmoid_of(a))
#undef ELEMENTS

template <typename To, typename From>
ADCG_DEVICE void cast(const adcg_elements_args &a) {
  int64_t at;
  const int64_t run = divide(thread_of_grid(), (a.runs.length + CHUNK - 1) / CHUNK, &at);
  if (run >= a.runs.count) return;
  at *= CHUNK;
  const chunk x = load((const From *)a.a + adcgk_run_at(&a.runs, 1, run) + at, a.runs.length - at);
  store((To *)a.y + adcgk_run_at(&a.runs, 0, run) + at, a.runs.length - at, x);
}

ADCG_KERNEL(adcg_cast_f32_bf16, adcg_elements_args, 256) { cast<bf16, float>(a); }
ADCG_KERNEL(adcg_cast_bf16_f32, adcg_elements_args, 256) { cast<float, bf16>(a); }
