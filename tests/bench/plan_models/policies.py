"""What other policies of giving memory back would hold for a graph, from its plan's JSON.

A policy sees the same tensors with the same lifetimes, views and in-place updates as this library's plan: only when
and how memory is given back differs, so that published engines are modelled at their best. The first three capture one
graph a segment, all segments and buckets over one pool, the largest bucket first; what a segment is given stays
referenced by its caller, the split graph, until the segment returns. Inputs are in buffers of their own, of the largest
bucket's size; the outputs' staging, which this library's arena has room for, is left out. Driver memory (graphs,
executables) is not counted anywhere.

pool, "freed at last use": vLLM's piecewise mode. A segment's outputs lie in the graphs' shared pool, and what replays
    them keeps weak references alone (vllm/compilation/cuda_graph.py, since pull request 9724); attention writes into a
    tensor of the segment before it. SGLang's (srt/compilation/cuda_piecewise_backend.py) does the same.
held, "dynamic outputs held": TensorRT-LLM's AutoDeploy since pull request 13497. The buffer of a dynamic op's output is
    allocated while the segment before it is captured, and kept until the whole bucket is, so that no later segment can
    be given its memory; the next bucket reuses it. All else is freed at last use. (From pull request 11993 until then
    only a weak reference was left of it during capture, and a later segment could be given it while it was still to be
    read: less memory, for wrong answers. That is not counted here.)
strong, "strong references": a bucket's entry refers to every segment's outputs, and to the dynamic ops' that a segment
    reads, for as long as it can be replayed; nothing of it is shared between buckets. vLLM before pull request 9724;
    AutoDeploy's first runner (compile/piecewise_runner.py before 11993).
summed, "buckets times sum": each bucket has memory of its own, as with a private pool for each. Counted at its best, as
    if each were packed without a gap: the peak of liveness at the bucket's size, added up over the buckets. The stable
    buffers proposed for AutoDeploy (issue 13131) cost the sum of what its partitions return, for each bucket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .ops import Op
from .torch_pool import Block, Pool

ELEMENT = {"float32": 4, "int32": 4, "bfloat16": 2, "float16": 2}
ALIGNMENT = 64  # of this library's arena


@dataclass(frozen=True)
class Tensor:
    """Memory that some policy gives back at some time. Node i runs at time i + 1; all times are inclusive.

    ``dynamic``: an op between the segments writes it. ``crosses``: a segment writes it and another partition reads it.
    """

    name: str
    size: Callable[[int, int], int]  # tokens, seqs -> bytes
    first: int
    last: int  # its last use
    returned: int  # the end of the last partition that is given it; ``last`` if none is
    dynamic: bool = False
    crosses: bool = False


@dataclass(frozen=True)
class Program:
    """A graph's tensors in order of ``first``, and the inputs' buffers in bytes at the largest size."""

    tensors: Sequence[Tensor]
    inputs: int
    max_seqs: int


# ---- Sizes -------------------------------------------------------------------------------------------------------

_TERM = re.compile(r"([+-]?\d+)\*?(tokens|seqs)?|([+-]?)(tokens|seqs)")


def dim(text: str) -> tuple[int, int, int]:
    """``"2*tokens+seqs-1"`` is (2, 1, -1): factors of tokens and seqs, and the constant."""
    factors = {"tokens": 0, "seqs": 0, "": 0}
    for match in _TERM.finditer(text):
        factor, name, sign, bare = match.groups()
        factors[name or bare or ""] += int(factor) if factor else int(sign + "1")
    return factors["tokens"], factors["seqs"], factors[""]


@dataclass(frozen=True)
class Type:
    """A type of the plan's JSON, ``"bfloat16[tokens, 4096]"``."""

    element: int
    rows: tuple[int, int, int]
    row: tuple[int, ...]

    @staticmethod
    def parse(text: str) -> Type:
        dtype, dims = text.rstrip("]").split("[")
        first, *rest = dims.split(", ")
        return Type(ELEMENT[dtype], dim(first), tuple(int(extent) for extent in rest))

    def shape(self, tokens: int, seqs: int) -> tuple[int, ...]:
        a, b, c = self.rows
        return (a * tokens + b * seqs + c, *self.row)

    def bytes(self, tokens: int, seqs: int) -> int:
        count = self.element
        for extent in self.shape(tokens, seqs):
            count *= extent
        return count


def scratch_of(op: Op, inputs: Sequence[Type], outputs: Sequence[Type]) -> Callable[[int, int], int]:
    """A node's scratch at any size: the plan's JSON has the most of all sizes alone."""
    known: dict[tuple[int, int], int] = {}

    def size(tokens: int, seqs: int) -> int:
        if (tokens, seqs) not in known:
            assert op.scratch is not None
            shapes = [[t.shape(tokens, seqs) for t in types] for types in (inputs, outputs)]
            known[tokens, seqs] = op.scratch(shapes[0], shapes[1], tokens, seqs)
        return known[tokens, seqs]

    return size


# ---- A plan's tensors --------------------------------------------------------------------------------------------


def program(plan: Mapping[str, Any], ops: Mapping[str, Op], *, in_place: bool = True) -> Program:
    """The tensors of a plan. Without ``in_place`` every op but a view writes memory of its own, as it does in an engine
    whose residual additions and norms return new tensors."""
    nodes, values = plan["nodes"], {value["name"]: value for value in plan["values"]}
    types = {name: Type.parse(value["type"]) for name, value in values.items()}
    partition = {i: k for k, part in enumerate(plan["partitions"]) for i in range(part["first"], part["end"])}
    kinds = [part["kind"] for part in plan["partitions"]]
    ends = [part["end"] for part in plan["partitions"]]  # nodes [first, end): the time of the last one is end
    writer = {name: i for i, node in enumerate(nodes) for name in node["outputs"]}
    readers: dict[str, set[int]] = {}
    for i, node in enumerate(nodes):
        for name in node["inputs"]:
            readers.setdefault(name, set()).add(partition[i])

    groups: list[tuple[list[str], int, int]] = []
    for block in plan["blocks"]:
        if block["kind"] == "activation":
            groups.append((block["values"], block["first"], block["last"]))
    if not in_place:
        groups = _without_in_place(groups, nodes, values, writer)

    tensors = []
    for names, first, last in groups:
        dynamic, crosses, returned = False, False, last
        for name in names:
            home = partition[writer[name]]
            given = readers.get(name, set()) - {home}
            dynamic |= kinds[home] == "dynamic op"
            crosses |= kinds[home] != "dynamic op" and bool(given)
            returned = max([returned, *(ends[k] for k in given)])
        tensors.append(Tensor(names[0], types[names[0]].bytes, first, last, returned, dynamic, crosses))
    sizes: dict[tuple[str, ...], Callable[[int, int], int]] = {}
    for i, node in enumerate(nodes):
        if node["workspace_bytes"]:
            arguments = ([types[name] for name in node[side]] for side in ("inputs", "outputs"))
            key = (node["op"], *(values[name]["type"] for name in node["inputs"] + node["outputs"]))
            size = sizes.setdefault(key, scratch_of(ops[node["op"]], *arguments))
            tensors.append(Tensor(f"{node['name']}, scratch", size, i + 1, i + 1, i + 1))
    limits = plan["limits"]
    inputs = sum(block["bytes"] for block in plan["blocks"] if block["kind"] == "input staging")
    return Program(sorted(tensors, key=lambda t: t.first), inputs, limits["max_seqs"])


def _without_in_place(
    groups: Iterable[tuple[list[str], int, int]],
    nodes: Sequence[Mapping[str, Any]],
    values: Mapping[str, Mapping[str, Any]],
    writer: Mapping[str, int],
) -> list[tuple[list[str], int, int]]:
    """Groups of values that lie in one memory, cut into a value and its views."""
    out = []
    for names, _, _ in groups:
        roots: dict[str, list[str]] = {}
        root_of: dict[str, str] = {}
        for name in names:
            node = nodes[writer[name]]
            root_of[name] = root_of[node["inputs"][0]] if not node["runs"] else name
            roots.setdefault(root_of[name], []).append(name)
        out += [(together, values[root]["first"], values[root]["last"]) for root, together in roots.items()]
    return out


# ---- Policies ----------------------------------------------------------------------------------------------------


def peak(tensors: Iterable[Tensor], tokens: int, seqs: int) -> int:
    """The most bytes that are live at one time, each tensor rounded up to the arena's alignment."""
    change: dict[int, int] = {}
    for tensor in tensors:
        size = -(-tensor.size(tokens, seqs) // ALIGNMENT) * ALIGNMENT
        change[tensor.first] = change.get(tensor.first, 0) + size
        change[tensor.last + 1] = change.get(tensor.last + 1, 0) - size
    live = most = 0
    for time in sorted(change):
        live += change[time]
        most = max(most, live)
    return most


def captured(
    program: Program,
    buckets: Iterable[int],
    *,
    until_captured: Callable[[Tensor], bool] = lambda tensor: False,
    forever: Callable[[Tensor], bool] = lambda tensor: False,
) -> int:
    """Bytes that a caching pool has reserved once every bucket is captured over it, and the inputs' buffers.

    Tensors are given back when the last partition that is given them returns; those of ``until_captured`` when their
    bucket is captured, those of ``forever`` never.
    """
    begin: dict[int, list[int]] = {}
    end: dict[int, list[int]] = {}
    for k, tensor in enumerate(program.tensors):
        begin.setdefault(tensor.first, []).append(k)
        if not forever(tensor) and not until_captured(tensor):
            end.setdefault(tensor.returned, []).append(k)
    late = [k for k, tensor in enumerate(program.tensors) if until_captured(tensor) and not forever(tensor)]
    times = sorted({*begin, *end})
    pool = Pool()
    for tokens in sorted(buckets, reverse=True):
        seqs = min(tokens, program.max_seqs)
        blocks: dict[int, Block] = {}
        for time in times:
            for k in begin.get(time, ()):
                blocks[k] = pool.allocate(program.tensors[k].size(tokens, seqs))
            for k in end.get(time, ()):
                pool.release(blocks[k])
        for k in late:
            pool.release(blocks[k])
    return pool.reserved + program.inputs


def freed_at_last_use(program: Program, buckets: Iterable[int]) -> int:
    return captured(program, buckets)


def dynamic_outputs_held(program: Program, buckets: Iterable[int]) -> int:
    return captured(program, buckets, until_captured=lambda tensor: tensor.dynamic)


def strong_references(program: Program, buckets: Iterable[int]) -> int:
    return captured(program, buckets, forever=lambda tensor: tensor.dynamic or tensor.crosses)


def buckets_times_sum(program: Program, buckets: Iterable[int]) -> int:
    sizes = ((tokens, min(tokens, program.max_seqs)) for tokens in buckets)
    return sum(peak(program.tensors, *size) for size in sizes) + program.inputs


POLICIES: dict[str, Callable[[Program, Iterable[int]], int]] = {
    "pool": freed_at_last_use,
    "held": dynamic_outputs_held,
    "strong": strong_references,
    "summed": buckets_times_sum,
}
