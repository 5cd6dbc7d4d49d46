"""Waits for writes to a SQLite file and its log, so that a file that nobody writes to need not be read often.

Linux reports writes by inotify. Elsewhere, and if a user has too many inotify instances, a wait is a short pause.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_MODIFY = 0x2  # IN_MODIFY
_CLOSE_ON_EXEC = 0o2000000  # IN_CLOEXEC
_NONBLOCK = 0o4000  # IN_NONBLOCK
_BUFFER = 1 << 16


class WriteEvents(Protocol):
    """Waits in one thread; `stop` is called by another."""

    def watch(self, file: Path) -> None:
        """Wait for writes to this file and to its log from now on. It may be called again."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait until one of the files is written to or `stop` is called, at most `seconds`.

        Returns:
            Whether one of the files may have been written to.
        """
        ...

    def pause(self, seconds: float) -> bool:
        """Wait until `stop` is called, at most `seconds`; returns whether it was called."""
        ...

    def stop(self) -> None:
        """End the wait, and each later one at once."""
        ...


def write_events(poll_seconds: float) -> WriteEvents:
    """The best way to wait on this host.

    Args:
        poll_seconds: Length of a wait where writes are not reported.
    """
    if sys.platform == "linux":
        try:
            return _Inotify()
        except (OSError, AttributeError):  # too many instances, or a C library without inotify
            pass
    return _Pauses(poll_seconds)


class _Pauses:
    """Does not know of writes, so each wait is short."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._running = threading.Lock()  # held until `stop`; an Event costs ten times as much
        self._running.acquire()

    def watch(self, file: Path) -> None:
        """Do nothing."""

    def wait(self, seconds: float) -> bool:
        self.pause(min(seconds, self._poll_seconds))
        return True

    def pause(self, seconds: float) -> bool:
        if not self._running.acquire(timeout=seconds):
            return False
        self._running.release()
        return True

    def stop(self) -> None:
        if self._running.locked():
            self._running.release()


class _Inotify:
    """Waits for events of the kernel.

    Raises:
        OSError: The user has too many inotify instances, or no descriptor is left.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._add_watch: Callable[[int, bytes, int], int] = libc.inotify_add_watch
        self._events = _checked(libc.inotify_init1(_CLOSE_ON_EXEC | _NONBLOCK))
        try:
            self._stopped = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            os.close(self._events)
            raise
        self._close = weakref.finalize(self, _close, self._events, self._stopped)
        self._pausing, self._waiting = select.poll(), select.poll()
        self._pausing.register(self._stopped, select.POLLIN)
        self._waiting.register(self._stopped, select.POLLIN)
        self._waiting.register(self._events, select.POLLIN)

    def watch(self, file: Path) -> None:
        for name in (file, f"{file}-wal"):
            if self._add_watch(self._events, os.fsencode(name), _MODIFY) < 0:
                number = ctypes.get_errno()
                if number != errno.ENOENT:
                    raise OSError(number, os.strerror(number), str(name))

    def wait(self, seconds: float) -> bool:
        found = self._waiting.poll(1000 * seconds)
        if all(each != self._events for each, _ in found):
            return False
        os.read(self._events, _BUFFER)
        return True

    def pause(self, seconds: float) -> bool:
        return bool(self._pausing.poll(1000 * seconds))

    def stop(self) -> None:
        os.eventfd_write(self._stopped, 1)


def _checked(descriptor: int) -> int:
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
