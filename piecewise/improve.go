package piecewise

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// Effort bounds the search for a lower placement behind the first ones.
type Effort struct {
	Nodes  int64            // of search trees, all together; 0: no search
	Time   time.Duration    // 0: no limit. With one, how far a search comes depends on the machine
	Better func(*Placement) // if set: called with each placement that is lower than those before
}

// maxReach bounds the intervals that are searched: the sum over them of the sections that they live through.
const maxReach = 1 << 20

// improver looks for placements lower than the best so far, in rounds. A round aims at a height: the bound, or half way
// down to it. It cuts time into a few windows and solves them one after the other, the hardest first; intervals that reach
// into a window that is solved have their offsets from there. Where a round fails, the sections of the window that failed
// grow heavier, and are solved earlier in later rounds. Search trees have heavy tails: a round spends few nodes and leaves
// the rest to chance, with other cuts, orders and rules. The chance is seeded: equal intervals, equal rounds.
type improver struct {
	items    []Interval
	sec      sections
	unit     int64     // heights are multiples of it
	least    int64     // no placement is lower
	live     []int64   // per section: bytes
	crossing []float64 // per section but the last: intervals that live in it and in the next
	weight   []float64 // per section
	whole    *search   // of all sections; keeps its dead ends over the rounds
	all      []int32   // the numbers of all intervals
	fixed    []int64   // per interval: offset in this round, -1 if it has none yet
	rng      *rand.Rand

	// How often each way has led to a placement, and before the first time a guess, from instances of real compilers.
	parts, budgets, rules, orders, noises, fits, repairs, sizes, widen []float64
	chosen                                                             []*float64 // in this round

	begins, ends     [][]int32 // per section: the intervals that do
	solved           []bool
	steps            [2]float64
	heavy            []float64
	homeless, others []int32

	nodes    int64
	deadline time.Time // zero: none
	best     *Placement
}

// improve searches for a placement lower than best, whose offsets are of the same intervals.
func improve(items []Interval, best *Placement, effort Effort) {
	if effort.Nodes <= 0 || best.Height <= best.Bound {
		return
	}
	m := newImprover(items, best, effort)
	for reach, i := int64(0), 0; i < len(items); i++ {
		if reach += int64(m.sec.hi[i] - m.sec.lo[i] + 1); reach > maxReach {
			return
		}
	}
	for best.Height > m.least && m.goesOn() {
		if m.round() {
			for i := range items {
				best.Offsets[i] = m.fixed[i]
			}
			best.Height = heightOf(items, best.Offsets)
			if effort.Better != nil {
				effort.Better(best)
			}
		}
	}
}

func newImprover(items []Interval, best *Placement, effort Effort) *improver {
	m := &improver{items: items, sec: newSections(items), least: best.Bound, best: best, nodes: effort.Nodes,
		fixed: make([]int64, len(items)), rng: rand.New(rand.NewPCG(1, 2)),
		parts: []float64{3, 3, 2, 1, 1, 1, 1, 1}, budgets: []float64{4, 4, 2, 1, 0.5, 0.25}, rules: []float64{1, 1, 1, 1, 1},
		orders: []float64{3, 1, 1, 1, 1}, noises: []float64{3, 1}, fits: []float64{1, 1}, repairs: []float64{1, 3}, sizes: []float64{1, 1, 1, 1}, widen: []float64{0.5, 1, 1, 1, 1, 1}, solved: make([]bool, len(items)*2), steps: [2]float64{0.5, 0.5}}
	if effort.Time > 0 {
		m.deadline = time.Now().Add(effort.Time)
	}
	m.live, m.crossing, m.weight = make([]int64, m.sec.count), make([]float64, m.sec.count), make([]float64, m.sec.count)
	m.begins, m.ends, m.heavy = make([][]int32, m.sec.count), make([][]int32, m.sec.count), make([]float64, len(items))
	for i, it := range items {
		m.begins[m.sec.lo[i]] = append(m.begins[m.sec.lo[i]], int32(i))
		m.ends[m.sec.hi[i]] = append(m.ends[m.sec.hi[i]], int32(i))
		m.unit = gcd(m.unit, it.Size)
		for t := m.sec.lo[i]; t <= m.sec.hi[i]; t++ {
			m.live[t] += it.Size
			if t < m.sec.hi[i] {
				m.crossing[t]++
			}
		}
	}
	return m
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func heightOf(items []Interval, offsets []int64) int64 {
	var height int64
	for i, it := range items {
		height = max(height, offsets[i]+it.Size)
	}
	return height
}

// aim is the height that a round tries to reach: some part of the way down to the least, more after rounds that got there
// and less after others; at times the least itself, where searches that must fail do so soon.
func (m *improver) aim(way int) int64 {
	gap := m.best.Height - m.least
	if m.rng.IntN(4) == 0 {
		return m.least
	}
	return max(m.least, m.best.Height-max(m.unit, int64(float64(gap)*m.steps[way])/m.unit*m.unit))
}

type window struct {
	first, last int32 // sections
	weight      float64
}

// round tries to place everything below a height; fixed holds the offsets then.
func (m *improver) round() (won bool) {
	m.chosen = m.chosen[:0]
	way := m.choose(m.repairs)
	height := m.aim(way)
	defer func() {
		switch {
		case won:
			m.steps[way] = min(1, 1.5*m.steps[way])
		case height > m.least:
			m.steps[way] = max(0.03, 0.95*m.steps[way])
		}
	}()
	if way == 1 {
		if !m.repair(height) {
			return false
		}
		for _, c := range m.chosen {
			*c++
		}
		return true
	}
	windows := m.cut(1 + m.choose(m.parts))
	for i := range m.fixed {
		m.fixed[i] = -1
	}
	budget := int64(250) << m.choose(m.budgets)
	clear(m.solved)
	widenings := m.choose(m.widen)
	for _, w := range windows {
		if !m.solve(w, height, budget, widenings) {
			for t := w.first; t <= w.last; t++ {
				m.weight[t] += 10 / float64(w.last-w.first+1)
			}
			return false
		}
	}
	for _, c := range m.chosen {
		*c++
	}
	return true
}

// choose picks one of several ways by chance, in proportion to how often each has led to a placement.
func (m *improver) choose(ways []float64) int {
	var sum float64
	for _, w := range ways {
		sum += w
	}
	at := m.rng.Float64() * sum
	for k := range ways {
		if at -= ways[k]; at < 0 || k == len(ways)-1 {
			m.chosen = append(m.chosen, &ways[k])
			return k
		}
	}
	return 0
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

// solve places what lies in a window. If that fails, it widens the window into those that are solved, and tries again.
func (m *improver) solve(w window, height, budget int64, widenings int) bool {
	for ; ; widenings-- {
		s, ids := m.searchIn(w)
		result := gaveUp
		for try := 0; try < 2 && result == gaveUp && m.nodes > 0; try++ {
			m.shuffle(s)
			result = s.run(height, min(budget, m.nodes))
			m.nodes -= s.nodes + int64(len(ids))/8 + 1
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
		if result == impossible && len(ids) == len(m.items) && s == m.whole {
			m.least = max(m.least, height+m.unit)
		}
		wider := m.wider(w, height)
		if widenings <= 0 || wider == w || !m.goesOn() {
			return false
		}
		w = wider
	}
}

// wider widens a window into solved ones, by a third to two thirds on each side.
func (m *improver) wider(w window, height int64) window {
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

// shuffle chooses the rule and the order of a search's next run.
func (m *improver) shuffle(s *search) {
	s.pick = rule(m.choose(m.rules))
	s.fit = m.choose(m.fits) == 1
	measure := measures[m.choose(m.orders)]
	noise := 0.3 * float64(m.choose(m.noises))
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
