"""Limits how often something is done, but lets single occurrences pass at once."""

from __future__ import annotations


class Pace:
    """A token bucket.

    Args:
        per_second: How often something may be done in the long run, if each time costs 1.
        burst: How often it may be done without a pause after a quiet time.
        now_mono: The present reading of the monotonic clock.
    """

    __slots__ = ("_burst", "_filled_mono", "_per_second", "_tokens")

    def __init__(self, per_second: float, burst: float, now_mono: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._filled_mono = now_mono

    def delay(self, now_mono: float, cost: float = 1.0) -> float:
        """Seconds for which the caller is to wait before it does it once more; takes the cost of that at once."""
        filled = self._tokens + (now_mono - self._filled_mono) * self._per_second
        self._tokens = min(self._burst, filled) - cost
        self._filled_mono = now_mono
        return max(0.0, -self._tokens / self._per_second)
