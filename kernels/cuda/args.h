/* The arguments of the kernels: each has exactly one, a struct by value. Plain C, shared by the launchers (.c) and the
 * kernels (.cu). Structs have no padding, and launchers set every word: what is captured is compared word by word to find the
 * pointers in it. Pointers are the tensors' own or lie a fixed distance from them. Nothing else here depends on an address, its
 * alignment neither: a captured launch may be given others later, so kernels look at alignment when they run. */
#ifndef ADCGK_CUDA_ARGS_H_
#define ADCGK_CUDA_ARGS_H_

#include "../common/runs.h"

#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"
#endif

typedef struct adcg_set_batch_args {
  adcg_batch *to;
  adcg_batch batch;
} adcg_set_batch_args;

/* Zeroes rows [real, rows) of a tensor, real = tokens * (real tokens) + seqs * (real sequences) + constant. */
typedef struct adcg_zero_tail_args {
  char *data;
  const adcg_batch *batch;
  int64_t rows, row_stride; /* bytes from row to row */
  int64_t tokens, seqs, constant;
  adcgk_runs runs; /* of one row, in bytes */
} adcg_zero_tail_args;

/* Runs of `from` to those of `to`, in bytes. */
typedef struct adcg_copy_args {
  char *to;
  const char *from;
  adcgk_runs runs;
} adcg_copy_args;

/* y = op(a, b), run by run; ops of one operand leave b alone. */
typedef struct adcg_elements_args {
  void *y;
  const void *a, *b;
  adcgk_runs runs;
  int64_t one_b; /* not 0: a run has one element of b */
} adcg_elements_args;

enum { ADCG_GATE_NONE, ADCG_GATE_BEFORE, ADCG_GATE_AFTER };

/* Norms and softmax: rows of all tensors are runs, of which each is cut into `groups`. */
typedef struct adcg_rows_args {
  void *y;
  const void *x, *z; /* z: the gate of rms_norm, b of add_rms_norm; or NULL */
  void *sum;         /* of add_rms_norm: x + z; or NULL */
  const void *weight, *bias;
  adcgk_runs runs; /* of y, x, z, sum */
  int64_t groups;
  float eps;
  int32_t threads; /* of one row; a function of its length alone */
  int32_t weight_bf16, bias_bf16;
  int32_t one_plus, gate; /* the weight counts as 1 + weight; ADCG_GATE_* */
} adcg_rows_args;

/* y[m][n] = activation(bias[n] + sum over k of x[m][k] * w[n][k]) */
typedef struct adcg_linear_args {
  void *y;
  const void *x, *w, *bias; /* bias: or NULL */
  int64_t m, n, k;
  int64_t ldx, ldy; /* elements from row to row */
  adcgk_runs row;   /* of x */
  int32_t bias_bf16, activation; /* adcgk_activation */
} adcg_linear_args;

/* y[m][n] = activation(bias[n] + sums[m][n]) */
typedef struct adcg_linear_finish_args {
  void *y;
  const float *sums; /* may be y */
  const void *bias;  /* or NULL */
  int64_t m, n;
  int64_t lds, ldy; /* elements from row to row */
  int32_t y_bf16, bias_bf16;
  int32_t activation; /* adcgk_activation */
  int32_t unused;
} adcg_linear_finish_args;

enum { ADCG_ROPE_PAIRS = 512 };

/* Rotates the pairs of each head, and copies what is behind them. */
typedef struct adcg_rope_args {
  void *y;
  const void *x;
  const int32_t *positions;
  int64_t tokens, heads, d, half;
  int64_t x_token, x_head, y_token, y_head; /* elements from one to the next */
  int32_t layout; /* adcgk_rope_layout */
  float scale;    /* of sines and cosines */
  float frequency[ADCG_ROPE_PAIRS];
} adcg_rope_args;

/* Row i of y is row index[i] of x. */
typedef struct adcg_take_args {
  void *y;
  const void *x;
  const int32_t *index;
  const adcg_batch *batch; /* of gather_tokens: real rows and real tokens; NULL: all rows, of x too */
  int64_t rows, x_rows;
  int64_t y_stride, x_stride; /* elements from row to row */
  adcgk_runs runs; /* of a row of y and of x */
} adcg_take_args;

typedef struct adcg_argmax_args {
  int32_t *y;
  const void *x;
  int64_t rows, n, stride; /* elements from row to row */
} adcg_argmax_args;

typedef struct adcg_attention_metadata_args {
  int32_t *batch_indices, *positions; /* [tokens] */
  const int32_t *cu_seqlens, *input_pos;
  const adcg_batch *batch;
  int64_t tokens;
} adcg_attention_metadata_args;

typedef struct adcg_paged_metadata_args {
  int32_t *block_tables; /* [seqs, most] */
  const int32_t *cu_num_pages, *cache_loc;
  const adcg_batch *batch;
  int64_t seqs, most, pages; /* pages: extent of cache_loc */
} adcg_paged_metadata_args;

enum { ADCG_CACHE_F32, ADCG_CACHE_BF16, ADCG_CACHE_FP8 };
enum {
  ADCG_CHUNK_KEYS = 256,     /* keys whose part of attention is worked out by itself (attention.h) */
  ADCG_PLAIN_THREADS = 128,  /* of a block of the plain kernel, */
  ADCG_PLAIN_ROWS = 16,      /* rows of its tile at most, */
  ADCG_PLAIN_FLOATS = 12288, /* and floats of shared memory that it has */
  ADCG_TILE_ROWS = 128,      /* rows of a tile on tensor cores, */
  ADCG_WIDE_ROWS = 192,      /* of a wide one, */
  ADCG_SPLIT_ROWS = 16,      /* and where the keys are split, by blocks of */
  ADCG_SPLIT_THREADS = 128,  /* so many threads; */
  ADCG_WIDE_BYTES = 214528,  /* bytes of shared memory of a wide tile, */
  ADCG_SPLIT_BYTES = 77056   /* and of split keys, for heads of 128 dims */
};

/* Attention over a cache: the same for all of its kernels, but for the tiles. */
typedef struct adcg_attention_args {
  const void *q, *k, *v, *sinks; /* sinks: or NULL */
  void *out, *k_cache, *v_cache;
  const int32_t *cu_seqlens, *input_pos;
  const int32_t *slots;            /* of a slot cache, else NULL */
  const int32_t *cu_pages, *pages; /* of a paged one, else NULL */
  const adcg_batch *batch;
  float *sums, *states; /* of chunks, where keys are split: attention.h */
  int64_t tokens, seqs; /* the bucket */
  int64_t heads, kv_heads, d, dv;
  int64_t q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head; /* elements from one to the next */
  int64_t length, count, entries; /* rows of a slot or page; slots or pages; of `pages` */
  int64_t tile_heads, head_tiles, tile_tokens; /* heads of a group in one tile at most, tiles that a group needs, tokens of one */
  int64_t tiles;                  /* of tokens, that the grid has room for */
  int64_t split_tokens;           /* sequences of up to so many tokens have their keys split; */
  int64_t splits, chunks;         /* into so many parts at most; chunks that a slot has */
  float scale, softcap;           /* softcap 0: none */
  int32_t bf16, cache, sinks_bf16; /* q, k, v and out are; ADCG_CACHE_* */
  int32_t split, base2;           /* the launch is of split sequences; scores are in powers of two */
  int32_t window;                 /* 0: none */
} adcg_attention_args;

#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC diagnostic pop
#endif

#endif /* ADCGK_CUDA_ARGS_H_ */
