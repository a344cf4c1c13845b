package integration

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/piecewise"
)

// Attention over caches through a graph: hidden [T, 16] is projected to what the op takes, by one product each.
const hidden, slots, maxLen, pageSize = 16, 5, 24, 5

type attentionCase struct {
	op           string
	cache        engine.DType
	projections  [][]int64 // dims behind T of the op's first inputs
	weight       []int64   // of latent attention, else nil
	widths       []int64   // elements of a row of each cache
	cacheDims    [][]int64 // behind the position
	paged        bool
	hasWorkspace bool
}

// sizes of a model: the most positions of a sequence, tokens of a step, elements of q, k and v.
type sizes struct {
	length, tokens int64
	dtype          engine.DType
}

var short = sizes{maxLen, 64, engine.F32}

// entries are the pages of a sequence.
func (s sizes) entries() int64 { return (s.length + pageSize - 1) / pageSize }

var attentionCases = []attentionCase{
	{"adcg.attention", engine.F8E4M3, [][]int64{{4, 8}, {2, 8}, {2, 6}}, nil, []int64{16, 12}, [][]int64{{2, 8}, {2, 6}}, false, false},
	{"adcg.paged_attention", engine.F32, [][]int64{{4, 8}, {2, 8}, {2, 6}}, nil, []int64{16, 12}, [][]int64{{2, 8}, {2, 6}}, true, false},
	{"adcg.paged_attention", engine.F8E4M3, [][]int64{{4, 8}, {2, 8}, {2, 6}}, nil, []int64{16, 12}, [][]int64{{2, 8}, {2, 6}}, true, false},
	{"adcg.mla_attention", engine.F32, [][]int64{{3, 8}, {3, 4}, {12}, {4}}, []int64{3 * (8 + 5), 12}, []int64{16}, [][]int64{{16}}, false, true},
	{"adcg.mla_attention", engine.F8E4M3, [][]int64{{3, 8}, {3, 4}, {12}, {4}}, []int64{3 * (8 + 5), 12}, []int64{16}, [][]int64{{16}}, false, true},
	{"adcg.paged_mla_attention", engine.BF16, [][]int64{{3, 8}, {3, 4}, {12}, {4}}, []int64{3 * (8 + 5), 12}, []int64{16}, [][]int64{{16}}, true, true},
}

// model is the graph of a case; states stand behind its weights.
type model struct {
	c       attentionCase
	sizes   sizes
	engine  *engine.Engine
	graph   *engine.Graph
	weights []engine.Value
	shapes  [][]int64
	states  []engine.Value
	row     []int64 // of the result
}

func dims(first piecewise.Dim, rest ...int64) []piecewise.Dim {
	out := []piecewise.Dim{first}
	for _, n := range rest {
		out = append(out, engine.Dim(n))
	}
	return out
}

func newModel(t *testing.T, device string, c attentionCase, s sizes) *model {
	t.Helper()
	e := openDevice(t, device)
	g := e.NewGraph(engine.Limits{MaxTokens: s.tokens, MaxSeqs: 4, MaxSeqLen: s.length})
	t.Cleanup(g.Close)
	m := &model{c: c, sizes: s, engine: e, graph: g}
	weight := func(name string, shape ...int64) engine.Value {
		w := g.Weight(name, engine.F32, dims(engine.Dim(shape[0]), shape[1:]...)...)
		m.weights, m.shapes = append(m.weights, w), append(m.shapes, shape)
		return w
	}
	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(hidden))
	var inputs []engine.Value
	for i, shape := range c.projections {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		y := g.Op("adcg.linear", []engine.Value{x, weight(string(rune('a'+i)), n, hidden)}, nil)[0]
		if len(shape) > 1 {
			y = g.Op("adcg.reshape", []engine.Value{y}, []engine.Attr{engine.Ints("dims", shape...)})[0]
		}
		inputs = append(inputs, m.cast(y, s.dtype))
	}
	if c.weight != nil {
		inputs = append(inputs, weight("kv_b", c.weight...))
	}
	first, length := m.cacheRows()
	for i, behind := range c.cacheDims {
		state := g.State(string(rune('A'+i)), c.cache, dims(engine.Dim(first), append([]int64{length}, behind...)...)...)
		inputs, m.states = append(inputs, state), append(m.states, state)
	}
	index := func(name string, d piecewise.Dim) {
		inputs = append(inputs, g.Input(name, engine.I32, d))
	}
	index("cu_seqlens", piecewise.Dim{Seqs: 1, Constant: 1})
	index("input_pos", engine.Seqs)
	if c.paged {
		index("cu_num_pages", piecewise.Dim{Seqs: 1, Constant: 1})
		index("cache_loc", engine.Dim(first))
		index("last_page_len", engine.Seqs)
	} else {
		index("slot_idx", engine.Seqs)
	}
	y := m.cast(g.Op(c.op, inputs, nil)[0], engine.F32)
	g.Output("y", y)
	require.NoError(t, g.Freeze())
	info, err := g.Value(y)
	require.NoError(t, err)
	m.row = info.Type.At(1, 1).Dims[1:]
	return m
}

// cast is y as another type.
func (m *model) cast(y engine.Value, dtype engine.DType) engine.Value {
	if dtype == engine.F32 && m.sizes.dtype == engine.F32 {
		return y
	}
	return m.graph.Op("adcg.cast", []engine.Value{y}, []engine.Attr{engine.String("dtype", dtype.String())})[0]
}

// cacheRows are the first dims of the caches.
func (m *model) cacheRows() (int64, int64) {
	if m.c.paged {
		return slots * m.sizes.entries(), pageSize
	}
	return slots, m.sizes.length
}

// turn is one step: sequences by slot, how many tokens each takes, of which the last `decodes` decode and the `extends` before extend. A
// slot that has no room for its tokens begins a new sequence.
type turn struct {
	slots, tokens    []int32
	decodes, extends int64
}

// batch has the counts.
func (t turn) batch() engine.Batch {
	b := engine.Batch{DecodeSeqs: t.decodes, ExtendSeqs: t.extends, PrefillSeqs: int64(len(t.slots)) - t.decodes - t.extends}
	for i, n := range t.tokens {
		switch at := int64(i); {
		case at < b.PrefillSeqs:
			b.PrefillTokens += int64(n)
		case at < b.PrefillSeqs+b.ExtendSeqs:
			b.ExtendTokens += int64(n)
		}
	}
	return b
}

var turns = []turn{
	{[]int32{3, 1}, []int32{9, 1}, 0, 0},
	{[]int32{1, 3}, []int32{7, 1}, 1, 0},
	{[]int32{3, 1}, []int32{1, 1}, 2, 0},
	{[]int32{0, 4, 3, 1}, []int32{17, 2, 1, 1}, 2, 0},
	{[]int32{4, 0, 1, 3}, []int32{1, 1, 1, 1}, 4, 0},
	{[]int32{0, 4}, []int32{6, 20}, 0, 0},
}

// has tells whether the device has the op.
func has(t *testing.T, op string) bool {
	t.Helper()
	return slices.ContainsFunc(openDevice(t, deviceName()).Ops(), func(s *piecewise.OpSchema) bool { return s.Name == op })
}

// play runs all turns on fresh caches: the results, the bytes of the caches at last, and how many steps ran in which mode.
func (m *model) play(t *testing.T, o engine.ExecOptions, turns []turn) ([][]float32, [][]byte, map[piecewise.Mode]int) {
	t.Helper()
	exec, err := m.graph.Compile(o)
	require.NoError(t, err)
	defer exec.Close()
	entries := m.sizes.entries()
	filled := func(dtype engine.DType, shape []int64, seed uint64) engine.Tensor {
		x, err := engine.NewTensor(dtype, shape...)
		require.NoError(t, err)
		t.Cleanup(x.Free)
		if dtype == engine.F32 {
			rng := rand.New(rand.NewPCG(seed, 5))
			for i := range x.Float32() {
				x.Float32()[i] = float32(rng.NormFloat64()) / 2
			}
		}
		return x
	}
	for i, w := range m.weights {
		require.NoError(t, exec.Bind(w, place(t, m.engine, filled(engine.F32, m.shapes[i], uint64(i)))))
	}
	var caches, placed []engine.Tensor
	for i, s := range m.states {
		first, length := m.cacheRows()
		cache := filled(m.c.cache, append([]int64{first, length}, m.c.cacheDims[i]...), 0)
		for k := range cache.Bytes() {
			cache.Bytes()[k] = 0xff // NaN in every type
		}
		caches, placed = append(caches, cache), append(placed, place(t, m.engine, cache))
		require.NoError(t, exec.Bind(s, placed[i]))
	}
	table := rand.New(rand.NewPCG(8, 9)).Perm(slots * int(entries)) // entry i of slot s is table[s*entries+i]
	ints := func(rows int, values []int32) engine.Tensor {
		x, err := engine.NewTensor(engine.I32, int64(rows))
		require.NoError(t, err)
		t.Cleanup(x.Free)
		copy(x.Int32(), values)
		return x
	}
	var results [][]float32
	held := map[int32]int32{}
	modes := map[piecewise.Mode]int{}
	for k, turn := range turns {
		cu, pos, pages, loc, last := []int32{0}, []int32{}, []int32{0}, []int32{}, []int32{}
		for i, slot := range turn.slots {
			n := turn.tokens[i]
			if int64(held[slot]+n) > m.sizes.length {
				held[slot] = 0
			}
			cu, pos = append(cu, cu[i]+n), append(pos, held[slot])
			held[slot] += n
			need := (held[slot] + pageSize - 1) / pageSize
			for e := range need {
				loc = append(loc, int32(table[int64(slot)*entries+int64(e)]))
			}
			pages, last = append(pages, int32(len(loc))), append(last, held[slot]-(need-1)*pageSize)
		}
		real, batch := int64(cu[len(cu)-1]), turn.batch()
		in := []engine.Tensor{filled(engine.F32, []int64{real, hidden}, uint64(100+k)), ints(len(cu), cu), ints(len(pos), pos)}
		if m.c.paged {
			in = append(in, ints(len(pages), pages), ints(slots*int(entries), loc), ints(len(last), last))
		} else {
			in = append(in, ints(len(turn.slots), turn.slots))
		}
		out, err := engine.NewTensor(engine.F32, append([]int64{real}, m.row...)...)
		require.NoError(t, err)
		t.Cleanup(out.Free)
		for i := range in {
			in[i] = place(t, m.engine, in[i])
		}
		there := place(t, m.engine, out)
		for range 2 { // a step that is repeated writes the same again
			step, err := exec.Replay(batch, in, []engine.Tensor{there}, 0)
			require.NoError(t, err)
			modes[piecewise.Mode(step.Mode)]++
		}
		require.NoError(t, exec.Synchronize())
		fetch(t, m.engine, out, there)
		for _, f := range out.Float32() {
			require.False(t, math.IsNaN(float64(f)), "%s: what nobody wrote leaked", m.c.op)
		}
		results = append(results, append([]float32(nil), out.Float32()...))
	}
	var contents [][]byte
	for i, cache := range caches {
		fetch(t, m.engine, cache, placed[i])
		contents = append(contents, append([]byte(nil), cache.Bytes()...))
	}
	return results, contents, modes
}

// Every mode and bucket list gives eager's bits, results and caches, and paged caches those of slots; what another device gives differs
// from the host's results by roundings.
func TestAttentionThroughAGraph(t *testing.T) {
	bySlots := map[string][][]float32{}
	for _, c := range attentionCases {
		if !has(t, c.op) {
			continue
		}
		m := newModel(t, deviceName(), c, short)
		want, wantCaches, _ := m.play(t, engine.ExecOptions{Mode: engine.Eager, BatchInvariant: true}, turns)
		if deviceName() != "host" {
			bound := 1e-5
			if c.cache == engine.F8E4M3 {
				bound = 0.1 // a rounding may take an element of the cache to its neighbour, an eighth away
			}
			host, _, _ := newModel(t, "host", c, short).play(t, engine.ExecOptions{Mode: engine.Eager}, turns)
			for i := range host {
				require.InDeltaSlice(t, host[i], want[i], bound, "%s of %v, turn %d", c.op, c.cache, i)
			}
		}
		for _, o := range []engine.ExecOptions{
			{}, {Verify: true}, {Buckets: []int64{1, 2, 10, 33, 64}}, {Buckets: []int64{64}, Mode: engine.Piecewise}, {Buckets: []int64{4, 26}, Mode: engine.Full},
		} {
			o.BatchInvariant = true
			got, caches, _ := m.play(t, o, turns)
			require.Equal(t, want, got, "%s of %v, %+v", c.op, c.cache, o)
			require.Equal(t, wantCaches, caches, "%s of %v, %+v", c.op, c.cache, o)
		}
		forecast, err := m.graph.Forecast(engine.ExecOptions{})
		require.NoError(t, err)
		if deviceName() == "host" {
			require.Equal(t, c.hasWorkspace, forecast.WorkspaceBytes > 0)
		}
		bySlots[c.op+c.cache.String()] = want
	}
	require.Equal(t, bySlots["adcg.attention"+engine.F8E4M3.String()], bySlots["adcg.paged_attention"+engine.F8E4M3.String()])
}
