package piecewise

import (
	"fmt"
	"slices"
	"time"
)

// Mode says what an exec may do with a step. The numbers are those of ADCG_MODE_*.
type Mode int32

// Modes.
const (
	ModeNone             Mode = 0 // every step eager
	ModePiecewise        Mode = 1 // segments captured, dynamic ops between them
	ModeFull             Mode = 2 // one graph where every op's capture support covers the step, else eager
	ModeFullDecodeOnly   Mode = 3 // one graph for uniform decode, else eager
	ModeFullAndPiecewise Mode = 4 // one graph where it is covered, else piecewise
)

func (m Mode) String() string {
	if m >= ModeNone && m <= ModeFullAndPiecewise {
		return [...]string{"none", "piecewise", "full", "full_decode_only", "full_and_piecewise"}[m]
	}
	return fmt.Sprintf("mode(%d)", int32(m))
}

// LayoutMode says whether every size has the same offsets. The numbers are those of ADCG_LAYOUT_*.
type LayoutMode int32

// Layout modes. Sizes need not grow with the step: scratch of split or padded products may be largest at a small one.
const (
	LayoutFixed     LayoutMode = 0 // one set of offsets, from the most that each block needs at any size
	LayoutPerBucket LayoutMode = 1 // each token bucket has its own, in the same arena: what no two sizes need together costs nothing
	LayoutAuto      LayoutMode = 2 // per bucket where that is lower, else fixed
)

func (m LayoutMode) String() string {
	if m >= LayoutFixed && m <= LayoutAuto {
		return [...]string{"fixed", "per_bucket", "auto"}[m]
	}
	return fmt.Sprintf("layout(%d)", int32(m))
}

// defaultNodes is how far an arena is searched for that does not reach its bound at once: some tenths of a second.
const defaultNodes = 100_000

// Options are what a plan is made for.
type Options struct {
	Mode       Mode
	Buckets    []int64 // token counts; empty: TokenBuckets' own
	SeqBuckets []int64 // sequence counts; empty: SeqBuckets' own
	QueryLen   int64   // full graphs of uniform batches with this many tokens a sequence too; 0 or 1: decode alone
	Layout     LayoutMode
	Nodes      int64         // of the search for a lower arena; 0: 100,000, less than 0: no search
	Time       time.Duration // of that search; 0: no limit
}

const (
	bucketStep = 64
	maxBuckets = 4096 // of an automatic list
)

// TokenBuckets is the list of token buckets, rising. A given list is sorted, deduplicated and capped: an entry above
// MaxTokens becomes MaxTokens. Without one it is 64, 128, 192, ... and MaxTokens (below 64 just MaxTokens); limits for
// which that would be more than 4,096 buckets get a wider step, a multiple of 64.
func TokenBuckets(l Limits, given []int64) ([]int64, error) {
	if len(given) > 0 {
		return givenBuckets("buckets", given, l.MaxTokens)
	}
	step := int64(bucketStep)
	if count := (l.MaxTokens + step - 1) / step; count > maxBuckets {
		step *= (count + maxBuckets - 1) / maxBuckets
	}
	var out []int64
	for b := step; b < l.MaxTokens; b += step {
		out = append(out, b)
	}
	return append(out, l.MaxTokens), nil
}

// SeqBuckets is the list of sequence buckets, rising: a given list as in TokenBuckets, or 1, 2, 4, 8, ... and MaxSeqs.
func SeqBuckets(l Limits, given []int64) ([]int64, error) {
	if len(given) > 0 {
		return givenBuckets("seq_buckets", given, l.MaxSeqs)
	}
	var out []int64
	for b := int64(1); b < l.MaxSeqs; b *= 2 {
		out = append(out, b)
	}
	return append(out, l.MaxSeqs), nil
}

func givenBuckets(what string, given []int64, most int64) ([]int64, error) {
	out := make([]int64, len(given))
	for i, b := range given {
		if b < 1 {
			return nil, Errorf(ErrArgument, "%s[%d]: %d, must be at least 1", what, i, b)
		}
		out[i] = min(b, most)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// MixedCapacity is the most tokens that a mixed batch can reach: all sequences but one at their longest, and one token.
func MixedCapacity(l Limits) int64 { return (l.MaxSeqs-1)*l.MaxSeqLen + 1 }

// checkOptions fills in the bucket lists.
func checkOptions(l Limits, o Options) (Options, error) {
	if o.Mode < ModeNone || o.Mode > ModeFullAndPiecewise {
		return o, Errorf(ErrArgument, "mode: %d, must be %d to %d", o.Mode, ModeNone, ModeFullAndPiecewise)
	}
	if o.QueryLen < 0 || o.QueryLen > l.MaxSeqLen {
		return o, Errorf(ErrArgument, "query_len: %d, must be 0 to max_seq_len, %d", o.QueryLen, l.MaxSeqLen)
	}
	if o.Layout < LayoutFixed || o.Layout > LayoutAuto {
		return o, Errorf(ErrArgument, "layout: %d, must be %d to %d", o.Layout, LayoutFixed, LayoutAuto)
	}
	if o.Time < 0 {
		return o, Errorf(ErrArgument, "plan time: %v, must not be negative", o.Time)
	}
	if o.Nodes == 0 {
		o.Nodes = defaultNodes
	}
	var err error
	if o.Buckets, err = TokenBuckets(l, o.Buckets); err != nil {
		return o, err
	}
	o.SeqBuckets, err = SeqBuckets(l, o.SeqBuckets)
	return o, err
}

// Unit is a size that is captured as one. ModePiecewise: the token segments at (Tokens, 0), or the sequence segments
// at (0, Seqs). ModeFull: the whole graph at (Tokens, Seqs).
type Unit struct {
	Mode         Mode
	Tokens, Seqs int64
}

// units lists the capturable sizes, the largest first. o has its bucket lists.
func units(l Limits, o Options, support CaptureSupport, tokenSegments, seqSegments bool) []Unit {
	var out []Unit
	full := o.Mode == ModeFull || o.Mode == ModeFullAndPiecewise
	if (full || o.Mode == ModeFullDecodeOnly) && support >= CaptureUniformDecode {
		for _, s := range o.SeqBuckets {
			if s <= l.MaxTokens {
				out = append(out, Unit{ModeFull, s, s})
			}
		}
	}
	if full && support >= CaptureUniformBatch && o.QueryLen > 1 {
		for _, s := range o.SeqBuckets {
			if s <= l.MaxTokens/o.QueryLen {
				out = append(out, Unit{ModeFull, s * o.QueryLen, s})
			}
		}
	}
	if full && support == CaptureAlways {
		for _, b := range o.Buckets {
			out = append(out, Unit{ModeFull, b, min(b, l.MaxSeqs)}) // each sequence has a token
		}
	}
	if o.Mode == ModePiecewise || o.Mode == ModeFullAndPiecewise && support != CaptureAlways {
		if tokenSegments {
			for _, b := range o.Buckets {
				out = append(out, Unit{ModePiecewise, b, 0})
			}
		}
		if seqSegments {
			for _, s := range o.SeqBuckets {
				out = append(out, Unit{ModePiecewise, 0, s})
			}
		}
	}
	slices.SortFunc(out, func(a, b Unit) int {
		for _, d := range [][2]int64{{b.Tokens, a.Tokens}, {b.Seqs, a.Seqs}, {int64(b.Mode), int64(a.Mode)}} {
			if d[0] != d[1] {
				return int(max(-1, min(1, d[0]-d[1])))
			}
		}
		return 0
	})
	return slices.Compact(out)
}
