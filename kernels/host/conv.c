/* adcg.causal_conv1d. A task takes a tile of channels through some of the sequences, each from its first token to its
 * last, so that the result may overwrite x. Weights and states lie channel by channel and are turned for the lanes. */
#include "../common/strides.h"
#include "internal.h"

/* Inputs, in the schema's order. */
enum { X, WEIGHT, STATE, CU_SEQLENS, INPUT_POS, SLOT_IDX, BIAS };

enum { ROOM = 24576, LEAST_TILE = 32, MOST_TILE = 256 }; /* floats of a task's scratch; channels of a tile */

typedef struct region {
  const adcgk_kernels *kernels;
  const char *x, *weight, *bias; /* bias NULL: none */
  char *y, *state;
  int64_t ldx, ldy;
  bool bf16, weight_bf16, bias_bf16, state_bf16, silu;
  const int32_t *cu, *input_pos, *slots;
  int64_t seqs, channels, taps;
  int64_t tile, tiles;    /* channels of a tile; how many tiles */
  int64_t seqs_per_task;
} region;

/* to[j][c] = from[c][j]; taps that are known let the compiler turn blocks in registers. */
static void turn(float *to, int64_t ld, const float *from, int64_t channels, int64_t taps) {
  if (taps == 4) {
    for (int64_t c = 0; c < channels; c++) {
      for (int64_t j = 0; j < 4; j++) to[j * ld + c] = from[c * 4 + j];
    }
    return;
  }
  for (int64_t j = 0; j < taps; j++) {
    for (int64_t c = 0; c < channels; c++) to[j * ld + c] = from[c * taps + j];
  }
}

static void task(void *context, int64_t number) {
  const region *r = context;
  float room[ROOM] __attribute__((aligned(64)));
  const int64_t c0 = number % r->tiles * r->tile, channels = adcgk_min(r->tile, r->channels - c0);
  const int64_t s0 = number / r->tiles * r->seqs_per_task, s1 = adcgk_min(s0 + r->seqs_per_task, r->seqs);
  const int64_t ld = adcgk_ceil_div(channels, 16) * 16, past = r->taps - 1, size = r->bf16 ? 2 : 4, state_size = r->state_bf16 ? 2 : 4;
  float *weight = room, *bias = weight + r->taps * ld, *history = bias + ld, *flat = history + past * ld;
  memset(room, 0, (size_t)(2 * r->taps * ld) * sizeof(float));
  r->kernels->convert(flat, false, r->weight + c0 * r->taps * (r->weight_bf16 ? 2 : 4), r->weight_bf16, channels * r->taps);
  turn(weight, ld, flat, channels, r->taps);
  if (r->bias) r->kernels->convert(bias, false, r->bias + c0 * (r->bias_bf16 ? 2 : 4), r->bias_bf16, channels);
  for (int64_t s = s0; s < s1; s++) {
    char *state = r->state + (r->slots[s] * r->channels + c0) * past * state_size;
    if (r->input_pos[s] > 0) {
      r->kernels->convert(flat, false, state, r->state_bf16, channels * past);
      turn(history, ld, flat, channels, past);
    } else if (s > s0) {
      memset(history, 0, (size_t)(past * ld) * sizeof(float));
    }
    const adcgk_conv c = {
        .tokens = r->cu[s + 1] - r->cu[s],
        .channels = channels,
        .taps = r->taps,
        .ld = ld,
        .x = r->x + (r->cu[s] * r->ldx + c0) * size,
        .y = r->y + (r->cu[s] * r->ldy + c0) * size,
        .ldx = r->ldx,
        .ldy = r->ldy,
        .bf16 = r->bf16,
        .round = r->state_bf16 && !r->bf16,
        .silu = r->silu,
        .weight = weight,
        .bias = bias,
        .history = history,
    };
    const int64_t oldest = r->kernels->conv(&c);
    for (int64_t j = 0; j < past; j++) {
      const float *row = history + (oldest + j) % past * ld;
      for (int64_t i = 0; i < channels; i++) flat[i * past + j] = row[i];
    }
    r->kernels->convert(state, r->state_bf16, flat, false, channels * past);
  }
}

adcg_status adcgk_causal_conv1d(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[X], *weight = &call->inputs[WEIGHT], *state = &call->inputs[STATE], *y = &call->outputs[0];
  const DLTensor *bias = call->num_inputs > BIAS ? &call->inputs[BIAS] : NULL;
  region r = {
      .kernels = adcgk_active(),
      .x = adcg_data(x),
      .weight = adcg_data(weight),
      .bias = bias ? adcg_data(bias) : NULL,
      .y = adcg_data(y),
      .state = adcg_data(state),
      .ldx = adcgk_stride(x, 0),
      .ldy = adcgk_stride(y, 0),
      .bf16 = adcgk_is_bf16(x),
      .weight_bf16 = adcgk_is_bf16(weight),
      .bias_bf16 = bias && adcgk_is_bf16(bias),
      .state_bf16 = adcgk_is_bf16(state),
      .silu = strcmp(call->attrs[0].s, "silu") == 0,
      .cu = adcg_data(&call->inputs[CU_SEQLENS]),
      .input_pos = adcg_data(&call->inputs[INPUT_POS]),
      .slots = adcg_data(&call->inputs[SLOT_IDX]),
      .seqs = adcg_batch_seqs(call->batch),
      .channels = x->shape[1],
      .taps = weight->shape[1],
  };
  if (r.seqs == 0) return ADCG_OK;
  adcg_status status = adcgk_check_sequences(call, r.cu, r.input_pos, INT32_MAX, "positions are 32 bits wide");
  if (status == ADCG_OK) status = adcgk_check_slots(call, r.slots, r.seqs, state->shape[0], "state");
  if (status != ADCG_OK) return status;
  const int64_t most = ROOM / (3 * r.taps) / 16 * 16; /* weights, bias and history, and what is turned */
  if (most == 0) return adcgk_fail(call, "weight: %lld taps, %d are the most", (long long)r.taps, ROOM / (3 * 16));
  adcgk_pool *pool = adcgk_pool_of(user_data);
  const int64_t wanted = (pool ? adcgk_pool_threads(pool) : 1) * 4; /* tasks */
  r.tile = adcgk_ceil_div(adcgk_ceil_div(r.channels, wanted), 16) * 16;
  r.tile = adcgk_min(most, adcgk_max(LEAST_TILE, adcgk_min(MOST_TILE, r.tile)));
  r.tiles = adcgk_ceil_div(r.channels, r.tile);
  r.seqs_per_task = adcgk_ceil_div(r.seqs, adcgk_ceil_div(wanted, r.tiles));
  const double tokens = (double)adcg_batch_tokens(call->batch) + (double)r.seqs; /* a state costs as much as a token */
  adcgk_parallel(pool, r.tiles * adcgk_ceil_div(r.seqs, r.seqs_per_task), tokens * (double)(r.channels * (r.taps + 4)) * 0.1, task, &r);
  return ADCG_OK;
}
