/* A Llama-family model as a graph of libadcg, and what it takes to run steps of it. */
#ifndef ADCG_EXAMPLES_LLAMA_H_
#define ADCG_EXAMPLES_LLAMA_H_

#include "checkpoint.h"
#include "config.h"

/* Sizes of the graph: one step's tokens and sequences, the cache's slots and positions. */
typedef struct llama_sizes {
  int64_t max_tokens, max_seqs, slots, max_len;
} llama_sizes;

typedef struct llama {
  llama_config config;
  llama_sizes sizes;
  adcg_engine *engine; /* the caller's */
  DLDevice device;
  adcg_graph *graph; /* frozen */
  struct llama_weight {
    adcg_value value;
    const checkpoint_tensor *tensor;
    void *data; /* on the engine's device */
  } *weights;
  int64_t num_weights;
  adcg_value *caches; /* k and v of layer 0, of layer 1, ... */
} llama;

llama *llama_build(adcg_engine *engine, const llama_config *config, const checkpoint *weights, llama_sizes sizes);
void llama_destroy(llama *model);

/* One sequence's part in a step. */
typedef struct piece {
  int64_t slot, position; /* tokens that the slot holds already */
  const int32_t *tokens;
  int64_t count;
  enum { PREFILL, EXTEND, DECODE } kind;
} piece;

/* An exec of the model with caches and buffers of its own. On the host a step uses the buffers themselves; elsewhere memory of the
 * device stands beside each, and a step copies what the host fills in and what it reads. */
enum { NUM_BUFFERS = 6 }; /* ids, cu_seqlens, input_pos, slot_idx, last, logits */

typedef struct runner {
  llama *model;
  adcg_exec *exec;
  void **caches, *on_device[NUM_BUFFERS];
  int32_t *ids, *cu_seqlens, *input_pos, *slot_idx, *last;
  float *logits; /* [pieces, vocab] of the last step: each piece's last token's */
} runner;

runner *runner_create(llama *model, const adcg_exec_options *options);
void runner_destroy(runner *r);

/* Runs one step; pieces stand in the order prefill, extend, decode. Returns the logits, [count, vocab], valid until the next. */
const float *runner_step(runner *r, const piece *pieces, int64_t count, adcg_step *out_step);

#endif /* ADCG_EXAMPLES_LLAMA_H_ */
