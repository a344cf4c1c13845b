package piecewise

import (
	"cmp"
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

func stableSort[T any](list []T, order func(a, b T) int) { slices.SortStableFunc(list, order) }

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
	end := 0
	for _, it := range items {
		end = max(end, it.Last)
	}
	change := make([]int64, end+2)
	for _, it := range items {
		change[it.First] += it.Size
		change[it.Last+1] -= it.Size
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
	p := newPacker(items)
	p.fixed = fixed
	best := Placement{Offsets: make([]int64, len(items)), Height: -1, Bound: peak(p.items)}
	for _, order := range orders {
		sequence := make([]int32, len(items))
		for i := range sequence {
			sequence[i] = int32(i)
		}
		slices.SortStableFunc(sequence, func(a, b int32) int { return order(p.items[a], p.items[b]) })
		if height, ok := p.place(sequence, best.Height); ok {
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

// orders in which intervals are placed.
var orders = []func(a, b Interval) int{
	bySize,
	byArea,
	byFirst,
	func(a, b Interval) int { return cmp.Or(cmp.Compare(b.length(), a.length()), bySize(a, b)) },
	func(a, b Interval) int { return cmp.Or(cmp.Compare(b.Last, a.Last), bySize(a, b)) },
	func(a, b Interval) int { return cmp.Or(cmp.Compare(logOf(b.Size), logOf(a.Size)), byFirst(a, b)) },
	func(a, b Interval) int {
		return cmp.Or(cmp.Compare(logOf(b.Size), logOf(a.Size)), cmp.Compare(b.length(), a.length()))
	},
}

func (it Interval) length() int64 { return int64(it.Last - it.First + 1) }

func bySize(a, b Interval) int {
	return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(b.length(), a.length()), cmp.Compare(a.First, b.First))
}
func byArea(a, b Interval) int {
	return cmp.Or(cmp.Compare(float64(b.Size)*float64(b.length()), float64(a.Size)*float64(a.length())), bySize(a, b))
}
func byFirst(a, b Interval) int { return cmp.Or(cmp.Compare(a.First, b.First), bySize(a, b)) }

// logOf sorts sizes into classes that differ by a factor of two.
func logOf(size int64) int {
	n := 0
	for ; size > 0; size >>= 1 {
		n++
	}
	return n
}

// packer holds the intervals that are placed, so that those which share a time with another are found without looking
// at all: a tree over the times for those that cover a time, and a list at each time for those that begin at it.
type packer struct {
	items   []Interval // sizes aligned
	lo, hi  []int32    // first and last time, numbered by the distinct first times: two share a time as before
	offsets []int64
	fixed   []int64 // per interval: its offset, -1: any; nil: any for all

	leaves int       // of the tree: a power of two
	cover  [][]int32 // per tree node: intervals that cover its times, but not its parent's
	head   []int32   // per time: an interval that begins at it, -1 if none
	next   []int32   // per interval: another that begins at the same time

	dense  bool    // so many share times that one sorted list of all is quicker
	sorted []int32 // if dense: all placed intervals by offset
	near   []span
}

type span struct{ from, to int64 }

func newPacker(items []Interval) *packer {
	n := len(items)
	p := &packer{items: slices.Clone(items), lo: make([]int32, n), hi: make([]int32, n), offsets: make([]int64, n), next: make([]int32, n)}
	starts := make([]int, n)
	for i := range p.items {
		p.items[i].Size = align(p.items[i].Size)
		starts[i] = p.items[i].First
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	begin := make([]int32, len(starts)+1) // intervals that begin before a time
	for i, it := range p.items {
		lo, _ := slices.BinarySearch(starts, it.First)
		hi, _ := slices.BinarySearch(starts, it.Last+1)
		p.lo[i], p.hi[i] = int32(lo), int32(hi-1)
		begin[lo+1]++
	}
	for t := range starts {
		begin[t+1] += begin[t]
	}
	pairs := 0
	for i := range p.items {
		pairs += int(begin[p.hi[i]+1] - begin[p.lo[i]])
	}
	p.dense = pairs > n*n/16
	for p.leaves = 1; p.leaves < len(starts); p.leaves *= 2 {
	}
	p.cover = make([][]int32, 2*p.leaves)
	p.head = make([]int32, len(starts))
	return p
}

// place places all intervals in an order and gives the height; ok is false as soon as that is not below limit (-1: none).
func (p *packer) place(order []int32, limit int64) (height int64, ok bool) {
	for i := range p.cover {
		p.cover[i] = p.cover[i][:0]
	}
	for i := range p.head {
		p.head[i] = -1
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
		at := tightest(p.near, p.items[i].Size)
		p.offsets[i] = at
		height = max(height, at+p.items[i].Size)
		if limit >= 0 && height >= limit {
			return height, false
		}
		p.insert(i)
	}
	return height, true
}

// collect lists what is placed at times of interval i, by offset.
func (p *packer) collect(i int32) {
	p.near = p.near[:0]
	lo, hi := p.lo[i], p.hi[i]
	if p.dense {
		for _, j := range p.sorted {
			if p.lo[j] <= hi && lo <= p.hi[j] {
				p.near = append(p.near, span{p.offsets[j], p.offsets[j] + p.items[j].Size})
			}
		}
		return
	}
	for node := p.leaves + int(lo); node > 0; node /= 2 {
		for _, j := range p.cover[node] {
			p.near = append(p.near, span{p.offsets[j], p.offsets[j] + p.items[j].Size})
		}
	}
	for t := lo + 1; t <= hi; t++ {
		for j := p.head[t]; j >= 0; j = p.next[j] {
			p.near = append(p.near, span{p.offsets[j], p.offsets[j] + p.items[j].Size})
		}
	}
	slices.SortFunc(p.near, func(a, b span) int { return cmp.Compare(a.from, b.from) })
}

func (p *packer) insert(i int32) {
	if p.dense {
		at, _ := slices.BinarySearchFunc(p.sorted, p.offsets[i], func(j int32, offset int64) int { return cmp.Compare(p.offsets[j], offset) })
		p.sorted = slices.Insert(p.sorted, at, i)
		return
	}
	p.next[i] = p.head[p.lo[i]]
	p.head[p.lo[i]] = i
	for a, b := int(p.lo[i])+p.leaves, int(p.hi[i])+p.leaves+1; a < b; a, b = a/2, b/2 {
		if a&1 == 1 {
			p.cover[a] = append(p.cover[a], i)
			a++
		}
		if b&1 == 1 {
			b--
			p.cover[b] = append(p.cover[b], i)
		}
	}
}

// tightest finds the offset of the smallest gap that holds size, the lowest of equal ones; behind the last span if none
// does. spans are sorted by from, and may overlap.
func tightest(spans []span, size int64) int64 {
	var end, at int64
	best := int64(-1)
	for _, s := range spans {
		if gap := s.from - end; gap >= size && (best < 0 || gap < best) {
			best, at = gap, end
		}
		end = max(end, s.to)
	}
	if best < 0 {
		return end
	}
	return at
}
