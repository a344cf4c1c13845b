"""How many planted mistakes the ABI suite catches over the stand-in driver.

    make mutations [MUTATIONS="part of a name ..."]

Each mistake of mistakes.py goes into a library of its own (`go build -overlay`: the sources stay as they are); then the programs of
tests/cabi that drive CUDA run against it until a case fails. Without a mistake every case must pass. Minutes to an hour: not in CI.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from mistakes import MISTAKES, Mistake

ROOT = Path(__file__).resolve().parents[3]
CABI = ROOT / "tests" / "cabi"
BUILD = ROOT / "build" / "mutations"
STANDIN = ROOT / "build" / "fakecuda"
PROGRAMS = ["capture", "exec", "streams", "dispatch", "faults"]
TARGET = 95  # percent


def run(argv: list[str], **kwargs: object) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kwargs)  # type: ignore[call-overload]
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")


def compile_programs() -> list[tuple[Path, str]]:
    """Every case of every program."""
    cases = []
    for program in PROGRAMS:
        source, out = CABI / f"{program}.c", BUILD / program
        link = ["-Lbuild", "-ladcg", "-lm", "-pthread", "-ldl"]
        run([os.environ.get("CC", "cc"), "-std=c11", "-g", "-Iinclude", "-o", str(out), str(source), *link])
        table = source.read_text().split("harness_case cases[] = {")[1]
        cases += [(out, case) for case in re.findall(r'\{"(\w+)", \w+\}', table)]
    return cases


def build(mistake: Mistake | None) -> bool:
    """The library with the mistake in it; False if the compiler catches it."""
    overlay = BUILD / "overlay.json"
    replaced = {}
    if mistake:
        text = (ROOT / mistake.file).read_text()
        assert text.count(mistake.right) == 1, f"{mistake.name}: its place in {mistake.file} is gone"
        (BUILD / "mistaken").write_text(text.replace(mistake.right, mistake.wrong))
        replaced = {str(ROOT / mistake.file): str(BUILD / "mistaken")}
    overlay.write_text(json.dumps({"Replace": replaced}))
    flags = f"-s -w -extldflags '-Wl,-soname,libadcg.so.0 -Wl,--version-script={ROOT}/capi/libadcg.map -Wl,--as-needed -Wl,-z,now'"
    argv = ["go", "build", "-overlay", str(overlay), "-buildmode=c-shared", "-ldflags", flags]
    done = subprocess.run([*argv, "-o", str(BUILD / "libadcg.so.0"), "./capi"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr[-1500:])
    return done.returncode == 0


def first_failure(cases: list[tuple[Path, str]]) -> str | None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAKECUDA_")} | {
        "ADCG_TEST_DEVICE": "cuda:0",
        "LD_LIBRARY_PATH": f"{BUILD}:{STANDIN}",
        "FAKECUDA_KERNELS": str(STANDIN / "kernels.so"),
        "FAKECUDA_POISON": "255",
    }
    for program, case in cases:
        try:
            done = subprocess.run([program, case], env=env, capture_output=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            return f"{program.name} {case} (hangs)"
        if done.returncode not in (0, 77):
            return f"{program.name} {case}"
    return None


def main() -> int:
    words = sys.argv[1:]
    BUILD.mkdir(parents=True, exist_ok=True)
    cases = compile_programs()
    if not build(None) or (failed := first_failure(cases)):
        sys.exit(f"without a mistake: {failed} fails")
    tried = [m for m in MISTAKES if not words or any(word in m.name for word in words)]
    survived = []
    for number, mistake in enumerate(tried, 1):
        start = time.monotonic()
        caught = first_failure(cases) if build(mistake) else "the compiler"
        if not caught:
            survived.append(mistake.name)
        print(f"{number:3} {'caught by ' + caught if caught else 'SURVIVES':50} {mistake.name} ({time.monotonic() - start:.0f} s)", flush=True)
    caught_now = len(tried) - len(survived)
    print(f"{caught_now} of {len(tried)} mistakes caught ({100 * caught_now / max(len(tried), 1):.0f} %, target {TARGET})")
    for name in survived:
        print(f"  survives: {name}")
    return 0 if 100 * caught_now >= TARGET * len(tried) else 1


if __name__ == "__main__":
    sys.exit(main())
