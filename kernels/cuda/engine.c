/* Launching the engine's own kernels. */
#include "launch.h"

adcg_status adcgk_cuda_set_batch(const adcgk_cuda *device, const adcg_launcher *launcher, const adcg_batch *batch,
                                 adcg_batch *device_batch) {
  adcg_set_batch_args args = {device_batch, *batch};
  return adcgk_cuda_enqueue(device, launcher, ADCGK_K_adcg_set_batch, 1, 32, 0, &args);
}
