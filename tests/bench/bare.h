/* What a replay is compared with: an op that does nothing, and a loop over such ops. Compiled twice, into the program and into a
 * shared library: calls between the two parts of the address space cost more on some CPUs, whoever makes them. */
#ifndef ADCG_BENCH_BARE_H_
#define ADCG_BENCH_BARE_H_

#include <adcg/adcg.h>

typedef struct bare_step {
  adcg_op_launch_fn run;
  const adcg_op_call *call;
  void *user_data;
} bare_step;

#define BARE(storage, name)                                                     \
  storage adcg_status name##_empty(const adcg_op_call *call, void *user_data) { \
    (void)call;                                                                 \
    (void)user_data;                                                            \
    return ADCG_OK;                                                             \
  }                                                                             \
  storage adcg_status name##_loop(const bare_step *step, int n) {               \
    for (const bare_step *end = step + n; step < end; step++) {                 \
      adcg_status status = step->run(step->call, step->user_data);              \
      if (status) return status;                                                \
    }                                                                           \
    return ADCG_OK;                                                             \
  }

adcg_status library_empty(const adcg_op_call *call, void *user_data);
adcg_status library_loop(const bare_step *step, int n);

#endif /* ADCG_BENCH_BARE_H_ */
