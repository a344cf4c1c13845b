/* What nodes and asynchronous calls do, made from and checked against the driver's parameter structs, and how far an executable's node
 * may change. Recorded: one-dimensional memsets and copies may change size and element; two-dimensional ones keep all their extents; a
 * copy keeps the kinds of its two sides. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

CUresult fc_kernel_payload(const CUDA_KERNEL_NODE_PARAMS *params, fc_payload **out) {
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  fc_function *function = fc_live(params->func ? (const void *)params->func : (const void *)params->kern, FC_FUNCTION);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  fc_payload *payload = fc_payload_new(CU_GRAPH_NODE_TYPE_KERNEL, function->module->context);
  if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint32_t grid[3] = {params->gridDimX, params->gridDimY, params->gridDimZ};
  const uint32_t block[3] = {params->blockDimX, params->blockDimY, params->blockDimZ};
  memcpy(payload->k.grid, grid, sizeof grid);
  memcpy(payload->k.block, block, sizeof block);
  payload->k.shared = params->sharedMemBytes;
  payload->k.function = function;
  payload->k.body = function->body;
  payload->k.body->refs++;
  CUresult status = fc_params_pack(function, params->kernelParams, params->extra, payload);
  if (!status) status = fc_launch_check(function, grid, block, params->sharedMemBytes);
  if (status)
    fc_payload_drop(payload);
  else
    *out = payload;
  return status;
}

/* ---- Copies --------------------------------------------------------------------------------------------------------------------- */

typedef struct side {
  int type;
  CUdeviceptr address; /* of the first byte */
  size_t pitch, height;
  bool device;
} side;

static bool side_of(const CUDA_MEMCPY3D *p, bool source, side *out) {
  out->type = source ? p->srcMemoryType : p->dstMemoryType;
  CUdeviceptr host = source ? (CUdeviceptr)(uintptr_t)p->srcHost : (CUdeviceptr)(uintptr_t)p->dstHost;
  CUdeviceptr base = out->type == CU_MEMORYTYPE_HOST ? host : source ? p->srcDevice : p->dstDevice;
  out->pitch = source ? p->srcPitch : p->dstPitch;
  out->height = source ? p->srcHeight : p->dstHeight;
  if (!out->height) out->height = p->Height;
  if (p->Height <= 1 && p->Depth <= 1 && !out->pitch) out->pitch = p->WidthInBytes;
  size_t x = source ? p->srcXInBytes : p->dstXInBytes, y = source ? p->srcY : p->dstY, z = source ? p->srcZ : p->dstZ;
  out->address = base + x + (z * out->height + y) * out->pitch;
  const fc_region *region = fc_region_at(base);
  out->device = out->type == CU_MEMORYTYPE_DEVICE || (out->type == CU_MEMORYTYPE_UNIFIED && region && region->kind != FC_HOST);
  return base != 0 && (out->type == CU_MEMORYTYPE_HOST || out->type == CU_MEMORYTYPE_DEVICE || out->type == CU_MEMORYTYPE_UNIFIED);
}

static size_t extent(const CUDA_MEMCPY3D *p, const side *s) {
  return ((p->Depth - 1) * s->height + p->Height - 1) * s->pitch + p->WidthInBytes;
}

static bool side_ok(const CUDA_MEMCPY3D *p, bool source) {
  side s;
  if (!side_of(p, source, &s) || s.pitch < p->WidthInBytes || s.height < p->Height) return false;
  if (s.device) return fc_nameable(s.address, extent(p, &s), !source);
  return s.type != CU_MEMORYTYPE_DEVICE;
}

CUresult fc_copy_payload(const CUDA_MEMCPY3D *params, fc_context *context, fc_payload **out) {
  if (!params || !params->WidthInBytes || !params->Height || !params->Depth) return CUDA_ERROR_INVALID_VALUE;
  if (!side_ok(params, true) || !side_ok(params, false)) return CUDA_ERROR_INVALID_VALUE;
  fc_payload *payload = fc_payload_new(CU_GRAPH_NODE_TYPE_MEMCPY, context);
  if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
  payload->copy = *params;
  *out = payload;
  return CUDA_SUCCESS;
}

bool fc_copy_stage(fc_payload *payload) {
  side from;
  side_of(&payload->copy, true, &from);
  size_t bytes = extent(&payload->copy, &from);
  payload->staged = malloc(bytes);
  if (payload->staged) memcpy(payload->staged, (const void *)(uintptr_t)from.address, bytes);
  return payload->staged != NULL;
}

CUresult fc_copy_run(const fc_payload *payload) {
  const CUDA_MEMCPY3D *p = &payload->copy;
  side from, to;
  side_of(p, true, &from);
  side_of(p, false, &to);
  if (from.device && !payload->staged && !fc_accessible(from.address, extent(p, &from), false)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  if (to.device && !fc_accessible(to.address, extent(p, &to), true)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  for (size_t z = 0; z < p->Depth; z++) {
    for (size_t y = 0; y < p->Height; y++) {
      CUdeviceptr first = payload->staged ? (CUdeviceptr)(uintptr_t)payload->staged : from.address;
      const void *src = (const void *)(uintptr_t)(first + (z * from.height + y) * from.pitch);
      memmove((void *)(uintptr_t)(to.address + (z * to.height + y) * to.pitch), src, p->WidthInBytes);
    }
  }
  return CUDA_SUCCESS;
}

/* ---- Memsets -------------------------------------------------------------------------------------------------------------------- */

static size_t set_extent(const CUDA_MEMSET_NODE_PARAMS *p) {
  return (p->height - 1) * (p->height > 1 ? p->pitch : 0) + p->width * p->elementSize;
}

CUresult fc_set_payload(const CUDA_MEMSET_NODE_PARAMS *p, fc_context *context, fc_payload **out) {
  if (!p || !p->width || !p->height || (p->elementSize != 1 && p->elementSize != 2 && p->elementSize != 4)) return CUDA_ERROR_INVALID_VALUE;
  if (p->dst % p->elementSize || (p->height > 1 && p->pitch < p->width * p->elementSize)) return CUDA_ERROR_INVALID_VALUE;
  if (!fc_nameable(p->dst, set_extent(p), true)) return CUDA_ERROR_INVALID_VALUE;
  fc_payload *payload = fc_payload_new(CU_GRAPH_NODE_TYPE_MEMSET, context);
  if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
  payload->set = *p;
  *out = payload;
  return CUDA_SUCCESS;
}

CUresult fc_set_run(const fc_payload *payload) {
  const CUDA_MEMSET_NODE_PARAMS *p = &payload->set;
  if (!fc_accessible(p->dst, set_extent(p), true)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  for (size_t y = 0; y < p->height; y++) {
    unsigned char *row = (unsigned char *)(uintptr_t)(p->dst + y * p->pitch);
    if (p->elementSize == 1) {
      memset(row, (int)(p->value & 255), p->width);
      continue;
    }
    for (size_t x = 0; x < p->width; x++) memcpy(row + x * p->elementSize, &p->value, p->elementSize); /* little-endian */
  }
  return CUDA_SUCCESS;
}

CUresult fc_host_payload(const CUDA_HOST_NODE_PARAMS *params, fc_payload **out) {
  if (!params || !params->fn) return CUDA_ERROR_INVALID_VALUE;
  fc_payload *payload = fc_payload_new(CU_GRAPH_NODE_TYPE_HOST, fc_current());
  if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
  payload->host = *params;
  *out = payload;
  return CUDA_SUCCESS;
}

/* ---- Change --------------------------------------------------------------------------------------------------------------------- */

static bool same_sides(const CUDA_MEMCPY3D *a, const CUDA_MEMCPY3D *b) {
  for (int source = 0; source < 2; source++) {
    side old, fresh;
    side_of(a, source, &old);
    side_of(b, source, &fresh);
    if (old.device != fresh.device) return false;
  }
  bool flat = a->Height == 1 && a->Depth == 1 && b->Height == 1 && b->Depth == 1;
  return flat || (a->WidthInBytes == b->WidthInBytes && a->Height == b->Height && a->Depth == b->Depth);
}

static bool same_extents(const CUDA_MEMSET_NODE_PARAMS *a, const CUDA_MEMSET_NODE_PARAMS *b) {
  if (a->height == 1 && b->height == 1) return true;
  return a->height == b->height && a->width == b->width && a->pitch == b->pitch && a->elementSize == b->elementSize;
}

int fc_payload_compatible(const fc_payload *old, const fc_payload *fresh) {
  bool ok = true;
  if (!old || !fresh) return CU_GRAPH_EXEC_UPDATE_SUCCESS; /* an empty node */
  if (fresh->type == CU_GRAPH_NODE_TYPE_MEMCPY) ok = same_sides(&old->copy, &fresh->copy);
  if (fresh->type == CU_GRAPH_NODE_TYPE_MEMSET) ok = same_extents(&old->set, &fresh->set);
  return ok ? CU_GRAPH_EXEC_UPDATE_SUCCESS : CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
}
