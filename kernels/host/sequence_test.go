package host_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

// scan is one case of an op with a state per sequence: what runs over the tokens of some sequences, from where they are.
type scan struct {
	op     string
	attrs  []piecewise.Attr
	inputs []*array // in the schema's order; those at `state`, the state, and behind it, the sequences, are set by step
	tokens []int    // which inputs have a row per token
	state  int
	out    []int64 // dims of a token's result

	lengths, pos []int32 // of the sequences
	initial      *array  // their states [S, ...], in their order
}

// part is what one step takes of a sequence.
type part struct {
	seq, from, length int32 // from: the first token, counted in the sequence
	slot              int32
}

func (s *scan) first(seq int32) (row int64) {
	for _, n := range s.lengths[:seq] {
		row += int64(n)
	}
	return row
}

// step runs the parts in one step, with `padding` more rows of NaN and as many sequences of nonsense, and writes their
// rows of out. State has all slots.
func (s *scan) step(t *testing.T, pool uintptr, parts []part, state, out *array, padding int64) {
	t.Helper()
	cu, pos, slots := []int32{0}, []int32{}, []int32{}
	real := int64(0)
	for _, p := range parts {
		real += int64(p.length)
		cu, pos, slots = append(cu, int32(real)), append(pos, s.pos[p.seq]+p.from), append(slots, p.slot)
	}
	inputs := slices.Clone(s.inputs)
	for _, i := range s.tokens {
		x := s.inputs[i]
		rows := filled(x.dtype, float32(math.NaN()), append([]int64{real + padding}, x.dims[1:]...)...)
		at := int64(0)
		for _, p := range parts {
			from := (s.first(p.seq) + int64(p.from)) * x.row()
			at += int64(copy(rows.f[at:], x.f[from:from+int64(p.length)*x.row()]))
		}
		inputs[i] = rows
	}
	for range padding {
		cu, pos, slots = append(cu, -7), append(pos, -7), append(slots, 1<<20)
	}
	inputs[s.state], inputs[s.state+1], inputs[s.state+2], inputs[s.state+3] = state, ints(cu...), ints(pos...), ints(slots...)
	got := filled(out.dtype, 77, append([]int64{real + padding}, s.out...)...)
	batch := host.Batch{PrefillSeqs: int64(len(parts)), PrefillTokens: real}
	require.NoError(t, launch(s.op, pool, s.attrs, inputs, []*array{got}, batch, 0))
	at := int64(0)
	for _, p := range parts {
		to := (s.first(p.seq) + int64(p.from)) * out.row()
		at += int64(copy(out.f[to:to+int64(p.length)*out.row()], got.f[at:]))
	}
	for _, f := range got.f[at:] {
		require.Equal(t, float32(77), f, "a padded row was written")
	}
}

// run takes every sequence through steps of `chunk` tokens each (0: all at once), in any order and slots of a larger
// state, and gives the results and the sequences' states. Slots of nobody keep their bits, and states of sequences
// that begin are NaN.
func (s *scan) run(t *testing.T, rng *rand.Rand, pool uintptr, chunk int32, padding int64) (out, states *array) {
	t.Helper()
	seqs, row := len(s.lengths), s.initial.row()
	where := rng.Perm(seqs + 3)
	state := filled(s.initial.dtype, 55, append([]int64{int64(seqs) + 3}, s.initial.dims[1:]...)...)
	for i, pos := range s.pos {
		slot := state.f[int64(where[i])*row:][:row]
		copy(slot, s.initial.f[int64(i)*row:])
		for e := 0; pos == 0 && e < len(slot); e++ {
			slot[e] = float32(math.NaN())
		}
	}
	tokens := s.first(int32(seqs))
	out = filled(s.inputs[0].dtype, 0, append([]int64{tokens}, s.out...)...)
	for from := int32(0); ; from += chunk {
		var parts []part
		for _, i := range rng.Perm(seqs) {
			if rest := s.lengths[i] - from; rest > 0 {
				if chunk > 0 {
					rest = min(rest, chunk)
				}
				parts = append(parts, part{int32(i), from, rest, int32(where[i])})
			}
		}
		if len(parts) == 0 {
			break
		}
		s.step(t, pool, parts, state, out, padding)
		if chunk == 0 {
			break
		}
	}
	states = filled(s.initial.dtype, 0, s.initial.dims...)
	for i := range seqs {
		copy(states.f[int64(i)*row:][:row], state.f[int64(where[i])*row:])
	}
	for _, slot := range where[seqs:] {
		for _, f := range state.f[int64(slot)*row:][:row] {
			require.Equal(t, float32(55), f, "a slot of nobody was written")
		}
	}
	return out, states
}

// check compares one step over everything with `out` and `states`, and every other way to run it with that, bit by bit.
func (s *scan) check(t *testing.T, rng *rand.Rand, names []string, out, states []float64, absolute, relative float64, what string) {
	t.Helper()
	whole, after := s.run(t, rng, 0, 0, 0)
	requireNear(t, out, whole, absolute, relative, "%s", what)
	if s.initial.dtype == piecewise.BF16 { // what is kept of a convolution is copied
		absolute, relative = 0, 0
	} else if whole.dtype == piecewise.BF16 {
		absolute, relative = 2e-5, 1e-5 // states are f32
	}
	requireNear(t, states, after, absolute, relative, "%s: states", what)
	pool := host.NewPool(3)
	defer host.FreePool(pool)
	for _, isa := range names {
		require.NoError(t, host.SetISA(isa))
		for _, c := range []struct {
			chunk   int32
			padding int64
			pool    uintptr
		}{{0, 5, pool}, {1, 0, pool}, {2, 1, 0}, {3, 0, 0}, {16, 3, pool}, {17, 0, pool}, {40, 0, 0}} {
			got, kept := s.run(t, rng, c.pool, c.chunk, c.padding)
			requireSameBits(t, whole, got, "%s on %s in chunks of %d", what, isa, c.chunk)
			requireSameBits(t, after, kept, "%s on %s in chunks of %d: states", what, isa, c.chunk)
		}
	}
	require.NoError(t, host.SetISA(""))
}

// sequenceLengths are of random sequences, of which some begin and some go on.
func sequenceLengths(rng *rand.Rand) (lengths, pos []int32) {
	for range 1 + rng.IntN(4) {
		lengths = append(lengths, 1+int32(rng.IntN([]int{2, 6, 50}[rng.IntN(3)])))
		pos = append(pos, int32(rng.IntN(2)*(1+rng.IntN(100))))
	}
	return lengths, pos
}

func total(lengths []int32) (n int64) {
	for _, l := range lengths {
		n += int64(l)
	}
	return n
}

// golden fills a case with what a file of the goldens has.
func (s *scan) golden(t *testing.T, name string, inputs ...string) (about map[string]any, out, states []float64) {
	t.Helper()
	tensors, about := load(t, name)
	for i, input := range inputs {
		if a := tensors[input]; a != nil {
			s.inputs = append(s.inputs, a)
		} else if input == "" {
			s.inputs = append(s.inputs, nil)
		}
		if input == "state" {
			s.inputs, s.state = append(s.inputs, nil, nil, nil, nil), i
		}
	}
	cu := tensors["cu_seqlens"].i
	for i := range cu[1:] {
		s.lengths = append(s.lengths, cu[i+1]-cu[i])
	}
	s.pos, s.initial, s.out = tensors["input_pos"].i, tensors["state_in"], tensors["out"].dims[1:]
	return about, doubles(tensors["out"].f), doubles(tensors["state_out"].f)
}

// Whatever is wrong with the sequences is said, with index and value, before anything is written.
func TestSequenceErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(91, 92))
	for _, s := range []scan{
		convCase(rng, piecewise.F32, piecewise.F32, 5, 4, "none", true, []int32{3, 1}, []int32{4, 0}),
		ssmCase(rng, piecewise.F32, 2, 3, 1, 4, []int32{3, 1}, []int32{4, 0}),
		deltaCase(rng, piecewise.F32, true, 2, 2, 3, 4, []int32{3, 1}, []int32{4, 0}),
		deltaCase(rng, piecewise.F32, false, 2, 2, 3, 4, []int32{3, 1}, []int32{4, 0}),
	} {
		for _, c := range []struct {
			cu, pos, slots []int32
			want           string
		}{
			{[]int32{0, 3, 4}, []int32{4, 0}, []int32{0, 2}, "slot_idx[1] is 2, the state has 2 slots"},
			{[]int32{0, 3, 4}, []int32{4, 0}, []int32{-1, 0}, "slot_idx[0] is -1, the state has 2 slots"},
			{[]int32{0, 3, 4}, []int32{4, 0}, []int32{1, 1}, "slot_idx[1] is 1, which is the slot of sequence 0 too"},
			{[]int32{0, 3, 4}, []int32{4, -2}, []int32{1, 0}, "input_pos[1] is -2, must not be negative"},
			{[]int32{0, 3, 4}, []int32{math.MaxInt32 - 2, 0}, []int32{1, 0}, "input_pos[0] is 2147483645"},
			{[]int32{1, 3, 4}, []int32{4, 0}, []int32{1, 0}, "cu_seqlens[0] is 1, must be 0"},
			{[]int32{0, 0, 4}, []int32{4, 0}, []int32{1, 0}, "cu_seqlens[1] is 0, must be more than cu_seqlens[0]"},
			{[]int32{0, 3, 5}, []int32{4, 0}, []int32{1, 0}, "cu_seqlens[2] is 5, the step has 4 tokens"},
		} {
			inputs, state := slices.Clone(s.inputs), s.initial.clone()
			inputs[s.state], inputs[s.state+1], inputs[s.state+2], inputs[s.state+3] = state, ints(c.cu...), ints(c.pos...), ints(c.slots...)
			out := filled(piecewise.F32, 77, append([]int64{4}, s.out...)...)
			err := launch(s.op, 0, s.attrs, inputs, []*array{out}, host.Batch{PrefillSeqs: 1, PrefillTokens: 3, DecodeSeqs: 1}, 0)
			require.ErrorContains(t, err, c.want, s.op)
			requireSameBits(t, s.initial, state, "%s: state after an error", s.op)
			requireSameBits(t, filled(piecewise.F32, 77, out.dims...), out, "%s: result after an error", s.op)
			// An empty batch reads none of it.
			require.NoError(t, launch(s.op, 0, s.attrs, inputs, []*array{out}, host.Batch{}, 0), s.op)
			requireSameBits(t, s.initial, state, "%s: state after nothing", s.op)
		}
	}
}

// Sizes that the scratch does not hold are refused.
func TestSequenceLimits(t *testing.T) {
	rng := rand.New(rand.NewPCG(93, 94))
	one, begin := []int32{1}, []int32{0}
	for _, c := range []struct {
		scan
		want string
	}{
		{convCase(rng, piecewise.F32, piecewise.F32, 2, 513, "none", false, one, begin), "weight: 513 taps, 512 are the most"},
		{ssmCase(rng, piecewise.F32, 1, 1, 1, 16385, one, begin), "B: state size 16385, 16384 is the most"},
		{deltaCase(rng, piecewise.F32, true, 1, 1, 1205, 1, one, begin), "k: head dim 1205, 1204 is the most"},
	} {
		inputs := slices.Clone(c.inputs)
		inputs[c.state], inputs[c.state+1], inputs[c.state+2], inputs[c.state+3] = c.initial.clone(), ints(0, 1), ints(0), ints(0)
		err := launch(c.op, 0, c.attrs, inputs, []*array{filled(piecewise.F32, 0, append([]int64{1}, c.out...)...)}, host.Batch{DecodeSeqs: 1}, 0)
		require.ErrorContains(t, err, c.want)
	}
}

// sequenceStrided are cases for TestStrides: 37 rows, three sequences.
func sequenceStrided(rng *rand.Rand, dtype piecewise.DType) (cases []stridedCase) {
	lengths, pos := []int32{30, 6, 1}, []int32{0, 9, 4}
	for _, s := range []scan{
		convCase(rng, dtype, dtype, 70, 4, "silu", true, lengths, pos),
		ssmCase(rng, dtype, 4, 24, 2, 20, lengths, pos),
		deltaCase(rng, dtype, true, 4, 2, 12, 40, lengths, pos),
		deltaCase(rng, dtype, false, 4, 4, 16, 24, lengths, pos),
	} {
		s.inputs[s.state], s.inputs[s.state+1], s.inputs[s.state+2], s.inputs[s.state+3] = s.initial, ints(0, 30, 36, 37), ints(pos...), ints(2, 0, 1)
		cases = append(cases, stridedCase{op: s.op, attrs: s.attrs, inputs: s.inputs, output: random(rng, dtype, append([]int64{37}, s.out...)...),
			batch: host.Batch{PrefillSeqs: 2, PrefillTokens: 36, DecodeSeqs: 1}})
	}
	gates := []*array{random(rng, dtype, 37, 20), random(rng, dtype, 37, 20), random(rng, piecewise.F32, 20), random(rng, dtype, 20)}
	return append(cases, stridedCase{op: "adcg.gdn_gating", inputs: gates, output: random(rng, piecewise.F32, 37, 20),
		batch: host.Batch{DecodeSeqs: 37}, more: []*array{filled(piecewise.F32, 0, 37, 20)}})
}

func caseName(dtype piecewise.DType, lengths, pos []int32, rest ...any) string {
	return fmt.Sprint(dtype, " lengths ", lengths, " positions ", pos, " ", fmt.Sprint(rest...))
}
