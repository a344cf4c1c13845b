package host_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

func TestRopeGolden(t *testing.T) {
	for _, name := range []string{"rope_neox", "rope_neox_linear", "rope_neox_llama3", "rope_neox_llama3_small", "rope_partial_neox_phi3", "rope_partial_neox_qwen3_5",
		"rope_neox_yarn_gpt_oss", "rope_interleaved_gptj", "rope_partial_interleaved_glm", "rope_interleaved_glm4_moe_lite", "rope_interleaved_yarn_deepseek"} {
		x, at := load(t, name)
		scaling, _ := at["rope_type"].(string)
		if scaling == "default" {
			scaling = "none"
		}
		attrs := []piecewise.Attr{float("theta", number(at["rope_theta"], 0)), integer("rotary_dim", int64(number(at["rotary_dim"], 0))), str("scaling", scaling), float("factor", number(at["factor"], 1)),
			float("low_freq_factor", number(at["low_freq_factor"], 1)), float("high_freq_factor", number(at["high_freq_factor"], 4)), integer("original_max_position", int64(number(at["original_max_position_embeddings"], 8192))),
			str("layout", map[any]string{"neox": "neox", "gptj": "gptj", "interleaved_in_halves_out": "interleaved"}[at["layout"]]),
			float("beta_fast", number(at["beta_fast"], 32)), float("beta_slow", number(at["beta_slow"], 1)), float("mscale", number(at["mscale"], 0)),
			float("mscale_all_dim", number(at["mscale_all_dim"], 0)), boolean("truncate", at["truncate"] != false)}
		for _, part := range []string{"q", "k"} {
			in, want := x[part], x[part+"_out"]
			got := run(t, "adcg.rope", attrs, in.clone(), in, x["positions"])
			row := in.row()
			largest := 0.0
			for _, f := range in.f {
				largest = max(largest, math.Abs(float64(f)))
			}
			for i := range got.f {
				position := float64(x["positions"].i[int64(i)/row])
				require.InDelta(t, want.f[i], got.f[i], 1e-6+2e-7*(1+position)*largest, "%s: %s[%d], position %v", name, part, i, position)
			}
			for _, isa := range isas(t) {
				require.NoError(t, host.SetISA(isa))
				requireSameBits(t, got, run(t, "adcg.rope", attrs, in.clone(), in, x["positions"]), "%s on %s", name, isa)
				same := in.clone()
				require.NoError(t, launch("adcg.rope", 0, attrs, []*array{in.clone(), x["positions"]}, []*array{same}, host.Batch{}, 1))
				requireSameBits(t, got, same, "%s in place", name)
			}
			require.NoError(t, host.SetISA(""))
		}
	}
}

// TestRopeAngles compares sine and cosine, as rope applies them, with float64 of the float32 angle.
func TestRopeAngles(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	const tokens, d = 400, 128
	x := filled(piecewise.F32, 0, tokens, 1, d)
	positions := make([]int32, tokens)
	for i := range positions {
		positions[i] = int32(math.Exp(rng.Float64() * math.Log(math.MaxInt32)))
		for e := range d / 2 {
			x.f[i*d+e] = 1 // (1, 0) becomes (cos, sin)
		}
	}
	copy(positions, []int32{0, 1, -1, 999999, 1000000, 1000001, 16777216, math.MaxInt32, -777777})
	attrs := []piecewise.Attr{float("theta", 500000), integer("rotary_dim", 0), str("scaling", "none"), float("factor", 1)}
	got := run(t, "adcg.rope", attrs, x.clone(), x, ints(positions...))
	for i, position := range positions {
		for e := range d / 2 {
			frequency := 1 / float32(math.Pow(500000, float64(float32(2*e)/d)))
			s, c := math.Sincos(float64(float32(position) * frequency))
			require.InDelta(t, c, got.f[i*d+e], 1.5e-7, "cos, position %d, pair %d", position, e)
			require.InDelta(t, s, got.f[i*d+d/2+e], 1.5e-7, "sin, position %d, pair %d", position, e)
		}
	}
}

// TestRopeLayouts compares with rotations by complex numbers in float64, of random shapes, and the layouts with each other:
// one rotation of the same pairs, which lie elsewhere.
func TestRopeLayouts(t *testing.T) {
	rng := rand.New(rand.NewPCG(51, 52))
	for round := range 60 {
		dtype := floats[round%2]
		half := 1 + rng.Int64N(60)
		d := 2*half + rng.Int64N(9)
		if round == 0 { // more than one chunk of sines
			half, d = 700, 1400
		}
		if round == 1 {
			half, d = 256, 515
		}
		x, positions := random(rng, dtype, 5, 3, d), ints(0, 1, 77, 1234, -5)
		attrs := func(layout string) []piecewise.Attr {
			return []piecewise.Attr{integer("rotary_dim", 2*half), float("theta", 5000), str("layout", layout)}
		}
		// In which places of a head pair i lies.
		neox := func(i int64) (int64, int64) { return i, half + i }
		gptj := func(i int64) (int64, int64) { return 2 * i, 2*i + 1 }
		results := map[string]*array{}
		for layout, at := range map[string][2]func(int64) (int64, int64){"neox": {neox, neox}, "gptj": {gptj, gptj}, "interleaved": {gptj, neox}} {
			if layout == "interleaved" && half > 256 {
				continue
			}
			what := fmt.Sprintf("%s %v half %d of %d", layout, dtype, half, d)
			y := requireEverywhere(t, what, "adcg.rope", attrs(layout), []*array{x, positions}, 3, x.clone())
			same := x.clone()
			require.NoError(t, launch("adcg.rope", 0, attrs(layout), []*array{x.clone(), positions}, []*array{same}, host.Batch{}, 1))
			requireSameBits(t, y, same, "%s in place", what)
			want := doubles(x.f)
			for head := range int64(15) {
				for i := range half {
					angle := float64(positions.i[head/3]) * math.Pow(5000, -float64(i)/float64(half))
					a, b := at[0](i)
					c, e := at[1](i)
					turned := complex(float64(x.f[head*d+a]), float64(x.f[head*d+b])) * complex(math.Cos(angle), math.Sin(angle))
					want[head*d+c], want[head*d+e] = real(turned), imag(turned)
				}
			}
			absolute, relative := 1e-6+1234*2e-7*4, 0.0
			if dtype == piecewise.BF16 {
				relative = 1.0 / 256
			}
			requireNear(t, want, y, absolute, relative, what)
			results[layout] = y
		}
		halves := results["gptj"].clone() // its results, moved
		for head := range int64(15) {
			for i := range half {
				halves.f[head*d+i], halves.f[head*d+half+i] = results["gptj"].f[head*d+2*i], results["gptj"].f[head*d+2*i+1]
			}
		}
		if y := results["interleaved"]; y != nil {
			requireSameBits(t, halves, y, "halves of %d", half)
		}
		moved := x.clone()
		for head := range int64(15) {
			for i := range half {
				moved.f[head*d+i], moved.f[head*d+half+i] = x.f[head*d+2*i], x.f[head*d+2*i+1]
			}
		}
		requireSameBits(t, halves, run(t, "adcg.rope", attrs("neox"), x.clone(), moved, positions), "neox of halves of %d", half)
	}
}

// TestRopeYarn computes yarn's frequencies in float64 from the paper's formulas, over random settings; position 1 shows them.
func TestRopeYarn(t *testing.T) {
	rng := rand.New(rand.NewPCG(53, 54))
	for range 200 {
		half := 2 + rng.Int64N(60)
		theta, factor, context := 100+rng.Float64()*200000, 1+rng.Float64()*40, 64+rng.Int64N(9000)
		fast, slow := 8+rng.Float64()*50, 0.5+rng.Float64()*3
		mscale, all, given := rng.Float64()*2, rng.Float64()*2, 0.0
		switch rng.IntN(4) {
		case 0:
			mscale = 0
		case 1:
			all = 0
		case 2:
			given = 0.3 + rng.Float64()
		}
		truncate := rng.IntN(2) == 0
		attrs := []piecewise.Attr{float("theta", theta), str("scaling", "yarn"), float("factor", factor), integer("original_max_position", context), float("beta_fast", fast),
			float("beta_slow", slow), float("mscale", mscale), float("mscale_all_dim", all), boolean("truncate", truncate), float("attention_factor", given)}
		x := filled(piecewise.F32, 0, 1, 1, 2*half)
		for i := range half {
			x.f[i] = 1
		}
		y := run(t, "adcg.rope", attrs, x.clone(), x, ints(1))
		size := given
		if given == 0 {
			size = 0.1*math.Log(factor) + 1
			if mscale > 0 && all > 0 {
				size = (0.1*mscale*math.Log(factor) + 1) / (0.1*all*math.Log(factor) + 1)
			}
		}
		turnsAt := func(turns float64) float64 { // the pair whose wavelength fits `turns` times into the context
			return float64(half) * math.Log(float64(context)/(2*math.Pi*turns)) / math.Log(theta)
		}
		low, high := turnsAt(fast), turnsAt(slow)
		if truncate {
			low, high = math.Floor(low), math.Ceil(high)
		}
		low, high = math.Max(low, 0), math.Min(high, float64(2*half-1))
		for i := range half {
			ramp := 0.0
			switch {
			case float64(i) >= high && high > low:
				ramp = 1
			case float64(i) > low && high > low:
				ramp = (float64(i) - low) / (high - low)
			case high == low && float64(i) > low:
				ramp = 1
			}
			frequency := math.Pow(theta, -float64(i)/float64(half))
			frequency = frequency/factor*ramp + frequency*(1-ramp)
			require.InDelta(t, size*math.Cos(frequency), y.f[i], 2e-6, "cos of pair %d, %v", i, attrs)
			require.InDelta(t, size*math.Sin(frequency), y.f[half+i], 2e-6, "sin of pair %d, %v", i, attrs)
		}
	}
}
