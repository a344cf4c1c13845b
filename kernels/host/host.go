// Package host holds the host device's kernels: C, chosen at run time by instruction set, with the same bits on all.
// host.h is their interface; the engine's tape calls them directly and never through this package. Addresses cross as
// uintptr: everything here lives in C memory.
package host

/*
#cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../../include -Wall -Wextra
#cgo LDFLAGS: -lm -lpthread
#include <stdint.h>
#include <stdlib.h>
#include "host.h"

static uintptr_t launch_of(const adcgk_op *op) { return (uintptr_t)op->launch; }
static uintptr_t workspace_of(const adcgk_op *op) { return (uintptr_t)op->workspace; }
static uintptr_t prepare_of(const adcgk_op *op) { return (uintptr_t)op->prepare; }
static uintptr_t new_pool(int32_t threads) { return (uintptr_t)adcgk_pool_create(threads); }
static void free_pool(uintptr_t pool) { adcgk_pool_destroy((adcgk_pool *)pool); }
static int32_t pool_threads(uintptr_t pool) { return adcgk_pool_threads((const adcgk_pool *)pool); }
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// Find gives the addresses of an op's functions (adcgk_op in host.h), each 0 if it has none: a view has no launch.
func Find(name string) (launch, workspace, prepare uintptr, ok bool) {
	op := C.adcgk_find(borrowed(name))
	if op == nil {
		return 0, 0, 0, false
	}
	return uintptr(C.launch_of(op)), uintptr(C.workspace_of(op)), uintptr(C.prepare_of(op)), true
}

// borrowed is a C string in Go memory, for one call. C.CString would end the process when memory runs out.
func borrowed(s string) *C.char {
	bytes := append([]byte(s), 0)
	return (*C.char)(unsafe.Pointer(&bytes[0]))
}

// NewPool creates a pool of threads (0: one per core), which the caller frees. 0 if out of memory.
func NewPool(threads int32) uintptr { return uintptr(C.new_pool(C.int32_t(threads))) }

// FreePool ends a pool that no kernel uses any more. 0 does nothing.
func FreePool(pool uintptr) { C.free_pool(C.uintptr_t(pool)) }

// Threads is how many threads a pool works with at most, the caller's included.
func Threads(pool uintptr) int32 { return int32(C.pool_threads(C.uintptr_t(pool))) }

// ISA names the instruction set that the kernels run on: "avx512", "avx2", "neon" or "c".
func ISA() string { return C.GoString(C.adcgk_isa()) }

// SetISA forces an instruction set, for tests and benchmarks; "" is the machine's best again.
func SetISA(name string) error {
	switch C.adcgk_set_isa(borrowed(name)) {
	case C.ADCG_OK:
		return nil
	case C.ADCG_ERR_UNSUPPORTED:
		return fmt.Errorf("instruction set %q: not on this machine", name)
	default:
		return fmt.Errorf("instruction set %q: unknown", name)
	}
}
