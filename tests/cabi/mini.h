/* Graphs of custom ops over one input x [tokens, 4] f32 and one output, for tests of what ops see and execs do. x_data and y_data are
 * the host's copies of x and y: mini_try brings the one and fetches both. */
#ifndef ADCG_TESTS_MINI_H_
#define ADCG_TESTS_MINI_H_

#include "device.h"

enum { COLUMNS = 4, MAX_ROWS = 256 };

typedef struct mini {
  adcg_engine *engine;
  adcg_graph *graph;
  adcg_exec *exec;
  adcg_value input;
  int64_t x_shape[2], y_shape[2];
  DLTensor x_tensor, y_tensor;
  adcg_step step;
  float *x, *y; /* the device's: MAX_ROWS rows */
  void *stream; /* of replays */
  float x_data[MAX_ROWS * COLUMNS], y_data[MAX_ROWS * COLUMNS];
} mini;

/* An op of one input and one output of its type. */
static inline adcg_status mini_infer(const adcg_infer_call *call, void *user_data) {
  (void)user_data;
  for (int32_t i = 0; i < call->num_outputs; i++) call->outputs[i] = call->inputs[0];
  return ADCG_OK;
}
static inline adcg_op_schema mini_schema(const char *name, int32_t kind, adcg_op_launch_fn launch) {
  adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
  schema.name = name;
  schema.kind = kind;
  schema.num_inputs = schema.num_outputs = 1;
  schema.infer = mini_infer;
  schema.launch = launch;
  schema.flags = device_flags();
  return schema;
}

/* out = in + 1 in all rows of the bucket; user_data is not used. */
static inline adcg_status mini_increment(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return device_add(call, adcg_data(&call->inputs[0]), NULL, adcg_data(&call->outputs[0]), adcg_numel(&call->outputs[0]), 0, 1);
}

static inline DLTensor mini_tensor(void *data, int32_t ndim, int64_t *shape) {
  return (DLTensor){data, device_of(), ndim, adcg_dtype_to_dlpack(ADCG_F32), shape, NULL, 0};
}

static inline void mini_open(mini *m, int64_t max_tokens, int64_t max_seqs) {
  memset(m, 0, sizeof *m);
  for (int i = 0; i < MAX_ROWS * COLUMNS; i++) m->x_data[i] = (float)(i + 1);
  m->x_shape[0] = m->y_shape[0] = MAX_ROWS;
  m->x_shape[1] = m->y_shape[1] = COLUMNS;
  m->step = (adcg_step)ADCG_STEP_INIT;
  device_open();
  TRY(adcg_engine_create(device_name(), NULL, &m->engine));
  m->x = device_alloc(m->engine, sizeof m->x_data);
  m->y = device_alloc(m->engine, sizeof m->y_data);
  m->x_tensor = mini_tensor(m->x, 2, m->x_shape);
  m->y_tensor = mini_tensor(m->y, 2, m->y_shape);
  adcg_graph_limits limits = {sizeof limits, max_tokens, max_seqs, 0};
  TRY(adcg_graph_create(m->engine, &limits, &m->graph));
  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(COLUMNS)};
  TRY(adcg_graph_add_input(m->graph, "x", ADCG_F32, 2, rows, &m->input));
}

static inline void mini_register(mini *m, const adcg_op_schema *schema, void *user_data) {
  TRY(adcg_engine_register_op(m->engine, schema, user_data));
}

/* Registers the op and adds it, with one input and one output. */
static inline adcg_value mini_add(mini *m, const adcg_op_schema *schema, void *user_data, adcg_value input) {
  adcg_value out;
  mini_register(m, schema, user_data);
  TRY(adcg_graph_add_op(m->graph, schema->name, &input, 1, NULL, 0, &out, 1));
  return out;
}

static inline void mini_freeze(mini *m, adcg_value y) {
  TRY(adcg_graph_add_output(m->graph, "y", y));
  TRY(adcg_graph_freeze(m->graph));
}

static inline void mini_exec(mini *m, const adcg_exec_options *options) { TRY(adcg_exec_create(m->graph, options, &m->exec)); }

static inline void mini_bring(mini *m) {
  memset(m->y_data, 0xEE, sizeof m->y_data);
  TRY(adcg_memory_copy(m->engine, m->x, m->x_data, sizeof m->x_data));
  TRY(adcg_memory_copy(m->engine, m->y, m->y_data, sizeof m->y_data));
}

static inline void mini_fetch(mini *m) {
  TRY(adcg_exec_synchronize(m->exec));
  TRY(adcg_memory_copy(m->engine, m->x_data, m->x, sizeof m->x_data));
  TRY(adcg_memory_copy(m->engine, m->y_data, m->y, sizeof m->y_data));
}

static inline adcg_status mini_try(mini *m, adcg_batch batch) {
  mini_bring(m);
  adcg_status status = adcg_exec_replay(m->exec, &batch, &m->x_tensor, 1, &m->y_tensor, 1, m->stream, &m->step);
  if (!status) mini_fetch(m);
  return status;
}

static inline adcg_batch mixed(int64_t prefill_seqs, int64_t prefill_tokens, int64_t decode_seqs) {
  return (adcg_batch){sizeof(adcg_batch), prefill_seqs, prefill_tokens, 0, 0, decode_seqs, 0};
}

/* Replays and checks y = x + added on the real rows. */
static inline void mini_step(mini *m, adcg_batch batch, float added) {
  for (int i = 0; i < MAX_ROWS * COLUMNS; i++) m->x_data[i] = (float)(i + 1);
  TRY(mini_try(m, batch));
  for (int64_t i = 0; i < adcg_batch_tokens(&batch) * COLUMNS; i++) {
    if (m->y_data[i] == m->x_data[i] + added) continue;
    fprintf(stderr, "y[%d] is %g, expected %g + %g\n", (int)i, (double)m->y_data[i], (double)m->x_data[i], (double)added);
    exit(1);
  }
}

static inline adcg_stats mini_stats(const mini *m) {
  adcg_stats stats = ADCG_STATS_INIT;
  TRY(adcg_exec_get_stats(m->exec, &stats));
  return stats;
}

static inline void mini_close(mini *m) {
  adcg_exec_destroy(m->exec);
  adcg_graph_destroy(m->graph);
  adcg_engine_destroy(m->engine); /* x and y with it */
  device_close();
}

#endif /* ADCG_TESTS_MINI_H_ */
