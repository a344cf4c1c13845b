package piecewise

import (
	"cmp"
	"math"
	"slices"
)

// A budget whose prices depend on a bucket's size. For a given count k of buckets all limits together are one: the sizes
// of the buckets may add up to room(k) at most. That is a shortest path with k edges and one resource, which is solved
// exactly in two steps.
//
// 1. Bounds. With a multiplier mu, a price in tokens for each token of bucket size, the programme of byCount gives for
// every k at once the least of "tokens + mu * sum of sizes"; less mu * room(k) that is a lower bound of the tokens of any
// ladder of k buckets within the budget, and the ladder it comes from, if it is within the budget, is an upper one.
// Multipliers are where the lines of the best ladder within and the best one without cross, until nothing new comes.
//
// 2. Completion. For each k whose lower bound does not exceed the best upper one, ladders are built from the largest size
// down, and all those are dropped that another one dominates (same sizes held, no more tokens, no larger sum) or that
// the bound of step 1 proves to end above the upper bound. What is left contains every best ladder.
//
// Step 1 takes a few multipliers for each count that comes into question, each O(k m log m). Step 2 depends on the gap
// between the bounds and on how many sums of sizes there are within it: few where sizes are dense (8,192 sizes up to
// 8,192: about as long as step 1), many where they lie far apart (2,000 sizes up to a million: some ten times as long or
// more). In the worst case there are as many labels as sums; beyond maxLabels or maxLooks it gives up with an error, never
// with a ladder that is not the best.

const (
	maxLabels = 1 << 22 // of step 2, for one count of buckets; 16 bytes each
	maxLooks  = 1 << 33 // at labels, of all of step 2: some ten seconds
	maxScale  = 1 << 10 // multipliers are this fine, where 60 bits allow it
	firstGap  = 1 << 10 // the first threshold is this part of the way between the bounds
)

var errTooMany = Errorf(ErrArgument, "budget: too many ladders are nearly the best one to tell which is; lower max_buckets or merge sizes of the histogram")

// label is a ladder's upper part: `sum` of its buckets' sizes, and the `tokens` of its steps, padding included.
type label struct{ sum, tokens int64 }

// frontier is the labels that hold the sizes from an index on, none dominated, by rising sum and falling tokens.
type frontier struct {
	index  int
	labels []label
	least  int64 // of tokens + mu * sum over them, in 1/scale tokens
}

// countBounds is what step 1 knows of ladders with k buckets.
type countBounds struct {
	k           int
	room        int64
	lower       int64 // tokens that no ladder within the budget is below
	mu          int64 // the multiplier that proved it
	within, out label // the ladders between which the next multiplier is sought; `within` is an upper bound
	settled     bool
}

type pricer struct {
	programme
	m         int
	counts    []countBounds // of k = 1, 2, ..., at k-1
	maxLabels int
	looks     int64 // left
}

func byPrice(h *histogram, b LadderBudget, most int) ([]int64, error) {
	if err := checkStates(h, most); err != nil {
		return nil, err
	}
	return newPricer(h, b, most).choose()
}

func (p *pricer) choose() ([]int64, error) {
	best, bestK := int64(math.MaxInt64), 0 // the upper bound, and the fewest buckets that reach it
	improve := func() {
		for i := range p.counts {
			if c := &p.counts[i]; c.within.tokens < best {
				best, bestK = c.within.tokens, c.k
			}
		}
	}
	p.evaluate(0)
	for improve(); ; improve() {
		c := p.loosest(best, bestK)
		if c == nil {
			break
		}
		p.narrow(c)
	}
	return p.completeAny(best)
}

// completeAny is step 2 for all counts together, under a threshold that rises from the lowest bound to the upper one: the
// best ladder is mostly near the bound, and labels grow with the threshold. The first threshold that lets a ladder end
// lets all better ones end too, of whatever count.
func (p *pricer) completeAny(best int64) ([]int64, error) {
	lowest := best
	for _, c := range p.counts {
		lowest = min(lowest, c.lower)
	}
	for gap := (best - lowest) / firstGap; ; gap = 2*gap + 1 {
		limit := min(lowest+gap, best)
		var ladder []int64
		for _, c := range p.counts {
			if c.lower > limit {
				continue
			}
			tokens, found, err := p.complete(c, limit)
			if err != nil {
				return nil, err
			}
			if found != nil {
				ladder, limit = found, tokens-1 // as many tokens with more buckets are no better
			}
		}
		if ladder != nil {
			return ladder, nil
		}
		if limit == best {
			return nil, Errorf(ErrInternal, "ladder: none of %d tokens was completed", best)
		}
	}
}

func newPricer(h *histogram, b LadderBudget, most int) *pricer {
	m := len(h.size)
	p := &pricer{m: m, counts: make([]countBounds, most), maxLabels: maxLabels, looks: maxLooks}
	p.size, p.scale = h.size, 1
	for p.scale < maxScale && h.steps[m]*h.largest() <= maxPaddedWork/(2*p.scale) {
		p.scale *= 2
	}
	p.steps = make([]int64, m+1)
	for i, w := range h.steps {
		p.steps[i] = w * p.scale
	}
	smallest := label{sum: h.largest(), tokens: 0} // the k-1 smallest sizes, and the largest: within, whatever the limits
	for i := range p.counts {
		k := i + 1
		if k > 1 {
			smallest.sum += h.size[k-2]
			smallest.tokens += h.size[k-2] * (h.steps[k-1] - h.steps[k-2])
		}
		c := &p.counts[i]
		c.k, c.room, c.lower = k, b.room(int64(k), h.largest()), -1
		c.within = label{smallest.sum, smallest.tokens + h.largest()*(h.steps[m]-h.steps[k-1])}
	}
	return p
}

// evaluate brings the bounds of all counts up to one multiplier, in 1/scale tokens for a token of bucket size.
func (p *pricer) evaluate(mu int64) {
	before, out, choice := make([]int64, p.m+1), make([]int64, p.m+1), make([]int32, p.m+1)
	sums, sumsOut := make([]int64, p.m+1), make([]int64, p.m+1) // of the sizes of the ladders behind `before`, `out`
	for i := range p.counts {
		c := &p.counts[i]
		p.row(c.k, c.k, p.m, mu, before, out, choice)
		for n := c.k; n <= p.m; n++ {
			sumsOut[n] = sums[choice[n]] + p.size[n-1]
			if c.k == 1 {
				sumsOut[n] = p.size[n-1]
			}
		}
		c.learn(mu, p.scale, out[p.m], label{sum: sumsOut[p.m], tokens: (out[p.m] - mu*sumsOut[p.m]) / p.scale})
		before, out, sums, sumsOut = out, before, sumsOut, sums
	}
}

// learn takes in what one multiplier gave: the least `value`, and the ladder that has it.
func (c *countBounds) learn(mu, scale, value int64, l label) {
	if lower := divideUp(value-mu*c.room, scale); lower > c.lower {
		c.lower, c.mu = lower, mu
	}
	if l.sum <= c.room {
		if l.tokens < c.within.tokens || l.tokens == c.within.tokens && l.sum < c.within.sum {
			c.within, c.settled = l, false
		}
	} else if c.out.sum == 0 || l.sum < c.out.sum {
		c.out, c.settled = l, false
	}
}

// loosest is the count to look at next: of those that may still have the best ladder, the one with the lowest bound; nil
// when all are settled.
func (p *pricer) loosest(best int64, bestK int) *countBounds {
	var next *countBounds
	for i := range p.counts {
		c := &p.counts[i]
		if c.lower > best || c.lower == best && c.k > bestK || c.lower == c.within.tokens {
			continue
		}
		if !c.settled && (next == nil || c.lower < next.lower) {
			next = c
		}
	}
	return next
}

// narrow evaluates where the lines of c's two ladders cross. If that teaches nothing new about c, it is settled.
func (p *pricer) narrow(c *countBounds) {
	c.settled = true
	if c.out.sum == 0 {
		return // its best ladder without limits is within
	}
	// no more tokens than maxPaddedWork/scale, and the sums differ by at least one
	mu := (c.within.tokens - c.out.tokens) * p.scale / (c.out.sum - c.within.sum)
	mu = min(mu, maxPaddedWork/(int64(c.k)*p.size[p.m-1]))
	if mu > 0 {
		p.evaluate(mu)
	}
}

// complete finds the ladders of c.k buckets within the budget that take the fewest tokens, at most `limit`, and of those
// the lexicographically smallest; nil if there are none.
func (p *pricer) complete(c countBounds, limit int64) (int64, []int64, error) {
	rows := make([][]int64, c.k) // rows[n][i]: the least of n buckets over the i smallest sizes, at c.mu
	rows[0] = make([]int64, p.m+1)
	choice := make([]int32, p.m+1)
	for n := 1; n < c.k; n++ {
		rows[n] = make([]int64, p.m+1)
		p.row(n, n, p.m-(c.k-n), c.mu, rows[n-1], rows[n], choice)
	}
	upper := make([][]frontier, c.k+1) // upper[n]: of n buckets, by rising index
	upper[0] = []frontier{{index: p.m, labels: []label{{}}}}
	bound := limit*p.scale + c.mu*c.room
	total := 0
	var found []label
	var table []int64
	for n := 1; n <= c.k; n++ {
		left := c.k - n
		above := upper[n-1]
		for j := left; j < above[len(above)-1].index; j++ {
			if left == 0 && j > 0 {
				break // all buckets are used: they hold everything
			}
			found = found[:0]
			for f := len(above) - 1; f >= 0 && above[f].index > j; f-- {
				i := above[f].index
				size := p.size[i-1]
				cost := size * (p.steps[i] - p.steps[j])
				rest := bound - cost - c.mu*size - rows[left][j]
				if above[f].least > rest {
					continue
				}
				p.looks -= int64(len(above[f].labels))
				for _, l := range above[f].labels {
					if l.sum+size <= c.room && l.tokens*p.scale+c.mu*l.sum <= rest {
						found = append(found, label{sum: l.sum + size, tokens: l.tokens + cost/p.scale})
					}
				}
			}
			if p.looks < 0 {
				return 0, nil, errTooMany
			}
			if len(found) == 0 {
				continue
			}
			kept := frontier{index: j, least: math.MaxInt64}
			kept.labels, table = undominated(found, table)
			for _, l := range kept.labels {
				kept.least = min(kept.least, l.tokens*p.scale+c.mu*l.sum)
			}
			upper[n] = append(upper[n], kept)
			if total += len(kept.labels); total > p.maxLabels {
				return 0, nil, errTooMany
			}
		}
		if len(upper[n]) == 0 {
			return 0, nil, nil
		}
	}
	ends := upper[c.k][0].labels
	least := ends[len(ends)-1].tokens // by rising sum, tokens fall
	if least > limit {
		return 0, nil, nil // the bound forgives what a smaller sum than the room saves
	}
	return least, p.smallest(c, upper, least), nil
}

// smallest follows the labels from the smallest size up, always into the smallest bucket from which the rest can be
// completed within the room and the tokens.
func (p *pricer) smallest(c countBounds, upper [][]frontier, tokens int64) []int64 {
	ladder := make([]int64, 0, c.k)
	room, i := c.room, 0
	for n := c.k - 1; n >= 0; n-- {
		for _, f := range upper[n] {
			if f.index <= i {
				continue
			}
			size := p.size[f.index-1]
			rest := label{sum: room - size, tokens: tokens - size*((p.steps[f.index]-p.steps[i])/p.scale)}
			if slices.ContainsFunc(f.labels, func(l label) bool { return l.sum <= rest.sum && l.tokens <= rest.tokens }) {
				ladder = append(ladder, size)
				room, tokens, i = rest.sum, rest.tokens, f.index
				break
			}
		}
	}
	return ladder
}

// undominated keeps the labels that no other one beats in both, by rising sum and falling tokens. `table` is memory for
// it, given back for the next call.
func undominated(labels []label, table []int64) (kept []label, memory []int64) {
	lowest, highest := labels[0].sum, labels[0].sum
	for _, l := range labels {
		lowest, highest = min(lowest, l.sum), max(highest, l.sum)
	}
	if width := highest - lowest + 1; width <= 8*int64(len(labels)) { // sums lie close: a table of them
		table = slices.Grow(table[:0], int(width))[:width]
		for i := range table {
			table[i] = math.MaxInt64
		}
		for _, l := range labels {
			table[l.sum-lowest] = min(table[l.sum-lowest], l.tokens)
		}
		labels = labels[:0]
		for i, tokens := range table {
			if tokens < math.MaxInt64 {
				labels = append(labels, label{sum: lowest + int64(i), tokens: tokens})
			}
		}
	} else {
		slices.SortFunc(labels, func(a, b label) int {
			return cmp.Or(cmp.Compare(a.sum, b.sum), cmp.Compare(a.tokens, b.tokens))
		})
	}
	least := int64(math.MaxInt64)
	for _, l := range labels {
		if l.tokens < least {
			kept, least = append(kept, l), l.tokens
		}
	}
	return kept, table
}

// divideUp is a/b, rounded up; b > 0.
func divideUp(a, b int64) int64 {
	q := a / b
	if a%b > 0 {
		q++
	}
	return q
}
