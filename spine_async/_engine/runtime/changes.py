"""Reports changes of the store to the services of a runner that wait for them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum, auto

import anyio

from spine_async._engine.tasks import Future, new_future, resolve, run_shielded
from spine_async.errors import StoreError
from spine_async.ports import DueRunStore, Listener

_log = logging.getLogger("spine_async")


class Change(IntEnum):  # integers, because Python computes the hash of a member of `Enum` in slow code
    """What may have changed.

    `work`: a run may have become due, or a worker may have capacity again. `state`: a run may have ended or may be
    claimed. `notice`: a message or a stop request may have arrived for an active run. `events`: a followed run may have
    new events.
    """

    WORK = auto()
    STATE = auto()
    NOTICE = auto()
    EVENTS = auto()


class Changes:
    """Wakes the services of a runner: after changes that the runner makes, and after those of other processes.

    Args:
        store: Reports the changes of other processes, as long as somebody listens.
    """

    def __init__(self, store: DueRunStore) -> None:
        self._store = store
        self._waiters: dict[Change, set[Future[None]]] = {each: set() for each in Change}
        self._counts = dict.fromkeys(Change, 0)
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

    def notify(self, *changes: Change) -> None:
        """Report changes of this runner."""
        for change in changes:
            self._counts[change] += 1
            if waiters := self._waiters[change]:
                self._waiters[change] = set()
                resolve(waiters)

    def count(self, change: Change) -> int:
        """Number of such changes so far; read it before the store, and pass it to `wait`."""
        return self._counts[change]

    async def wait(self, change: Change, seconds: float, seen: int) -> bool:
        """Wait for a change after the first `seen` ones, at most `seconds`; returns whether there was one."""
        if self._counts[change] != seen:
            return True
        waiter: Future[None] = new_future()
        self._waiters[change].add(waiter)
        try:
            with anyio.move_on_after(seconds):
                await waiter
                return True
        finally:
            self._waiters[change].discard(waiter)
        return self._counts[change] != seen  # also one in the moment in which the time was over

    def forget_loop(self) -> None:
        """Drop what belongs to an event loop that is closed."""
        self._waiters = {each: set() for each in Change}
        self._listeners, self._listener, self._lock = 0, None, anyio.Lock()

    async def _listen(self) -> None:
        try:
            self._listener = await self._store.listen(self._notify_all)
        except StoreError:
            return  # the services look at the store regularly
        except Exception:  # noqa: BLE001 - the service would end, and nobody would notice
            _log.exception("changes of other processes are not noticed at once")

    async def _end_listening(self) -> None:
        async with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None and self._listeners == 0:
                await listener.close()
            elif listener is not None:
                self._listener = listener

    def _notify_all(self) -> None:
        self.notify(*Change)
