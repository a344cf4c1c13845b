"""Runs build/gpu/graphs (graphs.c): what captures, replays and executables cost beside bare driver calls.

    python3 tests/gpu/graphs.py replay|capture|memory [--small] [--json FILE]

Each measurement is a process of its own; those that are compared take turns, and the medians count. Exit status 1 if
something is wrong, not if it is slow: reports say what was reached."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "build/gpu/graphs"
ROUNDS = 3
NODES = 9  # kernels of a segment: those of a decoder layer
MEMORY_NODES = (1, 9, 60)


def run(small: bool, *arguments: str) -> dict[str, Any]:
    argv = [str(PROGRAM), *arguments, *(["--small"] if small else [])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv[1:])}: exit status {done.returncode}")
    print(done.stdout, flush=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def replay(small: bool) -> tuple[dict[str, Any], list[str]]:
    found = run(small, "replay")
    return found, [f"{step['name']}: the result or the mode is wrong" for step in found["steps"] if not step["right"]]


def capture(small: bool) -> tuple[dict[str, Any], list[str]]:
    kinds = ("bare", "library", "library-builtin", "bare-least")
    rounds = [{kind: run(small, "capture", kind, str(NODES)) for kind in kinds} for _ in range(ROUNDS)]
    found: dict[str, Any] = {key: rounds[0]["bare"][key] for key in ("buckets", "executables", "kernels")}
    found["seconds"] = {kind: statistics.median(r[kind]["seconds"] for r in rounds) for kind in kinds}
    found["rounds"] = [{kind: r[kind]["seconds"] for kind in kinds} for r in rounds]
    for kind in ("library", "library-builtin"):
        found[f"{kind} ratio"] = statistics.median(r[kind]["seconds"] / r["bare"]["seconds"] for r in rounds)
    captured = {r["library"]["captured_buckets"] for r in rounds} | {
        r["library-builtin"]["captured_buckets"] for r in rounds
    }
    return found, [] if captured == {found["buckets"]} else [f"captured {captured} of {found['buckets']} buckets"]


def memory(small: bool) -> tuple[dict[str, Any], list[str]]:
    rows = []
    for nodes in MEMORY_NODES:
        library, bare = run(small, "memory", "library", str(nodes)), run(small, "memory", "bare", str(nodes))
        start, largest, last = library["buckets"][0], library["buckets"][1], library["buckets"][-1]
        others = len(library["buckets"]) - 2
        executables = library["executables_a_bucket"]
        used = largest["free"] - last["free"]  # the largest brought the arena, and what the driver sets up once
        accounted = last["graph_bytes"] - largest["graph_bytes"]
        rows.append(
            {
                "kernels": nodes,
                "executables_a_bucket": executables,
                "buckets": others + 1,
                "first_used": start["free"] - largest["free"],
                "first_accounted": largest["graph_bytes"] + largest["arena_bytes"] - start["arena_bytes"],
                "bucket_used": used / others,
                "bucket_accounted": accounted / others,
                "executable_used": used / others / executables,
                "executable_accounted": accounted / others / executables,
                "bare_executable_used": bare["bytes"] / bare["executables"],
                "all_used": start["free"] - last["free"],
                "all_accounted": last["graph_bytes"],
                "forecast": library["forecast_graph_bytes"],
                "still_used_when_destroyed": start["free"] - library["free_when_destroyed"],
            }
        )
    # the driver's costs by the two smallest counts of kernels that differ much
    first, last = rows[1], rows[-1]
    a_node = (last["bare_executable_used"] - first["bare_executable_used"]) / (last["kernels"] - first["kernels"])
    found = {
        "rows": rows,
        "node_bytes": a_node,
        "executable_bytes": first["bare_executable_used"] - first["kernels"] * a_node,
    }
    wrong = [
        f"{r['kernels']} kernels: forecast {r['forecast']} is not what is accounted"
        for r in rows
        if r["forecast"] != r["all_accounted"]
    ]
    return found, wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("replay", "capture", "memory"))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found, wrong = {"replay": replay, "capture": capture, "memory": memory}[options.what](options.small)
    found["wrong"] = wrong
    print("\n".join(wrong))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
