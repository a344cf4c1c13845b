"""Whole models as graphs, from the configs in tests/data/shapes/models.json.

Norm and head follow the gather of each sequence's last row, so that logits are float32 [seqs, vocab].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import adcg

from . import ops
from .layers import Config, Layers

SHAPES = Path(__file__).resolve().parents[2] / "data" / "shapes" / "models.json"

Layer = Callable[[adcg.Value, str], adcg.Value]  # x, name of the layer
Block = Callable[[adcg.Value, int], adcg.Value]  # residual stream, number of the layer


def checkpoints() -> dict[str, dict[str, Any]]:
    """The entries of models.json by name, in the file's order."""
    return {entry["name"]: entry for entry in json.loads(SHAPES.read_text())}


def text_config(entry: Mapping[str, Any]) -> Config:
    config: Config = entry["config"]
    return config.get("text_config", config)


def table_of(entry: Mapping[str, Any]) -> dict[str, ops.Op]:
    """The ops that an engine needs for this checkpoint."""
    return ops.table(text_config(entry).get("chunk_size", 128))


def build(
    engine: adcg.Engine, entry: Mapping[str, Any], *, max_tokens: int, max_seqs: int, fused: bool = False
) -> adcg.Graph:
    """The graph of a checkpoint, not frozen; ``table_of(entry)`` is registered with the engine already. ``fused``: see
    ``Layers``."""
    g = engine.graph(max_tokens=max_tokens, max_seqs=max_seqs)
    layers = Layers(g, text_config(entry), fused)
    model = "backbone" if entry["model_type"] == "nemotron_h" else "model"
    embedding = "embeddings" if entry["model_type"] == "nemotron_h" else "embed_tokens"
    vocab = layers.config["vocab_size"]
    blocks = _BLOCKS[entry["model_type"]](layers)
    h = g.embedding(layers.ids, layers.weight(f"{model}.{embedding}.weight", vocab, layers.hidden), dtype="bfloat16")
    for i in range(layers.config["num_hidden_layers"]):
        h = blocks(h, i)
    h = g.gather_tokens(h, g.input("last_idx", "int32", [g.seqs]))
    h = layers.norm(h, f"{model}.{'norm_f' if model == 'backbone' else 'norm'}")
    g.output("logits", layers.linear_f32(h, "lm_head", vocab))
    return g


def parameters(g: adcg.Graph) -> int:
    """Elements of all weights but the routers' correction biases, which are buffers."""
    count = 0
    for value in g.weights:
        if not value.name.endswith("e_score_correction_bias"):
            elements = 1
            for extent in value.shape or ():
                elements *= extent.constant
            count += elements
    return count


# ---- Families ----------------------------------------------------------------------------------------------------


def _two_residuals(layers: Layers, h: adcg.Value, i: int, mixer: Layer, mlp: Layer) -> adcg.Value:
    """h + mixer(norm(h)), then h + mlp(norm(h))."""
    name = f"model.layers.{i}"
    h = layers.g.add(h, mixer(layers.norm(h, f"{name}.input_layernorm"), name))
    return layers.g.add(h, mlp(layers.norm(h, f"{name}.post_attention_layernorm"), name))


def _llama(layers: Layers) -> Block:
    layers.add_positions()

    def block(h: adcg.Value, i: int) -> adcg.Value:
        return _two_residuals(
            layers,
            h,
            i,
            lambda x, name: layers.attention(x, f"{name}.self_attn"),
            lambda x, name: layers.mlp(x, f"{name}.mlp", layers.config["intermediate_size"]),
        )

    return block


def _qwen3_moe(layers: Layers) -> Block:
    layers.add_positions()

    def block(h: adcg.Value, i: int) -> adcg.Value:
        return _two_residuals(
            layers,
            h,
            i,
            lambda x, name: layers.attention(x, f"{name}.self_attn", norms=True),
            lambda x, name: layers.routed(x, f"{name}.mlp", layers.config["num_experts"], bias=False),
        )

    return block


def _qwen3_5_moe(layers: Layers) -> Block:
    c = layers.config
    layers.add_positions()
    layers.add_chunks(ops.DELTA_CHUNK)
    rotary = int(c["head_dim"] * c["rope_parameters"]["partial_rotary_factor"])

    def mlp(x: adcg.Value, name: str) -> adcg.Value:
        shared = layers.mlp(x, f"{name}.mlp.shared_expert", c["shared_expert_intermediate_size"])
        out = layers.routed(x, f"{name}.mlp", c["num_experts"], bias=False)
        gate = layers.linear(x, f"{name}.mlp.shared_expert_gate", 1)
        return layers.g.add(out, layers.g.op("models.sigmoid_mul", shared, gate))

    def block(h: adcg.Value, i: int) -> adcg.Value:
        def mixer(x: adcg.Value, name: str) -> adcg.Value:
            if c["layer_types"][i] == "linear_attention":
                return layers.gated_delta(x, f"{name}.linear_attn")
            return layers.attention(x, f"{name}.self_attn", norms=True, gate=True, rotary=rotary)

        return _two_residuals(layers, h, i, mixer, mlp)

    return block


def _nemotron_h(layers: Layers) -> Block:
    c = layers.config
    layers.add_chunks(c["chunk_size"])

    def moe(x: adcg.Value, name: str) -> adcg.Value:
        out = layers.routed(x, name, c["n_routed_experts"], gated=False)
        inner = c["moe_shared_expert_intermediate_size"]
        return layers.g.add(out, layers.relu2_mlp(x, f"{name}.shared_experts", inner))

    mixers: dict[str, Layer] = {
        "M": layers.mamba,
        "*": lambda x, name: layers.attention(x, name, rotary=0),
        "E": moe,
        "-": lambda x, name: layers.relu2_mlp(x, name, c["intermediate_size"]),
    }

    def block(h: adcg.Value, i: int) -> adcg.Value:
        name = f"backbone.layers.{i}"
        mixer = mixers[c["hybrid_override_pattern"][i]]
        return layers.g.add(h, mixer(layers.norm(h, f"{name}.norm"), f"{name}.mixer"))

    return block


def _deepseek(layers: Layers) -> Block:
    """DeepSeek-V3 and GLM-4.7-Flash: the first layers dense, then routed experts beside a shared one."""
    c = layers.config
    layers.add_positions()

    def block(h: adcg.Value, i: int) -> adcg.Value:
        def mlp(x: adcg.Value, name: str) -> adcg.Value:
            if i < c["first_k_dense_replace"]:
                return layers.mlp(x, f"{name}.mlp", c["intermediate_size"])
            out = layers.routed(x, f"{name}.mlp", c["n_routed_experts"])
            inner = c["n_shared_experts"] * c["moe_intermediate_size"]
            return layers.g.add(out, layers.mlp(x, f"{name}.mlp.shared_experts", inner))

        return _two_residuals(layers, h, i, lambda x, name: layers.mla(x, f"{name}.self_attn"), mlp)

    return block


_BLOCKS: dict[str, Callable[[Layers], Block]] = {
    "llama": _llama,
    "qwen3_moe": _qwen3_moe,
    "qwen3_5_moe": _qwen3_5_moe,
    "nemotron_h": _nemotron_h,
    "glm4_moe_lite": _deepseek,
    "deepseek_v3": _deepseek,
}
