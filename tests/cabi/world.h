/* A small graph with everything that a call can be wrong about: an input per axis, a weight, a state, a static and a dynamic op.
 *
 *   x [tokens, 8], pick [seqs] int32, w [8, 8], total [8]
 *   h = linear(x, w); d = t.double(h, total); y = add(d, x); last = gather_tokens(y, pick)
 *
 * t.double writes 2h and adds its rows to `total`. world_good replays a mixed step and checks every number of it. The arrays are the
 * host's; what tensors point at (`at`) are the arrays themselves on the host device, and elsewhere memory that world_replay copies to
 * and from. */
#ifndef ADCG_TESTS_WORLD_H_
#define ADCG_TESTS_WORLD_H_

#include <math.h>

#include "device.h"

enum { WIDTH = 8, MAX_TOKENS = 128, MAX_SEQS = 4, MAX_SEQ_LEN = 64 };

/* total has WIDTH elements; the rest of its array lets other tensors be laid over it. */
typedef struct world_arrays {
  float *x, *w, *total, *y, *last;
  int32_t *pick;
} world_arrays;

typedef struct world {
  adcg_engine *engine;
  adcg_graph *graph;
  adcg_exec *exec;
  adcg_value x, pick, w, total, h, d, y, last;
  adcg_status (*hook)(const adcg_op_call *call, struct world *world); /* called by t.double first, if not NULL */
  float x_data[MAX_TOKENS * WIDTH], w_data[WIDTH * WIDTH], total_data[MAX_SEQS * WIDTH], y_data[MAX_TOKENS * WIDTH],
      last_data[MAX_SEQS * WIDTH];
  int32_t pick_data[MAX_SEQS];
  world_arrays at;
  int64_t x_shape[2], pick_shape[1], w_shape[2], total_shape[1], y_shape[2], last_shape[2];
  DLTensor inputs[2], outputs[2], w_tensor, total_tensor;
  adcg_batch batch;
  adcg_step step;
} world;

static inline DLTensor tensor_of(void *data, adcg_dtype dtype, int32_t ndim, int64_t *shape) {
  return (DLTensor){data, device_of(), ndim, adcg_dtype_to_dlpack(dtype), shape, NULL, 0};
}

static inline adcg_status infer_like_input(const adcg_infer_call *call, void *user_data) {
  (void)user_data;
  for (int32_t i = 0; i < call->num_outputs; i++) call->outputs[i] = call->inputs[0];
  return ADCG_OK;
}

static inline adcg_status world_double(const adcg_op_call *call, void *user_data) {
  world *w = user_data;
  if (w->hook) {
    adcg_status status = w->hook(call, w);
    if (status) return status;
  }
  return device_double(call, adcg_data(&call->inputs[0]), adcg_data(&call->inputs[1]), adcg_data(&call->outputs[0]),
                       adcg_batch_tokens(call->batch), WIDTH);
}

static inline adcg_op_schema world_double_schema(void) {
  adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
  schema.name = "t.double";
  schema.kind = ADCG_OP_DYNAMIC;
  schema.num_inputs = 2;
  schema.num_outputs = 1;
  schema.mutates = 1u << 1;
  schema.infer = infer_like_input;
  schema.launch = world_double;
  return schema;
}

/* Copies between the arrays and the device's memory, where they are two. */
static inline void world_copy(world *w, bool bring) {
  if (!on_cuda()) return;
#define COPY(name)                                                                     \
  TRY(adcg_memory_copy(w->engine, bring ? (void *)w->at.name : (void *)w->name##_data, \
                       bring ? (void *)w->name##_data : (void *)w->at.name, sizeof w->name##_data))
  COPY(x), COPY(w), COPY(total), COPY(y), COPY(last), COPY(pick);
#undef COPY
}

static inline void world_memory(world *w) {
  w->at = (world_arrays){w->x_data, w->w_data, w->total_data, w->y_data, w->last_data, w->pick_data};
  if (!on_cuda()) return;
#define PLACE(name) w->at.name = device_alloc(w->engine, sizeof w->name##_data)
  PLACE(x), PLACE(w), PLACE(total), PLACE(y), PLACE(last), PLACE(pick);
#undef PLACE
}

static inline void world_tensors(world *w) {
  w->inputs[0] = tensor_of(w->at.x, ADCG_F32, 2, w->x_shape);
  w->inputs[1] = tensor_of(w->at.pick, ADCG_I32, 1, w->pick_shape);
  w->outputs[0] = tensor_of(w->at.y, ADCG_F32, 2, w->y_shape);
  w->outputs[1] = tensor_of(w->at.last, ADCG_F32, 2, w->last_shape);
  w->w_tensor = tensor_of(w->at.w, ADCG_F32, 2, w->w_shape);
  w->total_tensor = tensor_of(w->at.total, ADCG_F32, 1, w->total_shape);
}

/* Everything up to freeze, which is left to the caller. */
static inline void world_build(world *w) {
  memset(w, 0, sizeof *w);
  device_open();
  for (int i = 0; i < MAX_TOKENS * WIDTH; i++) w->x_data[i] = (float)(i % 17) - 8;
  for (int i = 0; i < WIDTH * WIDTH; i++) w->w_data[i] = (float)(i % 5) - 2;
  w->x_shape[0] = w->y_shape[0] = MAX_TOKENS;
  w->pick_shape[0] = w->last_shape[0] = MAX_SEQS;
  w->x_shape[1] = w->y_shape[1] = w->last_shape[1] = w->w_shape[0] = w->w_shape[1] = w->total_shape[0] = WIDTH;
  w->batch = (adcg_batch)ADCG_BATCH_INIT;
  w->batch.prefill_seqs = 1;
  w->batch.prefill_tokens = 5;
  w->batch.decode_seqs = 2;
  w->step = (adcg_step)ADCG_STEP_INIT;

  TRY(adcg_engine_create(device_name(), NULL, &w->engine));
  world_memory(w);
  world_tensors(w);
  adcg_op_schema schema = world_double_schema();
  TRY(adcg_engine_register_op(w->engine, &schema, w));
  adcg_graph_limits limits = ADCG_GRAPH_LIMITS_INIT;
  limits.max_tokens = MAX_TOKENS;
  limits.max_seqs = MAX_SEQS;
  limits.max_seq_len = MAX_SEQ_LEN;
  TRY(adcg_graph_create(w->engine, &limits, &w->graph));
  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(WIDTH)}, seqs[] = {ADCG_DIM_SEQS};
  adcg_dim square[] = {ADCG_DIM(WIDTH), ADCG_DIM(WIDTH)}, row[] = {ADCG_DIM(WIDTH)};
  TRY(adcg_graph_add_input(w->graph, "x", ADCG_F32, 2, rows, &w->x));
  TRY(adcg_graph_add_input(w->graph, "pick", ADCG_I32, 1, seqs, &w->pick));
  TRY(adcg_graph_add_weight(w->graph, "w", ADCG_F32, 2, square, &w->w));
  TRY(adcg_graph_add_state(w->graph, "total", ADCG_F32, 1, row, &w->total));
  TRY(adcg_graph_add_op(w->graph, "adcg.linear", (adcg_value[]){w->x, w->w}, 2, NULL, 0, &w->h, 1));
  TRY(adcg_graph_add_op(w->graph, "t.double", (adcg_value[]){w->h, w->total}, 2, NULL, 0, &w->d, 1));
  TRY(adcg_graph_add_op(w->graph, "adcg.add", (adcg_value[]){w->d, w->x}, 2, NULL, 0, &w->y, 1));
  TRY(adcg_graph_add_op(w->graph, "adcg.gather_tokens", (adcg_value[]){w->y, w->pick}, 2, NULL, 0, &w->last, 1));
  TRY(adcg_graph_add_output(w->graph, "y", w->y));
  TRY(adcg_graph_add_output(w->graph, "last", w->last));
}

static inline void world_exec(world *w, const adcg_exec_options *options) {
  TRY(adcg_exec_create(w->graph, options, &w->exec));
  TRY(adcg_exec_bind(w->exec, w->w, &w->w_tensor));
  TRY(adcg_exec_bind(w->exec, w->total, &w->total_tensor));
}

static inline void world_open(world *w) {
  world_build(w);
  TRY(adcg_graph_freeze(w->graph));
  world_exec(w, NULL);
}

static inline void world_close(world *w) {
  adcg_exec_destroy(w->exec);
  adcg_graph_destroy(w->graph);
  adcg_engine_destroy(w->engine);
  device_close();
}

static inline adcg_status world_replay(world *w) {
  world_copy(w, true);
  adcg_status status = adcg_exec_replay(w->exec, &w->batch, w->inputs, 2, w->outputs, 2, NULL, &w->step);
  if (!status) status = adcg_exec_synchronize(w->exec);
  if (!status) world_copy(w, false);
  return status;
}

/* h[row][n], small integers: exact in f32 in any order of summation. */
static inline float world_h(const world *w, int64_t row, int64_t n) {
  float sum = 0;
  for (int64_t k = 0; k < WIDTH; k++) sum += w->x_data[row * WIDTH + k] * w->w_data[n * WIDTH + k];
  return sum;
}

/* Whether the step that just ran wrote what the graph says; `before` is `total` as it was. */
static inline void world_check(const world *w, const float *before) {
  int64_t tokens = adcg_batch_tokens(&w->batch), seqs = adcg_batch_seqs(&w->batch);
  for (int64_t n = 0; n < WIDTH; n++) {
    float sum = before[n];
    for (int64_t row = 0; row < tokens; row++) {
      sum += world_h(w, row, n);
      CHECK(w->y_data[row * WIDTH + n] == 2 * world_h(w, row, n) + w->x_data[row * WIDTH + n]);
    }
    CHECK(w->total_data[n] == sum);
    for (int64_t s = 0; s < seqs; s++) CHECK(w->last_data[s * WIDTH + n] == w->y_data[w->pick_data[s] * WIDTH + n]);
  }
}

/* The exec works: a mixed step of 7 tokens and 3 sequences, every number checked. */
static inline void world_good(world *w) {
  float before[WIDTH];
  memcpy(before, w->total_data, sizeof before);
  for (int i = 0; i < MAX_TOKENS * WIDTH; i++) w->x_data[i] = (float)(i % 17) - 8;
  memcpy(w->pick_data, (int32_t[]){4, 5, 6, 0}, sizeof w->pick_data);
  memset(w->y_data, 0xEE, sizeof w->y_data);
  memset(w->last_data, 0xEE, sizeof w->last_data);
  w->batch = (adcg_batch)ADCG_BATCH_INIT;
  w->batch.prefill_seqs = 1;
  w->batch.prefill_tokens = 5;
  w->batch.decode_seqs = 2;
  w->step = (adcg_step)ADCG_STEP_INIT;
  TRY(world_replay(w));
  world_check(w, before);
}

#endif /* ADCG_TESTS_WORLD_H_ */
