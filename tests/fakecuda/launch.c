/* Launching kernels: arguments, limits, and running them. Recorded: missing arguments leave a capture valid, a grid, a block or shared
 * memory beyond the limits invalidates it; a packed buffer may be shorter than the parameters but not longer (701) nor empty. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

CUresult fc_launch_check(const fc_function *function, const uint32_t grid[3], const uint32_t block[3], uint32_t shared) {
  static const uint32_t most_blocks[3] = {2147483647, 65535, 65535}, most_threads[3] = {1024, 1024, 64};
  for (int i = 0; i < 3; i++) {
    if (!grid[i] || grid[i] > most_blocks[i] || !block[i] || block[i] > most_threads[i]) return CUDA_ERROR_INVALID_VALUE;
  }
  if ((uint64_t)block[0] * block[1] * block[2] > 1024 || shared > (uint32_t)function->max_dynamic_shared) return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

static CUresult pack_extra(const fc_function *function, void *const *extra, fc_payload *payload) {
  const void *buffer = NULL;
  const size_t *size = NULL;
  for (int i = 0; i < 8 && extra[2 * i] != CU_LAUNCH_PARAM_END; i++) {
    if (extra[2 * i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
      buffer = extra[2 * i + 1];
    else if (extra[2 * i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
      size = extra[2 * i + 1];
    else
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (!size || !*size || !buffer) return function->num_params ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  if (*size > function->packed_bytes) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  memcpy(payload->k.packed, buffer, *size);
  payload->k.by_extra = true;
  payload->k.extra_bytes = *size;
  return CUDA_SUCCESS;
}

CUresult fc_params_pack(const fc_function *function, void *const *params, void *const *extra, fc_payload *payload) {
  if (params && extra) return CUDA_ERROR_INVALID_VALUE;
  payload->k.packed = calloc(1, function->packed_bytes + 1);
  if (!payload->k.packed) return CUDA_ERROR_OUT_OF_MEMORY;
  if (extra) return pack_extra(function, extra, payload);
  if (function->num_params && !params) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < function->num_params; i++) {
    if (!params[i]) return CUDA_ERROR_INVALID_VALUE;
    memcpy(payload->k.packed + function->offsets[i], params[i], function->sizes[i]);
  }
  return CUDA_SUCCESS;
}

static CUresult launch(CUfunction handle, const uint32_t grid[3], const uint32_t block[3], uint32_t shared, CUstream on, void **params,
                       void **extra) {
  fc_function *function = fc_live(handle, FC_FUNCTION);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  fc_stream *stream;
  CUresult status = fc_stream_of(on, &stream);
  if (status) return status;
  if (function->module->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  fc_payload *payload = fc_payload_new(CU_GRAPH_NODE_TYPE_KERNEL, stream->context);
  if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
  payload->k.function = function;
  payload->k.body = function->body;
  payload->k.body->refs++;
  memcpy(payload->k.grid, grid, sizeof payload->k.grid);
  memcpy(payload->k.block, block, sizeof payload->k.block);
  payload->k.shared = shared;
  status = fc_params_pack(function, params, extra, payload);
  if (!status) status = fc_capture_check(stream);
  if (!status) {
    status = fc_launch_check(function, grid, block, shared);
    if (!status) return fc_submit(stream, payload);
    if (stream->capture) fc_capture_invalidate(stream->capture);
  }
  fc_payload_drop(payload);
  return status;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                        unsigned block_z, unsigned shared, CUstream stream, void **params, void **extra) {
  ENTER(0);
  const uint32_t grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
  LEAVE(launch(function, grid, block, shared, stream, params, extra));
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra) {
  ENTER(0);
  CHECK(config, CUDA_ERROR_INVALID_VALUE);
  const uint32_t grid[3] = {config->gridDimX, config->gridDimY, config->gridDimZ};
  const uint32_t block[3] = {config->blockDimX, config->blockDimY, config->blockDimZ};
  LEAVE(launch(function, grid, block, config->sharedMemBytes, config->hStream, params, extra));
}

/* ---- Occupancy ------------------------------------------------------------------------------------------------------------------ */

/* How many blocks share a multiprocessor: 2,048 threads in warps, 32 blocks, 228 KiB of shared memory of which each block takes one for
 * the system. Registers never bind: a function here has 18 (cuFuncGetAttribute). */
static CUresult occupancy(int *blocks, CUfunction handle, int threads, size_t shared) {
  enum { THREADS = 2048, BLOCKS = 32, SHARED = 233472, RESERVED = 1024 };
  const fc_function *function = fc_live(handle, FC_FUNCTION);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  if (function->module->context->fault) return function->module->context->fault;
  if (!blocks || threads <= 0) return CUDA_ERROR_INVALID_VALUE;
  size_t most = 0;
  if (threads <= 1024 && shared <= (size_t)function->max_dynamic_shared) {
    size_t by_threads = THREADS / (((size_t)threads + 31) & ~(size_t)31), by_shared = SHARED / (shared + RESERVED);
    most = by_threads < by_shared ? by_threads : by_shared;
    if (most > BLOCKS) most = BLOCKS;
  }
  *blocks = (int)most;
  return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads, size_t shared) {
  ENTER(CALL);
  LEAVE(occupancy(blocks, function, threads, shared));
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int threads, size_t shared,
                                                              unsigned flags) {
  ENTER(CALL);
  CHECK(flags <= 1, CUDA_ERROR_INVALID_VALUE);
  LEAVE(occupancy(blocks, function, threads, shared));
}

/* ---- Running -------------------------------------------------------------------------------------------------------------------- */

/* Kernels in C touch device memory directly; one that strays meets pages without access, which becomes error 700. Everything runs
 * under the stand-in's lock, so there is one at a time; signals of other threads go on to whoever had them before. */
static struct {
  sigjmp_buf back;
  uint64_t thread;
  struct sigaction segv, bus;
  char why[256];
} guard;

static void failed(const char *why) {
  snprintf(guard.why, sizeof guard.why, "%s", why);
  siglongjmp(guard.back, 2);
}

static void strayed(int number, siginfo_t *info, void *context) {
  if (guard.thread == fc_thread()) siglongjmp(guard.back, 1);
  const struct sigaction *before = number == SIGBUS ? &guard.bus : &guard.segv;
  if (before->sa_flags & SA_SIGINFO)
    before->sa_sigaction(number, info, context);
  else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
    before->sa_handler(number);
  else
    sigaction(number, before, NULL); /* strikes again, and ends the process as it would have */
}

static CUresult run_native(fakecuda_kernel_fn run, const fakecuda_launch *how, const char *name) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = strayed;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  sigaction(SIGSEGV, &action, &guard.segv);
  sigaction(SIGBUS, &action, &guard.bus);
  guard.thread = fc_thread();
  CUresult status = CUDA_SUCCESS;
  switch (sigsetjmp(guard.back, 1)) {
    case 0: run(how); break;
    case 1:
      fc_say("%s: touched memory that it may not", name);
      status = CUDA_ERROR_ILLEGAL_ADDRESS;
      break;
    default:
      fc_say("%s", guard.why);
      status = CUDA_ERROR_LAUNCH_FAILED;
      break;
  }
  guard.thread = 0;
  sigaction(SIGSEGV, &guard.segv, NULL);
  sigaction(SIGBUS, &guard.bus, NULL);
  return status;
}

CUresult fc_kernel_run(const fc_payload *payload, uint64_t *duration) {
  const fc_function *f = payload->k.function;
  if (payload->k.body->program) {
    uint64_t instructions = 0;
    bool ok = fc_program_run(payload->k.body->program, payload, &instructions);
    *duration += 10 * instructions;
    if (!ok) fc_say("%s: touched memory that it may not", f->name);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  const void **args = malloc((f->num_params + 1) * sizeof *args);
  if (!args) return CUDA_ERROR_LAUNCH_FAILED;
  for (size_t i = 0; i < f->num_params; i++) args[i] = payload->k.packed + f->offsets[i];
  fakecuda_launch how = {
      .shared_bytes = payload->k.shared, .args = args, .packed = payload->k.packed, .packed_bytes = f->packed_bytes, .fail = failed};
  memcpy(how.grid, payload->k.grid, sizeof how.grid);
  memcpy(how.block, payload->k.block, sizeof how.block);
  *duration += (uint64_t)100 * how.grid[0] * how.grid[1] * how.grid[2];
  CUresult status = run_native(payload->k.body->run, &how, f->name);
  free(args);
  return status;
}
