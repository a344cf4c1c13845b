/* One product as cuBLASLt sees it, and the choice of its algorithm (lt_choice.c). */
#ifndef ADCGK_CUDA_LT_CHOICE_H_
#define ADCGK_CUDA_LT_CHOICE_H_

#include "lt.h"
#include "lt_api.h"

/* y[M, N] = epilogue(x[M, K] w[N, K]^T), everything that a choice may depend on. No padding: problems are compared as bytes. */
typedef struct lt_problem {
  int64_t m, n, k;
  int64_t ldx, ldy;                            /* elements from row to row; of w it is k */
  int32_t x_type, y_type, bias_type;           /* LT_R_*; w is as x. Of bias 0 if there is none */
  uint32_t epilogue;                           /* LT_EPILOGUE_* */
  uint32_t x_align, w_align, y_align, b_align; /* bytes that addresses are promised to be multiples of; of bias 0 if there is none */
  int32_t pinned, unused;                      /* pinned: one algorithm for every m (adcgk_lt_options) */
} lt_problem;

/* The descriptors of a problem. Column-major, y^T [N, M] = w [K, N]^T x^T [K, M]: A is w, B is x, C and D are y. */
typedef struct lt_operation {
  lt_desc desc;
  lt_layout a, b, d;
} lt_operation;

typedef struct lt_choice {
  lt_algo algo;
  adcgk_lt_choice info;
  int32_t usable; /* 0: the library has nothing for the problem */
} lt_choice;

/* A slot of the table of choices: empty, being written, or there for good. */
typedef struct lt_entry {
  _Atomic int32_t state;
  lt_problem problem;
  lt_choice choice;
} lt_entry;

enum { LT_ENTRIES = 4096 }; /* a power of two */

struct adcgk_lt {
  lt_functions call;
  lt_handle handle;
  adcgk_lt_options options;
  int64_t version;
  lt_entry *entries; /* [LT_ENTRIES] */
};

/* A call of the library that failed. */
typedef struct lt_failure {
  const char *function;
  lt_status status;
} lt_failure;

/* Fills the descriptors for `rows` rows in place of the problem's. False: it failed. */
bool lt_describe(const struct adcgk_lt *lt, const lt_problem *p, int64_t rows, const void *bias, lt_operation *o, lt_failure *failure);

/* Bytes of workspace that split sums of this product may take. */
uint64_t lt_split_bytes(const struct adcgk_lt *lt, const adcgk_cuda *device, int64_t m, int64_t n);

/* The choice for a problem, from the table or made and kept. False: a call failed; nothing is kept. */
bool lt_choose(const struct adcgk_lt *lt, const adcgk_cuda *device, const lt_problem *p, const void *bias, const lt_operation *o,
               lt_choice *out, lt_failure *failure);

#endif /* ADCGK_CUDA_LT_CHOICE_H_ */
