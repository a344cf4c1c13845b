package piecewise

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// life is a block's times.
func life(b Block) [2]int { return [2]int{b.First, b.Last} }

// TestPlanByHand: x -> f -> attention -> add(f's, attention's) -> y. Rows of 16 floats are 64 bytes, 4 tokens are 256.
func TestPlanByHand(t *testing.T) {
	b := newBuild(t, 4, 2)
	row := f32(tokens, 16)
	x := b.input("x", row)
	w := b.weight("w", f32(constant(16)))
	s := b.state("s", f32(constant(16)))
	f := b.op(static("f", 2, row), x, w)
	at := dynamic("attention", 2, CaptureNever, row)
	at.Mutates = 2
	at.Workspace = func(_, _ []Shape, _ []Attr, tokens, _ int64) (int64, error) { return 100 * tokens, nil }
	a := b.op(at, f, s)
	y := b.op(static("add", 2, row), f, a)
	z := b.op(static("g", 1, row), y)
	b.output("z", z)
	p := b.plan(Options{Mode: ModePiecewise, Buckets: []int64{2, 4}})

	// Times: staging 0, f 1, attention 2, add 3, g 4, outputs 5.
	assert.Equal(t, [2]int{0, 1}, life(findBlock(t, p, BlockInput, "x")))
	assert.Equal(t, [2]int{1, 3}, life(findBlock(t, p, BlockActivation, "f#0")), "across the dynamic op")
	assert.Equal(t, [2]int{2, 3}, life(findBlock(t, p, BlockActivation, "attention#1")))
	assert.Equal(t, [2]int{3, 4}, life(findBlock(t, p, BlockActivation, "add#2")))
	assert.Equal(t, [2]int{4, 5}, life(findBlock(t, p, BlockOutput, "z")))
	ws := findBlock(t, p, BlockWorkspace, "attention#1")
	assert.Equal(t, [2]int{2, 2}, life(ws))
	assert.Equal(t, int64(400), ws.Bytes)
	assert.Equal(t, []int64{0, 400, 0, 0}, p.WorkspaceBytes)

	// Time 1: x, f: 512. Time 2: f, attention, 448 of workspace: 960. Time 3: three values: 768. Time 4: 512.
	assert.Equal(t, int64(960), p.LowerBound)
	assert.Equal(t, int64(960), p.ArenaBytes)
	assert.Equal(t, int64(512), p.StagingBytes)
	// At 2 tokens time 2 has 128 + 128 + 256 (200 rounded up).
	assert.Equal(t, int64(512+960), p.BucketSum)
	when, most := p.Peak()
	assert.Equal(t, 2, when)
	assert.Equal(t, int64(960), most)

	assert.Equal(t, Storage{Place: PlaceInput, Index: 0}, p.Storage[x])
	assert.Equal(t, Storage{Place: PlaceBound, Index: 0}, p.Storage[w])
	assert.Equal(t, Storage{Place: PlaceBound, Index: 1}, p.Storage[s])
	assert.Equal(t, PlaceArena, p.Storage[f].Place)
	assert.Equal(t, Storage{Place: PlaceOutput, Index: 0}, p.Storage[z])
	assert.Empty(t, p.Copies)
	assert.Equal(t, []Unit{{ModePiecewise, 4, 0}, {ModePiecewise, 2, 0}}, p.Units)
	assert.Equal(t, 2, p.NumSegments)
	assert.Equal(t, 1, p.NumDynamic)
}

// shape of a graph about one question: may b be written over a? It returns a, b and the plan.
func overwrite(t *testing.T, make func(b *build) (Value, Value)) (*Plan, bool) {
	t.Helper()
	b := newBuild(t, 4, 2)
	a, over := make(b)
	p := b.plan(Options{Mode: ModePiecewise})
	return p, p.Storage[a] == p.Storage[over]
}

func TestInPlace(t *testing.T) {
	row := f32(tokens, 16)
	start := func(b *build) Value { return b.op(static("start", 1, row), b.input("x", row)) }
	norm := aliased(static("norm", 1, row), inPlace(0, 0))
	add := aliased(static("add", 2, row), inPlace(0, 0), inPlace(0, 1))
	use := static("use", 2, row)
	flat := aliased(static("flat", 1, f32(Dim{Tokens: 2}, 8)), view(0, 0))
	end := func(b *build, v Value) { b.output("y", b.op(static("end", 1, row), v)) }
	for name, e := range map[string]struct {
		want bool
		make func(b *build) (Value, Value)
	}{
		"the last reader": {true, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(norm, a)
			end(b, n)
			return a, n
		}},
		"read once more": {false, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(norm, a)
			end(b, b.op(use, a, n))
			return a, n
		}},
		"read once more through a view made before": {false, func(b *build) (Value, Value) {
			a := start(b)
			v := b.op(flat, a)
			n := b.op(norm, a)
			end(b, b.op(use, v, n))
			return a, n
		}},
		"read once more through a view made behind": {false, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(norm, a)
			end(b, b.op(use, b.op(flat, a), n))
			return a, n
		}},
		"a view of it that nobody reads any more": {true, func(b *build) (Value, Value) {
			a := start(b)
			c := b.op(use, b.op(flat, a), a)
			n := b.op(add, a, c)
			end(b, n)
			return a, n
		}},
		"an output": {false, func(b *build) (Value, Value) {
			a := start(b)
			b.output("a", a)
			n := b.op(norm, a)
			end(b, n)
			return a, n
		}},
		"a view of it is an output": {false, func(b *build) (Value, Value) {
			a := start(b)
			b.output("a", b.op(flat, a))
			n := b.op(norm, a)
			end(b, n)
			return a, n
		}},
		"an input": {false, func(b *build) (Value, Value) {
			a := b.input("a", row)
			n := b.op(norm, a)
			end(b, n)
			return a, n
		}},
		"a view of an input": {false, func(b *build) (Value, Value) {
			a := b.op(aliased(static("same", 1, row), view(0, 0)), b.input("a", row))
			n := b.op(norm, a)
			end(b, n)
			return a, n
		}},
		"a weight": {false, func(b *build) (Value, Value) {
			a := b.weight("a", f32(constant(3)))
			n := b.op(aliased(static("norm", 1, f32(constant(3))), inPlace(0, 0)), a)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		}},
		"a state": {false, func(b *build) (Value, Value) {
			a := b.state("a", f32(constant(3)))
			n := b.op(aliased(static("norm", 1, f32(constant(3))), inPlace(0, 0)), a)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		}},
		"the same value twice, both declared": {true, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(add, a, a)
			end(b, n)
			return a, n
		}},
		"the same value twice, one declared": {false, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(aliased(static("gate", 2, row), inPlace(0, 0)), a, a)
			end(b, n)
			return a, n
		}},
		"a view of it is another input": {false, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(add, a, b.op(flat, a))
			end(b, n)
			return a, n
		}},
		"another shape of the same size in every bucket": {true, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(aliased(static("turn", 1, f32(Dim{Tokens: 4}, 2, 2)), inPlace(0, 0)), a)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		}},
		"the same size at the limits alone": {false, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(aliased(static("turn", 1, f32(Dim{Seqs: 2}, 16)), inPlace(0, 0)), a) // 2 seqs are 4 tokens
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		}},
		"part of it": {false, func(b *build) (Value, Value) {
			a := b.op(aliased(static("part", 1, f32(tokens, 8)), view(0, 0)), start(b))
			n := b.op(aliased(static("norm", 1, f32(tokens, 8)), inPlace(0, 0)), a)
			b.output("y", b.op(static("end", 1, row), n))
			return a, n
		}},
		"not declared": {false, func(b *build) (Value, Value) {
			a := start(b)
			n := b.op(static("plain", 1, row), a)
			end(b, n)
			return a, n
		}},
		"the second input": {true, func(b *build) (Value, Value) {
			x := start(b)
			a := b.op(static("other", 1, row), x)
			n := b.op(add, x, a)
			end(b, b.op(use, x, n)) // x is read on, so that only a is free
			return a, n
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := overwrite(t, e.make)
			assert.Equal(t, e.want, got)
		})
	}

	t.Run("two outputs over one input", func(t *testing.T) {
		b := newBuild(t, 4, 2)
		a := start(b)
		two := b.ops(aliased(&OpSchema{Name: "two", Kind: Static, NumInputs: 1, NumOutputs: 2, Infer: gives(row, row)}, inPlace(0, 0), inPlace(1, 0)), a)
		end(b, b.op(use, two[0], two[1]))
		p := b.plan(Options{})
		assert.Equal(t, p.Storage[a], p.Storage[two[0]])
		assert.NotEqual(t, p.Storage[a], p.Storage[two[1]])
	})
	t.Run("beside a view that the op itself gives out", func(t *testing.T) {
		for _, viewFirst := range []bool{false, true} {
			b := newBuild(t, 4, 2)
			a := start(b)
			aliases := []Alias{inPlace(0, 0), view(1, 0)}
			if viewFirst {
				aliases = []Alias{view(0, 0), inPlace(1, 0)}
			}
			two := b.ops(aliased(&OpSchema{Name: "two", Kind: Static, NumInputs: 1, NumOutputs: 2, Infer: gives(row, row)}, aliases...), a)
			end(b, b.op(use, two[0], two[1]))
			p := b.plan(Options{})
			assert.NotEqual(t, p.Storage[two[0]], p.Storage[two[1]])
		}
	})
	t.Run("a residual stream is one block", func(t *testing.T) {
		b := newBuild(t, 4, 2)
		x := start(b)
		first := x
		for i := 0; i < 5; i++ {
			x = b.op(add, x, b.op(static("branch", 1, row), x))
		}
		end(b, x)
		p := b.plan(Options{})
		assert.Equal(t, p.Storage[first], p.Storage[x])
		assert.Equal(t, int64(2*256), p.ArenaBytes, "the stream and a branch")
		assert.Len(t, findBlock(t, p, BlockActivation, "start#0").Values, 6)
	})
}

func TestOutputs(t *testing.T) {
	row := f32(tokens, 16)
	f := static("f", 1, row)
	t.Run("views and in-place values go into the output's buffer", func(t *testing.T) {
		b := newBuild(t, 4, 2)
		a := b.op(f, b.input("x", row))
		n := b.op(aliased(static("norm", 1, row), inPlace(0, 0)), a)
		v := b.op(aliased(static("heads", 1, f32(tokens, 4, 4)), view(0, 0)), n)
		b.output("v", v)
		p := b.plan(Options{})
		for _, value := range []Value{a, n, v} {
			assert.Equal(t, Storage{Place: PlaceOutput, Index: 0}, p.Storage[value])
		}
		assert.Empty(t, p.Copies)
		staging := findBlock(t, p, BlockOutput, "v")
		assert.Equal(t, [2]int{1, 4}, life(staging), "from the first write")
		assert.Equal(t, []Value{a, n, v}, staging.Values)
		assert.Equal(t, int64(512), p.ArenaBytes, "staging of x and v")
	})
	t.Run("read on", func(t *testing.T) {
		b := newBuild(t, 4, 2)
		a := b.op(f, b.input("x", row))
		b.output("a", a)
		b.output("c", b.op(f, b.op(f, a)))
		p := b.plan(Options{})
		assert.Equal(t, Storage{Place: PlaceOutput, Index: 0}, p.Storage[a])
		assert.Equal(t, [2]int{1, 4}, life(findBlock(t, p, BlockOutput, "a")))
	})
	t.Run("twice, passed through, a weight, a state, a view of an input", func(t *testing.T) {
		b := newBuild(t, 4, 2)
		x, w, s := b.input("x", row), b.weight("w", f32(constant(3))), b.state("s", f32(constant(3)))
		a := b.op(f, x)
		v := b.op(aliased(static("flat", 1, f32(Dim{Tokens: 16})), view(0, 0)), x)
		for i, value := range []Value{x, a, a, w, s, v} {
			b.output([]string{"x1", "a1", "a2", "w1", "s1", "v1"}[i], value)
		}
		p := b.plan(Options{})
		assert.Equal(t, []Copy{{x, 0}, {a, 2}, {w, 3}, {s, 4}, {v, 5}}, p.Copies)
		assert.Equal(t, Storage{Place: PlaceOutput, Index: 1}, p.Storage[a])
		assert.Equal(t, Storage{Place: PlaceInput, Index: 0}, p.Storage[v])
		assert.Equal(t, [2]int{0, 3}, life(findBlock(t, p, BlockInput, "x")), "until it is copied")
		assert.Equal(t, [2]int{3, 3}, life(findBlock(t, p, BlockOutput, "a2")))
	})
	t.Run("a part of a value is copied", func(t *testing.T) {
		b := newBuild(t, 4, 2)
		a := b.op(f, b.input("x", row))
		v := b.op(aliased(static("part", 1, f32(tokens, 8)), view(0, 0)), a)
		b.output("v", v)
		b.output("a", a)
		p := b.plan(Options{})
		assert.Equal(t, Storage{Place: PlaceOutput, Index: 1}, p.Storage[v], "in the buffer that is large enough")
		assert.Equal(t, []Copy{{v, 0}}, p.Copies)
	})
	t.Run("sizes that agree at the limits alone are not mixed up", func(t *testing.T) {
		b := newBuild(t, 4, 4) // 4 tokens, 4 seqs
		a := b.op(f, b.input("x", row))
		v := b.op(aliased(static("part", 1, f32(tokens, 8)), view(0, 0)), a)
		c := b.op(static("c", 1, f32(seqs, 16)), v)
		b.output("c", c)
		b.output("a", a)
		p := b.plan(Options{})
		assert.Equal(t, Storage{Place: PlaceOutput, Index: 0}, p.Storage[c])
		assert.Equal(t, Storage{Place: PlaceOutput, Index: 1}, p.Storage[a])
	})
}

func TestUnusedSecondOutputStillHasRoom(t *testing.T) {
	b := newBuild(t, 4, 2)
	row := f32(tokens, 16)
	two := b.ops(&OpSchema{Name: "two", Kind: Static, NumInputs: 1, NumOutputs: 2, Infer: gives(row, row)}, b.input("x", row))
	b.output("y", two[0])
	p := b.plan(Options{})
	assert.Equal(t, [2]int{1, 1}, life(findBlock(t, p, BlockActivation, "two#0.1")))
	assert.Equal(t, int64(3*256), p.ArenaBytes)
}

func TestWorkspaceIsTheMostOfAllSizes(t *testing.T) {
	b := newBuild(t, 512, 8)
	s := dynamic("scan", 1, CaptureNever, f32(tokens, 4))
	asked := map[[2]int64]bool{}
	s.Workspace = func(in, out []Shape, _ []Attr, tokens, seqs int64) (int64, error) {
		assert.Equal(t, []int64{tokens, 4}, in[0].Dims)
		assert.Equal(t, []int64{tokens, 4}, out[0].Dims)
		asked[[2]int64{tokens, seqs}] = true
		if tokens == 128 && seqs == 4 {
			return 1000, nil
		}
		return 1, nil
	}
	x := b.input("x", f32(tokens, 4))
	for i := 0; i < 3; i++ {
		x = b.op(s, x)
	}
	b.output("y", x)
	p := b.plan(Options{})
	assert.Equal(t, []int64{1000, 1000, 1000}, p.WorkspaceBytes)
	assert.True(t, asked[[2]int64{512, 8}])

	s.Workspace = func([]Shape, []Shape, []Attr, int64, int64) (int64, error) { return -1, nil }
	_, err := NewPlan(b.g, Options{})
	requireKind(t, err, ErrOp, "op `scan#0`: workspace: -1 bytes at 512 tokens and 8 sequences")
	s.Workspace = func([]Shape, []Shape, []Attr, int64, int64) (int64, error) {
		return 0, Errorf(ErrAttribute, "chunk: 0")
	}
	_, err = NewPlan(b.g, Options{})
	requireKind(t, err, ErrAttribute, "op `scan#0`: chunk: 0")
}

func TestPassThroughAlone(t *testing.T) {
	b := newBuild(t, 4, 2)
	x := b.input("x", f32(tokens, 16))
	b.output("y", x)
	p := b.plan(Options{Mode: ModeFullAndPiecewise})
	assert.Equal(t, []Copy{{x, 0}}, p.Copies)
	assert.Empty(t, p.Partitions)
	assert.Equal(t, int64(512), p.ArenaBytes)
	assert.NotEmpty(t, p.Units, "nothing is dynamic: any batch is one graph")
}

func TestLlama(t *testing.T) {
	var arenas []int64
	for _, layers := range []int{1, 2, 16, 32} {
		b := newBuild(t, 8192, 256)
		llama(b, layers, 2048, 8192, 32000)
		p := b.plan(Options{Mode: ModeFullAndPiecewise})
		assert.Equal(t, p.LowerBound, p.ArenaBytes, "%d layers", layers)
		assert.Equal(t, layers+2, p.NumSegments, "one before each attention, one behind the last, and the head")
		assert.Equal(t, layers+2, p.NumDynamic, "attention_metadata and gather_tokens read both axes")
		assert.Equal(t, 128+9+9, len(p.Units), "token buckets, sequence buckets of the head and of full decode")
		assert.Greater(t, p.BucketSum, 60*p.ArenaBytes)
		arenas = append(arenas, p.ArenaBytes)
	}
	for _, bytes := range arenas[1:] { // in a single layer the small inputs of attention are gone by the peak
		assert.Equal(t, arenas[1], bytes, "the arena does not grow with depth")
	}
	// By hand, at 8192 tokens: the widest is the MLP: gate, up at 256 MiB each, h and x at 64 MiB each; positions and
	// batch indices are read by no one or in every layer: 32 KiB; and the small inputs.
	mib := int64(1) << 20
	assert.InDelta(t, 2*256*mib+2*64*mib, arenas[0], float64(mib))
}

func TestPlanTime(t *testing.T) {
	b := newBuild(t, 4096, 64)
	llama(b, 210, 512, 2048, 1000)
	require.Greater(t, len(b.g.Values), 5000)
	b.freeze()
	begin := time.Now()
	p, err := NewPlan(b.g, Options{Mode: ModeFullAndPiecewise})
	took := time.Since(begin)
	require.NoError(t, err)
	t.Logf("%d values, %d nodes, %d buckets: %v", len(b.g.Values), len(b.g.Nodes), len(p.Buckets), took)
	assert.Less(t, took, time.Minute, "far from what it takes, under the race detector too")
}

// TestBucketSum adds up what is live at each time of each bucket, one by one. Blocks grow at different rates, so that
// different times are the worst for small and for large buckets, and scratch need not rise at all.
func TestBucketSum(t *testing.T) {
	r := rand.New(rand.NewSource(6))
	for seed := range 300 {
		nodes := r.Intn(40)
		p := &Plan{Graph: &Graph{Limits: Limits{MaxTokens: 1 << 20, MaxSeqs: 1 + r.Int63n(9)}, Nodes: make([]Node, nodes)}}
		for range 1 + r.Intn(9) {
			p.Buckets = append(p.Buckets, 1+r.Int63n(1<<(1+r.Intn(12))))
		}
		slices.Sort(p.Buckets)
		blocks := make([]block, r.Intn(60))
		for k := range blocks {
			b := &blocks[k]
			b.first = r.Int31n(int32(nodes + 2))
			b.last = b.first + r.Int31n(int32(nodes+2)-b.first)
			switch steep := r.Int63n(1 << r.Intn(12)); r.Intn(4) {
			case 0:
				b.formula = Dim{Constant: r.Int63n(1 << r.Intn(20))}
			case 1:
				b.formula = Dim{Tokens: steep, Constant: r.Int63n(100) - min(steep, 50)}
			case 2:
				b.formula = Dim{Tokens: steep, Seqs: steep}
			case 3:
				b.scratch = &workspace{}
				for range p.Buckets {
					bytes := r.Int63n(1 << r.Intn(20))
					b.scratch.buckets, b.scratch.most = append(b.scratch.buckets, bytes), max(b.scratch.most, bytes)
				}
			}
		}
		var sum int64
		for k, tokens := range p.Buckets {
			var most int64
			for time := range int32(nodes + 2) {
				var live int64
				for _, b := range blocks {
					if b.first <= time && time <= b.last && b.scratch != nil {
						live += (max(b.scratch.buckets[k], 1) + 63) / 64 * 64
					} else if b.first <= time && time <= b.last {
						live += (max(b.formula.Tokens*tokens+b.formula.Seqs*p.Graph.Limits.MaxSeqs+b.formula.Constant, 1) + 63) / 64 * 64
					}
				}
				most = max(most, live)
			}
			sum += most
		}
		require.Equal(t, sum, p.sumBuckets(blocks), "seed %d", seed)
	}
}

// BenchmarkPlan plans deep models for 64 token buckets: to be done within 5 ms for 5,000 values, 100 ms for 100,000.
func BenchmarkPlan(b *testing.B) {
	run := func(b *testing.B, name string, work func() error) {
		b.Run(name, func(b *testing.B) {
			before := cpuTime()
			for b.Loop() {
				if err := work(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op") // of all threads: the collector's too
		})
	}
	for _, layers := range []int{166, 3330} {
		bd := newBuild(&testing.T{}, 4096, 64)
		llama(bd, layers, 512, 2048, 1000)
		bd.freeze()
		size := fmt.Sprintf("%d values", len(bd.g.Values))
		plan := func(layout LayoutMode) func() error {
			return func() error {
				_, err := NewPlan(bd.g, Options{Mode: ModeFullAndPiecewise, Layout: layout})
				return err
			}
		}
		p, err := NewPlan(bd.g, Options{Mode: ModeFullAndPiecewise})
		require.NoError(b, err)
		require.Len(b, p.Buckets, 64)
		if layers < 1000 {
			run(b, "NewPlan, a layout per bucket/"+size, plan(LayoutPerBucket))
		}
		run(b, "NewPlan/"+size, plan(LayoutFixed))
		run(b, "of which Check/"+size, func() error { return Check(p) })
	}
}
