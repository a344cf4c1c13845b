/* adcg.linear through cuBLASLt, on the stand-ins: results, choices, captures. */
#include "bench.h"

static void set_up(bench *b, product *p, const spec *s, const adcgk_lt_options *options) {
  bench_open(b, options);
  product_open(b, p, s);
}

static void tear_down(bench *b, product *p) {
  product_close(p);
  bench_close(b);
}

static adcgk_lt_choice choice_of(const bench *b, const product *p) {
  adcgk_lt_choice choice;
  CHECK_INT(adcgk_lt_describe(&p->call, &b->node, &choice), ADCG_OK);
  return choice;
}

/* ---- Results ---------------------------------------------------------------------------------------------------------------------- */

static void results(void) {
  const char *const activations[] = {"none", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid"};
  bench b;
  bench_open(&b, NULL);
  for (int type = 0; type < 2; type++) {
    for (int bias = 0; bias < 3; bias++) {
      for (size_t a = 0; a < sizeof activations / sizeof activations[0]; a++) {
        const spec s = {.m = 5, .n = 40, .k = 96, .x_bf16 = type, .w_bf16 = type, .bias = bias, .activation = activations[a]};
        product p;
        product_open(&b, &p, &s);
        memset(launched, 0, sizeof launched);
        CHECK_INT(product_run(&b, &p), ADCG_OK);
        check_right(&p);
        /* What the library has itself needs no kernel of ours behind it. */
        const bool bias_fits = bias == 0 || (bias == 2) == (type == 1);
        const bool known = strcmp(activations[a], "none") == 0 || strcmp(activations[a], "relu") == 0;
        CHECK_INT(launched[ADCGK_K_adcg_linear_finish], bias_fits && known ? 0 : 1);
        product_close(&p);
      }
    }
  }
  bench_close(&b);
}

static void strides_and_odd_addresses(void) {
  bench b;
  bench_open(&b, NULL);
  const spec specs[] = {
      {.m = 7, .n = 24, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .x_gap = 8, .y_gap = 16},
      {.m = 7, .n = 24, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .x_gap = 3, .y_gap = 5, .bias = 2, .activation = "silu"},
      {.m = 7, .n = 24, .k = 64, .x_gap = 1, .y_gap = 2, .bias = 1, .activation = "gelu"},
      {.m = 9, .n = 23, .k = 65, .x_bf16 = 1, .w_bf16 = 1},
      {.m = 9, .n = 24, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .x_shift = 1, .y_shift = 3},
      {.m = 1, .n = 1, .k = 1, .bias = 1},
      {.m = 1, .n = 8, .k = 512, .x_bf16 = 1, .w_bf16 = 1, .x_gap = 8, .y_gap = 8},
      {.m = 130, .n = 70, .k = 33, .bias = 2, .activation = "relu"},
  };
  for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
    product p;
    product_open(&b, &p, &specs[i]);
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    check_right(&p);
    product_close(&p);
  }
  bench_close(&b);
}

/* NaN and infinity go through, those of a row to that row. */
static void not_numbers(void) {
  bench b;
  product p;
  set_up(&b, &p, &(spec){.m = 3, .n = 16, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .activation = "relu"}, NULL);
  const uint16_t nan = 0x7fc0;
  OK(cuMemcpyHtoD_v2(p.dx + 64 * 2, &nan, sizeof nan));
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  OK(cuStreamSynchronize(b.stream));
  uint16_t y[48];
  OK(cuMemcpyDtoH_v2(y, p.dy, sizeof y));
  for (int i = 0; i < 48; i++) CHECK_INT(isnan(number_at(y, 1, i)), i / 16 == 1);
  tear_down(&b, &p);
}

/* What it does not do is our own kernel's: mixed types, rows in pieces, nothing to add up. */
static void declined(void) {
  bench b;
  product p;
  set_up(&b, &p, &(spec){.m = 4, .n = 8, .k = 16, .x_bf16 = 1}, NULL);
  memset(launched, 0, sizeof launched);
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  CHECK_INT(launched[ADCGK_K_adcg_linear_rows_f32_f32 + 2], 1);
  check_right(&p);
  CHECK_INT(p.call.workspace_bytes, 0);
  product_close(&p);
  product_open(&b, &p, &(spec){.m = 4, .n = 8, .k = 16});
  int64_t shape[] = {4, 4, 4}, strides[] = {32, 8, 1};
  p.inputs[0] = tensor(p.dx, 0, 3, shape, strides);
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  CHECK_INT(launched[ADCGK_K_adcg_linear_rows_f32_f32], 1);
  p.inputs[0].strides = NULL; /* the same in one piece is for the library */
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  CHECK_INT(launched[ADCGK_K_adcg_linear_rows_f32_f32], 1);
  check_right(&p);
  p.shapes[0][0] = p.shapes[3][0] = 0; /* and no rows are nobody's */
  p.inputs[0] = tensor(0, 0, 2, p.shapes[0], NULL);
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  b.device.lt = NULL; /* no library at all */
  p.shapes[0][0] = p.shapes[3][0] = 4;
  p.inputs[0] = tensor(p.dx, 0, 2, p.shapes[0], NULL);
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  CHECK_INT(launched[ADCGK_K_adcg_linear_rows_f32_f32], 2);
  check_right(&p);
  tear_down(&b, &p);
}

static void short_workspace(void) {
  bench b;
  product p;
  set_up(&b, &p, &(spec){.m = 4, .n = 64, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .activation = "silu"}, NULL);
  CHECK(p.call.workspace_bytes > 4 * 64 * 4);
  p.call.workspace_bytes--;
  CHECK_INT(product_run(&b, &p), ADCG_ERR_OP);
  CHECK(strstr(message, "workspace"));
  tear_down(&b, &p);
}

/* ---- Choices ---------------------------------------------------------------------------------------------------------------------- */

/* 8 rows of 64 x 64 tiles on 132 multiprocessors: one tile of ours in flight, 8 splits of it offered first. */
static void plain_where_it_costs_little(void) {
  const spec few = {.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1}, many = {.m = 600, .n = 2048, .k = 16, .x_bf16 = 1, .w_bf16 = 1};
  const struct {
    double plain_cost;
    int id, splits;
  } cases[] = {{1.25, FAKECUBLASLT_SPLIT, 8},
               {7.9, FAKECUBLASLT_SPLIT, 8},
               {8.1, FAKECUBLASLT_TILE, 1},
               {INFINITY, FAKECUBLASLT_TILE, 1},
               {0, FAKECUBLASLT_SPLIT, 8}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    adcgk_lt_options options = ADCGK_LT_OPTIONS_INIT;
    options.plain_cost = cases[i].plain_cost;
    bench b;
    product p;
    set_up(&b, &p, &few, &options);
    const adcgk_lt_choice choice = choice_of(&b, &p);
    CHECK_INT(choice.id, cases[i].id);
    CHECK_INT(choice.splits, cases[i].splits);
    CHECK_INT(choice.first_plain, 0);
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    check_right(&p);
    product_close(&p);
    product_open(&b, &p, &many); /* 320 tiles fill the device twice: nothing is reserved, nothing asked for */
    CHECK_INT(p.call.workspace_bytes, 0);
    CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_TILE);
    CHECK_INT(choice_of(&b, &p).first_plain, 1);
    tear_down(&b, &p);
  }
}

static void workspace_is_bounded(void) {
  adcgk_lt_options options = ADCGK_LT_OPTIONS_INIT;
  options.workspace_bytes = 0;
  bench b;
  product p;
  set_up(&b, &p, &(spec){.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1}, &options);
  CHECK_INT(p.call.workspace_bytes, 0);
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_TILE);
  tear_down(&b, &p);
  options.workspace_bytes = 1000; /* not a multiple of 256: what is reserved is */
  set_up(&b, &p, &(spec){.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1}, &options);
  CHECK_INT(p.call.workspace_bytes, 1024 + 256);
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_TILE); /* 8 splits need 16 KiB */
  tear_down(&b, &p);
}

/* A launch captured at one address runs at every other of the promised alignment, and nothing more is promised. */
static void alignment_decides(void) {
  bench b;
  product p;
  const spec aligned = {.m = 8, .n = 64, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .x_shift = 8, .y_shift = 8}; /* 16 bytes */
  adcgk_lt_options options = ADCGK_LT_OPTIONS_INIT;
  options.plain_cost = INFINITY;
  set_up(&b, &p, &aligned, &options);
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_TILE);
  const uint64_t asked = fakecublaslt_calls("cublasLtMatmulAlgoGetHeuristic");
  p.inputs[0].byte_offset = 0; /* aligned to more: the same choice, from the table */
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_TILE);
  CHECK_INT(fakecublaslt_calls("cublasLtMatmulAlgoGetHeuristic"), asked);
  p.inputs[0].byte_offset = 2;
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_SCALAR);
  p.inputs[0].byte_offset = 16;
  p.output.byte_offset = 4;
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_SCALAR);
  p.output.byte_offset = 16;
  p.inputs[1].byte_offset = 2;
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_SCALAR);
  tear_down(&b, &p);
}

static void nothing_usable(void) {
  bench b;
  product p;
  set_up(&b, &p, &(spec){.m = 4, .n = 9, .k = 17, .x_bf16 = 1, .w_bf16 = 1}, NULL);
  fakecublaslt_hide(FAKECUBLASLT_SCALAR); /* of what remains nothing takes rows of 34 bytes */
  memset(launched, 0, sizeof launched);
  for (int i = 1; i <= 2; i++) {
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    CHECK_INT(launched[ADCGK_K_adcg_linear_rows_f32_f32 + 3], i);
    check_right(&p);
  }
  fakecublaslt_reset();
  tear_down(&b, &p);
}

static void asked_once(void) {
  bench b;
  product p;
  set_up(&b, &p, &(spec){.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1}, NULL);
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  const uint64_t asked = fakecublaslt_calls("cublasLtMatmulAlgoGetHeuristic");
  CHECK_INT(asked, 2);
  for (int i = 0; i < 3; i++) CHECK_INT(product_run(&b, &p), ADCG_OK);
  CHECK_INT(fakecublaslt_calls("cublasLtMatmulAlgoGetHeuristic"), asked);
  check_right(&p);
  tear_down(&b, &p);
}

/* More shapes than the table holds: the same choices, whether they are kept or made anew. */
static void full_table(void) {
  enum { SHAPES = 6000 };
  bench b;
  product p;
  set_up(&b, &p, &(spec){.m = 1, .n = 64, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .bias = 2}, NULL);
  static adcgk_lt_choice first[SHAPES];
  p.call.workspace_bytes = (size_t)1 << 40; /* no product is run */
  for (int round = 0; round < 2; round++) {
    for (int64_t m = 1; m <= SHAPES; m++) {
      p.shapes[0][0] = p.shapes[3][0] = m;
      const adcgk_lt_choice choice = choice_of(&b, &p);
      if (round == 0) first[m - 1] = choice;
      CHECK(memcmp(&first[m - 1], &choice, sizeof choice) == 0);
    }
  }
  p.shapes[0][0] = p.shapes[3][0] = 1;
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  check_right(&p);
  tear_down(&b, &p);
}

static void tf32_is_an_option(void) {
  for (int tf32 = 0; tf32 < 2; tf32++) {
    adcgk_lt_options options = ADCGK_LT_OPTIONS_INIT;
    options.tf32 = tf32;
    bench b;
    product p;
    set_up(&b, &p, &(spec){.m = 5, .n = 32, .k = 64}, &options);
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    OK(cuStreamSynchronize(b.stream));
    CHECK_INT(product_error(&p, 1) <= 1, !tf32);
    CHECK(product_error(&p, 0x1p11) <= 0x1p11);
    tear_down(&b, &p);
  }
}

/* Without an algorithm for all counts of rows such a device has our own kernel; with one, a row has the same bits in every count. */
static void batch_invariant(void) {
  const spec s = {.m = 70, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1};
  adcgk_lt_options options = ADCGK_LT_OPTIONS_INIT;
  bench b;
  product p;
  set_up(&b, &p, &s, &options);
  b.device.batch_invariant = 1;
  memset(launched, 0, sizeof launched);
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  CHECK_INT(launched[ADCGK_K_adcg_linear_tile_f32_f32 + 3], 1);
  check_right(&p);
  tear_down(&b, &p);
  options.pinned_rows = 64;
  set_up(&b, &p, &s, &options);
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_SPLIT); /* the device's own choice is another, and stays so */
  b.device.batch_invariant = 1;
  uint16_t all[70 * 64], one[64];
  CHECK_INT(product_run(&b, &p), ADCG_OK);
  check_right(&p);
  OK(cuMemcpyDtoH_v2(all, p.dy, sizeof all));
  for (int64_t m = 1; m <= 70; m++) {
    p.shapes[0][0] = p.shapes[3][0] = m;
    CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_TILE);
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    OK(cuStreamSynchronize(b.stream));
    OK(cuMemcpyDtoH_v2(one, p.dy, sizeof one));
    CHECK(memcmp(one, all, sizeof one) == 0);
  }
  b.device.batch_invariant = 0;
  p.shapes[0][0] = p.shapes[3][0] = 70;
  CHECK_INT(choice_of(&b, &p).id, FAKECUBLASLT_SPLIT);
  tear_down(&b, &p);
}

/* ---- Capture ---------------------------------------------------------------------------------------------------------------------- */

/* Kernel nodes, memset nodes and others of a graph. */
static void count_nodes(CUgraph graph, int counts[3]) {
  CUgraphNode nodes[8];
  size_t count = 8;
  OK(cuGraphGetNodes(graph, nodes, &count));
  counts[0] = counts[1] = counts[2] = 0;
  for (size_t i = 0; i < count; i++) {
    int type;
    OK(cuGraphNodeGetType(nodes[i], &type));
    counts[type == 0 ? 0 : type == 2 ? 1 : 2]++;
  }
}

static void captured(void) {
  const struct {
    spec s;
    double plain_cost;
    int kernels;
  } cases[] = {
      {{.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1, .bias = 2}, INFINITY, 1},
      {{.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1}, 1.25, 2},
      {{.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1, .bias = 2}, 0, 1}, /* split sums would be rounded before the bias */
      {{.m = 8, .n = 64, .k = 512, .x_bf16 = 1, .w_bf16 = 1, .activation = "silu", .y_gap = 8}, INFINITY, 2},
      {{.m = 8, .n = 64, .k = 512, .activation = "sigmoid", .bias = 2}, 1.25, 3},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    adcgk_lt_options options = ADCGK_LT_OPTIONS_INIT;
    options.plain_cost = cases[i].plain_cost;
    bench b;
    product p;
    set_up(&b, &p, &cases[i].s, &options);
    p.call.phase = ADCG_PHASE_WARMUP;
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    OK(cuStreamSynchronize(b.stream));
    char *eager = malloc(p.y_bytes), *replayed = malloc(p.y_bytes);
    OK(cuMemcpyDtoH_v2(eager, p.dy, p.y_bytes));
    const uint64_t asked = fakecublaslt_calls("cublasLtMatmulAlgoGetHeuristic");
    p.call.phase = ADCG_PHASE_CAPTURE;
    CUgraph graph;
    CUgraphExec exec;
    OK(cuStreamBeginCapture_v2(b.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CHECK_INT(product_run(&b, &p), ADCG_OK);
    OK(cuStreamEndCapture(b.stream, &graph));
    CHECK_INT(fakecublaslt_calls("cublasLtMatmulAlgoGetHeuristic"), asked);
    int counts[3];
    count_nodes(graph, counts);
    CHECK_INT(counts[0], cases[i].kernels);
    CHECK_INT(counts[1] + counts[2], 0);
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    product_reset(&p);
    OK(cuGraphLaunch(exec, b.stream));
    check_right(&p);
    OK(cuMemcpyDtoH_v2(replayed, p.dy, p.y_bytes));
    CHECK(memcmp(eager, replayed, p.y_bytes) == 0);
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
    free(eager);
    free(replayed);
    tear_down(&b, &p);
  }
}

static const harness_case cases[] = {{"results", results},
                                     {"strides_and_odd_addresses", strides_and_odd_addresses},
                                     {"not_numbers", not_numbers},
                                     {"declined", declined},
                                     {"short_workspace", short_workspace},
                                     {"plain_where_it_costs_little", plain_where_it_costs_little},
                                     {"workspace_is_bounded", workspace_is_bounded},
                                     {"alignment_decides", alignment_decides},
                                     {"nothing_usable", nothing_usable},
                                     {"asked_once", asked_once},
                                     {"full_table", full_table},
                                     {"tf32_is_an_option", tf32_is_an_option},
                                     {"batch_invariant", batch_invariant},
                                     {"captured", captured}};

int main(int argc, char **argv) { return harness_main(argc, argv, cases, sizeof cases / sizeof cases[0]); }
