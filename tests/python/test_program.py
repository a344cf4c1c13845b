"""The Python program of the design notes, as it stands there, apart from the arrays that it leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

# Between these quotes: the program, unchanged.
PROGRAM = """
import adcg, numpy as np

with adcg.Engine("host") as engine:
    @engine.op("my.scale", kind="dynamic")                 # shapes discovered, or infer=...
    def scale(call):
        np.multiply(call.inputs[0], 2.0, out=call.outputs[0])

    g = engine.graph(max_tokens=512, max_seqs=8, max_seq_len=256)
    x = g.input("x", "float32", [g.tokens, 64])
    w = g.weight("w", "float32", [64, 64])
    g.output("y", g.add(g.op("my.scale", g.linear(x, w)), x))   # every built-in op is a method with its attributes as keywords
    print(g.forecast())                                     # a table; .arena_bytes and so on
    with g.compile(weights={"w": w_array}) as exec:         # buckets=, mode=, max_executable_bytes=
        exec.capture(progress=True)
        step = exec.replay(adcg.Batch(prefill_seqs=2, prefill_tokens=37, decode_seqs=3), inputs={"x": x_array}, outputs={"y": y_array})
        print(step.mode, step.bucket_tokens, exec.stats())
"""  # noqa: E501


def test_program(capfd: pytest.CaptureFixture[str], rng: np.random.Generator) -> None:
    arrays: dict[str, Any] = {
        "w_array": rng.standard_normal((64, 64)).astype(np.float32),
        "x_array": rng.standard_normal((40, 64)).astype(np.float32),
        "y_array": np.full((40, 64), np.nan, np.float32),
    }
    x_before = arrays["x_array"].copy()
    names: dict[str, Any] = dict(arrays)
    exec(compile(PROGRAM, "program", "exec"), names)
    expected = 2.0 * (x_before.astype(np.float64) @ arrays["w_array"].astype(np.float64).T) + x_before
    np.testing.assert_allclose(arrays["y_array"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(arrays["x_array"], x_before)
    step = names["step"]
    assert (step.mode, step.bucket_tokens, step.padded_tokens) == ("piecewise", 64, 24)  # 40 rows in a bucket of 64
    out = capfd.readouterr()
    assert "arena" in out.out and "piecewise 64" in out.out
    assert "capture" in out.err  # the progress bar
