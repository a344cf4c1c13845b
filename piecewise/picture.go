package piecewise

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What the pictures of a plan share: WriteSVG (svg.go) and the sketch on top of WriteText (sketch.go).

// look is what a block is to somebody who looks at the arena.
type look int

const (
	lookActivation look = iota
	lookDynamic         // an activation that a dynamic op writes
	lookWorkspace
	lookInput
	lookOutput
	numLooks
)

func (l look) String() string {
	return [...]string{BlockActivation, "output of a dynamic op", BlockWorkspace, BlockInput, BlockOutput}[l]
}

func (p *Plan) look(b *Block) look {
	switch b.Kind {
	case BlockWorkspace:
		return lookWorkspace
	case BlockInput:
		return lookInput
	case BlockOutput:
		return lookOutput
	}
	for _, v := range b.Values {
		if n := p.Graph.Values[v].Node; n >= 0 && p.Graph.Nodes[n].Kind != Static {
			return lookDynamic
		}
	}
	return lookActivation
}

// times is how many there are: inputs staged, each node, outputs copied out.
func (p *Plan) times() int { return len(p.Graph.Nodes) + 2 }

// timeName says what runs at a time.
func (p *Plan) timeName(t int) string {
	switch {
	case t == 0:
		return "inputs staged"
	case t == p.times()-1:
		return "outputs copied out"
	}
	return plain(p.Graph.Nodes[t-1].Name)
}

// live is how many aligned bytes are live at each time.
func (p *Plan) live() []int64 {
	live := make([]int64, p.times()+1)
	for _, b := range p.Blocks {
		live[b.First] += reserve(b.Bytes)
		live[b.Last+1] -= reserve(b.Bytes)
	}
	for t := 1; t < len(live); t++ {
		live[t] += live[t-1]
	}
	return live[:p.times()]
}

// raster spreads the blocks that pick chooses over a grid: times across, in cols, offsets up, in rows from offset 0. It
// gives for each cell, row by row, the share of it that each look of blocks takes, 0 to 1.
func (p *Plan) raster(cols, rows int, pick func(block int) bool) [][numLooks]float64 {
	cells := make([][numLooks]float64, cols*rows)
	perTime, perByte := float64(cols)/float64(p.times()), float64(rows)/float64(max(p.ArenaBytes, 1))
	for i := range p.Blocks {
		if !pick(i) {
			continue
		}
		b := &p.Blocks[i]
		kind := p.look(b)
		x0, x1 := float64(b.First)*perTime, float64(b.Last+1)*perTime
		y0, y1 := float64(b.Offset)*perByte, float64(b.Offset+reserve(b.Bytes))*perByte
		for r := int(y0); r < rows && float64(r) < y1; r++ {
			high := min(y1, float64(r+1)) - max(y0, float64(r))
			for c := int(x0); c < cols && float64(c) < x1; c++ {
				cells[r*cols+c][kind] += high * (min(x1, float64(c+1)) - max(x0, float64(c)))
			}
		}
	}
	return cells
}

// human prints bytes in four digits and a binary unit: "264.4 KiB".
func human(bytes int64) string {
	x, unit := float64(bytes), 0
	for ; x >= 1024 && unit < 6; unit++ {
		x /= 1024
	}
	return strconv.FormatFloat(x, 'g', 4, 64) + [...]string{" bytes", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"}[unit]
}

// exact prints bytes for people and to the byte: "264.4 KiB (270,784 bytes)".
func exact(bytes int64) string {
	if bytes < 1024 {
		return human(bytes)
	}
	return human(bytes) + " (" + grouped(bytes) + " bytes)"
}

// grouped prints a number that is not negative with commas between its thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plain makes a name fit to be shown: control characters and bytes that are no UTF-8 become U+FFFD.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(name, string(utf8.RuneError)))
}

// clip cuts a text to so many characters.
func clip(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:max(most-1, 0)]) + "…"
}

// clipName cuts an op's or its output's name to so many characters, and keeps its number: "atten…#11".
func clipName(name string, most int) string {
	at := max(strings.LastIndexByte(name, '#'), 0)
	if number := name[at:]; at > 0 && len(number)+2 <= most {
		return clip(name[:at], most-len(number)) + number
	}
	return clip(name, most)
}

// short is an op's or its output's name without what stands before its last word: "adcg.linear#3" is "linear#3".
func short(name string) string {
	if end := strings.LastIndexByte(name, '#'); end > 0 {
		return name[strings.LastIndexByte(name[:end], '.')+1:]
	}
	return name
}

// count prints "1 block", "2 blocks".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%s %s", grouped(int64(n)), what)
}
