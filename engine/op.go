package engine

import (
	"runtime/cgo"

	"github.com/libadcg/libadcg/engine/device"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/piecewise"
)

// Call is one launch of an op written in Go; its tensors are valid during the call only.
type Call = tape.GoCall

// Phases of a call; adcg.h says what each means.
const (
	PhaseWarmup   int32 = 1
	PhaseCapture  int32 = 2
	PhaseReplay   int32 = 3
	PhaseDiscover int32 = 4
)

// Op is an op of the host's own. Its code is Launch, in Go, or Native, in C.
//
// Without Infer (and Discover), the outputs' shapes are discovered: Launch is called with PhaseDiscover at several sizes and
// answers with Call.SetOutput; an output that it leaves alone has the shape of input 0.
type Op struct {
	piecewise.OpSchema
	// Launch computes the outputs. An error, or a panic, is the op's error and ends the step, nothing more.
	Launch func(call Call) error
	Native *Native
}

// Native is an op written in C: addresses of its callbacks (adcg_op_infer_fn and so on; 0: none) and what they are given.
type Native struct {
	Infer, Workspace, Launch, Part uintptr
	UserData                       uintptr
}

// registeredOp is an op that graphs may use.
type registeredOp struct {
	schema    *piecewise.OpSchema
	isBuiltIn bool
	builtIn   device.Impl
	missing   bool // built in, but not on this device
	native    Native
	handle    cgo.Handle // of an op written in Go; else 0
}

func newOp(op Op) (*registeredOp, error) {
	schema := op.OpSchema
	r := &registeredOp{schema: &schema}
	switch {
	case op.Native != nil:
		r.native = *op.Native
		if r.native.Infer != 0 {
			schema.Infer = inferOf(r.native.Infer, r.native.UserData, schema.NumOutputs)
		}
		if part := r.native.Part; part != 0 {
			schema.Part = func(alias int, in, out []piecewise.Type, attrs []piecewise.Attr) (piecewise.Part, error) {
				return tape.Part(part, op.Native.UserData, alias, in, out, attrs)
			}
		}
		if r.native.Workspace != 0 {
			schema.Workspace = workspaceOf(r.native.Workspace, r.native.UserData)
		}
	case op.Launch != nil:
		r.handle = cgo.NewHandle(tape.GoLaunch(op.Launch))
		r.native = Native{Launch: tape.GoLaunchAddress(), UserData: uintptr(r.handle)}
	}
	if schema.Infer == nil && schema.Discover == nil && r.native.Launch != 0 {
		schema.Discover = discoverOf(r.native.Launch, r.native.UserData, schema.NumOutputs)
	}
	if err := piecewise.ValidateSchema(&schema); err != nil {
		r.close()
		return nil, err
	}
	if r.native.Launch == 0 && !piecewise.OnlyViews(&schema) {
		r.close()
		return nil, errorf(ErrArgument, "schema.launch: NULL: only an op whose every output is a view may leave it out")
	}
	return r, nil
}

func (r *registeredOp) close() {
	if r.handle != 0 {
		r.handle.Delete()
		r.handle = 0
	}
}

func inferOf(infer, userData uintptr, numOutputs int) func([]piecewise.Type, []piecewise.Attr) ([]piecewise.Type, error) {
	return func(inputs []piecewise.Type, attrs []piecewise.Attr) ([]piecewise.Type, error) {
		return tape.Infer(infer, userData, inputs, attrs, numOutputs)
	}
}

func workspaceOf(workspace, userData uintptr) func(in, out []piecewise.Shape, attrs []piecewise.Attr, tokens, seqs int64) (int64, error) {
	return func(in, out []piecewise.Shape, attrs []piecewise.Attr, tokens, seqs int64) (int64, error) {
		return tape.Workspace(workspace, userData, in, out, attrs, tokens, seqs)
	}
}

func discoverOf(launch, userData uintptr, numOutputs int) func([]piecewise.Shape, []piecewise.Attr, int64, int64) ([]piecewise.Shape, error) {
	return func(inputs []piecewise.Shape, attrs []piecewise.Attr, tokens, seqs int64) ([]piecewise.Shape, error) {
		return tape.Discover(launch, userData, inputs, attrs, numOutputs, tokens, seqs)
	}
}
