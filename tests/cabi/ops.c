/* Custom ops: what infer, workspace and launch are given, and what the engine does about aliases, views, tails and discovery. */
#include "mini.h"

static mini m;

/* ---- Attributes -------------------------------------------------------------------------------------------------- */

static int attribute_calls;

static void check_attributes(int32_t num_attrs, const adcg_attr *attrs) {
  CHECK_INT(num_attrs, 5); /* in the schema's order, whatever the caller's; complete */
  CHECK(strcmp(attrs[0].name, "times") == 0 && attrs[0].type == ADCG_ATTR_TYPE_INT && attrs[0].i == 3);
  CHECK(strcmp(attrs[1].name, "scale") == 0 && attrs[1].type == ADCG_ATTR_TYPE_FLOAT && attrs[1].f == 0.5);
  CHECK(strcmp(attrs[2].name, "on") == 0 && attrs[2].type == ADCG_ATTR_TYPE_BOOL && attrs[2].i == 1);
  CHECK(strcmp(attrs[3].name, "text") == 0 && attrs[3].type == ADCG_ATTR_TYPE_STRING && strcmp(attrs[3].s, "tief\xC3\xB6n") == 0);
  CHECK(strcmp(attrs[4].name, "list") == 0 && attrs[4].type == ADCG_ATTR_TYPE_INTS && attrs[4].count == 3 && attrs[4].ints[2] == -9);
  attribute_calls++;
}
static adcg_status attribute_infer(const adcg_infer_call *call, void *user_data) {
  check_attributes(call->num_attrs, call->attrs);
  return mini_infer(call, user_data);
}
static adcg_status attribute_launch(const adcg_op_call *call, void *user_data) {
  check_attributes(call->num_attrs, call->attrs);
  return mini_increment(call, user_data);
}

static void attributes(void) {
  mini_open(&m, 64, 4);
  char text[] = "tief\xC3\xB6n";
  int64_t list[] = {1, 2, -9}, other[] = {4};
  adcg_attr_spec specs[] = {{ADCG_ATTR_INT("times", 0), 1, "required"},
                            {ADCG_ATTR_FLOAT("scale", 0.5), 0, NULL},
                            {ADCG_ATTR_BOOL("on", 7), 0, NULL},
                            {ADCG_ATTR_STRING("text", text), 0, NULL},
                            {ADCG_ATTR_INTS("list", other, 1), 0, NULL}};
  adcg_op_schema schema = mini_schema("t.attributes", ADCG_OP_STATIC, attribute_launch);
  schema.infer = attribute_infer;
  schema.num_attrs = 5;
  schema.attrs = specs;
  mini_register(&m, &schema, NULL);
  memset(text, 'x', sizeof text - 1); /* the schema was copied */
  memset(specs, 0, sizeof specs);
  adcg_attr given[] = {ADCG_ATTR_INTS("list", list, 3), ADCG_ATTR_INT("times", 3)};
  adcg_value y;
  FAILS(adcg_graph_add_op(m.graph, "t.attributes", &m.input, 1, given, 1, &y, 1), ADCG_ERR_ATTRIBUTE, "t.attributes", "times");
  TRY(adcg_graph_add_op(m.graph, "t.attributes", &m.input, 1, given, 2, &y, 1));
  memset(list, 0, sizeof list);
  mini_freeze(&m, y);
  mini_exec(&m, NULL);
  mini_step(&m, mixed(1, 9, 2), 1);
  CHECK(attribute_calls >= 3);
  mini_close(&m);
}

/* ---- Types ------------------------------------------------------------------------------------------------------- */

static adcg_status halve_infer(const adcg_infer_call *call, void *user_data) { /* [tokens, 4] f32 -> [2*tokens + 1, 2] f32, [seqs] i32 */
  *(adcg_type *)user_data = call->inputs[0];
  call->outputs[0] = (adcg_type){ADCG_F32, 2, {{2, 0, 1}, ADCG_DIM(2)}};
  call->outputs[1] = (adcg_type){ADCG_I32, 1, {ADCG_DIM_SEQS}};
  return ADCG_OK;
}
static adcg_status halve_launch(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  int64_t tokens = call->tokens;
  CHECK_INT(call->inputs[0].shape[0], tokens);
  CHECK_INT(call->outputs[0].shape[0], 2 * tokens + 1);
  CHECK_INT(call->outputs[0].shape[1], 2);
  CHECK_INT(call->outputs[1].shape[0], call->seqs);
  memcpy(adcg_data(&call->outputs[0]), adcg_data(&call->inputs[0]), (size_t)tokens * COLUMNS * sizeof(float));
  ((float *)adcg_data(&call->outputs[0]))[2 * tokens * 2] = 42;
  for (int64_t i = 0; i < call->seqs; i++) ((int32_t *)adcg_data(&call->outputs[1]))[i] = (int32_t)(100 + i);
  return ADCG_OK;
}

static void symbolic_shapes(void) {
  mini_open(&m, 64, 4);
  adcg_type seen;
  adcg_op_schema schema = mini_schema("t.halve", ADCG_OP_DYNAMIC, halve_launch);
  schema.infer = halve_infer;
  schema.num_outputs = 2;
  mini_register(&m, &schema, &seen);
  adcg_value out[2];
  TRY(adcg_graph_add_op(m.graph, "t.halve", &m.input, 1, NULL, 0, out, 2));
  CHECK(seen.dtype == ADCG_F32 && seen.ndim == 2 && seen.dims[0].tokens == 1 && seen.dims[0].constant == 0 &&
        seen.dims[1].constant == COLUMNS);
  adcg_value_info info = ADCG_VALUE_INFO_INIT;
  TRY(adcg_graph_get_value_info(m.graph, out[0], &info));
  CHECK(info.role == ADCG_ROLE_ACTIVATION && info.type.ndim == 2 && info.type.dims[0].tokens == 2 && info.type.dims[0].constant == 1);
  TRY(adcg_graph_add_output(m.graph, "halves", out[0]));
  TRY(adcg_graph_add_output(m.graph, "numbers", out[1]));
  TRY(adcg_graph_freeze(m.graph));
  adcg_value found;
  TRY(adcg_graph_find_value(m.graph, "numbers", &found));
  CHECK_INT(found, out[1]);
  mini_exec(&m, NULL);
  float halves[2 * 64 + 1][2];
  int32_t numbers[4] = {0};
  int64_t halves_shape[] = {2 * 64 + 1, 2}, numbers_shape[] = {4};
  DLTensor outputs[] = {{halves, {kDLCPU, 0}, 2, adcg_dtype_to_dlpack(ADCG_F32), halves_shape, NULL, 0},
                        {numbers, {kDLCPU, 0}, 1, adcg_dtype_to_dlpack(ADCG_I32), numbers_shape, NULL, 0}};
  adcg_batch batch = mixed(1, 5, 1);
  mini_bring(&m);
  TRY(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, outputs, 2, NULL, NULL));
  for (int i = 0; i < 6 * COLUMNS; i++) CHECK(halves[i / 2][i % 2] == (float)(i + 1));
  CHECK(numbers[0] == 100 && numbers[1] == 101);
  mini_close(&m);
}

/* ---- Workspace ---------------------------------------------------------------------------------------------------- */

static adcg_status workspace_bytes(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  *out_bytes = (size_t)(call->inputs[0].shape[0] * 40 + 24);
  return ADCG_OK;
}
static adcg_status workspace_launch(const adcg_op_call *call, void *user_data) {
  CHECK(call->workspace != NULL && (uintptr_t)call->workspace % 64 == 0);
  CHECK(call->workspace_bytes >= (size_t)(call->tokens * 40 + 24));
  if (on_cuda()) /* whoever shares this memory must not live now */
    CU(cuMemsetD8Async((uint64_t)(uintptr_t)call->workspace, 0x7F, call->workspace_bytes, call->stream));
  else
    memset(call->workspace, 0x7F, call->workspace_bytes);
  return mini_increment(call, user_data);
}

static void workspace(void) {
  mini_open(&m, 200, 4);
  adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment);
  adcg_op_schema hungry = mini_schema("t.hungry", ADCG_OP_STATIC, workspace_launch);
  hungry.workspace = workspace_bytes;
  hungry.flags = 0; /* not by the launcher alone */
  adcg_op_schema eager = hungry;
  eager.name = "t.hungry_dynamic";
  eager.kind = ADCG_OP_DYNAMIC;
  adcg_value a = mini_add(&m, &plain, NULL, m.input), b = mini_add(&m, &hungry, NULL, a), c = mini_add(&m, &eager, NULL, b), y;
  TRY(adcg_graph_add_op(m.graph, "adcg.add", (adcg_value[]){a, c}, 2, NULL, 0, &y, 1)); /* a lives across both workspaces */
  mini_freeze(&m, y);
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  TRY(adcg_graph_forecast(m.graph, NULL, &forecast));
  CHECK(forecast.workspace_bytes >= 200 * 40 + 24 && forecast.workspace_bytes < 200 * 40 + 24 + 64);
  mini_exec(&m, NULL);
  for (int64_t tokens = 1; tokens <= 200; tokens += 33) {
    adcg_batch batch = mixed(1, tokens, 0);
    TRY(mini_try(&m, batch));
    for (int64_t i = 0; i < tokens * COLUMNS; i++) CHECK(m.y_data[i] == 2 * m.x_data[i] + 4);
  }
  mini_close(&m);
}

/* ---- Aliases ------------------------------------------------------------------------------------------------------- */

static int shared_calls, separate_calls;

/* A launch of a step: on CUDA the capture is, for all that come. */
static bool is_step(const adcg_op_call *call) {
  return call->phase == ADCG_PHASE_REPLAY || (on_cuda() && call->phase == ADCG_PHASE_CAPTURE);
}

static adcg_status note_sharing(const adcg_op_call *call, void *user_data) {
  if (is_step(call)) {
    if (adcg_data(&call->inputs[0]) == adcg_data(&call->outputs[0]))
      shared_calls++;
    else
      separate_calls++;
  }
  return mini_increment(call, user_data);
}

static adcg_op_alias in_place_alias = {0, 0, ADCG_ALIAS_IN_PLACE};

static void in_place(void) {
  mini_open(&m, 64, 4);
  adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment);
  adcg_op_schema schema = mini_schema("t.in_place", ADCG_OP_STATIC, note_sharing);
  schema.flags = 0; /* parametric ones are launched twice in a capture */
  schema.num_aliases = 1;
  schema.aliases = &in_place_alias;
  mini_register(&m, &plain, NULL);
  mini_register(&m, &schema, NULL);
  adcg_value a, b, c, d, y;
  TRY(adcg_graph_add_op(m.graph, "t.plain", &m.input, 1, NULL, 0, &a, 1));
  TRY(adcg_graph_add_op(m.graph, "t.in_place", &a, 1, NULL, 0, &b, 1)); /* nobody reads a afterwards */
  TRY(adcg_graph_add_op(m.graph, "t.in_place", &b, 1, NULL, 0, &c, 1)); /* b is read below */
  TRY(adcg_graph_add_op(m.graph, "t.in_place", &m.input, 1, NULL, 0, &d, 1)); /* x is the caller's */
  TRY(adcg_graph_add_op(m.graph, "adcg.add", (adcg_value[]){b, c}, 2, NULL, 0, &y, 1));
  adcg_value z, out;
  TRY(adcg_graph_add_op(m.graph, "adcg.add", (adcg_value[]){y, d}, 2, NULL, 0, &z, 1));
  TRY(adcg_graph_add_op(m.graph, "t.plain", &z, 1, NULL, 0, &out, 1));
  mini_freeze(&m, out);
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
    options.mode = mode;
    mini_exec(&m, &options);
    shared_calls = separate_calls = 0;
    adcg_batch batch = mixed(1, 9, 0);
    TRY(mini_try(&m, batch));
    CHECK_INT(shared_calls, 1);
    CHECK_INT(separate_calls, 2);
    for (int i = 0; i < 9 * COLUMNS; i++) CHECK(m.y_data[i] == 3 * m.x_data[i] + 7 && m.x_data[i] == (float)(i + 1));
    adcg_exec_destroy(m.exec);
  }
  m.exec = NULL;
  mini_close(&m);
}

static adcg_status flatten_infer(const adcg_infer_call *call, void *user_data) { /* [tokens, 4] -> [4*tokens] */
  (void)user_data;
  call->outputs[0] = (adcg_type){call->inputs[0].dtype, 1, {{call->inputs[0].dims[1].constant, 0, 0}}};
  return ADCG_OK;
}
static adcg_status unflatten_infer(const adcg_infer_call *call, void *user_data) {
  (void)user_data;
  call->outputs[0] = (adcg_type){call->inputs[0].dtype, 2, {{call->inputs[0].dims[0].tokens / COLUMNS, 0, 0}, ADCG_DIM(COLUMNS)}};
  return ADCG_OK;
}

static const void *viewed, *written;
static adcg_status view_writer(const adcg_op_call *call, void *user_data) {
  if (is_step(call)) written = adcg_data(&call->outputs[0]);
  return mini_increment(call, user_data);
}
static adcg_status view_reader(const adcg_op_call *call, void *user_data) {
  if (is_step(call)) viewed = adcg_data(&call->inputs[0]);
  CHECK_INT(call->inputs[0].ndim, 1);
  CHECK_INT(call->inputs[0].shape[0], COLUMNS * call->tokens);
  return mini_increment(call, user_data);
}

static void views(void) { /* they have no launch, take no memory, and keep what they view alive */
  mini_open(&m, 64, 4);
  adcg_op_alias alias = {0, 0, ADCG_ALIAS_VIEW};
  adcg_op_schema writer = mini_schema("t.writer", ADCG_OP_STATIC, view_writer),
                 reader = mini_schema("t.reader", ADCG_OP_STATIC, view_reader);
  adcg_op_schema flatten = mini_schema("t.flatten", ADCG_OP_STATIC, NULL), unflatten = mini_schema("t.unflatten", ADCG_OP_STATIC, NULL);
  flatten.infer = flatten_infer;
  unflatten.infer = unflatten_infer;
  flatten.num_aliases = unflatten.num_aliases = 1;
  flatten.aliases = unflatten.aliases = &alias;
  adcg_value a = mini_add(&m, &writer, NULL, m.input), flat = mini_add(&m, &flatten, NULL, a);
  adcg_value b = mini_add(&m, &reader, NULL, flat), back = mini_add(&m, &unflatten, NULL, b), y;
  TRY(adcg_graph_add_op(m.graph, "adcg.add", (adcg_value[]){a, back}, 2, NULL, 0, &y, 1));
  mini_freeze(&m, y);
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  TRY(adcg_graph_forecast(m.graph, NULL, &forecast));
  CHECK(forecast.lower_bound_bytes <= 3 * 64 * COLUMNS * 4); /* a, b and at most y: the views add nothing */
  mini_exec(&m, NULL);
  adcg_batch batch = mixed(1, 9, 0);
  TRY(mini_try(&m, batch));
  CHECK(written != NULL && viewed == written);
  for (int i = 0; i < 9 * COLUMNS; i++) CHECK(m.y_data[i] == 2 * m.x_data[i] + 3);
  mini_close(&m);
}

static void view_of_an_input_as_output(void) { /* the output is the caller's other buffer: the bytes are copied there */
  mini_open(&m, 64, 4);
  adcg_op_alias alias = {0, 0, ADCG_ALIAS_VIEW};
  adcg_op_schema same = mini_schema("t.same", ADCG_OP_STATIC, NULL);
  same.num_aliases = 1;
  same.aliases = &alias;
  mini_freeze(&m, mini_add(&m, &same, NULL, m.input));
  mini_exec(&m, NULL);
  mini_step(&m, mixed(1, 9, 0), 0);
  mini_close(&m);
}

/* ---- Discovery ----------------------------------------------------------------------------------------------------- */

static int discover_calls;
static adcg_status discovered_launch(const adcg_op_call *call, void *user_data) {
  if (call->phase != ADCG_PHASE_DISCOVER) return halve_launch(call, user_data);
  discover_calls++;
  CHECK(call->inputs[0].data == NULL && call->outputs[0].data == NULL);
  CHECK(call->outputs[0].ndim == 1 && call->outputs[0].shape[0] == 0);
  CHECK_INT(call->inputs[0].shape[0], call->tokens);
  call->outputs[0].ndim = 2;
  call->outputs[0].shape[0] = 2 * call->tokens + 1;
  call->outputs[0].shape[1] = 2;
  call->outputs[0].dtype = call->inputs[0].dtype;
  call->outputs[1].ndim = 1;
  call->outputs[1].shape[0] = call->seqs;
  call->outputs[1].dtype = adcg_dtype_to_dlpack(ADCG_I32);
  return ADCG_OK;
}

static void discovery(void) {
  mini_open(&m, 64, 4);
  adcg_op_schema schema = mini_schema("t.discovered", ADCG_OP_STATIC, discovered_launch);
  schema.infer = NULL;
  schema.num_outputs = 2;
  adcg_op_schema like = mini_schema("t.like_input", ADCG_OP_STATIC, mini_increment); /* says nothing: as its first input */
  like.infer = NULL;
  mini_register(&m, &schema, NULL);
  mini_register(&m, &like, NULL);
  adcg_value out[2], y;
  TRY(adcg_graph_add_op(m.graph, "t.discovered", &m.input, 1, NULL, 0, out, 2));
  TRY(adcg_graph_add_op(m.graph, "t.like_input", &out[0], 1, NULL, 0, &y, 1));
  adcg_value_info info = ADCG_VALUE_INFO_INIT;
  TRY(adcg_graph_get_value_info(m.graph, y, &info));
  CHECK_INT(info.type.ndim, 0); /* not known before freeze */
  TRY(adcg_graph_add_output(m.graph, "numbers", out[1]));
  mini_freeze(&m, y);
  CHECK(discover_calls >= 3); /* two counts for the slope, one that must agree */
  TRY(adcg_graph_get_value_info(m.graph, y, &info));
  CHECK(info.type.dtype == ADCG_F32 && info.type.ndim == 2 && info.type.dims[0].tokens == 2 && info.type.dims[0].seqs == 0);
  CHECK(info.type.dims[0].constant == 1 && info.type.dims[1].constant == 2);
  TRY(adcg_graph_get_value_info(m.graph, out[1], &info));
  CHECK(info.type.dtype == ADCG_I32 && info.type.ndim == 1 && info.type.dims[0].seqs == 1 && info.type.dims[0].tokens == 0);
  mini_close(&m);
}

/* ---- Padding, phases, counts ---------------------------------------------------------------------------------------- */

typedef struct observation {
  int warmups, captures, replays;
  int64_t tokens, seqs, real;      /* of the last replay */
  int64_t nonzero_tail, zero_rows; /* elements and rows of its first input */
} observation;

static adcg_status observe(const adcg_op_call *call, void *user_data) {
  observation *o = user_data;
  CHECK(call->batch != NULL);
  if (call->phase == ADCG_PHASE_WARMUP) {
    o->warmups++;
    CHECK_INT(adcg_batch_tokens(call->batch), 0);
  }
  if (call->phase == ADCG_PHASE_CAPTURE) o->captures++;
  if (call->phase == ADCG_PHASE_REPLAY) {
    o->replays++;
    o->tokens = call->tokens;
    o->seqs = call->seqs;
    o->real = adcg_batch_tokens(call->batch);
    o->nonzero_tail = 0;
    const float *in = adcg_data(&call->inputs[0]);
    for (int64_t i = o->real * COLUMNS; i < adcg_numel(&call->inputs[0]); i++) o->nonzero_tail += in[i] != 0;
  }
  return mini_increment(call, NULL);
}

/* A dynamic op that fills its whole output, tail and all, and may promise to have zeroed the tail. */
static adcg_status fill_all(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  for (int64_t i = 0; i < adcg_numel(&call->outputs[0]); i++) ((float *)adcg_data(&call->outputs[0]))[i] = 7;
  return ADCG_OK;
}

static void padding(void) {
  for (int own = 0; own < 2; own++) { /* engine's zeroes; then the op's promise, which it breaks */
    observation o = {0}, first = {0};
    mini_open(&m, 64, 4);
    adcg_op_schema before = mini_schema("t.before", ADCG_OP_STATIC, observe), after = mini_schema("t.after", ADCG_OP_STATIC, observe);
    adcg_op_schema fill = mini_schema("t.fill", ADCG_OP_DYNAMIC, fill_all);
    fill.flags = own ? ADCG_OP_ZEROES_TAIL : 0;
    adcg_value a = mini_add(&m, &before, &first, m.input), b = mini_add(&m, &fill, NULL, a);
    mini_freeze(&m, mini_add(&m, &after, &o, b));
    mini_exec(&m, NULL);
    adcg_batch batch = mixed(1, 9, 2);
    TRY(mini_try(&m, batch));
    CHECK(m.step.mode == ADCG_MODE_PIECEWISE && m.step.bucket_tokens == 64 && m.step.padded_tokens == 53);
    CHECK(o.tokens == 64 && o.real == 11 && first.real == 11 && first.tokens == 64);
    CHECK_INT(first.nonzero_tail, 0); /* the input's rows behind the real ones are zeroed */
    CHECK_INT(o.nonzero_tail, own ? 53 * COLUMNS : 0);
    CHECK(o.warmups == 1 && o.replays == 1);
    for (int i = 0; i < 11 * COLUMNS; i++) CHECK(m.y_data[i] == 8);
    TRY(mini_try(&m, batch));
    CHECK(o.warmups == 1 && o.replays == 2); /* captured once */
    adcg_exec_destroy(m.exec);

    adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT; /* eager: no padding */
    options.mode = ADCG_MODE_NONE;
    mini_exec(&m, &options);
    TRY(mini_try(&m, batch));
    CHECK(m.step.mode == ADCG_MODE_NONE && o.tokens == 11 && o.nonzero_tail == 0);
    mini_close(&m);
  }
}

static void order_of_ops(void) { /* the same in every mode: as they were added */
  static observation o[6];
  mini_open(&m, 64, 4);
  static const char *names[] = {"t.0", "t.1", "t.2", "t.3", "t.4", "t.5"};
  adcg_value v = m.input;
  for (int i = 0; i < 6; i++) {
    adcg_op_schema schema = mini_schema(names[i], i % 3 == 2 ? ADCG_OP_DYNAMIC : ADCG_OP_STATIC, observe);
    schema.capture = ADCG_CAPTURE_UNIFORM_DECODE;
    v = mini_add(&m, &schema, &o[i], v);
  }
  mini_freeze(&m, v);
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
    adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
    options.mode = mode;
    mini_exec(&m, &options);
    mini_step(&m, mixed(1, 9, 2), 6); /* x + 6 comes out of no other set of ops */
    mini_step(&m, mixed(0, 0, 3), 6);
    adcg_exec_destroy(m.exec);
  }
  m.exec = NULL;
  for (int i = 0; i < 6; i++) CHECK_INT(o[i].replays, 2 * (ADCG_MODE_FULL_AND_PIECEWISE + 1));
  mini_close(&m);
}

/* ---- Log, introspection ---------------------------------------------------------------------------------------------- */

static char logged[4096];
static int32_t least_severe;
static void append_log(int32_t level, const char *message, void *user_data) {
  CHECK(user_data == logged);
  if (level > least_severe) least_severe = level;
  strncat(logged, message, sizeof logged - strlen(logged) - 2);
  strcat(logged, "\n");
}

static void demoted_op(void) { /* a static op that synchronises with the host becomes dynamic, and the log says so */
  static const uint32_t flags[] = {0, ADCG_OP_HOST_SYNC, ADCG_OP_STREAM_SWITCH};
  for (int i = 0; i < 3; i++) {
    logged[0] = 0;
    TRY(adcg_set_log(append_log, ADCG_LOG_INFO, logged));
    mini_open(&m, 64, 4);
    adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment),
                   flagged = mini_schema("t.flagged", ADCG_OP_STATIC, mini_increment);
    flagged.flags = flags[i];
    adcg_value v = mini_add(&m, &plain, NULL, m.input);
    v = mini_add(&m, &flagged, NULL, v);
    TRY(adcg_graph_add_op(m.graph, "t.plain", &v, 1, NULL, 0, &v, 1));
    mini_freeze(&m, v);
    adcg_forecast forecast = ADCG_FORECAST_INIT;
    TRY(adcg_graph_forecast(m.graph, NULL, &forecast));
    CHECK_INT(forecast.num_dynamic_ops, i > 0);
    mini_exec(&m, NULL);
    CHECK_INT(strstr(logged, "t.flagged") != NULL, i > 0);
    CHECK(least_severe <= ADCG_LOG_INFO);
    TRY(adcg_set_log(NULL, ADCG_LOG_ERROR, NULL));
    logged[0] = 0;
    mini_step(&m, mixed(1, 9, 0), 3);
    mini_close(&m);
    CHECK(logged[0] == 0);
  }
}

static void introspection(void) {
  static const struct {
    const char *name;
    int32_t kind, inputs, optional, outputs;
    uint64_t mutates;
  } known[] = {{"adcg.embedding", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.linear", ADCG_OP_STATIC, 3, 1, 1, 0},
               {"adcg.rms_norm", ADCG_OP_STATIC, 3, 1, 1, 0},
               {"adcg.add", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.silu_mul", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.rope", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.attention", ADCG_OP_DYNAMIC, 9, 1, 1, 0x18},
               {"adcg.attention_metadata", ADCG_OP_METADATA, 2, 0, 2, 0},
               {"adcg.paged_attention", ADCG_OP_DYNAMIC, 11, 1, 1, 0x18},
               {"adcg.mla_attention", ADCG_OP_DYNAMIC, 9, 0, 1, 0x20},
               {"adcg.paged_mla_attention", ADCG_OP_DYNAMIC, 11, 0, 1, 0x20},
               {"adcg.paged_metadata", ADCG_OP_METADATA, 2, 0, 1, 0},
               {"adcg.gather_tokens", ADCG_OP_DYNAMIC, 2, 0, 1, 0},
               {"adcg.argmax", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.reshape", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.slice", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.concat", ADCG_OP_STATIC, 64, 62, 1, 0},
               {"adcg.moe_router", ADCG_OP_STATIC, 2, 1, 2, 0},
               {"adcg.moe", ADCG_OP_STATIC, 5, 0, 1, 0},
               {"adcg.layer_norm", ADCG_OP_STATIC, 3, 1, 1, 0},
               {"adcg.add_rms_norm", ADCG_OP_STATIC, 3, 0, 2, 0},
               {"adcg.qk_norm", ADCG_OP_STATIC, 4, 0, 2, 0},
               {"adcg.mul", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.gelu_mul", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.sigmoid_mul", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.silu", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.relu2", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.sigmoid", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.cast", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.softmax", ADCG_OP_STATIC, 1, 0, 1, 0},
               {"adcg.sample", ADCG_OP_STATIC, 2, 0, 1, 0},
               {"adcg.causal_conv1d", ADCG_OP_DYNAMIC, 7, 1, 1, 0x4},
               {"adcg.ssm", ADCG_OP_DYNAMIC, 14, 3, 1, 0x80},
               {"adcg.ssm_metadata", ADCG_OP_METADATA, 1, 0, 3, 0},
               {"adcg.delta_rule", ADCG_OP_DYNAMIC, 8, 0, 1, 0x10},
               {"adcg.gated_delta_rule", ADCG_OP_DYNAMIC, 9, 0, 1, 0x20},
               {"adcg.gdn_gating", ADCG_OP_STATIC, 4, 0, 2, 0},
               {"t.mine", ADCG_OP_STATIC, 1, 0, 1, 0}};
  enum { KNOWN = sizeof known / sizeof *known };
  int seen[KNOWN] = {0};
  mini_open(&m, 64, 4);
  adcg_op_schema mine = mini_schema("t.mine", ADCG_OP_STATIC, mini_increment);
  mine.doc = "adds one";
  mini_register(&m, &mine, NULL);
  adcg_op_info info = ADCG_OP_INFO_INIT;
  for (int32_t i = 0; adcg_engine_get_op_info(m.engine, i, &info) == ADCG_OK; i++) {
    CHECK(info.doc != NULL);
    for (int k = 0; k < KNOWN; k++) {
      if (strcmp(known[k].name, info.name) != 0) continue;
      CHECK(!seen[k]);
      seen[k] = 1;
      CHECK_INT(info.kind, known[k].kind);
      CHECK_INT(info.num_inputs, known[k].inputs);
      CHECK_INT(info.num_optional_inputs, known[k].optional);
      CHECK_INT(info.num_outputs, known[k].outputs);
      CHECK_INT(info.mutates, known[k].mutates);
    }
    if (strcmp(info.name, "t.mine") == 0) CHECK(strcmp(info.doc, "adds one") == 0);
    if (strcmp(info.name, "adcg.rms_norm") == 0)
      CHECK(info.num_attrs == 4 && strcmp(info.attrs[0].default_value.name, "eps") == 0 && info.attrs[0].default_value.f == 1e-5);
  }
  for (int k = 0; k < KNOWN; k++) CHECK(seen[k]);
  adcg_device_info device = ADCG_DEVICE_INFO_INIT;
  TRY(adcg_engine_get_device_info(m.engine, &device));
  CHECK(strcmp(device.name, "host") == 0 && device.device_type == kDLCPU && device.threads >= 1 && device.memory_bytes > 1 << 20);
  adcg_engine *one;
  adcg_engine_options options = {sizeof options, 1};
  TRY(adcg_engine_create("host", &options, &one));
  TRY(adcg_engine_get_device_info(one, &device));
  CHECK_INT(device.threads, 1);
  adcg_engine_destroy(one);
  CHECK_INT(adcg_version(), ADCG_VERSION);
  adcg_exec_destroy(m.exec);
  adcg_graph_destroy(m.graph);
  adcg_engine_destroy(m.engine);
}

static const harness_case cases[] = {
    {"attributes", attributes},
    {"symbolic_shapes", symbolic_shapes},
    {"workspace", workspace},
    {"in_place", in_place},
    {"views", views},
    {"view_of_an_input_as_output", view_of_an_input_as_output},
    {"discovery", discovery},
    {"padding", padding},
    {"order_of_ops", order_of_ops},
    {"demoted_op", demoted_op},
    {"introspection", introspection},
};
HARNESS_MAIN(cases)
