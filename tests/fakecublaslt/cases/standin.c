/* The stand-in itself: it refuses what the documentation forbids, and what a caller forgets shows in the graph. */
#include "../../../kernels/cuda/lt_api.h"
#include "bench.h"

/* A product of 8 rows [64] by weights [32, 64], with all that a call of the library takes. */
typedef struct trial {
  bench b;
  product p;
  lt_functions call;
  lt_handle handle;
  lt_desc desc;
  lt_layout a, bl, d;
  lt_preference preference;
  lt_result results[8];
  int32_t count;
  float one, zero;
  CUdeviceptr workspace;
} trial;

enum { WORKSPACE = 1 << 20 };

static void prepare(trial *t) {
  const int32_t turned = LT_OP_T;
  OK(t->call.MatmulDescInit_internal(&t->desc, sizeof t->desc, LT_COMPUTE_32F, LT_R_32F));
  OK(t->call.MatmulDescSetAttribute(&t->desc, LT_DESC_TRANSA, &turned, sizeof turned));
  OK(t->call.MatrixLayoutInit_internal(&t->a, sizeof t->a, LT_R_16BF, 64, 32, 64));
  OK(t->call.MatrixLayoutInit_internal(&t->bl, sizeof t->bl, LT_R_16BF, 64, 8, 64));
  OK(t->call.MatrixLayoutInit_internal(&t->d, sizeof t->d, LT_R_16BF, 32, 8, 32));
  OK(t->call.MatmulPreferenceInit_internal(&t->preference, sizeof t->preference));
}

static lt_status ask(trial *t) {
  t->count = 0;
  return t->call.MatmulAlgoGetHeuristic(t->handle, &t->desc, &t->a, &t->bl, &t->d, &t->d, &t->preference, 8, t->results, &t->count);
}

static void open_trial(trial *t) {
  memset(t, 0, sizeof *t);
  bench_open(&t->b, NULL);
  product_open(&t->b, &t->p, &(spec){.m = 8, .n = 32, .k = 64, .x_bf16 = 1, .w_bf16 = 1, .bias = 2});
  void *functions[32];
  lt_functions_of(functions);
  memcpy(&t->call, functions, sizeof t->call);
  OK(t->call.Create(&t->handle));
  OK(cuMemAlloc_v2(&t->workspace, WORKSPACE));
  t->one = 1;
  prepare(t);
  OK(ask(t));
  CHECK(t->count > 1);
  CHECK(t->results[0].state != LT_SUCCESS); /* states have to be looked at */
  CHECK_INT(t->results[1].state, LT_SUCCESS);
}

static void close_trial(trial *t) {
  OK(t->call.Destroy(t->handle));
  OK(cuMemFree_v2(t->workspace));
  product_close(&t->p);
  bench_close(&t->b);
}

static void *at(CUdeviceptr address) { return (void *)(uintptr_t)address; }

static lt_status run_with(trial *t, const lt_algo *algo, void *workspace, size_t bytes) {
  return t->call.Matmul(t->handle, &t->desc, &t->one, at(t->p.dw), &t->a, at(t->p.dx), &t->bl, &t->zero, at(t->p.dy), &t->d, at(t->p.dy),
                        &t->d, algo, workspace, bytes, t->b.stream);
}

#define REFUSED(call, status)        \
  do {                               \
    CHECK_INT(call, status);         \
    CHECK(fakecublaslt_reason()[0]); \
  } while (0)

static void refuses_descriptors(void) {
  trial t;
  open_trial(&t);
  const int32_t seven = 7, half = 2;
  const uint64_t wide = 1;
  REFUSED(t.call.MatmulDescSetAttribute(&t.desc, LT_DESC_TRANSA, &wide, sizeof wide), LT_INVALID_VALUE);
  REFUSED(t.call.MatmulDescSetAttribute(&t.desc, LT_DESC_TRANSA, NULL, 4), LT_INVALID_VALUE);
  REFUSED(t.call.MatmulDescSetAttribute(&t.desc, 9, &seven, 4), LT_INVALID_VALUE);
  OK(t.call.MatmulDescSetAttribute(&t.desc, LT_DESC_TRANSA, &seven, 4)); /* shows only where it is used, as in the real one */
  REFUSED(ask(&t), LT_INVALID_VALUE);
  prepare(&t);
  OK(t.call.MatmulDescSetAttribute(&t.desc, LT_DESC_EPILOGUE, &seven, 4));
  REFUSED(ask(&t), LT_INVALID_VALUE);
  prepare(&t);
  OK(t.call.MatrixLayoutInit_internal(&t.d, sizeof t.d, LT_R_16BF, 8, 32, 32)); /* rows for columns */
  REFUSED(ask(&t), LT_INVALID_VALUE);
  OK(t.call.MatrixLayoutInit_internal(&t.d, sizeof t.d, LT_R_16BF, 32, 8, 31));
  REFUSED(ask(&t), LT_INVALID_VALUE);
  OK(t.call.MatrixLayoutInit_internal(&t.d, sizeof t.d, half, 32, 8, 32));
  REFUSED(ask(&t), LT_NOT_SUPPORTED);
  prepare(&t);
  OK(t.call.MatrixLayoutInit_internal(&t.bl, sizeof t.bl, LT_R_32F, 64, 8, 64)); /* x f32, w bf16 */
  REFUSED(ask(&t), LT_NOT_SUPPORTED);
  prepare(&t);
  memset(&t.a, 0, sizeof t.a);
  REFUSED(ask(&t), LT_INVALID_VALUE);
  prepare(&t);
  memset(&t.preference, 0, sizeof t.preference);
  REFUSED(ask(&t), LT_INVALID_VALUE);
  const uint32_t odd = 24;
  prepare(&t);
  OK(t.call.MatmulPreferenceSetAttribute(&t.preference, LT_PREFERENCE_ALIGNMENT_A, &odd, sizeof odd));
  REFUSED(ask(&t), LT_INVALID_VALUE);
  prepare(&t);
  OK(t.call.MatmulDescInit_internal(&t.desc, sizeof t.desc, 64, 2)); /* f16 sums */
  REFUSED(ask(&t), LT_NOT_SUPPORTED);
  close_trial(&t);
}

static void refuses_buffers(void) {
  trial t;
  open_trial(&t);
  const lt_algo *algo = &t.results[1].algo;
  OK(run_with(&t, algo, NULL, 0));
  char host[1024];
#define MATMUL(x, y, desc_) \
  t.call.Matmul(t.handle, desc_, &t.one, at(t.p.dw), &t.a, x, &t.bl, &t.zero, y, &t.d, y, &t.d, algo, NULL, 0, t.b.stream)
  REFUSED(MATMUL(host, at(t.p.dy), &t.desc), LT_INVALID_VALUE);
  REFUSED(MATMUL(NULL, at(t.p.dy), &t.desc), LT_INVALID_VALUE);
  REFUSED(MATMUL(at(t.p.dx + t.p.x_bytes - 64), at(t.p.dy), &t.desc), LT_INVALID_VALUE); /* ends behind the allocation */
  REFUSED(MATMUL(at(t.p.dx), at(t.p.dy + 2), &t.desc), LT_INVALID_VALUE); /* the algorithm wants 16 bytes */
  lt_desc with_bias = t.desc;
  const uint32_t bias = LT_EPILOGUE_BIAS;
  OK(t.call.MatmulDescSetAttribute(&with_bias, LT_DESC_EPILOGUE, &bias, sizeof bias));
  REFUSED(MATMUL(at(t.p.dx), at(t.p.dy), &with_bias), LT_INVALID_VALUE); /* no pointer */
  const int32_t type = LT_R_32F;
  OK(t.call.MatmulDescSetAttribute(&with_bias, LT_DESC_BIAS_DATA_TYPE, &type, sizeof type));
  REFUSED(MATMUL(at(t.p.dx), at(t.p.dy), &with_bias), LT_NOT_SUPPORTED);
#undef MATMUL
  close_trial(&t);
}

static void refuses_workspaces(void) {
  trial t;
  open_trial(&t);
  const uint64_t bytes = WORKSPACE;
  const uint32_t schemes = LT_REDUCTION_COMPUTE_TYPE;
  OK(t.call.MatmulPreferenceSetAttribute(&t.preference, LT_PREFERENCE_WORKSPACE, &bytes, sizeof bytes));
  OK(t.call.MatmulPreferenceSetAttribute(&t.preference, LT_PREFERENCE_REDUCTION_MASK, &schemes, sizeof schemes));
  OK(ask(&t));
  const lt_result *split = &t.results[1];
  CHECK(split->workspace_bytes > 0);
  OK(run_with(&t, &split->algo, at(t.workspace), split->workspace_bytes));
  REFUSED(run_with(&t, &split->algo, at(t.workspace), split->workspace_bytes - 1), LT_INVALID_VALUE);
  REFUSED(run_with(&t, &split->algo, NULL, 0), LT_INVALID_VALUE);
  REFUSED(run_with(&t, &split->algo, at(t.workspace + 64), split->workspace_bytes), LT_INVALID_VALUE);
  REFUSED(run_with(&t, &split->algo, at(t.workspace + WORKSPACE - 256), split->workspace_bytes), LT_INVALID_VALUE);
  const lt_algo none = {{0}};
  REFUSED(run_with(&t, &none, NULL, 0), LT_INVALID_VALUE);
  close_trial(&t);
}

/* Without an algorithm and a workspace it allocates, as the real one does: in a capture that is a node of its own. */
static void allocates_when_it_has_to(void) {
  trial t;
  open_trial(&t);
  CUgraph graph;
  OK(cuStreamBeginCapture_v2(t.b.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(run_with(&t, NULL, NULL, 0));
  OK(cuStreamEndCapture(t.b.stream, &graph));
  CUgraphNode nodes[8];
  size_t count = 8;
  OK(cuGraphGetNodes(graph, nodes, &count));
  int allocations = 0;
  for (size_t i = 0; i < count; i++) {
    int type;
    OK(cuGraphNodeGetType(nodes[i], &type));
    allocations += type == 10; /* CU_GRAPH_NODE_TYPE_MEM_ALLOC */
  }
  CHECK_INT(allocations, 1);
  OK(cuGraphDestroy(graph));
  close_trial(&t);
}

/* Where there are very many rows it offers an algorithm first that counts in its workspace: a memset before it. */
static void counts_in_its_workspace(void) {
  trial t;
  open_trial(&t);
  product p;
  product_open(&t.b, &p, &(spec){.m = 4096, .n = 8, .k = 8, .x_bf16 = 1, .w_bf16 = 1});
  const uint64_t bytes = WORKSPACE;
  OK(t.call.MatmulPreferenceSetAttribute(&t.preference, LT_PREFERENCE_WORKSPACE, &bytes, sizeof bytes));
  OK(t.call.MatrixLayoutInit_internal(&t.a, sizeof t.a, LT_R_16BF, 8, 8, 8));
  OK(t.call.MatrixLayoutInit_internal(&t.bl, sizeof t.bl, LT_R_16BF, 8, 4096, 8));
  OK(t.call.MatrixLayoutInit_internal(&t.d, sizeof t.d, LT_R_16BF, 8, 4096, 8));
  OK(ask(&t));
  CUgraph graph;
  OK(cuStreamBeginCapture_v2(t.b.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(t.call.Matmul(t.handle, &t.desc, &t.one, at(p.dw), &t.a, at(p.dx), &t.bl, &t.zero, at(p.dy), &t.d, at(p.dy), &t.d, &t.results[1].algo,
                   at(t.workspace), t.results[1].workspace_bytes, t.b.stream));
  OK(cuStreamEndCapture(t.b.stream, &graph));
  CUgraphNode nodes[4];
  size_t count = 4;
  OK(cuGraphGetNodes(graph, nodes, &count));
  CHECK_INT(count, 2);
  int types[2];
  for (size_t i = 0; i < 2; i++) OK(cuGraphNodeGetType(nodes[i], &types[i]));
  CHECK_INT(types[0] + types[1], 2); /* a kernel, 0, and a memset, 2 */
  OK(cuGraphDestroy(graph));
  product_close(&p);
  close_trial(&t);
}

static const harness_case cases[] = {{"refuses_descriptors", refuses_descriptors},
                                     {"refuses_buffers", refuses_buffers},
                                     {"refuses_workspaces", refuses_workspaces},
                                     {"allocates_when_it_has_to", allocates_when_it_has_to},
                                     {"counts_in_its_workspace", counts_in_its_workspace}};

int main(int argc, char **argv) { return harness_main(argc, argv, cases, sizeof cases / sizeof cases[0]); }
