/* Captures, executables, and the addresses in their kernels' parameters.
 *
 * A parameter that holds a caller's address is found by comparing two launches of the op (tape/device.h), never by looking for
 * numbers that seem to be one. Its node is then given new parameters, from a copy of ours: what a node owns is the driver's. */
#include <stdlib.h>
#include <string.h>

#include "device.h"

typedef struct recorded { /* a launch with addresses of the caller's in it */
  CUgraphNode node;
  adcg_kernel_launch launch; /* its params are not kept */
  int32_t first_param, num_params; /* in `params` */
  bool dirty;                      /* its parameters have changed since the executable has them */
} recorded;

typedef struct param {
  int64_t at; /* in `bytes` */
  size_t bytes;
} param;

typedef struct word { /* eight bytes that hold an address */
  int32_t launch, slot;
  int64_t at; /* in `bytes` */
} word;

typedef struct list { /* grows; its elements are of one size */
  void *items;
  int64_t count, room;
} list;

typedef struct executable {
  tape_executable head;
  const adcg_cuda *cuda;
  CUgraph graph; /* once captured, while there are nodes to point */
  CUgraphExec exec;
  bool capturing, dirty;
  int32_t num_seen; /* nodes whose types have been looked at */

  list launches, params, bytes, words;
  bool recording, following, explained; /* the op: its first launches, its second ones; all differences are addresses */
  int64_t op_launches, op_params, op_bytes, op_words; /* where the op began */
  int64_t next;                                       /* the launch that the next one is compared with */
} executable;

static executable *of(tape_executable *x) { return (executable *)x; }

/* Room for `count` more elements of `size` bytes; NULL if out of memory. */
static void *grow(list *l, int64_t count, size_t size) {
  if (l->count + count > l->room) {
    const int64_t room = 2 * (l->count + count);
    void *items = realloc(l->items, (size_t)room * size);
    if (!items) return NULL;
    l->items = items;
    l->room = room;
  }
  void *at = (char *)l->items + (size_t)l->count * size;
  l->count += count;
  return at;
}

static recorded *launches(const executable *x) { return x->launches.items; }
static param *params(const executable *x) { return x->params.items; }
static char *bytes(const executable *x) { return x->bytes.items; }
static word *words(const executable *x) { return x->words.items; }

/* ---- Capture -------------------------------------------------------------------------------------------------------- */

static void discard(const tape_device *on, void *stream, tape_executable *head) {
  executable *x = of(head);
  const adcg_driver *driver = &adcg_cuda_of(on)->driver;
  if (x->capturing) driver->cuStreamEndCapture(stream, &x->graph); /* also after a failure: the stream would stay in it */
  if (x->exec) driver->cuGraphExecDestroy(x->exec);
  if (x->graph) driver->cuGraphDestroy(x->graph);
  free(x->launches.items);
  free(x->params.items);
  free(x->bytes.items);
  free(x->words.items);
  free(x);
}

static adcg_status begin_capture(const tape_device *on, void *stream, int32_t mode, tape_executable **out) {
  static const int modes[] = {[ADCG_CAPTURE_MODE_THREAD_LOCAL] = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                              [ADCG_CAPTURE_MODE_GLOBAL] = CU_STREAM_CAPTURE_MODE_GLOBAL,
                              [ADCG_CAPTURE_MODE_RELAXED] = CU_STREAM_CAPTURE_MODE_RELAXED};
  const adcg_cuda *cuda = adcg_cuda_of(on);
  executable *x = calloc(1, sizeof *x);
  if (!x) return adcg_cuda_fail(ADCG_ERR_OUT_OF_MEMORY, "out of host memory");
  x->cuda = cuda;
  const CUresult result = cuda->driver.cuStreamBeginCapture(stream, modes[mode]);
  if (result != CUDA_SUCCESS) {
    free(x);
    return adcg_cuda_check(cuda, result, "cuStreamBeginCapture");
  }
  x->capturing = true;
  *out = &x->head;
  return ADCG_OK;
}

/* Looks at the types of nodes that are new; refuses those that allocate, since the plan is where memory comes from. */
static adcg_status look_at_nodes(executable *x, CUgraph graph) {
  const adcg_cuda *cuda = x->cuda;
  size_t count = 0;
  ADCG_CUDA_TRY(cuda, cuGraphGetNodes, graph, NULL, &count);
  if (count == (size_t)x->num_seen) return ADCG_OK;
  CUgraphNode *nodes = calloc(count, sizeof *nodes);
  if (!nodes) return adcg_cuda_fail(ADCG_ERR_OUT_OF_MEMORY, "out of host memory");
  adcg_status status = adcg_cuda_check(cuda, cuda->driver.cuGraphGetNodes(graph, nodes, &count), "cuGraphGetNodes");
  int64_t kernels = 0;
  for (size_t i = 0; i < count && !status; i++) {
    int type = 0;
    status = adcg_cuda_check(cuda, cuda->driver.cuGraphNodeGetType(nodes[i], &type), "cuGraphNodeGetType");
    if (!status && (type == CU_GRAPH_NODE_MEM_ALLOC || type == CU_GRAPH_NODE_MEM_FREE))
      status = adcg_cuda_fail(ADCG_ERR_OP, "it allocates memory in a capture: declare workspace instead");
    kernels += type == CU_GRAPH_NODE_KERNEL;
  }
  free(nodes);
  if (status) return status;
  x->num_seen = x->head.num_nodes = (int32_t)count;
  x->head.device_bytes = ADCG_CUDA_EXECUTABLE_BYTES + kernels * ADCG_CUDA_KERNEL_NODE_BYTES;
  return ADCG_OK;
}

static adcg_status check_capture(const tape_device *on, void *stream, tape_executable *head) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  int capture = 0;
  CUgraph graph = NULL;
  ADCG_CUDA_TRY(cuda, cuStreamGetCaptureInfo, stream, &capture, NULL, &graph, NULL, NULL);
  if (capture != CU_STREAM_CAPTURE_STATUS_ACTIVE)
    return adcg_cuda_fail(ADCG_ERR_OP,
                          "it ended the capture: it made a call that cannot be captured, such as one that synchronises or allocates");
  return look_at_nodes(of(head), graph);
}

static adcg_status end_capture(const tape_device *on, void *stream, tape_executable *head) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  executable *x = of(head);
  ADCG_CUDA_TRY(cuda, cuStreamEndCapture, stream, &x->graph); /* if it fails, discard makes sure that the stream is out of it */
  x->capturing = false;
  adcg_status status = look_at_nodes(x, x->graph);
  if (status || !x->head.num_nodes) return status;
  ADCG_CUDA_TRY(cuda, cuGraphInstantiateWithFlags, &x->exec, x->graph, 0);
  ADCG_CUDA_TRY(cuda, cuGraphUpload, x->exec, stream); /* or the first launch would */
  if (!x->words.count) { /* no node will be named again */
    ADCG_CUDA_TRY(cuda, cuGraphDestroy, x->graph);
    x->graph = NULL;
  }
  return ADCG_OK;
}

/* ---- Addresses -------------------------------------------------------------------------------------------------------- */

static void begin_op(const tape_device *on, tape_executable *head) {
  executable *x = of(head);
  x->recording = true;
  x->explained = adcg_cuda_of(on)->driver.cuFuncGetParamInfo != NULL; /* an older driver does not say how long parameters are */
  x->op_launches = x->launches.count;
  x->op_params = x->params.count;
  x->op_bytes = x->bytes.count;
  x->op_words = x->words.count;
}

static void follow_op(const tape_device *on, tape_executable *head) {
  (void)on;
  executable *x = of(head);
  x->recording = false;
  x->following = true;
  x->next = x->op_launches;
}

static bool end_op(const tape_device *on, tape_executable *head) {
  (void)on;
  executable *x = of(head);
  const bool found = x->explained && x->next == x->launches.count;
  x->recording = x->following = false;
  if (!found) x->words.count = x->op_words;
  if (x->words.count == x->op_words) { /* nothing of it will be pointed */
    x->launches.count = x->op_launches;
    x->params.count = x->op_params;
    x->bytes.count = x->op_bytes;
  }
  return found;
}

/* The bytes of one parameter after the other, each from a multiple of eight on. */
static adcg_status keep(executable *x, void *stream, const adcg_kernel_launch *launch) {
  const adcg_cuda *cuda = x->cuda;
  const CUgraphNode *last = NULL;
  size_t count = 0;
  int capture = 0;
  ADCG_CUDA_TRY(cuda, cuStreamGetCaptureInfo, stream, &capture, NULL, NULL, &last, &count);
  if (capture != CU_STREAM_CAPTURE_STATUS_ACTIVE || count != 1) {
    x->explained = false;
    return ADCG_OK;
  }
  const CUgraphNode node = last[0];
  const int64_t first = x->params.count;
  for (size_t i = 0, offset, size;; i++) {
    const CUresult result = cuda->driver.cuFuncGetParamInfo(launch->function, i, &offset, &size);
    if (result == CUDA_ERROR_INVALID_VALUE) break; /* there are no more */
    if (result != CUDA_SUCCESS) { /* the slots are then staged */
      x->explained = false;
      return ADCG_OK;
    }
    const int64_t at = x->bytes.count;
    param *p = grow(&x->params, 1, sizeof *p);
    char *to = p ? grow(&x->bytes, (int64_t)(size + 7) / 8 * 8, 1) : NULL;
    if (!to) return adcg_cuda_fail(ADCG_ERR_OUT_OF_MEMORY, "out of host memory");
    *p = (param){at, size};
    memcpy(to, launch->params[i], size);
  }
  recorded *r = grow(&x->launches, 1, sizeof *r);
  if (!r) return adcg_cuda_fail(ADCG_ERR_OUT_OF_MEMORY, "out of host memory");
  *r = (recorded){node, *launch, (int32_t)first, (int32_t)(x->params.count - first), false};
  return ADCG_OK;
}

/* Finds the slot whose shift the difference of two words is; -1: of none. */
static int32_t slot_of(uint64_t difference) {
  const uint64_t high = difference >> 32;
  return (difference & UINT32_MAX) == 0 && (high & 1) ? (int32_t)(high >> 1) : -1;
}

/* Compares a launch with the one before that it should be like, but for the addresses. */
static bool compare(executable *x, const adcg_kernel_launch *launch) {
  if (x->next >= x->launches.count) return false;
  const int32_t number = (int32_t)x->next++;
  const recorded *r = &launches(x)[number];
  if (r->launch.function != launch->function || r->launch.shared_bytes != launch->shared_bytes ||
      memcmp(r->launch.grid, launch->grid, sizeof launch->grid) != 0 || memcmp(r->launch.block, launch->block, sizeof launch->block) != 0)
    return false;
  for (int32_t i = 0; i < r->num_params; i++) {
    const param p = params(x)[r->first_param + i];
    const char *now = launch->params[i];
    for (size_t at = 0; at < p.bytes; at += 8) {
      uint64_t a = 0, b = 0;
      const size_t size = p.bytes - at < 8 ? p.bytes - at : 8;
      memcpy(&a, bytes(x) + p.at + at, size);
      memcpy(&b, now + at, size);
      if (a == b) continue;
      const int32_t slot = size == 8 ? slot_of(b - a) : -1;
      word *w = slot >= 0 ? grow(&x->words, 1, sizeof *w) : NULL;
      if (!w) return false; /* for want of memory too: the slot is then staged */
      *w = (word){number, slot, p.at + (int64_t)at};
    }
  }
  return true;
}

static adcg_status record(const tape_device *on, void *stream, tape_executable *head, const adcg_kernel_launch *launch) {
  executable *x = of(head);
  if (x->following) {
    x->explained = x->explained && compare(x, launch);
    return ADCG_OK;
  }
  adcg_status status = on->launch(on, stream, launch);
  return status || !x->recording || !x->explained ? status : keep(x, stream, launch);
}

static void point(tape_executable *head, int32_t slot, uintptr_t was, uintptr_t address) {
  executable *x = of(head);
  for (int64_t i = 0; i < x->words.count; i++) {
    const word *w = &words(x)[i];
    if (w->slot != slot) continue;
    uint64_t value;
    memcpy(&value, bytes(x) + w->at, sizeof value);
    value += address - was;
    memcpy(bytes(x) + w->at, &value, sizeof value);
    launches(x)[w->launch].dirty = x->dirty = true;
  }
}

/* Gives the executable what `point` changed. What fails is tried again with the next run. */
static adcg_status flush(executable *x) {
  enum { kMaxParams = 64 };
  const adcg_cuda *cuda = x->cuda;
  for (int64_t i = 0; i < x->launches.count; i++) {
    recorded *r = &launches(x)[i];
    if (!r->dirty) continue;
    void *values[kMaxParams], **all = values;
    if (r->num_params > kMaxParams && !(all = malloc((size_t)r->num_params * sizeof *all)))
      return adcg_cuda_fail(ADCG_ERR_OUT_OF_MEMORY, "out of host memory");
    for (int32_t p = 0; p < r->num_params; p++) all[p] = bytes(x) + params(x)[r->first_param + p].at;
    CUkernelNodeParams node = {.function = r->launch.function, .shared_bytes = r->launch.shared_bytes, .params = all};
    memcpy(node.grid, r->launch.grid, sizeof node.grid);
    memcpy(node.block, r->launch.block, sizeof node.block);
    const CUresult result = cuda->driver.cuGraphExecKernelNodeSetParams(x->exec, r->node, &node);
    if (all != values) free(all);
    if (result != CUDA_SUCCESS) return adcg_cuda_check(cuda, result, "cuGraphExecKernelNodeSetParams");
    r->dirty = false;
  }
  x->dirty = false;
  return ADCG_OK;
}

static adcg_status run(const tape_device *on, void *stream, tape_executable *head) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  executable *x = of(head);
  if (__builtin_expect(x->dirty, 0)) {
    adcg_status status = flush(x);
    if (status) return status;
  }
  ADCG_CUDA_TRY(cuda, cuGraphLaunch, x->exec, stream);
  return ADCG_OK;
}

void adcg_cuda_graph_calls(tape_device *on) {
  on->begin_capture = begin_capture;
  on->check_capture = check_capture;
  on->end_capture = end_capture;
  on->discard = discard;
  on->run = run;
  on->begin_op = begin_op;
  on->follow_op = follow_op;
  on->end_op = end_op;
  on->record = record;
  on->point = point;
}
