"""What is checked of attention's kernels, on the stand-in driver (test_attention.py) and on a GPU
(tests/gpu/attention.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from attention_cases import Caches, Rng, Step, draw, shape, step
from kernel_cases import same_bits
from kernel_runner import BF16, F32, Call, Runner


def some_call(rng: Rng, tensor_cores: bool) -> Call:
    drawn, caches = draw(rng, tensor_cores)
    return drawn.call(caches)


def take(runner: Runner, drawn: Step, caches: Caches, on_cuda: bool = True) -> tuple[np.ndarray, Caches]:
    """The real rows of the output, and the caches afterwards; the rows behind must be zeros."""
    out, k, v = runner.run(drawn.call(caches), on_cuda)
    real = sum(drawn.tokens)
    if on_cuda:
        assert not out[real:].any(), "rows behind the real ones"
    return out[:real], Caches.of([k, v], drawn.shape.cache)


def same_caches(a: Caches, b: Caches) -> bool:
    return same_bits(a.k, b.k) and same_bits(a.v, b.v)


def against_float64_and_host(runner: Runner, rng: Rng, tensor_cores: bool) -> float:
    """Errors are measured by the largest value that a row sees: a sum of weighted values, whose weights sum to one
    at most. Scores of up to some tens are sums of d products, so weights have errors of some units of 2^-23 times
    the score. On tensor cores weights are rounded to bf16. Returns the largest share of its bound that an error
    has."""
    drawn, caches = draw(rng, tensor_cores)
    got, after = take(runner, drawn, caches)
    host, host_after = take(runner, drawn, caches, on_cuda=False)
    assert same_caches(after, drawn.written(caches)), f"caches: {drawn.shape}"
    assert same_caches(after, host_after)
    want, largest = drawn.expected(after)
    bound = (2.0**-15 + (2.0**-8 if tensor_cores else 0)) * largest[..., None]
    if drawn.shape.dtype == BF16:
        bound = bound + 2.0**-8 * np.abs(want)
    assert (np.abs(host - want) <= bound).all(), "the host's own"
    worst = float((np.abs(got - want) / bound).max())
    assert worst <= 1, f"off by {worst} of what is allowed: {drawn.shape} {drawn.tokens} {drawn.history}"
    return worst


def random_cuts(rng: Rng, tokens: list[int]) -> list[list[int]]:
    """Every sequence in steps of its own: of a few tokens, of one, of none."""
    left, counts = list(tokens), []
    while any(left):
        count = [min(n, int(rng.choice([0, 1, 1, 3, 9, 33, n]))) for n in left]
        if any(count):
            counts.append(count)
            left = [n - c for n, c in zip(left, count, strict=True)]
    return counts


def in_order(drawn: Step) -> Step:
    """Sequences of one token behind the others, as a batch has them."""
    order = sorted(range(len(drawn.tokens)), key=lambda i: drawn.tokens[i] == 1)
    return chosen(drawn, order)


def chosen(drawn: Step, order: list[int]) -> Step:
    begin = np.cumsum([0, *drawn.tokens])
    rows = np.concatenate([np.arange(begin[i], begin[i + 1]) for i in order])
    return replace(
        drawn,
        tokens=[drawn.tokens[i] for i in order],
        history=[drawn.history[i] for i in order],
        places=[drawn.places[i] for i in order],
        q=drawn.q[rows],
        k=drawn.k[rows],
        v=drawn.v[rows],
    )


def chunks_are_the_whole(runner: Runner, rng: Rng, tensor_cores: bool) -> None:
    """However a prefill is cut into steps, one token at a time included, the bits are the same."""
    drawn, caches = draw(rng, tensor_cores)
    want, after = take(runner, drawn, caches)
    begin = np.cumsum([0, *drawn.tokens])
    for _ in range(2):
        got, now = np.zeros_like(want), caches
        counts = random_cuts(rng, drawn.tokens)
        for count, cut in zip(counts, drawn.cut(0, counts), strict=True):
            who = [i for i, n in enumerate(count) if n]
            order = sorted(range(len(who)), key=lambda i, cut=cut: cut.tokens[i] == 1)  # type: ignore[misc]
            out, now = take(runner, chosen(cut, order), now)
            at = 0
            for i in order:
                first = begin[who[i]] + cut.history[i] - drawn.history[who[i]]
                got[first : first + cut.tokens[i]] = out[at : at + cut.tokens[i]]
                at += cut.tokens[i]
        assert same_bits(got, want), f"{drawn.shape} {drawn.tokens} {drawn.history} {counts}"
        assert same_caches(now, after)


def neighbours_buckets_and_places(runner: Runner, rng: Rng, tensor_cores: bool) -> None:
    """Alone, in any bucket, laid out in any way, in other slots or pages: the same bits; and what no sequence has
    is left alone."""
    drawn, caches = draw(rng, tensor_cores)
    want, after = take(runner, drawn, caches)
    begin = np.cumsum([0, *drawn.tokens])
    for i in range(len(drawn.tokens)):
        alone = chosen(drawn, [i])
        alone.layout, real = {}, drawn.tokens[i]
        alone.bucket = (real + int(rng.choice([0, 64, 200])), int(rng.choice([1, 2, 9])))
        got, _ = take(runner, alone, caches)
        assert same_bits(got, want[begin[i] : begin[i + 1]]), f"{drawn.shape} {drawn.tokens} {drawn.history} {i}"
    order = rng.permutation(drawn.shape.count)
    moved = replace(drawn, places=[[int(order[p]) for p in place] for place in drawn.places])
    elsewhere = Caches(np.empty_like(caches.k), np.empty_like(caches.v))
    elsewhere.k[order], elsewhere.v[order] = caches.k, caches.v
    got, now = take(runner, moved, elsewhere)
    assert same_bits(got, want)
    assert same_caches(Caches(now.k[order], now.v[order]), after)


def not_a_number(runner: Runner, rng: Rng, tensor_cores: bool) -> None:
    """What is not finite in keys and values of a token reaches the queries that see it, and not one bit of the
    others."""
    s = shape(rng, tensor_cores)
    s.window = int(rng.choice([0, 40]))
    drawn, caches = step(rng, s, [150], [30])
    want, _ = take(runner, drawn, caches)
    at = 70
    for spoiled, what in ((drawn.k, np.nan), (drawn.v, np.nan), (drawn.v, np.inf)):
        before = spoiled[at].copy()
        spoiled[at] = what
        got, _ = take(runner, drawn, caches)
        spoiled[at] = before
        end = at + s.window if s.window else 150
        assert same_bits(got[:at], want[:at])
        assert same_bits(got[end:], want[end:])
        if s.cache not in (F32, BF16) and what == np.inf:
            continue  # 448 there
        assert not np.isfinite(got[at:end]).any()


def wide_tiles(runner: Runner, rng: Rng, tensor_cores: bool = True) -> None:
    """A device of many multiprocessors has narrow tiles for these steps, one of none has wide ones where heads have
    128 dims: the same bits, and the same rows are finite."""
    s = shape(rng, tensor_cores)
    s.d = s.dv = 128
    s.window = int(rng.choice([0, 0, 40, 257]))
    s.paged, s.length, s.count = False, 400, 3
    drawn, caches = step(rng, s, [int(rng.integers(40, 140)), 9, 1], [int(rng.choice([0, 63, 250])), 100, 3])
    for spoiled in (False, True):
        if spoiled:
            drawn.v[20] = np.nan
        want, after = take(runner, drawn, caches)
        before = runner.count_on_multiprocessors(0)
        try:
            got, now = take(runner, drawn, caches)
        finally:
            runner.count_on_multiprocessors(before)
        finite = np.isfinite(want)
        assert finite.all() != spoiled
        assert np.array_equal(finite, np.isfinite(got))
        assert same_bits(np.where(finite, got, 0), np.where(finite, want, 0)), f"{s} {drawn.tokens} {drawn.history}"
        assert same_caches(now, after) or spoiled


def empty_batch(runner: Runner, rng: Rng, tensor_cores: bool) -> None:
    """As in warm-up: indices are leftovers, all rows are zeros, no cache is written."""
    for _ in range(3):
        call = some_call(rng, tensor_cores)
        call.batch = type(call.batch)()
        before = [t.values.copy() for t in call.inputs[3:5]]
        for t in call.inputs[5:]:
            if t.values.dtype == np.int32:
                t.values[...] = rng.integers(-(2**31), 2**31, t.values.shape)
        out, k, v = runner.run(call)
        assert not out.any()
        for x, b in zip((k, v), before, strict=True):
            assert same_bits(x, b) if x.dtype != np.uint8 else np.array_equal(x, b)


def sequences_that_cannot_be(runner: Runner, rng: Rng, tensor_cores: bool) -> None:
    """Indices out of every range: nothing faults, and no place is written that no valid sequence names. One that is
    valid beside them has its bits all the same."""
    drawn, caches = draw(rng, tensor_cores)
    want, _ = take(runner, drawn, caches)
    first = drawn.tokens[0]
    if len(drawn.tokens) == 1:
        return
    for _ in range(4):
        call = drawn.call(caches)
        for t in call.inputs[6:]:
            if t.values.dtype == np.int32 and t.values.size > 1 and not (drawn.shape.paged and t is call.inputs[8]):
                t.values[2 if t is call.inputs[7] and drawn.shape.paged else 1 :] = rng.choice(
                    [-1, -(2**31), 2**31 - 1, 10**6]
                )
        out, _, _ = runner.run(call)
        assert same_bits(out[:first], want[:first])
    call = drawn.call(caches)
    call.inputs[5].values[...] = rng.integers(-(2**31), 2**31, call.inputs[5].values.shape)
    runner.run(call)
