package kernels

import "github.com/libadcg/libadcg/piecewise"

func softmax() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.softmax", Doc: "x [R, ..., D] -> as x: exp(x) / sum(exp(x)), over the last dim",
		Kind: piecewise.Static, NumInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(0),
		StridedInputs: 1, StridedOutputs: 1,
		Infer: inference([]string{"x"}, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			o.dtype(0, floats...)
			o.minRank(0, 2)
			return o.inputs[:1]
		}),
	}
}

func argmax() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.argmax", Doc: "x [R, V] -> [R] int32: the lowest index of the largest element",
		Kind: piecewise.Static, NumInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise, StridedInputs: 1,
		Infer: inference([]string{"x"}, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			o.dtype(0, floats...)
			if !o.rank(0, 2) {
				return nil
			}
			return []piecewise.Type{{DType: piecewise.I32, Dims: o.inputs[0].Dims[:1]}}
		}),
	}
}

func sample() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.sample",
		Doc: "logits [R, V], uniform [R] float32 -> [R] int32: of the tokens by falling logits, ties by id, the first whose cumulative " +
			"probability exceeds uniform",
		Kind: piecewise.Static, NumInputs: 2, NumOutputs: 1, Flags: piecewise.FlagRowWise, StridedInputs: 1,
		Attrs: []piecewise.AttrSpec{
			floatAttr("temperature", 1, "by which logits are divided; 0: the largest is taken, as by argmax"),
			intAttr("top_k", 0, "only so many tokens are drawn from; 0: all"),
			floatAttr("top_p", 1, "only the fewest tokens that have this much of top_k's probability are drawn from"),
		},
		Infer: inference([]string{"logits", "uniform"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.notNegative(attrs[0])
			o.notNegative(attrs[1])
			if p := attrs[2].Float; !(p > 0 && p <= 1) {
				o.fail(piecewise.ErrAttribute, "attribute `top_p`: %v, must be above 0 and at most 1", p)
			}
			o.dtype(0, floats...)
			o.dtype(1, piecewise.F32)
			if !o.rank(0, 2) || !o.rank(1, 1) {
				return nil
			}
			o.dim(1, 0, o.inputs[0].Dims[0], "the rows of logits")
			return []piecewise.Type{{DType: piecewise.I32, Dims: o.inputs[0].Dims[:1]}}
		}),
	}
}
