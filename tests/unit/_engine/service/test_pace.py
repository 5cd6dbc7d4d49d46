"""A pace lets bursts pass, and limits the rest."""

from __future__ import annotations

import pytest

from spine_async._engine.service.pace import Pace


def test_a_burst_passes_and_the_rest_is_spread() -> None:
    pace = Pace(10.0, 3.0, 100.0)
    assert [pace.delay(100.0) for _ in range(5)] == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2])


def test_after_a_pause_there_is_one_burst_however_long_the_pause_was() -> None:
    pace = Pace(10.0, 3.0, 0.0)
    for _ in range(5):
        pace.delay(0.0)
    assert [pace.delay(1000.0) for _ in range(4)] == pytest.approx([0.0, 0.0, 0.0, 0.1])


def test_callers_that_wait_as_they_are_told_keep_the_rate() -> None:
    pace, now = Pace(40.0, 8.0, 0.0), 0.0
    for _ in range(408):
        now += pace.delay(now)
    assert now == pytest.approx(10.0)


def test_cheap_occurrences_come_more_often() -> None:
    pace, now = Pace(40.0, 1.0, 0.0), 0.0
    for _ in range(205):
        now += pace.delay(now, 0.2)
    assert now == pytest.approx(1.0)
