"""Symbolic shapes: dims that depend on the step's token and sequence counts, and the types made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import _ffi, errors, tensors
from .errors import AdcgError


@dataclass(frozen=True)
class Dim:
    """One extent of a shape: ``tokens`` * token count + ``seqs`` * sequence count + ``constant``, in elements.

    ``g.tokens`` and ``g.seqs`` are dims; ``g.seqs + 1``, ``2 * g.tokens`` and sums of dims are too.
    """

    tokens: int = 0
    seqs: int = 0
    constant: int = 0

    def at(self, tokens: int, seqs: int) -> int:
        """The extent at these counts."""
        return self.tokens * tokens + self.seqs * seqs + self.constant

    def __add__(self, other: Dim | int) -> Dim:
        if isinstance(other, Dim):
            return Dim(self.tokens + other.tokens, self.seqs + other.seqs, self.constant + other.constant)
        return Dim(self.tokens, self.seqs, self.constant + int(other))

    __radd__ = __add__

    def __sub__(self, other: Dim | int) -> Dim:
        return self + -1 * other

    def __mul__(self, factor: int) -> Dim:
        return Dim(self.tokens * factor, self.seqs * factor, self.constant * factor)

    __rmul__ = __mul__

    def __str__(self) -> str:
        terms = [
            name if factor == 1 else f"{factor}*{name}"
            for factor, name in ((self.tokens, "tokens"), (self.seqs, "seqs"))
            if factor
        ]
        if self.constant or not terms:
            terms.append(str(self.constant))
        return "+".join(terms).replace("+-", "-")


def as_dim(extent: Dim | int, where: str) -> Dim:
    if isinstance(extent, Dim):
        return extent
    try:
        return Dim(constant=extent.__index__())
    except (AttributeError, TypeError):
        raise AdcgError(
            errors.ERR_SHAPE, f"{where}: {extent!r} is no dim, neither an int nor made of g.tokens"
        ) from None


@dataclass(frozen=True)
class Type:
    """Element type and symbolic shape of a value: ``Type("float32", (g.tokens, 64))``; ints become dims."""

    dtype: str
    shape: tuple[Dim, ...]

    def __init__(self, dtype: object, shape: Iterable[Dim | int]) -> None:
        object.__setattr__(self, "dtype", tensors.dtype_name(dtype, "adcg.Type: dtype"))
        object.__setattr__(self, "shape", tuple(as_dim(extent, "adcg.Type: shape") for extent in shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def dim_array(shape: Iterable[Dim | int], where: str) -> tuple[int, object]:
    """(ndim, adcg_dim array) of a shape."""
    dims = [as_dim(extent, where) for extent in shape]
    return len(dims), (_ffi.Dim * max(1, len(dims)))(*(_ffi.Dim(d.tokens, d.seqs, d.constant) for d in dims))


def type_of(raw: _ffi.Type) -> Type:
    dims = (Dim(d.tokens, d.seqs, d.constant) for d in raw.dims[: raw.ndim])
    return Type(_ffi.DTYPE_NAMES.get(raw.dtype, f"dtype({raw.dtype})"), dims)


def fill_type(raw: _ffi.Type, type_: Type) -> None:
    if type_.ndim > _ffi.MAX_NDIM:
        raise ValueError(f"{type_} has {type_.ndim} dims, {_ffi.MAX_NDIM} are the most")
    raw.dtype = _ffi.DTYPES[type_.dtype][0]
    raw.ndim = type_.ndim
    for i, d in enumerate(type_.shape):
        raw.dims[i].tokens, raw.dims[i].seqs, raw.dims[i].constant = d.tokens, d.seqs, d.constant
