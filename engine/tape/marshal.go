package tape

// #cgo CFLAGS: -std=gnu11 -O2 -I${SRCDIR}/../../include -Wall
// #include "tape.h"
import "C"

import (
	"unsafe"

	"github.com/libadcg/libadcg/piecewise"
)

func cString(p *byte) *C.char { return (*C.char)(unsafe.Pointer(p)) }

func fillType(out *C.adcg_type, t piecewise.Type) {
	out.dtype = C.adcg_dtype(t.DType)
	out.ndim = C.int32_t(len(t.Dims))
	for i, d := range t.Dims {
		out.dims[i] = C.adcg_dim{tokens: C.int64_t(d.Tokens), seqs: C.int64_t(d.Seqs), constant: C.int64_t(d.Constant)}
	}
}

func typeOf(t *C.adcg_type) piecewise.Type {
	n := min(max(int(t.ndim), 0), piecewise.MaxNDim)
	out := piecewise.Type{DType: piecewise.DType(t.dtype), Dims: make([]piecewise.Dim, n)}
	for i := range out.Dims {
		d := t.dims[i]
		out.Dims[i] = piecewise.Dim{Tokens: int64(d.tokens), Seqs: int64(d.seqs), Constant: int64(d.constant)}
	}
	return out
}

// fillAttr writes an attribute whose strings and lists are carved from b.
func fillAttr(b *block, out *C.adcg_attr, a piecewise.Attr) {
	out.name = cString(text(b, a.Name))
	out._type = C.int32_t(a.Type)
	out.i = C.int64_t(a.Int)
	out.f = C.double(a.Float)
	out.s = cString(text(b, a.String))
	ints := array[C.int64_t](b, len(a.Ints))
	for i, v := range a.Ints {
		ints[i] = C.int64_t(v)
	}
	out.ints = first(ints)
	out.count = C.int32_t(len(ints))
}

func fillAttrs(b *block, attrs []piecewise.Attr) []C.adcg_attr {
	out := array[C.adcg_attr](b, len(attrs))
	for i, a := range attrs {
		fillAttr(b, &out[i], a)
	}
	return out
}

// attrOf reads an attribute of C memory.
func attrOf(a *C.adcg_attr) piecewise.Attr {
	out := piecewise.Attr{Type: piecewise.AttrType(a._type), Int: int64(a.i), Float: float64(a.f)}
	if a.name != nil {
		out.Name = C.GoString(a.name)
	}
	if a.s != nil {
		out.String = C.GoString(a.s)
	}
	if a.ints != nil && a.count > 0 {
		for _, v := range unsafe.Slice(a.ints, int(a.count)) {
			out.Ints = append(out.Ints, int64(v))
		}
	}
	return out
}

func fillTensor(b *block, out *C.DLTensor, s piecewise.Shape, device C.DLDevice) {
	dims := array[C.int64_t](b, piecewise.MaxNDim)
	for i, d := range s.Dims {
		dims[i] = C.int64_t(d)
	}
	out.ndim = C.int32_t(len(s.Dims))
	out.shape = &dims[0]
	out.dtype = C.adcg_dtype_to_dlpack(C.adcg_dtype(s.DType))
	out.device = device
}

func shapeOf(t *C.DLTensor) piecewise.Shape {
	n := min(max(int(t.ndim), 0), piecewise.MaxNDim)
	out := piecewise.Shape{DType: piecewise.DType(C.adcg_dtype_from_dlpack(t.dtype)), Dims: make([]int64, n)}
	for i, d := range unsafe.Slice(t.shape, n) {
		out.Dims[i] = int64(d)
	}
	return out
}
