"""The limit for the time in which an attempt neither emits an event nor reports progress."""

from __future__ import annotations

import math


class IdleLimit:
    """The limits of an attempt with an `idle_timeout`.

    Args:
        seconds: How long the attempt may be silent.
        now_mono: Its start, on the monotonic clock.
        timeout: Seconds that it may take altogether, or None for no limit.

    Attributes:
        seconds: How long it may be silent.
        active_mono: When it last emitted or reported something; any thread may set it.
        has_expired: Whether it was silent for too long.
    """

    __slots__ = ("_ends_mono", "active_mono", "has_expired", "seconds")

    def __init__(self, seconds: float, now_mono: float, timeout: float | None) -> None:
        self.seconds = seconds
        self.active_mono = now_mono
        self.has_expired = False
        self._ends_mono = math.inf if timeout is None else now_mono + timeout

    @property
    def first_seconds(self) -> float:
        """Seconds from the start to the first of the two limits."""
        return min(self.seconds, self._ends_mono - self.active_mono)

    def deadline_at(self, now_mono: float) -> float:
        """The present deadline, on the monotonic clock. If it has passed, this decides which of the limits ends it."""
        deadline_mono = min(self.active_mono + self.seconds, self._ends_mono)
        if deadline_mono <= now_mono:
            self.has_expired = deadline_mono < self._ends_mono
        return deadline_mono

    def is_over_at(self, now_mono: float) -> bool:
        """Whether one of the limits has passed; in any thread."""
        return self.has_expired or min(self.active_mono + self.seconds, self._ends_mono) <= now_mono
