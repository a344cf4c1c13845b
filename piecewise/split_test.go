package piecewise

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSplit(t *testing.T) {
	row, tail := f32(tokens, 8), f32(seqs, 8)
	attention := dynamic("attention", 1, CaptureUniformDecode, row)
	prepare := dynamic("prepare", 1, CaptureAlways, row)
	prepare.Kind = Metadata
	gather := dynamic("gather", 1, CaptureAlways, tail)
	same, both := static("same", 1, row), static("both", 1, f32(Dim{Tokens: 1, Seqs: 1}))
	end := static("end", 1, tail)
	reshape := aliased(static("reshape", 1, f32(tokens, 4, 2)), view(0, 0))
	of := func(kind PartitionKind, first, end int) Partition { return Partition{kind, first, end, ""} }
	split2 := func(i int, why string) Partition { return Partition{DynamicOp, i, i + 1, why} }
	const meets, decode = "reads tokens and seqs", "capture support uniform_decode"

	for name, e := range map[string]struct {
		ops  []*OpSchema
		want []Partition
	}{
		"one segment":                    {[]*OpSchema{same, same}, []Partition{of(TokenSegment, 0, 2)}},
		"attention splits":               {[]*OpSchema{same, attention, same}, []Partition{of(TokenSegment, 0, 1), split2(1, decode), of(TokenSegment, 2, 3)}},
		"an op that always can joins":    {[]*OpSchema{same, prepare, same}, []Partition{of(TokenSegment, 0, 3)}},
		"it opens a segment too":         {[]*OpSchema{prepare, same}, []Partition{of(TokenSegment, 0, 2)}},
		"two dynamic ops stay two":       {[]*OpSchema{attention, attention}, []Partition{split2(0, decode), split2(1, decode)}},
		"the axes meet in the gather":    {[]*OpSchema{same, gather, end, end}, []Partition{of(TokenSegment, 0, 1), split2(1, meets), of(SeqSegment, 2, 4)}},
		"static, and both axes":          {[]*OpSchema{same, both}, []Partition{of(TokenSegment, 0, 1), split2(1, meets)}},
		"views alone":                    {[]*OpSchema{attention, reshape, reshape, attention}, []Partition{split2(0, decode), of(Views, 1, 3), split2(3, decode)}},
		"views join":                     {[]*OpSchema{same, reshape, attention, reshape, same}, []Partition{of(TokenSegment, 0, 2), split2(2, decode), of(TokenSegment, 3, 5)}},
		"names that contain one another": {[]*OpSchema{static("not.attention", 1, row), attention}, []Partition{of(TokenSegment, 0, 1), split2(1, decode)}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuild(t, 16, 4)
			x := b.input("x", row)
			for _, s := range e.ops {
				x = b.op(s, x)
			}
			b.output("y", x)
			p := b.plan(Options{Mode: ModePiecewise})
			assert.Equal(t, e.want, p.Partitions)
			segments, dynamics := 0, 0
			for _, part := range e.want {
				switch part.Kind {
				case TokenSegment, SeqSegment:
					segments++
				case DynamicOp:
					dynamics++
				}
			}
			assert.Equal(t, segments, p.NumSegments)
			assert.Equal(t, dynamics, p.NumDynamic)
		})
	}

	t.Run("a node of neither axis", func(t *testing.T) {
		b := newBuild(t, 16, 4)
		fixed := func(v ...Value) Value { return b.op(static("fixed", len(v), f32(constant(3))), v...) }
		w := b.weight("w", f32(constant(3)))
		first := fixed(w) // nothing open: a token segment
		g := b.op(gather, b.input("x", row))
		g = b.op(end, g)
		second := fixed(first) // joins the seq segment
		g = b.op(end, g)
		b.output("g", g)
		b.output("f", second)
		p := b.plan(Options{Mode: ModePiecewise, Buckets: []int64{16}, SeqBuckets: []int64{4}})
		assert.Equal(t, []Partition{of(TokenSegment, 0, 1), split2(1, meets), of(SeqSegment, 2, 5)}, p.Partitions)
		assert.Equal(t, []Unit{{ModePiecewise, 16, 0}, {ModePiecewise, 0, 4}}, p.Units)
	})

	t.Run("an op that writes a state and returns it runs", func(t *testing.T) {
		b := newBuild(t, 16, 4)
		put := aliased(dynamic("put", 2, CaptureAlways, f32(constant(3))), view(0, 1))
		put.Mutates = 2
		x := b.input("x", row)
		b.output("y", b.op(put, x, b.state("s", f32(constant(3)))))
		p := b.plan(Options{Mode: ModePiecewise})
		assert.Equal(t, []Partition{of(TokenSegment, 0, 1)}, p.Partitions)
		assert.False(t, OnlyViews(put))
		assert.True(t, OnlyViews(reshape))
	})
}
