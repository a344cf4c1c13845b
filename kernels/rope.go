package kernels

import "github.com/libadcg/libadcg/piecewise"

func rope() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.rope", Doc: "x [R, N, D], positions [R] int32 -> as x: rotary embedding",
		Kind: piecewise.Static, NumInputs: 2, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(0),
		StridedInputs: 1, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{
			floatAttr("theta", 10000, "base of the frequencies"),
			intAttr("rotary_dim", 0, "how many dims are rotated, even; 0: D"),
			stringAttr("scaling", "none", `"none", "linear", "llama3", "yarn"`),
			floatAttr("factor", 1, "of every scaling: how much longer the context is"),
			floatAttr("low_freq_factor", 1, "of llama3 scaling"),
			floatAttr("high_freq_factor", 4, "of llama3 scaling"),
			intAttr("original_max_position", 8192, "of llama3 and yarn scaling: the context that the model was trained with"),
			stringAttr("layout", "neox", `of the pairs: "neox" (halves), "gptj" (neighbours), "interleaved" (neighbours in, halves out)`),
			floatAttr("beta_fast", 32, "of yarn scaling: pairs that turn more often over the context keep their frequency"),
			floatAttr("beta_slow", 1, "of yarn scaling: pairs that turn less often are slowed by factor"),
			floatAttr("mscale", 0, "of yarn scaling: sine and cosine by (0.1 mscale ln(factor) + 1) / (0.1 mscale_all_dim ln(factor) + 1), if both are given"),
			floatAttr("mscale_all_dim", 0, "of yarn scaling, see mscale"),
			boolAttr("truncate", true, "of yarn scaling: whether the ramp begins and ends at whole pairs"),
			floatAttr("attention_factor", 0, "of yarn scaling, on sine and cosine; 0: from the mscales, or 0.1 ln(factor) + 1"),
		},
		Infer: inference([]string{"x", "positions"}, inferRope),
	}
}

// maxInterleaved is the largest rotary_dim of the layout "interleaved", whose pairs a kernel holds while they move.
const maxInterleaved = 512

func inferRope(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	theta, rotary, scaling, factor, low, high, original, layout := attrs[0], attrs[1], attrs[2], attrs[3], attrs[4], attrs[5], attrs[6], attrs[7]
	o.positive(theta)
	o.notNegative(rotary)
	o.oneOf(scaling, "none", "linear", "llama3", "yarn")
	o.positive(factor)
	o.positive(low)
	o.positive(high)
	if scaling.String == "llama3" && high.Float <= low.Float {
		o.fail(piecewise.ErrAttribute, "attribute `high_freq_factor`: %v, must be above low_freq_factor, %v", high.Float, low.Float)
	}
	if original.Int < 1 {
		o.fail(piecewise.ErrAttribute, "attribute `original_max_position`: %d, must be positive", original.Int)
	}
	o.oneOf(layout, "neox", "gptj", "interleaved")
	inferYarn(o, scaling.String == "yarn", theta, attrs[8:])
	o.dtype(0, floats...)
	if !o.rank(0, 3) || !o.index(1) {
		return nil
	}
	width := o.inputs[0].Dims[2].Constant
	if rotary.Int == 0 {
		rotary.Int = width
	}
	if rotary.Int > width || rotary.Int%2 != 0 {
		o.fail(piecewise.ErrAttribute, "attribute `rotary_dim`: %d, must be even and at most x's last dim, %d", rotary.Int, width)
	}
	if layout.String == "interleaved" && rotary.Int > maxInterleaved {
		o.fail(piecewise.ErrAttribute, "attribute `rotary_dim`: %d, must be at most %d in the layout \"interleaved\"", rotary.Int, maxInterleaved)
	}
	o.dim(1, 0, o.inputs[0].Dims[0], "the rows of x")
	return o.inputs[:1]
}

// inferYarn checks beta_fast, beta_slow, mscale, mscale_all_dim, truncate and attention_factor.
func inferYarn(o *operands, used bool, theta piecewise.Attr, attrs []piecewise.Attr) {
	fast, slow := attrs[0], attrs[1]
	o.positive(fast)
	o.positive(slow)
	o.notNegative(attrs[2])
	o.notNegative(attrs[3])
	o.notNegative(attrs[5])
	if used && fast.Float < slow.Float {
		o.fail(piecewise.ErrAttribute, "attribute `beta_fast`: %v, must be at least beta_slow, %v", fast.Float, slow.Float)
	}
	if used && theta.Float <= 1 {
		o.fail(piecewise.ErrAttribute, "attribute `theta`: %v, must be above 1 for yarn scaling", theta.Float)
	}
}
