"""When a runner is at work: which runs it executes, and the background work that goes on as long as there are any.

While anything is executed, a watcher looks now and then for steps that have been under way for a while and have them
announced, so that whoever looks at the events sees what runs now.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from spine_async._engine.background import Task, end, run_through, spawn
from spine_async._engine.engine import Engine
from spine_async._engine.ledger import Ledger
from spine_async._engine.signals import CommitFailed
from spine_async.errors import RunBusyError

_LOOK_EVERY = 0.25  # seconds
_ANNOUNCE_AFTER = 0.5  # seconds a step has been under way before it is told of on its own


class Activity:
    """The runs at work in one runner.

    While any are, the store is open; when the last is over it is closed, unless the runner is held open by `async
    with`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._holders = 0
        self._ledgers: dict[str, Ledger] = {}
        self._reserved: set[str] = set()
        self._watcher: Task[None] | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Keep the store open meanwhile."""
        await self.hold()
        try:
            yield
        finally:
            await self.let_go()

    async def hold(self) -> None:
        self._holders += 1

    async def let_go(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            await run_through(self._close(), "spine_async close")

    @asynccontextmanager
    async def reserved(self, run_id: str) -> AsyncIterator[None]:
        """Nobody else in this runner executes the run meanwhile.

        Raises:
            RunBusyError: Somebody does already.
        """
        if run_id in self._reserved:
            raise RunBusyError(run_id, "this runner")
        self._reserved.add(run_id)
        try:
            yield
        finally:
            self._reserved.discard(run_id)

    @asynccontextmanager
    async def watched(self, ledger: Ledger) -> AsyncIterator[None]:
        """Long steps of this ledger are announced meanwhile."""
        run_id = ledger.claim.run_id
        self._ledgers[run_id] = ledger
        if self._watcher is None or self._watcher.done():
            self._watcher = spawn(self._watch(), "spine_async watcher")
        try:
            yield
        finally:
            self._ledgers.pop(run_id, None)

    async def _watch(self) -> None:
        while self._ledgers:
            await anyio.sleep(_LOOK_EVERY)
            limit = self._engine.clock.monotonic() - _ANNOUNCE_AFTER
            for ledger in list(self._ledgers.values()):
                if ledger.end is None and ledger.announce(limit):
                    with suppress(CommitFailed):  # the run itself will meet the same trouble, and tell of it
                        await self._engine.journal.commit(ledger)

    async def _close(self) -> None:
        if self._watcher is not None:
            await end(self._watcher)
            self._watcher = None
        if self._holders == 0:
            await self._engine.store.close()
            self._engine.forget_loop()
