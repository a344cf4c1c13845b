/* What the launchers of this folder share. */
#ifndef ADCGK_CUDA_LAUNCH_H_
#define ADCGK_CUDA_LAUNCH_H_

#include "../common/strides.h"
#include "../common/tensor.h"
#include "args.h"
#include "cuda_ops.h"
#include "kernels.h"

enum { ADCGK_CHUNK = 8 }; /* elements of a row that a thread takes at a time, as in device.h */

/* Launches kernel ADCGK_K_... on `blocks` blocks of `threads`; args is its struct. No blocks: nothing to do. More than a grid
 * holds would need tensors of terabytes. */
static inline adcg_status adcgk_cuda_enqueue(const adcgk_cuda *device, const adcg_launcher *launcher, int32_t kernel, int64_t blocks,
                                             int32_t threads, uint32_t shared_bytes, void *args) {
  if (blocks <= 0) return ADCG_OK;
  if (blocks > INT32_MAX) return ADCG_ERR_UNSUPPORTED;
  adcg_kernel_launch launch = ADCG_KERNEL_LAUNCH_INIT;
  launch.function = device->functions[kernel];
  launch.grid[0] = (uint32_t)blocks;
  launch.block[0] = (uint32_t)threads;
  launch.shared_bytes = shared_bytes;
  launch.params = (void *[]){args};
  return launcher->launch(launcher, &launch);
}

static inline const adcgk_cuda *adcgk_cuda_of(const void *user_data) { return ((const adcgk_cuda_node *)user_data)->device; }

/* The same for an op's launch. */
static inline adcg_status adcgk_cuda_launch(const adcg_op_call *call, const void *user_data, int32_t kernel, int64_t blocks,
                                            int32_t threads, uint32_t shared_bytes, void *args) {
  return adcgk_cuda_enqueue(adcgk_cuda_of(user_data), call->launcher, kernel, blocks, threads, shared_bytes, args);
}

/* Ends a launch with a formatted message (registry.c). */
adcg_status adcgk_cuda_fail(const adcg_op_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Blocks of 256 threads for so many chunks. */
static inline int64_t adcgk_cuda_blocks(int64_t chunks) { return adcgk_ceil_div(chunks, 256); }

/* The same for kernels that go round: so many that the device is full, or fewer if there are not so many 16 bytes. */
static inline int64_t adcgk_cuda_blocks_around(const adcgk_cuda *device, int64_t bytes) {
  return adcgk_min(adcgk_cuda_blocks(adcgk_ceil_div(bytes, 16)), 8 * (int64_t)device->multiprocessors);
}

/* Runs in bytes, of those in elements of `size` bytes (parts.c). */
adcgk_runs adcgk_cuda_bytes(adcgk_runs runs, int64_t size);

/* Copies a tensor to one of its type and shape (parts.c). */
adcg_status adcgk_cuda_copy(const adcg_op_call *call, const void *user_data, const DLTensor *to, const DLTensor *from);

/* ---- Ops ----------------------------------------------------------------------------------------------- */

adcg_status adcgk_cuda_embedding(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_linear(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_linear_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data);
adcg_status adcgk_cuda_rms_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_layer_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_add_rms_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_qk_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_softmax(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_add(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_silu_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_gelu_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_sigmoid_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_silu(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_relu2(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_sigmoid(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_cast(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_rope(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_rope_prepare(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs,
                                    void **out_state, void (*set_error)(const char *));
adcg_status adcgk_cuda_attention_metadata(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_paged_metadata(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_attention(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_paged_attention(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_attention_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data);
adcg_status adcgk_cuda_paged_attention_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data);
adcg_status adcgk_cuda_gather_tokens(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_argmax(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_slice(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cuda_concat(const adcg_op_call *call, void *user_data);

#endif /* ADCGK_CUDA_LAUNCH_H_ */
