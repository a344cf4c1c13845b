"""The golden folders through every way, mode, bucket list and capture order, as `make golden` does."""

from __future__ import annotations

from pathlib import Path

import adcg
import check
import pytest
from llama import LlamaConfig
from runner import Model

TINY_GO = [31, 53, 99, 51, 82]  # lengths of tiny-go's prompts; the other trained models have two more


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", ["llama", "qwen3_5_moe", "nemotron_h", "glm4_moe_lite"])
def test_random_weights(root: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Logits and intermediates of transformers in float32."""
    assert check.check(root / "tests" / "data" / "golden" / family, 1e-4, None, 0) == []
    out = capsys.readouterr().out
    assert "greedy" not in out and "intermediates" in out and ("router_indices" in out) == (family != "llama")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("model", "prompts", "written"),
    [
        ("tiny-go", TINY_GO, 5 * 160),
        *((f"tiny-go-{f}", [*TINY_GO, 50, 114], 7 * 96) for f in ("qwen3_5_moe", "nemotron_h", "glm4_moe_lite")),
    ],
)
def test_trained_weights(
    root: Path, model: str, prompts: list[int], written: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained models, a part of the combinations (`make golden` has all): their greedy continuations come out byte for
    byte in every mode."""
    assert check.check(root / "tests" / "data" / "models" / model, 1e-4, prompts, 0, quick=True) == []
    rows = [line.split() for line in capsys.readouterr().out.split("greedy continuations")[1].splitlines()]
    found = [row[1:] for row in rows if row and row[0] in check.MODES]
    assert found == [[str(written), "0"]] * (len(check.MODES) - 1)


@pytest.mark.timeout(300)
def test_random_weights_on_a_device(root: Path, cuda: adcg.Engine) -> None:
    """Llama on a CUDA device, whole prompts and mixed batches of two short sequences: the logits of transformers, and
    the same bits eager and replayed. `make golden DEVICE=cuda:0` has every way."""
    golden = check.Golden(root / "tests" / "data" / "golden" / "llama")
    short = [i for i, tokens in enumerate(golden.tokens) if 16 <= len(tokens) <= 17]
    golden.tokens, golden.logits = ([x[i] for i in short] for x in (golden.tokens, golden.logits))
    longest = max(map(len, golden.tokens))
    model = Model(
        cuda, golden.config, golden.weights, max_tokens=longest, max_seqs=2, max_len=longest, slots=3, logits="all"
    )
    whole: list[check.Array] = []
    mixed: list[check.Array] = []
    ran = check.Counter[str]()
    runs = (("none", "whole", whole), ("none", "mixed", mixed), ("full_and_piecewise", "mixed", mixed))
    for mode, way, eager in runs:
        with model.runner(mode=mode, buckets=[2, longest], batch_invariant=True) as runner:
            line = golden.run(runner, golden.plan(way, 0, model, 3), eager, record=mode == "none")
        assert line.error <= 1e-4 and line.differing == 0 and line.rows == sum(map(len, golden.tokens))
        ran += line.steps
    assert ran["piecewise"] + ran["full"] > 0


def test_continuations_are_found(root: Path) -> None:
    """Without lengths, every sequence of tiny-go has a continuation that begins at its prompt's end or before."""
    golden = check.Golden(root / "tests" / "data" / "models" / "tiny-go")
    found = golden.continuations(None)
    assert all(1 < start <= prompt for start, prompt in zip(found, TINY_GO, strict=True))
    golden = check.Golden(root / "tests" / "data" / "golden" / "llama")
    assert golden.continuations(None) == [len(tokens) for tokens in golden.tokens]


def test_a_wrong_logit_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: an error above the tolerance and a differing bit each fail."""
    folder = root / "tests" / "data" / "golden" / "llama"
    monkeypatch.setattr(check, "MODES", ("none",))
    monkeypatch.setattr(check, "CHUNKS", (16,))
    original = check.Golden.__init__

    def off(self: check.Golden, folder: Path) -> None:
        original(self, folder)
        self.logits[3][2, 5] += 3e-4

    with monkeypatch.context() as patch:
        patch.setattr(check.Golden, "__init__", off)
        wrong = check.check(folder, 1e-4, None, 0)
        assert wrong and all("is above" in line for line in wrong)
    step = check.Runner.step

    def flip(self: check.Runner, pieces: list[check.Piece]) -> object:
        logits, result = step(self, pieces)
        if pieces[0].position:
            logits.view("uint32")[0, 7] ^= 1
        return logits, result

    with monkeypatch.context() as patch:
        patch.setattr(check.Runner, "step", flip)
        wrong = check.check(folder, 1e-4, None, 0)
        assert wrong and all("differ" in line for line in wrong)

    def sometimes(self: check.Runner, pieces: list[check.Piece]) -> object:
        """A step's last bit, in every exec but the eager ones."""
        logits, result = step(self, pieces)
        if result.mode != "eager" and pieces[0].kind == "decode":
            logits.view("uint32")[0, 7] ^= 1
        return logits, result

    with monkeypatch.context() as patch:
        # Decode may have other bits than prefill here, but not than eager decode.
        patch.setattr(LlamaConfig, "decodes_in_other_bits", True)
        patch.setattr(check, "MODES", ("none", "full"))
        assert check.check(folder, 1e-4, None, 0) == []
        patch.setattr(check.Runner, "step", sometimes)
        wrong = check.check(folder, 1e-4, None, 0)
        assert wrong and all("differ" in line for line in wrong)


def test_a_wrong_intermediate_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MODES", ("none",))
    original = check.Golden.__init__

    def off(self: check.Golden, folder: Path) -> None:
        original(self, folder)
        self.intermediates["mixer.2"][11, 3] += 3e-4

    monkeypatch.setattr(check.Golden, "__init__", off)
    wrong = check.check(root / "tests" / "data" / "golden" / "llama", 1e-4, None, 0, quick=True)
    assert len(wrong) == 1 and wrong[0].startswith("mixer: error 3.0")
