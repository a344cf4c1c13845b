"""Processes and threads around the library, its log, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import adcg
import numpy as np
import pytest
from adcg.cli_ladder import parse

Fails = Callable[..., adcg.AdcgError]

SMALL = """
import adcg, numpy as np, sys, os
engine = adcg.Engine("host")
g = engine.graph(max_tokens=4, max_seqs=4)
x = g.input("x", "float32", [g.tokens, 2])
g.output("y", g.add(x, x))
exec_ = g.compile()
def work():
    return float(exec_.replay(adcg.Batch(decode_seqs=3), [np.ones((3, 2), np.float32)]).outputs["y"].sum())
"""


def python(program: str, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_c(environment: dict[str, str]) -> None:
    assert python(SMALL + "print(work())", environment) == "12.0\n"


def test_nothing_is_closed(environment: dict[str, str]) -> None:
    """A process that just ends, with live handles in a cycle, ends well."""
    assert python(SMALL + "cycle = [exec_]; cycle.append(cycle); print(work()); sys.exit(0)", environment) == "12.0\n"


def test_a_thread_that_is_not_the_loader(environment: dict[str, str]) -> None:
    """Loaded in one thread that ends, used in others, in parallel with an exec each."""
    program = """
import threading
def load():
    import adcg
first = threading.Thread(target=load); first.start(); first.join()
import adcg, numpy as np
results = []
def use(number):
    with adcg.Engine("host") as engine, engine.graph(max_tokens=8, max_seqs=4) as g:
        x = g.input("x", "float32", [g.tokens, 2])
        g.output("y", g.add(x, x))
        with g.compile() as exec_:
            for i in range(200):
                y = exec_.replay(adcg.Batch(decode_seqs=3), [np.full((3, 2), i, np.float32)]).outputs["y"]
                assert (y == 2 * i).all()
    results.append(number)
threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(results))
"""
    assert python(program, environment) == "[0, 1, 2, 3]\n"


def test_a_forked_child(environment: dict[str, str]) -> None:
    """Every call in the child is ERR_FORKED, closing does nothing, and the parent goes on."""
    program = (
        SMALL
        + """
before = work()
child = os.fork()
if child == 0:
    status = 0
    for call in (work, lambda: adcg.Engine("host"), g.forecast, lambda: engine.device, exec_.stats, exec_.capture):
        try:
            call()
            status = 1
        except adcg.AdcgError as error:
            if error.status_name != "ADCG_ERR_FORKED" or "fork" not in error.message:
                print(error, file=sys.stderr)
                status = 2
    exec_.close(); g.close(); engine.close()
    os._exit(status)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), before == work())
"""
    )
    assert python(program, environment) == "0 True\n"


def test_without_a_library(environment: dict[str, str], tmp_path: Path) -> None:
    environment = {**environment, "ADCG_LIBRARY": str(tmp_path / "nothing.so")}
    done = subprocess.run([sys.executable, "-c", "import adcg"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and f"ADCG_LIBRARY: no such file: {tmp_path / 'nothing.so'}" in done.stderr
    (tmp_path / "nothing.so").write_bytes(b"not a library")
    done = subprocess.run([sys.executable, "-c", "import adcg"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "cannot load the library" in done.stderr


def test_devices(fails: Fails) -> None:
    with adcg.Engine("host", threads=1) as engine:
        assert engine.device.name == "host" and engine.device.threads == 1 and engine.device.device_type == 1
    fails("ERR_DEVICE", "toaster", adcg.Engine, "toaster:0")
    fails("ERR_DEVICE", "cuda:999", adcg.Engine, "cuda:999")  # with a driver, the stand-in's too, or without one


def test_last_error_is_per_thread(fails: Fails) -> None:
    fails("ERR_DEVICE", "toaster", adcg.Engine, "toaster:0")
    messages: list[str] = []
    thread = threading.Thread(target=lambda: messages.append(adcg._ffi.lib.adcg_last_error().decode()))
    thread.start()
    thread.join()
    assert messages == [""]


def test_log(fails: Fails) -> None:
    lines: list[tuple[str, str]] = []
    adcg.set_log(lambda level, message: lines.append((level, message)), "debug")
    try:
        with adcg.Engine("host") as engine, engine.graph(max_tokens=4, max_seqs=2) as g:
            x = g.input("x", "float32", [g.tokens])
            g.output("y", g.add(x, x))
            with g.compile() as exec_:
                exec_.capture()
                count = len(lines)
                for _ in range(3):
                    exec_.replay(adcg.Batch(decode_seqs=1), [np.ones(1, np.float32)])
                assert len(lines) == count  # a replay does not log
        assert lines and all(level in ("error", "warning", "info", "debug") and text for level, text in lines)
    finally:
        adcg.set_log(None)
    count = len(lines)
    adcg.Engine("host").close()
    assert len(lines) == count
    fails("ERR_ARGUMENT", "loud", adcg.set_log, print, "loud")
    fails("ERR_ARGUMENT", "int", adcg.set_log, 3)


def test_a_log_that_raises(capsys: pytest.CaptureFixture[str]) -> None:
    def log(level: str, message: str) -> None:
        raise OSError("disk full")

    adcg.set_log(log, "debug")
    try:
        with adcg.Engine("host") as engine, engine.graph(max_tokens=4, max_seqs=2) as g:
            x = g.input("x", "float32", [g.tokens])
            g.output("y", g.add(x, x))
            g.compile().close()
    finally:
        adcg.set_log(None)
    assert "disk full" in capsys.readouterr().err


def adcg_cli(environment: dict[str, str], *arguments: str, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "adcg", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_info(environment: dict[str, str]) -> None:
    out, _ = adcg_cli(environment, "info")
    assert adcg.__version__ in out and "adcg.attention" in out and "window: int = 0" in out and "host" in out
    _, err = adcg_cli(environment, "--device", "toaster", "info", code=1)
    assert "toaster" in err and "ADCG_ERR_DEVICE" in err


def test_plan_of_the_demo_graph(environment: dict[str, str]) -> None:
    out, _ = adcg_cli(environment, "plan", "--tokens", "128", "--seqs", "4")
    assert "adcg.attention" in out
    out, _ = adcg_cli(environment, "plan", "--format", "json", "--buckets", "16,64")
    assert json.loads(out)


def test_plan_into_a_file(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "plan.svg"
    out, _ = adcg_cli(environment, "plan", "--format", "svg", "-o", str(file))
    assert out == "" and ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    out, _ = adcg_cli(environment, "plan", "--format", "svg")
    assert out == file.read_text(encoding="utf-8")
    adcg_cli(environment, "plan", "--forecast", "-o", str(file))
    assert "peak liveness (bound)" in file.read_text()
    _, err = adcg_cli(environment, "plan", "--format", "png", code=2)
    assert "--format" in err and "'png'" in err and "svg" in err
    _, err = adcg_cli(environment, "plan", "--format", "svg", "-o", str(tmp_path), code=1)
    assert err.startswith(f"adcg plan: --output: {tmp_path}: ") and "Traceback" not in err


def test_plan_of_a_checkpoint(environment: dict[str, str], root: Path) -> None:
    model = str(root / "tests" / "data" / "models" / "tiny-go")
    out, _ = adcg_cli(environment, "plan", "--model", model, "--forecast")
    assert "peak liveness (bound)" in out
    out, _ = adcg_cli(environment, "plan", "--model", model, "--mode", "piecewise")
    assert "adcg.attention" in out
    out, _ = adcg_cli(environment, "plan", "--model", f"{model}-nemotron_h")
    assert "adcg.ssm" in out and "adcg.moe" in out


@pytest.mark.parametrize(
    ("extra", "mode"),
    [
        ([], "full"),  # of Llama, for mixed steps too
        (["--capture", "upfront", "--temperature", "0.8", "--seed", "3"], "full"),
        (["--mode", "piecewise"], "piecewise"),
    ],
)
def test_serve(environment: dict[str, str], root: Path, tmp_path: Path, extra: list[Any], mode: str) -> None:
    """The main job, shortened: its check is its exit status."""
    histogram = tmp_path / "steps.csv"
    arguments = ["--requests", "5", "--max-new", "24", "--gap", "3", "--histogram", str(histogram), *extra]
    done = subprocess.run(
        [sys.executable, str(root / "examples" / "python" / "serve.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("steps", "fallbacks", "memory", "speed", "equal eager's bit for bit", "peak-liveness bound"):
        assert words in done.stdout
    rows = done.stdout.split("\nsteps\n")[1].split("\ntotal ")[0].splitlines()[2:]
    assert {row.split()[0] for row in rows} == {mode}
    assert "serve" in done.stderr  # the progress bar
    steps = parse(histogram.read_text())
    total = next(line.split() for line in done.stdout.splitlines() if line.startswith("total "))
    assert [sum(steps.values()), sum(tokens * count for tokens, count in steps.items())] == [
        int(number.replace(",", "")) for number in total[1:3]
    ]


@pytest.mark.parametrize("family", ["qwen3_5_moe", "nemotron_h", "glm4_moe_lite"])
def test_serve_families(environment: dict[str, str], root: Path, family: str) -> None:
    """Picked by config.json; every step equals eager's, and what is written is the golden continuation."""
    script, model = (root / part for part in ("examples/python/serve.py", f"tests/data/models/tiny-go-{family}"))
    arguments = ["--model", str(model), "--requests", "5", "--max-new", "24", "--gap", "3"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr
    assert "equal eager's bit for bit" in done.stdout
    assert "check: 5 of 5 requests wrote what golden.safetensors has" in done.stdout


def test_serve_notices_a_wrong_token(environment: dict[str, str], root: Path, tmp_path: Path) -> None:
    """A golden continuation that is not the model's fails the run."""
    from safetensors.numpy import load_file, save_file

    model = root / "tests" / "data" / "models" / "tiny-go"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(model / name)
    golden = load_file(model / "golden.safetensors")
    for i in range(5):
        tokens, logits = golden[f"tokens.{i}"], golden[f"logits.{i}"]
        at = len(tokens) - 150  # within the continuation, which is 160 long
        tokens[at] = (tokens[at] + 1) % 256
        logits[at - 1, tokens[at]] = logits[at - 1].max() + 1  # so that it still looks like one
    save_file(golden, tmp_path / "golden.safetensors")
    script = str(root / "examples" / "python" / "serve.py")
    arguments = ["--model", str(tmp_path), "--requests", "2", "--max-new", "100", "--no-check"]
    done = subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and "check: 0 of 2 requests wrote" in done.stdout, done.stdout[-500:] + done.stderr


def test_serve_is_the_same_in_every_schedule(environment: dict[str, str], root: Path) -> None:
    """What a request writes depends neither on the slots nor on the budget nor on who is beside it."""
    written = set()
    for slots, budget in ((1, 64), (5, 7)):
        script = str(root / "examples" / "python" / "serve.py")
        arguments = ["--requests", "5", "--max-new", "16", "--slots", str(slots), "--budget", str(budget)]
        arguments += ["--temperature", "0.7", "--no-check"]
        done = subprocess.run(
            [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.split("\nsteps\n")[0]
        written.add("".join(line for line in text.splitlines() if not line.startswith("---")))
    assert len(written) == 1


def test_serve_refuses_what_it_cannot_reproduce(environment: dict[str, str], root: Path, tmp_path: Path) -> None:
    config = json.loads((root / "tests" / "data" / "models" / "tiny-go" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    script = str(root / "examples" / "python" / "serve.py")
    done = subprocess.run(
        [sys.executable, script, "--model", str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and "hidden_act: 'gelu' is not supported" in done.stderr
