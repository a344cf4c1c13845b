"""What is checked of the other kernels, on the stand-in (test_kernels.py) and on a GPU (tests/gpu/kernels.py)."""

from __future__ import annotations

import kernel_cases as cases
import numpy as np
from kernel_runner import I32, Runner


def against_host(runner: Runner, op: str, seed: int) -> float:
    """A drawn call gives what the host's op gives. Returns the largest difference between numbers."""
    case = cases.CASES[op](np.random.default_rng([seed, *op.encode()]))
    got, want = runner.run(case.call), runner.run(case.call, on_cuda=False)
    worst = 0.0
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        dtype, real = case.call.outputs[i].dtype, cases.real_rows(case, i)
        assert not g[real:].any(), f"seed {seed}: {case.call}: rows behind the real ones"
        error = cases.excess(case, dtype, g[:real], w[:real])
        assert error <= 0, f"seed {seed}: output {i}: off by {error} more than allowed: {case.call.attrs}, {g.shape}"
        if dtype != I32 and real:
            numbers = np.isfinite(w[:real])
            worst = max(worst, float(np.nanmax(np.abs(g[:real] - w[:real]), initial=0, where=numbers)))
    return worst


def rows_keep_their_bits(runner: Runner, op: str, seed: int) -> None:
    """At any place, beside any others, in any layout, through whole chunks or element by element."""
    rng = np.random.default_rng([seed, 7, *op.encode()])
    call = cases.CASES[op](rng).call
    whole = runner.run(call)
    count = whole[0].shape[0]
    for size in (1, count, 2 * count + 3):
        rows = rng.integers(0, count, size)
        for shift in (0, 1):
            for w, g in zip(whole, runner.run(cases.with_rows(call, rows, shift)), strict=True):
                assert cases.same_bits(g, w[rows]), (
                    f"seed {seed}: {call.op} {call.attrs} {w.shape}: {size} rows, shift {shift}"
                )
