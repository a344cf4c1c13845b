"""Requests, which of them a step serves, and how their tokens are chosen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from checkpoint import Array
from runner import Piece


@dataclass
class Request:
    """One prompt and what came of it."""

    number: int
    prompt: list[int]
    max_new: int
    arrival: int  # the step before which it arrives
    expected: list[int] = field(default_factory=list)  # what it must write, as far as that is known
    slot: int = -1
    cached: int = 0  # tokens in its cache slot
    written: list[int] = field(default_factory=list)
    started: int = -1
    finished: int = -1

    @property
    def pending(self) -> int:
        """Prompt tokens that no step has taken yet."""
        return max(0, len(self.prompt) - self.cached)


class Scheduler:
    """Decides what each step holds: a token of every decoding request first, then chunks of prompts, oldest first, up
    to ``budget`` tokens."""

    def __init__(self, requests: Iterable[Request], slots: int, budget: int) -> None:
        self.waiting = deque(sorted(requests, key=lambda request: request.arrival))
        self.free = deque(range(slots))
        self.running: list[Request] = []
        self.budget = budget
        self.now = 0

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    def next_step(self) -> list[tuple[Request, Piece]]:
        """The pieces of the next step in batch order: prefill, extend, decode. Empty while nothing has arrived."""
        while self.waiting and self.waiting[0].arrival <= self.now and self.free:
            request = self.waiting.popleft()
            request.slot, request.started = self.free.popleft(), self.now
            self.running.append(request)
        self.now += 1
        decode = [
            (request, Piece(request.slot, request.cached, request.written[-1:], "decode"))
            for request in self.running
            if not request.pending
        ]
        prefill: list[tuple[Request, Piece]] = []
        extend: list[tuple[Request, Piece]] = []
        left = self.budget - len(decode)
        for request in self.running:
            if request.pending and left > 0:
                chunk = request.prompt[request.cached : request.cached + left]
                left -= len(chunk)
                # A prompt's first chunk has no history; the later ones extend it.
                kind, pieces = ("extend", extend) if request.cached else ("prefill", prefill)
                pieces.append((request, Piece(request.slot, request.cached, chunk, kind)))
        return prefill + extend + decode

    def advance(self, request: Request, piece: Piece, token: int | None, stop: bool) -> None:
        """Books a piece that has run; ``token`` is what the request writes next, None inside its prompt."""
        request.cached += len(piece.tokens)
        if token is not None and not stop:
            request.written.append(token)
        if stop or len(request.written) >= request.max_new:
            request.finished = self.now
            self.running.remove(request)
            self.free.append(request.slot)


class Sampler:
    """Greedy, or softmax sampling at a temperature. Each request draws from a generator of its own, so what it writes
    does not depend on its neighbours in the batch."""

    def __init__(self, temperature: float, seed: int, requests: int) -> None:
        self.temperature = temperature
        self.generators = [np.random.default_rng((seed, number)) for number in range(requests)]

    def __call__(self, request: Request, logits: Array) -> int:
        if self.temperature <= 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.temperature
        weights = np.exp(scaled - scaled.max())
        drawn = self.generators[request.number].random() * weights.sum()
        return min(int(np.searchsorted(np.cumsum(weights), drawn, side="right")), len(weights) - 1)
