"""Encodes large documents in pieces.

The JSON encoder holds the interpreter lock for a whole call, so that a value of 50 MB stops all threads for
seconds, also if a worker thread encodes it. The functions of this module produce the same text as `encode`, in calls of
a few milliseconds. They are slower than one call, and are meant for a worker thread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from spine_async._model.document import Document, DocumentMapping, encode, to_plain
from spine_async._model.document_view import DocumentView
from spine_async.errors import SerializationError

_BUDGET = 400_000
_NODE_COST = 50  # a value takes as much time as this number of characters
_SHORT = 10_000  # characters of a text; an object of few such texts is below the budget
_BATCH = 200  # elements
_PIECE_CHARS = 400_000
_MAX_DEPTH = 100  # levels that are encoded in pieces; `encode` refuses values that are nested deeper than 150 levels
_SCALARS = frozenset({int, float, bool, type(None)})
_DICTS = frozenset({dict, MappingProxyType})


@dataclasses.dataclass(slots=True)
class SizedDocument(Document):
    """A document whose size is known; counting the bytes of a large text takes long."""

    byte_count: int

    @property
    def size(self) -> int:
        return self.byte_count


class ValueTooLargeError(Exception):
    """A value has more bytes than are allowed.

    Attributes:
        size: Bytes of its JSON text.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"{size:,} bytes")


def is_large(value: object) -> bool:
    """Whether encoding the value takes more than some milliseconds; inspects only a bounded part of it."""
    kind = type(value)
    if kind in _SCALARS:
        return False
    if kind is str:
        return len(value) > _BUDGET  # type: ignore[arg-type]
    try:
        return not _is_plainly_small(value) and _exceeds_budget(value)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:  # noqa: BLE001 - another thread changes it, or it raises; its encoding tells which
        return True


def _is_plainly_small(value: object) -> bool:
    """Whether it is a dict of few scalars and short strings, as most outputs and params are."""
    if type(value) not in _DICTS or len(value) > 16:  # type: ignore[arg-type]
        return False
    for key, item in value.items():  # type: ignore[attr-defined]
        kind = type(item)
        if kind not in _SCALARS and (kind is not str or len(item) > _SHORT):
            return False
        if type(key) is not str or len(key) > _SHORT:
            return False
    return True


def _exceeds_budget(value: object) -> bool:
    left = _BUDGET
    stack: list[object] = [value]
    while stack:
        container = stack.pop()
        kind = type(container)
        if kind is dict:
            children: Iterable[object] = container.values()  # type: ignore[attr-defined]
            left -= _NODE_COST * len(container)  # type: ignore[arg-type]
            for key in container:  # type: ignore[attr-defined]
                left -= len(key) if type(key) is str else 0
        elif kind is list or kind is tuple:
            children = container  # type: ignore[assignment]
            left -= _NODE_COST * len(container)  # type: ignore[arg-type]
        else:
            left -= _other_cost(container)
            children = _other_children(container)
        if left < 0:
            return True
        for child in children:
            kind = type(child)
            if kind is str:
                left -= len(child)  # type: ignore[arg-type]
            elif kind not in _SCALARS:
                stack.append(child)
    return left < 0


def _other_cost(value: object) -> int:
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return value.encoded_size if isinstance(value, DocumentView) else _NODE_COST


def _other_children(value: object) -> Iterable[object]:
    """The values inside a value whose type is not a JSON type."""
    if isinstance(value, BaseModel):
        return (value.__dict__,)
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Document)):
        return [getattr(value, each.name, None) for each in dataclasses.fields(value)]
    if isinstance(value, (DocumentView, DocumentMapping)):
        return ()
    if isinstance(value, Mapping):
        return (dict(value),)
    return (list(value),) if isinstance(value, (list, tuple)) else ()


def encode_in_pieces(value: object, limit: int) -> Document:
    """The document of a value, as `encode` makes it.

    Raises:
        SerializationError: The value has no strict JSON form, or was changed meanwhile.
        ValueTooLargeError: The text has more than `limit` bytes.
    """
    texts: list[str] = []
    size = 0
    for piece in _pieces(value, 0):
        size += len(piece)
        if size <= limit:
            texts.append(piece.decode())
        else:
            texts.clear()  # only the size is needed
    if size > limit:
        raise ValueTooLargeError(size)
    return SizedDocument("".join(texts), size)


def _pieces(value: object, depth: int) -> Iterator[bytes]:
    """The parts of the JSON text of a value."""
    kind = type(value)
    if depth > _MAX_DEPTH or not is_large(value):
        yield _whole(value, depth)
    elif kind is str:
        yield from _string_pieces(value)  # type: ignore[arg-type]
    elif kind is dict and all(type(key) is str for key in value):  # type: ignore[attr-defined]
        yield from _object_pieces(value, depth)  # type: ignore[arg-type]
    elif kind is list or kind is tuple:
        yield from _array_pieces(value, depth)  # type: ignore[arg-type]
    else:
        # Converted to plain values first, so that the rules of `to_plain` for types and keys apply.
        plain = to_plain(value, depth)
        if isinstance(plain, (dict, list, str)):
            yield from _pieces(plain, depth + 1)
        else:
            yield _whole(plain, depth)


def _whole(value: object, depth: int) -> bytes:
    if isinstance(value, (Document, DocumentMapping)):
        return encode(value).text.encode()
    plain = to_plain(value, depth)
    try:
        return to_json(plain)
    except PydanticSerializationError:
        encode(plain)  # raises with the path of the value
        raise


def _string_pieces(value: str) -> Iterator[bytes]:
    yield b'"'
    for start in range(0, len(value), _PIECE_CHARS):
        yield _whole(value[start : start + _PIECE_CHARS], 0)[1:-1]
    yield b'"'


def _array_pieces(value: list[object] | tuple[object, ...], depth: int) -> Iterator[bytes]:
    separator, count = b"[", len(value)
    for first in range(0, count, _BATCH):
        batch = list(value[first : first + _BATCH])
        whole = None if is_large(batch) else _whole_batch(batch, depth)
        if whole is not None:
            yield separator
            yield whole
        for index, item in enumerate(batch if whole is None else (), first):
            yield separator
            yield from _within(f"[{index}]", item, depth)
            separator = b","
        separator = b","
    if len(value) != count:
        raise SerializationError("it was changed while it was being encoded")
    yield b"[]" if count == 0 else b"]"


def _whole_batch(batch: list[object], depth: int) -> bytes | None:
    """The elements of an array without brackets; None if one of them cannot be encoded."""
    try:
        return _whole(batch, depth)[1:-1]
    except SerializationError:
        return None  # each element is then encoded on its own, so that the error has its index


def _object_pieces(value: dict[str, object], depth: int) -> Iterator[bytes]:
    separator = b"{"
    members = iter(value.items())
    try:
        while batch := list(islice(members, _BATCH)):
            for key, item in batch:
                yield separator
                yield _key_piece(key)
                yield b":"
                yield from _within(f".{key}", item, depth)
                separator = b","
    except RuntimeError:
        raise SerializationError("it was changed while it was being encoded") from None
    yield b"}"


def _key_piece(key: str) -> bytes:
    try:
        return encode(key).text.encode()
    except SerializationError as exc:
        raise exc.within(f".{key.encode('utf-8', 'backslashreplace').decode()}") from None


def _within(part: str, value: object, depth: int) -> Iterator[bytes]:
    try:
        yield from _pieces(value, depth + 1)
    except SerializationError as exc:
        raise exc.within(part) from None
