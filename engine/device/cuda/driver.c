/* The driver's functions, and its errors as statuses. */
#include <stdio.h>
#include <string.h>

#include "device.h"

adcg_status adcg_cuda_check(const adcg_cuda *cuda, CUresult result, const char *call) {
  if (result == CUDA_SUCCESS) return ADCG_OK;
  const char *name = NULL;
  char message[160];
  if (!cuda->driver.cuGetErrorName || cuda->driver.cuGetErrorName(result, &name) != CUDA_SUCCESS || !name)
    name = "an error of the driver's";
  snprintf(message, sizeof message, "%s: %s (%d)", call, name, result);
  tape_set_op_error(message);
  return result == CUDA_ERROR_OUT_OF_MEMORY ? ADCG_ERR_OUT_OF_MEMORY : ADCG_ERR_DEVICE;
}

adcg_status adcg_cuda_fail(adcg_status status, const char *message) {
  tape_set_op_error(message);
  return status;
}

/* cuGetProcAddress_v2 */
typedef CUresult (*get_address_fn)(const char *symbol, void **function, int version, uint64_t flags, int *how);

static void find(get_address_fn get, const char *name, int version, void *out) {
  void *function = NULL;
  if (get(name, &function, version, 0, NULL) != CUDA_SUCCESS) function = NULL;
  memcpy(out, &function, sizeof function);
}

adcg_status adcg_cuda_find(adcg_cuda *cuda, uintptr_t get_address) {
  char message[160];
  adcg_driver *driver = &cuda->driver;
  const get_address_fn get = (get_address_fn)get_address;
#define FIND(call, version, parameters) find(get, #call, version, &driver->call);
  ADCG_CUDA_CALLS(FIND)
#undef FIND
  int found = 0;
  if (!driver->cuInit || !driver->cuDriverGetVersion)
    return adcg_cuda_fail(ADCG_ERR_UNSUPPORTED, "libcuda.so.1: older than CUDA 12.0: it finds no cuInit of that version");
  ADCG_CUDA_TRY(cuda, cuInit, 0);
  ADCG_CUDA_TRY(cuda, cuDriverGetVersion, &found);
  cuda->version = found;
  snprintf(message, sizeof message, "the driver is of CUDA %d.%d, at least 12.0 is needed", found / 1000, found % 1000 / 10);
  if (found < ADCG_CUDA_MINIMUM) return adcg_cuda_fail(ADCG_ERR_UNSUPPORTED, message);
#define NEED(call, version, parameters)                                      \
  if (version <= ADCG_CUDA_MINIMUM && !driver->call) {                       \
    snprintf(message, sizeof message, "libcuda.so.1: %s: not there", #call); \
    return adcg_cuda_fail(ADCG_ERR_DEVICE, message);                         \
  }
  ADCG_CUDA_CALLS(NEED)
#undef NEED
  return ADCG_OK;
}
