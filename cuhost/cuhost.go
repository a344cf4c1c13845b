//go:build cuhost

// Package cuhost lets a Go program that already works with gorgonia.org/cu hand its device memory, streams and contexts to the
// engine, behind the build tag of that name:
//
//	device, err := cu.GetDevice(0)
//	ctx, err := device.RetainPrimaryCtx()         // the context that the engine uses
//	err = ctx.Lock()                              // cu's calls need it current on this thread
//	eng, err := engine.New(cuhost.DeviceName(device))
//	...
//	in, err := cuhost.Tensor(ptr, engine.F32, 40, 64)
//	step, err := exec.Replay(batch, []engine.Tensor{in}, []engine.Tensor{out}, cuhost.Stream(stream))
//	err = stream.Synchronize()                    // Replay enqueues and returns
//
// Nothing changes hands: who allocated memory, made a stream or retained a context gives it back, once the execs that know of it
// are closed. cu links libcuda and needs the CUDA headers (12.x: it does not compile with those of 13), so a program with this
// package does too, and where there is no driver cu ends the process when it starts. The engine finds the same libcuda at run time;
// both see the same objects.
package cuhost

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/libadcg/libadcg/engine"
)

// DeviceName is the device as engine.New names it: "cuda:0".
func DeviceName(d cu.Device) string { return fmt.Sprintf("cuda:%d", int(d)) }

// legacyStream is the driver's other handle of its default stream (CU_STREAM_LEGACY).
const legacyStream = 1

// Stream is the stream as Exec.Replay takes it. cu.NoStream, a zero, is the default stream to cu; to Replay a zero is the engine's
// own stream, so the default one goes by its other handle.
func Stream(s cu.Stream) uintptr {
	if s == cu.NoStream {
		return legacyStream
	}
	return uintptr(unsafe.Pointer(s.C()))
}

// CheckContext is an error unless the context is the device's primary one, in which the engine works: memory, streams and events of
// any other (those of cu.NewContext and Device.MakeContext) are not the engine's to use.
func CheckContext(d cu.Device, ctx cu.CUContext) error {
	const function = "cuhost.CheckContext"
	_, active, err := d.PrimaryCtxState()
	if err != nil {
		return failf(engine.ErrDevice, function, "device: %s: %v", DeviceName(d), err)
	}
	if active == 0 { // asking for it would make it
		return failf(engine.ErrState, function, "ctx: %v: the primary context of %s is not active: Device.RetainPrimaryCtx", ctx, DeviceName(d))
	}
	primary, err := d.RetainPrimaryCtx()
	if err != nil {
		return failf(engine.ErrDevice, function, "device: %s: %v", DeviceName(d), err)
	}
	if err := d.ReleasePrimaryCtx(); err != nil {
		return failf(engine.ErrDevice, function, "device: %s: %v", DeviceName(d), err)
	}
	if ctx != primary {
		return failf(engine.ErrHandle, function, "ctx: %v: the primary context of %s, which the engine uses, is %v", ctx, DeviceName(d), primary)
	}
	return nil
}

func failf(status engine.Status, function, format string, args ...any) error {
	return &engine.Error{Status: status, Function: function, Message: fmt.Sprintf(format, args...)}
}
