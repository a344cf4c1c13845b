// Package piecewise is the control plane's pure part: graph types, validation, splitting, buckets and the choice of them,
// lifetimes, the arena plan and its checker. It imports the standard library alone, allocates no device memory and calls
// no C.
package piecewise

import (
	"fmt"
	"strings"
)

// DType is an element type. The numbers are those of adcg_dtype.
type DType int32

// Element types.
const (
	F32    DType = 1
	F16    DType = 2
	BF16   DType = 3
	F8E4M3 DType = 4
	I32    DType = 5
	I64    DType = 6
	U8     DType = 7
	Bool   DType = 8
)

var dtypes = [...]struct {
	name string
	size int64
}{
	F32: {"float32", 4}, F16: {"float16", 2}, BF16: {"bfloat16", 2}, F8E4M3: {"float8_e4m3fn", 1},
	I32: {"int32", 4}, I64: {"int64", 8}, U8: {"uint8", 1}, Bool: {"bool", 1},
}

// Size is one element's size in bytes; 0 for a number that is no element type.
func (t DType) Size() int64 {
	if t < 0 || int(t) >= len(dtypes) {
		return 0
	}
	return dtypes[t].size
}

func (t DType) String() string {
	if t.Size() > 0 {
		return dtypes[t].name
	}
	return fmt.Sprintf("dtype(%d)", int32(t))
}

// Dim is one extent of a shape: Tokens*(token count) + Seqs*(sequence count) + Constant, in elements.
type Dim struct{ Tokens, Seqs, Constant int64 }

// At is the extent at a size.
func (d Dim) At(tokens, seqs int64) int64 { return d.Tokens*tokens + d.Seqs*seqs + d.Constant }

// IsConstant tells whether the extent depends on no count.
func (d Dim) IsConstant() bool { return d.Tokens == 0 && d.Seqs == 0 }

// String prints the dim as a formula: "tokens", "2*tokens+1", "64".
func (d Dim) String() string {
	var parts []string
	for _, term := range []struct {
		factor int64
		name   string
	}{{d.Tokens, "tokens"}, {d.Seqs, "seqs"}} {
		switch term.factor {
		case 0:
		case 1:
			parts = append(parts, term.name)
		default:
			parts = append(parts, fmt.Sprintf("%d*%s", term.factor, term.name))
		}
	}
	if d.Constant != 0 || len(parts) == 0 {
		parts = append(parts, fmt.Sprint(d.Constant))
	}
	return strings.ReplaceAll(strings.Join(parts, "+"), "+-", "-")
}

// MaxNDim is the most dims that a value may have.
const MaxNDim = 8

// Type is the type of a value: element type and symbolic shape. Only Dims[0] may depend on a count.
type Type struct {
	DType DType
	Dims  []Dim
}

// At is the concrete shape at a size.
func (t Type) At(tokens, seqs int64) Shape {
	s := Shape{DType: t.DType, Dims: make([]int64, len(t.Dims))}
	for i, d := range t.Dims {
		s.Dims[i] = d.At(tokens, seqs)
	}
	return s
}

// Bytes is the size of a compact tensor of this type, at a size.
func (t Type) Bytes(tokens, seqs int64) int64 {
	n := t.DType.Size()
	for _, d := range t.Dims {
		n *= d.At(tokens, seqs)
	}
	return n
}

// RowBytes is the size of one row: everything behind the first dim.
func (t Type) RowBytes() int64 {
	n := t.DType.Size()
	for _, d := range t.Dims[1:] {
		n *= d.Constant
	}
	return n
}

// Equal tells whether two types are the same.
func (t Type) Equal(u Type) bool {
	if t.DType != u.DType || len(t.Dims) != len(u.Dims) {
		return false
	}
	for i := range t.Dims {
		if t.Dims[i] != u.Dims[i] {
			return false
		}
	}
	return true
}

// String prints "float32[tokens, 64]".
func (t Type) String() string {
	dims := make([]string, len(t.Dims))
	for i, d := range t.Dims {
		dims[i] = d.String()
	}
	return t.DType.String() + "[" + strings.Join(dims, ", ") + "]"
}

// Shape is a concrete type: a Type at some size.
type Shape struct {
	DType DType
	Dims  []int64
}

// Value is a tensor of one graph: an index into Graph.Values.
type Value int32

// Role says whose memory a value is.
type Role int32

// Roles of values.
const (
	RoleInput      Role = 1 // the caller's, given at each replay
	RoleWeight     Role = 2 // the caller's, bound, read only
	RoleState      Role = 3 // the caller's, bound, read and written
	RoleActivation Role = 4 // the arena's, or an output buffer of the caller's
)

// AttrType is the type of an attribute.
type AttrType int32

// Types of attributes.
const (
	AttrInt    AttrType = 1
	AttrFloat  AttrType = 2
	AttrBool   AttrType = 3
	AttrString AttrType = 4
	AttrInts   AttrType = 5
)

func (t AttrType) String() string {
	if t >= AttrInt && t <= AttrInts {
		return [...]string{"int", "float", "bool", "string", "ints"}[t-1]
	}
	return fmt.Sprintf("attr type(%d)", int32(t))
}

// Attr is a named attribute; Type says which of the last four fields counts (Int holds a Bool as 0 or 1).
type Attr struct {
	Name   string
	Type   AttrType
	Int    int64
	Float  float64
	String string
	Ints   []int64
}

// AttrSpec is what a schema says of one attribute.
type AttrSpec struct {
	Default  Attr // name, type, and the value taken when it is left out
	Required bool
	Doc      string
}

// OpKind tells how an op relates to the batch.
type OpKind int32

// Kinds of ops.
const (
	Static   OpKind = 1 // a pure function of its shapes
	Dynamic  OpKind = 2 // looks at the batch
	Metadata OpKind = 3 // dynamic, and prepares index tensors of bounded size
)

func (k OpKind) String() string {
	if k >= Static && k <= Metadata {
		return [...]string{"static", "dynamic", "metadata"}[k-1]
	}
	return fmt.Sprintf("kind(%d)", int32(k))
}

// CaptureSupport says which batches a dynamic op may be captured for; a larger one covers more.
type CaptureSupport int32

// Capture support, in the words that vLLM's users know.
const (
	CaptureNever         CaptureSupport = 0
	CaptureUniformDecode CaptureSupport = 1 // every sequence has one token
	CaptureUniformBatch  CaptureSupport = 2 // every sequence has the same count of tokens
	CaptureAlways        CaptureSupport = 3 // the launch depends on shapes alone
)

func (c CaptureSupport) String() string {
	if c >= CaptureNever && c <= CaptureAlways {
		return [...]string{"never", "uniform_decode", "uniform_batch", "always"}[c]
	}
	return fmt.Sprintf("capture(%d)", int32(c))
}

// Flags of ops; the numbers are those of adcg.h.
const (
	FlagHostSync     uint32 = 1 << 0 // a static op with it is demoted to dynamic
	FlagStreamSwitch uint32 = 1 << 1 // likewise
	FlagZeroesTail   uint32 = 1 << 2
	FlagParametric   uint32 = 1 << 3
	FlagRowWise      uint32 = 1 << 4
)

// AliasKind says how an output may share memory with an input.
type AliasKind int32

// Kinds of aliases.
const (
	AliasView    AliasKind = 1 // always the input's memory: nothing to run
	AliasInPlace AliasKind = 2 // may overwrite the input at the input's last use
	AliasPart    AliasKind = 3 // the output may be given as a part of the input: then there is nothing to copy
	AliasJoin    AliasKind = 4 // the input may be given as a part of the output: likewise
)

// Alias lets one output share memory with one input.
type Alias struct {
	Output, Input int
	Kind          AliasKind
}

// Part is where a part of a tensor lies: its elements stand along Axis from Start on, as many as its own extent there.
type Part struct {
	Axis  int
	Start int64
}

// OpSchema is all that the planner knows of an op. Exactly one of Infer and Discover is set.
type OpSchema struct {
	Name              string
	Doc               string
	Kind              OpKind
	Capture           CaptureSupport
	Flags             uint32
	NumInputs         int
	NumOptionalInputs int // how many of the last inputs may be left out
	NumOutputs        int
	Mutates           uint64 // bit i: input i is written; it must be a state
	Aliases           []Alias
	Attrs             []AttrSpec
	StridedInputs     uint64 // bit i: input i may have strides, as parts of tensors have; its last dim's is 1
	StridedOutputs    uint64 // bit k: output k likewise

	// Infer gives the outputs' types. Attributes stand in the schema's order, complete with defaults.
	Infer func(inputs []Type, attrs []Attr) ([]Type, error)
	// Discover gives the outputs' concrete shapes at one size; Freeze fits an affine form to a few of them.
	Discover func(inputs []Shape, attrs []Attr, tokens, seqs int64) ([]Shape, error)
	// Part says where the part of an AliasPart or AliasJoin lies; alias is its index in Aliases. Nil if there is none.
	Part func(alias int, inputs, outputs []Type, attrs []Attr) (Part, error)
	// Workspace gives the bytes of scratch at one size; nil means none.
	Workspace func(inputs, outputs []Shape, attrs []Attr, tokens, seqs int64) (int64, error)
}

// ErrorKind sorts errors so that the engine can map them to statuses in one place.
type ErrorKind int

// Kinds of errors.
const (
	ErrGraph     ErrorKind = iota + 1 // the graph is not valid
	ErrShape                          // rank or dims do not fit
	ErrDType                          // element type does not fit
	ErrAttribute                      // unknown, missing, of the wrong type or out of range
	ErrState                          // right call, wrong time
	ErrBatch                          // limits
	ErrArgument                       // options that cannot be meant
	ErrNotFound                       // no such value
	ErrInternal                       // a plan that the checker refused
	ErrOp                             // an op's callback broke its contract
)

// Error is an error of this package: "what: value", to which the caller puts the function's name.
type Error struct {
	Kind    ErrorKind
	Message string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(kind ErrorKind, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// OnlyViews tells whether an op has nothing to run: every output is its input's memory, and it writes no state. An op
// that writes a state and gives it back as a view has something to run.
func OnlyViews(s *OpSchema) bool {
	views := 0
	for _, a := range s.Aliases {
		if a.Kind == AliasView {
			views++
		}
	}
	return s.NumOutputs > 0 && views == s.NumOutputs && s.Mutates == 0
}
