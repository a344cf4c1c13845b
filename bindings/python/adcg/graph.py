"""Graphs: values and ops, registered once, then planned and compiled."""

from __future__ import annotations

import ctypes
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from . import _ffi, attrs, errors, tensors
from .engine import Engine, OpInfo
from .errors import AdcgError
from .handles import Handle
from .shapes import Dim, Type, dim_array, type_of

if TYPE_CHECKING:
    from .executor import Exec


@dataclass(frozen=True)
class Value:
    """A tensor of one graph: an input, weight or state, or what an op gave."""

    graph: Graph = field(repr=False, compare=False)
    number: int
    name: str = ""

    @property
    def role(self) -> str:
        """``"input"``, ``"weight"``, ``"state"`` or ``"activation"``."""
        return _ffi.ROLES.get(self.graph._info(self.number).role, "?")

    @property
    def type(self) -> Type | None:
        """Element type and shape; None while not known (an op without infer, before the freeze)."""
        raw = self.graph._info(self.number).type
        return type_of(raw) if raw.ndim else None

    @property
    def shape(self) -> tuple[Dim, ...] | None:
        known = self.type
        return None if known is None else known.shape

    @property
    def dtype(self) -> str | None:
        known = self.type
        return None if known is None else known.dtype


def bytes_text(count: int) -> str:
    """``"1,572,864 (1.5 MiB)"``."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count:,} ({count / size:.1f} {unit})"
    return f"{count:,}"


@dataclass(frozen=True)
class Forecast:
    """Every byte that an exec will hold, known before any is allocated, and what its plan compares with.

    ``arena_bytes`` holds all activations, workspaces and staging of all buckets; ``lower_bound_bytes`` is the most that
    is ever live at once, so that no plan can be smaller; ``bucket_sum_bytes`` is what an arena for each bucket would
    take. ``print()`` shows a table.
    """

    total_bytes: int
    arena_bytes: int
    metadata_bytes: int
    tape_bytes: int
    graph_bytes: int
    staging_bytes: int
    workspace_bytes: int
    lower_bound_bytes: int
    bucket_sum_bytes: int
    num_buckets: int
    num_segments: int
    num_dynamic_ops: int

    _LABELS: ClassVar[dict[str, str]] = {
        "total_bytes": "total bytes",
        "arena_bytes": "  arena",
        "staging_bytes": "    of it staging",
        "workspace_bytes": "    of it workspace",
        "metadata_bytes": "  metadata",
        "tape_bytes": "  tapes",
        "graph_bytes": "  driver's graphs",
        "lower_bound_bytes": "peak liveness (bound)",
        "bucket_sum_bytes": "one arena a bucket",
        "num_buckets": "captured sizes",
        "num_segments": "segments",
        "num_dynamic_ops": "dynamic ops",
    }

    def __str__(self) -> str:
        width = max(map(len, self._LABELS.values()))
        rows = []
        for name, label in self._LABELS.items():
            number = getattr(self, name)
            rows.append(f"{label:{width}}  {bytes_text(number) if name.endswith('bytes') else number}")
        return "\n".join(rows)


def exec_options(
    mode: str = "full_and_piecewise",
    capture: str = "lazy",
    buckets: Iterable[int] | None = None,
    seq_buckets: Iterable[int] | None = None,
    query_len: int = 0,
    verify: bool = False,
    layout: str = "fixed",
    plan_nodes: int = 0,
    plan_seconds: float = 0.0,
    capture_mode: str = "thread_local",
    batch_invariant: bool = False,
) -> _ffi.ExecOptions:
    """adcg_exec_options of these keywords; see ``Graph.compile``."""
    where = "adcg.Graph: options"
    for value, table, what in (
        (mode, _ffi.MODES, "mode"),
        (capture, _ffi.EXEC_CAPTURES, "capture"),
        (layout, _ffi.LAYOUTS, "layout"),
        (capture_mode, _ffi.CAPTURE_MODES, "capture_mode"),
    ):
        if value not in table:
            raise AdcgError(errors.ERR_ARGUMENT, f"{where}: {what}: {value!r}; there are {', '.join(table)}")
    options = _ffi.ExecOptions(
        mode=_ffi.MODES[mode],
        capture=_ffi.EXEC_CAPTURES[capture],
        query_len=query_len,
        verify=int(verify),
        layout=_ffi.LAYOUTS[layout],
        plan_nodes=plan_nodes,
        plan_seconds=plan_seconds,
        capture_mode=_ffi.CAPTURE_MODES[capture_mode],
        batch_invariant=int(batch_invariant),
    )
    for name, sizes in (("buckets", buckets), ("seq_buckets", seq_buckets)):
        if sizes is not None:
            array = [int(size) for size in sizes]
            if not array:
                # NULL and 0 mean the default list in C; an empty list in Python is more likely a mistake.
                raise AdcgError(errors.ERR_ARGUMENT, f"{where}: {name}: empty; leave it out for the default list")
            setattr(options, name, (ctypes.c_int64 * len(array))(*array))
            setattr(options, f"num_{name.removesuffix('s')}s", len(array))
    return options


class Graph(Handle):
    """A graph under construction, then frozen. Made by ``Engine.graph``.

    Every built-in op is a method with its attributes as keywords: ``g.linear(x, w)``, ``g.rms_norm(x, w, eps=1e-6)``;
    ``help(g.rope)`` shows what an op takes. Ops run in the order in which they are added. A single output is returned
    bare, several as a tuple.

    ``tokens`` and ``seqs`` are the dims that a step fixes; ``g.seqs + 1`` and ``2 * g.tokens`` are dims too.
    """

    _what: ClassVar[str] = "Graph"
    tokens: ClassVar[Dim] = Dim(tokens=1)
    seqs: ClassVar[Dim] = Dim(seqs=1)

    def __init__(self, engine: Engine, *, max_tokens: int, max_seqs: int, max_seq_len: int = 0) -> None:
        limits = _ffi.GraphLimits(max_tokens=max_tokens, max_seqs=max_seqs, max_seq_len=max_seq_len)
        out = ctypes.c_void_p()
        _ffi.lib.adcg_graph_create(engine._handle, ctypes.byref(limits), ctypes.byref(out))
        super().__init__(out.value, _ffi.lib.adcg_graph_destroy)
        self.engine = engine
        self._memory, self._location = engine._memory, engine._location
        engine.ops()  # known from now on, even if the engine is closed while the graph is built
        self.max_tokens = max_tokens
        self.max_seqs = max_seqs
        self.max_seq_len = max_seq_len or max_tokens
        self.inputs: list[Value] = []
        self.weights: list[Value] = []
        self.states: list[Value] = []
        self.outputs: list[tuple[str, Value]] = []
        self._frozen = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "frozen" if self._frozen else "open"
        return (
            f"<adcg.Graph, {state}: {len(self.inputs)} inputs, {len(self.weights)} weights, "
            f"{len(self.states)} states, {len(self.outputs)} outputs>"
        )

    # ---- Building ----------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: object, shape: Iterable[Dim | int]) -> Value:
        """A tensor given at each replay. Only the first dim may depend on a count. ``dtype``: ``"float32"``,
        ``"bfloat16"``, ``"int32"``, ..., or a numpy or torch dtype."""
        value = self._declare("input", name, dtype, shape)
        self.inputs.append(value)
        return value

    def weight(self, name: str, dtype: object, shape: Iterable[Dim | int]) -> Value:
        """A tensor of the caller's that is bound once and only read. All dims constant."""
        value = self._declare("weight", name, dtype, shape)
        self.weights.append(value)
        return value

    def state(self, name: str, dtype: object, shape: Iterable[Dim | int]) -> Value:
        """A tensor of the caller's that is bound once, read and written (a KV cache). All dims constant."""
        value = self._declare("state", name, dtype, shape)
        self.states.append(value)
        return value

    def _declare(self, role: str, name: str, dtype: object, shape: Iterable[Dim | int]) -> Value:
        where = f"adcg.Graph.{role}: {name!r}"
        ndim, dims = dim_array(shape, where)
        number = _ffi.DTYPES[tensors.dtype_name(dtype, where)][0]
        out = ctypes.c_int32()
        add = getattr(_ffi.lib, f"adcg_graph_add_{role}")
        add(self._handle, name.encode(), number, ndim, dims, ctypes.byref(out))
        return Value(self, out.value, name)

    def op(self, name: str, /, *inputs: Value | None, **attributes: object) -> Any:
        """Adds an op by its exact name, ``g.op("my.scale", x, factor=3.0)``.

        Inputs are positional; optional ones at the end may be left out or None. Returns the output's Value, or a tuple
        of them if the op has not exactly one. Raises AdcgError: ERR_NOT_FOUND (no such op), ERR_GRAPH (arity, a value
        of another graph, a mutated input that is no state), ERR_ATTRIBUTE, ERR_SHAPE, ERR_DTYPE, ERR_OP (infer failed).
        """
        info = self.engine._ops.get(name) or (None if self.engine.closed else self.engine._op(name))
        where = f"adcg.Graph.op: {name}"
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        numbers = []
        for i, value in enumerate(given):
            if not isinstance(value, Value):
                raise AdcgError(errors.ERR_GRAPH, f"{where}: inputs[{i}]: a Value is meant: {type(value).__name__}")
            if value.graph is not self:
                raise AdcgError(errors.ERR_GRAPH, f"{where}: inputs[{i}]: {value!r} is of another graph")
            numbers.append(value.number)
        for key, attribute in attributes.items():
            if isinstance(attribute, Value):
                raise AdcgError(errors.ERR_ATTRIBUTE, f"{where}: {key!r} is a Value: inputs are given by position")
        attr_array = attrs.array(attributes, info.attr_types if info else {}, where)
        num_outputs = info.num_outputs if info else 1
        out = (ctypes.c_int32 * max(1, num_outputs))()
        in_array = (ctypes.c_int32 * max(1, len(numbers)))(*numbers)
        _ffi.lib.adcg_graph_add_op(
            self._handle, name.encode(), in_array, len(numbers), attr_array, len(attributes), out, num_outputs
        )
        values = tuple(Value(self, number) for number in out[:num_outputs])
        return values[0] if num_outputs == 1 else values

    def split(self, x: Value, sizes: Iterable[int], axis: int = -1) -> list[Value]:
        """x cut along an axis into parts of these sizes, which together are all of it: an ``adcg.slice`` each. A part
        is x's own memory where all that read it take strides. Raises AdcgError: ERR_SHAPE, ERR_ATTRIBUTE, ERR_GRAPH."""
        lengths = [operator.index(size) for size in sizes]
        shape = x.shape if isinstance(x, Value) else None
        where = "adcg.Graph.split"
        if shape is not None and -len(shape) <= axis < len(shape) and shape[axis] != Dim(constant=sum(lengths)):
            given = f"{lengths}: {sum(lengths)} together, but the axis has {shape[axis]}"
            raise AdcgError(errors.ERR_SHAPE, f"{where}: sizes: {given}")
        if min(lengths, default=0) < 1:
            raise AdcgError(errors.ERR_ATTRIBUTE, f"{where}: sizes: {lengths}, each must be positive")
        starts = itertools.accumulate(lengths[:-1], initial=0)
        return [
            self.op("adcg.slice", x, axis=axis, start=start, length=length)
            for start, length in zip(starts, lengths, strict=True)
        ]

    def output(self, name: str, value: Value) -> None:
        """Names a value that every replay writes into an array of the caller's, or of its own."""
        if not isinstance(value, Value) or value.graph is not self:
            raise AdcgError(errors.ERR_GRAPH, f"adcg.Graph.output: {name!r}: {value!r} is no value of this graph")
        _ffi.lib.adcg_graph_add_output(self._handle, name.encode(), value.number)
        self.outputs.append((name, value))

    # Built-in ops as methods. They come from the library's own table, so a new op needs no new Python.

    def __getattr__(self, name: str) -> Callable[..., Any]:
        engine = self.__dict__.get("engine")
        info = None
        if engine is not None and not name.startswith("_"):
            full = f"adcg.{name}"
            info = engine._ops.get(full) or (None if engine.closed else engine._op(full))
        if info is None:
            where = f" on cuda:{self._location[1]}" if self.__dict__.get("_location", (1, 0))[0] == _ffi.DL_CUDA else ""
            what = f"adcg.Graph has no attribute and the op library no op {name!r}{where}"
            raise errors.MissingOp(errors.ERR_NOT_FOUND, what)
        return self._method(name, info)

    def _method(self, name: str, info: OpInfo) -> Callable[..., Any]:
        def method(*inputs: Value | None, **attributes: object) -> Any:
            return self.op(info.name, *inputs, **attributes)

        method.__name__ = name
        method.__qualname__ = f"Graph.{name}"
        method.__doc__ = info.describe()
        return method

    def __dir__(self) -> list[str]:
        known = self.engine._ops if self.engine.closed else self.engine.ops()
        built_in = [name.removeprefix("adcg.") for name in known if name.startswith("adcg.")]
        return sorted({*super().__dir__(), *built_in})

    # ---- Finished ----------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Ends the building: discovers shapes, validates the whole graph, splits it. ``forecast``, ``plan`` and
        ``compile`` do it themselves. A graph that is frozen already stays so. Raises AdcgError: ERR_GRAPH, ERR_SHAPE,
        ERR_DTYPE, ERR_OP; the graph then stays open."""
        if not self._frozen:
            _ffi.lib.adcg_graph_freeze(self._handle)
            self._frozen = True

    @property
    def frozen(self) -> bool:
        return self._frozen

    def _info(self, number: int) -> _ffi.ValueInfo:
        raw = _ffi.ValueInfo()
        _ffi.lib.adcg_graph_get_value_info(self._handle, number, ctypes.byref(raw))
        return raw

    def find(self, name: str) -> Value:
        """The input, weight, state or output of that name; raises ERR_NOT_FOUND."""
        out = ctypes.c_int32()
        _ffi.lib.adcg_graph_find_value(self._handle, name.encode(), ctypes.byref(out))
        return Value(self, out.value, name)

    def forecast(self, **options: Any) -> Forecast:
        """Every byte that ``compile`` with these options will hold; freezes the graph, allocates nothing."""
        self.freeze()
        raw = _ffi.Forecast()
        _ffi.lib.adcg_graph_forecast(self._handle, ctypes.byref(exec_options(**options)), ctypes.byref(raw))
        return Forecast(**{f.name: getattr(raw, f.name) for f in fields(Forecast)})

    def plan(self, format: str = "text", **options: Any) -> str:
        """The plan of an exec with these options: partitions, values with offsets, sizes and lifetimes, the bound, and
        what is live at the peak. ``"text"`` is a sketch and tables for a terminal, ``"json"`` has everything under
        stable names, ``"svg"`` is one self-contained picture. Freezes the graph."""
        if format not in _ffi.PLANS:
            known = ", ".join(_ffi.PLANS)
            raise AdcgError(errors.ERR_ARGUMENT, f"adcg.Graph.plan: format: {format!r}; there are {known}")
        self.freeze()
        pieces: list[bytes] = []

        def write(data: int, size: int, user_data: int | None) -> int:
            pieces.append(ctypes.string_at(data, size))
            return 0

        callback = _ffi.WriteFn(write)
        _ffi.lib.adcg_graph_write_plan(
            self._handle, ctypes.byref(exec_options(**options)), _ffi.PLANS[format], callback, None
        )
        return b"".join(pieces).decode()

    def compile(
        self,
        weights: Mapping[str, object] | None = None,
        states: Mapping[str, object] | None = None,
        *,
        mode: str = "full_and_piecewise",
        capture: str = "lazy",
        buckets: Iterable[int] | None = None,
        seq_buckets: Iterable[int] | None = None,
        query_len: int = 0,
        verify: bool = False,
        layout: str = "fixed",
        plan_nodes: int = 0,
        plan_seconds: float = 0.0,
        capture_mode: str = "thread_local",
        batch_invariant: bool = False,
    ) -> Exec:
        """Freezes, plans, allocates the arena and binds.

        Args:
            weights, states: arrays by name, used where they are: neither copied nor moved, kept alive by the exec. What
                is left out is bound later with ``Exec.bind``. Weights may be read-only; states are written.
            mode: ``"none"`` (every step eager), ``"piecewise"``, ``"full"``, ``"full_decode_only"``,
                ``"full_and_piecewise"``.
            capture: ``"lazy"``: a step captures the bucket that it needs; ``"explicit"``: only ``Exec.capture`` does.
            buckets: token counts to capture for; sorted, deduplicated and capped at ``max_tokens`` by the library.
                None: 64, 128, ... and ``max_tokens``.
            seq_buckets: sequence counts of full graphs and of segments behind the token gather. None: 1, 2, 4, ...
            query_len: full graphs of uniform batches with this many tokens a sequence, beside decode.
            verify: every step runs eagerly with its contracts checked; slow.
            layout: ``"fixed"`` (one set of offsets for all sizes), ``"per_bucket"`` (a size pays for what it needs
                itself: smaller where scratch is largest at a small size), ``"auto"`` (the smaller of the two).
            plan_nodes, plan_seconds: how far a smaller arena is searched for if the first is above its bound: nodes of
                search trees (0: 100,000, -1: no search), and a limit in seconds (0: none).
            capture_mode: of a CUDA device's captures: which calls of other threads they forbid meanwhile,
                ``"thread_local"``, ``"global"`` or ``"relaxed"``.
            batch_invariant: on a CUDA device too, the bits of a sequence depend on its own tokens alone.
        """
        from .device_exec import DeviceExec
        from .executor import Exec

        self.freeze()
        options = exec_options(
            mode,
            capture,
            buckets,
            seq_buckets,
            query_len,
            verify,
            layout,
            plan_nodes,
            plan_seconds,
            capture_mode,
            batch_invariant,
        )
        result = (Exec if self._location[0] == _ffi.DL_CPU else DeviceExec)(self, options)
        try:
            for arrays in (weights, states):
                for name, array in (arrays or {}).items():
                    result.bind(name, array)
        except BaseException:
            result.close()
            raise
        return result
