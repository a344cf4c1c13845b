/* Graphs: nodes, edges, copies. Recorded: a list of edges is taken one by one, so that those before a bad one (a duplicate, a node
 * without that edge) stay done; an edge that closes a cycle is taken, instantiation then fails; a graph that is being captured may get
 * nodes but cannot be destroyed (401); one with allocation nodes cannot be cloned, nested or thinned out (801). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

bool fc_node_list_add(fc_node ***list, size_t *count, size_t *capacity, fc_node *node) {
  for (size_t i = 0; i < *count; i++) {
    if ((*list)[i] == node) return true;
  }
  if (*count == *capacity) {
    size_t larger = *capacity ? 2 * *capacity : 4;
    fc_node **grown = realloc(*list, larger * sizeof *grown);
    if (!grown) return false;
    *list = grown;
    *capacity = larger;
  }
  (*list)[(*count)++] = node;
  return true;
}

fc_graph *fc_graph_new(bool internal) {
  fc_graph *graph = internal ? calloc(1, sizeof *graph) : fc_new(FC_GRAPH, sizeof *graph);
  if (graph) graph->internal = internal;
  return graph;
}

static void node_end(fc_node *node) {
  bool internal = node->graph->internal;
  fc_guard_drop(node);
  fc_payload_drop(node->payload);
  if (node->child) fc_graph_end(node->child);
  free(node->deps);
  node->payload = NULL;
  node->child = NULL;
  node->deps = NULL;
  node->num_deps = node->cap_deps = 0;
  node->o.alive = false;
  if (internal) free(node);
}

void fc_graph_end(fc_graph *graph) {
  for (size_t i = 0; i < graph->num_nodes; i++) node_end(graph->nodes[i]);
  free(graph->nodes);
  graph->nodes = NULL;
  graph->num_nodes = graph->cap_nodes = 0;
  graph->o.alive = false;
  if (graph->internal) free(graph);
}

bool fc_node_depend(fc_node *node, fc_node *on) { return fc_node_list_add(&node->deps, &node->num_deps, &node->cap_deps, on); }

fc_node *fc_node_add(fc_graph *graph, int type, fc_node *const *deps, size_t count, fc_payload *payload) {
  fc_node *node = graph->internal ? calloc(1, sizeof *node) : fc_new(FC_NODE, sizeof *node);
  bool ok = node != NULL;
  if (ok) {
    node->graph = graph;
    node->type = type;
    node->enabled = true;
    for (size_t i = 0; i < count && ok; i++) ok = fc_node_depend(node, deps[i]);
    if (ok) ok = fc_node_list_add(&graph->nodes, &graph->num_nodes, &graph->cap_nodes, node);
    if (ok)
      node->payload = payload;
    else
      node_end(node);
  }
  if (!ok) fc_payload_drop(payload);
  return ok ? node : NULL;
}

fc_graph *fc_graph_copy(const fc_graph *graph, bool internal) {
  fc_graph *copy = fc_graph_new(internal);
  bool ok = copy != NULL;
  for (size_t i = 0; i < graph->num_nodes && ok; i++) {
    fc_node *node = graph->nodes[i];
    node->mark = i;
    fc_node *twin = fc_node_add(copy, node->type, NULL, 0, fc_payload_keep(node->payload));
    ok = twin != NULL;
    if (ok) {
      twin->origin = node;
      twin->enabled = node->enabled;
    }
    if (ok && node->child) {
      twin->child = fc_graph_copy(node->child, internal);
      ok = twin->child != NULL;
      if (ok) twin->child->owner = twin;
    }
  }
  for (size_t i = 0; i < graph->num_nodes && ok; i++) { /* edges may run backwards */
    const fc_node *node = graph->nodes[i];
    for (size_t k = 0; k < node->num_deps && ok; k++) ok = fc_node_depend(copy->nodes[i], copy->nodes[node->deps[k]->mark]);
  }
  if (!ok && copy) fc_graph_end(copy);
  return ok ? copy : NULL;
}

bool fc_graph_allocates(const fc_graph *graph) {
  for (size_t i = 0; i < graph->num_nodes; i++) {
    int type = graph->nodes[i]->type;
    if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || type == CU_GRAPH_NODE_TYPE_MEM_FREE) return true;
  }
  return false;
}

size_t fc_graph_kernels(const fc_graph *graph) {
  size_t sum = 0;
  for (size_t i = 0; i < graph->num_nodes; i++) {
    const fc_node *node = graph->nodes[i];
    sum += node->child ? fc_graph_kernels(node->child) : node->type == CU_GRAPH_NODE_TYPE_KERNEL;
  }
  return sum;
}

/* Kahn's algorithm; what is ready stands behind what is placed, in the same array. */
bool fc_graph_order(const fc_graph *graph, fc_node **order, uint64_t *seed) {
  size_t n = graph->num_nodes, edges = 0, placed = 0, ready = 0;
  size_t *waits = calloc(2 * n + 2, sizeof *waits); /* per node: dependencies left; where its dependents begin */
  size_t *begins = waits ? waits + n : NULL;
  if (!waits) return false;
  for (size_t i = 0; i < n; i++) graph->nodes[i]->mark = i;
  for (size_t i = 0; i < n; i++) {
    const fc_node *node = graph->nodes[i];
    waits[i] = node->num_deps;
    edges += node->num_deps;
    for (size_t k = 0; k < node->num_deps; k++) begins[node->deps[k]->mark + 1]++;
  }
  for (size_t i = 0; i < n; i++) begins[i + 1] += begins[i];
  fc_node **dependents = malloc((edges + 1) * sizeof *dependents);
  size_t *fill = calloc(n + 1, sizeof *fill);
  bool ok = dependents && fill;
  for (size_t i = 0; i < n && ok; i++) {
    for (size_t k = 0; k < graph->nodes[i]->num_deps; k++) {
      size_t on = graph->nodes[i]->deps[k]->mark;
      dependents[begins[on] + fill[on]++] = graph->nodes[i];
    }
    if (!waits[i]) order[ready++] = graph->nodes[i];
  }
  while (ok && placed < ready) {
    if (seed && *seed) {
      size_t pick = placed + (size_t)(fc_random(seed) % (ready - placed));
      fc_node *swap = order[placed];
      order[placed] = order[pick];
      order[pick] = swap;
    }
    size_t at = order[placed++]->mark;
    for (size_t k = begins[at]; k < begins[at + 1]; k++) {
      if (!--waits[dependents[k]->mark]) order[ready++] = dependents[k];
    }
  }
  free(dependents);
  free(fill);
  free(waits);
  return ok && placed == n;
}

/* ---- Calls ---------------------------------------------------------------------------------------------------------------------- */

CUresult cuGraphCreate(CUgraph *out, unsigned flags) {
  ENTER(0);
  CHECK(out && !flags, CUDA_ERROR_INVALID_VALUE);
  fc_graph *graph = fc_graph_new(false);
  CHECK(graph, CUDA_ERROR_OUT_OF_MEMORY);
  *out = (CUgraph)graph;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphDestroy(CUgraph handle) {
  ENTER(0);
  fc_graph *graph = fc_live(handle, FC_GRAPH);
  CHECK(graph && !graph->owner, CUDA_ERROR_INVALID_VALUE);
  CHECK(!graph->capture, CUDA_ERROR_ILLEGAL_STATE);
  fc_graph_end(graph);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphClone(CUgraph *out, CUgraph handle) {
  ENTER(0);
  const fc_graph *graph = fc_live(handle, FC_GRAPH);
  CHECK(out && graph, CUDA_ERROR_INVALID_VALUE);
  CHECK(!fc_graph_allocates(graph), CUDA_ERROR_NOT_SUPPORTED);
  fc_graph *copy = fc_graph_copy(graph, false);
  CHECK(copy, CUDA_ERROR_OUT_OF_MEMORY);
  *out = (CUgraph)copy;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphNodeFindInClone(CUgraphNode *out, CUgraphNode original, CUgraph handle) {
  ENTER(0);
  const fc_graph *graph = fc_live(handle, FC_GRAPH);
  const fc_node *node = fc_live(original, FC_NODE);
  CHECK(out && graph && node, CUDA_ERROR_INVALID_VALUE);
  for (size_t i = 0; i < graph->num_nodes; i++) {
    if (graph->nodes[i]->origin != node) continue;
    *out = (CUgraphNode)graph->nodes[i];
    LEAVE(CUDA_SUCCESS);
  }
  LEAVE(CUDA_ERROR_INVALID_VALUE);
}

typedef struct output {
  CUgraphNode *first, *second;
  size_t *count;
  size_t have;
} output;

static void put(output *to, const fc_node *first, const fc_node *second) {
  if (to->first && to->have < *to->count) {
    to->first[to->have] = (CUgraphNode)first;
    if (to->second) to->second[to->have] = (CUgraphNode)second;
  }
  to->have++;
}

/* A list is filled as far as it goes, the rest of a longer one is cleared; the count becomes how many were written, or how many there
 * are when only they were asked for. */
static CUresult done(const output *to) {
  if (to->first) {
    for (size_t i = to->have; i < *to->count; i++) {
      to->first[i] = NULL;
      if (to->second) to->second[i] = NULL;
    }
  }
  if (!to->first || to->have < *to->count) *to->count = to->have;
  return CUDA_SUCCESS;
}

static CUresult list_nodes(CUgraph handle, CUgraphNode *nodes, size_t *count, bool roots) {
  const fc_graph *graph = fc_live(handle, FC_GRAPH);
  if (!graph || !count) return CUDA_ERROR_INVALID_VALUE;
  output to = {nodes, NULL, count, 0};
  for (size_t i = 0; i < graph->num_nodes; i++) {
    if (!roots || !graph->nodes[i]->num_deps) put(&to, graph->nodes[i], NULL);
  }
  return done(&to);
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
  ENTER(0);
  LEAVE(list_nodes(graph, nodes, count, false));
}

CUresult cuGraphGetRootNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
  ENTER(0);
  LEAVE(list_nodes(graph, nodes, count, true));
}

static CUresult list_edges(CUgraph handle, CUgraphNode *from, CUgraphNode *to_nodes, size_t *count) {
  const fc_graph *graph = fc_live(handle, FC_GRAPH);
  if (!graph || !count || (from == NULL) != (to_nodes == NULL)) return CUDA_ERROR_INVALID_VALUE;
  output to = {from, to_nodes, count, 0};
  for (size_t i = 0; i < graph->num_nodes; i++) {
    for (size_t k = 0; k < graph->nodes[i]->num_deps; k++) put(&to, graph->nodes[i]->deps[k], graph->nodes[i]);
  }
  return done(&to);
}

CUresult cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count) {
  ENTER(0);
  LEAVE(list_edges(graph, from, to, count));
}

CUresult cuGraphGetEdges_v2(CUgraph graph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edges, size_t *count) {
  ENTER(0);
  size_t room = count ? *count : 0;
  TRY(list_edges(graph, from, to, count));
  if (edges && room) memset(edges, 0, room * sizeof *edges);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetType(CUgraphNode handle, int *type) {
  ENTER(0);
  const fc_node *node = fc_live(handle, FC_NODE);
  CHECK(node && type, CUDA_ERROR_INVALID_VALUE);
  *type = node->type;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetDependencies(CUgraphNode handle, CUgraphNode *nodes, size_t *count) {
  ENTER(0);
  const fc_node *node = fc_live(handle, FC_NODE);
  CHECK(node && count, CUDA_ERROR_INVALID_VALUE);
  output to = {nodes, NULL, count, 0};
  for (size_t i = 0; i < node->num_deps; i++) put(&to, node->deps[i], NULL);
  LEAVE(done(&to));
}

CUresult cuGraphNodeGetDependentNodes(CUgraphNode handle, CUgraphNode *nodes, size_t *count) {
  ENTER(0);
  const fc_node *node = fc_live(handle, FC_NODE);
  CHECK(node && count, CUDA_ERROR_INVALID_VALUE);
  output to = {nodes, NULL, count, 0};
  for (size_t i = 0; i < node->graph->num_nodes; i++) {
    const fc_node *other = node->graph->nodes[i];
    for (size_t k = 0; k < other->num_deps; k++) {
      if (other->deps[k] == node) put(&to, other, NULL);
    }
  }
  LEAVE(done(&to));
}

static bool has_edge(const fc_node *to, const fc_node *from) {
  for (size_t i = 0; i < to->num_deps; i++) {
    if (to->deps[i] == from) return true;
  }
  return false;
}

static CUresult change_edges(CUgraph handle, const CUgraphNode *from, const CUgraphNode *to, size_t count, bool add) {
  const fc_graph *graph = fc_live(handle, FC_GRAPH);
  if (!graph || (count && (!from || !to))) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    fc_node *first = fc_live(from[i], FC_NODE), *second = fc_live(to[i], FC_NODE);
    if (!first || !second || first->graph != graph || second->graph != graph || first == second) return CUDA_ERROR_INVALID_VALUE;
    if (has_edge(second, first) == add) return CUDA_ERROR_INVALID_VALUE;
    if (add && !fc_node_depend(second, first)) return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t k = 0; k < second->num_deps && !add; k++) {
      if (second->deps[k] != first) continue;
      memmove(second->deps + k, second->deps + k + 1, (second->num_deps - k - 1) * sizeof(fc_node *));
      second->num_deps--;
    }
  }
  return CUDA_SUCCESS;
}

CUresult cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count) {
  ENTER(0);
  LEAVE(change_edges(graph, from, to, count, true));
}

CUresult cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *edges,
                                   size_t count) {
  static const CUgraphEdgeData plain;
  ENTER(0);
  for (size_t i = 0; edges && i < count; i++) CHECK(memcmp(&edges[i], &plain, sizeof plain) == 0, CUDA_ERROR_NOT_SUPPORTED);
  LEAVE(change_edges(graph, from, to, count, true));
}

CUresult cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count) {
  ENTER(0);
  LEAVE(change_edges(graph, from, to, count, false));
}

CUresult cuGraphDestroyNode(CUgraphNode handle) {
  ENTER(0);
  fc_node *node = fc_live(handle, FC_NODE);
  CHECK(node, CUDA_ERROR_INVALID_VALUE);
  fc_graph *graph = node->graph;
  CHECK(!graph->capture, CUDA_ERROR_ILLEGAL_STATE);
  CHECK(!fc_graph_allocates(graph), CUDA_ERROR_NOT_SUPPORTED);
  size_t kept = 0;
  for (size_t i = 0; i < graph->num_nodes; i++) {
    fc_node *other = graph->nodes[i];
    for (size_t k = 0; k < other->num_deps; k++) {
      if (other->deps[k] == node) other->deps[k--] = other->deps[--other->num_deps];
    }
    if (other != node) graph->nodes[kept++] = other;
  }
  graph->num_nodes = kept;
  node_end(node);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuGraphDebugDotPrint(CUgraph handle, const char *path, unsigned flags) {
  static const char *const names[] = {"kernel", "memcpy", "memset", "host", "graph", "empty", "wait", "record", "", "", "alloc", "free"};
  ENTER(0);
  (void)flags;
  const fc_graph *graph = fc_live(handle, FC_GRAPH);
  CHECK(graph && path, CUDA_ERROR_INVALID_VALUE);
  FILE *file = fopen(path, "w");
  CHECK(file, CUDA_ERROR_INVALID_VALUE);
  fprintf(file, "digraph dot {\n");
  for (size_t i = 0; i < graph->num_nodes; i++) {
    const fc_node *node = graph->nodes[i];
    graph->nodes[i]->mark = i;
    const char *name = node->type == CU_GRAPH_NODE_TYPE_KERNEL ? node->payload->k.function->name : names[node->type];
    fprintf(file, "  n%zu [label=\"%zu %s\"];\n", i, i, name);
  }
  for (size_t i = 0; i < graph->num_nodes; i++) {
    for (size_t k = 0; k < graph->nodes[i]->num_deps; k++) fprintf(file, "  n%zu -> n%zu;\n", graph->nodes[i]->deps[k]->mark, i);
  }
  fprintf(file, "}\n");
  fclose(file);
  LEAVE(CUDA_SUCCESS);
}
