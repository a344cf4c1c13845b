"""report.json as Markdown: what was reached, then each part's figures. It takes what is there: parts fail half-way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

MIB = 1 << 20
REPLAY_TARGET, CAPTURE_TARGET, ARENA_TARGET, STEP_TARGET = 1.1, 1.5, 736.0, 1.0
OURS, TORCHS = ("libadcg piecewise", "libadcg full"), ("torch eager", "torch segments", "torch whole")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The first column is text, the others are figures."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), "|---" + "|---:" * (len(head) - 1) + "|", *map(line, rows)])


def mib(size: float) -> str:
    return f"{size / MIB:,.2f}"


def kib(size: float) -> str:
    return f"{size / 1024:,.1f}"


def verdict(figure: float, target: float) -> str:
    return "reached" if figure <= target else "missed"


# ---- Targets -----------------------------------------------------------------------------------------------------


def best(step: dict[str, Any], names: Sequence[str], what: str = "step_us") -> tuple[float, str] | None:
    found = [(step[name][what], name) for name in names if name in step]
    return min(found) if found else None


def arena(memory: dict[str, Any]) -> dict[str, float] | None:
    """MiB of the exec whose largest bucket has 8,192 tokens: as mapped, as planned, and of that the layers'
    activations, which the target names: positions and staged inputs, integers all, lie in the arena too."""
    found = memory.get("libadcg piecewise prefill")
    if not found or found["tokens"] != 8192:
        return None
    return {
        "mapped": found["arena_bytes"] / MIB,
        "planned": found["lower_bound_bytes"] / MIB,
        "activations": found["activation_bytes"] / MIB,
    }


Target = tuple[str, str, str, str]  # what, at most, the figure, the verdict


def replay_targets(found: dict[str, Any]) -> list[Target]:
    rows = []
    for step in found["steps"]:
        if step["name"] in ("piecewise, nothing between", "piecewise, a launch between"):
            figure = f"{step['ratio']:.3f} ({step['library_us']:.1f} of {step['bare_us']:.1f} us)"
            name = f"host time of a replay, {step['name']}"
            rows.append((name, f"{REPLAY_TARGET}", figure, verdict(step["ratio"], REPLAY_TARGET)))
    return rows


def capture_targets(found: dict[str, Any]) -> list[Target]:
    rows = []
    for kind, ops in (("library", "custom ops"), ("library-builtin", "built-in ops")):
        ratio, seconds = found[f"{kind} ratio"], found["seconds"]
        figure = f"{ratio:.3f} ({seconds[kind]:.3f} of {seconds['bare']:.3f} s)"
        name = f"capture of {found['executables']} executables, {ops}"
        rows.append((name, f"{CAPTURE_TARGET}", figure, verdict(ratio, CAPTURE_TARGET)))
    return rows


def llama_targets(found: dict[str, Any]) -> list[Target]:
    rows = []
    if sizes := arena(found["memory"]):
        more = f"{sizes['planned']:.4f} with positions and staged inputs, {sizes['mapped']:.2f} mapped"
        figure = f"{sizes['activations']:.2f}; {more}"
        reached = verdict(sizes["activations"], ARENA_TARGET)
        rows.append(("activations at 8,192 tokens, MiB", f"{ARENA_TARGET:.0f}", figure, reached))
    for name, step in found["steps"].items():
        ours, theirs = best(step, OURS), best(step, TORCHS)
        if ours and theirs:
            ratio = ours[0] / theirs[0]
            figure = f"{ratio:.3f} ({ours[0] / 1000:.3f} of {theirs[0] / 1000:.3f} ms; {ours[1]}, {theirs[1]})"
            rows.append(
                (f"step time beside torch's best, {name}", f"{STEP_TARGET}", figure, verdict(ratio, STEP_TARGET))
            )
    return rows


TARGETS: dict[str, Callable[[dict[str, Any]], list[Target]]] = {
    "replay": replay_targets, "capture": capture_targets, "llama": llama_targets,
}  # fmt: skip


def targets(parts: dict[str, Any]) -> list[Target]:
    rows: list[Target] = []
    for name, rows_of in TARGETS.items():
        if result := parts.get(name, {}).get("result"):
            try:
                rows += rows_of(result)
            except Exception as error:  # results that stop anywhere; the others are to be shown
                rows.append((f"{name}: cannot be told ({type(error).__name__}: {error})", "", "", ""))
    return rows


# ---- Parts -------------------------------------------------------------------------------------------------------


def replay(found: dict[str, Any]) -> str:
    rows = [
        (
            s["name"], s["graphs"], s["kernels"], s["launches"], f"{s['library_us']:.2f}", f"{s['library_p99_us']:.2f}",
            f"{s['bare_us']:.2f}", f"{s['bare_p99_us']:.2f}", f"{s['ratio']:.3f}",
        )
        for s in found["steps"]
    ]  # fmt: skip
    head = (
        "host time of a step, us",
        "graphs",
        "kernels",
        "launches",
        "libadcg p50",
        "p99",
        "bare p50",
        "p99",
        "ratio",
    )
    note = (
        f"The stream is idle before each step; medians of {found['steps'][0]['samples']} samples that take turns. "
        "Bare: a C loop of `cuGraphLaunch` (and `cuLaunchKernel` between) over executables of the same kernels, as "
        "many of both. With another batch each step the library also enqueues kernels that give the new counts and "
        "clear the padding; the bare loop does not."
    )
    return f"{table(head, rows)}\n\n{note}"


def capture(found: dict[str, Any]) -> str:
    seconds = {kind: f"{value:.3f}" for kind, value in found["seconds"].items()}
    rows = [
        ("bare: warm-up, capture, instantiate, upload, first run", seconds["bare"], "1"),
        ("libadcg, custom ops", seconds["library"], f"{found['library ratio']:.3f}"),
        ("libadcg, built-in ops", seconds["library-builtin"], f"{found['library-builtin ratio']:.3f}"),
        ("bare, without warm-up and first run", seconds["bare-least"], ""),
    ]
    note = (
        f"{found['buckets']} buckets, {found['executables']} executables of {found['kernels']} kernels; medians of "
        f"{len(found['rounds'])} rounds, a process each."
    )
    return f"{table(('capture of all buckets', 'seconds', 'ratio'), rows)}\n\n{note}"


def memory(found: dict[str, Any]) -> str:
    rows = [
        (
            r["kernels"], r["buckets"], r["executables_a_bucket"], mib(r["bucket_used"]), mib(r["bucket_accounted"]),
            f"{r['bucket_used'] / r['bucket_accounted']:.3f}", kib(r["executable_used"]),
            kib(r["executable_accounted"]), kib(r["bare_executable_used"]), mib(r["all_used"]), mib(r["all_accounted"]),
            mib(r["still_used_when_destroyed"]),
        )
        for r in found["rows"]
    ]  # fmt: skip
    head = (
        "kernels a segment", "buckets", "segments", "MiB a bucket, used", "accounted", "ratio",
        "KiB an executable, used", "accounted", "bare", "MiB of all, used", "accounted", "kept when destroyed",
    )  # fmt: skip
    note = (
        "Used: `cuMemGetInfo` before and after, the first bucket (which brings the arena) left out of the middle "
        f"columns. Of the bare executables: {kib(found['executable_bytes'])} KiB each and {kib(found['node_bytes'])} "
        "KiB a kernel node; the library counts 110 and 2.5."
    )
    return f"{table(head, rows)}\n\n{note}"


def goldens(found: dict[str, Any]) -> str:
    groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for case in found["cases"]:
        groups.setdefault((case["dtype"], case["invariant"]), []).append(case)
    rows = [
        (
            f"{dtype}{', batch-invariant' if invariant else ''}", len(cases), sum(c["rows"] for c in cases),
            f"{max(c['error'] for c in cases):.2e}", f"{cases[0]['limit']:.2e}",
            sum(c["rows_of_other_bits"] for c in cases), sum(c["steps"].get("piecewise", 0) for c in cases),
            sum(c["steps"].get("full", 0) for c in cases),
        )
        for (dtype, invariant), cases in groups.items()
    ]  # fmt: skip
    head = ("logits", "cases", "rows", "largest error", "limit", "rows of other bits", "piecewise steps", "full steps")
    return table(head, rows) + f"\n\nbf16 on the host device is off by {found['host_bf16_error']:.2e}."


def llama(found: dict[str, Any]) -> str:
    return "\n\n".join(filter(None, (times(found["steps"]), logits(found["steps"]), graphs(found["memory"]))))


def times(steps: dict[str, Any]) -> str:
    names = [name for name in (*OURS, *TORCHS) if any(name in step for step in steps.values())]
    titles = {"step_us": "step on the device, us", "host_us": "host time of a step, us"} if names else {}
    return "\n\n".join(
        table(
            (title, *names),
            [(name, *(f"{s[n][what]:,.1f}" if n in s else "" for n in names)) for name, s in steps.items()],
        )
        for what, title in titles.items()
    )


def logits(steps: dict[str, Any]) -> str:
    figures = {
        "ours_reference": "ours to f32",
        "torch_reference": "torch bf16 to f32",
        "ours_torch": "ours to torch",
        "torch_eager": "torch graph to eager",
        "same_argmax": "same argmax",
    }
    rows = [
        (f"{name}, {key.removeprefix('logits ')}", *(f"{value[f]:.2e}" if f in value else "" for f in figures))
        for name, step in steps.items()
        for key, value in step.items()
        if key.startswith("logits ")
    ]
    return table(("logits, relative", *figures.values()), rows) if rows else ""


def graphs(held: dict[str, Any]) -> str:
    ours = [
        (
            name, mib(m["arena_bytes"]), mib(m["lower_bound_bytes"]), mib(m["workspace_bytes"]),
            mib(m["used_bytes"] - m["arena_bytes"] - io(m)), mib(m["graph_bytes"]), m["segments"],
            f"{m['capture_seconds']:.2f}",
        )
        for name, m in held.items()
        if "arena_bytes" in m
    ]  # fmt: skip
    theirs = [
        (
            name, mib(m["pool_bytes"]), mib(m["driver_bytes"]) if "driver_bytes" in m else "", m.get("graphs", ""),
            f"{m['capture_seconds']:.2f}" if "capture_seconds" in m else "",
        )
        for name, m in held.items()
        if "pool_bytes" in m
    ]  # fmt: skip
    head = ("MiB", "arena", "bound of the plan", "workspace", "driver, used", "accounted", "segments", "capture, s")
    tables = [table(head, ours)] if ours else []
    tables += [table(("MiB", "pool", "driver, used", "graphs", "capture, s"), theirs)] if theirs else []
    return "\n\n".join(tables)


def io(m: dict[str, Any]) -> float:
    """Bytes of inputs and outputs: what creating the exec used, less the arena's first granule, mapped with it."""
    return max(0.0, m["buffer_bytes"] - 2 * MIB)


def cabi(found: dict[str, Any]) -> str:
    rows = [(f"{c['program']} {c['case']}", c["status"], c.get("said", "")[:200]) for c in found["others"]]
    counts = ", ".join(f"{count} {status}" for status, count in sorted(found["counts"].items()))
    return counts + (f"\n\n{table(('case', 'status', 'said'), rows)}" if rows else "")


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "replay": replay, "capture": capture, "memory": memory, "goldens": goldens, "llama": llama, "cabi": cabi,
}  # fmt: skip


# ---- The report --------------------------------------------------------------------------------------------------


def section(name: str, part: dict[str, Any]) -> str:
    pieces = [f"## {name}"]
    if part["status"] != "ok":
        pieces.append(f"{part['status']}: {part['note']}")
    if result := part.get("result"):
        try:
            pieces.append(SECTIONS[name](result) if name in SECTIONS else "")
        except Exception as error:  # likewise
            pieces.append(f"The results cannot be shown ({type(error).__name__}: {error}); report.json has them.")
        if result.get("wrong"):
            pieces.append("\n".join(f"- wrong: {text}" for text in result["wrong"]))
    if part.get("tail"):
        pieces.append(f"```\n{part['tail'].strip()}\n```")
    return "\n\n".join(filter(None, pieces))


def render(report: dict[str, Any]) -> str:
    where = report["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    head = [
        "# What was run on a GPU" + (" (small sizes: a trial of the script)" if report.get("small") else ""),
        table(
            ("", ""),
            [
                ("date", where["date"]),
                ("device", where["engine"]),
                ("GPU, driver", where["gpu"] or "none"),
                ("machine", where["machine"]),
                ("Python", f"{where['python']}; {packages}"),
                ("commit", where["commit"] or "not known"),
                ("command", f"`{report['command']}`"),
            ],
        ),
    ]
    parts = report["parts"]
    reached = targets(parts)
    if reached:
        head += ["## Targets", table(("", "at most", "figure", ""), reached)]
    rows = [
        (name, p["status"], f"{p['seconds']:.1f}", p["note"] + (" (an earlier run)" if p.get("earlier") else ""))
        for name, p in parts.items()
    ]
    head += ["## Parts", table(("part", "status", "seconds", ""), rows)]
    return (
        "\n\n".join([*head, *(section(name, part) for name, part in parts.items() if part["status"] != "skipped")])
        + "\n"
    )
