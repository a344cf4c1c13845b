/* The kernels for arm64, where NEON is always there. */
#include "internal.h"

#if defined(__aarch64__)
#define SIMD_NEON
#define SIMD_WIDTH 4
#define ISA "neon"
#define TABLE adcgk_kernels_neon
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

#endif
