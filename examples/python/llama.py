"""Llama: rope, attention with grouped queries, a gated MLP.

States: ``k_cache.<layer>``, ``v_cache.<layer>`` [slots, max_len, kv heads, head dim].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import adcg
from checkpoint import Array, Weight
from config import ConfigError, Options, Rope
from network import Config, Network, build, common_options, linears
from runner import Model, Piece, Runner, load_weights

__all__ = ["Array", "ConfigError", "LlamaConfig", "Model", "Piece", "Runner", "build", "load_weights"]

# Options of relatives of the family that change the computation, and the values that mean "not used".
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "pretraining_tp": (1,),
    "sliding_window": (),
    "rope_interleaved": (False,),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "attention_multiplier": (),
    "logits_scaling": (1,),
    "use_qk_norm": (False,),
}


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(Config):
    family = "Llama"

    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    attention_bias: bool
    mlp_bias: bool
    rope: Rope

    @classmethod
    def read(cls, options: Options) -> LlamaConfig:
        if options.take("model_type") != "llama":
            raise options.refused("model_type", options.take("model_type"), " is not supported; llama is")
        for option, neutral in _NEUTRAL.items():
            options.only(option, *neutral)
        if any(kind != "full_attention" for kind in options.words("layer_types") or ()):
            raise options.refused("layer_types", options.take("layer_types"), ": only full_attention is supported")
        heads = options.whole("num_attention_heads")
        shared: dict[str, Any] = common_options(options)
        config = cls(
            **shared,
            num_hidden_layers=options.whole("num_hidden_layers"),
            norm_eps=options.number("rms_norm_eps", 1e-6),
            intermediate_size=options.whole("intermediate_size"),
            num_attention_heads=heads,
            num_key_value_heads=options.whole("num_key_value_heads", heads),
            head_dim=options.whole("head_dim", shared["hidden_size"] // heads),
            attention_bias=options.flag("attention_bias"),
            mlp_bias=options.flag("mlp_bias"),
            rope=Rope.read(options, shared["max_position_embeddings"]),
        )
        if heads % config.num_key_value_heads:
            raise ConfigError(f"num_key_value_heads: {config.num_key_value_heads} does not divide {heads} heads")
        config.rope.rotary_dim(config.head_dim)
        options.finish()
        return config

    def layer_weights(self) -> dict[str, Weight]:
        hidden, inner = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        weights: dict[str, Weight] = {}
        for i in range(self.num_hidden_layers):
            layer = f"model.layers.{i}"
            attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                weights[f"{layer}.{norm}.weight"] = Weight((hidden,))
            weights |= linears(
                {
                    f"{attention}.q_proj": (q, hidden),
                    f"{attention}.k_proj": (kv, hidden),
                    f"{attention}.v_proj": (kv, hidden),
                    f"{attention}.o_proj": (hidden, q),
                },
                bias=self.attention_bias,
            )
            weights |= linears(
                {
                    f"{mlp}.gate_proj": (inner, hidden),
                    f"{mlp}.up_proj": (inner, hidden),
                    f"{mlp}.down_proj": (hidden, inner),
                },
                bias=self.mlp_bias,
            )
        return weights

    def add_layers(self, net: Network, hidden: adcg.Value) -> adcg.Value:
        g, h = net.g, hidden
        for i in range(self.num_hidden_layers):
            layer = f"model.layers.{i}"
            mixed = self._attention(net, i, net.norm(h, f"{layer}.input_layernorm"))
            h = g.add(h, net.trace(f"mixer.{i}", mixed))
            mlp = net.gated_mlp(net.norm(h, f"{layer}.post_attention_layernorm"), f"{layer}.mlp")
            h = net.trace(f"hidden.{i}", g.add(h, net.trace(f"mlp.{i}", mlp)))
        return h

    def _attention(self, net: Network, i: int, x: adcg.Value) -> adcg.Value:
        name = f"model.layers.{i}.self_attn"
        counts = {"q": self.num_attention_heads, "k": self.num_key_value_heads, "v": self.num_key_value_heads}
        q, k, v = (net.heads(net.linear(x, f"{name}.{p}_proj"), n, self.head_dim) for p, n in counts.items())
        q, k = (net.g.rope(part, net.positions, **self.rope.attributes(self.head_dim)) for part in (q, k))
        return net.linear(net.attention(i, q, k, v), f"{name}.o_proj")
