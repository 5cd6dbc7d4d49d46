"""A connection to a Dask scheduler, with the tasks that wait for their results. Belongs to one event loop."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import anyio
from anyio import to_thread
from distributed import Client, Future, fire_and_forget
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory, classify, describe
from spine_async._model.large_document import is_large
from spine_async._model.progress import Progress
from spine_async._model.step_result import StepResult
from spine_async.dispatch.dask.cluster import Cluster
from spine_async.dispatch.dask.scheduler import FIND, PLUGIN, TOPIC, PipelineTasks, task_key
from spine_async.dispatch.dask.task import run_task
from spine_async.dispatch.dask.wire import LARGE_TEXT, Task, as_progress, read_result
from spine_async.errors import AttemptEndedError, StepError

_LEFT_RUNNING = frozenset({"shutdown", "lease_lost", "parked"})
"""Reasons of a cancellation after which another owner continues the run; it waits for the task that still runs."""

_CLOSE_TIMEOUT = 5.0

_REMEMBERED = 1_000
"""Number of cancelled tasks that are remembered, until the scheduler has surely forgotten them."""


class _TaskCancelledError(StepError):
    """Somebody has cancelled the task, or its scheduler is gone."""


@dataclass(slots=True, eq=False)
class _Waiting:
    context: WorkflowContext
    scope: anyio.CancelScope

    def report(self, progress: Progress | None) -> None:
        if progress is not None:
            with suppress(AttemptEndedError):
                self.context.progress(progress.done, progress.total, progress.message)


async def connect(cluster: Cluster) -> Connection:
    """Connect to the scheduler and install the plugin.

    Raises:
        OSError: It cannot be reached in time.
    """
    options: dict[str, Any] = {"security": cluster.security} if cluster.security is not None else {}
    client = Client(
        cluster.address,
        asynchronous=True,
        timeout=cluster.connect_timeout,
        set_as_default=False,
        name="spine_async",
        **options,
    )
    try:
        await client
        connection = Connection(client, cluster)
        client.subscribe_topic(TOPIC, connection.handle_event)
        await client.register_plugin(PipelineTasks(), name=PLUGIN)
    except BaseException:
        await close_client(client)
        raise
    return connection


async def close_client(client: Client) -> None:
    """Close a client, whatever state it is in."""
    with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
        await client.close()


class Connection:
    """A client of a scheduler, and the pipelines that were submitted through it."""

    def __init__(self, client: Client, cluster: Cluster) -> None:
        self._client = client
        self._cluster = cluster
        self._waiting: dict[str, _Waiting] = {}
        self._cancelled: deque[str] = deque(maxlen=_REMEMBERED)
        self._workers = 0
        self._change = -1
        self._give_up: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it can be used."""
        return self._client.status == "running"

    async def run(
        self,
        pipeline: str,
        params: Mapping[str, object],
        registry: str | None,
        trace_context: Mapping[str, str],
        context: WorkflowContext,
    ) -> StepResult:
        """Run a pipeline, or wait for the task of its visit that an earlier owner of the run has left behind.

        Raises:
            StepError: The pipeline could not be executed.
            SerializationError: The params have no strict JSON form.
        """
        task = Task(
            pipeline=pipeline,
            registry=registry,
            run_id=context.run_id,
            step_name=context.step_name,
            attempt=context.attempt,
            idempotency_key=context.idempotency_key,
            last_progress=context.last_progress,
            trace_context=trace_context,
            params=params,
        )
        text, digest = await to_thread.run_sync(task.encoded) if is_large(params) else task.encoded()
        running = await self._find(digest)
        if running is not None:
            try:
                return await self._run_as(running, pipeline, text, context)
            except _TaskCancelledError:
                if not self.is_alive:
                    raise
            # The owner that had begun it has cancelled it.
        return await self._run_as(task_key(pipeline, digest, secrets.token_hex(4)), pipeline, text, context)

    async def close(self) -> None:
        """Close the client. Tasks that are running continue."""
        self._set_timer(None)
        await close_client(self._client)

    async def handle_event(self, event: tuple[float, Any]) -> None:
        """Handle a progress report of a worker, or a change of the number of workers."""
        message = event[1]
        if "workers" in message:
            self._note_workers(message)
        elif message["key"] in self._waiting:
            self._waiting[message["key"]].report(as_progress(message["progress"]))

    async def _run_as(self, key: str, pipeline: str, text: str, context: WorkflowContext) -> StepResult:
        """Submit a task, unless the scheduler has one with this key, and wait for its result."""
        future = self._submitted(key, text)
        with self._waits(key, context) as waiting:
            try:
                returned = await self._result(pipeline, future, waiting)
            finally:
                future.release()
            has_large = len(returned) > LARGE_TEXT
            result, progress = await to_thread.run_sync(read_result, returned) if has_large else read_result(returned)
            waiting.report(progress)
        return result

    def _submitted(self, key: str, text: str) -> Future[str]:
        try:
            future = self._client.submit(run_task, text, key=key, pure=False)
            fire_and_forget(future)  # a task survives the process that waits for it
        except Exception as exc:
            raise self._unreachable(exc) from exc
        return future

    def _unreachable(self, error: Exception) -> StepError:
        problem = f"the Dask scheduler at {self._cluster.address} did not answer: {describe(error)}"
        return StepError(problem, ErrorCategory.TRANSIENT)

    async def _find(self, digest: str) -> str | None:
        """The key of the task that runs for a visit already, or None."""
        try:
            found = await getattr(self._client.scheduler, FIND)(visit=digest)
        except Exception as exc:
            raise self._unreachable(exc) from exc
        self._note_workers(found)
        key: str | None = found["key"]
        return key if key not in self._cancelled else None

    async def _result(self, pipeline: str, future: Future[str], waiting: _Waiting) -> str:
        try:
            with waiting.scope:
                return cast("str", await future)  # of a client that is asynchronous
        except asyncio.CancelledError:
            if waiting.context.cancel_reason not in _LEFT_RUNNING:
                await self._cancel(future)
            raise
        except KilledWorker as exc:
            address = exc.last_worker.address
            problem = f"pipeline {pipeline!r}: the Dask worker {address} was lost while it ran the pipeline"
            raise StepError(problem, ErrorCategory.TRANSIENT) from None
        except FutureCancelledError as exc:
            problem = f"pipeline {pipeline!r}: its task on the Dask cluster was cancelled or lost ({exc.reason})"
            raise _TaskCancelledError(problem, ErrorCategory.TRANSIENT) from None
        except Exception as exc:  # a worker that cannot import this library, or an error of Dask
            category = ErrorCategory.CONFIGURATION if isinstance(exc, ImportError) else classify(exc)
            raise StepError(f"pipeline {pipeline!r} could not run on Dask: {describe(exc)}", category) from exc
        await self._cancel(future)
        timeout = self._cluster.worker_timeout
        problem = f"the Dask cluster at {self._cluster.address} has had no worker for {timeout:g} s"
        way_out = "start a worker, or raise worker_timeout"
        raise StepError(f"pipeline {pipeline!r} cannot run: {problem}; {way_out}", ErrorCategory.TRANSIENT)

    async def _cancel(self, future: Future[str]) -> None:
        """Tell the scheduler, and thereby the worker, that the task is cancelled."""
        self._cancelled.append(str(future.key))
        with anyio.move_on_after(1, shield=True):
            await self._client.cancel([future], force=True)

    @contextmanager
    def _waits(self, key: str, context: WorkflowContext) -> Iterator[_Waiting]:
        waiting = self._waiting[key] = _Waiting(context, anyio.CancelScope())
        self._watch_workers()
        try:
            yield waiting
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]

    def _note_workers(self, message: dict[str, Any]) -> None:
        if message["change"] > self._change:
            self._workers, self._change = message["workers"], message["change"]
            self._watch_workers()

    def _watch_workers(self) -> None:
        """Begin to count the time without workers, or end it."""
        if self._workers > 0:
            self._set_timer(None)
        elif self._give_up is None:
            loop = asyncio.get_running_loop()
            self._set_timer(loop.call_later(self._cluster.worker_timeout, self._end_waiting))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
        self._give_up = timer

    def _end_waiting(self) -> None:
        self._give_up = None
        for waiting in self._waiting.values():
            waiting.scope.cancel()
