/* Allocation and what it costs. Recorded: small allocations come out of blocks of 2 MiB, large ones and physical handles are whole blocks;
 * an executable's memory comes back to later executables only. cuMemFree waits for the context's work, as the driver does; what
 * cuMemFreeAsync took cannot be named any more at once and is gone when its stream gets there. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

static struct {
  size_t executables, held;
} cost;

static size_t blocks(size_t bytes) { return (bytes + BLOCK - 1) & ~(BLOCK - 1); }

size_t fc_memory_used(void) {
  size_t small = 0, large = 0;
  for (size_t i = 0; i < fc.num_regions; i++) {
    const fc_region *region = &fc.regions[i];
    if (region->kind == FC_HOST || region->kind == FC_MAPPED) continue;
    if (region->size < MIB)
      small += (region->size + 511) & ~(size_t)511;
    else
      large += blocks(region->size);
  }
  return blocks(small) + large + fc_physical_bytes() + blocks(cost.held);
}

bool fc_exec_charge(fc_exec *exec) {
  size_t now = cost.executables + exec->bytes;
  if (now > cost.held && fc_memory_used() - blocks(cost.held) + blocks(now) > fc.set.total_memory) return false;
  cost.executables = now;
  if (now > cost.held) cost.held = now;
  return true;
}

void fc_exec_release(fc_exec *exec) {
  cost.executables -= exec->bytes;
  if (exec->source->o.alive && exec->source->executables && fc_graph_allocates(exec->source)) exec->source->executables--;
  fc_graph_end(exec->snapshot);
  fc_item_drop(exec->last);
  exec->snapshot = NULL;
  exec->last = NULL;
  exec->o.alive = false;
}

void fakecuda_memory_use(fakecuda_memory *use) {
  if (fc_enter(__func__, ANY_TIME | UNCOUNTED)) return;
  memset(use, 0, sizeof *use);
  for (size_t i = 0; i < fc.num_regions; i++) {
    fc_region_kind kind = fc.regions[i].kind;
    if (kind == FC_ALLOC || kind == FC_ASYNC || kind == FC_GRAPH_ALLOC) use->allocated += fc.regions[i].size;
  }
  use->physical = fc_physical_bytes();
  use->executables = cost.executables;
  use->executables_held = cost.held;
  fc_leave(CUDA_SUCCESS);
}

/* ---- Device memory -------------------------------------------------------------------------------------------------------------- */

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  ENTER(CALL | UNSAFE);
  CHECK(address && bytes, CUDA_ERROR_INVALID_VALUE);
  LEAVE(fc_region_new(fc_current(), bytes, FC_ALLOC, address));
}

/* Rows of whole 512 bytes, the alignment of textures, so that each begins where a kernel reads best. */
CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned element) {
  ENTER(CALL | UNSAFE);
  CHECK(address && pitch && width && height && (element == 4 || element == 8 || element == 16), CUDA_ERROR_INVALID_VALUE);
  size_t row = (width + 511) & ~(size_t)511;
  CHECK(row >= width && row <= SIZE_MAX / height, CUDA_ERROR_OUT_OF_MEMORY);
  TRY(fc_region_new(fc_current(), row * height, FC_ALLOC, address));
  *pitch = row;
  LEAVE(CUDA_SUCCESS);
}

static fc_region *starting_at(CUdeviceptr address) {
  fc_region *region = fc_region_at(address);
  return region && region->base == address && !region->closing ? region : NULL;
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  ENTER(CALL | UNSAFE);
  CHECK(address, CUDA_SUCCESS);
  fc_region *region = starting_at(address);
  CHECK(region && region->kind != FC_HOST && region->kind != FC_MAPPED, CUDA_ERROR_INVALID_VALUE);
  CHECK(region->kind != FC_GRAPH_ALLOC || region->outstanding, CUDA_ERROR_INVALID_VALUE);
  TRY(fc_finish_context(region->context));
  region = starting_at(address);
  CHECK(region, CUDA_ERROR_INVALID_VALUE);
  region->outstanding = false;
  if (region->kind == FC_GRAPH_ALLOC)
    fc_region_expose(region->base, region->size, false, false);
  else
    fc_region_free(region);
  LEAVE(CUDA_SUCCESS);
}

static CUresult submit_memory(fc_stream *stream, int type, CUdeviceptr address, size_t bytes) {
  fc_payload *payload = fc_payload_new(type, stream->context);
  if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
  payload->address = address;
  payload->bytes = bytes;
  return fc_submit(stream, payload);
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream handle) {
  ENTER(0);
  CHECK(address, CUDA_ERROR_INVALID_VALUE);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  TRY(fc_capture_check(stream));
  if (!stream->capture) TRY(fc_capture_unsafe());
  *address = 0;
  CHECK(bytes, CUDA_SUCCESS);
  if (!stream->capture) LEAVE(fc_region_new(stream->context, bytes, FC_ASYNC, address));
  TRY(fc_region_new(stream->context, bytes, FC_GRAPH_ALLOC, address)); /* appears when the node runs */
  LEAVE(submit_memory(stream, CU_GRAPH_NODE_TYPE_MEM_ALLOC, *address, bytes));
}

/* Whether the graph allocates this address and does not free it yet. */
static bool open_in(const fc_graph *graph, CUdeviceptr address) {
  bool open = false;
  for (size_t i = 0; i < graph->num_nodes; i++) {
    const fc_payload *p = graph->nodes[i]->payload;
    if (!p || p->address != address) continue;
    open = p->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC;
  }
  return open;
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  ENTER(0);
  fc_stream *stream;
  TRY(fc_stream_of(handle, &stream));
  TRY(fc_capture_check(stream));
  CHECK(address, CUDA_SUCCESS);
  if (stream->capture) {
    CHECK(open_in(stream->capture->graph, address), CUDA_ERROR_INVALID_VALUE);
    LEAVE(submit_memory(stream, CU_GRAPH_NODE_TYPE_MEM_FREE, address, 0));
  }
  TRY(fc_capture_unsafe());
  fc_region *region = starting_at(address);
  CHECK(region && region->kind != FC_HOST && region->kind != FC_MAPPED, CUDA_ERROR_INVALID_VALUE);
  CHECK(region->kind != FC_ALLOC, CUDA_SUCCESS); /* recorded: taken without effect, cuMemFree frees it afterwards */
  CHECK(region->kind != FC_GRAPH_ALLOC || region->outstanding, CUDA_ERROR_INVALID_VALUE);
  region->outstanding = false;
  region->closing = region->kind == FC_ASYNC;
  LEAVE(submit_memory(stream, CU_GRAPH_NODE_TYPE_MEM_FREE, address, 0));
}

/* ---- Host memory ---------------------------------------------------------------------------------------------------------------- */

CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
  ENTER(CALL | UNSAFE);
  CHECK(address && flags < 8, CUDA_ERROR_INVALID_VALUE);
  *address = NULL;
  CHECK(bytes, CUDA_SUCCESS);
  void *memory = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095);
  CHECK(memory, CUDA_ERROR_OUT_OF_MEMORY);
  fc_region region = {.base = (CUdeviceptr)(uintptr_t)memory, .size = bytes, .kind = FC_HOST, .context = fc_current()};
  region.readable = region.writable = true;
  if (!fc_region_insert(region)) {
    free(memory);
    LEAVE(CUDA_ERROR_OUT_OF_MEMORY);
  }
  *address = memory;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuMemFreeHost(void *address) {
  ENTER(CALL | UNSAFE);
  CHECK(address, CUDA_SUCCESS);
  fc_region *region = starting_at((CUdeviceptr)(uintptr_t)address);
  CHECK(region && region->kind == FC_HOST, CUDA_ERROR_INVALID_VALUE);
  TRY(fc_finish_context(region->context));
  region = starting_at((CUdeviceptr)(uintptr_t)address);
  if (region) fc_region_free(region);
  LEAVE(CUDA_SUCCESS);
}

bool fc_pinned(const void *address) {
  const fc_region *region = fc_region_at((CUdeviceptr)(uintptr_t)address);
  return region && region->kind == FC_HOST;
}

/* ---- Questions ------------------------------------------------------------------------------------------------------------------ */

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  ENTER(CALL);
  size_t used = fc_memory_used();
  if (free_bytes) *free_bytes = used < fc.set.total_memory ? fc.set.total_memory - used : 0;
  if (total) *total = fc.set.total_memory + 64 * MIB; /* what a context takes for itself */
  LEAVE(CUDA_SUCCESS);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr address) {
  ENTER(NEED_CONTEXT);
  const fc_region *region = fc_region_at(address);
  CHECK(region && region->kind != FC_HOST, CUDA_ERROR_NOT_FOUND);
  if (base) *base = region->base;
  if (size) *size = region->size;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr address) {
  ENTER(0);
  const fc_region *region = fc_region_at(address);
  CHECK(data && region && !region->closing, CUDA_ERROR_INVALID_VALUE);
  uint64_t wide = 0;
  unsigned narrow = 0;
  switch (attribute) {
    case 1: wide = (uint64_t)(uintptr_t)region->context; break;
    case 2: narrow = region->kind == FC_HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE; break;
    case 3: wide = address; break;
    case 4:
      CHECK(region->kind == FC_HOST, CUDA_ERROR_INVALID_VALUE);
      wide = address;
      break;
    case 7: wide = region->made_by; break; /* a number of its own */
    case 8: narrow = 0; break;             /* managed */
    case 9: narrow = 0; break;             /* the device */
    case 11: wide = region->base; break;
    case 12: wide = region->size; break;
    case 13: narrow = 1; break; /* mapped */
    default: LEAVE(CUDA_ERROR_INVALID_VALUE);
  }
  if (attribute == 8 || attribute == 13)
    *(unsigned char *)data = (unsigned char)narrow;
  else if (attribute == 2 || attribute == 9)
    memcpy(data, &narrow, sizeof narrow);
  else
    memcpy(data, &wide, sizeof wide);
  LEAVE(CUDA_SUCCESS);
}

/* Only the promise that copies called synchronous are: here they are anyway. */
CUresult cuPointerSetAttribute(const void *value, int attribute, CUdeviceptr address) {
  enum { SYNC_MEMOPS = 6 };
  ENTER(0);
  const fc_region *region = fc_region_at(address);
  CHECK(value && attribute == SYNC_MEMOPS && region && !region->closing && region->kind != FC_HOST, CUDA_ERROR_INVALID_VALUE);
  LEAVE(CUDA_SUCCESS);
}
