package host_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/internal/safetensors"
	"github.com/libadcg/libadcg/kernels"
	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

const golden = "../../tests/data/golden/ops/"

// array is a tensor whose elements a test sees as float32 (or int32) and kernels as a tensor of C memory.
type array struct {
	dtype piecewise.DType
	dims  []int64
	f     []float32
	i     []int32
}

func count(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	return n
}

func toBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if f != f {
		return 0x7fc0
	}
	return uint16((u + 0x7fff + (u >> 16 & 1)) >> 16)
}
func fromBF16(h uint16) float32   { return math.Float32frombits(uint32(h) << 16) }
func roundBF16(f float32) float32 { return fromBF16(toBF16(f)) }

// fp8 gives the values of fp8 e4m3 by their definition: sign, 4 bits of exponent (bias 7), 3 of mantissa; 0x7f and 0xff are NaN.
var fp8 = func() (values [256]float32) {
	for code := range values {
		exponent, mantissa := code>>3&15, float64(code&7)
		v := math.Ldexp(1+mantissa/8, exponent-7)
		if exponent == 0 {
			v = math.Ldexp(mantissa, -9)
		}
		if code&0x7f == 0x7f {
			v = math.NaN()
		}
		if code >= 128 {
			v = math.Copysign(v, -1)
		}
		values[code] = float32(v)
	}
	return values
}()

// toFP8 finds the nearest of all 256 values, the even one of two, 448 for what is beyond.
func toFP8(f float32) uint8 {
	if f != f {
		return 0x7f
	}
	best, distance := 0, math.Inf(1)
	for code := range 0x7f {
		d := math.Abs(math.Min(math.Abs(float64(f)), 448) - float64(fp8[code]))
		if d < distance || d == distance && code%2 == 0 {
			best, distance = code, d
		}
	}
	if math.Signbit(float64(f)) {
		best |= 0x80
	}
	return uint8(best)
}

// rounded is f as an element of some type.
func rounded(f float32, dtype piecewise.DType) float32 {
	switch dtype {
	case piecewise.BF16:
		return roundBF16(f)
	case piecewise.F8E4M3:
		return fp8[toFP8(f)]
	}
	return f
}

// random gives normal numbers, rounded to the element type.
func random(rng *rand.Rand, dtype piecewise.DType, dims ...int64) *array {
	a := &array{dtype: dtype, dims: dims, f: make([]float32, count(dims))}
	for i := range a.f {
		a.f[i] = float32(rng.NormFloat64())
		if dtype == piecewise.BF16 {
			a.f[i] = roundBF16(a.f[i])
		}
	}
	return a
}

func filled(dtype piecewise.DType, value float32, dims ...int64) *array {
	a := &array{dtype: dtype, dims: dims, f: make([]float32, count(dims))}
	for i := range a.f {
		a.f[i] = value
	}
	return a
}

func ints(values ...int32) *array {
	return &array{dtype: piecewise.I32, dims: []int64{int64(len(values))}, i: values}
}

func (a *array) clone() *array {
	b := *a
	b.f, b.i = append([]float32(nil), a.f...), append([]int32(nil), a.i...)
	return &b
}

func (a *array) row() int64 { return count(a.dims[1:]) }

// rows gives a copy of rows [from, to).
func (a *array) rows(from, to int64) *array {
	n := a.row()
	b := &array{dtype: a.dtype, dims: append([]int64{to - from}, a.dims[1:]...)}
	if a.dtype == piecewise.I32 {
		b.i = append(b.i, a.i[from*n:to*n]...)
	} else {
		b.f = append(b.f, a.f[from*n:to*n]...)
	}
	return b
}

// up copies to C memory; down copies back.
func (a *array) up() host.Tensor {
	t := zeros(a.dtype, a.dims...)
	m := host.Bytes(t.Address, int(count(a.dims)*a.dtype.Size()))
	switch a.dtype {
	case piecewise.F32:
		copy(m, bytesOf(a.f))
	case piecewise.I32:
		copy(m, bytesOf(a.i))
	case piecewise.BF16:
		h := make([]uint16, len(a.f))
		for i, f := range a.f {
			h[i] = toBF16(f)
		}
		copy(m, bytesOf(h))
	case piecewise.F8E4M3:
		for i, f := range a.f {
			m[i] = toFP8(f)
		}
	}
	return t
}

func (a *array) down(t host.Tensor) {
	m := host.Bytes(t.Address, int(count(a.dims)*a.dtype.Size()))
	switch a.dtype {
	case piecewise.F32:
		copy(bytesOf(a.f), m)
	case piecewise.I32:
		copy(bytesOf(a.i), m)
	case piecewise.BF16:
		h := make([]uint16, len(a.f))
		copy(bytesOf(h), m)
		for i := range h {
			a.f[i] = fromBF16(h[i])
		}
	case piecewise.F8E4M3:
		for i, code := range m {
			a.f[i] = fp8[code]
		}
	}
}

func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

var schemas = func() map[string]piecewise.OpSchema {
	all := map[string]piecewise.OpSchema{}
	for _, s := range kernels.Library() {
		all[s.Name] = s
	}
	return all
}()

// complete gives an op's attributes as the engine does: in the schema's order, with its defaults for those not given.
func complete(op string, given []piecewise.Attr) []piecewise.Attr {
	var attrs []piecewise.Attr
	for _, spec := range schemas[op].Attrs {
		attrs = append(attrs, spec.Default)
	}
	for _, a := range given {
		at := slices.IndexFunc(attrs, func(b piecewise.Attr) bool { return a.Name == b.Name })
		if at < 0 || attrs[at].Type != a.Type {
			panic(op + ": no such attribute: " + a.Name)
		}
		attrs[at] = a
	}
	return attrs
}

// launch runs an op; inputs are read back too, as ops may write them. alias > 0 gives output 0 the memory of input alias-1.
func launch(name string, pool uintptr, attrs []piecewise.Attr, inputs, outputs []*array, batch host.Batch, alias int) error {
	var in, out []host.Tensor
	for _, a := range inputs {
		in = append(in, a.up())
	}
	for i, a := range outputs {
		if i == 0 && alias > 0 {
			out = append(out, host.Tensor{DType: a.dtype, Dims: a.dims, Address: in[alias-1].Address})
			continue
		}
		out = append(out, a.up())
	}
	err := host.Launch(name, pool, complete(name, attrs), in, out, batch)
	for i, a := range outputs {
		a.down(out[i])
		if i > 0 || alias == 0 {
			release(out[i])
		}
	}
	for i, a := range inputs {
		if i != alias-1 {
			a.down(in[i])
		}
		release(in[i])
	}
	return err
}

func run(t *testing.T, name string, attrs []piecewise.Attr, output *array, inputs ...*array) *array {
	t.Helper()
	require.NoError(t, launch(name, 0, attrs, inputs, []*array{output}, host.Batch{DecodeSeqs: output.dims[0]}, 0))
	return output
}

func requireSameBits(t *testing.T, want, got *array, what string, args ...any) {
	t.Helper()
	require.Equal(t, len(want.f), len(got.f))
	for i := range want.f {
		if math.Float32bits(want.f[i]) != math.Float32bits(got.f[i]) {
			require.Failf(t, "bits differ", "element %d: %v and %v; "+what, append([]any{i, want.f[i], got.f[i]}, args...)...)
		}
	}
}

func requireNear(t *testing.T, want []float64, got *array, absolute, relative float64, what string, args ...any) {
	t.Helper()
	require.Equal(t, len(want), len(got.f))
	for i, w := range want {
		if g := float64(got.f[i]); !(math.Abs(g-w) <= absolute+relative*math.Abs(w)) {
			require.Failf(t, "too far", "element %d: got %v, want %v; "+what, append([]any{i, g, w}, args...)...)
		}
	}
}

// isas gives every instruction set of this machine, best first, and puts the best back.
func isas(t *testing.T) []string {
	t.Cleanup(func() { require.NoError(t, host.SetISA("")) })
	var names []string
	for _, name := range []string{"avx512", "avx2", "neon", "c"} {
		if host.SetISA(name) == nil {
			names = append(names, name)
		}
	}
	require.NoError(t, host.SetISA(""))
	return names
}

// load reads a golden case.
func load(t *testing.T, name string) (map[string]*array, map[string]any) {
	t.Helper()
	tensors, err := safetensors.Read(golden + name + ".safetensors")
	require.NoError(t, err)
	arrays := map[string]*array{}
	for key, tensor := range tensors {
		a := &array{dims: tensor.Shape}
		switch tensor.DType {
		case "F32":
			a.dtype, a.f = piecewise.F32, make([]float32, count(a.dims))
			copy(bytesOf(a.f), tensor.Data)
		case "I32":
			a.dtype, a.i = piecewise.I32, make([]int32, count(a.dims))
			copy(bytesOf(a.i), tensor.Data)
		default:
			require.Fail(t, "unexpected element type", "%s: %s", key, tensor.DType)
		}
		arrays[key] = a
	}
	text, err := os.ReadFile(golden + name + ".json")
	require.NoError(t, err)
	var about struct{ Attributes map[string]any }
	require.NoError(t, json.Unmarshal(text, &about))
	return arrays, about.Attributes
}

func float(name string, v float64) piecewise.Attr {
	return piecewise.Attr{Name: name, Type: piecewise.AttrFloat, Float: v}
}
func integer(name string, v int64) piecewise.Attr {
	return piecewise.Attr{Name: name, Type: piecewise.AttrInt, Int: v}
}
func str(name, v string) piecewise.Attr {
	return piecewise.Attr{Name: name, Type: piecewise.AttrString, String: v}
}

func boolean(name string, v bool) piecewise.Attr {
	return piecewise.Attr{Name: name, Type: piecewise.AttrBool, Int: map[bool]int64{true: 1}[v]}
}

func number(v any, otherwise float64) float64 {
	if f, ok := v.(float64); ok {
		return f
	}
	return otherwise
}
