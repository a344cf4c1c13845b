package kernels

import (
	"math"
	"slices"

	"github.com/libadcg/libadcg/piecewise"
)

// operands checks the inputs of one op; the first thing that is wrong is kept.
type operands struct {
	names  []string
	inputs []piecewise.Type
	err    error
}

func (o *operands) fail(kind piecewise.ErrorKind, format string, args ...any) {
	if o.err == nil {
		o.err = piecewise.Errorf(kind, format, args...)
	}
}

// given tells whether an optional input is there.
func (o *operands) given(i int) bool { return i < len(o.inputs) }

// dtype wants input i to be one of these.
func (o *operands) dtype(i int, allowed ...piecewise.DType) {
	if t := o.inputs[i].DType; !slices.Contains(allowed, t) {
		o.fail(piecewise.ErrDType, "%s: %v, must be one of %v", o.names[i], t, allowed)
	}
}

// rank wants input i to have n dims; false if it has not.
func (o *operands) rank(i, n int) bool {
	if got := len(o.inputs[i].Dims); got != n {
		o.fail(piecewise.ErrShape, "%s: %v: %d dims, must have %d", o.names[i], o.inputs[i], got, n)
	}
	return o.err == nil
}

// minRank wants input i to have n dims at least; false if it has not.
func (o *operands) minRank(i, n int) bool {
	if got := len(o.inputs[i].Dims); got < n {
		o.fail(piecewise.ErrShape, "%s: %v: %d dims, must have %d at least", o.names[i], o.inputs[i], got, n)
	}
	return o.err == nil
}

// dim wants dim d of input i to be `want`, which is `why`.
func (o *operands) dim(i, d int, want piecewise.Dim, why string) {
	if o.err == nil && o.inputs[i].Dims[d] != want {
		o.fail(piecewise.ErrShape, "%s: %v: dim %d must be %v, %s", o.names[i], o.inputs[i], d, want, why)
	}
}

// same wants input i to have the type of input k.
func (o *operands) same(i, k int) {
	if o.err == nil && !o.inputs[i].Equal(o.inputs[k]) {
		kind := piecewise.ErrShape
		if o.inputs[i].DType != o.inputs[k].DType {
			kind = piecewise.ErrDType
		}
		o.fail(kind, "%s: %v, must be as %s: %v", o.names[i], o.inputs[i], o.names[k], o.inputs[k])
	}
}

// weight wants a constant tensor of n dims, f32 or bf16.
func (o *operands) weight(i, n int) bool {
	o.dtype(i, floats...)
	if !o.rank(i, n) {
		return false
	}
	for d, dim := range o.inputs[i].Dims {
		if !dim.IsConstant() {
			o.fail(piecewise.ErrShape, "%s: %v: dim %d must be constant", o.names[i], o.inputs[i], d)
		}
	}
	return o.err == nil
}

// index wants an int32 vector.
func (o *operands) index(i int) bool {
	o.dtype(i, piecewise.I32)
	return o.rank(i, 1)
}

var floats = []piecewise.DType{piecewise.F32, piecewise.BF16}

// inference wraps the checks and the result of one op.
func inference(names []string, infer func(o *operands, attrs []piecewise.Attr) []piecewise.Type) func([]piecewise.Type, []piecewise.Attr) ([]piecewise.Type, error) {
	return func(inputs []piecewise.Type, attrs []piecewise.Attr) ([]piecewise.Type, error) {
		o := &operands{names: names, inputs: inputs}
		types := infer(o, attrs)
		if o.err != nil {
			return nil, o.err
		}
		return types, nil
	}
}

func constant(n int64) piecewise.Dim { return piecewise.Dim{Constant: n} }

// positive wants a float attribute to be a number above zero.
func (o *operands) positive(a piecewise.Attr) {
	if !(a.Float > 0) || math.IsInf(a.Float, 0) {
		o.fail(piecewise.ErrAttribute, "attribute `%s`: %v, must be positive", a.Name, a.Float)
	}
}

// notNegative wants a number of zero or more.
func (o *operands) notNegative(a piecewise.Attr) {
	bad := a.Int < 0
	if a.Type == piecewise.AttrFloat {
		bad = !(a.Float >= 0) || math.IsInf(a.Float, 0)
	}
	if bad {
		o.fail(piecewise.ErrAttribute, "attribute `%s`: must not be negative", a.Name)
	}
}

// oneOf wants a string attribute to be one of these.
func (o *operands) oneOf(a piecewise.Attr, allowed ...string) {
	if !slices.Contains(allowed, a.String) {
		o.fail(piecewise.ErrAttribute, "attribute `%s`: %q, must be one of %q", a.Name, a.String, allowed)
	}
}
