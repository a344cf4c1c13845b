package engine

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/libadcg/libadcg/engine/device"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/piecewise"
)

// Names of piecewise and the data plane that a program needs.
type (
	Value  = piecewise.Value
	DType  = piecewise.DType
	Type   = piecewise.Type
	Attr   = piecewise.Attr
	Limits = piecewise.Limits
	Batch  = tape.Batch
	Tensor = tape.Tensor
)

// Element types.
const (
	F32    = piecewise.F32
	F16    = piecewise.F16
	BF16   = piecewise.BF16
	F8E4M3 = piecewise.F8E4M3
	I32    = piecewise.I32
	I64    = piecewise.I64
)

// Where a tensor's memory lies: Tensor.DeviceType.
const (
	DeviceCPU  = tape.DeviceCPU
	DeviceCUDA = tape.DeviceCUDA
)

// Dims of shapes that depend on a count.
var (
	Tokens = piecewise.Dim{Tokens: 1}
	Seqs   = piecewise.Dim{Seqs: 1}
)

// Dim is a constant extent.
func Dim(n int64) piecewise.Dim { return piecewise.Dim{Constant: n} }

// Int, Float, Bool, String and Ints make attributes.
func Int(name string, v int64) Attr     { return Attr{Name: name, Type: piecewise.AttrInt, Int: v} }
func Float(name string, v float64) Attr { return Attr{Name: name, Type: piecewise.AttrFloat, Float: v} }
func String(name, v string) Attr        { return Attr{Name: name, Type: piecewise.AttrString, String: v} }
func Ints(name string, v ...int64) Attr { return Attr{Name: name, Type: piecewise.AttrInts, Ints: v} }
func Bool(name string, v bool) (a Attr) {
	a = Attr{Name: name, Type: piecewise.AttrBool}
	if v {
		a.Int = 1
	}
	return a
}

// NewTensor allocates zeroed C memory for a host tensor; its Free gives it back.
func NewTensor(dtype DType, dims ...int64) (Tensor, error) {
	return tape.NewTensor(piecewise.Shape{DType: dtype, Dims: dims})
}

// Graph is a model graph under construction, or frozen. Building takes a lock; a frozen graph is read concurrently.
type Graph struct {
	engine *Engine
	refs   atomic.Int32 // itself, and one an exec
	closed atomic.Bool

	mu     sync.Mutex
	graph  *piecewise.Graph
	nodes  []nodeImpl
	errors []error // of the builder functions, for Freeze
}

// nodeImpl is how a node runs.
type nodeImpl struct {
	op    *registeredOp
	state uintptr // of a built-in op
}

// CreateGraph makes an empty graph.
func (e *Engine) CreateGraph(limits Limits) (*Graph, error) {
	g, err := piecewise.NewGraph(limits)
	if err != nil {
		return nil, err
	}
	e.refs.Add(1)
	graph := &Graph{engine: e, graph: g}
	graph.refs.Store(1)
	return graph, nil
}

// NewGraph is CreateGraph for builders: limits that are wrong are reported by Freeze.
func (e *Engine) NewGraph(limits Limits) *Graph {
	g, err := e.CreateGraph(limits)
	if err != nil {
		g, _ = e.CreateGraph(Limits{MaxTokens: 1, MaxSeqs: 1})
		g.errors = append(g.errors, err)
	}
	return g
}

// Close gives the graph up; its execs stay usable.
func (g *Graph) Close() {
	if !g.closed.Swap(true) {
		g.release()
	}
}

func (g *Graph) release() {
	if g.refs.Add(-1) > 0 {
		return
	}
	freeStates(g.nodes)
	g.engine.release()
}

// AddInput adds a tensor that the caller provides at each replay; AddWeight and AddState add bound ones.
func (g *Graph) AddInput(name string, t Type) (Value, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graph.AddInput(name, t)
}

// AddWeight adds a tensor that is bound, and only read.
func (g *Graph) AddWeight(name string, t Type) (Value, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graph.AddWeight(name, t)
}

// AddState adds a tensor that is bound, read and written.
func (g *Graph) AddState(name string, t Type) (Value, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graph.AddState(name, t)
}

// AddOp adds a registered op.
func (g *Graph) AddOp(name string, inputs []Value, attrs []Attr) ([]Value, error) {
	op, err := g.engine.op(name)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graph.AddOp(op.schema, inputs, attrs)
}

// NumOutputs is how many outputs a registered op has.
func (g *Graph) NumOutputs(op string) (int, error) {
	registered, err := g.engine.op(op)
	if err != nil {
		return 0, err
	}
	return registered.schema.NumOutputs, nil
}

// AddOutput names a value that each replay writes into a tensor of the caller's.
func (g *Graph) AddOutput(name string, v Value) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graph.AddOutput(name, v)
}

// Input, Weight, State, Op and Output build like the Add functions, and leave errors to Freeze.
func (g *Graph) Input(name string, dtype DType, dims ...piecewise.Dim) Value {
	return g.keep(g.AddInput(name, Type{DType: dtype, Dims: dims}))
}

// Weight adds a weight.
func (g *Graph) Weight(name string, dtype DType, dims ...piecewise.Dim) Value {
	return g.keep(g.AddWeight(name, Type{DType: dtype, Dims: dims}))
}

// State adds a state.
func (g *Graph) State(name string, dtype DType, dims ...piecewise.Dim) Value {
	return g.keep(g.AddState(name, Type{DType: dtype, Dims: dims}))
}

// Op adds an op. After an error its values are placeholders, as many as the op has outputs.
func (g *Graph) Op(name string, inputs []Value, attrs []Attr) []Value {
	values, err := g.AddOp(name, inputs, attrs)
	if err == nil {
		return values
	}
	g.fail(err)
	n, err := g.NumOutputs(name)
	if err != nil {
		n = 1
	}
	values = make([]Value, n)
	for i := range values {
		values[i] = -1
	}
	return values
}

// Output adds an output.
func (g *Graph) Output(name string, v Value) {
	if err := g.AddOutput(name, v); err != nil {
		g.fail(err)
	}
}

func (g *Graph) keep(v Value, err error) Value {
	if err != nil {
		g.fail(err)
		return -1
	}
	return v
}

func (g *Graph) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.errors = append(g.errors, err)
}

// Freeze ends the building: the first error of the builder functions, discovery, validation, splitting, and the states of
// built-in ops' nodes. A failed Freeze leaves the graph open.
func (g *Graph) Freeze() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.errors) > 0 {
		return g.errors[0]
	}
	if err := g.graph.Freeze(); err != nil {
		return err
	}
	nodes, err := g.prepare()
	if err != nil {
		freeStates(nodes)
		g.graph.Frozen = false
		return err
	}
	g.nodes = nodes
	for _, n := range g.graph.Nodes {
		if n.Note != "" {
			logf(LogWarning, "op `%s`: %s", n.Name, n.Note)
		}
	}
	return nil
}

// prepare makes the states of the built-in ops' nodes.
func (g *Graph) prepare() ([]nodeImpl, error) {
	nodes := make([]nodeImpl, len(g.graph.Nodes))
	for i, n := range g.graph.Nodes {
		op, err := g.engine.op(n.Schema.Name)
		if err != nil {
			return nodes, err
		}
		nodes[i].op = op
		if op.builtIn.Prepare == 0 {
			continue
		}
		inputs := make([]Type, len(n.Inputs))
		for k, v := range n.Inputs {
			inputs[k] = g.graph.Values[v].Type
		}
		nodes[i].state, err = tape.Prepare(op.builtIn.Prepare, n.Attrs, inputs)
		if err != nil {
			return nodes, fmt.Errorf("op `%s`: %w", n.Name, err)
		}
	}
	return nodes, nil
}

func freeStates(nodes []nodeImpl) {
	for _, n := range nodes {
		if n.state != 0 {
			tape.FreeState(n.state)
		}
	}
}

// Find is an input, weight, state or output by name.
func (g *Graph) Find(name string) (Value, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graph.Find(name)
}

// Value tells of a value.
func (g *Graph) Value(v Value) (piecewise.ValueInfo, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v < 0 || int(v) >= len(g.graph.Values) {
		return piecewise.ValueInfo{}, errorf(ErrNotFound, "value: %d: the graph has %d values", v, len(g.graph.Values))
	}
	return g.graph.Values[v], nil
}

// Plan formats.
const (
	PlanJSON int32 = 1
	PlanText int32 = 2
	PlanSVG  int32 = 3
)

// WritePlan writes the plan of an exec with these options.
func (g *Graph) WritePlan(o ExecOptions, format int32, w io.Writer) error {
	plan, err := g.plan(o)
	if err != nil {
		return err
	}
	switch format {
	case PlanJSON:
		return plan.WriteJSON(w)
	case PlanText:
		return plan.WriteText(w)
	case PlanSVG:
		return plan.WriteSVG(w)
	}
	return errorf(ErrArgument, "format: %d: use ADCG_PLAN_JSON, ADCG_PLAN_TEXT or ADCG_PLAN_SVG", format)
}

func (g *Graph) plan(o ExecOptions) (*piecewise.Plan, error) {
	if o.QueryLen < 0 {
		return nil, errorf(ErrArgument, "options.query_len: %d, is not negative", o.QueryLen)
	}
	if !g.Frozen() {
		return nil, errorf(ErrState, "graph: not frozen, call adcg_graph_freeze first")
	}
	mode, err := o.Mode.plan()
	if err != nil {
		return nil, err
	}
	return piecewise.NewPlan(g.graph, piecewise.Options{Mode: mode, Buckets: o.Buckets, SeqBuckets: o.SeqBuckets, QueryLen: o.QueryLen,
		Layout: o.Layout, Nodes: o.PlanNodes, Time: o.PlanTimeout})
}

// Frozen tells whether the building has ended.
func (g *Graph) Frozen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graph.Frozen
}

// Forecast is every byte that an exec will hold, and what its plan compares with; see adcg_forecast.
type Forecast struct {
	TotalBytes, ArenaBytes, MetadataBytes, TapeBytes, GraphBytes int64
	StagingBytes, WorkspaceBytes, LowerBoundBytes                int64
	BucketSumBytes                                               int64
	NumBuckets, NumSegments, NumDynamicOps                       int
}

// Forecast plans an exec and says what it will hold. It allocates the exec's tables for a moment, to measure them; never the arena.
func (g *Graph) Forecast(o ExecOptions) (Forecast, error) {
	plan, err := g.plan(o)
	if err != nil {
		return Forecast{}, err
	}
	data, err := tape.New(g.spec(plan, o, nil))
	if err != nil {
		return Forecast{}, err
	}
	defer data.Free()
	f := Forecast{
		ArenaBytes: g.engine.device.ArenaBytes(plan.ArenaBytes), MetadataBytes: data.MetadataBytes(), TapeBytes: data.TapeBytes(),
		StagingBytes: plan.StagingBytes, LowerBoundBytes: plan.LowerBound, BucketSumBytes: plan.BucketSum,
		NumBuckets: len(plan.Units), NumSegments: plan.NumSegments, NumDynamicOps: plan.NumDynamic,
	}
	for _, bytes := range plan.WorkspaceBytes {
		f.WorkspaceBytes = max(f.WorkspaceBytes, bytes)
	}
	for _, kernels := range data.GraphKernels() {
		f.GraphBytes += g.engine.device.GraphBytes(kernels)
	}
	f.TotalBytes = f.ArenaBytes + f.MetadataBytes + f.TapeBytes + f.GraphBytes
	return f, nil
}

// spec is what the data plane is made of.
func (g *Graph) spec(plan *piecewise.Plan, o ExecOptions, arena device.Arena) tape.Spec {
	info := g.engine.device.Info()
	spec := tape.Spec{
		Plan: plan, Impls: make([]tape.Impl, len(g.nodes)), DeviceType: info.Type, DeviceID: info.ID,
		Device: g.engine.device.Tape(), Explicit: o.Explicit, Verify: o.Verify, Capture: int32(o.CaptureMode),
	}
	if arena != nil {
		spec.Arena, spec.ArenaHeld, spec.Batch = arena.Address(), arena.Held(), arena.Batch()
	}
	for i, n := range g.nodes {
		promised := n.op.schema.Flags&piecewise.FlagZeroesTail != 0
		if impl := n.op.builtIn; n.op.isBuiltIn {
			context := impl.Context
			if o.BatchInvariant {
				context = impl.Invariant
			}
			spec.Impls[i] = tape.Impl{
				Launch: impl.Launch, Workspace: impl.Workspace, BuiltIn: true, Context: context, State: n.state, Parametric: impl.Parametric,
				ZeroesTail: promised || impl.ZeroesTail,
			}
		} else {
			own := n.op.native
			spec.Impls[i] = tape.Impl{
				Launch: own.Launch, Workspace: own.Workspace, UserData: own.UserData, ZeroesTail: promised,
				Parametric: n.op.schema.Flags&piecewise.FlagParametric != 0,
			}
		}
	}
	return spec
}
