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
  if (!p.WidthInBytes || !p.Height || !p.Depth) return CUDA_SUCCESS;
  CUresult status = fc_copy_payload(&p, fc_current(), &payload);
  return status ? status : legacy(payload);
}

static CUresult copy_async(CUstream handle, CUDA_MEMCPY3D p) {
  fc_stream *stream;
  fc_payload *payload;
  CUresult status = fc_stream_of(handle, &stream);
  if (!status) status = fc_capture_check(stream);
  if (status || !p.WidthInBytes || !p.Height || !p.Depth) return status;
  status = fc_copy_payload(&p, stream->context, &payload);
  if (status) return status;
  if (stream->capture) return fc_submit(stream, payload);
  const void *from = p.srcMemoryType == CU_MEMORYTYPE_HOST ? p.srcHost : (const void *)(uintptr_t)p.srcDevice;
  if (p.srcMemoryType != CU_MEMORYTYPE_DEVICE && !fc_region_at((CUdeviceptr)(uintptr_t)from)) {
    if (fc_copy_stage(payload)) return fc_submit(stream, payload);
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

/* ---- Rows, planes, peers ---------------------------------------------------------------------------------------------------------- */

/* Arrays are outside the stand-in's scope; a pitch has a limit (CU_DEVICE_ATTRIBUTE_MAX_PITCH). */
static CUresult shaped(const CUDA_MEMCPY3D *p) {
  static const size_t most = 2147483647;
  if (p->srcMemoryType == CU_MEMORYTYPE_ARRAY || p->dstMemoryType == CU_MEMORYTYPE_ARRAY) {
    fc_say("a copy from or to an array: the stand-in has no arrays");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return p->srcPitch <= most && p->dstPitch <= most ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult shaped_now(const CUDA_MEMCPY3D *p) {
  CUresult status = shaped(p);
  return status ? status : copy_now(*p);
}

static CUresult shaped_async(const CUDA_MEMCPY3D *p, CUstream stream) {
  CUresult status = shaped(p);
  return status ? status : copy_async(stream, *p);
}

static CUDA_MEMCPY3D rows(const CUDA_MEMCPY2D *p) {
  return (CUDA_MEMCPY3D){.srcXInBytes = p->srcXInBytes,
                         .srcY = p->srcY,
                         .srcMemoryType = p->srcMemoryType,
                         .srcHost = p->srcHost,
                         .srcDevice = p->srcDevice,
                         .srcPitch = p->srcPitch,
                         .dstXInBytes = p->dstXInBytes,
                         .dstY = p->dstY,
                         .dstMemoryType = p->dstMemoryType,
                         .dstHost = p->dstHost,
                         .dstDevice = p->dstDevice,
                         .dstPitch = p->dstPitch,
                         .WidthInBytes = p->WidthInBytes,
                         .Height = p->Height,
                         .Depth = 1};
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *p) {
  ENTER(CALL);
  CHECK(p, CUDA_ERROR_INVALID_VALUE);
  CUDA_MEMCPY3D copy = rows(p);
  LEAVE(shaped_now(&copy));
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *p) {
  ENTER(CALL);
  CHECK(p, CUDA_ERROR_INVALID_VALUE);
  CUDA_MEMCPY3D copy = rows(p);
  LEAVE(shaped_now(&copy));
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *p, CUstream stream) {
  ENTER(0);
  CHECK(p, CUDA_ERROR_INVALID_VALUE);
  CUDA_MEMCPY3D copy = rows(p);
  LEAVE(shaped_async(&copy, stream));
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *p) {
  ENTER(CALL);
  CHECK(p, CUDA_ERROR_INVALID_VALUE);
  LEAVE(shaped_now(p));
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *p, CUstream stream) {
  ENTER(0);
  CHECK(p, CUDA_ERROR_INVALID_VALUE);
  LEAVE(shaped_async(p, stream));
}

/* One device: a copy between contexts is a copy. */
static bool both_live(CUcontext a, CUcontext b) { return fc_live(a, FC_CONTEXT) && fc_live(b, FC_CONTEXT); }

CUresult cuMemcpyPeer(CUdeviceptr dst, CUcontext dst_context, CUdeviceptr src, CUcontext src_context, size_t bytes) {
  ENTER(CALL);
  CHECK(both_live(dst_context, src_context), CUDA_ERROR_INVALID_CONTEXT);
  LEAVE(copy_now(flat(dst, CU_MEMORYTYPE_DEVICE, src, CU_MEMORYTYPE_DEVICE, bytes)));
}

CUresult cuMemcpyPeerAsync(CUdeviceptr dst, CUcontext dst_context, CUdeviceptr src, CUcontext src_context, size_t bytes, CUstream stream) {
  ENTER(0);
  CHECK(both_live(dst_context, src_context), CUDA_ERROR_INVALID_CONTEXT);
  LEAVE(copy_async(stream, flat(dst, CU_MEMORYTYPE_DEVICE, src, CU_MEMORYTYPE_DEVICE, bytes)));
}

static CUresult peer_copy(const CUDA_MEMCPY3D_PEER *p, CUDA_MEMCPY3D *out) {
  if (!p) return CUDA_ERROR_INVALID_VALUE;
  if (!both_live(p->dstContext, p->srcContext)) return CUDA_ERROR_INVALID_CONTEXT;
  *out = (CUDA_MEMCPY3D){.srcXInBytes = p->srcXInBytes,
                         .srcY = p->srcY,
                         .srcZ = p->srcZ,
                         .srcMemoryType = p->srcMemoryType,
                         .srcHost = p->srcHost,
                         .srcDevice = p->srcDevice,
                         .srcPitch = p->srcPitch,
                         .srcHeight = p->srcHeight,
                         .dstXInBytes = p->dstXInBytes,
                         .dstY = p->dstY,
                         .dstZ = p->dstZ,
                         .dstMemoryType = p->dstMemoryType,
                         .dstHost = p->dstHost,
                         .dstDevice = p->dstDevice,
                         .dstPitch = p->dstPitch,
                         .dstHeight = p->dstHeight,
                         .WidthInBytes = p->WidthInBytes,
                         .Height = p->Height,
                         .Depth = p->Depth};
  return CUDA_SUCCESS;
}

CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *p) {
  CUDA_MEMCPY3D copy;
  ENTER(CALL);
  TRY(peer_copy(p, &copy));
  LEAVE(shaped_now(&copy));
}

CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *p, CUstream stream) {
  CUDA_MEMCPY3D copy;
  ENTER(0);
  TRY(peer_copy(p, &copy));
  LEAVE(shaped_async(&copy, stream));
}

/* ---- Memsets -------------------------------------------------------------------------------------------------------------------- */

static CUresult set_now(CUDA_MEMSET_NODE_PARAMS p) {
  fc_payload *payload;
  if (!p.width || !p.height) return CUDA_SUCCESS;
  CUresult status = fc_set_payload(&p, fc_current(), &payload);
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
  LEAVE(set_now((CUDA_MEMSET_NODE_PARAMS){dst, 0, value, 1, count, 1}));
}

CUresult cuMemsetD16_v2(CUdeviceptr dst, unsigned short value, size_t count) {
  ENTER(CALL);
  LEAVE(set_now((CUDA_MEMSET_NODE_PARAMS){dst, 0, value, 2, count, 1}));
}

CUresult cuMemsetD32_v2(CUdeviceptr dst, unsigned value, size_t count) {
  ENTER(CALL);
  LEAVE(set_now((CUDA_MEMSET_NODE_PARAMS){dst, 0, value, 4, count, 1}));
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

CUresult cuMemsetD2D8_v2(CUdeviceptr dst, size_t pitch, unsigned char value, size_t width, size_t height) {
  ENTER(CALL);
  LEAVE(set_now((CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 1, width, height}));
}

CUresult cuMemsetD2D16_v2(CUdeviceptr dst, size_t pitch, unsigned short value, size_t width, size_t height) {
  ENTER(CALL);
  LEAVE(set_now((CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 2, width, height}));
}

CUresult cuMemsetD2D32_v2(CUdeviceptr dst, size_t pitch, unsigned value, size_t width, size_t height) {
  ENTER(CALL);
  LEAVE(set_now((CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 4, width, height}));
}

CUresult cuMemsetD2D8Async(CUdeviceptr dst, size_t pitch, unsigned char value, size_t width, size_t height, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 1, width, height}));
}

CUresult cuMemsetD2D16Async(CUdeviceptr dst, size_t pitch, unsigned short value, size_t width, size_t height, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 2, width, height}));
}

CUresult cuMemsetD2D32Async(CUdeviceptr dst, size_t pitch, unsigned value, size_t width, size_t height, CUstream stream) {
  ENTER(0);
  LEAVE(set_async(stream, (CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, 4, width, height}));
}
