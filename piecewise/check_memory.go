package piecewise

import (
	"cmp"
	"slices"
)

// contents are bytes of one block that hold something from a half time to another, both inclusive. A node's inputs are
// read, its workspace used and its outputs written throughout both halves of its time, but an output that is written in
// place over an input has the second half, and that input the first.
type contents struct {
	name     string
	block    int
	from, to int
	at       int64 // bytes, in the block
	strides  *Strides
	shape    *Type
	bytes    int64 // of a workspace
	whole    Value // the value that these are joined to: they may lie in it; -1: none
	over     Value // the value whose contents, or a part of them, they were written over by right; -1: none
	value    Value // whose they are; -1: a workspace's, or a copied output's
}

// checkLayouts: they rise to the limits, and each has a place within the arena for each block.
func (c *checker) checkLayouts() error {
	p := c.p
	if len(p.Layouts) == 0 || p.Layouts[len(p.Layouts)-1].MaxTokens != p.Graph.Limits.MaxTokens {
		return Errorf(ErrInternal, "plan: no layout serves %d tokens", p.Graph.Limits.MaxTokens)
	}
	for k, l := range p.Layouts {
		if l.MaxTokens < 1 || k > 0 && l.MaxTokens <= p.Layouts[k-1].MaxTokens || len(l.Offsets) != len(p.Blocks) || len(l.Bytes) != len(p.Blocks) {
			return Errorf(ErrInternal, "plan: layout %d: up to %d tokens, %d offsets and %d sizes of %d blocks", k, l.MaxTokens, len(l.Offsets), len(l.Bytes), len(p.Blocks))
		}
		for i, b := range p.Blocks {
			at, size := l.Offsets[i], max(l.Bytes[i], 1)
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
	main := p.Layouts[p.Main]
	for i, b := range p.Blocks {
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
	number := make([]int, len(g.Values)) // of inputs among the inputs, of bound values among those
	for _, list := range [][]Value{g.Inputs, g.Bound} {
		for k, v := range list {
			number[v] = k
		}
	}
	counts := [...]int{PlaceArena: len(c.p.Blocks), PlaceInput: len(g.Inputs), PlaceBound: len(g.Bound), PlaceOutput: len(g.Outputs)}
	for v := range g.Values {
		info, s := &g.Values[v], &c.p.Storage[v]
		ok := s.Offset >= 0
		switch info.Role {
		case RoleInput:
			ok = *s == Storage{Place: PlaceInput, Index: number[v]}
		case RoleWeight, RoleState:
			ok = *s == Storage{Place: PlaceBound, Index: number[v]}
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
func stretch(whole Storage, wholeType, partType Type, at Part) Storage {
	dense := func(t Type) (s Strides) {
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
	c.root, c.written, c.read = make([]Value, len(g.Values)), make([]int, len(g.Values)), make([]int, len(g.Values))
	c.shows = make([][]int, len(g.Nodes))
	for v := range g.Values {
		c.root[v] = Value(v)
	}
	room := slices.Repeat([]int{-1}, len(g.Values)) // every output is some node's
	for i := range g.Nodes {
		n := &g.Nodes[i]
		for _, v := range n.Inputs {
			c.read[c.root[v]] = i + 1
		}
		c.shows[i], room = room[:len(n.Outputs):len(n.Outputs)], room[len(n.Outputs):]
		for _, v := range n.Outputs {
			c.written[v], c.read[v] = i+1, i+1
		}
		for a, alias := range n.Schema.Aliases {
			if alias.Kind != AliasView && alias.Kind != AliasPart {
				continue
			}
			in, out := n.Inputs[alias.Input], n.Outputs[alias.Output]
			from, to := g.Values[in].Type, g.Values[out].Type
			if alias.Kind == AliasPart && p.Storage[out] != stretch(p.Storage[in], from, to, n.Parts[a]) {
				continue // a copy
			}
			if alias.Kind == AliasView {
				if s, t := p.Storage[out], p.Storage[in]; s.Place != t.Place || s.Index != t.Index || s.Offset != t.Offset {
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
			c.shows[i][alias.Output] = alias.Input
		}
		idle := n.Schema.Mutates == 0 && len(n.Outputs) > 0 && !slices.Contains(c.shows[i], -1)
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
func sameElements(from Type, fromSteps Strides, to Type, toSteps Strides) bool {
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
	at := func(t Type, steps Strides, n int64) (offset int64) {
		for i := len(t.Dims) - 1; i > 0; i-- {
			offset += n % t.Dims[i].Constant * steps[i]
			n /= t.Dims[i].Constant
		}
		return offset
	}
	// The offset is a sum over mixed radix digits: it is enough to look at the units of every digit of either shape.
	for _, t := range []Type{from, to} {
		unit := int64(1)
		for i := len(t.Dims) - 1; i > 0; i-- {
			for n := int64(1); n < t.Dims[i].Constant; n++ {
				if at(from, fromSteps, n*unit) != at(to, toSteps, n*unit) {
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
	g := c.p.Graph
	for _, tokens := range []int64{1, g.Limits.MaxTokens} {
		for _, seqs := range []int64{1, g.Limits.MaxSeqs} {
			if !holds(g.Values[v].Type.Bytes(tokens, seqs), g.Values[w].Type.Bytes(tokens, seqs)) {
				return false
			}
		}
	}
	return true
}

func equalBytes(a, b int64) bool { return a == b }

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
			for k := range n.Outputs {
				only = only && c.shows[i][k] == j
			}
			if !only {
				return Errorf(ErrInternal, "plan: op `%s`: input %d, `%s`, has strides", n.Name, j, g.Values[v].Name)
			}
		}
		for k, v := range n.Outputs {
			if c.shows[i][k] >= 0 {
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
		s := p.Storage[o.Value]
		want := 1
		if s == buffer(j) {
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
		if s := p.Storage[v]; s.Place == PlaceOutput && p.Storage[g.Outputs[s.Index].Value] != buffer(s.Index) {
			return Errorf(ErrInternal, "plan: `%s` in output %d at %d: that output's value lies elsewhere", g.Values[v].Name, s.Index, s.Offset)
		}
	}
	return nil
}

// placeContents lists all contents but workspaces.
func (c *checker) placeContents() error {
	g, p := c.p.Graph, c.p
	c.of = slices.Repeat([]int{-1}, len(g.Values))
	c.contents = make([]contents, 0, len(g.Values)+len(p.Copies)+len(g.Nodes)/8)
	for v := range g.Values {
		info, s := &g.Values[v], &p.Storage[v]
		if c.root[v] != Value(v) || s.Place == PlaceBound {
			continue
		}
		c.of[v] = len(c.contents)
		c.contents = append(c.contents, contents{name: info.Name, block: c.blockOf(Value(v)), from: 2 * c.written[v], to: 2*c.read[v] + 1, at: s.Offset,
			strides: &s.Strides, shape: &info.Type, whole: -1, over: -1, value: Value(v)})
	}
	for _, cp := range p.Copies {
		o := g.Outputs[cp.Output]
		c.contents = append(c.contents, contents{name: o.Name, block: p.OutputBlock[cp.Output], from: 2 * c.end, to: 2*c.end + 1,
			strides: &Strides{}, shape: &g.Values[o.Value].Type, whole: -1, over: -1, value: -1})
	}
	return nil
}

// blockOf is the block that holds a value when all inputs and outputs are staged; -1 for weights and states.
func (c *checker) blockOf(v Value) int {
	s := &c.p.Storage[v]
	lists := [...][]int{PlaceInput: c.p.InputBlock, PlaceOutput: c.p.OutputBlock}
	if s.Place == PlaceArena {
		return s.Index
	} else if s.Place == PlaceBound {
		return -1
	}
	return lists[s.Place][s.Index]
}

// findTakeovers finds the outputs that lie exactly where an input of their node lies, and may: they take the second half
// of the node's time. Where they may not, both keep the whole, and will be found to overlap.
func (c *checker) findTakeovers() error {
	g := c.p.Graph
	for i := range g.Nodes {
		n := &g.Nodes[i]
		for k, out := range n.Outputs {
			if c.root[out] != out || len(n.Schema.Aliases) == 0 {
				continue
			}
			for j, in := range n.Inputs {
				if c.of[c.root[in]] < 0 || c.p.Storage[in] != c.p.Storage[out] || !c.mayTakeOver(i, k, j) {
					continue
				}
				old, mine := &c.contents[c.of[c.root[in]]], &c.contents[c.of[out]]
				mine.from, mine.over = 2*(i+1)+1, c.root[in]
				if c.compareBytes(in, c.root[in], equalBytes) {
					old.to = min(old.to, 2*(i+1))
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
	if !slices.Contains(n.Schema.Aliases, Alias{k, j, AliasInPlace}) || g.Values[old].Role != RoleActivation || !c.compareBytes(out, in, equalBytes) {
		return false
	}
	touches := func(v Value) bool { return c.root[v] == old && !c.separate(v, in) }
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
	if c.compareBytes(in, old, equalBytes) {
		return c.read[old] <= i+1
	}
	for later := i + 1; later < len(g.Nodes) && later < c.read[old]; later++ {
		if slices.ContainsFunc(g.Nodes[later].Inputs, touches) {
			return false
		}
	}
	return !slices.ContainsFunc(g.Outputs, func(o Output) bool { return touches(o.Value) })
}

// separate tells whether two values of one place are columns of the same rows that share no byte.
func (c *checker) separate(v, w Value) bool {
	s, t := c.p.Storage[v], c.p.Storage[w]
	return separate(s.Offset, s.Strides, c.p.Graph.Values[v].Type, t.Offset, t.Strides, c.p.Graph.Values[w].Type)
}

func separate(at int64, steps Strides, shape Type, other int64, otherSteps Strides, otherShape Type) bool {
	columns := func(at int64, steps Strides, shape Type) (first, end, row int64) {
		size, reach, dense := shape.DType.Size(), int64(1), int64(1)
		for i := len(shape.Dims) - 1; i > 0; i-- {
			step := steps[i]
			if steps == (Strides{}) {
				step = dense
			}
			dense *= shape.Dims[i].Constant
			reach += (shape.Dims[i].Constant - 1) * step
		}
		row = steps[0]
		if steps == (Strides{}) {
			row = dense
		}
		row *= size
		first = at - at/max(row, 1)*row // whichever row it begins in
		return first, first + reach*size, row
	}
	a, aEnd, aRow := columns(at, steps, shape)
	b, bEnd, bRow := columns(other, otherSteps, otherShape)
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
			if c.root[out] != out || c.of[c.root[in]] < 0 || p.Storage[in] != stretch(p.Storage[out], g.Values[out].Type, g.Values[in].Type, n.Parts[a]) {
				continue
			}
			part := &c.contents[c.of[c.root[in]]]
			if part.to < 2*(i+1)+1 || part.whole >= 0 || c.root[in] != in && !c.compareBytes(in, c.root[in], equalBytes) {
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
	for i := range g.Nodes {
		n := &g.Nodes[i]
		k := p.WorkspaceBlock[i]
		if k < 0 && n.Schema.Workspace == nil && p.WorkspaceBytes[i] == 0 {
			continue
		}
		for _, l := range p.Layouts {
			bytes, least := int64(0), int64(0)
			if k >= 0 {
				bytes = l.Bytes[k]
			}
			if n.Schema.Workspace != nil {
				var inputs, outputs []Shape
				for _, v := range n.Inputs {
					inputs = append(inputs, g.Values[v].Type.At(l.MaxTokens, g.Limits.MaxSeqs))
				}
				for _, v := range n.Outputs {
					outputs = append(outputs, g.Values[v].Type.At(l.MaxTokens, g.Limits.MaxSeqs))
				}
				var err error
				if least, err = n.Schema.Workspace(inputs, outputs, n.Attrs, l.MaxTokens, g.Limits.MaxSeqs); err != nil {
					return opError(n, err)
				}
			}
			if bytes < least || bytes > p.WorkspaceBytes[i] {
				return Errorf(ErrInternal, "plan: op `%s`: %d bytes of workspace, needs %d, and %d at the most", n.Name, bytes, least, p.WorkspaceBytes[i])
			}
		}
		if k >= 0 {
			c.contents = append(c.contents, contents{name: "workspace of " + n.Name, block: k, from: 2 * (i + 1), to: 2*(i+1) + 1, whole: -1, over: -1, value: -1,
				strides: &Strides{}, bytes: p.WorkspaceBytes[i]})
		} else if p.WorkspaceBytes[i] != 0 {
			return Errorf(ErrInternal, "plan: op `%s`: %d bytes of workspace in no block", n.Name, p.WorkspaceBytes[i])
		}
	}
	return nil
}

// checkBlocks: the report says what is true of every value, workspace and staging block, and what lies in a block fits
// there at every size that each layout serves.
func (c *checker) checkBlocks() error {
	g, p := c.p.Graph, c.p
	uses := make([]int, len(p.Blocks)) // as staging or workspace
	use := func(k int, kind, name string) error {
		if k < 0 || p.Blocks[k].Kind != kind || p.Blocks[k].Name != name {
			return Errorf(ErrInternal, "plan: %s `%s`: no block holds it", kind, name)
		}
		uses[k]++
		return nil
	}
	for j, v := range g.Inputs {
		if err := use(p.InputBlock[j], BlockInput, g.Values[v].Name); err != nil {
			return err
		}
	}
	for j, o := range g.Outputs {
		if err := use(p.OutputBlock[j], BlockOutput, o.Name); err != nil {
			return err
		}
	}
	for i := range g.Nodes {
		if k := p.WorkspaceBlock[i]; k >= 0 {
			if err := use(k, BlockWorkspace, g.Nodes[i].Name); err != nil {
				return err
			}
		}
	}
	held := make([]int, len(g.Values))
	for k, b := range p.Blocks {
		if b.Kind != BlockActivation && uses[k] != 1 {
			return Errorf(ErrInternal, "plan: %s `%s`: %d uses, must be 1", b.Kind, b.Name, uses[k])
		}
		for _, v := range b.Values {
			if v < 0 || int(v) >= len(held) || held[v] != 0 || c.blockOf(v) != k {
				return Errorf(ErrInternal, "plan: value %d in block `%s`", v, b.Name)
			}
			held[v]++
		}
	}
	for v := range g.Values {
		if held[v] == 0 && p.Storage[v].Place != PlaceBound {
			return Errorf(ErrInternal, "plan: `%s`: no block holds it", g.Values[v].Name)
		}
	}
	for k := range c.contents {
		x := &c.contents[k]
		b := &p.Blocks[x.block]
		if b.First > x.from/2 || b.Last < x.to/2 {
			return Errorf(ErrInternal, "plan: `%s`: no block holds it from time %d to %d", x.name, x.from/2, x.to/2)
		}
		for j := range p.Layouts {
			l := &p.Layouts[j]
			if x.value < 0 && x.bytes > 0 {
				continue // a workspace: its size was checked
			}
			if end := x.end(l.MaxTokens, g.Limits.MaxSeqs); end > l.Bytes[x.block] {
				return Errorf(ErrInternal, "plan: `%s`: ends at byte %d of a block of %d at %d tokens: no block holds it", x.name, end, l.Bytes[x.block], l.MaxTokens)
			}
		}
	}
	return nil
}

// end is the byte of the block behind the last one, at a size.
func (x *contents) end(tokens, seqs int64) int64 {
	if x.bytes > 0 {
		return x.bytes
	}
	bytes := x.shape.Bytes(tokens, seqs)
	switch {
	case bytes == 0: // no row: nothing of it is touched
		return 0
	case *x.strides == (Strides{}):
		return x.at + bytes
	}
	last := int64(0)
	for i, d := range x.shape.Dims {
		last += (d.At(tokens, seqs) - 1) * x.strides[i]
	}
	return x.at + (last+1)*x.shape.DType.Size()
}

// checkInside: in a block, what shares bytes does not share time, but for what is joined to something else there.
func (c *checker) checkInside() error {
	l := c.p.Graph.Limits
	begin := make([]int, len(c.p.Blocks)+1) // of each block's contents in order
	for k := range c.contents {
		begin[c.contents[k].block]++
	}
	for k := range c.p.Blocks {
		begin[k+1] += begin[k]
	}
	order := make([]int, len(c.contents))
	for k := len(order) - 1; k >= 0; k-- {
		block := c.contents[k].block
		begin[block]--
		order[begin[block]] = k
	}
	byTime := func(a, b int) int { return cmp.Compare(c.contents[a].from, c.contents[b].from) }
	var live []int
	for block := range c.p.Blocks {
		list := order[begin[block]:begin[block+1]]
		if live = live[:0]; !slices.IsSortedFunc(list, byTime) {
			slices.SortStableFunc(list, byTime)
		}
		for _, k := range list {
			x := &c.contents[k]
			live = slices.DeleteFunc(live, func(j int) bool { return c.contents[j].to < x.from })
			for _, j := range live {
				y := &c.contents[j]
				right := c.belongs(x, y) || c.belongs(y, x)
				apart := x.end(l.MaxTokens, l.MaxSeqs) <= y.at || y.end(l.MaxTokens, l.MaxSeqs) <= x.at
				if !right && !apart && (x.value < 0 || y.value < 0 || !separate(x.at, *x.strides, *x.shape, y.at, *y.strides, *y.shape)) {
					return Errorf(ErrInternal, "plan: `%s` overlaps `%s` at time %d, in one block", x.name, y.name, x.from/2)
				}
			}
			live = append(live, k)
		}
	}
	return nil
}

// belongs tells whether contents may lie in others: because they are joined to them, or were written over a part of them
// that nobody reads any more, directly or by way of others. What is joined to something is written over with it, once it
// is not read by itself any more.
func (c *checker) belongs(x, to *contents) bool {
	if to.value < 0 {
		return false
	}
	for at := x; at.whole >= 0; at = &c.contents[c.of[at.whole]] {
		if at.whole == to.value {
			return true
		}
	}
	for at := x; at.over >= 0; at = &c.contents[c.of[at.over]] {
		for part := to; ; part = &c.contents[c.of[part.whole]] {
			if part.value == at.over && (part == to || 2*c.read[to.value]+1 < x.from) {
				return true
			}
			if part.whole < 0 {
				break
			}
		}
	}
	return false
}

// checkPinned: what runs in a sequence segment is captured once, so that its blocks lie alike in every layout.
func (c *checker) checkPinned() error {
	g, p := c.p.Graph, c.p
	for _, part := range p.Partitions {
		for i := part.First; i < part.End && part.Kind == SeqSegment; i++ {
			n := &g.Nodes[i]
			for j := range len(n.Inputs) + len(n.Outputs) + 1 {
				k := p.WorkspaceBlock[i]
				if j > 0 {
					k = c.blockOf(operand(n, j-1))
				}
				for _, l := range p.Layouts {
					if k >= 0 && p.Runs[i] && l.Offsets[k] != p.Blocks[k].Offset {
						return Errorf(ErrInternal, "plan: `%s` of a seq segment moves from %d to %d", p.Blocks[k].Name, p.Blocks[k].Offset, l.Offsets[k])
					}
				}
			}
		}
	}
	return nil
}

// checkBetween goes through time and keeps the live blocks in order of address. As long as they are free of overlaps, a
// newcomer overlaps something only if it overlaps its neighbours. The most that is live at once is the bound that the plan
// must claim.
func (c *checker) checkBetween() error {
	p := c.p
	first, last := slices.Repeat([]int{c.end + 1}, len(p.Blocks)), slices.Repeat([]int{-1}, len(p.Blocks))
	for _, x := range c.contents { // what is said of a block's times is not believed
		first[x.block], last[x.block] = min(first[x.block], x.from/2), max(last[x.block], x.to/2)
	}
	order, ends := make([]int, len(p.Blocks)), make([]int, len(p.Blocks))
	for k := range order {
		order[k], ends[k] = k, k
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(first[a], first[b]) })
	slices.SortFunc(ends, func(a, b int) int { return cmp.Compare(last[a], last[b]) })
	var most int64
	for n, l := range p.Layouts {
		var bound int64
		size := func(k int) int64 { return (max(l.Bytes[k], 1) + Alignment - 1) / Alignment * Alignment }
		var live []int
		var bytes int64
		ended := 0
		for _, k := range order {
			if last[k] < 0 {
				return Errorf(ErrInternal, "plan: block `%s` holds nothing", p.Blocks[k].Name)
			}
			for ; last[ends[ended]] < first[k]; ended++ {
				at, _ := slices.BinarySearchFunc(live, l.Offsets[ends[ended]], func(j int, at int64) int { return cmp.Compare(l.Offsets[j], at) })
				live = slices.Delete(live, at, at+1)
				bytes -= size(ends[ended])
			}
			at, same := slices.BinarySearchFunc(live, l.Offsets[k], func(j int, at int64) int { return cmp.Compare(l.Offsets[j], at) })
			for _, near := range []int{at - 1, at} {
				if near < 0 || near >= len(live) {
					continue
				}
				j := live[near]
				if same && near == at || l.Offsets[j] < l.Offsets[k]+size(k) && l.Offsets[k] < l.Offsets[j]+size(j) {
					return Errorf(ErrInternal, "plan: `%s` in bytes %d to %d overlaps `%s` in %d to %d at time %d", p.Blocks[k].Name, l.Offsets[k],
						l.Offsets[k]+l.Bytes[k], p.Blocks[j].Name, l.Offsets[j], l.Offsets[j]+l.Bytes[j], first[k])
				}
			}
			live = slices.Insert(live, at, k)
			bytes += size(k)
			bound = max(bound, bytes)
		}
		if l.LowerBound != bound || l.Height < bound || l.Height > p.ArenaBytes {
			return Errorf(ErrInternal, "plan: layout %d: lower bound %d and height %d, but %d bytes are live at once", n, l.LowerBound, l.Height, bound)
		}
		most = max(most, bound)
	}
	if p.LowerBound != most || p.ArenaBytes < most {
		return Errorf(ErrInternal, "plan: lower bound %d and arena %d, but %d bytes are live at once", p.LowerBound, p.ArenaBytes, most)
	}
	return nil
}
