package integration

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/piecewise"
)

var batches = []engine.Batch{
	{DecodeSeqs: 1}, {DecodeSeqs: 3}, {DecodeSeqs: 8},
	{PrefillSeqs: 2, PrefillTokens: 37, DecodeSeqs: 3},
	{PrefillSeqs: 1, PrefillTokens: 64}, {PrefillSeqs: 1, PrefillTokens: 65}, {PrefillSeqs: 3, PrefillTokens: 256},
	{ExtendSeqs: 2, ExtendTokens: 8, QueryLen: 4}, {PrefillSeqs: 1, PrefillTokens: 200, ExtendSeqs: 1, ExtendTokens: 3, DecodeSeqs: 2},
}

// The numbers are right, and every mode and bucket list gives the same bits as eager.
func TestEveryModeGivesEagersBits(t *testing.T) {
	for _, capture := range []piecewise.CaptureSupport{
		piecewise.CaptureNever, piecewise.CaptureUniformDecode, piecewise.CaptureUniformBatch, piecewise.CaptureAlways,
	} {
		p := newPipeline(t, dynamic("test.count", capture))
		eager := p.compile(t, engine.ExecOptions{Mode: engine.Eager})
		for _, mode := range []engine.Mode{engine.Piecewise, engine.Full, engine.FullDecodeOnly, engine.FullAndPiecewise} {
			for _, buckets := range [][]int64{nil, {16, 100}, {256}, {1, 2, 3, 5, 37, 40, 64, 65}} {
				x := p.compile(t, engine.ExecOptions{Mode: mode, Buckets: buckets, QueryLen: 4})
				for _, batch := range batches {
					want, step := replay(t, eager, batch)
					require.Equal(t, int32(piecewise.ModeNone), step.Mode)
					require.Zero(t, step.PaddedTokens)
					for i, w := range witness(batch.Tokens()) {
						require.InDelta(t, w, want[i], 1e-3*float64(batch.Tokens()))
					}
					for range 2 { // captured on first use, then replayed
						got, step := replay(t, x, batch)
						require.Equal(t, want, got, "capture %v, mode %v, buckets %v, batch %+v, step %+v", capture, mode, buckets, batch, step)
						require.Equal(t, step.BucketTokens-batch.Tokens(), step.PaddedTokens)
					}
				}
			}
		}
	}
}

// Which mode and bucket a step takes, and the reason where it is not the full graph: the table of the design.
func TestDispatch(t *testing.T) {
	const full, pieces, eager = int32(piecewise.ModeFull), int32(piecewise.ModePiecewise), int32(piecewise.ModeNone)
	const none, mode, support, large = 0, 1, 2, 3 // ADCG_REASON_*
	decode, mixed := engine.Batch{DecodeSeqs: 3}, engine.Batch{PrefillSeqs: 1, PrefillTokens: 40, DecodeSeqs: 1}
	uniform := engine.Batch{ExtendSeqs: 2, ExtendTokens: 8, QueryLen: 4}
	wide := engine.Batch{PrefillSeqs: 1, PrefillTokens: 101}
	for _, c := range []struct {
		capture      piecewise.CaptureSupport
		mode         engine.Mode
		batch        engine.Batch
		wantMode     int32
		wantReason   int32
		tokens, seqs int64
	}{
		{piecewise.CaptureUniformDecode, engine.FullAndPiecewise, decode, full, none, 4, 4},
		{piecewise.CaptureUniformDecode, engine.FullAndPiecewise, mixed, pieces, support, 64, 2},
		{piecewise.CaptureUniformDecode, engine.FullAndPiecewise, uniform, pieces, support, 64, 2},
		{piecewise.CaptureUniformDecode, engine.FullAndPiecewise, wide, eager, large, 101, 1},
		{piecewise.CaptureUniformDecode, engine.Piecewise, decode, pieces, mode, 64, 3},
		{piecewise.CaptureUniformDecode, engine.Full, mixed, eager, support, 41, 2},
		{piecewise.CaptureUniformDecode, engine.FullDecodeOnly, decode, full, none, 4, 4},
		{piecewise.CaptureUniformDecode, engine.FullDecodeOnly, mixed, eager, mode, 41, 2},
		{piecewise.CaptureUniformBatch, engine.FullAndPiecewise, uniform, full, none, 8, 2},
		{piecewise.CaptureUniformBatch, engine.FullAndPiecewise, mixed, pieces, support, 64, 2},
		{piecewise.CaptureAlways, engine.FullAndPiecewise, mixed, full, none, 64, 8},
		{piecewise.CaptureAlways, engine.Full, wide, eager, large, 101, 1},
		{piecewise.CaptureNever, engine.FullAndPiecewise, decode, pieces, support, 64, 3},
		{piecewise.CaptureNever, engine.Full, decode, eager, support, 3, 3},
		{piecewise.CaptureNever, engine.Eager, decode, eager, mode, 3, 3},
	} {
		p := newPipeline(t, dynamic("test.count", c.capture))
		x := p.compile(t, engine.ExecOptions{Mode: c.mode, Buckets: []int64{64, 100}, QueryLen: 4})
		_, step := replay(t, x, c.batch)
		require.Equal(t, []any{c.wantMode, c.wantReason, c.tokens, c.seqs}, []any{step.Mode, step.Reason, step.BucketTokens, step.BucketSeqs}, "%+v", c)
	}
}

func TestForecastEqualsWhatIsHeld(t *testing.T) {
	p := newPipeline(t, dynamic("test.count", piecewise.CaptureUniformDecode))
	for _, o := range []engine.ExecOptions{{}, {Mode: engine.Eager}, {Mode: engine.Piecewise, Buckets: []int64{7, 130}}, {Verify: true}} {
		forecast, err := p.graph.Forecast(o)
		require.NoError(t, err)
		x := p.compile(t, o)
		require.NoError(t, x.Capture(nil, nil))
		stats, err := x.Stats()
		require.NoError(t, err)
		require.Equal(t, forecast.TotalBytes, stats.TotalBytes)
		require.Equal(t, []int64{forecast.ArenaBytes, forecast.MetadataBytes, forecast.TapeBytes}, []int64{stats.ArenaBytes, stats.MetadataBytes, stats.TapeBytes})
		require.EqualValues(t, forecast.NumBuckets, stats.CapturedBuckets)
		require.LessOrEqual(t, forecast.LowerBoundBytes, forecast.ArenaBytes)
	}
}

// Inputs and outputs: used in place where they are long enough for the bucket, staged where not, re-pointed when they move.
func TestStagingAndRepointing(t *testing.T) {
	p := newPipeline(t, dynamic("test.count", piecewise.CaptureNever))
	x := p.compile(t, engine.ExecOptions{Buckets: []int64{64}})
	batch := engine.Batch{PrefillSeqs: 1, PrefillTokens: 40}
	short := func() engine.Tensor { return tensor(t, 40, random(40)) }
	long := func() engine.Tensor { return tensor(t, 64, random(40)) }
	run := func(in, out engine.Tensor) engine.Step {
		step, err := x.Replay(batch, []engine.Tensor{in}, []engine.Tensor{out}, 0)
		require.NoError(t, err)
		for i, w := range witness(40) {
			require.InDelta(t, w, out.Float32()[i], 0.04)
		}
		return step
	}
	const rows = 40 * width * 4
	require.EqualValues(t, 2*rows, run(short(), short()).StagedBytes)
	in, out := long(), long()
	step := run(in, out)
	require.Zero(t, step.StagedBytes)
	require.EqualValues(t, 2, step.Repointed) // from the staging areas to the caller's
	require.Zero(t, run(in, out).Repointed)
	require.EqualValues(t, 1, run(in, long()).Repointed)
	require.EqualValues(t, rows, run(in, short()).StagedBytes)
	for _, v := range in.Float32()[40*width:] {
		require.Zero(t, v) // the tail was lent, and zeroed
	}
	guarded := tensor(t, 41, func(int) float32 { return 5 })
	run(in, guarded)
	for _, v := range guarded.Float32()[40*width:] {
		require.EqualValues(t, 5, v) // staged: only real rows are touched
	}
}

// A tensor says where its memory lies; nobody reads it elsewhere.
func TestTensorsOfAnotherDevice(t *testing.T) {
	p := newPipeline(t, dynamic("test.count", piecewise.CaptureNever))
	x := p.compile(t, engine.ExecOptions{})
	in, out := tensor(t, 4, zeros), tensor(t, 4, zeros)
	batch := engine.Batch{DecodeSeqs: 4}
	unlabelled := engine.Tensor{Data: in.Data, Shape: in.Shape}
	_, err := x.Replay(batch, []engine.Tensor{unlabelled}, []engine.Tensor{out}, 0)
	require.NoError(t, err)

	cuda := in
	cuda.DeviceType, cuda.DeviceID = engine.DeviceCUDA, 3
	_, err = x.Replay(batch, []engine.Tensor{cuda}, []engine.Tensor{out}, 0)
	require.Equal(t, engine.ErrDevice, engine.StatusOf(err))
	require.ErrorContains(t, err, "device type 2 number 3, needs type 1 number 0")
	require.Equal(t, engine.ErrDevice, engine.StatusOf(x.Bind(p.w, cuda)))
	for _, touch := range []func(){func() { cuda.Bytes() }, func() { cuda.Float32() }, func() { cuda.Free() }} {
		require.PanicsWithValue(t, "tensor in memory of device type 2 number 3, not in the host's", touch)
	}
}

func TestRebinding(t *testing.T) {
	p := newPipeline(t, dynamic("test.count", piecewise.CaptureUniformDecode))
	x, fresh := p.compile(t, engine.ExecOptions{}), p.compile(t, engine.ExecOptions{})
	before, _ := replay(t, x, batches[3])
	other := tensor(t, width, random(99))
	require.NoError(t, x.Bind(p.w, other))
	after, _ := replay(t, x, batches[3])
	require.NotEqual(t, before, after)
	require.NoError(t, fresh.Bind(p.w, other))
	want, _ := replay(t, fresh, batches[3])
	require.Equal(t, want, after)
}

func TestOpErrorsAndPanicsEndTheStepAlone(t *testing.T) {
	mood := "well"
	op := dynamic("test.moody", piecewise.CaptureNever)
	well := op.Launch
	op.Launch = func(call engine.Call) error {
		switch mood {
		case "error":
			return errors.New("slot 7 is out of range")
		case "panic":
			panic("index out of range [3]")
		}
		return well(call)
	}
	p := newPipeline(t, op)
	x := p.compile(t, engine.ExecOptions{Buckets: []int64{64}})
	want, _ := replay(t, x, batches[3])
	in, out := tensor(t, 40, random(40)), tensor(t, 40, zeros)
	for _, c := range [][2]string{
		{"error", "adcg_exec_replay: op `test.moody#1`: slot 7 is out of range"},
		{"panic", "adcg_exec_replay: op `test.moody#1`: panic: index out of range [3]"},
	} {
		mood = c[0]
		_, err := x.Replay(batches[3], []engine.Tensor{in}, []engine.Tensor{out}, 0)
		require.EqualError(t, err, c[1])
		require.Equal(t, engine.ErrOp, engine.StatusOf(err))
		mood = "well"
		got, _ := replay(t, x, batches[3])
		require.Equal(t, want, got)
	}
	stats, err := x.Stats()
	require.NoError(t, err)
	require.EqualValues(t, 2, stats.FailedSteps)
}

// A bucket whose warm-up fails runs eagerly; the others stay usable, and the message names the op.
func TestCaptureFailureIsTheBucketsOwn(t *testing.T) {
	op := dynamic("test.shy", piecewise.CaptureNever)
	well := op.Launch
	op.Launch = func(call engine.Call) error {
		if tokens, _ := call.Bucket(); call.Phase() == engine.PhaseWarmup && tokens == 64 {
			return errors.New("not at 64")
		}
		return well(call)
	}
	p := newPipeline(t, op)
	x := p.compile(t, engine.ExecOptions{Buckets: []int64{64, 128}})
	eager := p.compile(t, engine.ExecOptions{Mode: engine.Eager})
	var told []error
	err := x.Capture(nil, func(_, count int, _ engine.Unit, err error) bool {
		require.Equal(t, 2, count)
		told = append(told, err)
		return true
	})
	require.EqualError(t, err, "adcg_exec_capture: op `test.shy#1`: not at 64")
	require.Len(t, told, 2)
	for _, c := range []struct {
		tokens int64
		mode   piecewise.Mode
		reason int32
	}{{40, piecewise.ModeNone, 5}, {100, piecewise.ModePiecewise, 2}} {
		batch := engine.Batch{PrefillSeqs: 1, PrefillTokens: c.tokens}
		want, _ := replay(t, eager, batch)
		got, step := replay(t, x, batch)
		require.Equal(t, want, got)
		require.Equal(t, []int32{int32(c.mode), c.reason}, []int32{step.Mode, step.Reason})
	}
}

func TestCaptureOrderAndCancel(t *testing.T) {
	p := newPipeline(t, dynamic("test.count", piecewise.CaptureUniformDecode))
	o := engine.ExecOptions{Explicit: true, Buckets: []int64{16, 64, 256}}
	forwards, backwards := p.compile(t, o), p.compile(t, o)
	_, err := forwards.Replay(batches[0], []engine.Tensor{tensor(t, 1, zeros)}, []engine.Tensor{tensor(t, 1, zeros)}, 0)
	require.Equal(t, engine.ErrState, engine.StatusOf(err))
	units := forwards.Plan().Units
	require.NoError(t, forwards.Capture(units, nil))
	for i := range units {
		require.NoError(t, backwards.Capture(units[len(units)-1-i:len(units)-i], nil))
	}
	for _, batch := range batches {
		a, stepA := replay(t, forwards, batch)
		b, stepB := replay(t, backwards, batch)
		require.Equal(t, a, b)
		require.Equal(t, stepA.Mode, stepB.Mode)
	}
	x := p.compile(t, o)
	err = x.Capture(nil, func(index, _ int, _ engine.Unit, _ error) bool { return index < 1 })
	require.Equal(t, engine.ErrCancelled, engine.StatusOf(err))
	stats, err := x.Stats()
	require.NoError(t, err)
	require.EqualValues(t, 2, stats.CapturedBuckets)
	require.Equal(t, engine.ErrNotFound, engine.StatusOf(x.Capture([]engine.Unit{{Mode: piecewise.ModeFull, Tokens: 17, Seqs: 17}}, nil)))
}

// One thread at a time on an exec; execs of one graph run in parallel.
func TestBusyAndParallel(t *testing.T) {
	var inner error
	var x *engine.Exec
	op := dynamic("test.count", piecewise.CaptureNever)
	well := op.Launch
	reenter := false
	op.Launch = func(call engine.Call) error {
		if reenter {
			_, inner = x.Replay(engine.Batch{DecodeSeqs: 1}, nil, nil, 0)
		}
		return well(call)
	}
	p := newPipeline(t, op)
	x = p.compile(t, engine.ExecOptions{})
	reenter = true
	replay(t, x, batches[0])
	reenter = false
	require.Equal(t, engine.ErrBusy, engine.StatusOf(inner))

	want, _ := replay(t, x, batches[6])
	var wg sync.WaitGroup
	for range 4 {
		y := p.compile(t, engine.ExecOptions{})
		in, out := tensor(t, 256, random(256)), tensor(t, 256, zeros)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 50 {
				_, err := y.Replay(batches[6], []engine.Tensor{in}, []engine.Tensor{out}, 0)
				if err != nil || out.Float32()[5] != want[5] {
					t.Errorf("parallel replay: %v, %v", err, out.Float32()[5])
					return
				}
			}
		}()
	}
	wg.Wait()
}

// Statuses are numbered in adcg.h and again in engine: the names say that they agree.
func TestStatusNamesAgreeWithTheHeader(t *testing.T) {
	for status, name := range map[engine.Status]string{
		engine.ErrArgument: "ADCG_ERR_ARGUMENT", engine.ErrHandle: "ADCG_ERR_HANDLE", engine.ErrState: "ADCG_ERR_STATE", engine.ErrBusy: "ADCG_ERR_BUSY",
		engine.ErrNotFound: "ADCG_ERR_NOT_FOUND", engine.ErrGraph: "ADCG_ERR_GRAPH", engine.ErrShape: "ADCG_ERR_SHAPE", engine.ErrDType: "ADCG_ERR_DTYPE",
		engine.ErrAttribute: "ADCG_ERR_ATTRIBUTE", engine.ErrAddress: "ADCG_ERR_ADDRESS", engine.ErrBatch: "ADCG_ERR_BATCH", engine.ErrDevice: "ADCG_ERR_DEVICE",
		engine.ErrUnsupported: "ADCG_ERR_UNSUPPORTED", engine.ErrOutOfMemory: "ADCG_ERR_OUT_OF_MEMORY", engine.ErrOp: "ADCG_ERR_OP",
		engine.ErrCancelled: "ADCG_ERR_CANCELLED", engine.ErrForked: "ADCG_ERR_FORKED", engine.ErrPoisoned: "ADCG_ERR_POISONED", engine.ErrInternal: "ADCG_ERR_INTERNAL",
	} {
		require.Equal(t, name, tape.StatusName(int32(status)))
	}
}
