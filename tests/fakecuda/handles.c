/* Which pointers are handles: a set of all objects ever made, so that any value a caller passes can be looked up without following
 * it. Dead objects stay, emptied. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

static struct {
  fc_object **slots;
  size_t count, capacity; /* a power of two, at most half full */
} set;

static size_t place_of(const void *handle) {
  size_t place = (size_t)(((uintptr_t)handle >> 4) * 0x9e3779b97f4a7c15u) & (set.capacity - 1);
  while (set.slots[place] && (const void *)set.slots[place] != handle) place = (place + 1) & (set.capacity - 1);
  return place;
}

static bool grow(void) {
  fc_object **old = set.slots;
  size_t had = set.capacity;
  size_t capacity = had ? 2 * had : 1024;
  fc_object **slots = calloc(capacity, sizeof *slots);
  if (!slots) return false;
  set.slots = slots;
  set.capacity = capacity;
  for (size_t i = 0; i < had; i++) {
    if (old[i]) slots[place_of(old[i])] = old[i];
  }
  free(old);
  return true;
}

void *fc_new(fc_kind kind, size_t size) {
  if (2 * (set.count + 1) > set.capacity && !grow()) return NULL;
  fc_object *object = calloc(1, size);
  if (!object) return NULL;
  object->kind = kind;
  object->alive = true;
  object->made_by = fc.calls;
  set.slots[place_of(object)] = object;
  set.count++;
  return object;
}

void *fc_find(const void *handle, fc_kind kind) {
  if (!handle || !set.capacity) return NULL;
  fc_object *object = set.slots[place_of(handle)];
  return object && object->kind == kind ? object : NULL;
}

void *fc_live(const void *handle, fc_kind kind) {
  fc_object *object = fc_find(handle, kind);
  return object && object->alive ? object : NULL;
}

void fc_each(fc_kind kind, void (*visit)(void *object, void *arg), void *arg) {
  for (size_t i = 0; i < set.capacity; i++) {
    if (set.slots[i] && set.slots[i]->kind == kind) visit(set.slots[i], arg);
  }
}

static void end_context(void *object, void *arg) {
  (void)arg;
  if (((fc_object *)object)->alive) fc_context_end(object);
}

static void end_graph(void *object, void *arg) {
  (void)arg;
  fc_graph *graph = object;
  if (graph->o.alive && !graph->owner && !graph->internal) fc_graph_end(graph);
}

/* Ends everything and gives the objects' memory back. */
void fc_forget_all(void) {
  fc_each(FC_CONTEXT, end_context, NULL);
  fc_each(FC_GRAPH, end_graph, NULL);
  for (size_t i = 0; i < set.capacity; i++) {
    if (set.slots[i] && set.slots[i]->kind == FC_FUNCTION) fc_function_free((fc_function *)set.slots[i]);
    free(set.slots[i]);
  }
  free(set.slots);
  memset(&set, 0, sizeof set);
}
