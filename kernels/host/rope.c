/* adcg.rope: x [R, N, D], positions [R] -> rotated by position * frequency. Pairs are element i of the first and of the
 * second half of the rotary dims (layout neox), or elements 2i and 2i + 1 (gptj), which go to the two halves in the layout
 * interleaved; dims behind rotary_dim pass unchanged. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "strides.h"

/* Attributes, in the schema's order. */
enum {
  THETA,
  ROTARY_DIM,
  SCALING,
  FACTOR,
  LOW_FREQ_FACTOR,
  HIGH_FREQ_FACTOR,
  ORIGINAL_MAX_POSITION,
  LAYOUT,
  BETA_FAST,
  BETA_SLOW,
  MSCALE,
  MSCALE_ALL_DIM,
  TRUNCATE,
  ATTENTION_FACTOR,
  ATTRIBUTES
};

enum { CHUNK = 256 }; /* pairs whose sines are held on the stack at once; the layout interleaved has no more */

typedef enum layout { NEOX, GPTJ, INTERLEAVED } layout;

typedef struct rope_state {
  layout layout;
  float scale;       /* of sines and cosines */
  int64_t half;      /* pairs: rotary_dim / 2 */
  float frequency[]; /* [half], radians per position */
} rope_state;

/* The pair that turns `turns` times over the context that a model was trained with, as a fraction. */
static double pair_of(const adcg_attr *attrs, int64_t rotary, double turns) {
  const double context = (double)attrs[ORIGINAL_MAX_POSITION].i;
  return (double)rotary * log(context / (turns * 6.283185307179586)) / (2 * log(attrs[THETA].f));
}

static double mscale_of(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

/* Of sines and cosines under yarn: what is given, or what follows from factor and mscales. */
static float attention_factor(const adcg_attr *attrs) {
  const double factor = attrs[FACTOR].f, mscale = attrs[MSCALE].f, all_dim = attrs[MSCALE_ALL_DIM].f;
  if (attrs[ATTENTION_FACTOR].f != 0) return (float)attrs[ATTENTION_FACTOR].f;
  if (mscale != 0 && all_dim != 0) return (float)(mscale_of(factor, mscale) / mscale_of(factor, all_dim));
  return (float)mscale_of(factor, 1);
}

static float llama3(const adcg_attr *attrs, float frequency) {
  const float factor = (float)attrs[FACTOR].f, low = (float)attrs[LOW_FREQ_FACTOR].f, high = (float)attrs[HIGH_FREQ_FACTOR].f;
  const float context = (float)attrs[ORIGINAL_MAX_POSITION].i, wavelength = 6.283185307179586f / frequency;
  if (wavelength > context / low) return frequency / factor;
  if (wavelength < context / high) return frequency;
  const float smooth = (context / wavelength - low) / (high - low);
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

/* Pairs that turn often keep their frequency, those that turn seldom are slowed by `factor`, and a ramp lies between. */
static float yarn(const adcg_attr *attrs, int64_t rotary, int64_t i, float power) {
  double low = pair_of(attrs, rotary, attrs[BETA_FAST].f), high = pair_of(attrs, rotary, attrs[BETA_SLOW].f);
  if (attrs[TRUNCATE].i) {
    low = floor(low);
    high = ceil(high);
  }
  low = fmax(low, 0);
  high = fmin(high, (double)(rotary - 1));
  if (low == high) high += 0.001;
  const float ramp = fminf(fmaxf(((float)i - (float)low) / (float)(high - low), 0.0f), 1.0f), kept = 1.0f - ramp;
  return 1.0f / ((float)attrs[FACTOR].f * power) * (1.0f - kept) + 1.0f / power * kept;
}

/* Frequencies in f32 and in the order of operations of transformers' modeling_rope_utils: theta^(-2i / rotary_dim),
 * then the scaling. Only the power and yarn's ramp are taken in double. */
adcg_status adcgk_rope_prepare(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs, void **out_state,
                               void (*set_error)(const char *)) {
  *out_state = NULL;
  if (num_attrs < ATTRIBUTES || num_inputs < 1 || inputs[0].ndim != 3) {
    set_error("rope: attributes or inputs are missing");
    return ADCG_ERR_OP;
  }
  const int64_t rotary = attrs[ROTARY_DIM].i ? attrs[ROTARY_DIM].i : inputs[0].dims[2].constant;
  const int64_t half = rotary / 2;
  rope_state *state = malloc(sizeof(rope_state) + (size_t)half * sizeof(float));
  if (!state) {
    set_error("rope: out of memory");
    return ADCG_ERR_OUT_OF_MEMORY;
  }
  const char *scaling = attrs[SCALING].s, *name = attrs[LAYOUT].s;
  state->layout = strcmp(name, "gptj") == 0 ? GPTJ : strcmp(name, "interleaved") == 0 ? INTERLEAVED : NEOX;
  state->half = half;
  state->scale = strcmp(scaling, "yarn") == 0 ? attention_factor(attrs) : 1.0f;
  for (int64_t i = 0; i < half; i++) {
    const float exponent = (float)(2 * i) / (float)rotary;
    const float power = (float)pow(attrs[THETA].f, (double)exponent);
    float frequency = 1.0f / power;
    if (strcmp(scaling, "linear") == 0) frequency /= (float)attrs[FACTOR].f;
    if (strcmp(scaling, "llama3") == 0) frequency = llama3(attrs, frequency);
    if (strcmp(scaling, "yarn") == 0) frequency = yarn(attrs, rotary, i, power);
    state->frequency[i] = frequency;
  }
  *out_state = state;
  return ADCG_OK;
}

typedef struct region {
  const adcgk_kernels *kernels;
  const rope_state *state;
  char *y;
  const char *x;
  const int32_t *positions;
  bool bf16;
  int64_t tokens, heads, d;
  int64_t x_token, x_head, y_token, y_head; /* bytes from one to the next */
  int64_t block; /* tokens of a task */
} region;

/* Pairs i .. i+n-1 of one head. */
static void rotate(const region *r, char *y, const char *x, int64_t i, int64_t n, const float *sine, const float *cosine) {
  const int64_t size = r->bf16 ? 2 : 4, half = r->state->half;
  if (r->state->layout == NEOX) {
    r->kernels->rotate(y + i * size, x + i * size, r->bf16, half, sine, cosine, n);
  } else if (r->state->layout == GPTJ) {
    r->kernels->rotate_pairs(y + 2 * i * size, x + 2 * i * size, r->bf16, false, half, sine, cosine, n);
  } else { /* y may be x, and pairs move */
    float pairs[2 * CHUNK];
    memcpy(pairs, x, (size_t)(2 * half * size));
    r->kernels->rotate_pairs(y, pairs, r->bf16, true, half, sine, cosine, n);
  }
}

static void task(void *context, int64_t number) {
  const region *r = context;
  float sine[CHUNK], cosine[CHUNK];
  const int64_t size = r->bf16 ? 2 : 4, half = r->state->half;
  const int64_t end = adcgk_min((number + 1) * r->block, r->tokens);
  for (int64_t t = number * r->block; t < end; t++) {
    const char *x = r->x + t * r->x_token;
    char *y = r->y + t * r->y_token;
    for (int64_t i = 0; i < half; i += CHUNK) {
      const int64_t n = adcgk_min(CHUNK, half - i);
      r->kernels->angles(sine, cosine, r->state->frequency + i, (float)r->positions[t], n);
      if (r->state->scale != 1.0f) {
        for (int64_t k = 0; k < n; k++) {
          sine[k] *= r->state->scale;
          cosine[k] *= r->state->scale;
        }
      }
      for (int64_t h = 0; h < r->heads; h++) rotate(r, y + h * r->y_head, x + h * r->x_head, i, n, sine, cosine);
    }
    if (r->y != r->x && 2 * half < r->d) {
      for (int64_t h = 0; h < r->heads; h++)
        memcpy(y + h * r->y_head + 2 * half * size, x + h * r->x_head + 2 * half * size, (size_t)((r->d - 2 * half) * size));
    }
  }
}

adcg_status adcgk_rope(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0], *y = &call->outputs[0];
  const int64_t size = (int64_t)adcgk_size(x);
  region r = {
      .kernels = adcgk_active(),
      .state = ((const adcgk_node *)user_data)->state,
      .y = adcg_data(y),
      .x = adcg_data(x),
      .positions = adcg_data(&call->inputs[1]),
      .bf16 = adcgk_is_bf16(x),
      .tokens = x->shape[0],
      .heads = x->shape[1],
      .d = x->shape[2],
      .x_token = adcgk_stride(x, 0) * size,
      .x_head = adcgk_stride(x, 1) * size,
      .y_token = adcgk_stride(y, 0) * size,
      .y_head = adcgk_stride(y, 1) * size,
  };
  r.block = adcgk_max(1, 8192 / adcgk_max(1, r.heads * r.d));
  adcgk_parallel(adcgk_pool_of(user_data), adcgk_ceil_div(r.tokens, r.block), (double)adcg_numel(x) * 0.3, task, &r);
  return ADCG_OK;
}
