"""Creates runs: what waits for a creation, and the calls of the store, in groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from spine_async._engine.commit.isolation import as_store_error, call_isolated, in_groups
from spine_async._engine.commit.locked_changes import LockedChanges
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.tasks import Future, Latch, resolve, retry_if_cancelled
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun
from spine_async.errors import StoreError
from spine_async.ports import Clock, RunIdLockedError, RunStore


class Creation:
    """A run that is to be created.

    Attributes:
        claim: The claim to commit to it, once it is stored; None if its id is taken.
    """

    def __init__(self, run: NewRun) -> None:
        self.run = run
        self.claim: Claim | None = None
        self.done = Latch()

    def end(self, answer: Claim | StoreError | None, sent_mono: float) -> list[Future[None]]:
        """Set the answer of the store to a call that was sent at that time; returns the futures of the waiters."""
        if isinstance(answer, StoreError):
            return self.done.release(CommitFailed(answer))
        self.claim = answer
        if answer is not None:
            answer.lease_until_mono = sent_mono + self.run.lease_ttl
        return self.done.release()


class CreationWriter:
    """Stores new runs for a journal.

    Args:
        store: Where they are stored.
        clock: Clock of the owner's leases.
        locked: Repeats the creations whose ids are locked.
    """

    def __init__(self, store: RunStore, clock: Clock, locked: LockedChanges) -> None:
        self._store = store
        self._clock = clock
        self._locked = locked

    async def write(self, creations: Sequence[Creation]) -> list[Future[None]]:
        """Create runs, in groups of bounded size; returns the futures of the last group's waiters."""
        waiters: list[Future[None]] = []
        try:
            for group in in_groups(creations, _size):
                resolve(waiters)
                waiters = []
                waiters = await self._create(group)
        except BaseException as exc:
            error = CommitFailed(as_store_error(exc))
            for creation in creations:
                creation.done.set(error)
            raise
        return waiters

    async def _create(self, creations: Sequence[Creation]) -> list[Future[None]]:
        waiters: list[Future[None]] = []
        runs = [each.run for each in creations]
        sent_mono = self._clock.monotonic()
        claims = await call_isolated(partial(retry_if_cancelled, self._store.create), runs)
        for creation, claim in zip(creations, claims, strict=True):
            if isinstance(claim, RunIdLockedError):
                self._locked.create_later(creation.run, partial(self._settle, creation))
            else:
                waiters += creation.end(claim, sent_mono)
        return waiters

    def _settle(self, creation: Creation, answer: Claim | StoreError | None, seconds: float) -> None:
        """End a creation whose id was locked; `seconds` is the duration of the last call of the store."""
        resolve(creation.end(answer, self._clock.monotonic() - seconds))


def _size(creation: Creation) -> int:
    return creation.run.size
