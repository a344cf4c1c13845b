package piecewise

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// element is a parsed element of a picture.
type element struct {
	name, text string
	attrs      map[string]string
	children   []*element
}

func (e *element) number(t *testing.T, attr string) float64 {
	t.Helper()
	x, err := strconv.ParseFloat(e.attrs[attr], 64)
	require.NoError(t, err, attr)
	require.False(t, math.IsNaN(x) || math.IsInf(x, 0))
	return x
}

func (e *element) title() string {
	for _, c := range e.children {
		if c.name == "title" {
			return c.text
		}
	}
	return ""
}

// all finds elements below e by name and class; an empty class is any.
func (e *element) all(name, class string) []*element {
	var found []*element
	for _, c := range e.children {
		if c.name == name && (class == "" || c.attrs["class"] == class) {
			found = append(found, c)
		}
		found = append(found, c.all(name, class)...)
	}
	return found
}

func (e *element) group(t *testing.T, class string) *element {
	t.Helper()
	found := e.all("g", class)
	require.Len(t, found, 1, class)
	return found[0]
}

// picture draws a plan, reads the drawing back, and sees that it needs nothing from outside.
func picture(t *testing.T, p *Plan) (root *element, size int) {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, p.WriteSVG(&out))
	require.True(t, utf8.Valid(out.Bytes()))
	for _, outside := range []string{"href", "url(", "@import", "<script", "<image", "<foreignObject", "NaN", "Inf"} {
		assert.NotContains(t, out.String(), outside)
	}
	assert.Contains(t, out.String(), "prefers-color-scheme:dark")
	top := &element{}
	stack := []*element{top}
	d := xml.NewDecoder(&out)
	size = out.Len()
	for {
		token, err := d.Token()
		if token == nil {
			require.ErrorContains(t, err, "EOF")
			break
		}
		switch x := token.(type) {
		case xml.StartElement:
			e := &element{name: x.Name.Local, attrs: map[string]string{}}
			for _, a := range x.Attr {
				e.attrs[a.Name.Local] = a.Value
			}
			parent := stack[len(stack)-1]
			parent.children = append(parent.children, e)
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			stack[len(stack)-1].text += string(x)
		}
	}
	require.Len(t, top.children, 1)
	return top.children[0], size
}

// drawnBlock is a block as the picture has it, in px.
type drawnBlock struct {
	left, right, top, low float64
	class, title          string
}

func drawnBlocks(t *testing.T, root *element) []drawnBlock {
	t.Helper()
	var out []drawnBlock
	for _, r := range root.group(t, "blocks").all("rect", "") {
		x, y, w, h := r.number(t, "x"), r.number(t, "y"), r.number(t, "width"), r.number(t, "height")
		require.Positive(t, w)
		require.Positive(t, h)
		out = append(out, drawnBlock{x, x + w, y, y + h, r.attrs["class"], r.title()})
	}
	return out
}

// pathOf reads "Mx yhw".
func pathOf(t *testing.T, e *element) (x, y, w float64) {
	t.Helper()
	_, err := fmt.Sscanf(e.attrs["d"], "M%f %fh%f", &x, &y, &w)
	require.NoError(t, err, e.attrs["d"])
	return x, y, w
}

// checkPicture holds a picture of all of a plan's blocks against the plan.
func checkPicture(t *testing.T, p *Plan) {
	t.Helper()
	root, _ := picture(t, p)
	g := p.Graph
	end := len(g.Nodes) + 1
	drawn := drawnBlocks(t, root)
	require.Len(t, drawn, len(p.Blocks))

	// The frame: the arena's line is where the arena's height is, the bound's where the bound is.
	marks := root.group(t, "marks")
	x, top, w := pathOf(t, marks.all("path", "arena")[0])
	_, bound, _ := pathOf(t, marks.all("path", "bound")[0])
	foot := 104.0 + 420
	perByte, perTime := (foot-top)/float64(p.ArenaBytes), (w-6)/float64(end+1)
	assert.InDelta(t, foot-float64(p.LowerBound)*perByte, bound, 0.02)

	// Each block is drawn once, where it lies, to the rounding of its coordinates, and says what it is.
	names := func(time int) string {
		switch time {
		case 0:
			return "inputs staged"
		case end:
			return "outputs copied out"
		}
		return g.Nodes[time-1].Name
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 0.0025 }
	taken := make([]bool, len(drawn))
	for _, b := range p.Blocks {
		reserved := max(64, (b.Bytes+63)/64*64)
		at := slices.IndexFunc(drawn, func(d drawnBlock) bool {
			return near(d.left, x+float64(b.First)*perTime) && near(d.right, x+float64(b.Last+1)*perTime) &&
				near(d.low, foot-float64(b.Offset)*perByte) && near(d.top, foot-float64(b.Offset+reserved)*perByte) &&
				strings.HasSuffix(strings.SplitN(d.title, "\n", 2)[0], ": "+b.Name)
		})
		require.GreaterOrEqual(t, at, 0, b.Name)
		require.False(t, taken[at])
		taken[at] = true
		title := drawn[at].title
		for _, v := range b.Values {
			assert.Contains(t, title, g.Values[v].Name)
		}
		assert.Contains(t, title, names(b.First))
		assert.Contains(t, title, names(b.Last))
		ungrouped := strings.ReplaceAll(title, ",", "")
		assert.Contains(t, ungrouped, fmt.Sprintf("%d bytes", b.Bytes))
		assert.Contains(t, ungrouped, fmt.Sprintf("%d bytes", b.Offset))
	}

	// No two that share a time overlap.
	for i, a := range drawn {
		for _, b := range drawn[:i] {
			shared := min(a.right, b.right)-max(a.left, b.left) > perTime/2
			require.False(t, shared && min(a.low, b.low)-max(a.top, b.top) > 0.0025, "%s\n%s", a.title, b.title)
		}
	}

	// The profile: at each time a bar as high as the blocks that live then; the highest is the peak, and marked.
	bars := root.group(t, "live").all("rect", "")
	at := 0
	var most int64
	for time := range end + 1 {
		var sum int64
		for _, b := range p.Blocks {
			if b.First <= time && time <= b.Last {
				sum += max(64, (b.Bytes+63)/64*64)
			}
		}
		if sum > most {
			at, most = time, sum
		}
		if len(bars) == end+1 {
			assert.InDelta(t, 64*float64(sum)/float64(p.ArenaBytes), bars[time].number(t, "height"), 0.01)
			assert.Contains(t, bars[time].title(), names(time))
		}
	}
	var peakX float64
	_, err := fmt.Sscanf(marks.all("path", "peak")[0].attrs["d"], "M%f ", &peakX)
	require.NoError(t, err)
	assert.InDelta(t, x+(float64(at)+0.5)*perTime, peakX, 0.02)
	assert.Contains(t, marks.all("text", "")[4].text, fmt.Sprintf("at time %d", at))

	// The partitions: a column for each, of its kind, that names its first and last op.
	columns := root.group(t, "columns").all("rect", "")
	if perTime >= 2 {
		require.Len(t, columns, len(p.Partitions))
		for k, part := range p.Partitions {
			class := map[PartitionKind]string{TokenSegment: "token", SeqSegment: "seq", DynamicOp: "dynamic", Views: "views"}[part.Kind]
			assert.Equal(t, class, columns[k].attrs["class"])
			assert.InDelta(t, x+float64(part.First+1)*perTime, columns[k].number(t, "x"), 0.01)
			assert.InDelta(t, float64(part.End-part.First)*perTime, columns[k].number(t, "width"), 0.01)
			assert.Contains(t, columns[k].title(), g.Nodes[part.First].Name)
			assert.Contains(t, columns[k].title(), g.Nodes[part.End-1].Name)
		}
	}

	// A label stays within a block that is named so.
	for _, label := range root.group(t, "labels").all("text", "") {
		var lx, ly float64
		half, turned := 0.5*5.7*float64(utf8.RuneCountInString(label.text)), false
		if _, err := fmt.Sscanf(label.attrs["transform"], "translate(%f,%f)", &lx, &ly); err == nil {
			turned = true
		} else {
			lx, ly = label.number(t, "x"), label.number(t, "y")
		}
		inside := false
		for _, d := range drawn {
			if turned {
				inside = inside || d.left <= lx && lx <= d.right && d.top <= ly-half && ly+half <= d.low
			} else {
				inside = inside || d.top <= ly && ly <= d.low && d.left <= lx-half && lx+half <= d.right
			}
		}
		assert.True(t, inside, label.text)
	}
}

func TestWriteSVG(t *testing.T) {
	p, _ := checkedPlan(t)
	checkPicture(t, p)
	for _, layers := range []int{1, 2, 24} {
		b := newBuild(t, 96, 8)
		llama(b, layers, 256, 768, 1000)
		checkPicture(t, b.plan(Options{Mode: ModeFullAndPiecewise}))
	}
	huge := newBuild(t, 1<<20, 64) // 40 GiB: beside them, 64 bytes have no height to speak of
	llama(huge, 1, 1024, 4096, 1000)
	checkPicture(t, huge.plan(Options{Mode: ModePiecewise, Buckets: []int64{1 << 20}}))
}

func TestWriteSVGOfRandomPlans(t *testing.T) {
	r := rand.New(rand.NewSource(20))
	for range 200 {
		g := randomGraph(t, r)
		require.NoError(t, g.Freeze())
		p, err := NewPlan(g, Options{Mode: ModePiecewise})
		require.NoError(t, err)
		checkPicture(t, p)
		if t.Failed() {
			return
		}
	}
}

func TestBlocksAreColouredByKind(t *testing.T) {
	p, _ := checkedPlan(t)
	root, _ := picture(t, p)
	classes := map[string]string{}
	for _, d := range drawnBlocks(t, root) {
		classes[strings.SplitN(d.title, "\n", 2)[0]] = d.class
	}
	assert.Equal(t, map[string]string{"input staging: x": "i", "activation: a#0": "a", "output of a dynamic op: d#2": "d", "workspace: d#2": "w",
		"activation: m#4": "a", "output staging: y": "o", "output staging: again": "o"}, classes)
	for _, d := range drawnBlocks(t, root) {
		if strings.HasPrefix(d.title, "activation: a#0") {
			assert.Contains(t, d.title, "holds a#0 → v#1 → n#3", "a view and what is written in place")
		}
	}
}

func TestPicturesOfHostileNames(t *testing.T) {
	b := newBuild(t, 4, 2)
	row := f32(tokens, 16)
	x, w := b.input(`<&">'`, row), b.input("a\xffb\x00\x1b[31m\tc\n", row)
	y := b.op(static("]]><!--", 2, row), x, w)
	y = b.op(dynamic("</title><script>", 1, CaptureNever, row), y)
	b.output("\uffff \u202e ✓", y)
	p := b.plan(Options{Mode: ModePiecewise})
	root, _ := picture(t, p) // which reads it
	var titles []string
	for _, d := range drawnBlocks(t, root) {
		titles = append(titles, strings.SplitN(d.title, "\n", 2)[0])
	}
	assert.ElementsMatch(t, []string{`input staging: <&">'`, "input staging: a�b��[31m�c�", "activation: ]]><!--#0",
		"output staging: � \u202e ✓"}, titles)

	var text bytes.Buffer
	require.NoError(t, p.WriteText(&text))
	assert.True(t, utf8.Valid(text.Bytes()))
	assert.NotContains(t, text.String(), "\x1b")
	assert.Contains(t, text.String(), "a�b��[31m�c�")
}

// widePlan has so many ops in a row, each with an output that the next one reads and scratch, and a lid over all of them
// that holds a value of each.
func widePlan(nodes int, name func(i int) string) *Plan {
	g := &Graph{Limits: Limits{MaxTokens: 8, MaxSeqs: 1}}
	p := &Plan{Graph: g, ArenaBytes: 64 + 3*4096, LowerBound: 64 + 3*4096}
	lid := Block{Name: name(0), Kind: BlockActivation, Offset: 3 * 4096, Bytes: 64, First: 1, Last: nodes}
	for i := range nodes {
		g.Nodes = append(g.Nodes, Node{Name: name(i), Kind: Static})
		g.Values = append(g.Values, ValueInfo{Name: name(i), Node: i})
		lid.Values = append(lid.Values, Value(i))
		kind := []PartitionKind{TokenSegment, DynamicOp}[i%2]
		p.Partitions = append(p.Partitions, Partition{Kind: kind, First: i, End: i + 1, Why: name(i)})
		p.Blocks = append(p.Blocks,
			Block{Name: name(i), Kind: BlockActivation, Offset: int64(i%2) * 4096, Bytes: 4096, First: i + 1, Last: min(i+2, nodes), Values: []Value{Value(i)}},
			Block{Name: name(i), Kind: BlockWorkspace, Offset: 2 * 4096, Bytes: 2048, First: i + 1, Last: i + 1})
	}
	p.Blocks = append(p.Blocks, lid)
	return p
}

func TestPicturesOfManyBlocksAreBounded(t *testing.T) {
	for name, e := range map[string]struct {
		most int
		name func(i int) string
	}{
		"ordinary names": {2 << 20, func(i int) string { return fmt.Sprintf("model.layers.%d.linear#%d", i/9, i) }},
		"hostile names":  {6 << 20, func(i int) string { return strings.Repeat(`"&`, 60) + strconv.Itoa(i) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := widePlan(50_000, e.name)
			root, size := picture(t, p)
			assert.Less(t, size, e.most)
			drawn := drawnBlocks(t, root)
			assert.Len(t, drawn, 2000)
			assert.Equal(t, 944, len(root.group(t, "columns").children), "53 of 50,002 times are the first to have 2 of 1,920 px")
			notes := root.all("text", "sub")
			note := notes[len(notes)-1].text
			assert.Contains(t, note, "the largest 2,000 of 100,001 blocks drawn one by one, the other 98,001 as shares of cells")
			assert.Regexp(t, `names of [\d,]+ values left out`, note)
			workspaces := 0
			for _, d := range drawn {
				if d.class == "w" {
					workspaces++
				}
			}
			assert.Zero(t, workspaces, "the smaller ones give way")

			// The cells are shaded as what they hold: half of what the workspaces could take, all of the rows below.
			shades := map[string]float64{}
			for _, path := range root.group(t, "rest").all("path", "") {
				for _, run := range strings.Split(path.attrs["d"], "M")[1:] {
					var x, y, w float64
					_, err := fmt.Sscanf(run, "%f %fh%f", &x, &y, &w)
					require.NoError(t, err)
					shades[path.attrs["stroke-opacity"]] += w
				}
			}
			var area float64
			for opacity, w := range shades {
				o, _ := strconv.ParseFloat(opacity, 64)
				area += o * w * 6
			}
			want := 0.0
			chosen := largest(p.Blocks, 2000)
			for i, b := range p.Blocks {
				if !chosen[i] {
					want += 1920 / 50_002.0 * float64(b.Last-b.First+1) * 420 / float64(p.ArenaBytes) * float64(b.Bytes)
				}
			}
			assert.InEpsilon(t, want, area, 0.05)

			var text bytes.Buffer
			p.sketch(&text)
			assert.Less(t, text.Len(), 4096)
		})
	}
}

func TestPicturesOfNothing(t *testing.T) {
	p := &Plan{Graph: &Graph{Limits: Limits{MaxTokens: 1, MaxSeqs: 1}}}
	root, _ := picture(t, p)
	assert.Empty(t, drawnBlocks(t, root))
	assert.Contains(t, root.children[0].text, "0 bytes")
	var text bytes.Buffer
	require.NoError(t, p.WriteText(&text))
	assert.Contains(t, text.String(), "peak 0 bytes at time 0")
}

func BenchmarkWriteSVG(b *testing.B) {
	for _, nodes := range []int{5_000, 50_000, 500_000} {
		p := widePlan(nodes, func(i int) string { return fmt.Sprintf("linear#%d", i) })
		b.Run(fmt.Sprintf("blocks=%d", len(p.Blocks)), func(b *testing.B) {
			var out bytes.Buffer
			for b.Loop() {
				out.Reset()
				_ = p.WriteSVG(&out)
			}
			b.ReportMetric(float64(out.Len())/1024, "KiB")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(p.Blocks)), "ns/block")
		})
	}
}
