"""The wall clock, which may be set while runs are executed."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio

from spine_async._engine.tasks import Future, new_future, resolve
from spine_async.ports import Clock

_LONGEST_SLEEP = 3600.0  # seconds
_TOLERANCE = 0.2  # seconds; a slewed clock wakes the sleepers once per change of this size


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class RunClock:
    """The clock of one run. Its moments never go back, so that no stored time precedes an earlier one.

    Args:
        clock: The runner's clock.
        latest: The latest moment that the run has stored.

    Attributes:
        latest: The latest moment that it returned.
        behind: Seconds by which the wall clock was set back while the run was parked; negative if it was set forward.
    """

    __slots__ = ("_clock", "behind", "latest", "monotonic")

    def __init__(self, clock: Clock, latest: datetime = _LONG_AGO) -> None:
        self._clock = clock
        self.latest = latest
        self.behind = 0.0
        self.monotonic = clock.monotonic

    def now(self) -> datetime:
        """The present moment, or the latest returned one while the wall clock is behind it."""
        now = self._clock.now()
        if now < self.latest:
            return self.latest
        self.latest = now
        return now

    def was_due(self, due_at: datetime, due_in: float) -> None:
        """Note that the run was parked until `due_at`, which a clock that nobody sets reaches in `due_in` seconds."""
        behind = (due_at - self._clock.now()).total_seconds() - due_in
        self.behind = behind if abs(behind) > _TOLERANCE else 0.0

    def seconds_until(self, end: datetime) -> float:
        """Seconds until the end of a duration that has begun, even if the clock was set while the run was parked."""
        return (end - self._clock.now()).total_seconds() - self.behind


class WallClock:
    """Sleeps until moments of the wall clock, and notices that it was set or that the host was suspended.

    Args:
        clock: The runner's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sleepers: set[Future[None]] = set()
        self._offset = 0.0

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep until the wall clock shows `moment`."""
        while (left := (moment - self._clock.now()).total_seconds()) > 0:
            change: Future[None] = new_future()
            self._sleepers.add(change)
            try:
                with anyio.move_on_after(min(left, _LONGEST_SLEEP)):
                    await change
            finally:
                self._sleepers.discard(change)

    def check(self) -> None:
        """Wake the sleepers if the wall clock was set since the last check; to be called several times a second."""
        if not self._sleepers:
            return
        offset = self._clock.now().timestamp() - self._clock.monotonic()
        if abs(offset - self._offset) > _TOLERANCE:
            self._offset = offset
            resolve(list(self._sleepers))
