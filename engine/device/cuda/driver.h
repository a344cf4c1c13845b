/* The CUDA driver, found at run time: what is used of it, declared here. No header of CUDA's is needed to build, and no library to load.
 *
 * Facts (names, layouts, numbers) are those of the CUDA driver API's documentation; tests/fakecuda holds what was recorded of it. */
#ifndef ADCG_DEVICE_CUDA_DRIVER_H_
#define ADCG_DEVICE_CUDA_DRIVER_H_

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef unsigned long long CUmemHandle;

enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_OUT_OF_MEMORY = 2 };
enum { CU_STREAM_NON_BLOCKING = 1, CU_EVENT_DISABLE_TIMING = 2 };
enum { CU_STREAM_CAPTURE_MODE_GLOBAL = 0, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1, CU_STREAM_CAPTURE_MODE_RELAXED = 2 };
enum { CU_STREAM_CAPTURE_STATUS_ACTIVE = 1 };
enum { CU_GRAPH_NODE_KERNEL = 0, CU_GRAPH_NODE_MEM_ALLOC = 10, CU_GRAPH_NODE_MEM_FREE = 11 };
enum { CU_FUNC_SHARED_SIZE_BYTES = 1, CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8 };
enum {
  CU_DEVICE_MULTIPROCESSORS = 16,
  CU_DEVICE_UNIFIED_ADDRESSING = 41,
  CU_DEVICE_COMPUTE_MAJOR = 75,
  CU_DEVICE_COMPUTE_MINOR = 76,
  CU_DEVICE_SHARED_MEMORY_OPTIN = 97,
  CU_DEVICE_VIRTUAL_MEMORY = 102
};

typedef struct CUkernelNodeParams { /* CUDA_KERNEL_NODE_PARAMS, the second version */
  CUfunction function;
  unsigned grid[3], block[3], shared_bytes;
  void **params, **extra;
  void *kernel;
  CUcontext context;
} CUkernelNodeParams;

typedef struct CUmemLocation {
  int type, id; /* 1: a device's */
} CUmemLocation;

typedef struct CUmemAllocationProp {
  int type, handle_types; /* 1: pinned */
  CUmemLocation location;
  void *win32;
  unsigned char flags[8];
} CUmemAllocationProp;

typedef struct CUmemAccessDesc {
  CUmemLocation location;
  int flags; /* 3: read and write */
} CUmemAccessDesc;

/* The oldest driver that is driven: of CUDA 12.0. */
#define ADCG_CUDA_MINIMUM 12000

/* F(name, the version whose variant is meant, its parameters). cuGetProcAddress gives the variant of that version. */
#define ADCG_CUDA_CALLS(F)                                                                                                                \
  F(cuInit, 12000, (unsigned flags))                                                                                                      \
  F(cuDriverGetVersion, 12000, (int *version))                                                                                            \
  F(cuGetErrorName, 12000, (CUresult error, const char **name))                                                                           \
  F(cuDeviceGetCount, 12000, (int *count))                                                                                                \
  F(cuDeviceGet, 12000, (CUdevice * device, int ordinal))                                                                                 \
  F(cuDeviceGetName, 12000, (char *name, int length, CUdevice device))                                                                    \
  F(cuDeviceGetAttribute, 12000, (int *value, int attribute, CUdevice device))                                                            \
  F(cuDeviceTotalMem, 12000, (size_t *bytes, CUdevice device))                                                                            \
  F(cuDevicePrimaryCtxRetain, 12000, (CUcontext * context, CUdevice device))                                                              \
  F(cuDevicePrimaryCtxRelease, 12000, (CUdevice device))                                                                                  \
  F(cuCtxGetCurrent, 12000, (CUcontext * context))                                                                                        \
  F(cuCtxPushCurrent, 12000, (CUcontext context))                                                                                         \
  F(cuCtxPopCurrent, 12000, (CUcontext * context))                                                                                        \
  F(cuModuleLoadData, 12000, (CUmodule * module, const void *image))                                                                      \
  F(cuModuleUnload, 12000, (CUmodule module))                                                                                             \
  F(cuModuleGetFunction, 12000, (CUfunction * function, CUmodule module, const char *name))                                               \
  F(cuFuncGetAttribute, 12000, (int *value, int attribute, CUfunction function))                                                          \
  F(cuFuncSetAttribute, 12000, (CUfunction function, int attribute, int value))                                                           \
  F(cuLaunchKernel, 12000,                                                                                                                \
    (CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, CUstream stream, \
     void **params, void **extra))                                                                                                        \
  F(cuMemAlloc, 12000, (CUdeviceptr * address, size_t bytes))                                                                             \
  F(cuMemFree, 12000, (CUdeviceptr address))                                                                                              \
  F(cuMemcpy, 12000, (CUdeviceptr to, CUdeviceptr from, size_t bytes))                                                                    \
  F(cuMemcpyAsync, 12000, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                                              \
  F(cuMemsetD8Async, 12000, (CUdeviceptr at, unsigned char byte, size_t bytes, CUstream stream))                                          \
  F(cuMemGetAllocationGranularity, 12000, (size_t *bytes, const CUmemAllocationProp *prop, int option))                                   \
  F(cuMemAddressReserve, 12000, (CUdeviceptr * address, size_t bytes, size_t alignment, CUdeviceptr wanted, unsigned long long flags))    \
  F(cuMemAddressFree, 12000, (CUdeviceptr address, size_t bytes))                                                                         \
  F(cuMemCreate, 12000, (CUmemHandle * handle, size_t bytes, const CUmemAllocationProp *prop, unsigned long long flags))                  \
  F(cuMemRelease, 12000, (CUmemHandle handle))                                                                                            \
  F(cuMemMap, 12000, (CUdeviceptr address, size_t bytes, size_t offset, CUmemHandle handle, unsigned long long flags))                    \
  F(cuMemUnmap, 12000, (CUdeviceptr address, size_t bytes))                                                                               \
  F(cuMemSetAccess, 12000, (CUdeviceptr address, size_t bytes, const CUmemAccessDesc *access, size_t count))                              \
  F(cuStreamCreate, 12000, (CUstream * stream, unsigned flags))                                                                           \
  F(cuStreamDestroy, 12000, (CUstream stream))                                                                                            \
  F(cuStreamSynchronize, 12000, (CUstream stream))                                                                                        \
  F(cuStreamWaitEvent, 12000, (CUstream stream, CUevent event, unsigned flags))                                                           \
  F(cuStreamBeginCapture, 12000, (CUstream stream, int mode))                                                                             \
  F(cuStreamEndCapture, 12000, (CUstream stream, CUgraph * graph))                                                                        \
  F(cuStreamGetCaptureInfo, 12000,                                                                                                        \
    (CUstream stream, int *status, uint64_t *id, CUgraph *graph, const CUgraphNode **dependencies, size_t *count))                        \
  F(cuEventCreate, 12000, (CUevent * event, unsigned flags))                                                                              \
  F(cuEventDestroy, 12000, (CUevent event))                                                                                               \
  F(cuEventRecord, 12000, (CUevent event, CUstream stream))                                                                               \
  F(cuEventSynchronize, 12000, (CUevent event))                                                                                           \
  F(cuGraphGetNodes, 12000, (CUgraph graph, CUgraphNode * nodes, size_t *count))                                                          \
  F(cuGraphNodeGetType, 12000, (CUgraphNode node, int *type))                                                                             \
  F(cuGraphDestroy, 12000, (CUgraph graph))                                                                                               \
  F(cuGraphInstantiateWithFlags, 12000, (CUgraphExec * executable, CUgraph graph, unsigned long long flags))                              \
  F(cuGraphExecDestroy, 12000, (CUgraphExec executable))                                                                                  \
  F(cuGraphUpload, 12000, (CUgraphExec executable, CUstream stream))                                                                      \
  F(cuGraphLaunch, 12000, (CUgraphExec executable, CUstream stream))                                                                      \
  F(cuGraphExecKernelNodeSetParams, 12000, (CUgraphExec executable, CUgraphNode node, const CUkernelNodeParams *params))                  \
  /* younger than the oldest driver: NULL where it is not there */                                                                        \
  F(cuFuncGetParamInfo, 12040, (CUfunction function, size_t index, size_t *offset, size_t *bytes))

#define ADCG_CUDA_FIELD(name, version, parameters) CUresult(*name) parameters;
typedef struct adcg_driver {
  ADCG_CUDA_CALLS(ADCG_CUDA_FIELD)
} adcg_driver;
#undef ADCG_CUDA_FIELD

#endif /* ADCG_DEVICE_CUDA_DRIVER_H_ */
