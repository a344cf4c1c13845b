"""C11 and C++17 hosts against the staged install; every named case of a C program is a test of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import BUILD, CC, CXX, HERE, ROOT, STRICT, check_output, compile_program, direct_flags, need, prefix

BAD_INPUT = ["bad_handles", "bad_graphs", "bad_steps"]
PROGRAMS = [*BAD_INPUT, "ops", "parts", "rows", "dispatch", "exec", "release", "ladder", "load", "oom"]
CUDA_ALONE = ["capture", "counts", "streams", "faults"]
# That run on the stand-in driver, too, but for these cases: they see a step's launches from inside, or are the host's.
ON_CUDA: dict[str, list[str]] = {
    "bad_steps": [],
    "dispatch": [],
    "exec": [],
    "oom": ["ladders_allocate_nothing"],
    "ops": ["padding", "order_of_ops"],
    "parts": [],
    "release": ["locked_memory_stays"],
    "rows": [],
}
SHIM = BUILD / "failmalloc.so"


def cases_of(program: str) -> list[str]:
    """The names in the program's table: read from the source, so that collecting needs no compiler."""
    table = (HERE / f"{program}.c").read_text().split("harness_case cases[] = {")[1].split("};")[0]
    return re.findall(r'\{"(\w+)", \w+\}', table)


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    """Compiled when first asked for."""
    return {}


@cache
def standin() -> dict[str, str]:
    """The environment that has the stand-in driver as CUDA's; ADCG_TEST_DRIVER=real leaves the machine's own."""
    if os.environ.get("ADCG_TEST_DRIVER") == "real":
        return {"ADCG_TEST_DEVICE": "cuda:0"}
    check_output(["flock", "Makefile", "make", "--silent", "fakecuda"], cwd=ROOT)
    folder = ROOT / "build" / "fakecuda"
    return {
        "ADCG_TEST_DEVICE": "cuda:0",
        "LD_LIBRARY_PATH": str(folder),
        "FAKECUDA_KERNELS": str(folder / "kernels.so"),
        "FAKECUDA_POISON": "255",  # what nobody wrote is a NaN
        "FAKECUDA_SEED": "7",  # and what no edge orders runs in any order
        "MALLOC_PERTURB_": "165",  # the host's memory that was given back reads as garbage
    }


@pytest.mark.parametrize(
    ("device", "program", "case"),
    [("host", p, c) for p in PROGRAMS for c in cases_of(p)]
    + [("cuda", p, c) for p in [*ON_CUDA, *CUDA_ALONE] for c in cases_of(p) if c not in ON_CUDA.get(p, [])],
)
def test_case(device: str, program: str, case: str, programs: dict[str, Path]) -> None:
    if program not in programs:
        linked = direct_flags() if program != "load" else direct_flags()[:1]
        programs[program] = compile_program(HERE / f"{program}.c", BUILD / program, linked)
    env = {**os.environ, "ADCG_LIBRARY": f"{prefix()}/lib/libadcg.so.0"}
    if device == "cuda":
        env |= standin()
    if program == "oom":
        compile_program(HERE / "failmalloc.c", SHIM, ["-shared", "-fPIC"])
        env |= {"LD_PRELOAD": str(SHIM), "GOMAXPROCS": "1", "GOGC": "off"}
    done = subprocess.run([programs[program], case], env=env, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, (
        f"{device} {program} {case}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[:6000]}"
    )


@pytest.mark.parametrize("program", PROGRAMS + CUDA_ALONE)
def test_table_is_complete(program: str, programs: dict[str, Path]) -> None:
    """Every case function stands in the program's table, and the program lists what was collected from its source."""
    source = (HERE / f"{program}.c").read_text()
    functions = set(re.findall(r"^static void (\w+)\(void\)", source, re.M))
    helpers = {"child_of_a_fork", "find_shim", "build", "begin_of_life", "end_of_life", "refused", "turn"}
    assert functions - helpers == set(cases_of(program))


@pytest.mark.parametrize("there", ["nothing", "no library", "another library"])
def test_no_driver(there: str, tmp_path: Path) -> None:
    """`cuda:0` where the driver is missing, or something else has its name, is a status; everything else works."""
    program = compile_program(HERE / "bad_graphs.c", BUILD / "no_driver", direct_flags())
    impostor = tmp_path / "libcuda.so.1"
    if there == "no library":
        impostor.write_text("a text\n")
    elif there == "another library":
        (tmp_path / "other.c").write_text("int adcg_tests_other_library;\n")
        compile_program(tmp_path / "other.c", impostor, ["-shared", "-fPIC"])
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([program, "no_driver"], env=env, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr


# ---- The programs of the documentation, through pkg-config and CMake ---------------------------------------------


def run(program: Path) -> None:
    check_output([str(program)], timeout=60)


@pytest.mark.parametrize("source", ["program.c", "program.cc"])
def test_without_tools(source: str) -> None:
    run(compile_program(HERE / source, BUILD / f"direct-{source.replace('.', '-')}", direct_flags()))


@pytest.fixture(scope="session")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed tree somewhere else: nothing in it may remember where it was."""
    there = tmp_path_factory.mktemp("moved") / "opt" / "adcg"
    shutil.copytree(prefix(), there, symlinks=True)
    return there


@pytest.mark.parametrize("where", ["staged", "moved"])
@pytest.mark.parametrize("source", ["program.c", "program.cc"])
def test_pkg_config(source: str, where: str, moved: Path, tmp_path: Path) -> None:
    need("pkg-config")
    base = prefix() if where == "staged" else moved
    env = {
        **os.environ,
        "PKG_CONFIG_PATH": f"{base}/lib/pkgconfig",
        "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1",
        "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1",
    }
    flags = check_output(["pkg-config", "--cflags", "--libs", "libadcg"], env=env).split()
    assert f"-I{base}" in re.sub(r"/lib/pkgconfig/\.\./\.\.", "", " ".join(flags)), flags
    assert check_output(["pkg-config", "--modversion", "libadcg"], env=env).strip() == version()
    run(compile_program(HERE / source, tmp_path / "program", [*flags, f"-Wl,-rpath,{base}/lib"]))


@pytest.mark.parametrize("where", ["staged", "moved"])
def test_cmake(where: str, moved: Path, tmp_path: Path) -> None:
    need("cmake")
    need("make")
    need(CXX)
    base = prefix() if where == "staged" else moved
    (tmp_path / "CMakeLists.txt").write_text(
        f"""cmake_minimum_required(VERSION 3.16)
project(host C CXX)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_EXTENSIONS OFF)
find_package(adcg {version().rsplit(".", 1)[0]} REQUIRED CONFIG)
find_package(adcg {version()} REQUIRED CONFIG)
find_package(Threads REQUIRED)
add_compile_options({" ".join(STRICT)})
add_executable(program_c {HERE}/program.c)
add_executable(program_cc {HERE}/program.cc)
target_link_libraries(program_c adcg::adcg m)
target_link_libraries(program_cc adcg::adcg Threads::Threads)
"""
    )
    check_output(["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "b"), f"-DCMAKE_PREFIX_PATH={base}"])
    check_output(["cmake", "--build", str(tmp_path / "b")])
    run(tmp_path / "b" / "program_c")
    run(tmp_path / "b" / "program_cc")


@pytest.mark.parametrize("asked", ["0.2", "1.0", "0.1.99"])
def test_cmake_refuses_other_versions(asked: str, tmp_path: Path) -> None:
    need("cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(host C)\nfind_package(adcg {asked} REQUIRED CONFIG)\n"
    )
    argv = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "b"), f"-DCMAKE_PREFIX_PATH={prefix()}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "adcg" in done.stderr and asked in done.stderr


def version() -> str:
    header = (ROOT / "include/adcg/adcg.h").read_text()
    return ".".join(re.search(rf"define ADCG_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH"))  # type: ignore[index]


def test_api_page_is_the_program() -> None:
    """program.c is the C program of the design's page as it stands: every line of it, in order."""
    page = ROOT.parent / "shared" / "api.md"
    if not page.exists():
        pytest.skip("../shared/api.md is not here")
    block = page.read_text().split("## C\n")[1].split("```c\n")[1].split("```")[0]
    lines = iter(line.strip() for line in (HERE / "program.c").read_text().splitlines())
    for wanted in filter(None, (line.strip() for line in block.splitlines())):
        assert any(line == wanted for line in lines), f"not in program.c, or out of order: {wanted}"


# ---- Headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["", "-DHOST_FIRST", "-DHOST_LAST"])
@pytest.mark.parametrize("language", ["c11", "c++17"])
def test_headers(language: str, order: str, tmp_path: Path) -> None:
    headers = sorted((prefix() / "include" / "adcg").glob("*.h"))
    assert {h.name for h in headers} >= {"adcg.h", "dlpack.h"}
    for header in headers:
        compiler = [need(CXX), "-x", "c++"] if language == "c++17" else [CC]
        argv = [*compiler, f"-std={language}", *STRICT, f"-I{prefix()}/include", f'-DHEADER="adcg/{header.name}"']
        check_output(
            [*argv, *([order] if order else []), "-c", "-o", str(tmp_path / "headers.o"), str(HERE / "headers.c")]
        )


# ---- Python as a host --------------------------------------------------------------------------------------------


def test_loads_in_python() -> None:
    """`python3 -c` with nothing but ctypes: late, by a process that already runs."""
    library = f"{prefix()}/lib/libadcg.so.0"
    code = (
        f"import ctypes, threading; l = ctypes.CDLL({library!r}); e = ctypes.c_void_p();"
        "assert l.adcg_engine_create(b'host', None, ctypes.byref(e)) == 0 and e.value;"
        "t = threading.Thread(target=lambda: l.adcg_engine_destroy(e)); t.start(); t.join();"
        "print(l.adcg_version())"
    )
    assert check_output([sys.executable, "-c", code]).strip() == "100"
