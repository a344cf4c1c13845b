"""Qwen3.5-MoE, its text model: gated delta nets and gated attention in turns, and a mixture of experts in every layer.

States of a delta net's layer: ``conv.<layer>`` [slots, 2 * key heads * key dim + value heads * value dim, kernel - 1],
the last inputs of its convolution, and ``delta.<layer>`` [slots, value heads, key dim, value dim], float32. Of an
attention's: ``k_cache.<layer>``, ``v_cache.<layer>`` [slots, max_len, kv heads, head dim].

A multimodal checkpoint (model_type qwen3_5_moe) runs as a model of text: its text_config and language model alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import adcg
from checkpoint import Weight, stacked_rows
from config import ConfigError, Options, Rope
from network import Config, Network, common_options, linears


@dataclass(frozen=True, kw_only=True)
class Qwen35MoeConfig(Config):
    family = "Qwen3.5-MoE"

    prefix: str  # of the language model's tensors
    layer_types: tuple[str, ...]
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    attention_bias: bool
    rope: Rope
    linear_conv_kernel_dim: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_num_key_heads: int
    linear_num_value_heads: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int

    @classmethod
    def read(cls, options: Options) -> Qwen35MoeConfig:
        kind, outer = options.take("model_type"), options
        if kind == "qwen3_5_moe":
            # The vision part is left out, so its options and those of its tokens change nothing.
            text = outer.group("text_config")
            if text is None:
                raise ConfigError("'text_config' is missing")
            outer.also(("vision_config", "image_token_id", "video_token_id"))
            outer.also(("vision_start_token_id", "vision_end_token_id"))
            options = text
            # Whether the head is tied is the outer model's to say, and the precision where the inner one does not.
            options.put("tie_word_embeddings", outer.flag("tie_word_embeddings"))
            for name in ("dtype", "torch_dtype", "eos_token_id", "quantization_config"):
                if options.take(name) is None:
                    options.put(name, outer.take(name))
                outer.take(name)
            outer.finish()
        elif kind != "qwen3_5_moe_text":
            raise options.refused("model_type", kind, " is not supported; qwen3_5_moe_text and qwen3_5_moe are")
        layers = options.whole("num_hidden_layers")
        interval = options.whole("full_attention_interval", 4)
        kinds = options.words("layer_types") or [
            "linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)
        ]
        if len(kinds) != layers or set(kinds) - {"linear_attention", "full_attention"}:
            raise options.refused("layer_types", kinds, f": linear_attention or full_attention for {layers} layers")
        options.only("hidden_act", "silu", "swish")
        options.only("sliding_window")
        options.only("attn_output_gate", True)
        options.only("norm_topk_prob", True)
        options.only("decoder_sparse_step", 1)
        options.only("mlp_only_layers", [])
        # The states are float32 here whatever a checkpoint asks for, and its layers that predict further tokens unused.
        options.only("mamba_ssm_dtype", "float32")
        options.also(["mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"])
        shared: dict[str, Any] = common_options(options)
        heads = options.whole("num_attention_heads", 16)
        config = cls(
            **shared,
            prefix="model." if kind == "qwen3_5_moe_text" else "model.language_model.",
            num_hidden_layers=layers,
            norm_eps=options.number("rms_norm_eps", 1e-6),
            layer_types=tuple(kinds),
            num_attention_heads=heads,
            num_key_value_heads=options.whole("num_key_value_heads", 2),
            head_dim=options.whole("head_dim", 256),
            attention_bias=options.flag("attention_bias"),
            rope=Rope.read(
                options, shared["max_position_embeddings"], partial=0.25, inert=("mrope_section", "mrope_interleaved")
            ),
            linear_conv_kernel_dim=options.whole("linear_conv_kernel_dim", 4, least=2),
            linear_key_head_dim=options.whole("linear_key_head_dim", 128),
            linear_value_head_dim=options.whole("linear_value_head_dim", 128),
            linear_num_key_heads=options.whole("linear_num_key_heads", 16),
            linear_num_value_heads=options.whole("linear_num_value_heads", 32),
            moe_intermediate_size=options.whole("moe_intermediate_size", 512),
            shared_expert_intermediate_size=options.whole("shared_expert_intermediate_size", 512),
            num_experts=options.whole("num_experts", 256),
            num_experts_per_tok=options.whole("num_experts_per_tok", 8),
        )
        if heads % config.num_key_value_heads:
            raise ConfigError(f"num_key_value_heads: {config.num_key_value_heads} does not divide {heads} heads")
        if config.linear_num_value_heads % config.linear_num_key_heads:
            raise ConfigError(
                f"linear_num_key_heads: {config.linear_num_key_heads} does not divide "
                f"{config.linear_num_value_heads} value heads"
            )
        if config.num_experts_per_tok > config.num_experts:
            raise ConfigError(f"num_experts_per_tok: {config.num_experts_per_tok} of {config.num_experts} experts")
        config.rope.rotary_dim(config.head_dim)
        options.finish()
        return config

    @property
    def embedding(self) -> str:  # type: ignore[override]
        return f"{self.prefix}embed_tokens"

    @property
    def final_norm(self) -> str:  # type: ignore[override]
        return f"{self.prefix}norm"

    def norm_options(self) -> dict[str, Any]:
        return {"eps": self.norm_eps, "one_plus": True}

    def ignored_tensors(self) -> tuple[str, ...]:
        return (*super().ignored_tensors(), r"^mtp\.", *((r"^model\.visual\.",) if "language" in self.prefix else ()))

    @property
    def _delta_dims(self) -> tuple[int, int]:
        """The width of all key heads together, and of all value heads."""
        return (
            self.linear_num_key_heads * self.linear_key_head_dim,
            self.linear_num_value_heads * self.linear_value_head_dim,
        )

    # ---- Weights ----

    def layer_weights(self) -> dict[str, Weight]:
        weights: dict[str, Weight] = {}
        for i, kind in enumerate(self.layer_types):
            layer = f"{self.prefix}layers.{i}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                weights[f"{layer}.{norm}.weight"] = Weight((self.hidden_size,))
            if kind == "full_attention":
                weights |= self._attention_weights(f"{layer}.self_attn")
            else:
                weights |= self._delta_weights(f"{layer}.linear_attn")
            weights |= self._moe_weights(f"{layer}.mlp")
        return weights

    def _attention_weights(self, name: str) -> dict[str, Weight]:
        hidden, dim = self.hidden_size, self.head_dim
        q, kv = self.num_attention_heads * dim, self.num_key_value_heads * dim
        shapes = {
            f"{name}.q_proj": (2 * q, hidden),  # of each head: its query, then its gate
            f"{name}.k_proj": (kv, hidden),
            f"{name}.v_proj": (kv, hidden),
            f"{name}.o_proj": (hidden, q),
        }
        norms = {f"{name}.{part}_norm.weight": Weight((dim,)) for part in "qk"}
        return linears(shapes, bias=self.attention_bias) | norms

    def _delta_weights(self, name: str) -> dict[str, Weight]:
        hidden, heads = self.hidden_size, self.linear_num_value_heads
        keys, values = self._delta_dims
        channels, kernel = 2 * keys + values, self.linear_conv_kernel_dim
        shapes = {
            f"{name}.in_proj_qkv": (channels, hidden),
            f"{name}.in_proj_z": (values, hidden),
            f"{name}.in_proj_b": (heads, hidden),
            f"{name}.in_proj_a": (heads, hidden),
            f"{name}.out_proj": (hidden, values),
        }
        return linears(shapes) | {
            f"{name}.conv1d.weight": Weight((channels, kernel), stored=(channels, 1, kernel)),
            f"{name}.A_log": Weight((heads,)),
            f"{name}.dt_bias": Weight((heads,)),
            f"{name}.norm.weight": Weight((self.linear_value_head_dim,)),
        }

    def _moe_weights(self, name: str) -> dict[str, Weight]:
        hidden, inner, shared = self.hidden_size, self.moe_intermediate_size, self.shared_expert_intermediate_size
        experts = f"{name}.experts"
        shapes = {
            f"{name}.gate": (self.num_experts, hidden),
            f"{name}.shared_expert.gate_proj": (shared, hidden),
            f"{name}.shared_expert.up_proj": (shared, hidden),
            f"{name}.shared_expert.down_proj": (hidden, shared),
            f"{name}.shared_expert_gate": (1, hidden),
        }
        return linears(shapes) | {
            f"{experts}.gate_up_proj": stacked_rows(experts, self.num_experts, ("gate_proj", "up_proj"), inner, hidden),
            f"{experts}.down_proj": stacked_rows(experts, self.num_experts, ("down_proj",), hidden, inner),
        }

    # ---- Layers ----

    def add_layers(self, net: Network, hidden: adcg.Value) -> adcg.Value:
        g, h = net.g, hidden
        for i, kind in enumerate(self.layer_types):
            layer = f"{self.prefix}layers.{i}"
            x = net.norm(h, f"{layer}.input_layernorm")
            if kind == "full_attention":
                mixed = self._attention(net, i, x, f"{layer}.self_attn")
            else:
                mixed = self._delta_net(net, i, x, f"{layer}.linear_attn")
            h = g.add(h, net.trace(f"mixer.{i}", mixed))
            mlp = self._moe(net, i, net.norm(h, f"{layer}.post_attention_layernorm"), f"{layer}.mlp")
            h = net.trace(f"hidden.{i}", g.add(h, net.trace(f"mlp.{i}", mlp)))
        return h

    def _attention(self, net: Network, i: int, x: adcg.Value, name: str) -> adcg.Value:
        g, dim = net.g, self.head_dim
        q, gate = g.split(net.heads(net.linear(x, f"{name}.q_proj"), self.num_attention_heads, 2 * dim), [dim, dim])
        k, v = (net.heads(net.linear(x, f"{name}.{part}_proj"), self.num_key_value_heads, dim) for part in "kv")
        norms = (net.weights[f"{name}.{part}_norm.weight"] for part in "qk")
        q, k = g.qk_norm(q, k, *norms, **self.norm_options())
        q, k = (g.rope(part, net.positions, **self.rope.attributes(dim)) for part in (q, k))
        return net.linear(g.sigmoid_mul(net.attention(i, q, k, v), gate), f"{name}.o_proj")

    def _delta_net(self, net: Network, i: int, x: adcg.Value, name: str) -> adcg.Value:
        g, w = net.g, net.weights
        keys, values = self._delta_dims
        key_heads, value_heads = self.linear_num_key_heads, self.linear_num_value_heads
        key_dim, value_dim = self.linear_key_head_dim, self.linear_value_head_dim
        conv = net.state(f"conv.{i}", net.dtype, 2 * keys + values, self.linear_conv_kernel_dim - 1)
        delta = net.state(f"delta.{i}", "float32", value_heads, key_dim, value_dim)
        qkv, z, b, a = (net.linear(x, f"{name}.in_proj_{part}") for part in ("qkv", "z", "b", "a"))
        qkv = g.causal_conv1d(qkv, w[f"{name}.conv1d.weight"], conv, *net.sequences, activation="silu")
        q, k, v = g.split(qkv, [keys, keys, values])
        q, k = (net.heads(part, key_heads, key_dim) for part in (q, k))
        v = net.heads(v, value_heads, value_dim)
        decay, beta = g.gdn_gating(a, b, w[f"{name}.A_log"], w[f"{name}.dt_bias"])
        out = g.gated_delta_rule(q, k, v, decay, beta, delta, *net.sequences, l2norm=True)
        z = net.heads(z, value_heads, value_dim)
        out = g.rms_norm(out, w[f"{name}.norm.weight"], z, eps=self.norm_eps, gate="after")
        return net.linear(out, f"{name}.out_proj")

    def _moe(self, net: Network, i: int, x: adcg.Value, name: str) -> adcg.Value:
        g, w = net.g, net.weights
        logits = net.trace(f"router_logits.{i}", net.linear(x, f"{name}.gate"))
        weights, indices = g.moe_router(logits, top_k=self.num_experts_per_tok)
        net.trace(f"router_weights.{i}", weights)
        net.trace(f"router_indices.{i}", indices)
        routed = g.moe(x, weights, indices, w[f"{name}.experts.gate_up_proj"], w[f"{name}.experts.down_proj"])
        shared = net.gated_mlp(x, f"{name}.shared_expert")
        gate = net.linear(x, f"{name}.shared_expert_gate")
        value: adcg.Value = g.add(routed, g.sigmoid_mul(shared, gate))
        return value
