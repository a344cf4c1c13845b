/* The kernels for any machine: plain C, with fmaf() from libm. */
#include "internal.h"

#define SIMD_WIDTH 4
#define ISA "c"
#define TABLE adcgk_kernels_c
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
