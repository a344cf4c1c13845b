/* Kernels that make mistakes, and the same without: tests of the shim (test_shim.py). */
#include "shim.h"

typedef struct words_args {
  const int *from;
  int *to;
  int count; /* that a kernel may need */
  int unused;
} words_args;

/* to = from in reverse, through shared memory. */
ADCG_KERNEL(reverse, words_args, 256) {
  __shared__ int room[256];
  room[threadIdx.x] = a.from[threadIdx.x];
  __syncthreads();
  a.to[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
}
ADCG_KERNEL(reverse_unsynchronised, words_args, 256) {
  __shared__ int room[256];
  room[threadIdx.x] = a.from[threadIdx.x];
  a.to[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
}
/* Right in the order of threads: only another shows it. */
ADCG_KERNEL(copy_unsynchronised, words_args, 256) {
  __shared__ int room[256];
  room[threadIdx.x] = a.from[threadIdx.x];
  a.to[threadIdx.x] = room[threadIdx.x ? threadIdx.x - 1 : 0];
}
ADCG_KERNEL(copy_synchronised, words_args, 256) {
  __shared__ int room[256];
  room[threadIdx.x] = a.from[threadIdx.x];
  __syncthreads();
  a.to[threadIdx.x] = room[threadIdx.x ? threadIdx.x - 1 : 0];
}

/* A block reads what the one before it wrote. */
ADCG_KERNEL(chain, words_args, 32) { a.to[blockIdx.x + 1] = a.to[blockIdx.x]; }

/* Reads shared memory that it did not write. */
ADCG_KERNEL(stale, words_args, 32) {
  __shared__ int room[32];
  ADCG_SHARED(int, more);
  if (a.count) room[threadIdx.x] = a.count;
  a.to[0] = room[threadIdx.x];
  a.to[1] = more[threadIdx.x];
}
ADCG_KERNEL(dynamic, words_args, 32) {
  ADCG_SHARED(int, room);
  for (int i = 0; i < a.count; i++) room[i] = i;
  a.to[0] = room[a.count - 1];
}

ADCG_KERNEL(divergent_barrier, words_args, 256) {
  if ((int)threadIdx.x < a.count) __syncthreads();
  a.to[threadIdx.x] = 1;
}
ADCG_KERNEL(two_barriers, words_args, 256) {
  if ((int)threadIdx.x < a.count)
    __syncthreads();
  else
    __syncthreads();
  a.to[threadIdx.x] = 1;
}
ADCG_KERNEL(votes, words_args, 256) {
  const int one = a.from[threadIdx.x] > 0;
  const int any = __syncthreads_or(one), all = __syncthreads_and(one), count = __syncthreads_count(one);
  const uint32_t ballot = __ballot_sync(0xffffffffu, one);
  a.to[threadIdx.x] = 1000 * count + 100 * any + 10 * all + (ballot >> threadIdx.x % 32 & 1);
}

/* Sums over the warp, and what its lower half alone may ask. */
ADCG_KERNEL(shuffles, words_args, 64) {
  int sum = a.from[threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  int low = -1;
  if (threadIdx.x % 32 < 16) low = __shfl_down_sync(0x0000ffffu, a.from[threadIdx.x], 1u, 16);
  const int up = __shfl_up_sync(0xffffffffu, a.from[threadIdx.x], 3u), four = __shfl_sync(0xffffffffu, a.from[threadIdx.x], 2, 4);
  a.to[4 * threadIdx.x] = sum;
  a.to[4 * threadIdx.x + 1] = low;
  a.to[4 * threadIdx.x + 2] = up;
  a.to[4 * threadIdx.x + 3] = four;
}
ADCG_KERNEL(divergent_shuffle, words_args, 64) {
  if ((int)threadIdx.x < a.count) a.to[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (int)threadIdx.x, 1);
}
ADCG_KERNEL(masks_differ, words_args, 64) {
  a.to[threadIdx.x] = __shfl_xor_sync(threadIdx.x < 16 ? 0x0000ffffu : 0xffffffffu, (int)threadIdx.x, 1);
}
ADCG_KERNEL(foreign_lane, words_args, 64) {
  if (threadIdx.x < 16) a.to[threadIdx.x] = __shfl_sync(0x0000ffffu, (int)threadIdx.x, 20);
}
ADCG_KERNEL(other_operation, words_args, 64) {
  if (threadIdx.x % 2)
    __syncwarp();
  else
    a.to[threadIdx.x] = (int)__ballot_sync(0xffffffffu, 1);
}
ADCG_KERNEL(not_among_its_lanes, words_args, 64) { __syncwarp(0x0000ffffu); }

ADCG_KERNEL(deep, words_args, 64) {
  volatile char room[120 << 10];
  for (int i = 0; i < a.count; i += 1024) room[i] = (char)i;
  __syncthreads();
  a.to[threadIdx.x] = (unsigned char)room[0];
}
