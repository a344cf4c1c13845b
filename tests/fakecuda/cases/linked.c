/* What programs call that link the whole driver API (gorgonia.org/cu does) and the engine never does: copies of rows and planes, copies
 * between contexts, pitched memory, what contexts remember, modules from files, occupancy. */
#define _GNU_SOURCE
#include <unistd.h>

#include "harness.h"

enum { WIDTH = 24, HEIGHT = 5, DEPTH = 3, SRC_PITCH = 40, DST_PITCH = 64, SRC_HEIGHT = 7, DST_HEIGHT = 6 };
enum { SRC_BYTES = SRC_PITCH * SRC_HEIGHT * (DEPTH + 1), DST_BYTES = DST_PITCH * DST_HEIGHT * (DEPTH + 1) };

static void fill(unsigned char *bytes, size_t count, unsigned seed) {
  for (size_t i = 0; i < count; i++) bytes[i] = (unsigned char)(seed + 31 * i + i / 7);
}

/* The rows of WIDTH bytes that lie at (x, y, z) of one box, in another box at (to_x, to_y, to_z); byte by byte. */
static void expect_box(unsigned char *dst, const unsigned char *src, size_t x, size_t y, size_t z, size_t to_x, size_t to_y, size_t to_z,
                       size_t depth) {
  for (size_t k = 0; k < depth; k++) {
    for (size_t j = 0; j < HEIGHT; j++) {
      for (size_t i = 0; i < WIDTH; i++) {
        dst[((to_z + k) * DST_HEIGHT + to_y + j) * DST_PITCH + to_x + i] = src[((z + k) * SRC_HEIGHT + y + j) * SRC_PITCH + x + i];
      }
    }
  }
}

static void check_bytes(CUdeviceptr address, const unsigned char *expected, size_t count) {
  static unsigned char back[DST_BYTES];
  OK(cuMemcpyDtoH_v2(back, address, count));
  for (size_t i = 0; i < count; i++) {
    if (back[i] != expected[i]) fprintf(stderr, "byte %zu\n", i);
    CHECK_INT(back[i], expected[i]);
  }
}

static void rows_are_copied(void) {
  world w;
  world_open(&w);
  static unsigned char source[SRC_BYTES], expected[DST_BYTES];
  fill(source, sizeof source, 1);
  fill(expected, sizeof expected, 100);
  OK(cuMemcpyHtoD_v2(w.b, expected, sizeof expected));
  CUDA_MEMCPY2D p = {.srcXInBytes = 3, .srcY = 2, .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = source, .srcPitch = SRC_PITCH};
  p.dstXInBytes = 5, p.dstY = 1, p.dstMemoryType = CU_MEMORYTYPE_DEVICE, p.dstDevice = w.b, p.dstPitch = DST_PITCH;
  p.WidthInBytes = WIDTH, p.Height = HEIGHT;
  OK(cuMemcpy2D_v2(&p));
  expect_box(expected, source, 3, 2, 0, 5, 1, 0, 1);
  check_bytes(w.b, expected, sizeof expected);

  fill(source, sizeof source, 50); /* pageable: taken at the call, all of its rows */
  OK(cuMemcpy2DAsync_v2(&p, w.stream));
  expect_box(expected, source, 3, 2, 0, 5, 1, 0, 1);
  memset(source, 0, sizeof source);
  OK(cuStreamSynchronize(w.stream));
  check_bytes(w.b, expected, sizeof expected);

  p.Height = 0;
  OK(cuMemcpy2DUnaligned_v2(&p)); /* nothing to do */
  check_bytes(w.b, expected, sizeof expected);
  p.Height = HEIGHT;
  p.dstPitch = WIDTH - 1;
  CHECK_INT(cuMemcpy2DUnaligned_v2(&p), CUDA_ERROR_INVALID_VALUE);
  p.dstPitch = (size_t)1 << 31;
  CHECK_INT(cuMemcpy2D_v2(&p), CUDA_ERROR_INVALID_VALUE);
  p.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  CHECK_INT(cuMemcpy2D_v2(&p), CUDA_ERROR_NOT_SUPPORTED);
  CHECK(strstr(fakecuda_reason(), "array"));
  CHECK_INT(cuMemcpy2D_v2(NULL), CUDA_ERROR_INVALID_VALUE);
  check_bytes(w.b, expected, sizeof expected);
  world_close(&w);
}

static void planes_are_copied(void) {
  world w;
  world_open(&w);
  static unsigned char source[SRC_BYTES], expected[DST_BYTES];
  fill(source, sizeof source, 7);
  fill(expected, sizeof expected, 200);
  OK(cuMemcpyHtoD_v2(w.a, source, sizeof source));
  OK(cuMemcpyHtoD_v2(w.b, expected, sizeof expected));
  CUDA_MEMCPY3D p = {.srcXInBytes = 1, .srcY = 1, .srcZ = 1, .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = w.a};
  p.srcPitch = SRC_PITCH, p.srcHeight = SRC_HEIGHT;
  p.dstXInBytes = 2, p.dstY = 0, p.dstZ = 1, p.dstMemoryType = CU_MEMORYTYPE_DEVICE, p.dstDevice = w.b;
  p.dstPitch = DST_PITCH, p.dstHeight = DST_HEIGHT;
  p.WidthInBytes = WIDTH, p.Height = HEIGHT, p.Depth = DEPTH;
  OK(cuMemcpy3D_v2(&p));
  expect_box(expected, source, 1, 1, 1, 2, 0, 1, DEPTH);
  check_bytes(w.b, expected, sizeof expected);

  CUDA_MEMCPY3D_PEER peer = {.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = w.a, .srcContext = w.context, .srcPitch = SRC_PITCH};
  peer.srcHeight = SRC_HEIGHT, peer.dstMemoryType = CU_MEMORYTYPE_DEVICE, peer.dstDevice = w.b, peer.dstContext = w.context;
  peer.dstPitch = DST_PITCH, peer.dstHeight = DST_HEIGHT, peer.WidthInBytes = WIDTH, peer.Height = HEIGHT, peer.Depth = DEPTH;
  OK(cuMemcpy3DPeer(&peer));
  expect_box(expected, source, 0, 0, 0, 0, 0, 0, DEPTH);
  check_bytes(w.b, expected, sizeof expected);
  peer.srcXInBytes = 4;
  OK(cuMemcpy3DPeerAsync(&peer, w.stream));
  OK(cuStreamSynchronize(w.stream));
  expect_box(expected, source, 4, 0, 0, 0, 0, 0, DEPTH);
  check_bytes(w.b, expected, sizeof expected);
  peer.dstContext = NULL;
  CHECK_INT(cuMemcpy3DPeer(&peer), CUDA_ERROR_INVALID_CONTEXT);
  p.dstZ = 100; /* beyond the allocation */
  CHECK_INT(cuMemcpy3DAsync_v2(&p, w.stream), CUDA_ERROR_INVALID_VALUE);
  world_close(&w);
}

/* As work of the legacy stream, the rules of captures hold for them too. */
static void shaped_copies_keep_to_captures(void) {
  world w;
  world_open(&w);
  CUstream blocking;
  CUgraph graph;
  OK(cuStreamCreate(&blocking, 0));
  CUDA_MEMCPY3D p = {.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = w.a, .srcPitch = 8, .srcHeight = 2};
  p.dstMemoryType = CU_MEMORYTYPE_DEVICE, p.dstDevice = w.b, p.dstPitch = 8, p.dstHeight = 2;
  p.WidthInBytes = 4, p.Height = 2, p.Depth = 1;
  OK(cuStreamBeginCapture_v2(w.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(cuMemcpy3DAsync_v2(&p, w.stream));
  OK(cuStreamEndCapture(w.stream, &graph));
  int type;
  OK(cuGraphNodeGetType(only_node(graph), &type));
  CHECK_INT(type, CU_GRAPH_NODE_TYPE_MEMCPY);
  CHECK_INT(word_at(w.b), 0); /* recorded, not run */
  OK(cuGraphDestroy(graph));
  OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK_INT(cuMemcpy3D_v2(&p), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  CHECK_INT(cuStreamEndCapture(blocking, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  OK(cuStreamDestroy_v2(blocking));
  world_close(&w);
}

static void copies_between_contexts(void) {
  world w;
  world_open(&w);
  CUcontext second;
  CUdeviceptr there;
  OK(cuCtxCreate_v2(&second, 0, 0));
  OK(cuMemAlloc_v2(&there, 64));
  OK(cuMemcpyPeer(there, second, w.a, w.context, 4));
  CHECK_INT(word_at(there), 5);
  OK(cuCtxPopCurrent_v2(NULL));
  put_word(w.a, 9);
  OK(cuMemcpyPeerAsync(there, second, w.a, w.context, 4, w.stream));
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(word_at(there), 9);
  int can = 7, value;
  OK(cuDeviceCanAccessPeer(&can, 0, 0));
  CHECK_INT(can, 0);
  CHECK_INT(cuDeviceCanAccessPeer(&can, 0, 1), CUDA_ERROR_INVALID_DEVICE);
  CHECK_INT(cuDeviceGetP2PAttribute(&value, 1, 0, 0), CUDA_ERROR_INVALID_DEVICE);
  CHECK_INT(cuCtxEnablePeerAccess(second, 0), CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
  CHECK_INT(cuCtxEnablePeerAccess(w.context, 0), CUDA_ERROR_INVALID_CONTEXT);
  CHECK_INT(cuCtxDisablePeerAccess(second), CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
  OK(cuCtxDestroy_v2(second));
  CHECK_INT(cuMemcpyPeer(w.b, second, w.a, w.context, 4), CUDA_ERROR_INVALID_CONTEXT);
  world_close(&w);
}

static void pitched_memory(void) {
  world w;
  world_open(&w);
  CUdeviceptr address, base;
  size_t pitch, size;
  OK(cuMemAllocPitch_v2(&address, &pitch, 600, 10, 4));
  CHECK(pitch >= 600 && pitch % 512 == 0);
  OK(cuMemGetAddressRange_v2(&base, &size, address));
  CHECK_INT(base, address);
  CHECK_INT(size, 10 * pitch);
  OK(cuMemsetD2D32_v2(address, pitch, 0x01020304u, 150, 10));
  OK(cuMemsetD2D16_v2(address + 2 * pitch, pitch, 0xbeefu, 3, 2));
  OK(cuMemsetD2D8_v2(address + 5 * pitch + 1, pitch, 0x7fu, 2, 1));
  OK(cuMemsetD2D16Async(address + 8 * pitch, pitch, 0x1234u, 1, 2, w.stream));
  OK(cuStreamSynchronize(w.stream));
  CHECK_INT(word_at(address), 0x01020304);
  CHECK_INT(word_at(address + 9 * pitch + 596), 0x01020304);
  CHECK_INT(word_at(address + pitch - 4), 0); /* between rows */
  CHECK_INT(word_at(address + 3 * pitch), 0xbeefbeefu);
  CHECK_INT(word_at(address + 3 * pitch + 4), 0x0102beef);
  CHECK_INT(word_at(address + 5 * pitch), 0x017f7f04);
  CHECK_INT(word_at(address + 9 * pitch), 0x01021234);
  int yes = 1;
  OK(cuPointerSetAttribute(&yes, 6, address));
  CHECK_INT(cuPointerSetAttribute(&yes, 2, address), CUDA_ERROR_INVALID_VALUE);
  OK(cuMemFree_v2(address));
  CHECK_INT(cuPointerSetAttribute(&yes, 6, address), CUDA_ERROR_INVALID_VALUE);
  CHECK_INT(cuMemAllocPitch_v2(&address, &pitch, 600, 10, 3), CUDA_ERROR_INVALID_VALUE);
  CHECK_INT(cuMemAllocPitch_v2(&address, &pitch, 600, SIZE_MAX / 2, 4), CUDA_ERROR_OUT_OF_MEMORY);
  world_close(&w);
}

static void contexts_remember(void) {
  unsigned flags, version;
  int active, config;
  size_t value;
  OK(cuInit(0));
  OK(cuDevicePrimaryCtxSetFlags_v2(0, 4)); /* before it lives */
  OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
  CHECK_INT(flags, 4);
  CHECK_INT(active, 0);
  CHECK_INT(cuDevicePrimaryCtxSetFlags_v2(0, 1u << 20), CUDA_ERROR_INVALID_VALUE);
  CHECK_INT(cuDevicePrimaryCtxSetFlags_v2(1, 0), CUDA_ERROR_INVALID_DEVICE);
  CHECK_INT(cuCtxGetFlags(&flags), CUDA_ERROR_INVALID_CONTEXT);
  world w;
  world_open(&w);
  OK(cuCtxGetFlags(&flags));
  CHECK_INT(flags, 4);
  CUcontext second;
  OK(cuCtxCreate_v2(&second, 1, 0));
  OK(cuCtxGetFlags(&flags));
  CHECK_INT(flags, 1);
  OK(cuCtxGetApiVersion(second, &version));
  CHECK_INT(version, 3020);
  OK(cuCtxGetLimit(&value, 0));
  CHECK_INT(value, 1024);
  OK(cuCtxSetLimit(0, 4096));
  OK(cuCtxGetLimit(&value, 0));
  CHECK_INT(value, 4096);
  CHECK_INT(cuCtxGetLimit(&value, 3), CUDA_ERROR_UNSUPPORTED_LIMIT);
  CHECK_INT(cuCtxSetLimit(6, 1), CUDA_ERROR_NOT_SUPPORTED);
  CHECK_INT(cuCtxGetLimit(&value, 7), CUDA_ERROR_INVALID_VALUE);
  OK(cuCtxSetCacheConfig(2));
  OK(cuCtxGetCacheConfig(&config));
  CHECK_INT(config, 2);
  CHECK_INT(cuCtxSetCacheConfig(4), CUDA_ERROR_INVALID_VALUE);
  OK(cuCtxSetSharedMemConfig(2));
  OK(cuCtxGetSharedMemConfig(&config));
  CHECK_INT(config, 1); /* fixed banks */
  OK(cuCtxResetPersistingL2Cache());
  OK(cuFuncSetCacheConfig(w.inc, 1));
  CHECK_INT(cuFuncSetSharedMemConfig(w.inc, 3), CUDA_ERROR_INVALID_VALUE);
  CHECK_INT(cuFuncSetCacheConfig(NULL, 1), CUDA_ERROR_INVALID_HANDLE);
  OK(cuCtxDestroy_v2(second));
  CHECK_INT(cuCtxGetApiVersion(second, &version), CUDA_ERROR_INVALID_CONTEXT);
  OK(cuCtxGetLimit(&value, 0));
  CHECK_INT(value, 1024); /* each context its own */
  world_close(&w);
}

static void modules_from_files(void) {
  world w;
  world_open(&w);
  char path[] = "/tmp/fakecuda-XXXXXX";
  int file = mkstemp(path);
  CHECK(file >= 0);
  CHECK_INT(write(file, PTX, strlen(PTX)), strlen(PTX));
  for (size_t i = 0; i < 300; i++) CHECK_INT(write(file, "// longer than a first read\n", 28), 28);
  CUmodule module;
  CUfunction function;
  OK(cuModuleLoad(&module, path));
  OK(cuModuleGetFunction(&function, module, "inc"));
  void *params[] = {&w.a, &w.b};
  OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
  CHECK_INT(word_at(w.b), 6);
  OK(cuModuleUnload(module));
  OK(cuModuleLoadFatBinary(&module, PTX));
  OK(cuModuleUnload(module));
  close(file);
  unlink(path);
  CHECK_INT(cuModuleLoad(&module, path), CUDA_ERROR_FILE_NOT_FOUND);
  CHECK_INT(cuModuleLoad(&module, NULL), CUDA_ERROR_INVALID_VALUE);
  world_close(&w);
}

static void occupancy(void) {
  world w;
  world_open(&w);
  static const struct {
    int threads;
    size_t shared;
    int blocks;
  } worked[] = {
      {1024, 0, 2},    {1000, 0, 2},   {512, 0, 4}, {64, 0, 32}, {1, 0, 32}, /* 2,048 threads, 32 blocks */
      {128, 48000, 4}, /* 233,472 / (48,000 + 1,024) = 4.8 */
      {1025, 0, 0},    {32, 49153, 0}, /* cannot be launched */
  };
  for (size_t i = 0; i < sizeof worked / sizeof *worked; i++) {
    int blocks = -1;
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, w.inc, worked[i].threads, worked[i].shared));
    CHECK_INT(blocks, worked[i].blocks);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, w.inc, worked[i].threads, worked[i].shared, 1));
    CHECK_INT(blocks, worked[i].blocks);
  }
  int blocks;
  CHECK_INT(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, w.inc, 0, 0), CUDA_ERROR_INVALID_VALUE);
  CHECK_INT(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, NULL, 32, 0), CUDA_ERROR_INVALID_HANDLE);
  CHECK_INT(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, w.inc, 32, 0, 2), CUDA_ERROR_INVALID_VALUE);
  world_close(&w);
}

static const harness_case cases[] = {
    {"rows_are_copied", rows_are_copied},
    {"planes_are_copied", planes_are_copied},
    {"shaped_copies_keep_to_captures", shaped_copies_keep_to_captures},
    {"copies_between_contexts", copies_between_contexts},
    {"pitched_memory", pitched_memory},
    {"contexts_remember", contexts_remember},
    {"modules_from_files", modules_from_files},
    {"occupancy", occupancy},
};

int main(int argc, char **argv) { return harness_main(argc, argv, cases, sizeof cases / sizeof *cases); }
