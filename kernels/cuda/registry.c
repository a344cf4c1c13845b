/* The table of ops, and the names of the kernels. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launch.h"

static const adcgk_cuda_op ops[] = {
    {"adcg.embedding", adcgk_cuda_embedding, NULL, NULL, 0},
    {"adcg.linear", adcgk_cuda_linear, adcgk_cuda_linear_workspace, NULL, 0},
    {"adcg.rms_norm", adcgk_cuda_rms_norm, NULL, NULL, 0},
    {"adcg.layer_norm", adcgk_cuda_layer_norm, NULL, NULL, 0},
    {"adcg.add_rms_norm", adcgk_cuda_add_rms_norm, NULL, NULL, 0},
    {"adcg.qk_norm", adcgk_cuda_qk_norm, NULL, NULL, 0},
    {"adcg.softmax", adcgk_cuda_softmax, NULL, NULL, 0},
    {"adcg.add", adcgk_cuda_add, NULL, NULL, 0},
    {"adcg.mul", adcgk_cuda_mul, NULL, NULL, 0},
    {"adcg.silu_mul", adcgk_cuda_silu_mul, NULL, NULL, 0},
    {"adcg.gelu_mul", adcgk_cuda_gelu_mul, NULL, NULL, 0},
    {"adcg.sigmoid_mul", adcgk_cuda_sigmoid_mul, NULL, NULL, 0},
    {"adcg.silu", adcgk_cuda_silu, NULL, NULL, 0},
    {"adcg.relu2", adcgk_cuda_relu2, NULL, NULL, 0},
    {"adcg.sigmoid", adcgk_cuda_sigmoid, NULL, NULL, 0},
    {"adcg.cast", adcgk_cuda_cast, NULL, NULL, 0},
    {"adcg.rope", adcgk_cuda_rope, NULL, adcgk_cuda_rope_prepare, 0},
    {"adcg.attention", adcgk_cuda_attention, adcgk_cuda_attention_workspace, NULL, 1},
    {"adcg.paged_attention", adcgk_cuda_paged_attention, adcgk_cuda_paged_attention_workspace, NULL, 1},
    {"adcg.attention_metadata", adcgk_cuda_attention_metadata, NULL, NULL, 1},
    {"adcg.paged_metadata", adcgk_cuda_paged_metadata, NULL, NULL, 1},
    {"adcg.gather_tokens", adcgk_cuda_gather_tokens, NULL, NULL, 1},
    {"adcg.argmax", adcgk_cuda_argmax, NULL, NULL, 0},
    {"adcg.reshape", NULL, NULL, NULL, 0},
    {"adcg.slice", adcgk_cuda_slice, NULL, NULL, 0},
    {"adcg.concat", adcgk_cuda_concat, NULL, NULL, 0},
};

const adcgk_cuda_op *adcgk_cuda_find(const char *name) {
  for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
    if (strcmp(ops[i].name, name) == 0) return &ops[i];
  }
  return NULL;
}

const char *const adcgk_cuda_kernels[] = {
#define K(name) #name,
    ADCGK_CUDA_KERNELS(K)
#undef K
        NULL};

adcg_status adcgk_cuda_fail(const adcg_op_call *call, const char *format, ...) {
  char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  return adcg_op_fail(call, message);
}
