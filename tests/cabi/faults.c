/* A failing driver call at every place of every path, over the stand-in driver: the call of the library's that met it says so, with a
 * message; nothing leaks; what is left is usable or says that it is not; no step that claims to be done is wrong. */
#include "../../engine/device/cuda/driver.h"
#include "chain.h"

enum { BROKEN = 999, NO_MEMORY = 2 }; /* CUDA_ERROR_UNKNOWN, _OUT_OF_MEMORY */

/* Calls that give something back: where one fails, the thing stays, and the driver's report has it. */
static bool gives_back(const char *name) {
  static const char *const words[] = {"Destroy", "Free", "Release", "Unload", "Unmap"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strstr(name, words[i])) return true;
  return false;
}

static struct {
  const char *name;
  uint64_t n;
} fault; /* the one that is tried */

static adcg_value w;
static float *weight[2];
static int64_t weight_shape[] = {COLUMNS};

static adcg_status weigh(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return device_add(call, adcg_data(&call->inputs[0]), adcg_data(&call->inputs[1]), adcg_data(&call->outputs[0]),
                    adcg_numel(&call->outputs[0]), COLUMNS, 0);
}

/* x + 1 (static), + w (static), + 1 (dynamic, of any capture support), + 1 (static, not parametric). */
static void build(void) {
  adcg_op_schema first = mini_schema("t.first", ADCG_OP_STATIC, mini_increment), add = mini_schema("t.weigh", ADCG_OP_STATIC, weigh),
                 dynamic = mini_schema("t.dynamic", ADCG_OP_DYNAMIC, mini_increment),
                 last = mini_schema("t.last", ADCG_OP_STATIC, mini_increment);
  adcg_dim row[] = {ADCG_DIM(COLUMNS)};
  dynamic.capture = ADCG_CAPTURE_UNIFORM_DECODE;
  last.flags = 0;
  add.num_inputs = 2;
  adcg_value v = mini_add(&m, &first, NULL, m.input);
  mini_register(&m, &add, NULL);
  TRY(adcg_graph_add_weight(m.graph, "w", ADCG_F32, 1, row, &w));
  TRY(adcg_graph_add_op(m.graph, "t.weigh", (adcg_value[]){v, w}, 2, NULL, 0, &v, 1));
  v = mini_add(&m, &dynamic, NULL, v);
  mini_freeze(&m, mini_add(&m, &last, NULL, v));
}

static adcg_status bind(int which) {
  DLTensor tensor = mini_tensor(weight[which], 1, weight_shape);
  return adcg_exec_bind(m.exec, w, &tensor);
}

/* A step, checked if it says that it ran. The copies that bring and fetch are calls of the path, too. */
static adcg_status step(adcg_batch batch, float added) {
  for (int i = 0; i < MAX_ROWS * COLUMNS; i++) m.x_data[i] = (float)(i + 1);
  memset(m.y_data, 0xEE, sizeof m.y_data);
  adcg_status status = adcg_memory_copy(m.engine, m.x, m.x_data, sizeof m.x_data);
  if (!status) status = adcg_memory_copy(m.engine, m.y, m.y_data, sizeof m.y_data);
  if (!status) status = adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, m.stream, &m.step);
  if (!status) status = adcg_exec_synchronize(m.exec);
  if (!status) status = adcg_memory_copy(m.engine, m.y_data, m.y, sizeof m.y_data);
  if (status) return status;
  for (int64_t i = 0; i < adcg_batch_tokens(&batch) * COLUMNS; i++) {
    if (m.y_data[i] == m.x_data[i] + added) continue;
    fprintf(stderr, "%s, call %d: y[%d] is %g, expected %g + %g, of %d tokens in mode %d\n", fault.name, (int)fault.n, (int)i,
            (double)m.y_data[i], (double)m.x_data[i], (double)added, (int)adcg_batch_tokens(&batch), (int)m.step.mode);
    exit(1);
  }
  return ADCG_OK;
}

static void *streams[2];

/* Every path there is, up to the first failure, which it returns. */
static adcg_status life(int32_t mode) {
  adcg_exec_options options = options_of(mode);
  adcg_status status = adcg_engine_create(device_name(), NULL, &m.engine);
  if (status) return status;
  void *memory[4];
  const size_t bytes[] = {sizeof m.x_data, sizeof m.y_data, COLUMNS * sizeof(float), COLUMNS * sizeof(float)};
  for (int i = 0; i < 4; i++)
    if ((status = adcg_memory_alloc(m.engine, bytes[i], &memory[i]))) return status;
  m.x = memory[0], m.y = memory[1], weight[0] = memory[2], weight[1] = memory[3];
  for (int i = 0; i < 2; i++) {
    const float row[] = {i ? 10 : 1, i ? 10 : 1, i ? 10 : 1, i ? 10 : 1};
    if ((status = adcg_memory_copy(m.engine, weight[i], row, sizeof row))) return status;
  }
  m.x_tensor = mini_tensor(m.x, 2, m.x_shape);
  m.y_tensor = mini_tensor(m.y, 2, m.y_shape);
  adcg_graph_limits limits = {sizeof limits, 128, 8, 0};
  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(COLUMNS)};
  TRY(adcg_graph_create(m.engine, &limits, &m.graph));
  TRY(adcg_graph_add_input(m.graph, "x", ADCG_F32, 2, rows, &m.input));
  build();
  if ((status = adcg_exec_create(m.graph, &options, &m.exec))) return status;
  if ((status = bind(0))) return status;
  if ((status = adcg_exec_capture(m.exec, NULL, 0, NULL, NULL))) return status;
  if ((status = step(mixed(1, 9, 0), 4))) return status;
  if ((status = step(mixed(0, 0, 3), 4))) return status;
  m.x_shape[0] = m.y_shape[0] = 9; /* staged */
  if ((status = step(mixed(1, 9, 0), 4))) return status;
  m.x_shape[0] = m.y_shape[0] = MAX_ROWS;
  m.stream = streams[0];
  if ((status = step(mixed(1, 20, 0), 4))) return status;
  m.x_tensor.byte_offset = 64 * sizeof(float); /* moved */
  m.x_shape[0] = MAX_ROWS - 16;
  status = step(mixed(1, 20, 0), 4 + 64);
  m.x_tensor.byte_offset = 0;
  m.x_shape[0] = MAX_ROWS;
  if (status || (status = bind(1))) return status; /* captured anew */
  m.stream = streams[1];
  if ((status = step(mixed(1, 9, 0), 13))) return status;
  if ((status = adcg_exec_release(m.exec))) return status;
  if ((status = adcg_exec_restore(m.exec))) return status;
  if ((status = step(mixed(1, 9, 0), 13))) return status;
  if ((status = step(mixed(1, 100, 0), 13))) return status; /* eager */
  if ((status = adcg_exec_wait_stream(m.exec, streams[0]))) return status;
  if ((status = adcg_stream_wait_exec(streams[1], m.exec))) return status;
  return adcg_memory_free(m.engine, weight[0]);
}

static void end_of_life(void) {
  adcg_exec_destroy(m.exec);
  adcg_graph_destroy(m.graph);
  adcg_engine_destroy(m.engine);
}

static void begin_of_life(void) {
  memset(&m, 0, sizeof m);
  m.x_shape[0] = m.y_shape[0] = MAX_ROWS;
  m.x_shape[1] = m.y_shape[1] = COLUMNS;
  m.step = (adcg_step)ADCG_STEP_INIT;
}

static char text[16384];

/* One life in which the n-th call of `name` fails; false: there was no such call. */
static bool one_fault(const char *name, uint64_t n, int status, int32_t mode) {
  const size_t before = cu.fakecuda_leaks(NULL, 0);
  begin_of_life();
  fault.name = name, fault.n = n;
  cu.fakecuda_fail(name, n, status);
  adcg_status met = life(mode);
  const bool delivered = cu.fakecuda_failed();
  if (met && (!delivered || !adcg_last_error()[0])) {
    fprintf(stderr, "%s, call %d: %s without a fault or a message: \"%s\"\n", name, (int)n, adcg_status_name(met), adcg_last_error());
    exit(1);
  }
  cu.fakecuda_fail(NULL, 0, 0);
  if (met && m.exec) { /* usable, or dead with a status; `step` looks at the numbers of what ran */
    m.stream = NULL;
    (void)adcg_exec_restore(m.exec); /* where it was released */
    TRY(adcg_exec_synchronize(m.exec)); /* a step may have begun, and writes x's tail */
    bool bound = bind(0) == ADCG_OK;
    adcg_status after = bound ? step(mixed(1, 9, 0), 4) : ADCG_OK;
    if (after) fprintf(stderr, "%s, call %d: the exec is dead: %s\n", name, (int)n, adcg_last_error());
    if (!after && bound) TRY(step(mixed(0, 0, 2), 4));
    CHECK_INT(after, ADCG_OK);
  }
  if (!delivered) cu.fakecuda_fail(name, n > 1000 ? n : 1, status); /* the first of what ends a life */
  end_of_life();
  const bool at_end = cu.fakecuda_failed();
  cu.fakecuda_fail(NULL, 0, 0);
  const size_t left = cu.fakecuda_leaks(text, sizeof text);
  if (left > before && !((delivered || at_end) && gives_back(name))) {
    fprintf(stderr, "%s, call %d (%s): left behind:\n%s", name, (int)n, adcg_status_name(met), text);
    exit(1);
  }
  return delivered;
}

/* The library's calls, by the driver's names for their variants. */
static const char *const calls[] = {
#define NAME(call, ...) #call, #call "_v2", #call "_v3",
    ADCG_CUDA_CALLS(NAME)
#undef NAME
};

/* The first dozen calls of each name, then ever fewer; all of them with ADCG_TEST_EVERY_FAULT set (minutes). */
static uint64_t next_fault(uint64_t n) { return n + (n < 12 || getenv("ADCG_TEST_EVERY_FAULT") ? 1 : n / 3); }

static void every_call(int status, int32_t mode) {
  device_open();
  if (!cu.fakecuda_fail) SKIP("not over the stand-in driver");
  for (int i = 0; i < 2; i++) CU(cuStreamCreate(&streams[i], 1));
  int faults = 0, names = 0;
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    const int before = faults;
    for (uint64_t n = 1; one_fault(calls[i], n, status, mode); n = next_fault(n)) faults++;
    names += faults > before;
  }
  printf("%d faults in %d calls\n", faults, names);
  CHECK(faults > 200 && names > 40);
}

static void every_call_fails(void) { every_call(BROKEN, ADCG_MODE_FULL_AND_PIECEWISE); }
static void every_call_lacks_memory(void) { every_call(NO_MEMORY, ADCG_MODE_PIECEWISE); }

static const harness_case cases[] = {
    {"every_call_fails", every_call_fails},
    {"every_call_lacks_memory", every_call_lacks_memory},
};
HARNESS_MAIN(cases)
