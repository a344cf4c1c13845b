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

// routing is moe_router's attributes, as a test sees them.
type routing struct {
	sigmoid          bool
	k, groups, top   int64
	norm             bool
	factor           float64
	logits, bias     *array
	weights, indices *array
}

func indexRows(rows, k int64) *array {
	return &array{dtype: piecewise.I32, dims: []int64{rows, k}, i: make([]int32, rows*k)}
}

// launch routes on the device, into weights and indices.
func (r *routing) launch(t *testing.T, pool uintptr) {
	t.Helper()
	rows := r.logits.dims[0]
	r.weights, r.indices = filled(piecewise.F32, -1, rows, r.k), indexRows(rows, r.k)
	inputs := []*array{r.logits}
	if r.bias != nil {
		inputs = append(inputs, r.bias)
	}
	scoring := map[bool]string{false: "softmax", true: "sigmoid"}[r.sigmoid]
	attrs := []piecewise.Attr{str("scoring", scoring), integer("top_k", r.k), integer("n_group", r.groups), integer("topk_group", r.top),
		boolean("norm_topk_prob", r.norm), float("routed_scaling_factor", r.factor)}
	require.NoError(t, launch("adcg.moe_router", pool, attrs, inputs, []*array{r.weights, r.indices}, host.Batch{DecodeSeqs: rows}, 0))
}

// route is the router in float64, one row: full sorts where the kernel selects. It gives the experts with their weights,
// ascending, and by how much the last choice was ahead of the first rejected one.
func (r *routing) route(row int64) (experts []int, weights []float64, margin float64) {
	n := int(r.logits.dims[1])
	score := make([]float64, n)
	sum, margin := 0.0, math.Inf(1)
	for e := range score {
		x := float64(r.logits.f[int(row)*n+e])
		if r.sigmoid {
			score[e] = 1 / (1 + math.Exp(-x))
		} else {
			score[e] = math.Exp(x)
			sum += score[e]
		}
	}
	biased := make([]float64, n)
	for e := range score {
		if !r.sigmoid {
			score[e] /= sum
		}
		biased[e] = score[e]
		if r.bias != nil {
			biased[e] += float64(r.bias.f[e])
		}
	}
	best := func(of []float64, k int) []int { // ids by falling score, then by id
		ids := make([]int, len(of))
		for i := range ids {
			ids[i] = i
		}
		slices.SortStableFunc(ids, func(a, b int) int {
			switch {
			case of[a] > of[b]:
				return -1
			case of[a] < of[b]:
				return 1
			}
			return 0
		})
		if k < len(of) {
			margin = min(margin, of[ids[k-1]]-of[ids[k]])
		}
		return ids[:k]
	}
	size := n / int(r.groups)
	if r.top < r.groups {
		group := make([]float64, r.groups)
		for g := range group {
			part := slices.Clone(biased[g*size : (g+1)*size])
			slices.Sort(part)
			group[g] = part[size-1] + part[size-2]
		}
		accepted := best(group, int(r.top))
		for e := range biased {
			if !slices.Contains(accepted, e/size) {
				biased[e] = math.Inf(-1)
			}
		}
	}
	experts = slices.Clone(best(biased, int(r.k)))
	slices.Sort(experts)
	total := 1e-20
	for _, e := range experts {
		total += score[e]
	}
	for _, e := range experts {
		w := score[e]
		if r.norm {
			w /= total
		}
		weights = append(weights, w*r.factor)
	}
	return experts, weights, margin
}

func TestMoeRouterGolden(t *testing.T) {
	for _, name := range []string{"sigmoid_deepseek_v3", "sigmoid_groups", "sigmoid_one_group", "sigmoid_unnormalised", "softmax", "softmax_unnormalised"} {
		x, at := load(t, "moe_router_"+name)
		r := routingOf(x["logits"], x["correction_bias"], at)
		r.launch(t, 0)
		require.Equal(t, x["indices"].i, r.indices.i, name)
		requireNear(t, doubles(x["weights"].f), r.weights, 1e-6, 1e-6, name)
	}
}

// routingOf reads a golden case's attributes.
func routingOf(logits, bias *array, at map[string]any) *routing {
	norm, _ := at["norm_topk_prob"].(bool)
	return &routing{sigmoid: at["scoring"] == "sigmoid", k: int64(number(at["top_k"], 0)), groups: int64(number(at["n_group"], 1)),
		top: int64(number(at["topk_group"], 1)), norm: norm, factor: number(at["routed_scaling_factor"], 1), logits: logits, bias: bias}
}

func TestMoeRouter(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	names := isas(t)
	pool := host.NewPool(2)
	defer host.FreePool(pool)
	for range 150 {
		r := &routing{sigmoid: rng.IntN(2) == 0, norm: rng.IntN(2) == 0, factor: 0.5 + 2*rng.Float64(), groups: 1, top: 1}
		size := 1 + rng.Int64N(64)
		if r.sigmoid && rng.IntN(2) == 0 {
			r.groups, size = 1+rng.Int64N(6), 2+rng.Int64N(10)
			r.top = 1 + rng.Int64N(r.groups)
		}
		experts, rows := r.groups*size, []int64{1, 3, 40, 700}[rng.IntN(4)]
		r.k = 1 + rng.Int64N(min(8, size*r.top))
		dtype := floats[rng.IntN(2)]
		r.logits = random(rng, dtype, rows, experts)
		if rng.IntN(3) > 0 {
			r.bias = random(rng, floats[rng.IntN(2)], experts)
		}
		what := fmt.Sprintf("%v, %d rows of %d experts, k %d, groups %d of %d, sigmoid %v, bias %v", dtype, rows, experts, r.k, r.top, r.groups, r.sigmoid, r.bias != nil)
		r.launch(t, 0)
		compared := 0
		for row := range rows {
			want, weights, margin := r.route(row)
			if margin < 1e-6 { // nearer than the scores are exact
				continue
			}
			compared++
			for i, e := range want {
				at := row*r.k + int64(i)
				require.Equal(t, int32(e), r.indices.i[at], "row %d, %s", row, what)
				require.InEpsilon(t, weights[i], r.weights.f[at], 3e-6, "row %d, expert %d, %s", row, e, what)
			}
		}
		require.GreaterOrEqual(t, 10*compared, 9*int(rows)-10, what)
		for _, isa := range names {
			require.NoError(t, host.SetISA(isa))
			other := *r
			other.launch(t, pool)
			require.Equal(t, r.indices.i, other.indices.i, "%s, %s", isa, what)
			requireSameBits(t, r.weights, other.weights, "%s, %s", isa, what)
		}
		require.NoError(t, host.SetISA(""))
		last := *r
		last.logits = r.logits.rows(rows-1, rows)
		last.launch(t, 0)
		requireSameBits(t, r.weights.rows(rows-1, rows), last.weights, "last row alone, %s", what)
	}
}

// TestMoeRouterTiesAndExtremes has rows whose answer is known by hand.
func TestMoeRouterTiesAndExtremes(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	row := func(f ...float32) *array { return &array{dtype: piecewise.F32, dims: []int64{1, int64(len(f))}, f: f} }
	flat := func(f ...float32) *array { return &array{dtype: piecewise.F32, dims: []int64{int64(len(f))}, f: f} }
	for _, c := range []struct {
		what    string
		r       routing
		experts []int32
		weights []float32 // nil: NaN, or anything
	}{
		{"all equal: the lowest ids", routing{k: 2, logits: row(1, 1, 1, 1)}, []int32{0, 1}, []float32{0.25, 0.25}},
		{"ascending by id, not by score", routing{k: 2, norm: true, logits: row(-inf, 3, -inf, 3, -inf)}, []int32{1, 3}, []float32{0.5, 0.5}},
		{"a tie at the edge", routing{k: 2, logits: row(0, 5, 0, 0), norm: true}, []int32{0, 1}, nil},
		{"-inf is no expert's absence", routing{sigmoid: true, k: 3, logits: row(-inf, -inf, -inf, 0)}, []int32{0, 1, 3}, []float32{0, 0, 0.5}},
		{"all zero weights are not divided by zero", routing{sigmoid: true, norm: true, k: 2, logits: row(-inf, -inf, -inf)}, []int32{0, 1}, []float32{0, 0}},
		{"equal groups: the first", routing{sigmoid: true, k: 2, groups: 3, top: 1, logits: row(0, 0, 0, 0, 0, 0)}, []int32{0, 1}, []float32{0.5, 0.5}},
		{"sums of two, not the largest: 0.9 + 0 against 0.5 + 0.5", routing{sigmoid: true, k: 1, groups: 2, top: 1, logits: row(2.2, -inf, 0, 0)}, []int32{2}, []float32{0.5}},
		{"a bias of -inf inside an accepted group still goes before a rejected one",
			routing{sigmoid: true, k: 2, groups: 2, top: 1, logits: row(0, 0, 9, 9), bias: flat(5, 5, -inf, 0)}, []int32{0, 1}, []float32{0.5, 0.5}},
		{"the bias chooses and does not weigh", routing{sigmoid: true, k: 1, logits: row(0, 9), bias: flat(3, -3)}, []int32{0}, []float32{0.5}},
		{"NaN is chosen, as the largest", routing{sigmoid: true, k: 1, logits: row(9, nan, 9, nan)}, []int32{1}, nil},
		{"NaN everywhere", routing{k: 3, logits: row(nan, nan, nan, nan)}, []int32{0, 1, 2}, nil},
		{"NaN groups", routing{sigmoid: true, k: 3, groups: 3, top: 2, logits: row(nan, nan, nan, nan, nan, nan)}, []int32{0, 1, 2}, nil},
		{"one infinity makes softmax NaN", routing{k: 2, logits: row(inf, 0, 1)}, []int32{0, 1}, nil},
	} {
		c.r.groups, c.r.top, c.r.factor = max(c.r.groups, 1), max(c.r.top, 1), 1
		for _, isa := range isas(t) {
			require.NoError(t, host.SetISA(isa))
			c.r.launch(t, 0)
			require.Equal(t, c.experts, c.r.indices.i, "%s: %s", isa, c.what)
			if c.weights != nil {
				require.Equal(t, c.weights, c.r.weights.f, "%s: %s", isa, c.what)
			}
		}
	}
}

// experts is a mixture's weights, as a test sees them.
type experts struct {
	activation string
	gated      bool
	up, down   *array
}

func (m *experts) attrs() []piecewise.Attr {
	return []piecewise.Attr{str("activation", m.activation), boolean("gated", m.gated)}
}

func (m *experts) launch(t *testing.T, pool uintptr, x, weights, indices *array) *array {
	t.Helper()
	y := filled(x.dtype, 7, x.dims...)
	require.NoError(t, launch("adcg.moe", pool, m.attrs(), []*array{x, weights, indices, m.up, m.down}, []*array{y}, host.Batch{DecodeSeqs: x.dims[0]}, 0))
	return y
}

// apply is the mixture in float64, one row and one expert at a time. In bf16 the activations are rounded, as they are stored.
func (m *experts) apply(x, weights, indices *array, row int64) []float64 {
	h, inner, k := x.dims[1], m.down.dims[2], indices.dims[1]
	dot := func(w []float32, with []float64) float64 {
		sum := 0.0
		for i, f := range w {
			sum += float64(f) * with[i]
		}
		return sum
	}
	in, out := doubles(x.f[row*h:(row+1)*h]), make([]float64, h)
	for j := range k {
		e, weight := int64(indices.i[row*k+j]), float64(weights.f[row*k+j])
		up := m.up.f[e*m.up.row():]
		act := make([]float64, inner)
		for i := range inner {
			v := dot(up[i*h:(i+1)*h], in)
			switch m.activation {
			case "silu":
				v /= 1 + math.Exp(-v)
			case "relu2":
				v = max(v, 0) * max(v, 0)
			case "gelu_tanh":
				v *= 0.5 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
			}
			if m.gated {
				v *= dot(up[(inner+i)*h:(inner+i+1)*h], in)
			}
			if x.dtype == piecewise.BF16 {
				v = float64(roundBF16(float32(v)))
			}
			act[i] = v
		}
		down := m.down.f[e*m.down.row():]
		for n := range h {
			out[n] += weight * dot(down[n*inner:(n+1)*inner], act)
		}
	}
	return out
}

// scaled gives normal numbers with the variance of 1/k, rounded to the element type.
func scaled(rng *rand.Rand, dtype piecewise.DType, dims ...int64) *array {
	a := random(rng, piecewise.F32, dims...)
	a.dtype = dtype
	for i := range a.f {
		a.f[i] /= float32(math.Sqrt(float64(dims[len(dims)-1])))
		if dtype == piecewise.BF16 {
			a.f[i] = roundBF16(a.f[i])
		}
	}
	return a
}

func TestMoeGolden(t *testing.T) {
	for _, name := range []string{"softmax_qwen3_5", "sigmoid_groups_glm4_moe_lite", "sigmoid_relu2_nemotron_h"} {
		x, at := load(t, "moe_"+name)
		in := x["x"]
		linear := func(x, w *array) *array {
			return run(t, "adcg.linear", nil, filled(piecewise.F32, 0, x.dims[0], w.dims[0]), x, w)
		}
		logits := linear(in, x["router_weight"])
		requireNear(t, doubles(x["router_logits"].f), logits, 2e-6, 2e-6, name)
		r := routingOf(logits, x["correction_bias"], at)
		r.launch(t, 0)
		require.Equal(t, x["router_indices"].i, r.indices.i, name)
		requireNear(t, doubles(x["router_weights"].f), r.weights, 1e-6, 2e-6, name)
		gated := at["gated"] == true
		m := &experts{activation: at["activation"].(string), gated: gated, up: x[map[bool]string{true: "gate_up", false: "up"}[gated]], down: x["down"]}
		y := m.launch(t, 0, in, r.weights, r.indices)

		shared := linear(in, x["shared_up"])
		for i := range shared.f {
			if !gated {
				shared.f[i] = max(shared.f[i], 0) * max(shared.f[i], 0)
			}
		}
		if gated {
			shared = run(t, "adcg.silu_mul", nil, shared.clone(), linear(in, x["shared_gate"]), shared)
		}
		shared = linear(shared, x["shared_down"])
		if gate := x["shared_expert_gate"]; gate != nil {
			open := linear(in, gate)
			for i := range shared.f {
				shared.f[i] *= float32(1 / (1 + math.Exp(-float64(open.f[int64(i)/shared.dims[1]]))))
			}
		}
		y = run(t, "adcg.add", nil, y.clone(), y, shared)
		largest := 0.0
		for _, f := range x["out"].f {
			largest = max(largest, math.Abs(float64(f)))
		}
		requireNear(t, doubles(x["out"].f), y, 2e-6*largest, 2e-6, name)
	}
}

func TestMoe(t *testing.T) {
	rng := rand.New(rand.NewPCG(33, 34))
	names := isas(t)
	pool := host.NewPool(2)
	defer host.FreePool(pool)
	for round := range 60 {
		dtype, upType, downType := floats[rng.IntN(2)], floats[rng.IntN(2)], floats[rng.IntN(2)]
		m := &experts{activation: []string{"silu", "gelu_tanh", "relu2"}[round%3], gated: rng.IntN(3) > 0}
		n, rows := 1+rng.Int64N(64), []int64{1, 2, 7, 60, 250}[rng.IntN(5)]
		k := 1 + rng.Int64N(min(n, 8))
		h, inner := []int64{1, 24, 100, 130, 700}[rng.IntN(5)], []int64{1, 16, 33, 70}[rng.IntN(4)]
		upRows := inner
		if m.gated {
			upRows *= 2
		}
		m.up, m.down = scaled(rng, upType, n, upRows, h), scaled(rng, downType, n, h, inner)
		x, weights, indices := random(rng, dtype, rows, h), random(rng, piecewise.F32, rows, k), indexRows(rows, k)
		one := rng.IntN(4) == 0 // all rows to the same experts: the others are empty
		same := rng.Perm(int(n))
		for row := range rows {
			chosen := rng.Perm(int(n))
			if one {
				chosen = same
			}
			for j := range k {
				indices.i[row*k+j] = int32(chosen[j])
			}
			slices.Sort(indices.i[row*k : (row+1)*k])
		}
		what := fmt.Sprintf("%v x, %v up, %v down, %s gated %v, %d rows, %d of %d experts, h %d, I %d, one %v",
			dtype, upType, downType, m.activation, m.gated, rows, k, n, h, inner, one)
		y := m.launch(t, 0, x, weights, indices)
		for row := range rows {
			want := m.apply(x, weights, indices, row)
			if dtype == piecewise.BF16 { // an activation may be rounded to the other side
				requireNear(t, want, y.rows(row, row+1), 0.02, 1.0/128, "row %d, %s", row, what)
			} else {
				requireNear(t, want, y.rows(row, row+1), 2e-5, 1e-5, "row %d, %s", row, what)
			}
		}
		for _, isa := range names {
			require.NoError(t, host.SetISA(isa))
			requireSameBits(t, y, m.launch(t, pool, x, weights, indices), "%s, %s", isa, what)
		}
		require.NoError(t, host.SetISA(""))

		// A row by itself, and in place: the same bits.
		row := rng.Int64N(rows)
		part := func(from int64, to int64) *array {
			return &array{dtype: piecewise.I32, dims: []int64{to - from, k}, i: slices.Clone(indices.i[from*k : to*k])}
		}
		alone := m.launch(t, 0, x.rows(row, row+1), weights.rows(row, row+1), part(row, row+1))
		requireSameBits(t, y.rows(row, row+1), alone, "row %d alone, %s", row, what)
		place := x.clone()
		require.NoError(t, launch("adcg.moe", pool, m.attrs(), []*array{x.clone(), weights, indices, m.up, m.down}, []*array{place}, host.Batch{}, 1))
		requireSameBits(t, y, place, "in place, %s", what)

		// NaN in one row stays there.
		if rows > 1 {
			poisoned := x.clone()
			for i := range h {
				poisoned.f[row*h+i] = float32(math.NaN())
			}
			z := m.launch(t, 0, poisoned, weights, indices)
			for _, f := range z.rows(row, row+1).f {
				require.True(t, f != f, what)
			}
			requireSameBits(t, y.rows(0, row), z.rows(0, row), "before NaN, %s", what)
			requireSameBits(t, y.rows(row+1, rows), z.rows(row+1, rows), "behind NaN, %s", what)
		}
	}
}

// TestMoeOrder: the order in which a row names its experts changes no bit, and an expert may stand twice.
func TestMoeOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(35, 36))
	m := &experts{activation: "silu", gated: true, up: scaled(rng, piecewise.F32, 5, 32, 24), down: scaled(rng, piecewise.F32, 5, 24, 16)}
	x := random(rng, piecewise.F32, 1, 24)
	named := func(e ...int32) *array { return &array{dtype: piecewise.I32, dims: []int64{1, 3}, i: e} }
	weighed := func(w ...float32) *array { return &array{dtype: piecewise.F32, dims: []int64{1, 3}, f: w} }
	y := m.launch(t, 0, x, weighed(0.5, -2, 1), named(0, 2, 4))
	requireSameBits(t, y, m.launch(t, 0, x, weighed(1, 0.5, -2), named(4, 0, 2)), "another order")
	twice := m.launch(t, 0, x, weighed(0.5, -2, 1), named(3, 1, 3))
	requireNear(t, m.apply(x, weighed(0.5, -2, 1), named(3, 1, 3), 0), twice, 2e-5, 1e-5, "twice")
}

func TestMoeIndices(t *testing.T) {
	rng := rand.New(rand.NewPCG(37, 38))
	m := &experts{activation: "relu2", up: scaled(rng, piecewise.F32, 5, 16, 24), down: scaled(rng, piecewise.F32, 5, 24, 16)}
	for _, bad := range []int32{-1, 5, math.MaxInt32, math.MinInt32} {
		indices := &array{dtype: piecewise.I32, dims: []int64{2, 2}, i: []int32{0, 4, 1, bad}}
		err := launch("adcg.moe", 0, m.attrs(), []*array{random(rng, piecewise.F32, 2, 24), random(rng, piecewise.F32, 2, 2), indices, m.up, m.down},
			[]*array{filled(piecewise.F32, 0, 2, 24)}, host.Batch{}, 0)
		require.ErrorContains(t, err, fmt.Sprintf("indices[1][1] is %d, there are 5 experts", bad))
	}
}
