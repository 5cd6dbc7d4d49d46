"""Strict JSON: the form in which values pass from a step to the store and to later steps.

A value is encoded once, when the step returns. Later steps read the encoded document in the same run and after a resume
alike, so an interrupted run sees the same values as an uninterrupted one. A value that JSON cannot represent exactly is
refused with its path.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from spine_async._model.model_values import dump_with_subclasses, secret_field
from spine_async._model.output_model import OutputModel
from spine_async.errors import SerializationError

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"

ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_DEPTH = 150
"""Maximum levels of nesting; the JSON decoders of databases and clients accept at least this many."""

_MAX_INT_BITS = 14_000  # CPython refuses to read back integers of more than 4,300 digits
_TEXT_FORMS = (datetime, date, time, timedelta, Decimal, UUID)


@dataclasses.dataclass(slots=True)
class Document:
    """The strict JSON text of one value. Never changed; not frozen, because each step creates several."""

    text: str

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self.text) if self.text.isascii() else len(self.text.encode())

    def value(self) -> JsonValue:
        """The decoded value; a new copy for each call."""
        decoded: JsonValue = from_json(self.text)
        return decoded

    def revive(self, model: OutputModel) -> object:
        """The value as an instance of `model`, which is the class that it was encoded from."""
        return model.model_validate_json(self.text, by_alias=True, by_name=True)


@dataclasses.dataclass(slots=True)
class PlainDocument(Document):
    """The output of a skip or of a failure. No model has validated it, so it is always read as a plain value."""

    def revive(self, model: OutputModel) -> object:
        """The plain value."""
        return self.value()


class DocumentMapping(Mapping[str, JsonValue]):
    """A JSON object that is decoded at the first access to a member."""

    __slots__ = ("_value", "document")

    def __init__(self, document: Document) -> None:
        self.document = document
        self._value: dict[str, JsonValue] | None = None

    def __getitem__(self, key: str) -> JsonValue:
        return self._decoded()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def _decoded(self) -> dict[str, JsonValue]:
        if self._value is None:
            self._value = from_json(self.document.text)
        return self._value


NULL = Document("null")
EMPTY = Document("{}")


def encode(value: object) -> Document:
    """Encode `value`.

    Raises:
        SerializationError: A part of the value has no strict JSON form; the error contains its path.
    """
    if value is None:
        return NULL
    if type(value) is dict:  # nearly always; the checks against other classes take long
        plain = _plain_mapping(value, 0)
    elif isinstance(value, DocumentMapping):
        return value.document
    elif isinstance(value, Document):
        return value
    else:
        plain = to_plain(value)
    try:
        return Document(to_json(plain).decode())
    except PydanticSerializationError:
        _refuse_surrogates(plain)
        raise


def encode_object(value: Mapping[str, object]) -> dict[str, Document]:
    """Encode each member of `value` as a document of its own.

    Raises:
        SerializationError: A key is not a string, or a value has no strict JSON form.
    """
    documents: dict[str, Document] = {}
    for key, item in value.items():
        name = _plain_key(key)
        try:
            if not name.isascii():
                _refuse_surrogates(name)
            documents[name] = encode(item)
        except SerializationError as exc:
            raise exc.within(f".{name.encode('utf-8', 'backslashreplace').decode()}") from None
    if len(documents) != len(value):
        refuse_merged_keys(value)
    return documents


def join_object(documents: Mapping[str, Document]) -> Document:
    """The JSON object with these encoded members."""
    if not documents:
        return EMPTY
    return Document("{" + ",".join(f"{quote(key)}:{each.text}" for key, each in documents.items()) + "}")


def join_array(texts: list[str]) -> str:
    """The JSON array with these encoded elements."""
    return "[" + ",".join(texts) + "]"


def split_object(text: str) -> dict[str, Document]:
    """The members of the JSON object `text`, each as a document."""
    return {key: Document(to_json(value).decode()) for key, value in split_values(text).items()}


def split_values(text: str) -> dict[str, JsonValue]:
    """The members of the JSON object `text`, each decoded."""
    if text == EMPTY.text:  # often: most runs have no outputs, metrics and metadata before their first step
        return {}
    members: dict[str, JsonValue] = from_json(text)
    return members


def quote(text: str) -> str:
    """`text` as a JSON string."""
    return to_json(text).decode()


def to_plain(value: object, depth: int = 0) -> JsonValue:
    """`value` converted to the types of JSON.

    Raises:
        SerializationError: A part of the value has no strict JSON form.

    Source: `docs/concepts.md`, "Values".
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        return _plain_int(value)  # type: ignore[arg-type]
    if kind is float:
        return _plain_float(value)  # type: ignore[arg-type]
    if depth > MAX_DEPTH:
        raise SerializationError(f"nested deeper than {MAX_DEPTH} levels, or contains itself")
    if kind is dict:
        return _plain_mapping(value, depth)  # type: ignore[arg-type]
    if kind is list or kind is tuple:
        return _plain_sequence(value, depth)  # type: ignore[arg-type]
    return _plain_other(value, depth)


def _plain_mapping(value: Mapping[Any, object], depth: int) -> JsonValue:
    plain: dict[str, JsonValue] = {}
    for key, item in value.items():
        name = key if type(key) is str else _plain_key(key)
        if type(item) is str:
            plain[name] = item
            continue
        try:
            plain[name] = to_plain(item, depth + 1)
        except SerializationError as exc:
            raise exc.within(f".{name}") from None
    if len(plain) != len(value):
        refuse_merged_keys(value)
    return plain


def _plain_sequence(value: list[object] | tuple[object, ...], depth: int) -> JsonValue:
    plain: list[JsonValue] = []
    for index, item in enumerate(value):
        try:
            plain.append(to_plain(item, depth + 1))
        except SerializationError as exc:
            raise exc.within(f"[{index}]") from None
    return plain


def _plain_other(value: object, depth: int) -> JsonValue:
    if isinstance(value, Enum):
        return to_plain(value.value, depth + 1)
    if isinstance(value, BaseModel):
        return to_plain(_dumped(value), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain_mapping(fields, depth + 1)
    if isinstance(value, _TEXT_FORMS):
        return _plain_text_form(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, depth)
    if isinstance(value, (list, tuple)):
        return _plain_sequence(value, depth)
    return _plain_scalar(value)


def _dumped(model: BaseModel) -> object:
    try:
        secret = secret_field(model)
        plain = dump_with_subclasses(model) if secret is None else None
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"{type(model).__name__} cannot be dumped as JSON: {type(exc).__name__}") from None
    if secret is not None:
        raise SerializationError("a secret has no JSON form; get_secret_value() returns its text", secret)
    return plain


def _plain_scalar(value: object) -> JsonValue:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _plain_int(int(value))
    if isinstance(value, float):
        return _plain_float(float(value))
    if isinstance(value, (bytes, bytearray)):
        return _plain_bytes(bytes(value))
    raise SerializationError(f"a value of type {type(value).__name__} has no JSON form")


def _plain_text_form(value: object) -> JsonValue:
    if isinstance(value, Decimal) and not value.is_finite():
        raise SerializationError("NaN and Infinity have no JSON form")
    if isinstance(value, (datetime, time)) and _has_odd_offset(value):
        raise SerializationError("an offset from UTC with seconds has no JSON form; convert the value to UTC")
    plain: JsonValue = to_jsonable_python(value)
    return plain


def _has_odd_offset(value: datetime | time) -> bool:
    offset = value.utcoffset()
    return offset is not None and offset % timedelta(minutes=1) != timedelta(0)


def _plain_int(value: int) -> int:
    if value.bit_length() > _MAX_INT_BITS:
        raise SerializationError("an integer of this size cannot be read back")
    return value


def _plain_float(value: float) -> float:
    if not math.isfinite(value):
        raise SerializationError("NaN and Infinity have no JSON form")
    return value


def _plain_bytes(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise SerializationError("bytes that are not UTF-8 text have no JSON form; encode them as base64") from None


def _plain_key(key: object) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise SerializationError(f"a key of type {type(key).__name__}; JSON has string keys only")
    return str.__str__(key)


def refuse_merged_keys(value: Mapping[Any, object]) -> None:
    """Raise `SerializationError` if two keys of the mapping have the same JSON form."""
    seen: set[str] = set()
    for key, _ in value.items():  # noqa: PERF102 - the keys of a mapping of the user's own may differ from its items
        name = _plain_key(key)
        if name in seen:
            raise SerializationError("two keys have this JSON form, so one value would be lost", (f".{name}",))
        seen.add(name)


def _refuse_surrogates(plain: JsonValue) -> None:
    """Raise `SerializationError` with the path of a string that UTF-8 cannot encode, if there is one."""
    if isinstance(plain, str):
        try:
            plain.encode()
        except UnicodeEncodeError:
            raise SerializationError("a lone surrogate, which UTF-8 cannot hold") from None
    members = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, item in members:
        part = f"[{key}]" if isinstance(key, int) else f".{key.encode('utf-8', 'backslashreplace').decode()}"
        try:
            _refuse_surrogates(key if isinstance(key, str) else None)
            _refuse_surrogates(item)
        except SerializationError as exc:
            raise exc.within(part) from None
