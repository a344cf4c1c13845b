/* The control interface of the stand-in driver: what a test asks of it beside the CUDA calls. The functions are exported by
 * libcuda.so.1 of build/fakecuda; a host that only has dlopen finds them with dlsym. All of them may be called from any thread.
 * What can be set by a call can also be set by an environment variable, read once at cuInit (README.md lists them). */
#ifndef ADCG_TESTS_FAKECUDA_FAKECUDA_H_
#define ADCG_TESTS_FAKECUDA_FAKECUDA_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Kernels -------------------------------------------------------------------------------------------------- */

/* One launch, as a kernel written in C sees it. Device addresses in the arguments are plain pointers while the kernel runs. */
typedef struct fakecuda_launch {
  uint32_t grid[3], block[3];
  uint32_t shared_bytes;   /* dynamic shared memory asked for */
  const void *const *args; /* one pointer per parameter, as kernelParams of cuLaunchKernel */
  const void *packed;      /* the same, as one buffer laid out by the kernel's parameter layout */
  size_t packed_bytes;
  void (*fail)(const char *why); /* ends the launch: its context has CUDA_ERROR_LAUNCH_FAILED. Does not return */
} fakecuda_launch;

/* Runs the whole grid. */
typedef void (*fakecuda_kernel_fn)(const fakecuda_launch *launch);

/* A kernel of a shared object: the object exports `const fakecuda_kernel fakecuda_kernels[]`, ended by a NULL name, and a module
 * image is the text "fakecuda-image 1\nlibrary PATH\n". An image that is neither this nor PTX (a cubin, a fat binary) stands for
 * the object that FAKECUDA_KERNELS names. */
typedef struct fakecuda_kernel {
  const char *name;
  fakecuda_kernel_fn run;
  size_t num_params;
  const uint32_t *sizes, *alignments; /* of each parameter, in bytes */
} fakecuda_kernel;

/* From now on kernels of this name found in PTX images run `run` in place of their body; NULL takes it back. */
void fakecuda_register_kernel(const char *name, fakecuda_kernel_fn run);

/* ---- Faults ---------------------------------------------------------------------------------------------------- */

/* The n-th call from now on (1 is the next one) of the function `name`, of any function if NULL, returns `status` and does nothing.
 * One is armed at a time; n = 0 disarms. Control calls are not counted, nor are cuGetErrorName and cuGetErrorString. */
void fakecuda_fail(const char *name, uint64_t n, int status);

/* How many calls there have been of `name`, of all if NULL, since the start or fakecuda_reset. */
uint64_t fakecuda_calls(const char *name);

/* Whether an armed fault has been delivered. */
int fakecuda_failed(void);

/* ---- Memory and time -------------------------------------------------------------------------------------------- */

/* Device bytes of an executable: `base`, and `per_kernel` for each of its kernel nodes. 112,640 and 2,560 at the start. */
void fakecuda_set_exec_cost(size_t base, size_t per_kernel);

/* Device memory in all, for those contexts that come. */
void fakecuda_set_total_memory(size_t bytes);

typedef struct fakecuda_memory {
  size_t allocated;      /* cuMemAlloc and its relatives, in bytes asked for */
  size_t physical;       /* cuMemCreate */
  size_t executables;    /* of those that live */
  size_t executables_held; /* the most there was: it comes back to later executables, never to the device */
} fakecuda_memory;
void fakecuda_memory_use(fakecuda_memory *use);

/* Bytes that fresh device memory holds from now on, -1 for zeros (the start). 255 makes every float a NaN. */
void fakecuda_set_poison(int byte);

/* Fills device memory now, whatever streams are doing: between the lifetimes of an arena's tensors, say. CUDA status. */
int fakecuda_poison(unsigned long long address, size_t bytes, int byte);

/* ---- Order ------------------------------------------------------------------------------------------------------ */

/* 0: nodes of a graph run in the order in which they were added, as far as their edges allow. Otherwise independent nodes run in an
 * order drawn anew at each launch: an edge that is missing shows sooner or later. */
void fakecuda_set_seed(uint64_t seed);

/* ---- Versions --------------------------------------------------------------------------------------------------- */

/* The driver's version from now on, such as 11080, 12000, 12040 or 13000 (the start): what cuDriverGetVersion says, and which
 * functions cuGetProcAddress finds. A function that is younger returns CUDA_ERROR_NOT_SUPPORTED if it is called all the same. */
void fakecuda_set_version(int version);

/* ---- Reports ---------------------------------------------------------------------------------------------------- */

/* Writes a line for each object that lives: kind, name or size, and the number of the call that made it. Returns how many there are;
 * a primary context counts while it is retained. At most `size` bytes with the closing zero; text may be NULL when size is 0. */
size_t fakecuda_leaks(char *text, size_t size);

/* Why the last call that was refused for a reason of the stand-in's own was refused ("" if none was): a kernel body that it cannot run,
 * an address that a kernel may not touch, a younger function. Valid until this thread's next call. */
const char *fakecuda_reason(void);

/* As after loading: every object is destroyed, every setting of this header and of the environment is read anew. No other thread may be
 * in a call. */
void fakecuda_reset(void);

#ifdef __cplusplus
}
#endif

#endif
