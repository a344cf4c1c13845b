/* Causal convolution over tokens, for one instruction set: 16 channels in the lanes, the earlier inputs in a ring.
 *
 * A sum begins with the bias and goes from the oldest input to the newest. Earlier inputs are taken as the state keeps
 * them, whether they come from it or from this step: chunks of a prefill give the bits of the whole. */

/* `fixed` > 0: the taps are known. */
ALWAYS int64_t conv_of(const adcgk_conv *c, int64_t fixed) {
  const int64_t past = (fixed ? fixed : c->taps) - 1, size = c->bf16 ? 2 : 4;
  int64_t oldest = 0;
  for (int64_t t = 0; t < c->tokens; t++) {
    const char *x = (const char *)c->x + t * c->ldx * size;
    char *y = (char *)c->y + t * c->ldy * size;
    for (int64_t i = 0; i < c->channels; i += LANES) {
      const int left = lanes_left(i, c->channels);
      const vec now = v_get(x, c->bf16, i, left);
      vec sum = v_load(c->bias + i);
#pragma GCC unroll 4
      for (int64_t j = 0; j < past; j++) {
        const int64_t row = oldest + j < past ? oldest + j : oldest + j - past;
        sum = v_fma(v_load(c->weight + j * c->ld + i), v_load(c->history + row * c->ld + i), sum);
      }
      sum = v_fma(v_load(c->weight + past * c->ld + i), now, sum);
      v_put(y, c->bf16, i, left, c->silu ? v_silu(sum) : sum);
      v_store(c->history + oldest * c->ld + i, c->round ? v_round_bf16(now) : now);
    }
    oldest = oldest + 1 == past ? 0 : oldest + 1;
  }
  return oldest;
}

static int64_t conv(const adcgk_conv *c) { return c->taps == 4 ? conv_of(c, 4) : conv_of(c, 0); }
