"""The result of one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from datetime import timedelta
from typing import Any, cast

from spine_async._model.failure import (
    ErrorCategory,
    as_category,
    classify,
    describe,
    is_exception,
    retry_after,
    storable_text,
)
from spine_async._model.quality import QualityMetrics
from spine_async._model.status import StepStatus
from spine_async.errors import StepError

# Each step needs them, and Python 3.11 takes 140 ns to look up a member of an enumeration.
_COMPLETED, _SKIPPED, _FAILED = StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED


@dataclass(frozen=True, slots=True)
class StepEvent:
    """An event that a step adds to the events of its run.

    Args:
        event_type: Type of the event, chosen by the user.
        metadata: Further information by name; must have a strict JSON form.
    """

    event_type: str
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step: success, failure, skip, or stop of the run.

    Build one with `ok`, `fail`, `skip` or `stop`.

    Attributes:
        success: True for ok, skip and stop.
        output: Output that later steps read by the name of the step.
        context_updates: Changed params for the following steps.
        append: Elements to append to params that are lists, by name.
        quality: Quality metrics of the step's data, or None.
        events: Events of the step.
        error: Error text of a failure, or None.
        category: Error category of a failure, or None.
        retry_after: Seconds before the next attempt; overrides the delay of the policy.
        skip_reason: Why the step was skipped, or None.
        stop_reason: Why the run stops after this step, or None.
        exception: The exception of a failure; not stored.
    """

    success: bool
    output: object = None
    context_updates: Mapping[str, object] | None = None
    quality: QualityMetrics | None = None
    events: tuple[StepEvent, ...] = ()
    error: str | None = None
    category: str | None = None
    retry_after: float | None = None
    skip_reason: str | None = None
    stop_reason: str | None = None
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    append: Mapping[str, Sequence[object]] | None = None

    @classmethod
    def ok(
        cls,
        output: object = None,
        context_updates: Mapping[str, object] | None = None,
        quality: QualityMetrics | None = None,
        events: Iterable[StepEvent | Mapping[str, object] | str] | None = None,
        append: Mapping[str, Sequence[object]] | None = None,
    ) -> StepResult:
        """The step succeeded.

        Args:
            output: Output of the step; must have a strict JSON form.
            context_updates: Changed params for the following steps.
            quality: Quality metrics of the step's data.
            events: Events of the step; a string is an event without metadata.
            append: Lists of elements, by name of the param that they are appended to. The param must be a list; if it
                does not exist, it is created. Only the elements are stored, so a loop that appends in each turn stores
                each element once.
        """
        return cls(
            success=True,
            output=output,
            context_updates=context_updates,
            append=append,
            quality=quality,
            events=as_events(events) if events is not None else (),
        )

    @classmethod
    def fail(  # noqa: PLR0917 - positional in the public interface
        cls,
        error: str | BaseException,
        category: str = ErrorCategory.INTERNAL,
        output: object = None,
        quality: QualityMetrics | None = None,
        events: Iterable[StepEvent | Mapping[str, object] | str] | None = None,
        retry_after: float | timedelta | None = None,
    ) -> StepResult:
        """The step failed. The retry policy decides about another attempt.

        Args:
            error: Error text, or the exception.
            category: One of `ErrorCategory`, or a text of your own.
            output: Output of the failed step.
            quality: Quality metrics.
            events: Events of the step.
            retry_after: Seconds before the next attempt, or a `timedelta`; None leaves the delay to the policy.
        """
        return cls(
            success=False,
            output=output,
            quality=quality,
            events=as_events(events),
            error=describe(error) if is_exception(error) else _text(cast("str", error)),
            category=as_category(category) or category,
            retry_after=retry_after.total_seconds() if isinstance(retry_after, timedelta) else retry_after,
            exception=error if is_exception(error) else None,
        )

    @classmethod
    def skip(cls, reason: str, output: object = None) -> StepResult:
        """The step had nothing to do; the run continues."""
        return cls(success=True, output=output, skip_reason=_text(reason))

    @classmethod
    def stop(cls, reason: str, output: object = None) -> StepResult:
        """The step succeeded and the run ends as `stopped`. A resume continues after this step."""
        return cls(success=True, output=output, stop_reason=_text(reason))

    @classmethod
    def from_exception(cls, error: BaseException) -> StepResult:
        """The failure for an exception that a step raised."""
        return cls.fail(error, classify(error), retry_after=retry_after(error))

    @property
    def status(self) -> StepStatus:
        """Status of the visit: completed (also for a stop), skipped or failed."""
        if not self.success:
            return _FAILED
        return _SKIPPED if self.skip_reason is not None else _COMPLETED

    @property
    def as_exception(self) -> BaseException:
        """The exception of a failure; a `StepError` if the failure was returned instead of raised."""
        return self.exception or StepError(self.error or "", self.category or ErrorCategory.INTERNAL)


_Unfrozen: Any = make_dataclass(
    "_Unfrozen", [(each.name, each.type, field(default=each.default)) for each in fields(StepResult)], slots=True
)


def plain_success(output: object) -> StepResult:
    """`StepResult(True, output)` in a fifth of the time.

    A frozen dataclass calls `object.__setattr__` for each of its fields, which takes 3 % of a map item (W2).
    """
    result = _Unfrozen(True, output)
    result.__class__ = StepResult
    return cast("StepResult", result)


def _text(value: str) -> str:
    """Text that every database accepts. A value of another type is returned unchanged; the runner refuses it."""
    return storable_text(value) if isinstance(value, str) else value


def as_events(given: Iterable[StepEvent | Mapping[str, object] | str] | None) -> tuple[StepEvent, ...]:
    """The events of a step as `StepEvent`; a string is an event without metadata.

    A single event is accepted too. A value that is not an event is returned unchanged; the runner refuses the result
    that contains it.
    """
    if given is None:
        return ()
    if isinstance(given, Mapping):
        return (_as_event(given),) if given else ()
    if isinstance(given, (StepEvent, str)) or not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        return (_as_event(given),)
    return tuple(map(_as_event, given))


def _as_event(given: StepEvent | Mapping[str, object] | str) -> StepEvent:
    if isinstance(given, StepEvent):
        return given
    if isinstance(given, str):
        return StepEvent(given)
    if isinstance(given, Mapping):
        kind = given.get("event_type") or given.get("type")
        if isinstance(kind, str):
            rest = {key: value for key, value in given.items() if key not in ("event_type", "type", "metadata")}
            metadata = given.get("metadata")
            if metadata is None or isinstance(metadata, Mapping):
                return StepEvent(kind, {**rest, **(metadata or {})})
            return StepEvent(kind, metadata)  # type: ignore[arg-type]
    return given  # type: ignore[return-value]
