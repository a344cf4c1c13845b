/* What a step holds, and which buckets it runs in. */
#include "tape.h"

static const char kReplay[] = "adcg_exec_replay";

/* ---- The batch ---------------------------------------------------------------------------------------------------- */

static adcg_status check_kind(const tape_exec *exec, const char *kind, int64_t seqs, int64_t tokens) {
  if (seqs < 0 || tokens < 0)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld sequences with %lld tokens: counts are not negative", kind, (long long)seqs,
                     (long long)tokens);
  if (tokens < seqs)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld sequences with %lld tokens: each has at least one", kind, (long long)seqs,
                     (long long)tokens);
  if (seqs > exec->max_seqs)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld sequences, the graph's max_seqs is %lld", kind, (long long)seqs,
                     (long long)exec->max_seqs);
  if (seqs == 0 && tokens > 0)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld tokens without a sequence", kind, (long long)tokens);
  if (tokens > seqs * exec->max_seq_len)
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %s: %lld tokens in %lld sequences, the graph's max_seq_len is %lld", kind,
                     (long long)tokens, (long long)seqs, (long long)exec->max_seq_len);
  return ADCG_OK;
}

adcg_status tape_take_batch(tape_exec *exec, const adcg_batch *batch) {
  if (UNLIKELY(batch->struct_size < sizeof *batch))
    return tape_fail(ADCG_ERR_ARGUMENT, kReplay, "batch: struct_size: %zu, use ADCG_BATCH_INIT", batch->struct_size);
  adcg_batch b = *batch;
  b.struct_size = sizeof b;
  adcg_status status;
  if ((b.prefill_seqs | b.prefill_tokens) && (status = check_kind(exec, "prefill", b.prefill_seqs, b.prefill_tokens))) return status;
  if ((b.extend_seqs | b.extend_tokens) && (status = check_kind(exec, "extend", b.extend_seqs, b.extend_tokens))) return status;
  if (b.decode_seqs && (status = check_kind(exec, "decode", b.decode_seqs, b.decode_seqs))) return status;
  int64_t tokens = adcg_batch_tokens(&b), seqs = adcg_batch_seqs(&b);
  if (UNLIKELY(tokens > exec->max_tokens))
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %lld tokens, the graph's max_tokens is %lld", (long long)tokens,
                     (long long)exec->max_tokens);
  if (UNLIKELY(seqs > exec->max_seqs))
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: %lld sequences, the graph's max_seqs is %lld", (long long)seqs,
                     (long long)exec->max_seqs);
  if (UNLIKELY(b.query_len != 0 && (b.query_len < 0 || b.query_len > exec->max_tokens || b.query_len * seqs != tokens)))
    return tape_fail(ADCG_ERR_BATCH, kReplay, "batch: query_len: %lld, but %lld sequences have %lld tokens", (long long)b.query_len,
                     (long long)seqs, (long long)tokens);
  exec->batch = b;
  exec->real_tokens = tokens;
  exec->real_seqs = seqs;
  return ADCG_OK;
}

/* ---- Dispatch ------------------------------------------------------------------------------------------------------ */

/* The bucket of the smallest size >= n that may be used: captured, or to be captured now. -1: none, and *reason says why. */
static int32_t pick(const tape_exec *exec, tape_ladder *ladder, int64_t n, int32_t *reason) {
  int32_t i = ladder->last;
  if (!(i < ladder->count && ladder->sizes[i] >= n && (i == 0 || ladder->sizes[i - 1] < n))) {
    int32_t low = 0, high = ladder->count;
    while (low < high) {
      int32_t middle = (low + high) / 2;
      if (ladder->sizes[middle] < n)
        low = middle + 1;
      else
        high = middle;
    }
    i = low;
    if (i == ladder->count) {
      *reason = ADCG_REASON_TOO_LARGE;
      return -1;
    }
    ladder->last = i;
  }
  for (; i < ladder->count; i++) {
    int32_t state = atomic_load_explicit(&exec->buckets[ladder->buckets[i]].state, memory_order_relaxed);
    if (state == ADCG_BUCKET_CAPTURED || (state == ADCG_BUCKET_EMPTY && exec->policy == ADCG_CAPTURE_ON_FIRST_USE))
      return ladder->buckets[i];
    if (state == ADCG_BUCKET_FAILED) {
      *reason = ADCG_REASON_CAPTURE_FAILED;
      return -1;
    }
  }
  *reason = ADCG_REASON_NOT_CAPTURED;
  return -1;
}

static int32_t pick_full(tape_exec *exec, int32_t *reason) {
  int64_t tokens = exec->real_tokens, seqs = exec->real_seqs;
  int32_t found = -1;
  *reason = ADCG_REASON_SUPPORT;
  if (tokens == seqs && exec->ladders[TAPE_LADDER_DECODE].count) {
    found = pick(exec, &exec->ladders[TAPE_LADDER_DECODE], seqs, reason);
  } else if (exec->query_len > 1 && exec->batch.query_len == exec->query_len && exec->ladders[TAPE_LADDER_UNIFORM].count) {
    found = pick(exec, &exec->ladders[TAPE_LADDER_UNIFORM], seqs, reason);
  }
  if (found < 0 && exec->ladders[TAPE_LADDER_MIXED].count) found = pick(exec, &exec->ladders[TAPE_LADDER_MIXED], tokens, reason);
  if (found < 0 && exec->mode == ADCG_MODE_FULL_DECODE_ONLY && tokens != seqs) *reason = ADCG_REASON_MODE;
  return found;
}

tape_route tape_dispatch(tape_exec *exec) {
  tape_route r = {ADCG_MODE_NONE, ADCG_REASON_MODE, -1, -1, -1, exec->real_tokens, exec->real_seqs};
  if (exec->verify) {
    r.reason = ADCG_REASON_VERIFY;
    return r;
  }
  bool full = exec->mode == ADCG_MODE_FULL || exec->mode == ADCG_MODE_FULL_DECODE_ONLY || exec->mode == ADCG_MODE_FULL_AND_PIECEWISE;
  if (full) {
    r.full = pick_full(exec, &r.reason);
    if (r.full >= 0) {
      r.mode = ADCG_MODE_FULL;
      r.reason = ADCG_REASON_NONE;
      r.tokens = exec->buckets[r.full].size.tokens;
      r.seqs = exec->buckets[r.full].size.seqs;
      return r;
    }
  }
  tape_ladder *by_tokens = &exec->ladders[TAPE_LADDER_TOKENS], *by_seqs = &exec->ladders[TAPE_LADDER_SEQS];
  if (by_tokens->count + by_seqs->count == 0) return r;
  if (by_tokens->count) {
    r.token_part = pick(exec, by_tokens, exec->real_tokens, &r.reason);
    if (r.token_part < 0) return r;
  }
  if (by_seqs->count) {
    r.seq_part = pick(exec, by_seqs, exec->real_seqs, &r.reason);
    if (r.seq_part < 0) return r;
  }
  if (r.token_part >= 0) r.tokens = exec->buckets[r.token_part].size.tokens;
  if (r.seq_part >= 0) r.seqs = exec->buckets[r.seq_part].size.seqs;
  r.mode = ADCG_MODE_PIECEWISE;
  return r;
}
