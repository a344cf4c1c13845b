/* The bad input table, execs, tensors, batches and callbacks. Each case gives the library something wrong, checks the exact status and that the message
 * names function and value, and then that the handle still works (world_good replays a step and checks its numbers). */
#include "bad.h"

/* ---- Options, buckets, numbers ----------------------------------------------------------------------------------- */

static void exec_options(void) {
  world_open(&w);
  adcg_exec_options o = ADCG_EXEC_OPTIONS_INIT, fresh = o;
  int64_t sizes[] = {16, 0}, negative[] = {-8};
#define REFUSED(...)                                                                    \
  do {                                                                                  \
    adcg_forecast forecast = ADCG_FORECAST_INIT;                                        \
    FAILS(adcg_exec_create(w.graph, &o, &made_exec), ADCG_ERR_ARGUMENT, __VA_ARGS__);   \
    CHECK(made_exec == NULL);                                                           \
    FAILS(adcg_graph_forecast(w.graph, &o, &forecast), ADCG_ERR_ARGUMENT, __VA_ARGS__); \
    o = fresh;                                                                          \
  } while (0)
  o.mode = 17;
  REFUSED("mode", "17");
  o.mode = -1;
  REFUSED("mode", "-1");
  o.capture = 5;
  REFUSED("capture", "5");
  o.query_len = -2;
  REFUSED("query_len", "-2");
  o.num_buckets = 2;
  REFUSED("buckets", "NULL");
  o.num_buckets = -1;
  REFUSED("num_buckets", "-1");
  o.buckets = sizes, o.num_buckets = 2;
  REFUSED("buckets", "0");
  o.buckets = negative, o.num_buckets = 1;
  REFUSED("buckets", "-8");
  o.num_seq_buckets = 1;
  REFUSED("seq_buckets", "NULL");
  o.seq_buckets = negative, o.num_seq_buckets = 1;
  REFUSED("seq_buckets", "-8");
#undef REFUSED
  int64_t large[] = {1000, 16, 16}; /* capped, sorted, deduplicated */
  o.buckets = large, o.num_buckets = 3;
  TRY(adcg_exec_create(w.graph, &o, &made_exec));
  adcg_exec_destroy(made_exec);
  STILL_GOOD();
}

static void log_nothing(int32_t level, const char *message, void *user_data) { (void)level, (void)message, (void)user_data; }

static void numbers_that_are_none(void) {
  world_open(&w);
  adcg_value v = 9;
  adcg_value_info info = ADCG_VALUE_INFO_INIT;
  adcg_op_info op = ADCG_OP_INFO_INIT;
  adcg_bucket_info bucket = ADCG_BUCKET_INFO_INIT;
  FAILS(adcg_graph_find_value(w.graph, "X", &v), ADCG_ERR_NOT_FOUND, "X");
  CHECK_INT(v, 0);
  FAILS(adcg_graph_get_value_info(w.graph, 999, &info), ADCG_ERR_NOT_FOUND, "999");
  FAILS(adcg_graph_get_value_info(w.graph, -1, &info), ADCG_ERR_NOT_FOUND, "-1");
  FAILS(adcg_engine_get_op_info(w.engine, 100000, &op), ADCG_ERR_NOT_FOUND, "100000");
  FAILS(adcg_engine_get_op_info(w.engine, -1, &op), ADCG_ERR_NOT_FOUND, "-1");
  FAILS(adcg_exec_get_bucket(w.exec, 10000, &bucket), ADCG_ERR_NOT_FOUND, "10000");
  FAILS(adcg_exec_get_bucket(w.exec, -1, &bucket), ADCG_ERR_NOT_FOUND, "-1");
  adcg_bucket none = {ADCG_MODE_PIECEWISE, 63, 0};
  FAILS(adcg_exec_capture(w.exec, &none, 1, NULL, NULL), ADCG_ERR_NOT_FOUND, "63");
  none = (adcg_bucket){12, 64, 0};
  FAILS(adcg_exec_capture(w.exec, &none, 1, NULL, NULL), ADCG_ERR_NOT_FOUND, "12");
  FAILS(adcg_exec_capture(w.exec, &none, -1, NULL, NULL), ADCG_ERR_ARGUMENT, "num_buckets", "-1");
  FAILS(adcg_graph_write_plan(w.graph, NULL, 8, write_nothing, NULL), ADCG_ERR_ARGUMENT, "format", "8");
  FAILS(adcg_set_log(log_nothing, 9, NULL), ADCG_ERR_ARGUMENT, "level", "9");
  FAILS(adcg_set_log(log_nothing, 0, NULL), ADCG_ERR_ARGUMENT, "level", "0");
  CHECK(strcmp(adcg_status_name(21), "ADCG_ERR_SHAPE") == 0);
  CHECK(strcmp(adcg_status_name(-5), "ADCG_ERR_UNKNOWN") == 0);
  CHECK(strcmp(adcg_status_name(1000), "ADCG_ERR_UNKNOWN") == 0);
  STILL_GOOD();
}

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

#define REPLAY_FAILS(status, ...) FAILS(adcg_exec_replay(w.exec, &w.batch, inputs, 2, outputs, 2, NULL, &w.step), status, __VA_ARGS__)
#define FRESH_TENSORS() memcpy(inputs, w.inputs, sizeof inputs), memcpy(outputs, w.outputs, sizeof outputs)

static DLDeviceType other_type(void) { return on_cuda() ? kDLCPU : kDLCUDA; } /* than the device's */

static void tensors_of_a_step(void) {
  world_open(&w);
  DLTensor inputs[2], outputs[2];
  int64_t short_x[] = {6, WIDTH}, wide_x[] = {MAX_TOKENS, WIDTH + 1}, short_pick[] = {2}, negative[] = {-1, WIDTH};
  int64_t strided[] = {WIDTH * 2, 1}, transposed[] = {1, MAX_TOKENS};

  FRESH_TENSORS(), inputs[0].dtype = adcg_dtype_to_dlpack(ADCG_F16);
  REPLAY_FAILS(ADCG_ERR_DTYPE, "inputs[0]", "`x`", "16");
  FRESH_TENSORS(), inputs[0].dtype.lanes = 2;
  REPLAY_FAILS(ADCG_ERR_DTYPE, "inputs[0]", "`x`", "2 lanes");
  FRESH_TENSORS(), inputs[1].dtype = adcg_dtype_to_dlpack(ADCG_I64);
  REPLAY_FAILS(ADCG_ERR_DTYPE, "inputs[1]", "`pick`", "64");
  FRESH_TENSORS(), outputs[1].dtype = adcg_dtype_to_dlpack(ADCG_I32);
  REPLAY_FAILS(ADCG_ERR_DTYPE, "outputs[1]", "`last`");
  FRESH_TENSORS(), inputs[0].ndim = 1;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "inputs[0]", "`x`", "1 dims", "2");
  FRESH_TENSORS(), inputs[0].shape = NULL;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "inputs[0]", "`x`", "NULL");
  FRESH_TENSORS(), inputs[0].shape = short_x;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "inputs[0]", "`x`", "6 rows", "7");
  FRESH_TENSORS(), inputs[0].shape = negative;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "inputs[0]", "`x`", "-1 rows", "7");
  FRESH_TENSORS(), inputs[1].shape = short_pick;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "inputs[1]", "`pick`", "2 rows", "3");
  FRESH_TENSORS(), outputs[0].shape = short_x;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "outputs[0]", "`y`", "6 rows", "7");
  FRESH_TENSORS(), inputs[0].shape = wide_x;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "inputs[0]", "`x`", "dim 1", "9", "8");
  FRESH_TENSORS(), inputs[0].strides = strided;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "inputs[0]", "`x`", "contiguous", "16");
  FRESH_TENSORS(), outputs[0].strides = transposed;
  REPLAY_FAILS(ADCG_ERR_SHAPE, "outputs[0]", "`y`", "contiguous");
  FRESH_TENSORS(), inputs[0].device.device_type = other_type();
  REPLAY_FAILS(ADCG_ERR_DEVICE, "inputs[0]", "`x`", on_cuda() ? "1" : "2");
  FRESH_TENSORS(), outputs[1].device.device_id = 1;
  REPLAY_FAILS(ADCG_ERR_DEVICE, "outputs[1]", "`last`", "1");
  FRESH_TENSORS(), inputs[0].data = NULL;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "inputs[0]", "`x`", "NULL");
  FRESH_TENSORS(), outputs[0].data = NULL;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "outputs[0]", "`y`", "NULL");
  FRESH_TENSORS(), inputs[0].byte_offset = 2;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "inputs[0]", "`x`");
  FRESH_TENSORS(), outputs[0].data = (char *)w.at.y + 1;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "outputs[0]", "`y`");

  FAILS(adcg_exec_replay(w.exec, &w.batch, inputs, 1, outputs, 2, NULL, NULL), ADCG_ERR_ARGUMENT, "num_inputs", "1", "2");
  FAILS(adcg_exec_replay(w.exec, &w.batch, inputs, 2, outputs, 3, NULL, NULL), ADCG_ERR_ARGUMENT, "num_outputs", "3", "2");
  if (!on_cuda()) /* which has none; what is one of CUDA's only its driver knows */
    FAILS(adcg_exec_replay(w.exec, &w.batch, inputs, 2, outputs, 2, &w, NULL), ADCG_ERR_ARGUMENT, "stream");

  int64_t compact[] = {WIDTH, 1}; /* said in full, compact strides are what NULL means */
  FRESH_TENSORS(), inputs[0].strides = compact;
  TRY(adcg_exec_replay(w.exec, &w.batch, inputs, 2, outputs, 2, NULL, NULL));
  TRY(adcg_exec_synchronize(w.exec)); /* its arrays are written next */
  STILL_GOOD();
}

static void overlapping_tensors(void) {
  world_open(&w);
  DLTensor inputs[2], outputs[2];
  FRESH_TENSORS(), outputs[0].data = w.at.x;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "outputs[0]", "`y`", "`x`");
  FRESH_TENSORS(), outputs[0].data = w.at.x + 6 * WIDTH; /* the last real row alone */
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "outputs[0]", "`y`", "`x`");
  FRESH_TENSORS(), outputs[1].data = w.at.y + WIDTH;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "outputs[1]", "`last`", "`y`");
  FRESH_TENSORS(), outputs[1].data = w.at.w;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "outputs[1]", "`last`", "`w`");
  FRESH_TENSORS(), outputs[1].data = w.at.total;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "outputs[1]", "`last`", "`total`");
  FRESH_TENSORS(), inputs[1].data = w.at.total;
  REPLAY_FAILS(ADCG_ERR_ADDRESS, "inputs[1]", "`pick`", "`total`");
  STILL_GOOD();
}

static void tensors_to_bind(void) {
  world_open(&w);
  DLTensor t = w.w_tensor;
  int64_t flat[] = {WIDTH * WIDTH}, tall[] = {WIDTH + 1, WIDTH}, strides[] = {1, WIDTH};
  FAILS(adcg_exec_bind(w.exec, w.x, &t), ADCG_ERR_STATE, "`x`");
  FAILS(adcg_exec_bind(w.exec, w.y, &t), ADCG_ERR_STATE, "state");
  FAILS(adcg_exec_bind(w.exec, 321, &t), ADCG_ERR_NOT_FOUND, "321");
  FAILS(adcg_exec_bind(w.exec, -1, &t), ADCG_ERR_NOT_FOUND, "-1");
#define REFUSED(status, ...)                                            \
  do {                                                                  \
    FAILS(adcg_exec_bind(w.exec, w.w, &t), status, "`w`", __VA_ARGS__); \
    t = w.w_tensor;                                                     \
  } while (0)
  t.dtype = adcg_dtype_to_dlpack(ADCG_BF16);
  REFUSED(ADCG_ERR_DTYPE, "16");
  t.ndim = 1, t.shape = flat;
  REFUSED(ADCG_ERR_SHAPE, "1 dims");
  t.shape = tall;
  REFUSED(ADCG_ERR_SHAPE, "9", "8");
  t.strides = strides;
  REFUSED(ADCG_ERR_SHAPE, "contiguous");
  t.device.device_type = other_type();
  REFUSED(ADCG_ERR_DEVICE, on_cuda() ? "1" : "2");
  t.data = NULL;
  REFUSED(ADCG_ERR_ADDRESS, "NULL");
  t.byte_offset = 1;
  REFUSED(ADCG_ERR_ADDRESS, "4");
#undef REFUSED
  t.data = w.at.total + 4; /* a weight over a state */
  FAILS(adcg_exec_bind(w.exec, w.w, &t), ADCG_ERR_ADDRESS, "`w`", "`total`");
  STILL_GOOD();
}

/* ---- Batches ----------------------------------------------------------------------------------------------------- */

static void refuse_batch(adcg_batch batch, const char *first, const char *second) {
  w.batch = batch;
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_BATCH, "batch", first, second);
}

static void batches(void) {
  world_open(&w);
  const size_t size = sizeof(adcg_batch);
  refuse_batch((adcg_batch){size, -1, 5, 0, 0, 2, 0}, "prefill", "-1");
  refuse_batch((adcg_batch){size, 1, -5, 0, 0, 2, 0}, "prefill", "-5");
  refuse_batch((adcg_batch){size, 0, 0, -1, -1, 2, 0}, "extend", "-1");
  refuse_batch((adcg_batch){size, 0, 0, 0, 0, -7, 0}, "decode", "-7");
  refuse_batch((adcg_batch){size, 3, 2, 0, 0, 0, 0}, "prefill", "2 tokens");
  refuse_batch((adcg_batch){size, 0, 5, 0, 0, 0, 0}, "prefill", "5");
  refuse_batch((adcg_batch){size, 0, 0, 2, 1, 0, 0}, "extend", "1 tokens");
  refuse_batch((adcg_batch){size, 2, 10, 2, 10, 1, 0}, "5", "4"); /* sequences together */
  refuse_batch((adcg_batch){size, 0, 0, 0, 0, 5, 0}, "5", "4"); /* sequences */
  refuse_batch((adcg_batch){size, 3, 129, 0, 0, 0, 0}, "129", "128"); /* tokens */
  refuse_batch((adcg_batch){size, 2, 100, 1, 28, 1, 0}, "129", "128"); /* tokens together */
  refuse_batch((adcg_batch){size, 1, 65, 0, 0, 0, 0}, "65", "64"); /* one sequence's tokens */
  refuse_batch((adcg_batch){size, 1, INT64_MAX, 0, 0, 0, 0}, "prefill", "9223372036854775807");
  refuse_batch((adcg_batch){size, 1, INT64_MAX, 1, INT64_MAX, INT64_MAX, 0}, "prefill", "9223372036854775807");
  refuse_batch((adcg_batch){size, INT64_MAX, INT64_MAX, 0, 0, 0, 0}, "prefill", "9223372036854775807");
  refuse_batch((adcg_batch){size, 2, 10, 0, 0, 1, 5}, "query_len", "5"); /* the decode sequence has one */
  refuse_batch((adcg_batch){size, 2, 10, 0, 0, 0, 4}, "query_len", "4");
  refuse_batch((adcg_batch){size, 2, 10, 0, 0, 0, -1}, "query_len", "-1");
  adcg_stats stats = ADCG_STATS_INIT;
  TRY(adcg_exec_get_stats(w.exec, &stats));
  CHECK_INT(stats.steps, 0);
  CHECK_INT(stats.failed_steps, 0); /* none of them began to run */
  STILL_GOOD();
}

static void index_out_of_range(void) {
  world_open(&w);
  world_good(&w);
  w.pick_data[1] = 7; /* the step has rows 0 .. 6 */
  if (on_cuda()) { /* which cannot say so: that row is anything, and the others are as ever */
    w.pick_data[2] = -2;
    TRY(world_replay(&w));
    for (int n = 0; n < WIDTH; n++) CHECK(w.last_data[n] == w.y_data[4 * WIDTH + n]);
    w.pick_data[1] = INT32_MAX, w.pick_data[2] = INT32_MIN;
    TRY(world_replay(&w));
    STILL_GOOD();
    return;
  }
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_OP, "adcg.gather_tokens", "7");
  w.pick_data[1] = -2;
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_OP, "adcg.gather_tokens", "-2");
  STILL_GOOD();
}

/* An output is cut by its declared axis, never by an extent that happens to equal the bucket. */
static adcg_status table_infer(const adcg_infer_call *call, void *user_data) {
  (void)user_data;
  call->outputs[0] = (adcg_type){ADCG_F32, 2, {ADCG_DIM(64), ADCG_DIM(2)}}; /* 64 rows, whatever the step */
  call->outputs[1] = (adcg_type){ADCG_F32, 2, {ADCG_DIM_TOKENS, ADCG_DIM(64)}};
  return ADCG_OK;
}
static adcg_status table_launch(const adcg_op_call *call, void *user_data) {
  const float *const *ramp = user_data; /* 1, 2, 3 .. */
  adcg_status status = ADCG_OK;
  for (int32_t o = 0; o < 2 && !status; o++) status = device_keep(call, *ramp, adcg_data(&call->outputs[o]), adcg_numel(&call->outputs[o]));
  return status;
}

static void vocabulary_equals_bucket(void) {
  adcg_engine *engine;
  adcg_graph *graph;
  adcg_exec *exec;
  enum { TABLE = 64 * 2 + 4, LOGITS = 7 * 64 + 4 };
  static float numbers[64 * 64];
  float *ramp, *x_at, *table_at, *logits_at, table[TABLE], logits[LOGITS]; /* seven real rows; a guard behind each */
  for (int i = 0; i < 64 * 64; i++) numbers[i] = (float)(i + 1);
  device_open();
  TRY(adcg_engine_create(device_name(), NULL, &engine));
  ramp = device_alloc(engine, sizeof numbers), x_at = device_alloc(engine, 7 * 64 * sizeof(float));
  table_at = device_alloc(engine, sizeof table), logits_at = device_alloc(engine, sizeof logits);
  TRY(adcg_memory_copy(engine, ramp, numbers, sizeof numbers));
  TRY(adcg_memory_copy(engine, x_at, numbers, 7 * 64 * sizeof(float)));
  for (int32_t kind = ADCG_OP_STATIC; kind <= ADCG_OP_DYNAMIC; kind++) {
    adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
    schema.name = kind == ADCG_OP_STATIC ? "t.static_table" : "t.dynamic_table";
    schema.kind = kind;
    schema.num_inputs = 1, schema.num_outputs = 2;
    schema.infer = table_infer, schema.launch = table_launch;
    schema.flags = device_flags();
    TRY(adcg_engine_register_op(engine, &schema, (void *)&ramp));
    adcg_graph_limits limits = {sizeof limits, 64, 4, 0};
    TRY(adcg_graph_create(engine, &limits, &graph));
    adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(64)};
    adcg_value x, v[2];
    TRY(adcg_graph_add_input(graph, "x", ADCG_F32, 2, rows, &x));
    TRY(adcg_graph_add_op(graph, schema.name, &x, 1, NULL, 0, v, 2));
    TRY(adcg_graph_add_output(graph, "table", v[0]));
    TRY(adcg_graph_add_output(graph, "logits", v[1]));
    TRY(adcg_graph_freeze(graph));
    TRY(adcg_exec_create(graph, NULL, &exec));
    for (int i = 0; i < 4; i++) table[64 * 2 + i] = logits[7 * 64 + i] = -1;
    TRY(adcg_memory_copy(engine, table_at, table, sizeof table));
    TRY(adcg_memory_copy(engine, logits_at, logits, sizeof logits));
    int64_t x_shape[] = {7, 64}, table_shape[] = {64, 2}, logits_shape[] = {7, 64};
    DLTensor in = tensor_of(x_at, ADCG_F32, 2, x_shape);
    DLTensor out[] = {tensor_of(table_at, ADCG_F32, 2, table_shape), tensor_of(logits_at, ADCG_F32, 2, logits_shape)};
    adcg_batch batch = {sizeof batch, 1, 7, 0, 0, 0, 0};
    adcg_step step = ADCG_STEP_INIT;
    TRY(adcg_exec_replay(exec, &batch, &in, 1, out, 2, NULL, &step));
    TRY(adcg_exec_synchronize(exec));
    TRY(adcg_memory_copy(engine, table, table_at, sizeof table));
    TRY(adcg_memory_copy(engine, logits, logits_at, sizeof logits));
    CHECK_INT(step.bucket_tokens, kind == ADCG_OP_STATIC ? 64 : step.bucket_tokens);
    for (int i = 0; i < 64 * 2; i++) CHECK(table[i] == (float)(i + 1));
    for (int i = 0; i < 7 * 64; i++) CHECK(logits[i] == (float)(i + 1));
    for (int i = 0; i < 4; i++) CHECK(table[64 * 2 + i] == -1 && logits[7 * 64 + i] == -1);
    int64_t cut[] = {63, 2};
    out[0].shape = cut;
    FAILS(adcg_exec_replay(exec, &batch, &in, 1, out, 2, NULL, &step), ADCG_ERR_SHAPE, "outputs[0]", "`table`", "63", "64");
    adcg_exec_destroy(exec);
    adcg_graph_destroy(graph);
  }
  adcg_engine_destroy(engine);
  device_close();
}

/* ---- Callbacks that fail ------------------------------------------------------------------------------------------ */

static adcg_status fail_with_message(const adcg_op_call *call, world *world_) {
  (void)world_;
  return adcg_op_fail(call, "slot 7 is out of range");
}
static adcg_status fail_without_message(const adcg_op_call *call, world *world_) {
  (void)call, (void)world_;
  return 987;
}

static void failing_op(void) {
  world_open(&w);
  world_good(&w); /* captured: it is the replay that fails */
  w.hook = fail_with_message;
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_OP, "t.double", "slot 7 is out of range");
  w.hook = fail_without_message;
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_OP, "t.double", "987");
  adcg_stats stats = ADCG_STATS_INIT;
  TRY(adcg_exec_get_stats(w.exec, &stats));
  CHECK_INT(stats.failed_steps, 2);
  CHECK_INT(stats.steps, 1);
  w.hook = NULL;
  STILL_GOOD();
}

static adcg_status failing_infer_fn(const adcg_infer_call *call, void *user_data) {
  if (user_data) call->set_error("width 8 is not a multiple of 3");
  return ADCG_ERR_SHAPE;
}

static void failing_infer(void) {
  world_build(&w);
  adcg_op_schema schema = copy_schema("t.picky");
  schema.infer = failing_infer_fn;
  TRY(adcg_engine_register_op(w.engine, &schema, &w));
  schema.name = "t.silent";
  TRY(adcg_engine_register_op(w.engine, &schema, NULL));
  adcg_value v = 4;
  FAILS(adcg_graph_add_op(w.graph, "t.picky", &w.x, 1, NULL, 0, &v, 1), ADCG_ERR_OP, "t.picky", "width 8 is not a multiple of 3");
  CHECK_INT(v, 0);
  FAILS(adcg_graph_add_op(w.graph, "t.silent", &w.x, 1, NULL, 0, &v, 1), ADCG_ERR_OP, "t.silent", "ADCG_ERR_SHAPE");
  finish();
}

static adcg_status failing_workspace_fn(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  *out_bytes = 0;
  return adcg_op_fail(call, "no room for 12 heads");
}

static void failing_workspace(void) {
  world_build(&w);
  adcg_op_schema schema = copy_schema("t.hungry");
  schema.workspace = failing_workspace_fn;
  TRY(adcg_engine_register_op(w.engine, &schema, NULL));
  adcg_value v;
  TRY(adcg_graph_add_op(w.graph, "t.hungry", &w.x, 1, NULL, 0, &v, 1));
  TRY(adcg_graph_add_output(w.graph, "hungry", v));
  TRY(adcg_graph_freeze(w.graph));
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  FAILS(adcg_graph_forecast(w.graph, NULL, &forecast), ADCG_ERR_OP, "t.hungry", "no room for 12 heads");
  FAILS(adcg_exec_create(w.graph, NULL, &made_exec), ADCG_ERR_OP, "t.hungry", "no room for 12 heads");
  CHECK(made_exec == NULL);
  world_close(&w);
}

/* Without infer: rows grow with the square of the count, which is no dim. */
static adcg_status discover_square(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  if (call->phase != ADCG_PHASE_DISCOVER) return ADCG_OK;
  call->outputs[0].ndim = 2;
  call->outputs[0].dtype = call->inputs[0].dtype;
  call->outputs[0].shape[0] = call->tokens * call->tokens;
  call->outputs[0].shape[1] = WIDTH;
  return ADCG_OK;
}
static adcg_status discover_fails(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return adcg_op_fail(call, "cannot tell");
}

static void failing_discovery(void) {
  const struct {
    const char *name, *said;
    adcg_op_launch_fn launch;
    adcg_status status;
  } rows[] = {{"t.square", "tokens", discover_square, ADCG_ERR_SHAPE}, {"t.unsure", "cannot tell", discover_fails, ADCG_ERR_OP}};
  for (int i = 0; i < 2; i++) {
    world_build(&w);
    adcg_op_schema schema = copy_schema(rows[i].name);
    schema.infer = NULL;
    schema.launch = rows[i].launch;
    TRY(adcg_engine_register_op(w.engine, &schema, NULL));
    adcg_value v;
    TRY(adcg_graph_add_op(w.graph, rows[i].name, &w.x, 1, NULL, 0, &v, 1));
    TRY(adcg_graph_add_output(w.graph, "found", v));
    FAILS(adcg_graph_freeze(w.graph), rows[i].status, rows[i].name, rows[i].said);
    FAILS(adcg_graph_freeze(w.graph), rows[i].status, rows[i].name, rows[i].said); /* open still: it fails alike */
    world_close(&w);
  }
}

static int32_t stop_at_second(const adcg_progress *progress, void *user_data) {
  ++*(int *)user_data;
  return progress->index == 1;
}
static int32_t stop_writing(const char *data, size_t size, void *user_data) {
  (void)data;
  *(size_t *)user_data += size;
  return 5;
}

static void cancelled_capture(void) {
  world_open(&w);
  int calls = 0;
  FAILS(adcg_exec_capture(w.exec, NULL, 0, stop_at_second, &calls), ADCG_ERR_CANCELLED, "progress");
  CHECK_INT(calls, 2);
  adcg_stats stats = ADCG_STATS_INIT;
  TRY(adcg_exec_get_stats(w.exec, &stats));
  CHECK_INT(stats.captured_buckets, 2); /* what is captured stays */
  STILL_GOOD();
}

static void cancelled_write(void) {
  world_open(&w);
  size_t written = 0;
  FAILS(adcg_graph_write_plan(w.graph, NULL, ADCG_PLAN_JSON, stop_writing, &written), ADCG_ERR_CANCELLED, "write");
  CHECK(written > 0);
  STILL_GOOD();
}

static adcg_status call_myself(const adcg_op_call *call, world *world_) {
  if (call->phase != ADCG_PHASE_REPLAY) return ADCG_OK;
  adcg_exec *exec = world_->exec;
  FAILS(adcg_exec_replay(exec, &world_->batch, world_->inputs, 2, world_->outputs, 2, NULL, NULL), ADCG_ERR_BUSY, "exec");
  FAILS(adcg_exec_bind(exec, world_->w, &world_->w_tensor), ADCG_ERR_BUSY, "exec");
  FAILS(adcg_exec_capture(exec, NULL, 0, NULL, NULL), ADCG_ERR_BUSY, "exec");
  FAILS(adcg_exec_release(exec), ADCG_ERR_BUSY, "exec");
  FAILS(adcg_exec_restore(exec), ADCG_ERR_BUSY, "exec");
  adcg_stats stats = ADCG_STATS_INIT; /* const: beside a replay */
  TRY(adcg_exec_get_stats(exec, &stats));
  adcg_exec_destroy(exec); /* from inside a call on it: refused, or it would wait for itself */
  return ADCG_OK;
}

static void busy_exec(void) {
  world_open(&w);
  world_good(&w);
  w.hook = call_myself;
  world_good(&w);
  w.hook = NULL;
  STILL_GOOD();
}

static const harness_case cases[] = {
    {"exec_options", exec_options},
    {"numbers_that_are_none", numbers_that_are_none},
    {"tensors_of_a_step", tensors_of_a_step},
    {"overlapping_tensors", overlapping_tensors},
    {"tensors_to_bind", tensors_to_bind},
    {"batches", batches},
    {"index_out_of_range", index_out_of_range},
    {"vocabulary_equals_bucket", vocabulary_equals_bucket},
    {"failing_op", failing_op},
    {"failing_infer", failing_infer},
    {"failing_workspace", failing_workspace},
    {"failing_discovery", failing_discovery},
    {"cancelled_capture", cancelled_capture},
    {"cancelled_write", cancelled_write},
    {"busy_exec", busy_exec},
};
HARNESS_MAIN(cases)
