package kernels

import "github.com/libadcg/libadcg/piecewise"

var (
	tokens  = piecewise.Dim{Tokens: 1}
	seqs    = piecewise.Dim{Seqs: 1}
	offsets = piecewise.Dim{Seqs: 1, Constant: 1} // of prefix sums over sequences
)

func gatherTokens() piecewise.OpSchema {
	return piecewise.OpSchema{
		Name: "adcg.gather_tokens", Doc: "hidden [T, ...], indices [S] int32 -> [S, ...]: rows of hidden",
		Kind: piecewise.Dynamic, Capture: piecewise.CaptureAlways, NumInputs: 2, NumOutputs: 1, StridedInputs: 1, StridedOutputs: 1,
		Infer: inference([]string{"hidden", "indices"}, func(o *operands, _ []piecewise.Attr) []piecewise.Type {
			o.dtype(0, floats...)
			if !o.minRank(0, 2) || !o.index(1) {
				return nil
			}
			o.dim(0, 0, tokens, "the step's tokens")
			o.dim(1, 0, seqs, "one a sequence")
			dims := append([]piecewise.Dim{o.inputs[1].Dims[0]}, o.inputs[0].Dims[1:]...)
			return []piecewise.Type{{DType: o.inputs[0].DType, Dims: dims}}
		}),
	}
}
