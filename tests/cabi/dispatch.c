/* Which bucket and mode a step takes, with its reasons; capturing in any order, and captures that fail. */
#include "chain.h"

static void expect_step(adcg_batch batch, int32_t mode, int32_t reason, int64_t bucket_tokens) {
  mini_step(&m, batch, 3);
  CHECK_INT(m.step.mode, mode);
  CHECK_INT(m.step.reason, reason);
  CHECK_INT(m.step.bucket_tokens, bucket_tokens);
  CHECK_INT(m.step.padded_tokens, bucket_tokens - adcg_batch_tokens(&batch));
}

/* ---- Dispatch ------------------------------------------------------------------------------------------------------ */

static void dispatch_by_mode(void) {
  enum { NONE = ADCG_MODE_NONE, PIECEWISE = ADCG_MODE_PIECEWISE, FULL = ADCG_MODE_FULL };
  static const struct {
    int32_t support, mode;
    int32_t mixed_mode, mixed_reason; /* of a step with prefill */
    int32_t decode_mode, decode_reason;
  } rows[] = {
      {ADCG_CAPTURE_NEVER, ADCG_MODE_NONE, NONE, ADCG_REASON_MODE, NONE, ADCG_REASON_MODE},
      {ADCG_CAPTURE_NEVER, ADCG_MODE_PIECEWISE, PIECEWISE, ADCG_REASON_MODE, PIECEWISE, ADCG_REASON_MODE},
      {ADCG_CAPTURE_NEVER, ADCG_MODE_FULL, NONE, ADCG_REASON_SUPPORT, NONE, ADCG_REASON_SUPPORT},
      {ADCG_CAPTURE_NEVER, ADCG_MODE_FULL_AND_PIECEWISE, PIECEWISE, ADCG_REASON_SUPPORT, PIECEWISE, ADCG_REASON_SUPPORT},
      {ADCG_CAPTURE_UNIFORM_DECODE, ADCG_MODE_FULL, NONE, ADCG_REASON_SUPPORT, FULL, ADCG_REASON_NONE},
      {ADCG_CAPTURE_UNIFORM_DECODE, ADCG_MODE_FULL_DECODE_ONLY, NONE, ADCG_REASON_MODE, FULL, ADCG_REASON_NONE},
      {ADCG_CAPTURE_UNIFORM_DECODE, ADCG_MODE_FULL_AND_PIECEWISE, PIECEWISE, ADCG_REASON_SUPPORT, FULL, ADCG_REASON_NONE},
      {ADCG_CAPTURE_ALWAYS, ADCG_MODE_FULL, FULL, ADCG_REASON_NONE, FULL, ADCG_REASON_NONE},
      {ADCG_CAPTURE_ALWAYS, ADCG_MODE_FULL_AND_PIECEWISE, FULL, ADCG_REASON_NONE, FULL, ADCG_REASON_NONE},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    open_chain(rows[i].support);
    adcg_exec_options options = options_of(rows[i].mode);
    mini_exec(&m, &options);
    fprintf(stderr, "row %d: ", (int)i);
    mini_step(&m, mixed(1, 9, 2), 3);
    fprintf(stderr, "mixed mode %d reason %d, ", m.step.mode, m.step.reason);
    CHECK_INT(m.step.mode, rows[i].mixed_mode);
    CHECK_INT(m.step.reason, rows[i].mixed_reason);
    CHECK_INT(m.step.bucket_tokens, rows[i].mixed_mode == NONE ? 11 : 16);
    mini_step(&m, mixed(0, 0, 3), 3);
    fprintf(stderr, "decode mode %d reason %d\n", m.step.mode, m.step.reason);
    CHECK_INT(m.step.mode, rows[i].decode_mode);
    CHECK_INT(m.step.reason, rows[i].decode_reason);
    adcg_stats stats = mini_stats(&m);
    CHECK_INT(stats.steps, 2);
    CHECK_INT(stats.full_steps, (rows[i].mixed_mode == FULL) + (rows[i].decode_mode == FULL));
    CHECK_INT(stats.piecewise_steps, (rows[i].mixed_mode == PIECEWISE) + (rows[i].decode_mode == PIECEWISE));
    CHECK_INT(stats.eager_steps, (rows[i].mixed_mode == NONE) + (rows[i].decode_mode == NONE));
    CHECK_INT(stats.reasons[rows[i].mixed_reason], 1 + (rows[i].mixed_reason == rows[i].decode_reason));
    CHECK_INT(stats.real_tokens, 14);
    mini_close(&m);
  }
}

static void buckets(void) { /* the smallest that holds the step; larger steps run eagerly */
  open_chain(ADCG_CAPTURE_NEVER);
  adcg_exec_options options = options_of(ADCG_MODE_FULL_AND_PIECEWISE);
  int64_t untidy[] = {64, 16, 64};
  options.buckets = untidy;
  options.num_buckets = 3;
  mini_exec(&m, &options);
  expect_step(mixed(1, 1, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_SUPPORT, 16);
  expect_step(mixed(1, 16, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_SUPPORT, 16);
  expect_step(mixed(1, 14, 3), ADCG_MODE_PIECEWISE, ADCG_REASON_SUPPORT, 64);
  expect_step(mixed(2, 64, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_SUPPORT, 64);
  expect_step(mixed(2, 65, 0), ADCG_MODE_NONE, ADCG_REASON_TOO_LARGE, 65);
  expect_step(mixed(2, 128, 0), ADCG_MODE_NONE, ADCG_REASON_TOO_LARGE, 128);
  adcg_stats stats = mini_stats(&m);
  CHECK_INT(stats.padded_tokens, 15 + 47);
  CHECK_INT(stats.captured_buckets, 2);
  mini_close(&m);

  open_chain(ADCG_CAPTURE_NEVER); /* the default list: 64, then max_tokens */
  mini_exec(&m, NULL);
  expect_step(mixed(1, 1, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_SUPPORT, 64);
  expect_step(mixed(1, 65, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_SUPPORT, 128);
  mini_close(&m);
}

static void uniform_batches(void) { /* captured for decode and for 4 tokens a sequence, as in speculative decoding */
  open_chain(ADCG_CAPTURE_UNIFORM_BATCH);
  adcg_exec_options options = options_of(ADCG_MODE_FULL_AND_PIECEWISE);
  options.query_len = 4;
  mini_exec(&m, &options);
  adcg_batch four = {sizeof four, 0, 0, 3, 12, 0, 4}, unsaid = {sizeof four, 0, 0, 3, 12, 0, 0}, five = {sizeof four, 0, 0, 3, 15, 0, 5};
  mini_step(&m, four, 3);
  CHECK_INT(m.step.mode, ADCG_MODE_FULL);
  CHECK_INT(m.step.reason, ADCG_REASON_NONE);
  CHECK_INT(m.step.bucket_tokens, 4 * m.step.bucket_seqs);
  mini_step(&m, mixed(0, 0, 3), 3);
  CHECK_INT(m.step.mode, ADCG_MODE_FULL);
  expect_step(unsaid, ADCG_MODE_PIECEWISE, ADCG_REASON_SUPPORT, 16); /* 12 tokens of 3 may be 10, 1 and 1 */
  mini_step(&m, five, 3);
  CHECK_INT(m.step.mode, ADCG_MODE_PIECEWISE);
  mini_close(&m);
}

static void empty_batch(void) {
  open_chain(ADCG_CAPTURE_NEVER);
  mini_exec(&m, NULL);
  TRY(mini_try(&m, mixed(0, 0, 0)));
  CHECK_INT(m.step.reason, ADCG_REASON_EMPTY);
  CHECK_INT(m.step.bucket_tokens, 0);
  for (size_t i = 0; i < sizeof m.y_data; i++) CHECK_INT(((unsigned char *)m.y_data)[i], 0xEE);
  CHECK_INT(mini_stats(&m).reasons[ADCG_REASON_EMPTY], 1);
  mini_step(&m, mixed(1, 5, 0), 3);
  mini_close(&m);
}

static void verify_mode(void) {
  open_chain(ADCG_CAPTURE_ALWAYS);
  adcg_exec_options options = options_of(ADCG_MODE_FULL_AND_PIECEWISE);
  options.verify = 1;
  mini_exec(&m, &options);
  mini_step(&m, mixed(1, 9, 2), 3);
  CHECK_INT(m.step.mode, ADCG_MODE_NONE);
  CHECK_INT(m.step.reason, ADCG_REASON_VERIFY);
  mini_close(&m);
}

/* ---- Capturing ------------------------------------------------------------------------------------------------------- */

static void explicit_capture(void) {
  open_chain(ADCG_CAPTURE_NEVER);
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  options.capture = ADCG_CAPTURE_EXPLICIT;
  mini_exec(&m, &options);
  adcg_bucket small = {ADCG_MODE_PIECEWISE, 16, 0};
  TRY(adcg_exec_capture(m.exec, &small, 1, NULL, NULL));
  expect_step(mixed(1, 9, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_MODE, 16);
  expect_step(mixed(1, 17, 0), ADCG_MODE_NONE, ADCG_REASON_NOT_CAPTURED, 17);
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  expect_step(mixed(1, 17, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_MODE, 64);
  mini_close(&m);
}

typedef struct order {
  int count;
  int64_t tokens[8];
} order;
static int32_t note_order(const adcg_progress *progress, void *user_data) {
  order *o = user_data;
  CHECK_INT(progress->index, o->count);
  CHECK_INT(progress->status, ADCG_OK);
  CHECK_INT(progress->count, 2);
  CHECK(progress->struct_size == sizeof *progress);
  o->tokens[o->count++] = progress->bucket.tokens;
  return 0;
}

static void capture_order(void) { /* largest first, or as given; bytes and results are the same */
  int64_t tape_bytes[3];
  adcg_bucket given[3][2] = {{{0, 0, 0}},
                             {{ADCG_MODE_PIECEWISE, 16, 0}, {ADCG_MODE_PIECEWISE, 64, 0}},
                             {{ADCG_MODE_PIECEWISE, 64, 0}, {ADCG_MODE_PIECEWISE, 16, 0}}};
  for (int i = 0; i < 3; i++) {
    open_chain(ADCG_CAPTURE_NEVER);
    adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
    mini_exec(&m, &options);
    order seen = {0};
    TRY(adcg_exec_capture(m.exec, i ? given[i] : NULL, i ? 2 : 0, note_order, &seen));
    CHECK(seen.count == 2 && seen.tokens[0] == (i == 1 ? 16 : 64) && seen.tokens[1] == (i == 1 ? 64 : 16));
    TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL)); /* captured already: skipped */
    CHECK_INT(mini_stats(&m).captured_buckets, 2);
    tape_bytes[i] = mini_stats(&m).tape_bytes;
    expect_step(mixed(1, 17, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_MODE, 64);
    expect_step(mixed(1, 7, 0), ADCG_MODE_PIECEWISE, ADCG_REASON_MODE, 16);
    mini_close(&m);
  }
  CHECK(tape_bytes[0] == tape_bytes[1] && tape_bytes[1] == tape_bytes[2]);
}

static adcg_status no_warmup_at_64(const adcg_op_call *call, void *user_data) {
  if (call->phase != ADCG_PHASE_REPLAY && call->tokens == 64) return adcg_op_fail(call, "cannot warm up at 64");
  return mini_increment(call, user_data);
}
static int32_t note_status(const adcg_progress *progress, void *user_data) {
  if (progress->bucket.tokens == 64)
    *(adcg_status *)user_data = progress->status;
  else
    CHECK_INT(progress->status, ADCG_OK);
  return 0;
}

static void failed_capture(void) { /* names the op, leaves the other buckets usable, and that size runs eagerly */
  mini_open(&m, 128, 8);
  adcg_op_schema plain = mini_schema("t.plain", ADCG_OP_STATIC, mini_increment),
                 breaks = mini_schema("t.breaks", ADCG_OP_STATIC, no_warmup_at_64);
  adcg_value v = mini_add(&m, &plain, NULL, m.input);
  mini_freeze(&m, mini_add(&m, &breaks, NULL, v));
  adcg_exec_options options = options_of(ADCG_MODE_PIECEWISE);
  mini_exec(&m, &options);
  adcg_status status = ADCG_OK;
  FAILS(adcg_exec_capture(m.exec, NULL, 0, note_status, &status), ADCG_ERR_OP, "t.breaks", "cannot warm up at 64");
  CHECK_INT(status, ADCG_ERR_OP);
  adcg_stats stats = mini_stats(&m);
  CHECK(stats.captured_buckets == 1 && stats.failed_buckets == 1);
  adcg_bucket_info info = ADCG_BUCKET_INFO_INIT;
  for (int32_t i = 0; adcg_exec_get_bucket(m.exec, i, &info) == ADCG_OK; i++)
    CHECK_INT(info.state, info.bucket.tokens == 64 ? ADCG_BUCKET_FAILED : ADCG_BUCKET_CAPTURED);
  mini_step(&m, mixed(1, 9, 0), 2);
  CHECK(m.step.mode == ADCG_MODE_PIECEWISE && m.step.bucket_tokens == 16);
  mini_step(&m, mixed(1, 20, 0), 2);
  CHECK(m.step.mode == ADCG_MODE_NONE && m.step.reason == ADCG_REASON_CAPTURE_FAILED);
  mini_close(&m);

  mini_open(&m, 128, 8); /* found on first use: the step runs all the same */
  mini_register(&m, &breaks, NULL);
  TRY(adcg_graph_add_op(m.graph, "t.breaks", &m.input, 1, NULL, 0, &v, 1));
  mini_freeze(&m, v);
  mini_exec(&m, &options);
  mini_step(&m, mixed(1, 20, 0), 1);
  CHECK(m.step.mode == ADCG_MODE_NONE && m.step.reason == ADCG_REASON_CAPTURE_FAILED);
  mini_close(&m);
}

static const harness_case cases[] = {
    {"dispatch_by_mode", dispatch_by_mode}, {"buckets", buckets},
    {"uniform_batches", uniform_batches},   {"empty_batch", empty_batch},
    {"verify_mode", verify_mode},           {"explicit_capture", explicit_capture},
    {"capture_order", capture_order},       {"failed_capture", failed_capture},
};
HARNESS_MAIN(cases)
