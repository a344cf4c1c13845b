"""Steps of attention over caches, slotted and paged: drawn at random, their calls, and what they give in float64."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from kernel_runner import BF16, F8, F32, I32, Batch, Call, Tensor, empty, from_bf16, part, rounded, to_bf16

Rng = np.random.Generator

# e4m3 by its definition: 1.mmm * 2^(e - 7), or 0.mmm * 2^-6.
CODES = np.array([c / 8 * 2.0**-6 if c < 8 else (1 + c % 8 / 8) * 2.0 ** (c // 8 - 7) for c in range(127)] + [np.nan])


def to_f8(x: np.ndarray) -> np.ndarray:
    """The nearest code, the even one of two; 448 beyond."""
    magnitude = np.minimum(np.abs(x.astype(np.float64)), 448.0)
    code = np.clip(np.searchsorted(CODES[:127], magnitude), 1, 126)
    below, above = magnitude - CODES[code - 1], CODES[code] - magnitude
    code = np.where((below < above) | ((below == above) & (code % 2 == 1)), code - 1, code)
    return (np.where(np.isnan(x), 127, code) | np.where(np.signbit(x), 128, 0)).astype(np.uint8)


def from_f8(codes: np.ndarray) -> np.ndarray:
    return (CODES[codes & 127] * np.where(codes & 128, -1.0, 1.0)).astype(np.float32)


def stored(x: np.ndarray, dtype: int) -> np.ndarray:
    """What a cache of that type gives back."""
    return from_f8(to_f8(x)) if dtype == F8 else rounded(x, dtype)


@dataclass
class Shape:
    dtype: int
    cache: int
    heads: int
    kv_heads: int
    d: int
    dv: int
    paged: bool = False
    length: int = 320  # of a slot, or of a page
    count: int = 6
    window: int = 0
    softcap: float = 0.0
    scale: float = 0.0
    sinks: np.ndarray | None = None
    sinks_type: int = F32


@dataclass
class Caches:
    """Keys and values [count, length, kv_heads, d], as floats that the cache's type has."""

    k: np.ndarray
    v: np.ndarray

    def tensors(self, dtype: int) -> list[Tensor]:
        return [Tensor(F8, to_f8(x)) if dtype == F8 else Tensor(dtype, x) for x in (self.k, self.v)]

    @staticmethod
    def of(results: list[np.ndarray], dtype: int) -> Caches:
        k, v = (from_f8(x) if dtype == F8 else x for x in results)
        return Caches(k, v)


@dataclass
class Step:
    """Sequence i has tokens[i] rows of q, k, v, history[i] tokens before, and its positions in slot places[i][0] or
    pages places[i]."""

    shape: Shape
    tokens: list[int]
    history: list[int]
    places: list[list[int]]
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    bucket: tuple[int, int] = (0, 0)  # tokens and sequences; 0: as many as there are
    layout: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of q, k, v, out: axis, before, after

    def call(self, caches: Caches) -> Call:
        s, real, seqs = self.shape, sum(self.tokens), len(self.tokens)
        rows, bucket_seqs = max(self.bucket[0], real, 1), max(self.bucket[1], seqs, 1)

        def laid_out(name: str, t: Tensor) -> Tensor:
            return part(t, *self.layout[name]) if name in self.layout else t

        def padded(name: str, x: np.ndarray) -> Tensor:
            values = np.full((rows, *x.shape[1:]), np.nan, np.float32)
            values[:real] = x
            return laid_out(name, Tensor(s.dtype, values))

        def index(values: list[int], extent: int, leftover: int) -> Tensor:
            return Tensor(I32, np.array(values + [leftover] * (extent - len(values)), np.int32))

        cu = [0, *np.cumsum(self.tokens).tolist()]
        inputs = [padded("q", self.q), padded("k", self.k), padded("v", self.v), *caches.tensors(s.cache)]
        inputs += [index(cu, bucket_seqs + 1, 7), index(self.history, bucket_seqs, 2**31 - 1)]
        if s.paged:
            needs = [-(-(h + n) // s.length) for h, n in zip(self.history, self.tokens, strict=True)]
            pages = [p for place, need in zip(self.places, needs, strict=True) for p in place[:need]]
            last = [h + n - (need - 1) * s.length for h, n, need in zip(self.history, self.tokens, needs, strict=True)]
            inputs += [
                index([0, *np.cumsum(needs).tolist()], bucket_seqs + 1, -5),
                index(pages, len(pages) + 3, 2**31 - 1),
            ]
            inputs.append(index(last, bucket_seqs, -1))
        else:
            inputs.append(index([p[0] for p in self.places], bucket_seqs, -9))
        if s.sinks is not None:
            inputs.append(Tensor(s.sinks_type, s.sinks))
        decode = 0  # behind all others, as the batch has them
        while decode < seqs and self.tokens[seqs - 1 - decode] == 1:
            decode += 1
        attrs = {"scale": s.scale, "window": s.window, "softcap": s.softcap}
        out = laid_out("out", empty(s.dtype, (rows, s.heads, s.dv)))
        batch = Batch(seqs - decode, real - decode, decode)
        return Call("paged_attention" if s.paged else "attention", inputs, [out], attrs, batch, mutates=(3, 4))

    def written(self, caches: Caches) -> Caches:
        """The caches with the step's keys and values."""
        s = self.shape
        after = Caches(caches.k.copy(), caches.v.copy())
        for i, row, position in self.rows():
            place = self.place(i, position)
            after.k[place], after.v[place] = stored(self.k[row], s.cache), stored(self.v[row], s.cache)
        return after

    def rows(self) -> list[tuple[int, int, int]]:
        """Sequence, row and position of every token."""
        begin = np.cumsum([0, *self.tokens])
        return [(i, int(begin[i]) + j, self.history[i] + j) for i, n in enumerate(self.tokens) for j in range(n)]

    def place(self, i: int, position: int) -> tuple[int, int]:
        return (self.places[i][position // self.shape.length], position % self.shape.length)

    def expected(self, after: Caches) -> tuple[np.ndarray, np.ndarray]:
        """Attention in float64, and for each row the largest value that it sees: what errors are measured by."""
        s = self.shape
        out, largest = np.zeros((sum(self.tokens), s.heads, s.dv)), np.zeros((sum(self.tokens), s.heads))
        for i, row, position in self.rows():
            seen = range(max(0, position - s.window + 1) if s.window else 0, position + 1)
            places = [self.place(i, p) for p in seen]
            k, v = (np.array([x[p] for p in places], np.float64) for x in (after.k, after.v))
            for h in range(s.heads):
                g = h // (s.heads // s.kv_heads)
                score = k[:, g] @ self.q[row, h].astype(np.float64) * (s.scale or s.d**-0.5)
                if s.softcap:
                    score = s.softcap * np.tanh(score / s.softcap)
                sink = -np.inf if s.sinks is None else float(s.sinks[h])
                weight = np.exp(score - max(score.max(), sink))
                out[row, h] = weight @ v[:, g] / (weight.sum() + np.exp(sink - max(score.max(), sink)))
                largest[row, h] = np.abs(v[:, g]).max()
        return out, largest

    def cut(self, first: int, counts: list[list[int]]) -> list[Step]:
        """The same tokens in steps of counts[j][i] tokens of sequence i, those without any left out."""
        begin, steps = np.cumsum([0, *self.tokens]), []
        done = [0] * len(self.tokens)
        for count in counts:
            who = [i for i, n in enumerate(count) if n]
            rows = np.concatenate([np.arange(begin[i] + done[i], begin[i] + done[i] + count[i]) for i in who])
            history = [self.history[i] + done[i] for i in who]
            steps.append(
                replace(
                    self,
                    tokens=[count[i] for i in who],
                    history=history,
                    places=[self.places[i] for i in who],
                    q=self.q[rows],
                    k=self.k[rows],
                    v=self.v[rows],
                )
            )
            done = [d + n for d, n in zip(done, count, strict=True)]
        assert done == self.tokens
        return steps


def shape(rng: Rng, tensor_cores: bool) -> Shape:
    """Any that attention takes; with tensor_cores one that they take."""
    kv_heads = int(rng.choice([1, 2, 3]))
    group = int(rng.choice([1, 2, 3, 4, 7, 8, 20]))
    dtype = BF16 if tensor_cores else int(rng.choice([F32, BF16]))
    d = int(rng.choice([64, 128])) if tensor_cores else int(rng.choice([1, 8, 20, 33, 64, 96]))
    dv = d if tensor_cores or rng.integers(2) else int(rng.choice([1, 8, 40, 130]))
    cache = int(rng.choice([BF16, F8])) if tensor_cores else int(rng.choice([F32, BF16, F8]))
    s = Shape(dtype, cache, kv_heads * group, kv_heads, d, dv, paged=bool(rng.integers(2)))
    if s.paged:
        s.length, s.count = int(rng.choice([1, 5, 16, 64, 100])), 0
    s.window = int(rng.choice([0, 0, 1, 2, 40, 63, 64, 65, 256, 257]))
    s.softcap = float(rng.choice([0.0, 0.0, 5.0]))
    s.scale = float(rng.choice([0.0, 0.3]))
    if rng.integers(2):
        s.sinks_type = int(rng.choice([F32, BF16]))
        s.sinks = rounded(rng.standard_normal(s.heads) * 2, s.sinks_type)
    return s


def step(rng: Rng, s: Shape, tokens: list[int], history: list[int]) -> tuple[Step, Caches]:
    """A step of these sequences; positions behind the history, and all that no sequence has, hold NaN."""
    needs = [-(-(h + n) // s.length) for h, n in zip(history, tokens, strict=True)]
    s.count = sum(needs) + 2 if s.paged else max(s.count, len(tokens))
    order = [int(x) for x in rng.permutation(s.count)]
    places, at = [], 0
    for need in needs:
        assert s.paged or need == 1
        places.append(order[at : at + need])
        at += need
    real = sum(tokens)

    def some(*dims: int) -> np.ndarray:
        return rounded(rng.standard_normal(dims) * 2, s.dtype)

    drawn = Step(
        s, tokens, history, places, some(real, s.heads, s.d), some(real, s.kv_heads, s.d), some(real, s.kv_heads, s.dv)
    )
    caches = Caches(*(np.full((s.count, s.length, s.kv_heads, n), np.nan, np.float32) for n in (s.d, s.dv)))
    for i, h in enumerate(history):
        for p in range(h):
            for x in (caches.k, caches.v):
                place = drawn.place(i, p)
                x[place] = stored(rng.standard_normal(x.shape[2:]) * 2, s.cache)
    return drawn, caches


def draw(rng: Rng, tensor_cores: bool = False) -> tuple[Step, Caches]:
    s = shape(rng, tensor_cores)
    seqs = int(rng.integers(1, 5))
    tokens = [int(rng.choice([1, 1, 2, 5, 17, 40, 70])) for _ in range(seqs)]
    tokens.sort(reverse=True)
    history = [int(rng.choice([0, 0, 3, 63, 64, 100, 250])) for _ in range(seqs)]
    drawn, caches = step(rng, s, tokens, history)
    real = sum(tokens)
    drawn.bucket = (real + int(rng.choice([0, 1, 30])), seqs + int(rng.choice([0, 1, 5])))
    for name in ("q", "k", "v", "out"):
        way = int(rng.integers(3))
        if way:
            drawn.layout[name] = (1, int(rng.integers(3)), 2) if way == 1 else (2, 3, int(rng.integers(1, 5)))
    return drawn, caches


__all__ = ["CODES", "Caches", "Shape", "Step", "draw", "from_bf16", "shape", "step", "stored", "to_bf16"]
