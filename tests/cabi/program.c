/* The C program of docs (api.md), as it stands there, with the parts that it leaves out: TRY, progress and the tensors. */
#include <adcg/adcg.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TRY(call)                                                                           \
  do {                                                                                      \
    adcg_status status_ = (call);                                                           \
    if (status_ != ADCG_OK) {                                                               \
      fprintf(stderr, "%s: %s: %s\n", #call, adcg_status_name(status_), adcg_last_error()); \
      return 1;                                                                             \
    }                                                                                       \
  } while (0)

static float x_data[512 * 64], w_data[64 * 64], y_data[512 * 64];
static int64_t x_shape[] = {512, 64}, w_shape[] = {64, 64}, y_shape[] = {512, 64};
static int captured;

static int32_t progress(const adcg_progress *p, void *user_data) {
  (void)user_data;
  captured += p->status == ADCG_OK && p->index == captured;
  return captured > p->count;
}

/* clang-format off */
static adcg_status scale_launch(const adcg_op_call *call, void *user_data) {   /* y = x * factor, on the host */
  const float *x = adcg_data(&call->inputs[0]); float *y = adcg_data(&call->outputs[0]);
  for (int64_t i = 0, n = adcg_numel(&call->outputs[0]); i < n; i++) y[i] = x[i] * *(const float *)user_data;
  return ADCG_OK;
}
/* clang-format on */

/* y = 2 * (x W^T) + x, in double. Some sum of 64 products differs from ours by at most 64 roundings. */
static int check_row(int64_t row) {
  for (int64_t n = 0; n < 64; n++) {
    double sum = 0, size = 0;
    for (int64_t k = 0; k < 64; k++) {
      double product = (double)x_data[row * 64 + k] * (double)w_data[n * 64 + k];
      sum += product;
      size += fabs(product);
    }
    double expected = 2 * sum + (double)x_data[row * 64 + n], actual = (double)y_data[row * 64 + n];
    if (!(fabs(actual - expected) <= 2 * size * 64 * 0x1p-24 + 1e-6)) {
      fprintf(stderr, "y[%d][%d] is %.9g, expected %.9g\n", (int)row, (int)n, actual, expected);
      return 1;
    }
  }
  return 0;
}

int main(void) {
  for (uint32_t i = 0; i < 512 * 64; i++) x_data[i] = (float)((i * 2654435761u) >> 8) * 0x1p-23f - 1;
  for (uint32_t i = 0; i < 64 * 64; i++) w_data[i] = (float)((i * 1640531527u) >> 8) * 0x1p-23f - 1;
  DLDataType f32 = adcg_dtype_to_dlpack(ADCG_F32);
  DLTensor x_tensor = {x_data, {kDLCPU, 0}, 2, f32, x_shape, NULL, 0};
  DLTensor w_tensor = {w_data, {kDLCPU, 0}, 2, f32, w_shape, NULL, 0};
  DLTensor y_tensor = {y_data, {kDLCPU, 0}, 2, f32, y_shape, NULL, 0};

  /* clang-format off */
  adcg_engine *engine = NULL; adcg_graph *graph = NULL; adcg_exec *exec = NULL;
  TRY(adcg_engine_create("host", NULL, &engine));                              /* or "cuda:0" */

  static float factor = 2.0f;
  adcg_op_schema scale = ADCG_OP_SCHEMA_INIT;
  scale.name = "my.scale"; scale.kind = ADCG_OP_DYNAMIC; scale.num_inputs = 1; scale.num_outputs = 1; scale.launch = scale_launch;
  TRY(adcg_engine_register_op(engine, &scale, &factor));

  adcg_graph_limits limits = ADCG_GRAPH_LIMITS_INIT;
  limits.max_tokens = 512; limits.max_seqs = 8; limits.max_seq_len = 256;
  TRY(adcg_graph_create(engine, &limits, &graph));

  adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(64)}, square[] = {ADCG_DIM(64), ADCG_DIM(64)};
  adcg_value x, w, h, s, y;
  TRY(adcg_graph_add_input(graph, "x", ADCG_F32, 2, rows, &x));
  TRY(adcg_graph_add_weight(graph, "w", ADCG_F32, 2, square, &w));
  TRY(adcg_graph_add_op(graph, "adcg.linear", (adcg_value[]){x, w}, 2, NULL, 0, &h, 1));
  TRY(adcg_graph_add_op(graph, "my.scale", &h, 1, NULL, 0, &s, 1));
  TRY(adcg_graph_add_op(graph, "adcg.add", (adcg_value[]){s, x}, 2, NULL, 0, &y, 1));
  TRY(adcg_graph_add_output(graph, "y", y));
  TRY(adcg_graph_freeze(graph));

  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;                          /* buckets NULL: chosen from the limits */
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  TRY(adcg_graph_forecast(graph, &options, &forecast));                        /* every byte, before any is allocated */
  TRY(adcg_exec_create(graph, &options, &exec));
  TRY(adcg_exec_bind(exec, w, &w_tensor));                                     /* the caller's memory, borrowed until destroy or the next bind */
  TRY(adcg_exec_capture(exec, NULL, 0, progress, NULL));                       /* all buckets; or leave it out: captured on first use */

  adcg_batch batch = ADCG_BATCH_INIT;
  batch.prefill_seqs = 2; batch.prefill_tokens = 37; batch.decode_seqs = 3;    /* 40 rows of x and y */
  adcg_step step = ADCG_STEP_INIT;
  TRY(adcg_exec_replay(exec, &batch, &x_tensor, 1, &y_tensor, 1, /*stream*/ NULL, &step));

  adcg_exec_destroy(exec); adcg_graph_destroy(graph); adcg_engine_destroy(engine);
  /* clang-format on */

  int wrong = 0;
  for (int64_t row = 0; row < 40; row++) wrong |= check_row(row);
  if (step.mode != ADCG_MODE_PIECEWISE || step.bucket_tokens != 64 || step.padded_tokens != 24 || step.staged_bytes != 0) {
    fprintf(stderr, "mode %d, bucket %d, padded %d, staged %d bytes: expected piecewise at 64 tokens, 24 padded, in place\n", step.mode,
            (int)step.bucket_tokens, (int)step.padded_tokens, (int)step.staged_bytes);
    wrong = 1;
  }
  if (captured == 0 || captured != forecast.num_buckets) {
    fprintf(stderr, "progress saw %d buckets, the forecast has %d\n", captured, forecast.num_buckets);
    wrong = 1;
  }
  return wrong;
}
