"""What bench_ops measures: one call of one op, its operands, and the same work in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import adcg
import numpy as np


@dataclass(frozen=True)
class Operand:
    """A tensor of a call; `axis` is the first dim of an input: tokens, seqs, offsets (seqs + 1) or constant."""

    role: str  # input, weight, state
    array: Any
    axis: str = "constant"


def tokens(array: Any) -> Operand:
    return Operand("input", array, "tokens")


def seqs(array: Any) -> Operand:
    return Operand("input", array, "seqs")


def offsets(array: Any) -> Operand:
    return Operand("input", array, "offsets")


def table(array: Any) -> Operand:
    return Operand("input", array)


def weight(array: Any) -> Operand:
    return Operand("weight", array)


def state(array: Any) -> Operand:
    return Operand("state", array)


@dataclass(frozen=True)
class Work:
    """A step: one prompt, or one token each of several sequences whose caches hold `history` tokens."""

    name: str
    tokens: int
    seqs: int
    history: int

    @property
    def batch(self) -> adcg.Batch:
        if self.history:
            return adcg.Batch(decode_seqs=self.seqs)
        return adcg.Batch(prefill_seqs=self.seqs, prefill_tokens=self.tokens)

    def sequences(self) -> list[Operand]:
        """cu_seqlens, input_pos, slot_idx."""
        each = self.tokens // self.seqs
        return [
            offsets(np.arange(self.seqs + 1, dtype=np.int32) * each),
            seqs(np.full(self.seqs, self.history, np.int32)),
            seqs(np.arange(self.seqs, dtype=np.int32)),
        ]


WORKS = (Work("decode", 8, 8, 512), Work("prefill", 512, 1, 0))

# Makes the peer's call from torch and the operands as torch tensors, which are its own; what it does before it returns
# the call is not measured. A call gives the op's outputs: one bare, several as a tuple.
Peer = Callable[..., Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    op: str  # without "adcg."
    work: Work
    size: str  # what the operands' sizes are, for people
    operands: list[Operand]
    peer: Peer
    peer_name: str
    attrs: dict[str, Any] = field(default_factory=dict)
