/* The kernels for x86-64 with AVX2 and FMA. */
#include "internal.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define SIMD_WIDTH 8
#define ISA "avx2"
#define TABLE adcgk_kernels_avx2
#include "simd.h"

#include "rows.h"
#include "activations.h"
#include "norms.h"
#include "product.h"
#include "attend.h"
#include "conv.h"
#include "ssm.h"
#include "delta.h"
#include "experts.h"
#include "table.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
