package piecewise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// The report's field names are stable: tools read them. Sizes and offsets are in bytes; node i runs at time i+1.
type planReport struct {
	Version         int               `json:"version"`
	Limits          limitsReport      `json:"limits"`
	Mode            string            `json:"mode"`
	QueryLen        int64             `json:"query_len"`
	CaptureSupport  string            `json:"capture_support"`
	MixedCapacity   int64             `json:"mixed_capacity"`
	Buckets         []int64           `json:"buckets"`
	SeqBuckets      []int64           `json:"seq_buckets"`
	ArenaBytes      int64             `json:"arena_bytes"`
	LowerBoundBytes int64             `json:"lower_bound_bytes"`
	GapBytes        int64             `json:"gap_bytes"`
	BucketSumBytes  int64             `json:"bucket_sum_bytes"`
	StagingBytes    int64             `json:"staging_bytes"`
	WorkspaceBytes  int64             `json:"workspace_bytes"`
	NumSegments     int               `json:"num_segments"`
	NumDynamicOps   int               `json:"num_dynamic_ops"`
	Peak            peakReport        `json:"peak"`
	Partitions      []partitionReport `json:"partitions"`
	Nodes           []nodeReport      `json:"nodes"`
	Values          []valueReport     `json:"values"`
	Blocks          []blockReport     `json:"blocks"`
	Layout          string            `json:"layout"`
	Layouts         []layoutReport    `json:"layouts"`
	MainLayout      int               `json:"main_layout"`
	Copies          []copyReport      `json:"copies"`
	Units           []unitReport      `json:"units"`
	Notes           []string          `json:"notes"`
}

type limitsReport struct {
	MaxTokens int64 `json:"max_tokens"`
	MaxSeqs   int64 `json:"max_seqs"`
	MaxSeqLen int64 `json:"max_seq_len"`
}

type peakReport struct {
	Time  int           `json:"time"`
	Bytes int64         `json:"bytes"`
	Live  []blockReport `json:"live"`
}

type partitionReport struct {
	Kind  string   `json:"kind"`
	First int      `json:"first"`
	End   int      `json:"end"`
	Why   string   `json:"why"`
	Nodes []string `json:"nodes"`
}

type nodeReport struct {
	Name            string   `json:"name"`
	Op              string   `json:"op"`
	Kind            string   `json:"kind"`
	Capture         string   `json:"capture"`
	Inputs          []string `json:"inputs"`
	Outputs         []string `json:"outputs"`
	WorkspaceOffset int64    `json:"workspace_offset"`
	WorkspaceBytes  int64    `json:"workspace_bytes"`
	Runs            bool     `json:"runs"` // not if all its outputs only show an input
}

type valueReport struct {
	Name   string `json:"name"`
	Role   string `json:"role"`
	Type   string `json:"type"`
	Place  string `json:"place"`
	Index  int    `json:"index"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	First  int    `json:"first"`
	Last   int    `json:"last"`

	Strides []int64 `json:"strides"` // in elements; none: compact
}

type blockReport struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Offset int64    `json:"offset"`
	Bytes  int64    `json:"bytes"`
	First  int      `json:"first"`
	Last   int      `json:"last"`
	Values []string `json:"values"`
}

// layoutReport is where the blocks lie in the steps that one layout serves; blocks' own offsets are those of the main one.
type layoutReport struct {
	MaxTokens       int64   `json:"max_tokens"`
	HeightBytes     int64   `json:"height_bytes"`
	LowerBoundBytes int64   `json:"lower_bound_bytes"`
	Offsets         []int64 `json:"offsets"`
}

type copyReport struct {
	Value  string `json:"value"`
	Output string `json:"output"`
}

type unitReport struct {
	Mode   string `json:"mode"`
	Tokens int64  `json:"tokens"`
	Seqs   int64  `json:"seqs"`
}

// Peak is the first time at which the most is live in the main layout, and how many aligned bytes that is.
func (p *Plan) Peak() (time int, bytes int64) {
	for t, now := range p.live() {
		if now > bytes {
			time, bytes = t, now
		}
	}
	return time, bytes
}

// LargestWorkspace is the most bytes of scratch that one node has.
func (p *Plan) LargestWorkspace() int64 {
	var most int64
	for _, b := range p.WorkspaceBytes {
		most = max(most, b)
	}
	return most
}

func (p *Plan) report() *planReport {
	g := p.Graph
	l := g.Limits
	r := &planReport{
		Version: 1, Limits: limitsReport(l), Mode: p.Options.Mode.String(), QueryLen: p.Options.QueryLen,
		CaptureSupport: g.Support().String(), MixedCapacity: MixedCapacity(l), Buckets: p.Buckets, SeqBuckets: p.SeqBuckets,
		ArenaBytes: p.ArenaBytes, LowerBoundBytes: p.LowerBound, GapBytes: p.ArenaBytes - p.LowerBound, BucketSumBytes: p.BucketSum,
		StagingBytes: p.StagingBytes, WorkspaceBytes: p.LargestWorkspace(), NumSegments: p.NumSegments, NumDynamicOps: p.NumDynamic,
		Partitions: []partitionReport{}, Nodes: []nodeReport{}, Values: []valueReport{}, Blocks: []blockReport{}, Copies: []copyReport{},
		Units: []unitReport{}, Notes: []string{}, Layout: p.Options.Layout.String(), Layouts: []layoutReport{}, MainLayout: p.Main,
	}
	for _, l := range p.Layouts {
		r.Layouts = append(r.Layouts, layoutReport{l.MaxTokens, l.Height, l.LowerBound, append([]int64{}, l.Offsets...)})
	}
	names := func(list []Value) []string {
		out := make([]string, len(list))
		for i, v := range list {
			out[i] = g.Values[v].Name
		}
		return out
	}
	for _, part := range p.Partitions {
		pr := partitionReport{Kind: part.Kind.String(), First: part.First, End: part.End, Why: part.Why}
		for i := part.First; i < part.End; i++ {
			pr.Nodes = append(pr.Nodes, g.Nodes[i].Name)
		}
		r.Partitions = append(r.Partitions, pr)
	}
	for i, n := range g.Nodes {
		scratch := int64(0)
		if k := p.WorkspaceBlock[i]; k >= 0 {
			scratch = p.Blocks[k].Offset
		}
		r.Nodes = append(r.Nodes, nodeReport{n.Name, n.Schema.Name, n.Kind.String(), n.Capture.String(), names(n.Inputs), names(n.Outputs),
			scratch, p.WorkspaceBytes[i], p.Runs[i]})
		if n.Note != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("op `%s` is static and runs as a dynamic one: %s", n.Name, n.Note))
		}
	}
	need := findLifetimes(g, findShares(g), false).need
	for v, info := range g.Values {
		s := p.Storage[v]
		vr := valueReport{Name: info.Name, Role: info.Role.String(), Type: info.Type.String(), Place: s.Place.String(), Index: s.Index,
			Offset: s.Offset, Strides: []int64{}, Bytes: info.Type.Bytes(l.MaxTokens, l.MaxSeqs), First: info.Node + 1, Last: int(need[v])}
		if s.Place == PlaceArena {
			vr.Offset += p.Blocks[s.Index].Offset
		}
		if s.Strides != (Strides{}) {
			vr.Strides = s.Strides[:len(info.Type.Dims)]
		}
		if s.Place == PlaceBound {
			vr.Last = max(vr.Last, len(g.Nodes)+1) // it is the caller's, and stays
		}
		r.Values = append(r.Values, vr)
	}
	at, bytes := p.Peak()
	r.Peak = peakReport{Time: at, Bytes: bytes, Live: []blockReport{}}
	for _, b := range p.Blocks {
		br := blockReport{b.Kind, b.Name, b.Offset, b.Bytes, b.First, b.Last, names(b.Values)}
		r.Blocks = append(r.Blocks, br)
		if b.First <= at && at <= b.Last {
			r.Peak.Live = append(r.Peak.Live, br)
		}
	}
	for _, c := range p.Copies {
		r.Copies = append(r.Copies, copyReport{g.Values[c.Value].Name, g.Outputs[c.Output].Name})
	}
	for _, u := range p.Units {
		r.Units = append(r.Units, unitReport{u.Mode.String(), u.Tokens, u.Seqs})
	}
	return r
}

// WriteJSON writes the plan as one JSON object. An error of w's is returned as it is.
func (p *Plan) WriteJSON(w io.Writer) error {
	data, err := json.MarshalIndent(p.report(), "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// WriteText writes the plan for a terminal: a sketch of the arena, and tables. An error of w's is returned as it is.
func (p *Plan) WriteText(w io.Writer) error {
	r := p.report()
	var out bytes.Buffer
	table := func(title string, columns string, rows func(row func(cells ...any))) {
		fmt.Fprintf(&out, "\n%s\n", title)
		var cells bytes.Buffer
		tw := tabwriter.NewWriter(&cells, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "  "+strings.ReplaceAll(columns, " ", "\t"))
		rows(func(cells ...any) {
			text := make([]string, len(cells))
			for i, c := range cells {
				text[i] = plain(fmt.Sprint(c))
			}
			fmt.Fprintln(tw, "  "+strings.Join(text, "\t"))
		})
		tw.Flush()
		for line := range strings.Lines(cells.String()) {
			fmt.Fprintln(&out, strings.TrimRight(line, " \n"))
		}
	}
	at := func(first, last int) string { return fmt.Sprintf("%d..%d", first, last) }

	fmt.Fprintf(&out, "plan for %d tokens, %d sequences, mode %s, capture support %s\n", r.Limits.MaxTokens, r.Limits.MaxSeqs, r.Mode, r.CaptureSupport)
	fmt.Fprintf(&out, "buckets %v, sequence buckets %v\n", r.Buckets, r.SeqBuckets)
	p.sketch(&out)
	table("memory", "what bytes about", func(row func(...any)) {
		amount := func(what string, bytes int64) { row(what, bytes, human(bytes)) }
		amount("arena", r.ArenaBytes)
		amount("lower bound", r.LowerBoundBytes)
		amount("gap", r.GapBytes)
		amount("staging, of the arena", r.StagingBytes)
		amount("largest workspace", r.WorkspaceBytes)
		amount("sum over buckets", r.BucketSumBytes)
	})
	if len(r.Layouts) > 1 {
		table("layouts, above and below is the one marked", "tokens height bound main", func(row func(...any)) {
			for k, x := range r.Layouts {
				mark := ""
				if k == r.MainLayout {
					mark = "*"
				}
				row(fmt.Sprintf("<=%d", x.MaxTokens), x.HeightBytes, x.LowerBoundBytes, mark)
			}
		})
	}
	table(fmt.Sprintf("partitions: %d segments, %d dynamic ops", r.NumSegments, r.NumDynamicOps), "kind nodes first last why", func(row func(...any)) {
		for _, x := range r.Partitions {
			row(x.Kind, at(x.First, x.End-1), x.Nodes[0], x.Nodes[len(x.Nodes)-1], x.Why)
		}
	})
	table(fmt.Sprintf("arena, peak %d bytes at time %d", r.Peak.Bytes, r.Peak.Time), "time offset bytes kind name peak values", func(row func(...any)) {
		for _, x := range r.Blocks {
			mark := ""
			if x.First <= r.Peak.Time && r.Peak.Time <= x.Last {
				mark = "*"
			}
			row(at(x.First, x.Last), x.Offset, x.Bytes, x.Kind, x.Name, mark, strings.Join(x.Values, " "))
		}
	})
	table("values", "name role type place offset bytes time", func(row func(...any)) {
		for _, x := range r.Values {
			place := x.Place
			if place != PlaceArena.String() {
				place = fmt.Sprintf("%s %d", place, x.Index)
			}
			row(x.Name, x.Role, x.Type, place, x.Offset, x.Bytes, at(x.First, x.Last))
		}
	})
	if len(r.Copies) > 0 {
		table("copies behind the last op", "value output", func(row func(...any)) {
			for _, x := range r.Copies {
				row(x.Value, x.Output)
			}
		})
	}
	table("captured sizes", "mode tokens seqs", func(row func(...any)) {
		for _, x := range r.Units {
			row(x.Mode, x.Tokens, x.Seqs)
		}
	})
	if len(r.Notes) > 0 {
		fmt.Fprintf(&out, "\nnotes\n  %s\n", strings.Join(r.Notes, "\n  "))
	}
	_, err := w.Write(out.Bytes())
	return err
}
