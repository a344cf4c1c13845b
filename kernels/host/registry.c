/* The table of ops and the choice of the instruction set. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

static const adcgk_op ops[] = {
    {"adcg.embedding", adcgk_embedding, NULL, NULL},
    {"adcg.linear", adcgk_linear, NULL, NULL},
    {"adcg.rms_norm", adcgk_rms_norm, NULL, NULL},
    {"adcg.layer_norm", adcgk_layer_norm, NULL, NULL},
    {"adcg.add_rms_norm", adcgk_add_rms_norm, NULL, NULL},
    {"adcg.qk_norm", adcgk_qk_norm, NULL, NULL},
    {"adcg.softmax", adcgk_softmax, NULL, NULL},
    {"adcg.add", adcgk_add, NULL, NULL},
    {"adcg.mul", adcgk_mul, NULL, NULL},
    {"adcg.silu_mul", adcgk_silu_mul, NULL, NULL},
    {"adcg.gelu_mul", adcgk_gelu_mul, NULL, NULL},
    {"adcg.sigmoid_mul", adcgk_sigmoid_mul, NULL, NULL},
    {"adcg.silu", adcgk_silu, NULL, NULL},
    {"adcg.relu2", adcgk_relu2, NULL, NULL},
    {"adcg.sigmoid", adcgk_sigmoid, NULL, NULL},
    {"adcg.cast", adcgk_cast, NULL, NULL},
    {"adcg.rope", adcgk_rope, NULL, adcgk_rope_prepare},
    {"adcg.attention", adcgk_attention, NULL, NULL},
    {"adcg.paged_attention", adcgk_paged_attention, NULL, NULL},
    {"adcg.mla_attention", adcgk_mla_attention, adcgk_mla_workspace, NULL},
    {"adcg.paged_mla_attention", adcgk_paged_mla_attention, adcgk_mla_workspace, NULL},
    {"adcg.attention_metadata", adcgk_attention_metadata, NULL, NULL},
    {"adcg.paged_metadata", adcgk_paged_metadata, NULL, NULL},
    {"adcg.gather_tokens", adcgk_gather_tokens, NULL, NULL},
    {"adcg.argmax", adcgk_argmax, NULL, NULL},
    {"adcg.sample", adcgk_sample, NULL, NULL},
    {"adcg.reshape", NULL, NULL, NULL},
    {"adcg.slice", adcgk_slice, NULL, NULL},
    {"adcg.concat", adcgk_concat, NULL, NULL},
    {"adcg.causal_conv1d", adcgk_causal_conv1d, NULL, NULL},
    {"adcg.ssm", adcgk_ssm_scan, NULL, NULL},
    {"adcg.ssm_metadata", adcgk_ssm_metadata, NULL, NULL},
    {"adcg.delta_rule", adcgk_delta_rule, NULL, NULL},
    {"adcg.gated_delta_rule", adcgk_gated_delta_rule, NULL, NULL},
    {"adcg.gdn_gating", adcgk_gdn_gating, NULL, NULL},
    {"adcg.moe_router", adcgk_moe_router, adcgk_moe_router_workspace, NULL},
    {"adcg.moe", adcgk_moe, adcgk_moe_workspace, NULL},
};

const adcgk_op *adcgk_find(const char *name) {
  for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
    if (strcmp(ops[i].name, name) == 0) return &ops[i];
  }
  return NULL;
}

/* Best first. */
static const adcgk_kernels *const all[] = {
#if defined(__x86_64__)
    &adcgk_kernels_avx512, &adcgk_kernels_avx2,
#elif defined(__aarch64__)
    &adcgk_kernels_neon,
#endif
    &adcgk_kernels_c};
enum { COUNT = sizeof(all) / sizeof(all[0]) };

static bool supported(const adcgk_kernels *kernels) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (kernels == &adcgk_kernels_avx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
  if (kernels == &adcgk_kernels_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  (void)kernels;
  return true;
}

static _Atomic(const adcgk_kernels *) active; /* NULL until first asked for */

static const adcgk_kernels *best(void) {
  for (size_t i = 0; i < COUNT; i++) {
    if (supported(all[i])) return all[i];
  }
  return &adcgk_kernels_c;
}

const adcgk_kernels *adcgk_active(void) {
  const adcgk_kernels *kernels = atomic_load_explicit(&active, memory_order_acquire);
  if (!kernels) { /* threads that race here find the same */
    kernels = best();
    atomic_store_explicit(&active, kernels, memory_order_release);
  }
  return kernels;
}

const char *adcgk_isa(void) { return adcgk_active()->name; }

adcg_status adcgk_set_isa(const char *name) {
  if (name[0] == '\0') {
    atomic_store_explicit(&active, best(), memory_order_release);
    return ADCG_OK;
  }
  for (size_t i = 0; i < COUNT; i++) {
    if (strcmp(all[i]->name, name) != 0) continue;
    if (!supported(all[i])) return ADCG_ERR_UNSUPPORTED;
    atomic_store_explicit(&active, all[i], memory_order_release);
    return ADCG_OK;
  }
  return ADCG_ERR_NOT_FOUND;
}

adcg_status adcgk_fail(const adcg_op_call *call, const char *format, ...) {
  char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  return adcg_op_fail(call, message);
}
