/* The host as a device, and what execs on any other need around their steps: streams, marks, launches. */
#include "tape.h"

#include <stdio.h>
#include <string.h>

/* ---- The host ------------------------------------------------------------------------------------------------- */

static adcg_status host_copy(const tape_device *device, void *stream, void *to, const void *from, size_t bytes) {
  (void)device, (void)stream;
  memcpy(to, from, bytes);
  return ADCG_OK;
}

static adcg_status host_fill(const tape_device *device, void *stream, void *at, int byte, size_t bytes) {
  (void)device, (void)stream;
  memset(at, byte, bytes);
  return ADCG_OK;
}

static void zero_run(char *run, int64_t bytes, void *context) {
  (void)context;
  memset(run, 0, (size_t)bytes);
}

static adcg_status host_zero_tail(const tape_exec *exec, const tape_value *value, char *data, int64_t rows) {
  int64_t real = tape_real_rows(exec, value);
  if (!value->strides) {
    memset(data + real * value->row_bytes, 0, (size_t)((rows - real) * value->row_bytes));
  } else {
    for (int64_t row = real; row < rows; row++) tape_each_run(value, data, row, zero_run, NULL);
  }
  return ADCG_OK;
}

const tape_device tape_host = {.copy = host_copy, .fill = host_fill, .zero_tail = host_zero_tail};

/* ---- Around the steps of any device ------------------------------------------------------------------------------ */

adcg_status tape_fail_device(adcg_status status, const char *function, const char *what) {
  char message[768];
  snprintf(message, sizeof message, "%s", tape_op_error()); /* tape_fail writes into the same block */
  tape_clear_op_error();
  return tape_fail(status, function, "%s: %s", what, message[0] ? message : tape_status_name(status));
}

adcg_status tape_enter(const tape_device *device, const char *function, void **was) {
  if (!device->enter) return ADCG_OK;
  adcg_status status = device->enter(device, was);
  return status ? tape_fail_device(status, function, "device") : ADCG_OK;
}

void tape_leave(const tape_device *device, void *was) {
  if (device->leave) device->leave(device, was);
}

/* The launcher of every call of an exec. */
static adcg_status launch(const adcg_launcher *launcher, const adcg_kernel_launch *launch) {
  const tape_exec *exec = (const tape_exec *)(uintptr_t)((const char *)launcher - offsetof(tape_exec, launcher));
  if (UNLIKELY(exec->capturing != NULL)) return exec->on->record(exec->on, exec->stream, exec->capturing, launch);
  return exec->on->launch(exec->on, exec->stream, launch);
}

adcg_status tape_open_streams(tape_exec *exec) {
  static const char f[] = "adcg_exec_create";
  if (!exec->on->open_stream) return ADCG_OK;
  exec->launcher.launch = launch;
  void *was = NULL;
  adcg_status status = tape_enter(exec->on, f, &was);
  if (status) return status;
  status = exec->on->open_stream(exec->on, &exec->own_stream);
  if (!status) status = exec->on->open_mark(exec->on, &exec->mark);
  tape_leave(exec->on, was);
  return status ? tape_fail_device(status, f, "stream") : ADCG_OK;
}

void tape_close_streams(tape_exec *exec) {
  if (exec->mark) exec->on->close_mark(exec->on, exec->mark);
  if (exec->own_stream) exec->on->close_stream(exec->on, exec->own_stream);
  exec->mark = exec->own_stream = NULL;
  exec->marked = false;
}

adcg_status tape_take_stream(tape_exec *exec, void *stream) {
  if (!exec->on->open_stream) return ADCG_OK;
  exec->stream = stream ? stream : exec->own_stream;
  /* Steps share the arena: one on another stream comes behind the last. The thread's default stream is another on each thread. */
  const bool same = exec->marked_stream == exec->stream && exec->stream != tape_pointer(TAPE_STREAM_PER_THREAD);
  if (!exec->marked || same) return ADCG_OK;
  return exec->on->wait_mark(exec->on, exec->mark, exec->stream);
}

adcg_status tape_give_batch(tape_exec *exec) {
  if (!exec->on->give_batch || memcmp(&exec->given, &exec->batch, sizeof exec->batch) == 0) return ADCG_OK;
  adcg_status status = exec->on->give_batch(exec);
  if (!status) exec->given = exec->batch;
  return status;
}

adcg_status tape_mark(tape_exec *exec) {
  if (!exec->on->set_mark) return ADCG_OK;
  adcg_status status = exec->on->set_mark(exec->on, exec->mark, exec->stream);
  if (!status) exec->marked = true;
  exec->marked_stream = exec->stream;
  return status;
}

adcg_status tape_synchronize(tape_exec *exec, const char *function) {
  if (!exec->marked) return ADCG_OK;
  void *was = NULL;
  adcg_status status = tape_enter(exec->on, function, &was);
  if (status) return status;
  status = exec->on->reach_mark(exec->on, exec->mark);
  tape_leave(exec->on, was);
  return status ? tape_fail_device(status, function, "step") : ADCG_OK;
}

adcg_status tape_order(tape_exec *exec, const char *function, void *stream, bool exec_waits) {
  const tape_device *on = exec->on;
  if (!on->open_stream)
    return stream ? tape_fail(ADCG_ERR_ARGUMENT, function, "stream: %p: the host device has none, pass NULL", stream) : ADCG_OK;
  if (!stream) return tape_fail(ADCG_ERR_ARGUMENT, function, "stream: NULL");
  if (!exec_waits && !exec->marked) return ADCG_OK;
  void *was = NULL;
  adcg_status status = tape_enter(on, function, &was);
  if (status) return status;
  if (!exec_waits) {
    status = on->wait_mark(on, exec->mark, stream);
  } else {
    /* what the exec has enqueued stays in front: its next step waits for the one mark, which is behind both */
    if (exec->marked) status = on->wait_mark(on, exec->mark, exec->own_stream);
    void *there = NULL;
    if (!status) status = on->open_mark(on, &there);
    if (!status) status = on->set_mark(on, there, stream);
    if (!status) status = on->wait_mark(on, there, exec->own_stream);
    if (there) on->close_mark(on, there);
    if (!status) status = on->set_mark(on, exec->mark, exec->own_stream);
    if (!status) {
      exec->marked = true;
      exec->marked_stream = exec->own_stream;
    }
  }
  tape_leave(on, was);
  return status ? tape_fail_device(status, function, "stream") : ADCG_OK;
}
