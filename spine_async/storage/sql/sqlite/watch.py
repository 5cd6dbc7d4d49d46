"""Reports commits of other connections to a SQLite file.

`PRAGMA data_version` of an open connection changes with each commit of another connection, in any process. It is read
on a thread of its own with a plain connection: through aiosqlite a reading costs twice as much.

A commit writes to the file or its log, and is visible some time later, when the log has reached the disk. So the thread
waits for a write, and then reads repeatedly for a while.
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

from spine_async.storage.sql.sqlite.write_events import write_events

POLL_SECONDS = 0.008
"""Time between two readings while there are writes, and where writes are not reported."""
_FIRST_POLL_SECONDS = 0.001
"""Time from a write after a quiet time to the next reading; it is doubled after each reading."""
_BUSY_POLL_SECONDS = 0.032
"""Time between two readings while this process commits itself."""
_ACTIVE_SECONDS = 0.1
"""Time after a write in which its commit is looked for."""
_QUIET_SECONDS = 0.25
"""Longest time without a reading, because no file system promises to report each write."""
_SHARED_SECONDS = 0.1
"""Time between two reports of commits of this process, if several runners in it share the store."""
_RETRY_SECONDS = 0.1
_JOIN_SECONDS = 2.0


class OwnCommits:
    """Tells the commits of this process from those of others.

    `PRAGMA data_version` of the connection that writes is not changed by its own commits. So a watch that sees a change
    while this process commits asks for a comparison, and the next commit makes it. A commit for which nobody asks costs
    nothing.

    Attributes:
        count: Changes before and after each commit of this process.
        others: Number of comparisons that found commits of others.
        answered: Number of the last question that was answered.
    """

    __slots__ = ("_asked", "_version", "answered", "count", "others")

    def __init__(self) -> None:
        self.count = 0
        self.others = 0
        self.answered = 0
        self._asked = 0
        self._version: object = None

    def ask(self) -> int:
        """Ask for a comparison; returns the number of the question. Any thread may ask."""
        self._asked += 1
        return self._asked

    def add(self) -> None:
        """Call it before each commit, and after one on another connection than the one that writes."""
        self.count += 1

    def end(self, connection: sqlite3.Connection) -> None:
        """Call it after each commit of the connection that writes, in its thread."""
        self.count += 1
        if self._asked != self.answered:
            self._compare(connection)

    def _compare(self, connection: sqlite3.Connection) -> None:
        asked = self._asked  # read first: a question during the comparison is left to the next commit
        try:
            cursor = connection.cursor()
            cursor.row_factory = None
            found = _data_version(cursor)
        except sqlite3.Error:  # the commit was made; an unnecessary report does no harm
            found = None
        if found is None or found != self._version:
            self._version = found
            self.others += 1
        self.answered = asked


class FileWatch:
    """Calls back in an event loop after commits to a file.

    The thread runs while there are listeners.

    Args:
        file: The database file; it need not exist yet.
        own_commits: The commits of this process.
    """

    def __init__(self, file: Path, own_commits: OwnCommits) -> None:
        self._file = file
        self._own_commits = own_commits
        self._threads: dict[WatchListener, _Poller] = {}

    def listen(self, on_change: Callable[[], None]) -> WatchListener:
        """Call `on_change` in the running event loop after each change, until the listener is closed."""
        listener = WatchListener(self)
        poller = _Poller(self, self._file, self._own_commits, asyncio.get_running_loop(), on_change)
        self._threads[listener] = poller
        poller.start()
        return listener

    @property
    def is_shared(self) -> bool:
        """Whether several runners of this process listen, so that each has to learn of the commits of the others."""
        return len(self._threads) > 1

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
        self,
        watch: FileWatch,
        file: Path,
        own_commits: OwnCommits,
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[], None],
    ) -> None:
        self._watch = watch
        self._file = file
        self._own = own_commits
        self._loop = loop
        self._on_change = on_change
        self._is_stopping = False
        self._events = write_events(POLL_SECONDS)
        self._active_until_mono = 0.0
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="spine_async watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """End the thread and wait for it. In a fork there is no such thread."""
        self._is_stopping = True
        self._events.stop()
        if self._pid == os.getpid():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join, _JOIN_SECONDS)

    def _run(self) -> None:
        with suppress(RuntimeError):  # the event loop was closed without `close`
            while not self._is_stopping:
                try:
                    self._poll_file()
                except (sqlite3.Error, OSError):  # the file does not exist yet, or was replaced
                    self._events.pause(_RETRY_SECONDS)

    def _poll_file(self) -> None:
        connection = sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        try:
            cursor = connection.cursor()
            _data_version(cursor)  # opens the log
            self._events.watch(self._file)
            known = _data_version(cursor)
            self._report()  # what was committed before the first reading
            self._poll(cursor, known)
        finally:
            connection.close()

    def _poll(self, cursor: sqlite3.Cursor, known: object) -> None:
        """Report changes until the watch stops."""
        own, pause = self._own, _FIRST_POLL_SECONDS
        count, others, question = own.count, own.others, None
        reported_mono = 0.0
        while not self._wait(pause):
            found, count_before, count = _data_version(cursor), count, own.count
            is_busy, has_changed = count != count_before, found != known
            known, pause = found, self._next_pause(pause, is_busy=is_busy)
            if question is not None and own.answered >= question:
                question = None
            is_news = own.others != others
            if has_changed or question is not None:
                # While this process commits, its next commit finds out who made the change. Otherwise others made it.
                question, is_news = (own.ask(), is_news) if is_busy else (None, True)
            if is_busy and self._watch.is_shared and time.monotonic() - reported_mono >= _SHARED_SECONDS:
                is_news = True
            if is_news:
                others, reported_mono = own.others, time.monotonic()
                self._report()

    def _next_pause(self, pause: float, *, is_busy: bool) -> float:
        if time.monotonic() >= self._active_until_mono:
            return _FIRST_POLL_SECONDS
        return min(2 * pause, _BUSY_POLL_SECONDS if is_busy else POLL_SECONDS)

    def _wait(self, pause: float) -> bool:
        """Wait until the next reading; returns whether the thread is to end."""
        if time.monotonic() < self._active_until_mono:
            is_written = not self._events.pause(pause) and self._events.wait(0)
        else:
            is_written = self._events.wait(_QUIET_SECONDS)
            if not is_written:
                self._events.watch(self._file)  # its log may have been created since
        if is_written:
            self._active_until_mono = time.monotonic() + _ACTIVE_SECONDS
        return self._is_stopping

    def _report(self) -> None:
        self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if not self._is_stopping:
            self._on_change()


def _data_version(cursor: sqlite3.Cursor) -> object:
    return cursor.execute("PRAGMA data_version").fetchone()[0]
