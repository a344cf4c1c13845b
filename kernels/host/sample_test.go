package host_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

func TestSoftmax(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 62))
	for _, dtype := range floats {
		for _, dims := range [][]int64{{1, 1}, {3, 17}, {2, 3, 64}, {2, 5000}, {1, 150001}} {
			x := random(rng, dtype, dims...)
			for i := range x.f {
				if x.f[i] *= 8; i%7 == 3 {
					x.f[i] = float32(math.Inf(-1))
				}
			}
			what := fmt.Sprint("softmax", dtype, dims)
			y := requireEverywhere(t, what, "adcg.softmax", nil, []*array{x}, 1, x)
			d, want, tops := dims[len(dims)-1], make([]float64, len(x.f)), []float64{}
			for at := int64(0); at < int64(len(want)); at += d {
				total := 0.0
				tops = append(tops, float64(slices.Max(x.f[at:at+d])))
				for _, v := range x.f[at : at+d] {
					total += math.Exp(float64(v))
				}
				for i := range d {
					want[at+i] = math.Exp(float64(x.f[at+i])) / total
				}
			}
			for i, w := range want {
				bound := 1e-37 + 1e-6*w
				if w > 0 { // the difference is rounded to float32 before its exp
					bound += 1e-7 * (tops[int64(i)/d] - float64(x.f[i])) * w
				}
				if dtype == piecewise.BF16 {
					bound += w / 256
				}
				require.LessOrEqual(t, math.Abs(float64(y.f[i])-w), bound, "%s: element %d: got %v, want %v", what, i, y.f[i], w)
			}
		}
	}
}

// choice is a token of a distribution: its share lies from `from` to `to`.
type choice struct {
	id       int
	from, to float64
}

// distribution gives the tokens of a row that can be drawn, by sorting and adding in float64.
func distribution(logits []float32, temperature float64, topK int, topP float64) []choice {
	order := make([]int, len(logits))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return logits[order[i]] > logits[order[j]] })
	if topK > 0 && topK < len(order) {
		order = order[:topK]
	}
	mass, total := make([]float64, len(order)), 0.0
	for i, id := range order {
		mass[i] = math.Exp((float64(logits[id]) - float64(logits[order[0]])) / temperature)
		total += mass[i]
	}
	kept, sum := 0, 0.0
	for kept < len(order) && (kept == 0 || sum < topP*total) {
		sum += mass[kept]
		kept++
	}
	var choices []choice
	at := 0.0
	for i, id := range order[:kept] {
		choices = append(choices, choice{id, at / sum, (at + mass[i]) / sum})
		at += mass[i]
	}
	return choices
}

func sampling(temperature float64, topK int, topP float64) []piecewise.Attr {
	return []piecewise.Attr{float("temperature", temperature), integer("top_k", int64(topK)), float("top_p", topP)}
}

func draw(t *testing.T, attrs []piecewise.Attr, logits, uniform *array) []int32 {
	t.Helper()
	ids := ints(make([]int32, logits.dims[0])...)
	require.NoError(t, launch("adcg.sample", 0, attrs, []*array{logits, uniform}, []*array{ids}, host.Batch{}, 0))
	return ids.i
}

// requireDraws draws from a row in the middle and beside both ends of the shares of `most` tokens, on every instruction set, and
// gives how many draws that were.
func requireDraws(t *testing.T, rng *rand.Rand, pool uintptr, row *array, temperature float64, topK int, topP float64, most int, what string) int {
	t.Helper()
	choices := distribution(row.f, temperature, topK, topP)
	if len(choices) > most { // the first and the last, and some between
		rng.Shuffle(len(choices)-2, func(i, j int) { choices[i+1], choices[j+1] = choices[j+1], choices[i+1] })
		choices = append(choices[:most-1], choices[len(choices)-1])
	}
	logits, uniform, want := &array{dtype: row.dtype}, &array{dtype: piecewise.F32}, []int32{}
	for _, c := range choices {
		const margin = 1e-6 // of the sum: float32's exp
		if c.to-c.from < 3*margin {
			continue
		}
		for _, u := range []float64{(c.from + c.to) / 2, c.from + margin, c.to - margin} {
			logits.f = append(logits.f, row.f...)
			uniform.f = append(uniform.f, float32(u))
			want = append(want, int32(c.id))
		}
	}
	rows := int64(len(want))
	if rows == 0 {
		return 0
	}
	logits.dims, uniform.dims = []int64{rows, int64(len(row.f))}, []int64{rows}
	attrs := sampling(temperature, topK, topP)
	require.Equal(t, want, draw(t, attrs, logits, uniform), "%s: %d tokens, %v", what, len(row.f), attrs)
	for _, isa := range isas(t) {
		require.NoError(t, host.SetISA(isa))
		ids := ints(make([]int32, rows)...)
		require.NoError(t, launch("adcg.sample", pool, attrs, []*array{logits, uniform}, []*array{ids}, host.Batch{}, 0))
		require.Equal(t, want, ids.i, "%s on %s: %d tokens, %v", what, isa, len(row.f), attrs)
	}
	require.NoError(t, host.SetISA(""))
	return len(want)
}

// TestSample draws from random rows with ties and -inf.
func TestSample(t *testing.T) {
	rng := rand.New(rand.NewPCG(63, 64))
	pool := host.NewPool(2)
	defer host.FreePool(pool)
	drawn := 0
	for round := range 120 {
		dtype, n := floats[round%2], 1+rng.Int64N(300)
		if round%30 == 7 {
			n = 20000
		}
		row := random(rng, dtype, 1, n)
		for i := range row.f {
			switch {
			case round%3 == 0: // many ties, of 0 and -0 too
				row.f[i] = float32(math.Round(float64(row.f[i])))
			case round%5 == 0 && i%4 == 1:
				row.f[i] = float32(math.Inf(-1))
			}
		}
		temperature, topK, topP := []float64{1, 0.5, 2}[rng.IntN(3)], 0, 1.0
		if round%4 >= 2 {
			topK = 1 + rng.IntN(int(n))
		}
		if rng.IntN(2) == 0 {
			topP = 0.05 + 0.9*rng.Float64()
		}
		drawn += requireDraws(t, rng, pool, row, temperature, topK, topP, 20, fmt.Sprint("round ", round))
	}
	require.Greater(t, drawn, 2000)
}

// TestSampleTopK draws from long rows whose largest logits lie where a selection of the top_k could lose them: all in one
// place, behind the last whole vector, with many ties at the k-th, with fewer than top_k above -inf, or everywhere the same.
func TestSampleTopK(t *testing.T) {
	rng := rand.New(rand.NewPCG(69, 70))
	pool := host.NewPool(2)
	defer host.FreePool(pool)
	inf := float32(math.Inf(1))
	kinds := map[string]func(f []float32){
		"random": func([]float32) {},
		"rising": func(f []float32) { slices.Sort(f) },
		"falling": func(f []float32) {
			slices.Sort(f)
			slices.Reverse(f)
		},
		"at the end": func(f []float32) {
			for i := max(0, len(f)-9); i < len(f); i++ {
				f[i] += 8
			}
		},
		"every 16th": func(f []float32) { // one lane of every vector
			for i := 5; i < len(f); i += 16 {
				f[i] += 8
			}
		},
		"ties": func(f []float32) { // of 0 and -0 too
			for i, v := range f {
				f[i] = float32(math.Round(float64(v)))
			}
		},
		"ties of the k-th": func(f []float32) {
			for i := range f {
				f[i] = -3
			}
			for range 7 {
				f[rng.IntN(len(f))] = -1
			}
		},
		"few above -inf": func(f []float32) {
			for i := range f {
				if i%(len(f)/11) != 3 {
					f[i] = -inf
				}
			}
		},
		"below 0 and at it": func(f []float32) {
			for i, v := range f {
				f[i] = -float32(math.Abs(float64(v)))
				if i%97 == 0 {
					f[i] = float32(math.Copysign(0, float64(v)))
				}
			}
		},
		"the same": func(f []float32) {
			for i := range f {
				f[i] = 1.5
			}
		},
	}
	drawn := 0
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		for i, n := range []int64{513, 528, 2049, 16399, 33001} {
			for j, topK := range []int{2, 16, 50, 264, 512, 513, int(n) + 1} {
				row := random(rng, floats[(i+j)%2], 1, n)
				kinds[name](row.f)
				if row.dtype == piecewise.BF16 {
					for i, v := range row.f {
						row.f[i] = roundBF16(v)
					}
				}
				drawn += requireDraws(t, rng, pool, row, 0.5, topK, []float64{1, 0.6}[rng.IntN(2)], 5, name)
			}
		}
	}
	require.Greater(t, drawn, 2000)
	row := random(rng, piecewise.F32, 1, 5000)
	best := func(want int32) {
		t.Helper()
		for _, u := range []float32{0, 0.99} {
			require.Equal(t, []int32{want}, draw(t, sampling(1, 50, 1), row, filled(piecewise.F32, u, 1)))
		}
	}
	row.f[4321] = inf
	best(4321)
	row.f[4990], row.f[4999] = float32(math.NaN()), inf
	best(4990)
}

func TestSampleLimits(t *testing.T) {
	rng := rand.New(rand.NewPCG(65, 66))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	below := math.Nextafter32(1, 0)
	for _, dtype := range floats {
		logits := random(rng, dtype, 50, 70)
		best := ints(make([]int32, 50)...)
		require.NoError(t, launch("adcg.argmax", 0, nil, []*array{logits}, []*array{best}, host.Batch{}, 0))
		for _, attrs := range [][]piecewise.Attr{sampling(1, 1, 1), sampling(0, 0, 1), sampling(1, 0, 1e-9), sampling(1e-30, 7, 0.5)} {
			for _, u := range []float32{0, 0.5, below} {
				require.Equal(t, best.i, draw(t, attrs, logits, filled(piecewise.F32, u, 50)), "%v at %v", attrs, u)
			}
		}
		require.Equal(t, best.i, draw(t, sampling(1, 0, 1), logits, filled(piecewise.F32, 0, 50)))
		// Four tokens of a quarter each, from the largest ids' end: ties by id, and uniforms that cannot be meant.
		row := filled(dtype, -inf, 10, 9)
		for i := range 10 {
			for _, id := range []int{1, 4, 5, 8} {
				row.f[i*9+id] = -3
			}
		}
		u := &array{dtype: piecewise.F32, dims: []int64{10}, f: []float32{0, 0.2499, 0.25, 0.4999, 0.5, 0.75, below, 1, nan, -1}}
		require.Equal(t, []int32{1, 1, 4, 4, 5, 8, 8, 8, 1, 1}, draw(t, sampling(1, 0, 1), row, u))
		require.Equal(t, []int32{1, 1, 1, 1, 4, 4, 4, 4, 1, 1}, draw(t, sampling(1, 2, 1), row, u))
		require.Equal(t, []int32{1, 1, 1, 1, 4, 4, 4, 4, 1, 1}, draw(t, sampling(1, 0, 0.5), row, u), "half of the probability is two tokens")
		require.Equal(t, []int32{1, 1, 1, 4, 4, 5, 5, 5, 1, 1}, draw(t, sampling(1, 0, 0.51), row, u), "a bit more is three")
		// Infinity takes all; a row of -inf alone is uniform; NaN is argmax's.
		odd := filled(dtype, -inf, 4, 4)
		copy(odd.f, []float32{1, inf, 2, inf, 1, nan, 5, 9})
		require.Equal(t, []int32{1, 1, 0, 3}, draw(t, sampling(1, 0, 1), odd, &array{dtype: piecewise.F32, dims: []int64{4}, f: []float32{0.49, 0.9, 0, 0.99}}))
		odd.f[7], odd.f[5] = inf, 0
		require.Equal(t, []int32{3, 3, 2, 2}, draw(t, sampling(1, 0, 1), odd, filled(piecewise.F32, 0.6, 4)))
	}
}

// TestSampleFrequencies draws many times from one row, and compares how often each token comes with its probability.
func TestSampleFrequencies(t *testing.T) {
	rng := rand.New(rand.NewPCG(67, 68))
	const draws, n = 20000, 12
	row := random(rng, piecewise.F32, 1, n)
	logits := filled(piecewise.F32, 0, draws, n)
	for i := range logits.f {
		logits.f[i] = row.f[i%n]
	}
	counts := make([]int, n)
	for _, id := range draw(t, sampling(0.8, 9, 0.9), logits, uniforms(rng, draws)) {
		counts[id]++
	}
	total := 0
	for _, c := range distribution(row.f, 0.8, 9, 0.9) {
		p := c.to - c.from
		require.InDelta(t, p*draws, counts[c.id], 5*math.Sqrt(draws*p*(1-p)), "token %d", c.id)
		total += counts[c.id]
	}
	require.Equal(t, draws, total, "others are never drawn")
}
