package piecewise

// Times. Node i runs at time i+1. Inputs are staged at time 0, outputs are copied out at time n+1, n nodes.

// memory is one piece of storage and the values that lie in it: a root, views of it, and values that took it over in
// place. All of them begin at its first byte.
type memory struct {
	values      []Value
	role        Role // RoleActivation: ours to place; otherwise the caller's, of the root's role
	slot        int  // of the root, if the memory is the caller's
	bytes       Dim  // the root's size, as a formula; no other value's is larger
	first, last int  // times: written first, read last
	born        int  // the node that put the newest value here; -1 at first
	output      int  // the output whose buffer it is; -1 if none
}

// lifetimes are the exact lifetimes over the whole order, across all partitions.
type lifetimes struct {
	need     []int    // per value: the time of its last reader, through its views too; its own time if nobody reads it
	of       []int    // per value: its memory
	memories []memory // in order of their first values
	copies   []Copy   // outputs that no memory is the buffer of
}

func findLifetimes(g *Graph) *lifetimes {
	lt := &lifetimes{need: lastReads(g), of: make([]int, len(g.Values))}
	for v, info := range g.Values {
		if info.Role != RoleActivation {
			lt.open(g, Value(v), 0)
		}
	}
	for i := range g.Nodes {
		lt.placeOutputs(g, i)
	}
	for j, o := range g.Outputs {
		m := &lt.memories[lt.of[o.Value]]
		if m.role == RoleActivation && m.output < 0 && byteFormula(g.Values[o.Value].Type) == m.bytes {
			m.output = j
		} else {
			lt.copies = append(lt.copies, Copy{Value: o.Value, Output: j})
		}
	}
	return lt
}

// lastReads gives, for each value, the time until which its contents must stay: a view's readers read the value.
func lastReads(g *Graph) []int {
	need := make([]int, len(g.Values))
	for _, o := range g.Outputs {
		need[o.Value] = len(g.Nodes) + 1
	}
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		n := &g.Nodes[i]
		for _, v := range n.Outputs {
			need[v] = max(need[v], i+1)
		}
		for _, v := range n.Inputs {
			need[v] = max(need[v], i+1)
		}
		for k, v := range n.Outputs {
			if in := n.Schema.viewOf(k); in >= 0 {
				need[n.Inputs[in]] = max(need[n.Inputs[in]], need[v])
			}
		}
	}
	return need
}

// open gives a value memory of its own from a time on.
func (lt *lifetimes) open(g *Graph, v Value, first int) {
	info := &g.Values[v]
	lt.of[v] = len(lt.memories)
	lt.memories = append(lt.memories, memory{values: []Value{v}, role: info.Role, slot: info.Slot, bytes: byteFormula(info.Type),
		first: first, last: lt.need[v], born: info.Node, output: -1})
}

// join puts a value into memory that is there.
func (lt *lifetimes) join(g *Graph, v Value, at int) {
	m := &lt.memories[at]
	lt.of[v] = at
	m.values = append(m.values, v)
	m.last = max(m.last, lt.need[v])
	m.born = g.Values[v].Node
}

// placeOutputs decides for each output of node i: a view's memory, an input's in place, or memory of its own. Views come
// first, so that nothing is written in place over memory that this very node gives out under another shape.
func (lt *lifetimes) placeOutputs(g *Graph, i int) {
	n := &g.Nodes[i]
	for k, v := range n.Outputs {
		if in := n.Schema.viewOf(k); in >= 0 {
			lt.join(g, v, lt.of[n.Inputs[in]])
		}
	}
	for k, v := range n.Outputs {
		if n.Schema.viewOf(k) >= 0 {
			continue
		}
		at := -1
		for _, a := range n.Schema.Aliases {
			if a.Output == k && a.Input < len(n.Inputs) && lt.mayOverwrite(g, i, k, a.Input) {
				at = lt.of[n.Inputs[a.Input]]
				break
			}
		}
		if at >= 0 {
			lt.join(g, v, at)
		} else {
			lt.open(g, v, i+1)
		}
	}
}

// mayOverwrite tells whether output k of node i, which declares that it may, can be written over an input:
//   - the memory is ours, and of the output's size in every bucket;
//   - no value in it, and no view of one, is read after this node (an output is read at the very end);
//   - no other output of this node lies in it;
//   - the node reads it through this value alone: another view's rows would be overwritten before they are read. The
//     same value given twice is fine where the op may overwrite either.
func (lt *lifetimes) mayOverwrite(g *Graph, i, k, input int) bool {
	n := &g.Nodes[i]
	x := n.Inputs[input]
	m := &lt.memories[lt.of[x]]
	size := byteFormula(g.Values[n.Outputs[k]].Type)
	if m.role != RoleActivation || m.last > i+1 || m.born == i || m.bytes != size || byteFormula(g.Values[x].Type) != size {
		return false
	}
	for j, w := range n.Inputs {
		if lt.of[w] == lt.of[x] && (w != x || !n.Schema.mayReplace(k, j)) {
			return false
		}
	}
	return true
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
