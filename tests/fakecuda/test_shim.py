"""The shim that runs CUDA kernels on the CPU: what kernels may do works as on a device, and planted mistakes are
found."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build/fakecuda"
ILLEGAL_ADDRESS, LAUNCH_FAILED = 700, 719


class Args(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_ulonglong),
        ("to", ctypes.c_ulonglong),
        ("count", ctypes.c_int),
        ("unused", ctypes.c_int),
    )


class Driver:
    """A context with the kernels of mistakes.cu, of 1024 words each to read and to write."""

    def __init__(self) -> None:
        subprocess.run(["flock", "Makefile", "make", "--silent", "build/fakecuda/libcuda.so.1"], cwd=ROOT, check=True)
        kernels = BUILD / "mistakes.so"
        flags = [
            "-x",
            "c++",
            "-std=c++17",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Wno-unknown-pragmas",
            "-Werror",
            "-fPIC",
            "-shared",
        ]
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, *flags, "-o", str(kernels), str(HERE / "shim/mistakes.cu")], check=True)
        self.image = f"fakecuda-image 1\nlibrary {kernels}\n".encode()
        self.cuda = ctypes.CDLL(str(BUILD / "libcuda.so.1"))
        self.cuda.fakecuda_reason.restype = ctypes.c_char_p
        self.reset()

    def reset(self) -> None:
        self.cuda.fakecuda_reset()
        context, self.module = ctypes.c_void_p(), ctypes.c_void_p()
        self.source, self.to = ctypes.c_ulonglong(), ctypes.c_ulonglong()
        self.check(self.cuda.cuInit(0))
        self.check(self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
        self.check(self.cuda.cuCtxSetCurrent(context))
        self.check(self.cuda.cuModuleLoadData(ctypes.byref(self.module), self.image))
        for address in (self.source, self.to):
            self.check(self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(4096)))

    def check(self, status: int) -> None:
        assert status == 0, f"CUDA status {status}"

    def launch(
        self, kernel: str, threads: int, count: int = 0, blocks: int = 1, shared: int = 0
    ) -> tuple[int, str, list[int]]:
        """Status, reason, and what was written over 1 .. 1024; the words to read are 100 .. 1123."""
        function, words = ctypes.c_void_p(), ctypes.c_int * 1024
        self.check(self.cuda.cuModuleGetFunction(ctypes.byref(function), self.module, kernel.encode()))
        self.check(self.cuda.cuMemcpyHtoD_v2(self.source, words(*range(100, 1124)), ctypes.c_size_t(4096)))
        self.check(self.cuda.cuMemcpyHtoD_v2(self.to, words(*range(1, 1025)), ctypes.c_size_t(4096)))
        args = Args(self.source.value, self.to.value, count, 0)
        params = (ctypes.c_void_p * 1)(ctypes.addressof(args))
        self.check(self.cuda.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, None, params, None))
        status = self.cuda.cuCtxSynchronize()
        reason = self.cuda.fakecuda_reason().decode()
        out = words()
        if status == 0:
            self.check(self.cuda.cuMemcpyDtoH_v2(out, self.to, ctypes.c_size_t(4096)))
        return status, reason, list(out)


@pytest.fixture(scope="module")
def loaded() -> Driver:
    return Driver()


@pytest.fixture
def driver(loaded: Driver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    for name in ("FAKECUDA_THREAD_SEED", "FAKECUDA_SHARED_POISON"):
        monkeypatch.delenv(name, raising=False)
    loaded.reset()
    yield loaded
    loaded.reset()


def test_barrier(driver: Driver) -> None:
    assert driver.launch("reverse", 200)[2][:200] == list(range(299, 99, -1))


def test_missing_barrier_shows(driver: Driver) -> None:
    """Readers before writers find what the last block left, or poison."""
    assert driver.launch("reverse_unsynchronised", 256)[2][:256] != list(range(355, 99, -1))


def test_seeds_show_a_missing_barrier(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    right = [100, *range(100, 355)]
    assert driver.launch("copy_unsynchronised", 256)[2][:256] == right  # by chance
    monkeypatch.setenv("FAKECUDA_SHARED_POISON", "255")
    for seed in range(1, 6):
        monkeypatch.setenv("FAKECUDA_THREAD_SEED", str(seed))
        assert driver.launch("copy_unsynchronised", 256)[2][:256] != right
        assert driver.launch("copy_synchronised", 256)[2][:256] == right


def test_seeds_show_an_order_of_blocks(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    right = [1] * 101
    assert driver.launch("chain", 1, blocks=100)[2][:101] == right
    monkeypatch.setenv("FAKECUDA_THREAD_SEED", "1")
    first, second = (driver.launch("chain", 1, blocks=100)[2][:101] for _ in range(2))
    assert first != right
    assert first != second  # drawn anew at each launch


def test_poison(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKECUDA_SHARED_POISON", "0x5a")
    assert driver.launch("stale", 32, shared=128)[2][:2] == [0x5A5A5A5A] * 2


def test_votes(driver: Driver) -> None:
    out = driver.launch("votes", 96)[2][:96]
    assert out == [96 * 1000 + 111] * 96


def test_shuffles(driver: Driver) -> None:
    out = driver.launch("shuffles", 64)[2]
    for i in range(64):
        warp, lane = i // 32 * 32, i % 32
        low = -1 if lane >= 16 else 100 + min(i + 1, warp + 15)
        up = 100 + (i - 3 if lane >= 3 else i)
        assert out[4 * i : 4 * i + 4] == [sum(range(100 + warp, 132 + warp)), low, up, 100 + i // 4 * 4 + 2], i


def test_dynamic_shared_memory(driver: Driver) -> None:
    assert driver.launch("dynamic", 1, count=64, shared=256)[2][0] == 63
    status, reason, _ = driver.launch("dynamic", 1, count=65, shared=256)
    assert status == ILLEGAL_ADDRESS
    assert "dynamic: touched memory that it may not" in reason


@pytest.mark.parametrize(
    ("kernel", "threads", "count", "reason"),
    [
        ("divergent_barrier", 64, 40, "40 of 64 threads wait at a barrier (line 54) that 24 have ended without"),
        ("two_barriers", 64, 40, "at a barrier in line"),
        ("divergent_shuffle", 32, 31, "waits for lane 31 of its warp, which has ended"),
        ("masks_differ", 32, 0, "thread 16 waits for lane 0 of its warp, which has ended"),
        ("foreign_lane", 32, 0, "shuffles from lane 20, which takes no part (mask 0000ffff)"),
        ("other_operation", 32, 0, "threads 1 and 0 meet in different operations of their warp"),
        ("not_among_its_lanes", 32, 0, "thread 16 is none of the lanes (mask 0000ffff) that it waits with"),
        ("divergent_shuffle", 128, 128, "128 threads, its bound is 64"),
    ],
)
@pytest.mark.parametrize("seed", ["", "5"])
def test_misuse_ends_the_launch(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, kernel: str, threads: int, count: int, reason: str, seed: str
) -> None:
    """With a status and a reason, never a hang; the process lives, and a new context works."""
    monkeypatch.setenv("FAKECUDA_THREAD_SEED", seed)
    status, said, _ = driver.launch(kernel, threads, count)
    assert status == LAUNCH_FAILED
    assert said.startswith(f"{kernel}, block (0, 0, 0): ")
    if not seed:
        assert reason in said
    driver.reset()
    assert driver.launch("reverse", 4)[2][:4] == [103, 102, 101, 100]


def test_a_whole_warp_or_none_may_shuffle(driver: Driver) -> None:
    assert driver.launch("divergent_shuffle", 64, 64)[0] == 0
    assert driver.launch("divergent_shuffle", 64, 32)[0] == 0
    assert driver.launch("divergent_barrier", 64, 64)[0] == 0
    assert driver.launch("divergent_barrier", 64, 0)[0] == 0


def test_stack(driver: Driver) -> None:
    assert driver.launch("deep", 64, 100 << 10)[0] == 0
