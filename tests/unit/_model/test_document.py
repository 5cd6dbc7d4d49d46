from __future__ import annotations

import json
import math
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from spine_async._model.document import (
    MAX_DEPTH,
    Document,
    encode,
    encode_object,
    join_array,
    join_object,
    quote,
    split_object,
)
from spine_async.errors import SerializationError

LOCAL_MEAN_TIME = timezone(timedelta(minutes=53, seconds=28))  # of Berlin, until 1893
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**60), max_value=10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=30)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Kind(StrEnum):
    STOCK = "stock"


class Price(BaseModel):
    symbol: str
    at: datetime


@dataclass
class Point:
    x: float
    tags: tuple[str, ...]


class Text(str):
    """A string of somebody's own type."""

    __slots__ = ()


@given(VALUES)
def test_what_goes_in_comes_out(value: Any) -> None:
    assert encode(value).value() == value


@given(VALUES)
def test_the_text_is_what_any_json_reader_understands(value: Any) -> None:
    assert json.loads(encode(value).text) == value


@given(VALUES)
def test_encoding_again_changes_nothing(value: Any) -> None:
    document = encode(value)
    assert encode(document.value()) == document


@given(st.dictionaries(KEYS, VALUES))
def test_an_object_can_be_split_and_joined(value: dict[str, Any]) -> None:
    documents = encode_object(value)
    joined = join_object(documents)
    assert joined == encode(value)
    assert split_object(joined.text) == documents


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_exactly(value: float) -> None:
    back = encode(value).value()
    assert isinstance(back, float)
    assert math.copysign(1, back) == math.copysign(1, value)
    assert back == value


@given(VALUES)
def test_the_size_is_that_of_the_bytes(value: Any) -> None:
    document = encode(value)
    assert document.size == len(document.text.encode())


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=90), "PT1H30M"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Kind.STOCK, "stock"),
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1.5, ("a",)), {"x": 1.5, "tags": ["a"]}),
        (Price(symbol="IBM", at=datetime(2026, 1, 2, tzinfo=UTC)), {"symbol": "IBM", "at": "2026-01-02T00:00:00Z"}),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({Kind.STOCK: 1, Colour.RED: 2}, {"stock": 1, "red": 2}),
        (b"text", "text"),
        (bytearray("ü", "utf-8"), "ü"),
        (Text("mine"), "mine"),
        ({Text("mine"): 1}, {"mine": 1}),
        ("\0 and \x1f", "\0 and \x1f"),
        (True, True),
    ],
)
def test_values_take_their_json_form(value: object, plain: object) -> None:
    back = encode(value).value()
    assert back == plain
    assert type(back) is type(plain)


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        (math.nan, "$", "NaN and Infinity have no JSON form"),
        ({"at": datetime(1890, 1, 1, tzinfo=LOCAL_MEAN_TIME)}, "$.at", "an offset from UTC with seconds"),
        ([time(1, 2, tzinfo=LOCAL_MEAN_TIME)], "$[0]", "an offset from UTC with seconds"),
        ({"a": [1, -math.inf]}, "$.a[1]", "NaN and Infinity have no JSON form"),
        ({"d": Decimal("NaN")}, "$.d", "NaN and Infinity have no JSON form"),
        ({"a": {1: 2}}, "$.a", "a key of type int; JSON has string keys only"),
        ({None: 1}, "$", "a key of type NoneType; JSON has string keys only"),
        ({"rows": [{"raw": b"\xff"}]}, "$.rows[0].raw", "bytes that are not UTF-8 text"),
        ({"s": "\ud800"}, "$.s", "a lone surrogate"),
        ({"\udfff": 1}, "$.\\udfff", "a lone surrogate"),
        ([{1, 2}], "$[0]", "a value of type set has no JSON form"),
        ((object(),), "$[0]", "a value of type object has no JSON form"),
        ({"f": len}, "$.f", "a value of type builtin_function_or_method has no JSON form"),
        ({"c": Price}, "$.c", "a value of type ModelMetaclass has no JSON form"),
        ({"g": (n for n in "ab")}, "$.g", "a value of type generator has no JSON form"),
        ({"z": 1j}, "$.z", "a value of type complex has no JSON form"),
        ({"n": 10**5000}, "$.n", "an integer of this size cannot be read back"),
    ],
)
def test_what_json_would_lose_is_refused_with_its_path(value: object, path: str, problem: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(value)
    assert caught.value.path == path
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_error_never_holds_the_value() -> None:
    with pytest.raises(SerializationError) as caught:
        encode({"token": b"secret\xff"})
    assert "secret" not in str(caught.value)


def test_a_cycle_is_refused() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(SerializationError, match="contains itself"):
        encode(cycle)


def test_a_path_of_many_parts_is_shortened() -> None:
    cycle: dict[str, object] = {}
    cycle["again"] = cycle
    with pytest.raises(SerializationError) as caught:
        encode(cycle)
    assert caught.value.path.endswith(".again…")
    assert len(caught.value.path) < 100


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH])
def test_nesting_is_allowed_up_to_the_limit(levels: int) -> None:
    value: object = 1
    for _ in range(levels):
        value = [value]
    assert encode(value).value() == value


def test_nesting_beyond_the_limit_is_refused() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH + 2):
        value = [value]
    with pytest.raises(SerializationError, match=f"nested deeper than {MAX_DEPTH} levels"):
        encode(value)


def test_a_model_that_cannot_be_dumped_is_refused_by_name() -> None:
    class Broken(BaseModel):
        raw: bytes

    with pytest.raises(SerializationError, match=r"\$\.m: Broken cannot be dumped as JSON"):
        encode({"m": Broken(raw=b"\xff")})


def test_nan_inside_a_model_is_refused() -> None:
    class Reading(BaseModel):
        value: float

    with pytest.raises(SerializationError, match=r"\$\.value: NaN and Infinity have no JSON form"):
        encode(Reading(value=math.nan))


def test_the_error_of_a_refused_key_has_its_path() -> None:
    with pytest.raises(SerializationError) as caught:
        encode_object({"params": {"deep": {3: 1}}})
    assert caught.value.path == "$.params.deep"


def test_each_reading_is_a_copy() -> None:
    document = encode({"rows": [1]})
    first = document.value()
    assert isinstance(first, dict)
    first["rows"] = None
    assert document.value() == {"rows": [1]}


def test_a_document_is_revived_as_its_model() -> None:
    price = Price(symbol="IBM", at=datetime(2026, 1, 2, tzinfo=UTC))
    assert encode(price).revive(Price) == price


def test_pieces_of_json_are_put_together() -> None:
    assert join_array([]) == "[]"
    assert join_array(["1", '"a"']) == '[1,"a"]'
    assert join_object({}) == Document("{}")
    assert join_object({'a"b': Document("1")}).value() == {'a"b': 1}
    assert json.loads(quote('it\'s "ü"\n')) == 'it\'s "ü"\n'
