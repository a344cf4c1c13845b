package host_test

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// paging lays a slot cache out in pages of `size` positions, in a random order. Nil stays a slot cache.
type paging struct {
	size  int64
	rng   *rand.Rand
	table []int32 // page of entry i of slot s: table[s*entries+i], for the cache that was laid out last
}

func (p *paging) String() string {
	if p == nil {
		return "slots"
	}
	return fmt.Sprintf("pages of %d", p.size)
}

// pagings are the layouts that must give the bits of slots; none but the last divides a block of 64 keys or is one.
func pagings(rng *rand.Rand) []*paging {
	return []*paging{nil, {size: 1, rng: rng}, {size: 3, rng: rng}, {size: 16, rng: rng}, {size: 64, rng: rng}, {size: 100, rng: rng}}
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
	for _, page := range p.rng.Perm(int(pages))[:count*entries] {
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
