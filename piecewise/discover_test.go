package piecewise

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// discovered is an op without Infer that answers with f.
func discovered(f func(in []Shape, tokens, seqs int64) []Shape) *OpSchema {
	return &OpSchema{Name: "found", Kind: Dynamic, NumInputs: 1, NumOutputs: 1,
		Discover: func(in []Shape, _ []Attr, tokens, seqs int64) ([]Shape, error) { return f(in, tokens, seqs), nil }}
}

func TestDiscovery(t *testing.T) {
	for _, limits := range [][2]int64{{1, 1}, {2, 1}, {3, 2}, {7, 300}, {512, 8}, {64, 64}, {8192, 256}} {
		for _, want := range []Dim{tokens, seqs, {Seqs: 1, Constant: 1}, {Tokens: 2, Constant: 61}, constant(97), {Tokens: 3, Seqs: 5, Constant: 7}, {Tokens: 1, Constant: -1}} {
			b := newBuild(t, limits[0], limits[1])
			x := b.input("x", f32(tokens, 8))
			y := b.op(discovered(func(in []Shape, tokens, seqs int64) []Shape {
				assert.Equal(t, []int64{tokens, 8}, in[0].Dims)
				return []Shape{{BF16, []int64{want.At(tokens, seqs), 61}}}
			}), x)
			z := b.op(&OpSchema{Name: "behind", Kind: Static, NumInputs: 1, NumOutputs: 1, Infer: asInput(1)}, y)
			assert.False(t, b.g.Values[z].Known, "its input is not known before Freeze")
			b.output("z", z)
			b.freeze()
			type2 := Type{BF16, []Dim{want, constant(61)}}
			assert.Equal(t, type2, b.g.Values[y].Type)
			assert.Equal(t, type2, b.g.Values[z].Type)
			assert.True(t, b.g.Values[z].Known)
		}
	}
}

func TestDiscoveryRefuses(t *testing.T) {
	one := func(f func(tokens, seqs int64) int64) func([]Shape, int64, int64) []Shape {
		return func(_ []Shape, tokens, seqs int64) []Shape { return []Shape{{F32, []int64{f(tokens, seqs), 8}}} }
	}
	for name, e := range map[string]struct {
		op      func([]Shape, int64, int64) []Shape
		kind    ErrorKind
		message string
	}{
		"product":  {one(func(t, s int64) int64 { return t * s }), ErrShape, "op `found#0`: output 0: dim 0 is not a*tokens + b*seqs + c: 427 at 61 tokens and 7 sequences, 1067 at 97 and 11"},
		"rounding": {one(func(t, s int64) int64 { return (t + 63) / 64 }), ErrShape, "op `found#0`: output 0: dim 0 is not a*tokens + b*seqs + c: 1 at 61 tokens and 7 sequences, 2 at 97 and 7"},
		"clamped":  {one(func(t, s int64) int64 { return min(t, 200) }), ErrShape, "op `found#0`: output 0: dim 0 is not a*tokens + b*seqs + c: 61 at 61 tokens and 7 sequences, 200 at 512 and 32"},
		"falling":  {one(func(t, s int64) int64 { return 1000 - t }), ErrShape, "op `found#0`: output 0: dim 0 is -1*tokens+1000, its coefficients must not be negative"},
		"negative": {one(func(t, s int64) int64 { return -t }), ErrShape, "op `found#0`: output 0: dim 0 is -61 at 61 tokens and 7 sequences"},
		"inner": {func(_ []Shape, t, s int64) []Shape { return []Shape{{F32, []int64{8, t}}} }, ErrShape,
			"op `found#0`: output 0: dim 1 is tokens, only the first may depend on a count"},
		"rank": {func(_ []Shape, t, s int64) []Shape {
			if t > 100 {
				return []Shape{{F32, []int64{t}}}
			}
			return []Shape{{F32, []int64{t, 1}}}
		}, ErrShape, "op `found#0`: output 0: float32 with 2 dims at 61 tokens and 7 sequences, float32 with 1 dims at 131 and 23"},
		"dtype": {func(_ []Shape, t, s int64) []Shape { return []Shape{{DType(1 + s/11), []int64{t}}} }, ErrShape,
			"op `found#0`: output 0: float32 with 1 dims at 61 tokens and 7 sequences, float16 with 1 dims at 61 and 11"},
		"count":   {func(_ []Shape, t, s int64) []Shape { return nil }, ErrOp, "op `found#0`: discovery gave 0 outputs, the op has 1"},
		"unknown": {func(_ []Shape, t, s int64) []Shape { return []Shape{{0, []int64{t}}} }, ErrDType, "op `found#0`: output 0: element type 0 is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuild(t, 512, 32)
			b.output("y", b.op(discovered(e.op), b.input("x", f32(tokens))))
			requireKind(t, b.g.Freeze(), e.kind, e.message)
			assert.False(t, b.g.Frozen)
			assert.False(t, b.g.Values[1].Known)
		})
	}
	b := newBuild(t, 512, 32)
	theirs := errors.New("not today")
	s := discovered(nil)
	s.Discover = func([]Shape, []Attr, int64, int64) ([]Shape, error) { return nil, theirs }
	b.output("y", b.op(s, b.input("x", f32(tokens))))
	err := b.g.Freeze()
	require.ErrorIs(t, err, theirs)
	require.EqualError(t, err, "op `found#0`: not today")
	s.Discover = func(in []Shape, _ []Attr, _, _ int64) ([]Shape, error) { return in, nil } // the graph is still open
	b.freeze()
	assert.Equal(t, f32(tokens), b.g.Values[1].Type)
}

func TestDiscoveredViewsAreChecked(t *testing.T) {
	b := newBuild(t, 512, 32)
	s := aliased(discovered(func(in []Shape, tokens, _ int64) []Shape { return []Shape{{F32, []int64{tokens, 9}}} }), view(0, 0))
	b.output("y", b.op(s, b.input("x", f32(tokens, 8))))
	requireKind(t, b.g.Freeze(), ErrShape, "op `found#0`: output 0, float32[tokens, 9], is a view of `x`, float32[tokens, 8], which is smaller")
}
