package piecewise

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWriteJSON(t *testing.T) {
	p, v := checkedPlan(t)
	var out bytes.Buffer
	require.NoError(t, p.WriteJSON(&out))
	var r map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	var names []string
	for name := range r {
		names = append(names, name)
	}
	slices.Sort(names)
	assert.Equal(t, strings.Fields(`arena_bytes blocks bucket_sum_bytes buckets capture_support copies gap_bytes layout layouts limits lower_bound_bytes
		main_layout
		mixed_capacity mode nodes notes num_dynamic_ops num_segments partitions peak query_len seq_buckets staging_bytes units values version
		workspace_bytes`), names, "tools read these")
	assert.Equal(t, float64(p.ArenaBytes), r["arena_bytes"])
	assert.Equal(t, "piecewise", r["mode"])
	assert.Equal(t, "never", r["capture_support"])
	assert.Equal(t, []any{}, r["notes"], "a list without entries is no null")
	values := r["values"].([]any)
	require.Len(t, values, len(p.Graph.Values))
	assert.Equal(t, map[string]any{"name": "v#1", "role": "activation", "type": "float32[tokens, 4, 4]", "place": "arena",
		"index": float64(p.Storage[v["v"]].Index), "strides": []any{}, "offset": float64(p.offsetOf(v["v"])), "bytes": 256.0, "first": 2.0, "last": 3.0}, values[v["v"]])
	assert.Equal(t, 4.0, values[v["a"]].(map[string]any)["last"])
	assert.Equal(t, []any{map[string]any{"value": "y#5", "output": "again"}}, r["copies"])
	parts := r["partitions"].([]any)
	require.Len(t, parts, 3)
	assert.Equal(t, map[string]any{"kind": "dynamic op", "first": 2.0, "end": 3.0, "why": "capture support never", "nodes": []any{"d#2"}}, parts[1])

	// What is live at the peak adds up to the bound.
	peak := r["peak"].(map[string]any)
	var sum int64
	for _, b := range peak["live"].([]any) {
		sum += align(int64(b.(map[string]any)["bytes"].(float64)))
	}
	assert.Equal(t, p.LowerBound, sum)
	assert.Equal(t, float64(p.LowerBound), peak["bytes"])
}

func TestWriteText(t *testing.T) {
	p, _ := checkedPlan(t)
	var out bytes.Buffer
	require.NoError(t, p.WriteText(&out))
	text := out.String()
	for _, line := range []string{
		"plan for 4 tokens, 2 sequences, mode piecewise, capture support never",
		"partitions: 2 segments, 1 dynamic ops",
		"arena, peak 768 bytes at time 3",
		"copies behind the last op",
	} {
		assert.Contains(t, text, line)
	}
	for _, line := range strings.Split(text, "\n") {
		assert.Equal(t, strings.TrimRight(line, " "), line, "no blanks at line ends")
	}
}

func TestNotes(t *testing.T) {
	b := newBuild(t, 4, 2)
	s := static("f", 1, f32(tokens))
	s.Flags = FlagHostSync
	b.output("y", b.op(s, b.input("x", f32(tokens))))
	assert.Equal(t, []string{"op `f#0` is static and runs as a dynamic one: host sync"}, b.plan(Options{}).report().Notes)
}

type stop struct{}

var errStop = errors.New("stop")

func (stop) Write([]byte) (int, error) { return 0, errStop }

func TestWriterErrorsPass(t *testing.T) {
	p, _ := checkedPlan(t)
	assert.Equal(t, errStop, p.WriteJSON(stop{}))
	assert.Equal(t, errStop, p.WriteText(stop{}))
	assert.Equal(t, errStop, p.WriteSVG(stop{}))
}
