/* A program of named cases: `prog --list` prints the names, `prog NAME` runs one. Exit status 0: passed, 77: skipped with the
 * reason on stdout, anything else: failed. test_cabi.py makes a test of every case. */
#ifndef ADCG_TESTS_HARNESS_H_
#define ADCG_TESTS_HARNESS_H_

#include <adcg/adcg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct harness_case {
  const char *name;
  void (*run)(void);
} harness_case;

#define CHECK(condition)                                                                                          \
  do {                                                                                                            \
    if (!(condition)) {                                                                                           \
      fprintf(stderr, "%s:%d: %s is false; last error: %s\n", __FILE__, __LINE__, #condition, adcg_last_error()); \
      exit(1);                                                                                                    \
    }                                                                                                             \
  } while (0)

#define CHECK_INT(actual, expected)                                                                                           \
  do {                                                                                                                        \
    long long actual_ = (long long)(actual), expected_ = (long long)(expected);                                               \
    if (actual_ != expected_) {                                                                                               \
      fprintf(stderr, "%s:%d: %s is %lld, expected %s = %lld\n", __FILE__, __LINE__, #actual, actual_, #expected, expected_); \
      exit(1);                                                                                                                \
    }                                                                                                                         \
  } while (0)

/* The call succeeds. */
#define TRY(call) harness_expect((call), ADCG_OK, #call, __FILE__, __LINE__)

/* The call fails with this status, and the message begins with the function's name and holds every other string. */
#define FAILS(call, status, ...)                                  \
  do {                                                            \
    harness_expect((call), (status), #call, __FILE__, __LINE__);  \
    const char *needles_[] = {__VA_ARGS__};                       \
    size_t count_ = sizeof needles_ / sizeof *needles_;           \
    harness_message(#call, needles_, count_, __FILE__, __LINE__); \
  } while (0)

#define SKIP(reason) \
  do {               \
    puts(reason);    \
    exit(77);        \
  } while (0)

static inline void harness_expect(adcg_status actual, adcg_status expected, const char *call, const char *file, int line) {
  if (actual == expected) return;
  fprintf(stderr, "%s:%d: %s\n  is %s, expected %s; last error: %s\n", file, line, call, adcg_status_name(actual),
          adcg_status_name(expected), adcg_last_error());
  exit(1);
}

/* `call` is its source: its name is what stands before the bracket. */
static inline void harness_message(const char *call, const char *const *needles, size_t count, const char *file, int line) {
  const char *message = adcg_last_error();
  char function[80];
  snprintf(function, sizeof function, "%.*s: ", (int)strcspn(call, "("), call);
  if (strncmp(message, function, strlen(function)) != 0) {
    fprintf(stderr, "%s:%d: the message \"%s\" does not begin with \"%s\"\n", file, line, message, function);
    exit(1);
  }
  for (size_t i = 0; i < count; i++) {
    if (strstr(message, needles[i])) continue;
    fprintf(stderr, "%s:%d: the message \"%s\" does not say \"%s\"\n", file, line, message, needles[i]);
    exit(1);
  }
}

static inline int harness_main(int argc, char **argv, const harness_case *cases, size_t count) {
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (size_t i = 0; i < count; i++) puts(cases[i].name);
    return 0;
  }
  for (size_t i = 0; i < count && argc == 2; i++) {
    if (strcmp(argv[1], cases[i].name) != 0) continue;
    cases[i].run();
    return 0;
  }
  fprintf(stderr, "usage: %s --list | CASE\n", argv[0]);
  return 2;
}

#define HARNESS_MAIN(cases) \
  int main(int argc, char **argv) { return harness_main(argc, argv, cases, sizeof(cases) / sizeof *(cases)); }

#endif /* ADCG_TESTS_HARNESS_H_ */
