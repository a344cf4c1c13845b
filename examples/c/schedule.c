#include "schedule.h"

#include <stdlib.h>
#include <string.h>

scheduler *scheduler_create(request *requests, int64_t count, int64_t slots, int64_t budget) {
  scheduler *s = allocate(1, sizeof *s);
  *s = (scheduler){.requests = requests, .count = count, .slots = slots, .budget = budget, .num_free = slots};
  s->running = allocate(slots, sizeof *s->running);
  s->free_slots = allocate(slots, sizeof *s->free_slots);
  for (int64_t i = 0; i < slots; i++) s->free_slots[i] = i;
  return s;
}

void scheduler_destroy(scheduler *s) {
  free(s->running);
  free(s->free_slots);
  free(s);
}

bool scheduler_done(const scheduler *s) { return s->next == s->count && s->num_running == 0; }

static void start_arrivals(scheduler *s) {
  while (s->next < s->count && s->requests[s->next].arrival <= s->now && s->num_free) {
    request *r = &s->requests[s->next++];
    r->slot = s->free_slots[0];
    memmove(s->free_slots, s->free_slots + 1, (size_t)--s->num_free * sizeof *s->free_slots);
    r->started = s->now;
    s->running[s->num_running++] = r;
  }
}

/* Tokens of the prompt that no step has taken yet. */
static int64_t pending(const request *r) { return r->cached < r->prompt_count ? r->prompt_count - r->cached : 0; }

int64_t scheduler_plan(scheduler *s, planned *out) {
  start_arrivals(s);
  s->now++;
  int64_t left = s->budget, count = 0;
  for (int64_t i = 0; i < s->num_running; i++) left -= !pending(s->running[i]);
  /* a prompt's first chunk has no history; later ones extend it */
  for (int kind = PREFILL; kind <= EXTEND; kind++) {
    int64_t room = left;
    for (int64_t i = 0; i < s->num_running; i++) {
      request *r = s->running[i];
      int64_t chunk = pending(r) < room ? pending(r) : room;
      if (chunk <= 0) continue;
      room -= chunk; /* oldest first, whichever kind it is */
      if ((r->cached ? EXTEND : PREFILL) != kind) continue;
      out[count++] = (planned){r, {r->slot, r->cached, r->prompt + r->cached, chunk, kind == PREFILL ? PREFILL : EXTEND}};
    }
  }
  for (int64_t i = 0; i < s->num_running; i++) {
    request *r = s->running[i];
    if (!pending(r)) out[count++] = (planned){r, {r->slot, r->cached, r->written + r->written_count - 1, 1, DECODE}};
  }
  return count;
}

void scheduler_advance(scheduler *s, const planned *p, int32_t token, bool stop) {
  request *r = p->owner;
  r->cached += p->piece.count;
  if (token >= 0 && !stop) r->written[r->written_count++] = token;
  if (!stop && r->written_count < r->max_new) return;
  r->finished = s->now;
  s->free_slots[s->num_free++] = r->slot;
  int64_t i = 0;
  while (s->running[i] != r) i++;
  memmove(&s->running[i], &s->running[i + 1], (size_t)(--s->num_running - i) * sizeof *s->running);
}
