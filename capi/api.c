/* The public functions. Each checks what C can check (the process, NULL, struct sizes, exec handles) and then calls Go
 * (exports.go), except for those that never enter Go: replay, statuses, messages, versions. */
#include <string.h>

#include "_cgo_export.h"
#include "handle.h"

#define CHECK(call)                                        \
  do {                                                     \
    adcg_status status_ = (call);                          \
    if (__builtin_expect(status_ != 0, 0)) return status_; \
  } while (0)

/* The start of every function that can fail: its name, for messages, and the state of the process. */
#define ENTER(name)             \
  static const char f[] = name; \
  CHECK(tape_process_check(f))

/* The same with an out parameter, which is nothing whatever fails. */
#define ENTER_OUT(name, out, nothing) \
  static const char f[] = name;       \
  if (out) *(out) = nothing;          \
  CHECK(tape_process_check(f));       \
  NOT_NULL(out)

/* ENTER of a function with a struct as an out parameter: all of it but struct_size is zero whatever fails. One of a wrong size is
 * left alone, as it may end anywhere. */
#define ENTER_STRUCT(name, out)                                                                    \
  if ((out) && (out)->struct_size >= sizeof *(out))                                                \
    memset((char *)(out) + sizeof(out)->struct_size, 0, sizeof *(out) - sizeof(out)->struct_size); \
  ENTER(name)

#define NOT_NULL(argument)                                                                            \
  do {                                                                                                \
    if (__builtin_expect(!(argument), 0)) return tape_fail(ADCG_ERR_ARGUMENT, f, #argument ": NULL"); \
  } while (0)

#define FULL_SIZE(argument, init)                                                                                                 \
  do {                                                                                                                            \
    NOT_NULL(argument);                                                                                                           \
    if ((argument)->struct_size < sizeof *(argument))                                                                             \
      return tape_fail(ADCG_ERR_ARGUMENT, f, #argument ": struct_size: %zu, initialise it with " #init, (argument)->struct_size); \
  } while (0)

#define NOT_NEGATIVE(count)                                                                                   \
  do {                                                                                                        \
    if ((count) < 0) return tape_fail(ADCG_ERR_ARGUMENT, f, #count ": %lld is negative", (long long)(count)); \
  } while (0)

#define COUNT(count, array)           \
  do {                                \
    NOT_NEGATIVE(count);              \
    if ((count) > 0) NOT_NULL(array); \
  } while (0)

__attribute__((constructor)) static void load(void) { tape_process_init(); }

/* ---- Library: never fails, never enters Go ------------------------------------------------------------ */

int32_t adcg_version(void) { return ADCG_VERSION; }

const char *adcg_status_name(adcg_status status) { return tape_status_name(status); }

const char *adcg_last_error(void) { return tape_last_error(); }

adcg_status adcg_set_log(adcg_log_fn log, int32_t level, void *user_data) {
  ENTER("adcg_set_log");
  if (log && (level < ADCG_LOG_ERROR || level > ADCG_LOG_DEBUG))
    return tape_fail(ADCG_ERR_ARGUMENT, f, "level: %d, use ADCG_LOG_*", (int)level);
  tape_set_log(log, level, user_data);
  return ADCG_OK;
}

/* ---- Engine --------------------------------------------------------------------------------------------- */

adcg_status adcg_engine_create(const char *device, const adcg_engine_options *options, adcg_engine **out_engine) {
  ENTER_OUT("adcg_engine_create", out_engine, NULL);
  NOT_NULL(device);
  adcg_engine_options o = ADCG_ENGINE_OPTIONS_INIT;
  if (options) {
    FULL_SIZE(options, ADCG_ENGINE_OPTIONS_INIT);
    o = *options;
  }
  return goEngineCreate((char *)(uintptr_t)device, &o, (uintptr_t *)out_engine);
}

void adcg_engine_destroy(adcg_engine *engine) {
  if (engine && tape_process_check("adcg_engine_destroy") == ADCG_OK) goHandleDestroy((uintptr_t)engine, HANDLE_ENGINE);
}

static adcg_status take_bytes(const char *f, size_t bytes) {
  if (bytes > INT64_MAX) return tape_fail(ADCG_ERR_ARGUMENT, f, "bytes: %zu: no memory is so large", bytes);
  return ADCG_OK;
}

adcg_status adcg_memory_alloc(adcg_engine *engine, size_t bytes, void **out_memory) {
  ENTER_OUT("adcg_memory_alloc", out_memory, NULL);
  NOT_NULL(engine);
  if (bytes == 0) return tape_fail(ADCG_ERR_ARGUMENT, f, "bytes: 0");
  CHECK(take_bytes(f, bytes));
  return goMemoryAlloc((uintptr_t)engine, (int64_t)bytes, (uintptr_t *)out_memory);
}

adcg_status adcg_memory_free(adcg_engine *engine, void *memory) {
  ENTER("adcg_memory_free");
  NOT_NULL(engine);
  return memory ? goMemoryFree((uintptr_t)engine, (uintptr_t)memory) : ADCG_OK;
}

adcg_status adcg_memory_copy(adcg_engine *engine, void *to, const void *from, size_t bytes) {
  ENTER("adcg_memory_copy");
  NOT_NULL(engine);
  CHECK(take_bytes(f, bytes));
  if (bytes == 0) return ADCG_OK;
  NOT_NULL(to);
  NOT_NULL(from);
  return goMemoryCopy((uintptr_t)engine, (uintptr_t)to, (uintptr_t)from, (int64_t)bytes);
}

adcg_status adcg_engine_register_op(adcg_engine *engine, const adcg_op_schema *schema, void *user_data) {
  ENTER("adcg_engine_register_op");
  NOT_NULL(engine);
  FULL_SIZE(schema, ADCG_OP_SCHEMA_INIT);
  NOT_NULL(schema->name);
  NOT_NEGATIVE(schema->num_inputs);
  NOT_NEGATIVE(schema->num_outputs);
  NOT_NEGATIVE(schema->num_optional_inputs);
  COUNT(schema->num_aliases, schema->aliases);
  COUNT(schema->num_attrs, schema->attrs);
  for (int32_t i = 0; i < schema->num_attrs; i++)
    if (!schema->attrs[i].default_value.name) return tape_fail(ADCG_ERR_ARGUMENT, f, "schema->attrs[%d]: name: NULL", (int)i);
  return goEngineRegisterOp((uintptr_t)engine, (adcg_op_schema *)(uintptr_t)schema, (uintptr_t)user_data);
}

adcg_status adcg_engine_get_device_info(const adcg_engine *engine, adcg_device_info *out_info) {
  ENTER_STRUCT("adcg_engine_get_device_info", out_info);
  NOT_NULL(engine);
  FULL_SIZE(out_info, ADCG_DEVICE_INFO_INIT);
  return goEngineGetDeviceInfo((uintptr_t)engine, out_info);
}

adcg_status adcg_engine_get_op_info(const adcg_engine *engine, int32_t index, adcg_op_info *out_info) {
  ENTER_STRUCT("adcg_engine_get_op_info", out_info);
  NOT_NULL(engine);
  FULL_SIZE(out_info, ADCG_OP_INFO_INIT);
  return goEngineGetOpInfo((uintptr_t)engine, index, out_info);
}

/* ---- Graph ---------------------------------------------------------------------------------------------- */

adcg_status adcg_graph_create(adcg_engine *engine, const adcg_graph_limits *limits, adcg_graph **out_graph) {
  ENTER_OUT("adcg_graph_create", out_graph, NULL);
  NOT_NULL(engine);
  FULL_SIZE(limits, ADCG_GRAPH_LIMITS_INIT);
  return goGraphCreate((uintptr_t)engine, (adcg_graph_limits *)(uintptr_t)limits, (uintptr_t *)out_graph);
}

void adcg_graph_destroy(adcg_graph *graph) {
  if (graph && tape_process_check("adcg_graph_destroy") == ADCG_OK) goHandleDestroy((uintptr_t)graph, HANDLE_GRAPH);
}

static adcg_status add_value(const char *f, adcg_graph *graph, int32_t role, const char *name, adcg_dtype dtype, int32_t ndim,
                             const adcg_dim *dims, adcg_value *out_value) {
  if (out_value) *out_value = 0;
  CHECK(tape_process_check(f));
  NOT_NULL(out_value);
  NOT_NULL(graph);
  NOT_NULL(name);
  COUNT(ndim, dims);
  if (ndim > ADCG_MAX_NDIM) return tape_fail(ADCG_ERR_SHAPE, f, "ndim: %d, at most %d", (int)ndim, ADCG_MAX_NDIM);
  return goGraphAddValue((uintptr_t)graph, (char *)(uintptr_t)f, role, (char *)(uintptr_t)name, dtype, ndim, (adcg_dim *)(uintptr_t)dims,
                         out_value);
}

adcg_status adcg_graph_add_input(adcg_graph *graph, const char *name, adcg_dtype dtype, int32_t ndim, const adcg_dim *dims,
                                 adcg_value *out_value) {
  return add_value("adcg_graph_add_input", graph, ADCG_ROLE_INPUT, name, dtype, ndim, dims, out_value);
}

adcg_status adcg_graph_add_weight(adcg_graph *graph, const char *name, adcg_dtype dtype, int32_t ndim, const adcg_dim *dims,
                                  adcg_value *out_value) {
  return add_value("adcg_graph_add_weight", graph, ADCG_ROLE_WEIGHT, name, dtype, ndim, dims, out_value);
}

adcg_status adcg_graph_add_state(adcg_graph *graph, const char *name, adcg_dtype dtype, int32_t ndim, const adcg_dim *dims,
                                 adcg_value *out_value) {
  return add_value("adcg_graph_add_state", graph, ADCG_ROLE_STATE, name, dtype, ndim, dims, out_value);
}

static adcg_status check_attrs(const char *f, const adcg_attr *attrs, int32_t num_attrs) {
  COUNT(num_attrs, attrs);
  for (int32_t i = 0; i < num_attrs; i++) {
    if (!attrs[i].name) return tape_fail(ADCG_ERR_ARGUMENT, f, "attrs[%d]: name: NULL", (int)i);
    if (attrs[i].type == ADCG_ATTR_TYPE_STRING && !attrs[i].s)
      return tape_fail(ADCG_ERR_ARGUMENT, f, "attrs[%d] `%s`: NULL", (int)i, attrs[i].name);
    if (attrs[i].type == ADCG_ATTR_TYPE_INTS && (attrs[i].count < 0 || (attrs[i].count > 0 && !attrs[i].ints)))
      return tape_fail(ADCG_ERR_ARGUMENT, f, "attrs[%d] `%s`: %d integers at %p", (int)i, attrs[i].name, (int)attrs[i].count,
                       (const void *)attrs[i].ints);
  }
  return ADCG_OK;
}

static adcg_status add_op(const char *f, adcg_graph *graph, const char *op, const adcg_value *inputs, int32_t num_inputs,
                          const adcg_attr *attrs, int32_t num_attrs, adcg_value *out_values, int32_t num_outputs) {
  CHECK(tape_process_check(f));
  NOT_NULL(graph);
  NOT_NULL(op);
  COUNT(num_inputs, inputs);
  CHECK(check_attrs(f, attrs, num_attrs));
  return goGraphAddOp((uintptr_t)graph, (char *)(uintptr_t)op, (adcg_value *)(uintptr_t)inputs, num_inputs, (adcg_attr *)(uintptr_t)attrs,
                      num_attrs, out_values, num_outputs);
}

adcg_status adcg_graph_add_op(adcg_graph *graph, const char *op, const adcg_value *inputs, int32_t num_inputs, const adcg_attr *attrs,
                              int32_t num_attrs, adcg_value *out_values, int32_t num_outputs) {
  static const char f[] = "adcg_graph_add_op";
  COUNT(num_outputs, out_values);
  adcg_status status = add_op(f, graph, op, inputs, num_inputs, attrs, num_attrs, out_values, num_outputs);
  /* only now: out_values may be the memory of inputs, as in a chain that keeps one variable */
  for (int32_t i = 0; status && i < num_outputs; i++) out_values[i] = 0;
  return status;
}

adcg_status adcg_graph_add_output(adcg_graph *graph, const char *name, adcg_value value) {
  ENTER("adcg_graph_add_output");
  NOT_NULL(graph);
  NOT_NULL(name);
  return goGraphAddOutput((uintptr_t)graph, (char *)(uintptr_t)name, value);
}

adcg_status adcg_graph_freeze(adcg_graph *graph) {
  ENTER("adcg_graph_freeze");
  NOT_NULL(graph);
  return goGraphFreeze((uintptr_t)graph);
}

adcg_status adcg_graph_find_value(const adcg_graph *graph, const char *name, adcg_value *out_value) {
  ENTER_OUT("adcg_graph_find_value", out_value, 0);
  NOT_NULL(graph);
  NOT_NULL(name);
  return goGraphFindValue((uintptr_t)graph, (char *)(uintptr_t)name, out_value);
}

adcg_status adcg_graph_get_value_info(const adcg_graph *graph, adcg_value value, adcg_value_info *out_info) {
  ENTER_STRUCT("adcg_graph_get_value_info", out_info);
  NOT_NULL(graph);
  FULL_SIZE(out_info, ADCG_VALUE_INFO_INIT);
  return goGraphGetValueInfo((uintptr_t)graph, value, out_info);
}

/* The options with their defaults filled in. */
static adcg_status take_options(const char *f, const adcg_exec_options *options, adcg_exec_options *out) {
  *out = (adcg_exec_options)ADCG_EXEC_OPTIONS_INIT;
  if (!options) return ADCG_OK;
  if (options->struct_size < offsetof(adcg_exec_options, capture_mode)) /* where the first version ended */
    return tape_fail(ADCG_ERR_ARGUMENT, f, "options: struct_size: %zu, initialise it with ADCG_EXEC_OPTIONS_INIT", options->struct_size);
  COUNT(options->num_buckets, options->buckets);
  COUNT(options->num_seq_buckets, options->seq_buckets);
  if (options->capture != ADCG_CAPTURE_ON_FIRST_USE && options->capture != ADCG_CAPTURE_EXPLICIT)
    return tape_fail(ADCG_ERR_ARGUMENT, f, "options->capture: %d, use ADCG_CAPTURE_ON_FIRST_USE or _EXPLICIT", (int)options->capture);
  memcpy(out, options, options->struct_size < sizeof *out ? options->struct_size : sizeof *out);
  if (out->capture_mode < ADCG_CAPTURE_MODE_THREAD_LOCAL || out->capture_mode > ADCG_CAPTURE_MODE_RELAXED)
    return tape_fail(ADCG_ERR_ARGUMENT, f, "options->capture_mode: %d, use ADCG_CAPTURE_MODE_*", (int)out->capture_mode);
  return ADCG_OK;
}

adcg_status adcg_graph_forecast(const adcg_graph *graph, const adcg_exec_options *options, adcg_forecast *out_forecast) {
  ENTER_STRUCT("adcg_graph_forecast", out_forecast);
  NOT_NULL(graph);
  FULL_SIZE(out_forecast, ADCG_FORECAST_INIT);
  adcg_exec_options o;
  CHECK(take_options(f, options, &o));
  return goGraphForecast((uintptr_t)graph, &o, out_forecast);
}

adcg_status adcg_graph_write_plan(const adcg_graph *graph, const adcg_exec_options *options, int32_t format, adcg_write_fn write,
                                  void *user_data) {
  ENTER("adcg_graph_write_plan");
  NOT_NULL(graph);
  NOT_NULL(write);
  adcg_exec_options o;
  CHECK(take_options(f, options, &o));
  return goGraphWritePlan((uintptr_t)graph, &o, format, (uintptr_t)write, (uintptr_t)user_data);
}

/* ---- Exec ------------------------------------------------------------------------------------------------- */

adcg_status adcg_exec_create(const adcg_graph *graph, const adcg_exec_options *options, adcg_exec **out_exec) {
  ENTER_OUT("adcg_exec_create", out_exec, NULL);
  NOT_NULL(graph);
  adcg_exec_options o;
  CHECK(take_options(f, options, &o));
  uintptr_t number = 0, tape = 0;
  CHECK(goExecCreate((uintptr_t)graph, &o, &number, &tape));
  exec_slot *slot = exec_slot_create((tape_exec *)tape, number);
  if (!slot) {
    goExecDestroy(number);
    return tape_fail(ADCG_ERR_OUT_OF_MEMORY, f, "handle: out of host memory");
  }
  *out_exec = (adcg_exec *)atomic_load(&slot->handle);
  return ADCG_OK;
}

void adcg_exec_destroy(adcg_exec *exec) {
  static const char f[] = "adcg_exec_destroy";
  exec_slot *slot;
  if (!exec || tape_process_check(f) || exec_slot_acquire_last(exec, f, &slot)) return;
  uintptr_t number = slot->number;
  exec_slot_retire(slot);
  goExecDestroy(number);
}

adcg_status adcg_exec_bind(adcg_exec *exec, adcg_value value, const DLTensor *tensor) {
  ENTER("adcg_exec_bind");
  exec_slot *slot;
  NOT_NULL(tensor);
  CHECK(exec_slot_acquire(exec, f, &slot));
  adcg_status status = goExecBind(slot->number, value, (DLTensor *)(uintptr_t)tensor);
  exec_slot_release(slot);
  return status;
}

adcg_status adcg_exec_capture(adcg_exec *exec, const adcg_bucket *buckets, int32_t num_buckets, adcg_progress_fn progress,
                              void *user_data) {
  ENTER("adcg_exec_capture");
  exec_slot *slot;
  COUNT(num_buckets, buckets);
  CHECK(exec_slot_acquire(exec, f, &slot));
  adcg_status status =
      goExecCapture(slot->number, (adcg_bucket *)(uintptr_t)buckets, num_buckets, (uintptr_t)progress, (uintptr_t)user_data);
  exec_slot_release(slot);
  return status;
}

int32_t capi_progress(uintptr_t progress, const adcg_progress *what, uintptr_t user_data) {
  return ((adcg_progress_fn)progress)(what, (void *)user_data);
}

int32_t capi_write(uintptr_t write, const char *data, size_t size, uintptr_t user_data) {
  return ((adcg_write_fn)write)(data, size, (void *)user_data);
}

adcg_status adcg_exec_get_bucket(const adcg_exec *exec, int32_t index, adcg_bucket_info *out_info) {
  ENTER_STRUCT("adcg_exec_get_bucket", out_info);
  FULL_SIZE(out_info, ADCG_BUCKET_INFO_INIT);
  uintptr_t number = exec_number(exec, f);
  if (!number) return exec ? ADCG_ERR_HANDLE : ADCG_ERR_ARGUMENT;
  return goExecGetBucket(number, index, out_info);
}

adcg_status adcg_exec_replay(adcg_exec *exec, const adcg_batch *batch, const DLTensor *inputs, int32_t num_inputs, const DLTensor *outputs,
                             int32_t num_outputs, void *stream, adcg_step *out_step) {
  ENTER_STRUCT("adcg_exec_replay", out_step);
  exec_slot *slot;
  CHECK(exec_slot_acquire(exec, f, &slot));
  int32_t bucket = -1;
  adcg_status status;
  for (;;) {
    status = tape_replay(slot->tape, batch, inputs, num_inputs, outputs, num_outputs, stream, out_step, &bucket);
    if (__builtin_expect(status != TAPE_WANT_BUCKET && status != TAPE_WANT_MEMORY, 1)) break;
    status = goExecProvide(slot->number, status, bucket); /* the one way from here into Go */
    if (status) break;
  }
  exec_slot_release(slot);
  return status;
}

adcg_status adcg_exec_synchronize(adcg_exec *exec) {
  ENTER("adcg_exec_synchronize");
  exec_slot *slot;
  CHECK(exec_slot_acquire(exec, f, &slot));
  adcg_status status = tape_synchronize(slot->tape, f);
  exec_slot_release(slot);
  return status;
}

static adcg_status order(const char *f, adcg_exec *exec, void *stream, bool exec_waits) {
  exec_slot *slot;
  CHECK(exec_slot_acquire(exec, f, &slot));
  adcg_status status = tape_order(slot->tape, f, stream, exec_waits);
  exec_slot_release(slot);
  return status;
}

adcg_status adcg_exec_wait_stream(adcg_exec *exec, void *stream) {
  ENTER("adcg_exec_wait_stream");
  return order(f, exec, stream, true);
}

adcg_status adcg_stream_wait_exec(void *stream, adcg_exec *exec) {
  ENTER("adcg_stream_wait_exec");
  return order(f, exec, stream, false);
}

/* What Go does with an exec. */
static adcg_status in_go(const char *f, adcg_exec *exec, int32_t (*call)(uintptr_t)) {
  exec_slot *slot;
  CHECK(exec_slot_acquire(exec, f, &slot));
  adcg_status status = call(slot->number);
  exec_slot_release(slot);
  return status;
}

adcg_status adcg_exec_release(adcg_exec *exec) {
  ENTER("adcg_exec_release");
  return in_go(f, exec, goExecRelease);
}

adcg_status adcg_exec_restore(adcg_exec *exec) {
  ENTER("adcg_exec_restore");
  return in_go(f, exec, goExecRestore);
}

adcg_status adcg_exec_get_stats(const adcg_exec *exec, adcg_stats *out_stats) {
  ENTER_STRUCT("adcg_exec_get_stats", out_stats);
  FULL_SIZE(out_stats, ADCG_STATS_INIT);
  uintptr_t number = exec_number(exec, f);
  if (!number) return exec ? ADCG_ERR_HANDLE : ADCG_ERR_ARGUMENT;
  return goExecGetStats(number, out_stats);
}

/* ---- Ladders ---------------------------------------------------------------------------------------------- */

/* A list that the caller gives; checked before it is read. */
#define LADDER_LIST(count, array)                                                                                    \
  do {                                                                                                               \
    COUNT(count, array);                                                                                             \
    if ((count) > ADCG_MAX_LADDER)                                                                                   \
      return tape_fail(ADCG_ERR_ARGUMENT, f, #count ": %lld, at most %d", (long long)(count), (int)ADCG_MAX_LADDER); \
  } while (0)

adcg_status adcg_ladder_choose(const adcg_step_count *histogram, int32_t num_sizes, const adcg_ladder_budget *budget, int64_t *out_buckets,
                               int32_t capacity, int32_t *out_count) {
  ENTER_OUT("adcg_ladder_choose", out_count, 0);
  LADDER_LIST(num_sizes, histogram);
  FULL_SIZE(budget, ADCG_LADDER_BUDGET_INIT);
  COUNT(capacity, out_buckets);
  return goLadderChoose((adcg_step_count *)(uintptr_t)histogram, num_sizes, (adcg_ladder_budget *)(uintptr_t)budget, out_buckets, capacity,
                        out_count);
}

adcg_status adcg_ladder_cost(const adcg_step_count *histogram, int32_t num_sizes, const int64_t *buckets, int32_t num_buckets,
                             const adcg_ladder_budget *budget, adcg_ladder_bucket *out_buckets, adcg_ladder_totals *out_totals) {
  ENTER_STRUCT("adcg_ladder_cost", out_totals);
  FULL_SIZE(out_totals, ADCG_LADDER_TOTALS_INIT);
  LADDER_LIST(num_sizes, histogram);
  LADDER_LIST(num_buckets, buckets);
  adcg_ladder_budget b = ADCG_LADDER_BUDGET_INIT;
  if (budget) {
    FULL_SIZE(budget, ADCG_LADDER_BUDGET_INIT);
    b = *budget;
  }
  return goLadderCost((adcg_step_count *)(uintptr_t)histogram, num_sizes, (int64_t *)(uintptr_t)buckets, num_buckets, &b, out_buckets,
                      out_totals);
}

adcg_status adcg_ladder_named(const char *name, int64_t max_tokens, int64_t max_seqs, int64_t *out_buckets, int32_t capacity,
                              int32_t *out_count) {
  ENTER_OUT("adcg_ladder_named", out_count, 0);
  NOT_NULL(name);
  COUNT(capacity, out_buckets);
  return goLadderNamed((char *)(uintptr_t)name, max_tokens, max_seqs, out_buckets, capacity, out_count);
}
