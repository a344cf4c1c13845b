package piecewise

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLimits(t *testing.T) {
	g, err := NewGraph(Limits{MaxTokens: 512, MaxSeqs: 8})
	require.NoError(t, err)
	assert.Equal(t, int64(512), g.Limits.MaxSeqLen, "0 means max_tokens")
	for message, l := range map[string]Limits{
		"max_tokens: 0, must be 1 to 2147483647":          {0, 1, 1},
		"max_seqs: -1, must be 1 to 2147483647":           {1, -1, 1},
		"max_seqs: 2147483648, must be 1 to 2147483647":   {1, 1 << 31, 1},
		"max_seq_len: -3, must be 1 to 2147483647":        {1, 1, -3},
		"max_tokens: 2147483649, must be 1 to 2147483647": {1<<31 + 1, 1, 1},
	} {
		_, err := NewGraph(l)
		requireKind(t, err, ErrBatch, message)
	}
	_, err = NewGraph(Limits{math.MaxInt32, math.MaxInt32, math.MaxInt32})
	require.NoError(t, err)
}

func TestNamedValues(t *testing.T) {
	b := newBuild(t, 16, 4)
	x := b.input("x", f32(tokens, 8))
	w := b.weight("w", f32(constant(8), 8))
	s := b.state("s", f32(constant(8), 8))
	y := b.op(static("f", 3, f32(tokens, 8)), x, w, s)
	b.output("y", y)
	assert.Equal(t, []Value{x}, b.g.Inputs)
	assert.Equal(t, []Value{w, s}, b.g.Bound)
	assert.Equal(t, 1, b.g.Values[s].Slot)
	assert.Equal(t, "f#0", b.g.Values[y].Name)
	for name, want := range map[string]Value{"x": x, "w": w, "s": s, "y": y} {
		got, ok := b.g.Find(name)
		assert.True(t, ok)
		assert.Equal(t, want, got)
	}
	_, ok := b.g.Find("f#0")
	assert.False(t, ok, "activations have no name of the caller's")

	many := b.ops(&OpSchema{Name: "two", Kind: Static, NumInputs: 1, NumOutputs: 2, Infer: asInput(2)}, x)
	assert.Equal(t, "two#1.0", b.g.Values[many[0]].Name)
	assert.Equal(t, "two#1.1", b.g.Values[many[1]].Name)

	_, err := b.g.AddInput("w", f32(tokens))
	requireKind(t, err, ErrGraph, "input `w`: the name is taken")
	_, err = b.g.AddState("", f32(constant(1)))
	requireKind(t, err, ErrGraph, "state: the name is empty")
	requireKind(t, b.g.AddOutput("x", y), ErrGraph, "output `x`: the name is taken")
	requireKind(t, b.g.AddOutput("z", 99), ErrGraph, "output `z`: value 99: the graph has values 0 to 5")
	requireKind(t, b.g.AddOutput("z", -1), ErrGraph, "output `z`: value -1: the graph has values 0 to 5")
	_, err = b.g.AddWeight("v", f32(tokens))
	requireKind(t, err, ErrShape, "weight `v`: dim 0 is tokens, must be constant")
}

func TestTypes(t *testing.T) {
	b := newBuild(t, 16, 4)
	for _, e := range []struct {
		t       Type
		kind    ErrorKind
		message string
	}{
		{Type{DType: 99, Dims: []Dim{tokens}}, ErrDType, "input `x`: element type 99 is unknown"},
		{Type{DType: F32}, ErrShape, "input `x`: 0 dims, must be 1 to 8"},
		{f32(tokens, 1, 1, 1, 1, 1, 1, 1, 1), ErrShape, "input `x`: 9 dims, must be 1 to 8"},
		{f32(Dim{Tokens: -1, Constant: 64}), ErrShape, "input `x`: dim 0 is -1*tokens+64, its coefficients must not be negative"},
		{f32(Dim{Seqs: 1, Constant: -2}), ErrShape, "input `x`: dim 0 is seqs-2, which is -1 at 1 token and 1 sequence"},
		{Type{F32, []Dim{constant(2), tokens}}, ErrShape, "input `x`: dim 1 is tokens, only the first may depend on a count"},
		{f32(tokens, 0), ErrShape, "input `x`: dim 1 is 0, must be at least 1"},
		{f32(constant(-1)), ErrShape, "input `x`: dim 0 is -1, which is -1 at 1 token and 1 sequence"},
		{f32(tokens, 1<<42), ErrShape, "input `x`: float32[tokens, 4398046511104] has more than 2^46 bytes at 16 tokens and 4 sequences"},
		{f32(Dim{Tokens: math.MaxInt64}), ErrShape, "input `x`: dim 0 is 9223372036854775807*tokens, which is too large"},
		{f32(tokens, math.MaxInt64, math.MaxInt64), ErrShape, "input `x`: dim 1 is 9223372036854775807, which is too large"},
	} {
		_, err := b.g.AddInput("x", e.t)
		requireKind(t, err, e.kind, e.message)
	}
	assert.Empty(t, b.g.Values)
	b.input("x", f32(Dim{Tokens: 1, Constant: -1}, 4)) // empty at one token, and allowed
}

func TestTypesAreCopied(t *testing.T) {
	b := newBuild(t, 16, 4)
	ty := f32(tokens, 8)
	x := b.input("x", ty)
	answer := []Type{f32(tokens, 8)}
	y := b.op(&OpSchema{Name: "f", Kind: Static, NumInputs: 1, NumOutputs: 1, Infer: func([]Type, []Attr) ([]Type, error) { return answer, nil }}, x)
	ty.Dims[1].Constant, answer[0].Dims[1].Constant = 9, 9
	assert.Equal(t, f32(tokens, 8), b.g.Values[x].Type)
	assert.Equal(t, f32(tokens, 8), b.g.Values[y].Type)
}

func TestAddOp(t *testing.T) {
	b := newBuild(t, 16, 4)
	x, w := b.input("x", f32(tokens, 8)), b.weight("w", f32(constant(8)))
	s := b.state("s", f32(constant(8)))
	fails := func(op *OpSchema, inputs []Value, kind ErrorKind, message string) {
		t.Helper()
		nodes, values := len(b.g.Nodes), len(b.g.Values)
		_, err := b.g.AddOp(op, inputs, nil)
		requireKind(t, err, kind, message)
		assert.Len(t, b.g.Nodes, nodes)
		assert.Len(t, b.g.Values, values)
	}
	f := static("f", 2, f32(tokens))
	fails(f, []Value{x}, ErrGraph, "op `f#0`: 1 inputs, takes 2")
	f.NumOptionalInputs = 1
	fails(f, nil, ErrGraph, "op `f#0`: 0 inputs, takes 1 to 2")
	fails(f, []Value{x, w, w}, ErrGraph, "op `f#0`: 3 inputs, takes 1 to 2")
	fails(f, []Value{x, 3}, ErrGraph, "op `f#0`: input 1: value 3: the graph has values 0 to 2")
	fails(f, []Value{-1}, ErrGraph, "op `f#0`: input 0: value -1: the graph has values 0 to 2")
	b.op(f, x)
	b.op(f, x, w)

	write := dynamic("write", 3, CaptureNever, f32(tokens))
	write.Mutates = 1 << 2
	fails(write, []Value{x, x, w}, ErrGraph, "op `write#2` writes input 2 (`w`), which is a weight: only states may be written")
	fails(write, []Value{x, x, x}, ErrGraph, "op `write#2` writes input 2 (`x`), which is an input: only states may be written")
	fails(write, []Value{x, s, s}, ErrGraph, "op `write#2` writes input 2 (`s`), which is input 1 as well")
	seen := b.op(aliased(static("reshape", 1, f32(constant(2), 4)), view(0, 0)), s)
	fails(write, []Value{x, seen, s}, ErrGraph, "op `write#3` writes input 2 (`s`), which is input 1 as well")
	fails(write, []Value{x, x, seen}, ErrGraph, "op `write#3` writes input 2 (`reshape#2`), which is an activation: only states may be written")
	write.Mutates = 1<<1 | 1<<2
	fails(write, []Value{x, s, s}, ErrGraph, "op `write#3` writes input 1 (`s`), which is input 2 as well")
	b.op(write, x, s, b.state("s2", f32(constant(8))))

	late := aliased(static("late", 2, f32(tokens)), view(0, 1))
	late.NumOptionalInputs = 1
	fails(late, []Value{x}, ErrGraph, "op `late#4`: output 0 is a view of input 1, which was left out")
	fails(aliased(static("grow", 1, f32(tokens, 9)), view(0, 0)), []Value{x}, ErrShape,
		"op `grow#4`: output 0, float32[tokens, 9], is a view of `x`, float32[tokens, 8], which is smaller")
	fails(aliased(static("cross", 1, f32(seqs, 8)), view(0, 0)), []Value{x}, ErrShape,
		"op `cross#4`: output 0, float32[seqs, 8], is a view of `x`, float32[tokens, 8], which is smaller")
	fails(static("bad", 1, f32(tokens, 0)), []Value{x}, ErrShape, "op `bad#4`: output 0: dim 1 is 0, must be at least 1")
	few := static("few", 1, f32(tokens))
	few.NumOutputs = 2
	fails(few, []Value{x}, ErrOp, "op `few#4`: infer gave 1 outputs, the op has 2")
	fails(nil, nil, ErrArgument, "schema: nil")

	refuse := static("refuse", 1, Type{})
	refuse.Infer = func([]Type, []Attr) ([]Type, error) { return nil, Errorf(ErrDType, "x: int32, must be float32") }
	fails(refuse, []Value{x}, ErrDType, "op `refuse#4`: x: int32, must be float32")
	theirs := errors.New("no such thing")
	refuse.Infer = func([]Type, []Attr) ([]Type, error) { return nil, theirs }
	_, err := b.g.AddOp(refuse, []Value{x}, nil)
	require.ErrorIs(t, err, theirs)
	require.EqualError(t, err, "op `refuse#4`: no such thing")
}

func TestAttributes(t *testing.T) {
	b := newBuild(t, 16, 4)
	x := b.input("x", f32(tokens, 8))
	s := static("f", 1, f32(tokens, 8))
	s.Attrs = []AttrSpec{
		{Default: Attr{Name: "heads", Type: AttrInt}, Required: true},
		{Default: Attr{Name: "eps", Type: AttrFloat, Float: 1e-5}},
		{Default: Attr{Name: "flag", Type: AttrBool, Int: 1}},
		{Default: Attr{Name: "mode", Type: AttrString, String: "none"}},
		{Default: Attr{Name: "dims", Type: AttrInts, Ints: []int64{1, 2}}},
	}
	heads := Attr{Name: "heads", Type: AttrInt, Int: 4}
	for _, e := range []struct {
		attrs   []Attr
		message string
	}{
		{nil, "op `f#0`: attribute `heads`: missing"},
		{[]Attr{heads, {Name: "head", Type: AttrInt}}, "op `f#0`: attribute `head`: unknown"},
		{[]Attr{heads, heads}, "op `f#0`: attribute `heads`: given twice"},
		{[]Attr{{Name: "heads", Type: AttrFloat, Float: 4}}, "op `f#0`: attribute `heads`: type float, must be int"},
		{[]Attr{heads, {Name: "flag", Type: AttrInt, Int: 1}}, "op `f#0`: attribute `flag`: type int, must be bool"},
		{[]Attr{heads, {Name: "flag", Type: AttrBool, Int: 2}}, "op `f#0`: attribute `flag`: 2, must be 0 or 1"},
		{[]Attr{heads, {Name: "dims", Type: AttrInt, Int: 2}}, "op `f#0`: attribute `dims`: type int, must be ints"},
	} {
		_, err := b.g.AddOp(s, []Value{x}, e.attrs)
		requireKind(t, err, ErrAttribute, e.message)
	}
	dims := []int64{7}
	_, err := b.g.AddOp(s, []Value{x}, []Attr{{Name: "dims", Type: AttrInts, Ints: dims}, {Name: "eps", Type: AttrInt, Int: 3}, heads})
	require.NoError(t, err)
	dims[0] = 8
	assert.Equal(t, []Attr{heads, {Name: "eps", Type: AttrFloat, Float: 3}, {Name: "flag", Type: AttrBool, Int: 1},
		{Name: "mode", Type: AttrString, String: "none"}, {Name: "dims", Type: AttrInts, Ints: []int64{7}}}, b.g.Nodes[0].Attrs)
}

func TestValidateSchema(t *testing.T) {
	good := func() *OpSchema { return dynamic("f", 3, CaptureNever, f32(tokens)) }
	require.NoError(t, ValidateSchema(good()))
	for message, change := range map[string]func(*OpSchema){
		"op: the name is empty":                                           func(s *OpSchema) { s.Name = "" },
		"op `f`: num_inputs: 65, must be 0 to 64":                         func(s *OpSchema) { s.NumInputs = 65 },
		"op `f`: num_inputs: -1, must be 0 to 64":                         func(s *OpSchema) { s.NumInputs = -1 },
		"op `f`: num_optional_inputs: 4, must be 0 to 3":                  func(s *OpSchema) { s.NumOptionalInputs = 4 },
		"op `f`: num_outputs: -1, must be 0 to 64":                        func(s *OpSchema) { s.NumOutputs = -1 },
		"op `f`: num_outputs: 0, and it writes no state: it does nothing": func(s *OpSchema) { s.NumOutputs = 0 },
		"op `f`: mutates: bit 3, but it has 3 inputs":                     func(s *OpSchema) { s.Mutates = 1 << 3 },
		"op `f`: flags: 0x20 are unknown":                                 func(s *OpSchema) { s.Flags = 1 << 5 },
		"op `f`: neither infer nor discover":                              func(s *OpSchema) { s.Infer = nil },
		"op `f`: both infer and discover": func(s *OpSchema) {
			s.Discover = func([]Shape, []Attr, int64, int64) ([]Shape, error) { return nil, nil }
		},
		"op `f`: aliases[0]: output 1, but it has 1":                                              func(s *OpSchema) { aliased(s, view(1, 0)) },
		"op `f`: aliases[0]: input 3, but it has 3":                                               func(s *OpSchema) { aliased(s, view(0, 3)) },
		"op `f`: aliases[0]: kind 5, must be 1 to 4":                                              func(s *OpSchema) { aliased(s, Alias{0, 0, 5}) },
		"op `f`: aliases[1]: output 0 shares memory in two ways":                                  func(s *OpSchema) { aliased(s, view(0, 0), inPlace(0, 0)) },
		"op `f`: aliases[1]: output 0 shows two inputs":                                           func(s *OpSchema) { aliased(s, view(0, 0), view(0, 1)) },
		"op `f`: aliases[0]: output 0 and input 1 are parts of each other, and part is not given": func(s *OpSchema) { aliased(s, Alias{0, 1, AliasPart}) },
		"op `f`: aliases[0]: parts are for static ops, this one is dynamic": func(s *OpSchema) {
			s.Kind, s.Part = Dynamic, func(int, []Type, []Type, []Attr) (Part, error) { return Part{}, nil }
			aliased(s, Alias{0, 1, AliasJoin})
		},
		"op `f`: strided_inputs: bit 3, but it has 3 inputs":                                       func(s *OpSchema) { s.StridedInputs = 1 << 3 },
		"op `f`: strided_outputs: bit 1, but it has 1 outputs":                                     func(s *OpSchema) { s.StridedOutputs = 1 << 1 },
		"op `f`: aliases[2]: output 0 and input 1 are given twice":                                 func(s *OpSchema) { aliased(s, inPlace(0, 1), inPlace(0, 0), inPlace(0, 1)) },
		"op `f`: aliases[0]: output 0 shares memory with input 2, which is a state that it writes": func(s *OpSchema) { s.Mutates = 4; aliased(s, inPlace(0, 2)) },
		"op `f`: attrs[0]: the name is empty":                                                      func(s *OpSchema) { s.Attrs = []AttrSpec{{}} },
		"op `f`: attribute `a`: type 6, must be 1 to 5":                                            func(s *OpSchema) { s.Attrs = []AttrSpec{{Default: Attr{Name: "a", Type: 6}}} },
		"op `f`: attribute `a`: twice":                                                             func(s *OpSchema) { a := AttrSpec{Default: Attr{Name: "a", Type: AttrInt}}; s.Attrs = []AttrSpec{a, a} },
		"op `f`: attribute `a`: default 2, must be 0 or 1":                                         func(s *OpSchema) { s.Attrs = []AttrSpec{{Default: Attr{Name: "a", Type: AttrBool, Int: 2}}} },
	} {
		s := good()
		change(s)
		requireKind(t, ValidateSchema(s), ErrArgument, message)
	}
	s := good()
	s.Kind = 0
	requireKind(t, ValidateSchema(s), ErrArgument, "op `f`: kind: 0, must be 1 to 3")
	s = good()
	s.Capture = 4
	requireKind(t, ValidateSchema(s), ErrArgument, "op `f`: capture: 4, must be 0 to 3")
}

func TestFreeze(t *testing.T) {
	fails := func(kind ErrorKind, message string, make func(b *build)) {
		t.Helper()
		b := newBuild(t, 16, 4)
		make(b)
		before := append([]ValueInfo(nil), b.g.Values...)
		requireKind(t, b.g.Freeze(), kind, message)
		assert.False(t, b.g.Frozen)
		assert.Equal(t, before, b.g.Values)
	}
	id := func() *OpSchema { return static("f", 1, f32(tokens)) }
	fails(ErrGraph, "graph: it has no outputs", func(b *build) { b.op(id(), b.input("x", f32(tokens))) })
	fails(ErrGraph, "value `f#1` of op `f#1` is never used", func(b *build) {
		x := b.input("x", f32(tokens))
		b.output("y", b.op(id(), x))
		b.op(id(), x)
	})
	for role, add := range map[string]func(b *build){
		"input": func(b *build) { b.input("idle", f32(tokens)) }, "weight": func(b *build) { b.weight("idle", f32(constant(1))) },
		"state": func(b *build) { b.state("idle", f32(constant(1))) },
	} {
		fails(ErrGraph, role+" `idle` is never used", func(b *build) {
			add(b)
			b.output("y", b.op(id(), b.input("x", f32(tokens))))
		})
	}
	fails(ErrGraph, "op `w#0` is static and writes state `s`: only dynamic ops may write", func(b *build) {
		w := static("w", 2, f32(tokens))
		w.Mutates = 2
		b.output("y", b.op(w, b.input("x", f32(tokens)), b.state("s", f32(constant(1)))))
	})

	b := newBuild(t, 16, 4) // the second output is idle, and an op without outputs writes a state
	x, s := b.input("x", f32(tokens)), b.state("s", f32(constant(1)))
	b.output("y", b.ops(&OpSchema{Name: "two", Kind: Static, NumInputs: 1, NumOutputs: 2, Infer: asInput(2)}, x)[0])
	assert.Empty(t, b.ops(&OpSchema{Name: "put", Kind: Dynamic, NumInputs: 2, Mutates: 2, Infer: asInput(0)}, x, s))
	b.freeze()
	requireKind(t, b.g.Freeze(), ErrState, "graph: frozen already")
	requireKind(t, b.g.AddOutput("z", x), ErrState, "graph: frozen already")
	_, err := b.g.AddInput("z", f32(tokens))
	requireKind(t, err, ErrState, "graph: frozen already")
	_, err = b.g.AddOp(id(), []Value{x}, nil)
	requireKind(t, err, ErrState, "graph: frozen already")
}

func TestDemotion(t *testing.T) {
	for flags, why := range map[uint32]string{FlagHostSync: "host sync", FlagStreamSwitch: "stream switch", FlagHostSync | FlagStreamSwitch: "host sync and stream switch"} {
		b := newBuild(t, 16, 4)
		s := static("f", 2, f32(tokens))
		s.Flags, s.Capture = flags|FlagRowWise, CaptureAlways
		s.Mutates = 2 // a demoted op is dynamic, and may write
		b.output("y", b.op(s, b.input("x", f32(tokens)), b.state("s", f32(constant(1)))))
		p := b.plan(Options{Mode: ModeFullAndPiecewise})
		n := p.Graph.Nodes[0]
		assert.Equal(t, Dynamic, n.Kind)
		assert.Equal(t, CaptureNever, n.Capture)
		assert.Equal(t, why, n.Note)
		assert.Equal(t, CaptureNever, p.Graph.Support())
		assert.Equal(t, []Partition{{DynamicOp, 0, 1, why}}, p.Partitions)
		assert.Equal(t, Static, s.Kind, "the schema is another's")
	}
}

func TestSupportIsTheLeast(t *testing.T) {
	b := newBuild(t, 16, 4)
	x := b.op(static("f", 1, f32(tokens)), b.input("x", f32(tokens)))
	assert.Equal(t, CaptureAlways, b.g.Support())
	for _, c := range []CaptureSupport{CaptureAlways, CaptureUniformBatch, CaptureAlways, CaptureUniformDecode, CaptureNever} {
		x = b.op(dynamic("d", 1, c, f32(tokens)), x)
	}
	assert.Equal(t, CaptureNever, b.g.Support())
	b.g.Nodes = b.g.Nodes[:5]
	assert.Equal(t, CaptureUniformDecode, b.g.Support())
	b.g.Nodes = b.g.Nodes[:4]
	assert.Equal(t, CaptureUniformBatch, b.g.Support())
}
