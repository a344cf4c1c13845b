#define _POSIX_C_SOURCE 200809L
#include "util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fflush(stdout);
  fputs("serve: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(2);
}

void *allocate(int64_t count, int64_t size) {
  void *memory = calloc(count > 0 ? (size_t)count : 1, (size_t)size);
  if (!memory) die("out of memory: %lld * %lld bytes", (long long)count, (long long)size);
  return memory;
}

double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

uint64_t random_bits(uint64_t *state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double random_unit(uint64_t *state) { return (double)(random_bits(state) >> 11) * 0x1p-53; }

int64_t random_between(uint64_t *state, int64_t low, int64_t high) {
  return low + (int64_t)(random_unit(state) * (double)(high - low + 1));
}

DLTensor tensor(DLDevice device, void *data, adcg_dtype dtype, int32_t ndim, int64_t *shape) {
  return (DLTensor){data, device, ndim, adcg_dtype_to_dlpack(dtype), shape, NULL, 0};
}
