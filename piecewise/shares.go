package piecewise

// shares decides which outputs are given as their input's memory: views always, parts where all that read them can take
// their strides. It knows what reads each value, and in which form it is read.
type shares struct {
	g       *Graph
	readers []reader // of all values, one value's after the other's
	begin   []int32  // per value, and one more: where its readers begin
	output  []bool   // per value: the caller reads it, compactly
	shown   [][]int  // per node and output: the input that it shows; -1: none. Nil: not decided yet
}

type reader struct{ node, input int32 }

func findShares(g *Graph) *shares {
	s := &shares{g: g, begin: make([]int32, len(g.Values)+1), output: make([]bool, len(g.Values)), shown: make([][]int, len(g.Nodes))}
	outputs := 0
	for i := range g.Nodes {
		outputs += len(g.Nodes[i].Outputs)
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
	for _, o := range g.Outputs {
		s.output[o.Value] = true
	}
	forms := make([]form, len(g.Values)) // as far as parts and views alone decide them
	room := make([]int, outputs)
	for i := range g.Nodes {
		n := &g.Nodes[i]
		shown := room[:len(n.Outputs):len(n.Outputs)]
		room = room[len(n.Outputs):]
		for k, v := range n.Outputs {
			shown[k] = -1
			in, f, can := s.sharedForm(n, k, forms)
			if in >= 0 && can && s.mayHave(v, f) {
				shown[k], forms[v] = in, f
			}
		}
		s.shown[i] = shown
	}
	return s
}

// sharedForm is the input that output k of a node can show, -1 if none, and the form that it has then, which strides may
// rule out.
func (s *shares) sharedForm(n *Node, k int, forms []form) (input int, f form, can bool) {
	for a, alias := range n.Schema.Aliases {
		if alias.Output != k || alias.Kind != AliasView && alias.Kind != AliasPart {
			continue
		}
		in := n.Inputs[alias.Input]
		from, to := s.g.Values[in].Type, s.g.Values[n.Outputs[k]].Type
		if alias.Kind == AliasPart {
			return alias.Input, forms[in].part(from, to, n.Parts[a]), true
		}
		f, can = forms[in].view(from, to)
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
	for _, r := range s.readers[s.begin[v]:s.begin[v+1]] {
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
		decided := s.shown[i] != nil
		switch {
		case kind == AliasView:
			g, can := f.view(from, to)
			if !can || !s.mayHave(v, g) {
				return false
			}
		case kind == AliasPart && (!decided || s.shown[i][k] == j):
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
	for _, in := range s.shown[i] {
		if in < 0 {
			return true
		}
	}
	return s.g.Nodes[i].Schema.Mutates != 0 || len(s.shown[i]) == 0
}
