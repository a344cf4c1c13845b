/* A stand-in for libcublasLt.so.13 without a GPU: what a test can ask of it beside cuBLASLt's own functions. It works on any
 * libcuda.so.1 that takes images of tests/fakecuda. Exported by build/fakecuda/libcublasLt.so.13; callable from any thread. */
#ifndef ADCG_TESTS_FAKECUBLASLT_H_
#define ADCG_TESTS_FAKECUBLASLT_H_

#include <stddef.h>
#include <stdint.h>

/* The n-th call from now on (1 is the next one) of the function `name` ("cublasLtMatmul"; NULL: any) returns `status` and does
 * nothing. One is armed at a time; n = 0 disarms. Functions that return no status are not counted. */
void fakecublaslt_fail(const char *name, uint64_t n, int status);

/* How many calls there have been of `name`, of all if NULL, since the start or fakecublaslt_reset. */
uint64_t fakecublaslt_calls(const char *name);

/* Whether an armed fault has been delivered. */
int fakecublaslt_failed(void);

/* Why the last call on this thread that was refused was ("" if none was). */
const char *fakecublaslt_reason(void);

/* The algorithms that it has: every way in which real ones differ for a caller. */
enum {
  FAKECUBLASLT_TILE = 10,     /* one kernel, tiles of 64 x 64; addresses and rows on 16 bytes */
  FAKECUBLASLT_SCALAR = 11,   /* one kernel, any alignment; fewer elements a block */
  FAKECUBLASLT_SPLIT = 12,    /* a kernel and a reduce kernel, f32 parts in the workspace; addresses and rows on 16 bytes */
  FAKECUBLASLT_COUNTED = 13,  /* a memset of counters in the workspace, then a kernel; addresses and rows on 16 bytes */
  FAKECUBLASLT_IN_PLACE = 14, /* split, parts added up in the result's type: less exact in bf16; any alignment */
  FAKECUBLASLT_ROUNDED = 15   /* split, parts kept in the result's type in the workspace: likewise */
};

/* The next heuristics leave this algorithm out; 0: none. */
void fakecublaslt_hide(int algorithm);

/* Handles that live. */
int fakecublaslt_handles(void);

/* No fault armed, nothing hidden, calls counted from 0. */
void fakecublaslt_reset(void);

#endif
