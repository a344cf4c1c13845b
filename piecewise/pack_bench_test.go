package piecewise

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// deepModel has the blocks of a deep network: in each layer a residual that lives until the next one, short activations
// and workspaces of a few sizes, and a dozen values that the last layer reads.
func deepModel(count int) []Interval {
	items := make([]Interval, 0, count)
	const perLayer = 16
	last := count
	for at := 0; len(items) < count; at += perLayer {
		residual, wide := int64(512*4096*2), int64(512*14336*2)
		for k, size := range []int64{residual, residual, 3 * residual / 2, residual, 256, residual, 64 << 10, residual, residual, residual, wide, wide, wide, residual, 4096, residual} {
			end := at + k + 1 + k%3
			switch {
			case k == 0 || k == 8:
				end = at + k + 8 // added on behind attention, and behind the products
			case k == 4 && at/perLayer%64 == 0:
				end = last
			}
			if len(items) < count {
				items = append(items, Interval{at + k, min(end, last), size})
			}
		}
	}
	return items
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkPackDeep(b *testing.B) {
	for _, count := range []int{5_000, 100_000} {
		items := deepModel(count)
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			var p Placement
			before := cpuTime()
			for b.Loop() {
				p = Pack(items, Effort{})
			}
			b.ReportMetric(float64(p.Height)/float64(p.Bound), "height/bound")
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op") // other work on the machine does not count
		})
	}
}
