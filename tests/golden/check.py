"""Checks a folder of the golden format through every way of running it: make golden DIR=<folder>.

The folder holds config.json, model.safetensors and golden.safetensors with tokens.<i> [T] and logits.<i> [T, vocab].
Every way must reproduce the golden logits within the tolerance (1e-4), and none may differ from the first by one bit:

    ways        whole prefill, chunked prefill (1, 3, 16, 64), decode token by token, extend by random lengths, and
                mixed batches of sequences at different positions, with different neighbours, in shuffled slots
    graphs      logits of all tokens, and of each sequence's last token behind a gather
    modes       none, piecewise, full, full_decode_only, full_and_piecewise
    buckets     the default list, one bucket, a dense list, and one that is too small for most steps (the gather graph:
                the first and the last of them)
    capture     on first use, up front the largest first, up front in shuffled order

Modes and bucket lists are all combined; the capture orders and, beyond the default list, the chunk sizes take turns.
Sequences that end in a greedy continuation of their prompt (a trained model's) are written again, token for token.
"""

from __future__ import annotations

import argparse
import itertools
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
from llama import Array, LlamaConfig, Model, Piece, Runner, load_weights
from tabulate import tabulate

MODES = ("none", "piecewise", "full", "full_decode_only", "full_and_piecewise")
CHUNKS = (1, 3, 16, 64)
CAPTURES = ("lazy", "largest first", "shuffled")
SHORTEST_CONTINUATION = 16  # random tokens are not the argmax of random logits this often in a row

Step = list[tuple[int, Piece]]  # (sequence, its piece), in batch order


# ---- Ways: the steps that feed sequences through slots -----------------------------------------------------------


def groups(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Sequences of similar length together, so that they decode side by side for long."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def whole(tokens: list[Array], model: Model) -> Iterator[Step]:
    for i, ids in enumerate(tokens):
        yield [(i, Piece(i % model.max_seqs, 0, ids, "prefill"))]


def chunked(tokens: list[Array], model: Model, size: int) -> Iterator[Step]:
    """Chunks of several sequences beside each other."""
    for group in groups([len(t) for t in tokens], max(1, min(model.max_seqs, model.max_tokens // size))):
        for position in itertools.count(0, size):
            step = [
                (i, Piece(slot, position, tokens[i][position : position + size], "extend" if position else "prefill"))
                for slot, i in enumerate(group)
                if position < len(tokens[i])
            ]
            if not step:
                break
            yield step


def decode(tokens: list[Array], model: Model) -> Iterator[Step]:
    """A prompt of one token, then one token a step; the batch shrinks as sequences end."""
    for group in groups([len(t) for t in tokens], model.max_seqs):
        for position in range(max(len(tokens[i]) for i in group)):
            kind = "decode" if position else "prefill"
            yield [
                (i, Piece(slot, position, tokens[i][position : position + 1], kind))
                for slot, i in enumerate(group)
                if position < len(tokens[i])
            ]


def extend(tokens: list[Array], model: Model, seed: int) -> Iterator[Step]:
    """Half a prompt, then random lengths, one sequence at a time."""
    rng = random.Random(seed)
    for i, ids in enumerate(tokens):
        position = (len(ids) + 1) // 2
        yield [(i, Piece(0, 0, ids[:position], "prefill"))]
        while position < len(ids):
            count = rng.randint(1, 11)
            yield [(i, Piece(0, position, ids[position : position + count], "extend"))]
            position += count


def mixed(tokens: list[Array], model: Model, slots: int, seed: int) -> Iterator[Step]:
    """Random subsets of the running sequences, random lengths; slots are shuffled and reused."""
    rng = random.Random(seed)
    waiting = rng.sample(range(len(tokens)), len(tokens))
    free = rng.sample(range(slots), slots)
    running: dict[int, tuple[int, int]] = {}  # sequence -> slot, position
    order = {"prefill": 0, "extend": 1, "decode": 2}
    while waiting or running:
        while waiting and free and (not running or rng.random() < 0.5):
            running[waiting.pop()] = (free.pop(), 0)
        left = rng.choice((model.max_tokens, 64, 17, model.max_seqs))
        step: Step = []
        for i in rng.sample(list(running), rng.randint(1, min(len(running), model.max_seqs))):
            slot, position = running[i]
            count = min(rng.choice((1, 1, 1, 2, 5, 30, 64)), len(tokens[i]) - position, left)
            if count == 0:
                continue
            kind = "prefill" if position == 0 else "decode" if count == 1 and rng.random() < 0.8 else "extend"
            step.append((i, Piece(slot, position, tokens[i][position : position + count], kind)))
            left -= count
        if not step:
            continue
        step.sort(key=lambda item: order[item[1].kind])
        yield step
        for i, piece in step:
            slot, position = running[i]
            running[i] = (slot, position + len(piece.tokens))
            if running[i][1] == len(tokens[i]):
                free.append(slot)
                rng.shuffle(free)
                del running[i]


# ---- Comparing ---------------------------------------------------------------------------------------------------


@dataclass
class Line:
    """What the runs of one kind came to."""

    runs: int = 0
    rows: int = 0
    error: float = 0.0  # largest |logits - golden|
    differing: int = 0  # rows that are not, bit for bit, those of the first run
    steps: Counter[str] = field(default_factory=Counter)

    def add(self, other: Line) -> None:
        self.runs += other.runs
        self.rows += other.rows
        self.error = max(self.error, other.error) if other.error == other.error else float("nan")
        self.differing += other.differing
        self.steps += other.steps


class Golden:
    """A folder, and the logits of the first run of it: what every later run is compared with."""

    def __init__(self, folder: Path) -> None:
        self.config = LlamaConfig.from_dir(folder)
        self.weights = load_weights(folder, self.config)
        from safetensors import safe_open

        with safe_open(folder / "golden.safetensors", "np") as tensors:
            names = sorted(
                (name for name in tensors.keys() if name.startswith("tokens.")),  # noqa: SIM118  no dict
                key=lambda name: int(name.split(".")[1]),
            )
            self.tokens: list[Array] = [tensors.get_tensor(name) for name in names]
            self.logits: list[Array] = [tensors.get_tensor(name.replace("tokens", "logits")) for name in names]
        self.first: list[Array] = []

    def run(self, runner: Runner, steps: Iterator[Step]) -> Line:
        """Runs the steps of a way and compares every row of logits that comes out."""
        line = Line(runs=1)
        last = runner.model.logits == "last"
        keep = not self.first
        found: list[Array] = [np.full_like(logits, np.nan) for logits in self.logits] if keep else []
        for step in steps:
            logits, result = runner.step([piece for _, piece in step])
            line.steps[result.mode] += 1
            row = 0
            for i, piece in step:
                count = len(piece.tokens)
                rows = slice(piece.position + count - 1 if last else piece.position, piece.position + count)
                got = logits[row : row + (1 if last else count)]
                row += len(got)
                error = float(np.abs(got - self.logits[i][rows]).max())
                line.error = max(line.error, error) if error == error else float("nan")
                line.rows += len(got)
                if keep:
                    found[i][rows] = got
                else:
                    same = (got.view(np.uint32) == self.first[i][rows].view(np.uint32)).all(axis=1)
                    line.differing += int((~same).sum())
        if keep:
            self.first = found
        return line

    def continuations(self, lengths: Sequence[int] | None) -> list[int]:
        """Where each sequence's greedy continuation begins: as given, or where every later token is the argmax of the
        golden logits before it. Its own length where there is none."""
        if lengths:
            return list(lengths)
        starts = []
        for tokens, logits in zip(self.tokens, self.logits, strict=True):
            start = len(tokens)
            while start > 1 and int(logits[start - 2].argmax()) == int(tokens[start - 1]):
                start -= 1
            starts.append(start if len(tokens) - start >= SHORTEST_CONTINUATION else len(tokens))
        return starts


def write_greedily(golden: Golden, runner: Runner, starts: Sequence[int]) -> tuple[int, int]:
    """Writes the continuations from the prompts alone, side by side. Returns (tokens written, tokens that differ)."""
    written = wrong = 0
    trained = [i for i, tokens in enumerate(golden.tokens) if starts[i] < len(tokens)]
    for start in range(0, len(trained), runner.model.max_seqs):
        group = trained[start : start + runner.model.max_seqs]
        texts = {i: golden.tokens[i][: starts[i]].tolist() for i in group}
        for slot, i in enumerate(group):
            logits, _ = runner.step([Piece(slot, 0, texts[i], "prefill")])
            texts[i].append(int(logits[-1].argmax()))
        while running := [i for i in group if len(texts[i]) < len(golden.tokens[i])]:
            pieces = [Piece(group.index(i), len(texts[i]) - 1, texts[i][-1:], "decode") for i in running]
            logits, _ = runner.step(pieces)
            for i, row in zip(running, logits, strict=True):
                texts[i].append(int(row.argmax()))
        for i in group:
            expected = golden.tokens[i][starts[i] :]
            written += len(expected)
            wrong += int((np.array(texts[i][starts[i] :]) != expected).sum())
    return written, wrong


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


def check(folder: Path, tolerance: float, lengths: Sequence[int] | None, threads: int) -> list[str]:
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
    greedy: list[list[Any]] = []
    with adcg.Engine("host", threads=threads) as engine:
        models = {
            logits: Model(
                engine,
                golden.config,
                golden.weights,
                max_tokens=max_tokens,
                max_seqs=max_seqs,
                max_len=max(counts),
                slots=slots,
                logits=logits,
            )
            for logits in ("all", "last")
        }
        cases = [
            (logits, item, mode)
            for logits, item, mode in itertools.product(models, bucket_lists(max_tokens).items(), MODES)
            # Behind the gather the sequence buckets matter, and two lists of them are enough.
            if logits == "all" or item[0] in ("default", "small")
        ]
        for turn, (logits, (name, buckets), mode) in enumerate(cases):
            model = models[logits]
            sizes = CHUNKS if name == "default" and logits == "all" else (CHUNKS[turn % len(CHUNKS)],)
            captures = CAPTURES if name == "default" and mode == "full_and_piecewise" else (CAPTURES[turn % 3],)
            for number, order in enumerate(captures):
                options: dict[str, Any] = {"mode": mode, **buckets}
                with model.runner(**options) as runner:
                    capture(runner, order, turn)
                    steps: dict[str, Iterator[Step]] = {"whole": whole(golden.tokens, model)}
                    if number == 0:
                        steps |= {f"chunks of {n}": chunked(golden.tokens, model, n) for n in sizes}
                        steps["extend"] = extend(golden.tokens, model, turn)
                    steps["decode"] = decode(golden.tokens, model)
                    steps["mixed"] = mixed(golden.tokens, model, slots, turn + number)
                    total = Line()
                    for way, plan in steps.items():
                        line = golden.run(runner, plan)
                        ways.setdefault(way, Line()).add(line)
                        total.add(line)
                    combinations.setdefault((logits, mode, name), Line()).add(total)
                    orders.setdefault(order if mode != "none" else "nothing to capture", Line()).add(total)
                    if mode != "none" and logits == "last" and name == "default" and number == 0:
                        written, differ = write_greedily(golden, runner, starts)
                        if written:
                            greedy.append([mode, written, differ])
                            if differ:
                                wrong.append(f"greedy, {mode}: {differ} of {written} tokens differ")

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
                wrong.append(f"{label}: {line.differing} of {line.rows} rows differ from the first run")
        print(f"\n{title}")
        columns = [*head, "runs", "rows", "largest error", "bits", *(["steps"] if with_steps else [])]
        print(tabulate(rows, headers=columns, intfmt=",", disable_numparse=[len(head) + 2]))

    print(f"{folder}: {len(counts)} sequences of {min(counts)} to {max(counts)} tokens; first run: whole, eager")
    table("ways", ["way"], ways, False)
    table("modes and buckets", ["logits", "mode", "buckets"], combinations, True)
    table("capture order", ["order"], orders, False)
    if greedy:
        print("\ngreedy continuations")
        print(tabulate(greedy, headers=["mode", "tokens", "differ"]))
    for (logits, mode, name), line in combinations.items():
        # That a mode was asked for says little: it must also have run.
        expected = {"piecewise": ("piecewise",), "full_and_piecewise": ("full", "piecewise"), "none": ()}.get(
            mode, ("full",)
        )
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
    parser.add_argument("--threads", type=int, default=0, help="of the host device's kernels; 0: one a core")
    args = parser.parse_args(arguments)
    lengths = [int(n) for n in args.greedy.split(",")] if args.greedy else None
    try:
        wrong = check(args.folder, args.tolerance, lengths, args.threads)
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
