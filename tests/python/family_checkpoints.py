"""Small random checkpoints of three families (all but Llama), in the Hugging Face format, with any options."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

COMMON: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "max_position_embeddings": 128,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "dtype": "float32",
}
BASES: dict[str, dict[str, Any]] = {
    "qwen3_5_moe_text": {
        **COMMON,
        "model_type": "qwen3_5_moe_text",
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 12,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "moe_intermediate_size": 20,
        "shared_expert_intermediate_size": 28,
        "num_experts": 10,
        "num_experts_per_tok": 3,
    },
    "nemotron_h": {
        **COMMON,
        "model_type": "nemotron_h",
        "layers_block_type": ["linear_attention", "moe", "linear_attention", "full_attention", "mlp", "moe"],
        "layer_norm_epsilon": 1e-5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "intermediate_size": 44,
        "mlp_hidden_act": "relu2",
        "mlp_bias": False,
        "mamba_hidden_act": "silu",
        "mamba_num_heads": 6,
        "mamba_head_dim": 8,
        "ssm_state_size": 10,
        "n_groups": 2,
        "conv_kernel": 4,
        "chunk_size": 8,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_min": 0.001,
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
        "n_routed_experts": 9,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 20,
        "moe_shared_expert_intermediate_size": 28,
        "n_group": 3,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.7,
    },
    "glm4_moe_lite": {
        **COMMON,
        "model_type": "glm4_moe_lite",
        "num_hidden_layers": 3,
        "mlp_layer_types": ["dense", "sparse", "sparse"],
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "q_lora_rank": 18,
        "kv_lora_rank": 20,
        "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 6,
        "v_head_dim": 14,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "rope_interleave": True,
        "intermediate_size": 60,
        "moe_intermediate_size": 20,
        "n_routed_experts": 12,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "n_group": 3,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.8,
    },
}


class Tensors:
    """Random tensors by name, of one type."""

    def __init__(self, seed: int, dtype: str) -> None:
        import ml_dtypes

        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        self.found: dict[str, Any] = {}

    def add(self, name: str, *shape: int, around: float = 0.0, scale: float = 0.2) -> None:
        self.found[name] = (around + scale * self.rng.standard_normal(shape)).astype(self.dtype)

    def linear(self, name: str, rows: int, columns: int, bias: bool = False, scale: float = 1.0) -> None:
        self.add(f"{name}.weight", rows, columns, scale=scale / math.sqrt(columns))
        if bias:
            self.add(f"{name}.bias", rows, scale=0.4)

    def mlp(self, name: str, inner: int, hidden: int, gated: bool, bias: bool = False) -> None:
        for part in (("gate_proj", "up_proj") if gated else ("up_proj",)):
            self.linear(f"{name}.{part}", inner, hidden, bias)
        self.linear(f"{name}.down_proj", hidden, inner, bias)


def qwen(c: dict[str, Any], t: Tensors) -> None:
    h, d = c["hidden_size"], c["head_dim"]
    keys = c["linear_num_key_heads"] * c["linear_key_head_dim"]
    value_heads = c["linear_num_value_heads"]
    values = value_heads * c["linear_value_head_dim"]
    for i, kind in enumerate(c["layer_types"]):
        p = f"model.layers.{i}."
        t.add(p + "input_layernorm.weight", h)
        t.add(p + "post_attention_layernorm.weight", h)
        if kind == "full_attention":
            heads, kv, bias = c["num_attention_heads"], c["num_key_value_heads"], c["attention_bias"]
            for name, rows in (("q", 2 * heads * d), ("k", kv * d), ("v", kv * d)):
                t.linear(p + f"self_attn.{name}_proj", rows, h, bias, scale=1.5)
            t.linear(p + "self_attn.o_proj", h, heads * d, bias)
            for name in "qk":
                t.add(p + f"self_attn.{name}_norm.weight", d, around=0.5)
        else:
            for name, rows in (("qkv", 2 * keys + values), ("z", values), ("b", value_heads), ("a", value_heads)):
                t.linear(p + f"linear_attn.in_proj_{name}", rows, h)
            t.add(p + "linear_attn.conv1d.weight", 2 * keys + values, 1, c["linear_conv_kernel_dim"], scale=0.6)
            t.add(p + "linear_attn.A_log", value_heads, around=-1.0)
            t.add(p + "linear_attn.dt_bias", value_heads, around=-1.0, scale=0.5)
            t.add(p + "linear_attn.norm.weight", c["linear_value_head_dim"], around=1.0)
            t.linear(p + "linear_attn.out_proj", h, values)
        t.linear(p + "mlp.gate", c["num_experts"], h)
        for e in range(c["num_experts"]):
            t.mlp(p + f"mlp.experts.{e}", c["moe_intermediate_size"], h, gated=True)
        t.mlp(p + "mlp.shared_expert", c["shared_expert_intermediate_size"], h, gated=True)
        t.linear(p + "mlp.shared_expert_gate", 1, h)
    t.add("model.norm.weight", h)


def router(c: dict[str, Any], t: Tensors, name: str) -> None:
    t.linear(name, c["n_routed_experts"], c["hidden_size"])
    t.add(f"{name}.e_score_correction_bias", c["n_routed_experts"], scale=0.1)


def nemotron(c: dict[str, Any], t: Tensors) -> None:
    h, heads, inner = c["hidden_size"], c["mamba_num_heads"], c["mamba_num_heads"] * c["mamba_head_dim"]
    channels = inner + 2 * c["n_groups"] * c["ssm_state_size"]
    for i, kind in enumerate(c["layers_block_type"]):
        p = f"backbone.layers.{i}."
        m = p + "mixer"
        t.add(p + "norm.weight", h, around=1.0)
        if kind == "linear_attention":
            t.linear(f"{m}.in_proj", inner + channels + heads, h, c["use_bias"])
            t.add(f"{m}.conv1d.weight", channels, 1, c["conv_kernel"], scale=0.6)
            if c["use_conv_bias"]:
                t.add(f"{m}.conv1d.bias", channels)
            t.add(f"{m}.A_log", heads, around=0.5)
            t.add(f"{m}.D", heads, around=1.0)
            t.add(f"{m}.dt_bias", heads, around=-2.0, scale=0.5)
            t.add(f"{m}.norm.weight", inner, around=1.0)
            t.linear(f"{m}.out_proj", h, inner, c["use_bias"])
        elif kind == "full_attention":
            d = c["head_dim"]
            for name, count in (("q", c["num_attention_heads"]), *((n, c["num_key_value_heads"]) for n in "kv")):
                t.linear(f"{m}.{name}_proj", count * d, h, scale=2.0)
            t.linear(f"{m}.o_proj", h, c["num_attention_heads"] * d)
        elif kind == "mlp":
            t.mlp(m, c["intermediate_size"], h, gated=False, bias=c["mlp_bias"])
        else:
            latent = c.get("moe_latent_size")
            router(c, t, f"{m}.gate")
            for e in range(c["n_routed_experts"]):
                t.mlp(f"{m}.experts.{e}", c["moe_intermediate_size"], latent or h, gated=False)
            t.mlp(f"{m}.shared_experts", c["moe_shared_expert_intermediate_size"], h, gated=False, bias=c["mlp_bias"])
            if latent:
                t.linear(f"{m}.fc1_latent_proj", latent, h, c["mlp_bias"])
                t.linear(f"{m}.fc2_latent_proj", h, latent, c["mlp_bias"])
    t.add("backbone.norm_f.weight", h, around=1.0)


def glm(c: dict[str, Any], t: Tensors) -> None:
    h, heads, latent, rank = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"], c.get("q_lora_rank")
    nope, pe, v, bias = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["attention_bias"]
    for i, kind in enumerate(c["mlp_layer_types"]):
        p = f"model.layers.{i}."
        a = p + "self_attn"
        t.add(p + "input_layernorm.weight", h, around=1.0)
        t.add(p + "post_attention_layernorm.weight", h, around=1.0)
        if rank:
            t.linear(f"{a}.q_a_proj", rank, h, bias, scale=0.05)  # small latents: their norms' eps counts
            t.add(f"{a}.q_a_layernorm.weight", rank, around=1.0)
        t.linear(f"{a}.q_b_proj" if rank else f"{a}.q_proj", heads * (nope + pe), rank or h, scale=1.5)
        t.linear(f"{a}.kv_a_proj_with_mqa", latent + pe, h, bias)
        t.add(f"{a}.kv_a_layernorm.weight", latent, around=1.0)
        t.linear(f"{a}.kv_b_proj", heads * (nope + v), latent, scale=1.5)
        t.linear(f"{a}.o_proj", h, heads * v, bias)
        if kind == "dense":
            t.mlp(p + "mlp", c["intermediate_size"], h, gated=True)
        else:
            router(c, t, p + "mlp.gate")
            for e in range(c["n_routed_experts"]):
                t.mlp(p + f"mlp.experts.{e}", c["moe_intermediate_size"], h, gated=True)
            if c["n_shared_experts"]:
                t.mlp(p + "mlp.shared_experts", c["n_shared_experts"] * c["moe_intermediate_size"], h, gated=True)
    t.add("model.norm.weight", h, around=1.0)


MAKERS = {
    "qwen3_5_moe_text": (qwen, "model.embed_tokens"),
    "nemotron_h": (nemotron, "backbone.embeddings"),
    "glm4_moe_lite": (glm, "model.embed_tokens"),
}


def make(family: str, overrides: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A config, in which an override of None leaves the option out, and its tensors."""
    config = {key: value for key, value in {**BASES[family], **overrides}.items() if value is not None}
    if overrides.get("q_lora_rank", 0) is None:
        config["q_lora_rank"] = None  # null says that there is none; left out it would be the family's default
    if family == "qwen3_5_moe_text":
        config["num_hidden_layers"] = len(config["layer_types"])
    tensors = Tensors(seed, config["dtype"])
    layers, table = MAKERS[family]
    tensors.add(f"{table}.weight", config["vocab_size"], config["hidden_size"], scale=0.7)
    layers(config, tensors)
    if not config["tie_word_embeddings"]:
        tensors.linear("lm_head", config["vocab_size"], config["hidden_size"], scale=1.5)
    return config, tensors.found


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
