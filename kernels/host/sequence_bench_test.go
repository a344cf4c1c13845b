package host_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

// sequenceLaunch is a case as one launch over all its sequences, slot i for sequence i, and what frees it.
func sequenceLaunch(s scan) (*host.Prepared, func()) {
	cu, slots := []int32{0}, []int32{}
	for i, n := range s.lengths {
		cu, slots = append(cu, cu[i]+n), append(slots, int32(i))
	}
	s.inputs[s.state], s.inputs[s.state+1], s.inputs[s.state+2], s.inputs[s.state+3] = s.initial, ints(cu...), ints(s.pos...), ints(slots...)
	var tensors []host.Tensor
	for _, a := range s.inputs {
		tensors = append(tensors, a.up())
	}
	seqs, tokens := int64(len(s.lengths)), total(s.lengths)
	out := zeros(s.inputs[0].dtype, append([]int64{tokens}, s.out...)...)
	run := host.NewLaunch(s.op, s.attrs, tensors, []host.Tensor{out}, host.Batch{PrefillSeqs: seqs, PrefillTokens: tokens})
	return run, func() {
		run.Close()
		release(append(tensors, out)...)
	}
}

// many is `n` sequences of as many tokens each.
func many(n, tokens int32) (lengths, pos []int32) {
	for range n {
		lengths, pos = append(lengths, tokens), append(pos, 1000)
	}
	return lengths, pos
}

// BenchmarkSequence gives each op at the sizes of today's models: prefill by the token, decode by the byte of state.
func BenchmarkSequence(b *testing.B) {
	pool := host.NewPool(0)
	defer host.FreePool(pool)
	rng := rand.New(rand.NewPCG(81, 82))
	for _, dtype := range floats {
		for _, size := range [][2]int32{{1, 1}, {16, 1}, {1, 512}, {4, 128}} {
			lengths, pos := many(size[0], size[1])
			for _, c := range []struct {
				name string
				scan
			}{
				{"conv/C=8192/K=4", convCase(rng, dtype, dtype, 8192, 4, "silu", true, lengths, pos)},
				{"ssm/H=64/P=64/n=128", ssmCase(rng, dtype, 64, 64, 8, 128, lengths, pos)},
				{"gated_delta_rule/H=32/K=128/V=128", deltaCase(rng, dtype, true, 32, 16, 128, 128, lengths, pos)},
			} {
				b.Run(fmt.Sprintf("%v/%s/S=%d/T=%d", dtype, c.name, size[0], size[0]*size[1]), func(b *testing.B) {
					run, free := sequenceLaunch(c.scan)
					defer free()
					for b.Loop() {
						if err := run.Run(pool); err != nil {
							b.Fatal(err)
						}
					}
					ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
					b.ReportMetric(ns/float64(size[0]*size[1]), "ns/token")
					bytes := 2 * float64(count(c.initial.dims)*c.initial.dtype.Size())
					b.ReportMetric(bytes/ns, "GB/s-of-state")
				})
			}
		}
	}
}

// cpuTime is what this thread has used, which other processes on the machine do not add to.
func cpuTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// product is how often an x [m, k] times weight [n, k] is wanted.
type product struct{ m, n, k, times int64 }

// cost is the CPU time of products, each kind with operands of its own that stay in the caches.
func cost(b *testing.B, products []product) time.Duration {
	start := cpuTime()
	for _, p := range products {
		x, w, y := zeros(piecewise.F32, p.m, p.k), zeros(piecewise.F32, p.n, p.k), zeros(piecewise.F32, p.m, p.n)
		run := host.NewLaunch("adcg.linear", nil, []host.Tensor{x, w}, []host.Tensor{y}, host.Batch{DecodeSeqs: p.m})
		for range p.times {
			if err := run.Run(0); err != nil {
				b.Fatal(err)
			}
		}
		run.Close()
		release(x, w, y)
	}
	return cpuTime() - start
}

// BenchmarkScanAgainstChunks compares a prefill's scan with the products of the chunked formulation, by the library's own
// product kernel, both on one thread in CPU time: "chunks/scan" above 1 means that the recurrence is faster. The products
// alone are counted, not the exponentials, masks, scalings and turned operands around them (nor the triangular inverse of
// the delta rule), and all of a triangle's square, as the kernel has no triangles.
func BenchmarkScanAgainstChunks(b *testing.B) {
	rng := rand.New(rand.NewPCG(83, 84))
	const tokens, heads, groups, dim, n, keys, values = 512, 16, 2, 64, 128, 128, 128
	lengths, pos := many(1, tokens)
	for _, c := range []int64{32, 64, 128, 256} {
		chunks := tokens / c
		for _, test := range []struct {
			name string
			scan
			products []product
		}{
			{"ssm", ssmCase(rng, piecewise.F32, heads, dim, groups, n, lengths, pos), []product{
				{c, c, n, chunks * groups},  // C B^T
				{c, dim, c, chunks * heads}, // of it with x: within the chunk
				{c, dim, n, chunks * heads}, // C with the state
				{dim, n, c, chunks * heads}, // the state: x with B
			}},
			{"gated_delta_rule", deltaCase(rng, piecewise.F32, true, heads, heads, keys, values, lengths, pos), []product{
				{c, c, keys, 2 * chunks * heads},  // k k^T, q k^T
				{c, values, c, chunks * heads},    // the inverse with beta v
				{c, keys, c, chunks * heads},      // and with beta k
				{c, values, keys, chunks * heads}, // of that with the state: what the chunk writes
				{c, values, keys, chunks * heads}, // q with the state
				{c, values, c, chunks * heads},    // q k^T with what the chunk writes
				{keys, values, c, chunks * heads}, // the state
			}},
		} {
			b.Run(fmt.Sprintf("%s/chunk=%d", test.name, c), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				run, free := sequenceLaunch(test.scan)
				defer free()
				var scanned, chunked time.Duration
				for b.Loop() {
					start := cpuTime()
					if err := run.Run(0); err != nil {
						b.Fatal(err)
					}
					scanned += cpuTime() - start
					chunked += cost(b, test.products)
				}
				b.ReportMetric(float64(scanned.Microseconds())/float64(b.N), "scan-us")
				b.ReportMetric(float64(chunked.Microseconds())/float64(b.N), "chunks-us")
				b.ReportMetric(float64(chunked)/float64(scanned), "chunks/scan")
			})
		}
	}
}
