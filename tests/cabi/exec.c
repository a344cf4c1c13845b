/* Execs: staging and re-pointing, binding, counters against the forecast, threads, lifetimes. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>

#include "chain.h"

/* ---- The caller's tensors --------------------------------------------------------------------------------------------- */

static void in_place_and_staged(void) {
  open_chain(ADCG_CAPTURE_NEVER);
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  mini_exec(&m, &options);
  const int64_t row = COLUMNS * 4;
  m.x_shape[0] = m.y_shape[0] = 16; /* exactly the bucket: in place */
  mini_step(&m, mixed(1, 9, 0), 3);
  CHECK_INT(m.step.staged_bytes, 0);
  for (int i = 9 * COLUMNS; i < 16 * COLUMNS; i++) CHECK(m.x_data[i] == 0); /* the tail was lent, and zeroed */
  for (int i = 16 * COLUMNS; i < MAX_ROWS * COLUMNS; i++) CHECK(m.x_data[i] == (float)(i + 1));
  m.x_shape[0] = m.y_shape[0] = 9; /* the real rows alone: staged, and nothing behind them is touched */
  mini_step(&m, mixed(1, 9, 0), 3);
  CHECK_INT(m.step.staged_bytes, 2 * 9 * row);
  for (int i = 9 * COLUMNS; i < MAX_ROWS * COLUMNS; i++) CHECK(m.x_data[i] == (float)(i + 1));
  for (size_t i = (size_t)(9 * row); i < sizeof m.y_data; i++) CHECK_INT(((unsigned char *)m.y_data)[i], 0xEE);
  m.x_shape[0] = 15, m.y_shape[0] = 16; /* one too short for the bucket: the input alone */
  mini_step(&m, mixed(1, 9, 0), 3);
  CHECK_INT(m.step.staged_bytes, 9 * row);
  m.x_shape[0] = 16, m.y_shape[0] = 15;
  mini_step(&m, mixed(1, 9, 0), 3);
  CHECK_INT(m.step.staged_bytes, 9 * row);
  adcg_stats stats = mini_stats(&m);
  CHECK_INT(stats.staged_tensors, 4);
  CHECK_INT(stats.staged_bytes, 4 * 9 * row);
  mini_close(&m);
}

static void re_pointed(void) { /* counted when an address moved, and only then */
  open_chain(ADCG_CAPTURE_NEVER);
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  mini_exec(&m, &options);
  m.x_shape[0] = m.y_shape[0] = 64;
  mini_step(&m, mixed(1, 9, 0), 3);
  int64_t first = mini_stats(&m).repointed;
  for (int i = 0; i < 5; i++) {
    mini_step(&m, mixed(1, 10 + i, 0), 3);
    CHECK_INT(m.step.repointed, 0);
  }
  CHECK_INT(mini_stats(&m).repointed, first);
  float x_data[64 * COLUMNS];
  for (int i = 0; i < 64 * COLUMNS; i++) x_data[i] = (float)(i + 500);
  float *elsewhere = device_alloc(m.engine, sizeof x_data + sizeof(float));
  TRY(adcg_memory_copy(m.engine, elsewhere + 1, x_data, sizeof x_data)); /* aligned to the element, and to nothing more */
  m.x_tensor.data = elsewhere;
  m.x_tensor.byte_offset = sizeof(float);
  TRY(mini_try(&m, mixed(1, 9, 0)));
  CHECK_INT(m.step.repointed, 1);
  for (int i = 0; i < 9 * COLUMNS; i++) CHECK(m.y_data[i] == (float)(i + 503));
  TRY(mini_try(&m, mixed(1, 9, 0)));
  CHECK_INT(m.step.repointed, 0);
  m.x_tensor.data = m.x, m.x_tensor.byte_offset = 0;
  mini_step(&m, mixed(1, 9, 0), 3);
  CHECK_INT(m.step.repointed, 1);
  mini_close(&m);
}

static adcg_status add_weight_launch(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return device_add(call, adcg_data(&call->inputs[0]), adcg_data(&call->inputs[1]), adcg_data(&call->outputs[0]),
                    adcg_numel(&call->outputs[0]), COLUMNS, 0);
}

/* One row of the device's, all of this value. */
static float *row_of(float value) {
  const float row[] = {value, value, value, value};
  float *memory = device_alloc(m.engine, sizeof row);
  TRY(adcg_memory_copy(m.engine, memory, row, sizeof row));
  return memory;
}

static void re_bound(void) { /* captured buckets, full and piecewise, follow a weight to its new memory */
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
    mini_open(&m, 128, 8);
    adcg_op_schema schema = mini_schema("t.add_weight", ADCG_OP_STATIC, add_weight_launch);
    schema.num_inputs = 2;
    mini_register(&m, &schema, NULL);
    adcg_dim row[] = {ADCG_DIM(COLUMNS)};
    adcg_value w, y;
    TRY(adcg_graph_add_weight(m.graph, "w", ADCG_F32, 1, row, &w));
    TRY(adcg_graph_add_op(m.graph, "t.add_weight", (adcg_value[]){m.input, w}, 2, NULL, 0, &y, 1));
    mini_freeze(&m, y);
    adcg_exec_options options = options_of(mode);
    mini_exec(&m, &options);
    float *one = row_of(1), *ten = row_of(10);
    int64_t shape[] = {COLUMNS};
    DLTensor tensor = mini_tensor(one, 1, shape);
    TRY(adcg_exec_bind(m.exec, w, &tensor));
    TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
    mini_step(&m, mixed(1, 9, 0), 1);
    mini_step(&m, mixed(1, 19, 0), 1);
    tensor.data = ten;
    TRY(adcg_exec_bind(m.exec, w, &tensor));
    mini_step(&m, mixed(1, 9, 0), 10);
    mini_step(&m, mixed(1, 19, 0), 10);
    TRY(adcg_memory_copy(m.engine, ten, row_of(20), COLUMNS * sizeof(float))); /* in place: no bind is needed */
    mini_step(&m, mixed(1, 9, 0), 20);
    mini_close(&m);
  }
}

/* ---- Forecast, stats, plan ------------------------------------------------------------------------------------------- */

static void forecast_equals_stats(void) {
  for (int32_t support = ADCG_CAPTURE_NEVER; support <= ADCG_CAPTURE_ALWAYS; support++) {
    for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
      open_chain(support);
      adcg_exec_options options = options_of(mode);
      adcg_forecast forecast = ADCG_FORECAST_INIT;
      TRY(adcg_graph_forecast(m.graph, &options, &forecast));
      mini_exec(&m, &options);
      TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
      mini_step(&m, mixed(1, 9, 2), 3);
      mini_step(&m, mixed(2, 120, 2), 3);
      mini_step(&m, mixed(0, 0, 2), 3);
      adcg_stats stats = mini_stats(&m);
      CHECK_INT(stats.arena_bytes, forecast.arena_bytes);
      CHECK_INT(stats.metadata_bytes, forecast.metadata_bytes);
      CHECK_INT(stats.tape_bytes, forecast.tape_bytes);
      CHECK_INT(stats.graph_bytes, forecast.graph_bytes);
      CHECK_INT(stats.total_bytes, forecast.total_bytes);
      CHECK_INT(stats.total_bytes, stats.arena_bytes + stats.metadata_bytes + stats.tape_bytes + stats.graph_bytes);
      CHECK_INT(stats.captured_buckets, forecast.num_buckets);
      CHECK_INT(stats.graph_bytes > 0, on_cuda() && forecast.num_buckets > 0);
      CHECK(forecast.lower_bound_bytes > 0 && forecast.lower_bound_bytes <= forecast.arena_bytes);
      int32_t count = 0;
      int64_t tape_bytes = 0, replays = 0;
      adcg_bucket_info info = ADCG_BUCKET_INFO_INIT;
      for (; adcg_exec_get_bucket(m.exec, count, &info) == ADCG_OK; count++) {
        CHECK(info.state == ADCG_BUCKET_CAPTURED && info.num_steps > 0);
        tape_bytes += info.tape_bytes;
        replays += info.replays;
      }
      CHECK_INT(count, forecast.num_buckets);
      CHECK(tape_bytes <= stats.tape_bytes);
      CHECK_INT(replays, stats.full_steps + stats.piecewise_steps);
      mini_close(&m);
    }
  }
}

static void memory_does_not_grow_with_depth(void) { /* nor with the number of buckets */
  int64_t arena[3];
  for (int deep = 0; deep < 3; deep++) {
    mini_open(&m, 128, 8);
    adcg_op_schema fixed = mini_schema("t.static", ADCG_OP_STATIC, mini_increment),
                   dynamic = mini_schema("t.dynamic", ADCG_OP_DYNAMIC, mini_increment);
    mini_register(&m, &fixed, NULL);
    mini_register(&m, &dynamic, NULL);
    adcg_value v = m.input;
    int layers = deep == 0 ? 3 : 24;
    for (int i = 0; i < layers; i++) {
      adcg_value a, b;
      TRY(adcg_graph_add_op(m.graph, "t.static", &v, 1, NULL, 0, &a, 1));
      TRY(adcg_graph_add_op(m.graph, "t.dynamic", &a, 1, NULL, 0, &b, 1));
      TRY(adcg_graph_add_op(m.graph, "adcg.add", (adcg_value[]){a, b}, 2, NULL, 0, &v, 1));
    }
    mini_freeze(&m, v);
    adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
    int64_t many[] = {8, 16, 24, 32, 48, 64, 96, 128}, one[] = {128};
    options.buckets = deep == 2 ? many : one;
    options.num_buckets = deep == 2 ? 8 : 1;
    adcg_forecast forecast = ADCG_FORECAST_INIT;
    TRY(adcg_graph_forecast(m.graph, &options, &forecast));
    arena[deep] = forecast.arena_bytes;
    CHECK_INT(forecast.num_dynamic_ops, layers);
    CHECK(deep < 2 || on_cuda() /* whose memory comes in pieces of megabytes */ || forecast.bucket_sum_bytes > 2 * forecast.arena_bytes);
    mini_close(&m);
  }
  CHECK_INT(arena[1], arena[0]);
  CHECK_INT(arena[2], arena[0]);
}

typedef struct text {
  size_t size;
  char bytes[1 << 16];
} text;
static int32_t append_text(const char *data, size_t size, void *user_data) {
  text *t = user_data;
  CHECK(t->size + size < sizeof t->bytes);
  memcpy(t->bytes + t->size, data, size);
  t->size += size;
  t->bytes[t->size] = 0;
  return 0;
}

static void plans(void) {
  static text json, plain, svg;
  open_chain(ADCG_CAPTURE_NEVER);
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  TRY(adcg_graph_forecast(m.graph, NULL, &forecast));
  TRY(adcg_graph_write_plan(m.graph, NULL, ADCG_PLAN_JSON, append_text, &json));
  TRY(adcg_graph_write_plan(m.graph, NULL, ADCG_PLAN_TEXT, append_text, &plain));
  TRY(adcg_graph_write_plan(m.graph, NULL, ADCG_PLAN_SVG, append_text, &svg));
  char bytes[32];
  snprintf(bytes, sizeof bytes, "%lld", (long long)(on_cuda() ? forecast.lower_bound_bytes : forecast.arena_bytes));
  CHECK(json.bytes[0] == '{' && strstr(json.bytes, "t.dynamic") && strstr(json.bytes, bytes));
  CHECK(strstr(plain.bytes, "t.dynamic") && strstr(plain.bytes, "arena"));
  int depth = 0;
  for (size_t i = 0; i < json.size; i++) {
    depth += (json.bytes[i] == '{') - (json.bytes[i] == '}');
    CHECK(depth > 0 || i + 2 >= json.size);
  }
  CHECK_INT(depth, 0);
  CHECK(strncmp(svg.bytes, "<svg xmlns=\"http://www.w3.org/2000/svg\"", 39) == 0 && strcmp(svg.bytes + svg.size - 7, "</svg>\n") == 0);
  CHECK(strstr(svg.bytes, "t.dynamic") && strstr(svg.bytes, "peak") && strstr(svg.bytes, "lower bound"));
  for (const char *c = svg.bytes; *c; c++) { /* elements close as often as they open, and hold elements or text */
    if (*c == '<') depth += c[1] == '/' ? -1 : 1;
    if (*c == '/' && c[1] == '>') depth--;
    CHECK(depth > 0 || c + 9 >= svg.bytes + svg.size);
  }
  CHECK_INT(depth, 0);
  mini_close(&m);
}

/* ---- Threads, lifetimes ------------------------------------------------------------------------------------------------ */

enum { ROUNDS = 3000, ROUNDS_STAND_IN = 150 };
static int rounds(void) { return on_cuda() ? ROUNDS_STAND_IN : ROUNDS; }

static void *replay_alone(void *argument) { /* an exec of its own, data of its own, steps of every size */
  mini *mine = argument;
  for (int i = 0; i < rounds(); i++) {
    int64_t tokens = 1 + (i * 37) % 120;
    adcg_batch batch = mixed(1, tokens, i % 4);
    for (int64_t k = 0; k < (tokens + i % 4) * COLUMNS; k++) mine->x_data[k] = (float)(i + k);
    TRY(mini_try(mine, batch));
    for (int64_t k = 0; k < (tokens + i % 4) * COLUMNS; k++) CHECK(mine->y_data[k] == (float)(i + k) + 3);
  }
  return NULL;
}

static void execs_in_parallel(void) {
  static mini copies[3];
  open_chain(ADCG_CAPTURE_UNIFORM_DECODE);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) {
    mini *c = &copies[i];
    *c = m;
    c->x_tensor.data = c->x = device_alloc(m.engine, sizeof m.x_data), c->y_tensor.data = c->y = device_alloc(m.engine, sizeof m.y_data);
    c->x_tensor.shape = c->x_shape, c->y_tensor.shape = c->y_shape;
    TRY(adcg_exec_create(m.graph, NULL, &c->exec));
    CHECK(pthread_create(&threads[i], NULL, replay_alone, c) == 0);
  }
  for (int i = 0; i < 40; i++) { /* control calls beside them: const on the graph and on other execs */
    adcg_forecast forecast = ADCG_FORECAST_INIT;
    TRY(adcg_graph_forecast(m.graph, NULL, &forecast));
    adcg_stats stats = ADCG_STATS_INIT;
    TRY(adcg_exec_get_stats(copies[i % 3].exec, &stats));
    CHECK(stats.steps >= 0 && stats.steps <= rounds());
  }
  for (int i = 0; i < 3; i++) {
    CHECK(pthread_join(threads[i], NULL) == 0);
    adcg_stats stats = ADCG_STATS_INIT;
    TRY(adcg_exec_get_stats(copies[i].exec, &stats));
    CHECK_INT(stats.steps, rounds());
    adcg_exec_destroy(copies[i].exec);
  }
  mini_close(&m);
}

static volatile bool inside, leave;
static adcg_status wait_inside(const adcg_op_call *call, void *user_data) {
  if (call->phase == ADCG_PHASE_REPLAY) {
    inside = true;
    while (!leave) sched_yield();
  }
  return mini_increment(call, user_data);
}
static void *replay_once(void *argument) {
  (void)argument;
  adcg_batch batch = mixed(1, 9, 0);
  TRY(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, NULL, NULL));
  return NULL;
}
static void *destroy_exec(void *argument) {
  adcg_exec_destroy(m.exec);
  *(volatile bool *)argument = true;
  return NULL;
}

static void busy_from_another_thread(void) { /* ADCG_ERR_BUSY beside a replay; destroy waits for it */
  mini_open(&m, 128, 8);
  adcg_op_schema schema = mini_schema("t.waits", ADCG_OP_DYNAMIC, wait_inside);
  mini_freeze(&m, mini_add(&m, &schema, NULL, m.input));
  mini_exec(&m, NULL);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  mini_bring(&m);
  pthread_t replaying, destroying;
  CHECK(pthread_create(&replaying, NULL, replay_once, NULL) == 0);
  while (!inside) sched_yield();
  adcg_batch batch = mixed(1, 9, 0);
  FAILS(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, NULL, NULL), ADCG_ERR_BUSY, "exec");
  adcg_stats stats = mini_stats(&m);
  CHECK_INT(stats.steps, 0);
  volatile bool destroyed = false;
  CHECK(pthread_create(&destroying, NULL, destroy_exec, (void *)&destroyed) == 0);
  struct timespec moment = {0, 30000000};
  nanosleep(&moment, NULL);
  CHECK(!destroyed);
  leave = true;
  CHECK(pthread_join(replaying, NULL) == 0 && pthread_join(destroying, NULL) == 0);
  CHECK(destroyed);
  FAILS(adcg_exec_get_stats(m.exec, &stats), ADCG_ERR_HANDLE, "exec");
  TRY(adcg_memory_copy(m.engine, m.y_data, m.y, sizeof m.y_data)); /* destroy waits for the device, too */
  for (int i = 0; i < 9 * COLUMNS; i++) CHECK(m.y_data[i] == m.x_data[i] + 1);
  m.exec = NULL;
  mini_close(&m);
}

static void *fail_elsewhere(void *argument) {
  (void)argument;
  CHECK(strcmp(adcg_last_error(), "") == 0); /* none failed on this thread yet */
  adcg_engine *engine;
  FAILS(adcg_engine_create("elsewhere", NULL, &engine), ADCG_ERR_DEVICE, "elsewhere");
  return NULL;
}

static void messages_per_thread(void) {
  CHECK(strcmp(adcg_last_error(), "") == 0);
  adcg_engine *engine;
  FAILS(adcg_engine_create("here", NULL, &engine), ADCG_ERR_DEVICE, "here");
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, fail_elsewhere, NULL) == 0 && pthread_join(thread, NULL) == 0);
  CHECK(strstr(adcg_last_error(), "`here`") != NULL);
  TRY(adcg_engine_create("host", NULL, &engine));
  CHECK(strstr(adcg_last_error(), "`here`") != NULL); /* until the thread's next failing call */
  adcg_engine_destroy(engine);
}

static void destroyed_out_of_order(void) {
  open_chain(ADCG_CAPTURE_NEVER);
  mini_exec(&m, NULL);
  adcg_engine *first = m.engine;
  TRY(adcg_engine_create(device_name(), NULL, &m.engine)); /* to copy with; x and y are the first one's */
  adcg_engine_destroy(first);
  mini_step(&m, mixed(1, 9, 0), 3);
  adcg_exec *second;
  TRY(adcg_exec_create(m.graph, NULL, &second)); /* the graph has its engine still */
  adcg_graph_destroy(m.graph);
  mini_step(&m, mixed(1, 70, 0), 3); /* a bucket that is captured now */
  adcg_exec_destroy(m.exec);
  m.exec = second;
  mini_step(&m, mixed(1, 70, 0), 3);
  adcg_exec_destroy(second);
  adcg_engine_destroy(m.engine);
  device_close();

  open_chain(ADCG_CAPTURE_NEVER); /* and a graph that outlives its engine handle while it is built */
  adcg_graph_limits limits = {sizeof limits, 16, 2, 0};
  adcg_graph *graph;
  TRY(adcg_graph_create(m.engine, &limits, &graph));
  adcg_engine_destroy(m.engine);
  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(COLUMNS)};
  adcg_value x, y;
  TRY(adcg_graph_add_input(graph, "x", ADCG_F32, 2, rows, &x));
  TRY(adcg_graph_add_op(graph, "t.first", &x, 1, NULL, 0, &y, 1));
  TRY(adcg_graph_add_output(graph, "y", y));
  TRY(adcg_graph_freeze(graph));
  adcg_graph_destroy(graph);
  adcg_graph_destroy(m.graph);
  device_close();
}

static void op_inputs_as_outputs(void) { /* out_values may be the array that inputs was */
  mini_open(&m, 64, 4);
  adcg_op_schema schema = mini_schema("t.increment", ADCG_OP_STATIC, mini_increment);
  mini_register(&m, &schema, NULL);
  adcg_value v = m.input;
  for (int i = 0; i < 4; i++) TRY(adcg_graph_add_op(m.graph, "t.increment", &v, 1, NULL, 0, &v, 1));
  mini_freeze(&m, v);
  mini_exec(&m, NULL);
  mini_step(&m, mixed(1, 9, 0), 4);
  mini_close(&m);
}

static const harness_case cases[] = {
    {"in_place_and_staged", in_place_and_staged},
    {"re_pointed", re_pointed},
    {"re_bound", re_bound},
    {"forecast_equals_stats", forecast_equals_stats},
    {"memory_does_not_grow_with_depth", memory_does_not_grow_with_depth},
    {"plans", plans},
    {"execs_in_parallel", execs_in_parallel},
    {"busy_from_another_thread", busy_from_another_thread},
    {"messages_per_thread", messages_per_thread},
    {"destroyed_out_of_order", destroyed_out_of_order},
    {"op_inputs_as_outputs", op_inputs_as_outputs},
};
HARNESS_MAIN(cases)
