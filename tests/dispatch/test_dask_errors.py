"""Exceptions as JSON."""

from __future__ import annotations

import json
import traceback
from typing import Any, Self

import pytest

from spine_async import StepError
from spine_async.dispatch.dask.errors import exception_document, exception_from


class RouteError(ConnectionError):
    def __new__(cls, host: str, port: int) -> Self:
        return super().__new__(cls, host, port)


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as exc:
        return exc


def sent(error: BaseException) -> BaseException:
    return exception_from(json.loads(json.dumps(exception_document(error))))


def text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_type_text_and_traceback_arrive() -> None:
    error = sent(raised(ConnectionError("no route")))
    assert isinstance(error, ConnectionError)
    assert (type(error).__name__, str(error)) == ("ConnectionError", "no route")
    assert "in raised\n    raise error\nConnectionError: no route" in text_of(error)


def test_a_type_of_a_module_that_is_not_imported_is_replaced_by_its_nearest_base() -> None:
    document = exception_document(raised(RouteError("host", 1)))
    document["types"][0] = ["some_application.errors", "RouteError"]
    error = exception_from(document)
    assert isinstance(error, ConnectionError)
    assert "some_application.errors.RouteError: " in text_of(error)


def test_a_type_that_cannot_be_made_is_replaced_by_its_nearest_base() -> None:
    error = sent(raised(RouteError("host", 1)))
    assert isinstance(error, ConnectionError)
    assert type(error).__name__ == "RouteError"


def test_the_attributes_of_a_step_error_arrive() -> None:
    error: Any = sent(raised(StepError("busy", "BUDGET", retry_after=3.0)))
    assert isinstance(error, StepError)
    assert (str(error), error.category, error.retry_after) == ("busy", "BUDGET", 3.0)


def test_causes_and_contexts_arrive() -> None:
    error = ValueError("outer")
    error.__cause__ = raised(KeyError("inner"))
    error.__cause__.__context__ = raised(OSError("first"))
    shown = text_of(sent(raised(error)))
    assert [shown.index(each) for each in ("OSError: first", "KeyError: ", "ValueError: outer")] == sorted(
        shown.index(each) for each in ("OSError: first", "KeyError: ", "ValueError: outer")
    )


def test_a_group_arrives_with_its_members() -> None:
    error = sent(raised(ExceptionGroup("two", [ValueError("a"), ExceptionGroup("in", [OSError("b")])])))
    assert isinstance(error, ExceptionGroup)
    assert error.subgroup(OSError) is not None
    assert error.message == "two"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), UnprintableError(), RecursionError("deep")])
def test_any_exception_can_be_sent(error: BaseException) -> None:
    received = sent(raised(error))
    assert isinstance(received, Exception)
    assert type(received).__name__ == type(error).__name__
    str(received)


def test_long_chains_and_tracebacks_are_cut() -> None:
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError("deep")
        fall(depth - 1)

    try:
        fall(500)
    except ValueError as exc:
        error: BaseException = exc
    for number in range(100):
        outer = RuntimeError(str(number))
        outer.__cause__ = error
        error = raised(outer)
    document = exception_document(error)
    assert len(json.dumps(document)) < 200_000
    assert "RuntimeError: 99" in text_of(exception_from(document))
