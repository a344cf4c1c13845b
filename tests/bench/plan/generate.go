package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/libadcg/libadcg/piecewise"
)

// character of generated instances, after those of real accelerators' compilers.
type character struct {
	name                string
	fewest, most        int     // pieces, before some are taken out
	time                int     // the whole is so long; in units of which lengths are multiples
	tall                float64 // how much rather memory is cut than time: 1 neither, more makes many live at once
	among               int     // of so many pieces the largest is cut next
	alike               bool    // cut near the middle, the longer side
	wheel               float64 // share of cuts in five around a middle
	leastKept, mostKept float64 // share of pieces that stay
}

var characters = []character{
	{"mixed", 150, 350, 1024, 1, 3, false, 0.2, 0.75, 1},   // sizes and lengths over orders of magnitude
	{"fine", 150, 350, 1 << 20, 1, 3, false, 0.2, 0.75, 1}, // hardly two begin or end at the same time
	{"deep", 180, 260, 1024, 6, 3, false, 0.2, 0.8, 1},     // many live at once, most of them long
	{"even", 280, 460, 1024, 0.12, 40, true, 0.2, 0.85, 1}, // all much alike, a dozen live at once
	{"tight", 150, 300, 1024, 1, 3, false, 0.3, 1, 1},      // no room at any time
	{"large", 300, 460, 1024, 1.5, 5, false, 0.2, 0.7, 0.95},
}

// generate makes instances whose optimum is known. Each is a rectangle of time and memory that was cut into pieces
// without waste, some of which were then taken out; so the capacity can be reached, and as one time has lost no piece it
// is the bound as well.
func generate(count int) []instance {
	var out []instance
	for n := range count {
		rng := rand.New(rand.NewPCG(uint64(n), 7))
		const unit, height = 1024, 1024
		is := characters[n%len(characters)]
		c := cutter{rng: rng, character: is, pieces: is.fewest + rng.IntN(is.most-is.fewest+1)}
		c.cut(rectangle{0, is.time, 0, height})
		in := instance{name: fmt.Sprintf("%s %d", is.name, n/len(characters)), capacity: unit * height}
		keep := is.leastKept + (is.mostKept-is.leastKept)*rng.Float64()
		full := rng.IntN(is.time) // this time loses nothing
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
	character
	rng    *rand.Rand
	pieces int
	done   []rectangle
}

func (c *cutter) cut(whole rectangle) {
	open := []rectangle{whole}
	for len(open) > 0 && len(open)+len(c.done) < c.pieces {
		// Large pieces are cut sooner, not always: sizes come to differ by orders of magnitude.
		at := c.rng.IntN(len(open))
		for range c.among - 1 {
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
	between := func(a, b int) int { // strictly
		if n := b - a - 1; c.alike && n > 8 { // in the middle third
			return a + 1 + n/3 + c.rng.IntN(n-2*(n/3))
		}
		return a + 1 + c.rng.IntN(b-a-1)
	}
	t, y := r.t1-r.t0, r.y1-r.y0
	memory := c.tall / (1 + c.tall) // how likely that is cut
	if c.alike {                    // the longer side, so to speak
		memory = 0
		if float64(y)*c.tall > float64(t)/4 {
			memory = 1
		}
	}
	switch {
	case t > 8 && y > 8 && c.rng.Float64() < c.wheel:
		ta, ya := between(r.t0, r.t1-2), between(r.y0, r.y1-2)
		tb, yb := between(ta, r.t1), between(ya, r.y1)
		return []rectangle{{r.t0, tb, r.y0, ya}, {tb, r.t1, r.y0, yb}, {ta, r.t1, yb, r.y1}, {r.t0, ta, ya, r.y1}, {ta, tb, ya, yb}}
	case y > 8 && (t <= 8 || c.rng.Float64() < memory):
		at := between(r.y0, r.y1)
		return []rectangle{{r.t0, r.t1, r.y0, at}, {r.t0, r.t1, at, r.y1}}
	case t > 8:
		at := between(r.t0, r.t1)
		return []rectangle{{r.t0, at, r.y0, r.y1}, {at, r.t1, r.y0, r.y1}}
	}
	return []rectangle{r}
}
