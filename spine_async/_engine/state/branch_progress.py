"""Progress of a parallel step or of a workflow step: its finished branches, and the stored rows of the others.

A workflow step has a single branch, whose name is "".
"""

from __future__ import annotations

from typing import ClassVar

from spine_async._engine.state.nested_progress import InnerProgress, NestedProgress
from spine_async._model.step import Definition, Step
from spine_async._model.visit_row import VisitRow
from spine_async.errors import CorruptRecordError, WorkflowChangedError


class BranchProgress(NestedProgress[str]):
    """The branches of one visit.

    Attributes:
        outputs: JSON text of the output of each finished branch, by name.
    """

    noun: ClassVar[str] = "branch"

    def __init__(self, run_id: str, path: str, step: Step, open_inner: InnerProgress) -> None:
        super().__init__(run_id, path, step, open_inner)
        self.outputs: dict[str, str] = {}

    @property
    def has_rows(self) -> bool:
        return bool(self.outputs or self.stored)

    def scope_path(self, key: str) -> str:
        return f"{self.path}[{key}]" if key else self.path

    def is_finished(self, key: str) -> bool:
        return key in self.outputs

    def finish(self, key: str, output: str) -> None:
        self.outputs[key] = output

    def changed(self, key: str, problem: str, step: str | None = None) -> WorkflowChangedError:
        return WorkflowChangedError(
            self._run_id, step or self._step.name, problem, map_path=self.path, branch=key or None
        )

    def _definition(self, key: str, row: VisitRow) -> Definition:
        definition = self._step.inner.get(key)
        if definition is None:
            raise self.changed(key, "the branch has finished steps, but the definition has no such branch now")
        return definition

    def _key_of(self, row: VisitRow) -> tuple[str, int]:
        scope, end = row.scope, len(self.path)
        following = scope[end : end + 1]
        is_bracket = following == "["
        close = scope.find("]", end) if is_bracket else end
        if scope[:end] != self.path or close < 0 or following not in {"", "/", "["}:
            raise CorruptRecordError(f"the stored path {row.path!r} does not belong to the step {self.path!r}")
        return (scope[end + 1 : close], close + 1) if is_bracket else ("", end)
