"""Large documents: the same text as the encoder's, in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from spine_async._model import large_document, large_text
from spine_async._model.document import Document, encode, encode_object, join_object, split_object
from spine_async._model.large_document import ValueTooLargeError, encode_in_pieces, is_large
from spine_async._model.large_text import canonical_pieces, split_in_pieces
from spine_async.errors import SerializationError

ROWS = [{"id": number, "name": f'row {number} "é"\\', "v": [number, number * 1.5, None]} for number in range(5_000)]
NO_LIMIT = 2**40


class Colour(Enum):
    RED = "red"


class Table(BaseModel):
    rows: list[dict[str, Any]]


@dataclass
class Report:
    rows: list[dict[str, Any]]


VALUES: list[object] = [
    ROWS,
    {"a": ROWS, "b": 'x"\\' * 300_000, "c": {"d": tuple(ROWS), "e": [], "f": {}}, "": None},
    [ROWS, [ROWS], {"deep": {"deeper": ROWS}}],
    "é🐎\x00" * 300_000,
    {Colour.RED: ROWS, "x": 1},
    Table(rows=ROWS),
    [Report(rows=ROWS), Table(rows=ROWS)],
    MappingProxyType({"rows": ROWS}),
    {"x" * 500_000: 1, "y": ROWS},
    list(range(100_000)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_the_text_is_that_of_the_encoder(value: object) -> None:
    assert is_large(value)
    whole, pieces = encode(value), encode_in_pieces(value, NO_LIMIT)
    assert pieces.text == whole.text
    assert pieces.size == whole.size == len(whole.text.encode())


def test_a_document_is_not_encoded_again() -> None:
    document = Document('"' + "x" * 500_000 + '"')
    assert not is_large({"document": document})
    assert encode_in_pieces(document, NO_LIMIT).text == document.text


def test_small_values_are_not_large() -> None:
    for value in (None, 1, "x", {}, {"step": "a"}, {"n": [1, 2, {"x": "y" * 1_000}]}, list(range(1_000)), object()):
        assert not is_large(value)


@pytest.mark.parametrize(
    "value",
    [
        [*ROWS, {1: 2}],
        {"k": [*ROWS, {"a": float("nan")}]},
        {"k": {"l": [*ROWS, ["\ud800"]]}},
        ["x" * 500_000 + "\ud800"],
        [*ROWS, object()],
        {"\ud800": ROWS},
    ],
)
def test_the_error_is_that_of_the_encoder(value: object) -> None:
    with pytest.raises(SerializationError) as expected:
        encode(value)
    with pytest.raises(SerializationError) as found:
        encode_in_pieces(value, NO_LIMIT)
    assert str(found.value) == str(expected.value)


def test_a_value_that_contains_itself() -> None:
    for value in ([], ["x" * 500_000]):
        value.append(value)  # type: ignore[arg-type]
        with pytest.raises(SerializationError, match="nested deeper"):
            encode_in_pieces(value, NO_LIMIT)


def test_a_value_above_the_limit_is_counted_and_not_kept() -> None:
    size = encode(ROWS).size
    assert encode_in_pieces(ROWS, size).size == size
    with pytest.raises(ValueTooLargeError) as caught:
        encode_in_pieces(ROWS, size - 1)
    assert caught.value.size == size


def test_a_dict_that_grows_meanwhile_is_refused() -> None:
    class Growing(list[int]):
        def __iter__(self) -> Any:
            target[f"new {len(target)}"] = 1
            return super().__iter__()

    target: dict[str, object] = {f"k{number}": Growing([1]) for number in range(20_000)}
    with pytest.raises(SerializationError, match="changed"):
        encode_in_pieces(target, NO_LIMIT)


@pytest.mark.parametrize("text", ["{", '{"a"', '{"a":[1,2}', '{"a":"x', "", "[1", '{"a":{"b":1}'])
def test_a_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any; the caller reports a corrupt record
        split_in_pieces(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet='ab"\\\x00\n,:[]{}é🐎 ', max_size=12),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(alphabet='ab"\\,{é', max_size=4), inner),
)


@given(st.dictionaries(st.text(alphabet='ab"\\,:]', max_size=4), JSON, max_size=8))
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_size_make_the_same_document(value: Mapping[str, object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {
            "_BUDGET": 60,
            "_PIECE_CHARS": 7,
            "_BATCH": 3,
            "_SEARCH_CHARS": 2,
            "_BLOCK_CHARS": 9,
        }.items():
            for module in (large_document, large_text):
                patch.setattr(module, name, size, raising=hasattr(module, name))
        document = encode_in_pieces(value, NO_LIMIT)
        text = join_object(encode_object(value)).text
        members, canonical = split_in_pieces(text), "".join(canonical_pieces(text))
    assert document.text == encode(value).text
    assert members == split_object(text)
    assert canonical == json.dumps(document.value(), sort_keys=True)
