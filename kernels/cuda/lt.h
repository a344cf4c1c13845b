/* Products by cuBLASLt, where it is there: adcg.linear's first choice. The library is found and opened by lt.go; what is here
 * needs no more than the addresses of its functions.
 *
 * The choice of an algorithm. Once for a shape (M, N, K, element types, strides, alignment, epilogue), kept in a table: the same
 * shape gets the same algorithm in every run on a machine, since the library's answers depend on nothing else. It is asked for
 * plain algorithms (one sequence of sums over k, no workspace: one kernel when captured) and, where tiles of 64 x 64 do not fill
 * the device twice, for any that sums in f32 within the workspace (split k: a second kernel, sometimes a memset). The library
 * orders its answers by its estimate of their time, and says of each how many times its launch fills the device (waves). Where its
 * first answer is not plain, the first plain one is taken all the same if
 *
 *     idle(plain) <= plain_cost * idle(first),    idle = ceil(waves) / waves,
 *
 * that is, if it leaves not much more of the device idle. tests/gpu/lt.py measures what either costs.
 *
 * Workspace. Bytes that a plan reserves: 0 where tiles of 64 x 64 fill the device twice; else f32 sums of as many splits as would,
 * 16 and `workspace_bytes` at most. Beside them f32 results [M, N], where an activation that the library has not follows in a
 * kernel of our own and the result is bf16: it is rounded once.
 *
 * Alignment. Addresses are promised to the library as multiples of what they are multiples of, `alignment` bytes at most: a
 * captured launch stays right with any other address that is a multiple of that too. */
#ifndef ADCGK_CUDA_LT_H_
#define ADCGK_CUDA_LT_H_

#include "cuda_ops.h"

typedef struct adcgk_lt adcgk_lt;

typedef struct adcgk_lt_options {
  double plain_cost;        /* see above; 1.25. 0: the library's first answer; infinity: always plain */
  uint64_t workspace_bytes; /* of one op, for sums of split products; 8 MiB. 0: none are split */
  int32_t alignment;        /* 16: a power of two */
  int32_t tf32;             /* non-zero: f32 factors may be cut to 10 bits of mantissa */
  /* The count of rows whose algorithm serves every count, for devices that are batch_invariant; 0: those use our own kernel. A row's
   * bits then depend on itself alone as far as one algorithm of the library's sums every row alike, which it does not promise. */
  int64_t pinned_rows;
} adcgk_lt_options;
#define ADCGK_LT_OPTIONS_INIT {1.25, 8 << 20, 16, 0, 0}

/* Names of the functions that are needed, NULL at the end. */
extern const char *const adcgk_lt_names[];

/* Opens cuBLASLt for the device whose context is current on this thread.
 *   functions  in: the addresses of adcgk_lt_names, in that order
 *   options    in: NULL for the defaults
 *   message    out: `size` bytes, why it failed; "function: what: value"
 * NULL if it failed. The library must stay loaded until adcgk_lt_close. */
adcgk_lt *adcgk_lt_open(void *const *functions, const adcgk_lt_options *options, char *message, size_t size);

/* Closes it; its device's context must be current, and nothing of it may run. NULL does nothing. */
void adcgk_lt_close(adcgk_lt *lt);

/* The library's version, 130102 for 13.1.2. */
int64_t adcgk_lt_version(const adcgk_lt *lt);

/* What a launch in LT's name answers for a call that is not for it: our own kernel serves. */
#define ADCGK_LT_DECLINED (-1)

/* adcg.linear: enqueues on call->stream itself, and a kernel of our own behind it through the launcher where the activation needs
 * one. Safe from many threads at once. ADCGK_LT_DECLINED: cuBLASLt is not there or cannot do it (mixed element types, rows in
 * pieces, a batch_invariant device); so it answers to every call of that shape. */
adcg_status adcgk_lt_linear(const adcg_op_call *call, const void *user_data);

/* Its workspace, in bytes; 0 if it would decline. */
size_t adcgk_lt_workspace(const adcg_op_call *call, const void *user_data);

/* What was chosen for a shape, for reports: "plain" or what it is. */
typedef struct adcgk_lt_choice {
  int32_t id, tile, stages, splits, reduction;
  int32_t first_plain; /* whether the library's first answer was plain */
  float waves, first_waves;
  uint64_t workspace_bytes;
} adcgk_lt_choice;

/* The choice for a call, as adcgk_lt_linear would make it; ADCGK_LT_DECLINED likewise. */
adcg_status adcgk_lt_describe(const adcg_op_call *call, const void *user_data, adcgk_lt_choice *out_choice);

#endif /* ADCGK_CUDA_LT_H_ */
