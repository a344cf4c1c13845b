package piecewise

import (
	"errors"
	"fmt"
)

// maxBytes is the largest value or workspace that is taken seriously, 2^46 bytes: sums of a hundred thousand of them
// stay within an int64.
const maxBytes = int64(1) << 46

// checkType says whether a type can be a value's: element type known, 1 to MaxNDim dims, only the first depends on a
// count, no coefficient negative, nothing negative at the smallest step, and a size that can be meant at the limits.
func checkType(what string, t Type, l Limits) error {
	if t.DType.Size() == 0 {
		return Errorf(ErrDType, "%s: element type %d is unknown", what, int32(t.DType))
	}
	if len(t.Dims) < 1 || len(t.Dims) > MaxNDim {
		return Errorf(ErrShape, "%s: %d dims, must be 1 to %d", what, len(t.Dims), MaxNDim)
	}
	bytes := t.DType.Size()
	for i, d := range t.Dims {
		switch {
		case d.Tokens < 0 || d.Seqs < 0:
			return Errorf(ErrShape, "%s: dim %d is %s, its coefficients must not be negative", what, i, d)
		case d.Tokens > maxBytes || d.Seqs > maxBytes || d.Constant > maxBytes || d.Constant < -maxBytes:
			return Errorf(ErrShape, "%s: dim %d is %s, which is too large", what, i, d)
		case i > 0 && !d.IsConstant():
			return Errorf(ErrShape, "%s: dim %d is %s, only the first may depend on a count", what, i, d)
		case i > 0 && d.Constant < 1:
			return Errorf(ErrShape, "%s: dim %d is %s, must be at least 1", what, i, d)
		case d.At(1, 1) < 0:
			return Errorf(ErrShape, "%s: dim %d is %s, which is %d at 1 token and 1 sequence", what, i, d, d.At(1, 1))
		}
		// Products stay below 2^46 * 2^31 only if they are looked at one factor at a time.
		extent := max(d.Constant, 0)
		for _, term := range [][2]int64{{d.Tokens, l.MaxTokens}, {d.Seqs, l.MaxSeqs}} {
			if term[0] > 0 && term[1] > maxBytes/term[0] {
				return Errorf(ErrShape, "%s: dim %d is %s, which is too large", what, i, d)
			}
			extent += term[0] * term[1]
		}
		if extent > 0 && bytes > maxBytes/extent {
			return Errorf(ErrShape, "%s: %s has more than 2^46 bytes at %d tokens and %d sequences", what, t, l.MaxTokens, l.MaxSeqs)
		}
		bytes *= max(extent, 1)
	}
	return nil
}

// byteFormula is a type's size in bytes, as a formula over the counts.
func byteFormula(t Type) Dim {
	row := t.RowBytes()
	return Dim{t.Dims[0].Tokens * row, t.Dims[0].Seqs * row, t.Dims[0].Constant * row}
}

// inferTypes finds the types of a node's outputs, symbolically or by discovery. Its inputs' types must be known.
func inferTypes(values []ValueInfo, n *Node, l Limits) ([]Type, error) {
	inputs := make([]Type, len(n.Inputs))
	for i, v := range n.Inputs {
		inputs[i] = values[v].Type.clone()
	}
	var types []Type
	var err error
	if n.Schema.Infer != nil {
		if types, err = n.Schema.Infer(inputs, n.Attrs); err != nil {
			return nil, opError(n, err)
		}
		if len(types) != n.Schema.NumOutputs {
			return nil, Errorf(ErrOp, "op `%s`: infer gave %d outputs, the op has %d", n.Name, len(types), n.Schema.NumOutputs)
		}
	} else if types, err = discover(n, inputs, l); err != nil {
		return nil, err
	}
	out := make([]Type, len(types))
	for k, t := range types {
		if err := checkType(fmt.Sprintf("op `%s`: output %d", n.Name, k), t, l); err != nil {
			return nil, err
		}
		out[k] = t.clone()
		if in := n.Schema.viewOf(k); in >= 0 {
			root := values[n.Inputs[in]]
			if !covers(byteFormula(root.Type), byteFormula(t)) {
				return nil, Errorf(ErrShape, "op `%s`: output %d, %s, is a view of `%s`, %s, which is smaller", n.Name, k, t, root.Name, root.Type)
			}
		}
	}
	return out, nil
}

// covers tells whether a is at least b at every size of at least one token and one sequence.
func covers(a, b Dim) bool {
	return a.Tokens >= b.Tokens && a.Seqs >= b.Seqs && a.At(1, 1) >= b.At(1, 1)
}

// findParts asks a node where its parts lie, and checks that they lie within the whole. Types are those of its outputs.
func findParts(values []ValueInfo, n *Node, types []Type) ([]Part, error) {
	if n.Schema.Part == nil {
		return nil, nil
	}
	inputs, outputs := make([]Type, len(n.Inputs)), make([]Type, len(types))
	for i, v := range n.Inputs {
		inputs[i] = values[v].Type.clone()
	}
	for k, t := range types {
		outputs[k] = t.clone()
	}
	parts := make([]Part, len(n.Schema.Aliases))
	for i, a := range n.Schema.Aliases {
		if a.Kind != AliasPart && a.Kind != AliasJoin || a.Input >= len(n.Inputs) {
			continue
		}
		var err error
		if parts[i], err = n.Schema.Part(i, inputs, outputs, n.Attrs); err != nil {
			return nil, opError(n, err)
		}
		whole, part := values[n.Inputs[a.Input]].Type, types[a.Output]
		if a.Kind == AliasJoin {
			whole, part = part, whole
		}
		if !isPart(whole, part, parts[i]) {
			return nil, Errorf(ErrOp, "op `%s`: aliases[%d]: %s is no part of %s along axis %d from %d on", n.Name, i, part, whole, parts[i].Axis, parts[i].Start)
		}
	}
	return parts, nil
}

// isPart tells whether a tensor is a part of another, at every size.
func isPart(whole, part Type, at Part) bool {
	if whole.DType != part.DType || len(whole.Dims) != len(part.Dims) || at.Axis < 0 || at.Axis >= len(whole.Dims) ||
		at.Start < 0 || at.Start > maxBytes {
		return false
	}
	for i, d := range part.Dims {
		if i == at.Axis {
			d.Constant += at.Start
			if !covers(whole.Dims[i], d) {
				return false
			}
		} else if d != whole.Dims[i] {
			return false
		}
	}
	return true
}

// opError puts the op before an error of one of its callbacks. The kind stays; an error that is not of this package
// is wrapped, so that errors.As still finds it.
func opError(n *Node, err error) error {
	var e *Error
	if errors.As(err, &e) && error(e) == err {
		return &Error{Kind: e.Kind, Message: fmt.Sprintf("op `%s`: %s", n.Name, e.Message)}
	}
	return fmt.Errorf("op `%s`: %w", n.Name, err)
}
