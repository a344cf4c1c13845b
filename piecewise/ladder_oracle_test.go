package piecewise

import (
	"cmp"
	"math"
	"slices"
)

// What the tests of ladders compare with: every ladder there is, the textbook programme, and a table over sums of sizes.

// runStep is a step's bucket as the dispatcher chooses it: the smallest that holds it; 0 if none does.
func runStep(tokens int64, buckets []int64) int64 {
	for _, b := range buckets {
		if tokens <= b {
			return b
		}
	}
	return 0
}

// padding runs the steps one kind after the other.
func padding(counts []StepCount, buckets []int64) (padded, eager int64) {
	for _, c := range counts {
		if b := runStep(c.Tokens, buckets); b == 0 {
			eager += c.Steps
		} else {
			padded += (b - c.Tokens) * c.Steps
		}
	}
	return padded, eager
}

func withinBudget(buckets []int64, b LadderBudget) bool {
	var bytes, nanos int64
	for _, size := range buckets {
		bytes += b.Bytes.PerBucket + b.Bytes.PerToken*size
		nanos += b.Nanos.PerBucket + b.Nanos.PerToken*size
		if b.MaxTokens > 0 && size > b.MaxTokens {
			return false
		}
	}
	return (b.MaxBuckets == 0 || int64(len(buckets)) <= b.MaxBuckets) &&
		(b.Bytes.Limit == 0 || bytes <= b.Bytes.Limit) && (b.Nanos.Limit == 0 || nanos <= b.Nanos.Limit)
}

// bruteLadder tries every set of sizes from 1 to `most`, whether a step has them or not. nil: none is allowed.
func bruteLadder(counts []StepCount, b LadderBudget, most int64) []int64 {
	type key struct{ eager, padded, buckets int64 }
	var best []int64
	var bestKey key
	for set := 1; set < 1<<most; set++ {
		var ladder []int64
		for size := int64(1); size <= most; size++ {
			if set>>(size-1)&1 != 0 {
				ladder = append(ladder, size)
			}
		}
		if !withinBudget(ladder, b) {
			continue
		}
		padded, eager := padding(counts, ladder)
		must := int64(0) // steps above the cap are eager whatever is chosen
		for _, c := range counts {
			if b.MaxTokens > 0 && c.Tokens > b.MaxTokens {
				must += c.Steps
			}
		}
		if eager > must && !b.AllowEager {
			continue
		}
		if held := slices.ContainsFunc(counts, func(c StepCount) bool { return runStep(c.Tokens, ladder) != 0 }); !held {
			continue
		}
		k := key{eager, padded, int64(len(ladder))}
		order := cmp.Or(cmp.Compare(k.eager, bestKey.eager), cmp.Compare(k.padded, bestKey.padded),
			cmp.Compare(k.buckets, bestKey.buckets), slices.Compare(ladder, best))
		if best == nil || order < 0 {
			best, bestKey = ladder, k
		}
	}
	return best
}

// plainLadder is the textbook programme, O(m^2 k): the least tokens of at most k buckets, padding included. No ladder, no
// prices.
func plainLadder(h *histogram, k int) int64 {
	m := len(h.size)
	before, out := make([]int64, m+1), make([]int64, m+1)
	for i := range m {
		before[i+1] = h.size[i] * h.steps[i+1]
	}
	for range k - 1 {
		for i := 1; i <= m; i++ {
			size, least := h.size[i-1], int64(math.MaxInt64)
			steps := h.steps[:i]
			for j, tokens := range before[:i] {
				least = min(least, tokens-size*steps[j])
			}
			out[i] = least + size*h.steps[i]
		}
		before, out = out, before
	}
	return before[m]
}

// priced is the least padding within a budget, by a table over (buckets, sizes, sum of sizes): another exact method.
func priced(h *histogram, b LadderBudget) (least int64, ok bool) {
	m, most := len(h.size), int(b.MaxBuckets)
	room := func(k int) int64 { return b.room(int64(k), h.largest()) }
	least = math.MaxInt64
	table := []map[int64]int64{{0: 0}} // of i sizes: sum -> padding
	for range m {
		table = append(table, map[int64]int64{})
	}
	for k := 1; k <= min(most, m); k++ {
		next := make([]map[int64]int64, m+1)
		for i := range next {
			next[i] = map[int64]int64{}
		}
		for i := 1; i <= m; i++ {
			for j := range i {
				for s, padded := range table[j] {
					s += h.size[i-1]
					padded += h.size[i-1]*(h.steps[i]-h.steps[j]) - (h.tokens[i] - h.tokens[j])
					if old, known := next[i][s]; !known || padded < old {
						next[i][s] = padded
					}
				}
			}
		}
		table = next
		for s, padded := range table[m] {
			if s <= room(k) {
				least = min(least, padded)
			}
		}
	}
	return least, least < math.MaxInt64
}
