package piecewise

import "slices"

// Times. Node i runs at time i+1. Inputs are staged at time 0, outputs are copied out at time n+1, n nodes.

// memory is one piece of storage and the values that lie in it: a root, which is all of it, views and parts of it, values
// that took it or a part over in place, and values that were joined into it.
type memory struct {
	root        Value
	values      []Value
	role        Role // RoleActivation: ours to place; otherwise the caller's, of the root's role
	slot        int  // of the root, if the memory is the caller's
	bytes       Dim  // the root's size, as a formula; nothing in it reaches further
	first, last int  // times: written first, read last
	born        int  // the node that put the newest value here; -1 at first
	output      int  // the output whose buffer it is; -1 if none
	parted      bool // some value in it is less than all of it
	joins       bool // its root was joined of others in it
}

// lifetimes are the exact lifetimes over the whole order, across all partitions.
type lifetimes struct {
	g        *Graph
	shares   *shares
	own      []int  // per value: the time of its last reader; its own time if nobody reads it
	need     []int  // per value: likewise, through its views and parts too
	of       []int  // per value: its memory
	form     []form // per value: how it lies there
	memories []memory
	copies   []Copy  // outputs that no memory is the buffer of
	joined   int     // inputs that lie in what they are joined to
	singles  []Value // every value, for memories that hold one
}

// findLifetimes finds what lies together, from when to when. With join, the inputs of joining ops are written where they
// will be joined, if they may: nothing is copied, but the whole is there from the first of them on.
func findLifetimes(g *Graph, s *shares, join bool) *lifetimes {
	lt := &lifetimes{g: g, shares: s, of: make([]int, len(g.Values)), form: make([]form, len(g.Values)),
		memories: make([]memory, 0, len(g.Values)), singles: make([]Value, len(g.Values))}
	lt.findReads()
	for v, info := range g.Values {
		if info.Role != RoleActivation {
			lt.open(Value(v), 0)
		}
	}
	for i := range g.Nodes {
		lt.placeOutputs(i, join)
	}
	if lt.joined > 0 {
		lt.memories = slices.DeleteFunc(lt.memories, func(m memory) bool { return len(m.values) == 0 })
		for k := range lt.memories {
			for _, v := range lt.memories[k].values {
				lt.of[v] = k
			}
		}
	}
	for j, o := range g.Outputs {
		m := &lt.memories[lt.of[o.Value]]
		if m.role == RoleActivation && m.output < 0 && lt.isWhole(o.Value) {
			m.output = j
		} else {
			lt.copies = append(lt.copies, Copy{Value: o.Value, Output: j})
		}
	}
	return lt
}

// findReads gives, for each value, the time until which its contents must stay: what shows it is read in its place.
func (lt *lifetimes) findReads() {
	g := lt.g
	lt.own, lt.need = make([]int, len(g.Values)), make([]int, len(g.Values))
	for _, o := range g.Outputs {
		lt.own[o.Value] = len(g.Nodes) + 1
	}
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		n := &g.Nodes[i]
		for _, list := range [][]Value{n.Outputs, n.Inputs} {
			for _, v := range list {
				lt.own[v] = max(lt.own[v], i+1)
			}
		}
	}
	copy(lt.need, lt.own)
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		for k, in := range lt.shares.shown[i] {
			if in >= 0 {
				v := g.Nodes[i].Inputs[in]
				lt.need[v] = max(lt.need[v], lt.need[g.Nodes[i].Outputs[k]])
			}
		}
	}
}

// isWhole tells whether a value is all of its memory.
func (lt *lifetimes) isWhole(v Value) bool {
	return lt.form[v] == form{} && byteFormula(lt.g.Values[v].Type) == lt.memories[lt.of[v]].bytes
}

// open gives a value memory of its own from a time on.
func (lt *lifetimes) open(v Value, first int) {
	info := &lt.g.Values[v]
	lt.of[v] = len(lt.memories)
	lt.singles[v] = v
	lt.memories = append(lt.memories, memory{root: v, values: lt.singles[v : v+1 : v+1], role: info.Role, slot: info.Slot, bytes: byteFormula(info.Type),
		first: first, last: lt.need[v], born: info.Node, output: -1})
}

// add puts a value into memory that is there.
func (lt *lifetimes) add(v Value, at int, f form) {
	m := &lt.memories[at]
	lt.of[v], lt.form[v] = at, f
	m.values = append(m.values, v)
	m.last = max(m.last, lt.need[v])
	m.born = lt.g.Values[v].Node
	m.parted = m.parted || !lt.isWhole(v)
}

// placeOutputs decides for each output of node i: the memory of what it shows, an input's in place, or memory of its own.
// What shows an input comes first, so that nothing is written in place over memory that this very node gives out as well.
func (lt *lifetimes) placeOutputs(i int, join bool) {
	n := &lt.g.Nodes[i]
	for k, in := range lt.shares.shown[i] {
		if in >= 0 {
			_, f, _ := lt.shares.sharedForm(n, k, lt.form)
			lt.add(n.Outputs[k], lt.of[n.Inputs[in]], f)
		}
	}
	for k, v := range n.Outputs {
		if lt.shares.shown[i][k] >= 0 {
			continue
		}
		if x := lt.overwritten(i, k); x >= 0 {
			lt.add(v, lt.of[x], lt.form[x])
			continue
		}
		lt.open(v, i+1)
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
	m := &lt.memories[lt.of[x]]
	if m.role != RoleActivation || byteFormula(lt.g.Values[x].Type) != byteFormula(lt.g.Values[out].Type) {
		return false
	}
	whole := lt.isWhole(x)
	if whole && (m.last > i+1 || m.born == i) {
		return false
	}
	if !whole {
		if lt.need[out] > m.last {
			return false
		}
		if f := lt.form[x]; !f.isCompact() && !(lt.g.Values[x].Type.Equal(lt.g.Values[out].Type) && n.Schema.StridedInputs>>input&1 != 0 &&
			n.Schema.StridedOutputs>>k&1 != 0 && lt.shares.mayHave(out, f)) {
			return false
		}
		for _, w := range m.values {
			if (lt.own[w] > i+1 || lt.g.Values[w].Node == i) && lt.touch(w, x) {
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
	return !apart(lt.form[v], lt.g.Values[v].Type, lt.form[w], lt.g.Values[w].Type)
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
		if m.role != RoleActivation || !lt.isWhole(x) || m.joins && m.root != x || m.born == i || at == to {
			continue
		}
		f := form{}.part(lt.g.Values[y].Type, lt.g.Values[x].Type, n.Parts[a])
		forms, ok := lt.refit(m, f)
		for _, v := range lt.memories[to].values {
			ok = ok && (v == y || apart(lt.form[v], lt.g.Values[v].Type, f, lt.g.Values[x].Type))
		}
		if !ok {
			continue
		}
		lt.joined++
		whole := &lt.memories[to]
		for j, v := range m.values {
			lt.of[v], lt.form[v] = to, forms[j]
			whole.values = append(whole.values, v)
		}
		whole.first, whole.last, whole.parted, whole.joins = min(whole.first, m.first), max(whole.last, m.last), true, true
		m.values = nil
	}
}

// refit gives the forms of a memory's values when its root has the form f; false if one of them cannot have it.
func (lt *lifetimes) refit(m *memory, f form) ([]form, bool) {
	g := lt.g
	if m.parted && !f.isCompact() {
		return nil, false // parts of what would be a part itself: rare, and left where they are
	}
	forms := make([]form, len(m.values))
	at := make(map[Value]int, len(m.values))
	for j, v := range m.values {
		at[v] = j
		info := &g.Values[v]
		forms[j] = f
		if f.isCompact() {
			forms[j] = form{lt.form[v].offset + f.offset, lt.form[v].strides}
			continue
		}
		n := &g.Nodes[info.Node]
		if in := lt.shares.shown[info.Node][info.Output]; in >= 0 {
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
