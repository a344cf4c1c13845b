/* What the recordings do not pin: when work runs, what reaches it, what kernels may touch, and many threads at once. */
#define _GNU_SOURCE
#include <pthread.h>

#include "harness.h"

/* ---- Deferred work ---------------------------------------------------------------------------------------------------------------- */

static void work_waits_until_it_is_asked_for(void) {
  world w;
  world_open(&w);
  OK(inc(&w, w.stream, w.a, w.b));
  CHECK_INT(word_at(w.b), 0); /* the copy is the legacy stream's, which a non-blocking one does not wait for */
  OK(cuStreamSynchronize(w.other));
  CHECK_INT(word_at(w.b), 0);
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(word_at(w.b), 6);
  CUstream blocking;
  OK(cuStreamCreate(&blocking, 0));
  OK(inc(&w, blocking, w.b, w.b));
  CHECK_INT(word_at(w.b), 7); /* a blocking one it does */
  OK(inc(&w, NULL, w.b, w.b));
  OK(inc(&w, blocking, w.b, w.b));
  OK(cuStreamSynchronize(blocking));
  CHECK_INT(word_at(w.b), 9);
  OK(inc(&w, CU_STREAM_PER_THREAD, w.b, w.b));
  CHECK_INT(word_at(w.b), 10);
  OK(inc(&w, w.stream, w.b, w.b));
  OK(cuCtxSynchronize());
  CHECK_INT(word_at(w.b), 11);
  OK(cuStreamDestroy_v2(blocking));
  world_close(&w);
}

static void polling_ends(void) {
  world w;
  world_open(&w);
  CUevent event;
  OK(cuEventCreate(&event, 0));
  OK(inc(&w, w.stream, w.a, w.b));
  OK(cuEventRecord(event, w.stream));
  CHECK_INT(cuStreamQuery(w.stream), CUDA_ERROR_NOT_READY);
  int polls = 0;
  while (cuEventQuery(event) == CUDA_ERROR_NOT_READY) CHECK(++polls < 100);
  OK(cuStreamQuery(w.stream));
  CHECK_INT(word_at(w.b), 6);
  OK(cuEventDestroy_v2(event));
  world_close(&w);
}

/* Only what the event was recorded after has to have run. */
static void events_order_streams(void) {
  world w;
  world_open(&w);
  CUevent event;
  OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  OK(inc(&w, w.stream, w.a, w.b)); /* b = 6 */
  OK(cuEventRecord(event, w.stream));
  OK(inc(&w, w.stream, w.b, w.a)); /* a = 7 */
  OK(inc(&w, w.other, w.b, w.b + 64));
  OK(cuStreamSynchronize(w.other));
  CHECK_INT(word_at(w.b + 64), 1); /* nobody ordered it */
  OK(cuStreamWaitEvent(w.other, event, 0));
  OK(inc(&w, w.other, w.b, w.b + 64));
  OK(cuStreamSynchronize(w.other));
  CHECK_INT(word_at(w.b + 64), 7);
  CHECK_INT(word_at(w.a), 5);
  OK(cuEventSynchronize(event));
  CHECK_INT(word_at(w.a), 5);
  OK(cuCtxSynchronize());
  CHECK_INT(word_at(w.a), 7);
  OK(cuEventDestroy_v2(event));
  world_close(&w);
}

/* An event node of a graph orders what comes after it outside, and one that waits inside what came before. */
static void event_nodes(void) {
  world w;
  world_open(&w);
  CUevent done;
  CUgraph graph;
  CUgraphNode nodes[2];
  CUgraphExec exec;
  OK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING));
  OK(cuStreamBeginCapture_v2(w.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(inc(&w, w.stream, w.a, w.b));
  OK(cuEventRecordWithFlags(done, w.stream, CU_EVENT_RECORD_EXTERNAL));
  OK(cuStreamEndCapture(w.stream, &graph));
  size_t count = 2;
  int type;
  OK(cuGraphGetNodes(graph, nodes, &count));
  OK(cuGraphNodeGetType(nodes[1], &type));
  CHECK_INT(type, CU_GRAPH_NODE_TYPE_EVENT_RECORD);
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  OK(cuGraphLaunch(exec, w.stream));
  OK(cuStreamWaitEvent(w.other, done, 0));
  OK(inc(&w, w.other, w.b, w.b + 64));
  OK(cuStreamSynchronize(w.other));
  CHECK_INT(word_at(w.b + 64), 7);
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(graph));
  OK(cuEventDestroy_v2(done));
  world_close(&w);
}

static void host_memory_is_read_in_time(void) {
  world w;
  world_open(&w);
  uint32_t pageable = 11, *pinned;
  OK(cuMemHostAlloc((void **)&pinned, 8, 0));
  pinned[0] = 21;
  OK(cuMemcpyHtoDAsync_v2(w.a, &pageable, 4, w.stream));
  OK(cuMemcpyHtoDAsync_v2(w.b, pinned, 4, w.stream));
  pageable = 12; /* was taken at the call */
  pinned[0] = 22; /* is taken when the copy runs: a host that reuses its buffer too early shows */
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(word_at(w.a), 11);
  CHECK_INT(word_at(w.b), 22);
  uint32_t back = 0;
  OK(cuMemcpyDtoHAsync_v2(&back, w.a, 4, w.stream));
  CHECK_INT(back, 11); /* to pageable memory: over when the call is */
  OK(cuMemcpyDtoHAsync_v2(&pinned[1], w.a, 4, w.stream));
  pinned[1] = 0;
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(pinned[1], 11);
  OK(cuMemFreeHost(pinned));
  world_close(&w);
}

static void calls_driver(void *status) {
  CUdeviceptr m;
  *(CUresult *)status = cuMemAlloc_v2(&m, 64);
}

static void host_functions_may_not_call_the_driver(void) {
  world w;
  world_open(&w);
  CUresult inner = CUDA_SUCCESS;
  OK(cuLaunchHostFunc(w.stream, calls_driver, &inner));
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(inner, CUDA_ERROR_NOT_PERMITTED);
  world_close(&w);
}

/* ---- Faults of kernels ------------------------------------------------------------------------------------------------------------ */

/* The context is dead afterwards, the process is not. */
static void dies(world *w, CUresult asked) {
  CHECK_INT(asked, CUDA_SUCCESS);
  CHECK_INT(cuStreamSynchronize(w->stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(strstr(fakecuda_reason(), "touched memory that it may not"));
  CUdeviceptr m;
  CHECK_INT(cuMemAlloc_v2(&m, 64), CUDA_ERROR_ILLEGAL_ADDRESS);
  fakecuda_reset();
}

static void early_free_is_caught(void) {
  world w;
  world_open(&w);
  CUgraph graph = captured_inc(&w, w.a, w.b);
  CUgraphExec exec;
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  OK(cuMemFree_v2(w.b));
  CUdeviceptr again;
  OK(cuMemAlloc_v2(&again, 4096)); /* does not come to lie there */
  dies(&w, cuGraphLaunch(exec, w.stream));
}

static void bounds_are_caught(void) {
  world w;
  world_open(&w);
  dies(&w, inc(&w, w.stream, w.a, w.b + 4096));
  world_open(&w);
  dies(&w, inc(&w, w.stream, w.a + 2, w.b)); /* a word on an odd address */
}

static CUmodule load_object(void) {
  const char *path = getenv("FAKECUDA_TEST_KERNELS");
  CHECK(path);
  char image[4200];
  snprintf(image, sizeof image, "fakecuda-image 1\nlibrary %s\n", path);
  CUmodule module;
  OK(cuModuleLoadData(&module, image));
  return module;
}

static void kernels_of_an_object(void) {
  world w;
  world_open(&w);
  CUmodule module = load_object();
  CUfunction affine;
  size_t offset, size;
  OK(cuModuleGetFunction(&affine, module, "affine"));
  OK(cuFuncGetParamInfo(affine, 2, &offset, &size));
  CHECK_INT(offset, 16);
  CHECK_INT(size, 4);
  int32_t data[4] = {1, -2, 3, 4};
  struct {
    int32_t scale;
    uint8_t add, pad[3];
  } by = {-10, 7, {0}};
  uint32_t n = 3;
  OK(cuMemcpyHtoD_v2(w.a, data, sizeof data));
  void *params[] = {&w.a, &by, &n};
  OK(cuLaunchKernel(affine, 2, 1, 1, 2, 1, 1, 0, w.stream, params, NULL));
  by.scale = 0; /* the launch took a copy */
  OK(cuStreamSynchronize(w.stream));
  OK(cuMemcpyDtoH_v2(data, w.a, sizeof data));
  CHECK_INT(data[0], -3);
  CHECK_INT(data[1], 27);
  CHECK_INT(data[2], -23);
  CHECK_INT(data[3], 4);
  OK(cuModuleUnload(module));
  world_close(&w);
}

static void native_kernels_that_stray_fault(void) {
  world w;
  world_open(&w);
  CUmodule module = load_object();
  CUfunction stray;
  OK(cuModuleGetFunction(&stray, module, "stray"));
  CUdeviceptr m;
  OK(cuMemAlloc_v2(&m, 4096));
  void *params[] = {&m};
  OK(cuLaunchKernel(stray, 1, 1, 1, 1, 1, 1, 0, w.stream, params, NULL));
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(word_at(m), 1);
  OK(cuMemFree_v2(m));
  dies(&w, cuLaunchKernel(stray, 1, 1, 1, 1, 1, 1, 0, w.stream, params, NULL));
}

static void compiled_images_stand_for_an_object(void) {
  world w;
  world_open(&w);
  static const char cubin[64] = "\177ELF", fat[64] = "\x50\xed\x55\xba";
  CUmodule module;
  unsetenv("FAKECUDA_KERNELS");
  CHECK_INT(cuModuleLoadData(&module, cubin), CUDA_ERROR_NO_BINARY_FOR_GPU);
  CHECK(strstr(fakecuda_reason(), "FAKECUDA_KERNELS"));
  setenv("FAKECUDA_KERNELS", getenv("FAKECUDA_TEST_KERNELS"), 1);
  CUfunction function;
  CUlibrary library;
  CUkernel kernel;
  OK(cuModuleLoadData(&module, cubin));
  OK(cuModuleGetFunction(&function, module, "affine"));
  OK(cuLibraryLoadData(&library, fat, NULL, NULL, 0, NULL, NULL, 0));
  OK(cuLibraryGetKernel(&kernel, library, "affine"));
  OK(cuKernelGetFunction(&function, kernel));
  OK(cuLibraryUnload(library));
  OK(cuModuleUnload(module));
  world_close(&w);
}

/* ---- PTX -------------------------------------------------------------------------------------------------------------------------- */

static void grids_of_ptx(void) {
  enum { N = 100 };
  world w;
  world_open(&w);
  float a[N], b[N], out[N];
  for (int i = 0; i < N; i++) {
    a[i] = (float)i / 3.0f;
    b[i] = 1.0f - (float)i * 7.0f;
    out[i] = -1.0f;
  }
  CUdeviceptr c;
  OK(cuMemAlloc_v2(&c, sizeof out));
  OK(cuMemcpyHtoD_v2(w.a, a, sizeof a));
  OK(cuMemcpyHtoD_v2(w.b, b, sizeof b));
  OK(cuMemcpyHtoD_v2(c, out, sizeof out));
  uint32_t n = N - 1;
  void *params[] = {&w.a, &w.b, &c, &n};
  OK(cuLaunchKernel(w.add, 4, 1, 1, 32, 1, 1, 0, w.stream, params, NULL));
  OK(cuStreamSynchronize(w.stream));
  OK(cuMemcpyDtoH_v2(out, c, sizeof out));
  for (int i = 0; i < N - 1; i++) CHECK(out[i] == a[i] + b[i]);
  CHECK(out[N - 1] == -1.0f);
  OK(cuMemFree_v2(c));
  world_close(&w);
}

static uint32_t strange_runs;
static void strange(const fakecuda_launch *launch) { strange_runs += launch->grid[0]; }

static void bodies_that_cannot_run_are_errors(void) {
  world w;
  world_open(&w);
  CUfunction function;
  CHECK_INT(cuModuleGetFunction(&function, w.module, "strange"), CUDA_ERROR_NO_BINARY_FOR_GPU);
  CHECK(strstr(fakecuda_reason(), "strange: a body that the stand-in cannot run"));
  fakecuda_register_kernel("strange", strange);
  CUmodule module;
  OK(cuModuleLoadData(&module, PTX));
  OK(cuModuleGetFunction(&function, module, "strange"));
  void *params[] = {&w.a};
  OK(cuLaunchKernel(function, 3, 1, 1, 1, 1, 1, 0, w.stream, params, NULL));
  CHECK_INT(strange_runs, 0);
  OK(cuModuleUnload(module));
  OK(cuStreamSynchronize(w.stream)); /* work in flight keeps its body */
  CHECK_INT(strange_runs, 3);
  fakecuda_register_kernel("strange", NULL);
  world_close(&w);
}

/* ---- Graphs ----------------------------------------------------------------------------------------------------------------------- */

static void a_graphs_memory_lives_from_node_to_node(void) {
  world w;
  world_open(&w);
  CUdeviceptr m;
  CUgraph graph;
  CUgraphExec exec;
  OK(cuStreamBeginCapture_v2(w.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(cuMemAllocAsync(&m, 4096, w.stream));
  OK(inc(&w, w.stream, w.a, m));
  OK(inc(&w, w.stream, m, w.b));
  OK(cuMemFreeAsync(m, w.stream));
  OK(cuStreamEndCapture(w.stream, &graph));
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  for (int i = 0; i < 2; i++) {
    OK(cuGraphLaunch(exec, w.stream));
    OK(cuStreamSynchronize(w.stream));
    CHECK_INT(word_at(w.b), 7);
  }
  uint32_t value;
  CHECK_INT(cuMemcpyDtoH_v2(&value, m, 4), CUDA_ERROR_INVALID_VALUE);
  dies(&w, inc(&w, w.stream, m, w.b));
}

/* Launches of one executable follow each other, whatever the streams. */
static void launches_of_one_executable_follow_each_other(void) {
  world w;
  world_open(&w);
  CUgraph graph = captured_inc(&w, w.b, w.b);
  CUgraphExec exec;
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  OK(cuGraphLaunch(exec, w.stream));
  OK(cuGraphLaunch(exec, w.other));
  OK(cuGraphLaunch(exec, w.stream));
  OK(cuStreamSynchronize(w.other));
  CHECK_INT(word_at(w.b), 2);
  OK(cuGraphExecDestroy(exec));
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(word_at(w.b), 3);
  OK(cuGraphDestroy(graph));
  world_close(&w);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------------------------- */

typedef struct job {
  const world *w;
  CUdeviceptr counter;
} job;

static void *captures_and_launches(void *argument) {
  const job *j = argument;
  CUstream stream;
  OK(cuCtxSetCurrent(j->w->context));
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  for (int i = 0; i < 200; i++) {
    CUgraph graph;
    CUgraphExec exec;
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(inc(j->w, stream, j->counter, j->counter));
    OK(inc(j->w, stream, j->counter, j->counter));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphLaunch(exec, stream));
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
  }
  OK(cuStreamSynchronize(stream));
  OK(cuStreamDestroy_v2(stream));
  return NULL;
}

static void threads_capture_side_by_side(void) {
  enum { THREADS = 8 };
  world w;
  world_open(&w);
  pthread_t threads[THREADS];
  job jobs[THREADS];
  for (unsigned i = 0; i < THREADS; i++) {
    jobs[i] = (job){&w, w.b + 64 * i};
    put_word(jobs[i].counter, i);
    CHECK_INT(pthread_create(&threads[i], NULL, captures_and_launches, &jobs[i]), 0);
  }
  for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (unsigned i = 0; i < THREADS; i++) CHECK_INT(word_at(jobs[i].counter), i + 400);
  world_close(&w);
}

static const harness_case cases[] = {
    {"work_waits_until_it_is_asked_for", work_waits_until_it_is_asked_for},
    {"polling_ends", polling_ends},
    {"events_order_streams", events_order_streams},
    {"event_nodes", event_nodes},
    {"host_memory_is_read_in_time", host_memory_is_read_in_time},
    {"host_functions_may_not_call_the_driver", host_functions_may_not_call_the_driver},
    {"early_free_is_caught", early_free_is_caught},
    {"bounds_are_caught", bounds_are_caught},
    {"kernels_of_an_object", kernels_of_an_object},
    {"native_kernels_that_stray_fault", native_kernels_that_stray_fault},
    {"compiled_images_stand_for_an_object", compiled_images_stand_for_an_object},
    {"grids_of_ptx", grids_of_ptx},
    {"bodies_that_cannot_run_are_errors", bodies_that_cannot_run_are_errors},
    {"a_graphs_memory_lives_from_node_to_node", a_graphs_memory_lives_from_node_to_node},
    {"launches_of_one_executable_follow_each_other", launches_of_one_executable_follow_each_other},
    {"threads_capture_side_by_side", threads_capture_side_by_side},
};

int main(int argc, char **argv) { return harness_main(argc, argv, cases, sizeof cases / sizeof *cases); }
