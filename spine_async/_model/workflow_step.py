"""The step that runs another workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from spine_async._model.private_copy import private_members
from spine_async._model.queue import check_queue_name
from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step import Definition, Step
from spine_async._model.step_options import ParamsFunction


def starts_runs(workflow: Definition) -> bool:
    """Whether a step of the workflow, or one inside of its steps, executes a child as a run of its own."""
    return any(
        (isinstance(step, WorkflowStep) and step.queue is not None) or any(map(starts_runs, step.inner.values()))
        for step in (*workflow.steps, *workflow.cleanup)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStep(Step):
    """Runs another workflow, the child: inside the same run, or with a `queue` as a run of its own."""

    step_type: ClassVar[StepType] = StepType.WORKFLOW
    can_interrupt: ClassVar[bool] = True
    nests_steps: ClassVar[bool] = True

    child: Definition
    params: Mapping[str, object] | ParamsFunction | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if callable(self.params):
            self._checked(lambda: check_callable("params", self.params))
        elif isinstance(self.params, Mapping):
            self._set("params", MappingProxyType(private_members(self.params)))
        elif self.params is not None:
            problem = f"of type {type(self.params).__name__}; it must be a mapping, a function of the context, or None"
            raise self._error(f"params is {problem}")
        if self.queue is not None:
            self._checked(lambda: check_queue_name(self.queue))
        if self.quality_thresholds is not None:
            raise self._error(
                "a step that runs a workflow reports no quality metrics, so quality_thresholds would fail every run; "
                "set them on a step of that workflow"
            )

    @property
    def isolates_params(self) -> bool:
        return self.params is not None

    @property
    def inner(self) -> Mapping[str, Definition]:
        return {"": self.child} if self.queue is None else {}
