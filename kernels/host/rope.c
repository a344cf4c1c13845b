/* adcg.rope: x [R, N, D], positions [R] -> rotated by position * frequency, in the NeoX layout: element i of the first
 * half of the rotary dims pairs with element i of the second half; dims behind rotary_dim pass unchanged. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "strides.h"

/* Attributes, in the schema's order. */
enum { THETA, ROTARY_DIM, SCALING, FACTOR, LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR, ORIGINAL_MAX_POSITION };

enum { CHUNK = 256 }; /* pairs whose sines are held on the stack at once */

typedef struct rope_state {
  int64_t half;      /* pairs: rotary_dim / 2 */
  float frequency[]; /* [half], radians per position */
} rope_state;

/* Frequencies in f32 and in the order of operations of transformers' modeling_rope_utils: theta^(-2i / rotary_dim),
 * then linear or llama3 scaling. Only the power is taken in double. */
adcg_status adcgk_rope_prepare(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs, void **out_state,
                               void (*set_error)(const char *)) {
  *out_state = NULL;
  if (num_attrs <= ORIGINAL_MAX_POSITION || num_inputs < 1 || inputs[0].ndim != 3) {
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
  state->half = half;
  const float factor = (float)attrs[FACTOR].f, low = (float)attrs[LOW_FREQ_FACTOR].f, high = (float)attrs[HIGH_FREQ_FACTOR].f;
  const float context = (float)attrs[ORIGINAL_MAX_POSITION].i;
  for (int64_t i = 0; i < half; i++) {
    const float exponent = (float)(2 * i) / (float)rotary;
    const float power = (float)pow(attrs[THETA].f, (double)exponent);
    float frequency = 1.0f / power;
    if (strcmp(attrs[SCALING].s, "linear") == 0) {
      frequency /= factor;
    } else if (strcmp(attrs[SCALING].s, "llama3") == 0) {
      const float wavelength = 6.283185307179586f / frequency;
      if (wavelength > context / low) {
        frequency /= factor;
      } else if (wavelength >= context / high) {
        const float smooth = (context / wavelength - low) / (high - low);
        frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
      }
    }
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
      for (int64_t h = 0; h < r->heads; h++) {
        r->kernels->rotate(y + h * r->y_head + i * size, x + h * r->x_head + i * size, r->bf16, half, sine, cosine, n);
      }
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
