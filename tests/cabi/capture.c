/* Captures on a CUDA device: what breaks them, what goes on beside them, what they hold of the caller's, and which driver they need. */
#define _GNU_SOURCE
#include <pthread.h>

#include "chain.h"

/* ---- Ops that break a capture ------------------------------------------------------------------------------------------ */

enum breach { ALLOCATES, FREES, SYNCHRONISES, SYNCHRONISES_ALL, QUERIES, ALLOCATES_IN_ORDER, FORKS, FAILS_ITSELF, NUM_BREACHES };

static const char *const names[] = {"t.allocates",          "t.frees", "t.synchronises", "t.synchronises_all", "t.queries",
                                    "t.allocates_in_order", "t.forks", "t.fails"};

static void *other_stream, *event;
static bool launches_first;

static adcg_status commit(enum breach breach, const adcg_op_call *call) {
  static uint64_t memory;
  switch (breach) {
    case ALLOCATES:
      if (cu.cuMemAlloc_v2(&memory, 64) == 0) cu.cuMemFree_v2(memory);
      break;
    case FREES: cu.cuMemFree_v2(0x1000); break; /* of nothing that is */
    case SYNCHRONISES: cu.cuStreamSynchronize(call->stream); break;
    case SYNCHRONISES_ALL: cu.cuCtxSynchronize(); break;
    case QUERIES: cu.cuStreamQuery(call->stream); break;
    case ALLOCATES_IN_ORDER: cu.cuMemAllocAsync(&memory, 64, call->stream); break;
    case FORKS:
      cu.cuEventRecord(event, call->stream);
      cu.cuStreamWaitEvent(other_stream, event, 0);
      cu.cuMemsetD8Async((uint64_t)(uintptr_t)adcg_data(&call->outputs[0]), 0, 4, other_stream);
      break;
    case FAILS_ITSELF: return adcg_op_fail(call, "not today");
    default: break;
  }
  return ADCG_OK;
}

static adcg_status breach_launch(const adcg_op_call *call, void *user_data) {
  const enum breach *breach = user_data;
  const bool now = call->phase == ADCG_PHASE_CAPTURE && call->tokens == 64;
  adcg_status status = launches_first ? mini_increment(call, NULL) : ADCG_OK;
  if (!status && now) status = commit(*breach, call);
  if (!status && !launches_first) status = mini_increment(call, NULL);
  return status;
}

/* Relaxed captures allow calls that are dangerous, not impossible. */
static bool allowed(enum breach breach, int32_t mode) {
  return mode == ADCG_CAPTURE_MODE_RELAXED && (breach == ALLOCATES || breach == FREES);
}

static void broken_captures(void) {
  for (int32_t mode = ADCG_CAPTURE_MODE_THREAD_LOCAL; mode <= ADCG_CAPTURE_MODE_RELAXED; mode++) {
    for (int i = 0; i < 4 * NUM_BREACHES; i++) {
      enum breach breach = (enum breach)(i / 4);
      launches_first = i & 1;
      const bool says_parametric = i & 2; /* and does what such an op must not */
      mini_open(&m, 128, 8);
      CU(cuStreamCreate(&other_stream, 1));
      CU(cuEventCreate(&event, 2));
      adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment),
                     breaks = mini_schema(names[breach], ADCG_OP_STATIC, breach_launch);
      breaks.flags = says_parametric ? ADCG_OP_PARAMETRIC : 0;
      adcg_value v = mini_add(&m, &plain, NULL, m.input);
      mini_freeze(&m, mini_add(&m, &breaks, &breach, v));
      adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
      options.capture_mode = mode;
      mini_exec(&m, &options);
      fprintf(stderr, "mode %d, %s%s, launches %s: ", (int)mode, names[breach], says_parametric ? " (parametric)" : "",
              launches_first ? "first" : "last");
      if (allowed(breach, mode)) {
        TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
      } else {
        FAILS(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL), breach == FORKS ? ADCG_ERR_DEVICE : ADCG_ERR_OP, names[breach]);
        CHECK_INT(mini_stats(&m).failed_buckets, 1);
      }
      fprintf(stderr, "%s\n", adcg_last_error());
      CHECK_INT(mini_stats(&m).captured_buckets, allowed(breach, mode) ? 2 : 1);
      mini_step(&m, mixed(1, 9, 0), 2);
      CHECK_INT(m.step.mode, ADCG_MODE_PIECEWISE);
      mini_step(&m, mixed(1, 20, 0), 2);
      CHECK_INT(m.step.reason, allowed(breach, mode) ? ADCG_REASON_MODE : ADCG_REASON_CAPTURE_FAILED);
      CHECK_INT(m.step.mode, allowed(breach, mode) ? ADCG_MODE_PIECEWISE : ADCG_MODE_NONE);
      CU(cuEventDestroy_v2(event));
      CU(cuStreamDestroy_v2(other_stream));
      mini_close(&m);
    }
  }
}

/* A fork that comes back is as good as any. */
static adcg_status fork_and_join(const adcg_op_call *call, void *user_data) {
  adcg_status status = mini_increment(call, user_data);
  if (status) return status;
  CU(cuEventRecord(event, call->stream));
  CU(cuStreamWaitEvent(other_stream, event, 0));
  CU(cuMemsetD8Async((uint64_t)(uintptr_t)call->workspace, 1, 64, other_stream));
  CU(cuEventRecord(event, other_stream));
  CU(cuStreamWaitEvent(call->stream, event, 0));
  return ADCG_OK;
}
static adcg_status some_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)call, (void)user_data;
  *out_bytes = 64;
  return ADCG_OK;
}

static void joined_forks(void) {
  mini_open(&m, 128, 8);
  CU(cuStreamCreate(&other_stream, 1));
  CU(cuEventCreate(&event, 2));
  adcg_op_schema schema = mini_schema("t.joins", ADCG_OP_STATIC, fork_and_join);
  schema.flags = 0;
  schema.workspace = some_workspace;
  mini_freeze(&m, mini_add(&m, &schema, NULL, m.input));
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  mini_exec(&m, &options);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  mini_step(&m, mixed(1, 9, 0), 1);
  CHECK_INT(m.step.mode, ADCG_MODE_PIECEWISE);
  CU(cuEventDestroy_v2(event));
  CU(cuStreamDestroy_v2(other_stream));
  mini_close(&m);
}

/* ---- Beside a capture --------------------------------------------------------------------------------------------------- */

static volatile bool stop;

static void *replay_and_create(void *argument) {
  mini *mine = argument;
  adcg_exec *second;
  for (int i = 0; !stop || i < 20; i++) {
    mini_step(mine, mixed(1, 1 + i % 60, 0), 3);
    if (i % 8) continue;
    TRY(adcg_exec_create(mine->graph, NULL, &second));
    adcg_exec_destroy(second); /* not while something is captured: then later */
  }
  return NULL;
}

static void beside_a_capture(void) { /* replays, creates and destroys of other execs, on another thread */
  static mini other;
  open_chain(ADCG_CAPTURE_ALWAYS);
  other = m;
  other.x_tensor = mini_tensor(other.x = device_alloc(m.engine, sizeof m.x_data), 2, other.x_shape);
  other.y_tensor = mini_tensor(other.y = device_alloc(m.engine, sizeof m.y_data), 2, other.y_shape);
  adcg_exec_options options = options_of(ADCG_MODE_FULL_AND_PIECEWISE);
  TRY(adcg_exec_create(m.graph, &options, &other.exec));
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, replay_and_create, &other) == 0);
  for (int i = 0; i < 12; i++) {
    mini_exec(&m, &options);
    TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
    mini_step(&m, mixed(1, 9, 2), 3);
    CHECK_INT(m.step.mode, ADCG_MODE_FULL);
    if (i < 11) adcg_exec_destroy(m.exec);
  }
  stop = true;
  CHECK(pthread_join(thread, NULL) == 0);
  adcg_exec_destroy(other.exec);
  mini_close(&m);
}

static adcg_exec *doomed;
static adcg_status destroy_launch(const adcg_op_call *call, void *user_data) {
  if (call->phase == ADCG_PHASE_CAPTURE) {
    adcg_exec_destroy(doomed);
    doomed = NULL;
  }
  return mini_increment(call, user_data);
}

static void destroyed_in_a_capture(void) {
  mini_open(&m, 128, 8);
  adcg_op_schema schema = mini_schema("t.destroys", ADCG_OP_STATIC, destroy_launch);
  mini_freeze(&m, mini_add(&m, &schema, NULL, m.input));
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  mini_exec(&m, &options);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  doomed = m.exec;
  mini_exec(&m, &options);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  CHECK(doomed == NULL);
  mini_step(&m, mixed(1, 9, 0), 1);
  CHECK_INT(m.step.mode, ADCG_MODE_PIECEWISE);
  mini_close(&m);
}

/* ---- What graphs hold of the caller's ------------------------------------------------------------------------------------ */

/* Every step at other addresses. Of a parametric op the nodes are given them; another's tensors are staged. */
static void moving_pointers(void) {
  enum { PLACES = 5 };
  for (int i = 0; i < 4; i++) {
    const bool parametric = i & 1, full = i & 2;
    mini_open(&m, 128, 8);
    adcg_op_schema schema = mini_schema("t.moves", full ? ADCG_OP_DYNAMIC : ADCG_OP_STATIC, mini_increment);
    schema.capture = full ? ADCG_CAPTURE_ALWAYS : ADCG_CAPTURE_NEVER;
    schema.flags = parametric ? ADCG_OP_PARAMETRIC : 0;
    mini_register(&m, &schema, NULL);
    adcg_value v = m.input;
    for (int k = 0; k < 3; k++) TRY(adcg_graph_add_op(m.graph, "t.moves", &v, 1, NULL, 0, &v, 1));
    mini_freeze(&m, v);
    adcg_exec_options options = options_of(full ? ADCG_MODE_FULL : ADCG_MODE_PIECEWISE);
    mini_exec(&m, &options);
    float *x[PLACES], *y[PLACES];
    for (int k = 0; k < PLACES; k++) x[k] = device_alloc(m.engine, sizeof m.x_data), y[k] = device_alloc(m.engine, sizeof m.y_data);
    for (int step = 0; step < 40; step++) {
      const int64_t tokens = step % 3 ? 7 + step % 5 : 40; /* both buckets, which see the moves in turn */
      m.x_tensor.data = m.x = x[step * 2 % PLACES], m.y_tensor.data = m.y = y[step * 3 % PLACES];
      mini_step(&m, mixed(1, tokens, 0), 3);
      CHECK_INT(m.step.mode, full ? ADCG_MODE_FULL : ADCG_MODE_PIECEWISE);
      CHECK_INT(m.step.staged_bytes, parametric ? 0 : 2 * tokens * COLUMNS * 4);
    }
    mini_close(&m);
  }
}

/* A parametric op whose kernel is given something else that comes of an address: its tensors are staged, or a step at another place
 * would have what the capture had. A zero's sign changes no sum. */
static adcg_status sign_launch(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const float *x = adcg_data(&call->inputs[0]);
  const float sign = (uintptr_t)x >> 32 & 1 ? -0.0f : 0.0f;
  return device_add(call, x, NULL, adcg_data(&call->outputs[0]), adcg_numel(&call->outputs[0]), 0, sign);
}

static void more_than_addresses(void) {
  mini_open(&m, 128, 8);
  adcg_op_schema schema = mini_schema("t.sign", ADCG_OP_STATIC, sign_launch);
  mini_freeze(&m, mini_add(&m, &schema, NULL, m.input));
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  mini_exec(&m, &options);
  for (int64_t tokens = 9; tokens < 30; tokens += 10) {
    mini_step(&m, mixed(1, tokens, 0), 0);
    CHECK_INT(m.step.mode, ADCG_MODE_PIECEWISE);
    CHECK_INT(m.step.staged_bytes, 2 * tokens * COLUMNS * 4);
  }
  mini_close(&m);
}

/* A graph is on the device before a step wants it: what the first launch would otherwise bring is in the capture. */
static void uploads(void) {
  open_chain(ADCG_CAPTURE_ALWAYS);
  if (!cu.fakecuda_calls) SKIP("not over the stand-in driver");
  adcg_exec_options options = options_of(ADCG_MODE_FULL_AND_PIECEWISE);
  mini_exec(&m, &options);
  const uint64_t instantiated = cu.fakecuda_calls("cuGraphInstantiateWithFlags"), uploaded = cu.fakecuda_calls("cuGraphUpload");
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  const uint64_t graphs = cu.fakecuda_calls("cuGraphInstantiateWithFlags") - instantiated;
  CHECK(graphs >= 6); /* two of each piecewise bucket, one of each full one */
  CHECK_INT(cu.fakecuda_calls("cuGraphUpload") - uploaded, graphs);
  mini_step(&m, mixed(1, 9, 0), 3);
  CHECK_INT(cu.fakecuda_calls("cuGraphUpload") - uploaded, graphs); /* a step brings none */
  mini_close(&m);
}

/* The bits of eager, whatever the bucket, the mode and the order in which it was captured. */
static void bits_of_eager(void) {
  static float eager[MAX_ROWS * COLUMNS];
  open_chain(ADCG_CAPTURE_ALWAYS);
  for (int order = 0; order < 3; order++) {
    for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
      adcg_exec_options options = options_of(mode);
      mini_exec(&m, &options);
      adcg_bucket_info info[16];
      adcg_bucket buckets[16];
      int32_t count = 0;
      for (; count < 16; count++) {
        info[count] = (adcg_bucket_info)ADCG_BUCKET_INFO_INIT;
        if (adcg_exec_get_bucket(m.exec, count, &info[count])) break;
      }
      for (int32_t i = 0; i < count; i++) buckets[i] = info[order == 1 ? count - 1 - i : i].bucket;
      if (order && count) TRY(adcg_exec_capture(m.exec, buckets, count, NULL, NULL));
      for (int i = 0; i < MAX_ROWS * COLUMNS; i++) m.x_data[i] = 1.0f / (float)(i + 3);
      TRY(mini_try(&m, mixed(1, 11, 2)));
      if (order == 0 && mode == ADCG_MODE_NONE) memcpy(eager, m.y_data, sizeof eager);
      CHECK(memcmp(eager, m.y_data, 13 * COLUMNS * sizeof(float)) == 0);
      adcg_exec_destroy(m.exec);
    }
  }
  m.exec = NULL;
  mini_close(&m);
}

/* A thread that has no context has none afterwards; what the device has not got is memory that is not there, not a device that failed. */
static void leaves_the_context(void) {
  void *context = NULL, *memory = &m;
  open_chain(ADCG_CAPTURE_ALWAYS);
  if (cu.fakecuda_calls) CHECK(cu.fakecuda_calls("cuFuncSetAttribute") > 0); /* kernels may have all the shared memory there is */
  CU(cuCtxPopCurrent_v2(&context));
  adcg_exec_options options = options_of(ADCG_MODE_FULL_AND_PIECEWISE);
  mini_exec(&m, &options);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  mini_step(&m, mixed(1, 9, 0), 3);
  FAILS(adcg_memory_alloc(m.engine, (size_t)1 << 50, &memory), ADCG_ERR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY");
  CU(cuCtxGetCurrent(&context));
  CHECK(context == NULL);
  CU(cuCtxPushCurrent_v2(cu.context));
  mini_close(&m);
}

/* ---- Drivers -------------------------------------------------------------------------------------------------------------- */

static void driver_12_0(void) { /* does not say how long parameters are: everything is staged */
  device_find();
  if (!cu.fakecuda_set_version) SKIP("not over the stand-in driver");
  setenv("FAKECUDA_VERSION", "12000", 1);
  open_chain(ADCG_CAPTURE_NEVER);
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  mini_exec(&m, &options);
  for (int i = 0; i < 3; i++) {
    mini_step(&m, mixed(1, 9, 0), 3);
    CHECK_INT(m.step.mode, ADCG_MODE_PIECEWISE);
    CHECK_INT(m.step.staged_bytes, 2 * 9 * COLUMNS * 4);
  }
  mini_close(&m);
}

static void driver_11_8(void) {
  device_find();
  if (!cu.fakecuda_set_version) SKIP("not over the stand-in driver");
  setenv("FAKECUDA_VERSION", "11080", 1);
  adcg_engine *engine;
  FAILS(adcg_engine_create(device_name(), NULL, &engine), ADCG_ERR_UNSUPPORTED, "cuda:0", "12.0");
  CHECK(engine == NULL);
  CHECK_INT(cu.fakecuda_leaks(NULL, 0), 0);
}

static void no_such_device(void) {
  adcg_engine *engine;
  FAILS(adcg_engine_create("cuda:7", NULL, &engine), ADCG_ERR_DEVICE, "cuda:7", "1 device");
  device_open(); /* whose end looks for what is left */
  device_close();
}

static const harness_case cases[] = {
    {"broken_captures", broken_captures},
    {"joined_forks", joined_forks},
    {"beside_a_capture", beside_a_capture},
    {"destroyed_in_a_capture", destroyed_in_a_capture},
    {"moving_pointers", moving_pointers},
    {"uploads", uploads},
    {"leaves_the_context", leaves_the_context},
    {"more_than_addresses", more_than_addresses},
    {"bits_of_eager", bits_of_eager},
    {"driver_12_0", driver_12_0},
    {"driver_11_8", driver_11_8},
    {"no_such_device", no_such_device},
};
HARNESS_MAIN(cases)
