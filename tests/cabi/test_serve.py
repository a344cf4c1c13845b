"""examples/c/serve, the main job as a C host: on the model that the project carries, and on small random checkpoints
whose greedy continuations a float64 implementation wrote into golden.safetensors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(ROOT / "tests" / "python"))
from test_llama_variants import BASE, CASES, make, reference

SERVE = ROOT / "build" / "examples" / "serve"
TINY_GO = ROOT / "tests" / "data" / "models" / "tiny-go"
CONTINUATION = 160  # as the model's golden file has it, and serve expects


def serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    subprocess.run(
        ["flock", "Makefile", "make", "--silent", "build/examples/serve"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    argv = [SERVE, *map(str, arguments)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=240, check=False)


def section(output: str, name: str) -> str:
    return output.split(f"\n{name}", 1)[1].split("\n\n")[0]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--capture", "upfront", "--buckets", "8,16,32,48"],
        ["--mode", "piecewise", "--budget", 100, "--slots", 7],
        ["--mode", "none"],
        ["--mode", "full", "--budget", 9, "--slots", 3, "--gap", 0],
        ["--budget", 300, "--slots", 12, "--requests", 30, "--gap", 2, "--threads", 1],
        ["--max-len", 120, "--requests", 6],
    ],
)
def test_tiny_go(options: list[object]) -> None:
    """Greedy: every request writes the golden bytes, every step equals eager, the counts add up."""
    done = serve("--model", TINY_GO, *options)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr
    given = dict(zip(options[::2], options[1::2], strict=True))
    golden = re.search(r"(\d+) of (\d+) requests wrote what golden", done.stdout)
    requests = int(given.get("--requests", 12))
    assert golden and golden[1] == golden[2] == str(requests)
    equal = re.search(r"logits of (\d+) of (\d+) steps equal", done.stdout)
    assert equal and equal[1] == equal[2]
    rows = [line.split() for line in section(done.stdout, "steps\n").splitlines()[1:]]
    total = rows.pop()
    assert total[0] == "total" and total[1] == equal[2]
    for column in (3, 4, 5):
        assert sum(int(row[column]) for row in rows) == int(total[column - 2])
    wrote = [tuple(map(int, m)) for m in re.findall(r"prompt (\d+) tokens, wrote (\d+); arrived", done.stdout)]
    assert len(wrote) == requests
    assert sum(prompt + new - 1 for prompt, new in wrote) == int(total[2])  # every token but the last ones was an input
    slots = {int(slot) for slot in re.findall(r"slot (\d+), steps", done.stdout)}
    assert max(slots) < int(given.get("--slots", 4)) and (len(slots) < requests)
    reasons = [int(line.split()[0]) for line in section(done.stdout, "fallbacks").splitlines()[1:]]
    assert sum(reasons) == int(total[1])
    memory = dict(re.findall(r"^ *([a-z][a-z -]+?) +(\d+)", section(done.stdout, "memory"), re.M))
    assert int(memory["arena"]) >= int(memory["peak-liveness bound"]) > 0
    if given.get("--capture") == "upfront":
        assert memory["total held now"] == memory["total forecast"]
    # Llama's full graphs serve every batch, so the default mode has nothing else.
    mode = {"none": "eager", "piecewise": "piecewise"}.get(str(given.get("--mode")), "full")
    assert {row[0] for row in rows} == {mode}


def test_sampling_repeats() -> None:
    """The same seed writes the same, another writes something else, and neighbours in the batch change nothing."""

    def texts(*options: object) -> list[str]:
        done = serve("--model", TINY_GO, "--temperature", 0.9, "--max-new", 40, "--no-check", *options)
        assert done.returncode == 0, done.stderr
        return re.findall(r"\u00ab(.*?)\u00bb", done.stdout.split("\nsteps")[0], re.S)[:5]

    first = texts("--seed", 4)
    assert len(first) == 5 and len(set(first)) == 5
    assert texts("--seed", 4, "--slots", 1, "--budget", 7, "--gap", 0) == first
    assert texts("--seed", 5) != first


def greedy(config: dict[str, Any], weights: dict[str, Any], prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        logits = reference(config, weights, np.array(ids))[-1]
        best = np.argsort(logits)
        assert logits[best[-1]] - logits[best[-2]] > 1e-4, "a tie: choose another seed"
        ids.append(int(best[-1]))
    return ids


VARIANTS = ["plain", "tied", "llama3_rope_old_style", "linear_rope", "biases", "wide_heads", "gqa_8", "float16"]


@pytest.mark.parametrize("name", [*VARIANTS, "all_at_once", "sharded"])
def test_variants(name: str, tmp_path: Path) -> None:
    case = CASES.get(name, CASES["plain"])
    small = {"vocab_size": 256, "num_hidden_layers": 2, "max_position_embeddings": 256}
    config = make(tmp_path, {**case, **small}, seed=11, shards=3 if name == "sharded" else 1)
    weights: dict[str, Any] = {}
    for file in tmp_path.glob("*.safetensors"):
        weights |= load_file(file)
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, 256, n).tolist() for n in (23, 1)]
    few = 24  # what is checked; the rest of the golden length is never asked for
    tokens = {
        f"tokens.{i}": np.array(greedy(config, weights, p, few) + [0] * (CONTINUATION - few), np.int32)
        for i, p in enumerate(prompts)
    }
    save_file(tokens, tmp_path / "golden.safetensors")
    done = serve("--model", tmp_path, "--requests", 4, "--slots", 2, "--budget", 10, "--max-new", few, "--gap", 3)
    assert done.returncode == 0, done.stdout[-800:] + done.stderr
    assert "4 of 4 requests wrote what golden.safetensors says" in done.stdout
    tokens["tokens.0"][23 + 7] ^= 1  # and it would say so
    save_file(tokens, tmp_path / "golden.safetensors")
    assert serve("--model", tmp_path, "--requests", 2, "--max-new", few, "--slots", 2).returncode == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mistral"}, "model_type: mistral"),
        ({"hidden_act": "gelu"}, "hidden_act: gelu"),
        ({"pretraining_tp": 2}, "pretraining_tp"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type: yarn"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor is missing"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"num_key_value_heads": 4}, "num_key_value_heads: 4"),
        ({"head_dim": 7}, "head_dim: 7"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"vocab_size": "many"}, "vocab_size: not a positive integer"),
        ({"hidden_size": 49}, "model.embed_tokens.weight"),
    ],
)
def test_unsupported_options_are_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    make(tmp_path, {}, seed=1)
    raw = {key: value for key, value in {**BASE, **change}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    done = serve("--model", tmp_path)
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_broken_files_are_named(tmp_path: Path) -> None:
    make(tmp_path, {}, seed=1)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for broken, words in (
        (b"", "not a safetensors file"),
        (whole[:7], "not a safetensors file"),
        (b"\xff" * 16 + whole[16:], "not a safetensors file"),
        (whole[:-4], "data_offsets"),
        (whole.replace(b'"F32"', b'"F99"', 1), "F99"),
        (whole.replace(b"{", b"[", 1), "header"),
    ):
        file.write_bytes(broken)
        done = serve("--model", tmp_path)
        assert done.returncode == 2 and "model.safetensors" in done.stderr, (words, done.stderr)
        assert words in done.stderr
    file.unlink()
    assert "no such file" in serve("--model", tmp_path).stderr
