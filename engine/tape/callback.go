package tape

// #include <stdlib.h>
// #include "callback.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime/cgo"
	"unsafe"

	"github.com/libadcg/libadcg/piecewise"
)

// CallbackError is the failure of an op's callback: its status and the message that it left.
type CallbackError struct {
	Status  int32
	Message string
}

func (e *CallbackError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("returned %d (%s)", e.Status, StatusName(e.Status))
}

func callbackError(status C.adcg_status) error {
	if status == C.ADCG_OK {
		return nil
	}
	err := &CallbackError{Status: int32(status), Message: C.GoString(C.tape_op_error())}
	C.tape_clear_op_error()
	return err
}

// scratch runs fill on C memory that is freed when the returned function is called.
func scratch(fill func(b *block)) (func(), error) {
	var measure block
	fill(&measure)
	base := C.calloc(1, C.size_t(max(measure.used, 8)))
	if base == nil {
		return nil, ErrOutOfMemory
	}
	fill(&block{base: base})
	return func() { C.free(base) }, nil
}

// ErrOutOfMemory is returned where C memory could not be had.
var ErrOutOfMemory = errors.New("out of host memory")

// Infer asks a C callback (adcg_op_infer_fn) for the types of numOutputs outputs.
func Infer(infer, userData uintptr, inputs []piecewise.Type, attrs []piecewise.Attr, numOutputs int) ([]piecewise.Type, error) {
	var call *C.adcg_infer_call
	var outputs []C.adcg_type
	free, err := scratch(func(b *block) {
		call = &array[C.adcg_infer_call](b, 1)[0]
		in := array[C.adcg_type](b, len(inputs))
		for i, t := range inputs {
			fillType(&in[i], t)
		}
		outputs = array[C.adcg_type](b, numOutputs)
		cAttrs := fillAttrs(b, attrs)
		call.struct_size = C.sizeof_adcg_infer_call
		call.num_inputs, call.num_outputs, call.num_attrs = C.int32_t(len(inputs)), C.int32_t(numOutputs), C.int32_t(len(attrs))
		call.inputs, call.outputs, call.attrs = first(in), first(outputs), first(cAttrs)
	})
	if err != nil {
		return nil, err
	}
	defer free()
	if err := callbackError(C.tape_call_infer(C.uintptr_t(infer), C.uintptr_t(userData), call)); err != nil {
		return nil, err
	}
	types := make([]piecewise.Type, numOutputs)
	for i := range types {
		types[i] = typeOf(&outputs[i])
	}
	return types, nil
}

// Part asks a C callback (adcg_op_part_fn) where the part of one alias lies.
func Part(part, userData uintptr, alias int, inputs, outputs []piecewise.Type, attrs []piecewise.Attr) (piecewise.Part, error) {
	var call *C.adcg_part_call
	var out *C.adcg_part
	free, err := scratch(func(b *block) {
		call, out = &array[C.adcg_part_call](b, 1)[0], &array[C.adcg_part](b, 1)[0]
		in, to := array[C.adcg_type](b, len(inputs)), array[C.adcg_type](b, len(outputs))
		for i, t := range inputs {
			fillType(&in[i], t)
		}
		for i, t := range outputs {
			fillType(&to[i], t)
		}
		cAttrs := fillAttrs(b, attrs)
		call.struct_size, call.alias = C.sizeof_adcg_part_call, C.int32_t(alias)
		call.num_inputs, call.num_outputs, call.num_attrs = C.int32_t(len(inputs)), C.int32_t(len(outputs)), C.int32_t(len(attrs))
		call.inputs, call.outputs, call.attrs = first(in), first(to), first(cAttrs)
	})
	if err != nil {
		return piecewise.Part{}, err
	}
	defer free()
	if err := callbackError(C.tape_call_part(C.uintptr_t(part), C.uintptr_t(userData), call, out)); err != nil {
		return piecewise.Part{}, err
	}
	return piecewise.Part{Axis: int(out.axis), Start: int64(out.start)}, nil
}

// shapesCall fills an op call without data: what workspace and discovery callbacks see.
func shapesCall(b *block, inputs, outputs []piecewise.Shape, attrs []piecewise.Attr, tokens, seqs int64) (*C.adcg_op_call, []C.DLTensor) {
	call := &array[C.adcg_op_call](b, 1)[0]
	batch := &array[C.adcg_batch](b, 1)[0]
	batch.struct_size = C.sizeof_adcg_batch
	tensors := array[C.DLTensor](b, len(inputs)+len(outputs))
	for i, s := range append(append([]piecewise.Shape(nil), inputs...), outputs...) {
		fillTensor(b, &tensors[i], s, C.DLDevice{device_type: C.kDLCPU})
	}
	cAttrs := fillAttrs(b, attrs)
	call.struct_size = C.sizeof_adcg_op_call
	call.num_inputs, call.num_outputs, call.num_attrs = C.int32_t(len(inputs)), C.int32_t(len(outputs)), C.int32_t(len(attrs))
	call.tokens, call.seqs, call.batch = C.int64_t(tokens), C.int64_t(seqs), batch
	call.inputs, call.attrs = first(tensors), first(cAttrs)
	if len(outputs) > 0 {
		call.outputs = &tensors[len(inputs)]
	}
	return call, tensors[len(inputs):]
}

// Workspace asks a C callback (adcg_op_workspace_fn) for the scratch it needs, in bytes.
func Workspace(workspace, userData uintptr, inputs, outputs []piecewise.Shape, attrs []piecewise.Attr, tokens, seqs int64) (int64, error) {
	var call *C.adcg_op_call
	var bytes *C.size_t
	free, err := scratch(func(b *block) {
		call, _ = shapesCall(b, inputs, outputs, attrs, tokens, seqs)
		bytes = &array[C.size_t](b, 1)[0]
	})
	if err != nil {
		return 0, err
	}
	defer free()
	if err := callbackError(C.tape_call_workspace(C.uintptr_t(workspace), C.uintptr_t(userData), call, bytes)); err != nil {
		return 0, err
	}
	return int64(*bytes), nil
}

// Discover asks a C callback (adcg_op_launch_fn, ADCG_PHASE_DISCOVER) for the shapes of numOutputs outputs.
func Discover(launch, userData uintptr, inputs []piecewise.Shape, attrs []piecewise.Attr, numOutputs int, tokens, seqs int64) ([]piecewise.Shape, error) {
	var call *C.adcg_op_call
	var outputs []C.DLTensor
	like := piecewise.Shape{DType: piecewise.F32}
	if len(inputs) > 0 {
		like = inputs[0]
	}
	empty := make([]piecewise.Shape, numOutputs)
	for i := range empty {
		empty[i] = piecewise.Shape{DType: like.DType, Dims: []int64{0}}
	}
	free, err := scratch(func(b *block) {
		call, outputs = shapesCall(b, inputs, empty, attrs, tokens, seqs)
		call.phase = C.ADCG_PHASE_DISCOVER
	})
	if err != nil {
		return nil, err
	}
	defer free()
	if err := callbackError(C.tape_call_launch(C.uintptr_t(launch), C.uintptr_t(userData), call)); err != nil {
		return nil, err
	}
	shapes := make([]piecewise.Shape, numOutputs)
	for i := range shapes {
		shapes[i] = shapeOf(&outputs[i])
		if len(shapes[i].Dims) == 1 && shapes[i].Dims[0] == 0 {
			shapes[i] = like // left alone
		}
	}
	return shapes, nil
}

// Prepare makes a node's state for a built-in op, from its attributes and its inputs' types; FreeState gives it back.
func Prepare(prepare uintptr, attrs []piecewise.Attr, inputs []piecewise.Type) (uintptr, error) {
	var cAttrs []C.adcg_attr
	var types []C.adcg_type
	var state []unsafe.Pointer
	free, err := scratch(func(b *block) {
		cAttrs = fillAttrs(b, attrs)
		types = array[C.adcg_type](b, len(inputs))
		for i, t := range inputs {
			fillType(&types[i], t)
		}
		state = array[unsafe.Pointer](b, 1)
	})
	if err != nil {
		return 0, err
	}
	defer free()
	status := C.tape_call_prepare(C.uintptr_t(prepare), first(cAttrs), C.int32_t(len(attrs)), first(types), C.int32_t(len(inputs)), &state[0])
	if status == C.ADCG_ERR_OUT_OF_MEMORY {
		return 0, ErrOutOfMemory
	}
	return uintptr(state[0]), callbackError(status)
}

// FreeState frees what Prepare made.
func FreeState(state uintptr) { C.free(C.tape_pointer(C.uintptr_t(state))) }

// GoCall is one launch of an op written in Go; its tensors are valid during the call only.
type GoCall struct{ c *C.adcg_op_call }

// GoLaunch is an op written in Go. An error, or a panic, is that op's error.
type GoLaunch func(call GoCall) error

// GoLaunchAddress is the launch function of every op written in Go; its user data is a cgo.Handle of a GoLaunch.
func GoLaunchAddress() uintptr { return uintptr(C.tape_go_launch) }

//export tapeGoLaunch
func tapeGoLaunch(handle C.uintptr_t, call *C.adcg_op_call) (status C.int32_t) {
	defer func() {
		if r := recover(); r != nil {
			setOpError(fmt.Sprintf("panic: %v", r))
			status = C.ADCG_ERR_OP
		}
	}()
	if err := cgo.Handle(handle).Value().(GoLaunch)(GoCall{call}); err != nil {
		setOpError(err.Error())
		return C.ADCG_ERR_OP
	}
	return C.ADCG_OK
}

func setOpError(message string) { C.tape_set_op_error(borrowed(message)) }

// Phase is ADCG_PHASE_*.
func (c GoCall) Phase() int32 { return int32(c.c.phase) }

// Bucket is the size of the tensors, in tokens and sequences.
func (c GoCall) Bucket() (tokens, seqs int64) { return int64(c.c.tokens), int64(c.c.seqs) }

// Batch is the step's real counts.
func (c GoCall) Batch() Batch { return batchOf(c.c.batch) }

// Input is input number i.
func (c GoCall) Input(i int) Tensor { return tensorOf(c.c.inputs, i, int(c.c.num_inputs)) }

// Output is output number i.
func (c GoCall) Output(i int) Tensor { return tensorOf(c.c.outputs, i, int(c.c.num_outputs)) }

// Attr is attribute number i, in the schema's order.
func (c GoCall) Attr(i int) piecewise.Attr {
	return attrOf(&unsafe.Slice(c.c.attrs, int(c.c.num_attrs))[i])
}

// Workspace is the scratch that the op asked for.
func (c GoCall) Workspace() []byte {
	return unsafe.Slice((*byte)(c.c.workspace), int(c.c.workspace_bytes))
}

// SetOutput answers in the discover phase: the type of output i at the size that is asked about.
func (c GoCall) SetOutput(i int, s piecewise.Shape) {
	t := &unsafe.Slice(c.c.outputs, int(c.c.num_outputs))[i]
	t.dtype = C.adcg_dtype_to_dlpack(C.adcg_dtype(s.DType))
	t.ndim = C.int32_t(len(s.Dims))
	for k, d := range s.Dims {
		unsafe.Slice(t.shape, piecewise.MaxNDim)[k] = C.int64_t(d)
	}
}
