"""The ABI against the committed description of the last release, adcg-0.1.txt: what stands there may not change or go.

What is new may come: functions, constants, and fields at the end of structs that begin with struct_size. A release
writes its description with `python tests/abi/test_abi.py > tests/abi/adcg-0.1.txt`; whatever else changes it is a bump
of the soname. The facts come from the compiler (sizeof, offsetof, values), the prototypes from the header's text.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RELEASE = HERE / "adcg-0.1.txt"


def header() -> str:
    text = (ROOT / "include" / "adcg" / "adcg.h").read_text()
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def squeeze(text: str) -> str:
    return re.sub(r"\s*([*,()])\s*", r"\1", re.sub(r"\s+", " ", text.strip()))


def field_names(body: str) -> list[str]:
    names = []
    for member in filter(None, (part.strip() for part in body.split(";"))):
        pointer = re.match(r".*?\(\*(\w+)\)\(", member, re.S)
        if pointer:
            names.append(pointer[1])
        else:
            names += [re.sub(r"\[.*", "", name).split()[-1].lstrip("*") for name in member.split(",")]
    return names


def describe() -> list[str]:
    """One fact a line: "function ...", "constant NAME value", "struct NAME size", "field NAME offset size", ..."""
    text = header()
    lines = [f"function {squeeze(p)}" for p in re.findall(r"^ADCG_API ([^;{]+);", text, re.M)]
    lines += [f"callback {squeeze(p)}" for p in re.findall(r"^typedef ([^;{]*\(\*\w+\)[^;]*);", text, re.M)]
    lines += [f"typedef {squeeze(p)}" for p in re.findall(r"^typedef (\w+ \w+);", text, re.M)]
    facts = []
    for body in re.findall(r"^enum \{([^}]*)\};", text, re.M):
        for name in re.findall(r"\b(ADCG_\w+)\s*=", body):
            facts.append(f'printf("constant {name} %lld\\n", (long long){name});')
    for name in re.findall(r"^#define (ADCG_(?:MAX|NUM)_\w+) ", text, re.M):
        facts.append(f'printf("constant {name} %lld\\n", (long long){name});')
    for body, name in re.findall(r"^typedef struct \w+ \{(.*?)^\} (\w+);", text, re.M | re.S):
        facts.append(f'printf("struct {name} %zu\\n", sizeof({name}));')
        for field in field_names(body):
            size = f"sizeof((({name} *)0)->{field})"
            facts.append(f'printf("field {name}.{field} %zu %zu\\n", offsetof({name}, {field}), {size});')
    program = "#include <adcg/adcg.h>\n#include <stdio.h>\nint main(void) {\n" + "\n".join(facts) + "\nreturn 0; }\n"
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "facts.c"), Path(folder, "facts")
        source.write_text(program)
        compiler = [os.environ.get("CC", "cc"), "-std=c11", f"-I{ROOT}/include", "-o", str(binary), str(source)]
        subprocess.run(compiler, check=True)
        out = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
    return lines + out.splitlines()


def broken(old: list[str], new: list[str]) -> list[str]:
    """What of `old` does not hold in `new`."""
    now = set(new)
    growing = {line.split()[1].split(".")[0] for line in old if re.match(r"field \w+\.struct_size 0 ", line)}
    sizes = {line.split()[1]: int(line.split()[2]) for line in new if line.startswith("struct ")}
    wrong = []
    for line in old:
        kind, name = line.split()[:2]
        if kind == "struct" and name in growing and sizes.get(name, 0) >= int(line.split()[2]):
            continue  # it grew; its old fields are lines of their own
        if line.startswith("constant ADCG_NUM_") and line not in now:
            continue  # a count of constants: an array of them that shifts other fields shows there
        if line not in now:
            wrong.append(line)
    return wrong


def test_nothing_that_was_released_changed() -> None:
    assert broken(RELEASE.read_text().splitlines(), describe()) == []


def test_the_description_says_enough() -> None:
    lines = describe()
    for expected in (
        "function int32_t adcg_version(void)",
        "constant ADCG_ERR_SHAPE 21",
        "field adcg_batch.decode_seqs 40 8",
        "field adcg_op_call.set_error 104 8",
        "typedef int32_t adcg_status",
    ):
        assert expected in lines, expected
    assert sum(line.startswith("function ") for line in lines) > 25


def test_changes_are_seen() -> None:
    old = describe()
    grown = [line.replace("struct adcg_stats 1", "struct adcg_stats 9") for line in old]
    assert broken(old, [*grown, "field adcg_stats.new 999 8", "function int32_t adcg_new(void)"]) == []
    for victim in ("function int32_t adcg_version(void)", "constant ADCG_ERR_SHAPE 21", "typedef int32_t adcg_status"):
        assert broken(old, [line for line in old if line != victim]) == [victim]
    assert broken(old, [line.replace("struct adcg_attr ", "struct adcg_attr 1") for line in old]) != []


if __name__ == "__main__":
    sys.stdout.write("\n".join(describe()) + "\n")
