# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen dataclasses to JSON-able values and back, strictly: unknown, missing or mistyped is a ValueError."""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """`value` (dataclass, tuple, dict, StrEnum, scalar) as what the json module writes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [to_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: to_plain(each) for key, each in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise ValueError(f"cannot store a {type(value).__name__}")


def from_plain(kind: type[T], plain: Any, where: str = "$") -> T:
    """The dataclass `kind` from what `to_plain` made of it; `where` names the place in error messages."""
    result: T = _decode(kind, plain, where)
    return result


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, plain: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if plain is None:
            return None
        (inner,) = [each for each in typing.get_args(kind) if each is not type(None)]
        return _decode(inner, plain, where)
    if origin is tuple:
        _expect(plain, list, where)
        inner = typing.get_args(kind)[0]
        return tuple(_decode(inner, each, f"{where}[{index}]") for index, each in enumerate(plain))
    if origin is dict:
        _expect(plain, dict, where)
        inner = typing.get_args(kind)[1]
        return {key: _decode(inner, each, f"{where}.{key}") for key, each in plain.items()}
    if is_dataclass(kind):
        return _decode_dataclass(kind, plain, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        _expect(plain, str, where)
        return kind(plain)
    _expect(plain, kind, where)
    return plain


def _decode_dataclass(kind: Any, plain: Any, where: str) -> Any:
    _expect(plain, dict, where)
    hints = _hints(kind)
    unknown = plain.keys() - hints.keys()
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(sorted(unknown))}")
    for each in fields(kind):
        if each.name not in plain and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{where}: {each.name} is missing")
    return kind(**{name: _decode(hints[name], each, f"{where}.{name}") for name, each in plain.items()})


def _expect(plain: Any, kind: type, where: str) -> None:
    if not isinstance(plain, kind) or (kind is int and isinstance(plain, bool)):
        raise ValueError(f"{where}: expected {kind.__name__}, found {type(plain).__name__}")
