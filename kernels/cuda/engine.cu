/* The engine's own kernels: a step's counts, and the tails behind dynamic ops. */
#include "device.h"

ADCG_KERNEL(adcg_set_batch, adcg_set_batch_args, 32) {
  if (threadIdx.x == 0) *a.to = a.batch;
}
