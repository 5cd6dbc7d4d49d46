"""Reads the text of large documents in pieces.

The JSON decoder holds the interpreter lock for a whole call. The functions of this module find the members of an array
or object without decoding them, in calls of a few milliseconds, and are meant for a worker thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from pydantic_core import from_json

from spine_async._model.document import Document, split_object

LARGE_TEXT = 1_000_000
"""Characters of a text from which it is decoded on a thread."""

_PIECE_CHARS = 400_000


def split_members(text: str) -> dict[str, Document]:
    """The members of a JSON object as documents, as `split_object` gives them; a large one is not decoded."""
    return split_object(text) if len(text) <= LARGE_TEXT else split_in_pieces(text)


def split_in_pieces(text: str) -> dict[str, Document]:
    """The members of a JSON object as documents, as `split_object` gives them for the text of an encoder."""
    members: dict[str, Document] = {}
    for start, end in _members(text):
        key, value_start = _key(text, start)
        members[key] = Document(text[value_start:end])
    return members


def canonical_pieces(text: str) -> Iterator[str]:
    """The parts of `json.dumps(value, sort_keys=True)` for the value of a document."""
    if len(text) <= _PIECE_CHARS or text[:1] not in "[{":
        yield json.dumps(from_json(text), sort_keys=True)
        return
    spans = _members(text)
    if text[0] == "[":
        separator = "["
        for start, end in _batches(spans):
            yield separator
            if end - start > _PIECE_CHARS:
                yield from canonical_pieces(text[start:end])
            else:
                yield json.dumps(from_json(f"[{text[start:end]}]"), sort_keys=True)[1:-1]
            separator = ", "
        yield "[]" if separator == "[" else "]"
        return
    values = {key: (start, end) for (key, start), end in ((_key(text, start), end) for start, end in spans)}
    separator = "{"
    for key in sorted(values):
        yield f"{separator}{json.dumps(key)}: "
        start, end = values[key]
        yield from canonical_pieces(text[start:end])
        separator = ", "
    yield "}"


_NEXT = re.compile(r'["\[\]{}]')
_NEXT_AT_TOP = re.compile(r'["\[\]{},]')
_SEARCH_CHARS = 1_000_000  # a search holds the interpreter lock
# An array or object that is flat or contains flat ones, without escapes in its strings: most rows match as a whole.
_FLAT = r'[\[{][^"\[\]{}]*(?:"[^"\\]*"[^"\[\]{}]*)*[\]}]'
_BLOCK = re.compile(rf'[\[{{][^"\[\]{{}}]*(?:(?:"[^"\\]*"|{_FLAT})[^"\[\]{{}}]*)*[\]}}]')
_BLOCK_CHARS = 1000


def _members(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each member of the array or object that is the whole text.

    Raises:
        ValueError: The text is not JSON.
    """
    position = start = 1
    depth = 1
    while True:
        position = _next_structure(text, position, _NEXT_AT_TOP if depth == 1 else _NEXT)
        character = text[position]
        if character == '"':
            position = _string_end(text, position)
            continue
        if character in "[{":
            block = _BLOCK.match(text, position, position + _BLOCK_CHARS)
            if block is not None:
                position = block.end()
                continue
            depth += 1
        elif character == ",":
            yield start, position
            start = position + 1
        else:
            depth -= 1
            if depth == 0:
                break
        position += 1
    if text[start:position].strip():
        yield start, position


def _next_structure(text: str, position: int, wanted: re.Pattern[str]) -> int:
    """Position of the next character that the pattern matches."""
    while position < len(text):
        found = wanted.search(text, position, position + _SEARCH_CHARS)
        if found is not None:
            return found.start()
        position += _SEARCH_CHARS
    raise ValueError("the text is not JSON")


def _string_end(text: str, start: int) -> int:
    """The position after the string that begins at `start`."""
    end = start
    while True:
        end = text.index('"', end + 1)
        first = end
        while text[first - 1] == "\\":
            first -= 1
        if (end - first) % 2 == 0:
            return end + 1


def _batches(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The spans of members joined to spans of at most `_PIECE_CHARS` characters or of one member."""
    first, last = -1, -1
    for start, end in spans:
        if first >= 0 and end - first > _PIECE_CHARS:
            yield first, last
            first = -1
        first = start if first < 0 else first
        last = end
    if first >= 0:
        yield first, last


def _key(text: str, start: int) -> tuple[str, int]:
    """The key of the member at `start`, and where its value begins."""
    first = text.index('"', start)
    end = _string_end(text, first)
    return from_json(text[first:end]), text.index(":", end) + 1
