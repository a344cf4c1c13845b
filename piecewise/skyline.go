package piecewise

import "math/bits"

// The skyline of a search: how it rises and is undone, and what is to blame.

type changeKind uint8

const (
	floorRose changeKind = iota
	supportRose
	wasPlaced
	endRose
)

// change is what undo needs.
type change struct {
	kind  changeKind
	at    int32 // section, or interval
	other int32 // supporter
	old   int64
}

// place puts an interval on its support, which is the floor of section t. False: a dead end.
func (s *search) place(i, t int32, level int) bool {
	s.trail = append(s.trail, change{kind: wasPlaced, at: i})
	s.placed[i] = true
	s.offset[i] = s.support[i]
	top := s.support[i] + s.size[i]
	copy(s.why, s.blameOf(t))
	add(s.why, level)
	lo, hi := s.sec.lo[i], s.sec.hi[i]
	for u := lo; u <= hi; u++ {
		s.left[u] -= s.size[i]
		s.count[u]--
		s.swap(u, i, s.count[u])
	}
	s.keys[lo] -= s.keyOf[i]
	for u := lo; u <= hi; u++ {
		s.raise(u, top, s.why)
		s.enqueue(u)
	}
	return s.propagate()
}

// swap moves a member of a section to a spot.
func (s *search) swap(t, i, to int32) {
	members := s.member[t]
	from := &s.spot[i][t-s.sec.lo[i]]
	other := members[to]
	s.spot[other][t-s.sec.lo[other]] = *from
	members[*from], members[to] = other, i
	*from = to
}

// raise lifts a floor, and the supports that it carries.
func (s *search) raise(t int32, to int64, why []uint64) {
	s.trail = append(s.trail, change{kind: floorRose, at: t, old: s.floor[t]})
	s.saved = append(s.saved, s.blameOf(t)...)
	join(s.blameOf(t), why)
	s.setFloor(t, to)
	for _, i := range s.member[t][:s.count[t]] {
		if s.support[i] >= to {
			continue
		}
		s.trail = append(s.trail, change{supportRose, i, s.supporter[i], s.support[i]})
		s.support[i], s.supporter[i] = to, t
		if s.fixed[i] >= 0 {
			s.crushed = t
		}
		for u := s.sec.lo[i]; u <= s.sec.hi[i]; u++ {
			if s.floor[u] < to {
				s.enqueue(u)
			}
		}
	}
}

// enqueue has propagate look at a section: at its floor if that does not wait for it yet, and then at whether it fits.
func (s *search) enqueue(t int32) {
	if !s.waiting[t] {
		s.waiting[t], s.queued[t] = true, true
		s.queue = append(s.queue, t)
	}
}

func (s *search) dropQueue() {
	for _, t := range s.queue {
		s.waiting[t], s.queued[t] = false, false
	}
	s.queue = s.queue[:0]
}

// propagate raises floors on which nothing can rest any more, as far as that leads, and then looks whether what is left
// still fits. False: a dead end, with the decisions to blame in conflict.
func (s *search) propagate() bool {
	for k := 0; k < len(s.queue); k++ {
		t := s.queue[k]
		s.waiting[t] = false
		members := s.member[t][:s.count[t]]
		lowest := never
		for _, i := range members {
			if lowest = min(lowest, s.support[i]); lowest <= s.floor[t] {
				break
			}
		}
		if lowest > s.floor[t] && len(members) > 0 {
			clear(s.why)
			for _, i := range members {
				join(s.why, s.blameOf(s.supporter[i]))
			}
			s.raise(t, lowest, s.why)
		}
		if s.crushed >= 0 {
			copy(s.conflict, s.blameOf(s.crushed))
			s.crushed = -1
			s.dropQueue()
			return false
		}
	}
	for k := len(s.queue) - 1; k >= 0; k-- {
		if t := s.queue[k]; s.queued[t] {
			s.queued[t] = false
			if !s.fits(t) {
				s.dropQueue()
				return false
			}
		}
	}
	s.queue = s.queue[:0]
	return true
}

// fits sets the end of a section, and tells whether that is within the height.
func (s *search) fits(t int32) bool {
	members := s.member[t][:s.count[t]]
	highest, resting := s.floor[t], int64(0)
	for _, i := range members {
		highest = max(highest, s.support[i])
		if s.support[i] == s.floor[t] {
			resting += s.size[i]
		}
	}
	end := s.floor[t] + s.left[t]
	if max(end, highest-resting+s.left[t]) > s.height { // unless there is room for all gaps
		var ok bool
		if end, ok = s.stack(t); !ok {
			return false
		}
	}
	if end != s.end[t] {
		s.trail = append(s.trail, change{kind: endRose, at: t, old: s.end[t]})
		s.end[t] = end
	}
	return true
}

// stack puts what is left over a section on one another, the lowest support first, and gives the end: nothing ends lower.
// False: that is above the height, with the decisions to blame in conflict.
func (s *search) stack(t int32) (end int64, ok bool) {
	list := s.stacked[t]
	for k := 1; k < len(list); k++ { // it was sorted before; little has changed
		i := list[k]
		j, at := k, s.support[i]
		for ; j > 0 && s.support[list[j-1]] > at; j-- {
			list[j] = list[j-1]
		}
		list[j] = i
	}
	block := 0 // what stands from here on has no gaps between
	for k, i := range list {
		if s.placed[i] {
			continue
		}
		if s.support[i] > end {
			end, block = s.support[i], k
		}
		if end += s.size[i]; end > s.height {
			clear(s.conflict)
			if s.support[list[block]] == s.floor[t] {
				join(s.conflict, s.blameOf(t))
			}
			for _, i := range list[block:] {
				if !s.placed[i] {
					join(s.conflict, s.blameOf(s.supporter[i]))
				}
			}
			return end, false
		}
	}
	return end, true
}

func (s *search) undo(mark int) {
	for len(s.trail) > mark {
		c := s.trail[len(s.trail)-1]
		s.trail = s.trail[:len(s.trail)-1]
		switch c.kind {
		case floorRose:
			s.setFloor(c.at, c.old)
			from := len(s.saved) - s.words
			copy(s.blameOf(c.at), s.saved[from:])
			s.saved = s.saved[:from]
		case supportRose:
			s.support[c.at], s.supporter[c.at] = c.old, c.other
		case endRose:
			s.end[c.at] = c.old
		case wasPlaced: // it still stands behind the members that are left
			s.placed[c.at] = false
			s.keys[s.sec.lo[c.at]] += s.keyOf[c.at]
			for t := s.sec.lo[c.at]; t <= s.sec.hi[c.at]; t++ {
				s.left[t] += s.size[c.at]
				s.count[t]++
			}
		}
	}
}

func (s *search) setFloor(t int32, to int64) {
	s.keys[t] += floorKey(t, to) - floorKey(t, s.floor[t])
	s.floor[t] = to
}

// hash is of all that solve(a, b) depends on.
func (s *search) hash(a, b int32) uint64 {
	h := uint64(a)<<32 | uint64(b)
	for _, key := range s.keys[a : b+1] {
		h += key
	}
	return scramble(h)
}

func floorKey(t int32, floor int64) uint64 { return scramble(uint64(t)<<44 ^ uint64(floor)) }

// scramble spreads the bits of a number over a word.
func scramble(x uint64) uint64 {
	hi, lo := bits.Mul64(x^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}

// ---- Blame: sets of levels ----------------------------------------------------------------------------------

func (s *search) blameOf(t int32) []uint64 {
	if t < 0 {
		return s.nothing
	}
	return s.blame[int(t)*s.words : int(t+1)*s.words]
}

func join(set, with []uint64) {
	for k, w := range with {
		set[k] |= w
	}
}

func add(set []uint64, level int)      { set[level/64] |= 1 << (level % 64) }
func remove(set []uint64, level int)   { set[level/64] &^= 1 << (level % 64) }
func has(set []uint64, level int) bool { return set[level/64]>>(level%64)&1 != 0 }
