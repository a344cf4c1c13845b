/* The arguments of the kernels: each has exactly one, a struct by value. Plain C, shared by the launchers (.c) and the
 * kernels (.cu). Structs have no padding: what is captured is compared word by word when pointers move, and these are all the
 * words that there are. Pointers are the tensors' own or lie a fixed distance from them; nothing else here depends on an address,
 * its alignment neither: a captured launch may be given others later, so that kernels look at alignment when they run. */
#ifndef ADCGK_CUDA_ARGS_H_
#define ADCGK_CUDA_ARGS_H_

#include "../common/runs.h"

#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"
#endif

typedef struct adcg_set_batch_args {
  adcg_batch *to;
  adcg_batch batch;
} adcg_set_batch_args;

#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC diagnostic pop
#endif

#endif /* ADCGK_CUDA_ARGS_H_ */
