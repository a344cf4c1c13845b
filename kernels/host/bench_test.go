package host_test

import (
	"fmt"
	"testing"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

// BenchmarkLinear gives GFLOP/s of x [M, K] times weight [N, K] on all cores, in f32 and with bf16 weights.
// tests/bench has the same shapes for PyTorch.
func BenchmarkLinear(b *testing.B) {
	pool := host.NewPool(0)
	defer host.FreePool(pool)
	for _, types := range []struct {
		name string
		x, w piecewise.DType
	}{{"f32", piecewise.F32, piecewise.F32}, {"f32xbf16", piecewise.F32, piecewise.BF16}, {"bf16", piecewise.BF16, piecewise.BF16}} {
		for _, nk := range [][2]int64{{512, 192}, {192, 512}, {256, 192}, {4096, 1024}, {1024, 4096}} {
			for _, m := range []int64{1, 8, 64, 512} {
				n, k := nk[0], nk[1]
				b.Run(fmt.Sprintf("%s/M=%d/N=%d/K=%d", types.name, m, n, k), func(b *testing.B) {
					x, w, y := zeros(types.x, m, k), zeros(types.w, n, k), zeros(types.x, m, n)
					defer release(x, w, y)
					run := host.NewLaunch("adcg.linear", complete("adcg.linear", nil), []host.Tensor{x, w}, []host.Tensor{y}, host.Batch{DecodeSeqs: m})
					defer run.Close()
					for b.Loop() {
						if err := run.Run(pool); err != nil {
							b.Fatal(err)
						}
					}
					flops := 2 * float64(m) * float64(n) * float64(k)
					b.ReportMetric(flops*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
				})
			}
		}
	}
}

// zeros gives a tensor of C memory, which release frees.
func zeros(t piecewise.DType, dims ...int64) host.Tensor {
	n := t.Size()
	for _, d := range dims {
		n *= d
	}
	memory := host.Alloc(int(n))
	clear(memory)
	return host.Tensor{DType: t, Dims: dims, Address: host.Address(memory)}
}

func release(tensors ...host.Tensor) {
	for _, t := range tensors {
		host.FreeAddress(t.Address)
	}
}
