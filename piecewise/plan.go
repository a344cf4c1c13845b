package piecewise

import (
	"cmp"
	"slices"
)

// Place is where a value's bytes lie.
type Place int32

// Places.
const (
	PlaceArena  Place = 1
	PlaceInput  Place = 2 // the caller's input tensor, or its staging block if that is too short for the bucket
	PlaceBound  Place = 3 // a bound weight or state
	PlaceOutput Place = 4 // the caller's output tensor, or its staging block
)

func (p Place) String() string {
	if p >= PlaceArena && p <= PlaceOutput {
		return [...]string{"arena", "input", "bound", "output"}[p-1]
	}
	return "nowhere"
}

// Storage is where a value lies, in every bucket.
type Storage struct {
	Place   Place
	Index   int     // of its block in Plan.Blocks if it lies in the arena; else in Graph.Inputs, Graph.Bound or Graph.Outputs
	Offset  int64   // bytes, within that block or tensor
	Strides Strides // in elements; all zero: compact
}

// Copy copies a value into the buffer of an output, behind the last node.
type Copy struct {
	Value  Value
	Output int
}

// Kinds of blocks.
const (
	BlockActivation = "activation"
	BlockWorkspace  = "workspace"
	BlockInput      = "input staging"
	BlockOutput     = "output staging"
)

// Block is one reservation in the arena: bytes [Offset, Offset+Bytes) at times First to Last inclusive. Node i runs at
// time i+1; inputs are staged at time 0, outputs copied out at time n+1.
type Block struct {
	Name          string
	Offset, Bytes int64 // in the main layout
	First, Last   int
	Values        []Value // of an activation, or of an output's buffer: the values that share it, in order
	Kind          string
}

// Layout says where the blocks lie at some sizes.
type Layout struct {
	MaxTokens      int64   // of the steps that it serves; those that an earlier layout serves are not among them
	Offsets, Bytes []int64 // per block
	Height         int64   // of the highest block's end
	LowerBound     int64   // the most bytes that are live at once
}

// Plan is all that an exec is built from: what is captured, and where every byte lies.
type Plan struct {
	Graph      *Graph
	Options    Options // as given
	Buckets    []int64 // token buckets, rising
	SeqBuckets []int64 // sequence buckets, rising
	Units      []Unit  // in default capture order: the largest first
	Partitions []Partition

	Storage        []Storage // per value
	Blocks         []Block   // all that lies in the arena, in order of First
	Layouts        []Layout  // by rising MaxTokens; the last one serves the limits. One, unless Options.Layout led to more
	Main           int       // the layout that needs the most at once; of those that need the same, the one for most tokens
	InputBlock     []int     // per input: the block that is used if the caller's tensor is too short
	OutputBlock    []int     // per output: likewise
	WorkspaceBlock []int     // per node; -1: none
	WorkspaceBytes []int64   // per node: the most over all sizes
	Runs           []bool    // per node: whether it has anything to run; not if all its outputs only show an input
	Copies         []Copy    // outputs that are not written in place

	ArenaBytes   int64 // the highest layout, a multiple of Alignment
	LowerBound   int64 // the most bytes that are live at once in any layout: no arena for them can be smaller
	BucketSum    int64 // what an arena of each token bucket's own would take at the least, summed
	StagingBytes int64 // of the arena: all staging blocks together
	NumSegments  int   // partitions that are captured
	NumDynamic   int   // partitions that run between them
}

// LayoutOf is the layout of a step with so many tokens, at most the limit.
func (p *Plan) LayoutOf(tokens int64) *Layout {
	k, _ := slices.BinarySearchFunc(p.Layouts, tokens, func(l Layout, tokens int64) int { return cmp.Compare(l.MaxTokens, tokens) })
	return &p.Layouts[k]
}

// NewPlan plans a frozen graph, and checks the plan.
func NewPlan(g *Graph, o Options) (*Plan, error) {
	if !g.Frozen {
		return nil, Errorf(ErrState, "graph: not frozen")
	}
	filled, err := checkOptions(g.Limits, o)
	if err != nil {
		return nil, err
	}
	p := &Plan{Graph: g, Options: o, Buckets: filled.Buckets, SeqBuckets: filled.SeqBuckets, Partitions: split(g)}
	var tokens, seqs bool
	for _, part := range p.Partitions {
		switch part.Kind {
		case TokenSegment:
			tokens = true
			p.NumSegments++
		case SeqSegment:
			seqs = true
			p.NumSegments++
		case DynamicOp:
			p.NumDynamic++
		}
	}
	p.Units = units(g.Limits, filled, g.Support(), tokens, seqs)

	scratch := newWorkspaces(g, filled, p.Units)
	shared := findShares(g)
	p.Runs = make([]bool, len(g.Nodes))
	for i := range g.Nodes {
		p.Runs[i] = shared.runs(i)
	}
	lt := findLifetimes(g, shared, true)
	blocks, err := p.list(lt, scratch)
	if err != nil {
		return nil, err
	}
	if lt.joined > 0 { // written where it will be joined, the whole is there early: where that costs memory, it is copied
		apart := findLifetimes(g, shared, false)
		others, err := p.list(apart, scratch)
		if err != nil {
			return nil, err
		}
		if peak(intervals(others, blockBytes)) < peak(intervals(blocks, blockBytes)) {
			lt, blocks = apart, others
		}
	}
	p.store(lt, blocks)
	p.layOut(blocks, scratch.rungs, filled)
	if err := Check(p); err != nil {
		return nil, err
	}
	return p, nil
}

// block is a Block before it has an offset, with its size at every bucket.
type block struct {
	Block
	formula Dim        // its size in bytes; unused by a workspace
	scratch *workspace // of a workspace
	slot    int        // the input, output or node whose it is; of an activation, its memory
}

func blockBytes(b *block) int64 { return b.Bytes }

// list lists what the arena must hold, in order of first times; ties stay in order of creation.
func (p *Plan) list(lt *lifetimes, scratch *workspaces) ([]block, error) {
	g := p.Graph
	end := len(g.Nodes) + 1
	blocks := make([]block, 0, len(lt.memories)+2*len(g.Outputs)+len(g.Nodes)/8)
	buffer := make([]*memory, len(g.Outputs)) // the memory that is written in an output's buffer
	for k := range lt.memories {
		m := &lt.memories[k]
		b := block{slot: k, formula: m.bytes, Block: Block{Name: g.Values[m.root].Name, Kind: BlockActivation, First: m.first, Last: m.last, Values: m.values}}
		switch {
		case m.role == RoleInput:
			b.Kind, b.First, b.slot = BlockInput, 0, m.slot
		case m.role != RoleActivation:
			continue
		case m.output >= 0:
			buffer[m.output] = m
			continue
		}
		blocks = append(blocks, b)
	}
	for j, o := range g.Outputs {
		b := block{slot: j, formula: byteFormula(g.Values[o.Value].Type), Block: Block{Name: o.Name, Kind: BlockOutput, First: end, Last: end}}
		if m := buffer[j]; m != nil {
			b.First, b.Values = m.first, m.values
		}
		blocks = append(blocks, b)
	}
	for _, part := range p.Partitions {
		for i := part.First; i < part.End; i++ {
			w, err := scratch.of(&g.Nodes[i], part.Kind)
			if err != nil {
				return nil, err
			}
			if w != nil && w.most > 0 {
				blocks = append(blocks, block{slot: i, scratch: w, Block: Block{Name: g.Nodes[i].Name, Kind: BlockWorkspace, First: i + 1, Last: i + 1}})
			}
		}
	}
	for i := range blocks {
		b := &blocks[i]
		if b.scratch != nil {
			b.Bytes = b.scratch.most
		} else {
			b.Bytes = b.formula.At(g.Limits.MaxTokens, g.Limits.MaxSeqs)
		}
	}
	slices.SortStableFunc(blocks, func(a, b block) int { return cmp.Compare(a.First, b.First) })
	return blocks, nil
}

// store decides where every value lies, but for the offsets of blocks.
func (p *Plan) store(lt *lifetimes, blocks []block) {
	g := p.Graph
	p.Copies = lt.copies
	p.InputBlock, p.OutputBlock = make([]int, len(g.Inputs)), make([]int, len(g.Outputs))
	p.WorkspaceBlock, p.WorkspaceBytes = slices.Repeat([]int{-1}, len(g.Nodes)), make([]int64, len(g.Nodes))
	blockOf := make([]int, len(lt.memories))
	for k, b := range blocks {
		switch b.Kind {
		case BlockActivation:
			blockOf[b.slot] = k
		case BlockWorkspace:
			p.WorkspaceBlock[b.slot], p.WorkspaceBytes[b.slot] = k, b.Bytes
		case BlockInput:
			p.InputBlock[b.slot] = k
		case BlockOutput:
			p.OutputBlock[b.slot] = k
		}
	}
	p.Storage = make([]Storage, len(g.Values))
	for k := range lt.memories {
		m := &lt.memories[k]
		at := Storage{Place: PlaceArena, Index: blockOf[k]}
		switch {
		case m.role == RoleInput:
			at = Storage{Place: PlaceInput, Index: m.slot}
		case m.role != RoleActivation:
			at = Storage{Place: PlaceBound, Index: m.slot}
		case m.output >= 0:
			at = Storage{Place: PlaceOutput, Index: m.output}
		}
		for _, v := range m.values {
			at.Offset, at.Strides = lt.form[v].offset, lt.form[v].strides
			p.Storage[v] = at
		}
	}
}

// reserve is what a block of so many bytes takes: an empty one too has an address of its own.
func reserve(bytes int64) int64 { return align(max(bytes, 1)) }

// intervals are blocks with a size.
func intervals(blocks []block, size func(*block) int64) []Interval {
	items := make([]Interval, len(blocks))
	for i := range blocks {
		b := &blocks[i]
		items[i] = Interval{First: b.First, Last: b.Last, Size: reserve(size(b))}
	}
	return items
}

// layOut gives the blocks their offsets. o has its defaults filled in.
func (p *Plan) layOut(blocks []block, rungs []int64, o Options) {
	g := p.Graph
	effort := Effort{Nodes: max(o.Nodes, 0), Time: o.Time}
	items := intervals(blocks, blockBytes)
	p.BucketSum = p.sumBuckets(blocks)
	if len(p.Units) == 0 {
		o.Layout = LayoutFixed // every step is eager, of any size: what its scratch needs is known at the buckets alone
	}
	if o.Layout != LayoutPerBucket {
		p.use([]Layout{layout(g.Limits.MaxTokens, items, blocks, Pack(items, effort))})
	}
	if o.Layout == LayoutPerBucket || o.Layout == LayoutAuto && len(rungs) > 1 {
		layouts := p.perRung(blocks, rungs, effort)
		if height := heightOfAll(layouts); o.Layout == LayoutPerBucket || height < p.ArenaBytes {
			p.use(layouts)
		}
	}
	main := &p.Layouts[p.Main]
	p.Blocks = make([]Block, 0, len(blocks))
	for k := range blocks {
		blocks[k].Offset, blocks[k].Bytes = main.Offsets[k], main.Bytes[k]
		p.Blocks = append(p.Blocks, blocks[k].Block)
		if blocks[k].Kind == BlockInput || blocks[k].Kind == BlockOutput {
			p.StagingBytes += items[k].Size
		}
	}
}

// sumBuckets adds up the lower bounds of an arena for each token bucket alone, at max_seqs.
func (p *Plan) sumBuckets(blocks []block) (sum int64) {
	end := len(p.Graph.Nodes) + 3
	change := make([]int64, end)
	for k, bucket := range p.Buckets {
		clear(change)
		for i := range blocks {
			b := &blocks[i]
			bytes := b.formula.At(bucket, p.Graph.Limits.MaxSeqs)
			if b.scratch != nil {
				bytes = b.scratch.buckets[k]
			}
			bytes = reserve(bytes)
			change[b.First] += bytes
			change[b.Last+1] -= bytes
		}
		var live, most int64
		for _, c := range change {
			live += c
			most = max(most, live)
		}
		sum += most
	}
	return sum
}

func heightOfAll(layouts []Layout) int64 {
	var height int64
	for _, l := range layouts {
		height = max(height, l.Height)
	}
	return height
}

func (p *Plan) use(layouts []Layout) {
	p.Layouts, p.ArenaBytes, p.LowerBound = layouts, heightOfAll(layouts), 0
	for k, l := range layouts {
		if l.LowerBound >= p.LowerBound {
			p.LowerBound, p.Main = l.LowerBound, k
		}
	}
}

func layout(maxTokens int64, items []Interval, blocks []block, placed Placement) Layout {
	l := Layout{MaxTokens: maxTokens, Offsets: placed.Offsets, Bytes: make([]int64, len(blocks)), Height: placed.Height, LowerBound: placed.Bound}
	for k := range blocks {
		l.Bytes[k] = blocks[k].Bytes
	}
	return l
}

// perRung lays the blocks out for each rung alone. Those that a sequence segment touches have the same offsets in all of
// them: it is captured once, whatever the tokens are. Rungs are laid out from the one that needs the most; a later one
// stops as soon as it is not higher.
func (p *Plan) perRung(blocks []block, rungs []int64, effort Effort) []Layout {
	g := p.Graph
	pinned := p.pinned(blocks)
	layouts := make([]Layout, len(rungs))
	items := make([][]Interval, len(rungs))
	order := make([]int, len(rungs))
	sized := slices.Clone(blocks)
	for r := range rungs {
		for k := range sized {
			b := &sized[k]
			if b.scratch == nil {
				b.Bytes = b.formula.At(rungs[r], g.Limits.MaxSeqs)
			} else if !pinned[k] {
				b.Bytes = b.scratch.rungs[r]
			}
		}
		items[r], order[r] = intervals(sized, blockBytes), r
		layouts[r] = layout(rungs[r], items[r], sized, Placement{Bound: peak(items[r])})
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layouts[b].LowerBound, layouts[a].LowerBound) })
	var fixed []int64
	var height int64
	for _, r := range order {
		effort.Enough = height
		placed := PackAround(items[r], fixed, effort)
		layouts[r].Offsets, layouts[r].Height = placed.Offsets, placed.Height
		height = max(height, placed.Height)
		if fixed == nil {
			fixed = slices.Repeat([]int64{-1}, len(blocks))
			for k, pin := range pinned {
				if pin {
					fixed[k] = placed.Offsets[k]
				}
			}
		}
	}
	return layouts
}

// pinned tells for each block whether anything that runs in a sequence segment reads or writes it.
func (p *Plan) pinned(blocks []block) []bool {
	g := p.Graph
	out := make([]bool, len(blocks))
	for _, part := range p.Partitions {
		for i := part.First; i < part.End && part.Kind == SeqSegment; i++ {
			if !p.Runs[i] {
				continue
			}
			if k := p.WorkspaceBlock[i]; k >= 0 {
				out[k] = true
			}
			for _, list := range [][]Value{g.Nodes[i].Inputs, g.Nodes[i].Outputs} {
				for _, v := range list {
					if k := p.blockOf(v); k >= 0 {
						out[k] = true
					}
				}
			}
		}
	}
	return out
}

// blockOf is the block that a value may lie in; -1 for weights and states.
func (p *Plan) blockOf(v Value) int {
	switch s := p.Storage[v]; s.Place {
	case PlaceArena:
		return s.Index
	case PlaceInput:
		return p.InputBlock[s.Index]
	case PlaceOutput:
		return p.OutputBlock[s.Index]
	}
	return -1
}
