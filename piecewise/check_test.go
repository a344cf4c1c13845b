package piecewise

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkedPlan is a plan with something of everything: x is staged, a and its view v are read on across a dynamic op with
// scratch, n is written in place over a, y goes to its output, and a second output is a copy.
func checkedPlan(t *testing.T) (*Plan, map[string]Value) {
	b := newBuild(t, 4, 2)
	row := f32(tokens, 16)
	v := map[string]Value{}
	v["x"] = b.input("x", row)
	v["w"], v["s"] = b.weight("w", f32(constant(4))), b.state("s", f32(constant(4)))
	v["a"] = b.op(static("a", 2, row), v["x"], v["w"])
	v["v"] = b.op(aliased(static("v", 1, f32(tokens, 4, 4)), view(0, 0)), v["a"])
	d := dynamic("d", 2, CaptureNever, row)
	d.Mutates = 2
	d.Workspace = func(_, _ []Shape, _ []Attr, tokens, _ int64) (int64, error) { return 64 * tokens, nil }
	v["d"] = b.op(d, v["v"], v["s"])
	v["n"] = b.op(aliased(static("n", 2, row), inPlace(0, 0)), v["a"], v["d"])
	v["m"] = b.op(static("m", 1, row), v["n"])
	v["y"] = b.op(static("y", 2, row), v["m"], v["n"])
	b.output("y", v["y"])
	b.output("again", v["y"])
	p := b.plan(Options{Mode: ModePiecewise})
	require.Equal(t, p.Storage[v["a"]], p.Storage[v["n"]])
	require.NoError(t, Check(p))
	return p, v
}

// clone copies what a test may damage.
func (p *Plan) clone() *Plan {
	q := *p
	q.Units, q.Partitions = slices.Clone(p.Units), slices.Clone(p.Partitions)
	q.Storage, q.Copies, q.Blocks = slices.Clone(p.Storage), slices.Clone(p.Copies), slices.Clone(p.Blocks)
	q.WorkspaceBlock, q.WorkspaceBytes = slices.Clone(p.WorkspaceBlock), slices.Clone(p.WorkspaceBytes)
	q.InputBlock, q.OutputBlock, q.Runs = slices.Clone(p.InputBlock), slices.Clone(p.OutputBlock), slices.Clone(p.Runs)
	q.Layouts = slices.Clone(p.Layouts)
	for k, l := range q.Layouts {
		q.Layouts[k].Offsets, q.Layouts[k].Bytes = slices.Clone(l.Offsets), slices.Clone(l.Bytes)
	}
	return &q
}

// moveBlock moves a block, as a faulty packer would.
func moveBlock(p *Plan, k int, offset int64) {
	p.Blocks[k].Offset = offset
	p.Layouts[p.Main].Offsets[k] = offset
}

func resizeBlock(p *Plan, k int, by int64) {
	p.Blocks[k].Bytes += by
	p.Layouts[p.Main].Bytes[k] += by
}

// offsetOf is where a value lies in the arena.
func (p *Plan) offsetOf(v Value) int64 { return p.Blocks[p.blockOf(v)].Offset + p.Storage[v].Offset }

func TestCheckRejects(t *testing.T) {
	good, v := checkedPlan(t)
	index := func(kind, name string) int {
		return slices.IndexFunc(good.Blocks, func(b Block) bool { return b.Kind == kind && b.Name == name })
	}
	for name, e := range map[string]struct {
		message string
		damage  func(p *Plan)
	}{
		"an overlap": {"overlaps", func(p *Plan) { moveBlock(p, index(BlockActivation, "d#2"), p.offsetOf(v["a"])) }},
		"an overlap by a part": {"overlaps", func(p *Plan) {
			k := index(BlockActivation, "d#2")
			moveBlock(p, k, p.offsetOf(v["a"])+64)
			p.ArenaBytes += 512
		}},
		"scratch over a value that is read":    {"overlaps", func(p *Plan) { moveBlock(p, index(BlockWorkspace, "d#2"), p.offsetOf(v["a"])) }},
		"scratch over its own node's output":   {"overlaps", func(p *Plan) { moveBlock(p, index(BlockWorkspace, "d#2"), p.offsetOf(v["d"])) }},
		"staging over a value":                 {"overlaps", func(p *Plan) { moveBlock(p, index(BlockInput, "x"), p.offsetOf(v["a"])) }},
		"output staging over a value":          {"overlaps", func(p *Plan) { moveBlock(p, index(BlockOutput, "y"), p.offsetOf(v["m"])) }},
		"two outputs in one staging block":     {"overlaps", func(p *Plan) { moveBlock(p, index(BlockOutput, "again"), p.Blocks[p.OutputBlock[0]].Offset) }},
		"an offset that is not aligned":        {"must be a multiple of 64", func(p *Plan) { moveBlock(p, index(BlockActivation, "m#4"), 32) }},
		"a negative offset":                    {"must be a multiple of 64", func(p *Plan) { moveBlock(p, index(BlockActivation, "m#4"), -64) }},
		"beyond the arena":                     {"the arena has", func(p *Plan) { moveBlock(p, index(BlockActivation, "m#4"), p.ArenaBytes-64) }},
		"far beyond the arena":                 {"the arena has", func(p *Plan) { moveBlock(p, index(BlockActivation, "m#4"), 1<<62) }},
		"an arena that is too small":           {"the arena has", func(p *Plan) { p.ArenaBytes -= 64 }},
		"an arena of odd size":                 {"must be a multiple", func(p *Plan) { p.ArenaBytes += 8 }},
		"a view elsewhere":                     {"is a view of", func(p *Plan) { p.Storage[v["v"]].Offset += 64 }},
		"a view in another place":              {"is a view of", func(p *Plan) { p.Storage[v["v"]] = Storage{Place: PlaceOutput, Index: 0} }},
		"a value away from its block":          {"", func(p *Plan) { p.Storage[v["m"]].Offset += 64; p.ArenaBytes += 256 }},
		"an input elsewhere":                   {"it cannot lie there", func(p *Plan) { p.Storage[v["x"]] = Storage{Place: PlaceArena, Index: 0} }},
		"a weight in the state's tensor":       {"it cannot lie there", func(p *Plan) { p.Storage[v["w"]].Index = 1 }},
		"a value in a weight":                  {"is written there", func(p *Plan) { p.Storage[v["m"]] = Storage{Place: PlaceBound, Index: 0} }},
		"a value in an input":                  {"is written there", func(p *Plan) { p.Storage[v["m"]] = Storage{Place: PlaceInput, Index: 0} }},
		"a value nowhere":                      {"it cannot lie there", func(p *Plan) { p.Storage[v["m"]] = Storage{} }},
		"a value in an output that is none":    {"it cannot lie there", func(p *Plan) { p.Storage[v["m"]] = Storage{Place: PlaceOutput, Index: 2} }},
		"a value in the buffer of a copy":      {"lies elsewhere", func(p *Plan) { p.Storage[v["m"]] = Storage{Place: PlaceOutput, Index: 1} }},
		"a value in a buffer that is written":  {"", func(p *Plan) { p.Storage[v["m"]] = Storage{Place: PlaceOutput, Index: 0} }},
		"a copy that is missing":               {"output `again`: 0 copies, must be 1", func(p *Plan) { p.Copies = nil }},
		"a copy twice":                         {"output `again`: 2 copies, must be 1", func(p *Plan) { p.Copies = append(p.Copies, p.Copies[0]) }},
		"a copy over a buffer that is written": {"output `y`: 1 copies, must be 0", func(p *Plan) { p.Copies = append(p.Copies, Copy{v["y"], 0}) }},
		"a copy of another value":              {"copy of value", func(p *Plan) { p.Copies[0].Value = v["m"] }},
		"a copy to no output":                  {"copy of value", func(p *Plan) { p.Copies[0].Output = 2 }},
		"a block that ends early":              {"no block holds", func(p *Plan) { p.Blocks[index(BlockActivation, "a#0")].Last-- }},
		"a block that begins late":             {"no block holds", func(p *Plan) { p.Blocks[index(BlockActivation, "d#2")].First++ }},
		"a block that is too small":            {"no block holds", func(p *Plan) { resizeBlock(p, index(BlockActivation, "d#2"), -1) }},
		"staging that ends early":              {"no block holds", func(p *Plan) { p.Blocks[index(BlockInput, "x")].Last-- }},
		"staging that begins late":             {"no block holds", func(p *Plan) { p.Blocks[index(BlockOutput, "y")].First++ }},
		"scratch at another time":              {"no block holds", func(p *Plan) { p.Blocks[index(BlockWorkspace, "d#2")].First++ }},
		"a block that is missing":              {"block 6 of 6", func(p *Plan) { p.Blocks = slices.Delete(p.Blocks, 0, 1) }},
		"a block of a layout that is missing":  {"of 7 blocks", func(p *Plan) { p.Layouts[0].Offsets = p.Layouts[0].Offsets[1:] }},
		"no layout for the limits":             {"no layout serves", func(p *Plan) { p.Layouts[0].MaxTokens-- }},
		"a layout that claims another bound":   {"lower bound", func(p *Plan) { p.Layouts[0].LowerBound += 64; p.LowerBound += 64 }},
		"strides for an op that takes none":    {"has strides", func(p *Plan) { p.Storage[v["m"]].Strides = Strides{32, 1} }},
		"an op that is said not to run":        {"runs: false", func(p *Plan) { p.Runs[0] = false }},
		"a view that is said to run":           {"runs: true", func(p *Plan) { p.Runs[1] = true }},
		"scratch that is too small":            {"needs 256", func(p *Plan) { p.WorkspaceBytes[2] = 64 }},
		"a bound that nothing reaches":         {"lower bound", func(p *Plan) { p.LowerBound += 64 }},
		"a bound that is too low":              {"lower bound", func(p *Plan) { p.LowerBound -= 64 }},
		"a node in no partition":               {"partitions end at", func(p *Plan) { p.Partitions = p.Partitions[:2] }},
		"a node in two partitions":             {"must begin at", func(p *Plan) { p.Partitions[1].First-- }},
		"a dynamic op in a segment":            {"in a token segment", func(p *Plan) { p.Partitions[1].Kind = TokenSegment; p.NumSegments++; p.NumDynamic-- }},
		"a token op in a sequence segment":     {"in a seq segment", func(p *Plan) { p.Partitions[0].Kind = SeqSegment }},
		"an op that runs among views":          {"among views", func(p *Plan) { p.Partitions[0].Kind = Views; p.NumSegments-- }},
		"wrong counts":                         {"counted as", func(p *Plan) { p.NumDynamic++ }},
		"a size beyond the limits":             {"unit 0", func(p *Plan) { p.Units[0].Tokens = 5 }},
		"a size twice":                         {"unit 1", func(p *Plan) { p.Units = append(p.Units, p.Units[0]) }},
		"a list that is too short":             {"entries", func(p *Plan) { p.Storage = p.Storage[1:] }},
	} {
		t.Run(name, func(t *testing.T) {
			p := good.clone()
			e.damage(p)
			err := Check(p)
			require.Error(t, err)
			var of *Error
			require.ErrorAs(t, err, &of)
			assert.Equal(t, ErrInternal, of.Kind)
			assert.Contains(t, err.Error(), e.message)
		})
	}
}

// TestCheckRejectsForbiddenOverwrites takes plans in which a value lies apart, and puts it where in-place would have it.
func TestCheckRejectsForbiddenOverwrites(t *testing.T) {
	row := f32(tokens, 16)
	norm := aliased(static("norm", 1, row), inPlace(0, 0))
	add := aliased(static("add", 2, row), inPlace(0, 0))
	for name, makeGraph := range map[string]func(b *build) (over, out Value){
		"not declared": func(b *build) (Value, Value) {
			a := b.op(static("a", 1, row), b.input("x", row))
			n := b.op(static("n", 1, row), a)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		},
		"read again": func(b *build) (Value, Value) {
			a := b.op(static("a", 1, row), b.input("x", row))
			n := b.op(norm, a)
			b.output("y", b.op(static("end", 2, row), n, a))
			return a, n
		},
		"read again through a view": func(b *build) (Value, Value) {
			a := b.op(static("a", 1, row), b.input("x", row))
			v := b.op(aliased(static("v", 1, f32(tokens, 4, 4)), view(0, 0)), a)
			n := b.op(norm, a)
			b.output("y", b.op(static("end", 2, row), n, v))
			return a, n
		},
		"read twice by the op itself": func(b *build) (Value, Value) {
			a := b.op(static("a", 1, row), b.input("x", row))
			v := b.op(aliased(static("v", 1, f32(tokens, 4, 4)), view(0, 0)), a)
			n := b.op(add, a, v)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		},
		"given twice, declared once": func(b *build) (Value, Value) {
			a := b.op(static("a", 1, row), b.input("x", row))
			n := b.op(add, a, a)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		},
		"sizes that differ in smaller buckets": func(b *build) (Value, Value) {
			a := b.op(static("a", 1, row), b.input("x", row))
			n := b.op(aliased(static("turn", 1, f32(Dim{Seqs: 2}, 16)), inPlace(0, 0)), a)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuild(t, 4, 2)
			over, out := makeGraph(b)
			p := b.plan(Options{})
			require.NotEqual(t, p.Storage[over], p.Storage[out])
			k := slices.IndexFunc(p.Blocks, func(b Block) bool { return slices.Contains(b.Values, out) })
			in := p.clone()
			moveBlock(p, k, p.offsetOf(over))
			assert.ErrorContains(t, Check(p), "overlaps")

			from, to := &in.Blocks[in.blockOf(out)], &in.Blocks[in.blockOf(over)]
			to.Values, from.Values = append(slices.Clone(to.Values), from.Values...), nil
			to.Last = max(to.Last, from.Last)
			for _, v := range to.Values {
				in.Storage[v] = in.Storage[over]
			}
			assert.ErrorContains(t, Check(in), "in one block")
		})
	}
}

// TestCheckAgreesWithTheSimulator damages plans at random: what the checker lets pass, the simulator must let pass.
func TestCheckAgreesWithTheSimulator(t *testing.T) {
	graphs, passed, refused, harmful := 1500, 0, 0, 0
	if testing.Short() {
		graphs = 200
	}
	for seed := 0; seed < graphs; seed++ {
		r := rand.New(rand.NewSource(int64(1_000_000 + seed)))
		g := randomGraph(t, r)
		require.NoError(t, g.Freeze())
		good, err := NewPlan(g, Options{Layout: LayoutMode(r.Intn(3)), Buckets: []int64{1, 3, 6}, Nodes: -1})
		require.NoError(t, err)
		for range 8 {
			p := good.clone()
			damage(p, r)
			ok := Check(p) == nil
			harm := try(p, g.Limits.MaxTokens, g.Limits.MaxSeqs, func() bool { return true })
			for _, tokens := range []int64{g.Limits.MaxTokens, 1, 1 + r.Int63n(g.Limits.MaxTokens)} {
				if harm == nil {
					harm = try(p, tokens, 1+r.Int63n(g.Limits.MaxSeqs), func() bool { return r.Intn(2) == 0 })
				}
			}
			if ok {
				passed++
				require.NoError(t, harm, "seed %d: the checker let it pass", seed)
			} else {
				refused++
				if harm != nil {
					harmful++
				}
			}
		}
	}
	t.Logf("%d damaged plans passed both, %d were refused, of which the simulator saw %d go wrong", passed, refused, harmful)
	assert.Greater(t, passed, graphs/2)
	assert.Greater(t, harmful, graphs)
}

// damage does to a plan what a faulty planner might.
func damage(p *Plan, r *rand.Rand) {
	k := r.Intn(len(p.Blocks))
	one, other := &p.Storage[r.Intn(len(p.Storage))], p.Storage[r.Intn(len(p.Storage))]
	switch r.Intn(8) {
	case 0:
		moveBlock(p, k, p.Blocks[r.Intn(len(p.Blocks))].Offset)
	case 1:
		moveBlock(p, k, 64*r.Int63n(p.ArenaBytes/64))
	case 2: // one value alone leaves its memory
		*one = other
	case 3: // or lies elsewhere in it
		one.Offset += []int64{-64, -4, 1, 4, 64}[r.Intn(5)]
	case 4: // or with other strides
		one.Strides = other.Strides
	case 5: // in one layout alone
		l := p.Layouts[r.Intn(len(p.Layouts))]
		l.Offsets[k] = l.Offsets[r.Intn(len(l.Offsets))]
		p.Blocks[k].Offset = p.Layouts[p.Main].Offsets[k]
	case 6: // a block is too small in one layout
		l := p.Layouts[r.Intn(len(p.Layouts))]
		l.Bytes[k] /= 2
		p.Blocks[k].Bytes = p.Layouts[p.Main].Bytes[k]
	case 7: // another block as staging or scratch
		lists := [][]int{p.InputBlock, p.OutputBlock, p.WorkspaceBlock}
		if list := lists[r.Intn(len(lists))]; len(list) > 0 {
			list[r.Intn(len(list))] = k
		}
	}
}

// try simulates a plan that may reach outside of every memory.
func try(p *Plan, tokens, seqs int64, short func() bool) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("outside: %v", r)
		}
	}()
	return simulate(p, tokens, seqs, short)
}
