"""What the Python tests share. They need the library (build/libadcg.so, or ADCG_LIBRARY) and find the modules of this
checkout without an installation."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in ("bindings/python", "examples/python", "tests/golden", "tests/bench"):
    sys.path.insert(0, str(ROOT / folder))

import adcg  # noqa: E402

STANDIN = ROOT / "build" / "fakecuda"


def load_standin() -> bool:
    """Loads the stand-in for the CUDA driver (`make fakecuda`) under its soname: whoever asks for that finds it.
    ADCG_TEST_DRIVER=real leaves the machine's own."""
    if os.environ.get("ADCG_TEST_DRIVER") == "real":
        return True
    driver, kernels = STANDIN / "libcuda.so.1", STANDIN / "kernels.so"
    if not driver.is_file() or not kernels.is_file():
        return False
    os.environ["FAKECUDA_KERNELS"] = str(kernels)
    ctypes.CDLL(str(driver), ctypes.RTLD_GLOBAL)
    return True


CUDA = load_standin()


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def environment() -> dict[str, str]:
    """For child processes: this checkout's modules, and the library that this process uses."""
    path = os.pathsep.join(str(ROOT / folder) for folder in ("bindings/python", "examples/python"))
    return {**os.environ, "PYTHONPATH": path, "ADCG_LIBRARY": str(Path(adcg.library_path).resolve())}


@pytest.fixture
def device() -> str:
    """What `engine` runs on: the host, unless a test is one of `on_both`."""
    return "host"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `on_both` run on the host and on a CUDA device over the stand-in driver."""
    if metafunc.definition.get_closest_marker("on_both"):
        reason = "the stand-in driver is not built (make fakecuda)"
        cuda = pytest.param("cuda:0", marks=pytest.mark.skipif(not CUDA, reason=reason))
        metafunc.parametrize("device", ["host", cuda])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on_both: runs on the host, and on cuda:0 over the stand-in driver")
    config.addinivalue_line("markers", "on_cuda: runs on cuda:0; `-m on_cuda` chooses what a GPU is for")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        device = (
            item.callspec.params.get("device")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else None
        )
        if device == "cuda:0" or "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("on_cuda")


@pytest.fixture
def engine(device: str) -> Iterator[adcg.Engine]:
    with adcg.Engine(device) as engine:
        yield engine


@pytest.fixture
def cuda() -> Iterator[adcg.Engine]:
    if not CUDA:
        pytest.skip("the stand-in driver is not built (make fakecuda)")
    with adcg.Engine("cuda:0") as engine:
        yield engine


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def linear(engine: adcg.Engine, rng: np.random.Generator) -> Iterator[Any]:
    """A compiled y = x w^T + x over [tokens, 16], with its weight and its reference."""

    class Linear:
        w = rng.standard_normal((16, 16)).astype(np.float32)

        def __init__(self) -> None:
            self.graph = g = engine.graph(max_tokens=64, max_seqs=8)
            x = g.input("x", "float32", [g.tokens, 16])
            g.output("y", g.add(g.linear(x, g.weight("w", "float32", [16, 16])), x))
            self.exec = g.compile({"w": self.w}, buckets=[8, 32])

        def expect(self, x: Any) -> Any:
            return x @ self.w.T + x

        def x(self, rows: int) -> Any:
            return rng.standard_normal((rows, 16)).astype(np.float32)

    made = Linear()
    yield made
    made.exec.close()
    made.graph.close()


@pytest.fixture
def fails() -> Callable[..., Any]:
    """``fails("ERR_SHAPE", "x", call, ...)``: the call raises AdcgError of that status, and says each of the words."""

    def check(status: str, words: str | tuple[str, ...], call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with pytest.raises(adcg.AdcgError) as caught:
            call(*args, **kwargs)
        assert caught.value.status_name == f"ADCG_{status}", str(caught.value)
        for word in (words,) if isinstance(words, str) else words:
            assert word in caught.value.message, f"{word!r} is not in: {caught.value.message}"
        return caught.value

    return check
