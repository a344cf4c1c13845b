/* The kernels of the image by name: an enum for the launchers, and the table of names from the same list (registry.c). */
#ifndef ADCGK_CUDA_KERNELS_H_
#define ADCGK_CUDA_KERNELS_H_

/* clang-format off */
#define ADCGK_CUDA_OF_BOTH(K, name) K(name##_f32) K(name##_bf16)
#define ADCGK_CUDA_OF_FOUR(K, name) K(name##_f32_f32) K(name##_f32_bf16) K(name##_bf16_f32) K(name##_bf16_bf16)

/* Of those in pairs, f32 is the first; of those in fours, the two types count as a number of two bits, f32 being 0. */
#define ADCGK_CUDA_KERNELS(K) \
  K(adcg_set_batch) K(adcg_zero_tail) K(adcg_copy) \
  ADCGK_CUDA_OF_BOTH(K, adcg_add) ADCGK_CUDA_OF_BOTH(K, adcg_mul) ADCGK_CUDA_OF_BOTH(K, adcg_silu_mul) \
  ADCGK_CUDA_OF_BOTH(K, adcg_gelu_mul) ADCGK_CUDA_OF_BOTH(K, adcg_gelu_tanh_mul) ADCGK_CUDA_OF_BOTH(K, adcg_sigmoid_mul) \
  ADCGK_CUDA_OF_BOTH(K, adcg_silu) ADCGK_CUDA_OF_BOTH(K, adcg_relu2) ADCGK_CUDA_OF_BOTH(K, adcg_sigmoid) \
  K(adcg_cast_f32_bf16) K(adcg_cast_bf16_f32) \
  ADCGK_CUDA_OF_BOTH(K, adcg_rms_norm) ADCGK_CUDA_OF_BOTH(K, adcg_layer_norm) ADCGK_CUDA_OF_BOTH(K, adcg_softmax) \
  ADCGK_CUDA_OF_BOTH(K, adcg_rope) \
  ADCGK_CUDA_OF_FOUR(K, adcg_linear_rows) ADCGK_CUDA_OF_FOUR(K, adcg_linear_tile) K(adcg_linear_finish) \
  ADCGK_CUDA_OF_FOUR(K, adcg_take) ADCGK_CUDA_OF_BOTH(K, adcg_argmax) \
  K(adcg_attention_metadata) K(adcg_paged_metadata) \
  K(adcg_attention_write) K(adcg_attention_plain) ADCGK_CUDA_OF_BOTH(K, adcg_attention_combine) \
  K(adcg_attention_tile_64_bf16) K(adcg_attention_tile_64_fp8) K(adcg_attention_tile_128_bf16) K(adcg_attention_tile_128_fp8) \
  K(adcg_attention_wide_128_bf16) K(adcg_attention_wide_128_fp8) \
  K(adcg_attention_split_64_bf16) K(adcg_attention_split_64_fp8) K(adcg_attention_split_128_bf16) K(adcg_attention_split_128_fp8)
/* clang-format on */

/* ADCGK_K_adcg_set_batch and so on: where a kernel stands in adcgk_cuda.functions. */
enum {
#define K(name) ADCGK_K_##name,
  ADCGK_CUDA_KERNELS(K)
#undef K
      ADCGK_NUM_KERNELS
};

#endif /* ADCGK_CUDA_KERNELS_H_ */
