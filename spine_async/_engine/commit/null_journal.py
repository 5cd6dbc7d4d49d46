"""A journal that stores nothing: for dry runs, and for runs without checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from spine_async._engine.commit.creation import Creation
from spine_async._engine.commit.recorder import Commit, OnCommit
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.tasks import Future, PeriodicYield, new_future
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Claim


class NullJournal:
    """Discards pending writes. `enqueue` returns this object itself, as a commit that has always ended."""

    is_set = True
    error = None

    def __init__(self) -> None:
        self.on_commit: OnCommit | None = None  # never called
        self._yield = PeriodicYield()

    async def create(self, creation: Creation) -> None:
        """Set a claim that belongs to no stored run."""
        creation.claim = Claim(creation.run.run_id, 0, 1, 1)

    async def create_all(self, creations: Sequence[Creation]) -> None:
        """Set claims that permit nothing."""
        for creation in creations:
            await self.create(creation)

    def commit(self, pending: PendingWrites) -> Awaitable[None]:
        """Discard the pending writes."""
        pending.clear()
        return self._yield()

    def enqueue(self, pending: PendingWrites) -> Commit:
        """Discard the pending writes."""
        pending.clear()
        return self

    def defer(self) -> Awaitable[None]:
        """Yield to the event loop now and then."""
        return self._yield()

    @asynccontextmanager
    async def reserved(self, pending: PendingWrites) -> AsyncIterator[None]:
        """Do nothing, because nothing is committed."""
        yield

    def committed(self, pending: PendingWrites, change: RunChange) -> None:
        """Accept the numbers of the change."""
        pending.committed(change)

    async def end_retries(self) -> None:
        """Do nothing, because nothing is locked."""

    def forget_loop(self) -> None:
        """Do nothing, because nothing belongs to an event loop."""

    def wait(self) -> Awaitable[None]:
        """Yield to the event loop now and then."""
        return self._yield()

    def future(self) -> Future[None]:
        """A future that is done."""
        future: Future[None] = new_future()
        future.set_result(None)
        return future

    async def wait_shielded(self) -> None:
        """Return at once."""

    def add_error_callback(self, callback: Callable[[BaseException], None]) -> None:
        """Do nothing, because it never fails."""
