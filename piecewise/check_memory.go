package piecewise

import "slices"

// contents are bytes of one block that hold something from a half time to another, both inclusive. A node's inputs are
// read, its workspace used and its outputs written throughout both halves of its time, but an output that is written in
// place over an input has the second half, and that input the first.
type contents struct {
	block    int32
	from, to int32
	value    Value // whose they are; -1: a workspace's, or a copied output's
	node     int32 // whose workspace they are; -1
	output   int32 // whose copy they are; -1
	whole    Value // the value that these are joined to: they may lie in it; -1: none
	over     Value // the value whose contents, or a part of them, they were written over by right; -1: none
}

func (c *checker) nameOf(x *contents) string {
	g := c.p.Graph
	switch {
	case x.value >= 0:
		return g.Values[x.value].Name
	case x.output >= 0:
		return g.Outputs[x.output].Name
	}
	return "workspace of " + g.Nodes[x.node].Name
}

// start is the first byte of contents in their block.
func (c *checker) start(x *contents) int64 {
	if x.value < 0 {
		return 0
	}
	return c.p.Storage[x.value].Offset
}

// stop is the byte of the block behind the last one, at a size.
func (c *checker) stop(x *contents, tokens, seqs int64) int64 {
	if x.node >= 0 {
		return c.p.WorkspaceBytes[x.node]
	}
	if x.output >= 0 {
		return c.sizes[c.p.Graph.Outputs[x.output].Value].at(tokens, seqs)
	}
	bytes, s := c.sizes[x.value].at(tokens, seqs), &c.p.Storage[x.value]
	switch {
	case bytes == 0: // no row: nothing of it is touched
		return 0
	case s.Strides == (Strides{}):
		return s.Offset + bytes
	}
	t := &c.p.Graph.Values[x.value].Type
	last := int64(0)
	for i, d := range t.Dims {
		last += (d.At(tokens, seqs) - 1) * s.Strides[i]
	}
	return s.Offset + (last+1)*t.DType.Size()
}

// checkLayouts: they rise to the limits, and each has a place within the arena for each block.
func (c *checker) checkLayouts() error {
	p := c.p
	if len(p.Layouts) == 0 || p.Layouts[len(p.Layouts)-1].MaxTokens != p.Graph.Limits.MaxTokens {
		return Errorf(ErrInternal, "plan: no layout serves %d tokens", p.Graph.Limits.MaxTokens)
	}
	for k := range p.Layouts {
		l := &p.Layouts[k]
		if l.MaxTokens < 1 || k > 0 && l.MaxTokens <= p.Layouts[k-1].MaxTokens || len(l.Offsets) != len(p.Blocks) || len(l.Bytes) != len(p.Blocks) {
			return Errorf(ErrInternal, "plan: layout %d: up to %d tokens, %d offsets and %d sizes of %d blocks", k, l.MaxTokens, len(l.Offsets), len(l.Bytes), len(p.Blocks))
		}
		for i := range p.Blocks {
			at, size, b := l.Offsets[i], max(l.Bytes[i], 1), &p.Blocks[i]
			if at < 0 || at%Alignment != 0 {
				return Errorf(ErrInternal, "plan: `%s`: offset %d, must be a multiple of %d", b.Name, at, Alignment)
			}
			if size > p.ArenaBytes || at > p.ArenaBytes-size {
				return Errorf(ErrInternal, "plan: `%s`: bytes %d to %d, the arena has %d", b.Name, at, at+size, p.ArenaBytes)
			}
		}
	}
	if p.Main < 0 || p.Main >= len(p.Layouts) || p.Layouts[p.Main].LowerBound != p.LowerBound {
		return Errorf(ErrInternal, "plan: main layout: %d of %d, with the lower bound %d", p.Main, len(p.Layouts), p.LowerBound)
	}
	main := &p.Layouts[p.Main]
	for i := range p.Blocks {
		b := &p.Blocks[i]
		if b.Offset != main.Offsets[i] || b.Bytes != main.Bytes[i] {
			return Errorf(ErrInternal, "plan: block `%s`: %d bytes at %d, the main layout has %d at %d", b.Name, b.Bytes, b.Offset, main.Bytes[i], main.Offsets[i])
		}
	}
	return nil
}

// checkStorage: the caller's values lie with the caller, and nothing else does but what shows them and what an output's
// buffer is meant for.
func (c *checker) checkStorage() error {
	g := c.p.Graph
	number := make([]int32, len(g.Values)) // of inputs among the inputs, of bound values among those
	for _, list := range [][]Value{g.Inputs, g.Bound} {
		for k, v := range list {
			number[v] = int32(k)
		}
	}
	counts := [...]int{PlaceArena: len(c.p.Blocks), PlaceInput: len(g.Inputs), PlaceBound: len(g.Bound), PlaceOutput: len(g.Outputs)}
	for v := range g.Values {
		info, s := &g.Values[v], &c.p.Storage[v]
		ok := s.Offset >= 0
		switch info.Role {
		case RoleInput:
			ok = *s == Storage{Place: PlaceInput, Index: int(number[v])}
		case RoleWeight, RoleState:
			ok = *s == Storage{Place: PlaceBound, Index: int(number[v])}
		default:
			count := 0
			if s.Place >= PlaceArena && s.Place <= PlaceOutput {
				count = counts[s.Place]
			}
			ok = ok && s.Index >= 0 && s.Index < count
			if ok && s.Place == PlaceArena && c.p.Blocks[s.Index].Kind != BlockActivation {
				ok = false
			}
		}
		if !ok {
			return Errorf(ErrInternal, "plan: %s `%s` in %s %d at %d: it cannot lie there", info.Role, info.Name, s.Place, s.Index, s.Offset)
		}
	}
	return nil
}

// stretch is where part of a value lies, worked out from the value's own place.
func stretch(whole Storage, wholeType, partType *Type, at Part) Storage {
	dense := func(t *Type) (s Strides) {
		s[len(t.Dims)-1] = 1
		for i := len(t.Dims) - 2; i >= 0; i-- {
			s[i] = s[i+1] * t.Dims[i+1].Constant
		}
		return s
	}
	steps := whole.Strides
	if steps == (Strides{}) {
		steps = dense(wholeType)
	}
	whole.Offset += at.Start * steps[at.Axis] * wholeType.DType.Size()
	compact, same := dense(partType), true
	for i := len(partType.Dims) - 1; i >= 0; i-- {
		if d := partType.Dims[i]; i == 0 || d.Constant != 1 {
			same = same && steps[i] == compact[i]
		} else if steps[i] = 1; i+1 < len(partType.Dims) { // a dim of one element is stepped over as if it were dense
			steps[i] = steps[i+1] * partType.Dims[i+1].Constant
		}
	}
	if whole.Strides = steps; same {
		whole.Strides = Strides{}
	}
	return whole
}

// traceContents follows the program: whose contents each value shows, when they are written and read last.
func (c *checker) traceContents() error {
	g, p := c.p.Graph, c.p
	c.root, c.written, c.read = make([]Value, len(g.Values)), make([]int32, len(g.Values)), make([]int32, len(g.Values))
	c.shows = make([]int32, len(g.Values))
	for v := range g.Values {
		c.root[v], c.shows[v] = Value(v), -1
	}
	for i := range g.Nodes {
		n, time := &g.Nodes[i], int32(i+1)
		for _, v := range n.Inputs {
			c.read[c.root[v]] = time
		}
		for _, v := range n.Outputs {
			c.written[v], c.read[v] = time, time
		}
		for a, alias := range n.Schema.Aliases {
			if alias.Kind != AliasView && alias.Kind != AliasPart {
				continue
			}
			in, out := n.Inputs[alias.Input], n.Outputs[alias.Output]
			from, to := &g.Values[in].Type, &g.Values[out].Type
			if alias.Kind == AliasPart && p.Storage[out] != stretch(p.Storage[in], from, to, n.Parts[a]) {
				continue // a copy
			}
			if alias.Kind == AliasView {
				if s, t := &p.Storage[out], &p.Storage[in]; s.Place != t.Place || s.Index != t.Index || s.Offset != t.Offset {
					return Errorf(ErrInternal, "plan: `%s` is a view of `%s`, and lies elsewhere", g.Values[out].Name, g.Values[in].Name)
				}
				if !c.compareBytes(out, in, func(a, b int64) bool { return a <= b }) {
					return Errorf(ErrInternal, "plan: `%s` is a view of `%s`, and larger", g.Values[out].Name, g.Values[in].Name)
				}
				if p.Storage[in].Strides != (Strides{}) && !sameElements(from, p.Storage[in].Strides, to, p.Storage[out].Strides) {
					return Errorf(ErrInternal, "plan: `%s` is a view of `%s`, and does not show its elements", g.Values[out].Name, g.Values[in].Name)
				}
				if p.Storage[in].Strides == (Strides{}) && p.Storage[out].Strides != (Strides{}) {
					return Errorf(ErrInternal, "plan: `%s` is a view of `%s`, which is compact", g.Values[out].Name, g.Values[in].Name)
				}
			}
			c.root[out] = c.root[in]
			c.shows[out] = int32(alias.Input)
		}
		idle := n.Schema.Mutates == 0 && len(n.Outputs) > 0
		for _, v := range n.Outputs {
			idle = idle && c.shows[v] >= 0
		}
		if p.Runs[i] == idle {
			return Errorf(ErrInternal, "plan: op `%s`: runs: %v", n.Name, p.Runs[i])
		}
	}
	for _, o := range g.Outputs {
		c.read[c.root[o.Value]] = c.end
	}
	return nil
}

// sameElements walks two strided rows in step: element by element of the first row, and from row to row.
func sameElements(from *Type, fromSteps Strides, to *Type, toSteps Strides) bool {
	if toSteps == (Strides{}) {
		steps := int64(1)
		for i := len(to.Dims) - 1; i >= 0; i-- {
			toSteps[i] = steps
			steps *= to.Dims[i].Constant
		}
	}
	if from.DType != to.DType || from.Dims[0] != to.Dims[0] || fromSteps[0] != toSteps[0] || from.RowBytes() != to.RowBytes() {
		return false
	}
	at := func(t *Type, steps *Strides, n int64) (offset int64) {
		for i := len(t.Dims) - 1; i > 0; i-- {
			offset += n % t.Dims[i].Constant * steps[i]
			n /= t.Dims[i].Constant
		}
		return offset
	}
	// The offset is a sum over mixed radix digits: it is enough to look at the units of every digit of either shape.
	for _, t := range []*Type{from, to} {
		unit := int64(1)
		for i := len(t.Dims) - 1; i > 0; i-- {
			for n := int64(1); n < t.Dims[i].Constant; n++ {
				if at(from, &fromSteps, n*unit) != at(to, &toSteps, n*unit) {
					return false
				}
			}
			unit *= t.Dims[i].Constant
		}
	}
	return true
}

// compareBytes compares the sizes of two values at the corners of the limits: both are affine, so that what holds there
// holds between.
func (c *checker) compareBytes(v, w Value, holds func(a, b int64) bool) bool {
	l := &c.p.Graph.Limits
	a, b := c.sizes[v], c.sizes[w]
	for _, tokens := range [...]int64{1, l.MaxTokens} {
		for _, seqs := range [...]int64{1, l.MaxSeqs} {
			if !holds(a.at(tokens, seqs), b.at(tokens, seqs)) {
				return false
			}
		}
	}
	return true
}

// sameBytes tells whether two values have the same size, whatever the counts are.
func (c *checker) sameBytes(v, w Value) bool {
	return c.sizes[v] == c.sizes[w] || c.compareBytes(v, w, func(a, b int64) bool { return a == b })
}

// checkForms: only who says so gets tensors with strides, and what is written lies in the arena or in an output.
func (c *checker) checkForms() error {
	g, p := c.p.Graph, c.p
	for i := range g.Nodes {
		n := &g.Nodes[i]
		for j, v := range n.Inputs {
			if p.Storage[v].Strides == (Strides{}) || !p.Runs[i] || n.Schema.StridedInputs>>j&1 != 0 {
				continue
			}
			only := n.Schema.Mutates == 0 // read by nothing but what shows it
			for _, v := range n.Outputs {
				only = only && int(c.shows[v]) == j
			}
			if !only {
				return Errorf(ErrInternal, "plan: op `%s`: input %d, `%s`, has strides", n.Name, j, g.Values[v].Name)
			}
		}
		for k, v := range n.Outputs {
			if c.shows[v] >= 0 {
				continue
			}
			s := &p.Storage[v]
			if s.Strides != (Strides{}) && n.Schema.StridedOutputs>>k&1 == 0 {
				return Errorf(ErrInternal, "plan: op `%s`: output %d, `%s`, has strides", n.Name, k, g.Values[v].Name)
			}
			if s.Place != PlaceArena && s.Place != PlaceOutput {
				return Errorf(ErrInternal, "plan: `%s` in %s %d at %d: is written there", g.Values[v].Name, s.Place, s.Index, s.Offset)
			}
		}
	}
	return nil
}

// checkOutputs: each output's buffer is written by ops, or copied to, and not both.
func (c *checker) checkOutputs() error {
	g, p := c.p.Graph, c.p
	copies := make([]int, len(g.Outputs))
	for _, cp := range p.Copies {
		if cp.Output < 0 || cp.Output >= len(g.Outputs) || g.Outputs[cp.Output].Value != cp.Value {
			return Errorf(ErrInternal, "plan: copy of value %d to output %d", cp.Value, cp.Output)
		}
		copies[cp.Output]++
	}
	buffer := func(j int) Storage { return Storage{Place: PlaceOutput, Index: j} }
	for j, o := range g.Outputs {
		s := &p.Storage[o.Value]
		want := 1
		if *s == buffer(j) {
			want = 0
		}
		if copies[j] != want {
			return Errorf(ErrInternal, "plan: output `%s`: %d copies, must be %d", o.Name, copies[j], want)
		}
		if s.Strides != (Strides{}) {
			return Errorf(ErrInternal, "plan: output `%s`: its value has strides", o.Name)
		}
	}
	for v := range g.Values {
		if s := &p.Storage[v]; s.Place == PlaceOutput && p.Storage[g.Outputs[s.Index].Value] != buffer(s.Index) {
			return Errorf(ErrInternal, "plan: `%s` in output %d at %d: that output's value lies elsewhere", g.Values[v].Name, s.Index, s.Offset)
		}
	}
	return nil
}

// placeContents lists all contents but workspaces.
func (c *checker) placeContents() error {
	g, p := c.p.Graph, c.p
	c.of = slices.Repeat([]int32{-1}, len(g.Values))
	c.contents = make([]contents, 0, len(g.Values)+len(p.Copies)+len(g.Nodes)/8)
	for v := range g.Values {
		if c.root[v] != Value(v) || p.Storage[v].Place == PlaceBound {
			continue
		}
		c.of[v] = int32(len(c.contents))
		c.contents = append(c.contents, contents{block: int32(c.blockOf(Value(v))), from: 2 * c.written[v], to: 2*c.read[v] + 1, value: Value(v), node: -1,
			output: -1, whole: -1, over: -1})
	}
	for _, cp := range p.Copies {
		c.contents = append(c.contents, contents{block: int32(p.OutputBlock[cp.Output]), from: 2 * c.end, to: 2*c.end + 1, value: -1, node: -1,
			output: int32(cp.Output), whole: -1, over: -1})
	}
	return nil
}

// blockOf is the block that holds a value when all inputs and outputs are staged; -1 for weights and states.
func (c *checker) blockOf(v Value) int {
	s := &c.p.Storage[v]
	switch s.Place {
	case PlaceArena:
		return s.Index
	case PlaceInput:
		return c.p.InputBlock[s.Index]
	case PlaceOutput:
		return c.p.OutputBlock[s.Index]
	}
	return -1
}

// findTakeovers finds the outputs that lie exactly where an input of their node lies, and may: they take the second half
// of the node's time. Where they may not, both keep the whole, and will be found to overlap.
func (c *checker) findTakeovers() error {
	g, p := c.p.Graph, c.p
	for i := range g.Nodes {
		n, half := &g.Nodes[i], int32(2*(i+1))
		if len(n.Schema.Aliases) == 0 {
			continue
		}
		for k, out := range n.Outputs {
			if c.root[out] != out {
				continue
			}
			for j, in := range n.Inputs {
				if c.of[c.root[in]] < 0 || p.Storage[in] != p.Storage[out] || !c.mayTakeOver(i, k, j) {
					continue
				}
				old, mine := &c.contents[c.of[c.root[in]]], &c.contents[c.of[out]]
				mine.from, mine.over = half+1, c.root[in]
				if c.sameBytes(in, c.root[in]) {
					old.to = min(old.to, half)
				}
				break
			}
		}
	}
	return nil
}

// mayTakeOver tells whether output k of node i may be written over input j, whose contents nobody reads afterwards. Of
// contents that are larger than the input, what is not overwritten may be read on, by what shows just that.
func (c *checker) mayTakeOver(i, k, j int) bool {
	g := c.p.Graph
	n := &g.Nodes[i]
	out, in := n.Outputs[k], n.Inputs[j]
	old := c.root[in]
	if !slices.Contains(n.Schema.Aliases, Alias{k, j, AliasInPlace}) || g.Values[old].Role != RoleActivation || !c.sameBytes(out, in) {
		return false
	}
	touches := func(v Value) bool { return c.root[v] == old && (v == in || !c.separate(v, in)) }
	for _, v := range n.Outputs {
		if touches(v) {
			return false // the node itself gives these contents out
		}
	}
	for other, v := range n.Inputs {
		if touches(v) && (v != in || !slices.Contains(n.Schema.Aliases, Alias{k, other, AliasInPlace})) {
			return false
		}
	}
	if c.sameBytes(in, old) {
		return int(c.read[old]) <= i+1
	}
	for later := i + 1; later < len(g.Nodes) && later < int(c.read[old]); later++ {
		if slices.ContainsFunc(g.Nodes[later].Inputs, touches) {
			return false
		}
	}
	return !slices.ContainsFunc(g.Outputs, func(o Output) bool { return touches(o.Value) })
}

// separate tells whether two values of one place are columns of the same rows that share no byte.
func (c *checker) separate(v, w Value) bool {
	columns := func(v Value) (first, end, row int64) {
		s, shape := &c.p.Storage[v], &c.p.Graph.Values[v].Type
		at, steps := s.Offset, &s.Strides
		size, reach, dense := shape.DType.Size(), int64(1), int64(1)
		for i := len(shape.Dims) - 1; i > 0; i-- {
			step := steps[i]
			if *steps == (Strides{}) {
				step = dense
			}
			dense *= shape.Dims[i].Constant
			reach += (shape.Dims[i].Constant - 1) * step
		}
		row = steps[0]
		if *steps == (Strides{}) {
			row = dense
		}
		row *= size
		first = at - at/max(row, 1)*row // whichever row it begins in
		return first, first + reach*size, row
	}
	a, aEnd, aRow := columns(v)
	b, bEnd, bRow := columns(w)
	return aRow == bRow && aEnd <= aRow && bEnd <= bRow && (aEnd <= b || bEnd <= a)
}

// findJoins finds the inputs that lie where their node joins them: they are read as long as the whole is.
func (c *checker) findJoins() error {
	g, p := c.p.Graph, c.p
	for i := len(g.Nodes) - 1; i >= 0; i-- { // what is joined into something that is joined is read as long as that
		n := &g.Nodes[i]
		for a, alias := range n.Schema.Aliases {
			if alias.Kind != AliasJoin || alias.Input >= len(n.Inputs) {
				continue
			}
			in, out := n.Inputs[alias.Input], n.Outputs[alias.Output]
			if c.root[out] != out || c.of[c.root[in]] < 0 || p.Storage[in] != stretch(p.Storage[out], &g.Values[out].Type, &g.Values[in].Type, n.Parts[a]) {
				continue
			}
			part := &c.contents[c.of[c.root[in]]]
			if int(part.to) < 2*(i+1)+1 || part.whole >= 0 || c.root[in] != in && !c.sameBytes(in, c.root[in]) {
				continue // gone by then, or more than what is joined: an overlap
			}
			part.whole = out
			part.to = max(part.to, c.contents[c.of[out]].to)
		}
	}
	return nil
}

func (c *checker) placeWorkspaces() error {
	g, p := c.p.Graph, c.p
	type answer struct {
		node  *Node
		least []int64 // per layout
	}
	last := map[*OpSchema]answer{} // a model's layers ask the same
	for i := range g.Nodes {
		n := &g.Nodes[i]
		k := p.WorkspaceBlock[i]
		if k < 0 && n.Schema.Workspace == nil && p.WorkspaceBytes[i] == 0 {
			continue
		}
		said, asked := last[n.Schema]
		if !asked || !g.sameArguments(n, said.node) {
			said = answer{n, make([]int64, len(p.Layouts))}
			for j := range p.Layouts {
				var err error
				if said.least[j], err = c.workspaceOf(n, p.Layouts[j].MaxTokens); err != nil {
					return err
				}
			}
			last[n.Schema] = said
		}
		for j := range p.Layouts {
			bytes := int64(0)
			if k >= 0 {
				bytes = p.Layouts[j].Bytes[k]
			}
			if bytes < said.least[j] || bytes > p.WorkspaceBytes[i] {
				return Errorf(ErrInternal, "plan: op `%s`: %d bytes of workspace, needs %d, and %d at the most", n.Name, bytes, said.least[j], p.WorkspaceBytes[i])
			}
		}
		if k >= 0 {
			c.contents = append(c.contents, contents{block: int32(k), from: int32(2 * (i + 1)), to: int32(2*(i+1) + 1), value: -1, node: int32(i), output: -1,
				whole: -1, over: -1})
		} else if p.WorkspaceBytes[i] != 0 {
			return Errorf(ErrInternal, "plan: op `%s`: %d bytes of workspace in no block", n.Name, p.WorkspaceBytes[i])
		}
	}
	return nil
}

// workspaceOf asks a node for the bytes of scratch at most sequences.
func (c *checker) workspaceOf(n *Node, tokens int64) (int64, error) {
	if n.Schema.Workspace == nil {
		return 0, nil
	}
	g := c.p.Graph
	var inputs, outputs []Shape
	for _, v := range n.Inputs {
		inputs = append(inputs, g.Values[v].Type.At(tokens, g.Limits.MaxSeqs))
	}
	for _, v := range n.Outputs {
		outputs = append(outputs, g.Values[v].Type.At(tokens, g.Limits.MaxSeqs))
	}
	bytes, err := n.Schema.Workspace(inputs, outputs, n.Attrs, tokens, g.Limits.MaxSeqs)
	if err != nil {
		return 0, opError(n, err)
	}
	return bytes, nil
}
