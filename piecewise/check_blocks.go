package piecewise

import (
	"cmp"
	"slices"
)

// The last part of the checker: what lies in each block, and between blocks.

// checkBlocks: the report says what is true of every value, workspace and staging block, and what lies in a block fits
// there at every size that each layout serves.
func (c *checker) checkBlocks() error {
	g, p := c.p.Graph, c.p
	uses := make([]int32, len(p.Blocks)) // as staging or workspace
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
	held := make([]bool, len(g.Values))
	for k := range p.Blocks {
		b := &p.Blocks[k]
		if b.Kind != BlockActivation && uses[k] != 1 {
			return Errorf(ErrInternal, "plan: %s `%s`: %d uses, must be 1", b.Kind, b.Name, uses[k])
		}
		for _, v := range b.Values {
			if v < 0 || int(v) >= len(held) || held[v] || c.blockOf(v) != k {
				return Errorf(ErrInternal, "plan: value %d in block `%s`", v, b.Name)
			}
			held[v] = true
		}
	}
	for v := range g.Values {
		if !held[v] && p.Storage[v].Place != PlaceBound {
			return Errorf(ErrInternal, "plan: `%s`: no block holds it", g.Values[v].Name)
		}
	}
	for k := range c.contents {
		x := &c.contents[k]
		b := &p.Blocks[x.block]
		if b.First > int(x.from/2) || b.Last < int(x.to/2) {
			return Errorf(ErrInternal, "plan: `%s`: no block holds it from time %d to %d", c.nameOf(x), x.from/2, x.to/2)
		}
		if x.node >= 0 {
			continue // a workspace: its size was checked
		}
		for j := range p.Layouts {
			l := &p.Layouts[j]
			if end := c.stop(x, l.MaxTokens, g.Limits.MaxSeqs); end > l.Bytes[x.block] {
				return Errorf(ErrInternal, "plan: `%s`: ends at byte %d of a block of %d at %d tokens: no block holds it", c.nameOf(x), end, l.Bytes[x.block], l.MaxTokens)
			}
		}
	}
	return nil
}

// checkInside: in a block, what shares bytes does not share time, but for what is joined to something else there.
func (c *checker) checkInside() error {
	l := c.p.Graph.Limits
	begin := make([]int32, len(c.p.Blocks)+1) // of each block's contents in order
	for k := range c.contents {
		begin[c.contents[k].block]++
	}
	for k := range c.p.Blocks {
		begin[k+1] += begin[k]
	}
	order := make([]int32, len(c.contents))
	for k := len(order) - 1; k >= 0; k-- {
		block := c.contents[k].block
		begin[block]--
		order[begin[block]] = int32(k)
	}
	byTime := func(a, b int32) int { return cmp.Compare(c.contents[a].from, c.contents[b].from) }
	var live []int32
	for block := range c.p.Blocks {
		list := order[begin[block]:begin[block+1]]
		if len(list) < 2 {
			continue
		}
		if live = live[:0]; !slices.IsSortedFunc(list, byTime) {
			slices.SortStableFunc(list, byTime)
		}
		for _, k := range list {
			x := &c.contents[k]
			live = slices.DeleteFunc(live, func(j int32) bool { return c.contents[j].to < x.from })
			for _, j := range live {
				y := &c.contents[j]
				right := c.belongs(x, y) || c.belongs(y, x)
				apart := c.stop(x, l.MaxTokens, l.MaxSeqs) <= c.start(y) || c.stop(y, l.MaxTokens, l.MaxSeqs) <= c.start(x)
				if !right && !apart && (x.value < 0 || y.value < 0 || !c.separate(x.value, y.value)) {
					return Errorf(ErrInternal, "plan: `%s` overlaps `%s` at time %d, in one block", c.nameOf(x), c.nameOf(y), x.from/2)
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
	first, last := slices.Repeat([]int32{c.end + 1}, len(p.Blocks)), slices.Repeat([]int32{-1}, len(p.Blocks))
	for k := range c.contents { // what is said of a block's times is not believed
		x := &c.contents[k]
		first[x.block], last[x.block] = min(first[x.block], x.from/2), max(last[x.block], x.to/2)
	}
	if k := slices.Index(last, -1); k >= 0 {
		return Errorf(ErrInternal, "plan: block `%s` holds nothing", p.Blocks[k].Name)
	}
	order, ends := c.byTime(first), c.byTime(last)
	var most int64
	for n := range p.Layouts {
		bound, err := c.sweep(&p.Layouts[n], first, last, order, ends)
		if err != nil {
			return err
		}
		if l := &p.Layouts[n]; l.LowerBound != bound || l.Height < bound || l.Height > p.ArenaBytes {
			return Errorf(ErrInternal, "plan: layout %d: lower bound %d and height %d, but %d bytes are live at once", n, l.LowerBound, l.Height, bound)
		}
		most = max(most, bound)
	}
	if p.LowerBound != most || p.ArenaBytes < most {
		return Errorf(ErrInternal, "plan: lower bound %d and arena %d, but %d bytes are live at once", p.LowerBound, p.ArenaBytes, most)
	}
	return nil
}

// byTime lists the blocks by a time that each has, 0 to end.
func (c *checker) byTime(time []int32) []int32 {
	begin := make([]int32, c.end+2)
	for _, t := range time {
		begin[t+1]++
	}
	for t := range c.end {
		begin[t+1] += begin[t]
	}
	order := make([]int32, len(time))
	for k, t := range time {
		order[begin[t]] = int32(k)
		begin[t]++
	}
	return order
}

// sweep is checkBetween for one layout; it gives the most bytes that are live at once. Blocks live from first to last, order
// and ends are sorted by these.
func (c *checker) sweep(l *Layout, first, last, order, ends []int32) (most int64, err error) {
	type live struct {
		at    int64
		block int32
	}
	var list []live // by address
	byAddress := func(x live, at int64) int { return cmp.Compare(x.at, at) }
	size := func(k int32) int64 { return (max(l.Bytes[k], 1) + Alignment - 1) / Alignment * Alignment }
	var bytes int64
	ended := 0
	for _, k := range order {
		for ; last[ends[ended]] < first[k]; ended++ {
			at, _ := slices.BinarySearchFunc(list, l.Offsets[ends[ended]], byAddress)
			list = slices.Delete(list, at, at+1)
			bytes -= size(ends[ended])
		}
		from, to := l.Offsets[k], l.Offsets[k]+size(k)
		at, same := slices.BinarySearchFunc(list, from, byAddress)
		for near := max(at-1, 0); near < min(at+1, len(list)); near++ {
			x := list[near]
			if same && near == at || x.at < to && from < x.at+size(x.block) {
				a, b := &c.p.Blocks[k], &c.p.Blocks[x.block]
				return 0, Errorf(ErrInternal, "plan: `%s` in bytes %d to %d overlaps `%s` in %d to %d at time %d", a.Name, from, from+l.Bytes[k],
					b.Name, x.at, x.at+l.Bytes[x.block], first[k])
			}
		}
		list = slices.Insert(list, at, live{from, k})
		bytes += size(k)
		most = max(most, bytes)
	}
	return most, nil
}
