/* Reading the counters, safe beside a replay. */
#include "tape.h"

static int64_t read_counter(const _Atomic int64_t *counter) { return atomic_load_explicit(counter, memory_order_relaxed); }

void tape_read_bucket(const tape_bucket *bucket, adcg_bucket_info *out) {
  out->bucket = bucket->size;
  out->state = atomic_load(&bucket->state);
  bool captured = out->state == ADCG_BUCKET_CAPTURED; /* stored after the unit: it is whole */
  out->num_steps = captured ? bucket->unit->num_steps : 0;
  out->tape_bytes = captured ? bucket->unit->bytes : 0;
  out->replays = read_counter(&bucket->replays);
}

void tape_read_stats(const tape_exec *exec, adcg_stats *out) {
  const tape_counters *c = &exec->counters;
  out->steps = read_counter(&c->steps);
  out->failed_steps = read_counter(&c->failed_steps);
  out->full_steps = read_counter(&c->full_steps);
  out->piecewise_steps = read_counter(&c->piecewise_steps);
  out->eager_steps = read_counter(&c->eager_steps);
  for (int32_t i = 0; i < ADCG_NUM_REASONS; i++) out->reasons[i] = read_counter(&c->reasons[i]);
  out->real_tokens = read_counter(&c->real_tokens);
  out->padded_tokens = read_counter(&c->padded_tokens);
  out->repointed = read_counter(&c->repointed);
  out->staged_tensors = read_counter(&c->staged_tensors);
  out->staged_bytes = read_counter(&c->staged_bytes);
  out->captured_buckets = out->failed_buckets = 0;
  out->tape_bytes = exec->eager->bytes + exec->dynamic->bytes;
  for (int32_t i = 0; i < exec->num_buckets; i++) {
    adcg_bucket_info info;
    tape_read_bucket(&exec->buckets[i], &info);
    out->captured_buckets += info.state == ADCG_BUCKET_CAPTURED;
    out->failed_buckets += info.state == ADCG_BUCKET_FAILED;
    out->tape_bytes += info.tape_bytes;
  }
  out->arena_bytes = atomic_load(&exec->arena_held);
  out->metadata_bytes = exec->program_bytes;
  out->graph_bytes = read_counter(&exec->graph_bytes);
  out->total_bytes = out->arena_bytes + out->metadata_bytes + out->tape_bytes + out->graph_bytes;
}
