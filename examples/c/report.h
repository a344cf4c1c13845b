/* What a run came to, and how it is shown. */
#ifndef ADCG_EXAMPLES_REPORT_H_
#define ADCG_EXAMPLES_REPORT_H_

#include "schedule.h"

enum { MAX_KINDS = 256 };

typedef struct tally {
  struct {
    adcg_step size; /* mode, bucket_tokens, bucket_seqs */
    int64_t steps, tokens, padded;
  } kinds[MAX_KINDS]; /* of steps */
  int num_kinds;
  int64_t timed_steps, timed_tokens;
  double replay_seconds, eager_seconds; /* of the timed steps; those that also captured a bucket are apart */
  int64_t captures;
  double capture_seconds;
  int64_t differing; /* steps whose logits differ from eager's */
} tally;

void tally_add(tally *t, const adcg_step *step, int64_t tokens);
void tally_print(const tally *t, const runner *r, const adcg_forecast *forecast, bool checked);

/* Text of tokens: bytes if the vocabulary is bytes, else their numbers. */
void print_tokens(const int32_t *tokens, int64_t count, bool bytes);

/* Draws a bar on stderr, in place on a terminal; elsewhere once, at the end. */
void progress_bar(const char *what, int64_t done, int64_t total, const char *note);

#endif /* ADCG_EXAMPLES_REPORT_H_ */
