"""Execs: a frozen graph with its plan, its arena and its captured buckets."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from ctypes import addressof, byref, c_char, c_int32, c_void_p, sizeof
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from . import _ffi, errors, tensors
from .batch import Batch
from .errors import AdcgError
from .graph import Graph, Value, bytes_text
from .handles import Handle
from .progress import ProgressBar

_from_buffer: Any = c_char.from_buffer
_RawStep: Any = _ffi.Step
_STEP_SIZE = sizeof(_ffi.Step)
_PLAIN = 0x1 | 0x100 | 0x400  # NPY_ARRAY_C_CONTIGUOUS, _ALIGNED, _WRITEABLE
_OURS: tuple[int, ...] = (-1,)  # the shape "seen" by an output that describes arrays of our own


class Step:
    """What a replay did.

    Attributes:
        outputs: name -> array. An array that the caller gave is the one that was given (real rows first, anything
            behind them); one that was left out is a numpy array of exactly the real size.
    """

    __slots__ = ("_raw", "outputs")

    outputs: dict[str, Any]

    def __init__(self, raw: _ffi.Step, outputs: dict[str, Any]) -> None:
        self._raw: Any = raw
        self.outputs = outputs

    @property
    def mode(self) -> str:
        """``"full"``, ``"piecewise"`` or ``"eager"``."""
        return _ffi.STEP_MODES.get(self._raw.mode, "?")

    @property
    def reason(self) -> str:
        """Why it did not run as one full graph: ``"none"``, ``"mode"``, ``"support"``, ``"too_large"``,
        ``"not_captured"``, ``"capture_failed"``, ``"empty"``, ``"verify"``."""
        return _ffi.REASONS[self._raw.reason]

    @property
    def bucket_tokens(self) -> int:
        """Rows of token tensors that it ran at; the real ones if eager."""
        return int(self._raw.bucket_tokens)

    @property
    def bucket_seqs(self) -> int:
        return int(self._raw.bucket_seqs)

    @property
    def padded_tokens(self) -> int:
        """bucket_tokens less the real ones."""
        return int(self._raw.padded_tokens)

    @property
    def repointed(self) -> int:
        """The caller's tensors that had moved since the bucket last ran."""
        return int(self._raw.repointed)

    @property
    def staged_bytes(self) -> int:
        """Copied because a tensor was too short for the bucket."""
        return int(self._raw.staged_bytes)

    def __repr__(self) -> str:
        return (
            f"Step(mode={self.mode!r}, reason={self.reason!r}, bucket_tokens={self.bucket_tokens}, "
            f"bucket_seqs={self.bucket_seqs}, padded_tokens={self.padded_tokens}, repointed={self.repointed}, "
            f"staged_bytes={self.staged_bytes})"
        )


@dataclass(frozen=True)
class Bucket:
    """One captured size. Of a piecewise bucket, the segments that depend on tokens have ``seqs`` 0, those behind the
    token gather ``tokens`` 0; a full graph has both. ``state`` is ``"empty"``, ``"captured"`` or ``"failed"``."""

    mode: str
    tokens: int
    seqs: int
    state: str = "empty"
    num_steps: int = 0
    tape_bytes: int = 0
    replays: int = 0


@dataclass(frozen=True)
class Progress:
    """One bucket of a capture is done: number ``index`` of ``count``. ``status`` is not 0 if it failed; it will run
    eagerly."""

    index: int
    count: int
    bucket: Bucket
    status: int


@dataclass(frozen=True)
class Stats:
    """Counters since the exec was created, and the bytes that it holds now. ``reasons``: steps by reason."""

    steps: int
    failed_steps: int
    full_steps: int
    piecewise_steps: int
    eager_steps: int
    reasons: dict[str, int]
    real_tokens: int
    padded_tokens: int
    repointed: int
    staged_tensors: int
    staged_bytes: int
    captured_buckets: int
    failed_buckets: int
    total_bytes: int
    arena_bytes: int
    metadata_bytes: int
    tape_bytes: int
    graph_bytes: int

    def __str__(self) -> str:
        rows = []
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "reasons":
                text = ", ".join(f"{name} {count}" for name, count in value.items() if count) or "-"
            else:
                text = bytes_text(value) if f.name.endswith("bytes") else f"{value:,}"
            rows.append(f"{f.name.replace('_', ' '):17} {text}")
        return "\n".join(rows)


class Place(tensors.Slot):
    """Where one input or output of a replay goes: its DLTensor, and what the graph says of it."""

    __slots__ = ("a", "b", "c", "exports", "name", "numpy", "tail", "type", "varies")

    def __init__(self, tensor: _ffi.DLTensor, name: str, value: Value) -> None:
        super().__init__(tensor)
        type_ = value.type
        if type_ is None:  # a frozen graph knows every type
            raise AdcgError(errors.ERR_INTERNAL, f"adcg.Exec: {name!r}: the library gives no type")
        self.name = name
        self.type = type_
        first = type_.shape[0]
        self.a, self.b, self.c = first.tokens, first.seqs, first.constant
        self.varies = bool(first.tokens or first.seqs)
        self.tail = tuple(d.constant for d in type_.shape[1:])
        # numpy may lack this element type (no ml_dtypes): then outputs of it cannot be left out.
        self.numpy: np.dtype[Any] | None
        try:
            self.numpy = tensors.numpy_dtype(type_.dtype)
        except AdcgError:
            self.numpy = None
        # Types that numpy did not bring cannot be exported through the buffer protocol.
        self.exports = self.numpy is not None and self.numpy.isbuiltin == 1 and 0 not in self.tail

    def refill(self, array: Any) -> bool:
        """Another writable, compact numpy array of the declared type, where the last one was such an array too: only
        address and rows differ. False if it is anything else, which ``fill`` is for."""
        if type(array) is not np.ndarray or self.flags & _PLAIN != _PLAIN or self.seen is _OURS or not self.exports:
            return False
        shape, flags = array.shape, array.flags.num
        if (
            array.dtype is not self.numpy
            or self.dtype is not self.numpy
            or flags & _PLAIN != _PLAIN
            or not shape
            or shape[1:] != self.seen[1:]
            or len(shape) != len(self.seen)
            or not array.size
        ):
            return False
        self.tensor.data = addressof(_from_buffer(array))
        self.ref = weakref.ref(array)
        self.seen = shape
        self.flags = flags
        self.rows = self.shape[0] = shape[0]
        return True

    def allocate(self, rows: int) -> Any:
        """A new array with these rows, described in the tensor."""
        if self.numpy is None:
            raise AdcgError(
                errors.ERR_DTYPE,
                f"adcg.Exec.replay: outputs[{self.name!r}]: left out, and numpy lacks its type without ml_dtypes",
            )
        array = np.empty((rows, *self.tail), self.numpy)
        if not self.exports or not rows or self.seen is not _OURS:
            self.fill(array, self.name)
            self.ref = tensors.unseen  # nobody gives this array again
            self.seen = _OURS
        else:  # only the address and the rows differ from the last one
            self.tensor.data = addressof(_from_buffer(array))
            self.shape[0] = rows
        return array


def _refuse(place: str, names: Sequence[str], given: Any) -> AdcgError:
    """Says what is wrong with a list of arrays that does not fit the graph's."""
    where = f"adcg.Exec.replay: {place}"
    listed = ", ".join(map(repr, names)) or "none"
    if isinstance(given, Mapping):
        unknown = [repr(name) for name in given if name not in names]
        if unknown:
            return AdcgError(errors.ERR_NOT_FOUND, f"{where}: no such name: {', '.join(unknown)}; there are {listed}")
        missing = [repr(name) for name in names if name not in given]
        return AdcgError(errors.ERR_ARGUMENT, f"{where}: missing: {', '.join(missing)}")
    if isinstance(given, (list, tuple)):
        return AdcgError(errors.ERR_ARGUMENT, f"{where}: {len(given)} arrays for {len(names)}: {listed}")
    return AdcgError(errors.ERR_ARGUMENT, f"{where}: a dict by name or a list is meant: {type(given).__name__}")


class Exec(Handle):
    """A compiled graph. Made by ``Graph.compile``.

    One thread at a time: a call beside a replay raises ERR_BUSY. Execs of one graph replay in parallel.
    """

    _what: ClassVar[str] = "Exec"

    def __init__(self, graph: Graph, options: _ffi.ExecOptions) -> None:
        out = c_void_p()
        _ffi.lib.adcg_exec_create(graph._handle, byref(options), byref(out))
        super().__init__(out.value, _ffi.lib.adcg_exec_destroy)
        self._graph = graph
        self._bound: dict[int, object] = {}
        self._bindable = {value.name: value for value in (*graph.weights, *graph.states)}
        self._state_numbers = {value.number for value in graph.states}
        # The prepared structures belong to one replay at a time; the library's own busy flag comes too late for them.
        self._lock = threading.Lock()
        self._in_array = (_ffi.DLTensor * max(1, len(graph.inputs)))()
        self._out_array = (_ffi.DLTensor * max(1, len(graph.outputs)))()
        self._ins = [self._place(self._in_array[i], v.name, v, True) for i, v in enumerate(graph.inputs)]
        self._outs = [self._place(self._out_array[i], name, v, False) for i, (name, v) in enumerate(graph.outputs)]
        self._in_names = tuple(place.name for place in self._ins)
        self._out_names = tuple(place.name for place in self._outs)
        self._in_arg, self._in_count = byref(self._in_array), c_int32(len(self._ins))
        self._out_arg, self._out_count = byref(self._out_array), c_int32(len(self._outs))
        self._pointer_arg = c_void_p(self._pointer)

    def _place(self, tensor: _ffi.DLTensor, name: str, value: Value, is_input: bool) -> Place:
        return Place(tensor, name, value)

    def _borrow(self, array: object, where: str) -> tuple[_ffi.DLTensor, tensors.Described]:
        return tensors.borrowed(array, where)

    def __repr__(self) -> str:
        return f"<adcg.Exec{', closed' if self.closed else ''}: {len(self._ins)} inputs, {len(self._outs)} outputs>"

    @property
    def graph(self) -> Graph:
        return self._graph

    def close(self) -> None:
        """Frees the exec and lets go of what is bound; waits for a replay that another thread is in."""
        super().close()
        self.__dict__.get("_bound", {}).clear()

    # ---- Binding -----------------------------------------------------------------------------------------------

    def bind(self, name: str | Value, array: object) -> None:
        """Binds a weight or a state, or binds it anew: captured buckets follow.

        The array is used where it is and kept alive until the exec is closed or the value bound again; it must not be
        resized meanwhile. It has the value's dtype and exactly its shape, is compact, and writable if it is a state.
        On a CUDA device an array in host memory is uploaded first, and the copy bound: steps write states in that copy
        alone (``bound`` gives it). To bind one upload in several execs, upload it yourself (``Engine.from_numpy``).
        Raises AdcgError: ERR_NOT_FOUND, ERR_STATE (neither weight nor state), ERR_SHAPE, ERR_DTYPE, ERR_DEVICE,
        ERR_ADDRESS, ERR_BUSY.
        """
        if not isinstance(name, Value):
            known = self._bindable.get(name)
            name = known if known is not None else self._graph.find(name)
        where = f"adcg.Exec.bind: {name.name!r}"
        tensor, described = self._borrow(array, where)
        if described.readonly and name.number in self._state_numbers:
            raise AdcgError(errors.ERR_ADDRESS, f"{where}: a state is written, and the array is read-only")
        _ffi.lib.adcg_exec_bind(self._handle, name.number, byref(tensor))
        self._bound[name.number] = described.keep

    def bound(self, name: str) -> Any:
        """What is bound to that weight or state: the array as it was given, or the ``DeviceArray`` that it was
        uploaded to. Raises ERR_NOT_FOUND, ERR_STATE (nothing is bound)."""
        number = self._graph.find(name).number
        if number not in self._bound:
            raise AdcgError(errors.ERR_STATE, f"adcg.Exec.bound: {name!r}: nothing is bound")
        kept = self._bound[number]
        return kept[1] if type(kept) is tuple else kept  # DLPack: (capsule, array)

    # ---- Capture -----------------------------------------------------------------------------------------------

    def buckets(self) -> list[Bucket]:
        """Every size of this exec, with its state and counters."""
        handle = self._handle
        found: list[Bucket] = []
        raw = _ffi.BucketInfo()
        while True:
            try:
                _ffi.lib.adcg_exec_get_bucket(handle, len(found), byref(raw))
            except AdcgError as error:
                if error.status != errors.ERR_NOT_FOUND:
                    raise
                return found
            bucket = raw.bucket
            found.append(
                Bucket(
                    _ffi.STEP_MODES.get(bucket.mode, "?"),
                    bucket.tokens,
                    bucket.seqs,
                    _ffi.BUCKET_STATES.get(raw.state, "?"),
                    raw.num_steps,
                    raw.tape_bytes,
                    raw.replays,
                )
            )

    def capture(
        self,
        progress: bool | Callable[[Progress], Any] = False,
        buckets: Iterable[Bucket | tuple[str, int, int]] | None = None,
    ) -> None:
        """Captures buckets in the order given; None: all, the largest first. Those that are captured are skipped.

        Args:
            progress: True draws a bar on stderr; a callable gets a ``Progress`` after each bucket, and stops the
                capture by returning False (ERR_CANCELLED; what is captured stays) or by raising, which ends the call
                with that exception.
            buckets: of ``buckets()``, or ``(mode, tokens, seqs)``.

        Every weight and state must be bound (ERR_STATE). A bucket that fails leaves the others usable and runs
        eagerly; the call goes on and raises the first failure (ERR_OP names the op).
        """
        array: Any = None
        count = 0
        if buckets is not None:
            modes = {name: number for number, name in _ffi.STEP_MODES.items()}
            sizes = [(b.mode, b.tokens, b.seqs) if isinstance(b, Bucket) else b for b in buckets]
            for size in sizes:
                if size[0] not in modes:
                    raise AdcgError(
                        errors.ERR_ARGUMENT, f"adcg.Exec.capture: buckets: {size!r}: mode is full or piecewise"
                    )
            count = len(sizes)
            if not count:
                return
            array = (_ffi.Bucket * count)(*(_ffi.Bucket(modes[mode], tokens, seqs) for mode, tokens, seqs in sizes))
        bar: ProgressBar | None = None
        report: Callable[[Progress], Any] | None = None
        if progress is True:
            bar = ProgressBar("capture", "bucket")
            report = bar.report
        elif callable(progress):
            report = progress

        def callback(raw: Any, user_data: int | None) -> int:
            done = raw.contents
            bucket = Bucket(_ffi.STEP_MODES.get(done.bucket.mode, "?"), done.bucket.tokens, done.bucket.seqs)
            try:
                assert report is not None
                return int(report(Progress(done.index, done.count, bucket, done.status)) is False)
            except BaseException as exception:
                errors.note_exception(errors.Cancelled(exception))
                return 1

        thunk = _ffi.ProgressFn(callback) if report is not None else _ffi.ProgressFn()
        try:
            _ffi.lib.adcg_exec_capture(self._handle, array, count, thunk, None)
        finally:
            if bar is not None:
                bar.close()

    # ---- Replay ------------------------------------------------------------------------------------------------

    def replay(
        self,
        batch: Batch,
        inputs: Mapping[str, Any] | Sequence[Any] = (),
        outputs: Mapping[str, Any] | Sequence[Any] | None = None,
        stream: object = None,
        *,
        lend: bool = False,
    ) -> Step:
        """Runs one step.

        Args:
            batch: the step's real counts. Real rows of a tensor are its first dim at those counts.
            inputs: arrays by name, or in the order in which inputs were added: numpy, anything with ``__dlpack__``, or
                with the buffer protocol; of the declared dtype, compact, with at least the real rows. They are only
                read: an array that is shorter than the bucket is staged (copied), whatever its own size.
            outputs: arrays to write, likewise; writable. Rows behind the real ones may be written with anything. What
                is left out (all of them, or some names) comes back as a new numpy array of the real size.
            stream: of a CUDA device: a CUstream as an int, 1 or 2 (the default streams), an object with
                ``.cuda_stream`` (torch), or None: the exec's own. None on the host device.
            lend: True lends the rows of writable inputs that lie behind the real ones to the library, which zeroes
                them: an input with as many rows as the bucket is then used where it is, without a copy.

        Returns a ``Step`` with ``.outputs`` and what was done. Raises AdcgError: ERR_BATCH, ERR_SHAPE, ERR_DTYPE,
        ERR_DEVICE, ERR_ADDRESS, ERR_STATE (something is not bound, nothing captured), ERR_OP (the message names the op;
        if it was a Python op, its exception is the cause), ERR_BUSY, ERR_HANDLE (closed).
        """
        if not self._lock.acquire(False):
            raise AdcgError(errors.ERR_BUSY, "adcg.Exec.replay: another call is in a replay of this exec")
        kept: list[Place] | None = None
        try:
            if self._pointer is None:
                self._handle  # noqa: B018  raises
            try:
                tokens = batch.prefill_tokens + batch.extend_tokens + batch.decode_seqs
                seqs = batch.prefill_seqs + batch.extend_seqs + batch.decode_seqs
            except AttributeError:
                raise AdcgError(
                    errors.ERR_ARGUMENT, f"adcg.Exec.replay: batch: an adcg.Batch is meant: {type(batch).__name__}"
                ) from None
            ins = self._ins
            if len(inputs) != len(ins):
                raise _refuse("inputs", self._in_names, inputs)
            by_name = isinstance(inputs, dict) or isinstance(inputs, Mapping)  # noqa: SIM101  the first test is cheap
            for i, place in enumerate(ins):
                try:
                    array = inputs[place.name] if by_name else inputs[i]  # type: ignore[call-overload,index]
                except (KeyError, TypeError):
                    raise _refuse("inputs", self._in_names, inputs) from None
                if (
                    place.ref() is not array
                    or array.dtype is not place.dtype
                    or array.shape != place.seen
                    or array.flags.num != place.flags
                ):
                    if not place.refill(array):
                        place.fill(array, f"adcg.Exec.replay: inputs[{place.name!r}]")
                    if place.keep is not None:
                        kept = [place] if kept is None else [*kept, place]
                if place.varies:
                    rows = place.a * tokens + place.b * seqs + place.c
                    if place.rows <= rows or (lend and not place.readonly):
                        rows = place.rows
                    place.shape[0] = rows
            results: dict[str, Any] = {}
            if outputs is None:
                for place in self._outs:
                    rows = place.a * tokens + place.b * seqs + place.c
                    results[place.name] = place.allocate(rows if rows > 0 else 0)
            else:
                kept = self._fill_outputs(outputs, results, tokens, seqs, kept)
            raw = _RawStep()
            raw.struct_size = _STEP_SIZE
            status = _ffi.replay(
                self._pointer_arg,
                byref(batch),
                self._in_arg,
                self._in_count,
                self._out_arg,
                self._out_count,
                None if stream is None else tensors.stream_pointer(stream, "adcg.Exec.replay"),
                byref(raw),
            )
            if status:
                raise _ffi.last_failure(status)
            return Step(raw, results)
        finally:
            if kept is not None:
                for place in kept:
                    place.keep = None
            self._lock.release()

    def _fill_outputs(
        self, outputs: Any, results: dict[str, Any], tokens: int, seqs: int, kept: list[Place] | None
    ) -> list[Place] | None:
        by_name = isinstance(outputs, Mapping)
        outs = self._outs
        found = 0
        if not by_name and (not isinstance(outputs, (list, tuple)) or len(outputs) != len(outs)):
            raise _refuse("outputs", self._out_names, outputs)
        for i, place in enumerate(outs):
            if by_name and place.name not in outputs:
                rows = place.a * tokens + place.b * seqs + place.c
                results[place.name] = place.allocate(rows if rows > 0 else 0)
                continue
            found += 1
            array = outputs[place.name] if by_name else outputs[i]
            results[place.name] = array
            if (
                place.ref() is not array
                or array.dtype is not place.dtype
                or array.shape != place.seen
                or array.flags.num != place.flags
            ):
                if not place.refill(array):
                    place.fill(array, f"adcg.Exec.replay: outputs[{place.name!r}]")
                if place.readonly:
                    place.forget()
                    raise AdcgError(
                        errors.ERR_ADDRESS, f"adcg.Exec.replay: outputs[{place.name!r}]: the array is read-only"
                    )
                if place.keep is not None:
                    kept = [place] if kept is None else [*kept, place]
            place.shape[0] = place.rows
        if found != len(outputs):
            raise _refuse("outputs", self._out_names, outputs)
        return kept

    def synchronize(self) -> None:
        """Waits until everything that replays enqueued is done; on the host device it is when they return."""
        _ffi.lib.adcg_exec_synchronize(self._handle)

    def wait_stream(self, stream: object) -> None:
        """Steps from now on run behind everything that is in ``stream`` now; the host waits for nothing. ``stream`` as
        for ``replay``. Raises ERR_DEVICE, ERR_BUSY."""
        pointer = None if stream is None else tensors.stream_pointer(stream, "adcg.Exec.wait_stream")
        _ffi.lib.adcg_exec_wait_stream(self._handle, pointer)

    def stream_wait(self, stream: object) -> None:
        """What enters ``stream`` from now on runs behind the last step; likewise."""
        pointer = None if stream is None else tensors.stream_pointer(stream, "adcg.Exec.stream_wait")
        _ffi.lib.adcg_stream_wait_exec(pointer, self._handle)

    def release(self) -> None:
        """Gives the arena's memory back to the device, once every step is done; captures, bindings and counters stay.

        Until ``restore``, ``replay`` and ``capture`` raise ERR_STATE. Execs that never run at once can so take turns on
        memory for the largest of them. Raises ERR_STATE (released already), ERR_BUSY, ERR_DEVICE.
        """
        _ffi.lib.adcg_exec_release(self._handle)

    def restore(self) -> None:
        """Has the memory that ``release`` gave back again, at the same addresses: nothing is captured anew. Raises
        ERR_OUT_OF_MEMORY (the exec stays released, and can be restored later), ERR_STATE (not released), ERR_BUSY.
        """
        _ffi.lib.adcg_exec_restore(self._handle)

    def stats(self) -> Stats:
        """Counters since the exec was created, and the bytes that it holds now."""
        raw: Any = _ffi.Stats()
        _ffi.lib.adcg_exec_get_stats(self._handle, byref(raw))
        values = {f.name: getattr(raw, f.name) for f in fields(Stats)}
        values["reasons"] = dict(zip(_ffi.REASONS, raw.reasons, strict=True))
        return Stats(**values)
