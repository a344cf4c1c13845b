/* adcg.sample: draws one token a row. Nothing is sorted and nothing kept: a place in the order of the tokens (logits
 * falling, ties by id) is found by its key, 11, 11 and 10 bits at a time, with the sums of what has each value of
 * those bits. Sums are in double and in the order of ids. */
#include <math.h>
#include <string.h>

#include "../common/strides.h"
#include "internal.h"

enum { LEVELS = 3, BUCKETS = 1 << 11, CHUNK = 256 };
static const int shifts[LEVELS] = {21, 10, 0}, widths[LEVELS] = {11, 11, 10};

/* What a prefix of the tokens is measured by. */
enum { COUNT, MASS, MEASURES };

typedef struct histogram {
  double sums[MEASURES][BUCKETS];
} histogram;

typedef struct row {
  const adcgk_kernels *kernels;
  const char *logits;
  bool bf16;
  int64_t n;
  float largest, temperature;
  histogram all; /* of the first level */
} row;

/* The end of a prefix: all tokens before `key`, and the first `ties` of those that have it. */
typedef struct place {
  uint32_t key;
  int64_t ties;
  double mass; /* of the prefix */
} place;

/* Rises where logits fall; 0 and -0 have the same. */
static uint32_t key_of(float logit) {
  uint32_t bits;
  const float x = logit + 0.0f;
  memcpy(&bits, &x, sizeof(bits));
  return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

/* The sums over the tokens whose keys begin as `prefix` does, by the bits of a level. Tokens without mass are nowhere. */
static void fill(const row *r, int level, uint32_t prefix, histogram *h) {
  float logits[CHUNK], masses[CHUNK];
  memset(h, 0, sizeof(*h));
  for (int64_t first = 0; first < r->n; first += CHUNK) {
    const int64_t n = adcgk_min(CHUNK, r->n - first);
    r->kernels->masses(logits, masses, r->logits, r->bf16, r->largest, r->temperature, first, n);
    for (int64_t i = 0; i < n; i++) {
      const uint32_t key = key_of(logits[i]);
      if (!(masses[i] > 0.0f) || (level > 0 && key >> shifts[level - 1] != prefix)) continue;
      const uint32_t bucket = key >> shifts[level] & ((1u << widths[level]) - 1);
      h->sums[COUNT][bucket] += 1;
      h->sums[MASS][bucket] += (double)masses[i];
    }
  }
}

/* The shortest prefix whose measure exceeds `beyond`; all tokens if none does. */
static place locate(const row *r, int measure, double beyond) {
  histogram level;
  place p = {0, 0, 0.0};
  double before[MEASURES] = {0.0, 0.0};
  for (int l = 0; l < LEVELS; l++) {
    const histogram *h = &r->all;
    if (l > 0) {
      fill(r, l, p.key, &level);
      h = &level;
    }
    const uint32_t buckets = 1u << widths[l];
    uint32_t at = 0;
    double sums[MEASURES] = {before[COUNT], before[MASS]}; /* up to the last bucket that has a token */
    for (uint32_t b = 0; b < buckets; b++) {
      if (h->sums[COUNT][b] == 0.0) continue;
      at = b;
      before[COUNT] = sums[COUNT];
      before[MASS] = sums[MASS];
      sums[COUNT] += h->sums[COUNT][b];
      sums[MASS] += h->sums[MASS][b];
      if (sums[measure] > beyond) break;
    }
    p.key = p.key << widths[l] | at;
    if (l == LEVELS - 1) { /* tokens of one logit */
      const double count = h->sums[COUNT][at], mass = h->sums[MASS][at] / count, each = measure == MASS ? mass : 1.0;
      const double ties = floor((beyond - before[measure]) / each) + 1.0;
      p.ties = ties < 1.0 ? 1 : (int64_t)(ties < count ? ties : count);
      p.mass = before[MASS] + (double)p.ties * mass;
    }
  }
  return p;
}

/* The id of the token at the end of a prefix. */
static int32_t token_at(const row *r, place p) {
  float logits[CHUNK];
  const int64_t size = r->bf16 ? 2 : 4;
  for (int64_t first = 0; first < r->n; first += CHUNK) {
    const int64_t n = adcgk_min(CHUNK, r->n - first);
    r->kernels->convert(logits, false, r->logits + first * size, r->bf16, n);
    for (int64_t i = 0; i < n; i++) {
      if (key_of(logits[i]) == p.key && --p.ties == 0) return (int32_t)(first + i);
    }
  }
  return 0; /* not reached: the key is there so many times */
}

typedef struct region {
  const adcgk_kernels *kernels;
  const DLTensor *logits;
  const float *uniform;
  int32_t *ids;
  int64_t stride; /* bytes from row to row */
  float temperature;
  int64_t top_k;
  double top_p;
} region;

static void task(void *context, int64_t i) {
  const region *g = context;
  row r = {.kernels = g->kernels,
           .logits = (const char *)adcg_data(g->logits) + i * g->stride,
           .bf16 = adcgk_is_bf16(g->logits),
           .n = g->logits->shape[1],
           .temperature = g->temperature};
  const int64_t best = r.kernels->argmax(r.logits, r.bf16, r.n);
  r.kernels->convert(&r.largest, false, r.logits + best * (r.bf16 ? 2 : 4), r.bf16, 1);
  g->ids[i] = (int32_t)best;
  if (g->top_k == 1 || g->temperature == 0.0f || isnan(r.largest)) return;
  fill(&r, 0, 0, &r.all);
  double count = 0.0, mass = 0.0; /* of the tokens that are left */
  for (int b = 0; b < BUCKETS; b++) {
    count += r.all.sums[COUNT][b];
    mass += r.all.sums[MASS][b];
  }
  if (g->top_k > 0 && (double)g->top_k < count) mass = locate(&r, COUNT, (double)g->top_k - 0.5).mass;
  if (g->top_p < 1.0) mass = fmin(mass, locate(&r, MASS, nextafter(g->top_p * mass, 0.0)).mass); /* at least top_p of it */
  const float u = g->uniform[i] > 0.0f ? fminf(g->uniform[i], 0x1.fffffep-1f) : 0.0f; /* rows of padding may hold anything */
  g->ids[i] = token_at(&r, locate(&r, MASS, (double)u * mass));
}

/* Attributes, in the schema's order. */
enum { TEMPERATURE, TOP_K, TOP_P };

adcg_status adcgk_sample(const adcg_op_call *call, void *user_data) {
  const DLTensor *logits = &call->inputs[0];
  region r = {.kernels = adcgk_active(),
              .logits = logits,
              .uniform = adcg_data(&call->inputs[1]),
              .ids = adcg_data(&call->outputs[0]),
              .stride = adcgk_stride(logits, 0) * (int64_t)adcgk_size(logits),
              .temperature = (float)call->attrs[TEMPERATURE].f,
              .top_k = call->attrs[TOP_K].i,
              .top_p = call->attrs[TOP_P].f};
  adcgk_parallel(adcgk_pool_of(user_data), logits->shape[0], (double)adcg_numel(logits) * 10.0, task, &r);
  return ADCG_OK;
}
