"""The Llama goldens on a CUDA device: logits of every way of feeding the sequences, in every mode, f32 and bf16.

    python3 tests/gpu/goldens.py [--device cuda:0] [--small] [--json FILE]

f32 is held against the golden logits (1e-4, as on the host); bf16 too, at twice what the host device's bf16 is
off. With `batch_invariant` every row must have the same bits in every way and mode. Needs numpy, ml_dtypes and
safetensors; no torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from on_device import ROOT, Executor, Memory, adcg, shape_of

from check import Golden  # isort: skip
from runner import Model, Runner  # isort: skip

FOLDER = ROOT / "tests/data/golden/llama"
TOLERANCE = 1e-4
WAYS = ("whole", "chunks of 16", "decode", "mixed")
MODES = ("none", "piecewise", "full_and_piecewise")
LISTS: dict[str, dict[str, Any]] = {"none": {}, "piecewise": {"buckets": [5, 17, 64, 200]}, "full_and_piecewise": {}}


class DeviceRunner(Runner):
    """A runner (examples/python/runner.py) whose tensors are on the engine's device."""

    def __init__(self, model: Model, memory: Memory, weights: dict[str, int], invariant: bool, **options: Any) -> None:
        self.model, self.memory = model, memory
        graph = model.graph
        graph.freeze()
        self.addresses = {
            state.name: memory.put(np.zeros(shape_of(state), adcg.numpy_dtype(state.dtype or "")))
            for state in graph.states
        }
        sizes = (model.max_tokens, model.max_seqs)
        self.device = Executor(graph, memory, weights, self.addresses, *sizes, invariant=invariant, **options)
        self.inputs = {v.name: np.zeros(shape_of(v, *sizes), adcg.numpy_dtype(v.dtype or "")) for v in graph.inputs}
        self.modes: Counter[str] = Counter()

    def step(self, pieces: Any) -> Any:
        batch = self.fill(pieces)
        for name, array in self.inputs.items():
            self.device.write(name, array)
        self.modes[self.device.replay(batch)] += 1
        rows = batch.seqs if self.model.logits == "last" else batch.tokens
        logits = dict(self.model.graph.outputs)["logits"]
        shape = (rows, *shape_of(logits)[1:])
        return self.device.read("logits", np.empty(shape, adcg.numpy_dtype(logits.dtype or ""))), None

    def close(self) -> None:
        self.device.close()
        for address in self.addresses.values():
            self.memory.free(address)


def run(golden: Golden, runner: DeviceRunner, way: str, slots: int) -> tuple[float, dict[tuple[int, int], bytes]]:
    """The largest error, and the bits of the logits behind each token that has some."""
    worst, bits = 0.0, {}
    last = runner.model.logits == "last"
    for step in golden.plan(way, 0, runner.model, slots):
        logits, _ = runner.step([piece for _, piece in step])
        row = 0
        for i, piece in step:
            count = len(piece.tokens)
            first = piece.position + count - 1 if last else piece.position
            got = logits[row : row + (1 if last else count)]
            row += len(got)
            want = golden.logits[i][first : first + len(got)]
            error = float(np.abs(got.astype(np.float32) - want).max())
            worst = max(worst, error) if error == error else float("nan")
            for n, line in enumerate(got):
                bits[i, first + n] = line.tobytes()
    return worst, bits


def cases(
    golden: Golden, engine: adcg.Engine, dtype: str, invariant: bool, ways: Any, modes: Any
) -> list[dict[str, Any]]:
    memory = Memory(engine)
    lengths = [len(t) for t in golden.tokens]
    sizes = {"max_tokens": max(*lengths, 64), "max_seqs": min(6, len(lengths)), "max_len": max(lengths), "slots": 9}
    weights = {name: memory.put(array) for name, array in golden.weights.items()}
    found: list[dict[str, Any]] = []
    first: dict[tuple[int, int], bytes] = {}
    for logits in ("all", "last"):
        model = Model(engine, golden.config, golden.weights, **sizes, logits=logits, dtype=dtype)
        for mode in modes:
            runner = DeviceRunner(model, memory, weights, invariant, mode=mode, **LISTS[mode])
            for way in ways:
                runner.modes.clear()
                error, bits = run(golden, runner, way, 9)
                differ = sum(first.setdefault(key, line) != line for key, line in bits.items())
                found.append(
                    {"dtype": dtype, "invariant": invariant, "logits": logits, "mode": mode, "way": way, "error": error}
                    | {"rows": len(bits), "rows_of_other_bits": differ, "steps": dict(runner.modes)}
                )
            runner.close()
    for address in weights.values():
        memory.free(address)
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--small", action="store_true", help="a few sequences, ways and modes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    golden = Golden(FOLDER)
    ways, modes = WAYS, MODES
    if options.small:
        golden.tokens, golden.logits = golden.tokens[:6], golden.logits[:6]
        ways, modes = ("whole", "mixed"), MODES[1:]
    with adcg.Engine("host") as host:
        host_error = max(c["error"] for c in cases(golden, host, "bfloat16", False, ("whole",), ("none",)))
    wrong: list[str] = []
    results: list[dict[str, Any]] = []
    with adcg.Engine(options.device) as engine:
        description = engine.device.description
        print(f"device: {description}; bf16 on the host is off by {host_error:.4f}")
        for dtype, invariant in (("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True)):
            limit = TOLERANCE if dtype == "float32" else 2 * host_error
            for case in cases(golden, engine, dtype, invariant, ways, modes):
                case["limit"] = limit
                results.append(case)
                label = f"{dtype}{', invariant' if invariant else ''}: {case['logits']}, {case['mode']}, {case['way']}"
                print(
                    f"{label:60} error {case['error']:.2e} of {limit:.2e}, {case['rows']} rows, "
                    f"{case['rows_of_other_bits']} of other bits; {case['steps']}",
                    flush=True,
                )
                if not case["error"] <= limit:
                    wrong.append(f"{label}: error {case['error']:.2e} is above {limit:.2e}")
                if invariant and case["rows_of_other_bits"]:
                    wrong.append(f"{label}: {case['rows_of_other_bits']} rows have other bits than the first way's")
                if case["mode"] != "none" and not {"piecewise", "full"} & case["steps"].keys():
                    wrong.append(f"{label}: no step was replayed")
    print(
        "\n".join(
            [*wrong, f"{len(wrong)} of {len(results)} cases are wrong" if wrong else f"all {len(results)} cases hold"]
        )
    )
    if options.json:
        summary = {"device": description, "host_bf16_error": host_error, "cases": results, "wrong": wrong}
        options.json.write_text(json.dumps(summary, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
