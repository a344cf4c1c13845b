package kernels

import (
	"fmt"

	"github.com/libadcg/libadcg/piecewise"
)

// maxConcat is the most inputs of a concatenation, one for each bit of OpSchema.StridedInputs.
const maxConcat = 64

// axisOf is the dim that the attribute `axis` means among n; negative ones count from the end. -1 if there is none.
func axisOf(a piecewise.Attr, n int) int {
	axis := a.Int
	if axis < 0 {
		axis += int64(n)
	}
	if axis < 0 || axis >= int64(n) {
		return -1
	}
	return int(axis)
}

// axis wants the attribute `axis` to name a dim of input 0; -1 if it does not.
func (o *operands) axis(a piecewise.Attr) int {
	n := len(o.inputs[0].Dims)
	axis := axisOf(a, n)
	if axis < 0 {
		o.fail(piecewise.ErrAttribute, "attribute `%s`: %d, must be %d to %d for %s, %v", a.Name, a.Int, -n, n-1, o.names[0], o.inputs[0])
	}
	return axis
}

func slice() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.slice", Doc: "x of any type and rank -> the elements start .. start+length-1 along axis",
		Kind: piecewise.Static, NumInputs: 1, NumOutputs: 1, StridedInputs: 1, StridedOutputs: 1,
		Aliases: []piecewise.Alias{{Output: 0, Input: 0, Kind: piecewise.AliasPart}},
		Attrs: []piecewise.AttrSpec{
			intAttr("axis", -1, "along which it is cut; negative: counted from the last"),
			intAttr("start", 0, "the first element"),
			intAttr("length", 0, "how many; 0: all to the end"),
		},
		Infer: inference([]string{"x"}, inferSlice),
		Part: func(_ int, inputs, _ []piecewise.Type, attrs []piecewise.Attr) (piecewise.Part, error) {
			return piecewise.Part{Axis: axisOf(attrs[0], len(inputs[0].Dims)), Start: attrs[1].Int}, nil
		},
	}
}

func inferSlice(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	x, start, length := o.inputs[0], attrs[1], attrs[2]
	axis := o.axis(attrs[0])
	o.notNegative(start)
	o.notNegative(length)
	if o.err != nil {
		return nil
	}
	dim := x.Dims[axis]
	least := dim.At(1, 1) // a dim that depends on a count is never smaller
	switch {
	case length.Int > 0 && !dim.IsConstant():
		o.fail(piecewise.ErrAttribute, "attribute `length`: %d, but dim %d of x is %v, which depends on the step: it can be cut to its end alone, with length 0", length.Int, axis, dim)
	case start.Int > least || length.Int > least-start.Int:
		o.fail(piecewise.ErrAttribute, "attributes `start` and `length`: %d and %d, but dim %d of x, %v, has %d elements", start.Int, length.Int, axis, x, least)
	case dim.IsConstant() && start.Int == least:
		o.fail(piecewise.ErrAttribute, "attribute `start`: %d, nothing of dim %d of x, %v, is left", start.Int, axis, x)
	}
	if dim.Constant -= start.Int; length.Int > 0 {
		dim.Constant = length.Int
	}
	dims := append([]piecewise.Dim(nil), x.Dims...)
	dims[axis] = dim
	return []piecewise.Type{{DType: x.DType, Dims: dims}}
}

func concat() piecewise.OpSchema {
	aliases, names := make([]piecewise.Alias, maxConcat), make([]string, maxConcat)
	for i := range aliases {
		aliases[i] = piecewise.Alias{Output: 0, Input: i, Kind: piecewise.AliasJoin}
		names[i] = fmt.Sprintf("inputs[%d]", i)
	}
	return piecewise.OpSchema{
		Name: "adcg.concat", Doc: "2 to 64 tensors of one type but for their extents along axis -> one behind the other along axis",
		Kind: piecewise.Static, NumInputs: maxConcat, NumOptionalInputs: maxConcat - 2, NumOutputs: 1,
		StridedInputs: 1<<maxConcat - 1, StridedOutputs: 1, Aliases: aliases,
		Attrs: []piecewise.AttrSpec{intAttr("axis", -1, "along which they are joined; negative: counted from the last")},
		Infer: inference(names, inferConcat),
		Part: func(alias int, inputs, _ []piecewise.Type, attrs []piecewise.Attr) (piecewise.Part, error) {
			part := piecewise.Part{Axis: axisOf(attrs[0], len(inputs[0].Dims))}
			for _, before := range inputs[:alias] {
				part.Start += before.Dims[part.Axis].Constant
			}
			return part, nil
		},
	}
}

func inferConcat(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	axis := o.axis(attrs[0])
	var sum piecewise.Dim
	for i, t := range o.inputs {
		o.dtype(i, o.inputs[0].DType)
		if !o.rank(i, len(o.inputs[0].Dims)) {
			return nil
		}
		for d, want := range o.inputs[0].Dims {
			if d != axis {
				o.dim(i, d, want, "as in "+o.names[0])
			}
		}
		if last := i == len(o.inputs)-1; !last && !t.Dims[axis].IsConstant() {
			o.fail(piecewise.ErrShape, "%s: %v: dim %d depends on the step: of joined tensors, that of the last alone may", o.names[i], t, axis)
		}
		sum = piecewise.Dim{Tokens: t.Dims[axis].Tokens, Seqs: t.Dims[axis].Seqs, Constant: sum.Constant + t.Dims[axis].Constant}
	}
	dims := append([]piecewise.Dim(nil), o.inputs[0].Dims...)
	dims[axis] = sum
	return []piecewise.Type{{DType: o.inputs[0].DType, Dims: dims}}
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
