/* One CUDA device as the tape and Go see it. */
#ifndef ADCG_DEVICE_CUDA_DEVICE_H_
#define ADCG_DEVICE_CUDA_DEVICE_H_

#include "../../../kernels/cuda/cuda_ops.h"
#include "../../tape/tape.h"
#include "driver.h"

typedef struct adcg_cuda {
  tape_device on; /* first: the tape's pointer to it is one to this */
  adcg_driver driver;
  CUdevice device;
  int32_t number;
  CUcontext context;
  CUmodule module;
  const adcgk_cuda *kernels;
  int64_t granularity; /* of virtual memory, in bytes */
  int32_t version;     /* of the driver, 12040 */
  int32_t compute, multiprocessors, shared_optin;
  int64_t memory_bytes;
  char name[128];
} adcg_cuda;

/* A range of addresses, the first `mapped` bytes of which have memory. */
typedef struct adcg_cuda_arena {
  CUdeviceptr base;
  int64_t reserved, mapped;
  int64_t released; /* what was mapped before its memory was given back; 0: it was not */
} adcg_cuda_arena;

/* What the driver holds for a graph that is ready to run, measured on CUDA 13.0. */
enum { ADCG_CUDA_EXECUTABLE_BYTES = 110 * 1024, ADCG_CUDA_KERNEL_NODE_BYTES = 2560 };

/* In front of an arena: the step's counts, and then up to here nothing. */
enum { ADCG_CUDA_ARENA_HEAD = 256 };

/* ---- Errors (driver.c) */

/* ADCG_OK, or the status of a driver's error with a message: "call: CUDA_ERROR_...". */
adcg_status adcg_cuda_check(const adcg_cuda *cuda, CUresult result, const char *call);
/* Leaves a message and returns the status. */
adcg_status adcg_cuda_fail(adcg_status status, const char *message);
#define ADCG_CUDA_TRY(cuda, call, ...)                                                                      \
  do {                                                                                                      \
    const CUresult adcg_result = (cuda)->driver.call(__VA_ARGS__);                                          \
    if (__builtin_expect(adcg_result != CUDA_SUCCESS, 0)) return adcg_cuda_check(cuda, adcg_result, #call); \
  } while (0)

/* ---- Life (driver.c, open.c). On failure the message is set; close takes what open left in any state. */

/* Finds the driver's functions through cuGetProcAddress (its second variant). */
adcg_status adcg_cuda_find(adcg_cuda *cuda, uintptr_t get_address);
/* Opens device `number`, its primary context and the kernels; functions: [names] of adcgk_cuda_kernels. */
adcg_status adcg_cuda_open(adcg_cuda *cuda, int32_t number, const void *image, uintptr_t *functions);
void adcg_cuda_close(adcg_cuda *cuda);

/* ---- Memory (memory.c): each makes the device current for itself. */

adcg_status adcg_cuda_arena_create(const adcg_cuda *cuda, int64_t bytes, adcg_cuda_arena *out);
adcg_status adcg_cuda_arena_grow(const adcg_cuda *cuda, adcg_cuda_arena *arena, int64_t bytes);
/* Gives all its memory back, and puts as much behind the same addresses again. Nothing is enqueued that touches it. All or nothing. */
adcg_status adcg_cuda_arena_release(const adcg_cuda *cuda, adcg_cuda_arena *arena);
adcg_status adcg_cuda_arena_restore(const adcg_cuda *cuda, adcg_cuda_arena *arena);
void adcg_cuda_arena_free(const adcg_cuda *cuda, adcg_cuda_arena *arena);
adcg_status adcg_cuda_alloc(const adcg_cuda *cuda, int64_t bytes, uintptr_t *out);
adcg_status adcg_cuda_free(const adcg_cuda *cuda, uintptr_t address);
adcg_status adcg_cuda_copy(const adcg_cuda *cuda, uintptr_t to, uintptr_t from, int64_t bytes);

/* ---- The tape's table (stream.c, graph.c) */

void adcg_cuda_stream_calls(tape_device *on);
void adcg_cuda_graph_calls(tape_device *on);

static inline const adcg_cuda *adcg_cuda_of(const tape_device *on) { return (const adcg_cuda *)on; }

#endif /* ADCG_DEVICE_CUDA_DEVICE_H_ */
