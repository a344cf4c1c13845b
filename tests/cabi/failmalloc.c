/* Preloaded (LD_PRELOAD) before libadcg: counts the allocations that the library's C code makes, and fails the one that it is
 * told to. Go's runtime gets its memory from the kernel and is not concerned; what libc allocates for itself is not either. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static _Atomic uintptr_t begin, end; /* the library's code */
static _Atomic long live;
static _Thread_local long calls, fail_at; /* of the thread under test */

static int find(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size, (void)data;
  if (!info->dlpi_name || !strstr(info->dlpi_name, "libadcg.so")) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *p = &info->dlpi_phdr[i];
    if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
    begin = info->dlpi_addr + p->p_vaddr;
    end = begin + p->p_memsz;
  }
  return 1;
}

/* Call n of this thread from now on fails; 0: none. Also starts the count anew. */
void failmalloc_arm(long n) {
  if (!begin) dl_iterate_phdr(find, NULL);
  calls = 0;
  fail_at = n;
}
long failmalloc_calls(void) { return calls; }
long failmalloc_live(void) { return live; }

static int ours(const void *caller) { return (uintptr_t)caller >= begin && (uintptr_t)caller < end; }
static int fails(const void *caller) { return ours(caller) && ++calls == fail_at; }
static void *made(void *pointer, const void *caller) {
  if (pointer && ours(caller)) live++;
  return pointer;
}

#define CALLER __builtin_return_address(0)
#define OR_FAIL(expression)             \
  do {                                  \
    const void *caller_ = CALLER;       \
    if (fails(caller_)) {               \
      errno = ENOMEM;                   \
      return NULL;                      \
    }                                   \
    return made((expression), caller_); \
  } while (0)

void *malloc(size_t size) { OR_FAIL(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { OR_FAIL(__libc_calloc(count, size)); }
void *memalign(size_t alignment, size_t size) { OR_FAIL(__libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) { OR_FAIL(__libc_memalign(alignment, size)); }
void *realloc(void *pointer, size_t size) { /* what is alive stays alive, moved or not */
  if (fails(CALLER)) {
    errno = ENOMEM;
    return NULL;
  }
  void *moved = __libc_realloc(pointer, size);
  return pointer ? moved : made(moved, CALLER);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  if (fails(CALLER)) return ENOMEM;
  *out = made(__libc_memalign(alignment, size), CALLER);
  return *out ? 0 : ENOMEM;
}
void free(void *pointer) {
  if (pointer && ours(CALLER)) live--;
  __libc_free(pointer);
}
