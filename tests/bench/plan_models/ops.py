"""Ops that the families beyond Llama need, as far as planning sees them: shapes, mutation, aliasing, capture support
and scratch. They are registered through the public API and never launched.

T is the dim ``tokens``, S is ``seqs``. Scratch is what kernels of this kind keep in memory beside their outputs, as a
function of shapes; it pads, rounds and takes minima, so it is no affine function of T and S.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import adcg
from adcg.ops import InferFn

Shape = tuple[int, ...]
Scratch = Callable[[Sequence[Shape], Sequence[Shape], int, int], int]  # inputs, outputs, T, S -> bytes

BF16, F32, INT32 = 2, 4, 4  # bytes an element
MOE_TILE = 64  # rows of one expert's product: every expert's rows are padded to a multiple
DELTA_CHUNK = 64  # tokens that the chunked delta rule solves at once


@dataclass(frozen=True)
class Op:
    """An op's schema; the defaults are those of a static op without scratch."""

    inputs: int
    infer: InferFn
    outputs: int = 1
    optional: int = 0
    kind: str = "static"
    capture: str = "never"
    mutates: tuple[int, ...] = ()
    in_place: Mapping[int, int] = field(default_factory=dict)
    strided: tuple[int, ...] = ()  # inputs; and the outputs that may be written over one of them
    attrs: Mapping[str, object] = field(default_factory=dict)
    scratch: Scratch | None = None
    doc: str = ""


# ---- Shapes ------------------------------------------------------------------------------------------------------


def as_input(inputs: list[adcg.Type], attrs: dict[str, Any]) -> adcg.Type:
    return inputs[0]


def linear_f32(inputs: list[adcg.Type], attrs: dict[str, Any]) -> adcg.Type:
    return adcg.Type("float32", (inputs[0].shape[0], inputs[1].shape[0]))


def half_row(inputs: list[adcg.Type], attrs: dict[str, Any]) -> adcg.Type:
    rows, width = inputs[0].shape
    return adcg.Type(inputs[0].dtype, (rows, width.constant // 2))


def router(inputs: list[adcg.Type], attrs: dict[str, Any]) -> list[adcg.Type]:
    shape = (inputs[0].shape[0], attrs["top_k"])
    return [adcg.Type("float32", shape), adcg.Type("int32", shape)]


def chunk_metadata(inputs: list[adcg.Type], attrs: dict[str, Any]) -> list[adcg.Type]:
    chunks = adcg.Type("int32", (attrs["max_chunks"],))
    return [chunks, chunks, adcg.Type("int32", (adcg.Graph.tokens,))]


def delta_gates(inputs: list[adcg.Type], attrs: dict[str, Any]) -> list[adcg.Type]:
    return [adcg.Type("float32", inputs[0].shape)] * 2


def mla(inputs: list[adcg.Type], attrs: dict[str, Any]) -> adcg.Type:
    tokens, heads, nope = inputs[0].shape
    values = inputs[4].shape[0].constant // heads.constant - nope.constant
    return adcg.Type(inputs[0].dtype, (tokens, heads, values))


# ---- Scratch -----------------------------------------------------------------------------------------------------


def max_chunks(chunk: int, tokens: int, seqs: int) -> int:
    """The most chunks of at most ``chunk`` tokens that ``seqs`` sequences of ``tokens`` together fall into: each start
    behind the first may begin a chunk early."""
    return -(-tokens // chunk) + max(0, min(seqs, tokens) - 1)


def moe_rows(assignments: int, experts: int) -> int:
    """The most rows of all experts together, each padded to whole tiles, when ``assignments`` rows are shared out: as
    many experts as can have one row more than full tiles."""
    return (assignments + min(experts, assignments) * (MOE_TILE - 1)) // MOE_TILE * MOE_TILE


def moe_scratch(inputs: Sequence[Shape], outputs: Sequence[Shape], tokens: int, seqs: int) -> int:
    """Routed experts as one grouped product each way over rows sorted by expert. gate|up [rows, 2I] is dead once
    silu(gate) * up [rows, I] is computed, and down's [rows, H] lies over it; relu^2 works in place."""
    (_, hidden), (rows, top_k), (experts, wide, _), (_, _, inner) = inputs[0], inputs[1], inputs[3], inputs[4]
    padded = moe_rows(rows * top_k, experts)
    elements = inner + (max(wide, hidden) if wide != inner else hidden)
    sorting = padded * INT32 + padded // MOE_TILE * INT32 + (experts + 1) * INT32
    return padded * elements * BF16 + sorting


def ssm_scratch(chunk: int) -> Scratch:
    """Chunked scan: per chunk the states [H, P, n], C B^T [G, c, c], and the running sums of dt and dt A [2, H, c], in
    f32."""

    def scratch(inputs: Sequence[Shape], outputs: Sequence[Shape], tokens: int, seqs: int) -> int:
        (_, heads, width), (_, groups, n) = inputs[0], inputs[1]
        a_chunk = heads * width * n + groups * chunk * chunk + 2 * heads * chunk
        return max_chunks(chunk, tokens, seqs) * a_chunk * F32

    return scratch


def delta_scratch(inputs: Sequence[Shape], outputs: Sequence[Shape], tokens: int, seqs: int) -> int:
    """Chunked rule: per chunk the state before it [H, K, V]; per token the row of the chunk's triangular inverse [H, c]
    in f32, w [H, K], u and the corrected v [H, V]; H value heads."""
    (_, _, key), (_, heads, value) = inputs[0], inputs[2]
    a_token = heads * (DELTA_CHUNK * F32 + (key + 2 * value) * BF16)
    return tokens * a_token + max_chunks(DELTA_CHUNK, tokens, seqs) * heads * key * value * BF16


def mla_scratch(inputs: Sequence[Shape], outputs: Sequence[Shape], tokens: int, seqs: int) -> int:
    """Prefill expands ckv to k_nope | v [T, N, dn + dv]; decode, one token a sequence, keeps the absorbed query and the
    latent output [S, N, r]."""
    (_, heads, nope), (_, rank), (_, _, value) = inputs[0], inputs[2], outputs[0]
    return (tokens * heads * (nope + value) + 2 * seqs * heads * rank) * BF16


# ---- The table ---------------------------------------------------------------------------------------------------


def table(ssm_chunk: int) -> dict[str, Op]:
    """Every op by its name; ``ssm_chunk`` is the Mamba layers' chunk in tokens. Strides are taken where the kernels in
    use take them: of all that projections are cut into, but by the delta rule, whose kernels want compact tensors."""
    dynamic: dict[str, Any] = {"kind": "dynamic", "capture": "uniform_decode"}
    over_x = {0: 0}
    return {
        "models.linear_f32": Op(2, linear_f32, doc="x w^T, kept in float32"),
        "models.rope": Op(2, as_input, in_place=over_x, strided=(0,), doc="rope in the layouts that adcg.rope lacks"),
        "models.relu2": Op(1, as_input, in_place=over_x, doc="max(x, 0)^2"),
        "models.silu_mul": Op(1, half_row, doc="silu(gate) * up of one tensor gate|up"),
        "models.sigmoid_mul": Op(
            2, as_input, in_place=over_x, strided=(0, 1), doc="x * sigmoid(gate), gate as x or one a row"
        ),
        "models.gated_rms_norm": Op(3, as_input, in_place=over_x, strided=(0, 1), doc="norm of x, gated by silu(z)"),
        "models.moe_router": Op(2, router, 2, 1, attrs={"top_k": int}, doc="weights and indices of the top k"),
        "models.moe": Op(5, as_input, scratch=moe_scratch, doc="x, weights, indices, w_in, w_out: routed experts"),
        "models.ssm_metadata": Op(
            1, chunk_metadata, 3, kind="metadata", capture="always", attrs={"max_chunks": int}, doc="chunks, seq_idx"
        ),
        "models.causal_conv1d": Op(
            7, as_input, 1, 1, mutates=(2,), in_place=over_x, strided=(0,), **dynamic,
            doc="x, w, state, indices (3), bias"
        ),
        "models.ssm": Op(
            14, as_input, mutates=(7,), strided=(0, 1, 2, 3), scratch=ssm_scratch(ssm_chunk), **dynamic,
            doc="x, B, C, dt, A, D, dt_bias, state, indices (3), chunks (3)",
        ),
        "models.delta_gates": Op(4, delta_gates, 2, doc="a, b, A_log, dt_bias: beta and g"),
        "models.gated_delta_rule": Op(
            11, lambda inputs, attrs: inputs[2], mutates=(5,), scratch=delta_scratch, **dynamic,
            doc="q, k, v, beta, g, state, indices (3), chunks (2)",
        ),
        "models.mla_attention": Op(
            9, mla, mutates=(5,), strided=(0, 1, 2, 3), scratch=mla_scratch, **dynamic,
            doc="q_nope, q_pe, ckv, kpe, w, cache, indices (3)"
        ),
    }  # fmt: skip


def register(engine: adcg.Engine, ops: Mapping[str, Op]) -> None:
    """Registers the ops with an engine."""
    for name, op in ops.items():
        engine.op(
            name,
            kind=op.kind,
            capture=op.capture,
            inputs=op.inputs,
            outputs=op.outputs,
            optional_inputs=op.optional,
            mutates=op.mutates,
            in_place=op.in_place,
            strided_inputs=op.strided,
            strided_outputs=[output for output, number in op.in_place.items() if number in op.strided],
            attrs=op.attrs,
            infer=op.infer,
            workspace=_workspace(op.scratch) if op.scratch else None,
            doc=op.doc,
        )(_launch)


def _workspace(scratch: Scratch) -> Callable[[adcg.OpCall], int]:
    def workspace(call: adcg.OpCall) -> int:
        return scratch([x.shape for x in call.inputs], [y.shape for y in call.outputs], call.tokens, call.seqs)

    return workspace


def _launch(call: adcg.OpCall) -> None:
    raise NotImplementedError("an op for planning: it has shapes and scratch, and no kernel")
