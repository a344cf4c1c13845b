package piecewise

import (
	"cmp"
	"slices"
)

// window is a run of sections that is searched by itself: what lies wholly in it may move, and what reaches beyond it
// stays where it is, if it has an offset.
type window struct {
	first, last int32 // sections
	weight      float64
}

// maxWindow bounds the intervals of one search, as maxReach does all.
const maxWindow = 1 << 16

// anew begins with nothing: it cuts time into a few windows and solves them one after the other, the hardest first. Where
// that fails, the sections of the window grow heavier, and are solved earlier in later rounds.
func (m *improver) anew(height, budget int64, wider int) bool {
	copy(m.fixed, m.given)
	clear(m.solved)
	for _, w := range m.cut(1 + m.choose(m.ways.parts)) {
		if !m.solve(w, height, budget, wider) {
			for t := w.first; t <= w.last; t++ {
				m.weight[t] += 10 / float64(w.last-w.first+1)
			}
			return false
		}
	}
	return true
}

// repair takes the best placement, and solves windows around all that does not end below the height.
func (m *improver) repair(height, budget int64, wider int) bool {
	inside := 10 << m.choose(m.ways.inside)
	copy(m.fixed, m.best.Offsets)
	for t := range m.solved {
		m.solved[t] = true
	}
	for i, it := range m.items {
		if m.fixed[i]+it.Size > height && !m.solve(m.around(int32(i), height, inside), height, budget, wider) {
			return false
		}
	}
	return true
}

// cut divides the sections at random places, where few intervals cross, and sorts the windows: those that failed often and
// those with little room come first.
func (m *improver) cut(parts int) []window {
	last := m.sec.count - 1
	ends := []int32{last}
	for range min(parts-1, int(last)) {
		at, least := int32(-1), 0.0
		for range 4 {
			t := m.rng.Int32N(last)
			if score := m.crossing[t] * (0.5 + m.rng.Float64()); at < 0 || score < least {
				at, least = t, score
			}
		}
		ends = append(ends, at)
	}
	slices.Sort(ends)
	var windows []window
	first := int32(0)
	for _, end := range slices.Compact(ends) {
		w := window{first: first, last: end}
		for t := first; t <= end; t++ {
			w.weight = max(w.weight, m.weight[t]+20*float64(m.live[t])/float64(m.least))
		}
		windows = append(windows, w)
		first = end + 1
	}
	slices.SortStableFunc(windows, func(a, b window) int { return cmp.Compare(b.weight, a.weight) })
	return windows
}

// around gives a window with an interval and so many others wholly in it, beyond which nothing that reaches into it ends
// above the height.
func (m *improver) around(i int32, height int64, inside int) window {
	w := window{first: m.sec.lo[i], last: m.sec.hi[i]}
	n, seen := 0, window{first: w.first, last: w.first - 1} // the sections of seen have been looked at
	for {
		for w.first < seen.first || seen.last < w.last { // what reaches beyond w must not be too high
			t := seen.first - 1
			if w.first >= seen.first {
				seen.last++
				t = seen.last
			} else {
				seen.first--
			}
			for _, j := range m.member[t] {
				if m.fixed[j]+m.items[j].Size > height {
					w.first, w.last = min(w.first, m.sec.lo[j]), max(w.last, m.sec.hi[j])
				}
			}
		}
		n = 0
		for t := w.first; t <= w.last; t++ {
			for _, j := range m.member[t] {
				if m.sec.lo[j] == t && m.sec.hi[j] <= w.last {
					n++
				}
			}
		}
		last := m.sec.count - 1
		switch {
		case n >= inside || w.first == 0 && w.last == last:
			return w
		case w.last == last || w.first > 0 && m.rng.IntN(2) == 0:
			w.first--
		default:
			w.last++
		}
	}
}

// solve places what lies in a window. If that fails, it widens the window into those that are solved, and tries again.
func (m *improver) solve(w window, height, budget int64, wider int) bool {
	for ; ; wider-- {
		s, ids := m.searchOf(w)
		if s == nil {
			return false
		}
		result := gaveUp
		for try := 0; try < 2 && result == gaveUp && m.goesOn(); try++ {
			m.shuffle(s)
			result = s.run(height, min(budget, m.nodes))
			m.nodes -= s.nodes + int64(len(s.size))/8 + 1 // what it takes to begin counts as well
		}
		if result == found {
			for k, i := range ids {
				m.fixed[i] = s.offset[k]
			}
			for t := w.first; t <= w.last; t++ {
				m.solved[t] = true
			}
			return true
		}
		if result == impossible && s == m.whole {
			m.least = max(m.least, height+m.unit)
		}
		wide := m.widen(w)
		if wider == 0 || wide == w || !m.goesOn() {
			return false
		}
		w = wide
	}
}

// widen widens a window into solved ones, by a third to two thirds on each side.
func (m *improver) widen(w window) window {
	by := func() int32 { return 1 + (w.last-w.first+1)*(2+m.rng.Int32N(3))/6 }
	first, last := max(0, w.first-by()), min(m.sec.count-1, w.last+by())
	for w.first > first && m.solved[w.first-1] {
		w.first--
	}
	for w.last < last && m.solved[w.last+1] {
		w.last++
	}
	return w
}

// searchOf gives the search of a window and the intervals that it is about, by its numbers; nil if they reach too far.
func (m *improver) searchOf(w window) (*search, []int32) {
	all := w.first == 0 && w.last == m.sec.count-1
	var ids []int32
	var items []Interval
	var fixed []int64
	reach := int64(0)
	for t := w.first; t <= w.last; t++ {
		for _, i := range m.member[t] {
			lo, hi := m.sec.lo[i], m.sec.hi[i]
			if lo != t && t != w.first {
				continue // it was seen
			}
			at := m.fixed[i]
			if lo >= w.first && hi <= w.last {
				at = m.given[i]
			}
			lo, hi = max(lo, w.first), min(hi, w.last)
			ids = append(ids, i)
			items = append(items, Interval{int(lo), int(hi), m.items[i].Size})
			fixed = append(fixed, at)
			if reach += int64(hi - lo + 1); reach > maxWindow {
				return nil, nil
			}
		}
	}
	if all {
		if m.whole == nil {
			m.whole = newSearch(items, fixed)
			m.whole.deadline = m.deadline
		}
		return m.whole, ids
	}
	s := newSearch(items, fixed)
	s.deadline = m.deadline
	return s, ids
}

// shuffle chooses the rule and the order of a search's next run.
func (m *improver) shuffle(s *search) {
	s.pick = rule(m.choose(m.ways.rule))
	s.fit = m.choose(m.ways.fit) == 1
	measure := measures[m.choose(m.ways.order)]
	noise := 0.3 * float64(m.choose(m.ways.noise))
	score := make([]float64, len(s.rank))
	order := make([]int32, len(s.rank))
	for i := range score {
		length := float64(s.sec.hi[i] - s.sec.lo[i] + 1)
		score[i] = measure(length, float64(s.size[i])) * (1 + noise*m.rng.Float64())
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(i, j int32) int { return cmp.Compare(score[j], score[i]) })
	for k, i := range order {
		s.rank[i] = int32(k)
	}
}

// measures of an interval, by its length in sections and its size: the larger, the earlier it is tried.
var measures = []func(length, size float64) float64{
	func(l, _ float64) float64 { return l },
	func(_, z float64) float64 { return z },
	func(l, z float64) float64 { return l * z },
	func(l, z float64) float64 { return l * l * z },
	func(l, z float64) float64 { return l * z * z },
}
