/* What a context or a function is told and nobody here heeds: flags, limits, preferences of caches and banks; and peers, which one device
 * has none of. Values are kept as they were set. None of it was recorded: it is the documentation, for a device of compute capability
 * 9.0, and the refusals are 801 with a reason. */
#include "state.h"

enum { LIMIT_SYNC_DEPTH = 3, LIMIT_L2 = 5, NUM_LIMITS = 7, NUM_CACHE_CONFIGS = 4, NUM_BANK_CONFIGS = 3, FOUR_BYTE_BANKS = 1 };

void fc_preferences_reset(fc_context *context) {
  static const size_t limits[FC_NUM_LIMITS] = {1024, MIB, 8 * MIB, 0, 2048}; /* stack, printf, heap, -, pending launches */
  for (size_t i = 0; i < FC_NUM_LIMITS; i++) context->limits[i] = limits[i];
  context->cache_config = 0;
}

CUresult cuCtxGetFlags(unsigned *flags) {
  ENTER(NEED_CONTEXT);
  CHECK(flags, CUDA_ERROR_INVALID_VALUE);
  *flags = fc_current()->flags;
  LEAVE(CUDA_SUCCESS);
}

/* 3020 since contexts have 64-bit addresses. */
CUresult cuCtxGetApiVersion(CUcontext handle, unsigned *version) {
  ENTER(0);
  CHECK(version, CUDA_ERROR_INVALID_VALUE);
  CHECK(handle ? fc_live(handle, FC_CONTEXT) != NULL : fc_current() && fc_current()->o.alive, CUDA_ERROR_INVALID_CONTEXT);
  *version = 3020;
  LEAVE(CUDA_SUCCESS);
}

static CUresult limit_check(int limit) {
  if (limit < 0 || limit >= NUM_LIMITS) return CUDA_ERROR_INVALID_VALUE;
  if (limit == LIMIT_SYNC_DEPTH) return CUDA_ERROR_UNSUPPORTED_LIMIT; /* gone with compute capability 9.0 */
  if (limit < LIMIT_L2) return CUDA_SUCCESS;
  fc_say("limit %d: the stand-in has no level-2 cache", limit);
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuCtxGetLimit(size_t *value, int limit) {
  ENTER(CALL);
  CHECK(value, CUDA_ERROR_INVALID_VALUE);
  TRY(limit_check(limit));
  *value = fc_current()->limits[limit];
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxSetLimit(int limit, size_t value) {
  ENTER(CALL);
  TRY(limit_check(limit));
  fc_current()->limits[limit] = value;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxGetCacheConfig(int *config) {
  ENTER(CALL);
  CHECK(config, CUDA_ERROR_INVALID_VALUE);
  *config = fc_current()->cache_config;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxSetCacheConfig(int config) {
  ENTER(CALL);
  CHECK(config >= 0 && config < NUM_CACHE_CONFIGS, CUDA_ERROR_INVALID_VALUE);
  fc_current()->cache_config = config;
  LEAVE(CUDA_SUCCESS);
}

/* The banks have one width: setting another has no effect. */
CUresult cuCtxGetSharedMemConfig(int *config) {
  ENTER(CALL);
  CHECK(config, CUDA_ERROR_INVALID_VALUE);
  *config = FOUR_BYTE_BANKS;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxSetSharedMemConfig(int config) {
  ENTER(CALL);
  CHECK(config >= 0 && config < NUM_BANK_CONFIGS, CUDA_ERROR_INVALID_VALUE);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuCtxResetPersistingL2Cache(void) {
  ENTER(CALL);
  LEAVE(CUDA_SUCCESS);
}

static CUresult prefer(CUfunction handle, int config, int count) {
  const fc_function *function = fc_live(handle, FC_FUNCTION);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  if (function->module->context->fault) return function->module->context->fault;
  return config >= 0 && config < count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuFuncSetCacheConfig(CUfunction function, int config) {
  ENTER(0);
  LEAVE(prefer(function, config, NUM_CACHE_CONFIGS));
}

CUresult cuFuncSetSharedMemConfig(CUfunction function, int config) {
  ENTER(0);
  LEAVE(prefer(function, config, NUM_BANK_CONFIGS));
}

/* ---- Peers ---------------------------------------------------------------------------------------------------------------------- */

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
  ENTER(0);
  CHECK(can, CUDA_ERROR_INVALID_VALUE);
  CHECK(device == 0 && peer == 0, CUDA_ERROR_INVALID_DEVICE);
  *can = 0; /* itself */
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDeviceGetP2PAttribute(int *value, int attribute, CUdevice src, CUdevice dst) {
  ENTER(0);
  CHECK(value && attribute > 0, CUDA_ERROR_INVALID_VALUE);
  (void)src, (void)dst;
  LEAVE(CUDA_ERROR_INVALID_DEVICE); /* out of range, or twice the same */
}

static CUresult peer_check(CUcontext handle) {
  const fc_context *peer = fc_live(handle, FC_CONTEXT);
  return peer && peer != fc_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
  ENTER(CALL);
  CHECK(!flags, CUDA_ERROR_INVALID_VALUE);
  TRY(peer_check(peer));
  LEAVE(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED); /* another context of the same device */
}

CUresult cuCtxDisablePeerAccess(CUcontext peer) {
  ENTER(CALL);
  TRY(peer_check(peer));
  LEAVE(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
}
