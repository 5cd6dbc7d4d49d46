"""The pages of the API reference as plain Markdown, made from signatures and docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import griffe

_DIRECTIVE = re.compile(r"^::: spine_async\.([\w.]+)$((?:\n {4}.*$)*)", re.MULTILINE)
_LEVEL = re.compile(r"heading_level: (\d)")
_WIDTH = 100


def with_reference(markdown: str) -> str:
    """The page with a section instead of each `::: name`."""
    return _DIRECTIVE.sub(lambda match: "\n".join(_section(_package()[match[1]], _level(match[2]))), markdown)


def _level(options: str) -> int:
    """The level of the heading, which the options of a directive may change."""
    found = _LEVEL.search(options)
    return int(found[1]) if found else 2


@cache
def _package() -> Any:
    return griffe.load("spine_async", resolve_aliases=True, resolve_external=False)


def _section(thing: Any, level: int) -> Iterator[str]:
    signatures = "\n".join(_signature(each) for each in _overloads(thing) or [thing])
    yield f"{'#' * level} {thing.name}\n\n```python\n{signatures}\n```\n"
    if thing.docstring:
        yield f"{thing.docstring.value}\n"
    for member in _members(thing):
        yield from _section(member, level + 1)


def _members(thing: Any) -> Iterator[Any]:
    if thing.is_class:
        yield from (each for name, each in thing.members.items() if not name.startswith("_") and not each.is_class)


def _overloads(thing: Any) -> list[Any] | None:
    return thing.overloads if thing.is_function else None


def _signature(thing: Any) -> str:
    if thing.is_function:
        return _wrapped(f"{'async ' if 'async' in thing.labels else ''}def {thing.signature()}")
    if thing.is_class:
        return _wrapped(f"class {thing.signature()}")
    annotation = f": {thing.annotation}" if thing.annotation else ""
    return f"{thing.name}{annotation}{f' = {thing.value}' if thing.value else ''}"


def _wrapped(signature: str) -> str:
    """The signature with a line for each parameter if it is long."""
    if len(signature) <= _WIDTH:
        return signature
    start, _, rest = signature.partition("(")
    parameters, _, end = rest.rpartition(")")
    lines = "".join(f"    {each},\n" for each in re.split(r", (?=[*\w/]+(?:[:,=]|$))", parameters))
    return f"{start}(\n{lines}){end}"
