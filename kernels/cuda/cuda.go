// Package cuda holds the CUDA device's kernels: their compiled image, and the C functions that launch them. cuda_ops.h is their
// interface; the engine's tape calls them directly and never through this package. Nothing here needs CUDA, to build or to load:
// `make kernels` compiled the image. Addresses cross as uintptr: everything lives in C memory.
package cuda

/*
#cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../../include -Wall -Wextra
#cgo LDFLAGS: -lm
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "cuda_ops.h"

static uintptr_t launch_of(const adcgk_cuda_op *op) { return (uintptr_t)op->launch; }
static uintptr_t workspace_of(const adcgk_cuda_op *op) { return (uintptr_t)op->workspace; }
static uintptr_t prepare_of(const adcgk_cuda_op *op) { return (uintptr_t)op->prepare; }
static const char *kernel_name(int32_t i) { return adcgk_cuda_kernels[i]; }

// One block: the device, and the functions behind it.
static uintptr_t new_device(const uintptr_t *functions, int32_t count, uintptr_t lt, int32_t multiprocessors, int32_t compute) {
	adcgk_cuda *device = malloc(sizeof(adcgk_cuda) + (size_t)count * sizeof(void *));
	if (!device) return 0;
	void **own = (void **)(device + 1);
	for (int32_t i = 0; i < count; i++) own[i] = (void *)functions[i];
	*device = (adcgk_cuda){.functions = own, .lt = (const struct adcgk_lt *)lt, .multiprocessors = multiprocessors, .compute = compute};
	return (uintptr_t)device;
}
static void set_batch_invariant(uintptr_t device) { ((adcgk_cuda *)device)->batch_invariant = 1; }
static void free_device(uintptr_t device) { free((void *)device); }
*/
import "C"

import (
	_ "embed"
	"unsafe"
)

//go:embed images/kernels.fatbin
var image []byte

// Image is the fat binary of all kernels, for cuModuleLoadData. It is not to be written.
func Image() []byte { return image }

// KernelNames are the kernels of the image, in the order in which NewDevice takes their functions.
func KernelNames() []string {
	var names []string
	for i := C.int32_t(0); ; i++ {
		name := C.kernel_name(i)
		if name == nil {
			return names
		}
		names = append(names, C.GoString(name))
	}
}

// Find gives the addresses of an op's functions (adcgk_cuda_op in cuda_ops.h), each 0 if it has none: a view has no launch. Where
// zeroesTail is true its kernels zero the rows behind the real ones themselves. An op that is not there has no kernels for CUDA.
func Find(name string) (launch, workspace, prepare uintptr, zeroesTail, ok bool) {
	bytes := append([]byte(name), 0) // C.CString would end the process when memory runs out
	op := C.adcgk_cuda_find((*C.char)(unsafe.Pointer(&bytes[0])))
	if op == nil {
		return 0, 0, 0, false, false
	}
	return uintptr(C.launch_of(op)), uintptr(C.workspace_of(op)), uintptr(C.prepare_of(op)), op.zeroes_tail != 0, true
}

// NewDevice makes the adcgk_cuda of a device, which launches take and the caller frees: the functions of KernelNames, an adcgk_lt or
// 0, and what the driver says of the device. 0 if out of memory, or if there is not a function for every kernel.
func NewDevice(functions []uintptr, lt uintptr, multiprocessors, compute int32) uintptr {
	if len(functions) == 0 || len(functions) != len(KernelNames()) {
		return 0
	}
	return uintptr(C.new_device((*C.uintptr_t)(unsafe.Pointer(&functions[0])), C.int32_t(len(functions)), C.uintptr_t(lt),
		C.int32_t(multiprocessors), C.int32_t(compute)))
}

// SetBatchInvariant makes results of a row depend on the row alone on this device, before anything launches with it: cuBLASLt's choices
// depend on the count of rows, so products are our own kernel's then, or its pinned one's (LtOptions.PinnedRows). One device may have
// two of these structs, an invariant one and another, with one handle of OpenLt's.
func SetBatchInvariant(device uintptr) { C.set_batch_invariant(C.uintptr_t(device)) }

// FreeDevice frees what NewDevice made, once nothing launches with it. 0 does nothing.
func FreeDevice(device uintptr) { C.free_device(C.uintptr_t(device)) }
