"""adcg.h as ctypes: the one place that knows where the library is and what its functions look like.

Structures have the fields of the header, in its order and under its names; tests/python/test_ffi.py compares every
size and offset with what the C compiler says. Functions that return an adcg_status raise AdcgError when it is not
ADCG_OK. ctypes.CDLL releases the interpreter lock around every call.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from . import errors

# ---- Constants ---------------------------------------------------------------------------------------------------

MAX_NDIM = 8
MAX_LADDER = 1 << 24
NUM_REASONS = 8

ATTR_INT, ATTR_FLOAT, ATTR_BOOL, ATTR_STRING, ATTR_INTS = 1, 2, 3, 4, 5

OP_HOST_SYNC = 1 << 0
OP_STREAM_SWITCH = 1 << 1
OP_ZEROES_TAIL = 1 << 2
OP_PARAMETRIC = 1 << 3
OP_ROW_WISE = 1 << 4

ALIAS_VIEW, ALIAS_IN_PLACE, ALIAS_PART, ALIAS_JOIN = 1, 2, 3, 4
PHASE_WARMUP, PHASE_CAPTURE, PHASE_REPLAY, PHASE_DISCOVER = 1, 2, 3, 4
MODE_NONE, MODE_PIECEWISE, MODE_FULL, MODE_FULL_DECODE_ONLY, MODE_FULL_AND_PIECEWISE = 0, 1, 2, 3, 4
CAPTURE_ON_FIRST_USE, CAPTURE_EXPLICIT = 0, 1

KINDS = {"static": 1, "dynamic": 2, "metadata": 3}
PLANS = {"json": 1, "text": 2, "svg": 3}
CAPTURES = {"never": 0, "uniform_decode": 1, "uniform_batch": 2, "always": 3}
FLAGS = {
    "host_sync": OP_HOST_SYNC,
    "stream_switch": OP_STREAM_SWITCH,
    "zeroes_tail": OP_ZEROES_TAIL,
    "parametric": OP_PARAMETRIC,
    "row_wise": OP_ROW_WISE,
}
PHASES = {PHASE_WARMUP: "warmup", PHASE_CAPTURE: "capture", PHASE_REPLAY: "replay", PHASE_DISCOVER: "discover"}
MODES = {
    "none": MODE_NONE,
    "piecewise": MODE_PIECEWISE,
    "full": MODE_FULL,
    "full_decode_only": MODE_FULL_DECODE_ONLY,
    "full_and_piecewise": MODE_FULL_AND_PIECEWISE,
}
EXEC_CAPTURES = {"lazy": CAPTURE_ON_FIRST_USE, "explicit": CAPTURE_EXPLICIT}
CAPTURE_MODES = {"thread_local": 0, "global": 1, "relaxed": 2}
LAYOUT_FIXED, LAYOUT_PER_BUCKET, LAYOUT_AUTO = 0, 1, 2
LAYOUTS = {"fixed": LAYOUT_FIXED, "per_bucket": LAYOUT_PER_BUCKET, "auto": LAYOUT_AUTO}
# Of a step, or of a bucket: what ran. "eager" is ADCG_MODE_NONE.
STEP_MODES = {MODE_NONE: "eager", MODE_PIECEWISE: "piecewise", MODE_FULL: "full"}
REASONS = ("none", "mode", "support", "too_large", "not_captured", "capture_failed", "empty", "verify")
BUCKET_STATES = {0: "empty", 1: "captured", 2: "failed"}
ROLES = {1: "input", 2: "weight", 3: "state", 4: "activation"}
LOG_LEVELS = {"error": 1, "warning": 2, "info": 3, "debug": 4}

# name -> (adcg_dtype, DLPack code, bits)
DTYPES = {
    "float32": (1, 2, 32),
    "float16": (2, 2, 16),
    "bfloat16": (3, 4, 16),
    "float8_e4m3fn": (4, 10, 8),
    "int32": (5, 0, 32),
    "int64": (6, 0, 64),
    "uint8": (7, 1, 8),
    "bool": (8, 6, 8),
}
DTYPE_NAMES = {number: name for name, (number, _, _) in DTYPES.items()}

DL_CPU, DL_CUDA, DL_CUDA_HOST = 1, 2, 3


# ---- Structures --------------------------------------------------------------------------------------------------


class DLDevice(Structure):
    _fields_ = (("device_type", c_int32), ("device_id", c_int32))


class DLDataType(Structure):
    _fields_ = (("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16))


class DLTensor(Structure):
    _fields_ = (
        ("data", c_void_p),
        ("device", DLDevice),
        ("ndim", c_int32),
        ("dtype", DLDataType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class DLPackVersion(Structure):
    _fields_ = (("major", c_uint32), ("minor", c_uint32))


class DLManagedTensor(Structure):
    _fields_ = (("dl_tensor", DLTensor), ("manager_ctx", c_void_p), ("deleter", c_void_p))


class DLManagedTensorVersioned(Structure):
    _fields_ = (
        ("version", DLPackVersion),
        ("manager_ctx", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("dl_tensor", DLTensor),
    )


DLPACK_FLAG_READ_ONLY = 1


class Dim(Structure):
    _fields_ = (("tokens", c_int64), ("seqs", c_int64), ("constant", c_int64))


class Type(Structure):
    _fields_ = (("dtype", c_int32), ("ndim", c_int32), ("dims", Dim * MAX_NDIM))


class Attr(Structure):
    _fields_ = (
        ("name", c_char_p),
        ("type", c_int32),
        ("count", c_int32),
        ("i", c_int64),
        ("f", c_double),
        ("s", c_char_p),
        ("ints", POINTER(c_int64)),
    )


class AttrSpec(Structure):
    _fields_ = (("default_value", Attr), ("required", c_int32), ("doc", c_char_p))


class Sized(Structure):
    """A structure that begins with struct_size, which is filled in when it is made."""

    struct_size: int

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.struct_size = ctypes.sizeof(self)


class Batch(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("prefill_seqs", c_int64),
        ("prefill_tokens", c_int64),
        ("extend_seqs", c_int64),
        ("extend_tokens", c_int64),
        ("decode_seqs", c_int64),
        ("query_len", c_int64),
    )


class OpAlias(Structure):
    _fields_ = (("output", c_int32), ("input", c_int32), ("kind", c_int32))


SetErrorFn = CFUNCTYPE(None, c_char_p)


class InferCall(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("num_inputs", c_int32),
        ("num_outputs", c_int32),
        ("num_attrs", c_int32),
        ("inputs", POINTER(Type)),
        ("attrs", POINTER(Attr)),
        ("outputs", POINTER(Type)),
        ("set_error", SetErrorFn),
    )


class KernelLaunch(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("function", c_void_p),
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("shared_bytes", c_uint32),
        ("params", POINTER(c_void_p)),
    )


class OpCall(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("phase", c_int32),
        ("num_inputs", c_int32),
        ("num_outputs", c_int32),
        ("num_attrs", c_int32),
        ("tokens", c_int64),
        ("seqs", c_int64),
        ("batch", POINTER(Batch)),
        ("inputs", POINTER(DLTensor)),
        ("outputs", POINTER(DLTensor)),
        ("attrs", POINTER(Attr)),
        ("workspace", c_void_p),
        ("workspace_bytes", c_size_t),
        ("stream", c_void_p),
        ("launcher", c_void_p),
        ("set_error", SetErrorFn),
        ("device_batch", POINTER(Batch)),
    )


class Part(Structure):
    _fields_ = (("axis", c_int32), ("start", c_int64))


class PartCall(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("alias", c_int32),
        ("num_inputs", c_int32),
        ("num_outputs", c_int32),
        ("num_attrs", c_int32),
        ("inputs", POINTER(Type)),
        ("outputs", POINTER(Type)),
        ("attrs", POINTER(Attr)),
        ("set_error", SetErrorFn),
    )


OpPartFn = CFUNCTYPE(c_int32, POINTER(PartCall), POINTER(Part), c_void_p)
OpInferFn = CFUNCTYPE(c_int32, POINTER(InferCall), c_void_p)
OpWorkspaceFn = CFUNCTYPE(c_int32, POINTER(OpCall), POINTER(c_size_t), c_void_p)
OpLaunchFn = CFUNCTYPE(c_int32, c_void_p, c_void_p)  # the call as its bare address: the cheapest way in


class OpSchema(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("kind", c_int32),
        ("capture", c_int32),
        ("flags", c_uint32),
        ("num_inputs", c_int32),
        ("num_outputs", c_int32),
        ("mutates", c_uint64),
        ("num_optional_inputs", c_int32),
        ("num_aliases", c_int32),
        ("aliases", POINTER(OpAlias)),
        ("num_attrs", c_int32),
        ("attrs", POINTER(AttrSpec)),
        ("doc", c_char_p),
        ("infer", OpInferFn),
        ("workspace", OpWorkspaceFn),
        ("launch", OpLaunchFn),
        ("strided_inputs", c_uint64),
        ("strided_outputs", c_uint64),
        ("part", OpPartFn),
    )


class EngineOptions(Sized):
    _fields_ = (("struct_size", c_size_t), ("host_threads", c_int32))


class DeviceInfo(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char * 64),
        ("description", c_char * 128),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("threads", c_int32),
        ("memory_bytes", c_int64),
    )


class OpInfo(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("doc", c_char_p),
        ("kind", c_int32),
        ("capture", c_int32),
        ("flags", c_uint32),
        ("num_inputs", c_int32),
        ("num_optional_inputs", c_int32),
        ("num_outputs", c_int32),
        ("mutates", c_uint64),
        ("num_attrs", c_int32),
        ("attrs", POINTER(AttrSpec)),
    )


class GraphLimits(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("max_tokens", c_int64),
        ("max_seqs", c_int64),
        ("max_seq_len", c_int64),
    )


class ValueInfo(Sized):
    _fields_ = (("struct_size", c_size_t), ("name", c_char_p), ("role", c_int32), ("type", Type))


class ExecOptions(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("mode", c_int32),
        ("capture", c_int32),
        ("buckets", POINTER(c_int64)),
        ("num_buckets", c_int32),
        ("num_seq_buckets", c_int32),
        ("seq_buckets", POINTER(c_int64)),
        ("query_len", c_int64),
        ("verify", c_int32),
        ("layout", c_int32),
        ("plan_nodes", c_int64),
        ("plan_seconds", c_double),
        ("capture_mode", c_int32),
        ("batch_invariant", c_int32),
    )


class Forecast(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("total_bytes", c_int64),
        ("arena_bytes", c_int64),
        ("metadata_bytes", c_int64),
        ("tape_bytes", c_int64),
        ("graph_bytes", c_int64),
        ("staging_bytes", c_int64),
        ("workspace_bytes", c_int64),
        ("lower_bound_bytes", c_int64),
        ("bucket_sum_bytes", c_int64),
        ("num_buckets", c_int32),
        ("num_segments", c_int32),
        ("num_dynamic_ops", c_int32),
    )


class Bucket(Structure):
    _fields_ = (("mode", c_int32), ("tokens", c_int64), ("seqs", c_int64))


class Progress(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("index", c_int32),
        ("count", c_int32),
        ("bucket", Bucket),
        ("status", c_int32),
    )


class BucketInfo(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("bucket", Bucket),
        ("state", c_int32),
        ("num_steps", c_int32),
        ("tape_bytes", c_int64),
        ("replays", c_int64),
    )


class Step(Structure):  # not Sized: the replay fills struct_size in, which is three times as fast
    _fields_ = (
        ("struct_size", c_size_t),
        ("mode", c_int32),
        ("reason", c_int32),
        ("bucket_tokens", c_int64),
        ("bucket_seqs", c_int64),
        ("padded_tokens", c_int64),
        ("repointed", c_int64),
        ("staged_bytes", c_int64),
    )


class Stats(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("steps", c_int64),
        ("failed_steps", c_int64),
        ("full_steps", c_int64),
        ("piecewise_steps", c_int64),
        ("eager_steps", c_int64),
        ("reasons", c_int64 * NUM_REASONS),
        ("real_tokens", c_int64),
        ("padded_tokens", c_int64),
        ("repointed", c_int64),
        ("staged_tensors", c_int64),
        ("staged_bytes", c_int64),
        ("captured_buckets", c_int64),
        ("failed_buckets", c_int64),
        ("total_bytes", c_int64),
        ("arena_bytes", c_int64),
        ("metadata_bytes", c_int64),
        ("tape_bytes", c_int64),
        ("graph_bytes", c_int64),
    )


class StepCount(Structure):
    _fields_ = (("tokens", c_int64), ("steps", c_int64))


class LadderBudget(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("max_buckets", c_int32),
        ("allow_eager", c_int32),
        ("max_tokens", c_int64),
        ("bytes_per_bucket", c_int64),
        ("bytes_per_token", c_int64),
        ("max_bytes", c_int64),
        ("ns_per_bucket", c_int64),
        ("ns_per_token", c_int64),
        ("max_ns", c_int64),
    )


class LadderBucket(Structure):
    _fields_ = (
        ("tokens", c_int64),
        ("steps", c_int64),
        ("real_tokens", c_int64),
        ("padded_tokens", c_int64),
        ("bytes", c_int64),
        ("ns", c_int64),
    )


class LadderTotals(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("steps", c_int64),
        ("real_tokens", c_int64),
        ("padded_tokens", c_int64),
        ("eager_steps", c_int64),
        ("eager_tokens", c_int64),
        ("bytes", c_int64),
        ("ns", c_int64),
    )


LogFn = CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
WriteFn = CFUNCTYPE(c_int32, c_void_p, c_size_t, c_void_p)
ProgressFn = CFUNCTYPE(c_int32, POINTER(Progress), c_void_p)


# ---- The library -------------------------------------------------------------------------------------------------


def find_library() -> str:
    """Where libadcg.so is: ADCG_LIBRARY, else beside this package, else build/ of the checkout around it, else
    wherever the system's loader finds its soname."""
    override = os.environ.get("ADCG_LIBRARY")
    if override:
        if not Path(override).is_file():
            raise ImportError(f"adcg: ADCG_LIBRARY: no such file: {override}")
        return override
    here = Path(__file__).resolve().parent
    candidates = [here / "libadcg.so", here / "libadcg.so.0"]
    if len(here.parents) > 2 and (here.parents[2] / "include" / "adcg" / "adcg.h").is_file():
        candidates.append(here.parents[2] / "build" / "libadcg.so")
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    return "libadcg.so.0"


def _load() -> tuple[str, ctypes.CDLL]:
    path = find_library()
    try:
        return path, ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"adcg: cannot load the library {path}: {error}; set ADCG_LIBRARY to its path") from error


class _Status:
    """Marks a function that returns adcg_status and raises when it is not ADCG_OK."""


_handle = c_void_p  # engines, graphs and execs: opaque
_out_handle = POINTER(c_void_p)
_out_value = POINTER(c_int32)

_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "adcg_version": (c_int32, []),
    "adcg_status_name": (c_char_p, [c_int32]),
    "adcg_last_error": (c_char_p, []),
    "adcg_set_log": (_Status, [LogFn, c_int32, c_void_p]),
    "adcg_engine_create": (_Status, [c_char_p, POINTER(EngineOptions), _out_handle]),
    "adcg_engine_destroy": (None, [_handle]),
    "adcg_engine_register_op": (_Status, [_handle, POINTER(OpSchema), c_void_p]),
    "adcg_engine_get_device_info": (_Status, [_handle, POINTER(DeviceInfo)]),
    "adcg_engine_get_op_info": (_Status, [_handle, c_int32, POINTER(OpInfo)]),
    "adcg_graph_create": (_Status, [_handle, POINTER(GraphLimits), _out_handle]),
    "adcg_graph_destroy": (None, [_handle]),
    "adcg_graph_add_input": (_Status, [_handle, c_char_p, c_int32, c_int32, POINTER(Dim), _out_value]),
    "adcg_graph_add_weight": (_Status, [_handle, c_char_p, c_int32, c_int32, POINTER(Dim), _out_value]),
    "adcg_graph_add_state": (_Status, [_handle, c_char_p, c_int32, c_int32, POINTER(Dim), _out_value]),
    "adcg_graph_add_op": (
        _Status,
        [_handle, c_char_p, POINTER(c_int32), c_int32, POINTER(Attr), c_int32, _out_value, c_int32],
    ),
    "adcg_graph_add_output": (_Status, [_handle, c_char_p, c_int32]),
    "adcg_graph_freeze": (_Status, [_handle]),
    "adcg_graph_find_value": (_Status, [_handle, c_char_p, _out_value]),
    "adcg_graph_get_value_info": (_Status, [_handle, c_int32, POINTER(ValueInfo)]),
    "adcg_graph_forecast": (_Status, [_handle, POINTER(ExecOptions), POINTER(Forecast)]),
    "adcg_graph_write_plan": (_Status, [_handle, POINTER(ExecOptions), c_int32, WriteFn, c_void_p]),
    "adcg_exec_create": (_Status, [_handle, POINTER(ExecOptions), _out_handle]),
    "adcg_exec_destroy": (None, [_handle]),
    "adcg_exec_bind": (_Status, [_handle, c_int32, POINTER(DLTensor)]),
    "adcg_exec_capture": (_Status, [_handle, POINTER(Bucket), c_int32, ProgressFn, c_void_p]),
    "adcg_exec_get_bucket": (_Status, [_handle, c_int32, POINTER(BucketInfo)]),
    "adcg_exec_replay": (
        _Status,
        [_handle, POINTER(Batch), POINTER(DLTensor), c_int32, POINTER(DLTensor), c_int32, c_void_p, POINTER(Step)],
    ),
    "adcg_exec_synchronize": (_Status, [_handle]),
    "adcg_exec_wait_stream": (_Status, [_handle, c_void_p]),
    "adcg_stream_wait_exec": (_Status, [c_void_p, _handle]),
    "adcg_exec_release": (_Status, [_handle]),
    "adcg_exec_restore": (_Status, [_handle]),
    "adcg_memory_alloc": (_Status, [_handle, c_size_t, POINTER(c_void_p)]),
    "adcg_memory_free": (_Status, [_handle, c_void_p]),
    "adcg_memory_copy": (_Status, [_handle, c_void_p, c_void_p, c_size_t]),
    "adcg_exec_get_stats": (_Status, [_handle, POINTER(Stats)]),
    "adcg_ladder_choose": (
        _Status,
        [POINTER(StepCount), c_int32, POINTER(LadderBudget), POINTER(c_int64), c_int32, POINTER(c_int32)],
    ),
    "adcg_ladder_cost": (
        _Status,
        [
            POINTER(StepCount),
            c_int32,
            POINTER(c_int64),
            c_int32,
            POINTER(LadderBudget),
            POINTER(LadderBucket),
            POINTER(LadderTotals),
        ],
    ),
    "adcg_ladder_named": (_Status, [c_char_p, c_int64, c_int64, POINTER(c_int64), c_int32, POINTER(c_int32)]),
}


def last_failure(status: int) -> BaseException:
    """The exception for a status that a call on this thread just returned."""
    return errors.failure(status, lib.adcg_last_error().decode("utf-8", "replace"))


def _check(status: int, function: Any, arguments: tuple[Any, ...]) -> int:
    if status:
        raise last_failure(status)
    return status


class Functions:
    """adcg_* with their types, as attributes."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            if result is _Status:
                function.restype = c_int32
                function.errcheck = _check
            else:
                function.restype = result
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # for the type checker: every adcg_* is a ctypes function
        raise AttributeError(name)


path, _library = _load()
lib = Functions(_library)

# Replay once more, for the hot path: the arguments are ctypes objects that the exec prepared (so there is nothing to
# convert), and the status is looked at by the caller (so there is no errcheck to call).
replay = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_int32, c_void_p, c_void_p)(
    ("adcg_exec_replay", _library)
)

VERSION = int(lib.adcg_version())
if VERSION // 100 != 1:  # 0.1.x: before 1.0 a minor version may change the ABI
    raise ImportError(f"adcg: {path} is version {VERSION}, this package is for 0.1.x")
