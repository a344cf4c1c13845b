"""Everything that needs a GPU, in one call, into one report: tests/gpu/reports/ holds those that were kept.

Where the library is built (`make gpu`; what to carry to the machine with the GPU is printed there):

    python3 tests/gpu/report.py --out FOLDER [--parts NAME,NAME] [--with REPORT.json] [--minutes 8] [--small]

Each part is a process of its own with a time limit; results are written after each part, to FOLDER/report.json,
report.md and log.txt. --parts runs some of them, --with takes the others from an earlier report. --small is for the
stand-in driver:

    make gpu fakecuda && LD_LIBRARY_PATH=build/fakecuda FAKECUDA_KERNELS=build/fakecuda/kernels.so \
        python3 tests/gpu/report.py --small --out build/gpu/out

Needs Python with numpy, ml_dtypes and safetensors; torch for what is compared with it. No Go, no compiler."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import glob
import importlib.util
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report_markdown

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = "tests/gpu"
LIBRARY = "build/libadcg.so"
CARRIED = "build/gpu/site"  # pytest, for machines that have none
MODULES = ("bindings/python", "examples/python")
SKIPPED = 77  # exit status of a part that cannot run here
TAIL = 6000  # characters of a log that stand in the report, where a part failed or has no results of its own


@dataclass(frozen=True)
class Run:
    """What a part's command depends on."""

    small: bool
    cublaslt: str  # "": found by name
    device: str = "cuda:0"


@dataclass(frozen=True)
class Part:
    name: str
    what: str
    limit: int  # seconds
    command: Callable[[Run], list[str]]
    needs: tuple[str, ...] = (LIBRARY,)  # files
    results: bool = True  # it takes --json FILE
    folder: str = "."
    reason: Callable[[], str] = field(default=lambda: "")  # why it cannot run; "": it can


def script(name: str, *arguments: str) -> Callable[[Run], list[str]]:
    return lambda run: [sys.executable, f"{HERE}/{name}", *arguments, *(["--small"] if run.small else [])]


def kernels(run: Run) -> list[str]:
    return [sys.executable, f"{HERE}/kernels.py", *(["--seeds", "2", "--no-torch"] if run.small else [])]


def lt(run: Run) -> list[str]:
    named = ["--cublaslt", run.cublaslt] if run.cublaslt else []
    return [sys.executable, f"{HERE}/lt.py", *named, *(["--quick", "--without-torch"] if run.small else [])]


def pytest(run: Run) -> list[str]:
    """Those that take a device, on this machine's driver (tests/python/conftest.py), without cuBLASLt, whose tensors
    are staged. Go reads the environment that a process began with."""
    return [
        "env",
        "ADCG_CUBLASLT=none",
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "on_cuda",
        "tests/python",
    ]


def pytest_reason() -> str:
    there = importlib.util.find_spec("pytest") or (ROOT / CARRIED / "pytest").exists()
    return "" if there else f"no pytest, neither installed nor in {CARRIED}"


def serve(run: Run) -> list[str]:
    return [sys.executable, "examples/python/serve.py", "--model", "tests/data/models/tiny-go", "--device", run.device]


def serve_reason() -> str:
    return "" if "--device" in (ROOT / "examples/python/serve.py").read_text() else "serve.py takes no device yet"


GRAPHS = (LIBRARY, "build/gpu/graphs")
PARTS = (
    Part("replay", "host time of a replay beside bare launches", 40, script("graphs.py", "replay"), GRAPHS),
    Part("capture", "time of captures beside bare driver calls", 60, script("graphs.py", "capture"), GRAPHS),
    Part("memory", "device memory of executables", 40, script("graphs.py", "memory"), GRAPHS),
    Part("goldens", "Llama goldens, f32 and bf16", 60, script("goldens.py")),
    Part("llama", "a Llama of 8B shape beside PyTorch", 200, script("llama.py")),
    Part("cabi", "C programs of the ABI", 60, script("cabi.py"), (LIBRARY, "build/gpu/cabi")),
    Part("cuhost", "the gorgonia.org/cu adapter's tests", 40, lambda run: ["../build/cuhost/cuhost.test", "-test.v"],
         ("build/cuhost/cuhost.test",), results=False, folder="cuhost"),
    Part("kernels", "kernels against the host's", 100, kernels, ("build/kernels/libkernels.so",), results=False),
    Part("attention", "attention's kernels", 90, lambda run: [sys.executable, f"{HERE}/attention.py"],
         ("build/kernels/libkernels.so", f"{HERE}/attention.py"), results=False),
    Part("lt", "products through cuBLASLt", 120, lt, ("build/gpu/liblt.so",), results=False),
    Part("serve", "the demo", 40, serve, results=False, reason=serve_reason),
    Part("python", "the Python tests", 60, pytest, results=False, reason=pytest_reason),
)  # fmt: skip


# ---- Where it runs ------------------------------------------------------------------------------------------------


def output_of(*argv: str, seconds: int = 60) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
        return done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        return ""


def find_cublaslt() -> str:
    """The file of cuBLASLt where the loader does not find it by name: torch's, or the toolkit's."""
    names = ("libcublasLt.so.13", "libcublasLt.so.12")
    for name in names:
        try:
            ctypes.CDLL(name)
            return ""
        except OSError:
            pass
    for name in names:
        for pattern in [f"{p}/nvidia/*/lib/{name}" for p in sys.path if p] + [f"/usr/local/cuda*/**/{name}"]:
            for found in sorted(glob.glob(pattern, recursive=True)):
                return found
    return ""


def environment() -> dict[str, Any]:
    versions = (
        "import json, sys; found = {}\n"
        "for name in ('numpy', 'ml_dtypes', 'safetensors', 'torch', 'transformers'):\n"
        "  try: found[name] = __import__(name).__version__\n"
        "  except Exception: pass\n"
        "print(json.dumps(found))"
    )
    engine = (
        "import sys; sys.path.insert(0, 'bindings/python'); import adcg\n"
        "print(adcg.Engine('cuda:0').device.description)"
    )
    commit = ROOT / "build/gpu/commit"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "engine": output_of(sys.executable, "-c", engine) or "no engine on cuda:0",
        "gpu": output_of(
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total,clocks.max.sm,compute_mode",
            "--format=csv,noheader",
        ),
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs, {platform.libc_ver()[1]}",
        "python": platform.python_version(),
        "packages": json.loads(output_of(sys.executable, "-c", versions) or "{}"),
        "commit": commit.read_text().strip() if commit.exists() else "",
        "cublaslt": find_cublaslt(),
    }


# ---- Running -------------------------------------------------------------------------------------------------------


def run_part(part: Part, run: Run, folder: Path, seconds: float) -> dict[str, Any]:
    """Status, seconds, results and the end of the log; never raises."""
    missing = [name for name in part.needs if not (ROOT / name).exists()]
    reason = f"not there: {', '.join(missing)}" if missing else part.reason()
    if reason or seconds < 5:
        return {"status": "skipped", "seconds": 0.0, "note": reason or "no time was left"}
    results, log = ROOT / folder / f"{part.name}.json", ROOT / folder / f"{part.name}.log"
    results.unlink(missing_ok=True)
    argv = [*part.command(run), *(["--json", str(folder / results.name)] if part.results else [])]
    shown = shlex.join(["python3" if argument == sys.executable else argument for argument in argv])
    extra = {
        "ADCG_LIBRARY": str(ROOT / LIBRARY),
        "ADCG_TEST_DEVICE": run.device,
        "ADCG_TEST_DRIVER": "real",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(
            [*(str(ROOT / p) for p in (*MODULES, CARRIED)), os.environ.get("PYTHONPATH", "")]
        ),
    }
    extra |= {"ADCG_CUBLASLT": run.cublaslt} if run.cublaslt else {}
    start = time.monotonic()
    limit = min(part.limit, seconds)
    with log.open("w") as out:
        print(f"$ {shown}", file=out, flush=True)
        try:
            process = subprocess.Popen(
                argv,
                cwd=ROOT / part.folder,
                env={**os.environ, **extra},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return {"status": "failed", "seconds": 0.0, "note": str(error)}
        try:
            code: int | None = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # in the driver for good: the next part may do better
                process.wait(timeout=10)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - start, 1), "command": shown, "note": ""}
    text = log.read_text(errors="replace").replace(f"{ROOT}/", "")
    if code is None:
        found |= {"status": "timed out", "note": f"more than {limit:.0f} s"}
    elif code == SKIPPED:
        found |= {"status": "skipped", "note": text.strip().splitlines()[-1]}
    else:
        found |= {"status": "ok"} if code == 0 else {"status": "failed", "note": f"exit status {code}"}
    if found["status"] in ("failed", "timed out") or not part.results:
        found["tail"] = text[-TAIL:]
    if results.exists():
        try:
            found["result"] = json.loads(results.read_text())
        except ValueError:
            found["note"] += " (results cut off)"
    return found


def write(report: dict[str, Any], folder: Path) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.md").write_text(report_markdown.render(report))


def main() -> int:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", "build/gpu/out"))
    parser.add_argument("--parts", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--with", dest="earlier", type=Path, help="a report.json whose other parts are kept")
    parser.add_argument("--minutes", type=float, default=8.0, help="of all parts together")
    parser.add_argument("--small", action="store_true", help="small sizes, for the stand-in driver")
    options = parser.parse_args()
    chosen = options.parts.split(",")
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"--parts: {unknown[0]}: there are {', '.join(names)}")
    folder = Path(options.out)
    work = Path("build/gpu/parts")  # a log and results for each part
    (ROOT / work).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    report: dict[str, Any] = {"parts": {}}
    if options.earlier:
        report["parts"] = json.loads(options.earlier.read_text())["parts"]
        for name in set(report["parts"]) - set(chosen):
            report["parts"][name].setdefault("earlier", True)
    shown = [argument if argument != str(options.out) else "FOLDER" for argument in sys.argv]
    report["command"] = f"python3 {shlex.join(shown)}"
    report["environment"] = environment()
    report["small"] = options.small
    run = Run(options.small, report["environment"]["cublaslt"])
    failed = 0
    with (folder / "log.txt").open("w") as everything:
        for part in PARTS:
            if part.name not in chosen:
                continue
            done = run_part(part, run, work, end - time.monotonic())
            report["parts"][part.name] = done
            failed += done["status"] in ("failed", "timed out")
            print(f"{part.name:10} {done['status']:10} {done['seconds']:6.1f} s  {done['note']}", flush=True)
            log = ROOT / work / f"{part.name}.log"
            if log.exists():
                everything.write(f"==== {part.name}: {done['status']}\n{log.read_text(errors='replace')}\n")
                everything.flush()
            write(report, folder)
    print((folder / "report.md").read_text()[:9000])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
