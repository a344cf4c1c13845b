/* adcg.linear through cuBLASLt: opening the library, and the op itself. The choice of algorithms is in lt_choice.c. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/activation.h"
#include "../common/strides.h"
#include "launch.h"
#include "lt_choice.h"

/* ---- Opening ---------------------------------------------------------------------------------------------------------------------- */

const char *const adcgk_lt_names[] = {
#define X(result, name, parameters) "cublasLt" #name,
    LT_FUNCTIONS(X)
#undef X
        NULL};

static bool valid(const adcgk_lt_options *o, char *message, size_t size) {
  const char *wrong = NULL;
  if (!(o->plain_cost >= 0)) wrong = "plain_cost: not a number, or below zero";
  if (o->alignment < 1 || (o->alignment & (o->alignment - 1)) != 0) wrong = "alignment: not a power of two";
  if (o->pinned_rows < 0) wrong = "pinned_rows: below zero";
  if (wrong) snprintf(message, size, "adcgk_lt_open: options: %s", wrong);
  return !wrong;
}

adcgk_lt *adcgk_lt_open(void *const *functions, const adcgk_lt_options *options, char *message, size_t size) {
  const adcgk_lt_options defaults = ADCGK_LT_OPTIONS_INIT;
  if (!valid(options ? options : &defaults, message, size)) return NULL;
  adcgk_lt *lt = calloc(1, sizeof *lt);
  if (lt) lt->entries = calloc(LT_ENTRIES, sizeof *lt->entries);
  if (!lt || !lt->entries) {
    snprintf(message, size, "adcgk_lt_open: out of memory");
    free(lt);
    return NULL;
  }
  memcpy(&lt->call, functions, sizeof lt->call); /* plain pointers, in the order of the names */
  lt->options = options ? *options : defaults;
  lt->version = (int64_t)lt->call.GetVersion();
  const lt_status status = lt->call.Create(&lt->handle);
  if (status != LT_SUCCESS) {
    snprintf(message, size, "cublasLtCreate: %s (cuBLASLt %lld)", lt->call.GetStatusName(status), (long long)lt->version);
    free(lt->entries);
    free(lt);
    return NULL;
  }
  return lt;
}

void adcgk_lt_close(adcgk_lt *lt) {
  if (!lt) return;
  lt->call.Destroy(lt->handle); /* that it fails would change nothing */
  free(lt->entries);
  free(lt);
}

int64_t adcgk_lt_version(const adcgk_lt *lt) { return lt->version; }

/* ---- A call as a problem ---------------------------------------------------------------------------------------------------------- */

static int32_t type_of(const DLTensor *t) { return adcgk_is_bf16(t) ? LT_R_16BF : LT_R_32F; }

/* What the address is a multiple of, `most` at most: as a promise it holds for other addresses too. */
static uint32_t alignment_of(const void *data, int32_t most) {
  const uintptr_t address = (uintptr_t)data | (uintptr_t)most;
  return (uint32_t)(address & (~address + 1));
}

enum { WORKSPACE_ALIGNMENT = 256 }; /* of what the library is given */

typedef struct lt_call {
  lt_problem problem;
  const DLTensor *bias;          /* NULL: none */
  adcgk_activation activation;
  bool finish;                   /* the library stops at f32 sums, and our kernel does the rest */
  bool sums;                     /* these lie in the workspace, not in y */
  uint64_t split_bytes, sum_bytes; /* of workspace */
} lt_call;

/* False: not for cuBLASLt, whatever the sizes of the call. */
static bool read_call(const adcg_op_call *call, const adcgk_cuda *device, lt_call *c) {
  const adcgk_lt *lt = device->lt;
  if (!lt || (device->batch_invariant && lt->options.pinned_rows == 0)) return false;
  const DLTensor *x = &call->inputs[0], *w = &call->inputs[1], *y = &call->outputs[0];
  if (type_of(x) != type_of(w)) return false;
  *c = (lt_call){.bias = call->num_inputs > 2 ? &call->inputs[2] : NULL, .activation = adcgk_activation_of(call->attrs[0].s)};
  lt_problem *p = &c->problem;
  p->m = x->shape[0];
  p->n = w->shape[0];
  p->k = w->shape[1];
  if (p->n < 1 || p->k < 1) return false;
  if (adcgk_row_runs(x).count > 1) return false;
  /* Of one row alone the stride may be anything. */
  p->ldx = p->m > 1 ? adcgk_stride(x, 0) : adcgk_max(adcgk_stride(x, 0), p->k);
  p->ldy = p->m > 1 ? adcgk_stride(y, 0) : adcgk_max(adcgk_stride(y, 0), p->n);
  if (p->ldx < p->k || p->ldy < p->n) return false;
  p->pinned = device->batch_invariant != 0;
  p->x_type = p->y_type = type_of(x);
  /* Its gelu, the one by tanh, is no activation of ours: it was 1.9 to 4.5 roundings of bf16 off on an H100 (13.1, nvjet kernels).
   * It adds a bias of y's type. */
  const uint32_t epilogue = c->activation == ADCGK_NONE ? LT_EPILOGUE_DEFAULT : c->activation == ADCGK_RELU ? LT_EPILOGUE_RELU : 0;
  c->finish = epilogue == 0 || (c->bias && type_of(c->bias) != p->y_type);
  c->sums = c->finish && p->y_type != LT_R_32F;
  p->epilogue = c->finish ? LT_EPILOGUE_DEFAULT : epilogue;
  if (c->bias && !c->finish) {
    p->epilogue = (epilogue == LT_EPILOGUE_DEFAULT ? 0 : epilogue) | LT_EPILOGUE_BIAS;
    p->bias_type = type_of(c->bias);
  }
  if (c->sums) {
    p->y_type = LT_R_32F;
    p->ldy = p->n;
    c->sum_bytes = (uint64_t)p->m * (uint64_t)p->n * sizeof(float);
  }
  c->split_bytes = (lt_split_bytes(lt, device, p->m, p->n) + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
  return true;
}

static size_t workspace_of(const lt_call *c) {
  const uint64_t bytes = c->split_bytes + c->sum_bytes;
  return bytes > 0 ? (size_t)bytes + WORKSPACE_ALIGNMENT : 0; /* the plan's blocks are aligned to less */
}

size_t adcgk_lt_workspace(const adcg_op_call *call, const void *user_data) {
  lt_call c;
  return read_call(call, adcgk_cuda_of(user_data), &c) ? workspace_of(&c) : 0;
}

/* ---- The op ----------------------------------------------------------------------------------------------------------------------- */

static adcg_status fail(const adcg_op_call *call, const adcgk_lt *lt, const lt_problem *p, const lt_failure *failure) {
  const char *type = p->x_type == LT_R_16BF ? "bfloat16" : "float32";
  adcgk_cuda_fail(call, "%s: %s: x %s [%lld, %lld], weight [%lld, %lld]", failure->function, lt->call.GetStatusName(failure->status), type,
                  (long long)p->m, (long long)p->k, (long long)p->n, (long long)p->k);
  switch (failure->status) {
    case LT_ALLOC_FAILED: return ADCG_ERR_OUT_OF_MEMORY;
    case LT_ARCH_MISMATCH:
    case LT_NOT_SUPPORTED: return ADCG_ERR_UNSUPPORTED;
    default: return ADCG_ERR_DEVICE;
  }
}

/* A call on its way: where it writes, its descriptors and its algorithm. */
typedef struct lt_run {
  lt_call c;
  void *y;         /* the result, or the sums of which the result is made */
  void *workspace; /* the library's */
  lt_operation operation;
  lt_choice choice;
} lt_run;

/* ADCGK_LT_DECLINED if the call is not for the library. */
static adcg_status begin(const adcg_op_call *call, const adcgk_cuda *device, lt_run *run) {
  const adcgk_lt *lt = device->lt;
  if (!read_call(call, device, &run->c)) return ADCGK_LT_DECLINED;
  lt_problem *p = &run->c.problem;
  const size_t needed = workspace_of(&run->c);
  if (call->workspace_bytes < needed) return adcgk_cuda_fail(call, "workspace: %zu bytes, needs %zu", call->workspace_bytes, needed);
  const uintptr_t scratch = ((uintptr_t)call->workspace + WORKSPACE_ALIGNMENT - 1) & ~(uintptr_t)(WORKSPACE_ALIGNMENT - 1);
  run->workspace = (void *)scratch;
  run->y = run->c.sums ? (void *)(scratch + run->c.split_bytes) : adcg_data(&call->outputs[0]);
  const void *bias = run->c.bias ? adcg_data(run->c.bias) : NULL;
  const int32_t most = lt->options.alignment;
  p->x_align = alignment_of(adcg_data(&call->inputs[0]), most);
  p->w_align = alignment_of(adcg_data(&call->inputs[1]), most);
  p->y_align = alignment_of(run->y, most);
  if (p->epilogue & LT_EPILOGUE_BIAS) p->b_align = alignment_of(bias, most);
  lt_failure failure;
  if (!lt_describe(lt, p, p->m, bias, &run->operation, &failure) ||
      !lt_choose(lt, device, p, bias, &run->operation, &run->choice, &failure))
    return fail(call, lt, p, &failure);
  return run->choice.usable ? ADCG_OK : ADCGK_LT_DECLINED;
}

/* y = activation(sums + bias); sums may be y. */
static adcg_status finish(const adcg_op_call *call, const void *user_data, const lt_call *c, const float *sums) {
  const DLTensor *y = &call->outputs[0];
  adcg_linear_finish_args args = {
      .sums = sums,
      .bias = c->bias ? adcg_data(c->bias) : NULL,
      .y = adcg_data(y),
      .m = c->problem.m,
      .n = c->problem.n,
      .lds = c->problem.ldy,
      .ldy = adcgk_stride(y, 0),
      .activation = (int32_t)c->activation,
      .y_bf16 = adcgk_is_bf16(y),
      .bias_bf16 = c->bias && adcgk_is_bf16(c->bias),
  };
  const int64_t chunks = args.m * adcgk_ceil_div(args.n, 8);
  return adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_linear_finish, adcgk_cuda_blocks(chunks), 256, 0, &args);
}

adcg_status adcgk_lt_linear(const adcg_op_call *call, const void *user_data) {
  const adcgk_cuda *device = adcgk_cuda_of(user_data);
  const adcgk_lt *lt = device->lt;
  lt_run run;
  if (lt && call->inputs[0].shape[0] < 1) return ADCG_OK; /* the library refuses what is empty */
  const adcg_status status = begin(call, device, &run);
  if (status != ADCG_OK) return status;
  const lt_operation *o = &run.operation;
  const size_t used = (size_t)run.choice.info.workspace_bytes;
  const float one = 1, zero = 0;
  const lt_status done =
      lt->call.Matmul(lt->handle, &o->desc, &one, adcg_data(&call->inputs[1]), &o->a, adcg_data(&call->inputs[0]), &o->b, &zero, run.y,
                      &o->d, run.y, &o->d, &run.choice.algo, used > 0 ? run.workspace : NULL, used, call->stream);
  if (done != LT_SUCCESS) return fail(call, lt, &run.c.problem, &(lt_failure){"cublasLtMatmul", done});
  return run.c.finish ? finish(call, user_data, &run.c, run.y) : ADCG_OK;
}

adcg_status adcgk_lt_describe(const adcg_op_call *call, const void *user_data, adcgk_lt_choice *out_choice) {
  lt_run run;
  const adcg_status status = begin(call, adcgk_cuda_of(user_data), &run);
  if (status == ADCG_OK) *out_choice = run.choice.info;
  return status;
}
