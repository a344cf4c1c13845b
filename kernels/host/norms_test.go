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

// requireEverywhere wants an op to give the same bits on every instruction set, on several threads, and for a last row
// that comes alone; row inputs are those whose rows go with the output's. It gives the result.
func requireEverywhere(t *testing.T, what, op string, attrs []piecewise.Attr, inputs []*array, rowInputs int, output *array) *array {
	t.Helper()
	want := run(t, op, attrs, output.clone(), inputs...)
	pool := host.NewPool(2)
	defer host.FreePool(pool)
	for _, isa := range isas(t) {
		require.NoError(t, host.SetISA(isa))
		got := output.clone()
		require.NoError(t, launch(op, pool, attrs, inputs, []*array{got}, host.Batch{}, 0))
		requireSameBits(t, want, got, "%s on %s", what, isa)
	}
	require.NoError(t, host.SetISA(""))
	n := output.dims[0]
	last := append([]*array(nil), inputs...)
	for i := range last {
		if rowInputs>>i&1 != 0 {
			last[i] = last[i].rows(n-1, n)
		}
	}
	requireSameBits(t, want.rows(n-1, n), run(t, op, attrs, output.rows(n-1, n), last...), "%s, last row alone", what)
	return want
}

func siluOf(x float64) float64 { return x / (1 + math.Exp(-x)) }

// normOptions are rms_norm's.
type normOptions struct {
	eps     float64
	onePlus bool
	groups  int
	gate    string
}

func (o normOptions) attrs() []piecewise.Attr {
	return []piecewise.Attr{float("eps", o.eps), boolean("one_plus", o.onePlus), integer("groups", int64(o.groups)), str("gate", o.gate)}
}

// rmsReference is the norm of one row in float64; round is what is done to values that the models keep in their own type.
func rmsReference(x, w, z []float32, o normOptions, round func(float64) float64) []float64 {
	y := make([]float64, len(x))
	for i := range x {
		if y[i] = float64(x[i]); o.gate == "before" {
			y[i] *= siluOf(float64(z[i]))
		}
	}
	size := len(x) / o.groups
	for g := range o.groups {
		part, squares := y[g*size:(g+1)*size], 0.0
		for _, v := range part {
			squares += v * v
		}
		for i := range part {
			part[i] /= math.Sqrt(squares/float64(size) + o.eps)
		}
	}
	for i := range y {
		if o.onePlus {
			y[i] *= 1 + float64(w[i])
		} else {
			y[i] = round(y[i]) * float64(w[i])
		}
		if o.gate == "after" {
			if !o.onePlus {
				y[i] = round(y[i])
			}
			y[i] *= siluOf(float64(z[i]))
		}
	}
	return y
}

func rounding(dtype piecewise.DType) func(float64) float64 {
	if dtype == piecewise.BF16 {
		return func(f float64) float64 { return float64(roundBF16(float32(f))) }
	}
	return func(f float64) float64 { return f }
}

func TestRMSNormGoldenOptions(t *testing.T) {
	for _, name := range []string{"rms_norm", "rms_norm_qk", "rms_norm_one_plus_gemma2", "rms_norm_one_plus_qwen3_5", "rms_norm_then_gate_qwen3_5",
		"rms_norm_gate_first_grouped", "rms_norm_gate_first_mamba2"} {
		x, at := load(t, name)
		o := normOptions{eps: number(at["eps"], 0), groups: int(number(at["groups"], 1)), gate: "none"}
		o.onePlus, _ = at["one_plus_weight"].(bool)
		inputs := []*array{x["x"], x["weight"]}
		if z := x["z"]; z != nil {
			o.gate = map[any]string{true: "after", false: "before"}[at["norm_before_gate"]]
			inputs = append(inputs, z)
		}
		y := requireEverywhere(t, name, "adcg.rms_norm", o.attrs(), inputs, 1|4, x["x"])
		requireNear(t, doubles(x["out"].f), y, 1e-6, 2e-6, name)
	}
	x, at := load(t, "layer_norm")
	y := run(t, "adcg.layer_norm", []piecewise.Attr{float("eps", number(at["eps"], 0))}, x["x"].clone(), x["x"], x["weight"], x["bias"])
	requireNear(t, doubles(x["out"].f), y, 1e-6, 1e-6, "layer_norm")
}

func TestRMSNormOptions(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	for round := range 120 {
		dtype, weights := floats[round%2], floats[round/2%2]
		o := normOptions{eps: []float64{0, 1e-6, 0.1}[rng.IntN(3)], onePlus: rng.IntN(2) == 0, groups: 1 + rng.IntN(4), gate: []string{"none", "before", "after"}[round%3]}
		d := int64(o.groups) * (1 + rng.Int64N(150))
		dims := []int64{1 + rng.Int64N(9), 1 + rng.Int64N(3), d}
		x, w := random(rng, dtype, dims...), random(rng, weights, d)
		inputs := []*array{x, w}
		if o.gate != "none" {
			inputs = append(inputs, random(rng, dtype, dims...))
		}
		what := fmt.Sprintf("rms_norm %v, weight %v, %v %+v", dtype, weights, dims, o)
		y := requireEverywhere(t, what, "adcg.rms_norm", o.attrs(), inputs, 1|4, x)
		var want []float64
		for at := int64(0); at < count(dims); at += d {
			var z []float32
			if o.gate != "none" {
				z = inputs[2].f[at : at+d]
			}
			want = append(want, rmsReference(x.f[at:at+d], w.f, z, o, rounding(dtype))...)
		}
		relative := 3e-6
		if dtype == piecewise.BF16 { // a rounding in between may fall to the other side
			relative = 1.0 / 100
		}
		requireNear(t, want, y, 1e-30, relative, what)
	}
}

// TestNormsRoundAsTheModels has values for which every other order of rounding gives another result.
func TestNormsRoundAsTheModels(t *testing.T) {
	rng := rand.New(rand.NewPCG(33, 34))
	x, z := random(rng, piecewise.BF16, 40, 64), random(rng, piecewise.BF16, 40, 64)
	w := random(rng, piecewise.BF16, 64)
	for _, o := range []normOptions{{1e-5, false, 1, "none"}, {1e-5, true, 1, "none"}, {1e-5, false, 1, "after"}, {1e-5, false, 2, "before"}} {
		inputs := []*array{x, w, z}
		if o.gate == "none" {
			inputs = inputs[:2]
		}
		y := run(t, "adcg.rms_norm", o.attrs(), x.clone(), inputs...)
		ours, once := 0, 0
		for row := range 40 {
			part := func(a *array) []float32 { return a.f[row*64 : row*64+64] }
			models := rmsReference(part(x), w.f, part(z), o, rounding(piecewise.BF16))
			exact := rmsReference(part(x), w.f, part(z), o, rounding(piecewise.F32))
			for i, got := range part(y) {
				if got != roundBF16(float32(models[i])) {
					ours++
				}
				if got != roundBF16(float32(exact[i])) {
					once++
				}
			}
		}
		require.Less(t, ours, 10, "%+v: of 2560, where float32 falls to the other side", o)
		if !o.onePlus {
			require.Greater(t, once, 200, "%+v", o)
		}
	}
}

func TestLayerNorm(t *testing.T) {
	rng := rand.New(rand.NewPCG(35, 36))
	for round := range 60 {
		dtype, weights := floats[round%2], floats[round/2%2]
		d := 1 + rng.Int64N(300)
		dims := []int64{1 + rng.Int64N(9), 1 + rng.Int64N(3), d}
		x, w, b := random(rng, dtype, dims...), random(rng, weights, d), random(rng, floats[rng.IntN(2)], d)
		inputs := []*array{x, w, b}
		if round%3 == 0 {
			inputs = inputs[:2]
		}
		offset := 0.0
		if round%5 == 0 && dtype == piecewise.F32 { // a mean far from zero
			offset = 1000
			for i := range x.f {
				x.f[i] += 1000
			}
		}
		what := fmt.Sprintf("layer_norm %v, weight %v, %v, round %d", dtype, weights, dims, round)
		y := requireEverywhere(t, what, "adcg.layer_norm", []piecewise.Attr{float("eps", 1e-5)}, inputs, 1, x)
		want := make([]float64, len(x.f))
		for at := int64(0); at < int64(len(want)); at += d {
			mean, variance := 0.0, 0.0
			for _, v := range x.f[at : at+d] {
				mean += float64(v) / float64(d)
			}
			for _, v := range x.f[at : at+d] {
				variance += (float64(v) - mean) * (float64(v) - mean) / float64(d)
			}
			for i := range d {
				want[at+i] = (float64(x.f[at+i]) - mean) / math.Sqrt(variance+1e-5) * float64(w.f[i])
				if len(inputs) == 3 {
					want[at+i] += float64(b.f[i])
				}
			}
		}
		absolute, relative := 3e-6+2e-7*offset, 3e-6
		if d == 1 {
			absolute += offset * 1e-3 // eps alone is under the root
		}
		if dtype == piecewise.BF16 {
			relative = 1.0 / 256
		}
		requireNear(t, want, y, absolute*5, relative, what)
	}
}

// TestFusedNorms compares the ops that norm several tensors, or a sum, with the ops that they stand for.
func TestFusedNorms(t *testing.T) {
	rng := rand.New(rand.NewPCG(37, 38))
	for round := range 40 {
		dtype, d := floats[round%2], 1+rng.Int64N(200)
		attrs := []piecewise.Attr{float("eps", 1e-6), boolean("one_plus", round%3 == 0)}
		norm := func(x, w *array) *array { return run(t, "adcg.rms_norm", attrs, x.clone(), x, w) }
		a, b, w := random(rng, dtype, 7, 2, d), random(rng, dtype, 7, 2, d), random(rng, floats[rng.IntN(2)], d)
		sum, normed := a.clone(), a.clone()
		require.NoError(t, launch("adcg.add_rms_norm", 0, attrs, []*array{a, b, w}, []*array{sum, normed}, host.Batch{}, 0))
		added := run(t, "adcg.add", nil, a.clone(), a, b)
		requireSameBits(t, added, sum, "sum")
		requireSameBits(t, norm(added, w), normed, "normed")
		k, kw := random(rng, dtype, 7, 5, d), random(rng, floats[rng.IntN(2)], d)
		qn, kn := a.clone(), k.clone()
		require.NoError(t, launch("adcg.qk_norm", 0, attrs, []*array{a, k, w, kw}, []*array{qn, kn}, host.Batch{}, 0))
		requireSameBits(t, norm(a, w), qn, "q")
		requireSameBits(t, norm(k, kw), kn, "k")
	}
}

// TestNormsOfBadRows wants NaN and infinity to stay in their rows, and in their groups.
func TestNormsOfBadRows(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, dtype := range floats {
		for _, bad := range []float32{nan, inf, -inf} {
			x := filled(dtype, 1, 3, 40)
			x.f[40+7] = bad
			w := filled(dtype, 1, 40)
			y := run(t, "adcg.rms_norm", []piecewise.Attr{integer("groups", 2)}, x.clone(), x, w)
			for i, v := range y.f {
				if i >= 40 && i < 60 {
					require.True(t, v != v || v == 0 || i == 47, "%v at %d", v, i)
				} else {
					require.InDelta(t, 1, v, 0.01)
				}
			}
			for _, op := range []string{"adcg.layer_norm", "adcg.softmax"} {
				inputs := []*array{x, w}
				if op == "adcg.softmax" {
					inputs = inputs[:1]
				}
				y := run(t, op, nil, x.clone(), inputs...)
				for i, v := range y.f {
					if i/40 != 1 {
						require.False(t, v != v, "%s: row %d", op, i/40)
					} else if op == "adcg.layer_norm" || bad != -inf {
						require.True(t, v != v, "%s of %v: %v", op, bad, v)
					}
				}
			}
		}
	}
}
