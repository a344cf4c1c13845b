"""The ctypes declarations against adcg.h, as the C compiler sees it."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from adcg import _ffi, errors

STRUCTS = {
    "DLDevice": _ffi.DLDevice,
    "DLDataType": _ffi.DLDataType,
    "DLTensor": _ffi.DLTensor,
    "DLPackVersion": _ffi.DLPackVersion,
    "DLManagedTensor": _ffi.DLManagedTensor,
    "DLManagedTensorVersioned": _ffi.DLManagedTensorVersioned,
    "adcg_dim": _ffi.Dim,
    "adcg_type": _ffi.Type,
    "adcg_attr": _ffi.Attr,
    "adcg_attr_spec": _ffi.AttrSpec,
    "adcg_batch": _ffi.Batch,
    "adcg_op_alias": _ffi.OpAlias,
    "adcg_infer_call": _ffi.InferCall,
    "adcg_part": _ffi.Part,
    "adcg_part_call": _ffi.PartCall,
    "adcg_kernel_launch": _ffi.KernelLaunch,
    "adcg_op_call": _ffi.OpCall,
    "adcg_op_schema": _ffi.OpSchema,
    "adcg_engine_options": _ffi.EngineOptions,
    "adcg_device_info": _ffi.DeviceInfo,
    "adcg_op_info": _ffi.OpInfo,
    "adcg_graph_limits": _ffi.GraphLimits,
    "adcg_value_info": _ffi.ValueInfo,
    "adcg_exec_options": _ffi.ExecOptions,
    "adcg_forecast": _ffi.Forecast,
    "adcg_bucket": _ffi.Bucket,
    "adcg_progress": _ffi.Progress,
    "adcg_bucket_info": _ffi.BucketInfo,
    "adcg_step": _ffi.Step,
    "adcg_stats": _ffi.Stats,
    "adcg_step_count": _ffi.StepCount,
    "adcg_ladder_budget": _ffi.LadderBudget,
    "adcg_ladder_bucket": _ffi.LadderBucket,
    "adcg_ladder_totals": _ffi.LadderTotals,
}


def compiled(root: Path, folder: Path, body: str) -> list[list[str]]:
    """The words of each line that a C program with this main prints."""
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if cc is None:
        pytest.skip("no C compiler")
    source = folder / "probe.c"
    source.write_text(
        "#include <adcg/adcg.h>\n#include <stdio.h>\n#define FIELD(s, f) "
        'printf("%s %s %zu %zu\\n", #s, #f, offsetof(s, f), sizeof(((s *)0)->f))\n'
        f"int main(void) {{\n{body}\nreturn 0;\n}}\n"
    )
    subprocess.run([cc, "-std=c11", f"-I{root / 'include'}", str(source), "-o", str(folder / "probe")], check=True)
    output = subprocess.run([str(folder / "probe")], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in output.splitlines()]


def test_structures_have_the_headers_layout(root: Path, tmp_path: Path) -> None:
    body = []
    for name, struct in STRUCTS.items():
        body.append(f'printf("{name} - 0 %zu\\n", sizeof({name}));')
        body += [f"FIELD({name}, {field[0]});" for field in struct._fields_]
    seen = 0
    for name, field, offset, size in compiled(root, tmp_path, "\n".join(body)):
        struct = STRUCTS[name]
        if field == "-":
            assert ctypes.sizeof(struct) == int(size), name
        else:
            described = getattr(struct, field)
            assert (described.offset, described.size) == (int(offset), int(size)), f"{name}.{field}"
            seen += 1
    assert seen == sum(len(struct._fields_) for struct in STRUCTS.values())


def test_every_struct_and_function_of_the_header_is_declared(root: Path) -> None:
    header = (root / "include" / "adcg" / "adcg.h").read_text()
    assert set(re.findall(r"^} (adcg_\w+);", header, re.M)) <= set(STRUCTS)
    functions = set(re.findall(r"^ADCG_API .*?\b(adcg_\w+)\(", header, re.M))
    assert functions == set(_ffi._PROTOTYPES)


def test_constants_are_the_headers(root: Path, tmp_path: Path) -> None:
    expected: dict[str, int] = {f"ADCG_{n}": v for n, v in vars(errors).items() if n == "OK" or n.startswith("ERR_")}
    expected |= {f"ADCG_OP_{n.upper()}": v for n, v in (_ffi.KINDS | _ffi.FLAGS).items()}
    expected |= {f"ADCG_CAPTURE_{n.upper()}": v for n, v in _ffi.CAPTURES.items()}
    expected |= {f"ADCG_CAPTURE_MODE_{n.upper()}": v for n, v in _ffi.CAPTURE_MODES.items()}
    expected |= {f"ADCG_MODE_{n.upper()}": v for n, v in _ffi.MODES.items()}
    expected |= {f"ADCG_PLAN_{n.upper()}": v for n, v in _ffi.PLANS.items()}
    expected |= {f"ADCG_REASON_{n.upper()}": i for i, n in enumerate(_ffi.REASONS)}
    expected |= {f"ADCG_BUCKET_{n.upper()}": i for i, n in _ffi.BUCKET_STATES.items()}
    expected |= {f"ADCG_ROLE_{n.upper()}": i for i, n in _ffi.ROLES.items()}
    expected |= {f"ADCG_PHASE_{n.upper()}": i for i, n in _ffi.PHASES.items()}
    expected |= {f"ADCG_LOG_{n.upper()}": i for n, i in _ffi.LOG_LEVELS.items()}
    shorts = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8E4M3"}
    shorts |= {"int32": "I32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}
    expected |= {f"ADCG_{shorts[n]}": number for n, (number, _, _) in _ffi.DTYPES.items()}
    expected |= {f"ADCG_ATTR_TYPE_{n}": getattr(_ffi, f"ATTR_{n}") for n in ("INT", "FLOAT", "BOOL", "STRING", "INTS")}
    for name in ("ALIAS_VIEW", "ALIAS_IN_PLACE", "CAPTURE_ON_FIRST_USE", "CAPTURE_EXPLICIT"):
        expected[f"ADCG_{name}"] = getattr(_ffi, name)
    expected |= {f"ADCG_{name}": getattr(_ffi, name) for name in ("MAX_NDIM", "MAX_LADDER", "NUM_REASONS")}
    body = "\n".join(f'printf("{name} %d\\n", (int)({name}));' for name in expected)
    got = {name: int(number) for name, number in compiled(root, tmp_path, body)}
    assert got == expected


def test_dtypes_are_dlpacks(root: Path, tmp_path: Path) -> None:
    body = "for (int d = 1; d <= 8; d++) { DLDataType t = adcg_dtype_to_dlpack(d); "
    body += 'printf("%d %d %d\\n", d, t.code, t.bits); }'
    got = {tuple(map(int, line)) for line in compiled(root, tmp_path, body)}
    assert got == set(_ffi.DTYPES.values())


def test_status_names() -> None:
    for name, number in vars(errors).items():
        if name.startswith("ERR_"):
            assert _ffi.lib.adcg_status_name(number).decode() == f"ADCG_{name}" == errors.status_name(number)
    assert _ffi.lib.adcg_status_name(7).decode() == "ADCG_ERR_UNKNOWN" == errors.status_name(7)
