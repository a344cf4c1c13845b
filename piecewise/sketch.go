package piecewise

import (
	"fmt"
	"io"
	"strings"
)

// The sketch is at most sketchCols + 12 characters wide, so that it fits a terminal of 100.
const (
	sketchCols = 88
	sketchRows = 14
)

// sketch draws the arena in plain characters: times across, offsets up, a letter for what takes most of a cell.
func (p *Plan) sketch(w io.Writer) {
	times := p.times()
	cols := min(times, sketchCols)
	cols *= sketchCols / cols // a short plan has several columns for each time
	column := func(t int) int { return t * cols / times }

	fmt.Fprint(w, "\narena: time across, offset up\n")
	cells := p.raster(cols, sketchRows, func(int) bool { return true })
	for r := sketchRows - 1; r >= 0; r-- {
		label := ""
		switch r {
		case sketchRows - 1:
			label = human(p.ArenaBytes)
		case 0:
			label = "0"
		}
		line := make([]byte, cols)
		for c := range line {
			line[c] = sketchCell(cells[r*cols+c])
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%10s |%s", label, line), " "))
	}

	shares := make([][Views + 1]int, cols)
	for _, part := range p.Partitions {
		weight := 1
		if part.Kind == DynamicOp {
			weight = 3 // where few times share a column, the split is what matters
		}
		for t := part.First + 1; t <= part.End; t++ {
			for c := column(t); c < max(column(t+1), column(t)+1); c++ {
				shares[c][part.Kind] += weight
			}
		}
	}
	parts := make([]byte, cols)
	for c, share := range shares {
		most := 0
		for k := range share {
			if share[k] > share[most] {
				most = k
			}
		}
		parts[c] = " =-*:"[most]
	}
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%10s  %s", "ops", parts), " "))
	at, bytes := p.Peak()
	mark := fmt.Sprintf("peak %s at time %d", human(bytes), at)
	if c := column(at); c+2+len(mark) <= sketchCols {
		fmt.Fprintf(w, "%12s%*s %s\n", "", c+1, "^", mark)
	} else {
		fmt.Fprintf(w, "%12s%*s\n", "", c+1, mark+" ^")
	}
	fmt.Fprint(w, "\n  # activation  d output of a dynamic op  w workspace  i input staging  o output staging  . in part\n")
	fmt.Fprint(w, "  = token segment  - seq segment  * dynamic op  : views\n")
}

// sketchCell is the character of a cell: what takes most of it, if half of it is in use.
func sketchCell(shares [numLooks]float64) byte {
	var used float64
	most := 0
	for k, share := range shares {
		used += share
		if share > shares[most] {
			most = k
		}
	}
	switch {
	case used >= 0.5:
		return "#dwio"[most]
	case used > 0:
		return '.'
	}
	return ' '
}
