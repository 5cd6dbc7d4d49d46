"""A dispatcher that runs pipelines on a Dask cluster."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from opentelemetry.propagate import inject

from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory, describe
from spine_async._model.step_result import StepResult
from spine_async._model.time_option import positive_option_seconds
from spine_async.dispatch.dask.cluster import Cluster
from spine_async.errors import DefinitionError, MissingExtraError, SerializationError, StepError

if TYPE_CHECKING:
    from distributed import Client, Security
    from distributed.deploy.cluster import Cluster as DaskCluster

    from spine_async.dispatch.dask.connection import Connection


class DaskDispatcher:
    """Runs pipelines on the workers of a Dask cluster.

    Workers find a pipeline by its name: in the registry `pipelines`, or as `package.module:function`. Params and
    results travel as JSON. So the scheduler and the workers need this library, and the workers need the modules of the
    pipelines. In a pipeline, `pipeline_context()` works as with a `LocalDispatcher`.

    The connection is opened in the event loop of the runner when the first pipeline is submitted, and closed when the
    runner is left.

    - A failure has the category, the `retry_after`, the exception type and the traceback that it has on the worker.
    - A worker that is lost while it runs a pipeline fails the step with category TRANSIENT, and the retry policy of the
      step decides. Dask itself does not repeat a pipeline.
    - A cancellation or a timeout ends the step at once. It ends an `async def` pipeline, and a `def` pipeline that
      calls `pipeline_context().check_cancelled()` now and then. Any other one continues to its end, and uses its thread
      of the worker until then.
    - A pipeline continues if the process of the runner ends. When the run is continued, its step waits for the task
      that still runs, and does not start another one.

    Args:
        cluster: Address of the scheduler (`tcp://host:8786`), a connected `distributed.Client`, or a cluster object
            such as `LocalCluster`. Of an object, only the address and the security are used.
        pipelines: The registry on the workers, as `package.module:attribute`: a `Pipelines` or a `LocalDispatcher`.
        worker_timeout: Seconds after which a pipeline fails with category TRANSIENT if the cluster has no worker.
        connect_timeout: Seconds after which an attempt to connect to the scheduler fails with category TRANSIENT.
        security: TLS settings; None means those of `cluster`, or of Dask's configuration.

    Raises:
        MissingExtraError: `distributed` is not installed.
        DefinitionError: An argument is invalid.

    Example:
        >>> dispatcher = DaskDispatcher("tcp://127.0.0.1:8786", pipelines="shop.pipelines:pipelines")
    """

    def __init__(
        self,
        cluster: str | Client | DaskCluster,
        *,
        pipelines: str | None = None,
        worker_timeout: float = 30.0,
        connect_timeout: float = 10.0,
        security: Security | None = None,
    ) -> None:
        if find_spec("distributed") is None:
            raise MissingExtraError("DaskDispatcher", "dask")
        if pipelines is not None and not (isinstance(pipelines, str) and all(pipelines.partition(":"))):
            raise DefinitionError(f"pipelines is {pipelines!r:.200}; it must be a text 'package.module:attribute'")
        try:
            worker_timeout = positive_option_seconds(worker_timeout, "worker_timeout")
            connect_timeout = positive_option_seconds(connect_timeout, "connect_timeout")
        except ValueError as exc:
            raise DefinitionError(str(exc)) from None
        self._registry = pipelines
        given_security = security or getattr(cluster, "security", None)
        self._cluster = Cluster(_address(cluster), given_security, connect_timeout, worker_timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._submissions = 0

    async def submit(self, pipeline: str, params: Mapping[str, object], *, context: WorkflowContext) -> StepResult:
        """Run the pipeline on a worker; a failure of the cluster is a result too.

        Cancellation:
            Takes effect at once, and reaches the pipeline if it is not a shutdown and the lease is not lost.
        """
        trace_context: dict[str, str] = {}
        inject(trace_context)
        self._submissions += 1
        try:
            return await self._submit(pipeline, params, trace_context, context)
        finally:
            self._submissions -= 1

    async def close(self) -> None:
        """Close the connection, unless pipelines of another runner wait for it. Pipelines that are running continue."""
        opening = self._opening
        if opening is None or self._submissions > 0 or self._loop is not asyncio.get_running_loop():
            return
        self._opening = None
        opening.cancel()  # has no effect if it is open
        await asyncio.wait([opening])
        if _is_open(opening):
            await opening.result().close()

    async def _submit(
        self, pipeline: str, params: Mapping[str, object], trace_context: Mapping[str, str], context: WorkflowContext
    ) -> StepResult:
        try:
            connection = await self._connected()
        except ImportError as exc:  # raised by the scheduler, which loads the plugin
            problem = f"the Dask scheduler at {self._cluster.address} cannot import this library: {describe(exc)}"
            return StepResult.fail(f"{problem}; install it there, in the same version", ErrorCategory.CONFIGURATION)
        except Exception as exc:  # noqa: BLE001 - Dask raises OSError, and its own for versions that do not fit
            problem = f"the Dask scheduler at {self._cluster.address} cannot be reached: {describe(exc)}"
            return StepResult.fail(problem, ErrorCategory.TRANSIENT)
        try:
            return await connection.run(pipeline, dict(params), self._registry, trace_context, context)
        except SerializationError as exc:
            problem = f"the params of pipeline {pipeline!r} cannot be sent to a Dask worker: {exc}"
            return StepResult.fail(problem, ErrorCategory.CONFIGURATION)
        except StepError as exc:
            if not connection.is_alive:
                await self._discard(connection)
            return StepResult.fail(str(exc), exc.category)

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        opening = self._opening
        is_usable = opening is not None and self._loop is loop and _is_usable(opening)
        if opening is None or not is_usable:
            # Not in the context of the step, because the client lives longer; and not cancelled with it.
            opening = loop.create_task(_connect(self._cluster), context=contextvars.Context())
            opening.add_done_callback(_mark_retrieved)
            self._loop, self._opening = loop, opening
        return await asyncio.shield(opening)

    async def _discard(self, connection: Connection) -> None:
        opening = self._opening
        if opening is not None and _is_open(opening) and opening.result() is connection:
            self._opening = None
        await connection.close()


async def _connect(cluster: Cluster) -> Connection:
    connection = await to_thread.run_sync(_import_connection)  # takes half a second
    return await connection.connect(cluster)  # type: ignore[no-any-return]


def _import_connection() -> Any:
    from spine_async.dispatch.dask import connection  # noqa: PLC0415

    return connection


def _is_usable(opening: asyncio.Task[Connection]) -> bool:
    return not opening.done() or (_is_open(opening) and opening.result().is_alive)


def _is_open(opening: asyncio.Task[Connection]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None


def _mark_retrieved(opening: asyncio.Task[Connection]) -> None:
    if not opening.cancelled():
        opening.exception()


def _address(cluster: object) -> str:
    if isinstance(cluster, str) and "://" in cluster:
        return cluster
    scheduler = getattr(cluster, "scheduler", None)
    address = getattr(cluster, "scheduler_address", None) or getattr(scheduler, "address", None)
    if isinstance(address, str) and address:
        return address
    wanted = "the address of a scheduler such as 'tcp://host:8786', a connected Client, or a cluster"
    shown = repr(cluster) if isinstance(cluster, str) else f"of type {type(cluster).__name__}"
    raise DefinitionError(f"cluster is {shown:.200}; it must be {wanted}")
