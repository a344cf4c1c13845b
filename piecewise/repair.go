package piecewise

import "time"

// repair takes the best placement, and searches again the parts of it that are not below a height. What stands there
// may move, with all that lies wholly in a window of time around it; the rest stays.
func (m *improver) repair(height int64) bool {
	copy(m.fixed, m.best.Offsets)
	inside := 10 << m.choose(m.sizes)
	budget := int64(250) << m.choose(m.budgets)
	for i, it := range m.items {
		if m.fixed[i]+it.Size <= height {
			continue
		}
		w := m.around(m.above(int32(i), height), inside, height)
		for t := range m.solved {
			m.solved[t] = true
		}
		if !m.solve(w, height, budget, m.choose(m.widen)) {
			return false
		}
	}
	return true
}

func (m *improver) above(i int32, height int64) window {
	return window{first: m.sec.lo[i], last: m.sec.hi[i]}
}

// around widens a window until so many intervals lie wholly in it, and all that reach into it are below the height.
func (m *improver) around(w window, inside int, height int64) window {
	n := 0
	for t := w.first; t <= w.last; t++ {
		for _, j := range m.begins[t] {
			if m.sec.hi[j] <= w.last {
				n++
			}
		}
	}
	for {
		for n < inside && (w.first > 0 || w.last < m.sec.count-1) {
			if w.last == m.sec.count-1 || w.first > 0 && m.rng.IntN(2) == 0 {
				w.first--
				for _, j := range m.begins[w.first] {
					if m.sec.hi[j] <= w.last {
						n++
					}
				}
			} else {
				w.last++
				for _, j := range m.ends[w.last] {
					if m.sec.lo[j] >= w.first {
						n++
					}
				}
			}
		}
		grown := w
		for j, it := range m.items {
			if m.sec.lo[j] <= w.last && m.sec.hi[j] >= w.first && m.fixed[j]+it.Size > height {
				grown.first, grown.last = min(grown.first, m.sec.lo[j]), max(grown.last, m.sec.hi[j])
			}
		}
		if grown == w {
			return w
		}
		w = grown
	}
}

// searchIn gives the search of a window in which everything may move; what reaches beyond it stays where it is.
func (m *improver) searchIn(w window) (*search, []int32) {
	if w.first == 0 && w.last == m.sec.count-1 {
		if m.whole == nil {
			m.whole = newSearch(m.items, nil)
			m.all = make([]int32, len(m.items))
			for i := range m.all {
				m.all[i] = int32(i)
			}
		}
		return m.whole, m.all
	}
	var ids []int32
	var items []Interval
	var fixed []int64
	for i, it := range m.items {
		lo, hi := m.sec.lo[i], m.sec.hi[i]
		if hi < w.first || lo > w.last {
			continue
		}
		at := int64(-1)
		if lo < w.first || hi > w.last {
			at = m.fixed[i]
		}
		ids = append(ids, int32(i))
		items = append(items, Interval{int(max(lo, w.first)), int(min(hi, w.last)), it.Size})
		fixed = append(fixed, at)
	}
	return newSearch(items, fixed), ids
}

// goesOn tells whether there are nodes and time left.
func (m *improver) goesOn() bool {
	return m.nodes > 0 && (m.deadline.IsZero() || time.Now().Before(m.deadline))
}
