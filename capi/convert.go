package main

// #include <stdlib.h>
// #include <adcg/adcg.h>
import "C"

import (
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/piecewise"
)

func goString(s *C.char) string {
	if s == nil {
		return ""
	}
	return C.GoString(s)
}

// putText copies s into a C array, cut to fit, with a NUL.
func putText(out []C.char, s string) {
	n := min(len(s), len(out)-1)
	for i := range n {
		out[i] = C.char(s[i])
	}
	out[n] = 0
}

func dimsOf(dims *C.adcg_dim, n C.int32_t) []piecewise.Dim {
	out := make([]piecewise.Dim, n)
	for i, d := range unsafe.Slice(dims, int(n)) {
		out[i] = piecewise.Dim{Tokens: int64(d.tokens), Seqs: int64(d.seqs), Constant: int64(d.constant)}
	}
	return out
}

func attrOf(a *C.adcg_attr) engine.Attr {
	out := engine.Attr{Name: goString(a.name), Type: piecewise.AttrType(a._type), Int: int64(a.i), Float: float64(a.f), String: goString(a.s)}
	if a.ints != nil {
		for _, v := range unsafe.Slice(a.ints, int(max(a.count, 0))) {
			out.Ints = append(out.Ints, int64(v))
		}
	}
	return out
}

func attrsOf(attrs *C.adcg_attr, n C.int32_t) []engine.Attr {
	out := make([]engine.Attr, n)
	for i := range out {
		out[i] = attrOf(&unsafe.Slice(attrs, int(n))[i])
	}
	return out
}

// opOf copies a schema; callbacks go along as addresses.
func opOf(s *C.adcg_op_schema, userData C.uintptr_t) engine.Op {
	op := engine.Op{
		OpSchema: piecewise.OpSchema{
			Name: goString(s.name), Doc: goString(s.doc), Kind: piecewise.OpKind(s.kind), Capture: piecewise.CaptureSupport(s.capture),
			Flags: uint32(s.flags), NumInputs: int(s.num_inputs), NumOptionalInputs: int(s.num_optional_inputs), NumOutputs: int(s.num_outputs),
			Mutates: uint64(s.mutates), StridedInputs: uint64(s.strided_inputs), StridedOutputs: uint64(s.strided_outputs),
		},
		Native: &engine.Native{
			Infer: uintptr(unsafe.Pointer(s.infer)), Workspace: uintptr(unsafe.Pointer(s.workspace)), Launch: uintptr(unsafe.Pointer(s.launch)),
			Part: uintptr(unsafe.Pointer(s.part)), UserData: uintptr(userData),
		},
	}
	for _, a := range unsafe.Slice(s.aliases, int(s.num_aliases)) {
		op.Aliases = append(op.Aliases, piecewise.Alias{Output: int(a.output), Input: int(a.input), Kind: piecewise.AliasKind(a.kind)})
	}
	specs := unsafe.Slice(s.attrs, int(s.num_attrs))
	for i := range specs {
		op.Attrs = append(op.Attrs, piecewise.AttrSpec{
			Default: attrOf(&specs[i].default_value), Required: specs[i].required != 0, Doc: goString(specs[i].doc),
		})
	}
	return op
}

func optionsOf(o *C.adcg_exec_options) (engine.ExecOptions, error) {
	mode, err := engine.ModeOf(int32(o.mode))
	if err != nil {
		return engine.ExecOptions{}, err
	}
	seconds := float64(o.plan_seconds)
	if !(seconds >= 0 && seconds <= 1e6) {
		return engine.ExecOptions{}, &engine.Error{Status: engine.ErrArgument, Message: fmt.Sprintf("options.plan_seconds: %g, must be 0 to 1e6", seconds)}
	}
	return engine.ExecOptions{
		Layout: piecewise.LayoutMode(o.layout), PlanNodes: int64(o.plan_nodes), PlanTimeout: time.Duration(seconds * float64(time.Second)),
		Mode: mode, Explicit: o.capture == C.ADCG_CAPTURE_EXPLICIT, Buckets: numbersOf(o.buckets, o.num_buckets),
		SeqBuckets: numbersOf(o.seq_buckets, o.num_seq_buckets), QueryLen: int64(o.query_len), Verify: o.verify != 0,
		CaptureMode: engine.CaptureMode(o.capture_mode), BatchInvariant: o.batch_invariant != 0,
	}, nil
}

func numbersOf(values *C.int64_t, n C.int32_t) []int64 {
	var out []int64
	for _, v := range unsafe.Slice(values, int(n)) {
		out = append(out, int64(v))
	}
	return out
}

func countsOf(histogram *C.adcg_step_count, n C.int32_t) []piecewise.StepCount {
	out := make([]piecewise.StepCount, n)
	for i, c := range unsafe.Slice(histogram, int(n)) {
		out[i] = piecewise.StepCount{Tokens: int64(c.tokens), Steps: int64(c.steps)}
	}
	return out
}

func budgetOf(b *C.adcg_ladder_budget) piecewise.LadderBudget {
	return piecewise.LadderBudget{
		MaxBuckets: int64(b.max_buckets), MaxTokens: int64(b.max_tokens), AllowEager: b.allow_eager != 0,
		Bytes: piecewise.Price{PerBucket: int64(b.bytes_per_bucket), PerToken: int64(b.bytes_per_token), Limit: int64(b.max_bytes)},
		Nanos: piecewise.Price{PerBucket: int64(b.ns_per_bucket), PerToken: int64(b.ns_per_token), Limit: int64(b.max_ns)},
	}
}

// giveLadder copies a ladder out, or its count alone if there is no array.
func giveLadder(ladder []int64, out *C.int64_t, capacity C.int32_t, outCount *C.int32_t) error {
	if out != nil && len(ladder) > int(capacity) {
		return &engine.Error{Status: engine.ErrArgument, Message: fmt.Sprintf("capacity: %d, the ladder has %d buckets", capacity, len(ladder))}
	}
	if out != nil {
		for i, b := range ladder {
			unsafe.Slice(out, len(ladder))[i] = C.int64_t(b)
		}
	}
	*outCount = C.int32_t(len(ladder))
	return nil
}

// lender owns the C memory that get_info functions lend until their object is destroyed: a block for each thing asked about.
type lender struct {
	mu      sync.Mutex
	pieces  []unsafe.Pointer
	ops     map[*piecewise.OpSchema]*C.adcg_op_info
	strings map[string]*C.char
}

// allocate is calloc; the caller holds the lock.
func (l *lender) allocate(n int, size uintptr) (unsafe.Pointer, error) {
	p := C.calloc(C.size_t(max(n, 1)), C.size_t(size))
	if p == nil {
		return nil, tape.ErrOutOfMemory
	}
	l.pieces = append(l.pieces, p)
	return p, nil
}

// text lends a string; the caller holds the lock.
func (l *lender) text(s string) (*C.char, error) {
	if p, ok := l.strings[s]; ok {
		return p, nil
	}
	p, err := l.allocate(len(s)+1, 1)
	if err != nil {
		return nil, err
	}
	copy(unsafe.Slice((*byte)(p), len(s)), s)
	if l.strings == nil {
		l.strings = make(map[string]*C.char)
	}
	l.strings[s] = (*C.char)(p)
	return (*C.char)(p), nil
}

func (l *lender) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pieces {
		C.free(p)
	}
	l.pieces, l.ops, l.strings = nil, nil, nil
}

func (l *lender) valueInfo(info piecewise.ValueInfo, out *C.adcg_value_info) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, err := l.text(info.Name)
	if err != nil {
		return err
	}
	out.name, out.role = name, C.int32_t(info.Role)
	out._type = C.adcg_type{dtype: C.adcg_dtype(info.Type.DType), ndim: C.int32_t(len(info.Type.Dims))}
	for i, d := range info.Type.Dims {
		out._type.dims[i] = C.adcg_dim{tokens: C.int64_t(d.Tokens), seqs: C.int64_t(d.Seqs), constant: C.int64_t(d.Constant)}
	}
	return nil
}

func (l *lender) opInfo(s *piecewise.OpSchema, out *C.adcg_op_info) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, ok := l.ops[s]
	if !ok {
		var err error
		if info, err = l.makeOpInfo(s); err != nil {
			return err
		}
		if l.ops == nil {
			l.ops = make(map[*piecewise.OpSchema]*C.adcg_op_info)
		}
		l.ops[s] = info
	}
	size := out.struct_size
	*out = *info
	out.struct_size = size
	return nil
}

func (l *lender) makeOpInfo(s *piecewise.OpSchema) (*C.adcg_op_info, error) {
	var failed error
	text := func(t string) *C.char {
		p, err := l.text(t)
		if err != nil {
			failed = err
		}
		return p
	}
	block, err := l.allocate(1, unsafe.Sizeof(C.adcg_op_info{}))
	if err != nil {
		return nil, err
	}
	specs, err := l.allocate(len(s.Attrs), unsafe.Sizeof(C.adcg_attr_spec{}))
	if err != nil {
		return nil, err
	}
	info := (*C.adcg_op_info)(block)
	info.name, info.doc = text(s.Name), text(s.Doc)
	info.kind, info.capture, info.flags = C.int32_t(s.Kind), C.int32_t(s.Capture), C.uint32_t(s.Flags)
	info.num_inputs, info.num_optional_inputs, info.num_outputs = C.int32_t(s.NumInputs), C.int32_t(s.NumOptionalInputs), C.int32_t(s.NumOutputs)
	info.mutates, info.num_attrs, info.attrs = C.uint64_t(s.Mutates), C.int32_t(len(s.Attrs)), (*C.adcg_attr_spec)(specs)
	for i, a := range s.Attrs {
		spec := &unsafe.Slice(info.attrs, len(s.Attrs))[i]
		d := &spec.default_value
		d.name, d._type, d.i, d.f, d.s = text(a.Default.Name), C.int32_t(a.Default.Type), C.int64_t(a.Default.Int), C.double(a.Default.Float), text(a.Default.String)
		if n := len(a.Default.Ints); n > 0 {
			ints, err := l.allocate(n, 8)
			if err != nil {
				return nil, err
			}
			for k, v := range a.Default.Ints {
				unsafe.Slice((*C.int64_t)(ints), n)[k] = C.int64_t(v)
			}
			d.ints, d.count = (*C.int64_t)(ints), C.int32_t(n)
		}
		spec.doc = text(a.Doc)
		if a.Required {
			spec.required = 1
		}
	}
	return info, failed
}
