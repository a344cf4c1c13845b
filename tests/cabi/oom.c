/* Runs with failmalloc.so preloaded. From create to destroy, each allocation of the library's in turn fails: the call says
 * ADCG_ERR_OUT_OF_MEMORY, nothing crashes, the next round works, and nothing leaks. A replay allocates nothing at all. Run with
 * GOMAXPROCS=1 and GOGC=off: Go allocates a little when it starts a thread, and ends the process when it cannot. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

#include "world.h"

static world w;
static void (*arm)(long);
static long (*calls)(void), (*live)(void);

static void find_shim(void) {
  arm = (void (*)(long))(uintptr_t)dlsym(RTLD_DEFAULT, "failmalloc_arm");
  calls = (long (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "failmalloc_calls");
  live = (long (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "failmalloc_live");
  if (!arm || !calls || !live) SKIP("failmalloc.so is not preloaded");
}

/* From freeze to the first step, and what may follow; stops at the first failure, which it returns. Building is armed apart. */
static adcg_status life(long n) {
  world_build(&w);
  arm(n);
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  adcg_status status = adcg_graph_freeze(w.graph);
  if (!status) status = adcg_graph_forecast(w.graph, &options, &forecast);
  if (!status) status = adcg_exec_create(w.graph, &options, &w.exec);
  if (!status) status = adcg_exec_bind(w.exec, w.w, &w.w_tensor);
  if (!status) status = adcg_exec_bind(w.exec, w.total, &w.total_tensor);
  if (!status) status = adcg_exec_capture(w.exec, NULL, 0, NULL, NULL);
  if (!status) {
    memcpy(w.pick_data, (int32_t[]){4, 5, 6, 0}, sizeof w.pick_data);
    status = world_replay(&w);
  }
  if (!status) status = adcg_exec_release(w.exec);
  if (!status) status = adcg_exec_restore(w.exec);
  return status;
}

static adcg_status build(long n) {
  memset(&w, 0, sizeof w);
  arm(n);
  adcg_status status = adcg_engine_create(device_name(), NULL, &w.engine);
  adcg_op_schema schema = world_double_schema();
  adcg_attr_spec attr = {ADCG_ATTR_STRING("name", "a string to be copied"), 0, "and its doc"};
  schema.attrs = &attr;
  schema.num_attrs = 1;
  if (!status) status = adcg_engine_register_op(w.engine, &schema, &w);
  adcg_graph_limits limits = {sizeof limits, 16, 4, 0};
  if (!status) status = adcg_graph_create(w.engine, &limits, &w.graph);
  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(WIDTH)}, row[] = {ADCG_DIM(WIDTH)};
  if (!status) status = adcg_graph_add_input(w.graph, "x", ADCG_F32, 2, rows, &w.x);
  if (!status) status = adcg_graph_add_state(w.graph, "total", ADCG_F32, 1, row, &w.total);
  if (!status) status = adcg_graph_add_op(w.graph, "t.double", (adcg_value[]){w.x, w.total}, 2, NULL, 0, &w.y, 1);
  if (!status) status = adcg_graph_add_output(w.graph, "y", w.y);
  if (!status) status = adcg_graph_freeze(w.graph);
  return status;
}

/* Fails allocation 1, 2, ... of `run` until it makes fewer than that. */
static void every_allocation(adcg_status (*run)(long n), int whole_life) {
  find_shim();
  adcg_engine *none;
  FAILS(adcg_engine_create("none", NULL, &none), ADCG_ERR_DEVICE, "none"); /* the thread has its message buffer now */
  for (int i = 0; i < 3; i++) { /* what is made once and kept is made now */
    TRY(run(0));
    world_close(&w);
  }
  nanosleep(&(struct timespec){0, 200000000}, NULL); /* Go's threads have started by now, and freed what they were started with */
  long before = live(), refused = 0;
  for (long n = 1;; n++) {
    adcg_status status = run(n);
    long made = calls();
    arm(0);
    if (status) {
      refused++;
      if (status != ADCG_ERR_OUT_OF_MEMORY) fprintf(stderr, "allocation %ld of the run: %s\n", n, adcg_last_error());
      CHECK_INT(status, ADCG_ERR_OUT_OF_MEMORY);
      CHECK(adcg_last_error()[0] != 0);
    } else if (whole_life) {
      world_good(&w); /* it was caught, and the step ran all the same */
    }
    world_close(&w);
    if (live() != before) fprintf(stderr, "allocation %ld of the run leaks\n", n);
    CHECK_INT(live(), before);
    if (made < n) break; /* the run has no such allocation */
    TRY(run(0)); /* the next round is as good as any */
    if (whole_life) world_good(&w);
    world_close(&w);
    CHECK_INT(live(), before);
  }
  printf("%ld allocations refused\n", refused);
  CHECK(refused > 0);
}

static void life_of_an_exec(void) { every_allocation(life, 1); }
static void building_a_graph(void) { every_allocation(build, 0); }

static void replay_allocates_nothing(void) {
  find_shim();
  world_open(&w);
  world_good(&w);
  TRY(adcg_exec_capture(w.exec, NULL, 0, NULL, NULL));
  arm(0);
  for (int i = 0; i < 50; i++) {
    w.x_shape[0] = w.y_shape[0] = i % 2 ? MAX_TOKENS : 7; /* in place, and staged */
    world_good(&w);
  }
  CHECK_INT(calls(), 0);
  adcg_graph_limits bad = {sizeof bad, 0, 0, 0};
  adcg_graph *graph;
  FAILS(adcg_graph_create(w.engine, &bad, &graph), ADCG_ERR_BATCH, "max_tokens");
  world_close(&w);
}

/* Ladders need no C memory: there is nothing to refuse. */
static void ladders_allocate_nothing(void) {
  find_shim();
  const adcg_step_count histogram[] = {{1, 5}, {9, 2}, {3, 4}, {700, 1}, {64, 6}};
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  budget.bytes_per_bucket = 10, budget.bytes_per_token = 1, budget.max_bytes = 800;
  adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
  int64_t buckets[16];
  int32_t count;
  FAILS(adcg_ladder_choose(NULL, 0, &budget, NULL, 0, &count), ADCG_ERR_ARGUMENT, "histogram"); /* the thread has its message buffer now */
  arm(1);
  TRY(adcg_ladder_choose(histogram, 5, &budget, buckets, 16, &count));
  TRY(adcg_ladder_cost(histogram, 5, buckets, count, &budget, NULL, &totals));
  TRY(adcg_ladder_named("vllm", 8192, 4, buckets, 16, &count));
  FAILS(adcg_ladder_named("vlm", 8192, 4, buckets, 16, &count), ADCG_ERR_NOT_FOUND, "`vlm`");
  CHECK_INT(calls(), 0);
  arm(0);
}

static const harness_case cases[] = {
    {"life_of_an_exec", life_of_an_exec},
    {"building_a_graph", building_a_graph},
    {"replay_allocates_nothing", replay_allocates_nothing},
    {"ladders_allocate_nothing", ladders_allocate_nothing},
};
HARNESS_MAIN(cases)
