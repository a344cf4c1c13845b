/* Copies and memsets. Synchronous ones are work of the legacy stream and its rules: they wait for blocking streams only, and are refused
 * beside a capture on one. Pageable host memory is read at the call; a copy to it is over when the call returns. A captured memset's
 * address is not checked (recorded), a captured copy's is. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

static CUDA_MEMCPY3D flat(CUdeviceptr dst, int dst_type, CUdeviceptr src, int src_type, size_t bytes) {
  CUDA_MEMCPY3D p;
  memset(&p, 0, sizeof p);
  p.srcMemoryType = src_type;
  p.dstMemoryType = dst_type;
  if (src_type == CU_MEMORYTYPE_HOST)
    p.srcHost = (const void *)(uintptr_t)src;
  else
    p.srcDevice = src;
  if (dst_type == CU_MEMORYTYPE_HOST)
    p.dstHost = (void *)(uintptr_t)dst;
  else
    p.dstDevice = dst;
  p.WidthInBytes = bytes;
  p.Height = p.Depth = 1;
  return p;
}

/* Enqueues and waits. */
static CUresult at_once(fc_stream *stream, fc_payload *payload) {
  fc_item *item;
  CUresult status = fc_enqueue(stream, &payload, 1, NULL, 0, &item);
  if (status) return status;
  status = fc_finish(item);
  fc_item_drop(item);
  return status;
}

static CUresult legacy(fc_payload *payload) {
  fc_stream *stream = fc_current()->legacy;
  CUresult status = fc_capture_check(stream);
  if (!status) return at_once(stream, payload);
  fc_payload_drop(payload);
  return status;
}

static CUresult copy_now(CUDA_MEMCPY3D p) {
  fc_payload *payload;
  if (!p.WidthInBytes) return CUDA_SUCCESS;
  CUresult status = fc_copy_payload(&p, fc_current(), &payload);
  return status ? status : legacy(payload);
}

static CUresult copy_async(CUstream handle, CUDA_MEMCPY3D p) {
  fc_stream *stream;
  fc_payload *payload;
  CUresult status = fc_stream_of(handle, &stream);
  if (!status) status = fc_capture_check(stream);
  if (status || !p.WidthInBytes) return status;
  status = fc_copy_payload(&p, stream->context, &payload);
  if (status) return status;
  if (stream->capture) return fc_submit(stream, payload);
  const void *from = p.srcMemoryType == CU_MEMORYTYPE_HOST ? p.srcHost : (const void *)(uintptr_t)p.srcDevice;
  if (p.srcMemoryType != CU_MEMORYTYPE_DEVICE && !fc_region_at((CUdeviceptr)(uintptr_t)from)) {
    payload->staged = malloc(p.WidthInBytes);
    if (payload->staged) memcpy(payload->staged, from, p.WidthInBytes);
    if (payload->staged) return fc_submit(stream, payload);
    fc_payload_drop(payload);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (p.dstMemoryType == CU_MEMORYTYPE_HOST && !fc_pinned(p.dstHost)) return at_once(stream, payload);
  return fc_submit(stream, payload);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t bytes) {
  ENTER(CALL);
  LEAVE(copy_now(flat(dst, CU_MEMORYTYPE_DEVICE, (CUdeviceptr)(uintptr_t)src, CU_MEMORYTYPE_HOST, bytes)));
}

CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t bytes) {
  ENTER(CALL);
  LEAVE(copy_now(flat((CUdeviceptr)(uintptr_t)dst, CU_MEMORYTYPE_HOST, src, CU_MEMORYTYPE_DEVICE, bytes)));
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t bytes) {
  ENTER(CALL);
  LEAVE(copy_now(flat(dst, CU_MEMORYTYPE_DEVICE, src, CU_MEMORYTYPE_DEVICE, bytes)));
}

CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t bytes) {
  ENTER(CALL);
  LEAVE(copy_now(flat(dst, CU_MEMORYTYPE_UNIFIED, src, CU_MEMORYTYPE_UNIFIED, bytes)));
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t bytes, CUstream stream) {
  ENTER(0);
  LEAVE(copy_async(stream, flat(dst, CU_MEMORYTYPE_DEVICE, (CUdeviceptr)(uintptr_t)src, CU_MEMORYTYPE_HOST, bytes)));
}

CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t bytes, CUstream stream) {
  ENTER(0);
  LEAVE(copy_async(stream, flat((CUdeviceptr)(uintptr_t)dst, CU_MEMORYTYPE_HOST, src, CU_MEMORYTYPE_DEVICE, bytes)));
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream) {
  ENTER(0);
  LEAVE(copy_async(stream, flat(dst, CU_MEMORYTYPE_DEVICE, src, CU_MEMORYTYPE_DEVICE, bytes)));
}

CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream) {
  ENTER(0);
  LEAVE(copy_async(stream, flat(dst, CU_MEMORYTYPE_UNIFIED, src, CU_MEMORYTYPE_UNIFIED, bytes)));
}

/* ---- Memsets -------------------------------------------------------------------------------------------------------------------- */

static CUresult set_now(CUdeviceptr dst, unsigned value, unsigned element, size_t count) {
  fc_payload *payload;
  if (!count) return CUDA_SUCCESS;
  CUresult status = fc_set_payload(&(CUDA_MEMSET_NODE_PARAMS){dst, 0, value, element, count, 1}, fc_current(), &payload);
  return status ? status : legacy(payload);
}

static CUresult set_async(CUstream handle, CUDA_MEMSET_NODE_PARAMS p) {
  fc_stream *stream;
  fc_payload *payload = NULL;
  CUresult status = fc_stream_of(handle, &stream);
  if (!status) status = fc_capture_check(stream);
  if (status || !p.width || !p.height) return status;
  if (stream->capture) {
    payload = fc_payload_new(CU_GRAPH_NODE_TYPE_MEMSET, stream->context);
    if (!payload) return CUDA_ERROR_OUT_OF_MEMORY;
    payload->set = p;
  } else {
    status = fc_set_payload(&p, stream->context, &payload);
  }
  return status ? status : fc_submit(stream, payload);
}

CUresult cuMemsetD8_v2(CUdeviceptr dst, unsigned char value, size_t count) {
  ENTER(CALL);
  LEAVE(set_now(dst, value, 1, count));
}

CUresult cuMemsetD16_v2(CUdeviceptr dst, unsigned short value, size_t count) {
  ENTER(CALL);
  LEAVE(set_now(dst, value, 2, count));
}

CUresult cuMemsetD32_v2(CUdeviceptr dst, unsigned value, size_t count) {
  ENTER(CALL);
  LEAVE(set_now(dst, value, 4, count));
}

CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char value, size_t count, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, 0, value, 1, count, 1}));
}

CUresult cuMemsetD16Async(CUdeviceptr dst, unsigned short value, size_t count, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, 0, value, 2, count, 1}));
}

CUresult cuMemsetD32Async(CUdeviceptr dst, unsigned value, size_t count, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, 0, value, 4, count, 1}));
}

CUresult cuMemsetD2D8Async(CUdeviceptr dst, size_t pitch, unsigned char value, size_t width, size_t height, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 1, width, height}));
}

CUresult cuMemsetD2D32Async(CUdeviceptr dst, size_t pitch, unsigned value, size_t width, size_t height, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 4, width, height}));
}
