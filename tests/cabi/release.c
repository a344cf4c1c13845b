/* An arena's memory that is given back and had again: the same bits, the same counters, no step in between, nothing kept, nothing lost. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "chain.h"

enum { ROW_SCRATCH = 64 * 1024, MAX_TOKENS = 128 };

static char *scratch; /* where the last launch's workspace lay: memory of the arena */

/* 64 KiB of workspace a token: 8 MiB at the most, in many of a CUDA device's pieces. */
static adcg_status scratch_bytes(const adcg_op_call *call, size_t *out_bytes, void *user_data) {
  (void)user_data;
  *out_bytes = (size_t)call->tokens * ROW_SCRATCH;
  return ADCG_OK;
}

/* out = in + 1 by way of the workspace's last bytes; on the host all of it is touched. */
static adcg_status by_way_of_scratch(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  const int64_t n = adcg_numel(&call->outputs[0]);
  scratch = call->workspace;
  if (!on_cuda()) memset(scratch, 0xCC, call->workspace_bytes);
  if (!n) return ADCG_OK;
  float *at = (float *)(void *)(scratch + (call->workspace_bytes - (size_t)n * sizeof(float)) / 64 * 64);
  adcg_status status = device_keep(call, adcg_data(&call->inputs[0]), at, n);
  return status ? status : device_add(call, at, NULL, adcg_data(&call->outputs[0]), n, 0, 1);
}

/* x + 1 (static), + 1 (dynamic, of this capture support, with the workspace), + 1 (static). */
static void open_scratch(int32_t support) {
  mini_open(&m, MAX_TOKENS, 8);
  adcg_op_schema first = mini_schema("t.first", ADCG_OP_STATIC, mini_increment),
                 dynamic = mini_schema("t.scratch", ADCG_OP_DYNAMIC, by_way_of_scratch),
                 last = mini_schema("t.last", ADCG_OP_STATIC, mini_increment);
  dynamic.capture = support;
  dynamic.workspace = scratch_bytes;
  adcg_value v = mini_add(&m, &first, NULL, m.input);
  v = mini_add(&m, &dynamic, NULL, v);
  mini_freeze(&m, mini_add(&m, &last, NULL, v));
}

static adcg_exec *new_exec(int32_t mode, int32_t layout) {
  adcg_exec *exec;
  adcg_exec_options options = options_of(mode);
  options.layout = layout;
  TRY(adcg_exec_create(m.graph, &options, &exec));
  return exec;
}

static void turn(void) {
  TRY(adcg_exec_release(m.exec));
  TRY(adcg_exec_restore(m.exec));
}

static void refused(void) {
  adcg_batch batch = mixed(1, 9, 0), empty = mixed(0, 0, 0);
  FAILS(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, NULL, &m.step), ADCG_ERR_STATE, "exec: released",
        "adcg_exec_restore");
  FAILS(adcg_exec_replay(m.exec, &empty, &m.x_tensor, 1, &m.y_tensor, 1, NULL, NULL), ADCG_ERR_STATE, "exec: released");
  FAILS(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL), ADCG_ERR_STATE, "exec: released", "adcg_exec_restore");
  FAILS(adcg_exec_release(m.exec), ADCG_ERR_STATE, "released already");
}

/* ---- What memory there is, as others see it ------------------------------------------------------------------------------ */

/* Bytes of device memory that nobody has; over the stand-in, as others are on a real device. */
static int64_t free_bytes(void) {
  size_t unused = 0, total = 0;
  CU(cuMemGetInfo_v2(&unused, &total));
  return (int64_t)unused;
}

/* Pages of the workspace, whole ones, that are in the host's memory. */
static int64_t resident_pages(const char *from, int64_t bytes) {
  static unsigned char in_memory[4096];
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)from + page - 1) / page * page;
  const size_t pages = ((uintptr_t)from + (uintptr_t)bytes - begin) / page;
  CHECK(pages > 0 && pages <= sizeof in_memory);
  CHECK_INT(mincore((void *)begin, pages * page, in_memory), 0);
  int64_t resident = 0;
  for (size_t i = 0; i < pages; i++) resident += in_memory[i] & 1;
  return resident;
}

static void memory_is_given_back(void) {
  open_scratch(ADCG_CAPTURE_NEVER);
  m.exec = new_exec(ADCG_MODE_PIECEWISE, ADCG_LAYOUT_FIXED);
  mini_step(&m, mixed(1, 100, 0), 3); /* eager, and nearly as large as a step can be */
  const adcg_stats held = mini_stats(&m);
  CHECK(held.arena_bytes >= 100 * ROW_SCRATCH);
  const bool alone = on_cuda() && cu.fakecuda_leaks;
  const int64_t before = alone ? free_bytes() : 0;
  if (!on_cuda()) CHECK(resident_pages(scratch, 100 * ROW_SCRATCH) >= 99 * ROW_SCRATCH / sysconf(_SC_PAGESIZE));
  TRY(adcg_exec_release(m.exec));
  adcg_stats stats = mini_stats(&m);
  CHECK_INT(stats.arena_bytes, 0);
  CHECK_INT(stats.total_bytes, held.total_bytes - held.arena_bytes);
  CHECK_INT(stats.graph_bytes, held.graph_bytes);
  CHECK_INT(stats.captured_buckets, held.captured_buckets);
  if (alone) CHECK(free_bytes() - before >= held.arena_bytes);
  if (!on_cuda()) CHECK_INT(resident_pages(scratch, 100 * ROW_SCRATCH), 0);
  TRY(adcg_exec_restore(m.exec));
  if (alone) CHECK_INT(free_bytes(), before);
  mini_step(&m, mixed(1, 100, 0), 3);
  stats = mini_stats(&m);
  CHECK_INT(stats.arena_bytes, held.arena_bytes);
  CHECK_INT(stats.total_bytes, held.total_bytes);
  mini_close(&m);
}

/* ---- Steps --------------------------------------------------------------------------------------------------------------- */

static uint32_t random_state = 1;
static int64_t random_below(int64_t n) {
  random_state = random_state * 1664525 + 1013904223;
  return (int64_t)(random_state >> 8) % n;
}

/* Two execs, the same steps, one of them released and restored in front of each: the numbers, what each step did, what there is. */
static void turns_change_nothing(void) {
  for (int32_t support = ADCG_CAPTURE_NEVER; support <= ADCG_CAPTURE_ALWAYS; support++) {
    for (int32_t mode = ADCG_MODE_NONE; mode <= ADCG_MODE_FULL_AND_PIECEWISE; mode++) {
      open_scratch(support);
      const int32_t layout = mode % 2 ? ADCG_LAYOUT_PER_BUCKET : ADCG_LAYOUT_FIXED;
      adcg_exec *execs[] = {new_exec(mode, layout), new_exec(mode, layout)};
      adcg_stats stats[2];
      random_state = (uint32_t)(1 + 10 * support + mode);
      for (int i = 0; i < 14; i++) {
        const bool prefill = random_below(2), as_before = i % 3 == 2; /* a step just like the last one skips its checks */
        static adcg_batch batch;
        if (!as_before) {
          batch = prefill ? mixed(1 + random_below(2), 2 + random_below(80), random_below(4)) : mixed(0, 0, 1 + random_below(8));
          m.x_shape[0] = m.y_shape[0] = random_below(3) ? MAX_ROWS : adcg_batch_tokens(&batch); /* in place, or staged */
        }
        adcg_step steps[2];
        float y[2][MAX_ROWS * COLUMNS];
        for (int k = 0; k < 2; k++) {
          m.exec = execs[k];
          if (k) turn();
          mini_step(&m, batch, 3);
          steps[k] = m.step;
          memcpy(y[k], m.y_data, sizeof m.y_data);
          stats[k] = mini_stats(&m);
        }
        const size_t real = (size_t)adcg_batch_tokens(&batch) * COLUMNS * sizeof(float);
        CHECK(memcmp(y[0], y[1], real) == 0);
        CHECK(memcmp(&steps[0], &steps[1], sizeof steps[0]) == 0);
        CHECK(memcmp(&stats[0], &stats[1], sizeof stats[0]) == 0);
      }
      adcg_exec_destroy(execs[0]);
      mini_close(&m);
    }
  }
}

static void refused_in_between(void) {
  open_scratch(ADCG_CAPTURE_UNIFORM_DECODE);
  m.exec = new_exec(ADCG_MODE_FULL_AND_PIECEWISE, ADCG_LAYOUT_FIXED);
  FAILS(adcg_exec_restore(m.exec), ADCG_ERR_STATE, "not released");
  TRY(adcg_exec_release(m.exec)); /* before anything was captured */
  refused();
  TRY(adcg_exec_restore(m.exec));
  FAILS(adcg_exec_restore(m.exec), ADCG_ERR_STATE, "not released");
  mini_step(&m, mixed(1, 9, 0), 3); /* captured on first use */
  mini_step(&m, mixed(1, 9, 0), 3);
  TRY(adcg_exec_release(m.exec));
  refused(); /* also the step that was the last one */
  adcg_bucket_info info = ADCG_BUCKET_INFO_INIT;
  TRY(adcg_exec_get_bucket(m.exec, 0, &info));
  TRY(adcg_exec_synchronize(m.exec));
  if (on_cuda()) {
    TRY(adcg_exec_wait_stream(m.exec, (void *)1));
    TRY(adcg_stream_wait_exec((void *)1, m.exec));
  }
  refused();
  CHECK_INT(mini_stats(&m).steps, 2);
  CHECK_INT(mini_stats(&m).failed_steps, 0);
  TRY(adcg_exec_restore(m.exec));
  mini_step(&m, mixed(1, 9, 0), 3);
  mini_step(&m, mixed(0, 0, 3), 3);
  TRY(adcg_exec_release(m.exec));
  mini_close(&m); /* destroyed as it is */
}

/* What is bound while an exec is released counts from its next step on. */
static adcg_status weigh(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return device_add(call, adcg_data(&call->inputs[0]), adcg_data(&call->inputs[1]), adcg_data(&call->outputs[0]),
                    adcg_numel(&call->outputs[0]), COLUMNS, 0);
}

static void bound_in_between(void) {
  mini_open(&m, MAX_TOKENS, 8);
  adcg_op_schema schema = mini_schema("t.weigh", ADCG_OP_STATIC, weigh);
  schema.num_inputs = 2;
  mini_register(&m, &schema, NULL);
  adcg_dim row[] = {ADCG_DIM(COLUMNS)};
  adcg_value w, y;
  TRY(adcg_graph_add_weight(m.graph, "w", ADCG_F32, 1, row, &w));
  TRY(adcg_graph_add_op(m.graph, "t.weigh", (adcg_value[]){m.input, w}, 2, NULL, 0, &y, 1));
  mini_freeze(&m, y);
  m.exec = new_exec(ADCG_MODE_PIECEWISE, ADCG_LAYOUT_FIXED);
  int64_t shape[] = {COLUMNS};
  for (int i = 1; i <= 3; i++) {
    const float values[] = {(float)i, (float)i, (float)i, (float)i};
    DLTensor tensor = mini_tensor(device_alloc(m.engine, sizeof values), 1, shape);
    TRY(adcg_memory_copy(m.engine, tensor.data, values, sizeof values));
    TRY(adcg_exec_release(m.exec));
    TRY(adcg_exec_bind(m.exec, w, &tensor));
    TRY(adcg_exec_restore(m.exec));
    mini_step(&m, mixed(1, 9, 0), (float)i);
  }
  mini_close(&m);
}

/* The arena grows on: buckets that come later, in memory beside what was restored in one piece. */
static void grows_on(void) {
  open_scratch(ADCG_CAPTURE_NEVER);
  m.exec = new_exec(ADCG_MODE_PIECEWISE, ADCG_LAYOUT_PER_BUCKET);
  const int64_t tokens[] = {9, 50, 120, 20, 10};
  int64_t held = 0;
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    mini_step(&m, mixed(1, tokens[i], 0), 3);
    const int64_t now = mini_stats(&m).arena_bytes;
    CHECK(!on_cuda() || i == 0 || i > 2 ? now >= held : now > held);
    held = now;
    turn();
    CHECK_INT(mini_stats(&m).arena_bytes, held);
    mini_step(&m, mixed(1, tokens[0], 0), 3);
  }
  TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
  CHECK_INT(mini_stats(&m).arena_bytes, held);
  mini_close(&m);
}

/* A step that is under way is waited for, whatever stream it is on; the stand-in has done nothing of it until somebody waits. */
static void waits_for_the_step(void) {
  for (int own = 0; own < 2; own++) {
    open_scratch(ADCG_CAPTURE_ALWAYS);
    m.exec = new_exec(own ? ADCG_MODE_FULL : ADCG_MODE_PIECEWISE, ADCG_LAYOUT_FIXED);
    TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
    void *stream = NULL;
    if (on_cuda() && !own) CU(cuStreamCreate(&stream, 1));
    for (int i = 0; i < MAX_ROWS * COLUMNS; i++) m.x_data[i] = (float)(i + 1);
    mini_bring(&m);
    adcg_batch batch = mixed(1, 60, 0);
    TRY(adcg_exec_replay(m.exec, &batch, &m.x_tensor, 1, &m.y_tensor, 1, stream, &m.step));
    TRY(adcg_exec_release(m.exec));
    TRY(adcg_memory_copy(m.engine, m.y_data, m.y, sizeof m.y_data)); /* in no stream's order: the step is over */
    for (int i = 0; i < 60 * COLUMNS; i++) CHECK(m.y_data[i] == (float)(i + 4));
    TRY(adcg_exec_restore(m.exec));
    mini_step(&m, mixed(1, 60, 0), 3);
    if (stream) CU(cuStreamDestroy_v2(stream));
    mini_close(&m);
  }
}

/* ---- Turns ----------------------------------------------------------------------------------------------------------------- */

/* Two execs on a device with memory for the arena of one. */
static void two_take_turns(void) {
  open_scratch(ADCG_CAPTURE_UNIFORM_DECODE);
  const bool limited = on_cuda() && cu.fakecuda_set_total_memory;
  adcg_exec *execs[2];
  for (int i = 0; i < 2; i++) {
    execs[i] = m.exec = new_exec(i ? ADCG_MODE_PIECEWISE : ADCG_MODE_FULL_AND_PIECEWISE, ADCG_LAYOUT_FIXED);
    TRY(adcg_exec_capture(m.exec, NULL, 0, NULL, NULL));
    mini_step(&m, mixed(1, 100, 0), 3);
    TRY(adcg_exec_release(m.exec));
  }
  TRY(adcg_exec_restore(execs[0]));
  if (limited) { /* what is in use now, and not enough for another arena */
    const size_t plenty = (size_t)4 << 30;
    cu.fakecuda_set_total_memory(plenty);
    cu.fakecuda_set_total_memory(plenty - (size_t)free_bytes() + (4u << 20));
  }
  for (int i = 0; i < 6; i++) {
    adcg_exec *runs = execs[i % 2], *waits = execs[1 - i % 2];
    if (limited) {
      FAILS(adcg_exec_restore(waits), ADCG_ERR_OUT_OF_MEMORY, "arena", "cuMemCreate");
      FAILS(adcg_exec_restore(waits), ADCG_ERR_OUT_OF_MEMORY, "arena"); /* as often as one likes */
    }
    m.exec = waits;
    refused();
    CHECK_INT(mini_stats(&m).arena_bytes, 0);
    m.exec = runs;
    mini_step(&m, mixed(1, 9, 0), 3);
    mini_step(&m, mixed(0, 0, 3), 3);
    mini_step(&m, mixed(1, 90, 0), 3);
    TRY(adcg_exec_release(runs));
    TRY(adcg_exec_restore(waits));
  }
  adcg_exec_destroy(execs[1]);
  m.exec = execs[0];
  mini_close(&m);
}

/* The host's memory that is locked cannot be given back: the exec says so, and is as it was. */
static void locked_memory_stays(void) {
  open_scratch(ADCG_CAPTURE_NEVER);
  m.exec = new_exec(ADCG_MODE_PIECEWISE, ADCG_LAYOUT_FIXED);
  mini_step(&m, mixed(1, 9, 0), 3);
  if (mlock(scratch + 8192, 4096) != 0) SKIP("memory cannot be locked here");
  const int64_t held = mini_stats(&m).arena_bytes;
  FAILS(adcg_exec_release(m.exec), ADCG_ERR_DEVICE, "arena", "madvise");
  CHECK_INT(mini_stats(&m).arena_bytes, held);
  mini_step(&m, mixed(1, 9, 0), 3);
  CHECK_INT(munlock(scratch + 8192, 4096), 0);
  turn();
  mini_step(&m, mixed(1, 9, 0), 3);
  mini_close(&m);
}

static const harness_case cases[] = {
    {"memory_is_given_back", memory_is_given_back},
    {"turns_change_nothing", turns_change_nothing},
    {"refused_in_between", refused_in_between},
    {"bound_in_between", bound_in_between},
    {"grows_on", grows_on},
    {"waits_for_the_step", waits_for_the_step},
    {"two_take_turns", two_take_turns},
    {"locked_memory_stays", locked_memory_stays},
};
HARNESS_MAIN(cases)
