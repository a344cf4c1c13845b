"""What the model families share: their common options, and the frame of their graphs.

A family is a subclass of Config in a file of its own: it reads its options, lists its weights, and adds its layers to a
Network. Everything around the layers (inputs, embedding, final norm, head, logits) is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import adcg
from checkpoint import Weight
from config import ConfigError, Options

C = TypeVar("C", bound="Config")


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """What config.json says, in its words, of what every family has."""

    family: ClassVar[str]
    # In the checkpoint: the embedding, the final norm, and the head of an untied model.
    embedding: ClassVar[str] = "model.embed_tokens"
    final_norm: ClassVar[str] = "model.norm"
    head: ClassVar[str] = "lm_head"
    # Whether a token's logits may differ by roundings between decode and prefill (latent attention computes them in two
    # ways). Elsewhere they are the same bits however the tokens come.
    decodes_in_other_bits: ClassVar[bool] = False

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    max_position_embeddings: int
    norm_eps: float
    tie_word_embeddings: bool
    dtype: str  # of the stored weights: "bfloat16", "float32" or "float16"
    eos_token_ids: tuple[int, ...]

    @classmethod
    def from_dir(cls: type[C], folder: str | Path) -> C:
        """Reads config.json; raises ConfigError, which begins with its path."""
        options = Options.from_dir(folder)
        try:
            return cls.read(options)
        except ConfigError as error:
            raise ConfigError(f"{Path(folder) / 'config.json'}: {error}") from None

    @classmethod
    def from_json(cls: type[C], raw: Mapping[str, Any]) -> C:
        return cls.read(Options(raw))

    @classmethod
    @abstractmethod
    def read(cls: type[C], options: Options) -> C:
        """Takes the family's options; raises ConfigError that names the one which is missing or not supported."""

    @abstractmethod
    def layer_weights(self) -> dict[str, Weight]:
        """Every tensor that the layers need, by its name in the checkpoint or of what is made at load."""

    @abstractmethod
    def add_layers(self, net: Network, hidden: adcg.Value) -> adcg.Value:
        """Adds the layers to a graph; ``hidden`` [tokens, hidden_size] is the embedding and then what is returned."""

    def norm_options(self) -> dict[str, Any]:
        """Attributes of the residual norms, the final one included."""
        return {"eps": self.norm_eps}

    def ignored_tensors(self) -> tuple[str, ...]:
        """Patterns of tensors that may be in the checkpoint and are not needed."""
        return (r"\brotary_emb\.inv_freq$",)

    @property
    def weight_dtype(self) -> str:
        """What load_weights gives: float16 is cast, the rest is as stored."""
        return "float32" if self.dtype == "float16" else self.dtype

    def weights(self) -> dict[str, Weight]:
        table = (self.vocab_size, self.hidden_size)
        # A tied model has no head of its own. One that is stored with it all the same counts if it differs, as for
        # transformers; that shows at load.
        return {
            f"{self.embedding}.weight": Weight(table),
            **self.layer_weights(),
            f"{self.final_norm}.weight": Weight((self.hidden_size,)),
            f"{self.head}.weight": Weight(table, optional=self.tie_word_embeddings),
        }


def common_options(options: Options) -> dict[str, Any]:
    """The fields of Config whose options have the same name in every family."""
    # Later transformers name it dtype, earlier ones torch_dtype; a checkpoint without either is float32.
    dtype = options.text("torch_dtype", default="float32")
    dtype = options.text("dtype", default=dtype)
    if dtype not in ("bfloat16", "float16", "float32"):
        raise options.refused("dtype", dtype, " is not supported; there are bfloat16, float16, float32")
    eos = options.take("eos_token_id", [])
    options.only("quantization_config")
    return {
        "vocab_size": options.whole("vocab_size"),
        "hidden_size": options.whole("hidden_size"),
        "max_position_embeddings": options.whole("max_position_embeddings"),
        "tie_word_embeddings": options.flag("tie_word_embeddings"),
        "dtype": dtype,
        "eos_token_ids": tuple(int(token) for token in (eos if isinstance(eos, list) else [eos])),
    }


def linears(shapes: Mapping[str, tuple[int, int]], *, bias: bool = False) -> dict[str, Weight]:
    """Weights, and biases if there are, of linears [rows, columns] by name."""
    found = {}
    for name, (rows, columns) in shapes.items():
        found[f"{name}.weight"] = Weight((rows, columns))
        if bias:
            found[f"{name}.bias"] = Weight((rows,))
    return found


class Network:
    """A graph under construction: its sizes, its inputs (each added when a layer first asks for it), and the ops that
    families share. ``trace`` also makes an output of each intermediate that a layer names."""

    def __init__(
        self,
        engine: adcg.Engine,
        config: Config,
        max_tokens: int,
        max_seqs: int,
        max_len: int,
        slots: int,
        dtype: str,
        cache_dtype: str,
        weight_dtypes: Mapping[str, str] | None,
        trace: bool,
    ) -> None:
        self.g = g = engine.graph(max_tokens=max_tokens, max_seqs=max_seqs)
        self.config, self.max_len, self.slots = config, max_len, slots
        self.dtype, self.cache_dtype, self.traced = dtype, cache_dtype, trace
        self.traces: list[tuple[str, adcg.Value]] = []
        self.weights = {
            name: g.weight(name, (weight_dtypes or {}).get(name, config.weight_dtype), weight.shape)
            for name, weight in config.weights().items()
            if not weight.optional or name in (weight_dtypes or {})
        }

    # ---- Inputs, all int32 ----

    @cached_property
    def sequences(self) -> tuple[adcg.Value, adcg.Value, adcg.Value]:
        """cu_seqlens [seqs + 1], input_pos [seqs], slot_idx [seqs]: what ops with a state take."""
        g = self.g
        return self._cu_seqlens, self._input_pos, g.input("slot_idx", "int32", [g.seqs])

    @cached_property
    def _cu_seqlens(self) -> adcg.Value:
        return self.g.input("cu_seqlens", "int32", [self.g.seqs + 1])

    @cached_property
    def _input_pos(self) -> adcg.Value:
        return self.g.input("input_pos", "int32", [self.g.seqs])

    @cached_property
    def positions(self) -> adcg.Value:
        """[tokens]: of each token in its sequence."""
        value: adcg.Value = self.g.attention_metadata(self._cu_seqlens, self._input_pos)[1]
        return value

    def chunks(self, size: int) -> tuple[adcg.Value, ...]:
        """chunk_indices, chunk_offsets, seq_idx [tokens] for scans by chunks."""
        if not hasattr(self, "_chunks"):
            self._chunks: tuple[adcg.Value, ...] = self.g.ssm_metadata(self._cu_seqlens, chunk=size)
        return self._chunks

    # ---- Parts of layers ----

    def state(self, name: str, dtype: str, *dims: int) -> adcg.Value:
        return self.g.state(name, dtype, [self.slots, *dims])

    def linear(self, x: adcg.Value, name: str, **attributes: Any) -> adcg.Value:
        """With the weight, and the bias if there is one, of that name."""
        weights = self.weights
        value: adcg.Value = self.g.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **attributes)
        return value

    def heads(self, x: adcg.Value, count: int, dim: int) -> adcg.Value:
        """[tokens, count * dim] as [tokens, count, dim]."""
        value: adcg.Value = self.g.reshape(x, dims=[count, dim])
        return value

    def norm(self, x: adcg.Value, name: str, **options: Any) -> adcg.Value:
        """The family's rms norm; ``options`` instead of its own attributes."""
        weight = self.weights[f"{name}.weight"]
        value: adcg.Value = self.g.rms_norm(x, weight, **(options or self.config.norm_options()))
        return value

    def attention(self, layer: int, q: adcg.Value, k: adcg.Value, v: adcg.Value) -> adcg.Value:
        """Over the caches ``k_cache.<layer>`` and ``v_cache.<layer>`` [slots, max_len, kv heads, head dim]."""
        shape = v.shape
        assert shape is not None
        kv_heads, dim = (extent.constant for extent in shape[1:])
        caches = [self.state(f"{c}_cache.{layer}", self.cache_dtype, self.max_len, kv_heads, dim) for c in "kv"]
        value: adcg.Value = self.g.attention(q, k, v, *caches, *self.sequences)
        return value

    def gated_mlp(self, x: adcg.Value, name: str, activation: str = "silu") -> adcg.Value:
        """down(act(gate(x)) * up(x))."""
        gate, up = self.linear(x, f"{name}.gate_proj"), self.linear(x, f"{name}.up_proj")
        gated = self.g.silu_mul(gate, up) if activation == "silu" else self.g.gelu_mul(gate, up, approximate="tanh")
        return self.linear(gated, f"{name}.down_proj")

    def sigmoid_router(self, layer: int, x: adcg.Value, name: str, **attributes: Any) -> tuple[adcg.Value, adcg.Value]:
        """Weights and indices [tokens, top_k] of the experts; float32 whatever the activations are, as DeepSeek-V3 has
        it, and chosen by scores with the correction bias."""
        precise = x if self.dtype == "float32" else self.g.cast(x, dtype="float32")
        logits = self.trace(f"router_logits.{layer}", self.linear(precise, name))
        bias = self.weights[f"{name}.e_score_correction_bias"]
        weights, indices = self.g.moe_router(logits, bias, scoring="sigmoid", **attributes)
        return self.trace(f"router_weights.{layer}", weights), self.trace(f"router_indices.{layer}", indices)

    def trace(self, name: str, value: adcg.Value) -> adcg.Value:
        """Names an intermediate, for ``build(trace=True)``."""
        if self.traced:
            self.traces.append((name, value))
        return value


def build(
    engine: adcg.Engine,
    config: Config,
    max_tokens: int,
    max_seqs: int,
    max_len: int,
    *,
    slots: int | None = None,
    logits: str = "last",
    dtype: str = "float32",
    cache_dtype: str | None = None,
    weight_dtypes: Mapping[str, str] | None = None,
    trace: bool = False,
) -> adcg.Graph:
    """The graph of a checkpoint, not yet frozen.

    Inputs, as far as the layers need them: ``ids`` [tokens], ``cu_seqlens`` [seqs + 1], ``input_pos`` [seqs],
    ``slot_idx`` [seqs], and with logits="last" also ``last_idx`` [seqs], the row of each sequence's last token; all
    int32. Weights under their names in the checkpoint. States, a slot each in their first dim: KV caches of attention,
    latent caches, and the states of convolutions and recurrences, as each family's file says. Output ``logits``:
    [tokens, vocab] or, with "last", [seqs, vocab].

    Args:
        slots: of the states; as many as ``max_seqs`` if left out.
        dtype: of activations and logits, "float32" or "bfloat16".
        cache_dtype: of the attention caches; ``dtype`` if left out.
        weight_dtypes: of the stored weights, where they differ from what config.json says.
        trace: also an output for each intermediate: ``hidden.embed``, ``hidden.<layer>``, ``hidden.norm``,
            ``mixer.<layer>``, ``mlp.<layer>``, ``router_{logits,weights,indices}.<layer>``, [tokens, ...] each; wants
            logits="all".
    """
    if logits not in ("all", "last"):
        raise ValueError(f"logits: {logits!r}; there are all, last")
    if trace and logits != "all":
        raise ValueError("trace: needs logits='all'")
    sizes = (max_tokens, max_seqs, max_len, slots or max_seqs)
    net = Network(engine, config, *sizes, dtype, cache_dtype or dtype, weight_dtypes, trace)
    g = net.g
    table = net.weights[f"{config.embedding}.weight"]
    h: adcg.Value = g.embedding(g.input("ids", "int32", [g.tokens]), table, dtype=dtype)
    h = config.add_layers(net, net.trace("hidden.embed", h))
    if logits == "last":
        # One row a sequence from here on: norm and head cost max_seqs rows at most, whatever the prompts bring.
        h = g.gather_tokens(h, g.input("last_idx", "int32", [g.seqs]))
    h = net.trace("hidden.norm", net.norm(h, config.final_norm))
    g.output("logits", g.linear(h, net.weights.get(f"{config.head}.weight", table)))
    for name, value in net.traces:
        g.output(name, value)
    return g
