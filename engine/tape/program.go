package tape

// #include <stdlib.h>
// #include "callback.h"
import "C"

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"github.com/libadcg/libadcg/piecewise"
)

// Impl is how a node's op runs: addresses of C functions and of what they are given.
type Impl struct {
	Launch    uintptr // adcg_op_launch_fn; 0 only where there is nothing to run
	Workspace uintptr // adcg_op_workspace_fn; 0: none
	UserData  uintptr // of both; for a built-in op 0: it gets Context and State instead
	BuiltIn   bool
	Context   uintptr // of a built-in op: the device's
	State     uintptr // of a built-in op: this node's

	ZeroesTail bool // it zeroes rows [real, bucket) of its outputs itself
	Parametric bool // it launches kernels through the launcher alone, the same ones in every step of a size
}

// Spec is all that a data plane is made of.
type Spec struct {
	Plan       *piecewise.Plan
	Impls      []Impl // per node
	DeviceType int32  // DLDeviceType
	DeviceID   int32
	Device     uintptr // its tape_device; 0: the host's
	Arena      uintptr // 0: only to measure
	ArenaHeld  int64   // bytes of it that have memory behind them
	Batch      uintptr // where the device keeps a step's counts; 0 on the host
	Explicit   bool    // capture policy
	Verify     bool
	Capture    int32 // ADCG_CAPTURE_MODE_*
}

// New writes the tables of an exec into one block of C memory.
func New(spec Spec) (*Exec, error) {
	var measure block
	if _, err := write(&measure, spec); err != nil {
		return nil, err
	}
	base := C.calloc(1, C.size_t(measure.used))
	if base == nil {
		return nil, ErrOutOfMemory
	}
	b := &block{base: base}
	c, err := write(b, spec)
	if err == nil && b.used != measure.used {
		err = fmt.Errorf("program: measured %d bytes, wrote %d", measure.used, b.used)
	}
	if err != nil {
		C.free(base)
		return nil, err
	}
	c.program_bytes = C.int64_t(b.used)
	return &Exec{c: c, program: base}, nil
}

// Open makes the exec's stream and allocates the two units that serve every size; the thread is locked. On failure the exec is to
// be freed; the message of a status is LastError's.
func (e *Exec) Open() (int32, error) {
	if status := int32(C.tape_open_streams(e.c)); status != 0 {
		return status, nil
	}
	e.c.eager = C.tape_unit_create(e.c, C.TAPE_ALL, 1, 1)
	e.c.dynamic = C.tape_unit_create(e.c, C.TAPE_DYNAMIC, 1, 1)
	if e.c.eager == nil || e.c.dynamic == nil {
		return 0, ErrOutOfMemory
	}
	return 0, nil
}

// MetadataBytes is the size of the tables.
func (e *Exec) MetadataBytes() int64 { return int64(e.c.program_bytes) }

// TapeBytes is the size of all tapes, once every bucket is captured.
func (e *Exec) TapeBytes() int64 {
	n := C.tape_unit_bytes(e.c, C.TAPE_ALL) + C.tape_unit_bytes(e.c, C.TAPE_DYNAMIC)
	for i := range unsafe.Slice(e.c.buckets, int(e.c.num_buckets)) {
		n += C.tape_unit_bytes(e.c, C.tape_bucket_kind(&unsafe.Slice(e.c.buckets, int(e.c.num_buckets))[i].size))
	}
	return int64(n)
}

// GraphKernels is how many kernels each captured graph holds, if an op is one, on a device that captures: tails are zeroed by others.
func (e *Exec) GraphKernels() []int {
	partitions := unsafe.Slice(e.c.partitions, int(e.c.num_partitions))
	kernels := make([]int, len(partitions))
	total := 0
	for _, n := range unsafe.Slice(e.c.nodes, int(e.c.num_nodes)) {
		if n.skip != 0 {
			continue
		}
		launches := 1
		if n.dynamic != 0 && n.zeroes_tail == 0 {
			launches += int(n.num_outputs)
		}
		kernels[n.partition] += launches
		total += launches
	}
	var graphs []int
	for i := range unsafe.Slice(e.c.buckets, int(e.c.num_buckets)) {
		kind := C.tape_bucket_kind(&unsafe.Slice(e.c.buckets, int(e.c.num_buckets))[i].size)
		if kind == C.TAPE_ALL && total > 0 {
			graphs = append(graphs, total)
		}
		for p, k := range partitions {
			if k == kind && kernels[p] > 0 {
				graphs = append(graphs, kernels[p])
			}
		}
	}
	return graphs
}

func numbers[T ~int32](b *block, values []T) *C.int32_t {
	out := array[C.int32_t](b, len(values))
	for i, v := range values {
		out[i] = C.int32_t(v)
	}
	return first(out)
}

func flag(set bool) C.int32_t {
	if set {
		return 1
	}
	return 0
}

func write(b *block, spec Spec) (*C.tape_exec, error) {
	plan := spec.Plan
	g := plan.Graph
	e := &array[C.tape_exec](b, 1)[0]
	e.max_tokens, e.max_seqs, e.max_seq_len = C.int64_t(g.Limits.MaxTokens), C.int64_t(g.Limits.MaxSeqs), C.int64_t(g.Limits.MaxSeqLen)
	e.mode, e.policy = C.int32_t(plan.Options.Mode), flag(spec.Explicit)
	e.verify, e.query_len = flag(spec.Verify), C.int64_t(plan.Options.QueryLen)
	e.device.device_type, e.device.device_id = C.DLDeviceType(spec.DeviceType), C.int32_t(spec.DeviceID)
	e.on = C.tape_device_of(C.uintptr_t(spec.Device))
	e.arena, e.arena_bytes = (*C.char)(C.tape_pointer(C.uintptr_t(spec.Arena))), C.int64_t(plan.ArenaBytes)
	if !b.measuring() {
		C.tape_set_held(e, C.int64_t(spec.ArenaHeld))
	}
	e.device_batch = (*C.adcg_batch)(C.tape_pointer(C.uintptr_t(spec.Batch)))
	e.capture_mode = C.int32_t(spec.Capture)

	writeLayouts(b, e, plan)
	writeValues(b, e, plan)
	if err := writeNodes(b, e, spec); err != nil {
		return nil, err
	}
	writePorts(b, e, plan)
	writeBuckets(b, e, plan)

	io := len(g.Inputs) + len(g.Outputs)
	e.bound = first(array[C.tape_bound](b, len(g.Bound)))
	e.num_unbound = C.int32_t(len(g.Bound))
	e.slots = first(array[unsafe.Pointer](b, io))
	e.moved = first(array[C.int64_t](b, io))
	e.checked = first(array[C.tape_checked](b, io))
	e.generation = 1
	e.memo.ports = first(array[C.DLTensor](b, io))
	e.memo.rows = first(array[C.int64_t](b, io))
	if spec.Verify {
		e.verify_hashes = first(array[C.uint64_t](b, len(g.Values)))
		e.verify_producers = first(array[C.int32_t](b, len(g.Values)))
		if spec.Device != 0 {
			e.verify_scratch = (*C.char)(unsafe.Pointer(first(array[byte](b, int(largestValue(plan))))))
		}
	}
	return e, nil
}

// lastReaders gives the last node that reads each value, as verify mode needs it: through views and in-place outputs a
// value's memory lives on, but the value itself is read no more. len(Nodes): the caller reads it; -1: nobody.
func lastReaders(g *piecewise.Graph) []int {
	last := make([]int, len(g.Values))
	for i := range last {
		last[i] = -1
	}
	for n, node := range g.Nodes {
		for _, v := range node.Inputs {
			last[v] = n
		}
	}
	for _, o := range g.Outputs {
		last[o.Value] = len(g.Nodes)
	}
	return last
}

// largestValue is how many bytes from its first to its last one a value has at most, in any step.
func largestValue(plan *piecewise.Plan) (most int64) {
	limits := plan.Graph.Limits
	for i, v := range plan.Graph.Values {
		rows := v.Type.Dims[0].At(limits.MaxTokens, limits.MaxSeqs)
		bytes := rows * v.Type.RowBytes()
		if s := plan.Storage[i].Strides; s != (piecewise.Strides{}) && rows > 0 {
			last := (rows - 1) * int64(s[0])
			for d := 1; d < len(v.Type.Dims); d++ {
				last += (v.Type.Dims[d].Constant - 1) * int64(s[d])
			}
			bytes = (last + 1) * v.Type.DType.Size()
		}
		most = max(most, bytes)
	}
	return most
}

func writeLayouts(b *block, e *C.tape_exec, plan *piecewise.Plan) {
	layouts := array[C.tape_layout](b, len(plan.Layouts))
	for k, l := range plan.Layouts {
		offsets, bytes := array[C.int64_t](b, len(l.Offsets)), array[C.int64_t](b, len(l.Bytes))
		for i := range offsets {
			offsets[i], bytes[i] = C.int64_t(l.Offsets[i]), C.int64_t(l.Bytes[i])
		}
		layouts[k].max_tokens, layouts[k].offsets, layouts[k].bytes = C.int64_t(l.MaxTokens), first(offsets), first(bytes)
	}
	e.layouts, e.num_layouts = first(layouts), C.int32_t(len(layouts))
}

func writeValues(b *block, e *C.tape_exec, plan *piecewise.Plan) {
	g := plan.Graph
	last := lastReaders(g)
	values := array[C.tape_value](b, len(g.Values))
	for i, v := range g.Values {
		out := &values[i]
		out.name = cString(text(b, v.Name))
		fillType(&out._type, v.Type)
		out.row_bytes = C.int64_t(v.Type.RowBytes())
		s := plan.Storage[i]
		out.place, out.index, out.offset = C.int32_t(s.Place), C.int32_t(s.Index), C.int64_t(s.Offset)
		if s.Strides != (piecewise.Strides{}) {
			strides := array[C.int64_t](b, len(v.Type.Dims))
			for d := range strides {
				strides[d] = C.int64_t(s.Strides[d])
			}
			out.strides = first(strides)
		}
		out.role, out.last = C.int32_t(v.Role), C.int32_t(last[i])
	}
	e.values, e.num_values = first(values), C.int32_t(len(values))
}

func writeNodes(b *block, e *C.tape_exec, spec Spec) error {
	g := spec.Plan.Graph
	partitionOf := make([]int, len(g.Nodes))
	kinds := make([]piecewise.PartitionKind, len(spec.Plan.Partitions))
	for p, part := range spec.Plan.Partitions {
		kinds[p] = part.Kind
		for n := part.First; n < part.End; n++ {
			partitionOf[n] = p
		}
	}
	e.partitions, e.num_partitions = numbers(b, kinds), C.int32_t(len(kinds))

	nodes := array[C.tape_node](b, len(g.Nodes))
	for i, n := range g.Nodes {
		out, impl := &nodes[i], spec.Impls[i]
		out.name = cString(text(b, n.Name))
		out.inputs, out.num_inputs = numbers(b, n.Inputs), C.int32_t(len(n.Inputs))
		out.outputs, out.num_outputs = numbers(b, n.Outputs), C.int32_t(len(n.Outputs))
		attrs := fillAttrs(b, n.Attrs)
		out.attrs, out.num_attrs = first(attrs), C.int32_t(len(attrs))
		out.partition = C.int32_t(partitionOf[i])
		out.dynamic = flag(n.Schema.Kind != piecewise.Static)
		out.zeroes_tail = flag(impl.ZeroesTail)
		out.parametric = flag(impl.Parametric)
		out.skip = flag(!spec.Plan.Runs[i])
		out.mutates = C.uint64_t(n.Schema.Mutates)
		out.workspace_block = C.int32_t(spec.Plan.WorkspaceBlock[i])
		if impl.Launch == 0 && spec.Plan.Runs[i] {
			return fmt.Errorf("op `%s` has no launch function on this device", n.Name)
		}
		if !b.measuring() { // C takes no pointer into Go memory that holds others
			C.tape_set_node(out, C.uintptr_t(impl.Launch), C.uintptr_t(impl.Workspace), C.uintptr_t(impl.UserData))
		}
		if impl.BuiltIn {
			out.builtin.context = C.tape_pointer(C.uintptr_t(impl.Context))
			out.builtin.state = C.tape_pointer(C.uintptr_t(impl.State))
			out.user_data = unsafe.Pointer(&out.builtin)
		}
	}
	e.nodes, e.num_nodes = first(nodes), C.int32_t(len(nodes))
	return nil
}

func writePorts(b *block, e *C.tape_exec, plan *piecewise.Plan) {
	g := plan.Graph
	inputs := array[C.tape_port](b, len(g.Inputs))
	for i, v := range g.Inputs {
		inputs[i] = C.tape_port{
			name: cString(text(b, g.Values[v].Name)), value: C.int32_t(v), staged: 1, staging_block: C.int32_t(plan.InputBlock[i]),
		}
	}
	copied := make(map[int]bool)
	copies := array[C.tape_copy](b, len(plan.Copies))
	for i, c := range plan.Copies {
		copies[i] = C.tape_copy{value: C.int32_t(c.Value), output: C.int32_t(c.Output)}
		copied[c.Output] = true
	}
	outputs := array[C.tape_port](b, len(g.Outputs))
	for i, o := range g.Outputs {
		outputs[i] = C.tape_port{
			name: cString(text(b, o.Name)), value: C.int32_t(o.Value), staged: flag(!copied[i]), staging_block: C.int32_t(plan.OutputBlock[i]),
		}
	}
	e.inputs, e.num_inputs = first(inputs), C.int32_t(len(inputs))
	e.outputs, e.num_outputs = first(outputs), C.int32_t(len(outputs))
	e.copies, e.num_copies = first(copies), C.int32_t(len(copies))
	e.bound_values, e.num_bound = numbers(b, g.Bound), C.int32_t(len(g.Bound))
}

// laddersOf says which ladders a unit is a rung of, with its size there. A full graph may serve as several.
func laddersOf(u piecewise.Unit, plan *piecewise.Plan) map[int]int64 {
	if u.Mode != piecewise.ModeFull {
		if u.Tokens > 0 {
			return map[int]int64{C.TAPE_LADDER_TOKENS: u.Tokens}
		}
		return map[int]int64{C.TAPE_LADDER_SEQS: u.Seqs}
	}
	support, o := plan.Graph.Support(), plan.Options
	ladders := make(map[int]int64)
	if u.Tokens == u.Seqs {
		ladders[C.TAPE_LADDER_DECODE] = u.Seqs
	}
	if o.Mode == piecewise.ModeFullDecodeOnly {
		return ladders
	}
	if support >= piecewise.CaptureUniformBatch && o.QueryLen > 1 && u.Tokens == u.Seqs*o.QueryLen {
		ladders[C.TAPE_LADDER_UNIFORM] = u.Seqs
	}
	if support == piecewise.CaptureAlways && u.Seqs == min(u.Tokens, plan.Graph.Limits.MaxSeqs) && slices.Contains(plan.Buckets, u.Tokens) {
		ladders[C.TAPE_LADDER_MIXED] = u.Tokens
	}
	return ladders
}

func writeBuckets(b *block, e *C.tape_exec, plan *piecewise.Plan) {
	buckets := array[C.tape_bucket](b, len(plan.Units))
	var rungs [C.TAPE_NUM_LADDERS][]rung
	for i, u := range plan.Units {
		buckets[i].size = C.adcg_bucket{mode: C.int32_t(u.Mode), tokens: C.int64_t(u.Tokens), seqs: C.int64_t(u.Seqs)}
		for ladder, size := range laddersOf(u, plan) {
			rungs[ladder] = append(rungs[ladder], rung{size, int32(i)})
		}
	}
	e.buckets, e.num_buckets = first(buckets), C.int32_t(len(buckets))
	for l := range rungs {
		slices.SortFunc(rungs[l], func(x, y rung) int { return cmp.Compare(x.size, y.size) })
		sizes, indices := array[C.int64_t](b, len(rungs[l])), array[C.int32_t](b, len(rungs[l]))
		for i, r := range rungs[l] {
			sizes[i], indices[i] = C.int64_t(r.size), C.int32_t(r.bucket)
		}
		e.ladders[l].sizes, e.ladders[l].buckets, e.ladders[l].count = first(sizes), first(indices), C.int32_t(len(sizes))
	}
}

// rung is one size of a ladder and the bucket that has it.
type rung struct {
	size   int64
	bucket int32
}
