/* Every kernel, in one translation unit: the image, and build/fakecuda/kernels.so. */
#include "engine.cu"
#include "elements.cu"
#include "norms.cu"
#include "rope.cu"
#include "linear.cu"
#include "index.cu"
#include "attention.cu"
#include "attention_cores.cu"
