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

// normal gives strides of a type, zeroed if they are those of a compact tensor: a dim of extent 1 may have any. One of
// the first dim counts, since it depends on the step.
func normal(t Type, s Strides) Strides {
	for i, c := range compactStrides(t) {
		if i < len(t.Dims) && s[i] != c && (i == 0 || t.Dims[i].Constant != 1) {
			return s
		}
	}
	return Strides{}
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

// hull is the bytes of a row, and of a value within each row of its memory: [from, to), if all rows are pitch apart.
func (f form) hull(t Type) (from, to, pitch int64) {
	s := f.stridesOf(t)
	last := int64(0)
	for i := 1; i < len(t.Dims); i++ {
		last += (t.Dims[i].Constant - 1) * s[i]
	}
	size := t.DType.Size()
	return f.offset, f.offset + (last+1)*size, s[0] * size
}

// apart tells whether two values of one memory share no byte at any size: as columns of the same rows. Others, which only
// their extents at some size keep apart, count as sharing.
func apart(f form, t Type, g form, u Type) bool {
	a0, a1, pitch := f.hull(t)
	b0, b1, other := g.hull(u)
	return pitch == other && a1 <= pitch && b1 <= pitch && (a1 <= b0 || b1 <= a0)
}
