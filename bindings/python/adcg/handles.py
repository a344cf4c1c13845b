"""What engines, graphs and execs have in common: a handle of the library's that is given up exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from . import errors

Self = TypeVar("Self", bound="Handle")


class Handle:
    """Owns one opaque handle. ``close()`` may be called twice, in any order among engine, graph and exec, and is what
    ``with`` does at its end; an object that is collected closes itself."""

    _what: ClassVar[str] = "handle"
    _pointer: int | None = None

    def __init__(self, pointer: int | None, destroy: Callable[[int], Any]) -> None:
        self._pointer = pointer
        self._destroy = destroy

    @property
    def _handle(self) -> int:
        pointer = self._pointer
        if pointer is None:
            raise errors.AdcgError(errors.ERR_HANDLE, f"adcg.{self._what}: used after close(): {self!r}")
        return pointer

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._pointer is None

    def close(self) -> None:
        """Gives the handle up. What still depends on it (an exec on its graph, a graph on its engine) stays usable."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._destroy(pointer)

    def __enter__(self: Self) -> Self:
        self._handle  # noqa: B018  a closed object is not entered
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            self.close()
