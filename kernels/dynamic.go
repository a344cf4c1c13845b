package kernels

import "github.com/libadcg/libadcg/piecewise"

var (
	tokens  = piecewise.Dim{Tokens: 1}
	seqs    = piecewise.Dim{Seqs: 1}
	offsets = piecewise.Dim{Seqs: 1, Constant: 1} // of prefix sums over sequences
)

// Inputs of attention.
const (
	attnQ = iota
	attnK
	attnV
	attnKCache
	attnVCache
	attnCuSeqlens
	attnInputPos
	attnSlotIdx
	attnSinks
)

func attention() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.attention",
		Doc: "q [T, N, D], k [T, Nkv, D], v [T, Nkv, Dv], k_cache [slots, max_len, Nkv, D], v_cache [slots, max_len, Nkv, Dv], cu_seqlens [S+1], " +
			"input_pos [S], slot_idx [S], sinks [N] (optional) -> [T, N, Dv]: causal attention over a slot cache, which it writes",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureUniformDecode, NumInputs: 9, NumOptionalInputs: 1, NumOutputs: 1,
		Mutates: 1<<attnKCache | 1<<attnVCache, StridedInputs: 1<<attnQ | 1<<attnK | 1<<attnV, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{
			floatAttr("scale", 0, "of the scores; 0: 1/sqrt(D)"),
			intAttr("window", 0, "keys with query - key < window are seen; 0: all up to the query"),
			floatAttr("softcap", 0, "scores become softcap * tanh(score / softcap), before the mask; 0: none"),
		},
		Infer: inference([]string{"q", "k", "v", "k_cache", "v_cache", "cu_seqlens", "input_pos", "slot_idx", "sinks"}, inferAttention),
	}
}

func inferAttention(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	o.notNegative(attrs[0])
	o.notNegative(attrs[1])
	o.notNegative(attrs[2])
	o.dtype(attnQ, floats...)
	o.dtype(attnKCache, floats...)
	for _, i := range []int{attnK, attnV} {
		o.dtype(i, o.inputs[attnQ].DType)
	}
	o.dtype(attnVCache, o.inputs[attnKCache].DType)
	for i, n := range [...]int{attnQ: 3, attnK: 3, attnV: 3, attnKCache: 4, attnVCache: 4} {
		if !o.rank(i, n) {
			return nil
		}
	}
	if !o.index(attnCuSeqlens) || !o.index(attnInputPos) || !o.index(attnSlotIdx) {
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
	o.dim(attnCuSeqlens, 0, offsets, "prefix sums over the sequences")
	o.dim(attnInputPos, 0, seqs, "one a sequence")
	o.dim(attnSlotIdx, 0, seqs, "one a sequence")
	if o.given(attnSinks) && o.weight(attnSinks, 1) {
		o.dim(attnSinks, 0, q[1], "the heads of q")
	}
	if o.err == nil && q[1].Constant%k[1].Constant != 0 {
		o.fail(piecewise.ErrShape, "q: %d heads, must be a multiple of the %d of k", q[1].Constant, k[1].Constant)
	}
	return []piecewise.Type{{DType: o.inputs[attnQ].DType, Dims: []piecewise.Dim{q[0], q[1], v[2]}}}
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

func gatherTokens() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.gather_tokens", Doc: "hidden [T, ...], indices [S] int32 -> [S, ...]: rows of hidden",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureAlways, NumInputs: 2, NumOutputs: 1, StridedInputs: 1, StridedOutputs: 1,
		Infer: inference([]string{"hidden", "indices"}, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			o.dtype(0, floats...)
			if !o.minRank(0, 2) || !o.index(1) {
				return nil
			}
			o.dim(0, 0, tokens, "the step's tokens")
			o.dim(1, 0, seqs, "one a sequence")
			dims := append([]piecewise.Dim{o.inputs[1].Dims[0]}, o.inputs[0].Dims[1:]...)
			return []piecewise.Type{{DType: o.inputs[0].DType, Dims: dims}}
		}),
	}
}
