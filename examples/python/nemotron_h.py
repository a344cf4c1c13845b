"""Nemotron-H: one mixer a layer, which is Mamba-2, attention without positions, a mixture of experts, or an MLP.

States of a Mamba-2 layer: ``conv.<layer>`` [slots, heads * head dim + 2 * groups * state size, kernel - 1], the last
inputs of its convolution, and ``ssm.<layer>`` [slots, heads, head dim, state size], float32. Of an attention's:
``k_cache.<layer>``, ``v_cache.<layer>`` [slots, max_len, kv heads, head dim].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import adcg
import numpy as np
from checkpoint import Weight, stacked_rows
from config import ConfigError, Options
from network import Config, Network, common_options, linears

_PATTERN = {"M": "linear_attention", "*": "full_attention", "E": "moe", "-": "mlp"}
_LEGACY = {"mamba": "linear_attention", "attention": "full_attention"}
# By the names of transformers: those of the op library.
_ACTIVATIONS = {"relu2": "relu2", "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Options by the name that transformers takes too, and the one that it writes.
_ALIASES = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_dt_min": "time_step_min",
    "mamba_dt_limit": "time_step_limit",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_chunk_size": "chunk_size",
}


@dataclass(frozen=True, kw_only=True)
class NemotronHConfig(Config):
    family = "Nemotron-H"
    embedding = "backbone.embeddings"
    final_norm = "backbone.norm_f"

    layer_types: tuple[str, ...]
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    activation: str  # of all MLPs
    mlp_bias: bool
    mamba_num_heads: int
    mamba_head_dim: int
    ssm_state_size: int
    n_groups: int
    conv_kernel: int
    chunk_size: int
    use_bias: bool
    use_conv_bias: bool
    time_step_min: float
    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    moe_shared_expert_intermediate_size: int
    moe_latent_size: int  # 0: experts read the hidden state itself
    n_group: int
    topk_group: int
    norm_topk_prob: bool
    routed_scaling_factor: float

    @classmethod
    def read(cls, options: Options) -> NemotronHConfig:
        if options.take("model_type") != "nemotron_h":
            raise options.refused("model_type", options.take("model_type"), " is not supported; nemotron_h is")
        for alias, name in _ALIASES.items():
            if (value := options.take(alias)) is not None:
                options.put(name, value)
        layers = cls._layer_types(options)
        shared: dict[str, Any] = common_options(options)
        heads = options.whole("num_attention_heads", 32)
        latent = options.take("moe_latent_size")
        config = cls(
            **shared,
            num_hidden_layers=len(layers),
            norm_eps=options.number("layer_norm_epsilon", 1e-5),
            layer_types=tuple(layers),
            num_attention_heads=heads,
            num_key_value_heads=options.whole("num_key_value_heads", 8),
            head_dim=options.whole("head_dim", 128),
            intermediate_size=options.whole("intermediate_size", 21504),
            activation=options.text("mlp_hidden_act", _ACTIVATIONS, "relu2"),
            mlp_bias=options.flag("mlp_bias"),
            mamba_num_heads=options.whole("mamba_num_heads", 128),
            mamba_head_dim=options.whole("mamba_head_dim", 64),
            ssm_state_size=options.whole("ssm_state_size", 128),
            n_groups=options.whole("n_groups", 8),
            conv_kernel=options.whole("conv_kernel", 4, least=2),
            chunk_size=options.whole("chunk_size", 128),
            use_bias=options.flag("use_bias"),
            use_conv_bias=options.flag("use_conv_bias", True),
            time_step_min=options.number("time_step_min", 0.001),
            n_routed_experts=options.whole("n_routed_experts", 8),
            num_experts_per_tok=options.whole("num_experts_per_tok", 2),
            moe_intermediate_size=options.whole("moe_intermediate_size", 7688),
            moe_shared_expert_intermediate_size=options.whole("moe_shared_expert_intermediate_size", 7688),
            moe_latent_size=0 if latent is None else options.whole("moe_latent_size"),
            n_group=options.whole("n_group", 1),
            topk_group=options.whole("topk_group", 1),
            norm_topk_prob=options.flag("norm_topk_prob", True),
            routed_scaling_factor=options.number("routed_scaling_factor", 1.0),
        )
        config._refuse(options)
        options.finish()
        return config

    @staticmethod
    def _layer_types(options: Options) -> list[str]:
        pattern = options.take("hybrid_override_pattern")
        given = options.words("layers_block_type") or options.words("layer_types")
        if given is None and pattern is not None:
            if not isinstance(pattern, str) or set(pattern) - set(_PATTERN):
                raise options.refused("hybrid_override_pattern", pattern, f": only {' '.join(_PATTERN)} are supported")
            given = [_PATTERN[letter] for letter in pattern]
        if not given:
            raise ConfigError("'layers_block_type' is missing")
        layers = [_LEGACY.get(kind, kind) for kind in given]
        unknown = set(layers) - set(_PATTERN.values())
        if unknown:
            known = ", ".join(_PATTERN.values())
            raise ConfigError(f"layers_block_type: {unknown.pop()!r} is not supported; there are {known}")
        count = options.whole("num_hidden_layers", len(layers))
        if count != len(layers):
            raise options.refused("num_hidden_layers", count, f": the layers that are listed are {len(layers)}")
        return layers

    def _refuse(self, options: Options) -> None:
        """What cannot be computed as asked, and what is known to change nothing."""
        options.only("mamba_hidden_act", "silu", "swish")
        options.only("mamba_proj_bias", False)
        options.only("sliding_window")
        options.only("mamba_ssm_cache_dtype", "float32")
        options.only("residual_in_fp32", False)
        # transformers has one shared MLP, of its own width, whatever the count; none at all is another model.
        options.whole("n_shared_experts", 1)
        # It clamps a step of the scan to [time_step_min, inf), and reads no other limit: only those that say the same.
        limits = options.take("time_step_limit", [0.0, math.inf])
        limits = [float(x["__float__"]) if isinstance(x, dict) else float(x) for x in limits]
        if len(limits) != 2 or limits[0] > self.time_step_min or limits[1] != math.inf:
            raise options.refused("time_step_limit", limits, f" is not supported beside {self.time_step_min:g} to inf")
        options.also((
            # Initial values, hints to kernels, and `expand`: heads and head dim give the width.
            *("time_step_max", "time_step_floor", "mamba_dt_max", "mamba_dt_init_floor", "rescale_prenorm_residual"),
            *("use_mamba_kernels", "moe_shared_expert_overlap", "num_logits_to_keep", "expand", "mamba_expand"),
            # This attention has no bias: a checkpoint with one fails at load, by its tensor's name.
            "attention_bias",
            # The layers that predict further tokens are not run.
            *("num_nextn_predict_layers", "mtp_layers_block_type", "mtp_hybrid_override_pattern"),
        ))
        for name, many, one in (
            ("num_key_value_heads", self.num_attention_heads, self.num_key_value_heads),
            ("n_groups", self.mamba_num_heads, self.n_groups),
            ("n_group", self.n_routed_experts, self.n_group),
        ):
            if many % one:
                raise options.refused(name, one, f": does not divide {many}")

    def ignored_tensors(self) -> tuple[str, ...]:
        return (*super().ignored_tensors(), r"^mtp\.")

    @property
    def _inner(self) -> int:
        return self.mamba_num_heads * self.mamba_head_dim

    @property
    def _channels(self) -> int:
        """Of the convolution: x, B, C."""
        return self._inner + 2 * self.n_groups * self.ssm_state_size

    # ---- Weights ----

    def layer_weights(self) -> dict[str, Weight]:
        mixers: dict[str, Callable[[str], dict[str, Weight]]] = {
            "linear_attention": self._mamba_weights,
            "full_attention": self._attention_weights,
            "moe": self._moe_weights,
            "mlp": lambda name: self._mlp_weights(name, self.intermediate_size),
        }
        weights: dict[str, Weight] = {}
        for i, kind in enumerate(self.layer_types):
            weights[f"backbone.layers.{i}.norm.weight"] = Weight((self.hidden_size,))
            weights |= mixers[kind](f"backbone.layers.{i}.mixer")
        return weights

    def _mamba_weights(self, name: str) -> dict[str, Weight]:
        hidden, heads, channels, kernel = self.hidden_size, self.mamba_num_heads, self._channels, self.conv_kernel
        shapes = {
            f"{name}.in_proj": (self._inner + channels + heads, hidden),
            f"{name}.out_proj": (hidden, self._inner),
        }
        return linears(shapes, bias=self.use_bias) | {
            f"{name}.conv1d.weight": Weight((channels, kernel), stored=(channels, 1, kernel)),
            **({f"{name}.conv1d.bias": Weight((channels,))} if self.use_conv_bias else {}),
            f"{name}.A": Weight((heads,), source=f"{name}.A_log", function=lambda log: -np.exp(log)),
            f"{name}.D": Weight((heads,)),
            f"{name}.dt_bias": Weight((heads,)),
            f"{name}.norm.weight": Weight((self._inner,)),
        }

    def _attention_weights(self, name: str) -> dict[str, Weight]:
        hidden = self.hidden_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        rows = {"q": (q, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, q)}
        return linears({f"{name}.{part}_proj": shape for part, shape in rows.items()})

    def _mlp_weights(self, name: str, inner: int) -> dict[str, Weight]:
        hidden = self.hidden_size
        return linears({f"{name}.up_proj": (inner, hidden), f"{name}.down_proj": (hidden, inner)}, bias=self.mlp_bias)

    def _moe_weights(self, name: str) -> dict[str, Weight]:
        hidden, inner, experts = self.hidden_size, self.moe_intermediate_size, self.n_routed_experts
        width = self.moe_latent_size or hidden
        weights = linears({f"{name}.gate": (experts, hidden)})
        weights[f"{name}.gate.e_score_correction_bias"] = Weight((experts,))
        if self.moe_latent_size:
            shapes = {f"{name}.fc1_latent_proj": (width, hidden), f"{name}.fc2_latent_proj": (hidden, width)}
            weights |= linears(shapes, bias=self.mlp_bias)
        for part, rows, columns in (("up_proj", inner, width), ("down_proj", width, inner)):
            weights[f"{name}.experts.{part}"] = stacked_rows(f"{name}.experts", experts, (part,), rows, columns)
        return weights | self._mlp_weights(f"{name}.shared_experts", self.moe_shared_expert_intermediate_size)

    # ---- Layers ----

    def add_layers(self, net: Network, hidden: adcg.Value) -> adcg.Value:
        mixers = {
            "linear_attention": (self._mamba, "mixer"),
            "full_attention": (self._attention, "mixer"),
            "moe": (self._moe, "mlp"),
            "mlp": (lambda net, i, x, name: self._mlp(net, x, name), "mlp"),
        }
        h = hidden
        for i, kind in enumerate(self.layer_types):
            mixer, word = mixers[kind]
            mixed = mixer(net, i, net.norm(h, f"backbone.layers.{i}.norm"), f"backbone.layers.{i}.mixer")
            h = net.trace(f"hidden.{i}", net.g.add(h, net.trace(f"{word}.{i}", mixed)))
        return h

    def _mamba(self, net: Network, i: int, x: adcg.Value, name: str) -> adcg.Value:
        g, w = net.g, net.weights
        heads, groups, size = self.mamba_num_heads, self.n_groups, self.ssm_state_size
        conv = net.state(f"conv.{i}", net.dtype, self._channels, self.conv_kernel - 1)
        state = net.state(f"ssm.{i}", "float32", heads, self.mamba_head_dim, size)
        z, xbc, dt = g.split(net.linear(x, f"{name}.in_proj"), [self._inner, self._channels, heads])
        conv_weights = w[f"{name}.conv1d.weight"], w.get(f"{name}.conv1d.bias")
        xbc = g.causal_conv1d(xbc, conv_weights[0], conv, *net.sequences, conv_weights[1], activation="silu")
        x, b, c = g.split(xbc, [self._inner, groups * size, groups * size])
        x, b, c = net.heads(x, heads, self.mamba_head_dim), net.heads(b, groups, size), net.heads(c, groups, size)
        scalars = (w[f"{name}.D"], w[f"{name}.dt_bias"])
        chunks = net.chunks(self.chunk_size)
        y = g.ssm(x, dt, w[f"{name}.A"], b, c, *scalars, state, *net.sequences, *chunks, dt_min=self.time_step_min)
        y = g.reshape(y, dims=[self._inner])
        y = g.rms_norm(y, w[f"{name}.norm.weight"], z, eps=self.norm_eps, groups=groups, gate="before")
        return net.linear(y, f"{name}.out_proj")

    def _attention(self, net: Network, i: int, x: adcg.Value, name: str) -> adcg.Value:
        kv = self.num_key_value_heads
        counts = {"q": self.num_attention_heads, "k": kv, "v": kv}
        q, k, v = (net.heads(net.linear(x, f"{name}.{p}_proj"), n, self.head_dim) for p, n in counts.items())
        return net.linear(net.attention(i, q, k, v), f"{name}.o_proj")

    def _mlp(self, net: Network, x: adcg.Value, name: str) -> adcg.Value:
        return net.linear(net.linear(x, f"{name}.up_proj", activation=self.activation), f"{name}.down_proj")

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
        experts = w[f"{name}.experts.up_proj"], w[f"{name}.experts.down_proj"]
        latent = net.linear(x, f"{name}.fc1_latent_proj") if self.moe_latent_size else x
        routed = g.moe(latent, weights, indices, *experts, activation=self.activation, gated=False)
        if self.moe_latent_size:
            routed = net.linear(routed, f"{name}.fc2_latent_proj")
        value: adcg.Value = g.add(routed, self._mlp(net, x, f"{name}.shared_experts"))
        return value
