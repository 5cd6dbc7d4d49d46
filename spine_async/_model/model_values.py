"""The values inside of a pydantic model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel, SecretBytes, SecretStr


def model_values(model: BaseModel) -> dict[str, object]:
    """The values of the fields and extra fields. Private attributes and cached properties are left out."""
    names = type(model).model_fields
    found = {name: each for name, each in model.__dict__.items() if name in names}
    return {**found, **(model.__pydantic_extra__ or {})}


def secret_field(value: object) -> tuple[str, ...] | None:
    """The path of a value whose JSON form is only stars, or None."""
    if isinstance(value, (SecretStr, SecretBytes)):
        return ()
    members: dict[str, object] = {}
    if isinstance(value, BaseModel):
        members = {f".{name}": each for name, each in model_values(value).items()}
    elif isinstance(value, Mapping):
        members = {f".{name}": each for name, each in value.items()}
    elif isinstance(value, (list, tuple)):
        members = {f"[{index}]": each for index, each in enumerate(value)}
    for part, each in members.items():
        path = secret_field(each)
        if path is not None:
            return (part, *path)
    return None


def dump_with_subclasses(model: BaseModel) -> dict[str, object]:
    """The JSON form of a model; a value of a subclass of its declared type keeps the fields of the subclass."""
    plain = model.model_dump(mode="json", warnings=False)
    for name, value in model_values(model).items():
        field = type(model).model_fields.get(name)
        if field is not None and name in plain:
            plain[name] = _with_subclasses(value, plain[name], frozenset(_classes(field.annotation)))
    return plain


def _with_subclasses(value: object, plain: object, declared: frozenset[type]) -> object:
    if isinstance(value, BaseModel) and isinstance(plain, dict):
        is_declared = type(value) in declared
        is_subclass = any(isinstance(value, each) for each in declared if issubclass(each, BaseModel))
        return dump_with_subclasses(value) if is_subclass and not is_declared else plain
    if isinstance(value, (list, tuple)) and isinstance(plain, list) and len(value) == len(plain):
        return [_with_subclasses(each, part, declared) for each, part in zip(value, plain, strict=True)]
    if isinstance(value, Mapping) and isinstance(plain, dict) and len(value) == len(plain):
        parts = zip(value.values(), plain.items(), strict=True)
        return {key: _with_subclasses(each, part, declared) for each, (key, part) in parts}
    return plain


def _classes(annotation: object) -> Iterator[type]:
    """The classes that a type annotation consists of."""
    if isinstance(annotation, type):
        yield annotation
    for each in get_args(annotation):
        yield from _classes(each)
