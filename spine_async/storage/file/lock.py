"""Locks of files against other processes of the host, and against other threads of this process.

A POSIX lock ends with the process that holds it and is not inherited by a child. But it belongs to the whole process,
and ends when the process closes any descriptor of the file. So a mutex of the path protects the open file.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from spine_async.errors import StoreUnavailableError

FILE_MODE = 0o600
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02

_mutexes: WeakValueDictionary[str, _Mutex] = WeakValueDictionary()
_registry = threading.Lock()


class _Mutex:
    """A lock that can be referenced weakly."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@contextmanager
def locked(file: Path, *, is_created: bool, timeout: float) -> Iterator[int | None]:
    """Open a file and lock it exclusively.

    Args:
        file: An absolute path without symbolic links.
        is_created: Whether to create a file that does not exist.
        timeout: Longest wait in seconds.

    Yields:
        The descriptor; None if the file, or its folder, does not exist.

    Raises:
        StoreUnavailableError: Another process or thread holds the lock.
        OSError: The file cannot be opened.
    """
    until_mono = time.monotonic() + timeout
    mutex = _mutex(file)
    if not mutex.lock.acquire(timeout=timeout):
        raise _is_held(file, timeout)
    try:
        descriptor = _open_locked(file, until_mono, timeout, is_created=is_created)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)
    finally:
        mutex.lock.release()


def _mutex(file: Path) -> _Mutex:
    with _registry:
        return _mutexes.setdefault(str(file), _Mutex())


def _open_locked(file: Path, until_mono: float, timeout: float, *, is_created: bool) -> int | None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if is_created else 0)
    while True:
        try:
            descriptor = os.open(file, flags, FILE_MODE)
        except FileNotFoundError:
            return None
        try:
            _lock(descriptor, file, until_mono, timeout)
            if _is_still(file, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed or replaced before it was locked


def _lock(descriptor: int, file: Path, until_mono: float, timeout: float) -> None:
    import fcntl  # noqa: PLC0415 - only POSIX systems have it

    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
        else:
            return
        if time.monotonic() >= until_mono:
            raise _is_held(file, timeout)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _is_still(file: Path, descriptor: int) -> bool:
    try:
        found = file.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _is_held(file: Path, timeout: float) -> StoreUnavailableError:
    return StoreUnavailableError(f"another process has locked {file} for {timeout:g} s; find it, and end it")
