/* The state of adcg.rope, made once per node of a graph from its attributes, whatever the device: the frequencies of its pairs. */
#ifndef ADCGK_ROPE_H_
#define ADCGK_ROPE_H_

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <adcg/adcg.h>

#include "rope_layout.h"

/* Attributes, in the schema's order. */
enum {
  ADCGK_ROPE_THETA,
  ADCGK_ROPE_ROTARY_DIM,
  ADCGK_ROPE_SCALING,
  ADCGK_ROPE_FACTOR,
  ADCGK_ROPE_LOW_FREQ_FACTOR,
  ADCGK_ROPE_HIGH_FREQ_FACTOR,
  ADCGK_ROPE_ORIGINAL_MAX_POSITION,
  ADCGK_ROPE_LAYOUT,
  ADCGK_ROPE_BETA_FAST,
  ADCGK_ROPE_BETA_SLOW,
  ADCGK_ROPE_MSCALE,
  ADCGK_ROPE_MSCALE_ALL_DIM,
  ADCGK_ROPE_TRUNCATE,
  ADCGK_ROPE_ATTENTION_FACTOR,
  ADCGK_ROPE_ATTRIBUTES
};

typedef struct adcgk_rope_state {
  adcgk_rope_layout layout;
  float scale;       /* of sines and cosines */
  int64_t half;      /* pairs: rotary_dim / 2 */
  float frequency[]; /* [half], radians per position */
} adcgk_rope_state;

/* The pair that turns `turns` times over the context that a model was trained with, as a fraction. */
static inline double adcgk_rope_pair_of(const adcg_attr *attrs, int64_t rotary, double turns) {
  const double context = (double)attrs[ADCGK_ROPE_ORIGINAL_MAX_POSITION].i;
  return (double)rotary * log(context / (turns * 6.283185307179586)) / (2 * log(attrs[ADCGK_ROPE_THETA].f));
}

static inline double adcgk_rope_mscale_of(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

/* Of sines and cosines under yarn: what is given, or what follows from factor and mscales. */
static inline float adcgk_rope_attention_factor(const adcg_attr *attrs) {
  const double factor = attrs[ADCGK_ROPE_FACTOR].f, mscale = attrs[ADCGK_ROPE_MSCALE].f, all_dim = attrs[ADCGK_ROPE_MSCALE_ALL_DIM].f;
  if (attrs[ADCGK_ROPE_ATTENTION_FACTOR].f != 0) return (float)attrs[ADCGK_ROPE_ATTENTION_FACTOR].f;
  if (mscale != 0 && all_dim != 0) return (float)(adcgk_rope_mscale_of(factor, mscale) / adcgk_rope_mscale_of(factor, all_dim));
  return (float)adcgk_rope_mscale_of(factor, 1);
}

static inline float adcgk_rope_llama3(const adcg_attr *attrs, float frequency) {
  const float factor = (float)attrs[ADCGK_ROPE_FACTOR].f, low = (float)attrs[ADCGK_ROPE_LOW_FREQ_FACTOR].f,
              high = (float)attrs[ADCGK_ROPE_HIGH_FREQ_FACTOR].f;
  const float context = (float)attrs[ADCGK_ROPE_ORIGINAL_MAX_POSITION].i, wavelength = 6.283185307179586f / frequency;
  if (wavelength > context / low) return frequency / factor;
  if (wavelength < context / high) return frequency;
  const float smooth = (context / wavelength - low) / (high - low);
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

/* Pairs that turn often keep their frequency, those that turn seldom are slowed by `factor`, and a ramp lies between. */
static inline float adcgk_rope_yarn(const adcg_attr *attrs, int64_t rotary, int64_t i, float power) {
  double low = adcgk_rope_pair_of(attrs, rotary, attrs[ADCGK_ROPE_BETA_FAST].f),
         high = adcgk_rope_pair_of(attrs, rotary, attrs[ADCGK_ROPE_BETA_SLOW].f);
  if (attrs[ADCGK_ROPE_TRUNCATE].i) {
    low = floor(low);
    high = ceil(high);
  }
  low = fmax(low, 0);
  high = fmin(high, (double)(rotary - 1));
  if (low == high) high += 0.001;
  const float ramp = fminf(fmaxf(((float)i - (float)low) / (float)(high - low), 0.0f), 1.0f), kept = 1.0f - ramp;
  return 1.0f / ((float)attrs[ADCGK_ROPE_FACTOR].f * power) * (1.0f - kept) + 1.0f / power * kept;
}

/* Frequencies in f32 and in the order of operations of transformers' modeling_rope_utils: theta^(-2i / rotary_dim),
 * then the scaling. Only the power and yarn's ramp are taken in double. */
static inline adcg_status adcgk_rope_state_of(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs,
                                              void **out_state, void (*set_error)(const char *)) {
  *out_state = NULL;
  if (num_attrs < ADCGK_ROPE_ATTRIBUTES || num_inputs < 1 || inputs[0].ndim != 3) {
    set_error("rope: attributes or inputs are missing");
    return ADCG_ERR_OP;
  }
  const int64_t rotary = attrs[ADCGK_ROPE_ROTARY_DIM].i ? attrs[ADCGK_ROPE_ROTARY_DIM].i : inputs[0].dims[2].constant;
  const int64_t half = rotary / 2;
  adcgk_rope_state *state = malloc(sizeof(adcgk_rope_state) + (size_t)half * sizeof(float));
  if (!state) {
    set_error("rope: out of memory");
    return ADCG_ERR_OUT_OF_MEMORY;
  }
  const char *scaling = attrs[ADCGK_ROPE_SCALING].s, *name = attrs[ADCGK_ROPE_LAYOUT].s;
  state->layout = strcmp(name, "gptj") == 0 ? ADCGK_ROPE_GPTJ : strcmp(name, "interleaved") == 0 ? ADCGK_ROPE_INTERLEAVED : ADCGK_ROPE_NEOX;
  state->half = half;
  state->scale = strcmp(scaling, "yarn") == 0 ? adcgk_rope_attention_factor(attrs) : 1.0f;
  for (int64_t i = 0; i < half; i++) {
    const float exponent = (float)(2 * i) / (float)rotary;
    const float power = (float)pow(attrs[ADCGK_ROPE_THETA].f, (double)exponent);
    float frequency = 1.0f / power;
    if (strcmp(scaling, "linear") == 0) frequency /= (float)attrs[ADCGK_ROPE_FACTOR].f;
    if (strcmp(scaling, "llama3") == 0) frequency = adcgk_rope_llama3(attrs, frequency);
    if (strcmp(scaling, "yarn") == 0) frequency = adcgk_rope_yarn(attrs, rotary, i, power);
    state->frequency[i] = frequency;
  }
  *out_state = state;
  return ADCG_OK;
}

#endif /* ADCGK_ROPE_H_ */
