/* Memory: arenas as ranges of virtual addresses that get their memory as steps need it, and blocks for the caller. */
#include <string.h>

#include "device.h"

static int64_t round_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

/* Runs `call` with the device current, and returns its status. */
#define ON_DEVICE(cuda, call)                               \
  void *was = NULL;                                         \
  adcg_status status = (cuda)->on.enter(&(cuda)->on, &was); \
  if (status) return status;                                \
  status = call;                                            \
  (cuda)->on.leave(&(cuda)->on, was);                       \
  return status

/* Puts memory behind the bytes [arena->mapped, upto). All or nothing. */
static adcg_status map(const adcg_cuda *cuda, adcg_cuda_arena *arena, int64_t upto) {
  const adcg_driver *driver = &cuda->driver;
  const size_t bytes = (size_t)(upto - arena->mapped);
  const CUdeviceptr at = arena->base + (CUdeviceptr)arena->mapped;
  const CUmemAllocationProp prop = {.type = 1, .location = {1, cuda->device}};
  const CUmemAccessDesc access = {{1, cuda->device}, 3};
  CUmemHandle handle = 0;
  ADCG_CUDA_TRY(cuda, cuMemCreate, &handle, bytes, &prop, 0);
  adcg_status status = adcg_cuda_check(cuda, driver->cuMemMap(at, bytes, 0, handle, 0), "cuMemMap");
  if (!status) {
    status = adcg_cuda_check(cuda, driver->cuMemSetAccess(at, bytes, &access, 1), "cuMemSetAccess");
    if (status) driver->cuMemUnmap(at, bytes);
  }
  driver->cuMemRelease(handle); /* the mapping keeps the memory */
  if (!status) arena->mapped = upto;
  return status;
}

static adcg_status reserve(const adcg_cuda *cuda, int64_t bytes, adcg_cuda_arena *out) {
  out->reserved = round_up(bytes + ADCG_CUDA_ARENA_HEAD, cuda->granularity);
  ADCG_CUDA_TRY(cuda, cuMemAddressReserve, &out->base, (size_t)out->reserved, 0, 0, 0);
  adcg_status status = map(cuda, out, cuda->granularity); /* the counts in front are there from the start */
  if (status) cuda->driver.cuMemAddressFree(out->base, (size_t)out->reserved);
  return status;
}

adcg_status adcg_cuda_arena_create(const adcg_cuda *cuda, int64_t bytes, adcg_cuda_arena *out) {
  *out = (adcg_cuda_arena){0, 0, 0, 0};
  ON_DEVICE(cuda, reserve(cuda, bytes, out));
}

adcg_status adcg_cuda_arena_grow(const adcg_cuda *cuda, adcg_cuda_arena *arena, int64_t bytes) {
  const int64_t upto = round_up(bytes + ADCG_CUDA_ARENA_HEAD, cuda->granularity);
  if (upto <= arena->mapped) return ADCG_OK;
  ON_DEVICE(cuda, map(cuda, arena, upto));
}

/* With the mappings goes the memory, whose handles nobody holds: one call for all of them, so that it is all or nothing. */
static adcg_status unmap(const adcg_cuda *cuda, adcg_cuda_arena *arena) {
  ADCG_CUDA_TRY(cuda, cuMemUnmap, arena->base, (size_t)arena->mapped);
  arena->released = arena->mapped;
  arena->mapped = 0;
  return ADCG_OK;
}

static adcg_status map_again(const adcg_cuda *cuda, adcg_cuda_arena *arena) {
  adcg_status status = map(cuda, arena, arena->released);
  if (!status) arena->released = 0;
  return status;
}

adcg_status adcg_cuda_arena_release(const adcg_cuda *cuda, adcg_cuda_arena *arena) { ON_DEVICE(cuda, unmap(cuda, arena)); }
adcg_status adcg_cuda_arena_restore(const adcg_cuda *cuda, adcg_cuda_arena *arena) { ON_DEVICE(cuda, map_again(cuda, arena)); }

static adcg_status dissolve(const adcg_cuda *cuda, adcg_cuda_arena *arena) {
  if (arena->mapped) cuda->driver.cuMemUnmap(arena->base, (size_t)arena->mapped);
  cuda->driver.cuMemAddressFree(arena->base, (size_t)arena->reserved);
  return ADCG_OK;
}

static adcg_status free_arena(const adcg_cuda *cuda, adcg_cuda_arena *arena) { ON_DEVICE(cuda, dissolve(cuda, arena)); }

void adcg_cuda_arena_free(const adcg_cuda *cuda, adcg_cuda_arena *arena) {
  if (arena->base) free_arena(cuda, arena);
  *arena = (adcg_cuda_arena){0, 0, 0, 0};
}

static adcg_status alloc(const adcg_cuda *cuda, int64_t bytes, uintptr_t *out) {
  CUdeviceptr address = 0;
  ADCG_CUDA_TRY(cuda, cuMemAlloc, &address, (size_t)bytes);
  *out = (uintptr_t)address;
  return ADCG_OK;
}

static adcg_status give_back(const adcg_cuda *cuda, uintptr_t address) {
  ADCG_CUDA_TRY(cuda, cuMemFree, address);
  return ADCG_OK;
}

static adcg_status copy(const adcg_cuda *cuda, uintptr_t to, uintptr_t from, int64_t bytes) {
  ADCG_CUDA_TRY(cuda, cuMemcpy, to, from, (size_t)bytes);
  return ADCG_OK;
}

adcg_status adcg_cuda_alloc(const adcg_cuda *cuda, int64_t bytes, uintptr_t *out) { ON_DEVICE(cuda, alloc(cuda, bytes, out)); }
adcg_status adcg_cuda_free(const adcg_cuda *cuda, uintptr_t address) { ON_DEVICE(cuda, give_back(cuda, address)); }
adcg_status adcg_cuda_copy(const adcg_cuda *cuda, uintptr_t to, uintptr_t from, int64_t bytes) {
  ON_DEVICE(cuda, copy(cuda, to, from, bytes));
}
