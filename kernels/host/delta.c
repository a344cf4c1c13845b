/* adcg.delta_rule, adcg.gated_delta_rule and their gates, adcg.gdn_gating. The rules run the recurrence itself, a block
 * of tokens at a time: units are a sequence, a head and some columns of its state, each from its first token to its
 * last, on one thread. */
#include <math.h>

#include "../common/strides.h"
#include "internal.h"

/* Inputs and attributes, in the schema's order; beta and what follows stand one further behind g. */
enum { Q, K, V, G, BETA = G, STATE, CU_SEQLENS, INPUT_POS, SLOT_IDX };
enum { SCALE, L2NORM, L2NORM_EPS };

enum { ROOM = 40960 }; /* floats of a task's queries, keys and columns of the state */

typedef struct region {
  const adcgk_kernels *kernels;
  const char *q, *k, *v, *g, *beta; /* g NULL: no decay */
  char *out;
  float *state;
  bool bf16, g_bf16, beta_bf16, l2norm;
  float scale, eps;
  const int32_t *cu, *input_pos, *slots;
  int64_t heads, key_heads, keys, values;
  int64_t q_token, q_head, k_token, k_head, v_token, v_head, g_token, beta_token, out_token, out_head; /* elements from one to the next */
  int64_t block;          /* tokens */
  int64_t columns, parts; /* of the state in a unit; units of a head */
} region;

static void task(void *context, int64_t unit) {
  const region *r = context;
  float room[ROOM] __attribute__((aligned(64)));
  float decay[ADCGK_SCAN_TOKENS], beta[ADCGK_SCAN_TOKENS];
  const int64_t s = unit / (r->heads * r->parts), h = unit / r->parts % r->heads, group = h / (r->heads / r->key_heads);
  const int64_t v0 = unit % r->parts * r->columns, values = adcgk_min(r->columns, r->values - v0), size = r->bf16 ? 2 : 4;
  float *scratch = room, *query = scratch + r->keys * ADCGK_SCAN_VALUES, *key = query + r->block * r->keys;
  float *state = r->state + (r->slots[s] * r->heads + h) * r->keys * r->values + v0;
  for (int64_t i = 0; r->input_pos[s] == 0 && i < r->keys; i++) memset(state + i * r->values, 0, (size_t)values * sizeof(float));
  for (int64_t t = r->cu[s]; t < r->cu[s + 1]; t += r->block) {
    const int64_t tokens = adcgk_min(r->block, r->cu[s + 1] - t);
    for (int64_t i = 0; i < tokens; i++) {
      const char *q = r->q + ((t + i) * r->q_token + group * r->q_head) * size;
      const char *k = r->k + ((t + i) * r->k_token + group * r->k_head) * size;
      r->kernels->delta_key(query + i * r->keys, q, r->bf16, r->l2norm, r->eps, r->scale, r->keys);
      r->kernels->delta_key(key + i * r->keys, k, r->bf16, r->l2norm, r->eps, 1.0f, r->keys);
      beta[i] = adcgk_number(r->beta, r->beta_bf16, (t + i) * r->beta_token + h);
      if (r->g) decay[i] = adcgk_number(r->g, r->g_bf16, (t + i) * r->g_token + h);
    }
    if (r->g) r->kernels->exp(decay, decay, tokens);
    const adcgk_delta scan = {
        .tokens = (int32_t)tokens,
        .keys = (int32_t)r->keys,
        .ld = r->keys,
        .query = query,
        .key = key,
        .decay = r->g ? decay : NULL,
        .beta = beta,
        .v = r->v + (t * r->v_token + h * r->v_head + v0) * size,
        .out = r->out + (t * r->out_token + h * r->out_head + v0) * size,
        .ldv = r->v_token,
        .ldo = r->out_token,
        .bf16 = r->bf16,
        .values = values,
        .state = state,
        .lds = r->values,
        .scratch = scratch,
    };
    r->kernels->delta(&scan);
  }
}

static adcg_status rule(const adcg_op_call *call, void *user_data, bool gated) {
  const DLTensor *in = call->inputs, *q = &in[Q], *k = &in[K], *v = &in[V], *out = &call->outputs[0];
  const DLTensor *g = gated ? &in[G] : NULL, *beta = &in[BETA + gated], *state = &in[STATE + gated];
  region r = {
      .kernels = adcgk_active(),
      .q = adcg_data(q),
      .k = adcg_data(k),
      .v = adcg_data(v),
      .g = g ? adcg_data(g) : NULL,
      .beta = adcg_data(beta),
      .out = adcg_data(out),
      .state = adcg_data(state),
      .bf16 = adcgk_is_bf16(v),
      .g_bf16 = g && adcgk_is_bf16(g),
      .beta_bf16 = adcgk_is_bf16(beta),
      .l2norm = call->attrs[L2NORM].i != 0,
      .eps = (float)call->attrs[L2NORM_EPS].f,
      .cu = adcg_data(&in[CU_SEQLENS + gated]),
      .input_pos = adcg_data(&in[INPUT_POS + gated]),
      .slots = adcg_data(&in[SLOT_IDX + gated]),
      .heads = v->shape[1],
      .key_heads = k->shape[1],
      .keys = k->shape[2],
      .values = v->shape[2],
      .q_token = adcgk_stride(q, 0),
      .q_head = adcgk_stride(q, 1),
      .k_token = adcgk_stride(k, 0),
      .k_head = adcgk_stride(k, 1),
      .v_token = adcgk_stride(v, 0),
      .v_head = adcgk_stride(v, 1),
      .g_token = g ? adcgk_stride(g, 0) : 0,
      .beta_token = adcgk_stride(beta, 0),
      .out_token = adcgk_stride(out, 0),
      .out_head = adcgk_stride(out, 1),
  };
  const int64_t seqs = adcg_batch_seqs(call->batch);
  if (seqs == 0) return ADCG_OK;
  adcg_status status = adcgk_check_sequences(call, r.cu, r.input_pos, INT32_MAX, "positions are 32 bits wide");
  if (status == ADCG_OK) status = adcgk_check_slots(call, r.slots, seqs, state->shape[0], "state");
  if (status != ADCG_OK) return status;
  const double scale = call->attrs[SCALE].f;
  r.scale = scale != 0.0 ? (float)scale : (float)(1.0 / sqrt((double)r.keys));
  r.block = adcgk_min(ADCGK_SCAN_TOKENS, (ROOM / r.keys - ADCGK_SCAN_VALUES) / 2);
  if (r.block < 1) return adcgk_fail(call, "k: head dim %lld, %d is the most", (long long)r.keys, ROOM / (ADCGK_SCAN_VALUES + 2));
  adcgk_pool *pool = adcgk_pool_of(user_data);
  const int64_t wanted = 4 * (pool ? adcgk_pool_threads(pool) : 1), tiles = adcgk_ceil_div(r.values, ADCGK_SCAN_VALUES);
  r.parts = adcgk_min(tiles, adcgk_ceil_div(wanted, seqs * r.heads));
  r.columns = adcgk_ceil_div(tiles, r.parts) * ADCGK_SCAN_VALUES;
  r.parts = adcgk_ceil_div(r.values, r.columns);
  /* Four operations for each element of the state and token, 48 of them a nanosecond; states come from memory. */
  const double elements = (double)(r.heads * r.keys * r.values), tokens = (double)adcg_batch_tokens(call->batch);
  adcgk_parallel(pool, seqs * r.heads * r.parts, elements * (tokens / 12 + (double)seqs / 4), task, &r);
  return ADCG_OK;
}

adcg_status adcgk_delta_rule(const adcg_op_call *call, void *user_data) { return rule(call, user_data, false); }
adcg_status adcgk_gated_delta_rule(const adcg_op_call *call, void *user_data) { return rule(call, user_data, true); }

/* ---- The gates ------------------------------------------------------------------------------------------- */

typedef struct gating {
  const adcgk_kernels *kernels;
  const char *a, *b;
  const void *a_log, *dt_bias;
  float *g, *beta;
  bool bf16, a_log_bf16, dt_bias_bf16;
  int64_t rows, heads, a_row, b_row, block; /* elements from row to row; rows of a task */
} gating;

static void gating_task(void *context, int64_t task_number) {
  const gating *r = context;
  const int64_t end = adcgk_min((task_number + 1) * r->block, r->rows), size = r->bf16 ? 2 : 4;
  for (int64_t i = task_number * r->block; i < end; i++)
    r->kernels->gdn_gating(r->g + i * r->heads, r->beta + i * r->heads, r->a + i * r->a_row * size, r->b + i * r->b_row * size, r->bf16,
                           r->a_log, r->a_log_bf16, r->dt_bias, r->dt_bias_bf16, r->heads);
}

adcg_status adcgk_gdn_gating(const adcg_op_call *call, void *user_data) {
  const DLTensor *a = &call->inputs[0], *b = &call->inputs[1], *a_log = &call->inputs[2], *dt_bias = &call->inputs[3];
  gating r = {
      .kernels = adcgk_active(),
      .a = adcg_data(a),
      .b = adcg_data(b),
      .a_log = adcg_data(a_log),
      .dt_bias = adcg_data(dt_bias),
      .g = adcg_data(&call->outputs[0]),
      .beta = adcg_data(&call->outputs[1]),
      .bf16 = adcgk_is_bf16(a),
      .a_log_bf16 = adcgk_is_bf16(a_log),
      .dt_bias_bf16 = adcgk_is_bf16(dt_bias),
      .rows = a->shape[0],
      .heads = a->shape[1],
      .a_row = adcgk_stride(a, 0),
      .b_row = adcgk_stride(b, 0),
  };
  r.block = adcgk_max(1, 2048 / r.heads);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.rows, r.block), (double)(r.rows * r.heads) * 5, gating_task, &r);
  return ADCG_OK;
}
