"""Selects what a pydantic model receives of params that hold some values twice: under an alias and under a name.

Stored params contain what the caller gave, mostly by alias, and what the model made of it, by name, with computed
fields. A model that forbids extra fields accepts only one of the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from spine_async._model.document import Document, encode


def stored_input(model: type[BaseModel], stored: Mapping[str, Document], named: Collection[str]) -> dict[str, Document]:
    """The stored params with each field of the model once, and without what the model adds when it is dumped.

    Args:
        model: Receives them.
        stored: The params.
        named: Names of fields that an earlier validation has stored; they take precedence over their aliases.
    """
    chosen: dict[str, Document] = {}
    unused = _dumped_only(model)
    for name, field in model.model_fields.items():
        unused.update(_keys(name, field))
        chosen.update(_chosen(name, field, stored, prefers_name=name in named))
    rest = {key: each for key, each in stored.items() if key not in unused}
    return {**rest, **chosen}


def overlaid(
    model: type[BaseModel], base: Mapping[str, Document], updates: Mapping[str, Document]
) -> dict[str, Document]:
    """`base` with the updates, which replace values of the same field under its other names."""
    replaced = all_names(model, updates)
    return {**{key: each for key, each in base.items() if key not in replaced}, **updates}


def fields_of(model: type[BaseModel], keys: Collection[str]) -> set[str]:
    """Names of the fields to which one of the keys gives a value."""
    return {name for name, field in model.model_fields.items() if not _keys(name, field).isdisjoint(keys)}


def all_names(model: type[BaseModel], keys: Collection[str]) -> set[str]:
    """The keys, with the name and all aliases of each field to which one of them gives a value."""
    fields = model.model_fields
    return {*keys, *(key for name in fields_of(model, keys) for key in _keys(name, fields[name]))}


def plain_aliases(model: type[BaseModel]) -> dict[str, str]:
    """Each alias that is a plain key and no name of a field, with the name of its field."""
    fields = model.model_fields
    pairs = {each: name for name, field in fields.items() for each in _aliases(field) if isinstance(each, str)}
    return {alias: name for alias, name in pairs.items() if alias not in fields}


def _chosen(name: str, field: FieldInfo, stored: Mapping[str, Document], *, prefers_name: bool) -> dict[str, Document]:
    """The value of one field, under the key from which the model reads it; empty if there is none."""
    if prefers_name and name in stored:
        return {name: stored[name]}
    for alias in _aliases(field):
        if isinstance(alias, str) and alias in stored:
            return {alias: stored[alias]}
        if isinstance(alias, AliasPath) and (head := str(alias.path[0])) in stored:
            value = alias.search_dict_for_path({head: stored[head].value()})
            if value is not PydanticUndefined:
                return {name: encode(value)}  # other fields may read other parts of the same param
    return {name: stored[name]} if name in stored else {}


def _keys(name: str, field: FieldInfo) -> set[str]:
    """The params from which the model reads a field."""
    return {name, *(each if isinstance(each, str) else str(each.path[0]) for each in _aliases(field))}


def _aliases(field: FieldInfo) -> Iterator[str | AliasPath]:
    alias = field.validation_alias if field.validation_alias is not None else field.alias
    if isinstance(alias, AliasChoices):
        yield from alias.choices
    elif alias is not None:
        yield alias


def _dumped_only(model: type[BaseModel]) -> set[str]:
    """The keys that a dump of the model has, but that it does not read."""
    computed = model.model_computed_fields
    dumped = set(computed)
    if model.model_config.get("serialize_by_alias"):
        dumped.update(field.alias for field in computed.values() if field.alias is not None)
        aliases = (field.serialization_alias or field.alias for field in model.model_fields.values())
        dumped.update(each for each in aliases if each is not None)
    return dumped
