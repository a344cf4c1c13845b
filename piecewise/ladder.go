package piecewise

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// A ladder is a rising list of bucket sizes, in tokens. A step runs in the smallest bucket that holds it, padded to its
// size; a step that is larger than every bucket runs eagerly, unpadded. A histogram says what steps there are.

// StepCount says that Steps steps had Tokens tokens each.
type StepCount struct{ Tokens, Steps int64 }

// Price is what one bucket costs of something (bytes, nanoseconds), and how much of it a ladder may cost.
type Price struct {
	PerBucket int64 // of each bucket, whatever its size
	PerToken  int64 // of each token of its size
	Limit     int64 // of all buckets together; 0: none
}

// LadderBudget is what a ladder may cost. All of it must hold at once.
type LadderBudget struct {
	MaxBuckets int64 // 0: no limit
	MaxTokens  int64 // no bucket is larger; steps above run eagerly and have no say. 0: no cap
	Bytes      Price // memory of the captured buckets
	Nanos      Price // time to capture them
	AllowEager bool  // where the budget cannot hold the largest steps, the fewest possible run eagerly; else an error
}

// BucketCost is one bucket's part in a LadderCost.
type BucketCost struct {
	Tokens                          int64 // its size
	Steps, RealTokens, PaddedTokens int64 // of the steps that run in it; padded: its size less the real ones, added up
	Bytes, Nanos                    int64
}

// LadderCost is what a ladder costs on a histogram.
type LadderCost struct {
	Steps, RealTokens       int64 // of the whole histogram, eager steps included
	PaddedTokens            int64
	EagerSteps, EagerTokens int64 // steps that no bucket holds, and their tokens
	Bytes, Nanos            int64 // of all buckets, by the budget's prices
	Buckets                 []BucketCost
}

const (
	maxLadderSizes = 1 << 24 // entries of a histogram, buckets of a ladder
	maxStepTokens  = math.MaxInt32
	maxPaddedWork  = 1 << 60 // steps times the largest size: what the sums of the programme must hold
)

// histogram has the distinct sizes, rising, and running sums over them, so that any range is a difference.
type histogram struct {
	size   []int64 // m sizes
	steps  []int64 // m+1: steps below size index i
	tokens []int64 // m+1: tokens of those
}

func newHistogram(counts []StepCount) (*histogram, error) {
	if len(counts) == 0 {
		return nil, Errorf(ErrArgument, "histogram: empty")
	}
	if len(counts) > maxLadderSizes {
		return nil, Errorf(ErrArgument, "histogram: %d entries, at most %d", len(counts), maxLadderSizes)
	}
	for i, c := range counts {
		if c.Tokens < 1 || c.Tokens > maxStepTokens {
			return nil, Errorf(ErrArgument, "histogram[%d]: tokens: %d, must be 1 to %d", i, c.Tokens, int64(maxStepTokens))
		}
		if c.Steps < 1 {
			return nil, Errorf(ErrArgument, "histogram[%d]: steps: %d, must be at least 1", i, c.Steps)
		}
	}
	counts = slices.Clone(counts)
	slices.SortFunc(counts, func(a, b StepCount) int { return cmp.Compare(a.Tokens, b.Tokens) })
	most := counts[len(counts)-1].Tokens
	h := &histogram{steps: make([]int64, 1, len(counts)+1), tokens: make([]int64, 1, len(counts)+1)}
	var steps, tokens int64
	for i, c := range counts {
		if c.Steps > maxPaddedWork/most-steps { // then no sum below, of tokens or padding, leaves 60 bits
			return nil, Errorf(ErrArgument, "histogram: steps times the largest size, %d tokens, are more than %d", most, int64(maxPaddedWork))
		}
		steps, tokens = steps+c.Steps, tokens+c.Steps*c.Tokens
		if i > 0 && c.Tokens == counts[i-1].Tokens {
			h.steps[len(h.size)], h.tokens[len(h.size)] = steps, tokens
			continue
		}
		h.size, h.steps, h.tokens = append(h.size, c.Tokens), append(h.steps, steps), append(h.tokens, tokens)
	}
	return h, nil
}

// largest is the largest size.
func (h *histogram) largest() int64 { return h.size[len(h.size)-1] }

// cut keeps the n smallest sizes.
func (h *histogram) cut(n int) *histogram {
	return &histogram{size: h.size[:n], steps: h.steps[:n+1], tokens: h.tokens[:n+1]}
}

// upTo is how many sizes are at most this large.
func (h *histogram) upTo(tokens int64) int {
	n, _ := slices.BinarySearch(h.size, tokens+1)
	return n
}

// Ladder chooses the ladder that pads the fewest tokens of the histogram's steps within the budget, exactly. Of several
// such ladders it takes one with the fewest buckets, and of those the lexicographically smallest.
//
// The histogram may have its entries in any order; equal sizes are added up. Every bucket is a size of the histogram:
// lowered to the largest size that it holds, a bucket pads less and costs no more. The largest bucket holds the largest
// step that is not above MaxTokens. Without any limit every size is a bucket.
func Ladder(counts []StepCount, b LadderBudget) ([]int64, error) {
	h, err := newHistogram(counts)
	if err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	if b.MaxTokens > 0 {
		n := h.upTo(b.MaxTokens)
		if n == 0 {
			return nil, Errorf(ErrArgument, "budget.max_tokens: %d, the smallest step has %d", b.MaxTokens, h.size[0])
		}
		h = h.cut(n)
	}
	if h, err = b.fit(h); err != nil {
		return nil, err
	}
	most := b.mostBuckets(h)
	if most == len(h.size) {
		return slices.Clone(h.size), nil
	}
	ladder, err := byCount(h, most)
	if err != nil {
		return nil, err
	}
	// Each bucket more pads strictly less (any size that is no bucket has steps to save), so the best ladder of the most
	// buckets is the best of all, if the budget has room for its sizes.
	if sum(ladder) <= b.room(int64(most), h.largest()) {
		return ladder, nil
	}
	return byPrice(h, b, most)
}

func (b LadderBudget) check() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"max_buckets", b.MaxBuckets}, {"max_tokens", b.MaxTokens},
		{"bytes_per_bucket", b.Bytes.PerBucket}, {"bytes_per_token", b.Bytes.PerToken}, {"max_bytes", b.Bytes.Limit},
		{"ns_per_bucket", b.Nanos.PerBucket}, {"ns_per_token", b.Nanos.PerToken}, {"max_ns", b.Nanos.Limit},
	} {
		if f.value < 0 {
			return Errorf(ErrArgument, "budget.%s: %d is negative", f.name, f.value)
		}
	}
	return nil
}

// fit drops the sizes that no ladder within the budget can hold: one bucket costs the least of what holds its size.
func (b LadderBudget) fit(h *histogram) (*histogram, error) {
	room := b.room(1, h.largest())
	if h.largest() <= room {
		return h, nil
	}
	for _, p := range []struct {
		name string
		Price
	}{{"max_bytes", b.Bytes}, {"max_ns", b.Nanos}} {
		least := h.largest()
		if b.AllowEager {
			least = h.size[0]
		}
		if p.room(1, least) < least {
			return nil, Errorf(ErrArgument, "budget.%s: %d, one bucket of %d tokens costs more (%d and %d a token)",
				p.name, p.Limit, least, p.PerBucket, p.PerToken)
		}
	}
	return h.cut(h.upTo(room)), nil
}

// room is the most that the sizes of k buckets may add up to within a price's limit, at most k times `largest`, which
// never binds; -1 if k buckets cost too much whatever their sizes.
func (p Price) room(k, largest int64) int64 {
	free := k * largest
	if p.Limit == 0 {
		return free
	}
	if p.PerBucket > 0 && k > p.Limit/p.PerBucket {
		return -1
	}
	if p.PerToken > 0 {
		return min(free, (p.Limit-k*p.PerBucket)/p.PerToken)
	}
	return free
}

func (b LadderBudget) room(k, largest int64) int64 {
	return min(b.Bytes.room(k, largest), b.Nanos.room(k, largest))
}

// mostBuckets is the most buckets that the budget allows: the cheapest k buckets are the largest size and the k-1
// smallest ones. One bucket fits.
func (b LadderBudget) mostBuckets(h *histogram) int {
	most := len(h.size)
	if b.MaxBuckets > 0 {
		most = int(min(int64(most), b.MaxBuckets))
	}
	k, least := 1, h.largest()
	for k < most && least+h.size[k-1] <= b.room(int64(k+1), h.largest()) {
		least += h.size[k-1]
		k++
	}
	return k
}

// CostOfLadder is what any ladder costs on a histogram. `buckets` rise strictly; without any, every step is eager. Of the
// budget the prices alone count.
func CostOfLadder(counts []StepCount, buckets []int64, b LadderBudget) (LadderCost, error) {
	var c LadderCost
	h, err := newHistogram(counts)
	if err != nil {
		return c, err
	}
	if err := b.check(); err != nil {
		return c, err
	}
	if len(buckets) > maxLadderSizes {
		return c, Errorf(ErrArgument, "buckets: %d, at most %d", len(buckets), maxLadderSizes)
	}
	m, below := len(h.size), 0
	c.Steps, c.RealTokens = h.steps[m], h.tokens[m]
	sums := overflow{}
	for i, size := range buckets {
		if size < 1 || size > maxStepTokens {
			return LadderCost{}, Errorf(ErrArgument, "buckets[%d]: %d, must be 1 to %d", i, size, int64(maxStepTokens))
		}
		if i > 0 && size <= buckets[i-1] {
			return LadderCost{}, Errorf(ErrArgument, "buckets[%d]: %d, not above the one before, %d", i, size, buckets[i-1])
		}
		held := h.upTo(size)
		bucket := BucketCost{Tokens: size, Steps: h.steps[held] - h.steps[below], RealTokens: h.tokens[held] - h.tokens[below]}
		bucket.PaddedTokens = sums.product(bucket.Steps, size) - bucket.RealTokens
		bucket.Bytes = sums.add(b.Bytes.PerBucket, sums.product(b.Bytes.PerToken, size))
		bucket.Nanos = sums.add(b.Nanos.PerBucket, sums.product(b.Nanos.PerToken, size))
		c.PaddedTokens = sums.add(c.PaddedTokens, bucket.PaddedTokens)
		c.Bytes, c.Nanos = sums.add(c.Bytes, bucket.Bytes), sums.add(c.Nanos, bucket.Nanos)
		if sums.happened {
			return LadderCost{}, Errorf(ErrArgument, "buckets[%d]: %d tokens: padding, bytes or time up to it exceed 63 bits", i, size)
		}
		c.Buckets = append(c.Buckets, bucket)
		below = held
	}
	c.EagerSteps, c.EagerTokens = h.steps[m]-h.steps[below], h.tokens[m]-h.tokens[below]
	return c, nil
}

// overflow does sums and products of numbers that are not negative, and remembers whether one left 63 bits.
type overflow struct{ happened bool }

func (o *overflow) add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		o.happened = true
		return 0
	}
	return a + b
}

func (o *overflow) product(a, b int64) int64 {
	if hi, lo := bits.Mul64(uint64(a), uint64(b)); hi == 0 && lo <= math.MaxInt64 {
		return int64(lo)
	}
	o.happened = true
	return 0
}

func sum(list []int64) int64 {
	var total int64
	for _, v := range list {
		total += v
	}
	return total
}
