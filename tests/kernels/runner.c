/* Runs one op of kernels/cuda or kernels/host at a time, for tests and benchmarks in Python (kernel_runner.py): linked with both libraries'
 * launch functions, and with whatever libcuda it is told to load, the stand-in's or a real one. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/cuda/cuda_ops.h"
#include "../../kernels/host/host.h"

#define EXPORT __attribute__((visibility("default")))

typedef unsigned long long device_address;

static struct {
  int (*init)(unsigned);
  int (*device_get)(int *, int);
  int (*device_attribute)(int *, int, int);
  int (*device_name)(char *, int, int);
  int (*context_retain)(void **, int);
  int (*context_set)(void *);
  int (*module_load)(void **, const void *);
  int (*function)(void **, void *, const char *);
  int (*function_attribute)(int *, int, void *);
  int (*set_function_attribute)(void *, int, int);
  int (*stream_create)(void **, unsigned);
  int (*stream_synchronize)(void *);
  int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
  int (*alloc)(device_address *, size_t);
  int (*release)(device_address);
  int (*up)(device_address, const void *, size_t);
  int (*down)(void *, device_address, size_t);
  int (*event_create)(void **, unsigned);
  int (*event_record)(void *, void *);
  int (*event_synchronize)(void *);
  int (*event_elapsed)(float *, void *, void *);
} cu;

static const struct {
  const char *name;
  void *slot;
} symbols[] = {
    {"cuInit", &cu.init},
    {"cuDeviceGet", &cu.device_get},
    {"cuDeviceGetAttribute", &cu.device_attribute},
    {"cuDeviceGetName", &cu.device_name},
    {"cuDevicePrimaryCtxRetain", &cu.context_retain},
    {"cuCtxSetCurrent", &cu.context_set},
    {"cuModuleLoadData", &cu.module_load},
    {"cuModuleGetFunction", &cu.function},
    {"cuFuncGetAttribute", &cu.function_attribute},
    {"cuFuncSetAttribute", &cu.set_function_attribute},
    {"cuStreamCreate", &cu.stream_create},
    {"cuStreamSynchronize", &cu.stream_synchronize},
    {"cuLaunchKernel", &cu.launch},
    {"cuMemAlloc_v2", &cu.alloc},
    {"cuMemFree_v2", &cu.release},
    {"cuMemcpyHtoD_v2", &cu.up},
    {"cuMemcpyDtoH_v2", &cu.down},
    {"cuEventCreate", &cu.event_create},
    {"cuEventRecord", &cu.event_record},
    {"cuEventSynchronize", &cu.event_synchronize},
    {"cuEventElapsedTime", &cu.event_elapsed},
};

static void *functions[1024];
static adcgk_cuda device = {.functions = functions};
static void *stream;
static device_address device_batch;
static char message[512];
static int driver_status;

static void set_error(const char *text) { snprintf(message, sizeof message, "%s", text); }

static adcg_status launch(const adcg_launcher *launcher, const adcg_kernel_launch *l) {
  (void)launcher;
  driver_status = cu.launch(l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2], l->shared_bytes, stream,
                            l->params, NULL);
  return driver_status ? ADCG_ERR_DEVICE : ADCG_OK;
}
static const adcg_launcher launcher = {launch};

static int failed(const char *what, int status) {
  if (status) snprintf(message, sizeof message, "%s: CUDA status %d", what, status);
  return status;
}

EXPORT const char *runner_message(void) { return message; }

/* Loads the driver and the image; 0 if all is well, else runner_message says what is not. */
EXPORT int runner_open(const char *libcuda, const void *image) {
  void *library = dlopen(libcuda, RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    set_error(dlerror());
    return -1;
  }
  for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
    void *found = dlsym(library, symbols[i].name);
    if (!found) {
      set_error(symbols[i].name);
      return -1;
    }
    memcpy(symbols[i].slot, &found, sizeof found);
  }
  int number = 0;
  void *context = NULL, *module = NULL;
  if (failed("cuInit", cu.init(0)) || failed("cuDeviceGet", cu.device_get(&number, 0)) ||
      failed("cuDevicePrimaryCtxRetain", cu.context_retain(&context, number)) || failed("cuCtxSetCurrent", cu.context_set(context)) ||
      failed("cuModuleLoadData", cu.module_load(&module, image)) || failed("cuStreamCreate", cu.stream_create(&stream, 1)) ||
      failed("cuMemAlloc", cu.alloc(&device_batch, sizeof(adcg_batch))))
    return -1;
  int major = 0, minor = 0, shared = 0, fixed = 0;
  cu.device_attribute(&shared, 97, number); /* what a block may have that asks for it */
  for (int i = 0; adcgk_cuda_kernels[i]; i++) {
    if (failed(adcgk_cuda_kernels[i], cu.function(&functions[i], module, adcgk_cuda_kernels[i])) ||
        failed("cuFuncGetAttribute", cu.function_attribute(&fixed, 1, functions[i])) ||
        failed("cuFuncSetAttribute", cu.set_function_attribute(functions[i], 8, shared - fixed)))
      return -1;
  }
  cu.device_attribute(&device.multiprocessors, 16, number);
  cu.device_attribute(&major, 75, number);
  cu.device_attribute(&minor, 76, number);
  device.compute = 10 * major + minor;
  return 0;
}

EXPORT const char *runner_device(void) {
  static char name[128];
  if (cu.device_name(name, sizeof name, 0)) return "";
  return name;
}

/* Launches count on so many multiprocessors; returns what they counted on before. */
EXPORT int runner_multiprocessors(int count) {
  const int before = device.multiprocessors;
  device.multiprocessors = count;
  return before;
}

/* Memory of the device, or of the heap. 0: there is none left. */
EXPORT device_address runner_alloc(int on_cuda, size_t bytes) {
  device_address address = 0;
  if (on_cuda) return cu.alloc(&address, bytes) ? 0 : address;
  return (device_address)(uintptr_t)aligned_alloc(64, (bytes + 63) / 64 * 64);
}
EXPORT void runner_free(int on_cuda, device_address address) {
  if (on_cuda)
    cu.release(address);
  else
    free((void *)(uintptr_t)address);
}
EXPORT int runner_up(int on_cuda, device_address to, const void *from, size_t bytes) {
  if (on_cuda) return cu.up(to, from, bytes);
  memcpy((void *)(uintptr_t)to, from, bytes);
  return 0;
}
EXPORT int runner_down(int on_cuda, void *to, device_address from, size_t bytes) {
  if (on_cuda) return cu.down(to, from, bytes);
  memcpy(to, (const void *)(uintptr_t)from, bytes);
  return 0;
}

/* A tensor as Python writes it down. */
typedef struct runner_tensor {
  device_address address;
  int64_t shape[ADCG_MAX_NDIM], strides[ADCG_MAX_NDIM]; /* strides in elements */
  int32_t dtype, ndim, strided, unused;
} runner_tensor;

static void tensors_of(const runner_tensor *from, int32_t count, int on_cuda, DLTensor *to, adcg_type *types) {
  for (int32_t i = 0; i < count; i++) {
    to[i] = (DLTensor){.data = (void *)(uintptr_t)from[i].address,
                       .device = {on_cuda ? kDLCUDA : kDLCPU, 0},
                       .ndim = from[i].ndim,
                       .dtype = adcg_dtype_to_dlpack(from[i].dtype),
                       .shape = (int64_t *)(uintptr_t)from[i].shape,
                       .strides = from[i].strided ? (int64_t *)(uintptr_t)from[i].strides : NULL};
    types[i] = (adcg_type){.dtype = from[i].dtype, .ndim = from[i].ndim};
    for (int32_t d = 0; d < from[i].ndim; d++) types[i].dims[d].constant = from[i].shape[d];
  }
}

static adcg_status time_of(adcg_op_launch_fn run, const adcg_op_call *call, void *node, int32_t repeats, float *milliseconds) {
  void *begin = NULL, *end = NULL;
  if (failed("cuEventCreate", cu.event_create(&begin, 0)) || failed("cuEventCreate", cu.event_create(&end, 0))) return ADCG_ERR_DEVICE;
  cu.event_record(begin, stream);
  adcg_status status = ADCG_OK;
  for (int32_t i = 0; i < repeats && status == ADCG_OK; i++) status = run(call, node);
  cu.event_record(end, stream);
  cu.event_synchronize(end);
  cu.event_elapsed(milliseconds, begin, end);
  return status;
}

/* Runs an op once, and then, if there is room for the milliseconds of all of them, `repeats` times more. Tensors: inputs, then
 * outputs. Returns its status; -1: there is no such op. */
EXPORT int runner_run(int on_cuda, const char *name, const runner_tensor *tensors, int32_t num_inputs, int32_t num_outputs,
                      const adcg_attr *attrs, int32_t num_attrs, const adcg_batch *batch, int64_t tokens, int64_t seqs, int32_t repeats,
                      float *milliseconds) {
  DLTensor all[72];
  adcg_type types[72];
  message[0] = 0;
  tensors_of(tensors, num_inputs + num_outputs, on_cuda, all, types);
  adcg_op_call call = {.struct_size = sizeof call,
                       .phase = ADCG_PHASE_REPLAY,
                       .num_inputs = num_inputs,
                       .num_outputs = num_outputs,
                       .num_attrs = num_attrs,
                       .tokens = tokens,
                       .seqs = seqs,
                       .batch = batch,
                       .inputs = all,
                       .outputs = all + num_inputs,
                       .attrs = attrs,
                       .set_error = set_error};
  const adcgk_cuda_op *of_cuda = on_cuda ? adcgk_cuda_find(name) : NULL;
  const adcgk_op *of_host = on_cuda ? NULL : adcgk_find(name);
  if (!of_cuda && !of_host) return -1;
  adcgk_node host_node = {NULL, NULL};
  adcgk_cuda_node cuda_node = {&device, NULL};
  void **state = on_cuda ? &cuda_node.state : &host_node.state, *node = on_cuda ? (void *)&cuda_node : (void *)&host_node;
  adcg_status status = ADCG_OK;
  if (on_cuda ? of_cuda->prepare != NULL : of_host->prepare != NULL)
    status = (on_cuda ? of_cuda->prepare : of_host->prepare)(attrs, num_attrs, types, num_inputs, state, set_error);
  const adcg_op_launch_fn run = on_cuda ? of_cuda->launch : of_host->launch;
  const adcg_op_workspace_fn workspace = on_cuda ? of_cuda->workspace : of_host->workspace;
  if (status == ADCG_OK && workspace) status = workspace(&call, &call.workspace_bytes, node);
  call.workspace_bytes *= 4; /* a plan may hold more than an op asks for */
  if (call.workspace_bytes) call.workspace = (void *)(uintptr_t)runner_alloc(on_cuda, call.workspace_bytes);
  if (on_cuda) {
    call.stream = stream;
    call.launcher = &launcher;
    call.device_batch = (const adcg_batch *)(uintptr_t)device_batch;
    if (status == ADCG_OK) status = adcgk_cuda_set_batch(&device, &launcher, batch, (adcg_batch *)(uintptr_t)device_batch);
  }
  if (status == ADCG_OK && run) status = run(&call, node);
  if (on_cuda && failed("cuStreamSynchronize", cu.stream_synchronize(stream))) status = ADCG_ERR_DEVICE;
  if (status == ADCG_OK && milliseconds) status = time_of(run, &call, node, repeats, milliseconds);
  if (call.workspace) runner_free(on_cuda, (device_address)(uintptr_t)call.workspace);
  free(*state);
  return status;
}

/* Zeroes the tail of a tensor whose first dim is tokens * dim[0] + seqs * dim[1] + dim[2]. */
EXPORT int runner_zero_tail(const runner_tensor *tensor, const int64_t *dim, const adcg_batch *batch) {
  adcg_batch *to = (adcg_batch *)(uintptr_t)device_batch;
  adcg_type type = {.dtype = tensor->dtype, .ndim = tensor->ndim};
  type.dims[0] = (adcg_dim){dim[0], dim[1], dim[2]};
  for (int32_t d = 1; d < tensor->ndim; d++) type.dims[d].constant = tensor->shape[d];
  adcg_status status = adcgk_cuda_set_batch(&device, &launcher, batch, to);
  if (status == ADCG_OK)
    status = adcgk_cuda_zero_tail(&device, &launcher, to, (void *)(uintptr_t)tensor->address, &type,
                                  tensor->strided ? tensor->strides : NULL, tensor->shape[0]);
  return failed("cuStreamSynchronize", cu.stream_synchronize(stream)) ? ADCG_ERR_DEVICE : status;
}
