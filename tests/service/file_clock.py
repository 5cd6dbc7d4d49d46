"""A wall clock in a file, which the test sets for all of its processes."""

from __future__ import annotations

import mmap
import struct
import time
from datetime import UTC, datetime
from pathlib import Path

_SIZE = mmap.PAGESIZE


class FileClock:
    """A `Clock` whose time is that of the file. Durations are those of the real clock.

    Args:
        path: The file; the first clock creates it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            self.path.write_bytes(bytes(_SIZE))
        with self.path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def now(self) -> datetime:
        return datetime.fromtimestamp(struct.unpack_from("d", self._memory)[0], UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def set(self, at: datetime) -> None:
        struct.pack_into("d", self._memory, 0, at.timestamp())
