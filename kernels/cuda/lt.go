package cuda

/*
#cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../../include -Wall -Wextra
#cgo LDFLAGS: -lm
#include <stdint.h>
#include "lt.h"

static const char *lt_name(int i) { return adcgk_lt_names[i]; }
static uintptr_t lt_open(void *functions, const adcgk_lt_options *options, char *message, size_t size) {
  return (uintptr_t)adcgk_lt_open(functions, options, message, size);
}
static void lt_close(uintptr_t lt) { adcgk_lt_close((adcgk_lt *)lt); }
static int64_t lt_version(uintptr_t lt) { return adcgk_lt_version((const adcgk_lt *)lt); }
static adcgk_lt_options lt_defaults(void) { return (adcgk_lt_options)ADCGK_LT_OPTIONS_INIT; }
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/ebitengine/purego"
)

// LtPath is the environment variable that names the file of cuBLASLt, for hosts that carry it in a place of their own.
const LtPath = "ADCG_CUBLASLT"

// ltNames are what cuBLASLt is called, the newest first. 12 and 13 are alike in all that is used of them.
var ltNames = []string{"libcublasLt.so.13", "libcublasLt.so.12"}

// LtOptions are adcgk_lt_options (lt.h), and where the library is.
type LtOptions struct {
	Path           string // "": LtPath, or else the loader finds it by name
	PlainCost      float64
	WorkspaceBytes uint64
	Alignment      int32
	TF32           bool
	PinnedRows     int64
}

// DefaultLtOptions are those that OpenLt takes for nil.
func DefaultLtOptions() LtOptions {
	d := C.lt_defaults()
	return LtOptions{
		PlainCost: float64(d.plain_cost), WorkspaceBytes: uint64(d.workspace_bytes), Alignment: int32(d.alignment),
		TF32: d.tf32 != 0, PinnedRows: int64(d.pinned_rows),
	}
}

// OpenLt opens cuBLASLt for the device whose context is current on this thread (which the caller has locked, as it must have for
// that). The handle is what NewDevice takes, for CloseLt to close; the version is "13.1.2". Without the library, with one that
// lacks a function, or that does not start, there is an error, and products are our own kernels'.
func OpenLt(options *LtOptions) (handle uintptr, version string, err error) {
	o := DefaultLtOptions()
	if options != nil {
		o = *options
	}
	names := ltNames
	if path := o.Path; path != "" {
		names = []string{path}
	} else if path := os.Getenv(LtPath); path != "" {
		names = []string{path}
	}
	library, name, err := loadLt(names)
	if err != nil {
		return 0, "", err
	}
	functions, err := ltFunctions(library, name)
	if err == nil {
		handle, err = startLt(functions, o)
	}
	if err != nil {
		_ = purego.Dlclose(library)
		return 0, "", err
	}
	// It stays loaded: it has a CUDA runtime of its own inside, which ends with the process.
	v := int64(C.lt_version(C.uintptr_t(handle)))
	return handle, fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100), nil
}

// CloseLt closes a handle of OpenLt's that no device uses any more, its context being current. 0 does nothing.
func CloseLt(handle uintptr) { C.lt_close(C.uintptr_t(handle)) }

// loadLt loads the first library that is there.
func loadLt(names []string) (library uintptr, name string, err error) {
	var missing []error
	for _, name := range names {
		library, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err == nil {
			return library, name, nil
		}
		missing = append(missing, fmt.Errorf("cuBLASLt: %w", err))
	}
	return 0, "", errors.Join(missing...)
}

// ltFunctions finds every function that is needed, in the order of adcgk_lt_names.
func ltFunctions(library uintptr, name string) ([]uintptr, error) {
	var functions []uintptr
	for i := 0; ; i++ {
		text := C.lt_name(C.int(i))
		if text == nil {
			return functions, nil
		}
		function, err := purego.Dlsym(library, C.GoString(text))
		if err != nil {
			return nil, fmt.Errorf("cuBLASLt: %s: %s: not there", name, C.GoString(text))
		}
		functions = append(functions, function)
	}
}

func startLt(functions []uintptr, o LtOptions) (uintptr, error) {
	c := C.adcgk_lt_options{
		plain_cost: C.double(o.PlainCost), workspace_bytes: C.uint64_t(o.WorkspaceBytes), alignment: C.int32_t(o.Alignment),
		pinned_rows: C.int64_t(o.PinnedRows),
	}
	if o.TF32 {
		c.tf32 = 1
	}
	var message [256]byte
	handle := C.lt_open(unsafe.Pointer(&functions[0]), &c, (*C.char)(unsafe.Pointer(&message[0])), C.size_t(len(message)))
	if handle == 0 {
		return 0, fmt.Errorf("cuBLASLt: %s", C.GoString((*C.char)(unsafe.Pointer(&message[0]))))
	}
	return uintptr(handle), nil
}
