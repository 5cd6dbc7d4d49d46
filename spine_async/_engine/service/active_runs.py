"""When a runner is at work: which runs it executes, and when it may let go of its store."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Self

import anyio
from anyio import to_thread

from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.service.watcher import LOOK_EVERY, Watcher
from spine_async._engine.start.owner import new_owner
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.scope import Run
from spine_async._engine.tasks import Promise, Task, attend_either, new_promise, run_through, spawn
from spine_async._engine.tasks import end as end_task
from spine_async.errors import RunBusyError, StoreError

_log = logging.getLogger("spine_async")

_MARGIN = 8 * LOOK_EVERY  # seconds for the watcher to find what is stuck, and for the end to be committed


class Activity:
    """The runs at work in one runner.

    While any are, the store is open; when the last is over it is closed, unless the runner is held open by `async
    with`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._holders = 0
        self._executions: dict[str, Execution] = {}
        self._runs: dict[str, Run] = {}
        self._pid: int | None = None
        self._watcher: Task[None] | None = None
        self._idle: Promise[None] | None = None

    @property
    def reserved_ids(self) -> frozenset[str]:
        """Runs that somebody in this runner executes or is about to."""
        return frozenset(self._executions)

    def session(self) -> AbstractAsyncContextManager[None]:
        """Keep the store open meanwhile."""
        return _Session(self)

    async def hold(self) -> None:
        """Keep the store open until `let_go`."""
        if self._pid != os.getpid():
            await self._identify()
        self._holders += 1

    async def open(self) -> None:
        """Open the store if it can be reached, and keep it open until `let_go`.

        Cancellation:
            Nothing is held then.
        """
        await self.hold()
        try:
            await self._engine.store.open()
        except StoreError as exc:
            _log.warning("the store could not be opened, which will be tried again when it is used: %s", exc)
        except BaseException:
            await self.let_go()
            raise

    async def let_go(self) -> None:
        """Close the store where nobody else holds it open."""
        self._holders -= 1
        if self._holders == 0:
            await run_through(self._close(), "spine_async close")

    def execution(self, run_id: str) -> Execution:
        """One `execute` or `resume` of the run, from its first word to its result; the store is open meanwhile.

        Raises:
            RunBusyError: When it is entered while there is another of the same run in this runner.
        """
        return Execution(self, run_id)

    def begin(self, execution: Execution) -> None:
        """Nobody else in this runner executes the run until `end`."""
        if execution.run_id in self._executions:
            raise RunBusyError(execution.run_id, self._engine.owner)
        self._executions[execution.run_id] = execution
        if self._engine.is_draining:
            execution.interrupt(CancelReason.SHUTDOWN)

    def end(self, execution: Execution) -> None:
        """It has its result."""
        del self._executions[execution.run_id]
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def interrupt(self, run_id: str, reason: CancelReason, text: str | None = None) -> bool:
        """Interrupt the run where it is at work here, or as soon as it is; whether it is."""
        execution = self._executions.get(run_id)
        if execution is not None:
            execution.interrupt(reason, text)
        return execution is not None

    def watch(self, run: Run, execution: Execution) -> None:
        """Look after the run until `unwatch`."""
        execution.open(run)
        self._runs[run.run_id] = run
        if self._watcher is None or self._watcher.done():
            self._watcher = spawn(Watcher(self._engine, self._runs).watch(), "spine_async watcher")

    def unwatch(self, run: Run) -> None:
        """The run is over."""
        self._runs.pop(run.run_id, None)

    async def _identify(self) -> None:
        """Have a name as an owner. Whoever is first to have made one in this process decides for all."""
        owner = await run_through(to_thread.run_sync(new_owner), "spine_async identify")
        if self._pid != os.getpid():
            self._pid, self._engine.owner = os.getpid(), owner

    async def drain(self) -> None:
        """Let running steps finish for a while, then interrupt what is left, and wait until all runs are recorded."""
        if self._executions:
            await run_through(self._drain(), "spine_async drain")

    async def _drain(self) -> None:
        engine = self._engine
        engine.is_draining = True
        left = list(self._executions.values())  # those that begin after this are stopped at once, and not waited for
        try:
            for execution in left:
                execution.drain()
            with anyio.move_on_after(engine.config.drain_timeout):
                await self._until_over(left)
            for execution in left:
                execution.interrupt(CancelReason.SHUTDOWN)
            with anyio.move_on_after(engine.config.cancel_grace + _MARGIN):
                await self._until_over(left)
        finally:
            engine.is_draining = False

    async def _until_over(self, left: Collection[Execution]) -> None:
        while any(self._executions.get(each.run_id) is each for each in left):
            self._idle = new_promise()
            await attend_either(self._idle)

    async def _close(self) -> None:
        if self._watcher is not None:
            await end_task(self._watcher)
            self._watcher = None
        if self._holders == 0:
            await self._engine.store.close()
            self._engine.forget_loop()


class Execution(AbstractAsyncContextManager["Execution"]):
    """One `execute` or `resume` under way; what interrupts its run before there is one waits until there is."""

    def __init__(self, activity: Activity, run_id: str) -> None:
        self.run_id = run_id
        self._activity = activity
        self._run: Run | None = None
        self._pending: tuple[CancelReason, str | None] | None = None

    def open(self, run: Run) -> None:
        """The run is about to be at work."""
        self._run = run
        if self._pending is not None:
            self.interrupt(*self._pending)

    def interrupt(self, reason: CancelReason, text: str | None = None) -> None:
        """Interrupt the run, now or as soon as it is open; the first reason counts."""
        if self._run is not None:
            self._run.interruption.request(reason, self._run.clock.monotonic(), text)
        else:
            self._pending = self._pending or (reason, text)

    def drain(self) -> None:
        """The runner is being left: a run that is at work may go on for a while, one that is not begins no step."""
        if self._run is None:
            self.interrupt(CancelReason.SHUTDOWN)

    async def __aenter__(self) -> Self:
        await self._activity.hold()
        try:
            self._activity.begin(self)
        except RunBusyError:
            await self._activity.let_go()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._activity.end(self)
        await self._activity.let_go()


class _Session(AbstractAsyncContextManager[None]):
    def __init__(self, activity: Activity) -> None:
        self._activity = activity

    async def __aenter__(self) -> None:
        await self._activity.hold()

    async def __aexit__(self, *_: object) -> None:
        await self._activity.let_go()
