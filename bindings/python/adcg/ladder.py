"""Ladders: which buckets pad the fewest tokens of a workload, and what any list of buckets costs on it.

A histogram says how many steps had how many tokens. It is a mapping ``{tokens: steps}``, a ``collections.Counter``, or
simply the sizes of the steps, one after the other::

    buckets = adcg.choose_ladder({1: 900, 37: 40, 512: 3}, max_buckets=2)
    print(adcg.ladder_cost({1: 900, 37: 40, 512: 3}, buckets).padded_tokens)
    exec = graph.compile(weights, buckets=buckets)
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from operator import index
from typing import Any

from . import _ffi, errors
from .errors import AdcgError

Histogram = Mapping[int, int] | Iterable[int]

LADDERS = ("adcg", "vllm", "sglang", "sglang_piecewise")
"""The names that :func:`named_ladder` knows."""


@dataclass(frozen=True)
class LadderBudget:
    """What a ladder may cost, and what a bucket costs. All limits that are given hold at once; 0 is none.

    A bucket of n tokens costs ``bytes_per_bucket + n * bytes_per_token`` of memory and ``ns_per_bucket + n *
    ns_per_token`` nanoseconds to capture.

    Attributes:
        max_buckets: at most so many.
        max_tokens: no bucket is larger; steps above run eagerly and have no say in the choice.
        max_bytes, max_ns: of all buckets together.
        allow_eager: where the limits cannot hold the largest steps, the fewest possible run eagerly; else an error.
    """

    max_buckets: int = 0
    max_tokens: int = 0
    bytes_per_bucket: int = 0
    bytes_per_token: int = 0
    max_bytes: int = 0
    ns_per_bucket: int = 0
    ns_per_token: int = 0
    max_ns: int = 0
    allow_eager: bool = False


@dataclass(frozen=True)
class LadderBucket:
    """One bucket's part of a ladder's cost: its size, the steps that run in it, their tokens, and what it costs."""

    tokens: int
    steps: int
    real_tokens: int
    padded_tokens: int
    bytes: int
    ns: int


@dataclass(frozen=True)
class LadderCost:
    """What a ladder costs on a histogram.

    Attributes:
        steps, real_tokens: of the whole histogram, eager steps included.
        padded_tokens: of all buckets: their sizes less the real tokens, added up over the steps.
        eager_steps, eager_tokens: steps that no bucket holds, and their tokens.
        bytes, ns: of all buckets, by the budget's prices.
        buckets: each bucket's part, in the order of the ladder.
    """

    steps: int
    real_tokens: int
    padded_tokens: int
    eager_steps: int
    eager_tokens: int
    bytes: int
    ns: int
    buckets: tuple[LadderBucket, ...]

    @property
    def padded_share(self) -> float:
        """Padded tokens of all tokens that run in buckets, padding included: 0 to 1."""
        run = self.real_tokens - self.eager_tokens + self.padded_tokens
        return self.padded_tokens / run if run else 0.0


def _integer(where: str, value: Any, bits: int = 64) -> int:
    try:
        number = index(value)
    except TypeError:
        raise AdcgError(errors.ERR_ARGUMENT, f"{where}: not an integer: {value!r}") from None
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise AdcgError(errors.ERR_ARGUMENT, f"{where}: does not fit int{bits}: {number}")
    return number


def _counts(where: str, histogram: Histogram) -> tuple[Any, int]:
    """The histogram as adcg_step_count entries, by rising size so that messages name the same entry each time."""
    if isinstance(histogram, Mapping):
        items = [(_integer(f"{where}: histogram", t), _integer(f"{where}: histogram", n)) for t, n in histogram.items()]
    else:
        if isinstance(histogram, str | bytes) or not isinstance(histogram, Iterable):
            raise AdcgError(
                errors.ERR_ARGUMENT, f"{where}: histogram: neither a mapping nor sizes: {type(histogram).__name__}"
            )
        items = list(Counter(_integer(f"{where}: histogram", tokens) for tokens in histogram).items())
    if len(items) > _ffi.MAX_LADDER:
        raise AdcgError(errors.ERR_ARGUMENT, f"{where}: histogram: {len(items)} sizes, at most {_ffi.MAX_LADDER}")
    return (_ffi.StepCount * len(items))(*(_ffi.StepCount(*item) for item in sorted(items))), len(items)


def _budget(where: str, budget: LadderBudget | None, given: dict[str, Any]) -> _ffi.LadderBudget:
    known = {field.name for field in fields(LadderBudget)}
    for name in given:
        if name not in known:
            raise AdcgError(
                errors.ERR_ARGUMENT, f"{where}: {name}: no such limit, use one of {', '.join(sorted(known))}"
            )
    raw = _ffi.LadderBudget()
    for name, value in asdict(replace(budget or LadderBudget(), **given)).items():
        setattr(raw, name, _integer(f"{where}: budget.{name}", value, 32 if name == "max_buckets" else 64))
    return raw


def choose_ladder(histogram: Histogram, budget: LadderBudget | None = None, **limits: int) -> list[int]:
    """The buckets, rising, that pad the fewest tokens of these steps within the budget: exactly.

    Of several such ladders it is one with the fewest buckets, and of those the lexicographically smallest. Without any
    limit every size is a bucket.

    Args:
        histogram: ``{tokens: steps}``, or the sizes of the steps.
        budget: the limits; ``limits`` are its fields by name and go over it: ``choose_ladder(h, max_buckets=16)``.
    """
    counts, count = _counts("choose_ladder", histogram)
    raw = _budget("choose_ladder", budget, limits)
    room = min(count, raw.max_buckets) if raw.max_buckets > 0 else count
    out, found = (ctypes.c_int64 * room)(), ctypes.c_int32()
    _ffi.lib.adcg_ladder_choose(counts, count, raw, out, room, found)
    return list(out[: found.value])


def ladder_cost(
    histogram: Histogram, buckets: Iterable[int], budget: LadderBudget | None = None, **prices: int
) -> LadderCost:
    """What these buckets cost on these steps.

    Args:
        histogram: ``{tokens: steps}``, or the sizes of the steps.
        buckets: in any order; none: every step is eager.
        budget: its prices count, its limits do not; ``prices`` are its fields by name and go over it.
    """
    counts, count = _counts("ladder_cost", histogram)
    raw = _budget("ladder_cost", budget, prices)
    sizes = sorted({_integer("ladder_cost: buckets", size) for size in buckets})
    if len(sizes) > _ffi.MAX_LADDER:
        raise AdcgError(errors.ERR_ARGUMENT, f"ladder_cost: buckets: {len(sizes)}, at most {_ffi.MAX_LADDER}")
    each, totals = (_ffi.LadderBucket * len(sizes))(), _ffi.LadderTotals()
    _ffi.lib.adcg_ladder_cost(counts, count, (ctypes.c_int64 * len(sizes))(*sizes), len(sizes), raw, each, totals)
    parts = tuple(LadderBucket(*(getattr(part, field.name) for field in fields(LadderBucket))) for part in each)
    numbers = {field.name: getattr(totals, field.name) for field in fields(LadderCost) if field.name != "buckets"}
    return LadderCost(**numbers, buckets=parts)


def named_ladder(name: str, max_tokens: int, max_seqs: int = 256) -> list[int]:
    """The ladder that an engine captures unless told otherwise, for steps of at most so many tokens and sequences.

    Args:
        name: one of ``LADDERS``.
        max_seqs: ``"vllm"`` and ``"sglang"`` depend on it.
    """
    if not isinstance(name, str) or "\0" in name:
        raise AdcgError(errors.ERR_ARGUMENT, f"named_ladder: name: not a name: {name!r}")
    limits = [_integer("named_ladder: max_tokens", max_tokens), _integer("named_ladder: max_seqs", max_seqs)]
    found = ctypes.c_int32()
    _ffi.lib.adcg_ladder_named(name.encode(), *limits, None, 0, found)
    out = (ctypes.c_int64 * found.value)()
    if found.value:
        _ffi.lib.adcg_ladder_named(name.encode(), *limits, out, found.value, found)
    return list(out)
