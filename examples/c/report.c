#define _POSIX_C_SOURCE 200809L
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tally_add(tally *t, const adcg_step *step, int64_t tokens) {
  int k = 0;
  while (k < t->num_kinds && (t->kinds[k].size.mode != step->mode || t->kinds[k].size.bucket_tokens != step->bucket_tokens ||
                              t->kinds[k].size.bucket_seqs != step->bucket_seqs))
    k++;
  if (k == MAX_KINDS) k--; /* eager steps of ever new sizes share the last line */
  if (k == t->num_kinds) t->kinds[t->num_kinds++].size = *step;
  t->kinds[k].steps++;
  t->kinds[k].tokens += tokens;
  t->kinds[k].padded += step->padded_tokens;
}

static const char *mode_name(int32_t mode) { return mode == ADCG_MODE_FULL ? "full" : mode == ADCG_MODE_PIECEWISE ? "piecewise" : "eager"; }

static int by_size(const void *a, const void *b) {
  const adcg_step *x = a, *y = b; /* the first member of each kind */
  if (x->mode != y->mode) return x->mode > y->mode ? -1 : 1;
  if (x->bucket_tokens != y->bucket_tokens) return x->bucket_tokens < y->bucket_tokens ? -1 : 1;
  return (x->bucket_seqs > y->bucket_seqs) - (x->bucket_seqs < y->bucket_seqs);
}

static void print_steps(const tally *t) {
  tally sorted = *t;
  qsort(sorted.kinds, (size_t)sorted.num_kinds, sizeof *sorted.kinds, by_size);
  int64_t steps = 0, tokens = 0, padded = 0;
  printf("\nsteps\n%-10s %14s %12s %8s %10s %14s\n", "mode", "bucket tokens", "bucket seqs", "steps", "tokens", "padded tokens");
  for (int k = 0; k < sorted.num_kinds; k++) {
    const adcg_step *size = &sorted.kinds[k].size;
    printf("%-10s %14lld %12lld %8lld %10lld %14lld\n", mode_name(size->mode), (long long)size->bucket_tokens, (long long)size->bucket_seqs,
           (long long)sorted.kinds[k].steps, (long long)sorted.kinds[k].tokens, (long long)sorted.kinds[k].padded);
    steps += sorted.kinds[k].steps;
    tokens += sorted.kinds[k].tokens;
    padded += sorted.kinds[k].padded;
  }
  printf("%-10s %14s %12s %8lld %10lld %14lld\n", "total", "", "", (long long)steps, (long long)tokens, (long long)padded);
}

static void print_fallbacks(const adcg_stats *stats) {
  static const char *const reasons[ADCG_NUM_REASONS] = {"none: it was one full graph",
                                                        "mode: the exec's mode has nothing better for such a step",
                                                        "support: an op's capture support does not cover such a batch",
                                                        "too large: larger than the largest bucket",
                                                        "not captured: no bucket that holds it",
                                                        "capture failed: its bucket's",
                                                        "empty: nothing ran",
                                                        "verify: every step runs eagerly"};
  printf("\nfallbacks: why a step was not one full graph\n");
  for (int i = 0; i < ADCG_NUM_REASONS; i++)
    if (stats->reasons[i]) printf("%8lld  %s\n", (long long)stats->reasons[i], reasons[i]);
}

static void print_bytes(const char *what, int64_t bytes, int64_t bound) {
  printf("%-24s %14lld", what, (long long)bytes);
  if (bound) printf("   %6.2fx", (double)bytes / (double)bound);
  printf("\n");
}

static void print_memory(const adcg_stats *stats, const adcg_forecast *forecast) {
  int64_t bound = forecast->lower_bound_bytes;
  printf("\nmemory %31s %9s\n", "bytes", "of bound");
  print_bytes("arena", stats->arena_bytes, bound);
  print_bytes("  peak-liveness bound", bound, bound);
  print_bytes("  sum over buckets", forecast->bucket_sum_bytes, bound);
  print_bytes("tapes", stats->tape_bytes, 0);
  print_bytes("metadata", stats->metadata_bytes, 0);
  print_bytes("total held now", stats->total_bytes, 0);
  print_bytes("total forecast", forecast->total_bytes, 0);
  print_bytes("staged copies", stats->staged_bytes, 0);
}

static void print_speed(const tally *t, bool checked) {
  double steps = t->timed_steps ? (double)t->timed_steps : 1, tokens = (double)t->timed_tokens;
  printf("\nspeed %22s %12s\n", "tokens/s", "us a step");
  if (t->replay_seconds > 0) printf("%-12s %15.0f %12.1f\n", "replay", tokens / t->replay_seconds, t->replay_seconds / steps * 1e6);
  if (checked && t->eager_seconds > 0) {
    printf("%-12s %15.0f %12.1f\n", "eager", tokens / t->eager_seconds, t->eager_seconds / steps * 1e6);
    printf("%-12s %14.2fx\n", "replay/eager", t->eager_seconds / t->replay_seconds);
  }
  if (t->captures)
    printf("%lld sizes captured on first use, in steps of %.0f us together\n", (long long)t->captures, t->capture_seconds * 1e6);
}

void tally_print(const tally *t, const runner *r, const adcg_forecast *forecast, bool checked) {
  adcg_stats stats = ADCG_STATS_INIT;
  TRY(adcg_exec_get_stats(r->exec, &stats));
  print_steps(t);
  print_fallbacks(&stats);
  print_memory(&stats, forecast);
  print_speed(t, checked);
}

void print_tokens(const int32_t *tokens, int64_t count, bool bytes) {
  for (int64_t i = 0; i < count; i++) {
    if (!bytes)
      printf("%s%d", i ? " " : "", (int)tokens[i]);
    else if (tokens[i])
      putchar((int)tokens[i]); /* byte 0 begins a file */
  }
}

void progress_bar(const char *what, int64_t done, int64_t total, const char *note) {
  enum { WIDTH = 30 };
  static double drawn;
  bool terminal = isatty(STDERR_FILENO), last = done >= total;
  if (!last && (!terminal || seconds() < drawn + 0.05)) return;
  drawn = seconds();
  char bar[WIDTH + 1];
  int filled = total > 0 ? (int)(done * WIDTH / total) : WIDTH;
  memset(bar, '.', WIDTH);
  memset(bar, '#', (size_t)(filled < WIDTH ? filled : WIDTH));
  bar[WIDTH] = 0;
  fprintf(stderr, "%s%-8s [%s] %lld/%lld %-40s%s", terminal ? "\r" : "", what, bar, (long long)done, (long long)total, note,
          last ? "\n" : "");
  fflush(stderr);
}
