// Package cuda is the devices "cuda:0" and on: the driver, found at run time, as the tape's table of calls. Go opens and closes; what
// a step calls is C (stream.c, graph.c).
package cuda

/*
#cgo CFLAGS: -std=gnu11 -O2 -I${SRCDIR}/../../../include -Wall
#cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-all
#include <stdlib.h>
#include "device.h"

// C's pointers travel through Go as numbers.
static uintptr_t cuda_address(const adcg_cuda *cuda) { return (uintptr_t)cuda; }
static void cuda_set_kernels(adcg_cuda *cuda, uintptr_t kernels) { cuda->kernels = (const adcgk_cuda *)kernels; }
static adcg_status cuda_enter(const adcg_cuda *cuda, void **was) { return cuda->on.enter(&cuda->on, was); }
static void cuda_leave(const adcg_cuda *cuda, void *was) { cuda->on.leave(&cuda->on, was); }
static uintptr_t cuda_node(uintptr_t device) {
	adcgk_cuda_node *node = calloc(1, sizeof *node);
	if (node) node->device = (const adcgk_cuda *)device;
	return (uintptr_t)node;
}
static void cuda_free(uintptr_t address) { free((void *)address); }
*/
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/libadcg/libadcg/engine/device"
	"github.com/libadcg/libadcg/engine/tape"
	kernels "github.com/libadcg/libadcg/kernels/cuda"
)

// Statuses of adcg.h that a device may fail with.
const (
	errDevice      = int32(C.ADCG_ERR_DEVICE)
	errUnsupported = int32(C.ADCG_ERR_UNSUPPORTED)
)

type cuda struct {
	c                  *C.adcg_cuda
	lt                 uintptr // cuBLASLt; 0: not there
	ltVersion          string
	context, invariant uintptr // adcgk_cuda: as fast as it goes, and batch-invariant
	node               uintptr // adcgk_cuda_node without a state

	mu       sync.RWMutex // held for reading while something is destroyed
	captures int
	pending  []func() // to be destroyed behind the captures
}

var _ device.Device = (*cuda)(nil)

// Open makes the device number `id` of the driver's.
func Open(id int) (device.Device, error) {
	runtime.LockOSThread() // contexts and messages are per thread
	defer runtime.UnlockOSThread()
	c := (*C.adcg_cuda)(C.calloc(1, C.sizeof_adcg_cuda))
	if c == nil {
		return nil, tape.ErrOutOfMemory
	}
	d := &cuda{c: c}
	if err := d.open(id); err != nil {
		d.Close()
		if failed, ok := err.(*device.Error); ok {
			failed.Message = fmt.Sprintf("device: `cuda:%d`: %s", id, failed.Message)
		}
		return nil, err
	}
	return d, nil
}

func (d *cuda) open(id int) error {
	library, err := purego.Dlopen("libcuda.so.1", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return &device.Error{Status: errDevice, Message: err.Error() + " (comes with NVIDIA's driver)"}
	}
	// It stays loaded: threads of its own may run to the end of the process.
	find, err := purego.Dlsym(library, "cuGetProcAddress_v2")
	if err != nil {
		return &device.Error{Status: errUnsupported, Message: "libcuda.so.1: older than CUDA 12.0: no cuGetProcAddress_v2"}
	}
	if err := status(C.adcg_cuda_find(d.c, C.uintptr_t(find))); err != nil {
		return err
	}
	functions := make([]uintptr, len(kernels.KernelNames()))
	image := kernels.Image()
	if err := status(C.adcg_cuda_open(d.c, C.int32_t(id), unsafe.Pointer(&image[0]), (*C.uintptr_t)(unsafe.Pointer(&functions[0])))); err != nil {
		return err
	}
	d.openLt()
	d.context = kernels.NewDevice(functions, d.lt, int32(d.c.multiprocessors), int32(d.c.compute))
	d.invariant = kernels.NewDevice(functions, d.lt, int32(d.c.multiprocessors), int32(d.c.compute))
	if d.context == 0 || d.invariant == 0 {
		return tape.ErrOutOfMemory
	}
	kernels.SetBatchInvariant(d.invariant)
	if d.node = uintptr(C.cuda_node(C.uintptr_t(d.context))); d.node == 0 {
		return tape.ErrOutOfMemory
	}
	C.cuda_set_kernels(d.c, C.uintptr_t(d.context))
	return nil
}

// current makes the device this thread's until leave, if it can.
func (d *cuda) current() (leave func(), err error) {
	var was unsafe.Pointer
	if err := status(C.cuda_enter(d.c, &was)); err != nil {
		return nil, err
	}
	return func() { C.cuda_leave(d.c, was) }, nil
}

// openLt opens cuBLASLt where it is there; without it products are our own kernels'.
func (d *cuda) openLt() {
	leave, err := d.current()
	if err != nil {
		return
	}
	defer leave()
	if d.lt, d.ltVersion, err = kernels.OpenLt(nil); err != nil {
		tape.Log(int32(C.ADCG_LOG_INFO), fmt.Sprintf("device `cuda:%d`: products are the library's own kernels: %v", d.c.number, err))
	}
}

// status is the error of a C function that left its message on this thread.
func status(code C.adcg_status) error {
	if code == C.ADCG_OK {
		return nil
	}
	return &device.Error{Status: int32(code), Message: tape.TakeOpError()}
}

func (d *cuda) Info() device.Info {
	c := d.c
	products := "own kernels for products"
	if d.lt != 0 {
		products = "cuBLASLt " + d.ltVersion
	}
	return device.Info{
		Name: fmt.Sprintf("cuda:%d", c.number), Type: tape.DeviceCUDA, ID: int32(c.number), MemoryBytes: int64(c.memory_bytes),
		Description: fmt.Sprintf("%s, compute capability %d.%d, driver of CUDA %d.%d, %s", C.GoString(&c.name[0]), c.compute/10, c.compute%10,
			c.version/1000, c.version%1000/10, products),
	}
}

func (d *cuda) Tape() uintptr { return uintptr(C.cuda_address(d.c)) }

// locked runs a C function whose message is the thread's.
func locked(call func() C.adcg_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return status(call())
}

type arena struct {
	device *cuda
	c      C.adcg_cuda_arena
}

func (d *cuda) NewArena(bytes int64) (device.Arena, error) {
	a := &arena{device: d}
	if err := locked(func() C.adcg_status { return C.adcg_cuda_arena_create(d.c, C.int64_t(bytes), &a.c) }); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *arena) Address() uintptr { return uintptr(a.c.base) + C.ADCG_CUDA_ARENA_HEAD }
func (a *arena) Batch() uintptr   { return uintptr(a.c.base) }
func (a *arena) Held() int64      { return max(0, int64(a.c.mapped)-C.ADCG_CUDA_ARENA_HEAD) }
func (a *arena) Grow(bytes int64) error {
	return locked(func() C.adcg_status { return C.adcg_cuda_arena_grow(a.device.c, &a.c, C.int64_t(bytes)) })
}
func (a *arena) Release() error {
	return locked(func() C.adcg_status { return C.adcg_cuda_arena_release(a.device.c, &a.c) })
}
func (a *arena) Restore() error {
	return locked(func() C.adcg_status { return C.adcg_cuda_arena_restore(a.device.c, &a.c) })
}
func (a *arena) Free() { C.adcg_cuda_arena_free(a.device.c, &a.c) }

func (d *cuda) ArenaBytes(bytes int64) int64 {
	unit := int64(d.c.granularity)
	return (bytes+C.ADCG_CUDA_ARENA_HEAD+unit-1)/unit*unit - C.ADCG_CUDA_ARENA_HEAD
}

func (d *cuda) GraphBytes(kernels int) int64 {
	return C.ADCG_CUDA_EXECUTABLE_BYTES + int64(kernels)*C.ADCG_CUDA_KERNEL_NODE_BYTES
}

func (d *cuda) Alloc(bytes int64) (uintptr, error) {
	var address C.uintptr_t
	err := locked(func() C.adcg_status { return C.adcg_cuda_alloc(d.c, C.int64_t(bytes), &address) })
	return uintptr(address), err
}

func (d *cuda) Free(address uintptr) error {
	return locked(func() C.adcg_status { return C.adcg_cuda_free(d.c, C.uintptr_t(address)) })
}

func (d *cuda) Copy(to, from uintptr, bytes int64) error {
	return locked(func() C.adcg_status {
		return C.adcg_cuda_copy(d.c, C.uintptr_t(to), C.uintptr_t(from), C.int64_t(bytes))
	})
}

func (d *cuda) Op(name string) (device.Impl, bool) {
	launch, workspace, prepare, zeroesTail, ok := kernels.Find(name)
	return device.Impl{
		Launch: launch, Workspace: workspace, Prepare: prepare, Context: d.context, Invariant: d.invariant, UserData: d.node,
		ZeroesTail: zeroesTail,
		Parametric: d.lt == 0 || name != "adcg.linear", // cuBLASLt launches its kernels itself
	}, ok
}

// Capture runs what captures; nothing is destroyed meanwhile, on any thread.
func (d *cuda) Capture(capture func()) {
	d.mu.Lock() // waits for what is being destroyed
	d.captures++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.captures--
		var pending []func()
		if d.captures == 0 {
			pending, d.pending = d.pending, nil
		}
		d.mu.Unlock()
		for _, destroy := range pending {
			d.Destroy(destroy)
		}
	}()
	capture()
}

// Destroy runs what destroys, or leaves it for the end of the captures that are going on: the caller may be an op in one of them.
func (d *cuda) Destroy(destroy func()) {
	d.mu.RLock()
	if d.captures == 0 {
		defer d.mu.RUnlock()
		destroy()
		return
	}
	d.mu.RUnlock()
	d.mu.Lock()
	if d.captures > 0 {
		d.pending = append(d.pending, destroy)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.Destroy(destroy)
}

func (d *cuda) Close() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if d.lt != 0 {
		if leave, err := d.current(); err == nil {
			kernels.CloseLt(d.lt)
			leave()
		}
	}
	C.adcg_cuda_close(d.c)
	kernels.FreeDevice(d.context)
	kernels.FreeDevice(d.invariant)
	C.cuda_free(C.uintptr_t(d.node))
	C.free(unsafe.Pointer(d.c))
}
