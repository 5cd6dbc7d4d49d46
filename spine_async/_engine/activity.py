"""When a runner is at work: which runs it executes, and when it may let go of its store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Self

import anyio
from anyio import to_thread

from spine_async._engine.background import Promise, Task, attend_either, new_promise, run_through, spawn
from spine_async._engine.background import end as end_task
from spine_async._engine.engine import Engine
from spine_async._engine.interruption import CancelReason
from spine_async._engine.ownership import new_owner
from spine_async._engine.scope import Run
from spine_async._engine.watcher import LOOK_EVERY, Watcher
from spine_async.errors import RunBusyError

_MARGIN = 8 * LOOK_EVERY  # seconds for the watcher to find what is stuck, and for the end to be committed


class Activity:
    """The runs at work in one runner.

    While any are, the store is open; when the last is over it is closed, unless the runner is held open by `async
    with`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._holders = 0
        self._executions: set[Execution] = set()
        self._runs: dict[str, Run] = {}
        self._reserved: set[str] = set()
        self._pid: int | None = None
        self._watcher: Task[None] | None = None
        self._idle: Promise[None] | None = None

    def running(self, run_id: str) -> Run | None:
        """The run, if it is at work here."""
        return self._runs.get(run_id)

    @property
    def reserved_ids(self) -> frozenset[str]:
        """Runs that somebody in this runner executes or is about to."""
        return frozenset(self._reserved)

    def session(self) -> AbstractAsyncContextManager[None]:
        """Keep the store open meanwhile."""
        return _Session(self)

    async def hold(self) -> None:
        """Keep the store open until `let_go`."""
        if self._pid != os.getpid():
            await self._identify()
        self._holders += 1

    async def let_go(self) -> None:
        """Close the store where nobody else holds it open."""
        self._holders -= 1
        if self._holders == 0:
            await run_through(self._close(), "spine_async close")

    @contextmanager
    def reserved(self, run_id: str) -> Iterator[None]:
        """Nobody else in this runner executes the run meanwhile.

        Raises:
            RunBusyError: Somebody does already.
        """
        if run_id in self._reserved:
            raise RunBusyError(run_id, self._engine.owner)
        self._reserved.add(run_id)
        try:
            yield
        finally:
            self._reserved.discard(run_id)

    def execution(self) -> Execution:
        """One `execute` or `resume`, from its first word to its result; the store is open meanwhile."""
        return Execution(self)

    def begin(self, execution: Execution) -> None:
        """Who leaves the runner waits for it from now on."""
        execution.is_left = self._engine.is_draining
        self._executions.add(execution)

    def end(self, execution: Execution) -> None:
        """It has its result."""
        self._executions.discard(execution)
        if not self._executions and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def watch(self, run: Run, execution: Execution) -> None:
        """Look after the run until `unwatch`."""
        if execution.is_left:  # the runner was left while the run was being opened
            run.interruption.request(CancelReason.SHUTDOWN, self._engine.clock.monotonic())
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
        for execution in self._executions:
            execution.is_left = True
        try:
            with anyio.move_on_after(engine.config.drain_timeout):
                await self._until_idle()
            for run in self._runs.values():
                run.interruption.request(CancelReason.SHUTDOWN, engine.clock.monotonic())
            with anyio.move_on_after(engine.config.cancel_grace + _MARGIN):
                await self._until_idle()
        finally:
            engine.is_draining = False

    async def _until_idle(self) -> None:
        while self._executions:
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
    """One `execute` or `resume` under way.

    Attributes:
        is_left: Whether the runner has been left meanwhile; a run that begins after that is stopped at once.
    """

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self.is_left = False

    async def __aenter__(self) -> Self:
        await self._activity.hold()
        self._activity.begin(self)
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
