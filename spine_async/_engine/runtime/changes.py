"""Reports that the store may have changed, to whoever waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from spine_async._engine.tasks import Future, new_future, resolve, run_shielded
from spine_async.errors import StoreError
from spine_async.ports import DueRunStore, Listener


class Changes:
    """Wakes the services of a runner: after changes that the runner makes, and after those of other processes.

    Args:
        store: Reports the changes of other processes, as long as somebody listens.
    """

    def __init__(self, store: DueRunStore) -> None:
        self._store = store
        self._waiters: set[Future[None]] = set()
        self._remote_waiters: set[Future[None]] = set()
        self._count = self._remote_count = 0
        self._listeners = 0
        self._listener: Listener | None = None
        self._lock = anyio.Lock()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Inside, changes of other processes are reported too, as far as the store notices them."""
        self._listeners += 1
        try:
            async with self._lock:
                if self._listener is None:
                    await self._listen()
            yield
        finally:
            self._listeners -= 1
            if self._listeners == 0:
                await run_shielded(self._end_listening(), "spine_async end listening")

    def notify(self) -> None:
        """Report a change of this runner."""
        self._count += 1
        waiters, self._waiters = self._waiters, set()
        resolve(waiters)

    def notify_runs(self) -> None:
        """Report a change of this runner that its active runs have to see too, such as a signal."""
        self._notify_remote()

    def count(self, *, only_remote: bool = False) -> int:
        """Number of changes so far; to be read before a look at the store, and then passed to `wait`."""
        return self._remote_count if only_remote else self._count

    async def wait(self, seconds: float, seen: int, *, only_remote: bool = False) -> bool:
        """Wait for a change after the first `seen` ones, at most `seconds`; returns whether there was one.

        Args:
            seconds: The limit.
            seen: The `count` before the last look at the store.
            only_remote: Whether changes of this runner do not count.
        """
        if self.count(only_remote=only_remote) != seen:
            return True
        waiters = self._remote_waiters if only_remote else self._waiters
        change: Future[None] = new_future()
        waiters.add(change)
        try:
            with anyio.move_on_after(seconds):
                await change
                return True
        finally:
            waiters.discard(change)
        return False

    def forget_loop(self) -> None:
        """Drop what belongs to an event loop that is closed."""
        self._waiters, self._remote_waiters = set(), set()
        self._listeners, self._listener, self._lock = 0, None, anyio.Lock()

    async def _listen(self) -> None:
        try:
            self._listener = await self._store.listen(self._notify_remote)
        except StoreError:
            return  # whoever waits looks at the store regularly

    async def _end_listening(self) -> None:
        async with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None and self._listeners == 0:
                await listener.close()
            elif listener is not None:
                self._listener = listener

    def _notify_remote(self) -> None:
        self._remote_count += 1
        waiters, self._remote_waiters = self._remote_waiters, set()
        resolve(waiters)
        self.notify()
