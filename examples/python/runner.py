"""Running a checkpoint: its weights, its graph, and the steps of sequences in slots.

    config = load_config(folder)                                        # families.py
    weights = load_weights(folder, config)
    with adcg.Engine("host") as engine:
        model = Model(engine, config, weights, max_tokens=256, max_seqs=8, max_len=1024)
        with model.runner() as runner:
            logits, step = runner.step([Piece(slot=0, position=0, tokens=ids, kind="prefill")])

Activations are float32 computed from the weights as they are stored (bfloat16 is widened in registers), unless
dtype="bfloat16" is asked for. Only config.json and safetensors files are read; nothing needs torch or transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adcg
import checkpoint
import numpy as np
from checkpoint import Array
from network import Config, build

_KINDS = {"prefill": 0, "extend": 1, "decode": 2}


def load_weights(
    folder: str | Path, config: Config, note: Callable[[str], object] = checkpoint.note
) -> dict[str, Array]:
    """The tensors that the graph needs, by name: bfloat16 and float32 as they are stored, float16 cast to float32;
    experts that are stored one by one are stacked, a copy. ``note`` is told of both. Raises ConfigError."""
    weights = checkpoint.load(folder, config.weights(), config.ignored_tensors(), note)
    head, table = f"{config.head}.weight", f"{config.embedding}.weight"
    if config.tie_word_embeddings and head in weights:
        if weights[head].dtype == weights[table].dtype and weights[head].tobytes() == weights[table].tobytes():
            del weights[head]
        else:
            note(f"tie_word_embeddings: true, but {head} is stored and differs: the stored one is used")
    return weights


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
        config: Config,
        weights: Mapping[str, Array],
        *,
        max_tokens: int,
        max_seqs: int,
        max_len: int,
        slots: int | None = None,
        logits: str = "last",
        dtype: str = "float32",
        cache_dtype: str | None = None,
        trace: bool = False,
    ) -> None:
        self.config, self.logits, self.engine = config, logits, engine
        self.max_tokens, self.max_seqs, self.max_len = max_tokens, max_seqs, max_len
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
            weight_dtypes={name: tensor.dtype.name for name, tensor in weights.items()},
            trace=trace,
        )
        self.graph.freeze()  # what the device cannot run is said before the weights are uploaded
        self.on_host = engine.device.name == "host"
        self.weights: Mapping[str, object] = weights
        if not self.on_host:  # once, whatever the number of runners
            self.weights = {name: engine.from_numpy(array) for name, array in weights.items()}

    def runner(self, **options: Any) -> Runner:
        """An exec of the graph with states of its own; ``options`` as for ``Graph.compile``."""
        return Runner(self, options)


class Runner:
    """An exec with its states and with buffers for every input and output of the largest step: they never move, so a
    replay neither copies nor re-points anything. On a CUDA device the states are there, and inputs and outputs are
    copied to and from buffers of the exec's."""

    def __init__(self, model: Model, options: Mapping[str, Any]) -> None:
        self.model = model
        self.states: dict[str, Array | adcg.DeviceArray] = {}
        for state in model.graph.states:
            shape = tuple(dim.constant for dim in state.shape or ())
            dtype = state.dtype or ""
            on_host = model.on_host
            self.states[state.name] = (
                np.zeros(shape, adcg.numpy_dtype(dtype)) if on_host else model.engine.zeros(shape, dtype)
            )
        self.exec = model.graph.compile(model.weights, self.states, **options)
        self.inputs = {value.name: self._buffer(value) for value in model.graph.inputs}
        self.outputs = {name: self._buffer(value) for name, value in model.graph.outputs}

    def _buffer(self, value: adcg.Value) -> Array:
        shape = [dim.at(self.model.max_tokens, self.model.max_seqs) for dim in value.shape or ()]
        return np.zeros(shape, adcg.numpy_dtype(value.dtype or ""))

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.exec.close()

    def fill(self, pieces: Sequence[Piece]) -> adcg.Batch:
        """Writes the step's inputs; pieces stand in the order prefill, extend, decode."""
        kinds = [_KINDS[piece.kind] for piece in pieces]
        if kinds != sorted(kinds):
            raise ValueError("pieces: prefill first, then extend, then decode")
        counts: list[list[int]] = [[], [], []]
        ends = []
        ids, row = self.inputs["ids"], 0
        for kind, piece in zip(kinds, pieces, strict=True):
            end = row + len(piece.tokens)
            ids[row:end] = piece.tokens
            counts[kind].append(end - row)
            ends.append(row := end)
        for name, values in (
            ("cu_seqlens", [0, *ends]),
            ("input_pos", [piece.position for piece in pieces]),
            ("slot_idx", [piece.slot for piece in pieces]),
            ("last_idx", [end - 1 for end in ends]),
        ):
            if name in self.inputs:
                self.inputs[name][: len(values)] = values
        return adcg.Batch.of(prefill=counts[0], extend=counts[1], decode=len(counts[2]))

    def step(self, pieces: Sequence[Piece]) -> tuple[Array, adcg.Step]:
        """Runs one step; the logits are a view of this runner's buffer: one row a token or, with "last", a piece."""
        batch = self.fill(pieces)
        step = self.exec.replay(batch, self.inputs, self.outputs, lend=True)
        rows = batch.seqs if self.model.logits == "last" else batch.tokens
        return self.outputs["logits"][:rows], step


# ---- Greedy continuations ----------------------------------------------------------------------------------------


def greedy(runner: Runner, prompts: Sequence[Sequence[int]], counts: Sequence[int]) -> list[list[int]]:
    """What follows each prompt, so many tokens each: each prompt prefilled alone, then all decoded side by side. Needs
    a runner of logits="last", and at most its max_seqs prompts."""
    written: list[list[int]] = []
    for slot, prompt in enumerate(prompts):
        logits, _ = runner.step([Piece(slot, 0, prompt, "prefill")])
        written.append([int(logits[-1].argmax())])
    while running := [slot for slot, tokens in enumerate(written) if len(tokens) < counts[slot]]:
        pieces = [
            Piece(slot, len(prompts[slot]) + len(written[slot]) - 1, written[slot][-1:], "decode") for slot in running
        ]
        logits, _ = runner.step(pieces)
        for slot, row in zip(running, logits, strict=True):
            written[slot].append(int(row.argmax()))
    return [tokens[:count] for tokens, count in zip(written, counts, strict=True)]


def prompt_length(tokens: Array, logits: Array) -> int:
    """Where a sequence's greedy continuation begins: every later token is the argmax of the logits before it. Its own
    length where there is none."""
    start = len(tokens)
    while start > 1 and int(logits[start - 2].argmax()) == int(tokens[start - 1]):
        start -= 1
    # Random tokens are not the argmax of random logits this often in a row.
    return start if len(tokens) - start >= 16 else len(tokens)
