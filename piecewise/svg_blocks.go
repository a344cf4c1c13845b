package piecewise

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// blocks writes the arena's blocks, the small ones together if there are too many, and labels where they fit.
func (s *svg) blocks() {
	chosen := largest(s.p.Blocks, svgBlocks)
	order := bySizeDown(s.p.Blocks, chosen)
	s.drawn = len(order)
	if s.drawn < len(s.p.Blocks) {
		s.rest(chosen)
	}
	// What has no width or height would not be drawn at all.
	fine := func(x float64) string { return strconv.FormatFloat(max(x, 0.001), 'f', 3, 64) }
	// Where columns are narrow, outlines must leave something of what they are around.
	line := min(max(s.perTime/8, 0.05), 0.8)
	s.printf(`<g class="blocks" stroke-width="%s">`+"\n", px(line))
	for _, i := range order {
		b := &s.p.Blocks[i]
		bytes := reserve(b.Bytes)
		s.printf(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>`+"\n",
			svgLooks[s.looks[i]], fine(s.x(b.First)), fine(s.y(float64(b.Offset+bytes))),
			fine(float64(b.Last-b.First+1)*s.perTime), fine(float64(bytes)*s.perByte), escape(s.about(b, s.looks[i])))
	}
	s.printf("</g>\n<g class=\"labels\">\n")
	for _, i := range order {
		s.label(&s.p.Blocks[i])
	}
	s.printf("</g>\n")
}

// about is what a block shows on hover.
func (s *svg) about(b *Block, kind look) string {
	lines := []string{fmt.Sprintf("%s: %s", kind, clip(plain(b.Name), svgName))}
	if len(b.Values) > 1 || len(b.Values) == 1 && s.p.Graph.Values[b.Values[0]].Name != b.Name {
		lines = append(lines, "holds "+s.valueNames(b.Values))
	}
	lines = append(lines, fmt.Sprintf("%s at offset %s", exact(b.Bytes), exact(b.Offset)), s.when(b.First, b.Last))
	return strings.Join(lines, "\n")
}

// valueNames names the values that share a block in their order, as long as there is room for names.
func (s *svg) valueNames(values []Value) string {
	var out strings.Builder
	for i, v := range values {
		if s.names <= 0 {
			s.unsaid += len(values) - i
			fmt.Fprintf(&out, " and %s more", grouped(int64(len(values)-i)))
			break
		}
		if i > 0 {
			out.WriteString(" → ")
		}
		name := clip(plain(s.p.Graph.Values[v].Name), svgName)
		s.names -= len(escape(name))
		out.WriteString(name)
	}
	return out.String()
}

// Labels are in a monospaced face, so that their width is known.
const (
	labelAdvance = 5.7 // px a character
	labelHigh    = 12.0
	labelLeast   = 5 // characters: less says nothing
)

// label writes the names of a block's values into it, upright or on its side, as much as fits.
func (s *svg) label(b *Block) {
	wide, high := float64(b.Last-b.First+1)*s.perTime, float64(b.Bytes)*s.perByte
	along, across, turned := wide, high, false
	if high > wide && wide < float64(labelLeast+6)*labelAdvance {
		along, across, turned = high, wide, true
	}
	room := int((along - 6) / labelAdvance)
	if across < labelHigh || room < labelLeast {
		return
	}
	x, y := s.x(b.First)+wide/2, s.y(float64(b.Offset)+float64(b.Bytes)/2)
	lines := []string{s.labelText(b, room)}
	if size := human(b.Bytes); across >= 2*labelHigh+4 && len(size) <= room {
		lines = append(lines, size)
	}
	for i, line := range lines {
		shift := 3.5 + labelHigh*(float64(i)-float64(len(lines)-1)/2)
		class := [...]string{"", ` class="size"`}[i]
		if turned {
			s.printf(`<text%s transform="translate(%s,%s)rotate(-90)">%s</text>`+"\n", class, px(x+shift), px(y), escape(line))
		} else {
			s.printf(`<text%s x="%s" y="%s">%s</text>`+"\n", class, px(x), px(y+shift), escape(line))
		}
	}
}

// labelText names as many of a block's values as there is room for.
func (s *svg) labelText(b *Block, room int) string {
	text := clipName(short(plain(b.Name)), room)
	for i := 1; i < len(b.Values); i++ {
		name, rest := short(plain(s.p.Graph.Values[b.Values[i]].Name)), ""
		if more := len(b.Values) - i - 1; more > 0 {
			rest = fmt.Sprintf(" +%d", more)
		}
		if utf8.RuneCountInString(text+" → "+name+rest) > room {
			if rest = fmt.Sprintf(" +%d", len(b.Values)-i); utf8.RuneCountInString(text+rest) <= room {
				text += rest
			}
			break
		}
		text += " → " + name
	}
	return text
}

// rest draws the blocks that were not chosen as the share of each cell that they take, in quarters, in the colour of the
// kind that takes most; next to nothing is faint.
func (s *svg) rest(chosen []bool) {
	opacities := [...]float64{0, 0.08, 0.25, 0.5, 0.75, 1}
	cols, rows := int(s.width/svgCell), int(svgHeight/svgCell)
	wide := s.width / float64(cols)
	shade := func(cell [numLooks]float64) (most, shade int) {
		var used float64
		for k, share := range cell {
			used += share
			if share > cell[most] {
				most = k
			}
		}
		if used == 0 {
			return 0, 0
		}
		return most, min(1+int(used*4+0.5), len(opacities)-1)
	}
	cells := s.p.raster(cols, rows, func(i int) bool { return !chosen[i] })
	var runs [numLooks][len(opacities)]strings.Builder
	for r := range rows {
		for c := 0; c < cols; {
			from, most, k := c, 0, 0
			most, k = shade(cells[r*cols+c])
			for c++; c < cols; c++ {
				if m, j := shade(cells[r*cols+c]); m != most || j != k {
					break
				}
			}
			fmt.Fprintf(&runs[most][k], "M%s %sh%s", px(svgLeft+float64(from)*wide), px(svgTop+svgHeight-(float64(r)+0.5)*svgCell), px(float64(c-from)*wide))
		}
	}
	s.printf("<g class=\"rest\" stroke-width=\"%s\">\n<title>%s blocks too many to be drawn one by one</title>\n",
		px(svgCell), grouped(int64(len(chosen)-s.drawn)))
	for kind := range runs {
		for k := 1; k < len(opacities); k++ {
			if d := runs[kind][k].String(); d != "" {
				s.printf(`<path class="%s" stroke-opacity="%s" d="%s"/>`+"\n", svgLooks[kind], px(opacities[k]), d)
			}
		}
	}
	s.printf("</g>\n")
}

// largest chooses at most so many blocks: the largest by bytes times time, as far as powers of two tell them apart, and
// of the last power every so many-th, so that those that are left out are not all at one end.
func largest(blocks []Block, most int) []bool {
	area := func(b *Block) int { // its binary logarithm
		return math.Ilogb(float64(reserve(b.Bytes)) * float64(b.Last-b.First+1))
	}
	var sizes [128]int
	for i := range blocks {
		sizes[area(&blocks[i])]++
	}
	least, room := len(sizes), most // all from least on fit, and then so many more
	for least > 0 && sizes[least-1] <= room {
		least--
		room -= sizes[least]
	}
	chosen := make([]bool, len(blocks))
	seen := 0
	for i := range blocks {
		switch a := area(&blocks[i]); {
		case a >= least:
			chosen[i] = true
		case a == least-1:
			chosen[i] = seen*room/sizes[a] != (seen+1)*room/sizes[a]
			seen++
		}
	}
	return chosen
}

// bySizeDown gives the chosen blocks, those that take most first: what is small is drawn over what is large.
func bySizeDown(blocks []Block, chosen []bool) []int {
	var order []int
	for i := range blocks {
		if chosen[i] {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(blocks[j].Bytes, blocks[i].Bytes) })
	return order
}
