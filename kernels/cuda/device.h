/* What every .cu file of this folder includes first: how a kernel is written, element types, chunks, and the few functions that
 * kernels share. Compiled by nvcc (make kernels) and, through tests/fakecuda/shim/shim.h, by a C++17 compiler for the CPU.
 *
 *   ADCG_KERNEL(adcg_set_batch, adcg_set_batch_args, 32) { if (threadIdx.x == 0) *a.to = a.batch; }
 *
 * is a kernel of at most 32 threads a block whose one argument is `a`. Neither compiler contracts (nvcc -fmad=false): a product
 * and a sum are two roundings unless fmaf says otherwise, so that one source gives one result. */
#ifndef ADCGK_CUDA_DEVICE_H_
#define ADCGK_CUDA_DEVICE_H_

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define ADCG_KERNEL(name, args, threads) extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ args a)
#define ADCG_DEVICE __device__ __forceinline__ /* not static: the names of static ones hold a hash of the path */
/* The shared memory that the launch asks for, as T *name. */
#define ADCG_SHARED(T, name)                          \
  extern __shared__ __align__(16) char adcg_shared[]; \
  T *const name = (T *)adcg_shared
#else
#include "shim.h"
#endif

#include "../common/activation.h"
#include "args.h"

/* A bf16, as memory has it. */
typedef struct bf16 {
  uint16_t bits;
} bf16;

ADCG_DEVICE float to_float(float x) { return x; }
ADCG_DEVICE float to_float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }

/* Two floats as bf16, to the nearest, ties to even; a NaN stays one. The first is the lower half. */
ADCG_DEVICE uint32_t pack_bf16(float low, float high) {
#ifdef __CUDACC__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  uint32_t bits[2] = {__float_as_uint(low), __float_as_uint(high)};
  for (int i = 0; i < 2; i++) {
    const bool nan = (bits[i] & 0x7fffffffu) > 0x7f800000u;
    bits[i] = nan ? 0x7fffu : (bits[i] + 0x7fffu + (bits[i] >> 16 & 1u)) >> 16;
  }
  return bits[0] | bits[1] << 16;
#endif
}

ADCG_DEVICE void put(float *to, float x) { *to = x; }
ADCG_DEVICE void put(bf16 *to, float x) { to->bits = (uint16_t)pack_bf16(x, 0.0f); }

/* x as an element of a tensor of T. */
template <typename T>
ADCG_DEVICE float rounded(float x) {
  return sizeof(T) == sizeof(float) ? x : __uint_as_float(pack_bf16(0.0f, x) & 0xffff0000u);
}

/* Element `at` of a vector of either type. */
ADCG_DEVICE float number(const void *from, int32_t is_bf16, int64_t at) {
  return is_bf16 ? to_float(((const bf16 *)from)[at]) : ((const float *)from)[at];
}

/* Eight elements of a row, which is what a thread takes at a time. Where they begin on 16 bytes they move in 16 bytes: of a row
 * that does, all chunks do. Which way they come changes no bit of them. */
enum { CHUNK = 8 };
typedef struct chunk {
  float v[CHUNK];
} chunk;

ADCG_DEVICE bool aligned(const void *p) { return ((uintptr_t)p & 15) == 0; }

ADCG_DEVICE chunk load_whole(const float *from) {
  const float4 a = *(const float4 *)from, b = *(const float4 *)(from + 4);
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
ADCG_DEVICE chunk load_whole(const bf16 *from) {
  const uint4 a = *(const uint4 *)from;
  const uint32_t pairs[4] = {a.x, a.y, a.z, a.w};
  chunk c;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    c.v[2 * i] = __uint_as_float(pairs[i] << 16);
    c.v[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
  return c;
}

/* The chunk at `from`, of which `left` elements are the row's; zeros behind. */
template <typename T>
ADCG_DEVICE chunk load(const T *from, int64_t left) {
  if (left >= CHUNK && aligned(from)) return load_whole(from);
  chunk c;
#pragma unroll
  for (int i = 0; i < CHUNK; i++) c.v[i] = i < left ? to_float(from[i]) : 0.0f;
  return c;
}

ADCG_DEVICE void store_whole(float *to, const chunk &c) {
  ((float4 *)to)[0] = {c.v[0], c.v[1], c.v[2], c.v[3]};
  ((float4 *)to)[1] = {c.v[4], c.v[5], c.v[6], c.v[7]};
}
ADCG_DEVICE void store_whole(bf16 *to, const chunk &c) {
  *(uint4 *)to = {pack_bf16(c.v[0], c.v[1]), pack_bf16(c.v[2], c.v[3]), pack_bf16(c.v[4], c.v[5]), pack_bf16(c.v[6], c.v[7])};
}
template <typename T>
ADCG_DEVICE void store(T *to, int64_t left, const chunk &c) {
  if (left >= CHUNK && aligned(to)) {
    store_whole(to, c);
    return;
  }
#pragma unroll
  for (int i = 0; i < CHUNK; i++) {
    if (i < left) put(to + i, c.v[i]);
  }
}

/* The chunk at element `at` of a vector of either type, of n elements. */
ADCG_DEVICE chunk load_either(const void *from, int32_t is_bf16, int64_t at, int64_t n) {
  return is_bf16 ? load((const bf16 *)from + at, n - at) : load((const float *)from + at, n - at);
}

ADCG_DEVICE int64_t thread_of_grid() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

/* n / by and n % by. Division of 64 bits takes a hundred instructions, and most numbers have 32. */
ADCG_DEVICE int64_t divide(int64_t n, int64_t by, int64_t *rest) {
  if (((n | by) >> 32) == 0) {
    const uint32_t q = (uint32_t)n / (uint32_t)by;
    *rest = (uint32_t)n - q * (uint32_t)by;
    return q;
  }
  *rest = n % by;
  return n / by;
}

/* Real tokens and sequences of the step. */
ADCG_DEVICE int64_t batch_tokens(const adcg_batch *b) { return b->prefill_tokens + b->extend_tokens + b->decode_seqs; }
ADCG_DEVICE int64_t batch_seqs(const adcg_batch *b) { return b->prefill_seqs + b->extend_seqs + b->decode_seqs; }

#endif /* ADCGK_CUDA_DEVICE_H_ */
