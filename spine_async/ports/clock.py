"""Time as the engine reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall clock and stopwatch. Sleeping is the event loop's business."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, with an arbitrary zero; the event loop's own."""
        ...
