package piecewise

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// search looks for a placement of intervals below a given height, by depth-first search over canonical placements: those
// in which every interval rests on the ground or on another one. Any placement can be brought into this form by letting
// its intervals fall.
//
// The state is a skyline: a floor at each section, below which nothing more will be placed. A decision is about one
// section at the bottom of a valley of the skyline: one of the intervals that lie wholly in the valley is the lowest that
// is left over this section, and rests on its floor; or none of them is, and the floor rises to where the next one can
// rest, which wastes what is between. A branch ends when at some section what is left over it does not fit any more, even
// if all of it could be put on one another in the order of its supports, without a wait for anything else (stack). Three
// more things keep the tree small.
//
//   - Floors rise by themselves to the lowest support of what is left over them, as far as that leads (propagate).
//   - The skyline falls into parts that no interval connects: each is solved by itself.
//   - Every floor remembers the decisions that it rests on, its blame. A dead end blames a set of decisions; those that
//     are not among it cannot mend it, and are not tried otherwise (conflict-directed backjumping).
//
// Dead ends are remembered by a hash of the floors and of what is left, so that another order of the same decisions does
// not visit them again. A collision could hide a placement, never make a wrong one. Therefore nothing may be left out
// for a reason that floors and what is left do not tell, such as what lies directly below: of two intervals with the same
// sections either may come first. Of equal ones (twins) the first does.
type search struct {
	sec   sections
	size  []int64
	fixed []int64 // per interval: the offset that it must have; -1: any
	rank  []int32 // per interval: which is tried first
	twin  []int32 // per interval: an earlier one with the same sections and size; -1 if none
	pick  rule
	fit   bool // those that fit the skyline are tried first
	score []int8

	height        int64
	nodes, budget int64
	deadline      time.Time // zero: none
	stopped       bool

	floor  []int64 // per section
	left   []int64 // per section: the sizes of all that is not placed
	end    []int64 // per section: what is left over it cannot end lower
	blame  []uint64
	member [][]int32 // per section: its intervals, those not placed first
	count  []int32   // per section: how many are not placed
	spot   [][]int32 // per interval and section of its own: where it stands in member

	support   []int64 // per interval: the highest floor below it
	supporter []int32 // per interval: the section that has it; -1 if that is its fixed offset
	placed    []bool
	offset    []int64

	trail    []change
	saved    []uint64  // blames that undo brings back
	queue    []int32   // sections whose floor may rise by itself
	waiting  []bool    // per section: its floor is to be looked at
	queued   []bool    // per section: so is its end
	stacked  [][]int32 // per section: its intervals by support, when it was last looked at
	crushed  int32     // a section whose floor lifted a fixed interval off its offset; -1
	words    int       // of a blame
	conflict []uint64
	room     [][]uint64 // per level: blame of what failed so far
	why      []uint64
	nothing  []uint64

	keyOf  []uint64 // per interval: a random number
	keys   []uint64 // per section: of its floor and of the intervals that begin here and are left, added up
	failed map[uint64]struct{}
}

// rule says which section of the valleys is decided next.
type rule uint8

const (
	fewestOptions    rule = iota // where the fewest can rest
	lowestFloor                  // the lowest, among them where the fewest can rest
	leastWaste                   // where the least can be wasted
	lowestLeastWaste             // the lowest, among them where the least can be wasted
	fewestLowest                 // where the fewest can rest, among them the lowest
	numRules
)

const (
	never   = int64(math.MaxInt64)
	noBlame = int32(-1)

	maxWords  = 64      // of a blame: no deeper than 64 times that
	maxFailed = 1 << 18 // dead ends that are remembered
	maxTrail  = 1 << 21 // changes, and words of blame, that undo brings back
)

// newSearch takes intervals whose sizes are positive; fixed may be nil.
func newSearch(items []Interval, fixed []int64) *search {
	n := len(items)
	s := &search{sec: newSections(items), size: make([]int64, n), fixed: fixed, failed: map[uint64]struct{}{}}
	m := int(s.sec.count)
	s.words = min((2*n+63)/64+1, maxWords)
	s.floor, s.left, s.end, s.count = make([]int64, m), make([]int64, m), make([]int64, m), make([]int32, m)
	s.blame, s.member = make([]uint64, m*s.words), make([][]int32, m)
	s.waiting, s.queued = make([]bool, m), make([]bool, m)
	s.support, s.supporter, s.offset = make([]int64, n), make([]int32, n), make([]int64, n)
	s.placed, s.spot, s.rank, s.twin = make([]bool, n), make([][]int32, n), make([]int32, n), make([]int32, n)
	s.conflict, s.why, s.nothing = make([]uint64, s.words), make([]uint64, s.words), make([]uint64, s.words)
	s.keyOf, s.keys = make([]uint64, n), make([]uint64, m)
	type shape struct {
		lo, hi int32
		size   int64
	}
	seen := map[shape]int32{}
	for i, it := range items {
		s.size[i], s.rank[i], s.keyOf[i], s.twin[i] = it.Size, int32(i), scramble(uint64(i)+1), -1
		for t := s.sec.lo[i]; t <= s.sec.hi[i]; t++ {
			s.spot[i] = append(s.spot[i], int32(len(s.member[t])))
			s.member[t] = append(s.member[t], int32(i))
		}
		if fixed != nil && fixed[i] >= 0 {
			continue
		}
		key := shape{s.sec.lo[i], s.sec.hi[i], it.Size}
		if j, ok := seen[key]; ok {
			s.twin[i] = j
		}
		seen[key] = int32(i)
	}
	s.stacked = make([][]int32, m)
	s.score = make([]int8, n)
	for t := range s.member {
		s.stacked[t] = slices.Clone(s.member[t])
	}
	if fixed == nil {
		s.fixed = slices.Repeat([]int64{-1}, n)
	}
	return s
}

// outcome of a search.
type outcome int

const (
	gaveUp     outcome = iota // the budget is spent
	found                     // offset has a placement
	impossible                // there is none
)

// run searches for a placement below a height, in at most so many nodes. Dead ends of earlier runs at the same height
// are not visited again.
func (s *search) run(height, budget int64) outcome {
	if height != s.height {
		clear(s.failed)
	}
	s.height, s.nodes, s.budget, s.stopped, s.crushed = height, 0, budget, false, -1
	s.trail, s.saved = s.trail[:0], s.saved[:0]
	clear(s.blame)
	for i := range s.size {
		s.placed[i], s.support[i], s.supporter[i] = false, max(0, s.fixed[i]), noBlame
	}
	s.dropQueue()
	for t := range s.floor {
		s.floor[t], s.left[t], s.end[t], s.count[t] = 0, 0, 0, int32(len(s.member[t]))
		s.keys[t] = floorKey(int32(t), 0)
		for _, i := range s.member[t] {
			s.left[t] += s.size[i]
			if s.sec.lo[i] == int32(t) {
				s.keys[t] += s.keyOf[i]
			}
		}
		if s.left[t] > height {
			return impossible
		}
		s.enqueue(int32(t))
	}
	switch {
	case s.propagate() && s.solve(0, s.sec.count-1, 0):
		return found
	case s.stopped:
		return gaveUp
	}
	return impossible
}

// solve places all that is left over sections a to b, which nothing connects to the others. If it cannot, conflict holds
// the decisions to blame.
func (s *search) solve(a, b int32, level int) bool {
	for a <= b && s.count[a] == 0 {
		a++
	}
	for a <= b && s.count[b] == 0 {
		b--
	}
	if a > b {
		return true
	}
	for t := a; t <= b; t++ {
		if s.count[t] == 0 { // two parts at least; the shorter one fails sooner
			if t-a < b-t {
				return s.solve(a, t, level) && s.solve(t, b, level)
			}
			return s.solve(t, b, level) && s.solve(a, t, level)
		}
	}
	if s.nodes++; s.nodes > s.budget || level >= 64*s.words || max(len(s.trail), len(s.saved)) > maxTrail ||
		s.nodes%64 == 0 && !s.deadline.IsZero() && time.Now().After(s.deadline) {
		s.stopped = true
		return false
	}
	key := s.hash(a, b)
	if _, known := s.failed[key]; known {
		clear(s.conflict)
		for t := a; t <= b; t++ {
			join(s.conflict, s.blameOf(t))
		}
		return false
	}
	solved := s.decide(a, b, level)
	if !solved && !s.stopped {
		if len(s.failed) >= maxFailed { // few of the old ones come back
			clear(s.failed)
		}
		s.failed[key] = struct{}{}
	}
	return solved
}

// decide tries all that can be the lowest interval over one section.
func (s *search) decide(a, b int32, level int) bool {
	t, first, last := s.choose(a, b)
	for len(s.room) <= level {
		s.room = append(s.room, make([]uint64, s.words))
	}
	blamed := s.room[level]
	copy(blamed, s.blameOf(t))
	next := never // the lowest floor at which something can rest that does not rest on this one
	var buffer [64]int32
	options := buffer[:0]
	for _, i := range s.member[t][:s.count[t]] {
		if s.support[i] == s.floor[t] {
			options = append(options, i)
		} else {
			next = min(next, s.support[i])
			join(blamed, s.blameOf(s.supporter[i]))
		}
	}
	if s.fit {
		for _, i := range options {
			s.score[i] = s.fitness(i, a, b, first, last)
		}
	}
	slices.SortFunc(options, func(i, j int32) int {
		if s.fit && s.score[i] != s.score[j] {
			return cmp.Compare(s.score[j], s.score[i])
		}
		return cmp.Compare(s.rank[i], s.rank[j])
	})
	for _, i := range options {
		if j := s.twin[i]; j >= 0 && !s.placed[j] {
			continue // its twin would do as well, and is among the options
		}
		mark := len(s.trail)
		if s.place(i, t, level) && s.solve(a, b, level+1) {
			return true
		}
		s.undo(mark)
		if s.stopped || !has(s.conflict, level) {
			return false // the same would happen whatever is decided here
		}
		join(blamed, s.conflict)
	}
	// None of them rests on this floor: what is lowest here rests on something else in the valley, or outside it.
	for u := first; u <= last; u++ {
		join(blamed, s.blameOf(u))
		for _, i := range s.member[u][:s.count[u]] {
			if (s.sec.lo[i] == u || u == first) && (s.sec.lo[i] > t || s.sec.hi[i] < t) {
				next = min(next, s.support[i]+s.size[i])
				join(blamed, s.blameOf(s.supporter[i]))
			}
		}
	}
	remove(blamed, level)
	if next <= s.height-s.left[t] {
		mark := len(s.trail)
		copy(s.why, blamed)
		add(s.why, level)
		s.raise(t, next, s.why)
		if s.propagate() && s.solve(a, b, level+1) {
			return true
		}
		s.undo(mark)
		if s.stopped || !has(s.conflict, level) {
			return false
		}
		join(blamed, s.conflict)
		remove(blamed, level)
	}
	copy(s.conflict, blamed)
	return false
}

// choose picks the section to decide, by the rule, and gives the first and last section of its valley.
func (s *search) choose(a, b int32) (section, first, last int32) {
	section = -1
	var options, waste, floor int64
	for l := a; l <= b; {
		r := l
		for r < b && s.floor[r+1] == s.floor[l] {
			r++
		}
		if (l == a || s.floor[l-1] > s.floor[l]) && (r == b || s.floor[r+1] > s.floor[l]) {
			for t := l; t <= r; t++ {
				w, f := s.height-s.end[t], s.floor[t]
				o := min(w, 1) // raising the floor is an option too
				for _, i := range s.member[t][:s.count[t]] {
					if s.support[i] == f {
						o++
					}
				}
				var order int
				switch s.pick {
				case fewestOptions:
					order = cmp.Or(cmp.Compare(o, options), cmp.Compare(w, waste))
				case lowestFloor:
					order = cmp.Or(cmp.Compare(f, floor), cmp.Compare(o, options), cmp.Compare(w, waste))
				case leastWaste:
					order = cmp.Or(cmp.Compare(w, waste), cmp.Compare(o, options))
				case lowestLeastWaste:
					order = cmp.Or(cmp.Compare(f, floor), cmp.Compare(w, waste), cmp.Compare(o, options))
				default:
					order = cmp.Or(cmp.Compare(o, options), cmp.Compare(f, floor), cmp.Compare(w, waste))
				}
				if section < 0 || order < 0 {
					section, first, last, options, waste, floor = t, l, r, o, w, f
				}
			}
		}
		l = r + 1
	}
	return section, first, last
}

// fitness counts the edges of the skyline that placing an interval saves: where it meets a wall of its valley, or the end
// of all, and once more if it is as high as the wall.
func (s *search) fitness(i, a, b, first, last int32) int8 {
	var n int8
	top := s.support[i] + s.size[i]
	if s.sec.lo[i] == first {
		if n++; first == a || s.floor[first-1] == top {
			n++
		}
	}
	if s.sec.hi[i] == last {
		if n++; last == b || s.floor[last+1] == top {
			n++
		}
	}
	return n
}
