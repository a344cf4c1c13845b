package kernels

import "github.com/libadcg/libadcg/piecewise"

func embedding() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.embedding", Doc: "ids [R] int32, table [V, H] -> [R, H]: rows of the table",
		Kind: piecewise.Static, NumInputs: 2, NumOutputs: 1, Flags: piecewise.FlagRowWise, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{stringAttr("dtype", "", `of the result: "float32", "bfloat16"; "": the table's`)},
		Infer: inference([]string{"ids", "table"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.oneOf(attrs[0], "", "float32", "bfloat16")
			if !o.index(0) || !o.weight(1, 2) {
				return nil
			}
			dtype := o.inputs[1].DType
			if named, ok := dtypeNames[attrs[0].String]; ok {
				dtype = named
			}
			return []piecewise.Type{{DType: dtype, Dims: []piecewise.Dim{o.inputs[0].Dims[0], o.inputs[1].Dims[1]}}}
		}),
	}
}

// rowElements is how many elements one row has.
func rowElements(t piecewise.Type) int64 { return t.RowBytes() / t.DType.Size() }

// activations are what an op may do to each of its results.
var activations = []string{"none", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid"}

func linear() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.linear", Doc: "x [R, ...] with K elements a row, weight [N, K], bias [N] (optional) -> [R, N]: activation(x weight^T + bias)",
		Kind: piecewise.Static, NumInputs: 3, NumOptionalInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise,
		StridedInputs: 1, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{stringAttr("activation", "none", `"none", "silu", "gelu", "gelu_tanh", "relu", "relu2" (relu squared), "sigmoid"`)},
		Infer: inference([]string{"x", "weight", "bias"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.oneOf(attrs[0], activations...)
			o.dtype(0, floats...)
			if !o.minRank(0, 2) || !o.weight(1, 2) {
				return nil
			}
			x, n := o.inputs[0], o.inputs[1].Dims[0]
			o.dim(1, 1, constant(rowElements(x)), "the elements of a row of x")
			if o.given(2) && o.weight(2, 1) {
				o.dim(2, 0, n, "the rows of weight")
			}
			return []piecewise.Type{{DType: x.DType, Dims: []piecewise.Dim{x.Dims[0], n}}}
		}),
	}
}
