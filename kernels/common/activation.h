/* What an op may do to each of its results, by the names of the attribute `activation`. */
#ifndef ADCGK_ACTIVATION_H_
#define ADCGK_ACTIVATION_H_

#include <stdint.h>
#include <string.h>

typedef enum adcgk_activation {
  ADCGK_NONE,
  ADCGK_SILU,
  ADCGK_GELU,
  ADCGK_GELU_TANH,
  ADCGK_RELU,
  ADCGK_RELU2,
  ADCGK_SIGMOID
} adcgk_activation;

/* The activation of that name, "gelu_tanh". */
static inline adcgk_activation adcgk_activation_of(const char *name) {
  static const char *const names[] = {"none", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid"}; /* as in the enum */
  for (int32_t i = 0; i < (int32_t)(sizeof(names) / sizeof(names[0])); i++) {
    if (strcmp(name, names[i]) == 0) return (adcgk_activation)i;
  }
  return ADCGK_NONE; /* not reached: the schema allows these alone */
}

#endif /* ADCGK_ACTIVATION_H_ */
