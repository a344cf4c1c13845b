/* What every .cu file of this folder includes first: how a kernel is written, element types, and the few device functions that
 * kernels share. Compiled by nvcc (make kernels) and, through tests/fakecuda/shim/shim.h, by a C++17 compiler for the CPU.
 *
 *   ADCG_KERNEL(adcg_set_batch, adcg_set_batch_args, 32) { if (threadIdx.x == 0) *a.to = a.batch; }
 *
 * is a kernel of at most 32 threads a block whose one argument is `a`. Both compilers get -fmad=false or its like: a product and
 * a sum are two roundings unless fmaf says otherwise, so that the same source gives the same bits on both. */
#ifndef ADCGK_CUDA_DEVICE_H_
#define ADCGK_CUDA_DEVICE_H_

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define ADCG_KERNEL(name, args, threads) extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ args a)
#define ADCG_DEVICE static __device__ __forceinline__
#else
#include "shim.h"
#endif

#include "args.h"

/* A bf16, as memory has it. */
typedef struct bf16 {
  uint16_t bits;
} bf16;

ADCG_DEVICE float to_float(float x) { return x; }
ADCG_DEVICE float to_float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }

/* To the nearest, ties to even; a NaN stays one. */
ADCG_DEVICE bf16 to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  bf16 r;
  r.bits = nan ? (uint16_t)0x7fff : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  return r;
}
ADCG_DEVICE void put(float *to, float x) { *to = x; }
ADCG_DEVICE void put(bf16 *to, float x) { *to = to_bf16(x); }

/* Real tokens and sequences of the step. */
ADCG_DEVICE int64_t batch_tokens(const adcg_batch *b) { return b->prefill_tokens + b->extend_tokens + b->decode_seqs; }
ADCG_DEVICE int64_t batch_seqs(const adcg_batch *b) { return b->prefill_seqs + b->extend_seqs + b->decode_seqs; }

#endif /* ADCGK_CUDA_DEVICE_H_ */
