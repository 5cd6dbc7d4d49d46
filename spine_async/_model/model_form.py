"""The stored form of a pydantic model: JSON from which an equal model is revived.

A model has several JSON forms: with names or aliases, with or without computed fields. `encode_model` takes the first
one from which `Document.revive` gives an equal model, so that later steps and a resume see the returned value. A model
without such a form is refused, and the error names the field. Examples are a secret or excluded field, a field that is
declared with a base class of its value, and a validator that changes a value each time it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypedDict

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from spine_async._model.document import Document, to_plain
from spine_async._model.failure import validation_problems
from spine_async._model.model_input import plain_aliases
from spine_async._model.model_values import model_values
from spine_async.errors import SerializationError


class _Form(TypedDict):
    by_alias: bool
    round_trip: bool


_FORMS: tuple[_Form, ...] = (
    {"by_alias": False, "round_trip": False},
    {"by_alias": False, "round_trip": True},
    {"by_alias": True, "round_trip": True},
)


def encode_model(value: BaseModel, model: type[BaseModel]) -> Document:
    """The JSON of a validated instance, from which `Document.revive(model)` gives an equal one.

    Raises:
        SerializationError: There is no such form; the error names the field.
    """
    problem: SerializationError | None = None
    for form in _FORMS:
        document = _dumped(value, form)
        try:
            path = difference(value, document.revive(model))
        except ValidationError as exc:
            fields = validation_problems(exc)
            problem = problem or SerializationError(f"its JSON form cannot be validated as {model.__name__}: {fields}")
            continue
        if path is None:
            return document
        text = f"the JSON form of {model.__name__} does not keep this value, so a resume would see another one"
        problem = problem or SerializationError(text, path or (" (the whole value)",))
    raise problem or SerializationError(f"{model.__name__} has no JSON form")


def difference(given: object, revived: object) -> tuple[str, ...] | None:
    """The path of the first part in which two values differ, or None if they are equal."""
    if isinstance(given, BaseModel):
        return _model_difference(given, revived)
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        if type(given) is not type(revived):
            return ()
        names = [each.name for each in dataclasses.fields(given)]
        return _first({f".{name}": (getattr(given, name, None), getattr(revived, name, None)) for name in names})
    if isinstance(given, Mapping) and isinstance(revived, Mapping):
        if list(given) != list(revived):
            return ()
        return _first({f".{key}": (each, revived[key]) for key, each in given.items()})
    if isinstance(given, (list, tuple)) and isinstance(revived, (list, tuple)):
        if isinstance(given, list) is not isinstance(revived, list) or len(given) != len(revived):
            return ()
        return _first({f"[{index}]": pair for index, pair in enumerate(zip(given, revived, strict=True))})
    return None if _is_equal(given, revived) else ()


def narrowed(given: object, revived: object) -> tuple[tuple[str, ...], object] | None:
    """The path of the first instance that was revived as a base class of its class, without fields of its own.

    Args:
        given: What a caller passed; instances of models or dataclasses in it are compared.
        revived: What the declared model makes of its JSON form.

    Returns:
        The path and the given instance, or None if every instance keeps its fields.
    """
    if type(given) in _SCALARS:
        return None
    given, revived = _unwrapped(given), _unwrapped(revived)
    mine, other = _members(given), _members(revived)
    if mine is not None and other is not None:
        if isinstance(given, type(revived)) and not isinstance(given, Mapping) and not mine.keys() <= other.keys():
            return (), given
        return _narrowed_member(given, revived, mine, other)
    if isinstance(given, (list, tuple)) and isinstance(revived, (list, tuple)) and len(given) == len(revived):
        for index, (each, kept) in enumerate(zip(given, revived, strict=True)):
            found = None if type(each) in _SCALARS else narrowed(each, kept)
            if found is not None:
                return (f"[{index}]", *found[0]), found[1]
    return None


_SCALARS = frozenset({str, int, float, bool, type(None)})


def _narrowed_member(
    given: object, revived: object, mine: Mapping[str, object], other: Mapping[str, object]
) -> tuple[tuple[str, ...], object] | None:
    names: Mapping[str, str] = {}
    if isinstance(given, Mapping) and isinstance(revived, BaseModel):
        names = plain_aliases(type(revived))
    for key, each in mine.items():
        name = names.get(key, key)
        found = narrowed(each, other[name]) if name in other else None
        if found is not None:
            return (f".{key}", *found[0]), found[1]
    return None


def _unwrapped(value: object) -> object:
    return value.root if isinstance(value, RootModel) else value


def _members(value: object) -> Mapping[str, object] | None:
    """The members of a mapping, or the fields of an instance of a model or a dataclass; else None."""
    if isinstance(value, BaseModel):
        return model_values(value)
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
    return None


def _model_difference(given: BaseModel, revived: object) -> tuple[str, ...] | None:
    if type(given) is not type(revived):
        return ()
    mine, other = model_values(given), model_values(revived)
    for name in mine.keys() ^ other.keys():
        return (f".{name}",)
    return _first({f".{name}": (each, other[name]) for name, each in mine.items()})


def _first(pairs: Mapping[str, tuple[object, object]]) -> tuple[str, ...] | None:
    for part, (given, revived) in pairs.items():
        path = difference(given, revived)
        if path is not None:
            return (part, *path)
    return None


def _is_equal(given: object, revived: object) -> bool:
    try:
        return bool(given == revived) or _is_same_moment(given, revived)
    except Exception:  # noqa: BLE001 - `__eq__` is code of the user
        return False


def _is_same_moment(given: object, revived: object) -> bool:
    """Whether both are aware datetimes of one moment.

    In an hour that a change of the clocks repeats, Python says that datetimes of different zones are never equal (PEP
    495); the JSON form of a datetime has an offset instead of the zone.
    """
    if not (isinstance(given, datetime) and isinstance(revived, datetime)):
        return False
    is_aware = given.utcoffset() is not None and revived.utcoffset() is not None
    return is_aware and given.astimezone(UTC) == revived.astimezone(UTC)


def _dumped(value: BaseModel, form: _Form) -> Document:
    try:
        plain = to_plain(value.model_dump(mode="json", warnings=False, **form))
        text = to_json(plain).decode()
    except (ValueError, PydanticSerializationError) as exc:
        if isinstance(exc, SerializationError):
            raise
        raise SerializationError(f"it has no JSON form: {type(exc).__name__}", _undumpable(value, form)) from None
    return Document(text)


def _undumpable(value: BaseModel, form: _Form) -> tuple[str, ...]:
    for name in type(value).model_fields:
        try:
            to_json(value.model_dump(mode="json", include={name}, warnings=False, **form))
        except ValueError:
            return (f".{name}",)
    return ()
