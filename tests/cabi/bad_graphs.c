/* The bad input table, ops and graphs. Each case gives the library something wrong, checks the exact status and that the message
 * names function and value, and then that the handle still works (world_good replays a step and checks its numbers). */
#include "bad.h"

static adcg_graph *made_graph; /* where a call that must fail would put it */

/* ---- Registering ops ------------------------------------------------------------------------------------------- */

static void schema_contradictions(void) {
  world_open(&w);
  adcg_op_schema s;
#define REFUSED(...)                                                                    \
  do {                                                                                  \
    FAILS(adcg_engine_register_op(w.engine, &s, NULL), ADCG_ERR_ARGUMENT, __VA_ARGS__); \
    s = copy_schema("t.bad");                                                           \
  } while (0)
  s = copy_schema("");
  REFUSED("name");
  s.kind = 9;
  REFUSED("t.bad", "kind", "9");
  s.kind = ADCG_OP_DYNAMIC, s.capture = 7;
  REFUSED("t.bad", "capture", "7");
  s.flags = 1u << 30;
  REFUSED("t.bad", "flags", "40000000");
  s.num_inputs = -1;
  REFUSED("num_inputs", "-1");
  s.num_inputs = 1 << 20;
  REFUSED("num_inputs", "1048576");
  s.num_outputs = -2;
  REFUSED("num_outputs", "-2");
  s.num_outputs = 0;
  REFUSED("t.bad", "num_outputs", "0");
  s.num_optional_inputs = 2;
  REFUSED("num_optional_inputs", "2");
  s.num_aliases = -1;
  REFUSED("num_aliases", "-1");
  s.num_attrs = -1;
  REFUSED("num_attrs", "-1");
  s.kind = ADCG_OP_DYNAMIC, s.mutates = 1u << 5;
  REFUSED("t.bad", "mutates", "5");
  adcg_op_alias alias = {3, 0, ADCG_ALIAS_VIEW};
  s.aliases = &alias, s.num_aliases = 1;
  REFUSED("t.bad", "output 3");
  alias = (adcg_op_alias){0, 4, ADCG_ALIAS_IN_PLACE};
  s.aliases = &alias, s.num_aliases = 1;
  REFUSED("t.bad", "input 4");
  alias = (adcg_op_alias){0, 0, 5};
  s.aliases = &alias, s.num_aliases = 1;
  REFUSED("t.bad", "kind 5");
  adcg_attr_spec attrs[] = {{ADCG_ATTR_INT("a", 1), 0, NULL}, {ADCG_ATTR_FLOAT("a", 1), 0, NULL}};
  s.attrs = attrs, s.num_attrs = 2;
  REFUSED("t.bad", "`a`");
  attrs[0].default_value.type = 12;
  s.attrs = attrs, s.num_attrs = 1;
  REFUSED("t.bad", "`a`", "12");
#undef REFUSED
  STILL_GOOD();
}

static void registered_twice(void) {
  world_open(&w);
  adcg_op_schema schema = world_double_schema();
  FAILS(adcg_engine_register_op(w.engine, &schema, &w), ADCG_ERR_STATE, "t.double");
  STILL_GOOD();
}

static void reserved_prefix(void) {
  world_open(&w);
  adcg_op_schema schema = copy_schema("adcg.copy");
  FAILS(adcg_engine_register_op(w.engine, &schema, NULL), ADCG_ERR_ARGUMENT, "adcg.copy", "adcg.");
  schema = copy_schema("adcg.linear");
  FAILS(adcg_engine_register_op(w.engine, &schema, NULL), ADCG_ERR_ARGUMENT, "adcg.linear");
  STILL_GOOD();
}

/* ---- Engines and graphs ---------------------------------------------------------------------------------------- */

static void devices(void) {
  world_open(&w);
  adcg_engine *engine = (adcg_engine *)&w;
  FAILS(adcg_engine_create("tpu", NULL, &engine), ADCG_ERR_DEVICE, "tpu");
  CHECK(engine == NULL);
  FAILS(adcg_engine_create("", NULL, &engine), ADCG_ERR_DEVICE, "device");
  FAILS(adcg_engine_create("hosts", NULL, &engine), ADCG_ERR_DEVICE, "hosts");
  FAILS(adcg_engine_create("cuda:", NULL, &engine), ADCG_ERR_DEVICE, "cuda:");
  FAILS(adcg_engine_create("cuda:-1", NULL, &engine), ADCG_ERR_DEVICE, "cuda:-1");
  adcg_engine_options options = ADCG_ENGINE_OPTIONS_INIT;
  options.host_threads = -3;
  FAILS(adcg_engine_create("host", &options, &engine), ADCG_ERR_ARGUMENT, "host_threads", "-3");
  STILL_GOOD();
}

/* Also where something else has the driver's name: test_cabi.py puts it there. */
static void no_driver(void) {
  world_open(&w);
  void *library = dlopen("libcuda.so.1", RTLD_NOW), *known = library ? dlsym(library, "cuInit") : NULL;
  if (known) SKIP("there is a driver here");
  adcg_engine *engine = (adcg_engine *)&w;
  for (int i = 0; i < 2; i++) { /* the second time is as the first */
    FAILS(adcg_engine_create("cuda:0", NULL, &engine), library ? ADCG_ERR_UNSUPPORTED : ADCG_ERR_DEVICE, "cuda:0", "libcuda.so.1");
    CHECK(engine == NULL);
  }
  STILL_GOOD();
}

static void limits_out_of_range(void) {
  world_open(&w);
  const int64_t bad[] = {0, -1, (int64_t)1 << 31, INT64_MAX};
  const char *said[] = {"0", "-1", "2147483648", "9223372036854775807"};
  for (int i = 0; i < 4; i++) {
    adcg_graph_limits limits = {sizeof limits, bad[i], 4, 4};
    FAILS(adcg_graph_create(w.engine, &limits, &made_graph), ADCG_ERR_BATCH, "max_tokens", said[i]);
    CHECK(made_graph == NULL);
    limits = (adcg_graph_limits){sizeof limits, 4, bad[i], 4};
    FAILS(adcg_graph_create(w.engine, &limits, &made_graph), ADCG_ERR_BATCH, "max_seqs", said[i]);
    if (bad[i] == 0) continue;
    limits = (adcg_graph_limits){sizeof limits, 4, 4, bad[i]};
    FAILS(adcg_graph_create(w.engine, &limits, &made_graph), ADCG_ERR_BATCH, "max_seq_len", said[i]);
  }
  STILL_GOOD();
}

static void values_of_wrong_type(void) {
  world_build(&w);
  adcg_value v;
  adcg_dim dims[9] = {ADCG_DIM_TOKENS, ADCG_DIM(4), ADCG_DIM(4), ADCG_DIM(4), ADCG_DIM(4),
                      ADCG_DIM(4),     ADCG_DIM(4), ADCG_DIM(4), ADCG_DIM(4)};
  FAILS(adcg_graph_add_input(w.graph, "n", 0, 1, dims, &v), ADCG_ERR_DTYPE, "`n`", "0");
  FAILS(adcg_graph_add_input(w.graph, "n", 99, 1, dims, &v), ADCG_ERR_DTYPE, "`n`", "99");
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, 0, dims, &v), ADCG_ERR_SHAPE, "`n`", "0 dims");
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, -1, dims, &v), ADCG_ERR_ARGUMENT, "ndim", "-1");
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, 9, dims, &v), ADCG_ERR_SHAPE, "9");
  adcg_dim second[] = {ADCG_DIM(4), ADCG_DIM_TOKENS};
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, 2, second, &v), ADCG_ERR_SHAPE, "`n`", "dim 1");
  adcg_dim negative[] = {{-1, 0, 4}};
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, 1, negative, &v), ADCG_ERR_SHAPE, "`n`", "dim 0");
  adcg_dim zero[] = {ADCG_DIM_TOKENS, ADCG_DIM(0)};
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, 2, zero, &v), ADCG_ERR_SHAPE, "`n`", "dim 1", "0");
  adcg_dim huge[] = {ADCG_DIM_TOKENS, ADCG_DIM(INT64_MAX)};
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, 2, huge, &v), ADCG_ERR_SHAPE, "`n`");
  FAILS(adcg_graph_add_weight(w.graph, "n", ADCG_F32, 2, dims, &v), ADCG_ERR_SHAPE, "`n`", "tokens");
  FAILS(adcg_graph_add_state(w.graph, "n", ADCG_F32, 2, dims, &v), ADCG_ERR_SHAPE, "`n`", "tokens");
  finish();
}

static void names_taken_or_empty(void) {
  world_build(&w);
  adcg_dim dims[] = {ADCG_DIM(4)};
  adcg_value v;
  FAILS(adcg_graph_add_input(w.graph, "", ADCG_F32, 1, dims, &v), ADCG_ERR_GRAPH, "empty");
  FAILS(adcg_graph_add_input(w.graph, "w", ADCG_F32, 1, dims, &v), ADCG_ERR_GRAPH, "`w`");
  FAILS(adcg_graph_add_weight(w.graph, "total", ADCG_F32, 1, dims, &v), ADCG_ERR_GRAPH, "`total`");
  FAILS(adcg_graph_add_state(w.graph, "x", ADCG_F32, 1, dims, &v), ADCG_ERR_GRAPH, "`x`");
  FAILS(adcg_graph_add_output(w.graph, "", w.y), ADCG_ERR_GRAPH, "empty");
  FAILS(adcg_graph_add_output(w.graph, "last", w.y), ADCG_ERR_GRAPH, "`last`");
  finish();
}

static void unknown_op(void) {
  world_build(&w);
  adcg_value v = 5;
  FAILS(adcg_graph_add_op(w.graph, "adcg.linaer", (adcg_value[]){w.x, w.w}, 2, NULL, 0, &v, 1), ADCG_ERR_NOT_FOUND, "adcg.linaer");
  CHECK_INT(v, 0);
  FAILS(adcg_graph_add_op(w.graph, "linear", (adcg_value[]){w.x, w.w}, 2, NULL, 0, &v, 1), ADCG_ERR_NOT_FOUND, "linear");
  FAILS(adcg_graph_add_op(w.graph, "", (adcg_value[]){w.x, w.w}, 2, NULL, 0, &v, 1), ADCG_ERR_NOT_FOUND, "op");
  finish();
}

static void arity(void) {
  world_build(&w);
  adcg_value v[2], many[] = {w.x, w.w, w.w, w.w};
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", many, 1, NULL, 0, v, 1), ADCG_ERR_GRAPH, "adcg.linear", "1 input");
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", many, 4, NULL, 0, v, 1), ADCG_ERR_GRAPH, "adcg.linear", "4 input");
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", many, 2, NULL, 0, v, 2), ADCG_ERR_GRAPH, "adcg.linear", "2");
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", many, 2, NULL, 0, v, 0), ADCG_ERR_GRAPH, "adcg.linear", "0");
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", many, -1, NULL, 0, v, 1), ADCG_ERR_ARGUMENT, "num_inputs", "-1");
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", many, 2, NULL, -1, v, 1), ADCG_ERR_ARGUMENT, "num_attrs", "-1");
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", many, 2, NULL, 0, v, -1), ADCG_ERR_ARGUMENT, "num_outputs", "-1");
  finish();
}

static void attributes(void) {
  world_build(&w);
  adcg_dim row[] = {ADCG_DIM(WIDTH)};
  adcg_value v, norm;
  TRY(adcg_graph_add_weight(w.graph, "norm", ADCG_F32, 1, row, &norm));
  adcg_value in[] = {w.x, norm};
  adcg_attr unknown = ADCG_ATTR_FLOAT("epsilon", 1e-6), wrong = ADCG_ATTR_STRING("eps", "1e-6");
  FAILS(adcg_graph_add_op(w.graph, "adcg.rms_norm", in, 2, &unknown, 1, &v, 1), ADCG_ERR_ATTRIBUTE, "adcg.rms_norm", "epsilon");
  FAILS(adcg_graph_add_op(w.graph, "adcg.rms_norm", in, 2, &wrong, 1, &v, 1), ADCG_ERR_ATTRIBUTE, "adcg.rms_norm", "eps", "string");
  adcg_attr ints = ADCG_ATTR_INTS("eps", &(int64_t){1}, 1), real = ADCG_ATTR_FLOAT("rotary_dim", 8);
  FAILS(adcg_graph_add_op(w.graph, "adcg.rms_norm", in, 2, &ints, 1, &v, 1), ADCG_ERR_ATTRIBUTE, "adcg.rms_norm", "eps", "ints", "float");
  FAILS(adcg_graph_add_op(w.graph, "adcg.rope", in, 2, &real, 1, &v, 1), ADCG_ERR_ATTRIBUTE, "adcg.rope", "rotary_dim", "float", "int");
  adcg_attr layout = ADCG_ATTR_STRING("scaling", "dynamic");
  adcg_dim heads[] = {ADCG_DIM_TOKENS, ADCG_DIM(2), ADCG_DIM(WIDTH)}, tokens[] = {ADCG_DIM_TOKENS};
  adcg_value q, positions;
  TRY(adcg_graph_add_input(w.graph, "q", ADCG_F32, 3, heads, &q));
  TRY(adcg_graph_add_input(w.graph, "positions", ADCG_I32, 1, tokens, &positions));
  FAILS(adcg_graph_add_op(w.graph, "adcg.rope", (adcg_value[]){q, positions}, 2, &layout, 1, &v, 1), ADCG_ERR_ATTRIBUTE, "adcg.rope",
        "scaling", "dynamic");
  TRY(adcg_graph_add_op(w.graph, "adcg.rope", (adcg_value[]){q, positions}, 2, NULL, 0, &v, 1));
  TRY(adcg_graph_add_output(w.graph, "rotated", v));
  adcg_attr twice[] = {ADCG_ATTR_FLOAT("eps", 1e-6), ADCG_ATTR_FLOAT("eps", 1e-5)};
  FAILS(adcg_graph_add_op(w.graph, "adcg.rms_norm", in, 2, twice, 2, &v, 1), ADCG_ERR_ATTRIBUTE, "adcg.rms_norm", "eps");
  adcg_attr typeless = ADCG_ATTR_FLOAT("eps", 1e-6);
  typeless.type = 42;
  FAILS(adcg_graph_add_op(w.graph, "adcg.rms_norm", in, 2, &typeless, 1, &v, 1), ADCG_ERR_ATTRIBUTE, "eps", "42");
  FAILS(adcg_graph_add_op(w.graph, "adcg.reshape", &w.x, 1, NULL, 0, &v, 1), ADCG_ERR_ATTRIBUTE, "adcg.reshape", "dims");
  int64_t dims[] = {3, 3};
  adcg_attr misfit = ADCG_ATTR_INTS("dims", dims, 2);
  FAILS(adcg_graph_add_op(w.graph, "adcg.reshape", &w.x, 1, &misfit, 1, &v, 1), ADCG_ERR_SHAPE, "adcg.reshape");
  misfit.count = -1;
  FAILS(adcg_graph_add_op(w.graph, "adcg.reshape", &w.x, 1, &misfit, 1, &v, 1), ADCG_ERR_ARGUMENT, "dims", "-1");
  adcg_attr eps = ADCG_ATTR_INT("eps", 1); /* an integer will do for a float */
  TRY(adcg_graph_add_op(w.graph, "adcg.rms_norm", in, 2, &eps, 1, &v, 1));
  TRY(adcg_graph_add_output(w.graph, "normed", v));
  TRY(adcg_graph_freeze(w.graph));
  world_close(&w);
}

static void op_shapes_and_dtypes(void) {
  world_build(&w);
  adcg_value v;
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", (adcg_value[]){w.x, w.total}, 2, NULL, 0, &v, 1), ADCG_ERR_SHAPE, "adcg.linear");
  FAILS(adcg_graph_add_op(w.graph, "adcg.add", (adcg_value[]){w.x, w.last}, 2, NULL, 0, &v, 1), ADCG_ERR_SHAPE, "adcg.add");
  FAILS(adcg_graph_add_op(w.graph, "adcg.linear", (adcg_value[]){w.pick, w.w}, 2, NULL, 0, &v, 1), ADCG_ERR_DTYPE, "adcg.linear", "int32");
  FAILS(adcg_graph_add_op(w.graph, "adcg.gather_tokens", (adcg_value[]){w.y, w.x}, 2, NULL, 0, &v, 1), ADCG_ERR_DTYPE, "adcg.gather_tokens",
        "float32");
  finish();
}

static void dangling_and_cyclic(void) {
  world_build(&w);
  adcg_value v, next = w.last + 1; /* what the op itself would give */
  char said[16];
  snprintf(said, sizeof said, "%d", next);
  FAILS(adcg_graph_add_op(w.graph, "adcg.add", (adcg_value[]){w.x, next}, 2, NULL, 0, &v, 1), ADCG_ERR_GRAPH, "adcg.add", said);
  FAILS(adcg_graph_add_op(w.graph, "adcg.add", (adcg_value[]){-1, w.x}, 2, NULL, 0, &v, 1), ADCG_ERR_GRAPH, "adcg.add", "-1");
  FAILS(adcg_graph_add_output(w.graph, "n", next), ADCG_ERR_GRAPH, "`n`", said);
  adcg_graph_limits limits = {sizeof limits, 4, 4, 0};
  adcg_graph *other;
  TRY(adcg_graph_create(w.engine, &limits, &other)); /* it has no values: those of w are not its own */
  FAILS(adcg_graph_add_op(other, "adcg.add", (adcg_value[]){w.x, w.x}, 2, NULL, 0, &v, 1), ADCG_ERR_GRAPH, "adcg.add");
  FAILS(adcg_graph_add_output(other, "n", w.x), ADCG_ERR_GRAPH, "`n`");
  FAILS(adcg_graph_freeze(other), ADCG_ERR_GRAPH, "outputs");
  adcg_graph_destroy(other);
  finish();
}

static void unused_values(void) {
  world_build(&w);
  adcg_dim dims[] = {ADCG_DIM_TOKENS};
  adcg_value extra, unused;
  TRY(adcg_graph_add_input(w.graph, "extra", ADCG_F32, 1, dims, &extra));
  FAILS(adcg_graph_freeze(w.graph), ADCG_ERR_GRAPH, "extra");
  TRY(adcg_graph_add_op(w.graph, "adcg.add", (adcg_value[]){extra, extra}, 2, NULL, 0, &unused, 1)); /* still open */
  FAILS(adcg_graph_freeze(w.graph), ADCG_ERR_GRAPH, "adcg.add");
  TRY(adcg_graph_add_output(w.graph, "sum", unused));
  TRY(adcg_graph_freeze(w.graph));
  world_close(&w);
}

static void undeclared_mutation(void) {
  world_build(&w);
  adcg_value v;
  FAILS(adcg_graph_add_op(w.graph, "t.double", (adcg_value[]){w.h, w.w}, 2, NULL, 0, &v, 1), ADCG_ERR_GRAPH, "t.double", "`w`", "weight");
  FAILS(adcg_graph_add_op(w.graph, "t.double", (adcg_value[]){w.h, w.x}, 2, NULL, 0, &v, 1), ADCG_ERR_GRAPH, "t.double", "`x`", "input");
  finish();
}

static adcg_status write_the_weight(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  copy_launch(call, NULL);
  if (call->phase == ADCG_PHASE_REPLAY) ((float *)adcg_data(&call->inputs[1]))[3] += 1;
  return ADCG_OK;
}

static void undeclared_mutation_at_run_time(void) { /* found by verify mode, in steps of every size */
  world_build(&w);
  adcg_op_schema schema = copy_schema("t.sneaky");
  schema.num_inputs = 2;
  schema.kind = ADCG_OP_DYNAMIC;
  schema.launch = write_the_weight;
  TRY(adcg_engine_register_op(w.engine, &schema, NULL));
  adcg_value v;
  TRY(adcg_graph_add_op(w.graph, "t.sneaky", (adcg_value[]){w.x, w.w}, 2, NULL, 0, &v, 1));
  TRY(adcg_graph_add_output(w.graph, "sneaky", v));
  TRY(adcg_graph_freeze(w.graph));
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  options.verify = 1;
  world_exec(&w, &options);
  float sneaky[MAX_TOKENS * WIDTH];
  DLTensor outputs[] = {w.outputs[0], w.outputs[1], tensor_of(sneaky, ADCG_F32, 2, w.x_shape)};
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, outputs, 3, NULL, NULL), ADCG_ERR_OP, "t.sneaky", "`w`");
  world_close(&w);
}

/* ---- Order of calls -------------------------------------------------------------------------------------------- */

static void before_freeze(void) {
  world_build(&w);
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  FAILS(adcg_graph_forecast(w.graph, NULL, &forecast), ADCG_ERR_STATE, "frozen");
  CHECK_INT(forecast.total_bytes, 0);
  FAILS(adcg_graph_write_plan(w.graph, NULL, ADCG_PLAN_JSON, write_nothing, NULL), ADCG_ERR_STATE, "frozen");
  FAILS(adcg_exec_create(w.graph, NULL, &made_exec), ADCG_ERR_STATE, "frozen");
  CHECK(made_exec == NULL);
  finish();
}

static void after_freeze(void) {
  world_open(&w);
  adcg_dim dims[] = {ADCG_DIM(4)};
  adcg_value v;
  FAILS(adcg_graph_freeze(w.graph), ADCG_ERR_STATE, "frozen");
  FAILS(adcg_graph_add_input(w.graph, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_STATE, "frozen");
  FAILS(adcg_graph_add_weight(w.graph, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_STATE, "frozen");
  FAILS(adcg_graph_add_state(w.graph, "n", ADCG_F32, 1, dims, &v), ADCG_ERR_STATE, "frozen");
  FAILS(adcg_graph_add_op(w.graph, "adcg.add", (adcg_value[]){w.x, w.x}, 2, NULL, 0, &v, 1), ADCG_ERR_STATE, "frozen");
  FAILS(adcg_graph_add_output(w.graph, "n", w.x), ADCG_ERR_STATE, "frozen");
  STILL_GOOD();
}

static void replay_before_capture(void) {
  world_build(&w);
  TRY(adcg_graph_freeze(w.graph));
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  options.capture = ADCG_CAPTURE_EXPLICIT;
  world_exec(&w, &options);
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_STATE, "capture");
  TRY(adcg_exec_capture(w.exec, NULL, 0, NULL, NULL));
  world_good(&w);
  CHECK_INT(w.step.mode, ADCG_MODE_PIECEWISE);
  world_close(&w);
}

static void before_bind(void) {
  world_build(&w);
  TRY(adcg_graph_freeze(w.graph));
  TRY(adcg_exec_create(w.graph, NULL, &w.exec));
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_STATE, "`w`");
  TRY(adcg_exec_bind(w.exec, w.w, &w.w_tensor));
  FAILS(adcg_exec_capture(w.exec, NULL, 0, NULL, NULL), ADCG_ERR_STATE, "`total`");
  FAILS(adcg_exec_replay(w.exec, &w.batch, w.inputs, 2, w.outputs, 2, NULL, &w.step), ADCG_ERR_STATE, "`total`");
  TRY(adcg_exec_bind(w.exec, w.total, &w.total_tensor));
  STILL_GOOD();
}

static const harness_case cases[] = {
    {"schema_contradictions", schema_contradictions},
    {"registered_twice", registered_twice},
    {"reserved_prefix", reserved_prefix},
    {"devices", devices},
    {"no_driver", no_driver},
    {"limits_out_of_range", limits_out_of_range},
    {"values_of_wrong_type", values_of_wrong_type},
    {"names_taken_or_empty", names_taken_or_empty},
    {"unknown_op", unknown_op},
    {"arity", arity},
    {"attributes", attributes},
    {"op_shapes_and_dtypes", op_shapes_and_dtypes},
    {"dangling_and_cyclic", dangling_and_cyclic},
    {"unused_values", unused_values},
    {"undeclared_mutation", undeclared_mutation},
    {"undeclared_mutation_at_run_time", undeclared_mutation_at_run_time},
    {"before_freeze", before_freeze},
    {"after_freeze", after_freeze},
    {"replay_before_capture", replay_before_capture},
    {"before_bind", before_bind},
};
HARNESS_MAIN(cases)
