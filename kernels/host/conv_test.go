package host_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/piecewise"
)

func convCase(rng *rand.Rand, dtype, stateType piecewise.DType, channels, taps int64, activation string, bias bool, lengths, pos []int32) scan {
	weights := floats[rng.IntN(2)]
	s := scan{op: "adcg.causal_conv1d", attrs: []piecewise.Attr{str("activation", activation)}, tokens: []int{0}, state: 2, out: []int64{channels},
		lengths: lengths, pos: pos, initial: random(rng, stateType, int64(len(lengths)), channels, taps-1)}
	s.inputs = []*array{random(rng, dtype, total(lengths), channels), random(rng, weights, channels, taps), nil, nil, nil, nil}
	if bias {
		s.inputs = append(s.inputs, random(rng, floats[rng.IntN(2)], channels))
	}
	return s
}

// convReference is the definition, by reading each input of the whole history where it stands.
func convReference(s *scan) (out, states []float64) {
	x, weight := s.inputs[0], s.inputs[1]
	channels, taps := weight.dims[0], weight.dims[1]
	for seq, n := range s.lengths {
		first := s.first(int32(seq))
		at := func(t, c int64) float64 { // input t of the sequence; before it, the state
			switch {
			case t >= 0 && s.initial.dtype == piecewise.BF16:
				return float64(roundBF16(x.f[(first+t)*channels+c]))
			case t >= 0:
				return float64(x.f[(first+t)*channels+c])
			case s.pos[seq] == 0:
				return 0
			}
			return float64(s.initial.f[(int64(seq)*channels+c)*(taps-1)+taps-1+t])
		}
		for t := int64(0); t < int64(n); t++ {
			for c := int64(0); c < channels; c++ {
				sum := float64(x.f[(first+t)*channels+c]) * float64(weight.f[c*taps+taps-1])
				if len(s.inputs) > 6 {
					sum += float64(s.inputs[6].f[c])
				}
				for j := int64(0); j < taps-1; j++ {
					sum += float64(weight.f[c*taps+j]) * at(t-taps+1+j, c)
				}
				if s.attrs[0].String == "silu" {
					sum /= 1 + math.Exp(-sum)
				}
				out = append(out, sum)
			}
		}
		for c := int64(0); c < channels; c++ {
			for j := int64(0); j < taps-1; j++ {
				states = append(states, at(int64(n)-taps+1+j, c))
			}
		}
	}
	return out, states
}

func TestConvGolden(t *testing.T) {
	rng, names := rand.New(rand.NewPCG(61, 62)), isas(t)
	for _, name := range []string{"causal_conv1d_plain_k3", "causal_conv1d_silu", "causal_conv1d_silu_bias"} {
		s := scan{op: "adcg.causal_conv1d", tokens: []int{0}}
		about, out, states := s.golden(t, name, "x", "weight", "state", "bias")
		activation, given := about["activation"].(string)
		if !given {
			activation = "none"
		}
		s.attrs = []piecewise.Attr{str("activation", activation)}
		require.Equal(t, about["bias"], len(s.inputs) == 7)
		s.check(t, rng, names, out, states, 1e-6, 1e-6, name)
	}
}

func TestConv(t *testing.T) {
	rng, names := rand.New(rand.NewPCG(63, 64)), isas(t)
	for range 40 {
		lengths, pos := sequenceLengths(rng)
		dtype, stateType := floats[rng.IntN(2)], floats[rng.IntN(2)]
		channels, taps := 1+rng.Int64N([]int64{8, 40, 600}[rng.IntN(3)]), []int64{2, 3, 4, 4, 7}[rng.IntN(5)]
		if stateType == piecewise.F32 && dtype == piecewise.BF16 && rng.IntN(2) == 0 {
			stateType = dtype
		}
		s := convCase(rng, dtype, stateType, channels, taps, []string{"none", "silu"}[rng.IntN(2)], rng.IntN(2) == 0, lengths, pos)
		out, states := convReference(&s)
		relative := 2e-6
		if dtype == piecewise.BF16 {
			relative = 1.0 / 256
		}
		s.check(t, rng, names, out, states, 4e-6, relative, caseName(dtype, lengths, pos, s.attrs, channels, " channels ", taps, " taps"))
	}
}
