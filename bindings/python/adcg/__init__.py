"""adcg: the Python binding of libadcg, piecewise CUDA graphs behind a C ABI.

A model is registered once as a graph; the engine plans one arena for all of its segments and buckets, captures them,
and replays steps into arrays that the caller provides::

    with adcg.Engine("host") as engine:
        g = engine.graph(max_tokens=512, max_seqs=8)
        x = g.input("x", "float32", [g.tokens, 64])
        w = g.weight("w", "float32", [64, 64])
        g.output("y", g.linear(x, w))
        with g.compile(weights={"w": w_array}) as exec:
            step = exec.replay(adcg.Batch(prefill_seqs=2, prefill_tokens=37, decode_seqs=3), inputs={"x": x_array})
            y_array = step.outputs["y"]
"""

from . import errors
from ._ffi import VERSION as _VERSION
from ._ffi import path as library_path
from .batch import Batch
from .engine import AttrInfo, DeviceInfo, Engine, OpInfo
from .errors import AdcgError
from .executor import Bucket, Exec, Progress, Stats, Step
from .graph import Forecast, Graph, Value
from .ladder import LADDERS, LadderBucket, LadderBudget, LadderCost, choose_ladder, ladder_cost, named_ladder
from .log import set_log
from .memory import DeviceArray
from .ops import OpCall
from .shapes import Dim, Type
from .tensors import numpy_dtype

__version__ = f"{_VERSION // 10000}.{_VERSION // 100 % 100}.{_VERSION % 100}"

__all__ = [
    "LADDERS",
    "AdcgError",
    "AttrInfo",
    "Batch",
    "Bucket",
    "DeviceArray",
    "DeviceInfo",
    "Dim",
    "Engine",
    "Exec",
    "Forecast",
    "Graph",
    "LadderBucket",
    "LadderBudget",
    "LadderCost",
    "OpCall",
    "OpInfo",
    "Progress",
    "Stats",
    "Step",
    "Type",
    "Value",
    "choose_ladder",
    "errors",
    "ladder_cost",
    "library_path",
    "named_ladder",
    "numpy_dtype",
    "set_log",
]
