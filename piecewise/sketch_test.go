package piecewise

import (
	"bytes"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSketchByHand: 14 rows of 64 bytes; 4 times, so 22 columns each.
func TestSketchByHand(t *testing.T) {
	g := &Graph{Limits: Limits{MaxTokens: 1, MaxSeqs: 1}, Nodes: []Node{{Name: "a", Kind: Static}, {Name: "b", Kind: Dynamic}},
		Values: []ValueInfo{{Name: "x", Node: -1}, {Name: "a", Node: 0}, {Name: "b", Node: 1}}}
	p := &Plan{Graph: g, ArenaBytes: 14 * 64, LowerBound: 12 * 64,
		Partitions: []Partition{{Kind: TokenSegment, First: 0, End: 1}, {Kind: DynamicOp, First: 1, End: 2}},
		Blocks: []Block{
			{Kind: BlockInput, Name: "x", Offset: 0, Bytes: 128, First: 0, Last: 1, Values: []Value{0}},
			{Kind: BlockActivation, Name: "a", Offset: 128, Bytes: 256, First: 1, Last: 2, Values: []Value{1}},
			{Kind: BlockActivation, Name: "b", Offset: 384, Bytes: 257, First: 2, Last: 3, Values: []Value{2}},
			{Kind: BlockWorkspace, Name: "b", Offset: 0, Bytes: 100, First: 2, Last: 2},
			{Kind: BlockOutput, Name: "y", Offset: 832, Bytes: 64, First: 3, Last: 3},
		}}
	var out bytes.Buffer
	p.sketch(&out)
	cell := func(s string) string { // each character for the columns of one time
		var line strings.Builder
		for _, r := range s {
			line.WriteString(strings.Repeat(string(r), 22))
		}
		return line.String()
	}
	var want strings.Builder
	want.WriteString("\narena: time across, offset up\n")
	for i, row := range []string{"   o", "", "", "  dd", "  dd", "  dd", "  dd", "  dd", " ##", " ##", " ##", " ##", "iiw", "iiw"} {
		label := map[int]string{0: "896 bytes", 13: "0"}[i]
		fmt.Fprintf(&want, "%s\n", strings.TrimRight(fmt.Sprintf("%10s |%s", label, cell(row)), " "))
	}
	fmt.Fprintf(&want, "       ops  %s\n", strings.TrimRight(cell(" =*"), " "))
	fmt.Fprintf(&want, "%12s%s^ peak 704 bytes at time 2\n", "", strings.Repeat(" ", 44)) // 4 + 5 + 2 cells of 64 bytes
	assert.Equal(t, want.String(), strings.Split(out.String(), "\n\n  #")[0]+"\n")
}

func TestSketchesFitATerminal(t *testing.T) {
	r := rand.New(rand.NewSource(21))
	check := func(p *Plan) {
		var out bytes.Buffer
		p.sketch(&out)
		lines := strings.Split(out.String(), "\n")
		at, most := p.Peak()
		marks := 0
		for _, line := range lines {
			require.LessOrEqual(t, len(line), 100, line)
			require.Equal(t, strings.TrimRight(line, " "), line)
			for _, c := range []byte(line) {
				require.True(t, ' ' <= c && c <= '~', "%q", line)
			}
			if c := strings.IndexByte(line, '^'); c >= 0 { // below the columns of its time
				marks++
				cols := min(p.times(), 88)
				cols *= 88 / cols
				require.Equal(t, at*cols/p.times(), c-12)
				require.Contains(t, line, fmt.Sprintf("peak %s at time %d", human(most), at))
			}
		}
		require.Equal(t, 1, marks)
	}
	for range 200 {
		g := randomGraph(t, r)
		require.NoError(t, g.Freeze())
		p, err := NewPlan(g, Options{Mode: ModePiecewise})
		require.NoError(t, err)
		check(p)
	}
	for _, layers := range []int{1, 2, 3, 4, 40} {
		b := newBuild(t, 4096, 64)
		llama(b, layers, 512, 2048, 1000)
		check(b.plan(Options{Mode: ModeFullAndPiecewise}))
	}
	check(widePlan(5000, func(i int) string { return fmt.Sprintf("\x1b[%dm\n", i) }))
}

// TestRaster: what cells hold adds up to the blocks, whatever the grid; and no cell is more than full.
func TestRaster(t *testing.T) {
	r := rand.New(rand.NewSource(22))
	for range 100 {
		g := randomGraph(t, r)
		require.NoError(t, g.Freeze())
		p, err := NewPlan(g, Options{Mode: ModePiecewise})
		require.NoError(t, err)
		cols, rows := 1+r.Intn(50), 1+r.Intn(50)
		var sums, want [numLooks]float64
		for _, cell := range p.raster(cols, rows, func(int) bool { return true }) {
			var used float64
			for k, share := range cell {
				sums[k] += share
				used += share
			}
			require.LessOrEqual(t, used, 1+1e-9)
		}
		for i := range p.Blocks {
			b := &p.Blocks[i]
			area := float64((max(b.Bytes, 1)+63)/64*64) * float64(b.Last-b.First+1)
			want[p.look(b)] += area / float64(p.ArenaBytes) / float64(len(g.Nodes)+2) * float64(cols*rows)
		}
		for k := range want {
			require.InDelta(t, want[k], sums[k], 1e-6)
		}
	}
}

func TestAmountsAndNames(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB (1,024 bytes)", 270784: "264.4 KiB (270,784 bytes)",
		1<<30 + 1<<29: "1.5 GiB (1,610,612,736 bytes)", 1 << 62: "4 EiB (4,611,686,018,427,387,904 bytes)"} {
		assert.Equal(t, want, exact(bytes))
	}
	assert.Equal(t, "linear#3", short("adcg.linear#3"))
	assert.Equal(t, "pair#3.1", short("adcg.pair#3.1"))
	assert.Equal(t, "model.layers.0.x", short("model.layers.0.x"))
	assert.Equal(t, "atten…#11", clipName("attention#11", 9))
	assert.Equal(t, "attention#11", clipName("attention#11", 12))
	assert.Equal(t, "logi…", clipName("logits_of_all", 5))
	assert.Equal(t, "atte…", clipName("attention#1234", 5), "no room for its number")
	assert.Equal(t, "1 block", count(1, "block"))
	assert.Equal(t, "2,000 blocks", count(2000, "block"))
}
