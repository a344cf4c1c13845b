package piecewise

// shares decides which outputs are given as their input's memory: views always, parts where all that read them can take
// their strides. It knows what reads each value, and in which form it is read.
type shares struct {
	g       *Graph
	bytes   []Dim    // per value: its size, as a formula
	readers []reader // of all values, one value's after the other's; nil until somebody asks for strides
	begin   []int32  // per value, and one more: where its readers begin
	output  []bool   // per value: the caller reads it, compactly
	shown   []int32  // per value: the input that it shows, of the node that it is an output of; -1: none
	decided int      // nodes whose shown are known
}

type reader struct{ node, input int32 }

// forms of values. Most graphs have none that differs from that of a whole, compact memory: nil then.
type forms []form

func (f forms) of(v Value) form {
	if f == nil {
		return form{}
	}
	return f[v]
}

// set gives one of so many values a form.
func (f *forms) set(v Value, to form, count int) {
	if *f == nil {
		if to == (form{}) {
			return
		}
		*f = make(forms, count)
	}
	(*f)[v] = to
}

func findShares(g *Graph) *shares {
	s := &shares{g: g, bytes: make([]Dim, len(g.Values)), output: make([]bool, len(g.Values)), shown: make([]int32, len(g.Values))}
	for v := range g.Values {
		s.bytes[v], s.shown[v] = byteFormula(g.Values[v].Type), -1
	}
	for _, o := range g.Outputs {
		s.output[o.Value] = true
	}
	var known forms // as far as parts and views alone decide them
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if len(n.Schema.Aliases) > 0 {
			for k, v := range n.Outputs {
				in, f, can := s.sharedForm(n, k, known)
				if in >= 0 && can && s.mayHave(v, f) {
					s.shown[v] = int32(in)
					known.set(v, f, len(g.Values))
				}
			}
		}
		s.decided = i + 1
	}
	return s
}

// readersOf are the inputs that a value is read through.
func (s *shares) readersOf(v Value) []reader {
	if s.readers == nil {
		s.findReaders()
	}
	return s.readers[s.begin[v]:s.begin[v+1]]
}

func (s *shares) findReaders() {
	g := s.g
	s.begin = make([]int32, len(g.Values)+1)
	for i := range g.Nodes {
		for _, v := range g.Nodes[i].Inputs {
			s.begin[v+1]++
		}
	}
	for v := range g.Values {
		s.begin[v+1] += s.begin[v]
	}
	s.readers = make([]reader, s.begin[len(g.Values)])
	for i := len(g.Nodes) - 1; i >= 0; i-- { // begin[v+1] walks down to where v's readers begin
		for j := len(g.Nodes[i].Inputs) - 1; j >= 0; j-- {
			v := g.Nodes[i].Inputs[j]
			s.begin[v+1]--
			s.readers[s.begin[v+1]] = reader{int32(i), int32(j)}
		}
	}
	copy(s.begin, s.begin[1:])
	s.begin[len(g.Values)] = int32(len(s.readers))
}

// sharedForm is the input that output k of a node can show, -1 if none, and the form that it has then, which strides may
// rule out.
func (s *shares) sharedForm(n *Node, k int, known forms) (input int, f form, can bool) {
	for a, alias := range n.Schema.Aliases {
		if alias.Output != k || alias.Kind != AliasView && alias.Kind != AliasPart {
			continue
		}
		in := n.Inputs[alias.Input]
		whole := known.of(in)
		if alias.Kind == AliasView && whole.isCompact() {
			return alias.Input, whole, true
		}
		from, to := s.g.Values[in].Type, s.g.Values[n.Outputs[k]].Type
		if alias.Kind == AliasPart {
			return alias.Input, whole.part(from, to, n.Parts[a]), true
		}
		f, can = whole.view(from, to)
		return alias.Input, f, can
	}
	return -1, form{}, false
}

// mayHave tells whether all that read a value, through what shows it too, can take it in a form.
func (s *shares) mayHave(v Value, f form) bool {
	if f.isCompact() {
		return true
	}
	if s.output[v] {
		return false
	}
	for _, r := range s.readersOf(v) {
		if !s.mayRead(int(r.node), int(r.input), f) {
			return false
		}
	}
	return true
}

// mayRead is mayHave for one input of one node.
func (s *shares) mayRead(i, j int, f form) bool {
	n := &s.g.Nodes[i]
	runs := n.Schema.Mutates != 0 // whether the op itself reads the input, beside what shows it
	for k, v := range n.Outputs {
		kind, part := AliasKind(0), Part{}
		for a, alias := range n.Schema.Aliases {
			if alias.Output == k && alias.Input == j && (alias.Kind == AliasView || alias.Kind == AliasPart) {
				if kind = alias.Kind; kind == AliasPart {
					part = n.Parts[a]
				}
			}
		}
		from, to := s.g.Values[n.Inputs[j]].Type, s.g.Values[v].Type
		decided := i < s.decided
		switch {
		case kind == AliasView:
			g, can := f.view(from, to)
			if !can || !s.mayHave(v, g) {
				return false
			}
		case kind == AliasPart && (!decided || int(s.shown[v]) == j):
			if s.mayHave(v, f.part(from, to, part)) {
				continue
			}
			if decided {
				return false // it shows the input, and cannot any more
			}
			runs = true
		default:
			runs = true
		}
	}
	return !runs || n.Schema.StridedInputs>>j&1 != 0
}

// runs tells whether a node has anything to run: not if every output shows an input, and no state is written.
func (s *shares) runs(i int) bool {
	n := &s.g.Nodes[i]
	for _, v := range n.Outputs {
		if s.shown[v] < 0 {
			return true
		}
	}
	return n.Schema.Mutates != 0 || len(n.Outputs) == 0
}
