/* The kernels of kernels/cuda for the CPU: what device.h takes from CUDA's headers, in C++17, and the table by which the stand-in
 * driver finds them. One translation unit includes it. The blocks of a grid run one after the other, their threads as fibers.h has
 * them. */
#ifndef ADCG_FAKECUDA_SHIM_H_
#define ADCG_FAKECUDA_SHIM_H_

#include <math.h>

#include "fibers.h"

#define ADCG_DEVICE inline
#define ADCG_SHARED(T, name) T *const name = (T *)shim::running->dynamic
#define __align__(n) __attribute__((aligned(n)))
#define __device__
#define __host__
#define __forceinline__ inline

struct uint2 {
  uint32_t x, y;
};
struct __align__(16) uint4 {
  uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
struct __align__(16) float4 {
  float x, y, z, w;
};

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
template <typename T>
static inline T __ldg(const T *from) {
  return *from;
}

#define threadIdx (shim::running->threads[shim::running->current].index)
#define blockIdx (shim::running->index)
#define blockDim (shim::running->dims)
#define gridDim (shim::running->grid)

/* ---- The block --------------------------------------------------------------------------------------------------- */

#define __syncthreads() ((void)shim::meet_block(__LINE__, 0))
#define __syncthreads_count(x) (shim::meet_block(__LINE__, (x) != 0))
#define __syncthreads_or(x) (shim::meet_block(__LINE__, (x) != 0) != 0)
#define __syncthreads_and(x) (shim::meet_block(__LINE__, (x) == 0) == 0)

/* ---- The warp ---------------------------------------------------------------------------------------------------- */

static inline void __syncwarp(uint32_t mask = 0xffffffffu) { shim::meet_warp(shim::SYNC, mask, nullptr, 0); }

namespace shim {
/* The value of lane `from`, which must be one of the mask. */
template <typename T>
inline T shuffle(uint32_t mask, T value, uint32_t from) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "one word");
  meet_warp(SHUFFLE, mask, &value, sizeof value);
  const uint32_t lanes = running->count - (running->current & ~31u);
  if (from >= 32 || !(mask >> from & 1) || from >= lanes) {
    fail("thread %u shuffles from lane %u, which takes no part (mask %08x)", running->current, from, mask);
    fail_thread();
  }
  memcpy(&value, shown(from), sizeof value);
  return value;
}
inline uint32_t lane() { return running->current & 31u; }
} // namespace shim

template <typename T>
static inline T __shfl_sync(uint32_t mask, T value, int from, int width = 32) {
  return shim::shuffle(mask, value, (shim::lane() & ~(uint32_t)(width - 1)) | ((uint32_t)from & (uint32_t)(width - 1)));
}
template <typename T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32) {
  const uint32_t from = shim::lane() ^ (uint32_t)lanes;
  return shim::shuffle(mask, value, (from & ~(uint32_t)(width - 1)) > shim::lane() ? shim::lane() : from);
}
template <typename T>
static inline T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32) {
  const uint32_t within = shim::lane() & (uint32_t)(width - 1);
  return shim::shuffle(mask, value, within + by < (uint32_t)width ? shim::lane() + by : shim::lane());
}
template <typename T>
static inline T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32) {
  const uint32_t within = shim::lane() & (uint32_t)(width - 1);
  return shim::shuffle(mask, value, within >= by ? shim::lane() - by : shim::lane());
}
static inline uint32_t __ballot_sync(uint32_t mask, int x) {
  const uint32_t mine = x != 0;
  shim::meet_warp(shim::VOTE, mask, &mine, sizeof mine);
  uint32_t votes = 0;
  for (uint32_t i = 0; i < 32 && (shim::running->current & ~31u) + i < shim::running->count; i++) {
    uint32_t vote;
    memcpy(&vote, shim::shown(i), sizeof vote);
    if (mask >> i & 1) votes |= vote << i;
  }
  return votes;
}
static inline int __any_sync(uint32_t mask, int x) { return __ballot_sync(mask, x) != 0; }
static inline int __all_sync(uint32_t mask, int x) { return __ballot_sync(mask, x == 0) == 0; }

/* ---- Tensor cores and asynchronous copies (kernels/cuda/cores.h) ------------------------------------------------------ */

namespace shim {

/* Products are exact and added in double: no order of theirs is the device's. */
inline void multiply(float *c, const uint32_t *a, uint32_t b0, uint32_t b1) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1}, here = lane();
  meet_warp(MATRIX, 0xffffffffu, mine, sizeof mine);
  for (uint32_t i = 0; i < 4; i++) { /* c[i]: row half i / 2, column here % 4 * 2 + i % 2 */
    double sum = c[i];
    for (uint32_t quad = 0; quad < 4; quad++) {
      const uint32_t *left = (const uint32_t *)shown((here & ~3u) | quad),
                     *right = (const uint32_t *)shown((here % 4 * 2 + i % 2) * 4 | quad);
      for (uint32_t j = 0; j < 2; j++) { /* of k: quad * 2 and the next, then those + 8 */
        const uint32_t x = left[i / 2 + 2 * j], y = right[4 + j];
        sum += (double)__uint_as_float(x << 16) * __uint_as_float(y << 16);
        sum += (double)__uint_as_float(x & 0xffff0000u) * __uint_as_float(y & 0xffff0000u);
      }
    }
    c[i] = (float)sum;
  }
}

inline void load_matrices(uint32_t *to, const void *row, bool turned) {
  const uint32_t here = lane();
  if ((uintptr_t)row % 16) {
    fail("thread %u loads a row of a matrix from an address that is no multiple of 16", running->current);
    fail_thread();
  }
  meet_warp(MATRIX, 0xffffffffu, &row, sizeof row);
  for (uint32_t i = 0; i < 4; i++) {
    uint16_t pair[2];
    for (uint32_t j = 0; j < 2; j++) {
      const uint32_t line = turned ? here % 4 * 2 + j : here / 4, column = turned ? here / 4 : here % 4 * 2 + j;
      const uint16_t *from;
      memcpy(&from, shown(i * 8 + line), sizeof from);
      pair[j] = from[column];
    }
    memcpy(to + i, pair, sizeof pair);
  }
}

/* Copies happen no sooner than they are waited for: what is read before that is old. */
inline void copy_later(void *to, const void *from, uint32_t bytes) {
  if (((uintptr_t)to | (uintptr_t)from) % bytes) {
    fail("thread %u copies %u bytes from or to an address that is no multiple of them", running->current, bytes);
    fail_thread();
  }
  running->threads[running->current].copies.push_back({to, from, bytes});
}
inline void wait_for_copies() {
  std::vector<copy> &copies = running->threads[running->current].copies;
  for (const copy &c : copies) {
    if (c.from)
      memcpy(c.to, c.from, c.bytes);
    else
      memset(c.to, 0, c.bytes);
  }
  copies.clear();
}

} // namespace shim

/* ---- Atomics: threads do not run at the same time ------------------------------------------------------------------ */

template <typename T>
static inline T atomicAdd(T *at, T by) {
  const T before = *at;
  *at = (T)(before + by);
  return before;
}
template <typename T>
static inline T atomicMax(T *at, T x) {
  const T before = *at;
  if (x > before) *at = x;
  return before;
}
template <typename T>
static inline T atomicMin(T *at, T x) {
  const T before = *at;
  if (x < before) *at = x;
  return before;
}
template <typename T>
static inline T atomicOr(T *at, T x) {
  const T before = *at;
  *at = before | x;
  return before;
}
template <typename T>
static inline T atomicExch(T *at, T x) {
  const T before = *at;
  *at = x;
  return before;
}
template <typename T>
static inline T atomicCAS(T *at, T expected, T x) {
  const T before = *at;
  if (before == expected) *at = x;
  return before;
}
static inline void __threadfence() {}

/* ---- The table ---------------------------------------------------------------------------------------------------- */

namespace shim {
enum { KERNELS = 512 };
SHIM_STATE static uint32_t num_kernels;
} // namespace shim

extern "C" {
SHIM_STATE __attribute__((visibility("default"), used)) fakecuda_kernel fakecuda_kernels[shim::KERNELS + 1];
}

namespace shim {
struct entry {
  uint32_t size, alignment;
};
inline bool add(const char *name, fakecuda_kernel_fn run, const entry *e) {
  if (num_kernels == KERNELS) abort();
  fakecuda_kernels[num_kernels++] = {name, run, 1, &e->size, &e->alignment};
  return true;
}
} // namespace shim

#define ADCG_KERNEL(name, args, most)                                                                      \
  static void name(const args &a);                                                                         \
  static void name##_run(const fakecuda_launch *launch) {                                                  \
    shim::run(#name, most, [](const void *argument) { name(*(const args *)argument); }, launch);           \
  }                                                                                                        \
  SHIM_STATE static shim::entry name##_entry = {sizeof(args), alignof(args)};                              \
  SHIM_STATE static bool name##_added __attribute__((used)) = shim::add(#name, name##_run, &name##_entry); \
  static void name([[maybe_unused]] const args &a)

#endif
