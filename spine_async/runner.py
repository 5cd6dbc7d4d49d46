"""The runner: the public interface for executing workflows and reading stored runs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, TypeVar

from spine_async._arguments import (
    check_execute_arguments,
    check_number,
    check_runner_arguments,
    check_type,
    check_workflow,
    checked_page,
)
from spine_async._assembly import assemble_runtime, with_arguments
from spine_async._engine.handlers.choice import run_choice
from spine_async._engine.handlers.lambda_ import run_lambda
from spine_async._engine.handlers.map_ import run_map
from spine_async._engine.handlers.pipeline import run_pipeline
from spine_async._engine.handlers.wait import run_wait
from spine_async._engine.run.supervision import execute_run
from spine_async._engine.runtime.runtime import Executor, Middleware
from spine_async._engine.service import query
from spine_async._engine.service.active_runs import ActiveRuns, Execution
from spine_async._engine.service.checkpoints import checkpoints, last_checkpoint
from spine_async._engine.service.recovery import Recovery
from spine_async._engine.service.stop import stop_run
from spine_async._engine.start.opening import claim_and_replay, load, run_uncancelled, start_or_load
from spine_async._engine.start.request import Request
from spine_async._engine.state.scope import Scope
from spine_async._engine.step.encoding import as_result
from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.context import WorkflowContext
from spine_async._model.history import Checkpoint, Event, RunRecord
from spine_async._model.naming import check_run_id
from spine_async._model.record import RunFilter, StoredRun
from spine_async._model.signature import check_callable
from spine_async._model.status import RunStatus, StepType
from spine_async._model.step import ChoiceStep, LambdaStep, MapStep, PipelineStep, WaitStep
from spine_async._model.step_result import StepResult
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import DefinitionError, RunNotResumableError
from spine_async.ports import Clock, Dispatcher, RunStore

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from sqlalchemy.ext.asyncio import AsyncEngine

_Status: TypeAlias = Literal["pending", "running", "waiting", "completed", "failed", "stopped"]
MiddlewareT = TypeVar("MiddlewareT", bound=Middleware)


class WorkflowRunner:
    """Executes workflows durably inside your own event loop.

    By default, runs are stored in the database of `SPINE_DATABASE_URL`. If that is not set, they are stored in the
    SQLite file `.spine/runs.db` in the working directory, which the first write creates. Arguments override the config.

    Args:
        db_engine: SQLAlchemy `AsyncEngine` on aiosqlite or asyncpg; the runner does not dispose of it.
        dispatcher: Runs the pipelines of pipeline steps.
        checkpoint_enabled: False executes runs without storing anything.
        dry_run: True runs lambda steps, simulates pipelines, skips waits and writes nothing.
        config: The other settings.
        store: Store of the runs, instead of a database.
        workflows: Workflows that `resume` and `recover` find by name.
        recover: Whether to claim and execute unfinished runs of known workflows whose owner is dead. This happens
            inside `async with`, at the start and then every `recover_interval` seconds.
        tracer_provider: OpenTelemetry provider of spans; None means the global one.
        meter_provider: OpenTelemetry provider of metrics; None means the global one.
        clock: Source of time; None means the system clock.

    Attributes:
        config: The effective settings.
        tracer: OpenTelemetry tracer, for extensions.
        metrics: Instruments of the runner, for extensions.

    Raises:
        DefinitionError: An argument has a wrong type.
        StoreError: The configured kind of store does not exist.

    Example:
        >>> import asyncio
        >>> from spine_async import Step, Workflow, WorkflowRunner
        >>> flow = Workflow("greet", [Step.lambda_("hello", lambda context, config: {"to": context.params["name"]})])
        >>> result = asyncio.run(WorkflowRunner(checkpoint_enabled=False).execute(flow, params={"name": "Ada"}))
        >>> result.status.value, result.context.get_output("hello", "to")
        ('completed', 'Ada')
    """

    def __init__(
        self,
        db_engine: AsyncEngine | None = None,
        dispatcher: Dispatcher | None = None,
        checkpoint_enabled: bool | None = None,  # noqa: FBT001 - positional in the public interface
        dry_run: bool | None = None,  # noqa: FBT001 - the same
        *,
        config: WorkflowRunnerConfig | None = None,
        store: RunStore | None = None,
        workflows: Iterable[Workflow] = (),
        recover: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_runner_arguments(
            db_engine=db_engine,
            dispatcher=dispatcher,
            checkpoint_enabled=checkpoint_enabled,
            dry_run=dry_run,
            config=config,
            store=store,
            workflows=workflows,
            recover=recover,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            clock=clock,
        )
        self.config = with_arguments(
            config or WorkflowRunnerConfig(), checkpoint_enabled=checkpoint_enabled, dry_run=dry_run
        )
        # Imported here, because importing OpenTelemetry slows down a program that only defines workflows.
        from spine_async.telemetry.providers import open_metrics, open_tracer  # noqa: PLC0415

        self.tracer = open_tracer(tracer_provider)
        self.metrics = open_metrics(meter_provider)
        self._workflows: dict[str, Workflow] = {}
        self._runtime = assemble_runtime(
            self.config,
            executors=self._executors(),
            has_own_map=type(self)._execute_map is not WorkflowRunner._execute_map,  # noqa: SLF001 - its own class
            db_engine=db_engine,
            store=store,
            dispatcher=dispatcher,
            clock=clock,
            tracer=self.tracer,
            metrics=self.metrics,
        )
        self._active_runs = ActiveRuns(self._runtime)
        self._recovery = Recovery(self._runtime, self._active_runs, self._workflows, self._recover)
        self._recovers = recover
        self._entries = 0
        for workflow in workflows:
            self.register(workflow)

    async def execute(
        self,
        workflow: Workflow,
        *,
        params: Mapping[str, object] | None = None,
        partition: Mapping[str, object] | None = None,
        context: WorkflowContext | None = None,
        start_from: str | None = None,
        run_id: str | None = None,
    ) -> WorkflowResult:
        """Execute a workflow and return its result.

        The run is stored before its first step starts, and each step before the next one starts. A failed step does not
        raise an exception; the status of the result is `failed`.

        Args:
            workflow: The workflow to execute.
            params: Params of the run; they override the defaults of the workflow.
            partition: Partition of the run, for instance `{"symbol": "IBM"}`; stored with the run.
            context: Context whose params, outputs and partition the run starts with.
            start_from: First step of the run; None means the first in the list.
            run_id: Id of the run; None generates one. A stored run with this id must have the same workflow and params.
                If it has ended, its stored result is returned; otherwise it continues.

        Raises:
            DefinitionError: The workflow cannot be executed, or the params are invalid (`InvalidParamsError`).
            SerializationError: A param has no strict JSON form.
            InvalidRunIdError: The run id is invalid.
            RunConflictError: The run id belongs to a run with other params or of another workflow.
            RunBusyError: This runner or another owner executes the run.
            WorkflowChangedError: The stored run has finished steps that the definition no longer has.
            StoreError: The store cannot be reached or written.

        Cancellation:
            Cancels the running step at once. The run is recorded as stopped before the cancellation propagates.
        """
        check_execute_arguments(workflow, context, start_from)
        run_id = check_run_id(run_id) if run_id is not None else str(uuid.uuid4())
        request = Request(workflow, params, partition, context, start_from, run_id)
        async with self._active_runs.execution(run_id) as execution:
            opened = await start_or_load(self._runtime, request)
            self._workflows[workflow.name] = workflow
            return await self._run(opened, execution)

    async def resume(
        self,
        run_id: str,
        *,
        params_override: Mapping[str, object] | None = None,
        workflow: Workflow | None = None,
    ) -> WorkflowResult:
        """Continue a run that failed, stopped, or was interrupted by the end of its process.

        Committed steps are not repeated; the run continues after the last one.

        Args:
            run_id: Id of the run.
            params_override: Params that change from now on.
            workflow: Definition of the run; None finds it by name among the workflows that this runner has executed or
                registered.

        Raises:
            RunNotFoundError: The run is not stored.
            RunNotResumableError: The run has completed, or its workflow is not known.
            WorkflowChangedError: The definition does not match the finished steps.
            RunConflictError: `workflow` has another name than the workflow of the run.
            RunBusyError: This runner or another owner executes the run.
            StoreError: The store cannot be reached or written.

        Cancellation:
            See `execute`.
        """
        check_run_id(run_id)
        check_workflow(workflow)
        async with self._active_runs.execution(run_id) as execution:
            stored = await load(self._runtime, run_id)
            definition = workflow or self._known(stored)
            opened = await run_uncancelled(
                self._runtime, claim_and_replay(self._runtime, definition, stored, params_override)
            )
            self._workflows[definition.name] = definition
            return await self._run(opened, execution)

    async def stop(self, run_id: str, reason: str | None = None) -> None:
        """Stop a run: at once if this runner executes it, otherwise when its owner renews the lease the next time.

        The running step is cancelled with the reason `user`, and the run is recorded as stopped; `resume` continues it.
        A run that has ended does not change. A run whose owner is dead is recorded as stopped by this call.

        Args:
            run_id: Id of the run.
            reason: The `stop_reason` to record; None records `user`.

        Raises:
            RunNotFoundError: The run is not stored.
            StoreError: The store cannot be reached or written.
        """
        check_run_id(run_id)
        check_type("reason", reason, str, "a string")
        async with self._active_runs.session():
            await stop_run(self._runtime, self._active_runs, run_id, reason)

    async def recover(self) -> list[WorkflowResult]:
        """Claim unfinished runs of known workflows whose owner is dead, once, and execute them.

        At most `recover_concurrency` of them run at the same time. A run that was claimed `max_claims` times without
        finishing a step fails as a poison run.

        Returns:
            The results of the runs that were claimed.
        """
        async with self._active_runs.session():
            return await self._recovery.once()

    def register(self, workflow: Workflow) -> None:
        """Register a workflow, so that `resume` finds it by name. A later workflow replaces one with the same name."""
        if not isinstance(workflow, Workflow) or not workflow.name:
            raise DefinitionError(f"{workflow!r} cannot be registered; it must be a workflow with a name")
        self._workflows[workflow.name] = workflow

    def middleware(self, function: MiddlewareT) -> MiddlewareT:
        """Wrap the attempts of each step in a function; usable as a decorator.

        Args:
            function: `async def function(step, context, next_fn)`. The function that is registered first is outermost.

        Raises:
            DefinitionError: The function is not callable with three arguments.
        """
        if not callable(function):
            raise DefinitionError(f"{function!r} cannot be middleware; it must be an async function")
        try:
            check_callable("middleware", function)
        except ValueError as exc:
            raise DefinitionError(str(exc)) from None
        self._runtime.middleware.append(function)
        return function

    async def get_run(self, run_id: str) -> RunRecord:
        """The stored run; raises `RunNotFoundError` if there is none."""
        async with self._active_runs.session():
            return await query.run_record(self._runtime, check_run_id(run_id))

    async def list_runs(
        self,
        *,
        workflow_name: str | None = None,
        status: RunStatus | _Status | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        """Stored runs, newest first.

        Args:
            workflow_name: Only runs of this workflow.
            status: Only runs with this status.
            limit: Maximum number of runs, from 1 to 1,000.
            before: Only runs created before the run with this id; pass the id of the last one to get the next page.

        Raises:
            ValueError: The limit is out of range, the status does not exist, or an argument has a wrong type.
        """
        check_type("workflow_name", workflow_name, str, "the name of a workflow")
        check_number("limit", limit)
        if before is not None:
            check_run_id(before)
        if not 1 <= limit <= 1000:
            raise ValueError(f"limit is {limit}; it must lie between 1 and 1,000")
        chosen = RunFilter(workflow_name, RunStatus(status) if status is not None else None, before, limit)
        async with self._active_runs.session():
            return await query.run_records(self._runtime, chosen)

    async def list_checkpoints(self, run_id: str, *, limit: int = 100, after: int = 0) -> list[Checkpoint]:
        """A page of the finished step visits of a run, including those of map items, each with the context after it.

        The snapshots of one call share values, so do not change them.

        Args:
            run_id: Id of the run.
            limit: Maximum number of checkpoints, from 1 to 1,000.
            after: Only checkpoints with a greater `seq`; pass the `seq` of the last one to get the next page.

        Raises:
            RunNotFoundError: The run is not stored.
            ValueError: The limit is out of range.
        """
        check_number("limit", limit)
        if not 1 <= limit <= 1000:
            raise ValueError(f"limit is {limit}; it must lie between 1 and 1,000")
        checked_page(run_id, after)
        async with self._active_runs.session():
            return await checkpoints(self._runtime, run_id, after, limit)

    async def get_checkpoint(self, run_id: str, step: str) -> Checkpoint | None:
        """One finished step visit, with the context after it.

        Args:
            run_id: Id of the run.
            step: Name of a step, which selects its last finished visit outside of map items; or the path of a visit,
                such as `review#2` or `process_all[17]/resize`.

        Returns:
            The checkpoint, or None if there is no such finished visit.

        Raises:
            RunNotFoundError: The run is not stored.
        """
        async with self._active_runs.session():
            return await last_checkpoint(self._runtime, check_run_id(run_id), step)

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Stored events of the run with a number above `after`, in order.

        Raises:
            RunNotFoundError: The run is not stored.
        """
        checked_page(run_id, after)
        async with self._active_runs.session():
            async for event in query.events(self._runtime, run_id, after):
                yield event

    async def delete_run(self, run_id: str, *, force: bool = False) -> None:
        """Delete a run with its checkpoints and events.

        Args:
            run_id: Id of the run.
            force: Whether to delete a run that has not ended.

        Raises:
            RunNotFoundError: The run is not stored.
            RunConflictError: The run has not ended and `force` is False.
        """
        check_run_id(run_id)
        async with self._active_runs.session():
            await query.delete(self._runtime, run_id, force=force)

    async def __aenter__(self) -> Self:
        """Open the store and keep it open; with `recover=True`, start the recovery of abandoned runs.

        A runner may be entered several times; only the last exit drains. If the store cannot be opened, a warning is
        logged, and the first call that needs the store raises.

        Cancellation:
            The runner is not entered.
        """
        self._entries += 1  # before the first await, so that a concurrent exit does not drain
        try:
            await self._active_runs.open()
        except BaseException:
            await self._leave()
            raise
        if self._recovers:
            self._recovery.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain and close: start no new step, wait up to `drain_timeout` for running steps, then stop the runs.

        The remaining runs stop with the reason `shutdown`.
        """
        try:
            await self._leave()
        finally:
            await self._active_runs.release()

    async def _leave(self) -> None:
        self._entries -= 1
        if self._entries == 0:
            await self._recovery.end_with(self._active_runs.drain())

    async def _execute_lambda(self, step: LambdaStep, context: WorkflowContext) -> StepResult:
        """Execute one attempt of a lambda step; override to change how handlers are called."""
        return as_result(step, await run_lambda(self._runtime, step, context))

    async def _execute_pipeline(self, step: PipelineStep, context: WorkflowContext) -> StepResult:
        """Execute one attempt of a pipeline step."""
        return await run_pipeline(self._runtime, step, context)

    async def _execute_choice(self, step: ChoiceStep, context: WorkflowContext) -> StepResult:
        """Execute a choice; the member `next_step` of its output names the next step."""
        return await run_choice(step, context)

    async def _execute_map(self, step: MapStep, context: WorkflowContext) -> StepResult:
        """Execute one attempt of a map step."""
        return await run_map(self._runtime, step, context)

    async def _execute_wait(self, step: WaitStep, context: WorkflowContext) -> StepResult:
        """Execute a wait."""
        return await run_wait(self._runtime, step, context)

    async def _run(self, opened: Scope | WorkflowResult, execution: Execution) -> WorkflowResult:
        if isinstance(opened, WorkflowResult):
            return opened
        self._active_runs.watch(opened.run, execution)
        try:
            return await execute_run(self._runtime, opened)
        finally:
            self._active_runs.unwatch(opened.run)

    async def _recover(self, stored: StoredRun) -> WorkflowResult:
        async with self._active_runs.execution(stored.run_id) as execution:
            claiming = claim_and_replay(self._runtime, self._known(stored), stored, spares_living=True)
            opened = await run_uncancelled(self._runtime, claiming)
            return await self._run(opened, execution)

    def _known(self, stored: StoredRun) -> Workflow:
        if stored.workflow_name not in self._workflows:
            message = (
                f"run {stored.run_id!r} belongs to workflow {stored.workflow_name!r}, which this runner does not know; "
                "register() the workflow, or pass it as workflow="
            )
            raise RunNotResumableError(stored.run_id, message)
        return self._workflows[stored.workflow_name]

    def _executors(self) -> dict[StepType, Executor]:
        return {
            StepType.LAMBDA: self._execute_lambda,
            StepType.PIPELINE: self._execute_pipeline,
            StepType.CHOICE: self._execute_choice,
            StepType.MAP: self._execute_map,
            StepType.WAIT: self._execute_wait,
        }
