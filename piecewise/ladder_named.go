package piecewise

import (
	"slices"
	"strings"
)

// The ladders that serving engines capture unless they are told otherwise, as facts about these versions:
//
//   - vllm: vLLM at commit 000fc94b754f66aeb60ef5acf1ea2e94cdc65164 (vllm/config/vllm.py), one token a sequence in decode,
//     no sequence parallelism. Its largest size is the least of twice the sequences, 512 (1,024 on data centre Blackwell,
//     which is not modelled) and the step's tokens; sizes are 1, 2, 4, multiples of 8 below 256, multiples of 16 from
//     there, and the step's tokens themselves where they are no more than that largest size.
//   - sglang: SGLang at commit 399499ca159da099c16d20ddc2f5898491071431 (python/sglang/srt/arg_groups/cuda_graph_hook.py),
//     decode without speculation, one token a sequence. 1, 2, 4, 8, 12, multiples of 8 from 16 to 256, of 16 below 512, of
//     32 from there, and the largest batch itself. Its largest batch depends on the GPU's memory; here it is max_seqs.
//   - sglang_piecewise: the same version's sizes of prefill, in tokens: multiples of 4 to 32, of 16 to 256, of 32 to 512, of
//     64 to 1,024, of 256 to 4,096, of 512 from there; the largest step's tokens are not added, so a step may be larger
//     than every bucket. Their cap is the chunk of a chunked prefill; here it is max_tokens.
//   - adcg: ours, TokenBuckets.

// stride is a run of sizes: multiples of Step up to To.
type stride struct{ step, to int64 }

// maxNamedBuckets bounds a named ladder; only absurd limits reach it.
const maxNamedBuckets = 1 << 20

// strides lists the sizes of strides one after the other, up to the most; the last stride is endless.
func strides(most int64, first []int64, runs ...stride) []int64 {
	var out []int64
	for _, b := range first {
		if b <= most {
			out = append(out, b)
		}
	}
	for i, r := range runs {
		end := most
		if i < len(runs)-1 {
			end = min(end, r.to)
		}
		at := int64(0)
		if len(out) > 0 {
			at = out[len(out)-1]
		}
		for b := (at/r.step + 1) * r.step; b <= end && len(out) <= maxNamedBuckets; b += r.step {
			out = append(out, b)
		}
	}
	return out
}

// withMost adds a largest size that is not there.
func withMost(ladder []int64, most int64) []int64 {
	if len(ladder) > 0 && ladder[len(ladder)-1] == most {
		return ladder
	}
	return append(ladder, most)
}

var namedLadders = map[string]func(l Limits) []int64{
	"adcg": func(l Limits) []int64 {
		ladder, _ := TokenBuckets(l, nil) // fails for given lists alone
		return ladder
	},
	"vllm": func(l Limits) []int64 {
		most := min(2*l.MaxSeqs, 512)
		ladder := strides(min(most, l.MaxTokens), []int64{1, 2, 4}, stride{8, 248}, stride{16, 0})
		if l.MaxTokens <= most {
			ladder = withMost(ladder, l.MaxTokens)
		}
		return ladder
	},
	"sglang": func(l Limits) []int64 {
		most := min(l.MaxSeqs, l.MaxTokens)
		return withMost(strides(most, []int64{1, 2, 4, 8, 12}, stride{8, 256}, stride{16, 496}, stride{32, 0}), most)
	},
	"sglang_piecewise": func(l Limits) []int64 {
		return strides(l.MaxTokens, nil, stride{4, 32}, stride{16, 256}, stride{32, 512}, stride{64, 1024}, stride{256, 4096}, stride{512, 0})
	},
}

// LadderNames are the names that NamedLadder knows, in alphabetical order.
func LadderNames() []string {
	var names []string
	for name := range namedLadders {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NamedLadder is the ladder that an engine of that name captures by default for steps of at most MaxTokens tokens and
// MaxSeqs sequences. It may be empty: sglang_piecewise has nothing below 4 tokens.
func NamedLadder(name string, maxTokens, maxSeqs int64) ([]int64, error) {
	ladder, known := namedLadders[name]
	if !known {
		return nil, Errorf(ErrNotFound, "name: `%s`, use one of `%s`", name, strings.Join(LadderNames(), "`, `"))
	}
	for _, f := range []struct {
		name  string
		value int64
	}{{"max_tokens", maxTokens}, {"max_seqs", maxSeqs}} {
		if f.value < 1 || f.value > maxStepTokens {
			return nil, Errorf(ErrArgument, "%s: %d, must be 1 to %d", f.name, f.value, int64(maxStepTokens))
		}
	}
	out := ladder(Limits{MaxTokens: maxTokens, MaxSeqs: maxSeqs})
	if len(out) > maxNamedBuckets {
		return nil, Errorf(ErrArgument, "max_tokens: %d, max_seqs: %d: `%s` would have more than %d buckets", maxTokens, maxSeqs, name, maxNamedBuckets)
	}
	return out, nil
}
