"""What the shared library is, to a linker and a loader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, check_output, need, prefix


@pytest.fixture(scope="module")
def library() -> Path:
    need("readelf")
    return prefix() / "lib" / "libadcg.so"


def declared() -> set[str]:
    text = "".join(h.read_text() for h in sorted((ROOT / "include" / "adcg").glob("*.h")))
    return set(re.findall(r"^ADCG_API [\w\s*]+?\b(adcg_\w+)\(", text, re.M))


def test_exports_are_the_header(library: Path) -> None:
    """Only adcg_* leave, and exactly those that the headers declare, under one version."""
    exported = {}
    for line in check_output(["readelf", "--wide", "--dyn-syms", str(library)]).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[4] in ("GLOBAL", "WEAK") and fields[6] not in ("UND", "ABS"):
            name, _, node = fields[7].partition("@@")
            exported[name] = node
    assert len(declared()) > 25
    assert set(exported) == declared()
    assert set(exported.values()) == {"ADCG_0.1"}


def test_needs_libc_and_libm_alone(library: Path) -> None:
    dynamic = check_output(["readelf", "--wide", "--dynamic", str(library)])
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    assert needed <= {"libc.so.6", "libm.so.6"}, needed
    assert re.findall(r"\(SONAME\).*\[(.*)\]", dynamic) == ["libadcg.so.0"]
    assert not re.findall(r"\((?:RPATH|RUNPATH|TEXTREL)\)", dynamic)


def test_static_tls_is_small(library: Path) -> None:
    """A library that is loaded late gets its static TLS from a small reserve that all share."""
    segments = check_output(["readelf", "--wide", "--program-headers", str(library)])
    sizes = [int(line.split()[5], 16) for line in segments.splitlines() if line.split()[:1] == ["TLS"]]
    assert sum(sizes) <= 64, f"PT_TLS: {sizes} bytes"
    stack = [line.split()[6] for line in segments.splitlines() if line.split()[:1] == ["GNU_STACK"]]
    assert stack and "E" not in stack[0]


def test_installed_files(library: Path) -> None:
    lib, include = library.parent, library.parent.parent / "include"
    version = library.resolve().name
    assert re.fullmatch(r"libadcg\.so\.\d+\.\d+\.\d+", version)
    assert sorted(p.name for p in lib.iterdir()) == sorted(
        ["cmake", "pkgconfig", "libadcg.so", "libadcg.so.0", version]
    )
    ours = sorted(h.name for h in (ROOT / "include" / "adcg").glob("*.h"))
    assert sorted(p.name for p in include.rglob("*.h")) == ours  # Go's generated header is not among them


def test_no_path_of_this_machine(library: Path) -> None:
    """-trimpath holds: where it was built does not show."""
    assert str(ROOT).encode() not in library.resolve().read_bytes()
