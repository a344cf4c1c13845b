package piecewise

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	tokens = Dim{Tokens: 1}
	seqs   = Dim{Seqs: 1}
)

func constant(n int64) Dim { return Dim{Constant: n} }

// f32 is a float32 type of a first dim and constant ones behind it.
func f32(first Dim, rest ...int64) Type {
	t := Type{DType: F32, Dims: []Dim{first}}
	for _, n := range rest {
		t.Dims = append(t.Dims, constant(n))
	}
	return t
}

// gives makes an Infer that gives these types whatever it is asked.
func gives(types ...Type) func([]Type, []Attr) ([]Type, error) {
	return func([]Type, []Attr) ([]Type, error) { return types, nil }
}

// asInput makes an Infer whose outputs all have the type of input 0.
func asInput(outputs int) func([]Type, []Attr) ([]Type, error) {
	return func(in []Type, _ []Attr) ([]Type, error) {
		out := make([]Type, outputs)
		for k := range out {
			out[k] = in[0]
		}
		return out, nil
	}
}

// static is a static op with one output of these inputs' number and the given type.
func static(name string, inputs int, out Type) *OpSchema {
	return &OpSchema{Name: name, Kind: Static, NumInputs: inputs, NumOutputs: 1, Infer: gives(out)}
}

func dynamic(name string, inputs int, capture CaptureSupport, out Type) *OpSchema {
	s := static(name, inputs, out)
	s.Kind, s.Capture = Dynamic, capture
	return s
}

func aliased(s *OpSchema, aliases ...Alias) *OpSchema {
	s.Aliases = append(s.Aliases, aliases...)
	return s
}

func view(output, input int) Alias    { return Alias{output, input, AliasView} }
func inPlace(output, input int) Alias { return Alias{output, input, AliasInPlace} }

// build is a graph under construction in a test: every step must succeed.
type build struct {
	*testing.T
	g *Graph
}

func newBuild(t *testing.T, maxTokens, maxSeqs int64) *build {
	g, err := NewGraph(Limits{MaxTokens: maxTokens, MaxSeqs: maxSeqs})
	require.NoError(t, err)
	return &build{t, g}
}

func (b *build) input(name string, t Type) Value {
	b.Helper()
	v, err := b.g.AddInput(name, t)
	require.NoError(b, err)
	return v
}

func (b *build) weight(name string, t Type) Value {
	b.Helper()
	v, err := b.g.AddWeight(name, t)
	require.NoError(b, err)
	return v
}

func (b *build) state(name string, t Type) Value {
	b.Helper()
	v, err := b.g.AddState(name, t)
	require.NoError(b, err)
	return v
}

func (b *build) ops(s *OpSchema, inputs ...Value) []Value {
	b.Helper()
	out, err := b.g.AddOp(s, inputs, nil)
	require.NoError(b, err)
	return out
}

func (b *build) op(s *OpSchema, inputs ...Value) Value {
	b.Helper()
	return b.ops(s, inputs...)[0]
}

func (b *build) output(name string, v Value) {
	b.Helper()
	require.NoError(b, b.g.AddOutput(name, v))
}

func (b *build) freeze() *Graph {
	b.Helper()
	require.NoError(b, b.g.Freeze())
	return b.g
}

func (b *build) plan(o Options) *Plan {
	b.Helper()
	p, err := NewPlan(b.freeze(), o)
	require.NoError(b, err)
	return p
}

// requireKind asserts an error of this package, its kind and its message.
func requireKind(t *testing.T, err error, kind ErrorKind, message string) {
	t.Helper()
	require.Error(t, err)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, kind, e.Kind, err.Error())
	require.Equal(t, message, err.Error())
}

// block finds a plan's block; there must be exactly one.
func findBlock(t *testing.T, p *Plan, kind, name string) Block {
	t.Helper()
	var found []Block
	for _, b := range p.Blocks {
		if b.Kind == kind && b.Name == name {
			found = append(found, b)
		}
	}
	require.Len(t, found, 1, fmt.Sprintf("%s `%s`", kind, name))
	return found[0]
}

// llama is a transformer's decoder as hosts build it: embedding, layers of attention with rope and a gated MLP, the
// residual stream added in place, and the head behind the gather of each sequence's last token.
func llama(b *build, layers int, hidden, inner, vocab int64) {
	heads := func(t Dim) Type { return f32(t, hidden/64, 64) }
	i32 := func(d Dim) Type { return Type{I32, []Dim{d}} }
	ids, cu := b.input("ids", i32(tokens)), b.input("cu_seqlens", i32(Dim{Seqs: 1, Constant: 1}))
	pos, slot, last := b.input("input_pos", i32(seqs)), b.input("slot_idx", i32(seqs)), b.input("last", i32(seqs))
	row, wide := f32(tokens, hidden), f32(tokens, inner)
	square, up, down := f32(constant(hidden), hidden), f32(constant(inner), hidden), f32(constant(hidden), inner)
	norm := func(t Type) *OpSchema { return aliased(static("rms_norm", 2, t), inPlace(0, 0)) }
	linear := func(t Type) *OpSchema { return static("linear", 2, t) }
	rope := aliased(static("rope", 2, heads(tokens)), inPlace(0, 0))
	add := aliased(static("add", 2, row), inPlace(0, 0), inPlace(0, 1))
	mul := aliased(static("silu_mul", 2, wide), inPlace(0, 0), inPlace(0, 1))
	split := aliased(static("reshape", 1, heads(tokens)), view(0, 0))
	merge := aliased(static("reshape", 1, row), view(0, 0))
	attention := dynamic("attention", 8, CaptureUniformDecode, heads(tokens))
	attention.Mutates = 1<<3 | 1<<4
	attention.Workspace = func(_, _ []Shape, _ []Attr, tokens, seqs int64) (int64, error) { return 256*tokens + 64*seqs, nil }
	metadata := &OpSchema{Name: "attention_metadata", Kind: Metadata, Capture: CaptureAlways, NumInputs: 2, NumOutputs: 2,
		Infer: gives(i32(tokens), i32(tokens))}

	meta := b.ops(metadata, cu, pos)
	x := b.op(static("embedding", 2, row), ids, b.weight("table", f32(constant(vocab), hidden)))
	for l := 0; l < layers; l++ {
		w := func(name string, t Type) Value { return b.weight(fmt.Sprintf("%d.%s", l, name), t) }
		s := func(name string) Value {
			return b.state(fmt.Sprintf("%d.%s", l, name), f32(constant(4), 64, hidden/64, 64))
		}
		h := b.op(norm(row), x, w("norm1", f32(constant(hidden))))
		q := b.op(rope, b.op(split, b.op(linear(row), h, w("q", square))), meta[1])
		k := b.op(rope, b.op(split, b.op(linear(row), h, w("k", square))), meta[1])
		v := b.op(split, b.op(linear(row), h, w("v", square)))
		a := b.op(merge, b.op(attention, q, k, v, s("k_cache"), s("v_cache"), cu, pos, slot))
		x = b.op(add, x, b.op(linear(row), a, w("o", square)))
		h = b.op(norm(row), x, w("norm2", f32(constant(hidden))))
		m := b.op(mul, b.op(linear(wide), h, w("gate", up)), b.op(linear(wide), h, w("up", up)))
		x = b.op(add, x, b.op(linear(row), m, w("down", down)))
	}
	g := b.op(dynamic("gather_tokens", 2, CaptureAlways, f32(seqs, hidden)), x, last)
	g = b.op(norm(f32(seqs, hidden)), g, b.weight("norm", f32(constant(hidden))))
	b.output("logits", b.op(linear(f32(seqs, vocab)), g, b.weight("head", f32(constant(vocab), hidden))))
}
