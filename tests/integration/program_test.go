package integration

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/piecewise"
)

// The Go program of the API's sketch, with the parts that it leaves out: a weight, tensors, Close.
func TestProgram(t *testing.T) {
	batch, stream := engine.Batch{PrefillSeqs: 2, PrefillTokens: 37, DecodeSeqs: 3}, uintptr(0)
	weights, err := engine.NewTensor(engine.F32, 64, 64)
	require.NoError(t, err)
	defer weights.Free()
	in, err := engine.NewTensor(engine.F32, 40, 64)
	require.NoError(t, err)
	defer in.Free()
	out, err := engine.NewTensor(engine.F32, 40, 64)
	require.NoError(t, err)
	defer out.Free()
	for i := range 64 {
		weights.Float32()[i*64+(i+1)%64] = 2 // y[i] = 2 * x[i+1]
	}
	for i := range in.Float32() {
		in.Float32()[i] = float32(i)
	}

	eng, err := engine.New(deviceName())
	require.NoError(t, err)
	defer eng.Close()
	there := place(t, eng, out)
	inputs, outputs := []engine.Tensor{place(t, eng, in)}, []engine.Tensor{there}
	g := eng.NewGraph(engine.Limits{MaxTokens: 512, MaxSeqs: 8, MaxSeqLen: 256})
	defer g.Close()
	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(64))
	w := g.Weight("w", engine.F32, engine.Dim(64), engine.Dim(64))
	y := g.Op("adcg.linear", []engine.Value{x, w}, nil)[0] // errors are collected and returned by Freeze
	g.Output("y", y)
	exec, err := g.Compile(engine.ExecOptions{})
	require.NoError(t, err)
	defer exec.Close()
	require.NoError(t, exec.Bind(w, place(t, eng, weights)))
	step, err := exec.Replay(batch, inputs, outputs, stream)
	require.NoError(t, err)
	require.NoError(t, exec.Synchronize())
	fetch(t, eng, out, there)

	require.EqualValues(t, 64, step.BucketTokens)
	for row := range 40 {
		for i := range 64 {
			require.Equal(t, 2*float32(row*64+(i+1)%64), out.Float32()[row*64+i])
		}
	}
}

func TestBuilderErrorsAreCollected(t *testing.T) {
	e := newEngine(t)
	g := e.NewGraph(engine.Limits{MaxTokens: 8, MaxSeqs: 2})
	t.Cleanup(g.Close)
	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(width))
	g.Output("y", g.Op("linear", []engine.Value{x}, nil)[0])
	_, err := g.Compile(engine.ExecOptions{})
	require.EqualError(t, err, "op: `linear`: not registered, did you mean `adcg.linear`?")
	require.Equal(t, engine.ErrNotFound, engine.StatusOf(err))
}

// A static op in Go with an attribute, workspace, and an output whose shape is discovered: twice as many rows, each value times
// a factor.
func repeat() engine.Op {
	return engine.Op{
		OpSchema: piecewise.OpSchema{
			Name: "test.repeat", Kind: piecewise.Static, NumInputs: 1, NumOutputs: 1,
			Attrs: []piecewise.AttrSpec{{Default: engine.Float("factor", 3)}},
			Workspace: func(in, _ []piecewise.Shape, _ []piecewise.Attr, _, _ int64) (int64, error) {
				return in[0].Dims[0] * width * 4, nil
			},
		},
		Launch: func(call engine.Call) error {
			x := call.Input(0)
			if call.Phase() == engine.PhaseDiscover {
				call.SetOutput(0, piecewise.Shape{DType: engine.F32, Dims: []int64{2 * x.Shape.Dims[0], width}})
				return nil
			}
			scratch, y := call.Workspace(), call.Output(0)
			n := copy(scratch, x.Bytes())
			copy(y.Bytes(), scratch[:n])
			copy(y.Bytes()[n:], scratch[:n])
			for i := range y.Float32() {
				y.Float32()[i] *= float32(call.Attr(0).Float)
			}
			return nil
		},
	}
}

func TestStaticGoOpWithDiscoveryAndWorkspace(t *testing.T) {
	e := newEngine(t)
	require.NoError(t, e.Register(repeat()))
	require.Equal(t, engine.ErrState, engine.StatusOf(e.Register(repeat())))
	g := e.NewGraph(engine.Limits{MaxTokens: 32, MaxSeqs: 4})
	t.Cleanup(g.Close)
	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(width))
	g.Output("y", g.Op("test.repeat", []engine.Value{x}, []engine.Attr{engine.Float("factor", 0.5)})[0])
	exec, err := g.Compile(engine.ExecOptions{Buckets: []int64{5, 32}})
	require.NoError(t, err)
	t.Cleanup(exec.Close)
	info, err := g.Value(1)
	require.NoError(t, err)
	require.Equal(t, "float32[2*tokens, 8]", info.Type.String())
	forecast, err := g.Forecast(engine.ExecOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 32*width*4, forecast.WorkspaceBytes)

	in, out := tensor(t, 5, random(5)), tensor(t, 10, zeros)
	_, err = exec.Replay(engine.Batch{PrefillSeqs: 1, PrefillTokens: 5}, []engine.Tensor{in}, []engine.Tensor{out}, 0)
	require.NoError(t, err)
	for i, v := range in.Float32() {
		require.Equal(t, []float32{v / 2, v / 2}, []float32{out.Float32()[i], out.Float32()[5*width+i]})
	}
}
