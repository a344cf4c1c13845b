package host_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

func deltaAttrs(scale float64, l2norm bool, eps float64) []piecewise.Attr {
	attrs := []piecewise.Attr{float("scale", scale), {Name: "l2norm", Type: piecewise.AttrBool}, float("l2norm_eps", eps)}
	if l2norm {
		attrs[1].Int = 1
	}
	return attrs
}

// deltaCase has keys that are short enough for the state not to grow without a norm.
func deltaCase(rng *rand.Rand, dtype piecewise.DType, gated bool, heads, keyHeads, keys, values int64, lengths, pos []int32) scan {
	tokens := total(lengths)
	s := scan{op: "adcg.delta_rule", attrs: deltaAttrs(0, true, 1e-6), tokens: []int{0, 1, 2, 3}, state: 4, out: []int64{heads, values}, lengths: lengths,
		pos: pos, initial: random(rng, piecewise.F32, int64(len(lengths)), heads, keys, values)}
	s.inputs = []*array{random(rng, dtype, tokens, keyHeads, keys), random(rng, dtype, tokens, keyHeads, keys), random(rng, dtype, tokens, heads, values)}
	gate := func(of func(float64) float64) {
		a := random(rng, []piecewise.DType{piecewise.F32, dtype}[rng.IntN(2)], tokens, heads)
		for i, f := range a.f {
			if a.f[i] = float32(of(float64(f))); a.dtype == piecewise.BF16 {
				a.f[i] = roundBF16(a.f[i])
			}
		}
		s.inputs = append(s.inputs, a)
	}
	if gated {
		s.op, s.tokens, s.state = "adcg.gated_delta_rule", []int{0, 1, 2, 3, 4}, 5
		gate(func(f float64) float64 { return -f * f })
	}
	gate(func(f float64) float64 { return 1 / (1 + math.Exp(-f)) })
	s.inputs = append(s.inputs, nil, nil, nil, nil)
	return s
}

// deltaReference is the recurrence over whole matrices.
func deltaReference(s *scan) (out, states []float64) {
	q, k, v, beta := s.inputs[0], s.inputs[1], s.inputs[2], s.inputs[s.state-1]
	keyHeads, keys, heads, values := k.dims[1], k.dims[2], v.dims[1], v.dims[2]
	scale := s.attrs[0].Float
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(keys))
	}
	normed := func(a *array, t, h int64) []float64 {
		x := doubles(a.f[(t*keyHeads+h)*keys : (t*keyHeads+h+1)*keys])
		sum := s.attrs[2].Float
		for _, f := range x {
			sum += f * f
		}
		for i := range x {
			if s.attrs[1].Int == 1 {
				x[i] /= math.Sqrt(sum)
			}
		}
		return x
	}
	out = make([]float64, len(v.f))
	for seq, length := range s.lengths {
		for h := range heads {
			state := make([]float64, keys*values)
			if s.pos[seq] > 0 {
				state = doubles(s.initial.f[(int64(seq)*heads+h)*keys*values:][:keys*values])
			}
			for t := s.first(int32(seq)); t < s.first(int32(seq))+int64(length); t++ {
				query, key := normed(q, t, h/(heads/keyHeads)), normed(k, t, h/(heads/keyHeads))
				if s.state == 5 {
					for i := range state {
						state[i] *= math.Exp(float64(s.inputs[3].f[t*heads+h]))
					}
				}
				for e := range values {
					read := 0.0
					for i := range keys {
						read += key[i] * state[i*values+e]
					}
					change := float64(beta.f[t*heads+h]) * (float64(v.f[(t*heads+h)*values+e]) - read)
					for i := range keys {
						state[i*values+e] += key[i] * change
						out[(t*heads+h)*values+e] += scale * query[i] * state[i*values+e]
					}
				}
			}
			states = append(states, state...)
		}
	}
	return out, states
}

func TestDeltaGolden(t *testing.T) {
	rng, names := rand.New(rand.NewPCG(73, 74)), isas(t)
	for _, name := range []string{"delta_rule", "delta_rule_l2norm", "gated_delta_rule", "gated_delta_rule_l2norm", "gated_delta_rule_one_key_head"} {
		s, inputs := scan{op: "adcg.delta_rule", tokens: []int{0, 1, 2, 3}}, []string{"q", "k", "v", "beta", "state"}
		if name[0] == 'g' {
			s, inputs = scan{op: "adcg.gated_delta_rule", tokens: []int{0, 1, 2, 3, 4}}, []string{"q", "k", "v", "g", "beta", "state"}
		}
		about, out, states := s.golden(t, name, inputs...)
		s.attrs = deltaAttrs(about["scale"].(float64), about["qk_l2norm"].(bool), about["l2norm_eps"].(float64))
		s.check(t, rng, names, out, states, 2e-6, 1e-6, name)
	}
}

func TestDelta(t *testing.T) {
	rng, names := rand.New(rand.NewPCG(75, 76)), isas(t)
	for round := range 40 {
		lengths, pos := sequenceLengths(rng)
		dtype := floats[rng.IntN(2)]
		keyHeads := 1 + rng.Int64N(3)
		heads := keyHeads * (1 + rng.Int64N(3))
		keys, values := []int64{1, 5, 16, 24, 128}[round%5], []int64{1, 12, 16, 31, 32, 33, 70}[rng.IntN(7)]
		s := deltaCase(rng, dtype, round%2 == 0, heads, keyHeads, keys, values, lengths, pos)
		if rng.IntN(3) == 0 {
			s.attrs = deltaAttrs(0.3, true, 0.25)
		}
		out, states := deltaReference(&s)
		relative := 1e-5
		if dtype == piecewise.BF16 {
			relative = 1.0 / 256
		}
		s.check(t, rng, names, out, states, 2e-5, relative, caseName(dtype, lengths, pos, s.op, s.inputs[2].dims, s.inputs[1].dims))
	}
}

// The gates hold over all that a and b can be, to a relative 1e-6: softplus is next to nothing below -20.
func TestGating(t *testing.T) {
	rng := rand.New(rand.NewPCG(77, 78))
	for _, dtype := range floats {
		for _, heads := range []int64{1, 16, 37} {
			a, b := random(rng, dtype, 50, heads), random(rng, dtype, 50, heads)
			for i := range a.f {
				a.f[i], b.f[i] = a.f[i]*30, b.f[i]*25
				if dtype == piecewise.BF16 {
					a.f[i], b.f[i] = roundBF16(a.f[i]), roundBF16(b.f[i])
				}
			}
			aLog, bias := random(rng, floats[rng.IntN(2)], heads), filled(floats[rng.IntN(2)], 0.25, heads)
			g, beta := filled(piecewise.F32, 0, 50, heads), filled(piecewise.F32, 0, 50, heads)
			require.NoError(t, launch("adcg.gdn_gating", 0, nil, []*array{a, b, aLog, bias}, []*array{g, beta}, host.Batch{}, 0))
			var wantG, wantBeta []float64
			for i := range a.f {
				x := float64(a.f[i] + 0.25)
				wantG = append(wantG, -math.Exp(float64(aLog.f[int64(i)%heads]))*(math.Max(x, 0)+math.Log1p(math.Exp(-math.Abs(x)))))
				wantBeta = append(wantBeta, 1/(1+math.Exp(-float64(b.f[i]))))
			}
			requireNear(t, wantG, g, 1e-37, 1e-6, "g of %v, %d heads", dtype, heads)
			requireNear(t, wantBeta, beta, 1e-37, 1e-6, "beta of %v, %d heads", dtype, heads)
			pool := host.NewPool(2)
			for _, isa := range isas(t) {
				require.NoError(t, host.SetISA(isa))
				g2, beta2 := filled(piecewise.F32, 0, 50, heads), filled(piecewise.F32, 0, 50, heads)
				require.NoError(t, launch("adcg.gdn_gating", pool, nil, []*array{a, b, aLog, bias}, []*array{g2, beta2}, host.Batch{}, 0))
				requireSameBits(t, g, g2, "g on %s", isa)
				requireSameBits(t, beta, beta2, "beta on %s", isa)
			}
			host.FreePool(pool)
			require.NoError(t, host.SetISA(""))
		}
	}
}
