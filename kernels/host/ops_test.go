package host_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

var floats = []piecewise.DType{piecewise.F32, piecewise.BF16}

func TestLinear(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	names := isas(t)
	for _, shape := range [][3]int64{{1, 1, 1}, {7, 5, 3}, {2, 9, 15}, {13, 23, 16}, {6, 8, 33}, {25, 130, 100}, {97, 40, 192}, {3, 11, 5000}, {50, 40, 1024}, {97, 21, 1100}} {
		m, n, k := shape[0], shape[1], shape[2]
		for _, xt := range floats {
			for _, wt := range floats {
				for _, bt := range []piecewise.DType{0, piecewise.F32, piecewise.BF16} {
					x, w := random(rng, xt, m, k), random(rng, wt, n, k)
					inputs := []*array{x, w}
					if bt != 0 {
						inputs = append(inputs, random(rng, bt, n))
					}
					what := fmt.Sprintf("%v x %v %v bias %v", shape, xt, wt, bt)
					want := make([]float64, m*n)
					magnitude := 0.0
					for i := range want {
						row, column := int64(i)/n, int64(i)%n
						if bt != 0 {
							want[i] = float64(inputs[2].f[column])
						}
						for e := int64(0); e < k; e++ {
							want[i] += float64(x.f[row*k+e]) * float64(w.f[column*k+e])
						}
						magnitude = max(magnitude, math.Abs(want[i]))
					}
					y := run(t, "adcg.linear", nil, filled(xt, 0, m, n), inputs...)
					if xt == piecewise.BF16 {
						requireNear(t, want, y, 1e-5*math.Sqrt(float64(k)), 1.0/256, what)
					} else {
						requireNear(t, want, y, 1e-6*math.Sqrt(float64(k)), 1e-6, what)
					}
					for _, isa := range names {
						require.NoError(t, host.SetISA(isa))
						requireSameBits(t, y, run(t, "adcg.linear", nil, filled(xt, 0, m, n), inputs...), "isa %s, %s", isa, what)
					}
					require.NoError(t, host.SetISA(""))
					for _, rows := range []int64{1, 2, 3, 4, 5, 6, 11} { // a row's bits do not depend on how many come with it
						if rows > m {
							continue
						}
						part := append([]*array{x.rows(m-rows, m)}, inputs[1:]...)
						requireSameBits(t, y.rows(m-rows, m), run(t, "adcg.linear", nil, filled(xt, 0, rows, n), part...), "last %d rows, %s", rows, what)
					}
				}
			}
		}
	}
}

// TestLinearThreads runs products large enough for a parallel region, from several callers at once on one pool.
func TestLinearThreads(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	x, w := random(rng, piecewise.F32, 200, 256), random(rng, piecewise.BF16, 301, 256)
	want := run(t, "adcg.linear", nil, filled(piecewise.F32, 0, 200, 301), x, w)
	for _, threads := range []int32{1, 2, 3, 7} {
		pool := host.NewPool(threads)
		require.NotZero(t, pool)
		require.Equal(t, threads, host.Threads(pool))
		results, errs := make([]*array, 4), make([]error, 4)
		var group sync.WaitGroup
		for i := range results {
			group.Add(1)
			go func() {
				defer group.Done()
				for range 20 {
					results[i] = filled(piecewise.F32, 0, 200, 301)
					errs[i] = launch("adcg.linear", pool, nil, []*array{x, w}, []*array{results[i]}, host.Batch{DecodeSeqs: 200}, 0)
				}
			}()
		}
		group.Wait()
		host.FreePool(pool)
		for i := range results {
			require.NoError(t, errs[i])
			requireSameBits(t, want, results[i], "%d threads, caller %d", threads, i)
		}
	}
	require.Positive(t, func() int32 { p := host.NewPool(0); defer host.FreePool(p); return host.Threads(p) }())
	host.FreePool(0)
}

func TestRMSNormGolden(t *testing.T) {
	for _, name := range []string{"rms_norm", "rms_norm_qk"} {
		x, at := load(t, name)
		y := run(t, "adcg.rms_norm", []piecewise.Attr{float("eps", number(at["eps"], 0))}, x["x"].clone(), x["x"], x["weight"])
		requireNear(t, doubles(x["out"].f), y, 1e-6, 1e-6, name)
	}
}

func doubles(f []float32) []float64 {
	d := make([]float64, len(f))
	for i := range f {
		d[i] = float64(f[i])
	}
	return d
}

func TestRowsAndElements(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	names := isas(t)
	for _, dtype := range floats {
		for _, shape := range [][2]int64{{1, 1}, {3, 17}, {5, 64}, {2, 100}, {300, 333}} {
			a, b := random(rng, dtype, shape[0], shape[1]), random(rng, dtype, shape[0], shape[1])
			for i := range a.f { // silu over its whole range
				if i%3 == 0 {
					a.f[i] *= 20
					if dtype == piecewise.BF16 {
						a.f[i] = roundBF16(a.f[i])
					}
				}
			}
			weight := random(rng, dtype, shape[1])
			round := func(f float64) float64 {
				if dtype == piecewise.BF16 {
					return float64(roundBF16(float32(f)))
				}
				return f
			}
			sum, silu, norm := make([]float64, len(a.f)), make([]float64, len(a.f)), make([]float64, len(a.f))
			for i := range a.f {
				x := float64(a.f[i])
				sum[i] = round(x + float64(b.f[i]))
				silu[i] = round(x/(1+math.Exp(-x))) * float64(b.f[i])
				mean := 0.0
				row := int64(i) / shape[1]
				for _, f := range a.f[row*shape[1] : (row+1)*shape[1]] {
					mean += float64(f) * float64(f) / float64(shape[1])
				}
				norm[i] = round(x/math.Sqrt(mean+1e-5)) * float64(weight.f[int64(i)%shape[1]])
			}
			relative := 2e-6
			if dtype == piecewise.BF16 { // a double rounding may fall to the other side
				relative = 1.0 / 100
			}
			for _, c := range []struct {
				name    string
				attrs   []piecewise.Attr
				other   *array
				want    []float64
				inPlace []int
			}{{"adcg.add", nil, b, sum, []int{1, 2}}, {"adcg.silu_mul", nil, b, silu, []int{1, 2}}, {"adcg.rms_norm", []piecewise.Attr{float("eps", 1e-5)}, weight, norm, []int{1}}} {
				what := fmt.Sprint(c.name, dtype, shape)
				y := run(t, c.name, c.attrs, a.clone(), a, c.other)
				requireNear(t, c.want, y, 1e-30, relative, what)
				pool := host.NewPool(2)
				for _, isa := range names {
					require.NoError(t, host.SetISA(isa))
					requireSameBits(t, y, run(t, c.name, c.attrs, a.clone(), a, c.other), "%s on %s", what, isa)
					for _, input := range c.inPlace {
						got := a.clone()
						require.NoError(t, launch(c.name, pool, c.attrs, []*array{a.clone(), c.other.clone()}, []*array{got}, host.Batch{}, input))
						requireSameBits(t, y, got, "%s in place over input %d", what, input-1)
					}
				}
				host.FreePool(pool)
				require.NoError(t, host.SetISA(""))
				last := run(t, c.name, c.attrs, a.rows(shape[0]-1, shape[0]), a.rows(shape[0]-1, shape[0]), map[bool]*array{true: weight, false: b.rows(shape[0]-1, shape[0])}[c.name == "adcg.rms_norm"])
				requireSameBits(t, y.rows(shape[0]-1, shape[0]), last, "%s, last row alone", what)
			}
		}
	}
}

func TestSiluGoldenAndExtremes(t *testing.T) {
	x, _ := load(t, "silu_mul")
	requireNear(t, doubles(x["out"].f), run(t, "adcg.silu_mul", nil, x["gate"].clone(), x["gate"], x["up"]), 2e-6, 1e-6, "silu_mul")
	inf := float32(math.Inf(1))
	gate := &array{dtype: piecewise.F32, dims: []int64{1, 6}, f: []float32{0, inf, -100, -87, 1e30, float32(math.NaN())}}
	y := run(t, "adcg.silu_mul", nil, gate.clone(), gate, filled(piecewise.F32, 1, 1, 6))
	require.Equal(t, []float32{0, inf}, y.f[:2])
	require.InDelta(t, 0, y.f[2], 1e-38)
	require.InEpsilon(t, -87*math.Exp(-87), y.f[3], 1e-5)
	require.Equal(t, float32(1e30), y.f[4])
	require.NotEqual(t, y.f[5], y.f[5])
}

func TestEmbedding(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, from := range floats {
		for _, to := range floats {
			table := random(rng, from, 11, 37)
			want := filled(to, 0, 4, 37)
			for i, id := range []int32{10, 0, 3, 3} {
				for e := range 37 {
					want.f[i*37+e] = table.f[int(id)*37+e]
					if to == piecewise.BF16 {
						want.f[i*37+e] = roundBF16(want.f[i*37+e])
					}
				}
			}
			attrs := []piecewise.Attr{str("dtype", to.String())}
			requireSameBits(t, want, run(t, "adcg.embedding", attrs, filled(to, 0, 4, 37), ints(10, 0, 3, 3), table), "%v to %v", from, to)
			for _, bad := range []int32{-1, 11} {
				err := launch("adcg.embedding", 0, attrs, []*array{ints(0, bad), table}, []*array{filled(to, 0, 2, 37)}, host.Batch{}, 0)
				require.ErrorContains(t, err, fmt.Sprintf("ids[1] is %d, the table has 11 rows", bad))
			}
		}
	}
}

func TestGatherAndMetadata(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	hidden := random(rng, piecewise.F32, 8, 2, 5)
	batch := host.Batch{PrefillSeqs: 1, PrefillTokens: 4, DecodeSeqs: 2} // 6 real tokens and 3 sequences of a bucket of 8 and 4
	out := filled(piecewise.F32, 9, 4, 2, 5)
	require.NoError(t, launch("adcg.gather_tokens", 0, nil, []*array{hidden, ints(3, 4, 5, 99)}, []*array{out}, batch, 0))
	requireSameBits(t, hidden.rows(3, 6), out.rows(0, 3), "gathered")
	requireSameBits(t, filled(piecewise.F32, 9, 1, 2, 5), out.rows(3, 4), "row of no sequence")
	err := launch("adcg.gather_tokens", 0, nil, []*array{hidden, ints(3, 6, 5, 0)}, []*array{out}, batch, 0)
	require.ErrorContains(t, err, "indices[1] is 6, the step has 6 tokens")

	index, positions := ints(9, 9, 9, 9, 9, 9, 9, 9), ints(9, 9, 9, 9, 9, 9, 9, 9)
	require.NoError(t, launch("adcg.attention_metadata", 0, nil, []*array{ints(0, 4, 5, 6, 0), ints(2, 30, 0, 0)}, []*array{index, positions}, batch, 0))
	require.Equal(t, []int32{0, 0, 0, 0, 1, 2, 9, 9}, index.i)
	require.Equal(t, []int32{2, 3, 4, 5, 30, 0, 9, 9}, positions.i)
	err = launch("adcg.attention_metadata", 0, nil, []*array{ints(0, 4, 5, 7, 0), ints(2, 30, 0, 0)}, []*array{index, positions}, batch, 0)
	require.ErrorContains(t, err, "cu_seqlens[3] is 7, the step has 6 tokens")
	err = launch("adcg.attention_metadata", 0, nil, []*array{ints(0, 4, 5, 6, 0), ints(math.MaxInt32-2, 0, 0, 0)}, []*array{index, positions}, batch, 0)
	require.ErrorContains(t, err, "input_pos[0] is 2147483645")
}

func TestArgmax(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, isa := range isas(t) {
		require.NoError(t, host.SetISA(isa))
		for _, dtype := range floats {
			for _, n := range []int{1, 5, 16, 17, 40} {
				for at := range n {
					for _, c := range []struct{ background, value, second float32 }{{0, 1, 1}, {-3, nan, nan}, {inf, nan, inf}, {-inf, -2, -inf}, {1, 2, 1}} {
						x := filled(dtype, c.background, 1, int64(n))
						x.f[n-1] = c.second
						x.f[at] = c.value
						y := ints(-1)
						require.NoError(t, launch("adcg.argmax", 0, nil, []*array{x}, []*array{y}, host.Batch{}, 0))
						require.Equal(t, int32(at), y.i[0], "%s %v n=%d %+v", isa, dtype, n, c)
					}
				}
			}
		}
		y := ints(-1, -1)
		require.NoError(t, launch("adcg.argmax", 0, nil, []*array{filled(piecewise.F32, -inf, 2, 20)}, []*array{y}, host.Batch{}, 0))
		require.Equal(t, []int32{0, 0}, y.i)
	}
	require.NoError(t, host.SetISA(""))
}

func TestFind(t *testing.T) {
	launch, _, _, ok := host.Find("adcg.reshape")
	require.True(t, ok)
	require.Zero(t, launch)
	launch, _, prepare, ok := host.Find("adcg.rope")
	require.True(t, ok)
	require.NotZero(t, launch)
	require.NotZero(t, prepare)
	_, _, _, ok = host.Find("adcg.ropes")
	require.False(t, ok)
	require.Error(t, host.SetISA("sse2"))
}
