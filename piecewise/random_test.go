package piecewise

import (
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strconv"
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
				switch r.Intn(5) {
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
		s.StridedInputs, s.StridedOutputs = uint64(r.Intn(1<<s.NumInputs)), uint64(r.Intn(1<<s.NumOutputs))
		if r.Intn(2) == 0 {
			s.StridedInputs, s.StridedOutputs = 1<<s.NumInputs-1, 1<<s.NumOutputs-1
		}
		if r.Intn(3) == 0 {
			scale := r.Int63n(200)
			s.Workspace = func(_, _ []Shape, _ []Attr, tokens, seqs int64) (int64, error) {
				return scale * ((tokens*7 + seqs*5) % 9), nil
			}
		}
		values = append(values, b.ops(s, in...)...)
		for range r.Intn(3) {
			values = append(values, randomParts(b, r, pick())...)
		}
		if r.Intn(3) == 0 {
			values = append(values, randomJoin(b, r, pick)...)
		}
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

// randomParts cuts a value in two along one of its dims, or takes just one part.
func randomParts(b *build, r *rand.Rand, whole Value) []Value {
	t := b.g.Values[whole].Type
	axis := r.Intn(len(t.Dims))
	d := t.Dims[axis]
	if d.Constant < 2 {
		return nil
	}
	starts := []int64{0, 1 + r.Int63n(d.Constant-1)}
	var types []Type
	var aliases []Alias
	for k, start := range starts {
		part := t.clone()
		if part.Dims[axis].Constant -= start; k == 0 {
			part.Dims[axis] = constant(starts[1])
		}
		types, aliases = append(types, part), append(aliases, Alias{k, 0, AliasPart})
	}
	s := &OpSchema{Name: "split", Kind: Static, NumInputs: 1, NumOutputs: 2, Infer: gives(types...), Aliases: aliases, StridedInputs: uint64(r.Intn(2)),
		Part: func(alias int, _, _ []Type, _ []Attr) (Part, error) { return Part{axis, starts[alias]}, nil }}
	return b.ops(s, whole)
}

// randomJoin joins a value and others of its shape along one dim.
func randomJoin(b *build, r *rand.Rand, pick func() Value) []Value {
	in := []Value{pick()}
	t := b.g.Values[in[0]].Type
	axis := r.Intn(len(t.Dims))
	if axis == 0 && !t.Dims[0].IsConstant() {
		return nil
	}
	for range 8 {
		v := pick()
		u := b.g.Values[v].Type.clone()
		if len(u.Dims) == len(t.Dims) && u.Dims[axis].IsConstant() {
			u.Dims[axis] = t.Dims[axis]
			if u.Equal(t) && len(in) < 3 {
				in = append(in, v)
			}
		}
	}
	out := t.clone()
	out.Dims[axis] = constant(0)
	var starts []int64
	var aliases []Alias
	for j, v := range in {
		starts, aliases = append(starts, out.Dims[axis].Constant), append(aliases, Alias{0, j, AliasJoin})
		out.Dims[axis].Constant += b.g.Values[v].Type.Dims[axis].Constant
	}
	s := &OpSchema{Name: "join", Kind: Static, NumInputs: len(in), NumOutputs: 1, Infer: gives(out), Aliases: aliases, StridedInputs: uint64(r.Intn(2) * 7 & (1<<len(in) - 1)),
		Part: func(alias int, _, _ []Type, _ []Attr) (Part, error) { return Part{axis, starts[alias]}, nil }}
	return b.ops(s, in...)
}

// simulator runs a plan on memories whose bytes hold who wrote them: a number for each byte ever written. Nodes are as
// hostile as their schemas allow: outputs and scratch are written before inputs are read, except where an output is
// declared to overwrite the input that lies there, or to be joined of inputs that do.
type simulator struct {
	p            *Plan
	tokens, seqs int64
	arena        []int64
	given        map[Place][][]int64 // the caller's tensors, by place and index
	staged       map[Place][]bool    // of inputs and outputs: whether the tensor was too short
	expect       [][]int64           // per value: the bytes that a reader must see, in the value's own order
	next         int64
}

func (s *simulator) bytes(v Value) int64 { return s.p.Graph.Values[v].Type.Bytes(s.tokens, s.seqs) }

// base is the memory in which a storage lies, from the first byte of its block or tensor.
func (s *simulator) base(st Storage) []int64 {
	offsets := s.p.LayoutOf(s.tokens).Offsets
	switch {
	case st.Place == PlaceArena:
		return s.arena[offsets[st.Index]:]
	case st.Place == PlaceInput && s.staged[PlaceInput][st.Index]:
		return s.arena[offsets[s.p.InputBlock[st.Index]]:]
	case st.Place == PlaceOutput && s.staged[PlaceOutput][st.Index]:
		return s.arena[offsets[s.p.OutputBlock[st.Index]]:]
	}
	return s.given[st.Place][st.Index]
}

// memory is where each byte of a value lies, in the value's own order.
func (s *simulator) memory(v Value) []*int64 { return s.at(s.p.Storage[v], s.p.Graph.Values[v].Type) }

func (s *simulator) at(st Storage, t Type) []*int64 {
	base := s.base(st)
	shape := t.At(s.tokens, s.seqs).Dims
	steps := st.Strides
	if steps == (Strides{}) {
		n := int64(1)
		for i := len(shape) - 1; i >= 0; i-- {
			steps[i] = n
			n *= shape[i]
		}
	}
	size := t.DType.Size()
	out := make([]*int64, 0, t.Bytes(s.tokens, s.seqs))
	var walk func(dim int, at int64)
	walk = func(dim int, at int64) {
		if dim == len(shape) {
			for b := range size {
				out = append(out, &base[st.Offset+at*size+b])
			}
			return
		}
		for i := range shape[dim] {
			walk(dim+1, at+i*steps[dim])
		}
	}
	walk(0, 0)
	return out
}

// fill writes bytes that were never written before.
func (s *simulator) fill(m []*int64) []int64 {
	out := make([]int64, len(m))
	for i := range m {
		s.next++
		*m[i], out[i] = s.next, s.next
	}
	return out
}

func (s *simulator) write(v Value) { s.expect[v] = s.fill(s.memory(v)) }

// elements numbers the bytes of a part of a tensor in the whole's own order.
func (s *simulator) elements(whole, part Type, at Part) []int64 {
	n := whole.Bytes(s.tokens, s.seqs)
	numbers := make([]int64, n)
	for i := range numbers {
		numbers[i] = int64(i)
	}
	row, extent := whole.DType.Size(), whole.At(s.tokens, s.seqs).Dims[at.Axis]
	for _, d := range whole.Dims[at.Axis+1:] {
		row *= d.Constant
	}
	length := part.At(s.tokens, s.seqs).Dims[at.Axis]
	var out []int64
	for i, x := range numbers {
		if k := int64(i) / row % extent; k >= at.Start && k < at.Start+length {
			out = append(out, x)
		}
	}
	return out
}

func (s *simulator) check(what string, v Value, m []*int64) error {
	for i, got := range m {
		if i >= len(s.expect[v]) || *got != s.expect[v][i] {
			return fmt.Errorf("%s: `%s` byte %d holds %d, must be one of %d bytes (%d tokens, %d seqs)", what, s.p.Graph.Values[v].Name, i,
				*got, len(s.expect[v]), s.tokens, s.seqs)
		}
	}
	return nil
}

// simulate runs a plan at one size, with some of the caller's tensors too short.
func simulate(p *Plan, tokens, seqs int64, short func() bool) error {
	g := p.Graph
	s := &simulator{p: p, tokens: tokens, seqs: seqs, arena: make([]int64, p.ArenaBytes), given: map[Place][][]int64{},
		staged: map[Place][]bool{}, expect: make([][]int64, len(g.Values))}
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
	buffer := func(j int) []*int64 {
		return s.at(Storage{Place: PlaceOutput, Index: j}, g.Values[g.Outputs[j].Value].Type)
	}
	for _, c := range p.Copies {
		from := s.memory(c.Value)
		for i, to := range buffer(c.Output) {
			*to = *from[i]
		}
	}
	for j, o := range g.Outputs {
		if err := s.check("output `"+o.Name+"`", o.Value, buffer(j)); err != nil {
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
	g := s.p.Graph
	late := make([]bool, len(n.Outputs))              // written behind the reads: over an input, as declared
	shows := slices.Repeat([]int{-1}, len(n.Outputs)) // the alias by which it shows an input
	same := func(v, w Value) bool {                   // at every byte
		a, b := s.memory(v), s.memory(w)
		return len(a) == 0 || len(a) == len(b) && a[0] == b[0] && a[len(a)-1] == b[len(b)-1] && s.p.Storage[v] == s.p.Storage[w]
	}
	for a, alias := range n.Schema.Aliases {
		if alias.Input >= len(n.Inputs) {
			continue
		}
		in, out := n.Inputs[alias.Input], n.Outputs[alias.Output]
		switch alias.Kind {
		case AliasView:
			shows[alias.Output] = a
		case AliasPart:
			whole, part := s.memory(in), s.memory(out)
			lies := len(part) > 0
			for k, from := range s.elements(g.Values[in].Type, g.Values[out].Type, n.Parts[a]) {
				lies = lies && whole[from] == part[k]
			}
			if lies {
				shows[alias.Output] = a
			}
		case AliasInPlace:
			if same(in, out) {
				late[alias.Output] = true
			}
		}
	}
	joined := map[*int64]bool{} // bytes of outputs that inputs lie in
	for a, alias := range n.Schema.Aliases {
		if alias.Kind != AliasJoin || alias.Input >= len(n.Inputs) {
			continue
		}
		in, out := n.Inputs[alias.Input], n.Outputs[alias.Output]
		whole, part := s.memory(out), s.memory(in)
		lies := true
		for k, to := range s.elements(g.Values[out].Type, g.Values[in].Type, n.Parts[a]) {
			lies = lies && whole[to] == part[k]
		}
		if lies {
			if err := s.check("joined input of "+n.Name, in, part); err != nil {
				return err
			}
			for _, b := range part {
				joined[b] = true
			}
		}
	}
	write := func(v Value) { // all but what is there already
		s.expect[v] = nil
		for _, b := range s.memory(v) {
			if !joined[b] {
				s.next++
				*b = s.next
			}
			s.expect[v] = append(s.expect[v], *b)
		}
	}
	for k, out := range n.Outputs {
		if !late[k] && shows[k] < 0 {
			write(out)
		}
	}
	if k := s.p.WorkspaceBlock[i]; k >= 0 {
		if n.Schema.Workspace == nil {
			return fmt.Errorf("%s: workspace that it did not ask for", n.Name)
		}
		l := s.p.LayoutOf(s.tokens)
		for b := range l.Bytes[k] {
			s.next++
			s.arena[l.Offsets[k]+b] = s.next
		}
	}
	for _, in := range n.Inputs {
		if err := s.check("input of "+n.Name, in, s.memory(in)); err != nil {
			return err
		}
	}
	for j, in := range n.Inputs {
		if n.Schema.Mutates>>j&1 != 0 {
			s.write(in)
			for v := range s.expect { // views of a state show what is written to it
				if w := Value(v); w != in && s.p.Storage[w].Place == PlaceBound && s.p.Storage[w].Index == g.Values[in].Slot && s.expect[v] != nil {
					s.expect[v] = nil
					for _, b := range s.memory(w) {
						s.expect[v] = append(s.expect[v], *b)
					}
				}
			}
		}
	}
	for k, out := range n.Outputs {
		if late[k] && shows[k] < 0 {
			write(out)
		}
		if shows[k] < 0 {
			continue
		}
		alias := n.Schema.Aliases[shows[k]]
		in := n.Inputs[alias.Input]
		if alias.Kind == AliasView {
			s.expect[out] = s.expect[in][:s.bytes(out)]
			continue
		}
		s.expect[out] = nil
		for _, from := range s.elements(g.Values[in].Type, g.Values[out].Type, n.Parts[shows[k]]) {
			s.expect[out] = append(s.expect[out], s.expect[in][from])
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
	inPlaces, copies, gaps, strided, layouts := 0, 0, 0, 0, 0
	for seed := 0; seed < graphs; seed++ {
		r := rand.New(rand.NewSource(int64(seed)))
		g := randomGraph(t, r)
		require.NoError(t, g.Freeze(), "seed %d", seed)
		o := Options{Mode: Mode(r.Intn(5)), SeqBuckets: []int64{1, 2, 3}, Buckets: []int64{2, 4, 5, 8}, Layout: LayoutMode(r.Intn(3)), Nodes: 200}
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
		layouts += len(p.Layouts) - 1
		copies += len(p.Copies)
		for _, b := range p.Blocks {
			roots := map[Value]bool{}
			for _, v := range b.Values {
				if p.Storage[v].Strides != (Strides{}) {
					strided++
				}
				roots[g.root(v)] = true
			}
			inPlaces += max(0, len(roots)-1)
		}
	}
	t.Logf("%d graphs: %d in-place outputs, %d copies, %d with a gap, %d values with strides, %d more layouts", graphs, inPlaces, copies, gaps, strided, layouts)
	require.Greater(t, inPlaces, graphs/4, "the generator must reach in-place outputs")
	require.Greater(t, copies, graphs/4)
	require.Greater(t, strided, graphs/10, "the generator must reach parts")
	require.Greater(t, layouts, graphs/10)
}

// randomOptions are of plans for random graphs.
func randomOptions(r *rand.Rand) Options {
	o := Options{Mode: Mode(r.Intn(5)), QueryLen: int64(r.Intn(2)), Layout: LayoutMode(r.Intn(3)), Nodes: int64(r.Intn(3)) * 50}
	for range 1 + r.Intn(5) {
		o.Buckets = append(o.Buckets, 1+r.Int63n(9))
		o.SeqBuckets = append(o.SeqBuckets, 1+r.Int63n(5))
	}
	return o
}

// TestSoak plans as many random graphs, each for a random set of buckets, as the environment asks for; `make soak` does.
// Every plan is checked where it is made, and every hundredth is run by the simulator.
func TestSoak(t *testing.T) {
	graphs, err := strconv.Atoi(os.Getenv("ADCG_SOAK_GRAPHS"))
	if err != nil {
		t.Skip("ADCG_SOAK_GRAPHS is not set: make soak")
	}
	atBound, layouts := 0, 0
	for seed := range graphs {
		r := rand.New(rand.NewSource(int64(1e9) + int64(seed)))
		g := randomGraph(t, r)
		require.NoError(t, g.Freeze(), "seed %d", seed)
		p, err := NewPlan(g, randomOptions(r))
		require.NoError(t, err, "seed %d", seed)
		if p.ArenaBytes == p.LowerBound {
			atBound++
		}
		layouts += len(p.Layouts)
		if seed%100 == 0 {
			tokens, seqs := p.Buckets[r.Intn(len(p.Buckets))], p.SeqBuckets[r.Intn(len(p.SeqBuckets))]
			require.NoError(t, simulate(p, tokens, seqs, func() bool { return r.Intn(2) == 0 }), "seed %d", seed)
		}
	}
	t.Logf("%d graphs, %d layouts: no plan that the checker rejects; %d arenas at their bound", graphs, layouts, atBound)
}

// FuzzPlan plans the graph that a seed stands for and damages the plan: the checker takes the first, and of the damaged ones
// only those that the simulator takes too.
func FuzzPlan(f *testing.F) {
	for seed := range int64(20) {
		f.Add(seed, seed*7)
	}
	f.Fuzz(func(t *testing.T, seed, options int64) {
		g := randomGraph(t, rand.New(rand.NewSource(seed)))
		require.NoError(t, g.Freeze())
		r := rand.New(rand.NewSource(options))
		p, err := NewPlan(g, randomOptions(r))
		require.NoError(t, err)
		tokens, seqs := 1+r.Int63n(g.Limits.MaxTokens), 1+r.Int63n(g.Limits.MaxSeqs)
		short := func() bool { return r.Intn(2) == 0 }
		require.NoError(t, simulate(p, p.Buckets[0], p.SeqBuckets[0], short))
		q := p.clone()
		damage(q, r)
		if Check(q) == nil {
			require.NoError(t, try(q, tokens, seqs, short))
		}
	})
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
					held := int64(0)
					if k := p.WorkspaceBlock[i]; k >= 0 {
						held = p.LayoutOf(max(size[0], 1)).Bytes[k]
					}
					require.LessOrEqual(t, needs, held, "%s at %v", p.Graph.Nodes[i].Name, size)
				}
			}
		}
	}
}
