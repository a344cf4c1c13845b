//go:build cuhost

package cuhost

import (
	"errors"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/libadcg/libadcg/engine"
)

// Element is what lies in a tensor's memory, by its bits: uint16 for a BF16, float32 for an F32.
type Element interface {
	~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~float32 | ~float64
}

// Alloc allocates a tensor of the current context, with whatever bytes are there; Free gives it back.
func Alloc(dtype engine.DType, dims ...int64) (engine.Tensor, error) {
	const function = "cuhost.Alloc"
	bytes, err := sizeOf(function, dtype, dims)
	if err != nil {
		return engine.Tensor{}, err
	}
	ptr, err := cu.MemAlloc(bytes)
	if err != nil {
		return engine.Tensor{}, failf(statusOf(err), function, "%d bytes: %v", bytes, err)
	}
	t, err := Tensor(ptr, dtype, dims...)
	if err != nil {
		_ = cu.MemFree(ptr) // the first error is the one to tell
	}
	return t, err
}

// Free gives the memory of Alloc back; waits for work that is under way.
func Free(t engine.Tensor) error {
	const function = "cuhost.Free"
	if t.DeviceType != engine.DeviceCUDA {
		return failf(engine.ErrDevice, function, "tensor: of device type %d, not of a CUDA device", t.DeviceType)
	}
	if err := cu.MemFree(Pointer(t)); err != nil {
		return failf(statusOf(err), function, "tensor: %v: %v", Pointer(t), err)
	}
	return nil
}

// Upload copies the bits of values, one an element, to the tensor, and is over when it returns. As with cu.MemcpyHtoD it waits for the
// default stream and those that block with it, not for non-blocking ones: synchronize those that read or write the tensor first.
func Upload[T Element](t engine.Tensor, values []T) error {
	bytes, err := transfer[T]("cuhost.Upload", t, len(values))
	if err != nil || bytes == 0 {
		return err
	}
	if err := cu.MemcpyHtoD(Pointer(t), unsafe.Pointer(&values[0]), bytes); err != nil {
		return failf(statusOf(err), "cuhost.Upload", "tensor: %v: %v", Pointer(t), err)
	}
	return nil
}

// Download is the tensor's elements, by their bits; what Upload says of streams holds here too.
func Download[T Element](t engine.Tensor) ([]T, error) {
	values := make([]T, t.Len())
	bytes, err := transfer[T]("cuhost.Download", t, len(values))
	if err != nil || bytes == 0 {
		return nil, err
	}
	if err := cu.MemcpyDtoH(unsafe.Pointer(&values[0]), Pointer(t), bytes); err != nil {
		return nil, failf(statusOf(err), "cuhost.Download", "tensor: %v: %v", Pointer(t), err)
	}
	return values, nil
}

// transfer is the bytes that a copy of the whole tensor moves.
func transfer[T Element](function string, t engine.Tensor, count int) (int64, error) {
	var element T
	switch size := int64(unsafe.Sizeof(element)); {
	case t.DeviceType != engine.DeviceCUDA:
		return 0, failf(engine.ErrDevice, function, "tensor: of device type %d, not of a CUDA device", t.DeviceType)
	case size != t.Shape.DType.Size():
		return 0, failf(engine.ErrDType, function, "values: elements of %d bytes, the tensor's %v have %d", size, t.Shape.DType, t.Shape.DType.Size())
	case count != t.Len():
		return 0, failf(engine.ErrShape, function, "values: %d of them, the tensor has %d elements", count, t.Len())
	default:
		return size * int64(count), nil
	}
}

func statusOf(err error) engine.Status {
	if errors.Is(err, cu.OutOfMemory) {
		return engine.ErrOutOfMemory
	}
	return engine.ErrDevice
}
