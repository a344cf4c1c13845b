package piecewise

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func randomCounts(r *rand.Rand, sizes int, most, steps int64) []StepCount {
	counts := make([]StepCount, 1+r.IntN(sizes))
	for i := range counts {
		counts[i] = StepCount{1 + r.Int64N(most), 1 + r.Int64N(steps)}
	}
	return counts
}

func randomPrice(r *rand.Rand) Price {
	return Price{r.Int64N(9), r.Int64N(4), 1 + r.Int64N(90)}
}

func randomBudget(r *rand.Rand) LadderBudget {
	var b LadderBudget
	if r.IntN(2) == 0 {
		b.MaxBuckets = 1 + r.Int64N(5)
	}
	if r.IntN(3) == 0 {
		b.MaxTokens = 1 + r.Int64N(12)
	}
	if r.IntN(2) == 0 {
		b.Bytes = randomPrice(r)
	}
	if r.IntN(3) == 0 {
		b.Nanos = randomPrice(r)
	}
	b.AllowEager = r.IntN(2) == 0
	return b
}

func TestLadderIsTheBestOfAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const rounds = 4000
	chosen, refused := 0, 0
	for range rounds {
		const most = 10
		counts, b := randomCounts(r, 12, most, 1+r.Int64N(6)), randomBudget(r)
		want := bruteLadder(counts, b, most)
		got, err := Ladder(counts, b)
		if want == nil {
			require.Error(t, err, "%v %+v: %v", counts, b, got)
			refused++
			continue
		}
		require.NoError(t, err, "%v %+v", counts, b)
		require.Equal(t, want, got, "%v %+v", counts, b)
		chosen++
	}
	assert.Greater(t, chosen, rounds/2)
	assert.Greater(t, refused, rounds/50)
}

func TestLadderAgreesWithThePlainProgramme(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		counts := randomCounts(r, 300, 5000, 100000)
		h, err := newHistogram(counts)
		require.NoError(t, err)
		for _, k := range []int{1, 2, 3, 7, 20, 64} {
			got, err := Ladder(counts, LadderBudget{MaxBuckets: int64(k)})
			require.NoError(t, err)
			padded, _ := padding(counts, got)
			require.Equal(t, plainLadder(h, k), padded+h.tokens[len(h.size)])
		}
	}
}

func TestPricedLadderAgreesWithATable(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		counts := randomCounts(r, 40, 200, 1<<(1+r.Int64N(20)))
		h, err := newHistogram(counts)
		require.NoError(t, err)
		b := LadderBudget{MaxBuckets: 1 + r.Int64N(9)}
		b.Bytes = Price{r.Int64N(300), 1 + r.Int64N(5), 0}
		b.Bytes.Limit = b.Bytes.PerBucket + b.Bytes.PerToken*h.largest()
		b.Bytes.Limit += r.Int64N(b.Bytes.Limit * 3)
		b.Nanos = Price{r.Int64N(10), r.Int64N(3), 1000 + r.Int64N(3000)}
		want, ok := priced(h, b)
		require.True(t, ok)
		got, err := Ladder(counts, b)
		require.NoError(t, err)
		padded, eager := padding(counts, got)
		require.True(t, withinBudget(got, b))
		require.Zero(t, eager)
		require.Equal(t, want, padded, "%v %+v", counts, b)
	}
}

// denseCounts is a histogram of n sizes: decode batches in front, and a long tail of prefill.
func denseCounts(n int) []StepCount {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	counts := make([]StepCount, n)
	for i := range counts {
		x := float64(i+1) / float64(n)
		counts[i] = StepCount{int64(i + 1), 1 + int64(5000*math.Exp(-40*x)) + int64(60*math.Exp(-8*(x-0.5)*(x-0.5))) + r.Int64N(20)}
	}
	return counts
}

func TestMoreBudgetNeverPadsMore(t *testing.T) {
	counts := denseCounts(700)
	last := int64(math.MaxInt64)
	for n := int64(1); n < 40; n++ {
		ladder, err := Ladder(counts, LadderBudget{MaxBuckets: n})
		require.NoError(t, err)
		require.Len(t, ladder, int(n))
		cost, err := CostOfLadder(counts, ladder, LadderBudget{})
		require.NoError(t, err)
		require.Less(t, cost.PaddedTokens, last)
		last = cost.PaddedTokens
	}
	last = math.MaxInt64
	for limit := int64(1000); limit < 12000; limit += 500 {
		b := LadderBudget{Bytes: Price{130, 1, limit}}
		ladder, err := Ladder(counts, b)
		require.NoError(t, err)
		cost, err := CostOfLadder(counts, ladder, b)
		require.NoError(t, err)
		require.LessOrEqual(t, cost.PaddedTokens, last)
		require.LessOrEqual(t, cost.Bytes, limit)
		last = cost.PaddedTokens
		counted, err := Ladder(counts, LadderBudget{MaxBuckets: int64(len(ladder))})
		require.NoError(t, err)
		free, _ := padding(counts, counted)
		require.GreaterOrEqual(t, cost.PaddedTokens, free, "a count alone binds less")
	}
}

func TestLadderDoesNotDependOnOrderOrScale(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for range 200 {
		counts := randomCounts(r, 60, 400, 1000)
		b := LadderBudget{MaxBuckets: 1 + r.Int64N(8), Bytes: Price{50, 1, 500 + r.Int64N(2000)}, AllowEager: true}
		want, err := Ladder(counts, b)
		require.NoError(t, err)
		scaled := slices.Clone(counts)
		r.Shuffle(len(scaled), func(i, j int) { scaled[i], scaled[j] = scaled[j], scaled[i] })
		for i := range scaled {
			scaled[i].Steps *= 3
		}
		scaled = append(scaled, StepCount{scaled[0].Tokens, 3}) // in two entries
		scaled[0].Steps -= 3
		if scaled[0].Steps == 0 {
			scaled = scaled[1:]
		}
		got, err := Ladder(scaled, b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestLadderTies(t *testing.T) {
	even := []StepCount{{1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}} // {2, 5} and {3, 5} pad 4 tokens each
	got, err := Ladder(even, LadderBudget{MaxBuckets: 2})
	require.NoError(t, err)
	assert.Equal(t, []int64{2, 5}, got)
	// buckets of 8 tokens together: {1, 2, 5} pads 3, {3, 5} and {2, 5} pad 4
	got, err = Ladder(even, LadderBudget{Bytes: Price{0, 1, 8}})
	require.NoError(t, err)
	assert.Equal(t, []int64{1, 2, 5}, got)
	// {9, 20} pads one step by 10 tokens, {10, 20} ten steps by one
	got, err = Ladder([]StepCount{{9, 10}, {10, 1}, {20, 1}}, LadderBudget{MaxBuckets: 2})
	require.NoError(t, err)
	assert.Equal(t, []int64{9, 20}, got)
}

func TestLadderAndTheLargestSteps(t *testing.T) {
	counts := []StepCount{{100, 1}, {8, 50}, {7, 50}, {200, 2}}
	got, err := Ladder(counts, LadderBudget{MaxTokens: 150, MaxBuckets: 2})
	require.NoError(t, err)
	assert.Equal(t, []int64{8, 100}, got)
	_, err = Ladder(counts, LadderBudget{MaxTokens: 6})
	requireKind(t, err, ErrArgument, "budget.max_tokens: 6, the smallest step has 7")
	b := LadderBudget{Nanos: Price{10, 2, 220}}
	_, err = Ladder(counts, b)
	requireKind(t, err, ErrArgument, "budget.max_ns: 220, one bucket of 200 tokens costs more (10 and 2 a token)")
	b.AllowEager = true
	got, err = Ladder(counts, b)
	require.NoError(t, err)
	assert.Equal(t, []int64{100}, got, "two steps of 200 run eagerly; one of 8 or 7 would leave three")
	b.Nanos.Limit = 23
	_, err = Ladder(counts, b)
	requireKind(t, err, ErrArgument, "budget.max_ns: 23, one bucket of 7 tokens costs more (10 and 2 a token)")
	got, err = Ladder(counts, LadderBudget{})
	require.NoError(t, err)
	assert.Equal(t, []int64{7, 8, 100, 200}, got)
}

func TestCostOfLadder(t *testing.T) {
	counts := []StepCount{{9, 2}, {3, 4}, {20, 1}, {9, 1}}
	cost, err := CostOfLadder(counts, []int64{2, 4, 16}, LadderBudget{MaxBuckets: 1, Bytes: Price{100, 3, 7}, Nanos: Price{5, 0, 0}})
	require.NoError(t, err)
	assert.Equal(t, LadderCost{
		Steps: 8, RealTokens: 59, PaddedTokens: 4 + 21, EagerSteps: 1, EagerTokens: 20, Bytes: 300 + 66, Nanos: 15,
		Buckets: []BucketCost{{2, 0, 0, 0, 106, 5}, {4, 4, 12, 4, 112, 5}, {16, 3, 27, 21, 148, 5}},
	}, cost)
	cost, err = CostOfLadder(counts, nil, LadderBudget{})
	require.NoError(t, err)
	assert.Equal(t, LadderCost{Steps: 8, RealTokens: 59, EagerSteps: 8, EagerTokens: 59}, cost)

	r := rand.New(rand.NewPCG(10, 11))
	for range 300 {
		counts := randomCounts(r, 30, 100, 50)
		var buckets []int64
		for range r.IntN(9) {
			buckets = append(buckets, 1+r.Int64N(110))
		}
		slices.Sort(buckets)
		buckets = slices.Compact(buckets)
		cost, err := CostOfLadder(counts, buckets, LadderBudget{})
		require.NoError(t, err)
		padded, eager := padding(counts, buckets)
		require.Equal(t, []int64{padded, eager}, []int64{cost.PaddedTokens, cost.EagerSteps})
	}
}

func TestLadderErrors(t *testing.T) {
	good := []StepCount{{1, 1}, {8, 2}}
	for _, e := range []struct {
		counts  []StepCount
		budget  LadderBudget
		message string
	}{
		{nil, LadderBudget{}, "histogram: empty"},
		{[]StepCount{{1, 1}, {0, 1}}, LadderBudget{}, "histogram[1]: tokens: 0, must be 1 to 2147483647"},
		{[]StepCount{{1 << 31, 1}}, LadderBudget{}, "histogram[0]: tokens: 2147483648, must be 1 to 2147483647"},
		{[]StepCount{{1, 0}}, LadderBudget{}, "histogram[0]: steps: 0, must be at least 1"},
		{[]StepCount{{1, math.MinInt64}}, LadderBudget{}, "histogram[0]: steps: -9223372036854775808, must be at least 1"},
		{[]StepCount{{1, math.MaxInt64}, {1, math.MaxInt64}}, LadderBudget{}, "histogram: steps times the largest size, 1 tokens, are more than 1152921504606846976"},
		{[]StepCount{{1, 1 << 40}, {1 << 25, 1}}, LadderBudget{}, "histogram: steps times the largest size, 33554432 tokens, are more than 1152921504606846976"},
		{good, LadderBudget{MaxBuckets: -1}, "budget.max_buckets: -1 is negative"},
		{good, LadderBudget{MaxTokens: -7}, "budget.max_tokens: -7 is negative"},
		{good, LadderBudget{Bytes: Price{PerToken: -2}}, "budget.bytes_per_token: -2 is negative"},
		{good, LadderBudget{Nanos: Price{Limit: math.MinInt64}}, "budget.max_ns: -9223372036854775808 is negative"},
		{good, LadderBudget{Bytes: Price{math.MaxInt64, math.MaxInt64, 1}}, "budget.max_bytes: 1, one bucket of 8 tokens costs more (9223372036854775807 and 9223372036854775807 a token)"},
	} {
		_, err := Ladder(e.counts, e.budget)
		requireKind(t, err, ErrArgument, e.message)
	}
	for _, e := range []struct {
		buckets []int64
		budget  LadderBudget
		message string
	}{
		{[]int64{0}, LadderBudget{}, "buckets[0]: 0, must be 1 to 2147483647"},
		{[]int64{4, 4}, LadderBudget{}, "buckets[1]: 4, not above the one before, 4"},
		{[]int64{4, 3}, LadderBudget{}, "buckets[1]: 3, not above the one before, 4"},
		{[]int64{4, 8}, LadderBudget{Bytes: Price{PerBucket: math.MaxInt64}}, "buckets[1]: 8 tokens: padding, bytes or time up to it exceed 63 bits"},
		{[]int64{4}, LadderBudget{Nanos: Price{PerToken: 1 << 62}}, "buckets[0]: 4 tokens: padding, bytes or time up to it exceed 63 bits"},
	} {
		_, err := CostOfLadder(good, e.buckets, e.budget)
		requireKind(t, err, ErrArgument, e.message)
	}
	_, err := CostOfLadder([]StepCount{{1, 1 << 60}}, []int64{math.MaxInt32}, LadderBudget{})
	requireKind(t, err, ErrArgument, "buckets[0]: 2147483647 tokens: padding, bytes or time up to it exceed 63 bits")
	many := make([]StepCount, 10000)
	for i := range many {
		many[i] = StepCount{int64(i + 1), 1}
	}
	_, err = Ladder(many, LadderBudget{MaxBuckets: 5000})
	requireKind(t, err, ErrArgument, "budget: 5000 buckets of 10000 distinct sizes, their product must not exceed 33554432")
}

// The search between the bounds ends with an error where it would go on for too long.
func TestLadderGivesUp(t *testing.T) {
	h, err := newHistogram(denseCounts(300))
	require.NoError(t, err)
	b := LadderBudget{Bytes: Price{10, 1, 2000}}
	want, err := Ladder(denseCounts(300), b)
	require.NoError(t, err)
	most := b.mostBuckets(h)
	for _, limit := range []func(p *pricer){func(p *pricer) {}, func(p *pricer) { p.maxLabels = 5 }, func(p *pricer) { p.looks = 20 }} {
		p := newPricer(h, b, most)
		limit(p)
		got, err := p.choose()
		if p.maxLabels == maxLabels && p.looks > 0 {
			require.NoError(t, err)
			require.Equal(t, want, got)
			continue
		}
		requireKind(t, err, ErrArgument, "budget: too many ladders are nearly the best one to tell which is; lower max_buckets or merge sizes of the histogram")
	}
}

// As large as the numbers may be: nothing wraps, and the answers are those of the same problem made small.
func TestLadderOfLargeCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 13))
	for range 100 {
		small := randomCounts(r, 12, 40, 5)
		large := slices.Clone(small)
		for i := range large {
			large[i].Steps *= 1 << 47
			large[i].Tokens *= 2
		}
		b := LadderBudget{Bytes: Price{3, 1, 40 + r.Int64N(100)}}
		want, err := Ladder(small, b)
		doubled := b
		doubled.Bytes = Price{6, 1, 2 * b.Bytes.Limit}
		got, err2 := Ladder(large, doubled)
		if err != nil {
			require.Error(t, err2)
			continue
		}
		require.NoError(t, err2)
		for i := range want {
			want[i] *= 2
		}
		require.Equal(t, want, got)
	}
}

// ---- Benchmarks ---------------------------------------------------------------------------------------------------------

// BenchmarkLadder chooses 64 buckets for 8,192 distinct sizes: Ladder, and the plain programme in the same run; and by prices.
func BenchmarkLadder(b *testing.B) {
	counts := denseCounts(8192)
	h, err := newHistogram(counts)
	require.NoError(b, err)
	nanos := map[string]float64{}
	measured := func(name string, run func()) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				run()
			}
			nanos[name] = float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			if plain := nanos["plain"]; plain > 0 && name == "count" {
				b.ReportMetric(plain/nanos[name], "x-plain")
			}
		})
	}
	choose := func(budget LadderBudget) func() {
		return func() {
			if _, err := Ladder(counts, budget); err != nil {
				b.Fatal(err)
			}
		}
	}
	measured("plain", func() { plainLadder(h, 64) })
	measured("count", choose(LadderBudget{MaxBuckets: 64}))
	measured("bytes", choose(LadderBudget{MaxBuckets: 64, Bytes: Price{100 << 10, 100, 20 << 20}}))
	measured("time", choose(LadderBudget{Nanos: Price{2e6, 1e4, 500e6}}))
}
