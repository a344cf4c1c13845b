/* The graph of the tests of execs: a static, a dynamic and a static op, each of which adds one. */
#ifndef ADCG_TESTS_CHAIN_H_
#define ADCG_TESTS_CHAIN_H_

#include "mini.h"

static mini m;

static int64_t two_buckets[] = {16, 64};

/* x + 1 (static), + 1 (dynamic, of this capture support), + 1 (static). */
static inline void open_chain(int32_t support) {
  mini_open(&m, 128, 8);
  adcg_op_schema first = mini_schema("t.first", ADCG_OP_STATIC, mini_increment),
                 last = mini_schema("t.last", ADCG_OP_STATIC, mini_increment);
  adcg_op_schema dynamic = mini_schema("t.dynamic", ADCG_OP_DYNAMIC, mini_increment);
  dynamic.capture = support;
  adcg_value v = mini_add(&m, &first, NULL, m.input);
  v = mini_add(&m, &dynamic, NULL, v);
  mini_freeze(&m, mini_add(&m, &last, NULL, v));
}

static inline adcg_exec_options options_of(int32_t mode) {
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  options.mode = mode;
  options.buckets = two_buckets;
  options.num_buckets = 2;
  return options;
}

#endif /* ADCG_TESTS_CHAIN_H_ */
