"""Settings, ports and limits that all runs of one runner share."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from spine_async._engine.commit.recorder import Recorder
from spine_async._engine.runtime.changes import Changes
from spine_async._engine.runtime.child_runs import ChildRuns
from spine_async._engine.runtime.own_claims import OwnClaims
from spine_async._engine.runtime.plain_due_runs import PlainDueRuns
from spine_async._engine.state.deadline import Deadlines
from spine_async._engine.state.outbox import OutboxOptions
from spine_async._engine.state.reachability import Reachability
from spine_async._engine.state.scope import Visit
from spine_async._engine.state.wall_clock import WallClock
from spine_async._engine.tasks import Task, running_loop
from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.context import WorkflowContext
from spine_async._model.output_model import OutputModel
from spine_async._model.policy import RetryPolicy
from spine_async._model.queue import Queue
from spine_async._model.status import ErrorPolicy, StepType
from spine_async._model.step import Definition, Step
from spine_async._model.step_result import StepResult
from spine_async._threads import WorkerThreads
from spine_async.ports import (
    Clock,
    Dispatcher,
    DueRunStore,
    Measurements,
    NoMeasurements,
    Observer,
    RunStore,
    keeps_due_runs,
)

StepFunction: TypeAlias = "Callable[[Step, WorkflowContext], Awaitable[StepResult]]"

# Each executor takes steps of its own type only, and is looked up by that type.
Executor: TypeAlias = "Callable[[Any, WorkflowContext], Awaitable[StepResult]]"


class Middleware(Protocol):
    """Wraps all attempts of each step."""

    def __call__(self, step: Step, context: WorkflowContext, next_fn: StepFunction, /) -> Awaitable[StepResult]:
        """Call `next_fn(step, context)` and return a result, with any work before or after the call."""
        ...


ResultT = TypeVar("ResultT")
ArgumentsT = ParamSpec("ArgumentsT")

_ENCODERS = 2  # more would not be faster, and each of them holds a copy of a large value
# Each step needs them, and Python 3.11 takes 140 ns to look up a member of an enumeration.
_SIGNAL, _RETRY = StepType.SIGNAL, ErrorPolicy.RETRY
_ATTEMPT_TYPES = (StepType.LAMBDA, StepType.PIPELINE, StepType.TRANSACTION)
_PRETENDED = (StepType.PIPELINE, StepType.TRANSACTION)


@dataclass(slots=True)
class Runtime:
    """The settings and services of a runner that the execution of its runs uses.

    Attributes:
        measurements: Takes what is reported as metrics.
        executors: Functions that execute one attempt, by step type; the runner's extension points.
        middleware: The first one is outermost.
        random: Returns a number from 0 to 1, for jitter.
        threads: Worker threads for `def` handlers.
        owner: Name of this runner as the owner of runs; set at the first use, and again in a forked process.
        has_own_nesting: Whether an extension point for steps that execute others (maps, parallel and workflow steps) is
            overridden; it may execute such a step several times.
        child_runs: Starts and reads the runs that workflow steps execute as runs of their own; set by the service.
        queue_limits: The queues with limits that the runner works on, by name.
        parks: Whether background runs may be parked: the runner claims due runs.
        is_draining: Whether the runner is shutting down; no further step begins then.
        running_visits: The visit that each task executes.
        deadlines: Deadlines of the running attempts.
        due_runs: The store, as a store of due runs and messages.
        keeps_queues: Whether the store keeps due runs itself, and therefore queues.
        changes: Reports changes of the store.
        own_claims: The claims of this runner, for its worker.
        is_left_at_work: Whether a run was left behind here, and a step or a thread of it may still be running.
        reachability: When the store returned from its last outage.
        releases: Tasks that release runs which this runner no longer executes.
        before_close: Called before the store is closed: they end what would use it afterwards.
        refused: Ids of runs that do not fit the definitions here; each is reported once.
        encoders: Limits threads that encode and decode large values; made as `slots` is.
        wall_clock: Sleeps until moments of the wall clock.
        max_concurrent_steps: As in `config`, like the three below.
        slots: Limits lambdas and pipelines that run at once; made at the first use, because it belongs to a loop.
    """

    config: WorkflowRunnerConfig
    store: RunStore
    journal: Recorder
    clock: Clock
    observer: Observer
    executors: Mapping[StepType, Executor]
    middleware: list[Middleware]
    dispatcher: Dispatcher | None
    random: Callable[[], float]
    threads: WorkerThreads
    measurements: Measurements = field(default_factory=NoMeasurements)
    owner: str = ""
    is_dry: bool = False
    has_own_nesting: bool = False
    child_runs: ChildRuns | None = None
    queue_limits: dict[str, Queue] = field(default_factory=dict)
    parks: bool = False
    is_draining: bool = False
    running_visits: dict[Task[Any], Visit] = field(default_factory=dict)
    deadlines: Deadlines = field(default_factory=Deadlines)
    due_runs: DueRunStore = field(init=False)
    keeps_queues: bool = field(init=False)
    changes: Changes = field(init=False)
    own_claims: OwnClaims = field(default_factory=OwnClaims)
    is_left_at_work: Callable[[str], bool] = field(default=lambda run_id: False)
    reachability: Reachability = field(default_factory=Reachability)
    releases: set[Task[None]] = field(default_factory=set)
    before_close: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    slots: anyio.CapacityLimiter | None = field(default=None)
    encoders: anyio.CapacityLimiter | None = field(default=None)
    _outbox_options: OutboxOptions | None = field(default=None)
    wall_clock: WallClock = field(init=False)
    max_concurrent_steps: int | None = field(init=False)
    max_value_bytes: int = field(init=False)
    default_step_timeout: float | None = field(init=False)
    checkpoint_every_step: bool = field(init=False)

    def __post_init__(self) -> None:
        self.wall_clock = WallClock(self.clock)
        self.keeps_queues = keeps_due_runs(self.store)
        self.due_runs = self.store if keeps_due_runs(self.store) else PlainDueRuns(self.store)
        self.changes = Changes(self.due_runs)
        # Each step reads them, and an attribute of a pydantic model takes several times as long.
        self.max_concurrent_steps = self.config.max_concurrent_steps
        self.max_value_bytes = self.config.max_value_bytes
        self.default_step_timeout = self.config.default_step_timeout
        self.checkpoint_every_step = self.config.checkpoint_every_step

    def concurrency_slot(self, visit: Visit, step: Step) -> AbstractAsyncContextManager[object]:
        """One of the `max_concurrent_steps`. Steps that execute others need none, so they cannot deadlock."""
        limit = self.max_concurrent_steps
        if limit is None or step.step_type not in _ATTEMPT_TYPES:
            return _NO_SLOT
        if self.slots is None:
            self.slots = anyio.CapacityLimiter(limit)
        return _ConcurrencySlot(self.slots, visit)

    def forget_loop(self) -> None:
        """Drop what belongs to the event loop, so that the runner works in another loop afterwards."""
        self.threads.forget_loop()
        self.changes.forget_loop()
        self.slots = self.encoders = self._outbox_options = None

    @property
    def outbox_options(self) -> OutboxOptions:
        """What the outboxes of all runs share in the running event loop."""
        if self._outbox_options is None:
            self._outbox_options = OutboxOptions(
                enqueue=self.journal.enqueue,
                loop=running_loop(),
                thread=threading.get_ident(),
                max_events=self.config.max_pending_events,
                max_bytes=self.max_value_bytes,
                stores=not self.is_ephemeral,
            )
        return self._outbox_options

    async def run_on_thread(
        self, function: Callable[ArgumentsT, ResultT], *args: ArgumentsT.args, **named: ArgumentsT.kwargs
    ) -> ResultT:
        """The result of `function`, which encodes or decodes large values on a thread.

        The threads are not those of handlers, which may all be busy for long.

        Cancellation:
            Takes effect at once; the thread's result is discarded.
        """
        if self.encoders is None:
            self.encoders = anyio.CapacityLimiter(_ENCODERS)
        return await anyio.to_thread.run_sync(
            partial(function, *args, **named), abandon_on_cancel=True, limiter=self.encoders
        )

    def limits_of(self, queue: str) -> Queue | None:
        """The limits of a queue; None if this runner gives it none, or if the store keeps no queues."""
        return self.queue_limits.get(queue) if self.keeps_queues else None

    @property
    def store_name(self) -> str:
        """Name of the class of the store, for messages."""
        return str(getattr(self.store, "store_name", type(self.store).__name__))

    @property
    def is_ephemeral(self) -> bool:
        """Whether the runner stores nothing."""
        return self.is_dry or not self.config.checkpoint_enabled

    def limits(self, step: Step) -> tuple[float | None, RetryPolicy | None]:
        """Seconds that one attempt of the step may take (None: no limit), and its retry policy (None: one attempt)."""
        timeout, retry, kind = step.timeout, step.retry, step.step_type
        if kind is _SIGNAL:
            return None, None  # its executor applies the timeout to the whole wait
        if timeout is None and kind in _ATTEMPT_TYPES:
            timeout = self.default_step_timeout
        elif timeout == math.inf:
            timeout = None
        if retry is None and step.on_error is _RETRY:
            retry = self.config.default_retry_policy
        return timeout, retry

    def pretends(self, step: Step) -> bool:
        """Whether a dry run does not call the step, which then has no output of its own: pipelines and transactions."""
        return self.is_dry and step.step_type in _PRETENDED

    def models(self, workflow: Definition) -> Mapping[str, OutputModel]:
        """Models that the outputs of the workflow's steps are decoded to, by step name."""
        if not self.is_dry:
            return workflow.models
        pretended = {step.name for step in workflow.steps if self.pretends(step)}
        return {name: model for name, model in workflow.models.items() if name not in pretended}

    def may_repeat(self, step: Step) -> bool:
        """Whether a visit of the step may make several attempts: by its policy, or because user code is around it."""
        policy = self.limits(step)[1]
        return self.has_own_nesting or bool(self.middleware) or (policy is not None and policy.max_attempts > 1)

    def commits_after(self, step: Step) -> bool:
        """Whether a visit of the step is committed before the next step begins."""
        return self.checkpoint_every_step if step.checkpoint is None else step.checkpoint


_NO_SLOT: AbstractAsyncContextManager[object] = nullcontext()


class _ConcurrencySlot(AbstractAsyncContextManager[object]):
    """A token for each attempt: one task may hold several, where a step executes another workflow."""

    def __init__(self, limiter: anyio.CapacityLimiter, visit: Visit) -> None:
        self._limiter = limiter
        self._visit = visit
        self._is_held = False

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._limiter.release_on_behalf_of(self)

    async def acquire(self) -> None:
        """Take the slot again after `release`."""
        await self._limiter.acquire_on_behalf_of(self)
        self._is_held = True

    async def __aenter__(self) -> object:
        await self.acquire()
        self._visit.slot = self
        return self

    async def __aexit__(self, *_: object) -> None:
        self._visit.slot = None
        self.release()
