"""Options of runs that are enqueued."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from spine_async import DefinitionError
from spine_async._model.queue import Queue, check_key, check_priority, check_queue_name, due_time, expiry
from spine_async._model.run_row import DueTime

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ODD_TEXTS = ["", "a\nb", "a\x00b", "x" * 201, 7, b"mail"]


@pytest.mark.parametrize("name", ["default", "mail", "x" * 200, "büro 7", "a/b"])
def test_a_printable_text_is_the_name_of_a_queue(name: str) -> None:
    assert check_queue_name(name) == Queue(name).name == name


@pytest.mark.parametrize("name", [*ODD_TEXTS, None])
def test_any_other_name_of_a_queue_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match="invalid queue"):
        Queue(name)


@pytest.mark.parametrize("key", [None, "tenant-1", "x" * 200])
def test_a_key_is_a_text_or_absent(key: object) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ODD_TEXTS)
def test_any_other_key_is_refused(key: object) -> None:
    with pytest.raises(DefinitionError, match="invalid key"):
        check_key(key)


@pytest.mark.parametrize("priority", [0, -5, 2**31 - 1, -(2**31) + 1])
def test_a_priority_is_an_integer_that_databases_store(priority: object) -> None:
    check_priority(priority)


@pytest.mark.parametrize("priority", [2**31, -(2**31), True, 1.0, "1", None])
def test_any_other_priority_is_refused(priority: object) -> None:
    with pytest.raises(DefinitionError, match=r"priority is .*; it must be an integer"):
        check_priority(priority)


@pytest.mark.parametrize(
    ("delay", "seconds"), [(None, 0.0), (0, 0.0), (2, 2.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)]
)
def test_a_delay_counts_from_now(delay: object, seconds: float) -> None:
    assert due_time(delay, None, NOW) == DueTime(NOW + timedelta(seconds=seconds), seconds)


def test_a_moment_is_stored_in_utc_and_not_as_a_number_of_seconds() -> None:
    """It is a time of the calendar: a clock that is set moves it."""
    at = datetime(2026, 3, 1, 15, tzinfo=timezone(timedelta(hours=2)))
    due = due_time(None, at, NOW)
    assert due == DueTime(datetime(2026, 3, 1, 13, tzinfo=UTC), None)
    assert due.at.utcoffset() == timedelta(0)


def test_a_moment_in_the_past_is_due_at_once() -> None:
    assert due_time(None, NOW - timedelta(days=1), NOW).at < NOW


@pytest.mark.parametrize(
    ("delay", "at", "message"),
    [
        (1, NOW, "delay and at are both given"),
        (-1, None, "delay: -1 is not"),
        (float("nan"), None, "delay: nan is not"),
        (float("inf"), None, "delay: inf is not"),
        ("1", None, "delay: '1' is not"),
        (True, None, "delay: True is not"),
        (timedelta(seconds=-1), None, "delay: "),
        (None, NOW.replace(tzinfo=None), "^at .*time zone"),
        (None, "2026-03-01T12:00:00Z", "at is of type str; it must be an aware datetime"),
        (None, 7, "at is of type int"),
    ],
)
def test_times_that_make_no_sense_are_refused(delay: object, at: object, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        due_time(delay, at, NOW)


def test_a_time_after_the_last_year_is_refused() -> None:
    with pytest.raises(DefinitionError):
        due_time(1e12, None, NOW)
    with pytest.raises(DefinitionError):
        expiry(1e12, DueTime(NOW))


@pytest.mark.parametrize(("expires", "seconds"), [(3, 3.0), (0.5, 0.5), (timedelta(hours=1), 3600.0)])
def test_a_run_expires_so_long_after_it_became_due(expires: object, seconds: float) -> None:
    due = due_time(10, None, NOW)
    assert expiry(expires, due) == NOW + timedelta(seconds=10 + seconds)


def test_a_run_without_the_option_never_expires() -> None:
    assert expiry(None, DueTime(NOW)) is None


@pytest.mark.parametrize("expires", [0, -1, float("nan"), float("inf"), "1", True, timedelta(0)])
def test_an_expiry_that_makes_no_sense_is_refused(expires: object) -> None:
    with pytest.raises(DefinitionError, match="expires"):
        expiry(expires, DueTime(NOW))
