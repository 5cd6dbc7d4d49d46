"""The position of a run in its workflow, and the next step. Pure: no I/O, no await.

A cursor points to a step, or behind the last one. `advance` moves it past the current step, or to the target of a
choice. `replay` moves it over a stored visit, and refuses a visit that the definition would not have made. So a resume
replays the stored visits one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from spine_async._model.signal_step import SignalStep
from spine_async._model.status import StepStatus, StepType
from spine_async._model.step import Definition, Step
from spine_async._model.target import END, position_of
from spine_async._model.visit_row import PastVisit
from spine_async.errors import WorkflowChangedError


@dataclass(slots=True)
class Jump:
    """The target of a choice, a timeout or a caught failure: a step, or None for the end of the scope."""

    target: str | None


class Cursor:
    """A position in a workflow.

    Args:
        workflow: The definition.
        start: Step to begin at; None for the first.

    Attributes:
        workflow: The definition.
        step: The step that comes next, or None at the end.
        visit: Number of the next visit of that step, from 1; 0 at the end.
    """

    __slots__ = ("_position", "_steps", "_visits", "step", "visit", "workflow")

    def __init__(self, workflow: Definition, start: str | None = None) -> None:
        self.workflow = workflow
        self._steps = workflow.steps
        self._visits: dict[str, int] = {}
        self._position = workflow.positions[start] if start else 0
        self.step: Step | None = self._steps[self._position]
        self.visit = 1

    def __copy__(self) -> Cursor:
        copied = Cursor(self.workflow)
        copied._visits = dict(self._visits)
        copied._position, copied.step, copied.visit = self._position, self.step, self.visit
        return copied

    @property
    def has_moved(self) -> bool:
        """Whether any step has been finished or replayed."""
        return bool(self._visits)

    @property
    def segment(self) -> str:
        """Last part of the next visit's path: `review`, `review#2`."""
        return segment_of(self.step.name if self.step is not None else "", self.visit)

    @property
    def following(self) -> str | None:
        """Name of the step that follows if this one jumps nowhere else, or None for the end of the scope."""
        given = self.step.next_step if self.step is not None else None
        if given is not None:
            return position_of(given)
        behind = self._position + 1
        return self._steps[behind].name if behind < len(self._steps) else None

    def advance(self, jump: Jump | None = None) -> Sequence[str]:
        """Move past the current step, or to the target of `jump`.

        Returns:
            Names of the steps that were jumped over and never visited, in order.
        """
        step = self._steps[self._position]
        self._visits[step.name] = self.visit
        behind = self._position + 1
        if jump is None:
            if step.next_step is None:
                self._move_to(behind)
                return ()
            jump = Jump(position_of(step.next_step))
        target = jump.target
        self._move_to(len(self._steps) if target is None else self.workflow.positions[target])
        between = self._steps[behind : self._position]
        return [each.name for each in between if each.name not in self._visits]

    def restart(self) -> None:
        """Move to the first step; the visits that were made count."""
        self._move_to(0)

    def replay(self, run_id: str, row: PastVisit) -> Sequence[str]:
        """Move past a stored visit; returns what `advance` does.

        Raises:
            WorkflowChangedError: The definition has no such visit at this position.
        """
        step = self.step
        is_match = step is not None and step.name == row.step_name and step.step_type is row.step_type
        segment = self.segment
        if not is_match or (row.path != segment and row.path.rpartition("/")[2] != segment):
            raise WorkflowChangedError(run_id, row.step_name, self._mismatch(row))
        return self.advance(self._stored_jump(run_id, row, step))

    def next_signal_visit(self) -> str | None:
        """Last part of the path of the next wait for a signal, from the current step on in the list; None without."""
        for step in self._steps[self._position :]:
            if isinstance(step, SignalStep):
                return segment_of(step.name, self._visits.get(step.name, 0) + 1)
        return None

    def has_step(self, name: str) -> bool:
        """Whether the workflow has a step of this name."""
        return name in self.workflow.positions

    def _move_to(self, position: int) -> None:
        self._position = position
        if position < len(self._steps):
            self.step = step = self._steps[position]
            self.visit = self._visits.get(step.name, 0) + 1
        else:
            self.step, self.visit = None, 0

    def _mismatch(self, row: PastVisit) -> str:
        """Why a stored visit does not fit here."""
        if row.step_name not in self.workflow.positions:
            return "is missing"
        defined = self.workflow.step(row.step_name)
        if defined.step_type != row.step_type:
            return f"was a {row.step_type} step and is now a {defined.step_type} step"
        there = f"step {self.step.name!r}" if self.step else "the end of the workflow"
        return f"is no longer at this position; {there} is"

    def _stored_jump(self, run_id: str, row: PastVisit, step: Step | None) -> Jump | None:
        if row.target is not None:
            return self._checked(Jump(position_of(row.target)), run_id, row)
        if isinstance(step, SignalStep) and step.timeout_target is not None:
            return timeout_jump(step, from_json(row.output or "null")) if row.status is StepStatus.COMPLETED else None
        if row.step_type is not StepType.CHOICE or row.status is not StepStatus.COMPLETED:
            return None
        return self._checked(jump_of(from_json(row.output or "null"), self), run_id, row)

    def _checked(self, jump: Jump | None, run_id: str, row: PastVisit) -> Jump:
        if jump is None or (jump.target is not None and jump.target not in self.workflow.positions):
            raise WorkflowChangedError(run_id, row.step_name, "jumped to a step that is missing")
        return jump


def segment_of(name: str, visit: int) -> str:
    """Last part of the path of a visit: `review`, `review#2`."""
    return name if visit <= 1 else f"{name}#{visit}"


def timeout_jump(step: SignalStep, output: object) -> Jump | None:
    """The jump to the step that follows a timeout, if the output of `step` reports one."""
    is_timeout = isinstance(output, dict) and output.get("timed_out") is True
    return Jump(position_of(step.timeout_target)) if is_timeout and step.timeout_target is not None else None


def jump_of(output: object, cursor: Cursor) -> Jump | None:
    """The jump in a choice's output, or None if it has no `next_step` that the workflow knows."""
    if not isinstance(output, dict) or "next_step" not in output:
        return None
    target = output["next_step"]
    if target == END:
        return Jump(None)
    if target is None or (isinstance(target, str) and cursor.has_step(target)):
        return Jump(target)
    return None
