package piecewise

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Effort bounds the search for a lower placement behind the first ones.
type Effort struct {
	Nodes  int64            // of search trees, all together; 0: no search
	Time   time.Duration    // of the search; 0: no limit. With one, how far a search comes depends on the machine
	Enough int64            // a height that need not be improved on
	Better func(*Placement) // if set: called with each placement that is lower than those before
}

const (
	maxReach  = 1 << 20 // the sections that all intervals live through, added up: no search beyond it
	maxHeight = 1 << 61 // nor of higher placements, so that sums of two heights can be counted
)

// improver looks for placements lower than the best so far, in rounds. A round aims at a height and chooses by chance how
// to get there: it begins anew, or it takes what stands too high in the best placement out and finds it another place
// (windows.go). Search trees have heavy tails, so that a round spends few nodes and leaves the rest to the next, with
// other windows, orders and rules; what has led to a placement is chosen more often. The chance is seeded: equal
// intervals, equal rounds.
type improver struct {
	items []Interval
	given []int64 // per interval: the offset that it must have, -1: any
	sec   sections
	unit  int64 // heights are multiples of it
	least int64 // no placement is lower
	rng   *rand.Rand

	member   [][]int32 // per section: its intervals
	live     []int64   // per section: bytes
	crossing []float64 // per section but the last: intervals that live in it and in the next
	weight   []float64 // per section: how often windows there failed
	whole    *search   // of all sections; keeps its dead ends over the rounds

	fixed  []int64 // per interval: offset in this round, -1 if it has none yet
	solved []bool  // per section: it is in a window that has its offsets

	ways   ways
	chosen []*float64 // weights of the ways of this round
	step   [2]float64 // for a round that repairs, and one that begins anew: which part of the way down it aims at

	nodes    int64
	deadline time.Time // zero: none
	best     *Placement
}

// ways to go on, and how often each has led to a placement; before the first time a guess, from instances of real
// compilers.
type ways struct {
	repair []float64 // the best placement; or begin anew
	parts  []float64 // windows to begin with, less one
	inside []float64 // intervals in a window of a repair: 10, 20, 40, 80
	budget []float64 // nodes of a search: 250, 500, 1000, ...
	wider  []float64 // how often a window that failed is widened
	rule   []float64 // of searches
	fit    []float64 // whether what fits the skyline is tried first
	order  []float64 // measures
	noise  []float64 // in the order: none, some
}

func newWays() ways {
	return ways{
		repair: []float64{3, 1}, parts: []float64{3, 3, 2, 1, 1, 1, 1, 1}, inside: []float64{1, 1, 1, 1},
		budget: []float64{4, 4, 2, 1, 0.5, 0.25}, wider: []float64{0.5, 1, 1, 1, 1, 1}, rule: []float64{1, 1, 1, 1, 1},
		fit: []float64{1, 1}, order: []float64{3, 1, 1, 1, 1}, noise: []float64{3, 1},
	}
}

// improve searches for a placement lower than best, whose offsets are of the same intervals. given are offsets that must
// stay, -1: any; nil: any for all.
func improve(items []Interval, given []int64, best *Placement, effort Effort) {
	if effort.Nodes <= 0 || best.Height <= best.Bound || best.Height > maxHeight {
		return
	}
	m := newImprover(items, given, best, effort)
	if m == nil {
		return
	}
	for best.Height > max(m.least, effort.Enough) && m.goesOn() {
		if !m.round() {
			continue
		}
		copy(best.Offsets, m.fixed)
		best.Height = 0
		for i, it := range items {
			best.Height = max(best.Height, best.Offsets[i]+it.Size)
		}
		if effort.Better != nil {
			effort.Better(best)
		}
	}
}

// newImprover gives nil if the intervals reach too far.
func newImprover(items []Interval, given []int64, best *Placement, effort Effort) *improver {
	if given == nil {
		given = slices.Repeat([]int64{-1}, len(items))
	}
	m := &improver{items: items, given: given, sec: newSections(items), least: best.Bound, best: best, nodes: effort.Nodes,
		fixed: make([]int64, len(items)), rng: rand.New(rand.NewPCG(1, 2)), ways: newWays(), step: [2]float64{0.5, 0.5}}
	if m.sec.reach() > maxReach {
		return nil
	}
	if effort.Time > 0 {
		m.deadline = time.Now().Add(effort.Time)
	}
	count := m.sec.count
	m.member, m.live, m.crossing, m.weight = make([][]int32, count), make([]int64, count), make([]float64, count), make([]float64, count)
	m.solved = make([]bool, count)
	for i, it := range items {
		m.unit = gcd(m.unit, it.Size)
		if given[i] >= 0 {
			m.unit = gcd(m.unit, given[i])
			m.least = max(m.least, given[i]+it.Size)
		}
		for t := m.sec.lo[i]; t <= m.sec.hi[i]; t++ {
			m.member[t] = append(m.member[t], int32(i))
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

// goesOn tells whether there are nodes and time left.
func (m *improver) goesOn() bool {
	return m.nodes > 0 && (m.deadline.IsZero() || time.Now().Before(m.deadline))
}

// round tries to place everything below a height; fixed holds the offsets then.
func (m *improver) round() bool {
	m.chosen = m.chosen[:0]
	m.nodes-- // whatever it comes to
	way := m.choose(m.ways.repair)
	height := m.aim(m.step[way])
	budget := int64(250) << m.choose(m.ways.budget)
	wider := m.choose(m.ways.wider)
	var done bool
	if way == 0 {
		done = m.repair(height, budget, wider)
	} else {
		done = m.anew(height, budget, wider)
	}
	switch step := &m.step[way]; {
	case done:
		*step = min(0.75, 1.5**step)
		for _, weight := range m.chosen {
			*weight++
		}
	case height > m.least:
		*step = max(0.03, 0.9**step)
	}
	return done
}

// aim is the height that a round tries to reach: some part of the way down to the least. Every fourth time it is the
// least itself, where searches that must fail do so soon.
func (m *improver) aim(part float64) int64 {
	if m.rng.IntN(4) == 0 {
		return m.least
	}
	down := int64(float64(m.best.Height-m.least)*part) / m.unit * m.unit
	return max(m.least, m.best.Height-max(m.unit, down))
}

// choose picks one of several ways by chance, in proportion to how often each has led to a placement.
func (m *improver) choose(weights []float64) int {
	var sum float64
	for _, w := range weights {
		sum += w
	}
	at := m.rng.Float64() * sum
	k := 0
	for ; k < len(weights)-1 && at >= weights[k]; k++ {
		at -= weights[k]
	}
	m.chosen = append(m.chosen, &weights[k])
	return k
}
