/* Contexts: the primary one, created ones, and each thread's stack of current ones. What the probes fixed: streams carry their
 * context, so that calls on a stream work with another context current, or none; the current context may be dead (709); the primary
 * one comes back to life under the same handle; a process in which one faulted gets no new one (700). */
#include <stdlib.h>
#include <string.h>

#include "state.h"

enum { MAX_STACK = 64 };
static const unsigned ALL_FLAGS = 0x3f;
static _Thread_local struct {
  fc_context *contexts[MAX_STACK];
  unsigned depth;
} stack;

fc_context *fc_current(void) { return stack.depth ? stack.contexts[stack.depth - 1] : NULL; }
void fc_thread_forget(void) { memset(&stack, 0, sizeof stack); }
bool fc_context_alive(const fc_context *context, unsigned life) { return context->o.alive && context->life == life; }

void fc_context_fault(fc_context *context, CUresult status) {
  if (!context->fault) context->fault = status;
  fc.faulted = true;
}

static CUresult set_current(fc_context *context) {
  if (!context) {
    if (stack.depth) stack.depth--;
    return CUDA_SUCCESS;
  }
  if (!stack.depth) stack.depth = 1;
  stack.contexts[stack.depth - 1] = context;
  return CUDA_SUCCESS;
}

static CUresult begin_life(fc_context *context) {
  if (fc.faulted) return CUDA_ERROR_ILLEGAL_ADDRESS;
  context->o.alive = true;
  context->o.made_by = fc.calls;
  context->life++;
  context->fault = CUDA_SUCCESS;
  fc_preferences_reset(context);
  context->legacy = fc_stream_new(context, 0);
  return context->legacy ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- The end ---------------------------------------------------------------------------------------------------------------- */

static void end_stream(void *object, void *arg) {
  fc_stream *stream = object;
  if (stream->context != arg || !stream->o.alive) return;
  if (stream->capture && stream->capture->origin == stream) fc_capture_drop(stream->capture);
  fc_stream_clear(stream);
  stream->o.alive = false;
}

static void clear_stream(void *object, void *arg) {
  if (((fc_stream *)object)->context == arg) fc_stream_clear(object); /* destroyed ones may hold work still */
}

static void end_event(void *object, void *arg) {
  fc_event *event = object;
  if (event->context != arg || !event->o.alive) return;
  fc_item_drop(event->item);
  free(event->nodes);
  event->item = NULL;
  event->nodes = NULL;
  event->num_nodes = 0;
  event->o.alive = false;
}

static void end_module(void *object, void *arg) {
  fc_module *module = object;
  if (module->context == arg && module->o.alive) fc_module_end(module);
}

static void end_exec(void *object, void *arg) {
  fc_exec *exec = object;
  if (exec->context == arg && exec->o.alive) fc_exec_release(exec);
}

void fc_context_end(fc_context *context) {
  if (!context->fault) fc_finish_context(context);
  fc_each(FC_EXEC, end_exec, context);
  fc_each(FC_STREAM, end_stream, context);
  fc_each(FC_STREAM, clear_stream, context);
  fc_each(FC_EVENT, end_event, context);
  fc_each(FC_MODULE, end_module, context);
  fc_memory_end(context);
  context->legacy = NULL;
  context->o.alive = false;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------------------ */

static fc_context *primary(void) {
  if (fc.primary) return fc.primary;
  fc.primary = fc_new(FC_CONTEXT, sizeof *fc.primary);
  if (!fc.primary) return NULL;
  fc.primary->primary = true;
  fc.primary->o.alive = false;
  return fc.primary;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  ENTER(0);
  CHECK(context, CUDA_ERROR_INVALID_VALUE);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  CHECK(primary(), CUDA_ERROR_OUT_OF_MEMORY);
  if (!fc.primary->o.alive) TRY(begin_life(fc.primary));
  fc.primary->retained++;
  *context = (CUcontext)fc.primary;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  ENTER(0);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  CHECK(fc.primary && fc.primary->retained, CUDA_ERROR_INVALID_CONTEXT);
  if (!--fc.primary->retained && fc.primary->o.alive) fc_context_end(fc.primary);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  ENTER(0);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  if (fc.primary && fc.primary->o.alive) fc_context_end(fc.primary);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
  ENTER(0);
  CHECK(flags && active, CUDA_ERROR_INVALID_VALUE);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  *flags = fc.primary ? fc.primary->flags : 0;
  *active = fc.primary && fc.primary->o.alive;
  LEAVE(CUDA_SUCCESS);
}

/* Also while it lives, since driver 11.0. */
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  ENTER(0);
  CHECK(!(flags & ~ALL_FLAGS), CUDA_ERROR_INVALID_VALUE);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  CHECK(primary(), CUDA_ERROR_OUT_OF_MEMORY);
  fc.primary->flags = flags;
  LEAVE(CUDA_SUCCESS);
}

static CUresult create(CUcontext *out, unsigned flags, CUdevice device) {
  if (!out || (flags & ~ALL_FLAGS)) return CUDA_ERROR_INVALID_VALUE;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (stack.depth == MAX_STACK) return CUDA_ERROR_OUT_OF_MEMORY;
  fc_context *context = fc_new(FC_CONTEXT, sizeof *context);
  if (!context) return CUDA_ERROR_OUT_OF_MEMORY;
  CUresult status = begin_life(context);
  if (status) {
    context->o.alive = false;
    return status;
  }
  context->flags = flags;
  stack.contexts[stack.depth++] = context;
  *out = (CUcontext)context;
  return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
  ENTER(0);
  LEAVE(create(context, flags, device));
}

CUresult cuCtxCreate_v3(CUcontext *context, void *params, int count, unsigned flags, CUdevice device) {
  ENTER(0);
  CHECK(!params && !count, CUDA_ERROR_NOT_SUPPORTED); /* execution affinity */
  LEAVE(create(context, flags, device));
}

CUresult cuCtxCreate_v4(CUcontext *context, void *params, unsigned flags, CUdevice device) {
  ENTER(0);
  CHECK(!params, CUDA_ERROR_NOT_SUPPORTED);
  LEAVE(create(context, flags, device));
}

CUresult cuCtxDestroy_v2(CUcontext handle) {
  ENTER(0);
  fc_context *context = fc_live(handle, FC_CONTEXT);
  CHECK(context && !context->primary, CUDA_ERROR_INVALID_CONTEXT);
  if (fc_current() == context) stack.depth--; /* elsewhere it stays current and answers 709 */
  fc_context_end(context);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  ENTER(0);
  fc_context *context = fc_find(handle, FC_CONTEXT);
  CHECK(context, CUDA_ERROR_INVALID_CONTEXT);
  CHECK(stack.depth < MAX_STACK, CUDA_ERROR_OUT_OF_MEMORY);
  stack.contexts[stack.depth++] = context;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxPopCurrent_v2(CUcontext *handle) {
  ENTER(0);
  CHECK(stack.depth, CUDA_ERROR_INVALID_CONTEXT);
  if (handle) *handle = (CUcontext)fc_current();
  stack.depth--;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  ENTER(0);
  fc_context *context = fc_find(handle, FC_CONTEXT);
  CHECK(context || !handle, CUDA_ERROR_INVALID_CONTEXT);
  LEAVE(set_current(context));
}

CUresult cuCtxGetCurrent(CUcontext *handle) {
  ENTER(0);
  CHECK(handle, CUDA_ERROR_INVALID_VALUE);
  *handle = (CUcontext)fc_current();
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxGetDevice(CUdevice *device) {
  ENTER(NEED_CONTEXT);
  CHECK(device, CUDA_ERROR_INVALID_VALUE);
  *device = 0;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext handle) {
  ENTER(0);
  CHECK(device, CUDA_ERROR_INVALID_VALUE);
  CHECK(handle ? fc_live(handle, FC_CONTEXT) != NULL : fc_current() != NULL, CUDA_ERROR_INVALID_CONTEXT);
  *device = 0;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  ENTER(NEED_CONTEXT);
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  LEAVE(CUDA_SUCCESS);
}

/* Refused while anything of the context is captured, whatever the mode and the thread; all of it is invalidated. */
CUresult cuCtxSynchronize(void) {
  ENTER(CALL);
  fc_context *context = fc_current();
  bool capturing = false;
  for (fc_capture *c = fc.captures; c; c = c->next) {
    if (c->origin->context != context) continue;
    fc_capture_invalidate(c);
    capturing = true;
  }
  CHECK(!capturing, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  LEAVE(fc_finish_context(context));
}
