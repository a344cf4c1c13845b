/* The kernels for x86-64 with AVX-512 (F, BW, DQ, VL). */
#include "internal.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-256-bit=false"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define SIMD_WIDTH 16
#define ISA "avx512"
#define TABLE adcgk_kernels_avx512
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
