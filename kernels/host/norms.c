/* Ops that work row by row: rms_norm, layer_norm, add_rms_norm, qk_norm, softmax. */
#include <string.h>

#include "../common/strides.h"
#include "internal.h"

typedef struct region {
  const adcgk_kernels *kernels;
  adcgk_norm norm; /* of softmax, its n and bf16 alone */
  int64_t groups;  /* parts of a row that are normed each by itself */
  int count;       /* tensors; the first is an output */
  char *at[ADCGK_RUN_TENSORS];
  adcgk_runs runs; /* their rows */
  int64_t block;   /* rows of a task */
  void (*row)(const struct region *r, char *const *rows);
} region;

static region region_of(const DLTensor *const *tensors, int count, void (*row)(const region *, char *const *)) {
  const DLTensor *x = tensors[0];
  region r = {.kernels = adcgk_active(), .groups = 1, .count = count, .runs = adcgk_runs_of(tensors, count, 0, true), .row = row};
  r.norm.n = r.runs.length;
  r.norm.bf16 = adcgk_is_bf16(x);
  for (int i = 0; i < count; i++) r.at[i] = adcg_data(tensors[i]);
  return r;
}

static void weigh(region *r, const DLTensor *weight, double eps) {
  r->norm.weight = adcg_data(weight);
  r->norm.weight_bf16 = adcgk_is_bf16(weight);
  r->norm.eps = (float)eps;
}

static void task(void *context, int64_t number) {
  const region *r = context;
  const int64_t size = r->norm.bf16 ? 2 : 4, end = adcgk_min((number + 1) * r->block, r->runs.count);
  for (int64_t i = number * r->block; i < end; i++) {
    char *rows[ADCGK_RUN_TENSORS];
    for (int t = 0; t < r->count; t++) rows[t] = r->at[t] + adcgk_run_at(&r->runs, t, i) * size;
    r->row(r, rows);
  }
}

static adcg_status run(void *user_data, region *r, double nanoseconds) {
  r->block = adcgk_max(1, 8192 / r->runs.length);
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r->runs.count, r->block), (double)(r->runs.count * r->runs.length) * nanoseconds,
                 task, r);
  return ADCG_OK;
}

/* Rows of y, x and, with a gate, z. */
static void rms_row(const region *r, char *const *rows) {
  const int64_t size = r->norm.bf16 ? 2 : 4, weight_size = r->norm.weight_bf16 ? 2 : 4;
  adcgk_norm part = r->norm;
  part.n /= r->groups;
  for (int64_t g = 0; g < r->groups; g++) {
    const int64_t at = g * part.n;
    part.weight = (const char *)r->norm.weight + at * weight_size;
    r->kernels->rms_norm(rows[0] + at * size, rows[1] + at * size, r->count > 2 ? rows[2] + at * size : NULL, &part);
  }
}

/* Attributes, in the schema's order. */
enum { EPS, ONE_PLUS, GROUPS, GATE };

adcg_status adcgk_rms_norm(const adcg_op_call *call, void *user_data) {
  const bool gated = call->num_inputs > 2;
  region r = region_of((const DLTensor *[]){&call->outputs[0], &call->inputs[0], &call->inputs[gated ? 2 : 0]}, gated ? 3 : 2, rms_row);
  weigh(&r, &call->inputs[1], call->attrs[EPS].f);
  r.groups = call->attrs[GROUPS].i;
  r.norm.one_plus = call->attrs[ONE_PLUS].i != 0;
  if (gated) r.norm.gate = strcmp(call->attrs[GATE].s, "before") == 0 ? ADCGK_GATE_BEFORE : ADCGK_GATE_AFTER;
  return run(user_data, &r, gated ? 0.8 : 0.2);
}

static void layer_row(const region *r, char *const *rows) { r->kernels->layer_norm(rows[0], rows[1], &r->norm); }

adcg_status adcgk_layer_norm(const adcg_op_call *call, void *user_data) {
  region r = region_of((const DLTensor *[]){&call->outputs[0], &call->inputs[0]}, 2, layer_row);
  weigh(&r, &call->inputs[1], call->attrs[EPS].f);
  if (call->num_inputs > 2) {
    r.norm.bias = adcg_data(&call->inputs[2]);
    r.norm.bias_bf16 = adcgk_is_bf16(&call->inputs[2]);
  }
  return run(user_data, &r, 0.3);
}

/* Rows of the sum, a, b and the result. The norm reads the sum as it is stored: the bits are those of add and rms_norm. */
static void add_row(const region *r, char *const *rows) {
  r->kernels->add(rows[0], rows[1], rows[2], r->norm.bf16, 0, r->norm.n);
  r->kernels->rms_norm(rows[3], rows[0], NULL, &r->norm);
}

adcg_status adcgk_add_rms_norm(const adcg_op_call *call, void *user_data) {
  region r = region_of((const DLTensor *[]){&call->outputs[0], &call->inputs[0], &call->inputs[1], &call->outputs[1]}, 4, add_row);
  weigh(&r, &call->inputs[2], call->attrs[EPS].f);
  r.norm.one_plus = call->attrs[ONE_PLUS].i != 0;
  return run(user_data, &r, 0.35);
}

adcg_status adcgk_qk_norm(const adcg_op_call *call, void *user_data) {
  for (int i = 0; i < 2; i++) { /* q, then k */
    region r = region_of((const DLTensor *[]){&call->outputs[i], &call->inputs[i]}, 2, rms_row);
    weigh(&r, &call->inputs[2 + i], call->attrs[EPS].f);
    r.norm.one_plus = call->attrs[ONE_PLUS].i != 0;
    run(user_data, &r, 0.2);
  }
  return ADCG_OK;
}

static void softmax_row(const region *r, char *const *rows) { r->kernels->softmax(rows[0], rows[1], r->norm.bf16, r->norm.n); }

adcg_status adcgk_softmax(const adcg_op_call *call, void *user_data) {
  region r = region_of((const DLTensor *[]){&call->outputs[0], &call->inputs[0]}, 2, softmax_row);
  return run(user_data, &r, 1.0);
}
