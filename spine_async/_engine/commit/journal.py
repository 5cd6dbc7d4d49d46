"""The only writer: commits the pending writes of all runs in groups, in a task that belongs to the runner.

Theory of operation: a run that has something to commit adds its pending writes to a queue and waits. If no writer task
is running, one is started. The writer takes everything in the queue, commits it in one call of the store, resumes the
waiters, and looks at the queue again; it ends when the queue is empty. So a lone run commits at once, and a busy runner
commits in groups of everything that was enqueued during the last commit. There is no timer, and no group size to tune.

If all waiters resumed at the same time, they would all be in the next group too, and the event loop would be idle while
that group is committed. Where the database works in another process, the waiters are therefore resumed in two halves:
one half executes steps while the writes of the other half are committed.

A group is bounded in bytes. If the store refuses a group, its members are written in smaller groups, so that a record
that cannot be stored fails only its own run (`isolation`).
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from spine_async._engine.commit.creation import Creation, CreationWriter
from spine_async._engine.commit.isolation import MAX_GROUP_BYTES, as_store_error, call_isolated
from spine_async._engine.commit.locked_changes import LockedChanges
from spine_async._engine.commit.recorder import OnCommit
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.tasks import (
    Future,
    Latch,
    PeriodicYield,
    resolve,
    retry_if_cancelled,
    spawn,
    wait_shielded,
    yield_to_loop,
)
from spine_async._model.run_change import RunChange
from spine_async._model.run_row import TOKEN_BYTES
from spine_async.errors import LeaseLostError, StoreError
from spine_async.ports import Clock, CommitOutcome, Measurements, NoMeasurements, RunStore

_COMMITTED = CommitOutcome.COMMITTED
_FEW = 32  # with fewer waiters, splitting a group costs more than it saves


class Journal:
    """Commits creations and pending writes of runs to a store.

    Args:
        store: Where they are stored.
        clock: Source of the times that are stored.
        commits_out_of_process: Whether the store commits in another process, as a database server does; then waiters
            are resumed in two halves.
        max_lock_wait: Seconds for which a commit waits if a transaction of another program has locked the run's row.
        measurements: Takes the durations and sizes of commits; None for nobody.

    Attributes:
        on_commit: Called after each commit of a change, or None.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        commits_out_of_process: bool = False,
        max_lock_wait: float = 15.0,
        measurements: Measurements | None = None,
    ) -> None:
        self.on_commit: OnCommit | None = None
        self._store = store
        self._measurements = measurements or NoMeasurements()
        self._locked = LockedChanges(store, max_lock_wait)
        self._creator = CreationWriter(store, clock, self._locked)
        self._commits_out_of_process = commits_out_of_process
        self._clock = clock
        self._queue: dict[PendingWrites, Latch] = {}
        self._writing: dict[PendingWrites, Latch] = {}  # what the writer commits at the moment
        self._creations: list[Creation] = []
        self._writer: Future[None] | None = None
        self._yield = PeriodicYield()
        self._commit_seconds = 0.0  # duration of the last commit
        self._resume_seconds = 0.0  # event-loop time per waiter, at the last resume

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

    async def create_all(self, creations: Sequence[Creation]) -> None:
        """Store new runs, in groups; as `create`, and raises the first error after all were tried."""
        self._creations += creations
        self._start_writer()
        error: CommitFailed | None = None
        for creation in creations:
            try:
                await creation.done.wait()
            except CommitFailed as exc:
                error = error or exc
        if error is not None:
            raise error

    def commit(self, pending: PendingWrites) -> Awaitable[None]:
        """Commit the pending writes of a run, together with everything else in the queue.

        Raises:
            CommitFailed: The run has another owner, or the store failed.

        Cancellation:
            Raised only after the commit has ended, so the pending writes are committed.
        """
        return self.enqueue(pending).wait()

    def enqueue(self, pending: PendingWrites) -> Latch:
        """Add pending writes to the queue; the latch is set when their commit ends, or fails with its error."""
        latch = self._queue.get(pending)
        if latch is None:
            if self._locked.latches and (later := self._locked.later(pending)) is not None:
                return later
            latch = self._queue[pending] = Latch()
            if self._writer is None or self._writer.done():
                self._start_writer()
        return latch

    def defer(self) -> Awaitable[None]:
        """Leave the pending writes for a later commit; yields to the event loop now and then."""
        return self._yield()

    @asynccontextmanager
    async def reserved(self, pending: PendingWrites) -> AsyncIterator[None]:
        """Commit nothing of a run inside the context; what it enqueues meanwhile is committed afterwards.

        Raises:
            CommitFailed: An earlier commit of the run failed.
        """
        while (latch := self._latest(pending)) is not None:
            await latch.future()
            if latch.error is not None:
                raise latch.error
        self._locked.reserve(pending)
        try:
            yield
        finally:
            later = self._locked.remove(pending)
            if later is not None:
                self._queue[pending] = later
                self._start_writer()

    def committed(self, pending: PendingWrites, change: RunChange) -> None:
        """Take note that the caller has committed a change inside of `reserved`."""
        pending.committed(change)
        if self.on_commit is not None:
            self.on_commit(change)

    def _latest(self, pending: PendingWrites) -> Latch | None:
        """The latch of the last commit of a run that has not ended, or has failed; None if there is none.

        A commit of the writer may have ended while it commits later groups of its queue.
        """
        latch = self._queue.get(pending) or self._locked.later(pending) or self._writing.get(pending)
        has_ended = latch is not None and latch.is_set and latch.error is None
        return None if has_ended else latch

    async def end_retries(self) -> None:
        """Give up the locked changes of runs that are not executed any more, before the store is closed."""
        if await self._locked.end() and self._writer is not None:
            await wait_shielded(self._writer)  # writes of these runs that waited for the locked changes

    def forget_loop(self) -> None:
        """Drop the queue and the writer of an event loop that is closed."""
        self._creations, self._queue, self._writer, self._writing = [], {}, None, {}
        self._locked.clear()

    def _start_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = spawn(self._write(), "spine_async journal")
            self._writer.add_done_callback(self._restart_writer)

    def _restart_writer(self, writer: Future[None]) -> None:
        """Start another writer if this one was cancelled before it began, as in a loop that is shutting down."""
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
        queue, self._queue = self._queue, {}
        self._writing = queue
        try:
            if self._creations:
                waiters = await self._create_queued()
            if queue:
                resolve(waiters)
                waiters = []
                waiters = await self._commit(queue)
        except BaseException as exc:
            for pending in queue:
                pending.restore()
            error = CommitFailed(as_store_error(exc))
            for latch in queue.values():
                latch.set(error)
            if not isinstance(exc, Exception):
                resolve(waiters)
                raise
        finally:
            self._writing = {}
        return waiters

    def _create_queued(self) -> Awaitable[list[Future[None]]]:
        """Create the queued runs; returns the futures of the last waiters."""
        creations, self._creations = self._creations, []
        return self._creator.write(creations)

    async def _commit(self, queue: dict[PendingWrites, Latch]) -> list[Future[None]]:
        """Commit the changes in the queue, in groups of bounded size; returns the futures of the last waiters."""
        left = {pending: pending.entry_count for pending in queue}
        while True:
            over = _release_over(queue, left)
            if not left:
                return over
            resolve(over)
            group = self._drain(left)
            began = time.perf_counter()
            # A change that the store refuses does not affect the others.
            outcomes = await call_isolated(partial(retry_if_cancelled, self._store.commit), list(group.values()))
            self._commit_seconds = time.perf_counter() - began
            self._measurements.committed(self._commit_seconds, len(group))
            waiters = self._settle(queue, left, group, outcomes)
            if not left:
                return waiters
            resolve(waiters)
            # Runs with little to write do not wait for the rest of a run that has much.
            resolve(await self._create_queued())
            for pending in [each for each in self._queue if each not in left]:
                queue[pending] = self._queue.pop(pending)
                left[pending] = pending.entry_count

    def _settle(
        self,
        queue: dict[PendingWrites, Latch],
        left: dict[PendingWrites, int],
        group: dict[PendingWrites, RunChange],
        outcomes: Sequence[CommitOutcome | StoreError],
    ) -> list[Future[None]]:
        """End a group; removes from `left` the changes that were written completely, refused or locked."""
        waiters: list[Future[None]] = []
        on_commit = self.on_commit
        for (pending, change), outcome in zip(group.items(), outcomes, strict=True):
            remaining = left.pop(pending)
            if outcome is _COMMITTED:
                pending.committed(change)
                if on_commit is not None:
                    on_commit(change)
                if remaining > 0:
                    left[pending] = remaining  # moved to the end of the queue
                else:
                    waiters += queue[pending].release()
            elif outcome is CommitOutcome.LOCKED:
                # Changes that the run has enqueued during this commit wait too, so that they stay in order.
                settle = partial(self._settle_locked, pending, queue.pop(pending), change, remaining)
                self._locked.add(pending, change, self._queue.pop(pending, None), settle)
            else:
                waiters += _release_failed(pending, queue[pending], change, outcome)
        return waiters

    def _settle_locked(
        self,
        pending: PendingWrites,
        latch: Latch,
        change: RunChange,
        remaining: int,
        outcome: CommitOutcome | BaseException,
    ) -> None:
        """End the commit of a change whose row was locked, and enqueue the writes that the run has added since.

        Args:
            pending: The writes of the run.
            latch: The latch of the commit.
            change: The change.
            remaining: How many entries of the same commit are not drained, because the change is bounded in size.
            outcome: The outcome of the change, or its error.
        """
        if not self._locked.contains(pending):
            return  # its event loop was closed
        later = self._locked.remove(pending)
        if outcome is not CommitOutcome.COMMITTED:
            resolve(_release_failed(pending, latch, change, outcome))
        else:
            pending.committed(change)
            if self.on_commit is not None:
                self.on_commit(change)
            if remaining == 0:
                latch.set()
            else:  # the next commit contains the rest and the writes that were added since
                if later is not None:
                    latch.chain(later)
                later = latch
        if later is not None:
            self._queue[pending] = later
            self._start_writer()

    def _drain(self, left: dict[PendingWrites, int]) -> dict[PendingWrites, RunChange]:
        """The changes of the next group; subtracts from `left` the number of entries that they contain."""
        at, token = self._clock.now(), os.urandom(TOKEN_BYTES).hex()
        changes: dict[PendingWrites, RunChange] = {}
        free = MAX_GROUP_BYTES
        for pending in left:
            if free <= 0:
                break
            change = changes[pending] = pending.drain(at, token, free)
            left[pending] -= pending.drained_count
            free -= change.size
        return changes


def _release_over(queue: dict[PendingWrites, Latch], left: dict[PendingWrites, int]) -> list[Future[None]]:
    """Remove runs whose end was committed with an earlier group; another change with their end would be refused.

    Where a commit has several groups, one of them may contain what was enqueued for the next commit.
    """
    waiters: list[Future[None]] = []
    for pending in [each for each in left if each.is_over]:
        del left[pending]
        waiters += queue[pending].release()
    return waiters


def _release_failed(
    pending: PendingWrites, latch: Latch, change: RunChange, outcome: CommitOutcome | BaseException
) -> list[Future[None]]:
    pending.restore()
    error = as_store_error(outcome) if isinstance(outcome, BaseException) else LeaseLostError(change.run_id)
    return latch.release(CommitFailed(error))
