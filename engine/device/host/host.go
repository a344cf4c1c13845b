// Package host is the device "host": memory from the C heap, order of calls for a stream, kernels from kernels/host.
package host

// #include <errno.h>
// #include <stdint.h>
// #include <stdlib.h>
// #include <string.h>
// #include <sys/mman.h>
// static uintptr_t host_alloc(size_t bytes, size_t alignment) {
//   void *p = NULL;
//   return posix_memalign(&p, alignment, bytes) == 0 ? (uintptr_t)p : 0;
// }
// // The pages are the system's; the next touch of one brings another, of zeros.
// static int host_give_back(uintptr_t address, size_t bytes) { return madvise((void *)address, bytes, MADV_DONTNEED) == 0 ? 0 : errno; }
// static void host_free(uintptr_t address) { free((void *)address); }
// static void host_copy(uintptr_t to, uintptr_t from, size_t bytes) { memmove((void *)to, (void *)from, bytes); }
import "C"

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/libadcg/libadcg/engine/device"
	"github.com/libadcg/libadcg/engine/tape"
	kernels "github.com/libadcg/libadcg/kernels/host"
)

const (
	dlCPU     = 1  // kDLCPU
	errDevice = 40 // ADCG_ERR_DEVICE
)

type host struct {
	pool uintptr // the kernels' threads; they start with the first parallel kernel
}

var _ device.Device = (*host)(nil)

// Open makes the host device with this many threads for its kernels; 0: one a core.
func Open(threads int32) (device.Device, error) {
	pool := kernels.NewPool(threads)
	if pool == 0 {
		return nil, tape.ErrOutOfMemory
	}
	return &host{pool: pool}, nil
}

func (h *host) Info() device.Info {
	return device.Info{
		Name: "host", Description: fmt.Sprintf("%s, %s kernels", field("/proc/cpuinfo", "model name", "CPU"), kernels.ISA()),
		Type: dlCPU, Threads: kernels.Threads(h.pool), MemoryBytes: memoryBytes(),
	}
}

func (h *host) Alloc(bytes int64) (uintptr, error) { return alloc(bytes, 64) }

func alloc(bytes, alignment int64) (uintptr, error) {
	address := uintptr(C.host_alloc(C.size_t(bytes), C.size_t(alignment)))
	if address == 0 {
		return 0, tape.ErrOutOfMemory
	}
	return address, nil
}

func (h *host) Free(address uintptr) error {
	C.host_free(C.uintptr_t(address))
	return nil
}

func (h *host) Copy(to, from uintptr, bytes int64) error {
	C.host_copy(C.uintptr_t(to), C.uintptr_t(from), C.size_t(bytes))
	return nil
}

func (h *host) Tape() uintptr { return 0 }

// arena is a block of the heap, held as a whole or not at all. It has its pages to itself, so that all of them can be given back.
type arena struct {
	address      uintptr
	bytes, pages int64 // pages in bytes
	released     bool
}

func (h *host) NewArena(bytes int64) (device.Arena, error) {
	a := &arena{bytes: bytes}
	if bytes == 0 {
		return a, nil
	}
	page := int64(os.Getpagesize())
	a.pages = (bytes + page - 1) / page * page
	var err error
	a.address, err = alloc(a.pages, page)
	return a, err
}

func (a *arena) Address() uintptr { return a.address }
func (a *arena) Batch() uintptr   { return 0 }
func (a *arena) Grow(int64) error { return nil }
func (a *arena) Free()            { C.host_free(C.uintptr_t(a.address)) }

func (a *arena) Held() int64 {
	if a.released {
		return 0
	}
	return a.bytes
}

// Release fails where the host has its memory locked (mlockall).
func (a *arena) Release() error {
	if a.pages > 0 {
		if errno := C.host_give_back(C.uintptr_t(a.address), C.size_t(a.pages)); errno != 0 {
			return &device.Error{Status: errDevice, Message: "madvise: " + syscall.Errno(errno).Error()}
		}
	}
	a.released = true
	return nil
}

// Restore has nothing to do: the system brings pages as they are touched.
func (a *arena) Restore() error {
	a.released = false
	return nil
}

func (h *host) ArenaBytes(bytes int64) int64 { return bytes }
func (h *host) GraphBytes(int) int64         { return 0 } // there is no driver

func (h *host) Op(name string) (device.Impl, bool) {
	launch, workspace, prepare, ok := kernels.Find(name)
	return device.Impl{Launch: launch, Workspace: workspace, Prepare: prepare, Context: h.pool, Invariant: h.pool}, ok
}

func (h *host) Capture(capture func()) { capture() } // nothing that is destroyed could break it
func (h *host) Destroy(destroy func()) { destroy() }

func (h *host) Close() { kernels.FreePool(h.pool) }

// field reads "key: value" from one of Linux's text files; elsewhere it is the fallback.
func field(path, key, fallback string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return fallback
	}
	for _, line := range strings.Split(string(text), "\n") {
		if k, v, found := strings.Cut(line, ":"); found && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return fallback
}

func memoryBytes() int64 {
	var kib int64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal", ""), "%d kB", &kib); err != nil {
		return 0
	}
	return kib * 1024
}
