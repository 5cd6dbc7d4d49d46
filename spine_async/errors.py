"""The error tree: one root, families by who must act.

Every error carries typed attributes and builds its message from them, so that code decides on attributes and people
read the text. A step that fails is a value (`StepResult`), not one of these; these are raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime


class SpineError(Exception):
    """Root of everything this library raises on purpose."""

    def __reduce__(self) -> tuple[Callable[..., SpineError], tuple[object, ...], dict[str, object]]:
        """Errors may cross the border of a process, whatever arguments they are built from."""
        return _again, (type(self), self.args), dict(self.__dict__)


class DefinitionError(SpineError, ValueError):
    """A workflow, step, policy or argument is wrong as written; its author must change it.

    Attributes:
        workflow: Name of the workflow, or None while a step is built on its own.
        step: Name of the step, or None where the workflow as a whole is meant.
        problem: What is wrong, in words.
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
    """A retry policy or a limit has a value that makes no sense."""


class InvalidParamsError(DefinitionError):
    """The params given to `execute` do not fit the workflow's `params_model`, or are not a mapping of names."""


class RunError(SpineError):
    """Something about one run; whoever operates it must act.

    Attributes:
        run_id: The run that is meant.
    """

    def __init__(self, run_id: str, message: str) -> None:
        self.run_id = run_id
        super().__init__(message)


class InvalidRunIdError(RunError, ValueError):
    """The run id is empty, too long, or holds characters that cannot be stored and shown."""


class RunNotFoundError(RunError):
    """No run with this id is stored."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, f"run {run_id!r} is not stored here; list_runs() shows the runs there are")


class RunBusyError(RunError):
    """The run is being executed by somebody else right now.

    Attributes:
        owner: Who executes it: host, process id, and what tells runners in it apart.
        lease_until: When that owner's lease ends unless it is renewed, or None where it is this very runner.
    """

    def __init__(self, run_id: str, owner: str | None = None, lease_until: datetime | None = None) -> None:
        self.owner = owner
        self.lease_until = lease_until
        by = f" by {owner}" if owner else ""
        until = f", whose lease ends at {lease_until.isoformat()} unless it is renewed" if lease_until else ""
        told = f"run {run_id!r} is being executed{by}{until}; wait for it to end, stop() it, or use another run id"
        super().__init__(run_id, told)


class RunConflictError(RunError):
    """The run id belongs to a run of another workflow, or of the same one with other params."""


class RunNotResumableError(RunError):
    """The run is in a state that `resume` cannot leave."""


class WorkflowChangedError(RunError):
    """The definition, or the items of a map, no longer fit what the stored run has finished.

    Attributes:
        step: The finished step that the definition no longer has in this place, or the map whose items differ.
        problem: What differs, in words.
        map_path: For a difference inside a map, the path of the map's visit; else None.
        item_index: Index of the item in that map; else None.
    """

    def __init__(
        self, run_id: str, step: str, problem: str, *, map_path: str | None = None, item_index: int | None = None
    ) -> None:
        self.step = step
        self.problem = problem
        self.map_path = map_path
        self.item_index = item_index
        if map_path is None:
            message = (
                f"run {run_id!r} cannot go on with this definition: finished step {step!r} {problem}; "
                "resume it with the definition it was started with, or start a new run"
            )
        else:
            message = (
                f"run {run_id!r} cannot go on: item {item_index} of map {map_path!r}: {problem}; "
                "resume it with the definition and the items it was started with, or start a new run"
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
    """What a step may raise to say its own category.

    Attributes:
        category: One of `ErrorCategory`.
        retry_after: Seconds to wait before the next attempt, or None to leave it to the policy.

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
    """The place where runs are kept has a problem; whoever runs the database must act."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, opened or written."""


class LeaseLostError(StoreError):
    """Another owner has taken the run over; nothing more can be committed for it from here.

    Attributes:
        run_id: The run that was taken over.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id!r} was taken over by another owner; this one may no longer change it")


class CorruptRecordError(StoreError):
    """A stored record cannot be read as what it should be."""


class SchemaVersionError(StoreError):
    """The database's schema is newer than this library, or must be upgraded first.

    Attributes:
        found: Schema version of the database.
        known: Newest version this library knows.
    """

    def __init__(self, found: int, known: int, way_out: str) -> None:
        self.found = found
        self.known = known
        super().__init__(f"the database has schema version {found}, this library works with {known}; {way_out}")


class SerializationError(SpineError, ValueError):
    """A value has no strict JSON form.

    Attributes:
        path: Where in the value, e.g. `$.rows[3].price`.
        problem: What is wrong there. Never holds the value itself.
    """

    def __init__(self, problem: str, parts: Sequence[str] = ()) -> None:
        self.problem = problem
        self.parts = tuple(parts)
        super().__init__(problem)

    def within(self, part: str) -> SerializationError:
        """The same error seen from one level further out; `part` is `.key` or `[index]`."""
        return SerializationError(self.problem, (part, *self.parts))

    @property
    def path(self) -> str:
        shown = self.parts if len(self.parts) <= _SHOWN_PARTS else (*self.parts[:_SHOWN_PARTS], "…")
        return "$" + "".join(shown)

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class MissingExtraError(SpineError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: The extra that brings it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{feature} needs an optional dependency: pip install 'spine-async[{extra}]'")


_SHOWN_PARTS = 12


def _again(kind: type[SpineError], args: tuple[object, ...]) -> SpineError:
    """An error as it was: its message is made already, so nothing is built anew."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


def _place(workflow: str | None, step: str | None) -> str:
    names = [f"{kind} {name!r}" for kind, name in (("workflow", workflow), ("step", step)) if name]
    return f"{', '.join(names)}: " if names else ""
