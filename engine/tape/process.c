/* Per-thread messages, the log, and what the process as a whole knows: whether it was forked, whether it is poisoned. */
#include "tape.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One pointer of thread-local memory, no more: Go's c-shared libraries use static TLS, which is scarce. */
typedef struct thread_messages {
  char error[1024];
  char op[768];
} thread_messages;
/* initial-exec: no call into the dynamic linker, and no dependence on it */
static _Thread_local thread_messages *messages __attribute__((tls_model("initial-exec")));
static pthread_key_t messages_key;
static pthread_once_t messages_once = PTHREAD_ONCE_INIT;

static _Atomic int32_t forked;
static _Atomic int32_t poisoned;

static void make_key(void) { pthread_key_create(&messages_key, free); }

/* This thread's messages; NULL if there is no memory for them. */
static thread_messages *own_messages(void) {
  if (!messages) {
    thread_messages *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    pthread_once(&messages_once, make_key);
    if (pthread_setspecific(messages_key, m) != 0) {
      free(m);
      return NULL;
    }
    messages = m;
  }
  return messages;
}

adcg_status tape_fail(adcg_status status, const char *function, const char *format, ...) {
  thread_messages *m = own_messages();
  if (!m) return status;
  int n = snprintf(m->error, sizeof m->error, "%s: ", function);
  if (n < 0 || (size_t)n >= sizeof m->error) return status;
  va_list args;
  va_start(args, format);
  vsnprintf(m->error + n, sizeof m->error - (size_t)n, format, args);
  va_end(args);
  return status;
}

void tape_set_message(adcg_status status, const char *function, const char *message) { (void)tape_fail(status, function, "%s", message); }

const char *tape_last_error(void) { return messages ? messages->error : ""; }

void tape_set_op_error(const char *message) {
  thread_messages *m = own_messages();
  if (m) snprintf(m->op, sizeof m->op, "%s", message ? message : "");
}

const char *tape_op_error(void) { return messages ? messages->op : ""; }

void tape_clear_op_error(void) {
  if (messages) messages->op[0] = 0;
}

static void in_child(void) { atomic_store(&forked, 1); }

void tape_process_init(void) {
  static _Atomic int32_t done;
  if (!atomic_exchange(&done, 1)) pthread_atfork(NULL, NULL, in_child);
}

void tape_poison(void) { atomic_store(&poisoned, 1); }

adcg_status tape_process_check(const char *function) {
  if (__builtin_expect(atomic_load_explicit(&forked, memory_order_relaxed) != 0, 0))
    return tape_fail(ADCG_ERR_FORKED, function, "this process is a fork: the library serves the process that loaded it");
  if (__builtin_expect(atomic_load_explicit(&poisoned, memory_order_relaxed) != 0, 0))
    return tape_fail(ADCG_ERR_POISONED, function, "an earlier call ended in an internal fault");
  return ADCG_OK;
}

/* ---- Log -------------------------------------------------------------------------------------------------- */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static adcg_log_fn log_fn;
static void *log_user_data;
static _Atomic int32_t log_level;

void tape_set_log(adcg_log_fn log, int32_t level, void *user_data) {
  pthread_mutex_lock(&log_lock);
  log_fn = log;
  log_user_data = user_data;
  atomic_store(&log_level, log ? level : 0);
  pthread_mutex_unlock(&log_lock);
}

int32_t tape_log_level(void) { return atomic_load_explicit(&log_level, memory_order_relaxed); }

void tape_log(int32_t level, const char *message) {
  pthread_mutex_lock(&log_lock);
  if (log_fn && level <= atomic_load(&log_level)) log_fn(level, message, log_user_data);
  pthread_mutex_unlock(&log_lock);
}

/* ---- Statuses ----------------------------------------------------------------------------------------------- */

const char *tape_status_name(adcg_status status) {
  switch (status) {
#define NAME(s) \
  case s: return #s;
    NAME(ADCG_OK)
    NAME(ADCG_ERR_ARGUMENT)
    NAME(ADCG_ERR_HANDLE)
    NAME(ADCG_ERR_STATE)
    NAME(ADCG_ERR_BUSY)
    NAME(ADCG_ERR_NOT_FOUND)
    NAME(ADCG_ERR_GRAPH)
    NAME(ADCG_ERR_SHAPE)
    NAME(ADCG_ERR_DTYPE)
    NAME(ADCG_ERR_ATTRIBUTE)
    NAME(ADCG_ERR_ADDRESS)
    NAME(ADCG_ERR_BATCH)
    NAME(ADCG_ERR_DEVICE)
    NAME(ADCG_ERR_UNSUPPORTED)
    NAME(ADCG_ERR_OUT_OF_MEMORY)
    NAME(ADCG_ERR_OP)
    NAME(ADCG_ERR_CANCELLED)
    NAME(ADCG_ERR_FORKED)
    NAME(ADCG_ERR_POISONED)
    NAME(ADCG_ERR_INTERNAL)
#undef NAME
    default: return "ADCG_ERR_UNKNOWN";
  }
}
