package integration

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/piecewise"
)

// broken runs dynamic's launch and then `harm`, in replays of two tokens and more only.
func broken(harm func(call engine.Call)) engine.Op {
	op := dynamic("test.broken", piecewise.CaptureNever)
	well := op.Launch
	op.Launch = func(call engine.Call) error {
		if err := well(call); err != nil {
			return err
		}
		if call.Phase() == engine.PhaseReplay && call.Batch().Tokens() > 1 {
			harm(call)
		}
		return nil
	}
	return op
}

// Verify mode names op, value and rule; without harm it gives eager's bits.
func TestVerifyCatchesBrokenContracts(t *testing.T) {
	for _, c := range []struct {
		name, message string
		harm          func(call engine.Call)
		flags         uint32
	}{
		{"mutation", "adcg_exec_replay: op `test.broken#1`: wrote to `adcg.linear#0`, which it did not declare (verify: mutation)",
			func(call engine.Call) { call.Input(0).Float32()[3]++ }, 0},
		{"unwritten", "adcg_exec_replay: op `test.broken#1`: left row 1 of its output 0 unwritten (verify: outputs)",
			func(call engine.Call) {
				for i := range width * 4 {
					call.Output(0).Bytes()[width*4+i] = 0xA5
				}
			}, 0},
		{"none", "", func(engine.Call) {}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			op := broken(c.harm)
			op.Flags = c.flags
			p := newPipeline(t, op)
			x := p.compile(t, engine.ExecOptions{Verify: true})
			in, out := tensor(t, 40, random(40)), tensor(t, 40, zeros)
			_, err := x.Replay(batches[3], []engine.Tensor{in}, []engine.Tensor{out}, 0)
			if c.message != "" {
				require.EqualError(t, err, c.message)
				_, step := replay(t, x, engine.Batch{DecodeSeqs: 1})
				require.EqualValues(t, 7, step.Reason)
				return
			}
			require.NoError(t, err)
			for i, w := range witness(40) {
				require.InDelta(t, w, out.Float32()[i], 0.04)
			}
		})
	}
}

// An op that keeps a pointer to a value that is dead reads poison, not last step's numbers.
func TestVerifyPoisonsDeadMemory(t *testing.T) {
	e := newEngine(t)
	var kept []float32
	var alive, seen float32
	keep := dynamic("test.keep", piecewise.CaptureNever)
	wellKeep := keep.Launch
	keep.Launch = func(call engine.Call) error {
		kept = call.Input(0).Float32()
		alive = kept[0]
		return wellKeep(call)
	}
	late := dynamic("test.late", piecewise.CaptureNever)
	wellLate := late.Launch
	late.Launch = func(call engine.Call) error {
		if call.Phase() == engine.PhaseReplay {
			seen = kept[0]
		}
		return wellLate(call)
	}
	require.NoError(t, e.Register(keep))
	require.NoError(t, e.Register(late))
	g := e.NewGraph(engine.Limits{MaxTokens: 16, MaxSeqs: 2, MaxSeqLen: 16})
	t.Cleanup(g.Close)
	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(width))
	a := g.Op("adcg.silu_mul", []engine.Value{x, x}, nil)[0]
	b := g.Op("test.keep", []engine.Value{a}, nil)[0]
	c := g.Op("test.late", []engine.Value{b}, nil)[0]
	d := g.Op("test.late", []engine.Value{c}, nil)[0]
	g.Output("y", g.Op("adcg.add", []engine.Value{d, x}, nil)[0])
	exec, err := g.Compile(engine.ExecOptions{Verify: true})
	require.NoError(t, err)
	t.Cleanup(exec.Close)
	in, out := tensor(t, 2, random(2)), tensor(t, 2, zeros)
	_, err = exec.Replay(engine.Batch{DecodeSeqs: 2}, []engine.Tensor{in}, []engine.Tensor{out}, 0)
	require.NoError(t, err)
	require.NotZero(t, alive)
	require.NotEqual(t, alive, seen, "read after its last use")
}
