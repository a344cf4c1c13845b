package piecewise

// Strides are the elements from one index to the next, per dim; all zero of a compact tensor.
type Strides [MaxNDim]int64

// form is how a value lies in its memory: from a byte on, with strides.
type form struct {
	offset  int64
	strides Strides
}

func (f form) isCompact() bool { return f.strides == Strides{} }

// compactStrides of a type. The first dim's extent, which may depend on a count, has no part in them.
func compactStrides(t Type) Strides {
	var s Strides
	n := int64(1)
	for i := len(t.Dims) - 1; i >= 0; i-- {
		s[i] = n
		n *= t.Dims[i].Constant
	}
	return s
}

// stridesOf are a value's strides, also if it is compact.
func (f form) stridesOf(t Type) Strides {
	if f.isCompact() {
		return compactStrides(t)
	}
	return f.strides
}

// normal gives strides of a type in the one form that stands for all that reach the same elements: zeroed if they are those
// of a compact tensor, and of a dim of extent 1, which may have any, those of a dense one. The first dim's extent depends on
// the step.
func normal(t Type, s Strides) Strides {
	compact := true
	dense := int64(1)
	for i := len(t.Dims) - 1; i >= 0; i-- {
		if i > 0 && t.Dims[i].Constant == 1 {
			s[i] = 1
			if i < len(t.Dims)-1 {
				s[i] = s[i+1] * t.Dims[i+1].Constant
			}
		} else if s[i] != dense {
			compact = false
		}
		dense *= t.Dims[i].Constant
	}
	if compact {
		return Strides{}
	}
	return s
}

// part is the form of a part of a value that has the form f.
func (f form) part(whole, part Type, at Part) form {
	s := f.stridesOf(whole)
	return form{f.offset + at.Start*s[at.Axis]*whole.DType.Size(), normal(part, s)}
}

// view is the form of a value that shows the same elements under another shape; false if no strides can.
func (f form) view(from, to Type) (form, bool) {
	if f.isCompact() {
		return f, true
	}
	if from.DType != to.DType || from.Dims[0] != to.Dims[0] {
		return form{}, false
	}
	out := Strides{0: f.strides[0]}
	// Dims are matched in groups of equal product. Within a group, the old ones must lie as if they were one.
	i, j := 1, 1
	for i < len(from.Dims) || j < len(to.Dims) {
		i1, j1 := i, j
		m, n := int64(1), int64(1)
		for i1 < len(from.Dims) && (i1 == i || m < n) || j1 < len(to.Dims) && (j1 == j || n < m) {
			if i1 < len(from.Dims) && (m <= n || j1 == len(to.Dims)) {
				m *= from.Dims[i1].Constant
				i1++
			} else {
				n *= to.Dims[j1].Constant
				j1++
			}
		}
		if m != n {
			return form{}, false // the view is smaller
		}
		step, run, outer := int64(1), int64(1), true // stride and extent of the group as one dim
		for k := i1 - 1; k >= i; k-- {
			extent := from.Dims[k].Constant
			if extent == 1 {
				continue
			}
			if outer {
				step, outer = f.strides[k], false
			} else if f.strides[k] != step*run {
				return form{}, false
			}
			run *= extent
		}
		for k := j1 - 1; k >= j; k-- {
			out[k] = step
			step *= to.Dims[k].Constant
		}
		i, j = i1, j1
	}
	if last := len(to.Dims) - 1; out[last] != 1 && (last == 0 || to.Dims[last].Constant != 1) {
		return form{}, false
	}
	return form{f.offset, normal(to, out)}, true
}

// hull is the columns of a value, bytes [from, to) of each row that it has; rows are pitch apart.
func (f form) hull(t Type) (from, to, pitch int64) {
	s := f.stridesOf(t)
	last := int64(0)
	for i := 1; i < len(t.Dims); i++ {
		last += (t.Dims[i].Constant - 1) * s[i]
	}
	size := t.DType.Size()
	pitch = s[0] * size
	from = f.offset % max(pitch, 1) // it may begin in a later row
	return from, from + (last+1)*size, pitch
}

// apart tells whether two values of one memory share no byte at any size: as columns of the same rows. Others, which only
// their extents at some size keep apart, count as sharing.
func apart(f form, t Type, g form, u Type) bool {
	a0, a1, pitch := f.hull(t)
	b0, b1, other := g.hull(u)
	return pitch == other && a1 <= pitch && b1 <= pitch && (a1 <= b0 || b1 <= a0)
}
