"""The library's log lines, to a Python callable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import _ffi, errors
from .errors import AdcgError

_target: Callable[[str, str], Any] | None = None


def _forward(level: int, message: bytes, user_data: int | None) -> None:
    target = _target
    if target is None:
        return
    names = {number: name for name, number in _ffi.LOG_LEVELS.items()}
    try:
        target(names.get(level, str(level)), message.decode("utf-8", "replace"))
    except Exception as error:  # a log line must not fail the call that it is about
        print(f"adcg.set_log: {target!r} raised {type(error).__name__}: {error}", file=sys.stderr)


# One thunk for the life of the process: another thread may still be in the old one when the target changes.
_thunk = _ffi.LogFn(_forward)


def set_log(log: Callable[[str, str], Any] | None, level: str | int = "info") -> None:
    """Sends the library's log lines of ``level`` and more severe ones to ``log(level, message)``, process-wide.

    Args:
        log: called from any thread that is in a call of the library, never from a replay; it must not call the
            library. None turns logging off, as at import.
        level: ``"error"``, ``"warning"``, ``"info"`` or ``"debug"``.
    """
    global _target
    if isinstance(level, str):
        if level not in _ffi.LOG_LEVELS:
            there = ", ".join(_ffi.LOG_LEVELS)
            raise AdcgError(errors.ERR_ARGUMENT, f"adcg.set_log: level: {level!r}; there are {there}")
        level = _ffi.LOG_LEVELS[level]
    if log is not None and not callable(log):
        raise AdcgError(errors.ERR_ARGUMENT, f"adcg.set_log: log: a callable is meant: {type(log).__name__}")
    previous, _target = _target, log
    try:
        _ffi.lib.adcg_set_log(_thunk if log is not None else _ffi.LogFn(), level, None)
    except BaseException:
        _target = previous
        raise
