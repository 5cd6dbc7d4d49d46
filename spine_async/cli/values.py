"""Values that are given on the command line: JSON texts, files, and single entries."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from spine_async.cli.problem import CommandError


def parse_json(text: str, option: str) -> object:
    """The value of a JSON text. `@name` reads a file, and `@-` the standard input.

    Raises:
        CommandError: The text is no strict JSON, or the file cannot be read.
    """
    source = _read(text[1:], option) if text.startswith("@") else text
    try:
        return json.loads(source, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise CommandError(f"{option} is not valid JSON: {exc}") from None


def parse_params(text: str | None, entries: Iterable[str], option: str = "--params") -> dict[str, object] | None:
    """Params from a JSON object and single entries `name=value`, which win; None if nothing is given.

    Raises:
        CommandError: The text is no JSON object, or an entry has no name.
    """
    value = parse_json(text, option) if text is not None else {}
    if not isinstance(value, dict):
        raise CommandError(f"{option} is {type(value).__name__}; give a JSON object such as '{{\"month\": 1}}'")
    given = {str(name): each for name, each in value.items()} | parse_entries(entries)
    return given if given or text is not None else None


def parse_entries(entries: Iterable[str]) -> dict[str, object]:
    """Entries `name=value`. A value that is no JSON is a text, so `month=2026-01` needs no quotes."""
    found: dict[str, object] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if not separator or not name:
            raise CommandError(f"{entry!r} has no {'name' if separator else 'value'}; give name=value")
        found[name] = _json_or_text(value)
    return found


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return value


def _read(name: str, option: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise CommandError(f"{option}: the file {name!r} cannot be read: {reason}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed in JSON")
