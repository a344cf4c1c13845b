/* config.json of a Llama checkpoint, in its words. */
#ifndef ADCG_EXAMPLES_CONFIG_H_
#define ADCG_EXAMPLES_CONFIG_H_

#include "util.h"

enum { MAX_EOS = 8 };

typedef struct llama_config {
  int64_t vocab_size, hidden_size, intermediate_size;
  int64_t num_layers, num_heads, num_kv_heads, head_dim;
  int64_t max_position_embeddings;
  double rms_norm_eps;
  bool attention_bias, mlp_bias, tie_word_embeddings;
  struct {
    double theta, factor, low_freq_factor, high_freq_factor;
    int64_t original_max_position;
    const char *scaling; /* "none", "linear" or "llama3": the op's word */
  } rope;
  int64_t eos[MAX_EOS];
  int num_eos;
} llama_config;

/* Ends the program with a message that names the option if the graph would not compute what the checkpoint means. */
llama_config llama_config_read(const char *folder);

#endif /* ADCG_EXAMPLES_CONFIG_H_ */
