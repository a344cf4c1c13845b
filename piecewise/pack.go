package piecewise

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// Interval is something that needs Size bytes at times First to Last, both inclusive. Size > 0, First <= Last.
type Interval struct {
	First, Last int
	Size        int64
}

// Placement gives each interval an offset in one block of memory.
type Placement struct {
	Offsets []int64 // per interval, in bytes; multiples of Alignment
	Height  int64   // the end of the highest interval
	Bound   int64   // LowerBound: the height cannot be less
}

// Alignment of every offset and size, in bytes.
const Alignment = 64

func align(n int64) int64 { return (n + Alignment - 1) &^ (Alignment - 1) }

// LowerBound is the most aligned bytes that are live at one time.
func LowerBound(items []Interval) int64 {
	aligned := slices.Clone(items)
	for i := range aligned {
		aligned[i].Size = align(aligned[i].Size)
	}
	return peak(aligned)
}

// peak is the largest sum of sizes at one time. Times must be 0 or more.
func peak(items []Interval) int64 {
	t := newTimes(items)
	return t.peak(items)
}

// times are those of intervals, numbered by the distinct times at which one begins: two share a time as before, and no sum
// is larger in between.
type times struct {
	count  int
	lo, hi []int32 // per interval, both inclusive
}

func newTimes(items []Interval) times {
	starts := make([]int, len(items))
	for i, it := range items {
		starts[i] = it.First
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	var before []int32 // per time from the first start to the last: starts before it; if they stand close enough
	if n := len(starts); n > 0 && starts[n-1]-starts[0] < 16*n {
		before = make([]int32, starts[n-1]-starts[0]+1)
		k := 0
		for t := range before {
			before[t] = int32(k)
			if starts[k] == t+starts[0] {
				k++
			}
		}
	}
	number := func(time int) int32 {
		switch k := 0; {
		case time > starts[len(starts)-1]:
			return int32(len(starts))
		case before != nil:
			return before[time-starts[0]]
		default:
			k, _ = slices.BinarySearch(starts, time)
			return int32(k)
		}
	}
	t := times{len(starts), make([]int32, len(items)), make([]int32, len(items))}
	for i, it := range items {
		t.lo[i], t.hi[i] = number(it.First), number(it.Last+1)-1
	}
	return t
}

func (t *times) peak(items []Interval) int64 {
	change := make([]int64, t.count+1)
	for i, it := range items {
		change[t.lo[i]] += it.Size
		change[t.hi[i]+1] -= it.Size
	}
	var live, most int64
	for _, c := range change {
		live += c
		most = max(most, live)
	}
	return most
}

// Pack places intervals so that no two that share a time share a byte, and tries to end low. It places them one after
// the other, each into the tightest gap between those that are there, in several orders; if none of them reaches the
// bound, it searches. The same intervals and nodes always give the same offsets. Times are 0 or more.
func Pack(items []Interval, effort Effort) Placement { return PackAround(items, nil, effort) }

// PackAround is Pack where some intervals have their offsets already: fixed holds them, and -1 for the others. It may be
// nil. The fixed ones must not overlap.
func PackAround(items []Interval, fixed []int64, effort Effort) Placement {
	return newPacker(items).pack(items, fixed, effort)
}

// pack is PackAround for intervals whose times are those of the packer's.
func (p *packer) pack(items []Interval, fixed []int64, effort Effort) Placement {
	for i := range items {
		p.items[i].Size = align(items[i].Size)
	}
	p.fixed = fixed
	best := Placement{Offsets: make([]int64, len(items)), Height: -1, Bound: p.peak(p.items)}
	for _, order := range orders {
		if height, ok := p.place(p.sequence(order), best.Height); ok {
			best.Height = height
			copy(best.Offsets, p.offsets)
			if effort.Better != nil {
				effort.Better(&best)
			}
		}
		if best.Height <= max(best.Bound, effort.Enough) {
			return best
		}
	}
	improve(p.items, fixed, &best, effort)
	return best
}

// orders in which intervals are placed: by up to three numbers, the largest first; bySize breaks ties.
var orders = []func(Interval) key{
	bySize,
	func(it Interval) key {
		return key{a: int64(float64(it.Size) * float64(it.length())), b: it.Size, c: it.length()}
	},
	func(it Interval) key { return key{a: -int64(it.First), b: it.Size, c: it.length()} },
	func(it Interval) key { return key{a: it.length(), b: it.Size} },
	func(it Interval) key { return key{a: int64(it.Last), b: it.Size, c: it.length()} },
	func(it Interval) key { return key{a: classOf(it.Size), b: -int64(it.First), c: it.Size} },
	func(it Interval) key { return key{a: classOf(it.Size), b: it.length(), c: it.Size} },
}

func bySize(it Interval) key { return key{a: it.Size, b: it.length(), c: -int64(it.First)} }

func (it Interval) length() int64 { return int64(it.Last - it.First + 1) }

// classOf puts sizes that differ by less than a factor of two into a class.
func classOf(size int64) int64 { return int64(bits.Len64(uint64(size))) }

// key is what an order compares.
type key struct{ a, b, c int64 }

// sequence sorts the intervals by an order; the first of equal ones comes first. It is a radix sort, from the least digit
// of c to the greatest of a: a few passes however many intervals there are.
func (p *packer) sequence(order func(Interval) key) []int32 {
	for i := range p.order {
		p.order[i] = int32(i)
	}
	for _, number := range [...]func(k key) int64{func(k key) int64 { return k.c }, func(k key) int64 { return k.b }, func(k key) int64 { return k.a }} {
		least, most := int64(math.MaxInt64), int64(math.MinInt64)
		for i, it := range p.items {
			x := number(order(it))
			p.digits[i] = uint64(x)
			least, most = min(least, x), max(most, x)
		}
		for i, x := range p.digits { // the largest number comes first
			p.digits[i] = uint64(most) - x
		}
		for shift := 0; shift < 64 && (uint64(most)-uint64(least))>>shift > 0; shift += 8 {
			p.sortByDigit(shift)
		}
	}
	return p.order
}

// sortByDigit sorts order by eight bits of digits; equal ones stay as they were.
func (p *packer) sortByDigit(shift int) {
	var begin [257]int32
	for _, x := range p.digits {
		begin[x>>shift&255+1]++
	}
	for d := range 256 {
		begin[d+1] += begin[d]
	}
	for _, i := range p.order {
		d := p.digits[i] >> shift & 255
		p.resorted[begin[d]] = i
		begin[d]++
	}
	p.order, p.resorted = p.resorted, p.order
}

// packer places intervals one after the other. A tree over the times holds what is taken, as unions of spans of memory:
// deep models repeat the same few, so the unions stay short however many intervals there are. Node k of the tree has the
// nodes 2k and 2k+1 below it; time t is node count+t.
type packer struct {
	items []Interval // sizes aligned
	order []int32
	times
	offsets []int64
	fixed   []int64 // per interval: its offset, -1: any; nil: any for all

	cover  [][]span // per inner tree node: taken at all its times by intervals that do not cover its parent's
	within [][]span // per tree node: taken at some of its times by intervals that do not cover its parent's

	dense  bool    // so many share times that one sorted list of all is quicker
	sorted []int32 // if dense: all placed intervals by offset

	digits   []uint64 // per interval: what a sort looks at
	resorted []int32  // by one more digit than order

	taken []span // at some time of the interval at hand
	spare []span
	slab  []span // what the unions of the tree grow into
}

// span of memory. Unions of them are sorted, and no two of one touch.
type span struct{ from, to int64 }

func newPacker(items []Interval) *packer {
	n := len(items)
	p := &packer{items: slices.Clone(items), times: newTimes(items), offsets: make([]int64, n), order: make([]int32, n),
		digits: make([]uint64, n), resorted: make([]int32, n)}
	begin := make([]int32, p.count+1) // intervals that begin before a time
	for i := range p.items {
		p.items[i].Size = align(p.items[i].Size)
		begin[p.lo[i]+1]++
	}
	for t := range p.count {
		begin[t+1] += begin[t]
	}
	pairs := 0
	for i := range p.items {
		pairs += int(begin[p.hi[i]+1] - begin[p.lo[i]])
	}
	p.dense = pairs > n*n/16
	p.cover, p.within = make([][]span, max(1, p.count)), make([][]span, 2*p.count)
	return p
}

// place places all intervals in an order and gives the height; ok is false as soon as that is not below limit (-1: none).
func (p *packer) place(order []int32, limit int64) (height int64, ok bool) {
	for node := range p.cover {
		p.cover[node] = p.cover[node][:0]
	}
	for node := range p.within {
		p.within[node] = p.within[node][:0]
	}
	p.sorted = p.sorted[:0]
	for i, at := range p.fixed {
		if at >= 0 {
			p.offsets[i] = at
			height = max(height, at+p.items[i].Size)
			p.insert(int32(i))
		}
	}
	for _, i := range order {
		if p.fixed != nil && p.fixed[i] >= 0 {
			continue
		}
		p.collect(i)
		at := tightest(p.taken, p.items[i].Size)
		p.offsets[i] = at
		height = max(height, at+p.items[i].Size)
		if limit >= 0 && height >= limit {
			return height, false
		}
		p.insert(i)
	}
	return height, true
}

// collect finds what is taken at the times of an interval.
func (p *packer) collect(i int32) {
	p.taken = p.taken[:0]
	if p.dense {
		for _, j := range p.sorted {
			if p.lo[j] <= p.hi[i] && p.lo[i] <= p.hi[j] {
				p.taken = extend(p.taken, p.spanOf(j))
			}
		}
		return
	}
	a, b := int(p.lo[i])+p.count, int(p.hi[i])+p.count
	for x, y := a/2, b/2; x > 0; x, y = x/2, y/2 { // what covers the nodes above the first and the last time covers those
		p.join(p.cover[x])
		if x != y {
			p.join(p.cover[y])
		}
	}
	for b++; a < b; a, b = a/2, b/2 {
		if a&1 == 1 {
			p.join(p.within[a])
			a++
		}
		if b&1 == 1 {
			b--
			p.join(p.within[b])
		}
	}
}

// join adds a union to taken.
func (p *packer) join(with []span) {
	if len(with) == 0 {
		return
	}
	old, out := p.taken, p.spare[:0]
	for len(old)+len(with) > 0 {
		if len(with) == 0 || len(old) > 0 && old[0].from < with[0].from {
			old, with = with, old
		}
		s := with[0]
		with = with[1:]
		out = extend(out, s)
	}
	p.taken, p.spare = out, p.taken
}

// extend adds a span that begins no lower than those of a union.
func extend(union []span, s span) []span {
	if last := len(union) - 1; last >= 0 && s.from <= union[last].to {
		union[last].to = max(union[last].to, s.to)
		return union
	}
	return append(union, s)
}

func (p *packer) spanOf(i int32) span { return span{p.offsets[i], p.offsets[i] + p.items[i].Size} }

// insert takes the span of an interval that has its offset.
func (p *packer) insert(i int32) {
	if p.dense {
		at, _ := slices.BinarySearchFunc(p.sorted, p.offsets[i], func(j int32, offset int64) int { return cmp.Compare(p.offsets[j], offset) })
		p.sorted = slices.Insert(p.sorted, at, i)
		return
	}
	s := p.spanOf(i)
	for a, b := int(p.lo[i])+p.count, int(p.hi[i])+p.count+1; a < b; a, b = a/2, b/2 {
		if a&1 == 1 {
			p.take(a, s)
			a++
		}
		if b&1 == 1 {
			b--
			p.take(b, s)
		}
	}
}

func (p *packer) take(node int, s span) {
	if node >= p.count { // one time: within says all
		p.within[node], _ = p.unite(p.within[node], s)
		node /= 2
	} else {
		p.cover[node], _ = p.unite(p.cover[node], s)
	}
	for grown := true; grown && node > 0; node /= 2 { // a node that holds it already has told those above
		p.within[node], grown = p.unite(p.within[node], s)
	}
}

// unite adds a span to a union, and tells whether that had not held it.
func (p *packer) unite(union []span, s span) ([]span, bool) {
	first := 0
	for end := len(union); first < end; {
		if mid := (first + end) / 2; union[mid].to < s.from {
			first = mid + 1
		} else {
			end = mid
		}
	}
	end := first
	for ; end < len(union) && union[end].from <= s.to; end++ {
		if union[end].from <= s.from && s.to <= union[end].to {
			return union, false
		}
		s.from, s.to = min(s.from, union[end].from), max(s.to, union[end].to)
	}
	if end == first {
		if len(union) == cap(union) {
			union = append(p.room(2*len(union)), union...)
		}
		return slices.Insert(union, first, s), true
	}
	union[first] = s
	return slices.Delete(union, first+1, end), true
}

// room gives an empty union for so many spans, 2 at least. There are many, and most stay small: one allocation serves
// hundreds.
func (p *packer) room(size int) []span {
	size = max(size, 2)
	if len(p.slab) < size {
		p.slab = make([]span, max(size, min(2*len(p.items), 1<<13)))
	}
	union := p.slab[:0:size]
	p.slab = p.slab[size:]
	return union
}

// tightest finds the offset of the smallest gap of a union that holds size, the lowest of equal ones; behind the last span
// if none does.
func tightest(union []span, size int64) int64 {
	var end, at int64
	best := int64(-1)
	for _, s := range union {
		if gap := s.from - end; gap >= size && (best < 0 || gap < best) {
			best, at = gap, end
		}
		end = s.to
	}
	if best < 0 {
		return end
	}
	return at
}
