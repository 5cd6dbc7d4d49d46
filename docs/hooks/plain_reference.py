"""The pages of the API reference as plain Markdown, made from signatures and docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import griffe

_DIRECTIVE = re.compile(r"^::: spine_async\.([\w.]+)$((?:\n {4}.*$)*)", re.MULTILINE)
_LEVEL = re.compile(r"heading_level: (\d)")
_NAMED = re.compile(r"members: \[(.*)\]")
_WIDTH = 100


def with_reference(markdown: str) -> str:
    """The page with a section instead of each `::: name`."""
    return _DIRECTIVE.sub(lambda match: "\n".join(_entry(_package()[match[1]], match[2])), markdown)


def _entry(thing: Any, options: str) -> Iterator[str]:
    """What a directive describes, with those of its options that mkdocstrings applies to the same effect."""
    level, named = _LEVEL.search(options), _NAMED.search(options)
    chosen = named[1].split(", ") if named else None
    yield from _section(thing, int(level[1]) if level else 2, [] if "members: false" in options else chosen)


@cache
def _package() -> Any:
    return griffe.load("spine_async", resolve_aliases=True, resolve_external=False)


def _section(thing: Any, level: int, chosen: list[str] | None = None) -> Iterator[str]:
    signatures = "\n".join(_signature(each) for each in _overloads(thing) or [thing])
    yield f"{'#' * level} {thing.name}\n\n```python\n{signatures}\n```\n"
    if thing.docstring:
        yield f"{thing.docstring.value}\n"
    for member in _members(thing):
        if chosen is None or member.name in chosen:
            yield from _section(member, level + 1)


def _members(thing: Any) -> Iterator[Any]:
    """The public methods of a class, and its attributes that have a docstring; `Attributes:` describes the others."""
    if thing.is_class:
        for name, each in thing.members.items():
            is_public = name == "__call__" or not name.startswith("_")
            if is_public and (each.is_function or (each.is_attribute and each.docstring)):
                yield each


def _overloads(thing: Any) -> list[Any] | None:
    return thing.overloads if thing.is_function else None


def _signature(thing: Any) -> str:
    if thing.is_function:
        start = "async def" if "async" in thing.labels else "def"
        returns = f" -> {thing.returns}" if thing.returns else ""
        return _wrapped(f"{start} {thing.signature(return_type=False)}{returns}")
    if thing.is_class:
        return _class_signature(thing)
    return _assignment(thing)


def _class_signature(thing: Any) -> str:
    """The constructor; for a class without one of its own, such as an enumeration or a model, its fields."""
    if thing.parameters:
        return _wrapped(f"class {thing.signature(return_type=False)}")
    lines = "".join(f"\n    {_assignment(each)}" for name, each in thing.members.items() if _is_field(name, each))
    return f"class {thing.name}({', '.join(map(str, thing.bases))}):{lines or ' ...'}"


def _is_field(name: str, member: Any) -> bool:
    return member.is_attribute and not name.startswith(("_", "model_config")) and "property" not in member.labels


def _assignment(thing: Any) -> str:
    annotation = f": {thing.annotation}" if thing.annotation else ""
    return f"{thing.name}{annotation}{f' = {thing.value}' if thing.value else ''}"


def _wrapped(signature: str) -> str:
    """The signature with a line for each parameter if it is long."""
    if len(signature) <= _WIDTH:
        return signature
    start, _, rest = signature.partition("(")
    parameters, closing, end = rest.rpartition(") -> ") if ") -> " in rest else rest.rpartition(")")
    lines = "".join(f"    {each},\n" for each in re.split(r", (?=[*\w/]+(?:[:,=]|$))", parameters))
    return f"{start}(\n{lines}{closing}{end}"
