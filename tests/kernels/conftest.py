"""One runner for all: a process has one driver."""

from __future__ import annotations

import os
import subprocess

import pytest
from kernel_runner import IMAGE, LIBRARY, ROOT, Runner


@pytest.fixture(scope="session")
def runner() -> Runner:
    subprocess.run(
        ["flock", "Makefile", "make", "--silent", "fakecuda", str(LIBRARY.relative_to(ROOT))], cwd=ROOT, check=True
    )
    os.environ["FAKECUDA_KERNELS"] = str(ROOT / "build/fakecuda/kernels.so")
    return Runner(str(ROOT / "build/fakecuda/libcuda.so.1"), IMAGE.read_bytes())
