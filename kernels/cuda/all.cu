/* Every kernel, in one translation unit: the image, and build/fakecuda/kernels.so. */
#include "engine.cu"
