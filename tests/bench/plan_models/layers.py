"""The layers of today's families as graph nodes, with the tensors that are live when transformers 5.17 runs them:
bfloat16 activations, float32 router logits and recurrent states. Names of weights are the checkpoints', experts
stacked as transformers stacks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import adcg

from . import ops

Config = Mapping[str, Any]


class Layers:
    """Adds layers to one graph. ``fused`` lays q, k, v and gate, up out as one product each, as serving engines do."""

    def __init__(self, g: adcg.Graph, config: Config, fused: bool = False) -> None:
        self.g, self.config, self.fused = g, config, fused
        self.hidden: int = config["hidden_size"]
        self.eps: float = config.get("rms_norm_eps") or config["layer_norm_epsilon"]
        self.ids = g.input("ids", "int32", [g.tokens])
        cu_seqlens = g.input("cu_seqlens", "int32", [g.seqs + 1])
        self.indices = (cu_seqlens, g.input("input_pos", "int32", [g.seqs]), g.input("slot_idx", "int32", [g.seqs]))
        self.positions: adcg.Value | None = None
        self.chunks: tuple[adcg.Value, ...] = ()

    # ---- Pieces ------------------------------------------------------------------------------------------------

    def weight(self, name: str, *shape: int) -> adcg.Value:
        return self.g.weight(name, "bfloat16", shape)

    def linear(self, x: adcg.Value, name: str, rows: int) -> adcg.Value:
        assert x.shape is not None
        columns = 1
        for extent in x.shape[1:]:
            columns *= extent.constant
        return self.g.linear(x, self.weight(f"{name}.weight", rows, columns))

    def linear_f32(self, x: adcg.Value, name: str, rows: int) -> adcg.Value:
        """A product whose result stays float32: logits of routers and of the vocabulary."""
        return self.g.op("models.linear_f32", x, self.weight(f"{name}.weight", rows, self.hidden))

    def norm(self, x: adcg.Value, name: str) -> adcg.Value:
        assert x.shape is not None
        return self.g.rms_norm(x, self.weight(f"{name}.weight", x.shape[-1].constant), eps=self.eps)

    def heads(self, x: adcg.Value, *dims: int) -> adcg.Value:
        return self.g.reshape(x, dims=list(dims))

    def split(self, x: adcg.Value, *widths: int) -> Sequence[adcg.Value]:
        """x cut along its last dim: views, as torch's, where what reads them takes strides."""
        return self.g.split(x, widths)

    def rope(self, x: adcg.Value, **attributes: object) -> adcg.Value:
        if self.positions is None:
            raise ValueError("rope before add_positions()")
        if attributes.pop("interleaved", False):
            return self.g.op("models.rope", x, self.positions)
        return self.g.rope(x, self.positions, **attributes)

    def add_positions(self) -> None:
        """The positions that rope reads; a graph without rope has none."""
        _, self.positions = self.g.attention_metadata(*self.indices[:2])

    def add_chunks(self, chunk: int) -> None:
        """The chunk metadata of recurrent layers, of its bound at the graph's limits."""
        most = ops.max_chunks(chunk, self.g.max_tokens, self.g.max_seqs)
        self.chunks = self.g.op("models.ssm_metadata", self.indices[0], max_chunks=most)

    def cache(self, name: str, *row: int) -> adcg.Value:
        return self.g.state(name, "bfloat16", [self.g.max_seqs, self.g.max_seq_len, *row])

    # ---- Mixers ------------------------------------------------------------------------------------------------

    def attention(
        self, x: adcg.Value, name: str, *, norms: bool = False, gate: bool = False, rotary: int | None = None
    ) -> adcg.Value:
        """Grouped-query attention; ``norms``: of q and k over head_dim; ``gate``: sigmoid gate from q's projection;
        ``rotary``: dims that rope turns, 0 for none, None for all."""
        c = self.config
        q_heads, kv_heads, width = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        if self.fused:
            widths = (q_heads * width * (2 if gate else 1), kv_heads * width, kv_heads * width)
            q, k, v = self.split(self.linear(x, f"{name}.qkv_proj", sum(widths)), *widths)
        else:
            q = self.linear(x, f"{name}.q_proj", q_heads * width * (2 if gate else 1))
            k = self.linear(x, f"{name}.k_proj", kv_heads * width)
            v = self.linear(x, f"{name}.v_proj", kv_heads * width)
        gates = None
        if gate:  # per head q | gate
            q, gates = self.split(self.heads(q, q_heads, 2 * width), width, width)
        else:
            q = self.heads(q, q_heads, width)
        k, v = self.heads(k, kv_heads, width), self.heads(v, kv_heads, width)
        if norms:
            q, k = self.norm(q, f"{name}.q_norm"), self.norm(k, f"{name}.k_norm")
        if rotary != 0:
            turned = {} if rotary is None else {"rotary_dim": rotary}
            q, k = self.rope(q, **turned), self.rope(k, **turned)
        caches = (self.cache(f"{name}.k", kv_heads, width), self.cache(f"{name}.v", kv_heads, width))
        out = self.g.attention(q, k, v, *caches, *self.indices)
        if gates is not None:
            out = self.g.op("models.sigmoid_mul", out, gates)
        return self.linear(out, f"{name}.o_proj", self.hidden)

    def mla(self, x: adcg.Value, name: str) -> adcg.Value:
        """Multi-head latent attention."""
        c = self.config
        heads, rank, pe = c["num_attention_heads"], c["kv_lora_rank"], c["qk_rope_head_dim"]
        nope, value = c["qk_nope_head_dim"], c["v_head_dim"]
        q = self.norm(self.linear(x, f"{name}.q_a_proj", c["q_lora_rank"]), f"{name}.q_a_layernorm")
        q = self.heads(self.linear(q, f"{name}.q_b_proj", heads * (nope + pe)), heads, nope + pe)
        q_nope, q_pe = self.split(q, nope, pe)
        ckv, kpe = self.split(self.linear(x, f"{name}.kv_a_proj_with_mqa", rank + pe), rank, pe)
        ckv = self.norm(ckv, f"{name}.kv_a_layernorm")
        q_pe = self.rope(q_pe, interleaved=True)
        kpe = self.heads(self.rope(self.heads(kpe, 1, pe), interleaved=True), pe)
        w = self.weight(f"{name}.kv_b_proj.weight", heads * (nope + value), rank)
        cache = self.cache(f"{name}.latent", rank + pe)
        out = self.g.op("models.mla_attention", q_nope, q_pe, ckv, kpe, w, cache, *self.indices)
        return self.linear(out, f"{name}.o_proj", self.hidden)

    def conv(self, x: adcg.Value, name: str, kernel: int, bias: bool) -> adcg.Value:
        assert x.shape is not None
        channels = x.shape[-1].constant
        w = self.weight(f"{name}.weight", channels, kernel)
        state = self.g.state(f"{name}.state", "bfloat16", [self.g.max_seqs, channels, kernel - 1])
        b = self.weight(f"{name}.bias", channels) if bias else None
        return self.g.op("models.causal_conv1d", x, w, state, *self.indices, b)

    def mamba(self, x: adcg.Value, name: str) -> adcg.Value:
        """Mamba-2: one projection to z | xBC | dt, convolution, scan, gated norm."""
        g, c = self.g, self.config
        heads, width, groups, n = c["mamba_num_heads"], c["mamba_head_dim"], c["n_groups"], c["ssm_state_size"]
        inner = heads * width
        z, xbc, dt = self.split(
            self.linear(x, f"{name}.in_proj", 2 * (inner + groups * n) + heads), inner, inner + 2 * groups * n, heads
        )
        xbc = self.conv(xbc, f"{name}.conv1d", c["conv_kernel"], c["use_conv_bias"])
        xs, b, s = self.split(xbc, inner, groups * n, groups * n)
        scalars = [self.weight(f"{name}.{part}", heads) for part in ("A_log", "D", "dt_bias")]
        state = g.state(f"{name}.state", "float32", [g.max_seqs, heads, width, n])
        xs, b, s = self.heads(xs, heads, width), self.heads(b, groups, n), self.heads(s, groups, n)
        y = g.op("models.ssm", xs, b, s, dt, *scalars, state, *self.indices, *self.chunks)
        y = g.op("models.gated_rms_norm", self.heads(y, inner), z, self.weight(f"{name}.norm.weight", inner))
        return self.linear(y, f"{name}.out_proj", self.hidden)

    def gated_delta(self, x: adcg.Value, name: str) -> adcg.Value:
        """Gated delta net: convolution over q | k | v, delta rule, norm gated by z per value head."""
        g, c = self.g, self.config
        k_heads, key = c["linear_num_key_heads"], c["linear_key_head_dim"]
        v_heads, value = c["linear_num_value_heads"], c["linear_value_head_dim"]
        flat = (k_heads * key, k_heads * key, v_heads * value)
        qkv = self.linear(x, f"{name}.in_proj_qkv", sum(flat))
        z = self.heads(self.linear(x, f"{name}.in_proj_z", v_heads * value), v_heads, value)
        b = self.linear(x, f"{name}.in_proj_b", v_heads)
        a = self.linear(x, f"{name}.in_proj_a", v_heads)
        q, k, v = self.split(self.conv(qkv, f"{name}.conv1d", c["linear_conv_kernel_dim"], False), *flat)
        scalars = [self.weight(f"{name}.{part}", v_heads) for part in ("A_log", "dt_bias")]
        beta, decay = g.op("models.delta_gates", a, b, *scalars)
        q, k, v = self.heads(q, k_heads, key), self.heads(k, k_heads, key), self.heads(v, v_heads, value)
        state = g.state(f"{name}.state", "float32", [g.max_seqs, v_heads, key, value])
        o = g.op("models.gated_delta_rule", q, k, v, beta, decay, state, *self.indices, *self.chunks[:2])
        o = g.op("models.gated_rms_norm", o, z, self.weight(f"{name}.norm.weight", value))
        return self.linear(o, f"{name}.out_proj", self.hidden)

    # ---- MLPs --------------------------------------------------------------------------------------------------

    def mlp(self, x: adcg.Value, name: str, inner: int) -> adcg.Value:
        """down(silu(gate x) * up x)"""
        if self.fused:
            h = self.g.op("models.silu_mul", self.linear(x, f"{name}.gate_up_proj", 2 * inner))
        else:
            h = self.g.silu_mul(self.linear(x, f"{name}.gate_proj", inner), self.linear(x, f"{name}.up_proj", inner))
        return self.linear(h, f"{name}.down_proj", self.hidden)

    def relu2_mlp(self, x: adcg.Value, name: str, inner: int) -> adcg.Value:
        """down(relu(up x)^2)"""
        h = self.g.op("models.relu2", self.linear(x, f"{name}.up_proj", inner))
        return self.linear(h, f"{name}.down_proj", self.hidden)

    def routed(self, x: adcg.Value, name: str, experts: int, *, gated: bool = True, bias: bool = True) -> adcg.Value:
        """Router and routed experts. Sigmoid routers (``bias``) compute their logits in float32 and choose with a
        correction bias, which checkpoints carry as a buffer; softmax routers stay in bfloat16."""
        c, g = self.config, self.g
        inner = c["moe_intermediate_size"]
        if bias:
            logits = self.linear_f32(x, f"{name}.gate", experts)
            correction = g.weight(f"{name}.gate.e_score_correction_bias", "float32", [experts])
        else:
            logits, correction = self.linear(x, f"{name}.gate", experts), None
        weights, chosen = g.op("models.moe_router", logits, correction, top_k=c["num_experts_per_tok"])
        into = f"{name}.experts.{'gate_up' if gated else 'up'}_proj"
        wide = self.weight(into, experts, (1 + gated) * inner, self.hidden)
        down = self.weight(f"{name}.experts.down_proj", experts, self.hidden, inner)
        return g.op("models.moe", x, weights, chosen, wide, down)
