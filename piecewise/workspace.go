package piecewise

import (
	"slices"
	"strconv"
)

// size is a pair of counts.
type size struct{ tokens, seqs int64 }

// maxCross bounds the sizes that a dynamic op's workspace is asked at: beyond it, only the edges of the cross product.
const maxCross = 4096

// workspaces asks each op for its scratch at every size that it runs at, as the answers need not rise with the size.
// An eager step may have any size: the engine asks again there, and refuses what the plan has no room for.
type workspaces struct {
	g       *Graph
	mixed   []size                   // the limits, then (b, max_seqs) for each token bucket b: the sizes that BucketSum wants
	edges   []size                   // of warm-ups and full graphs, and (max_tokens, s)
	parts   map[PartitionKind][]size // (b, 0) and (0, s) of segments; of dynamic ops, every token with every sequence bucket
	rungs   []int64                  // token counts, rising, the last the limit: a size belongs to the lowest one that holds it
	answers map[workspaceKey]*workspace
	recent  map[recentKey]recentAnswer // spares a model's layers the making of keys
}

type recentKey struct {
	schema *OpSchema
	part   PartitionKind
}

type recentAnswer struct {
	node *Node
	*workspace
}

// workspace is the scratch of all nodes with one schema, the same types and attributes, in bytes.
type workspace struct {
	most    int64
	buckets []int64 // at (b, max_seqs), per token bucket
	rungs   []int64 // per rung: the most at the sizes that belong to it
}

func newWorkspaces(g *Graph, o Options, units []Unit) *workspaces {
	l := g.Limits
	w := &workspaces{g: g, mixed: []size{{l.MaxTokens, l.MaxSeqs}}, parts: map[PartitionKind][]size{}, answers: map[workspaceKey]*workspace{},
		recent: map[recentKey]recentAnswer{}, rungs: rungs(l, o)}
	for _, b := range o.Buckets {
		w.mixed = append(w.mixed, size{b, l.MaxSeqs})
		w.parts[TokenSegment] = append(w.parts[TokenSegment], size{b, 0})
		if b < l.MaxSeqs { // a warm-up: no more sequences than tokens
			w.edges = append(w.edges, size{b, b})
		}
	}
	for _, s := range o.SeqBuckets {
		w.edges = append(w.edges, size{l.MaxTokens, s}, size{min(s, l.MaxTokens), min(s, l.MaxTokens)})
		w.parts[SeqSegment] = append(w.parts[SeqSegment], size{0, s})
	}
	for _, u := range units {
		if u.Mode == ModeFull {
			w.edges = append(w.edges, size{u.Tokens, u.Seqs})
		}
	}
	if len(o.Buckets)*len(o.SeqBuckets) <= maxCross {
		for _, b := range o.Buckets {
			for _, s := range o.SeqBuckets {
				w.parts[DynamicOp] = append(w.parts[DynamicOp], size{b, s})
			}
		}
	}
	return w
}

// rungs are the token counts that may have offsets of their own: the buckets and the limit.
func rungs(l Limits, o Options) []int64 {
	if last := len(o.Buckets) - 1; o.Buckets[last] == l.MaxTokens {
		return o.Buckets
	}
	return append(slices.Clone(o.Buckets), l.MaxTokens)
}

// of gives the scratch of a node in a partition of some kind, nil if it has none.
func (w *workspaces) of(n *Node, part PartitionKind) (*workspace, error) {
	if n.Schema.Workspace == nil {
		return nil, nil
	}
	last := recentKey{n.Schema, part}
	if r := w.recent[last]; r.node != nil && w.g.sameArguments(r.node, n) {
		return r.workspace, nil
	}
	key := w.key(n, part)
	a, err := w.answers[key], error(nil)
	if a == nil {
		if a, err = w.askAll(n, part); err != nil {
			return nil, err
		}
		w.answers[key] = a
	}
	w.recent[last] = recentAnswer{n, a}
	return a, nil
}

// askAll asks a node at every size.
func (w *workspaces) askAll(n *Node, part PartitionKind) (*workspace, error) {
	a := &workspace{rungs: make([]int64, len(w.rungs))}
	for i, list := range [][]size{w.mixed, w.edges, w.parts[part]} {
		for j, s := range list {
			bytes, err := w.ask(n, s)
			if err != nil {
				return nil, err
			}
			a.most = max(a.most, bytes)
			rung, _ := slices.BinarySearch(w.rungs, s.tokens)
			a.rungs[rung] = max(a.rungs[rung], bytes)
			if i == 0 && j > 0 {
				a.buckets = append(a.buckets, bytes)
			}
		}
	}
	return a, nil
}

func (w *workspaces) ask(n *Node, s size) (int64, error) {
	shapes := func(list []Value) []Shape {
		out := make([]Shape, len(list))
		for i, v := range list {
			out[i] = w.g.Values[v].Type.At(s.tokens, s.seqs)
		}
		return out
	}
	bytes, err := n.Schema.Workspace(shapes(n.Inputs), shapes(n.Outputs), n.Attrs, s.tokens, s.seqs)
	if err != nil {
		return 0, opError(n, err)
	}
	if bytes < 0 || bytes > maxBytes {
		return 0, Errorf(ErrOp, "op `%s`: workspace: %d bytes at %d tokens and %d sequences", n.Name, bytes, s.tokens, s.seqs)
	}
	return bytes, nil
}

// workspaceKey is equal for nodes whose workspace function is called with equal arguments: a model's layers ask once.
type workspaceKey struct {
	schema    *OpSchema
	arguments string
}

func (w *workspaces) key(n *Node, part PartitionKind) workspaceKey {
	b := strconv.AppendInt(nil, int64(part), 10)
	number := func(x int64) { b = append(strconv.AppendInt(b, x, 36), ' ') }
	for _, list := range [][]Value{n.Inputs, n.Outputs} {
		number(int64(len(list)))
		for _, v := range list {
			t := w.g.Values[v].Type
			number(int64(t.DType))
			number(int64(len(t.Dims)))
			for _, d := range t.Dims {
				number(d.Tokens)
				number(d.Seqs)
				number(d.Constant)
			}
		}
	}
	for _, a := range n.Attrs {
		number(a.Int)
		b = append(strconv.AppendFloat(b, a.Float, 'b', -1, 64), ' ')
		b = strconv.AppendQuote(b, a.String)
		number(int64(len(a.Ints)))
		for _, x := range a.Ints {
			number(x)
		}
	}
	return workspaceKey{n.Schema, string(b)}
}
