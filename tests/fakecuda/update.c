/* Whole-graph updates: which node of the new graph stands for which of the executable. Nothing changes unless everything fits.
 * The pairing is the one the driver documents: both sides' exit nodes (those that nothing depends on) are paired in order, then, from
 * each pair, the dependencies in edge order. Recorded (probes.txt, update_shapes): both go from the last to the first; too few nodes or
 * exits in the new graph name no node, too many exits name the first that is left over; a kind that differs is found while pairing. */
#include <stdlib.h>

#include "state.h"

typedef struct pairing {
  fc_graph *old, *fresh;
  fc_node **of_old, **of_fresh; /* partners, by position */
  fc_node *error_node, *error_from;
} pairing;

static int fail(pairing *p, fc_node *node, fc_node *from, int result) {
  p->error_node = node;
  p->error_from = from;
  return result;
}

static int match(pairing *p, fc_node *old, fc_node *fresh) {
  p->of_old[old->mark] = fresh;
  p->of_fresh[fresh->mark] = old;
  if (old->type != fresh->type) return fail(p, fresh, NULL, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
  if (old->num_deps != fresh->num_deps) return fail(p, fresh, NULL, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
  for (size_t i = old->num_deps; i-- > 0;) {
    fc_node *a = old->deps[i], *b = fresh->deps[i];
    if (p->of_old[a->mark] == b && p->of_fresh[b->mark] == a) continue;
    if (p->of_old[a->mark] || p->of_fresh[b->mark]) return fail(p, fresh, b, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    int result = match(p, a, b);
    if (result) return result;
  }
  return 0;
}

/* Nodes that nothing depends on, the last first. */
static size_t exits(const fc_graph *graph, fc_node **list) {
  bool *used = calloc(graph->num_nodes + 1, sizeof *used);
  size_t count = 0;
  if (!used) return 0;
  for (size_t i = 0; i < graph->num_nodes; i++) graph->nodes[i]->mark = i;
  for (size_t i = 0; i < graph->num_nodes; i++) {
    for (size_t k = 0; k < graph->nodes[i]->num_deps; k++) used[graph->nodes[i]->deps[k]->mark] = true;
  }
  for (size_t i = graph->num_nodes; i-- > 0;) {
    if (!used[i]) list[count++] = graph->nodes[i];
  }
  free(used);
  return count;
}

static int match_graphs(pairing *p, fc_node **old_exits, fc_node **fresh_exits) {
  size_t old = exits(p->old, old_exits), fresh = exits(p->fresh, fresh_exits);
  if (fresh != old) return fail(p, fresh > old ? fresh_exits[old] : NULL, NULL, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
  for (size_t i = 0; i < old; i++) {
    int result = match(p, old_exits[i], fresh_exits[i]);
    if (result) return result;
  }
  return 0;
}

static int update(fc_graph *old, fc_graph *fresh, bool apply, fc_node **error_node, fc_node **error_from);

static int each_node(pairing *p, bool apply) {
  for (size_t i = 0; i < p->old->num_nodes; i++) {
    fc_node *old = p->old->nodes[i], *fresh = p->of_old[i];
    if (!fresh) return fail(p, NULL, NULL, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED); /* on a cycle */
    if (old->child) {
      int result = update(old->child, fresh->child, apply, &p->error_node, &p->error_from);
      if (result) return result;
      continue;
    }
    int result = fc_payload_compatible(old->payload, fresh->payload);
    if (result) return fail(p, fresh, NULL, result);
    bool allocates = old->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || old->type == CU_GRAPH_NODE_TYPE_MEM_FREE;
    if (!apply || allocates) continue;
    fc_payload *kept = fc_payload_keep(fresh->payload);
    fc_payload_drop(old->payload);
    old->payload = kept;
  }
  return 0;
}

static int update(fc_graph *old, fc_graph *fresh, bool apply, fc_node **error_node, fc_node **error_from) {
  if (old->num_nodes != fresh->num_nodes) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
  size_t n = old->num_nodes + 1;
  fc_node **lists = calloc(4 * n, sizeof *lists);
  if (!lists) return CU_GRAPH_EXEC_UPDATE_ERROR;
  pairing p = {old, fresh, lists, lists + n, NULL, NULL};
  int result = match_graphs(&p, lists + 2 * n, lists + 3 * n);
  if (!result) result = each_node(&p, apply);
  free(lists);
  *error_node = p.error_node;
  *error_from = p.error_from;
  return result;
}

int fc_update(fc_graph *snapshot, fc_graph *graph, fc_node **error_node, fc_node **error_from) {
  *error_node = *error_from = NULL;
  int result = update(snapshot, graph, false, error_node, error_from);
  return result ? result : update(snapshot, graph, true, error_node, error_from);
}
