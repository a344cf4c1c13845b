/* Every kernel, in one translation unit: the image, and build/fakecuda/kernels.so. */
#include "engine.cu"
#include "elements.cu"
#include "norms.cu"
#include "rope.cu"
#include "linear.cu"
#include "lt.cu"
#include "index.cu"
