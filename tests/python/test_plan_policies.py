"""Policies of giving memory back, on plans worked by hand: a chain of segments s and dynamic ops d.

    x -> s0 -> q0 -> d1 -> o1 -> s2 (two nodes) -> m, q2 -> d3 -> o3 -> s4 -> y

Node i runs at time i + 1. Every tensor between has 8 KiB a token: 16 MiB at 2,048 tokens, 8 MiB at 1,024. y is the
output, which lies in the caller's buffer.
"""

from __future__ import annotations

from typing import Any

import pytest
from plan_models import policies
from plan_models.ops import Op, as_input
from plan_models.policies import Program, program
from plan_models.torch_pool import MIB

BUCKETS = [1024, 2048]
INPUT = 100  # bytes


def node(op: str, inputs: str, outputs: str, workspace: int = 0, *, runs: bool = True) -> dict[str, Any]:
    return {
        "name": f"{op}#{outputs}",
        "op": op,
        "inputs": inputs.split(),
        "outputs": outputs.split(),
        "workspace_bytes": workspace,
        "runs": runs,
    }


def block(kind: str, values: str, first: int, last: int, size: int = 0) -> dict[str, Any]:
    return {"kind": kind, "values": values.split(), "first": first, "last": last, "bytes": size}


def plan(
    nodes: list[dict[str, Any]], blocks: list[dict[str, Any]], segments: list[tuple[int, int]], lasts: dict[str, int]
) -> dict[str, Any]:
    """What the policies read of a plan. Nodes outside of ``segments`` are dynamic; ``lasts``: the values' last uses."""
    partitions = []
    for i in range(len(nodes)):
        inside = [segment for segment in segments if segment[0] <= i < segment[1]]
        if inside and i > inside[0][0]:
            continue
        first, end = inside[0] if inside else (i, i + 1)
        partitions.append({"kind": "token segment" if inside else "dynamic op", "first": first, "end": end})
    values = [{"name": "x", "type": "int32[tokens]", "first": 0, "last": 1}]
    for i, item in enumerate(nodes):
        for name in item["outputs"]:
            values.append({"name": name, "type": "bfloat16[tokens, 4096]", "first": i + 1, "last": lasts[name]})
    return {
        "nodes": nodes,
        "partitions": partitions,
        "values": values,
        "blocks": [*blocks, block("input staging", "x", 0, 1, INPUT), block("output staging", "y", 6, 7, 1 << 30)],
        "limits": {"max_tokens": 2048, "max_seqs": 4},
    }


CHAIN = [
    node("s", "x", "q0"),
    node("d", "q0", "o1"),
    node("s", "o1", "m"),
    node("s", "m", "q2"),
    node("d", "q2", "o3"),
    node("s", "o3", "y"),
]
SEGMENTS = [(0, 1), (2, 4), (5, 6)]
LASTS = {"q0": 2, "o1": 3, "m": 4, "q2": 5, "o3": 6, "y": 7}


@pytest.fixture
def chain() -> Program:
    blocks = [block("activation", name, i + 1, LASTS[name]) for i, name in enumerate(("q0", "o1", "m", "q2", "o3"))]
    return program(plan(CHAIN, blocks, SEGMENTS, LASTS), {})


def test_tensors_of_a_plan(chain: Program) -> None:
    tensors = {t.name: t for t in chain.tensors}
    assert list(tensors) == ["q0", "o1", "m", "q2", "o3"]  # neither x, which has a buffer, nor y, which is the caller's
    assert (chain.inputs, chain.max_seqs) == (INPUT, 4)
    assert tensors["q0"].size(2048, 4) == 16 * MIB
    assert [t.name for t in chain.tensors if t.dynamic] == ["o1", "o3"]
    assert [t.name for t in chain.tensors if t.crosses] == ["q0", "q2"]  # m stays within its segment
    # o1 is last used at 3, but s2's caller holds it until s2's second node has run.
    assert (tensors["o1"].last, tensors["o1"].returned) == (3, 4)
    assert (tensors["m"].last, tensors["m"].returned) == (4, 4)


def test_freed_at_last_use(chain: Program) -> None:
    """At 2,048: q0, o1 take 16 each; at 3 q0 is free, so m takes it; at 4 o1 is still held and m read: q2 takes 16
    more, 48. Then o3 takes one that is free. At 1,024 everything fits into halves of what is there."""
    assert policies.freed_at_last_use(chain, BUCKETS) == 48 * MIB + INPUT


def test_dynamic_outputs_held(chain: Program) -> None:
    """At 2,048 as before until 4: o1 stays, m and q2 are there: 48. At 5 m's block is free, and o3 takes it: 48 still,
    o1 and o3 held to the end."""
    assert policies.dynamic_outputs_held(chain, [2048]) == 48 * MIB + INPUT
    # A longer chain shows the growth: ops d5 and d7 with one node between; o1, o3, o5 are held when q6 and o7 are live.
    nodes = [*CHAIN[:5], node("s", "o3", "q4"), node("d", "q4", "o5"), node("s", "o5", "q6"), node("d", "q6", "o7")]
    nodes.append(node("s", "o7", "y"))
    lasts = {"q0": 2, "o1": 3, "m": 4, "q2": 5, "o3": 6, "q4": 7, "o5": 8, "q6": 9, "o7": 10, "y": 11}
    names = list(lasts)[:-1]
    blocks = [block("activation", name, i + 1, lasts[name]) for i, name in enumerate(names)]
    longer = program(plan(nodes, blocks, [(0, 1), (2, 4), (5, 6), (7, 8), (9, 10)], lasts), {})
    # Held at 9: o1, o3, o5, then q6 and o7: 5 of 16 MiB. Freed at last use: 3 as above.
    assert policies.dynamic_outputs_held(longer, [2048]) == 80 * MIB + INPUT
    assert policies.dynamic_outputs_held(longer, BUCKETS) == 80 * MIB + INPUT  # 1,024 reuses what 2,048 gave back
    assert policies.freed_at_last_use(longer, BUCKETS) == 48 * MIB + INPUT


def test_strong_references(chain: Program) -> None:
    """q0, o1, q2, o3 stay for ever, m comes and goes. At 2,048: q0, o1, m, q2 are 64; o3 takes m's. 64.
    At 1,024, 8 MiB each: all is held, so q0 opens a segment of 20 (requests below 10 MiB do) and leaves 12 of it; o1
    takes 8 of those and leaves 4; m opens a segment of 20 and leaves 12, q2 takes 8 of those, o3 takes m's. 104."""
    assert policies.strong_references(chain, [2048]) == 64 * MIB + INPUT
    assert policies.strong_references(chain, BUCKETS) == 104 * MIB + INPUT


def test_buckets_times_sum(chain: Program) -> None:
    """Two tensors are live at most, with exact lifetimes: 32 MiB at 2,048, 16 at 1,024."""
    assert policies.buckets_times_sum(chain, BUCKETS) == 48 * MIB + INPUT
    assert policies.buckets_times_sum(chain, [2048]) == 32 * MIB + INPUT


def test_in_place_or_new_memory() -> None:
    """m2 = f(m1) in place, with a view v between: one block of 16 MiB; without in-place updates m1 with its view, and
    m2, are two, live together while f runs."""
    view = node("adcg.reshape", "m1", "v", runs=False)
    nodes = [node("s", "x", "m1"), view, node("s", "v", "m2"), node("d", "m2", "o")]
    lasts = {"m1": 3, "v": 3, "m2": 4, "o": 5}
    made = plan(nodes, [block("activation", "m1 v m2", 1, 4), block("activation", "o", 4, 5)], [(0, 3)], lasts)
    shared = program(made, {})
    assert [(t.name, t.first, t.last) for t in shared.tensors] == [("m1", 1, 4), ("o", 4, 5)]
    apart = program(made, {}, in_place=False)
    assert [(t.name, t.first, t.last) for t in apart.tensors] == [("m1", 1, 3), ("m2", 3, 4), ("o", 4, 5)]
    assert policies.peak(shared.tensors, 1, 1) == policies.peak(apart.tensors, 1, 1) == 2 * 8192


def test_scratch_is_asked_at_each_size() -> None:
    """Scratch of 3 tokens a tile of 4, 1 MiB each: 1 tile at 4 tokens, 2 at 5; sequences are no more than tokens."""
    asked = []

    def scratch(inputs: Any, outputs: Any, tokens: int, seqs: int) -> int:
        asked.append((inputs[0], outputs[0], tokens, seqs))
        return -(-tokens // 4) * MIB

    nodes = [node("f", "x", "y", workspace=1)]
    made = program(plan(nodes, [], [(0, 1)], {"y": 2}), {"f": Op(1, as_input, scratch=scratch)})
    assert policies.buckets_times_sum(made, [2, 5]) == (1 + 2) * MIB + INPUT
    assert asked == [((2,), (2, 4096), 2, 2), ((5,), (5, 4096), 5, 4)]


def test_dims_of_types() -> None:
    assert policies.dim("tokens") == (1, 0, 0)
    assert policies.dim("2*tokens+3*seqs-1") == (2, 3, -1)
    assert policies.dim("seqs+1") == (0, 1, 1)
    assert policies.dim("4096") == (0, 0, 4096)
    assert policies.Type.parse("float32[2*tokens+1, 3, 8]").bytes(10, 1) == 21 * 3 * 8 * 4
