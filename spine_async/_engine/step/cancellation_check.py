"""Tells whether a step that has failed is being cancelled, or whether its failure counts."""

from __future__ import annotations

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.failing_groups import FailingGroups
from spine_async._engine.tasks import (
    CANCELLATION,
    drop_cancellations_since,
    is_cancelled_since,
    is_scope_cancelled,
    undo_cancellations,
    yield_to_loop,
)
from spine_async._model.failure import leaves


async def is_cancelled(
    runtime: Runtime, visit: Visit, cancellations: int, error: BaseException | None, groups: FailingGroups | None
) -> bool:
    """Whether a step that failed with `error` is being cancelled; undoes a native cancellation that is left behind.

    A native cancellation alone proves nothing: `asyncio.TaskGroup` leaves one behind when a child fails (CPython before
    3.13). One that ends the event loop also reaches the task that supervises the run, which passes it on within an
    iteration of the loop. Only middleware may cancel the task otherwise, for instance with `asyncio.timeout`. So where
    there is middleware, the cancellations of failing groups are counted.
    """
    if groups:
        undo_cancellations(len(groups))
        groups.clear()
    if is_scope_cancelled():
        return True
    if not is_cancelled_since(cancellations):
        return False
    if visit.is_cut_off:
        return True
    await yield_to_loop()
    if visit.cancel_reason_at(visit.run.clock.monotonic()) is not None or is_scope_cancelled():
        return True
    if runtime.middleware and not _has_failed_group(error):
        return True
    drop_cancellations_since(cancellations)
    return False


def _has_failed_group(error: BaseException | None) -> bool:
    """Whether `error` is or follows a group that failed by itself: one of its errors was raised in no cancellation."""
    while error is not None:
        if isinstance(error, BaseExceptionGroup) and not all(map(_is_raised_in_cancellation, leaves(error))):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_raised_in_cancellation(error: BaseException) -> bool:
    context: BaseException | None = error
    while context is not None:
        if isinstance(context, CANCELLATION):
            return True
        context = context.__cause__ or context.__context__
    return False
