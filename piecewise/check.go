package piecewise

import "slices"

// The checker takes nothing from the planner but the plan. It asks of every value's contents: from when to when must
// these bytes hold them, and does anything else lie there meanwhile? It takes every input and output to be staged; a
// step that uses the caller's tensors in place only has fewer bytes in the arena. The lists and the program's structure
// are checked here, what lies where in check_memory.go, and what would overlap in check_blocks.go.

type checker struct {
	p        *Plan
	sizes    []extent   // per value
	shows    []int32    // per value: the input that it shows, of the node that it is an output of; -1: none
	root     []Value    // per value: the one whose contents it shows
	written  []int32    // per root: time
	read     []int32    // per root: last time
	contents []contents // of the roots, and of workspaces and copied outputs
	of       []int32    // per root: its contents; -1 for weights and states
	end      int32      // time at which outputs are copied out
}

// extent is the size of a compact tensor in bytes: the first dim alone depends on counts.
type extent struct{ fixed, perToken, perSeq int64 }

func (e extent) at(tokens, seqs int64) int64 { return e.fixed + e.perToken*tokens + e.perSeq*seqs }

func extents(values []ValueInfo) []extent {
	out := make([]extent, len(values))
	for v := range values {
		t := &values[v].Type
		row := t.RowBytes()
		out[v] = extent{t.Dims[0].Constant * row, t.Dims[0].Tokens * row, t.Dims[0].Seqs * row}
	}
	return out
}

// Check says whether a plan is safe: nothing overlaps, nothing is freed or overwritten early, all lies in the arena,
// every output is written. An error is ErrInternal, a fault of the planner's.
func Check(p *Plan) error {
	if p.Graph == nil || !p.Graph.Frozen {
		return Errorf(ErrInternal, "plan: its graph is not frozen")
	}
	c := &checker{p: p, sizes: extents(p.Graph.Values), end: int32(len(p.Graph.Nodes) + 1)}
	for _, step := range []func() error{c.checkLists, c.checkPartitions, c.checkUnits, c.checkLayouts, c.checkStorage, c.traceContents,
		c.checkForms, c.checkOutputs, c.placeContents, c.findTakeovers, c.findJoins, c.placeWorkspaces, c.checkBlocks, c.checkInside,
		c.checkPinned, c.checkBetween} {
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
		{"storage", len(p.Storage), len(g.Values)}, {"workspace blocks", len(p.WorkspaceBlock), len(g.Nodes)},
		{"workspace sizes", len(p.WorkspaceBytes), len(g.Nodes)}, {"input blocks", len(p.InputBlock), len(g.Inputs)},
		{"output blocks", len(p.OutputBlock), len(g.Outputs)}, {"what runs", len(p.Runs), len(g.Nodes)},
	} {
		if e.got != e.want {
			return Errorf(ErrInternal, "plan: %s: %d entries, must be %d", e.what, e.got, e.want)
		}
	}
	if p.ArenaBytes < 0 || p.ArenaBytes%Alignment != 0 {
		return Errorf(ErrInternal, "plan: arena: %d bytes, must be a multiple of %d", p.ArenaBytes, Alignment)
	}
	for _, list := range [][]int{p.InputBlock, p.OutputBlock, p.WorkspaceBlock} {
		for _, k := range list {
			if k < -1 || k >= len(p.Blocks) {
				return Errorf(ErrInternal, "plan: block %d of %d", k, len(p.Blocks))
			}
		}
	}
	return nil
}

// operand is an input or, behind them, an output of a node.
func operand(n *Node, k int) Value {
	if k < len(n.Inputs) {
		return n.Inputs[k]
	}
	return n.Outputs[k-len(n.Inputs)]
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
			idle := n.Schema.Mutates == 0 && len(n.Schema.Aliases) > 0
			for out := 0; out < len(n.Outputs) && idle; out++ {
				idle = slices.ContainsFunc(n.Schema.Aliases, func(a Alias) bool { return a.Output == out && a.Kind == AliasView })
			}
			if idle {
				continue
			}
			if part.Kind == Views {
				return Errorf(ErrInternal, "plan: partition %d: op `%s` among views alone", k, n.Name)
			}
			for k := range len(n.Inputs) + len(n.Outputs) {
				v := operand(n, k)
				if part.Kind == TokenSegment && c.sizes[v].perSeq != 0 || part.Kind == SeqSegment && c.sizes[v].perToken != 0 {
					return Errorf(ErrInternal, "plan: partition %d: op `%s` in a %s has `%s`, %s", k, n.Name, part.Kind, g.Values[v].Name, g.Values[v].Type)
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
