package host_test

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

// attn is one model of attention: sizes, options, caches and sinks.
type attn struct {
	heads, kvHeads, d, dv, slots, maxLen int64
	scale, softcap                       float64
	window                               int64
	kCache, vCache, sinks                *array
	pool                                 uintptr
}

func (a *attn) attrs() []piecewise.Attr {
	return []piecewise.Attr{float("scale", a.scale), integer("window", a.window), float("softcap", a.softcap)}
}

// step runs one step over sequences; cu, pos and slots as the op takes them. Padding adds rows of NaN to q, k, v.
func (a *attn) step(q, k, v *array, cu, pos, slots []int32, padding int64) (*array, error) {
	real := q.dims[0]
	pad := func(x *array) *array {
		y := filled(x.dtype, float32(math.NaN()), append([]int64{real + padding}, x.dims[1:]...)...)
		copy(y.f, x.f)
		return y
	}
	out := filled(q.dtype, 77, real+padding, a.heads, a.dv)
	inputs := []*array{pad(q), pad(k), pad(v), a.kCache, a.vCache, ints(cu...), ints(pos...), ints(slots...)}
	if a.sinks != nil {
		inputs = append(inputs, a.sinks)
	}
	seqs := int64(len(slots))
	err := launch("adcg.attention", a.pool, a.attrs(), inputs, []*array{out}, host.Batch{PrefillSeqs: seqs, PrefillTokens: real}, 0)
	for _, f := range out.f[real*a.heads*a.dv:] {
		if f != 77 {
			panic("a padded row was written")
		}
	}
	return out.rows(0, real), err
}

// reference is attention in float64 over the caches' contents.
func (a *attn) reference(q *array, cu, pos, slots []int32) []float64 {
	var out []float64
	for s := range slots {
		for t := cu[s]; t < cu[s+1]; t++ {
			p := int64(pos[s] + t - cu[s])
			for h := int64(0); h < a.heads; h++ {
				g := h / (a.heads / a.kvHeads)
				first := int64(0)
				if a.window > 0 {
					first = max(0, p-a.window+1)
				}
				scale := a.scale
				if scale == 0 {
					scale = 1 / math.Sqrt(float64(a.d))
				}
				var scores []float64
				largest := math.Inf(-1)
				for j := first; j <= p; j++ {
					dot := 0.0
					for e := int64(0); e < a.d; e++ {
						dot += float64(q.f[(int64(t)*a.heads+h)*a.d+e]) * float64(a.kCache.f[((int64(slots[s])*a.maxLen+j)*a.kvHeads+g)*a.d+e])
					}
					dot *= scale
					if a.softcap > 0 {
						dot = a.softcap * math.Tanh(dot/a.softcap)
					}
					scores = append(scores, dot)
					largest = math.Max(largest, dot)
				}
				total := 0.0
				if a.sinks != nil {
					largest = math.Max(largest, float64(a.sinks.f[h]))
					total = math.Exp(float64(a.sinks.f[h]) - largest)
				}
				sums := make([]float64, a.dv)
				for i, score := range scores {
					w := math.Exp(score - largest)
					total += w
					for e := range sums {
						sums[e] += w * float64(a.vCache.f[((int64(slots[s])*a.maxLen+first+int64(i))*a.kvHeads+g)*a.dv+int64(e)])
					}
				}
				for e := range sums {
					out = append(out, sums[e]/total)
				}
			}
		}
	}
	return out
}

func TestAttentionGolden(t *testing.T) {
	files, err := filepath.Glob(golden + "attention_*.json")
	require.NoError(t, err)
	require.Len(t, files, 9)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			x, at := load(t, name)
			const maxLen = 64
			cu, pos, history := x["cu_seqlens"].i, x["input_pos"].i, x["cu_history"].i
			seqs := int64(len(pos))
			a := &attn{heads: int64(number(at["num_heads"], 0)), kvHeads: int64(number(at["num_kv_heads"], 0)), d: int64(number(at["head_dim"], 0)), dv: int64(number(at["v_head_dim"], 0)),
				slots: seqs + 1, maxLen: maxLen, scale: number(at["scale"], 0), softcap: number(at["softcap"], 0), window: int64(number(at["sliding_window"], 0)), sinks: x["sinks"]}
			nan := float32(math.NaN())
			a.kCache = filled(piecewise.F32, nan, a.slots, maxLen, a.kvHeads, a.d)
			a.vCache = filled(piecewise.F32, nan, a.slots, maxLen, a.kvHeads, a.dv)
			var slots []int32
			for s := range pos {
				slot := int32(seqs) - int32(s) // not in the order of the sequences
				slots = append(slots, slot)
				copy(a.kCache.f[int64(slot)*maxLen*a.kvHeads*a.d:], x["k_history"].rows(int64(history[s]), int64(history[s+1])).f)
				copy(a.vCache.f[int64(slot)*maxLen*a.kvHeads*a.dv:], x["v_history"].rows(int64(history[s]), int64(history[s+1])).f)
			}
			out, err := a.step(x["q"], x["k"], x["v"], cu, pos, slots, 3)
			require.NoError(t, err)
			want := make([]float64, len(x["out"].f))
			for i, f := range x["out"].f {
				want[i] = float64(f)
			}
			requireNear(t, want, out, 4e-6, 4e-6, name)
		})
	}
}

// TestAttentionInvariance runs two sequences whole, in chunks, token by token, padded, on several threads and instruction
// sets: against float64 once, then bit for bit. Cache rows that nobody may see hold NaN.
func TestAttentionInvariance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	nan := float32(math.NaN())
	for _, c := range []struct {
		x, cache              piecewise.DType
		heads, kvHeads, d, dv int64
		window                int64
		softcap               float64
		sinks                 bool
		length, secondLength  int64
		absolute, relative    float64
	}{
		{piecewise.F32, piecewise.F32, 4, 2, 16, 16, 0, 0, false, 150, 37, 5e-6, 5e-6},
		{piecewise.F32, piecewise.F32, 6, 2, 24, 40, 0, 3, true, 133, 1, 5e-6, 5e-6},
		{piecewise.F32, piecewise.BF16, 8, 1, 64, 64, 70, 0, false, 200, 65, 5e-6, 5e-6},
		{piecewise.BF16, piecewise.BF16, 3, 3, 20, 7, 5, 0, true, 130, 64, 1e-3, 1e-2},
		{piecewise.BF16, piecewise.F32, 40, 1, 33, 100, 0, 0, false, 70, 3, 1e-3, 1e-2},
		{piecewise.F32, piecewise.F32, 1, 1, 300, 257, 0, 0, false, 66, 20, 5e-6, 5e-6},
	} {
		lengths := []int64{c.length, c.secondLength}
		var q, k, v [2]*array
		for s, n := range lengths {
			q[s], k[s], v[s] = random(rng, c.x, n, c.heads, c.d), random(rng, c.x, n, c.kvHeads, c.d), random(rng, c.x, n, c.kvHeads, c.dv)
		}
		var sinks *array
		if c.sinks {
			sinks = random(rng, piecewise.F32, c.heads)
		}
		fresh := func(pool uintptr) *attn {
			a := &attn{heads: c.heads, kvHeads: c.kvHeads, d: c.d, dv: c.dv, slots: 3, maxLen: 256, window: c.window, softcap: c.softcap, sinks: sinks, pool: pool}
			a.kCache, a.vCache = filled(c.cache, nan, 3, 256, c.kvHeads, c.d), filled(c.cache, nan, 3, 256, c.kvHeads, c.dv)
			return a
		}
		slots := []int32{2, 0}
		// whole: both sequences in one step
		whole := func(pool uintptr, padding int64) (*array, *attn) {
			a := fresh(pool)
			out, err := a.step(concat(q[0], q[1]), concat(k[0], k[1]), concat(v[0], v[1]), []int32{0, int32(lengths[0]), int32(lengths[0] + lengths[1])}, []int32{0, 0}, slots, padding)
			require.NoError(t, err)
			return out, a
		}
		want, a := whole(0, 0)
		requireNear(t, a.reference(concat(q[0], q[1]), []int32{0, int32(lengths[0]), int32(lengths[0] + lengths[1])}, []int32{0, 0}, slots), want, c.absolute, c.relative, "%+v", c)

		for _, isa := range isas(t) {
			require.NoError(t, host.SetISA(isa))
			got, _ := whole(0, 5)
			requireSameBits(t, want, got, "isa %s, padded: %+v", isa, c)
		}
		require.NoError(t, host.SetISA(""))
		for _, threads := range []int32{1, 2, 3} {
			pool := host.NewPool(threads)
			got, _ := whole(pool, 0)
			requireSameBits(t, want, got, "%d threads: %+v", threads, c)
			host.FreePool(pool)
		}
		for _, chunk := range []int64{1, 3, 16} {
			a := fresh(0)
			for s, n := range lengths {
				for at := int64(0); at < n; at += chunk {
					end := min(at+chunk, n)
					got, err := a.step(q[s].rows(at, end), k[s].rows(at, end), v[s].rows(at, end), []int32{0, int32(end - at)}, []int32{int32(at)}, slots[s:s+1], 0)
					require.NoError(t, err)
					base := int64(s) * lengths[0]
					requireSameBits(t, want.rows(base+at, base+end), got, "chunks of %d, at %d: %+v", chunk, at, c)
				}
			}
		}
	}
}

func TestAttentionErrorsWriteNothing(t *testing.T) {
	for _, c := range []struct {
		cu, pos, slots []int32
		message        string
	}{
		{[]int32{0, 2, 4}, []int32{0, 0}, []int32{0, 9}, "slot_idx[1] is 9, the cache has 8 slots"},
		{[]int32{0, 2, 4}, []int32{0, 0}, []int32{-1, 1}, "slot_idx[0] is -1, the cache has 8 slots"},
		{[]int32{0, 2, 4}, []int32{0, 0}, []int32{3, 3}, "slot_idx[1] is 3, which is the slot of sequence 0 too"},
		{[]int32{1, 2, 4}, []int32{0, 0}, []int32{0, 1}, "cu_seqlens[0] is 1, must be 0"},
		{[]int32{0, 0, 4}, []int32{0, 0}, []int32{0, 1}, "cu_seqlens[1] is 0, must be more than cu_seqlens[0], which is 0"},
		{[]int32{0, 2, 3}, []int32{0, 0}, []int32{0, 1}, "cu_seqlens[2] is 3, the step has 4 tokens"},
		{[]int32{0, 2, 4}, []int32{0, -2}, []int32{0, 1}, "input_pos[1] is -2, must not be negative"},
		{[]int32{0, 2, 4}, []int32{15, 0}, []int32{0, 1}, "input_pos[0] is 15 and the sequence has 2 tokens, the cache holds 16 positions"},
	} {
		a := &attn{heads: 2, kvHeads: 1, d: 8, dv: 8, slots: 8, maxLen: 16}
		a.kCache, a.vCache = filled(piecewise.F32, 5, 8, 16, 1, 8), filled(piecewise.F32, 5, 8, 16, 1, 8)
		x, kv := filled(piecewise.F32, 1, 4, 2, 8), filled(piecewise.F32, 1, 4, 1, 8)
		_, err := a.step(x, kv, kv, c.cu, c.pos, c.slots, 0)
		var failure *host.Error
		require.ErrorAs(t, err, &failure)
		require.Equal(t, c.message, failure.Message)
		requireSameBits(t, filled(piecewise.F32, 5, 8, 16, 1, 8), a.kCache, c.message)
		requireSameBits(t, filled(piecewise.F32, 5, 8, 16, 1, 8), a.vCache, c.message)
	}
}
