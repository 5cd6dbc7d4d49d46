"""Taking over runs whose owner is gone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

import anyio
from anyio import to_thread

from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.service.active_runs import Activity
from spine_async._engine.start.owner import is_gone
from spine_async._engine.tasks import Task, end, run_through, spawn
from spine_async._model.record import RunFilter, StoredRun
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import RunError, StoreError

_PAGE = 500

_log = logging.getLogger("spine_async")


class Recovery:
    """Looks for runs whose owner is gone and takes them over, by hand or regularly.

    Args:
        engine: What all runs share.
        activity: The runs at work here.
        workflows: The known workflows by name; may grow.
        take_over: Brings one of the found runs to its end.
    """

    def __init__(
        self,
        engine: Engine,
        activity: Activity,
        workflows: Mapping[str, Workflow],
        take_over: Callable[[StoredRun], Awaitable[WorkflowResult]],
    ) -> None:
        self._engine = engine
        self._activity = activity
        self._workflows = workflows
        self._take_over = take_over
        self._task: Task[None] | None = None
        self._halt = _Halt()

    async def once(self) -> list[WorkflowResult]:
        """One round: the results of the runs that were taken over."""
        halt, limiter = self._halt, anyio.CapacityLimiter(self._engine.config.recover_concurrency)
        results: list[WorkflowResult] = []
        async with anyio.create_task_group() as tasks:
            for run in await self._found():
                tasks.start_soon(self._recover, run, halt, limiter, results)
        return results

    def start(self) -> None:
        """Look now and then, unless that is being done, until `end_with`."""
        if self._task is None:
            self._task = spawn(self._regularly(self._halt), "spine_async recovery")

    async def end_with(self, drain: Awaitable[None]) -> None:
        """Take nothing further over, wait for `drain`, and stop looking; who starts anew meanwhile is left alone."""
        looking, self._task = self._task, None
        self._halt.is_called, self._halt = True, _Halt()
        try:
            await drain
        finally:
            if looking is not None:
                await end(looking)

    async def _regularly(self, halt: _Halt) -> None:
        limiter = anyio.CapacityLimiter(self._engine.config.recover_concurrency)
        results: list[WorkflowResult] = []
        async with anyio.create_task_group() as tasks:
            while not halt.is_called:
                for run in await self._found_if_reachable():
                    tasks.start_soon(self._recover, run, halt, limiter, results)
                await anyio.sleep(self._engine.config.recover_interval)
                results.clear()

    async def _found_if_reachable(self) -> list[StoredRun]:
        try:
            return await self._found()
        except StoreError as exc:
            _log.warning("abandoned runs could not be looked for, will be tried again: %s", exc)
            return []

    async def _found(self) -> list[StoredRun]:
        found = await abandoned_runs(self._engine, frozenset(self._workflows))
        return [run for run in found if run.run_id not in self._activity.reserved_ids]

    async def _recover(
        self, run: StoredRun, halt: _Halt, limiter: anyio.CapacityLimiter, results: list[WorkflowResult]
    ) -> None:
        async with limiter:
            if halt.is_called or run.run_id in self._activity.reserved_ids:
                return
            try:
                results.append(await self._take_over(run))
            except (RunError, StoreError) as exc:
                _log.warning("run %s was not recovered: %s", run.run_id, exc)
            except Exception:  # noqa: BLE001 - one run must not keep the others from being recovered
                _log.exception("run %s was not recovered", run.run_id)


class _Halt:
    """Tells those who have begun to look that they are to take nothing further over."""

    is_called = False


async def abandoned_runs(engine: Engine, workflows: Collection[str]) -> list[StoredRun]:
    """Unfinished runs of these workflows that nobody owns any more, the oldest first."""
    free = await _under_way(engine, is_leased=False)
    leased = await _under_way(engine, is_leased=True)
    owners = {run.owner for run in leased if run.owner is not None}
    gone = await to_thread.run_sync(lambda: {owner for owner in owners if is_gone(owner)})
    found = [*free, *(run for run in leased if run.owner in gone)]
    return sorted((run for run in found if run.workflow_name in workflows), key=lambda run: run.created_at)


async def _under_way(engine: Engine, *, is_leased: bool) -> list[StoredRun]:
    chosen = RunFilter(is_under_way=True, is_leased=is_leased, limit=_PAGE)
    return await run_through(engine.store.runs(chosen), "spine_async look for abandoned runs")
