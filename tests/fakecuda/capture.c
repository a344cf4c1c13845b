/* The capture state machine. Recorded rules:
 *  - A call that is unsafe during captures is refused (900) for a thread in relaxed mode never; otherwise if the thread has a capture of
 *    its own that is not relaxed, or, for a thread in global mode, if any thread has a global one. Exactly the captures that forbid it
 *    are invalidated; an invalid one goes on forbidding until it is ended.
 *  - A stream that captures bears only work, event calls, and questions about the capture; synchronising, querying, launching or
 *    uploading an executable there is refused (900) in every mode and invalidates that capture alone.
 *  - The legacy stream is unusable (906) while a blocking stream of its context captures, for every thread, in every mode.
 *  - Ending: 401 without a capture, 903 on a stream that only joined, 908 in another thread unless relaxed (the capture is over all the
 *    same), 901 if invalid, 904 if a joined stream has work that the origin does not come after. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

static _Thread_local int thread_mode;
static uint64_t next_id;

void fc_capture_forget(void) { thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL; }

fc_capture *fc_capture_by_id(uint64_t id) {
  for (fc_capture *c = fc.captures; c; c = c->next) {
    if (c->id == id) return c;
  }
  return NULL;
}

void fc_capture_invalidate(fc_capture *capture) { capture->valid = false; }

bool fc_capture_join(fc_stream *stream, fc_capture *capture) {
  stream->capture = capture;
  stream->next_captured = capture->streams;
  capture->streams = stream;
  stream->num_deps = 0;
  return true;
}

void fc_capture_leave(fc_stream *stream) {
  fc_capture *capture = stream->capture;
  for (fc_stream **at = &capture->streams; *at; at = &(*at)->next_captured) {
    if (*at == stream) {
      *at = stream->next_captured;
      break;
    }
  }
  stream->capture = NULL;
  stream->next_captured = NULL;
  free(stream->deps);
  stream->deps = NULL;
  stream->num_deps = stream->cap_deps = 0;
}

/* Takes the capture away and hands its graph over. */
static fc_graph *finish(fc_capture *capture) {
  while (capture->streams) fc_capture_leave(capture->streams);
  for (fc_capture **at = &fc.captures; *at; at = &(*at)->next) {
    if (*at == capture) {
      *at = capture->next;
      break;
    }
  }
  fc_graph *graph = capture->graph;
  graph->capture = NULL;
  free(capture);
  return graph;
}

void fc_capture_drop(fc_capture *capture) { fc_graph_end(finish(capture)); }

CUresult fc_capture_unsafe(void) {
  if (!fc.captures || thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  uint64_t thread = fc_thread();
  CUresult status = CUDA_SUCCESS;
  for (fc_capture *c = fc.captures; c; c = c->next) {
    if (c->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    bool global = c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (c->thread != thread && !global) continue;
    fc_capture_invalidate(c);
    status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return status;
}

static bool beside_blocking_capture(const fc_stream *stream) {
  if (stream != stream->context->legacy) return false;
  for (const fc_stream *other = stream->context->streams; other; other = other->sibling) {
    if (other->capture && fc_stream_blocking(other)) return true;
  }
  return false;
}

CUresult fc_capture_legacy(fc_context *context) {
  if (!context || !beside_blocking_capture(context->legacy)) return CUDA_SUCCESS;
  for (fc_stream *other = context->streams; other; other = other->sibling) {
    if (other->capture && fc_stream_blocking(other)) fc_capture_invalidate(other->capture);
  }
  return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
}

CUresult fc_capture_check(fc_stream *stream) {
  if (stream->capture) return stream->capture->valid ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  return fc_capture_legacy(stream == stream->context->legacy ? stream->context : NULL);
}

CUresult fc_capture_refuse(fc_stream *stream) {
  if (!stream->capture) return CUDA_SUCCESS;
  fc_capture_invalidate(stream->capture);
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

bool fc_capture_depend(fc_stream *stream, fc_node *const *nodes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (nodes[i]->o.alive && !fc_node_list_add(&stream->deps, &stream->num_deps, &stream->cap_deps, nodes[i])) return false;
  }
  return true;
}

CUresult fc_capture_add(fc_stream *stream, fc_payload *payload) {
  fc_node *node = fc_node_add(stream->capture->graph, payload->type, stream->deps, stream->num_deps, payload);
  if (!node) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->num_deps = 0;
  return fc_capture_depend(stream, &node, 1) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- Calls ---------------------------------------------------------------------------------------------------------------------- */

CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  CHECK(mode >= CU_STREAM_CAPTURE_MODE_GLOBAL && mode <= CU_STREAM_CAPTURE_MODE_RELAXED, CUDA_ERROR_INVALID_VALUE);
  CHECK(stream != stream->context->legacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CHECK(!stream->capture, CUDA_ERROR_ILLEGAL_STATE);
  fc_capture *capture = calloc(1, sizeof *capture);
  fc_graph *graph = capture ? fc_graph_new(false) : NULL;
  if (!graph) free(capture);
  CHECK(graph, CUDA_ERROR_OUT_OF_MEMORY);
  *capture = (fc_capture){.next = fc.captures, .id = ++next_id, .thread = fc_thread(), .mode = mode, .valid = true, .origin = stream};
  capture->graph = graph;
  graph->capture = capture;
  fc.captures = capture;
  fc_capture_join(stream, capture);
  LEAVE(CUDA_SUCCESS);
}

static void mark_ancestors(fc_node *node) {
  if (node->mark) return;
  node->mark = 1;
  for (size_t i = 0; i < node->num_deps; i++) mark_ancestors(node->deps[i]);
}

/* Whether the origin comes after all that the joined streams did. */
static bool joined(const fc_capture *capture) {
  for (size_t i = 0; i < capture->graph->num_nodes; i++) capture->graph->nodes[i]->mark = 0;
  for (size_t i = 0; i < capture->origin->num_deps; i++) mark_ancestors(capture->origin->deps[i]);
  for (const fc_stream *stream = capture->streams; stream; stream = stream->next_captured) {
    for (size_t i = 0; i < stream->num_deps; i++) {
      if (!stream->deps[i]->mark) return false;
    }
  }
  return true;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *out) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  fc_capture *capture = stream->capture;
  CHECK(capture, CUDA_ERROR_ILLEGAL_STATE);
  if (out) *out = NULL;
  if (capture->origin != stream) {
    fc_capture_invalidate(capture);
    LEAVE(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  }
  CUresult status = CUDA_SUCCESS;
  if (capture->thread != fc_thread() && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED)
    status = CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  else if (!capture->valid)
    status = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  else if (!joined(capture))
    status = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  fc_graph *graph = finish(capture);
  if (status || !out)
    fc_graph_end(graph);
  else
    *out = (CUgraph)graph;
  LEAVE(status);
}

static int status_of(const fc_stream *stream) {
  if (!stream->capture) return CU_STREAM_CAPTURE_STATUS_NONE;
  return stream->capture->valid ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
}

CUresult cuStreamIsCapturing(CUstream handle, int *status) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  CHECK(status, CUDA_ERROR_INVALID_VALUE);
  CHECK(!beside_blocking_capture(stream), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT); /* and the capture stays valid */
  *status = status_of(stream);
  LEAVE(CUDA_SUCCESS);
}

static CUresult info(CUstream handle, int *status, uint64_t *id, CUgraph *graph, const CUgraphNode **nodes, size_t *count) {
  fc_stream *stream;
  CUresult found = fc_stream_of(handle, &stream);
  if (found) return found;
  if (!status) return CUDA_ERROR_INVALID_VALUE;
  if (beside_blocking_capture(stream)) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  *status = status_of(stream);
  if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS; /* the rest stays as it was */
  if (id) *id = stream->capture->id;
  if (graph) *graph = (CUgraph)stream->capture->graph;
  if (nodes) *nodes = (const CUgraphNode *)stream->deps;
  if (count) *count = stream->num_deps;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetCaptureInfo_v2(CUstream stream, int *status, uint64_t *id, CUgraph *graph, const CUgraphNode **nodes, size_t *count) {
  ENTER(0);
  LEAVE(info(stream, status, id, graph, nodes, count));
}

CUresult cuStreamGetCaptureInfo_v3(CUstream stream, int *status, uint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
                                   const CUgraphEdgeData **edges, size_t *count) {
  ENTER(0);
  if (edges) *edges = NULL; /* all of them plain */
  LEAVE(info(stream, status, id, graph, nodes, count));
}

static CUresult update(CUstream handle, CUgraphNode *nodes, size_t count, unsigned flags) {
  fc_stream *stream;
  CUresult status = fc_stream_of(handle, &stream);
  if (status) return status;
  if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (!stream->capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (flags > 1 || (count && !nodes)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    const fc_node *node = fc_live(nodes[i], FC_NODE);
    if (!node || node->graph != stream->capture->graph) return CUDA_ERROR_INVALID_VALUE;
  }
  fc_node **copy = malloc((count + 1) * sizeof *copy); /* it may be the very list that cuStreamGetCaptureInfo lent */
  if (!copy) return CUDA_ERROR_OUT_OF_MEMORY;
  if (count) memcpy(copy, nodes, count * sizeof *copy);
  if (flags == 1) stream->num_deps = 0;
  bool ok = fc_capture_depend(stream, copy, count);
  free(copy);
  return ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuStreamUpdateCaptureDependencies(CUstream stream, CUgraphNode *nodes, size_t count, unsigned flags) {
  ENTER(0);
  LEAVE(update(stream, nodes, count, flags));
}

CUresult cuStreamUpdateCaptureDependencies_v2(CUstream stream, CUgraphNode *nodes, const CUgraphEdgeData *edges, size_t count,
                                              unsigned flags) {
  ENTER(0);
  CHECK(!edges, CUDA_ERROR_NOT_SUPPORTED); /* programmatic edges */
  LEAVE(update(stream, nodes, count, flags));
}

CUresult cuThreadExchangeStreamCaptureMode(int *mode) {
  ENTER(0);
  CHECK(mode, CUDA_ERROR_INVALID_VALUE);
  int old = thread_mode;
  thread_mode = *mode; /* unchecked, recorded */
  *mode = old;
  LEAVE(CUDA_SUCCESS);
}
