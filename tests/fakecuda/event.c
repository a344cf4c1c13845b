/* Events. An event remembers its last record: a point in a stream, or a point in a capture. Recorded: while that capture lasts a query
 * or a synchronisation is 907 and invalidates it; once it is over or invalid the event is good for nothing (1) until it is recorded
 * again, and a capturing stream that waits for it is invalidated. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

CUresult fc_event_of(CUevent handle, fc_event **event) {
  *event = fc_find(handle, FC_EVENT);
  if (!*event) return CUDA_ERROR_INVALID_HANDLE;
  if (!(*event)->o.alive || !fc_context_alive((*event)->context, (*event)->life)) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return (*event)->context->fault;
}

static void forget(fc_event *event) {
  fc_item_drop(event->item);
  free(event->nodes);
  event->item = NULL;
  event->nodes = NULL;
  event->num_nodes = 0;
  event->capture = 0;
}

CUresult cuEventCreate(CUevent *out, unsigned flags) {
  ENTER(CALL);
  unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
  CHECK(out && !(flags & ~known), CUDA_ERROR_INVALID_VALUE);
  CHECK(!(flags & CU_EVENT_INTERPROCESS) || (flags & CU_EVENT_DISABLE_TIMING), CUDA_ERROR_INVALID_VALUE);
  fc_event *event = fc_new(FC_EVENT, sizeof *event);
  CHECK(event, CUDA_ERROR_OUT_OF_MEMORY);
  event->context = fc_current();
  event->life = event->context->life;
  event->flags = flags;
  *out = (CUevent)event;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuEventDestroy_v2(CUevent handle) {
  ENTER(0);
  fc_event *event;
  TRY(fc_event_of(handle, &event));
  forget(event);
  event->o.alive = false;
  LEAVE(CUDA_SUCCESS);
}

CUresult fc_event_record_item(fc_event *event, fc_stream *stream) {
  fc_item *item;
  CUresult status = fc_enqueue(stream, NULL, 0, NULL, 0, &item);
  if (status) return status;
  forget(event);
  event->item = item;
  return CUDA_SUCCESS;
}

static CUresult record(CUevent handle, CUstream on, unsigned flags) {
  fc_event *event;
  fc_stream *stream;
  CUresult status = fc_event_of(handle, &event);
  if (!status) status = fc_stream_of(on, &stream);
  if (status) return status;
  if (flags > CU_EVENT_RECORD_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
  if (event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  status = fc_capture_check(stream);
  if (status) return status;
  if (flags == CU_EVENT_RECORD_EXTERNAL) {
    if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    fc_payload *payload = fc_payload_new(CU_GRAPH_NODE_TYPE_EVENT_RECORD, stream->context);
    if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
    payload->event = event;
    return fc_capture_add(stream, payload);
  }
  if (!stream->capture) return fc_event_record_item(event, stream);
  fc_node **nodes = malloc((stream->num_deps + 1) * sizeof(fc_node *));
  if (!nodes) return CUDA_ERROR_OUT_OF_MEMORY;
  forget(event);
  if (stream->num_deps) memcpy(nodes, stream->deps, stream->num_deps * sizeof(fc_node *));
  event->nodes = nodes;
  event->num_nodes = stream->num_deps;
  event->capture = stream->capture->id;
  return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  ENTER(0);
  LEAVE(record(event, stream, 0));
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
  ENTER(0);
  LEAVE(record(event, stream, flags));
}

/* 0 if the event may be looked at. */
static CUresult observe(const fc_event *event) {
  if (!event->capture) return CUDA_SUCCESS;
  fc_capture *capture = fc_capture_by_id(event->capture);
  if (!capture || !capture->valid) return CUDA_ERROR_INVALID_VALUE;
  fc_capture_invalidate(capture);
  return CUDA_ERROR_CAPTURED_EVENT;
}

CUresult cuEventQuery(CUevent handle) {
  ENTER(0);
  fc_event *event;
  TRY(fc_event_of(handle, &event));
  TRY(observe(event));
  TRY(fc_capture_unsafe());
  if (fc.polls) fc.now += (uint64_t)1000 << (fc.polls < 30 ? fc.polls : 30);
  fc.polls++;
  bool over = !event->item || fc_poll(event->item);
  TRY(event->context->fault);
  LEAVE(over ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

CUresult cuEventSynchronize(CUevent handle) {
  ENTER(0);
  fc_event *event;
  TRY(fc_event_of(handle, &event));
  TRY(observe(event));
  TRY(fc_capture_unsafe());
  LEAVE(event->item ? fc_finish(event->item) : CUDA_SUCCESS);
}

static CUresult elapsed(float *milliseconds, CUevent first, CUevent second) {
  fc_event *start, *end;
  CUresult status = fc_event_of(first, &start);
  if (!status) status = fc_event_of(second, &end);
  if (status) return status;
  if (!milliseconds) return CUDA_ERROR_INVALID_VALUE;
  if ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) return CUDA_ERROR_INVALID_HANDLE;
  status = observe(start);
  if (!status) status = observe(end);
  if (status) return status;
  if (!start->item || !end->item) return CUDA_ERROR_INVALID_HANDLE;
  bool over = fc_poll(start->item) && fc_poll(end->item);
  if (start->context->fault) return start->context->fault;
  if (!over) return CUDA_ERROR_NOT_READY;
  *milliseconds = (float)(((double)end->item->end - (double)start->item->end) / 1e6);
  return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
  ENTER(0);
  LEAVE(elapsed(milliseconds, start, end));
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
  ENTER(0);
  LEAVE(elapsed(milliseconds, start, end));
}

/* ---- Waiting ------------------------------------------------------------------------------------------------------------------- */

/* The event lies in a capture: the stream joins it, or already belongs to it. */
static CUresult wait_captured(fc_stream *stream, const fc_event *event) {
  fc_capture *capture = fc_capture_by_id(event->capture);
  if (!capture || !capture->valid) {
    if (stream->capture) fc_capture_invalidate(stream->capture);
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (stream->capture && stream->capture != capture) {
    fc_capture_invalidate(stream->capture);
    fc_capture_invalidate(capture);
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  if (stream == stream->context->legacy) { /* cannot be captured */
    fc_capture_invalidate(capture);
    return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  if (!stream->capture) fc_capture_join(stream, capture);
  return fc_capture_depend(stream, event->nodes, event->num_nodes) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult wait_plain(fc_stream *stream, const fc_event *event) {
  if (!event->item) return CUDA_SUCCESS; /* never recorded */
  if (!stream->capture) return fc_enqueue(stream, NULL, 0, &event->item, 1, NULL);
  fc_capture_invalidate(stream->capture);
  return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
}

CUresult cuStreamWaitEvent(CUstream on, CUevent handle, unsigned flags) {
  ENTER(0);
  CHECK(flags <= CU_EVENT_WAIT_EXTERNAL, CUDA_ERROR_INVALID_VALUE);
  fc_event *event;
  fc_stream *stream;
  TRY(fc_stream_of(on, &stream));
  TRY(fc_event_of(handle, &event));
  TRY(fc_capture_check(stream));
  if (flags == CU_EVENT_WAIT_EXTERNAL) {
    CHECK(stream->capture, CUDA_ERROR_ILLEGAL_STATE);
    fc_payload *payload = fc_payload_new(CU_GRAPH_NODE_TYPE_WAIT_EVENT, stream->context);
    CHECK(payload, CUDA_ERROR_OUT_OF_MEMORY);
    payload->event = event;
    LEAVE(fc_capture_add(stream, payload));
  }
  LEAVE(event->capture ? wait_captured(stream, event) : wait_plain(stream, event));
}
