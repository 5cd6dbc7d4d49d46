"""Retries changes of runs whose rows are locked by another transaction, each by itself.

So only such a run waits, not the runs whose changes were in the same group. The identical change is sent again: an
earlier attempt of it, whose outcome is unknown, may be what holds the lock. The creation of a run whose id another
transaction is inserting or deleting is repeated in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import anyio

from spine_async._engine.commit.isolation import call_isolated, store_error
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.tasks import Latch, Task, end_task, retry_if_cancelled, spawn
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun
from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.ports import CommitOutcome, RunIdLockedError, RunStore

RecordT = TypeVar("RecordT")
AnswerT = TypeVar("AnswerT")

_MIN_DELAY, _MAX_DELAY = 0.05, 0.5

Settle: TypeAlias = "Callable[[CommitOutcome | BaseException], None]"


class LockedChanges:
    """The locked changes of a journal.

    Args:
        store: Where they are committed.
        max_wait: Seconds after which a change whose row is still locked fails.

    Attributes:
        latches: For each run that has a locked change, the latch of its next commit if one was enqueued, else None.
    """

    def __init__(self, store: RunStore, max_wait: float) -> None:
        self._store = store
        self._max_wait = max_wait
        self.latches: dict[PendingWrites, Latch | None] = {}
        self._tasks: set[Task[None]] = set()
        self._is_ending = False

    def contains(self, pending: PendingWrites) -> bool:
        """Whether a change of the run is locked."""
        return pending in self.latches

    def clear(self) -> None:
        """Forget all changes, whose event loop is closed."""
        self.latches.clear()
        self._tasks.clear()

    async def end(self) -> bool:
        """Give up the changes of runs that are not executed any more, so that none is sent after the store is closed.

        Returns:
            Whether there were any.
        """
        tasks, self._is_ending = list(self._tasks), True
        try:
            for task in tasks:
                await end_task(task)
        finally:
            self._is_ending = False
        return bool(tasks)

    def _spawn(self, work: Coroutine[Any, Any, None], run_id: str) -> None:
        task = spawn(work, f"spine_async locked run {run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def later(self, pending: PendingWrites) -> Latch | None:
        """The latch for the next commit of a run whose last change is locked; None if it is not."""
        if pending not in self.latches:
            return None
        latch = self.latches[pending]
        if latch is None:
            latch = self.latches[pending] = Latch()
        return latch

    def add(self, pending: PendingWrites, change: RunChange, later: Latch | None, settle: Settle) -> None:
        """Retry a change in a task of its own.

        Args:
            pending: The writes of the run. Nothing else of them may be committed before `settle` is called.
            change: The change.
            later: The latch of the run's next commit if one was enqueued, or None.
            settle: Is called with the outcome or the error.
        """
        self.latches[pending] = later
        self._spawn(self._retry(change, settle), change.run_id)

    def reserve(self, pending: PendingWrites) -> None:
        """Let the next commit of a run wait until `remove`, as if a change of it were locked."""
        self.latches[pending] = None

    def remove(self, pending: PendingWrites) -> Latch | None:
        """Forget a change whose outcome is known, or a reservation.

        Returns:
            The latch of the run's next commit if one was enqueued.
        """
        return self.latches.pop(pending, None)

    async def _retry(self, change: RunChange, settle: Settle) -> None:
        try:
            outcome = await self._outcome([change])
        except Exception as exc:  # noqa: BLE001 - the waiters receive it
            settle(exc)
        except BaseException as exc:
            settle(exc)
            raise
        else:
            settle(outcome)

    async def _outcome(self, changes: Sequence[RunChange]) -> CommitOutcome | StoreError:
        outcome, _ = await self._retried(self._store.commit, changes, lambda each: each is CommitOutcome.LOCKED)
        if outcome is not CommitOutcome.LOCKED:
            return outcome
        return StoreUnavailableError(
            f"run {changes[0].run_id!r}: another transaction has locked its row for more than {self._max_wait:g} s; "
            "find that transaction in the database, and end it"
        )

    def create_later(self, run: NewRun, settle: Callable[[Claim | StoreError | None, float], None]) -> None:
        """Repeat the creation of a run whose id is locked, in a task of its own.

        Args:
            run: The run.
            settle: Is called with the answer of the store, and how long the call took.
        """
        self._spawn(self._create(run, settle), run.run_id)

    async def _create(self, run: NewRun, settle: Callable[[Claim | StoreError | None, float], None]) -> None:
        answer: Claim | StoreError | None
        seconds = 0.0
        try:
            answer, seconds = await self._retried(
                self._store.create, [run], lambda each: isinstance(each, RunIdLockedError)
            )
        except Exception as exc:  # noqa: BLE001 - the waiters receive it
            answer = store_error(exc, "the creation failed")
        settle(answer, seconds)

    async def _retried(
        self,
        write: Callable[[Sequence[RecordT]], Coroutine[Any, Any, Sequence[AnswerT]]],
        records: Sequence[RecordT],
        is_locked: Callable[[AnswerT | StoreError], bool],
    ) -> tuple[AnswerT | StoreError, float]:
        """The answer for one record, and how long the call took; repeated while it is locked, but not for too long."""
        began, delay = time.monotonic(), _MIN_DELAY
        while True:
            await anyio.sleep(delay)
            sent = time.monotonic()
            is_in_time = sent - began < self._max_wait  # read before the attempt, so that one follows each pause
            (answer,) = await call_isolated(partial(retry_if_cancelled, write), records)
            if not is_locked(answer) or not is_in_time or self._is_ending:
                return answer, time.monotonic() - sent
            delay = min(2 * delay, _MAX_DELAY)
