"""Checks a folder of the golden format through every way of running it: make golden DIR=<folder>.

The folder holds config.json, model.safetensors and golden.safetensors with tokens.<i> [T] and logits.<i> [T, vocab],
and for one sequence perhaps intermediates (hidden.*, mixer.*, mlp.*, router_*). Every way must reproduce the golden
logits within the tolerance (1e-4), and none may differ by one bit from an eager run of the same steps. Nor from whole
prompts run eagerly, but for tokens behind a decode step of latent attention, which that computes in another way.

    ways        whole prefill, chunked prefill (1, 3, 16, 64), decode token by token, extend by random lengths, and
                mixed batches of sequences at different positions, with different neighbours, in shuffled slots
    graphs      logits of all tokens, and of each sequence's last token behind a gather
    modes       none, piecewise, full, full_decode_only, full_and_piecewise
    buckets     the default list, one bucket, a dense list, and one that is too small for most steps (the gather graph:
                the first and the last of them)
    capture     on first use, up front the largest first, up front in shuffled order

Modes and bucket lists are all combined; the capture orders, the random steps and, beyond the default list, the chunk
sizes take turns. The intermediates are compared in a graph that has them as outputs, eager and replayed, whole and in
chunks. Sequences that end in a greedy continuation of their prompt (a trained model's) are written again, token for
token. --quick runs each mode with one of the bucket lists in turn, lazily captured, with one chunk size, and behind the
gather two modes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("bindings/python", "examples/python")]

import adcg
import numpy as np
from families import load_config
from runner import Model, Piece, Runner, greedy, load_weights, prompt_length
from tabulate import tabulate
from ways import Array, Step, chunked, decode, extend, mixed, whole

__all__ = ["Golden", "Piece", "Runner", "check"]

MODES = ("none", "piecewise", "full", "full_decode_only", "full_and_piecewise")
CHUNKS = (1, 3, 16, 64)
CAPTURES = ("lazy", "largest first", "shuffled")
SEEDS = 5  # of the random ways: that many different plans, each with an eager run of its own


@dataclass
class Line:
    """What the runs of one kind came to."""

    runs: int = 0
    rows: int = 0
    error: float = 0.0  # largest |logits - golden|
    differing: int = 0  # rows that are not, bit for bit, those of eager runs
    steps: Counter[str] = field(default_factory=Counter)

    def add(self, other: Line) -> None:
        self.runs += other.runs
        self.rows += other.rows
        self.note(other.error)
        self.differing += other.differing
        self.steps += other.steps

    def note(self, error: float) -> None:
        self.error = max(self.error, error) if error == error else float("nan")


class Golden:
    """A folder, and the logits of the eager runs that later ones are compared with: of the first run, all rows; of each
    plan of steps, what every step gave."""

    def __init__(self, folder: Path) -> None:
        self.config = load_config(folder)
        self.weights = load_weights(folder, self.config)
        from safetensors import safe_open

        with safe_open(folder / "golden.safetensors", "np") as tensors:
            names = sorted(
                (name for name in tensors.keys() if name.startswith("tokens.")),  # noqa: SIM118  no dict
                key=lambda name: int(name.split(".")[1]),
            )
            self.tokens: list[Array] = [tensors.get_tensor(name) for name in names]
            self.logits: list[Array] = [tensors.get_tensor(name.replace("tokens", "logits")) for name in names]
            self.intermediates: dict[str, Array] = {
                name: tensors.get_tensor(name)
                for name in tensors.keys()  # noqa: SIM118  no dict
                if name.split(".")[0] not in ("tokens", "logits")
            }
        self.first: list[Array] = []
        self.eager: dict[tuple[str, str, int], list[Array]] = {}

    def plan(self, way: str, seed: int, model: Model, slots: int) -> Iterator[Step]:
        """The steps of a way: "whole", "chunks of 16", "extend", "decode", "mixed"."""
        if way.startswith("chunks of "):
            return chunked(self.tokens, model, int(way.split()[-1]))
        if way == "extend":
            return extend(self.tokens, model, seed)
        if way == "mixed":
            return mixed(self.tokens, model, slots, seed)
        return (whole if way == "whole" else decode)(self.tokens, model)

    def run(self, runner: Runner, steps: Iterator[Step], eager: list[Array], record: bool = False) -> Line:
        """Runs the steps of a way and compares every row of logits that comes out; ``record``: this is the eager run,
        and ``eager`` takes what each step gives."""
        line = Line(runs=1)
        last = runner.model.logits == "last"
        keep = not self.first
        found: list[Array] = [np.full_like(logits, np.nan) for logits in self.logits] if keep else []
        decoded: set[int] = set()  # sequences with a token from a decode step
        for number, step in enumerate(steps):
            logits, result = runner.step([piece for _, piece in step])
            line.steps[result.mode] += 1
            line.rows += len(logits)
            if record:
                eager.append(logits.copy())
            same = (logits.view(np.uint32) == eager[number].view(np.uint32)).all(axis=1)
            row = 0
            for i, piece in step:
                count = len(piece.tokens)
                rows = slice(piece.position + count - 1 if last else piece.position, piece.position + count)
                here = slice(row, row + (1 if last else count))
                got, row = logits[here], here.stop
                line.note(float(np.abs(got - self.logits[i][rows]).max()))
                if piece.kind == "decode":
                    decoded.add(i)
                if keep:
                    found[i][rows] = got
                elif not (self.config.decodes_in_other_bits and i in decoded):
                    same[here] &= (got.view(np.uint32) == self.first[i][rows].view(np.uint32)).all(axis=1)
            line.differing += int((~same).sum())
        if keep:
            self.first = found
        return line

    def continuations(self, lengths: Sequence[int] | None) -> list[int]:
        """Where each sequence's greedy continuation begins: as given, or as the golden logits have it; its own length
        where there is none."""
        return list(lengths or map(prompt_length, self.tokens, self.logits))


def write_greedily(golden: Golden, runner: Runner, starts: Sequence[int]) -> tuple[int, int]:
    """Writes the continuations from the prompts alone, side by side. Returns (tokens written, tokens that differ)."""
    written = wrong = 0
    trained = [i for i, tokens in enumerate(golden.tokens) if starts[i] < len(tokens)]
    for start in range(0, len(trained), runner.model.max_seqs):
        group = trained[start : start + runner.model.max_seqs]
        expected = [golden.tokens[i][starts[i] :] for i in group]
        texts = greedy(runner, [golden.tokens[i][: starts[i]].tolist() for i in group], [len(e) for e in expected])
        written += sum(map(len, expected))
        wrong += sum(int((np.array(text) != e).sum()) for text, e in zip(texts, expected, strict=True))
    return written, wrong


def compare_intermediates(golden: Golden, model: Model) -> list[list[Any]]:
    """Rows of (kind, tensors, largest error, elements that differ) over a few runs of a graph with ``trace``: indices
    must be equal, and logits the bits of the graph without."""
    found: dict[str, list[Any]] = {}
    count = len(golden.intermediates["hidden.embed"])
    number = next(i for i, tokens in enumerate(golden.tokens) if len(tokens) == count)
    tokens, bits = golden.tokens[number], {"logits": golden.first[number].view(np.uint32)}
    for mode, chunk in (("none", count), ("piecewise", 16), ("full_and_piecewise", 7)):
        with model.runner(mode=mode, batch_invariant=True) as runner:
            for start in range(0, count, chunk):
                part = tokens[start : start + chunk]
                runner.step([Piece(1, start, part, "extend" if start else "prefill")])
                for name, expected in (golden.intermediates | bits).items():
                    got, want = runner.outputs[name][: len(part)], expected[start : start + len(part)]
                    row = found.setdefault(name.split(".")[0], [set(), 0.0, 0])
                    row[0].add(name)
                    if want.dtype != np.float32:
                        row[2] += int((got.view(want.dtype) != want).sum())
                    else:
                        error = float(np.abs(got - want).max())
                        row[1] = max(row[1], error) if error == error else float("nan")
    return [[kind, len(names), error, differ] for kind, (names, error, differ) in found.items()]


def capture(runner: Runner, order: str, seed: int) -> None:
    if order == "largest first":
        runner.exec.capture()
    elif order == "shuffled":
        buckets = runner.exec.buckets()
        random.Random(seed).shuffle(buckets)
        runner.exec.capture(buckets=buckets)


def bucket_lists(max_tokens: int) -> dict[str, dict[str, list[int]]]:
    dense = [n for n in (1, 2, 3, 5, 8, 13, 17, 30, 40, 65, 100, 130) if n < max_tokens]
    return {
        "default": {},
        "one": {"buckets": [max_tokens]},
        "dense": {"buckets": [*dense, max_tokens], "seq_buckets": [1, 3, 5]},
        "small": {"buckets": [4, 16], "seq_buckets": [2]},
    }


# ---- The run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One exec: its graph, buckets, mode, how it is captured, the ways that run through it and the seed of these."""

    logits: str
    buckets: str
    mode: str
    order: str
    ways: tuple[str, ...]
    seed: int


def all_cases(lists: Sequence[str], quick: bool) -> Iterator[Case]:
    turn = 0
    for logits, (number, name), mode in itertools.product(("all", "last"), enumerate(lists), MODES):
        # Behind the gather the sequence buckets matter, and two lists of them are enough.
        if logits == "last" and name not in ("default", "small"):
            continue
        if quick and (MODES.index(mode) % len(lists) != number or (logits == "last" and mode == "none")):
            continue
        sizes = CHUNKS if name == "default" and logits == "all" and not quick else (CHUNKS[turn % len(CHUNKS)],)
        orders = CAPTURES if name == "default" and mode == "full_and_piecewise" else (CAPTURES[turn % 3],)
        for repeat, order in enumerate(orders[:1] if quick else orders):
            more = () if repeat else (*(f"chunks of {n}" for n in sizes), "extend")
            yield Case(logits, name, mode, order, ("whole", *more, "decode", "mixed"), (turn + repeat) % SEEDS)
        turn += 1


def check(
    folder: Path,
    tolerance: float,
    lengths: Sequence[int] | None,
    threads: int,
    quick: bool = False,
    device: str = "host",
) -> list[str]:
    """Runs everything and prints the tables; returns what is wrong, a line each."""
    start = time.perf_counter()
    golden = Golden(folder)
    counts = [len(t) for t in golden.tokens]
    max_tokens, max_seqs = max(*counts, 64), min(6, len(counts))
    slots = max_seqs + 3
    starts = golden.continuations(lengths)
    ways: dict[str, Line] = {}
    combinations: dict[tuple[str, str, str], Line] = {}
    orders: dict[str, Line] = {}
    wrong: list[str] = []
    written: list[list[Any]] = []
    lists = bucket_lists(max_tokens)

    with adcg.Engine(device, threads=threads) as engine:
        sizes = {"max_tokens": max_tokens, "max_seqs": max_seqs, "max_len": max(counts), "slots": slots}

        def build(**options: Any) -> Model:
            return Model(engine, golden.config, golden.weights, **sizes, **options)

        models = {logits: build(logits=logits) for logits in ("all", "last")}
        always = json.loads(models["last"].graph.plan("json", mode="none"))["capture_support"] == "always"
        eagers = {logits: model.runner(mode="none", batch_invariant=True) for logits, model in models.items()}
        for case in all_cases(tuple(lists), quick):
            model = models[case.logits]
            with model.runner(mode=case.mode, batch_invariant=True, **lists[case.buckets]) as runner:
                capture(runner, case.order, case.seed)
                total = Line()
                for way in case.ways:
                    key = (case.logits, way, case.seed if way in ("extend", "mixed") else 0)
                    if key not in golden.eager:
                        golden.eager[key] = []
                        plan = golden.plan(way, case.seed, model, slots)
                        golden.run(eagers[case.logits], plan, golden.eager[key], record=True)
                    line = golden.run(runner, golden.plan(way, case.seed, model, slots), golden.eager[key])
                    ways.setdefault(way, Line()).add(line)
                    total.add(line)
                combinations.setdefault((case.logits, case.mode, case.buckets), Line()).add(total)
                order = case.order if case.mode != "none" else "nothing to capture"
                orders.setdefault(order, Line()).add(total)
        for mode in MODES[1:]:
            with models["last"].runner(mode=mode, batch_invariant=True) as runner:
                count, differ = write_greedily(golden, runner, starts)
            if count:
                written.append([mode, count, differ])
            if differ:
                wrong.append(f"greedy, {mode}: {differ} of {count} tokens differ")
        intermediates = compare_intermediates(golden, build(logits="all", trace=True)) if golden.intermediates else []

    def table(title: str, head: Sequence[str], lines: dict[Any, Line], with_steps: bool) -> None:
        rows = []
        for key, line in lines.items():
            names = list(key) if isinstance(key, tuple) else [key]
            label = " ".join(names)
            bits = "equal" if not line.differing else f"{line.differing} differ"
            ran = [", ".join(f"{mode} {count}" for mode, count in sorted(line.steps.items()))] if with_steps else []
            rows.append([*names, line.runs, line.rows, f"{line.error:.2e}", bits, *ran])
            if not line.error <= tolerance:
                wrong.append(f"{label}: error {line.error:.2e} is above {tolerance:g}")
            if line.differing:
                wrong.append(f"{label}: {line.differing} of {line.rows} rows differ from an eager run's")
        print(f"\n{title}")
        columns = [*head, "runs", "rows", "largest error", "bits", *(["steps"] if with_steps else [])]
        print(tabulate(rows, headers=columns, intfmt=",", disable_numparse=[len(head) + 2]))

    print(f"{folder}: {len(counts)} sequences of {min(counts)} to {max(counts)} tokens; first run: whole, eager")
    table("ways", ["way"], ways, False)
    table("modes and buckets", ["logits", "mode", "buckets"], combinations, True)
    table("capture order", ["order"], orders, False)
    if intermediates:
        print("\nintermediates")
        print(tabulate(intermediates, headers=["kind", "tensors", "largest error", "differ"], floatfmt=".2e"))
    for kind, _, error, differ in intermediates:
        if not error <= tolerance or differ:
            wrong.append(f"{kind}: error {error:.2e}, {differ} differ")
    if written:
        print("\ngreedy continuations")
        print(tabulate(written, headers=["mode", "tokens", "differ"]))
    for (logits, mode, name), line in combinations.items():
        # That a mode was asked for says little: it must also have run. Where full graphs serve every batch nothing is
        # left for pieces.
        both = ("full",) if always else ("full", "piecewise")
        expected = {"piecewise": ("piecewise",), "full_and_piecewise": both, "none": ()}.get(mode, ("full",))
        for ran in expected:
            if not line.steps[ran]:
                wrong.append(f"{logits} {mode} {name}: no step ran as {ran}")
        if mode == "none" and set(line.steps) != {"eager"}:
            wrong.append(f"{logits} {mode} {name}: not all steps ran eagerly: {dict(line.steps)}")
    print(f"\n{time.perf_counter() - start:.1f} s")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks a golden folder through every way of running it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest |logits - golden| (default: 1e-4)")
    parser.add_argument(
        "--greedy", metavar="N,N,...", help="prompt lengths of greedy continuations (default: detected)"
    )
    parser.add_argument("--device", default="host", help="host, or cuda:0 and so on")
    parser.add_argument("--threads", type=int, default=0, help="of the host device's kernels; 0: one a core")
    parser.add_argument("--quick", action="store_true", help="a part of the combinations, see above")
    args = parser.parse_args(arguments)
    lengths = [int(n) for n in args.greedy.split(",")] if args.greedy else None
    try:
        wrong = check(args.folder, args.tolerance, lengths, args.threads, args.quick, args.device)
    except (ValueError, OSError, adcg.AdcgError) as error:
        print(f"golden: {args.folder}: {error}", file=sys.stderr)
        return 2
    for line in wrong[:12]:
        print(f"golden: {line}", file=sys.stderr)
    if len(wrong) > 12:
        print(f"golden: and {len(wrong) - 12} more", file=sys.stderr)
    print("golden: " + ("FAILED" if wrong else "all within the tolerance, no bit differs"))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
