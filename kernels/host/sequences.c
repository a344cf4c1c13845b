/* The checks of a step's sequences, which all ops with a cache or a state share. */
#include <string.h>

#include "internal.h"

adcg_status adcgk_check_sequences(const adcg_op_call *call, const int32_t *cu, const int32_t *input_pos, int64_t max_len,
                                  const char *limit) {
  const int64_t seqs = adcg_batch_seqs(call->batch), tokens = adcg_batch_tokens(call->batch);
  if (seqs == 0) return ADCG_OK;
  if (cu[0] != 0) return adcgk_fail(call, "cu_seqlens[0] is %d, must be 0", cu[0]);
  for (int64_t s = 0; s < seqs; s++) {
    if (cu[s + 1] <= cu[s])
      return adcgk_fail(call, "cu_seqlens[%lld] is %d, must be more than cu_seqlens[%lld], which is %d", (long long)s + 1, cu[s + 1],
                        (long long)s, cu[s]);
  }
  if (cu[seqs] != tokens)
    return adcgk_fail(call, "cu_seqlens[%lld] is %d, the step has %lld tokens", (long long)seqs, cu[seqs], (long long)tokens);
  for (int64_t s = 0; input_pos && s < seqs; s++) {
    if (input_pos[s] < 0) return adcgk_fail(call, "input_pos[%lld] is %d, must not be negative", (long long)s, input_pos[s]);
    const int64_t length = cu[s + 1] - cu[s];
    if (input_pos[s] + length > max_len)
      return adcgk_fail(call, "input_pos[%lld] is %d and the sequence has %lld tokens, %s", (long long)s, input_pos[s], (long long)length,
                        limit);
  }
  return ADCG_OK;
}

/* A bit per slot, in windows of as many slots as fit the stack. */
adcg_status adcgk_check_slots(const adcg_op_call *call, const int32_t *slots, int64_t seqs, int64_t count, const char *what) {
  enum { WORDS = 512, WINDOW_SLOTS = 64 * WORDS };
  for (int64_t s = 0; s < seqs; s++) {
    if (slots[s] < 0 || slots[s] >= count)
      return adcgk_fail(call, "slot_idx[%lld] is %d, the %s has %lld slots", (long long)s, slots[s], what, (long long)count);
  }
  for (int64_t base = 0; base < count; base += WINDOW_SLOTS) {
    uint64_t taken[WORDS];
    memset(taken, 0, (size_t)adcgk_ceil_div(adcgk_min(count - base, WINDOW_SLOTS), 64) * 8);
    for (int64_t s = 0; s < seqs; s++) {
      const int64_t at = slots[s] - base;
      if (at < 0 || at >= WINDOW_SLOTS) continue;
      if (taken[at / 64] >> (at % 64) & 1) {
        int64_t other = 0;
        while (slots[other] != slots[s]) other++;
        return adcgk_fail(call, "slot_idx[%lld] is %d, which is the slot of sequence %lld too", (long long)s, slots[s], (long long)other);
      }
      taken[at / 64] |= UINT64_C(1) << (at % 64);
    }
  }
  return ADCG_OK;
}
