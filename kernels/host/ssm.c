/* adcg.ssm and adcg.ssm_metadata. The scan runs the recurrence itself, a block of tokens at a time: units are a
 * sequence, a head and some rows of its state, each from its first token to its last, on one thread. */
#include <math.h>

#include "../common/strides.h"
#include "internal.h"

/* Inputs and attributes, in the schema's order. */
enum { X, DT, A, B, C, D, DT_BIAS, STATE, CU_SEQLENS, INPUT_POS, SLOT_IDX };
enum { DT_MIN, DT_MAX, DT_SOFTPLUS };

enum { ROOM = 32768 }; /* floats of a task's rows of B and C */

typedef struct region {
  const adcgk_kernels *kernels;
  const char *x, *dt, *b, *c;
  const void *a, *d, *dt_bias;
  char *y;
  float *state;
  bool bf16, dt_bf16, a_bf16, d_bf16, dt_bias_bf16, softplus;
  float low, high;
  const int32_t *cu, *input_pos, *slots;
  int64_t heads, dim, groups, n, ld; /* ld: n rounded up to a multiple of 16 */
  int64_t x_token, x_head, dt_token, b_token, b_group, c_token, c_group, y_token, y_head; /* elements from one to the next */
  int64_t rows, parts; /* rows of the state in a unit; units of a head */
} region;

/* Rows of B or C as floats, zeros behind n. */
static void take(const region *r, float *to, const char *from, int64_t stride, int64_t tokens) {
  for (int64_t t = 0; t < tokens; t++) {
    memset(to + t * r->ld + r->ld - 16, 0, 16 * sizeof(float));
    r->kernels->convert(to + t * r->ld, false, from + t * stride * (r->bf16 ? 2 : 4), r->bf16, r->n);
  }
}

static void task(void *context, int64_t unit) {
  const region *r = context;
  float room[ROOM] __attribute__((aligned(64)));
  float step[ADCGK_SCAN_TOKENS], decay[ADCGK_SCAN_TOKENS];
  const int64_t s = unit / (r->heads * r->parts), h = unit / r->parts % r->heads, g = h / (r->heads / r->groups);
  const int64_t p0 = unit % r->parts * r->rows, p1 = adcgk_min(p0 + r->rows, r->dim), size = r->bf16 ? 2 : 4;
  float *state = r->state + ((r->slots[s] * r->heads + h) * r->dim + p0) * r->n;
  if (r->input_pos[s] == 0) memset(state, 0, (size_t)((p1 - p0) * r->n) * sizeof(float));
  const float a = adcgk_number(r->a, r->a_bf16, h), bias = adcgk_number(r->dt_bias, r->dt_bias_bf16, h);
  const float skip = adcgk_number(r->d, r->d_bf16, h);
  const int64_t block = adcgk_min(ADCGK_SCAN_TOKENS, ROOM / (2 * r->ld));
  float *b = room, *c = room + block * r->ld;
  for (int64_t t = r->cu[s]; t < r->cu[s + 1]; t += block) {
    const int64_t tokens = adcgk_min(block, r->cu[s + 1] - t);
    float dt[ADCGK_SCAN_TOKENS] = {0};
    for (int64_t i = 0; i < tokens; i++) dt[i] = adcgk_number(r->dt, r->dt_bf16, (t + i) * r->dt_token + h);
    r->kernels->ssm_steps(step, decay, dt, bias, a, r->softplus, r->low, r->high);
    take(r, b, r->b + (t * r->b_token + g * r->b_group) * size, r->b_token, tokens);
    take(r, c, r->c + (t * r->c_token + g * r->c_group) * size, r->c_token, tokens);
    for (int64_t p = p0; p < p1; p += ADCGK_SCAN_ROWS) {
      const adcgk_ssm scan = {
          .tokens = (int32_t)tokens,
          .rows = (int32_t)adcgk_min(ADCGK_SCAN_ROWS, p1 - p),
          .n = r->n,
          .ld = r->ld,
          .b = b,
          .c = c,
          .step = step,
          .decay = decay,
          .skip = skip,
          .x = r->x + (t * r->x_token + h * r->x_head + p) * size,
          .y = r->y + (t * r->y_token + h * r->y_head + p) * size,
          .ldx = r->x_token,
          .ldy = r->y_token,
          .bf16 = r->bf16,
          .state = state + (p - p0) * r->n,
      };
      r->kernels->ssm(&scan);
    }
  }
}

adcg_status adcgk_ssm_scan(const adcg_op_call *call, void *user_data) {
  const DLTensor *in = call->inputs, *x = &in[X], *state = &in[STATE], *y = &call->outputs[0];
  const double high = call->attrs[DT_MAX].f;
  region r = {
      .kernels = adcgk_active(),
      .x = adcg_data(x),
      .dt = adcg_data(&in[DT]),
      .b = adcg_data(&in[B]),
      .c = adcg_data(&in[C]),
      .a = adcg_data(&in[A]),
      .d = adcg_data(&in[D]),
      .dt_bias = adcg_data(&in[DT_BIAS]),
      .y = adcg_data(y),
      .state = adcg_data(state),
      .bf16 = adcgk_is_bf16(x),
      .dt_bf16 = adcgk_is_bf16(&in[DT]),
      .a_bf16 = adcgk_is_bf16(&in[A]),
      .d_bf16 = adcgk_is_bf16(&in[D]),
      .dt_bias_bf16 = adcgk_is_bf16(&in[DT_BIAS]),
      .softplus = call->attrs[DT_SOFTPLUS].i != 0,
      .low = (float)call->attrs[DT_MIN].f,
      .high = high > 0 ? (float)high : INFINITY,
      .cu = adcg_data(&in[CU_SEQLENS]),
      .input_pos = adcg_data(&in[INPUT_POS]),
      .slots = adcg_data(&in[SLOT_IDX]),
      .heads = x->shape[1],
      .dim = x->shape[2],
      .groups = in[B].shape[1],
      .n = in[B].shape[2],
      .ld = adcgk_ceil_div(in[B].shape[2], 16) * 16,
      .x_token = adcgk_stride(x, 0),
      .x_head = adcgk_stride(x, 1),
      .dt_token = adcgk_stride(&in[DT], 0),
      .b_token = adcgk_stride(&in[B], 0),
      .b_group = adcgk_stride(&in[B], 1),
      .c_token = adcgk_stride(&in[C], 0),
      .c_group = adcgk_stride(&in[C], 1),
      .y_token = adcgk_stride(y, 0),
      .y_head = adcgk_stride(y, 1),
  };
  const int64_t seqs = adcg_batch_seqs(call->batch);
  if (seqs == 0) return ADCG_OK;
  adcg_status status = adcgk_check_sequences(call, r.cu, r.input_pos, INT32_MAX, "positions are 32 bits wide");
  if (status == ADCG_OK) status = adcgk_check_slots(call, r.slots, seqs, state->shape[0], "state");
  if (status != ADCG_OK) return status;
  if (2 * r.ld > ROOM) return adcgk_fail(call, "B: state size %lld, %d is the most", (long long)r.n, ROOM / 2);
  adcgk_pool *pool = adcgk_pool_of(user_data);
  const int64_t wanted = 4 * (pool ? adcgk_pool_threads(pool) : 1);
  r.parts = adcgk_min(adcgk_ceil_div(r.dim, ADCGK_SCAN_ROWS), adcgk_ceil_div(wanted, seqs * r.heads));
  r.rows = adcgk_ceil_div(adcgk_ceil_div(r.dim, ADCGK_SCAN_ROWS), r.parts) * ADCGK_SCAN_ROWS;
  r.parts = adcgk_ceil_div(r.dim, r.rows);
  /* Three operations for each element of the state and token, 48 of them a nanosecond; states come from memory. */
  const double elements = (double)(r.heads * r.dim * r.n), tokens = (double)adcg_batch_tokens(call->batch);
  adcgk_parallel(pool, seqs * r.heads * r.parts, elements * (tokens / 16 + (double)seqs / 4), task, &r);
  return ADCG_OK;
}

adcg_status adcgk_ssm_metadata(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const int32_t *cu = adcg_data(&call->inputs[0]);
  int32_t *chunk_indices = adcg_data(&call->outputs[0]), *chunk_offsets = adcg_data(&call->outputs[1]);
  int32_t *seq_idx = adcg_data(&call->outputs[2]);
  const adcg_status status = adcgk_check_sequences(call, cu, NULL, INT32_MAX, "");
  if (status != ADCG_OK) return status;
  const int64_t seqs = adcg_batch_seqs(call->batch), chunk = call->attrs[0].i;
  int64_t count = 0;
  for (int32_t s = 0; s < seqs; s++) {
    for (int64_t t = cu[s]; t < cu[s + 1]; t = (t / chunk + 1) * chunk, count++) {
      chunk_indices[count] = (int32_t)(t / chunk);
      chunk_offsets[count] = (int32_t)(t % chunk);
    }
    for (int32_t t = cu[s]; t < cu[s + 1]; t++) seq_idx[t] = s;
  }
  for (int64_t tokens = adcg_batch_tokens(call->batch); count < tokens; count++) chunk_indices[count] = chunk_offsets[count] = 0;
  return ADCG_OK;
}
