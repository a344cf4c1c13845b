"""Calls of every op that has CUDA kernels, over random shapes, types, options and layouts, with how near the host's
result must be.

A case is drawn from a seed alone. `near` bounds the difference from another implementation, in units in the last place
of f32, of the result or of `floor` if that is larger; 0 means the same bits. Where results are bf16 there are `steps`
units of its last place beside, one for each rounding on the way: sums that differ in f32 may round to neighbours. Any
row may hold NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from kernel_runner import BF16, F32, I32, Batch, Call, Tensor, empty, part, rounded

Rng = np.random.Generator


@dataclass
class Case:
    call: Call
    near: float
    floor: float = 1.0
    steps: int = 1


def excess(case: Case, dtype: int, got: np.ndarray, want: np.ndarray) -> float:
    """By how much a result is off beyond what is allowed; 0 or less: it is not."""
    if dtype == I32:
        return float(np.abs(got.astype(np.int64) - want).max(initial=0))
    if not np.array_equal(np.isnan(got), np.isnan(want)):
        return float("inf")
    same = (got == want) | np.isnan(want)
    g, w = got[~same].astype(np.float64), want[~same].astype(np.float64)
    allowed = case.near * 2.0**-23 * np.maximum(np.abs(w), case.floor)
    if dtype == BF16 and case.near:
        allowed = allowed + case.steps * 2.0**-7 * np.abs(w)
    return float((np.abs(g - w) - allowed).max(initial=0))


def random(rng: Rng, dtype: int, *shape: int) -> Tensor:
    return Tensor(dtype, rounded(rng.standard_normal(shape), dtype))


def float_type(rng: Rng) -> int:
    return int(rng.choice([F32, BF16]))


def width(rng: Rng) -> int:
    """Widths around the sizes at which kernels change their ways."""
    return int(rng.choice([1, 3, 8, 13, 40, 64, 127, 256, 520, 1024, 1032, 2050]))


def laid_out(rng: Rng, t: Tensor) -> Tensor:
    """As it is, as a part of a wider tensor, or off its alignment."""
    way = int(rng.integers(4))
    if way == 1:
        return part(t, -1, int(rng.integers(9)), int(rng.integers(1, 9)))
    if way == 2 and t.values.ndim > 2:
        return part(t, 1, int(rng.integers(3)), 8)
    return Tensor(t.dtype, t.values, t.whole, t.start, int(rng.integers(1, 4))) if way == 3 else t


def spoiled(rng: Rng, t: Tensor) -> Tensor:
    """Some rows hold NaN, as rows of padding may."""
    values = t.values.copy()
    values[rng.random(values.shape[0]) < 0.2] = np.nan
    return Tensor(t.dtype, values, t.whole, t.start, t.shift)


def shaped(rng: Rng, last: int) -> tuple[int, ...]:
    return (
        (int(rng.integers(1, 12)), last)
        if rng.integers(2)
        else (int(rng.integers(1, 6)), int(rng.integers(1, 5)), last)
    )


def output(rng: Rng, t: Tensor) -> Tensor:
    return laid_out(rng, empty(t.dtype, t.values.shape))


def elements(op: str, operands: int, near: float) -> Callable[[Rng], Case]:
    def draw(rng: Rng) -> Case:
        dtype, shape = float_type(rng), shaped(rng, width(rng))
        tensors = [laid_out(rng, spoiled(rng, random(rng, dtype, *shape))) for _ in range(operands)]
        if op in ("mul", "sigmoid_mul") and rng.integers(2):
            tensors[1] = random(rng, dtype, *shape[:-1], 1)
        attrs = {"approximate": str(rng.choice(["none", "tanh"]))} if op == "gelu_mul" else {}
        place = {0: 0} if rng.integers(2) else {}
        return Case(Call(op, tensors, [output(rng, tensors[0])], attrs, in_place=place), near, 1e-6, 2)

    return draw


def rms_norm(rng: Rng) -> Case:
    dtype, groups = float_type(rng), int(rng.choice([1, 1, 2, 5]))
    x = laid_out(rng, spoiled(rng, random(rng, dtype, *shaped(rng, groups * width(rng)))))
    gate = str(rng.choice(["none", "before", "after"]))
    inputs = [x, random(rng, float_type(rng), x.values.shape[-1])]
    if gate != "none":
        inputs.append(laid_out(rng, random(rng, dtype, *x.values.shape)))
    attrs = {"eps": 1e-6, "one_plus": bool(rng.integers(2)), "groups": groups, "gate": gate}
    place = {0: int(rng.choice([0, len(inputs) - 1]))} if gate != "none" and rng.integers(2) else {}
    return Case(Call("rms_norm", inputs, [output(rng, x)], attrs, in_place=place), 12, 0, 3)


def add_rms_norm(rng: Rng) -> Case:
    dtype = float_type(rng)
    shape = shaped(rng, width(rng))
    a, b = (laid_out(rng, spoiled(rng, random(rng, dtype, *shape))) for _ in range(2))
    weight = random(rng, float_type(rng), shape[-1])
    place = [{}, {0: 0}, {1: 1}, {0: 0, 1: 1}, {0: 1, 1: 0}][int(rng.integers(5))]
    attrs = {"one_plus": bool(rng.integers(2))}
    return Case(Call("add_rms_norm", [a, b, weight], [output(rng, a), output(rng, a)], attrs, in_place=place), 8, 0, 2)


def qk_norm(rng: Rng) -> Case:
    dtype, rows, d = float_type(rng), int(rng.integers(1, 9)), width(rng)
    q, k = (laid_out(rng, random(rng, dtype, rows, int(rng.integers(1, 6)), d)) for _ in range(2))
    weights = [random(rng, float_type(rng), d) for _ in range(2)]
    place = {0: 0, 1: 1} if rng.integers(2) else {}
    return Case(Call("qk_norm", [q, k, *weights], [output(rng, q), output(rng, k)], in_place=place), 8, 0, 2)


def layer_norm(rng: Rng) -> Case:
    dtype = float_type(rng)
    x = random(rng, dtype, *shaped(rng, width(rng) + 1))
    x = laid_out(rng, spoiled(rng, Tensor(dtype, rounded(x.values + np.float32(3), dtype))))
    inputs = [x, random(rng, float_type(rng), x.values.shape[-1])]
    if rng.integers(2):
        inputs.append(random(rng, float_type(rng), x.values.shape[-1]))
    return Case(Call("layer_norm", inputs, [output(rng, x)], in_place={0: 0} if rng.integers(2) else {}), 32)


def softmax(rng: Rng) -> Case:
    dtype = float_type(rng)
    x = random(rng, dtype, *shaped(rng, int(rng.choice([1, 7, 64, 1000, 1500, 17000]))))
    x = laid_out(rng, spoiled(rng, Tensor(dtype, rounded(x.values * np.float32(4), dtype))))
    return Case(Call("softmax", [x], [output(rng, x)], in_place={0: 0} if rng.integers(2) else {}), 24, 1e-9)


def cast(rng: Rng) -> Case:
    x = laid_out(rng, spoiled(rng, random(rng, float_type(rng), *shaped(rng, width(rng)))))
    to = float_type(rng)
    y = laid_out(rng, empty(to, x.values.shape))
    return Case(Call("cast", [x], [y], {"dtype": "bfloat16" if to == BF16 else "float32"}), 0)


def rope(rng: Rng) -> Case:
    dtype, half = float_type(rng), int(rng.choice([1, 3, 4, 16, 32, 64, 101]))
    rows, heads, d = int(rng.integers(1, 7)), int(rng.choice([1, 4, 9, 40])), 2 * half + int(rng.choice([0, 0, 6]))
    x = laid_out(rng, random(rng, dtype, rows, heads, d))
    most = int(rng.choice([4096, 200000, 2**31 - 1]))
    positions = Tensor(I32, rng.integers(0, most, rows).astype(np.int32))
    attrs = {
        "theta": float(rng.choice([1e4, 5e5])),
        "rotary_dim": 2 * half,
        "layout": str(rng.choice(["neox", "gptj", "interleaved"])),
        "scaling": str(rng.choice(["none", "linear", "llama3", "yarn"])),
        "factor": 8.0,
    }
    place = {0: 0} if rng.integers(2) else {}
    return Case(Call("rope", [x, positions], [output(rng, x)], attrs, in_place=place), 8)


def linear(rng: Rng) -> Case:
    x_type = float_type(rng)
    m = int(rng.choice([1, 2, 4, 5, 8, 9, 20, 48, 49, 65, 130]))
    n, k = int(rng.choice([1, 7, 8, 33, 64, 72])), int(rng.choice([1, 8, 31, 32, 100, 128, 136, 520, 2100]))
    x = spoiled(rng, random(rng, x_type, m, k))
    if k % 4 == 0 and rng.integers(3) == 0:  # rows in pieces
        x = part(Tensor(x_type, x.values.reshape(m, k // 4, 4)), -1, 1, 2)
    else:
        x = laid_out(rng, x)
    inputs = [x, random(rng, float_type(rng), n, k)]
    if rng.integers(2):
        inputs.append(random(rng, float_type(rng), n))
    names = ["none", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid"]
    y = laid_out(rng, empty(x_type, (m, n)))
    # k products of about one, summed in another order; the activation may double the error
    call = Call("linear", inputs, [y], {"activation": str(rng.choice(names))})
    return Case(call, 64, float(np.sqrt(k)))


def embedding(rng: Rng) -> Case:
    rows, v, h = int(rng.integers(1, 20)), int(rng.integers(1, 50)), width(rng)
    table, to = random(rng, float_type(rng), v, h), float_type(rng)
    ids = Tensor(I32, rng.integers(0, v, rows).astype(np.int32))
    y = laid_out(rng, empty(to, (rows, h)))
    return Case(Call("embedding", [ids, table], [y], {"dtype": "bfloat16" if to == BF16 else "float32"}), 0)


def argmax(rng: Rng) -> Case:
    dtype, n = float_type(rng), int(rng.choice([1, 5, 100, 1000, 5000, 33000]))
    x = random(rng, dtype, int(rng.integers(1, 6)), n)
    values = np.round(x.values * 2) / 2 if rng.integers(2) else x.values.copy()  # ties, of zeros of both signs too
    if rng.integers(4) == 0:
        values[0] = -np.inf
    values[rng.random(values.shape) < 0.3 / n] = np.nan
    x = laid_out(rng, Tensor(dtype, values.astype(np.float32)))
    return Case(Call("argmax", [x], [empty(I32, (x.values.shape[0],))]), 0)


def sequences(rng: Rng, seqs: int) -> tuple[Batch, np.ndarray, int]:
    """Real sequences of a bucket of `seqs`: the batch, cu_seqlens with leftovers behind, real tokens."""
    prefill, decode = int(rng.integers(0, seqs)), 0
    decode = int(rng.integers(0, seqs - prefill + 1))
    lengths = np.concatenate([rng.integers(1, 9, prefill), np.ones(decode, int)]).astype(int)
    cu = np.full(seqs + 1, 99, np.int32)
    cu[: lengths.size + 1] = np.concatenate([[0], np.cumsum(lengths)])
    return Batch(prefill, int(lengths[:prefill].sum()), decode), cu, int(lengths.sum())


def attention_metadata(rng: Rng) -> Case:
    seqs = int(rng.integers(1, 9))
    batch, cu, tokens = sequences(rng, seqs)
    bucket = tokens + int(rng.integers(0 if tokens else 1, 300))
    inputs = [Tensor(I32, cu), Tensor(I32, rng.integers(0, 1000, seqs).astype(np.int32))]
    return Case(Call("attention_metadata", inputs, [empty(I32, (bucket,)), empty(I32, (bucket,))], batch=batch), 0)


def paged_metadata(rng: Rng) -> Case:
    seqs, most = int(rng.integers(1, 9)), int(rng.integers(1, 40))
    batch, _, _ = sequences(rng, seqs)
    real = batch.prefill_seqs + batch.decode_seqs
    cu = np.full(seqs + 1, 99, np.int32)
    cu[: real + 1] = np.concatenate([[0], np.cumsum(rng.integers(0, most + 1, real))])
    pages = rng.integers(0, 500, int(cu[real]) + 3).astype(np.int32)
    call = Call(
        "paged_metadata", [Tensor(I32, cu), Tensor(I32, pages)], [empty(I32, (seqs, most))], {"max_pages": most}, batch
    )
    return Case(call, 0)


def gather_tokens(rng: Rng) -> Case:
    seqs, dtype = int(rng.integers(1, 9)), float_type(rng)
    batch, cu, tokens = sequences(rng, seqs)
    hidden = random(rng, dtype, tokens + int(rng.integers(0 if tokens else 1, 20)), int(rng.integers(1, 4)), width(rng))
    hidden.values[tokens:] = np.nan
    indices = np.full(seqs, 2**31 - 1, np.int32)
    indices[: batch.prefill_seqs + batch.decode_seqs] = cu[1 : batch.prefill_seqs + batch.decode_seqs + 1] - 1
    y = laid_out(rng, empty(dtype, (seqs, *hidden.values.shape[1:])))
    return Case(Call("gather_tokens", [laid_out(rng, hidden), Tensor(I32, indices)], [y], batch=batch), 0)


def cut(rng: Rng) -> Case:
    dtype = int(rng.choice([F32, BF16, I32]))
    shape = tuple(int(n) for n in rng.integers(1, 10, int(rng.integers(2, 5))))
    x = Tensor(I32, rng.integers(0, 99, shape).astype(np.int32)) if dtype == I32 else random(rng, dtype, *shape)
    axis = int(rng.integers(len(shape)))
    start = int(rng.integers(shape[axis]))
    length = int(rng.integers(1, shape[axis] - start + 1))
    cut_shape = (*shape[:axis], length, *shape[axis + 1 :])
    attrs = {"axis": axis - len(shape), "start": start, "length": length}
    return Case(Call("slice", [laid_out(rng, x)], [laid_out(rng, empty(dtype, cut_shape))], attrs), 0)


def joined(rng: Rng) -> Case:
    dtype = float_type(rng)
    shape = [int(n) for n in rng.integers(1, 10, int(rng.integers(2, 5)))]
    axis = int(rng.integers(len(shape)))
    inputs, total = [], 0
    for _ in range(int(rng.integers(2, 5))):
        shape[axis] = int(rng.integers(1, 20))
        total += shape[axis]
        inputs.append(laid_out(rng, random(rng, dtype, *shape)))
    shape[axis] = total
    return Case(Call("concat", inputs, [laid_out(rng, empty(dtype, tuple(shape)))], {"axis": axis}), 0)


CASES: dict[str, Callable[[Rng], Case]] = {
    "add": elements("add", 2, 0),
    "mul": elements("mul", 2, 0),
    "silu_mul": elements("silu_mul", 2, 12),
    "gelu_mul": elements("gelu_mul", 2, 24),
    "sigmoid_mul": elements("sigmoid_mul", 2, 12),
    "silu": elements("silu", 1, 8),
    "relu2": elements("relu2", 1, 0),
    "sigmoid": elements("sigmoid", 1, 8),
    "rms_norm": rms_norm,
    "add_rms_norm": add_rms_norm,
    "qk_norm": qk_norm,
    "layer_norm": layer_norm,
    "softmax": softmax,
    "cast": cast,
    "rope": rope,
    "linear": linear,
    "embedding": embedding,
    "argmax": argmax,
    "attention_metadata": attention_metadata,
    "paged_metadata": paged_metadata,
    "gather_tokens": gather_tokens,
    "slice": cut,
    "concat": joined,
}

# Ops whose outputs the host leaves alone behind the real rows (the engine zeroes them there): zeros are expected.
ZEROING = {"attention_metadata", "paged_metadata", "gather_tokens"}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit, but for the bits of a NaN."""
    if a.dtype == np.int32:
        return np.array_equal(a, b)
    nan = np.isnan(a)
    return np.array_equal(nan, np.isnan(b)) and np.array_equal(a[~nan].view(np.uint32), b[~nan].view(np.uint32))


def real_rows(case: Case, output: int) -> int:
    batch, rows = case.call.batch, case.call.outputs[output].values.shape[0]
    if case.call.op not in ZEROING:
        return rows
    tokens = batch.prefill_tokens + batch.decode_seqs
    return tokens if case.call.op == "attention_metadata" else batch.prefill_seqs + batch.decode_seqs


# Inputs that are not rows.
WEIGHTS = {
    "rms_norm": {1},
    "layer_norm": {1, 2},
    "add_rms_norm": {2},
    "qk_norm": {2, 3},
    "linear": {1, 2},
    "embedding": {1},
}
ROW_WISE = [op for op in CASES if op not in {*ZEROING, "slice", "concat"}]


def with_rows(call: Call, rows: np.ndarray, shift: int) -> Call:
    """The same call on other rows, compact, its memory off its alignment by `shift` elements."""
    weights = WEIGHTS.get(call.op, set())
    inputs = [t if i in weights else Tensor(t.dtype, t.values[rows], shift=shift) for i, t in enumerate(call.inputs)]
    outputs = [
        Tensor(t.dtype, empty(t.dtype, (len(rows), *t.values.shape[1:])).values, shift=shift) for t in call.outputs
    ]
    return Call(call.op, inputs, outputs, call.attrs, call.batch)
