package host_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

// placed is a tensor that lies in the middle of a larger one, whose other bytes nobody may touch.
type placed struct {
	host.Tensor
	base    uintptr
	size    int
	offsets []int64 // in bytes from base, of every element in order
}

const untouched = 0xA5

// place puts a compact tensor's bytes into memory with pad[d] elements before and behind along dim d.
func place(dtype piecewise.DType, dims, pad []int64, content []byte) *placed {
	n, size := len(dims), dtype.Size()
	strides := make([]int64, n)
	whole := int64(1)
	start := int64(0)
	for d := n - 1; d >= 0; d-- {
		strides[d] = whole
		start += pad[d] * whole
		whole *= dims[d] + 2*pad[d]
	}
	memory := host.Alloc(int(whole * size))
	for i := range memory {
		memory[i] = untouched
	}
	p := &placed{base: host.Address(memory), size: len(memory), offsets: make([]int64, count(dims))}
	p.Tensor = host.Tensor{DType: dtype, Dims: dims, Strides: strides, Address: p.base + uintptr(start*size)}
	if !slices.ContainsFunc(pad, func(k int64) bool { return k > 0 }) {
		p.Strides = nil
	}
	for i := range p.offsets {
		rest, at := int64(i), start
		for d := n - 1; d >= 0; d-- {
			at += rest % dims[d] * strides[d]
			rest /= dims[d]
		}
		p.offsets[i] = at * size
		copy(memory[at*size:(at+1)*size], content[int64(i)*size:])
	}
	return p
}

// take gives the tensor's bytes, compact, and frees its memory. It fails if a byte around the tensor was written.
func (p *placed) take(t *testing.T, what string) []byte {
	t.Helper()
	defer host.FreeAddress(p.base)
	memory, size := host.Bytes(p.base, p.size), p.DType.Size()
	var content []byte
	for _, at := range p.offsets {
		content = append(content, memory[at:at+size]...)
		copy(memory[at:at+size], bytes.Repeat([]byte{untouched}, int(size)))
	}
	for i, b := range memory {
		if b != untouched {
			require.Failf(t, "written outside of the tensor", "byte %d; %s", i, what)
		}
	}
	return content
}

func (a *array) bytes() []byte {
	t := a.up()
	defer release(t)
	return slices.Clone(host.Bytes(t.Address, int(count(a.dims)*a.dtype.Size())))
}

// stridedCase is one call of an op, whose tensors are all compact in it.
type stridedCase struct {
	op     string
	attrs  []piecewise.Attr
	inputs []*array
	output *array
	batch  host.Batch
	more   []*array // further outputs
}

func (c *stridedCase) outputs() []*array {
	return append([]*array{c.output}, c.more...)
}

// tensors gives the inputs, then the outputs.
func (c *stridedCase) tensors() []*array { return append(slices.Clone(c.inputs), c.outputs()...) }

// run gives the bytes of the outputs and of all inputs afterwards. Pads are per tensor, the outputs last; nil: compact.
// An output that is `over` an input has its memory, and that input is left out.
func (c *stridedCase) run(t *testing.T, pool uintptr, pads [][]int64, over map[int]int, what string) [][]byte {
	t.Helper()
	all := make([]*placed, len(c.inputs)+len(c.outputs()))
	for i, a := range c.tensors() {
		if input, ok := over[i-len(c.inputs)]; ok && i >= len(c.inputs) {
			all[i] = all[input]
			continue
		}
		pad := make([]int64, len(a.dims))
		if i < len(pads) && pads[i] != nil {
			pad = pads[i]
		}
		all[i] = place(a.dtype, a.dims, pad, a.bytes())
	}
	var tensors []host.Tensor
	for _, p := range all {
		tensors = append(tensors, p.Tensor)
	}
	n := len(c.inputs)
	require.NoError(t, host.Launch(c.op, pool, complete(c.op, c.attrs), tensors[:n], tensors[n:], c.batch), what)
	var results [][]byte
	for _, p := range all[n:] {
		results = append(results, p.take(t, what))
	}
	for i, p := range all[:n] {
		if !slices.Contains(all[n:], p) {
			results = append(results, p.take(t, what))
		} else {
			results = append(results, c.inputs[i].bytes())
		}
	}
	return results
}

func stridedCases(rng *rand.Rand, dtype piecewise.DType) []stridedCase {
	const rows = 37
	other := map[piecewise.DType]piecewise.DType{piecewise.F32: piecewise.BF16, piecewise.BF16: piecewise.F32}[dtype]
	r := func(dims ...int64) *array { return random(rng, dtype, dims...) }
	decode := host.Batch{DecodeSeqs: rows}
	index := make([]int32, rows)
	for i := range index {
		index[i] = int32(rng.IntN(rows))
	}
	rope := []piecewise.Attr{float("theta", 10000), integer("rotary_dim", 12), str("scaling", "none"), float("factor", 1)}
	pairs := indexRows(rows, 3)
	for i := range pairs.i {
		pairs.i[i] = int32(rng.IntN(4))
	}
	mixture := func(activation string, gated bool) []piecewise.Attr {
		return []piecewise.Attr{str("activation", activation), boolean("gated", gated)}
	}
	cases := []stridedCase{
		{"adcg.embedding", []piecewise.Attr{str("dtype", other.String())}, []*array{ints(index...), r(rows, 20)}, random(rng, other, rows, 20), decode, nil},
		{"adcg.embedding", []piecewise.Attr{str("dtype", "")}, []*array{ints(index...), r(rows, 20)}, r(rows, 20), decode, nil},
		{"adcg.linear", nil, []*array{r(rows, 50), r(33, 50), r(33)}, r(rows, 33), decode, nil},
		{"adcg.linear", nil, []*array{r(200, 3, 50), random(rng, other, 300, 150)}, r(200, 300), host.Batch{DecodeSeqs: 200}, nil},
		{"adcg.linear", nil, []*array{r(3, 2, 5, 1000), random(rng, other, 9, 10000)}, r(3, 9), host.Batch{DecodeSeqs: 3}, nil},
		{"adcg.rms_norm", []piecewise.Attr{float("eps", 1e-5)}, []*array{r(rows, 40), r(40)}, r(rows, 40), decode, nil},
		{"adcg.rms_norm", []piecewise.Attr{float("eps", 1e-5)}, []*array{r(rows, 3, 21), r(21)}, r(rows, 3, 21), decode, nil},
		{"adcg.rope", rope, []*array{r(rows, 3, 20), ints(index...)}, r(rows, 3, 20), decode, nil},
		{"adcg.gather_tokens", nil, []*array{r(rows, 3, 5), ints(index...)}, r(rows, 3, 5), decode, nil},
		{"adcg.gather_tokens", nil, []*array{r(rows, 9), ints(index...)}, r(rows, 9), decode, nil},
		{"adcg.argmax", nil, []*array{r(rows, 19)}, ints(make([]int32, rows)...), decode, nil},
		{"adcg.slice", []piecewise.Attr{integer("axis", -1), integer("start", 2), integer("length", 3)}, []*array{r(rows, 3, 7)}, r(rows, 3, 3), decode, nil},
		{"adcg.slice", []piecewise.Attr{integer("axis", 1), integer("start", 1), integer("length", 0)}, []*array{r(rows, 3, 7)}, r(rows, 2, 7), decode, nil},
		{"adcg.concat", []piecewise.Attr{integer("axis", 1)}, []*array{r(rows, 3, 7), r(rows, 1, 7), r(rows, 2, 7)}, r(rows, 6, 7), decode, nil},
		{"adcg.moe_router", []piecewise.Attr{str("scoring", "softmax"), integer("top_k", 3), integer("n_group", 1), integer("topk_group", 1),
			boolean("norm_topk_prob", true), float("routed_scaling_factor", 2)}, []*array{r(rows, 20), r(20)}, filled(piecewise.F32, 0, rows, 3), decode, []*array{indexRows(rows, 3)}},
		{"adcg.moe", mixture("silu", true), []*array{r(rows, 40), random(rng, piecewise.F32, rows, 3), pairs, r(4, 50, 40), r(4, 40, 25)}, r(rows, 40), decode, nil},
		{"adcg.moe", mixture("relu2", false), []*array{r(rows, 600), random(rng, piecewise.F32, rows, 3), pairs, r(4, 25, 600), r(4, 600, 25)}, r(rows, 600), decode, nil},
	}
	gated := func(gate string, groups int64) []piecewise.Attr {
		return []piecewise.Attr{integer("groups", groups), str("gate", gate)}
	}
	cases = append(cases,
		stridedCase{"adcg.linear", []piecewise.Attr{str("activation", "gelu")}, []*array{r(rows, 3, 50), r(33, 150)}, r(rows, 33), decode, nil},
		stridedCase{"adcg.rms_norm", gated("before", 4), []*array{r(rows, 3, 28), random(rng, other, 28), r(rows, 3, 28)}, r(rows, 3, 28), decode, nil},
		stridedCase{"adcg.rms_norm", gated("after", 1), []*array{r(rows, 3, 28), r(28), r(rows, 3, 28)}, r(rows, 3, 28), decode, nil},
		stridedCase{"adcg.rms_norm", gated("before", 1), []*array{r(rows, 70), r(70), r(rows, 70)}, r(rows, 70), decode, nil},
		stridedCase{"adcg.layer_norm", nil, []*array{r(rows, 3, 21), r(21), random(rng, other, 21)}, r(rows, 3, 21), decode, nil},
		stridedCase{"adcg.add_rms_norm", nil, []*array{r(rows, 40), r(rows, 40), r(40)}, r(rows, 40), decode, []*array{r(rows, 40)}},
		stridedCase{"adcg.add_rms_norm", nil, []*array{r(rows, 3, 17), r(rows, 3, 17), r(17)}, r(rows, 3, 17), decode, []*array{r(rows, 3, 17)}},
		stridedCase{"adcg.qk_norm", nil, []*array{r(rows, 4, 24), r(rows, 2, 24), r(24), random(rng, other, 24)}, r(rows, 4, 24), decode, []*array{r(rows, 2, 24)}},
		stridedCase{"adcg.softmax", nil, []*array{r(rows, 3, 21)}, r(rows, 3, 21), decode, nil},
		stridedCase{"adcg.softmax", nil, []*array{r(rows, 700)}, r(rows, 700), decode, nil},
		stridedCase{"adcg.sample", []piecewise.Attr{integer("top_k", 20), float("top_p", 0.9)}, []*array{r(rows, 300), uniforms(rng, rows)}, ints(make([]int32, rows)...), decode, nil},
		stridedCase{"adcg.mul", nil, []*array{r(rows, 35), r(rows, 1)}, r(rows, 35), decode, nil},
		stridedCase{"adcg.sigmoid_mul", nil, []*array{r(rows, 3, 35), r(rows, 3, 1)}, r(rows, 3, 35), decode, nil},
		stridedCase{"adcg.cast", []piecewise.Attr{str("dtype", other.String())}, []*array{r(rows, 3, 35)}, random(rng, other, rows, 3, 35), decode, nil},
		stridedCase{"adcg.cast", []piecewise.Attr{str("dtype", dtype.String())}, []*array{r(300, 70)}, r(300, 70), decode, nil},
	)
	for _, layout := range []string{"gptj", "interleaved"} {
		attrs := []piecewise.Attr{integer("rotary_dim", 14), str("layout", layout)}
		cases = append(cases, stridedCase{"adcg.rope", attrs, []*array{r(rows, 3, 20), ints(index...)}, r(rows, 3, 20), decode, nil})
	}
	for _, op := range []string{"adcg.silu", "adcg.relu2", "adcg.sigmoid"} {
		cases = append(cases, stridedCase{op, nil, []*array{r(rows, 3, 35)}, r(rows, 3, 35), decode, nil})
	}
	for _, op := range []string{"adcg.add", "adcg.mul", "adcg.silu_mul", "adcg.gelu_mul", "adcg.sigmoid_mul"} {
		for _, dims := range [][]int64{{rows, 35}, {rows, 3, 16}, {300, 70}, {1, 40}} {
			cases = append(cases, stridedCase{op, nil, []*array{r(dims...), r(dims...)}, r(dims...), host.Batch{DecodeSeqs: dims[0]}, nil})
		}
	}
	for _, kv := range []int64{1, 2} { // 3 sequences, at positions of their own
		caches := []*array{random(rng, other, 4, 64, kv, 24), random(rng, other, 4, 64, kv, 20)}
		cases = append(cases,
			stridedCase{"adcg.attention", []piecewise.Attr{float("scale", 0), integer("window", 0), float("softcap", 0)},
				append([]*array{r(rows, 4, 24), r(rows, kv, 24), r(rows, kv, 20)}, append(caches, ints(0, 30, 31, rows), ints(0, 9, 4), ints(2, 0, 3))...),
				r(rows, 4, 20), host.Batch{PrefillSeqs: 2, PrefillTokens: rows - 1, DecodeSeqs: 1}, nil})
	}
	mla := []*array{r(rows, 3, 24), r(rows, 3, 12), r(rows, 20), r(rows, 12), random(rng, other, 3*(24+17), 20)}
	batch, lengths, at := host.Batch{PrefillSeqs: 2, PrefillTokens: rows - 1, DecodeSeqs: 1}, ints(0, 30, 36, rows), ints(0, 9, 4)
	pages := []*array{lengths, at, ints(0, 2, 3, 4), ints(7, 3, 0, 1), ints(14, 15, 5)}
	cases = append(cases,
		stridedCase{"adcg.paged_attention", []piecewise.Attr{float("scale", 0), integer("window", 0), float("softcap", 0)},
			append([]*array{r(rows, 4, 24), r(rows, 2, 24), r(rows, 2, 20), random(rng, other, 8, 16, 2, 24), random(rng, other, 8, 16, 2, 20)}, pages...),
			r(rows, 4, 20), batch, nil},
		stridedCase{"adcg.mla_attention", []piecewise.Attr{float("scale", 0)},
			append(slices.Clone(mla), random(rng, other, 4, 64, 32), lengths, at, ints(2, 0, 3)), r(rows, 3, 17), batch, nil},
		stridedCase{"adcg.paged_mla_attention", []piecewise.Attr{float("scale", 0)},
			append(append(slices.Clone(mla), random(rng, other, 8, 16, 32)), pages...), r(rows, 3, 17), batch, nil})
	return append(cases, sequenceStrided(rng, dtype)...)
}

// overs gives every way to write outputs over inputs: each alias alone, and each two of different outputs and inputs.
func overs(aliases []piecewise.Alias, c *stridedCase) []map[int]int {
	var all []map[int]int
	for i, a := range aliases {
		if a.Kind != piecewise.AliasInPlace || a.Input >= len(c.inputs) || count(c.inputs[a.Input].dims) != count(c.outputs()[a.Output].dims) {
			continue
		}
		all = append(all, map[int]int{a.Output: a.Input})
		for _, b := range aliases[:i] {
			if b.Output != a.Output && b.Input != a.Input {
				all = append(all, map[int]int{a.Output: a.Input, b.Output: b.Input})
			}
		}
	}
	return all
}

// uniforms gives numbers from 0 to below 1.
func uniforms(rng *rand.Rand, n int64) *array {
	u := filled(piecewise.F32, 0, n)
	for i := range u.f {
		u.f[i] = rng.Float32()
	}
	return u
}

// TestStrides compares every op that takes strides, in every place that its schema names, with itself over compact
// tensors, which other tests compare with references.
func TestStrides(t *testing.T) {
	names := isas(t)
	pool := host.NewPool(2)
	defer host.FreePool(pool)
	met := map[string]bool{}
	paddings := map[int][][]int64{2: {{0, 3}}, 3: {{0, 1, 0}, {0, 0, 5}, {0, 2, 3}}, 4: {{0, 0, 0, 3}, {0, 1, 2, 0}, {0, 1, 1, 1}}}
	for _, dtype := range floats {
		for _, c := range stridedCases(rand.New(rand.NewPCG(21, 22)), dtype) {
			s := schemas[c.op]
			met[c.op] = true
			want := c.run(t, 0, make([][]int64, len(c.tensors())), nil, c.op)
			var may []int // the tensors that may have strides, the outputs last
			for i := range c.inputs {
				if s.StridedInputs>>i&1 != 0 {
					may = append(may, i)
				}
			}
			for k := range c.outputs() {
				if s.StridedOutputs>>k&1 != 0 {
					may = append(may, len(c.inputs)+k)
				}
			}
			require.NotEmpty(t, may, c.op)
			dims := func(i int) []int64 { return c.tensors()[i].dims }
			for which := 0; which <= len(may); which++ { // one alone, then all
				for variant := range 3 {
					pads := make([][]int64, len(c.tensors()))
					for j, i := range may {
						if list := paddings[len(dims(i))]; list != nil && (which == j || which == len(may)) {
							pads[i] = list[variant%len(list)]
						}
					}
					for _, isa := range names {
						require.NoError(t, host.SetISA(isa))
						for _, threads := range []uintptr{0, pool} {
							what := fmt.Sprintf("%s %v of %v on %s, pads %v", c.op, dtype, dims(0), isa, pads)
							require.Equal(t, want, c.run(t, threads, pads, nil, what), what)
						}
						for _, over := range overs(s.Aliases, &c) {
							what := fmt.Sprintf("%s %v of %v over %v on %s, pads %v", c.op, dtype, dims(0), over, isa, pads)
							require.Equal(t, want, c.run(t, pool, pads, over, what), what)
						}
					}
				}
			}
			require.NoError(t, host.SetISA(""))
		}
	}
	for name, s := range schemas {
		require.Equal(t, s.StridedInputs|s.StridedOutputs != 0, met[name], "%s declares strides, and no case has any", name)
	}
}

// TestRowsInPieces wants a clear refusal of the one row that linear cannot put together.
func TestRowsInPieces(t *testing.T) {
	x, w := filled(piecewise.F32, 1, 1, 2, 20000), filled(piecewise.F32, 1, 1, 40000)
	p := place(x.dtype, x.dims, []int64{0, 0, 1}, x.bytes())
	defer host.FreeAddress(p.base)
	weight, y := w.up(), zeros(piecewise.F32, 1, 1)
	defer release(weight, y)
	err := host.Launch("adcg.linear", 0, complete("adcg.linear", nil), []host.Tensor{p.Tensor, weight}, []host.Tensor{y}, host.Batch{DecodeSeqs: 1})
	require.ErrorContains(t, err, "x: rows of 40000 elements in pieces")
}

// TestSliceAndConcat cuts and joins tensors of any type, rank and layout, and compares element by element.
func TestSliceAndConcat(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	pool := host.NewPool(2)
	defer host.FreePool(pool)
	types := []piecewise.DType{piecewise.F32, piecewise.F16, piecewise.BF16, piecewise.F8E4M3, piecewise.I32, piecewise.I64, piecewise.U8, piecewise.Bool}
	for round := range 400 {
		dtype := types[round%len(types)]
		rank := 1 + rng.IntN(5)
		dims, pad := make([]int64, rank), func() []int64 {
			p := make([]int64, rank)
			for d := 1; d < rank; d++ {
				p[d] = rng.Int64N(3)
			}
			return p
		}
		for d := range dims {
			dims[d] = 1 + rng.Int64N(6)
		}
		if round%10 == 0 {
			dims[0] = 3000 // for several tasks
		}
		axis := rng.IntN(rank)
		named := int64(axis)
		if round%2 == 0 {
			named -= int64(rank)
		}
		var in []host.Tensor
		var parts []*placed
		var contents [][]byte
		starts, whole := []int64{}, slices.Clone(dims)
		whole[axis] = 0
		for range 2 + rng.IntN(4) {
			d := slices.Clone(dims)
			d[axis] = 1 + rng.Int64N(5)
			content := make([]byte, count(d)*dtype.Size())
			for i := range content {
				content[i] = byte(rng.Uint32())
			}
			starts = append(starts, whole[axis])
			whole[axis] += d[axis]
			p := place(dtype, d, pad(), content)
			parts, contents, in = append(parts, p), append(contents, content), append(in, p.Tensor)
		}
		y := place(dtype, whole, pad(), make([]byte, count(whole)*dtype.Size()))
		already := rng.IntN(len(in)) // lies where it belongs: its memory is the output's
		inner := y.Strides
		if inner == nil {
			inner = make([]int64, rank)
			for d, n := rank-1, int64(1); d >= 0; d-- {
				inner[d] = n
				n *= whole[d]
			}
		}
		in[already].Address, in[already].Strides = y.Address+uintptr(starts[already]*inner[axis]*dtype.Size()), inner
		// The expected whole, by the index along the axis alone: blocks of what is behind it, in turn.
		size := int(dtype.Size() * count(dims[axis+1:]))
		var want []byte
		for outer := range int(count(dims[:axis])) {
			for i, c := range contents {
				n := size * int(in[i].Dims[axis])
				want = append(want, c[outer*n:(outer+1)*n]...)
			}
		}
		whole0 := host.Bytes(y.base, y.size)
		for i, p := 0, parts[already]; i < len(p.offsets); i++ { // written by its producer
			rest, to := int64(i), int64(in[already].Address-y.base)
			for d := rank - 1; d >= 0; d-- {
				to += rest % p.Dims[d] * inner[d] * dtype.Size()
				rest /= p.Dims[d]
			}
			copy(whole0[to:to+dtype.Size()], contents[already][int64(i)*dtype.Size():(int64(i)+1)*dtype.Size()])
		}
		what := fmt.Sprintf("round %d: %v %v axis %d", round, dtype, whole, named)
		require.NoError(t, host.Launch("adcg.concat", pool, []piecewise.Attr{integer("axis", named)}, in, []host.Tensor{y.Tensor}, host.Batch{}), what)
		for i, p := range parts { // cut out again
			out := place(dtype, p.Dims, pad(), make([]byte, len(contents[i])))
			attrs := []piecewise.Attr{integer("axis", named), integer("start", starts[i]), integer("length", p.Dims[axis])}
			require.NoError(t, host.Launch("adcg.slice", pool, attrs, []host.Tensor{y.Tensor}, []host.Tensor{out.Tensor}, host.Batch{}), what)
			require.Equal(t, contents[i], out.take(t, what), "%s: part %d", what, i)
			require.Equal(t, contents[i], p.take(t, what), "%s: input %d was written", what, i)
		}
		require.Equal(t, want, y.take(t, what), what)
	}
}
