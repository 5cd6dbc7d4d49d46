"""Runs a coroutine with context variables of its own, in the same task.

Later steps must not see a context variable that a step sets, because they would not see it after a resume. A separate
task for each attempt would have the same effect. But it would cost one more iteration of the event loop, and change how
a cancellation arrives.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, TypeVar

from spine_async._engine.step.failing_groups import FailingGroups
from spine_async._engine.tasks import CANCELLATION
from spine_async._threads import RAISED_GENERATOR_EXIT
from spine_async.errors import StepError

ValueT = TypeVar("ValueT")


@types.coroutine
def with_own_variables(
    work: Awaitable[ValueT], groups: FailingGroups | None = None, context: Context | None = None
) -> Generator[Any, Any, ValueT]:
    """Await `work` in a copy of the current context; what it sets there is dropped when it ends.

    Args:
        work: Is awaited.
        groups: Notes the task groups of `work` that cancel the task.
        context: Is used instead of a copy of the current context.

    Raises:
        StepError: `work` raised `GeneratorExit`. Where it passed, it would end the run like the end of the process.
    """
    if not isinstance(work, (types.CoroutineType, Coroutine)):
        # A future or another object that runs no code of a step in this task.
        return (yield from work.__await__())
    run, send = (copy_context() if context is None else context).run, work.send
    error: BaseException | None = None
    while True:
        try:
            yielded = run(send, None) if error is None else run(work.throw, error)
        except StopIteration as stop:
            result: ValueT = stop.value
            return result
        except GeneratorExit as exc:  # of a generator of its own; nobody closes `work`, or it would be raised below
            raise StepError(RAISED_GENERATOR_EXIT) from exc
        finally:
            error = None  # breaks the reference cycle with its traceback
        try:
            yield yielded
        except GeneratorExit:
            run(work.close)
            raise
        except BaseException as exc:  # noqa: BLE001 - the coroutine decides
            error = exc
            if groups is not None and isinstance(exc, CANCELLATION):
                groups.note(work)


async def call_with_own_variables(function: Callable[..., object], *arguments: object) -> object:
    """Call a function of a step that is no handler, and await what it returns if that is awaitable.

    It runs in a copy of the current context, because the steps inside of the step must not see what it sets.
    """
    context = copy_context()
    result = context.run(function, *arguments)
    return await with_own_variables(result, context=context) if inspect.isawaitable(result) else result
