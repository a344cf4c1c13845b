/* Every call that can fail, failing: a status with the call's name, nothing leaked, and right results afterwards. */
#define _GNU_SOURCE
#include <pthread.h>

#include "bench.h"

/* ---- Opening ---------------------------------------------------------------------------------------------------------------------- */

static adcgk_lt *try_open(const adcgk_lt_options *options) {
  void *functions[32];
  lt_functions_of(functions);
  return adcgk_lt_open(functions, options, message, sizeof message);
}

static void open_needs_a_context(void) {
  CHECK(!try_open(NULL));
  CHECK(strstr(message, "cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED"));
  CHECK_INT(fakecublaslt_handles(), 0);
}

static void open_refuses_options(void) {
  adcgk_lt_options o = ADCGK_LT_OPTIONS_INIT;
  o.plain_cost = NAN;
  CHECK(!try_open(&o) && strstr(message, "plain_cost"));
  o = (adcgk_lt_options)ADCGK_LT_OPTIONS_INIT;
  o.alignment = 24;
  CHECK(!try_open(&o) && strstr(message, "alignment"));
  o = (adcgk_lt_options)ADCGK_LT_OPTIONS_INIT;
  o.pinned_rows = -1;
  CHECK(!try_open(&o) && strstr(message, "pinned_rows"));
}

/* Each call of the driver's below cublasLtCreate, and itself. */
static void open_fails(void) {
  bench b;
  for (uint64_t n = 1;; n++) {
    CHECK(n < 50);
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&b.context, 0));
    OK(cuCtxSetCurrent(b.context));
    fakecuda_fail(NULL, n, CUDA_ERROR_OUT_OF_MEMORY);
    adcgk_lt *lt = try_open(NULL);
    const int failed = fakecuda_failed();
    fakecuda_fail(NULL, 0, 0);
    CHECK(failed == !lt);
    CHECK_INT(fakecublaslt_handles(), failed ? 0 : 1);
    if (failed) CHECK(strstr(message, "cublasLtCreate: CUBLAS_STATUS_"));
    adcgk_lt_close(lt);
    OK(cuDevicePrimaryCtxRelease_v2(0));
    char text[256];
    CHECK_INT(fakecuda_leaks(text, sizeof text), 0);
    if (failed) continue;
    CHECK(n > 3);
    break;
  }
}

/* ---- Launching -------------------------------------------------------------------------------------------------------------------- */

static const spec specs[] = {{.m = 8, .n = 64, .k = 256, .x_bf16 = 1, .w_bf16 = 1, .bias = 2},
                             {.m = 8, .n = 64, .k = 256, .x_bf16 = 1, .w_bf16 = 1, .bias = 1, .activation = "silu"}};
enum { SPECS = sizeof specs / sizeof specs[0] };

static adcg_status status_of(int library) {
  return library == 3 ? ADCG_ERR_OUT_OF_MEMORY : library == 8 || library == 15 ? ADCG_ERR_UNSUPPORTED : ADCG_ERR_DEVICE;
}

/* The n-th call of the library's fails with this status; false when there are not so many. */
static bool fail_nth(const spec *s, uint64_t n, int status, bool capture, int64_t pinned) {
  adcgk_lt_options options = ADCGK_LT_OPTIONS_INIT;
  options.pinned_rows = pinned;
  bench b;
  product p;
  bench_open(&b, &options);
  product_open(&b, &p, s);
  b.device.batch_invariant = pinned > 0;
  CUgraph graph = NULL;
  if (capture) OK(cuStreamBeginCapture_v2(b.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  fakecublaslt_fail(NULL, n, status);
  const adcg_status got = product_run(&b, &p);
  const bool failed = fakecublaslt_failed() != 0;
  fakecublaslt_fail(NULL, 0, 0);
  if (capture) {
    OK(cuStreamEndCapture(b.stream, &graph));
    OK(cuGraphDestroy(graph));
  }
  if (failed && got != ADCG_OK) {
    CHECK_INT(got, status_of(status));
    CHECK(strstr(message, "cublasLt"));
    CHECK(strstr(message, "CUBLAS_STATUS_"));
    CHECK(strstr(message, "x bfloat16 [8, 256], weight [64, 256]"));
  } else {
    CHECK_INT(got, ADCG_OK);
    if (failed) CHECK_INT(status, 15); /* that there is no algorithm is an answer: another one, or our own kernel */
    if (!capture) check_right(&p);
  }
  CHECK_INT(product_run(&b, &p), ADCG_OK); /* what failed is not remembered */
  check_right(&p);
  product_close(&p);
  bench_close(&b);
  return failed;
}

static void fail_each(const spec *s, int status, bool capture, int64_t pinned) {
  uint64_t n = 1;
  while (fail_nth(s, n, status, capture, pinned)) n++;
  CHECK(n > 20);
}

static void library_fails(void) {
  const int classes[] = {3, 13, 15}, others[] = {1, 7, 8, 11, 14, 16};
  for (int i = 0; i < 3; i++) {
    for (int s = 0; s < SPECS; s++) {
      fail_each(&specs[s], classes[i], false, 0);
      fail_each(&specs[s], classes[i], true, 0);
    }
    fail_each(&specs[0], classes[i], false, 64);
  }
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) CHECK(fail_nth(&specs[0], 1, others[i], false, 0));
}

/* Each call of the driver's below a product: the library says EXECUTION_FAILED, or the launcher its own word. */
static void driver_fails(void) {
  for (int s = 0; s < SPECS; s++) {
    for (uint64_t n = 1;; n++) {
      CHECK(n < 100);
      bench b;
      product p;
      bench_open(&b, NULL);
      product_open(&b, &p, &specs[s]);
      CHECK_INT(product_run(&b, &p), ADCG_OK);
      OK(cuStreamSynchronize(b.stream));
      product_reset(&p);
      fakecuda_fail(NULL, n, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
      const adcg_status got = product_run(&b, &p);
      const bool failed = fakecuda_failed() != 0;
      fakecuda_fail(NULL, 0, 0);
      CHECK_INT(got, failed ? ADCG_ERR_DEVICE : ADCG_OK);
      if (failed) CHECK(strstr(message, "cublasLtMatmul: CUBLAS_STATUS_") || strstr(message, "cuLaunchKernel"));
      CHECK_INT(product_run(&b, &p), ADCG_OK);
      check_right(&p);
      product_close(&p);
      bench_close(&b);
      if (failed) continue;
      CHECK(n > 5);
      break;
    }
  }
}

static void another_context(void) {
  bench b;
  product p;
  bench_open(&b, NULL);
  product_open(&b, &p, &specs[0]);
  OK(cuCtxSetCurrent(NULL));
  CHECK_INT(product_run(&b, &p), ADCG_ERR_DEVICE);
  CHECK(strstr(message, "cublasLtMatmul: CUBLAS_STATUS_INVALID_VALUE"));
  OK(cuCtxSetCurrent(b.context));
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  check_right(&p);
  product_close(&p);
  bench_close(&b);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------------------------- */

enum { THREADS = 8, ROUNDS = 12 };

typedef struct worker {
  const bench *b;
  pthread_barrier_t *start;
  int number;
} worker;

/* All shapes in another order each, the first at the same time: choices are made, kept and read at once. */
static void *work(void *context) {
  const worker *w = context;
  bench b = *w->b;
  OK(cuCtxSetCurrent(b.context));
  OK(cuStreamCreate(&b.stream, CU_STREAM_NON_BLOCKING));
  pthread_barrier_wait(w->start);
  for (int round = 0; round < ROUNDS; round++) {
    const int shape = (round * (w->number % 3 + 1)) % ROUNDS;
    const spec s = {.m = 1 + shape, .n = 24 + 8 * (shape % 3), .k = 64, .x_bf16 = shape & 1, .w_bf16 = shape & 1, .bias = shape % 3};
    product p;
    product_open(&b, &p, &s);
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    check_right(&p);
    product_close(&p);
  }
  OK(cuStreamDestroy_v2(b.stream));
  return NULL;
}

static void many_threads(void) {
  bench b;
  bench_open(&b, NULL);
  pthread_t threads[THREADS];
  worker workers[THREADS];
  pthread_barrier_t start;
  CHECK_INT(pthread_barrier_init(&start, NULL, THREADS), 0);
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (worker){&b, &start, i};
    CHECK_INT(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
  pthread_barrier_destroy(&start);
  bench_close(&b);
}

static const harness_case cases[] = {{"open_needs_a_context", open_needs_a_context},
                                     {"open_refuses_options", open_refuses_options},
                                     {"open_fails", open_fails},
                                     {"library_fails", library_fails},
                                     {"driver_fails", driver_fails},
                                     {"another_context", another_context},
                                     {"many_threads", many_threads}};

int main(int argc, char **argv) { return harness_main(argc, argv, cases, sizeof cases / sizeof cases[0]); }
