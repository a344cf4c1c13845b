"""The CUDA kernels and their launchers over the stand-in driver: against the host's ops, against formulations of their
own, and what is promised of them whatever the numbers are. What a GPU checks too is kernel_checks.py's."""

from __future__ import annotations

import ctypes

import kernel_cases as cases
import kernel_checks as checks
import numpy as np
import pytest
from kernel_runner import (
    BF16,
    F32,
    I32,
    LIBRARY,
    ROOT,
    SIZES,
    Batch,
    Call,
    OpError,
    Runner,
    Tensor,
    empty,
    part,
    rounded,
)

KERNELS = ROOT / "build/fakecuda/kernels.so"
SEEDS = range(25)


@pytest.mark.parametrize("op", cases.CASES)
def test_against_host(runner: Runner, op: str) -> None:
    for seed in SEEDS:
        checks.against_host(runner, op, seed)


# ---- Batch invariance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", cases.ROW_WISE)
def test_rows_keep_their_bits(runner: Runner, op: str) -> None:
    for seed in range(8):
        checks.rows_keep_their_bits(runner, op, seed)


@pytest.mark.parametrize("x_type", [F32, BF16])
@pytest.mark.parametrize("w_type", [F32, BF16])
def test_linear_is_one_product(runner: Runner, x_type: int, w_type: int) -> None:
    """Both kernels, and every number of rows, give a row the same bits, which are near those of a sum in f64."""
    rng = np.random.default_rng(5)
    for k in (40, 128, 300, 2304):
        x, w = cases.random(rng, x_type, 150, k), cases.random(rng, w_type, 72, k)
        whole = runner.run(Call("linear", [x, w], [empty(x_type, (150, 72))]))[0]
        want = x.values.astype(np.float64) @ w.values.astype(np.float64).T
        bound = 2.0**-23 * 12 * (np.abs(x.values) @ np.abs(w.values).T) + (
            2.0**-8 * np.abs(want) if x_type == BF16 else 0
        )
        assert (np.abs(whole - want) <= bound).all()
        for m in (1, 2, 4, 5, 8, 9, 16, 48, 49, 64, 65):
            first = int(rng.integers(150 - m + 1))
            some = Tensor(x_type, x.values[first : first + m])
            got = runner.run(Call("linear", [some, w], [empty(x_type, (m, 72))]))[0]
            assert cases.same_bits(got, whole[first : first + m]), f"K {k}, {m} rows from {first}"


# ---- Indices out of range, empty batches ------------------------------------------------------------------------


def test_indices_out_of_range(runner: Runner) -> None:
    """Rows of zeros, and nothing is read or written astray: the stand-in reports a fault."""
    rng = np.random.default_rng(3)
    table = cases.random(rng, F32, 5, 24)
    ids = np.array([0, -1, 5, 4, 2**31 - 1, -(2**31)], np.int32)
    got = runner.run(Call("embedding", [table_ids(ids), table], [empty(F32, (6, 24))]))[0]
    assert cases.same_bits(got, np.stack([table.values[i] if 0 <= i < 5 else np.zeros(24, np.float32) for i in ids]))

    hidden, batch = cases.random(rng, BF16, 9, 24), Batch(2, 5, 2)  # 7 tokens, 4 sequences
    indices = np.array([6, 7, -3, 0, 1, 1], np.int32)
    got = runner.run(Call("gather_tokens", [hidden, table_ids(indices)], [empty(BF16, (6, 24))], batch=batch))[0]
    want = np.zeros((6, 24), np.float32)
    want[0], want[3] = hidden.values[6], hidden.values[0]
    assert cases.same_bits(got, want)

    cu, pages = np.array([0, 3, 2**31 - 1, -5, 9], np.int32), np.arange(10, 16, dtype=np.int32)
    call = Call(
        "paged_metadata", [table_ids(cu), table_ids(pages)], [empty(I32, (4, 5))], {"max_pages": 5}, Batch(4, 4, 0)
    )
    got = runner.run(call)[0]
    want = np.zeros((4, 5), np.int32)
    want[0, :3], want[1, :3] = pages[:3], pages[3:]
    want[3] = 0  # entries -5 .. -1 lie outside
    assert np.array_equal(got, want)

    cu = np.array([0, 2**31 - 1, -7, 3, 12], np.int32)  # no sequences that could be
    got = runner.run(
        Call("attention_metadata", [table_ids(cu), table_ids(cu[:4])], [empty(I32, (20,))] * 2, batch=Batch(4, 12, 0))
    )
    assert ((got[0] >= 0) & (got[0] < 4)).all()
    assert not got[0][12:].any()
    assert not got[1][12:].any()


def table_ids(values: np.ndarray) -> Tensor:
    return Tensor(I32, values)


@pytest.mark.parametrize("op", sorted(cases.ZEROING))
def test_empty_batch(runner: Runner, op: str) -> None:
    """As in warm-up: the indices are leftovers, all rows are zeros."""
    for seed in range(5):
        call = cases.CASES[op](np.random.default_rng(seed)).call
        call.batch = Batch()
        for t in call.inputs:
            if t.dtype == I32:
                t.values[...] = np.random.default_rng(seed).integers(-(2**31), 2**31, t.values.shape).astype(np.int32)
        for out in runner.run(call):
            assert not out.any()


# ---- Ops by themselves ------------------------------------------------------------------------------------------


def test_rope_refuses_more_than_its_argument_holds(runner: Runner) -> None:
    x, positions = Tensor(F32, np.zeros((1, 1, 1028), np.float32)), Tensor(I32, np.zeros(1, np.int32))
    with pytest.raises(OpError, match="rotary_dim: 1028, at most 1024 on CUDA"):
        runner.run(Call("rope", [x, positions], [empty(F32, (1, 1, 1028))]))
    x = Tensor(F32, np.ones((1, 3, 1024), np.float32))
    assert cases.same_bits(
        runner.run(Call("rope", [x, positions], [empty(F32, (1, 3, 1024))]))[0], x.values
    )  # position 0 turns nothing


def test_argmax_of_long_and_odd_rows(runner: Runner) -> None:
    for n, special, want in [
        (9000, {3: np.inf, 8999: np.inf}, 3),
        (9000, {8999: np.nan, 3: np.inf}, 8999),
        (9000, {17: np.nan, 8999: np.nan}, 17),
        (9000, {8190: np.nan, 8195: np.nan}, 8190),  # the last thread's and the first one's
        (9000, {8190: 1.0, 8195: 1.0}, 8190),
        (40, {}, 0),  # all -inf
        (128, {127: -1.0}, 127),
        (130, {129: 0.0, 7: -0.0}, 7),
    ]:
        row = np.full((2, n), -np.inf, np.float32)
        for at, value in special.items():
            row[:, at] = value
        for dtype in (F32, BF16):
            assert list(runner.run(Call("argmax", [Tensor(dtype, row)], [empty(I32, (2,))]))[0]) == [want, want]


@pytest.mark.parametrize("dtype", [F32, BF16, I32])
def test_zero_tail(runner: Runner, dtype: int) -> None:
    for dim, batch, real in [
        ((1, 0, 0), Batch(2, 5, 3), 8),
        ((0, 1, 1), Batch(2, 5, 3), 6),
        ((2, 1, 3), Batch(1, 2, 0), 8),
        ((1, 0, 0), Batch(), 0),
        ((1, 0, 0), Batch(1, 50, 0), 11),  # more than the bucket's rows: none
    ]:
        for shape in [(11,), (11, 3), (11, 2, 8), (11, 3, 5, 4)]:
            values = np.arange(1, 1 + np.prod(shape), dtype=np.int32).reshape(shape) % 97 + 1
            t = Tensor(dtype, values if dtype == I32 else values.astype(np.float32))
            layouts = [t, Tensor(dtype, t.values, shift=1)]
            if len(shape) > 1:
                layouts += [part(t, -1, 2, 3), part(t, 1, 0, 8)]
            for layout in layouts:
                want = layout.decode(layout.encode()).copy()
                want[layout.window()][min(real, 11) :] = 0
                got = runner.zero_tail(layout, dim, batch)
                assert np.array_equal(got.view(np.int32), want.view(np.int32)), (
                    f"{dim} {shape} {layout.whole} {layout.shift}"
                )


# ---- The table --------------------------------------------------------------------------------------------------


def test_table_has_every_kernel(runner: Runner) -> None:
    """kernels.h names what the sources define, each once; and no argument is larger than 4000 bytes."""
    library, objects = ctypes.CDLL(str(LIBRARY)), ctypes.CDLL(str(KERNELS))
    names = (ctypes.c_char_p * 1024).in_dll(library, "adcgk_cuda_kernels")
    listed = [names[i] for i in range(next(i for i in range(1024) if names[i] is None))]
    assert len(set(listed)) == len(listed)

    class Entry(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            ("run", ctypes.c_void_p),
            ("num_params", ctypes.c_size_t),
            ("sizes", ctypes.POINTER(ctypes.c_uint32)),
            ("alignments", ctypes.POINTER(ctypes.c_uint32)),
        )

    entries = (Entry * 512).in_dll(objects, "fakecuda_kernels")
    defined = []
    for entry in entries:
        if entry.name is None:
            break
        defined.append(entry.name)
        assert entry.num_params == 1
        assert 0 < entry.sizes[0] <= 4000
    assert sorted(defined) == sorted(listed)


def test_bf16_of_the_tests_is_to_the_nearest() -> None:
    """What the cases' inputs and tolerances rest on."""
    x = np.array([1.0, 1.00390625, 1.01171875, -0.0, np.inf, 3.4e38], np.float32)  # ties go to even
    assert cases.same_bits(rounded(x, BF16), np.array([1.0, 1.0, 1.015625, -0.0, np.inf, np.inf], np.float32))
    assert SIZES[BF16] == 2
