"""bench_ops' cases of static ops, which know no sequences. Sizes are those of a model of hidden size 2048."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from op_case import Case, Peer, Work, seqs, tokens, weight

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 2048, 16, 2, 128, 32768
EXPERTS, CHOSEN, EXPERT_HIDDEN, EXPERT_INNER = 32, 4, 1024, 512


def cases(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    yield from rows(work, rng)
    yield from elements(work, rng)
    yield from choices(work, rng)
    yield from parts(work, rng)
    yield from experts(work, rng)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, np.float32)


def rows(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    """Lookups, products, norms and rotations."""
    t, h = work.tokens, HIDDEN
    x, w, bias = normal(rng, t, h), normal(rng, h), normal(rng, h)
    q, k, head = normal(rng, t, HEADS, HEAD_DIM), normal(rng, t, KV_HEADS, HEAD_DIM), normal(rng, HEAD_DIM)
    size, heads = f"{t} x {h}", f"{t} x {HEADS} x {HEAD_DIM}"
    ids = rng.integers(0, VOCABULARY, t, np.int32)

    def embedding(torch: Any, ids: Any, table: Any) -> Any:
        return lambda: torch.nn.functional.embedding(ids, table)

    yield Case("embedding", work, size, [tokens(ids), weight(normal(rng, VOCABULARY, h))], embedding, "F.embedding")

    def linear(torch: Any, x: Any, w: Any) -> Any:
        return lambda: torch.nn.functional.linear(x, w)

    square = normal(rng, h, h) / h**0.5
    yield Case("linear", work, f"{size} x {h}", [tokens(x), weight(square)], linear, "F.linear")

    def linear_silu(torch: Any, x: Any, w: Any) -> Any:
        return lambda: torch.nn.functional.silu(torch.nn.functional.linear(x, w))

    yield Case(
        "linear",
        work,
        f"{size} x {h}, silu",
        [tokens(x), weight(square)],
        linear_silu,
        "F.linear, F.silu",
        {"activation": "silu"},
    )

    def rms_norm(torch: Any, x: Any, w: Any) -> Any:
        return lambda: torch.nn.functional.rms_norm(x, w.shape, w, 1e-5)

    yield Case("rms_norm", work, size, [tokens(x), weight(w)], rms_norm, "F.rms_norm")

    def gated_norm(torch: Any, x: Any, w: Any, z: Any) -> Any:
        return lambda: torch.nn.functional.rms_norm(x * torch.nn.functional.silu(z), w.shape, w, 1e-5)

    yield Case(
        "rms_norm",
        work,
        f"{size}, gate before",
        [tokens(x), weight(w), tokens(normal(rng, t, h))],
        gated_norm,
        "F.silu, *, F.rms_norm",
        {"gate": "before"},
    )

    def layer_norm(torch: Any, x: Any, w: Any, bias: Any) -> Any:
        return lambda: torch.nn.functional.layer_norm(x, w.shape, w, bias, 1e-5)

    yield Case("layer_norm", work, size, [tokens(x), weight(w), weight(bias)], layer_norm, "F.layer_norm")

    def add_rms_norm(torch: Any, a: Any, b: Any, w: Any) -> Any:
        def call() -> Any:
            total = a + b
            return total, torch.nn.functional.rms_norm(total, w.shape, w, 1e-5)

        return call

    operands = [tokens(x), tokens(normal(rng, t, h)), weight(w)]
    yield Case("add_rms_norm", work, size, operands, add_rms_norm, "+, F.rms_norm")

    def qk_norm(torch: Any, q: Any, k: Any, q_weight: Any, k_weight: Any) -> Any:
        norm = torch.nn.functional.rms_norm
        return lambda: (norm(q, q_weight.shape, q_weight, 1e-5), norm(k, k_weight.shape, k_weight, 1e-5))

    operands = [tokens(q), tokens(k), weight(head), weight(head)]
    yield Case("qk_norm", work, f"{t} x {HEADS}, {KV_HEADS} x {HEAD_DIM}", operands, qk_norm, "F.rms_norm twice")

    def rope(torch: Any, x: Any, positions: Any) -> Any:
        frequency = 10000.0 ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)

        def call() -> Any:
            angles = torch.outer(positions.float(), frequency)
            cosine, sine = angles.cos()[:, None], angles.sin()[:, None]
            a, b = x.chunk(2, -1)
            return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)

        return call

    yield Case("rope", work, heads, [tokens(q), tokens(np.arange(t, dtype=np.int32))], rope, "cos, sin, halves")


def elements(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    """Element by element; one gate of sigmoid_mul is of a row alone, as that of a shared expert is."""
    shape = (work.tokens, 3 * HIDDEN)
    a, b, gate = normal(rng, *shape), normal(rng, *shape), normal(rng, work.tokens, 1)
    size = f"{shape[0]} x {shape[1]}"

    def of(expression: Any) -> Peer:
        return lambda torch, *operands: lambda: expression(torch.nn.functional, *operands)

    for op, peer_name, expression in (
        ("add", "+", lambda f, a, b: a + b),
        ("mul", "*", lambda f, a, b: a * b),
        ("silu_mul", "F.silu, *", lambda f, a, b: f.silu(a) * b),
        ("gelu_mul", "F.gelu, *", lambda f, a, b: f.gelu(a) * b),
        ("sigmoid_mul", "sigmoid, *", lambda f, a, b: a * b.sigmoid()),
    ):
        yield Case(op, work, size, [tokens(a), tokens(b)], of(expression), peer_name)
    yield Case(
        "sigmoid_mul",
        work,
        f"{size}, gate {shape[0]} x 1",
        [tokens(a), tokens(gate)],
        of(lambda f, a, b: a * b.sigmoid()),
        "sigmoid, *",
    )
    for op, peer_name, unary in (
        ("silu", "F.silu", lambda f, a: f.silu(a)),
        ("relu2", "F.relu, square", lambda f, a: f.relu(a).square()),
        ("sigmoid", "sigmoid", lambda f, a: a.sigmoid()),
        ("softmax", "F.softmax", lambda f, a: f.softmax(a, -1)),
    ):
        yield Case(op, work, size, [tokens(a)], of(unary), peer_name)

    def cast(torch: Any, a: Any) -> Any:
        return lambda: a.to(torch.bfloat16)

    yield Case("cast", work, f"{size}, to bfloat16", [tokens(a)], cast, "to(bfloat16)", {"dtype": "bfloat16"})

    def gdn_gating(torch: Any, a: Any, b: Any, a_log: Any, dt_bias: Any) -> Any:
        return lambda: (-a_log.exp() * torch.nn.functional.softplus(a + dt_bias), b.sigmoid())

    operands = [
        tokens(normal(rng, work.tokens, 32)),
        tokens(normal(rng, work.tokens, 32)),
        weight(normal(rng, 32)),
        weight(normal(rng, 32)),
    ]
    yield Case("gdn_gating", work, f"{work.tokens} x 32", operands, gdn_gating, "exp, F.softplus, sigmoid")


def choices(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    """The last of a step: one row a sequence."""
    logits = 2 * normal(rng, work.seqs, VOCABULARY)
    size = f"{work.seqs} x {VOCABULARY}"

    def argmax(torch: Any, logits: Any) -> Any:
        return lambda: logits.argmax(-1)

    yield Case("argmax", work, size, [seqs(logits)], argmax, "argmax")

    def sample(torch: Any, logits: Any, uniform: Any) -> Any:
        def call() -> Any:
            best, ids = (logits / 0.8).topk(50)
            p = best.softmax(-1)
            p = p * ((p.cumsum(-1) - p) < 0.95)
            cumulative = p.cumsum(-1)
            drawn = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
            return ids.gather(-1, drawn)[:, 0]

        return call

    attrs = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
    operands = [seqs(logits), seqs(rng.random(work.seqs, np.float32))]
    yield Case("sample", work, f"{size}, top 50, 0.95", operands, sample, "topk, softmax, cumsum", attrs)


def parts(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    """Parts that are copied: the caller's own buffers are no parts of anything."""
    x, y = normal(rng, work.tokens, 3 * HIDDEN), normal(rng, work.tokens, HIDDEN)

    def slice_(torch: Any, x: Any) -> Any:
        return lambda: x[:, HIDDEN : 2 * HIDDEN].contiguous()

    attrs = {"start": HIDDEN, "length": HIDDEN}
    yield Case(
        "slice", work, f"{work.tokens} x {HIDDEN} of {3 * HIDDEN}", [tokens(x)], slice_, "slice, contiguous", attrs
    )

    def concat(torch: Any, x: Any, y: Any) -> Any:
        return lambda: torch.cat([x, y], -1)

    yield Case("concat", work, f"{work.tokens} x {3 * HIDDEN}, {HIDDEN}", [tokens(x), tokens(y)], concat, "cat")


def experts(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    t, e, h, inner = work.tokens, EXPERTS, EXPERT_HIDDEN, EXPERT_INNER

    def softmax_router(torch: Any, logits: Any) -> Any:
        def call() -> Any:
            weights, indices = logits.softmax(-1).topk(8)
            indices, order = indices.sort(-1)
            weights = weights.gather(-1, order)
            return weights / weights.sum(-1, keepdim=True), indices

        return call

    logits = normal(rng, t, 128)
    attrs: dict[str, Any] = {"top_k": 8}
    yield Case(
        "moe_router", work, f"{t} x 128, softmax, 8", [tokens(logits)], softmax_router, "softmax, topk, sort", attrs
    )

    def sigmoid_router(torch: Any, logits: Any, bias: Any) -> Any:
        def call() -> Any:
            scores = logits.sigmoid()
            biased = (scores + bias).view(-1, 8, 16)
            groups = biased.topk(2)[0].sum(-1).topk(4, sorted=False)[1]
            mask = torch.zeros(biased.shape[:2], dtype=torch.bool).scatter_(1, groups, True)
            biased = biased.masked_fill(~mask[..., None], float("-inf")).flatten(1)
            indices = biased.topk(8, sorted=False)[1].sort(-1)[0]
            weights = scores.gather(-1, indices)
            return weights / (weights.sum(-1, keepdim=True) + 1e-20) * 2.5, indices

        return call

    attrs = {"scoring": "sigmoid", "top_k": 8, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5}
    operands = [tokens(logits), weight(normal(rng, 128) / 10)]
    yield Case(
        "moe_router", work, f"{t} x 128, sigmoid, 8 of 4 groups", operands, sigmoid_router, "sigmoid, topk, sort", attrs
    )

    def mixture(torch: Any, x: Any, weights: Any, indices: Any, up: Any, down: Any) -> Any:
        linear, silu = torch.nn.functional.linear, torch.nn.functional.silu

        def call() -> Any:  # as transformers' eager experts
            out = torch.zeros_like(x)
            for expert in indices.unique().tolist():
                row, place = torch.where(indices == expert)
                gate, inner = linear(x[row], up[expert]).chunk(2, -1)
                out.index_add_(0, row, linear(silu(gate) * inner, down[expert]) * weights[row, place, None])
            return out

        return call

    indices = np.sort(rng.permuted(np.tile(np.arange(e, dtype=np.int32), (t, 1)), axis=1)[:, :CHOSEN], axis=1)
    operands = [
        tokens(normal(rng, t, h)),
        tokens(rng.random((t, CHOSEN), np.float32)),
        tokens(np.ascontiguousarray(indices)),
        weight(normal(rng, e, 2 * inner, h) / h**0.5),
        weight(normal(rng, e, h, inner) / inner**0.5),
    ]
    yield Case("moe", work, f"{t} x {h}, {CHOSEN} of {e}, I {inner}", operands, mixture, "a loop over experts")
