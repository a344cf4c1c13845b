/* How every call begins and ends: the lock, what must hold before it, injected faults, and the control interface that steers them. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state.h"
#include "versions.h"

fc_state fc;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int inside; /* a host function that calls the driver from inside a call */
static _Thread_local char reason[256];
static bool settings_read;

static struct {
  char name[64];
  uint64_t in; /* calls until it strikes; 0: not armed */
  int status;
  bool struck;
} fault;

enum { MAX_NAMES = 512 };
static struct {
  const char *name; /* a __func__: static */
  uint64_t calls;
} counts[MAX_NAMES];

void fc_say(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(reason, sizeof reason, format, list);
  va_end(list);
}

uint64_t fc_thread(void) { return (uint64_t)syscall(SYS_gettid); }

/* splitmix64 */
uint64_t fc_random(uint64_t *state) {
  uint64_t x = *state += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static long long setting(const char *name, long long otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoll(text, NULL, 0) : otherwise;
}

static void read_settings(void) {
  if (settings_read) return;
  settings_read = true;
  fc.set.version = (int)setting("FAKECUDA_VERSION", 13000);
  fc.set.exec_base = (size_t)setting("FAKECUDA_EXEC_BYTES", 110 * 1024);
  fc.set.exec_per_kernel = (size_t)setting("FAKECUDA_KERNEL_NODE_BYTES", 2560);
  fc.set.total_memory = (size_t)setting("FAKECUDA_MEMORY_MIB", 16 * 1024) * MIB;
  fc.set.poison = (int)setting("FAKECUDA_POISON", -1);
  fc.set.seed = (uint64_t)setting("FAKECUDA_SEED", 0);
  const char *fail = getenv("FAKECUDA_FAIL"); /* NAME:N:STATUS, the name may be empty */
  unsigned long long n = 0;
  char name[64] = "";
  int status = 0;
  if (fail && (sscanf(fail, "%63[^:]:%llu:%d", name, &n, &status) == 3 || sscanf(fail, ":%llu:%d", &n, &status) == 2)) {
    memcpy(fault.name, name, sizeof name);
    fault.in = n;
    fault.status = status;
  }
}

static uint64_t *count_of(const char *name) {
  for (size_t i = 0; i < MAX_NAMES && (counts[i].name || !counts[i].calls); i++) {
    if (!counts[i].name) counts[i].name = name;
    if (strcmp(counts[i].name, name) == 0) return &counts[i].calls;
  }
  return NULL;
}

static bool struck(const char *name) {
  if (!fault.in || (fault.name[0] && strcmp(fault.name, name) != 0) || --fault.in) return false;
  fault.struck = true;
  return true;
}

static CUresult begin(const char *name, unsigned flags) {
  read_settings();
  reason[0] = 0;
  fc.calls++;
  if (!(flags & UNCOUNTED)) {
    uint64_t *calls = count_of(name);
    if (calls) ++*calls;
    if (struck(name)) return fault.status;
  }
  if (fc_version_of(name) > fc.set.version) {
    fc_say("%s: the driver's version is %d, it came with %d", name, fc.set.version, fc_version_of(name));
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  fc.now += 1000; /* a call takes a microsecond */
  if (flags & ANY_TIME) return CUDA_SUCCESS;
  if (!fc.initialised || fc.pid != getpid()) return CUDA_ERROR_NOT_INITIALIZED;
  fc_context *context = fc_current();
  if (flags & NEED_CONTEXT) {
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->o.alive) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  }
  if ((flags & STICKY) && context && context->o.alive && context->fault) return context->fault;
  return flags & UNSAFE ? fc_capture_unsafe() : CUDA_SUCCESS;
}

CUresult fc_enter(const char *name, unsigned flags) {
  if (inside) return CUDA_ERROR_NOT_PERMITTED; /* from a host function, as the driver's documentation forbids */
  pthread_mutex_lock(&lock);
  inside = 1;
  CUresult status = begin(name, flags);
  if (strcmp(name, "cuStreamQuery") != 0 && strcmp(name, "cuEventQuery") != 0) fc.polls = 0;
  return status ? fc_leave(status) : CUDA_SUCCESS;
}

CUresult fc_leave(CUresult status) {
  inside = 0;
  pthread_mutex_unlock(&lock);
  return status;
}

/* ---- Control ------------------------------------------------------------------------------------------------------------------ */

/* A kernel or a host function that calls these holds the lock already. */
#define LOCKED(...)                           \
  do {                                        \
    if (!inside) pthread_mutex_lock(&lock);   \
    read_settings();                          \
    __VA_ARGS__;                              \
    if (!inside) pthread_mutex_unlock(&lock); \
  } while (0)

void fakecuda_fail(const char *name, uint64_t n, int status) {
  LOCKED({
    snprintf(fault.name, sizeof fault.name, "%s", name ? name : "");
    fault.in = n;
    fault.status = status;
    fault.struck = false;
  });
}

int fakecuda_failed(void) {
  int yes;
  LOCKED(yes = fault.struck);
  return yes;
}

uint64_t fakecuda_calls(const char *name) {
  uint64_t sum = 0;
  LOCKED({
    for (size_t i = 0; i < MAX_NAMES && counts[i].name; i++) {
      if (!name || strcmp(counts[i].name, name) == 0) sum += counts[i].calls;
    }
  });
  return sum;
}

void fakecuda_set_exec_cost(size_t base, size_t per_kernel) {
  LOCKED({
    fc.set.exec_base = base;
    fc.set.exec_per_kernel = per_kernel;
  });
}

void fakecuda_set_total_memory(size_t bytes) { LOCKED(fc.set.total_memory = bytes); }
void fakecuda_set_poison(int byte) { LOCKED(fc.set.poison = byte); }
void fakecuda_set_seed(uint64_t seed) { LOCKED(fc.set.seed = seed); }
void fakecuda_set_version(int version) { LOCKED(fc.set.version = version); }

int fakecuda_poison(unsigned long long address, size_t bytes, int byte) {
  CUresult status = CUDA_ERROR_INVALID_VALUE;
  LOCKED({
    if (fc_accessible(address, bytes, true)) {
      memset((void *)(uintptr_t)address, byte, bytes);
      status = CUDA_SUCCESS;
    }
  });
  return status;
}

const char *fakecuda_reason(void) { return reason; }

void fakecuda_reset(void) {
  LOCKED({
    fc_forget_all();
    fc_memory_end(NULL);
    fc_virtual_end();
    fc_thread_forget();
    fc_capture_forget();
    memset(&fc, 0, sizeof fc);
    memset(&fault, 0, sizeof fault);
    memset(counts, 0, sizeof counts);
    settings_read = false;
    read_settings();
  });
}

/* ---- What lives --------------------------------------------------------------------------------------------------------------- */

typedef struct listing {
  char *text;
  size_t size, used, count;
} listing;

static void list(listing *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void list(listing *to, const char *format, ...) {
  to->count++;
  if (to->used >= to->size) return;
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(to->text + to->used, to->size - to->used, format, arguments);
  va_end(arguments);
  if (n > 0) to->used += (size_t)n;
}

static void list_object(void *object, void *arg) {
  static const char *const names[] = {"context", "stream", "event", "module", "function", "graph", "node", "executable", "physical memory"};
  const fc_object *o = object;
  if (!o->alive || o->kind == FC_FUNCTION || o->kind == FC_NODE) return;
  if (o->kind == FC_GRAPH && (((const fc_graph *)object)->internal || ((const fc_graph *)object)->owner)) return;
  if (o->kind == FC_STREAM) {
    const fc_stream *stream = object;
    if (stream->per_thread || stream == stream->context->legacy) return;
  }
  list(arg, "%s made by call %llu\n", names[o->kind], (unsigned long long)o->made_by);
}

static void list_reservation(size_t size, uint64_t made_by, void *arg) {
  list(arg, "addresses of %zu bytes made by call %llu\n", size, (unsigned long long)made_by);
}

size_t fakecuda_leaks(char *text, size_t size) {
  listing to = {text, size, 0, 0};
  if (text && size) text[0] = 0;
  LOCKED({
    for (int kind = 0; kind < FC_NUM_KINDS; kind++) fc_each((fc_kind)kind, list_object, &to);
    for (size_t i = 0; i < fc.num_regions; i++) {
      static const char *const kinds[] = {"device memory", "stream-ordered memory", "a graph's memory", "host memory", "mapping"};
      const fc_region *region = &fc.regions[i];
      if (region->kind == FC_GRAPH_ALLOC) continue; /* its nodes own it */
      list(&to, "%s of %zu bytes made by call %llu\n", kinds[region->kind], region->size, (unsigned long long)region->made_by);
    }
    fc_each_reservation(list_reservation, &to);
  });
  return to.count;
}
