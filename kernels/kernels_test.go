package kernels_test

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels"
	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

var schemas = func() map[string]piecewise.OpSchema {
	all := map[string]piecewise.OpSchema{}
	for _, s := range kernels.Library() {
		all[s.Name] = s
	}
	return all
}()

// typ reads "f32[tokens, 4]".
func typ(dtype piecewise.DType, dims ...any) piecewise.Type {
	t := piecewise.Type{DType: dtype}
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			t.Dims = append(t.Dims, piecewise.Dim{Constant: int64(d)})
		case string:
			t.Dims = append(t.Dims, map[string]piecewise.Dim{"T": {Tokens: 1}, "S": {Seqs: 1}, "S+1": {Seqs: 1, Constant: 1}}[d])
		}
	}
	return t
}

const (
	f32  = piecewise.F32
	bf16 = piecewise.BF16
	i32  = piecewise.I32
)

// infer runs an op's inference with its defaults, changed by name.
func infer(op string, change map[string]piecewise.Attr, inputs ...piecewise.Type) ([]piecewise.Type, error) {
	s := schemas[op]
	var attrs []piecewise.Attr
	for _, spec := range s.Attrs {
		a := spec.Default
		if c, ok := change[a.Name]; ok {
			a.Int, a.Float, a.String, a.Ints = c.Int, c.Float, c.String, c.Ints
		}
		attrs = append(attrs, a)
	}
	return s.Infer(inputs, attrs)
}

func attention(change ...func(in []piecewise.Type)) []piecewise.Type {
	in := []piecewise.Type{typ(f32, "T", 6, 16), typ(f32, "T", 2, 16), typ(f32, "T", 2, 24), typ(bf16, 3, 64, 2, 16), typ(bf16, 3, 64, 2, 24),
		typ(i32, "S+1"), typ(i32, "S"), typ(i32, "S"), typ(f32, 6)}
	for _, c := range change {
		c(in)
	}
	return in
}

// changed is a list of inputs with one of them put in.
func changed(in []piecewise.Type, i int, to piecewise.Type) []piecewise.Type {
	in = slices.Clone(in)
	in[i] = to
	return in
}

var sequences = []piecewise.Type{typ(i32, "S+1"), typ(i32, "S"), typ(i32, "S")}

func convInputs() []piecewise.Type {
	return append(append([]piecewise.Type{typ(bf16, "T", 10), typ(f32, 10, 4), typ(f32, 3, 10, 3)}, sequences...), typ(bf16, 10))
}

func ssmInputs() []piecewise.Type {
	in := []piecewise.Type{typ(bf16, "T", 6, 8), typ(f32, "T", 6), typ(f32, 6), typ(bf16, "T", 2, 16), typ(bf16, "T", 2, 16), typ(bf16, 6), typ(f32, 6), typ(f32, 3, 6, 8, 16)}
	return append(append(in, sequences...), typ(i32, "T"), typ(i32, "T"), typ(i32, "T"))
}

func deltaInputs(gates ...piecewise.Type) []piecewise.Type {
	in := append([]piecewise.Type{typ(bf16, "T", 2, 8), typ(bf16, "T", 2, 8), typ(bf16, "T", 6, 12)}, gates...)
	return append(append(in, typ(f32, 3, 6, 8, 12)), sequences...)
}

// mixture gives the inputs of moe: 6 experts, 2 a row.
func mixture(change ...func(in []piecewise.Type)) []piecewise.Type {
	in := []piecewise.Type{typ(bf16, "T", 16), typ(f32, "T", 2), typ(i32, "T", 2), typ(bf16, 6, 20, 16), typ(f32, 6, 16, 10)}
	for _, c := range change {
		c(in)
	}
	return in
}

// paged puts a page table in the place of slot_idx, of inputs whose cu_seqlens is number i.
func paged(in []piecewise.Type, i int) []piecewise.Type {
	table := []piecewise.Type{typ(i32, "S+1"), typ(i32, 100), typ(i32, "S")}
	return slices.Concat(in[:i+2], table, in[i+3:])
}

func mla(change ...func(in []piecewise.Type)) []piecewise.Type {
	in := []piecewise.Type{typ(bf16, "T", 3, 16), typ(bf16, "T", 3, 8), typ(bf16, "T", 32), typ(bf16, "T", 8), typ(f32, 3*(16+20), 32), typ(f32, 4, 64, 40),
		typ(i32, "S+1"), typ(i32, "S"), typ(i32, "S")}
	for _, c := range change {
		c(in)
	}
	return in
}

func TestInference(t *testing.T) {
	type attrs = map[string]piecewise.Attr
	for _, c := range []struct {
		op     string
		attrs  attrs
		inputs []piecewise.Type
		want   []piecewise.Type
	}{
		{"adcg.embedding", nil, []piecewise.Type{typ(i32, "T"), typ(bf16, 9, 4)}, []piecewise.Type{typ(bf16, "T", 4)}},
		{"adcg.embedding", attrs{"dtype": {String: "float32"}}, []piecewise.Type{typ(i32, "S"), typ(bf16, 9, 4)}, []piecewise.Type{typ(f32, "S", 4)}},
		{"adcg.linear", nil, []piecewise.Type{typ(f32, "T", 3, 4), typ(bf16, 7, 12)}, []piecewise.Type{typ(f32, "T", 7)}},
		{"adcg.linear", nil, []piecewise.Type{typ(bf16, "S", 12), typ(f32, 7, 12), typ(f32, 7)}, []piecewise.Type{typ(bf16, "S", 7)}},
		{"adcg.rms_norm", nil, []piecewise.Type{typ(f32, "T", 3, 4), typ(bf16, 4)}, []piecewise.Type{typ(f32, "T", 3, 4)}},
		{"adcg.rms_norm", attrs{"gate": {String: "after"}, "groups": {Int: 2}}, []piecewise.Type{typ(f32, "T", 3, 4), typ(bf16, 4), typ(f32, "T", 3, 4)}, []piecewise.Type{typ(f32, "T", 3, 4)}},
		{"adcg.layer_norm", nil, []piecewise.Type{typ(bf16, "T", 4), typ(f32, 4)}, []piecewise.Type{typ(bf16, "T", 4)}},
		{"adcg.layer_norm", nil, []piecewise.Type{typ(bf16, "T", 4), typ(f32, 4), typ(bf16, 4)}, []piecewise.Type{typ(bf16, "T", 4)}},
		{"adcg.add_rms_norm", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 4), typ(bf16, 4)}, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 4)}},
		{"adcg.qk_norm", nil, []piecewise.Type{typ(f32, "T", 6, 16), typ(f32, "T", 2, 16), typ(bf16, 16), typ(f32, 16)}, []piecewise.Type{typ(f32, "T", 6, 16), typ(f32, "T", 2, 16)}},
		{"adcg.mul", nil, []piecewise.Type{typ(f32, "T", 3, 5), typ(f32, "T", 3, 1)}, []piecewise.Type{typ(f32, "T", 3, 5)}},
		{"adcg.sigmoid_mul", nil, []piecewise.Type{typ(f32, "S", 5), typ(f32, "S", 5)}, []piecewise.Type{typ(f32, "S", 5)}},
		{"adcg.gelu_mul", attrs{"approximate": {String: "tanh"}}, []piecewise.Type{typ(f32, "T", 5), typ(f32, "T", 5)}, []piecewise.Type{typ(f32, "T", 5)}},
		{"adcg.relu2", nil, []piecewise.Type{typ(bf16, "T", 5)}, []piecewise.Type{typ(bf16, "T", 5)}},
		{"adcg.cast", attrs{"dtype": {String: "bfloat16"}}, []piecewise.Type{typ(f32, "T", 3, 5)}, []piecewise.Type{typ(bf16, "T", 3, 5)}},
		{"adcg.rope", attrs{"layout": {String: "interleaved"}, "scaling": {String: "yarn"}, "factor": {Float: 4}}, []piecewise.Type{typ(f32, "T", 3, 16), typ(i32, "T")}, []piecewise.Type{typ(f32, "T", 3, 16)}},
		{"adcg.softmax", nil, []piecewise.Type{typ(f32, "T", 3, 5)}, []piecewise.Type{typ(f32, "T", 3, 5)}},
		{"adcg.sample", attrs{"top_k": {Int: 50}, "temperature": {Float: 0}}, []piecewise.Type{typ(bf16, "S", 50), typ(f32, "S")}, []piecewise.Type{typ(i32, "S")}},
		{"adcg.add", nil, []piecewise.Type{typ(f32, "T", 3), typ(f32, "T", 3)}, []piecewise.Type{typ(f32, "T", 3)}},
		{"adcg.silu_mul", nil, []piecewise.Type{typ(bf16, "T", 3), typ(bf16, "T", 3)}, []piecewise.Type{typ(bf16, "T", 3)}},
		{"adcg.rope", attrs{"rotary_dim": {Int: 8}}, []piecewise.Type{typ(f32, "T", 3, 16), typ(i32, "T")}, []piecewise.Type{typ(f32, "T", 3, 16)}},
		{"adcg.attention", nil, attention(), []piecewise.Type{typ(f32, "T", 6, 24)}},
		{"adcg.attention", nil, attention()[:8], []piecewise.Type{typ(f32, "T", 6, 24)}},
		{"adcg.attention", nil, attention(func(in []piecewise.Type) { in[3].DType, in[4].DType = piecewise.F8E4M3, piecewise.F8E4M3 }), []piecewise.Type{typ(f32, "T", 6, 24)}},
		{"adcg.paged_attention", nil, paged(attention(), 5), []piecewise.Type{typ(f32, "T", 6, 24)}},
		{"adcg.mla_attention", nil, mla(), []piecewise.Type{typ(bf16, "T", 3, 20)}},
		{"adcg.mla_attention", nil, mla(func(in []piecewise.Type) { in[5].DType = piecewise.F8E4M3 }), []piecewise.Type{typ(bf16, "T", 3, 20)}},
		{"adcg.paged_mla_attention", nil, paged(mla(), 6), []piecewise.Type{typ(bf16, "T", 3, 20)}},
		{"adcg.paged_metadata", attrs{"max_pages": {Int: 9}}, []piecewise.Type{typ(i32, "S+1"), typ(i32, 50)}, []piecewise.Type{typ(i32, "S", 9)}},
		{"adcg.paged_metadata", attrs{"max_pages": {Int: 9}}, []piecewise.Type{typ(i32, "S+1"), typ(i32, "T")}, []piecewise.Type{typ(i32, "S", 9)}},
		{"adcg.attention_metadata", nil, []piecewise.Type{typ(i32, "S+1"), typ(i32, "S")}, []piecewise.Type{typ(i32, "T"), typ(i32, "T")}},
		{"adcg.gather_tokens", nil, []piecewise.Type{typ(f32, "T", 3, 4), typ(i32, "S")}, []piecewise.Type{typ(f32, "S", 3, 4)}},
		{"adcg.argmax", nil, []piecewise.Type{typ(bf16, "S", 50)}, []piecewise.Type{typ(i32, "S")}},
		{"adcg.reshape", attrs{"dims": {Ints: []int64{2, 6}}}, []piecewise.Type{typ(f32, "T", 3, 4)}, []piecewise.Type{typ(f32, "T", 2, 6)}},
		{"adcg.slice", attrs{"start": {Int: 1}, "length": {Int: 2}}, []piecewise.Type{typ(f32, "T", 3, 4)}, []piecewise.Type{typ(f32, "T", 3, 2)}},
		{"adcg.slice", attrs{"axis": {Int: -2}, "start": {Int: 1}}, []piecewise.Type{typ(bf16, "T", 3, 4)}, []piecewise.Type{typ(bf16, "T", 2, 4)}},
		{"adcg.slice", attrs{"axis": {Int: 0}, "start": {Int: 1}}, []piecewise.Type{typ(i32, "S+1")}, []piecewise.Type{typ(i32, "S")}},
		{"adcg.slice", attrs{"axis": {Int: 0}, "start": {Int: 4}, "length": {Int: 5}}, []piecewise.Type{typ(i32, 9)}, []piecewise.Type{typ(i32, 5)}},
		{"adcg.concat", nil, []piecewise.Type{typ(f32, "T", 3), typ(f32, "T", 4), typ(f32, "T", 1)}, []piecewise.Type{typ(f32, "T", 8)}},
		{"adcg.concat", attrs{"axis": {Int: 1}}, []piecewise.Type{typ(i32, "S", 3, 2), typ(i32, "S", 4, 2)}, []piecewise.Type{typ(i32, "S", 7, 2)}},
		{"adcg.concat", attrs{"axis": {Int: 0}}, []piecewise.Type{typ(i32, 1), typ(i32, "S")}, []piecewise.Type{typ(i32, "S+1")}},
		{"adcg.causal_conv1d", attrs{"activation": {String: "silu"}}, convInputs(), []piecewise.Type{typ(bf16, "T", 10)}},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 2, typ(bf16, 3, 10, 3))[:6], []piecewise.Type{typ(bf16, "T", 10)}},
		{"adcg.ssm", attrs{"dt_min": {Float: 0.1}, "dt_max": {Float: 0.7}}, ssmInputs(), []piecewise.Type{typ(bf16, "T", 6, 8)}},
		{"adcg.ssm", nil, ssmInputs()[:11], []piecewise.Type{typ(bf16, "T", 6, 8)}},
		{"adcg.ssm_metadata", attrs{"chunk": {Int: 256}}, sequences[:1], []piecewise.Type{typ(i32, "T"), typ(i32, "T"), typ(i32, "T")}},
		{"adcg.delta_rule", nil, deltaInputs(typ(f32, "T", 6)), []piecewise.Type{typ(bf16, "T", 6, 12)}},
		{"adcg.gated_delta_rule", nil, deltaInputs(typ(f32, "T", 6), typ(bf16, "T", 6)), []piecewise.Type{typ(bf16, "T", 6, 12)}},
		{"adcg.gdn_gating", nil, []piecewise.Type{typ(bf16, "T", 6), typ(bf16, "T", 6), typ(f32, 6), typ(bf16, 6)}, []piecewise.Type{typ(f32, "T", 6), typ(f32, "T", 6)}},
		{"adcg.moe_router", attrs{"top_k": {Int: 8}}, []piecewise.Type{typ(bf16, "T", 64)}, []piecewise.Type{typ(f32, "T", 8), typ(i32, "T", 8)}},
		{"adcg.moe_router", attrs{"scoring": {String: "sigmoid"}, "top_k": {Int: 6}, "n_group": {Int: 4}, "topk_group": {Int: 2}},
			[]piecewise.Type{typ(f32, "S", 12), typ(f32, 12)}, []piecewise.Type{typ(f32, "S", 6), typ(i32, "S", 6)}},
		{"adcg.moe_router", attrs{"top_k": {Int: 1}}, []piecewise.Type{typ(f32, "T", 1)}, []piecewise.Type{typ(f32, "T", 1), typ(i32, "T", 1)}},
		{"adcg.moe", nil, mixture(), []piecewise.Type{typ(bf16, "T", 16)}},
		{"adcg.moe", attrs{"gated": {Int: 0}, "activation": {String: "relu2"}}, mixture(func(in []piecewise.Type) { in[3] = typ(f32, 6, 10, 16) }), []piecewise.Type{typ(bf16, "T", 16)}},
	} {
		got, err := infer(c.op, c.attrs, c.inputs...)
		require.NoError(t, err, c.op)
		require.Equal(t, len(c.want), len(got), c.op)
		for i := range got {
			require.True(t, c.want[i].Equal(got[i]), "%s: output %d is %v, want %v", c.op, i, got[i], c.want[i])
		}
		require.Equal(t, schemas[c.op].NumOutputs, len(got))
	}
}

func TestInferenceErrors(t *testing.T) {
	type attrs = map[string]piecewise.Attr
	put := func(i int, to piecewise.Type) []piecewise.Type {
		return attention(func(in []piecewise.Type) { in[i] = to })
	}
	putMLA := func(i int, to piecewise.Type) []piecewise.Type {
		return mla(func(in []piecewise.Type) { in[i] = to })
	}
	putPage := func(i int, to piecewise.Type) []piecewise.Type {
		in := paged(attention(), 5)
		in[i] = to
		return in
	}
	rope := []piecewise.Type{typ(f32, "T", 3, 16), typ(i32, "T")}
	norm := []piecewise.Type{typ(f32, "T", 4), typ(f32, 4)}
	sample := []piecewise.Type{typ(f32, "S", 9), typ(f32, "S")}
	logits := []piecewise.Type{typ(f32, "T", 12)}
	grouped := func(k, groups, top int64) attrs {
		return attrs{"scoring": {String: "sigmoid"}, "top_k": {Int: k}, "n_group": {Int: groups}, "topk_group": {Int: top}}
	}
	mix := func(i int, to piecewise.Type) []piecewise.Type {
		return mixture(func(in []piecewise.Type) { in[i] = to })
	}
	for _, c := range []struct {
		op     string
		attrs  attrs
		inputs []piecewise.Type
		kind   piecewise.ErrorKind
		names  string // what the message speaks of
	}{
		{"adcg.embedding", nil, []piecewise.Type{typ(f32, "T"), typ(f32, 9, 4)}, piecewise.ErrDType, "ids"},
		{"adcg.embedding", nil, []piecewise.Type{typ(i32, "T"), typ(f32, "T", 4)}, piecewise.ErrShape, "table"},
		{"adcg.embedding", attrs{"dtype": {String: "int8"}}, []piecewise.Type{typ(i32, "T"), typ(f32, 9, 4)}, piecewise.ErrAttribute, "dtype"},
		{"adcg.linear", nil, []piecewise.Type{typ(i32, "T", 4), typ(f32, 7, 4)}, piecewise.ErrDType, "x"},
		{"adcg.linear", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, 7, 5)}, piecewise.ErrShape, "weight"},
		{"adcg.linear", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, 7, 4), typ(f32, 6)}, piecewise.ErrShape, "bias"},
		{"adcg.rms_norm", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, 5)}, piecewise.ErrShape, "weight"},
		{"adcg.rms_norm", attrs{"eps": {Float: -1}}, []piecewise.Type{typ(f32, "T", 4), typ(f32, 4)}, piecewise.ErrAttribute, "eps"},
		{"adcg.linear", attrs{"activation": {String: "elu"}}, []piecewise.Type{typ(f32, "T", 4), typ(f32, 7, 4)}, piecewise.ErrAttribute, "`activation`: \"elu\""},
		{"adcg.rms_norm", attrs{"groups": {Int: 3}}, norm, piecewise.ErrAttribute, "`groups`: 3, must divide x's last dim, 4"},
		{"adcg.rms_norm", attrs{"groups": {Int: 0}}, norm, piecewise.ErrAttribute, "groups"},
		{"adcg.rms_norm", attrs{"gate": {String: "first"}}, norm, piecewise.ErrAttribute, "gate"},
		{"adcg.rms_norm", attrs{"gate": {String: "before"}}, norm, piecewise.ErrGraph, "z: missing"},
		{"adcg.rms_norm", nil, append(slices.Clone(norm), typ(f32, "T", 4)), piecewise.ErrAttribute, "z is given"},
		{"adcg.rms_norm", attrs{"gate": {String: "after"}}, append(slices.Clone(norm), typ(bf16, "T", 4)), piecewise.ErrDType, "z"},
		{"adcg.layer_norm", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, 4), typ(f32, 5)}, piecewise.ErrShape, "bias"},
		{"adcg.layer_norm", attrs{"eps": {Float: math.Inf(1)}}, norm, piecewise.ErrAttribute, "eps"},
		{"adcg.layer_norm", nil, []piecewise.Type{typ(f32, "T"), typ(f32, 4)}, piecewise.ErrShape, "x"},
		{"adcg.add_rms_norm", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 5), typ(f32, 4)}, piecewise.ErrShape, "b"},
		{"adcg.add_rms_norm", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 4), typ(f32, 5)}, piecewise.ErrShape, "weight"},
		{"adcg.qk_norm", nil, []piecewise.Type{typ(f32, "T", 6, 16), typ(f32, "T", 2, 8), typ(f32, 16), typ(f32, 8)}, piecewise.ErrShape, "k"},
		{"adcg.qk_norm", nil, []piecewise.Type{typ(f32, "T", 6, 16), typ(bf16, "T", 2, 16), typ(f32, 16), typ(f32, 16)}, piecewise.ErrDType, "k"},
		{"adcg.qk_norm", nil, []piecewise.Type{typ(f32, "T", 6, 16), typ(f32, "T", 2, 16), typ(f32, 16), typ(f32, 8)}, piecewise.ErrShape, "k_weight"},
		{"adcg.mul", nil, []piecewise.Type{typ(f32, "T", 3, 5), typ(f32, "T", 2, 1)}, piecewise.ErrShape, "b"},
		{"adcg.mul", nil, []piecewise.Type{typ(f32, "T", 3, 5), typ(f32, "T", 1)}, piecewise.ErrShape, "a"},
		{"adcg.mul", nil, []piecewise.Type{typ(f32, "T", 5), typ(bf16, "T", 1)}, piecewise.ErrDType, "b"},
		{"adcg.sigmoid_mul", nil, []piecewise.Type{typ(f32, "T", 5), typ(f32, "T", 4)}, piecewise.ErrShape, "gate"},
		{"adcg.gelu_mul", attrs{"approximate": {String: "erf"}}, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 4)}, piecewise.ErrAttribute, "approximate"},
		{"adcg.gelu_mul", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 5)}, piecewise.ErrShape, "up"},
		{"adcg.silu", nil, []piecewise.Type{typ(i32, "T", 4)}, piecewise.ErrDType, "x"},
		{"adcg.cast", attrs{"dtype": {String: "float16"}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "dtype"},
		{"adcg.cast", attrs{"dtype": {String: "float32"}}, []piecewise.Type{typ(i32, "T", 4)}, piecewise.ErrDType, "x"},
		{"adcg.rope", attrs{"layout": {String: "halves"}}, rope, piecewise.ErrAttribute, "layout"},
		{"adcg.rope", attrs{"layout": {String: "interleaved"}}, []piecewise.Type{typ(f32, "T", 1, 514), typ(i32, "T")}, piecewise.ErrAttribute, "`rotary_dim`: 514"},
		{"adcg.rope", attrs{"scaling": {String: "yarn"}, "beta_slow": {Float: 33}}, rope, piecewise.ErrAttribute, "beta_fast"},
		{"adcg.rope", attrs{"scaling": {String: "yarn"}, "theta": {Float: 1}}, rope, piecewise.ErrAttribute, "theta"},
		{"adcg.rope", attrs{"mscale": {Float: -1}}, rope, piecewise.ErrAttribute, "mscale"},
		{"adcg.rope", attrs{"attention_factor": {Float: math.NaN()}}, rope, piecewise.ErrAttribute, "attention_factor"},
		{"adcg.softmax", nil, []piecewise.Type{typ(f32, "T")}, piecewise.ErrShape, "x"},
		{"adcg.sample", attrs{"top_p": {Float: 0}}, sample, piecewise.ErrAttribute, "`top_p`: 0"},
		{"adcg.sample", attrs{"top_p": {Float: 1.5}}, sample, piecewise.ErrAttribute, "top_p"},
		{"adcg.sample", attrs{"top_k": {Int: -1}}, sample, piecewise.ErrAttribute, "top_k"},
		{"adcg.sample", attrs{"temperature": {Float: -1}}, sample, piecewise.ErrAttribute, "temperature"},
		{"adcg.sample", nil, []piecewise.Type{typ(f32, "S", 9), typ(bf16, "S")}, piecewise.ErrDType, "uniform"},
		{"adcg.sample", nil, []piecewise.Type{typ(f32, "S", 9), typ(f32, "T")}, piecewise.ErrShape, "uniform"},
		{"adcg.add", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, "S", 4)}, piecewise.ErrShape, "b"},
		{"adcg.silu_mul", nil, []piecewise.Type{typ(f32, "T", 4), typ(bf16, "T", 4)}, piecewise.ErrDType, "up"},
		{"adcg.rope", nil, []piecewise.Type{typ(f32, "T", 3, 16), typ(i32, "S")}, piecewise.ErrShape, "positions"},
		{"adcg.rope", attrs{"rotary_dim": {Int: 7}}, rope, piecewise.ErrAttribute, "rotary_dim"},
		{"adcg.rope", attrs{"rotary_dim": {Int: 18}}, rope, piecewise.ErrAttribute, "rotary_dim"},
		{"adcg.rope", attrs{"scaling": {String: "ntk"}}, rope, piecewise.ErrAttribute, "scaling"},
		{"adcg.rope", attrs{"scaling": {String: "llama3"}, "low_freq_factor": {Float: 4}}, rope, piecewise.ErrAttribute, "high_freq_factor"},
		{"adcg.rope", attrs{"theta": {Float: 0}}, rope, piecewise.ErrAttribute, "theta"},
		{"adcg.attention", nil, put(0, typ(f32, "T", 5, 16)), piecewise.ErrShape, "q"},
		{"adcg.attention", nil, put(1, typ(bf16, "T", 2, 16)), piecewise.ErrDType, "k"},
		{"adcg.attention", nil, put(2, typ(f32, "T", 1, 24)), piecewise.ErrShape, "v"},
		{"adcg.attention", nil, put(3, typ(bf16, 3, 64, 2, 24)), piecewise.ErrShape, "k_cache"},
		{"adcg.attention", nil, put(4, typ(bf16, 3, 63, 2, 24)), piecewise.ErrShape, "v_cache"},
		{"adcg.attention", nil, put(4, typ(f32, 3, 64, 2, 24)), piecewise.ErrDType, "v_cache"},
		{"adcg.attention", nil, put(5, typ(i32, "S")), piecewise.ErrShape, "cu_seqlens"},
		{"adcg.attention", nil, put(6, typ(piecewise.I64, "S")), piecewise.ErrDType, "input_pos"},
		{"adcg.attention", nil, put(7, typ(i32, "T")), piecewise.ErrShape, "slot_idx"},
		{"adcg.attention", nil, put(8, typ(f32, 5)), piecewise.ErrShape, "sinks"},
		{"adcg.attention", attrs{"window": {Int: -1}}, attention(), piecewise.ErrAttribute, "window"},
		{"adcg.attention", nil, put(3, typ(i32, 3, 64, 2, 16)), piecewise.ErrDType, "k_cache"},
		{"adcg.paged_attention", nil, putPage(7, typ(i32, "S")), piecewise.ErrShape, "cu_num_pages"},
		{"adcg.paged_attention", nil, putPage(8, typ(f32, 100)), piecewise.ErrDType, "cache_loc"},
		{"adcg.paged_attention", nil, putPage(8, typ(i32, 100, 1)), piecewise.ErrShape, "cache_loc"},
		{"adcg.paged_attention", nil, putPage(9, typ(i32, "S+1")), piecewise.ErrShape, "last_page_len"},
		{"adcg.paged_attention", nil, putPage(10, typ(f32, 5)), piecewise.ErrShape, "sinks"},
		{"adcg.mla_attention", nil, putMLA(0, typ(bf16, "S", 3, 16)), piecewise.ErrShape, "q_nope"},
		{"adcg.mla_attention", nil, putMLA(1, typ(bf16, "T", 2, 8)), piecewise.ErrShape, "q_pe"},
		{"adcg.mla_attention", nil, putMLA(1, typ(f32, "T", 3, 8)), piecewise.ErrDType, "q_pe"},
		{"adcg.mla_attention", nil, putMLA(2, typ(bf16, "T", 31)), piecewise.ErrShape, "weight"},
		{"adcg.mla_attention", nil, putMLA(3, typ(bf16, "T", 9)), piecewise.ErrShape, "kpe"},
		{"adcg.mla_attention", nil, putMLA(4, typ(f32, 3*36+1, 32)), piecewise.ErrShape, "weight"},
		{"adcg.mla_attention", nil, putMLA(4, typ(f32, 3*16, 32)), piecewise.ErrShape, "weight"},
		{"adcg.mla_attention", nil, putMLA(5, typ(f32, 4, 64, 41)), piecewise.ErrShape, "cache"},
		{"adcg.mla_attention", nil, putMLA(5, typ(i32, 4, 64, 40)), piecewise.ErrDType, "cache"},
		{"adcg.mla_attention", nil, putMLA(6, typ(i32, "S")), piecewise.ErrShape, "cu_seqlens"},
		{"adcg.mla_attention", nil, putMLA(8, typ(i32, "T")), piecewise.ErrShape, "slot_idx"},
		{"adcg.mla_attention", attrs{"scale": {Float: -1}}, mla(), piecewise.ErrAttribute, "scale"},
		{"adcg.paged_metadata", attrs{"max_pages": {Int: 0}}, []piecewise.Type{typ(i32, "S+1"), typ(i32, 9)}, piecewise.ErrAttribute, "max_pages"},
		{"adcg.paged_metadata", attrs{"max_pages": {Int: 1}}, []piecewise.Type{typ(i32, "S"), typ(i32, 9)}, piecewise.ErrShape, "cu_num_pages"},
		{"adcg.attention_metadata", nil, []piecewise.Type{typ(i32, "S+1"), typ(i32, "T")}, piecewise.ErrShape, "input_pos"},
		{"adcg.gather_tokens", nil, []piecewise.Type{typ(f32, "S", 4), typ(i32, "S")}, piecewise.ErrShape, "hidden"},
		{"adcg.argmax", nil, []piecewise.Type{typ(f32, "T", 4, 4)}, piecewise.ErrShape, "x"},
		{"adcg.reshape", attrs{"dims": {Ints: []int64{5}}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrShape, "dims"},
		{"adcg.reshape", attrs{"dims": {Ints: []int64{-4}}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "dims"},
		{"adcg.slice", attrs{"axis": {Int: 2}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "`axis`: 2, must be -2 to 1"},
		{"adcg.slice", attrs{"axis": {Int: -3}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "`axis`: -3"},
		{"adcg.slice", attrs{"start": {Int: -1}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "start"},
		{"adcg.slice", attrs{"length": {Int: -1}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "length"},
		{"adcg.slice", attrs{"start": {Int: 4}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "nothing"},
		{"adcg.slice", attrs{"start": {Int: 2}, "length": {Int: 3}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "2 and 3"},
		{"adcg.slice", attrs{"start": {Int: 1<<63 - 1}, "length": {Int: 1<<63 - 1}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "start"},
		{"adcg.slice", attrs{"axis": {Int: 0}, "length": {Int: 1}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "depends on the step"},
		{"adcg.slice", attrs{"axis": {Int: 0}, "start": {Int: 2}}, []piecewise.Type{typ(f32, "T", 4)}, piecewise.ErrAttribute, "start"},
		{"adcg.concat", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 4, 1)}, piecewise.ErrShape, "inputs[1]"},
		{"adcg.concat", nil, []piecewise.Type{typ(f32, "T", 4), typ(f32, "S", 4)}, piecewise.ErrShape, "inputs[1]"},
		{"adcg.concat", nil, []piecewise.Type{typ(f32, "T", 4), typ(bf16, "T", 4)}, piecewise.ErrDType, "inputs[1]"},
		{"adcg.concat", attrs{"axis": {Int: 0}}, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 4)}, piecewise.ErrShape, "inputs[0]"},
		{"adcg.causal_conv1d", attrs{"activation": {String: "gelu"}}, convInputs(), piecewise.ErrAttribute, "activation"},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 0, typ(bf16, "S", 10)), piecewise.ErrShape, "x"},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 1, typ(f32, 9, 4)), piecewise.ErrShape, "weight"},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 1, typ(f32, 10, 1)), piecewise.ErrShape, "dim 1 must be 2 at least"},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 2, typ(f32, 3, 10, 4)), piecewise.ErrShape, "state"},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 2, typ(i32, 3, 10, 3)), piecewise.ErrDType, "state"},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 5, typ(i32, "T")), piecewise.ErrShape, "slot_idx"},
		{"adcg.causal_conv1d", nil, changed(convInputs(), 6, typ(f32, 11)), piecewise.ErrShape, "bias"},
		{"adcg.ssm", attrs{"dt_min": {Float: 0.5}, "dt_max": {Float: 0.1}}, ssmInputs(), piecewise.ErrAttribute, "dt_max"},
		{"adcg.ssm", attrs{"dt_min": {Float: -1}}, ssmInputs(), piecewise.ErrAttribute, "dt_min"},
		{"adcg.ssm", nil, changed(ssmInputs(), 1, typ(f32, "T", 5)), piecewise.ErrShape, "dt"},
		{"adcg.ssm", nil, changed(ssmInputs(), 2, typ(f32, 5)), piecewise.ErrShape, "A"},
		{"adcg.ssm", nil, changed(ssmInputs(), 3, typ(f32, "T", 2, 16)), piecewise.ErrDType, "B"},
		{"adcg.ssm", nil, changed(ssmInputs(), 4, typ(bf16, "T", 2, 15)), piecewise.ErrShape, "C"},
		{"adcg.ssm", nil, changed(changed(ssmInputs(), 3, typ(bf16, "T", 4, 16)), 4, typ(bf16, "T", 4, 16)), piecewise.ErrShape, "multiple"},
		{"adcg.ssm", nil, changed(ssmInputs(), 7, typ(bf16, 3, 6, 8, 16)), piecewise.ErrDType, "state"},
		{"adcg.ssm", nil, changed(ssmInputs(), 7, typ(f32, 3, 6, 16, 8)), piecewise.ErrShape, "state"},
		{"adcg.ssm", nil, ssmInputs()[:13], piecewise.ErrShape, "all three"},
		{"adcg.ssm", nil, changed(ssmInputs(), 12, typ(i32, "S")), piecewise.ErrShape, "chunk_offsets"},
		{"adcg.ssm_metadata", attrs{"chunk": {Int: 0}}, sequences[:1], piecewise.ErrAttribute, "chunk"},
		{"adcg.ssm_metadata", attrs{"chunk": {Int: 8}}, sequences[1:2], piecewise.ErrShape, "cu_seqlens"},
		{"adcg.delta_rule", attrs{"scale": {Float: -1}}, deltaInputs(typ(f32, "T", 6)), piecewise.ErrAttribute, "scale"},
		{"adcg.delta_rule", nil, changed(deltaInputs(typ(f32, "T", 6)), 1, typ(bf16, "T", 2, 9)), piecewise.ErrShape, "k"},
		{"adcg.delta_rule", nil, changed(deltaInputs(typ(f32, "T", 6)), 2, typ(bf16, "T", 5, 12)), piecewise.ErrShape, "multiple"},
		{"adcg.delta_rule", nil, deltaInputs(typ(f32, "T", 2)), piecewise.ErrShape, "beta"},
		{"adcg.gated_delta_rule", nil, deltaInputs(typ(i32, "T", 6), typ(bf16, "T", 6)), piecewise.ErrDType, "g"},
		{"adcg.gated_delta_rule", nil, changed(deltaInputs(typ(f32, "T", 6), typ(bf16, "T", 6)), 5, typ(f32, 3, 6, 12, 8)), piecewise.ErrShape, "state"},
		{"adcg.gated_delta_rule", nil, changed(deltaInputs(typ(f32, "T", 6), typ(bf16, "T", 6)), 7, typ(i32, "S+1")), piecewise.ErrShape, "input_pos"},
		{"adcg.gdn_gating", nil, []piecewise.Type{typ(bf16, "T", 6), typ(f32, "T", 6), typ(f32, 6), typ(f32, 6)}, piecewise.ErrDType, "b"},
		{"adcg.gdn_gating", nil, []piecewise.Type{typ(bf16, "T", 6), typ(bf16, "T", 6), typ(f32, 5), typ(f32, 6)}, piecewise.ErrShape, "A_log"},
		{"adcg.concat", attrs{"axis": {Int: 5}}, []piecewise.Type{typ(f32, "T", 4), typ(f32, "T", 4)}, piecewise.ErrAttribute, "axis"},
		{"adcg.moe_router", attrs{"top_k": {Int: 2}}, []piecewise.Type{typ(i32, "T", 12)}, piecewise.ErrDType, "logits"},
		{"adcg.moe_router", attrs{"top_k": {Int: 2}}, []piecewise.Type{typ(f32, "T", 3, 4)}, piecewise.ErrShape, "logits"},
		{"adcg.moe_router", attrs{"top_k": {Int: 2}}, []piecewise.Type{typ(f32, "T", 12), typ(f32, 11)}, piecewise.ErrShape, "correction_bias"},
		{"adcg.moe_router", attrs{"top_k": {Int: 2}}, []piecewise.Type{typ(f32, "T", 12), typ(i32, 12)}, piecewise.ErrDType, "correction_bias"},
		{"adcg.moe_router", attrs{"top_k": {Int: 0}}, logits, piecewise.ErrAttribute, "`top_k`: 0, must be 1 to 12"},
		{"adcg.moe_router", attrs{"top_k": {Int: 13}}, logits, piecewise.ErrAttribute, "top_k"},
		{"adcg.moe_router", grouped(7, 4, 2), logits, piecewise.ErrAttribute, "`top_k`: 7, must be 1 to 6"},
		{"adcg.moe_router", grouped(2, 5, 2), logits, piecewise.ErrAttribute, "`n_group`: 5, must divide the 12"},
		{"adcg.moe_router", grouped(2, 0, 1), logits, piecewise.ErrAttribute, "n_group"},
		{"adcg.moe_router", grouped(2, -4, 1), logits, piecewise.ErrAttribute, "n_group"},
		{"adcg.moe_router", grouped(2, 12, 2), logits, piecewise.ErrAttribute, "`n_group`: 12 of 12 experts"},
		{"adcg.moe_router", grouped(2, 4, 0), logits, piecewise.ErrAttribute, "topk_group"},
		{"adcg.moe_router", grouped(2, 4, 5), logits, piecewise.ErrAttribute, "topk_group"},
		{"adcg.moe_router", attrs{"top_k": {Int: 2}, "n_group": {Int: 4}, "topk_group": {Int: 2}}, logits, piecewise.ErrAttribute, "sigmoid scoring alone"},
		{"adcg.moe_router", attrs{"top_k": {Int: 2}, "scoring": {String: "relu"}}, logits, piecewise.ErrAttribute, "scoring"},
		{"adcg.moe_router", attrs{"top_k": {Int: 2}, "routed_scaling_factor": {Float: math.Inf(1)}}, logits, piecewise.ErrAttribute, "routed_scaling_factor"},
		{"adcg.moe", attrs{"activation": {String: "gelu"}}, mixture(), piecewise.ErrAttribute, "activation"},
		{"adcg.moe", attrs{"gated": {Int: 0}}, mixture(), piecewise.ErrShape, "up"},
		{"adcg.moe", nil, mix(0, typ(f32, "T", 4, 4)), piecewise.ErrShape, "x"},
		{"adcg.moe", nil, mix(0, typ(i32, "T", 16)), piecewise.ErrDType, "x"},
		{"adcg.moe", nil, mix(1, typ(bf16, "T", 2)), piecewise.ErrDType, "weights"},
		{"adcg.moe", nil, mix(1, typ(f32, "S", 2)), piecewise.ErrShape, "weights"},
		{"adcg.moe", nil, mix(2, typ(f32, "T", 2)), piecewise.ErrDType, "indices"},
		{"adcg.moe", nil, mix(2, typ(i32, "T", 3)), piecewise.ErrShape, "indices"},
		{"adcg.moe", nil, mix(3, typ(bf16, 6, 21, 16)), piecewise.ErrShape, "up"},
		{"adcg.moe", nil, mix(3, typ(bf16, 6, 20, 15)), piecewise.ErrShape, "up"},
		{"adcg.moe", nil, mix(3, typ(bf16, "T", 20, 16)), piecewise.ErrShape, "up"},
		{"adcg.moe", nil, mix(4, typ(f32, 5, 16, 10)), piecewise.ErrShape, "down"},
		{"adcg.moe", nil, mix(4, typ(f32, 6, 15, 10)), piecewise.ErrShape, "down"},
		{"adcg.moe", nil, mix(4, typ(i32, 6, 16, 10)), piecewise.ErrDType, "down"},
	} {
		_, err := infer(c.op, c.attrs, c.inputs...)
		var e *piecewise.Error
		require.ErrorAs(t, err, &e, "%s %v", c.op, c.inputs)
		require.Equal(t, c.kind, e.Kind, "%s: %s", c.op, e.Message)
		require.Contains(t, e.Message, c.names, c.op)
	}
}

// TestTable compares the schemas with docs/ops.md and with the kernels that the host device has.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("../docs/ops.md")
	require.NoError(t, err)
	var rows []string
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "| `adcg.") {
			rows = append(rows, line)
		}
	}
	library := kernels.Library()
	require.Len(t, library, len(rows))
	for i, s := range library {
		cells := strings.Split(rows[i], " | ")
		require.Equal(t, "| `"+s.Name+"`", cells[0])
		at := 0 // attributes stand in the table in the schema's order
		for _, a := range s.Attrs {
			next := strings.Index(rows[i][at:], "`"+a.Default.Name+"` ")
			require.GreaterOrEqual(t, next, 0, "%s: attribute %s", s.Name, a.Default.Name)
			at += next
		}
		kind := strings.Trim(cells[len(cells)-1], "| ")
		require.True(t, strings.HasPrefix(kind, s.Kind.String()), "%s: %s", s.Name, kind)
		require.Equal(t, s.Kind != piecewise.Static, strings.Contains(kind, s.Capture.String()), s.Name)
		inPlace := false
		for _, a := range s.Aliases {
			inPlace = inPlace || a.Kind == piecewise.AliasInPlace
		}
		require.Equal(t, strings.Contains(kind, "in place"), inPlace, s.Name)
		require.Equal(t, strings.Contains(kind, "mutates"), s.Mutates != 0, s.Name)
		_, _, _, ok := host.Find(s.Name)
		require.True(t, ok, s.Name)
	}
}
