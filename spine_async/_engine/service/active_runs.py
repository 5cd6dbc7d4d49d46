"""Tracks the active runs of a runner; closes the store after the last one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager

import anyio

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.binding import Binding
from spine_async._engine.service.execution import Execution, ExecutionResult
from spine_async._engine.service.left_behind import wait_released
from spine_async._engine.service.watcher import CHECK_INTERVAL, Watcher
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.run import Run
from spine_async._engine.tasks import (
    EventLoop,
    Future,
    Task,
    end_task,
    mark_retrieved,
    new_future,
    run_shielded,
    spawn,
    wait_any,
)
from spine_async._model.failure import describe
from spine_async.errors import RunBusyError, StoreError
from spine_async.ports import is_closable

_log = logging.getLogger("spine_async")

_MARGIN = 8 * CHECK_INTERVAL  # seconds in which the watcher finds stuck steps, and the run's end is committed


class ActiveRuns:
    """The runs that a runner executes, and the use of its store.

    The store is open while any run is active or left behind, or while the runner is entered with `async with`.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._binding = Binding(runtime)
        runtime.is_left_at_work = lambda run_id: run_id in self._left_at_work()
        self._users = 0
        self._executions: dict[str, Execution] = {}
        self._runs: dict[str, Run] = {}
        # Optional method of a store, not part of the port.
        self._check_caller: Callable[[], Awaitable[None]] | None = getattr(runtime.store, "check_caller", None)
        self._watcher: Watcher | None = None
        self._watching: set[Task[None]] = set()
        self._left: dict[str, Run] = {}
        self._keeping: set[Task[None]] = set()
        self._execution_ended: Future[None] | None = None
        self._drain_limits: list[anyio.CancelScope] = []

    @property
    def used_capacity(self) -> int:
        """Number of executions that use the capacity of the worker."""
        return sum(each.counts and not each.awaiting_steps for each in self._executions.values())

    @property
    def run_ids(self) -> set[str]:
        """The runs that this runner executes, and those whose steps or threads were left behind and are running."""
        return {*self._executions, *self._left_at_work()}

    @property
    def held(self) -> int:
        """Number of runs that are executed here or left behind; may be read in any thread."""
        return len(self._runs)

    @property
    def place(self) -> tuple[EventLoop, str] | None:
        """The event loop in which the runner is in use, and where its runs are stored; None if it is not in use.

        May be read in any thread.
        """
        return self._binding.place

    def session(self, *, is_within: bool = False) -> AbstractAsyncContextManager[None]:
        """Keep the store open inside the context.

        Entering raises `DefinitionError` if the call would wait for a transaction of its own task.

        Args:
            is_within: Whether the call writes in a transaction of the caller.
        """
        return _Session(self, None if is_within else self._check_caller)

    async def acquire(self) -> None:
        """Keep the store open until `release`.

        Raises:
            SharingError: The runner is in use in another event loop, or was when the process forked.
        """
        if self._binding.bind():
            self._forget_loop()
        self._users += 1
        try:
            if not self._binding.has_owner and (location := await self._binding.name_owner()) is not None:
                _log.info("runs are stored in %s", location)
        except BaseException:
            await self.release()
            raise

    async def open(self) -> None:
        """Open the store if it can be reached, and keep it open until `release`.

        Cancellation:
            The store is not kept open then.
        """
        await self.acquire()
        try:
            await self._runtime.store.open()
        except StoreError as exc:
            _log.warning("the store could not be opened; it will be retried at the next use: %s", exc)
        except BaseException:
            await self.release()
            raise

    async def release(self) -> None:
        """Close the store, unless it has other users."""
        self._users -= 1
        if self._users == 0:
            await run_shielded(self._close(), "spine_async close")

    def find(self, run_id: str) -> Execution | None:
        """The execution of the run in this runner, or None."""
        return self._executions.get(run_id)

    def begin(self, execution: Execution, work: Callable[[Execution], Awaitable[ExecutionResult]]) -> Execution:
        """Register an execution and start it; the store stays open until it has ended.

        Args:
            execution: The execution.
            work: Opens the run and executes it to its end.

        Raises:
            RunBusyError: This runner executes the run already.
        """
        if execution.run_id in self._executions:
            raise RunBusyError(execution.run_id, self._runtime.owner)
        self._executions[execution.run_id] = execution
        self._users += 1
        if self._runtime.is_draining:
            execution.cancel(CancelReason.SHUTDOWN)
        execution.task = spawn(self._execute(execution, work), f"spine_async execution {execution.run_id}")
        return execution

    def cancel(self, run_id: str, reason: CancelReason, text: str | None = None) -> bool:
        """Cancel the run if this runner executes it or is about to; returns whether it does."""
        execution = self._executions.get(run_id)
        if execution is not None:
            execution.cancel(reason, text)
        return execution is not None

    def watch(self, run: Run, execution: Execution) -> None:
        """Watch over the run until `leave`."""
        execution.attach(run)
        self._runs[run.run_id] = run
        if self._watcher is None or not self._watcher.is_watching:
            self._watcher = Watcher(self._runtime, self._runs)
            task = spawn(self._watcher.watch(), "spine_async watcher")
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)

    def leave(self, run: Run) -> None:
        """Stop watching over a run whose execution has ended; if it was left behind, when it is released."""
        if run.is_at_work and run.pending.end is None:
            self._left = {**self._left_at_work(), run.run_id: run}
        if run.left_task is None:
            self._unwatch(run)
            return
        self._users += 1
        task = spawn(self._keep(run), f"spine_async lease of {run.run_id}")
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        task.add_done_callback(mark_retrieved)

    def _left_at_work(self) -> dict[str, Run]:
        """Runs that keep their owner because they are still running, also those of an event loop that has ended."""
        return {run_id: run for run_id, run in self._left.items() if run.is_at_work}

    async def _keep(self, run: Run) -> None:
        try:
            await wait_released(self._runtime, run)
        finally:
            self._unwatch(run)
            self._left = self._left_at_work()
            self._runtime.changes.notify(Change.STATE)
            self._runtime.changes.notify(Change.WORK)
            await self.release()

    def _unwatch(self, run: Run) -> None:
        if self._runs.get(run.run_id) is run:  # else it is executed here again
            del self._runs[run.run_id]
        run.idleness.on_idle = None  # a reference cycle with the execution, which only the garbage collector would end

    def begin_drain(self) -> anyio.CancelScope:
        """Let no further step begin until `drain`, which must follow, has ended; returns its argument."""
        limit = anyio.CancelScope()
        self._drain_limits.append(limit)
        self._runtime.is_draining = True
        return limit

    def cut_drain_short(self) -> None:
        """End the time that running steps have to finish, if the runs are being drained."""
        for limit in self._drain_limits:
            limit.cancel()

    async def drain(self, limit: anyio.CancelScope) -> None:
        """Let running steps finish for `drain_timeout`, cancel the remaining runs, and wait until all are recorded."""
        try:
            if self._executions:
                await run_shielded(self._drain(limit), "spine_async drain")
        finally:
            self._drain_limits.remove(limit)
            self._runtime.is_draining = bool(self._drain_limits)  # somebody may have entered and left it meanwhile

    async def _execute(
        self, execution: Execution, work: Callable[[Execution], Awaitable[ExecutionResult]]
    ) -> ExecutionResult:
        try:
            return await work(execution)
        finally:
            del self._executions[execution.run_id]
            execution.opened.set()
            self._notify_end(execution)
            if self._execution_ended is not None and not self._execution_ended.done():
                self._execution_ended.set_result(None)
            await self.release()

    def _notify_end(self, execution: Execution) -> None:
        changes = self._runtime.changes
        changes.notify(Change.STATE)
        if execution.counts or execution.was_released or execution.uses_slot:
            changes.notify(Change.WORK)

    def _forget_loop(self) -> None:
        """Drop what belongs to an event loop that is closed."""
        self._users, self._watcher, self._execution_ended = 0, None, None
        self._watching.clear()
        self._keeping.clear()
        self._executions.clear()
        self._runs.clear()
        self._runtime.running_visits.clear()
        self._runtime.releases.clear()
        self._runtime.journal.forget_loop()
        self._runtime.forget_loop()

    async def _drain(self, limit: anyio.CancelScope) -> None:
        config = self._runtime.config
        remaining = list(self._executions.values())  # executions that begin later are cancelled at once
        for execution in remaining:
            execution.drain()
        with limit:
            limit.deadline = anyio.current_time() + config.drain_timeout
            await self._wait_for(remaining)
        for execution in remaining:
            execution.cancel(CancelReason.SHUTDOWN)
        with anyio.move_on_after(config.cancel_grace + _MARGIN):
            await self._wait_for(remaining)

    async def _wait_for(self, executions: Collection[Execution]) -> None:
        while any(self._executions.get(each.run_id) is each for each in executions):
            if self._execution_ended is None or self._execution_ended.done():
                self._execution_ended = new_future()  # shared by exits at the same time
            await wait_any(self._execution_ended)

    async def _close(self) -> None:
        self._watcher = None  # before the first await: a run that begins meanwhile gets a watcher of its own
        for task in list(self._watching):
            await end_task(task)
        if self._users == 0:
            for release in list(self._runtime.releases):
                await end_task(release)
        for end in self._runtime.before_close:
            if self._users == 0:
                await end()
        if self._users == 0:
            await self._runtime.journal.end_retries()
        if self._users == 0:
            await self._close_dispatcher()
        if self._users == 0:
            try:
                await self._runtime.store.close()
            finally:
                if self._users == 0:
                    self._runtime.forget_loop()
                    self._binding.end()

    async def _close_dispatcher(self) -> None:
        dispatcher = self._runtime.dispatcher
        if not is_closable(dispatcher):
            return
        try:
            await dispatcher.close()
        except Exception as exc:  # noqa: BLE001 - it may be the user's own; the store must be closed all the same
            _log.warning("the dispatcher could not be closed: %s", describe(exc))


class _Session(AbstractAsyncContextManager[None]):
    def __init__(self, active_runs: ActiveRuns, check: Callable[[], Awaitable[None]] | None) -> None:
        self._active_runs = active_runs
        self._check = check

    async def __aenter__(self) -> None:
        if self._check is not None:
            await self._check()
        await self._active_runs.acquire()

    async def __aexit__(self, *_: object) -> None:
        await self._active_runs.release()
