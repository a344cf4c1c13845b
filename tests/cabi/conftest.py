"""The staged install that the C tests compile against, and the compiling."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "cabi"
CC = os.environ.get("CC", "cc")
CXX = os.environ.get("CXX", "c++")
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]


@cache
def prefix() -> Path:
    """Where `make install` put the library: PREFIX below the staging folder."""
    if "ADCG_STAGE" in os.environ:
        return Path(os.environ["ADCG_STAGE"]).resolve() / "usr"
    subprocess.run(["flock", "Makefile", "make", "--silent", "stage"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return ROOT / "build" / "stage" / "usr"


def need(tool: str) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return tool


def check_output(argv: list[str], **kwargs: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return str(done.stdout)


def direct_flags() -> list[str]:
    """Without pkg-config or CMake."""
    return [f"-I{prefix()}/include", f"-L{prefix()}/lib", "-ladcg", f"-Wl,-rpath,{prefix()}/lib"]


def compile_program(source: Path, output: Path, flags: list[str], *, defines: list[str] | None = None) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler = [need(CXX), "-std=c++17"] if source.suffix == ".cc" else [CC, "-std=c11"]
    check_output(
        [*compiler, *STRICT, "-g", *(defines or []), "-o", str(output), str(source), *flags, "-lm", "-pthread", "-ldl"]
    )
    return output
