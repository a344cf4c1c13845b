/* Initialisation, the one device, and the names of errors. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "state.h"

CUresult cuInit(unsigned flags) {
  ENTER(ANY_TIME);
  CHECK(!flags, CUDA_ERROR_INVALID_VALUE);
  CHECK(!fc.initialised || fc.pid == getpid(), CUDA_ERROR_NOT_INITIALIZED); /* a fork's child stays without a driver */
  fc.initialised = true;
  fc.pid = getpid();
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDriverGetVersion(int *version) {
  ENTER(ANY_TIME);
  CHECK(version, CUDA_ERROR_INVALID_VALUE);
  *version = fc.set.version;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  ENTER(0);
  CHECK(device, CUDA_ERROR_INVALID_VALUE);
  CHECK(ordinal == 0, CUDA_ERROR_INVALID_DEVICE);
  *device = 0;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDeviceGetCount(int *count) {
  ENTER(0);
  CHECK(count, CUDA_ERROR_INVALID_VALUE);
  *count = 1;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
  ENTER(0);
  CHECK(name && size > 0, CUDA_ERROR_INVALID_VALUE);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  snprintf(name, (size_t)size, "fakecuda");
  LEAVE(CUDA_SUCCESS);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  ENTER(0);
  CHECK(bytes, CUDA_ERROR_INVALID_VALUE);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  *bytes = fc.set.total_memory;
  LEAVE(CUDA_SUCCESS);
}

static CUresult uuid_of(CUuuid *uuid, CUdevice device) {
  if (!uuid) return CUDA_ERROR_INVALID_VALUE;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  memcpy(uuid->bytes, "fakecuda-device", 16);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
  ENTER(0);
  LEAVE(uuid_of(uuid, device));
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
  ENTER(0);
  LEAVE(uuid_of(uuid, device));
}

/* Attributes 1 to 141 exist in driver 13.0. The values are an H200's where the probes read them, and 0 where nobody asked. */
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
  static const struct {
    int attribute, value;
  } known[] = {
      {1, 1024},        /* threads of a block */
      {2, 1024},        /* block x, y, z */
      {3, 1024},        {4, 64},     {5, 2147483647},  /* grid x, y, z */
      {6, 65535},       {7, 65535},  {8, 49152},       /* shared memory of a block */
      {9, 65536},       /* constant memory */
      {10, 32},         /* warp */
      {11, 2147483647}, /* pitch */
      {12, 65536},      /* registers of a block */
      {13, 1980000},    /* clock in kHz */
      {14, 512},        /* texture alignment */
      {15, 1},          /* overlap */
      {16, 132},        /* multiprocessors */
      {31, 1},          /* concurrent kernels */
      {36, 3201000},    {37, 6144},  {38, 62914560},   /* level-2 cache */
      {39, 2048},       /* threads of a multiprocessor */
      {40, 3},          /* copy engines */
      {41, 1},          /* unified addressing */
      {75, 9},          /* compute capability */
      {76, 0},          {78, 1},     {81, 233472},     /* shared memory of a multiprocessor */
      {82, 65536},      {83, 1},     {97, 232448},     /* shared memory of a block, opt-in */
      {102, 1},         /* virtual memory management */
      {106, 32},        {111, 1024}, /* reserved shared memory of a block */
      {115, 1},         /* memory pools */
      {119, 9},
  };
  ENTER(0);
  CHECK(value && attribute >= 1 && attribute <= 141, CUDA_ERROR_INVALID_VALUE);
  CHECK(device == 0, CUDA_ERROR_INVALID_DEVICE);
  *value = 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (known[i].attribute == attribute) *value = known[i].value;
  }
  LEAVE(CUDA_SUCCESS);
}

static const struct {
  CUresult code;
  const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {CUDA_ERROR_UNSUPPORTED_LIMIT, "CUDA_ERROR_UNSUPPORTED_LIMIT", "the limit is not supported on this architecture"},
    {CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "peer access is not supported between these two devices"},
    {CUDA_ERROR_FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled"},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "a previous error ended the stream's capture"},
    {CUDA_ERROR_STREAM_CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE", "the operation would merge two captures"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture was not begun in this stream"},
    {CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "the capture has streams that did not join"},
    {CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "a dependency would cross the capture's border"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "the operation would depend on a capture implicitly"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capture"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "a capture ended in the wrong thread"},
    {CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", "the graph update was not performed"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static CUresult error_text(CUresult error, const char **out, bool name) {
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  *out = NULL;
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i].code == error) *out = name ? errors[i].name : errors[i].text;
  }
  return *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult error, const char **text) { return error_text(error, text, true); }
CUresult cuGetErrorString(CUresult error, const char **text) { return error_text(error, text, false); }
