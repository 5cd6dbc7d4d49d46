"""The clock for leases in a SQLite file: seconds since the host booted, and an identifier of that boot.

Processes that share a file share a host. The boot clock of the host runs while the host sleeps, cannot be set, and
reads the same in all processes. After a reboot no earlier process exists, so all earlier leases have ended.
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
        boot: Identifier of the host's current boot.
        seconds: Seconds since that boot.
    """

    boot: str
    seconds: float


def boot_time() -> BootTime:
    """Read the clock. The first call of a process reads a file, so call it on a thread that may block."""
    boot = _boot_id()
    if boot == _WALL:
        # Without boot identifiers a monotonic clock is unsafe: it restarts at each boot, so an old lease would seem
        # to last for days.
        return BootTime(boot, time.time())
    return BootTime(boot, time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))


def seconds_until(boot: object, seconds: object, now: BootTime) -> float | None:
    """The time from now until a stored reading of the clock; None if it belongs to another boot, or is NULL."""
    return float(str(seconds)) - now.seconds if boot == now.boot and seconds is not None else None


def is_boot_known() -> bool:
    """Whether `boot_time` reads no file any more."""
    return _boot_id.cache_info().currsize > 0


@cache
def _boot_id() -> str:
    """The kernel's identifier of the boot, or `_WALL` if the platform has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or _WALL
    except OSError:
        return _WALL
