/* Which addresses there are. Device addresses are taken from one reservation of the process, each once, so that a stale one never meets
 * somebody else's memory: what is not allocated or mapped cannot be touched, and after each allocation lies a page that never can. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "state.h"

enum { PAGE = 4096 };

static struct {
  CUdeviceptr base, next, end;
} space;

CUdeviceptr fc_address_take(size_t bytes, size_t alignment) {
  if (!space.base) {
    for (size_t size = (size_t)1 << 42; size >= (size_t)1 << 34; size /= 2) {
      void *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at == MAP_FAILED) continue;
      madvise(at, size, MADV_DONTDUMP);
      space.base = space.next = (CUdeviceptr)(uintptr_t)at;
      space.end = space.base + size;
      break;
    }
    if (!space.base) return 0;
  }
  CUdeviceptr at = (space.next + alignment - 1) & ~(CUdeviceptr)(alignment - 1);
  if (at > space.end || bytes > space.end - at) return 0;
  space.next = at + bytes;
  return at;
}

/* The first region that ends behind the address. */
static size_t place_of(CUdeviceptr address) {
  size_t low = 0, high = fc.num_regions;
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (fc.regions[mid].base + fc.regions[mid].size <= address)
      low = mid + 1;
    else
      high = mid;
  }
  return low;
}

fc_region *fc_region_at(CUdeviceptr address) {
  size_t at = place_of(address);
  return at < fc.num_regions && fc.regions[at].base <= address ? &fc.regions[at] : NULL;
}

static bool covered(CUdeviceptr address, size_t bytes, bool write, bool by_name) {
  while (bytes) {
    const fc_region *region = fc_region_at(address);
    if (!region || !(write ? region->writable : region->readable) || (by_name && region->closing)) return false;
    size_t rest = (size_t)(region->base + region->size - address);
    if (bytes <= rest) return true;
    address += rest;
    bytes -= rest;
  }
  return true;
}

bool fc_accessible(CUdeviceptr address, size_t bytes, bool write) { return covered(address, bytes, write, false); }
bool fc_nameable(CUdeviceptr address, size_t bytes, bool write) { return covered(address, bytes, write, true); }

fc_region *fc_region_insert(fc_region region) {
  if (fc.num_regions == fc.cap_regions) {
    size_t larger = fc.cap_regions ? 2 * fc.cap_regions : 64;
    fc_region *grown = realloc(fc.regions, larger * sizeof *grown);
    if (!grown) return NULL;
    fc.regions = grown;
    fc.cap_regions = larger;
  }
  size_t at = place_of(region.base);
  memmove(fc.regions + at + 1, fc.regions + at, (fc.num_regions - at) * sizeof *fc.regions);
  region.made_by = fc.calls;
  fc.regions[at] = region;
  fc.num_regions++;
  return &fc.regions[at];
}

void fc_region_remove(fc_region *region) {
  size_t at = (size_t)(region - fc.regions);
  memmove(region, region + 1, (fc.num_regions - at - 1) * sizeof *region);
  fc.num_regions--;
}

static bool protect(CUdeviceptr base, size_t size, bool read, bool write) {
  int access = (read ? PROT_READ : 0) | (write ? PROT_WRITE : 0);
  size_t whole = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
  void *at = (void *)(uintptr_t)base;
  if (access) return mprotect(at, whole, access) == 0;
  return mmap(at, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED; /* gives pages back */
}

bool fc_region_expose(CUdeviceptr base, size_t size, bool read, bool write) {
  fc_region *region = fc_region_at(base);
  if (!region || !protect(base, size, read, write)) return false;
  if (write && fc.set.poison >= 0) memset((void *)(uintptr_t)base, fc.set.poison, size);
  region->readable = read;
  region->writable = write;
  return true;
}

CUresult fc_region_new(fc_context *context, size_t bytes, fc_region_kind kind, CUdeviceptr *address) {
  size_t total = fc.set.total_memory, used = fc_memory_used();
  if (used > total || bytes > total - used) return CUDA_ERROR_OUT_OF_MEMORY;
  size_t whole = ((bytes + PAGE - 1) & ~(size_t)(PAGE - 1)) + PAGE;
  CUdeviceptr base = fc_address_take(whole, PAGE);
  if (!base) return CUDA_ERROR_OUT_OF_MEMORY;
  if (!fc_region_insert((fc_region){.base = base, .size = bytes, .kind = kind, .context = context})) return CUDA_ERROR_OUT_OF_MEMORY;
  if (kind != FC_GRAPH_ALLOC && !fc_region_expose(base, bytes, true, true)) {
    fc_region_remove(fc_region_at(base));
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  *address = base;
  return CUDA_SUCCESS;
}

void fc_region_free(fc_region *region) {
  if (region->kind == FC_HOST)
    free((void *)(uintptr_t)region->base);
  else
    protect(region->base, region->size, false, false);
  fc_region_remove(region);
}

void fc_memory_end(fc_context *context) {
  for (size_t i = fc.num_regions; i-- > 0;) {
    fc_region *region = &fc.regions[i];
    if (region->kind != FC_MAPPED && (!context || region->context == context)) fc_region_free(region);
  }
  if (context || fc.num_regions) return;
  free(fc.regions);
  fc.regions = NULL;
  fc.cap_regions = 0;
}
