/* The bad input table, pointers and handles. Each case gives the library something wrong, checks the exact status and that the message
 * names function and value, and then that the handle still works (world_good replays a step and checks its numbers). */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include "bad.h"

static adcg_graph *made_graph; /* where a call that must fail would put it */

/* ---- NULL ------------------------------------------------------------------------------------------------------ */

static void null_engine(void) {
  world_open(&w);
  adcg_engine *engine = w.engine;
  adcg_engine *out = (adcg_engine *)&w;
  FAILS(adcg_engine_create(NULL, NULL, &out), ADCG_ERR_ARGUMENT, "device", "NULL");
  CHECK(out == NULL);
  FAILS(adcg_engine_create("host", NULL, NULL), ADCG_ERR_ARGUMENT, "out_engine", "NULL");
  adcg_op_schema schema = copy_schema("t.copy");
  FAILS(adcg_engine_register_op(NULL, &schema, NULL), ADCG_ERR_ARGUMENT, "engine", "NULL");
  FAILS(adcg_engine_register_op(engine, NULL, NULL), ADCG_ERR_ARGUMENT, "schema", "NULL");
  adcg_device_info device = ADCG_DEVICE_INFO_INIT;
  FAILS(adcg_engine_get_device_info(NULL, &device), ADCG_ERR_ARGUMENT, "engine", "NULL");
  FAILS(adcg_engine_get_device_info(engine, NULL), ADCG_ERR_ARGUMENT, "out_info", "NULL");
  adcg_op_info op = ADCG_OP_INFO_INIT;
  FAILS(adcg_engine_get_op_info(NULL, 0, &op), ADCG_ERR_ARGUMENT, "engine", "NULL");
  FAILS(adcg_engine_get_op_info(engine, 0, NULL), ADCG_ERR_ARGUMENT, "out_info", "NULL");
  adcg_engine_destroy(NULL);
  STILL_GOOD();
}

static void null_schema_fields(void) {
  world_open(&w);
  adcg_op_schema schema = copy_schema(NULL);
  FAILS(adcg_engine_register_op(w.engine, &schema, NULL), ADCG_ERR_ARGUMENT, "name");
  schema = copy_schema("t.copy");
  schema.launch = NULL;
  FAILS(adcg_engine_register_op(w.engine, &schema, NULL), ADCG_ERR_ARGUMENT, "launch", "NULL");
  schema = copy_schema("t.copy");
  schema.num_aliases = 1;
  FAILS(adcg_engine_register_op(w.engine, &schema, NULL), ADCG_ERR_ARGUMENT, "aliases", "NULL");
  schema = copy_schema("t.copy");
  schema.num_attrs = 1;
  FAILS(adcg_engine_register_op(w.engine, &schema, NULL), ADCG_ERR_ARGUMENT, "attrs", "NULL");
  adcg_attr_spec attr = {ADCG_ATTR_INT(NULL, 1), 0, NULL};
  schema.attrs = &attr;
  FAILS(adcg_engine_register_op(w.engine, &schema, NULL), ADCG_ERR_ARGUMENT, "attr", "name");
  schema = copy_schema("t.copy"); /* none of these took the name */
  TRY(adcg_engine_register_op(w.engine, &schema, NULL));
  STILL_GOOD();
}

static void null_graph(void) {
  world_build(&w);
  adcg_graph *graph = w.graph, *out = (adcg_graph *)&w;
  adcg_graph_limits limits = ADCG_GRAPH_LIMITS_INIT;
  limits.max_tokens = limits.max_seqs = 1;
  FAILS(adcg_graph_create(NULL, &limits, &out), ADCG_ERR_ARGUMENT, "engine", "NULL");
  CHECK(out == NULL);
  FAILS(adcg_graph_create(w.engine, NULL, &out), ADCG_ERR_ARGUMENT, "limits", "NULL");
  FAILS(adcg_graph_create(w.engine, &limits, NULL), ADCG_ERR_ARGUMENT, "out_graph", "NULL");

  adcg_dim dims[] = {ADCG_DIM(4)};
  adcg_value v = 77;
  FAILS(adcg_graph_add_input(NULL, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_ARGUMENT, "graph", "NULL");
  CHECK_INT(v, 0);
  FAILS(adcg_graph_add_input(graph, NULL, ADCG_F32, 1, dims, &v), ADCG_ERR_ARGUMENT, "name", "NULL");
  FAILS(adcg_graph_add_input(graph, "n", ADCG_F32, 1, NULL, &v), ADCG_ERR_ARGUMENT, "dims", "NULL");
  FAILS(adcg_graph_add_input(graph, "n", ADCG_F32, 1, dims, NULL), ADCG_ERR_ARGUMENT, "out_value", "NULL");
  FAILS(adcg_graph_add_weight(NULL, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_add_weight(graph, NULL, ADCG_F32, 1, dims, &v), ADCG_ERR_ARGUMENT, "name", "NULL");
  FAILS(adcg_graph_add_weight(graph, "n", ADCG_F32, 1, NULL, &v), ADCG_ERR_ARGUMENT, "dims", "NULL");
  FAILS(adcg_graph_add_weight(graph, "n", ADCG_F32, 1, dims, NULL), ADCG_ERR_ARGUMENT, "out_value", "NULL");
  FAILS(adcg_graph_add_state(NULL, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_add_state(graph, NULL, ADCG_F32, 1, dims, &v), ADCG_ERR_ARGUMENT, "name", "NULL");
  FAILS(adcg_graph_add_state(graph, "n", ADCG_F32, 1, NULL, &v), ADCG_ERR_ARGUMENT, "dims", "NULL");
  FAILS(adcg_graph_add_state(graph, "n", ADCG_F32, 1, dims, NULL), ADCG_ERR_ARGUMENT, "out_value", "NULL");

  adcg_value two[] = {w.x, w.x};
  FAILS(adcg_graph_add_op(NULL, "adcg.add", two, 2, NULL, 0, &v, 1), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_add_op(graph, NULL, two, 2, NULL, 0, &v, 1), ADCG_ERR_ARGUMENT, "op", "NULL");
  FAILS(adcg_graph_add_op(graph, "adcg.add", NULL, 2, NULL, 0, &v, 1), ADCG_ERR_ARGUMENT, "inputs", "NULL");
  FAILS(adcg_graph_add_op(graph, "adcg.add", two, 2, NULL, 1, &v, 1), ADCG_ERR_ARGUMENT, "attrs", "NULL");
  FAILS(adcg_graph_add_op(graph, "adcg.add", two, 2, NULL, 0, NULL, 1), ADCG_ERR_ARGUMENT, "out_values", "NULL");
  adcg_attr nameless = ADCG_ATTR_INT(NULL, 1), stringless = ADCG_ATTR_STRING("dtype", NULL), intless = ADCG_ATTR_INTS("dims", NULL, 2);
  FAILS(adcg_graph_add_op(graph, "adcg.add", two, 2, &nameless, 1, &v, 1), ADCG_ERR_ARGUMENT, "name", "NULL");
  FAILS(adcg_graph_add_op(graph, "adcg.add", two, 2, &stringless, 1, &v, 1), ADCG_ERR_ARGUMENT, "dtype", "NULL");
  FAILS(adcg_graph_add_op(graph, "adcg.add", two, 2, &intless, 1, &v, 1), ADCG_ERR_ARGUMENT, "dims", "2");

  FAILS(adcg_graph_add_output(NULL, "n", w.x), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_add_output(graph, NULL, w.x), ADCG_ERR_ARGUMENT, "name", "NULL");
  FAILS(adcg_graph_freeze(NULL), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_find_value(NULL, "x", &v), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_find_value(graph, NULL, &v), ADCG_ERR_ARGUMENT, "name", "NULL");
  FAILS(adcg_graph_find_value(graph, "x", NULL), ADCG_ERR_ARGUMENT, "out_value", "NULL");
  adcg_value_info info = ADCG_VALUE_INFO_INIT;
  FAILS(adcg_graph_get_value_info(NULL, 0, &info), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_get_value_info(graph, 0, NULL), ADCG_ERR_ARGUMENT, "out_info", "NULL");
  adcg_graph_destroy(NULL);
  finish();
}

static void null_exec(void) {
  world_open(&w);
  adcg_exec *exec = w.exec, *out = (adcg_exec *)&w;
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  FAILS(adcg_graph_forecast(NULL, NULL, &forecast), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_forecast(w.graph, NULL, NULL), ADCG_ERR_ARGUMENT, "out_forecast", "NULL");
  FAILS(adcg_graph_write_plan(NULL, NULL, ADCG_PLAN_TEXT, write_nothing, NULL), ADCG_ERR_ARGUMENT, "graph", "NULL");
  FAILS(adcg_graph_write_plan(w.graph, NULL, ADCG_PLAN_TEXT, NULL, NULL), ADCG_ERR_ARGUMENT, "write", "NULL");
  FAILS(adcg_exec_create(NULL, NULL, &out), ADCG_ERR_ARGUMENT, "graph", "NULL");
  CHECK(out == NULL);
  FAILS(adcg_exec_create(w.graph, NULL, NULL), ADCG_ERR_ARGUMENT, "out_exec", "NULL");
  FAILS(adcg_exec_bind(NULL, w.w, &w.w_tensor), ADCG_ERR_ARGUMENT, "exec", "NULL");
  FAILS(adcg_exec_bind(exec, w.w, NULL), ADCG_ERR_ARGUMENT, "tensor", "NULL");
  FAILS(adcg_exec_capture(NULL, NULL, 0, NULL, NULL), ADCG_ERR_ARGUMENT, "exec", "NULL");
  FAILS(adcg_exec_capture(exec, NULL, 1, NULL, NULL), ADCG_ERR_ARGUMENT, "buckets", "NULL");
  adcg_bucket_info bucket = ADCG_BUCKET_INFO_INIT;
  FAILS(adcg_exec_get_bucket(NULL, 0, &bucket), ADCG_ERR_ARGUMENT, "exec", "NULL");
  FAILS(adcg_exec_get_bucket(exec, 0, NULL), ADCG_ERR_ARGUMENT, "out_info", "NULL");
  FAILS(adcg_exec_replay(NULL, &w.batch, w.inputs, 2, w.outputs, 2, NULL, NULL), ADCG_ERR_ARGUMENT, "exec", "NULL");
  FAILS(adcg_exec_replay(exec, NULL, w.inputs, 2, w.outputs, 2, NULL, NULL), ADCG_ERR_ARGUMENT, "batch", "NULL");
  FAILS(adcg_exec_replay(exec, &w.batch, NULL, 2, w.outputs, 2, NULL, NULL), ADCG_ERR_ARGUMENT, "inputs", "NULL");
  FAILS(adcg_exec_replay(exec, &w.batch, w.inputs, 2, NULL, 2, NULL, NULL), ADCG_ERR_ARGUMENT, "outputs", "NULL");
  FAILS(adcg_exec_synchronize(NULL), ADCG_ERR_ARGUMENT, "exec", "NULL");
  FAILS(adcg_exec_release(NULL), ADCG_ERR_ARGUMENT, "exec", "NULL");
  FAILS(adcg_exec_restore(NULL), ADCG_ERR_ARGUMENT, "exec", "NULL");
  adcg_stats stats = ADCG_STATS_INIT;
  FAILS(adcg_exec_get_stats(NULL, &stats), ADCG_ERR_ARGUMENT, "exec", "NULL");
  FAILS(adcg_exec_get_stats(exec, NULL), ADCG_ERR_ARGUMENT, "out_stats", "NULL");
  adcg_exec_destroy(NULL);
  STILL_GOOD();
}

static void null_optional(void) { /* where NULL is allowed, it means what the header says */
  world_open(&w);
  TRY(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, NULL));
  TRY(adcg_exec_capture(w.exec, NULL, 0, NULL, NULL));
  TRY(adcg_set_log(NULL, ADCG_LOG_DEBUG, NULL));
  TRY(adcg_graph_write_plan(w.graph, NULL, ADCG_PLAN_TEXT, write_nothing, NULL));
  STILL_GOOD();
}

/* ---- struct_size ----------------------------------------------------------------------------------------------- */

/* Calls with `object` at sizes that no header ever had, then at one that a later header may have. */
#define SIZES(type, init, call, what)                                                              \
  do {                                                                                             \
    struct {                                                                                       \
      type object;                                                                                 \
      unsigned char more[64];                                                                      \
    } grown = {init, {0}};                                                                         \
    type *object = &grown.object;                                                                  \
    memset(grown.more, 0xC5, sizeof grown.more);                                                   \
    const size_t wrong[] = {0, 1, sizeof(size_t)};                                                 \
    const char *said[] = {": 0", ": 1", ": 8"};                                                    \
    for (int size_ = 0; size_ < 3; size_++) {                                                      \
      object->struct_size = wrong[size_];                                                          \
      FAILS(call, ADCG_ERR_ARGUMENT, what, "struct_size", said[size_]);                            \
    }                                                                                              \
    object->struct_size = sizeof grown;                                                            \
    TRY(call);                                                                                     \
    for (size_t byte_ = 0; byte_ < sizeof grown.more; byte_++) CHECK_INT(grown.more[byte_], 0xC5); \
  } while (0)

static adcg_engine *made_engine;
#define INIT(...) __VA_ARGS__

static void struct_size_engine(void) {
  world_open(&w);
  SIZES(adcg_engine_options, INIT(ADCG_ENGINE_OPTIONS_INIT), adcg_engine_create("host", object, &made_engine), "options");
  adcg_engine_destroy(made_engine);
  SIZES(adcg_device_info, INIT(ADCG_DEVICE_INFO_INIT), adcg_engine_get_device_info(w.engine, object), "out_info");
  SIZES(adcg_op_info, INIT(ADCG_OP_INFO_INIT), adcg_engine_get_op_info(w.engine, 0, object), "out_info");
  adcg_op_schema like = copy_schema("t.copy");
  struct {
    adcg_op_schema schema;
    char more[64];
  } grown = {like, {1}};
  grown.schema.struct_size = 0;
  FAILS(adcg_engine_register_op(w.engine, &grown.schema, NULL), ADCG_ERR_ARGUMENT, "schema", "struct_size", ": 0");
  grown.schema.struct_size = 1;
  FAILS(adcg_engine_register_op(w.engine, &grown.schema, NULL), ADCG_ERR_ARGUMENT, "schema", "struct_size", ": 1");
  grown.schema.struct_size = sizeof grown;
  TRY(adcg_engine_register_op(w.engine, &grown.schema, NULL));
  STILL_GOOD();
}

static void struct_size_graph(void) {
  world_open(&w);
  adcg_graph_limits wanted = {sizeof wanted, 1, 1, 1};
  struct {
    adcg_graph_limits limits;
    char more[64];
  } grown = {wanted, {1}};
  grown.limits.struct_size = 0;
  FAILS(adcg_graph_create(w.engine, &grown.limits, &made_graph), ADCG_ERR_ARGUMENT, "limits", "struct_size", ": 0");
  grown.limits.struct_size = 8;
  FAILS(adcg_graph_create(w.engine, &grown.limits, &made_graph), ADCG_ERR_ARGUMENT, "limits", "struct_size", ": 8");
  grown.limits.struct_size = sizeof grown;
  TRY(adcg_graph_create(w.engine, &grown.limits, &made_graph));
  adcg_graph_destroy(made_graph);
  SIZES(adcg_value_info, INIT(ADCG_VALUE_INFO_INIT), adcg_graph_get_value_info(w.graph, w.x, object), "out_info");
  STILL_GOOD();
}

static void struct_size_exec(void) {
  world_open(&w);
  SIZES(adcg_exec_options, INIT(ADCG_EXEC_OPTIONS_INIT), adcg_exec_create(w.graph, object, &made_exec), "options");
  adcg_exec_destroy(made_exec);
  SIZES(adcg_forecast, INIT(ADCG_FORECAST_INIT), adcg_graph_forecast(w.graph, NULL, object), "out_forecast");
  SIZES(adcg_bucket_info, INIT(ADCG_BUCKET_INFO_INIT), adcg_exec_get_bucket(w.exec, 0, object), "out_info");
  SIZES(adcg_stats, INIT(ADCG_STATS_INIT), adcg_exec_get_stats(w.exec, object), "out_stats");
  SIZES(adcg_batch, INIT(ADCG_BATCH_INIT), adcg_exec_replay(w.exec, object, w.inputs, 2, w.outputs, 2, NULL, NULL), "batch");
  SIZES(adcg_step, INIT(ADCG_STEP_INIT), adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, object), "out_step");
  STILL_GOOD();
}

/* Calls with `object` full of bytes, and finds it empty but for its struct_size, however the call fails. */
#define EMPTIED(type, call, status, what)                                                                                \
  do {                                                                                                                   \
    type object_, *object = &object_;                                                                                    \
    memset(object, 0xC5, sizeof *object);                                                                                \
    object->struct_size = sizeof *object;                                                                                \
    FAILS(call, status, what);                                                                                           \
    CHECK_INT(object->struct_size, sizeof *object);                                                                      \
    for (size_t byte_ = sizeof(size_t); byte_ < sizeof *object; byte_++) CHECK_INT(((unsigned char *)object)[byte_], 0); \
  } while (0)

static void structs_of_failed_calls(void) {
  world_open(&w);
  adcg_exec_options odd = ADCG_EXEC_OPTIONS_INIT;
  odd.struct_size = 1;
  EMPTIED(adcg_device_info, adcg_engine_get_device_info(NULL, object), ADCG_ERR_ARGUMENT, "engine");
  EMPTIED(adcg_op_info, adcg_engine_get_op_info(NULL, 0, object), ADCG_ERR_ARGUMENT, "engine");
  EMPTIED(adcg_op_info, adcg_engine_get_op_info(w.engine, INT32_MAX, object), ADCG_ERR_NOT_FOUND, "2147483647");
  EMPTIED(adcg_value_info, adcg_graph_get_value_info(NULL, 0, object), ADCG_ERR_ARGUMENT, "graph");
  EMPTIED(adcg_value_info, adcg_graph_get_value_info(w.graph, -1, object), ADCG_ERR_NOT_FOUND, "-1");
  EMPTIED(adcg_forecast, adcg_graph_forecast(w.graph, &odd, object), ADCG_ERR_ARGUMENT, "options");
  EMPTIED(adcg_bucket_info, adcg_exec_get_bucket(NULL, 0, object), ADCG_ERR_ARGUMENT, "exec");
  EMPTIED(adcg_bucket_info, adcg_exec_get_bucket(w.exec, INT32_MAX, object), ADCG_ERR_NOT_FOUND, "2147483647");
  EMPTIED(adcg_stats, adcg_exec_get_stats(NULL, object), ADCG_ERR_ARGUMENT, "exec");
  EMPTIED(adcg_step, adcg_exec_replay(NULL, &w.batch, w.inputs, 2, w.outputs, 2, NULL, object), ADCG_ERR_ARGUMENT, "exec");
  EMPTIED(adcg_step, adcg_exec_replay(w.exec, &w.batch, w.inputs, 1, w.outputs, 2, NULL, object), ADCG_ERR_ARGUMENT, "num_inputs");
  STILL_GOOD();
}

/* ---- Handles --------------------------------------------------------------------------------------------------- */

/* Every function that takes an exec, with a pointer that is none. */
static void refuse_exec(adcg_exec *exec) {
  adcg_bucket_info bucket = ADCG_BUCKET_INFO_INIT;
  adcg_stats stats = ADCG_STATS_INIT;
  FAILS(adcg_exec_replay(exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_HANDLE, "exec");
  FAILS(adcg_exec_bind(exec, w.w, &w.w_tensor), ADCG_ERR_HANDLE, "exec");
  FAILS(adcg_exec_capture(exec, NULL, 0, NULL, NULL), ADCG_ERR_HANDLE, "exec");
  FAILS(adcg_exec_get_bucket(exec, 0, &bucket), ADCG_ERR_HANDLE, "exec");
  FAILS(adcg_exec_synchronize(exec), ADCG_ERR_HANDLE, "exec");
  FAILS(adcg_exec_release(exec), ADCG_ERR_HANDLE, "exec");
  FAILS(adcg_exec_restore(exec), ADCG_ERR_HANDLE, "exec");
  FAILS(adcg_exec_get_stats(exec, &stats), ADCG_ERR_HANDLE, "exec");
  adcg_exec_destroy(exec);
}

static void refuse_graph(adcg_graph *graph) {
  adcg_dim dims[] = {ADCG_DIM(4)};
  adcg_value v;
  adcg_value_info info = ADCG_VALUE_INFO_INIT;
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  adcg_exec *exec = (adcg_exec *)&w;
  FAILS(adcg_graph_add_input(graph, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_add_weight(graph, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_add_state(graph, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_add_op(graph, "adcg.add", (adcg_value[]){0, 0}, 2, NULL, 0, &v, 1), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_add_output(graph, "n", 0), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_freeze(graph), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_find_value(graph, "x", &v), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_get_value_info(graph, 0, &info), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_forecast(graph, NULL, &forecast), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_graph_write_plan(graph, NULL, ADCG_PLAN_TEXT, write_nothing, NULL), ADCG_ERR_HANDLE, "graph");
  FAILS(adcg_exec_create(graph, NULL, &exec), ADCG_ERR_HANDLE, "graph");
  CHECK(exec == NULL);
  adcg_graph_destroy(graph);
}

static void refuse_engine(adcg_engine *engine) {
  adcg_op_schema schema = copy_schema("t.other");
  adcg_graph_limits limits = {sizeof limits, 1, 1, 1};
  adcg_graph *graph = (adcg_graph *)&w;
  adcg_device_info device = ADCG_DEVICE_INFO_INIT;
  adcg_op_info op = ADCG_OP_INFO_INIT;
  FAILS(adcg_engine_register_op(engine, &schema, NULL), ADCG_ERR_HANDLE, "engine");
  FAILS(adcg_engine_get_device_info(engine, &device), ADCG_ERR_HANDLE, "engine");
  FAILS(adcg_engine_get_op_info(engine, 0, &op), ADCG_ERR_HANDLE, "engine");
  FAILS(adcg_graph_create(engine, &limits, &graph), ADCG_ERR_HANDLE, "engine");
  CHECK(graph == NULL);
  adcg_engine_destroy(engine);
}

static void foreign_handles(void) {
  world_open(&w);
  struct {
    long words[16];
  } on_stack = {{0}};
  static long in_data[16];
  void *wrong[] = {&on_stack, in_data, (void *)(uintptr_t)1, (void *)(uintptr_t)3, (void *)~(uintptr_t)0, (void *)~(uintptr_t)7};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    refuse_exec(wrong[i]);
    refuse_graph(wrong[i]);
    refuse_engine(wrong[i]);
  }
  STILL_GOOD();
}

static void other_kinds_of_handles(void) {
  world_open(&w);
  refuse_exec((adcg_exec *)w.graph);
  refuse_exec((adcg_exec *)w.engine);
  refuse_graph((adcg_graph *)w.exec);
  refuse_graph((adcg_graph *)w.engine);
  refuse_engine((adcg_engine *)w.exec);
  refuse_engine((adcg_engine *)w.graph);
  STILL_GOOD();
}

static void destroyed_handles(void) {
  world_open(&w);
  world gone = w; /* only its handles are used */
  world_close(&w);
  refuse_exec(gone.exec);
  refuse_graph(gone.graph);
  refuse_engine(gone.engine);
  world_open(&w); /* new handles in the place of the old ones do not revive them */
  refuse_exec(gone.exec);
  refuse_graph(gone.graph);
  refuse_engine(gone.engine);
  STILL_GOOD();
}

/* ---- Fork ---------------------------------------------------------------------------------------------------------- */

static void child_of_a_fork(void) {
  adcg_engine *engine = (adcg_engine *)&w;
  adcg_stats stats = ADCG_STATS_INIT;
  adcg_device_info device = ADCG_DEVICE_INFO_INIT;
  adcg_value v;
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_engine_create("host", NULL, &engine), ADCG_ERR_FORKED, "fork");
  CHECK(engine == NULL);
  FAILS(adcg_engine_get_device_info(w.engine, &device), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_graph_find_value(w.graph, "x", &v), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_exec_capture(w.exec, NULL, 0, NULL, NULL), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_exec_bind(w.exec, w.w, &w.w_tensor), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_exec_get_stats(w.exec, &stats), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_exec_synchronize(w.exec), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_exec_release(w.exec), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_exec_restore(w.exec), ADCG_ERR_FORKED, "fork");
  FAILS(adcg_set_log(NULL, ADCG_LOG_ERROR, NULL), ADCG_ERR_FORKED, "fork");
  CHECK_INT(adcg_version(), ADCG_VERSION);
  CHECK(strcmp(adcg_status_name(ADCG_ERR_FORKED), "ADCG_ERR_FORKED") == 0);
  world_close(&w); /* returns, and does nothing */
  _exit(0);
}

static void forked_child(void) {
  world_open(&w);
  world_good(&w);
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    child_of_a_fork();
  }
  int status;
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  CHECK_INT(WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), 0);
  STILL_GOOD();
}

static const harness_case cases[] = {
    {"null_engine", null_engine},
    {"null_schema_fields", null_schema_fields},
    {"null_graph", null_graph},
    {"null_exec", null_exec},
    {"null_optional", null_optional},
    {"struct_size_engine", struct_size_engine},
    {"struct_size_graph", struct_size_graph},
    {"struct_size_exec", struct_size_exec},
    {"structs_of_failed_calls", structs_of_failed_calls},
    {"foreign_handles", foreign_handles},
    {"other_kinds_of_handles", other_kinds_of_handles},
    {"destroyed_handles", destroyed_handles},
    {"forked_child", forked_child},
};
HARNESS_MAIN(cases)
