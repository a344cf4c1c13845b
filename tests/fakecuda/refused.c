/* What the stand-in exports and does not do (cuda_refused.h): 801 with a reason, once the driver is initialised. */
#include "state.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define FAKECUDA_REFUSED(what, name, ...)              \
  CUresult name(__VA_ARGS__) {                         \
    ENTER(0);                                          \
    fc_say("%s: the stand-in has no %s", #name, what); \
    LEAVE(CUDA_ERROR_NOT_SUPPORTED);                   \
  }
#include "cuda_refused.h"
