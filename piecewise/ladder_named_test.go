package piecewise

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNamedLadders(t *testing.T) {
	for _, e := range []struct {
		name         string
		tokens, seqs int64
		count        int
		first, last  []int64
	}{
		{"adcg", 8192, 256, 128, []int64{64, 128}, []int64{8128, 8192}},
		// vLLM logged, for 40 sequences: sizes 1, 2, 4, 8, 16, ... 72, 80
		{"vllm", 8192, 40, 13, []int64{1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80}, []int64{80}},
		{"vllm", 8192, 256, 3 + 31 + 17, []int64{1, 2, 4, 8, 16}, []int64{240, 248, 256, 272, 288, 304, 320, 336, 352, 368, 384, 400, 416, 432, 448, 464, 480, 496, 512}},
		{"vllm", 8192, 3, 3, []int64{1, 2, 4}, []int64{4}},
		{"vllm", 100, 256, 3 + 12 + 1, []int64{1, 2, 4, 8}, []int64{96, 100}},
		{"vllm", 1, 1, 1, []int64{1}, []int64{1}},
		{"sglang", 8192, 160, 24, []int64{1, 2, 4, 8, 12, 16, 24}, []int64{152, 160}},
		{"sglang", 8192, 512, 52, []int64{1, 2, 4, 8, 12, 16, 24}, []int64{248, 256, 272, 288, 304, 320, 336, 352, 368, 384, 400, 416, 432, 448, 464, 480, 496, 512}},
		{"sglang", 8192, 600, 52 + 3, []int64{1, 2}, []int64{512, 544, 576, 600}},
		{"sglang", 8192, 10, 5, []int64{1, 2, 4, 8, 10}, []int64{10}},
		// SGLang's own test names these counts: 42 at 2,048, 54 at 6,144, 74 at 16,384
		{"sglang_piecewise", 2048, 1, 42, []int64{4, 8, 12, 16, 20, 24, 28, 32, 48, 64}, []int64{1280, 1536, 1792, 2048}},
		{"sglang_piecewise", 6144, 1, 54, []int64{4}, []int64{3840, 4096, 4608, 5120, 5632, 6144}},
		{"sglang_piecewise", 16384, 1, 74, []int64{4}, []int64{16384}},
		{"sglang_piecewise", 1100, 1, 38, []int64{4}, []int64{448, 480, 512, 576, 640, 704, 768, 832, 896, 960, 1024}},
		{"sglang_piecewise", 3, 1, 0, nil, nil},
	} {
		t.Run(fmt.Sprintf("%s %d %d", e.name, e.tokens, e.seqs), func(t *testing.T) {
			got, err := NamedLadder(e.name, e.tokens, e.seqs)
			require.NoError(t, err)
			require.Len(t, got, e.count, "%v", got)
			assert.True(t, slices.IsSorted(got))
			assert.Len(t, slices.Compact(slices.Clone(got)), e.count)
			assert.Equal(t, e.first, got[:len(e.first)])
			assert.Equal(t, e.last, got[len(got)-len(e.last):])
		})
	}
	_, err := NamedLadder("vlm", 1, 1)
	requireKind(t, err, ErrNotFound, "name: `vlm`, use one of `adcg`, `sglang`, `sglang_piecewise`, `vllm`")
	_, err = NamedLadder("vllm", 0, 1)
	requireKind(t, err, ErrArgument, "max_tokens: 0, must be 1 to 2147483647")
	_, err = NamedLadder("vllm", 1, math.MaxInt64)
	requireKind(t, err, ErrArgument, "max_seqs: 9223372036854775807, must be 1 to 2147483647")
	_, err = NamedLadder("sglang", math.MaxInt32, math.MaxInt32)
	requireKind(t, err, ErrArgument, "max_tokens: 2147483647, max_seqs: 2147483647: `sglang` would have more than 1048576 buckets")
}
