"""The stand-in driver: what was recorded on a real one, line for line; own cases, with sanitizers and without."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORDED = ROOT / "tests" / "data" / "driver"
BUILD = ROOT / "build" / "fakecuda"
CC = os.environ.get("CC", "cc")
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-g", "-O1"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
PROGRAMS = ["control", "behaviour", "linked"]


def run(argv: list[str | Path], **kwargs: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-6000:]}"
    return str(done.stdout)


@cache
def driver(kind: str) -> Path:
    """The folder of a built libcuda.so.1: plain or sanitized."""
    folder = BUILD if kind == "plain" else BUILD / kind
    run(["flock", "Makefile", "make", "--silent", str((folder / "libcuda.so.1").relative_to(ROOT))], cwd=ROOT)
    return folder


def environment(kind: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAKECUDA_")}
    return {**kept, "LD_LIBRARY_PATH": str(driver(kind))}


def by_name(text: str) -> dict[str, str]:
    """The lines of a recording by what stands before the colon."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


# ---- What the real driver answered -------------------------------------------------------------------------------


def test_recordings_are_unchanged() -> None:
    """They were made on a real driver; a line that the stand-in does not give is its fault."""
    digest = hashlib.sha256()
    for name in ("sequences.c", "sequences.txt"):
        digest.update((RECORDED / name).read_bytes())
    assert digest.hexdigest() == "cca470d808fdbf5744b2cca425d437e9c945990514e8b956a1f27cc9aea3abe5"


@cache
def sequences() -> list[str]:
    program = BUILD / "sequences"
    driver("plain")
    run([CC, "-w", "-O1", RECORDED / "sequences.c", "-o", program, "-ldl", "-lpthread"])
    return run([program], env=environment("plain"), timeout=120).splitlines()


EXPECTED = (RECORDED / "sequences.txt").read_text().splitlines()


@pytest.mark.parametrize("index", range(len(EXPECTED)), ids=[line.split(":")[0] for line in EXPECTED])
def test_sequence(index: int) -> None:
    assert len(sequences()) == len(EXPECTED)
    assert sequences()[index] == EXPECTED[index]


@cache
def probes() -> dict[str, str]:
    return by_name(run([sys.executable, HERE / "probes"], env=environment("plain"), timeout=240))


PROBES = by_name((HERE / "probes.txt").read_text())


def comparable(name: str, line: str) -> list[str]:
    """Up to the call that a real driver did not survive; pointers are pointers. Of the addresses: the legacy variants,
    from the version on that the stand-in begins with, of functions that it has."""
    words = re.sub(r"\b\d{8,}\b", "pointer", line.split(" <signal")[0]).split()
    if name != "addresses":
        return words
    chosen = []
    for word in words:
        found = re.match(r"(\w+)@(\d+)/0=", word)
        if found and int(found[2]) >= 11040 and found[1] != "cuGraphNodeSetParams":
            chosen.append(word)
    return chosen


@pytest.mark.parametrize("name", PROBES)
def test_probe(name: str) -> None:
    expected = comparable(name, PROBES[name])
    assert comparable(name, probes()[name])[: len(expected)] == expected


def test_probes_are_complete() -> None:
    assert list(probes()) == list(PROBES)


# ---- What it exports and does not do -----------------------------------------------------------------------------

REFUSED = re.findall(r'^FAKECUDA_REFUSED\("([^"]+)", (\w+),', (HERE / "cuda_refused.h").read_text(), re.M)


def test_refusals_are_found() -> None:
    assert len(REFUSED) == (HERE / "cuda_refused.h").read_text().count("\nFAKECUDA_REFUSED(") > 40


@pytest.mark.parametrize(("what", "name"), REFUSED, ids=[name for _, name in REFUSED])
def test_refusal(what: str, name: str) -> None:
    """801 whatever the arguments, and a reason that names the call; cuGetProcAddress finds it as on a real driver."""
    cuda = ctypes.CDLL(str(driver("plain") / "libcuda.so.1"))
    cuda.fakecuda_reason.restype = ctypes.c_char_p
    assert cuda.cuInit(0) == 0
    nothing = [ctypes.c_void_p()] * 8
    assert getattr(cuda, name)(*nothing) == 801
    reason = cuda.fakecuda_reason().decode()
    assert name in reason and what in reason
    found = ctypes.c_void_p()
    base = re.sub(r"_v\d$", "", name).encode()
    assert cuda.cuGetProcAddress_v2(base, ctypes.byref(found), 13000, ctypes.c_uint64(0), None) == 0
    assert found.value == ctypes.cast(getattr(cuda, name), ctypes.c_void_p).value


# ---- Cases of its own --------------------------------------------------------------------------------------------


def cases_of(program: str) -> list[str]:
    table = (HERE / "cases" / f"{program}.c").read_text().split("harness_case cases[] = {")[1].split("};")[0]
    return re.findall(r'\{"(\w+)",\s*\w+\}', table)


@cache
def compiled(program: str, kind: str) -> tuple[Path, Path]:
    """The program, and the object of kernels that it loads."""
    folder = driver(kind)
    extra = [] if kind == "plain" else SANITIZE
    output, kernels = folder / program, folder / f"{program}-kernels.so"
    run([CC, *STRICT, "-shared", "-fPIC", "-o", kernels, HERE / "cases" / "kernels.c"])
    linked = [f"-L{folder}", "-l:libcuda.so.1", f"-Wl,-rpath,{folder}", "-pthread", "-ldl"]
    run([CC, *STRICT, *extra, "-o", output, HERE / "cases" / f"{program}.c", *linked])
    return output, kernels


@pytest.mark.parametrize("kind", ["plain", "sanitized"])
@pytest.mark.parametrize(("program", "case"), [(p, c) for p in PROGRAMS for c in cases_of(p)])
def test_case(program: str, case: str, kind: str) -> None:
    output, kernels = compiled(program, kind)
    run([output, case], env={**environment(kind), "FAKECUDA_TEST_KERNELS": str(kernels)}, timeout=120)


@pytest.mark.parametrize("program", PROGRAMS)
def test_table_is_complete(program: str) -> None:
    source = (HERE / "cases" / f"{program}.c").read_text()
    functions = re.findall(r"^static void (\w+)\(void\) \{", source, re.M)
    assert functions == cases_of(program)
