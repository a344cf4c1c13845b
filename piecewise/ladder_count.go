package piecewise

import "math"

// The dynamic programme over distinct sizes s_0 < s_1 < ... < s_(m-1) with w_i steps each.
//
// A ladder cuts the sizes into groups of neighbours; a group's bucket is its largest size. Let W_i be the steps below
// s_i. Sizes j .. i-1 in one bucket take c(j, i) = s_(i-1) * (W_i - W_j) tokens, padding included; what all steps
// really have is the same for every ladder, so the least tokens are the least padding. With F_k(i) the least tokens of
// the i smallest sizes in k buckets,
//
//	F_k(i) = min over j < i of F_(k-1)(j) + c(j, i).
//
// For j < j' < i < i' the quadrangle inequality holds, strictly:
//
//	c(j, i') + c(j', i) - c(j, i) - c(j', i') = (s_(i'-1) - s_(i-1)) * (W_j' - W_j) > 0.
//
// Three things follow. The leftmost best j rises with i, so one row is found by halving: the best j of the middle i
// bounds those of both sides, O(m log m) a row instead of O(m^2). Of two best ladders with k buckets each, the one that
// takes the smaller bucket at every place is a best one too (exchange the tails where they cross: the inequality says
// that this does not cost more), so the best ladders have a smallest one, place by place, which is the
// lexicographically smallest, and following leftmost choices from the largest size down finds it. And all this stays
// true if every bucket costs mu tokens for each token of its size besides (byPrice): that is a function of i alone.

// programme is the histogram as the rows need it.
type programme struct {
	size  []int64 // s_i, m of them
	steps []int64 // W_i * scale, m+1 of them
	scale int64   // 1, or a power of two: tokens are counted in 1/scale
}

// maxStates bounds what the rows of one choice hold: size times buckets. Rows of 4 bytes a state for a count of buckets
// (128 MiB at most), of 8 for prices.
const maxStates = 1 << 25

func checkStates(h *histogram, most int) error {
	if int64(most)*int64(len(h.size)) > maxStates {
		return Errorf(ErrArgument, "budget: %d buckets of %d distinct sizes, their product must not exceed %d", most, len(h.size), maxStates)
	}
	return nil
}

// row finds F_k(i) for i in [lo, hi], and the leftmost best j of each, from F_(k-1). `mu` is what a bucket costs besides,
// in 1/scale tokens for a token of its size. lo is at least k.
func (p programme) row(k, lo, hi int, mu int64, before, out []int64, choice []int32) {
	if k == 1 {
		for i := lo; i <= hi; i++ {
			out[i], choice[i] = p.size[i-1]*(p.steps[i]+mu), 0
		}
		return
	}
	p.halve(lo, hi, k-1, hi-1, mu, before, out, choice)
}

func (p programme) halve(lo, hi, first, last int, mu int64, before, out []int64, choice []int32) {
	for lo <= hi {
		i := lo + (hi-lo)/2
		size := p.size[i-1]
		best, at := int64(math.MaxInt64), first
		end := min(last, i-1)
		steps, values := p.steps[first:end+1], before[first:end+1]
		for j, value := range values {
			if v := value - size*steps[j]; v < best {
				best, at = v, first+j
			}
		}
		out[i], choice[i] = best+size*(p.steps[i]+mu), int32(at)
		p.halve(lo, i-1, first, at, mu, before, out, choice)
		lo, first = i+1, at
	}
}

// byCount is the best ladder of exactly k buckets, 1 <= k < m.
func byCount(h *histogram, k int) ([]int64, error) {
	if err := checkStates(h, k); err != nil {
		return nil, err
	}
	m := len(h.size)
	p := programme{size: h.size, steps: h.steps, scale: 1}
	before, out := make([]int64, m+1), make([]int64, m+1)
	choices := make([][]int32, k+1)
	for n := 1; n <= k; n++ {
		choices[n] = make([]int32, m+1)
		lo, hi := n, m-(k-n) // the other buckets need a size each
		if n == k {
			lo = m
		}
		p.row(n, lo, hi, 0, before, out, choices[n])
		before, out = out, before
	}
	ladder := make([]int64, k)
	for n, i := k, m; n > 0; n-- {
		ladder[n-1] = h.size[i-1]
		i = int(choices[n][i])
	}
	return ladder, nil
}
