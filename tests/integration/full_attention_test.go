package integration

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/piecewise"
)

// long is a model whose sequences have several chunks of keys, and whose steps have several tiles of queries.
var long = sizes{300, 340, engine.F32}

// randomTurns are steps of every kind, in any order: first one that is small, so that what is captured on first use is captured for it,
// then one that fills the limits, whose context is longer than anything before.
func randomTurns(rng *rand.Rand, s sizes, count int) []turn {
	out := []turn{{[]int32{2}, []int32{1}, 1, 0}, {[]int32{0, 3}, []int32{int32(s.length), 3}, 0, 0}}
	for len(out) < count {
		chosen := rng.Perm(slots)[:1+rng.IntN(4)]
		var t turn
		left := s.tokens
		uniform := int32(1 + rng.IntN(4)*rng.IntN(2))
		kind := rng.IntN(4) // decode, uniform, prefill and extend, mixed
		for i, slot := range chosen {
			n := int32(1)
			switch {
			case kind == 1:
				n = uniform
			case kind > 1:
				most := min(left-int64(len(chosen)-1-i), s.length)
				n = int32(1 + rng.Int64N(1+rng.Int64N(most)))
			}
			if kind == 0 || kind == 3 && i > 0 && rng.IntN(2) == 0 {
				n = 1
			}
			left -= int64(n)
			t.slots, t.tokens = append(t.slots, int32(slot)), append(t.tokens, n)
		}
		for i := len(t.tokens) - 1; i >= 0 && t.tokens[i] == 1 && kind != 2; i-- {
			t.decodes++
		}
		if rest := int64(len(t.tokens)) - t.decodes; rest > 0 {
			t.extends = rng.Int64N(rest + 1)
		}
		out = append(out, t)
	}
	return out
}

// A full graph that was captured at a bucket serves every batch that fits: its bits, and those of the caches, are a piecewise step's
// and an eager one's, whatever the bucket, and whichever step it was captured in front of. That it ran as asked for is counted.
func TestFullGraphsOfAttentionServeEveryBatch(t *testing.T) {
	tensors := func(d int64) ([][]int64, []int64, [][]int64) {
		return [][]int64{{4, d}, {2, d}, {2, d}}, []int64{2 * d, 2 * d}, [][]int64{{2, d}, {2, d}}
	}
	byCores := func(op string, cache engine.DType) attentionCase {
		c := attentionCase{op: op, cache: cache, paged: op == "adcg.paged_attention"}
		c.projections, c.widths, c.cacheDims = tensors(64)
		return c
	}
	bf16 := long
	bf16.dtype = engine.BF16
	for i, c := range []struct {
		attentionCase
		sizes
	}{
		{attentionCases[0], long},
		{attentionCases[1], long},
		{byCores("adcg.attention", engine.BF16), bf16},
		{byCores("adcg.paged_attention", engine.F8E4M3), bf16},
	} {
		m := newModel(t, deviceName(), c.attentionCase, c.sizes)
		turns := randomTurns(rand.New(rand.NewPCG(uint64(i), 11)), c.sizes, 10)
		want, wantCaches, modes := m.play(t, engine.ExecOptions{Mode: engine.Eager, BatchInvariant: true}, turns)
		steps := 2 * len(turns)
		require.Equal(t, map[piecewise.Mode]int{piecewise.ModeNone: steps}, modes)
		for _, e := range []struct {
			engine.ExecOptions
			ran piecewise.Mode
		}{
			{engine.ExecOptions{Mode: engine.Piecewise, Buckets: []int64{40, c.tokens}}, piecewise.ModePiecewise},
			{engine.ExecOptions{Mode: engine.Full, Buckets: []int64{c.tokens}, SeqBuckets: []int64{4}, QueryLen: 3}, piecewise.ModeFull},
			{engine.ExecOptions{Buckets: []int64{1, 2, 3, 17, 200, c.tokens}}, piecewise.ModeFull},
		} {
			e.BatchInvariant = true
			got, caches, modes := m.play(t, e.ExecOptions, turns)
			require.Equal(t, map[piecewise.Mode]int{e.ran: steps}, modes, "%s, %+v", c.op, e.ExecOptions)
			for k := range turns {
				require.Equal(t, want[k], got[k], "%s of %v, %+v, turn %d: %+v", c.op, c.cache, e.ExecOptions, k, turns[k])
			}
			require.Equal(t, wantCaches, caches, "%s of %v, %+v", c.op, c.cache, e.ExecOptions)
		}
	}
}

// What an exec of full graphs for every batch holds is what was forecast, and nothing of it is piecewise.
func TestFullGraphsOfAttentionHoldWhatWasForecast(t *testing.T) {
	m := newModel(t, deviceName(), attentionCases[0], short)
	for _, o := range []engine.ExecOptions{{Buckets: []int64{10, 33, 64}}, {Mode: engine.Full, Buckets: []int64{64}, SeqBuckets: []int64{3}, QueryLen: 2}} {
		forecast, err := m.graph.Forecast(o)
		require.NoError(t, err)
		exec, err := m.graph.Compile(o)
		require.NoError(t, err)
		for i, w := range m.weights {
			x, err := engine.NewTensor(engine.F32, m.shapes[i]...)
			require.NoError(t, err)
			t.Cleanup(x.Free)
			require.NoError(t, exec.Bind(w, place(t, m.engine, x)))
		}
		for i, s := range m.states {
			first, length := m.cacheRows()
			x, err := engine.NewTensor(m.c.cache, append([]int64{first, length}, m.c.cacheDims[i]...)...)
			require.NoError(t, err)
			t.Cleanup(x.Free)
			require.NoError(t, exec.Bind(s, place(t, m.engine, x)))
		}
		require.NoError(t, exec.Capture(nil, nil))
		stats, err := exec.Stats()
		require.NoError(t, err)
		require.EqualValues(t, forecast.NumBuckets, stats.CapturedBuckets)
		require.Equal(t, forecast.ArenaBytes, stats.ArenaBytes)
		if deviceName() == "host" { // on CUDA an op's kernels are known when they are recorded
			require.Equal(t, forecast.TotalBytes, stats.TotalBytes)
		}
		for _, u := range exec.Plan().Units {
			require.Equal(t, piecewise.ModeFull, u.Mode)
		}
		exec.Close()
	}
}
