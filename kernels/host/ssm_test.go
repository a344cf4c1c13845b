package host_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

func ssmAttrs(low, high float64, softplus bool) []piecewise.Attr {
	attrs := []piecewise.Attr{float("dt_min", low), float("dt_max", high), {Name: "dt_softplus", Type: piecewise.AttrBool}}
	if softplus {
		attrs[2].Int = 1
	}
	return attrs
}

func ssmCase(rng *rand.Rand, dtype piecewise.DType, heads, dim, groups, n int64, lengths, pos []int32) scan {
	tokens := total(lengths)
	of := func() piecewise.DType { return floats[rng.IntN(2)] }
	s := scan{op: "adcg.ssm", attrs: ssmAttrs(0, 0, true), tokens: []int{0, 1, 3, 4}, state: 7, out: []int64{heads, dim}, lengths: lengths, pos: pos,
		initial: random(rng, piecewise.F32, int64(len(lengths)), heads, dim, n)}
	s.inputs = []*array{random(rng, dtype, tokens, heads, dim), random(rng, of(), tokens, heads), random(rng, of(), heads),
		random(rng, dtype, tokens, groups, n), random(rng, dtype, tokens, groups, n), random(rng, of(), heads), random(rng, of(), heads), nil, nil, nil, nil}
	for i, f := range s.inputs[2].f {
		s.inputs[2].f[i] = -float32(math.Abs(float64(f)))
	}
	return s
}

// ssmReference is the recurrence, element by element.
func ssmReference(s *scan) (out, states []float64) {
	x, dt, a, b, c, d, bias := s.inputs[0], s.inputs[1], s.inputs[2], s.inputs[3], s.inputs[4], s.inputs[5], s.inputs[6]
	heads, dim, groups, n := x.dims[1], x.dims[2], b.dims[1], b.dims[2]
	out = make([]float64, len(x.f))
	for seq, length := range s.lengths {
		for h := range heads {
			g := h / (heads / groups)
			for p := range dim {
				state := make([]float64, n)
				for e := range state {
					if s.pos[seq] > 0 {
						state[e] = float64(s.initial.f[((int64(seq)*heads+h)*dim+p)*n+int64(e)])
					}
				}
				for t := s.first(int32(seq)); t < s.first(int32(seq))+int64(length); t++ {
					step := float64(dt.f[t*heads+h]) + float64(bias.f[h])
					if s.attrs[2].Int == 1 {
						step = math.Max(step, 0) + math.Log1p(math.Exp(-math.Abs(step)))
					}
					step = math.Max(step, s.attrs[0].Float)
					if s.attrs[1].Float > 0 {
						step = math.Min(step, s.attrs[1].Float)
					}
					in := float64(x.f[(t*heads+h)*dim+p])
					y := float64(d.f[h]) * in
					for e := range state {
						state[e] = state[e]*math.Exp(step*float64(a.f[h])) + step*in*float64(b.f[(t*groups+g)*n+int64(e)])
						y += state[e] * float64(c.f[(t*groups+g)*n+int64(e)])
					}
					out[(t*heads+h)*dim+p] = y
				}
				states = append(states, state...)
			}
		}
	}
	return out, states
}

func TestSSMGolden(t *testing.T) {
	rng, names := rand.New(rand.NewPCG(65, 66)), isas(t)
	for _, name := range []string{"ssm_mamba2", "ssm_mamba2_groups_equal_heads", "ssm_mamba2_limits"} {
		s := scan{op: "adcg.ssm", tokens: []int{0, 1, 3, 4}}
		about, out, states := s.golden(t, name, "x", "dt", "A", "B", "C", "D", "dt_bias", "state")
		limit := about["dt_limit"].([]any)
		s.attrs = ssmAttrs(number(limit[0], 0), number(limit[1], 0), about["dt_softplus"].(bool))
		s.check(t, rng, names, out, states, 1e-5, 1e-6, name)
	}
}

func TestSSM(t *testing.T) {
	rng, names := rand.New(rand.NewPCG(67, 68)), isas(t)
	for round := range 30 {
		lengths, pos := sequenceLengths(rng)
		dtype := floats[rng.IntN(2)]
		groups := 1 + rng.Int64N(3)
		heads, dim := groups*(1+rng.Int64N(3)), 1+rng.Int64N(40)
		n := []int64{1, 7, 16, 20, 64, 80, 128, 200}[round%8]
		s := ssmCase(rng, dtype, heads, dim, groups, n, lengths, pos)
		switch rng.IntN(3) {
		case 0:
			s.attrs = ssmAttrs(0.1, 0.7, true)
		case 1:
			s.attrs = ssmAttrs(0.05, 0, false)
		}
		out, states := ssmReference(&s)
		relative := 1e-5
		if dtype == piecewise.BF16 {
			relative = 1.0 / 256
		}
		s.check(t, rng, names, out, states, 1e-6*math.Sqrt(float64(n))*10, relative, caseName(dtype, lengths, pos, s.attrs, s.inputs[0].dims, " n ", n))
	}
}

// Chunk metadata is for devices that scan by chunks: given or not, the bits are the same.
func TestSSMWithMetadata(t *testing.T) {
	rng := rand.New(rand.NewPCG(69, 70))
	s := ssmCase(rng, piecewise.F32, 2, 8, 1, 16, []int32{9, 4}, []int32{0, 3})
	want, _ := s.run(t, rng, 0, 0, 0)
	s.inputs = append(s.inputs, ints(make([]int32, 13)...), ints(make([]int32, 13)...), ints(make([]int32, 13)...))
	got, _ := s.run(t, rng, 0, 0, 0)
	requireSameBits(t, want, got, "with metadata")
}

// A chunk begins at every token that is a multiple of `chunk` or a sequence's first.
func TestSSMMetadata(t *testing.T) {
	rng := rand.New(rand.NewPCG(71, 72))
	for round := range 300 {
		chunk := 1 + rng.Int32N(12)
		cu, wantSeq := []int32{0}, []int32{}
		seqs := rng.Int32N(6)
		for s := range seqs {
			n := 1 + rng.Int32N(20)
			cu = append(cu, cu[s]+n)
			for range n {
				wantSeq = append(wantSeq, s)
			}
		}
		tokens := cu[seqs]
		indices, offsets := make([]int32, tokens+3), make([]int32, tokens+3)
		count := 0
		for t := range tokens {
			if t%chunk == 0 || t == 0 || wantSeq[t] != wantSeq[t-1] {
				indices[count], offsets[count] = t/chunk, t%chunk
				count++
			}
		}
		if seqs > 0 {
			require.LessOrEqual(t, count, int((tokens+chunk-1)/chunk+seqs-1))
		}
		got := []*array{ints(make([]int32, tokens+3)...), ints(make([]int32, tokens+3)...), ints(make([]int32, tokens+3)...)}
		for _, a := range got {
			for i := range a.i {
				a.i[i] = 77
			}
		}
		for i := range 3 {
			indices[tokens+int32(i)], offsets[tokens+int32(i)], wantSeq = 77, 77, append(wantSeq, 77)
		}
		batch := host.Batch{PrefillSeqs: int64(seqs), PrefillTokens: int64(tokens)}
		require.NoError(t, launch("adcg.ssm_metadata", 0, []piecewise.Attr{integer("chunk", int64(chunk))}, []*array{ints(append(cu, -5)...)}, got, batch, 0))
		require.Equal(t, indices, got[0].i, "round %d: %v by %d", round, cu, chunk)
		require.Equal(t, offsets, got[1].i, "round %d: %v by %d", round, cu, chunk)
		require.Equal(t, wantSeq, got[2].i, "round %d: %v by %d", round, cu, chunk)
	}
	// By hand: 5 and 6 tokens in chunks of 4: 0..3, 4 | 5..7, 8..10.
	got := []*array{ints(make([]int32, 11)...), ints(make([]int32, 11)...), ints(make([]int32, 11)...)}
	launched := func(cu ...int32) error {
		return launch("adcg.ssm_metadata", 0, []piecewise.Attr{integer("chunk", 4)}, []*array{ints(cu...)}, got, host.Batch{PrefillSeqs: 2, PrefillTokens: 11}, 0)
	}
	require.NoError(t, launched(0, 5, 11))
	require.Equal(t, []int32{0, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0}, got[0].i)
	require.Equal(t, []int32{0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, got[1].i)
	require.Equal(t, []int32{0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, got[2].i)
	require.ErrorContains(t, launched(0, 5, 12), "cu_seqlens[2] is 12, the step has 11 tokens")
}
