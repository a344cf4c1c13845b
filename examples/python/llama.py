"""Llama-family checkpoints in the Hugging Face format, as a graph of libadcg.

    config = LlamaConfig.from_dir(folder)
    weights = load_weights(folder, config)
    with adcg.Engine("host") as engine:
        model = Model(engine, config, weights, max_tokens=256, max_seqs=8, max_len=1024)
        with model.runner() as runner:
            logits, step = runner.step([Piece(slot=0, position=0, tokens=ids, kind="prefill")])

Activations are float32 computed from the weights as they are stored (bfloat16 is widened in registers), unless
dtype="bfloat16" is asked for. Only config.json and safetensors files are read; nothing needs torch or transformers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adcg
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class ConfigError(ValueError):
    """A checkpoint that this builder cannot reproduce exactly; the message names the option or the tensor."""


# ---- config.json -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rope:
    """Rope settings under the names of the op's attributes; scaling is "none", "linear" or "llama3"."""

    theta: float = 10000.0
    scaling: str = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192

    def attributes(self) -> dict[str, float | int | str]:
        given: dict[str, float | int | str] = {"theta": self.theta}
        if self.scaling != "none":
            given |= {"scaling": self.scaling, "factor": self.factor}
        if self.scaling == "llama3":
            given |= {
                "low_freq_factor": self.low_freq_factor,
                "high_freq_factor": self.high_freq_factor,
                "original_max_position": self.original_max_position,
            }
        return given

    @staticmethod
    def from_json(raw: Mapping[str, Any], max_positions: int) -> Rope:
        """Reads ``rope_parameters`` (transformers 5), or ``rope_theta`` and ``rope_scaling`` (before)."""
        settings = dict(raw.get("rope_scaling") or {}) | dict(raw.get("rope_parameters") or {})
        theta = float(settings.get("rope_theta", raw.get("rope_theta") or 10000.0))
        kind = settings.get("rope_type", settings.get("type", "default"))
        if settings.get("partial_rotary_factor", raw.get("partial_rotary_factor") or 1.0) != 1.0:
            raise ConfigError(f"partial_rotary_factor: {settings.get('partial_rotary_factor')} is not supported")
        if kind == "default":
            return Rope(theta)
        if kind == "linear":
            return Rope(theta, "linear", float(settings["factor"]))
        if kind == "llama3":
            try:
                return Rope(
                    theta,
                    "llama3",
                    float(settings["factor"]),
                    float(settings["low_freq_factor"]),
                    float(settings["high_freq_factor"]),
                    int(settings.get("original_max_position_embeddings") or max_positions),
                )
            except KeyError as missing:
                raise ConfigError(f"rope_type: llama3 without {missing}") from None
        raise ConfigError(f"rope_type: {kind!r} is not supported; there are default, linear, llama3")


# Options that change the computation, and the values that mean "not used".
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "pretraining_tp": (1, None),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "rope_interleaved": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "embedding_multiplier": (1, None),
    "residual_multiplier": (1, None),
    "attention_multiplier": (None,),
    "logits_scaling": (1, None),
    "use_qk_norm": (False, None),
}


@dataclass(frozen=True)
class LlamaConfig:
    """What config.json says, in its words."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    rope: Rope
    dtype: str  # of the stored weights: "bfloat16", "float32" or "float16"
    eos_token_ids: tuple[int, ...]

    @staticmethod
    def from_dir(folder: str | Path) -> LlamaConfig:
        path = Path(folder) / "config.json"
        try:
            raw = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
        try:
            return LlamaConfig.from_json(raw)
        except KeyError as missing:
            raise ConfigError(f"{path}: {missing} is missing") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> LlamaConfig:
        if raw.get("model_type") != "llama":
            raise ConfigError(f"model_type: {raw.get('model_type')!r} is not supported; llama is")
        for option, neutral in _NEUTRAL.items():
            if option in raw and raw[option] not in neutral:
                raise ConfigError(f"{option}: {raw[option]!r} is not supported")
        if any(kind != "full_attention" for kind in raw.get("layer_types") or ()):
            raise ConfigError(f"layer_types: {raw['layer_types']!r}: only full_attention is supported")
        heads = int(raw["num_attention_heads"])
        # Later transformers name it dtype, earlier ones torch_dtype; a checkpoint without either is float32.
        dtype = raw.get("dtype") or raw.get("torch_dtype") or "float32"
        eos = raw.get("eos_token_id")
        max_positions = int(raw["max_position_embeddings"])
        config = LlamaConfig(
            vocab_size=int(raw["vocab_size"]),
            hidden_size=int(raw["hidden_size"]),
            intermediate_size=int(raw["intermediate_size"]),
            num_hidden_layers=int(raw["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or int(raw["hidden_size"]) // heads),
            rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            max_position_embeddings=max_positions,
            attention_bias=bool(raw.get("attention_bias", False)),
            mlp_bias=bool(raw.get("mlp_bias", False)),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            rope=Rope.from_json(raw, max_positions),
            dtype=dtype,
            eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),),
        )
        if heads % config.num_key_value_heads:
            raise ConfigError(f"num_key_value_heads: {config.num_key_value_heads} does not divide {heads} heads")
        if config.head_dim % 2:
            raise ConfigError(f"head_dim: {config.head_dim} is odd: rope turns pairs")
        if dtype not in ("bfloat16", "float16", "float32"):
            raise ConfigError(f"dtype: {dtype!r} is not supported; there are bfloat16, float16, float32")
        return config

    @property
    def weight_dtype(self) -> str:
        """What load_weights gives: float16 is cast, the rest is as stored."""
        return "float32" if self.dtype == "float16" else self.dtype

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the graph needs, by its name in the checkpoint."""
        hidden, inner = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, hidden)}

        def linear(name: str, rows: int, columns: int, bias: bool) -> None:
            shapes[f"{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"{name}.bias"] = (rows,)

        for i in range(self.num_hidden_layers):
            layer = f"model.layers.{i}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes[f"{layer}.{norm}.weight"] = (hidden,)
            for name, rows, columns in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)):
                linear(f"{layer}.self_attn.{name}_proj", rows, columns, self.attention_bias)
            for name, rows, columns in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
                linear(f"{layer}.mlp.{name}_proj", rows, columns, self.mlp_bias)
        shapes["model.norm.weight"] = (hidden,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, hidden)
        return shapes


# ---- Weights -----------------------------------------------------------------------------------------------------


def _note(text: str) -> None:
    print(f"llama: {text}", file=sys.stderr)


def load_weights(folder: str | Path, config: LlamaConfig, note: Callable[[str], object] = _note) -> dict[str, Array]:
    """The tensors that the graph needs, by name: from model.safetensors, or from the shards that
    model.safetensors.index.json lists; bfloat16 and float32 as they are stored, float16 cast to float32, with a note.
    """
    import ml_dtypes  # noqa: F401  teaches numpy, and through it safetensors, what bfloat16 is
    from safetensors import safe_open

    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    shapes = config.weight_shapes()
    if single.is_file():
        files: dict[str, list[str]] = {single.name: list(shapes)}
    elif index.is_file():
        where = json.loads(index.read_text())["weight_map"]
        files = {}
        for name in shapes:
            if name not in where:
                raise ConfigError(f"{index}: no tensor {name}")
            files.setdefault(where[name], []).append(name)
    else:
        raise ConfigError(f"{folder}: neither {single.name} nor {index.name}")
    weights: dict[str, Array] = {}
    cast = 0
    for file, names in files.items():
        with safe_open(folder / file, "np") as tensors:
            there = set(tensors.keys())
            for name in names:
                if name not in there:
                    raise ConfigError(f"{folder / file}: no tensor {name}")
                tensor = tensors.get_tensor(name)
                if tensor.shape != shapes[name]:
                    raise ConfigError(f"{folder / file}: {name}: {tensor.shape}, config.json says {shapes[name]}")
                if tensor.dtype.name == "float16":
                    tensor, cast = tensor.astype(np.float32), cast + 1
                elif tensor.dtype.name not in ("bfloat16", "float32"):
                    raise ConfigError(f"{folder / file}: {name}: {tensor.dtype.name} is not supported")
                weights[name] = tensor
    if cast:
        note(f"{cast} float16 tensors were cast to float32")
    return weights


# ---- The graph ---------------------------------------------------------------------------------------------------


def build(
    engine: adcg.Engine,
    config: LlamaConfig,
    max_tokens: int,
    max_seqs: int,
    max_len: int,
    *,
    slots: int | None = None,
    logits: str = "last",
    dtype: str = "float32",
    cache_dtype: str | None = None,
    weight_dtypes: Mapping[str, str] | None = None,
) -> adcg.Graph:
    """The graph of a checkpoint, not yet frozen.

    Inputs: ``ids`` [tokens], ``cu_seqlens`` [seqs + 1], ``input_pos`` [seqs], ``slot_idx`` [seqs], and with
    logits="last" also ``last_idx`` [seqs], the row of each sequence's last token; all int32. Weights under their names
    in the checkpoint. States ``k_cache.<i>`` and ``v_cache.<i>`` [slots, max_len, kv heads, head_dim]. Output
    ``logits``: [tokens, vocab] or, with "last", [seqs, vocab].

    Args:
        slots: cache slots; as many as ``max_seqs`` if left out.
        dtype: of activations and logits, "float32" or "bfloat16".
        cache_dtype: of the caches; ``dtype`` if left out.
        weight_dtypes: of the stored weights, where they differ from what config.json says.
    """
    if logits not in ("all", "last"):
        raise ValueError(f"logits: {logits!r}; there are all, last")
    g = engine.graph(max_tokens=max_tokens, max_seqs=max_seqs)
    weights = {
        name: g.weight(name, (weight_dtypes or {}).get(name, config.weight_dtype), shape)
        for name, shape in config.weight_shapes().items()
    }
    ids = g.input("ids", "int32", [g.tokens])
    cu_seqlens = g.input("cu_seqlens", "int32", [g.seqs + 1])
    input_pos = g.input("input_pos", "int32", [g.seqs])
    slot_idx = g.input("slot_idx", "int32", [g.seqs])
    _, positions = g.attention_metadata(cu_seqlens, input_pos)
    heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim

    def norm(x: adcg.Value, name: str) -> adcg.Value:
        value: adcg.Value = g.rms_norm(x, weights[f"{name}.weight"], eps=config.rms_norm_eps)
        return value

    def linear(x: adcg.Value, name: str) -> adcg.Value:
        value: adcg.Value = g.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
        return value

    def project(x: adcg.Value, name: str, count: int) -> adcg.Value:
        value: adcg.Value = g.reshape(linear(x, name), dims=[count, head_dim])
        return value

    h = g.embedding(ids, weights["model.embed_tokens.weight"], dtype=dtype)
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        caches = [
            g.state(f"{c}_cache.{i}", cache_dtype or dtype, [slots or max_seqs, max_len, kv_heads, head_dim])
            for c in "kv"
        ]
        x = norm(h, f"{layer}.input_layernorm")
        q = g.rope(project(x, f"{layer}.self_attn.q_proj", heads), positions, **config.rope.attributes())
        k = g.rope(project(x, f"{layer}.self_attn.k_proj", kv_heads), positions, **config.rope.attributes())
        v = project(x, f"{layer}.self_attn.v_proj", kv_heads)
        attended = g.attention(q, k, v, *caches, cu_seqlens, input_pos, slot_idx)
        h = g.add(h, linear(attended, f"{layer}.self_attn.o_proj"))
        x = norm(h, f"{layer}.post_attention_layernorm")
        gated = g.silu_mul(linear(x, f"{layer}.mlp.gate_proj"), linear(x, f"{layer}.mlp.up_proj"))
        h = g.add(h, linear(gated, f"{layer}.mlp.down_proj"))
    if logits == "last":
        # One row a sequence from here on: norm and head cost max_seqs rows at most, whatever the prompts bring.
        h = g.gather_tokens(h, g.input("last_idx", "int32", [g.seqs]))
    h = norm(h, "model.norm")
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    g.output("logits", linear(h, head))
    return g


# ---- Running it --------------------------------------------------------------------------------------------------

_KINDS = {"prefill": 0, "extend": 1, "decode": 2}


@dataclass(frozen=True)
class Piece:
    """What one sequence brings to a step: ``tokens`` that follow the ``position`` ones which its slot holds already.
    ``kind`` is "prefill", "extend" (several tokens to a history) or "decode" (one token)."""

    slot: int
    position: int
    tokens: Sequence[int] | Array
    kind: str


class Model:
    """A checkpoint and its graph; several runners may share them."""

    def __init__(
        self,
        engine: adcg.Engine,
        config: LlamaConfig,
        weights: Mapping[str, Array],
        *,
        max_tokens: int,
        max_seqs: int,
        max_len: int,
        slots: int | None = None,
        logits: str = "last",
        dtype: str = "float32",
        cache_dtype: str | None = None,
    ) -> None:
        self.config, self.weights, self.logits = config, weights, logits
        self.max_tokens, self.max_seqs, self.max_len = max_tokens, max_seqs, max_len
        weight_dtypes = {name: tensor.dtype.name for name, tensor in weights.items()}
        self.graph = build(
            engine,
            config,
            max_tokens,
            max_seqs,
            max_len,
            slots=slots,
            logits=logits,
            dtype=dtype,
            cache_dtype=cache_dtype,
            weight_dtypes=weight_dtypes,
        )

    def runner(self, **options: Any) -> Runner:
        """An exec of the graph with caches of its own; ``options`` as for ``Graph.compile``."""
        return Runner(self, options)


class Runner:
    """An exec with its caches and with buffers for every input and output of the largest step: they never move, so a
    replay neither copies nor re-points anything."""

    def __init__(self, model: Model, options: Mapping[str, Any]) -> None:
        self.model = model
        self.caches: dict[str, Array] = {}
        for state in model.graph.states:
            shape = tuple(dim.constant for dim in state.shape or ())
            self.caches[state.name] = np.zeros(shape, adcg.numpy_dtype(state.dtype or ""))
        self.exec = model.graph.compile(model.weights, self.caches, **options)
        self.inputs = {
            value.name: np.zeros(value.shape[0].at(model.max_tokens, model.max_seqs), np.int32)
            for value in model.graph.inputs
            if value.shape
        }
        _, value = model.graph.outputs[0]
        rows = model.max_seqs if model.logits == "last" else model.max_tokens
        self.outputs = {"logits": np.zeros((rows, model.config.vocab_size), adcg.numpy_dtype(value.dtype or ""))}

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.exec.close()

    def fill(self, pieces: Sequence[Piece]) -> adcg.Batch:
        """Writes the step's inputs; pieces stand in the order prefill, extend, decode."""
        kinds = [_KINDS[piece.kind] for piece in pieces]
        if kinds != sorted(kinds):
            raise ValueError("pieces: prefill first, then extend, then decode")
        inputs = self.inputs
        counts: list[list[int]] = [[], [], []]
        row = 0
        inputs["cu_seqlens"][0] = 0
        for i, piece in enumerate(pieces):
            end = row + len(piece.tokens)
            inputs["ids"][row:end] = piece.tokens
            inputs["cu_seqlens"][i + 1] = row = end
            inputs["input_pos"][i] = piece.position
            inputs["slot_idx"][i] = piece.slot
            if "last_idx" in inputs:
                inputs["last_idx"][i] = end - 1
            counts[kinds[i]].append(len(piece.tokens))
        return adcg.Batch.of(prefill=counts[0], extend=counts[1], decode=len(counts[2]))

    def step(self, pieces: Sequence[Piece]) -> tuple[Array, adcg.Step]:
        """Runs one step; the logits are a view of this runner's buffer: one row a token or, with "last", a piece."""
        batch = self.fill(pieces)
        step = self.exec.replay(batch, self.inputs, self.outputs, lend=True)
        rows = batch.seqs if self.model.logits == "last" else batch.tokens
        return self.outputs["logits"][:rows], step
