//go:build cuhost

package cuhost

// #cgo LDFLAGS: -lcuda
// #include <cuda.h>
import "C"

import (
	"math"
	"slices"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/piecewise"
)

// Tensor is device memory as the engine takes it: a compact tensor from ptr on, on the device that the driver says it is on. An error
// unless all of its bytes are allocated device memory. Asks the driver a few questions, so make it once and not at every step; needs
// no current context.
func Tensor(ptr cu.DevicePtr, dtype engine.DType, dims ...int64) (engine.Tensor, error) {
	const function = "cuhost.Tensor"
	bytes, err := sizeOf(function, dtype, dims)
	if err != nil {
		return engine.Tensor{}, err
	}
	device, err := deviceOf(function, ptr)
	if err != nil {
		return engine.Tensor{}, err
	}
	if err := checkRange(function, ptr, bytes); err != nil {
		return engine.Tensor{}, err
	}
	return engine.Tensor{
		Data:  *(*unsafe.Pointer)(unsafe.Pointer(&ptr)), // an address of the device's, which Go's collector never looks behind
		Shape: piecewise.Shape{DType: dtype, Dims: slices.Clone(dims)}, DeviceType: engine.DeviceCUDA, DeviceID: device,
	}, nil
}

// Pointer is the memory of a tensor on a CUDA device as cu takes it; 0 for other tensors.
func Pointer(t engine.Tensor) cu.DevicePtr {
	if t.DeviceType != engine.DeviceCUDA {
		return 0
	}
	return cu.DevicePtr(uintptr(t.Data))
}

// sizeOf is the bytes of a tensor: at least one, as in engine.NewTensor.
func sizeOf(function string, dtype engine.DType, dims []int64) (int64, error) {
	bytes := dtype.Size()
	if bytes <= 0 {
		return 0, failf(engine.ErrDType, function, "dtype: %v: not an element type", dtype)
	}
	if len(dims) > piecewise.MaxNDim {
		return 0, failf(engine.ErrShape, function, "dims: %d of them, at most %d", len(dims), piecewise.MaxNDim)
	}
	for i, d := range dims {
		if d < 0 || d > 0 && bytes > math.MaxInt64/d {
			return 0, failf(engine.ErrShape, function, "dims[%d]: %d: negative, or the tensor is too large", i, d)
		}
		bytes *= d
	}
	return max(bytes, 1), nil
}

// ask puts the answer into *out, which is as wide as the attribute. cu's own DevicePtr.PtrAttribute gives the driver nowhere to write
// to, and so has no answer to anything.
func ask[T C.uint | C.int | C.CUdeviceptr | C.size_t](ptr cu.DevicePtr, attribute C.CUpointer_attribute, out *T) string {
	status := C.cuPointerGetAttribute(unsafe.Pointer(out), attribute, C.CUdeviceptr(ptr))
	if status == C.CUDA_SUCCESS {
		return ""
	}
	var name *C.char
	if C.cuGetErrorName(status, &name) != C.CUDA_SUCCESS {
		return "an unknown CUDA error"
	}
	return C.GoString(name)
}

func deviceOf(function string, ptr cu.DevicePtr) (int32, error) {
	var kind C.uint
	var ordinal C.int
	if failure := ask(ptr, C.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, &kind); failure != "" {
		return 0, failf(engine.ErrAddress, function, "ptr: %v: the driver knows of no memory there (%s)", ptr, failure)
	}
	if kind != C.CU_MEMORYTYPE_DEVICE {
		return 0, failf(engine.ErrAddress, function, "ptr: %v: memory of type %d, not of a device", ptr, int(kind))
	}
	if failure := ask(ptr, C.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, &ordinal); failure != "" {
		return 0, failf(engine.ErrAddress, function, "ptr: %v: on no device (%s)", ptr, failure)
	}
	return int32(ordinal), nil
}

// checkRange follows allocations that lie end to end: virtual memory is mapped in pieces.
func checkRange(function string, ptr cu.DevicePtr, bytes int64) error {
	for have := int64(0); have < bytes; {
		var start C.CUdeviceptr
		var size C.size_t
		at := ptr + cu.DevicePtr(have)
		failure := ask(at, C.CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, &start)
		if failure == "" {
			failure = ask(at, C.CU_POINTER_ATTRIBUTE_RANGE_SIZE, &size)
		}
		rest := int64(start) + int64(size) - int64(at)
		if failure != "" || rest <= 0 {
			return failf(engine.ErrAddress, function, "ptr: %v: %d bytes are allocated from there on, needs %d", ptr, have, bytes)
		}
		have += rest
	}
	return nil
}
