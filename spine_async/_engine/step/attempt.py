"""One step brought to a result: middleware around attempts, each under a deadline. Nothing here touches storage."""

from __future__ import annotations

import math
from collections.abc import Awaitable

import anyio

from spine_async._engine.runtime.runtime import Engine, Middleware, StepFunction
from spine_async._engine.state.deadline import Limit
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.backoff import next_delay
from spine_async._engine.step.encoding import Accepted, accept, as_result
from spine_async._engine.tasks import CANCELLATION, FOREIGN, is_foreign
from spine_async._model.context import WorkflowContext
from spine_async._model.document import encode
from spine_async._model.failure import ErrorCategory
from spine_async._model.policy import RetryPolicy
from spine_async._model.record import EventRow
from spine_async._model.status import EventType
from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


async def perform(engine: Engine, visit: Visit) -> Accepted:
    """The step of `visit`, through middleware and attempts, with its values ready to be stored."""
    series = _Series(engine, visit)
    try:
        if engine.middleware:
            result = as_result(await _through_middleware(engine, visit, series))
        else:
            result = await series.run(visit.step, visit.scope.context)
    except Exception as exc:  # noqa: BLE001 - middleware and retry predicates are user code; the step fails with it
        result = StepResult.from_exception(exc)
    except CANCELLATION:
        if not is_foreign():
            raise
        result = StepResult.fail(FOREIGN)
    accepted = series.accepted
    return accepted if accepted is not None and accepted.result is result else accept(visit.step, result)


async def _through_middleware(engine: Engine, visit: Visit, series: _Series) -> StepResult:
    entered = visit.scope.context.for_attempt(visit.step.name, 0, visit.idempotency_key, visit)
    return await _wrapped(engine.middleware, series.run)(visit.step, entered)


class _Series:
    """The attempts of one step visit."""

    def __init__(self, engine: Engine, visit: Visit) -> None:
        self._engine = engine
        self._visit = visit
        self.accepted: Accepted | None = None

    def run(self, step: Step, context: WorkflowContext) -> Awaitable[StepResult]:
        """Try until it succeeds, or the policy gives up; the last result."""
        policy = self._engine.retry_policy(step)
        return self._try(step, context) if policy is None else self._retry(step, context, policy)

    async def _retry(self, step: Step, context: WorkflowContext, policy: RetryPolicy) -> StepResult:
        tries = 0
        while True:
            tries += 1
            result = await self._try(step, context)
            if result.success or tries >= policy.max_attempts:
                return result
            if not policy.retries(result.category or ErrorCategory.INTERNAL, result.as_exception):
                return result
            computed = next_delay(policy, tries, self._engine.draw)
            delay = computed if not _is_usable(result.retry_after) else float(result.retry_after or 0.0)
            self._note_retry(result, delay)
            await anyio.sleep(delay)

    async def _try(self, step: Step, context: WorkflowContext) -> StepResult:
        visit = self._visit
        visit.attempts += 1
        given = context.for_attempt(step.name, visit.attempts, visit.idempotency_key, visit)
        engine = self._engine
        try:
            if engine.config.max_concurrent_steps is None:
                result = await _within_deadline(engine, visit, step, given)
            else:
                async with engine.slot(step):
                    result = await _within_deadline(engine, visit, step, given)
        except Exception as exc:  # noqa: BLE001 - user code: whatever it raises is the step's failure
            result = StepResult.from_exception(exc)
        except CANCELLATION:
            if not is_foreign():
                raise
            result = StepResult.fail(FOREIGN)
        self.accepted = accept(step, result)
        return self.accepted.result

    def _note_retry(self, result: StepResult, delay: float) -> None:
        visit = self._visit
        told = {"attempt": visit.attempts, "delay": delay, "error_category": result.category, "error": result.error}
        now = self._engine.clock.now()
        event = EventRow(EventType.STEP_RETRYING, visit.step.name, now, encode(told).text, visit.path)
        visit.open.events = (*visit.open.events, event)


def _is_usable(seconds: object) -> bool:
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return is_number and math.isfinite(seconds) and seconds >= 0  # type: ignore[arg-type, operator]


async def _within_deadline(engine: Engine, visit: Visit, step: Step, context: WorkflowContext) -> StepResult:
    execute = engine.executors[step.step_type]
    timeout = engine.timeout(step)
    if timeout is None:
        return as_result(await execute(step, context))
    # Middleware may have scopes of its own around the attempt, and tasks.
    limit = visit.scope.limit if not engine.middleware else Limit(engine.deadlines, lasts=False)
    visit.open.deadline_mono = limit.begin(timeout)
    try:
        result = as_result(await execute(step, context))
    except BaseException as exc:
        visit.open.deadline_mono = None
        if not limit.end(exc):
            raise
        # Only its own deadline cancels the scope, so its having caught the cancellation means that it has passed.
        return StepResult.fail(f"step {step.name!r} timed out after {timeout:g} s", ErrorCategory.TIMEOUT)
    visit.open.deadline_mono = None
    limit.end()
    return result


def _wrapped(middleware: list[Middleware], innermost: StepFunction) -> StepFunction:
    function = innermost
    for each in reversed(middleware):
        function = _bound(each, function)
    return function


def _bound(middleware: Middleware, next_fn: StepFunction) -> StepFunction:
    async def call(step: Step, context: WorkflowContext) -> StepResult:
        return await middleware(step, context, next_fn)

    return call
