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
		if peak(intervals(others)) < peak(intervals(blocks)) {
			lt, blocks = apart, others
		}
	}
	p.store(lt, blocks)
	p.layOut(lt, blocks, scratch.rungs, filled)
	if err := Check(p); err != nil {
		return nil, err
	}
	return p, nil
}

// blockKind is the kind of a block, as an index into blockKinds.
type blockKind uint8

const (
	activation blockKind = iota
	scratchpad
	inputStaging
	outputStaging
)

var blockKinds = [...]string{activation: BlockActivation, scratchpad: BlockWorkspace, inputStaging: BlockInput, outputStaging: BlockOutput}

// block is a Block before it has an offset, with its size at every bucket.
type block struct {
	kind        blockKind
	slot        int32 // the input, output or node whose it is; of an activation, its memory
	memory      int32 // whose values lie in it; -1: none
	first, last int32
	bytes       int64
	formula     Dim        // bytes; unused by a workspace
	scratch     *workspace // of a workspace
}

// list lists what the arena must hold, in order of first times; ties stay in order of creation.
func (p *Plan) list(lt *lifetimes, scratch *workspaces) ([]block, error) {
	g := p.Graph
	end := int32(len(g.Nodes) + 1)
	count := len(g.Outputs)
	for k := range lt.memories {
		if m := &lt.memories[k]; m.role == RoleActivation || m.role == RoleInput {
			count++
		}
	}
	blocks := make([]block, 0, count+len(g.Nodes)/8)
	buffer := slices.Repeat([]int32{-1}, len(g.Outputs)) // the memory that is written in an output's buffer
	for k := range lt.memories {
		m := &lt.memories[k]
		b := block{kind: activation, slot: int32(k), memory: int32(k), formula: lt.bytesOf(m), first: m.first, last: m.last}
		switch {
		case m.role == RoleInput:
			b.kind, b.first, b.slot = inputStaging, 0, m.slot
		case m.role != RoleActivation:
			continue
		case m.output >= 0:
			buffer[m.output] = int32(k)
			continue
		}
		blocks = append(blocks, b)
	}
	for j, o := range g.Outputs {
		b := block{kind: outputStaging, slot: int32(j), memory: buffer[j], formula: lt.shares.bytes[o.Value], first: end, last: end}
		if b.memory >= 0 {
			b.first = lt.memories[b.memory].first
		}
		blocks = append(blocks, b)
	}
	for k := range blocks {
		blocks[k].bytes = blocks[k].formula.At(g.Limits.MaxTokens, g.Limits.MaxSeqs)
	}
	for _, part := range p.Partitions {
		for i := part.First; i < part.End; i++ {
			w, err := scratch.of(&g.Nodes[i], part.Kind)
			if err != nil {
				return nil, err
			}
			if w != nil && w.most > 0 {
				blocks = append(blocks, block{kind: scratchpad, slot: int32(i), memory: -1, scratch: w, bytes: w.most, first: int32(i + 1), last: int32(i + 1)})
			}
		}
	}
	return inOrder(blocks, end), nil
}

// inOrder sorts blocks by their first times, which end at a time; those with the same stay as they were.
func inOrder(blocks []block, end int32) []block {
	at := make([]int32, end+2)
	for k := range blocks {
		at[blocks[k].first+1]++
	}
	for t := range end {
		at[t+1] += at[t]
	}
	out := make([]block, len(blocks))
	for k := range blocks {
		first := blocks[k].first
		out[at[first]] = blocks[k]
		at[first]++
	}
	return out
}

// store decides where every value lies, but for the offsets of blocks.
func (p *Plan) store(lt *lifetimes, blocks []block) {
	g := p.Graph
	p.Copies = lt.copies
	p.InputBlock, p.OutputBlock = make([]int, len(g.Inputs)), make([]int, len(g.Outputs))
	p.WorkspaceBlock, p.WorkspaceBytes = slices.Repeat([]int{-1}, len(g.Nodes)), make([]int64, len(g.Nodes))
	blockOf := make([]int32, len(lt.memories))
	for k := range blocks {
		b := &blocks[k]
		switch b.kind {
		case activation:
			blockOf[b.slot] = int32(k)
		case scratchpad:
			p.WorkspaceBlock[b.slot], p.WorkspaceBytes[b.slot] = k, b.bytes
		case inputStaging:
			p.InputBlock[b.slot] = k
		case outputStaging:
			p.OutputBlock[b.slot] = k
		}
	}
	p.Storage = make([]Storage, len(g.Values))
	for v := range p.Storage {
		m, s := &lt.memories[lt.of[v]], &p.Storage[v]
		switch {
		case m.role == RoleInput:
			s.Place, s.Index = PlaceInput, int(m.slot)
		case m.role != RoleActivation:
			s.Place, s.Index = PlaceBound, int(m.slot)
		case m.output >= 0:
			s.Place, s.Index = PlaceOutput, int(m.output)
		default:
			s.Place, s.Index = PlaceArena, int(blockOf[lt.of[v]])
		}
		if lt.form != nil {
			s.Offset, s.Strides = lt.form[v].offset, lt.form[v].strides
		}
	}
}

// reserve is what a block of so many bytes takes: an empty one too has an address of its own.
func reserve(bytes int64) int64 { return align(max(bytes, 1)) }

// intervals are blocks as the packer sees them.
func intervals(blocks []block) []Interval {
	items := make([]Interval, len(blocks))
	for i := range blocks {
		b := &blocks[i]
		items[i] = Interval{First: int(b.first), Last: int(b.last), Size: reserve(b.bytes)}
	}
	return items
}

// layOut gives the blocks their offsets. o has its defaults filled in.
func (p *Plan) layOut(lt *lifetimes, blocks []block, rungs []int64, o Options) {
	g := p.Graph
	effort := Effort{Nodes: max(o.Nodes, 0), Time: o.Time}
	items := intervals(blocks)
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
	p.Blocks = p.blocks(lt, blocks, &p.Layouts[p.Main])
	for k := range blocks {
		if kind := blocks[k].kind; kind == inputStaging || kind == outputStaging {
			p.StagingBytes += items[k].Size
		}
	}
}

// blocks gives blocks their names and values, and their places in a layout.
func (p *Plan) blocks(lt *lifetimes, blocks []block, main *Layout) []Block {
	g := p.Graph
	out := make([]Block, len(blocks))
	room := make([]Value, 0, len(g.Values))
	for k := range blocks {
		b := &blocks[k]
		out[k] = Block{Kind: blockKinds[b.kind], Offset: main.Offsets[k], Bytes: main.Bytes[k], First: int(b.first), Last: int(b.last)}
		switch b.kind {
		case scratchpad:
			out[k].Name = g.Nodes[b.slot].Name
		case outputStaging:
			out[k].Name = g.Outputs[b.slot].Name
		default:
			out[k].Name = g.Values[lt.memories[b.memory].root].Name
		}
		if b.memory >= 0 {
			from := len(room)
			for v := lt.memories[b.memory].root; v >= 0; v = lt.next[v] {
				room = append(room, v)
			}
			out[k].Values = room[from:len(room):len(room)]
		}
	}
	return out
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
		l.Bytes[k] = blocks[k].bytes
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
	packer := newPacker(intervals(blocks)) // times are the same in all of them
	for r := range rungs {
		for k := range sized {
			b := &sized[k]
			if b.scratch == nil {
				b.bytes = b.formula.At(rungs[r], g.Limits.MaxSeqs)
			} else if !pinned[k] {
				b.bytes = b.scratch.rungs[r]
			}
		}
		items[r], order[r] = intervals(sized), r
		layouts[r] = layout(rungs[r], items[r], sized, Placement{Bound: packer.peak(items[r])})
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layouts[b].LowerBound, layouts[a].LowerBound) })
	var fixed []int64
	var height int64
	for _, r := range order {
		effort.Enough = height
		placed := packer.pack(items[r], fixed, effort)
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
