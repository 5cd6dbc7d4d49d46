"""Monotonic time without the time in which this process was suspended or blocked.

A process that is suspended, or an event loop that is blocked, receives no answer. That time says nothing about the
database, so it does not count against the time limit of a call.
"""

from __future__ import annotations

import time

BEAT = 0.1
"""Seconds between two beats."""

_MAX_GAP = 2 * BEAT  # a loop with much work is late, but it does receive answers


class AwakeClock:
    """Counts at most `_MAX_GAP` seconds between two beats; without beats it is the monotonic clock."""

    def __init__(self) -> None:
        self._lost = 0.0
        self._beat_mono: float | None = None

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        now_mono = time.monotonic()
        if self._beat_mono is not None:
            now_mono -= max(0.0, now_mono - self._beat_mono - _MAX_GAP)
        return now_mono - self._lost

    def beat(self) -> None:
        """Note that the event loop runs."""
        now = self.now()
        self._beat_mono = time.monotonic()
        self._lost = self._beat_mono - now

    def rest(self) -> None:
        """No beats follow for now."""
        self.beat()
        self._beat_mono = None
