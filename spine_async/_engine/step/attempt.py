"""Executes one step: middleware around attempts, each attempt under a deadline. No storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import cast

import anyio

from spine_async._engine.runtime.runtime import Middleware, Runtime, StepFunction
from spine_async._engine.state.deadline import AttemptLimit
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.backoff import next_delay
from spine_async._engine.step.encoding import EncodedResult, as_result, encode_result
from spine_async._engine.step.large_values import encode_step_result
from spine_async._engine.tasks import CANCELLATION, STRAY_CANCELLATION, is_stray_cancellation
from spine_async._model.context import WorkflowContext
from spine_async._model.document import encode
from spine_async._model.failure import ErrorCategory
from spine_async._model.record import EventRow
from spine_async._model.status import EventType
from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


async def execute_step(runtime: Runtime, visit: Visit, limit: AttemptLimit) -> EncodedResult:
    """Execute the step of `visit` until it succeeds or its attempts are used up.

    Args:
        runtime: What all runs share.
        visit: The visit.
        limit: Time limit of the attempts of this task.
    """
    try:
        if runtime.middleware:
            return await _through_middleware(runtime, visit)
        return await _Attempts(runtime, visit, limit, visit.step).run(visit.scope.context)
    except Exception as exc:  # noqa: BLE001 - middleware and retry predicates are user code; the step fails with it
        result = StepResult.from_exception(exc)
    except CANCELLATION:
        if not is_stray_cancellation():
            raise
        result = StepResult.fail(STRAY_CANCELLATION)
    return encode_result(visit.step, result)


async def _through_middleware(runtime: Runtime, visit: Visit) -> EncodedResult:
    encoded: EncodedResult | None = None

    async def innermost(step: Step, context: WorkflowContext) -> StepResult:
        nonlocal encoded
        # Middleware may have cancel scopes and tasks of its own around the attempts, so they share no limit.
        limit = AttemptLimit(runtime.deadlines, is_shared=False)
        encoded = await _Attempts(runtime, visit, limit, step).run(context)
        return encoded.result

    context = visit.scope.context.for_attempt(visit.step.name, 0, visit.idempotency_key, visit)
    result = as_result(await _wrapped(runtime.middleware, innermost)(visit.step, context))
    # The encoded form is reused if the middleware returned the result that it got.
    if encoded is not None and encoded.result is result:
        return encoded
    return await encode_step_result(runtime, visit.step, result)


def _wrapped(middleware: list[Middleware], innermost: StepFunction) -> StepFunction:
    function = innermost
    for each in reversed(middleware):
        function = partial(_call_middleware, each, function)
    return function


async def _call_middleware(
    middleware: Middleware, next_fn: StepFunction, step: Step, context: WorkflowContext
) -> StepResult:
    return await middleware(step, context, next_fn)


@dataclass(slots=True)
class _Attempts:
    """The attempts of one visit: as many as the retry policy allows, each within the time limit."""

    runtime: Runtime
    visit: Visit
    limit: AttemptLimit
    step: Step

    async def run(self, context: WorkflowContext) -> EncodedResult:
        """Attempt the step until it succeeds or the policy gives up; returns the last result."""
        runtime, attempts = self.runtime, 0
        timeout, policy = runtime.limits(self.step)
        while True:
            attempts += 1
            encoded = await self._attempt(context, timeout)
            result = encoded.result
            if result.success or policy is None or attempts >= policy.max_attempts:
                return encoded
            if not policy.retries(result.category or ErrorCategory.INTERNAL, result.as_exception):
                return encoded
            delay = next_delay(policy, attempts, runtime.random)
            if _is_duration(result.retry_after):
                delay = float(cast("float", result.retry_after))
            _add_retry_event(runtime, self.visit, result, delay)
            await anyio.sleep(delay)

    async def _attempt(self, context: WorkflowContext, timeout: float | None) -> EncodedResult:
        runtime, visit, step = self.runtime, self.visit, self.step
        visit.attempts += 1
        given = context.for_attempt(step.name, visit.attempts, visit.idempotency_key, visit)
        try:
            if runtime.config.max_concurrent_steps is None:
                result = await self._within_limit(given, timeout)
            else:
                async with runtime.concurrency_slot(step):
                    result = await self._within_limit(given, timeout)
        except Exception as exc:  # noqa: BLE001 - user code: the step fails with what it raises
            result = StepResult.from_exception(exc)
        except CANCELLATION:
            if not is_stray_cancellation():
                raise
            result = StepResult.fail(STRAY_CANCELLATION)
        return await encode_step_result(runtime, step, result)

    async def _within_limit(self, context: WorkflowContext, timeout: float | None) -> StepResult:
        step, visit = self.step, self.visit
        execute = self.runtime.executors[step.step_type]
        if timeout is None:
            return as_result(await execute(step, context))
        visit.deadline_mono = self.limit.begin(timeout)
        try:
            result = as_result(await execute(step, context))
        except BaseException as exc:
            visit.deadline_mono = None
            if not self.limit.end(exc):
                raise
            # Only its own deadline cancels the scope, so a cancellation that it caught means that the deadline passed.
            return StepResult.fail(f"step {step.name!r} timed out after {timeout:g} s", ErrorCategory.TIMEOUT)
        visit.deadline_mono = None
        self.limit.end()
        return result


def _add_retry_event(runtime: Runtime, visit: Visit, result: StepResult, delay: float) -> None:
    metadata = {"attempt": visit.attempts, "delay": delay, "error_category": result.category, "error": result.error}
    now = runtime.clock.now()
    event = EventRow(EventType.STEP_RETRYING, visit.step.name, now, encode(metadata).text, visit.path)
    visit.events = (*visit.events, event)


def _is_duration(seconds: object) -> bool:
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return is_number and math.isfinite(seconds) and seconds >= 0  # type: ignore[arg-type, operator]
