"""Finds where the copied part of a forked run ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.replay import first_position_of, replay_rows
from spine_async._engine.state.position import Position
from spine_async._engine.state.unwinding import OUTCOME_MARK, RESTART_MARK
from spine_async._engine.tasks import PeriodicYield, run_shielded
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import Document
from spine_async._model.large_text import split_members
from spine_async._model.run_row import StoredRun
from spine_async._model.status import FINISHED, EventType, StepStatus
from spine_async._model.visit_filter import OWN_VISITS
from spine_async._model.visit_row import VisitRow
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError, WorkflowChangedError

_PAGE_ROWS = 200
_MARKERS = frozenset({StepStatus.WAITING, StepStatus.OVERRIDE})


@dataclass(slots=True)
class ForkPoint:
    """Where the copied part of a run ends.

    Attributes:
        position: The position before the visit.
        until: Number of the last copied visit; 0 if there is none.
        later: Params that a resume has changed after that visit and before the one at which the run is forked.
        last_paths: Path of the last finished visit of each step.
        is_reached: Whether the visit at which the run is forked is the next one.
        unwinds: Whether the steps of the run had ended before, and the run was not resumed afterwards.
    """

    position: Position
    until: int = 0
    later: dict[str, Document] = field(default_factory=dict)
    last_paths: dict[str, str] = field(default_factory=dict)
    is_reached: bool = False
    unwinds: bool = False

    def add(self, row: VisitRow) -> None:
        """Count a row that has been replayed."""
        if row.step_name in {OUTCOME_MARK, RESTART_MARK}:
            self.unwinds = row.step_name == OUTCOME_MARK
        if self.unwinds:
            return  # compensations and cleanup steps are not part of what is repeated
        if row.status is StepStatus.OVERRIDE:
            self.later |= split_members(row.updates) if row.updates else {}
        elif row.status is not StepStatus.WAITING:
            self.until, self.later = row.seq, {}
            if row.status in FINISHED:
                self.last_paths[row.step_name] = row.path


async def find_fork_point(runtime: Runtime, workflow: Workflow, stored: StoredRun, path: str) -> ForkPoint:
    """Find where the copied part ends, and check that the definition fits it.

    Raises:
        DefinitionError: The run has no such visit.
        WorkflowChangedError: The definition does not lead to the visit.
    """
    _check_path(workflow, path)
    guard, pause = CorruptionGuard(stored.run_id), PeriodicYield()
    with guard:
        point = ForkPoint(await first_position_of(runtime, workflow, stored, is_resumed=False))
    after = 0
    while not point.is_reached:
        page = await run_shielded(
            runtime.store.visits(stored.run_id, replace(OWN_VISITS, after=after, limit=_PAGE_ROWS)), "spine_async load"
        )
        rows = _before(page, path)
        point.is_reached = len(rows) < len(page)
        with guard:
            # A marker of a visit that has not ended belongs to a step that is repeated, so it is left out.
            own = [row for row in rows if not row.path.startswith(f"{path}@")]
            await replay_rows(runtime, point.position, stored.run_id, own)
            for row in own:
                point.add(row)
        if len(page) < _PAGE_ROWS:
            break
        after = page[-1].seq
        await pause()
    cursor = point.position.cursor
    if cursor.step is None or cursor.segment != path:
        if point.is_reached:
            problem = "does not come next after the finished steps before it in this definition"
            raise WorkflowChangedError(stored.run_id, path, problem, role="step")
        raise _unknown(workflow, stored, path, point)
    if point.until == 0:
        point.until = await _first_event_number(runtime, stored)
    return point


def _before(rows: Sequence[VisitRow], path: str) -> Sequence[VisitRow]:
    """The rows before the visit."""
    for index, row in enumerate(rows):
        if row.path == path and row.status not in _MARKERS:
            return rows[:index]
    return rows


def _check_path(workflow: Workflow, path: str) -> None:
    """Refuse a path that is no path of a visit outside of map items.

    Raises:
        DefinitionError: The path is inside a map, or names no step of the workflow.
    """
    step = path.partition("#")[0]
    if any(character in path for character in "/[]@"):
        top = path.partition("/")[0].partition("[")[0]
        problem = f"path {path!r} is inside step {top!r}; fork at a visit of the run itself, such as {top!r}"
        raise DefinitionError(problem, workflow=workflow.name)
    if step not in workflow.positions:
        names = ", ".join(repr(each.name) for each in workflow.steps[:20])
        raise DefinitionError(f"path {path!r} names no step of the workflow; it has {names}", workflow=workflow.name)


def _unknown(workflow: Workflow, stored: StoredRun, path: str, point: ForkPoint) -> DefinitionError:
    step = point.position.cursor.step
    reached = f"its next visit is {point.position.cursor.segment!r}" if step is not None else "its steps are finished"
    problem = f"run {stored.run_id!r} has no visit {path!r} and does not begin it next: {reached}"
    return DefinitionError(f"{problem}; list_checkpoints() lists the visits", workflow=workflow.name)


async def _first_event_number(runtime: Runtime, stored: StoredRun) -> int:
    """1 if the run has the event of its start, which is copied although no visit is; else 0."""
    if stored.next_seq == 1:
        return 0
    events = await run_shielded(runtime.store.events(stored.run_id, 0, 1), "spine_async load")
    return int(bool(events) and events[0].event_type == EventType.WORKFLOW_STARTED)
