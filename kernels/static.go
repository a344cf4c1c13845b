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
			dtype := map[string]piecewise.DType{"": o.inputs[1].DType, "float32": piecewise.F32, "bfloat16": piecewise.BF16}[attrs[0].String]
			return []piecewise.Type{{DType: dtype, Dims: []piecewise.Dim{o.inputs[0].Dims[0], o.inputs[1].Dims[1]}}}
		}),
	}
}

// rowElements is how many elements one row has.
func rowElements(t piecewise.Type) int64 { return t.RowBytes() / t.DType.Size() }

func linear() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.linear", Doc: "x [R, ...] with K elements a row, weight [N, K], bias [N] (optional) -> [R, N]: x weight^T + bias",
		Kind: piecewise.Static, NumInputs: 3, NumOptionalInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise,
		StridedInputs: 1, StridedOutputs: 1,
		Infer: inference([]string{"x", "weight", "bias"}, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
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

func rmsNorm() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.rms_norm", Doc: "x [R, ..., D], weight [D] -> as x: x * rsqrt(mean(x^2) + eps) * weight, over the last dim",
		Kind: piecewise.Static, NumInputs: 2, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(0),
		StridedInputs: 1, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{floatAttr("eps", 1e-5, "added to the mean square")},
		Infer: inference([]string{"x", "weight"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.notNegative(attrs[0])
			o.dtype(0, floats...)
			if o.minRank(0, 2) && o.weight(1, 1) {
				o.dim(1, 0, o.inputs[0].Dims[len(o.inputs[0].Dims)-1], "the last dim of x")
			}
			return o.inputs[:1]
		}),
	}
}

// elementwise is an op over two tensors of one type, in place over either.
func elementwise(name, doc string, operandNames ...string) piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: name, Doc: doc, Kind: piecewise.Static, NumInputs: 2, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(0, 1),
		StridedInputs: 1<<0 | 1<<1, StridedOutputs: 1,
		Infer: inference(operandNames, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			o.dtype(0, floats...)
			o.same(1, 0)
			return o.inputs[:1]
		}),
	}
}

func add() piecewise.OpSchema {
	return elementwise("adcg.add", "a, b of one shape -> as a: a + b", "a", "b")
}

func siluMul() piecewise.OpSchema {
	return elementwise("adcg.silu_mul", "gate, up of one shape -> as gate: silu(gate) * up", "gate", "up")
}

func rope() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.rope", Doc: "x [R, N, D], positions [R] int32 -> as x: rotary embedding, NeoX layout (halves)",
		Kind: piecewise.Static, NumInputs: 2, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(0),
		StridedInputs: 1, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{
			floatAttr("theta", 10000, "base of the frequencies"),
			intAttr("rotary_dim", 0, "how many dims are rotated, even; 0: D"),
			stringAttr("scaling", "none", `"none", "linear", "llama3"`),
			floatAttr("factor", 1, "of linear and llama3 scaling"),
			floatAttr("low_freq_factor", 1, "of llama3 scaling"),
			floatAttr("high_freq_factor", 4, "of llama3 scaling"),
			intAttr("original_max_position", 8192, "of llama3 scaling: the context that the model was trained with"),
		},
		Infer: inference([]string{"x", "positions"}, inferRope),
	}
}

func inferRope(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	theta, rotary, scaling, factor, low, high, original := attrs[0], attrs[1], attrs[2], attrs[3], attrs[4], attrs[5], attrs[6]
	o.positive(theta)
	o.notNegative(rotary)
	o.oneOf(scaling, "none", "linear", "llama3")
	o.positive(factor)
	o.positive(low)
	o.positive(high)
	if scaling.String == "llama3" && high.Float <= low.Float {
		o.fail(piecewise.ErrAttribute, "attribute `high_freq_factor`: %v, must be above low_freq_factor, %v", high.Float, low.Float)
	}
	if original.Int < 1 {
		o.fail(piecewise.ErrAttribute, "attribute `original_max_position`: %d, must be positive", original.Int)
	}
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
	o.dim(1, 0, o.inputs[0].Dims[0], "the rows of x")
	return o.inputs[:1]
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

func reshape() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.reshape", Doc: "x [R, ...] -> [R, dims...]: a view of the same memory",
		Kind: piecewise.Static, NumInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise,
		Aliases: []piecewise.Alias{{Output: 0, Input: 0, Kind: piecewise.AliasView}},
		Attrs: []piecewise.AttrSpec{{
			Default: piecewise.Attr{Name: "dims", Type: piecewise.AttrInts}, Required: true, Doc: "the dims behind the first",
		}},
		Infer: inference([]string{"x"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			x, elements := o.inputs[0], int64(1)
			dims := []piecewise.Dim{x.Dims[0]}
			for _, n := range attrs[0].Ints {
				if n < 1 || n > 1<<40 {
					o.fail(piecewise.ErrAttribute, "attribute `dims`: %v, each must be positive", attrs[0].Ints)
					return nil
				}
				elements *= n
				dims = append(dims, constant(n))
			}
			if elements != rowElements(x) {
				o.fail(piecewise.ErrShape, "x: %v: %d elements a row, `dims` %v have %d", x, rowElements(x), attrs[0].Ints, elements)
			}
			return []piecewise.Type{{DType: x.DType, Dims: dims}}
		}),
	}
}
