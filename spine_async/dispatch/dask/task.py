"""Runs a pipeline on a Dask worker. `run_task` is the function that Dask calls; what fails is a part of its result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from distributed import Worker, get_worker
from opentelemetry.context import attach, detach
from opentelemetry.propagate import extract

from spine_async._model.failure import ErrorCategory
from spine_async._model.progress import Progress
from spine_async._model.step_result import StepResult
from spine_async.dispatch.context import PipelineContext, entered
from spine_async.dispatch.dask.scheduler import TOPIC
from spine_async.dispatch.dask.wire import Task, result_text, returned_text
from spine_async.dispatch.local import LocalDispatcher
from spine_async.dispatch.pipelines import Pipeline, Pipelines, import_object
from spine_async.errors import DefinitionError

_REPORT_INTERVAL = 0.2
"""Least time in seconds between two reports of progress that are sent."""

_POLL_INTERVAL = 0.2
"""Seconds between two checks whether an `async def` pipeline is cancelled."""

_UNREGISTERED = Pipelines()
"""Pipelines that are found by their module."""


def run_task(text: str) -> str:
    """Run the pipeline of a `Task`; the text of its result, which is a failure if the pipeline raises."""
    task = Task.from_json(text)
    attempt = WorkerAttempt(get_worker(), task.last_progress)
    token = attach(extract(task.trace_context))
    try:
        with entered(_context_of(task, attempt)):
            returned = _call(_find(task), task.params, attempt)
        return returned_text(task.pipeline, returned, attempt.reported)
    except BaseException as exc:  # noqa: BLE001 - also an exit: it would end the worker, and the tasks of others
        return result_text(task.pipeline, StepResult.from_exception(exc), attempt.reported)
    finally:
        detach(token)


class WorkerAttempt:
    """An attempt on a Dask worker.

    Attributes:
        last_progress: The latest progress of the visit.
        reported: The latest progress of this attempt, or None.
    """

    def __init__(self, worker: Worker, last_progress: Progress | None) -> None:
        self.last_progress = last_progress
        self.reported: Progress | None = None
        self._worker = worker
        self._key = worker.get_current_task()
        self._lock = threading.Lock()
        self._is_planned = False
        self._sent_mono = float("-inf")

    @property
    def cancel_reason(self) -> str | None:
        """`cancelled` if the scheduler has released the task, for whatever reason."""
        task = self._worker.state.tasks.get(self._key)
        return "cancelled" if task is None or task.state == "cancelled" else None

    def report(self, progress: Progress) -> None:
        """Send the progress soon; of several reports within a fifth of a second only the last one is sent."""
        self.last_progress = self.reported = progress
        with self._lock:
            if self._is_planned:
                return
            self._is_planned = True
        delay = max(0.0, self._sent_mono + _REPORT_INTERVAL - time.monotonic())
        self._worker.loop.add_callback(self._worker.loop.call_later, delay, self._send)

    def _send(self) -> None:
        with self._lock:
            self._is_planned = False
        self._sent_mono = time.monotonic()
        latest = self.reported
        if latest is not None and self.cancel_reason is None:
            report = {"key": self._key, "progress": [latest.done, latest.total, latest.message]}
            self._worker.log_event(TOPIC, report)


def _context_of(task: Task, attempt: WorkerAttempt) -> PipelineContext:
    return PipelineContext(
        attempt,
        run_id=task.run_id,
        step_name=task.step_name,
        attempt=task.attempt,
        idempotency_key=task.idempotency_key,
    )


def _find(task: Task) -> Pipeline | StepResult:
    """The pipeline, or the failure that there is none."""
    try:
        return _registry(task.registry).find(task.pipeline)
    except DefinitionError as exc:
        problem = f"{exc.problem} (on the Dask worker {get_worker().address})"
        return StepResult.fail(problem, ErrorCategory.CONFIGURATION)


def _registry(path: str | None) -> Pipelines:
    found: object = import_object(path) if path is not None else _UNREGISTERED
    if isinstance(found, LocalDispatcher):
        return found.pipelines
    if isinstance(found, Pipelines):
        return found
    raise DefinitionError(f"{path!r} is of type {type(found).__name__}; it must be a Pipelines or a LocalDispatcher")


def _call(found: Pipeline | StepResult, params: Mapping[str, object], attempt: WorkerAttempt) -> object:
    if isinstance(found, StepResult):
        return found
    if not found.is_async:
        return found.function(params)
    return anyio.run(_call_in_loop, found.function, params, attempt)


async def _call_in_loop(
    function: Callable[[Mapping[str, object]], Any], params: Mapping[str, object], attempt: WorkerAttempt
) -> object:
    """Await the pipeline; cancel it when its task is cancelled."""
    with anyio.CancelScope() as scope:
        async with _Watch(attempt, scope):
            return await function(params)
    return StepResult.fail("the pipeline was cancelled")  # nobody waits for this result


class _Watch:
    """Cancels a scope when an attempt is cancelled, until it is left."""

    def __init__(self, attempt: WorkerAttempt, scope: anyio.CancelScope) -> None:
        self._attempt = attempt
        self._scope = scope
        self._tasks = anyio.create_task_group()

    async def __aenter__(self) -> None:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._look)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # given the exception, it would raise a group

    async def _look(self) -> None:
        while self._attempt.cancel_reason is None:  # noqa: ASYNC110 - the scheduler notifies only the worker itself
            await anyio.sleep(_POLL_INTERVAL)
        self._scope.cancel()
