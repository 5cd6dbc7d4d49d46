"""Retry policies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from spine_async._model.async_callable import is_async_callable
from spine_async._model.failure import ErrorCategory, describe, leaves, sole_leaf
from spine_async._model.shown import shown
from spine_async._model.signature import check_callable, function_name
from spine_async._model.time_option import option_seconds, to_seconds
from spine_async.errors import InvalidPolicyError

Backoff: TypeAlias = Literal["exponential", "linear", "constant"]
Retryable: TypeAlias = str | type[BaseException] | Callable[[BaseException], bool]

BACKOFFS = ("exponential", "linear", "constant")


class _Unset:
    """A default that depends on another argument."""

    def __repr__(self) -> str:
        return "<default>"


_UNSET: Any = _Unset()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Number and delay of the attempts of a step.

    Args:
        max_attempts: Total number of attempts, including the first; at least 1. The default is 3, or one more than
            there are `delays`.
        backoff: How the delay grows from one retry to the next.
        initial_delay: Seconds before the first retry.
        max_delay: Maximum delay in seconds.
        retryable_errors: Which failures are retried: error categories, exception types, or predicates that take the
            exception (a `StepError` for a returned `StepResult.fail`); one of them, or an iterable. A type also matches
            the members of an exception group, and `TimeoutError` the timeout of the step.
        jitter: Whether to draw each delay uniformly between 0 and the computed delay. The default is True, with
            `delays` False.
        delays: The delay before each retry, in seconds or as a `timedelta`, instead of a computed one. There is one
            attempt more than there are delays.

    Raises:
        InvalidPolicyError: A limit is negative or not finite, `backoff` or a category is unknown, or another argument
            contradicts `delays`.

    Source: `docs/concepts.md`, "Failures, retries, timeouts".
    """

    max_attempts: int = _UNSET
    backoff: Backoff = "exponential"
    initial_delay: float = 1.0
    max_delay: float = 60.0
    retryable_errors: Retryable | Iterable[Retryable] = ("TRANSIENT", "TIMEOUT")
    jitter: bool = _UNSET
    delays: Iterable[float | timedelta] | None = None

    def __post_init__(self) -> None:
        self._fill_in(1 + len(self._take_delays()) if self.delays is not None else None)
        if not isinstance(self.max_attempts, int) or isinstance(self.max_attempts, bool) or self.max_attempts < 1:
            raise InvalidPolicyError(f"max_attempts is {shown(self.max_attempts)}; it must be an integer of at least 1")
        if self.backoff not in BACKOFFS:
            raise InvalidPolicyError(f"backoff is {shown(self.backoff)}; it must be one of {', '.join(BACKOFFS)}")
        for name in ("initial_delay", "max_delay"):
            _check_delay(name, getattr(self, name))
        object.__setattr__(self, "retryable_errors", _as_rules(self.retryable_errors))

    def _take_delays(self) -> tuple[float, ...]:
        delays = _as_delays(self.delays)
        object.__setattr__(self, "delays", delays)
        return delays

    def _fill_in(self, attempts: int | None) -> None:
        """Set the options that depend on `delays`; refuse those that contradict them."""
        for option, usual in (("max_attempts", 3), ("jitter", True)):
            if getattr(self, option) is _UNSET:
                listed = attempts if option == "max_attempts" else False
                object.__setattr__(self, option, usual if attempts is None else listed)
        if attempts is None:
            return
        if self.max_attempts != attempts:
            problem = (
                f"max_attempts is {shown(self.max_attempts)}, but the delays make {attempts} attempts; leave it out"
            )
            raise InvalidPolicyError(problem)
        for option, plain in (("jitter", False), ("backoff", "exponential"), ("initial_delay", 1.0), ("max_delay", 60)):
            if getattr(self, option) != plain:
                raise InvalidPolicyError(f"{option} has no effect on delays that are listed; leave it out")

    def delay_before(self, retry: int) -> float | None:
        """The listed delay before retry number `retry`, from 1; None if the delay is computed."""
        return self.delays[retry - 1] if isinstance(self.delays, tuple) else None

    def retries(self, category: str, error: BaseException) -> bool:
        """Whether a failure with this category and exception is retried.

        Raises:
            RetryPredicateError: A predicate raised an exception, or did not return a bool.
        """
        return any(_matches(rule, category, error) for rule in self._rules)

    @property
    def _rules(self) -> tuple[Retryable, ...]:
        return self.retryable_errors  # type: ignore[return-value]


def _check_delay(name: str, value: float) -> None:
    try:
        to_seconds(value)
    except ValueError as exc:
        raise InvalidPolicyError(f"{name}: {exc}") from None


def _as_delays(given: object) -> tuple[float, ...]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InvalidPolicyError(f"delays is {shown(given)}; it must be a list of delays in seconds")
    try:
        return tuple(option_seconds(each, f"delays[{index}]") for index, each in enumerate(given))
    except ValueError as exc:
        raise InvalidPolicyError(str(exc)) from None


def _as_rules(given: Retryable | Iterable[Retryable]) -> tuple[Retryable, ...]:
    is_single = isinstance(given, (str, type)) or callable(given)
    if not is_single and not isinstance(given, Iterable):
        raise _rule_error(given)
    return tuple(_as_rule(rule) for rule in ((given,) if is_single else given))  # type: ignore[union-attr]


def _as_rule(rule: object) -> Retryable:
    if isinstance(rule, str):
        if rule not in _CATEGORIES:
            raise InvalidPolicyError(
                f"retryable_errors contains {shown(rule)}, which is not an error category; the categories are "
                f"{', '.join(_CATEGORIES)}. For a category of your own, pass a predicate such as "
                "lambda error: error.category == 'MINE'"
            )
        return rule
    if isinstance(rule, type):
        if not issubclass(rule, BaseException):
            raise _rule_error(rule)
        return rule
    if not callable(rule):
        raise _rule_error(rule)
    if is_async_callable(rule):
        raise InvalidPolicyError(
            f"the predicate {function_name(rule)} in retryable_errors is async; pass a plain function"
        )
    try:
        check_callable("retryable_errors", rule)
    except ValueError as exc:
        raise InvalidPolicyError(str(exc)) from None
    return rule


def _rule_error(rule: object) -> InvalidPolicyError:
    return InvalidPolicyError(
        f"retryable_errors contains {shown(rule)}; it must contain categories, exception types or a predicate"
    )


_CATEGORIES = tuple(str(each) for each in ErrorCategory)


def _matches(rule: Retryable, category: str, error: BaseException) -> bool:
    if isinstance(rule, str):
        return rule == category
    if isinstance(rule, type):
        return isinstance(error, rule) or any(isinstance(each, rule) for each in leaves(error))
    return _ask(rule, sole_leaf(error))


def _ask(predicate: Callable[[BaseException], bool], error: BaseException) -> bool:
    name = function_name(predicate)
    try:
        answer: object = copy_context().run(predicate, error)  # later steps see no context variable that it sets
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:  # nothing is awaited, so a cancellation or `GeneratorExit` is the predicate's own
        raise RetryPredicateError(f"the retry predicate {name} raised {describe(exc)}") from exc
    if isinstance(answer, bool):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()  # it will never be awaited, and Python would warn about that later
    raise RetryPredicateError(
        f"the retry predicate {name} returned a value of type {type(answer).__name__}; it must return True or False"
    )


class RetryPredicateError(Exception):
    """A predicate in `retryable_errors` raised an exception or did not return a bool; the message says which."""
