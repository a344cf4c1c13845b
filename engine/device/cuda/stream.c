/* The part of the tape's table that enqueues: copies, launches, streams and marks. */
#include "device.h"

static adcg_status enter(const tape_device *on, void **was) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  CUcontext current = NULL;
  *was = NULL;
  if (cuda->driver.cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == cuda->context) return ADCG_OK;
  ADCG_CUDA_TRY(cuda, cuCtxPushCurrent, cuda->context);
  *was = cuda->context; /* pushed, to be popped */
  return ADCG_OK;
}

static void leave(const tape_device *on, void *was) {
  CUcontext popped;
  if (was) adcg_cuda_of(on)->driver.cuCtxPopCurrent(&popped);
}

static adcg_status copy(const tape_device *on, void *stream, void *to, const void *from, size_t bytes) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  ADCG_CUDA_TRY(cuda, cuMemcpyAsync, (uintptr_t)to, (uintptr_t)from, bytes, stream);
  return ADCG_OK;
}

static adcg_status fill(const tape_device *on, void *stream, void *at, int byte, size_t bytes) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  if (bytes == 0) return ADCG_OK;
  ADCG_CUDA_TRY(cuda, cuMemsetD8Async, (uintptr_t)at, (unsigned char)byte, bytes, stream);
  return ADCG_OK;
}

static adcg_status fetch(const tape_device *on, void *stream, void *to, const void *from, size_t bytes) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  if (bytes == 0) return ADCG_OK;
  ADCG_CUDA_TRY(cuda, cuMemcpyAsync, (uintptr_t)to, (uintptr_t)from, bytes, stream);
  ADCG_CUDA_TRY(cuda, cuStreamSynchronize, stream);
  return ADCG_OK;
}

static adcg_status give_batch(const tape_exec *exec) {
  return adcgk_cuda_set_batch(adcg_cuda_of(exec->on)->kernels, &exec->launcher, &exec->batch, exec->device_batch);
}

static adcg_status zero_tail(const tape_exec *exec, const tape_value *value, char *data, int64_t rows) {
  return adcgk_cuda_zero_tail(adcg_cuda_of(exec->on)->kernels, &exec->launcher, exec->device_batch, data, &value->type, value->strides,
                              rows);
}

static adcg_status launch(const tape_device *on, void *stream, const adcg_kernel_launch *l) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  ADCG_CUDA_TRY(cuda, cuLaunchKernel, l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2],
                l->shared_bytes, stream, l->params, NULL);
  return ADCG_OK;
}

static adcg_status open_stream(const tape_device *on, void **out_stream) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  /* one that does not wait for the legacy stream: a capture in it would forbid that stream to everybody */
  ADCG_CUDA_TRY(cuda, cuStreamCreate, (CUstream *)out_stream, CU_STREAM_NON_BLOCKING);
  return ADCG_OK;
}

static void close_stream(const tape_device *on, void *stream) { adcg_cuda_of(on)->driver.cuStreamDestroy(stream); }

static adcg_status open_mark(const tape_device *on, void **out_mark) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  ADCG_CUDA_TRY(cuda, cuEventCreate, (CUevent *)out_mark, CU_EVENT_DISABLE_TIMING);
  return ADCG_OK;
}

static void close_mark(const tape_device *on, void *mark) { adcg_cuda_of(on)->driver.cuEventDestroy(mark); }

static adcg_status set_mark(const tape_device *on, void *mark, void *stream) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  const CUresult result = cuda->driver.cuEventRecord(mark, stream);
  if (result == CUDA_SUCCESS) return ADCG_OK;
  cuda->driver.cuStreamSynchronize(stream); /* nobody could wait for what is in it, so it ends here */
  return adcg_cuda_check(cuda, result, "cuEventRecord");
}

static adcg_status wait_mark(const tape_device *on, void *mark, void *stream) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  ADCG_CUDA_TRY(cuda, cuStreamWaitEvent, stream, mark, 0);
  return ADCG_OK;
}

static adcg_status reach_mark(const tape_device *on, void *mark) {
  const adcg_cuda *cuda = adcg_cuda_of(on);
  ADCG_CUDA_TRY(cuda, cuEventSynchronize, mark);
  return ADCG_OK;
}

void adcg_cuda_stream_calls(tape_device *on) {
  on->enter = enter;
  on->leave = leave;
  on->copy = copy;
  on->fill = fill;
  on->fetch = fetch;
  on->give_batch = give_batch;
  on->zero_tail = zero_tail;
  on->launch = launch;
  on->open_stream = open_stream;
  on->close_stream = close_stream;
  on->open_mark = open_mark;
  on->close_mark = close_mark;
  on->set_mark = set_mark;
  on->wait_mark = wait_mark;
  on->reach_mark = reach_mark;
}
