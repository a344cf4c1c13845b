/* cuBLASLt as this library uses it: own declarations, compatible with 12.x and 13.x. No CUDA header, and nothing is linked:
 * the functions are found at run time (lt.go) and called through one table. Matrices are column-major in all of it. */
#ifndef ADCGK_CUDA_LT_API_H_
#define ADCGK_CUDA_LT_API_H_

#include <stddef.h>
#include <stdint.h>

typedef struct lt_context *lt_handle;
typedef int lt_status;
enum {
  LT_SUCCESS = 0,
  LT_NOT_INITIALIZED = 1,
  LT_ALLOC_FAILED = 3,
  LT_INVALID_VALUE = 7,
  LT_ARCH_MISMATCH = 8,
  LT_EXECUTION_FAILED = 13,
  LT_INTERNAL_ERROR = 14,
  LT_NOT_SUPPORTED = 15
};

enum { LT_R_32F = 0, LT_R_16BF = 14 };                  /* cudaDataType */
enum { LT_COMPUTE_32F = 68, LT_COMPUTE_32F_TF32 = 77 }; /* products and sums in f32; factors may be cut to 10 bits of mantissa */
enum { LT_OP_N = 0, LT_OP_T = 1 };

/* Descriptors are plain memory of these sizes, initialised in place. */
typedef struct lt_desc {
  uint64_t data[32];
} lt_desc;
typedef struct lt_layout {
  uint64_t data[8];
} lt_layout;
typedef struct lt_preference {
  uint64_t data[8];
} lt_preference;
typedef struct lt_algo {
  uint64_t data[8];
} lt_algo;

enum { LT_DESC_TRANSA = 3, LT_DESC_TRANSB = 4, LT_DESC_EPILOGUE = 7, LT_DESC_BIAS_POINTER = 8, LT_DESC_BIAS_DATA_TYPE = 26 };
enum { LT_EPILOGUE_DEFAULT = 1, LT_EPILOGUE_RELU = 2, LT_EPILOGUE_BIAS = 4 }; /* but for the first, bits */
enum {
  LT_PREFERENCE_WORKSPACE = 1,      /* uint64: bytes at most */
  LT_PREFERENCE_REDUCTION_MASK = 3, /* uint32: schemes that are allowed beside none */
  LT_PREFERENCE_ALIGNMENT_A = 5,    /* uint32: bytes that the addresses are multiples of */
  LT_PREFERENCE_ALIGNMENT_B = 6,
  LT_PREFERENCE_ALIGNMENT_C = 7,
  LT_PREFERENCE_ALIGNMENT_D = 8
};
/* How the parts of a sum over k that was split are added up. NONE: it is not split. */
enum { LT_REDUCTION_NONE = 0, LT_REDUCTION_IN_PLACE = 1, LT_REDUCTION_COMPUTE_TYPE = 2, LT_REDUCTION_OUTPUT_TYPE = 4 };
enum { LT_CONFIG_ID = 0, LT_CONFIG_TILE = 1, LT_CONFIG_SPLITS = 2, LT_CONFIG_REDUCTION = 3, LT_CONFIG_STAGES = 6 };

typedef struct lt_result {
  lt_algo algo;
  size_t workspace_bytes;
  lt_status state; /* the other fields count only if it is LT_SUCCESS */
  float waves;     /* 1: the launch fills the device once */
  int32_t reserved[4];
} lt_result;

/* Every function: X(result, name behind "cublasLt", parameters). */
/* clang-format off */
#define LT_FUNCTIONS(X)                                                                                                              \
  X(size_t, GetVersion, (void))                                                                                                      \
  X(const char *, GetStatusName, (lt_status status))                                                                                 \
  X(lt_status, Create, (lt_handle *out_handle))                                                                                      \
  X(lt_status, Destroy, (lt_handle handle))                                                                                          \
  X(lt_status, MatmulDescInit_internal, (lt_desc *desc, size_t size, int32_t compute, int32_t scale_type))                           \
  X(lt_status, MatmulDescSetAttribute, (lt_desc *desc, int32_t attribute, const void *value, size_t size))                           \
  X(lt_status, MatrixLayoutInit_internal, (lt_layout *layout, size_t size, int32_t type, uint64_t rows, uint64_t cols, int64_t ld))  \
  X(lt_status, MatmulPreferenceInit_internal, (lt_preference *preference, size_t size))                                              \
  X(lt_status, MatmulPreferenceSetAttribute, (lt_preference *preference, int32_t attribute, const void *value, size_t size))         \
  X(lt_status, MatmulAlgoGetHeuristic, (lt_handle handle, const lt_desc *desc, const lt_layout *a, const lt_layout *b,               \
    const lt_layout *c, const lt_layout *d, const lt_preference *preference, int32_t asked, lt_result *results, int32_t *out_count)) \
  X(lt_status, MatmulAlgoConfigGetAttribute, (const lt_algo *algo, int32_t attribute, void *value, size_t size, size_t *written))    \
  X(lt_status, MatmulAlgoCheck, (lt_handle handle, const lt_desc *desc, const lt_layout *a, const lt_layout *b, const lt_layout *c,  \
    const lt_layout *d, const lt_algo *algo, lt_result *result))                                                                     \
  X(lt_status, Matmul, (lt_handle handle, const lt_desc *desc, const void *alpha, const void *a, const lt_layout *a_layout,          \
    const void *b, const lt_layout *b_layout, const void *beta, const void *c, const lt_layout *c_layout, void *d,                   \
    const lt_layout *d_layout, const lt_algo *algo, void *workspace, size_t workspace_bytes, void *stream))
/* clang-format on */

typedef struct lt_functions {
#define X(result, name, parameters) result(*name) parameters;
  LT_FUNCTIONS(X)
#undef X
} lt_functions;

#endif /* ADCGK_CUDA_LT_API_H_ */
