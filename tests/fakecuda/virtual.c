/* Virtual memory: reserved addresses, physical handles, mappings, access. Recorded: a mapping is a whole handle at offset 0 (801
 * otherwise); ranges that are unmapped, or given access, may hold several mappings and holes (holes only when unmapping) but cut none;
 * a released handle can be mapped again while it is mapped somewhere; reservations that touch count as one; unmapping does not wait for
 * work, which then faults; changing the access takes so long that short work is over. One file holds the physical memory, so that a handle can be mapped at several places. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state.h"

typedef struct fc_physical {
  fc_object o;
  size_t size;
  off_t offset; /* in the file */
  bool released;
  unsigned mappings;
} fc_physical;

typedef struct reservation {
  struct reservation *next;
  CUdeviceptr base;
  size_t size;
  uint64_t made_by;
} reservation;

static reservation *reservations;
static int file = -1;
static off_t file_size;
static size_t physical_bytes;

size_t fc_physical_bytes(void) { return physical_bytes; }

static bool aligned(CUdeviceptr address, size_t size) { return size && !(address % BLOCK) && !(size % BLOCK); }

static bool reserved(CUdeviceptr address, size_t size) {
  for (CUdeviceptr at = address; at < address + size; at += BLOCK) {
    const reservation *r = reservations;
    while (r && (at < r->base || at >= r->base + r->size)) r = r->next;
    if (!r) return false;
  }
  return true;
}

CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr wanted, unsigned long long flags) {
  ENTER(0);
  (void)wanted; /* a hint, taken by nobody */
  CHECK(address && !flags && aligned(0, size) && !(alignment & (alignment - 1)), CUDA_ERROR_INVALID_VALUE);
  reservation *r = malloc(sizeof *r);
  CHECK(r, CUDA_ERROR_OUT_OF_MEMORY);
  *r = (reservation){reservations, fc_address_take(size, alignment > BLOCK ? alignment : BLOCK), size, fc.calls};
  if (!r->base) {
    free(r);
    LEAVE(CUDA_ERROR_OUT_OF_MEMORY);
  }
  reservations = r;
  *address = r->base;
  LEAVE(CUDA_SUCCESS);
}

/* The first mapping that reaches into the range. */
static fc_region *mapping_in(CUdeviceptr address, size_t size) {
  for (size_t i = 0; i < fc.num_regions; i++) {
    fc_region *region = &fc.regions[i];
    if (region->kind == FC_MAPPED && region->base < address + size && address < region->base + region->size) return region;
  }
  return NULL;
}

CUresult cuMemAddressFree(CUdeviceptr address, size_t size) {
  ENTER(0);
  for (reservation **at = &reservations; *at; at = &(*at)->next) {
    reservation *r = *at;
    if (r->base != address || r->size != size) continue;
    CHECK(!mapping_in(address, size), CUDA_ERROR_INVALID_VALUE);
    *at = r->next;
    free(r);
    LEAVE(CUDA_SUCCESS);
  }
  LEAVE(CUDA_ERROR_INVALID_VALUE);
}

static bool on_device(const CUmemLocation *location) { return location->type == 1 && location->id == 0; }

CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop, int option) {
  ENTER(0);
  CHECK(granularity && prop && prop->type == 1 && on_device(&prop->location) && (option == 0 || option == 1), CUDA_ERROR_INVALID_VALUE);
  *granularity = BLOCK;
  LEAVE(CUDA_SUCCESS);
}

static bool back(fc_physical *physical) {
  if (file < 0) file = memfd_create("fakecuda", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, file_size + (off_t)physical->size) != 0) return false;
  physical->offset = file_size;
  file_size += (off_t)physical->size;
  if (fc.set.poison < 0) return true;
  void *at = mmap(NULL, physical->size, PROT_READ | PROT_WRITE, MAP_SHARED, file, physical->offset);
  if (at == MAP_FAILED) return false;
  memset(at, fc.set.poison, physical->size);
  munmap(at, physical->size);
  return true;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags) {
  ENTER(0);
  CHECK(handle && prop && !flags && aligned(0, size), CUDA_ERROR_INVALID_VALUE);
  CHECK(prop->type == 1 && on_device(&prop->location), CUDA_ERROR_INVALID_VALUE);
  size_t used = fc_memory_used();
  CHECK(used <= fc.set.total_memory && size <= fc.set.total_memory - used, CUDA_ERROR_OUT_OF_MEMORY);
  fc_physical *physical = fc_new(FC_PHYSICAL, sizeof *physical);
  CHECK(physical, CUDA_ERROR_OUT_OF_MEMORY);
  physical->size = size;
  physical->o.alive = back(physical);
  CHECK(physical->o.alive, CUDA_ERROR_OUT_OF_MEMORY);
  physical_bytes += size;
  *handle = (CUmemGenericAllocationHandle)(uintptr_t)physical;
  LEAVE(CUDA_SUCCESS);
}

static void drop_if_unused(fc_physical *physical) {
  if (!physical->released || physical->mappings || !physical->o.alive) return;
  fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, physical->offset, (off_t)physical->size);
  physical_bytes -= physical->size;
  physical->o.alive = false;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  ENTER(0);
  fc_physical *physical = fc_live((const void *)(uintptr_t)handle, FC_PHYSICAL);
  CHECK(physical && !physical->released, CUDA_ERROR_INVALID_VALUE);
  physical->released = true;
  drop_if_unused(physical);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuMemMap(CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags) {
  ENTER(0);
  fc_physical *physical = fc_live((const void *)(uintptr_t)handle, FC_PHYSICAL);
  CHECK(physical && !flags && aligned(address, size), CUDA_ERROR_INVALID_VALUE);
  CHECK(!offset && size == physical->size, CUDA_ERROR_NOT_SUPPORTED);
  CHECK(reserved(address, size) && !mapping_in(address, size), CUDA_ERROR_INVALID_VALUE);
  CHECK(fc_region_insert((fc_region){.base = address, .size = size, .kind = FC_MAPPED, .physical = physical}), CUDA_ERROR_OUT_OF_MEMORY);
  physical->mappings++;
  LEAVE(CUDA_SUCCESS);
}

static bool inside(const fc_region *region, CUdeviceptr address, size_t size) {
  return region->base >= address && region->base + region->size <= address + size;
}

static void unmap(fc_region *region) {
  fc_physical *physical = region->physical;
  mmap((void *)(uintptr_t)region->base, region->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  fc_region_remove(region);
  physical->mappings--;
  drop_if_unused(physical);
}

CUresult cuMemUnmap(CUdeviceptr address, size_t size) {
  ENTER(0);
  CHECK(aligned(address, size) && reserved(address, size), CUDA_ERROR_INVALID_VALUE);
  for (size_t i = 0; i < fc.num_regions; i++) {
    const fc_region *region = &fc.regions[i];
    if (region->kind != FC_MAPPED || region->base >= address + size || region->base + region->size <= address) continue;
    CHECK(inside(region, address, size), CUDA_ERROR_INVALID_VALUE);
  }
  for (fc_region *region; (region = mapping_in(address, size)) != NULL;) unmap(region);
  LEAVE(CUDA_SUCCESS);
}

static bool expose(fc_region *region, int flags) {
  int access = flags == 3 ? PROT_READ | PROT_WRITE : flags == 1 ? PROT_READ : PROT_NONE;
  void *at = (void *)(uintptr_t)region->base;
  if (mmap(at, region->size, access, MAP_SHARED | MAP_FIXED, file, region->physical->offset) == MAP_FAILED) return false;
  region->readable = flags & 1;
  region->writable = flags == 3;
  return true;
}

static void progress(void *object, void *arg) {
  (void)arg;
  fc_context *context = object;
  if (!context->o.alive || context->fault) return;
  for (fc_stream *stream = context->streams; stream; stream = stream->sibling) {
    if (stream->last) fc_poll(stream->last);
  }
}

CUresult cuMemSetAccess(CUdeviceptr address, size_t size, const CUmemAccessDesc *access, size_t count) {
  ENTER(0);
  CHECK(access && count && aligned(address, size), CUDA_ERROR_INVALID_VALUE);
  for (size_t i = 0; i < count; i++) {
    CHECK(on_device(&access[i].location), CUDA_ERROR_INVALID_VALUE);
    CHECK(access[i].flags == 0 || access[i].flags == 1 || access[i].flags == 3, CUDA_ERROR_INVALID_VALUE);
  }
  for (CUdeviceptr at = address; at < address + size;) {
    const fc_region *region = fc_region_at(at);
    CHECK(region && region->kind == FC_MAPPED && inside(region, address, size), CUDA_ERROR_INVALID_VALUE);
    at = region->base + region->size;
  }
  fc.now += 100000;
  fc_each(FC_CONTEXT, progress, NULL);
  for (CUdeviceptr at = address; at < address + size;) {
    fc_region *region = fc_region_at(at);
    CHECK(expose(region, access[count - 1].flags), CUDA_ERROR_OUT_OF_MEMORY);
    at = region->base + region->size;
  }
  LEAVE(CUDA_SUCCESS);
}

void fc_each_reservation(void (*visit)(size_t size, uint64_t made_by, void *arg), void *arg) {
  for (const reservation *r = reservations; r; r = r->next) visit(r->size, r->made_by, arg);
}

void fc_virtual_end(void) {
  for (size_t i = fc.num_regions; i-- > 0;) {
    fc_region *region = &fc.regions[i];
    mmap((void *)(uintptr_t)region->base, region->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
  free(fc.regions); /* mappings only, by now */
  fc.regions = NULL;
  fc.num_regions = fc.cap_regions = 0;
  while (reservations) {
    reservation *r = reservations;
    reservations = r->next;
    free(r);
  }
  if (file >= 0) close(file);
  file = -1;
  file_size = 0;
  physical_bytes = 0;
}
