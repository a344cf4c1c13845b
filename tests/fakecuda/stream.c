/* Streams: created ones, the legacy default stream (0 and 1), a per-thread default stream for each thread and context (2). Recorded: a
 * destroyed stream's handle answers 201, one whose context ended 709, any other pointer 400; destroying a stream that captures ends the
 * capture without a word. */
#include <stdlib.h>

#include "state.h"

bool fc_stream_blocking(const fc_stream *stream) { return !(stream->flags & CU_STREAM_NON_BLOCKING); }

fc_stream *fc_stream_new(fc_context *context, unsigned flags) {
  for (fc_stream **at = &context->streams; *at;) { /* destroyed ones that are done */
    if (!(*at)->o.alive && !(*at)->first)
      *at = (*at)->sibling;
    else
      at = &(*at)->sibling;
  }
  fc_stream *stream = fc_new(FC_STREAM, sizeof *stream);
  if (!stream) return NULL;
  stream->context = context;
  stream->life = context->life;
  stream->flags = flags;
  stream->sibling = context->streams;
  context->streams = stream;
  return stream;
}

static CUresult default_stream(bool per_thread, fc_stream **out) {
  fc_context *context = fc_current();
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  if (!context->o.alive) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  *out = context->legacy;
  if (!per_thread) return CUDA_SUCCESS;
  uint64_t thread = fc_thread();
  for (fc_stream *stream = context->streams; stream; stream = stream->sibling) {
    if (stream->per_thread && stream->thread == thread && stream->life == context->life) {
      *out = stream;
      return CUDA_SUCCESS;
    }
  }
  *out = fc_stream_new(context, 0);
  if (!*out) return CUDA_ERROR_OUT_OF_MEMORY;
  (*out)->per_thread = true;
  (*out)->thread = thread;
  return CUDA_SUCCESS;
}

CUresult fc_stream_of(CUstream handle, fc_stream **stream) {
  if ((uintptr_t)handle <= 2) {
    CUresult status = default_stream(handle == CU_STREAM_PER_THREAD, stream);
    if (status) return status;
  } else {
    *stream = fc_find(handle, FC_STREAM);
    if (!*stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!fc_context_alive((*stream)->context, (*stream)->life)) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (!(*stream)->o.alive) return CUDA_ERROR_INVALID_CONTEXT;
  }
  return (*stream)->context->fault;
}

static CUresult create(CUstream *out, unsigned flags, int priority) {
  if (!out || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  fc_stream *stream = fc_stream_new(fc_current(), flags);
  if (!stream) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
  *out = (CUstream)stream;
  return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  ENTER(CALL);
  LEAVE(create(stream, flags, 0));
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
  ENTER(CALL);
  LEAVE(create(stream, flags, priority));
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  ENTER(0);
  CHECK((uintptr_t)handle > 2, CUDA_ERROR_INVALID_HANDLE);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  if (stream->capture && stream->capture->origin == stream)
    fc_capture_drop(stream->capture);
  else if (stream->capture)
    fc_capture_leave(stream);
  stream->o.alive = false; /* its work goes on */
  LEAVE(CUDA_SUCCESS);
}

CUresult cuStreamSynchronize(CUstream handle) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  TRY(fc_capture_refuse(stream));
  TRY(fc_capture_legacy(stream == stream->context->legacy ? stream->context : NULL));
  TRY(fc_capture_unsafe());
  if (stream == stream->context->legacy) { /* what it would wait for, had it work now */
    for (fc_stream *other = stream->context->streams; other; other = other->sibling) {
      if (fc_stream_blocking(other)) TRY(fc_finish_stream(other));
    }
  }
  LEAVE(fc_finish_stream(stream));
}

CUresult cuStreamQuery(CUstream handle) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  TRY(fc_capture_refuse(stream));
  TRY(fc_capture_legacy(stream == stream->context->legacy ? stream->context : NULL));
  TRY(fc_capture_unsafe());
  if (fc.polls) fc.now += (uint64_t)1000 << (fc.polls < 30 ? fc.polls : 30);
  fc.polls++;
  bool over = !stream->last || fc_poll(stream->last);
  TRY(stream->context->fault);
  LEAVE(over ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

CUresult cuStreamGetFlags(CUstream handle, unsigned *flags) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  CHECK(flags, CUDA_ERROR_INVALID_VALUE);
  TRY(fc_capture_refuse(stream)); /* recorded; of all the calls that only ask */
  *flags = stream->flags;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuStreamGetPriority(CUstream handle, int *priority) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  CHECK(priority, CUDA_ERROR_INVALID_VALUE);
  *priority = stream->priority;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *context) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  CHECK(context, CUDA_ERROR_INVALID_VALUE);
  *context = (CUcontext)stream->context;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn fn, void *user_data) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  CHECK(fn, CUDA_ERROR_INVALID_VALUE);
  fc_payload *payload;
  TRY(fc_host_payload(&(CUDA_HOST_NODE_PARAMS){fn, user_data}, &payload));
  LEAVE(fc_submit(stream, payload));
}
