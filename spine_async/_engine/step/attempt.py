"""Executes one step: middleware around attempts, each attempt under a deadline. No storage."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import anyio
import anyio.lowlevel

from spine_async._engine.runtime.runtime import Middleware, Runtime, StepFunction
from spine_async._engine.state.attempt_frame import Attempt
from spine_async._engine.state.deadline import AttemptLimit
from spine_async._engine.state.idle_limit import IdleLimit
from spine_async._engine.state.interrupts import PROCESS_EXIT
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.backoff import next_delay
from spine_async._engine.step.cancellation_check import is_cancelled
from spine_async._engine.step.context_variables import with_own_variables
from spine_async._engine.step.encoding import (
    NO_OUTPUT,
    WITHOUT_OUTPUT,
    EncodedResult,
    as_result,
    encode_result,
    raised_failure,
)
from spine_async._engine.step.failing_groups import FailingGroups
from spine_async._engine.step.failure_log import log_error_of_cancelled, log_retry
from spine_async._engine.step.large_values import encode_large, encode_small, is_small
from spine_async._engine.step.retry_delay import continue_retry, wait_for_retry
from spine_async._engine.tasks import (
    CANCELLATION,
    continue_cancellation,
    current_task,
    is_stray_cancellation,
)
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import for_attempt
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.policy import RetryPolicy, RetryPredicateError
from spine_async._model.signature import function_name
from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


async def execute_step(runtime: Runtime, visit: Visit, limit: AttemptLimit) -> EncodedResult:
    """Execute the step of `visit` until it succeeds or its attempts are used up.

    Args:
        runtime: What all runs share.
        visit: The visit.
        limit: Time limit of the attempts of this task.
    """
    cancellations = limit.task.cancelling()
    groups = FailingGroups() if runtime.middleware else None
    try:
        if groups is not None:
            encoded = await _through_middleware(runtime, visit, groups)
        else:
            encoded = await _Attempts(runtime, visit, limit, visit.step).run(visit.scope.context)
    except CANCELLATION as exc:
        has_open_scope = limit.leave_open_scopes()
        if not is_stray_cancellation():
            raise
        failure = _open_scope_failure(visit.step) if has_open_scope else raised_failure(visit.step, exc)
        encoded = encode_result(visit.step, failure)
    except PROCESS_EXIT:
        limit.leave_open_scopes()
        raise
    except BaseException as exc:  # noqa: BLE001 - middleware and retry predicates are user code; the step fails with it
        limit.leave_open_scopes()
        if await is_cancelled(runtime, visit, cancellations, exc, groups):
            log_error_of_cancelled(visit, exc)
            await continue_cancellation()
        encoded = encode_result(visit.step, raised_failure(visit.step, exc))
    if limit.scopes.cancel_scope is not limit.innermost and limit.leave_open_scopes() and encoded.result.success:
        encoded = encode_result(visit.step, _open_scope_failure(visit.step))  # middleware, or a predicate
    result = encoded.result
    is_suspect = visit.is_cut_off or not result.success
    if is_suspect and await is_cancelled(runtime, visit, cancellations, result.exception, groups):
        await continue_cancellation()  # middleware replaced the cancellation of an attempt by a result
    return encoded


async def _through_middleware(runtime: Runtime, visit: Visit, groups: FailingGroups) -> EncodedResult:
    encoded: EncodedResult | None = None

    async def innermost(step: Step, context: WorkflowContext) -> StepResult:
        nonlocal encoded
        if not (isinstance(step, Step) and isinstance(context, WorkflowContext)):
            given = f"{type(step).__name__} and {type(context).__name__}"
            problem = f"middleware called next_fn with {given}; it must pass on a step and a WorkflowContext"
            return StepResult.fail(f"step {visit.step.name!r}: {problem}", ErrorCategory.CONFIGURATION)
        # Middleware may have cancel scopes and tasks of its own around the attempts, so they share no limit.
        limit = AttemptLimit(runtime.deadlines, current_task(), is_shared=False)
        encoded = await _Attempts(runtime, visit, limit, step, FailingGroups()).run(context)
        return encoded.result

    context = for_attempt(visit.scope.context, visit.step.name, 0, visit.idempotency_key, Attempt(visit))
    wrapped = _wrapped(runtime.middleware, innermost)
    result = as_result(visit.step, await with_own_variables(wrapped(visit.step, context), groups))
    # The encoded form is reused if the middleware returned the result that it got.
    if encoded is not None and encoded.result is result:
        return encoded
    if is_small(result):
        return encode_small(runtime, visit.step, result)
    return await encode_large(runtime, visit.step, result)


def _wrapped(middleware: list[Middleware], innermost: StepFunction) -> StepFunction:
    function = innermost
    for each in reversed(middleware):
        function = partial(_call_middleware, each, function)
    return function


async def _call_middleware(
    middleware: Middleware, next_fn: StepFunction, step: Step, context: WorkflowContext
) -> StepResult:
    name, returned = function_name(middleware), cast("object", middleware(step, context, next_fn))
    if not inspect.isawaitable(returned):
        problem = f"middleware {name} is not async; it must be an async def that returns a StepResult"
        return StepResult.fail(f"step {step.name!r}: {problem}", ErrorCategory.CONFIGURATION)
    result: object = await returned
    if isinstance(result, StepResult):
        return result
    problem = f"middleware {name} returned a value of type {type(result).__name__}; it must return a StepResult"
    return StepResult.fail(f"step {step.name!r}: {problem}", ErrorCategory.CONFIGURATION)


@dataclass(slots=True)
class _Attempts:
    """The attempts of one visit: as many as the retry policy allows, each within the time limit."""

    runtime: Runtime
    visit: Visit
    limit: AttemptLimit
    step: Step
    groups: FailingGroups | None = None
    timed_out: StepResult | None = None
    """The failure of an attempt that has returned a success after its deadline; it applies if that cannot be stored."""

    def run(self, context: WorkflowContext) -> Awaitable[EncodedResult]:
        """Attempt the step until it succeeds or the policy gives up; returns the last result."""
        timeout, policy = self.runtime.limits(self.step)
        if policy is None:
            return self._attempt(context, timeout)
        return self._retry(context, timeout, policy)

    async def _retry(self, context: WorkflowContext, timeout: float | None, policy: RetryPolicy) -> EncodedResult:
        runtime, attempts = self.runtime, 0
        if self.visit.scope.retries:
            attempts = await continue_retry(self.visit)
        while True:
            attempts += 1
            self.visit.next_retry = policy if attempts < policy.max_attempts else None
            encoded = await self._attempt(context, timeout)
            result = encoded.result
            if result.success or attempts >= policy.max_attempts:
                return encoded
            try:
                if not policy.retries(result.category or ErrorCategory.INTERNAL, result.as_exception):
                    return encoded
            except RetryPredicateError as exc:  # keeps the failure and adds the predicate's error
                encoded.result = replace(result, error=storable_text(f"{result.error}; {exc}"))
                return encoded
            if self.visit.cancel_reason_at(runtime.clock.monotonic()) is not None:
                return encoded  # middleware shields the attempts from the cancellation
            delay = next_delay(policy, attempts, runtime.random)
            if result.retry_after is not None:
                delay = result.retry_after
            log_retry(self.visit, result, delay)
            await wait_for_retry(runtime, self.visit, result, delay)

    async def _attempt(self, context: WorkflowContext, timeout: float | None) -> EncodedResult:
        runtime, visit, step, task = self.runtime, self.visit, self.step, self.limit.task
        if visit.is_cut_off:
            await anyio.lowlevel.checkpoint_if_cancelled()  # middleware caught the cancellation and tries again
            visit.is_cut_off = False
        cancellations = task.cancelling()
        if self.groups:
            self.groups.clear()
        visit.attempts += 1
        attempt = Attempt(visit)
        given = for_attempt(context, step.name, visit.attempts, visit.idempotency_key, attempt)
        try:
            if runtime.max_concurrent_steps is None:
                result = await self._within_limit(given, timeout, attempt)
            else:
                async with runtime.concurrency_slot(visit, step):
                    result = await self._within_limit(given, timeout, attempt)
        except BaseException as exc:  # user code: the step fails with what it raises
            if _ends_step(attempt, exc):
                raise
            result = await self._failure_of(cancellations, exc)
        finally:
            attempt.has_ended = True  # before `is_used` is read: a thread sees this, or what it emitted is found here
            if attempt.is_used:
                attempt.settle()
        if task.cancelling() > cancellations or not _is_plain_success(result):
            await self._continue_if_cancelled(attempt, cancellations, result)
        if result is NO_OUTPUT and step.output_model is None and step.quality_thresholds is None:
            return WITHOUT_OUTPUT
        encoded = encode_small(runtime, step, result) if is_small(result) else await self._encode_large(attempt, result)
        if self.timed_out is not None:
            return self._unless_rejected(encoded, self.timed_out)
        return encoded

    def _unless_rejected(self, encoded: EncodedResult, timed_out: StepResult) -> EncodedResult:
        """The success that a handler returned after its deadline; the timeout if its values cannot be stored."""
        self.timed_out = None
        if encoded.result.success:
            return encoded
        log_error_of_cancelled(self.visit, encoded.result.as_exception)
        return encode_result(self.step, timed_out)

    async def _encode_large(self, attempt: Attempt, result: StepResult) -> EncodedResult:
        try:
            return await encode_large(self.runtime, self.step, result)
        except CANCELLATION:  # cancelled while a thread encodes a large value
            attempt.cut_off()
            raise

    async def _failure_of(self, cancellations: int, error: BaseException) -> StepResult:
        if isinstance(error, CANCELLATION):
            return raised_failure(self.step, error)
        if await is_cancelled(self.runtime, self.visit, cancellations, error, self.groups):
            log_error_of_cancelled(self.visit, error)
        return raised_failure(self.step, error)

    async def _continue_if_cancelled(self, attempt: Attempt, cancellations: int, result: StepResult) -> None:
        """Raise the cancellation of an attempt that failed, or asked to stop the run, meanwhile.

        A success counts although the attempt was cancelled.
        """
        try:
            must_end = await is_cancelled(self.runtime, self.visit, cancellations, result.exception, self.groups)
        except CANCELLATION:  # a scope repeats it as long as middleware waits for this task
            must_end = True
        if must_end and not _is_plain_success(result):
            attempt.cut_off()
            await continue_cancellation()

    async def _within_limit(self, context: WorkflowContext, timeout: float | None, attempt: Attempt) -> StepResult:
        step, visit = self.step, self.visit
        execute = self.runtime.executors[step.step_type]
        is_limited = timeout is not None or step.idle_timeout is not None
        if step.idle_timeout is not None:
            self._begin_idle(timeout, step.idle_timeout)
        elif timeout is not None:
            visit.deadline_mono = self.limit.begin(timeout)
        try:
            result = as_result(step, await with_own_variables(execute(step, context), self.groups))
        except BaseException as exc:
            has_open_scope = self.limit.leave_open_scopes()
            if has_open_scope and isinstance(exc, CANCELLATION) and is_stray_cancellation():
                result = _open_scope_failure(step)  # that scope was cancelled
            elif not is_limited:
                raise
            else:
                return self._failed_within_limit(exc, timeout, attempt)
        if self.limit.scopes.cancel_scope is not self.limit.innermost:
            self.limit.leave_open_scopes()
            result = _open_scope_failure(step) if result.success else result
        return self._returned_within_limit(result, timeout, attempt) if is_limited else result

    def _returned_within_limit(self, result: StepResult, timeout: float | None, attempt: Attempt) -> StepResult:
        """The result of an attempt that returned, perhaps after its deadline."""
        if not result.success:
            attempt.keep_cancel_reason()
        self.visit.deadline_mono = None
        if self.limit.end():
            if not _is_plain_success(result):
                return self._timed_out(timeout)
            self.timed_out = self._timed_out(timeout)
        return result

    def _failed_within_limit(self, error: BaseException, timeout: float | None, attempt: Attempt) -> StepResult:
        """The result of an attempt that raised after its deadline; if it raised before, raises the error again."""
        attempt.keep_cancel_reason()
        self.visit.deadline_mono = None
        if not self.limit.end(error):
            raise error
        if not isinstance(error, CANCELLATION):
            log_error_of_cancelled(self.visit, error)
        return self._timed_out(timeout)

    def _begin_idle(self, timeout: float | None, seconds: float) -> None:
        """Begin an attempt that must not be silent for `seconds`."""
        visit = self.visit
        limit = visit.idle_limit = IdleLimit(seconds, visit.run.clock.monotonic(), timeout)

        def prolong(now_mono: float) -> float:
            visit.deadline_mono = limit.deadline_at(now_mono)
            return visit.deadline_mono

        visit.deadline_mono = self.limit.begin(limit.first_seconds, prolong)

    def _timed_out(self, timeout: float | None) -> StepResult:
        name, idle_limit = self.step.name, self.visit.idle_limit
        if idle_limit is not None and idle_limit.has_expired:
            problem = f"step {name!r} emitted no event and reported no progress for {idle_limit.seconds:g} s"
        else:
            problem = f"step {name!r} timed out after {timeout:g} s"
        error = TimeoutError(problem)
        return replace(StepResult.fail(problem, ErrorCategory.TIMEOUT), exception=error)


def _ends_step(attempt: Attempt, error: BaseException) -> bool:
    """Whether what an attempt raised ends the step or the process, and is not a failure of the attempt."""
    if not isinstance(error, CANCELLATION):
        return isinstance(error, PROCESS_EXIT)
    if is_stray_cancellation():
        return False
    attempt.cut_off()
    return True


def _is_plain_success(result: StepResult) -> bool:
    """Whether it counts while the attempt is cancelled: the cancellation decides how the run ends, not the handler."""
    return result.success and result.stop_reason is None


def _open_scope_failure(step: Step) -> StepResult:
    """The failure of a step whose handler or middleware has entered a scope and not left it."""
    problem = (
        f"step {step.name!r} left a cancel scope or task group of anyio open, or left one that it had not entered; "
        "enter them by 'with' or 'async with', and close async generators that have entered one"
    )
    return StepResult.fail(problem)
