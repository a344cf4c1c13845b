"""``python -m adcg``: ``info`` (versions, device, op library), ``plan`` (of a demo graph or a Llama checkpoint),
``ladder`` (buckets for a histogram of steps), ``bench`` (replay overhead and products on the host)."""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import adcg

from . import _ffi, cli_ladder, tensors


def _info(args: argparse.Namespace) -> int:
    with adcg.Engine(args.device) as engine:
        device = engine.device
        print(f"adcg     {adcg.__version__}, library {adcg.library_path}")
        print(f"python   {sys.version.split()[0]}, numpy {np.__version__}")
        print(f"device   {device.name}: {device.description}")
        if device.threads:
            print(f"threads  {device.threads}")
        if device.memory_bytes:
            print(f"memory   {device.memory_bytes / 2**30:.1f} GiB")
        ops = engine.ops()
        print(f"\n{len(ops)} ops")
        rows = []
        for op in ops.values():
            least = op.num_inputs - op.num_optional_inputs
            arity = f"{least}" if not op.num_optional_inputs else f"{least}-{op.num_inputs}"
            kind = op.kind if op.kind == "static" else f"{op.kind}, {op.capture}"
            rows.append((op.name, f"{arity} -> {op.num_outputs}", kind, ", ".join(map(str, op.attrs)), op.doc))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for name, arity, kind, attributes, doc in rows:
            print(f"  {name:{widths[0]}}  {arity:{widths[1]}}  {kind:{widths[2]}}  {doc}")
            if attributes:
                print(f"  {'':{widths[0]}}  {attributes}")
    return 0


def demo_graph(engine: adcg.Engine, max_tokens: int, max_seqs: int, layers: int = 4, hidden: int = 256) -> adcg.Graph:
    """A small transformer without embeddings: enough ops of every kind to show what a plan looks like."""
    heads, kv_heads, head_dim, max_len = hidden // 32, max(1, hidden // 64), 32, 2048
    g = engine.graph(max_tokens=max_tokens, max_seqs=max_seqs)
    h: Any = g.input("hidden", "float32", [g.tokens, hidden])
    cu_seqlens = g.input("cu_seqlens", "int32", [g.seqs + 1])
    input_pos = g.input("input_pos", "int32", [g.seqs])
    slot_idx = g.input("slot_idx", "int32", [g.seqs])
    last = g.input("last_idx", "int32", [g.seqs])
    positions = g.attention_metadata(cu_seqlens, input_pos)[1]

    def weight(name: str, *shape: int) -> adcg.Value:
        return g.weight(name, "float32", shape)

    for i in range(layers):
        n = g.rms_norm(h, weight(f"{i}.norm", hidden))
        parts = []
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            x = g.linear(n, weight(f"{i}.{name}", count * head_dim, hidden))
            parts.append(g.reshape(x, dims=[count, head_dim]))
        q, k = (g.rope(x, positions) for x in parts[:2])
        caches = [g.state(f"{i}.{c}_cache", "float32", [max_seqs, max_len, kv_heads, head_dim]) for c in "kv"]
        a = g.attention(q, k, parts[2], *caches, cu_seqlens, input_pos, slot_idx)
        h = g.add(h, g.linear(a, weight(f"{i}.o", hidden, heads * head_dim)))
        n = g.rms_norm(h, weight(f"{i}.mlp_norm", hidden))
        gate, up = (g.linear(n, weight(f"{i}.{name}", 3 * hidden, hidden)) for name in ("gate", "up"))
        h = g.add(h, g.linear(g.silu_mul(gate, up), weight(f"{i}.down", hidden, 3 * hidden)))
    h = g.rms_norm(g.gather_tokens(h, last), weight("norm", hidden))
    g.output("logits", g.linear(h, weight("head", 1000, hidden)))
    return g


def _builder(path: str | None) -> ModuleType:
    """The module that builds a checkpoint's graph: examples/python/families.py of the checkout, or --builder's."""
    file = Path(path) if path else Path(__file__).resolve().parents[3] / "examples" / "python" / "families.py"
    if not file.is_file():
        raise SystemExit(f"adcg plan: --model needs a builder: {file} is not there; give --builder FILE")
    spec = importlib.util.spec_from_file_location("adcg_builder", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.parent))  # the modules beside it
    spec.loader.exec_module(module)
    return module


def _plan(args: argparse.Namespace) -> int:
    options: dict[str, Any] = {"mode": args.mode}
    if args.buckets:
        options["buckets"] = [int(size) for size in args.buckets.split(",")]
    with adcg.Engine(args.device) as engine:
        if args.model:
            builder = _builder(args.builder)
            try:
                config = builder.load_config(args.model)
            except ValueError as error:
                raise SystemExit(f"adcg plan: --model: {error}") from error
            g = builder.build(engine, config, args.tokens, args.seqs, args.max_len, logits=args.logits)
        else:
            g = demo_graph(engine, args.tokens, args.seqs)
        with g:
            text = str(g.forecast(**options)) if args.forecast else g.plan(args.format, **options)
    if args.output is None:
        print(text.rstrip("\n"))
        return 0
    try:
        args.output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise SystemExit(f"adcg plan: --output: {args.output}: {error.strerror}") from error
    return 0


def measure(call: Callable[[], object], seconds: float = 0.2, rounds: int = 7) -> float:
    """Seconds a call: the median over rounds of each round's mean."""
    call()
    start = time.perf_counter()
    call()
    count = max(1, int(seconds / rounds / max(time.perf_counter() - start, 1e-7)))
    means = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(count):
            call()
        means.append((time.perf_counter() - start) / count)
    return statistics.median(means)


def bare_replay(exec_: adcg.Exec, batch: adcg.Batch) -> Callable[[], int]:
    """adcg_exec_replay with the tensors of the exec's last replay, and nothing of Python's around it but ctypes."""
    import ctypes

    arguments = (
        exec_._pointer_arg,
        ctypes.byref(batch),
        exec_._in_arg,
        exec_._in_count,
        exec_._out_arg,
        exec_._out_count,
        None,
        ctypes.byref(_ffi.Step(ctypes.sizeof(_ffi.Step))),
    )
    function = _ffi.replay

    def call() -> int:
        return int(function(*arguments))

    return call


def _bench(args: argparse.Namespace) -> int:
    with adcg.Engine(args.device, threads=args.threads) as engine:
        print(f"{engine.device.description}, {engine.device.threads} threads\n")
        print("replay of n adds of one element, us a step")
        print(f"{'ops':>6} {'bare ctypes':>12} {'replay(inputs, outputs)':>24} {'replay(inputs)':>15}")
        for ops in (1, 8, 32, 128, 1024):
            with engine.graph(max_tokens=1, max_seqs=1) as g:
                x: Any = g.input("x", "float32", [g.tokens, 1])
                y = x
                for _ in range(ops):
                    y = g.add(y, x)
                g.output("y", y)
                with g.compile(buckets=[1]) as exec_:
                    batch = adcg.Batch(decode_seqs=1)
                    ins, outs = {"x": np.ones((1, 1), np.float32)}, {"y": np.zeros((1, 1), np.float32)}
                    given = measure(lambda e=exec_, b=batch, i=ins, o=outs: e.replay(b, i, o))  # type: ignore[misc]
                    bare = measure(bare_replay(exec_, batch))
                    left = measure(lambda e=exec_, b=batch, i=ins: e.replay(b, i))  # type: ignore[misc]
            print(f"{ops:6} {bare * 1e6:12.2f} {given * 1e6:24.2f} {left * 1e6:15.2f}")
        print("\nadcg.linear, [M, K] x [N, K]")
        print(f"{'M':>5} {'N':>6} {'K':>6} {'weights':>9} {'us':>10} {'GFLOP/s':>9}")
        rng = np.random.default_rng(0)
        for m in (1, 8, 64, 512):
            for n, k in ((2048, 2048),):
                for dtype in ("float32", "bfloat16"):
                    w = rng.standard_normal((n, k), np.float32)
                    try:
                        w = w.astype(tensors.numpy_dtype(dtype))
                    except adcg.AdcgError:
                        continue  # no ml_dtypes
                    with engine.graph(max_tokens=m, max_seqs=m) as g:
                        g.output("y", g.linear(g.input("x", "float32", [g.tokens, k]), g.weight("w", dtype, [n, k])))
                        with g.compile({"w": w}, buckets=[m]) as exec_:
                            batch = adcg.Batch(decode_seqs=m)
                            inputs: dict[str, Any] = {"x": rng.standard_normal((m, k), np.float32)}
                            outputs: dict[str, Any] = {"y": np.empty((m, n), np.float32)}
                            took = measure(lambda e=exec_, b=batch, i=inputs, o=outputs: e.replay(b, i, o))  # type: ignore[misc]
                    print(f"{m:5} {n:6} {k:6} {dtype:>9} {took * 1e6:10.1f} {2 * m * n * k / took / 1e9:9.1f}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status. An AdcgError is printed as one line, status 1."""
    parser = argparse.ArgumentParser(prog="python -m adcg", description="libadcg from the command line")
    parser.add_argument("--device", default="host", help="device of the engine (default: host)")
    commands = parser.add_subparsers(dest="command", required=True)

    info = commands.add_parser("info", help="versions, the device, the op library")
    info.set_defaults(run=_info)

    plan = commands.add_parser("plan", help="the plan of a graph: partitions, offsets, lifetimes, bound")
    plan.add_argument("--model", metavar="DIR", help="a checkpoint (config.json is enough); else a demo graph")
    plan.add_argument("--builder", metavar="FILE", help="the Python file that builds it: load_config, build")
    plan.add_argument("--tokens", type=int, default=512, help="max_tokens of the graph (default: 512)")
    plan.add_argument("--seqs", type=int, default=8, help="max_seqs (default: 8)")
    plan.add_argument("--max-len", type=int, default=1024, help="positions of a slot, with --model (default: 1024)")
    plan.add_argument("--logits", choices=("all", "last"), default="last", help="with --model (default: last)")
    plan.add_argument("--mode", choices=tuple(_ffi.MODES), default="full_and_piecewise")
    plan.add_argument("--buckets", metavar="N,N,...", help="token counts (default: the library's list)")
    plan.add_argument("--format", choices=tuple(_ffi.PLANS), default="text", help="default: text; svg is a picture")
    plan.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there (default: standard output)")
    plan.add_argument("--forecast", action="store_true", help="the table of bytes instead of the plan")
    plan.set_defaults(run=_plan)

    cli_ladder.add(commands)

    bench = commands.add_parser("bench", help="replay overhead and products on this machine")
    bench.add_argument("--threads", type=int, default=0, help="of the host device's kernels (default: one a core)")
    bench.set_defaults(run=_bench)

    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except adcg.AdcgError as error:
        print(f"adcg {args.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # piped into head
        sys.stderr.close()
        return 0
