/* Handles: numbers that look like pointers and are never followed, so that a destroyed, foreign or made-up one is found out.
 *
 * The low three bits are the kind, which no aligned pointer has. Engines and graphs are looked up in Go (handles.go); execs
 * here, since replay does not enter Go: a slot is never freed, so looking into one is always safe.
 */
#ifndef ADCG_CAPI_HANDLE_H_
#define ADCG_CAPI_HANDLE_H_

#include <pthread.h>

#include "../engine/tape/tape.h"

enum { HANDLE_ENGINE = 1, HANDLE_GRAPH = 2, HANDLE_EXEC = 3 };

typedef struct exec_slot {
  _Atomic uintptr_t handle; /* 0: free */
  _Atomic int32_t busy;
  void *owner; /* of `busy`: its thread pointer */
  tape_exec *tape;
  uintptr_t number; /* Go's, in handles.go */
  uintptr_t generation;
  uint32_t index;
  uint32_t next_free;
} exec_slot;

/* A slot for a new exec, with its handle set last; NULL if out of memory. */
exec_slot *exec_slot_create(tape_exec *tape, uintptr_t number);

/* Takes the exec for one call: ADCG_OK, ADCG_ERR_HANDLE or ADCG_ERR_BUSY. */
adcg_status exec_slot_acquire(const adcg_exec *exec, const char *function, exec_slot **out_slot);
void exec_slot_release(exec_slot *slot);

/* As acquire, but waits for the thread that has it; ADCG_ERR_BUSY if that is this thread. */
adcg_status exec_slot_acquire_last(const adcg_exec *exec, const char *function, exec_slot **out_slot);
/* Makes the handle invalid and gives the slot, which the caller has acquired, back. */
void exec_slot_retire(exec_slot *slot);

/* Go's number of an exec, without taking it; 0, with the message set, if the handle is none. */
uintptr_t exec_number(const adcg_exec *exec, const char *function);

#endif /* ADCG_CAPI_HANDLE_H_ */
