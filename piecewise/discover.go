package piecewise

// probe is one size at which an op is asked for its shapes, and what it answered.
type probe struct {
	tokens, seqs int64
	shapes       []Shape
}

// discover finds the output types of an op that has no Infer. Three sizes fix the affine form of each dim (a base, one
// with more tokens, one with more sequences); further ones, among them the limits themselves, must agree with it, so
// that rounding, clamping and products are found out.
func discover(n *Node, inputs []Type, l Limits) ([]Type, error) {
	t1, t2, t3 := probeCounts(l.MaxTokens, 61, 97, 131)
	s1, s2, s3 := probeCounts(l.MaxSeqs, 7, 11, 23)
	probes := []probe{{tokens: t1, seqs: s1}, {tokens: t2, seqs: s1}, {tokens: t1, seqs: s2},
		{tokens: t2, seqs: s2}, {tokens: t3, seqs: s3}, {tokens: l.MaxTokens, seqs: l.MaxSeqs}}
	for i := range probes {
		if err := probes[i].ask(n, inputs); err != nil {
			return nil, err
		}
	}
	types := make([]Type, n.Schema.NumOutputs)
	for k := range types {
		t, err := fit(n, k, probes)
		if err != nil {
			return nil, err
		}
		types[k] = t
	}
	return types, nil
}

// probeCounts gives three different counts up to max: primes where there is room, since they are no dim's usual size;
// below that thirds of max; and 1, 2, 3 if max is less than three, as two points need two counts.
func probeCounts(max, a, b, c int64) (int64, int64, int64) {
	switch {
	case max >= c:
		return a, b, c
	case max >= 3:
		return max / 3, 2 * max / 3, max
	}
	return 1, 2, 3
}

func (p *probe) ask(n *Node, inputs []Type) error {
	shapes := make([]Shape, len(inputs))
	for i, t := range inputs {
		shapes[i] = t.At(p.tokens, p.seqs)
	}
	answer, err := n.Schema.Discover(shapes, n.Attrs, p.tokens, p.seqs)
	if err != nil {
		return opError(n, err)
	}
	if len(answer) != n.Schema.NumOutputs {
		return Errorf(ErrOp, "op `%s`: discovery gave %d outputs, the op has %d", n.Name, len(answer), n.Schema.NumOutputs)
	}
	p.shapes = make([]Shape, len(answer))
	for k, s := range answer {
		for i, d := range s.Dims {
			if d < 0 || d > maxBytes {
				return Errorf(ErrShape, "op `%s`: output %d: dim %d is %d at %d tokens and %d sequences", n.Name, k, i, d, p.tokens, p.seqs)
			}
		}
		p.shapes[k] = Shape{DType: s.DType, Dims: append([]int64(nil), s.Dims...)}
	}
	return nil
}

// fit finds the type of output k from the probes' answers.
func fit(n *Node, k int, probes []probe) (Type, error) {
	base, tokens, seqs := probes[0], probes[1], probes[2]
	first := base.shapes[k]
	for _, p := range probes[1:] {
		s := p.shapes[k]
		if s.DType != first.DType || len(s.Dims) != len(first.Dims) {
			return Type{}, Errorf(ErrShape, "op `%s`: output %d: %s with %d dims at %d tokens and %d sequences, %s with %d dims at %d and %d",
				n.Name, k, first.DType, len(first.Dims), base.tokens, base.seqs, s.DType, len(s.Dims), p.tokens, p.seqs)
		}
	}
	t := Type{DType: first.DType, Dims: make([]Dim, len(first.Dims))}
	for i, extent := range first.Dims {
		rise, run := tokens.shapes[k].Dims[i]-extent, tokens.tokens-base.tokens
		riseS, runS := seqs.shapes[k].Dims[i]-extent, seqs.seqs-base.seqs
		d := Dim{Tokens: rise / run, Seqs: riseS / runS}
		d.Constant = extent - d.Tokens*base.tokens - d.Seqs*base.seqs
		for _, p := range probes { // a slope that is no whole number misses the very points that it was taken from
			if got := p.shapes[k].Dims[i]; got != d.At(p.tokens, p.seqs) {
				return Type{}, Errorf(ErrShape, "op `%s`: output %d: dim %d is not a*tokens + b*seqs + c: %d at %d tokens and %d sequences, %d at %d and %d",
					n.Name, k, i, extent, base.tokens, base.seqs, got, p.tokens, p.seqs)
			}
		}
		t.Dims[i] = d
	}
	return t, nil
}
