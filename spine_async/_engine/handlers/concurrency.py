"""The number of items or branches that a step runs at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Protocol, TypeVar

from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory
from spine_async._model.step_options import is_concurrency
from spine_async.errors import StepError

LimitT_co = TypeVar("LimitT_co", bound=int | None, covariant=True)


class Concurrent(Protocol[LimitT_co]):
    """A step with the option `max_concurrency`; it may allow None, which means no limit."""

    @property
    def name(self) -> str: ...

    @property
    def max_concurrency(self) -> LimitT_co | Callable[[WorkflowContext], int]: ...


def concurrency_of(step: Concurrent[LimitT_co], context: WorkflowContext) -> int | LimitT_co:
    """The limit of the step; calls its function with the context if it is one.

    Raises:
        StepError: The function did not return an integer of at least 1.
    """
    limit = step.max_concurrency
    if not callable(limit):
        return limit
    returned: object = copy_context().run(limit, context)
    if is_concurrency(returned):
        return int(returned)  # type: ignore[call-overload,no-any-return]
    kind = "an integer below 1" if type(returned) is int else f"a value of type {type(returned).__name__}"
    problem = f"the function max_concurrency of step {step.name!r} returned {kind}"
    raise StepError(f"{problem}; it must return an integer of at least 1", category=ErrorCategory.CONFIGURATION)
