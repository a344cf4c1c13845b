"""Ops with a state per sequence through graphs: a Mamba-2 mixer and a gated delta net over fused projections. The same
bits whichever way a prompt comes, in every mode, and whatever the slots held before."""

from __future__ import annotations

import itertools
from typing import Any

import adcg
import numpy as np
import pytest

HIDDEN, SLOTS, TAPS = 24, 4, 4
HEADS, DIM, GROUPS, N = 4, 8, 2, 16  # of the mixer
MIXED = [HEADS * DIM, GROUPS * N, GROUPS * N]
KEY_HEADS, VALUE_HEADS, K, V = 2, 4, 12, 16  # of the net
NET = [KEY_HEADS * K, KEY_HEADS * K, VALUE_HEADS * V]
MODES: list[dict[str, Any]] = [
    {"mode": "none"},
    {"buckets": [4, 32]},
    {"buckets": [32], "mode": "piecewise"},
    {"buckets": [4, 32], "verify": True},
]
Part = tuple[np.ndarray[Any, Any], int, int]  # tokens of a sequence, how many it had before, its slot


def build(engine: adcg.Engine) -> adcg.Graph:
    g = engine.graph(max_tokens=32, max_seqs=SLOTS)
    f32 = "float32"
    x = g.input("x", f32, [g.tokens, HIDDEN])
    index = [g.input("cu", "int32", [g.seqs + 1]), *(g.input(n, "int32", [g.seqs]) for n in ("pos", "slot"))]

    xbc, dt = g.split(g.linear(x, g.weight("in_mixer", f32, [sum(MIXED) + HEADS, HIDDEN])), [sum(MIXED), HEADS])
    conv = g.state("mixer.conv", f32, [SLOTS, sum(MIXED), TAPS - 1])
    bias = g.weight("bias", f32, [sum(MIXED)])
    xbc = g.causal_conv1d(xbc, g.weight("taps", f32, [sum(MIXED), TAPS]), conv, *index, bias, activation="silu")
    inner, b, c = g.split(xbc, MIXED)
    b, c = (g.reshape(y, dims=[GROUPS, N]) for y in (b, c))
    a, d, dt_bias = (g.weight(n, f32, [HEADS]) for n in ("A", "D", "dt_bias"))
    state = g.state("mixer.state", f32, [SLOTS, HEADS, DIM, N])
    chunks = g.ssm_metadata(index[0], chunk=8)
    y = g.ssm(g.reshape(inner, dims=[HEADS, DIM]), dt, a, b, c, d, dt_bias, state, *index, *chunks)
    g.output("mixer", g.linear(y, g.weight("out_mixer", f32, [HIDDEN, HEADS * DIM])))

    conv = g.state("net.conv", f32, [SLOTS, sum(NET), TAPS - 1])
    qkv = g.linear(x, g.weight("in_net", f32, [sum(NET), HIDDEN]))
    qkv = g.causal_conv1d(qkv, g.weight("net_taps", f32, [sum(NET), TAPS]), conv, *index, activation="silu")
    q, k, v = g.split(qkv, NET)
    q, k = (g.reshape(y, dims=[KEY_HEADS, K]) for y in (q, k))
    gates = g.split(g.linear(x, g.weight("in_gates", f32, [2 * VALUE_HEADS, HIDDEN])), [VALUE_HEADS, VALUE_HEADS])
    gate, beta = g.gdn_gating(*gates, *(g.weight(n, f32, [VALUE_HEADS]) for n in ("A_log", "net_bias")))
    state = g.state("net.state", f32, [SLOTS, VALUE_HEADS, K, V])
    o = g.gated_delta_rule(q, k, g.reshape(v, dims=[VALUE_HEADS, V]), gate, beta, state, *index, l2norm=True)
    g.output("net", g.linear(o, g.weight("out_net", f32, [HIDDEN, VALUE_HEADS * V])))
    return g


def step(exec_: Any, parts: list[Part]) -> list[bytes]:
    """What each part gives; prefills first, then single tokens."""
    lengths = [len(x) for x, _, _ in parts]
    batch = adcg.Batch.of(prefill=[n for n in lengths if n > 1], decode=lengths.count(1))
    cu = np.cumsum([0, *lengths]).astype(np.int32)
    pos, slot = (np.array([p[i] for p in parts], np.int32) for i in (1, 2))
    outputs = exec_.replay(batch, [np.concatenate([x for x, _, _ in parts]), cu, pos, slot]).outputs
    return [b"".join(outputs[n][a:b].tobytes() for n in ("mixer", "net")) for a, b in itertools.pairwise(cu)]


@pytest.mark.parametrize("options", MODES, ids=str)
def test_states_over_steps(engine: adcg.Engine, rng: np.random.Generator, options: dict[str, Any]) -> None:
    g = build(engine)
    weights = {w.name: (rng.standard_normal([d.constant for d in w.shape]) / 4).astype(np.float32) for w in g.weights}
    weights["A"] = -np.exp(weights["A"])
    prompts = [rng.standard_normal((n, HIDDEN)).astype(np.float32) for n in (20, 6)]
    first, second = prompts

    def rows(x: np.ndarray[Any, Any], parts: list[bytes]) -> np.ndarray[Any, Any]:
        both = [np.frombuffer(p, np.float32).reshape(2, -1, HIDDEN) for p in parts]
        result = np.concatenate(both, axis=1)
        assert result.shape == (2, len(x), HIDDEN) and np.isfinite(result).all()
        return result

    def states() -> dict[str, Any]:
        return {s.name: np.full([d.constant for d in s.shape], np.nan, np.float32) for s in g.states}

    alone = states()
    with g.compile(weights, alone, mode="none") as exec_:
        wants = [rows(x, step(exec_, [(x, 0, slot)])) for x, slot in ((first, 2), (second, 0))]
    kept = states()
    with g.compile(weights, kept, **options) as exec_:
        for _ in range(2):  # the second time, captured, and over slots that sequences have left behind
            a = step(exec_, [(first[:7], 0, 2)])
            both = step(exec_, [(first[7:18], 7, 2), (second[:3], 0, 0)])
            tokens = [
                step(exec_, [(first[18 + i : 19 + i], 18 + i, 2), (second[3 + i : 4 + i], 3 + i, 0)]) for i in (0, 1)
            ]
            rest = step(exec_, [(second[5:], 5, 0)])
            got = [
                rows(first, [*a, both[0], *(t[0] for t in tokens)]),
                rows(second, [both[1], *(t[1] for t in tokens), *rest]),
            ]
            for want, have in zip(wants, got, strict=True):
                np.testing.assert_array_equal(want, have)
            for name, want in alone.items():  # slots of nobody keep their NaN
                np.testing.assert_array_equal(want, kept[name])
