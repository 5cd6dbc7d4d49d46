"""The stored form of moments: text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from spine_async.storage.sql.schema.rows import iso_timestamp


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 3, 4, 5, 6, 7, 89, UTC), "2026-03-04T05:06:07.000089Z"),
        (datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC), "2026-12-31T23:59:59.999999Z"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T23:30:00.000000Z"),
        (datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=-9, minutes=-30))), "2026-01-01T11:00:00.000000Z"),
    ],
)
def test_a_moment_is_text_of_fixed_width_in_utc(at: datetime, text: str) -> None:
    assert iso_timestamp(at) == text
    assert datetime.fromisoformat(text) == at


def test_text_order_is_time_order() -> None:
    steps = (0, 1, 999_999, 1_000_000, 59_999_999, 60_000_000, 3_600_000_000, 86_400_000_000, 31 * 86_400_000_000)
    moments = [datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC) + timedelta(microseconds=each) for each in steps]
    assert [iso_timestamp(each) for each in moments] == sorted(iso_timestamp(each) for each in moments)
