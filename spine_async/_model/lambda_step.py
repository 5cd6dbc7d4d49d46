"""The step that calls a handler of the user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from spine_async._model.async_callable import is_async_callable
from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step import Step
from spine_async._model.step_options import (
    Handler,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaStep(Step):
    """Calls a handler of the user."""

    step_type: ClassVar[StepType] = StepType.LAMBDA

    handler: Handler
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        self._checked(lambda: check_callable("handler", self.handler))
        self._set("is_async", is_async_callable(self.handler))
