from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from spine_async._model.failure import MAX_ERROR_LENGTH, ErrorCategory, classify, describe, storable_text
from spine_async.errors import StepError


class Row(BaseModel):
    price: float


def refused() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Row.model_validate({"price": "secret-value"})
    return caught.value


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (StepError("x", category="DEPENDENCY"), "DEPENDENCY"),
        (StepError("x", category="MINE"), "MINE"),
        (StepError("x"), "INTERNAL"),
        (TimeoutError(), "TIMEOUT"),
        (ConnectionResetError(), "TRANSIENT"),
        (FileNotFoundError(), "TRANSIENT"),
        (ValueError("x"), "INTERNAL"),
        (KeyError("x"), "INTERNAL"),
    ],
)
def test_an_exception_has_a_category(error: BaseException, category: str) -> None:
    assert classify(error) == category


def test_a_validation_error_is_a_matter_of_data() -> None:
    assert classify(refused()) is ErrorCategory.DATA_QUALITY


def test_an_exception_is_described_by_type_and_message() -> None:
    assert describe(ValueError("no rows")) == "ValueError: no rows"
    assert describe(ValueError()) == "ValueError"


def test_a_validation_error_is_described_without_the_value() -> None:
    text = describe(refused())
    assert text.startswith("ValidationError: Row: price: Input should be a valid number")
    assert "secret" not in text


def test_an_error_text_can_be_stored() -> None:
    assert storable_text("a\0b\ud800") == "a\\x00b\\ud800"
    long = storable_text("x" * 100_000)
    assert len(long) == MAX_ERROR_LENGTH
    assert long.endswith("…")
