/* Which requests run when: arrivals, slots, and what each step holds. */
#ifndef ADCG_EXAMPLES_SCHEDULE_H_
#define ADCG_EXAMPLES_SCHEDULE_H_

#include "llama.h"

typedef struct request {
  int64_t number;
  const int32_t *prompt;
  int64_t prompt_count, max_new;
  int64_t arrival; /* the step before which it arrives */
  int64_t slot;    /* -1 before it starts */
  int64_t cached;  /* tokens in its slot */
  int32_t *written;
  int64_t written_count;
  int64_t started, finished; /* steps; -1 before */
  uint64_t random;           /* a generator of its own: neighbours in the batch do not change what it draws */
} request;

/* A piece of a step and whose it is. */
typedef struct planned {
  request *owner;
  piece piece;
} planned;

typedef struct scheduler {
  request *requests; /* by arrival */
  int64_t count;
  int64_t next;      /* the next to start */
  request **running; /* oldest first */
  int64_t num_running;
  int64_t *free_slots; /* a queue: the slot that has been free the longest is taken */
  int64_t num_free;
  int64_t slots, budget, now;
} scheduler;

scheduler *scheduler_create(request *requests, int64_t count, int64_t slots, int64_t budget);
void scheduler_destroy(scheduler *s);
bool scheduler_done(const scheduler *s);

/* Fills `out` (room for `slots`) with the next step: a token of every request that decodes, then chunks of prompts, oldest first,
 * up to `budget` tokens; in the order prefill, extend, decode. Returns how many; 0 while nobody is here. */
int64_t scheduler_plan(scheduler *s, planned *out);

/* Books a piece that has run; `token` is what the request writes next (-1: it is inside its prompt); `stop`: it ends here. */
void scheduler_advance(scheduler *s, const planned *p, int32_t token, bool stop);

#endif /* ADCG_EXAMPLES_SCHEDULE_H_ */
