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

/* ---- Products of warpgroups --------------------------------------------------------------------------------------------- */

/* Four warps multiply at once, from shared memory, while they go on: 64 rows, 16 of each warp, as multiply has them, with the same bits.
 * What they read lies in columns of 64 bf16, one row of 128 bytes below another, its 16-byte unit u at u ^ row % 8, from a multiple of
 * 1,024 bytes on. */
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define ADCG_WARPGROUPS 1

/* Where such an operand lies, whose next column is so many units on. Units may be added. */
ADCG_DEVICE uint64_t operand_at(const uint4 *base, int column) {
  const uint64_t at = __cvta_generic_to_shared(base) / 16;
  return at | (uint64_t)column << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62; /* 64 units: eight rows */
}

#define ADCG_4(c) "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])
#define ADCG_32(c) \
  ADCG_4((c)[0]), ADCG_4((c)[1]), ADCG_4((c)[2]), ADCG_4((c)[3]), ADCG_4((c)[4]), ADCG_4((c)[5]), ADCG_4((c)[6]), ADCG_4((c)[7])

/* c += a * b, a [64, 16] and b [64, 16] of columns: b's rows are c's columns. */
ADCG_DEVICE void multiply_later(float (*c)[4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
      "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, 1, 0, 0;"
      : ADCG_32(c)
      : "l"(a), "l"(b));
}

/* c += a * b, a in registers as multiply has it, b [16, 128] of columns: b's columns are c's. */
ADCG_DEVICE void multiply_wide_later(float (*c)[4], const uint32_t *a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
      "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, "
      "%43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, "
      "%68, 1, 1, 1, 1;"
      : ADCG_32(c), ADCG_32(c + 8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/* Before the first product, after the last, and until c, of what was multiplied, is there. */
ADCG_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
ADCG_DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
ADCG_DEVICE void wait_for_products(float (*c)[4]) { asm volatile("wgmma.wait_group.sync.aligned 0;" : ADCG_32(c)::"memory"); }

/* What this thread wrote to shared memory may be multiplied, after a barrier. */
ADCG_DEVICE void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else
ADCG_DEVICE void publish() {}
#endif

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
ADCG_DEVICE void publish() {}
ADCG_DEVICE int anew(int x) { return x; }
ADCG_DEVICE float fast_exp2(float x) { return exp2f(x); }

#endif

#endif /* ADCGK_CUDA_CORES_H_ */
