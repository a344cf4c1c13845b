"""Runs the test suites that need no GPU and prints one summary: what failed, what was skipped and why, and the counts.

    tools/run_tests.py [go|cabi|fakecuda|cuhost|python ...]      all of them by default

Needs the standard library alone; pytest runs in the Python that runs this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GO = os.environ.get("GO", "go")
SUMMARY = ROOT / "build" / "test-summary.txt"


@dataclass
class Result:
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)  # reason -> tests

    def skip(self, test: str, reason: str) -> None:
        self.skipped.setdefault(reason or "no reason given", []).append(test)

    def add(self, other: Result) -> None:
        self.passed += other.passed
        self.failed += other.failed
        for reason, tests in other.skipped.items():
            self.skipped.setdefault(reason, []).extend(tests)


def run_command(name: str, argv: list[str]) -> Result:
    """A command that passes or fails as a whole."""
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL)
    return Result(passed=1) if done.returncode == 0 else Result(failed=[f"{name}: exit status {done.returncode}"])


def run_go(name: str, argv: list[str]) -> Result:
    return run_events(name, [GO, "test", "-json", *argv])


def standin() -> dict[str, str]:
    """The environment that has the stand-in driver as CUDA's."""
    folder = ROOT / "build" / "fakecuda"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FAKECUDA_")}
    if (kernels := folder / "kernels.so").exists():
        environment["FAKECUDA_KERNELS"] = str(kernels)
    return environment | {"LD_LIBRARY_PATH": str(folder)}


def run_go_on_cuda(name: str, argv: list[str]) -> Result:
    """Go tests whose device is the stand-in's, with poisoned memory and independent nodes in any order."""
    result = run_command("make fakecuda", ["make", "--silent", "fakecuda"])
    if not result.failed:
        chosen = {"ADCG_TEST_DEVICE": "cuda:0", "FAKECUDA_POISON": "255", "FAKECUDA_SEED": "7"}
        result.add(run_events(name, [GO, "test", "-json", *argv], environment=standin() | chosen))
    return result


def run_cuhost(name: str, packages: list[str]) -> Result:
    """Tests of Go packages behind the tag, over the stand-in driver; the Makefile builds them with the CUDA headers."""
    make = ["make", "--silent"]
    if subprocess.run([*make, "headers"], cwd=ROOT, stdin=subprocess.DEVNULL).returncode != 0:
        result = Result()
        for package in packages:
            result.skip(package, "the headers of CUDA 12.9 could not be installed (make headers)")
        return result
    result = run_command("make cuhost", [*make, "fakecuda", "cuhost"])
    for package in packages if not result.failed else []:
        program = ROOT / "build" / "cuhost" / f"{Path(package).name}.test"
        argv = [GO, "tool", "test2json", "-t", "-p", package, str(program), "-test.v=test2json", "-test.paniconexit0"]
        result.add(run_events(name, argv, cwd=ROOT / Path(package).name, environment=standin()))
    return result


def run_events(name: str, argv: list[str], cwd: Path = ROOT, environment: dict[str, str] | None = None) -> Result:
    """A program that tells of Go tests in JSON: counts tests and subtests, shows the output of those that fail."""
    result = Result()
    output: dict[tuple[str, str], list[str]] = {}
    process = subprocess.Popen(
        argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            print(line, end="")
            continue
        package, test = event.get("Package", event.get("ImportPath", "")), event.get("Test", "")
        action = event["Action"]
        lines = output.setdefault((package, test), [])
        label = f"{package}.{test}" if test else package
        if action in ("output", "build-output"):
            lines.append(event["Output"])
        elif action == "pass":
            result.passed += bool(test)
            if not test:
                print(f"ok    {package} ({event.get('Elapsed', 0):.1f} s)", flush=True)
        elif action == "skip" and test:
            said = [text.strip() for text in lines if not text.lstrip().startswith(("===", "---"))]
            result.skip(label, said[-1].split(": ", 1)[-1] if said else "")
        elif action in ("fail", "build-fail"):
            print(f"FAIL  {label}\n" + "".join(lines), end="", flush=True)
            if test or not any(failed.startswith(package) for failed in result.failed):
                result.failed.append(label)
    if process.wait() != 0 and not result.failed:
        result.failed.append(f"{name}: exit status {process.returncode}")
    return result


def run_pytest(name: str, paths: list[str]) -> Result:
    """A process a core. Tests of one file stay together unless paths say otherwise: files compile their programs."""
    report = ROOT / "build" / f"junit-{name}.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist=loadfile", "--timeout=300"]
    done = subprocess.run([*argv, f"--junitxml={report}", *paths], cwd=ROOT, stdin=subprocess.DEVNULL)
    result = Result()
    if report.exists():
        for case in ET.parse(report).getroot().iter("testcase"):
            label = f"{case.get('classname')}.{case.get('name')}"
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                result.failed.append(label)
            elif skipped is not None:
                result.skip(label, skipped.get("message", ""))
            else:
                result.passed += 1
    if done.returncode != 0 and not result.failed:
        result.failed.append(f"{name}: pytest exit status {done.returncode}")
    return result


def suites(chosen: list[str]) -> list[tuple[str, object, list[str]]]:
    listed = subprocess.run([GO, "list", "./..."], cwd=ROOT, capture_output=True, text=True)
    packages = listed.stdout.split()
    raced = [p for p in packages if p.endswith(("/capi", "/tests/integration"))]  # what several threads call
    python = [p for p in ("tests/python", "tests/golden") if list((ROOT / p).rglob("test_*.py"))]
    every = {
        "go": [
            ("go vet", run_command, [GO, "vet", "./..."]),
            ("go test -race", run_go, ["-race", "-buildmode=default", "-timeout", "30m", *raced]),
            ("go test", run_go, ["-timeout", "30m", *packages]),
        ],
        "cabi": [("cabi", run_pytest, ["tests/cabi", "tests/abi"])],
        "fakecuda": [
            ("fakecuda", run_pytest, ["tests/fakecuda", "tests/fakecublaslt"]),
            ("kernels", run_pytest, ["--dist=worksteal", "tests/kernels"]),
            ("gpu", run_pytest, ["tests/gpu"]),
            ("go on cuda:0", run_go_on_cuda, ["-run", "^Test(Program|AttentionThroughAGraph)$", "./tests/integration"]),
        ],
        "cuhost": [("cuhost", run_cuhost, ["github.com/libadcg/libadcg/cuhost"])],
        "python": [("python", run_pytest, ["--dist=worksteal", *python])],
    }
    unknown = [c for c in chosen if c not in every]
    if unknown:
        sys.exit(f"run_tests.py: suite: {unknown[0]}, there are {', '.join(every)}")
    return [suite for key in chosen or every for suite in every[key]]


def main() -> int:
    total = Result()
    os.environ.pop("MAKEFLAGS", None)  # of a make that runs jobs at once; those that tests run are not its own
    (ROOT / "build").mkdir(exist_ok=True)
    for name, run, args in suites(sys.argv[1:]):
        if not args:
            continue
        print(f"== {name}", flush=True)
        start = time.monotonic()
        part = run(name, args)  # type: ignore[operator]
        skipped = sum(map(len, part.skipped.values()))
        print(
            f"== {name}: {part.passed} passed, {len(part.failed)} failed, {skipped} skipped"
            f" in {time.monotonic() - start:.0f} s\n",
            flush=True,
        )
        total.add(part)
    lines = [f"failed   {label}" for label in total.failed]
    for reason, tests in sorted(total.skipped.items()):
        shown = ", ".join(tests[:3]) + (f" and {len(tests) - 3} more" if len(tests) > 3 else "")
        lines.append(f"skipped  {reason}: {shown}")
    skipped = sum(map(len, total.skipped.values()))
    lines.append(f"{total.passed} passed, {len(total.failed)} failed, {skipped} skipped")
    SUMMARY.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
