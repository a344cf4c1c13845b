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

// reference is a function in float64; bound is how far float32 may be from it.
type reference struct {
	of    func(x float64) float64
	bound func(y float64) float64
}

func within(relative float64) func(float64) float64 {
	return func(y float64) float64 { return relative*math.Abs(y) + 1e-35 } // exp overflows where results are that small
}

// activations by linear's names. erfc and expm1-free forms: nothing cancels in float64 either.
var activations = map[string]reference{
	"none":    {func(x float64) float64 { return x }, within(0)},
	"silu":    {siluOf, within(1e-6)},
	"sigmoid": {func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, within(1e-6)},
	"gelu":    {func(x float64) float64 { return 0.5 * x * math.Erfc(-x/math.Sqrt2) }, within(1e-6)},
	"gelu_tanh": {func(x float64) float64 {
		u := math.Sqrt(2/math.Pi) * (x + 0.044715*x*x*x)
		return x / (1 + math.Exp(-2*u))
	}, func(y float64) float64 {
		if math.Abs(y) >= 1e-6 {
			return 2e-6 * math.Abs(y)
		}
		return 1e-12
	}},
	"relu":  {func(x float64) float64 { return math.Max(x, 0) }, within(0)},
	"relu2": {func(x float64) float64 { return math.Max(x, 0) * math.Max(x, 0) }, within(6e-8)},
}

// everyFloat has numbers of all magnitudes, closest where functions bend.
func everyFloat(rng *rand.Rand) *array {
	x := filled(piecewise.F32, 0, 1, 40000)
	for i := range x.f {
		switch i % 4 {
		case 0:
			x.f[i] = float32(rng.NormFloat64())
		case 1:
			x.f[i] = float32(rng.Float64()*40 - 20)
		case 2:
			x.f[i] = float32(rng.Float64()*200 - 100)
		case 3:
			x.f[i] = float32(math.Exp(rng.Float64()*40-35)) * float32(1-2*rng.IntN(2))
		}
	}
	return x
}

// identity is x [1, n] as a column, and a weight of one: linear then gives activation(x).
func throughLinear(t *testing.T, activation string, x *array) *array {
	t.Helper()
	column := &array{dtype: x.dtype, dims: []int64{int64(len(x.f)), 1}, f: x.f}
	return run(t, "adcg.linear", []piecewise.Attr{str("activation", activation)}, column.clone(), column, filled(piecewise.F32, 1, 1, 1))
}

func TestActivations(t *testing.T) {
	x := everyFloat(rand.New(rand.NewPCG(41, 42)))
	requireClose := func(y *array, r reference, what string) {
		t.Helper()
		for i, v := range x.f {
			want := r.of(float64(v))
			require.LessOrEqual(t, math.Abs(float64(y.f[i])-want), r.bound(want), "%s(%v) is %v, want %v", what, v, y.f[i], want)
		}
	}
	ones := filled(piecewise.F32, 1, x.dims...)
	for name, r := range activations {
		y := throughLinear(t, name, x)
		requireClose(y, r, name)
		for _, isa := range isas(t) {
			require.NoError(t, host.SetISA(isa))
			requireSameBits(t, y, throughLinear(t, name, x), "%s on %s", name, isa)
		}
		require.NoError(t, host.SetISA(""))
	}
	for _, name := range []string{"silu", "relu2", "sigmoid"} {
		requireClose(run(t, "adcg."+name, nil, x.clone(), x), activations[name], name)
	}
	requireClose(run(t, "adcg.gelu_mul", nil, x.clone(), x, ones), activations["gelu"], "gelu_mul")
	requireClose(run(t, "adcg.gelu_mul", []piecewise.Attr{str("approximate", "tanh")}, x.clone(), x, ones), activations["gelu_tanh"], "gelu_mul by tanh")
	requireClose(run(t, "adcg.sigmoid_mul", nil, x.clone(), ones, x), activations["sigmoid"], "sigmoid_mul")
}

// TestActivationsAtTheEnds has what torch gives for NaN and infinity, but for gelu of -inf, which is 0 here and NaN there.
func TestActivationsAtTheEnds(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	x := &array{dtype: piecewise.F32, dims: []int64{1, 5}, f: []float32{nan, inf, -inf, 0, 1e30}}
	for name, want := range map[string][]float32{
		"relu": {nan, inf, 0, 0, 1e30}, "relu2": {nan, inf, 0, 0, inf}, "sigmoid": {nan, 1, 0, 0.5, 1},
		"gelu": {nan, inf, 0, 0, 1e30}, "gelu_tanh": {nan, inf, 0, 0, 1e30}, "silu": {nan, inf, nan, 0, 1e30},
	} {
		for i, v := range throughLinear(t, name, x).f {
			if want[i] != want[i] {
				require.True(t, v != v, "%s(%v) is %v", name, x.f[i], v)
			} else {
				require.Equal(t, want[i], v+0, "%s(%v)", name, x.f[i])
			}
		}
	}
}

// TestLinearActivation compares an activation in linear with linear and the activation one after the other: in f32 the
// bits are the same; in bf16 linear rounds once.
func TestLinearActivation(t *testing.T) {
	rng := rand.New(rand.NewPCG(43, 44))
	for _, shape := range [][3]int64{{1, 1, 1}, {1, 37, 50}, {7, 5, 3}, {2, 9, 15}, {13, 23, 16}, {97, 40, 192}, {3, 11, 5000}, {50, 40, 1024}} {
		m, n, k := shape[0], shape[1], shape[2]
		for _, dtype := range floats {
			x, w, b := random(rng, dtype, m, k), random(rng, floats[rng.IntN(2)], n, k), random(rng, floats[rng.IntN(2)], n)
			exact := run(t, "adcg.linear", nil, filled(piecewise.F32, 0, m, n), &array{dtype: piecewise.F32, dims: x.dims, f: x.f}, w, b)
			for name := range activations {
				what := fmt.Sprintf("%v %v %s", shape, dtype, name)
				attrs := []piecewise.Attr{str("activation", name)}
				y := requireEverywhere(t, what, "adcg.linear", attrs, []*array{x, w, b}, 1, filled(dtype, 0, m, n))
				for i, v := range throughLinear(t, name, exact).f {
					if dtype == piecewise.BF16 {
						v = roundBF16(v)
					}
					require.Equal(t, v, y.f[i], "%s: element %d", what, i)
				}
			}
		}
	}
}

func TestElementsGolden(t *testing.T) {
	for name, c := range map[string]struct {
		op     string
		attrs  []piecewise.Attr
		inputs []string
	}{
		"gelu_exact_mul": {"adcg.gelu_mul", nil, []string{"gate", "up"}},
		"gelu_tanh_mul":  {"adcg.gelu_mul", []piecewise.Attr{str("approximate", "tanh")}, []string{"gate", "up"}},
		"silu_mul":       {"adcg.silu_mul", nil, []string{"gate", "up"}},
		"sigmoid_mul":    {"adcg.sigmoid_mul", nil, []string{"x", "gate"}},
		"relu2":          {"adcg.relu2", nil, []string{"x"}},
	} {
		x, _ := load(t, name)
		var inputs []*array
		for _, input := range c.inputs {
			inputs = append(inputs, x[input])
		}
		requireNear(t, doubles(x["out"].f), run(t, c.op, c.attrs, x["out"].clone(), inputs...), 2e-6, 1e-6, name)
	}
}

// TestElements compares the ops on elements with float64, in bf16 with the models' rounding of the activation, and a second
// operand of one element a row with the whole one that it stands for.
func TestElements(t *testing.T) {
	rng := rand.New(rand.NewPCG(45, 46))
	first := func(name string) func(a, b float64, round func(float64) float64) float64 {
		return func(a, b float64, round func(float64) float64) float64 { return round(activations[name].of(a)) * b }
	}
	for _, c := range []struct {
		op       string
		attrs    []piecewise.Attr
		operands int
		of       func(a, b float64, round func(float64) float64) float64
	}{
		{"adcg.mul", nil, 2, func(a, b float64, _ func(float64) float64) float64 { return a * b }},
		{"adcg.gelu_mul", nil, 2, first("gelu")},
		{"adcg.gelu_mul", []piecewise.Attr{str("approximate", "tanh")}, 2, first("gelu_tanh")},
		{"adcg.sigmoid_mul", nil, 2, func(a, b float64, round func(float64) float64) float64 {
			return a * round(activations["sigmoid"].of(b))
		}},
		{"adcg.silu", nil, 1, func(a, _ float64, _ func(float64) float64) float64 { return siluOf(a) }},
		{"adcg.relu2", nil, 1, func(a, _ float64, _ func(float64) float64) float64 { return activations["relu2"].of(a) }},
		{"adcg.sigmoid", nil, 1, func(a, _ float64, _ func(float64) float64) float64 { return activations["sigmoid"].of(a) }},
	} {
		for _, dtype := range floats {
			for _, dims := range [][]int64{{1, 1}, {3, 17}, {2, 3, 64}, {300, 133}, {5}} {
				inputs := []*array{random(rng, dtype, dims...), random(rng, dtype, dims...)}[:c.operands]
				what := fmt.Sprint(c.op, c.attrs, dtype, dims)
				y := requireEverywhere(t, what, c.op, c.attrs, inputs, 3, inputs[0])
				want := make([]float64, len(y.f))
				for i := range want {
					want[i] = c.of(float64(inputs[0].f[i]), float64(inputs[c.operands-1].f[i]), rounding(dtype))
				}
				relative := 2e-6
				if dtype == piecewise.BF16 {
					relative = 1.0 / 100
				}
				requireNear(t, want, y, 1e-12, relative, what)
				if c.op != "adcg.mul" && c.op != "adcg.sigmoid_mul" || len(dims) < 2 {
					continue
				}
				narrow := random(rng, dtype, append(append([]int64(nil), dims[:len(dims)-1]...), 1)...)
				wide := inputs[0].clone()
				for i := range wide.f {
					wide.f[i] = narrow.f[int64(i)/dims[len(dims)-1]]
				}
				got := requireEverywhere(t, what+" by row", c.op, nil, []*array{inputs[0], narrow}, 3, inputs[0])
				requireSameBits(t, run(t, c.op, nil, wide.clone(), inputs[0], wide), got, "%s, one a row", what)
			}
		}
	}
}

func TestCast(t *testing.T) {
	rng := rand.New(rand.NewPCG(47, 48))
	for _, from := range floats {
		for _, to := range floats {
			for _, dims := range [][]int64{{1}, {3, 17}, {9, 2, 2000}} {
				x := random(rng, from, dims...)
				x.f[0] = float32(math.Inf(-1))
				want := x.clone()
				for i := range want.f {
					if to == piecewise.BF16 {
						want.f[i] = roundBF16(want.f[i])
					}
				}
				got := requireEverywhere(t, fmt.Sprint(from, to, dims), "adcg.cast", []piecewise.Attr{str("dtype", to.String())}, []*array{x}, 1, filled(to, 0, dims...))
				requireSameBits(t, want, got, "%v to %v, %v", from, to, dims)
			}
		}
	}
}
