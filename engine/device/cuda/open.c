/* Opening a device of the driver's, and closing it. */
#include <stdio.h>

#include "device.h"

static adcg_status describe(adcg_cuda *cuda) {
  int major = 0, minor = 0, unified = 0, virtual = 0;
  size_t bytes = 0;
  ADCG_CUDA_TRY(cuda, cuDeviceGetName, cuda->name, (int)sizeof cuda->name, cuda->device);
  ADCG_CUDA_TRY(cuda, cuDeviceTotalMem, &bytes, cuda->device);
  cuda->memory_bytes = (int64_t)bytes;
#define ATTRIBUTE(what, out) ADCG_CUDA_TRY(cuda, cuDeviceGetAttribute, out, what, cuda->device)
  ATTRIBUTE(CU_DEVICE_COMPUTE_MAJOR, &major);
  ATTRIBUTE(CU_DEVICE_COMPUTE_MINOR, &minor);
  ATTRIBUTE(CU_DEVICE_UNIFIED_ADDRESSING, &unified);
  ATTRIBUTE(CU_DEVICE_VIRTUAL_MEMORY, &virtual);
  ATTRIBUTE(CU_DEVICE_MULTIPROCESSORS, &cuda->multiprocessors);
  ATTRIBUTE(CU_DEVICE_SHARED_MEMORY_OPTIN, &cuda->shared_optin);
#undef ATTRIBUTE
  cuda->compute = 10 * major + minor;
  if (cuda->compute < 80) {
    char message[192];
    snprintf(message, sizeof message, "%s has compute capability %d.%d, at least 8.0 is needed", cuda->name, major, minor);
    return adcg_cuda_fail(ADCG_ERR_UNSUPPORTED, message);
  }
  if (!unified || !virtual) return adcg_cuda_fail(ADCG_ERR_UNSUPPORTED, "the device has no unified addresses, or no virtual memory");
  return ADCG_OK;
}

/* The kernels' functions, each allowed all the shared memory that the device lends one block. */
static adcg_status load(adcg_cuda *cuda, const void *image, uintptr_t *functions) {
  ADCG_CUDA_TRY(cuda, cuModuleLoadData, &cuda->module, image);
  for (int32_t i = 0; adcgk_cuda_kernels[i]; i++) {
    CUfunction function = NULL;
    int fixed = 0;
    ADCG_CUDA_TRY(cuda, cuModuleGetFunction, &function, cuda->module, adcgk_cuda_kernels[i]);
    ADCG_CUDA_TRY(cuda, cuFuncGetAttribute, &fixed, CU_FUNC_SHARED_SIZE_BYTES, function);
    ADCG_CUDA_TRY(cuda, cuFuncSetAttribute, function, CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES, cuda->shared_optin - fixed);
    functions[i] = (uintptr_t)function;
  }
  return ADCG_OK;
}

adcg_status adcg_cuda_open(adcg_cuda *cuda, int32_t number, const void *image, uintptr_t *functions) {
  int count = 0;
  ADCG_CUDA_TRY(cuda, cuDeviceGetCount, &count);
  if (number >= count) {
    char message[96];
    snprintf(message, sizeof message, "the driver has %d device%s", count, count == 1 ? "" : "s");
    return adcg_cuda_fail(ADCG_ERR_DEVICE, message);
  }
  cuda->number = number;
  ADCG_CUDA_TRY(cuda, cuDeviceGet, &cuda->device, number);
  adcg_status status = describe(cuda);
  if (status) return status;
  ADCG_CUDA_TRY(cuda, cuDevicePrimaryCtxRetain, &cuda->context, cuda->device);
  adcg_cuda_stream_calls(&cuda->on);
  adcg_cuda_graph_calls(&cuda->on);
  void *was = NULL;
  status = cuda->on.enter(&cuda->on, &was);
  if (status) return status;
  size_t granularity = 0;
  const CUmemAllocationProp prop = {.type = 1, .location = {1, cuda->device}};
  const CUresult result = cuda->driver.cuMemGetAllocationGranularity(&granularity, &prop, 0);
  status = adcg_cuda_check(cuda, result, "cuMemGetAllocationGranularity");
  cuda->granularity = (int64_t)granularity;
  if (!status) status = load(cuda, image, functions);
  cuda->on.leave(&cuda->on, was);
  return status;
}

void adcg_cuda_close(adcg_cuda *cuda) {
  void *was = NULL;
  if (cuda->context && cuda->on.enter(&cuda->on, &was) == ADCG_OK) {
    if (cuda->module) cuda->driver.cuModuleUnload(cuda->module);
    cuda->on.leave(&cuda->on, was);
  }
  if (cuda->context) cuda->driver.cuDevicePrimaryCtxRelease(cuda->device);
  cuda->module = NULL;
  cuda->context = NULL;
}
