"""Attributes of ops, between Python values and adcg_attr."""

from __future__ import annotations

import ctypes
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from . import _ffi, errors
from .errors import AdcgError

AttrValue = int | float | bool | str | tuple[int, ...]

# How a type is written as a required attribute of a Python op: attrs={"factor": float}.
REQUIRED_TYPES: dict[object, int] = {
    int: _ffi.ATTR_INT,
    float: _ffi.ATTR_FLOAT,
    bool: _ffi.ATTR_BOOL,
    str: _ffi.ATTR_STRING,
    tuple: _ffi.ATTR_INTS,
    list: _ffi.ATTR_INTS,
}
TYPE_NAMES = {
    _ffi.ATTR_INT: "int",
    _ffi.ATTR_FLOAT: "float",
    _ffi.ATTR_BOOL: "bool",
    _ffi.ATTR_STRING: "string",
    _ffi.ATTR_INTS: "ints",
}


def fill(attr: _ffi.Attr, name: str, value: object, expected: int | None, where: str) -> None:
    """Writes one attribute; what the memory behind it needs is kept by ctypes with ``attr``.

    An int becomes a float where the schema says float (``scale=1``); nothing else is converted, so that the library
    names an attribute of the wrong type.
    """
    attr.name = name.encode()
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "numpy.bool"):
        attr.type, attr.i = _ffi.ATTR_BOOL, int(bool(value))
    elif isinstance(value, str):
        if "\0" in value:
            raise AdcgError(errors.ERR_ATTRIBUTE, f"{where}: attribute {name!r}: a string with a NUL: {value!r}")
        attr.type, attr.s = _ffi.ATTR_STRING, value.encode()
    elif isinstance(value, numbers.Integral):
        if expected == _ffi.ATTR_FLOAT:
            attr.type, attr.f = _ffi.ATTR_FLOAT, float(value)
        elif not -(2**63) <= int(value) < 2**63:
            raise AdcgError(errors.ERR_ATTRIBUTE, f"{where}: attribute {name!r}: does not fit int64: {value}")
        else:
            attr.type, attr.i = _ffi.ATTR_INT, int(value)
    elif isinstance(value, numbers.Real):
        attr.type, attr.f = _ffi.ATTR_FLOAT, float(value)
    elif isinstance(value, Iterable):
        try:
            ints = [item.__index__() for item in value]
        except AttributeError:
            raise AdcgError(
                errors.ERR_ATTRIBUTE, f"{where}: attribute {name!r}: a list of ints is meant: {value!r}"
            ) from None
        attr.type, attr.count = _ffi.ATTR_INTS, len(ints)
        attr.ints = (ctypes.c_int64 * max(1, len(ints)))(*ints)
    else:
        raise AdcgError(
            errors.ERR_ATTRIBUTE,
            f"{where}: attribute {name!r}: int, float, bool, str or ints are meant: {type(value).__name__}",
        )


def array(values: Mapping[str, object], expected: Mapping[str, int], where: str) -> Any:
    """An adcg_attr array; None for no attributes."""
    if not values:
        return None
    attrs = (_ffi.Attr * len(values))()
    for attr, (name, value) in zip(attrs, values.items(), strict=True):
        fill(attr, name, value, expected.get(name), where)
    return attrs


def value_of(attr: _ffi.Attr) -> AttrValue:
    if attr.type == _ffi.ATTR_INT:
        return int(attr.i)
    if attr.type == _ffi.ATTR_FLOAT:
        return float(attr.f)
    if attr.type == _ffi.ATTR_BOOL:
        return bool(attr.i)
    if attr.type == _ffi.ATTR_STRING:
        return (attr.s or b"").decode()
    return tuple(attr.ints[: attr.count]) if attr.count else ()


def values_of(attrs: Any, count: int) -> dict[str, AttrValue]:
    return {attr.name.decode(): value_of(attr) for attr in attrs[:count]} if count else {}
