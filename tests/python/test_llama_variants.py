"""Llama checkpoints beyond the golden ones, against a float64 implementation that shares nothing with the builder.

Each case is a tiny random checkpoint in the Hugging Face format, written here. The reference below was compared once
with transformers 5.17 (LlamaForCausalLM, float64, eager attention, CPU, torch 2.11) on these cases, three sequences of
9 to 70 tokens each: the largest difference of any logit was 4.3e-5 in "all_at_once" and at most 1.2e-5 in the others,
which is what transformers' rope angles in float32 amount to. `python test_llama_variants.py` repeats that where torch
and transformers are installed.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "attention_bias": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "dtype": "float32",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "llama3_rope": {"rope_parameters": LLAMA3},
    "llama3_rope_old_style": {
        "rope_parameters": None,
        "rope_theta": 500.0,
        "rope_scaling": {key: value for key, value in LLAMA3.items() if key != "rope_theta"},
    },
    "linear_rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "theta_old_style": {"rope_parameters": None, "rope_theta": 300.0},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide_heads": {"head_dim": 26},
    "narrow_heads": {"head_dim": 2},
    "no_head_dim": {"head_dim": None},
    "gqa_1": {"num_key_value_heads": 6},
    "no_kv_heads": {"num_key_value_heads": None},
    "gqa_3": {"hidden_size": 45, "num_attention_heads": 9, "num_key_value_heads": 3},
    "gqa_8": {"num_attention_heads": 8, "num_key_value_heads": 1},
    "one_layer_odd_sizes": {"num_hidden_layers": 1, "hidden_size": 42, "intermediate_size": 33, "vocab_size": 101},
    "eps": {"rms_norm_eps": 0.3},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16", "torch_dtype": "float16"},
    "all_at_once": {
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 14,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "dtype": "bfloat16",
    },
}
# What the C example does not have.
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
PYTHON_CASES: dict[str, dict[str, Any]] = {
    "yarn": {"rope_parameters": YARN},
    "yarn_default_length": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0}},
    "yarn_settings": {
        "head_dim": 26,
        "rope_parameters": {**YARN, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False, "attention_factor": 1.3},
    },
    "yarn_mscale": {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}},
    "yarn_one_mscale": {"rope_parameters": {**YARN, "mscale": 0.7}},
}


# ---- Checkpoints -------------------------------------------------------------------------------------------------


def make(folder: Path, overrides: dict[str, Any], seed: int, shards: int = 1) -> dict[str, Any]:
    """Writes config.json and random weights; returns the config."""
    import ml_dtypes
    from safetensors.numpy import save_file

    config = {key: value for key, value in {**BASE, **overrides}.items() if value is not None}
    heads = config["num_attention_heads"]
    kv = config.get("num_key_value_heads", heads)
    d = config.get("head_dim", config["hidden_size"] // heads)
    h, inner, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    rng = np.random.default_rng(seed)
    dtype = np.dtype(ml_dtypes.bfloat16 if config["dtype"] == "bfloat16" else config["dtype"])
    tensors: dict[str, Any] = {}

    def add(name: str, *shape: int, around: float = 0.0, scale: float | None = None) -> None:
        width = scale if scale is not None else 1.0 / math.sqrt(shape[-1])
        tensors[name] = (around + width * rng.standard_normal(shape)).astype(dtype)

    add("model.embed_tokens.weight", v, h, scale=0.7)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        add(p + "input_layernorm.weight", h, around=1.0, scale=0.2)
        add(p + "post_attention_layernorm.weight", h, around=1.0, scale=0.2)
        for name, rows, columns in (("q", heads * d, h), ("k", kv * d, h), ("v", kv * d, h), ("o", h, heads * d)):
            add(p + f"self_attn.{name}_proj.weight", rows, columns, scale=2.0 / math.sqrt(columns))
            if config["attention_bias"]:
                add(p + f"self_attn.{name}_proj.bias", rows, scale=0.5)
        for name, rows, columns in (("gate", inner, h), ("up", inner, h), ("down", h, inner)):
            add(p + f"mlp.{name}_proj.weight", rows, columns)
            if config["mlp_bias"]:
                add(p + f"mlp.{name}_proj.bias", rows, scale=0.5)
    add("model.norm.weight", h, around=1.0, scale=0.2)
    if not config["tie_word_embeddings"]:
        add("lm_head.weight", v, h)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        weight_map = {}
        for s in range(shards):
            part = {name: t for i, (name, t) in enumerate(tensors.items()) if i % shards == s}
            file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
            save_file(part, folder / file)
            weight_map |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return config


# ---- The reference, in float64 -----------------------------------------------------------------------------------


def inverse_frequencies(config: dict[str, Any], d: int) -> tuple[Any, float]:
    """Of each pair, and the factor of cos and sin."""
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)} | (
        config.get("rope_scaling") or {}
    )
    frequencies = rope["rope_theta"] ** (-np.arange(0, d, 2, dtype=np.float64) / d)
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        return frequencies / rope["factor"], 1.0
    if kind == "yarn":
        # Pairs that turn often over the original length are kept, those that hardly turn are stretched.
        original = rope.get("original_max_position_embeddings", config["max_position_embeddings"])
        ends = [
            d * math.log(original / (2 * math.pi * turns)) / (2 * math.log(rope["rope_theta"]))
            for turns in (rope.get("beta_fast", 32.0), rope.get("beta_slow", 1.0))
        ]
        if rope.get("truncate", True):
            ends = [math.floor(ends[0]), math.ceil(ends[1])]
        ends = [max(ends[0], 0), min(ends[1], d - 1)]
        blend = np.clip((np.arange(d // 2) - ends[0]) / (ends[1] - ends[0]), 0, 1)

        def grown(mscale: float) -> float:
            return 1 + 0.1 * mscale * math.log(rope["factor"])

        both = rope.get("mscale"), rope.get("mscale_all_dim")
        scale = rope.get("attention_factor", grown(both[0]) / grown(both[1]) if all(both) else grown(1))
        return frequencies * (1 - blend) + frequencies / rope["factor"] * blend, scale
    if kind == "llama3":
        # Long waves are stretched, short ones kept, those between are blended (Llama 3.1's own scheme).
        scaled = []
        for f in frequencies:
            wave = 2 * math.pi / f
            low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
            high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
            if wave > low:
                scaled.append(f / rope["factor"])
            elif wave < high:
                scaled.append(f)
            else:
                blend = rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]
                blend /= rope["high_freq_factor"] - rope["low_freq_factor"]
                scaled.append((1 - blend) * f / rope["factor"] + blend * f)
        return np.array(scaled), 1.0
    return frequencies, 1.0


def reference(config: dict[str, Any], weights: dict[str, Any], ids: Any) -> Any:
    """Logits [T, vocab] of one sequence: the whole of it at once, attention as one masked matrix."""
    w = {name: np.asarray(t).astype(np.float64) for name, t in weights.items()}
    heads = config["num_attention_heads"]
    kv = config.get("num_key_value_heads", heads)
    d = config.get("head_dim", config["hidden_size"] // heads)
    t = len(ids)
    frequencies, scale = inverse_frequencies(config, d)
    angles = np.arange(t)[:, None] * frequencies[None, :]
    cos, sin = scale * np.cos(angles)[:, None, :], scale * np.sin(angles)[:, None, :]

    def norm(x: Any, name: str) -> Any:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + config["rms_norm_eps"]) * w[name + ".weight"]

    def linear(x: Any, name: str) -> Any:
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    def rotate(x: Any) -> Any:
        first, second = x[..., : d // 2], x[..., d // 2 :]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    x = w["model.embed_tokens.weight"][ids]
    future = np.triu(np.full((t, t), -np.inf), 1)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        n = norm(x, p + "input_layernorm")
        q = rotate(linear(n, p + "self_attn.q_proj").reshape(t, heads, d))
        k = rotate(linear(n, p + "self_attn.k_proj").reshape(t, kv, d))
        v = linear(n, p + "self_attn.v_proj").reshape(t, kv, d)
        out = np.empty((t, heads, d))
        for head in range(heads):
            group = head // (heads // kv)
            scores = q[:, head] @ k[:, group].T / math.sqrt(d) + future
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, head] = scores / scores.sum(axis=1, keepdims=True) @ v[:, group]
        x = x + linear(out.reshape(t, heads * d), p + "self_attn.o_proj")
        n = norm(x, p + "post_attention_layernorm")
        gate = linear(n, p + "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(n, p + "mlp.up_proj"), p + "mlp.down_proj")
    head_name = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return linear(norm(x, "model.norm"), head_name)


# ---- Tests -------------------------------------------------------------------------------------------------------


def ours(folder: Path, sequences: list[Any], **options: Any) -> list[Any]:
    """Logits of sequences side by side: a chunk of each, then the rest, then the last token as decode."""
    import adcg
    from llama import LlamaConfig, Model, Piece, load_weights

    config = LlamaConfig.from_dir(folder)
    weights = load_weights(folder, config, note=lambda text: None)
    found: list[list[Any]] = [[] for _ in sequences]
    with adcg.Engine("host") as engine:
        model = Model(engine, config, weights, max_tokens=200, max_seqs=4, max_len=96, logits="all", **options)
        with model.runner(buckets=[16, 200]) as runner:
            positions = [0] * len(sequences)
            for kind in ("prefill", "extend", "decode"):
                pieces = []
                for i, ids in enumerate(sequences):
                    end = {"prefill": len(ids) // 3, "extend": len(ids) - 1, "decode": len(ids)}[kind]
                    pieces.append(Piece(len(sequences) - i, positions[i], ids[positions[i] : end], kind))
                    positions[i] = end
                logits, step = runner.step(pieces)
                assert step.mode in ("full", "piecewise")
                row = 0
                for i, piece in enumerate(pieces):
                    found[i].append(logits[row : row + len(piece.tokens)].copy())
                    row += len(piece.tokens)
    return [np.concatenate(parts) for parts in found]


def load(folder: Path) -> dict[str, Any]:
    import ml_dtypes  # noqa: F401
    from safetensors.numpy import load_file

    tensors: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def prompts(vocab: int) -> list[Any]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, vocab, n).astype(np.int32) for n in (70, 9, 33)]


@pytest.mark.parametrize("name", [*CASES, *PYTHON_CASES])
def test_variant(name: str, tmp_path: Path) -> None:
    config = make(tmp_path, {**CASES, **PYTHON_CASES}[name], seed=len(name))
    weights = load(tmp_path)
    sequences = prompts(config["vocab_size"])
    for ids, logits in zip(sequences, ours(tmp_path, sequences), strict=True):
        expected = reference(config, weights, ids)
        assert np.abs(expected).max() > 1  # the case says something
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_the_cases_differ(tmp_path: Path) -> None:
    """Each option moves the logits far beyond the tolerance: ignoring it would be seen."""
    config = make(tmp_path, CASES["all_at_once"], seed=1)
    weights = load(tmp_path)
    ids = prompts(config["vocab_size"])[0]
    expected = reference(config, weights, ids)
    for option in (
        {"rope_parameters": BASE["rope_parameters"]},
        {"rope_parameters": {**LLAMA3, "factor": 7.0}},
        {"rope_parameters": {**LLAMA3, "low_freq_factor": 1.5}},
        {"rms_norm_eps": 1e-2},
    ):
        assert np.abs(reference({**config, **option}, weights, ids) - expected).max() > 1e-3, option
    without = {key: t for key, t in weights.items() if not key.endswith("k_proj.bias")}
    assert np.abs(reference(config, without, ids) - expected).max() > 1e-3


def test_sharded_checkpoint(tmp_path: Path) -> None:
    single, sharded = tmp_path / "single", tmp_path / "sharded"
    single.mkdir()
    sharded.mkdir()
    config = make(single, CASES["plain"], seed=3)
    make(sharded, CASES["plain"], seed=3, shards=3)
    sequences = prompts(config["vocab_size"])
    for a, b in zip(ours(single, sequences), ours(sharded, sequences), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_activations(tmp_path: Path) -> None:
    """bf16 throughout: near the reference as far as bf16 carries, and the caches are bf16 too."""
    config = make(tmp_path, CASES["bfloat16"], seed=4)
    sequences = prompts(config["vocab_size"])
    weights = load(tmp_path)
    for dtype, cache in (("bfloat16", None), ("float32", "bfloat16")):
        for ids, logits in zip(sequences, ours(tmp_path, sequences, dtype=dtype, cache_dtype=cache), strict=True):
            assert logits.dtype.name == dtype
            expected = reference(config, weights, ids)
            error = np.abs(logits.astype(np.float64) - expected)
            scale = np.abs(expected).max()
            assert 1e-6 * scale < error.max() < 0.1 * scale


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mistral"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"pretraining_tp": 2}, "pretraining_tp"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 32}}, "beta_fast"),
        ({"num_experts": 8}, "num_experts: 8 is not supported: unknown option"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"dtype": "float8"}, "float8"),
        ({"vocab_size": None}, "vocab_size"),
    ],
)
def test_unsupported_options_are_named(change: dict[str, Any], words: str) -> None:
    from llama import ConfigError, LlamaConfig

    raw = {key: value for key, value in {**BASE, **change}.items() if value is not None}
    with pytest.raises((ConfigError, KeyError), match=words):
        LlamaConfig.from_json(raw)


def test_bad_checkpoints(tmp_path: Path) -> None:
    from llama import ConfigError, LlamaConfig, load_weights
    from safetensors.numpy import save_file

    with pytest.raises(ConfigError, match=r"config\.json"):
        LlamaConfig.from_dir(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        LlamaConfig.from_dir(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=r"'num_attention_heads' is missing"):
        LlamaConfig.from_dir(tmp_path)
    make(tmp_path, {}, seed=1)
    config = LlamaConfig.from_dir(tmp_path)
    tensors = load(tmp_path)
    for change, words in (
        ({"lm_head.weight": None}, "no tensor lm_head.weight"),
        ({"model.norm.weight": np.ones(47, np.float32)}, r"model.norm.weight: \(47,\)"),
        ({"model.norm.weight": np.ones(48, np.float64)}, "model.norm.weight: float64"),
    ):
        save_file({k: t for k, t in {**tensors, **change}.items() if t is not None}, tmp_path / "model.safetensors")
        with pytest.raises(ConfigError, match=words):
            load_weights(tmp_path, config)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="neither"):
        load_weights(tmp_path, config)


def test_float16_is_cast_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from llama import LlamaConfig, load_weights

    make(tmp_path, CASES["float16"], seed=2)
    weights = load_weights(tmp_path, LlamaConfig.from_dir(tmp_path))
    assert {t.dtype.name for t in weights.values()} == {"float32"}
    assert f"{len(weights)} float16 tensors were cast" in capsys.readouterr().err


# ---- The reference against transformers --------------------------------------------------------------------------


def compare_with_transformers() -> float:
    import tempfile

    import torch
    from transformers import LlamaForCausalLM

    worst = 0.0
    for name, overrides in {**CASES, **PYTHON_CASES}.items():
        with tempfile.TemporaryDirectory() as folder:
            config = make(Path(folder), overrides, seed=len(name))
            model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
            weights = load(Path(folder))
            for ids in prompts(config["vocab_size"]):
                with torch.no_grad():
                    theirs = model(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()
                error = float(np.abs(theirs - reference(config, weights, ids)).max())
                worst = max(worst, error)
                print(f"{name:24} T {len(ids):3}  {error:.2e}")
    return worst


if __name__ == "__main__":
    print(f"largest difference: {compare_with_transformers():.2e}", file=sys.stdout)
