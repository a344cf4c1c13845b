"""Checkpoints beyond the golden ones of Qwen3.5-MoE, Nemotron-H and GLM-4 MoE Lite, against family_reference.py.

Each case is a tiny random checkpoint (family_checkpoints.py) with options that others of the family may set.
The reference was compared with transformers 5.17 (float64, eager attention and experts, CPU, torch 2.11) on them: the
largest difference of any logit was 3.2e-5, which is what rope angles in float32 amount to. The tied Nemotron-H is left
out there, as that class of transformers does not tie, and draws the head that is missing at random.
`python test_family_variants.py` repeats that where torch and transformers are installed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_checkpoints import BASES, make, write
from family_reference import forward

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "original_max_position_embeddings": 32,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
}
LINEAR, FULL = "linear_attention", "full_attention"
HALF = {"partial_rotary_factor": 0.5}
QWEN: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "attention_bias": {"attention_bias": True},
    "no_attention": {"layer_types": [LINEAR, LINEAR]},
    "attention_alone": {"layer_types": [FULL, FULL]},
    "one_layer": {"layer_types": [LINEAR]},
    "attention_first": {"layer_types": [FULL, LINEAR, FULL]},
    "short_kernel": {"linear_conv_kernel_dim": 2},
    "long_kernel": {"linear_conv_kernel_dim": 9},
    "as_many_key_heads": {"linear_num_key_heads": 4, "linear_num_value_heads": 4},
    "one_key_head": {"linear_num_key_heads": 1, "linear_num_value_heads": 5},
    "wide_keys": {"linear_key_head_dim": 20, "linear_value_head_dim": 6},
    "top_1": {"num_experts_per_tok": 1},
    "all_experts": {"num_experts": 4, "num_experts_per_tok": 4},
    "whole_rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 1.0}},
    "default_partial_rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
    "outer_partial_rope": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
        "partial_rotary_factor": 0.75,
    },
    "mrope": {
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1], "mrope_interleaved": True,
        }
    },
    "linear_rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0, **HALF}},
    "llama3_rope": {"rope_parameters": {**LLAMA3, **HALF}},
    "yarn_rope": {"rope_parameters": {**YARN, **HALF}},
    "eps": {"rms_norm_eps": 0.2},
    "kv_heads": {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 12},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}
MAMBA = "linear_attention"
NEMOTRON: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "use_bias": {"use_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "no_conv_bias": {"use_conv_bias": False},
    "all_biases": {"use_bias": True, "mlp_bias": True, "use_conv_bias": True},
    "short_kernel": {"conv_kernel": 2},
    "long_kernel": {"conv_kernel": 9},
    "one_group": {"n_groups": 1},
    "a_group_a_head": {"n_groups": 6},
    "wide_states": {"ssm_state_size": 24, "mamba_head_dim": 5},
    "chunk_size": {"chunk_size": 3},
    "no_attention": {"layers_block_type": [MAMBA, "mlp", MAMBA, "moe"]},
    "mamba_alone": {"layers_block_type": [MAMBA, MAMBA]},
    "attention_alone": {"layers_block_type": [FULL, FULL]},
    "mlp_alone": {"layers_block_type": ["mlp", "mlp"]},
    "moe_alone": {"layers_block_type": ["moe", "moe"]},
    "attention_first": {"layers_block_type": [FULL, "mlp", MAMBA, "moe", FULL]},
    "unnormalised": {"norm_topk_prob": False},
    "one_expert_group": {"n_group": 1, "topk_group": 1},
    "scaled": {"routed_scaling_factor": 3.0, "num_experts_per_tok": 1},
    "latent_experts": {"moe_latent_size": 16},
    "latent_experts_bias": {"moe_latent_size": 16, "mlp_bias": True},
    "silu": {"mlp_hidden_act": "silu"},
    "gelu_tanh": {"mlp_hidden_act": "gelu_pytorch_tanh"},
    "clamped_steps": {"time_step_min": 0.15},
    "eps": {"layer_norm_epsilon": 0.2},
    "kv_heads": {"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 7},
    "attention_bias_is_none": {"attention_bias": True},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}
GLM: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "attention_bias": {"attention_bias": True},
    "no_q_lora": {"q_lora_rank": None},
    "no_q_lora_bias": {"q_lora_rank": None, "attention_bias": True},
    "dense": {"mlp_layer_types": ["dense", "dense", "dense"]},
    "sparse": {"mlp_layer_types": ["sparse", "sparse", "sparse"]},
    "mixed_layers": {"mlp_layer_types": ["sparse", "dense", "sparse"]},
    "no_shared": {"n_shared_experts": 0},
    "two_shared": {"n_shared_experts": 2},
    "unnormalised": {"norm_topk_prob": False},
    "one_group": {"n_group": 1, "topk_group": 1},
    "scaled": {"routed_scaling_factor": 1.0, "num_experts_per_tok": 1},
    "halves": {"rope_interleave": False},
    "linear_rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "llama3_rope": {"rope_parameters": LLAMA3},
    "yarn": {"rope_parameters": YARN},
    "yarn_mscale": {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "yarn_mscale_ratio": {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}},
    "yarn_all_dim_only": {"rope_parameters": {**YARN, "mscale_all_dim": 1.0}},
    "yarn_settings": {
        "rope_parameters": {**YARN, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False, "attention_factor": 1.3}
    },
    "gelu_tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "eps": {"rms_norm_eps": 0.2},
    "wide_values": {"v_head_dim": 24, "qk_nope_head_dim": 5},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}
CASES = {
    f"{family}-{name}": (family, overrides)
    for family, cases in (("qwen3_5_moe_text", QWEN), ("nemotron_h", NEMOTRON), ("glm4_moe_lite", GLM))
    for name, overrides in cases.items()
}


def prompts(vocab: int) -> list[Any]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, vocab, n).astype(np.int32) for n in (70, 5, 33)]


def decisive(family: str, overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[Any], list[Any]]:
    """A case's config, tensors, prompts and expected logits, of a seed whose routers have no near ties: one within a
    rounding could go either way."""
    for seed in range(100, 150):
        config, tensors = make(family, overrides, seed)
        sequences = prompts(config["vocab_size"])
        found = [forward(config, tensors, ids) for ids in sequences]
        if min(margin for _, margin in found) > 2e-5:
            return config, tensors, sequences, [logits for logits, _ in found]
    raise AssertionError("no seed without near ties")


def ours(folder: Path, sequences: list[Any], **options: Any) -> list[Any]:
    """Logits of sequences side by side: a chunk of each, then the rest, then the last token as decode."""
    import adcg
    from families import load_config
    from runner import Model, Piece, load_weights

    config = load_config(folder)
    weights = load_weights(folder, config, note=lambda text: None)
    found: list[list[Any]] = [[] for _ in sequences]
    with adcg.Engine("host") as engine:
        sizes = {"max_tokens": 200, "max_seqs": 4, "max_len": 96}
        model = Model(engine, config, weights, **sizes, logits="all", **options)
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


@pytest.mark.parametrize("name", CASES)
def test_variant(name: str, tmp_path: Path) -> None:
    config, tensors, sequences, expected = decisive(*CASES[name])
    write(tmp_path, config, tensors)
    for logits, want in zip(ours(tmp_path, sequences), expected, strict=True):
        assert np.abs(want).max() > 1  # the case says something
        np.testing.assert_allclose(logits, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "option", "value"),
    [
        ("qwen3_5_moe_text", "rms_norm_eps", 1e-2),
        ("qwen3_5_moe_text", "num_experts_per_tok", 2),
        ("qwen3_5_moe_text", "rope_parameters", {**YARN, **HALF}),
        ("qwen3_5_moe_text", "rope_parameters", {"rope_type": "default", "rope_theta": 10000.0}),
        ("nemotron_h", "layer_norm_epsilon", 1e-2),
        ("nemotron_h", "time_step_min", 0.15),
        ("nemotron_h", "norm_topk_prob", False),
        ("nemotron_h", "topk_group", 1),
        ("nemotron_h", "mlp_hidden_act", "silu"),
        ("glm4_moe_lite", "rope_interleave", False),
        ("glm4_moe_lite", "rope_parameters", YARN),
        ("glm4_moe_lite", "rope_parameters", {**YARN, "mscale_all_dim": 1.0}),
        ("glm4_moe_lite", "routed_scaling_factor", 1.0),
        ("glm4_moe_lite", "topk_group", 1),
    ],
)
def test_the_cases_differ(family: str, option: str, value: Any) -> None:
    """Each option moves the logits far beyond the tolerance: ignoring it would be seen."""
    config, tensors = make(family, {}, seed=3)
    ids = prompts(config["vocab_size"])[0]
    a, b = (forward(c, tensors, ids)[0] for c in (config, {**config, option: value}))
    assert np.abs(a - b).max() > 1e-2


# ---- Other ways of writing the same ------------------------------------------------------------------------------


def equal_logits(family: str, folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> None:
    """This checkpoint gives the logits of the plain one, which was made of seed 3, bit for bit."""
    plain, plain_tensors = make(family, {}, seed=3)
    write(folder / "plain", plain, plain_tensors)
    write(folder / "other", config, tensors)
    sequences = prompts(plain["vocab_size"])
    for a, b in zip(ours(folder / "plain", sequences), ours(folder / "other", sequences), strict=True):
        np.testing.assert_array_equal(a, b)


def test_qwen_stacked_experts(tmp_path: Path) -> None:
    config, tensors = make("qwen3_5_moe_text", {}, seed=3)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}.mlp.experts"
        for name, parts in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
            experts = [
                np.concatenate([tensors.pop(f"{p}.{e}.{part}.weight") for part in parts])
                for e in range(config["num_experts"])
            ]
            tensors[f"{p}.{name}"] = np.stack(experts)
    equal_logits("qwen3_5_moe_text", tmp_path, config, tensors)


def test_qwen_multimodal(tmp_path: Path) -> None:
    """The language model of a multimodal checkpoint; its vision and its further-token layers are left out."""
    text, tensors = make("qwen3_5_moe_text", {}, seed=3)
    moved = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    extra = dict.fromkeys(("model.visual.patch_embed.proj.weight", "mtp.norm.weight"), np.ones(3, np.float32))
    del text["tie_word_embeddings"]
    config = {
        "model_type": "qwen3_5_moe",
        "text_config": text,
        "vision_config": {"depth": 2},
        "image_token_id": 7,
        "tie_word_embeddings": False,
    }
    equal_logits("qwen3_5_moe_text", tmp_path, config, moved | extra)


def test_qwen_layer_interval(tmp_path: Path) -> None:
    kinds = [LINEAR, FULL, LINEAR, FULL]
    config, tensors = make("qwen3_5_moe_text", {"layer_types": kinds}, seed=3)
    write(tmp_path / "a", config, tensors)
    write(tmp_path / "b", {**config, "layer_types": None, "full_attention_interval": 2}, tensors)
    for a, b in zip(*(ours(tmp_path / name, prompts(97)) for name in "ab"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "change",
    [
        {"layers_block_type": None, "hybrid_override_pattern": "MEM*-E"},
        {"layers_block_type": ["mamba", "moe", "mamba", "attention", "mlp", "moe"]},
        {"num_hidden_layers": 6, "expand": 5, "time_step_floor": 0.5},
        {"n_groups": None, "mamba_n_groups": 2, "conv_kernel": None, "mamba_d_conv": 4},
    ],
)
def test_nemotron_names(tmp_path: Path, change: dict[str, Any]) -> None:
    config, tensors = make("nemotron_h", {}, seed=3)
    changed = {key: value for key, value in {**config, **change}.items() if value is not None}
    equal_logits("nemotron_h", tmp_path, changed, tensors | {"mtp.layers.0.norm.weight": np.ones(3, np.float32)})


def test_glm_dense_layers(tmp_path: Path) -> None:
    config, tensors = make("glm4_moe_lite", {}, seed=3)
    del config["mlp_layer_types"]
    further = {"model.layers.3.eh_proj.weight": np.ones((2, 2), np.float32)}
    changed = {**config, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1}
    equal_logits("glm4_moe_lite", tmp_path, changed, tensors | further)


@pytest.mark.parametrize("family", BASES)
def test_a_tied_model_with_a_head_of_its_own(tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A stored head that differs from the embedding counts, with a note; one that equals it is not kept twice."""
    from families import load_config
    from runner import load_weights

    config, tensors = make(family, {}, seed=3)
    tied = {**config, "tie_word_embeddings": True}
    equal_logits(family, tmp_path, tied, tensors)
    load_weights(tmp_path / "other", load_config(tmp_path / "other"))
    assert "tie_word_embeddings" in capsys.readouterr().err
    table = next(name for name in tensors if "embed" in name)
    write(tmp_path / "same", tied, {**tensors, "lm_head.weight": tensors[table]})
    assert "lm_head.weight" not in load_weights(tmp_path / "same", load_config(tmp_path / "same"))


@pytest.mark.parametrize("family", BASES)
def test_bfloat16_activations(tmp_path: Path, family: str) -> None:
    """Activations of bf16: near the reference as far as bf16 carries, where the routers agree."""
    config, tensors, sequences, expected = decisive(family, {"dtype": "bfloat16"})
    write(tmp_path, config, tensors)
    for logits, want in zip(ours(tmp_path, sequences, dtype="bfloat16"), expected, strict=True):
        assert logits.dtype.name == "bfloat16"
        error = np.abs(logits.astype(np.float64) - want).max(axis=1)
        # A token whose expert flips is far off and so are those that see it: most are not.
        assert 1e-4 < np.median(error) < 0.1 * np.abs(want).max()


# ---- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("qwen3_5_moe_text", {"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
        ("qwen3_5_moe_text", {"layer_types": [LINEAR, "sliding_attention", FULL, FULL]}, "layer_types"),
        ("qwen3_5_moe_text", {"layer_types": [LINEAR]}, "layer_types"),
        ("qwen3_5_moe_text", {"sliding_window": 8}, "sliding_window: 8"),
        ("qwen3_5_moe_text", {"linear_num_key_heads": 4}, "linear_num_key_heads: 4"),
        ("qwen3_5_moe_text", {"num_key_value_heads": 4}, "num_key_value_heads: 4"),
        ("qwen3_5_moe_text", {"num_experts_per_tok": 11}, "num_experts_per_tok: 11"),
        ("qwen3_5_moe_text", {"norm_topk_prob": False}, "norm_topk_prob: False"),
        ("qwen3_5_moe_text", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("qwen3_5_moe_text", {"mamba_ssm_dtype": "bfloat16"}, "mamba_ssm_dtype"),
        ("qwen3_5_moe_text", {"head_dim": 10}, "partial_rotary_factor: 0.5 of 10 dims are 5"),
        ("qwen3_5_moe_text", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type: 'dynamic'"),
        ("qwen3_5_moe_text", {"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ("qwen3_5_moe_text", {"rope_parameters": {"rope_type": "default", "short_factor": [1.0]}}, "short_factor"),
        ("qwen3_5_moe_text", {"use_flux_capacitor": True}, "use_flux_capacitor: True is not supported"),
        ("qwen3_5_moe_text", {"vocab_size": "many"}, "vocab_size: 'many': a whole number"),
        ("qwen3_5_moe_text", {"vocab_size": 0}, "vocab_size: 0: at least 1"),
        ("nemotron_h", {"mlp_hidden_act": "mish"}, "mlp_hidden_act: 'mish'"),
        ("nemotron_h", {"mamba_hidden_act": "gelu"}, "mamba_hidden_act"),
        ("nemotron_h", {"layers_block_type": ["mamba", "conv"]}, "layers_block_type: 'conv'"),
        ("nemotron_h", {"layers_block_type": None}, "'layers_block_type' is missing"),
        ("nemotron_h", {"layers_block_type": None, "hybrid_override_pattern": "MX"}, "hybrid_override_pattern: 'MX'"),
        ("nemotron_h", {"num_hidden_layers": 5}, "num_hidden_layers: 5"),
        ("nemotron_h", {"sliding_window": 8}, "sliding_window: 8"),
        ("nemotron_h", {"time_step_limit": [0.0, 0.1]}, "time_step_limit"),
        ("nemotron_h", {"time_step_limit": [0.01, math.inf]}, "time_step_limit"),
        ("nemotron_h", {"mamba_proj_bias": True}, "mamba_proj_bias"),
        ("nemotron_h", {"mamba_ssm_cache_dtype": "float16"}, "mamba_ssm_cache_dtype"),
        ("nemotron_h", {"residual_in_fp32": True}, "residual_in_fp32"),
        ("nemotron_h", {"n_shared_experts": 0}, "n_shared_experts: 0"),
        ("nemotron_h", {"n_groups": 4}, "n_groups: 4"),
        ("nemotron_h", {"n_group": 2}, "n_group: 2"),
        ("glm4_moe_lite", {"hidden_act": "mish"}, "hidden_act: 'mish'"),
        ("glm4_moe_lite", {"num_key_value_heads": 1}, "num_key_value_heads: 1"),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense"]}, "mlp_layer_types"),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense", "moe", "moe"]}, "mlp_layer_types"),
        ("glm4_moe_lite", {"moe_layer_freq": 2}, "moe_layer_freq: 2"),
        ("glm4_moe_lite", {"scoring_func": "softmax"}, "scoring_func: 'softmax'"),
        ("glm4_moe_lite", {"n_group": 5}, "n_group: 5"),
        ("glm4_moe_lite", {"head_dim": 64}, "head_dim: 64"),
        ("glm4_moe_lite", {"qk_rope_head_dim": 7, "qk_head_dim": None}, "qk_rope_head_dim: 7"),
        ("glm4_moe_lite", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5"),
        ("glm4_moe_lite", {"pretraining_tp": 2}, "pretraining_tp"),
        ("glm4_moe_lite", {"index_topk": 64}, "index_topk: 64"),
    ],
)
def test_unsupported_options_are_named(family: str, change: dict[str, Any], words: str) -> None:
    import re

    from config import ConfigError
    from families import FAMILIES

    raw = {key: value for key, value in {**BASES[family], **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=re.escape(words)):
        FAMILIES[family].from_json(raw)


def test_bad_checkpoints(tmp_path: Path) -> None:
    from config import ConfigError
    from families import load_config
    from runner import load_weights

    config, tensors = make("nemotron_h", {}, seed=1)
    experts = "backbone.layers.1.mixer.experts"
    for change, words in (
        ({f"{experts}.4.up_proj.weight": None}, f"no tensor {experts}.4.up_proj.weight"),
        ({f"{experts}.4.up_proj.weight": np.ones((20, 47), np.float32)}, r"4.up_proj.weight: \(20, 47\)"),
        ({f"{experts}.4.up_proj.weight": np.ones((20, 48), np.float64)}, "float64"),
        ({f"{experts}.9.up_proj.weight": np.ones((20, 48), np.float32)}, "experts.9.up_proj.weight: not needed"),
        ({"backbone.layers.3.mixer.q_proj.bias": np.ones(40, np.float32)}, "q_proj.bias: not needed"),
        ({"backbone.layers.0.mixer.conv1d.weight": np.ones((88, 4), np.float32)}, r"conv1d.weight: \(88, 4\)"),
    ):
        changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
        write(tmp_path, config, changed)
        with pytest.raises(ConfigError, match=words):
            load_weights(tmp_path, load_config(tmp_path), note=lambda text: None)
    write(tmp_path, {**config, "model_type": "mamba3"}, tensors)
    with pytest.raises(ConfigError, match=r"config\.json: model_type: 'mamba3' is not supported; there are llama"):
        load_config(tmp_path)


# ---- The reference against transformers --------------------------------------------------------------------------


def compare_with_transformers(only: str = "") -> float:
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM

    worst = 0.0
    for name, case in CASES.items():
        if only not in name or name == "nemotron_h-tied":
            continue
        config, tensors, sequences, expected = decisive(*case)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), config, tensors)
            options: dict[str, Any] = {"dtype": torch.float64, "attn_implementation": "eager"}
            model = AutoModelForCausalLM.from_pretrained(folder, **options, experts_implementation="eager")
            for ids, want in zip(sequences, expected, strict=True):
                with torch.no_grad():
                    theirs = model(torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits[0].numpy()
                error = float(np.abs(theirs - want).max())
                worst = max(worst, error)
                print(f"{name:40} T {len(ids):3}  {error:.2e}", flush=True)
    return worst


if __name__ == "__main__":
    print(f"largest difference: {compare_with_transformers(*sys.argv[1:2]):.2e}")
