/* Executables: a snapshot of a graph, whose nodes are addressed by the handles of the graph that it was made from while those live.
 * A launch takes the payloads as they are at that moment, so that what is set later never reaches work in flight; launches of one
 * executable follow each other; destroying one leaves its work alone. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

fc_node *fc_exec_node(fc_graph *snapshot, const fc_node *origin) {
  for (size_t i = 0; i < snapshot->num_nodes; i++) {
    fc_node *node = snapshot->nodes[i];
    if (node->origin == origin) return node;
    fc_node *inner = node->child ? fc_exec_node(node->child, origin) : NULL;
    if (inner) return inner;
  }
  return NULL;
}

static fc_exec *exec_of(CUgraphExec handle) { return fc_live(handle, FC_EXEC); }

/* Every level of the graph can be put in an order. */
static bool acyclic(const fc_graph *graph) {
  fc_node **order = malloc((graph->num_nodes + 1) * sizeof *order);
  bool ok = order && fc_graph_order(graph, order, NULL);
  free(order);
  for (size_t i = 0; i < graph->num_nodes && ok; i++) ok = !graph->nodes[i]->child || acyclic(graph->nodes[i]->child);
  return ok;
}

/* A launch from the device bears kernels and copies and memsets on the device, and at least one node. */
static bool launchable_from_device(const fc_graph *graph) {
  for (size_t i = 0; i < graph->num_nodes; i++) {
    const fc_node *node = graph->nodes[i];
    switch (node->type) {
      case CU_GRAPH_NODE_TYPE_KERNEL:
      case CU_GRAPH_NODE_TYPE_MEMSET: break;
      case CU_GRAPH_NODE_TYPE_MEMCPY:
        if (node->payload->copy.srcMemoryType != CU_MEMORYTYPE_DEVICE || node->payload->copy.dstMemoryType != CU_MEMORYTYPE_DEVICE)
          return false;
        break;
      case CU_GRAPH_NODE_TYPE_GRAPH:
        if (!launchable_from_device(node->child)) return false;
        break;
      default: return false;
    }
  }
  return graph->num_nodes > 0;
}

static fc_context *context_of(const fc_graph *graph) {
  for (size_t i = 0; i < graph->num_nodes; i++) {
    if (graph->nodes[i]->payload && graph->nodes[i]->payload->context) return graph->nodes[i]->payload->context;
    fc_context *inner = graph->nodes[i]->child ? context_of(graph->nodes[i]->child) : NULL;
    if (inner) return inner;
  }
  return NULL;
}

static CUresult instantiate(CUgraphExec *out, CUgraph handle, uint64_t flags) {
  const uint64_t both = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH;
  fc_graph *graph = fc_live(handle, FC_GRAPH);
  if (!out || !graph || (flags & both) == both) return CUDA_ERROR_INVALID_VALUE;
  if (graph->capture) return CUDA_ERROR_ILLEGAL_STATE;
  if ((flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) && !launchable_from_device(graph)) return CUDA_ERROR_INVALID_VALUE;
  if (!acyclic(graph)) return CUDA_ERROR_INVALID_VALUE;
  bool allocates = fc_graph_allocates(graph);
  if (allocates && graph->executables) return CUDA_ERROR_NOT_SUPPORTED;
  fc_context *context = context_of(graph);
  if (!context) context = fc_current();
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->fault) return context->fault;
  fc_exec *exec = fc_new(FC_EXEC, sizeof *exec);
  if (!exec) return CUDA_ERROR_OUT_OF_MEMORY;
  exec->context = context;
  exec->life = context->life;
  exec->flags = flags;
  exec->source = graph;
  exec->bytes = fc.set.exec_base + fc.set.exec_per_kernel * fc_graph_kernels(graph);
  exec->snapshot = fc_graph_copy(graph, true);
  if (!exec->snapshot || !fc_exec_charge(exec)) {
    if (exec->snapshot) fc_graph_end(exec->snapshot);
    exec->o.alive = false;
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (allocates) graph->executables++;
  *out = (CUgraphExec)exec;
  return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
  const unsigned long long known = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH |
                                   CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY; /* an upload needs a stream */
  ENTER(STICKY);
  CHECK(!(flags & ~known), CUDA_ERROR_INVALID_VALUE);
  TRY(fc_capture_unsafe());
  LEAVE(instantiate(exec, graph, flags));
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
  ENTER(STICKY);
  CHECK(params && params->flags < 16, CUDA_ERROR_INVALID_VALUE);
  TRY(fc_capture_unsafe());
  fc_stream *stream;
  if (params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) TRY(fc_stream_of(params->hUploadStream, &stream));
  CUresult status = instantiate(exec, graph, params->flags);
  params->hErrNode_out = NULL;
  params->result_out = status != CUDA_SUCCESS;
  LEAVE(status);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log, size_t size) {
  ENTER(STICKY | UNSAFE);
  if (error_node) *error_node = NULL;
  if (log && size) log[0] = 0;
  LEAVE(instantiate(exec, graph, 0));
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
  ENTER(UNSAFE);
  fc_exec *exec = exec_of(handle);
  CHECK(exec, CUDA_ERROR_INVALID_VALUE);
  fc_exec_release(exec);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphExecGetFlags(CUgraphExec handle, uint64_t *flags) {
  ENTER(0);
  const fc_exec *exec = exec_of(handle);
  CHECK(exec && flags, CUDA_ERROR_INVALID_VALUE);
  *flags = exec->flags;
  LEAVE(CUDA_SUCCESS);
}

/* ---- Launch -------------------------------------------------------------------------------------------------------------------- */

typedef struct plan {
  fc_payload **payloads;
  size_t count, capacity;
} plan;

static bool plan_add(plan *to, fc_payload *payload) {
  if (to->count == to->capacity) {
    size_t larger = to->capacity ? 2 * to->capacity : 16;
    fc_payload **grown = realloc(to->payloads, larger * sizeof *grown);
    if (!grown) return false;
    to->payloads = grown;
    to->capacity = larger;
  }
  to->payloads[to->count++] = fc_payload_keep(payload);
  return true;
}

/* What runs, in order; a child graph runs as one. */
static bool plan_graph(plan *to, const fc_graph *graph, uint64_t *seed) {
  fc_node **order = malloc((graph->num_nodes + 1) * sizeof *order);
  bool ok = order && fc_graph_order(graph, order, seed);
  for (size_t i = 0; i < graph->num_nodes && ok; i++) {
    const fc_node *node = order[i];
    if (node->child)
      ok = plan_graph(to, node->child, seed);
    else if (node->payload && node->enabled)
      ok = plan_add(to, node->payload);
  }
  free(order);
  return ok;
}

/* Memory that a launch allocates and does not free must be free before the next one, unless that frees it itself. */
static CUresult plan_memory(const plan *of, const fc_exec *exec) {
  for (size_t i = 0; i < of->count; i++) {
    if (of->payloads[i]->type != CU_GRAPH_NODE_TYPE_MEM_ALLOC) continue;
    const fc_region *region = fc_region_at(of->payloads[i]->address);
    if (!region || (region->outstanding && !(exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)))
      return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < of->count; i++) {
    fc_region *region = fc_region_at(of->payloads[i]->address);
    if (region && of->payloads[i]->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) region->outstanding = true;
    if (region && of->payloads[i]->type == CU_GRAPH_NODE_TYPE_MEM_FREE) region->outstanding = false;
  }
  return CUDA_SUCCESS;
}

static CUresult submit(plan *of, fc_exec *exec, fc_stream *stream) {
  CUresult status = plan_memory(of, exec);
  fc_item **after = status ? NULL : malloc((of->count + 1) * sizeof *after);
  fc_item *item = NULL;
  size_t num_after = 0;
  if (!status && !after) status = CUDA_ERROR_OUT_OF_MEMORY;
  if (!status) {
    if (exec->last) after[num_after++] = exec->last;
    for (size_t i = 0; i < of->count; i++) {
      const fc_payload *p = of->payloads[i];
      if (p->type == CU_GRAPH_NODE_TYPE_WAIT_EVENT && p->event->item) after[num_after++] = p->event->item;
    }
    status = fc_enqueue(stream, of->payloads, of->count, after, num_after, &item);
  } else {
    for (size_t i = 0; i < of->count; i++) fc_payload_drop(of->payloads[i]);
  }
  free(after);
  if (status) return status;
  for (fc_payload **p = item->payloads; p < item->payloads + item->num_payloads && !status; p++) {
    if ((*p)->type == CU_GRAPH_NODE_TYPE_EVENT_RECORD && (*p)->event->o.alive) status = fc_event_record_item((*p)->event, stream);
  }
  fc_item_drop(exec->last);
  exec->last = item;
  return status;
}

static CUresult ready(CUgraphExec handle, CUstream on, fc_exec **exec, fc_stream **stream) {
  *exec = exec_of(handle);
  if (!*exec) return CUDA_ERROR_INVALID_VALUE;
  CUresult status = fc_stream_of(on, stream);
  if (!status) status = fc_capture_refuse(*stream);
  if (!status) status = fc_capture_check(*stream);
  return status;
}

CUresult cuGraphUpload(CUgraphExec handle, CUstream on) {
  ENTER(0);
  fc_exec *exec;
  fc_stream *stream;
  LEAVE(ready(handle, on, &exec, &stream));
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream on) {
  ENTER(0);
  fc_exec *exec;
  fc_stream *stream;
  TRY(ready(handle, on, &exec, &stream));
  plan of = {0};
  uint64_t seed = fc.set.seed;
  CUresult status = CUDA_ERROR_OUT_OF_MEMORY;
  if (plan_graph(&of, exec->snapshot, &seed)) {
    status = submit(&of, exec, stream);
  } else {
    for (size_t i = 0; i < of.count; i++) fc_payload_drop(of.payloads[i]);
  }
  free(of.payloads);
  if (fc.set.seed) fc_random(&fc.set.seed); /* another order next time */
  LEAVE(status);
}

/* ---- Change -------------------------------------------------------------------------------------------------------------------- */

static CUresult exec_node(CUgraphExec handle, CUgraphNode node, int type, fc_node **out) {
  const fc_exec *exec = exec_of(handle);
  const fc_node *origin = fc_live(node, FC_NODE);
  *out = exec && origin ? fc_exec_node(exec->snapshot, origin) : NULL;
  return *out && (type < 0 || (*out)->type == type) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Takes the payload over. */
static CUresult set_payload(fc_node *node, fc_payload *payload) {
  if (fc_payload_compatible(node->payload, payload)) {
    fc_payload_drop(payload);
    return CUDA_ERROR_INVALID_VALUE;
  }
  fc_payload_drop(node->payload);
  node->payload = payload;
  return CUDA_SUCCESS;
}

static CUresult set_kernel(CUgraphExec exec, CUgraphNode handle, const CUDA_KERNEL_NODE_PARAMS *params) {
  fc_node *node;
  fc_payload *payload;
  CUresult status = exec_node(exec, handle, CU_GRAPH_NODE_TYPE_KERNEL, &node);
  if (!status) status = fc_kernel_payload(params, &payload);
  return status ? status : set_payload(node, payload);
}

CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params) {
  ENTER(0);
  LEAVE(set_kernel(exec, node, params));
}

CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node, const void *params) {
  CUDA_KERNEL_NODE_PARAMS full = {0};
  ENTER(0);
  CHECK(params, CUDA_ERROR_INVALID_VALUE);
  memcpy(&full, params, offsetof(CUDA_KERNEL_NODE_PARAMS, kern));
  LEAVE(set_kernel(exec, node, &full));
}

CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode handle, const CUDA_MEMCPY3D *params, CUcontext context) {
  ENTER(0);
  (void)context;
  fc_node *node;
  fc_payload *payload;
  TRY(exec_node(exec, handle, CU_GRAPH_NODE_TYPE_MEMCPY, &node));
  TRY(fc_copy_payload(params, node->payload->context, &payload));
  LEAVE(set_payload(node, payload));
}

CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode handle, const CUDA_MEMSET_NODE_PARAMS *params, CUcontext context) {
  ENTER(0);
  (void)context;
  fc_node *node;
  fc_payload *payload;
  TRY(exec_node(exec, handle, CU_GRAPH_NODE_TYPE_MEMSET, &node));
  TRY(fc_set_payload(params, node->payload->context, &payload));
  LEAVE(set_payload(node, payload));
}

CUresult cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode handle, const CUDA_HOST_NODE_PARAMS *params) {
  ENTER(0);
  fc_node *node;
  fc_payload *payload;
  TRY(exec_node(exec, handle, CU_GRAPH_NODE_TYPE_HOST, &node));
  TRY(fc_host_payload(params, &payload));
  LEAVE(set_payload(node, payload));
}

CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode handle, CUgraph child) {
  ENTER(0);
  fc_node *node, *error_node, *error_from;
  TRY(exec_node(exec, handle, CU_GRAPH_NODE_TYPE_GRAPH, &node));
  fc_graph *graph = fc_live(child, FC_GRAPH);
  CHECK(graph, CUDA_ERROR_INVALID_VALUE);
  LEAVE(fc_update(node->child, graph, &error_node, &error_from) ? CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE : CUDA_SUCCESS);
}

static CUresult update(CUgraphExec handle, CUgraph graph, CUgraphExecUpdateResultInfo *info) {
  fc_exec *exec = exec_of(handle);
  fc_graph *fresh = fc_live(graph, FC_GRAPH);
  if (!exec || !fresh) return CUDA_ERROR_INVALID_VALUE;
  fc_node *node = NULL, *from = NULL;
  info->result = fc_update(exec->snapshot, fresh, &node, &from);
  info->errorNode = (CUgraphNode)node;
  info->errorFromNode = (CUgraphNode)from;
  return info->result ? CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE : CUDA_SUCCESS;
}

CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *info) {
  CUgraphExecUpdateResultInfo own;
  ENTER(0);
  LEAVE(update(exec, graph, info ? info : &own));
}

CUresult cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *error_node, int *result) {
  CUgraphExecUpdateResultInfo info;
  ENTER(0);
  CHECK(error_node && result, CUDA_ERROR_INVALID_VALUE);
  CUresult status = update(exec, graph, &info);
  if (status != CUDA_ERROR_INVALID_VALUE) {
    *error_node = info.errorNode;
    *result = info.result;
  }
  LEAVE(status);
}

/* Kernels, copies and memsets can be switched off. */
static CUresult switchable(CUgraphExec exec, CUgraphNode handle, fc_node **node) {
  CUresult status = exec_node(exec, handle, -1, node);
  if (status) return status;
  int type = (*node)->type;
  bool can = type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_MEMCPY || type == CU_GRAPH_NODE_TYPE_MEMSET;
  return can ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode handle, unsigned enabled) {
  ENTER(0);
  fc_node *node;
  TRY(switchable(exec, handle, &node));
  node->enabled = enabled != 0;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode handle, unsigned *enabled) {
  ENTER(0);
  fc_node *node;
  CHECK(enabled, CUDA_ERROR_INVALID_VALUE);
  TRY(switchable(exec, handle, &node));
  *enabled = node->enabled;
  LEAVE(CUDA_SUCCESS);
}
