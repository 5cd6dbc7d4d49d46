"""The machine's own time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial


class SystemClock:
    """The host's wall clock, and the event loop's own stopwatch."""

    # The functions themselves: each step asks four times.
    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)
