"""Attention's CUDA kernels over the stand-in driver: against float64 and the host's op, and what is promised of
them whatever the numbers are. The checks are attention_checks.py's, which a GPU runs too."""

from __future__ import annotations

import os

import attention_checks as checks
import numpy as np
import pytest
from attention_cases import CODES, from_f8, to_f8
from kernel_runner import Runner

SEEDS = int(os.environ.get("ADCG_ATTENTION_SEEDS", "4"))  # of most checks; a GPU has more
CORES = pytest.mark.parametrize("tensor_cores", [False, True], ids=["plain", "tensor cores"])


@CORES
@pytest.mark.parametrize("seed", range(3 * SEEDS))
def test_against_float64_and_host(runner: Runner, seed: int, tensor_cores: bool) -> None:
    checks.against_float64_and_host(runner, np.random.default_rng([seed, tensor_cores]), tensor_cores)


@CORES
@pytest.mark.parametrize("seed", range(SEEDS))
def test_chunks_are_the_whole(runner: Runner, seed: int, tensor_cores: bool) -> None:
    checks.chunks_are_the_whole(runner, np.random.default_rng([seed, 1, tensor_cores]), tensor_cores)


@CORES
@pytest.mark.parametrize("seed", range(SEEDS))
def test_neighbours_buckets_and_places(runner: Runner, seed: int, tensor_cores: bool) -> None:
    checks.neighbours_buckets_and_places(runner, np.random.default_rng([seed, 2, tensor_cores]), tensor_cores)


@CORES
@pytest.mark.parametrize("seed", range(SEEDS))
def test_not_a_number(runner: Runner, seed: int, tensor_cores: bool) -> None:
    checks.not_a_number(runner, np.random.default_rng([seed, 3, tensor_cores]), tensor_cores)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_wide_tiles(runner: Runner, seed: int) -> None:
    checks.wide_tiles(runner, np.random.default_rng([seed, 7]))


@CORES
def test_empty_batch(runner: Runner, tensor_cores: bool) -> None:
    checks.empty_batch(runner, np.random.default_rng([4, tensor_cores]), tensor_cores)


@CORES
@pytest.mark.parametrize("seed", range(SEEDS))
def test_sequences_that_cannot_be(runner: Runner, seed: int, tensor_cores: bool) -> None:
    checks.sequences_that_cannot_be(runner, np.random.default_rng([seed, 5, tensor_cores]), tensor_cores)


@CORES
def test_order_of_threads(runner: Runner, tensor_cores: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No barrier is missing: in any order, over poisoned shared memory, the bits are the same."""
    call = checks.some_call(np.random.default_rng([6, tensor_cores]), tensor_cores)
    want = runner.run(call)
    monkeypatch.setenv("FAKECUDA_SHARED_POISON", "255")
    for seed in range(1, 4):
        monkeypatch.setenv("FAKECUDA_THREAD_SEED", str(seed))
        for w, g in zip(want, runner.run(call), strict=True):
            assert np.array_equal(w.view(np.uint8), g.view(np.uint8))


def test_e4m3_of_the_tests() -> None:
    """Each code is what it stands for, and the middle between two goes to the even one."""
    codes = np.arange(127, dtype=np.uint8)
    assert CODES[[1, 7, 8, 56, 126]].tolist() == [2.0**-9, 7 * 2.0**-9, 2.0**-6, 1.0, 448.0]
    assert (to_f8(from_f8(codes)) == codes).all()
    middles = (CODES[:126] + CODES[1:127]) / 2
    assert (to_f8(middles) == (codes[:126] + 1) // 2 * 2).all()
    assert (to_f8(np.array([1e9, -np.inf, np.nan])) == [126, 254, 127]).all()
