"""GLM-4 MoE Lite (GLM-4.7-Flash): multi-head latent attention, dense MLPs first, then mixtures of experts.

State: ``latent_cache.<layer>`` [slots, max_len, kv_lora_rank + qk_rope_head_dim], a position's normed latent and its
rotated key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import adcg
from checkpoint import Weight, stacked_rows
from config import ConfigError, Options, Rope
from network import Config, Network, common_options, linears

# By the names of transformers: those of the op library.
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_LATENT_EPS = 1e-6  # of the norms of the latents, whatever rms_norm_eps says


@dataclass(frozen=True, kw_only=True)
class Glm4MoeLiteConfig(Config):
    family = "GLM-4 MoE Lite"
    decodes_in_other_bits = True

    mlp_layer_types: tuple[str, ...]
    num_attention_heads: int
    q_lora_rank: int  # 0: queries are projected at once
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    attention_bias: bool
    rope: Rope
    rope_interleave: bool
    activation: str
    intermediate_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    norm_topk_prob: bool
    routed_scaling_factor: float
    further_layers: int  # behind the last: they predict further tokens and are not run

    @classmethod
    def read(cls, options: Options) -> Glm4MoeLiteConfig:
        if options.take("model_type") != "glm4_moe_lite":
            raise options.refused("model_type", options.take("model_type"), " is not supported; glm4_moe_lite is")
        layers = options.whole("num_hidden_layers")
        dense = options.whole("first_k_dense_replace", 1, least=0)
        kinds = options.words("mlp_layer_types") or ["dense" if i < dense else "sparse" for i in range(layers)]
        if len(kinds) != layers or set(kinds) - {"dense", "sparse"}:
            raise options.refused("mlp_layer_types", kinds, f": dense or sparse for {layers} layers")
        options.only("moe_layer_freq", 1)
        options.only("pretraining_tp", 1)
        options.only("sliding_window")
        options.only("scoring_func", "sigmoid")
        options.only("topk_method", "noaux_tc")
        options.only("ep_size", 1)
        shared: dict[str, Any] = common_options(options)
        heads = options.whole("num_attention_heads", 20)
        nope, pe = options.whole("qk_nope_head_dim", 192), options.whole("qk_rope_head_dim", 64)
        # No group of keys serves several heads here: each has its own part of the latent.
        for name, expected in (("num_key_value_heads", heads), ("qk_head_dim", nope + pe), ("head_dim", pe)):
            if options.whole(name, expected) != expected:
                raise options.refused(name, options.take(name), f" is not supported; it would be {expected}")
        # null means that there is none; left out, it is the family's default.
        rank = options.whole("q_lora_rank", 768) if options.take("q_lora_rank") or not options.has("q_lora_rank") else 0
        config = cls(
            **shared,
            num_hidden_layers=layers,
            norm_eps=options.number("rms_norm_eps", 1e-5),
            mlp_layer_types=tuple(kinds),
            num_attention_heads=heads,
            q_lora_rank=rank,
            kv_lora_rank=options.whole("kv_lora_rank", 512),
            qk_nope_head_dim=nope,
            qk_rope_head_dim=pe,
            v_head_dim=options.whole("v_head_dim", 256),
            attention_bias=options.flag("attention_bias"),
            rope=Rope.read(options, shared["max_position_embeddings"]),
            rope_interleave=options.flag("rope_interleave", True),
            activation=options.text("hidden_act", _ACTIVATIONS, "silu"),
            intermediate_size=options.whole("intermediate_size", 10240),
            moe_intermediate_size=options.whole("moe_intermediate_size", 1536),
            n_routed_experts=options.whole("n_routed_experts", 64),
            n_shared_experts=options.whole("n_shared_experts", 1, least=0),
            num_experts_per_tok=options.whole("num_experts_per_tok", 4),
            n_group=options.whole("n_group", 1),
            topk_group=options.whole("topk_group", 1),
            norm_topk_prob=options.flag("norm_topk_prob", True),
            routed_scaling_factor=options.number("routed_scaling_factor", 1.8),
            further_layers=options.whole("num_nextn_predict_layers", 0, least=0),
        )
        if config.n_routed_experts % config.n_group:
            raise ConfigError(f"n_group: {config.n_group} does not divide {config.n_routed_experts} experts")
        if pe % 2:
            raise ConfigError(f"qk_rope_head_dim: {pe} is odd: rope turns pairs")
        options.finish()
        return config

    def ignored_tensors(self) -> tuple[str, ...]:
        last = self.num_hidden_layers
        further = tuple(rf"^model\.layers\.{i}\." for i in range(last, last + self.further_layers))
        return (*super().ignored_tensors(), *further)

    # ---- Weights ----

    def layer_weights(self) -> dict[str, Weight]:
        weights: dict[str, Weight] = {}
        for i, kind in enumerate(self.mlp_layer_types):
            layer = f"model.layers.{i}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                weights[f"{layer}.{norm}.weight"] = Weight((self.hidden_size,))
            weights |= self._attention_weights(f"{layer}.self_attn")
            if kind == "dense":
                weights |= self._mlp_weights(f"{layer}.mlp", self.intermediate_size)
            else:
                weights |= self._moe_weights(f"{layer}.mlp")
        return weights

    def _attention_weights(self, name: str) -> dict[str, Weight]:
        hidden, heads, latent, rank = self.hidden_size, self.num_attention_heads, self.kv_lora_rank, self.q_lora_rank
        nope, pe, v = self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim
        biased = {
            f"{name}.kv_a_proj_with_mqa": (latent + pe, hidden),
            f"{name}.o_proj": (hidden, heads * v),
        }
        plain = {f"{name}.kv_b_proj": (heads * (nope + v), latent)}
        weights = {f"{name}.kv_a_layernorm.weight": Weight((latent,))}
        if rank:
            biased[f"{name}.q_a_proj"] = (rank, hidden)
            plain[f"{name}.q_b_proj"] = (heads * (nope + pe), rank)
            weights[f"{name}.q_a_layernorm.weight"] = Weight((rank,))
        else:
            plain[f"{name}.q_proj"] = (heads * (nope + pe), hidden)
        return weights | linears(biased, bias=self.attention_bias) | linears(plain)

    def _mlp_weights(self, name: str, inner: int) -> dict[str, Weight]:
        hidden = self.hidden_size
        shapes = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
        return linears({f"{name}.{part}": shape for part, shape in shapes.items()})

    def _moe_weights(self, name: str) -> dict[str, Weight]:
        hidden, inner, experts = self.hidden_size, self.moe_intermediate_size, self.n_routed_experts
        weights = linears({f"{name}.gate": (experts, hidden)})
        weights[f"{name}.gate.e_score_correction_bias"] = Weight((experts,))
        up = stacked_rows(f"{name}.experts", experts, ("gate_proj", "up_proj"), inner, hidden)
        weights[f"{name}.experts.gate_up_proj"] = up
        weights[f"{name}.experts.down_proj"] = stacked_rows(f"{name}.experts", experts, ("down_proj",), hidden, inner)
        if self.n_shared_experts:
            weights |= self._mlp_weights(f"{name}.shared_experts", self.n_shared_experts * inner)
        return weights

    # ---- Layers ----

    def add_layers(self, net: Network, hidden: adcg.Value) -> adcg.Value:
        g, h = net.g, hidden
        for i, kind in enumerate(self.mlp_layer_types):
            layer = f"model.layers.{i}"
            mixed = self._attention(net, i, net.norm(h, f"{layer}.input_layernorm"), f"{layer}.self_attn")
            h = g.add(h, net.trace(f"mixer.{i}", mixed))
            x = net.norm(h, f"{layer}.post_attention_layernorm")
            if kind == "dense":
                mlp = net.gated_mlp(x, f"{layer}.mlp", self.activation)
            else:
                mlp = self._moe(net, i, x, f"{layer}.mlp")
            h = net.trace(f"hidden.{i}", g.add(h, net.trace(f"mlp.{i}", mlp)))
        return h

    def _attention(self, net: Network, i: int, x: adcg.Value, name: str) -> adcg.Value:
        g, nope, pe = net.g, self.qk_nope_head_dim, self.qk_rope_head_dim
        if self.q_lora_rank:
            latent = net.norm(net.linear(x, f"{name}.q_a_proj"), f"{name}.q_a_layernorm", eps=_LATENT_EPS)
            q = net.linear(latent, f"{name}.q_b_proj")
        else:
            q = net.linear(x, f"{name}.q_proj")
        q_nope, q_pe = g.split(net.heads(q, self.num_attention_heads, nope + pe), [nope, pe])
        ckv, kpe = g.split(net.linear(x, f"{name}.kv_a_proj_with_mqa"), [self.kv_lora_rank, pe])
        ckv = net.norm(ckv, f"{name}.kv_a_layernorm", eps=_LATENT_EPS)
        layout = "interleaved" if self.rope_interleave else "neox"
        turned = {"layout": layout, **self.rope.attributes(pe)}
        q_pe, kpe = (g.rope(part, net.positions, **turned) for part in (q_pe, net.heads(kpe, 1, pe)))
        cache = net.state(f"latent_cache.{i}", net.cache_dtype, net.max_len, self.kv_lora_rank + pe)
        expand = net.weights[f"{name}.kv_b_proj.weight"]
        scale = self.rope.attention_scale((nope + pe) ** -0.5)
        out = g.mla_attention(q_nope, q_pe, ckv, g.reshape(kpe, dims=[pe]), expand, cache, *net.sequences, scale=scale)
        return net.linear(out, f"{name}.o_proj")

    def _moe(self, net: Network, i: int, x: adcg.Value, name: str) -> adcg.Value:
        g, w = net.g, net.weights
        weights, indices = net.sigmoid_router(
            i,
            x,
            f"{name}.gate",
            top_k=self.num_experts_per_tok,
            n_group=self.n_group,
            topk_group=self.topk_group,
            norm_topk_prob=self.norm_topk_prob,
            routed_scaling_factor=self.routed_scaling_factor,
        )
        experts = w[f"{name}.experts.gate_up_proj"], w[f"{name}.experts.down_proj"]
        routed: adcg.Value = g.moe(x, weights, indices, *experts, activation=self.activation)
        if not self.n_shared_experts:
            return routed
        shared: adcg.Value = g.add(routed, net.gated_mlp(x, f"{name}.shared_experts", self.activation))
        return shared
