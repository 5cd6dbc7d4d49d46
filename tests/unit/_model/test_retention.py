"""Retention policies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from spine_async import DefinitionError, RetentionPolicy, RunStatus


def test_ages_are_seconds_or_durations() -> None:
    policy = RetentionPolicy(completed=90, failed=timedelta(days=1))
    assert policy.ages == {RunStatus.COMPLETED: timedelta(seconds=90), RunStatus.FAILED: timedelta(days=1)}


def test_nothing_is_removed_without_an_age_or_a_number() -> None:
    assert RetentionPolicy().ages == {}


def test_a_number_alone_removes_all_others() -> None:
    assert RetentionPolicy(keep_last=5).ages == dict.fromkeys(
        (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED), timedelta()
    )
    assert RetentionPolicy(keep_last=5, failed=1).ages == {RunStatus.FAILED: timedelta(seconds=1)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"completed": -1}, "completed: -1 is not a number of seconds"),
        ({"failed": "7d"}, "failed: '7d'"),
        ({"stopped": float("inf")}, "stopped"),
        ({"keep_last": 0}, "keep_last is 0; it must be an integer from 1 to 10,000, or None"),
        ({"keep_last": True}, "keep_last"),
        ({"keep_last": 10_001}, "keep_last"),
    ],
)
def test_a_wrong_value_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        RetentionPolicy(**fields)
