/* adcg_linear_finish as the test's device has it: the definition, in float64. The real one is held to the host's ops with the other
 * kernels; here it shows what the launcher hands over. */
#include <math.h>
#include <string.h>

#include "../../../kernels/common/activation.h"
#include "../../../kernels/cuda/args.h"
#include "../../fakecuda/fakecuda.h"
#include "numbers.h"

static void finish(const fakecuda_launch *launch) {
  adcg_linear_finish_args a;
  memcpy(&a, launch->args[0], sizeof a);
  const int64_t threads = (int64_t)launch->grid[0] * launch->block[0];
  for (int64_t i = 0; i < a.m * a.n; i++) {
    const int64_t row = i / a.n, column = i % a.n;
    if (row * ((a.n + 7) / 8) + column / 8 >= threads) continue; /* no thread for it */
    double v = a.sums[row * a.lds + column];
    if (a.bias) v += number_at(a.bias, a.bias_bf16, column);
    v = activated(a.activation, v);
    put_number(a.y, a.y_bf16, row * a.ldy + column, v);
  }
}

static const uint32_t sizes[] = {sizeof(adcg_linear_finish_args)}, alignments[] = {8};

const fakecuda_kernel fakecuda_kernels[] = {{"adcg_linear_finish", finish, 1, sizes, alignments}, {NULL, NULL, 0, NULL, NULL}};
