package kernels

import "github.com/libadcg/libadcg/piecewise"

// caches are the element types of caches of keys and values.
var caches = []piecewise.DType{piecewise.F32, piecewise.BF16, piecewise.F8E4M3}

// placement says where a cache has the positions of a sequence: the inputs that do, from cu_seqlens on.
type placement struct {
	shape  string // of the first dims of a cache
	doc    string
	inputs []string
}

var (
	slotted = placement{"slots, max_len", "cu_seqlens [S+1], input_pos [S], slot_idx [S]", []string{"cu_seqlens", "input_pos", "slot_idx"}}
	paged   = placement{"pages, page_size", "cu_seqlens [S+1], input_pos [S], cu_num_pages [S+1], cache_loc [any extent], last_page_len [S]",
		[]string{"cu_seqlens", "input_pos", "cu_num_pages", "cache_loc", "last_page_len"}}
)

// check wants the index inputs from i on; false if one is no index.
func (p placement) check(o *operands, i int) bool {
	for k, name := range p.inputs {
		if !o.index(i + k) {
			return false
		}
		switch name {
		case "cu_seqlens", "cu_num_pages":
			o.dim(i+k, 0, offsets, "prefix sums over the sequences")
		case "cache_loc":
		default:
			o.dim(i+k, 0, seqs, "one a sequence")
		}
	}
	return true
}

// Inputs of attention up to where placement begins; sinks stand behind it.
const (
	attnQ = iota
	attnK
	attnV
	attnKCache
	attnVCache
	attnPlacement
)

func attention() piecewise.OpSchema {
	return attentionOver("adcg.attention", "a slot cache", slotted)
}

func pagedAttention() piecewise.OpSchema {
	return attentionOver("adcg.paged_attention", "a paged cache", paged)
}

func attentionOver(name, cache string, place placement) piecewise.OpSchema {
	names := append(append([]string{"q", "k", "v", "k_cache", "v_cache"}, place.inputs...), "sinks")
	return piecewise.OpSchema{
		Name: name,
		Doc: "q [T, N, D], k [T, Nkv, D], v [T, Nkv, Dv], k_cache [" + place.shape + ", Nkv, D], v_cache [" + place.shape + ", Nkv, Dv], " + place.doc +
			", sinks [N] (optional) -> [T, N, Dv]: causal attention over " + cache + ", which it writes",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureAlways, NumInputs: len(names), NumOptionalInputs: 1, NumOutputs: 1,
		Mutates: 1<<attnKCache | 1<<attnVCache, StridedInputs: 1<<attnQ | 1<<attnK | 1<<attnV, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{
			floatAttr("scale", 0, "of the scores; 0: 1/sqrt(D)"),
			intAttr("window", 0, "keys with query - key < window are seen; 0: all up to the query"),
			floatAttr("softcap", 0, "scores become softcap * tanh(score / softcap), before the mask; 0: none"),
		},
		Infer: inference(names, func(o *operands, attrs []piecewise.Attr) []piecewise.Type { return inferAttention(o, attrs, place) }),
	}
}

func inferAttention(o *operands, attrs []piecewise.Attr, place placement) []piecewise.Type {
	sinks := attnPlacement + len(place.inputs)
	o.notNegative(attrs[0])
	o.notNegative(attrs[1])
	o.notNegative(attrs[2])
	o.dtype(attnQ, floats...)
	o.dtype(attnKCache, caches...)
	for _, i := range []int{attnK, attnV} {
		o.dtype(i, o.inputs[attnQ].DType)
	}
	o.dtype(attnVCache, o.inputs[attnKCache].DType)
	for i, n := range [...]int{attnQ: 3, attnK: 3, attnV: 3, attnKCache: 4, attnVCache: 4} {
		if !o.rank(i, n) {
			return nil
		}
	}
	if !place.check(o, attnPlacement) {
		return nil
	}
	q, k, v, cache := o.inputs[attnQ].Dims, o.inputs[attnK].Dims, o.inputs[attnV].Dims, o.inputs[attnKCache].Dims
	for _, i := range []int{attnQ, attnK, attnV} {
		o.dim(i, 0, tokens, "the step's tokens")
	}
	o.dim(attnK, 2, q[2], "the head dim of q")
	o.dim(attnV, 1, k[1], "the heads of k")
	o.dim(attnKCache, 2, k[1], "the heads of k")
	o.dim(attnKCache, 3, k[2], "the head dim of k")
	for d, want := range []piecewise.Dim{cache[0], cache[1], v[1], v[2]} {
		o.dim(attnVCache, d, want, "as in k_cache and v")
	}
	if o.given(sinks) && o.weight(sinks, 1) {
		o.dim(sinks, 0, q[1], "the heads of q")
	}
	if o.err == nil && q[1].Constant%k[1].Constant != 0 {
		o.fail(piecewise.ErrShape, "q: %d heads, must be a multiple of the %d of k", q[1].Constant, k[1].Constant)
	}
	return []piecewise.Type{{DType: o.inputs[attnQ].DType, Dims: []piecewise.Dim{q[0], q[1], v[2]}}}
}

// Inputs of MLA up to where placement begins.
const (
	mlaQNope = iota
	mlaQPe
	mlaCKV
	mlaKPe
	mlaWeight
	mlaCache
	mlaPlacement
)

func mlaAttention() piecewise.OpSchema {
	return mlaAttentionOver("adcg.mla_attention", "a slot cache", slotted)
}

func pagedMLAAttention() piecewise.OpSchema {
	return mlaAttentionOver("adcg.paged_mla_attention", "a paged cache", paged)
}

func mlaAttentionOver(name, cache string, place placement) piecewise.OpSchema {
	names := append([]string{"q_nope", "q_pe", "ckv", "kpe", "weight", "cache"}, place.inputs...)
	return piecewise.OpSchema{
		Name: name,
		Doc: "q_nope [T, N, dn], q_pe [T, N, dr], ckv [T, r], kpe [T, dr], weight [N*(dn+dv), r], cache [" + place.shape + ", r+dr], " + place.doc +
			" -> [T, N, dv]: causal multi-head latent attention over " + cache + ", which it writes",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureUniformDecode, NumInputs: len(names), NumOutputs: 1, Mutates: 1 << mlaCache,
		StridedInputs: 1<<mlaQNope | 1<<mlaQPe | 1<<mlaCKV | 1<<mlaKPe, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{floatAttr("scale", 0, "of the scores; 0: 1/sqrt(dn+dr)")},
		Infer: inference(names, func(o *operands, attrs []piecewise.Attr) []piecewise.Type { return inferMLA(o, attrs, place) }),
	}
}

func inferMLA(o *operands, attrs []piecewise.Attr, place placement) []piecewise.Type {
	o.notNegative(attrs[0])
	o.dtype(mlaQNope, floats...)
	for _, i := range []int{mlaQPe, mlaCKV, mlaKPe} {
		o.dtype(i, o.inputs[mlaQNope].DType)
	}
	o.dtype(mlaCache, caches...)
	for i, n := range [...]int{mlaQNope: 3, mlaQPe: 3, mlaCKV: 2, mlaKPe: 2} {
		if !o.rank(i, n) {
			return nil
		}
	}
	if !o.weight(mlaWeight, 2) || !o.rank(mlaCache, 3) || !place.check(o, mlaPlacement) {
		return nil
	}
	nope, pe, ckv, w := o.inputs[mlaQNope].Dims, o.inputs[mlaQPe].Dims, o.inputs[mlaCKV].Dims, o.inputs[mlaWeight].Dims
	for _, i := range []int{mlaQNope, mlaQPe, mlaCKV, mlaKPe} {
		o.dim(i, 0, tokens, "the step's tokens")
	}
	o.dim(mlaQPe, 1, nope[1], "the heads of q_nope")
	o.dim(mlaKPe, 1, pe[2], "the head dim of q_pe")
	o.dim(mlaWeight, 1, ckv[1], "the elements of a row of ckv")
	o.dim(mlaCache, 2, constant(ckv[1].Constant+pe[2].Constant), "the elements of ckv and kpe")
	heads, rows := nope[1].Constant, w[0].Constant
	if o.err == nil && (rows%heads != 0 || rows/heads <= nope[2].Constant) {
		o.fail(piecewise.ErrShape, "weight: %v: %d rows, must be %d heads times more than the %d dims of q_nope", o.inputs[mlaWeight], rows, heads,
			nope[2].Constant)
	}
	if o.err != nil {
		return nil
	}
	return []piecewise.Type{{DType: o.inputs[mlaQNope].DType, Dims: []piecewise.Dim{nope[0], nope[1], constant(rows/heads - nope[2].Constant)}}}
}

func attentionMetadata() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.attention_metadata",
		Doc:  "cu_seqlens [S+1], input_pos [S] -> batch_indices [T], positions [T] int32: token j of sequence i -> i, input_pos[i] + j",
		Kind: piecewise.Metadata, Capture: piecewise.CaptureAlways, NumInputs: 2, NumOutputs: 2,
		Infer: inference([]string{"cu_seqlens", "input_pos"}, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			if !o.index(0) || !o.index(1) {
				return nil
			}
			o.dim(0, 0, offsets, "prefix sums over the sequences")
			o.dim(1, 0, seqs, "one a sequence")
			positions := piecewise.Type{DType: piecewise.I32, Dims: []piecewise.Dim{tokens}}
			return []piecewise.Type{positions, positions}
		}),
	}
}

func pagedMetadata() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.paged_metadata",
		Doc:  "cu_num_pages [S+1], cache_loc [any extent] -> block_tables [S, max_pages] int32: a sequence's pages, then zeros",
		Kind: piecewise.Metadata, Capture: piecewise.CaptureAlways, NumInputs: 2, NumOutputs: 1,
		Attrs: []piecewise.AttrSpec{{
			Default: piecewise.Attr{Name: "max_pages", Type: piecewise.AttrInt}, Required: true, Doc: "that a sequence may have",
		}},
		Infer: inference([]string{"cu_num_pages", "cache_loc"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			if most := attrs[0].Int; most < 1 || most > 1<<31-1 {
				o.fail(piecewise.ErrAttribute, "attribute `max_pages`: %d, must be 1 to %d", most, 1<<31-1)
			}
			if !o.index(0) || !o.index(1) {
				return nil
			}
			o.dim(0, 0, offsets, "prefix sums over the sequences")
			return []piecewise.Type{{DType: piecewise.I32, Dims: []piecewise.Dim{seqs, constant(attrs[0].Int)}}}
		}),
	}
}
