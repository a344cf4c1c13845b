/* cuGetProcAddress, and which symbol came with which version of the driver. Recorded on the real one (probes.txt, `addresses`): the
 * youngest variant that the asked version knows; 2 when the name is younger than that; 1 for an unknown name, a suffix in the name
 * counts as unknown; a version beyond the driver's own is an invalid value and leaves the out parameters alone. */
#include <stdlib.h>
#include <string.h>

#include "state.h"
#include "versions.h"

typedef struct entry {
  const char *symbol;
  void (*function)(void);
} entry;

#define FAKECUDA_API(name, ...) {#name, (void (*)(void))name},
#define FAKECUDA_REFUSED(what, name, ...) {#name, (void (*)(void))name},
static const entry entries[] = {
#include "cuda_calls.h"
#include "cuda_refused.h"
};
#undef FAKECUDA_API
#undef FAKECUDA_REFUSED

/* From the CUDA toolkit's release notes and headers; whatever is not listed is as old as the prefix says. */
static const struct {
  const char *symbol;
  int since;
} ages[] = {
    {"cuCtxCreate_v3", 11040},
    {"cuCtxCreate_v4", 12050},
    {"cuCtxGetDevice_v2", 13000},
    {"cuCtxGetFlags", 7000},
    {"cuCtxResetPersistingL2Cache", 11000},
    {"cuDeviceGetP2PAttribute", 8000},
    {"cuDeviceGetUuid", 9020},
    {"cuDeviceGetUuid_v2", 11040},
    {"cuDevicePrimaryCtxRelease_v2", 11000},
    {"cuDevicePrimaryCtxReset_v2", 11000},
    {"cuDevicePrimaryCtxSetFlags_v2", 11000},
    {"cuEventElapsedTime_v2", 12080},
    {"cuEventRecordWithFlags", 11010},
    {"cuFuncGetModule", 11000},
    {"cuFuncGetName", 12030},
    {"cuFuncGetParamInfo", 12040},
    {"cuFuncSetAttribute", 9000},
    {"cuGetProcAddress", 11030},
    {"cuGetProcAddress_v2", 12000},
    {"cuGraphAddDependencies_v2", 12030},
    {"cuGraphAddEventRecordNode", 11010},
    {"cuGraphAddEventWaitNode", 11010},
    {"cuGraphAddKernelNode_v2", 12000},
    {"cuGraphDebugDotPrint", 11030},
    {"cuGraphExecChildGraphNodeSetParams", 11010},
    {"cuGraphExecGetFlags", 12000},
    {"cuGraphExecHostNodeSetParams", 10020},
    {"cuGraphExecKernelNodeSetParams", 10010},
    {"cuGraphExecKernelNodeSetParams_v2", 12000},
    {"cuGraphExecMemcpyNodeSetParams", 10020},
    {"cuGraphExecMemsetNodeSetParams", 10020},
    {"cuGraphExecUpdate", 10020},
    {"cuGraphExecUpdate_v2", 12000},
    {"cuGraphGetEdges_v2", 12030},
    {"cuGraphInstantiateWithFlags", 11040},
    {"cuGraphInstantiateWithParams", 12000},
    {"cuGraphInstantiate_v2", 11000},
    {"cuGraphKernelNodeCopyAttributes", 11000},
    {"cuGraphKernelNodeGetParams_v2", 12000},
    {"cuGraphKernelNodeSetParams_v2", 12000},
    {"cuGraphNodeGetEnabled", 11060},
    {"cuGraphNodeSetEnabled", 11060},
    {"cuGraphUpload", 11010},
    {"cuKernelGetFunction", 12000},
    {"cuLaunchHostFunc", 10000},
    {"cuLaunchKernelEx", 11060},
    {"cuMemAddressFree", 10020},
    {"cuMemAddressReserve", 10020},
    {"cuMemAdvise", 8000},
    {"cuMemAllocAsync", 11020},
    {"cuMemCreate", 10020},
    {"cuMemFreeAsync", 11020},
    {"cuMemGetAllocationGranularity", 10020},
    {"cuMemMap", 10020},
    {"cuMemPrefetchAsync", 8000},
    {"cuMemRelease", 10020},
    {"cuMemSetAccess", 10020},
    {"cuMemUnmap", 10020},
    {"cuStreamBeginCapture_v2", 10010},
    {"cuStreamEndCapture", 10000},
    {"cuStreamGetCaptureInfo_v2", 11030},
    {"cuStreamGetCaptureInfo_v3", 12030},
    {"cuStreamGetCtx", 9020},
    {"cuStreamIsCapturing", 10000},
    {"cuStreamUpdateCaptureDependencies", 11030},
    {"cuStreamUpdateCaptureDependencies_v2", 12030},
    {"cuStreamWaitValue32_v2", 11070},
    {"cuStreamWriteValue32_v2", 11070},
    {"cuThreadExchangeStreamCaptureMode", 10010},
};

static int by_symbol(const void *key, const void *item) { return strcmp(key, *(const char *const *)item); }

int fc_version_of(const char *name) {
  const char *const *found = bsearch(name, ages, sizeof ages / sizeof *ages, sizeof *ages, by_symbol);
  if (found) return ((const int *)(found + 1))[0];
  if (strncmp(name, "cuGraph", 7) == 0) return 10000;
  return strncmp(name, "cuLibrary", 9) == 0 ? 12000 : 4000;
}

/* The length of the name without its version's suffix. */
static size_t base_of(const char *symbol) {
  size_t n = strlen(symbol);
  return n > 3 && symbol[n - 3] == '_' && symbol[n - 2] == 'v' ? n - 3 : n;
}

/* Has a variant for the per-thread default stream, which the stand-in does not offer. */
static bool takes_stream(const char *symbol) {
  static const char *const starts[] = {"cuStream",        "cuLaunch",      "cuMemcpy",      "cuMemset",
                                       "cuEventRecord",   "cuGraphLaunch", "cuGraphUpload", "cuGraphInstantiateWithParams",
                                       "cuMemAllocAsync", "cuMemFreeAsync"};
  if (strncmp(symbol, "cuStreamCreate", 14) == 0 || strncmp(symbol, "cuStreamDestroy", 15) == 0) return false;
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
    if (strncmp(symbol, starts[i], strlen(starts[i])) == 0) return true;
  }
  return false;
}

/* Later names of old variants: asking for the left one from that version on finds the right one. cuEventElapsedTime's and
 * cuCtxCreate's younger variants are older than the version from which cuGetProcAddress hands them out. */
static bool offered(const char *symbol, int version) {
  if (version < 13000 && (strcmp(symbol, "cuEventElapsedTime_v2") == 0 || strcmp(symbol, "cuCtxCreate_v4") == 0)) return false;
  return fc_version_of(symbol) <= version && fc_version_of(symbol) <= fc.set.version;
}

static CUresult find(const char *name, void **function, int version, uint64_t flags, int *how) {
  if (!name || !function || flags > 2 || version > fc.set.version) return CUDA_ERROR_INVALID_VALUE;
  const entry *best = NULL;
  int answer = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    const char *symbol = entries[i].symbol;
    size_t n = base_of(symbol);
    if (strlen(name) != n || strncmp(symbol, name, n) != 0) continue;
    if (flags == 2 && takes_stream(symbol)) {
      fc_say("cuGetProcAddress: %s: no variant for the per-thread default stream here", name);
      continue;
    }
    if (fc_version_of(symbol) > fc.set.version) continue; /* this driver has never heard of it */
    if (answer == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND) answer = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
    if (offered(symbol, version) && (!best || fc_version_of(symbol) > fc_version_of(best->symbol))) best = &entries[i];
  }
  *function = best ? (void *)(uintptr_t)best->function : NULL;
  if (how) *how = best ? CU_GET_PROC_ADDRESS_SUCCESS : answer;
  return CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *how) {
  ENTER(ANY_TIME);
  LEAVE(find(symbol, function, version, flags, how));
}

CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
  ENTER(ANY_TIME);
  TRY(find(symbol, function, version, flags, NULL));
  LEAVE(*function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND);
}
