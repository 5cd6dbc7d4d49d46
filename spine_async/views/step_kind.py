"""The kind of the step at a path, found in the plan of the workflow."""

from __future__ import annotations

from collections.abc import Sequence

from spine_async._model.naming import COMPENSATION_MARK
from spine_async._model.plan import Plan, PlannedStep

COMPENSATION = "compensation"
"""The kind of a visit that compensates another one."""


def kind_at(plan: Plan, path: str) -> str | None:
    """The kind of the step whose visit has this path, such as `lambda` or `map`; None if the plan has no such step.

    Args:
        plan: Plan of the workflow, see `Workflow.plan`.
        path: Path of the visit, such as `review#2` or `process_all[17]/resize`.
    """
    if path.endswith(COMPENSATION_MARK):
        return COMPENSATION
    steps: Sequence[PlannedStep] = (*plan.steps, *plan.cleanup)
    found: PlannedStep | None = None
    for segment in path.split("/"):
        head, _, entry = segment.partition("[")
        found = _named(steps, head.partition("#")[0])
        if found is None:
            return None
        inner = found.inner.get(entry.rstrip("]")) or found.inner.get("")
        steps = (*inner.steps, *inner.cleanup) if inner is not None else ()
    return found.kind if found is not None else None


def _named(steps: Sequence[PlannedStep], name: str) -> PlannedStep | None:
    return next((each for each in steps if each.name == name), None)
