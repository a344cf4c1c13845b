/* Ladders through the C ABI: what is chosen and what it costs, worked out by hand; and the bad input table of the three functions. */
#include "harness.h"

/* 10 steps of 1 token, 4 of 2, 1 of 8; in no order, and one size twice. */
static const adcg_step_count small[] = {{8, 1}, {1, 4}, {2, 4}, {1, 6}};
enum { SMALL = sizeof small / sizeof *small };

static void chosen_by_count(void) {
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  int64_t buckets[4] = {-1, -1, -1, -1};
  int32_t count = -1;
  budget.max_buckets = 2; /* {1, 8} pads 4 * 6, {2, 8} pads 10 * 1 */
  TRY(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count));
  CHECK_INT(count, 2);
  CHECK_INT(buckets[0], 2);
  CHECK_INT(buckets[1], 8);
  CHECK_INT(buckets[2], -1);
  budget.max_buckets = INT32_MAX; /* more than there are sizes: all of them */
  TRY(adcg_ladder_choose(small, SMALL, &budget, buckets, 3, &count));
  CHECK_INT(count, 3);
  CHECK_INT(buckets[0] * 100 + buckets[1] * 10 + buckets[2], 128);
  budget = (adcg_ladder_budget)ADCG_LADDER_BUDGET_INIT;
  budget.max_tokens = 4;
  TRY(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count));
  CHECK_INT(count, 2);
  CHECK_INT(buckets[1], 2);
}

static void chosen_by_prices(void) {
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  int64_t buckets[4];
  int32_t count;
  budget.bytes_per_bucket = 5, budget.bytes_per_token = 2, budget.max_bytes = 28; /* {1, 8} takes 28, {2, 8} 30 */
  TRY(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count));
  CHECK_INT(count, 2);
  CHECK_INT(buckets[0], 1);
  budget.max_bytes = 30;
  TRY(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count));
  CHECK_INT(buckets[0], 2);
  budget.ns_per_bucket = 7, budget.max_ns = 13; /* one bucket: all limits hold at once */
  TRY(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count));
  CHECK_INT(count, 1);
  CHECK_INT(buckets[0], 8);
  budget.max_bytes = 10; /* {2} takes 9 */
  FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "max_bytes", "10", "8 tokens");
  CHECK_INT(count, 0);
  budget.allow_eager = 1;
  TRY(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count));
  CHECK_INT(count, 1);
  CHECK_INT(buckets[0], 2);
}

static void counted_first(void) {
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  int64_t buckets[3] = {-1, -1, -1};
  int32_t count = 0;
  TRY(adcg_ladder_choose(small, SMALL, &budget, NULL, 0, &count));
  CHECK_INT(count, 3);
  FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, 2, &count), ADCG_ERR_ARGUMENT, "capacity", "2", "3 buckets");
  CHECK_INT(count, 0);
  CHECK_INT(buckets[0], -1);
  FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, 0, &count), ADCG_ERR_ARGUMENT, "capacity", "0", "3 buckets");
  TRY(adcg_ladder_named("sglang", 8192, 12, NULL, 0, &count));
  CHECK_INT(count, 5);
  FAILS(adcg_ladder_named("sglang", 8192, 12, buckets, 3, &count), ADCG_ERR_ARGUMENT, "capacity", "3", "5 buckets");
  CHECK_INT(count, 0);
  TRY(adcg_ladder_named("sglang_piecewise", 3, 1, buckets, 3, &count)); /* it has nothing below 4 tokens */
  CHECK_INT(count, 0);
}

static void cost_of_a_ladder(void) {
  const int64_t ladder[] = {1, 4, 6};
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  budget.bytes_per_bucket = 100, budget.bytes_per_token = 10, budget.ns_per_token = 3;
  budget.max_buckets = 1, budget.max_bytes = 1; /* limits do not count */
  adcg_ladder_bucket buckets[3];
  adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
  TRY(adcg_ladder_cost(small, SMALL, ladder, 3, &budget, buckets, &totals));
  CHECK_INT(totals.struct_size, sizeof totals);
  CHECK_INT(totals.steps, 15);
  CHECK_INT(totals.real_tokens, 10 + 8 + 8);
  CHECK_INT(totals.padded_tokens, 4 * 2);
  CHECK_INT(totals.eager_steps, 1);
  CHECK_INT(totals.eager_tokens, 8);
  CHECK_INT(totals.bytes, 300 + 110);
  CHECK_INT(totals.ns, 33);
  CHECK_INT(buckets[0].steps, 10);
  CHECK_INT(buckets[0].padded_tokens, 0);
  CHECK_INT(buckets[1].tokens, 4);
  CHECK_INT(buckets[1].real_tokens, 8);
  CHECK_INT(buckets[1].padded_tokens, 8);
  CHECK_INT(buckets[1].bytes, 140);
  CHECK_INT(buckets[1].ns, 12);
  CHECK_INT(buckets[2].steps, 0);
  TRY(adcg_ladder_cost(small, SMALL, NULL, 0, NULL, NULL, &totals));
  CHECK_INT(totals.eager_steps, 15);
  CHECK_INT(totals.padded_tokens, 0);
  CHECK_INT(totals.bytes, 0);
}

static void names_and_limits(void) {
  const char *names[] = {"adcg", "vllm", "sglang", "sglang_piecewise"};
  const int64_t largest[] = {5000, 128, 64, 4608}; /* for steps of 5,000 tokens and 64 sequences */
  int64_t buckets[128];
  for (int i = 0; i < 4; i++) {
    int32_t count = 0;
    TRY(adcg_ladder_named(names[i], 5000, 64, buckets, 128, &count));
    CHECK_INT(buckets[count - 1], largest[i]);
    adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
    TRY(adcg_ladder_cost(small, SMALL, buckets, count, NULL, NULL, &totals));
    CHECK_INT(totals.eager_steps, 0);
  }
}

/* ---- Bad input ------------------------------------------------------------------------------------------------- */

static void nulls(void) {
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
  int64_t buckets[4];
  int32_t count = 7;
  FAILS(adcg_ladder_choose(NULL, SMALL, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "histogram", "NULL");
  CHECK_INT(count, 0);
  FAILS(adcg_ladder_choose(NULL, 0, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "histogram", "empty");
  FAILS(adcg_ladder_choose(small, SMALL, NULL, buckets, 4, &count), ADCG_ERR_ARGUMENT, "budget", "NULL");
  FAILS(adcg_ladder_choose(small, SMALL, &budget, NULL, 4, &count), ADCG_ERR_ARGUMENT, "out_buckets", "NULL");
  FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, NULL), ADCG_ERR_ARGUMENT, "out_count", "NULL");
  FAILS(adcg_ladder_cost(NULL, 3, buckets, 0, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "histogram", "NULL");
  FAILS(adcg_ladder_cost(small, 0, buckets, 0, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "histogram", "empty");
  FAILS(adcg_ladder_cost(small, SMALL, NULL, 2, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "buckets", "NULL");
  FAILS(adcg_ladder_cost(small, SMALL, buckets, 0, NULL, NULL, NULL), ADCG_ERR_ARGUMENT, "out_totals", "NULL");
  FAILS(adcg_ladder_named(NULL, 1, 1, buckets, 4, &count), ADCG_ERR_ARGUMENT, "name", "NULL");
  FAILS(adcg_ladder_named("vllm", 1, 1, NULL, 4, &count), ADCG_ERR_ARGUMENT, "out_buckets", "NULL");
  FAILS(adcg_ladder_named("vllm", 1, 1, buckets, 4, NULL), ADCG_ERR_ARGUMENT, "out_count", "NULL");
}

static void struct_sizes(void) {
  const int64_t ladder[] = {8};
  int64_t buckets[4];
  int32_t count;
  const size_t wrong[] = {0, 8, sizeof(adcg_ladder_budget) - 1};
  for (int i = 0; i < 3; i++) {
    adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
    adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
    budget.struct_size = wrong[i];
    FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "budget", "struct_size",
          "ADCG_LADDER_BUDGET_INIT");
    FAILS(adcg_ladder_cost(small, SMALL, ladder, 1, &budget, NULL, &totals), ADCG_ERR_ARGUMENT, "budget", "struct_size");
    totals.struct_size = i == 2 ? sizeof totals - 1 : wrong[i];
    FAILS(adcg_ladder_cost(small, SMALL, ladder, 1, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "out_totals", "struct_size",
          "ADCG_LADDER_TOTALS_INIT");
  }
  struct { /* of a caller with a newer header: what is behind is not looked at */
    adcg_ladder_budget budget;
    int64_t unknown[4];
  } newer = {ADCG_LADDER_BUDGET_INIT, {-1, -1, -1, -1}};
  newer.budget.struct_size = sizeof newer;
  TRY(adcg_ladder_choose(small, SMALL, &newer.budget, buckets, 4, &count));
}

static void counts_out_of_range(void) {
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
  int64_t buckets[4] = {1, 2, 4, 8};
  int32_t count;
  FAILS(adcg_ladder_choose(small, -1, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "num_sizes", "-1");
  FAILS(adcg_ladder_choose(small, INT32_MAX, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "num_sizes", "2147483647", "16777216");
  FAILS(adcg_ladder_choose(small, ADCG_MAX_LADDER + 1, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "num_sizes", "16777217");
  FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, -4, &count), ADCG_ERR_ARGUMENT, "capacity", "-4");
  FAILS(adcg_ladder_cost(small, INT32_MIN, buckets, 4, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "num_sizes", "-2147483648");
  FAILS(adcg_ladder_cost(small, SMALL, buckets, -1, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "num_buckets", "-1");
  FAILS(adcg_ladder_cost(small, SMALL, buckets, INT32_MAX, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "num_buckets", "2147483647");
  FAILS(adcg_ladder_named("vllm", 1, 1, buckets, INT32_MIN, &count), ADCG_ERR_ARGUMENT, "capacity", "-2147483648");
}

static void histograms_out_of_range(void) {
  adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
  adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
  static const struct {
    adcg_step_count bad;
    const char *said;
  } table[] = {{{0, 1}, "tokens: 0"},
               {{-5, 1}, "tokens: -5"},
               {{INT64_MAX, 1}, "tokens: 9223372036854775807"},
               {{1, 0}, "steps: 0"},
               {{1, INT64_MIN}, "steps: -9223372036854775808"}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    const adcg_step_count histogram[] = {{3, 1}, table[i].bad};
    int64_t buckets[4] = {4, 0, 0, 0};
    int32_t count;
    FAILS(adcg_ladder_choose(histogram, 2, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "histogram[1]", table[i].said);
    FAILS(adcg_ladder_cost(histogram, 2, buckets, 1, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "histogram[1]", table[i].said);
  }
  const adcg_step_count many[] = {{1, INT64_MAX}, {1, INT64_MAX}};
  FAILS(adcg_ladder_cost(many, 2, NULL, 0, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "histogram", "1152921504606846976");
}

static void budgets_out_of_range(void) {
  adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
  const int64_t ladder[] = {8};
  int64_t buckets[4];
  int32_t count = 0;
  adcg_ladder_budget budget;
#define NEGATIVE(field)                                                                                                   \
  do {                                                                                                                    \
    budget = (adcg_ladder_budget)ADCG_LADDER_BUDGET_INIT;                                                                 \
    budget.field = -3;                                                                                                    \
    FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "budget." #field ": -3");     \
    FAILS(adcg_ladder_cost(small, SMALL, ladder, 1, &budget, NULL, &totals), ADCG_ERR_ARGUMENT, "budget." #field ": -3"); \
  } while (0)
  NEGATIVE(max_buckets);
  NEGATIVE(max_tokens);
  NEGATIVE(bytes_per_bucket);
  NEGATIVE(bytes_per_token);
  NEGATIVE(max_bytes);
  NEGATIVE(ns_per_bucket);
  NEGATIVE(ns_per_token);
  NEGATIVE(max_ns);
#undef NEGATIVE
  budget = (adcg_ladder_budget)ADCG_LADDER_BUDGET_INIT;
  budget.ns_per_bucket = budget.ns_per_token = budget.bytes_per_token = INT64_MAX;
  FAILS(adcg_ladder_cost(small, SMALL, ladder, 1, &budget, NULL, &totals), ADCG_ERR_ARGUMENT, "buckets[0]", "63 bits");
  budget.max_ns = 5, budget.allow_eager = 1;
  FAILS(adcg_ladder_choose(small, SMALL, &budget, buckets, 4, &count), ADCG_ERR_ARGUMENT, "max_ns: 5", "1 tokens");
}

static void ladders_that_do_not_rise(void) {
  adcg_ladder_totals totals = ADCG_LADDER_TOTALS_INIT;
  const int64_t same[] = {2, 2}, falling[] = {1, 8, 4}, zero[] = {0}, negative[] = {-8}, large[] = {(int64_t)1 << 31};
  FAILS(adcg_ladder_cost(small, SMALL, same, 2, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "buckets[1]: 2");
  FAILS(adcg_ladder_cost(small, SMALL, falling, 3, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "buckets[2]: 4");
  FAILS(adcg_ladder_cost(small, SMALL, zero, 1, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "buckets[0]: 0");
  FAILS(adcg_ladder_cost(small, SMALL, negative, 1, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "buckets[0]: -8");
  FAILS(adcg_ladder_cost(small, SMALL, large, 1, NULL, NULL, &totals), ADCG_ERR_ARGUMENT, "buckets[0]: 2147483648");
}

/* What a caller finds in its totals and buckets when a cost is refused: zeros, and what was there. */
static void refused_costs(void) {
  const int64_t rising[] = {1, 4}, falling[] = {4, 1};
  adcg_ladder_budget odd = ADCG_LADDER_BUDGET_INIT, dear = ADCG_LADDER_BUDGET_INIT, negative = ADCG_LADDER_BUDGET_INIT;
  odd.struct_size = 3, dear.ns_per_bucket = INT64_MAX, negative.bytes_per_token = -1;
  const struct {
    const adcg_step_count *histogram;
    int32_t num_sizes;
    const int64_t *buckets;
    int32_t num_buckets;
    const adcg_ladder_budget *budget;
    const char *what;
  } table[] = {{NULL, SMALL, rising, 2, NULL, "histogram"},   {small, -1, rising, 2, NULL, "num_sizes"},
               {small, 0, rising, 2, NULL, "histogram"},      {small, SMALL, NULL, 2, NULL, "buckets"},
               {small, SMALL, rising, -1, NULL, "buckets"},   {small, SMALL, falling, 2, NULL, "buckets[1]"},
               {small, SMALL, rising, 2, &odd, "budget"},     {small, SMALL, rising, 2, &negative, "bytes_per_token"},
               {small, SMALL, rising, 2, &dear, "buckets[1]"}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    adcg_ladder_bucket buckets[2];
    struct { /* a caller with a newer header: what is behind is not written */
      adcg_ladder_totals totals;
      int64_t unknown;
    } newer = {ADCG_LADDER_TOTALS_INIT, 77};
    adcg_ladder_totals *totals = &newer.totals;
    totals->struct_size = sizeof newer;
    TRY(adcg_ladder_cost(small, SMALL, rising, 2, NULL, buckets, totals)); /* of an earlier call: {1, 4} leaves out a step of 8 */
    CHECK_INT(totals->eager_steps, 1);
    CHECK_INT(buckets[1].tokens, 4);
    FAILS(
        adcg_ladder_cost(table[i].histogram, table[i].num_sizes, table[i].buckets, table[i].num_buckets, table[i].budget, buckets, totals),
        ADCG_ERR_ARGUMENT, table[i].what);
    CHECK_INT(totals->struct_size, sizeof newer);
    CHECK_INT(totals->steps, 0);
    CHECK_INT(totals->real_tokens, 0);
    CHECK_INT(totals->padded_tokens, 0);
    CHECK_INT(totals->eager_steps, 0);
    CHECK_INT(totals->eager_tokens, 0);
    CHECK_INT(totals->bytes, 0);
    CHECK_INT(totals->ns, 0);
    CHECK_INT(newer.unknown, 77);
    CHECK_INT(buckets[1].tokens, 4);
  }
}

static void unknown_names(void) {
  int64_t buckets[4];
  int32_t count = 9;
  FAILS(adcg_ladder_named("vlm", 64, 4, buckets, 4, &count), ADCG_ERR_NOT_FOUND, "`vlm`", "`vllm`", "`sglang_piecewise`", "`adcg`");
  CHECK_INT(count, 0);
  FAILS(adcg_ladder_named("", 64, 4, buckets, 4, &count), ADCG_ERR_NOT_FOUND, "name");
  FAILS(adcg_ladder_named("vllm", 0, 4, buckets, 4, &count), ADCG_ERR_ARGUMENT, "max_tokens: 0");
  FAILS(adcg_ladder_named("vllm", 64, -1, buckets, 4, &count), ADCG_ERR_ARGUMENT, "max_seqs: -1");
  FAILS(adcg_ladder_named("adcg", INT64_MAX, 1, buckets, 4, &count), ADCG_ERR_ARGUMENT, "max_tokens: 9223372036854775807");
  FAILS(adcg_ladder_named("sglang_piecewise", INT32_MAX, 1, NULL, 0, &count), ADCG_ERR_ARGUMENT, "max_tokens: 2147483647", "1048576");
}

static const harness_case cases[] = {
    {"chosen_by_count", chosen_by_count},
    {"chosen_by_prices", chosen_by_prices},
    {"counted_first", counted_first},
    {"cost_of_a_ladder", cost_of_a_ladder},
    {"names_and_limits", names_and_limits},
    {"nulls", nulls},
    {"struct_sizes", struct_sizes},
    {"counts_out_of_range", counts_out_of_range},
    {"histograms_out_of_range", histograms_out_of_range},
    {"budgets_out_of_range", budgets_out_of_range},
    {"ladders_that_do_not_rise", ladders_that_do_not_rise},
    {"refused_costs", refused_costs},
    {"unknown_names", unknown_names},
};
HARNESS_MAIN(cases)
