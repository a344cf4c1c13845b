/* adcg.sample: draws one token a row. Nothing is sorted: a place in the order of the tokens (logits falling, ties by
 * id) is found by its key, 11, 11 and 10 bits at a time, with the sums of what has each value of those bits. Sums are
 * in double and in the order of ids. A small top_k first leaves out most tokens that are not among the top_k, which
 * changes none of these sums. */
#include <math.h>
#include <string.h>

#include "../common/strides.h"
#include "internal.h"

enum {
  LEVELS = 3,
  BUCKETS = 1 << 11,
  CHUNK = 256,
  GROUPS = 1024, /* parts of a row, at most, whose largest logits give a bound for top_k */
  ROOM = 2048    /* tokens that may be left then */
};
static const int shifts[LEVELS] = {21, 10, 0}, widths[LEVELS] = {11, 11, 10};

/* What a prefix of the tokens is measured by. */
enum { COUNT, MASS, MEASURES };

typedef struct histogram {
  double sums[MEASURES][BUCKETS];
} histogram;

typedef struct row {
  const adcgk_kernels *kernels;
  const char *logits;
  const int32_t *ids; /* of the logits; NULL: 0, 1, 2 .. */
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
/* Of a key, what the kernels' `between` compares: an integer that rises with the logit. */
static int32_t rank_of(uint32_t key) { return (int32_t)((uint32_t)INT32_MAX - key); }

/* The sums over the tokens whose keys begin as `prefix` does, by the bits of a level. Tokens without mass are nowhere. */
static void fill(const row *r, int level, uint32_t prefix, histogram *h) {
  float logits[CHUNK], masses[CHUNK];
  int32_t ids[CHUNK];
  memset(h, 0, sizeof(*h));
  const int shift = level > 0 ? shifts[level - 1] : 0;
  const int32_t high = rank_of(prefix << shift), low = rank_of(prefix << shift | ((1u << shift) - 1));
  for (int64_t first = 0; first < r->n; first += CHUNK) {
    int64_t n = adcgk_min(CHUNK, r->n - first);
    if (level == 0) {
      r->kernels->masses(logits, masses, r->logits, r->bf16, r->largest, r->temperature, first, n);
    } else {
      n = r->kernels->between(logits, ids, CHUNK, r->logits, r->bf16, low, high, first, n);
      r->kernels->masses(logits, masses, logits, false, r->largest, r->temperature, 0, n);
    }
    for (int64_t i = 0; i < n; i++) {
      if (!(masses[i] > 0.0f)) continue;
      const uint32_t bucket = key_of(logits[i]) >> shifts[level] & ((1u << widths[level]) - 1);
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
  int32_t at[CHUNK];
  for (int64_t first = 0; first < r->n; first += CHUNK) {
    const int64_t n = adcgk_min(CHUNK, r->n - first);
    const int64_t found = r->kernels->between(logits, at, CHUNK, r->logits, r->bf16, rank_of(p.key), rank_of(p.key), first, n);
    if (p.ties <= found) return r->ids ? r->ids[at[p.ties - 1]] : at[p.ties - 1];
    p.ties -= found;
  }
  return 0; /* not reached: the key is there so many times */
}

/* ---- Fewer tokens --------------------------------------------------------------------------------------- */

/* Puts a logit in the place of the root of a heap of k, whose smallest is at the root. */
static void replace_root(float *heap, int64_t k, int64_t root, float logit) {
  int64_t at = root;
  for (int64_t child; (child = 2 * at + 1) < k; at = child) {
    if (child + 1 < k && heap[child + 1] < heap[child]) child++;
    if (logit <= heap[child]) break;
    heap[at] = heap[child];
  }
  heap[at] = logit;
}

/* The k-th largest of n logits, 0 < k <= n: the smallest of a heap of k. Reorders them. */
static float kth_largest(float *logits, int64_t n, int64_t k) {
  for (int64_t i = k / 2 - 1; i >= 0; i--) replace_root(logits, k, i, logits[i]);
  for (int64_t i = k; i < n; i++) {
    if (logits[i] > logits[0]) replace_root(logits, k, 0, logits[i]);
  }
  return logits[0];
}

typedef struct few {
  float logits[ROOM];
  int32_t ids[ROOM];
} few;

/* Leaves out tokens that are not among the first top_k, if so few are left that they fit. Of the largest logits of
 * disjoint groups of tokens, top_k reach a bound: so do top_k tokens, and what is below it is none of them. */
static void narrow(row *r, int64_t top_k, few *to) {
  const int64_t vectors = r->n / 16, block = adcgk_ceil_div(vectors, GROUPS / 16), groups = vectors / adcgk_max(block, 1) * 16;
  if (top_k > groups / 2 || r->n <= ROOM / 4) return;
  r->kernels->maxima(to->logits, r->logits, r->bf16, block, groups / 16);
  const int32_t low = rank_of(key_of(kth_largest(to->logits, groups, top_k)));
  const int64_t left = r->kernels->between(to->logits, to->ids, ROOM, r->logits, r->bf16, low, INT32_MAX, 0, r->n);
  if (left > ROOM) return;
  r->logits = (const char *)to->logits;
  r->ids = to->ids;
  r->bf16 = false;
  r->n = left;
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
  few left;
  if (g->top_k > 0) narrow(&r, g->top_k, &left);
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
