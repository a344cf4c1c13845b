/* Tensor cores and asynchronous copies: bf16 products of a warp, the loads that feed them, and copies from global to shared memory that
 * go on while a thread works. The shim has the same over the lanes of its warps. */
#ifndef ADCGK_CUDA_CORES_H_
#define ADCGK_CUDA_CORES_H_

#include "device.h"

#ifdef __CUDACC__

/* c += a * b, a [16, 16] by rows, b [16, 8] by columns, c [16, 8]. Lane l has of a rows l / 4 and l / 4 + 8 (odd elements of a[]),
 * columns l % 4 * 2 and the next, and those + 8 (a[2], a[3]); of b column l / 4, and the same of its rows; of c rows as of a, columns
 * l % 4 * 2 and the next. */
ADCG_DEVICE void multiply(float *c, const uint32_t *a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four matrices of 8 by 8 bf16; lane l says in which 16 bytes from `base` on, in shared memory, row l % 8 of matrix l / 8 lies. It gets elements l % 4 * 2 and the
 * next of row l / 4 of each; or, turned, of column l / 4. */
ADCG_DEVICE uint32_t shared_address(const uint4 *base, int unit) { /* of 32 bits, to which what is constant is added for nothing */
  return (uint32_t)__cvta_generic_to_shared(base) + (uint32_t)unit * 16;
}
ADCG_DEVICE void load_matrices(uint32_t *to, const uint4 *base, int unit) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(base, unit))
               : "memory");
}
ADCG_DEVICE void load_matrices_turned(uint32_t *to, const uint4 *base, int unit) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(base, unit))
               : "memory");
}

/* x, which no compiler knows: what follows from it is worked out anew, not kept in registers (or spilled) from round to round. */
ADCG_DEVICE int anew(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/* 16 bytes to shared memory, or zeros; there for this thread after wait_for_copies. */
ADCG_DEVICE void copy_later(uint4 *to, const void *from, bool zeros) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(zeros ? 0 : 16)
               : "memory");
}
ADCG_DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/* 2^x; results below 2^-126 are 0. */
ADCG_DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#else

ADCG_DEVICE void multiply(float *c, const uint32_t *a, uint32_t b0, uint32_t b1) { shim::multiply(c, a, b0, b1); }
ADCG_DEVICE void load_matrices(uint32_t *to, const uint4 *base, int unit) { shim::load_matrices(to, base + unit, false); }
ADCG_DEVICE void load_matrices_turned(uint32_t *to, const uint4 *base, int unit) { shim::load_matrices(to, base + unit, true); }
ADCG_DEVICE void copy_later(uint4 *to, const void *from, bool zeros) { shim::copy_later(to, zeros ? nullptr : from, 16); }
ADCG_DEVICE void wait_for_copies() { shim::wait_for_copies(); }
ADCG_DEVICE int anew(int x) { return x; }
ADCG_DEVICE float fast_exp2(float x) { return exp2f(x); }

#endif

#endif /* ADCGK_CUDA_CORES_H_ */
