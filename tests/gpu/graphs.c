/* What the library's graphs cost beside the bare driver's: host time of a replay, time of a capture, device memory. One JSON object
 * on stdout; a process measures one thing, since the driver keeps the memory of executables that are gone for later ones.
 *
 *   graphs replay  [--small]               host time of a step: pieces, pieces with launches between them, one full graph
 *   graphs capture WHO NODES [--small]     seconds to capture all buckets; WHO: library, library-builtin, bare, bare-least
 *   graphs memory  WHO NODES [--small]     device memory by bucket; WHO: library, bare
 *
 * 33 segments of NODES kernels each with a dynamic op between neighbours, 51 buckets, as a model of 32 layers has them under vLLM's
 * ladder. The kernel adds one to a word: each result is checked against the count of kernels. */
#define _GNU_SOURCE
#include <adcg/adcg.h>

#include "../bench/try.h"
#include "bare_driver.h"

enum { kMaxBuckets = 64, kLargest = 512 };
static int segments = 33, num_buckets = 51, samples = 401;

/* ---- The library's side ---------------------------------------------------------------------------------------------- */

static adcg_status like_input(const adcg_infer_call *call, void *user_data) {
  (void)user_data;
  call->outputs[0] = call->inputs[0];
  return ADCG_OK;
}

static adcg_status run_next(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  void *to = adcg_data(&call->outputs[0]), *from = adcg_data(&call->inputs[0]);
  void *params[] = {&to, &from};
  adcg_kernel_launch launch = ADCG_KERNEL_LAUNCH_INIT;
  launch.function = next_function;
  launch.params = params;
  return adcg_launch(call, &launch);
}

static adcg_status run_nothing(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return adcg_data(&call->outputs[0]) == adcg_data(&call->inputs[0]) ? ADCG_OK : adcg_op_fail(call, "its output is not in place");
}

static void register_op(adcg_engine *engine, const char *name, int32_t kind, int32_t capture, adcg_op_launch_fn launch) {
  const adcg_op_alias alias = {0, 0, ADCG_ALIAS_IN_PLACE};
  adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
  schema.name = name;
  schema.kind = kind;
  schema.capture = capture;
  schema.flags = ADCG_OP_PARAMETRIC | (kind == ADCG_OP_STATIC ? 0 : ADCG_OP_ZEROES_TAIL);
  schema.num_inputs = schema.num_outputs = schema.num_aliases = 1;
  schema.aliases = &alias;
  schema.infer = like_input;
  schema.launch = launch;
  TRY(adcg_engine_register_op(engine, &schema, NULL));
}

static adcg_engine *make_engine(void) {
  adcg_engine *engine;
  TRY(adcg_engine_create("cuda:0", NULL, &engine));
  register_op(engine, "bench.next", ADCG_OP_STATIC, 0, run_next);
  register_op(engine, "bench.split", ADCG_OP_DYNAMIC, ADCG_CAPTURE_NEVER, run_nothing);
  register_op(engine, "bench.split_next", ADCG_OP_DYNAMIC, ADCG_CAPTURE_NEVER, run_next);
  register_op(engine, "bench.any_next", ADCG_OP_DYNAMIC, ADCG_CAPTURE_ALWAYS, run_next);
  return engine;
}

/* vLLM's list for 512 tokens: 1, 2, 4, 8, 16, ... 256, 272, ... 512: 51 of them; or the first few. */
static int buckets_of(int64_t *out) {
  int count = 0;
  for (int64_t n = 1; n < 8; n *= 2) out[count++] = n;
  for (int64_t n = 8; n <= 256; n += 8) out[count++] = n;
  for (int64_t n = 272; n <= kLargest; n += 16) out[count++] = n;
  return count < num_buckets ? count : num_buckets;
}

typedef struct world {
  adcg_graph *graph;
  adcg_exec *exec;
  int32_t *x, *y; /* device memory */
  int64_t rows[2];
  DLTensor in, out;
  adcg_batch batch;
} world;

/* x [tokens, 1] through segments of `nodes` ops each, with a dynamic op between neighbours. */
static void open_world(world *w, adcg_engine *engine, const char *op, const char *between, int nodes, int32_t mode, adcg_dtype dtype,
                       const int64_t *buckets, int count) {
  memset(w, 0, sizeof *w);
  const int64_t most = buckets[count - 1];
  adcg_graph_limits limits = {sizeof limits, most, most, 0};
  TRY(adcg_graph_create(engine, &limits, &w->graph));
  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(1)};
  adcg_value v;
  TRY(adcg_graph_add_input(w->graph, "x", dtype, 2, rows, &v));
  for (int s = 0; s < segments; s++) {
    if (s) TRY(adcg_graph_add_op(w->graph, between, &v, 1, NULL, 0, &v, 1));
    for (int i = 0; i < nodes; i++) TRY(adcg_graph_add_op(w->graph, op, &v, 1, NULL, 0, &v, 1));
  }
  TRY(adcg_graph_add_output(w->graph, "y", v));
  TRY(adcg_graph_freeze(w->graph));
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  options.mode = mode;
  options.capture = ADCG_CAPTURE_EXPLICIT;
  options.buckets = options.seq_buckets = buckets;
  options.num_buckets = options.num_seq_buckets = count;
  TRY(adcg_exec_create(w->graph, &options, &w->exec));
  void *memory;
  TRY(adcg_memory_alloc(engine, 2 * kLargest * sizeof(int32_t), &memory));
  w->x = memory;
  w->y = w->x + kLargest;
  w->rows[0] = kLargest;
  w->rows[1] = 1;
  w->in = (DLTensor){w->x, {kDLCUDA, 0}, 2, adcg_dtype_to_dlpack(dtype), w->rows, NULL, 0};
  w->out = w->in;
  w->out.data = w->y;
  w->batch = (adcg_batch)ADCG_BATCH_INIT;
  w->batch.decode_seqs = most;
}

static void close_world(world *w, adcg_engine *engine) {
  adcg_exec_destroy(w->exec);
  adcg_graph_destroy(w->graph);
  TRY(adcg_memory_free(engine, w->x));
}

static adcg_stats stats_of(const world *w) {
  adcg_stats stats = ADCG_STATS_INIT;
  TRY(adcg_exec_get_stats(w->exec, &stats));
  return stats;
}

static inline adcg_status replay(world *w, adcg_step *step) {
  return adcg_exec_replay(w->exec, &w->batch, &w->in, 1, &w->out, 1, NULL, step);
}

/* ---- Host time of a step --------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double at(double *values, int count, double share) {
  qsort(values, (size_t)count, sizeof *values, by_value);
  return values[(int)(share * (count - 1))];
}

/* One step of the bare loop: graphs, and with `between` a launch between neighbours. */
static inline void bare_step(CUgraphExec *executables, int count, bool between, CUstream stream, void *data) {
  for (int i = 0; i < count; i++) {
    if (between && i) CU(launch_next(stream, data, data));
    CU(driver.cuGraphLaunch(executables[i], stream));
  }
}

typedef struct shape {
  const char *name, *between;
  int32_t mode;
  int graphs;   /* launches of graphs in a step */
  bool launches; /* of kernels between them */
  bool changes; /* the batch changes with each step */
} shape;

/* Host microseconds of one step, the stream idle before it: the library's, the bare loop's, and their ratio sample by sample. */
static void measure_replay(adcg_engine *engine, const shape *s, int nodes, bool last) {
  const int64_t bucket = 64;
  world w;
  open_world(&w, engine, "bench.next", s->between, nodes, s->mode, ADCG_I32, &bucket, 1);
  TRY(adcg_exec_capture(w.exec, NULL, 0, NULL, NULL));
  CUstream stream;
  CU(driver.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const int dynamic = strcmp(s->between, "bench.split") ? segments - 1 : 0, kernels = segments * nodes + dynamic;
  CUgraphExec *executables = calloc((size_t)s->graphs, sizeof *executables);
  CUdeviceptr word;
  CU(driver.cuMemAlloc(&word, 64));
  void *data = (void *)(uintptr_t)word;
  for (int i = 0; i < s->graphs; i++) executables[i] = capture_chain(stream, s->graphs == 1 ? kernels : nodes, data);

  const int32_t start = 7;
  int32_t ours = 0, theirs = 0;
  TRY(adcg_memory_copy(engine, w.x, &start, sizeof start));
  TRY(adcg_memory_copy(engine, data, &start, sizeof start));
  adcg_step step = ADCG_STEP_INIT;
  TRY(replay(&w, &step));
  TRY(adcg_exec_synchronize(w.exec));
  bare_step(executables, s->graphs, s->launches, stream, data);
  CU(driver.cuStreamSynchronize(stream));
  TRY(adcg_memory_copy(engine, &ours, w.y, sizeof ours));
  TRY(adcg_memory_copy(engine, &theirs, data, sizeof theirs));
  const bool right = ours == start + kernels && theirs == ours && step.mode == (s->graphs == 1 ? ADCG_MODE_FULL : ADCG_MODE_PIECEWISE);

  double *library = calloc((size_t)samples, sizeof *library), *bare = calloc((size_t)samples, sizeof *bare),
         *ratio = calloc((size_t)samples, sizeof *ratio);
  for (int i = 0; i < samples; i++) {
    if (s->changes) w.batch.decode_seqs = bucket - 1 - i % 2;
    const double t0 = seconds();
    TRY(replay(&w, NULL));
    const double t1 = seconds();
    TRY(adcg_exec_synchronize(w.exec));
    const double t2 = seconds();
    bare_step(executables, s->graphs, s->launches, stream, data);
    const double t3 = seconds();
    CU(driver.cuStreamSynchronize(stream));
    library[i] = 1e6 * (t1 - t0);
    bare[i] = 1e6 * (t3 - t2);
    ratio[i] = library[i] / bare[i];
  }
  printf("{\"name\": \"%s\", \"right\": %s, \"graphs\": %d, \"kernels\": %d, \"launches\": %d, \"samples\": %d, ", s->name,
         right ? "true" : "false", s->graphs, kernels, s->launches ? dynamic : 0, samples);
  printf("\"library_us\": %.3f, \"library_p99_us\": %.3f, \"bare_us\": %.3f, \"bare_p99_us\": %.3f, \"ratio\": %.4f}%s\n",
         at(library, samples, 0.5), at(library, samples, 0.99), at(bare, samples, 0.5), at(bare, samples, 0.99), at(ratio, samples, 0.5),
         last ? "" : ",");
  free(library);
  free(bare);
  free(ratio);
  for (int i = 0; i < s->graphs; i++) CU(driver.cuGraphExecDestroy(executables[i]));
  free(executables);
  CU(driver.cuStreamDestroy(stream));
  CU(driver.cuMemFree(word));
  close_world(&w, engine);
}

static void replay_all(void) {
  const shape shapes[] = {
      {"piecewise, nothing between", "bench.split", ADCG_MODE_PIECEWISE, segments, false, false},
      {"piecewise, a launch between", "bench.split_next", ADCG_MODE_PIECEWISE, segments, true, false},
      {"one full graph", "bench.any_next", ADCG_MODE_FULL, 1, false, false},
      {"piecewise, another batch each step", "bench.split", ADCG_MODE_PIECEWISE, segments, false, true},
      {"one full graph, another batch each step", "bench.any_next", ADCG_MODE_FULL, 1, false, true},
  };
  enum { kShapes = sizeof shapes / sizeof *shapes };
  adcg_engine *engine = make_engine();
  printf("{\"steps\": [\n");
  for (int i = 0; i < kShapes; i++) measure_replay(engine, &shapes[i], 9, i == kShapes - 1);
  printf("]}\n");
  adcg_engine_destroy(engine);
}

/* ---- Captures ---------------------------------------------------------------------------------------------------------- */

static void capture_library(int nodes, bool builtin) {
  int64_t buckets[kMaxBuckets];
  const int count = buckets_of(buckets);
  adcg_engine *engine = make_engine();
  world w;
  open_world(&w, engine, builtin ? "adcg.silu" : "bench.next", "bench.split_next", nodes, ADCG_MODE_PIECEWISE,
             builtin ? ADCG_F32 : ADCG_I32, buckets, count);
  const double begin = seconds();
  TRY(adcg_exec_capture(w.exec, NULL, 0, NULL, NULL));
  const double taken = seconds() - begin;
  const adcg_stats stats = stats_of(&w);
  printf("{\"seconds\": %.6f, \"buckets\": %d, \"executables\": %d, \"kernels\": %d, \"captured_buckets\": %lld}\n", taken, count,
         count * segments, nodes, (long long)stats.captured_buckets);
  close_world(&w, engine);
  adcg_engine_destroy(engine);
}

/* The driver calls of it: a warm-up, the captures, instantiation, upload, and a first run; `least`: without warm-up and first run. */
static void capture_bare(int nodes, bool least) {
  int64_t buckets[kMaxBuckets];
  const int count = buckets_of(buckets);
  CUstream stream;
  CUdeviceptr word;
  CU(driver.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CU(driver.cuMemAlloc(&word, 64));
  void *data = (void *)(uintptr_t)word;
  CUgraphExec *executables = calloc((size_t)(count * segments), sizeof *executables);
  const double begin = seconds();
  for (int b = 0; b < count; b++) {
    CUgraphExec *mine = executables + b * segments;
    if (!least) {
      for (int i = 0; i < segments * nodes + segments - 1; i++) CU(launch_next(stream, data, data));
    }
    for (int s = 0; s < segments; s++) mine[s] = capture_chain(stream, nodes, data);
    if (least) continue;
    bare_step(mine, segments, true, stream, data);
    CU(driver.cuStreamSynchronize(stream));
  }
  CU(driver.cuStreamSynchronize(stream));
  const double taken = seconds() - begin;
  printf("{\"seconds\": %.6f, \"buckets\": %d, \"executables\": %d, \"kernels\": %d}\n", taken, count, count * segments, nodes);
  for (int i = 0; i < count * segments; i++) CU(driver.cuGraphExecDestroy(executables[i]));
  free(executables);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------------ */

/* Free memory and what the library accounts for, behind each bucket; the first one, the largest, brings the arena too. */
static void memory_library(int nodes) {
  int64_t buckets[kMaxBuckets];
  const int count = buckets_of(buckets);
  adcg_engine *engine = make_engine();
  world w;
  open_world(&w, engine, "bench.next", "bench.split_next", nodes, ADCG_MODE_PIECEWISE, ADCG_I32, buckets, count);
  printf("{\"executables_a_bucket\": %d, \"kernels\": %d, \"buckets\": [\n", segments, nodes);
  printf("{\"tokens\": 0, \"free\": %lld, \"graph_bytes\": 0, \"arena_bytes\": %lld}", (long long)free_memory(),
         (long long)stats_of(&w).arena_bytes);
  for (int b = count - 1; b >= 0; b--) {
    const adcg_bucket bucket = {ADCG_MODE_PIECEWISE, buckets[b], 0};
    TRY(adcg_exec_capture(w.exec, &bucket, 1, NULL, NULL));
    const adcg_stats stats = stats_of(&w);
    printf(",\n{\"tokens\": %lld, \"free\": %lld, \"graph_bytes\": %lld, \"arena_bytes\": %lld}", (long long)buckets[b],
           (long long)free_memory(), (long long)stats.graph_bytes, (long long)stats.arena_bytes);
  }
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  options.mode = ADCG_MODE_PIECEWISE;
  options.buckets = options.seq_buckets = buckets;
  options.num_buckets = options.num_seq_buckets = count;
  TRY(adcg_graph_forecast(w.graph, &options, &forecast));
  close_world(&w, engine);
  adcg_engine_destroy(engine);
  printf("],\n\"forecast_graph_bytes\": %lld, \"free_when_destroyed\": %lld}\n", (long long)forecast.graph_bytes, (long long)free_memory());
}

static void memory_bare(int nodes) {
  int64_t buckets[kMaxBuckets];
  const int count = buckets_of(buckets);
  CUstream stream;
  CUdeviceptr word;
  CU(driver.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CU(driver.cuMemAlloc(&word, 64));
  void *data = (void *)(uintptr_t)word;
  CU(launch_next(stream, data, data));
  CU(driver.cuStreamSynchronize(stream));
  const int64_t before = free_memory();
  for (int i = 0; i < count * segments; i++) capture_chain(stream, nodes, data);
  CU(driver.cuStreamSynchronize(stream));
  printf("{\"executables\": %d, \"kernels\": %d, \"bytes\": %lld}\n", count * segments, nodes, (long long)(before - free_memory()));
}

int main(int argc, char **argv) {
  bool small = argc > 1 && strcmp(argv[argc - 1], "--small") == 0;
  argc -= small;
  const char *what = argc > 1 ? argv[1] : "", *who = argc > 2 ? argv[2] : "";
  const int nodes = argc > 3 ? atoi(argv[3]) : 0;
  if (small) segments = 5, num_buckets = 4, samples = 21;
  const bool library = strcmp(who, "library") == 0, builtin = strcmp(who, "library-builtin") == 0, bare = strcmp(who, "bare") == 0,
             least = strcmp(who, "bare-least") == 0;
  open_driver();
  if (strcmp(what, "replay") == 0 && argc == 2) {
    replay_all();
  } else if (strcmp(what, "capture") == 0 && nodes > 0 && (library || builtin)) {
    capture_library(nodes, builtin);
  } else if (strcmp(what, "capture") == 0 && nodes > 0 && (bare || least)) {
    capture_bare(nodes, least);
  } else if (strcmp(what, "memory") == 0 && nodes > 0 && library) {
    memory_library(nodes);
  } else if (strcmp(what, "memory") == 0 && nodes > 0 && bare) {
    memory_bare(nodes);
  } else {
    fprintf(stderr, "usage: %s replay | capture library|library-builtin|bare|bare-least NODES | memory library|bare NODES [--small]\n",
            argv[0]);
    return 2;
  }
  return 0;
}
