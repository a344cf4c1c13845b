package integration

import (
	"os"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/engine"
)

// deviceName is the device of the tests whose ops are all built in: ADCG_TEST_DEVICE, the host if it is not set. Ops in Go are the
// host's.
func deviceName() string {
	if name := os.Getenv("ADCG_TEST_DEVICE"); name != "" {
		return name
	}
	return "host"
}

func openDevice(t *testing.T, name string) *engine.Engine {
	t.Helper()
	e, err := engine.New(name)
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// place is a host tensor in memory of the engine's device: the tensor itself where that is the host. The engine frees it.
func place(t *testing.T, e *engine.Engine, x engine.Tensor) engine.Tensor {
	t.Helper()
	info := e.DeviceInfo()
	if info.Type == engine.DeviceCPU {
		return x
	}
	address, err := e.Alloc(int64(len(x.Bytes())))
	require.NoError(t, err)
	require.NoError(t, e.Copy(address, uintptr(x.Data), int64(len(x.Bytes()))))
	x.Data, x.DeviceType, x.DeviceID = *(*unsafe.Pointer)(unsafe.Pointer(&address)), info.Type, info.ID
	return x
}

// fetch brings what place has put on the device back to the host tensor.
func fetch(t *testing.T, e *engine.Engine, to, from engine.Tensor) {
	t.Helper()
	if to.Data != from.Data {
		require.NoError(t, e.Copy(uintptr(to.Data), uintptr(from.Data), int64(len(to.Bytes()))))
	}
}
