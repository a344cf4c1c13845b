/* Which algorithm of cuBLASLt computes a product, and the table that remembers it (lt.h has the rule). */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "../common/tensor.h"
#include "lt_choice.h"

enum { ASKED = 8, PROBES = 16 }; /* answers of one query; slots of the table that a problem may be in */
enum { EMPTY, FILLING, THERE };

/* Inside functions that have lt and failure: leaves with false if the call fails. */
#define TRY(name, ...)                                                          \
  do {                                                                          \
    const lt_status status_ = lt->call.name(__VA_ARGS__);                       \
    if (status_ != LT_SUCCESS) {                                                \
      *failure = (lt_failure){.function = "cublasLt" #name, .status = status_}; \
      return false;                                                             \
    }                                                                           \
  } while (0)
#define SET(what, object, attribute, value) TRY(what##SetAttribute, object, attribute, value, sizeof *(value))

bool lt_describe(const struct adcgk_lt *lt, const lt_problem *p, int64_t rows, const void *bias, lt_operation *o, lt_failure *failure) {
  const int32_t turned = LT_OP_T, compute = lt->options.tf32 && p->x_type == LT_R_32F ? LT_COMPUTE_32F_TF32 : LT_COMPUTE_32F;
  TRY(MatmulDescInit_internal, &o->desc, sizeof o->desc, compute, LT_R_32F);
  SET(MatmulDesc, &o->desc, LT_DESC_TRANSA, &turned);
  SET(MatmulDesc, &o->desc, LT_DESC_EPILOGUE, &p->epilogue);
  if (p->epilogue & LT_EPILOGUE_BIAS) {
    SET(MatmulDesc, &o->desc, LT_DESC_BIAS_POINTER, &bias);
    SET(MatmulDesc, &o->desc, LT_DESC_BIAS_DATA_TYPE, &p->bias_type);
  }
  const uint64_t m = (uint64_t)rows, n = (uint64_t)p->n, k = (uint64_t)p->k;
  TRY(MatrixLayoutInit_internal, &o->a, sizeof o->a, p->x_type, k, n, p->k);
  TRY(MatrixLayoutInit_internal, &o->b, sizeof o->b, p->x_type, k, m, p->ldx);
  TRY(MatrixLayoutInit_internal, &o->d, sizeof o->d, p->y_type, n, m, p->ldy);
  return true;
}

uint64_t lt_split_bytes(const struct adcgk_lt *lt, const adcgk_cuda *device, int64_t m, int64_t n) {
  if (device->batch_invariant || m < 1 || n < 1) return 0;
  const int64_t tiles = adcgk_ceil_div(m, 64) * adcgk_ceil_div(n, 64), wanted = 2 * (int64_t)device->multiprocessors;
  if (tiles >= wanted) return 0;
  const uint64_t splits = (uint64_t)adcgk_min(adcgk_ceil_div(wanted, tiles), 16);
  const uint64_t bytes = splits * (uint64_t)m * (uint64_t)n * sizeof(float);
  return bytes < lt->options.workspace_bytes ? bytes : lt->options.workspace_bytes;
}

/* ---- The choice ------------------------------------------------------------------------------------------------------------------- */

static bool read_config(const struct adcgk_lt *lt, const lt_algo *algo, adcgk_lt_choice *info, lt_failure *failure) {
  size_t written;
  const struct {
    int32_t attribute, *to;
  } fields[] = {{LT_CONFIG_ID, &info->id},
                {LT_CONFIG_TILE, &info->tile},
                {LT_CONFIG_STAGES, &info->stages},
                {LT_CONFIG_SPLITS, &info->splits},
                {LT_CONFIG_REDUCTION, &info->reduction}};
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
    TRY(MatmulAlgoConfigGetAttribute, algo, fields[i].attribute, fields[i].to, sizeof(int32_t), &written);
  return true;
}

static bool is_plain(const adcgk_lt_choice *info) {
  return info->splits <= 1 && info->reduction == LT_REDUCTION_NONE && info->workspace_bytes == 0;
}

/* The library's first answer under these bounds that says it works; plain ones alone if `plain`. */
static bool ask(const struct adcgk_lt *lt, const lt_problem *p, const lt_operation *o, uint64_t workspace, bool plain, lt_choice *out,
                lt_failure *failure) {
  /* Schemes that add up in the result's type would round bf16 sums more than once. */
  const uint32_t schemes = plain ? LT_REDUCTION_NONE : LT_REDUCTION_COMPUTE_TYPE;
  lt_preference preference;
  TRY(MatmulPreferenceInit_internal, &preference, sizeof preference);
  SET(MatmulPreference, &preference, LT_PREFERENCE_WORKSPACE, &workspace);
  SET(MatmulPreference, &preference, LT_PREFERENCE_REDUCTION_MASK, &schemes);
  SET(MatmulPreference, &preference, LT_PREFERENCE_ALIGNMENT_A, &p->w_align);
  SET(MatmulPreference, &preference, LT_PREFERENCE_ALIGNMENT_B, &p->x_align);
  SET(MatmulPreference, &preference, LT_PREFERENCE_ALIGNMENT_C, &p->y_align);
  SET(MatmulPreference, &preference, LT_PREFERENCE_ALIGNMENT_D, &p->y_align);
  lt_result results[ASKED];
  int32_t count = 0;
  out->usable = 0;
  const lt_status status =
      lt->call.MatmulAlgoGetHeuristic(lt->handle, &o->desc, &o->a, &o->b, &o->d, &o->d, &preference, ASKED, results, &count);
  if (status == LT_NOT_SUPPORTED) return true;
  if (status != LT_SUCCESS) {
    *failure = (lt_failure){"cublasLtMatmulAlgoGetHeuristic", status};
    return false;
  }
  for (int32_t i = 0; i < count; i++) {
    if (results[i].state != LT_SUCCESS || results[i].workspace_bytes > workspace) continue;
    adcgk_lt_choice info = {.waves = results[i].waves, .workspace_bytes = results[i].workspace_bytes};
    if (!read_config(lt, &results[i].algo, &info, failure)) return false;
    if (plain && !is_plain(&info)) continue;
    *out = (lt_choice){results[i].algo, info, 1};
    break;
  }
  return true;
}

/* How much longer a launch takes than one that fills the device to the last wave. */
static double idle(float waves) { return waves > 0 ? ceil(waves) / waves : 1; }

static bool make_choice(const struct adcgk_lt *lt, const adcgk_cuda *device, const lt_problem *p, const lt_operation *o, lt_choice *out,
                        lt_failure *failure) {
  if (!ask(lt, p, o, 0, true, out, failure)) return false;
  const uint64_t workspace = lt_split_bytes(lt, device, p->m, p->n);
  out->info.first_plain = 1;
  out->info.first_waves = out->info.waves;
  /* Split sums are rounded to the result's type before a bias is added to them: of bf16 that showed as 39 roundings on an H100. */
  const bool rounds = (p->epilogue & LT_EPILOGUE_BIAS) && p->y_type == LT_R_16BF;
  if (workspace == 0 || rounds) return true;
  lt_choice first;
  if (!ask(lt, p, o, workspace, false, &first, failure)) return false;
  if (!first.usable || is_plain(&first.info)) return true; /* the same query but for the bounds: the same plain one leads */
  first.info.first_plain = 0;
  first.info.first_waves = first.info.waves;
  const bool keep = out->usable && idle(out->info.waves) <= lt->options.plain_cost * idle(first.info.waves);
  out->info.first_plain = 0;
  out->info.first_waves = first.info.waves;
  if (!keep) *out = first;
  return true;
}

/* One algorithm for every count of rows: that of pinned_rows, if it can compute this count too. */
static bool pinned_choice(const struct adcgk_lt *lt, const lt_problem *p, const void *bias, const lt_operation *o, lt_choice *out,
                          lt_failure *failure) {
  lt_operation reference;
  if (!lt_describe(lt, p, lt->options.pinned_rows, bias, &reference, failure)) return false;
  if (!ask(lt, p, &reference, 0, true, out, failure)) return false;
  if (!out->usable) return true;
  lt_result result;
  TRY(MatmulAlgoCheck, lt->handle, &o->desc, &o->a, &o->b, &o->d, &o->d, &out->algo, &result);
  if (result.state != LT_SUCCESS || result.workspace_bytes != 0) { /* another one for this count would not be pinned */
    *failure = (lt_failure){"cublasLtMatmulAlgoCheck", LT_NOT_SUPPORTED};
    return false;
  }
  out->info.waves = out->info.first_waves = result.waves;
  out->info.first_plain = 1;
  return true;
}

/* ---- The table -------------------------------------------------------------------------------------------------------------------- */

/* Entries are written once and never change, so that readers need no lock. Two threads that make one choice at the same time make
 * the same, and may keep it twice. When a problem's slots are taken its choice is made anew each time, and is the same each time. */
static uint64_t hash(const lt_problem *p) {
  const unsigned char *bytes = (const unsigned char *)p;
  uint64_t h = 1469598103934665603u; /* FNV-1a */
  for (size_t i = 0; i < sizeof *p; i++) h = (h ^ bytes[i]) * 1099511628211u;
  return h ^ h >> 32;
}

static bool find(const struct adcgk_lt *lt, const lt_problem *p, lt_choice *out) {
  const uint64_t first = hash(p);
  for (uint64_t i = 0; i < PROBES; i++) {
    const lt_entry *entry = &lt->entries[(first + i) % LT_ENTRIES];
    const int32_t state = atomic_load_explicit(&entry->state, memory_order_acquire);
    if (state == EMPTY) return false;
    if (state != THERE || memcmp(&entry->problem, p, sizeof *p) != 0) continue;
    *out = entry->choice;
    return true;
  }
  return false;
}

static void keep(const struct adcgk_lt *lt, const lt_problem *p, const lt_choice *choice) {
  const uint64_t first = hash(p);
  for (uint64_t i = 0; i < PROBES; i++) {
    lt_entry *entry = &lt->entries[(first + i) % LT_ENTRIES];
    int32_t state = EMPTY;
    if (!atomic_compare_exchange_strong_explicit(&entry->state, &state, FILLING, memory_order_relaxed, memory_order_relaxed)) continue;
    entry->problem = *p;
    entry->choice = *choice;
    atomic_store_explicit(&entry->state, THERE, memory_order_release);
    return;
  }
}

bool lt_choose(const struct adcgk_lt *lt, const adcgk_cuda *device, const lt_problem *p, const void *bias, const lt_operation *o,
               lt_choice *out, lt_failure *failure) {
  if (find(lt, p, out)) return true;
  memset(out, 0, sizeof *out);
  if (!(p->pinned ? pinned_choice(lt, p, bias, o, out, failure) : make_choice(lt, device, p, o, out, failure))) return false;
  keep(lt, p, out);
  return true;
}
