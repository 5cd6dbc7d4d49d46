"""The clock protocol."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """A wall clock and a monotonic clock. The engine sleeps with timers of the event loop, not with this clock."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of the monotonic clock that the event loop uses; the zero is arbitrary."""
        ...
