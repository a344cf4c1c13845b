package piecewise

import "cmp"

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
	Place  Place
	Index  int   // in Graph.Inputs, Graph.Bound or Graph.Outputs; 0 in the arena
	Offset int64 // bytes: in the arena, or within that tensor
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
	Offset, Bytes int64 // Bytes at the limits; every smaller size uses the same offset
	First, Last   int
	Values        []Value // of an activation, or of an output's buffer: the values that share it, in order
	Kind          string
}

// Plan is all that an exec is built from: what is captured, and where every byte lies.
type Plan struct {
	Graph      *Graph
	Options    Options // as given
	Buckets    []int64 // token buckets, rising
	SeqBuckets []int64 // sequence buckets, rising
	Units      []Unit  // in default capture order: the largest first
	Partitions []Partition

	Storage         []Storage // per value
	WorkspaceOffset []int64   // per node: in the arena; 0 if it has none
	WorkspaceBytes  []int64   // per node: the most over all sizes
	InputStaging    []int64   // per input: offset in the arena of the block that is used if the caller's tensor is too short
	OutputStaging   []int64   // per output: likewise
	Copies          []Copy    // outputs that are not written in place
	Blocks          []Block   // all that lies in the arena, in order of First

	ArenaBytes   int64 // height of the arena, a multiple of Alignment
	LowerBound   int64 // the most bytes that are ever live at once: no arena can be smaller
	BucketSum    int64 // what an arena of each token bucket's own would take at the least, summed
	StagingBytes int64 // of the arena: all staging blocks together
	NumSegments  int   // partitions that are captured
	NumDynamic   int   // partitions that run between them
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
	blocks, err := p.layOut(findLifetimes(g), scratch)
	if err != nil {
		return nil, err
	}
	p.pack(blocks)
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
	slot    int        // the input, output or node whose it is; of an activation, -1
}

// layOut decides where every value lies, but for the offsets in the arena, and lists what the arena must hold.
func (p *Plan) layOut(lt *lifetimes, scratch *workspaces) ([]block, error) {
	g := p.Graph
	end := len(g.Nodes) + 1
	var blocks []block
	p.Copies = lt.copies
	p.Storage = make([]Storage, len(g.Values))
	buffer := make([]*memory, len(g.Outputs)) // the memory that is written in an output's buffer
	for i := range lt.memories {
		m := &lt.memories[i]
		var at Storage
		switch {
		case m.role == RoleInput:
			at = Storage{Place: PlaceInput, Index: m.slot}
			blocks = append(blocks, block{slot: m.slot, formula: m.bytes, Block: Block{
				Name: g.Values[m.values[0]].Name, Kind: BlockInput, First: 0, Last: m.last, Values: m.values}})
		case m.role != RoleActivation:
			at = Storage{Place: PlaceBound, Index: m.slot}
		case m.output >= 0:
			at = Storage{Place: PlaceOutput, Index: m.output}
			buffer[m.output] = m
		default:
			at = Storage{Place: PlaceArena}
			blocks = append(blocks, block{slot: -1, formula: m.bytes, Block: Block{
				Name: g.Values[m.values[0]].Name, Kind: BlockActivation, First: m.first, Last: m.last, Values: m.values}})
		}
		for _, v := range m.values {
			p.Storage[v] = at
		}
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
	return blocks, nil
}

// reserve is what a block of so many bytes takes: an empty one too has an address of its own.
func reserve(bytes int64) int64 { return align(max(bytes, 1)) }

// pack gives the blocks their offsets.
func (p *Plan) pack(blocks []block) {
	g := p.Graph
	sortBlocks(blocks)
	items := make([]Interval, len(blocks))
	for i, b := range blocks {
		items[i] = Interval{First: b.First, Last: b.Last, Size: reserve(b.Bytes)}
	}
	placed := Pack(items, Effort{})
	p.ArenaBytes, p.LowerBound = placed.Height, placed.Bound
	p.BucketSum = bucketSum(g, p.Buckets, blocks, items)

	p.WorkspaceOffset, p.WorkspaceBytes = make([]int64, len(g.Nodes)), make([]int64, len(g.Nodes))
	p.InputStaging, p.OutputStaging = make([]int64, len(g.Inputs)), make([]int64, len(g.Outputs))
	for i, b := range blocks {
		b.Offset = placed.Offsets[i]
		p.Blocks = append(p.Blocks, b.Block)
		switch b.Kind {
		case BlockActivation:
			for _, v := range b.Values {
				p.Storage[v].Offset = b.Offset
			}
		case BlockWorkspace:
			p.WorkspaceOffset[b.slot], p.WorkspaceBytes[b.slot] = b.Offset, b.Bytes
		case BlockInput:
			p.InputStaging[b.slot] = b.Offset
			p.StagingBytes += items[i].Size
		case BlockOutput:
			p.OutputStaging[b.slot] = b.Offset
			p.StagingBytes += items[i].Size
		}
	}
}

// sortBlocks puts blocks in order of their first time; ties stay in order of creation.
func sortBlocks(blocks []block) {
	stableSort(blocks, func(a, b block) int { return cmp.Compare(a.First, b.First) })
}

// bucketSum adds up the lower bounds of an arena for each token bucket alone, at max_seqs. items have the blocks' times,
// and are used as room for their sizes.
func bucketSum(g *Graph, buckets []int64, blocks []block, items []Interval) int64 {
	items = append([]Interval(nil), items...)
	var sum int64
	for k, bucket := range buckets {
		for i, b := range blocks {
			bytes := b.formula.At(bucket, g.Limits.MaxSeqs)
			if b.scratch != nil {
				bytes = b.scratch.buckets[k]
			}
			items[i].Size = reserve(bytes)
		}
		sum += peak(items)
	}
	return sum
}
