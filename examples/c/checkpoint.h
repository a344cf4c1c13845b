/* Tensors of a checkpoint folder in the Hugging Face format, mapped into memory and used where they lie. */
#ifndef ADCG_EXAMPLES_CHECKPOINT_H_
#define ADCG_EXAMPLES_CHECKPOINT_H_

#include "util.h"

typedef struct checkpoint_tensor {
  const char *name;
  adcg_dtype dtype;
  int32_t ndim;
  int64_t shape[ADCG_MAX_NDIM];
  void *data; /* the file's pages, read only; memory of its own where the file had float16 or lay unaligned */
} checkpoint_tensor;

typedef struct checkpoint checkpoint;

/* Opens model.safetensors, or the shards that model.safetensors.index.json lists. Ends the program if it cannot. */
checkpoint *checkpoint_open(const char *folder);

/* Opens one safetensors file; NULL if there is none of that name. */
checkpoint *checkpoint_open_file(const char *path);

/* NULL if there is no tensor of that name. */
const checkpoint_tensor *checkpoint_find(const checkpoint *c, const char *name);

void checkpoint_close(checkpoint *c);

#endif /* ADCG_EXAMPLES_CHECKPOINT_H_ */
