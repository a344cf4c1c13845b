"""The ways of feeding sequences through a model: the same tokens whole, in chunks, one by one, mixed.

Each way gives its steps one after the other; a step is the pieces of a batch, with the number of each piece's sequence.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
from runner import Model, Piece

Array = npt.NDArray[Any]
Step = list[tuple[int, Piece]]  # (sequence, its piece), in batch order


def groups(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Sequences of similar length together, so that they decode side by side for long."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def whole(tokens: list[Array], model: Model) -> Iterator[Step]:
    for i, ids in enumerate(tokens):
        yield [(i, Piece(i % model.max_seqs, 0, ids, "prefill"))]


def chunked(tokens: list[Array], model: Model, size: int) -> Iterator[Step]:
    """Chunks of several sequences beside each other."""
    for group in groups([len(t) for t in tokens], max(1, min(model.max_seqs, model.max_tokens // size))):
        for position in itertools.count(0, size):
            step = [
                (i, Piece(slot, position, tokens[i][position : position + size], "extend" if position else "prefill"))
                for slot, i in enumerate(group)
                if position < len(tokens[i])
            ]
            if not step:
                break
            yield step


def decode(tokens: list[Array], model: Model) -> Iterator[Step]:
    """A prompt of one token, then one token a step; the batch shrinks as sequences end."""
    for group in groups([len(t) for t in tokens], model.max_seqs):
        for position in range(max(len(tokens[i]) for i in group)):
            kind = "decode" if position else "prefill"
            yield [
                (i, Piece(slot, position, tokens[i][position : position + 1], kind))
                for slot, i in enumerate(group)
                if position < len(tokens[i])
            ]


def extend(tokens: list[Array], model: Model, seed: int) -> Iterator[Step]:
    """Half a prompt, then random lengths, one sequence at a time."""
    rng = random.Random(seed)
    for i, ids in enumerate(tokens):
        position = (len(ids) + 1) // 2
        yield [(i, Piece(0, 0, ids[:position], "prefill"))]
        while position < len(ids):
            count = rng.randint(1, 11)
            yield [(i, Piece(0, position, ids[position : position + count], "extend"))]
            position += count


def mixed(tokens: list[Array], model: Model, slots: int, seed: int) -> Iterator[Step]:
    """Random subsets of the running sequences, random lengths; slots are shuffled and reused."""
    rng = random.Random(seed)
    waiting = rng.sample(range(len(tokens)), len(tokens))
    free = rng.sample(range(slots), slots)
    running: dict[int, tuple[int, int]] = {}  # sequence -> slot, position
    order = {"prefill": 0, "extend": 1, "decode": 2}
    while waiting or running:
        while waiting and free and (not running or rng.random() < 0.5):
            running[waiting.pop()] = (free.pop(), 0)
        left = rng.choice((model.max_tokens, 64, 17, model.max_seqs))
        step: Step = []
        for i in rng.sample(list(running), rng.randint(1, min(len(running), model.max_seqs))):
            slot, position = running[i]
            count = min(rng.choice((1, 1, 1, 2, 5, 30, 64)), len(tokens[i]) - position, left)
            if count == 0:
                continue
            kind = "prefill" if position == 0 else "decode" if count == 1 and rng.random() < 0.8 else "extend"
            step.append((i, Piece(slot, position, tokens[i][position : position + count], kind)))
            left -= count
        if not step:
            continue
        step.sort(key=lambda item: order[item[1].kind])
        yield step
        for i, piece in step:
            slot, position = running[i]
            running[i] = (slot, position + len(piece.tokens))
            if running[i][1] == len(tokens[i]):
                free.append(slot)
                rng.shuffle(free)
                del running[i]
