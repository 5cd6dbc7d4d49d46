"""The clocks of this machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial


class SystemClock:
    """The host's wall clock, and the monotonic clock that the event loop uses too.

    Both are functions written in C, because every step reads them several times.
    """

    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)
