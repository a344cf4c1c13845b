package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/libadcg/libadcg/piecewise"
)

// generate makes instances like those of real accelerators' compilers: hundreds of intervals of a few KiB to half of the
// memory, most of them short, some as long as the program. Each is a rectangle of time and memory that was cut into
// pieces without waste, some of which were then taken out; so the capacity can be reached, and where a time has lost no
// piece it is the bound as well.
func generate(count int) []instance {
	var out []instance
	for n := range count {
		rng := rand.New(rand.NewPCG(uint64(n), 7))
		const unit, height, width = 1024, 1024, 1 << 20
		c := cutter{rng: rng, pieces: 150 + rng.IntN(200)}
		c.cut(rectangle{0, width, 0, height})
		in := instance{name: fmt.Sprintf("generated %d", n), capacity: unit * height}
		keep := 0.75 + 0.25*rng.Float64()
		full := rng.IntN(width) // this time loses nothing
		for _, r := range c.done {
			if rng.Float64() < keep || r.t0 <= full && full < r.t1 {
				in.items = append(in.items, piecewise.Interval{First: r.t0, Last: r.t1 - 1, Size: int64(r.y1-r.y0) * unit})
			}
		}
		rng.Shuffle(len(in.items), func(i, j int) { in.items[i], in.items[j] = in.items[j], in.items[i] })
		out = append(out, in)
	}
	return out
}

type rectangle struct{ t0, t1, y0, y1 int }

// cutter cuts rectangles into pieces: in two across either axis, or in five around a middle one, which no straight cuts
// can make.
type cutter struct {
	rng    *rand.Rand
	pieces int
	done   []rectangle
}

func (c *cutter) cut(whole rectangle) {
	open := []rectangle{whole}
	for len(open) > 0 && len(open)+len(c.done) < c.pieces {
		// Large pieces are cut sooner, not always: sizes come to differ by orders of magnitude.
		at := c.rng.IntN(len(open))
		for range 2 {
			if other := c.rng.IntN(len(open)); area(open[other]) > area(open[at]) {
				at = other
			}
		}
		r := open[at]
		open[at] = open[len(open)-1]
		open = open[:len(open)-1]
		parts := c.split(r)
		if len(parts) == 1 {
			c.done = append(c.done, r)
			continue
		}
		open = append(open, parts...)
	}
	c.done = append(c.done, open...)
}

func area(r rectangle) float64 { return float64(r.t1-r.t0) * float64(r.y1-r.y0) }

func (c *cutter) split(r rectangle) []rectangle {
	between := func(a, b int) int { return a + 1 + c.rng.IntN(b-a-1) } // strictly
	t, y := r.t1-r.t0, r.y1-r.y0
	switch {
	case t > 8 && y > 8 && c.rng.IntN(5) == 0:
		ta, ya := between(r.t0, r.t1-2), between(r.y0, r.y1-2)
		tb, yb := between(ta, r.t1), between(ya, r.y1)
		return []rectangle{{r.t0, tb, r.y0, ya}, {tb, r.t1, r.y0, yb}, {ta, r.t1, yb, r.y1}, {r.t0, ta, ya, r.y1}, {ta, tb, ya, yb}}
	case y > 8 && (t <= 8 || c.rng.IntN(2) == 0):
		at := between(r.y0, r.y1)
		return []rectangle{{r.t0, r.t1, r.y0, at}, {r.t0, r.t1, at, r.y1}}
	case t > 8:
		at := between(r.t0, r.t1)
		return []rectangle{{r.t0, at, r.y0, r.y1}, {at, r.t1, r.y0, r.y1}}
	}
	return []rectangle{r}
}
