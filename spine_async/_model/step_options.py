"""Options of steps: their types, and the checks of these types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import BaseModel

from spine_async._model.async_callable import is_async_callable
from spine_async._model.policy import RetryPolicy
from spine_async._model.quality import QualityThresholds
from spine_async._model.shown import shown
from spine_async._model.signature import check_callable, function_name
from spine_async._model.status import ErrorPolicy

if TYPE_CHECKING:
    from spine_async._model.context import WorkflowContext

Handler: TypeAlias = "Callable[[WorkflowContext, dict[str, Any]], object]"
OnError: TypeAlias = ErrorPolicy | Literal["stop", "continue", "retry"]
Condition: TypeAlias = "Callable[[WorkflowContext], bool | Awaitable[bool]]"
ParamsFunction: TypeAlias = "Callable[[WorkflowContext], Mapping[str, object] | Awaitable[Mapping[str, object]]]"
ItemFunction: TypeAlias = "Callable[[WorkflowContext], object]"
Concurrency: TypeAlias = "int | Callable[[WorkflowContext], int]"
Moment: TypeAlias = "datetime | str | Callable[[WorkflowContext], datetime | str | Awaitable[datetime | str]]"


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
            raise ValueError(f"{option} is {shown(value)}; it must be {wanted}")
    model: object = getattr(step, "output_model", None)
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ValueError(f"output_model is {shown(model)}; it must be a pydantic model class")


def check_concurrency(limit: object) -> None:
    """Check the option `max_concurrency` of a map.

    Raises:
        ValueError: It is neither an integer of at least 1 nor a plain function of the context.
    """
    if callable(limit):
        if is_async_callable(limit):
            raise ValueError(f"max_concurrency {function_name(limit)} is async; pass a plain function of the context")
        check_callable("max_concurrency", limit)
    elif not is_concurrency(limit):
        raise ValueError(f"max_concurrency is {shown(limit)}; it must be an integer of at least 1, or a function")


def is_concurrency(limit: object) -> bool:
    """Whether the value is an integer of at least 1."""
    return isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1
