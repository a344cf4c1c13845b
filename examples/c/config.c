#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static const char *path; /* of the file that is read, for messages */

static bool is_set(yyjson_val *object, const char *key) {
  yyjson_val *value = yyjson_obj_get(object, key);
  return value && !yyjson_is_null(value);
}

static int64_t integer(yyjson_val *object, const char *key, int64_t otherwise) {
  if (!is_set(object, key)) {
    if (otherwise <= 0) die("%s: %s is missing", path, key);
    return otherwise;
  }
  yyjson_val *value = yyjson_obj_get(object, key);
  if (!yyjson_is_int(value) || yyjson_get_sint(value) < 1 || yyjson_get_sint(value) > INT32_MAX)
    die("%s: %s: not a positive integer", path, key);
  return yyjson_get_sint(value);
}

static double number(yyjson_val *object, const char *key, double otherwise) {
  if (!is_set(object, key)) {
    if (!(otherwise > 0)) die("%s: %s is missing", path, key);
    return otherwise;
  }
  yyjson_val *value = yyjson_obj_get(object, key);
  if (!yyjson_is_num(value)) die("%s: %s: not a number", path, key);
  return yyjson_get_num(value);
}

static bool boolean(yyjson_val *object, const char *key) {
  yyjson_val *value = yyjson_obj_get(object, key);
  if (is_set(object, key) && !yyjson_is_bool(value)) die("%s: %s: not true or false", path, key);
  return yyjson_is_true(value);
}

static const char *string(yyjson_val *object, const char *key, const char *otherwise) {
  if (!is_set(object, key)) return otherwise;
  const char *text = yyjson_get_str(yyjson_obj_get(object, key));
  if (!text) die("%s: %s: not a string", path, key);
  return text;
}

/* Options of the family's relatives that change the computation: they may only say that they do not apply. */
static void refuse_others(yyjson_val *root) {
  static const char *const absent[] = {"sliding_window",         "quantization_config",     "rope_interleaved",     "use_qk_norm",
                                       "attn_logit_softcapping", "final_logit_softcapping", "attention_multiplier", "num_local_experts"};
  static const char *const one[] = {"pretraining_tp", "embedding_multiplier", "residual_multiplier", "logits_scaling",
                                    "partial_rotary_factor"};
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
    if (is_set(root, absent[i]) && !yyjson_is_false(yyjson_obj_get(root, absent[i]))) die("%s: %s is not supported", path, absent[i]);
  for (size_t i = 0; i < sizeof one / sizeof *one; i++)
    if (number(root, one[i], 1) != 1) die("%s: %s: only 1 is supported", path, one[i]);
  const char *model = string(root, "model_type", "missing"), *act = string(root, "hidden_act", "silu");
  if (strcmp(model, "llama") != 0) die("%s: model_type: %s is not supported; llama is", path, model);
  if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) die("%s: hidden_act: %s is not supported; silu is", path, act);
  size_t i, max;
  yyjson_val *kind;
  yyjson_arr_foreach(yyjson_obj_get(root, "layer_types"), i, max, kind) {
    if (!yyjson_equals_str(kind, "full_attention")) die("%s: layer_types: only full_attention is supported", path);
  }
}

/* rope_parameters since transformers 5; rope_theta and rope_scaling before. */
static void read_rope(llama_config *c, yyjson_val *root) {
  yyjson_val *rope = yyjson_obj_get(root, is_set(root, "rope_parameters") ? "rope_parameters" : "rope_scaling");
  c->rope.theta = number(rope, "rope_theta", number(root, "rope_theta", 10000));
  if (number(rope, "partial_rotary_factor", 1) != 1) die("%s: partial_rotary_factor: only 1 is supported", path);
  const char *type = string(rope, "rope_type", string(rope, "type", "default"));
  c->rope.factor = c->rope.low_freq_factor = 1;
  c->rope.high_freq_factor = 4;
  c->rope.original_max_position = c->max_position_embeddings;
  if (strcmp(type, "default") == 0) {
    c->rope.scaling = "none";
  } else if (strcmp(type, "linear") == 0) {
    c->rope.scaling = "linear";
    c->rope.factor = number(rope, "factor", 0);
  } else if (strcmp(type, "llama3") == 0) {
    c->rope.scaling = "llama3";
    c->rope.factor = number(rope, "factor", 0);
    c->rope.low_freq_factor = number(rope, "low_freq_factor", 0);
    c->rope.high_freq_factor = number(rope, "high_freq_factor", 0);
    c->rope.original_max_position = integer(rope, "original_max_position_embeddings", c->max_position_embeddings);
  } else {
    die("%s: rope_type: %s is not supported; there are default, linear, llama3", path, type);
  }
}

static void read_eos(llama_config *c, yyjson_val *eos) {
  if (yyjson_is_int(eos)) c->eos[c->num_eos++] = yyjson_get_sint(eos);
  size_t i, max;
  yyjson_val *id;
  yyjson_arr_foreach(eos, i, max, id) {
    if (c->num_eos < MAX_EOS) c->eos[c->num_eos++] = yyjson_get_sint(id);
  }
}

llama_config llama_config_read(const char *folder) {
  static char name[4096];
  snprintf(name, sizeof name, "%s/config.json", folder);
  path = name;
  yyjson_read_err error;
  yyjson_doc *document = yyjson_read_file(path, 0, NULL, &error);
  if (!document) die("%s: %s", path, error.msg);
  yyjson_val *root = yyjson_doc_get_root(document);
  if (!yyjson_is_obj(root)) die("%s: not a JSON object", path);
  refuse_others(root);
  llama_config c = {0};
  c.vocab_size = integer(root, "vocab_size", 0);
  c.hidden_size = integer(root, "hidden_size", 0);
  c.intermediate_size = integer(root, "intermediate_size", 0);
  c.num_layers = integer(root, "num_hidden_layers", 0);
  c.num_heads = integer(root, "num_attention_heads", 0);
  c.num_kv_heads = integer(root, "num_key_value_heads", c.num_heads);
  c.head_dim = is_set(root, "head_dim") ? integer(root, "head_dim", 0) : c.hidden_size / c.num_heads;
  c.max_position_embeddings = integer(root, "max_position_embeddings", 2048);
  c.rms_norm_eps = number(root, "rms_norm_eps", 1e-6);
  c.attention_bias = boolean(root, "attention_bias");
  c.mlp_bias = boolean(root, "mlp_bias");
  c.tie_word_embeddings = boolean(root, "tie_word_embeddings");
  if (c.num_heads % c.num_kv_heads)
    die("%s: num_key_value_heads: %d does not divide %d heads", path, (int)c.num_kv_heads, (int)c.num_heads);
  if (c.head_dim < 2 || c.head_dim % 2) die("%s: head_dim: %d: rope turns pairs", path, (int)c.head_dim);
  read_rope(&c, root);
  read_eos(&c, yyjson_obj_get(root, "eos_token_id"));
  yyjson_doc_free(document);
  return c;
}
