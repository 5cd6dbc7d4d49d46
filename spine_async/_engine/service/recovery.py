"""Claims and executes runs whose owner is gone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

import anyio
from anyio import to_thread

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.start.claim import is_spared
from spine_async._engine.start.owner import is_gone
from spine_async._engine.tasks import Task, end_task, run_shielded, spawn
from spine_async._model.record import RunFilter, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import RunError, StoreError

_PAGE = 500

_log = logging.getLogger("spine_async")


class Recovery:
    """Finds runs whose owner is gone and executes them, once on request or regularly.

    Args:
        runtime: What all runs share.
        active_runs: The runs that this runner executes.
        workflows: The known workflows by name; may grow.
        execute: Claims one of the found runs and executes it to its end.
    """

    def __init__(
        self,
        runtime: Runtime,
        active_runs: ActiveRuns,
        workflows: Mapping[str, Workflow],
        execute: Callable[[StoredRun], Awaitable[WorkflowResult]],
    ) -> None:
        self._runtime = runtime
        self._active_runs = active_runs
        self._workflows = workflows
        self._execute = execute
        self._task: Task[None] | None = None
        self._halt = _Halt()

    async def once(self) -> list[WorkflowResult]:
        """Do one round; returns the results of the runs that were recovered."""
        halt, limiter = self._halt, anyio.CapacityLimiter(self._runtime.config.recover_concurrency)
        results: list[WorkflowResult] = []
        found = await self._find()  # outside the task group, which would wrap a store's error
        async with anyio.create_task_group() as tasks:
            for run in found:
                tasks.start_soon(self._recover, run, halt, limiter, results)
        return results

    def start(self) -> None:
        """Do rounds regularly until `end_with`, unless they are being done already."""
        if self._task is None:
            self._task = spawn(self._do_rounds(self._halt), "spine_async recovery")

    async def end_with(self, drain: Awaitable[None]) -> None:
        """Claim no further runs, wait for `drain`, and end the rounds. Rounds that start later are not affected."""
        rounds, self._task = self._task, None
        self._halt.is_set, self._halt = True, _Halt()
        try:
            await drain
        finally:
            if rounds is not None:
                await end_task(rounds)

    async def _do_rounds(self, halt: _Halt) -> None:
        limiter = anyio.CapacityLimiter(self._runtime.config.recover_concurrency)
        results: list[WorkflowResult] = []
        async with anyio.create_task_group() as tasks:
            while not halt.is_set:
                for run in await self._find_if_reachable():
                    tasks.start_soon(self._recover, run, halt, limiter, results)
                await anyio.sleep(self._runtime.config.recover_interval)
                results.clear()

    async def _find_if_reachable(self) -> list[StoredRun]:
        try:
            return await self._find()
        except StoreError as exc:
            _log.warning("the search for abandoned runs failed; it will be retried: %s", exc)
            return []

    async def _find(self) -> list[StoredRun]:
        runtime, sent_mono = self._runtime, self._runtime.clock.monotonic()
        try:
            found = await abandoned_runs(runtime, frozenset(self._workflows))
        except StoreError:
            runtime.reachability.failed()
            raise
        runtime.reachability.answered(sent_mono, runtime.clock.monotonic())
        return [run for run in found if run.run_id not in self._active_runs.active_ids]

    async def _recover(
        self, run: StoredRun, halt: _Halt, limiter: anyio.CapacityLimiter, results: list[WorkflowResult]
    ) -> None:
        async with limiter:
            if halt.is_set or run.run_id in self._active_runs.active_ids:
                return
            try:
                result = await self._execute(run)
            except (RunError, StoreError) as exc:
                _log.warning("run %s was not recovered: %s", run.run_id, exc)
            except Exception:  # noqa: BLE001 - one run must not keep the others from being recovered
                _log.exception("run %s was not recovered", run.run_id)
            else:
                results.append(result)
                _log_if_failed(result)


def _log_if_failed(result: WorkflowResult) -> None:
    """Log a recovered run that failed: nobody awaits its result."""
    if result.status is RunStatus.FAILED:
        _log.error(
            "run %s was recovered and failed at step %s (%s)", result.run_id, result.error_step, result.error_category
        )


class _Halt:
    """Signals to the rounds that began before it was set that they must claim no further runs."""

    is_set = False


async def abandoned_runs(runtime: Runtime, workflows: Collection[str]) -> list[StoredRun]:
    """Unfinished runs of these workflows that have no owner, or whose owner is gone; oldest first."""
    unleased = [run for run in await _unfinished_runs(runtime, is_leased=False) if run.workflow_name in workflows]
    spared = await _spared_owners(runtime, unleased)
    unleased = [run for run in unleased if run.owner not in spared]
    leased = await _unfinished_runs(runtime, is_leased=True)
    owners = {run.owner for run in leased if run.owner is not None}
    gone = await to_thread.run_sync(lambda: {owner for owner in owners if is_gone(owner)})
    found = [*unleased, *(run for run in leased if run.owner in gone)]
    return sorted((run for run in found if run.workflow_name in workflows), key=lambda run: run.created_at)


async def _spared_owners(runtime: Runtime, ended: Collection[StoredRun]) -> set[str | None]:
    """The owners of runs with ended leases that may still renew or release them."""
    runs = {run.owner: run for run in ended}
    return {owner for owner, run in runs.items() if await is_spared(runtime, run, spares_living=True)}


async def _unfinished_runs(runtime: Runtime, *, is_leased: bool) -> list[StoredRun]:
    chosen = RunFilter(is_under_way=True, is_leased=is_leased, limit=_PAGE, skips_unreadable=True)
    return await run_shielded(runtime.store.runs(chosen), "spine_async find abandoned runs")
