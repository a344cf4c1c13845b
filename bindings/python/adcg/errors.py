"""AdcgError, and how a status of the library, or an exception inside a callback, becomes one."""

from __future__ import annotations

import threading

# The numbers are those of adcg.h. They stand here, and not only in the library, so that the binding can raise
# its own errors (an array that it cannot describe, a closed handle) in the same words.
OK = 0
ERR_ARGUMENT = 10
ERR_HANDLE = 11
ERR_STATE = 12
ERR_BUSY = 13
ERR_NOT_FOUND = 14
ERR_GRAPH = 20
ERR_SHAPE = 21
ERR_DTYPE = 22
ERR_ATTRIBUTE = 23
ERR_ADDRESS = 24
ERR_BATCH = 30
ERR_DEVICE = 40
ERR_UNSUPPORTED = 41
ERR_OUT_OF_MEMORY = 42
ERR_OP = 50
ERR_CANCELLED = 51
ERR_FORKED = 60
ERR_POISONED = 61
ERR_INTERNAL = 62

_NAMES = {number: f"ADCG_{name}" for name, number in list(globals().items()) if name == "OK" or name.startswith("ERR_")}


class AdcgError(Exception):
    """A call that failed.

    Attributes:
        status: the number, one of the ``ERR_`` constants of ``adcg.errors``.
        status_name: its name as the header writes it, ``"ADCG_ERR_SHAPE"``.
        message: what was wrong, in the form ``function: what: value``.

    If an exception in a callback (an op written in Python) caused it, that exception is ``__cause__``.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    @property
    def status_name(self) -> str:
        return status_name(self.status)

    def __str__(self) -> str:
        return f"{self.message} [{self.status_name}]"


class MissingOp(AdcgError, AttributeError):
    """``Graph.<name>``: neither an attribute of graphs nor an op of the engine's device."""


def status_name(status: int) -> str:
    """The name of a status, ``"ADCG_ERR_SHAPE"``; ``"ADCG_ERR_UNKNOWN"`` for a number that is none."""
    return _NAMES.get(status, "ADCG_ERR_UNKNOWN")


class _Pending(threading.local):
    """Exceptions that callbacks raised on this thread and that no failed call has claimed yet."""

    def __init__(self) -> None:
        self.raised: list[tuple[str, BaseException]] = []


_pending = _Pending()


def note_exception(exception: BaseException) -> str:
    """Keeps an exception of a callback until the library call around it fails; returns its one-line message.

    Callbacks run on the thread of the call that they belong to, so the thread is enough to find it again.
    """
    text = f"{type(exception).__name__}: {exception}".replace("\n", " ").replace("\0", " ")
    # The library may go on after a failed callback (a bucket whose capture fails runs eagerly), so what nobody
    # claims must not pile up.
    _pending.raised = [*_pending.raised[-7:], (text, exception)]
    return text


def failure(status: int, message: str) -> BaseException:
    """The exception to raise for a failed call: an AdcgError, with the callback's exception as its cause."""
    error = AdcgError(status, message)
    raised = _pending.raised
    if not raised:
        return error
    _pending.raised = []
    for text, exception in raised:
        if not isinstance(exception, Exception):
            return exception  # KeyboardInterrupt, SystemExit: meant for the program, not for us
        if status == ERR_CANCELLED and isinstance(exception, Cancelled):
            return exception.reason
        if text in message:
            error.__cause__ = exception
    return error


class Cancelled(Exception):
    """Wraps what a progress callback raised: the call ends with that exception itself."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(repr(reason))
        self.reason = reason
