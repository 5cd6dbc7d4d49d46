"""The system clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial


class SystemClock:
    """The wall clock of the host, and the monotonic clock that the event loop uses.

    Both methods are functions written in C, because each step calls them several times.
    """

    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)
