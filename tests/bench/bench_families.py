"""Decode and prefill of each family: replay against eager, and against transformers on PyTorch where installed.

    python tests/bench/bench_families.py [--model DIR ...] [--rounds N]

By default the four trained models of tests/data/models. Decode at batch 1 and 8 (from a prompt of 64 tokens each),
prefill of 512 tokens, alone and four in a row. Everybody computes in float32 from the stored weights with as many
threads as there are cores; all variants take turns in every round, in rotating order, and medians are compared.
transformers uses its own cache and its default attention (sdpa), which is its fastest here for Llama; its scans run as
its PyTorch code, as they do without packages for GPUs. Targets are those of Llama; the other families have none.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("bindings/python", "examples/python")]

import adcg
import numpy as np
from families import load_config
from machine import state
from runner import Model, Piece, Runner, load_weights
from tabulate import tabulate

PROMPT, DECODED, PREFILL = 64, 32, 512
PREFILLS = 4  # in a row: caches warm, threads awake; a single one follows the pause between turns
PAUSE = 0.1  # seconds
TARGETS = {"decode, batch 1": 10.0, "decode, batch 8": 5.0, "prefill of 512": 2.0, "prefill of 512, 4 in a row": 2.0}


def decode_ours(runner: Runner, prompts: Any) -> float:
    """Tokens a second of DECODED greedy steps; the prompts are prefilled before the clock starts."""
    tokens = []
    for slot, prompt in enumerate(prompts):
        logits, _ = runner.step([Piece(slot, 0, prompt, "prefill")])
        tokens.append(int(logits[-1].argmax()))
    start = time.perf_counter()
    for n in range(DECODED):
        logits, _ = runner.step([Piece(slot, PROMPT + n, [t], "decode") for slot, t in enumerate(tokens)])
        tokens = logits.argmax(axis=1).tolist()
    return len(prompts) * DECODED / (time.perf_counter() - start)


def prefill_ours(runner: Runner, prompt: Any, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        logits, _ = runner.step([Piece(0, 0, prompt, "prefill")])
        logits[-1].argmax()
    return times * len(prompt) / (time.perf_counter() - start)


def transformers_variants(folder: Path, prompts: Any, long: Any) -> dict[str, Callable[[], float]]:
    """The same work through transformers; raises ImportError where it is not installed."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def decode(batch: int) -> float:
        with torch.inference_mode():
            ids = torch.tensor(np.stack(prompts[:batch]).astype(np.int64))
            out = model(ids, use_cache=True, logits_to_keep=1)
            start = time.perf_counter()
            for _ in range(DECODED):
                ids = out.logits[:, -1].argmax(dim=-1, keepdim=True)
                out = model(ids, past_key_values=out.past_key_values, use_cache=True)
            out.logits[:, -1].argmax(dim=-1)
            return batch * DECODED / (time.perf_counter() - start)

    def prefill(times: int) -> float:
        with torch.inference_mode():
            ids = torch.tensor(long[None].astype(np.int64))
            start = time.perf_counter()
            for _ in range(times):
                model(ids, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(dim=-1)
            return times * len(long) / (time.perf_counter() - start)

    return {
        "decode, batch 1": lambda: decode(1),
        "decode, batch 8": lambda: decode(8),
        "prefill of 512": lambda: prefill(1),
        "prefill of 512, 4 in a row": lambda: prefill(PREFILLS),
    }


def measure(folder: Path, rounds: int) -> None:
    """One model's table."""
    config = load_config(folder)
    weights = load_weights(folder, config, note=lambda text: None)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, config.vocab_size, PROMPT).astype(np.int32) for _ in range(8)]
    long = rng.integers(0, config.vocab_size, PREFILL).astype(np.int32)
    with adcg.Engine("host") as engine:
        machine = f"{engine.device.description}, {engine.device.threads} threads"
        model = Model(engine, config, weights, max_tokens=PREFILL, max_seqs=8, max_len=PREFILL, logits="last")
        with model.runner() as replay, model.runner(mode="none") as eager:
            replay.exec.capture()
            variants: dict[str, dict[str, Callable[[], float]]] = {work: {} for work in TARGETS}
            for name, runner in (("replay", replay), ("eager", eager)):
                variants["decode, batch 1"][name] = lambda r=runner: decode_ours(r, prompts[:1])  # type: ignore[misc]
                variants["decode, batch 8"][name] = lambda r=runner: decode_ours(r, prompts)  # type: ignore[misc]
                variants["prefill of 512"][name] = lambda r=runner: prefill_ours(r, long, 1)  # type: ignore[misc]
                variants["prefill of 512, 4 in a row"][name] = lambda r=runner: prefill_ours(r, long, PREFILLS)  # type: ignore[misc]
            missing = ""
            try:
                for work, call in transformers_variants(folder, prompts, long).items():
                    variants[work]["transformers"] = call
            except ImportError as error:
                missing = f"the peer is missing: {error} (make bench-peers makes a venv that has it)"
            rows = []
            for work, calls in variants.items():
                speeds: dict[str, list[float]] = {name: [] for name in calls}
                for call in calls.values():
                    call()  # warm
                for n in range(rounds):
                    # Everybody's threads spin for a while after their work: let them go to sleep first.
                    names = list(calls)
                    for name in names[n % len(names) :] + names[: n % len(names)]:
                        time.sleep(PAUSE)
                        speeds[name].append(calls[name]())
                median = {name: statistics.median(values) for name, values in speeds.items()}
                row = [work, median["replay"], median["eager"], f"{median['replay'] / median['eager']:.2f}x"]
                if "transformers" in median:
                    ratio = median["replay"] / median["transformers"]
                    met = f"{TARGETS[work]:g}x: {'met' if ratio >= TARGETS[work] else 'MISSED'}"
                    row += [median["transformers"], f"{ratio:.2f}x", met if config.family == "Llama" else "-"]
                rows.append(row)
    head = ["tokens/s", "replay", "eager", "replay/eager", *(["transformers", "ours/theirs", "target"] * (not missing))]
    print(f"\n{folder.name}, {config.family}: medians of {rounds} rounds, {machine}")
    print(tabulate(rows, headers=head, floatfmt=",.0f"))
    if missing:
        print(missing)


def main() -> None:
    models = ROOT / "tests" / "data" / "models"
    parser = argparse.ArgumentParser(description="Decode and prefill of checkpoints, ours and transformers'.")
    parser.add_argument("--model", type=Path, nargs="+", default=sorted(models.glob("tiny-go*")), metavar="DIR")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    print(state())
    for folder in args.model:
        measure(folder, args.rounds)


if __name__ == "__main__":
    main()
