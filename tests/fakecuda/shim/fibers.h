/* The threads of a block, on one thread of the CPU. Each runs until it ends or waits for others; what waits has a fiber (a stack) of its
 * own, and threads that never wait follow each other on one. Whatever cannot go on is found and reported: a barrier that some thread
 * of the block does not reach, or reaches elsewhere; lanes of a warp that meet in different operations or do not come.
 *
 * Read from the environment at each launch:
 *   FAKECUDA_THREAD_SEED=N     not 0: blocks, and threads between their barriers, run in an order drawn from N and the launch's number
 *   FAKECUDA_SHARED_POISON=N   0 to 255: shared memory holds this byte when a block starts; else it holds what the last one left */
#ifndef ADCG_FAKECUDA_FIBERS_H_
#define ADCG_FAKECUDA_FIBERS_H_

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>

#include "../fakecuda.h"

struct uint3 {
  uint32_t x, y, z;
};
struct dim3 {
  uint32_t x, y, z;
};

/* Shared memory lies in the object's .bss, which may be poisoned: what the shim needs itself lies elsewhere. */
#define SHIM_STATE __attribute__((section("shim_state")))
#define __shared__ static

extern "C" {
extern char __bss_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

/* ---- Switching stacks -------------------------------------------------------------------------------------------- */

/* Puts the registers that a call keeps on the stack, leaves its address in *from, and goes on where `to` was left. */
#ifdef __x86_64__
extern "C" void shim_switch(void **from, void *to) __attribute__((visibility("hidden")));
__asm__(
    ".text\n.hidden shim_switch\n.globl shim_switch\n.type shim_switch, @function\nshim_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n"
    ".size shim_switch, .-shim_switch\n");
static inline void *shim_stack(char *top, void (*start)()) {
  void **sp = (void **)top;
  *--sp = nullptr; /* start never returns */
  *--sp = (void *)start;
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  return sp;
}
#else
#include <ucontext.h>
static inline void shim_switch(void **from, void *to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, (ucontext_t *)to);
}
static inline void *shim_stack(char *top, void (*start)()) {
  ucontext_t *made = (ucontext_t *)(top - (sizeof(ucontext_t) + 63) / 64 * 64);
  getcontext(made);
  made->uc_stack.ss_sp = top - (96 << 10);
  made->uc_stack.ss_size = (size_t)((char *)made - (top - (96 << 10)));
  made->uc_link = nullptr;
  makecontext(made, start, 0);
  return made;
}
#endif

namespace shim {

enum {
  MOST = 1024,          /* threads of a block */
  STACK = 128 << 10,    /* bytes, of which the lowest page faults */
  SHARED = 228 << 10,   /* dynamic shared memory */
  PAGE = 4096,
  WORDS = 8             /* that a lane shows the others at a time */
};
enum state : uint8_t { NEW, READY, RUNNING, WARP, BLOCK, ENDED };
enum operation : uint8_t { SYNC, SHUFFLE, VOTE, MATRIX };

struct copy {
  void *to;
  const void *from; /* NULL: zeros */
  uint32_t bytes;
};

struct thread {
  state at;
  operation op;   /* of a wait of the warp */
  uint8_t parity; /* of how many such waits it has been through: nobody is two ahead of another */
  uint32_t mask;  /* of the lanes that it waits for */
  int line;       /* of the barrier that it waits at */
  int value;      /* that it brings to a barrier */
  void *sp;       /* when it does not run */
  uint3 index;
  uint64_t shown[2][WORDS];
  std::vector<copy> copies; /* that are under way */
};

struct block {
  thread threads[MOST];
  uint32_t order[MOST], count, current, cursor, barrier, ended;
  int sum; /* of the values at the last barrier */
  std::vector<void *> fibers; /* that are free */
  std::vector<char *> stacks; /* all */
  size_t used;                /* of them, in this block */
  void *scheduler;
  char *shared, *dynamic;     /* the mapping, and where this launch's begin */
  uint3 index;
  dim3 dims, grid;
  const char *kernel;
  void (*body)(const void *);
  const void *args;
  uint64_t seed, launches;
  int poison;
  char failure[256];
};
SHIM_STATE static block *running;

inline uint64_t draw(uint64_t below) {
  uint64_t &s = running->seed;
  s ^= s << 13, s ^= s >> 7, s ^= s << 17;
  return s % below;
}

inline void to_scheduler(thread *t) { shim_switch(&t->sp, running->scheduler); }

/* Ends the launch: no thread of it goes on. */
inline void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
inline void fail(const char *format, ...) {
  block *b = running;
  int n = snprintf(b->failure, sizeof b->failure, "%s, block (%u, %u, %u): ", b->kernel, b->index.x, b->index.y, b->index.z);
  va_list list;
  va_start(list, format);
  vsnprintf(b->failure + n, sizeof b->failure - (size_t)n, format, list);
  va_end(list);
}
[[noreturn]] inline void fail_thread() {
  to_scheduler(&running->threads[running->current]);
  abort(); /* not reached */
}

/* Runs threads that are new, one after the other as the order has them; the first that waits keeps the stack. */
inline void work() {
  block *b = running;
  for (;;) {
    const uint32_t i = b->current;
    b->threads[i].at = RUNNING;
    b->body(b->args);
    b->threads[i].at = ENDED;
    b->ended++;
    const uint32_t next = b->cursor < b->count ? b->order[b->cursor] : 0;
    if (b->cursor < b->count && b->threads[next].at == NEW) {
      b->cursor++;
      b->current = next;
      continue;
    }
    b->threads[i].value = -1; /* its stack is free */
    to_scheduler(&b->threads[i]);
  }
}

inline void *fiber() {
  block *b = running;
  if (b->used == b->stacks.size()) {
    char *stack = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, PAGE, PROT_NONE)) abort();
    b->stacks.push_back(stack);
  }
  return shim_stack(b->stacks[b->used++] + STACK, work);
}

/* Nobody can go on: says why. */
inline void report() {
  block *b = running;
  const uint32_t waiting = b->barrier;
  for (uint32_t i = 0; i < b->count; i++) {
    const thread *t = &b->threads[i];
    if (t->at == WARP) {
      for (uint32_t lane = 0; lane < 32 && (i & ~31u) + lane < b->count; lane++) {
        const thread *o = &b->threads[(i & ~31u) + lane];
        if (!(t->mask >> lane & 1) || o->at == WARP) continue;
        return fail("thread %u waits for lane %u of its warp, which %s", i, lane, o->at == ENDED ? "has ended" : "waits at a barrier");
      }
    }
  }
  fail("%u of %u threads wait at a barrier (line %d) that %u have ended without", waiting, b->count, running->threads[0].line, b->ended);
}

/* A pass over the threads in an order of its own: all that can run do. */
inline void pass() {
  block *b = running;
  if (b->seed) {
    for (uint32_t i = b->count; i > 1; i--) {
      const uint32_t j = (uint32_t)draw(i), x = b->order[i - 1];
      b->order[i - 1] = b->order[j];
      b->order[j] = x;
    }
  }
  for (b->cursor = 0; b->cursor < b->count && !b->failure[0];) {
    thread *t = &b->threads[b->order[b->cursor]];
    b->current = b->order[b->cursor++];
    if (t->at != NEW && t->at != READY) continue;
    if (t->at == NEW) {
      if (b->fibers.empty()) b->fibers.push_back(fiber());
      t->sp = b->fibers.back();
      b->fibers.pop_back();
    } else {
      t->at = RUNNING;
    }
    shim_switch(&b->scheduler, t->sp);
    t = &b->threads[b->current];
    if (t->at == ENDED && t->value == -1) {
      b->fibers.push_back(t->sp);
      t->value = 0;
    }
  }
}

inline void run_block() {
  block *b = running;
  b->fibers.clear();
  b->used = 0;
  b->barrier = b->ended = 0;
  for (uint32_t i = 0; i < b->count; i++) {
    thread *t = &b->threads[i];
    t->at = NEW;
    t->parity = 0;
    t->value = 0;
    t->copies.clear();
    t->index = {i % b->dims.x, i / b->dims.x % b->dims.y, i / b->dims.x / b->dims.y};
  }
  if (b->poison >= 0) {
    memset(__bss_start, b->poison, (size_t)(_end - __bss_start));
    memset(b->dynamic, b->poison, (size_t)(b->shared + SHARED - b->dynamic));
  }
  while (b->ended < b->count && !b->failure[0]) {
    bool able = false;
    for (uint32_t i = 0; i < b->count && !able; i++) able = b->threads[i].at == NEW || b->threads[i].at == READY;
    if (able)
      pass();
    else
      report();
  }
}

/* ---- Waiting ------------------------------------------------------------------------------------------------------ */

/* Waits for all threads of the block; returns the sum of what they bring. One that has ended never comes. */
inline int meet_block(int line, int value) {
  block *b = running;
  thread *t = &b->threads[b->current];
  t->line = line;
  t->value = value;
  t->at = BLOCK;
  if (++b->barrier < b->count) {
    to_scheduler(t);
    return running->sum;
  }
  b->sum = 0;
  for (uint32_t i = 0; i < b->count; i++) {
    if (b->threads[i].line != line) {
      fail("thread %u waits at a barrier in line %d, thread %u in line %d", i, b->threads[i].line, b->current, line);
      fail_thread();
    }
    b->sum += b->threads[i].value;
    b->threads[i].value = 0;
    b->threads[i].at = READY;
  }
  b->barrier = 0;
  if (b->seed)
    to_scheduler(t); /* anyone may be the next */
  else
    t->at = RUNNING;
  return b->sum;
}

/* Shows the lanes of the mask `bytes` of data, and waits until all of them have come to the same operation. What another lane showed
 * is then shown(lane). */
inline void meet_warp(operation op, uint32_t mask, const void *data, size_t bytes) {
  block *b = running;
  const uint32_t i = b->current, first = i & ~31u, lanes = b->count - first >= 32 ? 0xffffffffu : (1u << (b->count - first)) - 1;
  thread *t = &b->threads[i];
  t->parity ^= 1;
  if (bytes) memcpy(t->shown[t->parity], data, bytes);
  t->op = op;
  t->mask = mask & lanes;
  t->at = WARP;
  if (!(mask >> (i - first) & 1)) {
    fail("thread %u is none of the lanes (mask %08x) that it waits with", i, mask);
    fail_thread();
  }
  bool all = true;
  for (uint32_t lane = 0; lane < 32; lane++) {
    if (!(t->mask >> lane & 1)) continue;
    const thread *o = &b->threads[first + lane];
    if (o->at != WARP) {
      all = false;
    } else if (o->mask != t->mask || o->op != op) {
      fail("threads %u and %u meet in different operations of their warp, or for other lanes (%08x, %08x)", i, first + lane, t->mask,
           o->mask);
      fail_thread();
    }
  }
  if (!all) return to_scheduler(t);
  for (uint32_t lane = 0; lane < 32; lane++) {
    if (t->mask >> lane & 1) b->threads[first + lane].at = READY;
  }
  if (b->seed)
    to_scheduler(t);
  else
    t->at = RUNNING;
}
inline const void *shown(uint32_t lane) {
  const thread *t = &running->threads[running->current], *o = &running->threads[(running->current & ~31u) + lane % 32];
  return o->shown[t->parity];
}

/* ---- Launches ----------------------------------------------------------------------------------------------------- */

inline uint64_t setting(const char *name, uint64_t without) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, nullptr, 0) : without;
}

inline void run(const char *name, uint32_t most, void (*body)(const void *), const fakecuda_launch *launch) {
  if (!running) {
    running = new block();
    running->shared = (char *)mmap(nullptr, SHARED + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (running->shared == MAP_FAILED || mprotect(running->shared + SHARED, PAGE, PROT_NONE)) abort();
  }
  block *b = running;
  b->kernel = name;
  b->body = body;
  b->args = launch->args[0];
  b->dims = {launch->block[0], launch->block[1], launch->block[2]};
  b->grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
  b->count = b->dims.x * b->dims.y * b->dims.z;
  b->failure[0] = 0;
  b->index = {0, 0, 0};
  b->dynamic = b->shared + SHARED - (launch->shared_bytes + 15) / 16 * 16; /* what lies behind it faults */
  b->launches++;
  const uint64_t seed = setting("FAKECUDA_THREAD_SEED", 0), poison = setting("FAKECUDA_SHARED_POISON", 256);
  b->seed = seed ? (seed * 0x9e3779b97f4a7c15u + b->launches) * 0xbf58476d1ce4e5b9u | 1 : 0;
  for (int i = 0; i < 8 && seed; i++) draw(2); /* neighbours part */
  b->poison = poison < 256 ? (int)poison : -1;
  for (uint32_t i = 0; i < b->count && i < MOST; i++) b->order[i] = i;
  if (b->count > most) fail("%u threads, its bound is %u", b->count, most);
  const uint64_t blocks = (uint64_t)b->grid.x * b->grid.y * b->grid.z;
  std::vector<uint32_t> order(b->seed ? blocks : 0); /* a block's number, drawn like cards */
  for (uint64_t i = 0; i < order.size(); i++) {
    const uint64_t j = draw(i + 1);
    order[i] = order[j];
    order[j] = (uint32_t)i;
  }
  for (uint64_t i = 0; i < blocks && !b->failure[0]; i++) {
    const uint64_t at = b->seed ? order[i] : i;
    b->index = {(uint32_t)(at % b->grid.x), (uint32_t)(at / b->grid.x % b->grid.y), (uint32_t)(at / b->grid.x / b->grid.y)};
    run_block();
  }
  if (!b->failure[0]) return;
  order = std::vector<uint32_t>();
  if (launch->fail) launch->fail(b->failure);
  fprintf(stderr, "%s\n", b->failure);
  abort();
}

} // namespace shim

#endif
