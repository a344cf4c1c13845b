package piecewise

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTokenBuckets(t *testing.T) {
	for _, e := range []struct {
		max         int64
		given, want []int64
	}{
		{1, nil, []int64{1}},
		{63, nil, []int64{63}},
		{64, nil, []int64{64}},
		{65, nil, []int64{64, 65}},
		{200, nil, []int64{64, 128, 192, 200}},
		{256, []int64{}, []int64{64, 128, 192, 256}},
		{100, []int64{7, 300, 7, 3, 100, 101}, []int64{3, 7, 100}},
		{100, []int64{8}, []int64{8}},
	} {
		got, err := TokenBuckets(Limits{MaxTokens: e.max, MaxSeqs: 1}, e.given)
		require.NoError(t, err)
		assert.Equal(t, e.want, got)
	}
	auto, err := TokenBuckets(Limits{MaxTokens: 8192}, nil)
	require.NoError(t, err)
	assert.Len(t, auto, 128)
	auto, err = TokenBuckets(Limits{MaxTokens: math.MaxInt32}, nil)
	require.NoError(t, err)
	assert.LessOrEqual(t, len(auto), 4096)
	assert.Equal(t, int64(math.MaxInt32), auto[len(auto)-1])
	assert.Zero(t, auto[0]%64)

	given := []int64{3, 2}
	_, err = TokenBuckets(Limits{MaxTokens: 100}, given)
	require.NoError(t, err)
	assert.Equal(t, []int64{3, 2}, given, "the caller's list is not sorted in place")
	_, err = TokenBuckets(Limits{MaxTokens: 100}, []int64{8, 0})
	requireKind(t, err, ErrArgument, "buckets[1]: 0, must be at least 1")
}

func TestSeqBuckets(t *testing.T) {
	for most, want := range map[int64][]int64{1: {1}, 2: {1, 2}, 5: {1, 2, 4, 5}, 8: {1, 2, 4, 8}} {
		got, err := SeqBuckets(Limits{MaxSeqs: most}, nil)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	got, err := SeqBuckets(Limits{MaxSeqs: 6}, []int64{9, 2})
	require.NoError(t, err)
	assert.Equal(t, []int64{2, 6}, got)
	_, err = SeqBuckets(Limits{MaxSeqs: 6}, []int64{-2})
	requireKind(t, err, ErrArgument, "seq_buckets[0]: -2, must be at least 1")
}

func TestMixedCapacity(t *testing.T) {
	assert.Equal(t, int64(7*256+1), MixedCapacity(Limits{512, 8, 256}))
	assert.Equal(t, int64(1), MixedCapacity(Limits{512, 1, 256}))
}

func TestOptionErrors(t *testing.T) {
	b := newBuild(t, 16, 4)
	x := b.input("x", f32(tokens))
	b.output("y", x)
	_, err := NewPlan(b.g, Options{})
	requireKind(t, err, ErrState, "graph: not frozen")
	b.freeze()
	_, err = NewPlan(b.g, Options{Mode: 5})
	requireKind(t, err, ErrArgument, "mode: 5, must be 0 to 4")
	_, err = NewPlan(b.g, Options{QueryLen: 17})
	requireKind(t, err, ErrArgument, "query_len: 17, must be 0 to max_seq_len, 16")
	_, err = NewPlan(b.g, Options{QueryLen: -1})
	requireKind(t, err, ErrArgument, "query_len: -1, must be 0 to max_seq_len, 16")
	_, err = NewPlan(b.g, Options{Buckets: []int64{0}})
	requireKind(t, err, ErrArgument, "buckets[0]: 0, must be at least 1")
}

func TestUnits(t *testing.T) {
	l := Limits{MaxTokens: 12, MaxSeqs: 16, MaxSeqLen: 12}
	o := Options{Buckets: []int64{8, 12}, SeqBuckets: []int64{2, 8, 16}, QueryLen: 3}
	full := func(sizes ...int64) (out []Unit) {
		for i := 0; i < len(sizes); i += 2 {
			out = append(out, Unit{ModeFull, sizes[i], sizes[i+1]})
		}
		return out
	}
	pieces := []Unit{{ModePiecewise, 12, 0}, {ModePiecewise, 8, 0}, {ModePiecewise, 0, 16}, {ModePiecewise, 0, 8}, {ModePiecewise, 0, 2}}
	for _, e := range []struct {
		mode    Mode
		support CaptureSupport
		want    []Unit
	}{
		{ModeNone, CaptureAlways, nil},
		{ModePiecewise, CaptureNever, pieces},
		{ModePiecewise, CaptureAlways, pieces},
		{ModeFull, CaptureNever, nil},
		{ModeFull, CaptureUniformDecode, full(8, 8, 2, 2)}, // 16 sequences are more than 12 tokens
		{ModeFull, CaptureUniformBatch, full(8, 8, 6, 2, 2, 2)},
		{ModeFull, CaptureAlways, full(12, 12, 8, 8, 6, 2, 2, 2)},
		{ModeFullDecodeOnly, CaptureNever, nil},
		{ModeFullDecodeOnly, CaptureUniformDecode, full(8, 8, 2, 2)},
		{ModeFullDecodeOnly, CaptureAlways, full(8, 8, 2, 2)},
		{ModeFullAndPiecewise, CaptureNever, pieces},
		{ModeFullAndPiecewise, CaptureUniformDecode, []Unit{{ModePiecewise, 12, 0}, {ModeFull, 8, 8}, {ModePiecewise, 8, 0}, {ModeFull, 2, 2},
			{ModePiecewise, 0, 16}, {ModePiecewise, 0, 8}, {ModePiecewise, 0, 2}}},
		{ModeFullAndPiecewise, CaptureAlways, full(12, 12, 8, 8, 6, 2, 2, 2)},
	} {
		o.Mode = e.mode
		assert.Equal(t, e.want, units(l, o, e.support, true, true), "%s, %s", e.mode, e.support)
	}
	o.Mode, o.QueryLen = ModePiecewise, 0
	assert.Equal(t, pieces[:2], units(l, o, CaptureNever, true, false))
	assert.Equal(t, pieces[2:], units(l, o, CaptureNever, false, true))
	assert.Empty(t, units(l, o, CaptureNever, false, false))

	o = Options{Mode: ModeFull, Buckets: []int64{4, 12}, SeqBuckets: []int64{4}} // (4, 4) is a decode and a mixed size
	assert.Equal(t, full(12, 4, 4, 4), units(Limits{12, 4, 12}, o, CaptureAlways, true, true))
}
