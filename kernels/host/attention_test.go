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
	pages                                *paging // nil: a slot cache
}

func (a *attn) attrs() []piecewise.Attr {
	return []piecewise.Attr{float("scale", a.scale), integer("window", a.window), float("softcap", a.softcap)}
}

// step runs one step over sequences; cu, pos and slots as the op takes them. Padding adds rows of NaN to q, k, v.
func (a *attn) step(q, k, v *array, cu, pos, slots []int32, padding int64) (*array, error) {
	real := q.dims[0]
	out := filled(q.dtype, 77, real+padding, a.heads, a.dv)
	name, caches, index := layOut("adcg.attention", a.pages, []*array{a.kCache, a.vCache}, cu, pos, slots, padding)
	inputs := append(append([]*array{padded(q, padding), padded(k, padding), padded(v, padding)}, caches...), index...)
	if a.sinks != nil {
		inputs = append(inputs, a.sinks)
	}
	seqs := int64(len(slots))
	err := launch(name, a.pool, a.attrs(), inputs, []*array{out}, host.Batch{PrefillSeqs: seqs, PrefillTokens: real}, 0)
	a.pages.back(caches, []*array{a.kCache, a.vCache})
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
			fresh := func(pages *paging) (*attn, []int32) {
				a := &attn{heads: int64(number(at["num_heads"], 0)), kvHeads: int64(number(at["num_kv_heads"], 0)), d: int64(number(at["head_dim"], 0)),
					dv: int64(number(at["v_head_dim"], 0)), slots: seqs + 1, maxLen: maxLen, scale: number(at["scale"], 0), softcap: number(at["softcap"], 0),
					window: int64(number(at["sliding_window"], 0)), sinks: x["sinks"], pages: pages}
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
				return a, slots
			}
			var whole *array
			for _, pages := range pagings(rand.New(rand.NewPCG(1, 7))) {
				a, slots := fresh(pages)
				out, err := a.step(x["q"], x["k"], x["v"], cu, pos, slots, 3)
				require.NoError(t, err)
				requireNear(t, doubles(x["out"].f), out, 4e-6, 4e-6, name)
				if whole == nil {
					whole = out
				}
				requireSameBits(t, whole, out, "%v", pages)
				for _, chunk := range []int32{1, 4} {
					a, slots := fresh(pages)
					for s := range pos {
						for first := cu[s]; first < cu[s+1]; first += chunk {
							end := min(first+chunk, cu[s+1])
							part := func(name string) *array { return x[name].rows(int64(first), int64(end)) }
							got, err := a.step(part("q"), part("k"), part("v"), []int32{0, end - first}, []int32{pos[s] + first - cu[s]}, slots[s:s+1], 0)
							require.NoError(t, err)
							requireSameBits(t, whole.rows(int64(first), int64(end)), got, "%v, chunks of %d", pages, chunk)
						}
					}
				}
			}
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
		{piecewise.F32, piecewise.F8E4M3, 4, 2, 16, 24, 0, 0, true, 150, 37, 5e-6, 5e-6},
		{piecewise.BF16, piecewise.F8E4M3, 9, 1, 80, 33, 40, 5, false, 90, 65, 1e-3, 1e-2},
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
		var layout *paging
		fresh := func(pool uintptr) *attn {
			a := &attn{heads: c.heads, kvHeads: c.kvHeads, d: c.d, dv: c.dv, slots: 3, maxLen: 256, window: c.window, softcap: c.softcap, sinks: sinks, pool: pool, pages: layout}
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
		for s := range slots { // what was written, and nothing behind it
			for i, x := range []*array{k[s], v[s]} {
				cache := []*array{a.kCache, a.vCache}[i].rows(int64(slots[s]), int64(slots[s])+1)
				for e, f := range cache.f {
					if e < len(x.f) {
						require.Equal(t, rounded(x.f[e], c.cache), f, "%+v", c)
					} else {
						require.NotEqual(t, f, f, "%+v", c)
					}
				}
			}
		}
		for _, layout = range pagings(rng) {
			for _, isa := range isas(t) {
				require.NoError(t, host.SetISA(isa))
				got, p := whole(0, 2)
				requireSameBits(t, want, got, "%v on %s: %+v", layout, isa, c)
				requireSameBits(t, a.kCache, p.kCache, "keys, %v on %s: %+v", layout, isa, c)
				requireSameBits(t, a.vCache, p.vCache, "values, %v on %s: %+v", layout, isa, c)
			}
		}
		require.NoError(t, host.SetISA(""))
		for _, chunk := range []int64{1, 3, 16, 50} {
			layout = map[int64]*paging{16: {size: 7, rng: rng}, 50: {size: 1, rng: rng}}[chunk]
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

// TestPageErrors wants every disagreement between a page table and a step named, and nothing written.
func TestPageErrors(t *testing.T) {
	for _, c := range []struct {
		pos, cu, cuPages, loc, last []int32
		message                     string
	}{
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 1, 3}, []int32{7, 0, 8}, []int32{3, 2}, "cache_loc[2] is 8, the cache has 8 pages"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 1, 3}, []int32{7, -1, 3}, []int32{3, 2}, "cache_loc[1] is -1, the cache has 8 pages"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 1, 3}, []int32{7, 0, 7}, []int32{3, 2}, "cache_loc[2] is 7, which the step writes for cache_loc[0] too"},
		{[]int32{2, 0}, []int32{0, 4, 5}, []int32{0, 2, 3}, []int32{5, 5, 1}, []int32{2, 1}, "cache_loc[1] is 5, which the step writes for cache_loc[0] too"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 1, 2}, []int32{7, 0}, []int32{3, 2},
			"cu_num_pages[2] is 2: sequence 1 has 1 pages of 4 positions, its 6 positions (input_pos 4 and 2 tokens) need 2"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 2, 4}, []int32{7, 0, 1, 2}, []int32{3, 2},
			"cu_num_pages[1] is 2: sequence 0 has 2 pages of 4 positions, its 3 positions (input_pos 0 and 3 tokens) need 1"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 1, 3}, []int32{7, 0, 1}, []int32{3, 1},
			"last_page_len[1] is 1, must be 2: input_pos is 4 and the sequence has 2 tokens, in pages of 4"},
		{[]int32{0, 2}, []int32{0, 3, 5}, []int32{0, 1, 2}, []int32{7, 0}, []int32{3, 0},
			"last_page_len[1] is 0, must be 4: input_pos is 2 and the sequence has 2 tokens, in pages of 4"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{1, 2, 4}, []int32{7, 0, 1, 2}, []int32{3, 2}, "cu_num_pages[0] is 1, must be 0"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 1, 0}, []int32{7, 0, 1}, []int32{3, 2}, "cu_num_pages[2] is 0, must not be less than cu_num_pages[1], which is 1"},
		{[]int32{0, 4}, []int32{0, 3, 5}, []int32{0, 1, 3}, []int32{7, 0}, []int32{3, 2}, "cu_num_pages[2] is 3, cache_loc has 2 entries"},
		{[]int32{math.MaxInt32, 4}, []int32{0, 3, 5}, []int32{0, 1, 3}, []int32{7, 0, 1}, []int32{3, 2},
			"input_pos[0] is 2147483647 and the sequence has 3 tokens, positions are 32 bits wide"},
	} {
		five := func(dims ...int64) *array { return filled(piecewise.F32, 5, dims...) }
		index := []*array{ints(c.cu...), ints(c.pos...), ints(c.cuPages...), ints(c.loc...), ints(c.last...)}
		caches := []*array{five(8, 4, 1, 2), five(8, 4, 1, 2)}
		batch := host.Batch{PrefillSeqs: 2, PrefillTokens: 5}
		attrs := []piecewise.Attr{float("scale", 0), integer("window", 0), float("softcap", 0)}
		inputs := append(append([]*array{five(5, 1, 2), five(5, 1, 2), five(5, 1, 2)}, caches...), index...)
		err := launch("adcg.paged_attention", 0, attrs, inputs, []*array{five(5, 1, 2)}, batch, 0)
		var failure *host.Error
		require.ErrorAs(t, err, &failure)
		require.Equal(t, c.message, failure.Message)
		for _, cache := range caches {
			requireSameBits(t, five(8, 4, 1, 2), cache, c.message)
		}
		cache := five(8, 4, 4)
		inputs = append([]*array{five(5, 1, 2), five(5, 1, 2), five(5, 2), five(5, 2), five(4, 2), cache}, index...)
		err = launch("adcg.paged_mla_attention", 0, attrs[:1], inputs, []*array{five(5, 1, 2)}, batch, 0)
		require.ErrorAs(t, err, &failure)
		require.Equal(t, c.message, failure.Message)
		requireSameBits(t, five(8, 4, 4), cache, c.message)
	}
}

// TestSharedPages lets two sequences read one page of common history, which neither writes.
func TestSharedPages(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	q, k, v := random(rng, piecewise.F32, 2, 2, 8), random(rng, piecewise.F32, 2, 1, 8), random(rng, piecewise.F32, 2, 1, 8)
	keys, values := random(rng, piecewise.F32, 4, 4, 1, 8), random(rng, piecewise.F32, 4, 4, 1, 8)
	attrs := []piecewise.Attr{float("scale", 0), integer("window", 0), float("softcap", 0)}
	run := func(q, k, v *array, keys, values *array, batch int64, index ...*array) *array {
		out := filled(piecewise.F32, 0, batch, 2, 8)
		require.NoError(t, launch("adcg.paged_attention", 0, attrs, append([]*array{q, k, v, keys, values}, index...), []*array{out}, host.Batch{DecodeSeqs: batch}, 0))
		return out
	}
	both := run(q, k, v, keys.clone(), values.clone(), 2, ints(0, 1, 2), ints(4, 5), ints(0, 2, 4), ints(3, 0, 3, 2), ints(1, 2))
	first := run(q.rows(0, 1), k.rows(0, 1), v.rows(0, 1), keys.clone(), values.clone(), 1, ints(0, 1), ints(4), ints(0, 2), ints(3, 0), ints(1))
	second := run(q.rows(1, 2), k.rows(1, 2), v.rows(1, 2), keys.clone(), values.clone(), 1, ints(0, 1), ints(5), ints(0, 2), ints(3, 2), ints(2))
	requireSameBits(t, concat(first, second), both, "a page that two sequences read")
}

func TestPagedMetadata(t *testing.T) {
	table := ints(9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9)
	table.dims = []int64{4, 3}
	attrs := []piecewise.Attr{integer("max_pages", 3)}
	batch := host.Batch{PrefillSeqs: 1, PrefillTokens: 4, DecodeSeqs: 2} // 3 sequences of a bucket of 4
	require.NoError(t, launch("adcg.paged_metadata", 0, attrs, []*array{ints(0, 2, 2, 5, -7), ints(6, 4, 0, 8, 1, -3)}, []*array{table}, batch, 0))
	require.Equal(t, []int32{6, 4, 0, 0, 0, 0, 0, 8, 1, 9, 9, 9}, table.i)
	for _, c := range []struct {
		cu, loc []int32
		message string
	}{
		{[]int32{0, 2, 3, 7, 0}, []int32{1, 2, 3, 4, 5, 6, 7}, "cu_num_pages[3] is 7: sequence 2 has 4 pages, max_pages is 3"},
		{[]int32{0, 2, 3, 5, 0}, []int32{1, 2, 3, 4}, "cu_num_pages[3] is 5, cache_loc has 4 entries"},
	} {
		err := launch("adcg.paged_metadata", 0, attrs, []*array{ints(c.cu...), ints(c.loc...)}, []*array{table}, batch, 0)
		require.ErrorContains(t, err, c.message)
	}
	require.NoError(t, launch("adcg.paged_metadata", 0, attrs, []*array{ints(-1), ints(0)}, []*array{table}, host.Batch{}, 0))
}

// TestFP8 writes every f32 that lies on, between or beside two values of fp8 through a cache, and reads all values back.
func TestFP8(t *testing.T) {
	var x []float32
	for code := range 0x7f {
		value := fp8[code]
		middle := (value + fp8[min(code+1, 0x7e)]) / 2 // exact
		for _, f := range []float32{value, middle} {
			for _, near := range []float32{f, math.Nextafter32(f, -1), math.Nextafter32(f, 1000)} {
				x = append(x, near, -near)
			}
		}
	}
	inf := float32(math.Inf(1))
	x = append(x, inf, -inf, float32(math.NaN()), 449, 464, 1e30, -1e30, math.SmallestNonzeroFloat32, 1e-40, -1e-40)
	for len(x)%8 != 0 {
		x = append(x, 1)
	}
	rows := int64(len(x) / 8)
	for _, isa := range isas(t) {
		require.NoError(t, host.SetISA(isa))
		for _, dtype := range floats {
			k := &array{dtype: dtype, dims: []int64{rows, 1, 8}, f: append([]float32(nil), x...)}
			for i, f := range k.f {
				k.f[i] = rounded(f, dtype)
			}
			zero := filled(dtype, 0, rows, 1, 8)
			a := &attn{heads: 1, kvHeads: 1, d: 8, dv: 8, slots: 1, maxLen: rows, kCache: filled(piecewise.F8E4M3, 0, 1, rows, 1, 8), vCache: filled(piecewise.F8E4M3, 0, 1, rows, 1, 8)}
			_, err := a.step(zero, k, zero, []int32{0, int32(rows)}, []int32{0}, []int32{0}, 0)
			require.NoError(t, err)
			for i, f := range k.f {
				want := fp8[toFP8(f)]
				if f != f {
					require.NotEqual(t, a.kCache.f[i], a.kCache.f[i])
					continue
				}
				require.Equal(t, math.Float32bits(want), math.Float32bits(a.kCache.f[i]), "%v of %v on %s", f, dtype, isa)
			}
		}
		// One key whose value holds all codes: its weight is 1, so the result is the values.
		all := filled(piecewise.F8E4M3, 0, 1, 2, 1, 256)
		copy(all.f, fp8[:])
		a := &attn{heads: 1, kvHeads: 1, d: 1, dv: 256, slots: 1, maxLen: 2, kCache: filled(piecewise.F8E4M3, 0, 1, 2, 1, 1), vCache: all}
		low := filled(piecewise.F32, -400, 1, 1, 1) // the step's own key gets no weight beside a key of 0
		one := filled(piecewise.F32, 1, 1, 1, 1)
		out, err := a.step(one, low, filled(piecewise.F32, 0, 1, 1, 256), []int32{0, 1}, []int32{1}, []int32{0}, 0)
		require.NoError(t, err)
		for code, want := range fp8 {
			if want == want {
				require.Equal(t, want, out.f[code], "code %d on %s", code, isa)
			} else {
				require.NotEqual(t, out.f[code], out.f[code], "code %d on %s", code, isa)
			}
		}
	}
}
