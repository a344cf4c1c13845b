package kernels

import "github.com/libadcg/libadcg/piecewise"

// Attributes of moe_router.
const (
	routerScoring = iota
	routerTopK
	routerGroups
	routerTopGroups
	routerNorm
	routerFactor
)

func moeRouter() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.moe_router",
		Doc: "logits [R, E], correction_bias [E] (optional) -> weights [R, top_k] f32, indices [R, top_k] int32: the experts of each row, " +
			"ascending, and their weights",
		Kind: piecewise.Static, NumInputs: 2, NumOptionalInputs: 1, NumOutputs: 2, Flags: piecewise.FlagRowWise, StridedInputs: 1,
		Attrs: []piecewise.AttrSpec{
			stringAttr("scoring", "softmax", `of the logits: "softmax" over all experts, "sigmoid" of each`),
			{Default: piecewise.Attr{Name: "top_k", Type: piecewise.AttrInt}, Required: true, Doc: "experts of a row"},
			intAttr("n_group", 1, "groups of neighbouring experts, of one size"),
			intAttr("topk_group", 1, "groups that a row may choose from: those whose two largest biased scores have the largest sums"),
			boolAttr("norm_topk_prob", true, "a row's weights are divided by their sum + 1e-20"),
			floatAttr("routed_scaling_factor", 1, "of the weights, the last thing"),
		},
		Infer: inference([]string{"logits", "correction_bias"}, inferMoeRouter),
	}
}

func inferMoeRouter(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	o.oneOf(attrs[routerScoring], "softmax", "sigmoid")
	o.positive(attrs[routerFactor])
	o.dtype(0, floats...)
	if !o.rank(0, 2) {
		return nil
	}
	experts, k, groups, topGroups := o.inputs[0].Dims[1].Constant, attrs[routerTopK].Int, attrs[routerGroups].Int, attrs[routerTopGroups].Int
	switch {
	case groups < 1 || experts%groups != 0:
		o.fail(piecewise.ErrAttribute, "attribute `n_group`: %d, must divide the %d experts", groups, experts)
	case groups > 1 && experts/groups < 2:
		o.fail(piecewise.ErrAttribute, "attribute `n_group`: %d of %d experts, a group must have two at least: their scores' sum ranks it", groups, experts)
	case groups > 1 && attrs[routerScoring].String != "sigmoid":
		o.fail(piecewise.ErrAttribute, "attribute `n_group`: %d, groups are of sigmoid scoring alone", groups)
	case topGroups < 1 || topGroups > groups:
		o.fail(piecewise.ErrAttribute, "attribute `topk_group`: %d, must be 1 to n_group, %d", topGroups, groups)
	case k < 1 || k > experts/groups*topGroups:
		o.fail(piecewise.ErrAttribute, "attribute `top_k`: %d, must be 1 to %d, the experts that a row may choose from", k, experts/groups*topGroups)
	}
	if o.given(1) && o.weight(1, 1) {
		o.dim(1, 0, constant(experts), "the experts of logits")
	}
	dims := []piecewise.Dim{o.inputs[0].Dims[0], constant(k)}
	return []piecewise.Type{{DType: piecewise.F32, Dims: dims}, {DType: piecewise.I32, Dims: dims}}
}

// Inputs of moe.
const (
	moeX = iota
	moeWeights
	moeIndices
	moeUp
	moeDown
)

func moe() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.moe",
		Doc: "x [R, h], weights [R, k] f32, indices [R, k] int32, up [E, 2I, h] (gate rows first; not gated: [E, I, h]), down [E, h, I] -> [R, h]: " +
			"the weighted sum of down (activation(gate x) * up x) over each row's experts",
		Kind: piecewise.Static, NumInputs: 5, NumOutputs: 1, Flags: piecewise.FlagRowWise, Aliases: inPlace(moeX),
		StridedInputs: 1 << moeX, StridedOutputs: 1,
		Attrs: []piecewise.AttrSpec{
			stringAttr("activation", "silu", `"silu", "gelu_tanh", "relu2"`),
			boolAttr("gated", true, "false: down activation(up x)"),
		},
		Infer: inference([]string{"x", "weights", "indices", "up", "down"}, inferMoe),
	}
}

func inferMoe(o *operands, attrs []piecewise.Attr) []piecewise.Type {
	o.oneOf(attrs[0], "silu", "gelu_tanh", "relu2")
	o.dtype(moeX, floats...)
	o.dtype(moeWeights, piecewise.F32)
	o.dtype(moeIndices, piecewise.I32)
	if !o.rank(moeX, 2) || !o.rank(moeWeights, 2) || !o.rank(moeIndices, 2) || !o.weight(moeUp, 3) || !o.weight(moeDown, 3) {
		return nil
	}
	x, up, down := o.inputs[moeX].Dims, o.inputs[moeUp].Dims, o.inputs[moeDown].Dims
	o.dim(moeWeights, 0, x[0], "the rows of x")
	o.dim(moeIndices, 0, x[0], "the rows of x")
	o.dim(moeIndices, 1, o.inputs[moeWeights].Dims[1], "one an expert of a row, as in weights")
	o.dim(moeUp, 2, x[1], "the elements of a row of x")
	o.dim(moeDown, 0, up[0], "the experts of up")
	o.dim(moeDown, 1, x[1], "the elements of a row of x")
	if attrs[1].Int != 0 {
		o.dim(moeUp, 1, constant(2*down[2].Constant), "gate and up rows, twice the last dim of down")
	} else {
		o.dim(moeUp, 1, down[2], "the last dim of down")
	}
	return o.inputs[:1]
}
