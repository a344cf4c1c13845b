/* Compiled by test_cabi.py as C11 and as C++17, with HOST_FIRST (the host's DLPack before adcg.h), HOST_LAST or neither, and with
 * HEADER set to one public header: it is self-contained, may be included twice, and the layout is DLPack's and the library's. */
#ifndef HEADER
#define HEADER "adcg/adcg.h"
#endif
#ifdef HOST_FIRST
#include "dlpack_host.h"
#endif
#include HEADER
#include HEADER
#ifdef HOST_LAST
#include "dlpack_host.h"
#endif

#ifdef __cplusplus
#define SAME(name, condition) static_assert(condition, #name)
#else
#define SAME(name, condition) _Static_assert(condition, #name)
#endif

#if defined(HOST_FIRST) && !defined(HOST_HAS_ITS_OWN_DLPACK)
#error "adcg's declarations stood in front of the host's"
#endif
#if defined(HOST_LAST) && defined(HOST_HAS_ITS_OWN_DLPACK)
#error "the host's declarations came in beside adcg's"
#endif

/* Facts of the DLPack 1.x C API on a 64-bit machine. */
SAME(size_of_tensor, sizeof(DLTensor) == 48);
SAME(offset_of_device, offsetof(DLTensor, device) == 8);
SAME(offset_of_ndim, offsetof(DLTensor, ndim) == 16);
SAME(offset_of_dtype, offsetof(DLTensor, dtype) == 20);
SAME(offset_of_shape, offsetof(DLTensor, shape) == 24);
SAME(offset_of_strides, offsetof(DLTensor, strides) == 32);
SAME(offset_of_byte_offset, offsetof(DLTensor, byte_offset) == 40);
SAME(size_of_dtype, sizeof(DLDataType) == 4);
SAME(size_of_device, sizeof(DLDevice) == 8);
SAME(codes, kDLInt == 0 && kDLUInt == 1 && kDLFloat == 2 && kDLBfloat == 4 && kDLBool == 6 && kDLFloat8_e4m3fn == 10);
SAME(devices, kDLCPU == 1 && kDLCUDA == 2 && kDLCUDAHost == 3);

#ifdef ADCG_ADCG_H_
static const adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
static const adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
int main(void) { return budget.struct_size == sizeof budget && totals.struct_size == sizeof totals ? 0 : 1; }
#else
int main(void) { return 0; }
#endif
