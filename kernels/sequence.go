package kernels

import "github.com/libadcg/libadcg/piecewise"

// sequences checks the three index inputs that ops with a state per sequence end with, from input i on.
func (o *operands) sequences(i int) bool {
	if !o.index(i) || !o.index(i+1) || !o.index(i+2) {
		return false
	}
	o.dim(i, 0, offsets, "prefix sums over the sequences")
	o.dim(i+1, 0, seqs, "one a sequence")
	o.dim(i+2, 0, seqs, "one a sequence")
	return o.err == nil
}

// tokenMajor wants input i to have n dims, the first of them the step's tokens.
func (o *operands) tokenMajor(i, n int) bool {
	if o.rank(i, n) {
		o.dim(i, 0, tokens, "the step's tokens")
	}
	return o.err == nil
}

// multiple wants dim d of input i to be a multiple of dim d of input k.
func (o *operands) multiple(i, k, d int, of string) {
	a, b := o.inputs[i].Dims[d], o.inputs[k].Dims[d]
	if o.err == nil && (!a.IsConstant() || !b.IsConstant() || a.Constant%b.Constant != 0) {
		o.fail(piecewise.ErrShape, "%s: %v %s, must be a multiple of the %v of %s", o.names[i], a, of, b, o.names[k])
	}
}

// Inputs of causal_conv1d.
const (
	convX = iota
	convWeight
	convState
	convCuSeqlens
	convInputPos
	convSlotIdx
	convBias
)

func causalConv1d() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.causal_conv1d",
		Doc: "x [T, C], weight [C, K], state [slots, C, K-1], cu_seqlens [S+1], input_pos [S], slot_idx [S], bias [C] (optional) -> [T, C]: " +
			"act(bias + sum over j of weight[:, j] * x[t-K+1+j]), x before the step from the state, which becomes the last K-1 inputs",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureUniformDecode, NumInputs: 7, NumOptionalInputs: 1, NumOutputs: 1,
		Mutates: 1 << convState, Aliases: inPlace(convX), StridedInputs: 1 << convX, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{stringAttr("activation", "none", `"none", "silu"`)},
		Infer: inference([]string{"x", "weight", "state", "cu_seqlens", "input_pos", "slot_idx", "bias"}, inferConv),
	}
}

func inferConv(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	o.oneOf(attrs[0], "none", "silu")
	o.dtype(convX, floats...)
	o.dtype(convState, floats...)
	if !o.tokenMajor(convX, 2) || !o.weight(convWeight, 2) || !o.rank(convState, 3) || !o.sequences(convCuSeqlens) {
		return nil
	}
	channels, taps := o.inputs[convX].Dims[1], o.inputs[convWeight].Dims[1].Constant
	o.dim(convWeight, 0, channels, "the channels of x")
	if taps < 2 {
		o.fail(piecewise.ErrShape, "weight: %v: dim 1 must be 2 at least: without earlier inputs there is no state", o.inputs[convWeight])
	}
	o.dim(convState, 1, channels, "the channels of x")
	o.dim(convState, 2, constant(taps-1), "the inputs before one, as many as weight's dim 1 less one")
	if o.given(convBias) && o.weight(convBias, 1) {
		o.dim(convBias, 0, channels, "the channels of x")
	}
	return o.inputs[:1]
}

// Inputs of ssm.
const (
	ssmX = iota
	ssmDt
	ssmA
	ssmB
	ssmC
	ssmD
	ssmDtBias
	ssmState
	ssmCuSeqlens
	ssmInputPos
	ssmSlotIdx
	ssmChunkIndices
	ssmChunkOffsets
	ssmSeqIdx
)

func ssm() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.ssm",
		Doc: "x [T, H, P], dt [T, H], A [H], B [T, G, n], C [T, G, n], D [H], dt_bias [H], state [slots, H, P, n], cu_seqlens [S+1], input_pos [S], " +
			"slot_idx [S], chunk_indices [T], chunk_offsets [T], seq_idx [T] (optional) -> [T, H, P]: Mamba-2's scan; per token " +
			"d = clamp(softplus(dt + dt_bias)), state = state * exp(d * A) + d * (x outer B), the result is state . C + D * x",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureUniformDecode, NumInputs: 14, NumOptionalInputs: 3, NumOutputs: 1,
		Mutates: 1 << ssmState, Aliases: inPlace(ssmX),
		StridedInputs: 1<<ssmX | 1<<ssmDt | 1<<ssmB | 1<<ssmC, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{
			floatAttr("dt_min", 0, "d is this at least"),
			floatAttr("dt_max", 0, "d is this at most; 0: no limit"),
			{Default: piecewise.Attr{Name: "dt_softplus", Type: piecewise.AttrBool, Int: 1}, Doc: "false: d = clamp(dt + dt_bias)"},
		},
		Infer: inference([]string{"x", "dt", "A", "B", "C", "D", "dt_bias", "state", "cu_seqlens", "input_pos", "slot_idx", "chunk_indices",
			"chunk_offsets", "seq_idx"}, inferSSM),
	}
}

func inferSSM(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	o.notNegative(attrs[0])
	o.notNegative(attrs[1])
	if low, high := attrs[0].Float, attrs[1].Float; high != 0 && high < low {
		o.fail(piecewise.ErrAttribute, "attribute `dt_max`: %v, must not be below dt_min, %v", high, low)
	}
	o.dtype(ssmX, floats...)
	o.dtype(ssmDt, floats...)
	o.dtype(ssmB, o.inputs[ssmX].DType)
	o.dtype(ssmC, o.inputs[ssmX].DType)
	o.dtype(ssmState, piecewise.F32)
	if !o.tokenMajor(ssmX, 3) || !o.tokenMajor(ssmDt, 2) || !o.tokenMajor(ssmB, 3) || !o.tokenMajor(ssmC, 3) || !o.rank(ssmState, 4) {
		return nil
	}
	x, b := o.inputs[ssmX].Dims, o.inputs[ssmB].Dims
	o.dim(ssmDt, 1, x[1], "the heads of x")
	for _, i := range []int{ssmA, ssmD, ssmDtBias} {
		if !o.weight(i, 1) {
			return nil
		}
		o.dim(i, 0, x[1], "the heads of x")
	}
	o.dim(ssmC, 1, b[1], "the groups of B")
	o.dim(ssmC, 2, b[2], "the state size of B")
	o.multiple(ssmX, ssmB, 1, "heads")
	for d, want := range []piecewise.Dim{x[1], x[2], b[2]} {
		o.dim(ssmState, d+1, want, "as in x and B")
	}
	if !o.sequences(ssmCuSeqlens) {
		return nil
	}
	if o.given(ssmChunkIndices) && !o.given(ssmSeqIdx) {
		o.fail(piecewise.ErrShape, "chunk_indices: given without chunk_offsets and seq_idx: all three of ssm_metadata's outputs, or none")
	}
	for i := ssmChunkIndices; o.given(i) && o.index(i); i++ {
		o.dim(i, 0, tokens, "as ssm_metadata gives it")
	}
	return o.inputs[:1]
}

func ssmMetadata() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.ssm_metadata",
		Doc: "cu_seqlens [S+1] -> chunk_indices [T], chunk_offsets [T], seq_idx [T] int32: the step's tokens in chunks that end at every multiple " +
			"of `chunk` and of a sequence; chunk i begins at chunk_indices[i] * chunk + chunk_offsets[i], zeros behind the last; the sequence of each token",
		Kind: piecewise.Metadata, Capture: piecewise.CaptureAlways, NumInputs: 1, NumOutputs: 3,
		Attrs: []piecewise.AttrSpec{{Default: piecewise.Attr{Name: "chunk", Type: piecewise.AttrInt}, Required: true, Doc: "tokens of a chunk at most"}},
		Infer: inference([]string{"cu_seqlens"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			if chunk := attrs[0].Int; chunk < 1 || chunk > 1<<31-1 {
				o.fail(piecewise.ErrAttribute, "attribute `chunk`: %d, must be positive and of 32 bits", chunk)
			}
			if !o.index(0) {
				return nil
			}
			o.dim(0, 0, offsets, "prefix sums over the sequences")
			each := piecewise.Type{DType: piecewise.I32, Dims: []piecewise.Dim{tokens}}
			return []piecewise.Type{each, each, each}
		}),
	}
}

var deltaAttrs = []piecewise.AttrSpec{
	floatAttr("scale", 0, "of q; 0: 1/sqrt(K)"),
	{Default: piecewise.Attr{Name: "l2norm", Type: piecewise.AttrBool}, Doc: "q and k become x * rsqrt(sum(x^2) + l2norm_eps) first"},
	floatAttr("l2norm_eps", 1e-6, "of l2norm"),
}

func deltaRule() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.delta_rule",
		Doc: "q [T, Hk, K], k [T, Hk, K], v [T, H, V], beta [T, H], state [slots, H, K, V], cu_seqlens [S+1], input_pos [S], slot_idx [S] -> [T, H, V]: " +
			"per token state += k outer (beta * (v - k state)), the result is (scale * q) state",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureUniformDecode, NumInputs: 8, NumOutputs: 1,
		Mutates: 1 << 4, Aliases: inPlace(2), StridedInputs: 1<<4 - 1, StridedOutputs: 1, Attrs: deltaAttrs,
		Infer: inference([]string{"q", "k", "v", "beta", "state", "cu_seqlens", "input_pos", "slot_idx"}, inferDelta),
	}
}

func gatedDeltaRule() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.gated_delta_rule",
		Doc: "q [T, Hk, K], k [T, Hk, K], v [T, H, V], g [T, H], beta [T, H], state [slots, H, K, V], cu_seqlens [S+1], input_pos [S], slot_idx [S] -> " +
			"[T, H, V]: as delta_rule, but every token multiplies the state by exp(g) first",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureUniformDecode, NumInputs: 9, NumOutputs: 1,
		Mutates: 1 << 5, Aliases: inPlace(2), StridedInputs: 1<<5 - 1, StridedOutputs: 1, Attrs: deltaAttrs,
		Infer: inference([]string{"q", "k", "v", "g", "beta", "state", "cu_seqlens", "input_pos", "slot_idx"}, inferDelta),
	}
}

// inferDelta serves both rules: q, k, v, then g and beta or beta alone, then the state and the sequences.
func inferDelta(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	const q, k, v = 0, 1, 2
	state := len(o.inputs) - 4
	o.notNegative(attrs[0])
	o.notNegative(attrs[2])
	o.dtype(q, floats...)
	o.dtype(k, o.inputs[q].DType)
	o.dtype(v, o.inputs[q].DType)
	o.dtype(state, piecewise.F32)
	for i := range 3 {
		if !o.tokenMajor(i, 3) {
			return nil
		}
	}
	keys, values := o.inputs[q].Dims, o.inputs[v].Dims
	o.dim(k, 1, keys[1], "the heads of q")
	o.dim(k, 2, keys[2], "the head dim of q")
	o.multiple(v, k, 1, "heads")
	for i := v + 1; i < state; i++ { // g, beta
		o.dtype(i, floats...)
		if !o.tokenMajor(i, 2) {
			return nil
		}
		o.dim(i, 1, values[1], "the heads of v")
	}
	if !o.rank(state, 4) {
		return nil
	}
	for d, want := range []piecewise.Dim{values[1], keys[2], values[2]} {
		o.dim(state, d+1, want, "as in v and k")
	}
	o.sequences(state + 1)
	return o.inputs[v : v+1]
}

func gdnGating() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.gdn_gating",
		Doc:  "a [R, H], b [R, H], A_log [H], dt_bias [H] -> g [R, H], beta [R, H] f32: g = -exp(A_log) * softplus(a + dt_bias), beta = sigmoid(b)",
		Kind: piecewise.Static, NumInputs: 4, NumOutputs: 2, Flags: piecewise.FlagRowWise, StridedInputs: 1<<0 | 1<<1,
		Infer: inference([]string{"a", "b", "A_log", "dt_bias"}, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			o.dtype(0, floats...)
			o.same(1, 0)
			if !o.rank(0, 2) || !o.weight(2, 1) || !o.weight(3, 1) {
				return nil
			}
			a := o.inputs[0].Dims
			o.dim(2, 0, a[1], "the last dim of a")
			o.dim(3, 0, a[1], "the last dim of a")
			gate := piecewise.Type{DType: piecewise.F32, Dims: a}
			return []piecewise.Type{gate, gate}
		}),
	}
}
