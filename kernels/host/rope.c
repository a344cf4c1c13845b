/* adcg.rope: x [R, N, D], positions [R] -> rotated by position * frequency. Pairs are element i of the first and of the
 * second half of the rotary dims (layout neox), or elements 2i and 2i + 1 (gptj), which go to the two halves in the layout
 * interleaved; dims behind rotary_dim pass unchanged. */
#include <string.h>

#include "../common/rope.h"
#include "../common/strides.h"
#include "internal.h"

enum { CHUNK = 256 }; /* pairs whose sines are held on the stack at once; the layout interleaved has no more */

adcg_status adcgk_rope_prepare(const adcg_attr *attrs, int32_t num_attrs, const adcg_type *inputs, int32_t num_inputs, void **out_state,
                               void (*set_error)(const char *)) {
  return adcgk_rope_state_of(attrs, num_attrs, inputs, num_inputs, out_state, set_error);
}

typedef struct region {
  const adcgk_kernels *kernels;
  const adcgk_rope_state *state;
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
  if (r->state->layout == ADCGK_ROPE_NEOX) {
    r->kernels->rotate(y + i * size, x + i * size, r->bf16, half, sine, cosine, n);
  } else if (r->state->layout == ADCGK_ROPE_GPTJ) {
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
