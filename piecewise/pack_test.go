package piecewise

import (
	"cmp"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// requireValid looks at every pair: no code of the packer's.
func requireValid(t *testing.T, items []Interval, p Placement) {
	t.Helper()
	require.Len(t, p.Offsets, len(items))
	var height int64
	for i, a := range items {
		require.GreaterOrEqual(t, p.Offsets[i], int64(0))
		require.Zero(t, p.Offsets[i]%Alignment)
		height = max(height, p.Offsets[i]+(a.Size+63)/64*64)
		for j, b := range items[:i] {
			if a.First <= b.Last && b.First <= a.Last && p.Offsets[i]+a.Size > p.Offsets[j] && p.Offsets[j]+b.Size > p.Offsets[i] {
				require.Fail(t, "overlap", "%d and %d", i, j)
			}
		}
	}
	require.Equal(t, height, p.Height)
	require.GreaterOrEqual(t, p.Height, p.Bound)
}

func TestPackByHand(t *testing.T) {
	assert.Equal(t, Placement{Offsets: []int64{}, Height: 0, Bound: 0}, Pack(nil, Effort{}))
	assert.Equal(t, Placement{Offsets: []int64{0}, Height: 64, Bound: 64}, Pack([]Interval{{3, 3, 1}}, Effort{}))

	// Two short ones share the place under a long one; ends touch, so they may not overlap it.
	p := Pack([]Interval{{0, 2, 128}, {3, 4, 100}, {0, 4, 64}}, Effort{})
	assert.Equal(t, int64(192), p.Height)
	assert.Equal(t, p.Offsets[0], p.Offsets[1])
	p = Pack([]Interval{{0, 3, 128}, {3, 4, 100}}, Effort{})
	assert.Equal(t, int64(256), p.Height, "both inclusive: they share time 3")

	assert.Equal(t, int64(192), LowerBound([]Interval{{0, 3, 65}, {3, 4, 64}, {4, 9, 64}}))
	assert.Equal(t, int64(0), LowerBound(nil))
}

func TestPackRandom(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	bound, height := int64(0), int64(0)
	for k := 0; k < 400; k++ {
		items := make([]Interval, 1+r.Intn(60))
		span := 1 + r.Intn(40)
		for i := range items {
			first := r.Intn(span)
			items[i] = Interval{first, first + r.Intn(1+r.Intn(span)), 1 + r.Int63n(1<<uint(1+r.Intn(12)))}
		}
		p := Pack(items, Effort{})
		requireValid(t, items, p)
		require.Equal(t, p.Bound, LowerBound(items))
		require.Equal(t, p, Pack(items, Effort{}), "the same every time")
		bound, height = bound+p.Bound, height+p.Height
	}
	t.Logf("height over bound: %.4f", float64(height)/float64(bound))
	assert.Less(t, float64(height)/float64(bound), 1.03)
}

// TestSequence compares every order with a stable sort of comparisons.
func TestSequence(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	for range 60 {
		items := make([]Interval, 1+r.Intn(700))
		far, wide := 1+r.Intn(1<<(1+r.Intn(20))), 1+r.Int63n(1<<(1+r.Intn(45)))
		for i := range items {
			first := r.Intn(far)
			items[i] = Interval{first, first + r.Intn(far), 64 * (1 + r.Int63n(wide))}
		}
		p := newPacker(items)
		for k, order := range orders {
			expected := make([]int32, len(items))
			for i := range expected {
				expected[i] = int32(i)
			}
			slices.SortStableFunc(expected, func(i, j int32) int {
				x, y := order(items[i]), order(items[j])
				return cmp.Or(cmp.Compare(y.a, x.a), cmp.Compare(y.b, x.b), cmp.Compare(y.c, x.c))
			})
			require.Equal(t, expected, p.sequence(order), "order %d", k)
		}
	}
}

// TestPackFindsTheTightestGap compares each placing with one that looks at all intervals and all gaps.
func TestPackFindsTheTightestGap(t *testing.T) {
	r := rand.New(rand.NewSource(4))
	for k := 0; k < 300; k++ {
		items := make([]Interval, 1+r.Intn(80))
		span := 1 + r.Intn(200)
		for i := range items {
			first := r.Intn(span)
			items[i] = Interval{first * (1 + k%3), first*(1+k%3) + r.Intn(1+r.Intn(span)), 64 * (1 + r.Int63n(20))}
		}
		order := make([]int32, len(items))
		for i, j := range r.Perm(len(items)) {
			order[i] = int32(j)
		}
		p := newPacker(items)
		p.dense = k%2 == 1
		height, ok := p.place(order, -1)
		require.True(t, ok)
		requireValid(t, items, Placement{Offsets: p.offsets, Height: height, Bound: LowerBound(items)})
		for n, i := range order {
			free := make([]bool, 80*20+21) // in units of 64 bytes, at the times of i
			for at := range free {
				free[at] = true
			}
			for _, j := range order[:n] {
				if items[i].First <= items[j].Last && items[j].First <= items[i].Last {
					for at := p.offsets[j]; at < p.offsets[j]+items[j].Size; at += 64 {
						free[at/64] = false
					}
				}
			}
			best, expected := len(free)+1, 0
			for from := 0; from < len(free); from++ {
				to := from
				for to < len(free) && free[to] {
					to++
				}
				gap := to - from
				if to == len(free) {
					gap = len(free) // behind all
				}
				if int64(gap) >= items[i].Size/64 && gap < best {
					best, expected = gap, from
				}
				from = to
			}
			require.Equal(t, int64(expected*64), p.offsets[i])
		}
	}
}

// TestPackSearches compares with all placements that are bottom-left in some order, which hold an optimal one.
func TestPackSearches(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	optimal, ours := int64(0), int64(0)
	for k := 0; k < 60; k++ {
		items := make([]Interval, 6)
		for i := range items {
			first := r.Intn(6)
			items[i] = Interval{first, first + r.Intn(4), 64 * (1 + r.Int63n(6))}
		}
		best := exhaustive(items)
		p := Pack(items, Effort{})
		require.LessOrEqual(t, p.Bound, best)
		require.GreaterOrEqual(t, p.Height, best)
		optimal, ours = optimal+best, ours+p.Height
	}
	t.Logf("ours over optimal: %.4f", float64(ours)/float64(optimal))
	assert.Less(t, float64(ours)/float64(optimal), 1.02)
}

// exhaustive places items in every order, each as low as it goes.
func exhaustive(items []Interval) int64 {
	best := int64(1) << 62
	offsets, placed := make([]int64, len(items)), make([]bool, len(items))
	var try func(n int, height int64)
	try = func(n int, height int64) {
		if height >= best {
			return
		}
		if n == len(items) {
			best = height
			return
		}
		for i, a := range items {
			if placed[i] {
				continue
			}
			at, moved := int64(0), true
			for moved {
				moved = false
				for j, b := range items {
					if placed[j] && a.First <= b.Last && b.First <= a.Last && at < offsets[j]+b.Size && offsets[j] < at+a.Size {
						at, moved = offsets[j]+b.Size, true
					}
				}
			}
			placed[i], offsets[i] = true, at
			try(n+1, max(height, at+a.Size))
			placed[i] = false
		}
	}
	try(0, 0)
	return best
}

// shapes of 5,000 intervals: as a deep model has them, all at once, and long and random.
func packShapes() map[string][]Interval {
	r := rand.New(rand.NewSource(3))
	shapes := map[string][]Interval{"layers": nil, "together": nil, "random": nil, "mixed": nil}
	for i := 0; i < 5000; i++ {
		length := 1 + r.Intn(4)
		if i%500 == 0 {
			length = 5000
		}
		size := 64 * (1 + r.Int63n(1000))
		shapes["layers"] = append(shapes["layers"], Interval{i, min(i+length, 5000), size})
		shapes["together"] = append(shapes["together"], Interval{0, 5000, size})
		a, b := r.Intn(5000), r.Intn(5000)
		shapes["random"] = append(shapes["random"], Interval{min(a, b), max(a, b), size})
		shapes["mixed"] = append(shapes["mixed"], Interval{a, min(5000, a+r.Intn(100)), size})
	}
	return shapes
}

func TestPackLarge(t *testing.T) {
	for name, items := range packShapes() {
		begin := time.Now()
		p := Pack(items, Effort{})
		took := time.Since(begin)
		requireValid(t, items, p)
		t.Logf("%s: %v, height over bound %.4f", name, took, float64(p.Height)/float64(p.Bound))
		assert.Less(t, took, time.Minute, "far from what it takes, under the race detector too: no cubic surprise")
	}
}

func BenchmarkPack(b *testing.B) {
	for name, items := range packShapes() {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Pack(items, Effort{})
			}
		})
	}
}
