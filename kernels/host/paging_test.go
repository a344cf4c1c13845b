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

// paging lays a slot cache out in pages of `size` positions, in a random order. Nil stays a slot cache.
type paging struct {
	size  int64
	rng   *rand.Rand
	runs  bool    // many pages lie behind each other, one to five of them in a row, so that they are read and written as one
	table []int32 // page of entry i of slot s: table[s*entries+i], for the cache that was laid out last
}

func (p *paging) String() string {
	if p == nil {
		return "slots"
	}
	if p.runs {
		return fmt.Sprintf("runs of pages of %d", p.size)
	}
	return fmt.Sprintf("pages of %d", p.size)
}

// order gives all of `pages`, shuffled.
func (p *paging) order(pages int64) []int {
	if !p.runs {
		return p.rng.Perm(int(pages))
	}
	var runs [][]int
	for page := 0; page < int(pages); {
		run := make([]int, min(1+p.rng.IntN(5), int(pages)-page))
		for i := range run {
			run[i] = page + i
		}
		page += len(run)
		runs = append(runs, run)
	}
	p.rng.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	return slices.Concat(runs...)
}

// pagings are the layouts that must give the bits of slots: pages that divide a block of 64 keys, are one, or neither.
func pagings(rng *rand.Rand) []*paging {
	return []*paging{nil, {size: 1, rng: rng}, {size: 3, rng: rng}, {size: 16, rng: rng}, {size: 64, rng: rng}, {size: 100, rng: rng},
		{size: 1, rng: rng, runs: true}, {size: 3, rng: rng, runs: true}, {size: 16, rng: rng, runs: true}}
}

// layOut gives an op's name, caches and index inputs for a layout of slot caches [slots, max_len, ..].
func layOut(name string, p *paging, caches []*array, cu, pos, slots []int32, padding int64) (string, []*array, []*array) {
	// Behind the real sequences stands nonsense, as in a bucket.
	nonsense := func(list []int32) *array {
		for range padding {
			list = append(list[:len(list):len(list)], math.MinInt32+7)
		}
		return ints(list...)
	}
	index := []*array{nonsense(cu), nonsense(pos)}
	if p == nil {
		return name, caches, append(index, nonsense(slots))
	}
	count, maxLen := caches[0].dims[0], caches[0].dims[1]
	entries := (maxLen + p.size - 1) / p.size
	pages := count*entries + 3
	p.table = nil
	for _, page := range p.order(pages)[:count*entries] {
		p.table = append(p.table, int32(page))
	}
	var laid []*array
	for _, cache := range caches {
		nan := filled(cache.dtype, float32(math.NaN()), append([]int64{pages, p.size}, cache.dims[2:]...)...)
		p.copy(nan, cache, false)
		laid = append(laid, nan)
	}
	cuPages, loc, last := []int32{0}, []int32{}, []int32{}
	for s, slot := range slots {
		length := int64(pos[s]) + int64(cu[s+1]-cu[s])
		need := (length + p.size - 1) / p.size
		need = min(max(need, 0), entries)
		loc = append(loc, p.table[int64(slot)*entries:int64(slot)*entries+need]...)
		cuPages, last = append(cuPages, int32(len(loc))), append(last, int32(length-(need-1)*p.size))
	}
	index = append(index, nonsense(cuPages), nonsense(append(loc, -9)), nonsense(last))
	return map[string]string{"adcg.attention": "adcg.paged_attention", "adcg.mla_attention": "adcg.paged_mla_attention"}[name], laid, index
}

// copy moves all positions between a paged and a slot cache.
func (p *paging) copy(paged, slots *array, back bool) {
	row, maxLen := count(slots.dims[2:]), slots.dims[1]
	entries := (maxLen + p.size - 1) / p.size
	for s := range slots.dims[0] {
		for j := range maxLen {
			a := slots.f[(s*maxLen+j)*row:][:row]
			b := paged.f[(int64(p.table[s*entries+j/p.size])*p.size+j%p.size)*row:][:row]
			if back {
				copy(a, b)
			} else {
				copy(b, a)
			}
		}
	}
}

// back copies what a step did to paged caches into the slot caches that they were made from.
func (p *paging) back(laid, caches []*array) {
	if p == nil {
		return
	}
	for i := range caches {
		p.copy(laid[i], caches[i], true)
	}
}

// padded puts rows of NaN behind.
func padded(x *array, padding int64) *array {
	y := filled(x.dtype, float32(math.NaN()), append([]int64{x.dims[0] + padding}, x.dims[1:]...)...)
	copy(y.f, x.f)
	return y
}

func concat(parts ...*array) *array {
	all := &array{dtype: parts[0].dtype, dims: append([]int64{0}, parts[0].dims[1:]...)}
	for _, p := range parts {
		all.dims[0] += p.dims[0]
		all.f = append(all.f, p.f...)
	}
	return all
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
