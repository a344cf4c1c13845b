/* Nodes: adding, and the parameters that a caller may read and set. What a Get call of a kernel node lends is the driver's own memory on
 * a real driver: writing it changes the node behind the driver's back. Here it is a page that cannot be written, gone with the node or
 * with its next parameters. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state.h"

struct fc_guard {
  size_t bytes;
  void **params, **extra;
};

void fc_guard_drop(fc_node *node) {
  if (node->guard) munmap(node->guard, node->guard->bytes);
  node->guard = NULL;
}

/* One read-only mapping: the struct above, the list of pointers or the five words of `extra`, its size word, the parameters. */
static bool guard_make(fc_node *node) {
  const fc_payload *payload = node->payload;
  const fc_function *f = payload->k.function;
  size_t page = (size_t)sysconf(_SC_PAGESIZE), words = payload->k.by_extra ? 6 : f->num_params + 1;
  size_t head = sizeof(struct fc_guard) + words * sizeof(void *), packed = (head + 63) & ~(size_t)63;
  size_t bytes = (packed + f->packed_bytes + page - 1) & ~(page - 1);
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  struct fc_guard *guard = (struct fc_guard *)(void *)memory;
  void **list = (void **)(void *)(memory + sizeof *guard);
  guard->bytes = bytes;
  if (f->packed_bytes) memcpy(memory + packed, payload->k.packed, f->packed_bytes);
  if (payload->k.by_extra) { /* in this order, recorded */
    memcpy(&list[5], &payload->k.extra_bytes, sizeof(size_t));
    list[0] = CU_LAUNCH_PARAM_BUFFER_SIZE;
    list[1] = &list[5];
    list[2] = CU_LAUNCH_PARAM_BUFFER_POINTER;
    list[3] = memory + packed;
    list[4] = CU_LAUNCH_PARAM_END;
    guard->extra = list;
  } else {
    for (size_t i = 0; i < f->num_params; i++) list[i] = memory + packed + f->offsets[i];
    guard->params = list;
  }
  mprotect(memory, bytes, PROT_READ);
  node->guard = guard;
  return true;
}

static void replace(fc_node *node, fc_payload *payload) {
  fc_guard_drop(node);
  fc_payload_drop(node->payload);
  node->payload = payload;
}

CUresult fc_node_of(CUgraphNode handle, int type, fc_node **node) {
  *node = fc_live(handle, FC_NODE);
  return *node && (type < 0 || (*node)->type == type) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult insert_check(CUgraph handle, const CUgraphNode *deps, size_t count, const CUgraphNode *out) {
  const fc_graph *graph = fc_live(handle, FC_GRAPH);
  if (!graph || !out || (count && !deps)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    const fc_node *dep = fc_live(deps[i], FC_NODE);
    if (!dep || dep->graph != graph) return CUDA_ERROR_INVALID_VALUE;
    for (size_t k = 0; k < i; k++) {
      if (deps[k] == deps[i]) return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_SUCCESS;
}

CUresult fc_node_insert(CUgraph handle, const CUgraphNode *deps, size_t count, int type, fc_payload *payload, CUgraphNode *out) {
  CUresult status = insert_check(handle, deps, count, out);
  if (status) {
    fc_payload_drop(payload);
    return status;
  }
  fc_node *node = fc_node_add((fc_graph *)fc_live(handle, FC_GRAPH), type, (fc_node *const *)deps, count, payload);
  if (!node) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = (CUgraphNode)node;
  return CUDA_SUCCESS;
}

static fc_context *context_of(CUcontext handle) { return handle ? fc_live(handle, FC_CONTEXT) : fc_current(); }

CUresult cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count) {
  ENTER(0);
  LEAVE(fc_node_insert(graph, deps, count, CU_GRAPH_NODE_TYPE_EMPTY, NULL, node));
}

/* ---- Kernels ------------------------------------------------------------------------------------------------------------------- */

CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count,
                                 const CUDA_KERNEL_NODE_PARAMS *params) {
  ENTER(STICKY);
  TRY(insert_check(graph, deps, count, node));
  fc_payload *payload;
  TRY(fc_kernel_payload(params, &payload));
  LEAVE(fc_node_insert(graph, deps, count, CU_GRAPH_NODE_TYPE_KERNEL, payload, node));
}

static CUresult get_kernel(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS *out) {
  fc_node *node;
  CUresult status = fc_node_of(handle, CU_GRAPH_NODE_TYPE_KERNEL, &node);
  if (status) return status;
  if (!node->guard && !guard_make(node)) return CUDA_ERROR_OUT_OF_MEMORY;
  const fc_payload *p = node->payload;
  *out = (CUDA_KERNEL_NODE_PARAMS){.func = (CUfunction)p->k.function,
                                   .gridDimX = p->k.grid[0],
                                   .gridDimY = p->k.grid[1],
                                   .gridDimZ = p->k.grid[2],
                                   .blockDimX = p->k.block[0],
                                   .blockDimY = p->k.block[1],
                                   .blockDimZ = p->k.block[2],
                                   .sharedMemBytes = p->k.shared,
                                   .kernelParams = node->guard->params,
                                   .extra = node->guard->extra,
                                   .kern = NULL,
                                   .ctx = (CUcontext)p->context};
  return CUDA_SUCCESS;
}

static CUresult set_kernel(CUgraphNode handle, const CUDA_KERNEL_NODE_PARAMS *params) {
  fc_node *node;
  fc_payload *payload;
  CUresult status = fc_node_of(handle, CU_GRAPH_NODE_TYPE_KERNEL, &node);
  if (!status) status = fc_kernel_payload(params, &payload);
  if (!status) replace(node, payload);
  return status;
}

CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *params) {
  ENTER(0);
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  LEAVE(get_kernel(node, params));
}

CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params) {
  ENTER(0);
  LEAVE(set_kernel(node, params));
}

/* The first variants' struct is the second one's beginning. */
enum { FIRST_STRUCT = offsetof(CUDA_KERNEL_NODE_PARAMS, kern) };

CUresult cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count, const void *params) {
  CUDA_KERNEL_NODE_PARAMS full = {0};
  ENTER(STICKY);
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  memcpy(&full, params, FIRST_STRUCT);
  TRY(insert_check(graph, deps, count, node));
  fc_payload *payload;
  TRY(fc_kernel_payload(&full, &payload));
  LEAVE(fc_node_insert(graph, deps, count, CU_GRAPH_NODE_TYPE_KERNEL, payload, node));
}

CUresult cuGraphKernelNodeGetParams(CUgraphNode node, void *params) {
  CUDA_KERNEL_NODE_PARAMS full;
  ENTER(0);
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  TRY(get_kernel(node, &full));
  memcpy(params, &full, FIRST_STRUCT);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphKernelNodeSetParams(CUgraphNode node, const void *params) {
  CUDA_KERNEL_NODE_PARAMS full = {0};
  ENTER(0);
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  memcpy(&full, params, FIRST_STRUCT);
  LEAVE(set_kernel(node, &full));
}

/* Attributes (priority, cluster sizes) change nothing here. */
CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode dst, CUgraphNode src) {
  ENTER(0);
  fc_node *node;
  TRY(fc_node_of(dst, CU_GRAPH_NODE_TYPE_KERNEL, &node));
  LEAVE(fc_node_of(src, CU_GRAPH_NODE_TYPE_KERNEL, &node));
}

/* ---- Copies, memsets, host functions -------------------------------------------------------------------------------------------- */

CUresult cuGraphAddMemcpyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count, const CUDA_MEMCPY3D *params,
                              CUcontext context) {
  ENTER(STICKY);
  TRY(insert_check(graph, deps, count, node));
  fc_context *in = context_of(context);
  CHECK(in, CUDA_ERROR_INVALID_CONTEXT);
  fc_payload *payload;
  TRY(fc_copy_payload(params, in, &payload));
  LEAVE(fc_node_insert(graph, deps, count, CU_GRAPH_NODE_TYPE_MEMCPY, payload, node));
}

CUresult cuGraphMemcpyNodeGetParams(CUgraphNode handle, CUDA_MEMCPY3D *params) {
  ENTER(0);
  fc_node *node;
  TRY(fc_node_of(handle, CU_GRAPH_NODE_TYPE_MEMCPY, &node));
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  *params = node->payload->copy;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphMemcpyNodeSetParams(CUgraphNode handle, const CUDA_MEMCPY3D *params) {
  ENTER(0);
  fc_node *node;
  fc_payload *payload;
  TRY(fc_node_of(handle, CU_GRAPH_NODE_TYPE_MEMCPY, &node));
  TRY(fc_copy_payload(params, node->payload->context, &payload));
  replace(node, payload);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphAddMemsetNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count,
                              const CUDA_MEMSET_NODE_PARAMS *params, CUcontext context) {
  ENTER(STICKY);
  TRY(insert_check(graph, deps, count, node));
  fc_context *in = context_of(context);
  CHECK(in, CUDA_ERROR_INVALID_CONTEXT);
  fc_payload *payload;
  TRY(fc_set_payload(params, in, &payload));
  LEAVE(fc_node_insert(graph, deps, count, CU_GRAPH_NODE_TYPE_MEMSET, payload, node));
}

CUresult cuGraphMemsetNodeGetParams(CUgraphNode handle, CUDA_MEMSET_NODE_PARAMS *params) {
  ENTER(0);
  fc_node *node;
  TRY(fc_node_of(handle, CU_GRAPH_NODE_TYPE_MEMSET, &node));
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  *params = node->payload->set;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphMemsetNodeSetParams(CUgraphNode handle, const CUDA_MEMSET_NODE_PARAMS *params) {
  ENTER(0);
  fc_node *node;
  fc_payload *payload;
  TRY(fc_node_of(handle, CU_GRAPH_NODE_TYPE_MEMSET, &node));
  TRY(fc_set_payload(params, node->payload->context, &payload));
  replace(node, payload);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphAddHostNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count, const CUDA_HOST_NODE_PARAMS *params) {
  ENTER(0);
  TRY(insert_check(graph, deps, count, node));
  fc_payload *payload;
  TRY(fc_host_payload(params, &payload));
  LEAVE(fc_node_insert(graph, deps, count, CU_GRAPH_NODE_TYPE_HOST, payload, node));
}

CUresult cuGraphHostNodeGetParams(CUgraphNode handle, CUDA_HOST_NODE_PARAMS *params) {
  ENTER(0);
  fc_node *node;
  TRY(fc_node_of(handle, CU_GRAPH_NODE_TYPE_HOST, &node));
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  *params = node->payload->host;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphHostNodeSetParams(CUgraphNode handle, const CUDA_HOST_NODE_PARAMS *params) {
  ENTER(0);
  fc_node *node;
  fc_payload *payload;
  TRY(fc_node_of(handle, CU_GRAPH_NODE_TYPE_HOST, &node));
  TRY(fc_host_payload(params, &payload));
  replace(node, payload);
  LEAVE(CUDA_SUCCESS);
}

/* ---- Children and events -------------------------------------------------------------------------------------------------------- */

CUresult cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUgraph child) {
  ENTER(0);
  TRY(insert_check(graph, deps, count, out));
  const fc_graph *inner = fc_live(child, FC_GRAPH);
  CHECK(inner && child != graph, CUDA_ERROR_INVALID_VALUE); /* a real driver does not survive a graph inside itself */
  CHECK(!fc_graph_allocates(inner), CUDA_ERROR_NOT_SUPPORTED);
  fc_graph *copy = fc_graph_copy(inner, false);
  CHECK(copy, CUDA_ERROR_OUT_OF_MEMORY);
  CUresult status = fc_node_insert(graph, deps, count, CU_GRAPH_NODE_TYPE_GRAPH, NULL, out);
  if (status) {
    fc_graph_end(copy);
    LEAVE(status);
  }
  fc_node *node = fc_live(*out, FC_NODE);
  node->child = copy;
  copy->owner = node;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode handle, CUgraph *child) {
  ENTER(0);
  fc_node *node;
  TRY(fc_node_of(handle, CU_GRAPH_NODE_TYPE_GRAPH, &node));
  CHECK(child, CUDA_ERROR_INVALID_VALUE);
  *child = (CUgraph)node->child;
  LEAVE(CUDA_SUCCESS);
}

static CUresult add_event(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count, CUevent handle, int type) {
  fc_event *event;
  CUresult status = insert_check(graph, deps, count, node);
  if (!status) status = fc_event_of(handle, &event);
  if (status) return status;
  fc_payload *payload = fc_payload_new(type, event->context);
  if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
  payload->event = event;
  return fc_node_insert(graph, deps, count, type, payload, node);
}

CUresult cuGraphAddEventRecordNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count, CUevent event) {
  ENTER(0);
  LEAVE(add_event(node, graph, deps, count, event, CU_GRAPH_NODE_TYPE_EVENT_RECORD));
}

CUresult cuGraphAddEventWaitNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t count, CUevent event) {
  ENTER(0);
  LEAVE(add_event(node, graph, deps, count, event, CU_GRAPH_NODE_TYPE_WAIT_EVENT));
}
