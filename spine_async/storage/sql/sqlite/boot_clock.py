"""The clock by which leases are counted in a SQLite file: seconds since the host was booted, and which boot that was.

Processes that share a file share a host. Its boot clock runs while the host sleeps, is never set, and means the same in
all of them; after another boot no process of before is left, so no lease of before holds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_WALL = "wall clock"


@dataclass(frozen=True, slots=True)
class BootTime:
    """A reading of the clock.

    Attributes:
        boot: Which boot of which host.
        seconds: Since then.
    """

    boot: str
    seconds: float


def boot_time() -> BootTime:
    """The present reading. The first call of a process reads a file, so call it on a thread that may wait."""
    boot = _boot_id()
    if boot == _WALL:
        # Not a monotonic clock: it starts anew with each boot, and a lease of before would seem to last for days.
        return BootTime(boot, time.time())
    return BootTime(boot, time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))


@cache
def _boot_id() -> str:
    """The kernel's name for this boot, or a word for the wall clock where boots have no names."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or _WALL
    except OSError:
        return _WALL
