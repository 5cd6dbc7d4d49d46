"""Options of steps: their types, and the checks of these types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from pydantic import BaseModel

from spine_async._model.policy import RetryPolicy
from spine_async._model.quality import QualityThresholds
from spine_async._model.status import ErrorPolicy

if TYPE_CHECKING:
    from spine_async._model.context import WorkflowContext

Handler: TypeAlias = "Callable[[WorkflowContext, dict[str, object]], object]"
Condition: TypeAlias = "Callable[[WorkflowContext], bool | Awaitable[bool]]"
ItemFunction: TypeAlias = "Callable[[WorkflowContext], object]"
Moment: TypeAlias = "datetime | str | Callable[[WorkflowContext], datetime | str | Awaitable[datetime | str]]"


class StepOptions(TypedDict, total=False):
    """Options that lambda, pipeline and map steps share.

    Keys:
        on_error: What the run does after the last failed attempt.
        retry: Policy for further attempts; None means one attempt (or the default of the runner with `on_error=RETRY`).
        timeout: Limit for each attempt, in seconds or as a `timedelta`; None means the default of the runner.
        checkpoint: True or False overrides `checkpoint_every_step` for this step.
        output_model: Pydantic model that validates the output; later steps read the output as this model.
        quality_thresholds: Limits on the quality metrics of the step.
        next_step: Step to continue with instead of the next in the list.
    """

    on_error: ErrorPolicy | str
    retry: RetryPolicy | None
    timeout: float | timedelta | None
    checkpoint: bool | None
    output_model: type[BaseModel] | None
    quality_thresholds: QualityThresholds | None
    next_step: str | None


_EXPECTED: Mapping[str, tuple[type, str]] = {
    "retry": (RetryPolicy, "a RetryPolicy"),
    "quality_thresholds": (QualityThresholds, "QualityThresholds"),
    "checkpoint": (bool, "True, False or None"),
    "next_step": (str, "the name of a step"),
}


def check_option_types(step: object) -> None:
    """Check the types of a step's shared options; None is always valid.

    Raises:
        ValueError: A value has a wrong type; the message names the option.
    """
    for option, (kind, wanted) in _EXPECTED.items():
        value = getattr(step, option)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{option} is {value!r}; it must be {wanted}")
    model: object = getattr(step, "output_model", None)
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ValueError(f"output_model is {model!r}; it must be a pydantic model class")
