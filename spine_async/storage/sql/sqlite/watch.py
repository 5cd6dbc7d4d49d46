"""Reports commits of other connections to a SQLite file.

`PRAGMA data_version` of an open connection changes with each commit of another connection, in any process. It is read
on a thread of its own with a plain connection: through aiosqlite a reading costs twice as much.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

POLL_SECONDS = 0.008
_OWN_SECONDS = 0.1
"""Time between two reports of commits while this process commits itself. It knows its own commits anyway."""
_RETRY_SECONDS = 0.1
_JOIN_SECONDS = 2.0


class CommitCount:
    """Counts the commits of this process, so that the watch can tell them from others. Any thread may add to it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> None:
        """Call it before and after each commit."""
        self.value += 1


class FileWatch:
    """Calls back in an event loop after commits to a file.

    The thread runs while there are listeners.

    Args:
        file: The database file; it need not exist yet.
        own_commits: The commits of this process.
    """

    def __init__(self, file: Path, own_commits: CommitCount) -> None:
        self._file = file
        self._own_commits = own_commits
        self._threads: dict[WatchListener, _Poller] = {}

    def listen(self, on_change: Callable[[], None]) -> WatchListener:
        """Call `on_change` in the running event loop after each change, until the listener is closed."""
        listener = WatchListener(self)
        poller = _Poller(self._file, self._own_commits, asyncio.get_running_loop(), on_change)
        self._threads[listener] = poller
        poller.start()
        return listener

    async def stop(self, listener: WatchListener) -> None:
        """Stop calling back."""
        poller = self._threads.pop(listener, None)
        if poller is not None:
            await poller.stop()

    async def close(self) -> None:
        """Stop all listeners."""
        for listener in list(self._threads):
            await self.stop(listener)


class WatchListener:
    """Reports changes until it is closed."""

    __slots__ = ("_watch",)

    def __init__(self, watch: FileWatch) -> None:
        self._watch = watch

    async def close(self) -> None:
        await self._watch.stop(self)


class _Poller:
    """The thread of one listener."""

    def __init__(
        self, file: Path, own_commits: CommitCount, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
    ) -> None:
        self._file = file
        self._own_commits = own_commits
        self._loop = loop
        self._on_change = on_change
        self._stopping = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="spine_async watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """End the thread and wait for it. In a fork there is no such thread."""
        self._stopping.set()
        if self._pid == os.getpid():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join, _JOIN_SECONDS)

    def _run(self) -> None:
        with suppress(RuntimeError):  # the event loop was closed without `close`
            while not self._stopping.is_set():
                try:
                    self._poll_file()
                except (sqlite3.Error, OSError):  # the file does not exist yet, or was replaced
                    self._stopping.wait(_RETRY_SECONDS)

    def _poll_file(self) -> None:
        connection = sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        try:
            cursor = connection.cursor()
            known = _data_version(cursor)
            self._report()  # what was committed before the first reading
            self._poll(cursor, known)
        finally:
            connection.close()

    def _poll(self, cursor: sqlite3.Cursor, known: object) -> None:
        """Report changes until the watch stops."""
        own, is_pending, reported_mono = self._own_commits.value, False, 0.0
        while not self._stopping.wait(POLL_SECONDS):
            found, own_now = _data_version(cursor), self._own_commits.value
            is_pending = is_pending or found != known
            is_own = own_now != own
            known, own = found, own_now
            if not is_pending:
                continue
            now_mono = time.monotonic()
            if not is_own or now_mono - reported_mono >= _OWN_SECONDS:
                is_pending, reported_mono = False, now_mono
                self._report()

    def _report(self) -> None:
        self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if not self._stopping.is_set():
            self._on_change()


def _data_version(cursor: sqlite3.Cursor) -> object:
    return cursor.execute("PRAGMA data_version").fetchone()[0]
