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

func bits(n int, seed uint64) []uint8 {
	random, out := rand.New(rand.NewPCG(seed, 1)), make([]uint8, n)
	for i := range out {
		out[i] = uint8(random.UintN(256))
	}
	return out
}

// What was uploaded through a tensor is what cu finds at its address, byte for byte, and the other way round.
func TestRoundTrip(t *testing.T) {
	open(t)
	for _, c := range []struct {
		dtype engine.DType
		dims  []int64
		bytes int
	}{
		{engine.F32, []int64{3, 5}, 60},
		{engine.BF16, []int64{7, 1, 3}, 42},
		{engine.F8E4M3, []int64{129}, 129},
		{engine.I64, nil, 8},
		{engine.I32, []int64{1 << 18}, 1 << 20},
	} {
		tensor := alloc(t, c.dtype, c.dims...)
		require.Equal(t, engine.DeviceCUDA, tensor.DeviceType)
		require.EqualValues(t, 0, tensor.DeviceID)
		require.Equal(t, c.dtype, tensor.Shape.DType)
		require.Equal(t, append([]int64{}, c.dims...), append([]int64{}, tensor.Shape.Dims...))
		sent := bits(c.bytes, uint64(c.bytes))
		raw := make([]uint8, c.bytes)
		switch c.dtype.Size() {
		case 1:
			require.NoError(t, Upload(tensor, sent))
		case 2:
			require.NoError(t, Upload(tensor, unsafe.Slice((*uint16)(unsafe.Pointer(&sent[0])), c.bytes/2)))
		case 4:
			require.NoError(t, Upload(tensor, unsafe.Slice((*uint32)(unsafe.Pointer(&sent[0])), c.bytes/4)))
		case 8:
			require.NoError(t, Upload(tensor, unsafe.Slice((*int64)(unsafe.Pointer(&sent[0])), c.bytes/8)))
		}
		require.NoError(t, cu.MemcpyDtoH(unsafe.Pointer(&raw[0]), Pointer(tensor), int64(c.bytes)))
		require.Equal(t, sent, raw)
	}
}

// Tensors over parts of one allocation of cu's share its bytes.
func TestTensorInsideAnAllocation(t *testing.T) {
	open(t)
	ptr, err := cu.MemAlloc(1024)
	require.NoError(t, err)
	defer func() { require.NoError(t, cu.MemFree(ptr)) }()
	require.NoError(t, cu.MemsetD8(ptr, 0xab, 1024))
	dims := []int64{16, 8}
	whole, err := Tensor(ptr, engine.I32, 256)
	require.NoError(t, err)
	part, err := Tensor(ptr+512, engine.F32, dims...)
	require.NoError(t, err)
	require.Equal(t, ptr+512, Pointer(part))
	dims[0] = 1000
	require.Equal(t, []int64{16, 8}, part.Shape.Dims, "the caller's slice is not kept")
	values := make([]float32, 128)
	for i := range values {
		values[i] = float32(i) / 3
	}
	require.NoError(t, Upload(part, values))
	words, err := Download[uint32](whole)
	require.NoError(t, err)
	for i := range 128 {
		require.EqualValues(t, 0xabababab, words[i])
		require.Equal(t, math.Float32bits(float32(i)/3), words[128+i])
	}
}

func TestTensorRefuses(t *testing.T) {
	open(t)
	ptr, err := cu.MemAlloc(64)
	require.NoError(t, err)
	freed, err := cu.MemAlloc(64)
	require.NoError(t, err)
	require.NoError(t, cu.MemFree(freed))
	host, err := engine.NewTensor(engine.F32, 16)
	require.NoError(t, err)
	defer host.Free()
	sixteen := []int64{16}
	for name, c := range map[string]struct {
		ptr    cu.DevicePtr
		dtype  engine.DType
		dims   []int64
		status engine.Status
		word   string
	}{
		"null":          {0, engine.F32, sixteen, engine.ErrAddress, "ptr: 0x0"},
		"wild":          {0x10, engine.F32, sixteen, engine.ErrAddress, "ptr: 0x10"},
		"freed":         {freed, engine.F32, sixteen, engine.ErrAddress, freed.String()},
		"host memory":   {cu.DevicePtr(uintptr(host.Data)), engine.F32, sixteen, engine.ErrAddress, "the driver knows of no memory there"},
		"too long":      {ptr, engine.F32, []int64{17}, engine.ErrAddress, "64 bytes are allocated from there on, needs 68"},
		"beyond":        {ptr + 32, engine.F32, sixteen, engine.ErrAddress, "32 bytes are allocated from there on, needs 64"},
		"no dtype":      {ptr, engine.DType(99), sixteen, engine.ErrDType, "dtype(99)"},
		"negative":      {ptr, engine.F32, []int64{2, -1}, engine.ErrShape, "dims[1]: -1"},
		"overflow":      {ptr, engine.F32, []int64{1 << 31, 1 << 31}, engine.ErrShape, "dims[1]: 2147483648"},
		"too many dims": {ptr, engine.F32, []int64{1, 1, 1, 1, 1, 1, 1, 1, 1}, engine.ErrShape, "9 of them, at most 8"},
	} {
		t.Run(name, func(t *testing.T) {
			tensor, err := Tensor(c.ptr, c.dtype, c.dims...)
			refused(t, err, c.status, "cuhost.Tensor: ", c.word)
			require.Zero(t, tensor)
		})
	}
	_, err = Tensor(ptr, engine.F32, 16)
	require.NoError(t, err, "the last one that fits")
	require.NoError(t, cu.MemFree(ptr))
}

func TestMemoryRefuses(t *testing.T) {
	open(t)
	tensor := alloc(t, engine.F32, 4, 4)
	host, err := engine.NewTensor(engine.F32, 4, 4)
	require.NoError(t, err)
	defer host.Free()

	refused(t, Upload(tensor, make([]float32, 15)), engine.ErrShape, "cuhost.Upload: ", "15 of them, the tensor has 16 elements")
	refused(t, Upload(tensor, make([]float64, 16)), engine.ErrDType, "cuhost.Upload: ", "elements of 8 bytes")
	refused(t, Upload(host, make([]float32, 16)), engine.ErrDevice, "cuhost.Upload: ", "device type 1")
	_, err = Download[uint16](tensor)
	refused(t, err, engine.ErrDType, "cuhost.Download: ", "elements of 2 bytes")
	_, err = Download[float32](host)
	refused(t, err, engine.ErrDevice, "cuhost.Download: ")
	refused(t, Free(host), engine.ErrDevice, "cuhost.Free: ")
	require.Zero(t, Pointer(host))
	require.PanicsWithValue(t, "tensor in memory of device type 2 number 0, not in the host's", func() { tensor.Float32() })

	gone, err := Alloc(engine.F32, 8)
	require.NoError(t, err)
	require.NoError(t, Free(gone))
	refused(t, Free(gone), engine.ErrDevice, "cuhost.Free: ", Pointer(gone).String())
	refused(t, Upload(gone, make([]float32, 8)), engine.ErrDevice, "cuhost.Upload: ", Pointer(gone).String())
	_, err = Alloc(engine.F32, 1<<50)
	refused(t, err, engine.ErrOutOfMemory, "cuhost.Alloc: ")
	_, err = Alloc(engine.F32, -1)
	refused(t, err, engine.ErrShape, "cuhost.Alloc: dims[0]: -1")

	empty := alloc(t, engine.F32, 0, 4)
	require.NoError(t, Upload(empty, []float32{}))
	values, err := Download[float32](empty)
	require.NoError(t, err)
	require.Empty(t, values)
}

// Without a context cu's calls fail; the adapter says so and a tensor can still be made.
func TestNoContext(t *testing.T) {
	_, ctx := open(t)
	tensor := alloc(t, engine.F32, 4)
	require.NoError(t, cu.SetCurrentContext(cu.CUContext{}))
	_, err := Alloc(engine.F32, 4)
	refused(t, err, engine.ErrDevice, "cuhost.Alloc: ", "InvalidContext")
	refused(t, Upload(tensor, make([]float32, 4)), engine.ErrDevice, "cuhost.Upload: ", "InvalidContext")
	again, err := Tensor(Pointer(tensor), engine.F32, 4)
	require.NoError(t, err)
	require.Equal(t, tensor, again)
	require.NoError(t, cu.SetCurrentContext(ctx))
}
