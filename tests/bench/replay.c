/* What a replay costs above the ops that it runs.
 *
 *   replay: a captured tape of N empty static ops     against     a bare C loop over the same N function pointers
 *
 * Both call the same functions with the same kind of arguments (call, user_data) and look at their statuses. Samples alternate, so
 * that both see the same machine. Target: within 1.1x at 32 ops and more, plus an entry of at most 30 ns. The target is held
 * against a loop in a shared library, as the tape's is; ops stand in a library or in the program. Then the tails of single replays,
 * with Go idle and with Go busy and collecting; and the bytes that a replay allocates. */
#define _GNU_SOURCE
#include <adcg/adcg.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bare.h"

BARE(static __attribute__((noinline)), program)

#include "try.h"

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- Bytes: every allocation of this process passes here ------------------------------------------------------------- */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static _Atomic int64_t allocated;

void *malloc(size_t size) {
  allocated += (int64_t)size;
  return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
  allocated += (int64_t)(count * size);
  return __libc_calloc(count, size);
}
void *realloc(void *pointer, size_t size) {
  allocated += (int64_t)size;
  return __libc_realloc(pointer, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
  allocated += (int64_t)size;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  allocated += (int64_t)size;
  *out = __libc_memalign(alignment, size);
  return *out ? 0 : 12;
}

/* ---- The graph: x [tokens, 1] through N empty ops, in place ----------------------------------------------------------- */

static adcg_status like_input(const adcg_infer_call *call, void *user_data) {
  (void)user_data;
  call->outputs[0] = call->inputs[0];
  return ADCG_OK;
}

typedef struct chain {
  adcg_graph *graph;
  adcg_exec *exec;
  float x[64], y[64];
  int64_t shape[2];
  DLTensor in, out;
  adcg_batch batch;
} chain;

static void add_ops(adcg_graph *graph, int n) {
  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(1)};
  adcg_value v, next;
  TRY(adcg_graph_add_input(graph, "x", ADCG_F32, 2, rows, &v));
  for (int i = 0; i < n; i++, v = next) TRY(adcg_graph_add_op(graph, "bench.empty", &v, 1, NULL, 0, &next, 1));
  TRY(adcg_graph_add_output(graph, "y", v));
  TRY(adcg_graph_freeze(graph));
}

static adcg_engine *make_engine(adcg_op_launch_fn empty) {
  adcg_engine *engine;
  TRY(adcg_engine_create("host", NULL, &engine));
  adcg_op_alias alias = {0, 0, ADCG_ALIAS_IN_PLACE};
  adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
  schema.name = "bench.empty";
  schema.num_inputs = schema.num_outputs = schema.num_aliases = 1;
  schema.aliases = &alias;
  schema.infer = like_input;
  schema.launch = empty;
  TRY(adcg_engine_register_op(engine, &schema, NULL));
  return engine;
}

static void open_chain(chain *c, adcg_engine *engine, int n) {
  memset(c, 0, sizeof *c);
  adcg_graph_limits limits = {sizeof limits, 64, 8, 0};
  TRY(adcg_graph_create(engine, &limits, &c->graph));
  add_ops(c->graph, n);
  TRY(adcg_exec_create(c->graph, NULL, &c->exec));
  c->shape[0] = 64;
  c->shape[1] = 1;
  c->in = (DLTensor){c->x, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, c->shape, NULL, 0};
  c->out = c->in;
  c->out.data = c->y;
  c->batch = (adcg_batch){sizeof c->batch, 0, 0, 0, 0, 8, 0};
  adcg_step step = ADCG_STEP_INIT;
  TRY(adcg_exec_replay(c->exec, &c->batch, &c->in, 1, &c->out, 1, NULL, &step));
  if (step.mode == ADCG_MODE_NONE) {
    fprintf(stderr, "the steps run eagerly (reason %d)\n", step.reason);
    exit(1);
  }
}

static inline adcg_status replay(chain *c) { return adcg_exec_replay(c->exec, &c->batch, &c->in, 1, &c->out, 1, NULL, NULL); }

static void close_chain(chain *c) {
  adcg_exec_destroy(c->exec);
  adcg_graph_destroy(c->graph);
}

/* ---- The bare loop ------------------------------------------------------------------------------------------------------- */

static bare_step *make_steps(adcg_op_launch_fn empty, int n) {
  bare_step *steps = calloc((size_t)n, sizeof *steps);
  adcg_op_call *calls = calloc((size_t)n, sizeof *calls);
  for (int i = 0; i < n; i++) steps[i] = (bare_step){empty, &calls[i], NULL};
  return steps;
}

static void free_steps(bare_step *steps) {
  free((void *)(uintptr_t)steps[0].call);
  free(steps);
}

/* ---- Medians ---------------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef struct times {
  double replay, library, program; /* medians, ns: the tape, and the loop from where it stands */
  double ratio, above;             /* medians over samples: replay / loop, and replay - 1.1 loop; loop in the library */
} times;

static double median(double *samples, int count) {
  qsort(samples, (size_t)count, sizeof *samples, by_value);
  return samples[count / 2];
}

static times measure(adcg_engine *engine, adcg_op_launch_fn empty, int n) {
  enum { SAMPLES = 301 };
  static double replays[SAMPLES], libraries[SAMPLES], programs[SAMPLES], ratios[SAMPLES], aboves[SAMPLES];
  static chain c;
  open_chain(&c, engine, n);
  bare_step *steps = make_steps(empty, n);
  int repeats = n >= 256 ? 50 : 20000 / (n + 10);
  for (int s = 0; s < SAMPLES; s++) {
    int64_t t0 = now_ns();
    for (int i = 0; i < repeats; i++) TRY(replay(&c));
    int64_t t1 = now_ns();
    for (int i = 0; i < repeats; i++) TRY(library_loop(steps, n));
    int64_t t2 = now_ns();
    for (int i = 0; i < repeats; i++) TRY(program_loop(steps, n));
    int64_t t3 = now_ns();
    replays[s] = (double)(t1 - t0) / repeats;
    libraries[s] = (double)(t2 - t1) / repeats;
    programs[s] = (double)(t3 - t2) / repeats;
    ratios[s] = replays[s] / libraries[s]; /* of neighbours in time: the clock's speed changes between samples */
    aboves[s] = replays[s] - 1.1 * libraries[s];
  }
  free_steps(steps);
  close_chain(&c);
  return (times){median(replays, SAMPLES), median(libraries, SAMPLES), median(programs, SAMPLES), median(ratios, SAMPLES),
                 median(aboves, SAMPLES)};
}

/* Prints one table; returns how many sizes missed the target. */
static int table(const char *where, adcg_op_launch_fn empty) {
  static const int sizes[] = {1, 8, 32, 128, 1024};
  enum { SIZES = sizeof sizes / sizeof *sizes };
  times t[SIZES];
  int missed = 0;
  adcg_engine *engine = make_engine(empty);
  printf("N empty ops that stand in %s (medians of 301 samples, ns; target: at most 30 above 1.1x the library's loop)\n", where);
  printf("%6s %10s %15s %15s %8s %15s\n", "ops", "replay", "loop, library", "loop, program", "ratio", "less 1.1x loop");
  for (int i = 0; i < SIZES; i++) {
    t[i] = measure(engine, empty, sizes[i]);
    int met = t[i].above <= 30;
    if (sizes[i] >= 32) missed += !met;
    printf("%6d %10.1f %15.1f %15.1f %7.2fx %15.1f %s\n", sizes[i], t[i].replay, t[i].library, t[i].program, t[i].ratio, t[i].above,
           sizes[i] < 32 ? "-"
           : met         ? "met"
                         : "missed");
  }
  const times *first = &t[0], *eight = &t[1], *last = &t[SIZES - 1];
  int between = sizes[SIZES - 1] - sizes[1];
  printf("entry: %.1f ns (replay less loop, at 1 op); per op: %.2f ns, loop %.2f ns (from 8 to 1024)\n\n", first->replay - first->library,
         (last->replay - eight->replay) / between, (last->library - eight->library) / between);
  adcg_engine_destroy(engine);
  return missed;
}

/* ---- Tails ------------------------------------------------------------------------------------------------------------------- */

static _Atomic int stop;
static _Atomic int64_t control_calls;

static int32_t discard(const char *data, size_t size, void *user_data) {
  (void)data;
  (void)size;
  (void)user_data;
  return 0;
}

/* Keeps Go planning, allocating and collecting. */
static void *keep_go_busy(void *argument) {
  adcg_engine *engine = argument;
  while (!stop) {
    adcg_graph_limits limits = {sizeof limits, 512, 8, 0};
    adcg_graph *graph;
    TRY(adcg_graph_create(engine, &limits, &graph));
    add_ops(graph, 100);
    TRY(adcg_graph_write_plan(graph, NULL, ADCG_PLAN_JSON, discard, NULL));
    adcg_graph_destroy(graph);
    control_calls += 105;
  }
  return NULL;
}

typedef struct tail {
  double p50, p99, p999, max; /* ns */
} tail;

static tail tail_of(chain *c, const bare_step *steps, int n) {
  enum { SINGLES = 400000 };
  static double ns[SINGLES];
  for (int i = 0; i < SINGLES; i++) {
    int64_t start = now_ns();
    if (c)
      TRY(replay(c));
    else
      TRY(library_loop(steps, n));
    ns[i] = (double)(now_ns() - start);
  }
  qsort(ns, SINGLES, sizeof *ns, by_value);
  return (tail){ns[SINGLES / 2], ns[SINGLES / 100 * 99], ns[SINGLES / 1000 * 999], ns[SINGLES - 1]};
}

static void print_tail(const char *what, tail replay_tail, tail bare_tail) {
  printf("%-26s %10.0f %10.0f %10.0f %10.0f    %10.0f %10.0f %10.0f %10.0f\n", what, replay_tail.p50, replay_tail.p99, replay_tail.p999,
         replay_tail.max, bare_tail.p50, bare_tail.p99, bare_tail.p999, bare_tail.max);
}

int main(void) {
  int missed = table("a shared library", library_empty) + table("the program", program_empty);
  adcg_engine *engine = make_engine(library_empty);
  static chain c;
  open_chain(&c, engine, 32);
  bare_step *steps = make_steps(library_empty, 32);
  printf("tails of single calls, 32 ops, 400,000 of each (ns, with about %d ns of clock)\n", 25);
  printf("%-26s %43s    %43s\n", "", "replay: p50        p99      p99.9        max", "loop: p50        p99      p99.9        max");
  tail alone = tail_of(&c, NULL, 0), bare_alone = tail_of(NULL, steps, 32);
  print_tail("Go idle", alone, bare_alone);
  pthread_t thread;
  if (pthread_create(&thread, NULL, keep_go_busy, engine)) return 1;
  tail busy = tail_of(&c, NULL, 0), bare_busy = tail_of(NULL, steps, 32);
  stop = 1;
  pthread_join(thread, NULL);
  print_tail("Go busy and collecting", busy, bare_busy);
  printf("(%lld control calls of another thread ran meanwhile)\n\n", (long long)control_calls);

  int64_t before = allocated;
  for (int i = 0; i < 100000; i++) TRY(replay(&c));
  int64_t in_place = allocated - before;
  c.shape[0] = 8; /* too short for the bucket: staged */
  before = allocated;
  for (int i = 0; i < 100000; i++) TRY(replay(&c));
  printf("bytes allocated per replay: %.3f in place, %.3f staged (100,000 replays each)\n", (double)in_place / 100000,
         (double)(allocated - before) / 100000);
  missed += in_place != 0 || allocated != before;
  free_steps(steps);
  close_chain(&c);
  adcg_engine_destroy(engine);
  printf(missed ? "%d targets missed\n" : "all targets met\n", missed);
  return 0;
}
