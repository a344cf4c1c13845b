package piecewise

import "math/bits"

const (
	maxInputs  = 64 // Mutates has a bit for each
	maxOutputs = 64
	allFlags   = FlagHostSync | FlagStreamSwitch | FlagZeroesTail | FlagParametric | FlagRowWise
)

// ValidateSchema says whether a schema contradicts itself. Its errors are ErrArgument.
func ValidateSchema(s *OpSchema) error {
	if s.Name == "" {
		return Errorf(ErrArgument, "op: the name is empty")
	}
	fail := func(format string, args ...any) error {
		return Errorf(ErrArgument, "op `%s`: "+format, append([]any{s.Name}, args...)...)
	}
	switch {
	case s.Kind < Static || s.Kind > Metadata:
		return fail("kind: %d, must be %d to %d", s.Kind, Static, Metadata)
	case s.Capture < CaptureNever || s.Capture > CaptureAlways:
		return fail("capture: %d, must be %d to %d", s.Capture, CaptureNever, CaptureAlways)
	case s.Flags&^allFlags != 0:
		return fail("flags: 0x%x are unknown", s.Flags&^allFlags)
	case s.NumInputs < 0 || s.NumInputs > maxInputs:
		return fail("num_inputs: %d, must be 0 to %d", s.NumInputs, maxInputs)
	case s.NumOptionalInputs < 0 || s.NumOptionalInputs > s.NumInputs:
		return fail("num_optional_inputs: %d, must be 0 to %d", s.NumOptionalInputs, s.NumInputs)
	case s.NumOutputs < 0 || s.NumOutputs > maxOutputs:
		return fail("num_outputs: %d, must be 0 to %d", s.NumOutputs, maxOutputs)
	case s.NumOutputs == 0 && s.Mutates == 0:
		return fail("num_outputs: 0, and it writes no state: it does nothing")
	case bits.Len64(s.StridedInputs) > s.NumInputs:
		return fail("strided_inputs: bit %d, but it has %d inputs", bits.Len64(s.StridedInputs)-1, s.NumInputs)
	case bits.Len64(s.StridedOutputs) > s.NumOutputs:
		return fail("strided_outputs: bit %d, but it has %d outputs", bits.Len64(s.StridedOutputs)-1, s.NumOutputs)
	case bits.Len64(s.Mutates) > s.NumInputs:
		return fail("mutates: bit %d, but it has %d inputs", bits.Len64(s.Mutates)-1, s.NumInputs)
	case s.Infer == nil && s.Discover == nil:
		return fail("neither infer nor discover")
	case s.Infer != nil && s.Discover != nil:
		return fail("both infer and discover")
	}
	if err := validateAliases(s, fail); err != nil {
		return err
	}
	return validateAttrs(s, fail)
}

func validateAliases(s *OpSchema, fail func(string, ...any) error) error {
	for i, a := range s.Aliases {
		switch {
		case a.Output < 0 || a.Output >= s.NumOutputs:
			return fail("aliases[%d]: output %d, but it has %d", i, a.Output, s.NumOutputs)
		case a.Input < 0 || a.Input >= s.NumInputs:
			return fail("aliases[%d]: input %d, but it has %d", i, a.Input, s.NumInputs)
		case a.Kind < AliasView || a.Kind > AliasJoin:
			return fail("aliases[%d]: kind %d, must be %d to %d", i, a.Kind, AliasView, AliasJoin)
		case a.Kind != AliasView && s.Mutates>>a.Input&1 != 0:
			return fail("aliases[%d]: output %d shares memory with input %d, which is a state that it writes", i, a.Output, a.Input)
		case a.Kind >= AliasPart && s.Part == nil:
			return fail("aliases[%d]: output %d and input %d are parts of each other, and part is not given", i, a.Output, a.Input)
		case a.Kind >= AliasPart && s.Kind != Static:
			return fail("aliases[%d]: parts are for static ops, this one is %s", i, s.Kind)
		}
		for _, b := range s.Aliases[:i] {
			switch {
			case a.Output != b.Output:
			case a.Kind != b.Kind:
				return fail("aliases[%d]: output %d shares memory in two ways", i, a.Output)
			case a.Kind == AliasView, a.Kind == AliasPart:
				return fail("aliases[%d]: output %d shows two inputs", i, a.Output)
			case a.Input == b.Input:
				return fail("aliases[%d]: output %d and input %d are given twice", i, a.Output, a.Input)
			}
		}
	}
	return nil
}

func validateAttrs(s *OpSchema, fail func(string, ...any) error) error {
	for i, a := range s.Attrs {
		d := a.Default
		switch {
		case d.Name == "":
			return fail("attrs[%d]: the name is empty", i)
		case d.Type < AttrInt || d.Type > AttrInts:
			return fail("attribute `%s`: type %d, must be %d to %d", d.Name, d.Type, AttrInt, AttrInts)
		case d.Type == AttrBool && d.Int != 0 && d.Int != 1:
			return fail("attribute `%s`: default %d, must be 0 or 1", d.Name, d.Int)
		}
		for _, b := range s.Attrs[:i] {
			if b.Default.Name == d.Name {
				return fail("attribute `%s`: twice", d.Name)
			}
		}
	}
	return nil
}

// viewOf is the input that an output is a view of; -1 if it is memory of its own.
func (s *OpSchema) viewOf(output int) int {
	for _, a := range s.Aliases {
		if a.Output == output && a.Kind == AliasView {
			return a.Input
		}
	}
	return -1
}

// completeAttrs gives a node's attributes in the schema's order, complete with defaults. Nothing is shared with given.
func completeAttrs(n *Node, given []Attr) ([]Attr, error) {
	fail := func(name, format string, args ...any) error {
		return Errorf(ErrAttribute, "op `%s`: attribute `%s`: "+format, append([]any{n.Name, name}, args...)...)
	}
	specs := n.Schema.Attrs
	out := make([]Attr, len(specs))
	set := make([]bool, len(specs))
	for _, a := range given {
		at := -1
		for i := range specs {
			if specs[i].Default.Name == a.Name {
				at = i
			}
		}
		if at < 0 {
			return nil, fail(a.Name, "unknown")
		}
		if set[at] {
			return nil, fail(a.Name, "given twice")
		}
		want := specs[at].Default.Type
		switch {
		case a.Type == AttrInt && want == AttrFloat:
			a.Float, a.Type = float64(a.Int), AttrFloat
		case a.Type != want:
			return nil, fail(a.Name, "type %s, must be %s", a.Type, want)
		case want == AttrBool && a.Int != 0 && a.Int != 1:
			return nil, fail(a.Name, "%d, must be 0 or 1", a.Int)
		}
		out[at], set[at] = a.only(), true
	}
	for i, spec := range specs {
		if set[i] {
			continue
		}
		if spec.Required {
			return nil, fail(spec.Default.Name, "missing")
		}
		out[i] = spec.Default.only()
	}
	return out, nil
}

// only is a copy of an attribute with the field that its type names, and zeroes in the others.
func (a Attr) only() Attr {
	b := Attr{Name: a.Name, Type: a.Type}
	switch a.Type {
	case AttrInt, AttrBool:
		b.Int = a.Int
	case AttrFloat:
		b.Float = a.Float
	case AttrString:
		b.String = a.String
	case AttrInts:
		b.Ints = append([]int64{}, a.Ints...)
	}
	return b
}
