/* A shared object of kernels, as a module image names one: a struct parameter and the packed buffer, and a stray write. */
#include <string.h>

#include "../fakecuda.h"

typedef struct pair {
  int32_t scale;
  uint8_t add;
} pair;

static void affine(const fakecuda_launch *launch) {
  int32_t *data;
  pair by;
  uint32_t n;
  memcpy(&data, launch->args[0], sizeof data);
  memcpy(&by, launch->args[1], sizeof by);
  memcpy(&n, (const char *)launch->packed + 16, sizeof n);
  for (uint32_t i = 0; i < n && i < launch->grid[0] * launch->block[0]; i++) data[i] = data[i] * by.scale + by.add;
}

static void stray(const fakecuda_launch *launch) {
  volatile uint32_t *where;
  memcpy((void *)&where, launch->args[0], sizeof where);
  *where = 1;
}

static const uint32_t affine_sizes[] = {8, 8, 4}, affine_alignments[] = {8, 4, 4}, stray_sizes[] = {8}, stray_alignments[] = {8};

const fakecuda_kernel fakecuda_kernels[] = {{"affine", affine, 3, affine_sizes, affine_alignments},
                                            {"stray", stray, 1, stray_sizes, stray_alignments},
                                            {NULL, NULL, 0, NULL, NULL}};
