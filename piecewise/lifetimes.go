package piecewise

import "slices"

// Times. Node i runs at time i+1. Inputs are staged at time 0, outputs are copied out at time n+1, n nodes.

// memory is one piece of storage and the values that lie in it: a root, which is all of it, views and parts of it, values
// that took it or a part over in place, and values that were joined into it.
type memory struct {
	root, newest Value // the first and the last of its values; lifetimes.next leads from one to the other
	role         Role  // RoleActivation: ours to place; otherwise the caller's, of the root's role
	slot         int32 // of the root, if the memory is the caller's
	first, last  int32 // times: written first, read last
	born         int32 // the node that put the newest value here; -1 at first
	output       int32 // the output whose buffer it is; -1 if none
	parted       bool  // some value in it is less than all of it
	joins        bool  // its root was joined of others in it
	gone         bool  // its values are in another one
}

// lifetimes are the exact lifetimes over the whole order, across all partitions.
type lifetimes struct {
	g        *Graph
	shares   *shares
	own      []int32 // per value: the time of its last reader; its own time if nobody reads it
	need     []int32 // per value: likewise, through its views and parts too
	of       []int32 // per value: its memory
	next     []Value // per value: the one behind it in its memory; -1: it is the newest
	form     forms   // per value: how it lies there
	memories []memory
	copies   []Copy // outputs that no memory is the buffer of
	joined   int    // inputs that lie in what they are joined to
}

// findLifetimes finds what lies together, from when to when. With join, the inputs of joining ops are written where they
// will be joined, if they may: nothing is copied, but the whole is there from the first of them on.
func findLifetimes(g *Graph, s *shares, join bool) *lifetimes {
	lt := &lifetimes{g: g, shares: s, of: make([]int32, len(g.Values)), next: make([]Value, len(g.Values)), memories: make([]memory, 0, len(g.Values))}
	lt.findReads()
	for v := range g.Values {
		if g.Values[v].Role != RoleActivation {
			lt.open(Value(v), 0)
		}
	}
	for i := range g.Nodes {
		lt.placeOutputs(i, join)
	}
	if lt.joined > 0 {
		lt.memories = slices.DeleteFunc(lt.memories, func(m memory) bool { return m.gone })
		for k := range lt.memories {
			for v := lt.memories[k].root; v >= 0; v = lt.next[v] {
				lt.of[v] = int32(k)
			}
		}
	}
	for j, o := range g.Outputs {
		m := &lt.memories[lt.of[o.Value]]
		if m.role == RoleActivation && m.output < 0 && lt.isWhole(o.Value) {
			m.output = int32(j)
		} else {
			lt.copies = append(lt.copies, Copy{Value: o.Value, Output: j})
		}
	}
	return lt
}

// findReads gives, for each value, the time until which its contents must stay: what shows it is read in its place.
func (lt *lifetimes) findReads() {
	g := lt.g
	lt.own, lt.need = make([]int32, len(g.Values)), make([]int32, len(g.Values))
	for i := range g.Nodes {
		n, time := &g.Nodes[i], int32(i+1)
		for _, v := range n.Inputs {
			lt.own[v] = time
		}
		for _, v := range n.Outputs {
			lt.own[v] = time
		}
	}
	for _, o := range g.Outputs {
		lt.own[o.Value] = int32(len(g.Nodes) + 1)
	}
	copy(lt.need, lt.own)
	for v := len(g.Values) - 1; v >= 0; v-- { // a value is behind what it shows
		if in := lt.shares.shown[v]; in >= 0 {
			w := g.Nodes[g.Values[v].Node].Inputs[in]
			lt.need[w] = max(lt.need[w], lt.need[v])
		}
	}
}

// isWhole tells whether a value is all of its memory.
func (lt *lifetimes) isWhole(v Value) bool {
	return lt.form.of(v) == form{} && lt.shares.bytes[v] == lt.bytesOf(&lt.memories[lt.of[v]])
}

// bytesOf is the size of a memory's root; nothing in it reaches further.
func (lt *lifetimes) bytesOf(m *memory) Dim { return lt.shares.bytes[m.root] }

// open gives a value memory of its own from a time on.
func (lt *lifetimes) open(v Value, first int32) {
	info := &lt.g.Values[v]
	lt.of[v], lt.next[v] = int32(len(lt.memories)), -1
	lt.memories = append(lt.memories, memory{root: v, newest: v, role: info.Role, slot: int32(info.Slot), first: first, last: lt.need[v],
		born: int32(info.Node), output: -1})
}

// add puts a value into memory that is there.
func (lt *lifetimes) add(v Value, at int32, f form) {
	m := &lt.memories[at]
	lt.of[v], lt.next[v] = at, -1
	lt.next[m.newest], m.newest = v, v
	lt.form.set(v, f, len(lt.g.Values))
	m.last = max(m.last, lt.need[v])
	m.born = int32(lt.g.Values[v].Node)
	m.parted = m.parted || !lt.isWhole(v)
}

// placeOutputs decides for each output of node i: the memory of what it shows, an input's in place, or memory of its own.
// What shows an input comes first, so that nothing is written in place over memory that this very node gives out as well.
func (lt *lifetimes) placeOutputs(i int, join bool) {
	n := &lt.g.Nodes[i]
	shown := lt.shares.shown
	for k, v := range n.Outputs {
		if in := shown[v]; in >= 0 {
			_, f, _ := lt.shares.sharedForm(n, k, lt.form)
			lt.add(v, lt.of[n.Inputs[in]], f)
		}
	}
	for k, v := range n.Outputs {
		if shown[v] >= 0 {
			continue
		}
		if x := lt.overwritten(i, k); x >= 0 {
			lt.add(v, lt.of[x], lt.form.of(x))
			continue
		}
		lt.open(v, int32(i+1))
		if join {
			lt.joinInputs(i, k)
		}
	}
}

// overwritten is the input that output k of node i is written over; -1 if none.
func (lt *lifetimes) overwritten(i, k int) Value {
	n := &lt.g.Nodes[i]
	for _, a := range n.Schema.Aliases {
		if a.Output == k && a.Kind == AliasInPlace && a.Input < len(n.Inputs) && lt.mayOverwrite(i, k, a.Input) {
			return n.Inputs[a.Input]
		}
	}
	return -1
}

// mayOverwrite tells whether output k of node i, which declares that it may, can be written over an input:
//   - the memory is ours, and the output of the input's size in every bucket; if the input lies there with strides, of its
//     very shape, and op and readers can take them;
//   - where the input is less than all of its memory, the rest is needed as long as the output anyway;
//   - no value that shares a byte with it is read after this node (an output is read at the very end);
//   - no other output of this node does;
//   - the node reads those bytes through this value alone: another view's rows would be overwritten before they are read.
//     The same value given twice is fine where the op may overwrite either.
func (lt *lifetimes) mayOverwrite(i, k, input int) bool {
	n := &lt.g.Nodes[i]
	x, out := n.Inputs[input], n.Outputs[k]
	m, time := &lt.memories[lt.of[x]], int32(i+1)
	if m.role != RoleActivation || lt.shares.bytes[x] != lt.shares.bytes[out] {
		return false
	}
	whole := lt.isWhole(x)
	if whole && (m.last > time || int(m.born) == i) {
		return false
	}
	if !whole {
		if lt.need[out] > m.last {
			return false
		}
		if f := lt.form.of(x); !f.isCompact() && !(lt.g.Values[x].Type.Equal(lt.g.Values[out].Type) && n.Schema.StridedInputs>>input&1 != 0 &&
			n.Schema.StridedOutputs>>k&1 != 0 && lt.shares.mayHave(out, f)) {
			return false
		}
		for w := m.root; w >= 0; w = lt.next[w] {
			if (lt.own[w] > time || lt.g.Values[w].Node == i) && lt.touch(w, x) {
				return false
			}
		}
	}
	for j, w := range n.Inputs {
		if lt.of[w] == lt.of[x] && (w != x || !n.Schema.mayReplace(k, j)) && lt.touch(w, x) {
			return false
		}
	}
	return true
}

// touch tells whether two values of one memory share a byte.
func (lt *lifetimes) touch(v, w Value) bool {
	return !apart(lt.form.of(v), lt.g.Values[v].Type, lt.form.of(w), lt.g.Values[w].Type)
}

// mayReplace tells whether the schema lets an output overwrite an input.
func (s *OpSchema) mayReplace(output, input int) bool {
	for _, a := range s.Aliases {
		if a.Output == output && a.Input == input && a.Kind == AliasInPlace {
			return true
		}
	}
	return false
}

// joinInputs moves memories of node i's inputs into output k, of which they are parts: they are written there from the
// start. A memory is moved whole, if the input is all of it, and if all that writes and reads its values can take their
// strides there.
func (lt *lifetimes) joinInputs(i, k int) {
	n := &lt.g.Nodes[i]
	y := n.Outputs[k]
	to := lt.of[y]
	for a, alias := range n.Schema.Aliases {
		if alias.Output != k || alias.Kind != AliasJoin || alias.Input >= len(n.Inputs) {
			continue
		}
		x := n.Inputs[alias.Input]
		at := lt.of[x]
		m := &lt.memories[at]
		if m.role != RoleActivation || !lt.isWhole(x) || m.joins && m.root != x || int(m.born) == i || at == to {
			continue
		}
		f := form{}.part(lt.g.Values[y].Type, lt.g.Values[x].Type, n.Parts[a])
		forms, ok := lt.refit(m, f)
		for v := lt.memories[to].root; v >= 0; v = lt.next[v] {
			ok = ok && (v == y || apart(lt.form.of(v), lt.g.Values[v].Type, f, lt.g.Values[x].Type))
		}
		if !ok {
			continue
		}
		lt.joined++
		whole := &lt.memories[to]
		for v := m.root; v >= 0; v = lt.next[v] {
			lt.of[v] = to
			lt.form.set(v, forms[0], len(lt.g.Values))
			forms = forms[1:]
		}
		lt.next[whole.newest], whole.newest = m.root, m.newest
		whole.first, whole.last, whole.parted, whole.joins = min(whole.first, m.first), max(whole.last, m.last), true, true
		m.gone = true
	}
}

// refit gives the forms of a memory's values, in order, when its root has the form f; false if one of them cannot have it.
func (lt *lifetimes) refit(m *memory, f form) ([]form, bool) {
	g := lt.g
	if m.parted && !f.isCompact() {
		return nil, false // parts of what would be a part itself: rare, and left where they are
	}
	var forms []form
	at := map[Value]int{}
	for v := m.root; v >= 0; v = lt.next[v] {
		j := len(forms)
		at[v] = j
		info := &g.Values[v]
		forms = append(forms, f)
		if f.isCompact() {
			old := lt.form.of(v)
			forms[j] = form{old.offset + f.offset, old.strides}
			continue
		}
		n := &g.Nodes[info.Node]
		if in := lt.shares.shown[v]; in >= 0 {
			var can bool
			if forms[j], can = forms[at[n.Inputs[in]]].view(g.Values[n.Inputs[in]].Type, info.Type); !can {
				return nil, false
			}
		} else if n.Schema.StridedOutputs>>info.Output&1 == 0 || !info.Type.Equal(g.Values[m.root].Type) {
			return nil, false
		}
		if !lt.shares.mayHave(v, forms[j]) {
			return nil, false
		}
	}
	return forms, true
}
