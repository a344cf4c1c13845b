package piecewise

import (
	"fmt"
	"math"
	"slices"
)

// Limits bound every step that a graph may be asked for.
type Limits struct {
	MaxTokens int64 // of one step; 1 .. 2^31-1
	MaxSeqs   int64 // of one step; 1 .. 2^31-1
	MaxSeqLen int64 // tokens that one sequence may bring in one step; 0: MaxTokens
}

// ValueInfo is what the graph knows of one value.
type ValueInfo struct {
	Name   string // as given; of an activation: its node's name, and ".k" behind it if the node has several outputs
	Role   Role
	Type   Type
	Known  bool // whether Type is known; outputs of ops that are discovered are not before Freeze
	Node   int  // the node that produces it; -1 if none does
	Output int  // which output of that node; -1 if none
	Slot   int  // index in Graph.Inputs (an input) or in Graph.Bound (a weight or state); -1 for an activation
}

// Node is one op of the graph. Nodes run in the order in which they were added.
type Node struct {
	Schema  *OpSchema
	Name    string // "adcg.linear#3": the op's name and the node's index
	Inputs  []Value
	Outputs []Value
	Attrs   []Attr         // in the schema's order, complete with defaults
	Parts   []Part         // per alias of the schema: where the part lies; known with the types. Nil if it has none
	Kind    OpKind         // after demotion
	Capture CaptureSupport // after demotion; CaptureAlways for a static node
	Note    string         // why it was demoted; "" if it was not
}

// Output is a value that each step writes into a tensor of the caller's.
type Output struct {
	Name  string
	Value Value
}

// Graph is a program of ops over values. It is built with the Add methods, then frozen, then planned. After Freeze
// it does not change, and may be read by several goroutines.
type Graph struct {
	Limits  Limits
	Values  []ValueInfo
	Nodes   []Node
	Inputs  []Value // in order of addition
	Bound   []Value // weights and states, in order of addition
	Outputs []Output
	Frozen  bool

	names map[string]Value // of inputs, weights, states and outputs: one namespace, so that Find has one answer
}

// NewGraph makes an empty graph.
func NewGraph(l Limits) (*Graph, error) {
	if l.MaxSeqLen == 0 {
		l.MaxSeqLen = l.MaxTokens
	}
	for _, e := range []struct {
		name  string
		value int64
	}{{"max_tokens", l.MaxTokens}, {"max_seqs", l.MaxSeqs}, {"max_seq_len", l.MaxSeqLen}} {
		if e.value < 1 || e.value > math.MaxInt32 {
			return nil, Errorf(ErrBatch, "%s: %d, must be 1 to %d", e.name, e.value, math.MaxInt32)
		}
	}
	return &Graph{Limits: l, names: map[string]Value{}}, nil
}

// AddInput adds a tensor that the caller provides at each step.
func (g *Graph) AddInput(name string, t Type) (Value, error) {
	v, err := g.addNamed(name, RoleInput, t)
	if err == nil {
		g.Values[v].Slot = len(g.Inputs)
		g.Inputs = append(g.Inputs, v)
	}
	return v, err
}

// AddWeight adds a tensor of the caller's that is bound once and only read. All its dims are constant.
func (g *Graph) AddWeight(name string, t Type) (Value, error) { return g.addBound(name, RoleWeight, t) }

// AddState adds a tensor of the caller's that is bound once, read and written. All its dims are constant.
func (g *Graph) AddState(name string, t Type) (Value, error) { return g.addBound(name, RoleState, t) }

func (g *Graph) addBound(name string, role Role, t Type) (Value, error) {
	v, err := g.addNamed(name, role, t)
	if err == nil {
		g.Values[v].Slot = len(g.Bound)
		g.Bound = append(g.Bound, v)
	}
	return v, err
}

func (g *Graph) addNamed(name string, role Role, t Type) (Value, error) {
	if err := g.open(); err != nil {
		return -1, err
	}
	if err := g.checkName(role.String(), name); err != nil {
		return -1, err
	}
	if err := checkType(fmt.Sprintf("%s `%s`", role, name), t, g.Limits); err != nil {
		return -1, err
	}
	if role != RoleInput && !t.Dims[0].IsConstant() {
		return -1, Errorf(ErrShape, "%s `%s`: dim 0 is %s, must be constant", role, name, t.Dims[0])
	}
	v := Value(len(g.Values))
	g.Values = append(g.Values, ValueInfo{Name: name, Role: role, Type: t.clone(), Known: true, Node: -1, Output: -1, Slot: -1})
	g.names[name] = v
	return v, nil
}

// AddOp adds an op and returns its outputs, as many as the schema says. The outputs' types are known at once if the
// schema has an Infer and the inputs' types are known; otherwise Freeze finds them.
func (g *Graph) AddOp(s *OpSchema, inputs []Value, attrs []Attr) ([]Value, error) {
	if err := g.open(); err != nil {
		return nil, err
	}
	if s == nil {
		return nil, Errorf(ErrArgument, "schema: nil")
	}
	if err := ValidateSchema(s); err != nil {
		return nil, err
	}
	n := Node{Schema: s, Name: fmt.Sprintf("%s#%d", s.Name, len(g.Nodes)), Inputs: append([]Value(nil), inputs...)}
	if err := g.checkOperands(&n); err != nil {
		return nil, err
	}
	var err error
	if n.Attrs, err = completeAttrs(&n, attrs); err != nil {
		return nil, err
	}
	n.Kind, n.Capture, n.Note = demote(s)

	outputs := make([]ValueInfo, s.NumOutputs)
	for k := range outputs {
		name := n.Name
		if s.NumOutputs > 1 {
			name = fmt.Sprintf("%s.%d", n.Name, k)
		}
		outputs[k] = ValueInfo{Name: name, Role: RoleActivation, Node: len(g.Nodes), Output: k, Slot: -1}
		n.Outputs = append(n.Outputs, Value(len(g.Values)+k))
	}
	if s.Infer != nil && allKnown(g.Values, n.Inputs) {
		types, err := inferTypes(g.Values, &n, g.Limits)
		if err != nil {
			return nil, err
		}
		if n.Parts, err = findParts(g.Values, &n, types); err != nil {
			return nil, err
		}
		for k := range outputs {
			outputs[k].Type, outputs[k].Known = types[k], true
		}
	}
	g.Values = append(g.Values, outputs...)
	g.Nodes = append(g.Nodes, n)
	return append([]Value(nil), n.Outputs...), nil
}

// AddOutput makes a value an output: each step writes it into a tensor of the caller's.
func (g *Graph) AddOutput(name string, v Value) error {
	if err := g.open(); err != nil {
		return err
	}
	if err := g.checkName("output", name); err != nil {
		return err
	}
	if !g.has(v) {
		return Errorf(ErrGraph, "output `%s`: value %d: the graph has values 0 to %d", name, v, len(g.Values)-1)
	}
	g.Outputs = append(g.Outputs, Output{Name: name, Value: v})
	g.names[name] = v
	return nil
}

// Find finds an input, weight, state or output by its name.
func (g *Graph) Find(name string) (Value, bool) {
	v, ok := g.names[name]
	if !ok {
		return -1, false
	}
	return v, true
}

// Support is which batches the whole graph may be captured for: the least over its dynamic and metadata nodes.
func (g *Graph) Support() CaptureSupport {
	least := CaptureAlways
	for i := range g.Nodes {
		if g.Nodes[i].Kind != Static {
			least = min(least, g.Nodes[i].Capture)
		}
	}
	return least
}

func (g *Graph) open() error {
	if g.Frozen {
		return Errorf(ErrState, "graph: frozen already")
	}
	return nil
}

func (g *Graph) has(v Value) bool { return v >= 0 && int(v) < len(g.Values) }

func (g *Graph) checkName(what, name string) error {
	if name == "" {
		return Errorf(ErrGraph, "%s: the name is empty", what)
	}
	if _, taken := g.names[name]; taken {
		return Errorf(ErrGraph, "%s `%s`: the name is taken", what, name)
	}
	return nil
}

// checkOperands checks a node's inputs against its schema: how many, whether they exist, and what it writes.
func (g *Graph) checkOperands(n *Node) error {
	s := n.Schema
	least := s.NumInputs - s.NumOptionalInputs
	if len(n.Inputs) < least || len(n.Inputs) > s.NumInputs {
		wants := fmt.Sprint(s.NumInputs)
		if least != s.NumInputs {
			wants = fmt.Sprintf("%d to %d", least, s.NumInputs)
		}
		return Errorf(ErrGraph, "op `%s`: %d inputs, takes %s", n.Name, len(n.Inputs), wants)
	}
	for i, v := range n.Inputs {
		if !g.has(v) {
			return Errorf(ErrGraph, "op `%s`: input %d: value %d: the graph has values 0 to %d", n.Name, i, v, len(g.Values)-1)
		}
	}
	for _, a := range s.Aliases {
		if a.Kind == AliasView && a.Input >= len(n.Inputs) {
			return Errorf(ErrGraph, "op `%s`: output %d is a view of input %d, which was left out", n.Name, a.Output, a.Input)
		}
	}
	for i, v := range n.Inputs {
		if s.Mutates>>i&1 == 0 {
			continue
		}
		if info := g.Values[v]; info.Role != RoleState {
			return Errorf(ErrGraph, "op `%s` writes input %d (`%s`), which is %s: only states may be written", n.Name, i, info.Name, info.Role.article())
		}
		for j, w := range n.Inputs {
			if j != i && g.root(w) == v {
				return Errorf(ErrGraph, "op `%s` writes input %d (`%s`), which is input %d as well", n.Name, i, g.Values[v].Name, j)
			}
		}
	}
	return nil
}

// root is the value whose memory a value is a view of; itself if it is no view.
func (g *Graph) root(v Value) Value {
	for g.Values[v].Node >= 0 {
		n := &g.Nodes[g.Values[v].Node]
		input := n.Schema.viewOf(g.Values[v].Output)
		if input < 0 {
			break
		}
		v = n.Inputs[input]
	}
	return v
}

// sameArguments tells whether two nodes of one schema have inputs and outputs of the same types, and the same attributes.
func (g *Graph) sameArguments(n, m *Node) bool {
	sameTypes := func(a, b []Value) bool {
		return slices.EqualFunc(a, b, func(v, w Value) bool { return g.Values[v].Type.Equal(g.Values[w].Type) })
	}
	return sameTypes(n.Inputs, m.Inputs) && sameTypes(n.Outputs, m.Outputs) && slices.EqualFunc(n.Attrs, m.Attrs, func(a, b Attr) bool {
		return a.Name == b.Name && a.Type == b.Type && a.Int == b.Int && a.Float == b.Float && a.String == b.String && slices.Equal(a.Ints, b.Ints)
	})
}

// demote gives a node's kind and capture support: a static op that synchronises or switches streams cannot be captured.
func demote(s *OpSchema) (OpKind, CaptureSupport, string) {
	if s.Kind != Static {
		return s.Kind, s.Capture, ""
	}
	why := ""
	switch s.Flags & (FlagHostSync | FlagStreamSwitch) {
	case FlagHostSync:
		why = "host sync"
	case FlagStreamSwitch:
		why = "stream switch"
	case FlagHostSync | FlagStreamSwitch:
		why = "host sync and stream switch"
	default:
		return Static, CaptureAlways, ""
	}
	return Dynamic, CaptureNever, why
}

func allKnown(values []ValueInfo, inputs []Value) bool {
	for _, v := range inputs {
		if !values[v].Known {
			return false
		}
	}
	return true
}

func (r Role) String() string {
	if r >= RoleInput && r <= RoleActivation {
		return [...]string{"input", "weight", "state", "activation"}[r-1]
	}
	return fmt.Sprintf("role(%d)", int32(r))
}

// article is the role as a sentence names it.
func (r Role) article() string {
	if r == RoleInput || r == RoleActivation {
		return "an " + r.String()
	}
	return "a " + r.String()
}

func (t Type) clone() Type { return Type{DType: t.DType, Dims: append([]Dim(nil), t.Dims...)} }
