//go:build cuhost

package cuhost

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"gorgonia.org/cu"

	"github.com/libadcg/libadcg/engine"
)

const width, hidden, eps = 64, 96, 1e-5

// block is x + linear(silu(linear(rms_norm(x)))), on the device with weights that cu put there.
type block struct {
	exec                 *engine.Exec
	gain, up, down       []float32
	gainMem, upMem, dMem engine.Tensor
}

func random(n int, seed uint64, scale float64) []float32 {
	source, out := rand.New(rand.NewPCG(seed, 2)), make([]float32, n)
	for i := range out {
		out[i] = float32(source.NormFloat64() * scale)
	}
	return out
}

func newBlock(t *testing.T) *block {
	t.Helper()
	device, ctx := open(t)
	eng, err := engine.New(DeviceName(device))
	if engine.StatusOf(err) == engine.ErrUnsupported {
		t.Skipf("the engine does not drive CUDA devices yet: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(eng.Close)
	require.NoError(t, CheckContext(device, ctx))
	g := eng.NewGraph(engine.Limits{MaxTokens: 64, MaxSeqs: 8, MaxSeqLen: 64})
	t.Cleanup(g.Close)
	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(width))
	gain := g.Weight("gain", engine.F32, engine.Dim(width))
	up := g.Weight("up", engine.F32, engine.Dim(hidden), engine.Dim(width))
	down := g.Weight("down", engine.F32, engine.Dim(width), engine.Dim(hidden))
	n := g.Op("adcg.rms_norm", []engine.Value{x, gain}, []engine.Attr{engine.Float("eps", eps)})[0]
	h := g.Op("adcg.silu", g.Op("adcg.linear", []engine.Value{n, up}, nil), nil)[0]
	g.Output("y", g.Op("adcg.add", []engine.Value{x, g.Op("adcg.linear", []engine.Value{h, down}, nil)[0]}, nil)[0])
	exec, err := g.Compile(engine.ExecOptions{Buckets: []int64{16, 64}})
	require.NoError(t, err)
	t.Cleanup(exec.Close)

	b := &block{
		exec: exec, gain: random(width, 1, 1), up: random(hidden*width, 2, 0.1), down: random(width*hidden, 3, 0.1),
		gainMem: alloc(t, engine.F32, width), upMem: alloc(t, engine.F32, hidden, width), dMem: alloc(t, engine.F32, width, hidden),
	}
	require.NoError(t, Upload(b.gainMem, b.gain))
	require.NoError(t, Upload(b.upMem, b.up))
	require.NoError(t, Upload(b.dMem, b.down))
	require.NoError(t, exec.Bind(gain, b.gainMem))
	require.NoError(t, exec.Bind(up, b.upMem))
	require.NoError(t, exec.Bind(down, b.dMem))
	return b
}

// witness computes one row in float64, with neither engine nor device.
func (b *block) witness(x []float32) []float64 {
	var squares float64
	for _, v := range x {
		squares += float64(v) * float64(v)
	}
	scale := 1 / math.Sqrt(squares/width+eps)
	h, y := make([]float64, hidden), make([]float64, width)
	for j := range h {
		for i, v := range x {
			h[j] += float64(v) * scale * float64(b.gain[i]) * float64(b.up[j*width+i])
		}
		h[j] /= 1 + math.Exp(-h[j])
	}
	for i := range y {
		y[i] = float64(x[i])
		for j := range h {
			y[i] += h[j] * float64(b.down[i*hidden+j])
		}
	}
	return y
}

func (b *block) check(t *testing.T, x, y []float32) {
	t.Helper()
	for row := range len(x) / width {
		want := b.witness(x[row*width : (row+1)*width])
		for i, w := range want {
			require.InDelta(t, w, float64(y[row*width+i]), 2e-5*(1+math.Abs(w)), "row %d, column %d", row, i)
		}
	}
}

// cu uploads, the engine replays, cu reads back: all in the order of one stream of the host's.
func TestReplayOnAStreamOfCu(t *testing.T) {
	b := newBlock(t)
	made, err := cu.MakeStream(cu.NonBlocking)
	require.NoError(t, err)
	defer func() { require.NoError(t, made.Destroy()) }()
	for _, stream := range []cu.Stream{made, cu.NoStream} { // no subtests: they run on threads without the context
		type step struct{ x, y []float32 }
		var steps []step
		for i, tokens := range []int64{5, 16, 17, 64, 5, 1} { // of both buckets, full and padded
			s := step{random(int(tokens)*width, uint64(10+i), 1), make([]float32, tokens*width)}
			in, out := alloc(t, engine.F32, tokens, width), alloc(t, engine.F32, tokens, width)
			require.NoError(t, Upload(out, random(len(s.y), 99, 1000)), "what nobody writes shows")
			require.NoError(t, cu.MemcpyHtoDAsync(Pointer(in), unsafe.Pointer(&s.x[0]), 4*tokens*width, stream))
			done, err := b.exec.Replay(engine.Batch{PrefillSeqs: 1, PrefillTokens: tokens}, []engine.Tensor{in}, []engine.Tensor{out}, Stream(stream))
			require.NoError(t, err)
			require.GreaterOrEqual(t, done.BucketTokens, tokens)
			require.NoError(t, cu.MemcpyDtoHAsync(unsafe.Pointer(&s.y[0]), Pointer(out), 4*tokens*width, stream))
			steps = append(steps, s)
		}
		require.NoError(t, stream.Synchronize())
		for _, s := range steps {
			b.check(t, s.x, s.y)
		}
	}
}

// Streams of the host's, ordered by its events: the input comes on one, the step runs on another, the output is read on a third.
func TestReplayBetweenEvents(t *testing.T) {
	b := newBlock(t)
	const tokens = 16
	var streams [3]cu.Stream
	var events [2]cu.Event
	for i := range streams {
		stream, err := cu.MakeStream(cu.NonBlocking)
		require.NoError(t, err)
		defer func() { require.NoError(t, stream.Destroy()) }()
		streams[i] = stream
	}
	for i := range events {
		event, err := cu.MakeEvent(cu.DisableTiming)
		require.NoError(t, err)
		defer func() { require.NoError(t, cu.DestroyEvent(&event)) }()
		events[i] = event
	}
	in, out := alloc(t, engine.F32, tokens, width), alloc(t, engine.F32, tokens, width)
	for round := range uint64(3) {
		x, y := random(tokens*width, 50+round, 1), make([]float32, tokens*width)
		require.NoError(t, cu.MemcpyHtoDAsync(Pointer(in), unsafe.Pointer(&x[0]), 4*tokens*width, streams[0]))
		require.NoError(t, events[0].Record(streams[0]))
		require.NoError(t, streams[1].Wait(events[0], 0))
		_, err := b.exec.Replay(engine.Batch{DecodeSeqs: 8}, []engine.Tensor{in}, []engine.Tensor{out}, Stream(streams[1]))
		require.NoError(t, err)
		require.NoError(t, events[1].Record(streams[1]))
		require.NoError(t, streams[2].Wait(events[1], 0))
		require.NoError(t, cu.MemcpyDtoHAsync(unsafe.Pointer(&y[0]), Pointer(out), 4*tokens*width, streams[2]))
		require.NoError(t, streams[2].Synchronize())
		b.check(t, x[:8*width], y[:8*width])
	}
}

// A tensor of the host's is refused; memory that has moved is not.
func TestReplayTakesDeviceMemoryAlone(t *testing.T) {
	b := newBlock(t)
	host, err := engine.NewTensor(engine.F32, 4, width)
	require.NoError(t, err)
	defer host.Free()
	out := alloc(t, engine.F32, 4, width)
	batch := engine.Batch{DecodeSeqs: 4}
	_, err = b.exec.Replay(batch, []engine.Tensor{host}, []engine.Tensor{out}, 0)
	refused(t, err, engine.ErrDevice, "device type 1 number 0, needs type 2 number 0")
	for round := range uint64(3) {
		x := random(4*width, 70+round, 1)
		in := alloc(t, engine.F32, 4, width)
		require.NoError(t, Upload(in, x))
		_, err := b.exec.Replay(batch, []engine.Tensor{in}, []engine.Tensor{out}, Stream(cu.NoStream))
		require.NoError(t, err)
		y, err := Download[float32](out)
		require.NoError(t, err)
		b.check(t, x, y)
	}
}
