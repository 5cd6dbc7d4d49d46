"""The only writer: commits the settled steps of all runs in groups, in a task that belongs to the runner.

Theory of operation: a run that has something to commit adds its pending writes to a queue and waits. If no writer task
is running, one is started. The writer takes everything in the queue, commits it in one call of the store, resumes the
waiters, and looks at the queue again; it ends when the queue is empty. So a lone run commits at once, and a busy runner
commits in groups as large as what settled during the last commit. There is no timer, and no group size to tune.

If all waiters resumed at the same time, they would all be in the next group too, and the event loop would be idle while
that group is committed. Where the database works in another process, the waiters are therefore resumed in two halves:
one half executes steps while the writes of the other half are committed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from secrets import token_hex
from typing import Protocol

import anyio.lowlevel

from spine_async._engine.commit.locked_changes import LockedChanges
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.tasks import (
    Future,
    Latch,
    resolve,
    retry_if_cancelled,
    spawn,
    yield_to_loop,
)
from spine_async._model.record import TOKEN_BYTES, Claim, NewRun, RunChange
from spine_async.errors import LeaseLostError, SpineError, StoreError, StoreUnavailableError
from spine_async.ports import Clock, CommitOutcome, RunStore

_FEW = 32  # below so many waiters, splitting a group costs more than it saves
_YIELD_EVERY = 0.001  # seconds that steps which never suspend may keep the event loop to themselves


class Recorder(Protocol):
    """Creates runs and commits their pending writes."""

    async def create(self, creation: Creation) -> None: ...

    def commit(self, pending: PendingWrites) -> Awaitable[None]: ...

    def enqueue(self, pending: PendingWrites) -> Commit: ...

    def defer(self) -> Awaitable[None]:
        """Leave what was added for a later commit; yields to the event loop now and then."""
        ...


class Commit(Protocol):
    """A commit that was enqueued."""

    def wait(self) -> Awaitable[None]:
        """Wait until it has ended; raises as `Journal.commit` does."""
        ...

    @property
    def is_set(self) -> bool:
        """Whether it has ended, so that `wait` returns at once."""
        ...

    async def wait_shielded(self) -> None:
        """Wait until it has ended, even if the caller is cancelled; never raises."""
        ...

    def add_error_callback(self, callback: Callable[[BaseException], None]) -> None:
        """Call `callback` with the error if it fails."""
        ...


class Creation:
    """A run that is to be created.

    Attributes:
        claim: The claim to commit to it, once it is stored; None if its id is taken.
    """

    def __init__(self, run: NewRun) -> None:
        self.run = run
        self.claim: Claim | None = None
        self.done = Latch()


class Journal:
    """Commits creations and pending writes of runs to a store.

    Args:
        store: Where they are stored.
        clock: Source of the times that are stored.
        commits_out_of_process: Whether the store commits in another process, as a database server does; then waiters
            are resumed in two halves.
        max_lock_wait: Seconds for which a run waits for a transaction of others that has locked its row.
    """

    def __init__(
        self, store: RunStore, clock: Clock, *, commits_out_of_process: bool = False, max_lock_wait: float = 15.0
    ) -> None:
        self._store = store
        self._locked = LockedChanges(store, max_lock_wait)
        self._commits_out_of_process = commits_out_of_process
        self._clock = clock
        self._queue: dict[PendingWrites, Latch] = {}
        self._creations: list[Creation] = []
        self._writer: Future[None] | None = None
        self._yield = PeriodicYield()
        self._commit_seconds = 0.0  # duration of the last commit
        self._resume_seconds = 0.0  # time on the event loop per waiter that was resumed last

    async def create(self, creation: Creation) -> None:
        """Store a new run, and set `creation.claim`.

        Raises:
            CommitFailed: The store failed.

        Cancellation:
            Raised only after the store has answered; the run may have been created.
        """
        self._creations.append(creation)
        self._start_writer()
        await creation.done.wait()

    def commit(self, pending: PendingWrites) -> Awaitable[None]:
        """Commit the pending writes of a run, together with everything else in the queue.

        Raises:
            CommitFailed: The run has another owner, or the store failed.

        Cancellation:
            Raised only after the commit has ended; the pending writes are committed then.
        """
        return self.enqueue(pending).wait()

    def enqueue(self, pending: PendingWrites) -> Latch:
        """Add pending writes to the queue; the latch is set when their commit ends, or fails with its error."""
        latch = self._queue.get(pending)
        if latch is None:
            if self._locked and (later := self._locked.later(pending)) is not None:
                return later
            latch = self._queue[pending] = Latch()
            if self._writer is None or self._writer.done():
                self._start_writer()
        return latch

    def defer(self) -> Awaitable[None]:
        """Leave what was added for a later commit; yields to the event loop now and then."""
        return self._yield()

    def _start_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = spawn(self._write(), "spine_async journal")
            self._writer.add_done_callback(self._restart_writer)

    def _restart_writer(self, writer: Future[None]) -> None:
        """A loop that is shutting down may cancel the writer before it begins; the queue needs another one then."""
        if self._creations or self._queue:
            self._start_writer()

    async def _write(self) -> None:
        while self._creations or self._queue:
            waiters = await self._write_group()
            if self._queue:
                resolve(waiters)
            else:  # the waiters may enqueue their next step at once, so give them one iteration before the task ends
                await self._resume(waiters)

    async def _resume(self, waiters: list[Future[None]]) -> None:
        """Resume all waiters, or half of them, let them run, then resume the rest."""
        first = len(waiters) // 2 if self._should_split(len(waiters)) else len(waiters)
        began = time.perf_counter()
        resolve(waiters[:first])
        try:
            await yield_to_loop()
        finally:
            resolve(waiters[first:])
        self._resume_seconds = (time.perf_counter() - began) / max(1, first)

    def _should_split(self, count: int) -> bool:
        """Whether to commit the writes of one half while the other half executes steps."""
        if count < _FEW or not self._commits_out_of_process:
            return False
        return 2 * count * self._resume_seconds > self._commit_seconds

    async def _write_group(self) -> list[Future[None]]:
        """Write everything in the queue; returns the futures of the waiters."""
        waiters: list[Future[None]] = []
        creations, self._creations = self._creations, []
        queue, self._queue = self._queue, {}
        try:
            if creations:
                waiters = await self._create(creations)
            if queue:
                resolve(waiters)
                waiters = await self._commit(queue)
        except BaseException as exc:
            error = CommitFailed(_as_store_error(exc))
            for pending in queue:
                pending.restore()
            for latch in (*(each.done for each in creations), *queue.values()):
                latch.set(error)
            if not isinstance(exc, Exception):
                resolve(waiters)
                raise
        return waiters

    async def _create(self, creations: list[Creation]) -> list[Future[None]]:
        waiters: list[Future[None]] = []
        runs = [each.run for each in creations]
        sent_mono = self._clock.monotonic()
        claims = await retry_if_cancelled(self._store.create, runs)
        for creation, claim in zip(creations, claims, strict=True):
            creation.claim = claim
            if claim is not None:
                claim.lease_until_mono = sent_mono + creation.run.lease_ttl
            waiters += creation.done.release()
        return waiters

    async def _commit(self, queue: dict[PendingWrites, Latch]) -> list[Future[None]]:
        waiters: list[Future[None]] = []
        at, token = self._clock.now(), token_hex(TOKEN_BYTES)
        changes = [pending.drain(at, token) for pending in queue]
        began = time.perf_counter()
        outcomes = await self._outcomes(changes)
        self._commit_seconds = time.perf_counter() - began
        for (pending, latch), change, outcome in zip(queue.items(), changes, outcomes, strict=True):
            if outcome is CommitOutcome.COMMITTED:
                pending.committed(change)
                waiters += latch.release()
            elif outcome is CommitOutcome.LOCKED:
                self._locked.add(pending, change, partial(self._settle_locked, pending, latch, change))
            else:
                waiters += _release_failed(pending, latch, change, outcome)
        return waiters

    def _settle_locked(
        self, pending: PendingWrites, latch: Latch, change: RunChange, outcome: CommitOutcome | BaseException
    ) -> None:
        """End the commit of a change whose row was locked, and enqueue what the run has added meanwhile."""
        later = self._locked.remove(pending)
        if outcome is CommitOutcome.COMMITTED:
            pending.committed(change)
            latch.set()
        else:
            resolve(_release_failed(pending, latch, change, outcome))
        if later is not None:
            self._queue[pending] = later
            self._start_writer()

    async def _outcomes(self, changes: list[RunChange]) -> list[CommitOutcome | StoreError]:
        """The outcome of each change; a change that the store refuses does not affect the others."""
        try:
            return [*await retry_if_cancelled(self._store.commit, changes)]
        except StoreUnavailableError:
            raise
        except StoreError as exc:
            if len(changes) == 1:
                return [exc]
            return [outcome for change in changes for outcome in await self._outcomes([change])]


class PeriodicYield:
    """Yields to the event loop if it has not done so for a millisecond."""

    def __init__(self) -> None:
        self._yielded_mono = 0.0

    async def __call__(self) -> None:
        now = time.monotonic()
        if now - self._yielded_mono >= _YIELD_EVERY:
            self._yielded_mono = now
            await anyio.lowlevel.checkpoint()


def _release_failed(
    pending: PendingWrites, latch: Latch, change: RunChange, outcome: CommitOutcome | BaseException
) -> list[Future[None]]:
    pending.restore()
    error = _as_store_error(outcome) if isinstance(outcome, BaseException) else LeaseLostError(change.run_id)
    return latch.release(CommitFailed(error))


def _as_store_error(exc: BaseException) -> StoreError:
    if isinstance(exc, StoreError):
        return exc
    if isinstance(exc, SpineError):
        return StoreError(str(exc))
    error = StoreUnavailableError(f"the commit failed unexpectedly: {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error
