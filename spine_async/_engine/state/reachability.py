"""When the store returned from its last outage, as far as this runner knows.

During an outage of the store nobody can renew a lease. After it, ended leases prove nothing until their owners have had
time to renew them.
"""

from __future__ import annotations

import math

_SLOW = 1.0  # seconds; a longer call may have begun during an outage and succeeded only by a retry


class Reachability:
    """Records which calls reached the store, and which failed to reach it."""

    def __init__(self) -> None:
        self._is_away = False
        self._returned_mono = -math.inf

    def failed(self) -> None:
        """Note that the store could not be reached."""
        self._is_away = True

    def answered(self, sent_mono: float, now_mono: float) -> None:
        """Note that the store has answered a call that was sent at that time."""
        if self._is_away or now_mono - sent_mono > _SLOW:
            self._is_away, self._returned_mono = False, now_mono

    def has_returned_for(self, seconds: float, now_mono: float) -> bool:
        """Whether the last known outage ended that long ago; True if none is known."""
        return not self._is_away and now_mono - self._returned_mono >= seconds
