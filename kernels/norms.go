package kernels

import "github.com/libadcg/libadcg/piecewise"

// Attributes of norms.
var (
	normEps = floatAttr("eps", 1e-5, "added to the mean square")
	onePlus = boolAttr("one_plus", false, "whether the weight counts as 1 + weight")
)

// lastDim wants a weight with one element for each of input `of`'s last dim.
func (o *operands) lastDim(weight, of int) {
	if o.weight(weight, 1) {
		dims := o.inputs[of].Dims
		o.dim(weight, 0, dims[len(dims)-1], "the last dim of "+o.names[of])
	}
}

func rmsNorm() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.rms_norm", Doc: "x [R, ..., D], weight [D], z as x (with a gate) -> as x: x * rsqrt(mean(x^2) + eps) * weight, over the last dim",
		Kind: piecewise.Static, NumInputs: 3, NumOptionalInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(0, 2),
		StridedInputs: 1<<0 | 1<<2, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{
			normEps, onePlus,
			intAttr("groups", 1, "parts of the last dim, one behind the other, that are normed each by itself"),
			stringAttr("gate", "none", `"none", "before" (the norm is of x * silu(z)), "after" (the result times silu(z))`),
		},
		Infer: inference([]string{"x", "weight", "z"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			groups, gate := attrs[2], attrs[3]
			o.notNegative(attrs[0])
			o.oneOf(gate, "none", "before", "after")
			if groups.Int < 1 {
				o.fail(piecewise.ErrAttribute, "attribute `groups`: %d, must be positive", groups.Int)
			}
			o.dtype(0, floats...)
			if !o.minRank(0, 2) {
				return nil
			}
			o.lastDim(1, 0)
			x := o.inputs[0]
			if d := x.Dims[len(x.Dims)-1].Constant; o.err == nil && d%groups.Int != 0 {
				o.fail(piecewise.ErrAttribute, "attribute `groups`: %d, must divide x's last dim, %d", groups.Int, d)
			}
			switch gated := gate.String != "none"; {
			case gated && !o.given(2):
				o.fail(piecewise.ErrGraph, "z: missing, the attribute `gate` is %q", gate.String)
			case !gated && o.given(2):
				o.fail(piecewise.ErrAttribute, "attribute `gate`: \"none\", but z is given")
			case gated:
				o.same(2, 0)
			}
			return o.inputs[:1]
		}),
	}
}

func layerNorm() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.layer_norm", Doc: "x [R, ..., D], weight [D], bias [D] (optional) -> as x: (x - mean) * rsqrt(variance + eps) * weight + bias, over the last dim",
		Kind: piecewise.Static, NumInputs: 3, NumOptionalInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(0),
		StridedInputs: 1, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{floatAttr("eps", 1e-5, "added to the variance, which is biased")},
		Infer: inference([]string{"x", "weight", "bias"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.notNegative(attrs[0])
			o.dtype(0, floats...)
			if !o.minRank(0, 2) {
				return nil
			}
			o.lastDim(1, 0)
			if o.given(2) {
				o.lastDim(2, 0)
			}
			return o.inputs[:1]
		}),
	}
}

func addRMSNorm() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.add_rms_norm", Doc: "a, b [R, ..., D], weight [D] -> sum, normed, both as a: a + b, and its rms_norm",
		Kind: piecewise.Static, NumInputs: 3, NumOutputs: 2, Flags: piecewise.FlagRowWise,
		Aliases: append(inPlace(0, 1), piecewise.Alias{Output: 1, Input: 0, Kind: piecewise.AliasInPlace},
			piecewise.Alias{Output: 1, Input: 1, Kind: piecewise.AliasInPlace}),
		StridedInputs: 1<<0 | 1<<1, StridedOutputs: 1<<0 | 1<<1,
		Attrs: []piecewise.AttrSpec{normEps, onePlus},
		Infer: inference([]string{"a", "b", "weight"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.notNegative(attrs[0])
			o.dtype(0, floats...)
			if !o.minRank(0, 2) {
				return nil
			}
			o.same(1, 0)
			o.lastDim(2, 0)
			return []piecewise.Type{o.inputs[0], o.inputs[0]}
		}),
	}
}

func qkNorm() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.qk_norm", Doc: "q [R, N, D], k [R, Nkv, D], q_weight [D], k_weight [D] -> as q, as k: the rms_norm of every head",
		Kind: piecewise.Static, NumInputs: 4, NumOutputs: 2, Flags: piecewise.FlagRowWise,
		Aliases:       append(inPlace(0), piecewise.Alias{Output: 1, Input: 1, Kind: piecewise.AliasInPlace}),
		StridedInputs: 1<<0 | 1<<1, StridedOutputs: 1<<0 | 1<<1,
		Attrs: []piecewise.AttrSpec{normEps, onePlus},
		Infer: inference([]string{"q", "k", "q_weight", "k_weight"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.notNegative(attrs[0])
			o.dtype(0, floats...)
			o.dtype(1, o.inputs[0].DType)
			if !o.rank(0, 3) || !o.rank(1, 3) {
				return nil
			}
			o.dim(1, 0, o.inputs[0].Dims[0], "the rows of q")
			o.dim(1, 2, o.inputs[0].Dims[2], "the head dim of q")
			o.lastDim(2, 0)
			o.lastDim(3, 1)
			return o.inputs[:2]
		}),
	}
}
