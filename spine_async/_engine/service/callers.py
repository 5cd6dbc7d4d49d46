"""Executes runs for callers. Several callers of one run share its execution."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import anyio

from spine_async._engine.run.supervision import execute_run
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.awaiting_step import check_own_queue, giving_way
from spine_async._engine.service.execution import Execution, ExecutionResult, log_if_failed
from spine_async._engine.service.known_workflows import add_workflow
from spine_async._engine.service.waits import CLAIM_PAUSE, Waits
from spine_async._engine.start.claim import NotClaimable
from spine_async._engine.start.continuation import claim_and_replay
from spine_async._engine.start.ended_run import load_result
from spine_async._engine.start.fork_request import ForkRequest, check_same_fork
from spine_async._engine.start.forking import open_fork
from spine_async._engine.start.opening import start_or_load
from spine_async._engine.start.request import Request, prepare_run
from spine_async._engine.start.stored_run import check_due, check_same, load
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.tasks import current_task, mark_retrieved, run_shielded, wait_any
from spine_async._model.run_row import StoredRun
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import (
    LeaseLostError,
    RunBusyError,
    RunConflictError,
    RunError,
    RunNotFoundError,
    StoreError,
)

_log = logging.getLogger("spine_async")


class Callers:
    """The calls of a runner that execute runs and wait for them.

    Args:
        runtime: What all runs share.
        active_runs: The runs that this runner executes.
        workflows: The known workflows by name; a call adds its own.
    """

    def __init__(self, runtime: Runtime, active_runs: ActiveRuns, workflows: MutableMapping[str, Workflow]) -> None:
        self._runtime = runtime
        self._active_runs = active_runs
        self._workflows = workflows
        self._waits = Waits(runtime)

    def execute(self, request: Request) -> Coroutine[Any, Any, WorkflowResult]:
        """The result of the run: of a new one, or of the stored one with its id, which is joined until it ends."""
        visit = self._runtime.running_visits.get(current_task())
        if visit is None:
            return self._execute(request, is_step=False)
        return self._execute_in_step(visit, request)

    async def _execute_in_step(self, visit: Visit, request: Request) -> WorkflowResult:
        async with giving_way(self._runtime, self._active_runs, visit, request.run_id):
            return await self._execute(request, is_step=True)

    async def _execute(self, request: Request, *, is_step: bool) -> WorkflowResult:
        while True:
            joined = self._active_runs.find(request.run_id)
            execution = joined or self._begin(request)
            try:
                async with execution.caller():
                    if joined is not None and not await self._joins(joined, self._check_of(request)):
                        continue
                    result = await execution.result()
            except NotClaimable:
                result = None
            except LeaseLostError:
                if joined is None:
                    raise
                result = None  # the call wants the end of the run, whoever executes it
            if result is None or execution.was_parked:
                await self._waits.until_claimable(request.run_id)
            elif is_step and execution.was_released:
                # The shutdown that released the run will cancel the step, unless another process ends the run first.
                await self._waits.until_ended(request.run_id)
            else:
                return result

    async def start(self, request: Request) -> None:
        """Store the run and execute it in the background; a stored one is executed here only if it is due."""
        while (joined := self._active_runs.find(request.run_id)) is not None:
            if await self._joins(joined, self._check_of(request)):
                return
        await self._when_open(self._begin(request, is_background=True))

    async def fork(self, definition: Callable[[StoredRun], Workflow], request: ForkRequest) -> None:
        """Store the fork of a run and execute it in the background; a stored one is executed here only if it is due."""
        stored = await load(self._runtime, request.source_id)
        workflow = definition(stored)

        async def check(forked: StoredRun) -> None:
            check_same_fork(request, forked)

        while (joined := self._active_runs.find(request.run_id)) is not None:
            if await self._joins(joined, check):
                return

        async def open_forked() -> Scope | WorkflowResult:
            opened = await open_fork(self._runtime, workflow, stored, request)
            add_workflow(self._workflows, workflow)
            return opened

        execution = Execution(self._runtime, request.run_id, is_background=True)
        await self._when_open(self._start(execution, open_forked))

    async def _when_open(self, execution: Execution) -> None:
        """Wait until the run is open, or raise the reason for which it cannot be opened."""
        await execution.opened.wait()
        task = execution.task
        if task is not None and task.done() and not isinstance(task.exception(), NotClaimable):
            task.result()

    async def resume(
        self, run_id: str, definition: Callable[[StoredRun], Workflow], override: Mapping[str, object] | None
    ) -> WorkflowResult:
        """Claim a stored run, and execute it to its end.

        A queued run that was never started waits until it is due, and every queued run until its queue has room.
        """
        await check_own_queue(self._runtime, run_id)

        opening = self._resumption(run_id, definition, override)
        while True:
            await self._until_free(run_id)
            execution = self._start(Execution(self._runtime, run_id), opening)
            try:
                async with execution.caller():
                    result = await execution.result()
            except NotClaimable as exc:
                if not exc.has_room:  # it may have ended, so there is nothing else to wait for
                    await anyio.sleep(self._runtime.config.poll_interval * CLAIM_PAUSE)
                else:
                    await self._waits.until_claimable(run_id)
                continue
            if execution.was_parked:  # to leave its slot in its queue to others
                return await self._result(run_id)
            assert result is not None  # noqa: S101 - only a worker releases a run before it is open
            return result

    async def resume_in_background(
        self, run_id: str, definition: Callable[[StoredRun], Workflow], override: Mapping[str, object] | None
    ) -> None:
        """Claim a stored run, and execute it in the background.

        Raises:
            RunConflictError: The run is not due yet, or its queue has no room.
        """
        opening = self._resumption(run_id, definition, override)
        await self._until_free(run_id)
        execution = self._start(Execution(self._runtime, run_id, is_background=True), opening)
        await self._when_open(execution)
        task = execution.task
        if task is not None and task.done() and isinstance(error := task.exception(), NotClaimable):
            problem = "is not due yet; a working runner executes it then"
            if not error.has_room:
                problem = "cannot be resumed now, because its queue has no room; try again later"
            raise RunConflictError(run_id, f"run {run_id!r} {problem}")

    async def _until_free(self, run_id: str) -> None:
        """Wait for an execution here that no longer has the run.

        Others may see the end of a run before its execution ends.

        Raises:
            RunBusyError: This runner executes the run.
        """
        while (execution := self._active_runs.find(run_id)) is not None:
            await wait_any(execution.opened.future())  # until then it is unknown whether it has the run
            if self._active_runs.find(run_id) is not execution:
                continue  # it could not open the run
            if await self._has_lost(execution):
                execution.cancel(CancelReason.LEASE_LOST)
            elif execution.has_run and not (execution.is_ending or execution.was_released):
                raise RunBusyError(run_id, self._runtime.owner)
            with suppress(Exception):  # its own callers receive it
                await execution.result()

    async def _has_lost(self, execution: Execution) -> bool:
        """Whether another owner, which claimed the run when the lease of this one had ended, has ended the run."""
        if execution.is_ending or execution.was_released:
            return False
        states = await run_shielded(self._runtime.due_runs.states([execution.run_id]), "spine_async states")
        has_ended = bool(states) and states[0].status.is_final
        return has_ended and not execution.is_ending  # an execution knows that it ends the run before others do

    def _resumption(
        self, run_id: str, definition: Callable[[StoredRun], Workflow], override: Mapping[str, object] | None
    ) -> Callable[[], Awaitable[Scope | WorkflowResult]]:
        async def open_stored() -> Scope | WorkflowResult:
            stored = await load(self._runtime, run_id)
            workflow = definition(stored)
            check_due(self._runtime, stored)
            opened = await claim_and_replay(self._runtime, workflow, stored, override)
            add_workflow(self._workflows, workflow)
            return opened

        return open_stored

    async def result(self, run_id: str) -> WorkflowResult:
        """The result of a run, wherever it is executed; waits until it has ended."""
        visit = self._runtime.running_visits.get(current_task())
        if visit is None:
            return await self._result(run_id)
        async with giving_way(self._runtime, self._active_runs, visit, run_id):
            return await self._result(run_id)

    async def _result(self, run_id: str) -> WorkflowResult:
        while True:
            execution = self._active_runs.find(run_id)
            if execution is not None:
                result = await self._awaited(execution)
                if result is not None:
                    return result
            ended = await self.ended_result(run_id)
            if ended is not None:
                return ended
            await self._waits.until_ended(run_id)

    async def ended_result(self, run_id: str) -> WorkflowResult | None:
        """The result of a run that has ended; None if it has not.

        Raises:
            RunNotFoundError: The run is not stored.
        """
        states = await run_shielded(self._runtime.due_runs.states([run_id]), "spine_async states")
        if not states:
            raise RunNotFoundError(run_id)
        return await self._stored(run_id) if states[0].status.is_final else None

    async def run(self, scope: Scope, execution: Execution) -> WorkflowResult:
        """Execute a run that is open to its end."""
        self._active_runs.watch(scope.run, execution)
        try:
            return await execute_run(self._runtime, scope)
        finally:
            self._active_runs.leave(scope.run)

    async def _awaited(self, execution: Execution) -> WorkflowResult | None:
        """The result of an execution of this runner; None if the run continues elsewhere or later."""
        try:
            result = await execution.result()
        except Exception as exc:
            if execution.has_opened and not isinstance(exc, LeaseLostError):
                raise
            return None
        return None if execution.was_released else result

    async def _stored(self, run_id: str) -> WorkflowResult:
        stored = await load(self._runtime, run_id)
        return await load_result(self._runtime, self._workflows.get(stored.workflow_name), stored)

    async def _joins(self, joined: Execution, check: Callable[[StoredRun], Awaitable[None]]) -> bool:
        """Whether a call leaves its run to an execution that it has found; waits until that has opened the run.

        Returns:
            False if the other call could not open the run for a reason of its own, such as its params, and this one
            must try itself.

        Raises:
            RunConflictError: `check` raises it: the run was created by another request.
            StoreError: The store failed.
        """
        error = await self._opening_error(joined)
        if isinstance(error, StoreError) and not isinstance(error, LeaseLostError):
            raise error
        try:
            stored = await load(self._runtime, joined.run_id)
        except RunNotFoundError:
            if self._active_runs.find(joined.run_id) is joined:
                raise
            return False
        await check(stored)
        return error is None or isinstance(error, NotClaimable)

    @staticmethod
    async def _opening_error(execution: Execution) -> Exception | None:
        """Wait until an execution has opened its run; returns the error for which it could not."""
        await execution.opened.future()
        if execution.has_opened:
            return None
        try:
            await execution.result()
        except Exception as exc:  # noqa: BLE001 - its own callers receive it
            return exc
        return None

    def _check_of(self, request: Request) -> Callable[[StoredRun], Awaitable[None]]:
        """Checks that a request is the one that created a run; raises `RunConflictError` if it is another one."""

        async def check(stored: StoredRun) -> None:
            check_same(await prepare_run(self._runtime, request), stored)

        return check

    def _begin(self, request: Request, *, is_background: bool = False) -> Execution:
        async def open_requested() -> Scope | WorkflowResult:
            opened = await start_or_load(self._runtime, request)
            add_workflow(self._workflows, request.workflow)
            return opened

        return self._start(Execution(self._runtime, request.run_id, is_background=is_background), open_requested)

    def _start(self, execution: Execution, opening: Callable[[], Awaitable[Scope | WorkflowResult]]) -> Execution:
        async def work(execution: Execution) -> ExecutionResult:
            opened = await opening()
            execution.open()
            if not isinstance(opened, Scope):
                return opened
            try:
                result = await self.run(opened, execution)
            except (RunError, StoreError) as exc:
                if execution.is_background:
                    _log.warning("run %s was interrupted: %s", execution.run_id, exc)
                raise
            if execution.is_background:
                log_if_failed(result)
            return result

        self._active_runs.begin(execution, work)
        if execution.is_background and execution.task is not None:
            execution.task.add_done_callback(mark_retrieved)
        return execution
