"""The step that waits for a signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel

from spine_async._model.naming import name_problem
from spine_async._model.output_model import OutputModel, SignalOutput
from spine_async._model.shown import shown
from spine_async._model.status import ErrorPolicy, StepType
from spine_async._model.step import Step

_KEYWORDS = frozenset({"fail", "continue"})
"""Values of `on_timeout` that are not the name of a step."""

_UNSUPPORTED = ("retry", "output_model", "quality_thresholds")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalStep(Step):
    """Waits for a signal. `timeout` limits the whole wait."""

    step_type: ClassVar[StepType] = StepType.SIGNAL
    can_interrupt: ClassVar[bool] = True

    signal: str
    model: type[BaseModel] | None = None
    on_timeout: str = "fail"

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        problem = name_problem(self.signal)
        if problem is not None:
            raise self._error(f"signal: {problem}")
        if self.model is not None and not (isinstance(self.model, type) and issubclass(self.model, BaseModel)):
            raise self._error(f"model is {shown(self.model)}; it must be a pydantic model class")
        if self.timeout == math.inf:
            self._set("timeout", None)
        self._check_on_timeout()
        self._check_unsupported()

    @property
    def timeout_target(self) -> str | None:
        """Name of the step that follows if no signal comes in time; None if no step is named for this."""
        return None if self.on_timeout in _KEYWORDS else self.on_timeout

    @property
    def targets(self) -> tuple[str, ...]:
        following = Step.targets.fget(self)  # type: ignore[attr-defined]
        return following if self.timeout_target is None else (*following, self.timeout_target)

    @property
    def revived_as(self) -> OutputModel | None:
        return None if self.model is None else SignalOutput(self.model)

    def _check_on_timeout(self) -> None:
        if not isinstance(self.on_timeout, str) or not self.on_timeout:
            raise self._error(
                f"on_timeout is {shown(self.on_timeout)}; it must be 'fail', 'continue' or the name of a step"
            )
        if self.timeout is None and self.on_timeout != "fail":
            raise self._error(f"on_timeout is {shown(self.on_timeout)}, but there is no timeout")

    def _check_unsupported(self) -> None:
        if self.on_error is ErrorPolicy.RETRY:
            raise self._error("on_error is 'retry'; a wait for a signal is not repeated, so use 'stop' or 'continue'")
        for option in _UNSUPPORTED:
            if getattr(self, option) is not None:
                raise self._error(f"{option} does not apply to a wait for a signal")
