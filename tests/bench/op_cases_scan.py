"""bench_ops' cases of ops with a recurrent state. The peers are what transformers runs on a CPU: chunked for a prompt,
one update for a token. Without transformers they are the recurrence in torch, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from op_case import Case, Work, state, tokens, weight
from op_cases_static import normal

CHANNELS, TAPS = 4096, 4
SSM_HEADS, SSM_DIM, SSM_GROUPS, SSM_STATE = 16, 64, 2, 64
KEY_HEADS, VALUE_HEADS, DELTA_DIM = 8, 16, 128


def cases(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    yield convolution(work, rng)
    yield ssm(work, rng)
    yield delta(work, rng, gated=False)
    yield delta(work, rng, gated=True)


def reference(module: str, name: str) -> Any:
    """A function of one of transformers' models; None where it is not installed, or has it no more."""
    try:
        models = __import__(f"transformers.models.{module}.modeling_{module}", fromlist=[name])
    except ImportError:
        return None
    return getattr(models, name, None)


def convolution(work: Work, rng: np.random.Generator) -> Case:
    t, s = work.tokens, work.seqs

    def peer(torch: Any, x: Any, w: Any, kept: Any, *_: Any) -> Any:
        f = torch.nn.functional

        def call() -> Any:
            new = x.view(s, t // s, CHANNELS).mT
            if work.history:
                new = torch.cat([kept, new], -1)
                kept.copy_(new[..., 1:])
                out = f.conv1d(new, w[:, None], groups=CHANNELS)
            else:
                out = f.conv1d(new, w[:, None], padding=TAPS - 1, groups=CHANNELS)[..., :t]
                kept.copy_(new[..., 1 - TAPS :])
            return f.silu(out).mT.reshape(t, CHANNELS)

        return call

    operands = [
        tokens(normal(rng, t, CHANNELS)),
        weight(normal(rng, CHANNELS, TAPS)),
        state(normal(rng, s, CHANNELS, TAPS - 1)),
        *work.sequences(),
    ]
    size = f"{t} x {CHANNELS}, K {TAPS}, silu"
    return Case("causal_conv1d", work, size, operands, peer, "F.conv1d, F.silu", {"activation": "silu"})


def ssm(work: Work, rng: np.random.Generator) -> Case:
    t, s = work.tokens, work.seqs
    name = "mamba2_selective_state_update" if work.history else "mamba2_chunk_scan"
    theirs = reference("nemotron_h", name)

    def loop(torch: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, d: Any, kept: Any) -> Any:
        """Over [S, tokens of a sequence, ..]; b and c by head."""
        out = torch.empty_like(x)
        for i in range(x.shape[1]):
            step = dt[:, i, :, None, None]
            kept.mul_((step * a[:, None, None]).exp()).add_(step * x[:, i, :, :, None] * b[:, i, :, None])
            out[:, i] = (kept @ c[:, i, :, :, None])[..., 0] + d[:, None] * x[:, i]
        return out

    def peer(torch: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, d: Any, dt_bias: Any, kept: Any, *_: Any) -> Any:
        def update() -> Any:
            return theirs(
                kept, x, dt[..., None], a[:, None, None], b, c, D=d[:, None], dt_bias=dt_bias[:, None], dt_softplus=True
            )

        def scan() -> Any:
            more = {"D": d, "dt_bias": dt_bias, "dt_softplus": True, "return_final_states": True}
            out, last = theirs(x[None], dt[None], a, b[None], c[None], 64, **more)
            kept.copy_(last)
            return out[0]

        def by_token() -> Any:
            if not work.history:
                kept.zero_()
            step = torch.nn.functional.softplus(dt + dt_bias)
            by_head = (v.repeat_interleave(SSM_HEADS // SSM_GROUPS, 1) for v in (b, c))
            x_, b_, c_ = (v.view(s, t // s, SSM_HEADS, -1) for v in (x, *by_head))
            return loop(torch, x_, step.view(s, t // s, -1), a, b_, c_, d, kept).flatten(0, 1)

        return by_token if theirs is None else update if work.history else scan

    operands = [
        tokens(normal(rng, t, SSM_HEADS, SSM_DIM)),
        tokens(normal(rng, t, SSM_HEADS)),
        weight(-np.exp(normal(rng, SSM_HEADS))),
        tokens(normal(rng, t, SSM_GROUPS, SSM_STATE)),
        tokens(normal(rng, t, SSM_GROUPS, SSM_STATE)),
        weight(normal(rng, SSM_HEADS)),
        weight(normal(rng, SSM_HEADS)),
        state(normal(rng, s, SSM_HEADS, SSM_DIM, SSM_STATE)),
        *work.sequences(),
    ]
    size = f"{t} x {SSM_HEADS} x {SSM_DIM}, n {SSM_STATE}"
    return Case("ssm", work, size, operands, peer, f"transformers {name}" if theirs else "a loop over tokens")


def delta(work: Work, rng: np.random.Generator, *, gated: bool) -> Case:
    t, s = work.tokens, work.seqs
    name = "torch_recurrent_gated_delta_rule" if work.history else "torch_chunk_gated_delta_rule"
    theirs = reference("qwen3_5_moe", name)

    def loop(torch: Any, q: Any, k: Any, v: Any, g: Any, beta: Any, kept: Any) -> Any:
        """Over [S, tokens of a sequence, H, ..]."""
        out = torch.empty_like(v)
        for i in range(v.shape[1]):
            kept.mul_(g[:, i, :, None, None].exp())
            fresh = beta[:, i, :, None] * (v[:, i] - (k[:, i, :, None] @ kept)[..., 0, :])
            kept.add_(k[:, i, :, :, None] * fresh[:, :, None])
            out[:, i] = (q[:, i, :, None] @ kept)[..., 0, :] * DELTA_DIM**-0.5
        return out

    def peer(torch: Any, q: Any, k: Any, v: Any, *rest: Any) -> Any:
        g, (beta, kept) = (rest[0], rest[1:3]) if gated else (torch.zeros(t, VALUE_HEADS), rest[:2])

        def call() -> Any:
            by_head = (x.repeat_interleave(VALUE_HEADS // KEY_HEADS, 1) for x in (q, k))
            q_, k_, v_, g_, beta_ = (x.view(s, t // s, *x.shape[1:]) for x in (*by_head, v, g, beta))
            if theirs is None:
                return loop(torch, q_, k_, v_, g_, beta_, kept if work.history else kept.zero_()).flatten(0, 1)
            start = kept if work.history else None
            out, last = theirs(q_, k_, v_, g_, beta_, initial_state=start, output_final_state=True)
            kept.copy_(last)
            return out.flatten(0, 1)

        return call

    def unit(*shape: int) -> Any:
        x = normal(rng, *shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    gates = [tokens(-rng.random((t, VALUE_HEADS), np.float32))] if gated else []
    operands = [
        tokens(unit(t, KEY_HEADS, DELTA_DIM)),
        tokens(unit(t, KEY_HEADS, DELTA_DIM)),
        tokens(normal(rng, t, VALUE_HEADS, DELTA_DIM)),
        *gates,
        tokens(rng.random((t, VALUE_HEADS), np.float32)),
        state(normal(rng, s, VALUE_HEADS, DELTA_DIM, DELTA_DIM)),
        *work.sequences(),
    ]
    op, size = "gated_delta_rule" if gated else "delta_rule", f"{t} x {KEY_HEADS}/{VALUE_HEADS} x {DELTA_DIM}"
    peer_name = "a loop over tokens" if theirs is None else f"transformers {name}" + ("" if gated else ", g = 0")
    return Case(op, work, size, operands, peer, peer_name)
