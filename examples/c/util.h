/* What an example needs and C does not bring. */
#ifndef ADCG_EXAMPLES_UTIL_H_
#define ADCG_EXAMPLES_UTIL_H_

#include <adcg/adcg.h>
#include <stdbool.h>
#include <stdint.h>

/* Prints "serve: ..." and ends the program with status 2. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Ends the program with the library's message unless the call succeeds. */
#define TRY(call)                                                                                   \
  do {                                                                                              \
    adcg_status status_ = (call);                                                                   \
    if (status_ != ADCG_OK) die("%s: %s: %s", #call, adcg_status_name(status_), adcg_last_error()); \
  } while (0)

void *allocate(int64_t count, int64_t size); /* zeroed */

double seconds(void); /* of a clock that only rises */

/* Random numbers that are the same everywhere (splitmix64). */
uint64_t random_bits(uint64_t *state);
double random_unit(uint64_t *state);                          /* in [0, 1) */
int64_t random_between(uint64_t *state, int64_t low, int64_t high); /* inclusive */

DLTensor tensor(DLDevice device, void *data, adcg_dtype dtype, int32_t ndim, int64_t *shape);

#endif /* ADCG_EXAMPLES_UTIL_H_ */
