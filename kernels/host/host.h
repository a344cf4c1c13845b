/* The host device's op library: C kernels behind one table, and the thread pool that they share.
 *
 * Internal to the library. The kernels depend on libc, libm and libpthread alone; they allocate nothing while they
 * run and keep no state but the pool. Every instruction set gives the same bits (NaN payloads excepted), see simd.h.
 */
#ifndef ADCGK_HOST_H_
#define ADCGK_HOST_H_

#include <adcg/adcg.h>

typedef struct adcgk_pool adcgk_pool;

/* Creates a pool of `threads` threads, the caller's own included; 0: one per online core. NULL if out of memory.
 * Nothing is started before the first parallel use; if threads cannot be started it works with those it has. Several
 * threads may run kernels on one pool at once: one of them gets the workers, the others work alone. */
adcgk_pool *adcgk_pool_create(int32_t threads);

/* Ends the workers and frees the pool, which no launch may be using. NULL does nothing. */
void adcgk_pool_destroy(adcgk_pool *pool);

/* How many threads work at most, the caller included. */
int32_t adcgk_pool_threads(const adcgk_pool *pool);

/* user_data of every launch and workspace function of this library. */
typedef struct adcgk_node {
  adcgk_pool *pool;
  void *state; /* from prepare; NULL if the op has none */
} adcgk_node;

typedef struct adcgk_op {
  const char *name;
  adcg_op_launch_fn launch;       /* NULL: a view, nothing to run */
  adcg_op_workspace_fn workspace; /* NULL: none */
  /* State that is computed once per node of a graph from its attributes and types (rope's frequencies). NULL: none.
   * *out_state is one block of malloc's, the caller's to free(). */
  adcg_status (*prepare)(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs, void **out_state,
                         void (*set_error)(const char *));
} adcgk_op;

/* The op of that name, "adcg.linear"; NULL: none. */
const adcgk_op *adcgk_find(const char *name);

/* The instruction set that the kernels run on: "avx512", "avx2", "neon", "c". */
const char *adcgk_isa(void);

/* For tests and benchmarks: forces an instruction set; "" is the machine's best again. ADCG_ERR_UNSUPPORTED if the
 * machine lacks it, ADCG_ERR_NOT_FOUND if there is none of that name. Not to be called while kernels run. */
adcg_status adcgk_set_isa(const char *name);

#endif /* ADCGK_HOST_H_ */
