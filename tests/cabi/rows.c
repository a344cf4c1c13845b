/* Rows, on any device: what lies behind the real ones, the order of what only a state orders, and bits that depend on the row alone. */
#include "chain.h"

/* ---- Tails ------------------------------------------------------------------------------------------------------- */

/* What ops see behind the real rows, on any device: x + 1 by a static op, sevens by a dynamic one, and behind each of them one that keeps
 * its whole input in a state. */
enum { ALL = 64 * COLUMNS, WIDE = 300 };
static float *sevens;

static adcg_status keep_all(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const float *in = adcg_data(&call->inputs[0]);
  adcg_status status = device_keep(call, in, adcg_data(&call->inputs[1]), adcg_numel(&call->inputs[0]));
  return status ? status : device_keep(call, in, adcg_data(&call->outputs[0]), adcg_numel(&call->outputs[0]));
}
static adcg_status write_sevens(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return device_keep(call, sevens, adcg_data(&call->outputs[0]), adcg_numel(&call->outputs[0]));
}

static void expect_tail(float *at, int64_t real, float tail) {
  float seen[ALL];
  TRY(adcg_memory_copy(m.engine, seen, at, sizeof seen));
  for (int64_t i = 0; i < ALL; i++) CHECK(i < real * COLUMNS ? seen[i] >= 1 : seen[i] == tail);
}

static void tails(void) {
  static const int32_t modes[] = {ADCG_MODE_PIECEWISE, ADCG_MODE_FULL};
  static const int64_t real[] = {11, 64, 5, 5, 12};
  for (int own = 0; own < 2; own++) { /* the engine's zeroes; then the op's promise, which it breaks */
    mini_open(&m, 64, 4);
    adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment), keep = mini_schema("t.keep", ADCG_OP_DYNAMIC, keep_all),
                   fill = mini_schema("t.fill", ADCG_OP_DYNAMIC, write_sevens);
    keep.num_inputs = 2;
    keep.mutates = 1u << 1;
    keep.capture = fill.capture = ADCG_CAPTURE_ALWAYS;
    if (own) fill.flags |= ADCG_OP_ZEROES_TAIL;
    mini_register(&m, &keep, NULL);
    adcg_dim all[] = {ADCG_DIM(ALL)};
    adcg_value states[2], v = mini_add(&m, &plain, NULL, m.input);
    float *at[2];
    int64_t shape[] = {ALL};
    for (int i = 0; i < 2; i++) TRY(adcg_graph_add_state(m.graph, i ? "behind" : "before", ADCG_F32, 1, all, &states[i]));
    TRY(adcg_graph_add_op(m.graph, "t.keep", (adcg_value[]){v, states[0]}, 2, NULL, 0, &v, 1));
    v = mini_add(&m, &fill, NULL, v);
    TRY(adcg_graph_add_op(m.graph, "t.keep", (adcg_value[]){v, states[1]}, 2, NULL, 0, &v, 1));
    mini_freeze(&m, v);
    float numbers[ALL];
    for (int i = 0; i < ALL; i++) numbers[i] = 7;
    sevens = device_alloc(m.engine, sizeof numbers);
    TRY(adcg_memory_copy(m.engine, sevens, numbers, sizeof numbers));
    for (int i = 0; i < 2; i++) at[i] = device_alloc(m.engine, sizeof numbers);
    for (int i = 0; i < 2; i++) {
      adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
      int64_t bucket[] = {64};
      options.mode = modes[i];
      options.buckets = bucket, options.num_buckets = 1;
      mini_exec(&m, &options);
      for (int k = 0; k < 2; k++) {
        DLTensor tensor = mini_tensor(at[k], 1, shape);
        TRY(adcg_exec_bind(m.exec, states[k], &tensor));
      }
      for (size_t step = 0; step < sizeof real / sizeof *real; step++) {
        TRY(mini_try(&m, mixed(1, real[step], 0)));
        CHECK(m.step.mode == modes[i] && m.step.bucket_tokens == 64);
        for (int64_t k = 0; k < real[step] * COLUMNS; k++) CHECK(m.y_data[k] == 7);
        expect_tail(at[0], real[step], 1); /* of zeroes */
        expect_tail(at[1], real[step], own ? 7 : 0);
        for (int64_t k = 0; k < ALL; k++) m.x_data[k] = (float)(k + 1); /* the engine has zeroed the tail */
      }
      adcg_exec_destroy(m.exec);
    }
    m.exec = NULL;
    mini_close(&m);
  }
}

/* ---- Order ------------------------------------------------------------------------------------------------------- */

/* Ops that have nothing but a state in common come in the order in which they were added: log = 2 log + k, out = x + 1. */
static adcg_status log_number(const adcg_op_call *call, void *user_data) {
  const float *k = user_data;
  float *log = adcg_data(&call->inputs[1]);
  adcg_status status = device_add(call, log, log, log, 1, 1, *k);
  return status ? status : device_keep(call, adcg_data(&call->inputs[0]), adcg_data(&call->outputs[0]), adcg_numel(&call->outputs[0]));
}

static void order_of_branches(void) {
  enum { BRANCHES = 6 };
  static const char *names[] = {"t.0", "t.1", "t.2", "t.3", "t.4", "t.5"};
  static const float numbers[BRANCHES] = {3, 1, 4, 1, 5, 9};
  mini_open(&m, 64, 4);
  adcg_dim one[] = {ADCG_DIM(1)};
  adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment);
  mini_register(&m, &plain, NULL);
  adcg_value log, branch[BRANCHES], sum;
  TRY(adcg_graph_add_state(m.graph, "log", ADCG_F32, 1, one, &log));
  for (int i = 0; i < BRANCHES; i++) {
    adcg_op_schema schema = mini_schema(names[i], ADCG_OP_DYNAMIC, log_number);
    schema.capture = ADCG_CAPTURE_UNIFORM_DECODE;
    schema.num_inputs = 2;
    schema.mutates = 1u << 1;
    mini_register(&m, &schema, (void *)(uintptr_t)&numbers[i]);
    TRY(adcg_graph_add_op(m.graph, "t.plain", &m.input, 1, NULL, 0, &branch[i], 1));
    TRY(adcg_graph_add_op(m.graph, names[i], (adcg_value[]){branch[i], log}, 2, NULL, 0, &branch[i], 1));
  }
  sum = branch[0];
  for (int i = 1; i < BRANCHES; i++) TRY(adcg_graph_add_op(m.graph, "adcg.add", (adcg_value[]){sum, branch[i]}, 2, NULL, 0, &sum, 1));
  mini_freeze(&m, sum);
  float *at = device_alloc(m.engine, sizeof *at), seen;
  int64_t shape[] = {1};
  DLTensor tensor = mini_tensor(at, 1, shape);
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
    adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
    options.mode = mode;
    mini_exec(&m, &options);
    TRY(adcg_exec_bind(m.exec, log, &tensor));
    TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
    for (int i = 0; i < 4; i++) {
      TRY(adcg_memory_copy(m.engine, at, &(float){0}, sizeof *at));
      TRY(mini_try(&m, i % 2 ? mixed(0, 0, 3) : mixed(1, 9, 2)));
      TRY(adcg_memory_copy(m.engine, &seen, at, sizeof seen));
      CHECK_INT(seen, 3 * 32 + 16 + 4 * 8 + 4 + 5 * 2 + 9);
      for (int k = 0; k < 3 * COLUMNS; k++) CHECK(m.y_data[k] == BRANCHES * (m.x_data[k] + 1));
    }
    adcg_exec_destroy(m.exec);
  }
  m.exec = NULL;
  mini_close(&m);
}

/* ---- Bits ------------------------------------------------------------------------------------------------------------ */

/* y = (x a) b with a sum over 300 elements in between: another order of summation shows. */
static void add_products(adcg_value weights[2]) {
  adcg_dim wide[] = {ADCG_DIM(WIDE), ADCG_DIM(COLUMNS)}, narrow[] = {ADCG_DIM(COLUMNS), ADCG_DIM(WIDE)};
  adcg_value v = m.input;
  TRY(adcg_graph_add_weight(m.graph, "a", ADCG_F32, 2, wide, &weights[0]));
  TRY(adcg_graph_add_weight(m.graph, "b", ADCG_F32, 2, narrow, &weights[1]));
  for (int i = 0; i < 2; i++) TRY(adcg_graph_add_op(m.graph, "adcg.linear", (adcg_value[]){v, weights[i]}, 2, NULL, 0, &v, 1));
  mini_freeze(&m, v);
}

/* An exec that is batch-invariant gives a row the same bits wherever it stands, in a batch of any size, in every bucket and mode. */
static void batch_invariant(void) {
  static const struct {
    int64_t tokens, at; /* tokens 0: one sequence decodes */
  } places[] = {{0, 0}, {1, 0}, {9, 3}, {16, 15}, {17, 0}, {40, 22}, {64, 63}, {128, 77}};
  static const int64_t shapes[2][2] = {{WIDE, COLUMNS}, {COLUMNS, WIDE}};
  float numbers[WIDE * COLUMNS], first[COLUMNS];
  adcg_value weights[2];
  DLTensor tensors[2];
  mini_open(&m, 128, 8);
  add_products(weights);
  for (int i = 0; i < 2; i++) {
    for (int k = 0; k < WIDE * COLUMNS; k++) numbers[k] = 1.0f / ((float)(k * 7 % 31 + i) - 15.25f);
    tensors[i] = mini_tensor(device_alloc(m.engine, sizeof numbers), 2, (int64_t *)(uintptr_t)shapes[i]);
    TRY(adcg_memory_copy(m.engine, tensors[i].data, numbers, sizeof numbers));
  }
  bool any = false;
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
    adcg_exec_options options = options_of(mode);
    options.batch_invariant = 1;
    mini_exec(&m, &options);
    for (int i = 0; i < 2; i++) TRY(adcg_exec_bind(m.exec, weights[i], &tensors[i]));
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
      for (int k = 0; k < MAX_ROWS * COLUMNS; k++) m.x_data[k] = (float)(k % 97) / 9 - 5;
      for (int k = 0; k < COLUMNS; k++) m.x_data[places[i].at * COLUMNS + k] = 1.0f / (float)(3 + k);
      TRY(mini_try(&m, places[i].tokens ? mixed(1, places[i].tokens, 0) : mixed(0, 0, 1)));
      const float *row = m.y_data + places[i].at * COLUMNS;
      if (!any) memcpy(first, row, sizeof first);
      any = true;
      CHECK(first[0] != 0 && memcmp(first, row, sizeof first) == 0);
    }
    adcg_exec_destroy(m.exec);
  }
  m.exec = NULL;
  mini_close(&m);
}

static const harness_case cases[] = {
    {"tails", tails},
    {"order_of_branches", order_of_branches},
    {"batch_invariant", batch_invariant},
};
HARNESS_MAIN(cases)
