"""Executes the scopes inside a step, such as the items of a map, in a bounded pool of workers.

A worker takes an entry only when it is free, so there are never more tasks than the limit, and no entries are read
ahead. If the number of entries is not known, a worker is added only when an entry arrives and no worker waits for one.

Each entry is a scope of its own that adds to the run's pending writes. Finished scopes are committed one by one.

While a finished scope is being committed, its worker executes the next one. It begins no third one before the first one
is stored. So commits do not delay the workers, and a crash repeats at most two scopes per worker. A single worker waits
for each commit, so that each item of a sequential map is stored before the next one begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel

from spine_async._engine.commit.recorder import Commit
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.interrupts import Draining, RunInterrupt, StopRequested, TaskCancelled
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.state.task_scopes import restore_scopes, scopes_of
from spine_async._engine.tasks import (
    CANCELLATION,
    STRAY_CANCELLATION,
    current_task,
    is_scope_cancelled,
    is_stray_cancellation,
)
from spine_async._model.status import RunStatus
from spine_async._model.step_result import StepResult
from spine_async.errors import StepError

EntryT = TypeVar("EntryT")


class Pool(ABC, Generic[EntryT]):
    """The workers of one attempt of a step.

    Args:
        runtime: What all runs share.
        visit: The visit of the step.
        limit: Maximum number of workers.
    """

    def __init__(self, runtime: Runtime, visit: Visit, limit: int) -> None:
        self._runtime = runtime
        self._visit = visit
        self._limit = limit
        self._tasks = anyio.create_task_group()
        self._is_single = limit == 1 or self._total() == 1
        self._workers = 0
        self._waiting_workers = 0
        self._counted_workers = 0
        self._newest: Commit | None = None
        self._interrupt: BaseException | None = None

    @abstractmethod
    def _total(self) -> int | None:
        """Number of all entries, or None while it is unknown."""

    @abstractmethod
    async def _next_entry(self) -> EntryT | None:
        """The next entry, or None when there are no more."""

    @abstractmethod
    async def _run_entry(self, entry: EntryT) -> Commit | None:
        """Run one entry to its end; returns the commit that stores it, if a worker has to wait for one."""

    @abstractmethod
    def _ending(self) -> StepResult | None:
        """The result of the step, if it is decided before all entries have ended; else None."""

    async def _prepare(self) -> None:
        """Prepare the entries, before the first one begins."""

    async def _close(self) -> None:
        """Release what the entries hold, after the last worker has ended."""

    async def run(self) -> None:
        """Run all entries; returns early if the result is decided earlier."""
        try:
            await self._prepare()
            if self._ending() is None:
                await self._run_workers()
        except RunInterrupt as exc:
            self._interrupt = exc
        finally:
            # All workers have ended; a retry of the step starts new ones.
            self._visit.cancelled_mono = self._visit.ending = None
            if self._newest is not None:
                await self._newest.wait_shielded()  # nothing may be in flight when the run continues or ends
            await self._close()
        if isinstance(self._interrupt, _INTERRUPTS):
            await self._visit.interrupt(self._interrupt)
        if self._interrupt is not None:
            raise self._interrupt

    async def _run_workers(self) -> None:
        idleness = self._visit.run.idleness
        idleness.begin_task()  # until the workers count: the run is not idle meanwhile
        try:
            with idleness.waiting_for_tasks():
                async with self._tasks:
                    for _ in range(self._workers_needed()):
                        self._start_worker()
                    idleness.end_task()
        finally:
            for _ in range(self._counted_workers):  # those that were cancelled before they began
                idleness.end_task()
            self._counted_workers = 0

    def _workers_needed(self) -> int:
        total = self._total()
        return 1 if total is None else min(self._limit, total)

    def _start_worker(self) -> None:
        self._workers += 1
        self._waiting_workers += 1
        self._counted_workers += 1
        self._visit.run.idleness.begin_task()
        self._tasks.start_soon(self._work, name=f"{self._visit.path} worker {self._workers - 1}")

    def _add_worker(self) -> None:
        """Start a worker that waits for the next entry, if none waits and more are allowed."""
        if not self._waiting_workers and self._workers < self._limit:
            self._start_worker()

    async def _work(self) -> None:
        scopes = scopes_of(current_task())
        innermost = scopes.cancel_scope
        try:
            await self._take_entries(scopes)
        except Draining as exc:  # each of the other workers raises it too when its step has ended
            self._interrupt = self._interrupt or exc
        except CANCELLATION:
            if scopes.cancel_scope is not innermost:
                restore_scopes(scopes, innermost)
                self._abort(self._open_scope_error())
            if is_scope_cancelled():
                raise
            # Nobody cancelled the step, but the task group would treat this as its own cancellation and end normally.
            self._abort(StepError(STRAY_CANCELLATION) if is_stray_cancellation() else TaskCancelled())
            raise
        except BaseException as exc:  # noqa: BLE001 - raised again by `run`
            self._abort(exc)
        finally:
            self._counted_workers -= 1
            self._visit.run.idleness.end_task()

    async def _take_entries(self, scopes: Any) -> None:
        previous, innermost = None, scopes.cancel_scope
        while (entry := await self._next()) is not None:
            if scopes.cancel_scope is not innermost and not self._is_single:
                restore_scopes(scopes, innermost)
                raise self._open_scope_error()
            self._waiting_workers -= 1
            if self._total() is None:
                self._add_worker()
            commit = await self._run_entry(entry)
            ending = self._ending()
            if ending is not None:
                self._cancel_scopes(ending)
                return
            await _wait_for(previous)
            if commit is not None and self._is_single:
                await commit.wait()
            previous = commit
            self._waiting_workers += 1
        await _wait_for(previous)

    async def _next(self) -> EntryT | None:
        if self._runtime.is_draining:
            raise Draining
        if self._tasks.cancel_scope.cancel_called:
            await anyio.lowlevel.checkpoint_if_cancelled()  # no entry begins after one that ended the step
        running, task = self._runtime.running_visits, current_task()
        running[task] = self._visit  # user code gives the items; if it blocks the event loop, it is this step that does
        try:
            return await self._next_entry()
        finally:
            del running[task]

    def _open_scope_error(self) -> StepError:
        return StepError(
            f"the items of step {self._visit.step.name!r} are yielded inside a cancel scope or task group of anyio; "
            "leave it before each item, because several tasks read the items",
            category="CONFIGURATION",
        )

    def _abort(self, error: BaseException) -> None:
        # Raised after the task group has ended, so that it is not wrapped in an exception group.
        self._interrupt = self._interrupt or error
        self._cancel_scopes(error)

    def _cancel_scopes(self, ending: StepResult | BaseException) -> None:
        # The result first: a worker thread that sees the time of the cancellation reads its reason there.
        if self._visit.ending is None or isinstance(ending, RunInterrupt):
            self._visit.ending = ending
        if self._visit.cancelled_mono is None:
            self._visit.cancelled_mono = self._runtime.clock.monotonic()
        self._tasks.cancel_scope.cancel()

    def _enqueue(self) -> Commit:
        commit = self._runtime.journal.enqueue(self._visit.run.pending)
        if commit is not self._newest:  # all workers share it
            self._newest = commit
            commit.add_error_callback(self._abort)
        return commit

    def _close_scope(self, scope: Scope) -> None:
        """Forget a scope that no attempt will continue."""
        self._visit.scope.open_scopes.pop(scope.path, None)


_INTERRUPTS = (RunInterrupt, SystemExit, KeyboardInterrupt)
"""What ends the run. The step fails with anything else, also with a `BaseException` that is the user's own."""


def is_completed(outcome: Outcome) -> bool:
    """Whether the steps of a scope succeeded.

    Raises:
        StopRequested: One of them requested that the whole run stops.
    """
    if outcome.status is RunStatus.STOPPED:
        raise StopRequested(outcome.stop_reason or "")
    return outcome.status is RunStatus.COMPLETED


async def _wait_for(commit: Commit | None) -> None:
    """Wait for the commit of the previous entry."""
    if commit is None or commit.is_set:
        await anyio.lowlevel.checkpoint_if_cancelled()  # a worker that never suspends could not be cancelled otherwise
    if commit is not None:
        await commit.wait()
