"""Private copies of values that several steps read, so that a change by one of them is not visible to another."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel

from spine_async.errors import SerializationError

_SCALARS = frozenset({str, int, float, bool, type(None), bytes})


def private_copy(value: object) -> object:
    """A copy of the containers and models inside of a value; other objects, for instance clients, are shared."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:
        return {key: private_copy(each) for key, each in value.items()}  # type: ignore[attr-defined]
    if kind is list:
        return [private_copy(each) for each in value]  # type: ignore[attr-defined]
    if kind is tuple:
        return tuple(private_copy(each) for each in value)  # type: ignore[attr-defined]
    if kind is set:
        return set(value)  # type: ignore[call-overload]
    if kind is bytearray:
        return bytearray(value)  # type: ignore[call-overload]
    if kind is MappingProxyType:
        return MappingProxyType({key: private_copy(each) for key, each in value.items()})  # type: ignore[attr-defined]
    return _model_copy(value) if isinstance(value, BaseModel) else value


def private_members(members: Mapping[str, object]) -> dict[str, object]:
    """A dict of private copies of the members.

    Raises:
        SerializationError: A member is nested too deeply, or contains itself.
    """
    try:
        return {key: each if type(each) in _SCALARS else private_copy(each) for key, each in members.items()}
    except RecursionError:
        raise SerializationError("nested too deeply to be copied, or contains itself") from None


def is_flat(members: Mapping[str, object]) -> bool:
    """Whether all members are immutable, so that the mapping needs no copy."""
    return all(type(each) in _SCALARS for each in members.values())


def _model_copy(model: BaseModel) -> BaseModel:
    try:
        return model.model_copy(deep=True)
    except Exception:  # noqa: BLE001 - a field may hold an object that cannot be copied
        return model
