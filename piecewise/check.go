package piecewise

import (
	"container/heap"
	"slices"
)

// The checker takes nothing from the planner but the plan. It asks of every value's contents: from when to when must
// these bytes hold them, and does anything else lie there meanwhile? It takes every input and output to be staged; a
// step that uses the caller's tensors in place only has fewer bytes in the arena.
//
// It counts in half times: a node's inputs are read, its workspace used and its outputs written throughout both halves
// of its time, but an output that is written in place over an input has the second half, and that input the first.

// contents is a rectangle of bytes and half times.
type contents struct {
	name     string
	from, to int   // half times, both inclusive
	at, size int64 // bytes in the arena, at the limits
}

type checker struct {
	p       *Plan
	root    []Value // per value: the value whose contents it shows
	written []int   // per root: time
	read    []int   // per root: last time
	rects   []contents
	rect    []int // per root: its contents; -1 for weights and states
	end     int   // time at which outputs are copied out
}

// Check says whether a plan is safe: nothing overlaps, nothing is freed or overwritten early, all lies in the arena,
// every output is written. An error is ErrInternal, a fault of the planner's.
func Check(p *Plan) error {
	if p.Graph == nil || !p.Graph.Frozen {
		return Errorf(ErrInternal, "plan: its graph is not frozen")
	}
	c := &checker{p: p, end: len(p.Graph.Nodes) + 1}
	for _, step := range []func() error{c.checkLists, c.checkPartitions, c.checkUnits, c.traceContents, c.checkStorage,
		c.checkOutputs, c.placeContents, c.findInPlace, c.placeWorkspaces, c.checkBlocks, c.checkBound, c.sweep} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkLists() error {
	g, p := c.p.Graph, c.p
	for _, e := range []struct {
		what      string
		got, want int
	}{
		{"storage", len(p.Storage), len(g.Values)}, {"workspace offsets", len(p.WorkspaceOffset), len(g.Nodes)},
		{"workspace sizes", len(p.WorkspaceBytes), len(g.Nodes)}, {"input staging", len(p.InputStaging), len(g.Inputs)},
		{"output staging", len(p.OutputStaging), len(g.Outputs)},
	} {
		if e.got != e.want {
			return Errorf(ErrInternal, "plan: %s: %d entries, must be %d", e.what, e.got, e.want)
		}
	}
	if p.ArenaBytes < 0 || p.ArenaBytes%Alignment != 0 {
		return Errorf(ErrInternal, "plan: arena: %d bytes, must be a multiple of %d", p.ArenaBytes, Alignment)
	}
	return nil
}

// checkPartitions: every node is in one partition, in order; what must not be captured is not.
func (c *checker) checkPartitions() error {
	g := c.p.Graph
	next, segments, dynamic := 0, 0, 0
	for k, part := range c.p.Partitions {
		if part.First != next || part.End <= part.First || part.End > len(g.Nodes) {
			return Errorf(ErrInternal, "plan: partition %d: nodes %d to %d, must begin at %d", k, part.First, part.End, next)
		}
		next = part.End
		switch part.Kind {
		case DynamicOp:
			dynamic++
			if part.End != part.First+1 {
				return Errorf(ErrInternal, "plan: partition %d: a dynamic op with %d nodes", k, part.End-part.First)
			}
			continue
		case TokenSegment, SeqSegment:
			segments++
		}
		for i := part.First; i < part.End; i++ {
			n := &g.Nodes[i]
			if n.Kind != Static && n.Capture != CaptureAlways {
				return Errorf(ErrInternal, "plan: partition %d: op `%s` in a %s, its capture support is %s", k, n.Name, part.Kind, n.Capture)
			}
			idle := n.Schema.Mutates == 0
			for out := range n.Outputs {
				idle = idle && slices.ContainsFunc(n.Schema.Aliases, func(a Alias) bool { return a.Output == out && a.Kind == AliasView })
			}
			if idle {
				continue
			}
			if part.Kind == Views {
				return Errorf(ErrInternal, "plan: partition %d: op `%s` among views alone", k, n.Name)
			}
			for _, v := range slices.Concat(n.Inputs, n.Outputs) {
				t := g.Values[v].Type
				if part.Kind == TokenSegment && t.Bytes(1, 1) != t.Bytes(1, 2) || part.Kind == SeqSegment && t.Bytes(1, 1) != t.Bytes(2, 1) {
					return Errorf(ErrInternal, "plan: partition %d: op `%s` in a %s has `%s`, %s", k, n.Name, part.Kind, g.Values[v].Name, t)
				}
			}
		}
	}
	if next != len(g.Nodes) {
		return Errorf(ErrInternal, "plan: partitions end at node %d of %d", next, len(g.Nodes))
	}
	if segments != c.p.NumSegments || dynamic != c.p.NumDynamic {
		return Errorf(ErrInternal, "plan: %d segments and %d dynamic ops, counted as %d and %d", segments, dynamic, c.p.NumSegments, c.p.NumDynamic)
	}
	return nil
}

func (c *checker) checkUnits() error {
	l := c.p.Graph.Limits
	for k, u := range c.p.Units {
		ok := u.Tokens >= 0 && u.Tokens <= l.MaxTokens && u.Seqs >= 0 && u.Seqs <= l.MaxSeqs
		switch u.Mode {
		case ModeFull:
			ok = ok && u.Tokens > 0 && u.Seqs > 0
		case ModePiecewise:
			ok = ok && (u.Tokens > 0) != (u.Seqs > 0)
		default:
			ok = false
		}
		if !ok || slices.Contains(c.p.Units[:k], u) {
			return Errorf(ErrInternal, "plan: unit %d: %s at %d tokens and %d sequences", k, u.Mode, u.Tokens, u.Seqs)
		}
	}
	return nil
}

// traceContents follows the program: whose contents each value shows, when they are written and read last.
func (c *checker) traceContents() error {
	g := c.p.Graph
	c.root, c.written, c.read = make([]Value, len(g.Values)), make([]int, len(g.Values)), make([]int, len(g.Values))
	for v := range g.Values {
		c.root[v] = Value(v)
	}
	for i, n := range g.Nodes {
		for _, v := range n.Inputs {
			c.read[c.root[v]] = i + 1
		}
		for _, v := range n.Outputs {
			c.written[v], c.read[v] = i+1, i+1
		}
		for _, a := range n.Schema.Aliases {
			if a.Kind != AliasView {
				continue
			}
			in, out := n.Inputs[a.Input], n.Outputs[a.Output]
			c.root[out] = c.root[in]
			if c.p.Storage[out] != c.p.Storage[in] {
				return Errorf(ErrInternal, "plan: `%s` is a view of `%s`, and lies elsewhere", g.Values[out].Name, g.Values[in].Name)
			}
			if !c.compareBytes(out, in, func(a, b int64) bool { return a <= b }) {
				return Errorf(ErrInternal, "plan: `%s` is a view of `%s`, and larger", g.Values[out].Name, g.Values[in].Name)
			}
		}
	}
	for _, o := range g.Outputs {
		c.read[c.root[o.Value]] = c.end
	}
	return nil
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

// checkStorage: the caller's values lie with the caller, and nothing else does but what an output's buffer is meant for.
func (c *checker) checkStorage() error {
	g := c.p.Graph
	for v, info := range g.Values {
		s := c.p.Storage[v]
		bad := func(why string) error {
			return Errorf(ErrInternal, "plan: %s `%s` in %s %d at %d: %s", info.Role, info.Name, s.Place, s.Index, s.Offset, why)
		}
		switch info.Role {
		case RoleInput:
			if s != (Storage{PlaceInput, slices.Index(g.Inputs, Value(v)), 0}) {
				return bad("is not its own tensor")
			}
			continue
		case RoleWeight, RoleState:
			if s != (Storage{PlaceBound, slices.Index(g.Bound, Value(v)), 0}) {
				return bad("is not its own tensor")
			}
			continue
		}
		if c.root[v] != Value(v) {
			continue // equal to its root's, as was checked
		}
		switch s.Place {
		case PlaceArena:
			if s.Index != 0 {
				return bad("the arena has no index")
			}
		case PlaceOutput:
			if s.Index < 0 || s.Index >= len(g.Outputs) || s.Offset != 0 {
				return bad("no such output")
			}
			o := g.Outputs[s.Index]
			if c.p.Storage[o.Value] != s {
				return bad("that output's value lies elsewhere")
			}
			if !c.compareBytes(Value(v), o.Value, equalBytes) {
				return bad("sizes differ")
			}
		default:
			return bad("is written there")
		}
	}
	return nil
}

// checkOutputs: each output's buffer is written by an op, or copied to, and not both.
func (c *checker) checkOutputs() error {
	g := c.p.Graph
	copies := make([]int, len(g.Outputs))
	for _, cp := range c.p.Copies {
		if cp.Output < 0 || cp.Output >= len(g.Outputs) || g.Outputs[cp.Output].Value != cp.Value {
			return Errorf(ErrInternal, "plan: copy of value %d to output %d", cp.Value, cp.Output)
		}
		copies[cp.Output]++
	}
	for j, o := range g.Outputs {
		want := 1
		if c.p.Storage[o.Value] == (Storage{PlaceOutput, j, 0}) {
			want = 0
		}
		if copies[j] != want {
			return Errorf(ErrInternal, "plan: output `%s`: %d copies, must be %d", o.Name, copies[j], want)
		}
	}
	return nil
}

// placeContents gives all contents but workspaces their rectangles.
func (c *checker) placeContents() error {
	g, p := c.p.Graph, c.p
	c.rect = make([]int, len(g.Values))
	for v, info := range g.Values {
		c.rect[v] = -1
		s := p.Storage[v]
		if c.root[v] != Value(v) || s.Place == PlaceBound {
			continue
		}
		at := s.Offset
		switch s.Place {
		case PlaceInput:
			at += p.InputStaging[s.Index]
		case PlaceOutput:
			at += p.OutputStaging[s.Index]
		}
		c.rect[v] = len(c.rects)
		if err := c.add(info.Name, c.written[v], c.read[v], at, info.Type.Bytes(g.Limits.MaxTokens, g.Limits.MaxSeqs)); err != nil {
			return err
		}
	}
	for _, cp := range p.Copies {
		o := g.Outputs[cp.Output]
		bytes := g.Values[o.Value].Type.Bytes(g.Limits.MaxTokens, g.Limits.MaxSeqs)
		if err := c.add(o.Name, c.end, c.end, p.OutputStaging[cp.Output], bytes); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) add(name string, first, last int, at, bytes int64) error {
	if at < 0 || at%Alignment != 0 {
		return Errorf(ErrInternal, "plan: `%s`: offset %d, must be a multiple of %d", name, at, Alignment)
	}
	size := max(bytes, 1)
	if size > c.p.ArenaBytes || at > c.p.ArenaBytes-size {
		return Errorf(ErrInternal, "plan: `%s`: bytes %d to %d, the arena has %d", name, at, at+size, c.p.ArenaBytes)
	}
	c.rects = append(c.rects, contents{name, 2 * first, 2*last + 1, at, size})
	return nil
}

// findInPlace finds the outputs that lie exactly where an input of their node lies, and may: they take the second half
// of the node's time. Where they may not, both keep the whole, and the sweep will find them.
func (c *checker) findInPlace() error {
	g := c.p.Graph
	for i, n := range g.Nodes {
		for k, out := range n.Outputs {
			if c.root[out] != out {
				continue
			}
			for j, in := range n.Inputs {
				if c.rect[c.root[in]] < 0 || c.p.Storage[in] != c.p.Storage[out] || !c.mayTakeOver(i, k, j) {
					continue
				}
				c.rects[c.rect[c.root[in]]].to = 2 * (i + 1)
				c.rects[c.rect[out]].from = 2*(i+1) + 1
				break
			}
		}
	}
	return nil
}

func (c *checker) mayTakeOver(i, k, j int) bool {
	g := c.p.Graph
	n := &g.Nodes[i]
	out, in := n.Outputs[k], n.Inputs[j]
	old := c.root[in]
	if g.Values[old].Role != RoleActivation || c.read[old] > i+1 || !c.compareBytes(out, in, equalBytes) || !c.compareBytes(out, old, equalBytes) {
		return false
	}
	for _, v := range n.Outputs {
		if c.root[v] == old {
			return false // the node itself gives these contents out
		}
	}
	for other, v := range n.Inputs {
		if c.root[v] == old && (v != in || !slices.Contains(n.Schema.Aliases, Alias{k, other, AliasInPlace})) {
			return false
		}
	}
	return true
}

func (c *checker) placeWorkspaces() error {
	g, l := c.p.Graph, c.p.Graph.Limits
	for i, n := range g.Nodes {
		bytes := c.p.WorkspaceBytes[i]
		var least int64
		if n.Schema.Workspace != nil {
			var inputs, outputs []Shape
			for _, v := range n.Inputs {
				inputs = append(inputs, g.Values[v].Type.At(l.MaxTokens, l.MaxSeqs))
			}
			for _, v := range n.Outputs {
				outputs = append(outputs, g.Values[v].Type.At(l.MaxTokens, l.MaxSeqs))
			}
			var err error
			if least, err = n.Schema.Workspace(inputs, outputs, n.Attrs, l.MaxTokens, l.MaxSeqs); err != nil {
				return opError(&n, err)
			}
		}
		if bytes < least {
			return Errorf(ErrInternal, "plan: op `%s`: %d bytes of workspace, needs %d", n.Name, bytes, least)
		}
		if bytes > 0 {
			if err := c.add("workspace of "+n.Name, i+1, i+1, c.p.WorkspaceOffset[i], bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkBlocks: the report says what is true of every value, workspace and staging block.
func (c *checker) checkBlocks() error {
	g, p := c.p.Graph, c.p
	type key struct{ kind, name string }
	named := map[key]*Block{}
	holds := make([]*Block, len(g.Values))
	for k := range p.Blocks {
		b := &p.Blocks[k]
		if b.Kind != BlockActivation {
			if named[key{b.Kind, b.Name}] != nil {
				return Errorf(ErrInternal, "plan: %s `%s` twice", b.Kind, b.Name)
			}
			named[key{b.Kind, b.Name}] = b
		}
		for _, v := range b.Values {
			if holds[v] != nil {
				return Errorf(ErrInternal, "plan: `%s` is in two blocks", g.Values[v].Name)
			}
			holds[v] = b
		}
	}
	match := func(what string, b *Block, offset, bytes int64, first, last int) error {
		if b == nil || b.Offset != offset || b.Bytes < bytes || b.First > first || b.Last < last {
			return Errorf(ErrInternal, "plan: %s: no block holds %d bytes at %d from time %d to %d", what, bytes, offset, first, last)
		}
		return nil
	}
	for v, info := range g.Values {
		if r := c.rect[v]; r >= 0 {
			if err := match("`"+info.Name+"`", holds[v], c.rects[r].at, info.Type.Bytes(g.Limits.MaxTokens, g.Limits.MaxSeqs), c.written[v], c.read[v]); err != nil {
				return err
			}
		}
	}
	for j, v := range g.Inputs {
		info := g.Values[v]
		bytes := info.Type.Bytes(g.Limits.MaxTokens, g.Limits.MaxSeqs)
		if err := match("input `"+info.Name+"`", named[key{BlockInput, info.Name}], p.InputStaging[j], bytes, 0, c.read[v]); err != nil {
			return err
		}
	}
	for j, o := range g.Outputs {
		bytes := g.Values[o.Value].Type.Bytes(g.Limits.MaxTokens, g.Limits.MaxSeqs)
		if err := match("output `"+o.Name+"`", named[key{BlockOutput, o.Name}], p.OutputStaging[j], bytes, c.end, c.end); err != nil {
			return err
		}
	}
	for i, n := range g.Nodes {
		if p.WorkspaceBytes[i] > 0 {
			if err := match("workspace of `"+n.Name+"`", named[key{BlockWorkspace, n.Name}], p.WorkspaceOffset[i], p.WorkspaceBytes[i], i+1, i+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkBound adds up what is live at each half time: the most is the bound that the plan must claim.
func (c *checker) checkBound() error {
	live := make([]int64, 2*c.end+3)
	for _, r := range c.rects {
		size := (r.size + Alignment - 1) / Alignment * Alignment
		live[r.from] += size
		live[r.to+1] -= size
	}
	var now, most int64
	for _, change := range live {
		now += change
		most = max(most, now)
	}
	if c.p.LowerBound != most || c.p.ArenaBytes < most {
		return Errorf(ErrInternal, "plan: lower bound %d and arena %d, but %d bytes are live at once", c.p.LowerBound, c.p.ArenaBytes, most)
	}
	return nil
}

// sweep goes through the half times and keeps what is live in order of address. As long as that is free of overlaps, a
// newcomer overlaps something only if it overlaps its neighbours.
func (c *checker) sweep() error {
	order := slices.Clone(c.rects)
	slices.SortFunc(order, func(a, b contents) int { return a.from - b.from })
	byAddress := func(r contents, at int64) int {
		if r.at < at {
			return -1
		} else if r.at > at {
			return 1
		}
		return 0
	}
	var live []contents
	ends := &endHeap{}
	for _, r := range order {
		for ends.Len() > 0 && (*ends)[0].to < r.from {
			gone := heap.Pop(ends).(contents)
			k, _ := slices.BinarySearchFunc(live, gone.at, byAddress)
			live = slices.Delete(live, k, k+1)
		}
		k, same := slices.BinarySearchFunc(live, r.at, byAddress)
		for _, near := range []int{k - 1, k} {
			if near < 0 || near >= len(live) {
				continue
			}
			if q := live[near]; same && near == k || q.at < r.at+r.size && r.at < q.at+q.size {
				return Errorf(ErrInternal, "plan: `%s` in bytes %d to %d overlaps `%s` in %d to %d at time %d", r.name, r.at, r.at+r.size, q.name, q.at, q.at+q.size, r.from/2)
			}
		}
		live = slices.Insert(live, k, r)
		heap.Push(ends, r)
	}
	return nil
}

// endHeap has what ends first at its top.
type endHeap []contents

func (h endHeap) Len() int           { return len(h) }
func (h endHeap) Less(i, j int) bool { return h[i].to < h[j].to }
func (h endHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *endHeap) Push(x any)        { *h = append(*h, x.(contents)) }
func (h *endHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
