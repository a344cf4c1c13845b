"""A Llama of 8B shape (random weights, bf16) on libadcg beside PyTorch: one process, the same weights and caches.

    python3 tests/gpu/llama.py [--small] [--json FILE]

For each step: host time, time on the device, logits against a float32 run of torch's; and the memory of graphs: pools,
the driver's. Needs torch with CUDA and about 30 GB of device memory. With --small and without a GPU: the logits alone,
torch on the CPU."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llama_shape import LLAMA_8B, SMALL, Shape, activation_bytes, build
from on_device import Executor, Memory, adcg

try:
    import torch
    from torch_llama import Segments, Step, TorchLlama, Whole, pool_bytes
except ImportError:
    print("llama.py: torch is not installed")
    sys.exit(77)

T = torch.Tensor
MIB = 1 << 20
FACTOR = 2.0  # how much further than torch's bf16 logits ours may be from the float32 ones


class World:
    """Weights, caches, torch's model; tensors of torch as addresses of the engine's device."""

    def __init__(self, shape: Shape, prefills: list[Step], decodes: list[Step], engine: adcg.Engine) -> None:
        self.shape, self.engine, self.memory = shape, engine, Memory(engine)
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda:0" if self.cuda else "cpu")
        self.random = torch.Generator(self.device).manual_seed(11)
        self.weights = {name: self._weight(name, dims) for name, dims in shape.weights()}
        self.kinds = {"prefill": prefills, "decode": decodes}
        self.lengths = {"prefill": max(s.tokens for s in prefills), "decode": decodes[0].context + 64}
        self.slots = {"prefill": 1, "decode": max(s.seqs for s in decodes)}
        self.caches = {kind: self._caches(self.slots[kind], self.lengths[kind]) for kind in self.kinds}
        self.models = {kind: TorchLlama(shape, self.weights, self.caches[kind]) for kind in self.kinds}
        self.weight_places = {name: self.place(tensor) for name, tensor in self.weights.items()}
        self.cache_places = {
            kind: {name: self.place(tensor) for name, tensor in caches.items()} for kind, caches in self.caches.items()
        }

    def _normal(self, dims: tuple[int, ...], deviation: float) -> T:
        return torch.empty(dims, dtype=torch.bfloat16, device=self.device).normal_(0, deviation, generator=self.random)

    def _weight(self, name: str, dims: tuple[int, ...]) -> T:
        if "norm" in name:
            return self._normal(dims, 0.1).add_(1)
        return self._normal(dims, 1.0 if name == "embed" else dims[-1] ** -0.5)

    def _caches(self, slots: int, length: int) -> dict[str, T]:
        s = self.shape
        return {
            f"{c}.{i}": self._normal((slots, length, s.kv_heads, s.dim), 1.0) for c in "kv" for i in range(s.layers)
        }

    def place(self, tensor: T) -> int:
        return tensor.data_ptr() if self.cuda else self.memory.put(tensor.view(torch.int16).numpy())

    def inputs(self, step: Step) -> dict[str, T]:
        """Of both, by libadcg's names, and positions."""
        ids = torch.randint(
            0, self.shape.vocab, (step.tokens,), generator=self.random, device=self.device, dtype=torch.int32
        )
        whole = not step.context
        numbers: dict[str, Any] = {
            "cu_seqlens": [0, step.tokens] if whole else list(range(step.seqs + 1)),
            "input_pos": [step.context] * step.seqs,
            "slot_idx": list(range(step.seqs)),
            "last_idx": [step.tokens - 1] if whole else list(range(step.seqs)),
            "positions": list(range(step.tokens)) if whole else [step.context] * step.seqs,
        }
        return {"ids": ids} | {n: torch.tensor(v, dtype=torch.int32, device=self.device) for n, v in numbers.items()}

    def executor(self, graph: adcg.Graph, kind: str, **options: Any) -> Executor:
        steps = self.kinds[kind]
        most = (max(s.tokens for s in steps), max(s.seqs for s in steps))
        return Executor(graph, self.memory, self.weight_places, self.cache_places[kind], *most, **options)

    def forget(self, step: Step) -> None:
        """Makes the caches' rows of this step such that a run which does not write them shows."""
        if not self.cuda:
            return
        for cache in self.caches["decode" if step.context else "prefill"].values():
            cache[: step.seqs, step.context : step.context + step.tokens // step.seqs] = 77.0


def batch_of(step: Step) -> adcg.Batch:
    return adcg.Batch.of(decode=step.seqs) if step.context else adcg.Batch.of(prefill=[step.tokens])


def torch_inputs(inputs: dict[str, T]) -> tuple[T, T, T]:
    return inputs["ids"], inputs["positions"], inputs["last_idx"]


# ---- Times -------------------------------------------------------------------------------------------------------


def measure(run: Callable[[], Any], stream: Any, seconds: float = 0.4) -> dict[str, float]:
    """Microseconds of the host for a step on an idle stream, and of the device for each of many steps in a row."""
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
        stream.synchronize()
        hosts, devices = [], []
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(15):
            start = time.perf_counter()
            run()
            hosts.append(1e6 * (time.perf_counter() - start))
            stream.synchronize()
        start = time.perf_counter()
        run()
        stream.synchronize()
        repeats = max(2, min(50, int(seconds / 3 / max(time.perf_counter() - start, 1e-4))))
        for _ in range(3):
            begin.record(stream)
            for _ in range(repeats):
                run()
            end.record(stream)
            end.synchronize()
            devices.append(1e3 * begin.elapsed_time(end) / repeats)
    return {"host_us": statistics.median(hosts), "step_us": statistics.median(devices), "repeats": repeats}


def memory_used() -> int:
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return total - free


# ---- Logits ------------------------------------------------------------------------------------------------------


def relative(got: T, want: T) -> float:
    got, want = got.float(), want.float()
    return float((got - want).norm() / want.norm())


def run_ours(world: World, executor: Executor, step: Step, inputs: dict[str, T], stream: int | None) -> T:
    for name, tensor in inputs.items():
        if name in executor.inputs:
            executor.write(name, tensor.cpu().numpy())
    executor.ran = executor.replay(batch_of(step), stream)
    logits = executor.read("logits", np.empty((step.seqs, world.shape.vocab), np.int16))
    return torch.from_numpy(logits).view(torch.bfloat16).to(world.device)


def compare(world: World, step: Step, ours: T, theirs: T, reference: T | None) -> dict[str, Any]:
    found: dict[str, Any] = {"finite": bool(ours.isfinite().all()), "ours_torch": relative(ours, theirs)}
    found["same_argmax"] = float((ours.argmax(-1) == theirs.argmax(-1)).float().mean())
    if reference is not None:
        found |= {"ours_reference": relative(ours, reference), "torch_reference": relative(theirs, reference)}
        found["right"] = found["finite"] and found["ours_reference"] <= FACTOR * found["torch_reference"] + 1e-3
    return found


# ---- The parts ---------------------------------------------------------------------------------------------------


class Report:
    """Results, written after each part so that a crash keeps what there was."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.data: dict[str, Any] = {"steps": {}, "memory": {}, "wrong": []}

    def step(self, name: str, key: str, value: Any) -> None:
        self.data["steps"].setdefault(name, {})[key] = value
        print(f"{name:28} {key:18} {json.dumps(value)}", flush=True)
        self.save()

    def memory(self, name: str, value: Any) -> None:
        self.data["memory"][name] = value
        print(f"{'memory':28} {name:18} {json.dumps(value)}", flush=True)
        self.save()

    def wrong(self, text: str) -> None:
        self.data["wrong"].append(text)
        print(f"WRONG {text}", flush=True)
        self.save()

    def save(self) -> None:
        if self.path:
            self.path.write_text(json.dumps(self.data, indent=1))


def run(world: World, report: Report) -> None:
    inputs = {step.name: world.inputs(step) for steps in world.kinds.values() for step in steps}
    stream = torch.cuda.Stream() if world.cuda else None
    handle = stream.cuda_stream if stream else None
    theirs, references = {}, {}
    for kind, steps in world.kinds.items():
        for step in steps:
            world.forget(step)
            with torch.inference_mode():
                theirs[step.name] = world.models[kind].eager(step, *torch_inputs(inputs[step.name]))
                if step.tokens <= 2048:
                    references[step.name] = world.models[kind].reference(step, *torch_inputs(inputs[step.name]))
    if world.cuda:
        torch.cuda.empty_cache()

    def logits(executor: Executor, step: Step, label: str, expected: str) -> None:
        world.forget(step)
        if world.cuda:
            torch.cuda.synchronize()
        got = run_ours(world, executor, step, inputs[step.name], handle)
        found = compare(world, step, got, theirs[step.name], references.get(step.name)) | {"ran": executor.ran}
        report.step(step.name, f"logits {label}", found)
        if not found.get("right", found["finite"] and found["ours_torch"] <= 0.1):
            report.wrong(f"{step.name}, {label}: logits: {found}")
        if executor.ran != expected:
            report.wrong(f"{step.name}, {label}: ran {executor.ran}, not {expected}")

    graphs = {}
    for kind, steps in world.kinds.items():
        most = (max(s.tokens for s in steps), max(s.seqs for s in steps))
        graphs[kind] = build(world.engine, world.shape, *most, world.slots[kind], world.lengths[kind])
        executor = world.executor(
            graphs[kind], kind, mode="none"
        )  # kernels are loaded here, before memory is looked at
        for step in steps:
            logits(executor, step, "eager", "eager")
        executor.close()

    for label, kind, mode in (
        ("piecewise", "prefill", "piecewise"),
        ("piecewise", "decode", "piecewise"),
        ("full", "decode", "full_decode_only"),
    ):
        steps = world.kinds[kind]
        sizes = {"buckets": [s.tokens for s in steps], "seq_buckets": [s.seqs for s in steps]}
        forecast = graphs[kind].forecast(mode=mode, **sizes)
        before = memory_used() if world.cuda else 0
        executor = world.executor(graphs[kind], kind, mode=mode, capture="explicit", **sizes)
        buffers = memory_used() if world.cuda else 0  # inputs and outputs, and the arena's first piece
        start = time.perf_counter()
        executor.capture()
        taken = time.perf_counter() - start
        after, stats = memory_used() if world.cuda else 0, executor.stats()
        report.memory(
            f"libadcg {label} {kind}",
            {
                "capture_seconds": taken,
                "arena_bytes": stats.arena_bytes,
                "lower_bound_bytes": forecast.lower_bound_bytes,
                "workspace_bytes": forecast.workspace_bytes,
                "tokens": max(s.tokens for s in steps),
                "activation_bytes": activation_bytes(graphs[kind].plan("json", mode=mode, **sizes)),
                "graph_bytes": stats.graph_bytes,
                "used_bytes": after - before,
                "buffer_bytes": buffers - before,
                "captured_buckets": stats.captured_buckets,
                "failed_buckets": stats.failed_buckets,
                "segments": forecast.num_segments,
            },
        )
        for step in steps:
            logits(executor, step, label, label)
        if stream:
            for step in steps:
                run_ours(world, executor, step, inputs[step.name], handle)
                replay = executor.replayer(batch_of(step), handle)
                report.step(step.name, f"libadcg {label}", measure(replay, stream))
        if stream is None:
            executor.close()

    if stream:
        run_torch(world, report, inputs, theirs, stream)


def run_torch(world: World, report: Report, inputs: dict[str, dict[str, T]], theirs: dict[str, T], stream: Any) -> None:
    with torch.inference_mode(), torch.cuda.stream(stream):
        for kind, steps in world.kinds.items():
            for step in steps:
                call = torch_inputs(inputs[step.name])
                model = world.models[kind]
                report.step(step.name, "torch eager", measure(lambda m=model, s=step, c=call: m.eager(s, *c), stream))  # type: ignore[misc]
        for label, make, kinds in (
            ("torch segments", Segments, ("prefill", "decode")),
            ("torch whole", Whole, ("decode",)),
        ):
            gc.collect()
            torch.cuda.empty_cache()
            pool = torch.cuda.graph_pool_handle()
            before, reserved, start = memory_used(), torch.cuda.memory_reserved(), time.perf_counter()
            captured = []
            for kind in kinds:
                for step in sorted(world.kinds[kind], key=lambda s: -s.tokens):  # the largest first, as vLLM does
                    call = torch_inputs(inputs[step.name])
                    captured.append((step, make(world.models[kind], step, call, pool)))
                    report.memory(f"{label}, behind {step.name}", {"pool_bytes": pool_bytes(pool)})
            taken = time.perf_counter() - start
            used, grown = memory_used() - before, torch.cuda.memory_reserved() - reserved
            report.memory(
                label,
                {"capture_seconds": taken, "pool_bytes": pool_bytes(pool), "reserved_bytes": grown, "used_bytes": used}
                | {
                    "driver_bytes": used - grown,
                    "graphs": len(captured) * (world.shape.layers + 1 if make is Segments else 1),
                },
            )
            for step, replay in captured:
                got = replay().clone()
                stream.synchronize()
                report.step(step.name, f"logits {label}", {"torch_eager": relative(got, theirs[step.name])})
                report.step(step.name, label, measure(replay, stream))
            del captured, replay


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--small", action="store_true", help="small sizes; the logits alone where torch has no GPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        print("llama.py: torch has no GPU")
        return 77
    if options.small:
        shape, context, prefills, decodes = SMALL, 20, [12, 30], [1, 3]
    else:
        shape, context, prefills, decodes = LLAMA_8B, 1024, [512, 2048, 8192], [1, 8, 64]
    report = Report(options.json)
    with adcg.Engine(options.device) as engine:
        report.data["device"] = engine.device.description
        report.data["torch"] = torch.__version__
        world = World(shape, [Step(n, 1, 0) for n in prefills], [Step(n, n, context) for n in decodes], engine)
        run(world, report)
    report.save()
    return 1 if report.data["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
