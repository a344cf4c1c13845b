/* What the launchers of this folder share. */
#ifndef ADCGK_CUDA_LAUNCH_H_
#define ADCGK_CUDA_LAUNCH_H_

#include "args.h"
#include "cuda.h"
#include "kernels.h"

/* Launches kernel ADCGK_K_... on `blocks` blocks of `threads`; args is its struct. No blocks: nothing to do. */
static inline adcg_status adcgk_cuda_enqueue(const adcgk_cuda *device, const adcg_launcher *launcher, int32_t kernel, int64_t blocks,
                                             int32_t threads, uint32_t shared_bytes, void *args) {
  if (blocks <= 0) return ADCG_OK;
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

#endif /* ADCGK_CUDA_LAUNCH_H_ */
