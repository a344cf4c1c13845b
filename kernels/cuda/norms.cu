/* rms_norm, add_rms_norm, qk_norm (one rms_norm for q and one for k), layer_norm, softmax: sums over rows, in f32. A thread reads
 * again in the second pass what it read in the first, and writes there alone, so that outputs may be inputs. */
#include "activations.h"
#include "rows.h"

/* One row of one group: where it lies in each tensor, and its part of the weight. */
template <typename T>
struct norm_row {
  T *y, *sum;
  const T *x, *z;
  int64_t n, weight; /* elements; the first one's in the weight */
  int32_t thread;
};

/* False: there is no row for this thread, nor for any other that would synchronise with it. */
template <typename T>
ADCG_DEVICE bool take_row(const adcg_rows_args &a, norm_row<T> *r) {
  int64_t group;
  const int64_t run = divide(row_of_thread(a.threads, &r->thread), a.groups, &group);
  if (run >= a.runs.count) return false;
  r->n = a.runs.length / a.groups;
  r->weight = group * r->n;
  r->y = (T *)a.y + adcgk_run_at(&a.runs, 0, run) + r->weight;
  r->x = (const T *)a.x + adcgk_run_at(&a.runs, 1, run) + r->weight;
  r->z = a.z ? (const T *)a.z + adcgk_run_at(&a.runs, 2, run) + r->weight : nullptr;
  r->sum = a.sum ? (T *)a.sum + adcgk_run_at(&a.runs, 3, run) + r->weight : nullptr;
  return true;
}

#define EACH_CHUNK(R, AT) for (int64_t AT = (R).thread * CHUNK; AT < (R).n; AT += (int64_t)a.threads * CHUNK)

/* What is normed: x, x * silu(z) if the gate comes before, or the sum as it is stored. */
template <typename T>
ADCG_DEVICE chunk normed(const adcg_rows_args &a, const norm_row<T> &r, int64_t at) {
  if (r.sum) return load(r.sum + at, r.n - at);
  chunk x = load(r.x + at, r.n - at);
  if (a.gate == ADCG_GATE_BEFORE) {
    const chunk z = load(r.z + at, r.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) x.v[i] *= silu_of(z.v[i]);
  }
  return x;
}

template <typename T>
ADCG_DEVICE void add(const adcg_rows_args &a, const norm_row<T> &r) {
  EACH_CHUNK(r, at) {
    chunk x = load(r.x + at, r.n - at);
    const chunk z = load(r.z + at, r.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) x.v[i] += z.v[i];
    store(r.sum + at, r.n - at, x);
  }
}

/* In bf16 the normed value is rounded before a plain weight is multiplied, and that product before the gate that comes after; a
 * weight that counts as 1 + weight is multiplied in f32. */
template <typename T>
ADCG_DEVICE void rms_norm(const adcg_rows_args &a) {
  norm_row<T> r;
  if (!take_row(a, &r)) return;
  if (r.sum) add(a, r);
  float squares = 0.0f;
  EACH_CHUNK(r, at) {
    const chunk x = normed(a, r, at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) squares = fmaf(x.v[i], x.v[i], squares);
  }
  squares = over_row<sum_op>(squares, a.threads);
  const float scale = 1.0f / sqrtf(squares / (float)r.n + a.eps);
  EACH_CHUNK(r, at) {
    chunk x = normed(a, r, at);
    const chunk w = load_either(a.weight, a.weight_bf16, r.weight + at, r.weight + r.n);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
      const float v = x.v[i] * scale;
      x.v[i] = a.one_plus ? v * (1.0f + w.v[i]) : rounded<T>(v) * w.v[i];
    }
    if (a.gate == ADCG_GATE_AFTER) {
      const chunk z = load(r.z + at, r.n - at);
#pragma unroll
      for (int i = 0; i < CHUNK; i++) x.v[i] = (a.one_plus ? x.v[i] : rounded<T>(x.v[i])) * silu_of(z.v[i]);
    }
    store(r.y + at, r.n - at, x);
  }
}

/* The variance is summed from differences to the mean: a mean far from zero costs no bits. */
template <typename T>
ADCG_DEVICE void layer_norm(const adcg_rows_args &a) {
  norm_row<T> r;
  if (!take_row(a, &r)) return;
  float total = 0.0f, squares = 0.0f;
  EACH_CHUNK(r, at) {
    const chunk x = load(r.x + at, r.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) total += x.v[i];
  }
  const float mean = over_row<sum_op>(total, a.threads) / (float)r.n;
  EACH_CHUNK(r, at) {
    const chunk x = load(r.x + at, r.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
      const float v = at + i < r.n ? x.v[i] - mean : 0.0f;
      squares = fmaf(v, v, squares);
    }
  }
  squares = over_row<sum_op>(squares, a.threads);
  const float scale = 1.0f / sqrtf(squares / (float)r.n + a.eps);
  EACH_CHUNK(r, at) {
    chunk x = load(r.x + at, r.n - at);
    const chunk w = load_either(a.weight, a.weight_bf16, at, r.n);
    chunk bias = {};
    if (a.bias) bias = load_either(a.bias, a.bias_bf16, at, r.n);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) x.v[i] = fmaf((x.v[i] - mean) * scale, w.v[i], bias.v[i]);
    store(r.y + at, r.n - at, x);
  }
}

template <typename T>
ADCG_DEVICE void softmax(const adcg_rows_args &a) {
  norm_row<T> r;
  if (!take_row(a, &r)) return;
  float largest = -INFINITY, total = 0.0f;
  EACH_CHUNK(r, at) {
    const chunk x = load(r.x + at, r.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) largest = at + i < r.n ? fmaxf(largest, x.v[i]) : largest;
  }
  largest = over_row<max_op>(largest, a.threads);
  EACH_CHUNK(r, at) {
    const chunk x = load(r.x + at, r.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) total += at + i < r.n ? expf(x.v[i] - largest) : 0.0f;
  }
  total = over_row<sum_op>(total, a.threads);
  EACH_CHUNK(r, at) {
    chunk x = load(r.x + at, r.n - at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) x.v[i] = expf(x.v[i] - largest) / total;
    store(r.y + at, r.n - at, x);
  }
}

ADCG_KERNEL(adcg_rms_norm_f32, adcg_rows_args, 256) { rms_norm<float>(a); }
ADCG_KERNEL(adcg_rms_norm_bf16, adcg_rows_args, 256) { rms_norm<bf16>(a); }
ADCG_KERNEL(adcg_layer_norm_f32, adcg_rows_args, 256) { layer_norm<float>(a); }
ADCG_KERNEL(adcg_layer_norm_bf16, adcg_rows_args, 256) { layer_norm<bf16>(a); }
ADCG_KERNEL(adcg_softmax_f32, adcg_rows_args, 1024) { softmax<float>(a); }
ADCG_KERNEL(adcg_softmax_bf16, adcg_rows_args, 1024) { softmax<bf16>(a); }
#undef EACH_CHUNK
