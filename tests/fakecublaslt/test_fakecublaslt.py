"""cuBLASLt's stand-in and `adcg.linear` over it: what real libraries answered without a GPU, line by line; cases in C,
with sanitizers and without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "fakecuda"
CC = os.environ.get("CC", "cc")
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-g", "-O1"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
PROGRAMS = ["standin", "linear", "faults"]
LIBRARIES = ["libcuda.so.1", "libcublasLt.so.13"]


def run(argv: list[str | Path], **kwargs: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-6000:]}"
    return str(done.stdout)


@cache
def libraries(kind: str) -> Path:
    """The folder of both stand-ins: plain or sanitized."""
    folder = BUILD if kind == "plain" else BUILD / kind
    run(
        ["flock", "Makefile", "make", "--silent", *(str((folder / name).relative_to(ROOT)) for name in LIBRARIES)],
        cwd=ROOT,
    )
    return folder


@cache
def environment(kind: str) -> dict[str, str]:
    """With the object of our own kernels."""
    kernels = BUILD / "kernels.so"
    run(["flock", "Makefile", "make", "--silent", str(kernels.relative_to(ROOT))], cwd=ROOT)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAKECUDA_")}
    return {**kept, "LD_LIBRARY_PATH": str(libraries(kind)), "FAKECUDA_KERNELS": str(kernels)}


# ---- What real libraries answered --------------------------------------------------------------------------------


def test_recorded() -> None:
    program = libraries("plain") / "fakecublaslt-recorded"
    run([CC, *STRICT, "-o", program, HERE / "cases" / "recorded.c", "-ldl"])
    recorded = [line for line in (HERE / "recorded.txt").read_text().splitlines() if not line.startswith("#")]
    assert run([program, libraries("plain") / "libcublasLt.so.13"]).splitlines() == recorded


# ---- Cases -------------------------------------------------------------------------------------------------------


def cases_of(program: str) -> list[str]:
    table = (HERE / "cases" / f"{program}.c").read_text().split("harness_case cases[] = {")[1].split("};")[0]
    return re.findall(r'\{"(\w+)",\s*\w+\}', table)


@cache
def compiled(program: str, kind: str) -> Path:
    folder = libraries(kind)
    output = folder / f"fakecublaslt-{program}"
    sources = [HERE / "cases" / f"{program}.c", *sorted((ROOT / "kernels" / "cuda").glob("*.c"))]
    linked = [f"-L{folder}", *(f"-l:{name}" for name in LIBRARIES), f"-Wl,-rpath,{folder}", "-pthread", "-ldl", "-lm"]
    run([CC, *STRICT, *([] if kind == "plain" else SANITIZE), "-I", ROOT / "include", "-o", output, *sources, *linked])
    return output


@pytest.mark.parametrize("kind", ["plain", "sanitized"])
@pytest.mark.parametrize(("program", "case"), [(p, c) for p in PROGRAMS for c in cases_of(p)])
def test_case(program: str, case: str, kind: str) -> None:
    run([compiled(program, kind), case], env=environment(kind), timeout=200)


@pytest.mark.parametrize("program", PROGRAMS)
def test_table_is_complete(program: str) -> None:
    source = (HERE / "cases" / f"{program}.c").read_text()
    functions = re.findall(r"^static void (\w+)\(void\) \{", source, re.M)
    assert functions == cases_of(program)


def test_gpu_script(tmp_path: Path) -> None:
    """tests/gpu/lt.py, as far as it goes without a GPU: it finds nothing wrong, and the nodes of each policy."""
    run(["flock", "Makefile", "make", "--silent", "build/gpu/liblt.so"], cwd=ROOT)
    image = tmp_path / "image"
    image.write_text(f"fakecuda-image 1\nlibrary {environment('plain')['FAKECUDA_KERNELS']}\n")
    script = ROOT / "tests" / "gpu" / "lt.py"
    said = run(
        [sys.executable, script, "--without-torch", "--quick", "--image", image], env=environment("plain"), timeout=250
    )
    assert said.count("378 products, 0 wrong") == 3
    assert "plain: kernel" in said.splitlines()[-2]
    assert said.splitlines()[-1].count("kernel") == 2  # split
