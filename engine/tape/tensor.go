package tape

// #include <stdlib.h>
// #include "tape.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/libadcg/libadcg/piecewise"
)

// Batch is what a step holds; see adcg_batch.
type Batch struct {
	PrefillSeqs, PrefillTokens int64
	ExtendSeqs, ExtendTokens   int64
	DecodeSeqs                 int64
	QueryLen                   int64
}

// Tokens is the rows of the step's token tensors.
func (b Batch) Tokens() int64 { return b.PrefillTokens + b.ExtendTokens + b.DecodeSeqs }

// Seqs is the sequences of the step.
func (b Batch) Seqs() int64 { return b.PrefillSeqs + b.ExtendSeqs + b.DecodeSeqs }

func batchOf(b *C.adcg_batch) Batch {
	return Batch{
		PrefillSeqs: int64(b.prefill_seqs), PrefillTokens: int64(b.prefill_tokens),
		ExtendSeqs: int64(b.extend_seqs), ExtendTokens: int64(b.extend_tokens),
		DecodeSeqs: int64(b.decode_seqs), QueryLen: int64(b.query_len),
	}
}

func fillBatch(out *C.adcg_batch, b Batch) {
	*out = C.adcg_batch{
		struct_size:  C.sizeof_adcg_batch,
		prefill_seqs: C.int64_t(b.PrefillSeqs), prefill_tokens: C.int64_t(b.PrefillTokens),
		extend_seqs: C.int64_t(b.ExtendSeqs), extend_tokens: C.int64_t(b.ExtendTokens),
		decode_seqs: C.int64_t(b.DecodeSeqs), query_len: C.int64_t(b.QueryLen),
	}
}

// Tensor is a compact tensor in C memory or in a device's.
type Tensor struct {
	Data  unsafe.Pointer // never Go's memory, which a C struct may not hold
	Shape piecewise.Shape
	// Where Data lies, in DLPack's terms: an exec refuses a tensor of another device. DeviceType 0: where the exec is.
	DeviceType, DeviceID int32
}

// DLPack's device types.
const (
	DeviceCPU  = int32(C.kDLCPU)
	DeviceCUDA = int32(C.kDLCUDA)
)

// NewTensor allocates zeroed C memory for a tensor; Free gives it back.
func NewTensor(s piecewise.Shape) (Tensor, error) {
	bytes := max(s.DType.Size(), 1)
	for _, d := range s.Dims {
		bytes *= d
	}
	data := C.calloc(1, C.size_t(max(bytes, 1)))
	if data == nil {
		return Tensor{}, ErrOutOfMemory
	}
	return Tensor{Data: data, Shape: s, DeviceType: DeviceCPU}, nil
}

// Free gives the memory of NewTensor back.
func (t Tensor) Free() {
	t.mustBeHost()
	C.free(t.Data)
}

// mustBeHost panics where memory of a device would be read or freed as C's, which ends the process.
func (t Tensor) mustBeHost() {
	if t.DeviceType != 0 && t.DeviceType != DeviceCPU {
		panic(fmt.Sprintf("tensor in memory of device type %d number %d, not in the host's", t.DeviceType, t.DeviceID))
	}
}

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape.Dims {
		n *= int(d)
	}
	return n
}

// Float32 is a view of an F32 tensor's elements.
func (t Tensor) Float32() []float32 { return view[float32](t, piecewise.F32) }

// Int32 is a view of an I32 tensor's elements.
func (t Tensor) Int32() []int32 { return view[int32](t, piecewise.I32) }

// Bytes is a view of the tensor's memory.
func (t Tensor) Bytes() []byte {
	t.mustBeHost()
	return unsafe.Slice((*byte)(t.Data), t.Len()*int(t.Shape.DType.Size()))
}

func view[T any](t Tensor, want piecewise.DType) []T {
	t.mustBeHost()
	if t.Shape.DType != want {
		panic("tensor of " + t.Shape.DType.String() + ", not " + want.String())
	}
	return unsafe.Slice((*T)(t.Data), t.Len())
}

func tensorOf(tensors *C.DLTensor, i, n int) Tensor {
	t := &unsafe.Slice(tensors, n)[i]
	return Tensor{Data: C.adcg_data(t), Shape: shapeOf(t), DeviceType: int32(t.device.device_type), DeviceID: int32(t.device.device_id)}
}
