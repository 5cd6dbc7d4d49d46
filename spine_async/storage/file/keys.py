"""Keys of runs in a file store: numbers that order runs by their creation, and that no two runs share."""

from __future__ import annotations

import secrets
import threading
import time

_RANDOM_BITS = 10

_lock = threading.Lock()
_last = 0


def new_key() -> int:
    """A key that is greater than all earlier keys of this process.

    It consists of the time in microseconds and of random bits. So it also differs from the key of a run that another
    process has created and removed under the same id.
    """
    global _last  # noqa: PLW0603 - the order of creations in this process
    with _lock:
        drawn = (time.time_ns() // 1000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        _last = max(drawn, _last + 1)
        return _last
