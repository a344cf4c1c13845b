package cuda

import (
	"testing"

	"github.com/stretchr/testify/require"

	ops "github.com/libadcg/libadcg/kernels"
	"github.com/libadcg/libadcg/piecewise"
)

// The tape zeroes no tail that a schema promises or these kernels say to zero: a promise of the schema's must be theirs.
func TestTailsThatSchemasPromise(t *testing.T) {
	found := 0
	for _, s := range ops.Library() {
		_, _, _, zeroes, ok := Find(s.Name)
		if !ok {
			continue
		}
		found++
		require.True(t, zeroes || s.Flags&piecewise.FlagZeroesTail == 0, s.Name)
	}
	require.Greater(t, found, 20)
}
