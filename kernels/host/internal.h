/* What the files of this folder share: the kernels of one instruction set, parallel regions, small helpers. */
#ifndef ADCGK_INTERNAL_H_
#define ADCGK_INTERNAL_H_

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "../common/activation.h"
#include "../common/tensor.h"
#include "host.h"

/* ---- Parallel regions (pool.c) ------------------------------------------------------------------------- */

typedef void (*adcgk_task_fn)(void *context, int64_t task);

/* Calls fn(context, t) for t = 0 .. tasks-1, each once, in any order, on the caller and the pool's workers; returns
 * when all are done. `nanoseconds` is a guess of the whole work on one core: what is too short to share, and what
 * comes while the pool is busy with another caller's region, runs on the caller alone. pool may be NULL. */
void adcgk_parallel(adcgk_pool *pool, int64_t tasks, double nanoseconds, adcgk_task_fn fn, void *context);

/* ---- Kernels of one instruction set (isa_*.c) ----------------------------------------------------------- */

/* y[m][n] = activation(bias[n] + sum over k of x[m][k] * w[n][k]). Strides are in elements. A sum's order depends on K alone. */
typedef struct adcgk_product {
  const void *x; /* [M, K], rows ldx apart */
  const int32_t *rows; /* [M]: row m of the product is row rows[m] of x; NULL: they are the same */
  const void *w; /* [N, K], rows ldw apart */
  const void *bias; /* [N]; may be NULL */
  void *y; /* [M, N], rows ldy apart */
  int64_t k, ldx, ldw, ldy;
  bool x_bf16, w_bf16, bias_bf16, y_bf16;
  adcgk_activation activation;
} adcgk_product;

enum { ADCGK_GATE_NONE, ADCGK_GATE_BEFORE, ADCGK_GATE_AFTER };

/* A norm of one row. */
typedef struct adcgk_norm {
  const void *weight, *bias; /* [n]; bias may be NULL */
  int64_t n;
  float eps;
  bool bf16, weight_bf16, bias_bf16; /* bf16: x, y and z are */
  bool one_plus; /* the weight counts as 1 + weight */
  int32_t gate; /* whether silu(z) is multiplied, and when: before the norm or after it */
} adcgk_norm;

/* Elements first .. first+n-1 of y from those of a and b; y may be either. Ops of one operand leave b alone. */
typedef void (*adcgk_elements_fn)(void *y, const void *a, const void *b, bool bf16, int64_t first, int64_t n);

enum {
  ADCGK_KEY_BLOCK = 64, /* keys that one softmax step covers; blocks start at multiples of it in a sequence */
  ADCGK_TILE_ROWS = 96, /* query rows (positions times heads of a group) that share the reading of a key block */
  ADCGK_TILE_FLOATS = 36864 /* room of a tile's queries, sums and weights, on the stack: 144 KiB */
};

/* Query rows that share keys and values: rows of one tile belong to one sequence and one key/value head. */
typedef struct adcgk_attend {
  int32_t rows;  /* 1 .. ADCGK_TILE_ROWS */
  int32_t d, dv; /* head dims of keys and of values */
  int32_t ldq, lda; /* floats from row to row of q and of sums */
  const float *q; /* [rows, ldq]; ldq is d rounded up to a multiple of 16, the rest zeros */
  const int64_t *first, *end; /* [rows]: row r sees keys first[r] .. end[r]-1; both rise with r */
  /* Before each block: sets the next four so that keys `block` .. end-1, all of one block, can be read. */
  void (*load)(struct adcgk_attend *a, int64_t block, int64_t end);
  const void *source; /* load's own */
  const void *keys, *values; /* of key `block` */
  int64_t key_stride, value_stride; /* elements from key to key */
  bool cache_bf16; /* of keys and values */
  float scale, softcap; /* softcap 0: none */
  float *weights; /* [rows, ADCGK_KEY_BLOCK] of scratch */
  /* The softmax's state, which attend takes on from where it stands: sums are 0, largest and total the sink's logit and
   * 1 (or -inf and 0) at first, and keys may come in several calls, block after block. */
  float *sums; /* [rows, lda]: the weighted values; lda is a multiple of 16 */
  float *largest, *total; /* [rows] */
} adcgk_attend;

/* A tile of channels of a causal convolution, over tokens of one sequence. `ld` floats are from tap to tap: the channels
 * rounded up to a multiple of 16. */
typedef struct adcgk_conv {
  int64_t tokens, channels, taps, ld;
  const void *x; /* [tokens, channels], rows ldx apart */
  void *y;       /* likewise, ldy; may be x */
  int64_t ldx, ldy;
  bool bf16;           /* x and y */
  bool round;          /* the history is rounded to bf16, as the state that it comes from */
  bool silu;
  const float *weight; /* [taps, ld] */
  const float *bias;   /* [ld] */
  float *history;      /* [taps - 1, ld]: in, the inputs before the first, oldest first; out, a ring of the last ones */
} adcgk_conv;

enum {
  ADCGK_SCAN_TOKENS = 16, /* tokens for which a scan holds a part of the state in registers or L1 */
  ADCGK_SCAN_ROWS = 16,   /* rows of an ssm's state that one call takes at most */
  ADCGK_SCAN_VALUES = 32  /* columns of a delta rule's state that are updated together */
};

/* Rows of one head's state, over tokens of one sequence: S = S * decay + step * (x outer b), y = S . c + skip * x. */
typedef struct adcgk_ssm {
  int32_t tokens, rows;  /* up to ADCGK_SCAN_TOKENS, up to ADCGK_SCAN_ROWS */
  int64_t n, ld;         /* elements of a row of the state; floats from token to token of b and c, a multiple of 16 */
  const float *b, *c;    /* [tokens, ld], zeros behind n */
  const float *step, *decay; /* [tokens] */
  float skip;
  const void *x; /* [tokens, rows], ldx apart */
  void *y;       /* likewise, ldy; may be x */
  int64_t ldx, ldy;
  bool bf16;    /* x and y */
  float *state; /* [rows, n] */
} adcgk_ssm;

/* Columns of one head's state, over tokens of one sequence: S = S * decay, S += key outer (beta * (v - key S)), out = query S. */
typedef struct adcgk_delta {
  int32_t tokens, keys;  /* up to ADCGK_SCAN_TOKENS; rows of the state */
  int64_t ld;            /* floats from token to token of key and query */
  const float *query, *key; /* [tokens, keys] */
  const float *decay;    /* [tokens]; NULL: 1 */
  const float *beta;     /* [tokens] */
  const void *v;         /* [tokens, values], ldv apart */
  void *out;             /* likewise, ldo; may be v */
  int64_t ldv, ldo;
  bool bf16; /* v and out */
  int64_t values;
  float *state; /* [keys, values], lds apart */
  int64_t lds;
  float *scratch; /* [keys, ADCGK_SCAN_VALUES] */
} adcgk_delta;

typedef struct adcgk_kernels {
  const char *name;
  /* Rows m0 .. m1-1 and columns n0 .. n1-1 of a product. */
  void (*product)(const adcgk_product *p, int64_t m0, int64_t m1, int64_t n0, int64_t n1);
  /* y[m][n] = sum over k of x[m][k] * w[k][n], k after k, for up to ADCGK_TILE_ROWS rows. y is f32, and ldy n rounded up
   * to a multiple of 16 or more; there is no bias. */
  void (*product_along)(const adcgk_product *p, int64_t m, int64_t n);
  /* Online softmax of a tile over its keys: sums[r] / total[r] is the attention of row r. */
  void (*attend)(const adcgk_attend *a);
  /* to[i] = sums[i] / total */
  void (*divide)(void *to, bool to_bf16, const float *from, float divisor, int64_t n);
  /* to[i] = from[i] between f32 and bf16. */
  void (*convert)(void *to, bool to_bf16, const void *from, bool from_bf16, int64_t n);
  /* Between f32 (or bf16) and fp8 e4m3: exact one way, to nearest even the other, saturating at +-448; NaN stays NaN. */
  void (*from_fp8)(float *to, const uint8_t *from, int64_t n);
  void (*to_fp8)(uint8_t *to, const void *from, bool from_bf16, int64_t n);
  /* One row: y = x * rsqrt(mean(x^2) + eps) * weight. y may be x or z. */
  void (*rms_norm)(void *y, const void *x, const void *z, const adcgk_norm *norm);
  /* One row: y = (x - mean) * rsqrt(variance + eps) * weight + bias. y may be x. */
  void (*layer_norm)(void *y, const void *x, const adcgk_norm *norm);
  /* One row: y = exp(x) / sum(exp(x)). y may be x. */
  void (*softmax)(void *y, const void *x, bool bf16, int64_t n);
  /* to[i] = exp((x[first + i] - largest) / temperature), and x itself in f32. */
  void (*masses)(float *logits, float *to, const void *x, bool bf16, float largest, float temperature, int64_t first, int64_t n);
  adcgk_elements_fn add, mul, silu_mul, gelu_mul, gelu_tanh_mul, sigmoid_mul; /* sigmoid_mul: a * sigmoid(b) */
  adcgk_elements_fn silu, relu2, sigmoid; /* of a */
  /* y = x * by. y may be x. */
  void (*scale)(void *y, const void *x, bool bf16, float by, int64_t n);
  /* sin and cos of position * frequency[i]. */
  void (*angles)(float *sine, float *cosine, const float *frequency, float position, int64_t n);
  /* Rotates the pairs (x[i], x[i + half]), i = 0 .. n-1. y may be x. */
  void (*rotate)(void *y, const void *x, bool bf16, int64_t half, const float *sine, const float *cosine, int64_t n);
  /* Rotates the pairs (x[2i], x[2i + 1]), i = 0 .. n-1, in their places (y may be x) or to (y[i], y[i + half]) (y must not). */
  void (*rotate_pairs)(void *y, const void *x, bool bf16, bool halves, int64_t half, const float *sine, const float *cosine, int64_t n);
  /* The lowest index of the largest element; a NaN is larger than all. */
  int64_t (*argmax)(const void *x, bool bf16, int64_t n);
  /* to[16 b + l] = the largest of x[16 i + l], i = b * block .. (b + 1) * block - 1, for each of `blocks`; x has no NaN. */
  void (*maxima)(float *to, const void *x, bool bf16, int64_t block, int64_t blocks);
  /* Of x[first .. first + n - 1], the elements whose ranks are low .. high: how many there are, and of the first `room` the
   * values and their places in x. The rank is an integer that rises with the element: of 0 and -0 it is 0, of what is
   * above 0 the bits, of what is below 0 -1 minus the bits behind the sign. */
  int64_t (*between)(float *values, int32_t *at, int64_t room, const void *x, bool bf16, int32_t low, int32_t high, int64_t first,
                     int64_t n);
  /* The tap of the history's ring that is oldest afterwards. */
  int64_t (*conv)(const adcgk_conv *c);
  /* step[i] = clamp(softplus(dt[i] + bias)) and decay[i] = exp(step[i] * a), 16 of them; `high` may be infinite. */
  void (*ssm_steps)(float *step, float *decay, const float *dt, float bias, float a, bool softplus, float low, float high);
  void (*ssm)(const adcgk_ssm *a);
  /* to[i] = from[i] * scale, or from[i] * rsqrt(sum(from^2) + eps) * scale. */
  void (*delta_key)(float *to, const void *from, bool bf16, bool l2norm, float eps, float scale, int64_t n);
  void (*exp)(float *y, const float *x, int64_t n);
  void (*delta)(const adcgk_delta *a);
  /* g = -exp(a_log) * softplus(a + dt_bias), beta = sigmoid(b) */
  void (*gdn_gating)(float *g, float *beta, const void *a, const void *b, bool bf16, const void *a_log, bool a_log_bf16,
                     const void *dt_bias, bool dt_bias_bf16, int64_t n);
  /* One row of router scores: the sigmoid of every logit, or the softmax over all. */
  void (*router_scores)(float *to, const void *logits, bool bf16, bool softmax, int64_t n);
  /* to[first + i] = activation(gate[i]) * up[i]; up NULL: activation(gate[i]). */
  void (*activate)(void *to, bool to_bf16, int64_t first, const float *gate, const float *up, adcgk_activation activation, int64_t n);
  /* sums[i] += weight * x[i] */
  void (*accumulate)(float *sums, const float *x, float weight, int64_t n);
} adcgk_kernels;

/* Tables of the instruction sets that this build has; adcgk_active (registry.c) is the one in use. */
extern const adcgk_kernels adcgk_kernels_avx512, adcgk_kernels_avx2, adcgk_kernels_neon, adcgk_kernels_c;
const adcgk_kernels *adcgk_active(void);

/* ---- Helpers ------------------------------------------------------------------------------------------- */

static inline adcgk_pool *adcgk_pool_of(void *user_data) { return user_data ? ((adcgk_node *)user_data)->pool : NULL; }

/* Ends a launch with a formatted message. */
adcg_status adcgk_fail(const adcg_op_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Checks the real sequences of a step (sequences.c): cu_seqlens starts at 0, rises and ends at the step's tokens; no input_pos is
 * negative, and no sequence ends beyond `max_len` positions ("the cache holds 128 positions" is how `limit` ends the message).
 * input_pos may be NULL: then cu_seqlens alone. */
adcg_status adcgk_check_sequences(const adcg_op_call *call, const int32_t *cu_seqlens, const int32_t *input_pos, int64_t max_len,
                                  const char *limit);
/* Slots are in range, and no two sequences share one; `what` has the slots: "cache", "state". */
adcg_status adcgk_check_slots(const adcg_op_call *call, const int32_t *slots, int64_t seqs, int64_t count, const char *what);

/* ---- Ops ----------------------------------------------------------------------------------------------- */

adcg_status adcgk_linear(const adcg_op_call *call, void *user_data);
adcg_status adcgk_attention(const adcg_op_call *call, void *user_data);
adcg_status adcgk_paged_attention(const adcg_op_call *call, void *user_data);
adcg_status adcgk_mla_attention(const adcg_op_call *call, void *user_data);
adcg_status adcgk_mla_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data);
adcg_status adcgk_paged_mla_attention(const adcg_op_call *call, void *user_data);
adcg_status adcgk_paged_metadata(const adcg_op_call *call, void *user_data);
adcg_status adcgk_attention_metadata(const adcg_op_call *call, void *user_data);
adcg_status adcgk_rms_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_layer_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_add_rms_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_qk_norm(const adcg_op_call *call, void *user_data);
adcg_status adcgk_softmax(const adcg_op_call *call, void *user_data);
adcg_status adcgk_add(const adcg_op_call *call, void *user_data);
adcg_status adcgk_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_silu_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_gelu_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_sigmoid_mul(const adcg_op_call *call, void *user_data);
adcg_status adcgk_silu(const adcg_op_call *call, void *user_data);
adcg_status adcgk_relu2(const adcg_op_call *call, void *user_data);
adcg_status adcgk_sigmoid(const adcg_op_call *call, void *user_data);
adcg_status adcgk_cast(const adcg_op_call *call, void *user_data);
adcg_status adcgk_sample(const adcg_op_call *call, void *user_data);
adcg_status adcgk_rope(const adcg_op_call *call, void *user_data);
adcg_status adcgk_rope_prepare(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs, void **out_state,
                               void (*set_error)(const char *));
adcg_status adcgk_embedding(const adcg_op_call *call, void *user_data);
adcg_status adcgk_gather_tokens(const adcg_op_call *call, void *user_data);
adcg_status adcgk_argmax(const adcg_op_call *call, void *user_data);
adcg_status adcgk_slice(const adcg_op_call *call, void *user_data);
adcg_status adcgk_concat(const adcg_op_call *call, void *user_data);
adcg_status adcgk_causal_conv1d(const adcg_op_call *call, void *user_data);
adcg_status adcgk_ssm_scan(const adcg_op_call *call, void *user_data);
adcg_status adcgk_ssm_metadata(const adcg_op_call *call, void *user_data);
adcg_status adcgk_delta_rule(const adcg_op_call *call, void *user_data);
adcg_status adcgk_gated_delta_rule(const adcg_op_call *call, void *user_data);
adcg_status adcgk_gdn_gating(const adcg_op_call *call, void *user_data);
adcg_status adcgk_moe_router(const adcg_op_call *call, void *user_data);
adcg_status adcgk_moe_router_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data);
adcg_status adcgk_moe(const adcg_op_call *call, void *user_data);
adcg_status adcgk_moe_workspace(const adcg_op_call *call, size_t *out_bytes, void *user_data);

#endif /* ADCGK_INTERNAL_H_ */
