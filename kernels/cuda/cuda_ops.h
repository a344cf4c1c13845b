/* The CUDA device's op library: C functions that launch the kernels of the embedded image, behind one table as host.h has.
 *
 * Internal to the library. No CUDA header and no call of the driver: a launch function checks what it is given, fills the one
 * argument of a kernel (args.h) and hands it to the call's launcher. It keeps no state, and may run on any thread. */
#ifndef ADCGK_CUDA_H_
#define ADCGK_CUDA_H_

#include <adcg/adcg.h>

struct adcgk_lt;

/* One device, as the kernels' launchers see it. */
typedef struct adcgk_cuda {
  void *const *functions;    /* the CUfunction of each kernel, in the order of adcgk_cuda_kernels */
  const struct adcgk_lt *lt; /* cuBLASLt; NULL: not there */
  int32_t multiprocessors;
  int32_t compute;         /* 90 for sm_90 */
  int32_t batch_invariant; /* a row's bits may depend on itself alone: cuBLASLt serves only if it is pinned to one algorithm (lt.h) */
  int32_t unused;
} adcgk_cuda;

/* user_data of every launch and workspace function of this library; engine/tape/tape.h declares the same two words. */
typedef struct adcgk_cuda_node {
  const adcgk_cuda *device;
  void *state; /* from prepare; NULL if the op has none */
} adcgk_cuda_node;

typedef struct adcgk_cuda_op {
  const char *name;
  adcg_op_launch_fn launch;       /* NULL: a view, nothing to run */
  adcg_op_workspace_fn workspace; /* NULL: none */
  /* As in kernels/host/host.h: one block of malloc's, the caller's to free(). NULL: no state. */
  adcg_status (*prepare)(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs, void **out_state,
                         void (*set_error)(const char *));
  int32_t zeroes_tail; /* its kernels zero rows [real, bucket) of its outputs */
} adcgk_cuda_op;

/* The op of that name, "adcg.linear"; NULL: there is none for CUDA. */
const adcgk_cuda_op *adcgk_cuda_find(const char *name);

/* Names of the image's kernels, NULL at the end. */
extern const char *const adcgk_cuda_kernels[];

/* ---- The engine's own kernels -------------------------------------------------------------------------------------- */

/* Enqueues `*device_batch = *batch`. The values travel as the kernel's argument: `batch` is read at the call. */
adcg_status adcgk_cuda_set_batch(const adcgk_cuda *device, const adcg_launcher *launcher, const adcg_batch *batch,
                                 adcg_batch *device_batch);

/* Enqueues zeros for rows [real, rows) of a tensor; how many are real follows from its first dim and the batch as it is when the
 * kernel runs. `strides` are in elements, one a dim, the last one 1; NULL: compact. */
adcg_status adcgk_cuda_zero_tail(const adcgk_cuda *device, const adcg_launcher *launcher, const adcg_batch *device_batch, void *data,
                                 const adcg_type *type, const int64_t *strides, int64_t rows);

#endif /* ADCGK_CUDA_H_ */
