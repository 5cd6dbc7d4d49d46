"""The step that waits for a duration, or until a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step import Step
from spine_async._model.step_options import (
    Moment,
)
from spine_async._model.time_option import as_moment, option_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStep(Step):
    """Waits for a duration, or until a time."""

    step_type: ClassVar[StepType] = StepType.WAIT
    can_interrupt: ClassVar[bool] = True

    seconds: float | timedelta | None = None
    until: Moment | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if (self.seconds is None) == (self.until is None):
            raise self._error("a wait takes exactly one of seconds and until")
        if self.seconds is not None:
            self._set("seconds", self._checked(lambda: option_seconds(self.seconds, "seconds")))
        elif callable(self.until):
            self._checked(lambda: check_callable("until", self.until))
        else:
            self._set("until", self._checked(lambda: as_moment(self.until)))
