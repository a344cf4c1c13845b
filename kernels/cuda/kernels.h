/* The kernels of the image by name: an enum for the launchers, the table of names from the same list (registry.c). */
#ifndef ADCGK_CUDA_KERNELS_H_
#define ADCGK_CUDA_KERNELS_H_

/* clang-format off */
#define ADCGK_CUDA_KERNELS(K) \
  K(adcg_set_batch)
/* clang-format on */

/* ADCGK_K_adcg_set_batch and so on: where a kernel stands in adcgk_cuda.functions. */
enum {
#define K(name) ADCGK_K_##name,
  ADCGK_CUDA_KERNELS(K)
#undef K
      ADCGK_NUM_KERNELS
};

#endif /* ADCGK_CUDA_KERNELS_H_ */
