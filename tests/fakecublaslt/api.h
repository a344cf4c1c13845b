/* cuBLASLt's interface as far as the stand-in answers it: own declarations, written from the documentation and apart from those
 * of kernels/cuda, so that a wrong number there shows here. recorded.txt holds both to real libraries. */
#ifndef ADCG_TESTS_FAKECUBLASLT_API_H_
#define ADCG_TESTS_FAKECUBLASLT_API_H_

#include <stddef.h>
#include <stdint.h>

enum {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_INITIALIZED = 1,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_ARCH_MISMATCH = 8,
  CUBLAS_STATUS_MAPPING_ERROR = 11,
  CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_INTERNAL_ERROR = 14,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
  CUBLAS_STATUS_LICENSE_ERROR = 16
};
enum { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
enum { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_32F_FAST_TF32 = 77 };
enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum {
  CUBLASLT_MATMUL_DESC_POINTER_MODE = 2,
  CUBLASLT_MATMUL_DESC_TRANSA = 3,
  CUBLASLT_MATMUL_DESC_TRANSB = 4,
  CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8,
  CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE = 26,
  DESC_ATTRIBUTES = 40
};
enum {
  CUBLASLT_EPILOGUE_DEFAULT = 1,
  CUBLASLT_EPILOGUE_RELU = 2,
  CUBLASLT_EPILOGUE_BIAS = 4,
  CUBLASLT_EPILOGUE_RELU_BIAS = 6,
  CUBLASLT_EPILOGUE_GELU = 32,
  CUBLASLT_EPILOGUE_GELU_BIAS = 36
};
enum {
  CUBLASLT_MATMUL_PREF_SEARCH_MODE = 0,
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
  CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8,
  CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT = 9,
  CUBLASLT_MATMUL_PREF_IMPL_MASK = 12,
  PREFERENCE_ATTRIBUTES = 13
};
enum {
  CUBLASLT_REDUCTION_SCHEME_NONE = 0,
  CUBLASLT_REDUCTION_SCHEME_INPLACE = 1,
  CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2,
  CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE = 4
};
enum {
  CUBLASLT_ALGO_CONFIG_ID = 0,
  CUBLASLT_ALGO_CONFIG_TILE_ID = 1,
  CUBLASLT_ALGO_CONFIG_SPLITK_NUM = 2,
  CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME = 3,
  CUBLASLT_ALGO_CONFIG_STAGES_ID = 6,
  CONFIG_ATTRIBUTES = 7
};

typedef struct cublasLtContext *cublasLtHandle_t;
typedef int cublasStatus_t;

/* What the library keeps in a caller's descriptors; zero-filled before the initialisation writes it. */
typedef struct matmul_desc {
  uint64_t magic;
  int32_t compute, scale_type;
  int32_t pointer_mode, transa, transb;
  uint32_t epilogue;
  const void *bias;
  int32_t bias_type; /* -1: as D */
  uint32_t others;   /* attributes set that the stand-in does nothing with */
  uint64_t unused[26];
} matmul_desc;

typedef struct matrix_layout {
  uint64_t magic;
  int64_t type;
  uint64_t rows, cols;
  int64_t ld;
  uint64_t unused[3];
} matrix_layout;

typedef struct preference {
  uint64_t magic;
  uint64_t workspace;
  uint32_t schemes;
  uint32_t alignment[4]; /* A, B, C, D */
  uint32_t others;
  uint64_t unused[3];
} preference;

typedef struct algorithm {
  uint64_t magic;
  int32_t id, splits;
  int32_t scheme, tile;
  uint64_t unused[5];
} algorithm;

typedef struct heuristic_result {
  algorithm algo;
  size_t workspace_bytes;
  cublasStatus_t state;
  float waves;
  int32_t reserved[4];
} heuristic_result;

_Static_assert(sizeof(matmul_desc) == 256 && sizeof(matrix_layout) == 64 && sizeof(preference) == 64 && sizeof(algorithm) == 64 &&
                   sizeof(heuristic_result) == 96,
               "the sizes that callers reserve");

#endif
