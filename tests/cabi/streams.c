/* Order on a CUDA device: steps on streams of the caller's, waits between them and an exec, and nothing of it on the host. The stand-in
 * runs only what it must, so a missing edge shows as work that is not done. */
#include "chain.h"

enum { BYTES = 9 * COLUMNS * (int)sizeof(float) };

static uint64_t address(const float *memory) { return (uint64_t)(uintptr_t)memory; }

static void *new_stream(void) {
  void *stream = NULL;
  CU(cuStreamCreate(&stream, 1));
  return stream;
}

static void chain_exec(int32_t mode) {
  open_chain(ADCG_CAPTURE_ALWAYS);
  adcg_exec_options options = options_of(mode);
  mini_exec(&m, &options);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  for (int i = 0; i < MAX_ROWS * COLUMNS; i++) m.x_data[i] = (float)(i + 1);
  mini_bring(&m);
}

static void replay_on(void *stream, float *x, float *y) {
  adcg_batch batch = mixed(1, 9, 0);
  m.x_tensor.data = x, m.y_tensor.data = y; /* its copies m.x and m.y stay */
  TRY(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, stream, &m.step));
}

static void expect_added(const float *y, float added) {
  for (int i = 0; i < 9 * COLUMNS; i++) {
    if (y[i] == (float)(i + 1) + added) continue;
    fprintf(stderr, "y[%d] is %g, expected %g + %g\n", i, (double)y[i], (double)(i + 1), (double)added);
    exit(1);
  }
}

/* Each step reads what the one before wrote, on another stream, and nobody but the exec orders them. */
static void alternating_streams(void) {
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL; mode++) {
    chain_exec(mode);
    void *streams[] = {new_stream(), NULL, (void *)1, new_stream(), (void *)2};
    enum { STEPS = 23 };
    for (int i = 0; i < STEPS; i++) replay_on(streams[i % 5], i % 2 ? m.y : m.x, i % 2 ? m.x : m.y);
    void *last = streams[(STEPS - 1) % 5];
    CU(cuMemcpyDtoHAsync_v2(m.y_data, address(m.y), BYTES, last));
    CU(cuStreamSynchronize(last));
    expect_added(m.y_data, 3 * STEPS);
    CU(cuStreamDestroy_v2(streams[0]));
    CU(cuStreamDestroy_v2(streams[3]));
    mini_close(&m);
  }
}

/* Staged tensors too: the staging blocks are one for all streams. Each step's output is fetched on its stream. */
static void staged_on_streams(void) {
  chain_exec(ADCG_MODE_PIECEWISE);
  enum { STEPS = 12 };
  static float results[STEPS][9 * COLUMNS];
  void *streams[] = {new_stream(), new_stream(), NULL};
  m.x_shape[0] = m.y_shape[0] = 9; /* the bucket has 16 */
  float *y[STEPS];
  for (int i = 0; i < STEPS; i++) {
    y[i] = device_alloc(m.engine, BYTES);
    replay_on(streams[i % 3], i ? y[i - 1] : m.x, y[i]);
    CHECK_INT(m.step.staged_bytes, 2 * BYTES);
    if (streams[i % 3]) CU(cuMemcpyDtoHAsync_v2(results[i], address(y[i]), BYTES, streams[i % 3]));
  }
  TRY(adcg_exec_synchronize(m.exec));
  CU(cuStreamSynchronize(streams[0]));
  CU(cuStreamSynchronize(streams[1]));
  for (int i = 0; i < STEPS; i++)
    if (streams[i % 3]) expect_added(results[i], (float)(3 * (i + 1)));
  CU(cuStreamDestroy_v2(streams[0]));
  CU(cuStreamDestroy_v2(streams[1]));
  mini_close(&m);
}

/* An input that is brought on one stream and an output that is read on another, beside a step on the exec's own. */
static void waits(void) {
  for (int edges = 0; edges < 4; edges++) { /* bit 0: the exec waits; bit 1: the reader does */
    chain_exec(ADCG_MODE_PIECEWISE);
    void *writer = new_stream(), *reader = new_stream();
    float x[9 * COLUMNS];
    for (int i = 0; i < 9 * COLUMNS; i++) x[i] = (float)(i + 1001);
    replay_on(NULL, m.x, m.y); /* what was before keeps its place */
    CU(cuMemcpyHtoDAsync_v2(address(m.x), x, BYTES, writer));
    if (edges & 1) TRY(adcg_exec_wait_stream(m.exec, writer));
    replay_on(NULL, m.x, m.y);
    if (edges & 2) TRY(adcg_stream_wait_exec(reader, m.exec));
    CU(cuMemcpyDtoHAsync_v2(m.y_data, address(m.y), BYTES, reader));
    CU(cuStreamSynchronize(reader));
    if (edges == 3) {
      expect_added(m.y_data, 1003);
    } else if (cu.fakecuda_leaks) { /* the missing edge is seen, or this case could not fail */
      CHECK(m.y_data[0] != x[0] + 3);
    }
    TRY(adcg_exec_synchronize(m.exec));
    CU(cuStreamSynchronize(writer));
    CU(cuStreamDestroy_v2(writer));
    CU(cuStreamDestroy_v2(reader));
    mini_close(&m);
  }
}

/* A wait holds also where the next step runs on a stream of the caller's, and where the stream is a default one. */
static void waits_of_every_stream(void) {
  chain_exec(ADCG_MODE_FULL);
  float x[9 * COLUMNS], before[9 * COLUMNS];
  for (int i = 0; i < 9 * COLUMNS; i++) x[i] = (float)(i + 1001), before[i] = (float)(i + 1);
  void *mine = new_stream(), *writers[] = {new_stream(), (void *)1, (void *)2};
  for (int i = 0; i < 9; i++) {
    void *on = i % 3 == 2 ? NULL : i % 3 ? mine : writers[0], *reader = new_stream();
    CU(cuMemcpyHtoDAsync_v2(address(m.x), i % 2 ? x : before, BYTES, writers[i / 3]));
    TRY(adcg_exec_wait_stream(m.exec, writers[i / 3]));
    replay_on(on, m.x, m.y);
    TRY(adcg_stream_wait_exec(reader, m.exec));
    CU(cuMemcpyDtoHAsync_v2(m.y_data, address(m.y), BYTES, reader));
    CU(cuStreamSynchronize(reader));
    expect_added(m.y_data, i % 2 ? 1003 : 3);
    CU(cuStreamDestroy_v2(reader));
  }
  CU(cuStreamDestroy_v2(mine));
  CU(cuStreamDestroy_v2(writers[0]));
  mini_close(&m);
}

static void bad_waits(void) {
  chain_exec(ADCG_MODE_PIECEWISE);
  FAILS(adcg_exec_wait_stream(m.exec, NULL), ADCG_ERR_ARGUMENT, "stream", "NULL");
  FAILS(adcg_stream_wait_exec(NULL, m.exec), ADCG_ERR_ARGUMENT, "stream", "NULL");
  FAILS(adcg_exec_wait_stream(NULL, (void *)1), ADCG_ERR_ARGUMENT, "exec");
  FAILS(adcg_stream_wait_exec((void *)1, NULL), ADCG_ERR_ARGUMENT, "exec");
  TRY(adcg_stream_wait_exec((void *)1, m.exec)); /* there was no step yet */
  TRY(adcg_exec_synchronize(m.exec));
  mini_step(&m, mixed(1, 9, 0), 3);
  mini_close(&m);
}

/* A step waits for nothing on the host, and an exec that goes away waits for its steps. */
static void destroyed_behind_a_step(void) {
  chain_exec(ADCG_MODE_PIECEWISE);
  void *stream = new_stream();
  replay_on(stream, m.x, m.y);
  if (cu.fakecuda_leaks) CHECK(cu.cuStreamQuery(stream) == 600); /* CUDA_ERROR_NOT_READY: nobody waited */
  adcg_exec_destroy(m.exec);
  m.exec = NULL;
  TRY(adcg_memory_copy(m.engine, m.y_data, m.y, sizeof m.y_data));
  expect_added(m.y_data, 3);
  CU(cuStreamDestroy_v2(stream));
  mini_close(&m);
}

static const harness_case cases[] = {
    {"alternating_streams", alternating_streams},
    {"staged_on_streams", staged_on_streams},
    {"waits", waits},
    {"waits_of_every_stream", waits_of_every_stream},
    {"bad_waits", bad_waits},
    {"destroyed_behind_a_step", destroyed_behind_a_step},
};
HARNESS_MAIN(cases)
