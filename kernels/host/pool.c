/* The thread pool: parallel regions of microseconds, on workers that spin shortly and then sleep.
 *
 * A region belongs to one caller at a time (`busy`); another caller that comes meanwhile works alone. Tasks are
 * handed out by a counter. Workers may join a region as long as it is open and are waited for only once they have
 * joined, so a worker that sleeps or is not scheduled delays nobody. Which thread runs a task changes no result. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum {
  MAX_THREADS = 256,
  WORKER_STACK = 1 << 20,    /* bytes: kernels hold up to ADCGK_TILE_FLOATS floats */
  SPIN_NANOSECONDS = 60000,  /* how long a worker looks for the next region before it sleeps */
  WORTH_AWAKE = 4000,        /* nanoseconds of work from which a region pays while the workers spin, */
  WORTH_ASLEEP = 25000,      /* and while they sleep: waking costs a system call here and a switch there */
  OPEN = 1 << 30             /* in `entry` */
};

struct adcgk_pool {
  int32_t threads; /* wanted, the caller's included */
  int32_t started; /* workers; written under `busy` */
  bool tried;      /* to start them */
  pthread_t workers[MAX_THREADS];

  atomic_flag busy; /* a region is being set up or run */

  /* The region. Plain fields are written before `entry` opens and read by those who entered. */
  adcgk_task_fn fn;
  void *context;
  int64_t tasks;
  uint64_t float_mode; /* the caller's rounding and flushing, which results depend on */
  _Alignas(64) atomic_int_least64_t next; /* the next task to hand out */
  _Alignas(64) atomic_int entry;          /* OPEN while workers may join, plus the count of those inside */

  _Alignas(64) atomic_uint epoch; /* counts regions; what workers watch */
  atomic_int sleepers;
  atomic_bool stop;
  atomic_bool caller_sleeps;
  pthread_mutex_t lock; /* for sleeping alone */
  pthread_cond_t work, done;
};

static void relax(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Denormals and rounding follow the thread that launches, or results would depend on who runs a task. */
static uint64_t get_float_mode(void) {
#if defined(__x86_64__)
  return _mm_getcsr() & ~(unsigned)_MM_EXCEPT_MASK;
#elif defined(__aarch64__)
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#else
  return 0;
#endif
}
static void set_float_mode(uint64_t mode) {
#if defined(__x86_64__)
  _mm_setcsr((unsigned)mode);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" ::"r"(mode));
#else
  (void)mode;
#endif
}

static void run_tasks(adcgk_pool *pool) {
  const int64_t tasks = pool->tasks;
  for (;;) {
    int64_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (task >= tasks) return;
    pool->fn(pool->context, task);
  }
}

static bool enter(adcgk_pool *pool) {
  int seen = atomic_load_explicit(&pool->entry, memory_order_relaxed);
  while (seen & OPEN) {
    if (atomic_compare_exchange_weak_explicit(&pool->entry, &seen, seen + 1, memory_order_acquire, memory_order_relaxed)) return true;
  }
  return false;
}

static void leave(adcgk_pool *pool) {
  if (atomic_fetch_sub(&pool->entry, 1) == 1 && atomic_load(&pool->caller_sleeps)) { /* closed, and the last one */
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
  }
}

/* Waits until the epoch is not `seen`; spins, then sleeps. */
static void await_epoch(adcgk_pool *pool, unsigned seen) {
  const int64_t until = now() + SPIN_NANOSECONDS;
  do {
    for (int i = 0; i < 32; i++) {
      if (atomic_load_explicit(&pool->epoch, memory_order_acquire) != seen) return;
      relax();
    }
  } while (now() < until);
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->sleepers, 1); /* before the look at the epoch; adcgk_parallel does both the other way round */
  while (atomic_load(&pool->epoch) == seen) pthread_cond_wait(&pool->work, &pool->lock);
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->lock);
}

static void *worker(void *argument) {
  adcgk_pool *pool = argument;
  unsigned seen = 0;
  for (;;) {
    await_epoch(pool, seen);
    seen = atomic_load_explicit(&pool->epoch, memory_order_acquire);
    if (atomic_load(&pool->stop)) return NULL;
    if (!enter(pool)) continue;
    set_float_mode(pool->float_mode);
    run_tasks(pool);
    leave(pool);
  }
}

/* Under `busy`. Signals stay with the host's own threads. */
static void start_workers(adcgk_pool *pool) {
  pool->tried = true;
  pthread_attr_t attr;
  if (pthread_attr_init(&attr) != 0) return;
  pthread_attr_setstacksize(&attr, WORKER_STACK);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool->started < pool->threads - 1) {
    if (pthread_create(&pool->workers[pool->started], &attr, worker, pool) != 0) break;
    pool->started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
}

void adcgk_parallel(adcgk_pool *pool, int64_t tasks, double nanoseconds, adcgk_task_fn fn, void *context) {
  bool alone = !pool || pool->threads == 1 || tasks < 2 || nanoseconds < WORTH_AWAKE;
  if (!alone && nanoseconds < WORTH_ASLEEP) alone = atomic_load_explicit(&pool->sleepers, memory_order_relaxed) > 0;
  if (!alone) alone = atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire);
  if (alone) {
    for (int64_t task = 0; task < tasks; task++) fn(context, task);
    return;
  }
  if (!pool->tried) start_workers(pool);
  pool->fn = fn;
  pool->context = context;
  pool->tasks = tasks;
  pool->float_mode = get_float_mode();
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->entry, OPEN, memory_order_release);
  atomic_fetch_add(&pool->epoch, 1);
  if (atomic_load(&pool->sleepers) > 0) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
  }
  run_tasks(pool);
  if (atomic_fetch_sub(&pool->entry, OPEN) != OPEN) { /* closed; somebody is still inside */
    int64_t until = 0;
    for (int i = 0; atomic_load_explicit(&pool->entry, memory_order_acquire) != 0; i++) {
      relax();
      if (i % 32 != 31) continue;
      const int64_t t = now();
      if (until == 0) until = t + SPIN_NANOSECONDS;
      if (t < until) continue;
      pthread_mutex_lock(&pool->lock);
      atomic_store(&pool->caller_sleeps, true);
      while (atomic_load(&pool->entry) != 0) pthread_cond_wait(&pool->done, &pool->lock);
      atomic_store(&pool->caller_sleeps, false);
      pthread_mutex_unlock(&pool->lock);
    }
  }
  atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

adcgk_pool *adcgk_pool_create(int32_t threads) {
  if (threads <= 0) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    threads = online < 1 ? 1 : online > MAX_THREADS ? MAX_THREADS : (int32_t)online;
#if defined(__linux__)
    cpu_set_t allowed; /* a container or taskset may allow fewer */
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0 && CPU_COUNT(&allowed) >= 1 && CPU_COUNT(&allowed) < threads)
      threads = CPU_COUNT(&allowed);
#endif
  }
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  adcgk_pool *pool = aligned_alloc(64, (sizeof(adcgk_pool) + 63) / 64 * 64);
  if (!pool) return NULL;
  memset(pool, 0, sizeof(*pool));
  pool->threads = threads;
  atomic_flag_clear(&pool->busy);
  atomic_init(&pool->next, 0);
  atomic_init(&pool->entry, 0);
  atomic_init(&pool->epoch, 0);
  atomic_init(&pool->sleepers, 0);
  atomic_init(&pool->stop, false);
  atomic_init(&pool->caller_sleeps, false);
  if (pthread_mutex_init(&pool->lock, NULL) != 0) goto fail_lock;
  if (pthread_cond_init(&pool->work, NULL) != 0) goto fail_work;
  if (pthread_cond_init(&pool->done, NULL) != 0) goto fail_done;
  return pool;
fail_done:
  pthread_cond_destroy(&pool->work);
fail_work:
  pthread_mutex_destroy(&pool->lock);
fail_lock:
  free(pool);
  return NULL;
}

void adcgk_pool_destroy(adcgk_pool *pool) {
  if (!pool) return;
  pthread_mutex_lock(&pool->lock);
  atomic_store(&pool->stop, true);
  atomic_fetch_add(&pool->epoch, 1);
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i], NULL);
  pthread_cond_destroy(&pool->done);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->lock);
  free(pool);
}

int32_t adcgk_pool_threads(const adcgk_pool *pool) { return pool->threads; }
