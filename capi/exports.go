// Package main is libadcg.so: the C API (api.c) over the engine. The exported functions here are api.c's alone; the version
// script keeps them inside the library.
package main

// #cgo CFLAGS: -std=gnu11 -O2 -I${SRCDIR}/../include -Wall
// #cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-all
// #include <stdlib.h>
// #include "../engine/tape/tape.h"
// int32_t capi_progress(uintptr_t progress, const adcg_progress *what, uintptr_t user_data);
// int32_t capi_write(uintptr_t write, const char *data, size_t size, uintptr_t user_data);
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/libadcg/libadcg/engine"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/piecewise"
)

func main() {}

func hex(n uintptr) string { return fmt.Sprintf("%#x", n) }

// guard runs the body of an export: its error becomes a status and this thread's message; a panic, which only a fault of ours
// can be, becomes ADCG_ERR_INTERNAL and poisons the process.
func guard(function string, body func() error) (status C.int32_t) {
	defer func() {
		if r := recover(); r != nil {
			tape.Poison()
			tape.SetLastError(int32(engine.ErrInternal), function, fmt.Sprintf("internal fault: %v", r))
			status = C.int32_t(engine.ErrInternal)
		}
	}()
	err := body()
	if err == nil {
		return C.ADCG_OK
	}
	code := engine.StatusOf(err)
	message := err.Error()
	var own *engine.Error
	if errors.As(err, &own) && own.Function != "" {
		message = own.Message // the data plane found it: under its own name there
	}
	tape.SetLastError(int32(code), function, message)
	return C.int32_t(code)
}

// engineHandle and graphHandle hold, beside their object, the C memory that get_info functions lend.
type engineHandle struct {
	*engine.Engine
	lent lender
}

type graphHandle struct {
	*engine.Graph
	lent lender
}

//export goHandleDestroy
func goHandleDestroy(handle, kind C.uintptr_t) {
	guard("adcg_"+kindNames[uintptr(kind)]+"_destroy", func() error {
		if uintptr(kind) == kindEngine {
			if _, err := lookUp[*engineHandle](uintptr(handle), kindEngine); err != nil {
				return err
			}
		} else if _, err := lookUp[*graphHandle](uintptr(handle), kindGraph); err != nil {
			return err
		}
		switch o := takeObject(uintptr(handle) >> kindBits).(type) {
		case *engineHandle:
			o.Close()
			o.lent.free()
		case *graphHandle:
			o.Close()
			o.lent.free()
		}
		return nil
	})
}

//export goEngineCreate
func goEngineCreate(device *C.char, options *C.adcg_engine_options, out *C.uintptr_t) C.int32_t {
	return guard("adcg_engine_create", func() error {
		e, err := engine.New(C.GoString(device), engine.Options{HostThreads: int32(options.host_threads)})
		if err != nil {
			return err
		}
		*out = C.uintptr_t(addObject(&engineHandle{Engine: e})<<kindBits | kindEngine)
		return nil
	})
}

//export goEngineRegisterOp
func goEngineRegisterOp(handle C.uintptr_t, schema *C.adcg_op_schema, userData C.uintptr_t) C.int32_t {
	return guard("adcg_engine_register_op", func() error {
		e, err := lookUp[*engineHandle](uintptr(handle), kindEngine)
		if err != nil {
			return err
		}
		return e.Register(opOf(schema, userData))
	})
}

// withEngine runs body on the engine of a handle.
func withEngine(function string, handle C.uintptr_t, body func(e *engineHandle) error) C.int32_t {
	return guard(function, func() error {
		e, err := lookUp[*engineHandle](uintptr(handle), kindEngine)
		if err != nil {
			return err
		}
		return body(e)
	})
}

//export goMemoryAlloc
func goMemoryAlloc(handle C.uintptr_t, bytes C.int64_t, out *C.uintptr_t) C.int32_t {
	return withEngine("adcg_memory_alloc", handle, func(e *engineHandle) error {
		address, err := e.Alloc(int64(bytes))
		*out = C.uintptr_t(address)
		return err
	})
}

//export goMemoryFree
func goMemoryFree(handle, address C.uintptr_t) C.int32_t {
	return withEngine("adcg_memory_free", handle, func(e *engineHandle) error { return e.Free(uintptr(address)) })
}

//export goMemoryCopy
func goMemoryCopy(handle, to, from C.uintptr_t, bytes C.int64_t) C.int32_t {
	return withEngine("adcg_memory_copy", handle, func(e *engineHandle) error { return e.Copy(uintptr(to), uintptr(from), int64(bytes)) })
}

//export goEngineGetDeviceInfo
func goEngineGetDeviceInfo(handle C.uintptr_t, out *C.adcg_device_info) C.int32_t {
	return guard("adcg_engine_get_device_info", func() error {
		e, err := lookUp[*engineHandle](uintptr(handle), kindEngine)
		if err != nil {
			return err
		}
		info := e.DeviceInfo()
		putText(out.name[:], info.Name)
		putText(out.description[:], info.Description)
		out.device_type, out.device_id = C.int32_t(info.Type), C.int32_t(info.ID)
		out.threads, out.memory_bytes = C.int32_t(info.Threads), C.int64_t(info.MemoryBytes)
		return nil
	})
}

//export goEngineGetOpInfo
func goEngineGetOpInfo(handle C.uintptr_t, index C.int32_t, out *C.adcg_op_info) C.int32_t {
	return guard("adcg_engine_get_op_info", func() error {
		e, err := lookUp[*engineHandle](uintptr(handle), kindEngine)
		if err != nil {
			return err
		}
		ops := e.Ops()
		if index < 0 || int(index) >= len(ops) {
			return &engine.Error{Status: engine.ErrNotFound, Message: fmt.Sprintf("index: %d: the engine has %d ops", index, len(ops))}
		}
		return e.lent.opInfo(ops[index], out)
	})
}

//export goGraphCreate
func goGraphCreate(handle C.uintptr_t, limits *C.adcg_graph_limits, out *C.uintptr_t) C.int32_t {
	return guard("adcg_graph_create", func() error {
		e, err := lookUp[*engineHandle](uintptr(handle), kindEngine)
		if err != nil {
			return err
		}
		g, err := e.CreateGraph(engine.Limits{
			MaxTokens: int64(limits.max_tokens), MaxSeqs: int64(limits.max_seqs), MaxSeqLen: int64(limits.max_seq_len),
		})
		if err != nil {
			return err
		}
		*out = C.uintptr_t(addObject(&graphHandle{Graph: g})<<kindBits | kindGraph)
		return nil
	})
}

// withGraph runs body on the graph of a handle.
func withGraph(function string, handle C.uintptr_t, body func(g *graphHandle) error) C.int32_t {
	return guard(function, func() error {
		g, err := lookUp[*graphHandle](uintptr(handle), kindGraph)
		if err != nil {
			return err
		}
		return body(g)
	})
}

//export goGraphAddValue
func goGraphAddValue(handle C.uintptr_t, function *C.char, role C.int32_t, name *C.char, dtype C.adcg_dtype, ndim C.int32_t, dims *C.adcg_dim, out *C.adcg_value) C.int32_t {
	return withGraph(C.GoString(function), handle, func(g *graphHandle) error {
		t := engine.Type{DType: engine.DType(dtype), Dims: dimsOf(dims, ndim)}
		add := map[piecewise.Role]func(string, engine.Type) (engine.Value, error){
			piecewise.RoleInput: g.AddInput, piecewise.RoleWeight: g.AddWeight, piecewise.RoleState: g.AddState,
		}[piecewise.Role(role)]
		v, err := add(C.GoString(name), t)
		if err == nil {
			*out = C.adcg_value(v)
		}
		return err
	})
}

//export goGraphAddOp
func goGraphAddOp(handle C.uintptr_t, op *C.char, inputs *C.adcg_value, numInputs C.int32_t, attrs *C.adcg_attr, numAttrs C.int32_t, out *C.adcg_value, numOutputs C.int32_t) C.int32_t {
	return withGraph("adcg_graph_add_op", handle, func(g *graphHandle) error {
		in := make([]engine.Value, numInputs)
		for i, v := range unsafe.Slice(inputs, int(numInputs)) {
			in[i] = engine.Value(v)
		}
		name := C.GoString(op)
		if n, err := g.NumOutputs(name); err != nil {
			return err
		} else if n != int(numOutputs) {
			return &engine.Error{Status: engine.ErrGraph, Message: fmt.Sprintf("num_outputs: %d, op `%s` has %d", numOutputs, name, n)}
		}
		values, err := g.AddOp(name, in, attrsOf(attrs, numAttrs))
		if err != nil {
			return err
		}
		for i, v := range values {
			unsafe.Slice(out, int(numOutputs))[i] = C.adcg_value(v)
		}
		return nil
	})
}

//export goGraphAddOutput
func goGraphAddOutput(handle C.uintptr_t, name *C.char, value C.adcg_value) C.int32_t {
	return withGraph("adcg_graph_add_output", handle, func(g *graphHandle) error {
		return g.AddOutput(C.GoString(name), engine.Value(value))
	})
}

//export goGraphFreeze
func goGraphFreeze(handle C.uintptr_t) C.int32_t {
	return withGraph("adcg_graph_freeze", handle, func(g *graphHandle) error { return g.Freeze() })
}

//export goGraphFindValue
func goGraphFindValue(handle C.uintptr_t, name *C.char, out *C.adcg_value) C.int32_t {
	return withGraph("adcg_graph_find_value", handle, func(g *graphHandle) error {
		v, ok := g.Find(C.GoString(name))
		if !ok {
			return &engine.Error{Status: engine.ErrNotFound, Message: fmt.Sprintf("name: `%s`: no input, weight, state or output of that name", C.GoString(name))}
		}
		*out = C.adcg_value(v)
		return nil
	})
}

//export goGraphGetValueInfo
func goGraphGetValueInfo(handle C.uintptr_t, value C.adcg_value, out *C.adcg_value_info) C.int32_t {
	return withGraph("adcg_graph_get_value_info", handle, func(g *graphHandle) error {
		info, err := g.Value(engine.Value(value))
		if err != nil {
			return err
		}
		return g.lent.valueInfo(info, out)
	})
}

//export goGraphForecast
func goGraphForecast(handle C.uintptr_t, options *C.adcg_exec_options, out *C.adcg_forecast) C.int32_t {
	return withGraph("adcg_graph_forecast", handle, func(g *graphHandle) error {
		o, err := optionsOf(options)
		if err != nil {
			return err
		}
		f, err := g.Forecast(o)
		if err != nil {
			return err
		}
		out.total_bytes, out.arena_bytes, out.metadata_bytes = C.int64_t(f.TotalBytes), C.int64_t(f.ArenaBytes), C.int64_t(f.MetadataBytes)
		out.tape_bytes, out.graph_bytes, out.staging_bytes = C.int64_t(f.TapeBytes), C.int64_t(f.GraphBytes), C.int64_t(f.StagingBytes)
		out.workspace_bytes, out.lower_bound_bytes = C.int64_t(f.WorkspaceBytes), C.int64_t(f.LowerBoundBytes)
		out.bucket_sum_bytes, out.num_buckets = C.int64_t(f.BucketSumBytes), C.int32_t(f.NumBuckets)
		out.num_segments, out.num_dynamic_ops = C.int32_t(f.NumSegments), C.int32_t(f.NumDynamicOps)
		return nil
	})
}

// callbackWriter sends text to an adcg_write_fn.
type callbackWriter struct{ write, userData C.uintptr_t }

func (w callbackWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if C.capi_write(w.write, (*C.char)(unsafe.Pointer(&p[0])), C.size_t(len(p)), w.userData) != 0 {
		return 0, &engine.Error{Status: engine.ErrCancelled, Message: "write: asked to stop"}
	}
	return len(p), nil
}

//export goGraphWritePlan
func goGraphWritePlan(handle C.uintptr_t, options *C.adcg_exec_options, format C.int32_t, write, userData C.uintptr_t) C.int32_t {
	return withGraph("adcg_graph_write_plan", handle, func(g *graphHandle) error {
		o, err := optionsOf(options)
		if err != nil {
			return err
		}
		return g.WritePlan(o, int32(format), callbackWriter{write, userData})
	})
}

//export goExecCreate
func goExecCreate(handle C.uintptr_t, options *C.adcg_exec_options, outNumber, outTape *C.uintptr_t) C.int32_t {
	return withGraph("adcg_exec_create", handle, func(g *graphHandle) error {
		o, err := optionsOf(options)
		if err != nil {
			return err
		}
		if !g.Frozen() {
			return &engine.Error{Status: engine.ErrState, Message: "graph: not frozen, call adcg_graph_freeze first"}
		}
		x, err := g.Compile(o)
		if err != nil {
			return err
		}
		*outNumber, *outTape = C.uintptr_t(addObject(x)), C.uintptr_t(x.Data().Address())
		return nil
	})
}

//export goExecDestroy
func goExecDestroy(number C.uintptr_t) {
	guard("adcg_exec_destroy", func() error {
		takeObject(uintptr(number)).(*engine.Exec).Close()
		return nil
	})
}

// withExec runs body on an exec that its slot keeps.
func withExec(function string, number C.uintptr_t, body func(x *engine.Exec) error) C.int32_t {
	return guard(function, func() error {
		x, ok := object[*engine.Exec](uintptr(number))
		if !ok {
			return &engine.Error{Status: engine.ErrHandle, Message: "exec: destroyed"}
		}
		return body(x)
	})
}

//export goExecBind
func goExecBind(number C.uintptr_t, value C.adcg_value, tensor *C.DLTensor) C.int32_t {
	return withExec("adcg_exec_bind", number, func(x *engine.Exec) error {
		return x.BindDLTensor(engine.Value(value), unsafe.Pointer(tensor))
	})
}

//export goExecCapture
func goExecCapture(number C.uintptr_t, buckets *C.adcg_bucket, numBuckets C.int32_t, progress, userData C.uintptr_t) C.int32_t {
	return withExec("adcg_exec_capture", number, func(x *engine.Exec) error {
		units := make([]engine.Unit, numBuckets)
		for i, b := range unsafe.Slice(buckets, int(numBuckets)) {
			units[i] = engine.Unit{Mode: piecewise.Mode(b.mode), Tokens: int64(b.tokens), Seqs: int64(b.seqs)}
		}
		var tell engine.Progress
		if progress != 0 {
			tell = func(index, count int, u engine.Unit, err error) bool {
				what := C.adcg_progress{
					struct_size: C.sizeof_adcg_progress, index: C.int32_t(index), count: C.int32_t(count), status: C.adcg_status(engine.StatusOf(err)),
				}
				what.bucket = C.adcg_bucket{mode: C.int32_t(u.Mode), tokens: C.int64_t(u.Tokens), seqs: C.int64_t(u.Seqs)}
				return C.capi_progress(progress, &what, userData) == 0
			}
		}
		return x.Capture(units, tell)
	})
}

//export goExecProvide
func goExecProvide(number C.uintptr_t, want, bucket C.int32_t) C.int32_t {
	return withExec("adcg_exec_replay", number, func(x *engine.Exec) error { return x.Provide(int32(want), int(bucket)) })
}

//export goExecRelease
func goExecRelease(number C.uintptr_t) C.int32_t {
	return withExec("adcg_exec_release", number, (*engine.Exec).Release)
}

//export goExecRestore
func goExecRestore(number C.uintptr_t) C.int32_t {
	return withExec("adcg_exec_restore", number, (*engine.Exec).Restore)
}

//export goExecGetBucket
func goExecGetBucket(number C.uintptr_t, index C.int32_t, out *C.adcg_bucket_info) C.int32_t {
	return withExec("adcg_exec_get_bucket", number, func(x *engine.Exec) error {
		info, err := x.Bucket(int(index))
		if err != nil {
			return err
		}
		out.bucket = C.adcg_bucket{mode: C.int32_t(info.Unit.Mode), tokens: C.int64_t(info.Unit.Tokens), seqs: C.int64_t(info.Unit.Seqs)}
		out.state, out.num_steps = C.int32_t(info.State), C.int32_t(info.Steps)
		out.tape_bytes, out.replays = C.int64_t(info.TapeBytes), C.int64_t(info.Replays)
		return nil
	})
}

//export goExecGetStats
func goExecGetStats(number C.uintptr_t, out *C.adcg_stats) C.int32_t {
	return withExec("adcg_exec_get_stats", number, func(x *engine.Exec) error {
		return x.ReadStats(unsafe.Pointer(out))
	})
}

//export goLadderChoose
func goLadderChoose(histogram *C.adcg_step_count, numSizes C.int32_t, budget *C.adcg_ladder_budget, out *C.int64_t, capacity C.int32_t, outCount *C.int32_t) C.int32_t {
	return guard("adcg_ladder_choose", func() error {
		ladder, err := piecewise.Ladder(countsOf(histogram, numSizes), budgetOf(budget))
		if err != nil {
			return err
		}
		return giveLadder(ladder, out, capacity, outCount)
	})
}

//export goLadderCost
func goLadderCost(histogram *C.adcg_step_count, numSizes C.int32_t, buckets *C.int64_t, numBuckets C.int32_t, budget *C.adcg_ladder_budget, outBuckets *C.adcg_ladder_bucket, out *C.adcg_ladder_totals) C.int32_t {
	return guard("adcg_ladder_cost", func() error {
		cost, err := piecewise.CostOfLadder(countsOf(histogram, numSizes), numbersOf(buckets, numBuckets), budgetOf(budget))
		if err != nil {
			return err
		}
		if outBuckets != nil {
			for i, b := range cost.Buckets {
				unsafe.Slice(outBuckets, int(numBuckets))[i] = C.adcg_ladder_bucket{
					tokens: C.int64_t(b.Tokens), steps: C.int64_t(b.Steps), real_tokens: C.int64_t(b.RealTokens),
					padded_tokens: C.int64_t(b.PaddedTokens), bytes: C.int64_t(b.Bytes), ns: C.int64_t(b.Nanos),
				}
			}
		}
		out.steps, out.real_tokens, out.padded_tokens = C.int64_t(cost.Steps), C.int64_t(cost.RealTokens), C.int64_t(cost.PaddedTokens)
		out.eager_steps, out.eager_tokens = C.int64_t(cost.EagerSteps), C.int64_t(cost.EagerTokens)
		out.bytes, out.ns = C.int64_t(cost.Bytes), C.int64_t(cost.Nanos)
		return nil
	})
}

//export goLadderNamed
func goLadderNamed(name *C.char, maxTokens, maxSeqs C.int64_t, out *C.int64_t, capacity C.int32_t, outCount *C.int32_t) C.int32_t {
	return guard("adcg_ladder_named", func() error {
		ladder, err := piecewise.NamedLadder(C.GoString(name), int64(maxTokens), int64(maxSeqs))
		if err != nil {
			return err
		}
		return giveLadder(ladder, out, capacity, outCount)
	})
}
