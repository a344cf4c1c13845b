/* Descriptors. The real library takes any number when one is set, and refuses it where it is used; sizes alone are checked at once
 * (recorded.txt). */
#include <string.h>

#include "state.h"

#define ENTER(name)                                     \
  do {                                                  \
    const cublasStatus_t fault_ = enter(name);          \
    if (fault_ != CUBLAS_STATUS_SUCCESS) return fault_; \
  } while (0)

/* Bytes of each attribute of a product; 0: there is none of that number. */
static const unsigned char desc_sizes[DESC_ATTRIBUTES] = {4, 4, 4, 4, 4, 4, 4, 4, 8, 0, 8, 8, 8, 8, 8, 4, 4, 8, 8, 8,
                                                          8, 8, 4, 8, 8, 1, 4, 0, 0, 0, 0, 4, 4, 4, 4, 4, 8, 4, 8, 0};
static const unsigned char preference_sizes[PREFERENCE_ATTRIBUTES] = {4, 8, 0, 4, 0, 4, 4, 4, 4, 4, 0, 0, 8};

EXPORT cublasStatus_t cublasLtMatmulDescInit_internal(matmul_desc *desc, size_t size, int compute, int scale_type) {
  ENTER("cublasLtMatmulDescInit_internal");
  if (!desc) return refuse(CUBLAS_STATUS_INVALID_VALUE, "desc: NULL");
  if (size < sizeof *desc) return refuse(CUBLAS_STATUS_ALLOC_FAILED, "desc: %zu bytes", size);
  *desc = (matmul_desc){
      .magic = DESC_MAGIC, .compute = compute, .scale_type = scale_type, .epilogue = CUBLASLT_EPILOGUE_DEFAULT, .bias_type = -1};
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(matmul_desc *desc, int attribute, const void *value, size_t size) {
  ENTER("cublasLtMatmulDescSetAttribute");
  if (!desc || desc->magic != DESC_MAGIC) return refuse(CUBLAS_STATUS_INVALID_VALUE, "desc: not initialised");
  if (attribute < 0 || attribute >= DESC_ATTRIBUTES || desc_sizes[attribute] == 0)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "attribute %d of a product: there is none", attribute);
  if (!value || size != desc_sizes[attribute])
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "attribute %d of a product: %zu bytes", attribute, size);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: memcpy(&desc->pointer_mode, value, size); break;
    case CUBLASLT_MATMUL_DESC_TRANSA: memcpy(&desc->transa, value, size); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: memcpy(&desc->transb, value, size); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: memcpy(&desc->epilogue, value, size); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: memcpy(&desc->bias, value, size); break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: memcpy(&desc->bias_type, value, size); break;
    default: desc->others++;
  }
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatrixLayoutInit_internal(matrix_layout *layout, size_t size, int type, uint64_t rows, uint64_t cols,
                                                        int64_t ld) {
  ENTER("cublasLtMatrixLayoutInit_internal");
  if (!layout) return refuse(CUBLAS_STATUS_INVALID_VALUE, "layout: NULL");
  if (size < sizeof *layout) return refuse(CUBLAS_STATUS_ALLOC_FAILED, "layout: %zu bytes", size);
  *layout = (matrix_layout){.magic = LAYOUT_MAGIC, .type = type, .rows = rows, .cols = cols, .ld = ld};
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceInit_internal(preference *p, size_t size) {
  ENTER("cublasLtMatmulPreferenceInit_internal");
  if (!p) return refuse(CUBLAS_STATUS_INVALID_VALUE, "preference: NULL");
  if (size < sizeof *p) return refuse(CUBLAS_STATUS_ALLOC_FAILED, "preference: %zu bytes", size);
  *p = (preference){.magic = PREFERENCE_MAGIC, .schemes = 7, .alignment = {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(preference *p, int attribute, const void *value, size_t size) {
  ENTER("cublasLtMatmulPreferenceSetAttribute");
  if (!p || p->magic != PREFERENCE_MAGIC) return refuse(CUBLAS_STATUS_INVALID_VALUE, "preference: not initialised");
  if (attribute < 0 || attribute >= PREFERENCE_ATTRIBUTES || preference_sizes[attribute] == 0)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "attribute %d of a preference: there is none", attribute);
  if (!value || size != preference_sizes[attribute])
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "attribute %d of a preference: %zu bytes", attribute, size);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: memcpy(&p->workspace, value, size); break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: memcpy(&p->schemes, value, size); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      memcpy(&p->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
      break;
    default: p->others++;
  }
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const algorithm *algo, int attribute, void *value, size_t size,
                                                           size_t *written) {
  ENTER("cublasLtMatmulAlgoConfigGetAttribute");
  if (!algo || algo->magic != ALGORITHM_MAGIC) return refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: not initialised");
  int32_t word;
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_ID: word = algo->id; break;
    case CUBLASLT_ALGO_CONFIG_TILE_ID: word = algo->tile; break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM: word = algo->splits; break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME: word = algo->scheme; break;
    case CUBLASLT_ALGO_CONFIG_STAGES_ID: word = 0; break;
    default: return refuse(CUBLAS_STATUS_INVALID_VALUE, "attribute %d of an algorithm", attribute);
  }
  if (size == 0 ? !written : !value || size != sizeof word)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "attribute %d of an algorithm: %zu bytes", attribute, size);
  if (size > 0) memcpy(value, &word, sizeof word);
  if (written) *written = sizeof word;
  return CUBLAS_STATUS_SUCCESS;
}

/* ---- Descriptors against each other ----------------------------------------------------------------------------------------------- */

static cublasStatus_t check_layout(const matrix_layout *l, char name) {
  if (!l || l->magic != LAYOUT_MAGIC) return refuse(CUBLAS_STATUS_INVALID_VALUE, "layout of %c: not initialised", name);
  if (l->type != CUDA_R_32F && l->type != CUDA_R_16BF)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "layout of %c: type %lld", name, (long long)l->type);
  if (l->rows < 1 || l->cols < 1 || l->ld < (int64_t)l->rows)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "layout of %c: %llu x %llu, ld %lld", name, (unsigned long long)l->rows,
                  (unsigned long long)l->cols, (long long)l->ld);
  return CUBLAS_STATUS_SUCCESS;
}

static bool known_epilogue(uint32_t epilogue) {
  switch (epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_BIAS: return true;
    default: return false;
  }
}

cublasStatus_t read_problem(const matmul_desc *desc, const matrix_layout *a, const matrix_layout *b, const matrix_layout *c,
                            const matrix_layout *d, problem *p) {
  if (!desc || desc->magic != DESC_MAGIC) return refuse(CUBLAS_STATUS_INVALID_VALUE, "desc: not initialised");
  if (desc->compute != CUBLAS_COMPUTE_32F && desc->compute != CUBLAS_COMPUTE_32F_FAST_TF32)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "compute type %d", desc->compute);
  if (desc->scale_type != CUDA_R_32F) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "scale type %d", desc->scale_type);
  if (desc->pointer_mode != 0 || desc->others != 0)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "attributes of the product that the stand-in does not do");
  if ((desc->transa | desc->transb) & ~CUBLAS_OP_T) return refuse(CUBLAS_STATUS_INVALID_VALUE, "operation: neither N nor T");
  if (!known_epilogue(desc->epilogue)) return refuse(CUBLAS_STATUS_INVALID_VALUE, "epilogue %u", desc->epilogue);
  const matrix_layout *const layouts[] = {a, b, c, d};
  for (int i = 0; i < 4; i++) {
    const cublasStatus_t status = check_layout(layouts[i], "ABCD"[i]);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  const uint64_t m = desc->transa ? a->cols : a->rows, k = desc->transa ? a->rows : a->cols;
  const uint64_t n = desc->transb ? b->rows : b->cols, kb = desc->transb ? b->cols : b->rows;
  if (k != kb || d->rows != m || d->cols != n || c->rows != m || c->cols != n)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "extents: op(A) %llu x %llu, op(B) %llu x %llu, D %llu x %llu", (unsigned long long)m,
                  (unsigned long long)k, (unsigned long long)kb, (unsigned long long)n, (unsigned long long)d->rows,
                  (unsigned long long)d->cols);
  if (a->type != b->type || c->type != d->type || (a->type == CUDA_R_32F && d->type != CUDA_R_32F))
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "types: A %lld, B %lld, C %lld, D %lld", (long long)a->type, (long long)b->type,
                  (long long)c->type, (long long)d->type);
  if ((desc->epilogue & CUBLASLT_EPILOGUE_BIAS) && desc->bias_type != -1 && desc->bias_type != d->type)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "bias of type %d, D has %lld", desc->bias_type, (long long)d->type);
  *p = (problem){desc, a, b, c, d, (int64_t)m, (int64_t)n, (int64_t)k};
  return CUBLAS_STATUS_SUCCESS;
}
