// Package engine is the control plane: from a registered graph to captured buckets. It plans in Go and hands C tables to the
// data plane (engine/tape), which replays without Go.
//
// A program:
//
//	eng, err := engine.New("host")
//	g := eng.NewGraph(engine.Limits{MaxTokens: 512, MaxSeqs: 8, MaxSeqLen: 256})
//	x := g.Input("x", engine.F32, engine.Tokens, engine.Dim(64))
//	w := g.Weight("w", engine.F32, engine.Dim(64), engine.Dim(64))
//	y := g.Op("adcg.linear", []engine.Value{x, w}, nil)[0]      // errors are collected and returned by Freeze
//	g.Output("y", y)
//	exec, err := g.Compile(engine.ExecOptions{})
//	err = exec.Bind(w, weights)
//	step, err := exec.Replay(engine.Batch{DecodeSeqs: 3}, []engine.Tensor{in}, []engine.Tensor{out}, 0)
//
// Close what New, NewGraph and Compile gave, in any order: an exec keeps its graph alive, a graph its engine.
package engine

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/libadcg/libadcg/engine/device"
	"github.com/libadcg/libadcg/engine/device/cuda"
	"github.com/libadcg/libadcg/engine/device/host"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/kernels"
	"github.com/libadcg/libadcg/piecewise"
)

// Options of an engine.
type Options struct {
	HostThreads int32 // of the host device's kernels; 0: one a core
}

// Engine is a device with the ops that it knows. Safe for concurrent use.
type Engine struct {
	device device.Device
	refs   atomic.Int32 // itself, and one a graph
	closed atomic.Bool

	mu    sync.RWMutex
	ops   map[string]*registeredOp
	order []*registeredOp // of registration

	given map[uintptr]bool // memory that Alloc gave
}

// New opens a device: "host", or "cuda:0" and so on; "cuda" is the first of those.
func New(name string, options ...Options) (*Engine, error) {
	var o Options
	if len(options) > 0 {
		o = options[0]
	}
	dev, err := open(name, o)
	if err != nil {
		return nil, err
	}
	e := &Engine{device: dev, ops: make(map[string]*registeredOp), given: make(map[uintptr]bool)}
	e.refs.Store(1)
	library := kernels.Library()
	for i := range library {
		schema := &library[i]
		impl, ok := dev.Op(schema.Name)
		op := &registeredOp{schema: schema, builtIn: impl, isBuiltIn: true, missing: !ok}
		if impl.Workspace != 0 {
			schema.Workspace = workspaceOf(impl.Workspace, impl.UserData)
		}
		e.ops[schema.Name] = op
		if ok {
			e.order = append(e.order, op)
		}
	}
	return e, nil
}

func open(name string, o Options) (device.Device, error) {
	switch {
	case o.HostThreads < 0 || o.HostThreads > 1024:
		return nil, errorf(ErrArgument, "options.host_threads: %d, is 0 to 1024", o.HostThreads)
	case name == "host":
		return host.Open(o.HostThreads)
	}
	number, isCUDA := strings.CutPrefix(name, "cuda")
	if !isCUDA {
		return nil, errorf(ErrDevice, "device: `%s`: there is none of that name, use `host` or `cuda:0`", name)
	}
	id := 0
	if number != "" {
		var err error
		if id, err = strconv.Atoi(strings.TrimPrefix(number, ":")); err != nil || number[0] != ':' || id < 0 {
			return nil, errorf(ErrDevice, "device: `%s`: there is none of that name, use `cuda:0`", name)
		}
	}
	return cuda.Open(id)
}

// Close gives the engine up; its graphs and execs stay usable.
func (e *Engine) Close() {
	if !e.closed.Swap(true) {
		e.release()
	}
}

func (e *Engine) release() {
	if e.refs.Add(-1) > 0 {
		return
	}
	for _, op := range e.order {
		op.close()
	}
	for address := range e.given {
		e.device.Free(address)
	}
	e.device.Close()
}

// Alloc gives memory of the device's, aligned to 64 bytes; freed with the engine at the latest.
func (e *Engine) Alloc(bytes int64) (uintptr, error) {
	if bytes < 1 {
		return 0, errorf(ErrArgument, "bytes: %d, is at least 1", bytes)
	}
	address, err := e.device.Alloc(bytes)
	if err != nil {
		return 0, errorf(StatusOf(err), "bytes: %d: %v", bytes, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.given[address] = true
	return address, nil
}

// Free gives memory of Alloc back; no step may still use it.
func (e *Engine) Free(address uintptr) error {
	e.mu.Lock()
	given := e.given[address]
	delete(e.given, address)
	e.mu.Unlock()
	if !given {
		return errorf(ErrAddress, "memory: %#x: this engine did not give it", address)
	}
	var err error
	e.device.Destroy(func() {
		if err = e.device.Free(address); err != nil { // it is there still, and freed with the engine
			e.mu.Lock()
			defer e.mu.Unlock()
			e.given[address] = true
		}
	})
	return err
}

// Copy copies between the device's memory and the host's, or within either, and waits for it. It is in no stream's order.
func (e *Engine) Copy(to, from uintptr, bytes int64) error { return e.device.Copy(to, from, bytes) }

// DeviceInfo describes what the engine runs on.
func (e *Engine) DeviceInfo() device.Info { return e.device.Info() }

// Register adds an op of the host's own; the prefix "adcg." is the library's.
func (e *Engine) Register(op Op) error {
	if strings.HasPrefix(op.Name, "adcg.") {
		return errorf(ErrArgument, "schema.name: `%s`: the prefix `adcg.` is the library's", op.Name)
	}
	registered, err := newOp(op)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, taken := e.ops[op.Name]; taken {
		registered.close()
		return errorf(ErrState, "schema.name: `%s`: registered already", op.Name)
	}
	e.ops[op.Name] = registered
	e.order = append(e.order, registered)
	return nil
}

func (e *Engine) op(name string) (*registeredOp, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if op, ok := e.ops[name]; ok && op.missing {
		return nil, errorf(ErrUnsupported, "op: `%s`: not done on the device `%s`", name, e.device.Info().Name)
	} else if ok {
		return op, nil
	}
	return nil, errorf(ErrNotFound, "op: `%s`: not registered%s", name, e.hint(name))
}

// hint names an op that the caller may have meant.
func (e *Engine) hint(name string) string {
	if _, ok := e.ops["adcg."+name]; ok {
		return fmt.Sprintf(", did you mean `adcg.%s`?", name)
	}
	return ""
}

// Ops are the schemas of the library's ops and of those registered since, in that order.
func (e *Engine) Ops() []*piecewise.OpSchema {
	e.mu.RLock()
	defer e.mu.RUnlock()
	schemas := make([]*piecewise.OpSchema, len(e.order))
	for i, op := range e.order {
		schemas[i] = op.schema
	}
	return schemas
}

// Levels of log lines; the numbers are those of adcg.h.
const (
	LogError   int32 = 1
	LogWarning int32 = 2
	LogInfo    int32 = 3
	LogDebug   int32 = 4
)

func logf(level int32, format string, args ...any) {
	tape.Log(level, fmt.Sprintf(format, args...))
}
