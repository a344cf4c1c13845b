package piecewise

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// What bounds the file, however many blocks and values there are.
const (
	svgBlocks = 2000      // drawn one by one, each with what it holds on hover; the largest come first
	svgNames  = 256 << 10 // bytes of names in what blocks show on hover
	svgName   = 64        // characters of one name
	svgCell   = 6.0       // px: blocks beyond svgBlocks are drawn as shares of cells of this size
	svgColumn = 2.0       // px: partitions and times narrower than this are drawn together with their neighbours
)

// The picture's geometry in px. The arena's plot lies at (svgLeft, svgTop); it is at most svgWidest wide.
const (
	svgLeft, svgRight  = 76.0, 132.0
	svgTop, svgHeight  = 104.0, 420.0
	svgWidest          = 1920.0
	svgProfile         = 64.0  // height of the profile of live bytes
	svgOpNames         = 112.0 // room for the ops' names, where they fit
	svgNarrow, svgWide = 960.0, 12.0
)

// svg writes one picture.
type svg struct {
	bytes.Buffer
	p             *Plan
	looks         []look  // per block
	width         float64 // of the plot
	perTime       float64 // px
	perByte       float64 // px
	profile       float64 // y of the profile's foot
	at            int     // time of the peak
	peak          int64
	names         int // bytes of names that may still be written
	drawn, unsaid int // blocks drawn one by one; values whose names were left out
}

// WriteSVG writes the plan as a picture that needs nothing beside it: times across, offsets up, partitions as shaded
// columns, the peak marked, and under it the bytes that are live at each time. What is pointed at names itself: a block
// its values, kind, size, place and times. The file's size is bounded; how many blocks are drawn one by one is said in
// the picture. An error of w's is returned as it is.
func (p *Plan) WriteSVG(w io.Writer) error {
	s := &svg{p: p, names: svgNames, looks: make([]look, len(p.Blocks))}
	for i := range p.Blocks {
		s.looks[i] = p.look(&p.Blocks[i])
	}
	s.at, s.peak = p.Peak()
	s.width = min(max(float64(p.times())*svgWide, svgNarrow), svgWidest)
	s.perTime = s.width / float64(p.times())
	s.perByte = svgHeight / float64(max(p.ArenaBytes, 1))
	s.profile = svgTop + svgHeight + 16 + svgProfile
	if s.opNamesFit() {
		s.profile += svgOpNames
	}

	width, height := svgLeft+s.width+svgRight, s.profile+62
	s.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%[2]s" viewBox="0 0 %[1]s %s">`+"\n", px(width), px(height))
	s.printf("<title>Plan of an arena of %s</title>\n<style>%s</style>\n", exact(p.ArenaBytes), svgStyle)
	s.printf(`<rect class="page" width="%s" height="%s"/>`+"\n", px(width), px(height))
	s.header()
	s.partitions()
	s.offsets()
	s.blocks()
	s.ops()
	s.liveBytes()
	s.marks()
	s.footer()
	s.printf("</svg>\n")
	_, err := w.Write(s.Bytes())
	return err
}

func (s *svg) printf(format string, args ...any) { fmt.Fprintf(s, format, args...) }

// text writes a line of text; x and y are px of its anchor.
func (s *svg) text(class string, x, y float64, text string) {
	s.printf(`<text class="%s" x="%s" y="%s">%s</text>`+"\n", class, px(x), px(y), escape(text))
}

// x is the left edge of a time, y the height of an offset, in px.
func (s *svg) x(time int) float64       { return svgLeft + float64(time)*s.perTime }
func (s *svg) y(offset float64) float64 { return svgTop + svgHeight - offset*s.perByte }

func (s *svg) opNamesFit() bool { return s.perTime >= 11 }

// px prints a length with two digits behind the point, at most.
func px(x float64) string { return strconv.FormatFloat(math.Round(x*100)/100, 'f', -1, 64) }

// escape makes a text fit for XML; what XML cannot hold becomes U+FFFD.
func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text)) // a strings.Builder does not fail
	return out.String()
}

// header writes what the plan is for, and the legend.
func (s *svg) header() {
	p, l := s.p, s.p.Graph.Limits
	s.text("head", svgLeft, 28, fmt.Sprintf("Arena of %s for %s, %s", human(p.ArenaBytes), count(int(l.MaxTokens), "token"), count(int(l.MaxSeqs), "sequence")))
	s.text("sub", svgLeft, 47, fmt.Sprintf("lower bound %s, gap %s · peak %s at time %d, %s · %s, %s, %s",
		human(p.LowerBound), human(p.ArenaBytes-p.LowerBound), human(s.peak), s.at, clip(p.timeName(s.at), 40),
		count(p.NumSegments, "segment"), count(p.NumDynamic, "dynamic op"), count(len(p.Blocks), "block")))
	x := svgLeft
	entry := func(group, class, label string) {
		s.printf(`<g class="%s"><rect class="%s" x="%s" y="60" width="12" height="12"/></g>`, group, class, px(x))
		s.text("key", x+17, 70, label)
		x += 17 + 6.1*float64(len(label)) + 16
	}
	var seen [numLooks]bool
	for _, k := range s.looks {
		seen[k] = true
	}
	for k, yes := range seen {
		if yes {
			entry("swatch", svgLooks[k], look(k).String())
		}
	}
	var kinds [Views + 1]bool
	for _, part := range p.Partitions {
		kinds[part.Kind] = true
	}
	for k, yes := range kinds {
		if yes {
			entry("ribbon", svgKinds[k], PartitionKind(k).String())
		}
	}
}

// Classes of blocks and partitions in the style.
var (
	svgLooks = [numLooks]string{"a", "d", "w", "i", "o"}
	svgKinds = [Views + 1]string{"", "token", "seq", "dynamic", "views"}
)

// partitions writes a shaded column and a piece of ribbon for each partition. Those too narrow to be seen share one.
func (s *svg) partitions() {
	parts := s.p.Partitions
	var columns, ribbon strings.Builder
	for first := 0; first < len(parts); {
		var nodes [Views + 1]int
		end := first
		for ; end < len(parts) && (end == first || float64(parts[end-1].End-parts[first].First)*s.perTime < svgColumn); end++ {
			nodes[parts[end].Kind] += parts[end].End - parts[end].First
		}
		from, to := parts[first].First+1, parts[end-1].End // times
		kind, title := parts[first].Kind, ""
		if end == first+1 {
			title = fmt.Sprintf("%s: %s\n%s", kind, count(to-from+1, "op"), s.when(from, to))
			if why := parts[first].Why; why != "" {
				title += "\n" + clip(plain(why), svgName)
			}
		} else {
			title = fmt.Sprintf("%d partitions\n%s", end-first, s.when(from, to))
			for k := range nodes {
				if nodes[k] > nodes[kind] {
					kind = PartitionKind(k)
				}
			}
		}
		rect := func(out *strings.Builder, y, height float64) {
			fmt.Fprintf(out, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>`+"\n",
				svgKinds[kind], px(s.x(from)), px(y), px(float64(to-from+1)*s.perTime), px(height), escape(title))
		}
		rect(&columns, svgTop, svgHeight)
		rect(&ribbon, svgTop+svgHeight+3, 6)
		first = end
	}
	s.printf("<g class=\"columns\">\n%s</g>\n<g class=\"ribbon\">\n%s</g>\n", columns.String(), ribbon.String())
}

// when says which times, and what runs at the first and the last.
func (s *svg) when(first, last int) string {
	from, to := clip(s.p.timeName(first), svgName), clip(s.p.timeName(last), svgName)
	if first == last {
		return fmt.Sprintf("time %d: %s", first, from)
	}
	return fmt.Sprintf("times %d to %d: %s to %s", first, last, from, to)
}

// offsets writes the scale of offsets, in steps of a power of two.
func (s *svg) offsets() {
	step := int64(1)
	for s.p.ArenaBytes/step >= 10 {
		step *= 2
	}
	s.printf("<g class=\"grid\">\n")
	for at := int64(0); at <= s.p.ArenaBytes; at += step {
		y := s.y(float64(at))
		s.printf(`<path d="M%s %sh%s"/>`, px(svgLeft), px(y), px(s.width))
		s.text("tick end", svgLeft-7, y+4, human(at))
	}
	s.printf("</g>\n")
}

// ops writes the names of what runs at each time, or no more than the scale of times where they do not fit.
func (s *svg) ops() {
	if s.opNamesFit() {
		s.printf("<g class=\"ops\">\n")
		for t := range s.p.times() {
			class := ""
			if t == s.at {
				class = ` class="peaked"`
			}
			s.printf(`<text%s transform="translate(%s,%s)rotate(-90)">%s</text>`+"\n",
				class, px(s.x(t)+s.perTime/2+3), px(svgTop+svgHeight+14), escape(clipName(short(s.p.timeName(t)), 18)))
		}
		s.printf("</g>\n")
	}
	step := 1
	for k := 0; float64(step)*s.perTime < 40; k++ {
		step = []int{1, 2, 5}[k%3] * int(math.Pow10(k/3))
	}
	for t := 0; t < s.p.times(); t += step {
		s.text("tick mid", s.x(t)+s.perTime/2, s.profile+15, grouped(int64(t)))
	}
}

// liveBytes writes the profile: a bar for each time, as high as what is live in relation to the arena.
func (s *svg) liveBytes() {
	s.printf("<g class=\"live\">\n")
	live := s.p.live()
	each := max(1, int(math.Ceil(svgColumn/s.perTime)))
	scale := svgProfile / float64(max(s.p.ArenaBytes, 1))
	for from := 0; from < len(live); from += each {
		to := min(from+each, len(live))
		most := from
		for t := from; t < to; t++ {
			if live[t] > live[most] {
				most = t
			}
		}
		high := float64(live[most]) * scale
		s.printf(`<rect x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>`+"\n",
			px(s.x(from)), px(s.profile-high), px(float64(to-from)*s.perTime), px(high),
			escape(fmt.Sprintf("%s live\n%s", exact(live[most]), s.when(most, most))))
	}
	s.printf(`<path class="bound" d="M%s %sh%s"/>`, px(svgLeft), px(s.profile-float64(s.p.LowerBound)*scale), px(s.width))
	s.text("tick end", svgLeft-7, s.profile-svgProfile+9, "live")
	s.text("tick end", svgLeft-7, s.profile+1, "0")
	s.printf("</g>\n")
}

// marks writes the arena's height, the bound and the peak, over everything else.
func (s *svg) marks() {
	top, bound := s.y(float64(s.p.ArenaBytes)), s.y(float64(s.p.LowerBound))
	right := svgLeft + s.width
	s.printf("<g class=\"marks\">\n")
	s.printf(`<path class="arena" d="M%s %sh%s"/><path class="bound" d="M%[1]s %[4]sh%[3]s"/>`+"\n", px(svgLeft), px(top), px(s.width+6), px(bound))
	s.text("mark", right+10, top-1, "arena")
	s.text("mark strong", right+10, top+13, human(s.p.ArenaBytes))
	low := max(bound, top+30) // below the arena's label
	s.text("mark", right+10, low+2, "lower bound")
	s.text("mark strong", right+10, low+16, human(s.p.LowerBound))

	x, side, label := s.x(s.at)+s.perTime/2, "", fmt.Sprintf("peak %s at time %d", human(s.peak), s.at)
	if x > svgLeft+s.width/2 {
		side = " end"
	}
	s.printf(`<path class="peak" d="M%s %sV%sM%[1]s %[4]sV%s"/>`+"\n", px(x), px(svgTop-16), px(svgTop+svgHeight+9), px(s.profile-svgProfile), px(s.profile))
	s.text("mark peaked"+side, x+map[string]float64{"": 5, " end": -5}[side], svgTop-8, label)
	s.printf("</g>\n")
}

// footer says what the axes are, and what was left out.
func (s *svg) footer() {
	left := len(s.p.Blocks) - s.drawn
	note := fmt.Sprintf("time across: op i runs at time i+1 · offset up · all %s drawn", count(s.drawn, "block"))
	if left > 0 {
		note = fmt.Sprintf("time across: op i runs at time i+1 · offset up · the largest %s of %s drawn one by one, the other %s as shares of cells",
			grouped(int64(s.drawn)), count(len(s.p.Blocks), "block"), grouped(int64(left)))
	}
	if s.unsaid > 0 {
		note += fmt.Sprintf(" · names of %s left out", count(s.unsaid, "value"))
	}
	s.text("sub", svgLeft, s.profile+42, note)
}
