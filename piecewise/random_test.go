package piecewise

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/stretchr/testify/require"
)

// randomGraph makes a graph out of a random program: two axes, views, in-place outputs, states that are written,
// workspaces that do not rise with the size, values given twice, outputs that are read on.
func randomGraph(t *testing.T, r *rand.Rand) *Graph {
	b := newBuild(t, 1+r.Int63n(9), 1+r.Int63n(5))
	dims := []Dim{tokens, tokens, tokens, seqs, seqs, {Seqs: 1, Constant: 1}, {Tokens: 2}, {Tokens: 1, Constant: -1}, {Tokens: 1, Seqs: 1}, constant(3)}
	randomType := func() Type {
		ty := Type{DType: []DType{F32, BF16, U8}[r.Intn(3)], Dims: []Dim{dims[r.Intn(len(dims))]}}
		for r.Intn(3) > 0 && len(ty.Dims) < 3 {
			ty.Dims = append(ty.Dims, constant([]int64{1, 2, 8, 16, 40}[r.Intn(5)]))
		}
		return ty
	}
	fixedType := func() Type {
		ty := randomType()
		ty.Dims[0] = constant(1 + r.Int63n(4))
		return ty
	}
	var values, states []Value
	for i := 0; i <= r.Intn(4); i++ {
		values = append(values, b.input(fmt.Sprintf("in%d", i), randomType()))
	}
	for i := 0; i < r.Intn(3); i++ {
		values = append(values, b.weight(fmt.Sprintf("w%d", i), fixedType()))
	}
	for i := 0; i < r.Intn(3); i++ {
		states = append(states, b.state(fmt.Sprintf("s%d", i), fixedType()))
	}
	values = append(values, states...)
	pick := func() Value {
		if r.Intn(2) == 0 { // recent ones, so that lifetimes end
			return values[len(values)-1-r.Intn(min(len(values), 4))]
		}
		return values[r.Intn(len(values))]
	}
	for i, n := 0, 1+r.Intn(14); i < n; i++ {
		s := &OpSchema{Name: fmt.Sprintf("op%d", i), Kind: OpKind(1 + r.Intn(3)), Capture: CaptureSupport(r.Intn(4)), NumInputs: r.Intn(4), NumOutputs: 1 + r.Intn(3)/2 + r.Intn(4)/3}
		if r.Intn(8) == 0 {
			s.Flags = FlagHostSync
		}
		in := make([]Value, s.NumInputs)
		for j := range in {
			in[j] = pick()
			if j > 0 && r.Intn(6) == 0 {
				in[j] = in[0]
			}
		}
		if s.Kind != Static && len(states) > 0 && r.Intn(3) == 0 && len(in) > 0 {
			j, state, clash := r.Intn(len(in)), states[r.Intn(len(states))], false
			for k, v := range in {
				clash = clash || k != j && b.g.root(v) == state
			}
			if !clash {
				in[j], s.Mutates = state, 1<<j
			}
		}
		var types []Type
		for k := 0; k < s.NumOutputs; k++ {
			ty := randomType()
			if len(in) > 0 {
				j := r.Intn(len(in))
				from := b.g.Values[in[j]].Type
				switch r.Intn(4) {
				case 0: // a view: of another shape, or a part
					ty = from.clone()
					if last := len(ty.Dims) - 1; last > 0 && ty.Dims[last].Constant%2 == 0 {
						ty.Dims[last].Constant /= 2
						if r.Intn(2) == 0 {
							ty.Dims = append(ty.Dims, constant(2))
						}
					}
					s.Aliases = append(s.Aliases, view(k, j))
				case 1, 2: // in place over some of the inputs
					ty = from.clone()
					for j := range in {
						if r.Intn(3) > 0 && s.Mutates>>j&1 == 0 {
							s.Aliases = append(s.Aliases, inPlace(k, j))
						}
					}
				}
			}
			types = append(types, ty)
		}
		s.Infer = gives(types...)
		if r.Intn(3) == 0 {
			scale := r.Int63n(200)
			s.Workspace = func(_, _ []Shape, _ []Attr, tokens, seqs int64) (int64, error) {
				return scale * ((tokens*7 + seqs*5) % 9), nil
			}
		}
		values = append(values, b.ops(s, in...)...)
	}
	used := make([]bool, len(b.g.Values))
	for _, n := range b.g.Nodes {
		for _, v := range n.Inputs {
			used[v] = true
		}
	}
	outputs := 0
	for v, info := range b.g.Values {
		spare := info.Role == RoleActivation && info.Output > 0 // the unused second output of a used op
		if !used[v] && !(spare && r.Intn(3) == 0) || r.Intn(12) == 0 {
			b.output(fmt.Sprintf("out%d", outputs), Value(v))
			outputs++
			if r.Intn(8) == 0 {
				b.output(fmt.Sprintf("out%d", outputs), Value(v))
				outputs++
			}
		}
	}
	if outputs == 0 {
		b.output("out0", b.g.Nodes[len(b.g.Nodes)-1].Outputs[0])
	}
	return b.g
}

// simulator runs a plan on memories whose bytes hold who wrote them: contents number and place within the contents.
// Nodes are as hostile as their schemas allow: outputs and scratch are written before inputs are read, except where an
// output is declared to overwrite the input that lies there.
type simulator struct {
	p             *Plan
	tokens, seqs  int64
	arena         []int64
	given         map[Place][][]int64 // the caller's tensors, by place and index
	staged        map[Place][]bool    // of inputs and outputs: whether the tensor was too short
	contents      []int64             // per value: the contents that a reader must see
	next, garbage int64
}

func (s *simulator) bytes(v Value) int64 { return s.p.Graph.Values[v].Type.Bytes(s.tokens, s.seqs) }

// at is the memory in which a storage lies, from its first byte.
func (s *simulator) at(st Storage, bytes int64) []int64 {
	base := s.given[st.Place]
	switch {
	case st.Place == PlaceArena:
		return s.arena[st.Offset : st.Offset+bytes]
	case st.Place == PlaceInput && s.staged[PlaceInput][st.Index]:
		from := s.p.InputStaging[st.Index] + st.Offset
		return s.arena[from : from+bytes]
	case st.Place == PlaceOutput && s.staged[PlaceOutput][st.Index]:
		from := s.p.OutputStaging[st.Index] + st.Offset
		return s.arena[from : from+bytes]
	}
	return base[st.Index][st.Offset : st.Offset+bytes]
}

func (s *simulator) memory(v Value) []int64 { return s.at(s.p.Storage[v], s.bytes(v)) }

func (s *simulator) fill(m []int64, contents int64) {
	for i := range m {
		m[i] = contents<<24 | int64(i)
	}
}

func (s *simulator) write(v Value) {
	s.next++
	s.contents[v] = s.next
	s.fill(s.memory(v), s.next)
}

func (s *simulator) check(what string, v Value, m []int64) error {
	for i, got := range m {
		if want := s.contents[v]<<24 | int64(i); got != want {
			return fmt.Errorf("%s: `%s` byte %d holds contents %d byte %d, must be %d byte %d (%d tokens, %d seqs)", what, s.p.Graph.Values[v].Name, i,
				got>>24, got&(1<<24-1), want>>24, i, s.tokens, s.seqs)
		}
	}
	return nil
}

// simulate runs a plan at one size, with some of the caller's tensors too short.
func simulate(p *Plan, tokens, seqs int64, short func() bool) error {
	g := p.Graph
	s := &simulator{p: p, tokens: tokens, seqs: seqs, arena: make([]int64, p.ArenaBytes), given: map[Place][][]int64{},
		staged: map[Place][]bool{}, contents: make([]int64, len(g.Values)), garbage: 1 << 30}
	for _, v := range g.Inputs {
		s.given[PlaceInput] = append(s.given[PlaceInput], make([]int64, s.bytes(v)))
		s.staged[PlaceInput] = append(s.staged[PlaceInput], short())
	}
	for _, v := range g.Bound {
		s.given[PlaceBound] = append(s.given[PlaceBound], make([]int64, s.bytes(v)))
	}
	for _, o := range g.Outputs {
		s.given[PlaceOutput] = append(s.given[PlaceOutput], make([]int64, s.bytes(o.Value)))
		s.staged[PlaceOutput] = append(s.staged[PlaceOutput], short())
	}
	for v, info := range g.Values {
		if info.Role != RoleActivation {
			s.write(Value(v))
		}
	}
	for i, n := range g.Nodes {
		if err := s.run(i, &n); err != nil {
			return err
		}
	}
	for _, c := range p.Copies {
		copy(s.at(Storage{PlaceOutput, c.Output, 0}, s.bytes(c.Value)), s.memory(c.Value))
	}
	for j, o := range g.Outputs {
		if err := s.check("output `"+o.Name+"`", o.Value, s.at(Storage{PlaceOutput, j, 0}, s.bytes(o.Value))); err != nil {
			return err
		}
	}
	for _, v := range append(append([]Value{}, g.Inputs...), g.Bound...) { // nothing of the caller's was written but by declared mutation
		if info := g.Values[v]; info.Role != RoleInput || !s.staged[PlaceInput][info.Slot] {
			if err := s.check("at the end", v, s.memory(v)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *simulator) run(i int, n *Node) error {
	late := make([]bool, len(n.Outputs)) // written behind the reads: over an input, as declared
	isView := make([]bool, len(n.Outputs))
	for k, out := range n.Outputs {
		for _, a := range n.Schema.Aliases {
			if a.Output == k && a.Kind == AliasView {
				isView[k] = true
			}
			if a.Output == k && a.Kind == AliasInPlace && a.Input < len(n.Inputs) && s.p.Storage[n.Inputs[a.Input]] == s.p.Storage[out] {
				late[k] = true
			}
		}
	}
	for k, out := range n.Outputs {
		if !late[k] && !isView[k] {
			s.write(out)
		}
	}
	if bytes := s.p.WorkspaceBytes[i]; bytes > 0 {
		if n.Schema.Workspace == nil {
			return fmt.Errorf("%s: workspace that it did not ask for", n.Name)
		}
		s.garbage++
		s.fill(s.arena[s.p.WorkspaceOffset[i]:s.p.WorkspaceOffset[i]+bytes], s.garbage)
	}
	for _, in := range n.Inputs {
		if err := s.check("input of "+n.Name, in, s.memory(in)); err != nil {
			return err
		}
	}
	for j, in := range n.Inputs {
		if n.Schema.Mutates>>j&1 != 0 {
			s.write(in)
			for v := range s.contents { // views of a state show what is written to it
				if s.p.Graph.root(Value(v)) == in {
					s.contents[v] = s.contents[in]
				}
			}
		}
	}
	for k, out := range n.Outputs {
		if late[k] {
			s.write(out)
		}
		if isView[k] {
			s.contents[out] = s.contents[n.Inputs[n.Schema.viewOf(k)]]
		}
	}
	for _, out := range n.Outputs {
		if err := s.check("output of "+n.Name, out, s.memory(out)); err != nil {
			return err
		}
	}
	return nil
}

func TestRandomGraphsReadWhatWasWritten(t *testing.T) {
	graphs := 6000
	if testing.Short() {
		graphs = 500
	}
	inPlaces, copies, gaps := 0, 0, 0
	for seed := 0; seed < graphs; seed++ {
		r := rand.New(rand.NewSource(int64(seed)))
		g := randomGraph(t, r)
		require.NoError(t, g.Freeze(), "seed %d", seed)
		o := Options{Mode: Mode(r.Intn(5)), SeqBuckets: []int64{1, 2, 3}, Buckets: []int64{2, 4, 5, 8}}
		p, err := NewPlan(g, o)
		require.NoError(t, err, "seed %d", seed)
		require.GreaterOrEqual(t, p.ArenaBytes, p.LowerBound)
		if p.ArenaBytes > p.LowerBound {
			gaps++
		}
		for k := 0; k < 3; k++ { // the limits with all staged, then buckets with some
			tokens, seqs := g.Limits.MaxTokens, g.Limits.MaxSeqs
			if k > 0 {
				tokens, seqs = p.Buckets[r.Intn(len(p.Buckets))], p.SeqBuckets[r.Intn(len(p.SeqBuckets))]
			}
			err := simulate(p, tokens, seqs, func() bool { return k == 0 || r.Intn(2) == 0 })
			require.NoError(t, err, "seed %d", seed)
		}
		requireWorkspaces(t, p)
		copies += len(p.Copies)
		for _, b := range p.Blocks {
			roots := map[Value]bool{}
			for _, v := range b.Values {
				roots[g.root(v)] = true
			}
			inPlaces += max(0, len(roots)-1)
		}
	}
	t.Logf("%d graphs: %d in-place outputs, %d copies, %d with a gap", graphs, inPlaces, copies, gaps)
	require.Greater(t, inPlaces, graphs/4, "the generator must reach in-place outputs")
	require.Greater(t, copies, graphs/4)
}

// requireWorkspaces: scratch suffices at each size that the node is launched at.
func requireWorkspaces(t *testing.T, p *Plan) {
	l := p.Graph.Limits
	for _, part := range p.Partitions {
		sizes := [][2]int64{{l.MaxTokens, l.MaxSeqs}}
		for _, u := range p.Units {
			if u.Mode == ModeFull || part.Kind == TokenSegment && u.Tokens > 0 || part.Kind == SeqSegment && u.Seqs > 0 {
				sizes = append(sizes, [2]int64{u.Tokens, u.Seqs})
			}
		}
		for _, b := range p.Buckets {
			for _, s := range p.SeqBuckets {
				if part.Kind == DynamicOp {
					sizes = append(sizes, [2]int64{b, s})
				}
			}
		}
		for i := part.First; i < part.End; i++ {
			for _, size := range sizes {
				if f := p.Graph.Nodes[i].Schema.Workspace; f != nil {
					needs, err := f(nil, nil, nil, size[0], size[1])
					require.NoError(t, err)
					require.LessOrEqual(t, needs, p.WorkspaceBytes[i], "%s at %v", p.Graph.Nodes[i].Name, size)
				}
			}
		}
	}
}
