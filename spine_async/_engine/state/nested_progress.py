"""Progress of a step that executes other workflows: what is finished inside of it, and the stored rows of the rest.

A map executes a workflow for each item, a parallel step one for each branch, and a workflow step a single one. Each of
these executions is a scope with a key: the index of the item, the name of the branch, or "".

The progress outlives an attempt of the step, so that a retry runs only what remains. On a resume it is built from the
stored rows, one by one in the order of their numbers. Each stored row is replayed with the definition of its scope,
also the rows of finished scopes and those of inner steps of unfinished scopes. A row that the definition would not have
made is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from spine_async._engine.state.cursor import Cursor
from spine_async._model.status import StepStatus
from spine_async._model.step import Definition, Step
from spine_async._model.visit_row import ONCE_NAME, VisitRow
from spine_async.errors import WorkflowChangedError

KeyT = TypeVar("KeyT", int, str)

AnyProgress: TypeAlias = "NestedProgress[Any]"

InnerProgress: TypeAlias = Callable[[str, Step], AnyProgress]
"""(path of the visit, step) → an empty progress of that step; the step must nest steps."""


@dataclass(slots=True)
class StoredScope:
    """The stored rows of an unfinished scope.

    Attributes:
        cursor: Position after the stored rows.
        rows: The rows of the scope's own steps.
        inner: Progress of an unfinished step that nests steps, by the path of its visit.
        has_params: Whether a row stores the params of the scope. If so, later rows do not store them again.
        ended_with: Name of the step that ended the scope when it was stored, or None.
    """

    cursor: Cursor
    rows: list[VisitRow] = field(default_factory=list)
    inner: dict[str, AnyProgress] = field(default_factory=dict)
    has_params: bool = False
    ended_with: str | None = None


class NestedProgress(ABC, Generic[KeyT]):
    """The scopes inside one visit of a step.

    Args:
        run_id: The run.
        path: Path of the visit.
        step: The step.
        open_inner: Creates the progress of a step inside.

    Attributes:
        stored: Scopes that have stored rows and are not finished, by key, until they are opened.
    """

    noun: ClassVar[str]
    """What a scope is, for messages."""

    def __init__(self, run_id: str, path: str, step: Step, open_inner: InnerProgress) -> None:
        self.path = path
        self.stored: dict[KeyT, StoredScope] = {}
        self._run_id = run_id
        self._step = step
        self._open_inner = open_inner

    @property
    @abstractmethod
    def has_rows(self) -> bool:
        """Whether anything inside the step is finished or stored."""

    @abstractmethod
    def scope_path(self, key: KeyT) -> str:
        """Path of the scope with this key."""

    @abstractmethod
    def is_finished(self, key: KeyT) -> bool:
        """Whether the scope is finished."""

    @abstractmethod
    def finish(self, key: KeyT, output: str) -> None:
        """Record that a scope finished with this output, as JSON text."""

    @abstractmethod
    def changed(self, key: KeyT, problem: str, step: str | None = None) -> WorkflowChangedError:
        """The error that refuses a resume because of this scope."""

    @abstractmethod
    def _key_of(self, row: VisitRow) -> tuple[KeyT, int]:
        """Key of the row's scope, and the position in the row's scope where the path of that scope ends."""

    @abstractmethod
    def _definition(self, key: KeyT, row: VisitRow) -> Definition:
        """The workflow of the scope that the row belongs to."""

    def _keep_params(self, key: KeyT, params: str) -> None:
        """Take notice of the stored params of a scope."""

    def add(self, row: VisitRow) -> None:
        """Add a stored row; rows are added in the order of their numbers.

        Raises:
            WorkflowChangedError: The definition does not fit the row.
            CorruptRecordError: The row does not belong to the step.
        """
        key, end = self._key_of(row)
        if self.is_finished(key):
            problem = f"finished step {row.step_name!r} comes after the end of the {self.noun}"
            raise self.changed(key, problem, row.step_name)
        scope = self.stored.get(key)
        if scope is None:
            scope = self.stored[key] = StoredScope(Cursor(self._definition(key, row)))
        if len(row.scope) == end or _is_own_call(row, end):
            self._add_own(key, scope, row)
        else:
            self._inner(key, scope, row, end).add(row)

    def check_ends(self) -> None:
        """Check that the definition has no further step for a finished scope; called after the last row.

        Raises:
            WorkflowChangedError: The definition continues after the step that was the last one of a scope.
        """
        for key, scope in self.stored.items():
            following = scope.cursor.step
            if scope.ended_with is not None and following is not None:
                problem = f"step {scope.ended_with!r} was its last step, but step {following.name!r} follows now"
                raise self.changed(key, problem, scope.ended_with)
            for inner in scope.inner.values():
                inner.check_ends()

    def _add_own(self, key: KeyT, scope: StoredScope, row: VisitRow) -> None:
        if row.item_params is not None:
            self._keep_params(key, row.item_params)
            # The row of a pending wait adds no params to the checkpoints, so a later row stores them once more.
            scope.has_params = scope.has_params or row.status is not StepStatus.WAITING
        if row.status in _NO_VISITS:
            scope.rows.append(row)
            return
        try:
            scope.cursor.replay(self._run_id, row)
        except WorkflowChangedError as exc:
            raise self.changed(key, f"finished step {row.step_name!r} {exc.problem}", row.step_name) from None
        scope.inner.pop(row.path, None)
        scope.ended_with = row.step_name if row.ends_item else None
        if scope.cursor.step is None:
            del self.stored[key]
            self.finish(key, row.output if row.output is not None else "null")
        else:
            scope.rows.append(row)

    def _inner(self, key: KeyT, scope: StoredScope, row: VisitRow, end: int) -> AnyProgress:
        """Progress of the step inside the scope that the row belongs to."""
        path = _visit_path(row.scope, end)
        inner = scope.inner.get(path)
        if inner is None:
            step = scope.cursor.step
            is_match = path == f"{self.scope_path(key)}/{scope.cursor.segment}"
            if step is None or not is_match or not step.inner:
                name = path[end + 1 :].partition("#")[0]
                raise self.changed(key, f"steps inside of {name!r} are stored, {_instead(step)}", name)
            inner = scope.inner[path] = self._open_inner(path, step)
        return inner


_NO_VISITS = frozenset({StepStatus.WAITING, StepStatus.OVERRIDE})


def _is_own_call(row: VisitRow, end: int) -> bool:
    """Whether the row is a recorded call of a step in the scope that ends at `end`; its scope is the visit."""
    return row.step_name == ONCE_NAME and row.scope.find("/", end + 1) < 0 and row.scope.find("[", end) < 0


def _visit_path(scope: str, end: int) -> str:
    """Path of the visit that `scope` lies in, below the scope that ends at `end`: `a[1]/b` for `a[1]/b[2]/c`, 4."""
    segment = scope[end + 1 :].partition("/")[0]
    return scope[: end + 1] + segment.partition("[")[0]


def _instead(step: Step | None) -> str:
    return f"but step {step.name!r} is at this position now" if step is not None else "but the definition ends here now"
