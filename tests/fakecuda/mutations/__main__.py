"""How many planted mistakes the ABI suite catches over the stand-in driver.

    make mutations [MUTATIONS="part of a name ..."]

The library is built once, with its objects kept. Each mistake of mistakes.py is put into a copy of one C file, which is
compiled and linked with the other objects (one in Go is built by `go build -overlay`); then the programs of tests/cabi
that drive CUDA run against it until a case fails. Without a mistake every case must pass. The sources stay as they are.
Not in CI: minutes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from mistakes import MISTAKES, Mistake

ROOT = Path(__file__).resolve().parents[3]
CABI = ROOT / "tests" / "cabi"
BUILD = ROOT / "build" / "_mutations"  # of that name go takes nothing for a package
OBJECTS = BUILD / "objects"
STANDIN = ROOT / "build" / "fakecuda"
LIBRARY = BUILD / "libadcg.so.0"
PROGRAMS = ["capture", "rows", "exec", "streams", "dispatch", "parts", "counts", "release", "faults"]
EXTERNAL = f"-Wl,-soname,libadcg.so.0 -Wl,--version-script={ROOT}/capi/libadcg.map -Wl,--as-needed -Wl,-z,now"
TARGET = 95  # percent


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(
            f"{shlex.join(argv)}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout + done.stderr


def go_build(*flags: str, link: str = "") -> str:
    argv = [
        "go",
        "build",
        *flags,
        "-trimpath",
        "-buildmode=c-shared",
        "-ldflags",
        f"-s -w {link} -extldflags '{EXTERNAL}'",
    ]
    return run([*argv, "-o", str(LIBRARY), "./capi"])


def build_once() -> list[str]:
    """Builds the library, keeps its objects, and returns the command that links them."""
    command = OBJECTS / "command.json"
    newest = max(
        p.stat().st_mtime
        for d in ("capi", "engine", "kernels", "piecewise")
        for p in (ROOT / d).rglob("*")
        if p.is_file()
    )
    if command.exists() and command.stat().st_mtime > newest:
        return [str(word) for word in json.loads(command.read_text())]
    OBJECTS.mkdir(parents=True, exist_ok=True)
    for old in OBJECTS.iterdir():
        old.unlink()
    said = go_build(link=f"-v -tmpdir {OBJECTS}")
    line = next(line for line in said.splitlines() if line.startswith("host link: "))
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    command.write_text(json.dumps(words))
    return words


@cache
def object_of(source: Path) -> Path:
    """The object that a C file became: the one that defines what only that file defines."""
    own = BUILD / "own.o"
    compile_c(source, source.parent, own)
    mine = symbols(own)
    return max(
        OBJECTS.glob("*.o"),
        key=lambda o: len(mine & defined(o)) if o.name != "go.o" else -1,
    )


@cache
def defined(object_file: Path) -> set[str]:
    return symbols(object_file)


def symbols(file: Path) -> set[str]:
    lines = run(["nm", "--defined-only", str(file)]).splitlines()
    return {
        parts[2]
        for line in lines
        if len(parts := line.split()) == 3 and parts[1] in "TtDdRrBb" and not parts[2].startswith(".")
    }


def compile_c(source: Path, folder: Path, out: Path) -> None:
    flags = [
        "-std=gnu11",
        "-O2",
        "-fPIC",
        "-pthread",
        "-Wno-all",
        f"-I{ROOT}/include",
        f"-I{folder}",
    ]
    run(["cc", *flags, "-iquote", str(folder), "-c", "-o", str(out), str(source)])


def build(mistake: Mistake, link: list[str]) -> None:
    """The library with the mistake in it."""
    source = ROOT / mistake.file
    text = source.read_text()
    if text.count(mistake.right) != 1:
        raise RuntimeError(f"{mistake.name}: its place in {mistake.file} is gone")
    mistaken = BUILD / f"mistaken{source.suffix}"
    mistaken.write_text(text.replace(mistake.right, mistake.wrong))
    if source.suffix != ".c":
        overlay = BUILD / "overlay.json"
        overlay.write_text(json.dumps({"Replace": {str(source): str(mistaken)}}))
        go_build("-overlay", str(overlay))
        return
    compiled = BUILD / "mistaken.o"
    body = re.sub(
        r'#include "((?:\.\./)*[\w./]+)"',
        lambda m: f'#include "{(source.parent / m[1]).resolve()}"',
        mistaken.read_text(),
    )
    mistaken.write_text(body)
    compile_c(mistaken, source.parent, compiled)
    right = str(object_of(source))
    link_library([str(compiled) if word == right else word for word in link])


def link_library(words: list[str]) -> None:
    at = words.index("-o") + 1
    run([*words[:at], str(LIBRARY), *words[at + 1 :]])


def compile_programs() -> list[tuple[Path, str]]:
    """Every case of every program."""
    cases = []
    for program in PROGRAMS:
        source, out = CABI / f"{program}.c", BUILD / program
        run(
            [
                "cc",
                "-std=c11",
                "-g",
                "-Iinclude",
                "-o",
                str(out),
                str(source),
                "-Lbuild",
                "-ladcg",
                "-lm",
                "-pthread",
                "-ldl",
            ]
        )
        table = source.read_text().split("harness_case cases[] = {")[1]
        cases += [(out, case) for case in re.findall(r'\{"(\w+)", \w+\}', table)]
    return cases


def first_failure(cases: list[tuple[Path, str]], seconds: dict[tuple[Path, str], float] | None = None) -> str | None:
    """The first case that fails; notes how long those before it took."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAKECUDA_")} | {
        "ADCG_TEST_DEVICE": "cuda:0",
        "LD_LIBRARY_PATH": f"{BUILD}:{STANDIN}",
        "FAKECUDA_KERNELS": str(STANDIN / "kernels.so"),
        "FAKECUDA_POISON": "255",
        "FAKECUDA_SEED": "7",
        "MALLOC_PERTURB_": "165",
    }
    for program, case in cases:
        start = time.monotonic()
        try:
            done = subprocess.run([program, case], env=env, capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return f"{program.name} {case} (hangs)"
        if done.returncode not in (0, 77):
            return f"{program.name} {case}"
        if seconds is not None:
            seconds[program, case] = time.monotonic() - start
    return None


def main() -> int:
    words = sys.argv[1:]
    BUILD.mkdir(parents=True, exist_ok=True)
    cases = compile_programs()
    link = build_once()
    link_library(link)  # what is there may have a mistake of a run that was ended
    seconds: dict[tuple[Path, str], float] = {}
    if failed := first_failure(cases, seconds):
        sys.exit(f"without a mistake: {failed} fails")
    cases.sort(key=lambda case: seconds[case])  # most mistakes are caught at once
    tried = [m for m in MISTAKES if not words or any(word in m.name for word in words)]
    tried.sort(key=lambda m: m.file.endswith(".go"))  # a build each: last
    survived = []
    for number, mistake in enumerate(tried, 1):
        start = time.monotonic()
        build(mistake, link)
        caught = first_failure(cases)
        if not caught:
            survived.append(mistake.name)
        verdict = f"caught by {caught}" if caught else "SURVIVES"
        print(
            f"{number:3} {verdict:45} {mistake.name} ({time.monotonic() - start:.0f} s)",
            flush=True,
        )
    count = len(tried) - len(survived)
    print(f"{count} of {len(tried)} mistakes caught ({100 * count / max(len(tried), 1):.0f} %, target {TARGET})")
    for name in survived:
        print(f"  survives: {name}")
    return 0 if 100 * count >= TARGET * len(tried) else 1


if __name__ == "__main__":
    sys.exit(main())
