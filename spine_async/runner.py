"""The runner: everything a user does with workflows, put together from engine, store, dispatcher and telemetry."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from spine_async._clock import SystemClock
from spine_async._engine.commit.journal import Journal
from spine_async._engine.commit.null_journal import NullJournal
from spine_async._engine.handlers.choice import run_choice
from spine_async._engine.handlers.lambda_ import run_lambda
from spine_async._engine.handlers.map_ import run_map
from spine_async._engine.handlers.pipeline import run_pipeline
from spine_async._engine.handlers.wait import run_wait
from spine_async._engine.run.supervision import execute_run
from spine_async._engine.runtime.runtime import Middleware, Runtime
from spine_async._engine.service import query
from spine_async._engine.service.active_runs import ActiveRuns, Execution
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
from spine_async._model.status import RunStatus, StepType
from spine_async._model.step import ChoiceStep, LambdaStep, MapStep, PipelineStep, WaitStep
from spine_async._model.step_result import StepResult
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async._threads import WorkerThreads
from spine_async.errors import DefinitionError, RunNotResumableError
from spine_async.ports import Clock, Dispatcher, Observer, RunStore
from spine_async.storage.null import NullRunStore
from spine_async.storage.selection import open_store
from spine_async.telemetry.silent import SilentObserver

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from sqlalchemy.ext.asyncio import AsyncEngine

MiddlewareT = TypeVar("MiddlewareT", bound=Middleware)


class WorkflowRunner:
    """Executes workflows durably inside your own event loop.

    With nothing given, runs are kept in the database of `SPINE_DATABASE_URL`, else in SQLite under `.spine/runs.db` in
    the working directory, made on first write. An argument wins over the config.

    Args:
        db_engine: SQLAlchemy `AsyncEngine` on aiosqlite or asyncpg to keep runs in; it stays yours.
        dispatcher: Runs the pipelines of pipeline steps.
        checkpoint_enabled: False stores nothing at all.
        dry_run: True runs lambdas, pretends pipelines, skips waits and writes nothing.
        config: Everything else that can be set.
        store: A store to keep runs in, instead of a database.
        workflows: Workflows that `resume` and `recover` find by their names.
        recover: Whether, inside `async with`, unfinished runs of known workflows whose owner is gone are taken over, at
            the start and then every `recover_interval`.
        tracer_provider: OpenTelemetry provider; None means the global one.
        meter_provider: Likewise for metrics.
        clock: Source of time; None means the machine's.

    Attributes:
        config: The settings in force.
        tracer: An OpenTelemetry tracer, for extensions.
        metrics: The runner's instruments, for extensions.

    Raises:
        StoreError: The config asks for a store that there is not.

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
        checkpoint_enabled: bool | None = None,  # noqa: FBT001 - the order of the contract
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
        self.config = _with_arguments(
            config or WorkflowRunnerConfig(), checkpoint_enabled=checkpoint_enabled, dry_run=dry_run
        )
        # Imported here: whoever only defines workflows has no use for it.
        from spine_async.telemetry.access import open_metrics, open_tracer  # noqa: PLC0415

        self.tracer = open_tracer(tracer_provider)
        self.metrics = open_metrics(meter_provider)
        self._workflows: dict[str, Workflow] = {}
        self._runtime = self._assembled(db_engine, store, dispatcher, clock or SystemClock())
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
        """Run a workflow to its end.

        The run is stored before its first step begins, and each step before the next one. A step that fails does not
        raise; the result says so.

        Args:
            workflow: What to do.
            params: Params of the run, over the workflow's defaults.
            partition: What to track the run under.
            context: Start with this context's params, outputs and partition.
            start_from: Start at this step.
            run_id: Id of the run; None makes one. If it is stored already, with the same workflow and params, then a
                run that has ended gives its stored result, and an unfinished one goes on.

        Raises:
            DefinitionError: The workflow cannot be executed as it is, or the params do not fit (`InvalidParamsError`).
            SerializationError: A param has no strict JSON form.
            InvalidRunIdError: The run id cannot be one.
            RunConflictError: The run id is taken by a run with other params or of another workflow.
            RunBusyError: This runner executes that run already.
            WorkflowChangedError: The stored run has finished steps that the definition no longer has.
            StoreError: The store cannot be reached or written.

        Cancellation:
            Reaches the running step at once; the run is recorded as stopped, then the cancellation goes on.
        """
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
        """Go on with a run that failed, was stopped, or whose process died.

        Every committed step is kept; the run continues with the one after it.

        Args:
            run_id: The run.
            params_override: Params that change from here on.
            workflow: Its definition; None finds it by name among those executed or registered on this runner.

        Raises:
            RunNotFoundError: No such run is stored.
            RunNotResumableError: It has completed, or its workflow is not known here.
            WorkflowChangedError: The definition no longer fits its finished steps.
            RunConflictError: The given workflow has another name than the run's.
            RunBusyError: This runner executes it already.
            StoreError: The store cannot be reached or written.

        Cancellation:
            As for `execute`.
        """
        check_run_id(run_id)
        async with self._active_runs.execution(run_id) as execution:
            stored = await load(self._runtime, run_id)
            definition = workflow or self._known(stored)
            opened = await run_uncancelled(
                self._runtime, claim_and_replay(self._runtime, definition, stored, params_override)
            )
            self._workflows[definition.name] = definition
            return await self._run(opened, execution)

    async def stop(self, run_id: str, reason: str | None = None) -> None:
        """Ask a run to stop: at once where it is executed here, else as soon as its owner renews its lease.

        The running step is cancelled with the reason `user`, and the run is recorded as stopped; `resume` goes on with
        it. A run that has ended already is left as it is. A run whose owner is gone is recorded as stopped here.

        Args:
            run_id: The run.
            reason: What is recorded as its `stop_reason`; None records `user`.

        Raises:
            RunNotFoundError: No such run is stored.
            StoreError: The store cannot be reached or written.
        """
        async with self._active_runs.session():
            await stop_run(self._runtime, self._active_runs, check_run_id(run_id), reason)

    async def recover(self) -> list[WorkflowResult]:
        """Take over unfinished runs of known workflows whose owner is gone, and bring them to their ends; one round.

        At most `recover_concurrency` of them are at work at once. A run that was taken over again and again without
        finishing a step ends failed as a poison run (`max_claims`).

        Returns:
            The results of the runs that were taken over.
        """
        async with self._active_runs.session():
            return await self._recovery.once()

    def register(self, workflow: Workflow) -> None:
        """Make a workflow known, so that `resume` finds it by its name; the last one of a name counts."""
        if not isinstance(workflow, Workflow) or not workflow.name:
            raise DefinitionError(f"{workflow!r} cannot be registered; it must be a workflow with a name")
        self._workflows[workflow.name] = workflow

    def middleware(self, function: MiddlewareT) -> MiddlewareT:
        """Wrap each step's attempts in `async def function(step, context, next_fn)`; the first one is outermost."""
        if not callable(function):
            raise DefinitionError(f"{function!r} cannot be middleware; it must be an async function")
        self._runtime.middleware.append(function)
        return function

    async def get_run(self, run_id: str) -> RunRecord:
        """The stored run; `RunNotFoundError` where there is none."""
        async with self._active_runs.session():
            return await query.run_record(self._runtime, run_id)

    async def list_runs(
        self,
        *,
        workflow_name: str | None = None,
        status: RunStatus | str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        """Stored runs, the newest first.

        Args:
            workflow_name: Only runs of this workflow.
            status: Only runs in this state.
            limit: At most so many, from 1 to 1,000.
            before: Only runs older than the one of this id, which continues a listing.
        """
        if not 1 <= limit <= 1000:
            raise ValueError(f"limit is {limit}; it must lie between 1 and 1,000")
        chosen = RunFilter(workflow_name, RunStatus(status) if status is not None else None, before, limit)
        async with self._active_runs.session():
            return await query.run_records(self._runtime, chosen)

    async def list_checkpoints(self, run_id: str) -> list[Checkpoint]:
        """The run's finished step visits in order, each with the context after it; `RunNotFoundError` if unknown."""
        async with self._active_runs.session():
            return await query.checkpoints(self._runtime, run_id)

    async def get_checkpoint(self, run_id: str, step: str) -> Checkpoint | None:
        """The checkpoint of the last finished visit of `step`, or None where it has not finished."""
        kept = [each for each in await self.list_checkpoints(run_id) if each.step_name == step]
        return kept[-1] if kept else None

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """The run's stored events with a number above `after`, in order; `RunNotFoundError` if unknown."""
        async with self._active_runs.session():
            async for event in query.events(self._runtime, run_id, after):
                yield event

    async def delete_run(self, run_id: str, *, force: bool = False) -> None:
        """Remove a run with all it has.

        Raises:
            RunNotFoundError: No such run is stored.
            RunConflictError: It has not ended; `force=True` removes it all the same.
        """
        async with self._active_runs.session():
            await query.delete(self._runtime, run_id, force=force)

    async def __aenter__(self) -> Self:
        """Open the store and hold it open; with `recover=True`, look for abandoned runs meanwhile.

        It may be entered several times; only the last exit drains. If the store cannot be opened, a warning is
        logged, and the first call that needs it raises.

        Cancellation:
            The runner has not been entered then.
        """
        self._entries += 1  # from here on whoever else leaves is not the last
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
        """Drain: no new step starts, running ones get `drain_timeout`, the rest is stopped with reason `shutdown`."""
        try:
            await self._leave()
        finally:
            await self._active_runs.release()

    async def _leave(self) -> None:
        self._entries -= 1
        if self._entries == 0:
            await self._recovery.end_with(self._active_runs.drain())

    async def _execute_lambda(self, step: LambdaStep, context: WorkflowContext) -> StepResult:
        """One attempt of a lambda step; override to change how handlers are called."""
        return as_result(await run_lambda(self._runtime, step, context))

    async def _execute_pipeline(self, step: PipelineStep, context: WorkflowContext) -> StepResult:
        """One attempt of a pipeline step."""
        return await run_pipeline(self._runtime, step, context)

    async def _execute_choice(self, step: ChoiceStep, context: WorkflowContext) -> StepResult:
        """A choice; its output's `next_step` is where the run goes."""
        return await run_choice(step, context)

    async def _execute_map(self, step: MapStep, context: WorkflowContext) -> StepResult:
        """One attempt of a map step."""
        return await run_map(self._runtime, step, context)

    async def _execute_wait(self, step: WaitStep, context: WorkflowContext) -> StepResult:
        """A wait."""
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
            opened = await run_uncancelled(self._runtime, claim_and_replay(self._runtime, self._known(stored), stored))
            return await self._run(opened, execution)

    def _known(self, stored: StoredRun) -> Workflow:
        if stored.workflow_name not in self._workflows:
            message = (
                f"run {stored.run_id!r} is one of workflow {stored.workflow_name!r}, which this runner does not know; "
                "register() it, or pass it as workflow="
            )
            raise RunNotResumableError(stored.run_id, message)
        return self._workflows[stored.workflow_name]

    def _assembled(
        self, db_engine: AsyncEngine | None, store: RunStore | None, dispatcher: Dispatcher | None, clock: Clock
    ) -> Runtime:
        is_durable = self.config.checkpoint_enabled and not self.config.dry_run
        chosen = (store or open_store(self.config, db_engine)) if is_durable else NullRunStore()
        observer: Observer = SilentObserver()
        if self.config.trace_enabled:
            from spine_async.telemetry.tracing import TracingObserver  # noqa: PLC0415 - as above

            observer = TracingObserver(self.tracer, self.metrics)
        return Runtime(
            config=self.config,
            store=chosen,
            journal=_journal(chosen, clock) if is_durable else NullJournal(),
            clock=clock,
            observer=observer,
            executors={
                StepType.LAMBDA: self._execute_lambda,
                StepType.PIPELINE: self._execute_pipeline,
                StepType.CHOICE: self._execute_choice,
                StepType.MAP: self._execute_map,
                StepType.WAIT: self._execute_wait,
            },
            middleware=[],
            dispatcher=dispatcher,
            random=random.random,
            threads=WorkerThreads(
                self.config.worker_threads, self.config.max_abandoned_threads, self.metrics.record_abandoned_thread
            ),
            is_dry=self.config.dry_run,
            has_own_map=type(self)._execute_map is not WorkflowRunner._execute_map,  # noqa: SLF001 - its own class
        )


def _journal(store: RunStore, clock: Clock) -> Journal:
    # An optional attribute of a store, not part of the port: it only makes commits faster.
    return Journal(store, clock, commits_out_of_process=getattr(store, "commits_out_of_process", False))


def _with_arguments(config: WorkflowRunnerConfig, **given: bool | None) -> WorkflowRunnerConfig:
    return config.model_copy(update={name: value for name, value in given.items() if value is not None})
