// Package integration tests the engine as a Go program uses it: from a registered graph to replayed steps on the host device.
package integration

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/piecewise"
)

const width = 8 // elements a row, of every test graph

func newEngine(t *testing.T) *engine.Engine {
	t.Helper()
	return openDevice(t, "host")
}

func tensor(t *testing.T, rows int64, fill func(i int) float32) engine.Tensor {
	t.Helper()
	out, err := engine.NewTensor(engine.F32, rows, width)
	require.NoError(t, err)
	t.Cleanup(out.Free)
	for i := range out.Float32() {
		out.Float32()[i] = fill(i)
	}
	return out
}

func zeros(int) float32 { return 0 }

func random(seed uint64) func(int) float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(int) float32 { return r.Float32()*2 - 1 }
}

// dynamic is an op that adds to every real row the count of real tokens, which only the batch tells.
func dynamic(name string, capture piecewise.CaptureSupport) engine.Op {
	return engine.Op{
		OpSchema: piecewise.OpSchema{
			Name: name, Kind: piecewise.Dynamic, Capture: capture, NumInputs: 1, NumOutputs: 1,
			Infer: func(in []piecewise.Type, _ []piecewise.Attr) ([]piecewise.Type, error) { return in, nil },
		},
		Launch: func(call engine.Call) error {
			if call.Phase() == engine.PhaseDiscover {
				return nil
			}
			real := call.Batch().Tokens()
			x, y := call.Input(0).Float32(), call.Output(0).Float32()
			for i := range y[:real*width] {
				y[i] = x[i] + float32(real)
			}
			return nil
		},
	}
}

// pipeline is x -> linear -> op -> add(x) -> linear -> y, with both linears of one weight.
type pipeline struct {
	engine *engine.Engine
	graph  *engine.Graph
	w      engine.Value
}

func newPipeline(t *testing.T, op engine.Op) *pipeline {
	t.Helper()
	e := newEngine(t)
	require.NoError(t, e.Register(op))
	g := e.NewGraph(engine.Limits{MaxTokens: 256, MaxSeqs: 8, MaxSeqLen: 256})
	t.Cleanup(g.Close)
	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(width))
	w := g.Weight("w", engine.F32, engine.Dim(width), engine.Dim(width))
	h := g.Op("adcg.linear", []engine.Value{x, w}, nil)[0]
	s := g.Op(op.Name, []engine.Value{h}, nil)[0]
	a := g.Op("adcg.add", []engine.Value{s, x}, nil)[0]
	g.Output("y", g.Op("adcg.linear", []engine.Value{a, w}, nil)[0])
	require.NoError(t, g.Freeze())
	return &pipeline{engine: e, graph: g, w: w}
}

func (p *pipeline) compile(t *testing.T, o engine.ExecOptions) *engine.Exec {
	t.Helper()
	x, err := p.graph.Compile(o)
	require.NoError(t, err)
	t.Cleanup(x.Close)
	require.NoError(t, x.Bind(p.w, tensor(t, width, random(7))))
	return x
}

// replay runs one step on rows of a seeded input and returns the real rows of y.
func replay(t *testing.T, x *engine.Exec, batch engine.Batch) ([]float32, engine.Step) {
	t.Helper()
	in, out := tensor(t, batch.Tokens(), random(uint64(batch.Tokens()))), tensor(t, batch.Tokens(), zeros)
	step, err := x.Replay(batch, []engine.Tensor{in}, []engine.Tensor{out}, 0)
	require.NoError(t, err)
	return append([]float32(nil), out.Float32()...), step
}

// witness computes the pipeline in float64, with no engine.
func witness(tokens int64) []float64 {
	w, next := make([]float64, width*width), random(7)
	for i := range w {
		w[i] = float64(next(i))
	}
	product := func(x []float64) []float64 {
		y := make([]float64, len(x))
		for r := range len(x) / width {
			for n := range width {
				for k := range width {
					y[r*width+n] += x[r*width+k] * w[n*width+k]
				}
			}
		}
		return y
	}
	x := make([]float64, tokens*width)
	next = random(uint64(tokens))
	for i := range x {
		x[i] = float64(next(i))
	}
	h := product(x)
	for i := range h {
		h[i] += float64(tokens) + x[i]
	}
	return product(h)
}
