/* Custom ops with parts: what part is asked and may answer, and that a launch is told where its tensors lie. */
#include <stdbool.h>

#include "mini.h"

static mini m;

enum { HALF = COLUMNS / 2 };

/* What part answers; -1: the half that the alias speaks of. */
typedef struct answer {
  int32_t axis;
  int64_t start;
  adcg_status status;
  const char *error; /* NULL: none is set */
} answer;
static const answer right = {1, -1, ADCG_OK, NULL};

static adcg_status halves_infer(const adcg_infer_call *call, void *user_data) { /* [tokens, 4] -> two of [tokens, 2] */
  (void)user_data;
  for (int32_t k = 0; k < call->num_outputs; k++) {
    call->outputs[k] = call->inputs[0];
    call->outputs[k].dims[1] = (adcg_dim)ADCG_DIM(HALF);
  }
  return ADCG_OK;
}

static adcg_status halves_part(const adcg_part_call *call, adcg_part *out_part, void *user_data) {
  const answer *a = user_data;
  CHECK(call->struct_size == sizeof(adcg_part_call) && call->num_inputs == 1 && call->num_outputs == 2);
  CHECK(call->inputs[0].ndim == 2 && call->inputs[0].dims[0].tokens == 1 && call->inputs[0].dims[1].constant == COLUMNS);
  CHECK(call->outputs[1].ndim == 2 && call->outputs[1].dtype == ADCG_F32 && call->outputs[1].dims[1].constant == HALF);
  CHECK(call->num_attrs == 1 && strcmp(call->attrs[0].name, "swap") == 0 && call->attrs[0].type == ADCG_ATTR_TYPE_BOOL);
  if (a->error) call->set_error(a->error);
  out_part->axis = a->axis;
  out_part->start = a->start < 0 ? (call->alias ^ (int32_t)call->attrs[0].i) * HALF : a->start;
  return a->status;
}

static int given, copied; /* halves, over all replays */

static adcg_status halves_launch(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const DLTensor *x = &call->inputs[0];
  CHECK(x->strides == NULL); /* as in x's own memory */
  for (int32_t k = 0; k < call->num_outputs; k++) {
    const DLTensor *y = &call->outputs[k];
    const float *from = (const float *)adcg_data(x) + (k ^ (int32_t)call->attrs[0].i) * HALF;
    float *to = adcg_data(y);
    if (call->phase == ADCG_PHASE_REPLAY) *(from == to ? &given : &copied) += 1;
    if (from == to) continue;
    for (int64_t t = 0; t < y->shape[0]; t++)
      memcpy(to + t * (y->strides ? y->strides[0] : HALF), from + t * COLUMNS, HALF * sizeof(float));
  }
  return ADCG_OK;
}

static int64_t pitches[2]; /* of the last doubling's input and output */

/* out = 2 in, over rows of two. */
static adcg_status double_launch(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const DLTensor *x = &call->inputs[0], *y = &call->outputs[0];
  const int64_t from = x->strides ? x->strides[0] : HALF, to = y->strides ? y->strides[0] : HALF;
  CHECK((!x->strides || x->strides[1] == 1) && (!y->strides || y->strides[1] == 1));
  if (call->phase == ADCG_PHASE_REPLAY) pitches[0] = from, pitches[1] = to;
  for (int64_t t = 0; t < x->shape[0]; t++)
    for (int64_t c = 0; c < HALF; c++) ((float *)adcg_data(y))[t * to + c] = 2 * ((const float *)adcg_data(x))[t * from + c];
  return ADCG_OK;
}

static adcg_op_alias part_aliases[] = {{0, 0, ADCG_ALIAS_PART}, {1, 0, ADCG_ALIAS_PART}};
static adcg_attr_spec swap[] = {{ADCG_ATTR_BOOL("swap", 0), 0, "the second half first"}};

static adcg_op_schema halves_schema(const char *name) {
  adcg_op_schema schema = mini_schema(name, ADCG_OP_STATIC, halves_launch);
  schema.num_outputs = schema.num_aliases = 2;
  schema.aliases = part_aliases;
  schema.infer = halves_infer;
  schema.part = halves_part;
  schema.strided_outputs = 3;
  schema.num_attrs = 1;
  schema.attrs = swap;
  return schema;
}

/* x + 1 in halves, each doubled by an op that takes strides or does not, and joined in another order. */
static void check_halves(bool strided_readers, bool swapped) {
  mini_open(&m, 64, 4);
  adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment), halves = halves_schema("t.halves"),
                 twice = mini_schema("t.double", ADCG_OP_STATIC, double_launch);
  twice.strided_inputs = twice.strided_outputs = strided_readers;
  mini_register(&m, &halves, (void *)&right);
  mini_register(&m, &twice, NULL);
  adcg_value a = mini_add(&m, &plain, NULL, m.input), half[2], doubled[2], y;
  adcg_attr order = ADCG_ATTR_BOOL("swap", swapped);
  TRY(adcg_graph_add_op(m.graph, "t.halves", &a, 1, &order, 1, half, 2));
  for (int k = 0; k < 2; k++) TRY(adcg_graph_add_op(m.graph, "t.double", &half[k], 1, NULL, 0, &doubled[1 - k], 1));
  TRY(adcg_graph_add_op(m.graph, "adcg.concat", doubled, 2, NULL, 0, &y, 1));
  mini_freeze(&m, y);
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE + 1; mode++) {
    adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
    options.verify = mode > ADCG_MODE_FULL_AND_PIECEWISE; /* after all modes, with contracts checked */
    if (!options.verify) options.mode = mode;
    mini_exec(&m, &options);
    given = copied = 0;
    TRY(mini_try(&m, mixed(1, 9, 2)));
    for (int64_t i = 0; i < 11 * COLUMNS; i++) {
      int64_t from = i / COLUMNS * COLUMNS + (swapped ? i % COLUMNS : (i + HALF) % COLUMNS);
      CHECK(m.y_data[i] == 2 * (m.x_data[from] + 1));
    }
    CHECK_INT(given, 0); /* of parts that are all given nothing is launched */
    CHECK_INT(copied, strided_readers ? 0 : 2);
    CHECK_INT(pitches[0], strided_readers ? COLUMNS : HALF);
    CHECK_INT(pitches[1], strided_readers ? COLUMNS : HALF);
    adcg_exec_destroy(m.exec);
  }
  m.exec = NULL;
  mini_close(&m);
}

static void parts(void) {
  for (int i = 0; i < 4; i++) check_halves(i & 1, i & 2);
}

static void some_parts(void) { /* one is given, the other is the caller's, who wants it compact: launch copies that one */
  mini_open(&m, 64, 4);
  adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment), halves = halves_schema("t.halves");
  mini_register(&m, &halves, (void *)&right);
  adcg_value a = mini_add(&m, &plain, NULL, m.input), half[2], y;
  TRY(adcg_graph_add_op(m.graph, "t.halves", &a, 1, NULL, 0, half, 2));
  TRY(adcg_graph_add_op(m.graph, "adcg.add", (adcg_value[]){half[0], half[0]}, 2, NULL, 0, &y, 1));
  TRY(adcg_graph_add_output(m.graph, "sums", y));
  TRY(adcg_graph_add_output(m.graph, "second", half[1]));
  TRY(adcg_graph_freeze(m.graph));
  mini_exec(&m, NULL);
  float sums[16][HALF], second[16][HALF];
  int64_t shape[] = {16, HALF};
  DLTensor outputs[] = {{sums, {kDLCPU, 0}, 2, adcg_dtype_to_dlpack(ADCG_F32), shape, NULL, 0},
                        {second, {kDLCPU, 0}, 2, adcg_dtype_to_dlpack(ADCG_F32), shape, NULL, 0}};
  adcg_batch batch = mixed(1, 9, 0);
  given = copied = 0;
  mini_bring(&m);
  TRY(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, outputs, 2, NULL, NULL));
  CHECK(given == 1 && copied == 1);
  for (int i = 0; i < 9 * HALF; i++) {
    const float *x = &m.x_data[i / HALF * COLUMNS + i % HALF];
    CHECK(sums[i / HALF][i % HALF] == 2 * (x[0] + 1) && second[i / HALF][i % HALF] == x[HALF] + 1);
  }
  mini_close(&m);
}

static void bad_answers(void) {
  static const struct {
    answer given;
    const char *says;
  } cases[] = {
      {{1, -1, ADCG_ERR_OP, "no half of that"}, "no half of that"},
      {{1, -1, ADCG_ERR_OP, NULL}, "t.halves"},
      {{2, 0, ADCG_OK, NULL}, "axis 2"},
      {{-1, 0, ADCG_OK, NULL}, "axis -1"},
      {{INT32_MAX, INT64_MAX, ADCG_OK, NULL}, "axis 2147483647"},
      {{1, 3, ADCG_OK, NULL}, "from 3 on"},
      {{1, INT64_MAX, ADCG_OK, NULL}, "axis 1"},
      {{0, 0, ADCG_OK, NULL}, "axis 0"}, /* along it, the half is the whole, and along the other it is not */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mini_open(&m, 64, 4);
    adcg_op_schema halves = halves_schema("t.halves");
    mini_register(&m, &halves, (void *)&cases[i].given);
    adcg_value half[2];
    FAILS(adcg_graph_add_op(m.graph, "t.halves", &m.input, 1, NULL, 0, half, 2), ADCG_ERR_OP, "t.halves", cases[i].says);
    mini_freeze(&m, m.input); /* the graph is as it was */
    mini_exec(&m, NULL);
    mini_step(&m, mixed(1, 9, 0), 0);
    mini_close(&m);
  }
}

static void bad_declarations(void) {
  mini_open(&m, 64, 4);
  adcg_op_schema s = halves_schema("t.bad");
  s.part = NULL;
  FAILS(adcg_engine_register_op(m.engine, &s, NULL), ADCG_ERR_ARGUMENT, "t.bad", "aliases[0]", "part");
  adcg_op_alias join = {0, 0, ADCG_ALIAS_JOIN}, unknown = {0, 0, ADCG_ALIAS_JOIN + 1};
  s.aliases = &join;
  s.num_aliases = 1;
  FAILS(adcg_engine_register_op(m.engine, &s, NULL), ADCG_ERR_ARGUMENT, "t.bad", "aliases[0]", "part");
  s = halves_schema("t.bad");
  s.aliases = &unknown;
  s.num_aliases = 1;
  FAILS(adcg_engine_register_op(m.engine, &s, NULL), ADCG_ERR_ARGUMENT, "t.bad", "kind 5");
  s = halves_schema("t.bad");
  s.kind = ADCG_OP_DYNAMIC;
  FAILS(adcg_engine_register_op(m.engine, &s, NULL), ADCG_ERR_ARGUMENT, "t.bad", "static");
  s = halves_schema("t.bad");
  s.strided_inputs = 2;
  FAILS(adcg_engine_register_op(m.engine, &s, NULL), ADCG_ERR_ARGUMENT, "t.bad", "strided_inputs", "1");
  s = halves_schema("t.bad");
  s.strided_outputs = UINT64_MAX;
  FAILS(adcg_engine_register_op(m.engine, &s, NULL), ADCG_ERR_ARGUMENT, "t.bad", "strided_outputs", "63");
  mini_close(&m);
}

static const harness_case cases[] = {
    {"parts", parts},
    {"some_parts", some_parts},
    {"bad_answers", bad_answers},
    {"bad_declarations", bad_declarations},
};

HARNESS_MAIN(cases)
