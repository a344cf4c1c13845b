/* The batch in a CUDA device's memory, which kernels read when they run: whose it is in warm-ups, in captures, and behind a step that
 * failed; and that nobody zeroes a tail which the op's kernels zero. */
#include "chain.h"

static int32_t *total; /* a state: prefill tokens of all steps, as the device counts them */
static int64_t total_shape[] = {1};

static adcg_status count_tokens(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const int64_t *count = &call->device_batch->prefill_tokens;
  const void *sum = adcg_data(&call->inputs[1]);
  adcg_status status = device_launch(call, cu.count, 1, 1, (void *[]){&count, &sum});
  return status ? status : device_keep(call, adcg_data(&call->inputs[0]), adcg_data(&call->outputs[0]), adcg_numel(&call->outputs[0]));
}

/* y = x, and the state counts. */
static void counting_exec(int32_t mode) {
  mini_open(&m, 128, 8);
  adcg_op_schema schema = mini_schema("t.count", ADCG_OP_DYNAMIC, count_tokens);
  adcg_dim one[] = {ADCG_DIM(1)};
  adcg_value sum, v;
  schema.num_inputs = 2;
  schema.mutates = 1u << 1;
  schema.capture = ADCG_CAPTURE_ALWAYS;
  mini_register(&m, &schema, NULL);
  adcg_op_schema first = mini_schema("t.first", ADCG_OP_STATIC, mini_increment);
  v = mini_add(&m, &first, NULL, m.input);
  TRY(adcg_graph_add_state(m.graph, "total", ADCG_I32, 1, one, &sum));
  TRY(adcg_graph_add_op(m.graph, "t.count", (adcg_value[]){v, sum}, 2, NULL, 0, &v, 1));
  mini_freeze(&m, v);
  adcg_exec_options options = options_of(mode);
  mini_exec(&m, &options);
  total = device_alloc(m.engine, sizeof *total);
  TRY(adcg_memory_copy(m.engine, total, &(int32_t){0}, sizeof *total));
  DLTensor tensor = {total, device_of(), 1, adcg_dtype_to_dlpack(ADCG_I32), total_shape, NULL, 0};
  TRY(adcg_exec_bind(m.exec, sum, &tensor));
}

static int32_t counted(void) {
  int32_t sum;
  TRY(adcg_memory_copy(m.engine, &sum, total, sizeof sum));
  return sum;
}

/* Warm-ups, captures and first runs of graphs are over the empty batch, whatever the step before had; a step behind them has its own. */
static void captures_count_nothing(void) {
  static const int64_t tokens[] = {9, 40, 40, 9, 100, 40};
  for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
    int32_t expected = 0;
    counting_exec(mode);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) { /* the first two capture their buckets */
      mini_step(&m, mixed(1, tokens[i], 0), 1);
      CHECK_INT(counted(), expected += (int32_t)tokens[i]);
    }
    mini_close(&m);
  }
  counting_exec(ADCG_MODE_FULL);
  mini_step(&m, mixed(1, 9, 0), 1);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  CHECK_INT(counted(), 9);
  mini_step(&m, mixed(1, 9, 0), 1); /* the step before, again: the capture between has taken its counts away */
  CHECK_INT(counted(), 18);
  mini_close(&m);
}

/* A step whose end cannot be marked has failed, but its work is in the stream: it ends before the step says so, since nobody could wait
 * for it, and the next step, on another stream, has counts of its own. */
static void counts_behind_a_failure(void) {
  device_find();
  if (!cu.fakecuda_fail) SKIP("not over the stand-in driver");
  counting_exec(ADCG_MODE_NONE); /* launches of one executable come one behind the other, whatever the stream */
  void *streams[2];
  for (int i = 0; i < 2; i++) CU(cuStreamCreate(&streams[i], 1));
  m.stream = streams[0];
  mini_step(&m, mixed(1, 9, 0), 1);
  adcg_batch batch = mixed(1, 5, 0);
  int32_t sum;
  cu.fakecuda_fail("cuEventRecord", 1, 999);
  FAILS(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, streams[0], &m.step), ADCG_ERR_DEVICE, "end of the step");
  CHECK(cu.fakecuda_failed());
  TRY(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, streams[1], &m.step));
  CU(cuMemcpyDtoHAsync_v2(&sum, (uint64_t)(uintptr_t)total, sizeof sum, streams[1]));
  CU(cuStreamSynchronize(streams[1]));
  CHECK_INT(sum, 9 + 5 + 5);
  for (int i = 0; i < 2; i++) {
    CU(cuStreamSynchronize(streams[i]));
    CU(cuStreamDestroy_v2(streams[i]));
  }
  m.stream = NULL;
  mini_close(&m);
}

/* Kernels of a full graph, from what the driver holds for it: 110 KiB, and 2.5 KiB a kernel. */
static int64_t kernels_of(adcg_value y) {
  adcg_exec_options options = options_of(ADCG_MODE_FULL);
  adcg_bucket_info info = ADCG_BUCKET_INFO_INIT;
  mini_freeze(&m, y);
  mini_exec(&m, &options);
  TRY(adcg_exec_get_bucket(m.exec, 0, &info));
  TRY(adcg_exec_capture(m.exec, &info.bucket, 1, NULL, NULL));
  const int64_t bytes = mini_stats(&m).graph_bytes - 110 * 1024;
  CHECK_INT(mini_stats(&m).captured_buckets, 1);
  CHECK_INT(bytes % 2560, 0);
  mini_close(&m);
  return bytes / 2560;
}

/* One kernel of the op's, and one that zeroes the tail, where the op neither promises nor is known to do so. */
static void tails_are_zeroed_once(void) {
  for (int promised = 0; promised < 2; promised++) {
    mini_open(&m, 128, 8);
    adcg_op_schema schema = mini_schema("t.dynamic", ADCG_OP_DYNAMIC, mini_increment);
    schema.capture = ADCG_CAPTURE_ALWAYS;
    if (promised) schema.flags |= ADCG_OP_ZEROES_TAIL;
    CHECK_INT(kernels_of(mini_add(&m, &schema, NULL, m.input)), promised ? 1 : 2);
  }
  mini_open(&m, 128, 8);
  adcg_dim seqs[] = {ADCG_DIM_SEQS};
  adcg_value pick, last;
  TRY(adcg_graph_add_input(m.graph, "pick", ADCG_I32, 1, seqs, &pick));
  TRY(adcg_graph_add_op(m.graph, "adcg.gather_tokens", (adcg_value[]){m.input, pick}, 2, NULL, 0, &last, 1));
  CHECK_INT(kernels_of(last), 1); /* which zeroes its own */
}

static const harness_case cases[] = {
    {"captures_count_nothing", captures_count_nothing},
    {"counts_behind_a_failure", counts_behind_a_failure},
    {"tails_are_zeroed_once", tails_are_zeroed_once},
};
HARNESS_MAIN(cases)
