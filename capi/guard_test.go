package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/engine/tape"
)

// A fault of the library's own becomes a status, and every later call knows of it.
func TestGuard(t *testing.T) {
	require.EqualValues(t, engine.OK, guard("adcg_f", func() error { return nil }))
	require.EqualValues(t, engine.ErrInternal, guard("adcg_f", func() error { return errors.New("unsorted") }))
	require.Equal(t, "adcg_f: unsorted", tape.LastError())
	require.EqualValues(t, engine.ErrShape, guard("adcg_f", func() error { return &engine.Error{Status: engine.ErrShape, Message: "x: 3 rows"} }))
	require.Equal(t, "adcg_f: x: 3 rows", tape.LastError())

	require.False(t, tape.Poisoned())
	require.EqualValues(t, engine.ErrInternal, guard("adcg_f", func() error { panic("a bug") }))
	require.Equal(t, "adcg_f: internal fault: a bug", tape.LastError())
	require.True(t, tape.Poisoned())
}
