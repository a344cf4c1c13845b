/* For programs that measure: a call of the library's that fails ends them, with its message. */
#ifndef ADCG_TESTS_BENCH_TRY_H_
#define ADCG_TESTS_BENCH_TRY_H_

#include <adcg/adcg.h>

#include <stdio.h>
#include <stdlib.h>

#define TRY(call)                                                                           \
  do {                                                                                      \
    adcg_status status_ = (call);                                                           \
    if (status_) {                                                                          \
      fprintf(stderr, "%s: %s: %s\n", #call, adcg_status_name(status_), adcg_last_error()); \
      exit(1);                                                                              \
    }                                                                                       \
  } while (0)

#endif /* ADCG_TESTS_BENCH_TRY_H_ */
