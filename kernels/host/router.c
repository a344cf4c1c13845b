/* adcg.moe_router: logits [R, E] -> the top_k experts of each row, ascending, and their weights. */
#include <string.h>

#include "../common/strides.h"
#include "internal.h"

/* Tasks have scratch of their own in the workspace, so there are at most so many, whatever the rows and threads. */
enum { TASKS = 64 };

typedef struct region {
  const adcgk_kernels *kernels;
  const char *logits;
  const float *bias; /* [E]; NULL: none */
  float *weights;
  int32_t *indices;
  float *scratch;       /* of the first task */
  int64_t scratch_size; /* floats of one task */
  bool bf16, softmax, normalise;
  float factor;
  int64_t rows, block, stride; /* block: rows of a task; stride: bytes from row to row of logits */
  int64_t experts, k, groups, top_groups;
} region;

/* Whether score a comes before score b; a NaN comes before all numbers, as in argmax. */
static bool ahead(float a, float b) { return a > b || (a != a && b == b); }

/* Offers candidates first .. end-1 to `chosen`, the best `k` so far in order; of equals the earlier stays ahead. */
static void choose(const float *score, int64_t first, int64_t end, int32_t *chosen, int64_t *count, int64_t k) {
  for (int64_t i = first; i < end; i++) {
    if (*count == k && !ahead(score[i], score[chosen[k - 1]])) continue;
    int64_t at = *count < k ? (*count)++ : k - 1;
    for (; at > 0 && ahead(score[i], score[chosen[at - 1]]); at--) chosen[at] = chosen[at - 1];
    chosen[at] = (int32_t)i;
  }
}

static void sort(int32_t *ids, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    const int32_t id = ids[i];
    int64_t at = i;
    for (; at > 0 && ids[at - 1] > id; at--) ids[at] = ids[at - 1];
    ids[at] = id;
  }
}

static float two_largest(const float *score, int64_t n) { /* n >= 2 */
  float first = score[0], second = score[1];
  if (ahead(second, first)) first = score[1], second = score[0];
  for (int64_t i = 2; i < n; i++) {
    if (ahead(score[i], first))
      second = first, first = score[i];
    else if (ahead(score[i], second))
      second = score[i];
  }
  return first + second;
}

static void route(const region *r, int64_t row, float *scratch) {
  float *score = scratch, *biased = r->bias ? scratch + r->experts : score;
  float *of_group = scratch + 2 * r->experts;
  int32_t *group = (int32_t *)(void *)(of_group + r->groups), *chosen = r->indices + row * r->k;
  float *weight = r->weights + row * r->k;
  int64_t groups = 0, count = 0;
  r->kernels->router_scores(score, r->logits + row * r->stride, r->bf16, r->softmax, r->experts);
  if (r->bias) r->kernels->add(biased, score, r->bias, false, 0, r->experts);
  if (r->top_groups == r->groups) {
    choose(biased, 0, r->experts, chosen, &count, r->k);
  } else {
    const int64_t size = r->experts / r->groups;
    for (int64_t g = 0; g < r->groups; g++) of_group[g] = two_largest(biased + g * size, size);
    choose(of_group, 0, r->groups, group, &groups, r->top_groups);
    sort(group, groups);
    for (int64_t i = 0; i < groups; i++) choose(biased, group[i] * size, (group[i] + 1) * size, chosen, &count, r->k);
  }
  sort(chosen, r->k);
  float sum = 0.0f;
  for (int64_t i = 0; i < r->k; i++) sum += weight[i] = score[chosen[i]];
  for (int64_t i = 0; i < r->k; i++) weight[i] = (r->normalise ? weight[i] / (sum + 1e-20f) : weight[i]) * r->factor;
}

static void task(void *context, int64_t number) {
  const region *r = context;
  const int64_t end = adcgk_min((number + 1) * r->block, r->rows);
  for (int64_t row = number * r->block; row < end; row++) route(r, row, r->scratch + number * r->scratch_size);
}

/* Rows of a task: some microseconds of work, or more if there would be too many tasks. */
static int64_t block_of(int64_t rows, int64_t experts) { return adcgk_max(adcgk_max(1, 4096 / experts), adcgk_ceil_div(rows, TASKS)); }
/* Floats of a task: scores, biased scores, the groups' scores and the groups chosen; whole cache lines. */
static int64_t scratch_of(int64_t experts, int64_t groups) { return adcgk_ceil_div(2 * (experts + groups), 16) * 16; }

adcg_status adcgk_moe_router_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  const int64_t rows = call->inputs[0].shape[0], experts = call->inputs[0].shape[1];
  const int64_t tasks = adcgk_ceil_div(rows, block_of(rows, experts));
  *out_bytes = (size_t)(tasks * scratch_of(experts, call->attrs[2].i) + experts) * sizeof(float);
  return ADCG_OK;
}

adcg_status adcgk_moe_router(const adcg_op_call *call, void *user_data) {
  const DLTensor *logits = &call->inputs[0], *bias = call->num_inputs > 1 ? &call->inputs[1] : NULL;
  region r = {.kernels = adcgk_active(),
              .logits = adcg_data(logits),
              .weights = adcg_data(&call->outputs[0]),
              .indices = adcg_data(&call->outputs[1]),
              .scratch = call->workspace,
              .bf16 = adcgk_is_bf16(logits),
              .softmax = strcmp(call->attrs[0].s, "softmax") == 0,
              .normalise = call->attrs[4].i != 0,
              .factor = (float)call->attrs[5].f,
              .rows = logits->shape[0],
              .experts = logits->shape[1],
              .k = call->attrs[1].i,
              .groups = call->attrs[2].i,
              .top_groups = call->attrs[3].i};
  r.stride = adcgk_stride(logits, 0) * (r.bf16 ? 2 : 4);
  r.block = block_of(r.rows, r.experts);
  r.scratch_size = scratch_of(r.experts, r.groups);
  const int64_t tasks = adcgk_ceil_div(r.rows, r.block);
  if (bias) { /* behind the tasks' scratch, as f32 */
    float *copy = r.scratch + tasks * r.scratch_size;
    r.kernels->convert(copy, false, adcg_data(bias), adcgk_is_bf16(bias), r.experts);
    r.bias = copy;
  }
  adcgk_parallel(adcgk_pool_of(user_data), tasks, (double)(r.rows * r.experts) * 2, task, &r);
  return ADCG_OK;
}
