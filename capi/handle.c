#include "handle.h"

#include <stdlib.h>
#include <time.h>

enum { CHUNK_SLOTS = 256, MAX_CHUNKS = 4096, INDEX_BITS = 20 };

static exec_slot *_Atomic chunks[MAX_CHUNKS];
static pthread_mutex_t create_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t num_slots;      /* ever handed out */
static uint32_t first_free = UINT32_MAX;

static exec_slot *slot_at(uint32_t index) {
  exec_slot *chunk = atomic_load_explicit(&chunks[index / CHUNK_SLOTS], memory_order_acquire);
  return chunk ? &chunk[index % CHUNK_SLOTS] : NULL;
}

/* A slot that no exec has; under create_lock. */
static exec_slot *fresh_slot(void) {
  if (first_free != UINT32_MAX) {
    exec_slot *slot = slot_at(first_free);
    first_free = slot->next_free;
    return slot;
  }
  if (num_slots == CHUNK_SLOTS * MAX_CHUNKS) return NULL;
  uint32_t index = num_slots;
  if (!slot_at(index)) {
    exec_slot *chunk = calloc(CHUNK_SLOTS, sizeof *chunk);
    if (!chunk) return NULL;
    atomic_store_explicit(&chunks[index / CHUNK_SLOTS], chunk, memory_order_release);
  }
  num_slots++;
  exec_slot *slot = slot_at(index);
  slot->index = index;
  return slot;
}

exec_slot *exec_slot_create(tape_exec *tape, uintptr_t number) {
  pthread_mutex_lock(&create_lock);
  exec_slot *slot = fresh_slot();
  pthread_mutex_unlock(&create_lock);
  if (!slot) return NULL;
  slot->tape = tape;
  slot->number = number;
  slot->generation++;
  uintptr_t handle = slot->generation << (INDEX_BITS + 3) | (uintptr_t)slot->index << 3 | HANDLE_EXEC;
  atomic_store_explicit(&slot->handle, handle, memory_order_release);
  return slot;
}

static adcg_status no_exec(const adcg_exec *exec, const char *function) {
  if (!exec) return tape_fail(ADCG_ERR_ARGUMENT, function, "exec: NULL");
  return tape_fail(ADCG_ERR_HANDLE, function, "exec: %p is destroyed, or no exec", (const void *)exec);
}

static exec_slot *find(const adcg_exec *exec) {
  uintptr_t handle = (uintptr_t)exec;
  if ((handle & 7) != HANDLE_EXEC) return NULL;
  exec_slot *slot = slot_at((uint32_t)(handle >> 3) & ((1u << INDEX_BITS) - 1));
  return slot && atomic_load_explicit(&slot->handle, memory_order_acquire) == handle ? slot : NULL;
}

adcg_status exec_slot_acquire(const adcg_exec *exec, const char *function, exec_slot **out_slot) {
  exec_slot *slot = find(exec);
  if (__builtin_expect(!slot, 0)) return no_exec(exec, function);
  int32_t idle = 0;
  if (__builtin_expect(!atomic_compare_exchange_strong_explicit(&slot->busy, &idle, 1, memory_order_acquire, memory_order_relaxed), 0))
    return tape_fail(ADCG_ERR_BUSY, function, "exec: another call on it has not returned");
  if (__builtin_expect(atomic_load_explicit(&slot->handle, memory_order_relaxed) != (uintptr_t)exec, 0)) {
    exec_slot_release(slot); /* it was destroyed between the look-up and the taking */
    return no_exec(exec, function);
  }
  slot->owner = __builtin_thread_pointer();
  *out_slot = slot;
  return ADCG_OK;
}

void exec_slot_release(exec_slot *slot) { atomic_store_explicit(&slot->busy, 0, memory_order_release); }

adcg_status exec_slot_acquire_last(const adcg_exec *exec, const char *function, exec_slot **out_slot) {
  for (;;) {
    adcg_status status = exec_slot_acquire(exec, function, out_slot);
    if (status != ADCG_ERR_BUSY) return status;
    exec_slot *slot = find(exec);
    if (slot && atomic_load(&slot->busy) && slot->owner == __builtin_thread_pointer())
      return tape_fail(ADCG_ERR_BUSY, function, "exec: destroyed from inside a call on it");
    nanosleep(&(struct timespec){0, 50 * 1000}, NULL);
  }
}

void exec_slot_retire(exec_slot *slot) {
  atomic_store_explicit(&slot->handle, 0, memory_order_release);
  slot->tape = NULL;
  exec_slot_release(slot); /* before it can be handed out again */
  pthread_mutex_lock(&create_lock);
  slot->next_free = first_free;
  first_free = slot->index;
  pthread_mutex_unlock(&create_lock);
}

uintptr_t exec_number(const adcg_exec *exec, const char *function) {
  exec_slot *slot = find(exec);
  if (slot) return slot->number;
  (void)no_exec(exec, function);
  return 0;
}
