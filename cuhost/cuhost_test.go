//go:build cuhost

package cuhost

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"gorgonia.org/cu"

	"github.com/libadcg/libadcg/engine"
)

// open makes the primary context of device 0 current on the test's thread.
func open(t *testing.T) (cu.Device, cu.CUContext) {
	t.Helper()
	runtime.LockOSThread()
	device, err := cu.GetDevice(0)
	require.NoError(t, err)
	ctx, err := device.RetainPrimaryCtx()
	require.NoError(t, err)
	require.NoError(t, cu.SetCurrentContext(ctx))
	t.Cleanup(func() {
		require.NoError(t, cu.SetCurrentContext(cu.CUContext{}))
		require.NoError(t, device.ReleasePrimaryCtx())
		runtime.UnlockOSThread()
	})
	return device, ctx
}

func alloc(t *testing.T, dtype engine.DType, dims ...int64) engine.Tensor {
	t.Helper()
	tensor, err := Alloc(dtype, dims...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, Free(tensor)) })
	return tensor
}

// refused asks for an error of a kind, from a function, that says these words.
func refused(t *testing.T, err error, status engine.Status, words ...string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, status, engine.StatusOf(err), err.Error())
	for _, word := range words {
		require.ErrorContains(t, err, word)
	}
}

func TestDeviceName(t *testing.T) {
	device, err := cu.GetDevice(0)
	require.NoError(t, err)
	require.Equal(t, "cuda:0", DeviceName(device))
	require.Equal(t, "cuda:11", DeviceName(11))
}

func TestCheckContext(t *testing.T) {
	device, err := cu.GetDevice(0)
	require.NoError(t, err)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := device.MakeContext(cu.SchedAuto)
	require.NoError(t, err)
	defer func() { require.NoError(t, own.Destroy()) }()

	const function = "cuhost.CheckContext: "
	if _, active, err := device.PrimaryCtxState(); err == nil && active == 0 {
		refused(t, CheckContext(device, own), engine.ErrState, function, own.String(), "primary context of cuda:0 is not active")
		_, active, err := device.PrimaryCtxState()
		require.NoError(t, err)
		require.Zero(t, active, "asking has not made it")
	}
	primary, err := device.RetainPrimaryCtx()
	require.NoError(t, err)
	defer func() { require.NoError(t, device.ReleasePrimaryCtx()) }()
	require.NoError(t, CheckContext(device, primary))
	refused(t, CheckContext(device, own), engine.ErrHandle, function, own.String(), primary.String())
	refused(t, CheckContext(device, cu.CUContext{}), engine.ErrHandle, function)
	refused(t, CheckContext(99, primary), engine.ErrDevice, function, "cuda:99")
	require.NoError(t, CheckContext(device, primary), "and it is still retained")
}

func TestStreamHandles(t *testing.T) {
	open(t)
	require.EqualValues(t, 1, Stream(cu.NoStream), "a zero would be the engine's own stream")
	first, err := cu.MakeStream(cu.NonBlocking)
	require.NoError(t, err)
	second, err := cu.MakeStream(cu.DefaultStream)
	require.NoError(t, err)
	require.NotEqual(t, Stream(first), Stream(second))
	require.Equal(t, *(*uintptr)(unsafe.Pointer(&first)), Stream(first), "the handle is all that cu's stream holds")
	require.NoError(t, first.Destroy())
	require.NoError(t, second.Destroy())
	require.EqualValues(t, 1, Stream(first), "cu empties what it destroyed")
}

// Uploads on one stream, copies on another behind an event, and kernels on a third, over tensors of the adapter: what cu's calls
// mean here is what the replay test leans on.
func TestStreamsAndEvents(t *testing.T) {
	open(t)
	const n = 64
	from, to := alloc(t, engine.I32, n), alloc(t, engine.I32, n)
	require.NoError(t, Upload(to, make([]int32, n)))
	var streams [3]cu.Stream
	for i := range streams {
		stream, err := cu.MakeStream(cu.NonBlocking)
		require.NoError(t, err)
		defer func() { require.NoError(t, stream.Destroy()) }()
		streams[i] = stream
	}
	var events [2]cu.Event
	for i := range events {
		event, err := cu.MakeEvent(cu.DisableTiming)
		require.NoError(t, err)
		defer func() { require.NoError(t, cu.DestroyEvent(&event)) }()
		events[i] = event
	}
	module, err := cu.LoadData(increment)
	require.NoError(t, err)
	defer func() { require.NoError(t, module.Unload()) }()
	kernel, err := module.Function("increment")
	require.NoError(t, err)

	values := make([]int32, n)
	for i := range values {
		values[i] = int32(i * i)
	}
	require.NoError(t, cu.MemcpyHtoDAsync(Pointer(from), unsafe.Pointer(&values[0]), 4*n, streams[0]))
	require.NoError(t, events[0].Record(streams[0]))
	require.NoError(t, streams[1].Wait(events[0], 0))
	require.NoError(t, cu.MemcpyDtoDAsync(Pointer(to), Pointer(from), 4*n, streams[1]))
	require.NoError(t, events[1].Record(streams[1]))
	require.NoError(t, streams[2].Wait(events[1], 0))
	address := Pointer(to)
	require.NoError(t, kernel.Launch(1, 1, 1, n, 1, 1, 0, streams[2], []unsafe.Pointer{unsafe.Pointer(&address)}))
	require.NoError(t, streams[2].Synchronize())
	require.NoError(t, events[1].Query())
	back, err := Download[int32](to)
	require.NoError(t, err)
	for i := range back {
		require.EqualValues(t, i*i+1, back[i])
	}
}

// increment adds one to the word of each thread.
const increment = `.version 7.0
.target sm_70
.address_size 64
.visible .entry increment(.param .u64 words) {
  .reg .u64 %p<2>; .reg .u32 %v<2>;
  ld.param.u64 %p0, [words]; mov.u32 %v0, %tid.x; mul.wide.u32 %p1, %v0, 4; add.s64 %p0, %p0, %p1;
  ld.global.u32 %v1, [%p0]; add.u32 %v1, %v1, 1; st.global.u32 [%p0], %v1; ret;
}
`

// What the stand-in does not do is an error to a program that uses cu, not the end of it.
func TestStandInRefuses(t *testing.T) {
	device, _ := open(t)
	name, err := device.Name()
	require.NoError(t, err)
	if name != "fakecuda" {
		t.Skip("a real driver has managed memory and arrays")
	}
	_, err = cu.MemAllocManaged(4096, cu.AttachGlobal)
	require.ErrorIs(t, err, cu.NotSupported)
	_, err = cu.MakeArray(cu.ArrayDesc{Width: 4, Height: 4, Format: cu.Float32, NumChannels: 1})
	require.ErrorIs(t, err, cu.NotSupported)
	rows, pitch, err := cu.MemAllocPitch(600, 2, 4)
	require.NoError(t, err, "what it can do it does")
	require.EqualValues(t, 1024, pitch)
	require.NoError(t, cu.MemFree(rows))
}
