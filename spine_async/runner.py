"""The runner: the public interface for executing workflows and reading stored runs."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import anyio

from spine_async._arguments import (
    check_execute_arguments,
    check_queues,
    check_runner_arguments,
    check_type,
    check_workflow,
    wait_limit,
)
from spine_async._assembly import assemble_runtime, with_arguments
from spine_async._engine.handlers.choice import run_choice
from spine_async._engine.handlers.lambda_ import run_lambda
from spine_async._engine.handlers.map_ import run_map
from spine_async._engine.handlers.parallel import run_parallel
from spine_async._engine.handlers.pipeline import run_pipeline
from spine_async._engine.handlers.signal import run_signal
from spine_async._engine.handlers.transaction import run_transaction
from spine_async._engine.handlers.wait import run_wait
from spine_async._engine.handlers.workflow import run_workflow
from spine_async._engine.runtime.runtime import Executor, Middleware
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.callers import Callers
from spine_async._engine.service.child_runs import StoredChildRuns
from spine_async._engine.service.followers import Followers
from spine_async._engine.service.known_workflows import add_workflow
from spine_async._engine.service.retention import Retention
from spine_async._engine.service.run_counts import RunCounts
from spine_async._engine.service.schedule_timer import ScheduleTimer
from spine_async._engine.service.signals import send_signal
from spine_async._engine.service.stop import stop_run
from spine_async._engine.service.stranded_runs import StrandedRuns
from spine_async._engine.service.worker import Worker
from spine_async._engine.start.enqueueing import enqueue_runs
from spine_async._engine.start.firing import checked_schedules
from spine_async._engine.start.fork_request import ForkRequest
from spine_async._engine.start.request import Request
from spine_async._engine.step.encoding import as_result
from spine_async._model.choice_step import ChoiceStep
from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.context import WorkflowContext
from spine_async._model.lambda_step import LambdaStep
from spine_async._model.map_step import MapStep
from spine_async._model.naming import check_run_id
from spine_async._model.parallel_step import ParallelStep
from spine_async._model.pipeline_step import PipelineStep
from spine_async._model.queue import DEFAULT_QUEUE, Enqueued, Queue
from spine_async._model.run_row import StoredRun
from spine_async._model.schedule import Schedule
from spine_async._model.signal_step import SignalStep
from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step_result import StepResult
from spine_async._model.transaction_step import TransactionStep
from spine_async._model.wait_step import WaitStep
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async._model.workflow_step import WorkflowStep
from spine_async._overview import WorkOverview
from spine_async._reading import RunReader
from spine_async._scheduling import ScheduleManager
from spine_async.errors import DefinitionError, RunNotResumableError
from spine_async.handle import RunHandle
from spine_async.ports import Clock, Dispatcher, RunStore

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from sqlalchemy.ext.asyncio import AsyncEngine

MiddlewareT = TypeVar("MiddlewareT", bound=Middleware)


class WorkflowRunner(RunReader, ScheduleManager, WorkOverview):
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
        workflows: Workflows that the runner knows by name from the start. It also knows those that it has executed.
        work: Whether the runner works while it is entered with `async with`: it claims due runs of the workflows that
            it knows, including runs whose owner died. False is for processes that only start, enqueue and look.
        queues: The queues that it works on besides `default`: a `Queue` with limits, or the name of one without.
        schedules: Schedules whose runs it starts while it works. It also knows their workflows.
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
        work: bool = True,
        queues: Iterable[Queue | str] = (),
        schedules: Iterable[Schedule] = (),
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
            work=work,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            clock=clock,
        )
        self.config = with_arguments(
            config or WorkflowRunnerConfig(), checkpoint_enabled=checkpoint_enabled, dry_run=dry_run
        )
        # Imported here, because importing OpenTelemetry slows down a program that only defines workflows.
        from spine_async.telemetry.providers import count_runs, open_metrics, open_tracer  # noqa: PLC0415

        self.tracer = open_tracer(tracer_provider)
        self.metrics = open_metrics(meter_provider)
        self._workflows: dict[str, Workflow] = {}
        self._runtime = assemble_runtime(
            self.config,
            executors=self._executors(),
            has_own_nesting=self._has_own_nesting(),
            db_engine=db_engine,
            store=store,
            dispatcher=dispatcher,
            clock=clock,
            tracer=self.tracer,
            metrics=self.metrics,
        )
        self._active_runs = ActiveRuns(self._runtime)
        self._runtime.child_runs = StoredChildRuns(self._runtime, self._active_runs)
        self._run_counts = RunCounts(self._runtime, self._active_runs)
        count_runs(meter_provider, self._run_counts)
        self._followers = Followers(self._runtime, self._active_runs)
        self._callers = Callers(self._runtime, self._active_runs, self._workflows)
        given_queues = check_queues(queues)
        self._runtime.queue_limits = {each.name: each for each in given_queues if each.is_limited}
        self._queue_names = {DEFAULT_QUEUE, *(each.name for each in given_queues)}
        self._schedules = checked_schedules(self._runtime, schedules)
        timer = ScheduleTimer(self._runtime, self._schedules, self._workflows) if self._schedules else None
        self._worker = Worker(
            self._runtime, self._active_runs, self._workflows, self._queue_names, self._callers.run, timer=timer
        )
        self._retention = Retention(self._runtime)
        self._stranded_runs = StrandedRuns(self._runtime, self._active_runs)
        self._works = work
        self._entries = 0
        for schedule in self._schedules.values():
            if isinstance(schedule.workflow, Workflow):
                self.register(schedule.workflow)
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
                If it has ended, its stored result is returned. Otherwise the call waits for its end: it joins a run
                that is executed here or elsewhere, and executes one that is due.

        Raises:
            DefinitionError: The workflow cannot be executed, or the params are invalid (`InvalidParamsError`).
            SerializationError: A param has no strict JSON form.
            InvalidRunIdError: The run id is invalid.
            RunConflictError: The run id belongs to a run with other params or of another workflow.
            WorkflowChangedError: The stored run has finished steps that the definition no longer has.
            StoreError: The store cannot be reached or written.

        Cancellation:
            If `execute` created the run and no other call awaits it here, the running step is cancelled at once, and
            the run is recorded as stopped before the cancellation propagates. Otherwise only the wait ends.
        """
        check_execute_arguments(workflow, context, start_from)
        run_id = check_run_id(run_id) if run_id is not None else str(uuid.uuid4())
        async with self._active_runs.session():
            return await self._callers.execute(Request(workflow, params, partition, context, start_from, run_id))

    async def start(
        self,
        workflow: Workflow,
        *,
        params: Mapping[str, object] | None = None,
        partition: Mapping[str, object] | None = None,
        context: WorkflowContext | None = None,
        start_from: str | None = None,
        run_id: str | None = None,
    ) -> RunHandle:
        """Store a run, and execute it in the background of this runner.

        Returns once the run is stored. A stored id is joined as in `execute`. While the run only waits, and for longer
        than `park_after`, it uses no memory; any working runner continues it.

        Args:
            workflow: The workflow to execute.
            params: Params of the run.
            partition: Partition of the run.
            context: Context whose params, outputs and partition the run starts with.
            start_from: First step of the run.
            run_id: Id of the run; None generates one.

        Raises:
            DefinitionError: The runner is not entered with `async with`; or as in `execute`.
            RunConflictError: The run id belongs to a run with other params or of another workflow.
            StoreError: The store cannot be reached or written.
        """
        check_execute_arguments(workflow, context, start_from)
        self._check_entered("start")
        run_id = check_run_id(run_id) if run_id is not None else str(uuid.uuid4())
        async with self._active_runs.session():
            await self._callers.start(
                Request(workflow, params, partition, context, start_from, run_id, started_by="start")
            )
        return self.handle(run_id)

    async def enqueue(
        self,
        workflow: Workflow | str,
        *,
        params: Mapping[str, object] | None = None,
        partition: Mapping[str, object] | None = None,
        run_id: str | None = None,
        queue: str = DEFAULT_QUEUE,
        key: str | None = None,
        priority: int = 0,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        expires: float | timedelta | None = None,
        connection: object = None,
    ) -> RunHandle:
        """Store a run that any working runner executes.

        Args:
            workflow: The workflow, or its name where its handlers cannot be imported. By name, the params are completed
                and validated by the runner that executes the run.
            params: Params of the run.
            partition: Partition of the run.
            run_id: Id of the run; None generates one. A stored run with this id must be the same request.
            queue: Queue that the run belongs to; a runner works on `default` and on the queues that it lists.
            key: Key of the run within its queue, for instance the tenant. The keys of a queue are served fairly.
            priority: Runs with a lower number are claimed first.
            delay: Seconds, or a `timedelta`, before which the run is not claimed.
            at: Aware datetime before which the run is not claimed.
            expires: Seconds, or a `timedelta`, after the run became due. A run that was not claimed by then is stopped
                with the reason `expired` instead of being executed.
            connection: Your own SQLAlchemy `AsyncConnection` or `AsyncSession` on the same database. The run exists if
                and only if its transaction commits. On SQLite, begin the transaction with `BEGIN IMMEDIATE`.

        Raises:
            DefinitionError: An argument is invalid.
            RunConflictError: The run id belongs to a run with other params or of another workflow.
            StoreError: The store cannot be reached or written.
        """
        run = Enqueued(
            params=params,
            partition=partition,
            run_id=run_id,
            key=key,
            priority=priority,
            delay=delay,
            at=at,
            expires=expires,
        )
        async with self._active_runs.session(is_within=connection is not None):
            definition = self._definition(workflow)
            (stored_id,) = await enqueue_runs(self._runtime, definition, [run], queue, connection)
        return self.handle(stored_id)

    async def enqueue_many(
        self, workflow: Workflow | str, runs: Iterable[Enqueued], *, queue: str = DEFAULT_QUEUE
    ) -> list[RunHandle]:
        """Store many runs of one workflow that any working runner executes; see `enqueue`.

        The runs are stored in groups, so an error may leave some of them stored; the call can be repeated with the same
        ids.

        Args:
            workflow: The workflow, or its name.
            runs: The runs.
            queue: Queue that the runs belong to.

        Returns:
            A handle for each run, in order.
        """
        given = list(runs)
        for each in given:
            if not isinstance(each, Enqueued):
                raise DefinitionError(f"{each!r:.80} cannot be enqueued; give Enqueued(params=…) objects")
        async with self._active_runs.session():
            stored_ids = await enqueue_runs(self._runtime, self._definition(workflow), given, queue, None)
        return [self.handle(each) for each in stored_ids]

    def handle(self, run_id: str) -> RunHandle:
        """A handle of a run, which need not be stored yet; performs no I/O."""
        return RunHandle(self, check_run_id(run_id))

    async def result(self, run_id: str, timeout: float | timedelta | None = None) -> WorkflowResult:
        """Wait until a run has ended, wherever it is executed, and return its result; see `RunHandle.result`."""
        check_run_id(run_id)
        limit = wait_limit(timeout)
        async with self._active_runs.session():
            ended = await self._callers.ended_result(run_id)
            if ended is not None:  # also with a timeout of 0
                return ended
            with anyio.fail_after(limit):
                return await self._callers.result(run_id)

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
        async with self._active_runs.session():
            return await self._callers.resume(run_id, lambda stored: workflow or self._known(stored), params_override)

    async def resume_in_background(
        self,
        run_id: str,
        *,
        params_override: Mapping[str, object] | None = None,
        workflow: Workflow | None = None,
    ) -> RunHandle:
        """Continue a run as `resume` does, and return once this runner has claimed it.

        Args:
            run_id: Id of the run.
            params_override: Params that change from now on.
            workflow: Definition of the run; None finds it by name.

        Raises:
            DefinitionError: The runner is not entered with `async with`.
            RunConflictError: The run is not due yet, or its queue has no room; or as in `resume`, as all other errors.
        """
        check_run_id(run_id)
        check_workflow(workflow)
        self._check_entered("resume_in_background")
        async with self._active_runs.session():
            await self._callers.resume_in_background(
                run_id, lambda stored: workflow or self._known(stored), params_override
            )
        return self.handle(run_id)

    async def fork(
        self,
        run_id: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        outputs: Mapping[str, object] | None = None,
        new_run_id: str | None = None,
        workflow: Workflow | None = None,
    ) -> RunHandle:
        """Store a new run that begins with the finished steps of another one, and execute it in the background.

        The new run has everything that the other run had committed before the visit at `path`: visits with their map
        items, params, and events. It continues with that visit. The other run, which may be under way or have ended
        in any way, does not change. Signals that were sent to it are not copied.

        Args:
            run_id: Id of the run to fork.
            path: The visit before which the run is forked: a step, or a later visit of it, such as `review#2`. Either
                the run has finished this visit, or the visit comes next.
            params: Params that change from then on; the others stay.
            outputs: Outputs that replace those of finished steps, by step name: of the last visit before `path`.
            new_run_id: Id of the new run; None generates one. A stored run with this id must be the same fork.
            workflow: Definition of the new run; None finds it by name, as `resume` does. It may differ from that of
                the other run from `path` on.

        Raises:
            RunNotFoundError: The run is not stored.
            DefinitionError: The runner is not entered; the run has no such visit; the path is inside a map item; a
                step in `outputs` has no output before it.
            InvalidParamsError: The params or an output do not fit the models of the workflow.
            SerializationError: A param or an output has no strict JSON form.
            WorkflowChangedError: The definition does not match the finished steps before `path`.
            RunNotResumableError: The workflow of the run is not known.
            RunConflictError: `workflow` has another name than the workflow of the run, or `new_run_id` is taken.
            StoreCapabilityError: The store cannot fork runs.
            StoreError: The store cannot be reached or written.
        """
        check_run_id(run_id)
        check_workflow(workflow)
        self._check_entered("fork")
        new_id = check_run_id(new_run_id) if new_run_id is not None else str(uuid.uuid4())
        request = ForkRequest.of(run_id, path, params, outputs, new_id)
        async with self._active_runs.session():
            await self._callers.fork(lambda stored: workflow or self._known(stored), request)
        return self.handle(new_id)

    async def stop(self, run_id: str, reason: str | None = None, *, compensate: bool = False) -> bool:
        """Stop a run, wherever it is: executed here or elsewhere, waiting, or not started yet.

        The running step is cancelled with the reason `user`, and the run is recorded as stopped; `resume` continues it.
        A run that has ended does not change. A run whose owner is dead is recorded as stopped by this call.

        Args:
            run_id: Id of the run.
            reason: The `stop_reason` to record; None records `user`.
            compensate: Whether the compensations of the finished steps are executed before the run is recorded as
                stopped. Such a run cannot be resumed. Cleanup steps are executed in any case.

        Returns:
            Whether the run was under way.

        Raises:
            RunNotFoundError: The run is not stored.
            StoreError: The store cannot be reached or written.
        """
        check_run_id(run_id)
        check_type("reason", reason, str, "a string")
        async with self._active_runs.session():
            return await stop_run(self._runtime, self._active_runs, run_id, reason, compensates=compensate)

    async def signal(
        self,
        run_id: str,
        name: str,
        value: object = None,
        *,
        idempotency_key: str | None = None,
        connection: object = None,
    ) -> None:
        """Send a signal to a run, wherever it is. A `Step.wait_for_signal` takes it, now or when the run gets there.

        The signal is stored, so it also reaches a run that is parked, failed or stopped. Signals of one name are taken
        in the order of their arrival.

        Args:
            run_id: Id of the run.
            name: Name of the signal, or a `context.signal_token`, which addresses one visit of a step.
            value: The value; must have a strict JSON form.
            idempotency_key: Of two signals with the same key for one run, the second is not stored.
            connection: Your own SQLAlchemy `AsyncConnection` or `AsyncSession`, in whose transaction the signal is
                stored; see `enqueue`.

        Raises:
            InvalidSignalError: The name, the key or the value is invalid, or does not fit the model of the step.
            RunNotFoundError: The run is not stored.
            RunEndedError: The run has completed.
            StoreCapabilityError: The store stores no signals.
            StoreError: The store cannot be reached or written.
        """
        async with self._active_runs.session(is_within=connection is not None):
            await send_signal(
                self._runtime,
                self._workflows,
                run_id,
                name,
                value,
                idempotency_key=idempotency_key,
                connection=connection,
            )

    async def recover(self) -> list[WorkflowResult]:
        """Execute the runs of known workflows that are due now, including those whose owner is dead, one time.

        An entered runner does this by itself. At most `worker_concurrency` runs are executed at the same time. A run
        whose owners died `max_claims` times without finishing a step fails as a poison run.

        Returns:
            The results of the runs.

        Cancellation:
            Claims no further runs; those that are claimed continue in the background.
        """
        async with self._active_runs.session():
            return await self._worker.once()

    @property
    def works(self) -> bool:
        """Whether the runner claims due runs while it is entered: not if it was created with `work=False`."""
        return self._works

    @property
    def queue_names(self) -> Collection[str]:
        """Names of the queues that the runner works on, `default` included."""
        return frozenset(self._queue_names)

    @property
    def keeps_queues(self) -> bool:
        """Whether the store keeps queues and signals. The file store and the Redis store do not."""
        return self._runtime.keeps_queues

    @property
    def store_name(self) -> str:
        """Name of the class of the store, for messages."""
        return self._runtime.store_name

    @property
    def workflows(self) -> Mapping[str, Workflow]:
        """The workflows that the runner knows, by name; cannot be changed by the caller."""
        return MappingProxyType(self._workflows)

    def register(self, workflow: Workflow) -> None:
        """Register a workflow, so that `resume` finds it by name. A later workflow replaces one with the same name."""
        if not isinstance(workflow, Workflow) or not workflow.name:
            raise DefinitionError(f"{workflow!r} cannot be registered; it must be a workflow with a name")
        add_workflow(self._workflows, workflow)

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

    async def __aenter__(self) -> Self:
        """Open the store and keep it open; start to work, unless the runner was created with `work=False`.

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
        if self._works and not self._runtime.is_ephemeral:
            self._worker.start()
            self._retention.start()
        elif self._runtime.keeps_queues:
            self._stranded_runs.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain and close: start no new step, wait up to `drain_timeout` for running steps, then release the runs.

        A run that has not ended continues in any working runner. A call that awaits it here receives a result with the
        status `stopped` and the reason `shutdown`.
        """
        try:
            await self._leave()
        finally:
            await self._active_runs.release()

    def cut_drain_short(self) -> None:
        """End the wait for running steps early while the runner is being left, as if `drain_timeout` had passed.

        Call it for the second signal that a process gets. The steps are cancelled with the reason `shutdown` and have
        `cancel_grace` seconds to end. Their runs continue in any working runner. At other times it has no effect.
        """
        self._active_runs.cut_drain_short()

    async def _leave(self) -> None:
        self._entries -= 1
        if self._entries == 0:
            limit = self._active_runs.begin_drain()  # before the worker ends, which may wait for the store
            rest = self._retention.end_with(self._worker.end_with(self._active_runs.drain(limit)))
            await self._stranded_runs.end_with(rest)

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

    async def _execute_parallel(self, step: ParallelStep, context: WorkflowContext) -> StepResult:
        """Execute one attempt of a parallel step."""
        return await run_parallel(self._runtime, step, context)

    async def _execute_workflow(self, step: WorkflowStep, context: WorkflowContext) -> StepResult:
        """Execute one attempt of a step that runs another workflow."""
        return await run_workflow(self._runtime, step, context)

    async def _execute_wait(self, step: WaitStep, context: WorkflowContext) -> StepResult:
        """Execute a wait."""
        return await run_wait(self._runtime, step, context)

    async def _execute_signal(self, step: SignalStep, context: WorkflowContext) -> StepResult:
        """Execute a wait for a signal."""
        return await run_signal(self._runtime, step, context)

    def _check_entered(self, method: str) -> None:
        """Refuse a call that executes a run in the background of a runner that is not entered."""
        if self._entries == 0:
            otherwise = ", or enqueue()" if method == "start" else ""
            raise DefinitionError(f"{method}() needs an entered runner; use it inside `async with runner:`{otherwise}")

    async def _execute_transaction(self, step: TransactionStep, context: WorkflowContext) -> StepResult:
        """Execute one attempt of a transaction."""
        return await run_transaction(self._runtime, step, context)

    def _definition(self, workflow: Workflow | str) -> Workflow | str:
        """The workflow that a call to enqueue means: a known one, if it gives a name."""
        return self._workflows.get(workflow, workflow) if isinstance(workflow, str) else workflow

    def _known(self, stored: StoredRun) -> Workflow:
        if stored.workflow_name not in self._workflows:
            message = (
                f"run {stored.run_id!r} belongs to workflow {stored.workflow_name!r}, which this runner does not know; "
                "register() the workflow, or pass it as workflow="
            )
            raise RunNotResumableError(stored.run_id, message)
        return self._workflows[stored.workflow_name]

    @classmethod
    def _has_own_nesting(cls) -> bool:
        """Whether a subclass overrides how steps that execute others are executed."""
        names = ("_execute_map", "_execute_parallel", "_execute_workflow")
        return any(getattr(cls, name) is not getattr(WorkflowRunner, name) for name in names)

    def _executors(self) -> dict[StepType, Executor]:
        return {
            StepType.LAMBDA: self._execute_lambda,
            StepType.PIPELINE: self._execute_pipeline,
            StepType.CHOICE: self._execute_choice,
            StepType.MAP: self._execute_map,
            StepType.PARALLEL: self._execute_parallel,
            StepType.WORKFLOW: self._execute_workflow,
            StepType.WAIT: self._execute_wait,
            StepType.SIGNAL: self._execute_signal,
            StepType.TRANSACTION: self._execute_transaction,
        }
