"""Exceptions of the library: one base class, and a subclass for each kind of cause.

Each exception has typed attributes and builds its message from them; programs should use the attributes, not the text.
A failed step is a value (`StepResult`), not an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime


class SpineError(Exception):
    """Base class of all exceptions that this library raises."""

    def __reduce__(self) -> tuple[Callable[..., SpineError], tuple[object, ...], dict[str, object]]:
        """Support pickling independently of the arguments of the constructor."""
        return _rebuilt, (type(self), self.args), dict(self.__dict__)


class DefinitionError(SpineError, ValueError):
    """A workflow, step, policy or argument is invalid; the author of the workflow must change it.

    Attributes:
        workflow: Name of the workflow, or None if it is not known, for instance when a step is created.
        step: Name of the step, or None if the problem concerns the whole workflow.
        problem: Description of the problem.
    """

    def __init__(self, problem: str, *, workflow: str | None = None, step: str | None = None) -> None:
        self.problem = problem
        self.workflow = workflow
        self.step = step
        super().__init__(f"{_place(workflow, step)}{problem}")


class DuplicateStepError(DefinitionError):
    """Two steps of one workflow have the same name."""


class UnknownStepError(DefinitionError):
    """A choice, a `next_step` or `start_from` names a step that the workflow does not have."""


class InvalidPolicyError(DefinitionError):
    """A retry policy or a limit has an invalid value."""


class InvalidParamsError(DefinitionError):
    """The params given to `execute` do not fit the workflow's `params_model`, or are not a mapping of names."""


class RunError(SpineError):
    """A problem with one run; the operator must act.

    Attributes:
        run_id: Id of the run.
    """

    def __init__(self, run_id: str, message: str) -> None:
        self.run_id = run_id
        super().__init__(message)


class InvalidRunIdError(RunError, ValueError):
    """The run id is empty, too long, or contains characters that cannot be printed."""


class RunNotFoundError(RunError):
    """The store contains no run with this id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, f"run {run_id!r} is not stored in this store; list_runs() lists the stored runs")


class ScheduleNotFoundError(SpineError):
    """The runner knows no schedule with this name, and the store contains none.

    Attributes:
        schedule: Name of the schedule.
    """

    def __init__(self, schedule: str) -> None:
        self.schedule = schedule
        super().__init__(
            f"schedule {schedule!r:.200} is neither stored nor known to this runner; list_schedules() lists the stored "
            "ones, and WorkflowRunner(schedules=[…]) makes one known"
        )


class RunBusyError(RunError):
    """Another owner executes the run, or another call of this runner does.

    Attributes:
        owner: Owner of the run: host, process id and a token of the runner, or None.
        lease_until: When the owner's lease expires unless it is renewed, or None if this runner executes the run.
    """

    def __init__(self, run_id: str, owner: str | None = None, lease_until: datetime | None = None) -> None:
        self.owner = owner
        self.lease_until = lease_until
        by = f" by {owner}" if owner else ""
        until = f", whose lease ends at {lease_until.isoformat()} unless it is renewed" if lease_until else ""
        message = f"run {run_id!r} is being executed{by}{until}; wait for it to end, stop() it, or use another run id"
        super().__init__(run_id, message)


class QueueDeadlockError(RunError):
    """A step waits for a run of its own limited queue, which may have to wait for the slot of the step's run.

    Attributes:
        queue: Name of the queue.
    """

    def __init__(self, run_id: str, queue: str) -> None:
        self.queue = queue
        message = (
            f"a step of queue {queue!r} cannot wait for run {run_id!r} of the same queue, because the run may need the "
            "slot that the step's own run holds; put the run into another queue, or execute() it under a new run id"
        )
        super().__init__(run_id, message)


class RunConflictError(RunError):
    """The run id belongs to a run of another workflow or with other params, or a run cannot be deleted yet."""


class RunNotResumableError(RunError):
    """The run has completed, or its workflow is not known, so it cannot be resumed."""


class RunEndedError(RunError):
    """The run has completed, so it takes no more signals.

    Attributes:
        signal: Name of the signal.
    """

    def __init__(self, run_id: str, signal: str) -> None:
        self.signal = signal
        super().__init__(run_id, f"run {run_id!r} has completed, so it takes no signal {signal!r}")


class AttemptEndedError(RunError):
    """An attempt of a step emits an event, reports progress or makes a call of `context.once` after it has ended.

    A thread that outlives its attempt gets it, for instance after a timeout, and should end.

    Attributes:
        path: Path of the visit of the step.
        attempt: Number of the attempt.
    """

    def __init__(self, run_id: str, path: str, attempt: int) -> None:
        self.path = path
        self.attempt = attempt
        super().__init__(
            run_id, f"run {run_id!r}: attempt {attempt} of step {path!r} has ended and reports nothing more"
        )


class TooManyPendingEventsError(RunError):
    """Too many emitted events of the run are not stored yet, so this event is refused.

    Attributes:
        limit: `max_pending_events` of the config.
    """

    def __init__(self, run_id: str, limit: int) -> None:
        self.limit = limit
        super().__init__(
            run_id,
            f"run {run_id!r} has {limit:,} emitted events that are not stored yet (max_pending_events); "
            "call `await context.flush()` now and then",
        )


class InvalidSignalError(RunError, ValueError):
    """The name, the idempotency key or the value of a signal is invalid, or the value does not fit the step's model.

    Attributes:
        signal: Name of the signal.
        problem: Description of the problem.
    """

    def __init__(self, run_id: str, signal: str, problem: str) -> None:
        self.signal = signal
        self.problem = problem
        super().__init__(run_id, f"signal {signal!r} for run {run_id!r}: {problem}")


class WorkflowChangedError(RunError):
    """The definition, or the items of a map, do not match the finished steps of the stored run.

    Attributes:
        step: The finished step that the definition no longer has at this position, the missing step to start from, or
            the map whose items differ.
        problem: Description of the difference.
        map_path: For a difference inside a map, a parallel step or a workflow step, the path of its visit; else None.
        item_index: For a map, the index of the item; else None.
        branch: For a parallel step, the name of the branch; else None.
    """

    def __init__(
        self,
        run_id: str,
        step: str,
        problem: str,
        *,
        role: str = "finished step",
        map_path: str | None = None,
        item_index: int | None = None,
        branch: str | None = None,
    ) -> None:
        self.step = step
        self.problem = problem
        self.map_path = map_path
        self.item_index = item_index
        self.branch = branch
        if map_path is None:
            message = (
                f"run {run_id!r} cannot continue with this definition: {role} {step!r} {problem}; "
                "resume it with the definition it was started with, or start a new run"
            )
        else:
            given = "the definition and the items" if item_index is not None else "the definition"
            place = f"step {map_path!r}"
            if item_index is not None:
                place = f"item {item_index} of map {map_path!r}"
            elif branch is not None:
                place = f"branch {branch!r} of step {map_path!r}"
            message = (
                f"run {run_id!r} cannot continue: {place}: {problem}; "
                f"resume it with {given} it was started with, or start a new run"
            )
        super().__init__(run_id, message)


class RunFailedError(RunError):
    """Raised only by `WorkflowResult.raise_for_status` for a run that did not complete.

    Attributes:
        status: `failed` or `stopped`.
        step: The step that failed, or None.
        category: The error category, or None.
    """

    def __init__(
        self, run_id: str, status: str, *, step: str | None, error: str | None, category: str | None = None
    ) -> None:
        self.status = status
        self.step = step
        self.category = category
        at = f" at step {step!r}" if step else ""
        why = f": {error}" if error else ""
        super().__init__(run_id, f"run {run_id!r} {status}{at}{why}")


class StepError(SpineError):
    """A failure of a step with an explicit category; handlers raise it.

    Attributes:
        category: One of `ErrorCategory`.
        retry_after: Seconds before the next attempt, or None for the delay of the policy.

    Example:
        >>> raise StepError("quota used up", category="DEPENDENCY", retry_after=30.0)
        Traceback (most recent call last):
        ...
        spine_async.errors.StepError: quota used up
    """

    def __init__(self, message: str, category: str = "INTERNAL", *, retry_after: float | None = None) -> None:
        self.category = category
        self.retry_after = retry_after
        super().__init__(message)


class StoreError(SpineError):
    """A problem with the run store; the operator of the database must act."""


class StoreUnavailableError(StoreError):
    """The store cannot be opened, reached or written."""


class StoreCapabilityError(StoreError):
    """The store cannot do what was asked, because it lacks a capability that other stores have.

    Attributes:
        store: Name of the class of the store.
        problem: What it lacks, for instance "keeps no queues".
        way_out: What to do instead.
    """

    def __init__(self, store: str, problem: str, way_out: str) -> None:
        self.store = store
        self.problem = problem
        self.way_out = way_out
        super().__init__(f"{store} {problem}; {way_out}")


class LeaseLostError(StoreError):
    """The lease of the run is lost: another owner has claimed it, it was deleted, or it could not be renewed in time.

    This runner can no longer commit to the run.

    Attributes:
        run_id: Id of the run.
    """

    def __init__(self, run_id: str, problem: str | None = None) -> None:
        self.run_id = run_id
        if problem is None:
            problem = "was claimed by another owner or deleted; this runner can no longer write to it"
            super().__init__(f"run {run_id!r} {problem}")
        else:
            super().__init__(f"run {run_id!r} is no longer executed here: {problem}; another owner may claim it")


class CorruptRecordError(StoreError):
    """A stored record cannot be decoded."""


class SchemaVersionError(StoreError):
    """The schema of the database is newer than this library supports, or must be upgraded first.

    Attributes:
        found: Schema version of the database.
        known: Schema version of this library.
    """

    def __init__(self, found: int, known: int, way_out: str) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"the database has schema version {found}, but this library requires version {known}; {way_out}"
        )


class SharingError(SpineError, RuntimeError):
    """A runner, store or engine is used in an event loop or process to which it does not belong.

    Raised before anything is read or written. A retry in the same place raises it again.

    Attributes:
        problem: The shared object, and where else it is used.
        way_out: The correct way to use it.
    """

    def __init__(self, problem: str, way_out: str) -> None:
        self.problem = problem
        self.way_out = way_out
        super().__init__(f"{problem}; {way_out}")


class SerializationError(SpineError, ValueError):
    """A value has no strict JSON form.

    Attributes:
        path: Position in the value, for instance `$.rows[3].price`.
        problem: Description of the problem, without the value itself.
    """

    def __init__(self, problem: str, parts: Sequence[str] = ()) -> None:
        self.problem = problem
        self.parts = tuple(parts)
        super().__init__(problem)

    def within(self, part: str) -> SerializationError:
        """The same error with the path of the enclosing value; `part` is `.key` or `[index]`."""
        return SerializationError(self.problem, (part, *self.parts))

    @property
    def path(self) -> str:
        """Position of the problem in the value, cut after 12 parts."""
        shown = self.parts if len(self.parts) <= _SHOWN_PARTS else (*self.parts[:_SHOWN_PARTS], "…")
        return "$" + "".join(shown)

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class MissingExtraError(SpineError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: Name of the extra that installs it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{feature} needs an optional dependency: pip install 'spine-async[{extra}]'")


_SHOWN_PARTS = 12


def _rebuilt(kind: type[SpineError], args: tuple[object, ...]) -> SpineError:
    """The error without a call of its constructor, since `args` already contain the message."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


def _place(workflow: str | None, step: str | None) -> str:
    names = [f"{kind} {name!r}" for kind, name in (("workflow", workflow), ("step", step)) if name]
    return f"{', '.join(names)}: " if names else ""
