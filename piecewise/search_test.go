package piecewise

import (
	"math/rand"
	"testing"

	"github.com/stretchr/testify/require"
)

// anyOffsets tells whether intervals can be placed below a height at whole offsets, some at given ones, by trying all:
// it knows of no order, floor or rest.
func anyOffsets(items []Interval, fixed []int64, height int64) bool {
	offsets := make([]int64, len(items))
	var try func(n int) bool
	try = func(n int) bool {
		if n == len(items) {
			return true
		}
		a := items[n]
	next:
		for at := int64(0); at+a.Size <= height; at++ {
			if fixed[n] >= 0 && at != fixed[n] {
				continue
			}
			for j, b := range items[:n] {
				if a.First <= b.Last && b.First <= a.Last && at < offsets[j]+b.Size && offsets[j] < at+a.Size {
					continue next
				}
			}
			if offsets[n] = at; try(n + 1) {
				return true
			}
		}
		return false
	}
	return try(0)
}

// TestSearchIsComplete asks for all heights around the least one, under every rule and under random orders.
func TestSearchIsComplete(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	outcomes := map[outcome]int{}
	for k := 0; k < 4000; k++ {
		n := 1 + r.Intn(6)
		items, fixed := make([]Interval, n), make([]int64, n)
		span := 1 + r.Intn(6)
		for i := range items {
			first := r.Intn(span)
			items[i] = Interval{first, first + r.Intn(span), 1 + r.Int63n(4)}
			if fixed[i] = -1; k%2 == 1 && r.Intn(3) == 0 {
				fixed[i] = r.Int63n(6)
			}
		}
		s := newSearch(items, fixed)
		for height := peak(items); height < peak(items)+4; height++ {
			expected := impossible
			if anyOffsets(items, fixed, height) {
				expected = found
			}
			for try := 0; try < 3; try++ {
				s.pick = rule(r.Intn(int(numRules)))
				for i, at := range r.Perm(n) {
					s.rank[i] = int32(at)
				}
				result := s.run(height, 1<<20)
				require.Equal(t, expected, result, "%v fixed %v below %d, rule %d, order %v", items, fixed, height, s.pick, s.rank)
				outcomes[result]++
				if result == found {
					requireApart(t, items, s.offset)
					for i, at := range s.offset {
						require.LessOrEqual(t, at+items[i].Size, height)
						require.True(t, fixed[i] < 0 || at == fixed[i])
					}
				}
			}
		}
	}
	require.Greater(t, outcomes[impossible], 1000)
	require.Greater(t, outcomes[found], 1000)
}

// requireApart looks at every pair.
func requireApart(t *testing.T, items []Interval, offsets []int64) {
	t.Helper()
	for i, a := range items {
		require.GreaterOrEqual(t, offsets[i], int64(0))
		for j, b := range items[:i] {
			apart := a.Last < b.First || b.Last < a.First || offsets[i]+a.Size <= offsets[j] || offsets[j]+b.Size <= offsets[i]
			require.True(t, apart, "%d and %d", i, j)
		}
	}
}
