"""`adcg.linear` through cuBLASLt on a GPU, against torch in the same run: results, algorithms, nodes, times.

    python tests/gpu/lt.py [--quick] [--library build/gpu/liblt.so] [--image kernels/cuda/images/kernels.fatbin]
                           [--cublaslt FILE] [--report FILE.json]

Needs Python, numpy, torch and libcuda.so.1; no compiler and no Go (`make build/gpu/liblt.so` where there are some).
Without torch, or with --without-torch, it tries itself on the stand-ins as far as they go: small shapes, no times.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import math
import statistics
import sys
from ctypes import byref, c_float, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from lt_device import Cuda, Device, linear_of

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPES = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}  # N, K of Llama 8B
ROWS = [1, 8, 64, 512, 2048, 8192]
TIMED = [1, 64, 2048]
POLICIES = {"default": 1.25, "plain": float("inf"), "first": 0.0}  # plain_cost of lt.h
ACTIVATIONS = ["none", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid"]
SMALL = [(1, 64, 128), (5, 40, 96), (70, 136, 264)]  # M, N, K
LARGE = [(1, 64, 128), (37, 1032, 520), (300, 2048, 4096)]

# ---- Right results -----------------------------------------------------------------------------------------------


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def from_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32)


def activated(name: str, x: np.ndarray) -> np.ndarray:
    """In float64, by the definition."""
    with np.errstate(over="ignore"):
        if name == "silu":
            return x / (1 + np.exp(-x))
        if name == "sigmoid":
            return 1 / (1 + np.exp(-x))
        if name == "gelu":
            return 0.5 * x * np.vectorize(math.erfc)(-x / np.sqrt(2))
        if name == "gelu_tanh":
            return x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    relu = np.where(x < 0, 0, x)
    return {"none": x, "relu": relu, "relu2": relu * relu}[name]


def check(
    cuda: Cuda, device: Device, size: tuple[int, int, int], bf16: bool, activation: str, bias_type: int, gap: int
) -> float:
    """The largest error over one rounding of the result and those of f32 sums; what lies between rows must stay."""
    m, n, k = size
    rng = np.random.default_rng(m * 7 + n * 3 + k)
    pack, unpack = (to_bf16, from_bf16) if bf16 else (np.float32, np.float32)
    x, w = (pack(rng.uniform(-1, 1, size).astype(np.float32)) for size in ((m, k + gap), (n, k)))
    y = pack(rng.uniform(-1, 1, (m, n + gap)).astype(np.float32))
    bias = rng.uniform(-1, 1, n).astype(np.float32)
    bias = to_bf16(bias) if bias_type == 2 else bias
    addresses = [cuda.upload(a) for a in (x, w, bias, y)]
    linear = linear_of(cuda, m, n, k, bf16, activation, ldx=k + gap, ldy=n + gap, bias_type=bias_type)
    linear.x, linear.w, linear.bias, linear.y = addresses
    linear.workspace_bytes = device.workspace(linear)
    linear.workspace = cuda.alloc(linear.workspace_bytes)
    device.run(linear)
    cuda.synchronize()
    got = unpack(cuda.download(addresses[3], y))
    cuda.free(*addresses, linear.workspace)
    a, b = unpack(x)[:, :k].astype(np.float64), unpack(w).astype(np.float64)
    sums, sizes = a @ b.T, np.abs(a) @ np.abs(b).T
    if bias_type:
        sums = sums + (from_bf16(bias) if bias_type == 2 else bias)
    want = activated(activation, sums)
    slope = 2 * np.abs(sums) + 1 if activation == "relu2" else 1.2
    limit = np.abs(want) * (2.0**-8 if bf16 else 2.0**-20) + 2.0**-22 * sizes * slope
    assert np.array_equal(got[:, n:], unpack(y)[:, n:]), "written between rows"
    return float(np.max(np.abs(got[:, :n] - want) / limit))


def right_results(cuda: Cuda, device: Device, quick: bool) -> dict[str, float]:
    """Every bias with every gap between rows; of the largest size, whose sums take long, each of both once."""
    errors = {}
    for size in SMALL if quick else LARGE:
        pairs = [(0, 0), (1, 3), (2, 8)] if size == LARGE[-1] else list(itertools.product((0, 1, 2), (0, 3, 8)))
        for bf16, activation, (bias_type, gap) in itertools.product((True, False), ACTIVATIONS, pairs):
            label = f"{size} {'bf16' if bf16 else 'f32'} {activation} bias {bias_type} gap {gap}"
            errors[label] = check(cuda, device, size, bf16, activation, bias_type, gap)
    return errors


def nan_through_relu(cuda: Cuda, device: Device) -> bool:
    """Whether a NaN of x comes out of the library's relu, as it does of the host's."""
    x = np.zeros((2, 64), np.uint16)
    x[1, 3] = 0x7FC0
    w, y = to_bf16(np.ones((16, 64), np.float32)), np.zeros((2, 16), np.uint16)
    addresses = [cuda.upload(a) for a in (x, w, y)]
    linear = linear_of(cuda, 2, 16, 64, True, "relu", x=addresses[0], w=addresses[1], y=addresses[2])
    linear.workspace_bytes = device.workspace(linear)
    linear.workspace = cuda.alloc(linear.workspace_bytes)
    device.run(linear)
    cuda.synchronize()
    nan = np.isnan(from_bf16(cuda.download(addresses[2], y)))
    cuda.free(*addresses, linear.workspace)
    return bool(nan[1].all() and not nan[0].any())


def pinned_rows(cuda: Cuda, library: Path, cublaslt: str, n: int, k: int, rows: list[int]) -> dict[str, str]:
    """For each algorithm that could be pinned: in how many counts of rows the first row keeps its bits."""
    rng = np.random.default_rng(5)
    x, w = (cuda.upload(to_bf16(rng.uniform(-1, 1, s).astype(np.float32))) for s in ((max(rows), k), (n, k)))
    y = cuda.alloc(max(rows) * n * 2)
    result = {}
    for pinned in rows:
        device = Device(cuda, library, cublaslt, invariant=True, pinned_rows=pinned)
        bits, refused = set(), 0
        for m in rows:
            try:
                device.run(linear_of(cuda, m, n, k, x=x, w=w, y=y))
            except RuntimeError:
                refused += 1
                continue
            cuda.synchronize()
            bits.add(cuda.download(y, np.empty(n, np.uint16)).tobytes())
        result[f"pinned to {pinned} rows"] = f"{len(rows)} counts, {refused} refused, {len(bits)} different first rows"
        device.close()
    cuda.free(x, w, y)
    return result


# ---- Times -------------------------------------------------------------------------------------------------------


def copies(n: int, k: int) -> int:
    """How many weights a pass goes round, so that none is in the L2 cache (50 MB and more)."""
    return max(2, -(-(160 << 20) // (n * k * 2)))


class Timer:
    """One graph of some products, launched often; milliseconds of one product."""

    def __init__(self, cuda: Cuda, graph: c_void_p, products: int) -> None:
        self.cuda, self.products = cuda, products
        self.exec, self.events = c_void_p(), [c_void_p(), c_void_p()]
        cuda("cuGraphInstantiateWithFlags", byref(self.exec), graph, c_uint64(0))
        cuda("cuGraphDestroy", graph)
        for event in self.events:
            cuda("cuEventCreate", byref(event), 0)

    def once(self) -> float:
        milliseconds = c_float()
        self.cuda("cuEventRecord", self.events[0], self.cuda.stream)
        self.cuda("cuGraphLaunch", self.exec, self.cuda.stream)
        self.cuda("cuEventRecord", self.events[1], self.cuda.stream)
        self.cuda("cuEventSynchronize", self.events[1])
        self.cuda("cuEventElapsedTime", byref(milliseconds), *self.events)
        return milliseconds.value / self.products

    def close(self) -> None:
        self.cuda("cuGraphExecDestroy", self.exec)
        for event in self.events:
            self.cuda("cuEventDestroy_v2", event)


def times(cuda: Cuda, devices: dict[str, Device], torch: Any, rounds: int) -> list[dict[str, Any]]:
    """Every shape at some counts of rows: torch and each policy in turn, `rounds` times; medians."""
    stream = torch.cuda.ExternalStream(cuda.stream.value)
    table = []
    for shape, (n, k) in SHAPES.items():
        weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies(n, k))]
        for m in TIMED:
            x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            y = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
            products = len(weights) * max(1, 8 // len(weights))
            torch.cuda.synchronize()
            timers, row = {}, {"shape": shape, "m": m, "n": n, "k": k}
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.stream(stream):
                expected = torch.nn.functional.linear(x, weights[0])
                torch.cuda.synchronize()
                with torch.cuda.graph(graph, stream=stream):
                    for i in range(products):
                        torch.nn.functional.linear(x, weights[i % len(weights)])
            workspaces = []
            for policy, device in devices.items():
                linears = []
                for w in weights:
                    linear = linear_of(cuda, m, n, k, x=x.data_ptr(), w=w.data_ptr(), y=y.data_ptr())
                    linear.workspace_bytes = device.workspace(linear)
                    linears.append(linear)
                workspaces.append(cuda.alloc(linears[0].workspace_bytes))
                for linear in linears:
                    linear.workspace = workspaces[-1]
                device.run(linears[0])
                cuda.synchronize()
                error = (y.float() - expected.float()).abs().max() / expected.float().abs().max()
                choice = device.describe(linears[0])
                row[policy] = {
                    "against_torch": float(error),
                    "choice": choice.as_dict() if choice else None,
                    "text": str(choice),
                    "reserved": linears[0].workspace_bytes,
                }
                one = cuda.captured(lambda d=device, ls=linears: d.run(ls[0]))
                row[policy]["nodes"] = cuda.nodes(one)
                cuda("cuGraphDestroy", one)
                many = cuda.captured(lambda d=device, ls=linears, c=products: [d.run(x) for x in (ls * c)[:c]])
                timers[policy] = Timer(cuda, many, products)
            samples: dict[str, list[float]] = {name: [] for name in ("torch", *devices)}
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            for _ in range(rounds):
                with torch.cuda.stream(stream):
                    start.record()
                    graph.replay()
                    end.record()
                    end.synchronize()
                samples["torch"].append(start.elapsed_time(end) / products)
                for policy, timer in timers.items():
                    samples[policy].append(timer.once())
            row["us"] = {name: statistics.median(values[rounds // 5 :]) * 1e3 for name, values in samples.items()}
            for timer in timers.values():
                timer.close()
            cuda.free(*workspaces)
            table.append(row)
            print_row(row, list(devices))
        del weights
    return table


def small_capture(cuda: Cuda, device: Device) -> list[str]:
    """The nodes of one small product, which is replayed and timed once: for machines without torch."""
    rng = np.random.default_rng(6)
    x, w, y = (cuda.upload(to_bf16(rng.uniform(-1, 1, s).astype(np.float32))) for s in ((8, 512), (64, 512), (8, 64)))
    linear = linear_of(cuda, 8, 64, 512, x=x, w=w, y=y)
    linear.workspace_bytes = device.workspace(linear)
    linear.workspace = cuda.alloc(linear.workspace_bytes)
    device.run(linear)
    cuda.synchronize()
    eager = cuda.download(y, np.empty((8, 64), np.uint16))
    graph = cuda.captured(lambda: device.run(linear))
    nodes = cuda.nodes(graph)
    cuda("cuMemsetD8_v2", c_uint64(y), 0, c_size_t(eager.nbytes))
    timer = Timer(cuda, graph, 1)
    assert timer.once() >= 0
    assert np.array_equal(cuda.download(y, eager), eager), "a replay is not what the eager product was"
    timer.close()
    cuda.free(x, w, y, linear.workspace)
    return nodes


def print_row(row: dict[str, Any], policies: list[str]) -> None:
    torch_us = row["us"]["torch"]
    print(f"{row['shape']:8} M {row['m']:5}  torch {torch_us:9.1f} us")
    for policy in policies:
        p = row[policy]
        print(
            f"    {policy:8} {row['us'][policy]:9.1f} us  {row['us'][policy] / torch_us:5.2f} of torch's"
            f"  {p['text']}; nodes: {', '.join(p['nodes'])}; differs by {p['against_torch']:.1e}"
        )


def choices(cuda: Cuda, devices: dict[str, Device]) -> dict[str, str]:
    """What is chosen for every shape at each option; addresses are of nothing, and well aligned."""
    found = {}
    for shape, (n, k) in SHAPES.items():
        for m in ROWS:
            for name, device in devices.items():
                linear = linear_of(cuda, m, n, k, x=1 << 20, w=1 << 20, y=1 << 20, workspace=1 << 20)
                linear.workspace_bytes = device.workspace(linear)
                found[f"{shape} M {m} {name}"] = str(device.describe(linear))
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", type=Path, default=ROOT / "build/gpu/liblt.so")
    parser.add_argument("--image", type=Path, default=ROOT / "kernels/cuda/images/kernels.fatbin")
    parser.add_argument("--cublaslt", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    torch: Any = None
    if not args.without_torch:
        try:
            import torch
        except ImportError:
            print("no torch: no times")
    if torch:
        torch.cuda.init()
        ones = torch.ones(8, 8, device="cuda")
        torch.nn.functional.linear(ones, ones)  # loads its cuBLASLt
    cuda = Cuda(args.image)
    cublaslt = args.cublaslt
    for name in [] if cublaslt else ["libcublasLt.so.13", "libcublasLt.so.12"]:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        cublaslt = name
        break
    devices = {name: Device(cuda, args.library, cublaslt, plain_cost=cost) for name, cost in POLICIES.items()}
    default = devices["default"]
    report: dict[str, Any] = {
        "device": cuda.name(),
        "multiprocessors": cuda.multiprocessors,
        "cublaslt": default.version(),
        "torch": torch.__version__ if torch else None,
    }
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    failed = []
    for policy, device in devices.items():
        errors = right_results(cuda, device, args.quick or not torch)
        worst = max(errors, key=lambda label: errors[label])
        wrong = {label: error for label, error in errors.items() if not error <= 1}
        failed += [f"{policy}: {label}: {error:.2f} times its limit" for label, error in wrong.items()]
        print(
            f"{policy}: {len(errors)} products, {len(wrong)} wrong; worst: {worst}, {errors[worst]:.2f} of its limit",
            flush=True,
        )
        report[f"errors {policy}"] = {"count": len(errors), "wrong": wrong, "worst": errors[worst]}
    report["nan through relu"] = nan_through_relu(cuda, default)
    print(f"a NaN comes through relu: {report['nan through relu']}")
    if torch:
        report["pinned"] = pinned_rows(cuda, args.library, cublaslt, 4096, 4096, [1, 8, 64, 512, 2048])
    else:
        report["pinned"] = pinned_rows(cuda, args.library, cublaslt, 64, 64, [1, 8, 64])
    for name, text in report["pinned"].items():
        print(f"{name}: {text}")
    aligned = {"on 16 bytes": default, "on 256 bytes": Device(cuda, args.library, cublaslt, alignment=256)}
    report["choices by alignment"] = choices(cuda, aligned)
    pairs = list(report["choices by alignment"].items())
    differ = [f"{a[0]}: {a[1]} | {b[1]}" for a, b in zip(pairs[::2], pairs[1::2], strict=True) if a[1] != b[1]]
    print(f"{len(differ)} of {len(pairs) // 2} choices differ if 256 bytes are promised, not 16", *differ, sep="\n    ")
    aligned["on 256 bytes"].close()
    report["small nodes"] = {policy: small_capture(cuda, device) for policy, device in devices.items()}
    print(*(f"{policy}: {', '.join(nodes)}" for policy, nodes in report["small nodes"].items()), sep="\n")
    if torch:
        report["times"] = times(cuda, devices, torch, args.rounds)
    for device in devices.values():
        device.close()
    if args.report:
        args.report.write_text(json.dumps(report, indent=1) + "\n")
    for line in failed[:40]:
        print("WRONG", line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
