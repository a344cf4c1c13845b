"""The C programs of tests/cabi, compiled into build/gpu/cabi, case by case on the device that a variable names.

ADCG_...=cuda:0 python3 tests/gpu/cabi.py [--small] [--json FILE]"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build/gpu/cabi"
SKIPPED = 77
SMALL = 6  # cases of a program


def run(program: Path, case: str) -> dict[str, Any]:
    env = dict(os.environ)
    if program.name == "oom":
        env |= {"LD_PRELOAD": str(FOLDER / "failmalloc.so"), "GOMAXPROCS": "1", "GOGC": "off"}
    found: dict[str, Any] = {"program": program.name, "case": case, "status": "failed"}
    try:
        done = subprocess.run(
            [program, case], env=env, capture_output=True, text=True, timeout=40, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return found | {"said": "more than 40 s"}
    found["status"] = {0: "ok", SKIPPED: "skipped"}.get(done.returncode, "failed")
    if found["status"] != "ok":
        found["said"] = f"exit status {done.returncode}: {(done.stdout + done.stderr)[-400:].strip()}"
    return found


def programs() -> dict[Path, list[str]]:
    """Those that test_cabi.py runs on CUDA, and which of their cases it does not; faults are the stand-in's alone."""
    source = (ROOT / "tests/cabi/test_cabi.py").read_text()
    both = re.search(r"^ON_CUDA: .*? = (\{.*?\n\})", source, re.M | re.S)
    alone = re.search(r"^CUDA_ALONE = (\[.*?\])", source, re.M | re.S)
    assert both and alone, "tests/cabi/test_cabi.py has no ON_CUDA, or no CUDA_ALONE"
    named = {**ast.literal_eval(both[1]), **{name: [] for name in ast.literal_eval(alone[1]) if name != "faults"}}
    return {FOLDER / name: without for name, without in sorted(named.items())}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a few cases of each program")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = []
    for program, without in programs().items():
        listed = subprocess.run(
            [program, "--list"], capture_output=True, text=True, timeout=20, check=True
        ).stdout.split()
        listed = [case for case in listed if case not in without]
        cases += [(program, case) for case in (listed[:SMALL] if options.small else listed)]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda item: run(*item), cases))
    for result in results:
        if result["status"] != "ok":
            print(f"{result['status']:8} {result['program']} {result['case']}: {result.get('said', '')}")
    counts = Counter(result["status"] for result in results)
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    if options.json:
        worse = [result for result in results if result["status"] != "ok"]
        options.json.write_text(json.dumps({"counts": counts, "others": worse}, indent=1))
    return 1 if counts["failed"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
