"""Rows of a run as JSON objects.

A field that has its default is left out, so a line of the log shows what its call was about. Reading constructs the
known rows only; nothing is imported or called by a stored name.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

RowT = TypeVar("RowT")


def to_form(row: object) -> dict[str, Any]:
    """The JSON object of a row: an instance of a dataclass of rows."""
    form = {}
    kind: Any = type(row)
    for each, default in _defaults(kind):
        value = getattr(row, each)
        if default is MISSING or value != default:
            form[each] = _plain(value)
    return form


def from_form(kind: type[RowT], form: Mapping[str, Any]) -> RowT:
    """The row of a JSON object.

    Raises:
        ValueError, TypeError, LookupError: The object is no row of this kind.
    """
    readers = _readers_of(kind)
    return kind(**{name: readers[name](value) for name, value in form.items()})


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return to_form(value) if is_dataclass(value) else value


@cache
def _defaults(kind: Any) -> tuple[tuple[str, object], ...]:
    return tuple((each.name, _default(each)) for each in fields(kind) if each.init)


def _default(field: Field[Any]) -> object:
    return field.default  # a field with a factory has MISSING here, so it is always written


def _readers_of(kind: Any) -> dict[str, Callable[[Any], Any]]:
    return _readers(kind)


@cache
def _readers(kind: Any) -> dict[str, Callable[[Any], Any]]:
    hints = get_type_hints(kind)
    return {each.name: _reader(hints[each.name]) for each in fields(kind) if each.init}


def _reader(hint: Any) -> Callable[[Any], Any]:
    """The function that makes a value of this type from its plain value."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return _optional(_reader(next(each for each in inner if each is not type(None))))
    if origin is tuple:
        return _sequence(_reader(inner[0]))
    if hint is datetime:
        return datetime.fromisoformat
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint
    if is_dataclass(hint):
        return _row(hint)
    return _scalar(hint)


def _scalar(hint: Any) -> Callable[[Any], Any]:
    kinds = (int, float) if hint is float else (hint,)

    def read(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            raise TypeError(f"{type(value).__name__} instead of {hint.__name__}")
        return hint(value)

    return read


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _sequence(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: tuple(map(read, values))


def _row(kind: Any) -> Callable[[Any], Any]:
    return lambda form: from_form(kind, form)
