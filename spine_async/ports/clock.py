"""The clock protocol."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall clock and monotonic clock. The engine sleeps through the event loop, not through the clock."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of the event loop's monotonic clock; its zero is arbitrary."""
        ...
