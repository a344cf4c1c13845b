/* The kernels of kernels/cuda for the CPU: what device.h takes from CUDA's headers, in C++17, and the table by which the stand-in
 * driver finds them. The blocks of a grid run one after the other. A block's threads are fibers: each runs until it ends or waits
 * for others, so that a barrier has a barrier's meaning, and one that some thread never reaches is found. */
#ifndef ADCG_FAKECUDA_SHIM_H_
#define ADCG_FAKECUDA_SHIM_H_

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "../fakecuda.h"

#define ADCG_DEVICE inline
#define __shared__ static thread_local
#define ADCG_SHARED(T, name) T *const name = (T *)shim::dynamic_shared

#define __align__(n) __attribute__((aligned(n)))
#define __device__
#define __host__
#define __forceinline__ inline

struct uint2 { uint32_t x, y; };
struct uint3 { uint32_t x, y, z; };
struct __align__(16) uint4 { uint32_t x, y, z, w; };
struct float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };

static inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
static inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

namespace shim {

enum state { READY, WARP, BLOCK, ENDED }; /* WARP, BLOCK: waits for the others of its warp, of its block */

struct thread {
  ucontext_t context;
  uint3 index;
  state at;
  uint32_t mask;  /* of lanes that a wait of the warp is for */
  uint32_t round; /* how many waits of its warp it has been through */
};

enum { MOST = 1024, STACK = 128 << 10 };

/* The block that this thread of the CPU runs. */
struct block {
  thread threads[MOST];
  uint64_t values[2][MOST]; /* what lanes show each other, by the parity of the round: nobody is two rounds ahead */
  ucontext_t scheduler;
  char *stacks;
  uint32_t count, current;
  uint3 index, dims, grid;
  const char *kernel;
  void (*body)(const void *);
  const void *args;
};
inline thread_local block *running;
alignas(16) inline thread_local char dynamic_shared[49152];

[[noreturn]] inline void fail(const char *what) {
  const block *b = running;
  fprintf(stderr, "fakecuda: kernel %s, block %u: %s (thread %u)\n", b->kernel, b->index.x, what, b->current);
  abort();
}

inline void start() {
  running->body(running->args);
  running->threads[running->current].at = ENDED;
  setcontext(&running->scheduler);
}

inline void wait(state at, uint32_t mask) {
  thread *t = &running->threads[running->current];
  t->at = at;
  t->mask = mask;
  swapcontext(&t->context, &running->scheduler);
}

/* Lets go the warps and the block whose threads have all come; false: nobody moves. */
inline bool release(block *b) {
  bool moved = false;
  uint32_t waiting = 0, ended = 0;
  for (uint32_t first = 0; first < b->count; first += 32) {
    uint32_t lanes = 0, mask = 0;
    for (uint32_t i = first; i < b->count && i < first + 32; i++) {
      const thread *t = &b->threads[i];
      waiting += t->at == BLOCK;
      ended += t->at == ENDED;
      if (t->at == WARP) lanes |= 1u << (i - first), mask |= t->mask;
    }
    const uint32_t there = b->count - first >= 32 ? 0xffffffffu : (1u << (b->count - first)) - 1;
    if (!lanes || (lanes & mask & there) != (mask & there)) continue;
    for (uint32_t i = first; i < b->count && i < first + 32; i++) {
      if (b->threads[i].at == WARP) b->threads[i].at = READY;
    }
    moved = true;
  }
  if (waiting && waiting + ended == b->count) {
    for (uint32_t i = 0; i < b->count; i++) {
      if (b->threads[i].at == BLOCK) b->threads[i].at = READY;
    }
    moved = true;
  }
  return moved;
}

inline void run_block(block *b) {
  for (uint32_t i = 0; i < b->count; i++) {
    thread *t = &b->threads[i];
    getcontext(&t->context);
    t->context.uc_stack.ss_sp = b->stacks + (size_t)i * STACK;
    t->context.uc_stack.ss_size = STACK;
    t->context.uc_link = nullptr;
    makecontext(&t->context, start, 0);
    t->at = READY;
    t->round = 0;
    t->index = {i % b->dims.x, i / b->dims.x % b->dims.y, i / b->dims.x / b->dims.y};
  }
  for (uint32_t ended = 0; ended < b->count;) {
    ended = 0;
    for (uint32_t i = 0; i < b->count; i++) {
      b->current = i;
      if (b->threads[i].at == READY) swapcontext(&b->scheduler, &b->threads[i].context);
      ended += b->threads[i].at == ENDED;
    }
    if (ended < b->count && !release(b)) fail("threads wait for others that do not come");
  }
}

inline void run(const char *name, uint32_t most, void (*body)(const void *), const fakecuda_launch *launch) {
  static thread_local block *b;
  if (!b) {
    b = (block *)calloc(1, sizeof *b);
    b->stacks = (char *)mmap(nullptr, (size_t)MOST * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  running = b;
  b->kernel = name;
  b->body = body;
  b->args = launch->args[0];
  b->dims = {launch->block[0], launch->block[1], launch->block[2]};
  b->grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
  b->count = b->dims.x * b->dims.y * b->dims.z;
  if (b->count > most) fail("more threads than its bound");
  for (b->index.z = 0; b->index.z < b->grid.z; b->index.z++) {
    for (b->index.y = 0; b->index.y < b->grid.y; b->index.y++) {
      for (b->index.x = 0; b->index.x < b->grid.x; b->index.x++) run_block(b);
    }
  }
}

template <typename T>
inline T shuffle(T value, uint32_t mask, uint32_t from) {
  static_assert(sizeof(T) == 4, "one word");
  block *b = running;
  const uint32_t at = b->current, parity = b->threads[at].round++ & 1;
  b->values[parity][at] = 0;
  memcpy(&b->values[parity][at], &value, sizeof value);
  wait(WARP, mask);
  memcpy(&value, &b->values[parity][(at & ~31u) + from], sizeof value);
  return value;
}

enum { KERNELS = 512 };
inline uint32_t num_kernels;

} // namespace shim

extern "C" {
inline __attribute__((visibility("default"), used)) fakecuda_kernel fakecuda_kernels[shim::KERNELS + 1];
}

namespace shim {
struct entry {
  uint32_t size, alignment;
  entry(const char *name, fakecuda_kernel_fn run, uint32_t bytes, uint32_t align) : size(bytes), alignment(align) {
    if (num_kernels < KERNELS) fakecuda_kernels[num_kernels++] = {name, run, 1, &size, &alignment};
  }
};
} // namespace shim

#define threadIdx (shim::running->threads[shim::running->current].index)
#define blockIdx (shim::running->index)
#define blockDim (shim::running->dims)
#define gridDim (shim::running->grid)

#define ADCG_KERNEL(name, args, most)                                                                                         \
  static void name(const args &a);                                                                                            \
  static void name##_run(const fakecuda_launch *launch) {                                                                     \
    shim::run(#name, most, [](const void *argument) { name(*(const args *)argument); }, launch);                              \
  }                                                                                                                           \
  static shim::entry name##_entry(#name, name##_run, sizeof(args), alignof(args));                                            \
  static void name(const args &a)

static inline void __syncthreads() { shim::wait(shim::BLOCK, 0); }
static inline void __syncwarp(uint32_t mask = 0xffffffffu) {
  shim::running->threads[shim::running->current].round++;
  shim::wait(shim::WARP, mask);
}
template <typename T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
  return shim::shuffle(value, mask, (shim::running->current & 31u) ^ (uint32_t)lanes);
}
template <typename T>
static inline T __shfl_sync(uint32_t mask, T value, int from) {
  return shim::shuffle(value, mask, (uint32_t)from & 31u);
}

#endif
