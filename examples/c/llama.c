#include "llama.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The graph -------------------------------------------------------------------------------------------------------- */

typedef struct builder {
  llama *model;
  const checkpoint *weights;
} builder;

/* Adds an op of one output. */
static adcg_value op(builder *b, const char *name, const adcg_value *inputs, int32_t num_inputs, const adcg_attr *attrs,
                     int32_t num_attrs) {
  adcg_value out;
  TRY(adcg_graph_add_op(b->model->graph, name, inputs, num_inputs, attrs, num_attrs, &out, 1));
  return out;
}

static adcg_value op2(builder *b, const char *name, adcg_value x, adcg_value y) { return op(b, name, (adcg_value[]){x, y}, 2, NULL, 0); }

/* The checkpoint's tensor as a weight of the graph; columns 0: a vector. */
static adcg_value weight(builder *b, int64_t rows, int64_t columns, const char *format, ...) __attribute__((format(printf, 4, 5)));
static adcg_value weight(builder *b, int64_t rows, int64_t columns, const char *format, ...) {
  char name[256];
  va_list args;
  va_start(args, format);
  vsnprintf(name, sizeof name, format, args);
  va_end(args);
  const checkpoint_tensor *t = checkpoint_find(b->weights, name);
  if (!t) die("the checkpoint has no %s", name);
  int32_t ndim = columns ? 2 : 1;
  if (t->ndim != ndim || t->shape[0] != rows || (columns && t->shape[1] != columns))
    die("%s: %d dims, first %lld, needs [%lld, %lld]", name, (int)t->ndim, (long long)t->shape[0], (long long)rows, (long long)columns);
  llama *model = b->model;
  adcg_dim dims[] = {ADCG_DIM(rows), ADCG_DIM(columns)};
  struct llama_weight *w = &model->weights[model->num_weights++];
  w->tensor = t;
  TRY(adcg_graph_add_weight(model->graph, name, t->dtype, ndim, dims, &w->value));
  return w->value;
}

/* x W^T, with the bias if the family's option says so. */
static adcg_value linear(builder *b, adcg_value x, int64_t rows, int64_t columns, bool bias, int64_t layer, const char *name) {
  adcg_value in[3] = {x, weight(b, rows, columns, "model.layers.%d.%s.weight", (int)layer, name)};
  if (bias) in[2] = weight(b, rows, 0, "model.layers.%d.%s.bias", (int)layer, name);
  return op(b, "adcg.linear", in, bias ? 3 : 2, NULL, 0);
}

static adcg_value rms_norm(builder *b, adcg_value x, adcg_value weight_value) {
  adcg_attr eps = ADCG_ATTR_FLOAT("eps", b->model->config.rms_norm_eps);
  return op(b, "adcg.rms_norm", (adcg_value[]){x, weight_value}, 2, &eps, 1);
}

static adcg_value heads(builder *b, adcg_value x, int64_t count) { /* [T, N * D] as [T, N, D] */
  int64_t dims[] = {count, b->model->config.head_dim};
  adcg_attr attr = ADCG_ATTR_INTS("dims", dims, 2);
  return op(b, "adcg.reshape", &x, 1, &attr, 1);
}

static adcg_value rope(builder *b, adcg_value x, adcg_value positions) {
  const llama_config *c = &b->model->config;
  adcg_attr attrs[] = {ADCG_ATTR_FLOAT("theta", c->rope.theta),
                       ADCG_ATTR_STRING("scaling", c->rope.scaling),
                       ADCG_ATTR_FLOAT("factor", c->rope.factor),
                       ADCG_ATTR_FLOAT("low_freq_factor", c->rope.low_freq_factor),
                       ADCG_ATTR_FLOAT("high_freq_factor", c->rope.high_freq_factor),
                       ADCG_ATTR_INT("original_max_position", c->rope.original_max_position)};
  return op(b, "adcg.rope", (adcg_value[]){x, positions}, 2, attrs, 6);
}

static adcg_value cache(builder *b, const char *kind, int64_t layer) {
  llama *model = b->model;
  char name[64];
  snprintf(name, sizeof name, "%s_cache.%d", kind, (int)layer);
  adcg_dim dims[] = {ADCG_DIM(model->sizes.slots), ADCG_DIM(model->sizes.max_len), ADCG_DIM(model->config.num_kv_heads),
                     ADCG_DIM(model->config.head_dim)};
  adcg_value *value = &model->caches[2 * layer + (kind[0] == 'v')];
  TRY(adcg_graph_add_state(model->graph, name, ADCG_F32, 4, dims, value));
  return *value;
}

typedef struct step_inputs {
  adcg_value ids, cu_seqlens, input_pos, slot_idx, last, positions;
} step_inputs;

static adcg_value attention(builder *b, const step_inputs *in, adcg_value x, int64_t layer) {
  const llama_config *c = &b->model->config;
  int64_t hidden = c->hidden_size, q_rows = c->num_heads * c->head_dim, kv_rows = c->num_kv_heads * c->head_dim;
  adcg_value q = linear(b, x, q_rows, hidden, c->attention_bias, layer, "self_attn.q_proj");
  adcg_value k = linear(b, x, kv_rows, hidden, c->attention_bias, layer, "self_attn.k_proj");
  adcg_value v = linear(b, x, kv_rows, hidden, c->attention_bias, layer, "self_attn.v_proj");
  q = rope(b, heads(b, q, c->num_heads), in->positions);
  k = rope(b, heads(b, k, c->num_kv_heads), in->positions);
  adcg_value inputs[] = {
      q, k, heads(b, v, c->num_kv_heads), cache(b, "k", layer), cache(b, "v", layer), in->cu_seqlens, in->input_pos, in->slot_idx};
  adcg_value mixed = op(b, "adcg.attention", inputs, 8, NULL, 0);
  return linear(b, mixed, hidden, q_rows, c->attention_bias, layer, "self_attn.o_proj");
}

static adcg_value mlp(builder *b, adcg_value x, int64_t layer) {
  const llama_config *c = &b->model->config;
  adcg_value gate = linear(b, x, c->intermediate_size, c->hidden_size, c->mlp_bias, layer, "mlp.gate_proj");
  adcg_value up = linear(b, x, c->intermediate_size, c->hidden_size, c->mlp_bias, layer, "mlp.up_proj");
  return linear(b, op2(b, "adcg.silu_mul", gate, up), c->hidden_size, c->intermediate_size, c->mlp_bias, layer, "mlp.down_proj");
}

static step_inputs add_inputs(builder *b) {
  adcg_graph *graph = b->model->graph;
  adcg_dim tokens[] = {ADCG_DIM_TOKENS}, seqs[] = {ADCG_DIM_SEQS}, ends[] = {ADCG_DIM_SEQS_PLUS(1)};
  step_inputs in;
  TRY(adcg_graph_add_input(graph, "ids", ADCG_I32, 1, tokens, &in.ids));
  TRY(adcg_graph_add_input(graph, "cu_seqlens", ADCG_I32, 1, ends, &in.cu_seqlens));
  TRY(adcg_graph_add_input(graph, "input_pos", ADCG_I32, 1, seqs, &in.input_pos));
  TRY(adcg_graph_add_input(graph, "slot_idx", ADCG_I32, 1, seqs, &in.slot_idx));
  TRY(adcg_graph_add_input(graph, "last", ADCG_I32, 1, seqs, &in.last));
  adcg_value metadata[2]; /* which sequence each token belongs to, and where in it */
  TRY(adcg_graph_add_op(graph, "adcg.attention_metadata", (adcg_value[]){in.cu_seqlens, in.input_pos}, 2, NULL, 0, metadata, 2));
  in.positions = metadata[1];
  return in;
}

static bool on_host(const llama *model) { return model->device.device_type == kDLCPU; }

/* Memory of the model's device: a copy of `data` or, if that is NULL, zeros. */
static void *upload(const llama *model, const void *data, int64_t bytes) {
  void *memory, *zeros = data ? NULL : allocate(bytes, 1);
  TRY(adcg_memory_alloc(model->engine, (size_t)bytes, &memory));
  TRY(adcg_memory_copy(model->engine, memory, data ? data : zeros, (size_t)bytes));
  free(zeros);
  return memory;
}

static void release(const llama *model, void *memory) {
  if (memory) TRY(adcg_memory_free(model->engine, memory));
}

llama *llama_build(adcg_engine *engine, const llama_config *config, const checkpoint *weights, llama_sizes sizes) {
  llama *model = allocate(1, sizeof *model);
  model->config = *config;
  model->sizes = sizes;
  model->engine = engine;
  adcg_device_info device = ADCG_DEVICE_INFO_INIT;
  TRY(adcg_engine_get_device_info(engine, &device));
  model->device = (DLDevice){(DLDeviceType)device.device_type, device.device_id};
  model->weights = allocate(3 + config->num_layers * 16, sizeof *model->weights);
  model->caches = allocate(2 * config->num_layers, sizeof *model->caches);
  adcg_graph_limits limits = {sizeof limits, sizes.max_tokens, sizes.max_seqs, 0};
  TRY(adcg_graph_create(engine, &limits, &model->graph));
  builder builder_ = {model, weights}, *b = &builder_;

  step_inputs in = add_inputs(b);
  adcg_value table = weight(b, config->vocab_size, config->hidden_size, "model.embed_tokens.weight");
  adcg_attr wide = ADCG_ATTR_STRING("dtype", "float32"); /* activations, whatever the weights are */
  adcg_value x = op(b, "adcg.embedding", (adcg_value[]){in.ids, table}, 2, &wide, 1);
  for (int64_t i = 0; i < config->num_layers; i++) {
    adcg_value normed = rms_norm(b, x, weight(b, config->hidden_size, 0, "model.layers.%d.input_layernorm.weight", (int)i));
    x = op2(b, "adcg.add", x, attention(b, &in, normed, i));
    normed = rms_norm(b, x, weight(b, config->hidden_size, 0, "model.layers.%d.post_attention_layernorm.weight", (int)i));
    x = op2(b, "adcg.add", x, mlp(b, normed, i));
  }
  x = op2(b, "adcg.gather_tokens", x, in.last); /* from here on a row a sequence: never [tokens, vocab] */
  x = rms_norm(b, x, weight(b, config->hidden_size, 0, "model.norm.weight"));
  adcg_value head = config->tie_word_embeddings ? table : weight(b, config->vocab_size, config->hidden_size, "lm_head.weight");
  TRY(adcg_graph_add_output(model->graph, "logits", op2(b, "adcg.linear", x, head)));
  TRY(adcg_graph_freeze(model->graph));
  for (int64_t i = 0; i < model->num_weights; i++) { /* used where the file has them, or uploaded once for all execs */
    const checkpoint_tensor *t = model->weights[i].tensor;
    int64_t bytes = adcg_dtype_to_dlpack(t->dtype).bits / 8;
    for (int32_t axis = 0; axis < t->ndim; axis++) bytes *= t->shape[axis];
    model->weights[i].data = on_host(model) ? t->data : upload(model, t->data, bytes);
  }
  return model;
}

void llama_destroy(llama *model) {
  adcg_graph_destroy(model->graph);
  for (int64_t i = 0; !on_host(model) && i < model->num_weights; i++) release(model, model->weights[i].data);
  free(model->weights);
  free(model->caches);
  free(model);
}

/* ---- Running ------------------------------------------------------------------------------------------------------------ */

runner *runner_create(llama *model, const adcg_exec_options *options) {
  const llama_config *c = &model->config;
  llama_sizes s = model->sizes;
  runner *r = allocate(1, sizeof *r);
  r->model = model;
  TRY(adcg_exec_create(model->graph, options, &r->exec));
  for (int64_t i = 0; i < model->num_weights; i++) {
    checkpoint_tensor t = *model->weights[i].tensor;
    DLTensor bound = tensor(model->device, model->weights[i].data, t.dtype, t.ndim, t.shape);
    TRY(adcg_exec_bind(r->exec, model->weights[i].value, &bound));
  }
  int64_t shape[] = {s.slots, s.max_len, c->num_kv_heads, c->head_dim};
  r->caches = allocate(2 * c->num_layers, sizeof *r->caches);
  for (int64_t i = 0; i < 2 * c->num_layers; i++) {
    int64_t count = s.slots * s.max_len * c->num_kv_heads * c->head_dim;
    r->caches[i] = on_host(model) ? allocate(count, sizeof(float)) : upload(model, NULL, count * (int64_t)sizeof(float));
    DLTensor bound = tensor(model->device, r->caches[i], ADCG_F32, 4, shape);
    TRY(adcg_exec_bind(r->exec, model->caches[i], &bound));
  }
  r->ids = allocate(s.max_tokens, sizeof(int32_t));
  r->cu_seqlens = allocate(s.max_seqs + 1, sizeof(int32_t));
  r->input_pos = allocate(s.max_seqs, sizeof(int32_t));
  r->slot_idx = allocate(s.max_seqs, sizeof(int32_t));
  r->last = allocate(s.max_seqs, sizeof(int32_t));
  r->logits = allocate(s.max_seqs * c->vocab_size, sizeof(float));
  int64_t counts[NUM_BUFFERS] = {s.max_tokens, s.max_seqs + 1, s.max_seqs, s.max_seqs, s.max_seqs, s.max_seqs * c->vocab_size};
  for (int i = 0; !on_host(model) && i < NUM_BUFFERS; i++) r->on_device[i] = upload(model, NULL, counts[i] * 4);
  return r;
}

void runner_destroy(runner *r) {
  if (!r) return;
  adcg_exec_destroy(r->exec);
  for (int64_t i = 0; i < 2 * r->model->config.num_layers; i++)
    if (on_host(r->model))
      free(r->caches[i]);
    else
      release(r->model, r->caches[i]);
  for (int i = 0; i < NUM_BUFFERS; i++) release(r->model, r->on_device[i]);
  free(r->caches);
  free(r->ids);
  free(r->cu_seqlens);
  free(r->input_pos);
  free(r->slot_idx);
  free(r->last);
  free(r->logits);
  free(r);
}

const float *runner_step(runner *r, const piece *pieces, int64_t count, adcg_step *out_step) {
  llama_sizes s = r->model->sizes;
  adcg_batch batch = ADCG_BATCH_INIT;
  int64_t tokens = 0;
  for (int64_t i = 0; i < count; i++) {
    const piece *p = &pieces[i];
    memcpy(r->ids + tokens, p->tokens, (size_t)p->count * sizeof(int32_t));
    tokens += p->count;
    r->cu_seqlens[i + 1] = (int32_t)tokens;
    r->input_pos[i] = (int32_t)p->position;
    r->slot_idx[i] = (int32_t)p->slot;
    r->last[i] = (int32_t)(tokens - 1);
    batch.prefill_seqs += p->kind == PREFILL;
    batch.prefill_tokens += p->kind == PREFILL ? p->count : 0;
    batch.extend_seqs += p->kind == EXTEND;
    batch.extend_tokens += p->kind == EXTEND ? p->count : 0;
    batch.decode_seqs += p->kind == DECODE;
  }
  /* the whole buffers are lent: rows behind the step's own pad the bucket, and nothing is copied */
  int64_t by_token[] = {s.max_tokens}, by_seq[] = {s.max_seqs}, ends[] = {s.max_seqs + 1},
          rows[] = {s.max_seqs, r->model->config.vocab_size};
  llama *model = r->model;
  void *memory[NUM_BUFFERS] = {r->ids, r->cu_seqlens, r->input_pos, r->slot_idx, r->last, r->logits};
  int64_t filled[NUM_BUFFERS] = {tokens, count + 1, count, count, count, count * model->config.vocab_size};
  for (int i = 0; !on_host(model) && i < NUM_BUFFERS; i++) { /* the last step is done: its logits were waited for */
    if (i < NUM_BUFFERS - 1) TRY(adcg_memory_copy(model->engine, r->on_device[i], memory[i], (size_t)filled[i] * 4));
    memory[i] = r->on_device[i];
  }
  DLDevice device = model->device;
  DLTensor inputs[] = {tensor(device, memory[0], ADCG_I32, 1, by_token), tensor(device, memory[1], ADCG_I32, 1, ends),
                       tensor(device, memory[2], ADCG_I32, 1, by_seq), tensor(device, memory[3], ADCG_I32, 1, by_seq),
                       tensor(device, memory[4], ADCG_I32, 1, by_seq)};
  DLTensor output = tensor(device, memory[5], ADCG_F32, 2, rows);
  TRY(adcg_exec_replay(r->exec, &batch, inputs, 5, &output, 1, NULL, out_step));
  if (!on_host(model)) {
    TRY(adcg_exec_synchronize(r->exec));
    TRY(adcg_memory_copy(model->engine, r->logits, memory[5], (size_t)filled[5] * 4));
  }
  return r->logits;
}
