package kernels

import "github.com/libadcg/libadcg/piecewise"

// elementwise is an op over tensors of one type, in place over any of them.
func elementwise(name, doc string, operandNames ...string) piecewise.OpSchema {
	s := piecewise.OpSchema{
		Name: name, Doc: doc, Kind: piecewise.Static, NumInputs: len(operandNames), NumOutputs: 1, Flags: piecewise.FlagRowWise,
		StridedInputs: 1<<len(operandNames) - 1, StridedOutputs: 1,
		Infer: inference(operandNames, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			o.dtype(0, floats...)
			for i := range o.inputs[1:] {
				o.same(i+1, 0)
			}
			return o.inputs[:1]
		}),
	}
	for i := range operandNames {
		s.Aliases = append(s.Aliases, inPlace(i)...)
	}
	return s
}

func add() piecewise.OpSchema {
	return elementwise("adcg.add", "a, b of one shape -> as a: a + b", "a", "b")
}

func siluMul() piecewise.OpSchema {
	return elementwise("adcg.silu_mul", "gate, up of one shape -> as gate: silu(gate) * up", "gate", "up")
}

func geluMul() piecewise.OpSchema {
	s := elementwise("adcg.gelu_mul", "gate, up of one shape -> as gate: gelu(gate) * up", "gate", "up")
	s.Attrs = []piecewise.AttrSpec{stringAttr("approximate", "none", `"none": by erf; "tanh": 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`)}
	same := s.Infer
	s.Infer = inference([]string{"gate", "up"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
		o.oneOf(attrs[0], "none", "tanh")
		if o.err == nil {
			_, o.err = same(o.inputs, nil)
		}
		return o.inputs[:1]
	})
	return s
}

func silu() piecewise.OpSchema {
	return elementwise("adcg.silu", "x -> as x: x * sigmoid(x)", "x")
}

func relu2() piecewise.OpSchema {
	return elementwise("adcg.relu2", "x -> as x: max(x, 0)^2", "x")
}

func sigmoid() piecewise.OpSchema {
	return elementwise("adcg.sigmoid", "x -> as x: 1 / (1 + exp(-x))", "x")
}

// product is an op over two tensors of one type, of which the second may have one element in its last dim for all of the
// first's.
func product(name, doc string, operandNames ...string) piecewise.OpSchema {
	s := elementwise(name, doc, operandNames...)
	s.Infer = inference(operandNames, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
		o.dtype(0, floats...)
		last := len(o.inputs[1].Dims) - 1
		if last < 1 || o.inputs[1].Dims[last] != constant(1) {
			o.same(1, 0)
			return o.inputs[:1]
		}
		o.dtype(1, o.inputs[0].DType)
		if o.rank(0, last+1) {
			for d := range last {
				o.dim(1, d, o.inputs[0].Dims[d], "as in "+o.names[0])
			}
		}
		return o.inputs[:1]
	})
	return s
}

func mul() piecewise.OpSchema {
	return product("adcg.mul", "a, b as a or with a last dim of 1 -> as a: a * b", "a", "b")
}

func sigmoidMul() piecewise.OpSchema {
	return product("adcg.sigmoid_mul", "x, gate as x or with a last dim of 1 -> as x: x * sigmoid(gate)", "x", "gate")
}

// dtypeNames are the values of attributes that name a floating-point element type.
var dtypeNames = map[string]piecewise.DType{"float32": piecewise.F32, "bfloat16": piecewise.BF16}

func cast() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.cast", Doc: "x of any rank -> its elements in another type",
		Kind: piecewise.Static, NumInputs: 1, NumOutputs: 1, Flags: piecewise.FlagRowWise, StridedInputs: 1, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{{
			Default: piecewise.Attr{Name: "dtype", Type: piecewise.AttrString}, Required: true, Doc: `of the result: "float32", "bfloat16"`,
		}},
		Infer: inference([]string{"x"}, func(o *operands, attrs []piecewise.Attr) []piecewise.Type {
			o.oneOf(attrs[0], "float32", "bfloat16")
			o.dtype(0, floats...)
			return []piecewise.Type{{DType: dtypeNames[attrs[0].String], Dims: o.inputs[0].Dims}}
		}),
	}
}
