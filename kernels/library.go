// Package kernels is the op library: one schema an op, with its symbolic inference. How an op runs is the device's part
// (kernels/host). docs/ops.md is the table for users, in the same order.
package kernels

import "github.com/libadcg/libadcg/piecewise"

// Library gives the schemas of every built-in op, each call its own.
func Library() []piecewise.OpSchema {
	return []piecewise.OpSchema{
		embedding(), linear(),
		rmsNorm(), layerNorm(), addRMSNorm(), qkNorm(),
		add(), mul(), siluMul(), geluMul(), sigmoidMul(), silu(), relu2(), sigmoid(), cast(),
		rope(), attention(), pagedAttention(), mlaAttention(), pagedMLAAttention(),
		attentionMetadata(), pagedMetadata(), gatherTokens(),
		softmax(), argmax(), sample(),
		reshape(), slice(), concat(),
		causalConv1d(), ssm(), ssmMetadata(), deltaRule(), gatedDeltaRule(), gdnGating(), moeRouter(), moe(),
	}
}

func floatAttr(name string, value float64, doc string) piecewise.AttrSpec {
	return piecewise.AttrSpec{Default: piecewise.Attr{Name: name, Type: piecewise.AttrFloat, Float: value}, Doc: doc}
}

func intAttr(name string, value int64, doc string) piecewise.AttrSpec {
	return piecewise.AttrSpec{Default: piecewise.Attr{Name: name, Type: piecewise.AttrInt, Int: value}, Doc: doc}
}

func boolAttr(name string, value bool, doc string) piecewise.AttrSpec {
	a := piecewise.Attr{Name: name, Type: piecewise.AttrBool}
	if value {
		a.Int = 1
	}
	return piecewise.AttrSpec{Default: a, Doc: doc}
}

func stringAttr(name, value, doc string) piecewise.AttrSpec {
	return piecewise.AttrSpec{Default: piecewise.Attr{Name: name, Type: piecewise.AttrString, String: value}, Doc: doc}
}

// inPlace lets output 0 overwrite any of these inputs.
func inPlace(inputs ...int) []piecewise.Alias {
	aliases := make([]piecewise.Alias, len(inputs))
	for i, input := range inputs {
		aliases[i] = piecewise.Alias{Output: 0, Input: input, Kind: piecewise.AliasInPlace}
	}
	return aliases
}
