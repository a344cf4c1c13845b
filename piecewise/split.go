package piecewise

import "fmt"

// PartitionKind tells what a run of nodes is to the piecewise mode.
type PartitionKind int32

// Kinds of partitions.
const (
	TokenSegment PartitionKind = 1 // captured per token bucket: its shapes depend on tokens alone
	SeqSegment   PartitionKind = 2 // captured per sequence bucket: its shapes depend on sequences alone
	DynamicOp    PartitionKind = 3 // one node that runs between segments
	Views        PartitionKind = 4 // views alone: nothing to run, not captured
)

func (k PartitionKind) String() string {
	if k >= TokenSegment && k <= Views {
		return [...]string{"token segment", "seq segment", "dynamic op", "views"}[k-1]
	}
	return fmt.Sprintf("partition(%d)", int32(k))
}

// Partition is a run of nodes.
type Partition struct {
	Kind       PartitionKind
	First, End int    // nodes [First, End)
	Why        string // of a DynamicOp: why it is a split
}

// axis says which counts a node's shapes depend on.
type axis uint8

const (
	axisTokens axis = 1 << iota
	axisSeqs
	axisNone axis = 0
	axisBoth      = axisTokens | axisSeqs
)

// axesOf gives each value's. Weights and states are of constant size.
func axesOf(values []ValueInfo) []axis {
	out := make([]axis, len(values))
	for v := range values {
		d := &values[v].Type.Dims[0]
		if d.Tokens != 0 {
			out[v] |= axisTokens
		}
		if d.Seqs != 0 {
			out[v] |= axisSeqs
		}
	}
	return out
}

// axisOf looks at a node's inputs and outputs.
func axisOf(axes []axis, n *Node) axis {
	a := axisNone
	for _, v := range n.Inputs {
		a |= axes[v]
	}
	for _, v := range n.Outputs {
		a |= axes[v]
	}
	return a
}

// splitReason says why a node of an axis is a partition of its own; "" if it is none.
func splitReason(n *Node, a axis) string {
	switch {
	case n.Kind != Static && n.Capture != CaptureAlways && n.Note != "":
		return n.Note
	case n.Kind != Static && n.Capture != CaptureAlways:
		return "capture support " + n.Capture.String()
	case a == axisBoth && !OnlyViews(n.Schema):
		return "reads tokens and seqs"
	}
	return ""
}

// split cuts the graph into partitions. Nodes that can be captured join the running segment of their axis; nodes of
// neither axis join whatever segment is open, and so do views that lead from one axis to the other: they run nothing.
func split(g *Graph) []Partition {
	var out []Partition
	open := false // the last partition is a segment that may be joined
	axes := axesOf(g.Values)
	for i := range g.Nodes {
		n := &g.Nodes[i]
		a := axisOf(axes, n)
		if why := splitReason(n, a); why != "" {
			out = append(out, Partition{DynamicOp, i, i + 1, why})
			open = false
			continue
		}
		kind := TokenSegment
		switch a {
		case axisSeqs:
			kind = SeqSegment
		case axisNone, axisBoth:
			if open {
				kind = out[len(out)-1].Kind
			}
		}
		if open && out[len(out)-1].Kind == kind {
			out[len(out)-1].End = i + 1
			continue
		}
		out = append(out, Partition{Kind: kind, First: i, End: i + 1})
		open = true
	}
	for k := range out {
		views := out[k].Kind != DynamicOp
		for i := out[k].First; i < out[k].End && views; i++ {
			views = OnlyViews(g.Nodes[i].Schema)
		}
		if views {
			out[k].Kind = Views
		}
	}
	return out
}
