"""The step that chooses the next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spine_async._model.shown import shown
from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step import Step
from spine_async._model.step_options import (
    Condition,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceStep(Step):
    """Continues with one of two steps."""

    step_type: ClassVar[StepType] = StepType.CHOICE

    condition: Condition
    then_step: str
    else_step: str | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        self._checked(lambda: check_callable("condition", self.condition))
        for option, target in (("then_step", self.then_step), ("else_step", self.else_step)):
            if not isinstance(target, str) and not (option == "else_step" and target is None):
                raise self._error(f"{option} is {shown(target)}; it must be the name of a step")

    @property
    def targets(self) -> tuple[str, ...]:
        branches = (self.then_step,) if self.else_step is None else (self.then_step, self.else_step)
        return (*branches, *Step.targets.fget(self))  # type: ignore[attr-defined]
