/* What a test asks of the stand-in beside CUDA: faults, reports, order, poison, versions, costs. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

/* ---- Faults ---------------------------------------------------------------------------------------------------------------------- */

static void fault_at_the_nth_call(void) {
  world w;
  world_open(&w);
  CUdeviceptr m;
  fakecuda_fail("cuMemAlloc_v2", 2, CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemAlloc_v2(&m, 64));
  OK(cuMemFree_v2(m));
  CHECK_INT(fakecuda_failed(), 0);
  CHECK_INT(cuMemAlloc_v2(&m, 64), CUDA_ERROR_OUT_OF_MEMORY);
  CHECK_INT(fakecuda_failed(), 1);
  OK(cuMemAlloc_v2(&m, 64)); /* once */
  OK(cuMemFree_v2(m));
  fakecuda_fail(NULL, 3, CUDA_ERROR_UNKNOWN); /* of any function */
  OK(cuCtxSynchronize());
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(cuStreamQuery(w.stream), CUDA_ERROR_UNKNOWN);
  fakecuda_fail("cuCtxSynchronize", 1, CUDA_ERROR_UNKNOWN);
  fakecuda_fail(NULL, 0, 0); /* disarmed */
  OK(cuCtxSynchronize());
  uint64_t before = fakecuda_calls("cuCtxSynchronize"), all = fakecuda_calls(NULL);
  OK(cuCtxSynchronize());
  CHECK_INT(fakecuda_calls("cuCtxSynchronize") - before, 1);
  CHECK_INT(fakecuda_calls(NULL) - all, 1);
  world_close(&w);
}

/* A life of a host that gives up at the first failure. */
static CUresult life(uint32_t *result) {
  world w;
  CUgraph graph = NULL;
  CUgraphExec exec = NULL;
  CUdeviceptr a, b;
  const uint32_t five = 5;
  CUresult s = cuInit(0);
  if (!s) s = cuDevicePrimaryCtxRetain(&w.context, 0);
  if (!s) s = cuCtxSetCurrent(w.context);
  if (!s) s = cuModuleLoadData(&w.module, PTX);
  if (!s) s = cuModuleGetFunction(&w.inc, w.module, "inc");
  if (!s) s = cuStreamCreate(&w.stream, CU_STREAM_NON_BLOCKING);
  if (!s) s = cuMemAlloc_v2(&a, 64);
  if (!s) s = cuMemAlloc_v2(&b, 64);
  if (!s) s = cuMemcpyHtoD_v2(a, &five, 4);
  if (!s) s = cuStreamBeginCapture_v2(w.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  if (!s) s = inc(&w, w.stream, a, b);
  if (!s) s = inc(&w, w.stream, b, b);
  if (!s) s = cuStreamEndCapture(w.stream, &graph);
  if (!s) s = cuGraphInstantiateWithFlags(&exec, graph, 0);
  if (!s) s = cuGraphUpload(exec, w.stream);
  if (!s) s = cuGraphLaunch(exec, w.stream);
  if (!s) s = cuStreamSynchronize(w.stream);
  if (!s) s = cuMemcpyDtoH_v2(result, b, 4);
  if (!s) s = cuGraphExecDestroy(exec);
  if (!s) s = cuGraphDestroy(graph);
  if (!s) s = cuMemFree_v2(a);
  if (!s) s = cuMemFree_v2(b);
  if (!s) s = cuStreamDestroy_v2(w.stream);
  if (!s) s = cuModuleUnload(w.module);
  if (!s) s = cuDevicePrimaryCtxRelease_v2(0);
  return s;
}

/* Every call of that life fails once; whatever was left half made goes with the reset, and the sanitizers see no leak. */
static void fault_at_every_call(void) {
  uint64_t n = 1;
  for (;; n++) {
    uint32_t result = 0;
    fakecuda_reset();
    fakecuda_fail(NULL, n, CUDA_ERROR_UNKNOWN);
    CUresult status = life(&result);
    if (!fakecuda_failed()) {
      OK(status);
      CHECK_INT(result, 7);
      break;
    }
    CHECK_INT(status, CUDA_ERROR_UNKNOWN);
  }
  CHECK_INT(n, 26); /* the 25 calls above */
  CHECK_INT(fakecuda_leaks(NULL, 0), 0);
  fakecuda_reset();
}

static void fault_from_the_environment(void) {
  setenv("FAKECUDA_FAIL", "cuDeviceGetCount:1:999", 1);
  fakecuda_reset();
  int count;
  OK(cuInit(0));
  CHECK_INT(cuDeviceGetCount(&count), CUDA_ERROR_UNKNOWN);
  OK(cuDeviceGetCount(&count));
}

/* ---- Leaks ----------------------------------------------------------------------------------------------------------------------- */

static void leaks_are_listed(void) {
  world w;
  world_open(&w);
  CUgraph graph = captured_inc(&w, w.a, w.b);
  CUgraphExec exec;
  CUevent event;
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  OK(cuEventCreate(&event, 0));
  char text[2048];
  /* the context, a module, two streams, an event, a graph, an executable, two allocations */
  CHECK_INT(fakecuda_leaks(text, sizeof text), 9);
  CHECK(strstr(text, "executable made by call ") && strstr(text, "event made by call ") && strstr(text, "graph made by call "));
  CHECK(strstr(text, "device memory of 4096 bytes made by call "));
  char small[8];
  CHECK_INT(fakecuda_leaks(small, sizeof small), 9);
  CHECK_INT(strlen(small), 7);
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(graph));
  CHECK_INT(fakecuda_leaks(NULL, 0), 7);
  OK(cuEventDestroy_v2(event));
  world_close(&w);
}

/* ---- Order ------------------------------------------------------------------------------------------------------------------------ */

static char order[16];
static size_t ran;

static void note(void *letter) {
  order[ran++] = *(const char *)letter;
  order[ran] = 0;
}

/* a before b and c, both before d; e on its own. */
static CUgraph diamond(void) {
  static char letters[] = "abcde";
  CUgraph graph;
  CUgraphNode n[5];
  OK(cuGraphCreate(&graph, 0));
  for (int i = 0; i < 5; i++) OK(cuGraphAddHostNode(&n[i], graph, NULL, 0, &(CUDA_HOST_NODE_PARAMS){note, &letters[i]}));
  OK(cuGraphAddDependencies(graph, (CUgraphNode[]){n[0], n[0], n[1], n[2]}, (CUgraphNode[]){n[1], n[2], n[3], n[3]}, 4));
  return graph;
}

static size_t position(char letter) { return (size_t)(strchr(order, letter) - order); }

static void independent_nodes_are_reordered(void) {
  world w;
  world_open(&w);
  CUgraph graph = diamond();
  CUgraphExec exec;
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  ran = 0;
  OK(cuGraphLaunch(exec, w.stream));
  OK(cuStreamSynchronize(w.stream));
  CHECK(strcmp(order, "aebcd") == 0); /* as added, where the edges leave a choice */
  bool c_first = false, e_first = false, e_last = false;
  fakecuda_set_seed(1);
  for (int i = 0; i < 100; i++) {
    ran = 0;
    OK(cuGraphLaunch(exec, w.stream));
    OK(cuStreamSynchronize(w.stream));
    CHECK_INT(ran, 5);
    CHECK(position('a') < position('b') && position('a') < position('c'));
    CHECK(position('d') > position('b') && position('d') > position('c'));
    c_first |= position('c') < position('b');
    e_first |= position('e') == 0;
    e_last |= position('e') == 4;
  }
  CHECK(c_first && e_first && e_last);
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(graph));
  world_close(&w);
}

/* ---- Poison ----------------------------------------------------------------------------------------------------------------------- */

static void fresh_memory_is_poisoned(void) {
  world w;
  world_open(&w);
  CUdeviceptr m, va;
  CUmemGenericAllocationHandle handle;
  OK(cuMemAlloc_v2(&m, 64));
  CHECK_INT(word_at(m + 60), 0);
  OK(cuMemFree_v2(m));
  fakecuda_set_poison(0xa5);
  OK(cuMemAlloc_v2(&m, 64));
  CHECK_INT(word_at(m), 0xa5a5a5a5);
  CHECK_INT(word_at(m + 60), 0xa5a5a5a5);
  OK(cuMemFree_v2(m));
  size_t block = 2 << 20;
  CUmemAllocationProp prop = {.type = 1, .location = {1, 0}};
  CUmemAccessDesc access = {{1, 0}, 3};
  OK(cuMemAddressReserve(&va, block, 0, 0, 0));
  OK(cuMemCreate(&handle, block, &prop, 0));
  OK(cuMemMap(va, block, 0, handle, 0));
  OK(cuMemSetAccess(va, block, &access, 1));
  CHECK_INT(word_at(va + block - 4), 0xa5a5a5a5);
  put_word(va, 1);
  OK(fakecuda_poison(va + 4, 8, 0xff));
  CHECK_INT(word_at(va), 1);
  CHECK_INT(word_at(va + 8), 0xffffffff);
  CHECK_INT(word_at(va + 12), 0xa5a5a5a5);
  CHECK_INT(fakecuda_poison(va + block - 4, 8, 0xff), CUDA_ERROR_INVALID_VALUE);
  OK(cuMemUnmap(va, block));
  OK(cuMemRelease(handle));
  OK(cuMemAddressFree(va, block));
  world_close(&w);
}

/* ---- Guards ----------------------------------------------------------------------------------------------------------------------- */

typedef void (*scenario)(const world *w, CUgraphNode node);

/* The signal that ends a child which runs the scenario; 0 if none does. */
static int signal_of(const world *w, CUgraphNode node, scenario run) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    if (!freopen("/dev/null", "w", stderr)) _exit(9);
    run(w, node);
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return WTERMSIG(status);
  return WEXITSTATUS(status); /* a sanitizer turns the signal into its own exit status */
}

static CUDA_KERNEL_NODE_PARAMS lent;

static void reads(const world *w, CUgraphNode node) {
  (void)node;
  if (**(CUdeviceptr **)lent.kernelParams != w->a) _exit(3);
}

static void writes_a_parameter(const world *w, CUgraphNode node) {
  (void)node;
  *(volatile CUdeviceptr *)lent.kernelParams[0] = w->b;
}

static void writes_the_list(const world *w, CUgraphNode node) {
  static CUdeviceptr own;
  (void)node;
  own = w->b;
  ((void *volatile *)lent.kernelParams)[0] = &own;
}

static void lent_parameters_cannot_be_written(void) {
  world w;
  world_open(&w);
  CUgraph graph = captured_inc(&w, w.a, w.b);
  CUgraphNode node = only_node(graph);
  OK(cuGraphKernelNodeGetParams_v2(node, &lent));
  CHECK_INT(signal_of(&w, node, reads), 0);
  CHECK(signal_of(&w, node, writes_a_parameter) != 0);
  CHECK(signal_of(&w, node, writes_the_list) != 0);
  CUDA_KERNEL_NODE_PARAMS again;
  OK(cuGraphKernelNodeGetParams_v2(node, &again));
  CHECK(again.kernelParams == lent.kernelParams); /* lent until the node changes */
  void *params[] = {&w.b, &w.b};
  again.kernelParams = params;
  OK(cuGraphKernelNodeSetParams_v2(node, &again));
  CHECK(signal_of(&w, node, reads) != 0); /* what was lent before is gone */
  OK(cuGraphDestroy(graph));
  world_close(&w);
}

/* ---- Versions --------------------------------------------------------------------------------------------------------------------- */

/* By the first variant, which every version here has. */
static void *address_of(const char *name, int version) {
  void *address = NULL;
  CUresult status = cuGetProcAddress(name, &address, version, 0);
  CHECK_INT(status, address ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND);
  return address;
}

static void versions_hide_what_is_younger(void) {
  static const struct {
    int driver, param_info, update_v2, capture_v3;
  } profiles[] = {{11080, 0, 0, 0}, {12000, 0, 1, 0}, {12040, 1, 1, 1}, {13000, 1, 1, 1}};
  for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
    int version, how;
    fakecuda_set_version(profiles[i].driver);
    OK(cuDriverGetVersion(&version));
    CHECK_INT(version, profiles[i].driver);
    CHECK_INT(address_of("cuFuncGetParamInfo", version) != NULL, profiles[i].param_info);
    void *update = address_of("cuGraphExecUpdate", version);
    CHECK(update == (profiles[i].update_v2 ? (void *)(uintptr_t)cuGraphExecUpdate_v2 : (void *)(uintptr_t)cuGraphExecUpdate));
    void *info = address_of("cuStreamGetCaptureInfo", version);
    CHECK(info == (profiles[i].capture_v3 ? (void *)(uintptr_t)cuStreamGetCaptureInfo_v3 : (void *)(uintptr_t)cuStreamGetCaptureInfo_v2));
    CHECK_INT(cuGetProcAddress("cuInit", &update, version + 10, 0), CUDA_ERROR_INVALID_VALUE);
    if (version < 12000) continue;
    OK(cuGetProcAddress_v2("cuFuncGetParamInfo", &update, version, 0, &how)); /* a younger driver's name means nothing to it */
    CHECK_INT(how, profiles[i].param_info ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    OK(cuGetProcAddress_v2("cuFuncGetParamInfo", &update, 12000, 0, &how));
    CHECK_INT(how, profiles[i].param_info ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  }
  fakecuda_set_version(11080);
  OK(cuInit(0));
  size_t offset, size;
  CHECK_INT(cuFuncGetParamInfo(NULL, 0, &offset, &size), CUDA_ERROR_NOT_SUPPORTED);
  CHECK(strstr(fakecuda_reason(), "cuFuncGetParamInfo: the driver's version is 11080, it came with 12040"));
}

/* ---- Costs ------------------------------------------------------------------------------------------------------------------------ */

static size_t free_memory(void) {
  size_t free_bytes, total;
  OK(cuMemGetInfo_v2(&free_bytes, &total));
  return free_bytes;
}

/* Measured on the real driver: 112 to 116 KiB for one kernel, whole blocks taken from the device, given back to executables only. */
static void executables_cost_memory(void) {
  enum { COUNT = 64 };
  world w;
  CUgraphExec execs[COUNT];
  fakecuda_memory use;
  world_open(&w);
  CUgraph graph = captured_inc(&w, w.a, w.b);
  size_t before = free_memory();
  for (int i = 0; i < COUNT; i++) OK(cuGraphInstantiateWithFlags(&execs[i], graph, 0));
  fakecuda_memory_use(&use);
  CHECK_INT(use.executables, COUNT * (110 * 1024 + 2560));
  CHECK_INT(before - free_memory(), 8 << 20); /* 7,372,800 bytes in blocks of 2 MiB */
  for (int i = 0; i < COUNT; i++) OK(cuGraphExecDestroy(execs[i]));
  fakecuda_memory_use(&use);
  CHECK_INT(use.executables, 0);
  CHECK_INT(before - free_memory(), 8 << 20);
  for (int i = 0; i < COUNT; i++) OK(cuGraphInstantiateWithFlags(&execs[i], graph, 0));
  CHECK_INT(before - free_memory(), 8 << 20);
  for (int i = 0; i < COUNT; i++) OK(cuGraphExecDestroy(execs[i]));
  fakecuda_set_exec_cost((size_t)1 << 40, 0);
  CHECK_INT(cuGraphInstantiateWithFlags(&execs[0], graph, 0), CUDA_ERROR_OUT_OF_MEMORY);
  fakecuda_set_exec_cost(1000, 1);
  OK(cuGraphInstantiateWithFlags(&execs[0], graph, 0));
  fakecuda_memory_use(&use);
  CHECK_INT(use.executables, 1001);
  OK(cuGraphExecDestroy(execs[0]));
  OK(cuGraphDestroy(graph));
  world_close(&w);
}

static void memory_runs_out(void) {
  world w;
  CUdeviceptr m, n;
  world_open(&w);
  fakecuda_set_total_memory(64 << 20);
  OK(cuMemAlloc_v2(&m, 40 << 20));
  CHECK_INT(cuMemAlloc_v2(&n, 40 << 20), CUDA_ERROR_OUT_OF_MEMORY);
  CUmemGenericAllocationHandle handle;
  CUmemAllocationProp prop = {.type = 1, .location = {1, 0}};
  CHECK_INT(cuMemCreate(&handle, 40 << 20, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemFree_v2(m));
  OK(cuMemAlloc_v2(&n, 40 << 20));
  CHECK(n != m); /* an address is used once */
  OK(cuMemFree_v2(n));
  world_close(&w);
}

static const harness_case cases[] = {{"fault_at_the_nth_call", fault_at_the_nth_call},
                                     {"fault_at_every_call", fault_at_every_call},
                                     {"fault_from_the_environment", fault_from_the_environment},
                                     {"leaks_are_listed", leaks_are_listed},
                                     {"independent_nodes_are_reordered", independent_nodes_are_reordered},
                                     {"fresh_memory_is_poisoned", fresh_memory_is_poisoned},
                                     {"lent_parameters_cannot_be_written", lent_parameters_cannot_be_written},
                                     {"versions_hide_what_is_younger", versions_hide_what_is_younger},
                                     {"executables_cost_memory", executables_cost_memory},
                                     {"memory_runs_out", memory_runs_out}};

int main(int argc, char **argv) { return harness_main(argc, argv, cases, sizeof cases / sizeof *cases); }
