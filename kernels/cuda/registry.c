/* The table of ops, and the names of the kernels. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launch.h"

static const adcgk_cuda_op ops[] = {
    {"adcg.reshape", NULL, NULL, NULL, 0},
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
