"""The golden folders through every way, mode, bucket list and capture order: what `make golden` does."""

from __future__ import annotations

from pathlib import Path

import check
import pytest


@pytest.mark.timeout(600)
def test_llama(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights; logits of transformers in float32."""
    assert check.check(root / "tests" / "data" / "golden" / "llama", 1e-4, None, 0) == []
    assert "greedy" not in capsys.readouterr().out


@pytest.mark.timeout(600)
def test_tiny_go(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trained model: its greedy continuations come out byte for byte."""
    assert check.check(root / "tests" / "data" / "models" / "tiny-go", 1e-4, [31, 53, 99, 51, 82], 0) == []
    assert "800" in capsys.readouterr().out  # five continuations of 160 bytes


def test_continuations_are_found(root: Path) -> None:
    """Without lengths, every sequence of tiny-go has a continuation that begins at its prompt's end or before."""
    golden = check.Golden(root / "tests" / "data" / "models" / "tiny-go")
    found = golden.continuations(None)
    assert all(1 < start <= prompt for start, prompt in zip(found, (31, 53, 99, 51, 82), strict=True))
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

    monkeypatch.setattr(check.Runner, "step", flip)
    wrong = check.check(folder, 1e-4, None, 0)
    assert wrong and all("differ" in line for line in wrong)
